//! One node: its cores, the order in which everything starts, and the order in which it stops.
//!
//! Start: lock the directory, know who we are, replay the write-ahead files and deal what they know out to the cores, read
//! the controller's log, register, recover the partitions side by side, raise their epochs, accept, say ready.
//! Stop: say not ready, hand over what is led here, accept nothing new, let connections finish, close every log and leave its clean mark.

pub(crate) mod joining;
mod starting;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use ouzel_model::{LeaderEpoch, PartitionIndex, TopicId, TopicIdPartition};
use ouzel_raft::{RaftGroup, ReplicatedLog};
use ouzel_runtime::cores::{CoresConfig, CoresError};
use ouzel_runtime::disk::{self, BackendChoice, DiskBackend};
use ouzel_runtime::mailbox::{self, MailReceiver};
use ouzel_runtime::{CoreId, Runtime, cores};
use ouzel_storage::wal::{BootId, MetaWal};
use ouzel_storage::{FileCommitter, LogShared, OpenSegments, TailCache};
use tokio::sync::{oneshot, watch};

use crate::config::NodeConfig;
use crate::coordinators::Coordinators;
use crate::core::{Core, Cores, Stopped, Work};
use crate::handover::before_stop;
use crate::listener::{ConnectionCounts, MemoryBudget};
use crate::metrics::CoreSample;
use crate::partition::housekeeping;
use crate::partitions::Partitions;
use crate::view::NodeView;

use joining::Membership;
use starting::{Started, Starting};

/// The name of the one listener there is.
pub const LISTENER: &str = "PLAINTEXT";

/// The topic id of the controller's log: the one that Kafka has for it.
pub const METADATA_TOPIC_ID: TopicId = TopicId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// How long connections may take to finish what they are at when the node stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Sealed segments one core keeps open.
const OPEN_SEGMENTS_MAX: usize = 1_000;

/// What to start.
pub struct Setup {
    /// The node.
    pub config: NodeConfig,
    /// How many cores.
    pub cores: u16,
    /// Whether their threads are pinned.
    pub pin: bool,
    /// How they reach the disk.
    pub backend: BackendChoice,
}

/// Runs on core 0 from the beginning, also while the logs are being recovered.
pub type FirstCore = Box<dyn FnOnce(Runtime, NodeHandle) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Why a node does not start: one sentence that says what, where and how to mend it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

/// What every core knows and nothing changes.
pub struct NodeFacts {
    /// As started.
    pub config: NodeConfig,
    /// Where clients connect.
    pub kafka_address: SocketAddr,
    /// Connections by core.
    pub connection_counts: Arc<ConnectionCounts>,
    /// The cluster's name.
    pub cluster_id: String,
    /// Its data directory's.
    pub directory_id: TopicId,
    /// Its cluster, if it is not alone.
    pub(crate) membership: Option<Arc<Membership>>,
}

/// A way to the node from any thread.
#[derive(Clone)]
pub struct NodeHandle {
    shared: Arc<HandleShared>,
}

struct HandleShared {
    cores: Cores,
    facts: OnceLock<Arc<NodeFacts>>,
    backend: OnceLock<DiskBackend>,
    ready: AtomicBool,
    /// What it waits for before it serves, in words.
    waits_for: Mutex<Option<String>>,
    /// Somebody wants it to stop.
    asked_to_stop: watch::Sender<bool>,
    /// It does: what it led, others lead, as far as that could be.
    stopping: watch::Sender<bool>,
}

impl NodeHandle {
    /// Where clients connect; known once the node is ready.
    ///
    /// # Panics
    /// Before the node listens.
    pub fn kafka_address(&self) -> SocketAddr {
        self.facts().kafka_address
    }

    /// The cluster's name.
    ///
    /// # Panics
    /// Before the node listens.
    pub fn cluster_id(&self) -> String {
        self.facts().cluster_id.clone()
    }

    fn facts(&self) -> &Arc<NodeFacts> {
        self.shared.facts.get().expect("asked only once the node is ready")
    }

    /// Whether clients are served: from the ready line until the drain.
    pub fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Acquire)
    }

    /// What keeps the node from serving, in words, if it is something to be waited for.
    pub fn waits_for(&self) -> Option<String> {
        let waits_for = self.shared.waits_for.lock().unwrap_or_else(PoisonError::into_inner);
        waits_for.clone().filter(|_| !self.is_ready())
    }

    /// Says what is waited for from here on.
    fn wait_for(&self, words: Option<String>) {
        *self.shared.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    /// How the disk is reached; `Blocking` until the first core runs.
    pub fn disk_backend(&self) -> DiskBackend {
        self.shared.backend.get().copied().unwrap_or(DiskBackend::Blocking)
    }

    /// Begins the stop: what the node leads is handed over first. Further calls change nothing.
    pub fn stop(&self) {
        let was_ready = self.shared.ready.swap(false, Ordering::AcqRel);
        let was_asked = self.shared.asked_to_stop.send_replace(true);
        // One that does not serve yet has nothing to hand over.
        if !was_ready && !was_asked {
            self.stop_now();
        }
    }

    fn stop_now(&self) {
        self.shared.ready.store(false, Ordering::Release);
        self.shared.stopping.send_replace(true);
    }

    /// The counts of all cores together.
    ///
    /// # Errors
    /// [`Stopped`] before the cores take work, and after.
    pub async fn sample(&self) -> Result<CoreSample, Stopped> {
        if !self.is_ready() {
            return Err(Stopped);
        }
        let mut sum = CoreSample::default();
        for core in self.shared.cores.ids() {
            let sample = self.shared.cores.call(core, |core| {
                let sample = core.sample();
                async move { sample }
            });
            sum.add(sample.await?);
        }
        Ok(sum)
    }

    /// Has a core show `look` the replicas of groups that live there; for whoever watches over a node from outside. Works
    /// before the node is ready, as soon as the core takes work.
    ///
    /// # Errors
    /// [`Stopped`] when the core takes no work any more.
    pub async fn look_at_groups<R, F>(
        &self,
        core: CoreId,
        look: impl FnOnce(Vec<RaftGroup>) -> F + Send + 'static,
    ) -> Result<R, Stopped>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
    {
        self.shared.cores.call(core, |core| look(core.groups())).await
    }

    /// The partitions of a core that have a single replica, each with its epoch; as [`NodeHandle::look_at_groups`].
    ///
    /// # Errors
    /// As [`NodeHandle::look_at_groups`].
    pub async fn single_replicas(
        &self,
        core: CoreId,
    ) -> Result<Vec<(TopicIdPartition, LeaderEpoch)>, Stopped> {
        let epochs = |core: &Rc<Core>| {
            let all = core.partitions.all();
            let alone = all.iter().filter(|partition| partition.group().is_none());
            let alone: Vec<_> =
                alone.map(|partition| (*partition.at(), partition.standing().epoch)).collect();
            async move { alone }
        };
        self.shared.cores.call(core, epochs).await
    }

    /// What keeps the node from being whole, in words; empty if nothing does.
    ///
    /// # Errors
    /// As [`NodeHandle::sample`].
    pub async fn faults(&self) -> Result<Vec<String>, Stopped> {
        if !self.is_ready() {
            return Err(Stopped);
        }
        let mut faults = Vec::new();
        for core in self.shared.cores.ids() {
            let found = self.shared.cores.call(core, |core| {
                let found = core.faults();
                async move { found }
            });
            faults.extend(found.await?);
        }
        Ok(faults)
    }
}

/// A node that serves.
pub struct RunningNode {
    handle: NodeHandle,
    cores: cores::Cores,
}

impl RunningNode {
    /// A way to it from any thread.
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// Begins the stop.
    pub fn stop(&self) {
        self.handle.stop();
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// In words, what the first core that failed died of, or what was not closed in order.
    pub fn join(self) -> Result<(), String> {
        self.cores.join().map_err(|error| error.to_string())
    }
}

/// What a core is given before it runs. `Send`: cores are threads, except in a simulation.
pub struct Seat {
    mail: MailReceiver<Work>,
    role: Role,
    handle: NodeHandle,
    /// Turns true when all logs are closed: the threads may end.
    done: watch::Receiver<bool>,
}

enum Role {
    First(Box<First>),
    Other(oneshot::Receiver<Boot>),
}

struct First {
    config: NodeConfig,
    on_first_core: FirstCore,
    others: Vec<oneshot::Sender<Boot>>,
    report: mpsc::Sender<Result<(), StartError>>,
    done: watch::Sender<bool>,
}

/// What the first core tells the others once it knows.
struct Boot {
    facts: Arc<NodeFacts>,
    boot_id: BootId,
    up: oneshot::Sender<()>,
}

/// A node that is not running yet.
pub struct Seated {
    /// A way to it, from now on.
    pub handle: NodeHandle,
    /// One for each core, in the cores' order: [`run_core`] runs it.
    pub seats: Vec<Seat>,
    /// Says once whether the node serves.
    pub reported: mpsc::Receiver<Result<(), StartError>>,
}

/// Starts a node on threads of its own and returns when it serves.
///
/// # Errors
/// One sentence; nothing runs any more then.
pub fn start(setup: Setup, on_first_core: FirstCore) -> Result<RunningNode, StartError> {
    let Setup { config, cores: count, pin, backend } = setup;
    let data_dir = config.data_dir.clone();
    make_data_dir(&data_dir)?;
    let Seated { handle, seats, reported } = seat(config, count, on_first_core);
    let cores_config = CoresConfig { count, pin, backend, data_dirs: vec![data_dir.clone()] };
    let cores = cores::start(&cores_config, seats, run_core).map_err(|error| {
        unwritable(&data_dir, &error)
            .unwrap_or_else(|| StartError(format!("cannot start the cores: {error}")))
    })?;
    match reported.recv() {
        Ok(Ok(())) => Ok(RunningNode { handle, cores }),
        Ok(Err(error)) => {
            cores.stop();
            // What matters was reported.
            let _ = cores.join();
            Err(error)
        }
        // The first core died before it could say anything.
        Err(_) => {
            cores.stop();
            let why = match cores.join() {
                Err(CoresError::Core(failure)) => failure.reason,
                Err(error) => error.to_string(),
                Ok(()) => "its first core ended".to_owned(),
            };
            Err(StartError(format!("the broker failed while starting: {why}")))
        }
    }
}

/// Makes a node for cores that somebody else runs, such as a simulation's. Its data directory must exist.
pub fn seat(config: NodeConfig, count: u16, on_first_core: FirstCore) -> Seated {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mailbox::channel::<Work>()).unzip();
    let (stopping, _) = watch::channel(false);
    let (asked_to_stop, _) = watch::channel(false);
    let handle = NodeHandle {
        shared: Arc::new(HandleShared {
            cores: Cores::new(senders),
            facts: OnceLock::new(),
            backend: OnceLock::new(),
            ready: AtomicBool::new(false),
            waits_for: Mutex::default(),
            asked_to_stop,
            stopping,
        }),
    };
    let (report, reported) = mpsc::channel();
    let (done, all_done) = watch::channel(false);
    let (boots, booted): (Vec<_>, Vec<_>) = (1..count).map(|_| oneshot::channel()).unzip();
    let first = First { config, on_first_core, others: boots, report, done };
    let roles = std::iter::once(Role::First(Box::new(first))).chain(booted.into_iter().map(Role::Other));
    let seats = receivers
        .into_iter()
        .zip(roles)
        .map(|(mail, role)| Seat { mail, role, handle: handle.clone(), done: all_done.clone() })
        .collect();
    Seated { handle, seats, reported }
}

fn make_data_dir(dir: &Path) -> Result<(), StartError> {
    disk::create_data_dir(dir).map_err(|error| {
        StartError(format!(
            "data directory {} cannot be created: {error}; choose another with --data-dir",
            dir.display()
        ))
    })
}

/// The sentence for an error that means the directory takes no bytes, whatever was being written; `None` for others.
fn unwritable(dir: &Path, error: &io::Error) -> Option<StartError> {
    let mend = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "change its owner or mode",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there",
        _ => return None,
    };
    Some(StartError(format!(
        "data directory {} cannot be written: {}; {mend}, or choose another with --data-dir",
        dir.display(),
        error.kind()
    )))
}

/// Runs one core of a node until the node has stopped. All cores of a node must run.
///
/// # Errors
/// What this core died of, or, from the first core, what was not closed in order.
pub async fn run_core(runtime: Runtime, seat: Seat) -> cores::CoreResult {
    let Seat { mail, role, handle, done } = seat;
    match role {
        Role::First(first) => run_first(runtime, mail, *first, handle).await,
        Role::Other(boot) => run_other(runtime, mail, boot, handle, done).await,
    }
}

async fn run_other(
    runtime: Runtime,
    mail: MailReceiver<Work>,
    boot: oneshot::Receiver<Boot>,
    handle: NodeHandle,
    mut done: watch::Receiver<bool>,
) -> cores::CoreResult {
    // Dropped: the start failed, and the first core has said why.
    let Ok(boot) = boot.await else { return Ok(()) };
    let Boot { facts, boot_id, up } = boot;
    let wal = MetaWal::open(runtime.disk.clone(), &facts.config.data_dir, runtime.core).await?;
    let core = make_core(runtime, &handle, facts, boot_id, wal);
    if let Some(membership) = &core.node.membership {
        joining::open_other(&core, membership);
    }
    ouzel_runtime::spawn(core.clone().take_mail(mail));
    start_housekeeping(&core);
    let _ = up.send(());
    // The sender lives on the first core until the end.
    let _ = done.wait_for(|done| *done).await;
    Ok(())
}

async fn run_first(
    runtime: Runtime,
    mail: MailReceiver<Work>,
    first: First,
    handle: NodeHandle,
) -> cores::CoreResult {
    let First { config, on_first_core, others, report, done } = first;
    let _ = handle.shared.backend.set(runtime.disk.backend());
    ouzel_runtime::spawn(on_first_core(runtime.clone(), handle.clone()));
    let data_dir = config.data_dir.clone();
    let started = match Starting::new(runtime, config, &handle).await {
        // Boxed: what a start takes on its way is large, and this stays for as long as the node runs.
        Ok(starting) => Box::pin(starting.serve(mail, others)).await,
        Err(error) => Err(error),
    };
    let Started { core, mut following, lock: _lock } = match started {
        Ok(started) => started,
        Err(error) => {
            let _ = report.send(Err(error));
            return Ok(());
        }
    };
    handle.wait_for(None);
    handle.shared.ready.store(true, Ordering::Release);
    let _ = report.send(Ok(()));

    let mut asked_to_stop = handle.shared.asked_to_stop.subscribe();
    let mut end = None;
    tokio::select! {
        biased;
        ended = &mut following => end = Some(ended),
        // The sender lives as long as the handle.
        _ = asked_to_stop.wait_for(|asked| *asked) => before_stop::hand_over_all(&core).await,
    }
    handle.stop_now();
    let followed = match end {
        // Only if this release does not understand what the controller has decided.
        Some(ended) => ended,
        None => following.await,
    };
    let followed = followed.unwrap_or_else(|error| Err(error.to_string()));
    tracing::info!("stopping: no new connections, finishing what is under way");
    let failed = stop(&core).await;
    done.send_replace(true);
    if let Err(reason) = followed {
        return Err(format!("the controller's log cannot be followed: {reason}").into());
    }
    if failed > 0 {
        return Err(format!("{failed} logs in {} were not closed in order", data_dir.display()).into());
    }
    tracing::info!("stopped in order");
    Ok(())
}

/// Lets connections finish, then closes every log.
async fn stop(core: &Rc<Core>) -> usize {
    // First, so that members parked in a join or a sync are answered (look for another coordinator) instead of waited for.
    for to in core.cores.ids() {
        core.post(to, |core| core.coordinators.stop());
    }
    let drained = core.node.connection_counts.all_gone(&core.runtime.clock);
    if core.runtime.clock.timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::warn!(
            "some connections did not finish within {} s; closing the logs all the same",
            DRAIN_MAX.as_secs()
        );
    }
    let mut failed = 0;
    for to in core.cores.ids() {
        let closed = core.call(to, |core| {
            let core = core.clone();
            async move { core.partitions.close_all().await }
        });
        failed += closed.await.unwrap_or(1);
    }
    let controller = core.controller.borrow_mut().take();
    if let Some(controller) = controller {
        let replica = controller.log().replica();
        if let Some(group) = replica.group() {
            group.shutdown().await;
        }
        let committed = replica.offsets().high_watermark;
        match replica.local().close().await {
            Ok(end) => {
                failed += usize::from(!core.partitions.mark_closed(metadata_at(), end, committed).await)
            }
            Err(reason) => {
                tracing::error!(reason, "the controller's log was not closed in order");
                failed += 1;
            }
        }
    }
    failed
}

/// The identity of the controller's log.
pub(crate) fn metadata_at() -> TopicIdPartition {
    TopicIdPartition { topic_id: METADATA_TOPIC_ID, partition: PartitionIndex(0) }
}

fn make_core(
    runtime: Runtime,
    handle: &NodeHandle,
    facts: Arc<NodeFacts>,
    boot_id: BootId,
    wal: MetaWal,
) -> Rc<Core> {
    let config = &facts.config;
    let view = Arc::new(NodeView::empty(config));
    let shared = log_shared(&runtime, config);
    let budget = MemoryBudget::new(config.request_memory_bytes(runtime.core_count));
    let stopping = handle.shared.stopping.subscribe();
    let partitions = Partitions::new(shared, wal, boot_id);
    let cores = handle.shared.cores.clone();
    Rc::new(Core::new(runtime, cores, facts, partitions, Coordinators::default(), budget, view, stopping))
}

fn log_shared(runtime: &Runtime, config: &NodeConfig) -> LogShared {
    LogShared {
        committer: Rc::new(FileCommitter::new(runtime.disk.clone())),
        tail_cache: TailCache::new(config.tail_cache_bytes(runtime.core_count)),
        open_segments: OpenSegments::new(OPEN_SEGMENTS_MAX),
        disk_low: Rc::default(),
        runtime: runtime.clone(),
    }
}

fn start_housekeeping(core: &Rc<Core>) {
    ouzel_runtime::spawn(housekeeping::keep_house(core.clone()));
    ouzel_runtime::spawn(housekeeping::compact_logs(core.clone()));
    ouzel_runtime::spawn(housekeeping::expire_offsets(core.clone()));
    ouzel_runtime::spawn(housekeeping::watch_disk(core.clone()));
    ouzel_runtime::spawn(housekeeping::note_flushed(core.clone()));
}
