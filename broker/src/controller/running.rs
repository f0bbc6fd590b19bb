//! What the controller needs of the cluster as it runs, beyond its own log: who leads what, who answers, how far the
//! replicas of its log are; and elections, which others hold. Plans are given this as values.

use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::Claim;
use ouzel_metadata::image::Broker;
use ouzel_metadata::plan::{ElectLeadersError, Election};
use ouzel_model::{LeaderEpoch, NodeId, Offset, ReplicaId, TopicIdPartition};
use ouzel_raft::{ReplicatedLog, gossip};
use ouzel_runtime::clock::Instant;

use super::metadata_log::MetadataLog;
use crate::core::{Core, incarnation_of};
use crate::rpc::ask;
use crate::rpc::control::ControlCall;

/// The newest claim about a partition.
pub(super) fn claim(core: &Core, at: TopicIdPartition) -> Option<Claim> {
    if let Some(claim) = core.cluster().and_then(|cluster| cluster.claim(&at)) {
        let gossip::Claim { epoch, leader, in_sync, voters, .. } = claim;
        return Some(Claim { epoch, leader, in_sync, voters });
    }
    let view = core.view();
    let replica = view.image.partition(at)?.replica_on(core.node.config.node_id)?;
    let route = view.routes.get(&at)?;
    // A single replica leads itself; of others nothing is known that nobody claims.
    let is_single = view.image.partition(at)?.holders().count() == 1;
    is_single.then(|| Claim {
        epoch: LeaderEpoch(route.offsets.read().leader_epoch),
        leader: replica,
        in_sync: vec![replica],
        voters: vec![replica],
    })
}

/// Whether the process that registered a broker still answers.
pub(super) fn is_alive(core: &Core, broker: &Broker) -> bool {
    // A node that is alone is alive in one process, the one that asks.
    let Some(cluster) = core.cluster() else { return false };
    let process = cluster.peers.process_of(broker.node).map(incarnation_of);
    cluster.is_up(broker.node) && process == Some(broker.incarnation)
}

/// How long an election may take.
const ELECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether it is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Makes one of the candidates lead; resolves when it does.
///
/// # Errors
/// When none came to lead in time.
pub(super) async fn hold_election(core: &Rc<Core>, election: Election) -> Result<(), ElectLeadersError> {
    let holding = async {
        loop {
            let claim = claim(core, election.at);
            if claim.as_ref().is_some_and(|claim| election.candidates.contains(&claim.leader)) {
                return;
            }
            if let (Some(claim), Some(to)) = (claim, election.candidates.first()) {
                // Whoever leads hands over; what becomes of it is seen by who leads next.
                let asked = ControlCall::Transfer(election.at, *to);
                let _ = ask::ask_or_answer(core, claim.leader.node, asked).await;
            }
            core.runtime.clock.sleep(LOOK_INTERVAL).await;
        }
    };
    let held = core.runtime.clock.timeout(ELECTION_TIME_MAX, holding).await;
    held.map_err(|_| ElectLeadersError::PreferredNotAvailable)
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
    let (now, now_ms) = (core.runtime.clock.now(), core.runtime.clock.wall_ms());
    let own = QuorumReplica {
        node: core.node.config.node_id,
        log_end: Some(offsets.log_end),
        heard_ms: Some(now_ms),
        caught_up_ms: Some(now_ms),
    };
    let (mut voters, mut observers) = (vec![own], Vec::new());
    if let Some(group) = log.group() {
        let status = group.status();
        let replica = |replica: &ReplicaId| {
            let held = status.held.iter().find(|(known, _)| known == replica).and_then(|(_, held)| *held);
            let is_up = core.cluster().is_some_and(|cluster| cluster.is_up(replica.node));
            let seen = group.last_seen(*replica, is_up);
            let wall_ms = |at: Instant| now_ms - now.duration_since(at).as_millis() as i64;
            QuorumReplica {
                node: replica.node,
                log_end: held.and_then(|held| log.replica().local().entry_end(held)),
                heard_ms: seen.heard_at.map(wall_ms),
                caught_up_ms: seen.caught_up_at.map(wall_ms),
            }
        };
        let is_other = |id: &&ReplicaId| id.node != core.node.config.node_id;
        voters.extend(status.voters.iter().filter(is_other).map(replica));
        observers.extend(status.learners.iter().filter(is_other).map(replica));
    }
    Quorum { epoch: log.replica().epoch(), high_watermark: offsets.high_watermark, voters, observers }
}
