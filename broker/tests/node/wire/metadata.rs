//! Metadata: which topics are meant, by which name they go, and which are made on the way.

use ouzel_model::TopicId;
use ouzel_protocol::messages::kafka::MetadataRequest;
use ouzel_protocol::messages::kafka::metadata_request::MetadataRequestTopic;
use ouzel_protocol::messages::kafka::metadata_response::MetadataResponseTopic;
use ouzel_protocol::{ErrorCode, Uuid};

use crate::support::await_some;
use crate::support::node::Node;
use crate::support::wire::{Wire, fresh_name, name};

fn named(wanted: &str) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(Some(name(wanted)))
}

fn with_id(id: TopicId) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(None).with_topic_id(Uuid::from_bytes(id.0))
}

fn ask(
    wire: &mut Wire,
    version: i16,
    topics: Option<Vec<MetadataRequestTopic>>,
) -> Vec<MetadataResponseTopic> {
    let mut request = MetadataRequest::default().with_topics(topics);
    if version >= 4 {
        request.allow_auto_topic_creation = false;
    }
    wire.call(version, request).topics
}

fn code(topic: &MetadataResponseTopic) -> ErrorCode {
    ErrorCode::from_code(topic.error_code).unwrap()
}

#[test]
fn null_asks_for_all_and_an_empty_list_for_none_but_in_version_0() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("all");
    wire.create(&topic, 1, &[]);
    let has = |topics: Vec<MetadataResponseTopic>| {
        topics.iter().any(|found| found.name.as_ref().is_some_and(|name| *name.0 == *topic))
    };
    assert!(has(ask(&mut wire, 0, Some(vec![]))));
    for version in 1..=13 {
        assert!(has(ask(&mut wire, version, None)), "v{version}");
        assert_eq!(ask(&mut wire, version, Some(vec![])), [], "v{version}");
    }
}

#[test]
fn topics_are_found_by_id_from_version_12() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("id");
    let id = wire.create(&topic, 1, &[]);
    for version in [12, 13] {
        let found = ask(&mut wire, version, Some(vec![with_id(id)])).remove(0);
        assert_eq!((code(&found), found.name), (ErrorCode::None, Some(name(&topic))));
        let missing = ask(&mut wire, version, Some(vec![with_id(TopicId([5; 16]))])).remove(0);
        assert_eq!((code(&missing), missing.name), (ErrorCode::UnknownTopicId, None));
        assert_eq!(missing.topic_id, Uuid::from_bytes([5; 16]));
    }
}

#[test]
fn a_topic_is_made_on_the_way_only_where_all_allow_it() {
    let node = Node::start();
    let mut wire = node.connect();
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let refused = fresh_name("never");
    for _ in 0..2 {
        assert_eq!(code(&ask(&mut wire, 9, Some(vec![named(&refused)]))[0]), unknown);
    }
    for version in [0, 3, 4, 13] {
        let topic = fresh_name("auto");
        let mut request = MetadataRequest::default().with_topics(Some(vec![named(&topic)]));
        request.allow_auto_topic_creation = true;
        let first = wire.call(version, request.clone()).topics.remove(0);
        assert!([unknown, ErrorCode::LeaderNotAvailable].contains(&code(&first)), "{first:?}");
        let there = await_some("the topic is made", || {
            let found = wire.call(version, request.clone()).topics.remove(0);
            (found.error_code == 0).then_some(found)
        });
        assert_eq!(there.partitions.len(), 1, "v{version}");
    }
}

#[test]
fn a_broker_may_be_told_to_make_no_topics() {
    let node = Node::start_with(1, &[("auto.create.topics.enable", "false")]);
    if !node.is_own() {
        return;
    }
    let mut wire = node.connect();
    let request = MetadataRequest::default().with_topics(Some(vec![named("wanted")]));
    for _ in 0..2 {
        let answer = wire.call(3, request.clone());
        assert_eq!(code(&answer.topics[0]), ErrorCode::UnknownTopicOrPartition);
    }
}

#[test]
fn names_that_can_never_be_are_told_so() {
    let node = Node::start();
    let mut wire = node.connect();
    for bad in ["", ".", "..", "a b", "a/b", "\u{e4}", &"x".repeat(250)] {
        for version in [3, 9, 13] {
            let answer = ask(&mut wire, version, Some(vec![named(bad)])).remove(0);
            assert_eq!(code(&answer), ErrorCode::InvalidTopic, "{bad:?} v{version}");
            let mut making = MetadataRequest::default().with_topics(Some(vec![named(bad)]));
            making.allow_auto_topic_creation = true;
            let answer = wire.call(version, making).topics.remove(0);
            assert_eq!(code(&answer), ErrorCode::InvalidTopic, "{bad:?} v{version}");
        }
    }
}
