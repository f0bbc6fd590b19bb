//! What the process finds out once, at its start, about reaching the disk.
//!
//! Two questions are answered by trying, not by names and versions: does io_uring work here, and can the file
//! system of a data directory take a buffered write without blocking (XFS can, ext4 cannot)? Where it cannot, the ring
//! would hand every write to a kernel thread, for 4 us of CPU and two hops; a small write is cheaper made at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::pool::Pool;
use super::real::RealDisk;
use super::ring::{self, Flavour};
use super::syscalls::{self, WriteCursor};
use super::{BackendChoice, Disk, DiskBackend};

/// Buffered writes up to this size take 2-30 us into the page cache: on the reactor, where they cannot go
/// through the ring without a helper thread.
const INLINE_WRITE_BYTES_MAX: usize = 256 * 1024;
/// Threads for calls that block.
const POOL_THREADS: usize = 2;
/// Threads that wait for bytes which are to be sent: as many cold readers go on side by side.
const READ_IN_THREADS: usize = 4;

/// The decision, and what all cores share of it.
#[derive(Clone, Debug)]
pub(crate) struct DiskPlan {
    flavour: Option<Flavour>,
    /// No ring, no start.
    demanded: bool,
    ways: Arc<[WriteWay]>,
    pool: Pool,
    read_in: Pool,
}

/// How writes under one data directory are made.
#[derive(Clone, Debug)]
pub(crate) struct WriteWay {
    dir: PathBuf,
    /// The file system takes buffered writes without blocking: all of them go through the ring.
    async_writes: bool,
}

/// Up to which size writes to `path` are made on the reactor.
pub(crate) fn inline_write_bytes_max(ways: &[WriteWay], path: &Path) -> usize {
    let way =
        ways.iter().filter(|way| path.starts_with(&way.dir)).max_by_key(|way| way.dir.components().count());
    if way.is_some_and(|way| way.async_writes) { 0 } else { INLINE_WRITE_BYTES_MAX }
}

/// Finds out how to reach the disk.
///
/// # Errors
/// When io_uring is demanded and does not work; when a data directory cannot be written to.
pub(crate) fn plan(choice: BackendChoice, data_dirs: &[PathBuf]) -> io::Result<DiskPlan> {
    let flavour = decide(choice, ring::probe())?;
    let mut ways = Vec::new();
    if flavour.is_some() {
        for dir in data_dirs {
            let async_writes = takes_async_writes(dir).map_err(|error| {
                io::Error::new(error.kind(), format!("try a write in {}: {error}", dir.display()))
            })?;
            ways.push(WriteWay { dir: dir.clone(), async_writes });
        }
    }
    tracing::debug!(?flavour, ?ways, "the way to the disk");
    let demanded = choice == BackendChoice::Uring;
    let (pool, read_in) = (Pool::new(POOL_THREADS, "disk-pool"), Pool::new(READ_IN_THREADS, "read-in"));
    Ok(DiskPlan { flavour, demanded, ways: ways.into(), pool, read_in })
}

/// Decides from what is wanted and what the probe found.
fn decide(choice: BackendChoice, probed: io::Result<Flavour>) -> io::Result<Option<Flavour>> {
    match (choice, probed) {
        (BackendChoice::Blocking, _) => Ok(None),
        (BackendChoice::Auto | BackendChoice::Uring, Ok(flavour)) => Ok(Some(flavour)),
        (BackendChoice::Auto, Err(error)) => {
            tracing::warn!(%error, "io_uring does not work here: files go through blocking calls");
            Ok(None)
        }
        (BackendChoice::Uring, Err(error)) => {
            Err(io::Error::new(error.kind(), format!("io_uring does not work here: {error}")))
        }
    }
}

/// Tries a buffered write that must not block. A file system that cannot answers EOPNOTSUPP; any other answer,
/// "not just now" included, comes from one that can.
fn takes_async_writes(dir: &Path) -> io::Result<bool> {
    let path = dir.join(format!(".write-probe-{}", std::process::id()));
    let file = fs::File::create(&path)?;
    let tried = syscalls::write_some_at(
        &file,
        &WriteCursor::new(0, vec![Bytes::from_static(&[0; 4096])]),
        libc::RWF_NOWAIT,
    );
    drop(file);
    fs::remove_file(&path)?;
    Ok(tried.err().and_then(|error| error.raw_os_error()) != Some(libc::EOPNOTSUPP))
}

impl DiskPlan {
    /// Makes the disk of the calling core's thread, whose reactor must be running.
    pub(crate) fn open_on_this_core(&self) -> io::Result<Disk> {
        let start =
            |flavour| RealDisk::start(flavour, self.pool.clone(), self.read_in.clone(), self.ways.clone());
        let disk = match start(self.flavour) {
            // The probe's ring worked, but locked memory may not suffice for one per core.
            Err(error) if self.flavour.is_some() && !self.demanded => {
                tracing::warn!(%error, "no io_uring ring for this core: its files go through blocking calls");
                start(None)?
            }
            started => started?,
        };
        Ok(Disk::real(Rc::new(disk)))
    }

    pub(crate) fn backend(&self) -> DiskBackend {
        if self.flavour.is_some() { DiskBackend::Uring } else { DiskBackend::Blocking }
    }

    /// Ends the shared threads once all cores have ended.
    pub(crate) fn finish(&self) {
        // Its last jobs close files on the other one.
        self.read_in.finish();
        self.pool.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_falls_back_and_a_demand_does_not() {
        let forbidden = || Err(io::Error::from_raw_os_error(libc::EPERM));
        let decided = |choice, probed| decide(choice, probed).ok();
        assert_eq!(decided(BackendChoice::Auto, Ok(Flavour::Plain)), Some(Some(Flavour::Plain)));
        assert_eq!(decided(BackendChoice::Auto, forbidden()), Some(None));
        assert_eq!(decided(BackendChoice::Uring, Ok(Flavour::Deferred)), Some(Some(Flavour::Deferred)));
        assert_eq!(decided(BackendChoice::Uring, forbidden()), None);
        assert_eq!(decided(BackendChoice::Blocking, Ok(Flavour::Deferred)), Some(None));
    }

    #[test]
    fn the_nearest_data_directory_decides() {
        let way = |dir: &str, async_writes| WriteWay { dir: dir.into(), async_writes };
        let ways = [way("/a", true), way("/a/b", false), way("/c", false)];
        for (path, inline) in
            [("/a/x", false), ("/a/b/x", true), ("/c/x", true), ("/ab/x", true), ("/x", true)]
        {
            assert_eq!(inline_write_bytes_max(&ways, Path::new(path)) > 0, inline, "{path}");
        }
    }

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        takes_async_writes(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(takes_async_writes(&dir.path().join("missing")).is_err());
    }
}
