//! What is given to be sent is what a read gives, and stays that, whatever becomes of the log.

mod support;

use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts};
use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, Offset};
use ouzel_runtime::disk::BackendChoice;
use ouzel_runtime::{Runtime, cores, sim};
use ouzel_storage::{Log, LogConfig, LogSlices, OpenLog, Slice, Stop};
use support::{Bench, EPOCH, NOW, read_log};

/// The backends, each with an empty directory.
fn on_every_backend<F: Future<Output = ()> + 'static>(case: impl Fn(Runtime, PathBuf) -> F + Copy) {
    for choice in [BackendChoice::Blocking, BackendChoice::Auto] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        std::fs::create_dir(&dir).unwrap();
        cores::run_one(choice, &[root.path().to_owned()], |runtime| case(runtime, dir)).unwrap();
    }
    for seed in 0..3 {
        sim::run(seed, move |node| async move {
            node.disk().set_delay_max(Duration::from_millis(5));
            case(node.runtime(), node.data_dir().to_owned()).await;
        });
    }
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 120_000, index_interval_bytes: 4096, ..LogConfig::default() }
}

/// One record whose value is `bytes` long and says which it is.
fn batch(tag: u64, bytes: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None);
    let value: Vec<u8> = tag.to_string().bytes().cycle().take(bytes).collect();
    builder.push(NOW, &RecordParts { key: None, value: Some(&value), headers: &[] });
    BytesMut::from(&builder.build()[..])
}

async fn append(log: &Log, tag: u64, bytes: usize) {
    let placed = log.append(batch(tag, bytes), EPOCH, NOW).unwrap();
    log.wait_written(placed.last_offset.next()).await.unwrap();
}

/// Small, middling and large batches by turns, over some segments; one record each.
async fn fill(log: &Log, count: u64) {
    for tag in 0..count {
        append(log, tag, [100, 300, 7_000, 50, 30_000, 1_000, 900, 16_000][tag as usize % 8]).await;
    }
}

/// The bytes, as they are sent.
async fn content(runtime: &Runtime, slices: &LogSlices) -> Vec<u8> {
    let mut all = Vec::new();
    for slice in &slices.slices {
        match slice {
            Slice::Bytes(bytes) => all.extend_from_slice(bytes),
            Slice::Range(range) => {
                let file = runtime.disk.attach(&range.file);
                all.extend(file.read_at(range.position, range.bytes).await.unwrap());
            }
        }
    }
    assert_eq!(all.len(), slices.bytes);
    all
}

fn ranges(slices: &LogSlices) -> usize {
    slices.slices.iter().filter(|slice| matches!(slice, Slice::Range(_))).count()
}

async fn compare(runtime: &Runtime, log: &Log, bounds: &[i64]) -> usize {
    let mut seen = 0;
    for bound in bounds.iter().copied().map(Offset) {
        for from in (0..bound.value()).map(Offset) {
            for (bytes_max, one) in
                [(0, true), (5_000, true), (20_000, false), (70_000, true), (1 << 20, true)]
            {
                let slices = log.slices(from, bound, bytes_max, one).await.unwrap();
                let read = log.read(from, bound, bytes_max, one).await.unwrap();
                let (found, expected) = (content(runtime, &slices).await, read.batches.concat());
                assert!(found == expected, "from {from} below {bound}, {bytes_max} bytes: not what is read");
                let end = support::last_offset(&found).map(|last| Offset(last + 1));
                assert_eq!(slices.end, end, "from {from} below {bound}, {bytes_max} bytes");
                seen += ranges(&slices);
            }
        }
    }
    seen
}

#[test]
fn slices_are_what_a_read_gives() {
    on_every_backend(|runtime, dir| async move {
        for tail_bytes_max in [0, 60_000] {
            let bench = Bench::new(runtime.clone(), &dir.join(tail_bytes_max.to_string()), tail_bytes_max);
            let log = bench.open(&config()).await;
            fill(&log, 30).await;
            assert!(log.segment_count() > 1);
            assert!(compare(&runtime, &log, &[30, 29, 17, 5]).await > 100);
            // The same from files whose indexes are read, and no tail.
            log.flush().await.unwrap();
            drop(log);
            let log = bench.reopen(&config(), Stop::UncleanOtherBoot, Offset(30)).await.unwrap();
            assert!(compare(&runtime, &log, &[30, 23]).await > 100);
            assert!(log.slices(Offset(31), Offset(31), 100, true).await.is_err(), "outside the log");
        }
    });
}

#[test]
fn an_index_that_lies_leads_nobody_astray() {
    on_every_backend(|runtime, dir| async move {
        let bench = Bench::new(runtime.clone(), &dir, 0);
        let log = bench.open(&config()).await;
        fill(&log, 30).await;
        let end = log.offsets().log_end;
        log.close().await.unwrap();
        // The first segment's second entry names a place where no batch begins.
        let path = bench.dir().join("00000000000000000000.index");
        let mut index = runtime.disk.read(&path).await.unwrap().to_vec();
        assert!(index.len() >= 24);
        index[15] ^= 1;
        runtime.disk.write_atomic(&path, index.into()).await.unwrap();
        let log = bench.reopen_clean(&config(), end).await;
        compare(&runtime, &log, &[30]).await;
    });
}

/// Ranges of a file are sent from its very pages, and a slow reader takes its time. What was promised to it must not become
/// the records of another leader, which an unclean election put in their place.
#[test]
fn what_was_given_stays_what_it_was_when_the_tail_is_cut() {
    on_every_backend(|runtime, dir| async move {
        // Into the last segment, into the first, all of it; and what nobody was given, which is cut in place.
        for (to, upto) in [(27, 30), (4, 30), (0, 30), (27, 20)] {
            let bench = Bench::new(runtime.clone(), &dir.join(format!("{to}-{upto}")), 0);
            let log = bench.open(&config()).await;
            fill(&log, 30).await;
            let given = log.slices(Offset(0), Offset(upto), 1 << 20, true).await.unwrap();
            assert!(ranges(&given) > 0);
            let before = content(&runtime, &given).await;
            assert_eq!(log.truncate_to(Offset(to)).await.unwrap(), Offset(to));
            for tag in 100..130 {
                append(&log, tag, 9_000).await;
            }
            assert!(content(&runtime, &given).await == before, "cut to {to}");
            let end = log.offsets().log_end;
            assert_eq!(end, Offset(to + 30));
            compare(&runtime, &log, &[end.value()]).await;
            let seen = read_log(&log).await;
            assert!(seen[to as usize].value.starts_with("100"), "the new ones follow the cut");
            log.flush().await.unwrap();
            drop(log);
            let log = bench.reopen(&config(), Stop::UncleanOtherBoot, end).await.unwrap();
            assert_eq!(read_log(&log).await, seen);
            assert!(bench.names().await.iter().all(|name| !name.contains("cleaned")));
            assert!(content(&runtime, &given).await == before);
        }
    });
}

/// The segment that ends at the cut was copied as a whole as soon as something behind it had been given away.
#[test]
fn a_segment_that_ends_at_the_cut_keeps_its_file() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().to_owned();
    cores::run_one(BackendChoice::Auto, &[root.path().to_owned()], |runtime| async move {
        let bench = Bench::new(runtime.clone(), &data, 0);
        let options = bench.options(&LogConfig { segment_bytes: 40_000, ..config() });
        let log = Log::open(OpenLog { with_entries: true, ..options }).await.unwrap();
        let id = |index| EntryId { term: LeaderEpoch(1), index: EntryIndex(index) };
        // A batch and what is noted behind it; the next batch begins a segment.
        log.append_side(id(0), 1, Bytes::from_static(b"first")).unwrap();
        log.place_batch(id(1), batch(0, 30_000), NOW).unwrap();
        log.append_side(id(2), 1, Bytes::from_static(b"noted")).unwrap();
        log.place_batch(id(3), batch(1, 30_000), NOW).unwrap();
        log.wait_entry_flushed(EntryIndex(3)).await.unwrap();
        assert_eq!(log.segment_count(), 2);
        let given = log.slices(Offset(0), Offset(2), 1 << 20, true).await.unwrap();
        assert_eq!(ranges(&given), 2);
        let before = content(&runtime, &given).await;

        let first = bench.dir().join("00000000000000000000.log");
        let inode = || std::fs::metadata(&first).unwrap().ino();
        let was = inode();
        log.truncate_after(Some(id(1))).await.unwrap();
        assert_eq!((log.offsets().log_end, log.segment_count()), (Offset(1), 1));
        assert_eq!(inode(), was, "nothing of it was cut");
        assert!(content(&runtime, &given).await == before);
    })
    .unwrap();
}

#[test]
fn what_was_given_outlives_retention_and_deletion() {
    on_every_backend(|runtime, dir| async move {
        let config = LogConfig { file_delete_delay: Duration::ZERO, ..config() };
        let bench = Bench::new(runtime.clone(), &dir, 0);
        let log = bench.open(&config).await;
        fill(&log, 30).await;
        let given = log.slices(Offset(0), Offset(30), 1 << 20, true).await.unwrap();
        let before = content(&runtime, &given).await;
        log.flush().await.unwrap();
        assert_eq!(log.trim_to(Offset(29)).await.unwrap(), Offset(29));
        while bench.names().await.iter().any(|name| name.starts_with("00000000000000000000.log")) {
            runtime.clock.sleep(Duration::from_millis(1)).await;
        }
        assert!(content(&runtime, &given).await == before);
        log.delete().await.unwrap();
        assert!(content(&runtime, &given).await == before);
        assert!(!runtime.disk.exists(&bench.dir()).await.unwrap());
    });
}
