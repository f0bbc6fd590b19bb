//! A replica's data as files that another replica can take over: everything up to an entry that ends a sealed segment.
//!
//! Nothing is copied to make a snapshot: it *is* the sealed segments, with the producers where they end, the history of
//! leader epochs and the membership. The sender keeps the files open, so that compaction and retention go on while they are
//! read ([`SnapshotFiles`]). The receiver gathers them in a directory inside the partition's ([`Install`]), file by file,
//! each verified against the [`Manifest`]; a transfer that breaks off goes on with the files that are not whole yet.
//!
//! # How a snapshot takes a log's place
//! ```text
//!  gathered   snapshot-install/<files>, each whole, flushed, verified           the old log is the log
//!  ready      + epochs, log start, first side file; snapshot-install/manifest   the old log is the log
//!  decided    the write-ahead file's record has the manifest's entry as its purge point     the snapshot is the log
//!  swapped    all files moved, the manifest removed and that flushed            it opens
//! ```
//! The *write-ahead file decides*, as it does for a genesis: [`settle`] finishes at the next start what was decided, and
//! takes back what was not (what has been gathered stays, for the next attempt). Until then the log does not open. Nor does a
//! log go on beside a manifest that nobody decided: its own purge point may come to that entry.

mod install;
mod manifest;

use ouzel_model::Offset;
use ouzel_runtime::{Bytes, File};

use crate::error::{Damage, Fenced, OpenError, ReadError};
use crate::log::Log;
use crate::recovery::OpenLog;
use crate::wal::{BootId, GroupState, stop_of};

pub(crate) use install::crc_of as checksum_of;
pub use install::{Install, Piece, settle};
pub use manifest::{BadManifest, Manifest, SnapshotFile};

/// What can go wrong with a snapshot; unless it says otherwise the log is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is none at that entry.
    #[error("{0}")]
    NoSnapshot(String),
    /// A piece that was not asked for.
    #[error("{0}")]
    OutOfOrder(String),
    /// A file that arrived whole is not the one in the manifest. It is asked for again.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The disk.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: std::path::PathBuf,
        /// What the disk said.
        source: std::io::Error,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log is fenced, or is now.
    #[error(transparent)]
    Fenced(#[from] Fenced),
}

fn io_error(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { action, path, source }
}

/// A snapshot that can be read as long as this is held, whatever becomes of the log.
#[derive(Clone, Debug)]
pub struct SnapshotFiles {
    manifest: Manifest,
    sources: Vec<Source>,
}

/// Where a file's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Open(File),
    Memory(Bytes),
}

impl SnapshotFiles {
    pub(crate) fn new(manifest: Manifest, sources: Vec<Source>) -> SnapshotFiles {
        SnapshotFiles { manifest, sources }
    }

    /// What it consists of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads a piece of one of the manifest's files, by its number there: `length` bytes or up to the file's end. The caller
    /// says how fast.
    ///
    /// # Errors
    /// Those of the disk; [`SnapshotError::NoSnapshot`] for a file or position that is not there.
    pub async fn read(&self, file: usize, position: u64, length: usize) -> Result<Bytes, SnapshotError> {
        let (Some(entry), Some(source)) = (self.manifest.files.get(file), self.sources.get(file)) else {
            return Err(SnapshotError::NoSnapshot(format!("a snapshot has no file number {file}")));
        };
        let Some(left) = entry.bytes.checked_sub(position) else {
            let (name, bytes) = (&entry.name, entry.bytes);
            return Err(SnapshotError::NoSnapshot(format!("{name} has {bytes} bytes, not {position}")));
        };
        let length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
        match source {
            Source::Memory(bytes) => {
                let start = position as usize;
                Ok(bytes.slice(start..start + length))
            }
            Source::Open(file) => file.read_at(position, length).await.map_err(io_error("read", file.path())),
        }
    }
}

/// Opens the log of a replica of a group as its record says: how it was stopped, how far it is flushed, and whether a
/// snapshot was taking its place. `options` need not know any of that.
///
/// # Errors
/// See [`OpenError`].
pub async fn open_group(
    mut options: OpenLog,
    state: Option<&GroupState>,
    boot: BootId,
) -> Result<Log, OpenError> {
    let solo = state.map(GroupState::as_solo);
    let clean_end = solo.and_then(|solo| solo.closed_at);
    let (stop, flushed) = stop_of(solo.as_ref(), boot, clean_end);
    (options.stop, options.flushed, options.clean_end) = (stop, flushed.unwrap_or(Offset::ZERO), clean_end);
    options.with_entries = true;
    let disk = &options.shared.runtime.disk;
    settle(disk, &options.dir, state.and_then(|state| state.purged)).await.map_err(|error| match error {
        SnapshotError::Io { action, path, source } => OpenError::Io { action, path, source },
        SnapshotError::Damaged(damage) => OpenError::Damaged(damage),
        other => {
            OpenError::Damaged(Damage::new(&options.dir, 0, "a snapshot that can take its place", other))
        }
    })?;
    Log::open(options).await
}
