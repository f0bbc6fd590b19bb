//! A small pool of threads, for calls that block: for those to files two in the whole process.
//!
//! Opening, renaming, unlinking, truncating and syncing directories have no business on a reactor (an unlink of
//! 512 MiB was measured at 69-107 ms on ext4 with discard), and are rare enough for a queue with a lock.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A handle on the pool, cheap to clone and `Send`.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    threads_max: usize,
    /// What its threads are called.
    name: &'static str,
    queue: Mutex<Queue>,
    arrived: Condvar,
}

struct Queue {
    jobs: VecDeque<Job>,
    open: bool,
    /// Started with the first job, taken by `finish`.
    threads: Vec<thread::JoinHandle<()>>,
}

impl Pool {
    pub(crate) fn new(threads_max: usize, name: &'static str) -> Self {
        let queue = Mutex::new(Queue { jobs: VecDeque::new(), open: true, threads: Vec::new() });
        Self { shared: Arc::new(Shared { threads_max, name, queue, arrived: Condvar::new() }) }
    }

    /// Runs `call` on the pool and returns what it returns. A call once begun runs to its end even if the
    /// future is dropped, and so does one still queued.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        self.run_detached(move || {
            // Nobody listens when the future was dropped.
            let _ = done.send(call());
        });
        result.await.unwrap_or_else(|_| Err(io::Error::other("a call on the blocking pool panicked")))
    }

    /// Runs `call` on the pool, some time; on the calling thread once the pool has finished.
    pub(crate) fn run_detached(&self, call: impl FnOnce() + Send + 'static) {
        let mut queue = self.shared.lock();
        if !queue.open {
            drop(queue);
            call();
            return;
        }
        while queue.threads.len() < self.shared.threads_max {
            let shared = self.shared.clone();
            let name = format!("{}-{}", shared.name, queue.threads.len());
            match thread::Builder::new().name(name).spawn(move || shared.work()) {
                Ok(thread) => queue.threads.push(thread),
                // One thread is slow, none is a hang: then the call blocks its caller, and is done.
                Err(error) if queue.threads.is_empty() => {
                    drop(queue);
                    tracing::error!(%error, name = self.shared.name, "cannot start a thread of the pool");
                    call();
                    return;
                }
                Err(_) => break,
            }
        }
        queue.jobs.push_back(Box::new(call));
        drop(queue);
        self.shared.arrived.notify_one();
    }

    /// Does all that is queued, and ends the threads. Not to be called from a job.
    pub(crate) fn finish(&self) {
        let mut queue = self.shared.lock();
        queue.open = false;
        let threads = std::mem::take(&mut queue.threads);
        drop(queue);
        self.shared.arrived.notify_all();
        for thread in threads {
            // Jobs' panics are caught where they run.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Jobs run outside the lock, so a poisoned queue is still whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut queue = self.lock();
            let job = loop {
                match queue.jobs.pop_front() {
                    Some(job) => break job,
                    None if !queue.open => return,
                    None => queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queue);
            // A panic drops the job's `done`, which its caller sees as an error.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }
}
