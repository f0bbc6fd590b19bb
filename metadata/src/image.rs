//! The cluster at one point of the controller's log.

use std::collections::BTreeMap;
use std::sync::Arc;

use ouzel_model::{LeaderEpoch, NodeId, PartitionIndex, TopicId, TopicName};

use crate::configs::Overrides;

/// Everything the controller has decided so far.
///
/// Cloning copies a handful of pointers: the image is published to every core on each change. A map is copied when it is
/// changed while another clone still looks at it, so a batch of records costs one copy, and replay at start costs none.
///
/// # Invariants
/// [`Image::apply`](crate::delta) is the only writer and refuses a record that would break one of these:
/// * names and ids of topics are a bijection;
/// * a partition's replicas are registered brokers, without repetition, and at least one;
/// * the in-sync replicas are some of the replicas, and the leader, if any, is one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub(crate) cluster_id: Option<Arc<str>>,
    pub(crate) brokers: Arc<BTreeMap<NodeId, Arc<Broker>>>,
    pub(crate) topics: Arc<BTreeMap<TopicName, Arc<Topic>>>,
    pub(crate) topic_names: Arc<BTreeMap<TopicId, TopicName>>,
    pub(crate) broker_configs: Arc<BTreeMap<BrokerScope, Overrides>>,
    pub(crate) next_producer_id: i64,
}

impl Image {
    /// The cluster's name, once it has one.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// All registered brokers, by node id.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &Arc<Broker>> {
        self.brokers.values()
    }

    /// One broker.
    pub fn broker(&self, node: NodeId) -> Option<&Arc<Broker>> {
        self.brokers.get(&node)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// The topic of this name. Takes a plain text, because requests name topics that need not be legal.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The topic with this id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(self.topic_names.get(&id)?)
    }

    /// Number of partitions of all topics together.
    pub fn partition_count(&self) -> usize {
        self.topics.values().map(|topic| topic.partitions.len()).sum()
    }

    /// The dynamic settings of one broker, or of all of them.
    pub fn broker_overrides(&self, scope: BrokerScope) -> &Overrides {
        static NONE: Overrides = Overrides::new();
        self.broker_configs.get(&scope).unwrap_or(&NONE)
    }

    /// The first producer id that no block has taken.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name, unique among the topics that exist.
    pub name: TopicName,
    /// Its id, unique among all topics that ever existed.
    pub id: TopicId,
    /// Its partitions; the position is the partition's index.
    pub partitions: Vec<Partition>,
    /// The settings made on the topic itself, as written by their author. Effective values are
    /// [`TopicConfig`](crate::TopicConfig)'s business.
    pub configs: Overrides,
}

impl Topic {
    /// One partition.
    pub fn partition(&self, index: PartitionIndex) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }

    /// The partitions with their indexes.
    pub fn indexed_partitions(&self) -> impl Iterator<Item = (PartitionIndex, &Partition)> {
        (0..).map(PartitionIndex).zip(&self.partitions)
    }

    /// Replicas of the first partition: what Kafka's tools show as the topic's replication factor.
    pub fn replication_factor(&self) -> i16 {
        self.partitions.first().map_or(0, |partition| partition.replicas.len() as i16)
    }
}

/// One partition as the controller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// Those of them that were caught up when last recorded.
    pub isr: Vec<NodeId>,
    /// The broker that may write, if there is one.
    pub leader: Option<NodeId>,
    /// The reign of the leader when last recorded. A partition with a single replica raises its epoch by itself each time
    /// its log is opened, so the log may be ahead of this value, never behind.
    pub leader_epoch: LeaderEpoch,
}

impl Partition {
    /// A partition nobody has written yet: all replicas are in sync, the first leads in epoch 0.
    pub fn new(replicas: Vec<NodeId>) -> Partition {
        Partition {
            isr: replicas.clone(),
            leader: replicas.first().copied(),
            leader_epoch: LeaderEpoch(0),
            replicas,
        }
    }
}

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its number.
    pub node: NodeId,
    /// Drawn anew by every process: two processes that claim one number are told apart.
    pub incarnation: [u8; 16],
    /// Where clients reach it, per listener.
    pub endpoints: Vec<Endpoint>,
    /// Its rack, if it told.
    pub rack: Option<String>,
}

impl Broker {
    /// The address advertised on a listener.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.listener == listener)
    }
}

/// An advertised address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name, `PLAINTEXT` by default.
    pub listener: String,
    /// Host as clients should resolve it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What is spoken there.
    pub security: SecurityProtocol,
}

/// What protects a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecurityProtocol {
    /// Nothing.
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL without TLS.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

/// Whose dynamic broker settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BrokerScope {
    /// Every broker's, unless it has its own: the broker resource with the empty name.
    ClusterDefault,
    /// One broker's.
    Broker(NodeId),
}
