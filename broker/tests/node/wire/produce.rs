//! Produce: what enters a log, what is refused, and what the producer hears of it.

use ouzel_model::TopicId;
use ouzel_model::batch::{BatchBuilder, Codec, Header, RecordParts, TimestampType};
use ouzel_model::{ProducerEpoch, ProducerId, TimestampMs};
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::fetch::FetchRequest;
use ouzel_protocol::messages::produce::{ProducePartition, ProduceRequest, ProduceTopic};

use crate::support::node::Node;
use crate::support::records::{batch, batch_at, batch_of_bytes, lie, lying, values};
use crate::support::wire::{Wire, fetch_request, fresh_name, from_offset, produce_request, text};

const NOW_MS: i64 = 1_700_000_000_000;

fn attributes(timestamps: TimestampType, transactional: bool, control: bool) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None).attributes(timestamps, transactional, control);
    builder = builder.producer(ProducerId(900), ProducerEpoch(0), 0);
    let parts = RecordParts { key: Some(b"k"), value: Some(b"v"), headers: &[] };
    builder.push(TimestampMs(NOW_MS), &parts);
    builder.build()
}

fn code(wire: &mut Wire, topic: &str, records: Vec<u8>) -> ErrorCode {
    ErrorCode::from_code(wire.produce(topic, 0, records).error_code).unwrap()
}

#[test]
fn record_sets_that_break_a_rule_are_refused_and_leave_nothing_behind() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("rules");
    wire.create(&topic, 1, &[]);
    let crc_broken = {
        let mut broken = batch(&["a"]);
        *broken.last_mut().unwrap() ^= 1;
        broken
    };
    let magic = |magic: u8| {
        let mut old = batch(&["a"]);
        old[16] = magic;
        old
    };
    let invalid = ErrorCode::InvalidRecord;
    let count = |count: i32| (lie::RECORD_COUNT, count.to_be_bytes().to_vec());
    let span = |last: i32| (lie::LAST_OFFSET_DELTA, last.to_be_bytes().to_vec());
    let cases = [
        ("wrong CRC", crc_broken, ErrorCode::CorruptMessage),
        ("no batch", Vec::new(), invalid),
        ("two batches", [batch(&["a"]), batch(&["b"])].concat(), invalid),
        ("old magic", magic(1), invalid),
        ("count too high", lying(&["a", "b"], &[count(3)]), invalid),
        ("count and span too high", lying(&["a", "b"], &[count(3), span(2)]), invalid),
        ("count and span too low", lying(&["a", "b"], &[count(1), span(0)]), invalid),
        ("span too far", lying(&["a", "b"], &[span(7)]), invalid),
        ("no count", lying(&["a"], &[count(0), span(-1)]), invalid),
        ("negative count", lying(&["a"], &[count(-1)]), invalid),
        ("control batch", attributes(TimestampType::CreateTime, false, true), invalid),
        (
            "producer without sequence",
            lying(&["a"], &[(lie::PRODUCER_ID, 5i64.to_be_bytes().to_vec())]),
            invalid,
        ),
        ("far future", batch_at(Codec::None, &[(i64::MAX / 2, "a")]), ErrorCode::InvalidTimestamp),
    ];
    for (what, records, expected) in cases {
        let answer = wire.produce(&topic, 0, records);
        assert_eq!(
            ErrorCode::from_code(answer.error_code),
            Some(expected),
            "{what}: {:?}",
            answer.error_message
        );
        assert_eq!(answer.base_offset, -1, "{what}");
        assert_eq!(wire.fetch(&topic, 0, 0).high_watermark, 0, "{what}");
    }
    assert_eq!(wire.store(&topic, 0, batch(&["good"])), 0);
}

#[test]
fn sizes_are_held_against_the_topic() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("sizes");
    wire.create(&topic, 1, &[("max.message.bytes", "2000")]);
    assert_eq!(code(&mut wire, &topic, batch_of_bytes(2001)), ErrorCode::MessageTooLarge);
    assert_eq!(code(&mut wire, &topic, batch_of_bytes(1000)), ErrorCode::None);
    // The batch as it comes counts: compressed it may hold more.
    let plain = "x".repeat(100_000);
    assert_eq!(code(&mut wire, &topic, batch_at(Codec::Zstd, &[(NOW_MS, &plain)])), ErrorCode::None);
}

#[test]
fn zstd_needs_version_7() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("zstd");
    wire.create(&topic, 1, &[]);
    for (version, expected) in [(6, ErrorCode::UnsupportedCompressionType), (7, ErrorCode::None)] {
        let request = produce_request(&topic, 0, -1, batch_at(Codec::Zstd, &[(NOW_MS, "a")]));
        let answer = wire.call(version, request);
        assert_eq!(answer.topics[0].partitions[0].error_code, expected.code(), "v{version}");
    }
}

#[test]
fn a_compacted_topic_names_the_records_that_lack_a_key() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("compacted");
    wire.create(&topic, 1, &[("cleanup.policy", "compact")]);
    let mut builder = BatchBuilder::new(Codec::None);
    for key in [Some(&b"k"[..]), None, Some(b"l"), None] {
        builder.push(TimestampMs(NOW_MS), &RecordParts { key, value: Some(b"v"), headers: &[] });
    }
    let refused = wire.produce(&topic, 0, builder.build());
    assert_eq!(refused.error_code, ErrorCode::InvalidRecord.code());
    assert_eq!(refused.record_errors.iter().map(|e| e.batch_index).collect::<Vec<_>>(), [1, 3]);
    assert!(refused.record_errors.iter().all(|e| e.message.is_some()));
}

#[test]
fn append_time_replaces_the_producers() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("append-time");
    wire.create(&topic, 1, &[("message.timestamp.type", "LogAppendTime")]);
    for codec in Codec::ALL {
        let stored = wire.produce(&topic, 0, batch_at(codec, &[(1, "a"), (2, "b")]));
        assert!(stored.error_code == 0 && stored.log_append_time_ms > NOW_MS, "{codec}: {stored:?}");
        let fetched = wire.fetch(&topic, 0, stored.base_offset);
        let header = Header::parse(fetched.record_pieces().next().unwrap()).unwrap();
        assert_eq!(header.max_timestamp.value(), stored.log_append_time_ms, "{codec}");
        assert_eq!(header.attributes.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(values(&fetched), ["a", "b"], "{codec}");
    }
}

#[test]
fn a_topic_with_a_codec_of_its_own_recompresses() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("recompressed");
    wire.create(&topic, 1, &[("compression.type", "gzip")]);
    for codec in Codec::ALL {
        let base = wire.store(&topic, 0, batch_at(codec, &[(5, "a"), (7, "b")]));
        let fetched = wire.fetch(&topic, 0, base);
        let header = Header::parse(fetched.record_pieces().next().unwrap()).unwrap();
        assert_eq!(header.attributes.codec(), Some(Codec::Gzip), "{codec}");
        assert_eq!(header.max_timestamp.value(), 7);
        assert_eq!(values(&fetched), ["a", "b"], "{codec}");
    }
}

#[test]
fn acks_are_minus_one_zero_or_one() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("acks");
    wire.create(&topic, 1, &[]);
    for (acks, expected) in [
        (-1, ErrorCode::None),
        (1, ErrorCode::None),
        (2, ErrorCode::InvalidRequiredAcks),
        (-2, ErrorCode::InvalidRequiredAcks),
    ] {
        let answer = wire.call(9, produce_request(&topic, 0, acks, batch(&["a"])));
        assert_eq!(answer.topics[0].partitions[0].error_code, expected.code(), "{acks}");
    }
}

#[test]
fn acks_0_is_not_answered_and_an_error_closes_the_connection() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("silent");
    wire.create(&topic, 1, &[]);
    wire.send(9, produce_request(&topic, 0, 0, batch(&["a"])));
    // The next answer is the next request's.
    let poll =
        FetchRequest { max_wait_ms: 600_000, min_bytes: 1, ..fetch_request(&topic, vec![from_offset(0, 0)]) };
    assert_eq!(values(&wire.call(12, poll).topics[0].partitions[0]), ["a"]);
    wire.send(9, produce_request("no-such-topic", 0, 0, batch(&["a"])));
    wire.assert_closed();
}

#[test]
fn answers_keep_the_order_of_the_requests() {
    let node = Node::start_with(2, &[]);
    let mut wire = node.connect();
    let topic = fresh_name("order");
    wire.create(&topic, 4, &[]);
    let first = wire.last_correlation_id() + 1;
    for turn in 0..40 {
        // With every third unanswered, and other requests between.
        let acks = [-1, 1, 0][turn as usize % 3];
        wire.send(9, produce_request(&topic, turn % 4, acks, batch(&[&turn.to_string()])));
    }
    for turn in (0..40).filter(|turn| turn % 3 != 2) {
        let answer = wire.receive::<ProduceRequest>(9, first + turn);
        let stored = &answer.topics[0].partitions[0];
        assert_eq!((stored.error_code, stored.index, stored.base_offset), (0, turn % 4, i64::from(turn / 4)));
    }
    for partition in 0..4 {
        let expected: Vec<_> = (0..10).map(|row| (row * 4 + partition).to_string()).collect();
        assert_eq!(values(&wire.fetch(&topic, partition, 0)), expected);
    }
}

#[test]
fn what_is_not_there_is_told_by_name_and_by_id() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("missing");
    wire.create(&topic, 1, &[]);
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(wire.produce("no-such-topic", 0, batch(&["a"])).error_code, unknown);
    assert_eq!(wire.produce(&topic, 1, batch(&["a"])).error_code, unknown);
    assert_eq!(wire.produce(&topic, -1, batch(&["a"])).error_code, unknown);
    let partitions = vec![ProducePartition { index: 0, records: Some(batch(&["a"]).into()) }];
    let topics = vec![ProduceTopic { topic_id: TopicId([3; 16]), partitions, ..ProduceTopic::default() }];
    let request = ProduceRequest { acks: -1, timeout_ms: 1000, topics, ..ProduceRequest::default() };
    let answer = wire.call(13, request).topics.remove(0);
    assert_eq!(answer.partitions[0].error_code, ErrorCode::UnknownTopicId.code());
}

#[test]
fn one_refused_partition_stops_no_other_of_its_request() {
    let node = Node::start_with(2, &[]);
    let mut wire = node.connect();
    let topic = fresh_name("side-by-side");
    wire.create(&topic, 3, &[]);
    let mut request = produce_request(&topic, 0, -1, batch(&["a"]));
    let mut broken = batch(&["b"]);
    *broken.last_mut().unwrap() ^= 1;
    request.topics[0].partitions.extend([
        ProducePartition { index: 1, records: Some(broken.into()) },
        ProducePartition { index: 2, records: Some(batch(&["c"]).into()) },
        ProducePartition { index: 9, records: Some(batch(&["d"]).into()) },
    ]);
    let answer = wire.call(9, request).topics.remove(0);
    let mut codes: Vec<_> = answer.partitions.iter().map(|p| (p.index, p.error_code)).collect();
    codes.sort_unstable();
    let (corrupt, unknown) = (ErrorCode::CorruptMessage.code(), ErrorCode::UnknownTopicOrPartition.code());
    assert_eq!(codes, [(0, 0), (1, corrupt), (2, 0), (9, unknown)]);
}

#[test]
fn only_kafkas_own_tools_write_to_internal_topics() {
    let node = Node::start();
    let mut wire = node.connect();
    wire.await_coordinator("somebody");
    let answer = wire.produce("__consumer_offsets", 0, batch(&["a"]));
    assert_eq!(answer.error_code, ErrorCode::InvalidTopic.code());
    wire.client_id = Some(text("__admin_client"));
    let answer = wire.produce("__consumer_offsets", 0, attributes(TimestampType::CreateTime, false, false));
    assert_eq!(answer.error_code, 0);
}
