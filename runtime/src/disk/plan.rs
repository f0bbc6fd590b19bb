//! What the process decided at its start about reaching the disk.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use super::pool::Pool;
use super::real::RealDisk;
use super::{BackendChoice, Disk, DiskBackend};

/// The decision, and what all cores share of it.
#[derive(Clone, Debug)]
pub(crate) struct DiskPlan {
    backend: DiskBackend,
    pool: Pool,
}

/// Decides which backend to use.
pub(crate) fn plan(choice: BackendChoice, _data_dirs: &[PathBuf]) -> io::Result<DiskPlan> {
    let backend = match choice {
        BackendChoice::Auto | BackendChoice::Uring | BackendChoice::Blocking => DiskBackend::Blocking,
    };
    Ok(DiskPlan { backend, pool: Pool::new() })
}

impl DiskPlan {
    /// Makes the disk of the calling core's thread.
    pub(crate) fn open_on_this_core(&self) -> io::Result<Disk> {
        Ok(Disk::real(Rc::new(RealDisk::new(self.backend, self.pool.clone()))))
    }

    /// Ends the shared threads once all cores have ended.
    pub(crate) fn finish(&self) {
        self.pool.finish();
    }
}
