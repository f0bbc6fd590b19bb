//! Records that are not in memory of the node: they are sent from their files, as they were promised, or not at all.

use std::path::{Path, PathBuf};
use std::process::Command;

use ouzel_broker::metrics::CoreSample;
use ouzel_protocol::ApiKey;
use ouzel_protocol::messages::fetch::{FetchPartition, FetchRequest};

use crate::support::await_that;
use crate::support::node::Node;
use crate::support::records::{batch, records};
use crate::support::wire::{Wire, fetch_request, from_offset};

const TOPIC: &str = "filed";
const PARTITIONS: i32 = 3;

/// A life of a node over a directory; what is deleted goes at once.
fn begin(dir: &Path, cores: u16) -> Node {
    Node::start_at(dir, cores, &[("log.segment.delete.delay.ms", "0")])
}

fn connect(node: &Node) -> Wire {
    let mut wire = node.connect();
    wire.await_serving(TOPIC, PARTITIONS - 1);
    wire
}

/// What is counted once a connection has ended.
fn one_closed(node: &Node) -> CoreSample {
    await_that("a connection has ended", || node.sample().connections_closed > 0);
    node.sample()
}

fn segment(dir: &Path, partition: i32) -> PathBuf {
    dir.join(format!("{TOPIC}-{partition}")).join("00000000000000000000.log")
}

/// What a partition is given: small batches and large ones.
fn values(partition: i32, count: usize) -> Vec<String> {
    let sizes = [10, 5_000, 70_000, 300, 300_000, 40];
    (0..count).map(|at| format!("{partition}.{at}.").repeat(1 + sizes[at % sizes.len()] / 5)).collect()
}

/// A node that has stored these and was stopped: nothing of it is in its successor's memory.
fn filled(dir: &Path, cores: u16, count: usize) -> Node {
    let node = begin(dir, cores);
    let mut wire = node.connect();
    wire.create(TOPIC, PARTITIONS, &[]);
    for partition in 0..PARTITIONS {
        for value in values(partition, count) {
            wire.store(TOPIC, partition, batch(&[&value]));
        }
    }
    drop(node);
    begin(dir, cores)
}

fn all_of(partition: i32) -> FetchPartition {
    FetchPartition { partition_max_bytes: 64 << 20, ..from_offset(partition, 0) }
}

fn check(wire: &mut Wire, request: FetchRequest, count: usize) {
    let answer = wire.call(12, request);
    assert_eq!(answer.topics[0].partitions.len(), PARTITIONS as usize);
    for partition in &answer.topics[0].partitions {
        let found: Vec<String> = records(partition).into_iter().map(|(_, value)| value).collect();
        assert!(found == values(partition.partition, count), "partition {}", partition.partition);
    }
}

/// Puts a file out of the page cache; false where the file system keeps its files nowhere else.
fn evict(file: &Path) -> bool {
    // What is dirty stays.
    std::fs::File::open(file).unwrap().sync_all().unwrap();
    let from = format!("if={}", file.display());
    let dropped = Command::new("dd").args([&from, "iflag=nocache", "count=0"]).output().unwrap();
    assert!(dropped.status.success(), "{dropped:?}");
    let kind = Command::new("stat").args(["-f", "-c", "%T"]).arg(file).output().unwrap();
    String::from_utf8(kind.stdout).unwrap().trim() != "tmpfs"
}

#[test]
fn many_partitions_come_from_their_files_in_one_answer() {
    let dir = tempfile::tempdir().unwrap();
    for cores in [1, 2] {
        let data = dir.path().join(cores.to_string());
        let node = filled(&data, cores, 14);
        let mut wire = connect(&node);
        let all = || fetch_request(TOPIC, (0..PARTITIONS).map(all_of).collect());
        check(&mut wire, all(), 14);
        await_that("their slices are counted", || {
            let sent = node.sample().file_slices;
            sent.resident + sent.read_in >= PARTITIONS as u64
        });

        // In a session, which ends where there is nothing more.
        let began = wire.call(12, FetchRequest { session_epoch: 0, ..all() });
        assert!(began.session_id > 0);
        let again = FetchRequest { session_id: began.session_id, session_epoch: 1, ..all() };
        let again = FetchRequest { topics: all().topics, ..again };
        check(&mut wire, again, 14);
        let ends = (0..PARTITIONS).map(|partition| from_offset(partition, 14)).collect();
        let at_end =
            FetchRequest { session_id: began.session_id, session_epoch: 2, ..fetch_request(TOPIC, ends) };
        let nothing = wire.call(12, FetchRequest { max_wait_ms: 0, ..at_end });
        assert!(nothing.topics.iter().flat_map(|topic| &topic.partitions).all(|p| p.record_bytes() == 0));
    }
}

#[test]
fn what_is_not_in_memory_is_read_in_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(dir.path(), 1, 14);
    let evicted = (0..PARTITIONS).all(|partition| evict(&segment(dir.path(), partition)));
    let mut wire = connect(&node);
    check(&mut wire, fetch_request(TOPIC, (0..PARTITIONS).map(all_of).collect()), 14);
    await_that("what was read in is counted", || {
        let sent = node.sample().file_slices;
        !evicted || sent.read_in + sent.copied > 0
    });
}

#[test]
fn a_long_poll_that_wants_more_than_there_is_ends_with_what_the_files_have() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(dir.path(), 1, 6);
    let (mut reader, mut writer) = (connect(&node), connect(&node));
    let there: usize = (0..PARTITIONS).flat_map(|p| values(p, 6)).map(|value| value.len()).sum();
    let poll = FetchRequest {
        // Longer than the test's patience: an answer shows that it was woken by what came.
        max_wait_ms: 600_000,
        min_bytes: (there + 300_000) as i32,
        ..fetch_request(TOPIC, (0..PARTITIONS).map(all_of).collect())
    };
    reader.send(12, poll);
    assert!(reader.is_waiting());
    let more = "m".repeat(310_000);
    writer.store(TOPIC, 1, batch(&[&more]));
    let asked = reader.last_correlation_id();
    let answer = reader.receive::<FetchRequest>(12, asked);
    let found = |partition: usize| records(&answer.topics[0].partitions[partition]);
    assert_eq!((found(0).len(), found(1).len(), found(2).len()), (6, 7, 6));
    assert!(found(1)[6].1 == more);
}

/// The connection's buffers hold a few megabytes; the rest of the answer waits in the file.
#[test]
fn a_topic_deleted_while_it_is_being_sent_is_sent_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let count = 300;
    let node = filled(dir.path(), 1, count);
    let mut reader = connect(&node);
    let answered = || {
        let requests = node.sample().requests;
        requests.iter().filter(|((api, _), _)| *api == ApiKey::Fetch).map(|(_, count)| count).sum::<u64>()
    };
    let before = answered();
    reader.send(12, fetch_request(TOPIC, vec![all_of(0)]));
    let asked = reader.last_correlation_id();
    await_that("there is an answer, and somebody sends it", || answered() > before);
    connect(&node).delete(TOPIC);
    await_that("its files go", || !segment(dir.path(), 0).exists());
    let answer = reader.receive::<FetchRequest>(12, asked);
    let found: Vec<String> =
        records(&answer.topics[0].partitions[0]).into_iter().map(|(_, value)| value).collect();
    assert!(!found.is_empty() && found == values(0, count)[..found.len()]);
    assert!(answer.topics[0].partitions[0].record_bytes() > 12 << 20, "more than the connection's buffers");
}

/// Somebody has cut the file behind the node's back: what would follow the cut in the answer would be taken for records.
#[test]
fn a_file_that_is_shorter_than_promised_ends_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(dir.path(), 1, 14);
    let mut reader = connect(&node);
    let segment = segment(dir.path(), 0);
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.set_len(file.metadata().unwrap().len() - 50_000).unwrap();
    reader.send(12, fetch_request(TOPIC, vec![all_of(0)]));
    assert!(reader.receive_frame().is_err(), "no whole answer");
    assert_eq!(one_closed(&node).connections_refused, 0, "that was not the client's fault");
    // The others are served as before.
    let mut other = connect(&node);
    let answer = other.call(12, fetch_request(TOPIC, vec![all_of(1)]));
    assert_eq!(records(&answer.topics[0].partitions[0]).len(), 14);
}

/// It was counted among those that are closed because of what they sent: the writer found the client gone, and the
/// reader, which waited for the writer with the next request in hand, did not know why it had ended.
#[test]
fn a_client_that_leaves_during_a_response_is_not_counted_as_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = filled(dir.path(), 1, 300);
    let mut reader = connect(&node);
    let before = node.sample();
    assert_eq!((before.connections_closed, before.connections_refused), (0, 0));
    reader.send(12, fetch_request(TOPIC, vec![all_of(0)]));
    reader.send(12, fetch_request(TOPIC, vec![all_of(1)]));
    await_that("a response is on its way", || node.sample().bytes_sent > before.bytes_sent);
    drop(reader);
    assert_eq!(one_closed(&node).connections_refused, 0);
}

/// What was to be sent was counted before it was: a reader that was gone, or never took it, had been sent everything.
#[test]
fn only_what_was_sent_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let count = 300;
    let node = filled(dir.path(), 1, count);
    let there: usize = values(0, count).iter().map(String::len).sum();
    let sent = || node.sample().bytes_sent as usize;
    let mut reader = connect(&node);
    let mut before = sent();
    // Which the connection's buffers do not hold; nobody reads it.
    reader.send(12, fetch_request(TOPIC, vec![all_of(0)]));
    await_that("an answer is begun", || sent() > before);
    drop(reader);
    await_that("the connection is closed", || {
        let sample = node.sample();
        sample.connections_closed == sample.connections_opened
    });
    assert!(sent() - before < there, "{} of {there} bytes", sent() - before);
    // And whoever reads it was sent it.
    let mut reader = connect(&node);
    before = sent();
    let answer = reader.call(12, fetch_request(TOPIC, vec![all_of(0)]));
    assert_eq!(records(&answer.topics[0].partitions[0]).len(), count);
    await_that("all of it is counted", || sent() - before > there);
}
