//! What is left on the disk of a topic that was deleted.

use std::path::Path;

use ouzel_broker::{RunningNode, start};
use ouzel_protocol::messages::kafka::DeleteTopicsRequest;
use ouzel_protocol::messages::kafka::delete_topics_request::DeleteTopicState;

use crate::support::await_that;
use crate::support::node::setup;
use crate::support::records::{batch, records};
use crate::support::wire::{Wire, name};

fn begin(dir: &Path) -> (RunningNode, Wire) {
    let setup = setup(dir, 1, &[("log.segment.delete.delay.ms", "0")]);
    let node = start(setup, Box::new(|_, _| Box::pin(async {}))).unwrap();
    let wire = Wire::connect(node.handle().kafka_address());
    (node, wire)
}

/// A node that has stored a record in a topic of so many partitions, and has ended.
fn store_old(dir: &Path, partitions: i32) {
    let (node, mut wire) = begin(dir);
    wire.create("t", partitions, &[]);
    wire.store("t", 0, batch(&["old"]));
    end(node);
}

fn end(node: RunningNode) {
    node.stop();
    node.join().unwrap();
}

fn delete(wire: &mut Wire, topic: &str) {
    let request = DeleteTopicsRequest::default()
        .with_timeout_ms(10_000)
        .with_topics(vec![DeleteTopicState::default().with_name(Some(name(topic)))]);
    assert_eq!(wire.call(6, request).responses[0].error_code, 0);
}

fn directories(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("t-"));
    names.sort();
    names
}

/// Deleting a topic is how people get rid of a partition that does not open any more. Its directory stayed, and was set aside for
/// good when the topic was made again.
#[test]
fn a_partition_that_cannot_be_opened_goes_with_its_topic() {
    let dir = tempfile::tempdir().unwrap();
    store_old(dir.path(), 2);
    // What cannot be opened as a file.
    let segment = dir.path().join("t-0/00000000000000000000.log");
    std::fs::remove_file(&segment).unwrap();
    std::fs::create_dir(&segment).unwrap();

    let (node, mut wire) = begin(dir.path());
    wire.await_serving("t", 1);
    assert_ne!(wire.fetch("t", 0, 0).error_code, 0);
    assert_eq!(directories(dir.path()), ["t-0", "t-1"]);
    delete(&mut wire, "t");
    await_that("nothing is left of it", || directories(dir.path()).is_empty());
    wire.create("t", 2, &[]);
    assert_eq!(wire.store("t", 0, batch(&["new"])), 0);
    assert_eq!(records(&wire.fetch("t", 0, 0)), [(0, "new".to_owned())]);
    assert_eq!(directories(dir.path()), ["t-0", "t-1"]);
    end(node);
}

/// What was set aside takes up room until the node knows that it was a deleted topic's, and then no longer.
#[test]
fn what_was_set_aside_goes_once_its_topic_is_known_to_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    store_old(dir.path(), 1);
    let aside = |digit| format!("t-0.{digit:032x}-stray");
    let copy = |to: &str, metadata: &str| {
        std::fs::create_dir(dir.path().join(to)).unwrap();
        std::fs::write(dir.path().join(to).join("partition.metadata"), metadata).unwrap();
    };
    copy(&aside(1), &std::fs::read_to_string(dir.path().join("t-0/partition.metadata")).unwrap());
    copy(&aside(2), "version: 0\ntopic_id: dnjwfA44QnWABNtcwQ_AfQ\n");

    let (node, mut wire) = begin(dir.path());
    assert_eq!(directories(dir.path()), ["t-0".to_owned(), aside(1), aside(2)], "it lives");
    delete(&mut wire, "t");
    end(node);
    let (node, _) = begin(dir.path());
    assert_eq!(directories(dir.path()), [aside(2)], "nobody knows whose that is");
    end(node);
}
