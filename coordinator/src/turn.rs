//! One call to a shard while it is being decided: what is known, and what has been asked for so far.

use std::collections::BTreeMap;
use std::sync::Arc;

use ouzel_model::{GroupId, TimestampMs};

use crate::config::Config;
use crate::effects::{Producer, TimerKey, TimerOp};
use crate::ids::{Blob, InstanceId, MemberId, Ticket};
use crate::member::Terms;
use crate::record::Record;
use crate::response::Response;

pub(crate) struct Turn {
    pub(crate) config: Arc<Config>,
    pub(crate) now: TimestampMs,
    pub(crate) replies: Vec<(Ticket, Response)>,
    pub(crate) timers: Vec<TimerOp>,
    /// At most one write per call: its records commit together or not at all.
    pub(crate) write: Option<PlannedWrite>,
}

pub(crate) struct PlannedWrite {
    pub(crate) records: Vec<Record>,
    pub(crate) atomic: bool,
    pub(crate) producer: Option<Producer>,
    pub(crate) then: OnCommit,
}

/// What a shard remembers about a write that is under way.
#[derive(Debug)]
pub(crate) enum OnCommit {
    /// Whatever comes, nobody waits for it.
    Nothing,
    /// The answer waits for the records; if they fail, so does the request.
    Answer { ticket: Ticket, response: Response },
    /// The first record of a group that did not exist; without it the group goes again.
    NewGroup { group: GroupId },
    /// The leader's assignment: everyone who syncs waits for it.
    Assignment { group: GroupId, generation: i32, assignments: BTreeMap<MemberId, Blob> },
    /// A static member of a stable group came back under a new member id; its join waits for the record.
    StaticReplaced(Box<StaticReplaced>),
}

/// What is needed to finish, or to take back, the return of a static member.
#[derive(Debug)]
pub(crate) struct StaticReplaced {
    pub(crate) group: GroupId,
    pub(crate) generation: i32,
    pub(crate) instance_id: InstanceId,
    pub(crate) old_member: MemberId,
    pub(crate) new_member: MemberId,
    /// What the old incarnation had joined with.
    pub(crate) old_terms: Terms,
    /// The leader before the return, for clients that cannot skip the assignment.
    pub(crate) old_leader: MemberId,
    pub(crate) supports_skip_assignment: bool,
    /// The parked join.
    pub(crate) ticket: Ticket,
}

impl Turn {
    pub(crate) fn new(config: &Arc<Config>, now: TimestampMs) -> Turn {
        Turn { config: config.clone(), now, replies: Vec::new(), timers: Vec::new(), write: None }
    }

    pub(crate) fn reply(&mut self, ticket: Ticket, response: Response) {
        self.replies.push((ticket, response));
    }

    /// A negative duration (a client may send one) fires at once.
    pub(crate) fn arm(&mut self, key: TimerKey, after_ms: i32) {
        self.timers.push(TimerOp::Arm { key, after_ms: u64::try_from(after_ms).unwrap_or(0) });
    }

    pub(crate) fn cancel(&mut self, key: TimerKey) {
        self.timers.push(TimerOp::Cancel { key });
    }

    pub(crate) fn write(&mut self, record: Record, then: OnCommit) {
        self.write_all(vec![record], true, then);
    }

    pub(crate) fn write_all(&mut self, records: Vec<Record>, atomic: bool, then: OnCommit) {
        assert!(self.write.is_none(), "one call asks for one write");
        assert!(!records.is_empty(), "a write has records");
        self.write = Some(PlannedWrite { records, atomic, producer: None, then });
    }

    /// Makes what is to be written part of a transaction.
    pub(crate) fn write_for(&mut self, producer: Producer) {
        if let Some(write) = &mut self.write {
            write.producer = Some(producer);
        }
    }

    /// Answers when everything this call writes has committed; at once if it writes nothing.
    pub(crate) fn reply_after_write(&mut self, ticket: Ticket, response: Response) {
        match &mut self.write {
            None => self.reply(ticket, response),
            Some(write) => {
                assert!(matches!(write.then, OnCommit::Nothing), "a write has one consequence");
                write.then = OnCommit::Answer { ticket, response };
            }
        }
    }
}
