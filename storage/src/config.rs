//! The settings of one log, typed. Names and defaults of Kafka's keys are metadata's business.

use std::time::Duration;

/// When an append is safe enough to be acknowledged to acks=all, and who flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Every append joins a flush, and the answer follows it: survives a power cut.
    Durable,
    /// The answer follows the write; a flush follows soon after.
    WriteCaching,
    /// The answer follows the write; the operating system flushes when it likes.
    Os,
}

/// Unflushed bytes at which `write-caching` flushes.
pub const WRITE_CACHING_BYTES_MAX: u64 = 256 << 10;
/// Age of the oldest unflushed byte at which `write-caching` flushes.
pub const WRITE_CACHING_AGE_MAX: Duration = Duration::from_millis(100);

/// One log's settings; may change while it is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Size at which a segment is rolled.
    pub segment_bytes: u64,
    /// Age, by the first batch's timestamp, at which a segment is rolled; includes its jitter.
    pub segment_ms: i64,
    /// Size of either index at which the segment is rolled.
    pub segment_index_bytes: u64,
    /// Log bytes per index entry.
    pub index_interval_bytes: u64,
    /// Age at which a segment is dropped; `None` for no limit, or no deletion at all.
    pub retention_ms: Option<u64>,
    /// Size beyond which the oldest segments are dropped; `None` for no limit.
    pub retention_bytes: Option<u64>,
    /// How long a dropped file stays on disk.
    pub file_delete_delay: Duration,
    /// What acknowledgement means.
    pub durability: Durability,
    /// Records after which a flush is due, whatever the durability.
    pub flush_records: Option<u64>,
    /// Time after which a flush is due, whatever the durability.
    pub flush_after: Option<Duration>,
    /// Stamps batches with the broker's time.
    pub log_append_time: bool,
    /// How long a silent producer's sequence is remembered.
    pub producer_expiration_ms: i64,
}

impl Default for LogConfig {
    /// Kafka's defaults, with our durability.
    fn default() -> LogConfig {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 86_400_000,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: Some(7 * 86_400_000),
            retention_bytes: None,
            file_delete_delay: Duration::from_secs(60),
            durability: Durability::Durable,
            flush_records: None,
            flush_after: None,
            log_append_time: false,
            producer_expiration_ms: 86_400_000,
        }
    }
}

impl LogConfig {
    /// How many unflushed bytes, and how old, are tolerated before a flush in the background; `None` for any.
    pub(crate) fn flush_limits(&self) -> (Option<u64>, Option<Duration>) {
        let caching = self.durability == Durability::WriteCaching;
        let age = caching.then_some(WRITE_CACHING_AGE_MAX).into_iter().chain(self.flush_after).min();
        (caching.then_some(WRITE_CACHING_BYTES_MAX), age)
    }
}
