//! A replica of either kind, as the broker holds it.

use bytes::BytesMut;
use ouzel_model::{LeaderEpoch, TimestampMs};
use ouzel_storage::{Durability, Log};

use crate::replicated_log::{AppendRefused, Receipt, ReplicaOffsets, ReplicatedLog};
use crate::solo::Solo;
use crate::transport::LocalBoxFuture;

/// One replica of a log; clones are the same one.
#[derive(Clone)]
pub enum Replica {
    /// The only one there is.
    Solo(Solo),
}

impl Replica {
    /// Changes what acknowledgement means, for appends from now on.
    pub fn set_durability(&self, durability: Durability) {
        match self {
            Replica::Solo(solo) => solo.set_durability(durability),
        }
    }

    /// As [`ReplicatedLog::append`]; its place among all appends is that of this call.
    pub fn append(
        &self,
        batch: BytesMut,
        now: TimestampMs,
    ) -> LocalBoxFuture<Result<Receipt, AppendRefused>> {
        match self {
            Replica::Solo(solo) => Box::pin(solo.append(batch, now)),
        }
    }
}

impl ReplicatedLog for Replica {
    fn append(
        &self,
        batch: BytesMut,
        now: TimestampMs,
    ) -> impl Future<Output = Result<Receipt, AppendRefused>> + 'static {
        Replica::append(self, batch, now)
    }

    fn offsets(&self) -> ReplicaOffsets {
        match self {
            Replica::Solo(solo) => solo.offsets(),
        }
    }

    fn epoch(&self) -> LeaderEpoch {
        match self {
            Replica::Solo(solo) => solo.epoch(),
        }
    }

    fn local(&self) -> &Log {
        match self {
            Replica::Solo(solo) => solo.local(),
        }
    }
}

impl From<Solo> for Replica {
    fn from(solo: Solo) -> Replica {
        Replica::Solo(solo)
    }
}
