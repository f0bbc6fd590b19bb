//! How a replica stops taking part: at once, or, as the only one that is left, with everything answered.

use std::time::Duration;

use super::{Inner, RaftGroup, Role};

/// How long a group of one may take to answer what was asked of it: what is left is some flushes.
const REST_TIME_MAX: Duration = Duration::from_secs(5);

impl RaftGroup {
    /// Stops taking part. The log stays open. Appends and messages are refused from now on; when this resolves neither
    /// openraft nor anything else of the group touches the log, or its record in the write-ahead file, any more.
    pub async fn shutdown(&self) {
        if self.inner.is_shut_down.replace(true) {
            return;
        }
        self.inner.state.give_up_acks();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(group = ?self, %error, "a replica stopped with an error");
        }
        if let Err(error) = self.checkpoint().await {
            tracing::warn!(group = ?self, %error, "a replica's committed entry was not noted");
        }
        self.inner.state.is_over.set(true);
        self.inner.tell_change();
    }

    /// Whether this replica leads and nobody else is a member, with a vote or without.
    pub fn is_alone(&self) -> bool {
        let status = self.status();
        status.role == Role::Leader
            && status.voters == [self.replica()]
            && status.learners.is_empty()
            && !self.is_joint()
    }

    /// Shuts down a group whose leader is its only member: refuses what is new, waits until all it has taken is committed and
    /// answered, and then stops taking part. All of its log is committed then, and nobody else can know of a newer reign.
    ///
    /// False if it is not alone, or cannot answer in time: then it goes on as before.
    pub async fn end_alone(&self) -> bool {
        let inner = &self.inner;
        // Whoever is changing the members would have made it one of several.
        let _unchanged = inner.changing.lock().await;
        if !self.is_alone() {
            return false;
        }
        inner.is_ending.set(true);
        let rests = inner.state.runtime.clock.timeout(REST_TIME_MAX, inner.at_rest()).await;
        if rests.is_err() || !self.is_alone() {
            inner.is_ending.set(false);
            inner.nudged.notify_one();
            return false;
        }
        self.shutdown().await;
        true
    }
}

impl Inner {
    /// Resolves when nothing waits for its place, every entry is applied, and the head of the log is not being dropped.
    async fn at_rest(&self) {
        loop {
            let (stepped, changed) = (self.state.stepped.notified(), self.changed.notified());
            let is_idle = !self.is_submitting.get() && self.pending.borrow().is_empty();
            if is_idle && !self.is_retaining.get() && self.state.applied() == self.state.log.last_entry() {
                return;
            }
            tokio::select! {
                biased;
                () = stepped => {}
                () = changed => {}
            }
        }
    }
}
