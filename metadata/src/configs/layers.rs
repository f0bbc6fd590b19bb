//! Which of a key's values counts, and where it came from.
//!
//! A topic key looks at: the topic itself, then (by its synonyms) the dynamic settings of this broker, those of all
//! brokers, the settings the broker was started with, the default. A broker key skips the first.

use ouzel_model::NodeId;

use super::broker::StaticConfig;
use super::broker_table::{BROKER_CONFIGS, broker_config};
use super::definition::{ConfigDef, ConfigType, Effect, Mutability, Unit};
use super::topic_table::TOPIC_CONFIGS;
use super::value::Value;
use super::{Overrides, nearest};
use crate::image::{BrokerScope, Image};

/// The settings of one broker, strongest first.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// Set on this broker while it runs.
    pub dynamic_broker: &'a Overrides,
    /// Set on all brokers while they run.
    pub dynamic_default: &'a Overrides,
    /// Given to this broker at start.
    pub static_broker: &'a Overrides,
}

impl<'a> Layers<'a> {
    /// What holds on `node`.
    pub fn new(image: &'a Image, node: NodeId, static_config: &'a StaticConfig) -> Layers<'a> {
        Layers {
            dynamic_broker: image.broker_overrides(BrokerScope::Broker(node)),
            dynamic_default: image.broker_overrides(BrokerScope::ClusterDefault),
            static_broker: static_config.settings(),
        }
    }

    /// What holds where nothing changes while running.
    pub fn of_static(static_config: &'a StaticConfig) -> Layers<'a> {
        static NONE: Overrides = Overrides::new();
        Layers { dynamic_broker: &NONE, dynamic_default: &NONE, static_broker: static_config.settings() }
    }

    fn each(&self) -> [(ConfigSource, &'a Overrides); 3] {
        [
            (ConfigSource::DynamicBroker, self.dynamic_broker),
            (ConfigSource::DynamicDefaultBroker, self.dynamic_default),
            (ConfigSource::StaticBroker, self.static_broker),
        ]
    }

    /// The value a broker key has, set or default, on its own: siblings in other units are not asked.
    pub(crate) fn broker_value(&self, def: &ConfigDef) -> Option<Value> {
        let set = self.each().into_iter().find_map(|(_, settings)| settings.get(def.name));
        match set {
            Some(text) => Some(parse_trusted(def, text)),
            None => def.default_value(),
        }
    }

    /// The default a topic key has on this broker: its synonyms' first value.
    pub(crate) fn topic_default(&self, def: &ConfigDef) -> Value {
        let set = def.synonyms.iter().find_map(|synonym| {
            let broker_def =
                broker_config(synonym.key).expect("a synonym is a broker key: a test looks up each");
            let value = self.broker_value(broker_def)?;
            Some(match synonym.unit {
                Unit::Same => value,
                unit => Value::Number(unit.convert(value.number())),
            })
        });
        set.or_else(|| def.default_value()).expect("every topic key has a default: a test reads each")
    }
}

/// The value of a topic key: the topic's own, else the broker's default.
pub(crate) fn topic_value(def: &ConfigDef, overrides: &Overrides, layers: &Layers<'_>) -> Value {
    match overrides.get(def.name) {
        Some(text) => parse_trusted(def, text),
        None => layers.topic_default(def),
    }
}

/// A value that was checked before it became a setting. An older release may have been more lenient, so one that the
/// rule refuses today still falls back on the default instead of stopping the broker.
fn parse_trusted(def: &ConfigDef, text: &str) -> Value {
    def.parse(text).ok().or_else(|| def.default_value()).unwrap_or_else(|| Value::Text(text.to_owned()))
}

/// Where a value came from. The discriminants are DescribeConfigs'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic = 1,
    /// Set on this broker while it runs.
    DynamicBroker = 2,
    /// Set on all brokers while they run.
    DynamicDefaultBroker = 3,
    /// Given at start.
    StaticBroker = 4,
    /// Nobody set it.
    Default = 5,
}

impl ConfigSource {
    /// The byte that names the source in a DescribeConfigs answer.
    pub const fn wire_byte(self) -> i8 {
        self as i8
    }
}

/// One key as DescribeConfigs reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The key.
    pub name: &'static str,
    /// Its effective value; `None` when not set, or when it is nobody's business.
    pub value: Option<String>,
    /// Where the value came from.
    pub source: ConfigSource,
    /// Its type.
    pub kind: ConfigType,
    /// Whether it changes only with a restart.
    pub read_only: bool,
    /// Whether its value is kept from those who ask.
    pub sensitive: bool,
    /// All values it would fall back on, the effective one first.
    pub synonyms: Vec<SynonymEntry>,
    /// What it does.
    pub doc: &'static str,
    /// Whether setting it does something.
    pub effect: Effect,
}

impl ConfigEntry {
    /// What it does, and, where setting it does nothing, why.
    pub fn documentation(&self) -> String {
        match self.effect {
            Effect::Works => self.doc.to_owned(),
            Effect::Nothing(why) => format!("{} It has no effect: {why}.", self.doc),
            Effect::Shown(flag) => format!("{} Decided by the flag {flag}.", self.doc),
        }
    }
}

/// One of the values a key falls back on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynonymEntry {
    /// The key it is set under.
    pub name: &'static str,
    /// The value there.
    pub value: Option<String>,
    /// Where it was set.
    pub source: ConfigSource,
}

/// Every key of a topic, as DescribeConfigs and CreateTopics report them.
pub fn describe_topic(overrides: &Overrides, layers: &Layers<'_>) -> Vec<ConfigEntry> {
    let describe = |def: &'static ConfigDef| {
        let value = topic_value(def, overrides, layers);
        let mut synonyms = Vec::new();
        if overrides.contains_key(def.name) {
            let value = (!def.is_sensitive()).then(|| value.to_string());
            synonyms.push(SynonymEntry { name: def.name, value, source: ConfigSource::Topic });
        }
        if let Some(first) = def.synonyms.first() {
            synonyms.extend(chain(first.key, def.synonyms.iter().map(|s| s.key), def.is_sensitive(), layers));
        }
        entry(def, Some(value), synonyms)
    };
    TOPIC_CONFIGS.iter().map(describe).collect()
}

/// Every key of a broker.
pub fn describe_broker(layers: &Layers<'_>) -> Vec<ConfigEntry> {
    let describe = |def: &'static ConfigDef| {
        let synonyms = match def.synonyms {
            [] => chain(def.name, [def.name], def.is_sensitive(), layers),
            siblings => chain(def.name, siblings.iter().map(|s| s.key), def.is_sensitive(), layers),
        };
        entry(def, layers.broker_value(def), synonyms)
    };
    BROKER_CONFIGS.iter().map(describe).collect()
}

/// The settings made for all brokers while they run, and nothing else.
pub fn describe_cluster_default(dynamic_default: &Overrides) -> Vec<ConfigEntry> {
    let describe = |def: &'static ConfigDef| {
        let text = dynamic_default.get(def.name)?;
        let value = parse_trusted(def, text);
        let shown = (!def.is_sensitive()).then(|| value.to_string());
        let source = ConfigSource::DynamicDefaultBroker;
        Some(entry(def, Some(value), vec![SynonymEntry { name: def.name, value: shown, source }]))
    };
    BROKER_CONFIGS.iter().filter_map(describe).collect()
}

/// The values of `keys`, strongest layer first. Kafka leaves out what stands before the first value of `head`, and so
/// shows an empty list for retention.ms on a broker that sets log.retention.hours alone.
fn chain(
    head: &str,
    keys: impl IntoIterator<Item = &'static str> + Clone,
    sensitive: bool,
    layers: &Layers<'_>,
) -> Vec<SynonymEntry> {
    let shown = |value: &str| (!sensitive).then(|| value.to_owned());
    let mut values = Vec::new();
    for (source, settings) in layers.each() {
        for name in keys.clone() {
            values.extend(settings.get(name).map(|text| SynonymEntry { name, value: shown(text), source }));
        }
    }
    for name in keys {
        let default = broker_config(name).and_then(|def| def.default);
        values.extend(default.map(|text| SynonymEntry {
            name,
            value: shown(text),
            source: ConfigSource::Default,
        }));
    }
    values.into_iter().skip_while(|value| value.name != head).collect()
}

fn entry(def: &'static ConfigDef, value: Option<Value>, synonyms: Vec<SynonymEntry>) -> ConfigEntry {
    ConfigEntry {
        name: def.name,
        value: value.filter(|_| !def.is_sensitive()).map(|value| value.to_string()),
        source: synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source),
        kind: def.kind,
        read_only: def.mutability == Mutability::ReadOnly,
        sensitive: def.is_sensitive(),
        synonyms,
        doc: def.doc,
        effect: def.effect,
    }
}

/// The key of `table` that somebody probably meant.
pub(crate) fn suggest(table: &'static [ConfigDef], given: &str) -> Option<&'static str> {
    nearest::nearest(given, table.iter().map(|def| def.name))
}
