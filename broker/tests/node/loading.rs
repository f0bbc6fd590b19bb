//! A group coordinator whose partition cannot be read: it says so, and tries again.

use std::path::Path;

use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ouzel_protocol::messages::kafka::offset_fetch_request::OffsetFetchRequestTopic;
use ouzel_protocol::messages::kafka::{GroupId, OffsetCommitRequest, OffsetFetchRequest};

use crate::support::node::Node;
use crate::support::wire::{Wire, name, text};
use crate::support::{await_that, segments};

const GROUP: &str = "readers";
const TOPIC: &str = "read";
/// Behind the header of a batch.
const RECORD_AT: usize = 61;

/// Each commit has a segment of its own, and none is compacted: a start looks into the last one alone.
const SETTINGS: [(&str, &str); 3] = [
    ("offsets.topic.num.partitions", "1"),
    ("log.roll.ms", "1"),
    ("log.cleaner.min.compaction.lag.ms", "3600000"),
];

fn node(dir: &Path) -> Node {
    Node::start_at(dir, 1, &SETTINGS)
}

fn commit(wire: &mut Wire, offset: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("")));
    let topic = OffsetCommitRequestTopic::default().with_name(name(TOPIC)).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    wire.call(7, request).topics[0].partitions[0].error_code
}

/// What the group has committed, or why nobody says so.
fn committed(wire: &mut Wire) -> Result<i64, i16> {
    let topic = OffsetFetchRequestTopic::default().with_name(name(TOPIC)).with_partition_indexes(vec![0]);
    let request =
        OffsetFetchRequest::default().with_group_id(GroupId(text(GROUP))).with_topics(Some(vec![topic]));
    let fetched = wire.call(5, request);
    if fetched.error_code != 0 {
        return Err(fetched.error_code);
    }
    Ok(fetched.topics[0].partitions[0].committed_offset)
}

/// Turns one bit of the first batch's first record around.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[RECORD_AT] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Where it could not load once, it answered that it loads until another reign began, and no health check showed that. (The
/// simulation of one broker on a lying disk, seed 9405884, where it cannot load at all.)
#[test]
fn a_coordinator_that_cannot_load_says_so_and_tries_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("__consumer_offsets-0");
    let first = log.join("00000000000000000000.log");
    let begun = node(dir.path());
    let mut wire = begun.connect();
    wire.create(TOPIC, 1, &[]);
    wire.await_coordinator(GROUP);
    await_that("a second segment", || commit(&mut wire, 7) == 0 && segments(&log).len() > 1);
    assert_eq!(committed(&mut wire), Ok(7));
    drop(wire);
    drop(begun);

    flip(&first);
    let node = node(dir.path());
    let mut wire = node.connect();
    let is_loading = || node.faults().iter().any(|fault| fault.contains("its group coordinator cannot load"));
    await_that("the fault", is_loading);
    assert_eq!(node.faults().len(), 1, "{:?}", node.faults());
    assert!(node.faults()[0].starts_with("__consumer_offsets-0: "), "{:?}", node.faults());
    assert_eq!(committed(&mut wire), Err(ErrorCode::CoordinatorLoadInProgress.code()));

    flip(&first);
    await_that("what was committed", || committed(&mut wire) == Ok(7));
    assert_eq!(node.faults(), Vec::<String>::new());
}
