//! The head of the log: what all replicas may let go of is an entry, letting go is each one's own work.
//!
//! The leader says from where the log must stay readable, and which entries all that are in sync hold ([`RaftGroup::retain`]). Once
//! that is applied, each replica takes a snapshot at the end of a sealed segment, as far as it may; the entries below stop
//! being entries, and what lies below the log start goes. openraft does none of this by itself on a follower.

use std::rc::Rc;

use futures_util::StreamExt;
use ouzel_model::{EntryId, Offset};

use super::{Inner, RaftGroup, Role};
use crate::entry::{Data, Retention};
use crate::state_machine::{purge_point, snapshot_point};

/// Why a retention entry was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetainError {
    /// This replica does not lead, or does not any more.
    #[error("this replica does not lead")]
    NotLeader,
}

impl RaftGroup {
    /// Lets all replicas drop the head of their logs: no record below `log_start` need be readable any more, and what all
    /// voters in sync hold need be no entry. Each replica does so by itself, by whole sealed segments. A member that is
    /// behind, or away, takes those segments when it asks for what were entries. Nothing is written where nothing would
    /// change. Resolves when the entry is committed.
    ///
    /// # Errors
    /// See [`RetainError`].
    pub async fn retain(&self, log_start: Offset) -> Result<(), RetainError> {
        let status = self.status();
        if status.role != Role::Leader || self.inner.is_ending.get() {
            return Err(RetainError::NotLeader);
        }
        let log = &self.inner.state.log;
        let log_start = log_start.min(status.high_watermark);
        let committed = status.committed.map(|id| id.index);
        let in_sync = status.held.iter().filter(|(replica, _)| status.in_sync.contains(replica));
        let held_by_all = in_sync.map(|(_, held)| *held).min().flatten().min(committed);
        let retention = Retention { log_start, held_by_all };
        let can_purge = purge_point(&self.inner.state, &retention).is_some();
        if log_start <= log.offsets().log_start && !can_purge {
            return Ok(());
        }
        for attempt in 0..2 {
            let answers = self.inner.raft.client_write_many([Data::Retention(retention)]).await;
            let Ok(mut answers) = answers else { return Err(RetainError::NotLeader) };
            if let Some(Ok(Ok(_))) = answers.next().await {
                return Ok(());
            }
            if attempt > 0 || self.inner.prove_leadership().await.is_err() {
                return Err(RetainError::NotLeader);
            }
        }
        Err(RetainError::NotLeader)
    }

    /// Entries at and below this one are no entries any more here: their segments are data, which retention and compaction
    /// may touch.
    pub fn purged(&self) -> Option<EntryId> {
        self.inner.state.log.purged()
    }
}

impl Inner {
    /// Whether the newest retention entry leaves something to do here.
    pub(super) fn is_retention_due(&self) -> bool {
        let Some(retention) = self.state.retention.get() else { return false };
        retention.log_start > self.state.log.offsets().log_start || snapshot_point(&self.state).is_some()
    }

    /// Does what the newest retention entry allows.
    pub(super) async fn carry_out_retention(self: Rc<Self>) {
        if let Some(point) = snapshot_point(&self.state) {
            // openraft purges what the snapshot covers, in its own time.
            if self.raft.trigger().snapshot().await.is_ok() {
                let patience = self.state.settings.borrow().election_timeout.1;
                let purged = async {
                    while self.state.log.purged() < Some(point) {
                        self.changed.notified().await;
                    }
                };
                // If that takes longer, the next retention entry comes back to it.
                let _ = self.state.runtime.clock.timeout(patience, purged).await;
            }
        }
        if let Some(retention) = self.state.retention.get()
            && let Err(error) = self.state.log.trim_to(retention.log_start).await
        {
            tracing::warn!(
                partition = %self.state.log.topic_partition(), %error,
                "the head of a log was not dropped; it will be tried again"
            );
        }
        self.is_retaining.set(false);
        self.changed.notify_waiters();
        self.state.moved();
    }
}
