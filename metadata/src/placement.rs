//! Which brokers hold which partition.

use std::collections::BTreeSet;

use ouzel_model::NodeId;

use crate::image::Image;
use crate::partition::Partition;

/// Why an assignment somebody wrote by hand cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAssignment {
    /// A partition without replicas.
    #[error("The manual partition assignment includes an empty replica list.")]
    NoReplica,
    /// A broker twice in one list.
    #[error("The manual partition assignment includes the broker {broker} more than once.")]
    RepeatedBroker {
        /// Which.
        broker: i32,
    },
    /// A broker nobody knows.
    #[error("The manual partition assignment includes broker {broker}, but no such broker is registered.")]
    UnknownBroker {
        /// Which.
        broker: i32,
    },
    /// Lists of different lengths.
    #[error(
        "The manual partition assignment includes a partition with {found} replica(s), but this is not consistent with \
         previous partitions, which have {expected} replica(s)."
    )]
    UnequalReplicas {
        /// Of the partitions before.
        expected: usize,
        /// Of this one.
        found: usize,
    },
    /// Indexes with gaps or repetitions, or that do not start with the first index expected.
    #[error("partitions should be a consecutive 0-based integer sequence")]
    NotConsecutive,
    /// Not as many lists as partitions.
    #[error(
        "Attempted to add {partitions} additional partition(s), but only {assignments} assignment(s) were specified."
    )]
    WrongCount {
        /// New partitions asked for.
        partitions: usize,
        /// Lists given.
        assignments: usize,
    },
}

/// More replicas than brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Unable to replicate the partition {replication_factor} time(s): The target replication factor of {replication_factor} \
     cannot be reached because only {brokers} broker(s) are registered."
)]
pub struct TooFewBrokers {
    /// Replicas wanted.
    pub replication_factor: i16,
    /// Brokers there are.
    pub brokers: usize,
}

/// Spreads partitions over the brokers: each partition starts one broker further than the one before, and its further
/// replicas follow at a distance that changes each time round, so that a lost broker's load spreads over all others.
///
/// `first_index` is the index of the first new partition, so that partitions added later go on where the others ended.
/// `seed` is the topic's own, so that not all topics start at the same broker.
///
/// # Errors
/// Fewer brokers than replicas.
pub fn place(
    image: &Image,
    first_index: usize,
    partitions: usize,
    replication_factor: i16,
    seed: u64,
) -> Result<Vec<Partition>, TooFewBrokers> {
    let nodes: Vec<NodeId> = image.live_brokers().map(|broker| broker.node).collect();
    let replicas = usize::try_from(replication_factor).unwrap_or(0);
    if replicas == 0 || replicas > nodes.len() {
        return Err(TooFewBrokers { replication_factor, brokers: nodes.len() });
    }
    let start = (seed % nodes.len() as u64) as usize;
    let others = nodes.len() - 1;
    let place_one = |index: usize| {
        let leader = (start + index) % nodes.len();
        let shift = if others == 0 { 0 } else { (index / nodes.len()) % others };
        let follower = |nth: usize| nodes[(leader + 1 + (shift + nth) % others) % nodes.len()];
        Partition::new(std::iter::once(nodes[leader]).chain((0..replicas - 1).map(follower)).collect())
    };
    Ok((first_index..first_index + partitions).map(place_one).collect())
}

/// Checks lists of replicas written by hand; `expected` is the replication factor they must have, if it is given.
///
/// # Errors
/// The first list that cannot be.
pub fn check_replica_lists(
    image: &Image,
    lists: &[&[i32]],
    mut expected: Option<usize>,
) -> Result<Vec<Partition>, InvalidAssignment> {
    let mut partitions = Vec::with_capacity(lists.len());
    for list in lists {
        if list.is_empty() {
            return Err(InvalidAssignment::NoReplica);
        }
        let mut seen = BTreeSet::new();
        for broker in list.iter().copied() {
            if !seen.insert(broker) {
                return Err(InvalidAssignment::RepeatedBroker { broker });
            }
            if image.broker(NodeId(broker)).is_none() {
                return Err(InvalidAssignment::UnknownBroker { broker });
            }
        }
        let expected = *expected.get_or_insert(list.len());
        if expected != list.len() {
            return Err(InvalidAssignment::UnequalReplicas { expected, found: list.len() });
        }
        partitions.push(Partition::new(list.iter().copied().map(NodeId).collect()));
    }
    Ok(partitions)
}
