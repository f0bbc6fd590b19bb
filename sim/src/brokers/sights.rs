//! Looks at the replicas of whole brokers, all the time: do they agree with Raft's invariants?

use std::time::Duration;

use ouzel_broker::node::NodeHandle;
use ouzel_model::TopicIdPartition;
use ouzel_raft::{RaftGroup, ReplicatedLog};
use ouzel_runtime::{Clock, CoreId};

use super::shared::{Phase, Shared};
use crate::check::raft::Sight;
use crate::replica;

const INTERVAL: Duration = Duration::from_millis(100);

/// A sight, before its group has a number.
type Seen = (TopicIdPartition, Sight);

/// Looks at every replica of a node over and over, as long as its process runs; in the end at their contents.
pub(super) async fn watch(handle: NodeHandle, clock: Clock, cores: u16, life: u32, shared: Shared) {
    let mut has_compared = false;
    loop {
        clock.sleep(INTERVAL).await;
        let compares = shared.phase() == Phase::Comparing && !has_compared;
        for core in (0..cores).map(CoreId) {
            let seen = handle.look_at_groups(core, move |groups| look(groups, life, compares)).await;
            for (at, sight) in seen.unwrap_or_default() {
                shared.see(at, sight, compares);
            }
        }
        if compares {
            has_compared = true;
            shared.node_compared();
        }
    }
}

async fn look(groups: Vec<RaftGroup>, life: u32, whole: bool) -> Vec<Seen> {
    let mut seen = Vec::new();
    for group in groups {
        tracing::debug!(?group, status = ?group.status(), "a replica");
        let mut sight = replica::sight(&group, 0, life, group.epoch());
        if whole {
            // As many as can be read.
            sight.entries = replica::contents(&group).await.entries;
            sight.purged = group.local().purged();
            sight.committed = None;
        }
        seen.push((group.at(), sight));
    }
    seen
}
