//! CreateTopics and DeleteTopics.

use ouzel_model::TopicId;
use ouzel_protocol::messages::kafka::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use ouzel_protocol::messages::kafka::create_topics_response::CreatableTopicResult;
use ouzel_protocol::messages::kafka::delete_topics_request::DeleteTopicState;
use ouzel_protocol::messages::kafka::{BrokerId, CreateTopicsRequest, DeleteTopicsRequest};
use ouzel_protocol::{ErrorCode, Uuid};

use crate::support::node::Node;
use crate::support::records::{batch, values};
use crate::support::wire::{Wire, fresh_name, name, text};

fn topic(name_: &str) -> CreatableTopic {
    CreatableTopic::default().with_name(name(name_)).with_num_partitions(1).with_replication_factor(1)
}

fn create(wire: &mut Wire, version: i16, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest::default().with_timeout_ms(10_000).with_topics(topics);
    wire.call(version, request).topics
}

fn code(result: &CreatableTopicResult) -> ErrorCode {
    ErrorCode::from_code(result.error_code).unwrap()
}

#[test]
fn what_cannot_be_created_is_refused_with_kafkas_codes() {
    let node = Node::start();
    let mut wire = node.connect();
    let there = fresh_name("there");
    wire.create(&there, 1, &[]);
    let dotted = fresh_name("a.b");
    wire.create(&dotted, 1, &[]);
    let config = |key: &str, value: Option<&str>| {
        CreatableTopicConfig::default().with_name(text(key)).with_value(value.map(text))
    };
    let replicas = |partition: i32, brokers: &[i32]| {
        CreatableReplicaAssignment::default()
            .with_partition_index(partition)
            .with_broker_ids(brokers.iter().map(|id| BrokerId(*id)).collect())
    };
    let assigned = |assignments: Vec<CreatableReplicaAssignment>| {
        topic(&fresh_name("n"))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(assignments)
    };
    let fresh = || topic(&fresh_name("n"));
    let cases = [
        ("exists", topic(&there), ErrorCode::TopicAlreadyExists),
        ("empty name", topic(""), ErrorCode::InvalidTopic),
        ("dot", topic("."), ErrorCode::InvalidTopic),
        ("two dots", topic(".."), ErrorCode::InvalidTopic),
        ("a blank", topic("a b"), ErrorCode::InvalidTopic),
        ("a slash", topic("../../etc/passwd"), ErrorCode::InvalidTopic),
        ("250 letters", topic(&"x".repeat(250)), ErrorCode::InvalidTopic),
        ("collides", topic(&dotted.replace('.', "_")), ErrorCode::InvalidTopic),
        ("no partitions", fresh().with_num_partitions(0), ErrorCode::InvalidPartitions),
        ("fewer than none", fresh().with_num_partitions(-2), ErrorCode::InvalidPartitions),
        ("no replicas", fresh().with_replication_factor(0), ErrorCode::InvalidReplicationFactor),
        ("too many replicas", fresh().with_replication_factor(9), ErrorCode::InvalidReplicationFactor),
        (
            "unknown config",
            fresh().with_configs(vec![config("no.such", Some("1"))]),
            ErrorCode::InvalidConfig,
        ),
        (
            "bad value",
            fresh().with_configs(vec![config("retention.ms", Some("x"))]),
            ErrorCode::InvalidConfig,
        ),
        (
            "out of range",
            fresh().with_configs(vec![config("segment.bytes", Some("-5"))]),
            ErrorCode::InvalidConfig,
        ),
        ("null value", fresh().with_configs(vec![config("retention.ms", None)]), ErrorCode::InvalidConfig),
        ("unknown broker", assigned(vec![replicas(0, &[77])]), ErrorCode::InvalidReplicaAssignment),
        ("no broker", assigned(vec![replicas(0, &[])]), ErrorCode::InvalidReplicaAssignment),
        ("a gap", assigned(vec![replicas(1, &[1])]), ErrorCode::InvalidReplicaAssignment),
        ("broker twice", assigned(vec![replicas(0, &[1, 1])]), ErrorCode::InvalidReplicaAssignment),
        ("both", assigned(vec![replicas(0, &[1])]).with_num_partitions(1), ErrorCode::InvalidRequest),
        ("far too many", fresh().with_num_partitions(i32::MAX), ErrorCode::PolicyViolation),
    ];
    for (what, wanted, expected) in cases {
        let refused = create(&mut wire, 7, vec![wanted]).remove(0);
        assert_eq!(code(&refused), expected, "{what}: {:?}", refused.error_message);
        assert!(refused.error_message.is_some_and(|words| !words.is_empty()), "{what}");
    }
}

#[test]
fn one_refused_topic_stops_no_other() {
    let node = Node::start();
    let mut wire = node.connect();
    let good = fresh_name("good");
    let twice = fresh_name("twice");
    let answers = create(&mut wire, 7, vec![topic(&good), topic("bad name"), topic(&twice), topic(&twice)]);
    let of = |wanted: &str| {
        answers.iter().filter(|answer| &*answer.name.0 == wanted).map(code).collect::<Vec<_>>()
    };
    assert_eq!(of(&good), [ErrorCode::None]);
    assert_eq!(of("bad name"), [ErrorCode::InvalidTopic]);
    let twice_codes = of(&twice);
    assert!(!twice_codes.is_empty() && twice_codes.iter().all(|code| *code == ErrorCode::InvalidRequest));
    wire.store(&good, 0, batch(&["a"]));
}

#[test]
fn validate_only_says_the_same_and_does_nothing() {
    let node = Node::start();
    let mut wire = node.connect();
    let wanted = fresh_name("validate");
    for (wanted, expected) in [(topic(&wanted), ErrorCode::None), (topic("a b"), ErrorCode::InvalidTopic)] {
        let request = CreateTopicsRequest::default()
            .with_timeout_ms(10_000)
            .with_validate_only(true)
            .with_topics(vec![wanted]);
        assert_eq!(code(&wire.call(7, request).topics[0]), expected);
    }
    assert_eq!(code(&create(&mut wire, 7, vec![topic(&wanted)])[0]), ErrorCode::None, "it was not there yet");
}

#[test]
fn minus_one_is_the_brokers_default_and_what_was_made_is_told() {
    let node = Node::start_with(1, &[("num.partitions", "3")]);
    let mut wire = node.connect();
    let wanted = topic(&fresh_name("defaults")).with_num_partitions(-1).with_replication_factor(-1);
    let partitions = if node.is_own() { 3 } else { 1 };
    let config =
        CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("5000")));
    let made = create(&mut wire, 7, vec![wanted.clone().with_configs(vec![config])]).remove(0);
    assert_eq!((made.error_code, made.num_partitions, made.replication_factor), (0, partitions, 1));
    assert!(!made.topic_id.is_nil());
    let configs = made.configs.unwrap();
    let of = |key: &str| configs.iter().find(|config| &*config.name == key).unwrap();
    assert_eq!(of("retention.ms").value.as_deref(), Some("5000"));
    assert_eq!(of("retention.ms").config_source, 1);
    assert_eq!(of("cleanup.policy").value.as_deref(), Some("delete"));
    assert_eq!(of("cleanup.policy").config_source, 5);
    // Below version 4 it is no word for a default.
    let wanted = topic(&fresh_name("old")).with_num_partitions(-1).with_replication_factor(1);
    let before = create(&mut wire, 3, vec![wanted]).remove(0);
    assert_eq!(code(&before), if node.is_own() { ErrorCode::InvalidPartitions } else { code(&before) });
}

#[test]
fn a_topic_is_deleted_by_name_or_by_id_and_what_is_not_there_is_told() {
    let node = Node::start();
    let mut wire = node.connect();
    let (by_name, by_id) = (fresh_name("by-name"), fresh_name("by-id"));
    wire.create(&by_name, 1, &[]);
    let id = wire.create(&by_id, 1, &[]);
    let mut ask = |topic: DeleteTopicState| {
        let request = DeleteTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
        let answer = wire.call(6, request).responses.remove(0);
        (
            ErrorCode::from_code(answer.error_code).unwrap(),
            answer.name.map(|name| name.0.to_string()),
            answer.topic_id,
        )
    };
    let named = |wanted: &str| DeleteTopicState::default().with_name(Some(name(wanted)));
    let of_id =
        |id: TopicId| DeleteTopicState::default().with_name(None).with_topic_id(Uuid::from_bytes(id.0));
    let (code, named_as, uuid) = ask(of_id(id));
    assert_eq!((code, named_as, uuid), (ErrorCode::None, Some(by_id.clone()), Uuid::from_bytes(id.0)));
    assert_eq!(ask(named(&by_name)).0, ErrorCode::None);
    assert_eq!(ask(named(&by_name)).0, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(ask(of_id(id)).0, ErrorCode::UnknownTopicId);
    assert_eq!(ask(named("a b")).0, ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn a_topic_made_anew_has_a_new_id_and_none_of_the_old_records() {
    let node = Node::start_with(2, &[]);
    let mut wire = node.connect();
    let topic = fresh_name("anew");
    let mut ids = Vec::new();
    for round in 0..3 {
        let id = wire.create(&topic, 2, &[]);
        assert!(!ids.contains(&id));
        ids.push(id);
        for partition in 0..2 {
            let value = format!("round {round}");
            assert_eq!(wire.store(&topic, partition, batch(&[&value])), 0);
            assert_eq!(values(&wire.fetch(&topic, partition, 0)), [value]);
        }
        wire.delete(&topic);
    }
}
