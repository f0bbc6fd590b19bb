//! The keys of a topic, in alphabetical order: Kafka 4.3's, and our own.

use super::definition::ConfigType::{Boolean, Double, Int, List, Long, String};
use super::definition::{ConfigDef, ConfigType, Rule, Synonym};
use super::vocabulary::{
    CLEANUP_POLICIES, COMPRESSION_TYPES, DURABILITIES, FLUSH_MS, GZIP_LEVELS, LZ4_LEVELS, NO_LEVELS,
    NO_PREALLOCATION, NO_THROTTLES, NO_TIERS, NO_UNCLEAN_ELECTIONS, RETENTION_MS, ROLL_JITTER_MS, ROLL_MS,
    TIMESTAMP_TYPES, ZSTD_LEVELS,
};

const fn key(name: &'static str, kind: ConfigType, default: &'static str) -> ConfigDef {
    ConfigDef::new(name, kind, default).dynamic()
}

/// Every key a topic takes.
#[rustfmt::skip] // A row is what the key is, and below it what it is for.
pub static TOPIC_CONFIGS: &[ConfigDef] = &[
    key("cleanup.policy", List, "delete").rule(CLEANUP_POLICIES)
        .synonyms(&[Synonym::same("log.cleanup.policy")])
        .doc("How old records leave: 'delete' drops whole segments by age and size, 'compact' keeps the \
              last record of each key. Both may be given; with neither, records stay."),
    key("compression.gzip.level", Int, "-1").rule(GZIP_LEVELS)
        .synonyms(&[Synonym::same("compression.gzip.level")])
        .without_effect(NO_LEVELS)
        .doc("How hard gzip tries when the broker compresses: 1 (fast) to 9 (small), or -1 for the \
              library's choice."),
    key("compression.lz4.level", Int, "9").rule(LZ4_LEVELS)
        .synonyms(&[Synonym::same("compression.lz4.level")])
        .without_effect(NO_LEVELS)
        .doc("How hard lz4 tries when the broker compresses: 1 (fast) to 17 (small)."),
    key("compression.type", String, "producer").rule(COMPRESSION_TYPES)
        .synonyms(&[Synonym::same("compression.type")])
        .doc("The codec batches are stored with; 'producer' keeps whatever the producer chose."),
    key("compression.zstd.level", Int, "3").rule(ZSTD_LEVELS)
        .synonyms(&[Synonym::same("compression.zstd.level")])
        .without_effect(NO_LEVELS)
        .doc("How hard zstd tries when the broker compresses: -131072 (fast) to 22 (small)."),
    key("delete.retention.ms", Long, "86400000").at_least(0)
        .synonyms(&[Synonym::same("log.cleaner.delete.retention.ms")])
        .doc("How long compaction keeps a record that deletes its key, so that slow readers still see the \
              deletion."),
    key("file.delete.delay.ms", Long, "60000").at_least(0)
        .synonyms(&[Synonym::same("log.segment.delete.delay.ms")])
        .doc("How long a file stays on disk after its records are gone, for readers that still hold it."),
    key("flush.messages", Long, "9223372036854775807").at_least(1)
        .synonyms(&[Synonym::same("log.flush.interval.messages")])
        .doc("Flush after at most this many records. Only tightens what ouzel.durability promises."),
    key("flush.ms", Long, "9223372036854775807").at_least(0).synonyms(FLUSH_MS)
        .doc("Flush after at most this time. Only tightens what ouzel.durability promises."),
    key("follower.replication.throttled.replicas", List, "").rule(Rule::ThrottledReplicas)
        .without_effect(NO_THROTTLES)
        .doc("Followers whose replication is throttled: 'partition:broker' pairs, or '*' for all."),
    key("index.interval.bytes", Int, "4096").at_least(0)
        .synonyms(&[Synonym::same("log.index.interval.bytes")])
        .doc("How many bytes of batches share one entry of the offset index."),
    key("leader.replication.throttled.replicas", List, "").rule(Rule::ThrottledReplicas)
        .without_effect(NO_THROTTLES)
        .doc("Leaders whose replication is throttled: 'partition:broker' pairs, or '*' for all."),
    key("local.retention.bytes", Long, "-2").at_least(-2)
        .synonyms(&[Synonym::same("log.local.retention.bytes")])
        .without_effect(NO_TIERS)
        .doc("With tiered storage: size of the part kept locally; -2 means retention.bytes."),
    key("local.retention.ms", Long, "-2").at_least(-2).synonyms(&[Synonym::same("log.local.retention.ms")])
        .without_effect(NO_TIERS)
        .doc("With tiered storage: age of the part kept locally; -2 means retention.ms."),
    key("max.compaction.lag.ms", Long, "9223372036854775807").at_least(1)
        .synonyms(&[Synonym::same("log.cleaner.max.compaction.lag.ms")])
        .doc("Compact a record at the latest when it is this old."),
    key("max.message.bytes", Int, "1048588").at_least(0).synonyms(&[Synonym::same("message.max.bytes")])
        .doc("Largest batch that is accepted, as it arrives, compressed or not."),
    key("message.timestamp.after.max.ms", Long, "3600000").at_least(0)
        .synonyms(&[Synonym::same("log.message.timestamp.after.max.ms")])
        .doc("How far ahead of the broker's clock a record's timestamp may be. Not asked with \
              LogAppendTime."),
    key("message.timestamp.before.max.ms", Long, "9223372036854775807").at_least(0)
        .synonyms(&[Synonym::same("log.message.timestamp.before.max.ms")])
        .doc("How far behind the broker's clock a record's timestamp may be. Not asked with LogAppendTime."),
    key("message.timestamp.type", String, "CreateTime").rule(TIMESTAMP_TYPES)
        .synonyms(&[Synonym::same("log.message.timestamp.type")])
        .doc("Whether a record's timestamp is its producer's (CreateTime) or the time of the append \
              (LogAppendTime)."),
    key("min.cleanable.dirty.ratio", Double, "0.5").rule(Rule::Fraction(0.0, 1.0))
        .synonyms(&[Synonym::same("log.cleaner.min.cleanable.ratio")])
        .doc("Compact once this share of the log has not been compacted yet."),
    key("min.compaction.lag.ms", Long, "0").at_least(0)
        .synonyms(&[Synonym::same("log.cleaner.min.compaction.lag.ms")])
        .doc("Leave a record alone until it is this old."),
    key("min.insync.replicas", Int, "1").at_least(1).synonyms(&[Synonym::same("min.insync.replicas")])
        .doc("A write with acks=all is refused while fewer replicas than this are in sync."),
    key("ouzel.durability", String, "durable").rule(DURABILITIES)
        .synonyms(&[Synonym::same("log.ouzel.durability")])
        .doc("When acks=all is answered: 'durable' after the flush to disk, 'write-caching' once the page \
              cache has it and with a flush soon after, 'os' once the page cache has it and with a \
              flush of our own only when a segment is sealed or the broker stops."),
    key("preallocate", Boolean, "false").synonyms(&[Synonym::same("log.preallocate")]).without_effect(NO_PREALLOCATION)
        .doc("Whether a new segment's room on disk is reserved when it is created."),
    key("remote.log.copy.disable", Boolean, "false").without_effect(NO_TIERS)
        .doc("With tiered storage: stop copying segments away."),
    key("remote.log.delete.on.disable", Boolean, "false").without_effect(NO_TIERS)
        .doc("With tiered storage: delete the remote part when tiering is switched off."),
    key("remote.storage.enable", Boolean, "false").rule(Rule::Only("false")).without_effect(NO_TIERS)
        .doc("Whether the topic's old segments move to tiered storage."),
    key("retention.bytes", Long, "-1").synonyms(&[Synonym::same("log.retention.bytes")])
        .doc("Drop the oldest segments of a partition while it is larger than this; -1 for no limit."),
    key("retention.ms", Long, "604800000").at_least(-1).synonyms(RETENTION_MS)
        .doc("Drop segments whose newest record is older than this; -1 for no limit."),
    key("segment.bytes", Int, "1073741824").at_least(1 << 20).synonyms(&[Synonym::same("log.segment.bytes")])
        .doc("Start a new segment before the active one grows beyond this."),
    key("segment.index.bytes", Int, "10485760").at_least(4)
        .synonyms(&[Synonym::same("log.index.size.max.bytes")])
        .doc("Start a new segment before one of its indexes grows beyond this."),
    key("segment.jitter.ms", Long, "0").at_least(0).synonyms(ROLL_JITTER_MS)
        .doc("At most this much is taken off segment.ms, at random, so that not all partitions roll at \
              once."),
    key("segment.ms", Long, "604800000").at_least(1).synonyms(ROLL_MS)
        .doc("Start a new segment when the active one is this old, even if it is small."),
    key("unclean.leader.election.enable", Boolean, "false")
        .synonyms(&[Synonym::same("unclean.leader.election.enable")])
        .without_effect(NO_UNCLEAN_ELECTIONS)
        .doc("Whether a replica that is not in sync may lead when no other is left, at the price of \
              records."),
];

/// The topic key of this name.
pub fn topic_config(name: &str) -> Option<&'static ConfigDef> {
    TOPIC_CONFIGS.binary_search_by_key(&name, |def| def.name).ok().map(|found| &TOPIC_CONFIGS[found])
}
