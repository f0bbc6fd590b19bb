//! Changing settings while running, key by key (KIP-339).

use std::collections::{BTreeMap, BTreeSet};

use ouzel_model::NodeId;

use crate::configs::broker_table::broker_config;
use crate::configs::layers::suggest;
use crate::configs::topic_table::topic_config;
use crate::configs::value::split_list;
use crate::configs::{
    BROKER_CONFIGS, ConfigDef, ConfigType, Effect, InvalidValue, Layers, Mutability, Overrides,
    TOPIC_CONFIGS, TopicConfig, Value,
};
use crate::image::{BrokerScope, Image};
use crate::record::{ConfigResource, Record};

/// What a request does to one resource: all of it, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigAlteration {
    /// Whose settings.
    pub resource: ResourceName,
    /// What happens to which key.
    pub keys: Vec<KeyAlteration>,
}

/// Whose settings, by what a request calls it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceName {
    /// A topic's, by name; it need not be legal.
    Topic(String),
    /// A broker's, by the digits of its node id; the empty name stands for all brokers.
    Broker(String),
}

/// What happens to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyAlteration {
    /// The key.
    pub key: String,
    /// What is done.
    pub op: AlterOp,
    /// With what; not looked at to delete.
    pub value: Option<String>,
}

/// What can be done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlterOp {
    /// It gets this value.
    Set,
    /// It falls back to its default.
    Delete,
    /// A list gets these items, unless it has them.
    Append,
    /// A list loses these items.
    Subtract,
}

/// Why a resource keeps its settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterConfigsError {
    /// One resource more than once in a request.
    #[error("Each resource must appear at most once.")]
    DuplicateResource,
    /// One key more than once for a resource.
    #[error("Error due to duplicate config keys")]
    DuplicateKey {
        /// Which.
        key: String,
    },
    /// No such topic.
    #[error("The topic '{name}' does not exist.")]
    UnknownTopic {
        /// The name.
        name: String,
    },
    /// Not a node id, or nobody's.
    #[error("No broker has the node id '{name}'.")]
    UnknownBroker {
        /// The name.
        name: String,
    },
    /// A value is needed and was not given.
    #[error("Null value not supported for : {key}")]
    NullValue {
        /// The key.
        key: String,
    },
    /// No such key.
    #[error("Unknown {kind} config name: {key}{}", suggestion.map(|known| format!("; did you mean {known}?")).unwrap_or_default())]
    UnknownKey {
        /// `topic` or `broker`.
        kind: &'static str,
        /// The key.
        key: String,
        /// What was probably meant.
        suggestion: Option<&'static str>,
    },
    /// Only lists grow and shrink.
    #[error("Can't {op} to key {key} because its type is not LIST.")]
    NotAList {
        /// What was to be done, as Kafka spells it.
        op: &'static str,
        /// The key.
        key: &'static str,
    },
    /// The key changes with a restart only.
    #[error("Cannot update these configs dynamically: [{key}]")]
    ReadOnly {
        /// The key.
        key: &'static str,
    },
    /// The key cannot have one value for all brokers.
    #[error("Cannot update these configs at default cluster level, broker id must be specified: [{key}]")]
    PerBrokerOnly {
        /// The key.
        key: &'static str,
    },
    /// A value its key does not take.
    #[error(transparent)]
    InvalidValue(#[from] InvalidValue),
    /// Two settings contradict each other.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

/// Two settings of a topic that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("conflict topic config setting {low_key} ({low}) > {high_key} ({high})")]
pub struct Contradiction {
    /// The key of the lower bound.
    pub low_key: &'static str,
    /// Its value.
    pub low: i64,
    /// The key of the upper bound.
    pub high_key: &'static str,
    /// Its value.
    pub high: i64,
}

/// Decides one request; the answers stand in its order, and a resource that is refused does not hold up the others.
///
/// A value that is set already, and a key that is deleted but was not set, need no record.
pub fn plan_alter_configs(
    image: &Image,
    layers: &Layers<'_>,
    alterations: &[ConfigAlteration],
) -> Vec<Result<Vec<Record>, AlterConfigsError>> {
    let mut times_named: BTreeMap<&ResourceName, usize> = BTreeMap::new();
    for alteration in alterations {
        *times_named.entry(&alteration.resource).or_default() += 1;
    }
    let decide = |alteration: &ConfigAlteration| {
        if times_named[&alteration.resource] > 1 {
            return Err(AlterConfigsError::DuplicateResource);
        }
        let mut seen = BTreeSet::new();
        if let Some(repeated) = alteration.keys.iter().find(|alteration| !seen.insert(&alteration.key)) {
            return Err(AlterConfigsError::DuplicateKey { key: repeated.key.clone() });
        }
        match &alteration.resource {
            ResourceName::Topic(name) => alter_topic(image, layers, name, &alteration.keys),
            ResourceName::Broker(name) => alter_broker(image, name, &alteration.keys),
        }
    };
    alterations.iter().map(decide).collect()
}

fn alter_topic(
    image: &Image,
    layers: &Layers<'_>,
    name: &str,
    keys: &[KeyAlteration],
) -> Result<Vec<Record>, AlterConfigsError> {
    let topic = image.topic(name).ok_or_else(|| AlterConfigsError::UnknownTopic { name: name.to_owned() })?;
    let table = Table { kind: "topic", defs: TOPIC_CONFIGS, find: topic_config };
    let altered = alter(&topic.configs, keys, table)?;
    check_topic_settings(&altered, layers)?;
    Ok(differences(ConfigResource::Topic(topic.id), &topic.configs, &altered))
}

fn alter_broker(image: &Image, name: &str, keys: &[KeyAlteration]) -> Result<Vec<Record>, AlterConfigsError> {
    let unknown = || AlterConfigsError::UnknownBroker { name: name.to_owned() };
    let scope = match name {
        "" => BrokerScope::ClusterDefault,
        digits => {
            let node = NodeId(digits.parse().map_err(|_| unknown())?);
            BrokerScope::Broker(image.broker(node).ok_or_else(unknown)?.node)
        }
    };
    for def in keys.iter().filter_map(|alteration| broker_config(&alteration.key)) {
        match def.mutability {
            // What a flag decided is not a setting, though Kafka could change some of it while running.
            _ if matches!(def.effect, Effect::Shown(_)) => {
                return Err(AlterConfigsError::ReadOnly { key: def.name });
            }
            Mutability::ReadOnly => return Err(AlterConfigsError::ReadOnly { key: def.name }),
            Mutability::PerBroker if scope == BrokerScope::ClusterDefault => {
                return Err(AlterConfigsError::PerBrokerOnly { key: def.name });
            }
            Mutability::PerBroker | Mutability::ClusterWide => {}
        }
    }
    let overrides = image.broker_overrides(scope);
    let table = Table { kind: "broker", defs: BROKER_CONFIGS, find: broker_config };
    let altered = alter(overrides, keys, table)?;
    Ok(differences(ConfigResource::Broker(scope), overrides, &altered))
}

/// The table that knows a resource's keys.
#[derive(Clone, Copy)]
struct Table {
    kind: &'static str,
    defs: &'static [ConfigDef],
    find: fn(&str) -> Option<&'static ConfigDef>,
}

fn alter(
    overrides: &Overrides,
    keys: &[KeyAlteration],
    table: Table,
) -> Result<Overrides, AlterConfigsError> {
    let mut altered = overrides.clone();
    for KeyAlteration { key, op, value } in keys {
        // Also a key nobody knows: an older release may have left it behind.
        if *op == AlterOp::Delete {
            altered.remove(key);
            continue;
        }
        let def = (table.find)(key).ok_or_else(|| AlterConfigsError::UnknownKey {
            kind: table.kind,
            key: key.clone(),
            suggestion: suggest(table.defs, key),
        })?;
        let given = value.as_deref().ok_or_else(|| AlterConfigsError::NullValue { key: key.clone() })?;
        let text = match op {
            AlterOp::Set | AlterOp::Delete => given.to_owned(),
            AlterOp::Append => alter_list(def, "APPEND", altered.get(key), |items| {
                for item in split_list(given) {
                    if !items.contains(&item) {
                        items.push(item);
                    }
                }
            })?,
            AlterOp::Subtract => alter_list(def, "SUBTRACT", altered.get(key), |items| {
                let gone = split_list(given);
                items.retain(|item| !gone.contains(item));
            })?,
        };
        altered.insert(def.name.to_owned(), def.parse(&text)?.to_string());
    }
    Ok(altered)
}

/// A list that was not set starts from the key's own default, whatever the broker's default for it is: as in Kafka.
fn alter_list(
    def: &'static ConfigDef,
    op: &'static str,
    set: Option<&String>,
    change: impl FnOnce(&mut Vec<String>),
) -> Result<String, AlterConfigsError> {
    if def.kind != ConfigType::List {
        return Err(AlterConfigsError::NotAList { op, key: def.name });
    }
    let mut items = split_list(set.map(String::as_str).or(def.default).unwrap_or_default());
    change(&mut items);
    Ok(Value::List(items).to_string())
}

/// Checks the settings of a topic against each other, those it only inherits included.
pub(super) fn check_topic_settings(overrides: &Overrides, layers: &Layers<'_>) -> Result<(), Contradiction> {
    let config = TopicConfig::resolve(overrides, layers);
    if config.min_compaction_lag_ms > config.max_compaction_lag_ms {
        return Err(Contradiction {
            low_key: "min.compaction.lag.ms",
            low: config.min_compaction_lag_ms,
            high_key: "max.compaction.lag.ms",
            high: config.max_compaction_lag_ms,
        });
    }
    Ok(())
}

fn differences(resource: ConfigResource, before: &Overrides, after: &Overrides) -> Vec<Record> {
    let removed = before.keys().filter(|key| !after.contains_key(*key));
    let removed = removed.map(|key| Record::ConfigRemoved { resource, key: key.clone() });
    let set = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    let set = set.map(|(key, value)| Record::ConfigSet { resource, key: key.clone(), value: value.clone() });
    removed.chain(set).collect()
}
