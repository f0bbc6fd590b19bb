//! Idempotent producers: what was stored once is not stored again, whatever happened in between.

use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::InitProducerIdRequest;
use ouzel_protocol::messages::produce::ProduceRequest;

use crate::support::await_some;
use crate::support::node::Node;
use crate::support::process::Starting;
use crate::support::records::{batch, sequenced, values};
use crate::support::wire::{Wire, fresh_name, produce_request};

/// A producer's id that no other test has.
fn producer(wire: &mut Wire) -> i64 {
    let request =
        || InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
    await_some("there are ids", || {
        let answer = wire.call(4, request());
        (answer.error_code == 0).then_some(answer.producer_id.0)
    })
}

/// Sends a batch; gives its offset, or why not.
fn send(wire: &mut Wire, topic: &str, batch: Vec<u8>) -> Result<i64, ErrorCode> {
    let answer = wire.produce(topic, 0, batch);
    match answer.error_code {
        0 => Ok(answer.base_offset),
        code => Err(ErrorCode::from_code(code).unwrap()),
    }
}

#[test]
fn the_last_five_batches_are_known_with_their_offsets() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("window");
    wire.create(&topic, 1, &[]);
    let id = producer(&mut wire);
    let batch = |sequence: i32| sequenced(id, 0, sequence, &["x", "y"]);
    for turn in 0..7 {
        assert_eq!(send(&mut wire, &topic, batch(turn * 2)), Ok(i64::from(turn) * 2));
    }
    for turn in 2..7 {
        assert_eq!(
            send(&mut wire, &topic, batch(turn * 2)),
            Ok(i64::from(turn) * 2),
            "a duplicate of batch {turn}"
        );
    }
    // Older than the window: known to be old, no longer known where it lies.
    for turn in [0, 1] {
        let refused = send(&mut wire, &topic, batch(turn * 2));
        assert_eq!(refused, Err(ErrorCode::OutOfOrderSequenceNumber), "batch {turn}");
    }
    assert_eq!(wire.fetch(&topic, 0, 0).high_watermark, 14, "nothing was stored twice");
    // Overlapping a batch is not the same as being one.
    for (sequence, values) in [(12, &["x"][..]), (13, &["x", "y"]), (12, &["x", "y", "z"])] {
        let refused = send(&mut wire, &topic, sequenced(id, 0, sequence, values));
        assert_eq!(refused, Err(ErrorCode::OutOfOrderSequenceNumber), "{sequence}");
    }
    assert_eq!(send(&mut wire, &topic, batch(14)), Ok(14));
}

#[test]
fn gaps_are_refused_and_change_nothing() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("gaps");
    wire.create(&topic, 1, &[]);
    let id = producer(&mut wire);
    assert_eq!(send(&mut wire, &topic, sequenced(id, 0, 0, &["a"])), Ok(0));
    for wrong in [2, 100, i32::MAX] {
        let refused = send(&mut wire, &topic, sequenced(id, 0, wrong, &["b"]));
        assert_eq!(refused, Err(ErrorCode::OutOfOrderSequenceNumber), "{wrong}");
    }
    assert_eq!(send(&mut wire, &topic, sequenced(id, 0, 1, &["b"])), Ok(1));
    assert_eq!(values(&wire.fetch(&topic, 0, 0)), ["a", "b"]);
}

#[test]
fn epochs_only_rise_and_begin_anew_at_sequence_0() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("epochs");
    wire.create(&topic, 1, &[]);
    let id = producer(&mut wire);
    let mut sent =
        |epoch: i16, sequence: i32| send(&mut wire, &topic, sequenced(id, epoch, sequence, &["x"]));
    assert_eq!(sent(3, 0), Ok(0));
    assert_eq!(sent(3, 1), Ok(1));
    assert_eq!(sent(2, 2), Err(ErrorCode::InvalidProducerEpoch));
    assert_eq!(sent(4, 2), Err(ErrorCode::OutOfOrderSequenceNumber), "a new epoch counts from 0");
    assert_eq!(sent(4, 0), Ok(2));
    assert_eq!(sent(3, 2), Err(ErrorCode::InvalidProducerEpoch));
    assert_eq!(sent(4, 0), Ok(2), "a duplicate under the new epoch");
    assert_eq!(sent(4, 1), Ok(3));
}

#[test]
fn an_unknown_producer_may_begin_anywhere_and_sequences_wrap() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("wrap");
    wire.create(&topic, 1, &[]);
    let id = producer(&mut wire);
    let mut sent =
        |sequence: i32, values: &[&str]| send(&mut wire, &topic, sequenced(id, 0, sequence, values));
    assert_eq!(sent(i32::MAX - 1, &["a"]), Ok(0), "its state has expired or was never here");
    // This batch itself goes over the edge.
    assert_eq!(sent(i32::MAX, &["b", "c"]), Ok(1));
    assert_eq!(sent(i32::MAX, &["b", "c"]), Ok(1), "a duplicate over the edge");
    assert_eq!(sent(0, &["d"]), Err(ErrorCode::OutOfOrderSequenceNumber));
    assert_eq!(sent(1, &["d"]), Ok(3));
}

#[test]
fn producers_and_partitions_do_not_mix() {
    let node = Node::start_with(2, &[]);
    let mut wire = node.connect();
    let topic = fresh_name("apart");
    wire.create(&topic, 2, &[]);
    let ids = [producer(&mut wire), producer(&mut wire)];
    for (at, id) in ids.into_iter().enumerate() {
        for partition in 0..2 {
            let stored = wire.produce(&topic, partition, sequenced(id, 0, 0, &["x"]));
            assert_eq!((stored.error_code, stored.base_offset), (0, at as i64));
        }
    }
}

#[test]
fn five_requests_under_way_are_stored_in_order_and_repeated_without_harm() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("five");
    wire.create(&topic, 1, &[]);
    let id = producer(&mut wire);
    for _ in 0..2 {
        let first = wire.last_correlation_id() + 1;
        for sequence in 0..5 {
            wire.send(
                9,
                produce_request(&topic, 0, -1, sequenced(id, 0, sequence, &[&sequence.to_string()])),
            );
        }
        for sequence in 0..5 {
            let answer = wire.receive::<ProduceRequest>(9, first + sequence);
            let stored = &answer.topics[0].partitions[0];
            assert_eq!((stored.error_code, stored.base_offset), (0, i64::from(sequence)));
        }
    }
    assert_eq!(values(&wire.fetch(&topic, 0, 0)), ["0", "1", "2", "3", "4"]);
}

/// What is wrong with a log that should hold the numbers up to `count`, once each and in order.
fn not_once_in_order(values: &[String], count: usize) -> Option<String> {
    let wanted = (0..count).map(|number| number.to_string());
    let at = values.iter().cloned().map(Some).chain([None]).zip(wanted.map(Some).chain([None]));
    let mut odd = at.enumerate().filter(|(_, (held, wanted))| held != wanted);
    odd.next().map(|(at, (held, wanted))| format!("at {at}: {held:?} where {wanted:?} belongs"))
}

/// A producer that loses the answers to its last batches each time its node is killed, and repeats them to the next
/// one. Gives what is stored in the end, and how many values there were to send.
fn repeat_over_kills(batch: impl Fn(i64, i32) -> Vec<u8>) -> (Vec<String>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Starting::new().start(dir.path());
    node.connect().create("once", 1, &[]);
    let id = producer(&mut node.connect());
    let mut next = 0;
    for round in 0..3 {
        let mut wire = node.connect();
        let end = next + 8;
        for number in next..end {
            assert_eq!(wire.produce("once", 0, batch(id, number)).error_code, 0, "{number}");
        }
        next = end - 4;
        node.kill();
        node = Starting::new().cores(1 + round % 2).start(dir.path());
    }
    let mut wire = node.connect();
    for number in next..next + 4 {
        assert_eq!(wire.produce("once", 0, batch(id, number)).error_code, 0, "{number}");
    }
    (values(&wire.fetch("once", 0, 0)), next as usize + 4)
}

#[test]
fn what_is_repeated_after_a_kill_is_stored_once_and_in_order() {
    let (stored, count) = repeat_over_kills(|id, number| sequenced(id, 0, number, &[&number.to_string()]));
    assert_eq!(not_once_in_order(&stored, count), None);
}

/// Shows that the test above would notice a node that accepts duplicates: batches without a producer's id are accepted
/// as often as they come.
#[test]
fn an_accepted_duplicate_would_be_caught() {
    let (stored, count) = repeat_over_kills(|_, number| batch(&[&number.to_string()]));
    assert!(not_once_in_order(&stored, count).is_some(), "{stored:?}");
    let of = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    assert_eq!(not_once_in_order(&of(&["0", "1", "2"]), 3), None);
    for planted in [&["0", "1", "1", "2"][..], &["0", "2", "1"], &["0", "1"], &["0", "1", "2", "2"]] {
        assert!(not_once_in_order(&of(planted), 3).is_some(), "{planted:?}");
    }
}

#[test]
fn the_window_outlives_a_stop_a_kill_and_another_number_of_cores() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Starting::new().start(dir.path());
    let mut wire = node.connect();
    wire.create("kept", 1, &[]);
    let id = producer(&mut wire);
    for sequence in 0..6 {
        assert_eq!(send(&mut wire, "kept", sequenced(id, 0, sequence, &["x"])), Ok(i64::from(sequence)));
    }
    for (round, cores) in [(0, 2), (1, 1), (2, 2)] {
        if round == 0 {
            node.stop();
        } else {
            node.kill();
        }
        node = Starting::new().cores(cores).start(dir.path());
        let mut wire = node.connect();
        let newest = 5 + round;
        for sequence in newest - 4..=newest {
            let answer = send(&mut wire, "kept", sequenced(id, 0, sequence, &["x"]));
            assert_eq!(answer, Ok(i64::from(sequence)), "round {round}: a duplicate of {sequence}");
        }
        let skipping = send(&mut wire, "kept", sequenced(id, 0, newest + 2, &["x"]));
        assert_eq!(skipping, Err(ErrorCode::OutOfOrderSequenceNumber), "round {round}");
        let next = send(&mut wire, "kept", sequenced(id, 0, newest + 1, &["x"]));
        assert_eq!(next, Ok(i64::from(newest) + 1), "round {round}");
        // An id is never given out twice, whatever was lost with the process.
        assert!(producer(&mut wire) > id);
    }
}
