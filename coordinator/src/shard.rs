//! The coordinator of the groups of one `__consumer_offsets` partition: the door to everything else in this crate.
//!
//! # What a runtime must do
//!
//! 1. Load: [`Shard::replay`] every committed record of the partition in order (records of transactional batches with
//!    [`Shard::replay_pending`], markers with [`Shard::on_transaction_ended`]), then [`Shard::on_loaded`] once.
//!    Requests are refused elsewhere until then.
//! 2. Carry out the [`Effects`] of every call before the next call: send the replies, append the write, set the
//!    timers (a [`TimerSet`](crate::TimerSet) does the bookkeeping).
//! 3. Report every write once, in the order they were asked for: [`Shard::on_committed`]. Several may be under way.
//! 4. When the partition is lost: [`Shard::unload`] answers everything that is still parked.
//!
//! Each ticket is answered exactly once: by the call that took it, by a later one, or by `unload`.

mod requests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ouzel_model::{GroupId, ProducerId, TimestampMs, TopicId, TopicName};

use crate::config::Config;
use crate::effects::{Effects, Producer, TimerKey, Write, WriteToken};
use crate::error::{GroupError, WriteFailure};
use crate::expiry;
use crate::group::{Group, refuse_join, refuse_sync};
use crate::ids::{MemberId, Ticket};
use crate::offsets;
use crate::persisted::Persisted;
use crate::planted::{self, Bug};
use crate::record::Record;
use crate::request::{OffsetFetchRequest, Request};
use crate::response::{GroupState, Response};
use crate::turn::{OnCommit, Turn};

/// The state machine of one coordinator partition. A value: no clock, no I/O, nothing shared.
#[derive(Debug)]
pub struct Shard {
    config: Arc<Config>,
    /// What committed records say.
    persisted: Persisted,
    /// Live groups. Every persisted group is here, unless its tombstone is under way; a group that is not persisted
    /// is here while its first record is under way or a client was given an id in it.
    groups: BTreeMap<GroupId, Group>,
    /// Writes that have not settled, oldest first.
    in_flight: VecDeque<InFlight>,
    next_token: u64,
    /// Fetches that wait for all writes up to a token.
    stable_fetches: Vec<(WriteToken, Ticket, OffsetFetchRequest)>,
}

#[derive(Debug)]
struct InFlight {
    token: WriteToken,
    records: Arc<[Record]>,
    producer: Option<Producer>,
    then: OnCommit,
}

impl Shard {
    /// A shard with nothing in it.
    pub fn new(config: Config) -> Shard {
        Shard {
            config: Arc::new(config),
            persisted: Persisted::default(),
            groups: BTreeMap::new(),
            in_flight: VecDeque::new(),
            next_token: 0,
            stable_fetches: Vec::new(),
        }
    }

    /// Changes the settings; parked requests keep the timers they have.
    pub fn set_config(&mut self, config: Config) {
        self.config = Arc::new(config);
    }

    /// What the committed records say.
    pub fn persisted(&self) -> &Persisted {
        &self.persisted
    }

    /// How many groups are in which state; for metrics.
    pub fn groups_by_state(&self) -> BTreeMap<GroupState, usize> {
        let mut counts = BTreeMap::new();
        for group in self.groups.values() {
            *counts.entry(group.state).or_default() += 1;
        }
        counts
    }

    /// Takes one record of the log while loading.
    pub fn replay(&mut self, record: &Record) {
        self.persisted.apply(record);
    }

    /// Takes one record of a transactional batch while loading.
    pub fn replay_pending(&mut self, producer: ProducerId, record: &Record) {
        self.persisted.apply_pending(producer, record);
    }

    /// A transaction has ended: its marker was met while loading, or has committed since. Markers and settled writes
    /// are told in the order they have in the log.
    pub fn on_transaction_ended(&mut self, producer: ProducerId, committed: bool) {
        self.persisted.end_transaction(producer, committed);
    }

    /// All records are replayed: groups come to life. Members get a full session to show up.
    pub fn on_loaded(&mut self, now: TimestampMs) -> Effects {
        let mut effects = Effects::default();
        let ids: Vec<GroupId> = self.persisted.groups().keys().cloned().collect();
        for id in ids {
            let mut turn = Turn::new(&self.config, now);
            self.revive(&mut turn, &id);
            if let Some(group) = self.groups.get_mut(&id)
                && group.members.len() > self.config.members_max
            {
                // The limit was lowered: let them join again, the last ones to come are refused.
                group.prepare_rebalance(&mut turn);
            }
            assert!(turn.write.is_none(), "a group with members writes nothing when it rebalances");
            effects.replies.append(&mut turn.replies);
            effects.timers.append(&mut turn.timers);
        }
        effects
    }

    /// Brings a persisted group (back) to life.
    fn revive(&mut self, turn: &mut Turn, id: &GroupId) {
        let Some(metadata) = self.persisted.groups().get(id) else { return };
        let group = match metadata {
            Some(metadata) => Group::from_metadata(id.clone(), metadata),
            None => Group::empty(id.clone(), turn.now),
        };
        for member in group.members.keys() {
            group.touch(turn, member);
        }
        self.groups.insert(id.clone(), group);
    }

    /// Decides one request. `now` is the wall clock: it ends up in records.
    pub fn handle(&mut self, now: TimestampMs, ticket: Ticket, request: Request) -> Effects {
        let mut turn = Turn::new(&self.config, now);
        match request {
            Request::Join(request) => self.join(&mut turn, ticket, &request),
            Request::Sync(request) => self.sync(&mut turn, ticket, &request),
            Request::Heartbeat(request) => {
                let outcome = if request.group.as_str().is_empty() {
                    Err(GroupError::InvalidGroupId)
                } else {
                    let group = self.groups.get_mut(&request.group).ok_or(GroupError::UnknownMember);
                    group.and_then(|group| group.heartbeat(&mut turn, &request))
                };
                turn.reply(ticket, Response::Heartbeat(outcome));
            }
            Request::Leave(request) => self.leave(&mut turn, ticket, &request),
            Request::OffsetCommit(request) => self.commit_offsets(&mut turn, ticket, &request),
            Request::TxnOffsetCommit(request) => self.commit_in_transaction(&mut turn, ticket, &request),
            Request::OffsetFetch(request) => self.fetch_offsets(&mut turn, ticket, request),
            Request::Describe(request) => self.describe(&mut turn, ticket, &request),
            Request::List(request) => self.list(&mut turn, ticket, &request),
            Request::Delete(request) => self.delete_groups(&mut turn, ticket, &request),
            Request::OffsetDelete(request) => self.delete_offsets(&mut turn, ticket, &request),
        }
        self.seal(turn)
    }

    /// A timer that was armed has run out.
    pub fn on_timer(&mut self, now: TimestampMs, key: &TimerKey) -> Effects {
        let mut turn = Turn::new(&self.config, now);
        match key {
            TimerKey::Member(group, member) => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.member_silent(&mut turn, member);
                }
            }
            TimerKey::Join(group) => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.join_wait_over(&mut turn);
                }
            }
            TimerKey::Sync(group) => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.sync_wait_over(&mut turn);
                }
            }
        }
        self.seal(turn)
    }

    /// A write has settled. On success its records become what readers see; either way, who waited for it is
    /// answered.
    ///
    /// # Panics
    /// If the token is not the oldest write that has not settled.
    pub fn on_committed(
        &mut self,
        now: TimestampMs,
        token: WriteToken,
        outcome: Result<(), WriteFailure>,
    ) -> Effects {
        let write = self.in_flight.pop_front().expect("a write is under way");
        assert_eq!(write.token, token, "writes settle in the order they were asked for");
        if outcome.is_ok() && !planted::is(Bug::CommitNotApplied) {
            for record in write.records.iter() {
                match write.producer {
                    None => self.persisted.apply(record),
                    Some(producer) => self.persisted.apply_pending(producer.id, record),
                }
            }
        }
        let mut turn = Turn::new(&self.config, now);
        let outcome = outcome.map_err(GroupError::from);
        self.finish(&mut turn, write.then, outcome);
        let touched: BTreeSet<&GroupId> = write.records.iter().map(Record::group).collect();
        touched.into_iter().for_each(|group| self.reconcile(&mut turn, group));
        self.answer_stable_fetches(&mut turn, token);
        self.seal(turn)
    }

    fn finish(&mut self, turn: &mut Turn, then: OnCommit, outcome: Result<(), GroupError>) {
        match then {
            OnCommit::Nothing => {}
            OnCommit::Answer { .. } if planted::is(Bug::ReplyDropped) => {}
            OnCommit::Answer { ticket, response } => {
                let response = match outcome {
                    Err(error) if !planted::is(Bug::FailureAcknowledged) => response.refused(error),
                    _ => response,
                };
                turn.reply(ticket, response);
            }
            OnCommit::NewGroup { group } => {
                if let Err(error) = outcome {
                    self.dissolve_unwritten(turn, &group, error);
                }
            }
            OnCommit::Assignment { group, generation, assignments } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.assignment_settled(turn, generation, &assignments, outcome);
                }
            }
            OnCommit::StaticReplaced(return_of) => {
                if let Some(group) = self.groups.get_mut(&return_of.group) {
                    group.static_returned(turn, *return_of, outcome);
                }
            }
        }
    }

    /// The partition is lost: answers everything that is parked, so that clients look for the new coordinator.
    pub fn unload(self) -> Vec<(Ticket, Response)> {
        let moved = GroupError::NotCoordinator;
        let mut turn = Turn::new(&self.config, TimestampMs::NONE);
        for write in self.in_flight {
            if let OnCommit::Answer { ticket, response } = write.then {
                turn.reply(ticket, response.refused(moved));
            }
        }
        for mut group in self.groups.into_values() {
            for member in group.members.values_mut() {
                let told = member.id.clone();
                refuse_join(&mut turn, member, told, moved);
                refuse_sync(&mut turn, member, moved);
            }
        }
        for (_, ticket, _) in self.stable_fetches {
            turn.reply(ticket, Response::OffsetFetch(Err(moved)));
        }
        turn.replies
    }

    /// Topics are gone, and with them every offset committed for them. An incarnation of the name that was committed
    /// under another id is left alone.
    pub fn on_topics_deleted(&mut self, now: TimestampMs, topics: &[(TopicName, TopicId)]) -> Effects {
        let is_gone = |name: &TopicName, id: TopicId| {
            topics.iter().any(|(gone, gone_id)| gone == name && (id.is_zero() || id == *gone_id))
        };
        let mut places = BTreeSet::new();
        for (group, offsets) in self.persisted.all_offsets() {
            for (topic, _) in topics {
                for (partition, offset) in offsets.get(topic).into_iter().flatten() {
                    if is_gone(topic, offset.topic_id) {
                        places.insert((group.clone(), topic.clone(), *partition));
                    }
                }
            }
        }
        for (group, (topic, partition), offset) in self.persisted.pending().iter() {
            if is_gone(topic, offset.topic_id) {
                places.insert((group.clone(), topic.clone(), *partition));
            }
        }
        for record in self.records_in_flight() {
            if let Record::OffsetCommit { group, topic, partition, value: Some(offset) } = record
                && is_gone(topic, offset.topic_id)
            {
                places.insert((group.clone(), topic.clone(), *partition));
            }
        }
        let tombstones: Vec<Record> =
            places.iter().map(|(group, topic, index)| offsets::tombstone(group, topic, *index)).collect();
        let mut turn = Turn::new(&self.config, now);
        if !tombstones.is_empty() {
            turn.write_all(tombstones, false, OnCommit::Nothing);
        }
        self.seal(turn)
    }

    /// The periodic pass (`offsets.retention.check.interval.ms`): forgets old offsets, and empty groups that have
    /// none left.
    pub fn expire(&mut self, now: TimestampMs) -> Effects {
        let mut turn = Turn::new(&self.config, now);
        // What is on its way cannot be judged yet; the next pass will.
        let busy: BTreeSet<&GroupId> = self.records_in_flight().map(Record::group).collect();
        let mut records = Vec::new();
        let mut gone = Vec::new();
        for (id, group) in self.groups.iter().filter(|(id, _)| !busy.contains(id)) {
            let mut found = expiry::expired(&self.config, now, group, &self.persisted);
            records.append(&mut found.tombstones);
            if found.nothing_left && group.state == GroupState::Empty {
                if self.persisted.groups().contains_key(id) {
                    records.push(Record::GroupMetadata { group: id.clone(), value: None });
                }
                gone.push(id.clone());
            }
        }
        gone.iter().for_each(|id| self.forget_live(&mut turn, id));
        if !records.is_empty() {
            turn.write_all(records, false, OnCommit::Nothing);
        }
        self.seal(turn)
    }

    // Between live groups and what is persisted.

    fn records_in_flight(&self) -> impl Iterator<Item = &Record> {
        self.in_flight.iter().flat_map(|write| write.records.iter())
    }

    fn is_in_flight(&self, id: &GroupId) -> bool {
        self.records_in_flight().any(|record| record.group() == id)
    }

    /// Takes an empty group's live half away; its tombstone follows. Clients that were given an id start over.
    fn forget_live(&mut self, turn: &mut Turn, id: &GroupId) {
        if let Some(group) = self.groups.remove(id) {
            assert!(group.members.is_empty(), "group {id} has members");
            for member in group.pending_joins {
                turn.cancel(TimerKey::Member(id.clone(), member));
            }
        }
    }

    /// A write about this group has settled, well or not. Once none is under way, live and persisted groups must be
    /// the same: one that was to go and did not comes back, one that was to come and did not does not stay.
    fn reconcile(&mut self, turn: &mut Turn, id: &GroupId) {
        let persisted = self.persisted.groups().contains_key(id);
        let differs = match self.groups.get(id) {
            None => persisted,
            Some(group) => !persisted && group.state == GroupState::Empty && group.pending_joins.is_empty(),
        };
        if !differs || self.is_in_flight(id) {
            return;
        }
        if persisted { self.revive(turn, id) } else { self.forget_live(turn, id) }
    }

    /// The first record of a new group failed. If nothing later may make it durable, everyone in it starts over.
    fn dissolve_unwritten(&mut self, turn: &mut Turn, id: &GroupId, error: GroupError) {
        if self.persisted.groups().contains_key(id) || self.is_in_flight(id) {
            return;
        }
        let Some(mut group) = self.groups.remove(id) else { return };
        for member in group.members.values_mut() {
            refuse_join(turn, member, MemberId::unknown(), error);
            refuse_sync(turn, member, error);
        }
        for member in group.members.keys().chain(&group.pending_joins) {
            turn.cancel(TimerKey::Member(id.clone(), member.clone()));
        }
        turn.cancel(TimerKey::Join(id.clone()));
        turn.cancel(TimerKey::Sync(id.clone()));
    }

    /// Turns what was decided into effects and remembers the write.
    fn seal(&mut self, turn: Turn) -> Effects {
        let write = turn.write.map(|planned| {
            let token = WriteToken(self.next_token);
            self.next_token += 1;
            let records: Arc<[Record]> = planned.records.into();
            self.in_flight.push_back(InFlight {
                token,
                records: records.clone(),
                producer: planned.producer,
                then: planned.then,
            });
            Write { token, records, atomic: planned.atomic, producer: planned.producer }
        });
        Effects { replies: turn.replies, write, timers: turn.timers }
    }
}

#[cfg(test)]
#[path = "shard_test.rs"]
mod test;
