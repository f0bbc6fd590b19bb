//! Layers of settings as Apache Kafka 4.3 describes them. The cases are answers of a real broker that ran with the
//! same settings.

use ouzel_metadata::configs::{ConfigEntry, describe_broker, describe_cluster_default, describe_topic};
use ouzel_metadata::{Layers, Overrides};

use crate::support::settings;

/// What the real broker was started with.
const STATIC: &[(&str, &str)] = &[
    ("log.retention.hours", "100"),
    ("log.segment.bytes", "2097152"),
    ("log.cleanup.policy", "compact"),
    ("log.roll.ms", "3600000"),
    ("log.retention.minutes", "7000"),
    ("log.roll.jitter.hours", "1"),
    ("num.partitions", "3"),
];

fn overrides(text: &str) -> Overrides {
    text.split_whitespace()
        .map(|pair| pair.split_once('=').expect("key=value"))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn show(entries: &[ConfigEntry], key: &str) -> String {
    let entry =
        entries.iter().find(|entry| entry.name == key).unwrap_or_else(|| panic!("{key} is not described"));
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
    let mut text = format!("{} {:?}", value(&entry.value), entry.source);
    for synonym in &entry.synonyms {
        text.push_str(&format!(" {}={}@{:?}", synonym.name, value(&synonym.value), synonym.source));
    }
    text
}

struct Case {
    topic: &'static str,
    this_broker: &'static str,
    all_brokers: &'static str,
    /// `topic KEY`, `broker KEY` or `cluster KEY`.
    show: &'static str,
    kafka: &'static str,
}

const NOTHING_ELSE: Case = Case { topic: "", this_broker: "", all_brokers: "", show: "", kafka: "" };

fn check(case: &Case) {
    let config = settings(STATIC);
    let (topic, this_broker, all_brokers) =
        (overrides(case.topic), overrides(case.this_broker), overrides(case.all_brokers));
    let layers = Layers {
        dynamic_broker: &this_broker,
        dynamic_default: &all_brokers,
        static_broker: config.settings(),
    };
    let entries = match case.show.split_once(' ').expect("resource and key") {
        ("topic", _) => describe_topic(&topic, &layers),
        ("broker", _) => describe_broker(&layers),
        _ => describe_cluster_default(&all_brokers),
    };
    let key = case.show.split_once(' ').expect("resource and key").1;
    assert_eq!(show(&entries, key), case.kafka, "{}", case.show);
}

#[test]
fn layers_are_described_as_kafka_does() {
    let cases = [
        Case {
            show: "topic cleanup.policy",
            kafka: "compact StaticBroker log.cleanup.policy=compact@StaticBroker log.cleanup.policy=delete@Default",
            ..NOTHING_ELSE
        },
        Case {
            topic: "cleanup.policy=delete,compact",
            show: "topic cleanup.policy",
            kafka: "delete,compact Topic cleanup.policy=delete,compact@Topic log.cleanup.policy=compact@StaticBroker \
                    log.cleanup.policy=delete@Default",
            ..NOTHING_ELSE
        },
        // Minutes win over hours; neither bears the name of the first synonym, so Kafka calls the value a default.
        Case { show: "topic retention.ms", kafka: "420000000 Default", ..NOTHING_ELSE },
        Case {
            topic: "retention.ms=77",
            show: "topic retention.ms",
            kafka: "77 Topic retention.ms=77@Topic",
            ..NOTHING_ELSE
        },
        Case { show: "topic segment.jitter.ms", kafka: "3600000 Default", ..NOTHING_ELSE },
        Case {
            show: "topic segment.ms",
            kafka: "3600000 StaticBroker log.roll.ms=3600000@StaticBroker log.roll.hours=168@Default",
            ..NOTHING_ELSE
        },
        Case {
            topic: "preallocate=true",
            show: "topic preallocate",
            kafka: "true Topic preallocate=true@Topic log.preallocate=false@Default",
            ..NOTHING_ELSE
        },
        Case {
            topic: "min.cleanable.dirty.ratio=.25",
            show: "topic min.cleanable.dirty.ratio",
            kafka: "0.25 Topic min.cleanable.dirty.ratio=0.25@Topic log.cleaner.min.cleanable.ratio=0.5@Default",
            ..NOTHING_ELSE
        },
        Case {
            topic: "max.message.bytes=+10",
            show: "topic max.message.bytes",
            kafka: "10 Topic max.message.bytes=10@Topic message.max.bytes=1048588@Default",
            ..NOTHING_ELSE
        },
        Case { show: "topic flush.ms", kafka: "9223372036854775807 Default", ..NOTHING_ELSE },
        Case { show: "topic leader.replication.throttled.replicas", kafka: " Default", ..NOTHING_ELSE },
        Case {
            topic: "retention.ms=77",
            this_broker: "log.retention.ms=1000",
            show: "topic retention.ms",
            kafka: "77 Topic retention.ms=77@Topic log.retention.ms=1000@DynamicBroker \
                    log.retention.minutes=7000@StaticBroker log.retention.hours=100@StaticBroker \
                    log.retention.hours=168@Default",
            ..NOTHING_ELSE
        },
        Case {
            this_broker: "log.retention.ms=1000",
            all_brokers: "log.retention.ms=2000",
            show: "topic retention.ms",
            kafka: "1000 DynamicBroker log.retention.ms=1000@DynamicBroker log.retention.ms=2000@DynamicDefaultBroker \
                    log.retention.minutes=7000@StaticBroker log.retention.hours=100@StaticBroker \
                    log.retention.hours=168@Default",
            ..NOTHING_ELSE
        },
        Case {
            this_broker: "log.retention.ms=1000",
            all_brokers: "log.retention.ms=2000",
            show: "broker log.retention.ms",
            kafka: "1000 DynamicBroker log.retention.ms=1000@DynamicBroker log.retention.ms=2000@DynamicDefaultBroker \
                    log.retention.minutes=7000@StaticBroker log.retention.hours=100@StaticBroker \
                    log.retention.hours=168@Default",
            ..NOTHING_ELSE
        },
        Case {
            all_brokers: "log.retention.ms=2000",
            show: "cluster log.retention.ms",
            kafka: "2000 DynamicDefaultBroker log.retention.ms=2000@DynamicDefaultBroker",
            ..NOTHING_ELSE
        },
        Case {
            all_brokers: "log.cleanup.policy=delete,compact",
            show: "cluster log.cleanup.policy",
            kafka: "delete,compact DynamicDefaultBroker log.cleanup.policy=delete,compact@DynamicDefaultBroker",
            ..NOTHING_ELSE
        },
        Case {
            show: "broker log.retention.hours",
            kafka: "100 StaticBroker log.retention.hours=100@StaticBroker log.retention.hours=168@Default",
            ..NOTHING_ELSE
        },
        Case {
            show: "broker log.retention.minutes",
            kafka: "7000 StaticBroker log.retention.minutes=7000@StaticBroker log.retention.hours=100@StaticBroker \
                    log.retention.hours=168@Default",
            ..NOTHING_ELSE
        },
        Case { show: "broker log.retention.ms", kafka: "null Default", ..NOTHING_ELSE },
        Case {
            show: "broker log.roll.ms",
            kafka: "3600000 StaticBroker log.roll.ms=3600000@StaticBroker log.roll.hours=168@Default",
            ..NOTHING_ELSE
        },
        Case {
            show: "broker num.partitions",
            kafka: "3 StaticBroker num.partitions=3@StaticBroker num.partitions=1@Default",
            ..NOTHING_ELSE
        },
    ];
    cases.iter().for_each(check);
}

#[test]
fn typed_settings_follow_the_same_layers() {
    use ouzel_metadata::TopicConfig;
    use ouzel_metadata::configs::{CleanupPolicy, Durability, TimestampType};
    let config = settings(STATIC);
    let all_brokers = overrides("log.ouzel.durability=os message.max.bytes=2000");
    let this_broker = overrides("log.message.timestamp.type=LogAppendTime message.max.bytes=3000");
    let layers = Layers {
        dynamic_broker: &this_broker,
        dynamic_default: &all_brokers,
        static_broker: config.settings(),
    };
    let plain = TopicConfig::resolve(&Overrides::new(), &layers);
    assert_eq!(plain.cleanup_policy, CleanupPolicy { delete: false, compact: true });
    assert_eq!(plain.retention_ms, Some(420_000_000));
    assert_eq!(plain.retention_bytes, None);
    assert_eq!(plain.segment_bytes, 2_097_152);
    assert_eq!(plain.segment_ms, 3_600_000);
    assert_eq!(plain.segment_jitter_ms, 3_600_000);
    assert_eq!(plain.flush_ms, None);
    assert_eq!(plain.durability, Durability::Os);
    assert_eq!(plain.message_timestamp_type, TimestampType::LogAppendTime);
    assert_eq!(plain.max_message_bytes, 3000);
    let own =
        overrides("retention.ms=-1 retention.bytes=5 flush.ms=0 ouzel.durability=durable cleanup.policy=");
    let own = TopicConfig::resolve(&own, &layers);
    assert_eq!(own.retention_ms, None);
    assert_eq!(own.retention_bytes, Some(5));
    assert_eq!(own.flush_ms, Some(0));
    assert_eq!(own.durability, Durability::Durable);
    assert_eq!(own.cleanup_policy, CleanupPolicy { delete: false, compact: false });
    // A value an older release let pass must not stop a broker that is stricter.
    let broken = TopicConfig::resolve(&overrides("segment.bytes=14 retention.ms=soon"), &layers);
    assert_eq!((broken.segment_bytes, broken.retention_ms), (1_073_741_824, Some(604_800_000)));
}
