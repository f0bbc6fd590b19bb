//! Looks at the replicas of whole brokers, all the time: do they agree with Raft's invariants?

use std::time::Duration;

use ouzel_broker::metrics::CoreSample;
use ouzel_broker::node::NodeHandle;
use ouzel_model::TopicIdPartition;
use ouzel_raft::{RaftGroup, ReplicatedLog};
use ouzel_runtime::{Clock, CoreId};

use super::shared::{Phase, Shared};
use crate::check::raft::Sight;
use crate::events::Events;
use crate::replica;

const INTERVAL: Duration = Duration::from_millis(100);

/// A sight, before its group has a number.
type Seen = (TopicIdPartition, Sight);

/// Looks at every replica of a node over and over, as long as its process runs; in the end at their contents.
pub(super) async fn watch(handle: NodeHandle, clock: Clock, cores: u16, life: u32, shared: Shared) {
    let mut has_compared = false;
    let mut counted = Counted::default();
    loop {
        clock.sleep(INTERVAL).await;
        let compares = shared.phase() == Phase::Comparing && !has_compared;
        for core in (0..cores).map(CoreId) {
            for (at, epoch) in handle.single_replicas(core).await.unwrap_or_default() {
                shared.see_alone(at, epoch);
            }
            let seen = handle.look_at_groups(core, move |groups| look(groups, life, compares)).await;
            for (at, sight) in seen.unwrap_or_default() {
                shared.see(at, sight, compares);
            }
        }
        if let Ok(sample) = handle.sample().await {
            counted.tell(&sample, shared.events());
        }
        if compares {
            has_compared = true;
            shared.node_compared();
        }
    }
}

/// What a process has counted so far.
#[derive(Default)]
struct Counted {
    losses: u64,
    compactions: u64,
    elections: u64,
}

impl Counted {
    fn tell(&mut self, sample: &CoreSample, events: &Events) {
        let now = Counted {
            losses: sample.tails_given_up + sample.inherited + sample.reversions,
            compactions: sample.cleaner.passes,
            elections: sample.elections,
        };
        events.add("losses-told", now.losses.saturating_sub(self.losses));
        events.add("compactions", now.compactions.saturating_sub(self.compactions));
        events.add("elections", now.elections.saturating_sub(self.elections));
        *self = now;
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
