//! Creating, growing and deleting topics. Where Apache Kafka 4.3 was asked the same, its words are the expected ones.

use ouzel_metadata::configs::BrokerConfig;
use ouzel_metadata::plan::{
    CreateTopicError, NewPartitions, NewTopic, PlannedTopic, TopicRef, plan_create_partitions,
    plan_create_topics, plan_delete_topics, plan_producer_id_block,
};
use ouzel_metadata::{Image, Layers, Record, StaticConfig};
use ouzel_model::{NodeId, ProducerId, TopicId};

use crate::support::{apply, cluster, counting_ids, settings};

fn topic(name: &str) -> NewTopic {
    NewTopic { num_partitions: 1, replication_factor: 1, ..NewTopic::with_defaults(name) }
}

fn manual(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    let assignments = assignments.iter().map(|(index, list)| (*index, list.to_vec())).collect();
    NewTopic { assignments, ..NewTopic::with_defaults(name) }
}

fn with_config(name: &str, key: &str, value: &str) -> NewTopic {
    NewTopic { configs: vec![(key.to_owned(), Some(value.to_owned()))], ..topic(name) }
}

fn plan(image: &Image, topics: &[NewTopic]) -> Vec<Result<PlannedTopic, CreateTopicError>> {
    let config = StaticConfig::default();
    plan_create_topics(image, &Layers::of_static(&config), topics, &mut counting_ids())
}

/// A one-broker cluster with the topics `t` (one partition), `m8` (two) and `a.b`.
fn small() -> Image {
    let mut image = cluster(1);
    let mut eight = topic("m8");
    eight.num_partitions = 2;
    for planned in plan(&image.clone(), &[topic("t"), eight, topic("a.b")]) {
        apply(&mut image, &[planned.expect("good topics").record]);
    }
    image
}

#[test]
fn refusals_are_kafkas() {
    let image = small();
    let check = |wanted: NewTopic, kafka: &str| {
        let name = wanted.name.clone();
        let answers = plan(&image, &[wanted]);
        assert_eq!(
            answers[0].as_ref().map(|planned| planned.name.to_string()).map_err(ToString::to_string),
            Err(kafka.to_owned()),
            "{name}"
        );
    };
    let none = "Number of partitions was set to an invalid non-positive value.";
    check(NewTopic { num_partitions: 0, ..topic("p") }, none);
    check(NewTopic { num_partitions: -5, ..topic("p") }, none);
    let unreplicated = "Replication factor must be larger than 0, or -1 to use the default value.";
    check(NewTopic { replication_factor: 0, ..topic("p") }, unreplicated);
    check(NewTopic { replication_factor: -2, ..topic("p") }, unreplicated);
    check(
        NewTopic { replication_factor: 3, ..topic("p") },
        "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only \
         1 broker(s) are registered.",
    );
    check(
        NewTopic { num_partitions: 10_001, ..topic("p") },
        "Excessively large number of partitions per request.",
    );
    check(topic("t"), "Topic 't' already exists.");
    check(NewTopic { num_partitions: 0, ..topic("t") }, "Topic 't' already exists.");
    check(topic("a_b"), "Topic 'a_b' collides with existing topic: a.b");
    check(topic("__cluster_metadata"), "Creation of internal topic __cluster_metadata is prohibited.");
    check(
        manual("m", &[(0, &[9])]),
        "The manual partition assignment includes broker 9, but no such broker is registered.",
    );
    check(
        manual("m", &[(0, &[-1])]),
        "The manual partition assignment includes broker -1, but no such broker is registered.",
    );
    check(
        manual("m", &[(0, &[1, 1])]),
        "The manual partition assignment includes the broker 1 more than once.",
    );
    check(manual("m", &[(0, &[])]), "The manual partition assignment includes an empty replica list.");
    let gap = "partitions should be a consecutive 0-based integer sequence";
    check(manual("m", &[(0, &[1]), (2, &[1])]), gap);
    check(manual("m", &[(1, &[1])]), gap);
    check(manual("m", &[(-1, &[1])]), gap);
    check(manual("m", &[(0, &[1]), (0, &[1])]), gap);
    check(
        NewTopic { num_partitions: 1, ..manual("m", &[(0, &[1])]) },
        "A manual partition assignment was specified, but numPartitions was not set to -1.",
    );
    check(
        NewTopic { replication_factor: 1, ..manual("m", &[(0, &[1])]) },
        "A manual partition assignment was specified, but replication factor was not set to -1.",
    );
    check(with_config("k", "completely.unknown", "1"), "Unknown topic config name: completely.unknown");
    check(
        with_config("k", "retention.mss", "1"),
        "Unknown topic config name: retention.mss; did you mean retention.ms?",
    );
    for removed in
        ["message.format.version", "message.timestamp.difference.max.ms", "message.downconversion.enable"]
    {
        check(with_config("k", removed, "1"), &format!("Unknown topic config name: {removed}"));
    }
    check(
        NewTopic { configs: vec![("retention.ms".to_owned(), None)], ..topic("k") },
        "Null value not supported for topic configs: retention.ms",
    );
    let bad = "Invalid value abc for configuration retention.ms: Not a number of type LONG";
    check(with_config("k", "retention.ms", "abc"), bad);
    check(
        NewTopic { num_partitions: 0, replication_factor: 7, ..with_config("k", "retention.ms", "abc") },
        bad,
    );
    check(
        with_config("k", "segment.bytes", "1048575"),
        "Invalid value 1048575 for configuration segment.bytes: Value must be at least 1048576",
    );
    let lags = [("min.compaction.lag.ms", "100"), ("max.compaction.lag.ms", "99")];
    let lags = lags.map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
    check(
        NewTopic { configs: lags.to_vec(), ..topic("k") },
        "conflict topic config setting min.compaction.lag.ms (100) > max.compaction.lag.ms (99)",
    );
}

#[test]
fn illegal_names_are_told_why() {
    let image = cluster(1);
    for name in ["", ".", "..", "a b", "ä", &"x".repeat(250)] {
        let answers = plan(&image, &[topic(name)]);
        assert!(matches!(answers[..], [Err(CreateTopicError::InvalidName(_))]), "{name}: {answers:?}");
    }
}

#[test]
fn unequal_lists_are_refused() {
    let answers = plan(&cluster(3), &[manual("m", &[(0, &[1]), (1, &[2, 3])])]);
    assert_eq!(
        answers[0].as_ref().expect_err("unequal").to_string(),
        "The manual partition assignment includes a partition with 2 replica(s), but this is not consistent with previous \
         partitions, which have 1 replica(s)."
    );
}

#[test]
fn one_request_is_one_whole() {
    let image = cluster(1);
    let answers = plan(&image, &[topic("twice"), topic("c.d"), topic("c_d"), topic("twice"), topic("fine")]);
    let answers: Vec<String> = answers
        .iter()
        .map(|answer| answer.as_ref().map_or_else(ToString::to_string, |t| format!("{} made", t.name)))
        .collect();
    // Kafka lets c.d and c_d through when they come together, and regrets it in its metrics.
    assert_eq!(
        answers,
        [
            "Duplicate topic name.",
            "c.d made",
            "Topic 'c_d' collides with existing topic: c.d",
            "Duplicate topic name.",
            "fine made"
        ]
    );
    let many = NewTopic { num_partitions: 6_000, ..topic("x") };
    let answers = plan(&image, &[many.clone(), NewTopic { name: "y".to_owned(), ..many }]);
    assert!(answers[0].is_ok());
    assert!(
        matches!(answers[1], Err(CreateTopicError::TooManyPartitions { partitions: 12_000 })),
        "{answers:?}"
    );
}

#[test]
fn defaults_are_the_brokers() {
    let config = settings(&[("num.partitions", "3"), ("default.replication.factor", "2")]);
    let image = cluster(2);
    let wanted = [NewTopic::with_defaults("d"), manual("by.hand", &[(1, &[2]), (0, &[1])])];
    let mut ids = counting_ids();
    let answers = plan_create_topics(&image, &Layers::of_static(&config), &wanted, &mut ids);
    let [Ok(defaults), Ok(by_hand)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((defaults.partitions, defaults.replication_factor), (3, 2));
    assert_eq!((by_hand.partitions, by_hand.replication_factor), (2, 1));
    let Record::TopicCreated { partitions, .. } = &by_hand.record else { panic!("{by_hand:?}") };
    let leaders: Vec<_> = partitions.iter().map(|partition| partition.preferred_leader()).collect();
    assert_eq!(leaders, [Some(NodeId(1)), Some(NodeId(2))]);
}

#[test]
fn the_offsets_topic_is_kafkas() {
    let config = settings(&[("offsets.topic.num.partitions", "7")]);
    let broker = BrokerConfig::resolve(&Layers::of_static(&config));
    for (brokers, replicas) in [(1, 1), (2, 2), (5, 3)] {
        let image = cluster(brokers);
        let answers = plan(&image, &[NewTopic::for_offsets(&image, &broker)]);
        let planned = answers[0].as_ref().expect("a good topic");
        assert!(planned.name.is_internal());
        assert_eq!((planned.partitions, planned.replication_factor), (7, replicas), "{brokers} brokers");
        let configs: Vec<String> =
            planned.configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            configs,
            ["cleanup.policy=compact", "compression.type=producer", "segment.bytes=104857600"]
        );
    }
}

#[test]
fn settings_are_kept_in_one_spelling() {
    let answers = plan(&cluster(1), &[with_config("s", "cleanup.policy", " compact , delete,compact ")]);
    let planned = answers[0].as_ref().expect("a good topic");
    assert_eq!(planned.configs.get("cleanup.policy").map(String::as_str), Some("compact,delete"));
}

#[test]
fn an_id_that_is_taken_or_reserved_is_drawn_again() {
    let image = small();
    let taken = image.topic("t").expect("made above").id;
    let dashed = TopicId([0xf8; 16]);
    assert!(dashed.to_string().starts_with('-'));
    let good = TopicId([9; 16]);
    let mut draws =
        [TopicId::ZERO, TopicId(1u128.to_be_bytes()), taken, dashed, good, good, TopicId([8; 16])]
            .into_iter();
    let config = StaticConfig::default();
    let mut ids = || draws.next().expect("no more draws than needed");
    let answers =
        plan_create_topics(&image, &Layers::of_static(&config), &[topic("x"), topic("y")], &mut ids);
    let drawn: Vec<_> = answers.iter().map(|answer| answer.as_ref().expect("good topics").topic_id).collect();
    assert_eq!(drawn, [good, TopicId([8; 16])]);
    let mut stuck = || taken;
    let answers = plan_create_topics(&image, &Layers::of_static(&config), &[topic("x")], &mut stuck);
    assert_eq!(answers, [Err(CreateTopicError::NoTopicId)]);
}

#[test]
fn partitions_spread_over_brokers() {
    let image = cluster(3);
    let wanted = NewTopic { num_partitions: 6, replication_factor: 2, ..topic("spread") };
    let answers = plan(&image, &[wanted]);
    let Record::TopicCreated { partitions, .. } = &answers[0].as_ref().expect("a good topic").record else {
        panic!("{answers:?}")
    };
    for node in [1, 2, 3].map(NodeId) {
        assert_eq!(
            partitions.iter().filter(|p| p.preferred_leader() == Some(node)).count(),
            2,
            "leaderships of {node}"
        );
        assert_eq!(
            partitions.iter().filter(|p| p.replica_on(node).is_some()).count(),
            4,
            "replicas of {node}"
        );
    }
    // Both other brokers follow a leader, so its load is shared when it is lost.
    let followers = |leader| {
        partitions.iter().filter(move |p| p.preferred_leader() == Some(leader)).map(|p| p.replicas[1])
    };
    for node in [1, 2, 3].map(NodeId) {
        let mut followers: Vec<_> = followers(node).collect();
        followers.sort();
        followers.dedup();
        assert_eq!(followers.len(), 2, "{node}");
    }
}

#[test]
fn growing_is_kafkas() {
    let image = small();
    let check = |name: &str, count: i32, assignments: Option<&[&[i32]]>, kafka: &str| {
        let assignments = assignments.map(|lists| lists.iter().map(|list| list.to_vec()).collect());
        let wanted = NewPartitions { name: name.to_owned(), count, assignments };
        let answers = plan_create_partitions(&image, &[wanted]);
        let answer = answers[0].as_ref().map(|_| "ok".to_owned()).unwrap_or_else(ToString::to_string);
        assert_eq!(answer, kafka, "{name} to {count}");
    };
    check("t", 1, None, "Topic already has 1 partition(s).");
    check("m8", 1, None, "The topic m8 currently has 2 partition(s); 1 would not be an increase.");
    check("t", 0, None, "The topic t currently has 1 partition(s); 0 would not be an increase.");
    check("t", -1, None, "The topic t currently has 1 partition(s); -1 would not be an increase.");
    check("zz", 2, None, "This server does not host this topic-partition.");
    check("t", 10_002, None, "Excessively large number of partitions per request.");
    check(
        "t",
        3,
        Some(&[&[1]]),
        "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.",
    );
    check(
        "t",
        2,
        Some(&[&[7]]),
        "The manual partition assignment includes broker 7, but no such broker is registered.",
    );
    check("t", 3, Some(&[&[1], &[1]]), "ok");
    check("t", 5, None, "ok");
    let twice = NewPartitions { name: "t".to_owned(), count: 4, assignments: None };
    let answers = plan_create_partitions(&image, &[twice.clone(), twice]);
    assert!(answers.iter().all(Result::is_err), "{answers:?}");

    let mut grown = image.clone();
    let wanted = NewPartitions { name: "m8".to_owned(), count: 5, assignments: None };
    let answers = plan_create_partitions(&image, &[wanted]);
    apply(&mut grown, &[answers[0].clone().expect("a good request")]);
    assert_eq!(grown.topic("m8").expect("still there").partitions.len(), 5);
}

#[test]
fn deleting_by_name_or_id() {
    let image = small();
    let id = image.topic("m8").expect("made above").id;
    let broker = BrokerConfig::resolve(&Layers::of_static(&StaticConfig::default()));
    let name = |text: &str| TopicRef::Name(text.to_owned());
    let words = |broker: &BrokerConfig, topics: &[TopicRef]| -> Vec<String> {
        let answers = plan_delete_topics(&image, broker, topics);
        answers
            .iter()
            .map(|answer| {
                answer.as_ref().map_or_else(ToString::to_string, |gone| format!("{} gone", gone.name))
            })
            .collect()
    };
    assert_eq!(
        words(
            &broker,
            &[name("t"), name("zz"), name("a b"), TopicRef::Id(id), TopicRef::Id(TopicId([7; 16]))]
        ),
        [
            "t gone",
            "This server does not host this topic-partition.",
            "This server does not host this topic-partition.",
            "m8 gone",
            "This server does not host this topic ID.",
        ]
    );
    assert_eq!(
        words(&broker, &[name("m8"), TopicRef::Id(id), name("t"), name("t")]),
        ["Duplicate topic name.", "Duplicate topic id.", "Duplicate topic name.", "Duplicate topic name."]
    );
    let closed = BrokerConfig { delete_topics: false, ..broker };
    assert_eq!(words(&closed, &[name("t")]), ["Topic deletion is disabled."]);
}

#[test]
fn producer_ids_come_in_blocks_that_never_meet() {
    let mut image = cluster(1);
    for first in [0, 1000, 2000] {
        let (record, block) = plan_producer_id_block(&image, NodeId(1)).expect("ids left");
        assert_eq!((block.first, block.size), (ProducerId(first), 1000));
        assert_eq!(block.ids().last(), Some(ProducerId(first + 999)));
        apply(&mut image, &[record]);
    }
    let last = Record::ProducerIdsAllocated { node: NodeId(1), next_producer_id: i64::MAX - 999 };
    apply(&mut image, &[last]);
    assert!(plan_producer_id_block(&image, NodeId(1)).is_err());
    let back = Record::ProducerIdsAllocated { node: NodeId(1), next_producer_id: 5 };
    let before = image.clone();
    assert!(image.apply(&back).is_err());
    assert_eq!(image, before);
}
