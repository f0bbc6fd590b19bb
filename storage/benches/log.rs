//! What a log costs: a batch appended and written, a place looked up in an index, batches given for a fetch.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "the macros of criterion make functions without them")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts};
use ouzel_model::{Offset, TimestampMs};
use ouzel_runtime::disk::BackendChoice;
use ouzel_runtime::{Runtime, cores};
use ouzel_storage::index::Indexes;
use ouzel_storage::{Durability, Log, LogConfig};
use support::{Bench, EPOCH, NOW};

/// Records of 1 KiB.
fn batch(records: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None);
    for record in 0..records {
        let value = [record as u8; 1024];
        builder.push(NOW, &RecordParts { key: None, value: Some(&value), headers: &[] });
    }
    BytesMut::from(&builder.build()[..])
}

/// A log without flushes on a real disk, and a task with it, timed by itself.
fn with_log<F: Future<Output = Duration> + 'static>(
    tail_bytes_max: u64,
    task: impl FnOnce(Runtime, Log) -> F + 'static,
) -> Duration {
    let root = tempfile::tempdir().expect("a folder");
    let data = root.path().join("data");
    std::fs::create_dir(&data).expect("a folder below it");
    let config = LogConfig { durability: Durability::Os, ..LogConfig::default() };
    let took = cores::run_one(BackendChoice::Auto, &[root.path().to_owned()], |runtime| async move {
        let log = Bench::new(runtime.clone(), &data, tail_bytes_max).open(&config).await;
        task(runtime, log).await
    });
    took.expect("a core")
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for records in [1, 16, 64] {
        group.throughput(Throughput::Bytes(records as u64 * 1024));
        let whole = batch(records);
        group.bench_with_input(
            BenchmarkId::new(
                "one after the other, each awaited until it is in the file",
                format!("{records} KiB"),
            ),
            &whole,
            |bencher, whole| {
                bencher.iter_custom(|count| {
                    let whole = whole.clone();
                    with_log(1 << 20, move |runtime, log| async move {
                        let began = runtime.clock.now();
                        for _ in 0..count {
                            let placed = log.append(whole.clone(), EPOCH, NOW).expect("a good batch");
                            log.wait_written(placed.last_offset.next()).await.expect("written");
                        }
                        runtime.clock.now() - began
                    })
                });
            },
        );
    }
    group.finish();
}

fn index(criterion: &mut Criterion) {
    const BATCH_BYTES: u64 = 4_097;
    let mut indexes = Indexes::default();
    let base = Offset::ZERO;
    for number in 0..(1_u64 << 30) / BATCH_BYTES {
        let last = Offset(number as i64 * 4 + 3);
        indexes.append(
            base,
            last,
            number * BATCH_BYTES,
            BATCH_BYTES,
            TimestampMs(NOW.0 + number as i64),
            4_096,
        );
    }
    let (entries, records) = (indexes.offsets.len(), (1_i64 << 30) / BATCH_BYTES as i64 * 4);
    let mut group = criterion.benchmark_group(format!("look up among {entries} entries"));
    group.throughput(Throughput::Elements(1));
    let mut offset = 0;
    group.bench_function("a position by offset", |bencher| {
        bencher.iter(|| {
            // Far from the one before, as of many consumers.
            offset = (offset + 7_368_787) % records;
            indexes.position_before(base, black_box(Offset(offset)))
        });
    });
    group.bench_function("an offset by time", |bencher| {
        bencher.iter(|| {
            offset = (offset + 7_368_787) % records;
            indexes.offset_before_time(base, black_box(TimestampMs(NOW.0 + offset / 4)))
        });
    });
    group.finish();
}

fn fetch(criterion: &mut Criterion) {
    const BATCHES: i64 = 256;
    const RECORDS: i64 = 64;
    const BYTES_MAX: usize = 1 << 20;
    let mut group = criterion.benchmark_group("slices of 1 MiB for a fetch");
    group.throughput(Throughput::Elements(1));
    for (name, tail_bytes_max) in [("ranges of a file", 0), ("from memory, at the tail", 64 << 20)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                with_log(tail_bytes_max, move |runtime, log| async move {
                    for _ in 0..BATCHES {
                        let placed = log.append(batch(RECORDS as usize), EPOCH, NOW).expect("a good batch");
                        log.wait_written(placed.last_offset.next()).await.expect("written");
                    }
                    let end = Offset(BATCHES * RECORDS);
                    let began = runtime.clock.now();
                    for number in 0..count as i64 {
                        let from = Offset(number * 16 % (BATCHES - 16) * RECORDS);
                        let slices = log.slices(from, end, BYTES_MAX, true).await.expect("it is there");
                        assert!(slices.bytes > BYTES_MAX / 2);
                    }
                    runtime.clock.now() - began
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append, index, fetch);
criterion_main!(benches);
