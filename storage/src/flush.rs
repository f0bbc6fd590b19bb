//! Group commit: one flush in flight per core, and everything that arrives meanwhile joins the next.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use ouzel_runtime::{Disk, File};
use tokio::sync::oneshot;

/// What one log wants on the disk: its written bytes, and the names of files it made since.
#[derive(Clone)]
pub struct FlushRequest {
    /// Files with unflushed bytes, oldest first.
    pub files: Vec<File>,
    /// Directories in which names were made since they were last flushed, the innermost first.
    pub dirs: Vec<PathBuf>,
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
    /// Round after round until nobody waits. Whoever comes during a round joins the next.
    async fn run(self: Rc<Self>) {
        loop {
            let mut round = self.waiting.take();
            self.rounds.set(self.rounds.get() + u64::from(!round.is_empty()));
            if round.len() == 1 {
                let Waiting { request, done } = round.remove(0);
                tell(done, flush(self.disk.clone(), request).await);
                continue;
            }
            if round.is_empty() {
                self.running.set(false);
                return;
            }
            // All of a round are started before any is awaited: the disk sees them together.
            let start =
                |Waiting { request, done }| (ouzel_runtime::spawn(flush(self.disk.clone(), request)), done);
            let started: Vec<_> = round.into_iter().map(start).collect();
            for (flushed, done) in started {
                tell(done, flushed.await.unwrap_or_else(|lost| Err(io::Error::other(lost))));
            }
        }
    }
}

fn tell(done: oneshot::Sender<Result<(), Arc<io::Error>>>, flushed: io::Result<()>) {
    // The log may be gone; its bytes are flushed all the same.
    let _ = done.send(flushed.map_err(Arc::new));
}

/// The bytes first: a name that is on the disk must not lead to less than was written.
async fn flush(disk: Disk, request: FlushRequest) -> io::Result<()> {
    for file in request.files {
        file.sync_data().await?;
    }
    for dir in request.dirs {
        disk.sync_dir(&dir).await?;
    }
    Ok(())
}
