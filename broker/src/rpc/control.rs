//! What nodes ask the controller, in bytes.
//!
//! The head of a message is a kind and its fields, big endian; a Kafka frame, without its length, is the body.

use bytes::{BufMut, Bytes, BytesMut};
use ouzel_metadata::image::Broker;
use ouzel_metadata::{DecodeError, Partition, Record};
use ouzel_model::{NodeId, Offset, PartitionIndex, ProducerId, ReplicaId, TopicId, TopicIdPartition};
use ouzel_protocol::reader::{Malformed, Reader};
use ouzel_raft::PeerMessage;

/// A question to the controller.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ControlCall {
    /// A client's request that only the controller can carry out, as the client could have sent it.
    Kafka(Bytes),
    /// A broker is there, at these addresses.
    Register(Broker),
    /// A broker needs ids for idempotent producers.
    ProducerIds(NodeId),
    /// Whoever leads this group on the node that is asked is to hand over to that replica. For any node.
    Transfer(TopicIdPartition, ReplicaId),
    /// A partition's leader has made the replicas of what it names its members.
    Settle(TopicIdPartition, Partition),
}

/// The controller's answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ControlAnswer {
    /// The controller is not here, but there if that is known.
    NotController(Option<NodeId>),
    /// The response frame, and the end of the controller's log when it was made: whoever passes it on has seen as much.
    Kafka(Bytes, Offset),
    /// It is registered as of this end of the controller's log.
    Registered(Offset),
    /// So many ids from this one on are the broker's.
    ProducerIds(ProducerId, i32),
    /// It is done.
    Done,
    /// No, and it is no use to ask again.
    Refused(String),
    /// Not this time.
    Failed(String),
}

/// Bytes that are no control message of this release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadControl {
    #[error("control message: {0}")]
    Malformed(#[from] Malformed),
    #[error("control message: kind {0} is unknown to this release")]
    UnknownKind(i8),
    #[error("control message: {0}")]
    Record(#[from] DecodeError),
    #[error("control message: it registers no broker")]
    NoBroker,
    #[error("control message: it names no partition")]
    NoPartition,
    #[error("control message: the frame is missing")]
    NoFrame,
}

const KAFKA: i8 = 1;
const REGISTER: i8 = 2;
const PRODUCER_IDS: i8 = 3;
const NOT_CONTROLLER: i8 = 4;
const REFUSED: i8 = 5;
const FAILED: i8 = 6;
const TRANSFER: i8 = 7;
const DONE: i8 = 8;
const SETTLE: i8 = 9;

impl ControlCall {
    /// As bytes.
    pub(crate) fn encode(&self) -> PeerMessage {
        let mut head = BytesMut::new();
        let mut bodies = Vec::new();
        match self {
            ControlCall::Kafka(frame) => {
                head.put_i8(KAFKA);
                bodies.push(frame.clone());
            }
            ControlCall::Register(broker) => {
                head.put_i8(REGISTER);
                bodies.push(Record::BrokerRegistered(broker.clone()).encode().into());
            }
            ControlCall::ProducerIds(node) => {
                head.put_i8(PRODUCER_IDS);
                head.put_i32(node.0);
            }
            ControlCall::Transfer(group, to) => {
                head.put_i8(TRANSFER);
                head.put_slice(&group.topic_id.0);
                head.put_i32(group.partition.0);
                head.put_i64(to.to_u64() as i64);
            }
            ControlCall::Settle(at, seen) => {
                head.put_i8(SETTLE);
                let TopicIdPartition { topic_id, partition: index } = *at;
                let record = Record::PartitionChanged { topic_id, index, partition: seen.clone() };
                bodies.push(record.encode().into());
            }
        }
        PeerMessage { head: head.freeze(), bodies }
    }

    /// From bytes that anybody may have sent.
    pub(crate) fn decode(message: &PeerMessage) -> Result<ControlCall, BadControl> {
        let mut head = Reader::new(&message.head, false);
        let body = || message.bodies.first().cloned().ok_or(BadControl::NoFrame);
        let call = match head.i8()? {
            KAFKA => ControlCall::Kafka(body()?),
            REGISTER => match Record::decode(&body()?)? {
                Record::BrokerRegistered(broker) => ControlCall::Register(broker),
                _ => return Err(BadControl::NoBroker),
            },
            PRODUCER_IDS => ControlCall::ProducerIds(NodeId(head.i32()?)),
            TRANSFER => {
                let topic_id = TopicId(head.uuid()?);
                let group = TopicIdPartition { topic_id, partition: PartitionIndex(head.i32()?) };
                ControlCall::Transfer(group, ReplicaId::from_u64(head.i64()? as u64))
            }
            SETTLE => match Record::decode(&body()?)? {
                Record::PartitionChanged { topic_id, index, partition } => {
                    ControlCall::Settle(TopicIdPartition { topic_id, partition: index }, partition)
                }
                _ => return Err(BadControl::NoPartition),
            },
            kind => return Err(BadControl::UnknownKind(kind)),
        };
        head.end()?;
        Ok(call)
    }
}

impl ControlAnswer {
    /// As bytes.
    pub(crate) fn encode(&self) -> PeerMessage {
        let mut head = BytesMut::new();
        let mut bodies = Vec::new();
        match self {
            ControlAnswer::NotController(leader) => {
                head.put_i8(NOT_CONTROLLER);
                head.put_i32(leader.map_or(-1, |node| node.0));
            }
            ControlAnswer::Kafka(frame, end) => {
                head.put_i8(KAFKA);
                head.put_i64(end.value());
                bodies.push(frame.clone());
            }
            ControlAnswer::Registered(end) => {
                head.put_i8(REGISTER);
                head.put_i64(end.value());
            }
            ControlAnswer::ProducerIds(first, size) => {
                head.put_i8(PRODUCER_IDS);
                head.put_i64(first.0);
                head.put_i32(*size);
            }
            ControlAnswer::Done => head.put_i8(DONE),
            ControlAnswer::Refused(words) => {
                head.put_i8(REFUSED);
                bodies.push(words.clone().into());
            }
            ControlAnswer::Failed(words) => {
                head.put_i8(FAILED);
                bodies.push(words.clone().into());
            }
        }
        PeerMessage { head: head.freeze(), bodies }
    }

    /// From bytes that anybody may have sent.
    pub(crate) fn decode(message: &PeerMessage) -> Result<ControlAnswer, BadControl> {
        let mut head = Reader::new(&message.head, false);
        let body = || message.bodies.first().cloned().ok_or(BadControl::NoFrame);
        let words = || body().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let answer = match head.i8()? {
            NOT_CONTROLLER => {
                let node = head.i32()?;
                ControlAnswer::NotController((node >= 0).then_some(NodeId(node)))
            }
            KAFKA => ControlAnswer::Kafka(body()?, Offset(head.i64()?)),
            REGISTER => ControlAnswer::Registered(Offset(head.i64()?)),
            PRODUCER_IDS => ControlAnswer::ProducerIds(ProducerId(head.i64()?), head.i32()?),
            DONE => ControlAnswer::Done,
            REFUSED => ControlAnswer::Refused(words()?),
            FAILED => ControlAnswer::Failed(words()?),
            kind => return Err(BadControl::UnknownKind(kind)),
        };
        head.end()?;
        Ok(answer)
    }
}
