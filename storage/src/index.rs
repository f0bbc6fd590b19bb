//! A segment's two sparse indexes, in memory; on disk they have Kafka's formats.
//!
//! Both are caches: whatever is lost or wrong is rebuilt from the `.log`.

use ouzel_model::{Offset, TimestampMs};

/// One entry of an offset index: the last offset of a batch, and where the batch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetEntry {
    /// Last offset of the batch, relative to the segment's base.
    pub relative_offset: u32,
    /// Position of the batch in the `.log`.
    pub position: u32,
}

/// One entry of a time index: the largest timestamp so far, and the last offset of the batch that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    /// Largest timestamp up to here.
    pub timestamp: TimestampMs,
    /// Last offset of its batch, relative to the segment's base.
    pub relative_offset: u32,
}

/// Bytes of an offset entry on disk.
pub const OFFSET_ENTRY_BYTES: usize = 8;
/// Bytes of a time entry on disk.
pub const TIME_ENTRY_BYTES: usize = 12;

/// A segment's indexes and what it takes to go on writing them.
#[derive(Clone, Debug, Default)]
pub struct Indexes {
    /// Ascending in both fields.
    pub offsets: Vec<OffsetEntry>,
    /// Strictly ascending timestamps.
    pub times: Vec<TimeEntry>,
    /// The largest timestamp and its batch's last offset, whether or not it has an entry yet.
    pub largest: Option<TimeEntry>,
    bytes_since_entry: u64,
}

/// See [`Indexes::mark`].
pub(crate) struct IndexMark {
    offsets: usize,
    times: usize,
    largest: Option<TimeEntry>,
    bytes_since_entry: u64,
}

impl Indexes {
    /// Notes a batch that is appended at `position`. As in Kafka an entry is due when more than the interval was
    /// appended *before* this batch since the last one.
    pub fn append(
        &mut self,
        base: Offset,
        last_offset: Offset,
        position: u64,
        bytes: u64,
        max_timestamp: TimestampMs,
        interval_bytes: u64,
    ) {
        // A segment is rolled before its offsets or positions outgrow 32 bits.
        let relative_offset = (last_offset - base) as u32;
        if self.largest.is_none_or(|largest| max_timestamp > largest.timestamp) {
            self.largest = Some(TimeEntry { timestamp: max_timestamp, relative_offset });
        }
        if self.bytes_since_entry > interval_bytes {
            self.offsets.push(OffsetEntry { relative_offset, position: position as u32 });
            self.enter_largest();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += bytes;
    }

    /// Where they stand, to be gone back to.
    pub(crate) fn mark(&self) -> IndexMark {
        let Indexes { offsets, times, largest, bytes_since_entry } = self;
        IndexMark {
            offsets: offsets.len(),
            times: times.len(),
            largest: *largest,
            bytes_since_entry: *bytes_since_entry,
        }
    }

    /// Forgets what was noted since.
    pub(crate) fn cut(&mut self, mark: IndexMark) {
        self.offsets.truncate(mark.offsets);
        self.times.truncate(mark.times);
        (self.largest, self.bytes_since_entry) = (mark.largest, mark.bytes_since_entry);
    }

    /// Makes the largest timestamp an entry, if it is none yet; forced when the segment is sealed.
    pub fn enter_largest(&mut self) {
        let Some(largest) = self.largest else { return };
        // Negative timestamps say "none"; Kafka's index begins at 0 and takes only what is larger than its last.
        let last = self.times.last().map_or(TimestampMs::NONE, |entry| entry.timestamp);
        if largest.timestamp > last {
            self.times.push(largest);
        }
    }

    /// The largest timestamp in the segment, or none.
    pub fn max_timestamp(&self) -> TimestampMs {
        self.largest.map_or(TimestampMs::NONE, |largest| largest.timestamp)
    }

    /// The same, to be appended to: `bytes` lie behind the position of the last entry.
    pub(crate) fn resumed(mut self, bytes: u64) -> Indexes {
        self.bytes_since_entry = bytes;
        self
    }

    /// A position at or before the batch that holds `offset`: where to begin the scan. Of an offset below the segment's
    /// that is its begin.
    pub fn position_before(&self, base: Offset, offset: Offset) -> u64 {
        if offset < base {
            return 0;
        }
        // An entry names its batch's last offset, so the batch holds `offset` if that is at or above it; the entry
        // before is safe in any case.
        let relative = u32::try_from(offset - base).unwrap_or(u32::MAX);
        match self.offsets.partition_point(|entry| entry.relative_offset <= relative) {
            0 => 0,
            after => u64::from(self.offsets[after - 1].position),
        }
    }

    /// The last entry whose batch begins at or before `position` and ends below `bound`.
    pub(crate) fn last_entry_within(
        &self,
        base: Offset,
        position: u64,
        bound: Offset,
    ) -> Option<OffsetEntry> {
        let within = |entry: &OffsetEntry| {
            u64::from(entry.position) <= position && base + i64::from(entry.relative_offset) < bound
        };
        // Both fields ascend.
        self.offsets[..self.offsets.partition_point(within)].last().copied()
    }

    /// An offset at or before the first batch that may hold a timestamp at or above `target`.
    pub fn offset_before_time(&self, base: Offset, target: TimestampMs) -> Offset {
        // Everything up to an entry's offset is at most the entry's timestamp: the first record at or above the target
        // cannot be before the last entry below it.
        match self.times.partition_point(|entry| entry.timestamp < target) {
            0 => base,
            after => base + i64::from(self.times[after - 1].relative_offset),
        }
    }

    /// The largest timestamp up to the last entry below `bound`, and the last offset of its batch.
    pub fn largest_entry_below(&self, base: Offset, bound: Offset) -> Option<(Offset, TimestampMs)> {
        let below = self.times.partition_point(|entry| base + i64::from(entry.relative_offset) < bound);
        let entry = self.times[..below].last()?;
        Some((base + i64::from(entry.relative_offset), entry.timestamp))
    }

    /// Bytes the larger of the two would have on disk.
    pub fn bytes_max(&self) -> u64 {
        (self.offsets.len() * OFFSET_ENTRY_BYTES).max(self.times.len() * TIME_ENTRY_BYTES) as u64
    }

    /// The offset index's file.
    pub fn encode_offsets(&self) -> Vec<u8> {
        let entry = |e: &OffsetEntry| [e.relative_offset.to_be_bytes(), e.position.to_be_bytes()].concat();
        self.offsets.iter().flat_map(entry).collect()
    }

    /// The time index's file.
    pub fn encode_times(&self) -> Vec<u8> {
        let entry = |e: &TimeEntry| {
            let mut bytes = e.timestamp.value().to_be_bytes().to_vec();
            bytes.extend(e.relative_offset.to_be_bytes());
            bytes
        };
        self.times.iter().flat_map(entry).collect()
    }

    /// Reads both files back. `None` if they cannot be the indexes of a segment of `log_bytes` bytes whose offsets end
    /// below `base + span`: the caller then rebuilds them.
    pub fn decode(offsets: &[u8], times: &[u8], log_bytes: u64, span: u64) -> Option<Indexes> {
        let offsets = decode_offsets(offsets)?;
        let times = decode_times(times)?;
        let ascending = offsets
            .windows(2)
            .all(|w| w[0].relative_offset < w[1].relative_offset && w[0].position < w[1].position)
            && times
                .windows(2)
                .all(|w| w[0].timestamp < w[1].timestamp && w[0].relative_offset <= w[1].relative_offset);
        let within = offsets
            .last()
            .is_none_or(|e| u64::from(e.position) < log_bytes && u64::from(e.relative_offset) < span)
            && times.last().is_none_or(|e| u64::from(e.relative_offset) < span);
        if !ascending || !within {
            return None;
        }
        let largest = times.last().copied();
        Some(Indexes { offsets, times, largest, bytes_since_entry: 0 })
    }
}

fn decode_offsets(bytes: &[u8]) -> Option<Vec<OffsetEntry>> {
    let (entries, rest) = bytes.as_chunks::<OFFSET_ENTRY_BYTES>();
    let entries = entries.iter().map(|e| OffsetEntry {
        relative_offset: u32::from_be_bytes([e[0], e[1], e[2], e[3]]),
        position: u32::from_be_bytes([e[4], e[5], e[6], e[7]]),
    });
    // Kafka preallocates: zeroes behind the entries are no entries.
    let entries = entries.enumerate().take_while(|(at, e)| *at == 0 || e.position != 0).map(|(_, e)| e);
    rest.is_empty().then(|| entries.filter(|e| e.relative_offset != 0 || e.position != 0).collect())
}

fn decode_times(bytes: &[u8]) -> Option<Vec<TimeEntry>> {
    let (entries, rest) = bytes.as_chunks::<TIME_ENTRY_BYTES>();
    let entries = entries.iter().map(|e| TimeEntry {
        timestamp: TimestampMs(i64::from_be_bytes([e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7]])),
        relative_offset: u32::from_be_bytes([e[8], e[9], e[10], e[11]]),
    });
    let entries =
        entries.enumerate().take_while(|(at, e)| *at == 0 || e.timestamp.value() != 0).map(|(_, e)| e);
    rest.is_empty().then(|| entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Indexes {
        let mut indexes = Indexes::default();
        for i in 0..10i64 {
            // Timestamps go up and down: only new maxima count.
            let time = TimestampMs(1000 + if i % 3 == 2 { -5 } else { i });
            indexes.append(Offset(100), Offset(100 + i * 10 + 9), i as u64 * 50, 50, time, 99);
        }
        indexes
    }

    #[test]
    fn entries_have_kafkas_places_and_bytes() {
        let indexes = filled();
        let offsets: Vec<_> = indexes.offsets.iter().map(|e| (e.relative_offset, e.position)).collect();
        // 50 bytes a batch, an entry once more than 99 lie before it: the third batch after each.
        assert_eq!(offsets, [(29, 100), (49, 200), (69, 300), (89, 400)]);
        assert_eq!(indexes.encode_offsets()[..8], [0, 0, 0, 29, 0, 0, 0, 100]);
        let times: Vec<_> = indexes.times.iter().map(|e| (e.timestamp.value(), e.relative_offset)).collect();
        assert_eq!(times, [(1001, 19), (1004, 49), (1006, 69), (1007, 79)]);
        assert_eq!(indexes.max_timestamp(), TimestampMs(1009));
    }

    #[test]
    fn lookups_begin_at_or_before_what_they_look_for() {
        let indexes = filled();
        for i in 0..100i64 {
            let position = indexes.position_before(Offset(100), Offset(100 + i));
            assert!(position <= (i as u64 / 10) * 50, "offset {i}: {position}");
        }
        assert_eq!(indexes.position_before(Offset(100), Offset(199)), 400);
        assert_eq!(indexes.position_before(Offset(100), Offset(99)), 0);
        assert_eq!(indexes.offset_before_time(Offset(100), TimestampMs(0)), Offset(100));
        assert_eq!(indexes.offset_before_time(Offset(100), TimestampMs(1005)), Offset(149));
    }

    #[test]
    fn files_read_back_and_lies_are_found() {
        let mut indexes = filled();
        indexes.enter_largest();
        let (offsets, times) = (indexes.encode_offsets(), indexes.encode_times());
        let read = Indexes::decode(&offsets, &times, 500, 100).unwrap();
        assert_eq!(
            (read.offsets, read.times, read.largest),
            (indexes.offsets, indexes.times, indexes.largest)
        );
        assert!(Indexes::decode(&offsets, &times, 400, 100).is_none(), "a position beyond the log");
        assert!(Indexes::decode(&offsets, &times, 500, 80).is_none(), "an offset beyond the segment");
        assert!(Indexes::decode(&offsets[..13], &times, 500, 100).is_none(), "half an entry");
        let mut swapped = offsets.clone();
        swapped.swap(3, 11);
        assert!(Indexes::decode(&swapped, &times, 500, 100).is_none(), "out of order");
    }
}
