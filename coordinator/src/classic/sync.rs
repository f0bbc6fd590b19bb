//! SyncGroup: members fetch their assignment; the leader brings it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::effects::TimerKey;
use crate::error::GroupError;
use crate::group::{Group, refuse_sync};
use crate::ids::{Blob, MemberId, Ticket};
use crate::member::no_bytes;
use crate::planted::{self, Bug};
use crate::request::SyncRequest;
use crate::response::{GroupState, Response};
use crate::turn::{OnCommit, Turn};

impl Group {
    pub(crate) fn sync(&mut self, turn: &mut Turn, ticket: Ticket, request: &SyncRequest) {
        if let Err(error) = self.check_sync(request) {
            return turn.reply(ticket, Response::Sync(Err(error)));
        }
        let id = &request.member_id;
        match self.state {
            GroupState::CompletingRebalance => {
                let member = self.members.get_mut(id).expect("the member was checked");
                // A sync parked before this one comes from a connection its client has given up.
                refuse_sync(turn, member, GroupError::RebalanceInProgress);
                member.awaiting_sync = Some(ticket);
                self.synced_by(turn, id);
                if self.is_leader(id) && self.persisting != Some(self.generation) {
                    self.persist_assignment(turn, request);
                }
            }
            GroupState::Stable => {
                self.synced_by(turn, id);
                let synced = self.synced(self.members[id].assignment.clone());
                turn.reply(ticket, Response::Sync(Ok(synced)));
            }
            GroupState::PreparingRebalance | GroupState::Empty | GroupState::Dead => {
                turn.reply(ticket, Response::Sync(Err(GroupError::RebalanceInProgress)));
            }
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |said: &Option<Arc<str>>, own: &Option<Arc<str>>| matches!((said, own), (Some(said), Some(own)) if said != own);
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentProtocol);
        }
        Ok(())
    }

    fn synced_by(&mut self, turn: &mut Turn, id: &MemberId) {
        self.pending_syncs.remove(id);
        if self.pending_syncs.is_empty() {
            turn.cancel(TimerKey::Sync(self.id.clone()));
        }
    }

    /// Everyone's syncs stay parked until the assignment would survive a reload: a member must never work on a share
    /// the next coordinator knows nothing of.
    fn persist_assignment(&mut self, turn: &mut Turn, request: &SyncRequest) {
        let given: BTreeMap<&MemberId, &Blob> =
            request.assignments.iter().map(|each| (&each.member_id, &each.assignment)).collect();
        let assignments: BTreeMap<MemberId, Blob> = self
            .members
            .keys()
            .map(|id| (id.clone(), given.get(id).map_or_else(no_bytes, |blob| (*blob).clone())))
            .collect();
        let record = self.record(&assignments);
        self.persisting = Some(self.generation);
        if planted::is(Bug::AssignmentNotAwaited) {
            self.assignment_settled(turn, self.generation, &assignments, Ok(()));
        }
        let then = OnCommit::Assignment { group: self.id.clone(), generation: self.generation, assignments };
        turn.write(record, then);
    }

    /// The leader's assignment has settled. If the group has moved on meanwhile, it means nothing any more.
    pub(crate) fn assignment_settled(
        &mut self,
        turn: &mut Turn,
        generation: i32,
        assignments: &BTreeMap<MemberId, Blob>,
        outcome: Result<(), GroupError>,
    ) {
        if self.persisting == Some(generation) {
            self.persisting = None;
        }
        if self.state != GroupState::CompletingRebalance || self.generation != generation {
            return;
        }
        if let Err(error) = outcome {
            self.drop_assignments(turn, error);
            return self.prepare_rebalance(turn);
        }
        self.enter(GroupState::Stable, turn.now);
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in ids {
            let assignment = assignments.get(&id).cloned().unwrap_or_else(no_bytes);
            let synced = self.synced(assignment.clone());
            let member = self.members.get_mut(&id).expect("taken from the members");
            member.assignment = assignment;
            if let Some(ticket) = member.awaiting_sync.take() {
                turn.reply(ticket, Response::Sync(Ok(synced)));
                // Its session may have run out while it was excused: start it again.
                self.touch(turn, &id);
            }
        }
    }

    /// The sync timer fired: members that joined but never synced would hold their share without reading it.
    pub(crate) fn sync_wait_over(&mut self, turn: &mut Turn) {
        if !matches!(self.state, GroupState::CompletingRebalance | GroupState::Stable)
            || self.pending_syncs.is_empty()
        {
            return;
        }
        for id in std::mem::take(&mut self.pending_syncs) {
            self.remove(turn, &id);
        }
        self.prepare_rebalance(turn);
    }
}
