//! One segment of a log: a `.log` file and its indexes, opened when first needed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use ouzel_model::batch::{BatchError, BatchView, HEADER_BYTES, Header};
use ouzel_model::{LeaderEpoch, Offset, TimestampMs};
use ouzel_runtime::disk::OpenMode;
use ouzel_runtime::{Bytes, Disk, File};

use crate::error::{Damage, ReadError};
use crate::index::{IndexMark, Indexes};
use crate::layout;

/// How much of a segment is read at a time when it is walked.
pub(crate) const WALK_BYTES: usize = 1 << 20;

/// How much is read at a time where nothing but headers is expected.
const EMPTIED_READ_BYTES: usize = 16 << 10;

/// A segment. Shared by the log and by reads that are under way; those keep its file readable after it was deleted.
pub(crate) struct Segment {
    pub(crate) base: Offset,
    path: PathBuf,
    /// Exclusive end; grows while the segment is active.
    pub(crate) end: Cell<Offset>,
    /// Bytes of all batches, those still on their way to the file included.
    pub(crate) size_bytes: Cell<u64>,
    /// Bytes that are in the file.
    pub(crate) written_bytes: Cell<u64>,
    /// Timestamp of the first batch; the age of the segment counts from it.
    pub(crate) first_timestamp: Cell<Option<TimestampMs>>,
    /// The broker's time at the last append, or at the opening of the log.
    pub(crate) last_write: Cell<TimestampMs>,
    /// The active segment's are always here; a sealed one's are read when first needed.
    indexes: RefCell<Option<Rc<RefCell<Indexes>>>>,
    file: RefCell<Option<File>>,
    pub(crate) sealed: Cell<bool>,
    /// Its path is another's, or is about to be: who still reads it does so through the open file, and nothing is written
    /// or opened by its name any more.
    replaced: Cell<bool>,
    /// CRC-32C of its file, once somebody asked while it was sealed.
    pub(crate) checksum: Cell<Option<u32>>,
    /// See [`OpenSegments`]; 0 before the first.
    last_turn: Cell<u64>,
}

impl Segment {
    /// A segment that is still empty; its file is made by the first write.
    pub(crate) fn new(dir: &Path, base: Offset) -> Rc<Segment> {
        Rc::new(Segment::blank(layout::segment_file(dir, base, layout::LOG), base))
    }

    fn blank(path: PathBuf, base: Offset) -> Segment {
        Segment {
            base,
            path,
            end: Cell::new(base),
            size_bytes: Cell::new(0),
            written_bytes: Cell::new(0),
            first_timestamp: Cell::new(None),
            last_write: Cell::new(TimestampMs::NONE),
            indexes: RefCell::new(Some(Rc::default())),
            file: RefCell::new(None),
            sealed: Cell::new(false),
            replaced: Cell::new(false),
            checksum: Cell::new(None),
            last_turn: Cell::new(0),
        }
    }

    /// A file that is to become a segment's, at a path of its own; to be walked.
    pub(crate) fn at_path(path: PathBuf, base: Offset) -> Segment {
        Segment { indexes: RefCell::new(None), ..Segment::blank(path, base) }
    }

    /// A segment that is on the disk, with `size_bytes` bytes up to offset `end`.
    pub(crate) fn existing(dir: &Path, base: Offset, end: Offset, size_bytes: u64) -> Rc<Segment> {
        let segment = Segment::new(dir, base);
        segment.end.set(end);
        segment.size_bytes.set(size_bytes);
        segment.written_bytes.set(size_bytes);
        segment.indexes.replace(None);
        segment
    }

    /// The `.log` file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Gives it indexes that were just built.
    pub(crate) fn set_indexes(&self, indexes: Indexes) {
        self.indexes.replace(Some(Rc::new(RefCell::new(indexes))));
    }

    /// The indexes, if they are in memory.
    pub(crate) fn indexes_in_memory(&self) -> Option<Rc<RefCell<Indexes>>> {
        self.indexes.borrow().clone()
    }

    /// The indexes; those of a sealed segment are read from their files, or rebuilt if these are no indexes of it.
    pub(crate) async fn indexes(
        self: &Rc<Self>,
        disk: &Disk,
        open: &OpenSegments,
        interval_bytes: u64,
    ) -> Result<Rc<RefCell<Indexes>>, ReadError> {
        if let Some(indexes) = self.indexes_in_memory() {
            return Ok(indexes);
        }
        match self.read_indexes(disk).await {
            // Another read may have loaded them meanwhile; either copy is right.
            Some(indexes) => self.set_indexes(indexes),
            None => self.rebuild_indexes(disk, interval_bytes).await?,
        }
        open.touch(self);
        Ok(self.indexes_in_memory().unwrap_or_default())
    }

    async fn read_indexes(&self, disk: &Disk) -> Option<Indexes> {
        let indexes = self.read_index_files(disk, u64::try_from(self.end.get() - self.base).ok()?).await?;
        // An index that lies may still be well formed: its last entry must meet its batch.
        if let Some(last) = indexes.offsets.last() {
            let file = self.file(disk).await.ok()?;
            let bytes = file.read_at(last.position.into(), HEADER_BYTES).await.ok()?;
            let header = Header::parse(&bytes).ok()?;
            if header.last_offset() != self.base + i64::from(last.relative_offset) {
                return None;
            }
        }
        Some(indexes)
    }

    async fn read_index_files(&self, disk: &Disk, span: u64) -> Option<Indexes> {
        let offsets = disk.read(&layout::segment_file(self.dir(), self.base, layout::INDEX)).await.ok()?;
        let times = disk.read(&layout::segment_file(self.dir(), self.base, layout::TIME_INDEX)).await.ok()?;
        Indexes::decode(&offsets, &times, self.written_bytes.get(), span)
    }

    /// Takes the indexes for wrong: the next reader builds them from the batches.
    pub(crate) async fn rebuild_indexes(&self, disk: &Disk, interval_bytes: u64) -> Result<(), ReadError> {
        tracing::warn!(segment = %self.path.display(), "the indexes are missing or wrong; building them anew");
        let rebuilt =
            self.walk(disk, Walk::at_start(self.base), Offset(i64::MAX), interval_bytes, |_| {}).await?;
        if let Some(damage) = rebuilt.damage {
            return Err(damage.into());
        }
        let mut indexes = rebuilt.indexes;
        indexes.enter_largest();
        if !self.replaced.get() {
            self.write_indexes(disk, &indexes).await.map_err(|source| self.failed(source))?;
        }
        self.set_indexes(indexes);
        Ok(())
    }

    /// Writes both index files. The time index is flushed: one that lost its end would hide records from a look-up, while
    /// an offset index that did only makes seeking longer.
    pub(crate) async fn write_indexes(&self, disk: &Disk, indexes: &Indexes) -> io::Result<()> {
        let path = |extension| layout::segment_file(self.dir(), self.base, extension);
        write_derived(disk, &path(layout::INDEX), indexes.encode_offsets()).await?;
        place_derived(disk, &path(layout::TIME_INDEX), indexes.encode_times()).await?.sync_data().await
    }

    /// The file, opened for reading and writing, made if it is not there.
    pub(crate) async fn file_for_append(&self, disk: &Disk) -> io::Result<File> {
        if let Some(file) = &*self.file.borrow() {
            return Ok(file.clone());
        }
        let file = disk.open(&self.path, OpenMode::CreateOrOpen).await?;
        self.file.replace(Some(file.clone()));
        Ok(file)
    }

    /// Whether the file is open, and so known to be there.
    pub(crate) fn is_open(&self) -> bool {
        self.file.borrow().is_some()
    }

    /// The file, which must be there.
    pub(crate) async fn file(&self, disk: &Disk) -> io::Result<File> {
        if let Some(file) = &*self.file.borrow() {
            return Ok(file.clone());
        }
        let file = disk.open(&self.path, OpenMode::ReadWrite).await?;
        self.file.replace(Some(file.clone()));
        Ok(file)
    }

    /// Makes it the active segment again, cut to what `walk` saw.
    pub(crate) fn cut(&self, walk: Walk) {
        self.end.set(walk.end);
        self.size_bytes.set(walk.position);
        self.written_bytes.set(walk.position);
        self.first_timestamp.set(walk.first_timestamp);
        self.set_indexes(walk.indexes);
        self.checksum.set(None);
        self.sealed.set(false);
    }

    /// Opens the file and keeps it open, for whoever is on the way to it: another is about to take its name.
    pub(crate) async fn hold_for_readers(&self, disk: &Disk) -> io::Result<()> {
        self.replaced.set(true);
        self.file(disk).await.map(|_| ())
    }

    /// Another file has taken its name and is now its own; whoever reads the former one goes on doing so.
    pub(crate) fn change_file(&self) {
        self.file.replace(None);
    }

    /// Its name stays its own after all.
    pub(crate) fn release(&self) {
        self.replaced.set(false);
    }

    /// Gives up the file and the indexes; a sealed segment opens them anew when needed.
    fn close(&self) {
        if self.replaced.get() {
            return;
        }
        self.file.replace(None);
        self.indexes.replace(None);
    }

    /// Names the file in an error.
    pub(crate) fn failed(&self, source: io::Error) -> ReadError {
        ReadError::Io { path: self.path.clone(), source }
    }

    /// The largest timestamp that its batches had before compaction took all their records; none if one has records, or
    /// names no timestamp.
    pub(crate) async fn max_timestamp_if_emptied(
        &self,
        disk: &Disk,
    ) -> Result<Option<TimestampMs>, ReadError> {
        let file = self.file(disk).await.map_err(|source| self.failed(source))?;
        let mut max = None;
        let mut position = 0;
        while position < self.written_bytes.get() {
            let bytes =
                file.read_at(position, EMPTIED_READ_BYTES).await.map_err(|source| self.failed(source))?;
            let before = position;
            let mut rest = &bytes[..];
            while let Ok(header) = Header::parse(rest) {
                if header.record_count > 0 || header.max_timestamp == TimestampMs::NONE {
                    return Ok(None);
                }
                max = max.max(Some(header.max_timestamp));
                position += header.size_bytes() as u64;
                rest = rest.get(header.size_bytes()..).unwrap_or_default();
            }
            // Whoever reads its batches says what is wrong with them.
            if position == before {
                return Ok(None);
            }
        }
        Ok(max)
    }

    /// Walks the batches of the file from where `walk` stands, CRC and order included, and builds the indexes on the way.
    ///
    /// Stops before the first batch that reaches `until` or beyond; and at the first one that is not whole or not the one
    /// that belongs there, and says where. `each` sees every sound batch's header, and perhaps that of one which then turns
    /// out not to belong there: the walk that is reported ends before it.
    pub(crate) async fn walk(
        &self,
        disk: &Disk,
        mut walk: Walk,
        until: Offset,
        interval_bytes: u64,
        mut each: impl FnMut(&Header),
    ) -> Result<Walk, ReadError> {
        let file = self.file(disk).await.map_err(|source| self.failed(source))?;
        let file_bytes = file.len().await.map_err(|source| self.failed(source))?;
        while walk.position < file_bytes {
            let mut len = WALK_BYTES;
            let mut chunk = file.read_at(walk.position, len).await.map_err(|source| self.failed(source))?;
            let before = walk.position;
            loop {
                let rest = &chunk[(walk.position - before) as usize..];
                if rest.is_empty() {
                    break;
                }
                match sound_batch(rest, &walk, file_bytes) {
                    Ok(header) if header.last_offset() >= until => return Ok(walk),
                    Ok(header) => {
                        each(&header);
                        walk.take(self.base, &header, interval_bytes);
                    }
                    Err(Unsound::BeforeItsPlace { base_offset, .. })
                        if walk.gap.as_ref().is_some_and(|gap| base_offset >= gap.end_without()) =>
                    {
                        let liar = walk.go_back();
                        return Ok(walk.ended(self, liar, file_bytes));
                    }
                    Err(Unsound::NeedsMore(bytes)) if walk.position + bytes as u64 <= file_bytes => {
                        if walk.position > before {
                            break; // it begins the next chunk
                        }
                        // Larger than a chunk: with all of its bytes it is asked for no more.
                        assert!(bytes > len, "a batch of {bytes} bytes does not need more than {len}");
                        len = bytes;
                        chunk =
                            file.read_at(walk.position, len).await.map_err(|source| self.failed(source))?;
                    }
                    Err(unsound) => {
                        let left = file_bytes - walk.position;
                        // Less than a header says nothing by being zero: base offsets begin with zeros.
                        walk.zeroes = left >= HEADER_BYTES as u64
                            && rest_is_zero(&file, walk.position, file_bytes)
                                .await
                                .map_err(|source| self.failed(source))?;
                        return Ok(walk.ended(self, unsound, file_bytes));
                    }
                }
            }
        }
        Ok(walk)
    }

    /// Where a walk may go on in a segment whose index files are right, after a clean stop: behind the batch of the last
    /// index entry. `None` if they are not there or do not fit the file; then the walk begins at the start.
    pub(crate) async fn walk_behind_index(&self, disk: &Disk) -> Result<Option<Walk>, ReadError> {
        let file = self.file(disk).await.map_err(|source| self.failed(source))?;
        let header_at = async |position: u64| {
            let bytes = file.read_at(position, HEADER_BYTES).await.map_err(|source| self.failed(source))?;
            Ok::<_, ReadError>(Header::parse(&bytes).ok())
        };
        let Some(indexes) = self.read_index_files(disk, i32::MAX as u64 + 1).await else { return Ok(None) };
        let Some(last) = indexes.offsets.last().copied() else { return Ok(None) };
        let position = u64::from(last.position);
        let (Some(first), Some(header)) = (header_at(0).await?, header_at(position).await?) else {
            return Ok(None);
        };
        if header.last_offset() != self.base + i64::from(last.relative_offset) {
            return Ok(None);
        }
        let mut walk = Walk::at_start(self.base);
        walk.indexes = indexes.resumed(header.size_bytes() as u64);
        walk.position = position + header.size_bytes() as u64;
        walk.end = header.next_offset();
        walk.first_timestamp = Some(first.max_timestamp);
        walk.last_epoch = Some(header.partition_leader_epoch);
        Ok(Some(walk))
    }
}

fn sound_batch(bytes: &[u8], walk: &Walk, file_bytes: u64) -> Result<Header, Unsound> {
    let view = BatchView::parse(bytes).map_err(|error| match error {
        BatchError::Truncated { needed, .. } => Unsound::NeedsMore(needed),
        other => Unsound::Bad(other.to_string()),
    })?;
    view.verify_crc().map_err(|error| Unsound::Bad(error.to_string()))?;
    // The CRC leaves out base offset and leader epoch: their order is what tells a flipped bit in them. Compaction leaves
    // gaps, but neither does it touch the last segment nor move a segment's end: a base offset that is too large takes
    // from what follows, or makes the one gap of a segment that has no others.
    let header = view.header;
    let offsets = || format!("offsets {} to {}", header.base_offset, header.last_offset());
    if header.last_offset_delta < 0 {
        return Err(Unsound::OutOfOrder(offsets()));
    }
    if header.base_offset < walk.end {
        return Err(Unsound::BeforeItsPlace { base_offset: header.base_offset, found: offsets() });
    }
    let does_not_belong = match walk.follows {
        Follows::Unknown => false,
        Follows::Segment(base) => header.next_offset() > base,
        Follows::Nothing => {
            let ends_log = walk.position + header.size_bytes() as u64 >= file_bytes;
            header.base_offset > walk.end && ends_log && !walk.has_gaps
        }
    };
    if does_not_belong {
        return Err(Unsound::OutOfOrder(offsets()));
    }
    if walk.last_epoch.is_some_and(|last| header.partition_leader_epoch < last) {
        return Err(Unsound::OutOfOrder(format!("leader epoch {}", header.partition_leader_epoch)));
    }
    Ok(header)
}

/// The largest timestamp of a batch's records. One that compaction has emptied still names the largest it had, and nobody
/// would find a record there.
pub(crate) fn time_of_records(header: &Header) -> TimestampMs {
    if header.record_count > 0 { header.max_timestamp } else { TimestampMs::NONE }
}

/// Writes a derived file in place: no rename and no flush, whoever reads it checks it.
pub(crate) async fn write_derived(disk: &Disk, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
    place_derived(disk, path, bytes).await.map(|_| ())
}

pub(crate) async fn place_derived(disk: &Disk, path: &Path, bytes: Vec<u8>) -> io::Result<File> {
    let file = disk.open(path, OpenMode::CreateOrOpen).await?;
    let len = bytes.len() as u64;
    if len > 0 {
        file.write_at(0, vec![Bytes::from(bytes)]).await?;
    }
    file.truncate(len).await?;
    Ok(file)
}

async fn rest_is_zero(file: &File, mut position: u64, end: u64) -> io::Result<bool> {
    while position < end {
        let chunk = file.read_at(position, WALK_BYTES).await?;
        if chunk.is_empty() || chunk.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        position += chunk.len() as u64;
    }
    Ok(true)
}

enum Unsound {
    /// The batch needs so many bytes in all.
    NeedsMore(usize),
    Bad(String),
    OutOfOrder(String),
    /// It begins below the end of the batch before it: one of the two lies.
    BeforeItsPlace {
        base_offset: Offset,
        found: String,
    },
}

/// Where a walk stood before the batch it took last, which left a gap before it.
struct BeforeGap {
    position: u64,
    end: Offset,
    indexes: IndexMark,
    first_timestamp: Option<TimestampMs>,
    last_epoch: Option<LeaderEpoch>,
    /// The batch.
    base_offset: Offset,
    last_offset: Offset,
}

impl BeforeGap {
    /// Where the batch would have ended at the earliest, had there been no gap.
    fn end_without(&self) -> Offset {
        self.end + (self.last_offset.next() - self.base_offset)
    }
}

/// What a walk over a segment found.
pub(crate) struct Walk {
    /// Behind the last sound batch.
    pub(crate) position: u64,
    /// Offset behind it.
    pub(crate) end: Offset,
    pub(crate) indexes: Indexes,
    pub(crate) first_timestamp: Option<TimestampMs>,
    pub(crate) damage: Option<Damage>,
    /// The damage is that the file ends inside a batch.
    pub(crate) torn: bool,
    /// Everything from the damage on is zero.
    pub(crate) zeroes: bool,
    /// A sound batch that does not belong here.
    pub(crate) out_of_order: bool,
    last_epoch: Option<LeaderEpoch>,
    follows: Follows,
    /// The batch taken last left a gap.
    gap: Option<BeforeGap>,
    /// Some batch did.
    has_gaps: bool,
}

/// What stands behind a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    /// Nobody has looked.
    Unknown,
    /// It is the log's last.
    Nothing,
    /// One that begins here.
    Segment(Offset),
}

impl Walk {
    /// Before the first batch of the segment that begins at `base`.
    pub(crate) fn at_start(base: Offset) -> Walk {
        Walk {
            position: 0,
            end: base,
            indexes: Indexes::default(),
            first_timestamp: None,
            damage: None,
            torn: false,
            zeroes: false,
            out_of_order: false,
            last_epoch: None,
            follows: Follows::Unknown,
            gap: None,
            has_gaps: false,
        }
    }

    /// The same over a segment with this behind it.
    pub(crate) fn before(mut self, follows: Follows) -> Walk {
        self.follows = follows;
        self
    }

    /// The same, behind a batch of this epoch: later ones must not be of an older one.
    pub(crate) fn after(mut self, epoch: Option<LeaderEpoch>) -> Walk {
        self.last_epoch = epoch;
        self
    }

    /// The epoch of the last sound batch.
    pub(crate) fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.last_epoch
    }

    fn take(&mut self, base: Offset, header: &Header, interval_bytes: u64) {
        let bytes = header.size_bytes() as u64;
        self.has_gaps |= header.base_offset > self.end;
        self.gap = (header.base_offset > self.end).then(|| BeforeGap {
            position: self.position,
            end: self.end,
            indexes: self.indexes.mark(),
            first_timestamp: self.first_timestamp,
            last_epoch: self.last_epoch,
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
        });
        self.indexes.append(
            base,
            header.last_offset(),
            self.position,
            bytes,
            time_of_records(header),
            interval_bytes,
        );
        self.first_timestamp.get_or_insert(header.max_timestamp);
        self.last_epoch = Some(header.partition_leader_epoch);
        self.position += bytes;
        self.end = header.next_offset();
    }

    /// Takes the last batch back, which left a gap: the next one says that there was none.
    fn go_back(&mut self) -> Unsound {
        let Some(gap) = self.gap.take() else { unreachable!("only asked for behind a gap") };
        (self.position, self.end) = (gap.position, gap.end);
        (self.first_timestamp, self.last_epoch) = (gap.first_timestamp, gap.last_epoch);
        self.indexes.cut(gap.indexes);
        Unsound::OutOfOrder(format!("offsets {} to {}", gap.base_offset, gap.last_offset))
    }

    fn ended(mut self, segment: &Segment, unsound: Unsound, file_bytes: u64) -> Walk {
        let expected = format!("a batch with base offset {}", self.end);
        let found = match unsound {
            Unsound::NeedsMore(bytes) => {
                self.torn = true;
                format!("the end of the file at {file_bytes}, {bytes} bytes were to follow")
            }
            Unsound::Bad(reason) => reason,
            Unsound::OutOfOrder(found) | Unsound::BeforeItsPlace { found, .. } => {
                self.out_of_order = true;
                found
            }
        };
        self.damage = Some(Damage::new(segment.path(), self.position, expected, found));
        self
    }
}

/// The sealed segments of one core whose files are open: the one unused for longest gives its file up when there are too
/// many, so that any number of partitions fits the limit of open files.
#[derive(Clone)]
pub struct OpenSegments {
    inner: Rc<RefCell<Turns>>,
    segments_max: usize,
}

/// By last use, oldest first. A segment used again has a younger turn too, and its older ones count for nothing.
#[derive(Default)]
struct Turns {
    of: VecDeque<(u64, Weak<Segment>)>,
    now: u64,
}

impl OpenSegments {
    /// Room for `segments_max` segments.
    pub fn new(segments_max: usize) -> OpenSegments {
        OpenSegments { inner: Rc::default(), segments_max }
    }

    pub(crate) fn touch(&self, segment: &Rc<Segment>) {
        if !segment.sealed.get() {
            return;
        }
        let mut turns = self.inner.borrow_mut();
        // A segment read over and over takes a turn now and then, not each time: it would push all others out.
        let recent = self.segments_max as u64 / 2;
        if segment.last_turn.get() > 0 && segment.last_turn.get() + recent > turns.now && segment.is_open() {
            return;
        }
        turns.now += 1;
        segment.last_turn.set(turns.now);
        let turn = (turns.now, Rc::downgrade(segment));
        turns.of.push_back(turn);
        while turns.of.len() > self.segments_max {
            let Some((turn, oldest)) = turns.of.pop_front() else { return };
            if let Some(oldest) = oldest.upgrade()
                && oldest.last_turn.get() == turn
                && oldest.sealed.get()
                && !Rc::ptr_eq(&oldest, segment)
            {
                oldest.close();
            }
        }
    }
}
