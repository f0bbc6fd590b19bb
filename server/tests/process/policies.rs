//! What the cleanup policies of a topic leave on each of its replicas.

use std::collections::BTreeMap;

use ouzel_client::{Consumer, ConsumerConfig, NewRecord, NewTopic, OffsetSpec, Producer, ProducerConfig};
use ouzel_model::{Offset, TimestampMs};

use crate::cluster::{Cluster, await_seen, with_client};

/// 2001 and 2023; what is twenty years old goes.
const OLD: TimestampMs = TimestampMs(1_000_000_000_000);
const NEW: TimestampMs = TimestampMs(1_700_000_000_000);
const CONFIGS: [(&str, &str); 4] = [
    ("cleanup.policy", "compact,delete"),
    ("retention.ms", "631152000000"),
    ("segment.bytes", "1048576"),
    ("min.cleanable.dirty.ratio", "0"),
];
/// Two of them fill a segment.
const VALUE_BYTES: usize = 600_000;

/// compact,delete on three replicas: on each of them whole segments go by their age, with the newest of a key in them, and of what
/// is left the newest of each key stays.
#[test]
fn both_policies_do_their_part_on_every_replica() {
    let cluster = Cluster::with(
        3,
        &[
            "--set",
            "log.cleaner.backoff.ms=0",
            "--set",
            "log.retention.check.interval.ms=100",
            "--set",
            "log.segment.delete.delay.ms=0",
        ],
    );
    let wanted = NewTopic {
        name: "t".to_owned(),
        partitions: Some(1),
        replication_factor: Some(3),
        configs: CONFIGS.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    };
    let first_new = with_client(&cluster.bootstrap(), async move |client, _| {
        client.create_topic(&wanted, false).await.unwrap();
        let mut producer = Producer::new(&client, ProducerConfig::default());
        let mut first_new = None;
        for (time, key) in [
            (OLD, "replaced"),
            (OLD, "old alone"),
            (NEW, "replaced"),
            (NEW, "replaced"),
            (NEW, "replaced"),
            (NEW, "replaced"),
            (NEW, "last"),
        ] {
            let record = NewRecord {
                key: Some(key.into()),
                value: Some(vec![b'x'; VALUE_BYTES].into()),
                timestamp: Some(time),
                partition: Some(0),
                ..NewRecord::default()
            };
            let stored = producer.send("t", vec![record]).await.unwrap().remove(0);
            if time == NEW {
                first_new.get_or_insert(stored.offset.expect("it is told").value());
            }
        }
        first_new.expect("some are new")
    });
    cluster.await_in_sync("t", 3);
    for node in 1..=3 {
        let look = || {
            let segments = cluster.segments(node, "t");
            (segments.keys().next().copied(), segments.values().sum::<u64>())
        };
        // The newest of the replaced ones, and the active segment. The log may begin anywhere between: a segment that
        // compaction has emptied may go with the old one before it.
        let is_left = |(first, bytes): &(Option<i64>, u64)| {
            first.is_some_and(|first| (first_new..=first_new + 3).contains(&first))
                && *bytes < 2 * VALUE_BYTES as u64 + 10_000
        };
        // Twice running: while a segment is replaced by another neither may be seen.
        let twice = |looks: &[_; 2]| looks.iter().all(is_left);
        await_seen(&format!("node {node} has what is to be left"), || [look(), look()], twice);
    }
    let expected = [("last", first_new + 4), ("replaced", first_new + 3)];
    let expected: BTreeMap<_, _> = expected.map(|(key, offset)| (key.to_owned(), vec![offset])).into();
    // Whoever leads, and wherever its log begins by then.
    cluster.await_answer(
        "one record of each key is left",
        async move |client| {
            let start = client.list_offsets(&[("t".to_owned(), 0, OffsetSpec::Earliest)]).await?;
            let start = start[&("t".to_owned(), 0)].offset.expect("it begins somewhere");
            assert!((Offset(first_new)..=Offset(first_new + 3)).contains(&start), "{start}");
            let mut consumer = Consumer::new(client, ConsumerConfig::default());
            consumer.seek("t", 0, start);
            let mut left = BTreeMap::<_, Vec<_>>::new();
            loop {
                for consumed in consumer.poll().await? {
                    let key = String::from_utf8(consumed.record.key.unwrap()).unwrap();
                    left.entry(key).or_default().push(consumed.record.offset.value());
                }
                if consumer.is_at_end() {
                    return Ok(left);
                }
            }
        },
        move |left| *left == expected,
    );
}
