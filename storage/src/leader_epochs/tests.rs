use super::*;

/// Epochs and their start offsets.
type History = &'static [(i32, i64)];

fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
    let mut epochs = LeaderEpochs::default();
    for (epoch, start) in entries {
        epochs.assign(LeaderEpoch(*epoch), Offset(*start));
    }
    epochs
}

#[track_caller]
fn check_end(entries: &[(i32, i64)], requested: i32, expected: (i32, i64)) {
    let (epoch, end) = epochs(entries).end_offset_for(LeaderEpoch(requested), Offset(100));
    assert_eq!((epoch.value(), end.value()), expected, "epoch {requested} among {entries:?}");
}

#[test]
fn an_epoch_ends_where_the_next_begins() {
    let history = [(2, 10), (4, 20), (5, 30)];
    check_end(&history, 2, (2, 20));
    check_end(&history, 3, (2, 20));
    check_end(&history, 4, (4, 30));
    check_end(&history, 5, (5, 100));
}

#[test]
fn what_is_not_known_has_no_end() {
    check_end(&[], -1, (-1, -1));
    check_end(&[], 0, (-1, -1));
    check_end(&[(2, 10)], -1, (-1, -1));
    check_end(&[(2, 10)], 3, (-1, -1));
}

#[test]
fn an_epoch_older_than_all_ends_where_the_oldest_begins() {
    check_end(&[(2, 10), (4, 20)], 1, (1, 10));
    check_end(&[(2, 10)], 0, (0, 10));
}

#[test]
fn a_new_entry_removes_those_that_contradict_it() {
    let cases: [(History, (i32, i64), History); 7] = [
        (&[(1, 0), (2, 10)], (3, 20), &[(1, 0), (2, 10), (3, 20)]),
        // A leader that wrote nothing leaves no trace.
        (&[(1, 0), (2, 10)], (3, 10), &[(1, 0), (3, 10)]),
        (&[(1, 0), (2, 10)], (3, 5), &[(1, 0), (3, 5)]),
        (&[(1, 0), (2, 10)], (1, 20), &[(1, 20)]),
        (&[(1, 0), (2, 10)], (2, 10), &[(1, 0), (2, 10)]),
        (&[(1, 0), (2, 10)], (2, 30), &[(1, 0), (2, 10)]),
        (&[(1, 0), (2, 10)], (2, 7), &[(1, 0), (2, 7)]),
    ];
    for (before, (epoch, start), after) in cases {
        let mut changed = epochs(before);
        let was_changed = changed.assign(LeaderEpoch(epoch), Offset(start));
        assert_eq!(changed, epochs(after), "{before:?} with {epoch} from {start}");
        assert_eq!(was_changed, before != after);
    }
}

#[test]
fn truncation_and_trim_follow_the_log() {
    let history = [(1, 0), (2, 10), (4, 20)];
    let cases: [(i64, History, History); 6] = [
        (0, &[], &[(1, 0), (2, 10), (4, 20)]),
        (9, &[(1, 0)], &[(1, 9), (2, 10), (4, 20)]),
        (10, &[(1, 0)], &[(2, 10), (4, 20)]),
        (11, &[(1, 0), (2, 10)], &[(2, 11), (4, 20)]),
        (20, &[(1, 0), (2, 10)], &[(4, 20)]),
        (99, &[(1, 0), (2, 10), (4, 20)], &[(4, 99)]),
    ];
    for (offset, truncated, trimmed) in cases {
        let (mut cut, mut head) = (epochs(&history), epochs(&history));
        assert_eq!(cut.truncate_to(Offset(offset)), truncated != history);
        assert_eq!(cut, epochs(truncated), "truncated to {offset}");
        assert_eq!(head.trim_to(Offset(offset)), trimmed != history);
        assert_eq!(head, epochs(trimmed), "trimmed to {offset}");
    }
    // Nothing before the oldest entry: nothing to adjust.
    let mut later = epochs(&[(3, 50)]);
    assert!(!later.trim_to(Offset(10)));
    assert_eq!(later, epochs(&[(3, 50)]));
    assert!(!LeaderEpochs::default().trim_to(Offset(10)));
}

#[test]
fn the_epoch_of_an_offset() {
    let history = epochs(&[(1, 5), (2, 10)]);
    let found: Vec<_> =
        [4, 5, 9, 10, 99].map(|at| history.epoch_at(Offset(at)).map(LeaderEpoch::value)).into();
    assert_eq!(found, [None, Some(1), Some(1), Some(2), Some(2)]);
}

#[test]
fn the_checkpoint_is_kafkas_text() {
    let history = epochs(&[(0, 0), (3, 17)]);
    assert_eq!(history.encode(), "0\n2\n0 0\n3 17\n");
    assert_eq!(LeaderEpochs::decode(history.encode().as_bytes()), Ok(history));
    assert_eq!(LeaderEpochs::decode(b""), Ok(LeaderEpochs::default()));
    assert_eq!(LeaderEpochs::decode(b"0\n0\n"), Ok(LeaderEpochs::default()));
}

#[test]
fn a_malformed_checkpoint_names_its_line() {
    let cases = [
        ("1\n0\n", 1, "1"),
        ("0\nx\n", 2, "x"),
        ("0\n-1\n", 2, "-1"),
        ("0\n2\n0 0\n", 4, "the end of the file"),
        ("0\n1\n0 0\n1 5\n", 4, "1 5"),
        ("0\n1\n0\n", 3, "0"),
        ("0\n1\n0 0 0\n", 3, "0 0 0"),
        ("0\n1\n-1 0\n", 3, "-1 0"),
        ("0\n2\n3 7\n2 9\n", 4, "2 9"),
        ("0\n2\n3 7\n4 7\n", 4, "4 7"),
        ("0\n1\n3 99999999999999999999\n", 3, "3 99999999999999999999"),
    ];
    for (text, line, found) in cases {
        let error = LeaderEpochs::decode(text.as_bytes()).unwrap_err();
        assert_eq!((error.line, error.found.as_str()), (line, found), "{text:?}: {error}");
    }
    assert_eq!(
        LeaderEpochs::decode(b"0\n1\n3 \xff\n").unwrap_err().to_string(),
        "line 3: expected UTF-8 text, found byte ff"
    );
}

#[test]
fn random_histories_keep_the_invariant() {
    use proptest::prelude::*;
    #[derive(Clone, Debug)]
    enum Op {
        Assign(i32, i64),
        Truncate(i64),
        Trim(i64),
    }
    let op = prop_oneof![
        (0..12i32, 0..60i64).prop_map(|(epoch, start)| Op::Assign(epoch, start)),
        (0..60i64).prop_map(Op::Truncate),
        (0..60i64).prop_map(Op::Trim),
    ];
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }, |(ops in prop::collection::vec(op, 0..40))| {
        let mut epochs = LeaderEpochs::default();
        for op in ops {
            let before = epochs.clone();
            let changed = match op {
                Op::Assign(epoch, start) => epochs.assign(LeaderEpoch(epoch), Offset(start)),
                Op::Truncate(end) => epochs.truncate_to(Offset(end)),
                Op::Trim(start) => epochs.trim_to(Offset(start)),
            };
            prop_assert_eq!(changed, epochs != before);
            let grows = epochs.entries.is_sorted_by(|a, b| a.epoch < b.epoch && a.start_offset < b.start_offset);
            prop_assert!(grows, "{:?}", epochs);
            prop_assert_eq!(&LeaderEpochs::decode(epochs.encode().as_bytes()).unwrap(), &epochs);
            for entry in &epochs.entries {
                prop_assert_eq!(epochs.epoch_at(entry.start_offset), Some(entry.epoch));
                let (epoch, end) = epochs.end_offset_for(entry.epoch, Offset(60));
                prop_assert_eq!(epoch, entry.epoch);
                prop_assert!(end > entry.start_offset || end == Offset(60));
            }
        }
    });
}
