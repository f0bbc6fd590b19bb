//! What a log promises, checked on every backend: one list of cases, run by each of them.

mod support;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use ouzel_model::batch::{BatchView, Codec, HEADER_BYTES, batches};
use ouzel_model::{LeaderEpoch, Offset, TimestampMs, TopicId};
use ouzel_runtime::disk::BackendChoice;
use ouzel_runtime::{Runtime, cores, sim, yield_now};
use ouzel_storage::{
    AppendError, Durability, Log, LogConfig, OpenError, OpenLog, ProducerVerdict, ReadError, Stop,
    TimedOffset, layout,
};
use support::{Bench, EPOCH, NOW, append, batch, produced, read_all, read_log, records};

type Case = fn(Runtime, PathBuf) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        &[$((stringify!($name), |runtime, dir| Box::pin($name(runtime, dir)))),+]
    };
}

/// Each case gets an empty data directory of its own.
const CASES: &[(&str, Case)] = cases![
    appends_get_their_places_and_are_read_back,
    a_read_holds_its_bounds,
    segments_roll_and_are_kafkas_files,
    an_old_segment_rolls_by_its_first_timestamp,
    times_are_found_to_the_record,
    acknowledgements_follow_the_mode,
    a_clean_stop_is_trusted_and_an_unclean_one_scanned,
    producers_are_remembered_over_restarts,
    epochs_are_remembered_over_restarts,
    retention_drops_the_oldest_segments_and_their_files,
    a_deleted_partition_leaves_nothing_and_may_come_back_at_once,
    another_incarnation_is_refused,
    no_appends_while_the_disk_is_low,
    lost_and_lying_indexes_are_rebuilt,
    a_log_nobody_wrote_to_has_no_segment_file,
    waiters_that_went_away_are_forgotten,
    trimmed_records_stay_trimmed,
    truncated_records_are_gone_and_their_places_given_anew,
];

fn run_all(mut run: impl FnMut(Case, &Path)) {
    for (name, case) in CASES {
        eprintln!("case {name}");
        run(*case, Path::new(name));
    }
}

#[test]
fn blocking_backend() {
    run_real(BackendChoice::Blocking);
}

#[test]
fn best_backend() {
    run_real(BackendChoice::Auto);
}

fn run_real(choice: BackendChoice) {
    let root = tempfile::tempdir().unwrap();
    run_all(|case, name| {
        let dir = root.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        cores::run_one(choice, &[root.path().to_owned()], |runtime| case(runtime, dir)).unwrap();
    });
}

#[test]
fn simulated_backend_with_delays() {
    for seed in 0..4 {
        run_all(|case, _| {
            sim::run(seed, |node| async move {
                node.disk().set_delay_max(Duration::from_millis(5));
                case(node.runtime(), node.data_dir().to_owned()).await;
            });
        });
    }
}

/// Small segments and dense indexes.
fn small() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 200, ..LogConfig::default() }
}

fn no_delay() -> LogConfig {
    LogConfig { file_delete_delay: Duration::from_millis(1), ..small() }
}

const TIME: i64 = NOW.0;

/// Appends `count` batches of three records, ten milliseconds apart.
fn fill(log: &Log, count: u64) {
    for tag in 0..count {
        let time = TIME + tag as i64 * 10;
        append(log, batch(Codec::None, tag, &[time, time + 1, time + 2]));
    }
}

/// Ends a log as SIGKILL would, once everything appended is written.
async fn kill(log: Log) {
    log.wait_written(log.offsets().log_end).await.unwrap();
}

async fn appends_get_their_places_and_are_read_back(runtime: Runtime, dir: PathBuf) {
    for tail_bytes_max in [0, 1500, 1 << 20] {
        let bench = Bench::new(runtime.clone(), &dir.join(tail_bytes_max.to_string()), tail_bytes_max);
        let log = bench.open(&small()).await;
        for (tag, codec) in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd]
            .iter()
            .cycle()
            .take(40)
            .enumerate()
        {
            let placed = append(&log, batch(*codec, tag as u64, &[TIME, TIME + 1]));
            assert_eq!(
                (placed.base_offset, placed.last_offset),
                (Offset(2 * tag as i64), Offset(2 * tag as i64 + 1))
            );
            assert_eq!(placed.log_append_time, TimestampMs::NONE);
        }
        // Before they are written, while they are, and after.
        for _ in 0..2 {
            let seen = read_all(&log, Offset(0), Offset(80), 700).await;
            let values: Vec<_> = seen.iter().map(|record| record.value.clone()).collect();
            let expected: Vec<_> = (0..80).map(|i| format!("{}/{}", i / 2, i % 2)).collect();
            assert_eq!(values, expected);
            assert!(seen.iter().enumerate().all(|(at, record)| record.offset == at as i64));
            log.wait_flushed(Offset(80)).await.unwrap();
        }
        for from in 0..80 {
            let seen = read_all(&log, Offset(from), Offset(80), 1).await;
            assert_eq!(seen.len() as i64, 80 - from);
        }
        let slices = log.read(Offset(0), Offset(80), 1 << 20, true).await.unwrap();
        for batch in slices.batches.iter().flat_map(|bytes| batches(bytes)) {
            assert_eq!(batch.unwrap().header.partition_leader_epoch, EPOCH);
        }
    }
}

async fn a_read_holds_its_bounds(runtime: Runtime, dir: PathBuf) {
    for tail_bytes_max in [0, 1 << 20] {
        let bench = Bench::new(runtime.clone(), &dir.join(tail_bytes_max.to_string()), tail_bytes_max);
        let log = bench.open(&small()).await;
        fill(&log, 10);
        kill(log.clone()).await;
        let size = log.size_bytes() as usize / 10;
        let count = async |from: i64, bound: i64, bytes: usize, one: bool| {
            let slices = log.read(Offset(from), Offset(bound), bytes, one).await.unwrap();
            assert!(one || slices.bytes <= bytes);
            slices
                .batches
                .iter()
                .flat_map(|bytes| records(bytes))
                .map(|record| record.offset)
                .collect::<Vec<_>>()
        };
        assert_eq!(count(4, 30, 10, true).await, [3, 4, 5], "whole, and with the offset asked for");
        assert_eq!(count(4, 30, 10, false).await, [0; 0]);
        assert_eq!(count(4, 30, size, false).await, [3, 4, 5]);
        assert_eq!(count(4, 30, 2 * size, false).await, [3, 4, 5, 6, 7, 8]);
        assert_eq!(count(4, 6, 1 << 20, true).await, [3, 4, 5]);
        assert_eq!(count(4, 5, 1 << 20, true).await, [0; 0], "no batch that reaches beyond the bound");
        assert_eq!(count(30, 30, 1 << 20, true).await, [0; 0]);
        for outside in [-1, 31] {
            let error = log.read(Offset(outside), Offset(30), 100, true).await.unwrap_err();
            assert!(matches!(error, ReadError::OutOfRange { .. }), "{error}");
        }
    }
}

async fn segments_roll_and_are_kafkas_files(runtime: Runtime, dir: PathBuf) {
    let bench = Bench::new(runtime, &dir, 0);
    let log = bench.open(&small()).await;
    fill(&log, 30);
    let end = log.close().await.unwrap();
    assert_eq!(end, Offset(90));
    let names = bench.names().await;
    let bases: Vec<i64> = names
        .iter()
        .filter_map(|name| layout::parse_segment_file(name))
        .filter_map(|(base, extension)| (extension == layout::LOG).then_some(base.value()))
        .collect();
    assert!(bases.len() >= 3 && bases[0] == 0, "{names:?}");
    assert_eq!(bases.len(), log.segment_count());
    let mut next = 0;
    for (at, base) in bases.iter().enumerate() {
        let file = bench.file(&format!("{base:020}.log")).await;
        assert!(file.len() <= 1000);
        assert_eq!(next, *base);
        let (mut position, mut since_entry, mut offset_entries, mut max, mut time_entries) =
            (0, 0, Vec::new(), (-1, 0), vec![]);
        for batch in batches(&file) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            assert_eq!(batch.header.base_offset.value(), next);
            next = batch.header.next_offset().value();
            // Kafka's rules, written down a second time.
            let relative = (next - 1 - base) as u32;
            if batch.header.max_timestamp.value() > max.0 {
                max = (batch.header.max_timestamp.value(), relative);
            }
            if since_entry > 200 {
                offset_entries.extend([relative.to_be_bytes(), (position as u32).to_be_bytes()].concat());
                time_entries.extend([&max.0.to_be_bytes()[..], &max.1.to_be_bytes()].concat());
                since_entry = 0;
            }
            position += batch.bytes.len();
            since_entry += batch.bytes.len();
        }
        if time_entries.len() < 12 || time_entries[time_entries.len() - 12..][..8] != max.0.to_be_bytes() {
            time_entries.extend([&max.0.to_be_bytes()[..], &max.1.to_be_bytes()].concat());
        }
        assert_eq!(bench.file(&format!("{base:020}.index")).await, offset_entries, "segment {base}");
        assert_eq!(bench.file(&format!("{base:020}.timeindex")).await, time_entries, "segment {base}");
        if at > 0 {
            assert!(names.contains(&format!("{base:020}.snapshot")), "{names:?}");
        }
    }
    assert_eq!(next, 90);
    assert!(names.contains(&format!("{:020}.snapshot", 90)), "{names:?}");
    assert_eq!(bench.file("leader-epoch-checkpoint").await, b"0\n1\n3 0\n");
    let metadata = String::from_utf8(bench.file("partition.metadata").await).unwrap();
    assert_eq!(metadata, format!("version: 0\ntopic_id: {}", support::TOPIC_ID));
}

async fn an_old_segment_rolls_by_its_first_timestamp(runtime: Runtime, dir: PathBuf) {
    let bench = Bench::new(runtime, &dir, 0);
    let config = LogConfig { segment_ms: 100, ..LogConfig::default() };
    let log = bench.open(&config).await;
    append(&log, batch(Codec::None, 0, &[TIME]));
    append(&log, batch(Codec::None, 1, &[TIME + 100]));
    assert_eq!(log.segment_count(), 1);
    append(&log, batch(Codec::None, 2, &[TIME + 101]));
    assert_eq!(log.segment_count(), 2);
    // The first batch's time is found again after a restart.
    let end = log.close().await.unwrap();
    let log = bench.reopen_clean(&config, end).await;
    append(&log, batch(Codec::None, 3, &[TIME + 101 + 100]));
    assert_eq!(log.segment_count(), 2);
    append(&log, batch(Codec::None, 4, &[TIME + 101 + 101]));
    assert_eq!(log.segment_count(), 3);
    kill(log).await;
}

async fn times_are_found_to_the_record(runtime: Runtime, dir: PathBuf) {
    for tail_bytes_max in [0, 1 << 20] {
        let bench = Bench::new(runtime.clone(), &dir.join(tail_bytes_max.to_string()), tail_bytes_max);
        let log = bench.open(&small()).await;
        // Times go up and down, within batches too.
        let mut times = Vec::new();
        for tag in 0..40u64 {
            let time = TIME + (tag as i64 * 37) % 100;
            let of_batch = [time, time - 50, time + 3];
            times.extend(of_batch);
            append(&log, batch([Codec::None, Codec::Zstd][tag as usize % 2], tag, &of_batch));
        }
        kill(log.clone()).await;
        for restart in [false, true] {
            let log = if restart {
                let end = log.close().await.unwrap();
                bench.reopen_clean(&small(), end).await
            } else {
                log.clone()
            };
            for bound in [120i64, 60, 3, 0] {
                let within = &times[..bound as usize];
                let expected = |at: Option<usize>| {
                    at.map(|at| TimedOffset { offset: Offset(at as i64), timestamp: TimestampMs(times[at]) })
                };
                for target in (TIME - 60..TIME + 110).step_by(7) {
                    let found = log.offset_for_time(TimestampMs(target), Offset(bound)).await.unwrap();
                    let at = within.iter().position(|time| *time >= target);
                    assert_eq!(found, expected(at), "first at or after {target} below {bound}");
                }
                let found = log.offset_of_max_timestamp(Offset(bound)).await.unwrap();
                let max = within.iter().max();
                let at = max.and_then(|max| within.iter().position(|time| time == max));
                assert_eq!(found, expected(at), "the largest below {bound}");
            }
        }
    }
}

async fn acknowledgements_follow_the_mode(runtime: Runtime, dir: PathBuf) {
    for (durability, flush_records, flushes) in [
        (Durability::Durable, None, true),
        (Durability::WriteCaching, None, true),
        (Durability::Os, None, false),
        (Durability::Os, Some(1), true),
    ] {
        let data = dir.join(format!("{durability:?}{flush_records:?}"));
        let bench = Bench::new(runtime.clone(), &data, 1 << 20);
        let config = LogConfig { durability, flush_records, ..LogConfig::default() };
        let log = bench.open(&config).await;
        fill(&log, 5);
        log.wait_written(Offset(15)).await.unwrap();
        let offsets = log.offsets();
        assert_eq!((offsets.written_end, offsets.log_end), (Offset(15), Offset(15)));
        if flushes {
            log.wait_flushed(Offset(15)).await.unwrap();
            assert_eq!(log.offsets().flushed_end, Offset(15));
        } else {
            let waited =
                runtime.clock.timeout(Duration::from_millis(300), log.wait_flushed(Offset(15))).await;
            assert!(waited.is_err(), "nobody asked for a flush");
            log.flush().await.unwrap();
            assert_eq!(log.offsets().flushed_end, Offset(15));
        }
    }
    // A long `flush.ms` holds up neither a flush that somebody asks for nor one that the bytes ask for.
    let bench = Bench::new(runtime.clone(), &dir.join("slow"), 1 << 20);
    let flush_after = Some(Duration::from_secs(3600));
    let config = LogConfig {
        durability: Durability::Os,
        flush_after,
        flush_records: Some(100),
        ..LogConfig::default()
    };
    let log = bench.open(&config).await;
    fill(&log, 5);
    log.wait_written(Offset(15)).await.unwrap();
    let flushed = runtime.clock.timeout(Duration::from_secs(60), log.flush()).await;
    flushed.expect("a flush that is asked for does not wait for the clock").unwrap();
    fill(&log, 10);
    log.wait_written(Offset(45)).await.unwrap();
    fill(&log, 30);
    let flushed = runtime.clock.timeout(Duration::from_secs(60), log.wait_flushed(Offset(115))).await;
    flushed.expect("a hundred records ask for a flush").unwrap();
}

async fn a_clean_stop_is_trusted_and_an_unclean_one_scanned(runtime: Runtime, dir: PathBuf) {
    let bench = Bench::new(runtime, &dir, 0);
    let mut log = bench.open(&small()).await;
    fill(&log, 25);
    let expected = read_log(&log).await;
    for round in 0..6 {
        log = match round % 3 {
            0 => {
                let end = log.close().await.unwrap();
                drop(log);
                bench.reopen_clean(&small(), end).await
            }
            1 => {
                let flushed = log.offsets().log_end;
                kill(log).await;
                bench.reopen(&small(), Stop::UncleanSameBoot, flushed).await.unwrap()
            }
            _ => {
                log.flush().await.unwrap();
                kill(log).await;
                bench.reopen(&small(), Stop::UncleanOtherBoot, Offset(30)).await.unwrap()
            }
        };
        let offsets = log.offsets();
        assert_eq!((offsets.log_start, offsets.log_end), (Offset(0), Offset(75 + 3 * round)));
        assert_eq!((offsets.written_end, offsets.flushed_end), (offsets.log_end, offsets.log_end));
        assert_eq!(read_log(&log).await[..75], expected[..]);
        append(&log, batch(Codec::None, 1000, &[TIME, TIME, TIME]));
    }
    // Its names and bytes go on as if it had never stopped.
    log.close().await.unwrap();
    for name in bench.names().await {
        if let Some((_, layout::LOG)) = layout::parse_segment_file(&name) {
            let file = bench.file(&name).await;
            assert!(batches(&file).all(|batch| batch.is_ok()), "{name}");
        }
    }
}

async fn producers_are_remembered_over_restarts(runtime: Runtime, dir: PathBuf) {
    let bench = Bench::new(runtime, &dir, 0);
    let mut log = bench.open(&small()).await;
    for i in 0..12i32 {
        append(&log, produced(9, i * 2, i as u64, &[TIME, TIME]));
        // Others fill segments, so that the producer's batches lie in several.
        fill(&log, 2);
    }
    let judge = |log: &Log, sequence: i32| {
        let batch = produced(9, sequence, 0, &[TIME, TIME]);
        log.check_producer(&BatchView::parse(&batch).unwrap().header)
    };
    for stop in [Stop::Clean, Stop::UncleanSameBoot, Stop::UncleanOtherBoot, Stop::Unknown] {
        let end = log.offsets().log_end;
        log = if stop == Stop::Clean {
            let end = log.close().await.unwrap();
            bench.reopen_clean(&small(), end).await
        } else {
            log.flush().await.unwrap();
            bench.reopen(&small(), stop, end).await.unwrap()
        };
        for i in 7..12 {
            let ProducerVerdict::Duplicate(original) = judge(&log, i * 2) else { panic!("{stop:?} {i}") };
            assert_eq!(original.first_offset(), Offset(i64::from(i) * 8));
        }
        assert!(
            matches!(judge(&log, 0), ProducerVerdict::OutOfOrder { expected: 24, .. }),
            "beyond the window"
        );
        assert_eq!(judge(&log, 24), ProducerVerdict::Append);
        assert!(matches!(judge(&log, 26), ProducerVerdict::OutOfOrder { .. }));
    }
}

async fn epochs_are_remembered_over_restarts(runtime: Runtime, dir: PathBuf) {
    let bench = Bench::new(runtime, &dir, 0);
    let mut log = bench.open(&small()).await;
    let batch_of = |tag| batch(Codec::None, tag, &[TIME, TIME]);
    for epoch in [1, 1, 4, 4, 4, 6] {
        for tag in 0..4 {
            log.append(batch_of(tag), LeaderEpoch(epoch), NOW).unwrap();
        }
    }
    for stop in [Stop::Clean, Stop::UncleanSameBoot, Stop::Unknown] {
        let end = |epoch| log.end_offset_for_epoch(LeaderEpoch(epoch));
        assert_eq!(end(1), (LeaderEpoch(1), Offset(16)));
        assert_eq!(end(3), (LeaderEpoch(1), Offset(16)));
        assert_eq!(end(4), (LeaderEpoch(4), Offset(40)));
        assert_eq!(end(6), (LeaderEpoch(6), Offset(48)));
        assert_eq!(end(7), (LeaderEpoch::NONE, Offset::NONE));
        assert_eq!(log.latest_epoch(), Some(LeaderEpoch(6)));
        assert_eq!(log.epoch_of(Offset(16)), Some(LeaderEpoch(4)));
        log = if stop == Stop::Clean {
            let end = log.close().await.unwrap();
            bench.reopen_clean(&small(), end).await
        } else {
            log.flush().await.unwrap();
            bench.reopen(&small(), stop, Offset(48)).await.unwrap()
        };
    }
}

/// Waits until `done`, by the clock of the run.
async fn until(runtime: &Runtime, mut done: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !done().await {
            runtime.clock.sleep(Duration::from_millis(1)).await;
        }
    };
    runtime.clock.timeout(Duration::from_secs(60), waited).await.expect("it comes to pass");
}

async fn retention_drops_the_oldest_segments_and_their_files(runtime: Runtime, dir: PathBuf) {
    let bench = Bench::new(runtime.clone(), &dir, 0);
    let config = LogConfig { retention_bytes: Some(1500), retention_ms: None, ..no_delay() };
    let log = bench.open(&config).await;
    fill(&log, 30);
    log.wait_flushed(Offset(90)).await.unwrap();
    let before = log.segment_count();
    assert_eq!(log.retain(NOW).await.unwrap(), before - log.segment_count());
    let offsets = log.offsets();
    assert!(offsets.log_start > Offset(0) && log.size_bytes() >= 1500, "{offsets:?}");
    assert!(matches!(log.read(Offset(0), Offset(90), 100, true).await, Err(ReadError::OutOfRange { .. })));
    assert_eq!(read_log(&log).await.len() as i64, 90 - offsets.log_start.value());
    let first = format!("{:020}", 0);
    until(&runtime, async || !bench.names().await.iter().any(|name| name.starts_with(&first))).await;
    // By time everything goes, the active segment too; offsets go on.
    log.set_config(LogConfig { retention_ms: Some(1000), retention_bytes: None, ..no_delay() });
    assert_eq!(log.retain(TimestampMs(TIME + 1000)).await.unwrap(), 0);
    log.retain(TimestampMs(TIME + 100_000)).await.unwrap();
    assert_eq!(log.offsets().log_start, Offset(90));
    assert_eq!((log.size_bytes(), log.segment_count()), (0, 1));
    append(&log, batch(Codec::None, 7, &[TIME]));
    log.wait_flushed(Offset(91)).await.unwrap();
    let log = bench.reopen(&config, Stop::UncleanOtherBoot, Offset(91)).await.unwrap();
    assert_eq!((log.offsets().log_start, log.offsets().log_end), (Offset(90), Offset(91)));
}

async fn a_deleted_partition_leaves_nothing_and_may_come_back_at_once(runtime: Runtime, dir: PathBuf) {
    let bench = Bench::new(runtime.clone(), &dir, 0);
    let log = bench.open(&no_delay()).await;
    fill(&log, 20);
    let waiting = ouzel_runtime::spawn({
        let log = log.clone();
        async move { log.wait_flushed(Offset(1000)).await }
    });
    yield_now().await;
    log.delete().await.unwrap();
    assert!(waiting.await.unwrap().is_err(), "who waits is told");
    assert!(matches!(log.append(batch(Codec::None, 0, &[1]), EPOCH, NOW), Err(AppendError::Fenced(_))));
    let other = OpenLog { topic_id: TopicId([8; 16]), ..bench.options(&no_delay()) };
    let log = Log::open(other).await.unwrap();
    assert_eq!(log.offsets().log_end, Offset(0));
    append(&log, batch(Codec::None, 7, &[TIME]));
    log.wait_flushed(Offset(1)).await.unwrap();
    until(&runtime, async || {
        let left = runtime.disk.list_dir(&dir).await.unwrap();
        left.iter().all(|entry| !layout::is_deleted_dir(&entry.name))
    })
    .await;
    assert_eq!(read_log(&log).await.len(), 1);
    let names = bench.names().await;
    let logs: Vec<_> = names.iter().filter(|name| name.ends_with(".log")).collect();
    assert_eq!(logs, [&format!("{:020}.log", 0)]);
}

async fn another_incarnation_is_refused(runtime: Runtime, dir: PathBuf) {
    let bench = Bench::new(runtime, &dir, 0);
    let log = bench.open(&small()).await;
    fill(&log, 1);
    log.close().await.unwrap();
    let error =
        Log::open(OpenLog { topic_id: TopicId([8; 16]), ..bench.options(&small()) }).await.unwrap_err();
    assert!(matches!(error, OpenError::OtherTopic { .. }), "{error}");
}

async fn no_appends_while_the_disk_is_low(runtime: Runtime, dir: PathBuf) {
    let bench = Bench::new(runtime, &dir, 0);
    let log = bench.open(&small()).await;
    fill(&log, 2);
    bench.shared.disk_low.set(true);
    assert_eq!(log.append(batch(Codec::None, 9, &[TIME]), EPOCH, NOW), Err(AppendError::DiskLow));
    assert_eq!(read_log(&log).await.len(), 6);
    bench.shared.disk_low.set(false);
    append(&log, batch(Codec::None, 9, &[TIME]));
    assert_eq!(read_log(&log).await.len(), 7);
    log.wait_flushed(Offset(7)).await.unwrap();
}

async fn lost_and_lying_indexes_are_rebuilt(runtime: Runtime, dir: PathBuf) {
    let bench = Bench::new(runtime.clone(), &dir, 0);
    let log = bench.open(&small()).await;
    fill(&log, 30);
    let expected = read_log(&log).await;
    let mut end = log.close().await.unwrap();
    drop(log);
    let index = |extension: &str| bench.dir().join(format!("{:020}.{extension}", 0));
    let good = runtime.disk.read(&index("index")).await.unwrap();
    assert!(good.len() >= 16);
    let shift = |at: usize| {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        bad
    };
    // Lost; cut within an entry; emptied; an entry in the middle and the last one off by one byte.
    for bad in
        [None, Some(good[..12].to_vec()), Some(Vec::new()), Some(shift(7)), Some(shift(good.len() - 1))]
    {
        for name in ["index", "timeindex"] {
            match &bad {
                None => runtime.disk.remove_file(&index(name)).await.unwrap(),
                Some(bad) if name == "index" => {
                    runtime.disk.write_atomic(&index(name), bad.clone().into()).await.unwrap();
                }
                Some(_) => {}
            }
        }
        let log = bench.reopen_clean(&small(), end).await;
        assert_eq!(read_log(&log).await, expected);
        for record in &expected {
            let from = Offset(record.offset);
            assert_eq!(read_all(&log, from, from.next() + (2 - record.offset % 3), 1).await[0], *record);
            let found = log.offset_for_time(TimestampMs(record.timestamp), end).await.unwrap().unwrap();
            assert_eq!(found.offset, from);
        }
        end = log.close().await.unwrap();
    }
}

async fn a_log_nobody_wrote_to_has_no_segment_file(runtime: Runtime, dir: PathBuf) {
    let bench = Bench::new(runtime, &dir, 0);
    let log = bench.open(&small()).await;
    assert_eq!(bench.names().await, ["partition.metadata"]);
    let end = log.close().await.unwrap();
    let log = bench.reopen_clean(&small(), end).await;
    assert_eq!(bench.names().await, ["partition.metadata"]);
    let log_again = bench.reopen(&small(), Stop::UncleanOtherBoot, Offset(0)).await.unwrap();
    assert_eq!((log.offsets(), log.size_bytes()), (log_again.offsets(), 0));
    assert_eq!(log.offset_of_max_timestamp(Offset(0)).await.unwrap(), None);
}

async fn waiters_that_went_away_are_forgotten(runtime: Runtime, dir: PathBuf) {
    let bench = Bench::new(runtime.clone(), &dir, 0);
    let log = bench.open(&LogConfig { durability: Durability::Os, ..small() }).await;
    for _ in 0..100 {
        let waited = runtime.clock.timeout(Duration::from_micros(10), log.wait_flushed(Offset(5))).await;
        assert!(waited.is_err());
    }
    assert_eq!(log.waiter_count(), 0);
    let steps = Rc::new(std::cell::Cell::new(0));
    log.on_progress({
        let (steps, log) = (steps.clone(), log.clone());
        move || {
            // The hook may look at the log.
            assert!(log.offsets().written_end <= log.offsets().log_end);
            steps.set(steps.get() + 1);
        }
    });
    fill(&log, 1);
    log.wait_written(Offset(3)).await.unwrap();
    assert!(steps.get() > 0);
}

async fn trimmed_records_stay_trimmed(runtime: Runtime, dir: PathBuf) {
    let bench = Bench::new(runtime.clone(), &dir, 0);
    let log = bench.open(&no_delay()).await;
    fill(&log, 30);
    log.wait_flushed(Offset(90)).await.unwrap();
    log.trim_to(Offset(50)).await.unwrap();
    assert_eq!(log.offsets().log_start, Offset(50));
    assert!(matches!(log.read(Offset(49), Offset(90), 100, true).await, Err(ReadError::OutOfRange { .. })));
    assert_eq!(read_log(&log).await.len(), 40);
    // A time is not found before the start, although its batch is still there.
    let found = log.offset_for_time(TimestampMs(0), Offset(90)).await.unwrap().unwrap();
    assert_eq!(found.offset, Offset(50));
    log.trim_to(Offset(20)).await.unwrap();
    assert_eq!(log.offsets().log_start, Offset(50), "a trim never goes back");
    until(&runtime, async || !bench.names().await.iter().any(|name| name.starts_with(&format!("{:020}", 0))))
        .await;
    for stop in [Stop::UncleanOtherBoot, Stop::UncleanSameBoot, Stop::Unknown] {
        let log = bench.reopen(&no_delay(), stop, Offset(90)).await.unwrap();
        assert_eq!((log.offsets().log_start, log.offsets().log_end), (Offset(50), Offset(90)));
    }
    // Up to the very end: the offsets go on from there.
    let log = bench.reopen(&no_delay(), Stop::Unknown, Offset(90)).await.unwrap();
    log.trim_to(Offset(90)).await.unwrap();
    let end = log.close().await.unwrap();
    let log = bench.reopen_clean(&no_delay(), end).await;
    assert_eq!((log.offsets().log_start, log.offsets().log_end), (Offset(90), Offset(90)));
    assert_eq!(append(&log, batch(Codec::None, 1, &[TIME])).base_offset, Offset(90));
    log.wait_flushed(Offset(91)).await.unwrap();
}

async fn truncated_records_are_gone_and_their_places_given_anew(runtime: Runtime, dir: PathBuf) {
    for (tail_bytes_max, to) in [(0, 75), (0, 40), (1 << 20, 40), (0, 9), (0, 0)] {
        let bench = Bench::new(runtime.clone(), &dir.join(format!("{tail_bytes_max}-{to}")), tail_bytes_max);
        let log = bench.open(&small()).await;
        for i in 0..30i32 {
            let epoch = LeaderEpoch(3 + i / 10);
            log.append(produced(5, i * 3, i as u64, &[TIME, TIME + 1, TIME + 2]), epoch, NOW).unwrap();
        }
        let waiting = ouzel_runtime::spawn({
            let log = log.clone();
            async move { log.wait_flushed(Offset(1000)).await }
        });
        let before = read_log(&log).await;
        // To the end of the last batch that lies below whole.
        let end = Offset(to / 3 * 3);
        assert_eq!(log.truncate_to(Offset(to)).await.unwrap(), end);
        assert!(waiting.await.unwrap().is_err(), "what was cut will not be acknowledged");
        let offsets = log.offsets();
        assert_eq!((offsets.log_end, offsets.written_end, offsets.flushed_end), (end, end, end));
        assert_eq!(read_log(&log).await, before[..end.value() as usize]);
        let next = produced(5, end.value() as i32, 99, &[TIME]);
        assert_eq!(log.check_producer(&BatchView::parse(&next).unwrap().header), ProducerVerdict::Append);
        if end > Offset(0) {
            let last = LeaderEpoch(3 + (end.value() as i32 - 1) / 30);
            assert_eq!(log.end_offset_for_epoch(last), (last, end));
            assert_eq!(log.latest_epoch(), Some(last));
        }
        log.append(next, LeaderEpoch(9), NOW).unwrap();
        log.wait_flushed(end.next()).await.unwrap();
        let log = bench.reopen(&small(), Stop::UncleanOtherBoot, end).await.unwrap();
        let after = read_log(&log).await;
        assert_eq!(after[..end.value() as usize], before[..end.value() as usize]);
        assert_eq!((after.len() as i64, after.last().unwrap().value.as_str()), (end.value() + 1, "99/0"));
        assert_eq!(log.end_offset_for_epoch(LeaderEpoch(9)), (LeaderEpoch(9), end.next()));
        let max = log.offset_of_max_timestamp(end.next()).await.unwrap().unwrap();
        assert_eq!(max.offset, if end == Offset(0) { Offset(0) } else { Offset(2) });
    }
}

#[test]
fn the_header_is_as_long_as_the_tests_believe() {
    assert_eq!(HEADER_BYTES, 61);
}
