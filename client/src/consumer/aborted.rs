//! Which batches of an answer belong to transactions that were aborted. The broker names those transactions by producer
//! and first offset; where each ends, its marker in the log says.

use std::collections::{BTreeSet, VecDeque};

use ouzel_model::batch::{BatchView, RecordStream};
use ouzel_protocol::messages::fetch::AbortedTransaction;

/// The type in the key of an abort marker; a commit marker has 1.
const ABORT: i16 = 0;

/// The aborted transactions of one partition's answer, as far as the batches walked through have told of them.
#[derive(Debug, Default)]
pub(super) struct Aborted {
    /// Not begun yet, by first offset.
    due: VecDeque<AbortedTransaction>,
    /// Producers inside one of them.
    open: BTreeSet<i64>,
}

impl Aborted {
    pub(super) fn of(mut transactions: Vec<AbortedTransaction>) -> Aborted {
        transactions.sort_by_key(|transaction| transaction.first_offset);
        Aborted { due: transactions.into(), open: BTreeSet::new() }
    }

    /// Whether the batch's records are to be dropped. Every batch of the answer must pass here, in the order of offsets.
    pub(super) fn hides(&mut self, batch: &BatchView<'_>, plain_bytes_max: usize) -> bool {
        let header = &batch.header;
        let end = header.next_offset().value();
        while let Some(next) = self.due.pop_front_if(|next| next.first_offset < end) {
            self.open.insert(next.producer_id);
        }
        let producer = header.producer_id.0;
        if header.attributes.is_control() {
            if is_abort(batch, plain_bytes_max) {
                self.open.remove(&producer);
            }
            return false;
        }
        header.attributes.is_transactional() && self.open.contains(&producer)
    }
}

/// Whether a control batch's one record is an abort marker: its key is a version and a type.
fn is_abort(batch: &BatchView<'_>, plain_bytes_max: usize) -> bool {
    let first = RecordStream::new(batch, plain_bytes_max).ok().and_then(|mut stream| stream.next_record());
    let key = first.and_then(Result::ok).and_then(|record| record.key);
    key.is_some_and(|key| key.get(2..4) == Some(&ABORT.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use ouzel_model::batch::{self, BatchBuilder, Codec, RecordParts, TimestampType};
    use ouzel_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

    use super::*;

    /// One record of a producer; a marker has the key that says whether it commits.
    fn batch(at: i64, producer: i64, transactional: bool, marker: Option<i16>) -> Vec<u8> {
        let key = marker.map(|kind| [[0, 0], kind.to_be_bytes()].concat());
        let mut builder = BatchBuilder::new(Codec::None)
            .producer(ProducerId(producer), ProducerEpoch(0), 0)
            .place(Offset(at), LeaderEpoch(1))
            .attributes(TimestampType::CreateTime, transactional, marker.is_some());
        builder.push(TimestampMs(1), &RecordParts { key: key.as_deref(), ..RecordParts::default() });
        builder.build()
    }

    #[test]
    fn only_what_lies_between_the_first_offset_and_the_marker_is_hidden() {
        let log = [
            batch(0, 7, true, None),    // committed
            batch(1, 7, true, Some(1)), // the commit
            batch(2, 7, true, None),    // aborted
            batch(3, 8, true, None),    // another producer's, committed later
            batch(4, 7, false, None),   // outside of any transaction
            batch(5, 7, true, Some(0)), // the abort
            batch(6, 7, true, None),    // of the next transaction
            batch(7, 8, true, Some(1)),
        ]
        .concat();
        let mut aborted = Aborted::of(vec![AbortedTransaction { producer_id: 7, first_offset: 2 }]);
        let hidden: Vec<i64> = batch::batches(&log)
            .map(Result::unwrap)
            .filter_map(|batch| aborted.hides(&batch, 1 << 20).then_some(batch.header.base_offset.value()))
            .collect();
        assert_eq!(hidden, [2]);
    }
}
