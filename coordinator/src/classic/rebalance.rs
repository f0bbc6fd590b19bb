//! From one generation to the next: who is waited for, for how long, and what ends the wait.

use crate::effects::TimerKey;
use crate::error::GroupError;
use crate::group::{Group, InitialWait, refuse_sync};
use crate::ids::MemberId;
use crate::member::no_bytes;
use crate::planted::{self, Bug};
use crate::response::GroupState;
use crate::turn::{OnCommit, Turn};

impl Group {
    /// Something changed that a new generation must settle: starts a rebalance, or moves the one under way along.
    pub(crate) fn rebalance(&mut self, turn: &mut Turn) {
        match self.state {
            GroupState::Empty | GroupState::Stable | GroupState::CompletingRebalance => {
                self.prepare_rebalance(turn);
            }
            GroupState::PreparingRebalance | GroupState::Dead => self.complete_join_if_all_in(turn),
        }
    }

    pub(crate) fn prepare_rebalance(&mut self, turn: &mut Turn) {
        if self.state == GroupState::CompletingRebalance {
            self.drop_assignments(turn, GroupError::RebalanceInProgress);
        }
        self.pending_syncs.clear();
        turn.cancel(TimerKey::Sync(self.id.clone()));
        if self.state == GroupState::Empty {
            // The group is new: its members are likely to be started together, so give them time.
            let delay_ms = turn.config.initial_rebalance_delay_ms;
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms).max(0);
            self.initial_wait = Some(InitialWait { delay_ms, remaining_ms, new_member_added: false });
            turn.arm(TimerKey::Join(self.id.clone()), delay_ms);
            self.enter(GroupState::PreparingRebalance, turn.now);
        } else {
            self.enter(GroupState::PreparingRebalance, turn.now);
            if self.all_joined() {
                self.complete_join(turn);
            } else {
                turn.arm(TimerKey::Join(self.id.clone()), self.rebalance_timeout_ms());
            }
        }
    }

    /// Ends the wait early once nobody is missing; the initial rebalance always runs its time.
    pub(crate) fn complete_join_if_all_in(&mut self, turn: &mut Turn) {
        let preparing = self.state == GroupState::PreparingRebalance;
        if preparing && !self.is_initial_rebalance() && self.all_joined() {
            self.complete_join(turn);
        }
    }

    /// The join timer fired: the initial wait is prolonged if it was worth it, any other wait is over.
    pub(crate) fn join_wait_over(&mut self, turn: &mut Turn) {
        if self.state != GroupState::PreparingRebalance {
            return;
        }
        match &mut self.initial_wait {
            Some(wait) if wait.new_member_added && wait.remaining_ms != 0 => {
                let elapsed_ms = wait.delay_ms;
                wait.new_member_added = false;
                wait.delay_ms = turn.config.initial_rebalance_delay_ms.min(wait.remaining_ms);
                wait.remaining_ms = (wait.remaining_ms - elapsed_ms).max(0);
                turn.arm(TimerKey::Join(self.id.clone()), wait.delay_ms);
            }
            _ => self.complete_join(turn),
        }
    }

    /// Fixes the next generation from those who joined. Dynamic members that did not are out; static ones keep their
    /// place, as they are expected back.
    pub(crate) fn complete_join(&mut self, turn: &mut Turn) {
        turn.cancel(TimerKey::Join(self.id.clone()));
        self.initial_wait = None;
        let absent: Vec<MemberId> = self
            .members
            .values()
            .filter(|member| member.awaiting_join.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in &absent {
            self.remove(turn, id);
        }
        if !self.elect_joined_leader() && !self.members.is_empty() {
            // Only static members are left and none has joined. Wait once more: either one comes back, or their
            // sessions end one by one and empty the group.
            turn.arm(TimerKey::Join(self.id.clone()), self.rebalance_timeout_ms());
            return;
        }
        self.start_generation(turn);
    }

    /// Makes sure that the leader is one who joined. False if nobody did.
    fn elect_joined_leader(&mut self) -> bool {
        let joined =
            |id: &MemberId| self.members.get(id).is_some_and(|member| member.awaiting_join.is_some());
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let next = self.members.keys().find(|id| joined(id)).cloned();
        let found = next.is_some();
        if found {
            self.leader = next;
        }
        found
    }

    fn start_generation(&mut self, turn: &mut Turn) {
        if !planted::is(Bug::GenerationNotBumped) {
            self.generation += 1;
        }
        self.pending_syncs.clear();
        if self.members.is_empty() {
            self.protocol = None;
            self.subscribed = self.compute_subscribed();
            self.enter(GroupState::Empty, turn.now);
            // If this is not written, a reload brings the former members back, whose sessions then run out: harmless.
            turn.write(self.record(&Default::default()), OnCommit::Nothing);
            return;
        }
        self.protocol = self.select_protocol();
        assert!(self.protocol.is_some(), "members of group {} share a protocol", self.id);
        self.subscribed = self.compute_subscribed();
        self.enter(GroupState::CompletingRebalance, turn.now);
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            self.answer_join(turn, &id, joined);
            self.touch(turn, &id);
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
            }
            self.pending_syncs.insert(id);
        }
        turn.arm(TimerKey::Sync(self.id.clone()), self.rebalance_timeout_ms());
    }

    /// Forgets the assignments of a generation that will not become stable, and answers its parked syncs.
    pub(crate) fn drop_assignments(&mut self, turn: &mut Turn, error: GroupError) {
        let mut answered = Vec::new();
        for member in self.members.values_mut() {
            member.assignment = no_bytes();
            if member.awaiting_sync.is_some() {
                refuse_sync(turn, member, error);
                answered.push(member.id.clone());
            }
        }
        // Its session may have run out while it was excused: start it again.
        for id in answered {
            self.touch(turn, &id);
        }
    }
}
