//! Members that are far behind, as their leader sees it. What they are sent goes its own way, at the node's rate for recovery,
//! beside the entries of those that keep up. Pure.
//!
//! A voter is only held back while the group does without it: where too few are in sync to answer acks=all, that waits for
//! whoever catches up. (Kafka throttles those that are not in sync, too.)

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use ouzel_model::{EntryIndex, ReplicaId};

/// Less than this many entries behind is a moment's work, and no reason to change the way.
const BEHIND_MIN: u64 = 64;

/// Who of a group's members catches up; clones share it. Nobody, where this replica does not lead.
#[derive(Clone, Debug, Default)]
pub(crate) struct CatchingUp {
    members: Rc<RefCell<BTreeSet<ReplicaId>>>,
}

impl CatchingUp {
    pub(crate) fn contains(&self, member: ReplicaId) -> bool {
        self.members.borrow().contains(&member)
    }

    /// Takes note of what the members hold, while the leader's own log ends with `last`; `is_enough` says whether acks=all can
    /// be answered without those that are not in sync.
    pub(crate) fn observe(
        &self,
        last: Option<EntryIndex>,
        held: &[(ReplicaId, Option<EntryIndex>)],
        in_sync: &[ReplicaId],
        is_enough: bool,
    ) {
        let end = |index: Option<EntryIndex>| index.map_or(0, |index| index.0 + 1);
        let is_far_behind = |(member, held): &(ReplicaId, Option<EntryIndex>)| {
            !in_sync.contains(member) && end(last).saturating_sub(end(*held)) >= BEHIND_MIN
        };
        let behind = held.iter().filter(|entry| is_enough && is_far_behind(entry)).map(|(member, _)| *member);
        self.members.replace(behind.collect());
    }

    /// This replica does not lead.
    pub(crate) fn clear(&self) {
        self.members.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ouzel_model::NodeId;

    fn on(node: i32) -> ReplicaId {
        ReplicaId::first(NodeId(node))
    }

    #[test]
    fn who_is_far_behind_and_not_needed_catches_up() {
        let at = |index| Some(EntryIndex(index));
        let held = [(on(1), at(999)), (on(2), at(990)), (on(3), at(5)), (on(4), None), (on(5), at(940))];
        let all = [on(1), on(2), on(3), on(4), on(5)];
        let of = |in_sync: &[ReplicaId], is_enough| {
            let catching_up = CatchingUp::default();
            catching_up.observe(at(999), &held, in_sync, is_enough);
            all.map(|member| catching_up.contains(member))
        };
        // The fifth is not in sync, and close; the fourth is a learner that has nothing yet.
        assert_eq!(of(&[on(1), on(2)], true), [false, false, true, true, false]);
        assert_eq!(
            of(&[on(1), on(2), on(3)], true),
            [false, false, false, true, false],
            "who is in sync keeps up"
        );
        assert_eq!(of(&[on(1)], false), [false; 5], "they are waited for");
    }
}
