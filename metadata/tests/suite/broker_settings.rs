//! What a broker is started with: `--set` and the file.

use std::path::PathBuf;

use ouzel_metadata::configs::broker::{DiskBackendChoice, Identity, LogFormat};
use ouzel_metadata::configs::{ConfigSource, Durability, describe_broker};
use ouzel_metadata::{BrokerConfig, Layers, Overrides, StaticConfig, TopicConfig};
use ouzel_model::NodeId;

use crate::support::settings;

#[test]
fn bad_settings_end_with_one_sentence() {
    for (key, value, sentence) in [
        ("num.partition", "3", "there is no setting 'num.partition'; did you mean 'num.partitions'?"),
        (
            "auto.create.topic.enable",
            "true",
            "there is no setting 'auto.create.topic.enable'; did you mean 'auto.create.topics.enable'?",
        ),
        ("zzz", "3", "there is no setting 'zzz'"),
        ("num.partitions", "many", "setting 'num.partitions' cannot be 'many': not a number of type INT"),
        ("num.partitions", "0", "setting 'num.partitions' cannot be '0': value must be at least 1"),
        (
            "log.ouzel.durability",
            "maybe",
            "setting 'log.ouzel.durability' cannot be 'maybe': string must be one of: durable, write-caching, os",
        ),
        (
            "log.retention.hours",
            "0",
            "setting 'log.retention.hours' cannot be '0': value must be between 1 and 9223372036854775807 or equal to -1",
        ),
        (
            "retention.ms",
            "5",
            "'retention.ms' is a setting of a topic; the default for all topics is 'log.retention.ms'",
        ),
        (
            "ouzel.durability",
            "os",
            "'ouzel.durability' is a setting of a topic; the default for all topics is 'log.ouzel.durability'",
        ),
        (
            "remote.storage.enable",
            "true",
            "'remote.storage.enable' is a setting of a topic; set it on the topic",
        ),
        (
            "listeners",
            "PLAINTEXT://:1",
            "'listeners' is decided by the flag --kafka-listener; use that instead",
        ),
        ("log.dirs", "/data", "'log.dirs' is decided by the flag --data-dir; use that instead"),
        (
            "remote.log.storage.system.enable",
            "true",
            "setting 'remote.log.storage.system.enable' cannot be 'true': only 'false' is possible in this release",
        ),
        (
            "group.max.session.timeout.ms",
            "5000",
            "'group.min.session.timeout.ms' (6000) must not be above 'group.max.session.timeout.ms' (5000)",
        ),
    ] {
        let error = StaticConfig::from_settings([(key, value)]).expect_err(key);
        assert_eq!(error.to_string(), sentence);
    }
}

#[test]
fn defaults_are_kafkas() {
    let config = BrokerConfig::resolve(&Layers::of_static(&StaticConfig::default()));
    assert!(config.auto_create_topics && config.delete_topics);
    assert_eq!((config.num_partitions, config.default_replication_factor), (1, 1));
    assert_eq!(config.socket_request_max_bytes, 100 << 20);
    assert_eq!(config.connections_max_idle_ms, Some(600_000));
    assert_eq!((config.fetch_max_bytes, config.fetch_session_slots), (55 << 20, 1000));
    assert_eq!(config.groups.initial_rebalance_delay_ms, 3000);
    assert_eq!(
        (config.groups.min_session_timeout_ms, config.groups.max_session_timeout_ms),
        (6000, 1_800_000)
    );
    assert_eq!(config.offsets.retention_ms, 7 * 24 * 3_600_000);
    assert_eq!((config.offsets.topic_partitions, config.offsets.topic_replication_factor), (50, 3));
    assert_eq!((config.disk_backend, config.log_format), (DiskBackendChoice::Auto, LogFormat::Text));
    assert_eq!((config.rack, config.recovery_bytes_per_s), (None, None));
}

#[test]
fn a_later_setting_replaces_an_earlier_one() {
    let config = settings(&[
        ("num.partitions", "2"),
        (" num.partitions ", " 6 "),
        ("connections.max.idle.ms", "-1"),
        ("broker.rack", "r1"),
        ("ouzel.disk.backend", "blocking"),
        ("ouzel.log.format", "json"),
        ("log.ouzel.durability", "write-caching"),
        ("log.roll.hours", "2"),
        ("leader.replication.throttled.rate", "5000000"),
    ]);
    let layers = Layers::of_static(&config);
    let broker = BrokerConfig::resolve(&layers);
    assert_eq!(broker.num_partitions, 6);
    assert_eq!(broker.connections_max_idle_ms, None);
    assert_eq!(broker.recovery_bytes_per_s, Some(5_000_000));
    assert_eq!(broker.rack.as_deref(), Some("r1"));
    assert_eq!((broker.disk_backend, broker.log_format), (DiskBackendChoice::Blocking, LogFormat::Json));
    let topic = TopicConfig::resolve(&Overrides::new(), &layers);
    assert_eq!((topic.durability, topic.segment_ms), (Durability::WriteCaching, 7_200_000));
}

#[test]
fn settings_that_do_nothing_are_told() {
    let config = settings(&[("num.io.threads", "16"), ("num.partitions", "2")]);
    let told: Vec<_> = config.without_effect().collect();
    assert_eq!(told, [("num.io.threads", "each core runs one thread; --cores says how many")]);
}

#[test]
fn flags_are_described_as_settings() {
    let config = StaticConfig::default().with_identity(&Identity {
        node: NodeId(4),
        listeners: vec!["PLAINTEXT://127.0.0.1:9092".to_owned()],
        advertised_listeners: vec!["PLAINTEXT://localhost:9092".to_owned()],
        data_dir: PathBuf::from("/data"),
    });
    let entries = describe_broker(&Layers::of_static(&config));
    for (key, value) in [
        ("node.id", "4"),
        ("broker.id", "4"),
        ("listeners", "PLAINTEXT://127.0.0.1:9092"),
        ("advertised.listeners", "PLAINTEXT://localhost:9092"),
        ("log.dirs", "/data"),
        ("process.roles", "broker,controller"),
    ] {
        let entry = entries.iter().find(|entry| entry.name == key).expect("described");
        assert_eq!(entry.value.as_deref(), Some(value), "{key}");
        assert_eq!(entry.source, ConfigSource::StaticBroker, "{key}");
        assert!(entry.read_only, "{key}");
    }
    assert_eq!(config.without_effect().count(), 0);
    let documentation =
        |key: &str| entries.iter().find(|entry| entry.name == key).expect("described").documentation();
    assert_eq!(documentation("log.dirs"), "Where the data is. Decided by the flag --data-dir.");
    assert_eq!(documentation("delete.topic.enable"), "Whether topics can be deleted.");
    assert_eq!(
        documentation("num.io.threads"),
        "Threads that work on requests. It has no effect: each core runs one thread; --cores says how many."
    );
}
