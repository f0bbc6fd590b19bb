//! Who of a group owned what: in a generation a partition has one owner, and once a newer generation has begun no member of
//! an older one commits.

use std::collections::BTreeMap;

use super::history::{History, Outcome, PartitionId};
use super::verdict::{Kind, Verdict};

/// Judges what members were given, and the commits of those whose time was over.
pub fn judge(history: &History, verdict: &mut Verdict) {
    let mut owners: BTreeMap<(u32, i32, PartitionId), &str> = BTreeMap::new();
    let is_judged = |group: &u32| !history.forgiven_groups.contains(group);
    for owned in history.owned.iter().filter(|owned| is_judged(&owned.group)) {
        verdict.counts.assignments += 1;
        for partition in &owned.partitions {
            let first = owners.entry((owned.group, owned.generation, *partition)).or_insert(&owned.member);
            if *first != owned.member {
                let facts = format!(
                    "group {} generation {}: partition {} is {first}'s and {}'s",
                    owned.group, owned.generation, partition.0, owned.member
                );
                verdict.broken(Kind::TwoOwners, facts);
            }
        }
    }
    for committed in history.committed.iter().filter(|committed| is_judged(&committed.group)) {
        if committed.outcome != Outcome::Done(()) || committed.generation < 0 {
            continue;
        }
        let newer = history.owned.iter().find(|owned| {
            owned.group == committed.group
                && owned.generation > committed.generation
                && owned.span.ended <= committed.span.begun
        });
        if let Some(newer) = newer {
            let facts = format!("{committed:?} was taken after {newer:?}");
            verdict.broken(Kind::StaleCommit, facts);
        }
    }
}
