//! The settings of a broker: what it was started with, and what holds while it runs.

use std::path::PathBuf;

use ouzel_model::NodeId;

use super::Overrides;
use super::broker_table::{BROKER_CONFIGS, broker_config};
use super::definition::Effect;
use super::layers::{Layers, suggest};
use super::topic_table::topic_config;
use super::value::{InvalidValue, Value};

/// The settings a broker was started with, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticConfig {
    settings: Overrides,
}

/// Why a broker cannot start with a setting. One sentence says what is wrong, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No such key.
    #[error("there is no setting '{key}'{}", suggestion.map(|known| format!("; did you mean '{known}'?")).unwrap_or_default())]
    UnknownKey {
        /// The key as given.
        key: String,
        /// What was probably meant.
        suggestion: Option<&'static str>,
    },
    /// A topic's key, given to a broker.
    #[error("'{key}' is a setting of a topic; {}", broker_key.map_or_else(
        || "set it on the topic".to_owned(),
        |name| format!("the default for all topics is '{name}'")))]
    TopicKey {
        /// The key.
        key: &'static str,
        /// The broker's key for its default.
        broker_key: Option<&'static str>,
    },
    /// The key shows what a flag decided.
    #[error("'{key}' is decided by the flag {flag}; use that instead")]
    DecidedByFlag {
        /// The key.
        key: &'static str,
        /// The flag.
        flag: &'static str,
    },
    /// A value the key does not take.
    #[error("setting '{}' cannot be '{}': {}", .0.key, .0.value, lowercase_start(&.0.fault))]
    InvalidValue(
        /// Which, and why.
        InvalidValue,
    ),
    /// Two settings that contradict each other.
    #[error("'{low_key}' ({low}) must not be above '{high_key}' ({high})")]
    Contradiction {
        /// The key of the lower bound.
        low_key: &'static str,
        /// Its value.
        low: i64,
        /// The key of the upper bound.
        high_key: &'static str,
        /// Its value.
        high: i64,
    },
}

fn lowercase_start(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// What the flags of the program decided and the broker's description shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The broker's number.
    pub node: NodeId,
    /// Where it listens: `NAME://HOST:PORT`.
    pub listeners: Vec<String>,
    /// Where it is reached.
    pub advertised_listeners: Vec<String>,
    /// Where its data is.
    pub data_dir: PathBuf,
}

impl StaticConfig {
    /// Checks the settings of a file and of `--set`, in this order: a later one replaces an earlier one of its key.
    ///
    /// # Errors
    /// The first setting that is unknown, malformed or in contradiction to another.
    pub fn from_settings<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<StaticConfig, SettingError> {
        let mut config = StaticConfig::default();
        for (key, value) in pairs {
            config.set(key.as_ref(), value.as_ref())?;
        }
        BrokerConfig::resolve(&Layers::of_static(&config)).check()?;
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), SettingError> {
        let key = key.trim();
        let def = broker_config(key).ok_or_else(|| unknown(key))?;
        if let Effect::Shown(flag) = def.effect {
            return Err(SettingError::DecidedByFlag { key: def.name, flag });
        }
        let value = def.parse(value).map_err(SettingError::InvalidValue)?;
        self.settings.insert(def.name.to_owned(), value.to_string());
        Ok(())
    }

    /// Adds what the flags decided, so that a description of the broker shows it.
    pub fn with_identity(mut self, identity: &Identity) -> StaticConfig {
        let node = identity.node.to_string();
        let data_dir = identity.data_dir.display().to_string();
        for (key, value) in [
            ("node.id", node.clone()),
            ("broker.id", node),
            ("listeners", identity.listeners.join(",")),
            ("advertised.listeners", identity.advertised_listeners.join(",")),
            ("log.dirs", data_dir),
            ("process.roles", "broker,controller".to_owned()),
        ] {
            self.settings.insert(key.to_owned(), value);
        }
        self
    }

    /// All settings, by key.
    pub fn settings(&self) -> &Overrides {
        &self.settings
    }

    /// The settings that are kept and shown but do nothing, each with the reason: worth a line in the log at start.
    pub fn without_effect(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.settings.keys().filter_map(|key| match broker_config(key)?.effect {
            Effect::Nothing(why) if key != "process.roles" => Some((broker_config(key)?.name, why)),
            _ => None,
        })
    }
}

fn unknown(key: &str) -> SettingError {
    match topic_config(key) {
        Some(def) => {
            SettingError::TopicKey { key: def.name, broker_key: def.synonyms.first().map(|s| s.key) }
        }
        None => SettingError::UnknownKey { key: key.to_owned(), suggestion: suggest(BROKER_CONFIGS, key) },
    }
}

/// The default of Kafka's rates.
const NO_RATE: u64 = i64::MAX as u64;

/// The effective settings of one broker, typed: those keys that do something and that no topic overrides.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// Whether asking for an unknown topic creates it.
    pub auto_create_topics: bool,
    /// Whether topics can be deleted.
    pub delete_topics: bool,
    /// Partitions of a new topic, by default.
    pub num_partitions: i32,
    /// Replicas of a new topic's partitions, by default.
    pub default_replication_factor: i16,
    /// The broker's rack.
    pub rack: Option<String>,
    /// How long a follower may have been behind and still be in sync.
    pub replica_lag_time_max_ms: u64,
    /// How much a node sends in a second to replicas that catch up; `None` where nobody has said.
    pub recovery_bytes_per_s: Option<u64>,
    /// Whether a node that stops hands over first what it leads.
    pub hands_over: bool,
    /// Whether leadership goes back to preferred leaders by itself.
    pub rebalances_leaders: bool,
    /// How often it is looked whether preferred leaders lead.
    pub leader_imbalance_check_interval_s: u64,
    /// Largest request.
    pub socket_request_max_bytes: u32,
    /// Close a connection silent for this long; `None` for never.
    pub connections_max_idle_ms: Option<u64>,
    /// Most connections at one time.
    pub max_connections: u32,
    /// Largest answer to a fetch.
    pub fetch_max_bytes: u32,
    /// Fetch sessions remembered.
    pub fetch_session_slots: u32,
    /// Time between retention passes.
    pub retention_check_interval_ms: u64,
    /// How long a silent producer's sequence is remembered.
    pub producer_id_expiration_ms: u64,
    /// Bytes of the controller's records between two of its snapshots.
    pub metadata_snapshot_bytes: u64,
    /// Of log compaction.
    pub cleaner: CleanerConfig,
    /// Of classic groups.
    pub groups: GroupConfig,
    /// Of committed offsets.
    pub offsets: OffsetsConfig,
    /// How files are read and written.
    pub disk_backend: DiskBackendChoice,
    /// How log lines are written.
    pub log_format: LogFormat,
}

/// The settings of log compaction.
#[derive(Clone, Debug, PartialEq)]
pub struct CleanerConfig {
    /// Whether logs are compacted at all.
    pub enable: bool,
    /// Pause when no log is due.
    pub backoff_ms: u64,
    /// Memory for the keys of passes, the whole broker's.
    pub dedupe_buffer_bytes: u64,
    /// How full that may get, 0 to 1.
    pub load_factor: f64,
    /// Bytes for reading and writing; half of them are read at a time.
    pub io_buffer_bytes: u32,
    /// Most bytes read and written in a second, the whole broker's.
    pub bytes_per_second: f64,
}

/// The settings of classic groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// How long the first rebalance of an empty group waits.
    pub initial_rebalance_delay_ms: u32,
    /// Shortest session timeout.
    pub min_session_timeout_ms: u32,
    /// Longest session timeout.
    pub max_session_timeout_ms: u32,
    /// Most members.
    pub max_size: u32,
}

/// The settings of committed offsets and of the topic that holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetsConfig {
    /// Longest metadata text.
    pub metadata_max_bytes: u32,
    /// How long a commit may wait for its replicas.
    pub commit_timeout_ms: u32,
    /// How long offsets of an abandoned group are kept.
    pub retention_ms: u64,
    /// Time between looks for expired offsets.
    pub retention_check_interval_ms: u64,
    /// Partitions of the topic, when it is created.
    pub topic_partitions: i32,
    /// Replicas of the topic, when it is created; fewer if there are fewer brokers.
    pub topic_replication_factor: i16,
    /// Segment size of the topic.
    pub topic_segment_bytes: u32,
}

/// What `ouzel.disk.backend` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskBackendChoice {
    /// The ring where it works, else the pool.
    Auto,
    /// The ring, or no start.
    Uring,
    /// The pool.
    Blocking,
}

/// What `ouzel.log.format` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl BrokerConfig {
    /// What holds in these layers.
    pub fn resolve(layers: &Layers<'_>) -> BrokerConfig {
        let read = Reader { layers };
        BrokerConfig {
            auto_create_topics: read.boolean("auto.create.topics.enable"),
            delete_topics: read.boolean("delete.topic.enable"),
            num_partitions: read.number("num.partitions") as i32,
            default_replication_factor: read.number("default.replication.factor") as i16,
            rack: read.text("broker.rack"),
            replica_lag_time_max_ms: read.long_count("replica.lag.time.max.ms"),
            recovery_bytes_per_s: match read.long_count("leader.replication.throttled.rate") {
                // Kafka's default, which stands for no limit.
                NO_RATE => None,
                rate => Some(rate),
            },
            hands_over: read.boolean("controlled.shutdown.enable"),
            rebalances_leaders: read.boolean("auto.leader.rebalance.enable"),
            leader_imbalance_check_interval_s: read.long_count("leader.imbalance.check.interval.seconds"),
            socket_request_max_bytes: read.count("socket.request.max.bytes"),
            connections_max_idle_ms: u64::try_from(read.number("connections.max.idle.ms")).ok(),
            max_connections: read.count("max.connections"),
            fetch_max_bytes: read.count("fetch.max.bytes"),
            fetch_session_slots: read.count("max.incremental.fetch.session.cache.slots"),
            retention_check_interval_ms: read.long_count("log.retention.check.interval.ms"),
            producer_id_expiration_ms: read.long_count("producer.id.expiration.ms"),
            metadata_snapshot_bytes: read.long_count("metadata.log.max.record.bytes.between.snapshots"),
            cleaner: CleanerConfig {
                enable: read.boolean("log.cleaner.enable"),
                backoff_ms: read.long_count("log.cleaner.backoff.ms"),
                dedupe_buffer_bytes: u64::try_from(read.number("log.cleaner.dedupe.buffer.size"))
                    .unwrap_or(0),
                load_factor: read.decimal("log.cleaner.io.buffer.load.factor"),
                io_buffer_bytes: read.count("log.cleaner.io.buffer.size"),
                bytes_per_second: read.decimal("log.cleaner.io.max.bytes.per.second"),
            },
            groups: GroupConfig {
                initial_rebalance_delay_ms: read.count("group.initial.rebalance.delay.ms"),
                min_session_timeout_ms: read.count("group.min.session.timeout.ms"),
                max_session_timeout_ms: read.count("group.max.session.timeout.ms"),
                max_size: read.count("group.max.size"),
            },
            offsets: OffsetsConfig {
                metadata_max_bytes: read.count("offset.metadata.max.bytes"),
                commit_timeout_ms: read.count("offsets.commit.timeout.ms"),
                retention_ms: read.long_count("offsets.retention.minutes") * 60_000,
                retention_check_interval_ms: read.long_count("offsets.retention.check.interval.ms"),
                topic_partitions: read.number("offsets.topic.num.partitions") as i32,
                topic_replication_factor: read.number("offsets.topic.replication.factor") as i16,
                topic_segment_bytes: read.count("offsets.topic.segment.bytes"),
            },
            disk_backend: match read.text("ouzel.disk.backend").as_deref() {
                Some("uring") => DiskBackendChoice::Uring,
                Some("blocking") => DiskBackendChoice::Blocking,
                _ => DiskBackendChoice::Auto,
            },
            log_format: match read.text("ouzel.log.format").as_deref() {
                Some("json") => LogFormat::Json,
                _ => LogFormat::Text,
            },
        }
    }

    fn check(&self) -> Result<(), SettingError> {
        let (low, high) = (self.groups.min_session_timeout_ms, self.groups.max_session_timeout_ms);
        if low > high {
            return Err(SettingError::Contradiction {
                low_key: "group.min.session.timeout.ms",
                low: low.into(),
                high_key: "group.max.session.timeout.ms",
                high: high.into(),
            });
        }
        Ok(())
    }
}

/// Reads typed values by key. A key that is not in the table, or of another type, is a programmer's error that every
/// test of this file meets.
struct Reader<'a> {
    layers: &'a Layers<'a>,
}

impl Reader<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        let def = broker_config(name).unwrap_or_else(|| panic!("{name} is not a broker key"));
        self.layers.broker_value(def)
    }

    fn number(&self, name: &str) -> i64 {
        self.value(name).unwrap_or_else(|| panic!("{name} has no default")).number()
    }

    fn long_count(&self, name: &str) -> u64 {
        u64::try_from(self.number(name))
            .unwrap_or_else(|_| panic!("the rule of {name} lets negative numbers pass"))
    }

    fn count(&self, name: &str) -> u32 {
        u32::try_from(self.number(name))
            .unwrap_or_else(|_| panic!("the rule of {name} lets negative numbers pass"))
    }

    fn decimal(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Decimal(decimal)) => decimal,
            other => panic!("{name} is {other:?}, not a decimal number"),
        }
    }

    fn boolean(&self, name: &str) -> bool {
        match self.value(name) {
            Some(Value::Boolean(boolean)) => boolean,
            other => panic!("{name} is {other:?}, not a boolean"),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text),
            None => None,
            other => panic!("{name} is {other:?}, not a text"),
        }
    }
}
