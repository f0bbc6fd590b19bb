//! The queue of a mailbox: many senders, one owner, no lock, and at most one wake for a burst.
//!
//! ```text
//!   push: head ──► newest ──► ... ──► oldest      a new node points at the old head, then becomes the head
//!   drain: take the whole list with one swap, reverse it, hand it out oldest first
//! ```
//!
//! Who may touch what: a node belongs to its sender until the compare-and-swap that publishes it, from then on
//! to nobody, and after the swap in [`Queue::drain`] to the drainer alone. Nodes are never popped one by one, so
//! the classic ABA trouble of such lists cannot arise.
//!
//! Wakes: the push that found the list empty must wake the owner; every other push finds a list whose first
//! sender has woken the owner already, or is about to. So a burst costs one wake, and no value waits unseen.

use std::fmt;
use std::ptr;

use crate::shim::{AtomicPtr, Ordering, UnsafeCell};

struct Node<T> {
    /// The next older node. Written by the sender before publication, read by the drainer after its swap.
    next: *mut Node<T>,
    value: UnsafeCell<Option<T>>,
}

/// A lock-free queue from many senders to one owner, taken all at once.
pub struct Queue<T> {
    head: AtomicPtr<Node<T>>,
}

// SAFETY: the queue moves values of T between threads and never shares a reference to one: T: Send is what
// both need. Nodes are reachable through one atomic pointer only, whose protocol is described above.
unsafe impl<T: Send> Send for Queue<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Queue<T> {}

impl<T> Queue<T> {
    /// Returns an empty queue.
    pub fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Adds a value and returns whether the queue was empty: if so, the caller must now wake the owner.
    ///
    /// Never blocks and never fails; the list is unbounded, so senders must be bounded by what they answer for.
    #[must_use = "true means that the owner sleeps and nobody else will wake it"]
    pub fn push(&self, value: T) -> bool {
        let node =
            Box::into_raw(Box::new(Node { next: ptr::null_mut(), value: UnsafeCell::new(Some(value)) }));
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node came from a Box just above and is not published yet: nobody else can reach it.
            unsafe { (*node).next = head };
            // Release publishes the node's fields to the drainer's Acquire swap. Every later push is a
            // read-modify-write of the same atomic and so continues this release sequence: one Acquire of the
            // newest head sees all older nodes as well.
            match self.head.compare_exchange_weak(head, node, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return head.is_null(),
                Err(found) => head = found,
            }
        }
    }

    /// Takes everything there is, oldest first, onto the end of `out`.
    ///
    /// Values of one sender keep their order; across senders the order is that of the pushes' publication.
    pub fn drain(&self, out: &mut Vec<T>) {
        let mut newest = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        let from = out.len();
        while !newest.is_null() {
            // SAFETY: the swap made this whole list ours alone; each node was a Box and is unboxed once.
            let node = unsafe { Box::from_raw(newest) };
            newest = node.next;
            // SAFETY: the node is owned here, so no other access to its cell can exist.
            let value = node.value.with_mut(|value| unsafe { (*value).take() });
            out.extend(value);
        }
        out[from..].reverse();
    }

    /// Says whether nothing is queued at this instant; another core may push at the next.
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        self.drain(&mut Vec::new());
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("is_empty", &self.is_empty()).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn drains_in_order_and_tells_when_to_wake() {
        let queue = Queue::new();
        assert!(queue.push(1));
        assert!(!queue.push(2));
        let mut out = vec![0];
        queue.drain(&mut out);
        assert_eq!(out, [0, 1, 2]);
        assert!(queue.is_empty());
        assert!(queue.push(3), "after a drain the next push wakes again");
    }

    #[test]
    fn drops_what_nobody_took() {
        let value = std::sync::Arc::new(());
        let queue = Queue::new();
        assert!(queue.push(value.clone()));
        drop(queue);
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
    }
}

/// The queue under every interleaving of small scenes.
#[cfg(all(test, loom))]
mod searched {
    use loom::sync::{Arc, Notify};
    use loom::thread;

    use super::*;

    /// An owner that sleeps unless told to wake, and senders that tell it as `push` says.
    struct Mailbox {
        queue: Queue<(usize, Arc<usize>)>,
        wake: Notify,
    }

    impl Mailbox {
        fn new() -> Arc<Self> {
            Arc::new(Self { queue: Queue::new(), wake: Notify::new() })
        }

        fn send(&self, sender: usize, number: usize) {
            if self.queue.push((sender, Arc::new(number))) {
                self.wake.notify();
            }
        }

        /// Looks at the queue only after a wake; loom reports a deadlock if one is lost.
        fn receive(&self, count: usize) -> Vec<(usize, usize)> {
            let mut received = Vec::new();
            while received.len() < count {
                self.wake.wait();
                self.queue.drain(&mut received);
            }
            received.into_iter().map(|(sender, number)| (sender, *number)).collect()
        }
    }

    fn numbers_of(received: &[(usize, usize)], sender: usize) -> Vec<usize> {
        received.iter().filter(|(from, _)| *from == sender).map(|(_, number)| *number).collect()
    }

    #[test]
    fn no_value_and_no_wake_is_lost_and_each_sender_keeps_its_order() {
        // Unbounded, three threads take minutes; two preemptions find what is to be found.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let mailbox = Mailbox::new();
            let other = mailbox.clone();
            let sender = thread::spawn(move || {
                other.send(1, 0);
                other.send(1, 1);
            });
            let third = mailbox.clone();
            let second_sender = thread::spawn(move || third.send(2, 0));
            let received = mailbox.receive(3);
            assert_eq!(numbers_of(&received, 1), [0, 1]);
            assert_eq!(numbers_of(&received, 2), [0]);
            sender.join().unwrap();
            second_sender.join().unwrap();
            assert!(mailbox.queue.is_empty());
        });
    }

    /// Loom's Arc counts: a value leaked, or dropped twice, fails the model.
    #[test]
    fn what_nobody_takes_is_dropped_once() {
        loom::model(|| {
            let mailbox = Mailbox::new();
            let other = mailbox.clone();
            let sender = thread::spawn(move || other.send(1, 0));
            let mut taken = Vec::new();
            mailbox.queue.drain(&mut taken);
            assert!(taken.len() <= 1);
            sender.join().unwrap();
        });
    }

    /// A planted bug: the sender looks before it pushes. The owner may empty the queue in between, and sleeps.
    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_lost_wake_would_be_found() {
        loom::model(|| {
            let mailbox = Mailbox::new();
            let other = mailbox.clone();
            let sender = thread::spawn(move || {
                for number in 0..2 {
                    let looked_empty = other.queue.is_empty();
                    let _ = other.queue.push((1, Arc::new(number)));
                    if looked_empty {
                        other.wake.notify();
                    }
                }
            });
            mailbox.receive(2);
            sender.join().unwrap();
        });
    }
}
