//! A run as its clients saw it: what they asked, when, and what they were answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ouzel_model::{LeaderEpoch, Offset};

use super::newest::Upsert;

/// A record's content. Every record that a client writes has one of its own; sending it again does not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

/// A partition of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u32);

/// One life of one producer: with idempotence, one producer id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerLife(pub u64);

/// One reader from a position on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u32);

/// All that the clients of a run saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What was written.
    pub produced: Vec<Produced>,
    /// What was read, in the order of the answers.
    pub fetched: Vec<Fetched>,
    /// What groups committed, in the order of the requests.
    pub committed: Vec<Committed>,
    /// What members of groups were given, in the order of the answers.
    pub owned: Vec<Owned>,
    /// What groups were told they had committed, in the order of the answers.
    pub asked: Vec<Asked>,
    /// What is there in the end, when all is healed; a partition that is missing is judged by its readers alone.
    pub partitions: BTreeMap<PartitionId, Final>,
    /// What the only writer of a compacted topic wrote, in order.
    pub upserts: Vec<Upsert>,
    /// What that topic holds in the end.
    pub compacted: Option<Final>,
    /// Partitions where loss of what acks=all and reads promise is forgiven: the machines of a majority of their replicas
    /// lost their power, and they do not flush first; or disks lied. Such a one need not be there in the end.
    pub forgiven_partitions: BTreeSet<PartitionId>,
    /// Whether disks lied: who forgets all it had flushed may give an offset of an epoch again.
    pub have_disks_lied: bool,
    /// Whether loss is forgiven in the compacted topic.
    pub is_compacted_forgiven: bool,
    /// Groups whose commits are in partitions where loss is forgiven.
    pub forgiven_groups: BTreeSet<u32>,
}

impl History {
    /// The partitions that somebody wrote to.
    pub fn written_to(&self) -> BTreeSet<PartitionId> {
        self.produced.iter().map(|produced| produced.partition).collect()
    }
}

/// When a request was sent, and when its answer came or was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Sent, in virtual time since the start.
    pub begun: Duration,
    /// Answered or given up.
    pub ended: Duration,
}

/// What came of a request that may have been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was, and this is the answer.
    Done(T),
    /// It was refused, and had no effect.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// How much an answer promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Nothing is answered.
    None,
    /// The leader has written it.
    Leader,
    /// As many replicas hold it, as safely, as the durability asks.
    All,
}

/// One batch and all attempts to write it.
#[derive(Clone, Debug)]
pub struct Produced {
    /// From the first attempt to the last word.
    pub span: Span,
    /// Where to.
    pub partition: PartitionId,
    /// Who.
    pub producer: ProducerLife,
    /// Whether it is idempotent: attempts are told apart from new batches.
    pub idempotent: bool,
    /// Number of the first value among all that this life of the producer wrote to the partition, from 0.
    pub sequence: u64,
    /// What, in order.
    pub values: Vec<Value>,
    /// What an answer promises.
    pub acks: Acks,
    /// The place of the first value, if it was told.
    pub outcome: Outcome<Place>,
}

/// Where a batch was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Offset of its first record.
    pub base: Offset,
    /// The leader's epoch when it put it there, where known; none for a repeat of what was there already.
    pub epoch: Option<LeaderEpoch>,
}

/// One answer to a fetch.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// When.
    pub span: Span,
    /// Where from.
    pub partition: PartitionId,
    /// Who.
    pub session: Session,
    /// The position asked for.
    pub from: Offset,
    /// The records at and after it, with the epochs they are stamped with.
    pub records: Vec<(Offset, Value, LeaderEpoch)>,
    /// First readable offset, as told.
    pub log_start: Offset,
    /// End of what may be read, as told.
    pub high_watermark: Offset,
    /// The epoch of the leader that answered, where known.
    pub epoch: Option<LeaderEpoch>,
}

/// A group's commit of its progress on one partition. Who owns it commits, one commit at a time.
#[derive(Clone, Debug)]
pub struct Committed {
    /// When.
    pub span: Span,
    /// Which group.
    pub group: u32,
    /// The generation of the member; -1 of a group without members.
    pub generation: i32,
    /// Progress where.
    pub partition: PartitionId,
    /// The next offset it will read.
    pub offset: Offset,
    /// Whether it was taken.
    pub outcome: Outcome<()>,
}

/// What a member of a group was given: from the answer on it is the owner.
#[derive(Clone, Debug)]
pub struct Owned {
    /// When.
    pub span: Span,
    /// Which group.
    pub group: u32,
    /// In which generation.
    pub generation: i32,
    /// Who.
    pub member: String,
    /// What.
    pub partitions: Vec<PartitionId>,
}

/// An answer to the question how far a group is.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When.
    pub span: Span,
    /// Which group.
    pub group: u32,
    /// Progress where.
    pub partition: PartitionId,
    /// The answer; none if it has not committed.
    pub offset: Option<Offset>,
}

/// What a partition holds in the end.
#[derive(Clone, Debug, Default)]
pub struct Final {
    /// First readable offset.
    pub log_start: Offset,
    /// Up to where the log may begin: whoever runs the cluster had records below it deleted, or all that are old.
    pub log_start_max: Offset,
    /// End of what may be read.
    pub high_watermark: Offset,
    /// All that is readable, in order.
    pub records: Vec<(Offset, Value, LeaderEpoch)>,
}

impl Final {
    /// Whether nobody is to find what was at an offset: it is below where the log begins, and may.
    pub fn is_deleted(&self, offset: Offset) -> bool {
        offset < self.log_start.min(self.log_start_max)
    }
}
