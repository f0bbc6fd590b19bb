//! What a request costs before anybody knows what it wants: cut out of what was received, its header read, its body decoded
//! or walked.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "the macros of criterion make functions without them")]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ouzel_model::TopicId;
use ouzel_protocol::header::RequestHeader;
use ouzel_protocol::messages::produce::{ProducePartition, ProduceRequest, ProduceTopic};
use ouzel_protocol::{ApiKey, StrBytes, decode_request, frame, header, sample, walk};

const BYTES_MAX: usize = 100 << 20;

/// A Produce request as it comes from the socket, with a record set of so many bytes for each partition.
fn produce(partitions: i32, record_bytes: usize) -> Bytes {
    let partitions = (0..partitions)
        .map(|index| ProducePartition { index, records: Some(Bytes::from(vec![7; record_bytes])) })
        .collect();
    let topic =
        ProduceTopic { name: StrBytes::from_static_str("bench"), topic_id: TopicId::ZERO, partitions };
    let request =
        ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 30_000, topics: vec![topic] };
    const VERSION: i16 = 9;
    framed(ApiKey::Produce, VERSION, &request.encode(VERSION).into_bytes())
}

/// Header and body behind their length.
fn framed(key: ApiKey, version: i16, body: &[u8]) -> Bytes {
    let mut inner = BytesMut::new();
    let client_id = Some(StrBytes::from_static_str("producer-1"));
    header::encode_request(
        &RequestHeader { api: key.api(), version, correlation_id: 7, client_id },
        &mut inner,
    );
    inner.extend_from_slice(body);
    let mut frame = BytesMut::from(&frame::prefix(inner.len()).expect("it is short")[..]);
    frame.extend_from_slice(&inner);
    frame.freeze()
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a request from its frame to its message");
    let fetch = {
        let mut random = sample::sequence(7);
        sample::request(ApiKey::Fetch.api(), 12, sample::Fill::Most, &mut random).body
    };
    for (name, frame) in [
        ("Produce, 1 partition, 16 KiB", produce(1, 16 << 10)),
        ("Produce, 100 partitions, 1 KiB each", produce(100, 1 << 10)),
        ("Fetch, a sample", framed(ApiKey::Fetch, 12, &fetch)),
    ] {
        group.throughput(Throughput::Elements(1));
        group.bench_with_input(BenchmarkId::from_parameter(name), &frame, |bencher, frame| {
            let received = || BytesMut::from(&frame[..]);
            let decode = |mut received: BytesMut| {
                let frame = frame::split_request(&mut received, BYTES_MAX).expect("a frame").expect("whole");
                let (header, body) = header::decode_request(&frame).expect("a header");
                decode_request(header.api, header.version, body).expect("a body")
            };
            bencher.iter_batched(received, decode, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// What guards every decoder that is not our own.
fn walking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("walk a body");
    for (name, key, version) in [
        ("Metadata", ApiKey::Metadata, 12),
        ("JoinGroup", ApiKey::JoinGroup, 9),
        ("CreateTopics", ApiKey::CreateTopics, 7),
    ] {
        let mut random = sample::sequence(7);
        let body = Bytes::from(sample::request(key.api(), version, sample::Fill::Most, &mut random).body);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &body, |bencher, body| {
            bencher.iter(|| walk::walk_request(key.api(), version, black_box(body)).expect("a good one"));
        });
    }
    group.finish();
}

criterion_group!(benches, decoding, walking);
criterion_main!(benches);
