//! Group commit: one flush in flight per core, and everything that arrives meanwhile joins the next.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use ouzel_runtime::{Disk, File};
use tokio::sync::oneshot;

/// What one log wants on the disk: its written bytes, and the names of files it made since.
#[derive(Clone)]
pub struct FlushRequest {
    /// Files with unflushed bytes; the last is the active segment's.
    pub files: Vec<File>,
    /// The directory, if a file was made in it since it was last flushed.
    pub dir: Option<PathBuf>,
}

/// Makes written bytes durable. The per-file implementation is [`FileCommitter`]; a shared commit log per core can take
/// its place without the logs noticing.
pub trait Committer {
    /// Resolves when everything the request names is on the disk.
    ///
    /// Dropping the receiver takes nothing back. An error says that nothing is known about the unflushed bytes; the
    /// caller must not try again.
    fn commit(&self, request: FlushRequest) -> oneshot::Receiver<Result<(), Arc<io::Error>>>;
}

/// One `fdatasync` per file and round.
#[derive(Clone)]
pub struct FileCommitter {
    inner: Rc<Inner>,
}

struct Inner {
    disk: Disk,
    waiting: RefCell<Vec<Waiting>>,
    running: Cell<bool>,
    rounds: Cell<u64>,
}

struct Waiting {
    request: FlushRequest,
    done: oneshot::Sender<Result<(), Arc<io::Error>>>,
}

impl FileCommitter {
    /// A committer for one core.
    pub fn new(disk: Disk) -> FileCommitter {
        let inner =
            Inner { disk, waiting: RefCell::default(), running: Cell::new(false), rounds: Cell::new(0) };
        FileCommitter { inner: Rc::new(inner) }
    }

    /// Commits so far; for the metrics.
    pub fn rounds(&self) -> u64 {
        self.inner.rounds.get()
    }
}

impl Committer for FileCommitter {
    fn commit(&self, request: FlushRequest) -> oneshot::Receiver<Result<(), Arc<io::Error>>> {
        let (done, result) = oneshot::channel();
        self.inner.waiting.borrow_mut().push(Waiting { request, done });
        if !self.inner.running.replace(true) {
            ouzel_runtime::spawn(self.inner.clone().run());
        }
        result
    }
}

impl Inner {
    async fn run(self: Rc<Self>) {
        loop {
            let round = self.waiting.take();
            if round.is_empty() {
                self.running.set(false);
                return;
            }
            self.rounds.set(self.rounds.get() + 1);
            // All of a round are started before any is awaited: the disk sees them together.
            let mut syncs = Vec::with_capacity(round.len());
            let mut dirs: HashMap<PathBuf, usize> = HashMap::new();
            for waiting in &round {
                if let Some(dir) = &waiting.request.dir {
                    dirs.entry(dir.clone()).or_default();
                }
                syncs.push(waiting.request.files.clone().into_iter().map(sync).collect::<Vec<_>>());
            }
            let dir_syncs: Vec<_> = dirs
                .into_keys()
                .map(|dir| {
                    let disk = self.disk.clone();
                    ouzel_runtime::spawn(async move {
                        let result = disk.sync_dir(&dir).await;
                        (dir, result)
                    })
                })
                .collect();
            let mut dir_results = HashMap::new();
            for sync in dir_syncs {
                if let Ok((dir, result)) = sync.await {
                    dir_results.insert(dir, result.map_err(Arc::new));
                }
            }
            for (waiting, syncs) in round.into_iter().zip(syncs) {
                let mut result = match &waiting.request.dir {
                    Some(dir) => dir_results.get(dir).cloned().unwrap_or_else(|| {
                        Err(Arc::new(io::Error::other("the flush of a directory was lost")))
                    }),
                    None => Ok(()),
                };
                for sync in syncs {
                    let synced = sync.await.unwrap_or_else(|_| Err(io::Error::other("a flush was lost")));
                    result = result.and(synced.map_err(Arc::new));
                }
                // The log may be gone; its bytes are flushed all the same.
                let _ = waiting.done.send(result);
            }
        }
    }
}

fn sync(file: File) -> ouzel_runtime::JoinHandle<io::Result<()>> {
    ouzel_runtime::spawn(async move { file.sync_data().await })
}
