//! A reader says the epoch of the last record it has (KIP-320, KIP-595). If it has more of that epoch than the leader, it is
//! told where the epoch ended; if the leader knows no such epoch, to look for a place anew; else it reads on. Kafka gives the
//! same answers (`OUZEL_TEST_AGAINST`; the last test is of a node of our own in any case).

use ouzel_model::batch::Codec;
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::fetch::{FetchPartition, FetchPartitionResponse, FetchRequest};

use super::offsets::{end_of, leader_epoch};
use crate::support::node::Node;
use crate::support::records::{batch, batch_at, records, values};
use crate::support::wire::{Wire, fetch_request, fresh_name, from_offset};

/// The first version with both epochs of a reader.
const VERSION: i16 = 12;

/// What one who has read up to `from`, in `last_epoch`, is told at once although it would wait.
fn fetch_after(wire: &mut Wire, topic: &str, from: i64, last_epoch: i32) -> FetchPartitionResponse {
    let asked = FetchPartition { last_fetched_epoch: last_epoch, ..from_offset(0, from) };
    let request = FetchRequest {
        // Longer than the test's patience: whatever is to be said is said at once.
        max_wait_ms: 600_000,
        min_bytes: 1,
        ..fetch_request(topic, vec![asked])
    };
    wire.call(VERSION, request).topics.remove(0).partitions.remove(0)
}

fn diverging(answer: &FetchPartitionResponse) -> Option<(i32, i64)> {
    assert_eq!(answer.error_code, 0);
    assert_eq!(values(answer), [""; 0], "nothing is read across the place where two logs part");
    answer.diverging_epoch.as_ref().map(|ended| (ended.epoch, ended.end_offset))
}

#[test]
fn a_reader_whose_log_parts_from_the_leaders_is_told_where() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("diverging");
    wire.create(&topic, 1, &[]);
    wire.store(&topic, 0, batch_at(Codec::None, &[(1, "a"), (2, "b")]));
    let current = leader_epoch(&mut wire, &topic);
    // One that has what is here reads on, wherever it is.
    for (from, expected) in [(0, &["a", "b"][..]), (1, &["a", "b"])] {
        let answer = fetch_after(&mut wire, &topic, from, current);
        assert_eq!(
            (answer.error_code, values(&answer)),
            (0, expected.iter().map(ToString::to_string).collect())
        );
        assert_eq!(answer.diverging_epoch, None);
    }
    // One that has more of this epoch than there is must go back to its end.
    assert_eq!(diverging(&fetch_after(&mut wire, &topic, 3, current)), Some((current, 2)));
    assert_eq!(diverging(&fetch_after(&mut wire, &topic, 1 << 40, current)), Some((current, 2)));
    // Without an epoch it is only out of range.
    assert_eq!(fetch_after(&mut wire, &topic, 3, -1).error_code, ErrorCode::OffsetOutOfRange.code());
}

/// A consumer takes (-1, -1) for no divergence at all, so an answer with it would be an empty one: it would ask the same again
/// for ever, and read nothing more of this partition.
#[test]
fn a_reader_whose_epoch_is_not_known_here_looks_for_a_place_anew() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("unknown-epoch");
    wire.create(&topic, 1, &[]);
    wire.store(&topic, 0, batch(&["a"]));
    let current = leader_epoch(&mut wire, &topic);
    let out_of_range = ErrorCode::OffsetOutOfRange.code();
    for from in [0, 1, 5] {
        let answer = fetch_after(&mut wire, &topic, from, current + 1);
        assert_eq!((answer.error_code, answer.diverging_epoch), (out_of_range, None), "from {from}");
    }
    // Before the start there is no going on, whatever the epoch.
    let answer = fetch_after(&mut wire, &topic, -5, current);
    assert_eq!((answer.error_code, answer.diverging_epoch), (out_of_range, None));
}

/// What an older epoch wrote ends where the next one began. A reader that has more of it has what its leader lost: it is told
/// where to go back to, in Fetch and in OffsetForLeaderEpoch alike, and reads on from there.
#[test]
fn an_older_epoch_ends_where_the_next_one_began() {
    let dir = tempfile::tempdir().unwrap();
    let topic = "two-epochs";
    let node = Node::start_at(dir.path(), 1, &[]);
    let mut wire = node.connect();
    wire.create(topic, 1, &[]);
    wire.store(topic, 0, batch(&["a", "b"]));
    let older = leader_epoch(&mut wire, topic);
    drop(node);

    let node = Node::start_at(dir.path(), 1, &[]);
    let mut wire = node.connect();
    wire.await_serving(topic, 0);
    wire.store(topic, 0, batch(&["c"]));
    let newer = leader_epoch(&mut wire, topic);
    assert!(newer > older, "a start begins an epoch: {newer} after {older}");
    assert_eq!(end_of(&mut wire, topic, 0, newer, older), (0, older, 2));
    assert_eq!(end_of(&mut wire, topic, 0, newer, newer), (0, newer, 3));
    // It has three records of an epoch that had two.
    assert_eq!(diverging(&fetch_after(&mut wire, topic, 3, older)), Some((older, 2)));
    // Or four of one that has three.
    assert_eq!(diverging(&fetch_after(&mut wire, topic, 4, newer)), Some((newer, 3)));
    let answer = fetch_after(&mut wire, topic, 2, older);
    assert_eq!((answer.error_code, answer.diverging_epoch), (0, None));
    assert_eq!(records(&answer), [(2, "c".to_owned())]);
    // The reader gives the epoch that it knows the leader by as well.
    let asked =
        FetchPartition { current_leader_epoch: older, last_fetched_epoch: older, ..from_offset(0, 3) };
    let fenced = wire.call(VERSION, fetch_request(topic, vec![asked])).topics.remove(0).partitions.remove(0);
    assert_eq!((fenced.error_code, fenced.diverging_epoch), (ErrorCode::FencedLeaderEpoch.code(), None));
}
