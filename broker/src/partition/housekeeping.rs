//! When to retain and to forget: the periodic pass over a core's partitions, and a topic's settings as its logs take
//! them.

use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::TopicConfig;
use ouzel_metadata::configs::{Durability as TopicDurability, TimestampType};
use ouzel_model::TimestampMs;
use ouzel_storage::{Durability, LogConfig};

use crate::coordinators::OFFSETS_TOPIC;
use crate::core::Core;

/// What acknowledgement means, as the log is told.
pub(crate) fn durability(topic: TopicDurability) -> Durability {
    match topic {
        TopicDurability::Durable => Durability::Durable,
        TopicDurability::WriteCaching => Durability::WriteCaching,
        TopicDurability::Os => Durability::Os,
    }
}

/// A topic's settings for one of its logs. `jitter` in `0..=1` spreads the rolls of partitions that were made together.
pub(crate) fn log_config(topic: &TopicConfig, producer_expiration_ms: u64, jitter: f64) -> LogConfig {
    let jitter_ms = (topic.segment_jitter_ms as f64 * jitter) as i64;
    // A compacted log keeps every record until compaction exists: none may be lost for want of it.
    let deletes = topic.cleanup_policy.delete;
    LogConfig {
        segment_bytes: topic.segment_bytes.into(),
        segment_ms: topic.segment_ms.saturating_sub(jitter_ms),
        segment_index_bytes: topic.segment_index_bytes.into(),
        index_interval_bytes: topic.index_interval_bytes.into(),
        retention_ms: topic.retention_ms.filter(|_| deletes),
        retention_bytes: topic.retention_bytes.filter(|_| deletes),
        file_delete_delay: Duration::from_millis(topic.file_delete_delay_ms.max(0).unsigned_abs()),
        durability: durability(topic.durability),
        flush_records: topic.flush_messages,
        flush_after: topic.flush_ms.map(Duration::from_millis),
        log_append_time: topic.message_timestamp_type == TimestampType::LogAppendTime,
        producer_expiration_ms: i64::try_from(producer_expiration_ms).unwrap_or(i64::MAX),
    }
}

/// Runs until the core stops: retention and forgotten producers, each `log.retention.check.interval.ms`.
pub(crate) async fn keep_house(core: Rc<Core>) {
    loop {
        let interval = core.broker_config().retention_check_interval_ms;
        core.runtime.clock.sleep(Duration::from_millis(interval)).await;
        let now = TimestampMs(core.runtime.clock.wall_ms());
        for partition in core.partitions.all() {
            let log = partition.log_handle();
            log.expire_producers(now);
            match log.retain(now).await {
                Ok(0) => {}
                Ok(segments) => {
                    tracing::info!(partition = %partition.topic_partition(), segments, "retention dropped segments")
                }
                Err(error) => {
                    tracing::warn!(partition = %partition.topic_partition(), %error, "retention could not look at a segment");
                }
            }
        }
    }
}

/// Runs until the core stops: forgets expired offsets each `offsets.retention.check.interval.ms`.
pub(crate) async fn expire_offsets(core: Rc<Core>) {
    loop {
        let interval = core.broker_config().offsets.retention_check_interval_ms;
        core.runtime.clock.sleep(Duration::from_millis(interval)).await;
        tracing::trace!(topic = OFFSETS_TOPIC, "looking for expired offsets");
        core.coordinators.expire();
    }
}

/// How often the disk is looked at while something is appended.
const DISK_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the core stops: tells the core's logs when the disk is nearly full, and when it is no longer.
///
/// It sleeps while nothing is appended and the disk has room: an idle broker does not wake for it.
pub(crate) async fn watch_disk(core: Rc<Core>) {
    let low = core.partitions.disk_low();
    loop {
        match core.runtime.disk.free_bytes(&core.node.config.data_dir).await {
            Ok(free) => {
                let is_low = free < core.node.config.free_bytes_min();
                if low.replace(is_low) != is_low {
                    if is_low {
                        tracing::error!(
                            free_bytes = free,
                            "the disk is nearly full: appends are refused until there is room"
                        );
                    } else {
                        tracing::info!(free_bytes = free, "the disk has room again: appends go on");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot tell how much room the disk has"),
        }
        core.runtime.clock.sleep(DISK_LOOK_INTERVAL).await;
        if !low.get() {
            core.partitions.appended().await;
        }
    }
}

/// At most this much appending is walked again after a crash, besides what a segment holds before it.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(30);

/// Runs until the core stops: notes how far the logs are flushed, for as long as something is appended.
pub(crate) async fn note_flushed(core: Rc<Core>) {
    loop {
        core.partitions.appended().await;
        core.runtime.clock.sleep(CHECKPOINT_INTERVAL).await;
        core.partitions.checkpoint().await;
    }
}
