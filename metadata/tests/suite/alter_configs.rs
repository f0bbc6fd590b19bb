//! Changing settings. The expected words and values are Apache Kafka 4.3's, asked the same in the same order.

use ouzel_metadata::plan::{
    AlterOp, ConfigAlteration, KeyAlteration, NewTopic, ResourceName, plan_alter_configs, plan_create_topics,
};
use ouzel_metadata::{BrokerScope, Image, Layers, StaticConfig};
use ouzel_model::NodeId;

use crate::support::{apply, cluster, counting_ids};

fn cluster_with_topic() -> Image {
    let mut image = cluster(1);
    let config = StaticConfig::default();
    let wanted = [NewTopic::with_defaults("t")];
    let planned = plan_create_topics(&image, &Layers::of_static(&config), &wanted, &mut counting_ids());
    apply(&mut image, &[planned[0].clone().expect("a good topic").record]);
    image
}

fn resource(text: &str) -> ResourceName {
    match text.split_once(':').expect("kind:name") {
        ("topic", name) => ResourceName::Topic(name.to_owned()),
        (_, name) => ResourceName::Broker(name.to_owned()),
    }
}

/// `set KEY VALUE`, `append KEY VALUE`, `subtract KEY VALUE`, `delete KEY`, `null KEY`; several with `; ` between.
fn keys(text: &str) -> Vec<KeyAlteration> {
    let one = |text: &str| {
        let mut words = text.splitn(3, ' ');
        let (verb, key, value) =
            (words.next().expect("verb"), words.next().expect("key"), words.next().unwrap_or(""));
        let (op, value) = match verb {
            "set" => (AlterOp::Set, Some(value)),
            "append" => (AlterOp::Append, Some(value)),
            "subtract" => (AlterOp::Subtract, Some(value)),
            "null" => (AlterOp::Set, None),
            "delete" => (AlterOp::Delete, None),
            other => panic!("{other}"),
        };
        KeyAlteration { key: key.to_owned(), op, value: value.map(str::to_owned) }
    };
    text.split("; ").map(one).collect()
}

fn alter(image: &mut Image, name: &str, ops: &str) -> Result<(), String> {
    let config = StaticConfig::default();
    let alteration = ConfigAlteration { resource: resource(name), keys: keys(ops) };
    let before = image.clone();
    let answers = plan_alter_configs(&before, &Layers::of_static(&config), &[alteration]);
    match &answers[0] {
        Ok(records) => {
            apply(image, records);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn lists_grow_and_shrink() {
    let mut image = cluster_with_topic();
    // What is done, and what cleanup.policy is then; "-" for not set.
    for (ops, after) in [
        ("append cleanup.policy compact", "delete,compact"),
        ("append cleanup.policy compact", "delete,compact"),
        ("subtract cleanup.policy delete", "compact"),
        ("subtract cleanup.policy compact", ""),
        ("set cleanup.policy ", ""),
        ("set cleanup.policy delete,delete", "delete"),
        ("set cleanup.policy  compact , delete ", "compact,delete"),
        ("delete cleanup.policy", "-"),
        ("subtract cleanup.policy delete", ""),
    ] {
        alter(&mut image, "topic:t", ops).unwrap_or_else(|error| panic!("{ops}: {error}"));
        let set = image.topic("t").expect("there").configs.get("cleanup.policy").cloned();
        assert_eq!(set.as_deref().unwrap_or("-"), after, "{ops}");
    }
}

#[test]
fn values_are_kept_as_they_are_shown() {
    let mut image = cluster_with_topic();
    for (ops, key, after) in [
        ("set retention.ms  77 ", "retention.ms", "77"),
        ("set preallocate TRUE", "preallocate", "true"),
        ("set min.cleanable.dirty.ratio .25", "min.cleanable.dirty.ratio", "0.25"),
        ("set max.message.bytes +10", "max.message.bytes", "10"),
        ("set retention.bytes -2", "retention.bytes", "-2"),
        ("set local.retention.ms 999999999", "local.retention.ms", "999999999"),
        (
            "set leader.replication.throttled.replicas 0:1,1:1",
            "leader.replication.throttled.replicas",
            "0:1,1:1",
        ),
        ("set leader.replication.throttled.replicas *", "leader.replication.throttled.replicas", "*"),
        ("set ouzel.durability os", "ouzel.durability", "os"),
    ] {
        alter(&mut image, "topic:t", ops).unwrap_or_else(|error| panic!("{ops}: {error}"));
        assert_eq!(
            image.topic("t").expect("there").configs.get(key).map(String::as_str),
            Some(after),
            "{ops}"
        );
    }
}

#[test]
fn refusals_are_kafkas() {
    let mut image = cluster_with_topic();
    let before = image.clone();
    for (name, ops, kafka) in [
        (
            "topic:t",
            "append cleanup.policy bogus",
            "Invalid value delete,bogus for configuration cleanup.policy: String must be one of: compact, delete",
        ),
        (
            "topic:t",
            "append retention.ms 5",
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            "topic:t",
            "subtract retention.ms 5",
            "Can't SUBTRACT to key retention.ms because its type is not LIST.",
        ),
        ("topic:t", "null retention.ms", "Null value not supported for : retention.ms"),
        ("topic:t", "set nope 1", "Unknown topic config name: nope"),
        ("topic:t", "set retention.ms 1; set retention.ms 2", "Error due to duplicate config keys"),
        (
            "topic:t",
            "set retention.ms 5; set segment.ms x",
            "Invalid value x for configuration segment.ms: Not a number of type LONG",
        ),
        (
            "topic:t",
            "set retention.ms ",
            "Invalid value  for configuration retention.ms: Not a number of type LONG",
        ),
        ("topic:zz", "set retention.ms 1", "The topic 'zz' does not exist."),
        (
            "topic:t",
            "set preallocate yes",
            "Invalid value yes for configuration preallocate: Expected value to be either true or false",
        ),
        (
            "topic:t",
            "set compression.type ZSTD",
            "Invalid value ZSTD for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        (
            "topic:t",
            "set min.cleanable.dirty.ratio 1.5",
            "Invalid value 1.5 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
        ),
        (
            "topic:t",
            "set max.message.bytes 9999999999",
            "Invalid value 9999999999 for configuration max.message.bytes: Not a number of type INT",
        ),
        (
            "topic:t",
            "set max.message.bytes -1",
            "Invalid value -1 for configuration max.message.bytes: Value must be at least 0",
        ),
        (
            "topic:t",
            "set max.message.bytes 0x10",
            "Invalid value 0x10 for configuration max.message.bytes: Not a number of type INT",
        ),
        (
            "topic:t",
            "set min.insync.replicas 0",
            "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1",
        ),
        (
            "topic:t",
            "set retention.ms -2",
            "Invalid value -2 for configuration retention.ms: Value must be at least -1",
        ),
        (
            "topic:t",
            "set message.timestamp.type logappendtime",
            "Invalid value logappendtime for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime",
        ),
        (
            "topic:t",
            "set compression.zstd.level 23",
            "Invalid value 23 for configuration compression.zstd.level: Value must be no more than 22",
        ),
        (
            "topic:t",
            "set compression.zstd.level -131073",
            "Invalid value -131073 for configuration compression.zstd.level: Value must be at least -131072",
        ),
        (
            "topic:t",
            "set compression.gzip.level 0",
            "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
        ),
        (
            "topic:t",
            "set compression.lz4.level 18",
            "Invalid value 18 for configuration compression.lz4.level: Value must be no more than 17",
        ),
        (
            "topic:t",
            "set segment.ms 0",
            "Invalid value 0 for configuration segment.ms: Value must be at least 1",
        ),
        (
            "topic:t",
            "set segment.index.bytes 3",
            "Invalid value 3 for configuration segment.index.bytes: Value must be at least 4",
        ),
        (
            "topic:t",
            "set local.retention.ms -3",
            "Invalid value -3 for configuration local.retention.ms: Value must be at least -2",
        ),
        (
            "topic:t",
            "set flush.messages 0",
            "Invalid value 0 for configuration flush.messages: Value must be at least 1",
        ),
        (
            "topic:t",
            "set max.compaction.lag.ms 0",
            "Invalid value 0 for configuration max.compaction.lag.ms: Value must be at least 1",
        ),
        (
            "topic:t",
            "set min.compaction.lag.ms 100; set max.compaction.lag.ms 50",
            "conflict topic config setting min.compaction.lag.ms (100) > max.compaction.lag.ms (50)",
        ),
        ("broker:1", "set num.partitions 3", "Cannot update these configs dynamically: [num.partitions]"),
        ("broker:1", "delete num.partitions", "Cannot update these configs dynamically: [num.partitions]"),
        (
            "broker:",
            "set cordoned.log.dirs a",
            "Cannot update these configs at default cluster level, broker id must be specified: [cordoned.log.dirs]",
        ),
        (
            "broker:",
            "set log.retention.ms x",
            "Invalid value x for configuration log.retention.ms: Not a number of type LONG",
        ),
        (
            "broker:",
            "set log.segment.bytes 5",
            "Invalid value 5 for configuration log.segment.bytes: Value must be at least 1048576",
        ),
        // Below, Kafka behaves otherwise: it keeps unknown broker keys, and lets listeners change.
        ("broker:1", "set nope.nope 3", "Unknown broker config name: nope.nope"),
        ("broker:1", "set retention.ms 5", "Unknown broker config name: retention.ms"),
        ("broker:1", "set listeners PLAINTEXT://:1", "Cannot update these configs dynamically: [listeners]"),
        ("broker:9", "set log.retention.ms 5", "No broker has the node id '9'."),
        ("broker:abc", "set log.retention.ms 5", "No broker has the node id 'abc'."),
    ] {
        assert_eq!(alter(&mut image, name, ops), Err(kafka.to_owned()), "{name} {ops}");
        assert_eq!(image, before, "{name} {ops}: a refused resource changed");
    }
}

#[test]
fn brokers_have_settings_of_their_own_and_in_common() {
    let mut image = cluster_with_topic();
    for (name, ops) in [
        ("broker:1", "set log.retention.ms 1000"),
        ("broker:", "set log.retention.ms 2000; append log.cleanup.policy compact"),
        ("broker:1", "delete log.retention.ms; delete never.heard.of"),
    ] {
        alter(&mut image, name, ops).unwrap_or_else(|error| panic!("{name} {ops}: {error}"));
    }
    assert!(image.broker_overrides(BrokerScope::Broker(NodeId(1))).is_empty());
    let common: Vec<_> = image.broker_overrides(BrokerScope::ClusterDefault).iter().collect();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let expected = [pair("log.cleanup.policy", "delete,compact"), pair("log.retention.ms", "2000")];
    assert_eq!(common, expected.iter().map(|(key, value)| (key, value)).collect::<Vec<_>>());
}

#[test]
fn one_refusal_does_not_hold_up_the_others() {
    let image = cluster_with_topic();
    let config = StaticConfig::default();
    let alteration = |name: &str, ops: &str| ConfigAlteration { resource: resource(name), keys: keys(ops) };
    let answers = plan_alter_configs(
        &image,
        &Layers::of_static(&config),
        &[
            alteration("topic:t", "set retention.ms 5; delete segment.ms"),
            alteration("topic:zz", "set retention.ms 5"),
            alteration("broker:1", "set log.retention.ms 5"),
            alteration("broker:1", "set log.segment.bytes 5"),
        ],
    );
    let outcome: Vec<_> =
        answers.iter().map(|answer| answer.as_ref().map(Vec::len).map_err(ToString::to_string)).collect();
    let twice = "Each resource must appear at most once.".to_owned();
    assert_eq!(
        outcome,
        [Ok(1), Err("The topic 'zz' does not exist.".to_owned()), Err(twice.clone()), Err(twice)]
    );
}
