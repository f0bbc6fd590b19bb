//! What a shard writes to `__consumer_offsets`, typed. The runtime encodes it with Kafka 4.3's schemas.

use std::sync::Arc;

use ouzel_model::{GroupId, LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId, TopicName};

use crate::ids::{Blob, InstanceId, MemberId};

/// One record of the partition: a key and its value, `None` being the tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Key type 1 (`OffsetCommitKey`, version 1).
    OffsetCommit {
        /// The group that read.
        group: GroupId,
        /// The topic it read.
        topic: TopicName,
        /// The partition it read.
        partition: PartitionIndex,
        /// How far, or that this is forgotten.
        value: Option<CommittedOffset>,
    },
    /// Key type 2 (`GroupMetadataKey`, version 2).
    GroupMetadata {
        /// The group.
        group: GroupId,
        /// Its latest stable generation, or that the group is gone.
        value: Option<GroupMetadata>,
    },
}

impl Record {
    /// The group the record is about; it decides the partition.
    pub fn group(&self) -> &GroupId {
        match self {
            Record::OffsetCommit { group, .. } | Record::GroupMetadata { group, .. } => group,
        }
    }
}

/// A group's progress in one partition (`OffsetCommitValue`).
///
/// Kafka writes value version 4, and version 1 when `expire_timestamp` is there: newer versions lost that field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next record the group will read.
    pub offset: Offset,
    /// The epoch of the last record it read, or `NONE`.
    pub leader_epoch: LeaderEpoch,
    /// The client's own words; must come back unchanged.
    pub metadata: Arc<str>,
    /// When the coordinator took the commit.
    pub commit_timestamp: TimestampMs,
    /// When a client of the old protocol wanted the offset to expire; -1 on disk becomes `None`.
    pub expire_timestamp: Option<TimestampMs>,
    /// The topic's incarnation; zero when the client did not say.
    pub topic_id: TopicId,
}

/// A group's generation (`GroupMetadataValue`, version 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// What kind of group: "consumer", "connect", ...; `None` is "" on disk (a group nobody has joined yet).
    pub protocol_type: Option<Arc<str>>,
    /// The generation.
    pub generation: i32,
    /// The protocol its members agreed on; null without members.
    pub protocol: Option<Arc<str>>,
    /// The member that assigns; null without members.
    pub leader: Option<MemberId>,
    /// When the group came into its present state; -1 on disk becomes `NONE`.
    pub state_timestamp: TimestampMs,
    /// The members, sorted by id.
    pub members: Vec<GroupMember>,
}

/// One member in [`GroupMetadata`] (`MemberMetadata`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The member.
    pub member_id: MemberId,
    /// Its static name, if it has one.
    pub instance_id: Option<InstanceId>,
    /// `client.id` of its connection.
    pub client_id: Arc<str>,
    /// Where it connected from, as Kafka prints it ("/127.0.0.1").
    pub client_host: Arc<str>,
    /// How long a rebalance may wait for it. Records older than version 1 say -1: take the session timeout.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// Its metadata under the agreed protocol.
    pub subscription: Blob,
    /// What the leader assigned to it.
    pub assignment: Blob,
}
