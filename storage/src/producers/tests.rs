use std::time::Duration;

use ouzel_model::batch::{BatchBuilder, Codec, Header, RecordParts, TimestampType};
use ouzel_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::{ProducerVerdict, Producers, Truncated};

const P: ProducerId = ProducerId(7);
const NOW: TimestampMs = TimestampMs(1_000_000);

/// A batch of `count` records at `offset`, with its producer's epoch and first sequence number.
fn batch(offset: i64, epoch: i16, sequence: i32, count: i64) -> Header {
    marked(offset, epoch, sequence, count, false, false)
}

fn marked(offset: i64, epoch: i16, sequence: i32, count: i64, transactional: bool, control: bool) -> Header {
    let mut builder = BatchBuilder::new(Codec::None)
        .producer(P, ProducerEpoch(epoch), sequence)
        .place(Offset(offset), LeaderEpoch(3))
        .attributes(TimestampType::CreateTime, transactional, control);
    for i in 0..count {
        builder.push(TimestampMs(offset * 10 + i), &RecordParts::default());
    }
    Header::parse(&builder.build()).unwrap()
}

fn after(batches: &[Header]) -> Producers {
    let mut producers = Producers::new(Offset::ZERO);
    for header in batches {
        producers.update(header, NOW);
    }
    producers
}

fn out_of_order(expected: i32, found: i32) -> ProducerVerdict {
    ProducerVerdict::OutOfOrder { producer_id: P, expected, found }
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    let producers = Producers::new(Offset::ZERO);
    for sequence in [0, 1, 77, i32::MAX] {
        assert_eq!(producers.check(&batch(0, 0, sequence, 1)), ProducerVerdict::Append);
    }
}

#[test]
fn the_next_sequence_number_is_the_one_behind_the_last() {
    let producers = after(&[batch(0, 0, 0, 5)]);
    assert_eq!(producers.check(&batch(5, 0, 5, 2)), ProducerVerdict::Append);
    assert_eq!(producers.check(&batch(5, 0, 6, 1)), out_of_order(5, 6));
    // Overlaps the batch that is there without being it.
    assert_eq!(producers.check(&batch(5, 0, 4, 2)), out_of_order(5, 4));
    assert_eq!(producers.check(&batch(5, 0, 0, 4)), out_of_order(5, 0));
}

#[test]
fn sequence_numbers_wrap_behind_the_largest() {
    let producers = after(&[batch(0, 0, i32::MAX - 1, 2)]);
    assert_eq!(producers.check(&batch(2, 0, 0, 1)), ProducerVerdict::Append);
    assert_eq!(producers.check(&batch(2, 0, i32::MAX, 1)), out_of_order(0, i32::MAX));

    // A batch that wraps within itself, and its retry.
    let wrapping = batch(0, 0, i32::MAX - 1, 5);
    assert_eq!(wrapping.last_sequence(), 2);
    let producers = after(&[wrapping]);
    assert_eq!(producers.check(&batch(5, 0, 3, 1)), ProducerVerdict::Append);
    let ProducerVerdict::Duplicate(original) = producers.check(&batch(5, 0, i32::MAX - 1, 5)) else {
        panic!("not seen as a duplicate")
    };
    assert_eq!((original.first_offset(), original.last_offset), (Offset(0), Offset(4)));
    assert_eq!(original.first_sequence(), i32::MAX - 1);
}

#[test]
fn a_duplicate_of_the_last_five_gets_its_original_place() {
    let stored: Vec<Header> = (0..6).map(|i| batch(100 + i * 2, 4, i as i32 * 2, 2)).collect();
    let producers = after(&stored);
    for original in &stored[1..] {
        let retry = batch(900, 4, original.base_sequence, 2);
        let ProducerVerdict::Duplicate(found) = producers.check(&retry) else {
            panic!("sequence {} is not seen as a duplicate", original.base_sequence)
        };
        assert_eq!(found.first_offset(), original.base_offset);
        assert_eq!(found.last_offset, original.last_offset());
        assert_eq!(found.timestamp, original.max_timestamp);
    }
    // The sixth from the end has left the window.
    assert_eq!(producers.check(&batch(900, 4, 0, 2)), out_of_order(12, 0));
}

#[test]
fn a_new_epoch_begins_at_zero_and_fences_the_old_one() {
    let producers = after(&[batch(0, 3, 0, 5)]);
    assert_eq!(producers.check(&batch(5, 4, 0, 1)), ProducerVerdict::Append);
    assert_eq!(producers.check(&batch(5, 4, 5, 1)), out_of_order(0, 5));

    let producers = after(&[batch(0, 3, 0, 5), batch(5, 4, 0, 1)]);
    let stale =
        ProducerVerdict::StaleEpoch { producer_id: P, known: ProducerEpoch(4), found: ProducerEpoch(3) };
    assert_eq!(producers.check(&batch(6, 3, 5, 1)), stale);
    // Even what would have been a duplicate: it is of an epoch that is over.
    assert_eq!(producers.check(&batch(6, 3, 0, 5)), stale);
    assert_eq!(producers.get(P).unwrap().window.len(), 1);
}

#[test]
fn batches_without_a_producer_leave_no_trace_but_the_end() {
    let mut builder = BatchBuilder::new(Codec::None).place(Offset(40), LeaderEpoch(0));
    builder.push(TimestampMs(1), &RecordParts::default());
    let plain = Header::parse(&builder.build()).unwrap();
    let producers = after(&[plain]);
    assert!(producers.is_empty());
    assert_eq!(producers.end(), Offset(41));
    assert_eq!(producers.check(&plain), ProducerVerdict::Append);
}

#[test]
fn truncation_removes_what_lies_behind() {
    let mut producers = after(&[batch(0, 0, 0, 5), batch(5, 0, 5, 5), batch(10, 0, 10, 5)]);
    assert_eq!(producers.truncate_to(Offset(15)), Truncated::Unchanged);
    assert_eq!(producers.truncate_to(Offset(10)), Truncated::Rebuild);
    assert_eq!(producers.end(), Offset(10));
    assert_eq!(producers, after(&[batch(0, 0, 0, 5), batch(5, 0, 5, 5)]));
    assert_eq!(producers.truncate_to(Offset(0)), Truncated::Rebuild);
    assert!(producers.is_empty());
}

#[test]
fn trimming_forgets_nobody() {
    let mut producers = after(&[batch(0, 0, 0, 5)]);
    producers.trim_to(Offset(30));
    assert_eq!(producers.end(), Offset(30));
    assert!(matches!(producers.check(&batch(30, 0, 0, 5)), ProducerVerdict::Duplicate(_)));
}

#[test]
fn producers_expire_by_the_brokers_clock_and_not_by_their_records() {
    let day = Duration::from_secs(24 * 60 * 60);
    let day_ms = 24 * 60 * 60 * 1000;
    // The record says 1970; the broker saw it just now.
    let mut producers = after(&[batch(0, 0, 0, 5)]);
    assert_eq!(producers.expire(TimestampMs(NOW.value() + day_ms - 1), day), 0);
    assert_eq!(producers.expire(TimestampMs(NOW.value() + day_ms), day), 1);
    assert_eq!(producers.check(&batch(5, 0, 77, 1)), ProducerVerdict::Append);

    let mut producers = after(&[marked(0, 0, 0, 5, true, false)]);
    assert_eq!(producers.expire(TimestampMs(i64::MAX), day), 0, "its transaction is open");
}

#[test]
fn an_open_transaction_ends_with_its_marker() {
    let mut producers = after(&[marked(10, 0, 0, 5, true, false), marked(15, 0, 5, 5, true, false)]);
    assert_eq!(producers.first_open_transaction(), Some(Offset(10)));
    producers.update(&marked(20, 1, -1, 1, true, true), NOW);
    assert_eq!(producers.first_open_transaction(), None);
    let entry = producers.get(P).unwrap();
    assert_eq!((entry.epoch, entry.window.len()), (ProducerEpoch(1), 0));
    assert_eq!(producers.check(&marked(21, 1, 0, 1, true, false)), ProducerVerdict::Append);
    assert_eq!(producers.check(&marked(21, 1, 10, 1, true, false)), out_of_order(0, 10));
}
