//! The first core's way from a directory to a node that serves.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ouzel_metadata::Image;
use ouzel_metadata::configs::broker::Identity;
use ouzel_metadata::image::{Broker, Endpoint, SecurityProtocol};
use ouzel_metadata::keepers::keeper;
use ouzel_model::{PartitionIndex, TimestampMs, TopicId, TopicIdPartition, TopicName, TopicPartition};
use ouzel_raft::{GroupSettings, Solo, Ticks};
use ouzel_runtime::disk::LockGuard;
use ouzel_runtime::mailbox::MailReceiver;
use ouzel_runtime::{JoinHandle, Runtime};
use ouzel_storage::checkpoint::MetaProperties;
use ouzel_storage::strays::remove_strays;
use ouzel_storage::wal::{BootId, Change, MetaWal, Replayed, SoloState, replay};
use ouzel_storage::{Durability, Log, LogConfig, OpenLog, snapshot_files};
use tokio::sync::oneshot;

use crate::cluster;
use crate::config::NodeConfig;
use crate::controller::metadata_log::MetadataLog;
use crate::controller::publisher::{Owners, Publisher};
use crate::controller::{Controller, keepers, lead, preferred, snapshots};
use crate::core::{Core, Work};
use crate::listener::{self, ConnectionCounts};
use crate::partitions::groups::{begin_group, open_group};
use crate::rpc::ask;
use crate::rpc::control::{ControlAnswer, ControlCall};

use super::joining::{self, Joined};
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
    properties: MetaProperties,
    joined: Option<Joined>,
    boot_id: BootId,
    wal: MetaWal,
    owners: Owners,
}

/// A node that serves, as its first core holds it.
pub(super) struct Started {
    pub(super) core: Rc<Core>,
    /// Follows the controller's log until the node stops.
    pub(super) following: JoinHandle<Result<(), String>>,
    pub(super) lock: LockGuard,
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
        let found = read_identity(&runtime, &config).await?;
        let joined = joining::join(&runtime, &config, found.as_ref(), handle).await?;
        let properties = match found {
            Some(found) => found,
            None => write_identity(&runtime, &config, joined.as_ref()).await?,
        };
        let boot_id = boot_id(&runtime).await;
        let replayed = replay(&runtime.disk, &dir).await.map_err(|error| StartError(error.to_string()))?;
        for torn in &replayed.torn {
            tracing::info!(file = %torn.file.display(), position = torn.position, "an interrupted commit was left aside");
        }
        let known = replayed.states.keys().copied().filter(|at| *at != metadata_at());
        let owners = Owners::deal(known, runtime.core_count);
        let wal = open_wal(&runtime, &dir, &replayed, &owners).await?;
        Ok(Starting {
            runtime,
            handle: handle.clone(),
            config,
            lock,
            listener,
            kafka_address,
            properties,
            joined,
            boot_id,
            wal,
            owners,
        })
    }

    /// Brings the cores up, reads the controller's log, registers, has every core open its partitions, accepts.
    pub(super) async fn serve(
        self,
        mail: MailReceiver<Work>,
        others: Vec<oneshot::Sender<Boot>>,
    ) -> Result<Started, StartError> {
        let Starting {
            runtime,
            handle,
            config,
            lock,
            listener,
            kafka_address,
            properties,
            joined,
            boot_id,
            wal,
            owners,
        } = self;
        let facts = Arc::new(NodeFacts {
            connection_counts: ConnectionCounts::new(runtime.core_count),
            cluster_id: properties.cluster_id,
            directory_id: properties.directory_id,
            membership: joined.as_ref().map(|joined| joined.membership.clone()),
            kafka_address,
            config,
        });
        let mut coming_up = Vec::with_capacity(others.len());
        for other in others {
            let (up, when_up) = oneshot::channel();
            if other.send(Boot { facts: facts.clone(), boot_id, up }).is_err() {
                return Err(StartError("a core ended while the broker was starting".to_owned()));
            }
            coming_up.push(when_up);
        }
        let core = make_core(runtime, &handle, facts.clone(), boot_id, wal.clone());
        if let Some(joined) = joined {
            joined.open_first(&core);
        }
        ouzel_runtime::spawn(core.clone().take_mail(mail));
        for up in coming_up {
            up.await.map_err(|_| StartError("a core failed while the broker was starting".to_owned()))?;
        }
        let log = open_metadata(&core, &wal, boot_id).await?;
        let failed = |error: String| {
            let dir = metadata_dir(&core.node.config);
            StartError(format!("the controller's log in {} cannot be opened: {error}", dir.display()))
        };
        let deleted: HashSet<TopicId> =
            log.apply_committed().await.map_err(failed)?.deleted.into_iter().collect();
        let mut publisher = Publisher::new(log.clone(), owners);
        // The card knows the founders; whoever came later may be all that is left. Where a node listens is no promise, so it
        // may be taken from what is not known to be committed: after a crash, that is all there may be.
        cluster::learn_addresses(&core, &log.image_to_the_end().await);
        let controller = Controller::new(log.clone(), core.runtime.clock.clone());
        core.controller.replace(Some(Rc::new(controller)));
        // Nothing is opened before the cluster has taken this broker for what it says it is.
        let broker = this_broker(&core);
        let is_registered = |image: &Image| {
            let known = image.broker(broker.node);
            known.is_some_and(|known| known.incarnation == broker.incarnation)
        };
        let reading = async { publisher.read_until(&core, is_registered).await.map_err(failed) };
        handle.wait_for(Some(
            "the controller does not know this node yet; it needs a majority of the nodes that keep its log"
                .to_owned(),
        ));
        let registering = register(&core, &log, broker.clone());
        until_registered(Box::pin(reading), Box::pin(registering)).await?;
        let gone = publisher.gone(&log.image(), &core);
        sweep(&core, |at| deleted.contains(&at.topic_id) || gone.contains(at)).await;
        publisher
            .publish(&core)
            .await
            .map_err(|_| StartError("a core failed while it opened its partitions".to_owned()))?;
        let following = ouzel_runtime::spawn(publisher.run(core.clone()));
        ouzel_runtime::spawn(lead::lead(core.clone()));
        ouzel_runtime::spawn(keepers::keep(core.clone()));
        ouzel_runtime::spawn(snapshots::keep(core.clone()));
        ouzel_runtime::spawn(preferred::rebalance(core.clone()));
        start_housekeeping(&core);
        let _ = handle.shared.facts.set(facts);
        ouzel_runtime::spawn(listener::accept(core.clone(), listener));
        Ok(Started { core, following, lock })
    }
}

/// This broker, as it registers in this life of its process.
fn this_broker(core: &Core) -> Broker {
    let config = &core.node.config;
    let (host, port) = advertised(config, core.node.kafka_address);
    Broker {
        node: config.node_id,
        incarnation: core.process_incarnation(),
        endpoints: vec![Endpoint {
            listener: LISTENER.to_owned(),
            host,
            port,
            security: SecurityProtocol::Plaintext,
        }],
        rack: config.broker.rack.clone(),
        directory_id: core.node.directory_id,
        rpc_address: core
            .node
            .membership
            .as_ref()
            .map_or_else(String::new, |membership| membership.rpc_address.clone()),
        fenced: false,
        features: ouzel_metadata::features::supported(),
    }
}

/// A broker that the controller does not register, for now, asks again so much later.
const REGISTER_AGAIN: Duration = Duration::from_secs(1);

/// Tells the cluster where this broker is, until it knows.
async fn register(core: &Rc<Core>, log: &MetadataLog, broker: Broker) -> Result<(), StartError> {
    let (image, cluster_id) = (log.image(), &core.node.cluster_id);
    if let Some(own) = image.cluster_id().filter(|own| *own != &**cluster_id) {
        let dir = core.node.config.data_dir.display();
        return Err(StartError(format!(
            "{META_PROPERTIES} in {dir} names cluster {cluster_id}, but the controller's log is of cluster {own}; \
             one of them was copied from elsewhere"
        )));
    }
    loop {
        match ask::ask(core, ControlCall::Register(broker.clone())).await {
            Ok(ControlAnswer::Registered(_)) => return Ok(()),
            Ok(ControlAnswer::Refused(words)) => return Err(StartError(words)),
            Ok(ControlAnswer::Failed(words)) if core.node.membership.is_none() => {
                return Err(StartError(format!("the controller's log takes no records: {words}")));
            }
            Ok(other) => tracing::warn!(?other, "this broker is not registered yet"),
            Err(error) => tracing::warn!(%error, "this broker is not registered yet; asking again"),
        }
        // Who is the controller itself is refused at once, as long as its disk is full.
        core.runtime.clock.sleep(REGISTER_AGAIN).await;
    }
}

/// Resolves when the log that is being read says that this broker is registered. That is all that counts: who was told so may
/// have to read on, and who was told nothing, or otherwise, may be registered all the same.
///
/// # Errors
/// Whichever fails first.
async fn until_registered<E>(
    reading: impl Future<Output = Result<(), E>>,
    registering: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let mut reading = pin!(reading);
    tokio::select! {
        biased;
        read = &mut reading => return read,
        registered = registering => registered?,
    }
    reading.await
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

/// Reads who this directory belongs to, if it belongs to anybody.
async fn read_identity(runtime: &Runtime, config: &NodeConfig) -> Result<Option<MetaProperties>, StartError> {
    let path = config.data_dir.join(META_PROPERTIES);
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
            Ok(Some(found))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StartError(format!("{} cannot be read: {error}", path.display()))),
    }
}

/// Writes who this directory belongs to, at its first start.
async fn write_identity(
    runtime: &Runtime,
    config: &NodeConfig,
    joined: Option<&Joined>,
) -> Result<MetaProperties, StartError> {
    let path = config.data_dir.join(META_PROPERTIES);
    let id = || TopicId(runtime.entropy.uuid());
    let made = MetaProperties {
        cluster_id: joined
            .map_or_else(|| id().to_string(), |joined| joined.membership.card.cluster_id.clone()),
        node_id: config.node_id,
        directory_id: joined.map_or_else(id, |joined| joined.directory_id),
    };
    let written = runtime.disk.write_atomic(&path, made.encode().into()).await;
    written.map_err(|error| {
        unwritable(&config.data_dir, &error)
            .unwrap_or_else(|| StartError(format!("{} cannot be written: {error}", path.display())))
    })?;
    if joined.is_some() {
        // Nobody reads it any more; one that a crash leaves says the same.
        let _ = runtime.disk.remove_file(&config.data_dir.join(joining::NEWBORN_FILE)).await;
    }
    Ok(made)
}

/// Removes what deletions left behind, also one that a crash cut short before it touched the directory, or that was
/// decided while this node was away. Nothing else: a directory that no topic is known to have had stays as it is, and
/// whoever put it there can look at it.
async fn sweep(core: &Core, is_gone: impl Fn(&TopicIdPartition) -> bool) {
    let dir = &core.node.config.data_dir;
    if let Err(error) = remove_strays(&core.runtime, dir, |at| !is_gone(at)).await {
        tracing::warn!(dir = %dir.display(), %error, "what deletions left behind stays until the next start");
    }
}

/// Which boot of the kernel this is; one that cannot be told is like no other.
async fn boot_id(runtime: &Runtime) -> BootId {
    let text = runtime.disk.read(Path::new(BOOT_ID_FILE)).await.ok();
    let text = text.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| BootId(runtime.entropy.uuid()))
}

/// Writes the next generation of write-ahead files, for the cores there are now, and opens this core's.
async fn open_wal(
    runtime: &Runtime,
    dir: &Path,
    replayed: &Replayed,
    owners: &Owners,
) -> Result<MetaWal, StartError> {
    // The controller's own log is the first core's.
    let core_of = |at: &TopicIdPartition| owners.get(at).map_or(runtime.core.0, |core| core.0);
    let opened = async {
        replayed.rewrite(&runtime.disk, dir, runtime.core_count, core_of).await?;
        MetaWal::open(runtime.disk.clone(), dir, runtime.core).await
    };
    opened.await.map_err(|error| StartError(error.to_string()))
}

fn metadata_dir(config: &NodeConfig) -> PathBuf {
    config.data_dir.join(metadata_name().to_string())
}

fn metadata_name() -> TopicPartition {
    TopicPartition {
        topic: TopicName::new(METADATA_TOPIC).expect("a legal name"),
        partition: PartitionIndex(0),
    }
}

/// Opens the controller's log and takes it into service: in an epoch of its own if this node is alone, else as a replica
/// of the controller's group.
async fn open_metadata(core: &Rc<Core>, wal: &MetaWal, boot_id: BootId) -> Result<MetadataLog, StartError> {
    let config = &core.node.config;
    let dir = metadata_dir(config);
    let membership = core.node.membership.clone();
    let solo = wal.get(&metadata_at());
    let (stop, flushed, clean_end) = crate::partitions::last_stop(solo.as_ref(), boot_id);
    let failed = |error: &dyn std::fmt::Display| {
        StartError(format!("the controller's log in {} cannot be opened: {error}", dir.display()))
    };
    let open = OpenLog {
        shared: log_shared(&core.runtime, config),
        dir: dir.clone(),
        topic_partition: metadata_name(),
        topic_id: METADATA_TOPIC_ID,
        // Flushed in every mode, kept until a snapshot says it all: `controller::snapshots`.
        config: LogConfig {
            durability: Durability::Durable,
            retention_ms: None,
            retention_bytes: None,
            ..LogConfig::default()
        },
        stop,
        flushed,
        clean_end,
        now: TimestampMs(core.runtime.clock.wall_ms()),
        with_entries: false,
    };
    let Some(membership) = membership else {
        let log = Log::open(open).await.map_err(|error| failed(&error))?;
        let state = SoloState::opened(solo.as_ref(), log.latest_epoch(), log.offsets().flushed_end, boot_id);
        wal.commit(vec![Change::Put(metadata_at(), state)])
            .await
            .map_err(|error| StartError(error.to_string()))?;
        let solo = Solo::new(log, state.leader_epoch, Durability::Durable);
        return Ok(MetadataLog::new(config.node_id, solo.into()));
    };
    let replica = keeper(config.node_id, core.node.directory_id);
    if solo.is_some() {
        // It was alone until now: what it has decided is what the cluster begins with.
        let log = Log::open(open.clone()).await.map_err(|error| failed(&error))?;
        begin_group(core, wal, metadata_at(), replica, &log).await.map_err(|error| failed(&error))?;
        tracing::info!("the controller's log is one of a group now: other nodes may join");
    }
    let group = wal.get_group(&metadata_at());
    let open = OpenLog { with_entries: true, ..open };
    let log =
        snapshot_files::open_group(open, group.as_ref(), boot_id).await.map_err(|error| failed(&error))?;
    if group.is_none() && log.last_entry().is_some() {
        // It would vote a second time in a reign in which it has voted, and found what has long been founded.
        return Err(failed(
            &"the write-ahead files (core-*/meta.wal.*) do not know it, so whom it voted for is lost, and it must not \
              vote again; put the files back, or move the whole data directory away: the node comes back empty, and \
              the others fill it",
        ));
    }
    let settings = GroupSettings { ticks: Ticks::Own, ..GroupSettings::default() };
    // Any other node follows, once the controller has taken it in.
    let founders = match membership.card.is_founder(core.node.directory_id) {
        true => membership.founders(),
        false => Vec::new(),
    };
    let opened = open_group(core, metadata_at(), replica, log, settings, founders).await;
    let opened = opened.map_err(|error| failed(&error))?;
    Ok(MetadataLog::new(config.node_id, opened.into()))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// A controller lost its lead between placing a registration and answering it; the next one committed it. The node read
    /// that it was registered and read no further, but went on asking. If it was the next controller itself, every question to
    /// it waited for what it had not read, and no broker could register any more.
    #[tokio::test]
    async fn who_reads_that_it_is_registered_asks_no_more() {
        let never_answered = pending::<Result<(), &str>>();
        assert_eq!(until_registered(ready(Ok(())), never_answered).await, Ok(()));
    }

    #[tokio::test]
    async fn an_answer_alone_is_not_enough() {
        let (seen, reading) = oneshot::channel::<()>();
        let reading = async { reading.await.map_err(|_| "the log ended") };
        let waiting = until_registered(reading, ready(Ok(())));
        let mut waiting = pin!(waiting);
        let asked = ready("still waiting");
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("it has read nothing yet"),
            _ = asked => {}
        }
        seen.send(()).expect("it reads");
        assert_eq!(waiting.await, Ok(()));
    }

    #[tokio::test]
    async fn a_refusal_ends_it() {
        assert_eq!(until_registered(pending(), ready(Err("no"))).await, Err("no"));
    }
}
