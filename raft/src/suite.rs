//! What every [`ReplicatedLog`] must show, whoever implements it.
//!
//! A suite and not a set of tests: each implementation calls [`run`] with a way to make a fresh log. [`memory`] is the
//! network that groups are tested on.

pub mod memory;

use bytes::BytesMut;
use ouzel_model::batch::{BatchBuilder, BatchView, Codec, RecordParts, batches};
use ouzel_model::{Offset, ProducerEpoch, ProducerId, TimestampMs};

use crate::{AppendRefused, ReplicatedLog};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

/// A batch of `records` records; with a producer and its first sequence if given.
pub fn batch(records: usize, producer: Option<(i64, i16, i32)>) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(ProducerId(id), ProducerEpoch(epoch), sequence);
    }
    for i in 0..records {
        builder.push(NOW, &RecordParts { value: Some(&i.to_be_bytes()), ..RecordParts::default() });
    }
    BytesMut::from(&builder.build()[..])
}

/// Runs every case against fresh logs.
pub async fn run<L: ReplicatedLog, F: Future<Output = L>>(fresh: impl Fn() -> F) {
    places_follow_the_order_of_calls(fresh().await).await;
    the_chain_holds_and_grows(fresh().await).await;
    acknowledged_means_readable(fresh().await).await;
    a_repeated_batch_has_its_first_place(fresh().await).await;
    gaps_and_old_epochs_are_refused(fresh().await).await;
}

async fn places_follow_the_order_of_calls<L: ReplicatedLog>(log: L) {
    let first = log.append(batch(3, None), NOW);
    let second = log.append(batch(2, None), NOW);
    // Polled the other way round.
    let second = second.await.expect("a sound batch");
    let first = first.await.expect("a sound batch");
    assert_eq!((first.placed.base_offset, first.placed.last_offset), (Offset(0), Offset(2)));
    assert_eq!((second.placed.base_offset, second.placed.last_offset), (Offset(3), Offset(4)));
}

async fn the_chain_holds_and_grows<L: ReplicatedLog>(log: L) {
    let mut before = log.offsets();
    for _ in 0..10 {
        let receipt = log.append(batch(4, None), NOW).await.expect("a sound batch");
        let placed = log.offsets();
        assert!(placed.log_start <= placed.high_watermark && placed.high_watermark <= placed.log_end);
        assert_eq!(placed.log_end, before.log_end + 4);
        receipt.written().await.expect("a sound disk");
        receipt.acknowledged().await.expect("a sound disk");
        let safe = log.offsets();
        assert!(safe.high_watermark > receipt.placed.last_offset, "acknowledged below the high watermark");
        assert!(safe.high_watermark >= before.high_watermark, "the high watermark went back");
        before = safe;
    }
}

async fn acknowledged_means_readable<L: ReplicatedLog>(log: L) {
    let receipt = log.append(batch(5, None), NOW).await.expect("a sound batch");
    receipt.acknowledged().await.expect("a sound disk");
    let read =
        log.local().read(Offset(2), log.offsets().high_watermark, 1 << 20, true).await.expect("a sound disk");
    let first = batches(&read.batches[0]).next().expect("a batch").expect("whole");
    assert_eq!(first.header.base_offset, Offset(0), "whole batches, from the one that holds the offset");
    assert_eq!(first.header.partition_leader_epoch, log.epoch());
    first.verify_crc().expect("stamping leaves the CRC right");
}

async fn a_repeated_batch_has_its_first_place<L: ReplicatedLog>(log: L) {
    let mut places = Vec::new();
    for i in 0..6 {
        let receipt = log.append(batch(2, Some((7, 0, i * 2))), NOW).await.expect("in order");
        places.push(receipt.placed);
    }
    let end = log.offsets().log_end;
    for i in 1..6 {
        let again = log.append(batch(2, Some((7, 0, i * 2))), NOW).await.expect("a duplicate is no error");
        assert!(again.placed.duplicate);
        assert_eq!(again.placed.base_offset, places[i as usize].base_offset);
        again.acknowledged().await.expect("a sound disk");
    }
    assert_eq!(log.offsets().log_end, end, "a duplicate takes no place");
    let too_old = log.append(batch(2, Some((7, 0, 0))), NOW).await;
    assert!(
        matches!(too_old, Err(AppendRefused::OutOfOrderSequence { .. })),
        "the window holds five batches"
    );
}

async fn gaps_and_old_epochs_are_refused<L: ReplicatedLog>(log: L) {
    log.append(batch(2, Some((7, 1, 0))), NOW).await.expect("a first batch");
    let gap = log.append(batch(2, Some((7, 1, 3))), NOW).await;
    assert!(matches!(gap, Err(AppendRefused::OutOfOrderSequence { expected: 2, found: 3, .. })), "{gap:?}");
    let stale = log.append(batch(2, Some((7, 0, 2))), NOW).await;
    assert!(matches!(stale, Err(AppendRefused::StaleProducerEpoch { .. })), "{stale:?}");
    let next_life = log.append(batch(2, Some((7, 2, 0))), NOW).await.expect("a new epoch starts at 0");
    assert_eq!(next_life.placed.base_offset, Offset(2));
    assert_eq!(log.offsets().log_end, Offset(4), "what was refused took no place");
    let stamped = log.local().read(Offset(2), Offset(4), 1 << 20, true).await.expect("a sound disk");
    assert!(BatchView::parse(&stamped.batches[0]).is_ok());
}
