//! Leadership handed over before an orderly stop: what this node leads, others that are in sync lead from then on, so that
//! nobody has to notice that it is gone first. Clients are told to look elsewhere while this node still answers them.
//!
//! The controller comes last: as long as it can, it goes on deciding, and other nodes hear where the rest went. What cannot
//! be handed over in time is left to the others' elections, as after a crash.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use ouzel_model::{NodeId, ReplicaId};
use ouzel_raft::{GroupStatus, RaftGroup, Role, TransferError};

use crate::controller::CONTROLLER_CORE;
use crate::core::Core;
use crate::node::metadata_at;

/// How long all of it may take. The successors do not hear that others hand over to them, or that they stop themselves.
const HANDOVER_MAX: Duration = Duration::from_secs(5);
/// Transfers under way at a time, on each core. One takes about as long as a flush on two nodes.
const AT_A_TIME: usize = 32;

/// Who may lead in the place of `own`, the best first: voters in sync, in the order in which the partition prefers them.
pub(crate) fn successors(status: &GroupStatus, own: ReplicaId, preferred: &[ReplicaId]) -> Vec<ReplicaId> {
    let may_lead = |replica: &ReplicaId| {
        *replica != own && status.in_sync.contains(replica) && status.voters.contains(replica)
    };
    let mut successors: Vec<ReplicaId> = preferred
        .iter()
        .copied()
        .filter(may_lead)
        .chain(status.in_sync.iter().copied().filter(may_lead))
        .collect();
    let mut seen = BTreeSet::new();
    successors.retain(|replica| seen.insert(*replica));
    successors
}

/// What became of the groups that were led here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    handed_over: usize,
    left: usize,
}

/// Hands over everything this node leads, on all cores side by side, the controller last. Takes at most
/// [`HANDOVER_MAX`]. On the first core.
pub(crate) async fn hand_over(core: &Rc<Core>) {
    if core.node.membership.is_none() || !core.broker_config().hands_over {
        return;
    }
    let began = core.runtime.clock.now();
    let mut outcome = Outcome::default();
    let handing = async {
        let cores: Vec<_> = core
            .cores
            .ids()
            .map(|to| {
                core.call(to, |core| {
                    let core = core.clone();
                    async move { hand_over_partitions(&core).await }
                })
            })
            .collect();
        for handed in cores {
            let Outcome { handed_over, left } = handed.await.unwrap_or_default();
            outcome.handed_over += handed_over;
            outcome.left += left;
        }
        if let Some(group) = core.group(&metadata_at()).filter(leads) {
            let preferred =
                core.view().image.controller().map(|own| own.replicas.clone()).unwrap_or_default();
            match hand_group_over(&group, &preferred, &Unready::default()).await {
                true => outcome.handed_over += 1,
                false => outcome.left += 1,
            }
        }
    };
    debug_assert!(core.id() == CONTROLLER_CORE);
    let in_time = core.runtime.clock.timeout(HANDOVER_MAX, handing).await.is_ok();
    let took_ms = core.runtime.clock.now().duration_since(began).as_millis();
    let Outcome { handed_over, left } = outcome;
    if in_time && left == 0 {
        tracing::info!(handed_over, took_ms, "others lead what this node led");
    } else {
        tracing::warn!(
            handed_over,
            left,
            in_time,
            took_ms,
            "not everything this node led was handed over; the others elect"
        );
    }
}

fn leads(group: &RaftGroup) -> bool {
    group.status().role == Role::Leader
}

/// Hands over what a core's partitions lead.
async fn hand_over_partitions(core: &Rc<Core>) -> Outcome {
    let view = core.view();
    let led = core.partitions.all().into_iter().filter_map(|partition| {
        let group = partition.group().filter(leads)?;
        let preferred = view.image.partition(*partition.at()).map(|known| known.replicas.clone());
        Some((group, preferred.unwrap_or_default()))
    });
    let led: Rc<RefCell<VecDeque<_>>> = Rc::new(RefCell::new(led.collect()));
    let unready = Rc::new(Unready::default());
    let workers: Vec<_> = (0..AT_A_TIME.min(led.borrow().len()))
        .map(|_| {
            let (led, unready) = (led.clone(), unready.clone());
            ouzel_runtime::spawn(async move {
                let mut outcome = Outcome::default();
                loop {
                    let Some((group, preferred)) = led.borrow_mut().pop_front() else { return outcome };
                    match hand_group_over(&group, &preferred, &unready).await {
                        true => outcome.handed_over += 1,
                        false => outcome.left += 1,
                    }
                }
            })
        })
        .collect();
    let mut sum = Outcome::default();
    for worker in workers {
        let Outcome { handed_over, left } = worker.await.unwrap_or_default();
        sum.handed_over += handed_over;
        sum.left += left;
    }
    sum
}

/// Nodes that did not take what they were offered. They may be stopping themselves: to wait for them with each group would
/// take the time that the others need.
type Unready = RefCell<BTreeSet<NodeId>>;

/// Hands one group over to whoever is ready first; says whether another leads.
async fn hand_group_over(group: &RaftGroup, preferred: &[ReplicaId], unready: &Unready) -> bool {
    for to in successors(&group.status(), group.replica(), preferred) {
        if unready.borrow().contains(&to.node) {
            continue;
        }
        match group.transfer(to).await {
            Ok(()) | Err(TransferError::NotLeader) => return true,
            // It leads no more; who does, the others find out.
            Err(TransferError::NotTaken(_)) => return false,
            Err(TransferError::NotReady(_)) => {
                unready.borrow_mut().insert(to.node);
            }
            Err(TransferError::NotAVoter(_)) => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use ouzel_model::{LeaderEpoch, NodeId, Offset};

    use super::*;

    fn on(node: i32) -> ReplicaId {
        ReplicaId::first(NodeId(node))
    }

    fn status(in_sync: &[i32], voters: &[i32]) -> GroupStatus {
        GroupStatus {
            role: Role::Leader,
            epoch: LeaderEpoch(3),
            leader: Some(on(1)),
            in_sync: in_sync.iter().copied().map(on).collect(),
            voters: voters.iter().copied().map(on).collect(),
            learners: Vec::new(),
            committed: None,
            last_entry: None,
            high_watermark: Offset::ZERO,
            held: Vec::new(),
            reversions: 0,
            failure: None,
        }
    }

    #[test]
    fn who_is_preferred_and_in_sync_comes_first() {
        let order = [on(3), on(1), on(2)];
        let of = |in_sync: &[i32]| successors(&status(in_sync, &[1, 2, 3, 4]), on(1), &order);
        assert_eq!(of(&[1, 2, 3]), [on(3), on(2)]);
        assert_eq!(of(&[1, 2]), [on(2)], "who is behind does not lead");
        assert_eq!(of(&[1, 4, 2]), [on(2), on(4)], "one that is to go is better than none");
        assert_eq!(of(&[1]), [], "nobody is left");
        assert_eq!(successors(&status(&[1, 2], &[1, 3]), on(1), &order), [], "only who votes can lead");
    }
}
