//! What a shard does with each request: finds the group, asks it, and plans the records.

use std::collections::BTreeMap;

use ouzel_model::{GroupId, TimestampMs, TopicName};

use super::{InFlight, Shard};
use crate::admin;
use crate::effects::WriteToken;
use crate::error::GroupError;
use crate::group::Group;
use crate::ids::Ticket;
use crate::offsets;
use crate::record::Record;
use crate::request::{
    DeleteRequest, DescribeRequest, JoinRequest, LeaveRequest, ListRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, SyncRequest, TxnOffsetCommitRequest,
};
use crate::response::{DeletedGroup, GroupState, JoinResponse, LeftMember, Response};
use crate::turn::{OnCommit, Turn};

impl Shard {
    pub(super) fn join(&mut self, turn: &mut Turn, ticket: Ticket, request: &JoinRequest) {
        let sessions = self.config.session_timeout_ms_min..=self.config.session_timeout_ms_max;
        let is_new_group = !self.groups.contains_key(&request.group);
        let refusal = if request.group.as_str().is_empty() {
            Some(GroupError::InvalidGroupId)
        } else if !sessions.contains(&request.session_timeout_ms) {
            Some(GroupError::InvalidSessionTimeout)
        } else if is_new_group && !request.member_id.is_unknown() {
            Some(GroupError::UnknownMember)
        } else {
            None
        };
        if let Some(error) = refusal {
            let response = JoinResponse { member_id: request.member_id.clone(), outcome: Err(error) };
            return turn.reply(ticket, Response::Join(response));
        }
        let fresh = || Group::empty(request.group.clone(), turn.now);
        let group = self.groups.entry(request.group.clone()).or_insert_with(fresh);
        group.join(turn, ticket, request);
        if is_new_group && turn.write.is_none() {
            // Makes the group visible and lets it outlive a reload before its first generation.
            let then = OnCommit::NewGroup { group: request.group.clone() };
            turn.write(Group::empty(request.group.clone(), turn.now).record(&BTreeMap::new()), then);
        }
    }

    pub(super) fn sync(&mut self, turn: &mut Turn, ticket: Ticket, request: &SyncRequest) {
        if request.group.as_str().is_empty() {
            return turn.reply(ticket, Response::Sync(Err(GroupError::InvalidGroupId)));
        }
        match self.groups.get_mut(&request.group) {
            Some(group) if group.state != GroupState::Empty => group.sync(turn, ticket, request),
            _ => turn.reply(ticket, Response::Sync(Err(GroupError::UnknownMember))),
        }
    }

    pub(super) fn leave(&mut self, turn: &mut Turn, ticket: Ticket, request: &LeaveRequest) {
        if request.group.as_str().is_empty() {
            return turn.reply(ticket, Response::Leave(Err(GroupError::InvalidGroupId)));
        }
        let left = match self.groups.get_mut(&request.group) {
            Some(group) => group.leave(turn, request),
            None => request
                .members
                .iter()
                .map(|member| LeftMember {
                    member_id: member.member_id.clone(),
                    instance_id: member.instance_id.clone(),
                    outcome: Err(GroupError::UnknownMember),
                })
                .collect(),
        };
        turn.reply_after_write(ticket, Response::Leave(Ok(left)));
    }

    pub(super) fn commit_offsets(&mut self, turn: &mut Turn, ticket: Ticket, request: &OffsetCommitRequest) {
        let checked = match self.groups.get(&request.group) {
            Some(group) => group.check_commit(request),
            None if request.generation < 0 => Ok(()),
            None if request.knows_group_not_found => Err(GroupError::GroupNotFound),
            None => Err(GroupError::IllegalGeneration),
        };
        if let Err(error) = checked {
            return turn.reply(ticket, Response::OffsetCommit(Err(error)));
        }
        let (records, results) =
            offsets::commit(&self.config, turn.now, &request.group, &request.topics, request.retention_ms);
        if !records.is_empty() {
            turn.write_all(records, true, OnCommit::Nothing);
            // A commit without membership to a group nobody knows makes a simple group.
            let fresh = || Group::empty(request.group.clone(), turn.now);
            self.groups.entry(request.group.clone()).or_insert_with(fresh);
        }
        if let Some(group) = self.groups.get(&request.group) {
            // A commit is a sign of life.
            group.touch(turn, &request.member_id);
        }
        turn.reply_after_write(ticket, Response::OffsetCommit(Ok(results)));
    }

    pub(super) fn commit_in_transaction(
        &mut self,
        turn: &mut Turn,
        ticket: Ticket,
        request: &TxnOffsetCommitRequest,
    ) {
        let checked = match self.groups.get(&request.group) {
            Some(group) => group.check_transactional_commit(request),
            None if request.generation < 0 => Ok(()),
            None => Err(GroupError::IllegalGeneration),
        };
        if let Err(error) = checked {
            return turn.reply(ticket, Response::TxnOffsetCommit(Err(error)));
        }
        let (records, results) =
            offsets::commit(&self.config, turn.now, &request.group, &request.topics, None);
        if !records.is_empty() {
            turn.write_all(records, true, OnCommit::Nothing);
            turn.write_for(request.producer);
            let fresh = || Group::empty(request.group.clone(), turn.now);
            self.groups.entry(request.group.clone()).or_insert_with(fresh);
        }
        turn.reply_after_write(ticket, Response::TxnOffsetCommit(Ok(results)));
    }

    pub(super) fn fetch_offsets(&mut self, turn: &mut Turn, ticket: Ticket, request: OffsetFetchRequest) {
        let concerns =
            |write: &&InFlight| write.records.iter().any(|record| *record.group() == request.group);
        let latest = request.require_stable.then(|| self.in_flight.iter().rev().find(concerns)).flatten();
        match latest.map(|write| write.token) {
            // Whoever takes over a partition must not start before a commit that is about to be acknowledged.
            Some(token) => self.stable_fetches.push((token, ticket, request)),
            None => {
                let fetched = offsets::fetch(&self.persisted, &request);
                turn.reply(ticket, Response::OffsetFetch(Ok(fetched)));
            }
        }
    }

    pub(super) fn answer_stable_fetches(&mut self, turn: &mut Turn, settled: WriteToken) {
        let waiting = std::mem::take(&mut self.stable_fetches);
        for (token, ticket, request) in waiting {
            if token <= settled {
                let fetched = offsets::fetch(&self.persisted, &request);
                turn.reply(ticket, Response::OffsetFetch(Ok(fetched)));
            } else {
                self.stable_fetches.push((token, ticket, request));
            }
        }
    }

    pub(super) fn delete_offsets(&mut self, turn: &mut Turn, ticket: Ticket, request: &OffsetDeleteRequest) {
        let checked = if request.group.as_str().is_empty() {
            Err(GroupError::InvalidGroupId)
        } else {
            let group = self.groups.get(&request.group).ok_or(GroupError::GroupNotFound);
            group.and_then(|group| group.check_offset_delete().map(|()| group))
        };
        let group = match checked {
            Ok(group) => group,
            Err(error) => return turn.reply(ticket, Response::OffsetDelete(Err(error))),
        };
        let places = offsets::places(&self.persisted, self.records_in_flight(), &request.group);
        let exists = |topic: &TopicName, partition| places.contains(&(topic.clone(), partition));
        let (records, results) = offsets::delete(group, request, exists);
        if !records.is_empty() {
            turn.write_all(records, true, OnCommit::Nothing);
        }
        turn.reply_after_write(ticket, Response::OffsetDelete(Ok(results)));
    }

    pub(super) fn describe(&self, turn: &mut Turn, ticket: Ticket, request: &DescribeRequest) {
        let visible = |id: &GroupId| {
            let described = self.visible(turn.now, id, Group::describe);
            described.unwrap_or_else(|| admin::dead(id))
        };
        let described = request.groups.iter().map(visible).collect();
        turn.reply(ticket, Response::Describe(described));
    }

    pub(super) fn list(&self, turn: &mut Turn, ticket: Ticket, request: &ListRequest) {
        let ids = self.persisted.groups().keys();
        let listed = ids.filter_map(|id| self.visible(turn.now, id, Group::list));
        let passing = listed.filter(|group| admin::passes(request, group)).collect();
        turn.reply(ticket, Response::List(passing));
    }

    /// Shows a group whose existence is committed: as it is live, or, while its tombstone is under way, as its
    /// record left it.
    fn visible<T>(&self, now: TimestampMs, id: &GroupId, show: impl Fn(&Group) -> T) -> Option<T> {
        let metadata = self.persisted.groups().get(id)?;
        Some(match (self.groups.get(id), metadata) {
            (Some(live), _) => show(live),
            (None, Some(metadata)) => show(&Group::from_metadata(id.clone(), metadata)),
            (None, None) => show(&Group::empty(id.clone(), now)),
        })
    }

    pub(super) fn delete_groups(&mut self, turn: &mut Turn, ticket: Ticket, request: &DeleteRequest) {
        let mut records = Vec::new();
        let mut results = Vec::new();
        for id in &request.groups {
            let outcome = match self.groups.get(id).map(|group| group.state) {
                None | Some(GroupState::Dead) => Err(GroupError::GroupNotFound),
                Some(GroupState::Empty) => Ok(()),
                Some(_) => Err(GroupError::NonEmptyGroup),
            };
            if outcome.is_ok() {
                let places = offsets::places(&self.persisted, self.records_in_flight(), id);
                records.extend(places.iter().map(|(topic, index)| offsets::tombstone(id, topic, *index)));
                records.push(Record::GroupMetadata { group: id.clone(), value: None });
                self.forget_live(turn, id);
            }
            results.push(DeletedGroup { group: id.clone(), outcome });
        }
        if !records.is_empty() {
            turn.write_all(records, true, OnCommit::Nothing);
        }
        turn.reply_after_write(ticket, Response::Delete(results));
    }
}
