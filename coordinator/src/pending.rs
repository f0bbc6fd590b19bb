//! Offsets committed inside transactions that have not ended: written, but nobody's progress yet.

use std::collections::{BTreeMap, BTreeSet};

use ouzel_model::{GroupId, PartitionIndex, ProducerId, TopicName};

use crate::record::CommittedOffset;

/// Where a group's progress is kept.
pub(crate) type Place = (TopicName, PartitionIndex);

/// The offsets of open transactions, by place and by producer. No empty maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PendingOffsets {
    by_group: BTreeMap<GroupId, BTreeMap<Place, BTreeMap<ProducerId, Pending>>>,
    by_producer: BTreeMap<ProducerId, BTreeSet<(GroupId, Place)>>,
    /// Order of arrival; only compared, so it may differ from the order in a log that was compacted since.
    arrivals: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    offset: CommittedOffset,
    arrival: u64,
    /// A later commit to the place has taken effect: the end of the transaction must not undo it.
    overtaken: bool,
}

impl PendingOffsets {
    pub(crate) fn insert(
        &mut self,
        producer: ProducerId,
        group: &GroupId,
        place: Place,
        offset: CommittedOffset,
    ) {
        self.arrivals += 1;
        let pending = Pending { offset, arrival: self.arrivals, overtaken: false };
        self.by_producer.entry(producer).or_default().insert((group.clone(), place.clone()));
        let places = self.by_group.entry(group.clone()).or_default();
        places.entry(place).or_default().insert(producer, pending);
    }

    /// A commit without a transaction took effect.
    pub(crate) fn overtake(&mut self, group: &GroupId, place: &Place) {
        self.overtake_older(group, place, u64::MAX);
    }

    fn overtake_older(&mut self, group: &GroupId, place: &Place, arrival: u64) {
        let Some(producers) = self.by_group.get_mut(group).and_then(|places| places.get_mut(place)) else {
            return;
        };
        for pending in producers.values_mut().filter(|pending| pending.arrival < arrival) {
            pending.overtaken = true;
        }
    }

    /// The offset was forgotten: open transactions have nothing to add to it.
    pub(crate) fn forget(&mut self, group: &GroupId, place: &Place) {
        let producers = self.by_group.get(group).and_then(|places| places.get(place));
        let producers: Vec<ProducerId> = producers.into_iter().flat_map(BTreeMap::keys).copied().collect();
        for producer in producers {
            self.take(producer, group, place);
            if let Some(places) = self.by_producer.get_mut(&producer) {
                places.remove(&(group.clone(), place.clone()));
                if places.is_empty() {
                    self.by_producer.remove(&producer);
                }
            }
        }
    }

    /// A transaction ended. Returns what its commit makes the groups' progress.
    pub(crate) fn end(
        &mut self,
        producer: ProducerId,
        committed: bool,
    ) -> Vec<(GroupId, Place, CommittedOffset)> {
        let mut effective = Vec::new();
        for (group, place) in self.by_producer.remove(&producer).unwrap_or_default() {
            let Some(pending) = self.take(producer, &group, &place) else { continue };
            if committed && !pending.overtaken {
                self.overtake_older(&group, &place, pending.arrival);
                effective.push((group, place, pending.offset));
            }
        }
        effective
    }

    fn take(&mut self, producer: ProducerId, group: &GroupId, place: &Place) -> Option<Pending> {
        let places = self.by_group.get_mut(group)?;
        let producers = places.get_mut(place)?;
        let taken = producers.remove(&producer);
        if producers.is_empty() {
            places.remove(place);
        }
        if places.is_empty() {
            self.by_group.remove(group);
        }
        taken
    }

    pub(crate) fn has_group(&self, group: &GroupId) -> bool {
        self.by_group.contains_key(group)
    }

    pub(crate) fn contains(&self, group: &GroupId, place: &Place) -> bool {
        self.by_group.get(group).is_some_and(|places| places.contains_key(place))
    }

    pub(crate) fn places_of(&self, group: &GroupId) -> impl Iterator<Item = &Place> {
        self.by_group.get(group).into_iter().flat_map(BTreeMap::keys)
    }

    /// Every offset an open transaction may still commit.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&GroupId, &Place, &CommittedOffset)> {
        self.by_group.iter().flat_map(|(group, places)| {
            places.iter().flat_map(move |(place, producers)| {
                producers.values().map(move |pending| (group, place, &pending.offset))
            })
        })
    }
}
