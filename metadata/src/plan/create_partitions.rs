//! Giving topics more partitions.

use std::collections::BTreeMap;

use ouzel_model::PartitionIndex;

use super::PARTITIONS_PER_REQUEST_MAX;
use super::create_topics::topic_seed;
use crate::image::Image;
use crate::placement::{InvalidAssignment, Placer, Unplaceable, check_replica_lists};
use crate::record::Record;

/// What one topic is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPartitions {
    /// Which topic; the name need not be legal.
    pub name: String,
    /// Partitions in all, the present ones included.
    pub count: i32,
    /// The replicas of each new one, if they are not left to the controller.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// Why a topic keeps the partitions it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreatePartitionsError {
    /// Named more than once in one request.
    #[error("Duplicate topic name.")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// No such topic.
    #[error("This server does not host this topic-partition.")]
    UnknownTopic {
        /// The name.
        name: String,
    },
    /// It has that many already.
    #[error("Topic already has {count} partition(s).")]
    AlreadySo {
        /// How many.
        count: usize,
    },
    /// Partitions cannot be taken away.
    #[error("The topic {name} currently has {present} partition(s); {wanted} would not be an increase.")]
    NoIncrease {
        /// The topic.
        name: String,
        /// How many it has.
        present: usize,
        /// How many were asked for.
        wanted: i32,
    },
    /// More than one request may create.
    #[error("Excessively large number of partitions per request.")]
    TooMany {
        /// New ones asked for.
        partitions: usize,
    },
    /// The lists of replicas cannot be.
    #[error(transparent)]
    Assignment(#[from] InvalidAssignment),
    /// The topic's replication factor cannot be reached.
    #[error(transparent)]
    Unplaceable(#[from] Unplaceable),
}

/// Decides one request; the answers stand in its order.
pub fn plan_create_partitions(
    image: &Image,
    topics: &[NewPartitions],
) -> Vec<Result<Record, CreatePartitionsError>> {
    let mut times_named: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in topics {
        *times_named.entry(&topic.name).or_default() += 1;
    }
    let mut room = PARTITIONS_PER_REQUEST_MAX;
    let mut placer = Placer::new(image);
    let decide = |topic: &NewPartitions| {
        if times_named[topic.name.as_str()] > 1 {
            return Err(CreatePartitionsError::Duplicate { name: topic.name.clone() });
        }
        plan_one(image, topic, &mut room, &mut placer)
    };
    topics.iter().map(decide).collect()
}

fn plan_one(
    image: &Image,
    wanted: &NewPartitions,
    room: &mut usize,
    placer: &mut Placer<'_>,
) -> Result<Record, CreatePartitionsError> {
    let name = || wanted.name.clone();
    let topic =
        image.topic(&wanted.name).ok_or_else(|| CreatePartitionsError::UnknownTopic { name: name() })?;
    let present = topic.partitions.len();
    let added = match usize::try_from(wanted.count) {
        Ok(count) if count == present => return Err(CreatePartitionsError::AlreadySo { count }),
        Ok(count) if count > present => count - present,
        _ => return Err(CreatePartitionsError::NoIncrease { name: name(), present, wanted: wanted.count }),
    };
    if added > *room {
        return Err(CreatePartitionsError::TooMany { partitions: added });
    }
    let replication_factor = topic.replication_factor();
    let partitions = match &wanted.assignments {
        None => placer.place(&topic.partitions, added, replication_factor, topic_seed(topic.id))?,
        Some(lists) if lists.len() != added => {
            return Err(InvalidAssignment::WrongCount { partitions: added, assignments: lists.len() }.into());
        }
        Some(lists) => {
            let lists: Vec<&[i32]> = lists.iter().map(Vec::as_slice).collect();
            check_replica_lists(image, &lists, present, usize::try_from(replication_factor).ok())?
        }
    };
    *room -= added;
    // An image never holds more partitions of a topic than an index counts.
    let first_index = PartitionIndex(present as i32);
    Ok(Record::PartitionsAdded { topic_id: topic.id, first_index, partitions })
}
