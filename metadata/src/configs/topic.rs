//! The settings of a topic as its partitions use them.

use super::Overrides;
use super::layers::{Layers, topic_value};
use super::topic_table::topic_config;
use super::value::Value;

/// The effective settings of one topic, typed.
///
/// Numbers keep Kafka's meaning, -1 and [`i64::MAX`] for "no limit" included, except where a field says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// How old records leave.
    pub cleanup_policy: CleanupPolicy,
    /// The codec batches are stored with.
    pub compression_type: CompressionType,
    /// How long compaction keeps deletions.
    pub delete_retention_ms: i64,
    /// How long a file stays after its records are gone.
    pub file_delete_delay_ms: i64,
    /// Flush after this many records; `None` for no such limit.
    pub flush_messages: Option<u64>,
    /// Flush after this time; `None` for no such limit.
    pub flush_ms: Option<u64>,
    /// Bytes per entry of the offset index.
    pub index_interval_bytes: u32,
    /// Compact at the latest at this age.
    pub max_compaction_lag_ms: i64,
    /// Largest batch.
    pub max_message_bytes: u32,
    /// How far ahead of the clock a timestamp may be.
    pub message_timestamp_after_max_ms: i64,
    /// How far behind the clock a timestamp may be.
    pub message_timestamp_before_max_ms: i64,
    /// Whose time a timestamp is.
    pub message_timestamp_type: TimestampType,
    /// Share of uncompacted bytes that starts a compaction.
    pub min_cleanable_dirty_ratio: f64,
    /// Leave records alone until this age.
    pub min_compaction_lag_ms: i64,
    /// Replicas that must be in sync for acks=all.
    pub min_insync_replicas: i32,
    /// What acks=all waits for.
    pub durability: Durability,
    /// Whether a new segment's room is reserved.
    pub preallocate: bool,
    /// Size at which a partition drops its oldest segments; `None` for no limit.
    pub retention_bytes: Option<u64>,
    /// Age at which a segment is dropped; `None` for no limit.
    pub retention_ms: Option<u64>,
    /// Size at which a segment is rolled.
    pub segment_bytes: u32,
    /// Size of an index at which its segment is rolled.
    pub segment_index_bytes: u32,
    /// At most this is taken off `segment_ms`, at random.
    pub segment_jitter_ms: i64,
    /// Age at which a segment is rolled.
    pub segment_ms: i64,
    /// Whether a replica out of sync may lead.
    pub unclean_leader_election: bool,
}

impl TopicConfig {
    /// The settings of a topic on a broker.
    pub fn resolve(overrides: &Overrides, layers: &Layers<'_>) -> TopicConfig {
        let read = Reader { overrides, layers };
        TopicConfig {
            cleanup_policy: CleanupPolicy::from_items(&read.list("cleanup.policy")),
            compression_type: CompressionType::from_name(&read.text("compression.type")),
            delete_retention_ms: read.number("delete.retention.ms"),
            file_delete_delay_ms: read.number("file.delete.delay.ms"),
            flush_messages: read.below_max("flush.messages"),
            flush_ms: read.below_max("flush.ms"),
            index_interval_bytes: read.count("index.interval.bytes"),
            max_compaction_lag_ms: read.number("max.compaction.lag.ms"),
            max_message_bytes: read.count("max.message.bytes"),
            message_timestamp_after_max_ms: read.number("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: read.number("message.timestamp.before.max.ms"),
            message_timestamp_type: TimestampType::from_name(&read.text("message.timestamp.type")),
            min_cleanable_dirty_ratio: read.decimal("min.cleanable.dirty.ratio"),
            min_compaction_lag_ms: read.number("min.compaction.lag.ms"),
            min_insync_replicas: read.number("min.insync.replicas") as i32,
            durability: Durability::from_name(&read.text("ouzel.durability")),
            preallocate: read.boolean("preallocate"),
            retention_bytes: u64::try_from(read.number("retention.bytes")).ok(),
            retention_ms: u64::try_from(read.number("retention.ms")).ok(),
            segment_bytes: read.count("segment.bytes"),
            segment_index_bytes: read.count("segment.index.bytes"),
            segment_jitter_ms: read.number("segment.jitter.ms"),
            segment_ms: read.number("segment.ms"),
            unclean_leader_election: read.boolean("unclean.leader.election.enable"),
        }
    }
}

/// Reads typed values by key. A key that is not in the table, or of another type, is a programmer's error that every
/// test of this file meets.
struct Reader<'a> {
    overrides: &'a Overrides,
    layers: &'a Layers<'a>,
}

impl Reader<'_> {
    fn value(&self, name: &str) -> Value {
        let def = topic_config(name).unwrap_or_else(|| panic!("{name} is not a topic key"));
        topic_value(def, self.overrides, self.layers)
    }

    fn number(&self, name: &str) -> i64 {
        self.value(name).number()
    }

    fn count(&self, name: &str) -> u32 {
        u32::try_from(self.number(name))
            .unwrap_or_else(|_| panic!("the rule of {name} lets negative numbers pass"))
    }

    fn below_max(&self, name: &str) -> Option<u64> {
        Some(self.number(name))
            .filter(|number| *number != i64::MAX)
            .and_then(|number| u64::try_from(number).ok())
    }

    fn decimal(&self, name: &str) -> f64 {
        match self.value(name) {
            Value::Decimal(decimal) => decimal,
            other => panic!("{name} is {other}, not a decimal number"),
        }
    }

    fn boolean(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Boolean(boolean) => boolean,
            other => panic!("{name} is {other}, not a boolean"),
        }
    }

    fn text(&self, name: &str) -> String {
        match self.value(name) {
            Value::Text(text) => text,
            other => panic!("{name} is {other}, not a text"),
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::List(items) => items,
            other => panic!("{name} is {other}, not a list"),
        }
    }
}

/// How old records leave. With neither, they stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CleanupPolicy {
    /// Segments are dropped by age and size.
    pub delete: bool,
    /// The last record of each key stays.
    pub compact: bool,
}

impl CleanupPolicy {
    fn from_items(items: &[String]) -> CleanupPolicy {
        let has = |policy: &str| items.iter().any(|item| item == policy);
        CleanupPolicy { delete: has("delete"), compact: has("compact") }
    }
}

/// The codec batches are stored with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// The producer's.
    Producer,
    /// None.
    Uncompressed,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl CompressionType {
    fn from_name(name: &str) -> CompressionType {
        match name {
            "uncompressed" => CompressionType::Uncompressed,
            "gzip" => CompressionType::Gzip,
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4,
            "zstd" => CompressionType::Zstd,
            _ => CompressionType::Producer,
        }
    }
}

/// Whose time a record's timestamp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, at the append.
    LogAppendTime,
}

impl TimestampType {
    fn from_name(name: &str) -> TimestampType {
        match name {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        }
    }
}

/// What acks=all promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The record survives a power cut: every append joins a flush, and the answer follows it.
    Durable,
    /// The record survives the process: the answer follows the write, a flush comes soon after.
    WriteCaching,
    /// The record survives the process: the answer follows the write, the operating system flushes when it likes.
    Os,
}

impl Durability {
    fn from_name(name: &str) -> Durability {
        match name {
            "write-caching" => Durability::WriteCaching,
            "os" => Durability::Os,
            // The strictest promise for whatever a newer release may have written.
            _ => Durability::Durable,
        }
    }
}
