//! Slices of a log for whoever sends them: bytes where they are in memory of ours, else a range of a file, which is not
//! read at all but for the headers at its ends.
//!
//! # What a range promises
//! The bytes of a range that was given away never change, whatever becomes of the log while they are being sent, which may
//! take minutes, and the kernel sends them from the very pages of the file:
//!
//! * they were written before, and a segment is written to behind its end only;
//! * retention, deletion and compaction unlink files or put others in their place: the range keeps its own one open;
//! * a cut of the tail shortens the file in place, and what is appended then would be sent in the place of what was
//!   promised. Readers get only what is committed, which a cut does not reach, save after an unclean election. A cut that
//!   does reach below the end of what was given away leaves the file as it is, and puts a copy of what stays in its place
//!   (see [`Inner::shorten`](super::Inner)).

use std::rc::Rc;

use bytes::Bytes;
use ouzel_model::Offset;
use ouzel_model::batch::{HEADER_BYTES, Header};
use ouzel_runtime::File;
use ouzel_runtime::disk::SharedFile;

use super::lookup::{Floor, Wanted};
use super::{Inner, Log};
use crate::error::ReadError;
use crate::segment::Segment;

/// Below this many bytes a copy costs less than a call of its own to send them.
const RANGE_BYTES_MIN: usize = 16 << 10;
/// What is read around a header: those of some small batches, or one page or two.
const HEADERS_BYTES: usize = 4 << 10;

/// Whole batches of a log, one behind another.
#[derive(Clone, Debug)]
pub enum Slice {
    /// In memory.
    Bytes(Bytes),
    /// In a file.
    Range(FileRange),
}

impl Slice {
    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        match self {
            Slice::Bytes(bytes) => bytes.len(),
            Slice::Range(range) => range.bytes,
        }
    }
}

/// A part of a file that stays what it is, and stays open; may travel between cores.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// The file.
    pub file: SharedFile,
    /// Where it begins.
    pub position: u64,
    /// How long it is.
    pub bytes: usize,
}

/// What a read for sending gives.
#[derive(Clone, Debug, Default)]
pub struct LogSlices {
    /// The first one's first batch holds the offset asked for.
    pub slices: Vec<Slice>,
    /// Their bytes together.
    pub bytes: usize,
    /// The offset behind the last batch; nothing if there is none.
    pub end: Option<Offset>,
}

impl LogSlices {
    pub(super) fn push(&mut self, slice: Slice, end: Offset) {
        self.bytes += slice.bytes();
        self.slices.push(slice);
        self.end = Some(end);
    }
}

/// Where whole batches lie in a file.
pub(super) struct Found {
    position: u64,
    bytes: usize,
    pub(super) end: Offset,
}

impl Log {
    /// As [`Log::read`], for whoever sends the batches on: what is not in memory is not read, but told as a range of its
    /// file.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn slices(
        &self,
        from: Offset,
        bound: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<LogSlices, ReadError> {
        let wanted = Wanted { from, bound, bytes_max, at_least_one };
        self.inner.read_with(wanted, Floor::LogStart, Give::Ranges).await
    }
}

/// How batches that are in a file are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Give {
    /// Read into memory.
    Bytes,
    /// Read only where that is cheaper.
    Ranges,
}

impl Inner {
    /// What lies in a segment's file from the batch that holds `from` on; `None` if that is not as simple as it should be:
    /// reading it tells why.
    pub(super) async fn slice_of(
        &self,
        segment: &Rc<Segment>,
        wanted: Wanted,
    ) -> Result<Option<(Option<Slice>, Offset)>, ReadError> {
        let disk = &self.shared.runtime.disk;
        let file = segment.file(disk).await.map_err(|source| segment.failed(source))?;
        let found = self.find(segment, &file, wanted).await?;
        let Some(Found { position, bytes, end }) = found else { return Ok(None) };
        if bytes == 0 {
            return Ok(Some((None, wanted.from)));
        }
        if bytes < RANGE_BYTES_MIN {
            let read = file.read_resident(position, bytes).map_err(|source| segment.failed(source))?;
            if let Some(read) = read {
                return Ok(Some((Some(Slice::Bytes(read)), end)));
            }
        }
        Ok(Some((Some(Slice::Range(FileRange { file: file.share(), position, bytes })), end)))
    }

    async fn find(
        &self,
        segment: &Rc<Segment>,
        file: &File,
        wanted: Wanted,
    ) -> Result<Option<Found>, ReadError> {
        let Wanted { from, bound, bytes_max, at_least_one } = wanted;
        let indexes = self.indexes_of(segment).await?;
        self.shared.open_segments.touch(segment);
        // Both of one moment: the file grows meanwhile.
        let file_bytes = segment.written_bytes.get();
        let file_end = match file_bytes == segment.size_bytes.get() {
            true => segment.end.get(),
            false => self.state.borrow().written_end,
        };
        let mut headers = Headers { segment, file, end: file_bytes, chunk: Bytes::new(), chunk_at: 0 };

        // The first batch, looked for behind the index entry before it.
        let begin = indexes.borrow().position_before(segment.base, from);
        let mut position = begin;
        let first = loop {
            match headers.at(position).await? {
                Some(header) if header.last_offset() < from => position += header.size_bytes() as u64,
                Some(header) => break header,
                None => return Ok(None),
            }
        };
        if position == begin && begin > 0 && first.last_offset() > from {
            // Further than an index that does not lie would have led.
            return Ok(None);
        }
        let room = match at_least_one {
            true => bytes_max.max(first.size_bytes()) as u64,
            false => bytes_max as u64,
        };
        let behind_first = position + first.size_bytes() as u64;
        if first.last_offset() >= bound || first.size_bytes() as u64 > room || behind_first > file_bytes {
            return Ok(Some(Found { position, bytes: 0, end: from }));
        }

        // The last one that fits, likewise.
        let until = position.saturating_add(room);
        let (mut stop, mut end) = (behind_first, first.next_offset());
        if file_bytes <= until && file_end <= bound {
            (stop, end) = (file_bytes, file_end);
        } else {
            let entry = indexes.borrow().last_entry_within(segment.base, until, bound);
            if let Some(entry) = entry.filter(|entry| u64::from(entry.position) > stop) {
                let at = u64::from(entry.position);
                match headers.at(at).await? {
                    Some(header)
                        if header.last_offset() == segment.base + i64::from(entry.relative_offset) =>
                    {
                        (stop, end) = (at, header.base_offset);
                    }
                    _ => return Ok(None),
                }
            }
            while let Some(header) = headers.at(stop).await? {
                let behind = stop + header.size_bytes() as u64;
                if header.last_offset() >= bound || behind > until.min(file_bytes) {
                    break;
                }
                (stop, end) = (behind, header.next_offset());
            }
        }
        Ok(Some(Found { position, bytes: (stop - position) as usize, end }))
    }
}

/// Headers of a file, a few of them read at a time.
struct Headers<'a> {
    segment: &'a Segment,
    file: &'a File,
    /// Where the written bytes end.
    end: u64,
    chunk: Bytes,
    chunk_at: u64,
}

impl Headers<'_> {
    /// The header at a position; `None` if there is none that is whole and well formed.
    async fn at(&mut self, position: u64) -> Result<Option<Header>, ReadError> {
        if position + HEADER_BYTES as u64 > self.end {
            return Ok(None);
        }
        let chunk_end = self.chunk_at + self.chunk.len() as u64;
        if position < self.chunk_at || position + HEADER_BYTES as u64 > chunk_end {
            let len = HEADERS_BYTES.min((self.end - position) as usize);
            let failed = |source| self.segment.failed(source);
            self.chunk = match self.file.read_resident(position, len).map_err(failed)? {
                Some(chunk) => chunk,
                None => self.file.read_at(position, len).await.map_err(failed)?,
            };
            self.chunk_at = position;
        }
        Ok(Header::parse(&self.chunk[(position - self.chunk_at) as usize..]).ok())
    }
}
