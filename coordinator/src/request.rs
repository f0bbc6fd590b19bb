//! What clients ask of a coordinator, without the wire's versions: where versions differ, a field states the fact.
//!
//! Authorisation, the existence of topics and the resolution of topic ids are the handlers' work. Group ids may be
//! empty where Kafka allows it (offsets and describe); null group ids never get here.

use std::sync::Arc;

use ouzel_model::{GroupId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicName};

use crate::effects::Producer;
use crate::ids::{Blob, InstanceId, MemberId};

/// A request to one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// JoinGroup.
    Join(JoinRequest),
    /// SyncGroup.
    Sync(SyncRequest),
    /// Heartbeat.
    Heartbeat(HeartbeatRequest),
    /// LeaveGroup.
    Leave(LeaveRequest),
    /// OffsetCommit.
    OffsetCommit(OffsetCommitRequest),
    /// TxnOffsetCommit.
    TxnOffsetCommit(TxnOffsetCommitRequest),
    /// OffsetFetch, one group of it.
    OffsetFetch(OffsetFetchRequest),
    /// DescribeGroups, those of this shard.
    Describe(DescribeRequest),
    /// ListGroups; the handler asks every shard of the broker and joins the answers.
    List(ListRequest),
    /// DeleteGroups, those of this shard.
    Delete(DeleteRequest),
    /// OffsetDelete.
    OffsetDelete(OffsetDeleteRequest),
}

/// JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The group to join.
    pub group: GroupId,
    /// The member, unknown on the first join.
    pub member_id: MemberId,
    /// `group.instance.id` of a static member (v5+).
    pub instance_id: Option<InstanceId>,
    /// `client.id` of the request's header.
    pub client_id: Arc<str>,
    /// The peer's address as Kafka prints it, "/127.0.0.1".
    pub client_host: Arc<str>,
    /// How long the member may be silent.
    pub session_timeout_ms: i32,
    /// How long a rebalance may wait for the member; v0 has none: the handler gives the session timeout.
    pub rebalance_timeout_ms: i32,
    /// "consumer", "connect", ...
    pub protocol_type: Arc<str>,
    /// The protocols the member can speak, best first.
    pub protocols: Vec<JoinProtocol>,
    /// v4+: a new dynamic member gets its id first and joins with it (KIP-394).
    pub requires_known_member_id: bool,
    /// v9+: a leader may be told to leave the assignment as it is (KIP-814).
    pub supports_skip_assignment: bool,
    /// v8+: why the client joins, for the log.
    pub reason: Option<Arc<str>>,
    /// Sixteen random bytes, used if the member needs an id: the crate draws no randomness itself.
    pub fresh_uuid: [u8; 16],
}

/// One protocol of a JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinProtocol {
    /// "range", "cooperative-sticky", ...
    pub name: Arc<str>,
    /// The member's metadata under it.
    pub metadata: Blob,
}

/// SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRequest {
    /// The group.
    pub group: GroupId,
    /// The generation the join answered with.
    pub generation: i32,
    /// The member.
    pub member_id: MemberId,
    /// Its static name (v3+).
    pub instance_id: Option<InstanceId>,
    /// v5+: must be the group's, when there.
    pub protocol_type: Option<Arc<str>>,
    /// v5+: must be the group's, when there.
    pub protocol: Option<Arc<str>>,
    /// The leader's work; followers send none.
    pub assignments: Vec<Assignment>,
}

/// What a leader assigns to one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The member.
    pub member_id: MemberId,
    /// Its share.
    pub assignment: Blob,
}

/// Heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatRequest {
    /// The group.
    pub group: GroupId,
    /// The generation the member is in.
    pub generation: i32,
    /// The member.
    pub member_id: MemberId,
    /// Its static name (v3+).
    pub instance_id: Option<InstanceId>,
}

/// LeaveGroup; versions below 3 name one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveRequest {
    /// The group.
    pub group: GroupId,
    /// Who leaves.
    pub members: Vec<LeavingMember>,
}

/// One member of a LeaveGroup: by member id, or, as an administrator does, by instance id alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingMember {
    /// The member, or unknown.
    pub member_id: MemberId,
    /// Its static name.
    pub instance_id: Option<InstanceId>,
    /// v5+: why, for the log.
    pub reason: Option<Arc<str>>,
}

/// OffsetCommit. Topics that do not exist are answered by the handler and left out here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitRequest {
    /// The group.
    pub group: GroupId,
    /// The member's generation, or -1 for a commit without membership.
    pub generation: i32,
    /// The member, or unknown for a commit without membership.
    pub member_id: MemberId,
    /// Its static name (v7+).
    pub instance_id: Option<InstanceId>,
    /// v2 to v4: how long to keep the offsets; -1 on the wire becomes `None`.
    pub retention_ms: Option<i64>,
    /// v9+: a generation in a group that does not exist is `GroupNotFound`, before that `IllegalGeneration`.
    pub knows_group_not_found: bool,
    /// What to commit.
    pub topics: Vec<CommitTopic>,
}

/// TxnOffsetCommit: the offsets count when the transaction commits. That the producer is in a transaction which
/// includes this partition has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnOffsetCommitRequest {
    /// The group.
    pub group: GroupId,
    /// Whose transaction.
    pub producer: Producer,
    /// v3+: the member's generation, else -1.
    pub generation: i32,
    /// v3+: the member, else unknown.
    pub member_id: MemberId,
    /// v3+: its static name.
    pub instance_id: Option<InstanceId>,
    /// What to commit.
    pub topics: Vec<CommitTopic>,
}

/// One topic of an OffsetCommit or TxnOffsetCommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitTopic {
    /// The topic's name.
    pub topic: TopicName,
    /// Its id where the request carried one (v10+), else zero.
    pub topic_id: TopicId,
    /// Its partitions.
    pub partitions: Vec<CommitPartition>,
}

/// One partition of an OffsetCommit or TxnOffsetCommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPartition {
    /// The partition.
    pub partition: PartitionIndex,
    /// The next record to read.
    pub offset: Offset,
    /// v6+: the epoch of the last record read, or `NONE`.
    pub leader_epoch: LeaderEpoch,
    /// The client's own words; null is kept as empty text, as Kafka does.
    pub metadata: Option<Arc<str>>,
}

/// OffsetFetch for one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetFetchRequest {
    /// The group.
    pub group: GroupId,
    /// Which partitions; `None` asks for everything the group has committed.
    pub topics: Option<Vec<FetchTopic>>,
    /// v7+: wait for commits that are on their way, and refuse offsets an open transaction may still move.
    pub require_stable: bool,
}

/// One topic of an OffsetFetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTopic {
    /// The topic's name.
    pub topic: TopicName,
    /// Its id where the request carried one (v10+), else zero: offsets of another incarnation are not returned.
    pub topic_id: TopicId,
    /// The partitions asked for.
    pub partitions: Vec<PartitionIndex>,
}

/// DescribeGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeRequest {
    /// Which groups.
    pub groups: Vec<GroupId>,
}

/// ListGroups. Filters are compared without regard to case; an empty one lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// v4+: states to list.
    pub states: Vec<Arc<str>>,
    /// v5+: types to list; every group here is "classic".
    pub types: Vec<Arc<str>>,
}

/// DeleteGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRequest {
    /// Which groups.
    pub groups: Vec<GroupId>,
}

/// OffsetDelete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetDeleteRequest {
    /// The group.
    pub group: GroupId,
    /// Which offsets to forget.
    pub topics: Vec<DeleteTopic>,
}

/// One topic of an OffsetDelete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteTopic {
    /// The topic's name.
    pub topic: TopicName,
    /// Its partitions.
    pub partitions: Vec<PartitionIndex>,
}
