//! The cluster at one point of the controller's log.

use std::collections::BTreeMap;
use std::sync::Arc;

use ouzel_model::{NodeId, PartitionIndex, TopicId, TopicIdPartition, TopicName};

use crate::configs::Overrides;
use crate::features::{Features, LevelRange};
use crate::partition::Partition;

/// Everything the controller has decided so far.
///
/// Cloning copies a handful of pointers: the image is published to every core on each change. A map is copied when it is
/// changed while another clone still looks at it, so a batch of records costs one copy, and replay at start costs none.
///
/// # Invariants
/// [`Image::apply`](crate::delta) is the only writer and refuses a record that would break one of these:
/// * names and ids of topics are a bijection;
/// * a partition has at least one replica, all it has are on registered brokers, and at most one on each;
/// * what is being added is some of the replicas, what is being removed is none of them;
/// * a partition's next incarnation is above those of all its replicas, and never falls.
///
/// Who leads a partition, in which epoch, and who is in sync is not here: the replicas elect among themselves, and tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub(crate) cluster_id: Option<Arc<str>>,
    pub(crate) brokers: Arc<BTreeMap<NodeId, Arc<Broker>>>,
    pub(crate) topics: Arc<BTreeMap<TopicName, Arc<Topic>>>,
    pub(crate) topic_names: Arc<BTreeMap<TopicId, TopicName>>,
    pub(crate) broker_configs: Arc<BTreeMap<BrokerScope, Overrides>>,
    pub(crate) next_producer_id: i64,
    pub(crate) controller: Option<Arc<Partition>>,
    pub(crate) features: Arc<Features>,
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

    /// The brokers that serve now, by node id: registered and not fenced.
    pub fn live_brokers(&self) -> impl Iterator<Item = &Arc<Broker>> {
        self.brokers.values().filter(|broker| !broker.fenced)
    }

    /// Whether a broker serves now.
    pub fn is_live(&self, node: NodeId) -> bool {
        self.broker(node).is_some_and(|broker| !broker.fenced)
    }

    /// Who keeps the controller's own log: a partition like others, but of no topic. `None` in what a release without
    /// clusters wrote: then the only broker there is.
    pub fn controller(&self) -> Option<&Partition> {
        self.controller.as_deref()
    }

    /// The levels the cluster has agreed on.
    pub fn features(&self) -> &Features {
        &self.features
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

    /// One partition, of whatever topic.
    pub fn partition(&self, at: TopicIdPartition) -> Option<&Partition> {
        self.topic_by_id(at.topic_id)?.partition(at.partition)
    }

    /// All partitions of all topics.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicIdPartition, &Partition)> {
        self.topics().flat_map(|topic| {
            let at = |partition| TopicIdPartition { topic_id: topic.id, partition };
            topic.indexed_partitions().map(move |(index, partition)| (at(index), partition))
        })
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
    /// The data directory it runs on, which carries its replicas' promises; zero if it was registered by a release that
    /// did not tell.
    pub directory_id: TopicId,
    /// Where the other brokers reach it, `HOST:PORT`; empty if it is to be alone.
    pub rpc_address: String,
    /// Whether it is taken for dead: it leads nothing, gets nothing, and clients are not sent to it.
    pub fenced: bool,
    /// What it can do, by feature.
    pub features: BTreeMap<String, LevelRange>,
}

impl Broker {
    /// A broker that tells nothing but who it is and which directory it runs on.
    pub fn new(node: NodeId, incarnation: [u8; 16], directory_id: TopicId) -> Broker {
        Broker {
            node,
            incarnation,
            endpoints: Vec::new(),
            rack: None,
            directory_id,
            rpc_address: String::new(),
            fenced: false,
            features: BTreeMap::new(),
        }
    }

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
