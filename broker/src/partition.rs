//! One partition on this node, owned by one core.
//!
//! Split by question: [`leadership`] says who may write, [`append`] what may enter, `head` what goes, [`waiters`] who
//! waits, [`housekeeping`] when to roll, retain, compact and checkpoint; the log itself, and its epoch, are the replicated
//! log's. This file only routes, and keeps the one setter of the published offsets.

pub mod append;
mod head;
pub mod housekeeping;
pub mod leadership;
pub mod waiters;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ouzel_metadata::TopicConfig;
use ouzel_model::batch::Header;
use ouzel_model::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, ReplicaId, TimestampMs, TopicIdPartition, TopicPartition,
};
use ouzel_raft::{GroupSettings, Placed, Replica, ReplicaOffsets, ReplicatedLog, Unacknowledged};
use ouzel_storage::{Log, LogConfig, ReadError, Slice};
use ouzel_sync::published::{OffsetSnapshot, OffsetsWriter};

use crate::metrics::PartitionSample;
use crate::partitions::Appends;

use leadership::OnStanding;
use waiters::{Waiter, Waiters};

/// How safe a batch must be before its producer hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// The producer does not listen.
    None,
    /// Written by the leader.
    Leader,
    /// As safe as the topic's durability asks, on as many replicas as must be in sync.
    All,
}

impl Acks {
    /// The wire's -1, 0, 1.
    pub fn from_wire(acks: i16) -> Option<Acks> {
        match acks {
            -1 => Some(Acks::All),
            0 => Some(Acks::None),
            1 => Some(Acks::Leader),
            _ => None,
        }
    }
}

/// A batch that is in, as its producer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// The broker's time if the topic uses it, else none.
    pub log_append_time: TimestampMs,
    /// First offset of the log.
    pub log_start: Offset,
}

/// Why a batch is not in, or not known to be safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefused {
    /// The partition is not, or no longer, on this core.
    #[error("this broker does not lead the partition")]
    NotHere,
    /// The producer left a gap.
    #[error(
        "Out of order sequence number for producer {producer_id}: {found} (incoming), expected {expected}"
    )]
    OutOfOrderSequence {
        /// Who.
        producer_id: ProducerId,
        /// The next in order.
        expected: i32,
        /// What came.
        found: i32,
    },
    /// A newer incarnation of the producer has written.
    #[error("Epoch {found} of producer {producer_id} is smaller than the last seen epoch {current}")]
    StaleProducerEpoch {
        /// Who.
        producer_id: ProducerId,
        /// The newest seen.
        current: ProducerEpoch,
        /// What came.
        found: ProducerEpoch,
    },
    /// Too few replicas for acks=all.
    #[error(
        "acks=all needs {wanted} replicas in sync (min.insync.replicas) and a majority, of the old and of the new \
         ones during a move; there is {there}"
    )]
    NotEnoughReplicas {
        /// The topic's minimum.
        wanted: i32,
        /// In sync now.
        there: i32,
    },
    /// Not as safe as asked within the request's time; it may become so.
    #[error("the batch was not acknowledged within the request's timeout")]
    TimedOut,
    /// The disk is nearly full.
    #[error("the disk is nearly full; free some room, appends go on by themselves then")]
    DiskLow,
    /// The log is fenced, in words.
    #[error("{0}")]
    Storage(String),
}

/// How far a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
}

/// A read of one partition.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Where to begin.
    pub from: Offset,
    /// About how much.
    pub bytes_max: usize,
    /// Whether a first batch larger than that is given all the same.
    pub at_least_one: bool,
    /// How far.
    pub isolation: Isolation,
    /// The epoch the reader believes in.
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// The epoch of the last record the reader has.
    pub last_fetched_epoch: Option<LeaderEpoch>,
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Read {
    /// Whole batches; the first one holds the offset asked for.
    pub slices: Vec<Slice>,
    /// Their bytes together.
    pub bytes: usize,
    /// Exclusive.
    pub high_watermark: Offset,
    /// Exclusive.
    pub last_stable: Offset,
    /// Inclusive.
    pub log_start: Offset,
    /// As asked.
    pub isolation: Isolation,
    /// The reader's log diverges: its last epoch ended here.
    pub diverging: Option<(LeaderEpoch, Offset)>,
}

/// Why nothing was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadRefused {
    /// The partition is not, or no longer, on this core.
    #[error("this broker does not lead the partition")]
    NotHere,
    /// Below the log's start or above its end; or the reader's last epoch is one that this log has not come to.
    #[error("offset {from} is outside the log [{log_start}, {log_end}]")]
    OutOfRange {
        /// Asked for.
        from: Offset,
        /// Inclusive.
        log_start: Offset,
        /// Exclusive.
        log_end: Offset,
        /// Exclusive.
        high_watermark: Offset,
    },
    /// The reader believes in an older leader.
    #[error("the partition has a newer leader epoch")]
    FencedEpoch,
    /// The reader knows of a newer leader than this one.
    #[error("the partition has not reached that leader epoch")]
    UnknownEpoch,
    /// The disk, in words.
    #[error("{0}")]
    Storage(String),
}

/// What ListOffsets asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The end a reader may see.
    Latest,
    /// The log start.
    Earliest,
    /// The first record of the largest timestamp.
    MaxTimestamp,
    /// The first record at or after a time.
    AtTime(TimestampMs),
    /// What only a tiered log has.
    Nothing,
}

/// What ListOffsets answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAnswer {
    /// The offset, or none.
    pub offset: Offset,
    /// The record's timestamp; none for the ends of the log.
    pub timestamp: TimestampMs,
    /// The record's epoch.
    pub leader_epoch: LeaderEpoch,
}

/// What went through a partition, for the metrics; counted by its core alone.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Record bytes appended.
    pub bytes_in: Cell<u64>,
    /// Records appended.
    pub records_in: Cell<u64>,
    /// Record bytes read by fetches.
    pub bytes_out: Cell<u64>,
    /// Records read by fetches: whole batches, so with those before the offset asked for.
    pub records_out: Cell<u64>,
}

/// A batch on its way to its place; the order of places is fixed already.
type Placing =
    std::pin::Pin<Box<dyn Future<Output = Result<ouzel_raft::Receipt, ouzel_raft::AppendRefused>>>>;

/// One partition.
pub struct Partition {
    at: TopicIdPartition,
    topic_partition: TopicPartition,
    replica: ReplicaId,
    log: Replica,
    tells: Tells,
    /// None once it is retired.
    published: RefCell<Option<OffsetsWriter>>,
    /// As last published.
    seen_high_watermark: Cell<Offset>,
    /// As last noted.
    seen_log_end: Cell<Offset>,
    waiters: Waiters,
    config: RefCell<Arc<TopicConfig>>,
    /// The group is being told what it may let go of.
    is_letting_go: Cell<bool>,
    /// The epoch and the number in sync when it was last seen to lead here: what is counted is what changed.
    counted: Cell<Option<(LeaderEpoch, usize)>>,
    /// Counters.
    pub traffic: Rc<Traffic>,
}

/// What others see of a partition, whatever it is inside.
pub(crate) struct Shown {
    pub(crate) offsets: OffsetsWriter,
    pub(crate) traffic: Rc<Traffic>,
}

/// Whom a partition tells of itself.
pub(crate) struct Tells {
    pub(crate) appends: Rc<Appends>,
    pub(crate) on_standing: OnStanding,
}

impl From<OffsetsWriter> for Shown {
    fn from(offsets: OffsetsWriter) -> Shown {
        Shown { offsets, traffic: Rc::default() }
    }
}

impl Partition {
    /// Takes an open log into service: publishes its offsets, now and at each of its steps.
    pub(crate) fn new(
        at: TopicIdPartition,
        topic_partition: TopicPartition,
        replica: ReplicaId,
        log: Replica,
        shown: impl Into<Shown>,
        config: Arc<TopicConfig>,
        tells: Tells,
    ) -> Rc<Partition> {
        let Shown { offsets, traffic } = shown.into();
        let log_end = log.offsets().log_end;
        let partition = Rc::new(Partition {
            at,
            topic_partition,
            replica,
            log,
            tells,
            published: RefCell::new(Some(offsets)),
            seen_high_watermark: Cell::new(Offset::NONE),
            seen_log_end: Cell::new(log_end),
            waiters: Waiters::default(),
            config: RefCell::new(config),
            is_letting_go: Cell::new(false),
            counted: Cell::new(None),
            traffic,
        });
        let weak = Rc::downgrade(&partition);
        partition.log.on_progress(move || {
            if let Some(partition) = weak.upgrade() {
                partition.publish();
            }
        });
        let weak = Rc::downgrade(&partition);
        if let Some(group) = partition.group() {
            group.on_change(move || {
                if let Some(partition) = weak.upgrade() {
                    partition.standing_changed();
                }
            });
        }
        partition.standing_changed();
        partition
    }

    /// Takes it out of service, for another one to take its place: nothing is appended or read here any more, and everybody
    /// who waits looks again. `None` if it is out of service already.
    pub(crate) fn retire(&self) -> Option<Shown> {
        let offsets = self.published.borrow_mut().take()?;
        self.waiters.wake_all();
        Some(Shown { offsets, traffic: self.traffic.clone() })
    }

    /// Whether another one takes its place.
    fn is_retired(&self) -> bool {
        self.published.borrow().is_none()
    }

    /// Its identity.
    pub fn at(&self) -> &TopicIdPartition {
        &self.at
    }

    /// Its name.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    /// First readable offset.
    pub fn log_start(&self) -> Offset {
        self.log.offsets().log_start
    }

    /// End of what is committed.
    pub fn committed_end(&self) -> Offset {
        self.log.offsets().high_watermark
    }

    /// Next offset to be given.
    pub fn log_end(&self) -> Offset {
        self.log.offsets().log_end
    }

    /// Largest batch it takes.
    pub fn batch_bytes_max(&self) -> usize {
        self.config.borrow().max_message_bytes as usize
    }

    /// The reign this replica knows of.
    pub fn epoch(&self) -> LeaderEpoch {
        self.log.epoch()
    }

    /// The local log.
    pub(crate) fn log_handle(&self) -> Log {
        self.log.local().clone()
    }

    /// Its topic's settings.
    pub(crate) fn config(&self) -> Arc<TopicConfig> {
        self.config.borrow().clone()
    }

    /// End of what may not change any more (exclusive): compaction goes no further.
    pub(crate) fn last_stable(&self) -> Offset {
        // Without transactions everything below the high watermark is stable.
        self.log.offsets().high_watermark
    }

    /// Whether these are its settings already.
    pub(crate) fn has_config(&self, config: &TopicConfig) -> bool {
        **self.config.borrow() == *config
    }

    /// Takes new settings: the topic's, and what follows from them for the log.
    pub(crate) fn set_config(
        &self,
        config: Arc<TopicConfig>,
        log_config: LogConfig,
        group_settings: GroupSettings,
    ) {
        self.log.local().set_config(log_config);
        match &self.log {
            Replica::Solo(solo) => solo.set_durability(housekeeping::durability(config.durability)),
            Replica::Group(group) => group.set_settings(group_settings),
        }
        *self.config.borrow_mut() = config;
        self.publish();
    }

    /// The one setter of the offsets other cores see. Wakes the parked fetches when the high watermark has moved.
    fn publish(&self) {
        let ReplicaOffsets { log_start, high_watermark, log_end } = self.log.offsets();
        // Without transactions everything below the high watermark is stable.
        let last_stable = high_watermark;
        assert!(
            log_start <= last_stable && last_stable <= high_watermark && high_watermark <= log_end,
            "{}: the chain of offsets is broken: {log_start} <= {last_stable} <= {high_watermark} <= {log_end}",
            self.topic_partition
        );
        if let Some(published) = &mut *self.published.borrow_mut() {
            published.store(OffsetSnapshot {
                log_start: log_start.value(),
                last_stable: last_stable.value(),
                high_watermark: high_watermark.value(),
                log_end: log_end.value(),
                leader_epoch: self.log.epoch().value(),
            });
        }
        if self.seen_log_end.replace(log_end) < log_end {
            self.tells.appends.note();
        }
        if self.seen_high_watermark.replace(high_watermark) != high_watermark {
            self.waiters.wake_all();
        }
    }

    /// Fixes a batch's place before it returns; the future resolves when the batch is as safe as `acks` asks.
    ///
    /// # Errors
    /// See [`AppendRefused`].
    pub fn append(
        self: &Rc<Self>,
        batch: BytesMut,
        acks: Acks,
        now: TimestampMs,
    ) -> impl Future<Output = Result<Appended, AppendRefused>> + use<> {
        let partition = self.clone();
        let bytes = batch.len() as u64;
        let placing = self.place(batch, acks, now);
        async move {
            let receipt = placing?.await.map_err(AppendRefused::from)?;
            partition.count_placed(&receipt.placed, bytes);
            match acks {
                // Nobody waits for acks=0 but the request's memory: it is given back when the batch holds none any more.
                Acks::None | Acks::Leader => {
                    receipt.written().await?;
                }
                Acks::All => {
                    receipt.acknowledged().await?;
                }
            }
            Ok(Appended {
                base_offset: receipt.placed.base_offset,
                log_append_time: receipt.placed.log_append_time,
                log_start: partition.log_start(),
            })
        }
    }

    fn place(&self, batch: BytesMut, acks: Acks, now: TimestampMs) -> Result<Placing, AppendRefused> {
        let refused = match acks {
            _ if !self.may_append() => Some(AppendRefused::NotHere),
            // Whom it does not concern has nobody counted.
            Acks::All if self.leads() => self.too_few_in_sync(),
            _ => None,
        };
        let Some(refused) = refused else { return Ok(Box::pin(self.log.append(batch, now))) };
        if let Ok(header) = Header::parse(&batch) {
            self.log.local().turn_away(&header);
        }
        Err(refused)
    }

    fn count_placed(&self, placed: &Placed, bytes: u64) {
        if placed.duplicate {
            return;
        }
        let records = (placed.last_offset - placed.base_offset).unsigned_abs() + 1;
        self.traffic.bytes_in.set(self.traffic.bytes_in.get() + bytes);
        self.traffic.records_in.set(self.traffic.records_in.get() + records);
        self.publish();
    }

    /// Reads whole batches below the reader's bound.
    ///
    /// # Errors
    /// See [`ReadRefused`].
    pub async fn read(&self, request: &ReadRequest) -> Result<Read, ReadRefused> {
        self.check_leader(request.current_leader_epoch)?;
        let offsets = self.log.offsets();
        let ReplicaOffsets { log_start, high_watermark, log_end } = offsets;
        let mut read = Read {
            slices: Vec::new(),
            bytes: 0,
            high_watermark,
            last_stable: high_watermark,
            log_start,
            isolation: request.isolation,
            diverging: None,
        };
        let out_of_range =
            || Err(ReadRefused::OutOfRange { from: request.from, log_start, log_end, high_watermark });
        if let Some(epoch) = request.last_fetched_epoch {
            let (known, end) = self.log.local().end_offset_for_epoch(epoch);
            // An epoch above all that this log knows ended nowhere in it, and below its start nobody can go on: the reader
            // has to look for a place anew. It would take "no epoch" for an answer without records, and ask again for ever.
            if known == LeaderEpoch::NONE || request.from < log_start {
                return out_of_range();
            }
            if known < epoch || end < request.from {
                read.diverging = Some((known, end));
                return Ok(read);
            }
        }
        if request.from < log_start || request.from > log_end {
            return out_of_range();
        }
        if request.from >= high_watermark || (request.bytes_max == 0 && !request.at_least_one) {
            return Ok(read);
        }
        let slices = self
            .log
            .local()
            .slices(request.from, high_watermark, request.bytes_max, request.at_least_one)
            .await
            .map_err(|error| refused_read(error, high_watermark))?;
        self.traffic.bytes_out.set(self.traffic.bytes_out.get() + slices.bytes as u64);
        // By their offsets: what is sent from a file is not looked at.
        let records = slices.end.map_or(0, |end| (end - request.from).max(0).unsigned_abs());
        self.traffic.records_out.set(self.traffic.records_out.get() + records);
        read.slices = slices.slices;
        read.bytes = slices.bytes;
        Ok(read)
    }

    /// Reads whole batches into memory, at least one, those that are not committed yet included: for who replays the log
    /// that it leads.
    ///
    /// # Errors
    /// See [`ReadRefused`].
    pub async fn read_to_end(&self, from: Offset, bytes_max: usize) -> Result<Vec<Bytes>, ReadRefused> {
        self.check_leader(None)?;
        let ReplicaOffsets { high_watermark, log_end, .. } = self.log.offsets();
        let read = self.log.local().read(from, log_end, bytes_max, true).await;
        Ok(read.map_err(|error| refused_read(error, high_watermark))?.batches)
    }

    /// Answers ListOffsets.
    ///
    /// # Errors
    /// See [`ReadRefused`].
    pub async fn look_up(
        &self,
        query: OffsetQuery,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<OffsetAnswer, ReadRefused> {
        self.check_leader(current_leader_epoch)?;
        let ReplicaOffsets { log_start, high_watermark, .. } = self.log.offsets();
        let local = self.log.local();
        let end = |offset: Offset, leader_epoch: LeaderEpoch| OffsetAnswer {
            offset,
            timestamp: TimestampMs::NONE,
            leader_epoch,
        };
        let nothing = end(Offset::NONE, LeaderEpoch::NONE);
        let storage = |error| refused_read(error, high_watermark);
        let found = match query {
            OffsetQuery::Latest => return Ok(end(high_watermark, self.log.epoch())),
            OffsetQuery::Earliest => {
                let epoch = local.epoch_of(log_start).unwrap_or(self.log.epoch());
                return Ok(end(log_start, epoch));
            }
            OffsetQuery::Nothing => return Ok(nothing),
            OffsetQuery::MaxTimestamp => {
                local.offset_of_max_timestamp(high_watermark).await.map_err(storage)?
            }
            OffsetQuery::AtTime(time) => {
                local.offset_for_time(time, high_watermark).await.map_err(storage)?
            }
        };
        Ok(found.map_or(nothing, |found| OffsetAnswer {
            offset: found.offset,
            timestamp: found.timestamp,
            leader_epoch: local.epoch_of(found.offset).unwrap_or(LeaderEpoch::NONE),
        }))
    }

    /// Where an epoch ended, for OffsetForLeaderEpoch: the largest epoch at or below it, and that one's end.
    ///
    /// # Errors
    /// See [`ReadRefused`].
    pub fn end_of_epoch(
        &self,
        epoch: LeaderEpoch,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<(LeaderEpoch, Offset), ReadRefused> {
        self.check_leader(current_leader_epoch)?;
        Ok(self.log.local().end_offset_for_epoch(epoch))
    }

    /// Readers come to the leader, and in the reign they believe in.
    fn check_leader(&self, believed: Option<LeaderEpoch>) -> Result<(), ReadRefused> {
        match believed.map(|believed| believed.cmp(&self.log.epoch())) {
            Some(std::cmp::Ordering::Less) => Err(ReadRefused::FencedEpoch),
            Some(std::cmp::Ordering::Greater) => Err(ReadRefused::UnknownEpoch),
            _ if self.leads() => Ok(()),
            _ => Err(ReadRefused::NotHere),
        }
    }

    /// Parks a fetch that saw the high watermark at `seen`; wakes it at once if that is past already, or if there is nothing
    /// more to wait for here.
    pub fn park(&self, waiter: &Arc<Waiter>, seen: Offset) {
        if self.log.offsets().high_watermark == seen && self.check_leader(None).is_ok() {
            self.waiters.park(waiter);
        } else {
            waiter.wake();
        }
    }

    /// Resolves when the high watermark has reached `end`, or this replica leads no longer.
    pub(crate) async fn committed_to(&self, end: Offset) {
        while self.leads() && self.log.offsets().high_watermark < end {
            let waiter = Waiter::new();
            self.waiters.park(&waiter);
            waiter.woken().await;
        }
    }

    /// Its numbers.
    pub(crate) fn sample(&self) -> PartitionSample {
        let ReplicaOffsets { log_start, high_watermark, log_end } = self.log.offsets();
        PartitionSample {
            topic: self.topic_partition.topic.as_str().to_owned(),
            partition: self.topic_partition.partition.0,
            log_start_offset: log_start.value(),
            log_end_offset: log_end.value(),
            high_watermark: high_watermark.value(),
            size_bytes: self.log.local().size_bytes(),
            bytes_in: self.traffic.bytes_in.get(),
            records_in: self.traffic.records_in.get(),
            bytes_out: self.traffic.bytes_out.get(),
            records_out: self.traffic.records_out.get(),
            fenced: self.log.local().fenced().is_some(),
            leads: self.log.leads(),
            replicas: 0,
            in_sync: usize::try_from(self.in_sync_count()).unwrap_or_default(),
        }
    }

    /// Wakes everybody: the partition is about to go.
    pub(crate) fn wake_all(&self) {
        self.waiters.wake_all();
    }
}

/// What a failed read means to its reader. Retention and deletion may come between a judgement and its read.
fn refused_read(error: ReadError, high_watermark: Offset) -> ReadRefused {
    match error {
        ReadError::OutOfRange { from, log_start, log_end } => {
            ReadRefused::OutOfRange { from, log_start, log_end, high_watermark }
        }
        ReadError::Deleted => ReadRefused::NotHere,
        ReadError::Io { .. } | ReadError::Damaged(_) => ReadRefused::Storage(error.to_string()),
    }
}

impl From<ouzel_raft::AppendRefused> for AppendRefused {
    fn from(refused: ouzel_raft::AppendRefused) -> AppendRefused {
        use ouzel_raft::AppendRefused as Raft;
        match refused {
            Raft::NotLeader => AppendRefused::NotHere,
            Raft::OutOfOrderSequence { producer_id, expected, found } => {
                AppendRefused::OutOfOrderSequence { producer_id, expected, found }
            }
            Raft::StaleProducerEpoch { producer_id, current, found } => {
                AppendRefused::StaleProducerEpoch { producer_id, current, found }
            }
            Raft::DiskLow => AppendRefused::DiskLow,
            Raft::Fenced(fenced) => AppendRefused::Storage(fenced.to_string()),
            Raft::Invalid(words) => AppendRefused::Storage(words),
        }
    }
}

impl From<Unacknowledged> for AppendRefused {
    fn from(why: Unacknowledged) -> AppendRefused {
        match why {
            Unacknowledged::Fenced(fenced) => AppendRefused::Storage(fenced.to_string()),
            Unacknowledged::LeadershipLost => AppendRefused::NotHere,
        }
    }
}
