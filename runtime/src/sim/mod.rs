//! The simulated machine: everything from one seed.
//!
//! * [`run`]: one node on the calling thread, with virtual time that jumps to the next timer when all wait.
//!   For the tests of a room: disk, clock and entropy are simulated, there is no network.
//! * [`Cluster`]: many nodes over a simulated network (turmoil), each with its own disk that outlives it.
//! * [`SimDisk`]: files in memory that tear, vanish, fail and fill up as real ones do.
//!
//! A node's virtual cores are tasks on the one thread ([`SimRuntime::run_cores`]).
//!
//! The same seed gives the same run only if the code above draws on nothing else: no std `HashMap` iterated in
//! hash order, no `tokio::select!` without `biased`, no `Instant` or `SystemTime` of the standard library, no thread.
//!
//! What can go wrong, all of it by chance from the seed or by a test's word: a process is killed or paused, its machine
//! loses power; a disk is slow, full, fails, tears what was not flushed, and, if told so, lies about flushes; a wall
//! clock is skewed and jumps; links are slow, cut both ways or one way, and connections are reset.
//!
//! Reading order: this file, `rng`, `clock`, `process` (pauses), `image` (what a disk holds, and what a power cut leaves
//! of it), `disk` (faults over it), `disk_handles` (as a process uses it), `connection`, `cluster`.

mod clock;
mod cluster;
mod connection;
mod disk;
mod disk_handles;
mod image;
mod process;
mod rng;

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use tokio::task::LocalSet;

pub use clock::SimClock;
pub use cluster::{Cluster, ClusterConfig};
pub(crate) use connection::{SimReadHalf, SimStream, SimWriteHalf};
pub use disk::{OperationCounts, SimDisk};
pub(crate) use disk_handles::{DiskNode, SimFile, SimLock, SimShared};
pub use process::Pause;
pub use rng::Rng;
pub(crate) use rng::SimEntropy;

use crate::cores::{self, CoreResult, End};
use crate::tasks::OnCore;
use crate::{Clock, CoreId, Disk, Entropy, Net, Runtime, Worker, spawn};

/// The data directory every simulated disk starts with, durable and empty.
pub const DATA_DIR: &str = "/data";

/// Runs `main` as one simulated node and returns its value.
///
/// Time is virtual: it stands still while anything can run, and jumps to the next timer when nothing can. The
/// network refuses every call; use [`Cluster`] for one.
///
/// # Panics
/// When `main` or a task it started panics, or when the reactor cannot start.
pub fn run<T, M, F>(seed: u64, main: M) -> T
where
    M: FnOnce(SimRuntime) -> F,
    F: Future<Output = T>,
{
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a reactor of timers needs nothing of the machine");
    let local = LocalSet::new();
    let end = Arc::new(End::new());
    let outcome = cores::reporting_panics_to(&end, || {
        local.block_on(&tokio, async {
            let node = SimRuntime::of(seed, 1, SimDisk::new(seed), SimClock::new());
            let mut stop = end.stopped();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => None,
                value = OnCore::new(main(node)) => Some(value),
            }
        })
    });
    if let Some(failure) = end.take() {
        panic!("{}", failure.reason);
    }
    outcome.expect("only a failure stops a run early, and there was none")
}

/// One simulated node: what its virtual cores share, and what a test holds against it.
#[derive(Clone)]
pub struct SimRuntime {
    seed: u64,
    core_count: u16,
    disk: SimDisk,
    clock: SimClock,
}

impl SimRuntime {
    /// Makes a node of parts that outlive its process. Each start of a process should have another seed, or it draws
    /// the same chance again.
    pub fn of(seed: u64, core_count: u16, disk: SimDisk, clock: SimClock) -> Self {
        Self { seed, core_count, disk, clock }
    }

    /// Returns the same node with another number of virtual cores.
    #[must_use = "the node itself is not changed"]
    pub fn with_core_count(&self, core_count: u16) -> Self {
        Self { core_count, ..self.clone() }
    }

    /// Returns another node on the same thread and by the same clock, with a disk and chances of its own.
    #[must_use = "the node itself is not changed"]
    pub fn beside(&self, seed: u64) -> Self {
        Self { seed, disk: SimDisk::new(seed), ..self.clone() }
    }

    /// Returns the machine as a core sees it: core 0.
    pub fn runtime(&self) -> Runtime {
        self.core(CoreId(0))
    }

    /// Returns the machine as one of the virtual cores sees it. Each core draws its own random numbers, the same
    /// ones at each call.
    ///
    /// After [`SimDisk::power_cut`] or [`SimDisk::kill`], what was opened before fails: a new `Runtime` is the
    /// restarted process.
    pub fn core(&self, core: CoreId) -> Runtime {
        let seed = Rng::new(self.seed).fork(u64::from(core.0));
        Runtime {
            disk: Disk::simulated(DiskNode::new(self.disk.clone())),
            clock: Clock::simulated(self.clock.clone()),
            entropy: Entropy::seeded(SimEntropy::new(seed)),
            net: Net::simulated(),
            worker: Worker::inline(),
            core,
            core_count: self.core_count,
        }
    }

    /// Runs `main` on every virtual core, with one input each, until all have ended or the first has failed; then
    /// the others are dropped, as [`cores::start`] does it with threads.
    ///
    /// # Errors
    /// That of the first core that failed.
    ///
    /// # Panics
    /// When there is not one input for each core.
    pub async fn run_cores<I, M, F>(&self, inputs: Vec<I>, main: M) -> CoreResult
    where
        M: Fn(Runtime, I) -> F,
        F: Future<Output = CoreResult> + 'static,
    {
        assert_eq!(inputs.len(), usize::from(self.core_count), "one input for each core");
        let mut running: Vec<_> = (0..self.core_count)
            .map(CoreId)
            .zip(inputs)
            .map(|(core, input)| AbortOnDrop(spawn(main(self.core(core), input))))
            .collect();
        // Polled in the cores' order, so that the first failure is the same one in every run of a seed.
        std::future::poll_fn(|context| {
            use std::task::Poll;
            let mut failed = None;
            running.retain_mut(|core| match std::pin::Pin::new(&mut core.0).poll(context) {
                Poll::Pending => true,
                Poll::Ready(ended) => {
                    let ended = ended.unwrap_or_else(|error| Err(error.into()));
                    if failed.is_none() {
                        failed = ended.err();
                    }
                    false
                }
            });
            match failed {
                Some(error) => Poll::Ready(Err(error)),
                None if running.is_empty() => Poll::Ready(Ok(())),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Returns the node's disk, to hurt it.
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// Returns the node's clock, to skew it.
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// Returns the seed the node was made from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns the number of virtual cores.
    pub fn core_count(&self) -> u16 {
        self.core_count
    }

    /// Returns [`DATA_DIR`].
    pub fn data_dir(&self) -> &'static Path {
        Path::new(DATA_DIR)
    }
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimRuntime").field("seed", &self.seed).field("core_count", &self.core_count).finish()
    }
}

/// A virtual core ends when nobody runs it any more.
struct AbortOnDrop(crate::JoinHandle<CoreResult>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
