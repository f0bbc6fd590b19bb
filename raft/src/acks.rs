//! Who waits for which end to be safe (acks=all).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use ouzel_model::Offset;
use tokio::sync::oneshot;

use crate::replicated_log::Unacknowledged;

/// Tells one waiter.
type Verdict = oneshot::Sender<Result<(), Unacknowledged>>;

/// Waiters for moment two, by the offset they wait for.
///
/// They wait for an offset and not for an entry, because a repeated batch waits for its original. That is sound as long as
/// the leader's log is never cut, so all of them are told no with the reign's end, before anything else can take a place.
#[derive(Default)]
pub(crate) struct Acks {
    waiting: RefCell<BTreeMap<(Offset, u64), Verdict>>,
    next_turn: Cell<u64>,
}

impl Acks {
    /// Resolves with the verdict at the moment it falls.
    pub(crate) async fn wait_for(self: Rc<Acks>, end: Offset) -> Result<(), Unacknowledged> {
        let (tell, told) = oneshot::channel();
        let turn = self.next_turn.get();
        self.next_turn.set(turn + 1);
        self.waiting.borrow_mut().insert((end, turn), tell);
        let entry = Entry { acks: &self, key: (end, turn) };
        let verdict = told.await.unwrap_or(Err(Unacknowledged::LeadershipLost));
        drop(entry);
        verdict
    }

    /// Everything below `end` is safe.
    pub(crate) fn reached(&self, end: Offset) {
        let mut waiting = self.waiting.borrow_mut();
        let later = waiting.split_off(&(end, u64::MAX));
        let arrived = std::mem::replace(&mut *waiting, later);
        drop(waiting);
        for (_, tell) in arrived {
            // Nobody listening any more is no news.
            let _ = tell.send(Ok(()));
        }
    }

    /// Nobody will be told that anything is safe.
    pub(crate) fn give_up(&self, why: &Unacknowledged) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for (_, tell) in waiting {
            let _ = tell.send(Err(why.clone()));
        }
    }
}

struct Entry<'a> {
    acks: &'a Acks,
    key: (Offset, u64),
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.acks.waiting.borrow_mut().remove(&self.key);
    }
}
