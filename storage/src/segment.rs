//! One segment of a log: a `.log` file and its indexes, opened when first needed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use ouzel_model::batch::{BatchError, HEADER_BYTES, Header};
use ouzel_model::{Offset, TimestampMs};
use ouzel_runtime::disk::OpenMode;
use ouzel_runtime::{Bytes, Disk, File};

use crate::error::{Damage, ReadError};
use crate::index::Indexes;
use crate::layout;

/// How much of a segment is read at a time when it is walked.
pub(crate) const WALK_BYTES: usize = 1 << 20;

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
    /// The active segment's are always here; a sealed one's are read when first needed.
    indexes: RefCell<Option<Rc<RefCell<Indexes>>>>,
    file: RefCell<Option<File>>,
    pub(crate) sealed: Cell<bool>,
}

impl Segment {
    /// A segment that is still empty; its file is made by the first write.
    pub(crate) fn new(dir: &Path, base: Offset) -> Rc<Segment> {
        Rc::new(Segment {
            base,
            path: layout::segment_file(dir, base, layout::LOG),
            end: Cell::new(base),
            size_bytes: Cell::new(0),
            written_bytes: Cell::new(0),
            first_timestamp: Cell::new(None),
            indexes: RefCell::new(Some(Rc::default())),
            file: RefCell::new(None),
            sealed: Cell::new(false),
        })
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
        let indexes = match self.read_indexes(disk).await {
            Some(indexes) => indexes,
            None => {
                tracing::warn!(segment = %self.path.display(), "the indexes are missing or wrong; building them anew");
                let rebuilt = self.walk(disk, interval_bytes, |_| {}).await?;
                if let Some(damage) = rebuilt.damage {
                    return Err(damage.into());
                }
                self.write_indexes(disk, &rebuilt.indexes).await.map_err(|source| self.failed(source))?;
                rebuilt.indexes
            }
        };
        // Another read may have loaded them meanwhile; either copy is right.
        self.set_indexes(indexes);
        open.touch(self);
        Ok(self.indexes_in_memory().unwrap_or_default())
    }

    async fn read_indexes(&self, disk: &Disk) -> Option<Indexes> {
        let offsets = disk.read(&layout::segment_file(self.dir(), self.base, layout::INDEX)).await.ok()?;
        let times = disk.read(&layout::segment_file(self.dir(), self.base, layout::TIME_INDEX)).await.ok()?;
        let span = u64::try_from(self.end.get() - self.base).ok()?;
        let indexes = Indexes::decode(&offsets, &times, self.written_bytes.get(), span)?;
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

    /// Writes both index files. They are caches: no flush, and a torn one is found out when it is read.
    pub(crate) async fn write_indexes(&self, disk: &Disk, indexes: &Indexes) -> io::Result<()> {
        let files = [(layout::INDEX, indexes.encode_offsets()), (layout::TIME_INDEX, indexes.encode_times())];
        for (extension, bytes) in files {
            let path = layout::segment_file(self.dir(), self.base, extension);
            write_cache(disk, &path, bytes).await?;
        }
        Ok(())
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

    /// Gives up the file and the indexes; a sealed segment opens them anew when needed.
    fn close(&self) {
        self.file.replace(None);
        self.indexes.replace(None);
    }

    /// Names the file in an error.
    pub(crate) fn failed(&self, source: io::Error) -> ReadError {
        ReadError::Io { path: self.path.clone(), source }
    }

    /// Walks all batches of the file, CRC and order included, and builds the indexes on the way.
    ///
    /// Stops at the first batch that is not whole or not the one that belongs there, and says where. `each` sees every
    /// sound batch's header.
    pub(crate) async fn walk(
        &self,
        disk: &Disk,
        interval_bytes: u64,
        mut each: impl FnMut(&Header),
    ) -> Result<Walk, ReadError> {
        let file = self.file(disk).await.map_err(|source| self.failed(source))?;
        let file_bytes = file.len().await.map_err(|source| self.failed(source))?;
        let mut walk = Walk::at_start(self.base, file_bytes);
        let mut last_epoch = None;
        while walk.position < file_bytes {
            let chunk = file.read_at(walk.position, WALK_BYTES).await.map_err(|source| self.failed(source))?;
            let before = walk.position;
            let mut rest: &[u8] = &chunk;
            while !rest.is_empty() {
                match self.sound_batch(rest, &walk, last_epoch) {
                    Ok(header) => {
                        each(&header);
                        last_epoch = Some(header.partition_leader_epoch);
                        walk.take(self.base, &header, interval_bytes);
                        rest = &rest[header.size_bytes()..];
                    }
                    Err(Unsound::NeedsMore(bytes)) if walk.position + bytes as u64 <= file_bytes => {
                        if walk.position > before {
                            break; // it begins the next chunk
                        }
                        // Larger than a chunk: read it alone.
                        let whole = file.read_at(walk.position, bytes).await.map_err(|source| self.failed(source))?;
                        match self.sound_batch(&whole, &walk, last_epoch) {
                            Ok(header) => {
                                each(&header);
                                last_epoch = Some(header.partition_leader_epoch);
                                walk.take(self.base, &header, interval_bytes);
                            }
                            Err(unsound) => return Ok(walk.ended(self, unsound, &whole, file_bytes)),
                        }
                        break;
                    }
                    Err(unsound) => {
                        let all_zero = rest_is_zero(&file, walk.position, file_bytes).await;
                        let all_zero = all_zero.map_err(|source| self.failed(source))?;
                        let mut walk = walk.ended(self, unsound, rest, file_bytes);
                        walk.zeroes = all_zero;
                        return Ok(walk);
                    }
                }
            }
        }
        Ok(walk)
    }

    fn sound_batch(
        &self,
        bytes: &[u8],
        walk: &Walk,
        last_epoch: Option<ouzel_model::LeaderEpoch>,
    ) -> Result<Header, Unsound> {
        use ouzel_model::batch::BatchView;
        let view = BatchView::parse(bytes).map_err(|error| match error {
            BatchError::Truncated { needed, .. } => Unsound::NeedsMore(needed),
            other => Unsound::Bad(other.to_string()),
        })?;
        view.verify_crc().map_err(|error| Unsound::Bad(error.to_string()))?;
        let header = view.header;
        if header.base_offset < walk.end {
            return Err(Unsound::OutOfOrder(format!("base offset {}", header.base_offset)));
        }
        // Compaction leaves gaps; a log that is only appended to has none, but its first batch may lie behind its base.
        if header.last_offset_delta < 0 || last_epoch.is_some_and(|last| header.partition_leader_epoch < last) {
            return Err(Unsound::OutOfOrder(format!("leader epoch {}", header.partition_leader_epoch)));
        }
        Ok(header)
    }
}

/// Writes a derived file in place: no flush, no rename; whoever reads it checks it.
pub(crate) async fn write_cache(disk: &Disk, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
    let file = disk.open(path, OpenMode::CreateOrOpen).await?;
    let len = bytes.len() as u64;
    if len > 0 {
        file.write_at(0, vec![Bytes::from(bytes)]).await?;
    }
    file.truncate(len).await
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
}

impl Walk {
    fn at_start(base: Offset, _file_bytes: u64) -> Walk {
        Walk {
            position: 0,
            end: base,
            indexes: Indexes::default(),
            first_timestamp: None,
            damage: None,
            torn: false,
            zeroes: false,
            out_of_order: false,
        }
    }

    fn take(&mut self, base: Offset, header: &Header, interval_bytes: u64) {
        let bytes = header.size_bytes() as u64;
        self.indexes.append(
            base,
            header.last_offset(),
            self.position,
            bytes,
            header.max_timestamp,
            interval_bytes,
        );
        self.first_timestamp.get_or_insert(header.max_timestamp);
        self.position += bytes;
        self.end = header.next_offset();
    }

    fn ended(mut self, segment: &Segment, unsound: Unsound, _bytes: &[u8], file_bytes: u64) -> Walk {
        let expected = format!("a batch with base offset {}", self.end);
        let found = match unsound {
            Unsound::NeedsMore(bytes) => {
                self.torn = true;
                format!("the end of the file at {file_bytes}, {bytes} bytes were to follow")
            }
            Unsound::Bad(reason) => reason,
            Unsound::OutOfOrder(found) => {
                self.out_of_order = true;
                found
            }
        };
        self.damage = Some(Damage::new(segment.path(), self.position, expected, found));
        self
    }
}

/// The sealed segments of one core whose files are open: the oldest gives its file up when there are too many, so that
/// any number of partitions fits the limit of open files.
#[derive(Clone)]
pub struct OpenSegments {
    inner: Rc<RefCell<VecDeque<Weak<Segment>>>>,
    segments_max: usize,
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
        let mut open = self.inner.borrow_mut();
        open.push_back(Rc::downgrade(segment));
        while open.len() > self.segments_max {
            if let Some(oldest) = open.pop_front().and_then(|weak| weak.upgrade())
                && oldest.sealed.get()
                && !Rc::ptr_eq(&oldest, segment)
            {
                oldest.close();
            }
        }
    }
}
