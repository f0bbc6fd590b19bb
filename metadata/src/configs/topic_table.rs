//! The keys of a topic, in alphabetical order: Kafka 4.3's, and our own.

use super::definition::ConfigType::{Boolean, Double, Int, List, Long, String};
use super::definition::{ConfigDef, Rule, Synonym, Unit};

const NO_COMPACTION: &str = "compaction does not run yet, so a compacted topic keeps every record";
const NO_TIERS: &str = "there is no tiered storage";
const NO_RECOMPRESSION: &str = "batches are stored as their producer compressed them";
const NO_REPLICATION: &str = "partitions have a single replica in this release";

/// A topic key with the broker key that makes its default.
const fn key(
    name: &'static str,
    kind: super::ConfigType,
    default: &'static str,
    synonyms: &'static [Synonym],
    doc: &'static str,
) -> ConfigDef {
    ConfigDef::new(name, kind, default, doc).dynamic().synonyms(synonyms)
}

macro_rules! same {
    ($key:literal) => {
        &[Synonym::same($key)]
    };
}

/// Every key a topic takes.
pub static TOPIC_CONFIGS: &[ConfigDef] = &[
    key(
        "cleanup.policy",
        List,
        "delete",
        same!("log.cleanup.policy"),
        "How old records leave: 'delete' drops whole segments by age and size, 'compact' keeps the last record of each key. \
         Both may be given; with neither, records stay.",
    )
    .rule(Rule::EachOf(&["compact", "delete"])),
    key(
        "compression.gzip.level",
        Int,
        "-1",
        same!("compression.gzip.level"),
        "How hard gzip tries when the broker compresses: 1 (fast) to 9 (small), or -1 for the library's choice.",
    )
    .rule(Rule::BetweenOr(1, 9, -1))
    .without_effect(NO_RECOMPRESSION),
    key(
        "compression.lz4.level",
        Int,
        "9",
        same!("compression.lz4.level"),
        "How hard lz4 tries when the broker compresses: 1 (fast) to 17 (small).",
    )
    .rule(Rule::Between(1, 17))
    .without_effect(NO_RECOMPRESSION),
    key(
        "compression.type",
        String,
        "producer",
        same!("compression.type"),
        "The codec batches are stored with; 'producer' keeps whatever the producer chose.",
    )
    .rule(Rule::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]))
    .without_effect(NO_RECOMPRESSION),
    key(
        "compression.zstd.level",
        Int,
        "3",
        same!("compression.zstd.level"),
        "How hard zstd tries when the broker compresses: -131072 (fast) to 22 (small).",
    )
    .rule(Rule::Between(-131_072, 22))
    .without_effect(NO_RECOMPRESSION),
    key(
        "delete.retention.ms",
        Long,
        "86400000",
        same!("log.cleaner.delete.retention.ms"),
        "How long compaction keeps a record that deletes its key, so that slow readers still see the deletion.",
    )
    .at_least(0)
    .without_effect(NO_COMPACTION),
    key(
        "file.delete.delay.ms",
        Long,
        "60000",
        same!("log.segment.delete.delay.ms"),
        "How long a file stays on disk after its records are gone, for readers that still hold it.",
    )
    .at_least(0),
    key(
        "flush.messages",
        Long,
        "9223372036854775807",
        same!("log.flush.interval.messages"),
        "Flush after at most this many records. Only tightens what ouzel.durability promises.",
    )
    .at_least(1),
    key(
        "flush.ms",
        Long,
        "9223372036854775807",
        &[Synonym::same("log.flush.interval.ms"), Synonym::same("log.flush.scheduler.interval.ms")],
        "Flush after at most this time. Only tightens what ouzel.durability promises.",
    )
    .at_least(0),
    key(
        "follower.replication.throttled.replicas",
        List,
        "",
        &[],
        "Followers whose replication is throttled: 'partition:broker' pairs, or '*' for all.",
    )
    .rule(Rule::ThrottledReplicas)
    .without_effect(NO_REPLICATION),
    key(
        "index.interval.bytes",
        Int,
        "4096",
        same!("log.index.interval.bytes"),
        "How many bytes of batches share one entry of the offset index.",
    )
    .at_least(0),
    key(
        "leader.replication.throttled.replicas",
        List,
        "",
        &[],
        "Leaders whose replication is throttled: 'partition:broker' pairs, or '*' for all.",
    )
    .rule(Rule::ThrottledReplicas)
    .without_effect(NO_REPLICATION),
    key(
        "local.retention.bytes",
        Long,
        "-2",
        same!("log.local.retention.bytes"),
        "With tiered storage: size of the part kept locally; -2 means retention.bytes.",
    )
    .at_least(-2)
    .without_effect(NO_TIERS),
    key(
        "local.retention.ms",
        Long,
        "-2",
        same!("log.local.retention.ms"),
        "With tiered storage: age of the part kept locally; -2 means retention.ms.",
    )
    .at_least(-2)
    .without_effect(NO_TIERS),
    key(
        "max.compaction.lag.ms",
        Long,
        "9223372036854775807",
        same!("log.cleaner.max.compaction.lag.ms"),
        "Compact a record at the latest when it is this old.",
    )
    .at_least(1)
    .without_effect(NO_COMPACTION),
    key(
        "max.message.bytes",
        Int,
        "1048588",
        same!("message.max.bytes"),
        "Largest batch that is accepted, as it arrives, compressed or not.",
    )
    .at_least(0),
    key(
        "message.timestamp.after.max.ms",
        Long,
        "3600000",
        same!("log.message.timestamp.after.max.ms"),
        "How far ahead of the broker's clock a record's timestamp may be. Not asked with LogAppendTime.",
    )
    .at_least(0),
    key(
        "message.timestamp.before.max.ms",
        Long,
        "9223372036854775807",
        same!("log.message.timestamp.before.max.ms"),
        "How far behind the broker's clock a record's timestamp may be. Not asked with LogAppendTime.",
    )
    .at_least(0),
    key(
        "message.timestamp.type",
        String,
        "CreateTime",
        same!("log.message.timestamp.type"),
        "Whether a record's timestamp is its producer's (CreateTime) or the time of the append (LogAppendTime).",
    )
    .rule(Rule::OneOf(&["CreateTime", "LogAppendTime"])),
    key(
        "min.cleanable.dirty.ratio",
        Double,
        "0.5",
        same!("log.cleaner.min.cleanable.ratio"),
        "Compact once this share of the log has not been compacted yet.",
    )
    .rule(Rule::Fraction(0.0, 1.0))
    .without_effect(NO_COMPACTION),
    key(
        "min.compaction.lag.ms",
        Long,
        "0",
        same!("log.cleaner.min.compaction.lag.ms"),
        "Leave a record alone until it is this old.",
    )
    .at_least(0)
    .without_effect(NO_COMPACTION),
    key(
        "min.insync.replicas",
        Int,
        "1",
        same!("min.insync.replicas"),
        "A write with acks=all is refused while fewer replicas than this are in sync.",
    )
    .at_least(1),
    key(
        "ouzel.durability",
        String,
        "durable",
        same!("log.ouzel.durability"),
        "When acks=all is answered: 'durable' after the flush to disk, 'write-caching' once the page cache has it and \
         with a flush soon after, 'os' once the page cache has it and never with a flush of our own.",
    )
    .rule(Rule::OneOf(&["durable", "write-caching", "os"])),
    key(
        "preallocate",
        Boolean,
        "false",
        same!("log.preallocate"),
        "Whether a new segment's room on disk is reserved when it is created.",
    ),
    key(
        "remote.log.copy.disable",
        Boolean,
        "false",
        &[],
        "With tiered storage: stop copying segments away.",
    )
    .without_effect(NO_TIERS),
    key(
        "remote.log.delete.on.disable",
        Boolean,
        "false",
        &[],
        "With tiered storage: delete the remote part when tiering is switched off.",
    )
    .without_effect(NO_TIERS),
    key("remote.storage.enable", Boolean, "false", &[], "Whether the topic's old segments move to tiered storage.")
        .rule(Rule::Only("false"))
        .without_effect(NO_TIERS),
    key(
        "retention.bytes",
        Long,
        "-1",
        same!("log.retention.bytes"),
        "Drop the oldest segments of a partition while it is larger than this; -1 for no limit.",
    ),
    key(
        "retention.ms",
        Long,
        "604800000",
        &[
            Synonym::same("log.retention.ms"),
            Synonym { key: "log.retention.minutes", unit: Unit::Minutes },
            Synonym { key: "log.retention.hours", unit: Unit::Hours },
        ],
        "Drop segments whose newest record is older than this; -1 for no limit.",
    )
    .at_least(-1),
    key(
        "segment.bytes",
        Int,
        "1073741824",
        same!("log.segment.bytes"),
        "Start a new segment before the active one grows beyond this.",
    )
    .at_least(1 << 20),
    key(
        "segment.index.bytes",
        Int,
        "10485760",
        same!("log.index.size.max.bytes"),
        "Start a new segment before one of its indexes grows beyond this.",
    )
    .at_least(4),
    key(
        "segment.jitter.ms",
        Long,
        "0",
        &[
            Synonym::same("log.roll.jitter.ms"),
            Synonym { key: "log.roll.jitter.hours", unit: Unit::Hours },
        ],
        "At most this much is taken off segment.ms, at random, so that not all partitions roll at once.",
    )
    .at_least(0),
    key(
        "segment.ms",
        Long,
        "604800000",
        &[Synonym::same("log.roll.ms"), Synonym { key: "log.roll.hours", unit: Unit::Hours }],
        "Start a new segment when the active one is this old, even if it is small.",
    )
    .at_least(1),
    key(
        "unclean.leader.election.enable",
        Boolean,
        "false",
        same!("unclean.leader.election.enable"),
        "Whether a replica that is not in sync may lead when no other is left, at the price of records.",
    )
    .without_effect(NO_REPLICATION),
];

/// The topic key of this name.
pub fn topic_config(name: &str) -> Option<&'static ConfigDef> {
    TOPIC_CONFIGS.iter().find(|def| def.name == name)
}
