//! Long calculations, off the cores: one thread for the process.
//!
//! A core has its partitions' clients to serve; what takes it more than about a millisecond (unfolding a batch of many
//! megabytes, packing it again) is done here instead. One thread, so that such work never takes more than one CPU from
//! the cores however many of them ask; its jobs wait for each other, and no request may wait for one of them.
//!
//! In a simulation a job runs at the call, on the caller's thread: the same seed gives the same run.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::sync::oneshot;

use crate::disk::Pool;
use crate::tasks::yield_now;

/// A handle on the thread; cheap to clone.
#[derive(Clone)]
pub struct Worker {
    /// None: jobs run where they are asked for.
    pool: Option<Pool>,
}

impl Worker {
    /// A thread of its own, started with the first job.
    pub(crate) fn threaded() -> Worker {
        Worker { pool: Some(Pool::new(1, "worker")) }
    }

    /// No thread at all.
    #[cfg(feature = "sim")]
    pub(crate) fn inline() -> Worker {
        Worker { pool: None }
    }

    /// Does a job and gives its outcome. Once asked for, it is done even if the future is dropped.
    ///
    /// # Panics
    /// As the job does.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let Some(pool) = &self.pool else {
            yield_now().await;
            return job();
        };
        let (done, outcome) = oneshot::channel();
        pool.run_detached(move || {
            // Nobody listens when the future was dropped.
            let _ = done.send(catch_unwind(AssertUnwindSafe(job)));
        });
        match outcome.await.expect("a job that was taken is done") {
            Ok(outcome) => outcome,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Does what is queued, and ends the thread.
    pub(crate) fn finish(&self) {
        if let Some(pool) = &self.pool {
            pool.finish();
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker")
    }
}

#[cfg(test)]
mod tests {
    use crate::disk::BackendChoice;

    #[test]
    fn a_job_runs_on_another_thread_and_its_outcome_comes_back() {
        let (here, there) = crate::cores::run_one(BackendChoice::Blocking, &[], |runtime| async move {
            let there = runtime.worker.run(|| std::thread::current().id()).await;
            (std::thread::current().id(), there)
        })
        .unwrap();
        assert_ne!(here, there);
    }

    #[test]
    #[should_panic(expected = "a job that goes wrong")]
    fn a_jobs_panic_is_its_callers() {
        let run = crate::cores::run_one(BackendChoice::Blocking, &[], |runtime| async move {
            runtime.worker.run(|| panic!("a job that goes wrong")).await;
        });
        run.unwrap();
    }
}
