//! Groups' messages on their way between nodes: in front of each stands which group it is for.

use bytes::{Buf, BufMut, BytesMut};
use ouzel_model::{PartitionIndex, ReplicaId, TopicId, TopicIdPartition};
use ouzel_raft::peers::{Peers, service};
use ouzel_raft::{CallError, Lane, LocalBoxFuture, PeerMessage, Transport};

const GROUP_BYTES: usize = 20;

/// A core's [`Peers`] as its groups use them.
pub(crate) struct GroupTransport {
    pub(crate) peers: Peers,
}

impl Transport for GroupTransport {
    fn call(
        &self,
        to: ReplicaId,
        group: TopicIdPartition,
        lane: Lane,
        message: PeerMessage,
    ) -> LocalBoxFuture<Result<PeerMessage, CallError>> {
        self.peers.call(to.node, lane, service::RAFT, address(group, message))
    }
}

/// Puts the group in front of a message.
pub(super) fn address(group: TopicIdPartition, message: PeerMessage) -> PeerMessage {
    let mut head = BytesMut::with_capacity(GROUP_BYTES + message.head.len());
    head.put_slice(&group.topic_id.0);
    head.put_i32(group.partition.0);
    head.put_slice(&message.head);
    PeerMessage { head: head.freeze(), bodies: message.bodies }
}

/// Takes the group off a message.
pub(crate) fn addressee(mut message: PeerMessage) -> Result<(TopicIdPartition, PeerMessage), String> {
    if message.head.len() < GROUP_BYTES {
        return Err(format!("a group's message of {} bytes", message.head.len()));
    }
    let mut topic_id = [0; 16];
    message.head.copy_to_slice(&mut topic_id);
    let partition = PartitionIndex(message.head.get_i32());
    Ok((TopicIdPartition { topic_id: TopicId(topic_id), partition }, message))
}
