//! What a node is started with.

use std::path::PathBuf;
use std::time::Duration;

use ouzel_coordinator::Config as GroupsConfig;
use ouzel_metadata::{BrokerConfig, Image, Layers, StaticConfig};
use ouzel_model::NodeId;

/// The node's own facts and its static settings; what may change while it runs is read through [`NodeConfig::layers`].
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its number in the cluster.
    pub node_id: NodeId,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where clients connect, `HOST:PORT`; port 0 takes a free one.
    pub kafka_listener: String,
    /// Where clients are told to connect; the listener's own address if not given.
    pub advertised: Option<(String, u16)>,
    /// Where the other nodes of the cluster connect, `HOST:PORT`, and what they are told; port 0 takes a free one.
    pub rpc_listener: String,
    /// The rpc addresses of the nodes that found the cluster, `HOST:PORT` each; none for a cluster of one. A node whose
    /// own address is not among them joins the cluster they made.
    pub seeds: Vec<String>,
    /// Bytes for requests, responses and the tail cache together.
    pub memory_bytes: u64,
    /// Settings by Kafka's keys.
    pub settings: StaticConfig,
    /// The same, typed.
    pub broker: BrokerConfig,
}

/// Room the broker leaves on the disk for its own small files, and for whoever comes to help.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// The tail cache's share, per core, of a large enough `--memory`.
const TAIL_CACHE_BYTES: u64 = 32 << 20;

impl NodeConfig {
    /// The settings as they hold on this node under an image.
    pub fn layers<'a>(&'a self, image: &'a Image) -> Layers<'a> {
        Layers::new(image, self.node_id, &self.settings)
    }

    /// Below this many free bytes on the disk appends are refused; reads go on.
    pub fn free_bytes_min(&self) -> u64 {
        FREE_BYTES_MIN
    }

    /// Largest request.
    pub fn request_bytes_max(&self) -> usize {
        self.broker.socket_request_max_bytes as usize
    }

    /// How long a connection may be silent.
    pub fn connection_idle_max(&self) -> Duration {
        // A year stands for never: timers take no larger numbers gladly.
        self.broker.connections_max_idle_ms.map_or(Duration::from_secs(365 * 86_400), Duration::from_millis)
    }

    /// Largest answer to a fetch.
    pub fn fetch_bytes_max(&self) -> usize {
        self.broker.fetch_max_bytes as usize
    }

    /// Fetch sessions one core remembers.
    pub fn fetch_sessions_max(&self, cores: u16) -> usize {
        (self.broker.fetch_session_slots as usize).div_ceil(usize::from(cores))
    }

    /// Partitions of the offsets topic, when it is created.
    pub fn offsets_partitions(&self) -> i32 {
        self.broker.offsets.topic_partitions
    }

    /// Bytes of the tail cache of one core: at most a quarter of the memory.
    pub fn tail_cache_bytes(&self, cores: u16) -> u64 {
        TAIL_CACHE_BYTES.min(self.memory_bytes / 4 / u64::from(cores))
    }

    /// Bytes of requests one core may hold: half of the memory.
    pub fn request_memory_bytes(&self, cores: u16) -> u64 {
        self.memory_bytes / 2 / u64::from(cores)
    }

    /// Bytes of other nodes' messages one core may hold: an eighth of the memory. Less for small nodes only: what peers may
    /// hold by themselves is the limit of a large one.
    pub fn peer_memory_bytes(&self, cores: u16) -> u64 {
        self.memory_bytes / 8 / u64::from(cores)
    }

    /// What the groups obey.
    pub fn group_config(&self) -> GroupsConfig {
        let (groups, offsets) = (&self.broker.groups, &self.broker.offsets);
        let clamp = |ms: u32| i32::try_from(ms).unwrap_or(i32::MAX);
        GroupsConfig {
            session_timeout_ms_min: clamp(groups.min_session_timeout_ms),
            session_timeout_ms_max: clamp(groups.max_session_timeout_ms),
            members_max: groups.max_size as usize,
            initial_rebalance_delay_ms: clamp(groups.initial_rebalance_delay_ms),
            offset_metadata_units_max: offsets.metadata_max_bytes as usize,
            offsets_retention_ms: i64::try_from(offsets.retention_ms).unwrap_or(i64::MAX),
            ..GroupsConfig::default()
        }
    }
}
