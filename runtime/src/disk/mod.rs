//! Files: one door, three backends.
//!
//! | backend | reads, flushes, large writes | small writes where the file system cannot do them async | the rest |
//! |---|---|---|---|
//! | `uring` | the core's io_uring ring | `pwritev` inline | two threads for the process |
//! | `blocking` | two threads for the process | `pwritev` inline | two threads for the process |
//! | `simulated` | memory, from a seed (feature `sim`) | | |
//!
//! What every operation promises, on every backend: it owns its buffers and keeps its file open until the kernel
//! is done with both, also when its future is dropped. Dropping a future gives up the *answer*; the operation may
//! still take place, or not. Two operations in flight on the same bytes have no order: await one to order them.
//!
//! After a flush has failed, nothing may be inferred about what is on the disk, and a second flush may succeed
//! for nothing: that is the caller's to remember.

mod plan;
mod pool;
mod real;
mod residency;
mod ring;
mod slots;
mod syscalls;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;

pub(crate) use plan::{DiskPlan, plan};
pub(crate) use pool::Pool;
pub(crate) use real::RealShared;
use real::{RealDisk, RealFile, RealLock};
pub(crate) use real::{flush_this_thread, leave_this_thread};
pub(crate) use syscalls::file_offset;

#[cfg(feature = "sim")]
use crate::sim::{DiskNode, SimFile, SimLock, SimShared};

/// Which backend serves the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskBackend {
    /// One io_uring ring per core.
    Uring,
    /// A small pool of threads.
    Blocking,
    /// Memory, from a seed.
    Simulated,
}

impl fmt::Display for DiskBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "uring",
            Self::Blocking => "blocking",
            Self::Simulated => "simulated",
        })
    }
}

/// Which backend is wanted (`ouzel.disk.backend`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BackendChoice {
    /// io_uring where it works, else blocking (with a line in the log).
    #[default]
    Auto,
    /// io_uring or no start.
    Uring,
    /// Never io_uring.
    Blocking,
}

impl std::str::FromStr for BackendChoice {
    type Err = String;

    /// Reads `auto`, `uring` or `blocking`.
    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "blocking" => Ok(Self::Blocking),
            other => Err(format!("'{other}' is not one of auto, uring, blocking")),
        }
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Blocking => "blocking",
        })
    }
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for both.
    ReadWrite,
    /// For both; made if missing.
    CreateOrOpen,
    /// For both; an error if it exists.
    CreateNew,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// File name. Entries whose names are not UTF-8 are left out: none of ours are such.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length of a file; of a directory, whatever the file system says.
    pub bytes: u64,
}

/// One core's door to files.
#[derive(Clone)]
pub struct Disk {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Real(Rc<RealDisk>),
    #[cfg(feature = "sim")]
    Sim(DiskNode),
}

/// Sends a call to the backend in use.
macro_rules! on {
    ($kind:expr, $type:ident, $it:ident => $call:expr) => {
        match $kind {
            $type::Real($it) => $call,
            #[cfg(feature = "sim")]
            $type::Sim($it) => $call,
        }
    };
}

/// Creates a directory, and those above it, before there is a core to ask for it: data directories are probed while the
/// cores start.
///
/// # Errors
/// Those of `mkdir(2)`.
pub fn create_data_dir(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

impl Disk {
    pub(crate) fn real(disk: Rc<RealDisk>) -> Self {
        Self { kind: Kind::Real(disk) }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn simulated(disk: DiskNode) -> Self {
        Self { kind: Kind::Sim(disk) }
    }

    /// Returns which backend serves this disk.
    pub fn backend(&self) -> DiskBackend {
        on!(&self.kind, Kind, disk => disk.backend())
    }

    /// Opens a file. A new one survives a power cut only after [`sync_dir`](Self::sync_dir) on its directory.
    ///
    /// # Errors
    /// Those of `open(2)`. Dropped: the file may have been created.
    pub async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<File> {
        let kind = match &self.kind {
            Kind::Real(disk) => FileKind::Real(disk.open(path, mode).await?),
            #[cfg(feature = "sim")]
            Kind::Sim(disk) => FileKind::Sim(disk.open(path, mode).await?),
        };
        Ok(File { inner: Rc::new(FileInner { path: path.to_owned(), kind }) })
    }

    /// Opens on this core what another core shared. The same open file, not another: no error is lost twice.
    pub fn attach(&self, shared: &SharedFile) -> File {
        let kind = match (&self.kind, &shared.kind) {
            (Kind::Real(disk), SharedKind::Real(shared)) => FileKind::Real(disk.attach(shared)),
            #[cfg(feature = "sim")]
            (Kind::Sim(_), SharedKind::Sim(shared)) => FileKind::Sim(shared.attach()),
            #[cfg(feature = "sim")]
            _ => unreachable!("a file of a simulated disk belongs to the simulation"),
        };
        File { inner: Rc::new(FileInner { path: shared.path.to_path_buf(), kind }) }
    }

    /// Reads a whole small file.
    ///
    /// # Errors
    /// Those of `open(2)` and `read(2)`.
    pub async fn read(&self, path: &Path) -> io::Result<Bytes> {
        on!(&self.kind, Kind, disk => disk.read(path).await)
    }

    /// Replaces a small file as a whole: `<path>.tmp` is written and flushed, renamed over `path`, and the
    /// directory is flushed. After a crash there is the old content or the new one.
    ///
    /// # Errors
    /// Those of the calls named; the old content is still there, perhaps with a `.tmp` beside it. If the last
    /// step failed, either may survive a power cut. Dropped: any step may be the last.
    pub async fn write_atomic(&self, path: &Path, content: Bytes) -> io::Result<()> {
        on!(&self.kind, Kind, disk => disk.write_atomic(path, content).await)
    }

    /// Creates a directory and those above it that are missing. Existing ones are no error.
    ///
    /// # Errors
    /// Those of `mkdir(2)`.
    pub async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        on!(&self.kind, Kind, disk => disk.create_dir_all(path).await)
    }

    /// Removes a file's name. Open handles go on reading it.
    ///
    /// # Errors
    /// Those of `unlink(2)`.
    pub async fn remove_file(&self, path: &Path) -> io::Result<()> {
        on!(&self.kind, Kind, disk => disk.remove_file(path).await)
    }

    /// Removes a directory and all in it. Dropped or failed: part of it may be gone.
    ///
    /// # Errors
    /// Those of `unlink(2)` and `rmdir(2)`.
    pub async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        on!(&self.kind, Kind, disk => disk.remove_dir_all(path).await)
    }

    /// Renames a file or directory, replacing a file of the new name. Survives a power cut once the directories
    /// of both names are synced; until then there is the old name or the new one.
    ///
    /// # Errors
    /// Those of `rename(2)`.
    pub async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        on!(&self.kind, Kind, disk => disk.rename(from, to).await)
    }

    /// Makes the names in a directory durable: what was created in, removed from or renamed within it.
    ///
    /// # Errors
    /// Those of `fsync(2)`; nothing is known about the directory then.
    pub async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        on!(&self.kind, Kind, disk => disk.sync_dir(path).await)
    }

    /// Says whether there is something of this name.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub async fn exists(&self, path: &Path) -> io::Result<bool> {
        on!(&self.kind, Kind, disk => disk.exists(path).await)
    }

    /// Lists a directory, sorted by name.
    ///
    /// # Errors
    /// Those of `readdir(3)` and `stat(2)`. Entries that vanish meanwhile are left out.
    pub async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        on!(&self.kind, Kind, disk => disk.list_dir(path).await)
    }

    /// Returns the bytes that may still be written to the file system of `path`.
    ///
    /// # Errors
    /// Those of `statvfs(3)`.
    pub async fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        on!(&self.kind, Kind, disk => disk.free_bytes(path).await)
    }

    /// Locks a file (made if missing) against every other holder, in this process or another, until the guard
    /// is dropped or the process ends, however it ends.
    ///
    /// # Errors
    /// `WouldBlock` when somebody else holds it; those of `open(2)`.
    pub async fn lock_exclusive(&self, path: &Path) -> io::Result<LockGuard> {
        let kind = match &self.kind {
            Kind::Real(disk) => LockKind::Real(disk.lock_exclusive(path).await?),
            #[cfg(feature = "sim")]
            Kind::Sim(disk) => LockKind::Sim(disk.lock_exclusive(path).await?),
        };
        Ok(LockGuard { path: path.to_owned(), _kind: kind })
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("backend", &self.backend()).finish()
    }
}

/// An open file; clones are the same one. It is closed when the last clone, share and operation is gone.
#[derive(Clone)]
pub struct File {
    inner: Rc<FileInner>,
}

struct FileInner {
    path: PathBuf,
    kind: FileKind,
}

enum FileKind {
    Real(RealFile),
    #[cfg(feature = "sim")]
    Sim(SimFile),
}

impl File {
    /// Returns the path it was opened with; a rename since does not show.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Returns the length.
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    pub async fn len(&self) -> io::Result<u64> {
        on!(&self.inner.kind, FileKind, file => file.len().await)
    }

    /// Says whether the length is 0.
    ///
    /// # Errors
    /// Those of `fstat(2)`.
    pub async fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len().await? == 0)
    }

    /// Reads `len` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// Those of `pread(2)`.
    pub async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        on!(&self.inner.kind, FileKind, file => file.read_at(offset, len).await)
    }

    /// Reads `len` bytes at `offset` at once if all of them are in memory; `None` if not, or if the file ends before:
    /// [`read_at`](Self::read_at) finds out.
    ///
    /// # Errors
    /// Those of `preadv2(2)`.
    pub fn read_resident(&self, offset: u64, len: usize) -> io::Result<Option<Bytes>> {
        on!(&self.inner.kind, FileKind, file => file.read_resident(offset, len))
    }

    /// Writes all buffers, one after the other, at `offset`. When it returns, SIGKILL loses nothing of it; a
    /// power cut may, until a flush.
    ///
    /// # Errors
    /// Those of `pwritev(2)`; any part of the bytes may be in the file then. Dropped: the same.
    pub async fn write_at(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        on!(&self.inner.kind, FileKind, file => file.write_at(offset, bufs).await)
    }

    /// Makes all bytes of writes that have returned durable, and the length needed to read them.
    ///
    /// # Errors
    /// Those of `fdatasync(2)`. Nothing is known about unflushed bytes then, and trying again proves nothing.
    pub async fn sync_data(&self) -> io::Result<()> {
        on!(&self.inner.kind, FileKind, file => file.sync_data().await)
    }

    /// As [`sync_data`](Self::sync_data), with all metadata of the file (not its name).
    ///
    /// # Errors
    /// As `sync_data`.
    pub async fn sync_all(&self) -> io::Result<()> {
        on!(&self.inner.kind, FileKind, file => file.sync_all().await)
    }

    /// Cuts or extends (with zeros) the file to `len`. No operation on the bytes beyond may be in flight.
    ///
    /// # Errors
    /// Those of `ftruncate(2)`. Dropped: it may take place later.
    pub async fn truncate(&self, len: u64) -> io::Result<()> {
        on!(&self.inner.kind, FileKind, file => file.truncate(len).await)
    }

    /// Reserves space for a range without changing the length.
    ///
    /// # Errors
    /// Those of `fallocate(2)`: `StorageFull`, or `Unsupported` where the file system cannot.
    pub async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        on!(&self.inner.kind, FileKind, file => file.allocate(offset, len).await)
    }

    /// Returns a handle that other cores may use, and that keeps the file open.
    pub fn share(&self) -> SharedFile {
        let kind = match &self.inner.kind {
            FileKind::Real(file) => SharedKind::Real(file.share()),
            #[cfg(feature = "sim")]
            FileKind::Sim(file) => SharedKind::Sim(file.share()),
        };
        SharedFile { path: self.inner.path.as_path().into(), kind }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("File").field(&self.inner.path).finish()
    }
}

/// An open file that may travel between cores: for [`Stream::send_file`](crate::net::Stream::send_file), or
/// for [`Disk::attach`] on another core.
#[derive(Clone)]
pub struct SharedFile {
    path: std::sync::Arc<Path>,
    kind: SharedKind,
}

#[derive(Clone)]
enum SharedKind {
    Real(RealShared),
    #[cfg(feature = "sim")]
    Sim(SimShared),
}

impl SharedFile {
    /// Returns the path it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn real(&self) -> Option<&RealShared> {
        match &self.kind {
            SharedKind::Real(shared) => Some(shared),
            #[cfg(feature = "sim")]
            SharedKind::Sim(_) => None,
        }
    }

    /// Reads on the calling thread, for the twin of `sendfile`.
    #[cfg(feature = "sim")]
    pub(crate) fn read_now(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        on!(&self.kind, SharedKind, shared => shared.read_now(offset, len))
    }
}

impl fmt::Debug for SharedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedFile").field(&self.path).finish()
    }
}

/// Holds a lock taken with [`Disk::lock_exclusive`] until it is dropped.
pub struct LockGuard {
    path: PathBuf,
    _kind: LockKind,
}

#[expect(dead_code, reason = "held for their Drop")]
enum LockKind {
    Real(RealLock),
    #[cfg(feature = "sim")]
    Sim(SimLock),
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LockGuard").field(&self.path).finish()
    }
}
