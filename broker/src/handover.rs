//! Leadership of a group handed over by the replica that has it: who may take it, and who of them does.

pub(crate) mod before_stop;

use std::cell::RefCell;
use std::collections::BTreeSet;

use ouzel_model::{NodeId, ReplicaId};
use ouzel_raft::{GroupStatus, RaftGroup, TransferError};

/// Those of `candidates` that may lead in the place of `own`, in their order: voters in sync.
pub(crate) fn may_lead<'a>(
    status: &'a GroupStatus,
    own: ReplicaId,
    candidates: &'a [ReplicaId],
) -> impl Iterator<Item = ReplicaId> + 'a {
    candidates.iter().copied().filter(move |replica| {
        *replica != own && status.in_sync.contains(replica) && status.voters.contains(replica)
    })
}

/// Nodes that did not take what they were offered. They may be stopping themselves: to wait for them with each group would
/// take the time that the others need.
pub(crate) type Unready = RefCell<BTreeSet<NodeId>>;

/// Hands a group over to the first of `successors` that is ready.
///
/// # Errors
/// Nobody has taken over: why, in words.
pub(crate) async fn hand_over(
    group: &RaftGroup,
    successors: &[ReplicaId],
    unready: &Unready,
) -> Result<(), String> {
    let mut reasons = Vec::new();
    for to in successors {
        if unready.borrow().contains(&to.node) {
            continue;
        }
        match group.transfer(*to).await {
            // Not the leader: another one is by now.
            Ok(()) | Err(TransferError::NotLeader) => return Ok(()),
            // It leads no more; who does, the others find out.
            Err(error @ TransferError::NotTaken(_)) => return Err(error.to_string()),
            Err(error) => {
                if matches!(error, TransferError::NotReady(_)) {
                    unready.borrow_mut().insert(to.node);
                }
                reasons.push(error.to_string());
            }
        }
    }
    if reasons.is_empty() {
        return Err("nobody who could lead is in sync".to_owned());
    }
    Err(reasons.join("; "))
}
