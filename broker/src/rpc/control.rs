//! What nodes ask the controller, in bytes.
//!
//! The head of a message is a kind and its fields, big endian; a Kafka frame, without its length, is the body.

use bytes::{BufMut, Bytes, BytesMut};
use ouzel_metadata::image::Broker;
use ouzel_metadata::plan::{Loss, Stand, Verdict};
use ouzel_metadata::{DecodeError, Partition, Record};
use ouzel_model::{
    EntryId, EntryIndex, LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerId, ReplicaId, TopicId,
    TopicIdPartition,
};
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
    /// A node cannot vouch for a replica it is to hold.
    ReplicaLost(TopicIdPartition, ReplicaId, Loss),
    /// How does the replica of the node that is asked stand? For any node.
    Stand(TopicIdPartition),
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
    /// What becomes of a replica that its node cannot vouch for.
    Verdict(Verdict),
    /// How a replica stands.
    Stand(ReplicaId, Stand),
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
    #[error("control message: {0} replicas")]
    TooManyReplicas(i32),
    #[error("control message: {0} sets of voters")]
    TooManySets(i32),
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
const REPLICA_LOST: i8 = 10;
const STAND: i8 = 11;

/// Replicas in a list: far more than one partition has.
const REPLICAS_MAX: usize = 64;
/// A group has two while its voters change.
const VOTER_SETS_MAX: usize = 2;

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
                put_group(&mut head, group);
                put_replica(&mut head, *to);
            }
            ControlCall::ReplicaLost(group, replica, loss) => {
                head.put_i8(REPLICA_LOST);
                put_group(&mut head, group);
                put_replica(&mut head, *replica);
                put_loss(&mut head, *loss);
            }
            ControlCall::Stand(group) => {
                head.put_i8(STAND);
                put_group(&mut head, group);
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
                let group = read_group(&mut head)?;
                ControlCall::Transfer(group, read_replica(&mut head)?)
            }
            REPLICA_LOST => {
                let (group, replica) = (read_group(&mut head)?, read_replica(&mut head)?);
                ControlCall::ReplicaLost(group, replica, read_loss(&mut head)?)
            }
            STAND => ControlCall::Stand(read_group(&mut head)?),
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
            ControlAnswer::Verdict(verdict) => {
                head.put_i8(REPLICA_LOST);
                head.put_i8(match verdict {
                    Verdict::Anew => 0,
                    Verdict::GoOn => 1,
                    Verdict::Wait => 2,
                });
            }
            ControlAnswer::Stand(replica, stand) => {
                head.put_i8(STAND);
                put_replica(&mut head, *replica);
                match stand {
                    Stand::Open { last, voters, in_sync } => {
                        head.put_i8(0);
                        put_last(&mut head, *last);
                        head.put_i32(voters.len() as i32);
                        voters.iter().for_each(|set| put_replicas(&mut head, set));
                        put_replicas(&mut head, in_sync);
                    }
                    Stand::Lost(loss) => {
                        head.put_i8(1);
                        put_loss(&mut head, *loss);
                    }
                }
            }
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
            REPLICA_LOST => ControlAnswer::Verdict(match head.i8()? {
                0 => Verdict::Anew,
                1 => Verdict::GoOn,
                2 => Verdict::Wait,
                kind => return Err(BadControl::UnknownKind(kind)),
            }),
            STAND => {
                let replica = read_replica(&mut head)?;
                let stand = match head.i8()? {
                    0 => Stand::Open {
                        last: read_last(&mut head)?,
                        voters: read_voter_sets(&mut head)?,
                        in_sync: read_replicas(&mut head)?,
                    },
                    1 => Stand::Lost(read_loss(&mut head)?),
                    kind => return Err(BadControl::UnknownKind(kind)),
                };
                ControlAnswer::Stand(replica, stand)
            }
            REFUSED => ControlAnswer::Refused(words()?),
            FAILED => ControlAnswer::Failed(words()?),
            kind => return Err(BadControl::UnknownKind(kind)),
        };
        head.end()?;
        Ok(answer)
    }
}

fn put_group(head: &mut BytesMut, group: &TopicIdPartition) {
    head.put_slice(&group.topic_id.0);
    head.put_i32(group.partition.0);
}

fn read_group(head: &mut Reader<'_>) -> Result<TopicIdPartition, Malformed> {
    let topic_id = TopicId(head.uuid()?);
    Ok(TopicIdPartition { topic_id, partition: PartitionIndex(head.i32()?) })
}

fn put_replica(head: &mut BytesMut, replica: ReplicaId) {
    head.put_u64(replica.to_u64());
}

fn read_replica(head: &mut Reader<'_>) -> Result<ReplicaId, Malformed> {
    Ok(ReplicaId::from_u64(head.i64()?.cast_unsigned()))
}

fn put_replicas(head: &mut BytesMut, replicas: &[ReplicaId]) {
    head.put_i32(replicas.len() as i32);
    for replica in replicas {
        put_replica(head, *replica);
    }
}

fn read_replicas(head: &mut Reader<'_>) -> Result<Vec<ReplicaId>, BadControl> {
    let count = head.i32()?;
    if usize::try_from(count).map_or(true, |count| count > REPLICAS_MAX) {
        return Err(BadControl::TooManyReplicas(count));
    }
    (0..count).map(|_| read_replica(head).map_err(BadControl::from)).collect()
}

fn read_voter_sets(head: &mut Reader<'_>) -> Result<Vec<Vec<ReplicaId>>, BadControl> {
    let count = head.i32()?;
    if usize::try_from(count).map_or(true, |count| count > VOTER_SETS_MAX) {
        return Err(BadControl::TooManySets(count));
    }
    (0..count).map(|_| read_replicas(head)).collect()
}

fn put_loss(head: &mut BytesMut, loss: Loss) {
    match loss {
        Loss::Files => head.put_i8(0),
        Loss::Tail(last) => {
            head.put_i8(1);
            put_last(head, last);
        }
    }
}

fn read_loss(head: &mut Reader<'_>) -> Result<Loss, BadControl> {
    Ok(match head.i8()? {
        0 => Loss::Files,
        1 => Loss::Tail(read_last(head)?),
        kind => return Err(BadControl::UnknownKind(kind)),
    })
}

fn put_last(head: &mut BytesMut, last: Option<EntryId>) {
    match last {
        None => head.put_i8(0),
        Some(last) => {
            head.put_i8(1);
            head.put_i32(last.term.value());
            head.put_u64(last.index.value());
        }
    }
}

fn read_last(head: &mut Reader<'_>) -> Result<Option<EntryId>, BadControl> {
    Ok(match head.i8()? {
        0 => None,
        1 => {
            let term = LeaderEpoch(head.i32()?);
            Some(EntryId { term, index: EntryIndex(head.i64()?.cast_unsigned()) })
        }
        kind => return Err(BadControl::UnknownKind(kind)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: TopicIdPartition =
        TopicIdPartition { topic_id: TopicId([7; 16]), partition: PartitionIndex(3) };

    fn replica(node: i32) -> ReplicaId {
        ReplicaId { node: NodeId(node), incarnation: 5 }
    }

    fn last() -> Option<EntryId> {
        Some(EntryId { term: LeaderEpoch(4), index: EntryIndex(99) })
    }

    fn stands(last: Option<EntryId>, voters: &[&[i32]], in_sync: &[i32]) -> ControlAnswer {
        let list = |nodes: &[i32]| nodes.iter().copied().map(replica).collect();
        let voters = voters.iter().map(|set| list(set)).collect();
        ControlAnswer::Stand(replica(1), Stand::Open { last, voters, in_sync: list(in_sync) })
    }

    #[test]
    fn questions_survive_their_bytes() {
        let moving = Partition::new(vec![NodeId(1), NodeId(2)]).moved_to(&[NodeId(3), NodeId(2)]);
        for call in [
            ControlCall::Kafka(Bytes::from_static(b"a frame")),
            ControlCall::ProducerIds(NodeId(2)),
            ControlCall::Transfer(AT, replica(2)),
            ControlCall::Settle(AT, moving),
            ControlCall::ReplicaLost(AT, replica(1), Loss::Files),
            ControlCall::ReplicaLost(AT, replica(1), Loss::Tail(None)),
            ControlCall::ReplicaLost(AT, replica(1), Loss::Tail(last())),
            ControlCall::Stand(AT),
        ] {
            let message = call.encode();
            assert_eq!(ControlCall::decode(&message), Ok(call));
            for end in 0..message.head.len() {
                let head = message.head.slice(..end);
                let cut = PeerMessage { head, bodies: message.bodies.clone() };
                assert!(ControlCall::decode(&cut).is_err(), "cut at {end}");
            }
        }
    }

    #[test]
    fn answers_survive_their_bytes() {
        for answer in [
            ControlAnswer::NotController(Some(NodeId(2))),
            ControlAnswer::Done,
            ControlAnswer::Verdict(Verdict::Anew),
            ControlAnswer::Verdict(Verdict::GoOn),
            ControlAnswer::Verdict(Verdict::Wait),
            ControlAnswer::Stand(replica(1), Stand::Lost(Loss::Tail(last()))),
            stands(last(), &[], &[]),
            stands(None, &[&[1, 2, 3]], &[]),
            stands(last(), &[&[1, 2, 3], &[1, 2, 4]], &[1, 4]),
            ControlAnswer::Failed("not now".to_owned()),
        ] {
            let message = answer.encode();
            assert_eq!(ControlAnswer::decode(&message), Ok(answer));
            for end in 0..message.head.len() {
                let cut = PeerMessage { head: message.head.slice(..end), bodies: message.bodies.clone() };
                assert!(ControlAnswer::decode(&cut).is_err(), "cut at {end}");
            }
        }
    }

    /// A length is believed only as far as a partition can have as many.
    #[test]
    fn no_length_makes_room_for_what_is_not_there() {
        let lengths = |lengths: &[i32]| {
            let mut head = BytesMut::new();
            head.put_i8(STAND);
            put_replica(&mut head, replica(1));
            head.put_i8(0);
            put_last(&mut head, None);
            lengths.iter().for_each(|length| head.put_i32(*length));
            ControlAnswer::decode(&PeerMessage { head: head.freeze(), bodies: Vec::new() })
        };
        assert_eq!(lengths(&[i32::MAX]), Err(BadControl::TooManySets(i32::MAX)));
        assert_eq!(lengths(&[-1]), Err(BadControl::TooManySets(-1)));
        assert_eq!(lengths(&[3]), Err(BadControl::TooManySets(3)));
        assert_eq!(lengths(&[2, 0, i32::MAX]), Err(BadControl::TooManyReplicas(i32::MAX)));
        assert_eq!(lengths(&[0, 65]), Err(BadControl::TooManyReplicas(65)));
    }
}
