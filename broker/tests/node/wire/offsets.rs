//! ListOffsets and OffsetForLeaderEpoch.

use ouzel_model::batch::Codec;
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ouzel_protocol::messages::kafka::list_offsets_response::ListOffsetsPartitionResponse;
use ouzel_protocol::messages::kafka::metadata_request::MetadataRequestTopic;
use ouzel_protocol::messages::kafka::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use ouzel_protocol::messages::kafka::{
    BrokerId, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest,
};

use crate::support::node::Node;
use crate::support::records::batch_at;
use crate::support::wire::{Wire, fresh_name, name};

/// The epoch of a topic's first partition.
pub(super) fn leader_epoch(wire: &mut Wire, topic: &str) -> i32 {
    let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let answer = wire.call(9, MetadataRequest::default().with_topics(Some(vec![asked])));
    answer.topics[0].partitions[0].leader_epoch
}

fn ask(
    wire: &mut Wire,
    version: i16,
    topic: &str,
    partitions: Vec<ListOffsetsPartition>,
) -> Vec<ListOffsetsPartitionResponse> {
    let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(partitions);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    wire.call(version, request).topics.remove(0).partitions
}

fn list(wire: &mut Wire, version: i16, topic: &str, timestamp: i64) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
    ask(wire, version, topic, vec![partition]).remove(0)
}

/// Offset and timestamp, or the error.
fn found(answer: &ListOffsetsPartitionResponse) -> Result<(i64, i64), ErrorCode> {
    match answer.error_code {
        0 => Ok((answer.offset, answer.timestamp)),
        code => Err(ErrorCode::from_code(code).unwrap()),
    }
}

#[test]
fn special_timestamps_are_understood_from_the_version_that_brought_them() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("special");
    wire.create(&topic, 1, &[]);
    wire.store(&topic, 0, batch_at(Codec::None, &[(1000, "a"), (3000, "b")]));
    wire.store(&topic, 0, batch_at(Codec::None, &[(2000, "c"), (3000, "d")]));
    let cases = [
        (-1, 1, (4, -1)),
        (-2, 1, (0, -1)),
        // The first record of the largest timestamp.
        (-3, 7, (1, 3000)),
        (-4, 8, (0, -1)),
        (-5, 9, (-1, -1)),
        (-6, 11, (-1, -1)),
    ];
    for (timestamp, since, expected) in cases {
        for version in 1..=11 {
            let expected = if version >= since { Ok(expected) } else { Err(ErrorCode::UnsupportedVersion) };
            assert_eq!(
                found(&list(&mut wire, version, &topic, timestamp)),
                expected,
                "{timestamp} v{version}"
            );
        }
    }
    for unheard_of in [-7, -100, i64::MIN] {
        let answer = list(&mut wire, 11, &topic, unheard_of);
        assert_eq!(found(&answer), Err(ErrorCode::UnsupportedVersion), "{unheard_of}");
    }
}

#[test]
fn the_ends_of_an_empty_log_are_its_beginning() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("empty");
    wire.create(&topic, 1, &[]);
    for (timestamp, expected) in [(-1, (0, -1)), (-2, (0, -1)), (-3, (-1, -1)), (-4, (0, -1)), (5, (-1, -1))]
    {
        assert_eq!(found(&list(&mut wire, 11, &topic, timestamp)), Ok(expected), "{timestamp}");
    }
}

#[test]
fn by_time_the_first_record_at_or_after_it_is_found_in_every_codec() {
    let node = Node::start();
    let mut wire = node.connect();
    for codec in Codec::ALL {
        let topic = fresh_name("time");
        wire.create(&topic, 1, &[("segment.bytes", "1048576")]);
        wire.store(&topic, 0, batch_at(codec, &[(1000, "a"), (1010, "b"), (1020, "c")]));
        // Times may go back: what counts is the first record in the log's order.
        wire.store(&topic, 0, batch_at(codec, &[(900, "d"), (2000, "e"), (1500, "f")]));
        let cases = [
            (0, (0, 1000)),
            (1000, (0, 1000)),
            (1001, (1, 1010)),
            (1020, (2, 1020)),
            (1021, (4, 2000)),
            (1999, (4, 2000)),
            (2000, (4, 2000)),
            (2001, (-1, -1)),
            (i64::MAX, (-1, -1)),
        ];
        for (timestamp, expected) in cases {
            for version in [1, 4, 11] {
                let answer = list(&mut wire, version, &topic, timestamp);
                assert_eq!(found(&answer), Ok(expected), "{codec} at {timestamp} v{version}");
                let knows_epoch = version >= 4 && expected.0 >= 0;
                assert_eq!(answer.leader_epoch >= 0, knows_epoch, "{codec} at {timestamp} v{version}");
            }
        }
        assert_eq!(found(&list(&mut wire, 11, &topic, -3)), Ok((4, 2000)), "{codec}");
    }
}

#[test]
fn a_partition_named_twice_is_refused_where_it_is_named() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("twice");
    wire.create(&topic, 2, &[]);
    let partitions =
        [0, 1, 0].map(|index| ListOffsetsPartition::default().with_partition_index(index).with_timestamp(-1));
    let mut answers: Vec<_> = ask(&mut wire, 7, &topic, partitions.to_vec())
        .iter()
        .map(|answer| (answer.partition_index, found(answer)))
        .collect();
    answers.sort_by_key(|(index, _)| *index);
    answers.dedup();
    assert_eq!(answers, [(0, Err(ErrorCode::InvalidRequest)), (1, Ok((0, -1)))]);
}

#[test]
fn unknown_partitions_and_wrong_epochs_are_told() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("epochs");
    wire.create(&topic, 1, &[]);
    let current = leader_epoch(&mut wire, &topic);
    let mut code = |index: i32, epoch: i32| {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_current_leader_epoch(epoch)
            .with_timestamp(-1);
        ask(&mut wire, 4, &topic, vec![partition])[0].error_code
    };
    assert_eq!(code(9, -1), ErrorCode::UnknownTopicOrPartition.code());
    assert_eq!(code(-1, -1), ErrorCode::UnknownTopicOrPartition.code());
    assert_eq!(code(0, current), 0);
    assert_eq!(code(0, current + 1), ErrorCode::UnknownLeaderEpoch.code());
    if current > 0 {
        assert_eq!(code(0, current - 1), ErrorCode::FencedLeaderEpoch.code());
    }
    let missing = list(&mut wire, 4, "no-such-topic", -1);
    assert_eq!(found(&missing), Err(ErrorCode::UnknownTopicOrPartition));
}

/// Asks where an epoch ended: (error, epoch, end).
pub(super) fn end_of(
    wire: &mut Wire,
    topic: &str,
    partition: i32,
    current: i32,
    epoch: i32,
) -> (i16, i32, i64) {
    let partition = OffsetForLeaderPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(current)
        .with_leader_epoch(epoch);
    let topic = OffsetForLeaderTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
    let request =
        OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let answer = wire.call(4, request).topics.remove(0).partitions.remove(0);
    (answer.error_code, answer.leader_epoch, answer.end_offset)
}

#[test]
fn an_epoch_ends_where_the_next_one_began_and_the_last_one_at_the_end() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("epoch-end");
    wire.create(&topic, 1, &[]);
    wire.store(&topic, 0, batch_at(Codec::None, &[(1, "a"), (2, "b")]));
    let current = leader_epoch(&mut wire, &topic);
    assert_eq!(end_of(&mut wire, &topic, 0, current, current), (0, current, 2));
    assert_eq!(end_of(&mut wire, &topic, 0, -1, current), (0, current, 2));
    assert_eq!(end_of(&mut wire, &topic, 0, -1, current + 1), (0, -1, -1), "an epoch yet to come");
    assert_eq!(
        end_of(&mut wire, &topic, 0, current + 1, current),
        (ErrorCode::UnknownLeaderEpoch.code(), -1, -1)
    );
    if current > 0 {
        assert_eq!(
            end_of(&mut wire, &topic, 0, current - 1, current),
            (ErrorCode::FencedLeaderEpoch.code(), -1, -1)
        );
    }
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(end_of(&mut wire, &topic, 3, -1, current), (unknown, -1, -1));
    assert_eq!(end_of(&mut wire, "no-such-topic", 0, -1, current), (unknown, -1, -1));
}
