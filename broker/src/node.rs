//! One node: its cores, the order in which everything starts, and the order in which it stops.
//!
//! Start: lock the directory, know who we are, replay the write-ahead files, replay the controller's log, deal the
//! partitions out to the cores, recover them side by side, raise their epochs, listen, say ready.
//! Stop: say not ready, accept nothing new, let connections finish, close every log and leave its clean mark.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use ouzel_metadata::configs::broker::Identity;
use ouzel_metadata::image::{Broker, Endpoint, SecurityProtocol, Topic};
use ouzel_metadata::{Image, Record};
use ouzel_model::{
    NodeId, PartitionIndex, TimestampMs, TopicId, TopicIdPartition, TopicName, TopicPartition,
};
use ouzel_raft::{ReplicatedLog, Solo};
use ouzel_runtime::cores::{CoresConfig, CoresError};
use ouzel_runtime::disk::{BackendChoice, DiskBackend, LockGuard};
use ouzel_runtime::mailbox::{self, MailReceiver};
use ouzel_runtime::{CoreId, Runtime, cores};
use ouzel_storage::checkpoint::MetaProperties;
use ouzel_storage::wal::{BootId, Change, MetaWal, Replayed, SoloState, replay};
use ouzel_storage::{
    Durability, FileCommitter, Log, LogConfig, LogShared, OpenLog, OpenSegments, TailCache, layout,
};
use ouzel_sync::published::published_offsets;
use tokio::sync::{oneshot, watch};

use crate::config::NodeConfig;
use crate::controller::{self, Controller};
use crate::coordinators::Coordinators;
use crate::core::{Core, Cores, Stopped, Work};
use crate::listener::{self, ConnectionCounts, MemoryBudget};
use crate::metrics::CoreSample;
use crate::partition::housekeeping;
use crate::partitions::{Opening, Partitions};
use crate::topic_config::TopicConfigs;
use crate::view::{NodeView, Route};

/// The name of the one listener there is.
pub const LISTENER: &str = "PLAINTEXT";

/// The controller's log: Kafka's name and id for it.
const METADATA_TOPIC: &str = "__cluster_metadata";
const METADATA_TOPIC_ID: TopicId = TopicId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

const LOCK_FILE: &str = ".lock";
const META_PROPERTIES: &str = "meta.properties";
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

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

    /// How the disk is reached; `Blocking` until the first core runs.
    pub fn disk_backend(&self) -> DiskBackend {
        self.shared.backend.get().copied().unwrap_or(DiskBackend::Blocking)
    }

    /// Begins the stop; further calls change nothing.
    pub fn stop(&self) {
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

    /// What keeps the node from being whole, in words; empty if nothing does.
    ///
    /// # Errors
    /// As [`NodeHandle::sample`].
    pub async fn faults(&self) -> Result<Vec<String>, Stopped> {
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

/// What a core's thread is given before it runs.
struct Seat {
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
    view: Arc<NodeView>,
    boot_id: BootId,
    openings: Vec<Opening>,
    opened: oneshot::Sender<()>,
}

/// Starts a node and returns when it serves.
///
/// # Errors
/// One sentence; nothing runs any more then.
pub fn start(setup: Setup, on_first_core: FirstCore) -> Result<RunningNode, StartError> {
    let Setup { config, cores: count, pin, backend } = setup;
    make_data_dir(&config.data_dir)?;
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mailbox::channel::<Work>()).unzip();
    let (stopping, _) = watch::channel(false);
    let handle = NodeHandle {
        shared: Arc::new(HandleShared {
            cores: Cores::new(senders),
            facts: OnceLock::new(),
            backend: OnceLock::new(),
            ready: AtomicBool::new(false),
            stopping,
        }),
    };
    let (report, reported) = mpsc::channel();
    let (done, all_done) = watch::channel(false);
    let (boots, booted): (Vec<_>, Vec<_>) = (1..count).map(|_| oneshot::channel()).unzip();
    let data_dirs = vec![config.data_dir.clone()];
    let first = First { config, on_first_core, others: boots, report, done };
    let roles = std::iter::once(Role::First(Box::new(first))).chain(booted.into_iter().map(Role::Other));
    let seats = receivers
        .into_iter()
        .zip(roles)
        .map(|(mail, role)| Seat { mail, role, handle: handle.clone(), done: all_done.clone() })
        .collect();
    let cores_config = CoresConfig { count, pin, backend, data_dirs };
    let cores = cores::start(&cores_config, seats, run_core)
        .map_err(|error| StartError(format!("cannot start the cores: {error}")))?;
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

fn make_data_dir(dir: &Path) -> Result<(), StartError> {
    // Before any core runs: the disk backend probes the directory.
    std::fs::create_dir_all(dir).map_err(|error| {
        StartError(format!(
            "data directory {} cannot be created: {error}; choose another with --data-dir",
            dir.display()
        ))
    })
}

async fn run_core(runtime: Runtime, seat: Seat) -> cores::CoreResult {
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
    let Boot { facts, view, boot_id, openings, opened } = boot;
    let wal = MetaWal::open(runtime.disk.clone(), &facts.config.data_dir, runtime.core).await?;
    let core = make_core(runtime, &handle, facts, view, boot_id, wal);
    ouzel_runtime::spawn(core.clone().take_mail(mail));
    core.partitions.open_all(&core, openings).await;
    start_housekeeping(&core);
    let _ = opened.send(());
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
        Ok(starting) => starting.serve(mail, others).await,
        Err(error) => Err(error),
    };
    let (core, _lock) = match started {
        Ok(started) => started,
        Err(error) => {
            let _ = report.send(Err(error));
            return Ok(());
        }
    };
    handle.shared.ready.store(true, Ordering::Release);
    let _ = report.send(Ok(()));

    let mut stopping = handle.shared.stopping.subscribe();
    let _ = stopping.wait_for(|stopping| *stopping).await;
    tracing::info!("stopping: no new connections, finishing what is under way");
    let failed = stop(&core).await;
    done.send_replace(true);
    if failed > 0 {
        return Err(format!("{failed} logs in {} were not closed in order", data_dir.display()).into());
    }
    tracing::info!("stopped in order");
    Ok(())
}

/// Lets connections finish, then closes every log.
async fn stop(core: &Rc<Core>) -> usize {
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
            async move {
                core.coordinators.stop();
                core.partitions.close_all().await
            }
        });
        failed += closed.await.unwrap_or(1);
    }
    let controller = core.controller.borrow_mut().take();
    if let Some(controller) = controller {
        match controller.log().local().close().await {
            Ok(end) => failed += usize::from(!core.partitions.mark_closed(metadata_at(), end).await),
            Err(reason) => {
                tracing::error!(reason, "the controller's log was not closed in order");
                failed += 1;
            }
        }
    }
    failed
}

fn metadata_at() -> TopicIdPartition {
    TopicIdPartition { topic_id: METADATA_TOPIC_ID, partition: PartitionIndex(0) }
}

fn make_core(
    runtime: Runtime,
    handle: &NodeHandle,
    facts: Arc<NodeFacts>,
    view: Arc<NodeView>,
    boot_id: BootId,
    wal: MetaWal,
) -> Rc<Core> {
    let config = &facts.config;
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
    ouzel_runtime::spawn(housekeeping::expire_offsets(core.clone()));
    ouzel_runtime::spawn(housekeeping::watch_disk(core.clone()));
}

/// The first core's way from a directory to a node that serves.
struct Starting {
    runtime: Runtime,
    handle: NodeHandle,
    config: NodeConfig,
    lock: LockGuard,
    listener: ouzel_runtime::net::Listener,
    kafka_address: SocketAddr,
    boot_id: BootId,
    known: std::collections::BTreeMap<TopicIdPartition, SoloState>,
    wal: MetaWal,
    metadata_log: Solo,
    image: Image,
    owners: HashMap<TopicIdPartition, CoreId>,
}

impl Starting {
    async fn new(runtime: Runtime, config: NodeConfig, handle: &NodeHandle) -> Result<Starting, StartError> {
        let dir = config.data_dir.clone();
        let lock = lock(&runtime, &dir).await?;
        // The port before the logs: a second broker is told at once, not after a long recovery of what it must not touch.
        let listener = listen(&runtime, &config.kafka_listener).await?;
        let kafka_address = listener.local_addr().map_err(|error| {
            StartError(format!("cannot tell the address of {}: {error}", config.kafka_listener))
        })?;
        let config = with_identity(config, kafka_address);
        let properties = identify(&runtime, &config).await?;
        sweep(&runtime, &dir).await;
        let boot_id = boot_id(&runtime).await;
        let replayed = replay(&runtime.disk, &dir).await.map_err(|error| StartError(error.to_string()))?;
        for torn in &replayed.torn {
            tracing::info!(file = %torn.file.display(), position = torn.position, "an interrupted commit was left aside");
        }
        let known = replayed.states.clone();
        let (log, image) = open_metadata(&runtime, &config, known.get(&metadata_at()), boot_id).await?;
        // Who owns what must be known before the write-ahead files are dealt out, and only the controller's log says it.
        let owners = deal(&image, config.node_id, runtime.core_count);
        let wal = open_wal(&runtime, &dir, &replayed, &owners).await?;
        let metadata_log = lead_metadata(&wal, log, known.get(&metadata_at()), boot_id).await?;
        let mut starting = Starting {
            runtime,
            handle: handle.clone(),
            config,
            lock,
            listener,
            kafka_address,
            boot_id,
            known,
            wal,
            metadata_log,
            image,
            owners,
        };
        starting.register(&properties.cluster_id).await?;
        Ok(starting)
    }

    /// Founds the cluster if it is new, and tells it where this broker is.
    async fn register(&mut self, cluster_id: &str) -> Result<(), StartError> {
        let mut records = Vec::new();
        match self.image.cluster_id() {
            None => records.push(Record::ClusterCreated { cluster_id: cluster_id.to_owned() }),
            Some(own) if own != cluster_id => {
                let dir = self.config.data_dir.display();
                return Err(StartError(format!(
                    "{META_PROPERTIES} in {dir} names cluster {cluster_id}, but the controller's log is of cluster {own}; \
                     one of them was copied from elsewhere"
                )));
            }
            Some(_) => {}
        }
        let (host, port) = self.advertised();
        records.push(Record::BrokerRegistered(Broker {
            node: self.config.node_id,
            incarnation: self.runtime.entropy.uuid(),
            endpoints: vec![Endpoint {
                listener: LISTENER.to_owned(),
                host,
                port,
                security: SecurityProtocol::Plaintext,
            }],
            rack: self.config.broker.rack.clone(),
        }));
        let now = TimestampMs(self.runtime.clock.wall_ms());
        let written = async {
            let receipt = self
                .metadata_log
                .append(controller::batch_of(&records, now), now)
                .await
                .map_err(|error| error.to_string())?;
            receipt.acknowledged().await.map_err(|error| error.to_string())
        };
        written
            .await
            .map_err(|error| StartError(format!("the controller's log takes no records: {error}")))?;
        for record in &records {
            self.image
                .apply(record)
                .map_err(|error| StartError(format!("this broker cannot register: {error}")))?;
        }
        Ok(())
    }

    fn advertised(&self) -> (String, u16) {
        advertised(&self.config, self.kafka_address)
    }

    /// Deals the partitions out, has every core open its own, listens.
    async fn serve(
        self,
        mail: MailReceiver<Work>,
        others: Vec<oneshot::Sender<Boot>>,
    ) -> Result<(Rc<Core>, LockGuard), StartError> {
        let Starting {
            runtime,
            handle,
            config,
            lock,
            listener,
            kafka_address,
            boot_id,
            known,
            wal,
            metadata_log,
            image,
            owners,
        } = self;
        let core_count = runtime.core_count;
        let facts = Arc::new(NodeFacts {
            connection_counts: ConnectionCounts::new(core_count),
            cluster_id: image.cluster_id().unwrap_or_default().to_owned(),
            kafka_address,
            config,
        });
        let topic_configs = TopicConfigs::resolve(&facts.config, &image);
        let mut routes = HashMap::new();
        let mut openings: Vec<Vec<Opening>> = (0..core_count).map(|_| Vec::new()).collect();
        for topic in image.topics() {
            for (index, _) in topic.indexed_partitions() {
                let at = TopicIdPartition { topic_id: topic.id, partition: index };
                let Some(owner) = owners.get(&at).copied() else { continue };
                let (offsets, readers) = published_offsets(crate::view::UNOPENED);
                openings[usize::from(owner.0)].push(Opening {
                    at,
                    topic_partition: TopicPartition { topic: topic.name.clone(), partition: index },
                    offsets,
                    config: topic_configs.of(topic.id),
                    known: known.get(&at).copied(),
                });
                routes.insert(at, Route { core: owner, offsets: readers });
            }
        }
        let owned: Vec<usize> = openings.iter().map(Vec::len).collect();
        let view = Arc::new(NodeView { image, routes, topic_configs });
        let mut openings = openings.into_iter();
        let own = openings.next().unwrap_or_default();
        let mut opening = Vec::with_capacity(others.len());
        for (other, openings) in others.into_iter().zip(openings) {
            let (opened, when_opened) = oneshot::channel();
            let boot = Boot { facts: facts.clone(), view: view.clone(), boot_id, openings, opened };
            if other.send(boot).is_err() {
                return Err(StartError("a core ended while the broker was starting".to_owned()));
            }
            opening.push(when_opened);
        }
        let core = make_core(runtime, &handle, facts.clone(), view, boot_id, wal);
        core.controller.replace(Some(Rc::new(Controller::new(metadata_log, owned))));
        ouzel_runtime::spawn(core.clone().take_mail(mail));
        core.partitions.open_all(&core, own).await;
        for opened in opening {
            opened
                .await
                .map_err(|_| StartError("a core failed while it opened its partitions".to_owned()))?;
        }
        start_housekeeping(&core);
        let _ = handle.shared.facts.set(facts);
        ouzel_runtime::spawn(listener::accept(core.clone(), listener));
        Ok((core, lock))
    }
}

async fn lock(runtime: &Runtime, dir: &Path) -> Result<LockGuard, StartError> {
    let path = dir.join(LOCK_FILE);
    runtime.disk.lock_exclusive(&path).await.map_err(|error| {
        StartError(match error.kind() {
            io::ErrorKind::WouldBlock => {
                format!("data directory {} is in use by another broker; stop that one, or choose another with --data-dir", dir.display())
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                format!("data directory {} cannot be written: {error}; change its owner or mode, or choose another with --data-dir", dir.display())
            }
            _ => format!("data directory {} cannot be locked: {error}", dir.display()),
        })
    })
}

async fn listen(runtime: &Runtime, address: &str) -> Result<ouzel_runtime::net::Listener, StartError> {
    runtime.net.listen(address).await.map_err(|error| {
        StartError(match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("Kafka listener {address} is in use by another process; stop that one, or choose another with --kafka-listener")
            }
            _ => format!("cannot listen on {address} for Kafka clients: {error}; choose another address with --kafka-listener"),
        })
    })
}

fn advertised(config: &NodeConfig, bound: SocketAddr) -> (String, u16) {
    match &config.advertised {
        // Port 0 advertises whatever port was taken.
        Some((host, 0)) => (host.clone(), bound.port()),
        Some((host, port)) => (host.clone(), *port),
        // As it was written: a name stays a name.
        None => (
            config
                .kafka_listener
                .rsplit_once(':')
                .map_or_else(|| bound.ip().to_string(), |(host, _)| host.trim_matches(['[', ']']).to_owned()),
            bound.port(),
        ),
    }
}

fn with_identity(mut config: NodeConfig, bound: SocketAddr) -> NodeConfig {
    let (host, port) = advertised(&config, bound);
    let identity = Identity {
        node: config.node_id,
        listeners: vec![format!("{LISTENER}://{bound}")],
        advertised_listeners: vec![format!("{LISTENER}://{host}:{port}")],
        data_dir: config.data_dir.clone(),
    };
    config.settings = config.settings.with_identity(&identity);
    config
}

/// Reads, or at the first start writes, who this directory belongs to.
async fn identify(runtime: &Runtime, config: &NodeConfig) -> Result<MetaProperties, StartError> {
    let path = config.data_dir.join(META_PROPERTIES);
    let failed = |error: io::Error| StartError(format!("{} cannot be read: {error}", path.display()));
    match runtime.disk.read(&path).await {
        Ok(bytes) => {
            let found = MetaProperties::decode(&bytes).map_err(|error| {
                StartError(format!(
                    "{}: {error}; the directory is not one of this broker's, or of a newer one's",
                    path.display()
                ))
            })?;
            if found.node_id != config.node_id {
                return Err(StartError(format!(
                    "data directory {} belongs to node {}, but this is node {}; start it with --node-id {}, or choose another directory",
                    config.data_dir.display(),
                    found.node_id,
                    config.node_id,
                    found.node_id
                )));
            }
            Ok(found)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = || TopicId(runtime.entropy.uuid());
            let made =
                MetaProperties { cluster_id: id().to_string(), node_id: config.node_id, directory_id: id() };
            let written = runtime.disk.write_atomic(&path, made.encode().into()).await;
            written.map_err(|error| StartError(format!("{} cannot be written: {error}", path.display())))?;
            Ok(made)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Removes what deletions left behind.
async fn sweep(runtime: &Runtime, dir: &Path) {
    let Ok(entries) = runtime.disk.list_dir(dir).await else { return };
    let gone: Vec<PathBuf> = entries
        .iter()
        .filter(|entry| entry.is_dir && layout::is_deleted_dir(&entry.name))
        .map(|entry| dir.join(&entry.name))
        .collect();
    for path in gone {
        if let Err(error) = runtime.disk.remove_dir_all(&path).await {
            tracing::warn!(dir = %path.display(), %error, "a deleted partition's directory stays");
        }
    }
}

/// Which boot of the kernel this is; one that cannot be told is like no other.
async fn boot_id(runtime: &Runtime) -> BootId {
    let text = runtime.disk.read(Path::new(BOOT_ID_FILE)).await.ok();
    let text = text.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| BootId(runtime.entropy.uuid()))
}

/// Gives each partition of this node a core, in turn.
fn deal(image: &Image, node: NodeId, core_count: u16) -> HashMap<TopicIdPartition, CoreId> {
    let of_topic = |topic: &'_ Topic| -> Vec<TopicIdPartition> {
        let here = topic.indexed_partitions().filter(|(_, partition)| partition.replicas.contains(&node));
        here.map(|(partition, _)| TopicIdPartition { topic_id: topic.id, partition }).collect()
    };
    let all = image.topics().flat_map(|topic| of_topic(topic));
    all.zip((0..core_count).map(CoreId).cycle()).collect()
}

/// Writes the next generation of write-ahead files, for the cores there are now, and opens this core's.
async fn open_wal(
    runtime: &Runtime,
    dir: &Path,
    replayed: &Replayed,
    owners: &HashMap<TopicIdPartition, CoreId>,
) -> Result<MetaWal, StartError> {
    // What no topic has any more goes to the first core, with the controller's own; it is removed there in time.
    let core_of = |at: &TopicIdPartition| owners.get(at).map_or(runtime.core.0, |core| core.0);
    let opened = async {
        replayed.rewrite(&runtime.disk, dir, runtime.core_count, core_of).await?;
        MetaWal::open(runtime.disk.clone(), dir, runtime.core).await
    };
    opened.await.map_err(|error| StartError(error.to_string()))
}

/// Opens the controller's log and replays it.
async fn open_metadata(
    runtime: &Runtime,
    config: &NodeConfig,
    known: Option<&SoloState>,
    boot_id: BootId,
) -> Result<(Log, Image), StartError> {
    let topic_partition = TopicPartition {
        topic: TopicName::new(METADATA_TOPIC).expect("a legal name"),
        partition: PartitionIndex(0),
    };
    let dir = config.data_dir.join(topic_partition.to_string());
    let failed = |error: String| {
        StartError(format!("the controller's log in {} cannot be opened: {error}", dir.display()))
    };
    let (stop, flushed, clean_end) = crate::partitions::last_stop(known, boot_id);
    let log = Log::open(OpenLog {
        shared: log_shared(runtime, config),
        dir: dir.clone(),
        topic_partition,
        topic_id: METADATA_TOPIC_ID,
        // Flushed in every mode, kept for ever.
        config: LogConfig {
            durability: Durability::Durable,
            retention_ms: None,
            retention_bytes: None,
            ..LogConfig::default()
        },
        stop,
        flushed,
        clean_end,
        now: TimestampMs(runtime.clock.wall_ms()),
    })
    .await
    .map_err(|error| failed(error.to_string()))?;
    let mut image = Image::default();
    let (mut from, end) = (log.offsets().log_start, log.offsets().log_end);
    while from < end {
        let read = log.read(from, end, 1 << 20, true).await.map_err(|error| failed(error.to_string()))?;
        let before = from;
        for chunk in &read.batches {
            controller::replay(&mut image, chunk).map_err(failed)?;
            from = ouzel_model::batch::batches(chunk)
                .flatten()
                .last()
                .map_or(from, |batch| batch.header.next_offset());
        }
        if from == before {
            return Err(failed(format!("it ends at offset {from}, before its own end {end}")));
        }
    }
    Ok((log, image))
}

/// Takes the controller's log into service in an epoch of its own.
async fn lead_metadata(
    wal: &MetaWal,
    log: Log,
    known: Option<&SoloState>,
    boot_id: BootId,
) -> Result<Solo, StartError> {
    let state = SoloState::opened(known, log.latest_epoch(), log.offsets().flushed_end, boot_id);
    wal.commit(vec![Change::Put(metadata_at(), state)])
        .await
        .map_err(|error| StartError(error.to_string()))?;
    Ok(Solo::new(log, state.leader_epoch, Durability::Durable))
}
