//! Fetch: how much, how long, how far, and on whose word.

use ouzel_model::TopicId;
use ouzel_model::batch::{Codec, Header};
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use ouzel_protocol::messages::produce::ProduceRequest;

use crate::support::node::Node;
use crate::support::records::{batch, batch_at, batch_of_bytes, records, values};
use crate::support::wire::{Wire, fetch_request, fresh_name, from_offset, produce_request};

#[test]
fn a_long_poll_wakes_as_soon_as_there_is_something() {
    let node = Node::start_with(2, &[]);
    let (mut reader, mut writer) = (node.connect(), node.connect());
    let topic = fresh_name("poll");
    writer.create(&topic, 4, &[]);
    for partition in 0..4 {
        let waits = FetchRequest {
            // Longer than the test's patience: an answer shows that it was woken.
            max_wait_ms: 600_000,
            min_bytes: 1,
            ..fetch_request(&topic, (0..4).map(|p| from_offset(p, i64::from(p < partition))).collect())
        };
        reader.send(12, waits);
        assert!(reader.is_waiting());
        writer.store(&topic, partition, batch(&["x"]));
        let asked = reader.last_correlation_id();
        let woken = reader.receive::<FetchRequest>(12, asked);
        let found: Vec<_> = woken.topics[0].partitions.iter().map(|p| values(p).len()).collect();
        let expected: Vec<_> = (0..4).map(|p| usize::from(p == partition)).collect();
        assert_eq!(found, expected);
    }
}

/// A partition that goes has nothing to publish any more: who waits for it, among others, is told all the same.
#[test]
fn a_long_poll_hears_that_one_of_its_topics_is_deleted() {
    let node = Node::start_with(2, &[]);
    let (mut reader, mut writer) = (node.connect(), node.connect());
    let (stays, goes) = (fresh_name("stays"), fresh_name("goes"));
    writer.create(&stays, 4, &[]);
    writer.create(&goes, 2, &[]);
    let mut waits = fetch_request(&stays, (0..4).map(|p| from_offset(p, 0)).collect());
    waits.topics.extend(fetch_request(&goes, (0..2).map(|p| from_offset(p, 0)).collect()).topics);
    // Longer than the test's patience, and more than comes before the deletion: it parks a second time.
    reader.send(12, FetchRequest { max_wait_ms: 600_000, min_bytes: 10_000, ..waits });
    assert!(reader.is_waiting());
    writer.store(&stays, 2, batch(&["not enough"]));
    assert!(reader.is_waiting());
    writer.delete(&goes);
    let asked = reader.last_correlation_id();
    let woken = reader.receive::<FetchRequest>(12, asked);
    let gone = woken.topics.iter().find(|topic| *topic.name == *goes).unwrap();
    assert!(gone.partitions.iter().any(|p| p.error_code != 0), "{gone:?}");
    let there = woken.topics.iter().find(|topic| *topic.name == *stays).unwrap();
    assert_eq!(values(&there.partitions[2]), ["not enough"]);
}

/// The node watches a polling client for its going away: what it sends meanwhile is the next request, whole.
#[test]
fn requests_sent_during_a_long_poll_are_answered_after_it_in_order() {
    let node = Node::start();
    let (mut reader, mut writer) = (node.connect(), node.connect());
    let topic = fresh_name("pipelined");
    writer.create(&topic, 1, &[]);
    let poll =
        FetchRequest { max_wait_ms: 600_000, min_bytes: 1, ..fetch_request(&topic, vec![from_offset(0, 0)]) };
    reader.send(12, poll);
    let first = reader.last_correlation_id();
    reader.send(9, produce_request(&topic, 0, -1, batch(&["mine"])));
    reader.send(12, fetch_request(&topic, vec![from_offset(0, 1)]));
    assert!(reader.is_waiting());
    writer.store(&topic, 0, batch(&["another's"]));
    let polled = reader.receive::<FetchRequest>(12, first);
    assert_eq!(values(&polled.topics[0].partitions[0]), ["another's"]);
    let produced = reader.receive::<ProduceRequest>(9, first + 1);
    assert_eq!(produced.topics[0].partitions[0].base_offset, 1);
    let fetched = reader.receive::<FetchRequest>(12, first + 2);
    assert_eq!(values(&fetched.topics[0].partitions[0]), ["mine"]);
}

#[test]
fn a_long_poll_ends_at_its_deadline_with_what_there_is() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("deadline");
    wire.create(&topic, 1, &[]);
    wire.store(&topic, 0, batch(&["little"]));
    let request = FetchRequest {
        max_wait_ms: 50,
        min_bytes: 1 << 20,
        ..fetch_request(&topic, vec![from_offset(0, 0)])
    };
    let answer = wire.call(12, request);
    assert_eq!(values(&answer.topics[0].partitions[0]), ["little"]);
    let empty = wire.call(
        12,
        FetchRequest { max_wait_ms: 20, min_bytes: 1, ..fetch_request(&topic, vec![from_offset(0, 1)]) },
    );
    assert_eq!(values(&empty.topics[0].partitions[0]).len(), 0);
    assert_eq!(empty.topics[0].partitions[0].high_watermark, 1);
}

#[test]
fn min_bytes_waits_for_as_much() {
    let node = Node::start();
    let (mut reader, mut writer) = (node.connect(), node.connect());
    let topic = fresh_name("min-bytes");
    writer.create(&topic, 1, &[]);
    let one = batch_of_bytes(100);
    let request = FetchRequest {
        max_wait_ms: 600_000,
        min_bytes: 3 * one.len() as i32,
        ..fetch_request(&topic, vec![from_offset(0, 0)])
    };
    reader.send(12, request);
    for _ in 0..3 {
        assert!(reader.is_waiting());
        writer.store(&topic, 0, one.clone());
    }
    let asked = reader.last_correlation_id();
    let answer = reader.receive::<FetchRequest>(12, asked);
    assert_eq!(records(&answer.topics[0].partitions[0]).len(), 3);
}

#[test]
fn an_error_is_told_at_once_however_long_the_wait() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("error");
    wire.create(&topic, 1, &[]);
    let request = FetchRequest {
        max_wait_ms: 600_000,
        min_bytes: 1,
        ..fetch_request(&topic, vec![from_offset(0, 0), from_offset(0, 5)])
    };
    let answer = wire.call(
        12,
        FetchRequest {
            topics: vec![FetchTopic { partitions: vec![from_offset(7, 0)], ..request.topics[0].clone() }],
            ..request.clone()
        },
    );
    assert_eq!(answer.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
    let beyond = wire.call(
        12,
        FetchRequest { max_wait_ms: 600_000, min_bytes: 1, ..fetch_request(&topic, vec![from_offset(0, 5)]) },
    );
    let beyond = &beyond.topics[0].partitions[0];
    assert_eq!(beyond.error_code, ErrorCode::OffsetOutOfRange.code());
}

#[test]
fn a_poll_on_a_topic_that_is_deleted_meanwhile_ends() {
    let node = Node::start();
    let (mut reader, mut writer) = (node.connect(), node.connect());
    let topic = fresh_name("deleted");
    writer.create(&topic, 1, &[]);
    // Kafka lets such a poll run into its deadline or ends it early; either way it ends.
    let wait = if node.is_own() { 600_000 } else { 500 };
    reader.send(
        12,
        FetchRequest { max_wait_ms: wait, min_bytes: 1, ..fetch_request(&topic, vec![from_offset(0, 0)]) },
    );
    assert!(reader.is_waiting());
    writer.delete(&topic);
    let asked = reader.last_correlation_id();
    let answer = reader.receive::<FetchRequest>(12, asked);
    let code = answer.topics[0].partitions[0].error_code;
    let gone = [ErrorCode::UnknownTopicOrPartition.code(), ErrorCode::NotLeaderOrFollower.code()];
    assert!(gone.contains(&code) || !node.is_own(), "{code}");
}

#[test]
fn the_first_batch_comes_whole_and_later_ones_within_the_limits() {
    let node = Node::start_with(2, &[]);
    let mut wire = node.connect();
    let topic = fresh_name("limits");
    wire.create(&topic, 3, &[]);
    let bytes = batch_of_bytes(1000).len() as i32;
    for partition in [1, 2] {
        for _ in 0..3 {
            wire.store(&topic, partition, batch_of_bytes(1000));
        }
    }
    let counts = |wire: &mut Wire, max_bytes: i32, partition_max_bytes: i32| -> Vec<usize> {
        let partitions = (0..3).map(|p| FetchPartition { partition_max_bytes, ..from_offset(p, 0) });
        let request = FetchRequest { max_bytes, ..fetch_request(&topic, partitions.collect()) };
        let answer = wire.call(12, request);
        let counts = answer.topics[0].partitions.iter().map(|p| {
            // What was cut off at a limit may leave a torn batch at the end; consumers step over it.
            let bytes: Vec<u8> = p.record_pieces().flatten().copied().collect();
            ouzel_model::batch::batches(&bytes).filter(|batch| batch.is_ok()).count()
        });
        counts.collect()
    };
    assert_eq!(counts(&mut wire, 1, 1), [0, 1, 0], "one batch, of the first partition that has any");
    assert_eq!(counts(&mut wire, 1 << 20, 1), [0, 1, 0], "partition limits hold from the second one on");
    assert_eq!(counts(&mut wire, 1 << 20, bytes), [0, 1, 1]);
    assert_eq!(counts(&mut wire, 1 << 20, 2 * bytes + 1), [0, 2, 2]);
    let both = counts(&mut wire, 4 * bytes, 1 << 20);
    // What other cores read too much of may wait for the next fetch as a whole.
    assert!(both == [0, 3, 1] || both == [0, 3, 0], "the request's limit holds over partitions: {both:?}");
    assert_eq!(counts(&mut wire, 1, 1 << 20), [0, 1, 0]);
    assert_eq!(counts(&mut wire, 1 << 20, 1 << 20), [0, 3, 3]);
}

#[test]
fn a_fetch_from_the_middle_of_a_batch_begins_with_that_batch() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("middle");
    wire.create(&topic, 1, &[]);
    for codec in Codec::ALL {
        let base = wire.store(&topic, 0, batch_at(codec, &[(1, "a"), (2, "b"), (3, "c")]));
        let fetched = wire.fetch(&topic, 0, base + 1);
        assert_eq!(records(&fetched)[0].0, base, "{codec}");
        let bytes: Vec<u8> = fetched.record_pieces().flatten().copied().collect();
        assert_eq!(
            Header::parse(&bytes).unwrap().attributes.codec(),
            Some(codec),
            "passed through untouched"
        );
    }
}

#[test]
fn offsets_at_the_end_are_empty_and_outside_are_refused() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("range");
    wire.create(&topic, 1, &[]);
    wire.store(&topic, 0, batch(&["a", "b"]));
    let at_end = wire.fetch(&topic, 0, 2);
    assert_eq!((at_end.error_code, at_end.high_watermark, at_end.log_start_offset), (0, 2, 0));
    assert_eq!(records(&at_end), []);
    for outside in [3, i64::MAX, -1, i64::MIN] {
        let refused = wire.fetch(&topic, 0, outside);
        assert_eq!(refused.error_code, ErrorCode::OffsetOutOfRange.code(), "{outside}");
        assert_eq!(refused.records.into_iter().flatten().count(), 0);
    }
}

#[test]
fn read_committed_says_so_with_an_empty_list() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("isolation");
    wire.create(&topic, 1, &[]);
    wire.store(&topic, 0, batch(&["a"]));
    for (isolation_level, aborted) in [(0, None), (1, Some(0))] {
        let request = FetchRequest { isolation_level, ..fetch_request(&topic, vec![from_offset(0, 0)]) };
        let answer = wire.call(12, request);
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((values(partition).len(), partition.last_stable_offset), (1, 1));
        assert_eq!(partition.aborted_transactions.as_ref().map(Vec::len), aborted);
    }
}

#[test]
fn the_leader_epoch_a_reader_believes_in_is_checked() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("epoch");
    wire.create(&topic, 1, &[]);
    let current = super::offsets::leader_epoch(&mut wire, &topic);
    let mut code = |epoch: i32| {
        let partition = FetchPartition { current_leader_epoch: epoch, ..from_offset(0, 0) };
        wire.call(12, fetch_request(&topic, vec![partition])).topics[0].partitions[0].error_code
    };
    assert_eq!(code(-1), 0);
    assert_eq!(code(current), 0);
    assert_eq!(code(current + 1), ErrorCode::UnknownLeaderEpoch.code());
    if current > 0 {
        assert_eq!(code(current - 1), ErrorCode::FencedLeaderEpoch.code());
    }
}

#[test]
fn topic_ids_nobody_knows_are_said_to_be_unknown() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("ids");
    let id = wire.create(&topic, 1, &[]);
    let mut code = |topic_id: TopicId, partition: i32| {
        let topics = vec![FetchTopic {
            topic_id,
            partitions: vec![from_offset(partition, 0)],
            ..FetchTopic::default()
        }];
        let request = FetchRequest { max_bytes: 1, topics, ..FetchRequest::default() };
        let answer = wire.call(13, request);
        assert_eq!(answer.error_code, 0);
        answer.topics[0].partitions[0].error_code
    };
    assert_eq!(code(id, 0), 0);
    assert_eq!(code(TopicId([9; 16]), 0), ErrorCode::UnknownTopicId.code());
    assert_eq!(code(TopicId::ZERO, 0), ErrorCode::UnknownTopicId.code());
    assert_eq!(code(id, 5), ErrorCode::UnknownTopicOrPartition.code());
}
