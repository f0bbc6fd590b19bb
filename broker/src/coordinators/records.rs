//! Between the coordinator's typed records and the bytes Kafka 4.3 has for them.

use std::sync::Arc;

use bytes::Bytes;
use ouzel_coordinator::{CommittedOffset, GroupMember, GroupMetadata, InstanceId, MemberId, Record};
use ouzel_model::{GroupId, TopicName};
use ouzel_protocol::StrBytes;
use ouzel_protocol::records::group_metadata::{GroupMetadataKey, GroupMetadataValue, MemberMetadata};
use ouzel_protocol::records::offset_commit::{OffsetCommitKey, OffsetCommitValue};
use ouzel_protocol::records::{Record as Wire, RecordError};

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn shared(value: &StrBytes) -> Arc<str> {
    value.as_str().into()
}

/// Why a record of the offsets topic cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// Its bytes.
    #[error(transparent)]
    Bytes(#[from] RecordError),
    /// A topic that cannot exist.
    #[error("an offset is committed for a topic that cannot exist: {0}")]
    Topic(#[from] ouzel_model::InvalidTopicName),
}

/// Reads a record; `None` for kinds that are not the classic groups'.
pub(super) fn decode(key: Vec<u8>, value: Option<Vec<u8>>) -> Result<Option<Record>, Unreadable> {
    let (key, value) = (Bytes::from(key), value.map(Bytes::from));
    Ok(match Wire::decode(&key, value.as_ref())? {
        Wire::Unknown { .. } => None,
        Wire::OffsetCommit(key, value) => Some(Record::OffsetCommit {
            group: GroupId::new(&key.group),
            topic: TopicName::new(&key.topic)?,
            partition: key.partition,
            value: value.map(|value| CommittedOffset {
                offset: value.offset,
                leader_epoch: value.leader_epoch,
                metadata: shared(&value.metadata),
                commit_timestamp: value.commit_timestamp,
                expire_timestamp: value.expire_timestamp,
                topic_id: value.topic_id,
            }),
        }),
        Wire::GroupMetadata(key, value) => Some(Record::GroupMetadata {
            group: GroupId::new(&key.group),
            value: value.map(|value| GroupMetadata {
                protocol_type: Some(shared(&value.protocol_type)).filter(|kind| !kind.is_empty()),
                generation: value.generation,
                protocol: value.protocol.as_ref().map(shared),
                leader: value.leader.as_ref().map(|id| MemberId::new(id)),
                state_timestamp: value.current_state_timestamp,
                members: value.members.iter().map(member).collect(),
            }),
        }),
    })
}

fn member(wire: &MemberMetadata) -> GroupMember {
    GroupMember {
        member_id: MemberId::new(&wire.member_id),
        instance_id: wire.group_instance_id.as_ref().map(|id| InstanceId::new(id)),
        client_id: shared(&wire.client_id),
        client_host: shared(&wire.client_host),
        // Records older than version 1 have none.
        rebalance_timeout_ms: if wire.rebalance_timeout_ms < 0 {
            wire.session_timeout_ms
        } else {
            wire.rebalance_timeout_ms
        },
        session_timeout_ms: wire.session_timeout_ms,
        subscription: wire.subscription.as_ref().into(),
        assignment: wire.assignment.as_ref().into(),
    }
}

/// Key and value of a record, `None` being the tombstone.
pub(super) fn encode(record: &Record) -> (Bytes, Option<Bytes>) {
    let wire = match record {
        Record::OffsetCommit { group, topic, partition, value } => Wire::OffsetCommit(
            OffsetCommitKey {
                group: text(group.as_str()),
                topic: text(topic.as_str()),
                partition: *partition,
            },
            value.as_ref().map(|value| OffsetCommitValue {
                offset: value.offset,
                leader_epoch: value.leader_epoch,
                metadata: text(&value.metadata),
                commit_timestamp: value.commit_timestamp,
                expire_timestamp: value.expire_timestamp,
                topic_id: value.topic_id,
            }),
        ),
        Record::GroupMetadata { group, value } => Wire::GroupMetadata(
            GroupMetadataKey { group: text(group.as_str()) },
            value.as_ref().map(|value| GroupMetadataValue {
                protocol_type: text(value.protocol_type.as_deref().unwrap_or_default()),
                generation: value.generation,
                protocol: value.protocol.as_deref().map(text),
                leader: value.leader.as_ref().map(|id| text(id.as_str())),
                current_state_timestamp: value.state_timestamp,
                members: value.members.iter().map(wire_member).collect(),
            }),
        ),
    };
    wire.encode().expect("both kinds are ours to write")
}

fn wire_member(member: &GroupMember) -> MemberMetadata {
    MemberMetadata {
        member_id: text(member.member_id.as_str()),
        group_instance_id: member.instance_id.as_ref().map(|id| text(id.as_str())),
        client_id: text(&member.client_id),
        client_host: text(&member.client_host),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        session_timeout_ms: member.session_timeout_ms,
        subscription: Bytes::copy_from_slice(&member.subscription),
        assignment: Bytes::copy_from_slice(&member.assignment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ouzel_model::{LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId};

    #[test]
    fn what_a_shard_writes_it_reads_back() {
        let group = GroupId::new("g");
        let topic = TopicName::new("t").unwrap();
        let offset = CommittedOffset {
            offset: Offset(7),
            leader_epoch: LeaderEpoch(2),
            metadata: "the client's own words".into(),
            commit_timestamp: TimestampMs(5),
            expire_timestamp: None,
            topic_id: TopicId([3; 16]),
        };
        let member = GroupMember {
            member_id: MemberId::new("m"),
            instance_id: Some(InstanceId::new("i")),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: 1,
            session_timeout_ms: 2,
            subscription: [1, 2][..].into(),
            assignment: [3][..].into(),
        };
        let metadata = GroupMetadata {
            protocol_type: Some("consumer".into()),
            generation: 4,
            protocol: Some("range".into()),
            leader: Some(MemberId::new("m")),
            state_timestamp: TimestampMs(9),
            members: vec![member],
        };
        let commit = |value| Record::OffsetCommit {
            group: group.clone(),
            topic: topic.clone(),
            partition: PartitionIndex(1),
            value,
        };
        for record in [
            commit(Some(offset)),
            commit(None),
            Record::GroupMetadata { group: group.clone(), value: Some(metadata) },
            Record::GroupMetadata { group: group.clone(), value: None },
        ] {
            let (key, value) = encode(&record);
            let read = decode(key.to_vec(), value.map(|value| value.to_vec())).unwrap();
            assert_eq!(read, Some(record));
        }
    }
}
