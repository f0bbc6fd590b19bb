//! What the tests of a whole node share: a node (here or in a process of its own) and a client that says exactly what
//! a test wants said.

pub(crate) mod node;
pub(crate) mod process;
pub(crate) mod records;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Far beyond what anything here takes: a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what is waited for.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Looks until there is what is looked for, and gives it.
#[track_caller]
pub(crate) fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it is never so: {what}");
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// Looks until it is so.
#[track_caller]
pub(crate) fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    await_some(what, || is_so().then_some(()));
}

/// The segments in a partition's directory: bytes by base offset.
pub(crate) fn segments(dir: &Path) -> BTreeMap<i64, u64> {
    let segment = |file: std::fs::DirEntry| {
        let base = file.file_name().to_str()?.strip_suffix(".log")?.parse().ok()?;
        // One that was replaced or dropped meanwhile counts for nothing.
        Some((base, file.metadata().ok()?.len()))
    };
    std::fs::read_dir(dir).unwrap().map(Result::unwrap).filter_map(segment).collect()
}
