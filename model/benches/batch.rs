//! What a batch costs that a producer sent: one pass over it for CRC, rules and records.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "the macros of criterion make functions without them")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ouzel_model::TimestampMs;
use ouzel_model::batch::validate::{ProduceRules, validate_produced};
use ouzel_model::batch::{BatchBuilder, BatchView, Codec, RecordParts, TimestampType};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

const RULES: ProduceRules = ProduceRules {
    now: NOW,
    timestamp_type: TimestampType::CreateTime,
    timestamp_before_max_ms: i64::MAX,
    timestamp_after_max_ms: 3_600_000,
    keys_required: false,
    plain_bytes_max: 64 << 20,
};

fn batch(codec: Codec, records: usize, value_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    for record in 0..records {
        // Neither all alike nor noise.
        let value: Vec<u8> = (0..value_bytes).map(|at| b'a' + ((at * 7 + record * 13) % 26) as u8).collect();
        builder.push(NOW, &RecordParts { key: Some(b"key"), value: Some(&value), headers: &[] });
    }
    builder.build()
}

fn validation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("validate a produced batch");
    for (name, codec, records, value_bytes) in [
        ("5 records of 100 B", Codec::None, 5, 100),
        ("160 records of 100 B", Codec::None, 160, 100),
        ("16 records of 1 KiB", Codec::None, 16, 1024),
        ("64 records of 1 KiB", Codec::None, 64, 1024),
        ("16 records of 1 KiB, lz4", Codec::Lz4, 16, 1024),
        ("16 records of 1 KiB, zstd", Codec::Zstd, 16, 1024),
    ] {
        let bytes = batch(codec, records, value_bytes);
        group.throughput(Throughput::Bytes((records * value_bytes) as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &bytes, |bencher, bytes| {
            bencher.iter(|| {
                let view = BatchView::parse(black_box(bytes)).expect("a batch");
                validate_produced(&view, &RULES).expect("a good one")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, validation);
criterion_main!(benches);
