//! A simulated disk: an image, and all that can go wrong with it.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::image::{Image, NodeId};
use super::{DATA_DIR, Rng};

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
pub(crate) struct State {
    pub(crate) image: Image,
    pub(crate) rng: Rng,
    /// Draws the boot ids, apart from `rng`: a new boot changes no other chance.
    boots: Rng,
    /// Counts the processes that have used the disk; handles of earlier ones are dead.
    pub(crate) incarnation: u64,
    pub(crate) locks: BTreeSet<PathBuf>,
    delay_max: Duration,
    flush_delay_max: Duration,
    lies: bool,
    late: Option<LateFlushes>,
    capacity_bytes: Option<u64>,
    fail_read: Countdown,
    fail_write: Countdown,
    fail_sync: Countdown,
    fail_change: Countdown,
    /// How many changes fail, once the first does.
    failing_changes: u64,
    cut: Countdown,
    pub(crate) is_cut: bool,
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

/// Flushes of some files that are reported done and take effect later.
#[derive(Clone, Debug)]
struct LateFlushes {
    /// The extension of these files.
    of: &'static str,
    /// They take effect right after a flush of a file with this one.
    behind: &'static str,
    /// Flushed, as far as programs know.
    waiting: BTreeSet<NodeId>,
    /// The next change brings them to the medium, if the power is still there.
    are_due: bool,
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
    /// Flushes, of files and directories, that were reported done and were not.
    pub lies: u64,
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
            boots: Rng::new(seed).fork(0xb007),
            incarnation: 0,
            locks: BTreeSet::new(),
            delay_max: Duration::ZERO,
            flush_delay_max: Duration::ZERO,
            lies: false,
            late: None,
            capacity_bytes: None,
            fail_read: Countdown::default(),
            fail_write: Countdown::default(),
            fail_sync: Countdown::default(),
            fail_change: Countdown::default(),
            failing_changes: 0,
            cut: Countdown::default(),
            is_cut: false,
            counts: OperationCounts::default(),
        })
    }

    fn from_state(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of a test leaves the state as whole as its last operation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets every operation take up to `delay_max`, by chance, and take effect at its begin or at its end. Then
    /// operations go on when their futures are dropped, as real ones do.
    pub fn set_delay_max(&self, delay_max: Duration) {
        self.lock().delay_max = delay_max;
    }

    /// Lets every flush take up to `delay_max` longer, by chance: a medium that is slow, behind a cache that is not.
    pub fn set_flush_delay_max(&self, delay_max: Duration) {
        self.lock().flush_delay_max = delay_max;
    }

    /// Lets the disk lie: from now on flushes are reported done and nothing reaches the medium; a power cut may take all
    /// of it. A disk that tells the truth again keeps what its next flushes cover, the earlier lies included.
    ///
    /// No promise of durability holds over a lying disk: whoever sets this must count losses instead of forbidding them.
    pub fn set_lies(&self, lies: bool) {
        self.lock().lies = lies;
    }

    /// Swaps an order that programs keep: from now on a flush of a file with the extension `of` is reported done and takes
    /// effect only after the next flush of one with the extension `behind`. None: in order again, and what waits takes effect.
    ///
    /// For tests of tests: a program that had the order wrong would leave such disks behind.
    pub fn swap_flushes(&self, order: Option<(&'static str, &'static str)>) {
        let mut state = self.lock();
        if !state.is_cut {
            state.make_up_for_late_flushes();
        }
        state.late =
            order.map(|(of, behind)| LateFlushes { of, behind, waiting: BTreeSet::new(), are_due: false });
    }

    /// Ends every fault that was set: the disk is fast, roomy and honest again, and what was to fail does not. Flushes that
    /// failed or were lies stay what they were.
    pub fn heal(&self) {
        let mut state = self.lock();
        let counts = state.counts;
        state.heal();
        state.counts = counts;
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

    /// Lets `count` changing operations fail with EIO, names and flushes included, after `changes` more that succeed. Nothing
    /// of them happens; what a flush should have covered stays to be flushed.
    pub fn fail_changes_after(&self, changes: u64, count: u64) {
        let mut state = self.lock();
        state.fail_change = Countdown { left: Some(changes) };
        state.failing_changes = count;
    }

    /// How many operations that [`fail_changes_after`](Self::fail_changes_after) asked to fail are still to come.
    pub fn failing_changes(&self) -> u64 {
        self.lock().failing_changes
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

    /// Puts an empty disk in the place of this one. All handles fail; faults that were set stay.
    pub fn wipe(&self) {
        let mut state = self.lock();
        state.end_process();
        state.image = Image::with_dir(DATA_DIR);
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
        self.flush_delay_max = Duration::ZERO;
        self.lies = false;
        self.late = None;
        self.capacity_bytes = None;
        self.fail_read = Countdown::default();
        self.fail_write = Countdown::default();
        self.fail_sync = Countdown::default();
        self.fail_change = Countdown::default();
        self.failing_changes = 0;
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
        // Another boot.
        self.boots.next();
        if let Some(late) = &mut self.late {
            late.waiting.clear();
        }
        self.image = self.image.clone().after_power_cut(&mut self.rng);
    }

    /// Names the boot of the machine, as Linux does: another one after each power cut.
    pub(crate) fn boot_id(&self) -> String {
        let mut bytes = [0; 16];
        self.boots.clone().fill(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}\n", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    pub(crate) fn draw_delay(&mut self) -> Duration {
        self.draw(self.delay_max)
    }

    pub(crate) fn draw_flush_delay(&mut self) -> Duration {
        self.draw(self.flush_delay_max)
    }

    fn draw(&mut self, delay_max: Duration) -> Duration {
        let micros = u64::try_from(delay_max.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 { Duration::ZERO } else { Duration::from_micros(1 + self.rng.below(micros)) }
    }

    /// Counts an operation that changes something, and stops it when the power is gone.
    pub(crate) fn change(&mut self) -> io::Result<()> {
        self.is_cut |= self.cut.fires();
        if self.is_cut {
            return Err(power_is_cut());
        }
        if self.fail_change.fires() {
            self.failing_changes = self.failing_changes.saturating_sub(1);
            self.fail_change.left = (self.failing_changes > 0).then_some(0);
            return Err(eio());
        }
        if self.late.as_ref().is_some_and(|late| late.are_due) {
            self.make_up_for_late_flushes();
        }
        self.counts.changes += 1;
        Ok(())
    }

    pub(crate) fn read(&mut self, id: NodeId, offset: u64, len: usize) -> io::Result<Bytes> {
        self.counts.reads += 1;
        if self.fail_read.fires() {
            return Err(eio());
        }
        self.image.read(id, offset, len)
    }

    pub(crate) fn write(&mut self, id: NodeId, offset: u64, bytes: Bytes) -> io::Result<()> {
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

    pub(crate) fn sync(&mut self, id: NodeId) -> io::Result<()> {
        self.change()?;
        self.counts.syncs += 1;
        if self.lies {
            self.counts.lies += 1;
            return Ok(());
        }
        if self.fail_sync.fires() {
            self.image.fail_sync(id, &mut self.rng)?;
            return Err(eio());
        }
        if let Some(late) = &mut self.late {
            if self.image.has_extension(id, late.of) {
                late.waiting.insert(id);
                return Ok(());
            }
            late.are_due |= self.image.has_extension(id, late.behind);
        }
        self.image.sync_file(id)
    }

    fn make_up_for_late_flushes(&mut self) {
        let Some(late) = &mut self.late else { return };
        late.are_due = false;
        for id in std::mem::take(&mut late.waiting) {
            // One that was removed meanwhile needs no flush any more.
            let _ = self.image.sync_file(id);
        }
    }

    pub(crate) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.change()?;
        if self.lies {
            self.counts.lies += 1;
            return Ok(());
        }
        self.image.sync_dir(path)
    }

    pub(crate) fn reserve(&mut self, id: NodeId, end: u64) -> io::Result<()> {
        self.change()?;
        if self.image.growth(id, end)? > self.free_bytes() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.image.reserve(id, end)
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        match self.capacity_bytes {
            Some(capacity) => capacity.saturating_sub(self.image.used_bytes()),
            None => UNLIMITED_FREE_BYTES,
        }
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

pub(crate) fn power_is_cut() -> io::Error {
    io::Error::other("the simulated power is cut")
}

pub(crate) fn end_of(offset: u64, len: u64) -> io::Result<u64> {
    match offset.checked_add(len) {
        Some(end) if end <= FILE_BYTES_MAX => Ok(end),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}
