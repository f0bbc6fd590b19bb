//! The offsets a partition's owner publishes and any core may read.
//!
//! A seqlock over atomics. The version is even while the fields are at rest and odd while the owner writes:
//!
//! ```text
//!   owner:  version = odd │ release fence │ store fields, relaxed │ version = even, release
//!   reader: version, acquire │ load fields, relaxed │ acquire fence │ version again: equal and even, or retry
//! ```
//!
//! Who may touch what: only [`OffsetsWriter`] writes, it cannot be cloned, and storing takes it by `&mut`; so
//! there is one writer by construction. Readers never write, so they cost the owner no cache line beyond the
//! read. All fields are atomics: a torn read is possible but is always thrown away, and there is no data race.

use std::fmt;

use crate::shim::{Arc, AtomicI32, AtomicI64, AtomicU64, Ordering, fence, spin_loop, yield_now};

/// After this many failed reads the owner is presumed descheduled in mid-store, and the reader yields.
const SPINS_BEFORE_YIELD: u32 = 64;

/// One consistent view of a partition's offset chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffsetSnapshot {
    /// First readable offset, inclusive.
    pub log_start: i64,
    /// Exclusive end of what a read-committed reader may see.
    pub last_stable: i64,
    /// Exclusive end of what enough replicas hold.
    pub high_watermark: i64,
    /// Next offset to be assigned, exclusive end of the log.
    pub log_end: i64,
    /// Epoch of the leader that wrote these values; -1 when there is none.
    pub leader_epoch: i32,
}

struct Cell {
    version: AtomicU64,
    log_start: AtomicI64,
    last_stable: AtomicI64,
    high_watermark: AtomicI64,
    log_end: AtomicI64,
    leader_epoch: AtomicI32,
}

/// Publishes `initial` and returns the only writer with a first reader.
pub fn published_offsets(initial: OffsetSnapshot) -> (OffsetsWriter, PublishedOffsets) {
    let cell = Arc::new(Cell {
        version: AtomicU64::new(0),
        log_start: AtomicI64::new(initial.log_start),
        last_stable: AtomicI64::new(initial.last_stable),
        high_watermark: AtomicI64::new(initial.high_watermark),
        log_end: AtomicI64::new(initial.log_end),
        leader_epoch: AtomicI32::new(initial.leader_epoch),
    });
    (OffsetsWriter { cell: cell.clone() }, PublishedOffsets { cell })
}

/// The owner's side: the one who may store.
pub struct OffsetsWriter {
    cell: Arc<Cell>,
}

impl OffsetsWriter {
    /// Publishes a new snapshot; readers see all of it or none of it.
    pub fn store(&mut self, snapshot: OffsetSnapshot) {
        let cell = &*self.cell;
        // Relaxed: this handle is the only writer, so it reads back its own last store.
        let version = cell.version.load(Ordering::Relaxed);
        cell.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // A reader that sees any field below must also see the odd version: this fence pairs with the
        // reader's acquire fence.
        fence(Ordering::Release);
        cell.log_start.store(snapshot.log_start, Ordering::Relaxed);
        cell.last_stable.store(snapshot.last_stable, Ordering::Relaxed);
        cell.high_watermark.store(snapshot.high_watermark, Ordering::Relaxed);
        cell.log_end.store(snapshot.log_end, Ordering::Relaxed);
        cell.leader_epoch.store(snapshot.leader_epoch, Ordering::Relaxed);
        cell.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// Returns another reader.
    pub fn reader(&self) -> PublishedOffsets {
        PublishedOffsets { cell: self.cell.clone() }
    }
}

impl fmt::Debug for OffsetsWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OffsetsWriter").field(&self.reader().read()).finish()
    }
}

/// A reader's side: cheap to clone, usable on any core.
#[derive(Clone)]
pub struct PublishedOffsets {
    cell: Arc<Cell>,
}

impl PublishedOffsets {
    /// Reads the newest snapshot that is whole.
    ///
    /// Retries while the owner is in the middle of a store, which is six stores long.
    pub fn read(&self) -> OffsetSnapshot {
        let mut spins = 0;
        loop {
            if let Some(snapshot) = self.try_read() {
                return snapshot;
            }
            spins += 1;
            if spins % SPINS_BEFORE_YIELD == 0 || cfg!(loom) {
                yield_now();
            } else {
                spin_loop();
            }
        }
    }

    fn try_read(&self) -> Option<OffsetSnapshot> {
        let cell = &*self.cell;
        let before = cell.version.load(Ordering::Acquire);
        let snapshot = OffsetSnapshot {
            log_start: cell.log_start.load(Ordering::Relaxed),
            last_stable: cell.last_stable.load(Ordering::Relaxed),
            high_watermark: cell.high_watermark.load(Ordering::Relaxed),
            log_end: cell.log_end.load(Ordering::Relaxed),
            leader_epoch: cell.leader_epoch.load(Ordering::Relaxed),
        };
        // Orders the loads above before the second look at the version.
        fence(Ordering::Acquire);
        let after = cell.version.load(Ordering::Relaxed);
        (before == after && before.is_multiple_of(2)).then_some(snapshot)
    }
}

impl fmt::Debug for PublishedOffsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublishedOffsets").field(&self.read()).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn readers_see_the_last_store_whole() {
        let (mut writer, reader) = published_offsets(OffsetSnapshot::default());
        let next = OffsetSnapshot { high_watermark: 7, log_end: 9, leader_epoch: 3, ..Default::default() };
        writer.store(next);
        assert_eq!(reader.read(), next);
        assert_eq!(writer.reader().read(), next);
    }
}

/// The seqlock under every interleaving, and every value each relaxed load may return.
#[cfg(all(test, loom))]
mod searched {
    use loom::thread;

    use super::*;

    /// A snapshot whose fields all say the same: a torn one gives itself away.
    fn all(n: i64) -> OffsetSnapshot {
        OffsetSnapshot { log_start: n, last_stable: n, high_watermark: n, log_end: n, leader_epoch: n as i32 }
    }

    /// Runs `store` against a reader that reads twice, with at most so many preemptions: the values that loads may
    /// return multiply fast.
    fn search(stores: i64, preemptions: usize, store: fn(&mut OffsetsWriter, OffsetSnapshot)) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions);
        model.check(move || {
            let (mut writer, reader) = published_offsets(all(0));
            let owner = thread::spawn(move || {
                for n in 1..=stores {
                    store(&mut writer, all(n));
                }
            });
            let first = reader.read();
            assert_eq!(first, all(first.log_start), "torn");
            let second = reader.read();
            assert_eq!(second, all(second.log_start), "torn");
            assert!(first.log_start <= second.log_start, "time went back");
            owner.join().unwrap();
            assert_eq!(reader.read(), all(stores));
        });
    }

    #[test]
    fn a_reader_never_sees_a_torn_snapshot() {
        search(1, 2, OffsetsWriter::store);
    }

    #[test]
    fn a_reader_never_goes_back_in_time() {
        search(2, 1, OffsetsWriter::store);
    }

    /// A planted bug: the version never turns odd, so a reader may look in the middle of a store.
    #[test]
    #[should_panic(expected = "torn")]
    fn a_torn_snapshot_would_be_found() {
        search(1, 2, |writer, snapshot| {
            let cell = &*writer.cell;
            cell.log_start.store(snapshot.log_start, Ordering::Relaxed);
            cell.last_stable.store(snapshot.last_stable, Ordering::Relaxed);
            cell.high_watermark.store(snapshot.high_watermark, Ordering::Relaxed);
            cell.log_end.store(snapshot.log_end, Ordering::Relaxed);
            cell.leader_epoch.store(snapshot.leader_epoch, Ordering::Relaxed);
            cell.version.fetch_add(2, Ordering::Release);
        });
    }

    /// A planted bug: without the release fence the fields may be seen before the odd version is.
    #[test]
    #[should_panic(expected = "torn")]
    fn a_missing_fence_would_be_found() {
        search(1, 2, |writer, snapshot| {
            let cell = &*writer.cell;
            let version = cell.version.load(Ordering::Relaxed);
            cell.version.store(version + 1, Ordering::Relaxed);
            cell.log_start.store(snapshot.log_start, Ordering::Relaxed);
            cell.last_stable.store(snapshot.last_stable, Ordering::Relaxed);
            cell.high_watermark.store(snapshot.high_watermark, Ordering::Relaxed);
            cell.log_end.store(snapshot.log_end, Ordering::Relaxed);
            cell.leader_epoch.store(snapshot.leader_epoch, Ordering::Relaxed);
            cell.version.store(version + 2, Ordering::Release);
        });
    }
}
