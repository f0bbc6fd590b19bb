//! Which bytes of a file are in memory, and how those that are not get there, without a reactor ever waiting for them.
//!
//! A read of a page that is not in memory stalls its thread, and `sendfile` has no flag against that. So whoever sends
//! probes first, right before each call, and has the rest read in by a thread that may wait. What is left is the moment
//! between the probe and the call, in which the kernel may take a page back.
//!
//! | probe | 64 KiB | 256 KiB | sees |
//! |---|---|---|---|
//! | `cachestat` (kernel 6.5) | 0.3-0.6 us | 0.3-1.1 us | pages that are there, those that a disk is still filling too |
//! | `mmap`, `mincore`, `munmap` | 6 us | 9 us | pages that can be read |
//!
//! The first is right for a file that was only written: its pages were full when they came. Once anything was, or may have
//! been, read from the disk into a file's pages, the second one is asked. So it is of every file that held something when it
//! was opened: who had it open before may have asked for pages that are still on their way.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::syscalls;

/// How much is read in at once, and how far ahead of the sender.
const READ_IN_BYTES: u64 = 1 << 20;
/// The kernel cuts one request for read-ahead to what the device takes or reads ahead, whichever is more: with most this
/// much at least.
const REQUEST_BYTES: u64 = 128 * 1024;
/// No sender is this far: nothing is read ahead.
const NOWHERE: u64 = u64::MAX;

/// Whether the kernel has `cachestat` and lets us use it; false from the first refusal on.
static HAS_CACHESTAT: AtomicBool = AtomicBool::new(true);

/// What is known about one open file's pages.
#[derive(Debug)]
pub(crate) struct Residency {
    /// Pages may be on their way from the disk, or may have been.
    is_filled: AtomicBool,
    /// Whoever sends beyond this has the next piece read in, behind the back of all that was asked for.
    ahead_from: AtomicU64,
    /// The kernel's own read-ahead is off: it would be done by whoever sends.
    is_advised: AtomicBool,
}

impl Residency {
    /// Of a file that was just opened.
    pub(crate) fn of(file: &fs::File) -> Self {
        let is_empty = file.metadata().is_ok_and(|metadata| metadata.len() == 0);
        Self {
            is_filled: AtomicBool::new(!is_empty),
            ahead_from: AtomicU64::new(NOWHERE),
            is_advised: AtomicBool::new(false),
        }
    }

    /// Notes that bytes are being read from the disk, or may be.
    pub(crate) fn fills(&self) {
        // Before the read begins; whoever sees its pages has long seen this.
        self.is_filled.store(true, Ordering::Release);
    }

    /// Says whether a range can be read without waiting for a disk. A doubt says no.
    pub(crate) fn covers(&self, file: &fs::File, offset: u64, len: usize) -> bool {
        if !self.is_filled.load(Ordering::Acquire) && HAS_CACHESTAT.load(Ordering::Relaxed) {
            match syscalls::cached(file, offset, len) {
                Ok(true) => return true,
                Ok(false) => {
                    self.fills();
                    return false;
                }
                Err(error) => {
                    tracing::debug!(%error, "no cachestat here: residency is probed by mincore");
                    HAS_CACHESTAT.store(false, Ordering::Relaxed);
                }
            }
        }
        let covers = syscalls::resident(file, offset, len).unwrap_or(false);
        if !covers {
            self.fills();
        }
        covers
    }

    /// Turns the kernel's read-ahead off, once: ours is done by threads that may wait.
    pub(crate) fn advise(&self, file: &fs::File) {
        if !self.is_advised.swap(true, Ordering::Relaxed) {
            // A hint; without it a sender may now and then issue reads that it does not need.
            let _ = syscalls::advise(file, 0, 0, libc::POSIX_FADV_RANDOM);
        }
    }

    /// Asks for the bytes from `offset` on, and for more behind them, and waits for the first `len`. Blocking.
    pub(crate) fn read_in(&self, file: &fs::File, offset: u64, len: usize) -> io::Result<()> {
        self.fills();
        let end = offset.saturating_add(len as u64);
        let ahead_from = offset.saturating_add(READ_IN_BYTES);
        ask_for(file, offset, ahead_from.saturating_add(READ_IN_BYTES).max(end));
        self.ahead_from.store(ahead_from, Ordering::Relaxed);
        // Each request is of whole pages that arrive together, or nearly: who asks next probes again.
        let mut last = offset;
        loop {
            last = last.saturating_add(REQUEST_BYTES).min(end);
            let mut byte = [0];
            match file.read_at(&mut byte, last.saturating_sub(1)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if last == end {
                return Ok(());
            }
        }
    }

    /// Says from where the next piece is to be read in, now that a sender has come to `position`; nothing of a file that
    /// was in memory so far, and only one sender hears it.
    pub(crate) fn due_ahead(&self, position: u64) -> Option<u64> {
        let from = self.ahead_from.load(Ordering::Relaxed);
        // Whoever is far behind it is another reader, or the same one that began again.
        if position < from || position - from > READ_IN_BYTES {
            return None;
        }
        let next = from + READ_IN_BYTES;
        self.ahead_from.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(next)
    }

    /// Asks for the piece at `from`. Blocking, though not until it is there.
    pub(crate) fn read_ahead(&self, file: &fs::File, from: u64) {
        self.fills();
        ask_for(file, from, from.saturating_add(READ_IN_BYTES));
    }
}

/// Has the kernel begin to read. What it does not take on is missed by the next probe.
fn ask_for(file: &fs::File, from: u64, end: u64) {
    let mut at = from;
    while at < end {
        let len = REQUEST_BYTES.min(end - at);
        if syscalls::advise(file.as_fd(), at, len, libc::POSIX_FADV_WILLNEED).is_err() {
            return;
        }
        at += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE_BYTES: usize = 8 << 20;

    fn file() -> (fs::File, Residency) {
        let file = tempfile::tempfile().unwrap();
        let residency = Residency::of(&file);
        file.write_all_at(&vec![7; FILE_BYTES], 0).unwrap();
        (file, residency)
    }

    /// Puts a file's pages out of memory; false where the file system keeps them there (tmpfs).
    fn evict(file: &fs::File) -> bool {
        file.sync_all().unwrap();
        syscalls::advise(file, 0, 0, libc::POSIX_FADV_DONTNEED).unwrap();
        !syscalls::resident(file, 0, FILE_BYTES).unwrap()
    }

    #[test]
    fn what_was_written_is_there_by_either_probe() {
        let (file, residency) = file();
        assert!(residency.covers(&file, 0, FILE_BYTES));
        assert!(residency.covers(&file, 4095, 2), "two pages for two bytes");
        residency.fills();
        assert!(residency.covers(&file, 0, FILE_BYTES));
        assert!(residency.covers(&file, 12_345, 1));
        assert!(residency.covers(&file, 5, 0), "nothing is always there");
    }

    /// A file opened again was believed to be only written: pages that somebody else had asked for, and that the disk
    /// was still filling, counted as there, and the core waited for them.
    #[test]
    fn only_a_file_that_was_empty_when_opened_is_known_to_be_only_written() {
        let (file, residency) = file();
        assert!(!residency.is_filled.load(Ordering::Relaxed));
        let again = Residency::of(&file.try_clone().unwrap());
        assert!(again.is_filled.load(Ordering::Relaxed));
        assert!(again.covers(&file, 0, FILE_BYTES), "the other probe finds the same");
    }

    #[test]
    fn what_is_not_there_is_seen_and_read_in() {
        let (file, residency) = file();
        if !evict(&file) {
            eprintln!("skipped: this file system keeps its pages");
            return;
        }
        assert_eq!(residency.due_ahead(FILE_BYTES as u64), None, "nothing was cold yet");
        assert!(!residency.covers(&file, 0, 4096));
        residency.advise(&file);
        residency.read_in(&file, 100, 256 * 1024).unwrap();
        assert!(residency.covers(&file, 100, 256 * 1024));
        assert!(!residency.covers(&file, 4 << 20, 4096), "that is further ahead");
        assert_eq!(residency.due_ahead(1000), None, "not yet");
        let next = residency.due_ahead(100 + READ_IN_BYTES).unwrap();
        assert_eq!(next, 100 + 2 * READ_IN_BYTES);
        assert_eq!(residency.due_ahead(100 + READ_IN_BYTES), None, "one sender is enough");
        residency.read_ahead(&file, next);
        assert_eq!(residency.due_ahead(next), Some(next + READ_IN_BYTES));
        assert_eq!(residency.due_ahead(FILE_BYTES as u64), None, "somebody else's place");
    }

    #[test]
    fn a_range_beyond_the_end_is_not_there() {
        let (file, residency) = file();
        assert!(!residency.covers(&file, FILE_BYTES as u64 - 10, 8192));
        assert!(
            residency.read_in(&file, FILE_BYTES as u64 + 5, 100).is_ok(),
            "the sender finds the file short"
        );
    }
}
