//! Which brokers get what: racks, load, the dead.

use std::collections::BTreeMap;

use ouzel_metadata::placement::{Placer, Unplaceable};
use ouzel_metadata::{Broker, Image, Partition, Record};
use ouzel_model::{NodeId, TopicId, TopicName};

use crate::support::{apply, broker};

/// Brokers 1, 2, 3... on these racks.
fn on_racks(racks: &[&str]) -> Image {
    let register = |(node, rack): (i32, &&str)| {
        let rack = Some((*rack).to_owned()).filter(|rack| !rack.is_empty());
        Record::BrokerRegistered(Broker { rack, ..broker(node) })
    };
    let records: Vec<Record> = (1..).zip(racks).map(register).collect();
    Image::from_records(&records).expect("brokers register")
}

fn fence(image: &mut Image, nodes: &[i32]) {
    for node in nodes.iter().copied().map(NodeId) {
        apply(image, &[Record::BrokerFenced { node, fenced: true }]);
    }
}

fn with_topic(image: &Image, number: u8, partitions: Vec<Partition>) -> Image {
    let mut image = image.clone();
    let name = TopicName::new(&format!("t{number}")).expect("a good name");
    let topic_id = TopicId([number; 16]);
    apply(&mut image, &[Record::TopicCreated { name, topic_id, partitions, configs: [].into() }]);
    image
}

fn place(image: &Image, partitions: usize, replicas: i16, seed: u64) -> Vec<Partition> {
    Placer::new(image).place(&[], partitions, replicas, seed).expect("there are enough brokers")
}

fn count(of: impl Iterator<Item = NodeId>) -> BTreeMap<i32, usize> {
    let mut counts = BTreeMap::new();
    for node in of {
        *counts.entry(node.0).or_default() += 1;
    }
    counts
}

fn preferred(partitions: &[Partition]) -> BTreeMap<i32, usize> {
    count(partitions.iter().filter_map(Partition::preferred_leader))
}

fn replicas(partitions: &[Partition]) -> BTreeMap<i32, usize> {
    count(partitions.iter().flat_map(Partition::nodes))
}

#[test]
fn every_topic_is_spread_evenly_whatever_the_seed() {
    for brokers in 1..=6usize {
        let image = on_racks(&vec![""; brokers]);
        for wanted in 1..=brokers.min(3) {
            for partitions in [1, 2, 5, 12, 31] {
                for seed in [0, 1, 7, u64::MAX] {
                    let placed = place(&image, partitions, wanted as i16, seed);
                    let at_most = |count: usize| count.div_ceil(brokers);
                    let (led, held) = (preferred(&placed), replicas(&placed));
                    assert!(led.values().all(|count| *count <= at_most(partitions)), "{led:?}");
                    assert!(
                        held.values().all(|count| *count <= at_most(partitions * wanted) + 1),
                        "{held:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn replicas_stand_on_different_racks() {
    let image = on_racks(&["a", "a", "a", "b", "b", "c"]);
    let rack = |node: NodeId| image.broker(node).and_then(|broker| broker.rack.clone());
    for partition in place(&image, 40, 3, 5) {
        let racks: std::collections::BTreeSet<_> = partition.nodes().map(rack).collect();
        assert_eq!(racks.len(), 3, "{partition:?}");
    }
    // Four replicas on three racks: one rack has two, none has three.
    for partition in place(&image, 40, 4, 5) {
        let on =
            |wanted: &str| partition.nodes().filter(|node| rack(*node).as_deref() == Some(wanted)).count();
        assert!(on("a") <= 2 && on("b") <= 2 && on("c") == 1, "{partition:?}");
    }
}

#[test]
fn where_a_topic_leaves_a_choice_the_least_loaded_broker_gets_it() {
    // Topics of one partition: only the load of the cluster can spread them.
    let mut image = on_racks(&["", "", ""]);
    let mut all = Vec::new();
    for number in 1..=30 {
        let placed = place(&image, 1, 2, 0);
        image = with_topic(&image, number, placed.clone());
        all.extend(placed);
    }
    assert_eq!(preferred(&all), [(1, 10), (2, 10), (3, 10)].into());
    assert_eq!(replicas(&all), [(1, 20), (2, 20), (3, 20)].into());
    // A new broker gets its fair part of a large topic, not all of it.
    apply(&mut image, &[Record::BrokerRegistered(broker(4))]);
    assert_eq!(preferred(&place(&image, 8, 1, 0)), [(1, 2), (2, 2), (3, 2), (4, 2)].into());
    assert_eq!(preferred(&place(&image, 1, 1, 0)), [(4, 1)].into());
    // One placer remembers what it has placed.
    let mut placer = Placer::new(&image);
    let small: Vec<Partition> =
        (0..4).flat_map(|seed| placer.place(&[], 1, 1, seed).expect("there is a broker")).collect();
    assert_eq!(preferred(&small), [(4, 4)].into());
}

#[test]
fn partitions_added_later_go_where_the_first_left_off() {
    let image = on_racks(&["", "", ""]);
    let first = place(&image, 4, 1, 0);
    let image = with_topic(&image, 1, first.clone());
    let added = Placer::new(&image).place(&first, 5, 1, 0).expect("there are enough brokers");
    assert_eq!(preferred(&[first, added].concat()), [(1, 3), (2, 3), (3, 3)].into());
}

#[test]
fn the_dead_get_what_the_living_are_too_few_for_and_lead_nothing() {
    let mut image = on_racks(&["a", "b", "c", "c"]);
    fence(&mut image, &[2]);
    let placed = place(&image, 12, 3, 0);
    assert_eq!(replicas(&placed), [(1, 12), (3, 12), (4, 12)].into());
    fence(&mut image, &[3]);
    let placed = place(&image, 12, 3, 0);
    assert!(preferred(&placed).keys().all(|node| [1, 4].contains(node)), "{placed:?}");
    assert!(placed.iter().all(|partition| partition.replica_on(NodeId(4)).is_some()));
    let refused = Placer::new(&image).place(&[], 1, 5, 0).expect_err("there are four");
    assert_eq!(refused, Unplaceable::TooFewBrokers { replication_factor: 5, brokers: 4 });
    fence(&mut image, &[4]);
    let refused = Placer::new(&image).place(&[], 1, 3, 0).expect_err("one of three is no majority");
    assert_eq!(
        refused.to_string(),
        "Unable to replicate the partition 3 time(s): 2 of its replicas must be on brokers that are alive, but only 1 \
         broker(s) are."
    );
    assert_eq!(replicas(&place(&image, 2, 1, 0)), [(1, 2)].into());
    fence(&mut image, &[1]);
    assert!(matches!(Placer::new(&image).place(&[], 1, 1, 0), Err(Unplaceable::TooFewAlive { live: 0, .. })));
}

#[test]
fn a_partition_that_grows_keeps_what_it_has() {
    let image = on_racks(&["a", "a", "b", "c"]);
    let one = vec![Partition::new(vec![NodeId(1)])];
    let image = with_topic(&image, 1, one.clone());
    let grown = Placer::new(&image).grow(&one, &one[0], 3);
    assert_eq!(grown, Some(vec![NodeId(1), NodeId(3), NodeId(4)]));
    let mut fenced = image.clone();
    fence(&mut fenced, &[3, 4]);
    assert_eq!(Placer::new(&fenced).grow(&one, &one[0], 3), None);
    assert_eq!(Placer::new(&fenced).grow(&one, &one[0], 2), Some(vec![NodeId(1), NodeId(2)]));
}
