//! From one image to the next: records applied, an image told as records, and what differs between two images.

use std::collections::BTreeSet;
use std::sync::Arc;

use ouzel_model::{NodeId, PartitionIndex, ReplicaId, TopicId, TopicIdPartition, TopicName};

use crate::features::Features;
use crate::image::{Broker, BrokerScope, Image, Topic};
use crate::partition::Partition;
use crate::record::{ConfigResource, Record};

/// Why a record does not fit the image: the log was not written by this controller, or not in this order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The cluster has another name.
    #[error("the log names the cluster '{found}', but it is '{cluster_id}'")]
    OtherCluster {
        /// The name it has.
        cluster_id: String,
        /// The name in the record.
        found: String,
    },
    /// A second topic of one name.
    #[error("topic '{name}' exists already")]
    TopicExists {
        /// The name.
        name: TopicName,
    },
    /// A second topic of one id.
    #[error("topic id {topic_id} belongs to topic '{name}' already")]
    TopicIdExists {
        /// The id.
        topic_id: TopicId,
        /// Who has it.
        name: TopicName,
    },
    /// The id with which the wire says "no id".
    #[error("topic '{name}' has the zero topic id, which means 'no topic'")]
    ZeroTopicId {
        /// The name.
        name: TopicName,
    },
    /// A topic without partitions, or with more than an index can count.
    #[error("topic '{name}' cannot have {count} partitions")]
    PartitionCount {
        /// The name.
        name: TopicName,
        /// How many.
        count: usize,
    },
    /// No topic has this id.
    #[error("no topic has the id {topic_id}")]
    UnknownTopic {
        /// The id.
        topic_id: TopicId,
    },
    /// The topic has no such partition.
    #[error("topic '{name}' has {count} partitions, none with the index {index}")]
    UnknownPartition {
        /// The topic.
        name: TopicName,
        /// How many it has.
        count: usize,
        /// The index asked for.
        index: PartitionIndex,
    },
    /// Partitions were added after ones that do not exist, or over ones that do.
    #[error("partitions of topic '{name}' were added from index {index}, but it has {count}")]
    NotTheNextPartition {
        /// The topic.
        name: TopicName,
        /// How many it has.
        count: usize,
        /// The first index added.
        index: PartitionIndex,
    },
    /// A partition's replicas contradict each other.
    #[error("partition {name}-{index} {fault}")]
    BadPartition {
        /// The topic.
        name: TopicName,
        /// The partition.
        index: PartitionIndex,
        /// What is wrong with it.
        fault: PartitionFault,
    },
    /// No such broker.
    #[error("no broker has the node id {node}")]
    UnknownBroker {
        /// The id.
        node: NodeId,
    },
    /// A broker left while it still holds replicas.
    #[error("broker {node} left, but holds a replica of partition {name}-{index}")]
    BrokerHoldsReplica {
        /// The broker.
        node: NodeId,
        /// The topic.
        name: TopicName,
        /// The partition.
        index: PartitionIndex,
    },
    /// Producer ids never go back: an id given twice would let two producers share a sequence.
    #[error("producer ids below {next} are taken already, yet the log takes them below {found} only")]
    ProducerIdsWentBack {
        /// The first free id.
        next: i64,
        /// The record's.
        found: i64,
    },
    /// The controller's own replicas contradict each other.
    #[error("the controller's log {fault}")]
    BadController {
        /// What is wrong with it.
        fault: PartitionFault,
    },
    /// A broker left that keeps the controller's log.
    #[error("broker {node} left, but holds a replica of the controller's log")]
    BrokerHoldsController {
        /// The broker.
        node: NodeId,
    },
    /// Changes of features are numbered.
    #[error("features are at epoch {epoch} already, yet the log sets them at epoch {found}")]
    FeaturesWentBack {
        /// Of the last change.
        epoch: i64,
        /// The record's.
        found: i64,
    },
    /// A record that decides nothing, in a place where only decisions may be.
    #[error("a record of a snapshot is no decision")]
    NotADecision,
}

/// What contradicts itself in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartitionFault {
    /// Nobody holds it.
    #[error("has no replica")]
    NoReplica,
    /// A broker holds it twice.
    #[error("names broker {0} twice among its replicas")]
    RepeatedReplica(NodeId),
    /// A broker nobody knows.
    #[error("has a replica on broker {0}, which is not registered")]
    UnregisteredReplica(NodeId),
    /// Added, but no replica.
    #[error("adds replica {0}, which is not among its replicas")]
    AddingOutsideReplicas(ReplicaId),
    /// Added or removed twice.
    #[error("names replica {0} twice among those that come or go")]
    RepeatedMove(ReplicaId),
    /// Goes on with what it has, but is no replica, or one that has nothing yet.
    #[error("is to go on from {0}, which is not among the replicas that have something")]
    HeirWithout(ReplicaId),
    /// A replica of an incarnation that has not been handed out yet.
    #[error("has replica {replica}, though the next incarnation is {next}")]
    FutureIncarnation {
        /// The replica.
        replica: ReplicaId,
        /// The incarnation of the next one.
        next: u32,
    },
    /// An incarnation would be handed out twice.
    #[error("would hand out incarnation {found} next, though {next} is next")]
    IncarnationsWentBack {
        /// The next one.
        next: u32,
        /// The record's.
        found: u32,
    },
}

impl Image {
    /// Makes the decision part of the image.
    ///
    /// # Errors
    /// A record that contradicts the image leaves it as it was.
    pub fn apply(&mut self, record: &Record) -> Result<(), ApplyError> {
        match record {
            Record::ClusterCreated { cluster_id } => match &self.cluster_id {
                Some(own) if **own != **cluster_id => {
                    return Err(ApplyError::OtherCluster {
                        cluster_id: own.to_string(),
                        found: cluster_id.clone(),
                    });
                }
                _ => self.cluster_id = Some(cluster_id.as_str().into()),
            },
            Record::BrokerRegistered(broker) => {
                Arc::make_mut(&mut self.brokers).insert(broker.node, Arc::new(broker.clone()));
            }
            Record::BrokerUnregistered { node } => self.unregister_broker(*node)?,
            Record::TopicCreated { name, topic_id, partitions, configs } => {
                self.check_new_topic(name, *topic_id, partitions)?;
                let topic = Topic {
                    name: name.clone(),
                    id: *topic_id,
                    partitions: partitions.clone(),
                    configs: configs.clone(),
                };
                Arc::make_mut(&mut self.topics).insert(name.clone(), Arc::new(topic));
                Arc::make_mut(&mut self.topic_names).insert(*topic_id, name.clone());
            }
            Record::TopicDeleted { topic_id } => {
                let name = self.name_of(*topic_id)?;
                Arc::make_mut(&mut self.topics).remove(&name);
                Arc::make_mut(&mut self.topic_names).remove(topic_id);
            }
            Record::PartitionsAdded { topic_id, first_index, partitions } => {
                let name = self.name_of(*topic_id)?;
                let count = self.topics[&name].partitions.len();
                if usize::try_from(first_index.0) != Ok(count) {
                    return Err(ApplyError::NotTheNextPartition { name, count, index: *first_index });
                }
                if i32::try_from(count + partitions.len()).is_err() {
                    return Err(ApplyError::PartitionCount { name, count: count + partitions.len() });
                }
                self.check_partitions(&name, first_index.0, partitions)?;
                self.topic_mut(&name).partitions.extend_from_slice(partitions);
            }
            Record::PartitionChanged { topic_id, index, partition } => {
                let name = self.name_of(*topic_id)?;
                let topic = &self.topics[&name];
                if topic.partition(*index).is_none() {
                    let count = topic.partitions.len();
                    return Err(ApplyError::UnknownPartition { name, count, index: *index });
                }
                self.check_partitions(&name, index.0, std::slice::from_ref(partition))?;
                let next = topic.partitions[index.0 as usize].next_incarnation;
                if partition.next_incarnation < next {
                    let fault =
                        PartitionFault::IncarnationsWentBack { next, found: partition.next_incarnation };
                    return Err(ApplyError::BadPartition { name, index: *index, fault });
                }
                self.topic_mut(&name).partitions[index.0 as usize] = partition.clone();
            }
            Record::ConfigSet { resource, key, value } => match resource {
                ConfigResource::Topic(topic_id) => {
                    let name = self.name_of(*topic_id)?;
                    self.topic_mut(&name).configs.insert(key.clone(), value.clone());
                }
                ConfigResource::Broker(scope) => {
                    let all = Arc::make_mut(&mut self.broker_configs);
                    all.entry(*scope).or_default().insert(key.clone(), value.clone());
                }
            },
            Record::ConfigRemoved { resource, key } => match resource {
                ConfigResource::Topic(topic_id) => {
                    let name = self.name_of(*topic_id)?;
                    self.topic_mut(&name).configs.remove(key);
                }
                ConfigResource::Broker(scope) => {
                    let all = Arc::make_mut(&mut self.broker_configs);
                    if let Some(overrides) = all.get_mut(scope) {
                        overrides.remove(key);
                        // A scope without settings and a scope never heard of are the same image.
                        if overrides.is_empty() {
                            all.remove(scope);
                        }
                    }
                }
            },
            Record::ProducerIdsAllocated { node: _, next_producer_id } => {
                if *next_producer_id < self.next_producer_id {
                    return Err(ApplyError::ProducerIdsWentBack {
                        next: self.next_producer_id,
                        found: *next_producer_id,
                    });
                }
                self.next_producer_id = *next_producer_id;
            }
            Record::BrokerFenced { node, fenced } => {
                if self.broker(*node).is_none() {
                    return Err(ApplyError::UnknownBroker { node: *node });
                }
                let broker = Arc::make_mut(&mut self.brokers).get_mut(node).expect("just looked up");
                Arc::make_mut(broker).fenced = *fenced;
            }
            Record::ControllerChanged { controller } => {
                let next = self.controller().map_or(0, |before| before.next_incarnation);
                let found = controller.next_incarnation;
                let back = (found < next).then_some(PartitionFault::IncarnationsWentBack { next, found });
                // Its replicas are named by their directories.
                let fault = self.placement_fault(controller).or(back);
                if let Some(fault) = fault {
                    return Err(ApplyError::BadController { fault });
                }
                self.controller = Some(Arc::new(controller.clone()));
            }
            Record::FeaturesSet(features) => {
                let (epoch, found) = (self.features.epoch, features.epoch);
                if found <= epoch {
                    return Err(ApplyError::FeaturesWentBack { epoch, found });
                }
                self.features = Arc::new(features.clone());
            }
            // `snapshot::Replay` is who reads these.
            Record::SnapshotStarted | Record::SnapshotPiece { .. } | Record::SnapshotEnded { .. } => {
                return Err(ApplyError::NotADecision);
            }
        }
        Ok(())
    }

    fn name_of(&self, topic_id: TopicId) -> Result<TopicName, ApplyError> {
        self.topic_names.get(&topic_id).cloned().ok_or(ApplyError::UnknownTopic { topic_id })
    }

    fn topic_mut(&mut self, name: &TopicName) -> &mut Topic {
        let topic = Arc::make_mut(&mut self.topics).get_mut(name);
        Arc::make_mut(topic.expect("a topic id leads to a topic that exists"))
    }

    fn unregister_broker(&mut self, node: NodeId) -> Result<(), ApplyError> {
        if !self.brokers.contains_key(&node) {
            return Err(ApplyError::UnknownBroker { node });
        }
        for topic in self.topics.values() {
            let mut partitions = topic.indexed_partitions();
            if let Some((index, _)) = partitions.find(|(_, partition)| partition.replica_on(node).is_some()) {
                return Err(ApplyError::BrokerHoldsReplica { node, name: topic.name.clone(), index });
            }
        }
        if self.controller().is_some_and(|controller| controller.replica_on(node).is_some()) {
            return Err(ApplyError::BrokerHoldsController { node });
        }
        Arc::make_mut(&mut self.brokers).remove(&node);
        Arc::make_mut(&mut self.broker_configs).remove(&BrokerScope::Broker(node));
        Ok(())
    }

    fn check_new_topic(
        &self,
        name: &TopicName,
        id: TopicId,
        partitions: &[Partition],
    ) -> Result<(), ApplyError> {
        if self.topics.contains_key(name) {
            return Err(ApplyError::TopicExists { name: name.clone() });
        }
        if let Some(holder) = self.topic_names.get(&id) {
            return Err(ApplyError::TopicIdExists { topic_id: id, name: holder.clone() });
        }
        if id.is_zero() {
            return Err(ApplyError::ZeroTopicId { name: name.clone() });
        }
        if partitions.is_empty() || i32::try_from(partitions.len()).is_err() {
            return Err(ApplyError::PartitionCount { name: name.clone(), count: partitions.len() });
        }
        self.check_partitions(name, 0, partitions)
    }

    fn check_partitions(
        &self,
        name: &TopicName,
        first: i32,
        partitions: &[Partition],
    ) -> Result<(), ApplyError> {
        for (index, partition) in (first..).zip(partitions) {
            if let Some(fault) = self.partition_fault(partition) {
                let index = PartitionIndex(index);
                return Err(ApplyError::BadPartition { name: name.clone(), index, fault });
            }
        }
        Ok(())
    }

    fn partition_fault(&self, partition: &Partition) -> Option<PartitionFault> {
        let next = partition.next_incarnation;
        let mut named = partition.holders().chain(partition.founders.iter().copied());
        let future = named.find(|replica| replica.incarnation >= next);
        let future = future.map(|replica| PartitionFault::FutureIncarnation { replica, next });
        self.placement_fault(partition).or(future)
    }

    fn placement_fault(&self, partition: &Partition) -> Option<PartitionFault> {
        let Partition { replicas, adding, removing: _, unsettled, next_incarnation: _, founders, heir } =
            partition;
        if replicas.is_empty() {
            return Some(PartitionFault::NoReplica);
        }
        if let Some(node) = first_repeated(&partition.holder_nodes()) {
            return Some(PartitionFault::RepeatedReplica(node));
        }
        if let Some(replica) = partition.holders().find(|replica| !self.brokers.contains_key(&replica.node)) {
            return Some(PartitionFault::UnregisteredReplica(replica.node));
        }
        if let Some(replica) = adding.iter().find(|replica| !replicas.contains(replica)) {
            return Some(PartitionFault::AddingOutsideReplicas(*replica));
        }
        if let Some(heir) = heir.filter(|heir| !partition.members_before().contains(&heir.replica)) {
            return Some(PartitionFault::HeirWithout(heir.replica));
        }
        [adding, unsettled, founders]
            .into_iter()
            .find_map(|list| first_repeated(list))
            .map(PartitionFault::RepeatedMove)
    }

    /// The image as the shortest list of records that makes it again from nothing: the controller's snapshot.
    pub fn to_records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        records.extend(self.cluster_id().map(|id| Record::ClusterCreated { cluster_id: id.to_owned() }));
        records.extend(self.brokers().map(|broker| Record::BrokerRegistered(Broker::clone(broker))));
        records.extend(self.topics().map(|topic| Record::TopicCreated {
            name: topic.name.clone(),
            topic_id: topic.id,
            partitions: topic.partitions.clone(),
            configs: topic.configs.clone(),
        }));
        for (scope, overrides) in self.broker_configs.iter() {
            records.extend(overrides.iter().map(|(key, value)| Record::ConfigSet {
                resource: ConfigResource::Broker(*scope),
                key: key.clone(),
                value: value.clone(),
            }));
        }
        if self.next_producer_id != 0 {
            // Who took the newest block is told to that broker once and kept nowhere.
            let node = self.brokers.keys().next().copied().unwrap_or(NodeId(-1));
            records.push(Record::ProducerIdsAllocated { node, next_producer_id: self.next_producer_id });
        }
        let controller = self.controller().cloned();
        records.extend(controller.map(|controller| Record::ControllerChanged { controller }));
        if *self.features != Features::default() {
            records.push(Record::FeaturesSet(Features::clone(&self.features)));
        }
        records
    }

    /// Makes an image from its beginning.
    ///
    /// # Errors
    /// The first record that contradicts those before it.
    pub fn from_records<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Image, ApplyError> {
        let mut image = Image::default();
        records.into_iter().try_for_each(|record| image.apply(record))?;
        Ok(image)
    }
}

fn first_repeated<T: Copy + Ord>(items: &[T]) -> Option<T> {
    let mut seen = BTreeSet::new();
    items.iter().find(|item| !seen.insert(**item)).copied()
}

/// What a node has to do to follow the controller from one image to the next.
///
/// A topic that was deleted and created again between the two appears in both lists, under two ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Topics that were not there before.
    pub topics_created: Vec<Arc<Topic>>,
    /// Topics that are gone.
    pub topics_deleted: Vec<Arc<Topic>>,
    /// Partitions that an existing topic got in addition.
    pub partitions_added: Vec<TopicIdPartition>,
    /// Partitions that are to live elsewhere, or got there.
    pub partitions_changed: Vec<TopicIdPartition>,
    /// Topics that existed before and whose own settings changed.
    pub topic_configs_changed: Vec<Arc<Topic>>,
    /// Whether any dynamic broker setting changed; every topic's effective values may have.
    pub broker_configs_changed: bool,
    /// Whether a broker came, went, moved, or was found dead or alive.
    pub brokers_changed: bool,
    /// Whether the controller's own log is to live elsewhere, or got there.
    pub controller_changed: bool,
    /// Whether a feature is at another level.
    pub features_changed: bool,
}

impl Changes {
    /// Compares two images. Topics untouched in between cost one comparison of pointers.
    pub fn between(old: &Image, new: &Image) -> Changes {
        let mut changes = Changes {
            broker_configs_changed: old.broker_configs != new.broker_configs,
            brokers_changed: old.brokers != new.brokers,
            controller_changed: old.controller != new.controller,
            features_changed: old.features != new.features,
            ..Changes::default()
        };
        if Arc::ptr_eq(&old.topics, &new.topics) {
            return changes;
        }
        let gone = old.topics().filter(|topic| new.topic_by_id(topic.id).is_none());
        changes.topics_deleted.extend(gone.cloned());
        for topic in new.topics() {
            match old.topic_by_id(topic.id) {
                None => changes.topics_created.push(Arc::clone(topic)),
                Some(before) if Arc::ptr_eq(before, topic) => {}
                Some(before) => changes.note_topic(before, topic),
            }
        }
        changes
    }

    fn note_topic(&mut self, before: &Topic, after: &Arc<Topic>) {
        if before.configs != after.configs {
            self.topic_configs_changed.push(Arc::clone(after));
        }
        for (partition, now) in after.indexed_partitions() {
            let place = TopicIdPartition { topic_id: after.id, partition };
            match before.partition(partition) {
                None => self.partitions_added.push(place),
                Some(then) if then != now => self.partitions_changed.push(place),
                Some(_) => {}
            }
        }
    }
}
