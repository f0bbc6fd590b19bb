//! Records on images: what is refused, and what a node learns from two images.

use ouzel_metadata::features::Features;
use ouzel_metadata::{BrokerScope, Changes, ConfigResource, Image, Partition, Record};
use ouzel_model::{NodeId, PartitionIndex, ReplicaId, TopicId, TopicIdPartition, TopicName};

use crate::support::{broker, cluster};

const ONE: TopicId = TopicId([1; 16]);
const TWO: TopicId = TopicId([2; 16]);

fn on(nodes: &[i32]) -> Partition {
    Partition::new(nodes.iter().copied().map(NodeId).collect())
}

fn replica(node: i32, incarnation: u32) -> ReplicaId {
    ReplicaId { node: NodeId(node), incarnation }
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
        Record::BrokerRegistered(broker(7)),
        Record::ControllerChanged { controller: Partition { next_incarnation: 3, ..on(&[7]) } },
        Record::FeaturesSet(Features { epoch: 4, levels: [("f".to_owned(), 1)].into() }),
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
            changed(Partition { adding: vec![replica(2, 0)], ..on(&[1]) }),
            "partition one-1 adds replica 2.0, which is not among its replicas",
        ),
        (
            changed(Partition { removing: vec![replica(1, 0)], ..on(&[1]) }),
            "partition one-1 names broker 1 twice among its replicas",
        ),
        (
            changed(Partition { removing: vec![replica(2, 0), replica(2, 0)], ..on(&[1]) }),
            "partition one-1 names broker 2 twice among its replicas",
        ),
        (
            changed(Partition { removing: vec![replica(3, 0)], ..on(&[1]) }),
            "partition one-1 has a replica on broker 3, which is not registered",
        ),
        (
            changed(Partition { adding: vec![replica(1, 0), replica(1, 0)], ..on(&[1]) }),
            "partition one-1 names replica 1.0 twice among those that come or go",
        ),
        (
            changed(Partition { replicas: vec![replica(1, 1)], ..on(&[1]) }),
            "partition one-1 has replica 1.1, though the next incarnation is 1",
        ),
        (
            changed(Partition { next_incarnation: 0, replicas: Vec::new(), ..on(&[1]) }),
            "partition one-1 has no replica",
        ),
        (
            Record::ControllerChanged { controller: on(&[1]) },
            "the controller's log would hand out incarnation 1 next, though 3 is next",
        ),
        (
            Record::ControllerChanged { controller: on(&[9]) },
            "the controller's log has a replica on broker 9, which is not registered",
        ),
        (
            Record::BrokerUnregistered { node: NodeId(7) },
            "broker 7 left, but holds a replica of the controller's log",
        ),
        (Record::BrokerFenced { node: NodeId(9), fenced: true }, "no broker has the node id 9"),
        (
            Record::FeaturesSet(Features { epoch: 4, levels: [].into() }),
            "features are at epoch 4 already, yet the log sets them at epoch 4",
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
    let moved = Partition { adding: vec![replica(2, 0)], ..on(&[2, 1]) };
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
        Record::ControllerChanged { controller: Partition { next_incarnation: 4, ..on(&[7]) } },
        Record::FeaturesSet(Features { epoch: 5, levels: [].into() }),
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
    assert!(there.controller_changed && there.features_changed);
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

#[test]
fn an_incarnation_is_never_handed_out_twice() {
    let mut image = image();
    let moved = on(&[1]).without_disk_of(NodeId(1));
    let record = |partition| Record::PartitionChanged { topic_id: ONE, index: PartitionIndex(0), partition };
    image.apply(&record(moved.clone())).expect("a good record");
    let error = image.apply(&record(on(&[1]))).expect_err("an incarnation is forgotten");
    assert_eq!(error.to_string(), "partition one-0 would hand out incarnation 1 next, though 2 is next");
    assert_eq!(image.topic("one").expect("it is there").partitions[0], moved);
}

#[test]
fn a_fenced_broker_is_known_but_not_live() {
    let mut image = image();
    image.apply(&Record::BrokerFenced { node: NodeId(2), fenced: true }).expect("it is registered");
    let live: Vec<_> = image.live_brokers().map(|broker| broker.node.0).collect();
    assert_eq!(live, [1, 7]);
    assert!(!image.is_live(NodeId(2)) && image.broker(NodeId(2)).is_some() && image.is_live(NodeId(1)));
    image.apply(&Record::BrokerFenced { node: NodeId(2), fenced: false }).expect("it is registered");
    assert_eq!(image, self::image());
}
