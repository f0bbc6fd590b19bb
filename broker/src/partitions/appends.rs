//! Waking who sleeps until something is appended on a core.

use std::cell::Cell;

use tokio::sync::Notify;

/// Told by every partition of the core whose log has grown, whoever wrote to it: a client here, or the leader elsewhere.
#[derive(Default)]
pub(crate) struct Appends {
    appended: Notify,
    /// Somebody sleeps: nothing else costs anything.
    is_watched: Cell<bool>,
}

impl Appends {
    /// Something was appended.
    pub(crate) fn note(&self) {
        if self.is_watched.replace(false) {
            self.appended.notify_waiters();
        }
    }

    /// Resolves at the next append.
    pub(crate) async fn next(&self) {
        let appended = self.appended.notified();
        self.is_watched.set(true);
        appended.await;
    }
}
