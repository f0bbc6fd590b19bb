//! Idempotent producers whose batches this replica refused for a moment: because it did not lead yet, had too few
//! followers, or a full disk.
//!
//! A producer sends its second batch before it has heard of its first. If the first is refused and the second comes a
//! moment later, when the reason is gone, a log that does not know the producer would take the second: any sequence may
//! be the first of a producer whose older batches are gone. The first one, sent again, would then be out of order for
//! ever. So what was refused is remembered here, and what follows it has to wait for it, as it would in a log that knows
//! the producer. Kafka has no such memory; there a partition seldom refuses a producer it has never heard of.
//!
//! It is in memory alone: what was refused by a process that has died was never promised anything, and its connection,
//! with the batches behind it, has died as well.

use std::collections::VecDeque;

use ouzel_model::batch::Header;
use ouzel_model::{ProducerEpoch, ProducerId};

/// Producers remembered at most. The oldest goes first: it has had the most time to be taken.
const PRODUCERS_MAX: usize = 1_000;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct TurnedAway {
    producers: VecDeque<Turned>,
}

#[derive(Debug)]
struct Turned {
    id: ProducerId,
    epoch: ProducerEpoch,
    /// Of the earliest batch refused.
    sequence: i32,
}

impl TurnedAway {
    /// Takes note of a batch that was refused and will be sent again.
    pub(crate) fn note(&mut self, header: &Header) {
        if !header.has_producer() || header.base_sequence < 0 {
            return;
        }
        let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        if let Some(known) = self.producers.iter_mut().find(|known| known.id == id) {
            if epoch > known.epoch || (epoch == known.epoch && sequence < known.sequence) {
                *known = Turned { id, epoch, sequence };
            }
            return;
        }
        if self.producers.len() == PRODUCERS_MAX {
            self.producers.pop_front();
        }
        self.producers.push_back(Turned { id, epoch, sequence });
    }

    /// The sequence of the batch that must come before this one, if one was refused. For producers the log does not know.
    pub(crate) fn awaited_before(&self, header: &Header) -> Option<i32> {
        let same = |known: &&Turned| known.id == header.producer_id && known.epoch == header.producer_epoch;
        let awaited = self.producers.iter().find(same)?.sequence;
        (header.base_sequence > awaited).then_some(awaited)
    }

    /// The producer is known to the log from now on, which remembers its sequence itself.
    pub(crate) fn forget(&mut self, id: ProducerId) {
        self.producers.retain(|known| known.id != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ouzel_model::TimestampMs;
    use ouzel_model::batch::{BatchBuilder, Codec, RecordParts};

    fn header(producer: i64, epoch: i16, sequence: i32) -> Header {
        let mut builder =
            BatchBuilder::new(Codec::None).producer(ProducerId(producer), ProducerEpoch(epoch), sequence);
        builder.push(TimestampMs(0), &RecordParts::default());
        Header::parse(&builder.build()).unwrap()
    }

    #[test]
    fn what_follows_a_refused_batch_waits_for_it() {
        let mut turned = TurnedAway::default();
        assert_eq!(turned.awaited_before(&header(7, 0, 5)), None, "nobody was refused");
        turned.note(&header(7, 0, 5));
        turned.note(&header(7, 0, 9));
        let cases = [
            ("the refused one itself", header(7, 0, 5), None),
            ("the one behind it", header(7, 0, 9), Some(5)),
            ("one from before it, sent again", header(7, 0, 0), None),
            ("another producer's", header(8, 0, 9), None),
            ("a new epoch has a sequence of its own", header(7, 1, 9), None),
        ];
        for (story, header, awaited) in cases {
            assert_eq!(turned.awaited_before(&header), awaited, "{story}");
        }
        turned.note(&header(7, 1, 0));
        assert_eq!(turned.awaited_before(&header(7, 1, 3)), Some(0), "the newest epoch counts");
        turned.forget(ProducerId(7));
        assert_eq!(turned.awaited_before(&header(7, 1, 3)), None);
    }

    #[test]
    fn the_memory_is_bounded_and_batches_without_a_sequence_are_none_of_its_business() {
        let mut turned = TurnedAway::default();
        for producer in 0..=PRODUCERS_MAX as i64 {
            turned.note(&header(producer, 0, 0));
        }
        assert_eq!(turned.producers.len(), PRODUCERS_MAX);
        assert_eq!(turned.awaited_before(&header(0, 0, 1)), None, "the oldest has gone");
        assert_eq!(turned.awaited_before(&header(1, 0, 1)), Some(0));
        let mut turned = TurnedAway::default();
        turned.note(&header(-1, -1, -1));
        turned.note(&header(3, 0, -1));
        assert!(turned.producers.is_empty());
    }
}
