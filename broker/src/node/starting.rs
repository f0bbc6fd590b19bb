//! The first core's way from a directory to a node that serves.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ouzel_metadata::configs::broker::Identity;
use ouzel_metadata::image::{Broker, Endpoint, SecurityProtocol, Topic};
use ouzel_metadata::{Image, Record};
use ouzel_model::{
    NodeId, PartitionIndex, TimestampMs, TopicId, TopicIdPartition, TopicName, TopicPartition,
};
use ouzel_raft::{ReplicatedLog, Solo};
use ouzel_runtime::disk::LockGuard;
use ouzel_runtime::mailbox::MailReceiver;
use ouzel_runtime::{CoreId, Runtime};
use ouzel_storage::checkpoint::MetaProperties;
use ouzel_storage::strays::remove_strays;
use ouzel_storage::wal::{BootId, Change, MetaWal, Replayed, SoloState, replay};
use ouzel_storage::{Durability, Log, LogConfig, OpenLog};
use ouzel_sync::published::published_offsets;
use tokio::sync::oneshot;

use crate::config::NodeConfig;
use crate::controller::{self, Controller};
use crate::core::{Core, Work};
use crate::listener::{self, ConnectionCounts};
use crate::partitions::Opening;
use crate::topic_config::TopicConfigs;
use crate::view::{NodeView, Route};

use super::{
    Boot, LISTENER, METADATA_TOPIC_ID, NodeFacts, NodeHandle, StartError, log_shared, make_core, metadata_at,
    start_housekeeping, unwritable,
};

/// The controller's log has Kafka's name for it.
const METADATA_TOPIC: &str = "__cluster_metadata";

const LOCK_FILE: &str = ".lock";
const META_PROPERTIES: &str = "meta.properties";
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// The first core's way from a directory to a node that serves.
pub(super) struct Starting {
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
    /// Takes the directory and the port, and replays what the last process knew.
    pub(super) async fn new(
        runtime: Runtime,
        config: NodeConfig,
        handle: &NodeHandle,
    ) -> Result<Starting, StartError> {
        let dir = config.data_dir.clone();
        let lock = lock(&runtime, &dir).await?;
        // The port before the logs: a second broker is told at once, not after a long recovery of what it must not touch.
        let listener = listen(&runtime, &config.kafka_listener).await?;
        let kafka_address = listener.local_addr().map_err(|error| {
            StartError(format!("cannot tell the address of {}: {error}", config.kafka_listener))
        })?;
        let config = with_identity(config, kafka_address);
        let properties = identify(&runtime, &config).await?;
        let boot_id = boot_id(&runtime).await;
        let replayed = replay(&runtime.disk, &dir).await.map_err(|error| StartError(error.to_string()))?;
        for torn in &replayed.torn {
            tracing::info!(file = %torn.file.display(), position = torn.position, "an interrupted commit was left aside");
        }
        let known = replayed.states.clone();
        let (log, image, deleted) =
            open_metadata(&runtime, &config, known.get(&metadata_at()), boot_id).await?;
        sweep(&runtime, &dir, &deleted).await;
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
    pub(super) async fn serve(
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
        if error.kind() == io::ErrorKind::WouldBlock {
            return StartError(format!(
                "data directory {} is in use by another broker; stop that one, or choose another with --data-dir",
                dir.display()
            ));
        }
        unwritable(dir, &error)
            .unwrap_or_else(|| StartError(format!("data directory {} cannot be locked: {error}", dir.display())))
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
            written.map_err(|error| {
                unwritable(&config.data_dir, &error)
                    .unwrap_or_else(|| StartError(format!("{} cannot be written: {error}", path.display())))
            })?;
            Ok(made)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Removes what deletions left behind, also one that a crash cut short before it touched the directory. Nothing else: a
/// directory that no topic is known to have had stays as it is, and whoever put it there can look at it.
async fn sweep(runtime: &Runtime, dir: &Path, deleted: &HashSet<TopicId>) {
    let swept = remove_strays(runtime, dir, |at| !deleted.contains(&at.topic_id)).await;
    if let Err(error) = swept {
        tracing::warn!(dir = %dir.display(), %error, "what deletions left behind stays until the next start");
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
) -> Result<(Log, Image, HashSet<TopicId>), StartError> {
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
    let mut deleted = HashSet::new();
    let (mut from, end) = (log.offsets().log_start, log.offsets().log_end);
    while from < end {
        let read = log.read(from, end, 1 << 20, true).await.map_err(|error| failed(error.to_string()))?;
        let before = from;
        for chunk in &read.batches {
            deleted.extend(controller::replay(&mut image, chunk).map_err(failed)?);
            from = ouzel_model::batch::batches(chunk)
                .flatten()
                .last()
                .map_or(from, |batch| batch.header.next_offset());
        }
        if from == before {
            return Err(failed(format!("it ends at offset {from}, before its own end {end}")));
        }
    }
    Ok((log, image, deleted))
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
