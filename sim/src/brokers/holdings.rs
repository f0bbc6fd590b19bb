//! What each core of each node holds, as it last said: in the end every replica is where it is placed and nowhere else, and
//! the replicas of a partition hold the same, of which its leader knows that it is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ouzel_model::{EntryId, EntryIndex, NodeId, TopicIdPartition};
use ouzel_runtime::CoreId;

use super::shared::CONTROLLER;
use crate::check::raft::Sight;

/// A core that serves says so often what it holds.
const SAID_WITHIN: Duration = Duration::from_secs(1);

/// Where partitions are to be.
pub(super) type Placed = BTreeMap<TopicIdPartition, BTreeSet<NodeId>>;

/// All nodes' cores.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    cores: BTreeMap<(NodeId, CoreId), (Duration, Held)>,
}

/// The replicas on one core.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    /// Those that are alone.
    pub(super) alone: BTreeSet<TopicIdPartition>,
    /// Those of groups.
    pub(super) members: BTreeMap<TopicIdPartition, Stand>,
}

/// How far a member of a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    last: Option<EntryId>,
    known: Option<EntryIndex>,
    leads: bool,
}

impl Stand {
    pub(super) fn of(sight: &Sight) -> Stand {
        let last = sight.entries.last().map(|entry| entry.id).or(sight.head);
        Stand { last, known: sight.known, leads: sight.leads }
    }
}

impl Holdings {
    /// A core says what it holds.
    pub(super) fn note(&mut self, node: NodeId, core: CoreId, now: Duration, held: Held) {
        self.cores.insert((node, core), (now, held));
    }

    /// What is not as it is to be, in words.
    pub(super) fn amiss(&self, placed: &Placed, now: Duration) -> Option<String> {
        let mut alone: BTreeMap<TopicIdPartition, BTreeSet<NodeId>> = BTreeMap::new();
        let mut members: BTreeMap<TopicIdPartition, BTreeMap<NodeId, &Stand>> = BTreeMap::new();
        for ((node, core), (said, held)) in &self.cores {
            if now > *said + SAID_WITHIN {
                return Some(format!("core {core:?} of node {node} says nothing since {said:?}"));
            }
            for at in &held.alone {
                alone.entry(*at).or_default().insert(*node);
            }
            for (at, stand) in &held.members {
                members.entry(*at).or_default().insert(*node, stand);
            }
        }
        let held: BTreeSet<_> = alone.keys().chain(members.keys()).chain(placed.keys()).copied().collect();
        for at in held.into_iter().filter(|at| at.topic_id != CONTROLLER) {
            let mut on = alone.get(&at).cloned().unwrap_or_default();
            on.extend(members.get(&at).into_iter().flat_map(BTreeMap::keys));
            let to_be = placed.get(&at).cloned().unwrap_or_default();
            if on != to_be {
                return Some(format!("{at:?} is held by {on:?}, and is to be on {to_be:?}"));
            }
        }
        members.into_iter().find_map(|(at, stands)| {
            let first = stands.values().next()?;
            let is_whole = stands.values().all(|stand| stand.last == first.last);
            // Whoever follows hears of the last commit with the next entry.
            let knows_all = |stand: &Stand| stand.known == stand.last.map(|last| last.index);
            let mut leaders = stands.values().filter(|stand| stand.leads);
            let is_led = leaders.next().is_some_and(|leader| knows_all(leader)) && leaders.next().is_none();
            (!is_whole || !is_led).then(|| format!("replicas of {at:?} do not come together: {stands:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use ouzel_model::{LeaderEpoch, PartitionIndex, TopicId};

    use super::*;

    const NOW: Duration = Duration::from_secs(60);

    fn at(topic: u8) -> TopicIdPartition {
        TopicIdPartition { topic_id: TopicId([topic; 16]), partition: PartitionIndex(0) }
    }

    fn stand(last: u64, known: u64, leads: bool) -> Stand {
        let id = |index| EntryId { term: LeaderEpoch(2), index: EntryIndex(index) };
        Stand { last: Some(id(last)), known: Some(EntryIndex(known)), leads }
    }

    /// Topic 7 on nodes 1 and 2, topic 8 alone on node 2.
    fn placed() -> Placed {
        let nodes = |nodes: &[i32]| nodes.iter().map(|node| NodeId(*node)).collect();
        [(at(7), nodes(&[1, 2])), (at(8), nodes(&[2]))].into()
    }

    fn amiss(spoil: impl FnOnce(&mut Held)) -> Option<String> {
        let mut holdings = Holdings::default();
        let leader = Held { members: [(at(7), stand(9, 9, true))].into(), ..Held::default() };
        let mut other = Held { alone: [at(8)].into(), members: [(at(7), stand(9, 3, false))].into() };
        spoil(&mut other);
        holdings.note(NodeId(1), CoreId(0), NOW, leader);
        holdings.note(NodeId(2), CoreId(0), NOW, other);
        holdings.amiss(&placed(), NOW + Duration::from_millis(200))
    }

    #[test]
    fn what_is_held_where_it_is_placed_is_right() {
        assert_eq!(amiss(|_| {}), None);
        // Whoever follows the controller's log is placed nowhere.
        let controller = TopicIdPartition { topic_id: CONTROLLER, partition: PartitionIndex(0) };
        assert_eq!(amiss(|held| _ = held.members.insert(controller, stand(3, 3, true))), None);
    }

    /// A replica with fewer entries than the others was compared with what it had, and passed.
    #[test]
    fn replicas_of_different_lengths_are_not_together() {
        assert!(amiss(|held| _ = held.members.insert(at(7), stand(8, 8, false))).is_some());
        assert!(amiss(|held| _ = held.members.insert(at(7), stand(9, 9, true))).is_some(), "two lead");
        let on_topic_8 = |stand| {
            move |held: &mut Held| {
                held.alone.remove(&at(8));
                held.members.insert(at(8), stand);
            }
        };
        assert!(amiss(on_topic_8(stand(3, 3, true))).is_none());
        assert!(amiss(on_topic_8(stand(3, 3, false))).is_some(), "nobody leads");
        assert!(amiss(on_topic_8(stand(3, 2, true))).is_some(), "its last entry is not committed");
    }

    #[test]
    fn a_replica_that_is_missing_and_one_that_is_left_over_are_named() {
        assert!(amiss(|held| _ = held.members.remove(&at(7))).is_some());
        assert!(amiss(|held| _ = held.alone.remove(&at(8))).is_some());
        assert!(amiss(|held| _ = held.alone.insert(at(9))).is_some());
        assert!(amiss(|held| _ = held.members.insert(at(9), stand(1, 1, true))).is_some());
    }

    /// A core that did not answer was taken for one that holds nothing.
    #[test]
    fn a_core_that_says_nothing_is_not_right() {
        let mut holdings = Holdings::default();
        holdings.note(NodeId(1), CoreId(0), NOW, Held::default());
        assert_eq!(holdings.amiss(&Placed::new(), NOW), None);
        assert!(holdings.amiss(&Placed::new(), NOW + 2 * SAID_WITHIN).is_some());
    }
}
