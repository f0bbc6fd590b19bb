//! What the tests of a whole node share: a node (here or in a process of its own) and a client that says exactly what
//! a test wants said.

pub(crate) mod node;
pub(crate) mod process;
pub(crate) mod records;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// Far beyond what anything here takes: a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Looks until something holds; fails where it never does.
#[track_caller]
pub(crate) fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
