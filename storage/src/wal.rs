//! The write-ahead file of each core: small state with a commit lane of its own.
//!
//! One record per `Solo` log: under which leader epoch and kernel boot it was last opened, how far it is known to be
//! flushed, and whether it was closed well. Raft's votes and terms will live here too. The state is small and wholly in
//! memory; the file is a journal of it, rewritten whenever it has grown to several times its content.
//!
//! Life of the files, `core-<n>/meta.wal.<generation>`:
//!
//! 1. A start [`replay`]s the newest *whole* generation: one file per core the broker had then, however many it has now.
//! 2. [`Replayed::rewrite`] writes the next generation for the cores it has now, flushes all of it, and only then removes
//!    the older one. At every instant one generation is whole, so a crash at any point loses nothing, and a generation
//!    that was not finished is recognised by its missing files and left aside.
//! 3. Each core [opens](MetaWal::open) its file and appends to it. One flush is in flight; all that arrives meanwhile
//!    joins the next. A commit is one frame: after a crash it is there as a whole or not at all.
//!
//! Reading order: [`state`] (what is kept), [`format`](self::format) (its bytes), [`replay`](mod@replay) (the start),
//! this file (a core's handle).

pub mod format;
pub mod replay;
pub mod state;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ouzel_model::TopicIdPartition;
use ouzel_runtime::disk::OpenMode;
use ouzel_runtime::{CoreId, Disk, File};
use tokio::sync::oneshot;

pub use replay::{Replayed, TornTail, WalError, replay};
pub use state::{BootId, Change, SoloState, stop_of};

use format::{Placement, encode_file, encode_frames};
use replay::{core_dir, file_name, parse_file, wal_files};

/// A file is rewritten when it is larger than this and than [`COMPACT_FACTOR`] times what it must hold.
const COMPACT_BYTES_MIN: u64 = 256 * 1024;
const COMPACT_FACTOR: u64 = 4;

/// The write-ahead file takes nothing any more: a write or flush failed, and nothing may be inferred about what is on
/// the medium. Holds until the broker starts anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the write-ahead file {} is fenced: {reason}", file.display())]
pub struct WalFenced {
    /// The file.
    pub file: PathBuf,
    /// What failed first.
    pub reason: Arc<str>,
}

/// One core's write-ahead file. Clones are the same one.
#[derive(Clone)]
pub struct MetaWal {
    inner: Rc<Inner>,
}

struct Inner {
    disk: Disk,
    path: PathBuf,
    placement: Placement,
    state: RefCell<State>,
}

/// Never borrowed over an await.
struct State {
    /// What the file holds, with the changes that wait.
    live: BTreeMap<TopicIdPartition, SoloState>,
    file: File,
    file_end: u64,
    sequence_next: u64,
    waiting: Vec<Change>,
    waiters: Vec<oneshot::Sender<Result<(), WalFenced>>>,
    /// Whether a task is carrying commits out.
    is_running: bool,
    fenced: Option<WalFenced>,
    commits: u64,
    compactions: u64,
}

impl MetaWal {
    /// Opens the core's file, which [`Replayed::rewrite`] has made.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub async fn open(disk: Disk, data_dir: &Path, core: CoreId) -> Result<MetaWal, WalError> {
        let files = wal_files(&disk, data_dir).await?;
        let newest = files.into_iter().filter(|file| file.core == core.0).max_by_key(|file| file.generation);
        let dir = core_dir(data_dir, core.0);
        let Some(newest) = newest else {
            return Err(WalError::io("find the write-ahead file in", &dir, io::ErrorKind::NotFound.into()));
        };
        let path = newest.path;
        let bytes = disk.read(&path).await.map_err(|error| WalError::io("read", &path, error))?;
        let parsed = parse_file(&path, &bytes)?;
        if let Some(torn) = parsed.torn {
            // Rewritten and flushed by the start a moment ago.
            return Err(WalError::damaged(&path, torn.position, "a whole frame", torn.found));
        }
        let file = disk.open(&path, OpenMode::ReadWrite).await.map_err(|error| WalError::io("open", &path, error))?;
        let state = State {
            live: parsed.states.into_iter().filter_map(|(key, (_, state))| Some((key, state?))).collect(),
            file,
            file_end: bytes.len() as u64,
            sequence_next: parsed.sequence_next,
            waiting: Vec::new(),
            waiters: Vec::new(),
            is_running: false,
            fenced: None,
            commits: 0,
            compactions: 0,
        };
        Ok(MetaWal { inner: Rc::new(Inner { disk, path, placement: parsed.placement, state: RefCell::new(state) }) })
    }

    /// Hands in changes, all or none of which survive a crash; what is handed in before the future is first polled is
    /// part of the lane already. It resolves when they are on the medium. Dropping it takes nothing back.
    ///
    /// # Errors
    /// Once a write or flush has failed, that one's.
    pub fn commit(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), WalFenced>> + 'static {
        let receiver = self.enqueue(changes);
        async move {
            match receiver {
                Err(fenced) => Err(fenced),
                // The task that would answer ends early only when the core does.
                Ok(receiver) => receiver.await.unwrap_or_else(|_| std::process::abort_commit()),
            }
        }
    }

    /// One partition's record.
    pub fn get(&self, key: &TopicIdPartition) -> Option<SoloState> {
        self.inner.state.borrow().live.get(key).copied()
    }

    /// All records.
    pub fn states(&self) -> BTreeMap<TopicIdPartition, SoloState> {
        self.inner.state.borrow().live.clone()
    }

    /// Flushes so far; for the metrics.
    pub fn commits(&self) -> u64 {
        self.inner.state.borrow().commits
    }

    /// Rewrites so far; for the metrics.
    pub fn compactions(&self) -> u64 {
        self.inner.state.borrow().compactions
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.inner.state.borrow().file_end
    }
}
