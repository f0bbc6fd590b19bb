//! The disk of the real machine.

use std::fs::{self, OpenOptions};
use std::io;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::pool::Pool;
use super::{DirEntry, DiskBackend, OpenMode, syscalls};

/// Buffered writes up to this size are made on the reactor: 2-30 us into the page cache, against 4 us of CPU
/// more and a hop to another thread and back.
const INLINE_WRITE_BYTES_MAX: usize = 256 * 1024;

pub(crate) fn flush_this_thread() {}

pub(crate) fn leave_this_thread() {}

/// One core's disk.
pub(crate) struct RealDisk {
    backend: DiskBackend,
    pool: Pool,
}

impl RealDisk {
    pub(crate) fn new(backend: DiskBackend, pool: Pool) -> Self {
        Self { backend, pool }
    }

    pub(crate) fn backend(&self) -> DiskBackend {
        self.backend
    }

    pub(crate) async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<RealFile> {
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
        let open = OpenFile { file: ManuallyDrop::new(file), pool: self.pool.clone() };
        Ok(RealFile { open: Arc::new(open) })
    }

    pub(crate) fn attach(&self, shared: &RealShared) -> RealFile {
        RealFile { open: shared.open.clone() }
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
}

impl RealFile {
    pub(crate) async fn len(&self) -> io::Result<u64> {
        // The inode of an open file is in memory: no reason to leave the reactor.
        Ok(self.open.file.metadata()?.len())
    }

    pub(crate) async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.on_pool(move |file| syscalls::read_up_to(file, offset, len)).await
    }

    pub(crate) async fn write_at(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        let bytes: usize = bufs.iter().map(Bytes::len).sum();
        if bytes <= INLINE_WRITE_BYTES_MAX {
            return syscalls::write_all_at(&*self.open.file, offset, bufs);
        }
        self.on_pool(move |file| syscalls::write_all_at(file, offset, bufs)).await
    }

    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        self.on_pool(fs::File::sync_data).await
    }

    pub(crate) async fn sync_all(&self) -> io::Result<()> {
        self.on_pool(fs::File::sync_all).await
    }

    pub(crate) async fn truncate(&self, len: u64) -> io::Result<()> {
        self.on_pool(move |file| file.set_len(len)).await
    }

    pub(crate) async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.on_pool(move |file| syscalls::allocate(file, offset, len)).await
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

    #[cfg(feature = "sim")]
    pub(crate) fn read_now(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        syscalls::read_up_to(&self.open.file, offset, len)
    }
}

/// A lock held by an open file description.
pub(crate) struct RealLock {
    _file: fs::File,
}
