//! The head of a partition's log: what retention lets go of, on the only replica, or by the leader's word on all.

use std::rc::Rc;

use ouzel_model::{Offset, TimestampMs};
use ouzel_storage::ReadError;

use super::Partition;

impl Partition {
    /// Drops what retention keeps no longer. Of a group the leader does it for all: its followers are told.
    ///
    /// # Errors
    /// If a segment's age cannot be read; nothing was dropped then.
    pub(crate) async fn retain(self: &Rc<Self>, now: TimestampMs) -> Result<(), ReadError> {
        let log = self.log_handle();
        if self.log.group().is_none() {
            let segments = log.retain(now).await?;
            if segments > 0 {
                tracing::info!(partition = %self.topic_partition, segments, "retention dropped segments");
            }
        } else if self.log.leads() {
            let start = log.retention_start(now).await?;
            self.let_go(start.unwrap_or(Offset::ZERO));
        }
        Ok(())
    }

    /// Lets what all members of its group hold become plain data, which compaction may touch: the leader's business. A log
    /// with a single replica has no entries.
    pub(crate) fn release_entries(self: &Rc<Self>) {
        if self.log.leads() {
            self.let_go(Offset::ZERO);
        }
    }

    /// Tells the group, in a task: without a majority that takes as long as there is none, and all other partitions wait
    /// for whoever looks after them. One at a time.
    fn let_go(self: &Rc<Self>, log_start: Offset) {
        let Some(group) = self.log.group().cloned() else { return };
        if self.is_letting_go.replace(true) {
            return;
        }
        let partition = self.clone();
        ouzel_runtime::spawn(async move {
            // A leader that is none any more leaves it to the next.
            let _ = group.retain(log_start.max(partition.log_start())).await;
            partition.is_letting_go.set(false);
        });
    }
}
