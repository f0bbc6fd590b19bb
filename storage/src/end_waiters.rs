//! Who waits for which end: written, flushed, or as safe as several replicas make it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tokio::sync::oneshot;

/// Waiters for one end, by what they wait for; `Why` is told to those for whom it will not come. For one thread. A waiter
/// that is dropped takes its entry with it.
#[derive(Debug)]
pub struct EndWaiters<End, Why> {
    waiting: RefCell<BTreeMap<(End, u64), Verdict<Why>>>,
    next_turn: Cell<u64>,
}

/// Tells one waiter whether its end came.
type Verdict<Why> = oneshot::Sender<Result<(), Why>>;

impl<End, Why> Default for EndWaiters<End, Why> {
    fn default() -> EndWaiters<End, Why> {
        EndWaiters { waiting: RefCell::new(BTreeMap::new()), next_turn: Cell::new(0) }
    }
}

impl<End: Copy + Ord, Why: Clone> EndWaiters<End, Why> {
    /// Resolves with the verdict at the moment it falls: what happens between then and the waiter's turn to run cannot
    /// change it. A record that was cut must not pass for the one that took its place.
    ///
    /// # Errors
    /// What was said when the end was given up.
    pub async fn wait_for(&self, end: End) -> Result<(), Why> {
        let (tell, told) = oneshot::channel();
        let turn = self.next_turn.get();
        self.next_turn.set(turn + 1);
        self.waiting.borrow_mut().insert((end, turn), tell);
        let _entry = Entry { waiters: self, key: (end, turn) };
        told.await.expect("an entry goes with a verdict, or with its waiter")
    }

    /// Everything up to `end` is there.
    pub fn reached(&self, end: End) {
        let mut waiting = self.waiting.borrow_mut();
        let later = waiting.split_off(&(end, u64::MAX));
        let arrived = std::mem::replace(&mut *waiting, later);
        drop(waiting);
        for (_, tell) in arrived {
            // Nobody listening any more is no news.
            let _ = tell.send(Ok(()));
        }
    }

    /// What is beyond `end` will not come; nothing will, if there is no end.
    pub fn give_up_beyond(&self, end: Option<End>, why: &Why) {
        let mut waiting = self.waiting.borrow_mut();
        let beyond = match end {
            Some(end) => waiting.split_off(&(end, u64::MAX)),
            None => std::mem::take(&mut *waiting),
        };
        drop(waiting);
        for (_, tell) in beyond {
            let _ = tell.send(Err(why.clone()));
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

struct Entry<'a, End: Ord, Why> {
    waiters: &'a EndWaiters<End, Why>,
    key: (End, u64),
}

impl<End: Ord, Why> Drop for Entry<'_, End, Why> {
    fn drop(&mut self) {
        self.waiters.waiting.borrow_mut().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn each_waiter_is_told_once_and_leaves_nothing_behind() {
        let waiters: EndWaiters<u64, &str> = EndWaiters::default();
        let mut context = Context::from_waker(Waker::noop());
        let (mut near, mut far, mut gone) =
            (pin!(waiters.wait_for(5)), pin!(waiters.wait_for(9)), Box::pin(waiters.wait_for(7)));
        for waiter in
            [near.as_mut() as std::pin::Pin<&mut dyn Future<Output = _>>, far.as_mut(), gone.as_mut()]
        {
            assert_eq!(waiter.poll(&mut context), Poll::Pending);
        }
        assert_eq!(waiters.len(), 3);
        drop(gone);
        assert_eq!(waiters.len(), 2);
        waiters.reached(5);
        // Too late to be taken back.
        waiters.give_up_beyond(None, &"cut");
        assert_eq!(near.poll(&mut context), Poll::Ready(Ok(())));
        assert_eq!(far.poll(&mut context), Poll::Ready(Err("cut")));
        assert!(waiters.is_empty());
    }
}
