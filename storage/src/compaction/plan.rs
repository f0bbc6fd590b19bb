//! What of a log may be compacted, whether that is due, and which segments become one: from values to values.

use std::ops::Range;

use ouzel_model::{Offset, TimestampMs};

/// A topic's settings about compaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompactionRules {
    /// `min.cleanable.dirty.ratio`: due when more than this part of the bytes is dirty.
    pub dirty_ratio_min: f64,
    /// `min.compaction.lag.ms`: a segment with a younger record is not touched; 0 for no such rule.
    pub lag_min_ms: i64,
    /// `max.compaction.lag.ms`: due, whatever the ratio, when a dirty segment is older.
    pub lag_max_ms: i64,
    /// `delete.retention.ms`: how long tombstones stay.
    pub delete_retention_ms: i64,
}

impl Default for CompactionRules {
    /// Kafka's defaults.
    fn default() -> CompactionRules {
        CompactionRules {
            dirty_ratio_min: 0.5,
            lag_min_ms: 0,
            lag_max_ms: i64::MAX,
            delete_retention_ms: 86_400_000,
        }
    }
}

/// A segment as compaction sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Its first offset (inclusive).
    pub base: Offset,
    /// Exclusive: where the next segment begins.
    pub end: Offset,
    /// Bytes of its batches.
    pub size_bytes: u64,
    /// Bytes of the larger of its indexes.
    pub index_bytes: u64,
    /// Max timestamp of its first batch; asked for only where `max.compaction.lag.ms` is set.
    pub first_timestamp: Option<TimestampMs>,
    /// Its largest timestamp; asked for only where `min.compaction.lag.ms` is set.
    pub largest_timestamp: Option<TimestampMs>,
}

/// A log as compaction sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFacts {
    /// The sealed segments whose files are complete, oldest first; without gaps between them.
    pub sealed: Vec<SegmentFacts>,
    /// Where the log starts.
    pub log_start: Offset,
    /// Up to where it is clean (exclusive); `None` if it never was compacted.
    pub first_dirty: Option<Offset>,
    /// Nothing at or beyond this is touched (exclusive): the last stable offset.
    pub bound: Offset,
}

/// How dirty a log is, and what a pass would clean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dirtiness {
    /// Where the dirty part begins (inclusive).
    pub first_dirty: Offset,
    /// Where a pass ends (exclusive): between two segments, never before `first_dirty`.
    pub cleanable_end: Offset,
    /// Bytes before the dirty part.
    pub clean_bytes: u64,
    /// Bytes of the dirty part up to `cleanable_end`.
    pub cleanable_bytes: u64,
    /// A dirty segment is older than `max.compaction.lag.ms`.
    pub is_overdue: bool,
}

impl Dirtiness {
    /// The part of the bytes that is dirty, 0 to 1; of those that may not be touched yet nobody speaks.
    pub fn ratio(&self) -> f64 {
        match self.clean_bytes + self.cleanable_bytes {
            0 => 0.0,
            total => self.cleanable_bytes as f64 / total as f64,
        }
    }

    /// Whether a pass is due.
    pub fn is_due(&self, rules: &CompactionRules) -> bool {
        self.cleanable_bytes > 0 && (self.is_overdue || self.ratio() > rules.dirty_ratio_min)
    }
}

/// Looks a log over.
pub fn dirtiness(log: &LogFacts, rules: &CompactionRules, now: TimestampMs) -> Dirtiness {
    let log_end = log.sealed.last().map_or(log.log_start, |last| last.end);
    // Clean up to a place that a trim has passed, or that the log does not reach: then nothing is known to be clean.
    let first_dirty = log
        .first_dirty
        .filter(|first_dirty| (log.log_start..=log_end.max(log.log_start)).contains(first_dirty))
        .unwrap_or(log.log_start);
    let dirty = |segment: &&SegmentFacts| segment.end > first_dirty;
    let is_young = |segment: &SegmentFacts| {
        rules.lag_min_ms > 0
            && segment
                .largest_timestamp
                .is_none_or(|largest| largest.value() > now.value().saturating_sub(rules.lag_min_ms))
    };
    let may_be_cleaned = |segment: &&SegmentFacts| segment.end <= log.bound && !is_young(segment);
    let cleanable = || log.sealed.iter().filter(dirty).take_while(may_be_cleaned);
    let clean_until = now.value().saturating_sub(rules.lag_max_ms);
    let first_timestamps = log.sealed.iter().filter(dirty).filter_map(|segment| segment.first_timestamp);
    Dirtiness {
        first_dirty,
        cleanable_end: cleanable().last().map_or(first_dirty, |last| last.end),
        clean_bytes: log
            .sealed
            .iter()
            .take_while(|segment| segment.base < first_dirty)
            .map(|segment| segment.size_bytes)
            .sum(),
        cleanable_bytes: cleanable().map(|segment| segment.size_bytes).sum(),
        // Timestamps of 0 and less say nothing.
        is_overdue: first_timestamps
            .filter(|first| first.value() > 0)
            .any(|first| first.value() < clean_until),
    }
}

/// Which of the segments, all of which are written anew, become one: as many neighbours as fit a segment by the bytes and
/// the index they have now, so that repeated passes do not leave many small ones.
pub fn groups(segments: &[SegmentFacts], bytes_max: u64, index_bytes_max: u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut size_bytes, mut index_bytes) = (0, 0);
    for (at, segment) in segments.iter().enumerate() {
        let joins = groups.last().is_some_and(|group| {
            size_bytes + segment.size_bytes <= bytes_max
                && index_bytes + segment.index_bytes <= index_bytes_max
                // Offsets relative to the segment's base have 31 bits.
                && segment.end - segments[group.start].base <= i64::from(i32::MAX)
        });
        match groups.last_mut().filter(|_| joins) {
            Some(group) => group.end = at + 1,
            None => {
                groups.push(at..at + 1);
                (size_bytes, index_bytes) = (0, 0);
            }
        }
        size_bytes += segment.size_bytes;
        index_bytes += segment.index_bytes;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of ten offsets and so many bytes, with their first and largest timestamp.
    fn log(segments: &[(u64, i64, i64)], first_dirty: Option<i64>, bound: i64) -> LogFacts {
        let facts = |(at, (bytes, first, largest)): (usize, &(u64, i64, i64))| SegmentFacts {
            base: Offset(at as i64 * 10),
            end: Offset(at as i64 * 10 + 10),
            size_bytes: *bytes,
            index_bytes: 8,
            first_timestamp: Some(TimestampMs(*first)),
            largest_timestamp: Some(TimestampMs(*largest)),
        };
        LogFacts {
            sealed: segments.iter().enumerate().map(facts).collect(),
            log_start: Offset::ZERO,
            first_dirty: first_dirty.map(Offset),
            bound: Offset(bound),
        }
    }

    const NOW: TimestampMs = TimestampMs(1_000);
    const THREE: &[(u64, i64, i64)] = &[(100, 100, 200), (100, 300, 400), (200, 500, 600)];

    #[track_caller]
    fn check(log: &LogFacts, rules: &CompactionRules, expected: (i64, i64, u64, u64, bool)) {
        let found = dirtiness(log, rules, NOW);
        let (first_dirty, end, clean, cleanable, due) = expected;
        assert_eq!(
            (found.first_dirty, found.cleanable_end, found.clean_bytes, found.cleanable_bytes),
            (Offset(first_dirty), Offset(end), clean, cleanable)
        );
        assert_eq!(found.is_due(rules), due, "{found:?}");
    }

    #[test]
    fn the_ratio_counts_only_what_may_be_touched() {
        let rules = CompactionRules::default();
        check(&log(THREE, None, 30), &rules, (0, 30, 0, 400, true));
        check(&log(THREE, None, 29), &rules, (0, 20, 0, 200, true));
        check(&log(THREE, None, 9), &rules, (0, 0, 0, 0, false));
        check(&log(THREE, Some(20), 30), &rules, (20, 30, 200, 200, false));
        check(&log(THREE, Some(10), 30), &rules, (10, 30, 100, 300, true));
        check(&log(THREE, Some(30), 30), &rules, (30, 30, 400, 0, false));
        // A pass that ended in the middle of a segment: that one counts as both, as in Kafka.
        check(&log(THREE, Some(15), 30), &rules, (15, 30, 200, 300, true));
        check(&log(&[], None, 30), &rules, (0, 0, 0, 0, false));
    }

    #[test]
    fn what_is_known_of_another_log_is_not_believed() {
        let rules = CompactionRules::default();
        check(&log(THREE, Some(31), 30), &rules, (0, 30, 0, 400, true));
        let trimmed = LogFacts { log_start: Offset(10), ..log(&THREE[1..], Some(5), 30) };
        let found = dirtiness(&trimmed, &rules, NOW);
        assert_eq!(found.first_dirty, Offset(10));
    }

    #[test]
    fn a_young_record_shields_its_segment_and_those_behind() {
        let rules = |lag_min_ms| CompactionRules { lag_min_ms, ..CompactionRules::default() };
        check(&log(THREE, None, 30), &rules(399), (0, 30, 0, 400, true));
        check(&log(THREE, None, 30), &rules(400), (0, 30, 0, 400, true));
        check(&log(THREE, None, 30), &rules(401), (0, 20, 0, 200, true));
        check(&log(THREE, None, 30), &rules(601), (0, 10, 0, 100, true));
        check(&log(THREE, None, 30), &rules(801), (0, 0, 0, 0, false));
    }

    #[test]
    fn an_old_segment_forces_a_pass() {
        let rules = |lag_max_ms| CompactionRules { lag_max_ms, ..CompactionRules::default() };
        check(&log(THREE, Some(20), 30), &rules(500), (20, 30, 200, 200, false));
        check(&log(THREE, Some(20), 30), &rules(499), (20, 30, 200, 200, true));
        // Nothing may be touched: nothing is due.
        check(&log(THREE, Some(20), 20), &rules(0), (20, 20, 200, 0, false));
        check(
            &log(&[(5, -1, -1)], None, 10),
            &CompactionRules { dirty_ratio_min: 1.0, ..rules(0) },
            (0, 10, 0, 5, false),
        );
    }

    #[test]
    fn neighbours_that_fit_become_one() {
        let groups = |bytes_max, index_bytes_max| {
            groups(
                &log(&[(60, 0, 0), (40, 0, 0), (50, 0, 0), (0, 0, 0), (51, 0, 0)], None, 0).sealed,
                bytes_max,
                index_bytes_max,
            )
        };
        assert_eq!(groups(100, 1000), [0..2, 2..4, 4..5]);
        assert_eq!(groups(10, 1000), [0..1, 1..2, 2..3, 3..4, 4..5]);
        assert_eq!(groups(1000, 1000)[..], [0..5, 5..5][..1]);
        assert_eq!(groups(1000, 16), [0..2, 2..4, 4..5]);
        assert_eq!(groups(1000, 7), [0..1, 1..2, 2..3, 3..4, 4..5]);
        let far = SegmentFacts { end: Offset(1 << 40), ..log(THREE, None, 0).sealed[1] };
        assert_eq!(super::groups(&[log(THREE, None, 0).sealed[0], far], 1000, 1000), [0..1, 1..2]);
    }
}
