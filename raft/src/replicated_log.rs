//! The contract of a replicated log, and the two moments of an append.

use std::fmt;
use std::rc::Rc;

use bytes::BytesMut;
use ouzel_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};
use ouzel_storage::{Fenced, Log};

use crate::replica_state::ReplicaState;

/// One replica of a log, as its leader uses it.
///
/// # Order
/// The order of calls to [`ReplicatedLog::append`] is the order of places in the log, whatever order the returned
/// futures are polled in.
///
/// # Offsets
/// `log start <= high watermark <= log end` always; the high watermark never goes back while the replica is open, and
/// nothing at or above it may be shown to a reader.
pub trait ReplicatedLog {
    /// Appends one whole, validated batch.
    ///
    /// Resolves at *moment one*: the place is fixed, offsets and epoch are stamped, and the next batch may be appended.
    /// A batch that its producer sent before answers with the place it had ([`Placed::duplicate`]).
    ///
    /// Dropping the future, or the receipt, takes nothing back.
    ///
    /// # Errors
    /// See [`AppendRefused`]; nothing was appended then.
    fn append(
        &self,
        batch: BytesMut,
        now: TimestampMs,
    ) -> impl Future<Output = Result<Receipt, AppendRefused>> + 'static;

    /// The offsets as they are now.
    fn offsets(&self) -> ReplicaOffsets;

    /// The epoch in which this replica leads.
    fn epoch(&self) -> LeaderEpoch;

    /// The local copy, for reads below the high watermark.
    fn local(&self) -> &Log;
}

/// Where a replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaOffsets {
    /// First readable offset (inclusive).
    pub log_start: Offset,
    /// End of what enough replicas hold, as safely as the log's durability asks (exclusive).
    pub high_watermark: Offset,
    /// The next offset to be given (exclusive end).
    pub log_end: Offset,
}

/// A batch's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// The broker's time if the topic uses it, else none.
    pub log_append_time: TimestampMs,
    /// Whether the batch had this place before: its producer repeated itself.
    pub duplicate: bool,
}

/// The proof of moment one, and the way to wait for more.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Where the batch is.
    pub placed: Placed,
    pub(crate) wait: Wait,
}

#[derive(Clone)]
pub(crate) enum Wait {
    Solo { log: Log, durable: bool },
    Group { state: Rc<ReplicaState>, term: LeaderEpoch },
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::Solo { log, durable } => write!(f, "{log:?}, durable: {durable}"),
            Wait::Group { state, term } => write!(f, "{:?}, epoch {term}", state.log),
        }
    }
}

impl Receipt {
    /// Resolves when the leader's copy is written: no crash of the process loses it any more (acks=1).
    ///
    /// # Errors
    /// See [`Unacknowledged`].
    pub async fn written(&self) -> Result<(), Unacknowledged> {
        match &self.wait {
            Wait::Solo { log, .. } => Ok(log.wait_written(self.placed.last_offset.next()).await?),
            Wait::Group { state, term } => state.wait_written(self.placed.last_offset.next(), *term).await,
        }
    }

    /// Resolves at *moment two*: as many replicas hold the batch, as safely, as the log's durability asks (acks=all).
    ///
    /// # Errors
    /// As [`Receipt::written`].
    pub async fn acknowledged(&self) -> Result<(), Unacknowledged> {
        let end = self.placed.last_offset.next();
        match &self.wait {
            Wait::Solo { log, durable: true } => Ok(log.wait_flushed(end).await?),
            Wait::Solo { log, durable: false } => Ok(log.wait_written(end).await?),
            Wait::Group { state, term } => state.wait_acknowledged(end, *term).await,
        }
    }
}

/// Why a batch that has its place will not be acknowledged here. Whether it survives is unknown: its producer must send
/// it again, and will be told where it is if it did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unacknowledged {
    /// The local log is fenced after a failed write or flush.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// Another replica leads now.
    #[error("leadership was lost before enough replicas had the batch")]
    LeadershipLost,
}

/// Why a batch was not appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefused {
    /// This replica does not lead, or cannot prove it just now.
    #[error("this replica does not lead")]
    NotLeader,
    /// The producer left a gap.
    #[error("producer {producer_id} sent sequence {found}, expected {expected}")]
    OutOfOrderSequence {
        /// Who.
        producer_id: ProducerId,
        /// The next one in order.
        expected: i32,
        /// What came.
        found: i32,
    },
    /// A newer incarnation of the producer has written.
    #[error("producer {producer_id} has epoch {found}, but epoch {current} has written already")]
    StaleProducerEpoch {
        /// Who.
        producer_id: ProducerId,
        /// The newest epoch seen.
        current: ProducerEpoch,
        /// What came.
        found: ProducerEpoch,
    },
    /// The disk is nearly full; reads go on, and appends will once there is room.
    #[error("the disk has less room than the broker keeps free; free some")]
    DiskLow,
    /// The log is fenced.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The batch cannot be in this log, whoever sent it.
    #[error("{0}")]
    Invalid(String),
}

impl AppendRefused {
    /// Whether another log could say otherwise: such a refusal is a leader's alone, for clients take it for final.
    pub(crate) fn depends_on_the_log(&self) -> bool {
        matches!(self, AppendRefused::OutOfOrderSequence { .. } | AppendRefused::StaleProducerEpoch { .. })
    }
}
