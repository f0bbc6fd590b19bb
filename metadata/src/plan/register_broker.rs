//! A broker comes up: new, back, or back on another disk.

use ouzel_model::{NodeId, PartitionIndex, TopicId, TopicName};

use crate::features::{self, Features};
use crate::image::{Broker, Image};
use crate::keepers::keeper;
use crate::partition::Partition;
use crate::record::Record;

/// A broker that may serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The decision.
    pub records: Vec<Record>,
    /// What its lost disk cost; empty if it brought the disk it had.
    pub damage: Vec<Damage>,
}

/// What a lost disk cost a partition beyond a copy of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The topic; `None` for the controller's own log.
    pub topic: Option<TopicName>,
    /// Which of its partitions.
    pub index: PartitionIndex,
    /// Members that still have their disk.
    pub left: usize,
    /// Members there were.
    pub members: usize,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.topic {
            Some(topic) => write!(f, "partition {topic}-{}", self.index)?,
            None => f.write_str("the controller's log")?,
        }
        let Damage { left, members, .. } = self;
        match (left, members) {
            (0, 1) => f.write_str(
                " had its only replica on the lost disk: its records are gone; it stays offline until the topic is deleted, \
                 or an unclean election makes it writable and empty",
            ),
            (0, _) => write!(
                f,
                " had {members} replicas, all on disks that are lost: its records are gone; it stays offline until the \
                 topic is deleted, or an unclean election makes it writable and empty"
            ),
            _ => write!(
                f,
                " has {left} of {members} replicas left, which is no majority: it stays offline until an unclean election \
                 makes do with what is left of it"
            ),
        }
    }
}

/// Why a broker may not serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterBrokerError {
    /// Another broker has its number.
    #[error(
        "node id {node} belongs to the broker at {address}, which is alive and has another data directory; give this one \
         another --node-id"
    )]
    NodeIdTaken {
        /// The number.
        node: NodeId,
        /// Where the other one is.
        address: String,
    },
    /// A copy of the directory is in use.
    #[error(
        "node id {node} belongs to the broker at {address}, which is alive and has the same data directory id; this data \
         directory is a copy: start with an empty one and another --node-id"
    )]
    DirectoryCopied {
        /// The number.
        node: NodeId,
        /// Where the other one is.
        address: String,
    },
    /// The chance of one in four billion: see [`keeper`].
    #[error(
        "the data directory id {directory_id} cannot be told from that of node {node}'s directory before; start it with \
         another empty directory"
    )]
    DirectoryAlike {
        /// The number.
        node: NodeId,
        /// The new directory.
        directory_id: TopicId,
    },
    /// The cluster has agreed to use what the broker does not know.
    #[error(
        "this cluster uses {feature} at level {level}, and this release of the broker knows levels {known}; run a release \
         that knows it"
    )]
    FeatureUnknown {
        /// The feature.
        feature: String,
        /// The cluster's level.
        level: i16,
        /// What the broker knows: a range, or "none".
        known: String,
    },
}

/// Decides whether a broker may serve. `is_alive`: the process that registered last under its number still answers.
///
/// On another directory than before it has lost whatever it held: every replica of it starts anew, as somebody nobody
/// relies on, and what that costs is told in [`Damage`].
///
/// # Errors
/// See [`RegisterBrokerError`].
pub fn plan_register_broker(
    image: &Image,
    broker: &Broker,
    is_alive: bool,
) -> Result<Admission, RegisterBrokerError> {
    check_features(image, broker)?;
    let mut admission = Admission { records: Vec::new(), damage: Vec::new() };
    let known = image.broker(broker.node);
    if let Some(known) = known {
        let node = broker.node;
        let address = || address_of(known);
        // A release that did not tell its directory had no other to tell.
        let same_directory = known.directory_id == broker.directory_id || known.directory_id.is_zero();
        let another_process = known.incarnation != broker.incarnation;
        // Whoever has the address of the one before has taken its place: a node that died, was wiped and is back may be
        // here before anybody has noticed that it died.
        let is_elsewhere = is_alive && address_of(broker) != address();
        if !same_directory && is_elsewhere {
            return Err(RegisterBrokerError::NodeIdTaken { node, address: address() });
        }
        if same_directory && is_elsewhere && another_process {
            return Err(RegisterBrokerError::DirectoryCopied { node, address: address() });
        }
        if !same_directory {
            if keeper(node, known.directory_id) == keeper(node, broker.directory_id) {
                return Err(RegisterBrokerError::DirectoryAlike { node, directory_id: broker.directory_id });
            }
            lose_disk(image, broker, &mut admission);
        }
    }
    admission.records.insert(0, Record::BrokerRegistered(Broker { fenced: false, ..broker.clone() }));
    if *image.features() == Features::default() {
        admission.records.push(Record::FeaturesSet(first_features(broker)));
    }
    Ok(admission)
}

/// Decides that one replica starts anew whose files are gone though its directory is there: somebody deleted them.
/// `None` if the node has no such replica any more.
pub fn plan_replica_lost(
    image: &Image,
    at: ouzel_model::TopicIdPartition,
    replica: ouzel_model::ReplicaId,
) -> Option<Admission> {
    let topic = image.topic_by_id(at.topic_id)?;
    let partition = topic.partition(at.partition)?;
    if partition.replica_on(replica.node) != Some(replica) {
        return None;
    }
    let reborn = partition.without_disk_of(replica.node);
    let damage = damage(Some(topic.name.clone()), at.partition, partition, &reborn).into_iter().collect();
    let record = Record::PartitionChanged { topic_id: at.topic_id, index: at.partition, partition: reborn };
    Some(Admission { records: vec![record], damage })
}

fn address_of(broker: &Broker) -> String {
    let endpoint = || broker.endpoints.first().map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port));
    match broker.rpc_address.as_str() {
        "" => endpoint().unwrap_or_else(|| "an unknown address".to_owned()),
        address => address.to_owned(),
    }
}

fn check_features(image: &Image, broker: &Broker) -> Result<(), RegisterBrokerError> {
    for (feature, level) in &image.features().levels {
        let known = broker.features.get(feature);
        if !known.is_some_and(|known| known.contains(*level)) {
            return Err(RegisterBrokerError::FeatureUnknown {
                feature: feature.clone(),
                level: *level,
                known: known.map_or_else(|| "none".to_owned(), ToString::to_string),
            });
        }
    }
    Ok(())
}

/// A new cluster uses all its first broker knows.
fn first_features(broker: &Broker) -> Features {
    let levels = features::SUPPORTED
        .iter()
        .filter_map(|(name, _)| broker.features.get(*name).map(|known| ((*name).to_owned(), known.max)));
    Features { epoch: 0, levels: levels.collect() }
}

fn lose_disk(image: &Image, broker: &Broker, admission: &mut Admission) {
    let node = broker.node;
    for topic in image.topics() {
        for (index, partition) in topic.indexed_partitions() {
            if partition.replica_on(node).is_none() {
                continue;
            }
            let reborn = partition.without_disk_of(node);
            admission.damage.extend(damage(Some(topic.name.clone()), index, partition, &reborn));
            let topic_id = topic.id;
            admission.records.push(Record::PartitionChanged { topic_id, index, partition: reborn });
        }
    }
    if let Some(controller) = image.controller().filter(|controller| controller.replica_on(node).is_some()) {
        let reborn = controller.with_reborn(keeper(node, broker.directory_id));
        admission.damage.extend(damage(None, PartitionIndex(0), controller, &reborn));
        admission.records.push(Record::ControllerChanged { controller: reborn });
    }
}

fn damage(
    topic: Option<TopicName>,
    index: PartitionIndex,
    before: &Partition,
    after: &Partition,
) -> Option<Damage> {
    let (left, members) = (after.members_before().len(), before.nodes_before().len());
    // What was no member before is no loss.
    let lost = before.members_before().len() > left;
    (lost && left < members / 2 + 1).then_some(Damage { topic, index, left, members })
}
