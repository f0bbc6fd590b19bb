//! Partitions that move, elections, and what the controller does of itself. Where Apache Kafka 4.3 was asked the same, its
//! words are the expected ones.

use std::collections::BTreeMap;

use ouzel_metadata::configs::BrokerConfig;
use ouzel_metadata::keepers::keeper;
use ouzel_metadata::plan::{
    ElectLeadersError, ElectionKind, NamedPartition, Reassignment, plan_controller_voters,
    plan_elect_leaders, plan_raise_internal_replication, plan_reassign, plan_release_keeper, plan_settle,
    plan_settle_controller, reassigning,
};
use ouzel_metadata::{Broker, Claim, Image, Layers, Partition, Record, StaticConfig};
use ouzel_model::{LeaderEpoch, NodeId, PartitionIndex, ReplicaId, TopicId, TopicIdPartition, TopicName};

use crate::support::{apply, broker, cluster};

const TOPIC: TopicId = TopicId([7; 16]);

fn nodes(list: &[i32]) -> Vec<NodeId> {
    list.iter().copied().map(NodeId).collect()
}

fn at(index: i32) -> TopicIdPartition {
    TopicIdPartition { topic_id: TOPIC, partition: PartitionIndex(index) }
}

fn with_topic(image: &mut Image, name: &str, topic_id: TopicId, lists: &[&[i32]]) {
    let name = TopicName::new(name).expect("a good name");
    let partitions = lists.iter().map(|list| Partition::new(nodes(list))).collect();
    apply(image, &[Record::TopicCreated { name, topic_id, partitions, configs: [].into() }]);
}

/// Four brokers; topic `d` with partitions on 1 and 2, and on 2 and 3.
fn image() -> Image {
    let mut image = cluster(4);
    with_topic(&mut image, "d", TOPIC, &[&[1, 2], &[2, 3]]);
    image
}

fn fence(image: &mut Image, node: i32) {
    apply(image, &[Record::BrokerFenced { node: NodeId(node), fenced: true }]);
}

fn to(topic: &str, index: i32, replicas: Option<&[i32]>) -> Reassignment {
    Reassignment { topic: topic.to_owned(), index, replicas: replicas.map(<[_]>::to_vec) }
}

/// Moves a partition, as far as the controller goes.
fn moved(image: &mut Image, wanted: Reassignment) {
    let answers = plan_reassign(image, &[wanted], true);
    let record = answers[0].clone().expect("a good request").expect("something to do");
    apply(image, &[record]);
}

#[test]
fn refusals_are_kafkas() {
    let check = |image: &Image, wanted: Reassignment, may_change: bool, kafka: &str| {
        let answers = plan_reassign(image, &[wanted], may_change);
        let answer = answers[0].as_ref().map_or_else(ToString::to_string, |record| match record {
            Some(_) => "moves".to_owned(),
            None => "is there".to_owned(),
        });
        assert_eq!(answer, kafka);
    };
    let mut image = image();
    check(&image, to("zz", 0, Some(&[1])), true, "Unable to find a topic named zz.");
    check(&image, to("zz", 0, None), true, "Unable to find a topic named zz.");
    check(&image, to("d", 9, Some(&[1])), true, "Unable to find partition d:9.");
    check(&image, to("d", -1, Some(&[1])), true, "Unable to find partition d:-1.");
    let unknown = "The manual partition assignment includes broker 9, but no such broker is registered.";
    check(&image, to("d", 0, Some(&[1, 9])), true, unknown);
    let twice = "The manual partition assignment includes the broker 1 more than once.";
    check(&image, to("d", 0, Some(&[1, 1])), true, twice);
    check(
        &image,
        to("d", 0, Some(&[])),
        true,
        "The manual partition assignment includes an empty replica list.",
    );
    check(&image, to("d", 0, None), true, "No partition reassignment is in progress.");
    check(&image, to("d", 0, Some(&[1])), false, "The replication factor is changed from 2 to 1");
    check(&image, to("d", 0, Some(&[1])), true, "moves");
    check(&image, to("d", 0, Some(&[1, 2])), true, "is there");
    check(&image, to("d", 0, Some(&[2, 1])), true, "moves");
    moved(&mut image, to("d", 0, Some(&[3, 4, 1])));
    check(&image, to("d", 0, Some(&[1, 2])), false, "The replication factor is changed from 3 to 2");
    check(&image, to("d", 0, Some(&[3, 4, 1])), true, "is there");
    check(&image, to("d", 0, None), true, "moves");
    let answers = plan_reassign(&image, &[to("d", 1, Some(&[1])), to("zz", 0, None), to("d", 1, None)], true);
    let words: Vec<String> =
        answers.iter().map(|answer| answer.as_ref().expect_err("refused").to_string()).collect();
    assert_eq!(
        words,
        [
            "The partition d-1 is named more than once.",
            "Unable to find a topic named zz.",
            "The partition d-1 is named more than once."
        ]
    );
}

#[test]
fn a_move_is_listed_until_its_leader_says_it_is_done() {
    let mut image = image();
    let listed = |image: &Image, named: Option<&[(String, Vec<i32>)]>| -> Vec<String> {
        let moving = reassigning(image, named).into_iter().flat_map(|(topic, partitions)| {
            partitions.into_iter().map(move |(index, partition)| {
                let (adding, removing) = partition.moving_nodes();
                let holders = partition.holder_nodes();
                let told = |nodes: Vec<NodeId>| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
                let (holders, adding, removing) = (told(holders), told(adding), told(removing));
                format!("{}-{index} {holders:?} +{adding:?} -{removing:?}", topic.name)
            })
        });
        moving.collect()
    };
    assert_eq!(listed(&image, None), Vec::<String>::new());
    moved(&mut image, to("d", 0, Some(&[2, 3])));
    assert_eq!(listed(&image, None), ["d-0 [2, 3, 1] +[3] -[1]"]);
    let named = |topic: &str, indexes: &[i32]| vec![(topic.to_owned(), indexes.to_vec())];
    assert_eq!(listed(&image, Some(&named("d", &[0, 1, 7]))), ["d-0 [2, 3, 1] +[3] -[1]"]);
    assert!(listed(&image, Some(&named("d", &[1]))).is_empty());
    assert!(listed(&image, Some(&named("zz", &[0]))).is_empty());

    let first = image.partition(at(0)).expect("it is there").clone();
    moved(&mut image, to("d", 0, None));
    assert_eq!(listed(&image, None), ["d-0 [2, 1, 3] +[] -[3]"]);
    let answers = plan_reassign(&image, &[to("d", 0, None)], true);
    assert!(answers[0].is_err(), "it is given up already");
    // The word about the move that was given up comes late: nobody may act on it.
    assert_eq!(plan_settle(&image, at(0), &first), None);
    let second = image.partition(at(0)).expect("it is there").clone();
    let record = plan_settle(&image, at(0), &second).expect("this is the move on its way");
    apply(&mut image, &[record]);
    assert!(listed(&image, None).is_empty());
    assert_eq!(plan_settle(&image, at(0), &second), None, "it is done");
    assert_eq!(plan_settle(&image, at(9), &second), None);
}

#[test]
fn the_controllers_own_log_moves_as_others_do() {
    let mut image = cluster(3);
    let moving = Partition::new(nodes(&[1])).moved_to(&nodes(&[1, 2, 3]));
    apply(&mut image, &[Record::ControllerChanged { controller: moving.clone() }]);
    let record = plan_settle_controller(&image, &moving).expect("it is on its way");
    apply(&mut image, &[record]);
    assert_eq!(image.controller(), Some(&moving.settled()));
    assert_eq!(plan_settle_controller(&image, &moving), None);
}

/// Who leads each partition of `d`, and who is in sync.
fn claims(list: &[(i32, i32, &[i32])]) -> impl Fn(TopicIdPartition) -> Option<Claim> {
    let replicas = |list: &[i32]| nodes(list).into_iter().map(ReplicaId::first).collect::<Vec<_>>();
    let claims: BTreeMap<TopicIdPartition, Claim> = list
        .iter()
        .map(|(index, leader, in_sync)| {
            let claim = Claim {
                epoch: LeaderEpoch(3),
                leader: ReplicaId::first(NodeId(*leader)),
                in_sync: replicas(in_sync),
                voters: replicas(in_sync),
            };
            (at(*index), claim)
        })
        .collect();
    move |at| claims.get(&at).cloned()
}

#[test]
fn elections_are_kafkas() {
    let mut image = image();
    fence(&mut image, 3);
    let claims = claims(&[(0, 2, &[1, 2])]);
    let named = |topic: &str, index| NamedPartition { topic: topic.to_owned(), index };
    let told = |image: &Image, kind, named: Option<&[NamedPartition]>| -> Vec<String> {
        let answers = plan_elect_leaders(image, &claims, kind, named);
        let words = answers.into_iter().map(|(name, outcome)| {
            let outcome = outcome.map_or_else(
                |error| error.to_string(),
                |election| {
                    assert_eq!(election.kind, kind);
                    let nodes: Vec<_> = election.candidates.iter().map(ToString::to_string).collect();
                    format!("elects {}", nodes.join(" "))
                },
            );
            format!("{}-{}: {outcome}", name.topic, name.index)
        });
        words.collect()
    };
    let asked = [named("d", 0), named("d", 1), named("d", 7), named("zz", 0)];
    assert_eq!(
        told(&image, ElectionKind::Preferred, Some(&asked)),
        [
            "d-0: elects 1.0",
            "d-1: The preferred leader was not available.",
            "d-7: No such partition as d-7",
            "zz-0: No such topic as zz"
        ]
    );
    assert_eq!(
        told(&image, ElectionKind::Unclean, Some(&asked)),
        [
            "d-0: elects 1.0 2.0",
            "d-1: elects 2.0",
            "d-7: No such partition as d-7",
            "zz-0: No such topic as zz"
        ]
    );
    // Whether it is needed is known when those are asked who claim to lead.
    assert_eq!(told(&image, ElectionKind::Unclean, None), ["d-0: elects 1.0 2.0", "d-1: elects 2.0"]);
    fence(&mut image, 2);
    assert_eq!(
        told(&image, ElectionKind::Unclean, None),
        ["d-0: elects 1.0", "d-1: Eligible topic partition leaders are not available."],
        "a dead leader leads nobody"
    );
    fence(&mut image, 1);
    assert_eq!(
        told(&image, ElectionKind::Preferred, Some(&[named("d", 0)])),
        ["d-0: The preferred leader was not available."]
    );
}

#[test]
fn a_preferred_leader_that_is_behind_does_not_lead() {
    let image = image();
    let behind = claims(&[(0, 2, &[2])]);
    let answers = plan_elect_leaders(&image, &behind, ElectionKind::Preferred, None);
    assert_eq!(answers[0].1, Err(ElectLeadersError::PreferredNotAvailable));
    let leads = claims(&[(0, 1, &[1, 2]), (1, 2, &[2, 3])]);
    assert!(plan_elect_leaders(&image, &leads, ElectionKind::Preferred, None).is_empty());
    // An earlier life of the preferred replica leads: the one that is preferred is another.
    let mut reborn = image.clone();
    let partition = Partition::new(nodes(&[1, 2])).without_disk_of(NodeId(1));
    apply(&mut reborn, &[Record::PartitionChanged { topic_id: TOPIC, index: PartitionIndex(0), partition }]);
    let answers = plan_elect_leaders(&reborn, &leads, ElectionKind::Preferred, None);
    assert_eq!(answers[0].1, Err(ElectLeadersError::PreferredNotAvailable));
}

#[test]
fn internal_topics_get_their_replicas_as_brokers_come() {
    let config = BrokerConfig::resolve(&Layers::of_static(&StaticConfig::default()));
    let offsets = TopicId([8; 16]);
    let mut image = cluster(1);
    with_topic(&mut image, "__consumer_offsets", offsets, &[&[1], &[1], &[1]]);
    with_topic(&mut image, "d", TOPIC, &[&[1]]);
    assert!(plan_raise_internal_replication(&image, &config).is_empty());
    let factors = |image: &Image| -> Vec<usize> {
        let topic = image.topic("__consumer_offsets").expect("it is there");
        topic.partitions.iter().map(|partition| partition.replicas.len()).collect()
    };
    let settle = |image: &mut Image| {
        let moving: Vec<_> = image.partitions().map(|(at, partition)| (at, partition.clone())).collect();
        for (at, partition) in moving {
            let settled = plan_settle(image, at, &partition);
            apply(image, settled.as_slice());
        }
    };
    for (node, expected) in [(2, 2), (3, 3), (4, 3)] {
        apply(&mut image, &[Record::BrokerRegistered(broker(node))]);
        let records = plan_raise_internal_replication(&image, &config);
        apply(&mut image, &records);
        assert_eq!(factors(&image), [expected; 3], "with broker {node}");
        assert!(plan_raise_internal_replication(&image, &config).is_empty(), "on their way");
        settle(&mut image);
        assert!(plan_raise_internal_replication(&image, &config).is_empty(), "there");
    }
    let topic = image.topic("__consumer_offsets").expect("it is there");
    assert!(topic.partitions.iter().all(|partition| partition.preferred_leader() == Some(NodeId(1))));
    assert_eq!(image.topic("d").expect("it is there").replication_factor(), 1, "no business of ours");
    // Never lowered: the dead come back.
    fence(&mut image, 2);
    fence(&mut image, 3);
    assert!(plan_raise_internal_replication(&image, &config).is_empty());
}

#[test]
fn the_dead_are_given_no_replica_of_internal_topics() {
    let config = BrokerConfig::resolve(&Layers::of_static(&StaticConfig::default()));
    let mut image = cluster(3);
    with_topic(&mut image, "__consumer_offsets", TOPIC, &[&[1]]);
    fence(&mut image, 2);
    let records = plan_raise_internal_replication(&image, &config);
    apply(&mut image, &records);
    let partition = image.partition(at(0)).expect("it is there");
    assert_eq!(partition.nodes().collect::<Vec<_>>(), nodes(&[1, 3]));
}

#[test]
fn the_controllers_log_is_kept_by_an_odd_number_of_brokers() {
    let planned = |image: &Image, gone: &[i32]| {
        let record = plan_controller_voters(image, &nodes(gone).into_iter().collect())?;
        let Record::ControllerChanged { controller } = record else { panic!("{record:?}") };
        Some(controller)
    };
    let chosen = |image: &Image, gone: &[i32]| -> Option<Vec<i32>> {
        Some(planned(image, gone)?.nodes().map(|node| node.0).collect())
    };
    let keepers = |list: &[i32]| Record::ControllerChanged { controller: Partition::new(nodes(list)) };
    assert_eq!(chosen(&cluster(3), &[]), None, "the founders are the first, once they have registered");
    let expected: [Option<&[i32]>; 7] = [
        None,
        None,
        Some(&[1, 2, 3]),
        Some(&[1, 2, 3]),
        Some(&[1, 2, 3, 4, 5]),
        Some(&[1, 2, 3, 4, 5]),
        Some(&[1, 2, 3, 4, 5]),
    ];
    for (brokers, expected) in (1..).zip(expected) {
        let mut image = cluster(brokers);
        apply(&mut image, &[keepers(&[1])]);
        assert_eq!(chosen(&image, &[]).as_deref(), expected, "{brokers} brokers, founded by one");
    }
    let mut image = cluster(4);
    apply(&mut image, &[keepers(&[1, 3, 4])]);
    assert_eq!(chosen(&image, &[]), None, "as it should be");
    fence(&mut image, 3);
    assert_eq!(chosen(&image, &[]), None, "it may be back in a moment");
    assert_eq!(chosen(&image, &[3]), Some(vec![1, 4, 2]), "a living broker in place of a dead one");
    let planned = planned(&image, &[3]).expect("just looked");
    let named = keeper(NodeId(2), broker(2).directory_id);
    assert_eq!(planned.adding, [named], "named by its directory");
    fence(&mut image, 4);
    assert_eq!(chosen(&image, &[3, 4]), Some(vec![1, 2, 3]), "one of the dead stays");
    let mut moving = image.clone();
    apply(&mut moving, &[Record::ControllerChanged { controller: planned }]);
    assert_eq!(chosen(&moving, &[3]), None, "one change at a time");
    apply(&mut moving, &[Record::BrokerFenced { node: NodeId(3), fenced: false }]);
    assert_eq!(chosen(&moving, &[2]), Some(vec![1, 4, 3]), "unless whoever it waits for is gone");
    fence(&mut image, 2);
    assert_eq!(chosen(&image, &[2, 3, 4]), None, "there is nobody to do it");
    // Who has left for good is replaced at once, or not at all.
    let released = |image: &Image, node: i32| -> Option<Vec<i32>> {
        let record = plan_release_keeper(image, NodeId(node))?;
        let Record::ControllerChanged { controller } = record else { panic!("{record:?}") };
        assert!(controller.is_moving(), "its leader sees to it");
        Some(controller.nodes().map(|node| node.0).collect())
    };
    let mut image = cluster(4);
    apply(&mut image, &[keepers(&[1, 3, 4])]);
    fence(&mut image, 3);
    assert_eq!(released(&image, 3), Some(vec![1, 4, 2]));
    assert_eq!(released(&image, 2), None, "it is no keeper");
    fence(&mut image, 2);
    assert_eq!(released(&image, 3), Some(vec![1, 4]));
    assert_eq!(released(&moving, 2), None, "one change at a time");
    let mut last = cluster(2);
    apply(&mut last, &[keepers(&[1])]);
    assert_eq!(released(&last, 1), None, "somebody must keep it");
    // Alone, and meant to be: it talks to nobody.
    let alone = Broker { rpc_address: String::new(), ..broker(1) };
    let mut alone = Image::from_records(&[Record::BrokerRegistered(alone)]).expect("it registers");
    apply(&mut alone, &[keepers(&[1])]);
    assert_eq!(chosen(&alone, &[]), None);
}

#[test]
fn the_controllers_log_is_kept_on_different_racks() {
    let racks = ["a", "a", "a", "b", "c"];
    let register = |(node, rack): (i32, &str)| {
        Record::BrokerRegistered(Broker { rack: Some(rack.to_owned()), ..broker(node) })
    };
    let records: Vec<Record> = (1..).zip(racks).map(register).collect();
    let mut image = Image::from_records(&records[..4]).expect("brokers register");
    apply(&mut image, &[Record::ControllerChanged { controller: Partition::new(nodes(&[1])) }]);
    let first = plan_controller_voters(&image, &[].into()).expect("one is too few");
    let Record::ControllerChanged { controller } = &first else { panic!("{first:?}") };
    assert_eq!(controller.nodes().collect::<Vec<_>>(), nodes(&[1, 4, 2]));
    apply(&mut image, &[Record::ControllerChanged { controller: controller.settled() }]);
    apply(&mut image, &records[4..]);
    fence(&mut image, 1);
    let next = plan_controller_voters(&image, &[NodeId(1)].into()).expect("one of them is dead");
    let Record::ControllerChanged { controller } = &next else { panic!("{next:?}") };
    assert_eq!(controller.nodes().collect::<Vec<_>>(), nodes(&[4, 2, 5]));
}
