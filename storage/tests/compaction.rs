//! Compaction of whole logs, on a simulated disk: random lives against a model, a crash at every change of the disk, and
//! what readers, retention, truncation and damage meet while a log is compacted.

mod support;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use ouzel_model::batch::{BatchBuilder, BatchView, Codec, RecordParts, RecordStream, batches};
use ouzel_model::{Offset, ProducerEpoch, ProducerId, TimestampMs};
use ouzel_runtime::disk::OpenMode;
use ouzel_runtime::sim::{self, Rng, SimRuntime};
use ouzel_storage::compaction::{Cleaner, CleanerConfig, CompactionRules};
use ouzel_storage::log::{CompactError, Compacted};
use ouzel_storage::{
    Durability, FileCommitter, Log, LogConfig, LogOffsets, OpenError, ProducerVerdict, Stop,
};
use proptest::prelude::*;
use support::{Bench, EPOCH, Held, NOW};

/// A record as it was appended: key and value.
type Record = (Option<String>, Option<String>);

/// What was appended, by offset; nothing is ever taken from it but by trims and cuts.
#[derive(Clone, Default)]
struct Model {
    records: BTreeMap<i64, Record>,
    /// Where batches begin, and their next offsets.
    batches: BTreeMap<i64, i64>,
    start: i64,
    end: i64,
    /// Up to where compaction may have taken records.
    cleaned: i64,
    /// What was called stable: nothing below is ever cut.
    stable: i64,
    sequences: BTreeMap<i64, i32>,
}

impl Model {
    /// The value of each key that a reader of the whole log ends up with.
    fn state(&self) -> BTreeMap<String, String> {
        state(self.records.range(self.start..).map(|(_, record)| record))
    }

    /// The end of the last batch at or below a place.
    fn batch_end(&self, place: i64) -> i64 {
        self.batches.values().copied().filter(|end| *end <= place).max().unwrap_or(0)
    }

    fn cut(&mut self, end: i64) {
        self.records.retain(|offset, _| *offset < end);
        self.batches.retain(|_, next| *next <= end);
        self.end = end;
    }
}

fn state<'a>(records: impl Iterator<Item = &'a Record>) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    for (key, value) in records {
        let Some(key) = key else { continue };
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
    state
}

/// A batch, and what it holds. Keys are few, so that they repeat.
fn draw_batch(random: &mut Rng, model: &mut Model) -> (BytesMut, Vec<Record>) {
    let codec = Codec::ALL[random.below(5) as usize];
    let mut builder = BatchBuilder::new(codec);
    let producer = random.below(4) as i64;
    let records: Vec<Record> = (0..=random.below(3))
        .map(|_| {
            let key = (!random.chance(1, 20)).then(|| format!("k{}", random.below(8)));
            let value = (!random.chance(1, 5)).then(|| format!("{:x}", random.next()));
            (key, value)
        })
        .collect();
    if producer < 3 {
        let sequence = model.sequences.entry(producer).or_default();
        builder = builder.producer(ProducerId(producer), ProducerEpoch(0), *sequence);
        *sequence += records.len() as i32;
    }
    for (key, value) in &records {
        let (key, value) = (key.as_ref().map(String::as_bytes), value.as_ref().map(String::as_bytes));
        builder
            .push(TimestampMs(NOW.0 + random.below(1000) as i64), &RecordParts { key, value, headers: &[] });
    }
    (BytesMut::from(&builder.build()[..]), records)
}

fn append_one(log: &Log, random: &mut Rng, model: &mut Model) {
    let (batch, records) = draw_batch(random, model);
    let placed = log.append(batch, EPOCH, NOW).expect("the log takes it");
    assert_eq!(placed.base_offset, Offset(model.end));
    model.batches.insert(model.end, model.end + records.len() as i64);
    for record in records {
        model.records.insert(model.end, record);
        model.end += 1;
    }
}

/// Reads from `from` to the log's end, batch by batch; whole batches, in order, each sound.
async fn read_from(log: &Log, from: i64, bytes_max: usize) -> Vec<(i64, Record)> {
    let end = log.offsets().log_end;
    let mut seen = Vec::new();
    let mut next = Offset(from);
    while next < end {
        let slices = log.read(next, end, bytes_max, true).await.expect("the log reads");
        let before = next;
        for batch in slices.batches.iter().flat_map(|bytes| batches(bytes)) {
            let batch: BatchView<'_> = batch.expect("whole batches");
            batch.verify_crc().expect("sound batches");
            let header = batch.header;
            assert!(header.last_offset() >= next, "{header:?} lies before {next}");
            assert!(header.next_offset() <= end);
            next = header.next_offset();
            for record in RecordStream::new(&batch, 1 << 20).expect("a known codec") {
                let record = record.expect("sound records");
                let text =
                    |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8(bytes).expect("text"));
                if record.offset >= before.max(Offset(from)) {
                    seen.push((record.offset.value(), (text(record.key), text(record.value))));
                }
            }
        }
        assert!(next > before, "nothing to read at {before} below {end}");
    }
    seen
}

/// Everything a log must be, compacted or not, compared with all that was ever appended.
async fn check(log: &Log, model: &Model) {
    let LogOffsets { log_start, log_end, .. } = log.offsets();
    assert_eq!((log_start, log_end), (Offset(model.start), Offset(model.end)));
    let seen = read_from(log, model.start, 700).await;
    for (offset, record) in &seen {
        assert_eq!(model.records.get(offset), Some(record), "at {offset}");
    }
    let seen: BTreeMap<_, _> = seen.into_iter().collect();
    for (offset, record) in model.records.range(model.cleaned.max(model.start)..) {
        assert_eq!(seen.get(offset), Some(record), "{offset} was never compacted");
    }
    assert_eq!(state(seen.values()), model.state());
    // From within a gap the read begins with the next batch.
    for from in model.start..model.end {
        let slices = log.read(Offset(from), log_end, 1, true).await.expect("the log reads");
        let first = batches(&slices.batches[0]).next().expect("a batch").expect("sound").header;
        assert!(first.last_offset() >= Offset(from));
        let skipped = seen.range(from..first.base_offset.value().max(from)).next();
        assert_eq!(skipped, None, "from {from} the first batch is {first:?}");
    }
    // The next batch of each producer is expected where it stopped.
    for (producer, sequence) in &model.sequences {
        let mut builder =
            BatchBuilder::new(Codec::None).producer(ProducerId(*producer), ProducerEpoch(0), *sequence);
        builder.push(NOW, &RecordParts::default());
        let next = builder.build();
        let header = BatchView::parse(&next).expect("a batch").header;
        assert_eq!(log.check_producer(&header), ProducerVerdict::Append, "producer {producer}");
    }
}

fn config(durability: Durability) -> LogConfig {
    LogConfig {
        segment_bytes: 800,
        index_interval_bytes: 150,
        retention_ms: None,
        file_delete_delay: Duration::from_millis(3),
        durability,
        ..LogConfig::default()
    }
}

fn cleaner(node: &SimRuntime, keys_max: usize) -> Cleaner {
    let config = CleanerConfig {
        key_bytes_max: keys_max * 2 * 24,
        load_factor: 0.5,
        chunk_bytes: 4096,
        ..CleanerConfig::default()
    };
    Cleaner::new(node.runtime(), config)
}

const RULES: CompactionRules =
    CompactionRules { dirty_ratio_min: 0.0, lag_min_ms: 0, lag_max_ms: i64::MAX, delete_retention_ms: 1_000 };

async fn compact(
    log: &Log,
    cleaner: &Cleaner,
    bound: i64,
    now: i64,
) -> Result<Option<Compacted>, CompactError> {
    log.compact(cleaner, &RULES, Offset(bound), TimestampMs(NOW.0 + now)).await
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Roll,
    /// Up to which part of the log, with room for so many keys, after so many ms.
    Compact {
        part: u8,
        keys_max: usize,
        after_ms: i64,
    },
    /// While this many batches are appended.
    CompactUnderLoad {
        batches: u8,
    },
    Trim {
        part: u8,
    },
    Truncate {
        part: u8,
    },
    Restart,
    Kill,
    PowerCut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys_max = prop_oneof![Just(1usize), Just(4), Just(1000)];
    let step = prop_oneof![
        8 => (1..12u8).prop_map(Step::Append),
        2 => Just(Step::Roll),
        6 => (1..=4u8, keys_max, 0..2000i64)
            .prop_map(|(part, keys_max, after_ms)| Step::Compact { part, keys_max, after_ms }),
        2 => (1..12u8).prop_map(|batches| Step::CompactUnderLoad { batches }),
        1 => (0..4u8).prop_map(|part| Step::Trim { part }),
        1 => (0..4u8).prop_map(|part| Step::Truncate { part }),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerCut),
    ];
    prop::collection::vec(step, 1..30)
}

async fn live(node: SimRuntime, steps: Vec<Step>, tail_bytes_max: u64, durability: Durability, seed: u64) {
    let mut random = Rng::new(seed);
    if random.chance(1, 2) {
        node.disk().set_delay_max(Duration::from_millis(2));
    }
    let config = config(durability);
    let bench = || Bench::new(node.runtime(), node.data_dir(), tail_bytes_max);
    let mut model = Model::default();
    let mut log = bench().open(&config).await;
    let mut now = 0;
    for step in steps {
        match step {
            Step::Append(batches) => {
                for _ in 0..batches {
                    append_one(&log, &mut random, &mut model);
                }
            }
            Step::Roll => log.roll(),
            Step::Compact { part, keys_max, after_ms } => {
                now += after_ms;
                log.wait_written(Offset(model.end)).await.unwrap();
                let bound = model.batch_end(model.end * i64::from(part) / 4);
                model.stable = model.stable.max(bound);
                let done = compact(&log, &cleaner(&node, keys_max), bound, now).await.unwrap();
                if let Some(done) = done {
                    assert!(done.to > done.from && done.to <= Offset(bound), "{done:?} below {bound}");
                    assert_eq!(log.first_dirty(), Some(done.to));
                    model.cleaned = model.cleaned.max(done.to.value());
                }
            }
            Step::CompactUnderLoad { batches } => {
                log.wait_written(Offset(model.end)).await.unwrap();
                let (compacted, cleaner, bound) = (log.clone(), cleaner(&node, 1000), model.end);
                model.stable = bound;
                let pass =
                    ouzel_runtime::spawn(async move { compact(&compacted, &cleaner, bound, now).await });
                for _ in 0..batches {
                    append_one(&log, &mut random, &mut model);
                    let from = model.start + random.below((model.end - model.start).max(1) as u64) as i64;
                    for (offset, record) in read_from(&log, from, 400).await {
                        assert_eq!(model.records.get(&offset), Some(&record), "at {offset}");
                    }
                }
                if let Some(done) = pass.await.unwrap().unwrap() {
                    model.cleaned = model.cleaned.max(done.to.value());
                }
            }
            Step::Trim { part } => {
                let to = model.start + (model.end - model.start) * i64::from(part) / 4;
                log.flush().await.unwrap();
                assert_eq!(log.trim_to(Offset(to)).await.unwrap(), Offset(to));
                model.start = to;
            }
            Step::Truncate { part } => {
                let floor = model.stable.max(model.start);
                let end = model.batch_end(floor + (model.end - floor) * i64::from(part) / 4);
                if end >= floor {
                    assert_eq!(log.truncate_to(Offset(end)).await.unwrap(), Offset(end));
                    model.cut(end);
                    // Their sequences are gone with them.
                    model.sequences = sequences_of(&log);
                }
            }
            Step::Restart => {
                let end = log.close().await.unwrap();
                log = bench().reopen_clean(&config, end).await;
            }
            Step::Kill => {
                log.wait_written(Offset(model.end)).await.unwrap();
                let flushed = log.offsets().flushed_end;
                node.disk().kill();
                log = bench().reopen(&config, Stop::UncleanSameBoot, flushed).await.unwrap();
            }
            Step::PowerCut => {
                log.flush().await.unwrap();
                node.disk().power_cut();
                // What is known to be flushed is an older word, now and then.
                let flushed = if random.chance(1, 2) { model.end } else { 0 };
                log = bench().reopen(&config, Stop::UncleanOtherBoot, Offset(flushed)).await.unwrap();
            }
        }
        check(&log, &model).await;
    }
}

/// What a log expects of each producer next, found by asking.
fn sequences_of(log: &Log) -> BTreeMap<i64, i32> {
    let mut sequences = BTreeMap::new();
    for producer in 0..3 {
        for sequence in 0..2000 {
            let mut builder =
                BatchBuilder::new(Codec::None).producer(ProducerId(producer), ProducerEpoch(0), sequence);
            builder.push(NOW, &RecordParts::default());
            let batch = builder.build();
            let header = BatchView::parse(&batch).expect("a batch").header;
            if log.check_producer(&header) == ProducerVerdict::Append {
                sequences.insert(producer, sequence);
                break;
            }
        }
    }
    sequences
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_compacted_log_keeps_its_meaning(
        steps in steps(),
        tail_bytes_max in prop_oneof![Just(0u64), Just(600), Just(1 << 20)],
        durability in prop_oneof![Just(Durability::Durable), Just(Durability::WriteCaching), Just(Durability::Os)],
        seed in any::<u64>(),
    ) {
        sim::run(seed, |node| async move { live(node, steps, tail_bytes_max, durability, seed).await });
    }
}

/// A pass let go of the batch with a producer's last sequence number, since a newer one of it lay behind what was cleaned;
/// that one was truncated, as a group does with what it has not committed. The next start expected an older sequence
/// number, and refused the producer's next batch for good. Found by the property above.
#[test]
fn a_producer_whose_newest_batch_is_truncated_is_known_by_the_one_before() {
    let steps = vec![
        Step::Append(8),
        Step::Append(6),
        Step::CompactUnderLoad { batches: 7 },
        Step::Truncate { part: 0 },
        Step::PowerCut,
    ];
    let seed = 13_647_170_489_453_561_769;
    sim::run(seed, |node| async move { live(node, steps, 0, Durability::Durable, seed).await });
}

/// A log of several segments, and one pass over a part of it already.
async fn prepared(
    node: &SimRuntime,
    random: &mut Rng,
    bench: &Bench,
    config: &LogConfig,
    batches: usize,
) -> (Log, Model) {
    let mut model = Model::default();
    let log = bench.open(config).await;
    for _ in 0..batches / 2 {
        append_one(&log, random, &mut model);
    }
    log.flush().await.unwrap();
    let done = compact(&log, &cleaner(node, 1000), model.end / 2, 0).await.unwrap();
    model.cleaned = done.expect("half the log is cleanable").to.value();
    for _ in 0..batches / 2 {
        append_one(&log, random, &mut model);
    }
    log.flush().await.unwrap();
    (log, model)
}

/// The power goes, or the process is killed, at each change of the disk a pass makes; what the next start finds has every
/// record it must have, and can be compacted on.
#[test]
fn no_point_of_a_pass_is_a_bad_one_to_crash() {
    let mut swaps_finished = 0;
    for (seed, durability) in [(1, Durability::Durable), (2, Durability::Os)] {
        for was_killed in [false, true] {
            for point in 0.. {
                let (struck, finished) = crash_at(seed, durability, was_killed, point);
                swaps_finished += u32::from(finished);
                if !struck {
                    assert!(point > 25, "a pass of {point} changes is no pass");
                    break;
                }
            }
        }
    }
    assert!(swaps_finished > 20, "{swaps_finished} starts had a swap to finish");
}

/// Whether the crash came within the pass, and whether the start had a swap to finish. The power goes after so many
/// changes; the process is killed after as many fifths of a millisecond.
fn crash_at(seed: u64, durability: Durability, was_killed: bool, point: u64) -> (bool, bool) {
    sim::run(seed, |node| async move {
        let mut random = Rng::new(seed);
        let bench = Bench::new(node.runtime(), node.data_dir(), 0);
        let config = config(durability);
        let (log, mut model) = prepared(&node, &mut random, &bench, &config, 26).await;
        let flushed = log.offsets().flushed_end;
        if was_killed {
            node.disk().set_delay_max(Duration::from_micros(500));
        } else {
            node.disk().cut_power_after(point);
        }
        let (compacted, cleaner_of_it, bound) = (log.clone(), cleaner(&node, 1000), model.end);
        let pass = ouzel_runtime::spawn(async move { compact(&compacted, &cleaner_of_it, bound, 0).await });
        let struck = if was_killed {
            node.runtime().clock.sleep(Duration::from_micros(200 * point)).await;
            let struck = !pass.is_finished();
            node.disk().kill();
            struck
        } else {
            let passed = pass.await.unwrap();
            let struck = node.disk().is_cut();
            assert!(struck || passed.is_ok(), "{passed:?}");
            node.disk().power_cut();
            struck
        };
        node.disk().set_delay_max(Duration::ZERO);
        model.cleaned = model.end;
        node.disk().cut_power_after(u64::MAX);
        let bench = Bench::new(node.runtime(), node.data_dir(), 0);
        let names = bench.names().await;
        let finished = names.iter().any(|name| name.ends_with(".log.swap"));
        let stop = if was_killed { Stop::UncleanSameBoot } else { Stop::UncleanOtherBoot };
        let log =
            bench.reopen(&config, stop, flushed).await.unwrap_or_else(|e| panic!("cut at {point}: {e}"));
        let names = bench.names().await;
        let leavings = |name: &&String| name.ends_with(".swap") || name.ends_with(".cleaned");
        assert_eq!(names.iter().find(leavings), None, "cut at {point}");
        check(&log, &model).await;
        append_one(&log, &mut random, &mut model);
        log.flush().await.unwrap();
        compact(&log, &cleaner(&node, 1000), model.end, 5_000).await.unwrap();
        check(&log, &model).await;
        (struck, finished)
    })
}

/// As above, and the start that mends is cut as well, at each of its changes.
#[test]
fn a_start_that_finishes_a_swap_may_crash_too() {
    let mut cuts = 0;
    for point in (0..60).step_by(3) {
        for mend_point in 0.. {
            let struck = sim::run(5, |node| async move {
                let mut random = Rng::new(5);
                let bench = Bench::new(node.runtime(), node.data_dir(), 0);
                let config = config(Durability::Durable);
                let (log, mut model) = prepared(&node, &mut random, &bench, &config, 26).await;
                node.disk().cut_power_after(point);
                let _ = compact(&log, &cleaner(&node, 1000), model.end, 0).await;
                model.cleaned = model.end;
                let flushed = log.offsets().flushed_end;
                node.disk().power_cut();
                node.disk().cut_power_after(mend_point);
                let bench = Bench::new(node.runtime(), node.data_dir(), 0);
                let opened = bench.reopen(&config, Stop::UncleanOtherBoot, flushed).await;
                let struck = node.disk().is_cut();
                assert!(struck || opened.is_ok(), "{:?}", opened.err());
                drop(opened);
                node.disk().power_cut();
                node.disk().cut_power_after(u64::MAX);
                let bench = Bench::new(node.runtime(), node.data_dir(), 0);
                let log = bench.reopen(&config, Stop::UncleanOtherBoot, flushed).await.expect("it opens");
                check(&log, &model).await;
                struck
            });
            if !struck {
                break;
            }
            cuts += 1;
        }
    }
    assert!(cuts > 100, "{cuts} starts were cut");
}

/// A record goes because a newer one has replaced it. A power cut must not take that one too, and in the modes that flush
/// late it may be in the page cache only.
#[test]
fn what_replaced_a_record_is_on_the_disk_before_it_goes() {
    sim::run(1, |node| async move {
        let held = Rc::new(Held::new());
        let bench = Bench::with_committer(node.runtime(), node.data_dir(), 0, held.clone());
        let mut random = Rng::new(1);
        let mut model = Model::default();
        let log = bench.open(&config(Durability::Os)).await;
        for _ in 0..40 {
            append_one(&log, &mut random, &mut model);
        }
        log.wait_written(Offset(model.end)).await.unwrap();
        let before = bench.names().await;
        let (compacted, cleaner, bound) = (log.clone(), cleaner(&node, 1000), model.end);
        let pass = ouzel_runtime::spawn(async move { compact(&compacted, &cleaner, bound, 0).await });
        node.runtime().clock.sleep(Duration::from_secs(5)).await;
        assert!(!pass.is_finished(), "it waits for the flush");
        assert_eq!(bench.names().await, before, "nothing has changed its name");
        held.release(&FileCommitter::new(node.runtime().disk)).await;
        let done = pass.await.unwrap().unwrap().expect("something to clean");
        assert!(log.offsets().flushed_end >= done.to);
        model.cleaned = done.to.value();
        node.disk().power_cut();
        let bench = Bench::new(node.runtime(), node.data_dir(), 0);
        let log = bench.reopen(&config(Durability::Os), Stop::UncleanOtherBoot, done.to).await.unwrap();
        model.cut(log.offsets().log_end.value());
        model.sequences = sequences_of(&log);
        check(&log, &model).await;
    });
}

fn keyed(key: &str, value: Option<&str>) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None);
    let parts = RecordParts { key: Some(key.as_bytes()), value: value.map(str::as_bytes), headers: &[] };
    builder.push(NOW, &parts);
    BytesMut::from(&builder.build()[..])
}

/// One record a segment, all of one key, and one of another key in the active segment.
async fn one_key(bench: &Bench, config: &LogConfig, segments: usize) -> Log {
    let log = bench.open(config).await;
    for at in 0..segments {
        log.append(keyed("k", Some(&at.to_string())), EPOCH, NOW).unwrap();
        log.roll();
    }
    log.append(keyed("other", Some("x")), EPOCH, NOW).unwrap();
    log.flush().await.unwrap();
    log
}

#[test]
fn segments_are_merged_and_the_directory_says_so() {
    sim::run(1, |node| async move {
        let bench = Bench::new(node.runtime(), node.data_dir(), 0);
        let log = one_key(&bench, &config(Durability::Durable), 6).await;
        assert_eq!(log.segment_count(), 7);
        let done = compact(&log, &cleaner(&node, 10), 7, 0).await.unwrap().expect("six segments");
        assert_eq!((done.from, done.to, done.segments), (Offset(0), Offset(6), (6, 1)));
        assert_eq!((done.counts.records_read, done.counts.records_kept), (6, 1));
        assert_eq!(log.segment_count(), 2);
        assert_eq!(read_from(&log, 0, 1000).await.len(), 2);
        node.runtime().clock.sleep(Duration::from_millis(50)).await;
        let names = bench.names().await;
        for (extension, bases) in
            [("log", &[0, 6][..]), ("index", &[0]), ("timeindex", &[0]), ("snapshot", &[6])]
        {
            let found: Vec<_> =
                names.iter().filter(|name| name.ends_with(&format!(".{extension}"))).cloned().collect();
            let expected: Vec<_> = bases.iter().map(|base| format!("{base:020}.{extension}")).collect();
            assert_eq!(found, expected);
        }
        assert!(!names.iter().any(|name| name.ends_with(".deleted") || name.ends_with(".swap")), "{names:?}");
        let note = bench.file("cleaner-offset-checkpoint").await;
        assert_eq!(String::from_utf8(note).unwrap(), "0\n1\nt 0 6\n");
        // Nothing is dirty now, and the next start knows.
        let dirtiness = log.dirtiness(&RULES, Offset(7), NOW).await.unwrap();
        assert_eq!((dirtiness.first_dirty, dirtiness.cleanable_bytes), (Offset(6), 0));
        assert!(compact(&log, &cleaner(&node, 10), 7, 0).await.unwrap().is_none());
        let end = log.close().await.unwrap();
        let log = bench.reopen_clean(&config(Durability::Durable), end).await;
        assert_eq!(log.first_dirty(), Some(Offset(6)));
    });
}

/// A note of more than the log holds is of records that a power cut took. Believed, it would call records clean that
/// were given the same offsets later, and a tombstone among them would go before what it deletes.
#[test]
fn a_log_that_ends_before_it_was_clean_is_dirty_from_its_start() {
    sim::run(1, |node| async move {
        let bench = Bench::new(node.runtime(), node.data_dir(), 0);
        let config = config(Durability::Durable);
        let log = one_key(&bench, &config, 3).await;
        let end = log.close().await.unwrap();
        let note = bench.dir().join("cleaner-offset-checkpoint");
        for (text, believed) in
            [("0\n1\nt 0 4\n", Some(Offset(4))), ("0\n1\nt 0 5\n", None), ("nonsense", None)]
        {
            bench.runtime.disk.write_atomic(&note, text.to_owned().into()).await.unwrap();
            let log = bench.reopen_clean(&config, end).await;
            assert_eq!(log.first_dirty(), believed, "{text}");
            assert_eq!(bench.runtime.disk.exists(&note).await.unwrap(), believed.is_some());
            log.close().await.unwrap();
        }
    });
}

#[test]
fn a_cut_below_the_clean_part_makes_it_dirty() {
    sim::run(1, |node| async move {
        let bench = Bench::new(node.runtime(), node.data_dir(), 0);
        let config = config(Durability::Durable);
        let log = one_key(&bench, &config, 6).await;
        compact(&log, &cleaner(&node, 10), 7, 0).await.unwrap().expect("something");
        log.truncate_to(Offset(6)).await.unwrap();
        assert_eq!(log.first_dirty(), Some(Offset(6)));
        log.truncate_to(Offset(3)).await.unwrap();
        let end = log.offsets().log_end;
        assert_eq!(log.first_dirty(), Some(end));
        log.append(keyed("k", None), EPOCH, NOW).unwrap();
        log.flush().await.unwrap();
        node.disk().power_cut();
        let bench = Bench::new(node.runtime(), node.data_dir(), 0);
        let log = bench.reopen(&config, Stop::UncleanOtherBoot, Offset::ZERO).await.unwrap();
        assert_eq!(log.first_dirty(), Some(end), "noted before anything took those offsets");
    });
}

/// A compacted segment has gaps, and a start must walk it; but its end is known, so a segment that lost its end is still
/// found out, and so is a base offset that was flipped (it lies outside the checksum).
#[test]
fn gaps_do_not_hide_damage() {
    for seed in 0..200 {
        sim::run(seed, |node| async move {
            let mut random = Rng::new(seed);
            let bench = Bench::new(node.runtime(), node.data_dir(), 0);
            let config = config(Durability::Durable);
            let (log, mut model) = prepared(&node, &mut random, &bench, &config, 60).await;
            compact(&log, &cleaner(&node, 1000), model.end, 0).await.unwrap();
            model.cleaned = model.end;
            let flushed = log.offsets().flushed_end;
            drop(log);
            // All the batches of one file.
            let names: Vec<_> =
                bench.names().await.into_iter().filter(|name| name.ends_with(".log")).collect();
            let name = &names[random.below(names.len() as u64) as usize];
            let bytes = bench.file(name).await;
            let sizes: Vec<usize> = batches(&bytes).map(|batch| batch.expect("sound").bytes.len()).collect();
            let at = random.below(sizes.len() as u64) as usize;
            let position: usize = sizes[..at].iter().sum();
            let path = bench.dir().join(name);
            let is_last = at + 1 == sizes.len();
            if random.chance(1, 2) {
                // The base offset: a small or a large lie, up or down.
                let byte = random.below(8);
                node.disk().flip_bit(&path, position as u64 + byte, random.below(8) as u8).unwrap();
            } else if is_last {
                let file = bench.runtime.disk.open(&path, OpenMode::ReadWrite).await.unwrap();
                file.truncate(position as u64).await.unwrap();
            } else {
                return;
            }
            node.disk().kill();
            let bench = Bench::new(node.runtime(), node.data_dir(), 0);
            // As a start that must walk everything, and knows that everything was flushed.
            let opened = bench.reopen(&config, Stop::Unknown, Offset::ZERO).await;
            let log = match opened {
                Ok(log) => log,
                Err(OpenError::Damaged(_)) => return,
                Err(error) => panic!("{error}"),
            };
            // Cut where the damage was, or a lie within a gap, which changes the offsets of a batch whose neighbours are
            // gone: nobody can tell.
            let end = log.offsets().log_end;
            if end == flushed {
                let header_at = |bytes: &[u8]| BatchView::parse(bytes).expect("a batch").header.base_offset;
                let told = bench.file(name).await;
                let (was, is) = (header_at(&bytes[position..]), header_at(&told[position..]));
                assert!(!is_last && was != is, "{name} at {position}: damage went unseen");
                let behind = header_at(&bytes[position + sizes[at]..]);
                let span = BatchView::parse(&bytes[position..]).unwrap().header.last_offset_delta;
                assert!(
                    is + i64::from(span) < behind,
                    "{name} at {position}: {is} up to {span} more overlaps {behind}"
                );
            } else {
                assert!(end < flushed);
            }
        });
    }
}

#[test]
fn readers_under_way_keep_what_they_began() {
    for delay_us in [0, 300, 1000] {
        for seed in 0..30 {
            sim::run(seed, |node| async move {
                let mut random = Rng::new(seed);
                node.disk().set_delay_max(Duration::from_micros(delay_us));
                let bench = Bench::new(node.runtime(), node.data_dir(), 0);
                let config = config(Durability::Durable);
                let (log, model) = prepared(&node, &mut random, &bench, &config, 60).await;
                let reading: Vec<_> = (0..6)
                    .map(|_| {
                        let (log, model) = (log.clone(), model.clone());
                        let from = random.below(model.end as u64) as i64;
                        let pause = Duration::from_micros(random.below(8000));
                        let clock = node.runtime().clock;
                        ouzel_runtime::spawn(async move {
                            clock.sleep(pause).await;
                            let seen = read_from(&log, from, 300).await;
                            assert!(
                                seen.iter().all(|(offset, record)| model.records.get(offset) == Some(record))
                            );
                            // Whatever pieces were read before and after: every key's newest value is among them.
                            let newest = state(model.records.range(from..).map(|(_, record)| record));
                            assert_eq!(state(seen.iter().map(|(_, record)| record)), newest);
                            let found = log.offset_for_time(NOW, Offset(model.end)).await.unwrap();
                            assert!(found.is_some());
                        })
                    })
                    .collect();
                compact(&log, &cleaner(&node, 1000), model.end, 0).await.unwrap();
                for reader in reading {
                    reader.await.expect("readers see a sound log");
                }
            });
        }
    }
}

#[test]
fn retention_and_trims_meet_a_swap() {
    for seed in 0..60 {
        sim::run(seed, |node| async move {
            let mut random = Rng::new(seed);
            node.disk().set_delay_max(Duration::from_micros(500));
            let bench = Bench::new(node.runtime(), node.data_dir(), 0);
            let config = config(Durability::Durable);
            let (log, mut model) = prepared(&node, &mut random, &bench, &config, 60).await;
            let (trimmed, clock) = (log.clone(), node.runtime().clock);
            let pause = Duration::from_micros(random.below(20_000));
            let to = random.below(model.end as u64) as i64;
            let trimming = ouzel_runtime::spawn(async move {
                clock.sleep(pause).await;
                trimmed.trim_to(Offset(to)).await.unwrap();
            });
            match compact(&log, &cleaner(&node, 1000), model.end, 0).await {
                Ok(_) | Err(CompactError::Interrupted) => {}
                Err(error) => panic!("{error}"),
            }
            trimming.await.unwrap();
            model.start = to.max(model.start);
            model.cleaned = model.end;
            check(&log, &model).await;
            let end = log.close().await.unwrap();
            let bench = Bench::new(node.runtime(), node.data_dir(), 0);
            check(&bench.reopen_clean(&config, end).await, &model).await;
        });
    }
}

#[test]
fn a_close_a_cut_and_a_hold_end_a_pass_soon() {
    sim::run(3, |node| async move {
        let bench = Bench::new(node.runtime(), node.data_dir(), 0);
        let config = config(Durability::Durable);
        let mut random = Rng::new(3);
        let (log, model) = prepared(&node, &mut random, &bench, &config, 60).await;
        // A byte a second: it would take the better part of an hour.
        let slow = CleanerConfig { bytes_per_second: 1.0, ..CleanerConfig::default() };
        let slow = Cleaner::new(node.runtime(), slow);
        let clock = node.runtime().clock;
        let begin = || {
            let (log, cleaner) = (log.clone(), slow.clone());
            ouzel_runtime::spawn(async move { compact(&log, &cleaner, model.end, 0).await })
        };
        let began = clock.now();
        let pass = begin();
        clock.sleep(Duration::from_millis(100)).await;
        let hold = log.hold_compaction().await;
        assert!(matches!(pass.await.unwrap(), Err(CompactError::Interrupted)));
        assert!(matches!(begin().await.unwrap(), Err(CompactError::Interrupted)), "held");
        drop(hold);
        let pass = begin();
        clock.sleep(Duration::from_millis(100)).await;
        log.truncate_to(Offset(model.end)).await.unwrap();
        assert!(matches!(pass.await.unwrap(), Err(CompactError::Interrupted)));
        let pass = begin();
        clock.sleep(Duration::from_millis(100)).await;
        log.close().await.unwrap();
        assert!(matches!(pass.await.unwrap(), Err(CompactError::Interrupted)));
        assert!(clock.now().duration_since(began) < Duration::from_secs(2));
        let names = bench.names().await;
        assert!(!names.iter().any(|name| name.ends_with(".cleaned")), "{names:?}");
    });
}

#[test]
fn a_disk_that_fails_leaves_the_log_as_it_was() {
    let mut failed = 0;
    for fault in 0..3 {
        for point in 0..40 {
            failed += sim::run(9, |node| async move {
                let mut random = Rng::new(9);
                let bench = Bench::new(node.runtime(), node.data_dir(), 0);
                let config = config(Durability::Durable);
                let (log, mut model) = prepared(&node, &mut random, &bench, &config, 60).await;
                match fault {
                    0 => node.disk().fail_read_after(point),
                    1 => node.disk().fail_write_after(point),
                    _ => node.disk().fail_sync_after(point),
                }
                let passed = compact(&log, &cleaner(&node, 1000), model.end, 0).await;
                node.disk().fail_read_after(u64::MAX);
                node.disk().fail_write_after(u64::MAX);
                node.disk().fail_sync_after(u64::MAX);
                model.cleaned = model.end;
                check(&log, &model).await;
                if let Err(CompactError::Failed(_)) = &passed {
                    assert!(log.fenced().is_none());
                    let names = bench.names().await;
                    assert!(!names.iter().any(|name| name.ends_with(".cleaned")), "{names:?}");
                    compact(&log, &cleaner(&node, 1000), model.end, 0).await.expect("a sound disk again");
                    check(&log, &model).await;
                }
                usize::from(passed.is_err())
            });
        }
    }
    assert!(failed > 30, "{failed} passes failed");
}

/// Rotten bytes must not get a new checksum.
#[test]
fn damage_ends_a_pass_with_its_place() {
    sim::run(4, |node| async move {
        let mut random = Rng::new(4);
        let bench = Bench::new(node.runtime(), node.data_dir(), 0);
        let config = config(Durability::Durable);
        let (log, model) = prepared(&node, &mut random, &bench, &config, 60).await;
        let name = bench.names().await.into_iter().find(|name| name.ends_with(".log")).unwrap();
        let path = bench.dir().join(&name);
        node.disk().flip_bit(&path, 70, 3).unwrap();
        let Err(CompactError::Failed(error)) = compact(&log, &cleaner(&node, 1000), model.end, 0).await
        else {
            panic!("rot went unseen");
        };
        let words = error.to_string();
        assert!(words.contains(&name) && words.contains("position 0") && words.contains("CRC"), "{words}");
    });
}
