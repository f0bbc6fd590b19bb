//! What can be configured: THE table of topic keys and of broker keys, and the values they have.
//!
//! A key is described once, in [`topic_table`] or [`broker_table`]: its type, its default, what values it takes, whether
//! it changes while running, which keys it falls back on, what it does. Everything else here reads the tables: checking a
//! value, resolving the layers (topic, dynamic broker, dynamic default, static, default), answering DescribeConfigs,
//! printing documentation, suggesting the key somebody meant.
//!
//! Reading order: [`definition`], [`value`], [`topic_table`], [`broker_table`], [`layers`], [`topic`], [`broker`].

pub mod broker;
pub mod broker_table;
pub mod definition;
pub mod layers;
mod nearest;
pub mod topic;
pub mod topic_table;
pub mod value;
mod vocabulary;

use std::collections::BTreeMap;

pub use broker::{BrokerConfig, SettingError, StaticConfig};
pub use broker_table::BROKER_CONFIGS;
pub use definition::{ConfigDef, ConfigType, Effect, Mutability, Rule, Synonym, Unit};
pub use layers::{
    ConfigEntry, ConfigSource, Layers, SynonymEntry, describe_broker, describe_cluster_default,
    describe_topic,
};
pub use topic::{CleanupPolicy, CompressionType, Durability, TimestampType, TopicConfig};
pub use topic_table::TOPIC_CONFIGS;
pub use value::{InvalidValue, Value};

/// Settings as their author wrote them, by key.
pub type Overrides = BTreeMap<String, String>;
