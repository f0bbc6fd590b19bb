//! Reads: by offset, by time. From the tail cache where it reaches, else from the files, never blocking the core.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use ouzel_model::batch::{BatchError, BatchView, HEADER_BYTES, Header, RecordStream, TimestampType, batches};
use ouzel_model::{Offset, TimestampMs};

use super::slices::{Give, LogSlices, Slice};
use super::{Inner, Log, ReadSlices};
use crate::error::{Damage, ReadError};
use crate::index::Indexes;
use crate::segment::Segment;

/// What is read to find the first batch: an index interval and a batch of ordinary size.
const SEEK_BYTES: usize = 16 << 10;
/// How much is read at a time when a time is looked for.
const SEARCH_BYTES: usize = 256 << 10;

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOffset {
    /// Where it is.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: TimestampMs,
}

/// What a read is to give: whole batches below `bound`, the first of them the one that holds `from` or comes next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) from: Offset,
    pub(super) bound: Offset,
    pub(super) bytes_max: usize,
    /// Also if the first one alone is larger than `bytes_max`.
    pub(super) at_least_one: bool,
}

/// How far back a read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Floor {
    /// What was trimmed is not read.
    LogStart,
    /// What was trimmed is, as long as it is there: entries are whole until they are purged.
    Entries,
}

/// A read that meets a truncation is done again; more often than this, something cuts the log without end.
const ATTEMPTS_MAX: usize = 16;

impl Inner {
    pub(super) async fn read(&self, wanted: Wanted, floor: Floor) -> Result<ReadSlices, ReadError> {
        let read = self.read_with(wanted, floor, Give::Bytes).await?;
        let only_bytes = |slice| match slice {
            Slice::Bytes(bytes) => bytes,
            Slice::Range(_) => unreachable!("none was asked for"),
        };
        Ok(ReadSlices { bytes: read.bytes, batches: read.slices.into_iter().map(only_bytes).collect() })
    }

    pub(super) async fn read_with(
        &self,
        wanted: Wanted,
        floor: Floor,
        give: Give,
    ) -> Result<LogSlices, ReadError> {
        for _ in 0..ATTEMPTS_MAX {
            let cuts = self.cuts.get();
            let slices = self.try_read(wanted, floor, give).await;
            // What was read across a cut may mix the bytes of two batches.
            if self.cuts.get() == cuts {
                return match slices {
                    Err(_) if wanted.from < self.floor(floor) => Err(self.out_of_range(wanted.from)),
                    Ok(slices) => {
                        self.gives_away(&slices);
                        Ok(slices)
                    }
                    Err(error) => Err(error),
                };
            }
        }
        Ok(LogSlices::default())
    }

    /// Takes note of how far ranges of files reach that somebody may now be sending.
    fn gives_away(&self, slices: &LogSlices) {
        if let Some(end) = slices.end
            && slices.slices.iter().any(|slice| matches!(slice, Slice::Range(_)))
        {
            self.given_end.set(self.given_end.get().max(end));
        }
    }

    fn floor(&self, floor: Floor) -> Offset {
        let state = self.state.borrow();
        match floor {
            Floor::LogStart => state.log_start,
            Floor::Entries => state.entries.as_ref().map_or(state.log_start, |entries| entries.first_base()),
        }
    }

    fn out_of_range(&self, from: Offset) -> ReadError {
        let state = self.state.borrow();
        ReadError::OutOfRange { from, log_start: state.log_start, log_end: state.log_end }
    }

    async fn try_read(&self, wanted: Wanted, floor: Floor, give: Give) -> Result<LogSlices, ReadError> {
        let Wanted { from, bound, bytes_max, at_least_one } = wanted;
        let mut read = LogSlices::default();
        let mut next = from;
        loop {
            let log_end = self.state.borrow().log_end;
            if next < self.floor(floor) || next > log_end {
                return Err(self.out_of_range(from));
            }
            let rest = Wanted {
                from: next,
                bound,
                bytes_max: bytes_max.saturating_sub(read.bytes),
                at_least_one: at_least_one && read.bytes == 0,
            };
            if next >= bound.min(log_end) || (rest.bytes_max == 0 && !rest.at_least_one) {
                return Ok(read);
            }
            if let Some((batches, end)) = self.tail.read(next, bound, rest.bytes_max, rest.at_least_one) {
                batches.into_iter().for_each(|batch| read.push(Slice::Bytes(batch), end));
                return Ok(read);
            }
            let Some(segment) = self.segment_of(next) else { return Ok(read) };
            let Some(_inside) = self.gate.enter() else { return Err(ReadError::Deleted) };
            let sliced = match give {
                Give::Bytes => None,
                Give::Ranges => self.slice_of(&segment, rest).await?,
            };
            if let Some((slice, end)) = sliced {
                let Some(slice) = slice else { return Ok(read) };
                read.push(slice, end);
                next = end;
                continue;
            }
            let Some(piece) = self.read_segment(&segment, rest).await? else {
                // Nothing at or behind `next` in this file: the next one goes on, if there is one.
                // By the next one's base, not by this one's end, where offsets are missing between the two. But this one
                // may have been replaced meanwhile, by one that goes beyond it.
                let after =
                    Some(segment.end.get()).filter(|end| *end > next).or_else(|| self.base_after(&segment));
                let Some(after) = after else { return Ok(read) };
                next = after;
                continue;
            };
            let Piece { bytes, end } = piece;
            if bytes.is_empty() {
                return Ok(read);
            }
            read.push(Slice::Bytes(bytes), end);
            next = end;
        }
    }

    fn segment_of(&self, offset: Offset) -> Option<Rc<Segment>> {
        let state = self.state.borrow();
        let after = state.segments.partition_point(|segment| segment.base <= offset);
        state.segments.get(after.checked_sub(1)?).cloned()
    }

    fn base_after(&self, segment: &Segment) -> Option<Offset> {
        let state = self.state.borrow();
        let after = state.segments.partition_point(|other| other.base <= segment.base);
        state.segments.get(after).map(|next| next.base)
    }

    pub(super) async fn indexes_of(&self, segment: &Rc<Segment>) -> Result<Rc<RefCell<Indexes>>, ReadError> {
        let interval_bytes = self.state.borrow().config.index_interval_bytes;
        segment.indexes(&self.shared.runtime.disk, &self.shared.open_segments, interval_bytes).await
    }

    /// Reads one file; `None` if no batch at or behind `from` is in it.
    async fn read_segment(&self, segment: &Rc<Segment>, wanted: Wanted) -> Result<Option<Piece>, ReadError> {
        let indexes = self.indexes_of(segment).await?;
        self.shared.open_segments.touch(segment);
        let begin = indexes.borrow().position_before(segment.base, wanted.from);
        match self.read_file(segment, begin, wanted).await {
            Ok(Some(Found { led_beyond: false, piece })) => Ok(Some(piece)),
            Err(error @ (ReadError::Io { .. } | ReadError::OutOfRange { .. } | ReadError::Deleted)) => {
                Err(error)
            }
            // The index led to no batch, or beyond the one that was looked for: it lies, or the file is damaged.
            _ if begin > 0 && segment.sealed.get() => {
                let interval_bytes = self.state.borrow().config.index_interval_bytes;
                segment.rebuild_indexes(&self.shared.runtime.disk, interval_bytes).await?;
                let begin = self.indexes_of(segment).await?;
                let begin = begin.borrow().position_before(segment.base, wanted.from);
                let found = self.read_file(segment, begin, wanted).await?;
                Ok(found.map(|found| found.piece))
            }
            other => other.map(|found| found.map(|found| found.piece)),
        }
    }

    /// Reads whole batches from the first that reaches `from`, looking for it from position `begin` on.
    async fn read_file(
        &self,
        segment: &Rc<Segment>,
        begin: u64,
        wanted: Wanted,
    ) -> Result<Option<Found>, ReadError> {
        let Wanted { from, bytes_max, at_least_one, .. } = wanted;
        let disk = &self.shared.runtime.disk;
        let end = segment.written_bytes.get();
        let file = segment.file(disk).await.map_err(|source| segment.failed(source))?;
        let mut position = begin;
        let mut led_beyond = false;
        let mut want = bytes_max.min(READ_BYTES_MAX).saturating_add(SEEK_BYTES);
        // Seek: step over whole batches below `from`.
        while position < end {
            let len = want.min((end - position) as usize);
            let chunk = file.read_at(position, len).await.map_err(|source| segment.failed(source))?;
            let mut at = 0;
            let first = loop {
                let header = next_header(segment.path(), &chunk[at..], position + at as u64)?;
                // What an index names reaches no further than what is looked for: offsets may be missing behind it.
                if position + at as u64 == begin && begin > 0 {
                    led_beyond = header.as_ref().is_some_and(|header| header.last_offset() > from);
                }
                match header {
                    Some(header) if header.last_offset() < from => at += header.size_bytes(),
                    other => break other,
                }
                if at >= chunk.len() {
                    break None;
                }
            };
            let Some(first) = first else {
                // All of the chunk lies before `from`; the last batch may reach beyond it. A rest without a whole header
                // moves nothing only where the file ends early.
                position += if at == 0 { chunk.len().max(1) } else { at } as u64;
                continue;
            };
            let there = chunk.len() - at;
            if first.size_bytes() > there && (position + at as u64) + first.size_bytes() as u64 <= end {
                // The batch is larger than what was read of it: begin there, with room for all of it.
                if first.size_bytes() > bytes_max && !at_least_one {
                    return Ok(Some(Found { led_beyond, piece: Piece::empty(from) }));
                }
                position += at as u64;
                want = first.size_bytes().max(bytes_max.min(READ_BYTES_MAX));
                continue;
            }
            let piece = take_batches(&chunk.slice(at..), wanted);
            return Ok(Some(Found { led_beyond, piece }));
        }
        Ok(None)
    }
}

/// The largest read of a file at once; a larger fetch is put together from several.
const READ_BYTES_MAX: usize = 1 << 20;

/// Whole batches of one file, and the offset behind them.
struct Piece {
    bytes: Bytes,
    end: Offset,
}

impl Piece {
    fn empty(at: Offset) -> Piece {
        Piece { bytes: Bytes::new(), end: at }
    }
}

struct Found {
    /// The search began beyond what it was for.
    led_beyond: bool,
    piece: Piece,
}

/// The header at the front of `bytes`; `None` if not even that is all there.
fn next_header(file: &Path, bytes: &[u8], position: u64) -> Result<Option<Header>, ReadError> {
    match Header::parse(bytes) {
        Ok(header) => Ok(Some(header)),
        Err(BatchError::Truncated { .. }) => Ok(None),
        Err(error) => Err(Damage::new(file, position, "a record batch", error).into()),
    }
}

/// The longest run of whole batches below `bound` that fits.
fn take_batches(bytes: &Bytes, wanted: Wanted) -> Piece {
    let Wanted { from, bound, bytes_max, at_least_one } = wanted;
    let (mut taken, mut end) = (0, from);
    while taken + HEADER_BYTES <= bytes.len() {
        let Ok(header) = Header::parse(&bytes[taken..]) else { break };
        let with_it = taken + header.size_bytes();
        let fits = with_it <= bytes_max || (at_least_one && taken == 0);
        if header.last_offset() >= bound || with_it > bytes.len() || !fits {
            break;
        }
        (taken, end) = (with_it, header.next_offset());
    }
    if taken == 0 { Piece::empty(from) } else { Piece { bytes: bytes.slice(..taken), end } }
}

impl Log {
    /// The first record whose timestamp is at or above `target`, below `bound`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn offset_for_time(
        &self,
        target: TimestampMs,
        bound: Offset,
    ) -> Result<Option<TimedOffset>, ReadError> {
        for segment in self.segments_below(bound) {
            let (max_timestamp, begin) = {
                let indexes = self.inner.indexes_of(&segment).await?;
                let indexes = indexes.borrow();
                (indexes.max_timestamp(), indexes.offset_before_time(segment.base, target))
            };
            if max_timestamp < target {
                continue;
            }
            let matches = |_: Offset, timestamp: TimestampMs| timestamp >= target;
            let found = self
                .search(begin, segment.end.get().min(bound), |h| h.max_timestamp >= target, matches)
                .await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first record of the largest timestamp below `bound`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn offset_of_max_timestamp(&self, bound: Offset) -> Result<Option<TimedOffset>, ReadError> {
        let log_start = self.offsets().log_start;
        let mut best: Option<(TimestampMs, Rc<Segment>)> = None;
        for segment in self.segments_below(bound) {
            let whole = segment.base >= log_start && segment.end.get() <= bound;
            let max = if whole {
                self.max_timestamp_of(&segment).await?
            } else {
                self.max_between(&segment, log_start, bound).await?
            };
            if max != TimestampMs::NONE && best.as_ref().is_none_or(|(known, _)| max > *known) {
                best = Some((max, segment));
            }
        }
        let Some((max, segment)) = best else { return Ok(None) };
        let begin = self.inner.indexes_of(&segment).await?.borrow().offset_before_time(segment.base, max);
        let matches = |_: Offset, timestamp: TimestampMs| timestamp == max;
        self.search(begin, segment.end.get().min(bound), |h| h.max_timestamp >= max, matches).await
    }

    /// The largest timestamp of a segment's records from the log start up to `bound`.
    async fn max_between(
        &self,
        segment: &Rc<Segment>,
        log_start: Offset,
        bound: Offset,
    ) -> Result<TimestampMs, ReadError> {
        // The time index knows the largest up to each of its entries, unless a trim took the record.
        let known = if segment.base >= log_start {
            self.inner.indexes_of(segment).await?.borrow().largest_entry_below(segment.base, bound)
        } else {
            None
        };
        let (begin, max) = known.unwrap_or((segment.base, TimestampMs::NONE));
        let max = Cell::new(max);
        let note = |timestamp: TimestampMs| max.set(max.get().max(timestamp));
        let of_interest = |header: &Header| {
            // A batch that the start lies in counts by its records.
            let cut = header.base_offset < log_start;
            if !cut && !header.attributes.is_control() && header.record_count > 0 {
                note(header.max_timestamp);
            }
            cut
        };
        let look = |_: Offset, timestamp: TimestampMs| {
            note(timestamp);
            false
        };
        self.search(begin, segment.end.get().min(bound), of_interest, look).await?;
        Ok(max.get())
    }

    /// The largest timestamp of a segment, from its indexes.
    pub(super) async fn max_timestamp_of(&self, segment: &Rc<Segment>) -> Result<TimestampMs, ReadError> {
        Ok(self.inner.indexes_of(segment).await?.borrow().max_timestamp())
    }

    fn segments_below(&self, bound: Offset) -> Vec<Rc<Segment>> {
        let state = self.inner.state.borrow();
        let below = |segment: &&Rc<Segment>| segment.base < bound && segment.end.get() > state.log_start;
        state.segments.iter().filter(below).cloned().collect()
    }

    /// Walks batches from the one that holds `begin` up to `end`, opens those whose header is of interest, and gives the
    /// first record that matches.
    async fn search(
        &self,
        begin: Offset,
        end: Offset,
        mut of_interest: impl FnMut(&Header) -> bool,
        matches: impl Fn(Offset, TimestampMs) -> bool,
    ) -> Result<Option<TimedOffset>, ReadError> {
        let log_start = self.offsets().log_start;
        let mut from = begin.max(log_start);
        while from < end {
            let wanted = Wanted { from, bound: end, bytes_max: SEARCH_BYTES, at_least_one: true };
            let slices = self.inner.read(wanted, Floor::LogStart).await?;
            let before = from;
            for batch in slices.batches.iter().flat_map(|chunk| batches(chunk)) {
                let batch = batch.map_err(|error| self.unreadable(from, error))?;
                from = batch.header.next_offset();
                if !of_interest(&batch.header) || batch.header.attributes.is_control() {
                    continue;
                }
                if let Some(found) = self.search_batch(&batch, log_start, &matches)? {
                    return Ok(Some(found));
                }
            }
            if from == before {
                break;
            }
        }
        Ok(None)
    }

    fn search_batch(
        &self,
        batch: &BatchView<'_>,
        log_start: Offset,
        matches: impl Fn(Offset, TimestampMs) -> bool,
    ) -> Result<Option<TimedOffset>, ReadError> {
        let base = batch.header.base_offset;
        let unreadable = |error: &dyn std::fmt::Display| self.unreadable(base, error);
        let mut records = RecordStream::new(batch, usize::MAX).map_err(|error| unreadable(&error))?;
        while let Some(facts) = records.next_facts() {
            let facts = facts.map_err(|error| unreadable(&error))?;
            let offset = base + i64::from(facts.offset_delta);
            let timestamp = match batch.header.attributes.timestamp_type() {
                TimestampType::CreateTime => facts.create_time,
                TimestampType::LogAppendTime => batch.header.max_timestamp,
            };
            if offset >= log_start && matches(offset, timestamp) {
                return Ok(Some(TimedOffset { offset, timestamp }));
            }
        }
        Ok(None)
    }

    fn unreadable(&self, offset: Offset, error: impl std::fmt::Display) -> ReadError {
        let expected = format!("a readable batch at offset {offset}");
        Damage::new(&self.inner.dir, 0, expected, error).into()
    }
}
