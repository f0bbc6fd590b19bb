//! Any bytes, as messages between nodes: refused or understood, never more.

use bytes::{BufMut, Bytes, BytesMut};
use ouzel_metadata::features::LevelRange;
use ouzel_metadata::image::{Broker, Endpoint, SecurityProtocol};
use ouzel_metadata::{Partition, Record};
use ouzel_model::{NodeId, Offset, PartitionIndex, ProducerId, ReplicaId, TopicId, TopicIdPartition};
use ouzel_raft::PeerMessage;
use proptest::prelude::*;

use super::control::{BadControl, ControlAnswer, ControlCall};
use super::groups::{address, addressee};

const AT: TopicIdPartition = TopicIdPartition { topic_id: TopicId([7; 16]), partition: PartitionIndex(3) };

fn broker() -> Broker {
    Broker {
        node: NodeId(3),
        incarnation: [9; 16],
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".to_owned(),
            host: "a.example".to_owned(),
            port: 9092,
            security: SecurityProtocol::Plaintext,
        }],
        rack: Some("r".to_owned()),
        directory_id: TopicId([4; 16]),
        rpc_address: "a.example:33146".to_owned(),
        fenced: false,
        features: [("f".to_owned(), LevelRange { min: 1, max: 2 })].into(),
    }
}

fn calls() -> Vec<ControlCall> {
    vec![
        ControlCall::Kafka(Bytes::from_static(b"a frame")),
        ControlCall::Register(broker()),
        ControlCall::ProducerIds(NodeId(2)),
        ControlCall::Transfer(AT, ReplicaId { node: NodeId(2), incarnation: 5 }),
        ControlCall::Settle(AT, Partition::new(vec![NodeId(1), NodeId(2)])),
    ]
}

fn answers() -> Vec<ControlAnswer> {
    vec![
        ControlAnswer::NotController(None),
        ControlAnswer::NotController(Some(NodeId(0))),
        ControlAnswer::Kafka(Bytes::from_static(b"a frame"), Offset(7)),
        ControlAnswer::Registered(Offset(8)),
        ControlAnswer::ProducerIds(ProducerId(1_000), 1_000),
        ControlAnswer::Done,
        ControlAnswer::Refused("no".to_owned()),
        ControlAnswer::Failed("not now".to_owned()),
    ]
}

/// The message with its head cut or lengthened.
fn with_head(message: &PeerMessage, head: Bytes) -> PeerMessage {
    PeerMessage { head, bodies: message.bodies.clone() }
}

fn longer(head: &Bytes) -> Bytes {
    head.iter().copied().chain([0]).collect()
}

#[test]
fn what_nodes_say_to_each_other_is_understood() {
    for call in calls() {
        assert_eq!(ControlCall::decode(&call.encode()), Ok(call));
    }
    for answer in answers() {
        assert_eq!(ControlAnswer::decode(&answer.encode()), Ok(answer));
    }
}

#[test]
fn neither_more_nor_less_than_a_message_is_one() {
    for call in calls() {
        let message = call.encode();
        for end in 0..message.head.len() {
            let cut = with_head(&message, message.head.slice(..end));
            assert!(
                matches!(ControlCall::decode(&cut), Err(BadControl::Malformed(_))),
                "{call:?} cut at {end}"
            );
        }
        let longer = with_head(&message, longer(&message.head));
        assert!(matches!(ControlCall::decode(&longer), Err(BadControl::Malformed(_))), "{call:?}");
        if !message.bodies.is_empty() {
            let bare = PeerMessage { head: message.head, bodies: Vec::new() };
            assert_eq!(ControlCall::decode(&bare), Err(BadControl::NoFrame), "{call:?}");
        }
    }
    for answer in answers() {
        let message = answer.encode();
        for end in 0..message.head.len() {
            let cut = with_head(&message, message.head.slice(..end));
            assert!(ControlAnswer::decode(&cut).is_err(), "{answer:?} cut at {end}");
        }
        let longer = with_head(&message, longer(&message.head));
        assert!(matches!(ControlAnswer::decode(&longer), Err(BadControl::Malformed(_))), "{answer:?}");
    }
}

/// A record that is sound, but is not what the message's kind is about, is taken for nothing else.
#[test]
fn a_body_of_another_kind_is_refused() {
    let other: Bytes = Record::BrokerUnregistered { node: NodeId(1) }.encode().into();
    for (call, refusal) in calls().into_iter().filter_map(|call| match call {
        ControlCall::Register(_) => Some((call, BadControl::NoBroker)),
        ControlCall::Settle(..) => Some((call, BadControl::NoPartition)),
        _ => None,
    }) {
        let message = PeerMessage { bodies: vec![other.clone()], ..call.encode() };
        assert_eq!(ControlCall::decode(&message), Err(refusal));
        let torn = PeerMessage { bodies: vec![Bytes::from_static(&[2])], ..call.encode() };
        assert!(matches!(ControlCall::decode(&torn), Err(BadControl::Record(_))), "{call:?}");
    }
    let unknown = PeerMessage { head: Bytes::from_static(&[100]), bodies: Vec::new() };
    assert_eq!(ControlCall::decode(&unknown), Err(BadControl::UnknownKind(100)));
    assert_eq!(ControlAnswer::decode(&unknown), Err(BadControl::UnknownKind(100)));
}

#[test]
fn the_group_is_taken_off_a_message_as_it_was_put_on() {
    let message =
        PeerMessage { head: Bytes::from_static(b"head"), bodies: vec![Bytes::from_static(b"body")] };
    let addressed = address(AT, PeerMessage { head: message.head.clone(), bodies: message.bodies.clone() });
    for end in 0..20 {
        let short = with_head(&addressed, addressed.head.slice(..end));
        assert_eq!(addressee(short).map(|(at, _)| at), Err(format!("a group's message of {end} bytes")));
    }
    let (at, rest) = addressee(addressed).expect("whole");
    assert_eq!((at, rest.head, rest.bodies), (AT, message.head, message.bodies));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    /// Whatever is understood is written back as it was: there is one spelling of each message, and none of them panics.
    #[test]
    fn any_bytes_are_refused_or_understood(
        kind in -1i8..16,
        tail in prop::collection::vec(any::<u8>(), 0..48),
        body in prop::option::of(prop::collection::vec(any::<u8>(), 0..64)),
        sound in prop::option::of(0usize..2),
    ) {
        let mut head = BytesMut::new();
        head.put_i8(kind);
        head.put_slice(&tail);
        let records = [
            Record::BrokerRegistered(broker()),
            Record::PartitionChanged {
                topic_id: AT.topic_id,
                index: AT.partition,
                partition: Partition::new(vec![NodeId(1)]),
            },
        ];
        let body = match sound {
            Some(which) => Some(records[which].encode().into()),
            None => body.map(Bytes::from),
        };
        let message = PeerMessage { head: head.freeze(), bodies: body.into_iter().collect() };
        if let Ok(call) = ControlCall::decode(&message) {
            prop_assert_eq!(ControlCall::decode(&call.encode()), Ok(call));
        }
        if let Ok(answer) = ControlAnswer::decode(&message) {
            prop_assert_eq!(ControlAnswer::decode(&answer.encode()), Ok(answer));
        }
        // It says so, or it was long enough.
        let length = message.head.len();
        prop_assert_eq!(addressee(message).is_ok(), length >= 20);
    }
}
