//! Kafka's rules, one by one on small logs, and all together on random ones against a model.

use std::collections::{BTreeMap, BTreeSet};

use ouzel_model::LeaderEpoch;
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts, RecordStream, TimestampType};
use proptest::prelude::*;

use super::*;
use crate::compaction::AbortedTransaction;
use crate::producers::Producers;

const RETENTION_MS: i64 = 1_000;

/// A log as its batches, and what a pass is told of it.
#[derive(Clone, Default)]
struct TestLog {
    batches: Vec<Vec<u8>>,
    end: i64,
    aborted: Vec<AbortedTransaction>,
}

/// Who writes a batch: producer, epoch, base sequence; and whether in a transaction.
type Writer = Option<(i64, i16, i32, bool)>;

impl TestLog {
    fn push(&mut self, codec: Codec, writer: Writer, records: &[(Option<&str>, Option<&str>)]) -> i64 {
        let base = self.end;
        let mut builder = BatchBuilder::new(codec).place(Offset(base), LeaderEpoch(1));
        if let Some((id, epoch, sequence, transactional)) = writer {
            builder = builder.producer(ProducerId(id), ProducerEpoch(epoch), sequence).attributes(
                TimestampType::CreateTime,
                transactional,
                false,
            );
        }
        for (at, (key, value)) in records.iter().enumerate() {
            let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
            builder.push(TimestampMs(base + at as i64 + 1), &RecordParts { key, value, headers: &[] });
        }
        self.end += records.len() as i64;
        self.batches.push(builder.build());
        base
    }

    fn marker(&mut self, id: i64, epoch: i16, commits: bool) -> i64 {
        let mut builder = BatchBuilder::new(Codec::None)
            .place(Offset(self.end), LeaderEpoch(1))
            .producer(ProducerId(id), ProducerEpoch(epoch), -1)
            .attributes(TimestampType::CreateTime, true, true);
        let key = [0, 0, 0, u8::from(commits)];
        let parts = RecordParts { key: Some(&key), value: Some(&[0, 0, 0, 0, 0, 0]), headers: &[] };
        builder.push(TimestampMs(self.end + 1), &parts);
        self.batches.push(builder.build());
        self.end += 1;
        self.end - 1
    }

    fn abort(&mut self, id: i64, epoch: i16, first: i64) {
        let last = self.marker(id, epoch, false);
        self.aborted.push(AbortedTransaction {
            producer_id: ProducerId(id),
            first_offset: Offset(first),
            last_offset: Offset(last),
        });
    }

    fn header(bytes: &[u8]) -> Header {
        Header::parse(bytes).expect("a batch")
    }

    fn producers(&self) -> Producers {
        self.producers_in(i64::MIN, i64::MAX)
    }

    /// Those of the batches that end behind `from` and below `to`.
    fn producers_in(&self, from: i64, to: i64) -> Producers {
        let mut producers = Producers::new(Offset::ZERO);
        let headers = self.batches.iter().map(|batch| Self::header(batch));
        for header in headers.filter(|header| (from..to).contains(&header.last_offset().value())) {
            producers.update(&header, TimestampMs(0));
        }
        producers
    }

    /// One pass over the batches below `bound`, as the doer does it; gives the next dirty offset and what was counted.
    fn pass(&mut self, first_dirty: i64, bound: i64, keys_max: usize, now: i64) -> (i64, Counts) {
        let below: Vec<_> = self
            .batches
            .iter()
            .take_while(|batch| Self::header(batch).next_offset() <= Offset(bound))
            .cloned()
            .collect();
        let mut keys = KeyMap::new(keys_max * 2 * crate::compaction::key_map::SLOT_BYTES, 0.5, [7, 8]);
        let mut transactions = CleanedTransactions::new(self.aborted.clone());
        for batch in &below {
            let view = BatchView::parse(batch).unwrap();
            if map_keys(&view, Offset(first_dirty), &mut keys, &mut transactions).unwrap() == Mapped::Full {
                break;
            }
        }
        let dirty = self.producers_in(first_dirty, keys.latest().next().value());
        let rules = Rules {
            now: TimestampMs(now),
            delete_retention_ms: RETENTION_MS,
            last_records: super::super::last_records(&self.producers(), &dirty, keys.latest().next()),
        };
        let mut transactions = CleanedTransactions::new(self.aborted.clone());
        let mut counts = Counts::default();
        let mut cleaned = Vec::new();
        for (at, batch) in below.iter().enumerate() {
            let view = BatchView::parse(batch).unwrap();
            let must_stay = at + 1 == below.len();
            match clean_batch(&view, &keys, &mut transactions, &rules, must_stay, &mut counts).unwrap() {
                Cleaned::Gone => {}
                Cleaned::AsItIs => cleaned.push(batch.clone()),
                Cleaned::Anew(bytes) => cleaned.push(bytes),
            }
        }
        self.aborted = transactions.take_retained();
        cleaned.extend_from_slice(&self.batches[below.len()..]);
        self.batches = cleaned;
        (keys.latest().next().value(), counts)
    }

    fn clean(&mut self, now: i64) -> Counts {
        self.pass(0, i64::MAX, 1000, now).1
    }

    /// Offsets, keys and values; control records as `commit` and `abort`.
    fn show(&self) -> Vec<String> {
        let mut shown = Vec::new();
        for batch in &self.batches {
            let view = BatchView::parse(batch).unwrap();
            view.verify_crc().unwrap();
            let header = view.header;
            if header.record_count == 0 {
                shown.push(format!("{}-{} empty", header.base_offset, header.last_offset()));
            }
            for record in RecordStream::new(&view, 1 << 20).unwrap() {
                let record = record.unwrap();
                if header.attributes.is_control() {
                    let kind = if record.key == Some(vec![0, 0, 0, 1]) { "commit" } else { "abort" };
                    shown.push(format!("{} {kind}", record.offset));
                    continue;
                }
                let text =
                    |bytes: Option<Vec<u8>>| bytes.map_or("-".into(), |b| String::from_utf8(b).unwrap());
                shown.push(format!("{} {}={}", record.offset, text(record.key), text(record.value)));
            }
        }
        shown
    }
}

fn plain(records: &[(Option<&str>, Option<&str>)]) -> TestLog {
    let mut log = TestLog::default();
    for record in records {
        log.push(Codec::None, None, &[*record]);
    }
    log
}

#[test]
fn the_newest_of_each_key_stays_in_its_place() {
    for codec in Codec::ALL {
        let mut log = TestLog::default();
        log.push(codec, None, &[(Some("a"), Some("1")), (Some("b"), Some("1")), (None, Some("keyless"))]);
        log.push(codec, None, &[(Some("a"), Some("2"))]);
        log.push(codec, None, &[(Some("c"), Some("1")), (Some("a"), Some("3"))]);
        let before = log.batches[2].clone();
        let counts = log.clean(0);
        assert_eq!(log.show(), ["1 b=1", "4 c=1", "5 a=3"], "{codec}");
        assert_eq!(log.batches[1], before, "what stays whole stays byte for byte");
        assert_eq!((counts.records_read, counts.records_kept, counts.records_keyless), (6, 3, 1));
        let first = TestLog::header(&log.batches[0]);
        assert_eq!((first.base_offset, first.last_offset()), (Offset(0), Offset(2)));
    }
}

#[test]
fn a_tombstone_stays_until_its_horizon() {
    let mut log = plain(&[(Some("a"), Some("1")), (Some("a"), None), (Some("b"), Some("1"))]);
    log.clean(5_000);
    assert_eq!(log.show(), ["1 a=-", "2 b=1"]);
    assert_eq!(TestLog::header(&log.batches[0]).delete_horizon(), Some(TimestampMs(6_000)));
    log.clean(5_999);
    assert_eq!(log.show(), ["1 a=-", "2 b=1"], "the first pass set the horizon, later ones leave it");
    assert_eq!(TestLog::header(&log.batches[0]).delete_horizon(), Some(TimestampMs(6_000)));
    log.clean(6_000);
    assert_eq!(log.show(), ["2 b=1"]);
}

#[test]
fn nothing_beyond_the_bound_or_a_full_map_is_touched() {
    let records = [
        (Some("a"), Some("1")),
        (Some("b"), Some("1")),
        (Some("a"), Some("2")),
        (Some("b"), None),
        (Some("c"), Some("1")),
    ];
    let mut log = plain(&records);
    assert_eq!(log.pass(0, 2, 1000, 0).0, 2);
    assert_eq!(log.show(), ["0 a=1", "1 b=1", "2 a=2", "3 b=-", "4 c=1"]);
    // The map has room for two keys: the pass ends where it is full, and the next one begins there.
    let mut next = 0;
    for (now, reached, shown) in [
        (0, 2, &["0 a=1", "1 b=1", "2 a=2", "3 b=-", "4 c=1"][..]),
        (0, 4, &["2 a=2", "3 b=-", "4 c=1"]),
        (RETENTION_MS, 5, &["2 a=2", "4 c=1"]),
    ] {
        next = log.pass(next, 5, 2, now).0;
        assert_eq!(
            (next, &log.show()[..]),
            (reached, &shown.iter().map(ToString::to_string).collect::<Vec<_>>()[..])
        );
    }
}

/// A batch with more keys than the map has room for would end every pass before it.
#[test]
fn the_first_batch_is_mapped_whatever_its_size() {
    let mut log = TestLog::default();
    log.push(Codec::None, None, &[(Some("a"), Some("1")), (Some("b"), Some("1")), (Some("c"), Some("1"))]);
    log.push(Codec::None, None, &[(Some("a"), Some("2"))]);
    assert_eq!(log.pass(0, 4, 1, 0).0, 3);
    assert_eq!(log.pass(3, 4, 1, 0).0, 4);
    assert_eq!(log.show(), ["1 b=1", "2 c=1", "3 a=2"]);
}

#[test]
fn a_producers_newest_batch_outlives_its_records() {
    let mut log = TestLog::default();
    log.push(Codec::Lz4, Some((1, 0, 0, false)), &[(Some("a"), Some("1"))]);
    log.push(Codec::Lz4, Some((1, 0, 1, false)), &[(Some("a"), Some("2")), (Some("a"), Some("3"))]);
    log.push(Codec::Lz4, Some((2, 0, 0, false)), &[(Some("a"), Some("4"))]);
    let producers = log.producers();
    log.clean(0);
    assert_eq!(log.show(), ["1-2 empty", "3 a=4"]);
    for id in [1, 2].map(ProducerId) {
        assert_eq!(
            log.producers().get(id).unwrap().last_sequence(),
            producers.get(id).unwrap().last_sequence()
        );
    }
    // The next pass finds it again; a newer batch of the producer, or its expiry, lets it go.
    log.clean(1);
    assert_eq!(log.show(), ["1-2 empty", "3 a=4"]);
    log.push(Codec::None, Some((1, 0, 3, false)), &[(Some("b"), Some("1"))]);
    log.clean(2);
    assert_eq!(log.show(), ["3 a=4", "4 b=1"]);
}

#[test]
fn the_last_batch_stays_so_that_the_end_is_known() {
    let mut log = plain(&[(Some("a"), Some("1")), (None, Some("keyless"))]);
    log.clean(0);
    assert_eq!(log.show(), ["0 a=1", "1-1 empty"]);
}

#[test]
fn aborted_records_go_at_once_and_their_marker_when_readers_are_past_it() {
    let mut log = TestLog::default();
    let first = log.push(Codec::None, Some((1, 0, 0, true)), &[(Some("a"), Some("aborted"))]);
    log.abort(1, 0, first);
    log.push(Codec::None, Some((1, 0, 1, true)), &[(Some("b"), Some("kept"))]);
    log.marker(1, 0, true);
    log.push(Codec::None, None, &[(Some("c"), Some("1"))]);
    log.clean(0);
    // An aborted value does not replace anything; its marker stays: a reader may have read a of it a moment ago.
    assert_eq!(log.show(), ["1 abort", "2 b=kept", "3 commit", "4 c=1"]);
    assert_eq!(log.aborted.len(), 1, "readers are still told of it");
    log.clean(10);
    assert_eq!(log.show(), ["1 abort", "2 b=kept", "3 commit", "4 c=1"], "now it has its horizon");
    assert_eq!(log.aborted.len(), 0);
    log.clean(9 + RETENTION_MS);
    assert_eq!(log.show()[0], "1 abort");
    log.clean(10 + RETENTION_MS);
    assert_eq!(log.show(), ["2 b=kept", "3 commit", "4 c=1"]);
}

#[test]
fn a_commit_marker_stays_while_a_record_of_its_transaction_does() {
    let mut log = TestLog::default();
    log.push(Codec::None, Some((1, 0, 0, true)), &[(Some("a"), Some("1"))]);
    log.marker(1, 0, true);
    log.push(Codec::None, Some((1, 1, 0, false)), &[(Some("a"), Some("2"))]);
    for now in [0, 10] {
        log.clean(now);
        assert_eq!(log.show(), ["1 commit", "2 a=2"], "at {now}");
    }
    log.clean(10 + RETENTION_MS);
    assert_eq!(log.show(), ["2 a=2"]);
}

/// A producer whose newest trace is a marker: the marker carries the epoch that fences the incarnation before.
#[test]
fn a_marker_that_began_an_epoch_stays() {
    let mut log = TestLog::default();
    log.push(Codec::None, Some((1, 0, 0, true)), &[(Some("a"), Some("1"))]);
    log.marker(1, 1, true);
    log.push(Codec::None, None, &[(Some("a"), Some("2"))]);
    for now in [0, 10, 20 + RETENTION_MS, 30 + RETENTION_MS] {
        log.clean(now);
    }
    assert_eq!(log.show(), ["1-1 empty", "2 a=2"]);
    assert_eq!(log.producers().get(ProducerId(1)).unwrap().epoch, ProducerEpoch(1));
}

#[derive(Clone, Debug)]
enum Write {
    /// Keys and whether they have a value; by one of some producers or none, in a transaction or not.
    Batch { records: Vec<(Option<u8>, bool)>, producer: Option<i64>, transactional: bool, codec: usize },
    /// Ends a producer's transaction.
    End { producer: i64, commits: bool },
    /// A pass: up to which part of the log, with room for so many keys, after so much time.
    Pass { part: u8, keys_max: usize, after_ms: i64 },
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let record = (prop_oneof![9 => (0..6u8).prop_map(Some), 1 => Just(None)], prop::bool::weighted(0.8));
    let write = prop_oneof![
        8 => (prop::collection::vec(record, 1..4), prop_oneof![Just(None), (0..3i64).prop_map(Some)], any::<bool>(), 0..5usize)
            .prop_map(|(records, producer, transactional, codec)| Write::Batch { records, producer, transactional, codec }),
        3 => (0..3i64, any::<bool>()).prop_map(|(producer, commits)| Write::End { producer, commits }),
        2 => (0..=4u8, prop_oneof![Just(1usize), Just(3), Just(100)], 0..2 * RETENTION_MS)
            .prop_map(|(part, keys_max, after_ms)| Write::Pass { part, keys_max, after_ms }),
    ];
    prop::collection::vec(write, 1..60)
}

/// What a reader of committed records sees: offset, key, value.
type Visible = Vec<(i64, Option<Vec<u8>>, Option<Vec<u8>>)>;

/// Reads as a consumer does, told of the aborted transactions.
fn visible(log: &TestLog, until: i64) -> Visible {
    let mut seen = Vec::new();
    for batch in &log.batches {
        let view = BatchView::parse(batch).unwrap();
        view.verify_crc().unwrap();
        let header = view.header;
        let is_aborted = header.attributes.is_transactional()
            && log.aborted.iter().any(|aborted| {
                aborted.producer_id == header.producer_id
                    && (aborted.first_offset..=aborted.last_offset).contains(&header.base_offset)
            });
        if header.attributes.is_control() || is_aborted || header.base_offset.value() >= until {
            continue;
        }
        for record in RecordStream::new(&view, 1 << 20).unwrap() {
            let record = record.unwrap();
            seen.push((record.offset.value(), record.key, record.value));
        }
    }
    seen
}

/// The value of each key; what was deleted is not in it.
fn state(seen: &Visible) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut state = BTreeMap::new();
    for (_, key, value) in seen {
        let Some(key) = key else { continue };
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
    state
}

fn check_pass(before: &TestLog, after: &TestLog, bound: i64, cleaned_to: i64) {
    let (was, is) = (visible(before, i64::MAX), visible(after, i64::MAX));
    assert_eq!(state(&was), state(&is), "{:?}\n{:?}", before.show(), after.show());
    let all: BTreeSet<_> = was.iter().collect();
    assert!(is.iter().all(|record| all.contains(record)), "a record was changed, moved or made up");
    let newest: BTreeMap<_, _> =
        was.iter().filter(|r| r.0 < cleaned_to).map(|r| (r.1.clone(), r.0)).collect();
    for record in &was {
        let stays = is.contains(record);
        let is_newest = newest.get(&record.1) == Some(&record.0) && record.1.is_some();
        if record.0 >= cleaned_to {
            assert!(stays, "{record:?} is beyond {cleaned_to}");
        } else if !is_newest && record.1.is_none() {
            assert!(!stays, "{record:?} has no key");
        } else if is_newest && record.2.is_some() {
            // A newer one beyond the cleaned part may have been met as well.
            let is_replaced = was.iter().any(|other| other.1 == record.1 && other.0 > record.0);
            assert!(stays || is_replaced, "{record:?} is the newest");
        }
    }
    let places = |log: &TestLog| -> Vec<(Offset, Offset)> {
        log.batches.iter().map(|b| TestLog::header(b)).map(|h| (h.base_offset, h.last_offset())).collect()
    };
    let (was, is) = (places(before), places(after));
    assert!(is.iter().all(|place| was.contains(place)), "batches keep their offsets");
    let last_below = was.iter().rfind(|place| place.1 < Offset(bound));
    assert!(last_below.is_none_or(|place| is.contains(place)), "the last batch stays");
    // Of the whole log, and of what is left when the end behind the cleaned part goes.
    let sequences = |log: &TestLog, to| -> Vec<_> {
        let producers = log.producers_in(i64::MIN, to);
        producers.iter().map(|(id, entry)| (id, entry.epoch, entry.last_sequence())).collect()
    };
    let ends = before.batches.iter().map(|batch| TestLog::header(batch).next_offset().value());
    for end in ends.filter(|end| *end >= cleaned_to) {
        assert_eq!(sequences(before, end), sequences(after, end), "cut to {end}, cleaned to {cleaned_to}");
    }
}

fn live(writes: Vec<Write>) {
    let mut log = TestLog::default();
    let mut now = 1_000_000;
    let mut first_dirty = 0;
    let mut sequences: BTreeMap<i64, i32> = BTreeMap::new();
    let mut open: BTreeMap<i64, i64> = BTreeMap::new();
    for write in writes {
        match write {
            Write::Batch { records, producer, transactional, codec } => {
                // A producer with a transaction under way writes nothing else.
                let transactional = transactional || producer.is_some_and(|id| open.contains_key(&id));
                let writer = producer.map(|id| {
                    let sequence = sequences.entry(id).or_default();
                    let base = *sequence;
                    *sequence += records.len() as i32;
                    (id, 0, base, transactional)
                });
                let text: Vec<_> = records
                    .iter()
                    .enumerate()
                    .map(|(at, (key, has_value))| {
                        let value = has_value.then(|| format!("v{}", log.end + at as i64));
                        (key.map(|key| format!("k{key}")), value)
                    })
                    .collect();
                let records: Vec<_> = text.iter().map(|(k, v)| (k.as_deref(), v.as_deref())).collect();
                let base = log.push(Codec::ALL[codec], writer, &records);
                if let Some(id) = producer.filter(|_| transactional) {
                    open.entry(id).or_insert(base);
                }
            }
            Write::End { producer, commits } => {
                let Some(first) = open.remove(&producer) else { continue };
                if commits {
                    log.marker(producer, 0, true);
                } else {
                    log.abort(producer, 0, first);
                }
            }
            Write::Pass { part, keys_max, after_ms } => {
                now += after_ms;
                // Below the last stable offset, and between two batches, as segments are.
                let stable = open.values().copied().min().unwrap_or(log.end);
                let wanted = stable * i64::from(part) / 4;
                let ends = log.batches.iter().map(|batch| TestLog::header(batch).next_offset().value());
                let bound = ends.filter(|end| *end <= wanted).max().unwrap_or(0);
                if bound <= first_dirty {
                    continue;
                }
                let before = log.clone();
                // Of a transaction whose marker lies behind the bound the records may go, and readers are still told.
                let beyond: Vec<_> = log
                    .aborted
                    .iter()
                    .copied()
                    .filter(|aborted| aborted.last_offset.value() >= bound)
                    .collect();
                let (cleaned_to, _) = log.pass(first_dirty, bound, keys_max, now);
                log.aborted.extend(beyond);
                assert!(cleaned_to > first_dirty, "a pass gets further");
                first_dirty = cleaned_to;
                check_pass(&before, &log, bound, cleaned_to);
            }
        }
    }
    // At last nothing but the newest is left, and no tombstone, whatever was cleaned before.
    for (id, first) in std::mem::take(&mut open) {
        log.abort(id, 0, first);
    }
    let before = log.clone();
    for _ in 0..3 {
        now += RETENTION_MS;
        log.pass(0, log.end, 1000, now);
        check_pass(&before, &log, log.end, log.end);
    }
    let left = visible(&log, i64::MAX);
    let keys: BTreeSet<_> = left.iter().map(|record| record.1.clone()).collect();
    assert_eq!(keys.len(), left.len(), "one record a key: {:?}", log.show());
    assert!(left.iter().all(|record| record.2.is_some()), "tombstones are gone: {:?}", log.show());
    // What is left of an aborted transaction is a remembered producer's newest batch, without records.
    assert!(log.aborted.len() <= 3, "{:?}", log.aborted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_log_keeps_its_meaning(writes in writes()) {
        live(writes);
    }
}
