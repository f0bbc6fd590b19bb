//! Whatever was decided, and wherever snapshots were taken or broken off: readers that begin anywhere agree.

use ouzel_model::{NodeId, Offset, TopicId};
use proptest::prelude::*;

use crate::image::{Broker, Image};
use crate::image_test::{Request, counting_ids, plan, requests};
use crate::record::Record;
use crate::snapshot::{Replay, ReplayError, pieces};

/// What a controller does next.
#[derive(Clone, Debug)]
enum Step {
    Decide(Request),
    /// Takes a snapshot, in batches of so many bytes.
    Snapshot(usize),
    /// Takes one, and dies behind so many of its records.
    BrokenOff(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cuts =
        prop::collection::vec((0usize..60, prop_oneof![Just(None), (0usize..12).prop_map(Some)]), 0..6);
    (requests(), cuts).prop_map(|(requests, cuts)| {
        let mut steps: Vec<Step> = requests.into_iter().map(Step::Decide).collect();
        for (at, broken_off) in cuts {
            let step = broken_off.map_or(Step::Snapshot(at * 5), Step::BrokenOff);
            steps.insert(at.min(steps.len()), step);
        }
        steps
    })
}

fn snapshot(image: &Image, batch_bytes: usize) -> Vec<Record> {
    let batches = pieces(image, batch_bytes).expect("its records make it again");
    assert!(batches.iter().all(|batch| !batch.is_empty()), "no batch is empty");
    [vec![Record::SnapshotStarted], batches.concat()].concat()
}

/// The log of a history, and the image it made.
fn log_of(steps: &[Step]) -> (Vec<Record>, Image) {
    let (mut log, mut image, mut ids) = (Vec::new(), Image::default(), counting_ids());
    for step in steps {
        match step {
            Step::Decide(request) => {
                for record in plan(&image, request, &mut ids) {
                    image.apply(&record).expect("a plan fits");
                    log.push(record);
                }
            }
            Step::Snapshot(batch_bytes) => log.extend(snapshot(&image, *batch_bytes)),
            Step::BrokenOff(after) => {
                let whole = snapshot(&image, 100);
                let after = (1 + after).min(whole.len() - 1);
                log.extend_from_slice(&whole[..after]);
            }
        }
    }
    (log, image)
}

/// Reads the log from a record on; gives the reader, and where each whole snapshot begins that it met.
fn read(log: &[Record], from: usize) -> Result<(Replay, Vec<usize>), ReplayError> {
    let mut replay = Replay::from(Offset(from as i64));
    let mut starts = Vec::new();
    for (at, record) in log.iter().enumerate().skip(from) {
        let bytes = record.encode();
        let decoded = Record::decode(&bytes).expect("what was written");
        replay.apply(Offset(at as i64), &decoded, bytes.len())?;
        if let Some(start) = replay.newest_snapshot().map(|start| start.value() as usize)
            && starts.last() != Some(&start)
        {
            starts.push(start);
        }
    }
    Ok((replay, starts))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn readers_that_begin_anywhere_agree(steps in steps()) {
        let (log, image) = log_of(&steps);
        let (whole, starts) = read(&log, 0).expect("a sound log");
        prop_assert_eq!(whole.image(), Some(&image));
        let last = starts.last().copied();
        for from in 1..log.len() {
            let (later, _) = read(&log, from).expect("a sound log");
            // As far as a whole snapshot follows; else it knows that it knows nothing.
            let wanted = last.filter(|start| *start >= from).map(|_| &image);
            prop_assert_eq!(later.image(), wanted, "from record {}", from);
        }
    }
}

fn broker(node: i32) -> Record {
    Record::BrokerRegistered(Broker {
        features: crate::features::supported(),
        ..Broker::new(NodeId(node), [1; 16], TopicId([2; 16]))
    })
}

#[test]
fn a_snapshot_that_tells_something_else_is_refused_in_words() {
    let (own, other) = ([broker(1)], [broker(1), broker(2)]);
    let of = |records: &[Record]| Image::from_records(records).expect("sound records");
    let log = [&own[..], &snapshot(&of(&other), 100)].concat();
    let refused = read(&log, 0).expect_err("two images");
    assert_eq!(refused, ReplayError::Mismatch { start: Offset(1) });
    assert!(read(&log, 1).is_ok(), "who begins with it has nothing to compare it with");

    let mut short = snapshot(&of(&other), 100);
    short.remove(1);
    let refused = read(&short, 0).expect_err("a piece is missing");
    assert!(matches!(refused, ReplayError::Pieces { found: 1, written: 2, .. }), "{refused}");
}

#[test]
fn a_decision_within_a_snapshot_undoes_it() {
    let whole = snapshot(&Image::from_records(&[broker(1)]).expect("sound"), 100);
    let (first, last) = whole.split_at(1);
    let log = [&[broker(1)], first, &[broker(2)], last].concat();
    let (replay, starts) = read(&log, 0).expect("nothing contradicts");
    assert_eq!((starts, replay.image().map(|image| image.brokers().count())), (vec![], Some(2)));
}

#[test]
fn snapshots_come_when_enough_was_decided_and_no_oftener_than_they_are_large() {
    let mut log: Vec<Record> = (0..100).map(broker).collect();
    let bytes = |log: &[Record]| log.iter().map(|record| record.encode().len()).sum::<usize>() as u64;
    let decided = bytes(&log);
    let (replay, _) = read(&log, 0).expect("sound");
    assert!(replay.is_snapshot_due(decided) && !replay.is_snapshot_due(decided + 1));
    log.extend(snapshot(&Image::from_records(&log).expect("sound"), 1_000));
    let (replay, _) = read(&log, 0).expect("sound");
    assert!(!replay.is_snapshot_due(1));
    // As much again as the snapshot has, though the limit is far below.
    while !read(&log, 0).expect("sound").0.is_snapshot_due(1) {
        log.push(broker(1));
    }
    let (since, snapshot) = (&log[202..], &log[100..202]);
    assert!(bytes(since) >= bytes(snapshot) && bytes(&since[1..]) < bytes(snapshot));
    // Who knows no image has none to write.
    let (headless, _) = read(&log, 150).expect("sound");
    assert!(headless.image().is_none() && !headless.is_snapshot_due(1));
}
