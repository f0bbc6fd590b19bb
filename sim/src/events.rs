//! What happened in a run and how often: faults by kind, and what the nodes did that they do not do every day.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// Counts by name. Clones are the same counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    counts: Rc<RefCell<BTreeMap<String, u64>>>,
}

impl Events {
    /// It happened so often more.
    pub fn add(&self, name: &str, more: u64) {
        if more > 0 {
            *self.counts.borrow_mut().entry(name.to_owned()).or_default() += more;
        }
    }

    /// A fault struck. It is counted by what it is, not where: `KillAll` as `fault-kill-all`, `Cut("a", "b")` as `fault-cut`.
    pub(crate) fn add_fault(&self, fault: &impl fmt::Debug) {
        let shown = format!("{fault:?}");
        let variant = shown.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let mut name = "fault".to_owned();
        for c in variant.chars() {
            if c.is_uppercase() {
                name.push('-');
            }
            name.extend(c.to_lowercase());
        }
        self.add(&name, 1);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_counted_by_what_it_is() {
        #[derive(Debug)]
        #[expect(dead_code, reason = "shown")]
        enum Fault {
            KillAll,
            CutOneWay(String, String),
            FullDisk { node: usize },
        }
        let events = Events::default();
        events.add_fault(&Fault::KillAll);
        events.add_fault(&Fault::CutOneWay("Kill".to_owned(), "All".to_owned()));
        events.add_fault(&Fault::CutOneWay(String::new(), String::new()));
        events.add_fault(&Fault::FullDisk { node: 1 });
        assert_eq!(events.to_string(), "fault-cut-one-way: 2, fault-full-disk: 1, fault-kill-all: 1");
    }
}
