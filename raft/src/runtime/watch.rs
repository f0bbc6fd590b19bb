//! A watch channel for one thread: the last value sent, and receivers that are woken in the order of their numbers.
//!
//! tokio's spreads its receivers over several lists by chance, so that two runs of one seed wake them in different
//! orders. Meaning and edge cases are tokio's otherwise: a value sent to no receiver is given back, a receiver sees an
//! unseen value before it sees that the senders are gone.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use openraft_rt::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};

/// The kind of channel.
pub(crate) struct OuzelWatch;

struct Shared<T> {
    value: RefCell<T>,
    /// Counts the values sent.
    version: Cell<u64>,
    senders: Cell<usize>,
    receivers: Cell<usize>,
    next_receiver: Cell<u64>,
    /// By receiver.
    waiting: RefCell<BTreeMap<u64, Waker>>,
}

impl<T> Shared<T> {
    fn wake_all(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    fn receiver(self: &Rc<Self>, seen: u64) -> Receiver<T> {
        let number = self.next_receiver.get();
        self.next_receiver.set(number + 1);
        self.receivers.set(self.receivers.get() + 1);
        Receiver { shared: self.clone(), number, seen }
    }
}

/// Sends values.
pub(crate) struct Sender<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.set(self.shared.senders.get() + 1);
        Sender { shared: self.shared.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let left = self.shared.senders.get() - 1;
        self.shared.senders.set(left);
        if left == 0 {
            self.shared.wake_all();
        }
    }
}

/// Sees the last value sent.
pub(crate) struct Receiver<T> {
    shared: Rc<Shared<T>>,
    number: u64,
    seen: u64,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receiver(self.seen)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.set(self.shared.receivers.get() - 1);
        self.shared.waiting.borrow_mut().remove(&self.number);
    }
}

impl Watch for OuzelWatch {
    type Sender<T> = Sender<T>;
    type Receiver<T> = Receiver<T>;
    type Ref<'a, T: 'a> = Ref<'a, T>;

    fn channel<T>(init: T) -> (Sender<T>, Receiver<T>) {
        let shared = Rc::new(Shared {
            value: RefCell::new(init),
            version: Cell::new(0),
            senders: Cell::new(1),
            receivers: Cell::new(0),
            next_receiver: Cell::new(0),
            waiting: RefCell::default(),
        });
        let receiver = shared.receiver(0);
        (Sender { shared }, receiver)
    }
}

impl<T> WatchSender<OuzelWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.shared.receivers.get() == 0 {
            return Err(SendError(value));
        }
        // The old value's own drop must not find the channel borrowed.
        let old = self.shared.value.replace(value);
        drop(old);
        self.shared.version.set(self.shared.version.get() + 1);
        self.shared.wake_all();
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        let is_modified = modify(&mut self.shared.value.borrow_mut());
        if is_modified {
            self.shared.version.set(self.shared.version.get() + 1);
            self.shared.wake_all();
        }
        is_modified
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.shared.value.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        self.shared.receiver(self.shared.version.get())
    }
}

impl<T> WatchReceiver<OuzelWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        poll_fn(|context| {
            let version = self.shared.version.get();
            if version != self.seen {
                self.seen = version;
                return Poll::Ready(Ok(()));
            }
            if self.shared.senders.get() == 0 {
                return Poll::Ready(Err(RecvError(())));
            }
            self.shared.waiting.borrow_mut().insert(self.number, context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.shared.value.borrow()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.seen = self.shared.version.get();
        self.shared.value.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_counts_and_the_end_is_seen_after_it() {
        ouzel_runtime::sim::run(1, |_| async {
            let (sender, mut one) = OuzelWatch::channel(0);
            let mut other = one.clone();
            sender.send(1).expect("two receivers");
            sender.send(2).expect("two receivers");
            one.changed().await.expect("an unseen value");
            assert_eq!(*one.borrow_watched(), 2);
            assert!(!sender.send_if_modified(|_| false));
            drop(sender);
            other.changed().await.expect("an unseen value comes before the end");
            assert!(other.changed().await.is_err() && one.changed().await.is_err());
        });
    }

    #[test]
    fn receivers_wake_in_the_order_of_their_making() {
        ouzel_runtime::sim::run(1, |_| async {
            let (sender, receiver) = OuzelWatch::channel(());
            let woken = Rc::new(RefCell::new(Vec::new()));
            let mut tasks = Vec::new();
            for i in 0..20 {
                let (mut receiver, woken) = (receiver.clone(), woken.clone());
                tasks.push(ouzel_runtime::spawn(async move {
                    receiver.changed().await.expect("a value");
                    woken.borrow_mut().push(i);
                }));
            }
            drop(receiver);
            ouzel_runtime::yield_now().await;
            sender.send(()).expect("receivers");
            for task in tasks {
                task.await.expect("no panic");
            }
            assert_eq!(*woken.borrow(), (0..20).collect::<Vec<_>>());
            assert!(sender.send(()).is_err(), "a value for nobody is given back");
        });
    }
}
