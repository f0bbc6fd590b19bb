//! Looks at the replicas, all the time: do they agree with Raft's invariants?

use ouzel_raft::{RaftGroup, ReplicatedLog};

use super::process::{Inside, vote};
use super::world::World;
use crate::check::raft::{SeenEntry, Sight};
use crate::check::verdict::Kind;
use crate::replica::{self, Contents};

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
            for violation in world.watch.borrow_mut().see(&sight, false, world.now(), &world.events) {
                world.note("judge", format_args!("VIOLATION {violation}"));
            }
        }
    }
}

fn sight(world: &World, inside: &Inside, number: u32, life: u32, group: &RaftGroup) -> Sight {
    // The newest vote is on the medium before anything is done under it.
    let (epoch, voted_for) = vote(inside, &world.groups[number as usize].at);
    Sight { voted_for, ..replica::sight(group, number, life, epoch) }
}

/// In the end: all replicas of a group hold the same entries with the same content.
pub(super) async fn compare_contents(world: &World, number: u32) {
    let mut first: Option<Vec<SeenEntry>> = None;
    for node in &world.nodes {
        let Some(inside) = node.inside.borrow().clone() else { continue };
        let Some(group) = inside.group(number) else { continue };
        let found = match replica::contents(&group).await {
            Contents { unreadable: Some((from, why)), .. } => {
                world.broken(Kind::LogMismatch, format!("{group:?} cannot be read from {from}: {why}"));
                return;
            }
            Contents { entries, .. } if group.local().last_entry().is_some() => entries,
            Contents { .. } => continue,
        };
        let Some(first) = &first else {
            first = Some(found);
            continue;
        };
        // Below the later purge point only one of them has entries.
        let index = |entries: &[SeenEntry]| entries.first().map(|entry| entry.id.index);
        let from = index(&found).max(index(first));
        let above = |entries: &[SeenEntry]| {
            entries.iter().filter(|entry| Some(entry.id.index) >= from).copied().collect::<Vec<_>>()
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
