//! A replicated log seen as Raft sees it: numbered entries, and the replicas that hold them.
//!
//! One record batch is one entry; Raft's own entries are entries too, but take no Kafka offset. Hence two numberings of
//! one log: [`EntryIndex`] counts entries, [`Offset`](crate::Offset) counts records. Neither is ever derived from the
//! other by counting: what is stored carries both.

use std::fmt;

use crate::{LeaderEpoch, NodeId};

/// The number of an entry in a replicated log, from 0, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryIndex(pub u64);

impl EntryIndex {
    /// The plain number.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The index of the entry behind this one.
    pub const fn next(self) -> EntryIndex {
        EntryIndex(self.0 + 1)
    }
}

impl fmt::Display for EntryIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An entry's identity: no two entries of one log share it, and logs that share it agree on everything before it
/// (Raft's log matching). Ordered by term first, as elections compare logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The reign that wrote it.
    pub term: LeaderEpoch,
    /// Its number.
    pub index: EntryIndex,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// One life of one replica of a partition.
///
/// A replica that lost its data comes back under a new incarnation: Raft must never take it for the one that voted and
/// acknowledged before. Incarnations of one node in one partition only rise; the controller hands them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// Where it lives.
    pub node: NodeId,
    /// Which life, from 0.
    pub incarnation: u32,
}

impl ReplicaId {
    /// The first life of a replica on a node.
    pub const fn first(node: NodeId) -> ReplicaId {
        ReplicaId { node, incarnation: 0 }
    }

    /// As one number: node in the upper half, incarnation in the lower.
    pub const fn to_u64(self) -> u64 {
        ((self.node.0 as u32 as u64) << 32) | self.incarnation as u64
    }

    /// Reads [`ReplicaId::to_u64`].
    pub const fn from_u64(number: u64) -> ReplicaId {
        ReplicaId { node: NodeId((number >> 32) as u32 as i32), incarnation: number as u32 }
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_survives_its_number() {
        for (node, incarnation) in [(0, 0), (1, 7), (i32::MAX, u32::MAX), (-1, 1)] {
            let replica = ReplicaId { node: NodeId(node), incarnation };
            assert_eq!(ReplicaId::from_u64(replica.to_u64()), replica);
        }
    }

    #[test]
    fn a_later_term_beats_a_longer_log() {
        let id = |term, index| EntryId { term: LeaderEpoch(term), index: EntryIndex(index) };
        assert!(id(2, 5) > id(1, 9));
        assert!(id(2, 6) > id(2, 5));
    }
}
