//! What a cluster can agree to use: features, each with levels, by Kafka's names and numbers.
//!
//! Every broker says which levels it knows; the cluster uses a level that all of them do. Listed are only features that
//! do something here: a client that reads of one uses it.

use std::collections::BTreeMap;
use std::fmt;

/// The feature that says what the controller's records may say.
pub const METADATA_VERSION: &str = "metadata.version";
/// The feature that says how the controller's voters change.
pub const KRAFT_VERSION: &str = "kraft.version";

/// The levels of a feature a broker knows, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelRange {
    /// The lowest above "not used".
    pub min: i16,
    /// The highest.
    pub max: i16,
}

impl LevelRange {
    /// Whether the level is one of them.
    pub fn contains(self, level: i16) -> bool {
        (self.min..=self.max).contains(&level)
    }
}

impl fmt::Display for LevelRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

/// What this release knows. Kafka 4.3 has the same numbers for these.
pub const SUPPORTED: [(&str, LevelRange); 2] =
    [(KRAFT_VERSION, LevelRange { min: 0, max: 1 }), (METADATA_VERSION, LevelRange { min: 7, max: 30 })];

/// What this release knows, as a broker registers it.
pub fn supported() -> BTreeMap<String, LevelRange> {
    SUPPORTED.iter().map(|(name, range)| ((*name).to_owned(), *range)).collect()
}

/// The levels a cluster has agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// Rises with each change; -1 while nothing was ever agreed on.
    pub epoch: i64,
    /// By feature; one that is not here is not used, which is its level 0.
    pub levels: BTreeMap<String, i16>,
}

impl Default for Features {
    fn default() -> Features {
        Features { epoch: -1, levels: BTreeMap::new() }
    }
}

impl Features {
    /// The level of one feature.
    pub fn level(&self, name: &str) -> i16 {
        self.levels.get(name).copied().unwrap_or(0)
    }
}
