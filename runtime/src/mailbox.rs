//! Mailboxes: how cores speak to each other.
//!
//! A sender pushes onto a lock-free queue ([`ouzel_sync::mailbox`]) and wakes the owner only when the queue was
//! empty: a burst costs one wake, which is what such a hop costs (about 14 us to wake an idle core, against
//! under 1 us for the queue).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ouzel_sync::mailbox::Queue;
use tokio::sync::Notify;

struct Shared<T> {
    queue: Queue<T>,
    /// Keeps one permit: a wake sent before the owner waits is not lost.
    wake: Notify,
    senders: AtomicUsize,
    receiver_gone: AtomicBool,
}

/// Opens a mailbox.
///
/// It is unbounded: a sender is bounded by the budget of what it answers for, never by blocking here.
pub fn channel<T>() -> (MailSender<T>, MailReceiver<T>) {
    let shared = Arc::new(Shared {
        queue: Queue::new(),
        wake: Notify::new(),
        senders: AtomicUsize::new(1),
        receiver_gone: AtomicBool::new(false),
    });
    (MailSender { shared: shared.clone() }, MailReceiver { shared })
}

/// A sender's end; `Send`, `Sync` and cheap to clone.
pub struct MailSender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> MailSender<T> {
    /// Hands a value to the owner and wakes it if it may be asleep. Never blocks.
    ///
    /// # Errors
    /// Gives the value back when the receiver is gone. A value sent while the receiver goes may be dropped
    /// with the mailbox instead.
    pub fn send(&self, value: T) -> Result<(), Closed<T>> {
        if self.shared.receiver_gone.load(Ordering::Acquire) {
            return Err(Closed(value));
        }
        if self.shared.queue.push(value) {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Says whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.receiver_gone.load(Ordering::Acquire)
    }
}

impl<T> Clone for MailSender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Self { shared: self.shared.clone() }
    }
}

impl<T> Drop for MailSender<T> {
    fn drop(&mut self) {
        // Release: the owner that reads 0 (Acquire) and drains once more sees everything we pushed.
        if self.shared.senders.fetch_sub(1, Ordering::Release) == 1 {
            self.shared.wake.notify_one();
        }
    }
}

impl<T> fmt::Debug for MailSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailSender").field("closed", &self.is_closed()).finish()
    }
}

/// The owner's end; `Send`, so that it can be carried to its core.
pub struct MailReceiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> MailReceiver<T> {
    /// Waits for values and puts all there are onto the end of `out`; returns how many.
    ///
    /// Returns 0 only when all senders are gone and nothing is left. Dropping the future loses no value.
    pub async fn recv_many(&mut self, out: &mut Vec<T>) -> usize {
        loop {
            let taken = self.try_recv_many(out);
            if taken > 0 {
                return taken;
            }
            if self.shared.senders.load(Ordering::Acquire) == 0 {
                // The last sender may have pushed between our drain and its going.
                return self.try_recv_many(out);
            }
            self.shared.wake.notified().await;
        }
    }

    /// Takes what is there without waiting; returns how many.
    pub fn try_recv_many(&mut self, out: &mut Vec<T>) -> usize {
        let before = out.len();
        self.shared.queue.drain(out);
        out.len() - before
    }
}

impl<T> Drop for MailReceiver<T> {
    fn drop(&mut self) {
        self.shared.receiver_gone.store(true, Ordering::Release);
        // What is queued may hold others' reply handles: let them know now, not when the last sender goes.
        self.shared.queue.drain(&mut Vec::new());
    }
}

impl<T> fmt::Debug for MailReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailReceiver").field("empty", &self.shared.queue.is_empty()).finish()
    }
}

/// The receiver of a mailbox is gone; the value comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed<T>(pub T);

impl<T> fmt::Display for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the mailbox has no owner any more")
    }
}

impl<T: fmt::Debug> std::error::Error for Closed<T> {}
