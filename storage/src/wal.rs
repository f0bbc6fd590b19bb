//! The write-ahead file of each core: small state with a commit lane of its own.
//!
//! One record per log: under which leader epoch and kernel boot it was last opened, how far it is known to be flushed, and
//! whether it was closed well; of a replica of a group also its vote, and up to where its log is only data. The state is small and wholly in
//! memory; the file is a journal of it, rewritten whenever it has grown to several times its content.
//!
//! Life of the files, `core-<n>/meta.wal.<generation>`:
//!
//! 1. A start [replays](fn@replay) the newest *whole* generation: one file per core the broker had then, however many it has now.
//! 2. [`Replayed::rewrite`] writes the next generation for the cores it has now, flushes all of it, and only then removes
//!    the older one. At every instant one generation is whole, so a crash at any point loses nothing, and a generation
//!    that was not finished is recognised by its missing files and left aside.
//! 3. Each core [opens](MetaWal::open) its file and appends to it. One flush is in flight; all that arrives meanwhile
//!    joins the next. A commit is one frame: after a crash it is there as a whole or not at all.
//!
//! Reading order: [`state`] (what is kept), [`rejoin`] (whom it lets come back), [`mod@format`] (its bytes), [`replay`](mod@replay) (the start),
//! this file (a core's handle).

pub mod format;
pub mod rejoin;
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

pub use rejoin::{Rejoin, rejoin_of};
pub use replay::{Replayed, TornTail, WalError, replay};
pub use state::{BootId, Change, GroupState, Kept, SoloState, stop_of};

use format::{Placement, encode_file, encode_frames};
use replay::{core_dir, parse_file, wal_files};

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
    live: BTreeMap<TopicIdPartition, Kept>,
    file: File,
    file_end: u64,
    /// What the file took when it was last written as a whole: how large records are is their owners' business.
    content_bytes: u64,
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
        let file = disk
            .open(&path, OpenMode::ReadWrite)
            .await
            .map_err(|error| WalError::io("open", &path, error))?;
        let state = State {
            live: parsed.states.into_iter().filter_map(|(key, (_, state))| Some((key, state?))).collect(),
            file,
            file_end: bytes.len() as u64,
            content_bytes: bytes.len() as u64,
            sequence_next: parsed.sequence_next,
            waiting: Vec::new(),
            waiters: Vec::new(),
            is_running: false,
            fenced: None,
            commits: 0,
            compactions: 0,
        };
        Ok(MetaWal {
            inner: Rc::new(Inner { disk, path, placement: parsed.placement, state: RefCell::new(state) }),
        })
    }

    /// Hands in changes, all or none of which survive a crash; what is handed in before the future is first polled is
    /// part of the lane already. It resolves when they are on the medium, with all that was handed in before: no changes at all
    /// wait for that alone, and cost no flush. Dropping it takes nothing back.
    ///
    /// # Errors
    /// Once a write or flush has failed, that one's.
    pub fn commit(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), WalFenced>> + 'static {
        let receiver = self.enqueue(changes);
        let path = self.inner.path.clone();
        async move {
            match receiver {
                Err(fenced) => Err(fenced),
                Ok(receiver) => receiver.await.unwrap_or_else(|_| {
                    Err(WalFenced { file: path, reason: "the core stopped before the flush".into() })
                }),
            }
        }
    }

    fn enqueue(&self, changes: Vec<Change>) -> Result<oneshot::Receiver<Result<(), WalFenced>>, WalFenced> {
        let mut state = self.inner.state.borrow_mut();
        if let Some(fenced) = &state.fenced {
            return Err(fenced.clone());
        }
        for change in &changes {
            change.apply(&mut state.live);
        }
        state.waiting.extend(changes);
        let (sender, receiver) = oneshot::channel();
        state.waiters.push(sender);
        if !state.is_running {
            state.is_running = true;
            ouzel_runtime::spawn(self.inner.clone().run());
        }
        Ok(receiver)
    }

    /// One partition's record, if it has a single replica.
    pub fn get(&self, key: &TopicIdPartition) -> Option<SoloState> {
        match self.inner.state.borrow().live.get(key)? {
            Kept::Solo(state) => Some(*state),
            Kept::Group(_) => None,
        }
    }

    /// One partition's record, if it is a replica of a group.
    pub fn get_group(&self, key: &TopicIdPartition) -> Option<GroupState> {
        match self.inner.state.borrow().live.get(key)? {
            Kept::Group(state) => Some(state.clone()),
            Kept::Solo(_) => None,
        }
    }

    /// All records.
    pub fn states(&self) -> BTreeMap<TopicIdPartition, Kept> {
        self.inner.state.borrow().live.clone()
    }

    /// Commits so far, of as many changes as had come together; each is one flush.
    pub fn commits(&self) -> u64 {
        self.inner.state.borrow().commits
    }

    /// Rewrites so far.
    pub fn compactions(&self) -> u64 {
        self.inner.state.borrow().compactions
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.inner.state.borrow().file_end
    }
}

impl Inner {
    /// Carries commits out until none waits.
    async fn run(self: Rc<Self>) {
        loop {
            let (changes, waiters) = {
                let mut state = self.state.borrow_mut();
                if state.waiters.is_empty() {
                    state.is_running = false;
                    return;
                }
                (std::mem::take(&mut state.waiting), std::mem::take(&mut state.waiters))
            };
            let result = self.carry_out(&changes).await.map_err(|error| self.fence(&error));
            for waiter in waiters {
                // Whoever gave up waiting misses only the answer.
                let _ = waiter.send(result.clone());
            }
        }
    }

    async fn carry_out(&self, changes: &[Change]) -> io::Result<()> {
        if let Some(fenced) = &self.state.borrow().fenced {
            return Err(io::Error::other(fenced.reason.to_string()));
        }
        if changes.is_empty() {
            return Ok(());
        }
        let (file, file_end, frames, is_due) = {
            let mut state = self.state.borrow_mut();
            let sequence = state.sequence_next;
            let frames = encode_frames(sequence, changes);
            let grown = state.file_end + frames.bytes.len() as u64;
            let content_bytes = state.content_bytes.max(format::file_bytes(state.live.len()));
            let is_due = grown > COMPACT_BYTES_MIN.max(COMPACT_FACTOR * content_bytes);
            if !is_due {
                state.sequence_next = frames.sequence_next;
            }
            (state.file.clone(), state.file_end, frames, is_due)
        };
        if is_due {
            return self.compact().await;
        }
        let bytes = frames.bytes.len() as u64;
        file.write_at(file_end, vec![Bytes::from(frames.bytes)]).await?;
        file.sync_data().await?;
        let mut state = self.state.borrow_mut();
        state.file_end += bytes;
        state.commits += 1;
        Ok(())
    }

    /// Puts a file in place of the old one that holds the live state, waiting changes included, and nothing else. A crash
    /// leaves one or the other.
    async fn compact(&self) -> io::Result<()> {
        let (content, sequence_next) = {
            let state = self.state.borrow();
            let live = state.live.iter().map(|(key, kept)| (*key, kept.clone()));
            let content = encode_file(self.placement, state.sequence_next, live);
            (Bytes::from(content.bytes), content.sequence_next)
        };
        let file_end = content.len() as u64;
        let mut temp = self.path.clone().into_os_string();
        temp.push(".tmp");
        let temp = PathBuf::from(temp);
        let file = self.disk.open(&temp, OpenMode::CreateOrOpen).await?;
        file.truncate(0).await?;
        file.write_at(0, vec![content]).await?;
        file.sync_data().await?;
        self.disk.rename(&temp, &self.path).await?;
        self.disk.sync_dir(self.path.parent().unwrap_or(Path::new("."))).await?;
        let mut state = self.state.borrow_mut();
        state.file = file;
        (state.file_end, state.content_bytes) = (file_end, file_end);
        state.sequence_next = sequence_next;
        state.commits += 1;
        state.compactions += 1;
        Ok(())
    }

    fn fence(&self, error: &io::Error) -> WalFenced {
        let mut state = self.state.borrow_mut();
        let reason = || WalFenced { file: self.path.clone(), reason: error.to_string().into() };
        state.fenced.get_or_insert_with(reason).clone()
    }
}
