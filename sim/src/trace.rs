//! What happened, in order: one line per event.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// A log of events that all nodes of a run write to. Clones are the same log.
#[derive(Clone, Default)]
pub struct Trace {
    lines: Rc<RefCell<String>>,
    echo: bool,
}

impl Trace {
    /// A log that says every line on stdout, too, as it comes: among the nodes' own log lines.
    pub fn echoing() -> Trace {
        Trace { echo: true, ..Trace::default() }
    }

    /// Notes what a node saw, with its wall time.
    pub fn note(&self, wall_ms: i64, node: &str, event: fmt::Arguments<'_>) {
        let line = format!("{wall_ms} {node}: {event}\n");
        if self.echo {
            use std::io::Write;
            // Whoever closed the pipe does not want to hear it.
            let _ = std::io::stdout().write_all(line.as_bytes());
        }
        self.lines.borrow_mut().push_str(&line);
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
