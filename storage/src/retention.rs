//! Which segments may go: a rule from values to values.

use ouzel_model::TimestampMs;

use crate::config::LogConfig;

/// A segment as retention sees it, oldest first; the active one is last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentAge {
    /// Bytes of its batches.
    pub size_bytes: u64,
    /// Its largest timestamp; none for an empty one.
    pub max_timestamp: TimestampMs,
}

/// How many of the oldest segments go, and whether the active one is among them (it is rolled first, then it may).
///
/// By time a segment goes when its largest timestamp is older than `retention.ms`, and only if all before it go; by size
/// the oldest go for as long as what is left still holds `retention.bytes`. An empty active segment never goes.
pub fn expired(segments: &[SegmentAge], config: &LogConfig, now: TimestampMs) -> usize {
    let candidates = match segments.split_last() {
        Some((active, sealed)) if active.size_bytes == 0 => sealed,
        _ => segments,
    };
    let by_time = config.retention_ms.map_or(0, |keep_ms| {
        let old = |segment: &&SegmentAge| {
            u64::try_from(now.value().saturating_sub(segment.max_timestamp.value()))
                .is_ok_and(|age| age > keep_ms)
        };
        candidates.iter().take_while(old).count()
    });
    let by_size = config.retention_bytes.map_or(0, |keep_bytes| {
        let total: u64 = segments.iter().map(|segment| segment.size_bytes).sum();
        let mut excess = total.saturating_sub(keep_bytes);
        let fits = |segment: &&SegmentAge| {
            let goes = segment.size_bytes <= excess;
            excess = excess.saturating_sub(segment.size_bytes);
            goes && segment.size_bytes > 0
        };
        candidates.iter().take_while(fits).count()
    });
    by_time.max(by_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_by_time_and_by_size() {
        let segments = |ages: &[(u64, i64)]| -> Vec<SegmentAge> {
            ages.iter().map(|(b, t)| SegmentAge { size_bytes: *b, max_timestamp: TimestampMs(*t) }).collect()
        };
        let now = TimestampMs(10_000);
        // (segments, retention ms, retention bytes) -> how many go
        for (ages, ms, bytes, gone) in [
            (&[(10, 1_000), (10, 2_000), (10, 9_900)][..], Some(5_000), None, 2),
            // A young segment shields the older ones behind it.
            (&[(10, 9_900), (10, 2_000), (10, 9_900)], Some(5_000), None, 0),
            // Everything is old: the active one goes as well, once rolled.
            (&[(10, 1_000), (10, 2_000)], Some(5_000), None, 2),
            // An empty active segment stays.
            (&[(10, 1_000), (0, -1)], Some(5_000), None, 1),
            (&[(0, -1)], Some(0), Some(0), 0),
            // By size: what is left must still hold the limit.
            (&[(10, 1), (10, 2), (10, 3)], None, Some(20), 1),
            (&[(10, 1), (10, 2), (10, 3)], None, Some(21), 0),
            (&[(10, 1), (10, 2), (10, 3)], None, Some(0), 3),
            (&[(10, 1), (10, 2)], None, None, 0),
        ] {
            let config = LogConfig { retention_ms: ms, retention_bytes: bytes, ..LogConfig::default() };
            assert_eq!(expired(&segments(ages), &config, now), gone, "{ages:?} {ms:?} {bytes:?}");
        }
    }
}
