//! Brokers that come, come back, lose their disk, die and leave.

use ouzel_metadata::features::{Features, LevelRange};
use ouzel_metadata::keepers::keeper;
use ouzel_metadata::plan::{
    plan_fence_broker, plan_register_broker, plan_replica_lost, plan_unregister_broker,
};
use ouzel_metadata::{Broker, Image, Partition, Record};
use ouzel_model::{NodeId, PartitionIndex, ReplicaId, TopicId, TopicIdPartition, TopicName};

use crate::support::{apply, broker, cluster};

const TOPIC: TopicId = TopicId([7; 16]);

fn nodes(list: &[i32]) -> Vec<NodeId> {
    list.iter().copied().map(NodeId).collect()
}

/// Three brokers; topic `t` with partitions on 1 alone, on 1 and 2, on all three, on 2 and 3; the controller's log on
/// all.
fn image() -> Image {
    let mut image = cluster(3);
    let lists: [&[i32]; 4] = [&[1], &[1, 2], &[1, 2, 3], &[2, 3]];
    let created = Record::TopicCreated {
        name: TopicName::new("t").expect("a good name"),
        topic_id: TOPIC,
        partitions: lists.map(|list| Partition::new(nodes(list))).to_vec(),
        configs: [].into(),
    };
    let features = Features { epoch: 0, levels: [("kraft.version".to_owned(), 1)].into() };
    let controller = Record::ControllerChanged { controller: Partition::new(nodes(&[1, 2, 3])) };
    apply(&mut image, &[created, controller, Record::FeaturesSet(features)]);
    image
}

fn fenced(mut image: Image, node: i32) -> Image {
    apply(&mut image, &[Record::BrokerFenced { node: NodeId(node), fenced: true }]);
    image
}

/// Another process under the number, on a disk of its own.
fn on_another_disk(node: i32) -> Broker {
    Broker { directory_id: TopicId([99; 16]), incarnation: [99; 16], ..broker(node) }
}

#[test]
fn a_new_broker_registers_and_the_first_sets_the_features() {
    let admission = plan_register_broker(&Image::default(), &broker(1), false).expect("there is nobody");
    let [Record::BrokerRegistered(registered), Record::FeaturesSet(features)] = &admission.records[..] else {
        panic!("{admission:?}")
    };
    assert_eq!((registered, features.epoch), (&broker(1), 0));
    assert_eq!(
        features.levels,
        [("kraft.version".to_owned(), 1), ("metadata.version".to_owned(), 30)].into()
    );
    let mut first = Image::default();
    apply(&mut first, &admission.records);
    let second = plan_register_broker(&first, &broker(2), false).expect("its number is free");
    assert_eq!(second.records, [Record::BrokerRegistered(broker(2))]);
}

#[test]
fn a_broker_that_is_back_on_its_disk_keeps_its_replicas() {
    let image = fenced(image(), 1);
    let back = Broker { incarnation: [50; 16], fenced: true, ..broker(1) };
    for is_alive in [false, true] {
        let admission = plan_register_broker(&image, &back, is_alive).expect("it is its own disk");
        let unfenced = Broker { fenced: false, ..back.clone() };
        assert_eq!(admission.records, [Record::BrokerRegistered(unfenced)]);
        assert!(admission.damage.is_empty());
    }
    // What a release without clusters registered told no directory: it had one.
    let mut untold = image.clone();
    let old = Broker { directory_id: TopicId::ZERO, ..broker(1) };
    apply(&mut untold, &[Record::BrokerRegistered(old)]);
    let admission = plan_register_broker(&untold, &on_another_disk(1), false).expect("an upgrade");
    assert_eq!(admission.records.len(), 1);
}

#[test]
fn a_number_that_is_in_use_is_refused_in_words() {
    let image = image();
    let elsewhere = Broker { rpc_address: "10.0.0.9:33146".to_owned(), ..on_another_disk(2) };
    let refused = plan_register_broker(&image, &elsewhere, true).expect_err("2 is alive");
    assert_eq!(
        refused.to_string(),
        "node id 2 belongs to the broker at 127.0.0.1:33148, which is alive and has another data directory; give this one \
         another --node-id"
    );
    let copy = Broker { incarnation: [50; 16], rpc_address: "10.0.0.9:33146".to_owned(), ..broker(2) };
    let refused = plan_register_broker(&image, &copy, true).expect_err("2 is alive elsewhere");
    assert_eq!(
        refused.to_string(),
        "node id 2 belongs to the broker at 127.0.0.1:33148, which is alive and has the same data directory id; this data \
         directory is a copy: start with an empty one and another --node-id"
    );
    assert!(plan_register_broker(&image, &copy, false).is_ok(), "a disk may move to another machine");
}

/// A node was killed, its disk wiped, and it was started again, all within the time in which the others notice that a node
/// died. It was refused as a second one under its own id, and ended. Nobody else can have its address, though.
#[test]
fn a_wiped_node_at_its_old_address_is_not_taken_for_a_second_one() {
    let back = on_another_disk(2);
    let image = image();
    assert_eq!(image.broker(back.node).expect("it is known").rpc_address, back.rpc_address);
    let soon = plan_register_broker(&image, &back, true).expect("it has taken its own place");
    let late = plan_register_broker(&image, &back, false).expect("it was noticed to be dead");
    assert_eq!(soon, late);
}

#[test]
fn a_release_that_lacks_what_the_cluster_uses_is_refused() {
    let mut older = broker(4);
    older.features.insert("kraft.version".to_owned(), LevelRange { min: 0, max: 0 });
    let words = |broker: &Broker| {
        plan_register_broker(&image(), broker, false).expect_err("it knows too little").to_string()
    };
    assert_eq!(
        words(&older),
        "this cluster uses kraft.version at level 1, and this release of the broker knows levels 0-0; run a release that \
         knows it"
    );
    older.features.clear();
    assert!(words(&older).contains("knows levels none"));
}

#[test]
fn a_lost_disk_costs_what_it_costs_and_says_so() {
    let mut image = fenced(image(), 1);
    let admission = plan_register_broker(&image, &on_another_disk(1), false).expect("the old one is dead");
    let words: Vec<String> = admission.damage.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "partition t-0 had its only replica on the lost disk: its records are gone; it stays offline until the topic is \
             deleted, or an unclean election makes it writable and empty",
            "partition t-1 has 1 of 2 replicas left, which is no majority: it stays offline until an unclean election makes \
             do with what is left of it",
        ]
    );
    apply(&mut image, &admission.records);
    let reborn = ReplicaId { node: NodeId(1), incarnation: 1 };
    for (index, partition) in image.topic("t").expect("it is there").indexed_partitions() {
        let expected = (index.0 < 3).then_some(reborn);
        assert_eq!(partition.replica_on(NodeId(1)), expected, "t-{index}");
        assert_eq!(partition.is_moving(), index.0 < 3, "its leader has to see to its members: t-{index}");
        assert!(!partition.founders.contains(&reborn), "an empty disk founds nothing: t-{index}");
    }
    let keeps = keeper(NodeId(1), on_another_disk(1).directory_id);
    assert_eq!(image.controller().and_then(|controller| controller.replica_on(NodeId(1))), Some(keeps));
    assert!(image.is_live(NodeId(1)));

    // A second one while the first has not caught up: now the others notice.
    let mut image = fenced(image, 2);
    let admission = plan_register_broker(&image, &on_another_disk(2), false).expect("the old one is dead");
    let left: Vec<_> = admission
        .damage
        .iter()
        .map(|damage| (damage.topic.is_some(), damage.index.0, damage.left, damage.members))
        .collect();
    assert_eq!(left, [(true, 1, 0, 2), (true, 2, 1, 3), (true, 3, 1, 2), (false, 0, 1, 3)]);
    assert!(
        admission.damage[0]
            .to_string()
            .starts_with("partition t-1 had 2 replicas, all on disks that are lost")
    );
    assert!(admission.damage[3].to_string().starts_with("the controller's log has 1 of 3 replicas left"));
    apply(&mut image, &admission.records);
}

#[test]
fn files_somebody_deleted_start_anew_too() {
    let mut image = image();
    let at = TopicIdPartition { topic_id: TOPIC, partition: PartitionIndex(2) };
    let first = ReplicaId::first(NodeId(3));
    let admission = plan_replica_lost(&image, at, first).expect("it is its replica");
    assert!(admission.damage.is_empty());
    apply(&mut image, &admission.records);
    assert_eq!(
        image.partition(at).and_then(|partition| partition.replica_on(NodeId(3))),
        Some(ReplicaId { node: NodeId(3), incarnation: 1 })
    );
    assert_eq!(plan_replica_lost(&image, at, first), None, "it was told once");
    let elsewhere = TopicIdPartition { partition: PartitionIndex(0), ..at };
    assert_eq!(plan_replica_lost(&image, elsewhere, first), None);
    let only = plan_replica_lost(&image, elsewhere, ReplicaId::first(NodeId(1))).expect("it is its replica");
    assert_eq!(only.damage.len(), 1);
}

#[test]
fn fencing_is_told_once() {
    let image = image();
    let fence = Record::BrokerFenced { node: NodeId(2), fenced: true };
    assert_eq!(plan_fence_broker(&image, NodeId(2), true), Some(fence));
    assert_eq!(plan_fence_broker(&image, NodeId(2), false), None);
    assert_eq!(plan_fence_broker(&image, NodeId(9), true), None);
    let image = fenced(image, 2);
    assert_eq!(plan_fence_broker(&image, NodeId(2), true), None);
    let unfence = Record::BrokerFenced { node: NodeId(2), fenced: false };
    assert_eq!(plan_fence_broker(&image, NodeId(2), false), Some(unfence));
}

#[test]
fn a_broker_leaves_once_nothing_rests_on_it() {
    let mut image = image();
    let words =
        |image: &Image, node| plan_unregister_broker(image, NodeId(node)).map_err(|error| error.to_string());
    assert_eq!(words(&image, 9), Err("Broker ID 9 is not currently registered".to_owned()));
    assert_eq!(words(&image, 3), Err("Broker 3 is alive; stop it before it is unregistered.".to_owned()));
    image = fenced(image, 3);
    let holds = "Broker 3 holds 2 replica(s), of t-2 among others; move them to other brokers before it is unregistered.";
    assert_eq!(words(&image, 3), Err(holds.to_owned()));
    // On the way away it holds them still.
    let index = PartitionIndex(2);
    let moving = Partition::new(nodes(&[1, 2, 3])).moved_to(&nodes(&[1, 2]));
    let changed = |partition, index| Record::PartitionChanged { topic_id: TOPIC, index, partition };
    apply(&mut image, &[changed(moving.clone(), index)]);
    assert_eq!(words(&image, 3), Err(holds.to_owned()));
    let other = Partition::new(nodes(&[2, 3])).moved_to(&nodes(&[2])).settled();
    apply(&mut image, &[changed(moving.settled(), index), changed(other, PartitionIndex(3))]);
    let keeps =
        "Broker 3 keeps the controller's log; it is unregistered once another broker does so in its place.";
    assert_eq!(words(&image, 3), Err(keeps.to_owned()));
    let controller = Partition::new(nodes(&[1, 2, 3])).moved_to(&nodes(&[1])).settled();
    apply(&mut image, &[Record::ControllerChanged { controller }]);
    let record = words(&image, 3).expect("nothing rests on it");
    apply(&mut image, &[record]);
    assert!(image.broker(NodeId(3)).is_none());
}
