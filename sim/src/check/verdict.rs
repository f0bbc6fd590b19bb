//! What the judges say.

use std::fmt;

/// A broken promise: which one, and the facts, in words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Which promise.
    pub kind: Kind,
    /// Who, where, what was expected and what was found.
    pub facts: String,
}

/// The promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One offset, or one offset of one epoch, has held two values.
    TwoValuesAtOneOffset,
    /// A record that was acknowledged as safe is not there.
    LostAcknowledged,
    /// A record that a reader was shown is not there.
    ReadVanished,
    /// A log begins behind what was to be deleted of it.
    DeletedUnasked,
    /// A record is not where its acknowledgement, or a reader, saw it.
    OffsetNotFinal,
    /// An idempotent producer's record is there twice.
    Duplicate,
    /// An idempotent producer's records are not in its order.
    OutOfOrder,
    /// An idempotent producer's record is missing before one that is there.
    SequenceGap,
    /// A record is there that nobody wrote, or whose writing was refused.
    NeverWritten,
    /// A reader was given something else than the next records in order.
    GapInSession,
    /// A reader was given a record at or above the high watermark it was told.
    AboveHighWatermark,
    /// One leader's high watermark, or log start, went back.
    WatermarkWentBack,
    /// A group's commit was acknowledged and is not there.
    LostCommit,
    /// A group was told an offset that it had left behind, without having committed it again.
    CommitWentBack,
    /// In one generation of a group two members were given the same partition.
    TwoOwners,
    /// A member's commit was taken after a newer generation of its group had begun.
    StaleCommit,
    /// One epoch had two leaders.
    TwoLeaders,
    /// Two replicas hold different entries under one entry id, or the same one after different ones.
    LogMismatch,
    /// A leader lacks an entry that was committed before its time.
    LeaderIncomplete,
    /// Two replicas have different entries committed at one index.
    StateMachineMismatch,
    /// A replica's epoch went back.
    EpochWentBack,
    /// A replica gave two votes in one epoch.
    TwoVotes,
    /// A replica's committed index went back while it ran, or it forgot entries it said were safe.
    CommitIndexWentBack,
    /// A replica that may have lost what it acknowledged is counted on as before, and a majority could do without it.
    TrustedTail,
    /// Records are lost that were acknowledged, and no node counts a loss.
    UntoldLoss,
    /// A topic whose creation was acknowledged is not there, or not as it was asked for.
    LostTopic,
    /// A topic whose deletion was acknowledged is there.
    TopicCameBack,
    /// A partition is not where the last move that was acknowledged has put it.
    LostMove,
    /// A client that did everything right was refused with more than a request to try again.
    UnexpectedError,
    /// A healed cluster does not serve.
    NoProgress,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.facts)
    }
}

impl Kind {
    /// Whether this is a broken promise wherever disks keep what was flushed: votes, cuts and Raft's own entries are
    /// flushed whatever the durability of records.
    pub fn is_of_flushed(self) -> bool {
        matches!(self, Kind::TwoLeaders | Kind::TwoVotes | Kind::EpochWentBack | Kind::LogMismatch)
    }
}

/// What was seen and is no violation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records acknowledged with acks=all.
    pub acknowledged_all: u64,
    /// Records acknowledged with acks=1.
    pub acknowledged_leader: u64,
    /// Records that readers were shown.
    pub read: u64,
    /// Records there in the end.
    pub kept: u64,
    /// acks=1 records that are gone, or elsewhere.
    pub lost_acks_leader: u64,
    /// acks=all records that are gone where loss is admitted.
    pub lost_admitted: u64,
    /// Records that were read and are gone where loss is admitted.
    pub vanished_admitted: u64,
    /// Partitions with records of either kind.
    pub partitions_with_loss: u64,
    /// Records of producers without idempotence that are there more than once.
    pub repeated: u64,
    /// Answers of a leader of an older epoch than one the reader had heard before.
    pub stale_answers: u64,
    /// Watermarks that were lower under a newer leader.
    pub watermarks_behind: u64,
    /// Commits of groups that were acknowledged.
    pub commits: u64,
    /// Commits of unknown fate that took effect late.
    pub late_commits: u64,
    /// What members of groups were given, each time.
    pub assignments: u64,
    /// Values of a compacted topic that were acknowledged.
    pub upserts: u64,
    /// Those that are left there in the end.
    pub upserts_left: u64,
}

/// All that the judges say of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// The rest.
    pub counts: Counts,
}

impl Verdict {
    /// Adds a violation.
    pub fn broken(&mut self, kind: Kind, facts: impl Into<String>) {
        self.violations.push(Violation { kind, facts: facts.into() });
    }

    /// Whether a promise of this kind was broken.
    pub fn has(&self, kind: Kind) -> bool {
        self.violations.iter().any(|violation| violation.kind == kind)
    }
}
