//! When to retain, to compact and to forget: the periodic passes over a core's partitions, and a topic's settings as its
//! logs take them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::configs::{Durability as TopicDurability, TimestampType};
use ouzel_metadata::{BrokerConfig, TopicConfig};
use ouzel_model::{TimestampMs, TopicIdPartition};
use ouzel_runtime::clock::Instant;
use ouzel_storage::compaction::{Cleaner, CleanerConfig, CompactionRules};
use ouzel_storage::log::{CompactError, Compacted};
use ouzel_storage::{Durability, LogConfig};

use crate::coordinators::OFFSETS_TOPIC;
use crate::core::Core;
use crate::partition::Partition;

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
            if let Err(error) = partition.retain(now).await {
                tracing::warn!(partition = %partition.topic_partition(), %error, "retention could not look at a segment");
            }
        }
    }
}

/// A topic's settings about compaction; none if it is not compacted.
pub(crate) fn compaction_rules(topic: &TopicConfig) -> Option<CompactionRules> {
    topic.cleanup_policy.compact.then_some(CompactionRules {
        dirty_ratio_min: topic.min_cleanable_dirty_ratio,
        lag_min_ms: topic.min_compaction_lag_ms.max(0),
        lag_max_ms: topic.max_compaction_lag_ms.max(0),
        delete_retention_ms: topic.delete_retention_ms.max(0),
    })
}

/// One core's share of what the broker may spend on compaction, of a broker with so much memory.
fn cleaner_config(broker: &BrokerConfig, memory_bytes: u64, cores: u16) -> CleanerConfig {
    let cores = u64::from(cores);
    // Beside requests and tail caches, which have three quarters of it.
    let key_bytes_max = broker.cleaner.dedupe_buffer_bytes.min(memory_bytes / 8) / cores;
    CleanerConfig {
        key_bytes_max: usize::try_from(key_bytes_max).unwrap_or(usize::MAX),
        load_factor: broker.cleaner.load_factor,
        chunk_bytes: broker.cleaner.io_buffer_bytes as usize / 2,
        bytes_per_second: broker.cleaner.bytes_per_second / cores as f64,
    }
}

/// A log whose compaction failed is left alone for so long.
const UNCLEANABLE: Duration = Duration::from_secs(3600);
/// Least pause between two looks for a log to compact, whatever `log.cleaner.backoff.ms` says.
const BACKOFF_MIN: Duration = Duration::from_millis(10);

/// Runs until the core stops: compacts the dirtiest of the core's logs, then the next, and pauses for
/// `log.cleaner.backoff.ms` when none is due.
///
/// It sleeps while nothing is appended, but for the interval of retention: a log may become due by its age as well.
pub(crate) async fn compact_logs(core: Rc<Core>) {
    let config = |broker: &BrokerConfig| {
        cleaner_config(broker, core.node.config.memory_bytes, core.runtime.core_count)
    };
    let cleaner = Cleaner::new(core.runtime.clone(), config(&core.broker_config()));
    let mut uncleanable = BTreeMap::new();
    loop {
        let broker = core.broker_config();
        cleaner.set_config(config(&broker));
        if broker.cleaner.enable {
            while let Some((partition, rules)) = dirtiest(&core, &mut uncleanable).await {
                let cleaned = compact(&core, &partition, &cleaner, &rules).await;
                if cleaned.is_none() {
                    let until = core.runtime.clock.now() + UNCLEANABLE;
                    uncleanable.insert(*partition.at(), until);
                }
            }
        }
        let clock = &core.runtime.clock;
        let backoff = clock.sleep(Duration::from_millis(broker.cleaner.backoff_ms).max(BACKOFF_MIN));
        // What is appended during the pause counts.
        let reason = async {
            tokio::select! {
                biased;
                () = core.partitions.appended() => {}
                () = clock.sleep(Duration::from_millis(broker.retention_check_interval_ms)) => {}
            }
        };
        tokio::join!(biased; backoff, reason);
    }
}

/// The log of the core that is due and has the largest part of dirty bytes, as in Kafka.
async fn dirtiest(
    core: &Core,
    uncleanable: &mut BTreeMap<TopicIdPartition, Instant>,
) -> Option<(Rc<Partition>, CompactionRules)> {
    let clock = &core.runtime.clock;
    let (time, now) = (clock.now(), TimestampMs(clock.wall_ms()));
    let partitions = core.partitions.all();
    uncleanable.retain(|at, until| *until > time && partitions.iter().any(|partition| partition.at() == at));
    let mut found: Option<(f64, Rc<Partition>, CompactionRules)> = None;
    let mut ratio_max = 0.0_f64;
    for partition in partitions {
        let Some(rules) = compaction_rules(&partition.config()) else { continue };
        partition.release_entries();
        let log = partition.log_handle();
        if uncleanable.contains_key(partition.at()) || log.fenced().is_some() {
            continue;
        }
        let looked = log.dirtiness(&rules, partition.last_stable(), now).await;
        let dirtiness = match looked {
            Ok(dirtiness) => dirtiness,
            Err(error) => {
                tracing::warn!(partition = %partition.topic_partition(), %error, "compaction could not look at a log; it is left alone for an hour");
                core.metrics.cleaner_failed();
                uncleanable.insert(*partition.at(), time + UNCLEANABLE);
                continue;
            }
        };
        let ratio = dirtiness.ratio();
        ratio_max = ratio_max.max(ratio);
        if dirtiness.is_due(&rules) && found.as_ref().is_none_or(|(most, ..)| ratio > *most) {
            found = Some((ratio, partition, rules));
        }
    }
    core.metrics.cleaner_looked(ratio_max, uncleanable.len());
    found.map(|(_, partition, rules)| (partition, rules))
}

/// One pass over one log; `None` if it failed.
async fn compact(
    core: &Core,
    partition: &Partition,
    cleaner: &Cleaner,
    rules: &CompactionRules,
) -> Option<()> {
    let now = TimestampMs(core.runtime.clock.wall_ms());
    let began = core.runtime.clock.now();
    let name = partition.topic_partition();
    match partition.log_handle().compact(cleaner, rules, partition.last_stable(), now).await {
        Ok(None) => Some(()),
        Ok(Some(done)) => {
            let took = core.runtime.clock.now().duration_since(began);
            let Compacted { from, to, segments, counts, .. } = done;
            tracing::info!(
                partition = %name, %from, %to, segments_before = segments.0, segments_after = segments.1,
                bytes_before = counts.bytes_read, bytes_after = counts.bytes_kept, records_before = counts.records_read,
                records_after = counts.records_kept, ?took, "a log was compacted"
            );
            if counts.records_keyless > 0 {
                tracing::warn!(partition = %name, records = counts.records_keyless, "compaction dropped records without a key");
            }
            core.metrics.cleaned(&done, took);
            Some(())
        }
        // It was closed, cut, or deleted, and is no longer asked; or segments went, and the next look sees what is left.
        Err(CompactError::Interrupted) => {
            tracing::debug!(partition = %name, "a compaction was interrupted");
            core.runtime.clock.sleep(BACKOFF_MIN).await;
            Some(())
        }
        Err(error) => {
            tracing::error!(partition = %name, %error, "a log could not be compacted; it is left alone for an hour");
            core.metrics.cleaner_failed();
            None
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

#[cfg(test)]
mod tests {
    use ouzel_metadata::configs::CleanupPolicy;
    use ouzel_metadata::{Layers, StaticConfig};

    use super::*;

    fn topic(compact: bool, delete: bool) -> TopicConfig {
        let defaults = StaticConfig::default();
        let topic = TopicConfig::resolve(&Default::default(), &Layers::of_static(&defaults));
        TopicConfig { cleanup_policy: CleanupPolicy { delete, compact }, ..topic }
    }

    #[test]
    fn each_policy_does_its_part_and_both_do_both() {
        for (compact, delete) in [(false, false), (false, true), (true, false), (true, true)] {
            let topic = topic(compact, delete);
            let log = log_config(&topic, 1, 0.0);
            assert_eq!(log.retention_ms.is_some(), delete);
            assert_eq!(compaction_rules(&topic).is_some(), compact);
        }
        let rules = compaction_rules(&topic(true, false)).unwrap();
        assert_eq!(rules, CompactionRules::default(), "Kafka's defaults");
    }

    #[test]
    fn cores_share_what_the_broker_may_spend() {
        let defaults = StaticConfig::default();
        let broker = BrokerConfig::resolve(&Layers::of_static(&defaults));
        let large = cleaner_config(&broker, 8 << 30, 4);
        assert_eq!((large.key_bytes_max, large.chunk_bytes), (32 << 20, 256 << 10));
        assert_eq!(cleaner_config(&broker, 256 << 20, 4).key_bytes_max, 8 << 20);
        assert!(large.bytes_per_second > 1e300, "no limit by default");
    }
}
