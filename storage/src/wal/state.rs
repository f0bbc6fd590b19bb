//! What the write-ahead file keeps, as values.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use ouzel_model::{EntryId, LeaderEpoch, Offset, ReplicaId, TopicIdPartition};

use crate::recovery_table::Stop;

/// The kernel's id of one boot (`/proc/sys/kernel/random/boot_id`). Whoever starts the broker reads it and passes it on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId(pub [u8; 16]);

/// A text that is no [`BootId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a boot id; expected 32 hexadecimal digits with dashes")]
pub struct InvalidBootId(String);

impl FromStr for BootId {
    type Err = InvalidBootId;

    /// Reads the kernel's form; white space around it and dashes within do not matter.
    fn from_str(text: &str) -> Result<BootId, InvalidBootId> {
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        match u128::from_str_radix(&digits, 16) {
            Ok(number) if digits.len() == 32 && !digits.starts_with('+') => Ok(BootId(number.to_be_bytes())),
            _ => Err(InvalidBootId(text.trim().to_owned())),
        }
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", u128::from_be_bytes(self.0));
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One `Solo` log's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoloState {
    /// Which life of the replica on this node, from 0; larger after it was given up and made again.
    pub incarnation: u64,
    /// The epoch under which it was last opened. A start takes a larger one, so that a tail lost to a power cut never
    /// lends its offsets out twice under one epoch.
    pub leader_epoch: LeaderEpoch,
    /// A lower bound of the flushed offset (exclusive end). Damage below it is damage to flushed data.
    pub flushed: Offset,
    /// The boot in which it was last opened, once its recovery was over: what was written since is in this boot's page
    /// cache.
    pub boot: BootId,
    /// The log end offset when it was closed, all flushed; `None` while it is open.
    pub closed_at: Option<Offset>,
}

impl SoloState {
    /// The record of a log that is open from now on: an epoch above every one known, no mark.
    ///
    /// `epoch_in_log` is the largest the log's batches and checkpoint hold; `flushed` what is on the medium now.
    pub fn opened(
        previous: Option<&SoloState>,
        epoch_in_log: Option<LeaderEpoch>,
        flushed: Offset,
        boot: BootId,
    ) -> SoloState {
        let known = previous.map(|state| state.leader_epoch).into_iter().chain(epoch_in_log).max();
        SoloState {
            incarnation: previous.map_or(0, |state| state.incarnation),
            leader_epoch: known.map_or(LeaderEpoch(0), LeaderEpoch::next),
            flushed,
            boot,
            closed_at: None,
        }
    }

    /// The record of the same log when it is closed: everything up to `log_end` is flushed.
    pub fn closed(self, log_end: Offset) -> SoloState {
        SoloState { flushed: log_end, closed_at: Some(log_end), ..self }
    }

    /// The record of the same log when more, or after a truncation less, is flushed.
    pub fn flushed_to(self, flushed: Offset) -> SoloState {
        SoloState { flushed, ..self }
    }
}

/// How the last process that had a log open ended, and up to where the log is known to be flushed; `None` if nothing is
/// known of it.
///
/// `log_end` is where a short look found the log to end. A clean stop is believed only if that is where the mark says; a
/// mark that disagrees still says that everything before it was flushed.
pub fn stop_of(state: Option<&SoloState>, boot: BootId, log_end: Option<Offset>) -> (Stop, Option<Offset>) {
    let Some(state) = state else { return (Stop::Unknown, None) };
    match state.closed_at {
        Some(mark) if log_end == Some(mark) => (Stop::Clean, Some(mark)),
        Some(mark) => (Stop::UncleanOtherBoot, Some(mark.max(state.flushed))),
        None if state.boot == boot => (Stop::UncleanSameBoot, Some(state.flushed)),
        None => (Stop::UncleanOtherBoot, Some(state.flushed)),
    }
}

/// The record of one replica of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// Which replica this is: another life of it must not take up this one's vote.
    pub replica: ReplicaId,
    /// The reign of its vote.
    pub term: LeaderEpoch,
    /// Whom it voted for in that reign.
    pub voted_for: Option<ReplicaId>,
    /// Whether that one is known to lead.
    pub vote_committed: bool,
    /// An entry that is known to be committed; a hint, behind what is.
    pub committed: Option<EntryId>,
    /// The entry up to which the log is only data.
    pub purged: Option<EntryId>,
    /// The members as of that entry; the replication's own bytes.
    pub membership_at_purge: Bytes,
    /// A lower bound of the flushed offset (exclusive end), never above what is committed: what is below it is never cut.
    pub flushed: Offset,
    /// Whether all it acknowledged since it was opened was flushed first: then a power cut takes nothing it answered for.
    pub is_durable: bool,
    /// The boot in which the log was last opened.
    pub boot: BootId,
    /// The log end offset when it was closed, all flushed; `None` while it is open.
    pub closed_at: Option<Offset>,
}

impl GroupState {
    /// The record of a replica that has not voted, and whose log is empty.
    pub fn new(replica: ReplicaId, boot: BootId) -> GroupState {
        GroupState {
            replica,
            term: LeaderEpoch(0),
            voted_for: None,
            vote_committed: false,
            committed: None,
            purged: None,
            membership_at_purge: Bytes::new(),
            flushed: Offset::ZERO,
            is_durable: true,
            boot,
            closed_at: None,
        }
    }

    /// Whether it may have answered for anything: it has voted, or its log has begun with data. Who answers a leader has taken
    /// note of his reign first.
    pub fn may_have_answered(&self) -> bool {
        self.term > LeaderEpoch(0) || self.voted_for.is_some() || self.purged.is_some()
    }

    /// The record of a replica whose log is open from now on. A replica may answer for nothing before it is on the medium:
    /// it takes back the mark of the last close, and says whether to trust the tail after a power cut.
    pub fn opened(self, is_durable: bool, boot: BootId) -> GroupState {
        GroupState { is_durable, boot, closed_at: None, ..self }
    }

    /// The record of the same replica when its log is closed: everything up to `log_end` is flushed.
    pub fn closed(self, log_end: Offset) -> GroupState {
        GroupState { closed_at: Some(log_end), ..self }
    }

    /// How its log was stopped, and how far that is flushed, in the form of a single replica's.
    pub fn as_solo(&self) -> SoloState {
        SoloState {
            incarnation: self.replica.incarnation.into(),
            leader_epoch: self.term,
            flushed: self.flushed,
            boot: self.boot,
            closed_at: self.closed_at,
        }
    }
}

/// What is kept of one partition: it is of one kind at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Of the only replica.
    Solo(SoloState),
    /// Of a replica of a group.
    Group(GroupState),
}

impl Kept {
    /// Later lives, and later reigns of one life, are newer.
    pub(super) fn rank(&self) -> (u64, LeaderEpoch) {
        match self {
            Kept::Solo(state) => (state.incarnation, state.leader_epoch),
            Kept::Group(state) => (state.replica.incarnation.into(), state.term),
        }
    }
}

/// A change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The record is this from now on.
    Put(TopicIdPartition, SoloState),
    /// The record is this from now on.
    PutGroup(TopicIdPartition, GroupState),
    /// There is no such log any more.
    Remove(TopicIdPartition),
}

impl Change {
    pub(super) fn of(key: TopicIdPartition, kept: Kept) -> Change {
        match kept {
            Kept::Solo(state) => Change::Put(key, state),
            Kept::Group(state) => Change::PutGroup(key, state),
        }
    }

    pub(super) fn apply(&self, live: &mut BTreeMap<TopicIdPartition, Kept>) {
        match self {
            Change::Put(key, state) => {
                live.insert(*key, Kept::Solo(*state));
            }
            Change::PutGroup(key, state) => {
                live.insert(*key, Kept::Group(state.clone()));
            }
            Change::Remove(key) => {
                live.remove(key);
            }
        }
    }
}
