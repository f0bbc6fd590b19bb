//! Records on images: what is refused, and what a node learns from two images.

use ouzel_metadata::{BrokerScope, Changes, ConfigResource, Image, Partition, Record};
use ouzel_model::{LeaderEpoch, NodeId, PartitionIndex, TopicId, TopicIdPartition, TopicName};

use crate::support::{broker, cluster};

const ONE: TopicId = TopicId([1; 16]);
const TWO: TopicId = TopicId([2; 16]);

fn on(nodes: &[i32]) -> Partition {
    Partition::new(nodes.iter().copied().map(NodeId).collect())
}

fn created(name: &str, topic_id: TopicId, partitions: Vec<Partition>) -> Record {
    let name = TopicName::new(name).expect("a good name");
    Record::TopicCreated { name, topic_id, partitions, configs: [].into() }
}

/// Two brokers, and topic `one` on the first.
fn image() -> Image {
    let mut image = cluster(2);
    for record in [
        Record::ClusterCreated { cluster_id: "ours".to_owned() },
        created("one", ONE, vec![on(&[1]), on(&[1])]),
        Record::ProducerIdsAllocated { node: NodeId(1), next_producer_id: 1000 },
    ] {
        image.apply(&record).expect("good records");
    }
    image
}

#[test]
fn a_log_that_contradicts_itself_is_told_where() {
    let changed = |partition: Partition| Record::PartitionChanged {
        topic_id: ONE,
        index: PartitionIndex(1),
        partition,
    };
    let added = |first: i32| Record::PartitionsAdded {
        topic_id: ONE,
        first_index: PartitionIndex(first),
        partitions: vec![on(&[1])],
    };
    for (record, sentence) in [
        (
            Record::ClusterCreated { cluster_id: "theirs".to_owned() },
            "the log names the cluster 'theirs', but it is 'ours'",
        ),
        (Record::BrokerUnregistered { node: NodeId(9) }, "no broker has the node id 9"),
        (
            Record::BrokerUnregistered { node: NodeId(1) },
            "broker 1 left, but holds a replica of partition one-0",
        ),
        (created("one", TWO, vec![on(&[1])]), "topic 'one' exists already"),
        (
            created("two", ONE, vec![on(&[1])]),
            "topic id AQEBAQEBAQEBAQEBAQEBAQ belongs to topic 'one' already",
        ),
        (
            created("two", TopicId::ZERO, vec![on(&[1])]),
            "topic 'two' has the zero topic id, which means 'no topic'",
        ),
        (created("two", TWO, vec![]), "topic 'two' cannot have 0 partitions"),
        (created("two", TWO, vec![on(&[1]), on(&[])]), "partition two-1 has no replica"),
        (created("two", TWO, vec![on(&[1, 1])]), "partition two-0 names broker 1 twice among its replicas"),
        (
            created("two", TWO, vec![on(&[3])]),
            "partition two-0 has a replica on broker 3, which is not registered",
        ),
        (Record::TopicDeleted { topic_id: TWO }, "no topic has the id AgICAgICAgICAgICAgICAg"),
        (added(1), "partitions of topic 'one' were added from index 1, but it has 2"),
        (added(-1), "partitions of topic 'one' were added from index -1, but it has 2"),
        (
            Record::PartitionChanged { topic_id: ONE, index: PartitionIndex(2), partition: on(&[1]) },
            "topic 'one' has 2 partitions, none with the index 2",
        ),
        (
            changed(Partition { isr: vec![NodeId(2)], ..on(&[1]) }),
            "partition one-1 calls broker 2 in sync, which holds no replica of it",
        ),
        (
            changed(Partition { isr: vec![NodeId(1), NodeId(1)], ..on(&[1]) }),
            "partition one-1 names broker 1 twice among its in-sync replicas",
        ),
        (
            changed(Partition { leader: Some(NodeId(2)), ..on(&[1]) }),
            "partition one-1 is led by broker 2, which holds no replica of it",
        ),
        (
            Record::ConfigSet {
                resource: ConfigResource::Topic(TWO),
                key: "k".to_owned(),
                value: "v".to_owned(),
            },
            "no topic has the id AgICAgICAgICAgICAgICAg",
        ),
        (
            Record::ProducerIdsAllocated { node: NodeId(1), next_producer_id: 999 },
            "producer ids below 1000 are taken already, yet the log takes them below 999 only",
        ),
    ] {
        let mut image = image();
        let error = image.apply(&record).expect_err(sentence);
        assert_eq!(error.to_string(), sentence);
        assert_eq!(image, self::image(), "{sentence}: the image changed all the same");
    }
}

#[test]
fn a_clone_keeps_what_it_saw() {
    let before = image();
    let kept = before.clone();
    let mut after = before.clone();
    after.apply(&Record::TopicDeleted { topic_id: ONE }).expect("it exists");
    assert_eq!(kept, before);
    assert!(after.topic("one").is_none() && after.topic_by_id(ONE).is_none());
    assert_eq!(before.topic_by_id(ONE).map(|topic| topic.name.to_string()), Some("one".to_owned()));
}

#[test]
fn changes_name_what_differs_and_nothing_else() {
    let before = image();
    assert_eq!(Changes::between(&before, &before.clone()), Changes::default());
    let mut after = before.clone();
    let place = |topic_id, index| TopicIdPartition { topic_id, partition: PartitionIndex(index) };
    let moved = Partition { leader: None, leader_epoch: LeaderEpoch(4), ..on(&[1]) };
    for record in [
        created("two", TWO, vec![on(&[2])]),
        Record::PartitionsAdded { topic_id: ONE, first_index: PartitionIndex(2), partitions: vec![on(&[2])] },
        Record::PartitionChanged { topic_id: ONE, index: PartitionIndex(0), partition: moved },
        Record::ConfigSet {
            resource: ConfigResource::Topic(ONE),
            key: "retention.ms".to_owned(),
            value: "5".to_owned(),
        },
        Record::BrokerRegistered(broker(3)),
        Record::ConfigSet {
            resource: ConfigResource::Broker(BrokerScope::ClusterDefault),
            key: "log.retention.ms".to_owned(),
            value: "5".to_owned(),
        },
    ] {
        after.apply(&record).expect("good records");
    }
    let names = |topics: &[std::sync::Arc<ouzel_metadata::Topic>]| -> Vec<String> {
        topics.iter().map(|topic| topic.name.to_string()).collect()
    };
    let there = Changes::between(&before, &after);
    assert_eq!(names(&there.topics_created), ["two"]);
    assert_eq!(names(&there.topics_deleted), Vec::<String>::new());
    assert_eq!(names(&there.topic_configs_changed), ["one"]);
    assert_eq!(there.partitions_added, [place(ONE, 2)]);
    assert_eq!(there.partitions_changed, [place(ONE, 0)]);
    assert!(there.broker_configs_changed && there.brokers_changed);
    let back = Changes::between(&after, &before);
    assert_eq!(names(&back.topics_deleted), ["two"]);

    // Deleted and made again under its name: two topics, as its records are not the old one's.
    let mut again = before.clone();
    for record in [Record::TopicDeleted { topic_id: ONE }, created("one", TWO, vec![on(&[1])])] {
        again.apply(&record).expect("good records");
    }
    let again = Changes::between(&before, &again);
    assert_eq!(
        (names(&again.topics_deleted), names(&again.topics_created)),
        (vec!["one".to_owned()], vec!["one".to_owned()])
    );
    assert!(again.partitions_changed.is_empty() && !again.brokers_changed && !again.broker_configs_changed);
}
