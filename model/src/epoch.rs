//! Counters that tell an old owner from the present one.

use std::fmt;

/// The reign of a partition's leader: `partitionLeaderEpoch` in batches, Raft's term in a replicated partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);

impl LeaderEpoch {
    /// "No epoch known" on the wire.
    pub const NONE: LeaderEpoch = LeaderEpoch(-1);

    /// The plain number.
    pub const fn value(self) -> i32 {
        self.0
    }

    /// The epoch of the reign after this one.
    pub const fn next(self) -> LeaderEpoch {
        LeaderEpoch(self.0 + 1)
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The incarnation of a producer id: a producer that comes back with a higher epoch fences its former self.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerEpoch(pub i16);

impl ProducerEpoch {
    /// "Not idempotent" in batches, "unknown" in requests.
    pub const NONE: ProducerEpoch = ProducerEpoch(-1);

    /// The plain number.
    pub const fn value(self) -> i16 {
        self.0
    }
}

impl fmt::Display for ProducerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
