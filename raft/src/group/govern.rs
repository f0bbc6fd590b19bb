//! What an administrator asks of a group: to change its leader, to change its members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, EmptyNode, Precondition};
use openraft_rt::watch::WatchReceiver;
use ouzel_model::{EntryIndex, LeaderEpoch, ReplicaId};

use super::{GroupStatus, RaftGroup, Role};
use crate::codec::Request;
use crate::entry::Data;
use crate::transport::Lane;
use crate::types::voter_sets_of;

/// A transfer of leadership that took longer is given up.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(1);
/// After a transfer that failed, the voters are asked to elect; so long between two of them.
const ELECT_INTERVAL: Duration = Duration::from_millis(100);
/// Whoever asked for the transfer waits for that election so long; it is asked for until it comes about.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(4);
/// A change of members that another change is in the way of tries again after this time.
const CHANGE_INTERVAL: Duration = Duration::from_millis(50);

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This replica does not lead.
    #[error("this replica does not lead")]
    NotLeader,
    /// Only a voter that is up can lead.
    #[error("{0} is no voter of the group")]
    NotAVoter(ReplicaId),
    /// The successor did not catch up, or did not answer; this replica still leads.
    #[error("{0} was not ready to lead in time")]
    NotReady(ReplicaId),
    /// The successor did not take over. This replica takes no writes any more; the voters have been asked to elect.
    #[error("{0} did not take over in time; the others elect")]
    NotTaken(ReplicaId),
}

/// Why the members were not changed, or not wholly. The change can be asked for again, here or of the next leader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReconfigureError {
    /// This replica does not lead, or does not any more.
    #[error("this replica does not lead")]
    NotLeader,
    /// The group has acted on a later decision, or is about to.
    #[error("decision {wanted} is overruled by decision {newest}")]
    Overruled {
        /// The decision it was asked to carry out.
        wanted: u32,
        /// The newest one it knows of.
        newest: u32,
    },
    /// It cannot be.
    #[error("{0}")]
    Refused(String),
}

impl RaftGroup {
    /// Hands leadership to a voter: brings it up to date, then takes no writes any more until it leads. Dropping the future once
    /// it has begun to do so takes nothing back: the transfer goes on to its end.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn transfer(&self, to: ReplicaId) -> Result<(), TransferError> {
        let status = self.status();
        if status.role != Role::Leader {
            return Err(TransferError::NotLeader);
        }
        if to == self.replica() {
            return Ok(());
        }
        if !status.voters.contains(&to) {
            return Err(TransferError::NotAVoter(to));
        }
        let clock = self.inner.state.runtime.clock.clone();
        // openraft takes no writes from the moment it is asked, and does not change its mind: ask only for what will be.
        let is_ready = |status: &GroupStatus| {
            status.role != Role::Leader || holds(status, to) >= status.last_entry.map(|last| last.index)
        };
        let answers = self.ping(to).await;
        let caught_up = clock.timeout(TRANSFER_TIMEOUT, self.wait_until(is_ready)).await;
        if answers.is_err() || caught_up.is_err() {
            return Err(TransferError::NotReady(to));
        }
        if self.role() != Role::Leader || self.inner.prove_leadership().await.is_err() {
            return Err(TransferError::NotLeader);
        }
        let epoch = self.status().epoch;
        let handing = ouzel_runtime::spawn(self.clone().hand_to(to, epoch));
        handing.await.unwrap_or(Err(TransferError::NotLeader))
    }

    /// Gives up leadership in favour of a voter that is ready. A task of its own: from here on this replica takes no writes, and
    /// whoever asked for the transfer may not wait for its end.
    async fn hand_to(self, to: ReplicaId, epoch: LeaderEpoch) -> Result<(), TransferError> {
        self.inner.raft.trigger().transfer_leader(to.to_u64()).await.map_err(|_| TransferError::NotLeader)?;
        let clock = self.inner.state.runtime.clock.clone();
        let taken = self.wait_until(|status| status.epoch > epoch && status.leader.is_some());
        if clock.timeout(TRANSFER_TIMEOUT, taken).await.is_ok() {
            return if self.leader() == Some(to) { Ok(()) } else { Err(TransferError::NotTaken(to)) };
        }
        if self.inner.has_elected.replace(Some(epoch)) != Some(epoch) {
            ouzel_runtime::spawn(self.clone().have_elected(epoch));
        }
        let elected = self.wait_until(|status| status.epoch > epoch && status.leader.is_some());
        let _ = clock.timeout(ELECTION_TIMEOUT, elected).await;
        Err(TransferError::NotTaken(to))
    }

    /// Asks the voters, one after the other, to elect, until one does: this replica cannot lead any more, and cannot stand
    /// itself.
    async fn have_elected(self, epoch: LeaderEpoch) {
        let clock = self.inner.state.runtime.clock.clone();
        let is_over = || self.role() != Role::Leader || self.status().epoch > epoch;
        while !is_over() {
            for voter in self.status().voters {
                if is_over() {
                    return;
                }
                if voter != self.replica() {
                    let asked = self.inner.network.call(voter, Lane::Control, &Request::Elect);
                    let _ = clock.timeout(ELECT_INTERVAL, asked).await;
                }
                clock.sleep(ELECT_INTERVAL).await;
            }
        }
    }

    /// Makes `voters` the members: adds those that are new as learners, waits until they have caught up, changes the voters
    /// by way of a joint membership, and lets go of all others. Whatever was begun before, here or by an earlier leader, is
    /// carried on. Resolves when the change is committed; dropping the future leaves it where it is.
    ///
    /// `decision` is the number of the decision that this carries out; they rise. The group notes it before its members
    /// change, and carries out no earlier one ever after, whoever leads: a leader that is behind could otherwise move the
    /// group to replicas that a later decision has let delete what they had.
    ///
    /// # Errors
    /// See [`ReconfigureError`].
    pub async fn reconfigure(&self, voters: &[ReplicaId], decision: u32) -> Result<(), ReconfigureError> {
        self.reconfigure_with(voters, &[], decision).await
    }

    /// As [`RaftGroup::reconfigure`], with `learners` that follow and do not vote. Nobody waits for them: they may be away.
    ///
    /// # Errors
    /// See [`ReconfigureError`].
    pub async fn reconfigure_with(
        &self,
        voters: &[ReplicaId],
        learners: &[ReplicaId],
        decision: u32,
    ) -> Result<(), ReconfigureError> {
        if voters.is_empty() {
            return Err(ReconfigureError::Refused("a group needs at least one voter".to_owned()));
        }
        self.note_decision(decision).await?;
        let wanted: BTreeSet<u64> = voters.iter().map(|voter| voter.to_u64()).collect();
        self.add_learners(learners, decision).await?;
        self.add_learners(voters, decision).await?;
        let are_caught_up = |status: &GroupStatus| {
            status.role != Role::Leader
                || self.inner.decision_proposed.get() > decision
                || voters.iter().all(|voter| {
                    status.voters.contains(voter)
                        || holds(status, *voter) >= status.committed.map(|id| id.index)
                })
        };
        self.wait_until(are_caught_up).await;
        let members = |status: &GroupStatus| -> BTreeSet<u64> {
            status.voters.iter().map(|voter| voter.to_u64()).collect()
        };
        while members(&self.status()) != wanted || self.is_joint() {
            self.change(ChangeMembers::ReplaceAllVoters(wanted.clone()), decision).await?;
        }
        let gone = self.status().learners.into_iter().filter(|learner| !learners.contains(learner));
        let gone: BTreeSet<u64> = gone.map(|learner| learner.to_u64()).collect();
        if !gone.is_empty() {
            self.change(ChangeMembers::RemoveNodes(gone), decision).await?;
        }
        // A voter that votes no more was let go of altogether.
        self.add_learners(learners, decision).await
    }

    /// Adds those that are no members yet.
    async fn add_learners(&self, learners: &[ReplicaId], decision: u32) -> Result<(), ReconfigureError> {
        for learner in learners {
            let status = self.status();
            if !status.voters.contains(learner) && !status.learners.contains(learner) {
                let learner = BTreeMap::from([(learner.to_u64(), EmptyNode::default())]);
                self.change(ChangeMembers::AddNodes(learner), decision).await?;
            }
        }
        Ok(())
    }

    /// Whether these are the voters, and all of them; in the middle of a change they are not. As cheap as [`RaftGroup::role`].
    pub fn has_voters(&self, voters: &[ReplicaId]) -> bool {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        match &metrics.membership_config.membership().get_joint_config()[..] {
            [of] => of.len() == voters.len() && voters.iter().all(|voter| of.contains(&voter.to_u64())),
            _ => false,
        }
    }

    /// The voters by the newest entry here that names them, committed or not: one set, two while they change, none where no
    /// entry does. `None` for a moment while it opens: they have not been taken from its log yet. As cheap as
    /// [`RaftGroup::role`].
    pub fn voter_sets(&self) -> Option<Vec<Vec<ReplicaId>>> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let is_taken_up = metrics.last_log_index.is_some() || self.inner.state.log.last_entry().is_none();
        is_taken_up.then(|| voter_sets_of(metrics.membership_config.membership()))
    }

    pub(super) fn is_joint(&self) -> bool {
        self.inner.metrics().membership_config.membership().get_joint_config().len() > 1
    }

    /// The newest decision that the group has noted, here as far as this replica's log goes.
    pub fn decision(&self) -> u32 {
        self.inner.state.decision_at(self.inner.state.log.last_entry())
    }

    /// Refuses a decision older than any this replica knows of. What it has handed to openraft counts as well: it may
    /// come to the log before what is handed over next.
    fn check_decision(&self, wanted: u32) -> Result<(), ReconfigureError> {
        let newest = self.decision().max(self.inner.decision_proposed.get());
        if wanted < newest { Err(ReconfigureError::Overruled { wanted, newest }) } else { Ok(()) }
    }

    /// Has the group note whose decision the changes of members behind this entry carry out.
    async fn note_decision(&self, decision: u32) -> Result<(), ReconfigureError> {
        let _one_at_a_time = self.inner.changing.lock().await;
        if self.role() != Role::Leader {
            return Err(ReconfigureError::NotLeader);
        }
        self.check_decision(decision)?;
        // Of a leader's own log: no reign that comes later lacks what it rests on.
        if self.decision() == decision {
            return Ok(());
        }
        self.inner.decision_proposed.set(decision);
        for attempt in 0..2 {
            let answers = self.inner.raft.client_write_many([Data::Decision(decision)]).await;
            let Ok(mut answers) = answers else { return Err(ReconfigureError::NotLeader) };
            if let Some(Ok(Ok(_))) = answers.next().await {
                return Ok(());
            }
            if attempt > 0 || self.inner.prove_leadership().await.is_err() {
                break;
            }
        }
        Err(ReconfigureError::NotLeader)
    }

    /// One change of members, after whatever is in its way.
    async fn change(
        &self,
        change: ChangeMembers<u64, EmptyNode>,
        decision: u32,
    ) -> Result<(), ReconfigureError> {
        let clock = self.inner.state.runtime.clock.clone();
        let mut has_proven = false;
        loop {
            let one_at_a_time = self.inner.changing.lock().await;
            self.check_decision(decision)?;
            if self.role() == Role::Stopped {
                return Err(ReconfigureError::NotLeader);
            }
            // A leader that was let go of leads on for a moment. It must not change the members any more: openraft takes it for
            // impossible. So a change holds only for the members that were looked at.
            let metrics = self.inner.metrics();
            let members = &metrics.membership_config;
            if !members.membership().nodes().any(|(node, _)| *node == self.replica().to_u64()) {
                return Err(ReconfigureError::NotLeader);
            }
            let seen = Precondition::LastMembershipLogId { last_membership_log_id: *members.log_id() };
            let outcome = self.inner.raft.change_membership_if(change.clone(), false, [seen]).await;
            drop(one_at_a_time);
            match outcome {
                Ok(_) => return Ok(()),
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                ))) => clock.sleep(CHANGE_INTERVAL).await,
                Err(RaftError::APIError(ClientWriteError::PreconditionFailed(_))) => {
                    clock.sleep(CHANGE_INTERVAL).await;
                }
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                    return Err(ReconfigureError::Refused(error.to_string()));
                }
                // An idle leader is refused once.
                Err(_) if !has_proven && self.role() == Role::Leader => {
                    has_proven = true;
                    self.inner.prove_leadership().await.map_err(|_| ReconfigureError::NotLeader)?;
                }
                Err(_) => return Err(ReconfigureError::NotLeader),
            }
        }
    }
}

/// The newest entry a member is known to hold.
fn holds(status: &GroupStatus, replica: ReplicaId) -> Option<EntryIndex> {
    status.held.iter().find(|(known, _)| *known == replica).and_then(|(_, held)| *held)
}
