//! Follows openraft's word about itself: the status, the in-sync set, and what as many voters hold as acks=all asks.

use std::rc::{Rc, Weak};
use std::time::Duration;

use openraft::ServerState;
use openraft_rt::watch::WatchReceiver;
use ouzel_model::{EntryIndex, LeaderEpoch, ReplicaId};

use super::{GroupStatus, Inner, Metrics, Role};
use crate::in_sync::{held_by, is_enough};
use crate::replica_state::ReplicaState;
use crate::types::{learners_of, majority_of, voters_of};

/// While a group commits, what it has committed is noted this often. A restart applies from there.
const NOTE_INTERVAL: Duration = Duration::from_secs(5);

impl Inner {
    /// The status as of now. Cheap enough to ask for whenever it is wanted.
    pub(super) fn observe(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        let role = self.role_of(&metrics);
        let voters = voters_of(members);
        let held = held_of(&metrics);
        let in_sync = if role == Role::Leader { self.in_sync_now() } else { Vec::new() };
        let failure = metrics.running_state.as_ref().err().map(ToString::to_string);
        GroupStatus {
            role,
            epoch: LeaderEpoch(metrics.current_term.0),
            leader: self.leader_of(&metrics),
            in_sync,
            learners: learners_of(members),
            // openraft's own forgets it between two reigns.
            committed: self.state.committed(),
            last_entry: self.state.log.last_entry(),
            high_watermark: self.state.high_watermark(),
            held,
            reversions: self.status.borrow().reversions,
            failure: failure.filter(|_| !self.is_shut_down.get()),
            voters,
        }
    }

    /// Who leads the newest reign, as far as is known, unless it has shown that it does not.
    pub(super) fn leader_of(&self, metrics: &Metrics) -> Option<ReplicaId> {
        let leader = metrics.current_leader.map(ReplicaId::from_u64)?;
        (self.resigned.get() != Some((LeaderEpoch(metrics.current_term.0), leader))).then_some(leader)
    }

    pub(super) fn role(&self) -> Role {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        self.role_of(&metrics)
    }

    /// Whether it was elected and nobody since, as far as it knows, whether or not it serves yet.
    pub(super) fn is_in_office(&self) -> bool {
        !self.is_shut_down.get() && self.raft.metrics().borrow_watched().state == ServerState::Leader
    }

    fn role_of(&self, metrics: &Metrics) -> Role {
        if self.is_shut_down.get() || metrics.running_state.is_err() {
            return Role::Stopped;
        }
        match metrics.state {
            // Until the first entry of its reign is applied it does not know what of the log is committed.
            ServerState::Leader if self.is_serving(metrics) => Role::Leader,
            ServerState::Leader | ServerState::Candidate => Role::Candidate,
            ServerState::Follower => Role::Follower,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        }
    }

    /// Whether openraft says that it leads; it may not serve yet.
    pub(super) fn is_elected(&self) -> bool {
        let metrics = self.raft.metrics();
        metrics.borrow_watched().state == ServerState::Leader
    }

    /// Whether it leads and has applied an entry of its own reign.
    fn is_serving(&self, metrics: &Metrics) -> bool {
        let term = LeaderEpoch(metrics.current_term.0);
        metrics.state == ServerState::Leader
            && self.state.term() == term
            && self.state.applied().is_some_and(|applied| applied.term == term)
    }

    pub(super) fn in_sync_now(&self) -> Vec<ReplicaId> {
        let now = self.state.runtime.clock.now();
        let lag_time_max = self.state.settings.borrow().lag_time_max;
        self.in_sync.borrow().in_sync(now, lag_time_max, self.state.replica).collect()
    }

    pub(super) fn in_sync_count_now(&self) -> usize {
        let now = self.state.runtime.clock.now();
        let lag_time_max = self.state.settings.borrow().lag_time_max;
        self.in_sync.borrow().in_sync(now, lag_time_max, self.state.replica).count()
    }

    /// Takes note of where everybody stands, and tells who wants to know what changed.
    fn step(self: &Rc<Self>) {
        let metrics = self.metrics();
        let now = self.state.runtime.clock.now();
        let members = metrics.membership_config.membership();
        let voters = voters_of(members);
        let of_all = held_of(&metrics);
        let was = self.status.borrow().clone();
        if metrics.state == ServerState::Leader {
            let mut in_sync = self.in_sync.borrow_mut();
            if was.epoch != LeaderEpoch(metrics.current_term.0) {
                in_sync.begin();
            }
            in_sync.observe(now, metrics.last_log_index.map(EntryIndex), &of_all, &voters);
            drop(in_sync);
            let (last, in_sync) = (metrics.last_log_index.map(EntryIndex), self.in_sync_now());
            let wanted = self.state.settings.borrow().min_insync_replicas;
            let is_enough = is_enough(&in_sync, members, wanted);
            self.network.catching_up.observe(last, &of_all, &in_sync, is_enough);
            let held: Vec<_> = of_all.into_iter().filter(|(replica, _)| voters.contains(replica)).collect();
            let majority = majority_of(members);
            // A wish for more voters than there are cannot be granted.
            self.state.set_held(held_by(wanted, &held), wanted > majority);
        } else {
            self.network.catching_up.clear();
        }
        let mut is = self.observe();
        is.reversions += reversions(&was, &is);
        if is.reversions > was.reversions {
            tracing::error!(
                partition = %self.state.log.topic_partition(), held = ?is.held,
                "a follower came back without entries that it had acknowledged: a disk did not keep its word"
            );
        }
        if let (Some(failure), None) = (&is.failure, &was.failure) {
            tracing::error!(
                partition = %self.state.log.topic_partition(), error = %failure,
                "a replica is out of service; its group goes on without it"
            );
            self.state.give_up_acks();
        }
        let may_retain = is.role != Role::Stopped && !self.is_ending.get();
        if may_retain && self.is_retention_due() && !self.is_retaining.replace(true) {
            ouzel_runtime::spawn(self.clone().carry_out_retention());
        }
        let is_change = told(&was) != told(&is);
        self.status.replace(is);
        if is_change {
            self.tell_change();
        } else {
            self.changed.notify_waiters();
        }
    }
}

/// What [`super::RaftGroup::on_change`] is called for.
#[expect(clippy::type_complexity, reason = "compared here and nowhere else")]
fn told(
    status: &GroupStatus,
) -> (Role, LeaderEpoch, Option<ReplicaId>, &[ReplicaId], &[ReplicaId], &[ReplicaId], bool) {
    let GroupStatus { role, epoch, leader, in_sync, voters, learners, failure, .. } = status;
    (*role, *epoch, *leader, in_sync, voters, learners, failure.is_some())
}

/// What each member is known to hold.
fn held_of(metrics: &Metrics) -> Vec<(ReplicaId, Option<EntryIndex>)> {
    let replication = metrics.replication.iter().flatten();
    replication
        .map(|(replica, matched)| {
            (ReplicaId::from_u64(*replica), matched.as_ref().map(|id| EntryIndex(id.index)))
        })
        .collect()
}

/// Members that hold less than they did in the same reign.
fn reversions(was: &GroupStatus, is: &GroupStatus) -> u64 {
    if was.epoch != is.epoch || was.role != Role::Leader {
        return 0;
    }
    let fell = is
        .held
        .iter()
        .filter(|(replica, held)| was.held.iter().any(|(known, before)| known == replica && before > held));
    fell.count() as u64
}

/// Puts on the medium how far the group has committed; a failure shows at the next vote.
async fn note_committed(state: Rc<ReplicaState>) {
    if let Err(error) = state.keep_committed().await {
        tracing::warn!(partition = %state.log.topic_partition(), %error, "a committed entry was not noted");
    }
}

/// Runs until the group is gone or stopped.
pub(super) async fn follow(group: Weak<Inner>) {
    let Some(inner) = group.upgrade() else { return };
    let (mut metrics, clock) = (inner.raft.metrics(), inner.state.runtime.clock.clone());
    drop(inner);
    let mut note_at = None;
    loop {
        let Some(inner) = group.upgrade() else { return };
        inner.step();
        let has_stopped = inner.status.borrow().role == Role::Stopped;
        if has_stopped {
            return;
        }
        let lag_time_max = inner.state.settings.borrow().lag_time_max;
        let me = inner.state.replica;
        let wake_at = inner.in_sync.borrow().next_change(clock.now(), lag_time_max, me);
        let state: Rc<_> = inner.state.clone();
        let stepped = state.stepped.notified();
        let nudge = inner.nudged.clone();
        if state.has_unkept_commits() {
            note_at.get_or_insert_with(|| clock.now() + NOTE_INTERVAL);
        }
        if note_at.is_some_and(|at| at <= clock.now()) {
            note_at = None;
            ouzel_runtime::spawn(note_committed(state.clone()));
        }
        let wake_at = wake_at.into_iter().chain(note_at).min();
        drop(inner);
        let until = async {
            match wake_at {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = metrics.changed() => {
                if changed.is_err() {
                    // openraft is gone; its last word stands.
                    if let Some(inner) = group.upgrade() {
                        inner.step();
                    }
                    return;
                }
            }
            () = nudge.notified() => {}
            () = stepped => {}
            () = until => {}
        }
    }
}
