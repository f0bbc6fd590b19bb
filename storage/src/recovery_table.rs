//! What to do with a partition's directory at start: one table, every case in it once.
//!
//! The doer in `recovery` looks at the disk and fills [`Observed`]; [`decide`] answers with one [`Decision`]; the doer
//! carries it out, looks again and asks again, until the answer is one of the three that end it: open the log, fence the
//! partition, or be done with deleting it. One step at a time keeps every crash during recovery harmless: the next start
//! sees a state that is in the table too. A test walks all combinations to see that each has exactly one row (or cannot
//! be), and that none goes in circles.
//!
//! The rule behind the rows: what was flushed is never dropped and never silently; what was not flushed may be cut, but
//! only where a power cut explains the damage. Bytes that were written and then lost nothing but their process are still
//! in the page cache (`same boot`), so damage there is damage.

use std::fmt;
use std::path::PathBuf;

use ouzel_model::Offset;

/// What the doer saw. Everything here can be found out without changing a byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// How the last process that had this log open ended, see [`Stop`].
    pub stop: Stop,
    /// Exclusive end of what is known to be on the medium: the largest of the write-ahead file's hint, the recovery
    /// point checkpoint and, after a clean stop, the log end of the mark. The log start offset if nothing is known.
    pub flushed: Offset,
    /// What walking the batches gave; `None` until it was done. After a clean stop a short walk from the last index
    /// entry is enough; after any other, the walk begins where [`Action::ScanFrom`] says.
    pub scan: Option<Scan>,
    /// The worst of the sealed segments' index files.
    pub index: Index,
    /// Whether a roll was under way.
    pub roll: Roll,
    /// Whether a deletion was under way.
    pub deletion: Deletion,
    /// Whether compaction was putting a segment in the place of others.
    pub swap: Swap,
    /// How the checkpoints (leader epochs, log start offset) relate to the log.
    pub checkpoint: Checkpoint,
}

/// The result of walking batches up to the first that is not whole, or to the end of the last file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Offset behind the last whole batch.
    pub end: Offset,
    /// The file in which the walk ended.
    pub file: PathBuf,
    /// Where in it: behind the last whole batch.
    pub position: u64,
    /// What ended the walk; `None` at the end of the last file.
    pub damage: Option<Damage>,
    /// The largest offset (exclusive) that another file speaks of: index entries, producer snapshots, names of later
    /// segments. Larger than `end` when the log was longer once.
    pub witnessed_end: Offset,
}

/// Bytes that are not the batch that should stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// In which way.
    pub kind: DamageKind,
    /// What should be there, in words ("batch with base offset 70").
    pub expected: String,
    /// What is there instead.
    pub found: String,
}

/// The ways a batch can fail to be whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The file ends inside the batch.
    Torn,
    /// All bytes from here to the end of the file are zero.
    Zeroes,
    /// Wrong length, magic or CRC.
    Flipped,
    /// A sound batch with the wrong base offset, or of an older leader epoch than the one before it.
    OutOfOrder,
}

/// How the process that had the log open last ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It left a mark in the write-ahead file, and the log ends where the mark says. A mark that disagrees with the log
    /// is no mark: see `wal::stop_of`.
    Clean,
    /// No mark, but the kernel has run on since: all that was written is still there.
    UncleanSameBoot,
    /// No mark and another boot: of the unflushed bytes any part may be missing.
    UncleanOtherBoot,
    /// No word of this log in any write-ahead file: just created, or brought from elsewhere.
    Unknown,
}

/// [`Scan`] against [`Observed::flushed`]: whether the first bad byte lies above the flushed offset or below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nobody has looked yet.
    Unread,
    /// Whole batches up to the end, and no file speaks of more.
    Whole,
    /// The last batch is cut short; all flushed ones are there.
    TornAbove,
    /// A flushed batch is cut short.
    TornBelow,
    /// The log ends between two batches before an offset another file speaks of; all flushed ones are there.
    LostAbove,
    /// The log ends between two batches before the flushed offset.
    LostBelow,
    /// Zeroes up to the end of the file, behind all flushed batches.
    ZeroesAbove,
    /// Zeroes where flushed data was.
    ZeroesBelow,
    /// A bad batch behind all flushed ones.
    FlippedAbove,
    /// A bad batch among the flushed ones.
    FlippedBelow,
    /// A batch out of order behind all flushed ones.
    OutOfOrderAbove,
    /// A batch out of order among the flushed ones.
    OutOfOrderBelow,
}

/// The state of the sealed segments' `.index` and `.timeindex`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// All there, and their last entries agree with the batches they point at.
    Good,
    /// A file is not there.
    Missing,
    /// A file ends before its segment does, or its size is no multiple of an entry.
    Stale,
    /// An entry points at no batch, or at another one.
    Lying,
}

/// Whether a roll was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roll {
    /// No roll was under way.
    Complete,
    /// The segment that was sealed lacks its `.snapshot`, or the new one's files are there in part, or index files stand
    /// there without a `.log`.
    HalfDone,
}

/// Whether a deletion was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// No deletion was under way.
    None,
    /// Single segments: files that end in `.deleted`.
    OfSegments,
    /// The whole partition: the directory's name ends in `-delete`.
    OfPartition,
}

/// Whether compaction was interrupted while it wrote a segment, or put it in the place of those it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Neither.
    None,
    /// Files that end in `.cleaned`, or `.swap` without the `.log.swap` that decides: the old segments are the log.
    Undecided,
    /// A `.log.swap`: it is whole, flushed, and the log; what it was made from may be gone already.
    Decided,
}

/// How the checkpoints relate to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// They say what the log says.
    Consistent,
    /// They miss epochs the log's batches carry.
    Older,
    /// They speak of offsets the log does not reach.
    Newer,
    /// Not there.
    Missing,
    /// There, but not readable.
    Unreadable,
}

/// [`Observed`] with everything but the decision's grounds left out: one point of the table's space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// See [`Stop`].
    pub stop: Stop,
    /// See [`Tail`].
    pub tail: Tail,
    /// See [`Index`].
    pub index: Index,
    /// See [`Roll`].
    pub roll: Roll,
    /// See [`Deletion`].
    pub deletion: Deletion,
    /// See [`Swap`].
    pub swap: Swap,
    /// See [`Checkpoint`].
    pub checkpoint: Checkpoint,
}

/// The one thing to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the log as it is. Ends recovery.
    Trust,
    /// Flush every file of the log and its directory, then open it: nothing may be shown to a reader, or built upon, that
    /// a power cut could still take. Ends recovery.
    FlushThenTrust,
    /// Walk all batches from the start of the segment that holds this offset, checking CRC and order, to the end.
    ScanFrom(Offset),
    /// Cut `file` at `position`, remove all later segments, producer snapshots and index entries at or behind `end`,
    /// and flush what was cut.
    TruncateTail {
        /// The file in which the good bytes end.
        file: PathBuf,
        /// Where.
        position: u64,
        /// The log end offset from then on.
        end: Offset,
    },
    /// Write the sealed segment's indexes and snapshot, and make the new segment's files whole.
    FinishRoll,
    /// Write the indexes of sealed segments anew from their batches.
    RebuildIndexes,
    /// Make the checkpoints say what the log says: take missing epochs from the batches, drop what lies at or behind the
    /// log end.
    RewriteCheckpoints,
    /// Remove the files that end in `.deleted`.
    FinishSegmentDeletion,
    /// Remove the files of a segment that compaction has not finished.
    UndoSwap,
    /// Put compacted segments in the place of those they were made from.
    FinishSwap,
    /// Remove the directory. Ends recovery: there is no partition.
    FinishDeletion,
    /// Serve nothing of this partition, change nothing in its directory, tell the operator. Ends recovery.
    FencePartition(FenceReason),
}

/// Why a partition cannot be opened: where, what should be there, and what is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceReason {
    /// The damaged file.
    pub file: PathBuf,
    /// Where in it.
    pub position: u64,
    /// The first offset that cannot be read.
    pub offset: Offset,
    /// Exclusive end of what was known to be on the medium.
    pub flushed: Offset,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for FenceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, position, offset, flushed, expected, found } = self;
        write!(
            f,
            "{} is damaged at position {position} (offset {offset}, flushed up to {flushed}): expected {expected}, found {found}",
            file.display()
        )
    }
}

/// A row's answer for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The row's name, for logs and tests.
    pub label: &'static str,
    /// What to do.
    pub action: Action,
}

/// Looks the observation up in the table.
///
/// # Panics
/// If [`Observed::stop`] is [`Stop::Clean`] though the walk did not end well: whoever fills it in must not believe such
/// a mark.
pub fn decide(observed: &Observed) -> Decision {
    let situation = observed.situation();
    let row = ROWS.iter().find(|row| row.matches(&situation));
    let Some(row) = row else { panic!("a clean stop was claimed for a log that is not whole: {observed:?}") };
    Decision { label: row.label, action: observed.carry_out(row.step) }
}

impl Observed {
    /// The point of the table this observation falls on.
    pub fn situation(&self) -> Situation {
        let Observed { stop, index, roll, deletion, swap, checkpoint, .. } = *self;
        Situation { stop, tail: self.tail(), index, roll, deletion, swap, checkpoint }
    }

    fn tail(&self) -> Tail {
        let Some(scan) = &self.scan else { return Tail::Unread };
        let below = scan.end < self.flushed;
        let kind = scan.damage.as_ref().map(|damage| damage.kind);
        match (kind, below) {
            (None, true) => Tail::LostBelow,
            (None, false) if scan.end < scan.witnessed_end => Tail::LostAbove,
            (None, false) => Tail::Whole,
            (Some(DamageKind::Torn), false) => Tail::TornAbove,
            (Some(DamageKind::Torn), true) => Tail::TornBelow,
            (Some(DamageKind::Zeroes), false) => Tail::ZeroesAbove,
            (Some(DamageKind::Zeroes), true) => Tail::ZeroesBelow,
            (Some(DamageKind::Flipped), false) => Tail::FlippedAbove,
            (Some(DamageKind::Flipped), true) => Tail::FlippedBelow,
            (Some(DamageKind::OutOfOrder), false) => Tail::OutOfOrderAbove,
            (Some(DamageKind::OutOfOrder), true) => Tail::OutOfOrderBelow,
        }
    }

    /// Gives a step what it needs of the observation.
    fn carry_out(&self, step: Step) -> Action {
        match step {
            Step::Trust => Action::Trust,
            Step::FlushThenTrust => Action::FlushThenTrust,
            Step::Scan => Action::ScanFrom(self.flushed),
            Step::Truncate => {
                let Scan { end, file, position, .. } = self.scanned();
                Action::TruncateTail { file: file.clone(), position: *position, end: *end }
            }
            Step::FinishRoll => Action::FinishRoll,
            Step::RebuildIndexes => Action::RebuildIndexes,
            Step::RewriteCheckpoints => Action::RewriteCheckpoints,
            Step::FinishSegmentDeletion => Action::FinishSegmentDeletion,
            Step::UndoSwap => Action::UndoSwap,
            Step::FinishSwap => Action::FinishSwap,
            Step::FinishDeletion => Action::FinishDeletion,
            Step::Fence => Action::FencePartition(self.fence_reason()),
        }
    }

    fn fence_reason(&self) -> FenceReason {
        let scan = self.scanned();
        let (expected, found) = match &scan.damage {
            Some(damage) => (damage.expected.clone(), damage.found.clone()),
            None => (
                format!("batches up to offset {}", self.flushed),
                format!("the end of the log at {}", scan.end),
            ),
        };
        let (file, position, offset) = (scan.file.clone(), scan.position, scan.end);
        FenceReason { file, position, offset, flushed: self.flushed, expected, found }
    }

    fn scanned(&self) -> &Scan {
        match &self.scan {
            Some(scan) => scan,
            None => unreachable!("rows that look at the tail do not match an unread one"),
        }
    }
}

/// An [`Action`] without its particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Trust,
    FlushThenTrust,
    Scan,
    Truncate,
    FinishRoll,
    RebuildIndexes,
    RewriteCheckpoints,
    FinishSegmentDeletion,
    UndoSwap,
    FinishSwap,
    FinishDeletion,
    Fence,
}

/// A row matches where each of its lists holds the situation's value; an empty list holds all. Rows do not depend on
/// their order: no situation matches two of them.
struct Row {
    label: &'static str,
    step: Step,
    stop: &'static [Stop],
    tail: &'static [Tail],
    index: &'static [Index],
    roll: &'static [Roll],
    deletion: &'static [Deletion],
    swap: &'static [Swap],
    checkpoint: &'static [Checkpoint],
}

impl Row {
    fn matches(&self, situation: &Situation) -> bool {
        fn holds<T: PartialEq>(list: &[T], value: T) -> bool {
            list.is_empty() || list.contains(&value)
        }
        holds(self.stop, situation.stop)
            && holds(self.tail, situation.tail)
            && holds(self.index, situation.index)
            && holds(self.roll, situation.roll)
            && holds(self.deletion, situation.deletion)
            && holds(self.swap, situation.swap)
            && holds(self.checkpoint, situation.checkpoint)
    }

    /// A row about a partition that is not being deleted, and about its tail alone.
    const fn of_tail(label: &'static str, step: Step, stop: &'static [Stop], tail: &'static [Tail]) -> Row {
        let (deletion, swap) = (NOT_DELETED, NOT_SWAPPED);
        Row { label, step, stop, tail, index: &[], roll: &[], deletion, swap, checkpoint: &[] }
    }

    /// A row about what stands in the directory and is not the log.
    const fn of_leavings(
        label: &'static str,
        step: Step,
        deletion: &'static [Deletion],
        swap: &'static [Swap],
    ) -> Row {
        Row { label, step, stop: &[], tail: &[], index: &[], roll: &[], deletion, swap, checkpoint: &[] }
    }

    /// A row about a partition whose tail is whole.
    const fn of_whole(label: &'static str, step: Step, stop: &'static [Stop]) -> Row {
        Row::of_tail(label, step, stop, &[Tail::Whole])
    }
}

const NOT_DELETED: &[Deletion] = &[Deletion::None];
const NOT_SWAPPED: &[Swap] = &[Swap::None];
const UNCLEAN: &[Stop] = &[Stop::UncleanSameBoot, Stop::UncleanOtherBoot, Stop::Unknown];
/// Where a power cut may explain what is missing. A log nobody knows is one: its last writer's machine may have lost power.
const MAY_HAVE_LOST: &[Stop] = &[Stop::UncleanOtherBoot, Stop::Unknown];
const SAME_BOOT: &[Stop] = &[Stop::UncleanSameBoot];
const ROLLED: &[Roll] = &[Roll::Complete];
const INDEXED: &[Index] = &[Index::Good];

/// The table, in the order in which a start works through it: deletions, compactions, the tail, the roll, indexes, checkpoints.
const ROWS: &[Row] = &[
    Row::of_leavings(
        "half-done deletion of the partition",
        Step::FinishDeletion,
        &[Deletion::OfPartition],
        &[],
    ),
    Row::of_leavings(
        "half-done deletion of segments",
        Step::FinishSegmentDeletion,
        &[Deletion::OfSegments],
        &[],
    ),
    // Before anything is walked: the walk is to meet the segments that the log is made of.
    Row::of_leavings("unfinished compaction", Step::UndoSwap, NOT_DELETED, &[Swap::Undecided]),
    Row::of_leavings(
        "compacted segment not yet in its place",
        Step::FinishSwap,
        NOT_DELETED,
        &[Swap::Decided],
    ),
    Row::of_tail("unclean stop, tail unread", Step::Scan, UNCLEAN, &[Tail::Unread]),
    Row::of_tail("a flushed batch is cut short", Step::Fence, UNCLEAN, &[Tail::TornBelow]),
    Row::of_tail("the log ends before the flushed offset", Step::Fence, UNCLEAN, &[Tail::LostBelow]),
    Row::of_tail("zeroes where flushed data was", Step::Fence, UNCLEAN, &[Tail::ZeroesBelow]),
    Row::of_tail("flipped bit below the flushed offset", Step::Fence, UNCLEAN, &[Tail::FlippedBelow]),
    Row::of_tail("order broken below the flushed offset", Step::Fence, UNCLEAN, &[Tail::OutOfOrderBelow]),
    // Appends of one log are written one after the other, so a killed process leaves a prefix of them: a batch cut short
    // was never acknowledged in any mode.
    Row::of_tail("unfinished write of a killed process", Step::Truncate, SAME_BOOT, &[Tail::TornAbove]),
    // A truncation cuts the log first; what speaks of more was to be cut next.
    Row::of_tail("unfinished truncation of a killed process", Step::Truncate, SAME_BOOT, &[Tail::LostAbove]),
    Row::of_tail(
        "damage to unflushed data that no kill explains",
        Step::Fence,
        SAME_BOOT,
        &[Tail::ZeroesAbove, Tail::FlippedAbove, Tail::OutOfOrderAbove],
    ),
    Row::of_tail("torn last batch", Step::Truncate, MAY_HAVE_LOST, &[Tail::TornAbove]),
    Row::of_tail("lost unflushed tail", Step::Truncate, MAY_HAVE_LOST, &[Tail::LostAbove]),
    Row::of_tail("zeroes where unflushed data was", Step::Truncate, MAY_HAVE_LOST, &[Tail::ZeroesAbove]),
    Row::of_tail(
        "flipped bit above the flushed offset",
        Step::Truncate,
        MAY_HAVE_LOST,
        &[Tail::FlippedAbove],
    ),
    Row::of_tail(
        "order broken above the flushed offset",
        Step::Truncate,
        MAY_HAVE_LOST,
        &[Tail::OutOfOrderAbove],
    ),
    Row { roll: &[Roll::HalfDone], ..Row::of_whole("half-done roll", Step::FinishRoll, &[]) },
    Row {
        roll: ROLLED,
        index: &[Index::Missing],
        ..Row::of_whole("missing index", Step::RebuildIndexes, &[])
    },
    Row { roll: ROLLED, index: &[Index::Stale], ..Row::of_whole("stale index", Step::RebuildIndexes, &[]) },
    Row { roll: ROLLED, index: &[Index::Lying], ..Row::of_whole("lying index", Step::RebuildIndexes, &[]) },
    Row {
        roll: ROLLED,
        index: INDEXED,
        checkpoint: &[Checkpoint::Newer],
        ..Row::of_whole("checkpoint newer than the data", Step::RewriteCheckpoints, &[])
    },
    Row {
        roll: ROLLED,
        index: INDEXED,
        checkpoint: &[Checkpoint::Older],
        ..Row::of_whole("checkpoint older than the data", Step::RewriteCheckpoints, &[])
    },
    Row {
        roll: ROLLED,
        index: INDEXED,
        checkpoint: &[Checkpoint::Missing, Checkpoint::Unreadable],
        ..Row::of_whole("no checkpoint to read", Step::RewriteCheckpoints, &[])
    },
    Row {
        roll: ROLLED,
        index: INDEXED,
        checkpoint: &[Checkpoint::Consistent],
        ..Row::of_whole("clean stop", Step::Trust, &[Stop::Clean])
    },
    Row {
        roll: ROLLED,
        index: INDEXED,
        checkpoint: &[Checkpoint::Consistent],
        ..Row::of_whole("unclean stop, all whole", Step::FlushThenTrust, UNCLEAN)
    },
];

#[cfg(test)]
mod tests;
