//! What openraft is told of our world: its types, and the way to and from our own.
//!
//! Nothing of openraft is named outside this crate.

use std::fmt;

use openraft::impls::{Entry, EntryPayload, InlineBatch, OneshotResponder, Vote, leader_id_std};
use openraft::vote::RaftTerm;
use openraft::{EmptyNode, Membership, RaftTypeConfig, StoredMembership};
use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, ReplicaId};

use crate::entry::Data;
use crate::runtime::OuzelRuntime;

/// openraft's type configuration.
///
/// The leader id is the standard one, a term alone once it is committed: a batch's header has room for the leader epoch
/// and nothing else. A node's id is [`ReplicaId::to_u64`], so a replica that lost its data is never taken for the one
/// that voted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

pub(crate) type LeaderId = leader_id_std::LeaderId<Term, u64>;
pub(crate) type CommittedLeaderId = openraft::vote::leader_id_std::CommittedLeaderId<Term>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type RaftEntry = Entry<CommittedLeaderId, Payload>;
pub(crate) type Payload = EntryPayload<Data, u64, EmptyNode>;
pub(crate) type RaftVote = Vote<LeaderId>;
pub(crate) type Members = Membership<u64, EmptyNode>;
pub(crate) type StoredMembers = StoredMembership<CommittedLeaderId, u64, EmptyNode>;

impl RaftTypeConfig for Types {
    type D = Data;
    type R = ();
    type NodeId = u64;
    type Node = EmptyNode;
    type Term = Term;
    type LeaderId = LeaderId;
    type Vote = RaftVote;
    type Payload = Payload;
    type Entry = RaftEntry;
    type AsyncRuntime = OuzelRuntime;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: 'static;
    type ErrorSource = openraft::AnyError;
}

/// A Raft term: the leader epoch, and Kafka's `partitionLeaderEpoch`. Never above `i32::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Term(pub(crate) i32);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Term {
    /// For openraft's own suite; a term on its way in is checked where it is decoded.
    fn from(number: u64) -> Term {
        Term(i32::try_from(number).unwrap_or(i32::MAX))
    }
}

impl RaftTerm for Term {
    fn next(&self) -> Term {
        // Two thousand million elections of one partition: a message cannot push it there, see the codec.
        Term(self.0.checked_add(1).expect("a partition runs out of terms"))
    }

    fn as_u64(&self) -> Option<u64> {
        u64::try_from(self.0).ok()
    }
}

pub(crate) fn log_id(id: EntryId) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(Term(id.term.value())), index: id.index.value() }
}

pub(crate) fn entry_id(id: &LogId) -> EntryId {
    EntryId { term: LeaderEpoch(id.leader_id.term.0), index: EntryIndex(id.index) }
}

/// The voters of a membership, in the order of their numbers; those of both sets while it is joint.
pub(crate) fn voters_of(members: &Members) -> Vec<ReplicaId> {
    members.voter_ids().map(ReplicaId::from_u64).collect()
}

/// The voters of a membership as one set, two while it is joint, none where it names nobody.
pub(crate) fn voter_sets_of(members: &Members) -> Vec<Vec<ReplicaId>> {
    let sets = members.get_joint_config().iter().filter(|set| !set.is_empty());
    sets.map(|set| set.iter().copied().map(ReplicaId::from_u64).collect()).collect()
}

/// How many voters hold an entry at the least once it is committed: a majority, of the larger set while it is joint, where that
/// many need not be enough.
pub(crate) fn majority_of(members: &Members) -> usize {
    members.get_joint_config().iter().map(|set| set.len() / 2 + 1).max().unwrap_or(1)
}

/// The learners of a membership.
pub(crate) fn learners_of(members: &Members) -> Vec<ReplicaId> {
    members.learner_ids().map(ReplicaId::from_u64).collect()
}
