//! The checker of consumer groups: who was assigned what, saw what and committed what, in the order it was told.
//! Pure: histories in, faults out.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Seen, Sent, identify, same_at_each_sight, told};

/// One thing a member said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
    Saw(Seen),
    Committed {
        partition: i32,
        offset: i64,
    },
    /// The member's process was ended, and with it whatever it held.
    Gone,
}

/// What a group that did well looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct GroupTally {
    pub(super) records: usize,
    pub(super) redelivered: usize,
    pub(super) assignments: usize,
}

/// A partition in the hands of a member.
#[derive(Debug, Default)]
struct Tenure {
    /// The offset that must come next; `None` before the first record.
    following: Option<i64>,
}

/// Judges a group that read all of a topic. `history` is in the order in which the orchestrator heard it: within a
/// member that is the order it happened in, and between members a commit is heard before its successor's first record,
/// or a little late, which only makes the rule about redelivery weaker, never wrong.
pub(super) fn judge_group(
    sent: &Sent,
    ends: &BTreeMap<i32, i64>,
    history: &[(usize, Told)],
) -> Result<GroupTally, String> {
    let mut faults = Vec::new();
    let mut tally = GroupTally::default();
    let mut tenures: BTreeMap<(usize, i32), Tenure> = BTreeMap::new();
    let mut committed: BTreeMap<i32, i64> = BTreeMap::new();
    let mut seen_offsets: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    for (member, what) in history {
        match what {
            Told::Assigned(parts) => {
                tally.assignments += 1;
                tenures.retain(|(owner, _), _| owner != member);
                tenures.extend(parts.iter().map(|part| ((*member, *part), Tenure::default())));
            }
            Told::Revoked(parts) => {
                for part in parts {
                    tenures.remove(&(*member, *part));
                }
            }
            Told::Gone => tenures.retain(|(owner, _), _| owner != member),
            Told::Committed { partition, offset } => {
                // A zombie's commit is refused, so the place only moves on; what it moves back to was reset by hand.
                let place = committed.entry(*partition).or_insert(0);
                *place = (*place).max(*offset);
            }
            Told::Saw(seen) => {
                if let Err(fault) = identify(sent, seen) {
                    faults.push(fault);
                }
                let place = format!("{}:{}", seen.partition, seen.offset);
                match tenures.get_mut(&(*member, seen.partition)) {
                    None => faults.push(format!("trespass: member {member} saw {place} without holding it")),
                    Some(tenure) => {
                        match tenure.following {
                            Some(due) if due != seen.offset => faults
                                .push(format!("gap: member {member} saw {place} where offset {due} was due")),
                            None if seen.offset < committed.get(&seen.partition).copied().unwrap_or(0) => {
                                faults.push(format!(
                                    "rewound: member {member} began at {place}, committed was {}",
                                    committed[&seen.partition]
                                ))
                            }
                            _ => {}
                        }
                        tenure.following = Some(seen.offset + 1);
                    }
                }
                if !seen_offsets.entry(seen.partition).or_default().insert(seen.offset) {
                    tally.redelivered += 1;
                }
            }
        }
    }
    for (partition, end) in ends {
        let seen = seen_offsets.remove(partition).unwrap_or_default();
        let missing: Vec<i64> = (0..*end).filter(|offset| !seen.contains(offset)).collect();
        if !missing.is_empty() {
            faults.push(format!(
                "unseen: {} offsets of partition {partition}, the first is {}",
                missing.len(),
                missing[0]
            ));
        }
    }
    let sights = history.iter().filter_map(|(_, told)| match told {
        Told::Saw(seen) => Some(seen),
        _ => None,
    });
    match same_at_each_sight(sights) {
        Ok(records) => tally.records = records,
        Err(fault) => faults.push(fault),
    }
    if faults.is_empty() { Ok(tally) } else { Err(told(&faults)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::records::{Shape, digest};

    const SHAPE: Shape = Shape::Full { value_bytes: 64, null_headers: true };

    fn sent() -> Sent {
        Sent {
            producer: "p".to_owned(),
            shape: SHAPE,
            count: 10,
            partitions: 1,
            timestamp_ms: None,
            acknowledged: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    fn saw(offset: i64) -> Told {
        Told::Saw(Seen {
            partition: 0,
            offset,
            timestamp_ms: 0,
            who: format!("p|{offset}"),
            digest: digest(SHAPE, "p", offset as u64),
        })
    }

    /// Member 0 sees 0 to 4, commits 3, and crashes; member 1 goes on.
    fn handover(from: i64) -> Vec<(usize, Told)> {
        let mut history = vec![(0, Told::Assigned(vec![0]))];
        history.extend((0..5).map(|offset| (0, saw(offset))));
        history.insert(4, (0, Told::Committed { partition: 0, offset: 3 }));
        history.extend([(0, Told::Gone), (1, Told::Assigned(vec![0]))]);
        history.extend((from..10).map(|offset| (1, saw(offset))));
        history
    }

    fn judged(history: &[(usize, Told)]) -> Result<GroupTally, String> {
        judge_group(&sent(), &BTreeMap::from([(0, 10)]), history)
    }

    #[track_caller]
    fn check(history: &[(usize, Told)], fault: &str) {
        let message = judged(history).unwrap_err();
        assert!(message.contains(fault), "{message:?} does not name {fault:?}");
    }

    #[test]
    fn redelivery_from_the_last_commit_is_right_and_counted() {
        assert_eq!(judged(&handover(3)), Ok(GroupTally { records: 10, redelivered: 2, assignments: 2 }));
    }

    #[test]
    fn a_rewind_behind_the_last_commit_is_caught() {
        check(&handover(2), "rewound: member 1 began at 0:2, committed was 3");
    }

    #[test]
    fn a_gap_between_owners_is_caught() {
        check(&handover(6), "unseen: 1 offsets of partition 0, the first is 5");
    }

    #[test]
    fn a_gap_within_a_tenure_is_caught_even_when_another_saw_it() {
        let mut history = handover(3);
        history.remove(2);
        check(&history, "gap: member 0 saw 0:2 where offset 1 was due");
    }

    #[test]
    fn reading_what_was_revoked_is_caught() {
        let mut history = handover(3);
        history.push((0, saw(9)));
        check(&history, "trespass: member 0 saw 0:9");
    }

    #[test]
    fn other_bytes_at_the_second_sight_are_caught() {
        let mut history = handover(3);
        if let Some((_, Told::Saw(seen))) = history.last_mut() {
            seen.timestamp_ms = 1;
        }
        history.extend([(1, Told::Gone), (0, Told::Assigned(vec![0])), (0, saw(9))]);
        check(&history, "changed");
    }
}
