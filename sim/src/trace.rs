//! What happened, in order: one line per event.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// A log of events that all nodes of a run write to. Clones are the same log.
#[derive(Clone, Default)]
pub struct Trace {
    lines: Rc<RefCell<String>>,
}

impl Trace {
    /// Notes what a node saw, with its wall time.
    pub fn note(&self, wall_ms: i64, node: &str, event: fmt::Arguments<'_>) {
        use fmt::Write;
        // Writing to a string does not fail.
        let _ = writeln!(self.lines.borrow_mut(), "{wall_ms} {node}: {event}");
    }

    /// Returns all lines so far.
    pub fn lines(&self) -> String {
        self.lines.borrow().clone()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("bytes", &self.lines.borrow().len()).finish()
    }
}
