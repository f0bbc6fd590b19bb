//! Wall-clock times as records carry them.

use std::fmt;

/// Milliseconds since 1970-01-01T00:00:00Z; producers may send any value, so nothing may be inferred from order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimestampMs(pub i64);

impl TimestampMs {
    /// "No timestamp" on the wire.
    pub const NONE: TimestampMs = TimestampMs(-1);

    /// The plain number.
    pub const fn value(self) -> i64 {
        self.0
    }
}

impl fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
