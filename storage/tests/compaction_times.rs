//! Time in a log that was compacted: what looking up by time finds, and what the age of a segment counts from.

mod support;

use bytes::BytesMut;
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts};
use ouzel_model::{Offset, ProducerEpoch, ProducerId, TimestampMs};
use ouzel_runtime::sim::{self, SimRuntime};
use ouzel_storage::compaction::{Cleaner, CleanerConfig, CompactionRules};
use ouzel_storage::log::Compacted;
use ouzel_storage::{Log, LogConfig};
use support::{Bench, EPOCH, NOW};

/// One record. The batch of a producer's newest stays when its record goes.
fn batch(producer: i64, key: &str, time: TimestampMs) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None).producer(ProducerId(producer), ProducerEpoch(0), 0);
    builder.push(time, &RecordParts { key: Some(key.as_bytes()), value: Some(b"v"), headers: &[] });
    BytesMut::from(&builder.build()[..])
}

async fn compact(node: &SimRuntime, log: &Log) -> Compacted {
    let rules = CompactionRules { dirty_ratio_min: 0.0, lag_max_ms: i64::MAX, ..CompactionRules::default() };
    let cleaner = Cleaner::new(node.runtime(), CleanerConfig::default());
    let end = log.offsets().log_end;
    log.compact(&cleaner, &rules, end, NOW).await.unwrap().expect("sealed segments")
}

#[test]
fn the_largest_time_is_that_of_a_record_that_is_there() {
    sim::run(1, |node| async move {
        let bench = Bench::new(node.runtime(), node.data_dir(), 0);
        let log = bench.open(&LogConfig { retention_ms: None, ..LogConfig::default() }).await;
        let later = |ms| TimestampMs(NOW.0 + ms);
        // The time of the first, whose record goes, is the largest.
        log.append(batch(1, "k", later(900)), EPOCH, NOW).unwrap();
        log.append(batch(2, "k", later(100)), EPOCH, NOW).unwrap();
        log.roll();
        log.append(batch(3, "other", NOW), EPOCH, NOW).unwrap();
        log.flush().await.unwrap();
        assert_eq!(compact(&node, &log).await.counts.records_kept, 1);
        let largest = log.offset_of_max_timestamp(Offset(2)).await.unwrap().expect("a record");
        assert_eq!((largest.offset, largest.timestamp), (Offset(1), later(100)));
        assert_eq!(log.offset_for_time(later(200), Offset(2)).await.unwrap(), None);
    });
}

/// A segment of a topic with both policies was emptied by compaction before its time was over, and what lay behind it never
/// went: it has no record whose time its age could count from, and so counted from the last write, which each start
/// makes the present. Its batch still says when it was written, and Kafka goes by that.
#[test]
fn an_emptied_segment_is_as_old_as_its_batch_says() {
    let (old, new, unknown) = (TimestampMs(NOW.0 - 5_000), NOW, TimestampMs::NONE);
    // Times of a record that is replaced and of the one that replaces it; how many segments go then.
    for (replaced, newest, segments_gone) in [(old, old, 2), (old, new, 1), (new, old, 0), (unknown, old, 0)]
    {
        for is_restarted in [false, true] {
            sim::run(1, |node| async move {
                let bench = Bench::new(node.runtime(), node.data_dir(), 0);
                // Too small for two to be made one.
                let config =
                    LogConfig { segment_bytes: 100, retention_ms: Some(1_000), ..LogConfig::default() };
                let mut log = bench.open(&config).await;
                for (producer, key, time) in [(1, "k", replaced), (2, "k", newest), (3, "other", new)] {
                    log.append(batch(producer, key, time), EPOCH, NOW).unwrap();
                }
                log.flush().await.unwrap();
                let done = compact(&node, &log).await;
                assert_eq!((done.segments, done.counts.records_kept), ((2, 2), 1));
                if is_restarted {
                    let end = log.close().await.unwrap();
                    log = bench.reopen_clean(&config, end).await;
                }
                let gone = log.retain(TimestampMs(NOW.0 + 500)).await.unwrap();
                assert_eq!(gone, segments_gone, "{replaced:?} {newest:?} restarted: {is_restarted}");
                assert_eq!(log.offsets().log_start, Offset(segments_gone as i64));
            });
        }
    }
}
