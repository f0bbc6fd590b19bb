//! One live classic group: who is in it, where its rebalance stands, what its members agree on.
//!
//! The moves between states are in `classic`; this file keeps the group consistent while they happen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ouzel_model::{GroupId, TimestampMs, TopicName};

use crate::effects::TimerKey;
use crate::error::GroupError;
use crate::ids::{Blob, InstanceId, MemberId};
use crate::member::{Member, Terms, no_bytes};
use crate::planted::{self, Bug};
use crate::record::{GroupMember, GroupMetadata, Record};
use crate::request::JoinProtocol;
use crate::response::{GroupState, JoinResponse, Joined, Response, Synced};
use crate::subscription;
use crate::turn::Turn;

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    /// Changed by [`Group::enter`] alone.
    pub(crate) state: GroupState,
    /// The state before; `Empty` while preparing means that this is the group's initial rebalance.
    pub(crate) previous_state: GroupState,
    /// When it entered its state; `NONE` if its record does not say.
    pub(crate) state_timestamp: TimestampMs,
    /// Set by the first member and kept when the last one leaves; `None` for a group of offsets alone.
    pub(crate) protocol_type: Option<Arc<str>>,
    /// What the generation agreed on.
    pub(crate) protocol: Option<Arc<str>>,
    /// Only grows, one at a time.
    pub(crate) generation: i32,
    /// A member, whenever there is one.
    pub(crate) leader: Option<MemberId>,
    pub(crate) members: BTreeMap<MemberId, Member>,
    /// The members with an instance id, by it.
    pub(crate) static_members: BTreeMap<InstanceId, MemberId>,
    /// Ids given out with `MemberIdRequired` that have not joined yet: never members.
    pub(crate) pending_joins: BTreeSet<MemberId>,
    /// Members of the generation that have not synced yet.
    pub(crate) pending_syncs: BTreeSet<MemberId>,
    /// The generation whose assignment is being written. A leader that syncs twice must not overwrite on record what
    /// its members are about to be told.
    pub(crate) persisting: Option<i32>,
    /// What a consumer group reads; `None` when nobody can tell.
    pub(crate) subscribed: Option<BTreeSet<TopicName>>,
    /// The initial rebalance's patience, while its timer runs.
    pub(crate) initial_wait: Option<InitialWait>,
}

/// How long the first rebalance of an empty group still waits for more members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InitialWait {
    /// The delay that is running now.
    pub(crate) delay_ms: i32,
    /// What may be added to it.
    pub(crate) remaining_ms: i32,
    /// Whether someone joined during the running delay.
    pub(crate) new_member_added: bool,
}

impl Group {
    /// A group that nobody has joined.
    pub(crate) fn empty(id: GroupId, now: TimestampMs) -> Group {
        Group {
            id,
            state: GroupState::Empty,
            previous_state: GroupState::Dead,
            state_timestamp: now,
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            persisting: None,
            subscribed: None,
            initial_wait: None,
        }
    }

    /// The group as its record left it: stable with its members, or empty.
    pub(crate) fn from_metadata(id: GroupId, metadata: &GroupMetadata) -> Group {
        let mut group = Group::empty(id, metadata.state_timestamp);
        group.generation = metadata.generation;
        group.protocol_type = metadata.protocol_type.clone().filter(|text| !text.is_empty());
        group.protocol = metadata.protocol.clone();
        group.leader = metadata.leader.clone();
        if !metadata.members.is_empty() {
            group.state = GroupState::Stable;
        }
        for record in &metadata.members {
            let member = restored(record, metadata.protocol.as_ref());
            if let Some(instance) = &member.instance_id {
                group.static_members.insert(instance.clone(), member.id.clone());
            }
            group.leader.get_or_insert_with(|| member.id.clone());
            group.members.insert(member.id.clone(), member);
        }
        group.subscribed = group.compute_subscribed();
        group
    }

    pub(crate) fn is_consumer(&self) -> bool {
        self.protocol_type.as_deref() == Some(subscription::CONSUMER)
    }

    pub(crate) fn is_leader(&self, member: &MemberId) -> bool {
        self.leader.as_ref() == Some(member)
    }

    pub(crate) fn leader_or_unknown(&self) -> MemberId {
        self.leader.clone().unwrap_or_else(MemberId::unknown)
    }

    /// Whether offsets of the topic belong to a reader that is there; when nobody can tell, a consumer group is
    /// taken to read everything.
    pub(crate) fn is_subscribed(&self, topic: &TopicName) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_consumer(),
        }
    }

    /// The one setter of the state.
    pub(crate) fn enter(&mut self, next: GroupState, now: TimestampMs) {
        use GroupState::{CompletingRebalance, Dead, Empty, PreparingRebalance, Stable};
        let allowed = matches!(
            (self.state, next),
            (PreparingRebalance, Empty)
                | (Stable | CompletingRebalance | Empty, PreparingRebalance)
                | (PreparingRebalance, CompletingRebalance)
                | (CompletingRebalance, Stable)
                | (_, Dead)
        );
        assert!(allowed, "group {} cannot go from {} to {next}", self.id, self.state);
        self.previous_state = self.state;
        self.state = next;
        self.state_timestamp = now;
    }

    /// Whether the rebalance under way is the first after the group was empty: its timer alone completes it.
    pub(crate) fn is_initial_rebalance(&self) -> bool {
        self.state == GroupState::PreparingRebalance && self.previous_state == GroupState::Empty
    }

    // Membership.

    /// Who may speak for a member: the instance id, if given, must be held by that member id.
    pub(crate) fn check_member(
        &self,
        member: &MemberId,
        instance: Option<&InstanceId>,
    ) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(holder) if holder != member => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    pub(crate) fn add(&mut self, member: Member, protocol_type: Arc<str>) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type);
        }
        if let Some(instance) = &member.instance_id {
            let before = self.static_members.insert(instance.clone(), member.id.clone());
            assert!(before.is_none(), "instance id {instance} of group {} is taken", self.id);
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.pending_joins.remove(&member.id);
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member (or a pending one) out. Its parked requests are answered with `UnknownMember`, so that a
    /// client that is still there joins again.
    pub(crate) fn remove(&mut self, turn: &mut Turn, id: &MemberId) {
        turn.cancel(TimerKey::Member(self.id.clone(), id.clone()));
        self.pending_joins.remove(id);
        self.pending_syncs.remove(id);
        let Some(mut member) = self.members.remove(id) else { return };
        refuse_join(turn, &mut member, MemberId::unknown(), GroupError::UnknownMember);
        refuse_sync(turn, &mut member, GroupError::UnknownMember);
        if let Some(instance) = &member.instance_id {
            self.static_members.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Gives a static member's place to its new incarnation; requests parked by the old one are fenced.
    pub(crate) fn replace_static(
        &mut self,
        turn: &mut Turn,
        instance: &InstanceId,
        old: &MemberId,
        new: MemberId,
    ) -> &mut Member {
        let mut member = self.members.remove(old).expect("a static member's id names a member");
        turn.cancel(TimerKey::Member(self.id.clone(), old.clone()));
        refuse_join(turn, &mut member, old.clone(), GroupError::FencedInstance);
        refuse_sync(turn, &mut member, GroupError::FencedInstance);
        member.id = new.clone();
        member.is_new = false;
        self.static_members.insert(instance.clone(), new.clone());
        if self.is_leader(old) {
            self.leader = Some(new.clone());
        }
        if self.pending_syncs.remove(old) {
            self.pending_syncs.insert(new.clone());
        }
        self.members.entry(new).or_insert(member)
    }

    pub(crate) fn awaiting_joins(&self) -> usize {
        self.members.values().filter(|member| member.awaiting_join.is_some()).count()
    }

    /// Whether everyone the coordinator knows has joined the next generation.
    pub(crate) fn all_joined(&self) -> bool {
        self.pending_joins.is_empty() && self.members.values().all(|member| member.awaiting_join.is_some())
    }

    /// A rebalance waits as long as its most patient member asks for.
    pub(crate) fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.terms.rebalance_timeout_ms).max().unwrap_or(0).max(0)
    }

    // Protocols.

    /// Whether a member with these protocols could be in the group.
    pub(crate) fn supports(&self, protocol_type: &str, protocols: &[JoinProtocol]) -> bool {
        if self.state == GroupState::Empty {
            !protocol_type.is_empty() && !protocols.is_empty()
        } else {
            self.protocol_type.as_deref() == Some(protocol_type)
                && protocols.iter().any(|protocol| self.is_common(&protocol.name))
        }
    }

    fn is_common(&self, protocol: &str) -> bool {
        self.members.values().all(|member| member.supports(protocol))
    }

    /// Every member votes for the first of its protocols that all members speak. The most votes win; of equals, the
    /// one the leader likes better.
    pub(crate) fn select_protocol(&self) -> Option<Arc<str>> {
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader))?;
        // Common protocols are the leader's, in its order; each with its votes.
        let names = leader.terms.protocols.iter().map(|protocol| &protocol.name);
        let mut common: Vec<(&Arc<str>, usize)> =
            names.filter(|name| self.is_common(name)).map(|name| (name, 0)).collect();
        for member in self.members.values() {
            let mut wishes = member.terms.protocols.iter();
            let choice = wishes.find_map(|wish| common.iter().position(|(name, _)| **name == wish.name))?;
            common[choice].1 += 1;
        }
        let most = common.iter().map(|(_, votes)| *votes).max()?;
        common.into_iter().find(|(_, votes)| *votes == most).map(|(name, _)| name.clone())
    }

    pub(crate) fn compute_subscribed(&self) -> Option<BTreeSet<TopicName>> {
        if !self.is_consumer() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_ref()?;
        let mut all = BTreeSet::new();
        for member in self.members.values() {
            all.extend(subscription::topics(&member.metadata(protocol))?);
        }
        Some(all)
    }

    // Answers and records.

    /// What a member that joined is told; the leader hears of everyone.
    pub(crate) fn joined(&self, member: &MemberId) -> Joined {
        let leads = self.is_leader(member) || planted::is(Bug::TwoLeaders);
        let members = match &self.protocol {
            Some(protocol) if leads => {
                self.members.values().map(|member| member.as_joined(protocol)).collect()
            }
            _ => Vec::new(),
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: if leads { member.clone() } else { self.leader_or_unknown() },
            skip_assignment: false,
            members,
        }
    }

    pub(crate) fn synced(&self, assignment: Blob) -> Synced {
        Synced { protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }

    /// (Re)starts a member's session.
    pub(crate) fn touch(&self, turn: &mut Turn, id: &MemberId) {
        if let Some(member) = self.members.get(id) {
            turn.arm(TimerKey::Member(self.id.clone(), id.clone()), member.terms.session_timeout_ms);
        }
    }

    /// The group's record, with these assignments instead of the members' own.
    pub(crate) fn record(&self, assignments: &BTreeMap<MemberId, Blob>) -> Record {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self
            .members
            .values()
            .map(|member| GroupMember {
                member_id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.terms.rebalance_timeout_ms,
                session_timeout_ms: member.terms.session_timeout_ms,
                subscription: member.metadata(protocol),
                assignment: assignments.get(&member.id).cloned().unwrap_or_else(no_bytes),
            })
            .collect();
        Record::GroupMetadata {
            group: self.id.clone(),
            value: Some(GroupMetadata {
                protocol_type: self.protocol_type.clone(),
                generation: self.generation,
                protocol: self.protocol.clone(),
                leader: self.leader.clone(),
                state_timestamp: self.state_timestamp,
                members,
            }),
        }
    }

    /// The assignments the members hold now.
    pub(crate) fn assignments(&self) -> BTreeMap<MemberId, Blob> {
        self.members.values().map(|member| (member.id.clone(), member.assignment.clone())).collect()
    }
}

/// Answers a parked join with an error, if there is one.
pub(crate) fn refuse_join(turn: &mut Turn, member: &mut Member, told: MemberId, error: GroupError) {
    if let Some(ticket) = member.awaiting_join.take() {
        turn.reply(ticket, Response::Join(JoinResponse { member_id: told, outcome: Err(error) }));
    }
}

/// Answers a parked sync with an error, if there is one.
pub(crate) fn refuse_sync(turn: &mut Turn, member: &mut Member, error: GroupError) {
    if let Some(ticket) = member.awaiting_sync.take() {
        turn.reply(ticket, Response::Sync(Err(error)));
    }
}

fn restored(record: &GroupMember, protocol: Option<&Arc<str>>) -> Member {
    let rebalance_timeout_ms = match record.rebalance_timeout_ms {
        -1 => record.session_timeout_ms,
        known => known,
    };
    Member {
        id: record.member_id.clone(),
        instance_id: record.instance_id.clone(),
        client_id: record.client_id.clone(),
        client_host: record.client_host.clone(),
        terms: Terms {
            rebalance_timeout_ms,
            session_timeout_ms: record.session_timeout_ms,
            // Only the agreed protocol is on record; the member brings the others when it joins again.
            protocols: protocol
                .map(|name| JoinProtocol { name: name.clone(), metadata: record.subscription.clone() })
                .into_iter()
                .collect(),
        },
        assignment: record.assignment.clone(),
        awaiting_join: None,
        awaiting_sync: None,
        is_new: false,
    }
}
