//! How a node comes to be one of several: it listens to its peers, finds or founds its cluster, and gives each core its
//! part of it. A node that was given no seeds, and whose directory names no cluster of several, is alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ouzel_metadata::BrokerConfig;
use ouzel_metadata::keepers::keeper;
use ouzel_model::{NodeId, ReplicaId, TopicId};
use ouzel_raft::forming::discovery::foreign_seeds;
use ouzel_raft::forming::{ClusterCard, Discovery, Formed, Founder};
use ouzel_raft::gossip::Gossip;
use ouzel_raft::liveness::{ElectionConfig, Elector, Liveness, LivenessConfig};
use ouzel_raft::peers::{
    Admitted, NodeIdentity, PeerIdentity, PeerService, Peers, PeersConfig, RecoveryRate, ServeResult,
};
use ouzel_raft::{LocalBoxFuture, PeerMessage};
use ouzel_runtime::clock::Instant;
use ouzel_runtime::{CoreId, Runtime};
use ouzel_storage::checkpoint::MetaProperties;

use crate::cluster::{self, Cluster, First};
use crate::config::NodeConfig;
use crate::core::Core;
use crate::rpc::serve::BrokerService;

use super::{NodeHandle, StartError};

/// What the directory keeps of the cluster it belongs to.
const CARD_FILE: &str = "cluster.card";
/// Which directory this is, before it belongs to anybody; `meta.properties` says it from then on.
pub(super) const NEWBORN_FILE: &str = "directory.id";
/// What catching up with others may take of the network, all cores together.
const RECOVERY_BYTES_PER_S: u64 = 100 << 20;

/// What every core knows of the cluster from the start.
pub(crate) struct Membership {
    /// Who founded it, and who belonged to it when this node came.
    pub(crate) card: ClusterCard,
    /// Where this node listens to its peers.
    pub(crate) rpc_address: String,
    /// Which process of the node this is.
    pub(crate) process_id: u64,
    rate: RecoveryRate,
}

impl Membership {
    /// Obeys the settings as they are now.
    pub(crate) fn settings_changed(&self, broker: &BrokerConfig, now: Instant) {
        self.rate.set(rate_of(broker), now);
    }

    /// The replicas that founded the controller's log.
    pub(crate) fn founders(&self) -> Vec<ReplicaId> {
        self.card.founders.iter().map(|founder| keeper(founder.node, founder.directory_id)).collect()
    }
}

/// What catching up may take, in bytes a second, as these settings say.
fn rate_of(broker: &BrokerConfig) -> u64 {
    broker.recovery_bytes_per_s.unwrap_or(RECOVERY_BYTES_PER_S)
}

/// A node that belongs to a cluster, on its first core, before its other cores are up.
pub(super) struct Joined {
    pub(super) membership: Arc<Membership>,
    pub(super) directory_id: TopicId,
    peers: Peers,
    door: Rc<Door>,
    discovery: Discovery,
}

/// Takes in peers' messages from the moment the node listens; what they say is answered once the core is there.
#[derive(Default)]
struct Door {
    service: RefCell<Option<BrokerService>>,
}

impl PeerService for Door {
    fn serve(&self, from: &PeerIdentity, service: u8, message: PeerMessage) -> LocalBoxFuture<ServeResult> {
        match &*self.service.borrow() {
            Some(broker) => broker.serve(from, service, message),
            None => Box::pin(std::future::ready(Err("this node is starting".to_owned()))),
        }
    }
}

fn peers_config(config: &NodeConfig, cores: u16) -> PeersConfig {
    let bytes = usize::try_from(config.peer_memory_bytes(cores)).unwrap_or(usize::MAX);
    PeersConfig::default().within(bytes)
}

fn card_path(config: &NodeConfig) -> PathBuf {
    config.data_dir.join(CARD_FILE)
}

/// The card in the directory, if it belongs to a cluster of several.
async fn read_card(runtime: &Runtime, config: &NodeConfig) -> Result<Option<ClusterCard>, StartError> {
    let path = card_path(config);
    match runtime.disk.read(&path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StartError(format!("{} cannot be read: {error}", path.display()))),
        Ok(bytes) => match ClusterCard::decode_text(&String::from_utf8_lossy(&bytes)) {
            Ok(card) => Ok(Some(card)),
            Err((line, expected)) => Err(StartError(format!(
                "{} is damaged: expected {expected} in line {line}; restore the file from another member of the cluster",
                path.display()
            ))),
        },
    }
}

async fn write_card(runtime: &Runtime, config: &NodeConfig, card: &ClusterCard) -> Result<(), StartError> {
    let path = card_path(config);
    let written = runtime.disk.write_atomic(&path, card.encode_text().into()).await;
    written.map_err(|error| {
        super::unwritable(&config.data_dir, &error)
            .unwrap_or_else(|| StartError(format!("{} cannot be written: {error}", path.display())))
    })
}

/// The card of a node that was alone and lets others join: it has founded its cluster. Where its seeds do not begin with
/// itself, or belong elsewhere, somebody meant something else.
async fn open_to_others(
    config: &NodeConfig,
    found: &MetaProperties,
    peers: &Peers,
    rpc_address: &str,
) -> Result<ClusterCard, StartError> {
    let dir = config.data_dir.display();
    let MetaProperties { cluster_id, node_id, directory_id } = found;
    if config.seeds.first().is_none_or(|first| first != rpc_address) {
        return Err(StartError(format!(
            "data directory {dir} belongs to cluster {cluster_id}, whose only node this is; for others to join it, its own \
             --rpc-listener, {rpc_address}, stands first in its --seeds; for it to join others, give it an empty directory \
             with --data-dir"
        )));
    }
    if let Some(words) = foreign_seeds(peers, cluster_id, &config.seeds).await.into_iter().next() {
        return Err(StartError(words));
    }
    let founder =
        Founder { node: *node_id, directory_id: *directory_id, rpc_address: rpc_address.to_owned() };
    Ok(ClusterCard {
        cluster_id: cluster_id.clone(),
        members: vec![(founder.node, founder.rpc_address.clone())],
        founders: vec![founder],
    })
}

/// Which directory this is, of a node that belongs to nobody yet: kept before any other node is told. Others found a cluster
/// by the names they were told, and a founder that was stopped before it heard of that comes back as who it was.
async fn newborn_id(runtime: &Runtime, config: &NodeConfig) -> Result<TopicId, StartError> {
    let path = config.data_dir.join(NEWBORN_FILE);
    let damaged = |found: &str| {
        StartError(format!(
            "{}: {found:?} is no directory id; remove the file if this node is new",
            path.display()
        ))
    };
    match runtime.disk.read(&path).await {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            text.trim().parse().map_err(|_| damaged(&text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let drawn = TopicId(runtime.entropy.uuid());
            let written = runtime.disk.write_atomic(&path, format!("{drawn}\n").into_bytes().into()).await;
            written.map(|()| drawn).map_err(|error| {
                super::unwritable(&config.data_dir, &error)
                    .unwrap_or_else(|| StartError(format!("{} cannot be written: {error}", path.display())))
            })
        }
        Err(error) => Err(StartError(format!("{} cannot be read: {error}", path.display()))),
    }
}

/// Looks again what a newborn waits for this often, for whoever asks why it does not serve.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Finds or founds the cluster, and says all the while what it waits for.
async fn form(runtime: &Runtime, discovery: &Discovery, handle: &NodeHandle) -> Formed {
    let telling = async {
        loop {
            handle.wait_for(discovery.waits_for());
            runtime.clock.sleep(LOOK_INTERVAL).await;
        }
    };
    tokio::select! {
        biased;
        formed = discovery.form() => formed,
        () = telling => unreachable!("it tells for ever"),
    }
}

/// Finds or founds the cluster of a node that is not alone. `found` says whose the directory is, if it is anybody's.
pub(super) async fn join(
    runtime: &Runtime,
    config: &NodeConfig,
    found: Option<&MetaProperties>,
    handle: &NodeHandle,
) -> Result<Option<Joined>, StartError> {
    let card = read_card(runtime, config).await?;
    if config.seeds.is_empty() && card.is_none() {
        return Ok(None);
    }
    let directory_id = found.map(|found| found.directory_id);
    let listener = runtime.net.listen(&config.rpc_listener).await.map_err(|error| {
        StartError(format!(
            "cannot listen on {} for other nodes: {error}; choose another address with --rpc-listener",
            config.rpc_listener
        ))
    })?;
    let bound = listener.local_addr().map_err(|error| {
        StartError(format!("cannot tell the address of {}: {error}", config.rpc_listener))
    })?;
    // As it was written, so that it is found in the list of seeds; but for a port that was picked.
    let rpc_address = match config.rpc_listener.rsplit_once(':') {
        Some((host, "0")) => format!("{host}:{}", bound.port()),
        _ => config.rpc_listener.clone(),
    };
    // Never the card's word for it: there a founder whose disk was wiped is who it was before.
    let directory_id = match directory_id {
        Some(known) => known,
        None => newborn_id(runtime, config).await?,
    };
    let process_id = runtime.entropy.u64();
    let rate = RecoveryRate::new(rate_of(&config.broker), runtime.clock.now());
    let identity = NodeIdentity {
        cluster_id: card.as_ref().map(|card| card.cluster_id.clone()),
        node: config.node_id,
        directory_id,
        process_id,
        rpc_address: rpc_address.clone(),
    };
    let peers_config = peers_config(config, runtime.core_count);
    let peers = Peers::new(runtime.clone(), identity, peers_config, rate.clone());
    let door = Rc::new(Door::default());
    let place = {
        let cores = handle.shared.cores.clone();
        Rc::new(move |admitted: Admitted| {
            let to = CoreId(admitted.from().core % cores.count());
            cores.post(to, move |core| {
                if let Some(cluster) = core.cluster() {
                    cluster.peers.serve_admitted(admitted, Rc::new(BrokerService::new(core)));
                }
            });
        })
    };
    peers.serve_spread(listener, door.clone(), place);
    let card = match (card, found) {
        (None, Some(found)) => {
            let card = open_to_others(config, found, &peers, &rpc_address).await?;
            write_card(runtime, config, &card).await?;
            Some(card)
        }
        (card, _) => card,
    };
    if let Some(card) = &card {
        let (peers, own, seeds) = (peers.clone(), card.cluster_id.clone(), config.seeds.clone());
        ouzel_runtime::spawn(async move {
            for foreign in foreign_seeds(&peers, &own, &seeds).await {
                tracing::warn!(foreign, "a seed is none of this cluster");
            }
        });
    }
    let discovery = Discovery::start(runtime.clone(), peers.clone(), config.seeds.clone(), card.clone());
    let card = match card {
        Some(card) => card,
        None => {
            let card = match form(runtime, &discovery, handle).await {
                Formed::Join(card) => card,
                Formed::Found(founders) => ClusterCard {
                    cluster_id: TopicId(runtime.entropy.uuid()).to_string(),
                    members: founders.iter().map(|one| (one.node, one.rpc_address.clone())).collect(),
                    founders,
                },
            };
            write_card(runtime, config, &card).await?;
            discovery.settle(card.clone());
            card
        }
    };
    peers.set_cluster_id(&card.cluster_id);
    tracing::info!(cluster = %card.cluster_id, node = %config.node_id, rpc = %rpc_address, "this node belongs to a cluster");
    let membership = Arc::new(Membership { card, rpc_address, process_id, rate });
    Ok(Some(Joined { membership, directory_id, peers, door, discovery }))
}

impl Joined {
    /// Gives the first core its part.
    pub(super) fn open_first(self, core: &Rc<Core>) {
        self.door.service.replace(Some(BrokerService::new(core)));
        let runtime = core.runtime.clone();
        let gossip = Gossip::start(runtime.clone(), self.peers.clone());
        let weak = Rc::downgrade(core);
        gossip.observe(Rc::new(move |claims| {
            if let Some(core) = weak.upgrade() {
                cluster::spread_claims(&core, claims);
            }
        }));
        let weak = Rc::downgrade(core);
        let observer = Rc::new(move |change| {
            if let Some(core) = weak.upgrade() {
                cluster::spread_change(&core, change);
            }
        });
        let liveness = Liveness::start(runtime, self.peers.clone(), LivenessConfig::default(), observer);
        for (node, _) in others(core, &self.membership) {
            liveness.watch(node);
        }
        let first = First { gossip, liveness, discovery: self.discovery };
        open(core, self.peers, &self.membership, Some(first));
    }
}

/// Gives another core its part.
pub(super) fn open_other(core: &Rc<Core>, membership: &Membership) {
    let identity = NodeIdentity {
        cluster_id: Some(membership.card.cluster_id.clone()),
        node: core.node.config.node_id,
        directory_id: core.node.directory_id,
        process_id: membership.process_id,
        rpc_address: membership.rpc_address.clone(),
    };
    let peers_config = peers_config(&core.node.config, core.runtime.core_count);
    let peers = Peers::new(core.runtime.clone(), identity, peers_config, membership.rate.clone());
    open(core, peers, membership, None);
}

fn open(core: &Rc<Core>, peers: Peers, membership: &Membership, first: Option<First>) {
    for (node, address) in others(core, membership) {
        peers.set_address(node, &address);
    }
    let weak = Rc::downgrade(core);
    let action = Rc::new(move |due| {
        if let Some(core) = weak.upgrade() {
            cluster::act(&core, &due);
        }
    });
    let own = core.node.config.node_id;
    let elector = Elector::start(core.runtime.clone(), own, ElectionConfig::default(), action);
    core.set_cluster(Cluster::new(peers, elector, first));
}

fn others(core: &Core, membership: &Membership) -> Vec<(NodeId, String)> {
    known_from(&membership.card, core.node.config.node_id)
}

/// The other nodes that a card tells of. Its founders too: members are those that have registered, and as long as the cluster
/// forms the controller may be none of them yet. Whoever has left since is forgotten with the first metadata.
fn known_from(card: &ClusterCard, own: NodeId) -> Vec<(NodeId, String)> {
    let founders = card.founders.iter().map(|founder| (founder.node, &founder.rpc_address));
    let mut known: BTreeMap<NodeId, &String> = founders.collect();
    known.extend(card.members.iter().map(|(node, address)| (*node, address)));
    known
        .into_iter()
        .filter(|(node, _)| *node != own)
        .map(|(node, address)| (node, address.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use ouzel_metadata::{Layers, StaticConfig};

    use super::*;

    /// A node joined while one of three founders had registered, and was told of that one alone. The founder said who is the
    /// controller, whose address the joiner did not have, and would have learned only from the controller: it never registered.
    /// (Seed 805 of clusters of five, os.)
    #[test]
    fn a_node_that_joins_while_a_cluster_forms_knows_all_founders() {
        let founder = |node: i32| Founder {
            node: NodeId(node),
            directory_id: TopicId([7; 16]),
            rpc_address: format!("host-{node}:33146"),
        };
        let at = |node: i32, host: &str| (NodeId(node), format!("{host}:33146"));
        let card = ClusterCard {
            cluster_id: "c".to_owned(),
            founders: (1..=3).map(founder).collect(),
            members: vec![at(2, "moved"), at(4, "host-4")],
        };
        let known = [at(1, "host-1"), at(2, "moved"), at(3, "host-3"), at(4, "host-4")];
        assert_eq!(known_from(&card, NodeId(5)), known);
        assert_eq!(known_from(&card, NodeId(1)), known[1..]);
    }

    /// The settings were looked at only when the cluster's metadata were published for the first time: until then a node
    /// sent at 100 MiB a second what its configuration file had limited.
    #[test]
    fn recovery_begins_at_the_configured_rate() {
        let rate = |settings: &[(&str, &str)]| {
            let settings = StaticConfig::from_settings(settings.iter().copied()).unwrap();
            rate_of(&BrokerConfig::resolve(&Layers::of_static(&settings)))
        };
        assert_eq!(rate(&[]), 100 << 20);
        assert_eq!(rate(&[("leader.replication.throttled.rate", "5000000")]), 5_000_000);
        assert_eq!(rate(&[("leader.replication.throttled.rate", "0")]), 0);
    }
}
