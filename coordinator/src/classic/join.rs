//! JoinGroup: a client asks to be in the next generation.

use std::collections::BTreeMap;

use crate::effects::TimerKey;
use crate::error::GroupError;
use crate::group::{Group, refuse_join};
use crate::ids::{Blob, InstanceId, MemberId, Ticket};
use crate::member::{Member, Terms, no_bytes};
use crate::request::JoinRequest;
use crate::response::{GroupState, JoinResponse, Joined, Response};
use crate::turn::{OnCommit, StaticReplaced, Turn};

impl Group {
    /// Decides one JoinGroup. The session timeout and the group id have been checked.
    pub(crate) fn join(&mut self, turn: &mut Turn, ticket: Ticket, request: &JoinRequest) {
        if !self.has_room_for(turn, &request.member_id) {
            let id = request.member_id.clone();
            self.remove(turn, &id);
            return refuse(turn, ticket, MemberId::unknown(), GroupError::GroupFull);
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return refuse(turn, ticket, request.member_id.clone(), GroupError::InconsistentProtocol);
        }
        if request.member_id.is_unknown() {
            self.join_new(turn, ticket, request);
        } else if self.pending_joins.contains(&request.member_id) && request.instance_id.is_none() {
            self.add_and_rebalance(turn, ticket, request, request.member_id.clone());
        } else if let Err(error) = self.check_member(&request.member_id, request.instance_id.as_ref()) {
            refuse(turn, ticket, request.member_id.clone(), error);
        } else {
            self.join_again(turn, ticket, request);
        }
    }

    /// While preparing, joins that are parked count, not members: so a group whose limit was lowered keeps the first
    /// to join again, and a member that already waits is never thrown out for asking twice.
    fn has_room_for(&self, turn: &Turn, member: &MemberId) -> bool {
        let known = self.members.get(member);
        match self.state {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                known.is_some_and(|member| member.awaiting_join.is_some())
                    || self.awaiting_joins() < turn.config.members_max
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                known.is_some() || self.members.len() < turn.config.members_max
            }
        }
    }

    fn join_new(&mut self, turn: &mut Turn, ticket: Ticket, request: &JoinRequest) {
        match &request.instance_id {
            Some(instance) => {
                let id = MemberId::fresh(instance.as_str(), request.fresh_uuid);
                match self.static_members.get(instance).cloned() {
                    Some(old) => self.return_static(turn, ticket, request, instance, &old, id),
                    None => self.add_and_rebalance(turn, ticket, request, id),
                }
            }
            None => {
                let id = MemberId::fresh(&request.client_id, request.fresh_uuid);
                if !request.requires_known_member_id {
                    return self.add_and_rebalance(turn, ticket, request, id);
                }
                // KIP-394: a client that dies between two attempts leaves a name behind, not a member to wait for.
                self.pending_joins.insert(id.clone());
                turn.arm(TimerKey::Member(self.id.clone(), id.clone()), request.session_timeout_ms);
                refuse(turn, ticket, id, GroupError::MemberIdRequired);
            }
        }
    }

    fn add_and_rebalance(&mut self, turn: &mut Turn, ticket: Ticket, request: &JoinRequest, id: MemberId) {
        if let Some(wait) = &mut self.initial_wait {
            wait.new_member_added = true;
        }
        let member = Member {
            id: id.clone(),
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            terms: terms(request),
            assignment: no_bytes(),
            awaiting_join: Some(ticket),
            awaiting_sync: None,
            is_new: true,
        };
        self.add(member, request.protocol_type.clone());
        // The session does not run before the first answer. A client that goes away while it waits cannot be seen;
        // this bound keeps its retries from piling up as members that are waited for.
        turn.arm(TimerKey::Member(self.id.clone(), id), turn.config.new_member_join_timeout_ms);
        self.rebalance(turn);
    }

    /// A JoinGroup of a member of this group.
    fn join_again(&mut self, turn: &mut Turn, ticket: Ticket, request: &JoinRequest) {
        let id = &request.member_id;
        let same = self.members[id].terms.protocols == request.protocols;
        match self.state {
            GroupState::PreparingRebalance => self.update_and_rebalance(turn, ticket, request),
            // It lost the answer: give it again. Who changed its mind costs everyone a rebalance.
            GroupState::CompletingRebalance if same => self.repeat_answer(turn, ticket, id),
            // The leader joins when something else changed (a topic grew): only it would notice. A follower that
            // changed nothing may go on.
            GroupState::Stable if same && !self.is_leader(id) => self.repeat_answer(turn, ticket, id),
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.update_and_rebalance(turn, ticket, request);
            }
            GroupState::Empty | GroupState::Dead => {
                refuse(turn, ticket, id.clone(), GroupError::UnknownMember);
            }
        }
    }

    fn repeat_answer(&self, turn: &mut Turn, ticket: Ticket, id: &MemberId) {
        let outcome = Ok(self.joined(id));
        turn.reply(ticket, Response::Join(JoinResponse { member_id: id.clone(), outcome }));
    }

    fn update_and_rebalance(&mut self, turn: &mut Turn, ticket: Ticket, request: &JoinRequest) {
        let member = self.members.get_mut(&request.member_id).expect("the member was checked");
        park_join(turn, member, ticket);
        member.terms = terms(request);
        self.rebalance(turn);
    }

    /// A static member came back without its member id: it gets a new one and the place of the old (KIP-345).
    fn return_static(
        &mut self,
        turn: &mut Turn,
        ticket: Ticket,
        request: &JoinRequest,
        instance: &InstanceId,
        old: &MemberId,
        new: MemberId,
    ) {
        let old_leader = self.leader_or_unknown();
        let member = self.replace_static(turn, instance, old, new.clone());
        let old_terms = std::mem::replace(&mut member.terms, terms(request));
        member.awaiting_join = Some(ticket);
        self.touch(turn, &new);
        match self.state {
            GroupState::Stable if self.protocol.is_some() && self.select_protocol() == self.protocol => {
                // Nothing changes for anyone else, so nobody rebalances. The member may speak under its new id once
                // that id would survive a reload.
                let assignments: BTreeMap<MemberId, Blob> = self.assignments();
                let then = OnCommit::StaticReplaced(Box::new(StaticReplaced {
                    group: self.id.clone(),
                    generation: self.generation,
                    instance_id: instance.clone(),
                    old_member: old.clone(),
                    new_member: new,
                    old_terms,
                    old_leader,
                    supports_skip_assignment: request.supports_skip_assignment,
                    ticket,
                }));
                turn.write(self.record(&assignments), then);
            }
            // The leader may have been told the old id already and would assign to it.
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(turn),
            GroupState::PreparingRebalance => self.complete_join_if_all_in(turn),
            GroupState::Empty | GroupState::Dead => unreachable!("an empty group has no static member"),
        }
    }

    /// The record of a static member's return has settled.
    pub(crate) fn static_returned(
        &mut self,
        turn: &mut Turn,
        return_of: StaticReplaced,
        outcome: Result<(), GroupError>,
    ) {
        let new = &return_of.new_member;
        // A rebalance in between has taken the parked join along, or somebody else has the instance id by now.
        let still_parked = self.state == GroupState::Stable
            && self.generation == return_of.generation
            && self.members.get(new).is_some_and(|member| member.awaiting_join == Some(return_of.ticket));
        if !still_parked {
            return;
        }
        match outcome {
            Ok(()) => {
                let mut joined = self.joined(new);
                if return_of.supports_skip_assignment {
                    joined.skip_assignment = self.is_leader(new);
                } else {
                    // The old id of the leader keeps a returned leader from assigning anew while nobody else syncs.
                    joined.leader = return_of.old_leader;
                    joined.members = Vec::new();
                }
                self.answer_join(turn, new, joined);
                // Its session may have run out while it was excused: start it again.
                self.touch(turn, new);
            }
            Err(error) => {
                let member = self.members.get_mut(new).expect("checked above");
                refuse_join(turn, member, MemberId::unknown(), error);
                member.terms = return_of.old_terms;
                let old = return_of.old_member;
                self.replace_static(turn, &return_of.instance_id, new, old.clone());
                self.touch(turn, &old);
            }
        }
    }

    /// Answers a parked join.
    pub(crate) fn answer_join(&mut self, turn: &mut Turn, id: &MemberId, joined: Joined) {
        let member = self.members.get_mut(id).expect("only members are answered");
        if let Some(ticket) = member.awaiting_join.take() {
            turn.reply(ticket, Response::Join(JoinResponse { member_id: id.clone(), outcome: Ok(joined) }));
        }
    }
}

fn terms(request: &JoinRequest) -> Terms {
    Terms {
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        session_timeout_ms: request.session_timeout_ms,
        protocols: request.protocols.clone(),
    }
}

/// Parks a join. One that is parked already comes from a connection its client has given up; it is told to try again.
fn park_join(turn: &mut Turn, member: &mut Member, ticket: Ticket) {
    let told = member.id.clone();
    refuse_join(turn, member, told, GroupError::RebalanceInProgress);
    member.awaiting_join = Some(ticket);
}

fn refuse(turn: &mut Turn, ticket: Ticket, member_id: MemberId, error: GroupError) {
    turn.reply(ticket, Response::Join(JoinResponse { member_id, outcome: Err(error) }));
}
