//! Positions in a partition's log, counted in records.

use std::fmt;
use std::ops::{Add, Sub};

/// The place of one record in a partition, from 0.
///
/// Names say which end a bound is: `last_offset` includes the record it names, `log_end_offset`, `high_watermark` and
/// every `*_end` exclude it. Two offsets subtract to a count of records; they never add.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

impl Offset {
    /// The offset of the first record a topic ever gets.
    pub const ZERO: Offset = Offset(0);
    /// "None" on the wire and in checkpoints.
    pub const NONE: Offset = Offset(-1);

    /// The plain number.
    pub const fn value(self) -> i64 {
        self.0
    }

    /// The offset right behind this one.
    pub const fn next(self) -> Offset {
        Offset(self.0 + 1)
    }
}

impl Add<i64> for Offset {
    type Output = Offset;
    fn add(self, records: i64) -> Offset {
        Offset(self.0 + records)
    }
}

impl Sub for Offset {
    type Output = i64;
    fn sub(self, earlier: Offset) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}
