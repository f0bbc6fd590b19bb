//! A value that tasks of one core wait for.

use std::cell::Cell;
use std::fmt;

use tokio::sync::Notify;

/// A value that changes, and wakes the tasks that wait for it in the order in which they began to wait.
///
/// tokio's `watch` wakes several receivers in an order drawn by chance of its own, which no seed reaches: two runs of a
/// simulation would differ. It has its place where one task waits, or another thread.
pub struct Reached<T> {
    value: Cell<T>,
    changed: Notify,
}

impl<T: Copy> Reached<T> {
    /// Begins with a value.
    pub fn new(value: T) -> Reached<T> {
        Reached { value: Cell::new(value), changed: Notify::new() }
    }

    /// Returns the value as it is.
    pub fn get(&self) -> T {
        self.value.get()
    }

    /// Changes it.
    pub fn set(&self, value: T) {
        self.value.set(value);
        self.changed.notify_waiters();
    }

    /// Resolves when `holds` holds of the value, with that value.
    pub async fn wait_for(&self, holds: impl Fn(T) -> bool) -> T {
        loop {
            // Made before the look: a change after it is not missed.
            let changed = self.changed.notified();
            let value = self.get();
            if holds(value) {
                return value;
            }
            changed.await;
        }
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for Reached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reached").field(&self.get()).finish()
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn waiters_are_woken_in_the_order_they_came_and_only_by_what_they_wait_for() {
        crate::sim::run(1, |_| async {
            let (reached, seen) = (Rc::new(Reached::new(0)), Rc::new(RefCell::new(Vec::new())));
            let wait = |name: u32, end: u32| {
                let (reached, seen) = (reached.clone(), seen.clone());
                crate::spawn(async move {
                    let found = reached.wait_for(|value| value >= end).await;
                    seen.borrow_mut().push((name, found));
                })
            };
            let waiting: Vec<_> = (0..20).map(|name| wait(name, 1 + name % 2)).collect();
            tokio::task::yield_now().await;
            reached.set(1);
            tokio::task::yield_now().await;
            reached.set(2);
            for waiting in waiting {
                waiting.await.unwrap();
            }
            let expected: Vec<_> = (0..20).map(|name| (name, 1 + name % 2)).collect();
            let mut sorted = expected.clone();
            sorted.sort_by_key(|(name, found)| (*found, *name));
            assert_eq!(*seen.borrow(), sorted);
        });
    }
}
