//! What the cleanup policies of a topic leave on each of its replicas.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use ouzel_client::{Consumer, ConsumerConfig, NewRecord, NewTopic, OffsetSpec, Producer, ProducerConfig};
use ouzel_model::{Offset, TimestampMs};

use crate::cluster::{Cluster, with_client};

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
const PATIENCE: Duration = Duration::from_secs(60);

/// The base offset of the first segment in a partition's directory, and the bytes of all.
fn segments(dir: &Path) -> (i64, u64) {
    let (mut first, mut bytes) = (i64::MAX, 0);
    for file in std::fs::read_dir(dir).expect("its directory").map(Result::unwrap) {
        let name = file.file_name().into_string().unwrap();
        // One that was replaced meanwhile counts for nothing.
        if let (Some(base), Ok(metadata)) = (name.strip_suffix(".log"), file.metadata()) {
            (first, bytes) = (first.min(base.parse().unwrap()), bytes + metadata.len());
        }
    }
    (first, bytes)
}

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
    let deadline = Instant::now() + PATIENCE;
    for node in 1..=3 {
        let dir = cluster.data_dir(node).join("t-0");
        loop {
            let (first, bytes) = segments(&dir);
            // The newest of the replaced ones, and the active segment. The log may begin anywhere between: a segment that
            // compaction has emptied may go with the old one before it.
            if (first_new..=first_new + 3).contains(&first) && bytes < 2 * VALUE_BYTES as u64 + 10_000 {
                break;
            }
            assert!(Instant::now() < deadline, "node {node} begins at {first} and has {bytes} bytes");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let left = with_client(&cluster.bootstrap(), async move |client, _| {
        let start = client.list_offsets(&[("t".to_owned(), 0, OffsetSpec::Earliest)]).await.unwrap();
        let start = start[&("t".to_owned(), 0)].offset.expect("it begins somewhere");
        assert!((Offset(first_new)..=Offset(first_new + 3)).contains(&start), "{start}");
        let mut consumer = Consumer::new(&client, ConsumerConfig::default());
        consumer.seek("t", 0, start);
        let mut left = BTreeMap::new();
        loop {
            for consumed in consumer.poll().await.unwrap() {
                let key = String::from_utf8(consumed.record.key.unwrap()).unwrap();
                assert_eq!(left.insert(key, consumed.record.offset.value()), None, "one of each key");
            }
            if consumer.is_at_end() {
                return left;
            }
        }
    });
    let expected = [("last", first_new + 4), ("replaced", first_new + 3)];
    assert_eq!(left, expected.map(|(key, offset)| (key.to_owned(), offset)).into());
}
