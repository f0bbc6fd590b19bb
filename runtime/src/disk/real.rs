//! The disk of the real machine.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::plan::{WriteWay, inline_write_bytes_max};
use super::pool::Pool;
use super::residency::Residency;
use super::ring::{Flavour, Ring};
use super::{DirEntry, DiskBackend, OpenMode, syscalls};

thread_local! {
    /// The calling core's ring, for the hooks that flush it.
    static RING: RefCell<Option<Rc<Ring>>> = const { RefCell::new(None) };
}

/// Sends out what the calling thread's ring has queued, if it has one.
pub(crate) fn flush_this_thread() {
    // Cloned, so that no borrow is held while others' wakers run.
    let ring = RING.with_borrow(Clone::clone);
    if let Some(ring) = ring {
        ring.flush();
    }
}

/// Lets go of the calling thread's ring, which waits for its last operations.
pub(crate) fn leave_this_thread() {
    drop(RING.take());
}

/// One core's disk.
pub(crate) struct RealDisk {
    ring: Option<Rc<Ring>>,
    pool: Pool,
    read_in: Pool,
    ways: Arc<[WriteWay]>,
}

impl RealDisk {
    /// Makes the calling core's disk, with a ring when there is a flavour for it.
    ///
    /// Calls that block are made on `pool`, but for those that only wait for bytes from the disk: they have a pool of their
    /// own, `read_in`, so that none waits for the other.
    pub(crate) fn start(
        flavour: Option<Flavour>,
        pool: Pool,
        read_in: Pool,
        ways: Arc<[WriteWay]>,
    ) -> io::Result<Self> {
        let ring = flavour.map(Ring::start).transpose()?;
        RING.set(ring.clone());
        Ok(Self { ring, pool, read_in, ways })
    }

    #[cfg(test)]
    pub(crate) fn ring(&self) -> Option<Rc<Ring>> {
        self.ring.clone()
    }

    pub(crate) fn backend(&self) -> DiskBackend {
        if self.ring.is_some() { DiskBackend::Uring } else { DiskBackend::Blocking }
    }

    pub(crate) async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<RealFile> {
        let inline_write_bytes_max = inline_write_bytes_max(&self.ways, path);
        let path = path.to_owned();
        let file = self
            .pool
            .run(move || {
                let mut options = OpenOptions::new();
                options.read(true).write(mode != OpenMode::Read);
                match mode {
                    OpenMode::Read | OpenMode::ReadWrite => {}
                    OpenMode::CreateOrOpen => {
                        options.create(true);
                    }
                    OpenMode::CreateNew => {
                        options.create_new(true);
                    }
                }
                options.open(path)
            })
            .await?;
        let open = OpenFile::new(file, self.pool.clone(), self.read_in.clone(), inline_write_bytes_max);
        Ok(RealFile { open: Arc::new(open), ring: self.ring.clone() })
    }

    pub(crate) fn attach(&self, shared: &RealShared) -> RealFile {
        RealFile { open: shared.open.clone(), ring: self.ring.clone() }
    }

    pub(crate) async fn read(&self, path: &Path) -> io::Result<Bytes> {
        let path = path.to_owned();
        self.pool.run(move || fs::read(path).map(Bytes::from)).await
    }

    pub(crate) async fn write_atomic(&self, path: &Path, content: Bytes) -> io::Result<()> {
        let path = path.to_owned();
        self.pool
            .run(move || {
                let mut temp = path.clone().into_os_string();
                temp.push(".tmp");
                let file = fs::File::create(&temp)?;
                syscalls::write_all_at(&file, 0, vec![content])?;
                file.sync_all()?;
                fs::rename(&temp, &path)?;
                syscalls::sync_dir(parent(&path))
            })
            .await
    }

    pub(crate) async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.pool.run(move || fs::create_dir_all(path)).await
    }

    pub(crate) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.pool.run(move || fs::remove_file(path)).await
    }

    pub(crate) async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.pool.run(move || fs::remove_dir_all(path)).await
    }

    pub(crate) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.pool.run(move || fs::rename(from, to)).await
    }

    pub(crate) async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.pool.run(move || syscalls::sync_dir(&path)).await
    }

    pub(crate) async fn exists(&self, path: &Path) -> io::Result<bool> {
        let path = path.to_owned();
        self.pool.run(move || path.try_exists()).await
    }

    pub(crate) async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = path.to_owned();
        self.pool
            .run(move || {
                let mut entries = Vec::new();
                for entry in fs::read_dir(path)? {
                    let entry = entry?;
                    let Ok(name) = entry.file_name().into_string() else { continue };
                    match entry.metadata() {
                        Ok(meta) => {
                            entries.push(DirEntry { name, is_dir: meta.is_dir(), bytes: meta.len() });
                        }
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
                entries.sort_by(|a, b| a.name.cmp(&b.name));
                Ok(entries)
            })
            .await
    }

    pub(crate) async fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let path = path.to_owned();
        self.pool.run(move || syscalls::free_bytes(&path)).await
    }

    pub(crate) async fn lock_exclusive(&self, path: &Path) -> io::Result<RealLock> {
        let path = path.to_owned();
        self.pool
            .run(move || {
                let file =
                    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
                match file.try_lock() {
                    Ok(()) => Ok(RealLock { _file: file }),
                    Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
                    Err(fs::TryLockError::Error(error)) => Err(error),
                }
            })
            .await
    }
}

/// The directory a path lies in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// An open file and the pool that closes it: the last close of an unlinked file frees its blocks, which may take
/// as long as the unlink.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: ManuallyDrop<fs::File>,
    pool: Pool,
    /// Waits for bytes from the disk.
    read_in: Pool,
    /// Writes up to this size are made on the reactor.
    inline_write_bytes_max: usize,
    residency: Residency,
}

impl OpenFile {
    pub(crate) fn new(file: fs::File, pool: Pool, read_in: Pool, inline_write_bytes_max: usize) -> Self {
        let residency = Residency::of(&file);
        Self { file: ManuallyDrop::new(file), pool, read_in, inline_write_bytes_max, residency }
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // SAFETY: dropped once, here, and never touched again.
        let file = unsafe { ManuallyDrop::take(&mut self.file) };
        self.pool.run_detached(move || drop(file));
    }
}

/// An open file on one core.
pub(crate) struct RealFile {
    open: Arc<OpenFile>,
    ring: Option<Rc<Ring>>,
}

impl RealFile {
    pub(crate) async fn len(&self) -> io::Result<u64> {
        // The inode of an open file is in memory: no reason to leave the reactor.
        Ok(self.open.file.metadata()?.len())
    }

    pub(crate) async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.open.residency.fills();
        match &self.ring {
            Some(ring) => ring.read(&self.open, offset, len).await,
            None => self.on_pool(move |file| syscalls::read_up_to(file, offset, len)).await,
        }
    }

    pub(crate) fn read_resident(&self, offset: u64, len: usize) -> io::Result<Option<Bytes>> {
        let read = syscalls::read_resident(&self.open.file, offset, len);
        if !matches!(read, Ok(Some(_))) {
            // The attempt has the first missing pages read.
            self.open.residency.fills();
        }
        read
    }

    pub(crate) async fn write_at(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        let bytes: usize = bufs.iter().map(Bytes::len).sum();
        if bytes <= self.open.inline_write_bytes_max {
            return syscalls::write_all_at(&*self.open.file, offset, bufs);
        }
        match &self.ring {
            Some(ring) => ring.write(&self.open, offset, bufs).await,
            None => self.on_pool(move |file| syscalls::write_all_at(file, offset, bufs)).await,
        }
    }

    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        match &self.ring {
            Some(ring) => ring.sync(&self.open, true).await,
            None => self.on_pool(fs::File::sync_data).await,
        }
    }

    pub(crate) async fn sync_all(&self) -> io::Result<()> {
        match &self.ring {
            Some(ring) => ring.sync(&self.open, false).await,
            None => self.on_pool(fs::File::sync_all).await,
        }
    }

    pub(crate) async fn truncate(&self, len: u64) -> io::Result<()> {
        self.on_pool(move |file| file.set_len(len)).await
    }

    pub(crate) async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        match &self.ring {
            Some(ring) => ring.allocate(&self.open, offset, len).await,
            None => self.on_pool(move |file| syscalls::allocate(file, offset, len)).await,
        }
    }

    pub(crate) fn share(&self) -> RealShared {
        RealShared { open: self.open.clone() }
    }

    async fn on_pool<T: Send + 'static>(
        &self,
        call: impl FnOnce(&fs::File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let open = self.open.clone();
        self.open.pool.run(move || call(&open.file)).await
    }
}

/// An open file on its way between cores.
#[derive(Clone, Debug)]
pub(crate) struct RealShared {
    open: Arc<OpenFile>,
}

impl RealShared {
    pub(crate) fn file(&self) -> &fs::File {
        &self.open.file
    }

    /// Says whether a range can be sent now without waiting for a disk.
    pub(crate) fn covers(&self, offset: u64, len: usize) -> bool {
        self.open.residency.advise(&self.open.file);
        self.open.residency.covers(&self.open.file, offset, len)
    }

    /// Has a range read into memory, and some of what follows; a probe tells whether it stayed there.
    pub(crate) async fn read_in(&self, offset: u64, len: usize) -> io::Result<()> {
        let open = self.open.clone();
        self.open.read_in.run(move || open.residency.read_in(&open.file, offset, len)).await
    }

    /// Has more read in if a sender that has come to `position` will soon need it. Nobody waits for it.
    pub(crate) fn read_ahead(&self, position: u64) {
        if let Some(from) = self.open.residency.due_ahead(position) {
            let open = self.open.clone();
            self.open.read_in.run_detached(move || open.residency.read_ahead(&open.file, from));
        }
    }

    /// Reads a range into memory of our own, on a thread that may wait.
    pub(crate) async fn read_copy(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let open = self.open.clone();
        self.open.residency.fills();
        self.open.read_in.run(move || syscalls::read_up_to(&open.file, offset, len)).await
    }

    #[cfg(feature = "sim")]
    pub(crate) fn read_now(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        syscalls::read_up_to(&self.open.file, offset, len)
    }
}

/// A lock held by an open file description.
pub(crate) struct RealLock {
    _file: fs::File,
}
