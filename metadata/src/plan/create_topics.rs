//! Creating topics.

use std::collections::{BTreeMap, BTreeSet};

use ouzel_model::{InvalidTopicName, TopicId, TopicName};

use super::PARTITIONS_PER_REQUEST_MAX;
use super::alter_configs::check_topic_settings;
use crate::configs::layers::suggest;
use crate::configs::topic_table::topic_config;
use crate::configs::{BrokerConfig, InvalidValue, Layers, Overrides, TOPIC_CONFIGS};
use crate::image::Image;
use crate::partition::Partition;
use crate::placement::{InvalidAssignment, Placer, Unplaceable, check_replica_lists};
use crate::record::Record;

/// One topic of a request, nothing of it checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// The name.
    pub name: String,
    /// How many partitions; -1 for the broker's default, and with `assignments`.
    pub num_partitions: i32,
    /// How many replicas of each; -1 for the broker's default, and with `assignments`.
    pub replication_factor: i16,
    /// The replicas of each partition by index, if they are not left to the controller.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// The topic's settings.
    pub configs: Vec<(String, Option<String>)>,
}

impl NewTopic {
    /// A topic that leaves everything to the broker, as one that is created because somebody asked for it.
    pub fn with_defaults(name: &str) -> NewTopic {
        NewTopic {
            name: name.to_owned(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: Vec::new(),
        }
    }

    /// The topic that holds committed offsets, as Kafka makes it; with fewer replicas while there are fewer brokers.
    pub fn for_offsets(image: &Image, broker: &BrokerConfig) -> NewTopic {
        let brokers = i16::try_from(image.live_brokers().count()).unwrap_or(i16::MAX);
        let config = |key: &str, value: String| (key.to_owned(), Some(value));
        NewTopic {
            num_partitions: broker.offsets.topic_partitions,
            replication_factor: broker.offsets.topic_replication_factor.min(brokers),
            configs: vec![
                config("cleanup.policy", "compact".to_owned()),
                config("compression.type", "producer".to_owned()),
                config("segment.bytes", broker.offsets.topic_segment_bytes.to_string()),
            ],
            ..NewTopic::with_defaults("__consumer_offsets")
        }
    }
}

/// A topic that may be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTopic {
    /// Its name.
    pub name: TopicName,
    /// Its id.
    pub topic_id: TopicId,
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas of each.
    pub replication_factor: i16,
    /// Its own settings.
    pub configs: Overrides,
    /// The decision.
    pub record: Record,
}

/// Why a topic is not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateTopicError {
    /// Named more than once in one request.
    #[error("Duplicate topic name.")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// Not a legal name.
    #[error("Topic name is invalid: {0}")]
    InvalidName(#[from] InvalidTopicName),
    /// The controller's own log has this name.
    #[error("Creation of internal topic {name} is prohibited.")]
    Reserved {
        /// The name.
        name: TopicName,
    },
    /// There is one.
    #[error("Topic '{name}' already exists.")]
    Exists {
        /// The name.
        name: TopicName,
    },
    /// There is one whose name is the same once `.` is written as `_`, as metrics do.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    Collides {
        /// The name.
        name: TopicName,
        /// The other's.
        existing: TopicName,
    },
    /// A setting without a value.
    #[error("Null value not supported for topic configs: {key}")]
    NullConfig {
        /// The key.
        key: String,
    },
    /// No such setting.
    #[error("Unknown topic config name: {key}{}", suggestion.map(|known| format!("; did you mean {known}?")).unwrap_or_default())]
    UnknownConfig {
        /// The key.
        key: String,
        /// What was probably meant.
        suggestion: Option<&'static str>,
    },
    /// A value its key does not take.
    #[error(transparent)]
    InvalidConfig(#[from] InvalidValue),
    /// Two settings contradict each other.
    #[error(transparent)]
    Contradiction(#[from] super::alter_configs::Contradiction),
    /// Zero partitions, or fewer than none.
    #[error("Number of partitions was set to an invalid non-positive value.")]
    InvalidPartitions {
        /// How many were asked for.
        num_partitions: i32,
    },
    /// Zero replicas, or fewer than none.
    #[error("Replication factor must be larger than 0, or -1 to use the default value.")]
    InvalidReplicationFactor {
        /// How many were asked for.
        replication_factor: i16,
    },
    /// Too few brokers for so many replicas.
    #[error(transparent)]
    Unplaceable(#[from] Unplaceable),
    /// Lists of replicas, and a number of partitions too.
    #[error("A manual partition assignment was specified, but numPartitions was not set to -1.")]
    AssignmentAndPartitions,
    /// Lists of replicas, and a replication factor too.
    #[error("A manual partition assignment was specified, but replication factor was not set to -1.")]
    AssignmentAndReplicationFactor,
    /// The lists of replicas cannot be.
    #[error(transparent)]
    Assignment(#[from] InvalidAssignment),
    /// More than one request may create.
    #[error("Excessively large number of partitions per request.")]
    TooManyPartitions {
        /// How many were asked for, this topic's included.
        partitions: usize,
    },
    /// Every id that was drawn belongs to a topic already: the source of ids is broken.
    #[error("No unused topic id could be drawn.")]
    NoTopicId,
}

/// Decides one request; the answers stand in its order.
///
/// `ids` draws a fresh random id; one that is taken or reserved is drawn again.
pub fn plan_create_topics(
    image: &Image,
    layers: &Layers<'_>,
    topics: &[NewTopic],
    ids: &mut dyn FnMut() -> TopicId,
) -> Vec<Result<PlannedTopic, CreateTopicError>> {
    let mut times_named: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in topics {
        *times_named.entry(&topic.name).or_default() += 1;
    }
    let mut planner = Planner {
        image,
        layers,
        defaults: BrokerConfig::resolve(layers),
        placer: Placer::new(image),
        ids,
        ids_drawn: BTreeSet::new(),
        partitions_planned: 0,
        collisions: topics_by_collision_key(image),
    };
    let decide = |topic: &NewTopic| {
        if times_named[topic.name.as_str()] > 1 {
            return Err(CreateTopicError::Duplicate { name: topic.name.clone() });
        }
        planner.plan(topic)
    };
    topics.iter().map(decide).collect()
}

fn topics_by_collision_key(image: &Image) -> BTreeMap<String, TopicName> {
    let collidable = image.topics().filter(|topic| topic.name.as_str().contains(['.', '_']));
    collidable.map(|topic| (collision_key(&topic.name), topic.name.clone())).collect()
}

/// Names that are equal here would share a metric.
fn collision_key(name: &TopicName) -> String {
    name.as_str().replace('.', "_")
}

/// Where the placement of a topic's first partition starts.
pub(super) fn topic_seed(id: TopicId) -> u64 {
    let (head, tail) = id.0.split_at(8);
    u64::from_be_bytes(head.try_into().expect("eight of sixteen bytes"))
        ^ u64::from_be_bytes(tail.try_into().expect("eight of sixteen bytes"))
}

struct Planner<'a> {
    image: &'a Image,
    layers: &'a Layers<'a>,
    defaults: BrokerConfig,
    placer: Placer<'a>,
    ids: &'a mut dyn FnMut() -> TopicId,
    ids_drawn: BTreeSet<TopicId>,
    partitions_planned: usize,
    collisions: BTreeMap<String, TopicName>,
}

impl Planner<'_> {
    /// Asks in Kafka's order: of several faults a client is told the same one.
    fn plan(&mut self, wanted: &NewTopic) -> Result<PlannedTopic, CreateTopicError> {
        let name = TopicName::new(&wanted.name)?;
        if name.as_str() == "__cluster_metadata" {
            return Err(CreateTopicError::Reserved { name });
        }
        if self.image.topic(name.as_str()).is_some() {
            return Err(CreateTopicError::Exists { name });
        }
        if let Some(existing) = self.collisions.get(&collision_key(&name)) {
            return Err(CreateTopicError::Collides { name, existing: existing.clone() });
        }
        let configs = self.check_configs(wanted)?;
        self.check_room(wanted)?;
        // Drawn before the partitions are placed, since it decides where they start.
        let topic_id = self.draw_id()?;
        let partitions = self.place(wanted, topic_id)?;

        self.partitions_planned += partitions.len();
        if name.as_str().contains(['.', '_']) {
            self.collisions.insert(collision_key(&name), name.clone());
        }
        Ok(PlannedTopic {
            // Bounded by PARTITIONS_PER_REQUEST_MAX and by the number of brokers.
            partitions: partitions.len() as i32,
            replication_factor: partitions[0].replicas.len() as i16,
            record: Record::TopicCreated {
                name: name.clone(),
                topic_id,
                partitions,
                configs: configs.clone(),
            },
            name,
            topic_id,
            configs,
        })
    }

    fn check_configs(&self, wanted: &NewTopic) -> Result<Overrides, CreateTopicError> {
        let mut configs = Overrides::new();
        for (key, value) in &wanted.configs {
            let def = topic_config(key).ok_or_else(|| CreateTopicError::UnknownConfig {
                key: key.clone(),
                suggestion: suggest(TOPIC_CONFIGS, key),
            })?;
            let text = value.as_deref().ok_or_else(|| CreateTopicError::NullConfig { key: key.clone() })?;
            configs.insert(key.clone(), def.parse(text)?.to_string());
        }
        check_topic_settings(&configs, self.layers)?;
        Ok(configs)
    }

    fn check_room(&self, wanted: &NewTopic) -> Result<(), CreateTopicError> {
        let own = match wanted.assignments.len() {
            0 if wanted.num_partitions == -1 => self.defaults.num_partitions,
            0 => wanted.num_partitions,
            assigned => i32::try_from(assigned).unwrap_or(i32::MAX),
        };
        let partitions = self.partitions_planned.saturating_add(usize::try_from(own).unwrap_or(0));
        if partitions > PARTITIONS_PER_REQUEST_MAX {
            return Err(CreateTopicError::TooManyPartitions { partitions });
        }
        Ok(())
    }

    fn draw_id(&mut self) -> Result<TopicId, CreateTopicError> {
        const TRIES_MAX: usize = 100;
        // Kafka keeps the ids 0 and 1 for itself, and an id shown with a leading '-' looks like a flag to its tools.
        let reserved = |id: TopicId| u128::from_be_bytes(id.0) <= 1 || id.to_string().starts_with('-');
        for _ in 0..TRIES_MAX {
            let id = (self.ids)();
            if !reserved(id) && self.image.topic_by_id(id).is_none() && self.ids_drawn.insert(id) {
                return Ok(id);
            }
        }
        Err(CreateTopicError::NoTopicId)
    }

    fn place(&mut self, wanted: &NewTopic, id: TopicId) -> Result<Vec<Partition>, CreateTopicError> {
        if !wanted.assignments.is_empty() {
            return self.check_assignments(wanted);
        }
        let num_partitions = match wanted.num_partitions {
            -1 => self.defaults.num_partitions,
            given => given,
        };
        let replication_factor = match wanted.replication_factor {
            -1 => self.defaults.default_replication_factor,
            given => given,
        };
        if replication_factor <= 0 {
            return Err(CreateTopicError::InvalidReplicationFactor { replication_factor });
        }
        let partitions = usize::try_from(num_partitions).ok().filter(|count| *count > 0);
        let partitions = partitions.ok_or(CreateTopicError::InvalidPartitions { num_partitions })?;
        Ok(self.placer.place(&[], partitions, replication_factor, topic_seed(id))?)
    }

    fn check_assignments(&self, wanted: &NewTopic) -> Result<Vec<Partition>, CreateTopicError> {
        if wanted.replication_factor != -1 {
            return Err(CreateTopicError::AssignmentAndReplicationFactor);
        }
        if wanted.num_partitions != -1 {
            return Err(CreateTopicError::AssignmentAndPartitions);
        }
        let mut lists: Vec<(i32, &[i32])> =
            wanted.assignments.iter().map(|(index, list)| (*index, list.as_slice())).collect();
        lists.sort_by_key(|(index, _)| *index);
        if (0..).zip(&lists).any(|(expected, (index, _))| expected != *index) {
            return Err(InvalidAssignment::NotConsecutive.into());
        }
        let lists: Vec<&[i32]> = lists.into_iter().map(|(_, list)| list).collect();
        Ok(check_replica_lists(self.image, &lists, 0, None)?)
    }
}
