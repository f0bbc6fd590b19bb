//! CreatePartitions, AlterPartitionReassignments, ListPartitionReassignments, ElectLeaders, DescribeQuorum, UpdateFeatures
//! and UnregisterBroker, as far as one node can show them.

use ouzel_protocol::messages::kafka::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use ouzel_protocol::messages::kafka::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use ouzel_protocol::messages::kafka::describe_log_dirs_request::DescribableLogDirTopic;
use ouzel_protocol::messages::kafka::describe_quorum_request::{PartitionData, TopicData};
use ouzel_protocol::messages::kafka::elect_leaders_request::TopicPartitions;
use ouzel_protocol::messages::kafka::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use ouzel_protocol::messages::kafka::update_features_request::FeatureUpdateKey;
use ouzel_protocol::messages::kafka::{
    AlterPartitionReassignmentsRequest, ApiVersionsRequest, BrokerId, CreatePartitionsRequest,
    DescribeLogDirsRequest, DescribeQuorumRequest, ElectLeadersRequest, ListPartitionReassignmentsRequest,
    UnregisterBrokerRequest, UpdateFeaturesRequest,
};
use ouzel_protocol::{ApiKey, ErrorCode};

use super::versions::{Asker, versions};
use crate::support::node::Node;
use crate::support::records::batch;
use crate::support::wire::{Wire, fresh_name, name, text};

fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap()
}

fn grow(topic: &str, count: i32, assignments: Option<&[&[i32]]>) -> CreatePartitionsRequest {
    let list = |list: &&[i32]| {
        let brokers = list.iter().map(|broker| BrokerId(*broker)).collect();
        CreatePartitionsAssignment::default().with_broker_ids(brokers)
    };
    let topic = CreatePartitionsTopic::default()
        .with_name(name(topic))
        .with_count(count)
        .with_assignments(assignments.map(|lists| lists.iter().map(list).collect()));
    CreatePartitionsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic])
}

fn reassign(topic: &str, index: i32, replicas: Option<&[i32]>) -> AlterPartitionReassignmentsRequest {
    let replicas = replicas.map(|list| list.iter().map(|broker| BrokerId(*broker)).collect());
    let partition = ReassignablePartition::default().with_partition_index(index).with_replicas(replicas);
    let topic = ReassignableTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    AlterPartitionReassignmentsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic])
}

fn elect(kind: i8, named: Option<(&str, &[i32])>) -> ElectLeadersRequest {
    let topic = |(topic, indexes): (&str, &[i32])| {
        vec![TopicPartitions::default().with_topic(name(topic)).with_partitions(indexes.to_vec())]
    };
    ElectLeadersRequest::default()
        .with_election_type(kind)
        .with_timeout_ms(10_000)
        .with_topic_partitions(named.map(topic))
}

fn quorum(topic: &str, partitions: &[i32]) -> DescribeQuorumRequest {
    let partitions = partitions.iter().map(|index| PartitionData::default().with_partition_index(*index));
    let topic = TopicData::default().with_topic_name(name(topic)).with_partitions(partitions.collect());
    DescribeQuorumRequest::default().with_topics(vec![topic])
}

fn features(updates: &[(&str, i16, i8)]) -> UpdateFeaturesRequest {
    let update = |(feature, level, kind): &(&str, i16, i8)| {
        FeatureUpdateKey::default()
            .with_feature(text(feature))
            .with_max_version_level(*level)
            .with_upgrade_type(*kind)
    };
    UpdateFeaturesRequest::default()
        .with_timeout_ms(10_000)
        .with_feature_updates(updates.iter().map(update).collect())
}

/// Every version of each of them.
pub(super) fn in_every_version(asker: &mut Asker, topic: &str) {
    for version in versions(ApiKey::DescribeLogDirs) {
        let answer = asker.call(version, DescribeLogDirsRequest::default().with_topics(None));
        assert_eq!((answer.error_code, answer.results[0].error_code), (0, 0), "v{version}");
        assert_eq!(answer.results[0].usable_bytes > 0, version >= 4, "v{version}");
        let mut topics = answer.results[0].topics.iter();
        assert!(topics.any(|one| &*one.name.0 == topic && one.partitions.len() >= 2), "v{version}");
    }
    for (count, version) in (3..).zip(versions(ApiKey::CreatePartitions)) {
        let answer = asker.call(version, grow(topic, count, None));
        assert_eq!(code(answer.results[0].error_code), ErrorCode::None, "v{version}");
    }
    for version in versions(ApiKey::ElectLeaders) {
        let answer = asker.call(version, elect(0, Some((topic, &[0]))));
        let result = &answer.replica_election_results[0].partition_result[0];
        assert_eq!(code(result.error_code), ErrorCode::ElectionNotNeeded, "v{version}");
    }
    for version in versions(ApiKey::AlterPartitionReassignments) {
        let answer = asker.call(version, reassign(topic, 0, None));
        let result = &answer.responses[0].partitions[0];
        assert_eq!(code(result.error_code), ErrorCode::NoReassignmentInProgress, "v{version}");
    }
    for version in versions(ApiKey::ListPartitionReassignments) {
        let answer = asker.call(version, ListPartitionReassignmentsRequest::default().with_topics(None));
        assert_eq!((answer.error_code, answer.topics.len()), (0, 0), "v{version}");
    }
    for version in versions(ApiKey::DescribeQuorum) {
        let answer = asker.call(version, quorum("__cluster_metadata", &[0]));
        assert_eq!(answer.error_code, 0, "v{version}");
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((partition.leader_id, partition.current_voters.len()), (BrokerId(1), 1), "v{version}");
        let voter = &partition.current_voters[0];
        assert_eq!(voter.replica_directory_id.is_nil(), version < 2, "v{version}");
        assert_eq!(voter.last_caught_up_timestamp > 0, version >= 1, "v{version}");
        assert!(partition.high_watermark > 0 && voter.log_end_offset >= partition.high_watermark);
        assert_eq!(answer.nodes.len(), usize::from(version >= 2), "v{version}");
    }
    for version in versions(ApiKey::UpdateFeatures) {
        let kind = i8::from(version >= 1);
        let request = match version {
            0 => features(&[("metadata.version", 30, 1)]),
            _ => features(&[("metadata.version", 30, kind)]),
        };
        assert_eq!(code(asker.call(version, request).error_code), ErrorCode::None, "v{version}");
    }
    for version in versions(ApiKey::UnregisterBroker) {
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(77));
        let answer = asker.call(version, request);
        assert_eq!(code(answer.error_code), ErrorCode::BrokerIdNotRegistered, "v{version}");
    }
}

#[test]
fn a_topic_that_grew_takes_records_in_its_new_partitions() {
    let node = Node::start_with(2, &[]);
    let mut wire = node.connect();
    let topic = fresh_name("grown");
    wire.create(&topic, 1, &[]);
    let call = |wire: &mut Wire, request: CreatePartitionsRequest| {
        let result = wire.call(3, request).results.remove(0);
        // Kafka leaves the words for an unknown topic to the client.
        let code_alone = [ErrorCode::None, ErrorCode::UnknownTopicOrPartition].map(ErrorCode::code);
        assert!(
            code_alone.contains(&result.error_code)
                || result.error_message.is_some_and(|words| !words.is_empty())
        );
        code(result.error_code)
    };
    let only_asked = grow(&topic, 3, None).with_validate_only(true);
    assert_eq!(call(&mut wire, only_asked), ErrorCode::None);
    assert_eq!(
        call(&mut wire, grow(&topic, 3, Some(&[&[1], &[1]]))),
        ErrorCode::None,
        "it was not there yet"
    );
    assert_eq!(call(&mut wire, grow(&topic, 5, None)), ErrorCode::None);
    (1..5).for_each(|partition| wire.await_serving(&topic, partition));
    wire.store(&topic, 0, batch(&["old"]));
    wire.store(&topic, 2, batch(&["by hand"]));
    wire.store(&topic, 4, batch(&["new"]));
    for (what, request, expected) in [
        ("as many", grow(&topic, 5, None), ErrorCode::InvalidPartitions),
        ("fewer", grow(&topic, 2, None), ErrorCode::InvalidPartitions),
        ("nobody", grow("no-such-topic", 2, None), ErrorCode::UnknownTopicOrPartition),
        ("no such broker", grow(&topic, 6, Some(&[&[77]])), ErrorCode::InvalidReplicaAssignment),
        ("too few lists", grow(&topic, 7, Some(&[&[1]])), ErrorCode::InvalidReplicaAssignment),
        ("no list", grow(&topic, 6, Some(&[])), ErrorCode::InvalidReplicaAssignment),
    ] {
        assert_eq!(call(&mut wire, request), expected, "{what}");
    }
}

#[test]
fn a_partition_that_is_where_it_should_be_does_not_move() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("still");
    wire.create(&topic, 1, &[]);
    let cases: [(_, i32, Option<&[i32]>, _); 6] = [
        (topic.as_str(), 0, Some(&[1]), ErrorCode::None),
        (&topic, 0, None, ErrorCode::NoReassignmentInProgress),
        (&topic, 9, Some(&[1]), ErrorCode::UnknownTopicOrPartition),
        ("no-such-topic", 0, Some(&[1]), ErrorCode::UnknownTopicOrPartition),
        (&topic, 0, Some(&[77]), ErrorCode::InvalidReplicaAssignment),
        (&topic, 0, Some(&[]), ErrorCode::InvalidReplicaAssignment),
    ];
    for (topic, index, replicas, expected) in cases {
        let answer = wire.call(1, reassign(topic, index, replicas));
        let result = &answer.responses[0].partitions[0];
        assert_eq!((answer.error_code, code(result.error_code)), (0, expected), "{index} to {replicas:?}");
    }
    let named = ListPartitionReassignmentsTopics::default()
        .with_name(name(&topic))
        .with_partition_indexes(vec![0, 9]);
    let request = ListPartitionReassignmentsRequest::default().with_topics(Some(vec![named]));
    let listed = wire.call(0, request);
    assert_eq!((listed.error_code, listed.topics.len()), (0, 0));
}

#[test]
fn elections_nobody_needs_are_told_so() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("led");
    wire.create(&topic, 1, &[]);
    for kind in [0, 1] {
        let answer = wire.call(2, elect(kind, Some((&topic, &[0, 7]))));
        let results = &answer.replica_election_results[0].partition_result;
        let codes: Vec<_> =
            results.iter().map(|result| (result.partition_id, code(result.error_code))).collect();
        let expected = [(0, ErrorCode::ElectionNotNeeded), (7, ErrorCode::UnknownTopicOrPartition)];
        assert!(codes.len() == 2 && expected.iter().all(|one| codes.contains(one)), "{codes:?}");
    }
    let unknown = wire.call(2, elect(0, Some(("no-such-topic", &[0]))));
    let result = &unknown.replica_election_results[0].partition_result[0];
    assert_eq!(code(result.error_code), ErrorCode::UnknownTopicOrPartition);
    let answer = wire.call(2, elect(0, None));
    let told = answer.replica_election_results.iter().map(|topic| topic.partition_result.len());
    assert_eq!((answer.error_code, told.sum::<usize>()), (0, 0));
}

#[test]
fn only_the_clusters_own_log_has_a_quorum() {
    let node = Node::start();
    let mut wire = node.connect();
    for request in [quorum("another", &[0]), quorum("__cluster_metadata", &[1])] {
        let answer = wire.call(2, request);
        assert_eq!(code(answer.topics[0].partitions[0].error_code), ErrorCode::UnknownTopicOrPartition);
    }
}

#[test]
fn features_are_told_and_only_rise() {
    let node = Node::start();
    let mut wire = node.connect();
    let ask = || {
        ApiVersionsRequest::default()
            .with_client_software_name(text("test"))
            .with_client_software_version(text("1"))
    };
    let told = wire.call(4, ask());
    let finalized = |name: &str| {
        let mut all = told.finalized_features.iter();
        all.find(|feature| &*feature.name == name).map(|f| (f.min_version_level, f.max_version_level))
    };
    assert_eq!((finalized("metadata.version"), finalized("kraft.version")), (Some((30, 30)), Some((1, 1))));
    assert!(told.finalized_features_epoch >= 0);
    let supports = |version: i16, wire: &mut Wire| -> Vec<String> {
        wire.call(version, ask()).supported_features.iter().map(|feature| feature.name.to_string()).collect()
    };
    let newest = supports(4, &mut wire);
    assert!(newest.contains(&"kraft.version".to_owned()));
    // Version 3 cannot say level 0.
    let older = supports(3, &mut wire);
    assert!(older.contains(&"metadata.version".to_owned()) && !older.contains(&"kraft.version".to_owned()));
    for (updates, expected) in [
        (vec![("metadata.version", 30, 1)], ErrorCode::None),
        (vec![("metadata.version", 31, 1)], ErrorCode::InvalidUpdateVersion),
        (vec![("metadata.version", 29, 2)], ErrorCode::InvalidUpdateVersion),
        (vec![("metadata.version", 29, 3)], ErrorCode::InvalidUpdateVersion),
        (vec![("kraft.version", 0, 2)], ErrorCode::InvalidUpdateVersion),
        (vec![("no.version", 1, 1)], ErrorCode::InvalidUpdateVersion),
        (vec![("metadata.version", 30, 1), ("no.version", 1, 1)], ErrorCode::InvalidUpdateVersion),
    ] {
        let answer = wire.call(2, features(&updates));
        assert_eq!(code(answer.error_code), expected, "{updates:?}: {:?}", answer.error_message);
    }
}

#[test]
fn a_broker_that_is_alive_is_not_unregistered() {
    let node = Node::start();
    // Kafka forgets it, and with it what it holds: a difference on purpose.
    if !node.is_own() {
        return;
    }
    let mut wire = node.connect();
    let answer = wire.call(0, UnregisterBrokerRequest::default().with_broker_id(BrokerId(1)));
    assert_eq!(code(answer.error_code), ErrorCode::InvalidRequest);
    assert_eq!(
        answer.error_message.as_deref(),
        Some("Broker 1 is alive; stop it before it is unregistered.")
    );
}

#[test]
fn what_a_partition_takes_on_the_disk_is_told_to_those_who_ask_for_it() {
    let node = Node::start_with(2, &[]);
    let mut wire = node.connect();
    let topic = fresh_name("sized");
    wire.create(&topic, 3, &[]);
    wire.store(&topic, 1, batch(&["some bytes"]));
    let asked = DescribableLogDirTopic::default().with_topic(name(&topic)).with_partitions(vec![0, 1, 77]);
    let answer = wire.call(4, DescribeLogDirsRequest::default().with_topics(Some(vec![asked])));
    let [directory] = &answer.results[..] else { panic!("{answer:?}") };
    let [told] = &directory.topics[..] else { panic!("{directory:?}") };
    let sizes: Vec<_> = told.partitions.iter().map(|p| (p.partition_index, p.partition_size > 0)).collect();
    assert_eq!((&*told.name.0, sizes), (&*topic, vec![(0, false), (1, true)]));
    assert!(std::path::Path::new(&*directory.log_dir).is_absolute() && directory.usable_bytes > 0);
}
