use super::*;

const STOPS: [Stop; 4] = [Stop::Clean, Stop::UncleanSameBoot, Stop::UncleanOtherBoot, Stop::Unknown];
const TAILS: [Tail; 12] = [
    Tail::Unread,
    Tail::Whole,
    Tail::TornAbove,
    Tail::TornBelow,
    Tail::LostAbove,
    Tail::LostBelow,
    Tail::ZeroesAbove,
    Tail::ZeroesBelow,
    Tail::FlippedAbove,
    Tail::FlippedBelow,
    Tail::OutOfOrderAbove,
    Tail::OutOfOrderBelow,
];
const INDEXES: [Index; 4] = [Index::Good, Index::Missing, Index::Stale, Index::Lying];
const ROLLS: [Roll; 2] = [Roll::Complete, Roll::HalfDone];
const DELETIONS: [Deletion; 3] = [Deletion::None, Deletion::OfSegments, Deletion::OfPartition];
const SWAPS: [Swap; 3] = [Swap::None, Swap::Undecided, Swap::Decided];
const CHECKPOINTS: [Checkpoint; 5] = [
    Checkpoint::Consistent,
    Checkpoint::Older,
    Checkpoint::Newer,
    Checkpoint::Missing,
    Checkpoint::Unreadable,
];

fn all_situations() -> Vec<Situation> {
    let mut all = Vec::new();
    for stop in STOPS {
        for tail in TAILS {
            for index in INDEXES {
                for roll in ROLLS {
                    for deletion in DELETIONS {
                        for swap in SWAPS {
                            for checkpoint in CHECKPOINTS {
                                all.push(Situation { stop, tail, index, roll, deletion, swap, checkpoint });
                            }
                        }
                    }
                }
            }
        }
    }
    all
}

/// Declared impossible: a mark is believed only if the log ends well where it says, so a clean stop has a whole tail.
fn is_impossible(situation: &Situation) -> bool {
    situation.stop == Stop::Clean && situation.tail != Tail::Whole && is_the_log_itself(situation)
}

/// Nothing else stands in the directory that is to go, or to take its place, first.
fn is_the_log_itself(situation: &Situation) -> bool {
    situation.deletion == Deletion::None && situation.swap == Swap::None
}

fn is_below(tail: Tail) -> bool {
    use Tail::{FlippedBelow, LostBelow, OutOfOrderBelow, TornBelow, ZeroesBelow};
    matches!(tail, TornBelow | LostBelow | ZeroesBelow | FlippedBelow | OutOfOrderBelow)
}

fn rows_for(situation: &Situation) -> Vec<&'static Row> {
    ROWS.iter().filter(|row| row.matches(situation)).collect()
}

#[test]
fn every_situation_has_exactly_one_row() {
    let all = all_situations();
    assert_eq!(all.len(), 4 * 12 * 4 * 2 * 3 * 3 * 5);
    for situation in all {
        let labels: Vec<_> = rows_for(&situation).iter().map(|row| row.label).collect();
        let expected = if is_impossible(&situation) { 0 } else { 1 };
        assert_eq!(labels.len(), expected, "{situation:?} has the rows {labels:?}");
    }
}

#[test]
fn every_row_is_some_situations_answer() {
    let all = all_situations();
    for (i, row) in ROWS.iter().enumerate() {
        assert!(all.iter().any(|situation| row.matches(situation)), "no situation reaches {:?}", row.label);
        assert!(
            ROWS[..i].iter().all(|other| other.label != row.label),
            "two rows are called {:?}",
            row.label
        );
    }
}

/// What is seen after a step was carried out. A scan may find anything.
fn after(step: Step, situation: Situation) -> Vec<Situation> {
    match step {
        Step::Scan => {
            let found = TAILS.iter().filter(|tail| **tail != Tail::Unread);
            found.map(|tail| Situation { tail: *tail, ..situation }).collect()
        }
        Step::Truncate => vec![Situation { tail: Tail::Whole, ..situation }],
        Step::FinishRoll => vec![Situation { roll: Roll::Complete, ..situation }],
        Step::RebuildIndexes => vec![Situation { index: Index::Good, ..situation }],
        Step::RewriteCheckpoints => vec![Situation { checkpoint: Checkpoint::Consistent, ..situation }],
        Step::FinishSegmentDeletion => vec![Situation { deletion: Deletion::None, ..situation }],
        Step::UndoSwap | Step::FinishSwap => vec![Situation { swap: Swap::None, ..situation }],
        Step::Trust | Step::FlushThenTrust | Step::FinishDeletion | Step::Fence => Vec::new(),
    }
}

#[test]
fn every_start_comes_to_an_end() {
    fn steps_to_the_end(situation: Situation, left: u32) {
        assert!(left > 0, "{situation:?} goes in circles");
        if is_impossible(&situation) {
            return;
        }
        let row = rows_for(&situation)[0];
        for next in after(row.step, situation) {
            assert_ne!(next, situation, "{:?} changes nothing", row.label);
            steps_to_the_end(next, left - 1);
        }
    }
    for situation in all_situations() {
        steps_to_the_end(situation, 8);
    }
}

#[test]
fn flushed_data_is_never_cut_and_never_trusted_when_damaged() {
    for situation in all_situations().iter().filter(|s| is_the_log_itself(s) && is_below(s.tail)) {
        if is_impossible(situation) {
            continue;
        }
        assert_eq!(rows_for(situation)[0].step, Step::Fence, "{situation:?}");
    }
}

#[test]
fn only_a_clean_stop_opens_without_a_flush() {
    for situation in all_situations().iter().filter(|s| !is_impossible(s)) {
        let step = rows_for(situation)[0].step;
        if step == Step::Trust {
            assert_eq!(situation.stop, Stop::Clean);
        }
        if step == Step::FlushThenTrust {
            assert_ne!(situation.stop, Stop::Clean);
        }
    }
}

fn observed(stop: Stop, scan: Option<Scan>) -> Observed {
    Observed {
        stop,
        flushed: Offset(50),
        scan,
        index: Index::Good,
        roll: Roll::Complete,
        deletion: Deletion::None,
        swap: Swap::None,
        checkpoint: Checkpoint::Consistent,
    }
}

fn scan(end: i64, kind: Option<DamageKind>) -> Scan {
    Scan {
        end: Offset(end),
        file: "t-0/00000000000000000000.log".into(),
        position: 700,
        damage: kind.map(|kind| Damage {
            kind,
            expected: format!("a batch with base offset {end}"),
            found: "a CRC-32C of 00000001 over bytes that give 00000002".into(),
        }),
        witnessed_end: Offset(end),
    }
}

#[test]
fn a_scan_is_judged_by_the_flushed_offset() {
    use DamageKind::{Flipped, OutOfOrder, Torn, Zeroes};
    let cases = [
        (50, None, Tail::Whole),
        (49, None, Tail::LostBelow),
        (50, Some(Torn), Tail::TornAbove),
        (49, Some(Torn), Tail::TornBelow),
        (50, Some(Zeroes), Tail::ZeroesAbove),
        (49, Some(Zeroes), Tail::ZeroesBelow),
        (50, Some(Flipped), Tail::FlippedAbove),
        (49, Some(Flipped), Tail::FlippedBelow),
        (50, Some(OutOfOrder), Tail::OutOfOrderAbove),
        (49, Some(OutOfOrder), Tail::OutOfOrderBelow),
    ];
    for (end, kind, tail) in cases {
        let observed = observed(Stop::UncleanOtherBoot, Some(scan(end, kind)));
        assert_eq!(observed.situation().tail, tail, "end {end}, {kind:?}");
    }
    let longer_once = Scan { witnessed_end: Offset(51), ..scan(50, None) };
    assert_eq!(observed(Stop::Unknown, Some(longer_once)).situation().tail, Tail::LostAbove);
}

#[test]
fn a_fence_says_where_and_what() {
    let decision = decide(&observed(Stop::UncleanOtherBoot, Some(scan(40, Some(DamageKind::Flipped)))));
    assert_eq!(decision.label, "flipped bit below the flushed offset");
    let Action::FencePartition(reason) = decision.action else { panic!("{:?}", decision.action) };
    assert_eq!(
        reason.to_string(),
        "t-0/00000000000000000000.log is damaged at position 700 (offset 40, flushed up to 50): expected a batch with \
         base offset 40, found a CRC-32C of 00000001 over bytes that give 00000002"
    );

    let decision = decide(&observed(Stop::UncleanSameBoot, Some(scan(40, None))));
    let Action::FencePartition(reason) = decision.action else { panic!("{:?}", decision.action) };
    assert_eq!(reason.expected, "batches up to offset 50");
    assert_eq!(reason.found, "the end of the log at 40");
}

#[test]
fn a_cut_names_file_position_and_end() {
    let decision = decide(&observed(Stop::UncleanOtherBoot, Some(scan(60, Some(DamageKind::Torn)))));
    let (file, position, end) = ("t-0/00000000000000000000.log".into(), 700, Offset(60));
    assert_eq!(decision.action, Action::TruncateTail { file, position, end });
    assert_eq!(decide(&observed(Stop::UncleanSameBoot, None)).action, Action::ScanFrom(Offset(50)));
}
