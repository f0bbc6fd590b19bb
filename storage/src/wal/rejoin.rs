//! Whether a replica of a group may come back as the one it was.
//!
//! A replica that says "I have it" must have it ever after: Raft counts its word towards a quorum and never asks again. One
//! that answered before it flushed may have lost to a power cut what others rely on. Taken for the same replica, it could
//! elect a leader that lacks committed entries. So it comes back as another: a learner under a new incarnation, whose log
//! is what is left (a prefix of what it had is a sound beginning), and which votes again once it has caught up.

use ouzel_model::{EntryId, LeaderEpoch, Offset};

use super::state::{BootId, GroupState};

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejoin {
    /// It has all it ever answered for: it goes on as the same replica.
    Trusted,
    /// It may lack what it answered for: it must not vote, nor count, under this incarnation.
    SuspectTail,
}

/// Judges a replica whose log was opened without damage and ends at `log_end`, with `last` its newest entry.
///
/// Who has neither voted nor followed a leader has answered for nothing. A kill (same boot) loses nothing that was answered
/// for, in any mode. A power cut (another boot) loses nothing of a replica that flushed before it answered, nor of one that
/// was closed in order. Without a record there was no vote and no
/// answer, as the record is on the medium before either; entries without one are of a disk that was put together from parts.
pub fn rejoin_of(state: Option<&GroupState>, boot: BootId, log_end: Offset, last: Option<EntryId>) -> Rejoin {
    let Some(state) = state else {
        return if last.is_none() { Rejoin::Trusted } else { Rejoin::SuspectTail };
    };
    let is_whole = match state.closed_at {
        Some(mark) => mark == log_end,
        None => state.boot == boot || state.is_durable,
    };
    // The first entry is every founder's own; nobody waits for it.
    let has_begun = last.is_some_and(|last| last.term > LeaderEpoch(0));
    if !state.may_have_answered() && !has_begun && log_end >= state.flushed {
        return Rejoin::Trusted;
    }
    // The vote's own entries are flushed in every mode, as is the purge point.
    if is_whole && last >= state.purged && log_end >= state.flushed {
        Rejoin::Trusted
    } else {
        Rejoin::SuspectTail
    }
}

#[cfg(test)]
mod tests {
    use ouzel_model::{EntryIndex, NodeId, ReplicaId};

    use super::*;

    const BOOT: BootId = BootId([1; 16]);
    const OTHER: BootId = BootId([2; 16]);
    const END: Offset = Offset(70);

    fn entry(index: u64) -> EntryId {
        EntryId { term: LeaderEpoch(4), index: EntryIndex(index) }
    }

    fn open(is_durable: bool) -> GroupState {
        let state = GroupState::new(ReplicaId::first(NodeId(1)), BOOT);
        GroupState { purged: Some(entry(9)), flushed: Offset(50), ..state }.opened(is_durable, BOOT)
    }

    #[test]
    fn who_may_come_back_as_itself() {
        use Rejoin::{SuspectTail, Trusted};
        let last = Some(entry(12));
        let first = Some(EntryId { term: LeaderEpoch(0), index: EntryIndex(0) });
        let new = |term| {
            let state = GroupState::new(ReplicaId::first(NodeId(1)), BOOT).opened(false, BOOT);
            Some(GroupState { term: LeaderEpoch(term), ..state })
        };
        let table = [
            ("new: no record, no entry", None, BOOT, Offset::ZERO, None, Trusted),
            ("entries nobody wrote down", None, BOOT, END, last, SuspectTail),
            ("killed, durable", Some(open(true)), BOOT, END, last, Trusted),
            ("killed, not durable", Some(open(false)), BOOT, END, last, Trusted),
            ("power cut, durable", Some(open(true)), OTHER, END, last, Trusted),
            ("power cut, not durable", Some(open(false)), OTHER, END, last, SuspectTail),
            ("closed, not durable", Some(open(false).closed(END)), OTHER, END, last, Trusted),
            ("closed, durable", Some(open(true).closed(END)), BOOT, END, last, Trusted),
            ("closed elsewhere", Some(open(true).closed(Offset(71))), BOOT, END, last, SuspectTail),
            ("longer than when closed", Some(open(true).closed(Offset(69))), BOOT, END, last, SuspectTail),
            ("below the purge point", Some(open(true)), BOOT, END, Some(entry(8)), SuspectTail),
            ("nothing left of it", Some(open(true)), BOOT, Offset::ZERO, None, SuspectTail),
            ("below what was flushed", Some(open(true)), OTHER, Offset(49), last, SuspectTail),
            ("power cut, never voted", new(0), OTHER, Offset::ZERO, None, Trusted),
            ("power cut, founded, never voted", new(0), OTHER, Offset::ZERO, first, Trusted),
            ("power cut, voted", new(1), OTHER, Offset::ZERO, first, SuspectTail),
            ("power cut, another's vote", new(0), OTHER, END, last, SuspectTail),
        ];
        for (what, state, boot, log_end, last, expected) in table {
            assert_eq!(rejoin_of(state.as_ref(), boot, log_end, last), expected, "{what}");
        }
    }
}
