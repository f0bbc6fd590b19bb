//! Our tables beside what Apache Kafka 4.3 says of the same keys.

use ouzel_metadata::configs::{
    BROKER_CONFIGS, ConfigDef, ConfigEntry, ConfigSource, Effect, Mutability, Rule, TOPIC_CONFIGS,
    describe_broker, describe_topic,
};
use ouzel_metadata::{Layers, Overrides, StaticConfig};

/// One line of a facts file.
struct Fact<'a> {
    key: &'a str,
    kind: &'a str,
    mutability: &'a str,
    default: Option<&'a str>,
    rule: &'a str,
    synonyms: Vec<&'a str>,
}

fn facts(text: &'static str) -> Vec<Fact<'static>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let columns: Vec<&str> = line.split(" | ").collect();
            let [key, kind, mutability, default, rule, synonyms] = columns[..] else { panic!("{line}") };
            Fact {
                key,
                kind,
                mutability,
                default: default
                    .strip_prefix('\'')
                    .map(|quoted| quoted.strip_suffix('\'').expect("a quote ends")),
                rule,
                synonyms: if synonyms == "none" { Vec::new() } else { synonyms.split(',').collect() },
            }
        })
        .collect()
}

fn kafka_topic_keys() -> Vec<Fact<'static>> {
    facts(include_str!("../../testdata/kafka-4.3-topic-configs.txt"))
}

fn kafka_broker_keys() -> Vec<Fact<'static>> {
    facts(include_str!("../../testdata/kafka-4.3-broker-configs.txt"))
}

/// A rule as the facts write Kafka's.
fn rule_text(rule: Rule) -> String {
    match rule {
        Rule::Any => "any".to_owned(),
        Rule::AtLeast(least) => format!("{least}.."),
        Rule::Between(least, most) => format!("{least}..{most}"),
        Rule::BetweenOr(least, most, other) => format!("{least}..{most} or {other}"),
        Rule::Fraction(least, most) => format!("{least}..{most}"),
        Rule::OneOf(allowed) | Rule::EachOf(allowed) => allowed.join(","),
        Rule::ThrottledReplicas => "partitionId:brokerId,...".to_owned(),
        Rule::Only(only) => format!("only {only}"),
    }
}

/// Where a key differs from Kafka's on purpose: the key, what differs, ours.
const DEVIATIONS: &[(&str, &str, &str)] = &[
    // What Kafka checks outside its validators, when it starts.
    ("log.retention.hours", "rule", "1..9223372036854775807 or -1"),
    ("log.retention.minutes", "rule", "1..9223372036854775807 or -1"),
    ("log.retention.ms", "rule", "1..9223372036854775807 or -1"),
    ("log.roll.ms", "rule", "1.."),
    ("log.roll.jitter.ms", "rule", "0.."),
    ("default.replication.factor", "rule", "1..32767"),
    // Kafka takes these negative, and then misbehaves.
    ("log.flush.interval.ms", "rule", "0.."),
    ("log.flush.scheduler.interval.ms", "rule", "0.."),
    ("group.initial.rebalance.delay.ms", "rule", "0.."),
    ("group.min.session.timeout.ms", "rule", "0.."),
    ("group.max.session.timeout.ms", "rule", "1.."),
    ("offset.metadata.max.bytes", "rule", "0.."),
    // A topic's own segment.bytes could not be that small.
    ("offsets.topic.segment.bytes", "rule", "1048576.."),
    // Kafka's codes: none, gzip, snappy, lz4, zstd.
    ("offsets.topic.compression.codec", "rule", "0..4"),
    ("group.consumer.migration.policy", "rule", "disabled,downgrade,upgrade,bidirectional"),
    // There is no tiered storage; Kafka refuses the topic's key as well while the broker's is false.
    ("remote.storage.enable", "rule", "only false"),
    ("remote.log.storage.system.enable", "rule", "only false"),
    // Flags decide these, at start.
    ("listeners", "mutability", "read-only"),
    ("listener.security.protocol.map", "mutability", "read-only"),
    ("listener.security.protocol.map", "default", "PLAINTEXT:PLAINTEXT"),
    ("log.dir", "default", "null"),
    ("log.dir", "synonyms", ""),
];

/// Keys of ours that Kafka 4.3 does not list.
const OWN: &[&str] = &[
    "log.ouzel.durability",
    "ouzel.disk.backend",
    "ouzel.durability",
    "ouzel.log.format",
    // Kafka takes these dynamically, though it does not list them.
    "follower.replication.throttled.rate",
    "leader.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

/// Beginnings of Kafka's keys that we do not know: what they set up does not exist here, or is set up otherwise.
const UNKNOWN_HERE: &[&str] = &[
    // TLS, SASL, tokens, authorisation, quotas: not in this release.
    "ssl.",
    "sasl.",
    "security.",
    "delegation.token.",
    "authorizer.",
    "principal.",
    "client.quota.",
    "quota.",
    "alter.log.dirs.replication.quota.",
    "replication.quota.",
    "connections.max.reauth.ms",
    "connection.failed.authentication.delay.ms",
    "config.providers",
    "early.start.listeners",
    "inter.broker.",
    // New groups, transactions' inner workings, telemetry.
    "share.",
    "group.share.",
    "group.streams.",
    "group.consumer.m",
    "group.coordinator.",
    "transaction.two.phase.",
    "add.partitions.to.txn.",
    "telemetry.",
    // KRaft's own log and its peers.
    "controller.",
    "metadata.",
    "broker.heartbeat.",
    "broker.session.",
    "initial.broker.",
    "server.max.startup.",
    // Java classes, and parts that have no counterpart.
    "alter.config.policy.",
    "create.topic.policy.",
    "kafka.metrics.",
    "metrics.",
    "remote.log.",
    "follower.fetch.",
    "fetch.purgatory.",
    "producer.purgatory.",
    "delete.records.purgatory.",
    "request.timeout.ms",
    "socket.connection.setup.",
    "replica.fetch.backoff.ms",
    "replica.fetch.min.bytes",
    "replica.high.watermark.",
    "replica.socket.",
    "log.dir.failure.",
    "log.flush.offset.checkpoint.",
    "log.flush.start.offset.checkpoint.",
    "max.request.partition.size.limit",
];

fn compare(facts: &[Fact<'_>], table: &[ConfigDef], described: &[ConfigEntry]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |key: &str, what: &str, kafka: String, ours: String| {
        let deviation = DEVIATIONS.iter().find(|(k, w, _)| *k == key && *w == what);
        match deviation {
            None if kafka != ours => faults.push(format!("{key}: {what} is {ours}, Kafka's {kafka}")),
            Some((_, _, stated)) if *stated != ours => {
                faults.push(format!("{key}: {what} is {ours}, stated as {stated}"));
            }
            Some(_) if kafka == ours => faults.push(format!("{key}: {what} does not deviate any more")),
            _ => {}
        }
    };
    for fact in facts {
        let Some(def) = table.iter().find(|def| def.name == fact.key) else { continue };
        let entry = described.iter().find(|entry| entry.name == fact.key).expect("every key is described");
        check(fact.key, "type", fact.kind.to_owned(), def.kind.name().to_lowercase());
        let mutability = if def.mutability == Mutability::ReadOnly { "read-only" } else { "dynamic" };
        check(fact.key, "mutability", fact.mutability.to_owned(), mutability.to_owned());
        let shown = |value: Option<&str>| value.unwrap_or("null").to_owned();
        check(fact.key, "default", shown(fact.default), shown(entry.value.as_deref()));
        check(fact.key, "rule", fact.rule.to_owned(), rule_text(def.rule));
        let synonyms: Vec<&str> = entry.synonyms.iter().map(|synonym| synonym.name).collect();
        check(fact.key, "synonyms", fact.synonyms.join(","), synonyms.join(","));
        assert_eq!(entry.source, ConfigSource::Default, "{}", fact.key);
        assert_eq!(entry.read_only, mutability == "read-only", "{}", fact.key);
    }
    faults
}

#[test]
fn topic_keys_are_kafkas() {
    let facts = kafka_topic_keys();
    let config = StaticConfig::default();
    let described = describe_topic(&Overrides::new(), &Layers::of_static(&config));
    assert_eq!(compare(&facts, TOPIC_CONFIGS, &described), Vec::<String>::new());
    for fact in &facts {
        assert!(described.iter().any(|entry| entry.name == fact.key), "{} is missing", fact.key);
    }
}

#[test]
fn broker_keys_are_kafkas() {
    let facts = kafka_broker_keys();
    let config = StaticConfig::default();
    let described = describe_broker(&Layers::of_static(&config));
    assert_eq!(compare(&facts, BROKER_CONFIGS, &described), Vec::<String>::new());
    let missing = facts.iter().filter(|fact| !described.iter().any(|entry| entry.name == fact.key));
    let unexplained: Vec<&str> = missing
        .map(|fact| fact.key)
        .filter(|key| !UNKNOWN_HERE.iter().any(|beginning| key.starts_with(beginning)))
        .collect();
    assert_eq!(unexplained, Vec::<&str>::new());
}

/// The comparison itself is worth something only if it sees a difference of each kind.
#[test]
fn a_table_that_differs_is_noticed() {
    let facts = kafka_topic_keys();
    let config = StaticConfig::default();
    let described = describe_topic(&Overrides::new(), &Layers::of_static(&config));
    let retention = TOPIC_CONFIGS.iter().position(|def| def.name == "retention.ms").expect("a known key");
    let mut planted = TOPIC_CONFIGS.to_vec();
    planted[retention].rule = Rule::AtLeast(0);
    planted[retention].mutability = Mutability::ReadOnly;
    let mut misdescribed = described.clone();
    misdescribed[retention].value = Some("604800001".to_owned());
    misdescribed[retention].read_only = true;
    let faults = compare(&facts, &planted, &misdescribed);
    assert_eq!(
        faults,
        [
            "retention.ms: mutability is read-only, Kafka's dynamic",
            "retention.ms: default is 604800001, Kafka's 604800000",
            "retention.ms: rule is 0.., Kafka's -1..",
        ]
    );
}

#[test]
fn no_key_is_ours_by_accident() {
    let (topic, broker) = (kafka_topic_keys(), kafka_broker_keys());
    for (table, facts) in [(TOPIC_CONFIGS, &topic), (BROKER_CONFIGS, &broker)] {
        for def in table {
            let kafkas = facts.iter().any(|fact| fact.key == def.name);
            assert_ne!(kafkas, OWN.contains(&def.name), "{}", def.name);
        }
    }
}

#[test]
fn tables_are_sound() {
    for table in [TOPIC_CONFIGS, BROKER_CONFIGS] {
        for pair in table.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} stands before {}", pair[0].name, pair[1].name);
        }
        for def in table {
            let read = def.default.map(|text| def.parse(text).map(|value| value.to_string()));
            assert_eq!(read, def.default.map(|text| Ok(text.to_owned())), "{}", def.name);
            for synonym in def.synonyms {
                let target = BROKER_CONFIGS.iter().find(|other| other.name == synonym.key);
                assert!(
                    target.is_some(),
                    "{} falls back on {}, which is no broker key",
                    def.name,
                    synonym.key
                );
            }
            assert!(def.doc.ends_with('.') && !def.doc.contains("  "), "{}: {}", def.name, def.doc);
            if let Effect::Nothing(why) = def.effect {
                assert!(!why.ends_with('.') && !why.is_empty(), "{}: {why}", def.name);
            }
        }
    }
    for def in TOPIC_CONFIGS {
        assert!(def.default.is_some(), "{}", def.name);
        let Some(first) = def.synonyms.first() else { continue };
        let broker = BROKER_CONFIGS.iter().find(|other| other.name == first.key).expect("checked above");
        // A value of the broker key must be a value of the topic key, or a topic would inherit what it refuses.
        assert_eq!(broker.kind, def.kind, "{}", def.name);
        if broker.default.is_some() {
            assert_eq!(broker.default, def.default, "{}", def.name);
            assert_eq!(broker.rule, def.rule, "{}", def.name);
        }
        assert_eq!(
            matches!(broker.effect, Effect::Works),
            matches!(def.effect, Effect::Works),
            "{}",
            def.name
        );
    }
}
