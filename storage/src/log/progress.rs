//! Who waits for which end of a log.

use std::cell::RefCell;
use std::rc::Rc;

use ouzel_model::{EntryIndex, Offset};

use crate::end_waiters::EndWaiters;
use crate::error::Fenced;

/// The waiters of a log and the one hook of its owner.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) written: EndWaiters<Offset, Fenced>,
    pub(super) flushed: EndWaiters<Offset, Fenced>,
    /// By the entry that is waited for.
    pub(super) entries_written: EndWaiters<EntryIndex, Fenced>,
    pub(super) entries_flushed: EndWaiters<EntryIndex, Fenced>,
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
