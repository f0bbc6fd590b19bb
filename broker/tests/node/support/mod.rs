//! What the tests of a whole node share: a node (here or in a process of its own) and a client that says exactly what
//! a test wants said.

pub(crate) mod node;
pub(crate) mod process;
pub(crate) mod records;
pub(crate) mod wire;

use std::time::Duration;

/// Far beyond what anything here takes: a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
