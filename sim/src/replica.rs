//! What is seen of one replica from within its process: at any moment its newest entries, in the end all it holds.

use std::collections::BTreeMap;

use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, ReplicaId};
use ouzel_raft::{RaftGroup, ReplicatedLog, Role};
use ouzel_storage::entries::EntryBody;

use crate::check::raft::{SeenEntry, Sight};
use crate::content::sum;
use crate::events::Events;

/// Entries looked at each time: the newest. In the end all are read.
const ENTRIES_MAX: u64 = 150;
const READ_BYTES_MAX: usize = 1 << 20;

/// A replica of group number `number`, in a life of its process, in the epoch of its newest vote. Whom it voted for is not
/// looked at here, nor what its entries hold.
pub(crate) fn sight(group: &RaftGroup, number: u32, life: u32, epoch: LeaderEpoch) -> Sight {
    let (status, log) = (group.status(), group.local());
    let last = log.last_entry().map_or(0, |last| last.index.0);
    let purged = log.purged().map_or(0, |purged| purged.index.0);
    let leads = status.role == Role::Leader && status.epoch == epoch;
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
        group: number,
        replica: group.replica(),
        life,
        epoch,
        voted_for: None,
        leads,
        committed,
        purged: log.entry_id(EntryIndex(before)).or(log.purged()),
        entries,
        known: status.committed.map(|id| id.index),
        head: log.purged(),
        voters: status.voters,
    }
}

/// Notices what replicas do that they do not do every day.
#[derive(Default)]
pub(crate) struct Milestones {
    /// Where the head of each replica was when it was last seen, and its newest entry.
    replicas: BTreeMap<(u32, ReplicaId), (Option<EntryIndex>, Option<EntryIndex>)>,
    voters: BTreeMap<u32, Vec<ReplicaId>>,
    /// The newest epoch that each group was seen to be led in.
    reigns: BTreeMap<u32, LeaderEpoch>,
}

impl Milestones {
    pub(crate) fn see(&mut self, sight: &Sight, events: &Events) {
        let head = sight.head.map(|head| head.index);
        let last = sight.entries.last().map(|entry| entry.id.index).max(head);
        let before = self.replicas.insert((sight.group, sight.replica), (head, last));
        let (head_before, last_before) = before.unwrap_or_default();
        if head > head_before {
            events.add(
                match head > last_before {
                    false => "purges",
                    // Whoever leads has not been given it.
                    true if sight.leads => "geneses",
                    true => "snapshots-installed",
                },
                1,
            );
        }
        if sight.leads && self.reigns.get(&sight.group) < Some(&sight.epoch) {
            self.reigns.insert(sight.group, sight.epoch);
            events.add("elections", 1);
        }
        events.add("votes-seen", u64::from(sight.voted_for.is_some()));
        if !sight.leads {
            return;
        }
        let Some(was) = self.voters.insert(sight.group, sight.voters.clone()) else { return };
        events.add("member-changes", u64::from(was != sight.voters));
        let is_reborn =
            |voter: &&ReplicaId| !was.contains(voter) && was.iter().any(|before| before.node == voter.node);
        events.add("replicas-reborn", sight.voters.iter().filter(is_reborn).count() as u64);
    }
}

/// Entries with sums of what they hold.
pub(crate) struct Contents {
    /// Up to where they are no longer entries.
    pub(crate) purged: Option<EntryId>,
    /// All that could be read, in order.
    pub(crate) entries: Vec<SeenEntry>,
    /// From where on it cannot be read, and why.
    pub(crate) unreadable: Option<(EntryIndex, String)>,
}

/// All entries of a replica.
pub(crate) async fn contents(group: &RaftGroup) -> Contents {
    let log = group.local().clone();
    let mut contents = Contents { purged: log.purged(), entries: Vec::new(), unreadable: None };
    let Some(last) = log.last_entry() else { return contents };
    let after = |purged: Option<EntryId>| EntryIndex(purged.map_or(0, |purged| purged.index.0) + 1);
    let mut next = after(contents.purged);
    while next <= last.index {
        let read = match log.read_entries(next, EntryIndex(last.index.0 + 1), READ_BYTES_MAX).await {
            Ok(read) if !read.is_empty() => read,
            // They have become data meanwhile.
            _ if after(log.purged()) > next => {
                contents = Contents { purged: log.purged(), entries: Vec::new(), unreadable: None };
                next = after(contents.purged);
                continue;
            }
            other => {
                contents.unreadable = Some((next, format!("{other:?}")));
                break;
            }
        };
        for entry in read {
            let sum = match &entry.body {
                EntryBody::Batch(bytes) => sum(bytes),
                EntryBody::Side { kind, body } => sum(body) ^ u64::from(*kind),
            };
            next = EntryIndex(entry.id.index.0 + 1);
            contents.entries.push(SeenEntry { id: entry.id, end: entry.end_offset, sum });
        }
    }
    contents
}
