//! Who waits for which end of a log.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use ouzel_model::Offset;
use tokio::sync::oneshot;

/// The waiters of a log and the one hook of its owner.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) written: EndWaiters,
    pub(super) flushed: EndWaiters,
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

    /// Wakes everybody; they find out why by looking.
    pub(super) fn give_up(&self) {
        self.written.wake_all();
        self.flushed.wake_all();
        self.moved();
    }
}

/// Waiters for one end, by the offset they wait for. One that was dropped leaves an entry until its offset passes.
#[derive(Default)]
pub(super) struct EndWaiters {
    waiting: RefCell<BTreeMap<(Offset, u64), oneshot::Sender<()>>>,
    next: Cell<u64>,
}

impl EndWaiters {
    pub(super) async fn wait_for(&self, end: Offset) {
        let (wake, woken) = oneshot::channel();
        let turn = self.next.get();
        self.next.set(turn + 1);
        self.waiting.borrow_mut().insert((end, turn), wake);
        // An error is the same news: look again.
        let _ = woken.await;
    }

    pub(super) fn reached(&self, end: Offset) {
        let mut waiting = self.waiting.borrow_mut();
        let later = waiting.split_off(&(end, u64::MAX));
        for (_, wake) in std::mem::replace(&mut *waiting, later) {
            let _ = wake.send(());
        }
    }

    pub(super) fn wake_all(&self) {
        self.waiting.take();
    }
}
