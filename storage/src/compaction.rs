//! Log compaction: of each key the newest record stays, and offsets never change.
//!
//! A log has a *clean* head, in which each key is there once, and a *dirty* rest. A pass reads the dirty part and
//! remembers the newest offset of each key ([`key_map`]); then it writes every segment up to there anew without the
//! records that a newer one of their key has replaced ([`cleaning`]), and puts the new segments in the place of the old
//! ones. What it may touch and whether it is due is decided beforehand ([`plan`]).
//!
//! The rules are Kafka's:
//!
//! * never beyond the bound it is given (the last stable offset), never the active segment, no segment with a record
//!   younger than `min.compaction.lag.ms`;
//! * a record without a value, a *tombstone*, and the marker of a transaction whose records are gone, get a *delete
//!   horizon* in the first pass that meets them, and go in the first pass behind it (KIP-534);
//! * records of aborted transactions go at once, their markers not before them ([`transactions`]);
//! * a producer's newest batch stays, without records if need be: it holds the last sequence number. The newest of those
//!   that are cleaned, that is: newer ones behind them may yet be truncated, or lost with the power.
//!
//! One is ours: the last batch of each new segment stays as well, without records if need be, where Kafka keeps that of
//! the last one only. So a segment always reaches up to its successor, and one that lost its end in a power cut is told
//! from one that was compacted.
//!
//! Everything in `plan`, `key_map`, `transactions`, `cleaning` and [`chunk`] is a function of its arguments; [`cleaner`] is
//! what a core's passes share; `log::compact` does it, and `log::swap` puts segments in the place of others.

pub mod chunk;
pub mod cleaner;
pub mod cleaning;
pub mod key_map;
pub mod plan;
pub mod transactions;

use std::collections::BTreeMap;

use ouzel_model::{Offset, ProducerId};

use crate::producers::{ProducerEntry, Producers};

pub use cleaner::{Cleaner, CleanerConfig};
pub use cleaning::{Cleaned, Counts, LastRecord, Mapped, Rules};
pub use key_map::KeyMap;
pub use plan::{CompactionRules, Dirtiness};
pub use transactions::{AbortedTransaction, CleanedTransactions};

/// Of the producers a log remembers, what holds their newest trace below `to`, where the pass ends. `dirty` has what was
/// seen of them in the part that was not clean before.
pub fn last_records(
    remembered: &Producers,
    dirty: &Producers,
    to: Offset,
) -> BTreeMap<ProducerId, LastRecord> {
    let last = |id: ProducerId, entry: &ProducerEntry| {
        if entry.window.is_empty() {
            return LastRecord::MarkerOf(entry.epoch);
        }
        let newest =
            |entry: &ProducerEntry| entry.window.iter().rev().find(|batch| batch.last_offset < to).copied();
        // The window is short: all of it may lie behind.
        let found = newest(entry).or_else(|| dirty.get(id).and_then(newest));
        found.map_or(LastRecord::Unknown, |batch| LastRecord::Data(batch.last_offset))
    };
    remembered.iter().map(|(id, entry)| (id, last(id, entry))).collect()
}
