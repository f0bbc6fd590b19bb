//! Looks at the replicas of whole brokers, all the time: do they agree with Raft's invariants?

use std::time::Duration;

use ouzel_broker::metrics::CoreSample;
use ouzel_broker::node::NodeHandle;
use ouzel_model::{EntryIndex, NodeId, TopicIdPartition};
use ouzel_raft::RaftGroup;
use ouzel_runtime::{Clock, CoreId};

use super::holdings::{Held, Stand};
use super::shared::{Phase, Shared};
use crate::check::raft::Sight;
use crate::check::verdict::{Kind, Violation};
use crate::events::Events;
use crate::replica;

const INTERVAL: Duration = Duration::from_millis(100);
/// Where losses may be counted they are looked for so often: a process that dies takes its counts with it.
const COUNTS_INTERVAL: Duration = Duration::from_millis(5);

/// A replica, before its group has a number.
struct Seen {
    sight: Sight,
    /// From where on its entries cannot be read, and why.
    unreadable: Option<(EntryIndex, String)>,
}

/// Looks at every replica of a node over and over, as long as its process runs; in the end at their contents.
pub(super) async fn watch(
    handle: NodeHandle,
    node: NodeId,
    clock: Clock,
    cores: u16,
    life: u32,
    shared: Shared,
) {
    let mut has_compared = false;
    let mut counted = Counted::default();
    loop {
        let look_at = clock.now() + INTERVAL;
        while clock.now() < look_at {
            let pause = if shared.is_any_loss_admitted() { COUNTS_INTERVAL } else { INTERVAL };
            clock.sleep(pause).await;
            if let Ok(sample) = handle.sample().await {
                counted.tell(&sample, shared.events());
            }
        }
        if let Ok(faults) = handle.faults().await {
            shared.set_faults(node, faults);
        }
        let compares = shared.phase() == Phase::Comparing && !has_compared;
        let mut all_answer = true;
        for core in (0..cores).map(CoreId) {
            let alone = handle.single_replicas(core).await;
            let seen = handle.look_at_groups(core, move |groups| look(groups, life, compares)).await;
            // A core that takes no work any more has not said that it holds nothing.
            let (Ok(alone), Ok(seen)) = (alone, seen) else {
                all_answer = false;
                continue;
            };
            let mut held = Held::default();
            for (at, epoch) in alone {
                shared.see_alone(at, epoch);
                held.alone.insert(at);
            }
            for (at, Seen { sight, unreadable }) in seen {
                held.members.insert(at, Stand::of(&sight));
                if let Some((from, why)) = unreadable.filter(|_| !shared.are_lies_told()) {
                    let facts = format!("{} of {at:?} cannot be read from {from} on: {why}", sight.replica);
                    shared.broken(Violation { kind: Kind::LogMismatch, facts });
                }
                shared.see(at, sight, compares);
            }
            shared.hold(node, core, held);
        }
        if compares && all_answer {
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
}

impl Counted {
    fn tell(&mut self, sample: &CoreSample, events: &Events) {
        let now = Counted {
            losses: sample.tails_given_up + sample.inherited + sample.reversions,
            compactions: sample.cleaner.passes,
        };
        events.add("losses-told", now.losses.saturating_sub(self.losses));
        events.add("compactions", now.compactions.saturating_sub(self.compactions));
        *self = now;
    }
}

async fn look(groups: Vec<RaftGroup>, life: u32, whole: bool) -> Vec<(TopicIdPartition, Seen)> {
    let mut seen = Vec::new();
    for group in groups {
        tracing::debug!(?group, status = ?group.status(), "a replica");
        let (epoch, voted_for) = group.vote();
        let mut sight = Sight { voted_for, ..replica::sight(&group, 0, life, epoch) };
        let mut unreadable = None;
        if whole {
            let contents = replica::contents(&group).await;
            (sight.purged, sight.entries) = (contents.purged, contents.entries);
            unreadable = contents.unreadable;
            sight.committed = None;
        }
        seen.push((group.at(), Seen { sight, unreadable }));
    }
    seen
}
