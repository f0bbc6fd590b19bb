//! Looks at the replicas, all the time: do they agree with Raft's invariants?

use ouzel_model::{EntryId, EntryIndex, Offset};
use ouzel_raft::{RaftGroup, ReplicatedLog, Role};
use ouzel_storage::entries::EntryBody;

use super::process::{Inside, vote};
use super::world::World;
use crate::check::raft::{SeenEntry, Sight};
use crate::check::verdict::Kind;
use crate::content::sum;

/// Entries looked at each time: the newest. All of them are looked at in the end.
const ENTRIES_MAX: u64 = 150;
const INTERVAL_MS: u64 = 50;

/// Looks at every replica over and over, until the run ends.
pub(super) async fn watch(world: World) {
    loop {
        world.sleep_ms(INTERVAL_MS).await;
        look(&world);
    }
}

/// Looks at every replica that runs.
pub(super) fn look(world: &World) {
    for node in &world.nodes {
        let Some(inside) = node.inside.borrow().clone() else { continue };
        for (number, group) in &*inside.groups.borrow() {
            let sight = sight(world, &inside, *number, node.life.get(), group);
            let mut verdict = world.verdict.borrow_mut();
            let before = verdict.violations.len();
            world.judge.borrow_mut().see(&sight, &mut verdict);
            for violation in &verdict.violations[before..] {
                world.note("judge", format_args!("VIOLATION {violation}"));
            }
        }
    }
}

fn sight(world: &World, inside: &Inside, number: u32, life: u32, group: &RaftGroup) -> Sight {
    let status = group.status();
    let log = group.local();
    let (epoch, voted_for) = vote(inside, &world.groups[number as usize].at);
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
    let batch = below.and_then(|below| {
        (1..=below).rev().find(|at| entries[at - 1].end < entries[*at].end).map(|at| entries[at].id)
    });
    Sight {
        group: number,
        replica: group.replica(),
        life,
        // The newest vote is on the medium before anything is done under it.
        epoch,
        voted_for,
        leads: status.role == Role::Leader && status.epoch == epoch,
        committed: batch,
        purged: log.entry_id(EntryIndex(before)).or(log.purged()),
        entries,
    }
}

/// In the end: all replicas of a group hold the same entries with the same content.
pub(super) async fn compare_contents(world: &World, number: u32) {
    let mut first: Option<Vec<(EntryId, Offset, u64)>> = None;
    for node in &world.nodes {
        let Some(inside) = node.inside.borrow().clone() else { continue };
        let Some(group) = inside.group(number) else { continue };
        let log = group.local().clone();
        let (Some(last), purged) = (log.last_entry(), log.purged().map_or(0, |purged| purged.index.0)) else {
            continue;
        };
        let mut found = Vec::new();
        let mut next = purged + 1;
        while next <= last.index.0 {
            let read = log.read_entries(EntryIndex(next), EntryIndex(last.index.0 + 1), 1 << 20).await;
            let entries = match read {
                Ok(entries) if !entries.is_empty() => entries,
                other => {
                    world.broken(
                        Kind::LogMismatch,
                        format!("{group:?} cannot be read from {next}: {other:?}"),
                    );
                    return;
                }
            };
            for entry in entries {
                let sum = match &entry.body {
                    EntryBody::Batch(bytes) => sum(bytes),
                    EntryBody::Side { kind, body } => sum(body) ^ u64::from(*kind),
                };
                found.push((entry.id, entry.end_offset, sum));
                next = entry.id.index.0 + 1;
            }
        }
        let Some(first) = &first else {
            first = Some(found);
            continue;
        };
        // Below the later purge point only one of them has entries.
        let from = found.first().map(|(id, ..)| id.index).max(first.first().map(|(id, ..)| id.index));
        let above = |entries: &[(EntryId, Offset, u64)]| {
            entries.iter().filter(|(id, ..)| Some(id.index) >= from).copied().collect::<Vec<_>>()
        };
        let (one, other) = (above(first), above(&found));
        let differs = one.iter().zip(&other).find(|(one, other)| one != other);
        if let Some((one, other)) = differs {
            world.broken(Kind::LogMismatch, format!("{group:?}: {other:?}, elsewhere {one:?}"));
        } else if one.len() != other.len() {
            let facts = format!("{group:?} holds {} entries, another {}", other.len(), one.len());
            world.broken(Kind::NoProgress, facts);
        }
    }
}
