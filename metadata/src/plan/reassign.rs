//! Moving partitions between brokers (KIP-455).

use std::collections::BTreeMap;

use ouzel_model::{PartitionIndex, TopicIdPartition};

use crate::image::{Image, Topic};
use crate::partition::Partition;
use crate::placement::{InvalidAssignment, check_replica_list};
use crate::record::Record;

/// Where one partition is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// The topic; the name need not be legal.
    pub topic: String,
    /// Which of its partitions.
    pub index: i32,
    /// To which brokers, the preferred leader first; `None` to give up the move it is on.
    pub replicas: Option<Vec<i32>>,
}

/// Why a partition stays on its way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReassignError {
    /// No such topic.
    #[error("Unable to find a topic named {topic}.")]
    UnknownTopic {
        /// The name.
        topic: String,
    },
    /// No such partition.
    #[error("Unable to find partition {topic}:{index}.")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The index.
        index: i32,
    },
    /// There is nothing to give up.
    #[error("No partition reassignment is in progress.")]
    NotReassigning,
    /// The list of replicas cannot be.
    #[error(transparent)]
    Assignment(#[from] InvalidAssignment),
    /// The caller asked that the number of replicas stay as it is.
    #[error("The replication factor is changed from {from} to {to}")]
    ReplicationFactorChanged {
        /// As it is.
        from: usize,
        /// As it would be.
        to: usize,
    },
    /// One partition more than once in a request.
    #[error("The partition {topic}-{index} is named more than once.")]
    Duplicate {
        /// The topic.
        topic: String,
        /// The index.
        index: i32,
    },
}

/// Decides one request; the answers stand in its order. A partition that is there already needs no record.
pub fn plan_reassign(
    image: &Image,
    reassignments: &[Reassignment],
    may_change_replication_factor: bool,
) -> Vec<Result<Option<Record>, ReassignError>> {
    let mut times_named: BTreeMap<(&str, i32), usize> = BTreeMap::new();
    for wanted in reassignments {
        *times_named.entry((&wanted.topic, wanted.index)).or_default() += 1;
    }
    let decide = |wanted: &Reassignment| {
        if times_named[&(wanted.topic.as_str(), wanted.index)] > 1 {
            let topic = wanted.topic.clone();
            return Err(ReassignError::Duplicate { topic, index: wanted.index });
        }
        let (topic, partition) = find(image, &wanted.topic, wanted.index)?;
        let moved = match &wanted.replicas {
            None => give_up(partition)?,
            Some(list) => {
                let nodes = check_replica_list(image, list)?;
                let (from, to) = (partition.replicas.len(), nodes.len());
                if !may_change_replication_factor && from != to {
                    return Err(ReassignError::ReplicationFactorChanged { from, to });
                }
                if partition.nodes().eq(nodes.iter().copied()) {
                    return Ok(None);
                }
                partition.moved_to(&nodes)
            }
        };
        let index = PartitionIndex(wanted.index);
        Ok(Some(Record::PartitionChanged { topic_id: topic.id, index, partition: moved }))
    };
    reassignments.iter().map(decide).collect()
}

fn give_up(partition: &Partition) -> Result<Partition, ReassignError> {
    // What an earlier move left behind is cleaned up, not given up.
    if partition.adding.is_empty() && partition.removing.is_empty() {
        return Err(ReassignError::NotReassigning);
    }
    Ok(partition.moved_to(&partition.nodes_before()))
}

fn find<'a>(image: &'a Image, name: &str, index: i32) -> Result<(&'a Topic, &'a Partition), ReassignError> {
    let topic = image.topic(name).ok_or_else(|| ReassignError::UnknownTopic { topic: name.to_owned() })?;
    let partition = topic.partition(PartitionIndex(index));
    let unknown = || ReassignError::UnknownPartition { topic: name.to_owned(), index };
    Ok((topic, partition.ok_or_else(unknown)?))
}

/// The partitions that move: of all topics, or those of the partitions named that do.
pub fn reassigning<'a>(
    image: &'a Image,
    named: Option<&[(String, Vec<i32>)]>,
) -> Vec<(&'a Topic, Vec<(PartitionIndex, &'a Partition)>)> {
    let of = |topic: &'a Topic, wanted: &dyn Fn(PartitionIndex) -> bool| {
        let moving = topic.indexed_partitions().filter(|(_, partition)| partition.is_reassigning());
        (topic, moving.filter(|(index, _)| wanted(*index)).collect::<Vec<_>>())
    };
    let found: Vec<_> = match named {
        None => image.topics().map(|topic| of(topic, &|_| true)).collect(),
        Some(named) => {
            let found = named.iter().filter_map(|(name, indexes)| Some((image.topic(name)?, indexes)));
            found.map(|(topic, indexes)| of(topic, &|index| indexes.contains(&index.0))).collect()
        }
    };
    found.into_iter().filter(|(_, moving)| !moving.is_empty()).collect()
}

/// Decides that a partition is where it should be, on the word of its leader that has just made `seen.replicas` its
/// members. `None` if the word is about another move than the one on its way: it came late.
///
/// The leader names the whole of what it acted on, and every change of mind makes that another value. So no claim about an
/// earlier membership, however late, makes anybody delete what the present members hold.
pub fn plan_settle(image: &Image, at: TopicIdPartition, seen: &Partition) -> Option<Record> {
    let partition = image.partition(at).filter(|partition| *partition == seen && partition.is_moving())?;
    let TopicIdPartition { topic_id, partition: index } = at;
    Some(Record::PartitionChanged { topic_id, index, partition: partition.settled() })
}

/// As [`plan_settle`], for the controller's own log.
pub fn plan_settle_controller(image: &Image, seen: &Partition) -> Option<Record> {
    let controller = image.controller().filter(|controller| *controller == seen && controller.is_moving())?;
    Some(Record::ControllerChanged { controller: controller.settled() })
}
