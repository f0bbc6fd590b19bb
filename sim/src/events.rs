//! What happened in a run and how often: faults by kind, and what the nodes did that they do not do every day.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// Counts by name. Clones are the same counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    counts: Rc<RefCell<BTreeMap<&'static str, u64>>>,
}

impl Events {
    /// It happened so often more.
    pub fn add(&self, name: &'static str, more: u64) {
        if more > 0 {
            *self.counts.borrow_mut().entry(name).or_default() += more;
        }
    }

    /// How often it happened.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.borrow().get(name).copied().unwrap_or_default()
    }
}

/// `fault-kill: 3, reborn: 1`, in the order of the names.
impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> =
            self.counts.borrow().iter().map(|(name, count)| format!("{name}: {count}")).collect();
        f.write_str(&words.join(", "))
    }
}
