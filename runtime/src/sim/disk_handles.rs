//! A simulated disk as one process uses it: open files, locks, operations that take their time.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::disk::{SimDisk, State, end_of, power_is_cut};
use super::image::NodeId;
use crate::disk::{DirEntry, DiskBackend, OpenMode};

/// Where a Linux machine says which boot of it this is; a simulated one has the same file.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// A disk as one process of its node uses it.
#[derive(Clone)]
pub(crate) struct DiskNode {
    disk: SimDisk,
    incarnation: u64,
}

impl DiskNode {
    pub(crate) fn new(disk: SimDisk) -> Self {
        let incarnation = disk.lock().incarnation;
        Self { disk, incarnation }
    }

    pub(crate) fn backend(&self) -> DiskBackend {
        DiskBackend::Simulated
    }

    /// Does one operation, at once or after a while.
    async fn act<T: 'static>(
        &self,
        operation: impl FnOnce(&mut State) -> io::Result<T> + 'static,
    ) -> io::Result<T> {
        let (delay, at_once) = {
            let mut state = self.disk.lock();
            (state.draw_delay(), state.rng.chance(1, 2))
        };
        self.act_in(delay, at_once, operation).await
    }

    /// Flushes are what a slow medium is slow at: they have a delay of their own on top.
    async fn flush(&self, operation: impl FnOnce(&mut State) -> io::Result<()> + 'static) -> io::Result<()> {
        let (delay, at_once) = {
            let mut state = self.disk.lock();
            (state.draw_delay() + state.draw_flush_delay(), state.rng.chance(1, 2))
        };
        self.act_in(delay, at_once, operation).await
    }

    async fn act_in<T: 'static>(
        &self,
        delay: Duration,
        at_once: bool,
        operation: impl FnOnce(&mut State) -> io::Result<T> + 'static,
    ) -> io::Result<T> {
        if delay.is_zero() {
            return self.act_now(operation);
        }
        // A task of its own: the operation goes on when the caller gives up.
        let node = self.clone();
        let done = crate::spawn(async move {
            if at_once {
                let result = node.act_now(operation);
                tokio::time::sleep(delay).await;
                result
            } else {
                tokio::time::sleep(delay).await;
                node.act_now(operation)
            }
        });
        done.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    fn act_now<T>(&self, operation: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.lock();
        if state.incarnation != self.incarnation {
            return Err(io::Error::other("a handle of a simulated process that has ended"));
        }
        if state.is_cut {
            return Err(power_is_cut());
        }
        operation(&mut state)
    }

    pub(crate) async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let at = path.to_owned();
        let opened = self.act(move |state| match mode {
            OpenMode::Read | OpenMode::ReadWrite => state.image.file(&at),
            OpenMode::CreateOrOpen if state.image.exists(&at) => state.image.file(&at),
            OpenMode::CreateOrOpen | OpenMode::CreateNew => {
                state.change()?;
                state.image.create_file(&at)
            }
        });
        Ok(SimFile { node: self.clone(), id: opened.await?, writable: mode != OpenMode::Read })
    }

    pub(crate) async fn read(&self, path: &Path) -> io::Result<Bytes> {
        let path = path.to_owned();
        self.act(move |state| {
            if path == Path::new(BOOT_ID_FILE) {
                return Ok(state.boot_id().into());
            }
            let id = state.image.file(&path)?;
            state.read(id, 0, usize::MAX)
        })
        .await
    }

    pub(crate) async fn write_atomic(&self, path: &Path, content: Bytes) -> io::Result<()> {
        let mut temp = path.to_owned().into_os_string();
        temp.push(".tmp");
        let temp = PathBuf::from(temp);
        let file = self.open(&temp, OpenMode::CreateOrOpen).await?;
        file.truncate(0).await?;
        file.write_at(0, vec![content]).await?;
        file.sync_all().await?;
        self.rename(&temp, path).await?;
        self.sync_dir(path.parent().unwrap_or(Path::new("/"))).await
    }

    pub(crate) async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.act(move |state| {
            state.change()?;
            state.image.create_dir_all(&path)
        })
        .await
    }

    pub(crate) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.act(move |state| {
            state.change()?;
            state.image.remove_file(&path)
        })
        .await
    }

    pub(crate) async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.act(move |state| {
            state.change()?;
            state.image.remove_dir_all(&path)
        })
        .await
    }

    pub(crate) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.act(move |state| {
            state.change()?;
            state.image.rename(&from, &to)
        })
        .await
    }

    pub(crate) async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.flush(move |state| state.sync_dir(&path)).await
    }

    pub(crate) async fn exists(&self, path: &Path) -> io::Result<bool> {
        let path = path.to_owned();
        self.act(move |state| Ok(state.image.exists(&path))).await
    }

    pub(crate) async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = path.to_owned();
        self.act(move |state| state.image.list_dir(&path)).await
    }

    pub(crate) async fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        self.act(|state| Ok(state.free_bytes())).await
    }

    pub(crate) async fn lock_exclusive(&self, path: &Path) -> io::Result<SimLock> {
        let at = path.to_owned();
        self.act(move |state| {
            if !state.image.exists(&at) {
                state.change()?;
                state.image.create_file(&at)?;
            }
            if state.locks.insert(at) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        })
        .await?;
        Ok(SimLock { node: self.clone(), path: path.to_owned() })
    }
}

/// An open file of a simulated disk.
#[derive(Clone)]
pub(crate) struct SimFile {
    node: DiskNode,
    id: NodeId,
    writable: bool,
}

/// The same between cores: all there is to share is the handle itself.
pub(crate) type SimShared = SimFile;

impl SimFile {
    pub(crate) fn share(&self) -> SimShared {
        self.clone()
    }

    pub(crate) fn attach(&self) -> SimFile {
        self.clone()
    }

    pub(crate) fn read_now(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let id = self.id;
        self.node.act_now(|state| state.read(id, offset, len))
    }

    /// By the place alone, every fourth page is never in memory: readers go both ways in every run.
    pub(crate) fn read_resident(&self, offset: u64, len: usize) -> io::Result<Option<Bytes>> {
        const PAGE_BYTES: u64 = 4096;
        let last = offset.saturating_add(len as u64).saturating_sub(1);
        if (offset / PAGE_BYTES..=last / PAGE_BYTES).any(|page| page % 4 == 3) {
            return Ok(None);
        }
        Ok(Some(self.read_now(offset, len)?).filter(|bytes| bytes.len() == len))
    }

    pub(crate) async fn len(&self) -> io::Result<u64> {
        let id = self.id;
        self.node.act_now(|state| state.image.len(id))
    }

    pub(crate) async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let id = self.id;
        self.node.act(move |state| state.read(id, offset, len)).await
    }

    pub(crate) async fn write_at(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        let id = self.for_writing()?;
        let mut joined = BytesMut::with_capacity(bufs.iter().map(Bytes::len).sum());
        for buf in &bufs {
            joined.extend_from_slice(buf);
        }
        let bytes = joined.freeze();
        self.node.act(move |state| state.write(id, offset, bytes)).await
    }

    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        let id = self.id;
        self.node.flush(move |state| state.sync(id)).await
    }

    pub(crate) async fn sync_all(&self) -> io::Result<()> {
        self.sync_data().await
    }

    pub(crate) async fn truncate(&self, len: u64) -> io::Result<()> {
        let id = self.for_writing()?;
        self.node
            .act(move |state| {
                state.change()?;
                end_of(len, 0)?;
                state.image.set_len(id, len)
            })
            .await
    }

    pub(crate) async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let id = self.for_writing()?;
        self.node.act(move |state| state.reserve(id, end_of(offset, len)?)).await
    }

    fn for_writing(&self) -> io::Result<NodeId> {
        if self.writable { Ok(self.id) } else { Err(io::Error::from_raw_os_error(libc::EBADF)) }
    }
}

/// A lock of a simulated process.
pub(crate) struct SimLock {
    node: DiskNode,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.node.disk.lock();
        // A later process may hold the lock by now.
        if state.incarnation == self.node.incarnation {
            state.locks.remove(&self.path);
        }
    }
}
