//! One member's dealings with its group's coordinator, in the classic protocol: join, sync, heartbeat, commit, leave.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ouzel_client::ClientError;
use ouzel_model::Offset;
use ouzel_protocol::messages::kafka::join_group_request::JoinGroupRequestProtocol;
use ouzel_protocol::messages::kafka::leave_group_request::MemberIdentity;
use ouzel_protocol::messages::kafka::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ouzel_protocol::messages::kafka::sync_group_request::SyncGroupRequestAssignment;
use ouzel_protocol::messages::kafka::{
    GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, SyncGroupRequest,
};
use ouzel_protocol::messages::offset_commit;
use ouzel_protocol::{ErrorCode, StrBytes};

use super::super::shared::TOPIC;
use super::wire::Wire;
use crate::check::history::PartitionId;

/// Who is silent for so long is taken for dead.
const SESSION: Duration = Duration::from_millis(1500);
/// How long the others wait for a member that is to join again.
const REBALANCE: Duration = Duration::from_millis(1500);
/// The answer to a JoinGroup waits for the others.
const JOIN_WAIT: Duration = Duration::from_millis(2500);
const PROTOCOL_TYPE: &str = "consumer";
const PROTOCOL: &str = "by-turns";

/// A member, as far as it knows.
pub(super) struct Membership {
    group: String,
    /// Empty until the coordinator has given it one.
    pub(super) member_id: String,
    /// The generation it joined last.
    pub(super) generation: i32,
}

/// What a member does after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It asks again.
    Retry,
    /// It joins again: its generation is over.
    Rejoin,
    /// It joins as somebody new: the coordinator does not know it.
    Begin,
}

impl Next {
    pub(super) fn after(error: &ClientError) -> Next {
        match error.code() {
            Some(ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration) => Next::Rejoin,
            Some(ErrorCode::UnknownMemberId | ErrorCode::GroupIdNotFound) => Next::Begin,
            _ => Next::Retry,
        }
    }
}

impl Membership {
    pub(super) fn new(group: String) -> Membership {
        Membership { group, member_id: String::new(), generation: -1 }
    }

    /// Joins, and is given partitions; whoever is chosen to gives them to all, by turns.
    pub(super) async fn join(
        &mut self,
        wire: &mut Wire,
        partitions: &[PartitionId],
    ) -> Result<Vec<PartitionId>, ClientError> {
        let mut joined = self.ask_to_join(wire).await;
        if let Ok((ErrorCode::MemberIdRequired, answer)) = &joined {
            self.member_id = answer.member_id.to_string();
            joined = self.ask_to_join(wire).await;
        }
        let (code, joined) = joined?;
        ClientError::check(code.code(), None, || format!("join {}", self.group))?;
        self.member_id = joined.member_id.to_string();
        self.generation = joined.generation_id;
        let mut assignments = Vec::new();
        if joined.leader == joined.member_id {
            let count = joined.members.len().max(1);
            // Beginning with another one in each generation.
            let first = self.generation.unsigned_abs() as usize;
            for (nth, member) in joined.members.iter().enumerate() {
                let turns = partitions.iter().enumerate().filter(|(at, _)| (first + at) % count == nth);
                assignments.push(
                    SyncGroupRequestAssignment::default()
                        .with_member_id(member.member_id.clone())
                        .with_assignment(encode(turns.map(|(_, partition)| *partition))),
                );
            }
        }
        let request = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(text(&self.member_id))
            .with_protocol_type(Some(text(PROTOCOL_TYPE)))
            .with_protocol_name(Some(text(PROTOCOL)))
            .with_assignments(assignments);
        let what = format!("sync {}", self.group);
        let synced = wire
            .ask_coordinator(&self.group, request, i16::MAX, REBALANCE, &what, |synced| synced.error_code);
        Ok(decode(synced.await?.assignment))
    }

    async fn ask_to_join(
        &self,
        wire: &mut Wire,
    ) -> Result<(ErrorCode, ouzel_protocol::messages::kafka::JoinGroupResponse), ClientError> {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text(PROTOCOL))
            .with_metadata(Bytes::from_static(b"all"));
        let request = JoinGroupRequest::default()
            .with_group_id(self.group_id())
            .with_session_timeout_ms(SESSION.as_millis() as i32)
            .with_rebalance_timeout_ms(REBALANCE.as_millis() as i32)
            .with_member_id(text(&self.member_id))
            .with_protocol_type(text(PROTOCOL_TYPE))
            .with_protocols(vec![protocol]);
        let what = format!("join {}", self.group);
        let required = ErrorCode::MemberIdRequired.code();
        let code = |joined: &ouzel_protocol::messages::kafka::JoinGroupResponse| {
            if joined.error_code == required { 0 } else { joined.error_code }
        };
        let joined = wire.ask_coordinator(&self.group, request, i16::MAX, JOIN_WAIT, &what, code).await?;
        Ok((if joined.error_code == 0 { ErrorCode::None } else { ErrorCode::MemberIdRequired }, joined))
    }

    pub(super) async fn heartbeat(&self, wire: &mut Wire) -> Result<(), ClientError> {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(text(&self.member_id));
        let what = format!("heartbeat of {}", self.group);
        let beaten = wire.ask_coordinator(&self.group, request, i16::MAX, Duration::ZERO, &what, |beaten| {
            beaten.error_code
        });
        beaten.await.map(drop)
    }

    /// Commits, in one attempt.
    pub(super) async fn commit(
        &self,
        wire: &mut Wire,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<(), ClientError> {
        let one = OffsetCommitRequestPartition::default()
            .with_partition_index(partition.0.cast_signed())
            .with_committed_offset(offset.value())
            .with_committed_metadata(Some(text("")));
        let topic =
            OffsetCommitRequestTopic::default().with_name(text(TOPIC).into()).with_partitions(vec![one]);
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(text(&self.member_id))
            .with_topics(vec![topic]);
        let what = format!("commit in {}", self.group);
        // The last version that names topics by name.
        let version_max = offset_commit::VERSION - 1;
        let code = |committed: &ouzel_protocol::messages::kafka::OffsetCommitResponse| {
            let partitions = committed.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|partition| partition.error_code).find(|code| *code != 0).unwrap_or(0)
        };
        let committed = wire.ask_coordinator(&self.group, request, version_max, Duration::ZERO, &what, code);
        committed.await.map(drop)
    }

    pub(super) async fn leave(&self, wire: &mut Wire) -> Result<(), ClientError> {
        let member = MemberIdentity::default().with_member_id(text(&self.member_id));
        let request = LeaveGroupRequest::default().with_group_id(self.group_id()).with_members(vec![member]);
        let what = format!("leave {}", self.group);
        let left = wire
            .ask_coordinator(&self.group, request, i16::MAX, Duration::ZERO, &what, |left| left.error_code);
        left.await.map(drop)
    }

    fn group_id(&self) -> GroupId {
        text(&self.group).into()
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn encode(partitions: impl Iterator<Item = PartitionId>) -> Bytes {
    let mut bytes = BytesMut::new();
    partitions.for_each(|partition| bytes.put_u32(partition.0));
    bytes.freeze()
}

fn decode(mut bytes: Bytes) -> Vec<PartitionId> {
    let mut partitions = Vec::new();
    while bytes.len() >= 4 {
        partitions.push(PartitionId(bytes.get_u32()));
    }
    partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_a_member_does_next() {
        let next = |code: ErrorCode| {
            let refused = ClientError::check(code.code(), None, || "commit".to_owned()).unwrap_err();
            Next::after(&refused)
        };
        assert_eq!(next(ErrorCode::RebalanceInProgress), Next::Rejoin);
        assert_eq!(next(ErrorCode::IllegalGeneration), Next::Rejoin);
        assert_eq!(next(ErrorCode::UnknownMemberId), Next::Begin);
        assert_eq!(next(ErrorCode::GroupIdNotFound), Next::Begin);
        assert_eq!(next(ErrorCode::NotCoordinator), Next::Retry);
    }

    #[test]
    fn what_is_given_arrives() {
        let given = [PartitionId(2), PartitionId(0)];
        assert_eq!(decode(encode(given.into_iter())), given);
    }
}
