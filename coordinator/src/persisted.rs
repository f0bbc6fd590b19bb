//! What the committed records of the partition say; the same after a reload as it was live.

use std::collections::BTreeMap;

use ouzel_model::{GroupId, PartitionIndex, ProducerId, TopicName};

use crate::pending::PendingOffsets;
use crate::record::{CommittedOffset, GroupMetadata, Record};

/// The sum of the partition's records. Applying records, and the ends of transactions, is the only thing that changes
/// it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persisted {
    /// Every group that exists. `None`: a simple group, known by its offsets alone.
    groups: BTreeMap<GroupId, Option<GroupMetadata>>,
    /// No empty maps: a group or topic without offsets is not in here.
    offsets: BTreeMap<GroupId, GroupOffsets>,
    /// Offsets of transactions that are open.
    pending: PendingOffsets,
}

/// A group's committed offsets.
pub type GroupOffsets = BTreeMap<TopicName, BTreeMap<PartitionIndex, CommittedOffset>>;

impl Persisted {
    /// Takes one committed record, in log order.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::GroupMetadata { group, value: Some(metadata) } => {
                self.groups.insert(group.clone(), Some(metadata.clone()));
            }
            Record::GroupMetadata { group, value: None } => {
                self.groups.remove(group);
            }
            Record::OffsetCommit { group, topic, partition, value: Some(offset) } => {
                // Commits without membership make a group that no other record speaks of.
                self.groups.entry(group.clone()).or_insert(None);
                self.pending.overtake(group, &(topic.clone(), *partition));
                self.set_offset(group, topic, *partition, offset.clone());
            }
            Record::OffsetCommit { group, topic, partition, value: None } => {
                self.pending.forget(group, &(topic.clone(), *partition));
                self.forget_offset(group, topic, *partition);
            }
        }
    }

    /// Takes one committed record of a transaction that is open. Anything but an offset is as without a transaction.
    pub fn apply_pending(&mut self, producer: ProducerId, record: &Record) {
        match record {
            Record::OffsetCommit { group, topic, partition, value: Some(offset) } => {
                self.groups.entry(group.clone()).or_insert(None);
                self.pending.insert(producer, group, (topic.clone(), *partition), offset.clone());
            }
            other => self.apply(other),
        }
    }

    /// Takes the marker that ends a producer's transaction.
    pub fn end_transaction(&mut self, producer: ProducerId, committed: bool) {
        for (group, (topic, partition), offset) in self.pending.end(producer, committed) {
            self.set_offset(&group, &topic, partition, offset);
        }
    }

    fn set_offset(
        &mut self,
        group: &GroupId,
        topic: &TopicName,
        partition: PartitionIndex,
        offset: CommittedOffset,
    ) {
        let topics = self.offsets.entry(group.clone()).or_default();
        topics.entry(topic.clone()).or_default().insert(partition, offset);
    }

    fn forget_offset(&mut self, group: &GroupId, topic: &TopicName, partition: PartitionIndex) {
        let Some(topics) = self.offsets.get_mut(group) else { return };
        let Some(partitions) = topics.get_mut(topic) else { return };
        partitions.remove(&partition);
        if partitions.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.offsets.remove(group);
        }
    }

    /// Every group, sorted; `None` for one that only has offsets.
    pub fn groups(&self) -> &BTreeMap<GroupId, Option<GroupMetadata>> {
        &self.groups
    }

    /// A group's offsets, if it has any.
    pub fn offsets_of(&self, group: &GroupId) -> Option<&GroupOffsets> {
        self.offsets.get(group)
    }

    /// One committed offset.
    pub fn offset(
        &self,
        group: &GroupId,
        topic: &TopicName,
        partition: PartitionIndex,
    ) -> Option<&CommittedOffset> {
        self.offsets.get(group)?.get(topic)?.get(&partition)
    }

    /// Shows every committed offset, sorted; for metrics.
    pub fn each_offset(&self, mut each: impl FnMut(&GroupId, &TopicName, PartitionIndex, &CommittedOffset)) {
        for (group, topics) in &self.offsets {
            for (topic, partitions) in topics {
                for (partition, offset) in partitions {
                    each(group, topic, *partition, offset);
                }
            }
        }
    }

    /// How many offsets are committed, over all groups.
    pub fn offset_count(&self) -> usize {
        self.offsets.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum()
    }

    pub(crate) fn pending(&self) -> &PendingOffsets {
        &self.pending
    }

    pub(crate) fn all_offsets(&self) -> &BTreeMap<GroupId, GroupOffsets> {
        &self.offsets
    }
}
