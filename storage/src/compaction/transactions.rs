//! Which batches a compaction may drop because of the transaction they belong to.
//!
//! It is told every batch of the part that is compacted, in order, and before that which transactions were aborted
//! there: as nothing beyond the last stable offset is compacted, each of them is decided.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ouzel_model::batch::{BatchView, Header, PlainRecords};
use ouzel_model::{Offset, ProducerId};

/// A transaction that was aborted, as `.txnindex` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: ProducerId,
    /// Its first record.
    pub first_offset: Offset,
    /// Its marker.
    pub last_offset: Offset,
}

/// The transactions under way where the compaction reads.
#[derive(Clone, Debug, Default)]
pub struct CleanedTransactions {
    /// By first offset; those that the compaction has not reached.
    aborted: VecDeque<AbortedTransaction>,
    /// Aborted ones it has reached, and whether a batch of theirs was met.
    open_aborted: BTreeMap<ProducerId, (AbortedTransaction, bool)>,
    /// Producers of which batches were met that are not aborted, since their last marker.
    open_committed: BTreeSet<ProducerId>,
    retained: Vec<AbortedTransaction>,
}

impl CleanedTransactions {
    /// Before the first batch. `aborted` are the transactions that have a record in the part that is compacted, also those
    /// whose marker lies behind it.
    pub fn new(mut aborted: Vec<AbortedTransaction>) -> CleanedTransactions {
        aborted.sort_by_key(|transaction| transaction.first_offset);
        CleanedTransactions { aborted: aborted.into(), ..CleanedTransactions::default() }
    }

    /// Takes a batch of records; says whether it was aborted, and so may go.
    pub fn is_aborted(&mut self, header: &Header) -> bool {
        self.reach(header.last_offset());
        if !header.attributes.is_transactional() {
            return false;
        }
        match self.open_aborted.get_mut(&header.producer_id) {
            Some((_, met)) => {
                *met = true;
                true
            }
            None => {
                self.open_committed.insert(header.producer_id);
                false
            }
        }
    }

    /// Takes a control batch; says whether no batch of its transaction is left, so that it may get its delete horizon,
    /// and go behind that. Batches that this compaction drops still count: readers may be among them.
    pub fn is_marker_of_nothing(&mut self, batch: &BatchView<'_>) -> bool {
        self.reach(batch.header.last_offset());
        let producer_id = batch.header.producer_id;
        match marker_of(batch) {
            Marker::Abort => match self.open_aborted.remove(&producer_id) {
                Some((transaction, true)) => {
                    self.retained.push(transaction);
                    false
                }
                _ => true,
            },
            Marker::Commit => !self.open_committed.remove(&producer_id),
            Marker::Other => false,
            // An earlier compaction emptied it.
            Marker::Gone => true,
        }
    }

    /// The aborted transactions that readers must still be told of, in the order of their markers: what the new segments'
    /// `.txnindex` holds. Gives those found since the last call.
    pub fn take_retained(&mut self) -> Vec<AbortedTransaction> {
        std::mem::take(&mut self.retained)
    }

    fn reach(&mut self, offset: Offset) {
        while let Some(next) = self.aborted.pop_front_if(|next| next.first_offset <= offset) {
            self.open_aborted.entry(next.producer_id).or_insert((next, false));
        }
    }
}

enum Marker {
    Abort,
    Commit,
    /// Another of Kafka's control records; those are kept.
    Other,
    Gone,
}

fn marker_of(batch: &BatchView<'_>) -> Marker {
    if batch.header.record_count == 0 {
        return Marker::Gone;
    }
    // Key: version i16, type i16. A control record that cannot be read stays, as any we do not know.
    let Ok(plain) = PlainRecords::unfold(batch, CONTROL_BYTES_MAX) else { return Marker::Other };
    let Ok(records) = plain.records() else { return Marker::Other };
    match records.first().and_then(|record| record.key) {
        Some([_, _, 0, 0, ..]) => Marker::Abort,
        Some([_, _, 0, 1, ..]) => Marker::Commit,
        _ => Marker::Other,
    }
}

/// A control record is a few dozen bytes.
const CONTROL_BYTES_MAX: usize = 1 << 20;
