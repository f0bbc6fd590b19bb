//! What can go wrong with a log, with the facts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ouzel_model::Offset;

/// A log that takes no more records, and why; also what a waiter hears whose records were cut. It stays so until it is opened anew: after a failed flush nobody knows
/// what is on the disk, and a second attempt that succeeds would prove nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// One sentence.
    pub reason: Arc<str>,
}

impl Fenced {
    /// Fences with a reason.
    pub fn new(reason: impl fmt::Display) -> Fenced {
        Fenced { reason: reason.to_string().into() }
    }
}

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Fenced {}

/// Bytes on disk that are not what was written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which file.
    pub file: PathBuf,
    /// Where in it.
    pub position: u64,
    /// What should be there.
    pub expected: String,
    /// What is.
    pub found: String,
}

impl Damage {
    pub(crate) fn new(
        file: &Path,
        position: u64,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Damage {
        Damage { file: file.to_owned(), position, expected: expected.to_string(), found: found.to_string() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { file, position, expected, found } = self;
        write!(f, "{} is damaged at position {position}: expected {expected}, found {found}", file.display())
    }
}

impl std::error::Error for Damage {}

/// Why a log does not open. Other logs of the broker do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk refuses.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        source: std::io::Error,
    },
    /// Flushed bytes are damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The directory belongs to another incarnation of the topic.
    #[error("{} belongs to topic id {found}, expected {expected}", path.display())]
    OtherTopic {
        /// The directory.
        path: PathBuf,
        /// The id that was asked for.
        expected: String,
        /// The id it carries.
        found: String,
    },
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk refuses.
    #[error("read {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What came of it.
        source: std::io::Error,
    },
    /// What was read is not what was written.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The partition was deleted.
    #[error("the partition was deleted")]
    Deleted,
    /// Below the log's start or above its end.
    #[error("offset {from} is outside the log [{log_start}, {log_end}]")]
    OutOfRange {
        /// Asked for.
        from: Offset,
        /// Inclusive.
        log_start: Offset,
        /// Exclusive.
        log_end: Offset,
    },
}

/// Why a batch was not appended; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// See [`Fenced`].
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The disk is nearly full.
    #[error("the disk has less room than the broker keeps free")]
    DiskLow,
    /// The bytes are no batch.
    #[error("{0}")]
    NotABatch(String),
    /// The entry is not the one that belongs at the log's end.
    #[error("{0}")]
    OutOfOrder(String),
}
