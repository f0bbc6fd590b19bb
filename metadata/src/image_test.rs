//! Random histories of a cluster keep the promises of its image.
//!
//! A history is a list of requests. Each is planned on the image there is, its records make the trip through their bytes
//! and are applied. After each, [`Judge::look`] compares the image with all it has seen before. The judge is shown to
//! notice planted bugs at the end: a history is worth something only if it finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ouzel_model::{NodeId, PartitionIndex, TopicId, TopicName};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use crate::configs::{BrokerConfig, Layers, StaticConfig};
use crate::delta::{ApplyError, Changes};
use crate::image::{Broker, BrokerScope, Image, Topic};
use crate::plan::{
    AlterOp, ConfigAlteration, KeyAlteration, NewPartitions, NewTopic, ResourceName, TopicRef,
    plan_alter_configs, plan_create_partitions, plan_create_topics, plan_delete_topics,
    plan_producer_id_block,
};
use crate::record::Record;

#[derive(Clone, Debug)]
pub(crate) enum Request {
    Register(i32),
    Unregister(i32),
    Create {
        name: &'static str,
        partitions: i32,
        replication_factor: i16,
        by_hand: Vec<Vec<i32>>,
        retention: bool,
    },
    Delete {
        name: &'static str,
        by_id: bool,
    },
    Grow {
        name: &'static str,
        count: i32,
    },
    Alter {
        resource: ResourceName,
        key: &'static str,
        op: AlterOp,
        value: &'static str,
    },
    ProducerIds,
}

pub(crate) fn requests() -> impl Strategy<Value = Vec<Request>> {
    // Few names, so that requests meet each other's topics; two of them collide.
    let name = || prop::sample::select(vec!["a", "a.b", "a_b", "c", "bad name"]);
    let by_hand = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec(prop::collection::vec(0..5, 0..4), 1..4),
    ];
    let resource = prop_oneof![
        name().prop_map(|name| ResourceName::Topic(name.to_owned())),
        prop::sample::select(vec!["", "1", "4", "x"]).prop_map(|name| ResourceName::Broker(name.to_owned())),
    ];
    let key = prop::sample::select(vec![
        "retention.ms",
        "cleanup.policy",
        "log.retention.ms",
        "log.cleanup.policy",
    ]);
    let op = prop::sample::select(vec![AlterOp::Set, AlterOp::Delete, AlterOp::Append, AlterOp::Subtract]);
    let value = prop::sample::select(vec!["5", "compact", "delete", "nonsense"]);
    let request = prop_oneof![
        2 => (0..5).prop_map(Request::Register),
        1 => (0..5).prop_map(Request::Unregister),
        6 => (name(), -1..5, -1i16..4, by_hand, any::<bool>()).prop_map(
            |(name, partitions, replication_factor, by_hand, retention)| {
                Request::Create { name, partitions, replication_factor, by_hand, retention }
            }
        ),
        3 => (name(), any::<bool>()).prop_map(|(name, by_id)| Request::Delete { name, by_id }),
        2 => (name(), 0..7).prop_map(|(name, count)| Request::Grow { name, count }),
        4 => (resource, key, op, value).prop_map(|(resource, key, op, value)| Request::Alter { resource, key, op, value }),
        1 => Just(Request::ProducerIds),
    ];
    prop::collection::vec(request, 1..60)
}

/// The records a request leads to; none if it is refused.
pub(crate) fn plan(image: &Image, request: &Request, ids: &mut dyn FnMut() -> TopicId) -> Vec<Record> {
    let config = StaticConfig::default();
    let layers = Layers::of_static(&config);
    match request {
        Request::Register(node) => {
            let node = NodeId(*node);
            vec![Record::BrokerRegistered(Broker {
                features: crate::features::supported(),
                ..Broker::new(node, [1; 16], TopicId([2; 16]))
            })]
        }
        Request::Unregister(node) => {
            let free = image.broker(NodeId(*node)).is_some_and(|_| !holds_replica(image, NodeId(*node)));
            free.then_some(Record::BrokerUnregistered { node: NodeId(*node) }).into_iter().collect()
        }
        Request::Create { name, partitions, replication_factor, by_hand, retention } => {
            let mut wanted = NewTopic::with_defaults(name);
            wanted.assignments = (0..).zip(by_hand.iter().cloned()).collect();
            if wanted.assignments.is_empty() {
                (wanted.num_partitions, wanted.replication_factor) = (*partitions, *replication_factor);
            }
            wanted.configs.extend(retention.then(|| ("retention.ms".to_owned(), Some("7".to_owned()))));
            let planned = plan_create_topics(image, &layers, &[wanted], ids);
            planned.into_iter().flatten().map(|topic| topic.record).collect()
        }
        Request::Delete { name, by_id } => {
            let by_id = image.topic(name).filter(|_| *by_id).map(|topic| TopicRef::Id(topic.id));
            let topic = by_id.unwrap_or_else(|| TopicRef::Name((*name).to_owned()));
            let planned = plan_delete_topics(image, &BrokerConfig::resolve(&layers), &[topic]);
            planned.into_iter().flatten().map(|topic| topic.record).collect()
        }
        Request::Grow { name, count } => {
            let wanted = NewPartitions { name: (*name).to_owned(), count: *count, assignments: None };
            plan_create_partitions(image, &[wanted]).into_iter().flatten().collect()
        }
        Request::Alter { resource, key, op, value } => {
            let key = KeyAlteration { key: (*key).to_owned(), op: *op, value: Some((*value).to_owned()) };
            let alteration = ConfigAlteration { resource: resource.clone(), keys: vec![key] };
            plan_alter_configs(image, &layers, &[alteration]).into_iter().flatten().flatten().collect()
        }
        Request::ProducerIds => {
            plan_producer_id_block(image, NodeId(1)).map(|(record, _)| record).into_iter().collect()
        }
    }
}

fn holds_replica(image: &Image, node: NodeId) -> bool {
    image.topics().any(|topic| topic.partitions.iter().any(|partition| partition.replica_on(node).is_some()))
}

/// What has been seen of a history so far.
#[derive(Default)]
struct Judge {
    names_by_id: BTreeMap<TopicId, TopicName>,
    ids_alive: BTreeSet<TopicId>,
    next_producer_id: i64,
    /// Partitions of each topic, followed by nothing but [`Changes`].
    followed: BTreeMap<TopicId, usize>,
}

impl Judge {
    fn look(&mut self, before: &Image, image: &Image) -> Result<(), String> {
        let say = |fault: bool, what: &str| if fault { Err(what.to_owned()) } else { Ok(()) };
        say(image.topic_names.len() != image.topics.len(), "names and ids are no bijection")?;
        let mut collision_keys = BTreeSet::new();
        for topic in image.topics() {
            let by_id = image.topic_by_id(topic.id);
            say(!by_id.is_some_and(|other| Arc::ptr_eq(other, topic)), "an id leads to another topic")?;
            say(!collision_keys.insert(topic.name.as_str().replace('.', "_")), "two names collide")?;
            say(topic.partitions.is_empty(), "a topic has no partitions")?;
            for partition in &topic.partitions {
                let nodes: BTreeSet<_> = partition.nodes().collect();
                say(nodes.is_empty(), "a partition has no replicas")?;
                say(nodes.len() != partition.replicas.len(), "a broker holds a partition twice")?;
                let unknown = partition.holders().any(|replica| image.broker(replica.node).is_none());
                say(unknown, "a replica has no broker")?;
            }
            let born = !self.ids_alive.contains(&topic.id);
            let known = self.names_by_id.insert(topic.id, topic.name.clone());
            say(known.is_some() && (born || known != Some(topic.name.clone())), "an id came back")?;
        }
        self.ids_alive = image.topics().map(|topic| topic.id).collect();
        let overrides = image.broker_configs.iter();
        let orphan =
            |scope: &BrokerScope| matches!(scope, BrokerScope::Broker(node) if image.broker(*node).is_none());
        say(
            overrides.clone().any(|(scope, keys)| keys.is_empty() || orphan(scope)),
            "a broker left settings behind",
        )?;
        say(image.next_producer_id < self.next_producer_id, "producer ids went back")?;
        self.next_producer_id = image.next_producer_id;
        self.follow(&Changes::between(before, image), image)?;
        let again = Image::from_records(&image.to_records())
            .map_err(|error| format!("the snapshot fails: {error}"))?;
        say(again != *image, "the snapshot makes another image")
    }

    fn follow(&mut self, changes: &Changes, image: &Image) -> Result<(), String> {
        for topic in &changes.topics_deleted {
            self.followed.remove(&topic.id);
        }
        for topic in &changes.topics_created {
            self.followed.insert(topic.id, topic.partitions.len());
        }
        for place in &changes.partitions_added {
            *self.followed.entry(place.topic_id).or_default() += 1;
        }
        let there: BTreeMap<_, _> = image.topics().map(|topic| (topic.id, topic.partitions.len())).collect();
        if self.followed == there { Ok(()) } else { Err("the changes lead elsewhere".to_owned()) }
    }
}

/// Whether the image is what the record says, for records that say what topics are.
fn holds(before: &Image, after: &Image, record: &Record) -> bool {
    match record {
        Record::TopicCreated { name, topic_id, partitions, configs } => {
            let made = Topic {
                name: name.clone(),
                id: *topic_id,
                partitions: partitions.clone(),
                configs: configs.clone(),
            };
            after.topic_by_id(*topic_id).is_some_and(|topic| **topic == made)
        }
        Record::PartitionsAdded { topic_id, first_index: PartitionIndex(first), partitions } => {
            let old = before.topic_by_id(*topic_id).map(|topic| topic.partitions.clone()).unwrap_or_default();
            old.len() == *first as usize
                && after
                    .topic_by_id(*topic_id)
                    .is_some_and(|topic| topic.partitions == [&old[..], partitions].concat())
        }
        _ => true,
    }
}

type Apply = fn(&mut Image, &Record) -> Result<(), ApplyError>;

pub(crate) fn counting_ids() -> impl FnMut() -> TopicId {
    let mut next = 1u128;
    move || {
        next += 1;
        TopicId(next.to_be_bytes())
    }
}

/// Plays a history. `apply` and `ids` are arguments so that a bug can be planted in them.
fn play(history: &[Request], apply: Apply, ids: &mut dyn FnMut() -> TopicId) -> Result<Image, String> {
    let mut image = Image::default();
    let mut judge = Judge::default();
    for request in history {
        let before = image.clone();
        for record in plan(&before, request, ids) {
            let read = Record::decode(&record.encode()).map_err(|error| error.to_string())?;
            if read != record {
                return Err(format!("{record:?} was read as {read:?}"));
            }
            let untouched = image.clone();
            apply(&mut image, &read).map_err(|error| format!("{request:?}: {error}"))?;
            if !holds(&untouched, &image, &read) {
                return Err(format!("the image is not what the record says: {read:?}"));
            }
        }
        judge.look(&before, &image).map_err(|fault| format!("{request:?}: {fault}"))?;
    }
    Ok(image)
}

/// Plays many random histories; the fault of the smallest that shows one.
fn play_many(cases: u32, apply: Apply, ids: impl Fn() -> Box<dyn FnMut() -> TopicId>) -> Result<(), String> {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&requests(), |history| {
        let first = play(&history, apply, &mut ids()).map_err(TestCaseError::fail)?;
        let second = play(&history, apply, &mut ids()).map_err(TestCaseError::fail)?;
        prop_assert_eq!(first, second);
        Ok(())
    });
    outcome.map_err(|error| match error {
        TestError::Fail(reason, history) => format!("{reason} after {history:?}"),
        TestError::Abort(reason) => reason.to_string(),
    })
}

#[test]
fn histories_keep_the_promises() {
    assert_eq!(play_many(1_000, Image::apply, || Box::new(counting_ids())), Ok(()));
}

#[test]
fn planted_bugs_are_noticed() {
    let forgets_the_id: Apply = |image, record| match record {
        Record::TopicDeleted { topic_id } => {
            if let Some(name) = image.topic_names.get(topic_id).cloned() {
                Arc::make_mut(&mut image.topics).remove(&name);
            }
            Ok(())
        }
        other => image.apply(other),
    };
    let drops_settings_of_new_topics: Apply = |image, record| match record {
        Record::TopicCreated { name, topic_id, partitions, configs: _ } => {
            let configs = crate::configs::Overrides::new();
            let (name, topic_id, partitions) = (name.clone(), *topic_id, partitions.clone());
            image.apply(&Record::TopicCreated { name, topic_id, partitions, configs })
        }
        other => image.apply(other),
    };
    let adds_partitions_in_front: Apply = |image, record| match record {
        Record::PartitionsAdded { topic_id, partitions, .. } => {
            let name = image.topic_names[topic_id].clone();
            let topic = Arc::make_mut(&mut image.topics).get_mut(&name).map(Arc::make_mut);
            topic.map(|topic: &mut Topic| topic.partitions.splice(0..0, partitions.iter().cloned()).count());
            Ok(())
        }
        other => image.apply(other),
    };
    let leaves_settings_of_a_lost_broker: Apply = |image, record| match record {
        Record::BrokerUnregistered { node } => {
            Arc::make_mut(&mut image.brokers).remove(node);
            Ok(())
        }
        other => image.apply(other),
    };
    let gives_producer_ids_twice: Apply = |image, record| match record {
        Record::ProducerIdsAllocated { next_producer_id: 2000, .. } => {
            image.next_producer_id = 0;
            Ok(())
        }
        other => image.apply(other),
    };
    for (bug, fault) in [
        (forgets_the_id, "names and ids are no bijection"),
        (drops_settings_of_new_topics, "the image is not what the record says"),
        (adds_partitions_in_front, "the image is not what the record says"),
        (leaves_settings_of_a_lost_broker, "a broker left settings behind"),
        (gives_producer_ids_twice, "producer ids went back"),
    ] {
        let noticed = play_many(4_000, bug, || Box::new(counting_ids())).expect_err(fault);
        assert!(noticed.contains(fault), "{noticed}");
    }
    // Ids that come round again: a topic made anew gets the id it had before.
    let circling_ids = || -> Box<dyn FnMut() -> TopicId> {
        let mut next = 0u128;
        Box::new(move || {
            next += 1;
            TopicId((next % 4 + 2).to_be_bytes())
        })
    };
    let noticed = play_many(4_000, Image::apply, circling_ids).expect_err("an id came back");
    assert!(noticed.contains("an id came back"), "{noticed}");
}
