//! Compacted topics on a running node: the offsets topic stays small under any number of commits, and what clients read
//! is what Kafka's compaction would have left.

use std::path::Path;

use ouzel_model::batch::Codec;
use ouzel_protocol::messages::kafka::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ouzel_protocol::messages::kafka::offset_fetch_request::OffsetFetchRequestTopic;
use ouzel_protocol::messages::kafka::{GroupId, OffsetCommitRequest, OffsetFetchRequest};

use crate::support::node::Node;
use crate::support::records::{Keyed, keyed_batch, keyed_batch_at, keyed_records};
use crate::support::wire::{Wire, name, text};
use crate::support::{await_that, segments};

/// Cleans as soon as it may.
const EAGER: [(&str, &str); 6] = [
    ("log.cleaner.backoff.ms", "0"),
    ("offsets.topic.num.partitions", "1"),
    ("offsets.topic.segment.bytes", "1048576"),
    ("log.segment.delete.delay.ms", "0"),
    ("log.ouzel.durability", "os"),
    ("log.retention.check.interval.ms", "100"),
];

fn node(dir: &Path) -> Node {
    Node::start_at(dir, 1, &EAGER)
}

/// Bytes of a partition's segments on the disk.
fn log_bytes(dir: &Path) -> u64 {
    segments(dir).into_values().sum()
}

const PARTITIONS: i32 = 500;
const ROUNDS: i64 = 2_000;
const PAUSE_EVERY: i64 = 200;
const SMALL_BYTES: u64 = 4 << 20;

/// A client without a group of members, as tools and other systems commit.
fn commit(group: &str, offset: i64) -> OffsetCommitRequest {
    let partition = |partition| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("")))
    };
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(name("read"))
                .with_partitions((0..PARTITIONS).map(partition).collect()),
        ])
}

fn committed(wire: &mut Wire, group: &str) -> Vec<i64> {
    let request = OffsetFetchRequest::default().with_group_id(GroupId(text(group))).with_topics(Some(vec![
        OffsetFetchRequestTopic::default()
            .with_name(name("read"))
            .with_partition_indexes((0..PARTITIONS).collect()),
    ]));
    let fetched = wire.call(5, request);
    assert_eq!(fetched.error_code, 0);
    fetched.topics[0].partitions.iter().map(|partition| partition.committed_offset).collect()
}

#[test]
fn the_offsets_topic_stays_small_under_a_million_commits() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path());
    let offsets = dir.path().join("__consumer_offsets-0");
    let mut wire = node.connect();
    wire.create("read", PARTITIONS, &[]);
    wire.await_coordinator("g");
    let mut bytes_appended = 0;
    for round in 0..ROUNDS {
        let answered = wire.call(8, commit("g", round));
        assert!(answered.topics[0].partitions.iter().all(|partition| partition.error_code == 0));
        if round == 0 {
            bytes_appended = log_bytes(&offsets) * ROUNDS as u64;
        }
        // Nothing holds commits up for compaction, so how much there is at once is a matter of who is faster. Wherever the
        // commits pause, what is left is the newest of each key, and the segments not yet sealed or due.
        if (round + 1) % PAUSE_EVERY == 0 {
            await_that("the offsets topic is compacted", || log_bytes(&offsets) < SMALL_BYTES);
        }
    }
    assert!(bytes_appended > 10 * SMALL_BYTES, "{bytes_appended} bytes are not many");
    assert_eq!(committed(&mut wire, "g"), vec![ROUNDS - 1; PARTITIONS as usize]);
    drop(node);

    // The next start replays what is left, and it says the same.
    let node = self::node(dir.path());
    let mut wire = node.connect();
    wire.await_coordinator("g");
    assert_eq!(committed(&mut wire, "g"), vec![ROUNDS - 1; PARTITIONS as usize]);
    drop(node);
}

/// Reads a partition from its start.
fn read_all(wire: &mut Wire, topic: &str) -> Vec<Keyed> {
    read_from(wire, topic, 0)
}

/// Reads a partition from an offset on, as a consumer does, over whatever gaps there are.
fn read_from(wire: &mut Wire, topic: &str, mut from: i64) -> Vec<Keyed> {
    let mut all = Vec::new();
    loop {
        let fetched = wire.fetch(topic, 0, from);
        let (records, next) = keyed_records(&fetched);
        let Some(next) = next else {
            assert_eq!(from, fetched.high_watermark, "nothing to read before the high watermark");
            return all;
        };
        all.extend(records.into_iter().filter(|record| record.0 >= from));
        from = next;
    }
}

#[test]
fn a_compacted_topic_keeps_the_newest_of_each_key_and_its_tombstones_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path());
    let mut wire = node.connect();
    // Segments are rolled by the records' times, of which each batch here has the same: by size then, of big values.
    let configs = |retention: &'static str| {
        [
            ("cleanup.policy", "compact"),
            ("segment.bytes", "1048576"),
            ("min.cleanable.dirty.ratio", "0"),
            ("delete.retention.ms", retention),
        ]
    };
    wire.create("kept", 1, &configs("86400000"));
    wire.create("gone", 1, &configs("0"));
    let filler = "x".repeat(600_000);
    for topic in ["kept", "gone"] {
        for round in 0..4 {
            let value = format!("{round}");
            let records =
                [("a", Some(&*value)), ("b", None), ("c", Some(&*value)), ("filler", Some(&*filler))];
            wire.store(topic, 0, keyed_batch(Codec::ALL[round], &records[..4]));
            wire.store(topic, 0, keyed_batch(Codec::None, &[("filler", Some(&filler))]));
        }
        wire.store(topic, 0, keyed_batch(Codec::None, &[("b", Some("not yet compacted"))]));
    }
    let small = |records: &[Keyed]| -> Vec<String> {
        let shown = records.iter().filter(|record| record.1 != "filler");
        shown
            .map(|(offset, key, value)| format!("{offset} {key}={}", value.as_deref().unwrap_or("-")))
            .collect()
    };
    // The last round may lie in the active segment, which is not touched; what lies before it is clean.
    await_that("the first rounds go", || {
        let shown = small(&read_all(&mut wire, "kept"));
        shown.iter().filter(|record| record.contains(" a=")).count() <= 2
    });
    let kept = small(&read_all(&mut wire, "kept"));
    assert!(kept.iter().any(|record| record.ends_with("b=-")), "a tombstone stays for a day: {kept:?}");
    assert!(kept.contains(&"15 a=3".to_owned()) && kept.contains(&"17 c=3".to_owned()), "{kept:?}");
    assert_eq!(kept.last().map(String::as_str), Some("20 b=not yet compacted"));
    // Where they need not stay at all, the first pass only marks them; the next one that has something to clean drops them.
    await_that("the tombstones go", || {
        wire.store("gone", 0, keyed_batch(Codec::None, &[("filler", Some(&filler))]));
        let shown = small(&read_all(&mut wire, "gone"));
        assert!(shown.iter().any(|record| record.ends_with("a=3")), "{shown:?}");
        !shown.iter().any(|record| record.ends_with("b=-"))
    });
    drop(node);
}

/// With both policies each does its part: whole segments go by their age, with the newest of a key in them, and of what is left
/// the newest of each key stays.
#[test]
fn a_topic_with_both_policies_loses_what_is_old_and_what_was_replaced() {
    // 2001 and 2023, and twenty years.
    const OLD: i64 = 1_000_000_000_000;
    const NEW: i64 = 1_700_000_000_000;
    let configs = [
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "631152000000"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path());
    let mut wire = node.connect();
    wire.create("both", 1, &configs);
    let filler = "x".repeat(600_000);
    let batch = |time: i64, key: &str, value: &str| {
        let records = [(key, Some(value)), ("filler", Some(&*filler))];
        keyed_batch_at(Codec::None, time, &records)
    };
    for round in ["1", "2"] {
        wire.store("both", 0, batch(OLD, "replaced", round));
        // Nobody will ever write this key again.
        wire.store("both", 0, batch(OLD, "old alone", round));
    }
    let first_new = wire.store("both", 0, batch(NEW, "replaced", "3"));
    // A segment goes by the newest it holds, and compaction may put what is old and what is new into one: so that goes first.
    await_that("what is old goes", || wire.fetch("both", 0, first_new).log_start_offset == first_new);
    for round in ["4", "5", "6"] {
        wire.store("both", 0, batch(NEW, "replaced", round));
    }
    wire.store("both", 0, batch(NEW, "last", "in the active segment"));
    let values = |records: &[Keyed], key: &str| -> Vec<String> {
        records.iter().filter(|record| record.1 == key).filter_map(|record| record.2.clone()).collect()
    };
    // A segment that compaction has emptied may go: then the log begins behind that.
    let newest_replaced = first_new + 6;
    let mut begin = first_new;
    await_that("what was replaced goes", || {
        begin = wire.fetch("both", 0, newest_replaced).log_start_offset;
        assert!(begin <= newest_replaced, "nothing that is not old goes by its age: it begins at {begin}");
        values(&read_from(&mut wire, "both", begin), "replaced") == ["6"]
    });
    let records = read_from(&mut wire, "both", begin);
    assert_eq!(values(&records, "old alone"), [""; 0], "its age takes the newest of a key as well");
    assert_eq!(values(&records, "last"), ["in the active segment"]);
    drop(node);
}
