//! What the committed records of the partition say; the same after a reload as it was live.

use std::collections::BTreeMap;

use ouzel_model::{GroupId, PartitionIndex, TopicName};

use crate::record::{CommittedOffset, GroupMetadata, Record};

/// The sum of the partition's records. [`Persisted::apply`] is the only thing that changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persisted {
    /// Every group that exists. `None`: a simple group, known by its offsets alone.
    groups: BTreeMap<GroupId, Option<GroupMetadata>>,
    /// No empty maps: a group or topic without offsets is not in here.
    offsets: BTreeMap<GroupId, GroupOffsets>,
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
                let topics = self.offsets.entry(group.clone()).or_default();
                topics.entry(topic.clone()).or_default().insert(*partition, offset.clone());
            }
            Record::OffsetCommit { group, topic, partition, value: None } => {
                self.forget_offset(group, topic, *partition);
            }
        }
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

    /// How many offsets are committed, over all groups.
    pub fn offset_count(&self) -> usize {
        self.offsets.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum()
    }

    pub(crate) fn all_offsets(&self) -> &BTreeMap<GroupId, GroupOffsets> {
        &self.offsets
    }
}
