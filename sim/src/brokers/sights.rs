//! Looks at the replicas of whole brokers, all the time: do they agree with Raft's invariants?

use std::time::Duration;

use ouzel_broker::node::NodeHandle;
use ouzel_model::{EntryIndex, TopicIdPartition};
use ouzel_raft::{RaftGroup, ReplicatedLog, Role};
use ouzel_runtime::{Clock, CoreId};
use ouzel_storage::entries::EntryBody;

use super::shared::{Phase, Shared};
use crate::check::raft::{SeenEntry, Sight};
use crate::content::sum;

/// Entries looked at each time: the newest. In the end all are read.
const ENTRIES_MAX: u64 = 150;
const INTERVAL: Duration = Duration::from_millis(100);
const READ_BYTES_MAX: usize = 1 << 20;

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
        let mut sight = sight(&group, life);
        if whole {
            sight.entries = contents(&group).await;
            sight.purged = group.local().purged();
            sight.committed = None;
        }
        seen.push((group.at(), sight));
    }
    seen
}

fn sight(group: &RaftGroup, life: u32) -> Sight {
    let (status, epoch, log) = (group.status(), group.epoch(), group.local());
    let last = log.last_entry().map_or(0, |last| last.index.0);
    let purged = log.purged().map_or(0, |purged| purged.index.0);
    let before = purged.max(last.saturating_sub(ENTRIES_MAX));
    let entries = (before + 1..=last).filter_map(|index| {
        let index = EntryIndex(index);
        Some(SeenEntry { id: log.entry_id(index)?, end: log.entry_end(index)?, sum: 0 })
    });
    let entries: Vec<SeenEntry> = entries.collect();
    // The newest batch below the watermark; the cluster's own word of it may run ahead of what this replica holds.
    let below = entries.iter().rposition(|entry| entry.end <= status.high_watermark);
    let committed = below.and_then(|below| {
        (1..=below).rev().find(|at| entries[at - 1].end < entries[*at].end).map(|at| entries[at].id)
    });
    Sight {
        group: 0,
        replica: group.replica(),
        life,
        epoch,
        voted_for: None,
        leads: status.role == Role::Leader && status.epoch == epoch,
        committed,
        purged: log.entry_id(EntryIndex(before)).or(log.purged()),
        entries,
    }
}

/// All entries of a replica, with sums of what they hold; as many as can be read.
async fn contents(group: &RaftGroup) -> Vec<SeenEntry> {
    let log = group.local().clone();
    let (Some(last), purged) = (log.last_entry(), log.purged().map_or(0, |purged| purged.index.0)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut next = purged + 1;
    while next <= last.index.0 {
        let read = log.read_entries(EntryIndex(next), EntryIndex(last.index.0 + 1), READ_BYTES_MAX).await;
        let Ok(entries) = read else { break };
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            let sum = match &entry.body {
                EntryBody::Batch(bytes) => sum(bytes),
                EntryBody::Side { kind, body } => sum(body) ^ u64::from(*kind),
            };
            next = entry.id.index.0 + 1;
            found.push(SeenEntry { id: entry.id, end: entry.end_offset, sum });
        }
    }
    found
}
