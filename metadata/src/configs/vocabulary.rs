//! What both tables say alike: sets of values, chains of synonyms, and why a key does nothing.

use super::definition::{Rule, Synonym, Unit};

pub(super) const COMMITS_OUTLAST: &str = "a commit waits until its replicas have it, or another broker leads";
pub(super) const NO_BUFFERS: &str = "buffers are sized by --memory and by the operating system";
pub(super) const NO_LEVELS: &str = "the broker compresses at one level of its own choice";
pub(super) const NO_LIMIT: &str =
    "connections are bounded by max.connections and by the files the process may open";
pub(super) const NO_NEW_GROUPS: &str = "only classic groups are served in this release";
pub(super) const NO_PREALLOCATION: &str = "segments grow as they are written";
pub(super) const NO_POOLS: &str = "each core runs one thread; --cores says how many";
pub(super) const NO_QUEUE: &str = "--memory bounds what waits";
pub(super) const NO_OFFSET_CODEC: &str = "committed offsets are stored uncompressed";
pub(super) const NO_FETCHING_FOLLOWERS: &str = "a leader sends to its followers; they do not fetch";
pub(super) const NO_FOLLOWER_READS: &str = "consumers read from leaders";
pub(super) const NO_THROTTLES: &str =
    "what a node sends to replicas that catch up is limited as a whole: leader.replication.throttled.rate";
pub(super) const NO_UNCLEAN_ELECTIONS: &str =
    "no setting has a group elect a replica without what is committed";
pub(super) const NO_TIERS: &str = "there is no tiered storage";
pub(super) const NO_TRANSACTIONS: &str = "transactions are not served in this release";
pub(super) const ONE_CLEANER: &str = "one thread does the long work of compaction for all cores";
pub(super) const ONE_DATA_DIRECTORY: &str = "a broker has one data directory";

pub(super) const CLEANUP_POLICIES: Rule = Rule::EachOf(&["compact", "delete"]);
pub(super) const COMPRESSION_TYPES: Rule =
    Rule::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]);
pub(super) const DURABILITIES: Rule = Rule::OneOf(&["durable", "write-caching", "os"]);
pub(super) const GZIP_LEVELS: Rule = Rule::BetweenOr(1, 9, -1);
pub(super) const LZ4_LEVELS: Rule = Rule::Between(1, 17);
pub(super) const ZSTD_LEVELS: Rule = Rule::Between(-131_072, 22);
pub(super) const TIMESTAMP_TYPES: Rule = Rule::OneOf(&["CreateTime", "LogAppendTime"]);
/// -1 for no limit, or something to count; 0 would drop everything at once.
pub(super) const UNLIMITED_OR_POSITIVE: Rule = Rule::BetweenOr(1, i64::MAX, -1);

pub(super) const RETENTION_MS: &[Synonym] = &[
    Synonym::same("log.retention.ms"),
    Synonym { key: "log.retention.minutes", unit: Unit::Minutes },
    Synonym { key: "log.retention.hours", unit: Unit::Hours },
];
pub(super) const ROLL_MS: &[Synonym] =
    &[Synonym::same("log.roll.ms"), Synonym { key: "log.roll.hours", unit: Unit::Hours }];
pub(super) const ROLL_JITTER_MS: &[Synonym] =
    &[Synonym::same("log.roll.jitter.ms"), Synonym { key: "log.roll.jitter.hours", unit: Unit::Hours }];
pub(super) const FLUSH_MS: &[Synonym] =
    &[Synonym::same("log.flush.interval.ms"), Synonym::same("log.flush.scheduler.interval.ms")];
