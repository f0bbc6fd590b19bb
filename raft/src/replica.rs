//! A replica of either kind, as the broker holds it.

use bytes::BytesMut;
use ouzel_model::{LeaderEpoch, TimestampMs};
use ouzel_storage::{Durability, Log};

use crate::group::{RaftGroup, Role};
use crate::replicated_log::{AppendRefused, Receipt, ReplicaOffsets, ReplicatedLog};
use crate::solo::Solo;
use crate::transport::LocalBoxFuture;

/// One replica of a log; clones are the same one.
#[derive(Clone)]
pub enum Replica {
    /// The only one there is.
    Solo(Solo),
    /// One of several.
    Group(RaftGroup),
}

impl Replica {
    /// Changes what acknowledgement means, for appends from now on.
    pub fn set_durability(&self, durability: Durability) {
        match self {
            Replica::Solo(solo) => solo.set_durability(durability),
            Replica::Group(group) => group.set_durability(durability),
        }
    }

    /// Calls `hook` after each step of an offset. There is one such hook.
    pub fn on_progress(&self, hook: impl Fn() + 'static) {
        match self {
            Replica::Solo(solo) => solo.local().on_progress(hook),
            Replica::Group(group) => group.on_progress(hook),
        }
    }

    /// The group, if it is in one.
    pub fn group(&self) -> Option<&RaftGroup> {
        match self {
            Replica::Solo(_) => None,
            Replica::Group(group) => Some(group),
        }
    }

    /// Whether appends are taken here.
    pub fn leads(&self) -> bool {
        match self {
            Replica::Solo(_) => true,
            Replica::Group(group) => group.role() == Role::Leader,
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
            Replica::Group(group) => Box::pin(group.append(batch, now)),
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
            Replica::Group(group) => group.offsets(),
        }
    }

    fn epoch(&self) -> LeaderEpoch {
        match self {
            Replica::Solo(solo) => solo.epoch(),
            Replica::Group(group) => group.epoch(),
        }
    }

    fn local(&self) -> &Log {
        match self {
            Replica::Solo(solo) => solo.local(),
            Replica::Group(group) => group.local(),
        }
    }
}

impl From<Solo> for Replica {
    fn from(solo: Solo) -> Replica {
        Replica::Solo(solo)
    }
}

impl From<RaftGroup> for Replica {
    fn from(group: RaftGroup) -> Replica {
        Replica::Group(group)
    }
}
