//! Committed offsets: who may commit, what is written, what a fetch sees.

use std::collections::BTreeSet;
use std::sync::Arc;

use ouzel_model::{GroupId, LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId, TopicName};

use crate::config::Config;
use crate::error::GroupError;
use crate::group::Group;
use crate::persisted::Persisted;
use crate::record::{CommittedOffset, Record};
use crate::request::{
    CommitPartition, CommitTopic, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    TxnOffsetCommitRequest,
};
use crate::response::{CommitTopicResult, DeleteTopicResult, FetchTopicResult, FetchedOffset, GroupState};

impl Group {
    /// Whether this OffsetCommit comes from someone who may move the group's offsets.
    pub(crate) fn check_commit(&self, request: &OffsetCommitRequest) -> Result<(), GroupError> {
        let without_generation = request.generation < 0;
        if without_generation && self.state == GroupState::Empty {
            // An administrator, or a consumer that assigns its partitions itself.
            return Ok(());
        }
        if without_generation && request.member_id.is_unknown() && request.instance_id.is_none() {
            return Err(GroupError::UnknownMember);
        }
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == GroupState::CompletingRebalance {
            // Its partitions may be another member's already. While preparing they still are its own, so the commits
            // of the generation that ends are welcome until then.
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Whether this TxnOffsetCommit comes from someone who may move the group's offsets. Clients below v3 do not say
    /// who they are; the producer's fencing is all there is then. Where the rebalance stands does not matter: the
    /// transaction was begun before.
    pub(crate) fn check_transactional_commit(
        &self,
        request: &TxnOffsetCommitRequest,
    ) -> Result<(), GroupError> {
        let without_generation = request.generation < 0;
        let nameless = request.member_id.is_unknown() && request.instance_id.is_none();
        if without_generation && (nameless || self.state == GroupState::Empty) {
            return Ok(());
        }
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation == self.generation { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    /// Whether OffsetDelete may touch the group at all.
    pub(crate) fn check_offset_delete(&self) -> Result<(), GroupError> {
        match self.state {
            GroupState::Dead => Err(GroupError::GroupNotFound),
            GroupState::Empty => Ok(()),
            // Only of consumer groups is it known which topics are in use.
            _ if self.is_consumer() => Ok(()),
            _ => Err(GroupError::NonEmptyGroup),
        }
    }
}

/// Splits a commit that may proceed into records and the answer that goes out when they have committed.
pub(crate) fn commit(
    config: &Config,
    now: TimestampMs,
    group: &GroupId,
    topics: &[CommitTopic],
    retention_ms: Option<i64>,
) -> (Vec<Record>, Vec<CommitTopicResult>) {
    let mut records = Vec::new();
    let expire_timestamp = retention_ms.map(|retention| TimestampMs(now.value().saturating_add(retention)));
    let mut commit_one = |topic: &TopicName, topic_id: TopicId, each: &CommitPartition| {
        let metadata: Arc<str> = each.metadata.clone().unwrap_or_else(|| Arc::from(""));
        if is_too_long(&metadata, config.offset_metadata_units_max) {
            return Err(GroupError::OffsetMetadataTooLarge);
        }
        records.push(Record::OffsetCommit {
            group: group.clone(),
            topic: topic.clone(),
            partition: each.partition,
            value: Some(CommittedOffset {
                offset: each.offset,
                leader_epoch: each.leader_epoch,
                metadata,
                commit_timestamp: now,
                expire_timestamp,
                topic_id,
            }),
        });
        Ok(())
    };
    let results = topics
        .iter()
        .map(|topic| CommitTopicResult {
            topic: topic.topic.clone(),
            topic_id: topic.topic_id,
            partitions: topic
                .partitions
                .iter()
                .map(|each| (each.partition, commit_one(&topic.topic, topic.topic_id, each)))
                .collect(),
        })
        .collect();
    (records, results)
}

/// Kafka measures Java's string length. Bytes are never fewer than units, so short texts need no count.
fn is_too_long(metadata: &str, units_max: usize) -> bool {
    metadata.len() > units_max && metadata.encode_utf16().count() > units_max
}

/// What an OffsetFetch sees: committed records, nothing else. An unknown group has committed nothing.
pub(crate) fn fetch(persisted: &Persisted, request: &OffsetFetchRequest) -> Vec<FetchTopicResult> {
    let fetched = |topic: &TopicName, partition: PartitionIndex, offset: Option<&CommittedOffset>| {
        let unstable = request.require_stable
            && persisted.pending().contains(&request.group, &(topic.clone(), partition));
        fetched(partition, offset.filter(|_| !unstable), unstable)
    };
    let Some(topics) = &request.topics else {
        let all = persisted.offsets_of(&request.group).into_iter().flatten();
        return all
            .map(|(topic, partitions)| FetchTopicResult {
                topic: topic.clone(),
                topic_id: TopicId::ZERO,
                partitions: partitions
                    .iter()
                    .map(|(index, offset)| fetched(topic, *index, Some(offset)))
                    .collect(),
            })
            .collect();
    };
    topics
        .iter()
        .map(|topic| FetchTopicResult {
            topic: topic.topic.clone(),
            topic_id: topic.topic_id,
            partitions: topic
                .partitions
                .iter()
                .map(|index| {
                    let found = persisted.offset(&request.group, &topic.topic, *index);
                    let found = found.filter(|offset| is_same_topic(offset.topic_id, topic.topic_id));
                    fetched(&topic.topic, *index, found)
                })
                .collect(),
        })
        .collect()
}

/// Ids are compared only where both sides have one: older clients commit without.
fn is_same_topic(committed: TopicId, asked: TopicId) -> bool {
    committed.is_zero() || asked.is_zero() || committed == asked
}

fn fetched(partition: PartitionIndex, offset: Option<&CommittedOffset>, unstable: bool) -> FetchedOffset {
    match offset {
        Some(offset) => FetchedOffset {
            partition,
            offset: offset.offset,
            leader_epoch: offset.leader_epoch,
            metadata: offset.metadata.clone(),
            unstable,
        },
        None => FetchedOffset {
            partition,
            offset: Offset::NONE,
            leader_epoch: LeaderEpoch::NONE,
            metadata: Arc::from(""),
            unstable,
        },
    }
}

/// What an OffsetDelete that may proceed removes. `exists` says whether an offset is committed or on its way.
pub(crate) fn delete(
    group: &Group,
    request: &OffsetDeleteRequest,
    exists: impl Fn(&TopicName, PartitionIndex) -> bool,
) -> (Vec<Record>, Vec<DeleteTopicResult>) {
    let mut records = Vec::new();
    let mut delete_one = |topic: &TopicName, partition: PartitionIndex| {
        if group.is_subscribed(topic) {
            return Err(GroupError::SubscribedToTopic);
        }
        if exists(topic, partition) {
            records.push(tombstone(&request.group, topic, partition));
        }
        Ok(())
    };
    let results = request
        .topics
        .iter()
        .map(|topic| DeleteTopicResult {
            topic: topic.topic.clone(),
            partitions: topic
                .partitions
                .iter()
                .map(|each| (*each, delete_one(&topic.topic, *each)))
                .collect(),
        })
        .collect();
    (records, results)
}

pub(crate) fn tombstone(group: &GroupId, topic: &TopicName, partition: PartitionIndex) -> Record {
    Record::OffsetCommit { group: group.clone(), topic: topic.clone(), partition, value: None }
}

/// Which offsets a group has or is about to have: the committed ones, those of open transactions, and those in writes
/// that are under way.
pub(crate) fn places<'a>(
    persisted: &'a Persisted,
    in_flight: impl Iterator<Item = &'a Record>,
    group: &GroupId,
) -> BTreeSet<(TopicName, PartitionIndex)> {
    let committed =
        persisted.offsets_of(group).into_iter().flatten().flat_map(|(topic, partitions)| {
            partitions.keys().map(move |partition| (topic.clone(), *partition))
        });
    let coming = in_flight.filter_map(|record| match record {
        Record::OffsetCommit { group: of, topic, partition, value: Some(_) } if of == group => {
            Some((topic.clone(), *partition))
        }
        _ => None,
    });
    committed.chain(coming).chain(persisted.pending().places_of(group).cloned()).collect()
}
