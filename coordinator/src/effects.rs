//! What a shard asks of its runtime. Nothing here happens unless the runtime does it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ouzel_model::{GroupId, ProducerEpoch, ProducerId};

use crate::ids::{MemberId, Ticket};
use crate::record::Record;
use crate::response::Response;

/// The outcome of one call to a shard. The runtime carries out all three parts; their order does not matter, as
/// answers that must wait for records are not in here: `Shard::on_committed` hands them over when it is time.
#[derive(Debug, Default)]
pub struct Effects {
    /// Send these now.
    pub replies: Vec<(Ticket, Response)>,
    /// Append these records, then report how it went.
    pub write: Option<Write>,
    /// Set and stop these timers, in this order.
    pub timers: Vec<TimerOp>,
}

/// Records for the shard's partition.
///
/// Writes are appended in the order they were asked for; several may be under way. Each is reported once, in that
/// order, by `Shard::on_committed`: `Ok` when all its records are committed (as acks=all would see it), the failure
/// when they are not and will not be. Until then nothing is visible to readers of offsets. That a write takes long is
/// no outcome: reported as a failure, it could still commit, and the shard would know less than its log.
#[derive(Clone, Debug)]
pub struct Write {
    /// To be handed back.
    pub token: WriteToken,
    /// Never empty. The shard keeps a share of them until the write has settled.
    pub records: Arc<[Record]>,
    /// Whether the records must be one batch. The rest (expiry, topics deleted) may be split to fit the largest
    /// batch, and is committed when the last part is.
    pub atomic: bool,
    /// Whose transaction the batch belongs to; `None` for a plain batch.
    pub producer: Option<Producer>,
}

/// The producer of a transactional batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its id.
    pub id: ProducerId,
    /// Its incarnation.
    pub epoch: ProducerEpoch,
}

/// Names a write; later writes have larger tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteToken(pub u64);

/// A change to the shard's timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerOp {
    /// Call `Shard::on_timer` with this key after so many milliseconds, instead of whenever the key was set for.
    /// Durations, not dates: they run on a monotonic clock, the wall clock may step.
    Arm {
        /// Which timer.
        key: TimerKey,
        /// From now.
        after_ms: u64,
    },
    /// Forget the timer if it is set.
    Cancel {
        /// Which timer.
        key: TimerKey,
    },
}

/// A timer's name; one timer per name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKey {
    /// A member (or a client that was given an id and has not joined with it yet) has been silent for too long.
    Member(GroupId, MemberId),
    /// The wait for joins is over.
    Join(GroupId),
    /// The wait for syncs is over.
    Sync(GroupId),
}

/// The timers of one shard, kept as a value: the runtime sleeps until [`TimerSet::next_deadline_ms`] and then calls
/// [`TimerSet::pop_due`] until it gives nothing more. A key that was armed again or cancelled never fires early.
#[derive(Debug, Default)]
pub struct TimerSet {
    by_key: BTreeMap<TimerKey, (u64, u64)>,
    /// Deadline, then order of arming: equal deadlines fire in the order they were set, whatever the names.
    by_deadline: BTreeSet<(u64, u64, TimerKey)>,
    armed: u64,
}

impl TimerSet {
    /// Carries out what a shard asked for. `now_ms` is of the runtime's monotonic clock.
    pub fn apply(&mut self, now_ms: u64, ops: Vec<TimerOp>) {
        for op in ops {
            match op {
                TimerOp::Arm { key, after_ms } => {
                    self.cancel(&key);
                    self.armed += 1;
                    let deadline = (now_ms.saturating_add(after_ms), self.armed);
                    self.by_key.insert(key.clone(), deadline);
                    self.by_deadline.insert((deadline.0, deadline.1, key));
                }
                TimerOp::Cancel { key } => self.cancel(&key),
            }
        }
    }

    fn cancel(&mut self, key: &TimerKey) {
        if let Some((at_ms, order)) = self.by_key.remove(key) {
            self.by_deadline.remove(&(at_ms, order, key.clone()));
        }
    }

    /// When the runtime must look again.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.by_deadline.first().map(|(at_ms, ..)| *at_ms)
    }

    /// Takes out the next timer that is due, the earliest first.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<TimerKey> {
        let first = self.by_deadline.first()?;
        if first.0 > now_ms {
            return None;
        }
        let (_, _, key) = self.by_deadline.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// Whether the timer is set.
    pub fn contains(&self, key: &TimerKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// How many timers are set.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_armed_again_fires_once_and_late() {
        let key = TimerKey::Join(GroupId::new("g"));
        let mut timers = TimerSet::default();
        timers.apply(0, vec![TimerOp::Arm { key: key.clone(), after_ms: 10 }]);
        timers.apply(5, vec![TimerOp::Arm { key: key.clone(), after_ms: 10 }]);
        assert_eq!(timers.pop_due(10), None);
        assert_eq!(timers.next_deadline_ms(), Some(15));
        assert_eq!(timers.pop_due(15), Some(key.clone()));
        assert_eq!(timers.pop_due(99), None);
        timers.apply(20, vec![TimerOp::Arm { key: key.clone(), after_ms: 1 }, TimerOp::Cancel { key }]);
        assert!(timers.is_empty());
        assert_eq!(timers.next_deadline_ms(), None);
    }
}
