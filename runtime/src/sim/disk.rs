//! A simulated disk: an image, and all that can go wrong with it.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::image::{Image, NodeId};
use super::{DATA_DIR, Rng};
use crate::disk::{DirEntry, DiskBackend, OpenMode};

/// Files end before this: a length beyond it is a caller's mistake, and would fill the memory.
const FILE_BYTES_MAX: u64 = 1 << 40;

/// What an unlimited disk says it has free.
const UNLIMITED_FREE_BYTES: u64 = 1 << 40;

/// One node's disk, which outlives the node's process. Clones are the same disk; `Send`.
///
/// It starts with an empty [`DATA_DIR`]. All chance comes from the seed it was made from.
#[derive(Clone)]
pub struct SimDisk {
    /// All users are on one thread: the lock is there so that handles may travel as real ones do.
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
struct State {
    image: Image,
    rng: Rng,
    /// Counts the processes that have used the disk; handles of earlier ones are dead.
    incarnation: u64,
    locks: BTreeSet<PathBuf>,
    delay_max: Duration,
    capacity_bytes: Option<u64>,
    fail_read: Countdown,
    fail_write: Countdown,
    fail_sync: Countdown,
    cut: Countdown,
    is_cut: bool,
    counts: OperationCounts,
}

/// Fires once, after a number of operations.
#[derive(Clone, Copy, Debug, Default)]
struct Countdown {
    left: Option<u64>,
}

impl Countdown {
    fn fires(&mut self) -> bool {
        match self.left {
            Some(0) => {
                self.left = None;
                true
            }
            Some(left) => {
                self.left = Some(left - 1);
                false
            }
            None => false,
        }
    }
}

/// What a disk was asked to do so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationCounts {
    /// Reads of files.
    pub reads: u64,
    /// Writes to files.
    pub writes: u64,
    /// Flushes of files.
    pub syncs: u64,
    /// All operations that change something, flushes and names included: what
    /// [`SimDisk::cut_power_after`] counts.
    pub changes: u64,
}

impl SimDisk {
    /// Makes a disk of unlimited size that does not fail.
    pub fn new(seed: u64) -> Self {
        Self::from_state(State {
            image: Image::with_dir(DATA_DIR),
            rng: Rng::new(seed).fork(0xd15c),
            incarnation: 0,
            locks: BTreeSet::new(),
            delay_max: Duration::ZERO,
            capacity_bytes: None,
            fail_read: Countdown::default(),
            fail_write: Countdown::default(),
            fail_sync: Countdown::default(),
            cut: Countdown::default(),
            is_cut: false,
            counts: OperationCounts::default(),
        })
    }

    fn from_state(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of a test leaves the state as whole as its last operation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets every operation take up to `delay_max`, by chance, and take effect at its begin or at its end. Then
    /// operations go on when their futures are dropped, as real ones do.
    pub fn set_delay_max(&self, delay_max: Duration) {
        self.lock().delay_max = delay_max;
    }

    /// Limits the size; `None` lifts the limit. Writes and reservations beyond it fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// Lets one read fail with EIO, after `reads` more that succeed.
    pub fn fail_read_after(&self, reads: u64) {
        self.lock().fail_read = Countdown { left: Some(reads) };
    }

    /// Lets one write fail with EIO, after `writes` more that succeed. A part of it, by chance, is written.
    pub fn fail_write_after(&self, writes: u64) {
        self.lock().fail_write = Countdown { left: Some(writes) };
    }

    /// Lets one flush of a file fail with EIO, after `syncs` more that succeed. As with a real kernel, some of the
    /// bytes are then never flushed, although they can be read and the next flush succeeds.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.lock().fail_sync = Countdown { left: Some(syncs) };
    }

    /// Cuts the power after `changes` more changing operations: all operations fail from then on, and nothing
    /// reaches the disk, until [`power_cut`](Self::power_cut) or [`crash`](Self::crash) shows what is left.
    /// With [`counts`](Self::counts) a test can visit every point of a workload.
    pub fn cut_power_after(&self, changes: u64) {
        self.lock().cut = Countdown { left: Some(changes) };
    }

    /// Says whether [`cut_power_after`](Self::cut_power_after) has struck.
    pub fn is_cut(&self) -> bool {
        self.lock().is_cut
    }

    /// Returns what was asked of the disk so far.
    pub fn counts(&self) -> OperationCounts {
        self.lock().counts
    }

    /// Flips one bit of a file, on the medium and for readers.
    ///
    /// # Errors
    /// When there is no such file or byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.lock();
        let id = state.image.file(path)?;
        state.image.flip_bit(id, offset, bit)
    }

    /// Returns another disk with what a power cut would leave of this one, now: one of the images that a real
    /// machine could show, another one at each call. What was flushed is always there. No fault is set on it, and
    /// this disk goes on undisturbed.
    #[must_use = "the disk itself is not changed"]
    pub fn crash(&self) -> Self {
        let mut state = self.lock();
        let seed = state.rng.next();
        let mut after = state.clone();
        drop(state);
        after.rng = Rng::new(seed);
        after.heal();
        after.end_process();
        after.lose_power();
        Self::from_state(after)
    }

    /// Cuts the power of this disk's machine: leaves one of the legal images, fails all handles, frees all locks.
    /// Faults that were set stay, but for the cut itself.
    pub fn power_cut(&self) {
        let mut state = self.lock();
        state.cut = Countdown::default();
        state.is_cut = false;
        state.end_process();
        state.lose_power();
    }

    /// Kills the process that uses this disk: all that was written is still there, flushed or not (and a later power
    /// cut may still take the unflushed). All handles fail, all locks are free.
    pub fn kill(&self) {
        self.lock().end_process();
    }

    /// Lists every file there is and its content, by path. For comparisons in tests.
    pub fn files(&self) -> Vec<(PathBuf, Bytes)> {
        fn walk(image: &Image, dir: &Path, out: &mut Vec<(PathBuf, Bytes)>) {
            for entry in image.list_dir(dir).unwrap_or_default() {
                let path = dir.join(&entry.name);
                if entry.is_dir {
                    walk(image, &path, out);
                } else if let Ok(id) = image.file(&path) {
                    let content = image.read(id, 0, usize::MAX).unwrap_or_default();
                    out.push((path, content));
                }
            }
        }
        let mut out = Vec::new();
        walk(&self.lock().image, Path::new("/"), &mut out);
        out
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("counts", &self.counts()).finish()
    }
}

impl State {
    fn heal(&mut self) {
        self.delay_max = Duration::ZERO;
        self.capacity_bytes = None;
        self.fail_read = Countdown::default();
        self.fail_write = Countdown::default();
        self.fail_sync = Countdown::default();
        self.cut = Countdown::default();
        self.is_cut = false;
        self.counts = OperationCounts::default();
    }

    fn end_process(&mut self) {
        self.incarnation += 1;
        self.locks.clear();
        self.image = self.image.clone().after_kill();
    }

    fn lose_power(&mut self) {
        self.image = self.image.clone().after_power_cut(&mut self.rng);
    }

    fn draw_delay(&mut self) -> Duration {
        let micros = u64::try_from(self.delay_max.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 { Duration::ZERO } else { Duration::from_micros(1 + self.rng.below(micros)) }
    }

    /// Counts an operation that changes something, and stops it when the power is gone.
    fn change(&mut self) -> io::Result<()> {
        self.is_cut |= self.cut.fires();
        if self.is_cut {
            return Err(power_is_cut());
        }
        self.counts.changes += 1;
        Ok(())
    }

    fn read(&mut self, id: NodeId, offset: u64, len: usize) -> io::Result<Bytes> {
        self.counts.reads += 1;
        if self.fail_read.fires() {
            return Err(eio());
        }
        self.image.read(id, offset, len)
    }

    fn write(&mut self, id: NodeId, offset: u64, bytes: Bytes) -> io::Result<()> {
        self.change()?;
        self.counts.writes += 1;
        let end = end_of(offset, bytes.len() as u64)?;
        if self.fail_write.fires() {
            self.write_part(id, offset, &bytes)?;
            return Err(eio());
        }
        if self.image.growth(id, end)? > self.free_bytes() {
            self.write_part(id, offset, &bytes)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.image.write(id, offset, bytes)
    }

    /// A write that fails may have begun.
    fn write_part(&mut self, id: NodeId, offset: u64, bytes: &Bytes) -> io::Result<()> {
        let kept = self.rng.below(bytes.len() as u64 + 1);
        if kept == 0 || self.image.growth(id, offset + kept)? > self.free_bytes() {
            return Ok(());
        }
        self.image.write(id, offset, bytes.slice(..usize::try_from(kept).unwrap_or(0)))
    }

    fn sync(&mut self, id: NodeId) -> io::Result<()> {
        self.change()?;
        self.counts.syncs += 1;
        if self.fail_sync.fires() {
            self.image.fail_sync(id, &mut self.rng)?;
            return Err(eio());
        }
        self.image.sync_file(id)
    }

    fn reserve(&mut self, id: NodeId, end: u64) -> io::Result<()> {
        self.change()?;
        if self.image.growth(id, end)? > self.free_bytes() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.image.reserve(id, end)
    }

    fn free_bytes(&self) -> u64 {
        match self.capacity_bytes {
            Some(capacity) => capacity.saturating_sub(self.image.used_bytes()),
            None => UNLIMITED_FREE_BYTES,
        }
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn power_is_cut() -> io::Error {
    io::Error::other("the simulated power is cut")
}

fn end_of(offset: u64, len: u64) -> io::Result<u64> {
    match offset.checked_add(len) {
        Some(end) if end <= FILE_BYTES_MAX => Ok(end),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

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
        self.act(move |state| {
            state.change()?;
            state.image.sync_dir(&path)
        })
        .await
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
        self.node.act(move |state| state.sync(id)).await
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
