//! Who waits for a partition's watermarks to move: long polls, parked where they were accepted.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

/// A parked request. It registers with every partition it watches and is woken at most once.
#[derive(Default)]
pub struct Waiter {
    woken: AtomicBool,
    notify: Notify,
}

impl Waiter {
    /// A waiter nobody has woken yet.
    pub fn new() -> Arc<Waiter> {
        Arc::default()
    }

    /// Wakes it; later wakes cost one atomic read.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::Relaxed) {
            // Keeps the wake for a waiter that has not begun to wait yet.
            self.notify.notify_one();
        }
    }

    /// Resolves once it is woken. Cancel-safe: a wake is kept until it is taken.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

/// The waiters of one partition, owned by its core.
///
/// They are weak: a request that ended otherwise (deadline, other partition, connection gone) leaves only an entry that
/// the next wake or the next doubling sweeps out.
#[derive(Default)]
pub struct Waiters {
    parked: RefCell<Vec<Weak<Waiter>>>,
    sweep_at: Cell<usize>,
}

/// Dead entries are looked for once this many stand, then at each doubling.
const SWEEP_LEN_MIN: usize = 32;

impl Waiters {
    /// Adds a waiter.
    pub fn park(&self, waiter: &Arc<Waiter>) {
        let mut parked = self.parked.borrow_mut();
        parked.push(Arc::downgrade(waiter));
        if parked.len() >= self.sweep_at.get().max(SWEEP_LEN_MIN) {
            parked.retain(|waiter| waiter.strong_count() > 0);
            self.sweep_at.set(parked.len() * 2);
        }
    }

    /// Wakes all of them; each reads once more and parks anew if that is not enough.
    pub fn wake_all(&self) {
        for waiter in self.parked.borrow_mut().drain(..) {
            if let Some(waiter) = waiter.upgrade() {
                waiter.wake();
            }
        }
    }

    /// How many entries stand, dead ones included.
    pub fn count(&self) -> usize {
        self.parked.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wake_before_the_wait_is_not_lost() {
        let waiters = Waiters::default();
        let waiter = Waiter::new();
        waiters.park(&waiter);
        waiters.wake_all();
        waiter.woken().await;
        assert_eq!(waiters.count(), 0);
    }

    #[test]
    fn waiters_that_went_away_do_not_pile_up() {
        let waiters = Waiters::default();
        let alive = Waiter::new();
        waiters.park(&alive);
        for _ in 0..10_000 {
            waiters.park(&Waiter::new());
        }
        assert!(waiters.count() <= 2 * SWEEP_LEN_MIN, "{}", waiters.count());
        waiters.wake_all();
        assert!(alive.woken.load(Ordering::Relaxed));
    }
}
