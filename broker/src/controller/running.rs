//! What the controller needs of the cluster as it runs, beyond its own log: who leads what, who answers, how far the
//! replicas of its log are; and elections, which others hold. Plans are given this as values.

use std::rc::Rc;

use ouzel_metadata::Claim;
use ouzel_metadata::image::Broker;
use ouzel_metadata::plan::{ElectLeadersError, Election};
use ouzel_model::{LeaderEpoch, NodeId, Offset, TopicIdPartition};
use ouzel_raft::ReplicatedLog;

use super::metadata_log::MetadataLog;
use crate::core::Core;

/// The newest claim about a partition.
pub(super) fn claim(core: &Core, at: TopicIdPartition) -> Option<Claim> {
    let view = core.view();
    let replica = view.image.partition(at)?.replica_on(core.node.config.node_id)?;
    let route = view.routes.get(&at)?;
    // A single replica leads itself.
    Some(Claim {
        epoch: LeaderEpoch(route.offsets.read().leader_epoch),
        leader: replica,
        in_sync: vec![replica],
        voters: vec![replica],
    })
}

/// Whether the process that registered a broker still answers.
pub(super) fn is_alive(core: &Core, broker: &Broker) -> bool {
    // This node is alive in one process, the one that asks; of others it has not heard.
    let _ = (core, broker);
    false
}

/// Makes one of the candidates lead; resolves when it does.
///
/// # Errors
/// When none came to lead in time.
pub(super) async fn hold_election(core: &Rc<Core>, election: Election) -> Result<(), ElectLeadersError> {
    let leads = claim(core, election.at).is_some_and(|claim| election.candidates.contains(&claim.leader));
    if leads { Ok(()) } else { Err(ElectLeadersError::PreferredNotAvailable) }
}

/// How the controller's own log stands, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quorum {
    /// The leader's reign.
    pub(crate) epoch: LeaderEpoch,
    /// Exclusive end of what is decided.
    pub(crate) high_watermark: Offset,
    /// Those whose majority decides, the leader first.
    pub(crate) voters: Vec<QuorumReplica>,
    /// Those that follow without a vote.
    pub(crate) observers: Vec<QuorumReplica>,
}

/// How far one replica of the controller's log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuorumReplica {
    /// On which node.
    pub(crate) node: NodeId,
    /// Exclusive end of its log; `None` if the leader has not heard.
    pub(crate) log_end: Option<Offset>,
    /// When the leader last heard of it, in milliseconds of the wall clock; `None` if never.
    pub(crate) heard_ms: Option<i64>,
    /// When it last had all there was, likewise.
    pub(crate) caught_up_ms: Option<i64>,
}

/// How the controller's own log stands. On the node that leads it.
pub(super) fn quorum(core: &Core, log: &MetadataLog) -> Quorum {
    let offsets = log.replica().offsets();
    let now_ms = core.runtime.clock.wall_ms();
    let leader = QuorumReplica {
        node: core.node.config.node_id,
        log_end: Some(offsets.log_end),
        heard_ms: Some(now_ms),
        caught_up_ms: Some(now_ms),
    };
    Quorum {
        epoch: log.replica().epoch(),
        high_watermark: offsets.high_watermark,
        voters: vec![leader],
        observers: Vec::new(),
    }
}
