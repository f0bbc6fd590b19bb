//! Producer state against a model that keeps every batch there ever was.

use std::collections::BTreeMap;

use ouzel_model::batch::{BatchBuilder, Codec, Header, RecordParts};
use ouzel_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};
use ouzel_storage::producers::snapshot::{Windows, encode, load};
use ouzel_storage::producers::{ProducerVerdict, Producers, Truncated};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

const NOW: TimestampMs = TimestampMs(7);

/// One thing that happens to a partition.
#[derive(Clone, Debug)]
enum Op {
    /// A client sends a batch whose first sequence number is so far from the next one, in an epoch so far from the newest.
    Send { producer: u8, epoch: i16, skew: i32, count: u8 },
    /// A client sends again what it sent so many batches ago.
    Retry { producer: u8, back: u8 },
    /// The log loses its last batches, as many; the state is taken from scratch by a scan if it must be.
    Truncate { batches: u8 },
    /// The broker restarts with both files.
    Reload,
    /// The broker restarts without `.producers`.
    ReloadWithoutWindows,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (0..3u8, 0..2i16, prop_oneof![6 => Just(0), 1 => -2..3i32], 1..4u8)
            .prop_map(|(producer, epoch, skew, count)| Op::Send { producer, epoch, skew, count }),
        1 => (0..3u8, -1..3i16, -1..2i32, 1..4u8)
            .prop_map(|(producer, epoch, skew, count)| Op::Send { producer, epoch, skew, count }),
        4 => (0..3u8, 0..8u8).prop_map(|(producer, back)| Op::Retry { producer, back }),
        1 => (0..4u8).prop_map(|batches| Op::Truncate { batches }),
        1 => Just(Op::Reload),
        1 => Just(Op::ReloadWithoutWindows),
    ];
    prop::collection::vec(op, 1..120)
}

/// All batches in the log, and all that clients ever sent.
#[derive(Default)]
struct Model {
    log: Vec<Header>,
    sent: BTreeMap<ProducerId, Vec<Header>>,
}

impl Model {
    fn end(&self) -> Offset {
        self.log.last().map_or(Offset::ZERO, Header::next_offset)
    }

    /// The batches of the producer's newest epoch.
    fn reign(&self, id: ProducerId) -> Vec<&Header> {
        let all = || self.log.iter().filter(|header| header.producer_id == id);
        let newest = all().map(|header| header.producer_epoch).max();
        all().filter(|header| Some(header.producer_epoch) == newest).collect()
    }

    fn next_sequence(&self, id: ProducerId) -> i32 {
        // Producers begin close to the end of the ring, so that runs go round it.
        self.reign(id).last().map_or(i32::MAX - 12, |last| last.last_sequence().wrapping_add(1) & i32::MAX)
    }

    fn judge(&self, header: &Header) -> ProducerVerdict {
        let producer_id = header.producer_id;
        let reign = self.reign(producer_id);
        let Some(newest) = reign.last() else { return ProducerVerdict::Append };
        let (known, found) = (newest.producer_epoch, header.producer_epoch);
        if found < known {
            return ProducerVerdict::StaleEpoch { producer_id, known, found };
        }
        if found > known {
            return match header.base_sequence {
                0 => ProducerVerdict::Append,
                found => ProducerVerdict::OutOfOrder { producer_id, expected: 0, found },
            };
        }
        let is_same = |old: &&&Header| {
            (old.base_sequence, old.last_sequence()) == (header.base_sequence, header.last_sequence())
        };
        if let Some(original) = reign.iter().rev().take(5).find(is_same) {
            let mut scratch = Producers::default();
            scratch.update(original, NOW);
            return ProducerVerdict::Duplicate(scratch.get(producer_id).unwrap().window[0]);
        }
        let expected = self.next_sequence(producer_id);
        if header.base_sequence == expected {
            ProducerVerdict::Append
        } else {
            ProducerVerdict::OutOfOrder { producer_id, expected, found: header.base_sequence }
        }
    }

    fn scanned(&self) -> Producers {
        let mut producers = Producers::new(Offset::ZERO);
        self.log.iter().for_each(|header| producers.update(header, NOW));
        producers
    }
}

fn batch(offset: Offset, id: ProducerId, epoch: ProducerEpoch, sequence: i32, count: u8) -> Header {
    let mut builder =
        BatchBuilder::new(Codec::None).producer(id, epoch, sequence).place(offset, LeaderEpoch(1));
    for i in 0..i64::from(count) {
        builder.push(TimestampMs(offset.value() + i), &RecordParts::default());
    }
    Header::parse(&builder.build()).unwrap()
}

/// Runs `ops` on the state and on the model and compares their verdicts. `judge` stands for [`Producers::check`].
fn run(ops: Vec<Op>, judge: fn(&Producers, &Header) -> ProducerVerdict) -> Result<(), TestCaseError> {
    let (mut model, mut producers) = (Model::default(), Producers::default());
    for op in ops {
        let header = match op {
            Op::Send { producer, epoch, skew, count } => {
                let id = ProducerId(i64::from(producer));
                let known = model.reign(id).last().map_or(0, |last| last.producer_epoch.value());
                let (next, epoch) = (model.next_sequence(id), ProducerEpoch((known + epoch).max(0)));
                let base = if epoch.value() > known { 0 } else { next };
                let sequence = base.wrapping_add(skew) & i32::MAX;
                Some(batch(model.end(), id, epoch, sequence, count))
            }
            Op::Retry { producer, back } => {
                let sent = model.sent.get(&ProducerId(i64::from(producer)));
                sent.and_then(|sent| sent.iter().rev().nth(usize::from(back))).map(|old| {
                    let delta = old.last_offset_delta as u8 + 1;
                    batch(model.end(), old.producer_id, old.producer_epoch, old.base_sequence, delta)
                })
            }
            Op::Truncate { batches } => {
                model.log.truncate(model.log.len().saturating_sub(usize::from(batches)));
                if producers.truncate_to(model.end()) == Truncated::Rebuild {
                    producers = model.scanned();
                }
                None
            }
            Op::Reload => {
                let (snapshot, windows) = encode(&producers);
                let (loaded, found) = load(&snapshot, Some(&windows), producers.end(), NOW).unwrap();
                prop_assert_eq!(found, Windows::Whole);
                producers = loaded;
                None
            }
            Op::ReloadWithoutWindows => {
                let (snapshot, _) = encode(&producers);
                let (loaded, found) = load(&snapshot, None, producers.end(), NOW).unwrap();
                prop_assert_eq!(found, Windows::NewestOnly(None));
                producers = model.scanned();
                producers.adopt_missing(&loaded);
                None
            }
        };
        if let Some(header) = header {
            let verdict = judge(&producers, &header);
            prop_assert_eq!(verdict, model.judge(&header), "for {:?}", header);
            if verdict == ProducerVerdict::Append {
                producers.update(&header, NOW);
                model.log.push(header);
            }
            model.sent.entry(header.producer_id).or_default().push(header);
        }
        prop_assert_eq!(&producers, &model.scanned());
    }
    Ok(())
}

fn check(judge: fn(&Producers, &Header) -> ProducerVerdict) -> Result<(), String> {
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&ops(), |ops| run(ops, judge));
    result.map_err(|error| error.to_string())
}

#[test]
fn agrees_with_a_model_that_keeps_all_batches() {
    check(Producers::check).unwrap();
}

#[test]
fn the_property_catches_an_accepted_duplicate() {
    let caught = check(|producers, header| match producers.check(header) {
        ProducerVerdict::Duplicate(_) => ProducerVerdict::Append,
        verdict => verdict,
    });
    assert!(caught.unwrap_err().contains("Duplicate"));
}

#[test]
fn the_property_catches_a_window_of_four() {
    let caught = check(|producers, header| match producers.check(header) {
        ProducerVerdict::Duplicate(original)
            if producers
                .get(header.producer_id)
                .is_some_and(|entry| entry.window.len() == 5 && entry.window[0] == original) =>
        {
            ProducerVerdict::OutOfOrder { producer_id: header.producer_id, expected: 0, found: 0 }
        }
        verdict => verdict,
    });
    assert!(caught.is_err());
}
