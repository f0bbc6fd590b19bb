//! Who waits for which end of a log.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use ouzel_model::{EntryIndex, Offset};
use tokio::sync::oneshot;

use crate::error::Fenced;

/// The waiters of a log and the one hook of its owner.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) written: EndWaiters<Offset>,
    pub(super) flushed: EndWaiters<Offset>,
    /// By the entry that is waited for.
    pub(super) entries_written: EndWaiters<EntryIndex>,
    pub(super) entries_flushed: EndWaiters<EntryIndex>,
    hook: RefCell<Option<Rc<dyn Fn()>>>,
}

impl Progress {
    pub(super) fn set_hook(&self, hook: Rc<dyn Fn()>) {
        self.hook.replace(Some(hook));
    }

    /// Calls the hook. No borrow of the log's state may be held.
    pub(super) fn moved(&self) {
        let hook = self.hook.borrow().clone();
        if let Some(hook) = hook {
            hook();
        }
    }

    /// Tells everybody who waits for more than `end` that it will not come.
    pub(super) fn give_up_beyond(&self, end: Offset, why: &Fenced) {
        self.written.give_up_beyond(Some(end), why);
        self.flushed.give_up_beyond(Some(end), why);
    }

    /// Tells everybody who waits for an entry behind `last` that it will not come.
    pub(super) fn give_up_entries_behind(&self, last: Option<EntryIndex>, why: &Fenced) {
        self.entries_written.give_up_beyond(last, why);
        self.entries_flushed.give_up_beyond(last, why);
    }
}

/// Tells one waiter whether its end came.
type Verdict = oneshot::Sender<Result<(), Fenced>>;

/// Waiters for one end, by what they wait for. A waiter that is dropped takes its entry with it.
pub(super) struct EndWaiters<End> {
    waiting: RefCell<BTreeMap<(End, u64), Verdict>>,
    next_turn: Cell<u64>,
}

impl<End> Default for EndWaiters<End> {
    fn default() -> EndWaiters<End> {
        EndWaiters { waiting: RefCell::new(BTreeMap::new()), next_turn: Cell::new(0) }
    }
}

impl<End: Copy + Ord> EndWaiters<End> {
    /// Resolves with the verdict at the moment it falls: what happens to the log between then and the waiter's turn to
    /// run cannot change it. A record that was cut must not pass for the one that took its place.
    pub(super) async fn wait_for(&self, end: End) -> Result<(), Fenced> {
        let (tell, told) = oneshot::channel();
        let turn = self.next_turn.get();
        self.next_turn.set(turn + 1);
        self.waiting.borrow_mut().insert((end, turn), tell);
        let _entry = Entry { waiters: self, key: (end, turn) };
        told.await.unwrap_or_else(|_| Err(Fenced::new("the log was closed")))
    }

    pub(super) fn reached(&self, end: End) {
        let mut waiting = self.waiting.borrow_mut();
        let later = waiting.split_off(&(end, u64::MAX));
        let arrived = std::mem::replace(&mut *waiting, later);
        drop(waiting);
        for (_, tell) in arrived {
            // Nobody listening any more is no news.
            let _ = tell.send(Ok(()));
        }
    }

    /// All of them, if there is no end.
    fn give_up_beyond(&self, end: Option<End>, why: &Fenced) {
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

    pub(super) fn len(&self) -> usize {
        self.waiting.borrow().len()
    }
}

struct Entry<'a, End: Ord> {
    waiters: &'a EndWaiters<End>,
    key: (End, u64),
}

impl<End: Ord> Drop for Entry<'_, End> {
    fn drop(&mut self) {
        self.waiters.waiting.borrow_mut().remove(&self.key);
    }
}
