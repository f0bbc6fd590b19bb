//! The bytes of records: what is written stays readable, and nothing else passes.

use ouzel_metadata::features::{Features, LevelRange};
use ouzel_metadata::{Broker, BrokerScope, ConfigResource, DecodeError, Heir, Partition, Record};
use ouzel_model::{NodeId, PartitionIndex, ReplicaId, TopicId, TopicName};

use crate::support::broker;

/// One record of each kind, with the bytes it has had since its version was released.
fn golden() -> Vec<(Record, &'static str)> {
    let id = TopicId(*b"0123456789abcdef");
    let name = TopicName::new("t.1").expect("a good name");
    let second = ReplicaId { node: NodeId(2), incarnation: 3 };
    let changed = Partition {
        replicas: vec![ReplicaId::first(NodeId(1)), second],
        adding: vec![second],
        removing: vec![ReplicaId::first(NodeId(7))],
        unsettled: vec![second],
        next_incarnation: 4,
        founders: vec![ReplicaId::first(NodeId(7))],
        heir: Some(Heir { replica: ReplicaId::first(NodeId(1)), decision: 4 }),
    };
    let configs = [("retention.ms".to_owned(), "5".to_owned())].into();
    let features = [("f".to_owned(), LevelRange { min: 1, max: 7 })].into();
    let racked = Broker { rack: Some("r".to_owned()), fenced: true, features, ..broker(3) };
    vec![
        (Record::ClusterCreated { cluster_id: "abc".to_owned() }, "0101 00000003 616263"),
        (
            Record::BrokerRegistered(racked),
            "0202 00000003 03030303030303030303030303030303 00000001 00000009 504c41494e54455854 \
             00000009 3132372e302e302e31 2384 00 01 00000001 72 03030303030303030303030303030303 \
             0000000f 3132372e302e302e313a3333313439 01 00000001 00000001 66 0001 0007",
        ),
        (Record::BrokerUnregistered { node: NodeId(3) }, "0301 00000003"),
        (
            Record::TopicCreated {
                name,
                topic_id: id,
                partitions: vec![Partition::new(vec![NodeId(1)])],
                configs,
            },
            "0404 00000003 742e31 30313233343536373839616263646566 00000001 00000001 0000000100000000 00000000 00000000 \
             00000000 00000001 00 00000001 0000000100000000 00000001 0000000c 726574656e74696f6e2e6d73 00000001 35",
        ),
        (Record::TopicDeleted { topic_id: id }, "0501 30313233343536373839616263646566"),
        (
            Record::PartitionsAdded {
                topic_id: id,
                first_index: PartitionIndex(4),
                partitions: vec![Partition::new(vec![NodeId(1)])],
            },
            "0604 30313233343536373839616263646566 00000004 00000001 00000001 0000000100000000 00000000 00000000 \
             00000000 00000001 00 00000001 0000000100000000",
        ),
        (
            Record::PartitionChanged { topic_id: id, index: PartitionIndex(1), partition: changed.clone() },
            "0704 30313233343536373839616263646566 00000001 00000002 0000000100000000 0000000200000003 \
             00000001 0000000200000003 00000001 0000000700000000 00000001 0000000200000003 00000004 01 0000000100000000 00000004 \
             00000001 0000000700000000",
        ),
        (
            Record::ConfigSet {
                resource: ConfigResource::Topic(id),
                key: "k".to_owned(),
                value: String::new(),
            },
            "0801 00 30313233343536373839616263646566 00000001 6b 00000000",
        ),
        (
            Record::ConfigSet {
                resource: ConfigResource::Broker(BrokerScope::ClusterDefault),
                key: "k".to_owned(),
                value: "v".to_owned(),
            },
            "0801 01 00000001 6b 00000001 76",
        ),
        (
            Record::ConfigRemoved {
                resource: ConfigResource::Broker(BrokerScope::Broker(NodeId(9))),
                key: "k".to_owned(),
            },
            "0901 02 00000009 00000001 6b",
        ),
        (
            Record::ProducerIdsAllocated { node: NodeId(1), next_producer_id: 1000 },
            "0a01 00000001 00000000000003e8",
        ),
        (Record::BrokerFenced { node: NodeId(2), fenced: true }, "0b01 00000002 01"),
        (
            Record::ControllerChanged { controller: changed },
            "0c03 00000002 0000000100000000 0000000200000003 00000001 0000000200000003 00000001 0000000700000000 \
             00000001 0000000200000003 00000004 01 0000000100000000 00000004 00000001 0000000700000000",
        ),
        (
            Record::FeaturesSet(Features {
                epoch: 5,
                levels: [("a".to_owned(), 1), ("b".to_owned(), 300)].into(),
            }),
            "0d01 0000000000000005 00000002 00000001 61 0001 00000001 62 012c",
        ),
        (Record::SnapshotStarted, "0e01"),
        (
            Record::SnapshotPiece {
                record: Box::new(Record::ClusterCreated { cluster_id: "abc".to_owned() }),
            },
            "0f01 0101 00000003 616263",
        ),
        (Record::SnapshotEnded { pieces: 258 }, "1001 00000102"),
    ]
}

/// On its way, and of founders nothing is known.
fn changed_without_founders() -> Partition {
    let second = ReplicaId { node: NodeId(2), incarnation: 3 };
    Partition {
        adding: vec![second],
        removing: vec![ReplicaId::first(NodeId(7))],
        unsettled: vec![second],
        next_incarnation: 4,
        founders: Vec::new(),
        ..Partition::of(vec![ReplicaId::first(NodeId(1)), second])
    }
}

/// What was written before partitions told their founders: what never changed had all its replicas for founders.
fn golden_without_founders() -> Vec<(&'static str, Record)> {
    let id = TopicId(*b"0123456789abcdef");
    let changed = Partition {
        heir: Some(Heir { replica: ReplicaId::first(NodeId(1)), decision: 4 }),
        ..changed_without_founders()
    };
    vec![
        (
            "0403 00000003 742e31 30313233343536373839616263646566 00000001 00000001 0000000100000000 00000000 00000000 \
             00000000 00000001 00 00000000",
            Record::TopicCreated {
                name: TopicName::new("t.1").expect("a good name"),
                topic_id: id,
                partitions: vec![Partition::new(vec![NodeId(1)])],
                configs: [].into(),
            },
        ),
        (
            "0603 30313233343536373839616263646566 00000004 00000001 00000001 0000000100000000 00000000 00000000 \
             00000000 00000001 00",
            Record::PartitionsAdded {
                topic_id: id,
                first_index: PartitionIndex(4),
                partitions: vec![Partition::new(vec![NodeId(1)])],
            },
        ),
        (
            "0703 30313233343536373839616263646566 00000001 00000002 0000000100000000 0000000200000003 \
             00000001 0000000200000003 00000001 0000000700000000 00000001 0000000200000003 00000004 01 0000000100000000 00000004",
            Record::PartitionChanged { topic_id: id, index: PartitionIndex(1), partition: changed.clone() },
        ),
        (
            "0c02 00000002 0000000100000000 0000000200000003 00000001 0000000200000003 00000001 0000000700000000 \
             00000001 0000000200000003 00000004 01 0000000100000000 00000004",
            Record::ControllerChanged { controller: changed },
        ),
    ]
}

/// What was written before partitions could have heirs, in the versions that have newer ones.
fn golden_without_heirs() -> Vec<(&'static str, Record)> {
    let id = TopicId(*b"0123456789abcdef");
    let changed = changed_without_founders();
    vec![
        (
            "0402 00000003 742e31 30313233343536373839616263646566 00000001 00000001 0000000100000000 00000000 00000000 \
             00000000 00000001 00000000",
            Record::TopicCreated {
                name: TopicName::new("t.1").expect("a good name"),
                topic_id: id,
                partitions: vec![Partition::new(vec![NodeId(1)])],
                configs: [].into(),
            },
        ),
        (
            "0602 30313233343536373839616263646566 00000004 00000001 00000001 0000000100000000 00000000 00000000 \
             00000000 00000001",
            Record::PartitionsAdded {
                topic_id: id,
                first_index: PartitionIndex(4),
                partitions: vec![Partition::new(vec![NodeId(1)])],
            },
        ),
        (
            "0702 30313233343536373839616263646566 00000001 00000002 0000000100000000 0000000200000003 \
             00000001 0000000200000003 00000001 0000000700000000 00000001 0000000200000003 00000004",
            Record::PartitionChanged { topic_id: id, index: PartitionIndex(1), partition: changed.clone() },
        ),
        (
            "0c01 00000002 0000000100000000 0000000200000003 00000001 0000000200000003 00000001 0000000700000000 \
             00000001 0000000200000003 00000004",
            Record::ControllerChanged { controller: changed },
        ),
    ]
}

/// What release 0.1 wrote, in the versions that have newer ones. It knew one broker and one replica of each partition.
fn golden_of_single_nodes() -> Vec<(&'static str, Record)> {
    let id = TopicId(*b"0123456789abcdef");
    let on_1 = || vec![Partition::new(vec![NodeId(1)])];
    let untold = Broker {
        rack: Some("r".to_owned()),
        directory_id: TopicId::ZERO,
        rpc_address: String::new(),
        features: [].into(),
        ..broker(3)
    };
    vec![
        (
            "0201 00000003 03030303030303030303030303030303 00000001 00000009 504c41494e54455854 \
             00000009 3132372e302e302e31 2384 00 01 00000001 72",
            Record::BrokerRegistered(untold),
        ),
        (
            "0401 00000003 742e31 30313233343536373839616263646566 00000001 00000001 00000001 00000001 00000001 01 \
             00000001 00000000 00000001 0000000c 726574656e74696f6e2e6d73 00000001 35",
            Record::TopicCreated {
                name: TopicName::new("t.1").expect("a good name"),
                topic_id: id,
                partitions: on_1(),
                configs: [("retention.ms".to_owned(), "5".to_owned())].into(),
            },
        ),
        (
            "0601 30313233343536373839616263646566 00000004 00000001 00000001 00000001 00000001 00000001 01 00000001 \
             00000000",
            Record::PartitionsAdded { topic_id: id, first_index: PartitionIndex(4), partitions: on_1() },
        ),
        (
            "0701 30313233343536373839616263646566 00000001 00000002 00000001 00000002 00000001 00000002 00 00000007",
            Record::PartitionChanged {
                topic_id: id,
                index: PartitionIndex(1),
                partition: Partition::new(vec![NodeId(1), NodeId(2)]),
            },
        ),
    ]
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

#[test]
fn bytes_never_change() {
    for (record, hex) in golden() {
        assert_eq!(record.encode(), bytes(hex), "{record:?}");
        assert_eq!(Record::decode(&bytes(hex)), Ok(record));
    }
}

#[test]
fn what_was_written_earlier_stays_readable() {
    let earlier = [golden_of_single_nodes(), golden_without_heirs(), golden_without_founders()];
    for (hex, record) in earlier.into_iter().flatten() {
        assert_eq!(Record::decode(&bytes(hex)).as_ref(), Ok(&record));
        let whole = bytes(hex);
        for length in 0..whole.len() {
            let cut = Record::decode(&whole[..length]);
            assert!(matches!(cut, Err(DecodeError::Truncated { .. })), "{record:?} cut to {length}: {cut:?}");
        }
    }
}

#[test]
fn a_newer_release_is_told_from_damage() {
    let newer_kind = Record::decode(&[17, 1, 0]).expect_err("unknown kind");
    assert_eq!(
        newer_kind.to_string(),
        "metadata record of kind 17 was written by a newer release; run that release, or a later one"
    );
    let newer_version = Record::decode(&[5, 2]).expect_err("unknown version");
    assert_eq!(newer_version, DecodeError::NewerVersion { kind: 5, version: 2, newest: 1 });
    assert!(matches!(Record::decode(&[0, 1]), Err(DecodeError::BadField { position: 0, .. })));
    assert!(matches!(Record::decode(&[5, 0]), Err(DecodeError::BadField { position: 1, .. })));
    assert!(matches!(Record::decode(&[]), Err(DecodeError::Truncated { position: 0, .. })));
}

#[test]
fn every_cut_and_every_tail_is_noticed() {
    for (record, _) in golden() {
        let whole = record.encode();
        for length in 0..whole.len() {
            let cut = Record::decode(&whole[..length]);
            assert!(matches!(cut, Err(DecodeError::Truncated { .. })), "{record:?} cut to {length}: {cut:?}");
        }
        let longer: Vec<u8> = whole.iter().copied().chain([0]).collect();
        assert!(
            matches!(Record::decode(&longer), Err(DecodeError::TrailingBytes { extra: 1, .. })),
            "{record:?}"
        );
    }
}

#[test]
fn lengths_that_lie_cost_nothing() {
    // A topic that claims four billion partitions, a text that claims four gigabytes.
    let partitions =
        [&bytes("0601 30313233343536373839616263646566 00000000 ffffffff")[..], &[0; 40]].concat();
    assert_eq!(
        Record::decode(&partitions),
        Err(DecodeError::Truncated { position: 22, field: "partitions", needed: 4 * 0xffff_ffff - 40 })
    );
    assert_eq!(
        Record::decode(&bytes("0101 ffffffff 61")),
        Err(DecodeError::Truncated { position: 6, field: "cluster id", needed: 0xffff_fffe })
    );
}

#[test]
fn nonsense_says_where() {
    for (hex, sentence) in [
        (
            "0101 00000001 ff",
            "metadata record has bytes that are not UTF-8 at byte 6, which is no cluster id",
        ),
        (
            "0d01 0000000000000005 00000002 00000001 62 0001 00000001 61 0001",
            "metadata record has names out of order at byte 27, which is no features",
        ),
        ("0b01 00000002 02", "metadata record has 2 at byte 6, which is no fenced"),
        (
            "0f01 0f01 0e01",
            "metadata record has a record of kind 15 at byte 2, which is no piece of a snapshot",
        ),
        ("0901 03 00000001 6b", "metadata record has 3 at byte 2, which is no config resource"),
        (
            "0401 00000001 2f 30313233343536373839616263646566",
            "metadata record names a topic badly: topic name '/' contains '/'; only ASCII letters, digits, '.', '_' and '-' are allowed",
        ),
    ] {
        assert_eq!(Record::decode(&bytes(hex)).expect_err(hex).to_string(), sentence);
    }
}

mod properties {
    use ouzel_metadata::Record;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        /// Whatever is read is written back as it was: there is one spelling of each record.
        #[test]
        fn any_bytes_decode_or_are_refused(
            (kind, version) in (0u8..18, 1u8..5),
            which in 0usize..17,
            at in 0usize..64,
            with in any::<u8>(),
            tail in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let random: Vec<u8> = [kind, version].into_iter().chain(tail).collect();
            let mut damaged = super::golden()[which].0.encode();
            let place = at % damaged.len();
            damaged[place] = with;
            for bytes in [random, damaged] {
                if let Ok(record) = Record::decode(&bytes) {
                    prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
                }
            }
        }
    }
}
