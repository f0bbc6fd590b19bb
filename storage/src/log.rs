//! One partition's log: append, read, look up, retain.
//!
//! # Who may touch what
//! A [`Log`] belongs to one core. Its state sits in a `RefCell` that is never borrowed over an await: an operation looks
//! at the state, does its I/O on handles of its own, then looks again. Whatever may happen between the two looks
//! (appends, rolls, retention, deletion) leaves the handles valid.
//!
//! # An append, step by step
//! [`Log::append`] is synchronous: it stamps the place, notes the batch in indexes, producers, epochs and tail, and
//! queues its bytes. One *writer* task per log exists while there is something to write; it coalesces all that is queued
//! for one segment into one write. Then the *flusher*, by the durability mode, asks the core's committer.
//!
//! ```text
//!  log start <= flushed end <= written end <= log end
//!               on the disk    in the file    in memory
//! ```
//!
//! A crash of the process loses what lies above the written end; a power cut what lies above the flushed end. Where the
//! durability does not ask for a flush, a trim or retention may take the log start beyond the flushed end, up to the
//! written end.

mod close;
mod compact;
mod entries;
mod gate;
mod install;
mod lookup;
mod progress;
mod retain;
mod slices;
mod swap;
mod truncate;
mod writer;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ouzel_model::batch::{Header, TimestampType, stamp, stamp_log_append_time};
use ouzel_model::{EntryIndex, LeaderEpoch, Offset, TimestampMs, TopicId, TopicPartition};
use ouzel_runtime::Runtime;
use tokio::sync::Notify;

use crate::config::LogConfig;
use crate::entries::EntryMap;
use crate::error::{AppendError, Fenced, ReadError};
use crate::flush::Committer;
use crate::leader_epochs::LeaderEpochs;
use crate::producers::turned_away::TurnedAway;
use crate::producers::{ProducerVerdict, Producers};
use crate::segment::{OpenSegments, Segment};
use crate::side_file::encode_ends;
use crate::tail_cache::{Tail, TailCache};

pub use compact::{CompactError, Compacted, CompactionHold};
use gate::Gate;
pub use lookup::TimedOffset;
use lookup::{Floor, Wanted};
use progress::Progress;
pub use slices::{FileRange, LogSlices, Slice};
use writer::Job;

/// Positions in a segment fit the 31 bits that Kafka's index has for them.
const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// A handle to a log; clones are the same log.
#[derive(Clone)]
pub struct Log {
    inner: Rc<Inner>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log({}, {:?})", self.inner.topic_partition, self.offsets())
    }
}

/// What a log shares with the others of its core.
#[derive(Clone)]
pub struct LogShared {
    /// The core's machine.
    pub runtime: Runtime,
    /// The core's group commit.
    pub committer: Rc<dyn Committer>,
    /// The core's tail cache.
    pub tail_cache: TailCache,
    /// The core's open sealed segments.
    pub open_segments: OpenSegments,
    /// Whether the data directory's disk is so full that appends are refused.
    pub disk_low: Rc<Cell<bool>>,
}

/// Where a log stands; see the chain in the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOffsets {
    /// First readable offset (inclusive).
    pub log_start: Offset,
    /// Exclusive end of what a power cut cannot take.
    pub flushed_end: Offset,
    /// Exclusive end of what a crash of the process cannot take.
    pub written_end: Offset,
    /// The next offset to be given (exclusive end).
    pub log_end: Offset,
}

/// The place of an appended batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// The broker's time, if the log stamps it; else none.
    pub log_append_time: TimestampMs,
}

/// What a read gives.
#[derive(Clone, Debug, Default)]
pub struct ReadSlices {
    /// Whole batches, several of them in one piece where they lay together; the first holds the offset asked for.
    pub batches: Vec<Bytes>,
    /// Their bytes together.
    pub bytes: usize,
}

pub(crate) struct Inner {
    shared: LogShared,
    topic_partition: TopicPartition,
    topic_id: TopicId,
    dir: PathBuf,
    tail: Rc<Tail>,
    state: RefCell<State>,
    progress: Progress,
    gate: Gate,
    /// Wakes a flusher that waits for its time.
    flush_wake: Notify,
    /// Told when the writer, the flusher, or a cut of the tail ends.
    settled: Notify,
    /// Held by whoever replaces one of the log's small files: two at a time would share the temporary one.
    small_files: tokio::sync::Mutex<()>,
    /// Held by whoever compacts the log, or keeps others from it.
    compacting: Arc<tokio::sync::Mutex<()>>,
    /// How many want compaction to stop, or not to begin.
    compaction_holds: Cell<usize>,
    /// Wakes a compaction that waits for its budget.
    compaction_wake: Notify,
    /// How often the tail was cut: what was read from a file across a cut may mix old bytes and new.
    cuts: Cell<u64>,
    /// Up to where ranges of files were given away that may be on their way to a reader: bytes below it never change, not
    /// even where the tail is cut; see [`slices`].
    given_end: Cell<Offset>,
    /// For the tasks it starts.
    me: std::rc::Weak<Inner>,
}

/// Everything that changes. See the module's documentation for who may touch it.
pub(crate) struct State {
    config: Rc<LogConfig>,
    /// By base offset; the last one is active. Never empty.
    segments: Vec<Rc<Segment>>,
    log_start: Offset,
    log_end: Offset,
    written_end: Offset,
    flushed_end: Offset,
    fenced: Option<Fenced>,
    /// The log is being closed, or is closed: it takes no more records.
    closing: bool,
    /// The tail is being cut: no appends until that is done.
    cutting: bool,
    /// The files do not say all that the next start needs: indexes, producers.
    unclosed: bool,
    /// Up to where compaction has cleaned the log (exclusive); none if nothing is known.
    first_dirty: Option<Offset>,
    /// The offsets of segments whose files are being replaced: they are not dropped meanwhile.
    swapping: Option<std::ops::Range<Offset>>,
    producers: Producers,
    /// Of producers it does not know: who is to come back with an earlier batch.
    turned_away: TurnedAway,
    epochs: LeaderEpochs,
    /// The epochs' file does not say what `epochs` says.
    epochs_dirty: bool,
    queue: VecDeque<Job>,
    writer: writer::WriterState,
    /// Where the numbered entries lie, if the log numbers them.
    entries: Option<EntryMap>,
    /// The newest entry that is in its file.
    entries_written: Option<EntryIndex>,
}

/// What recovery hands over.
pub(crate) struct Recovered {
    pub(crate) config: Rc<LogConfig>,
    pub(crate) segments: Vec<Rc<Segment>>,
    pub(crate) log_start: Offset,
    pub(crate) log_end: Offset,
    pub(crate) producers: Producers,
    pub(crate) epochs: LeaderEpochs,
    pub(crate) epochs_dirty: bool,
    /// Not closed in order the last time.
    pub(crate) unclosed: bool,
    /// Up to where compaction has cleaned it.
    pub(crate) first_dirty: Option<Offset>,
    /// The numbered entries, if the log numbers them.
    pub(crate) entries: Option<EntryMap>,
}

impl Log {
    pub(crate) fn new(
        shared: LogShared,
        topic_partition: TopicPartition,
        topic_id: TopicId,
        dir: PathBuf,
        recovered: Recovered,
    ) -> Log {
        let tail = shared.tail_cache.tail(recovered.log_end);
        let state = State::new(&dir, &shared, recovered);
        let inner = Rc::new_cyclic(|me| Inner {
            shared,
            topic_partition,
            topic_id,
            dir,
            tail,
            state: RefCell::new(state),
            progress: Progress::default(),
            gate: Gate::default(),
            flush_wake: Notify::new(),
            settled: Notify::new(),
            small_files: tokio::sync::Mutex::new(()),
            compacting: Arc::default(),
            compaction_holds: Cell::new(0),
            compaction_wake: Notify::new(),
            cuts: Cell::new(0),
            given_end: Cell::new(Offset::NONE),
            me: me.clone(),
        });
        let log = Log { inner };
        // A trim that was noted may not have got to its files.
        log.inner.drop_below_start();
        log
    }

    /// Its core's machine.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.inner.shared.runtime
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The partition's name.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.inner.topic_partition
    }

    /// The topic's identity.
    pub fn topic_id(&self) -> TopicId {
        self.inner.topic_id
    }

    /// The offsets as they are now.
    pub fn offsets(&self) -> LogOffsets {
        let state = self.inner.state.borrow();
        LogOffsets {
            log_start: state.log_start,
            flushed_end: state.flushed_end,
            written_end: state.written_end,
            log_end: state.log_end,
        }
    }

    /// Stops the log for good: whoever owns it has found that what it holds cannot be right. It is fenced until it is opened anew.
    pub fn fence(&self, reason: String) {
        self.inner.fence(reason);
    }

    /// Why the log takes no more records, if it does not.
    pub fn fenced(&self) -> Option<Fenced> {
        self.inner.state.borrow().fenced.clone()
    }

    /// Bytes of all its batches.
    pub fn size_bytes(&self) -> u64 {
        self.inner.state.borrow().segments.iter().map(|segment| segment.size_bytes.get()).sum()
    }

    /// Begins a new segment, if the active one is not empty, nor the tail being cut.
    pub fn roll(&self) {
        let mut state = self.inner.state.borrow_mut();
        if state.fenced.is_none() && !state.cutting && state.active().size_bytes.get() > 0 {
            self.inner.roll(&mut state);
        }
    }

    /// How many segments it has.
    pub fn segment_count(&self) -> usize {
        self.inner.state.borrow().segments.len()
    }

    /// Takes new settings; they hold from the next append, flush and retention pass on.
    pub fn set_config(&self, config: LogConfig) {
        self.inner.state.borrow_mut().config = Rc::new(config);
        self.inner.flush_if_due();
        self.inner.flush_wake.notify_one();
    }

    /// Judges a batch by what the log knows of its producer.
    pub fn check_producer(&self, header: &Header) -> ProducerVerdict {
        let verdict = self.inner.state.borrow().producers.check(header);
        match self.awaited_before(header) {
            Some(expected) if verdict == ProducerVerdict::Append => {
                let (producer_id, found) = (header.producer_id, header.base_sequence);
                ProducerVerdict::OutOfOrder { producer_id, expected, found }
            }
            _ => verdict,
        }
    }

    /// Whether appends of a leader are refused because the disk is nearly full.
    pub fn is_disk_low(&self) -> bool {
        self.inner.shared.disk_low.get()
    }

    /// Takes note of a batch that was refused for a reason that may soon be gone: what its producer has sent behind it
    /// waits until it is back.
    pub fn turn_away(&self, header: &Header) {
        let state = &mut *self.inner.state.borrow_mut();
        if state.producers.get(header.producer_id).is_none() {
            state.turned_away.note(header);
        }
    }

    /// Takes over from a log of the same directory, which is closed, what was turned away there, and what was given to
    /// readers that may still be at it.
    pub fn inherit(&self, before: &Log) {
        self.inner.given_end.set(self.inner.given_end.get().max(before.inner.given_end.get()));
        let turned_away = std::mem::take(&mut before.inner.state.borrow_mut().turned_away);
        self.inner.state.borrow_mut().turned_away = turned_away;
    }

    /// The sequence of a batch that was turned away and must come before this one, if the log does not know the producer.
    pub fn awaited_before(&self, header: &Header) -> Option<i32> {
        let state = self.inner.state.borrow();
        if !header.has_producer() || state.producers.get(header.producer_id).is_some() {
            return None;
        }
        state.turned_away.awaited_before(header)
    }

    /// Begins a leader's reign at the log's end: the epoch is in the history before its first batch is.
    pub fn begin_epoch(&self, epoch: LeaderEpoch) {
        let mut state = self.inner.state.borrow_mut();
        let log_end = state.log_end;
        // Its file hears of it with the first batch: a reign that wrote nothing need not be remembered.
        state.epochs.assign(epoch, log_end);
    }

    /// Where an epoch ended: the largest known epoch at or below it and that one's end; both none if there is no such.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        let state = self.inner.state.borrow();
        state.epochs.end_offset_for(epoch, state.log_end)
    }

    /// The newest epoch in the history.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.inner.state.borrow().epochs.latest().map(|entry| entry.epoch)
    }

    /// The epoch in which the record at `offset` was written.
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.inner.state.borrow().epochs.epoch_at(offset)
    }

    /// Forgets producers that have been silent for longer than the configuration allows.
    pub fn expire_producers(&self, now: TimestampMs) -> usize {
        let mut state = self.inner.state.borrow_mut();
        let after = std::time::Duration::from_millis(state.config.producer_expiration_ms.unsigned_abs());
        state.producers.expire(now, after)
    }

    /// Appends one whole, validated batch whose base offset is to be stamped. When this returns the place is fixed; the
    /// bytes are written and flushed behind it, see [`Log::wait_written`] and [`Log::wait_flushed`].
    ///
    /// # Errors
    /// See [`AppendError`]; nothing has changed then.
    pub fn append(
        &self,
        mut batch: BytesMut,
        epoch: LeaderEpoch,
        now: TimestampMs,
    ) -> Result<Appended, AppendError> {
        let inner = &self.inner;
        let mut state = inner.state.borrow_mut();
        inner.check_admission(&state)?;
        if inner.shared.disk_low.get() {
            return Err(AppendError::DiskLow);
        }
        let header = whole_batch(&batch)?;
        let log_append_time = if state.config.log_append_time { now } else { TimestampMs::NONE };
        if state.config.log_append_time {
            stamp_log_append_time(&mut batch, now);
        } else if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
            // A producer may not set it; validation has refused such a batch on every way that leads here.
            return Err(AppendError::NotABatch(
                "a batch claims the broker's time, but the log has none".into(),
            ));
        }
        let base_offset = state.log_end;
        stamp(&mut batch, base_offset, epoch);
        let header = Header::parse(&batch).map_err(|error| AppendError::NotABatch(error.to_string()))?;
        inner.take(&mut state, &header, batch.freeze(), now);
        Ok(Appended { base_offset, last_offset: header.last_offset(), log_append_time })
    }

    /// Resolves when everything below `end` is in the file. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// The log was fenced first (whether the bytes survive is then unknown), or truncated below `end`.
    pub async fn wait_written(&self, end: Offset) -> Result<(), Fenced> {
        let written_end = self.inner.state.borrow().written_end;
        if written_end >= end {
            return Ok(());
        }
        self.check_fence()?;
        self.inner.progress.written.wait_for(end).await
    }

    /// Resolves when everything below `end` is flushed. It does not ask for a flush: in the modes that flush late, or
    /// never, this waits as long.
    ///
    /// # Errors
    /// As [`Log::wait_written`].
    pub async fn wait_flushed(&self, end: Offset) -> Result<(), Fenced> {
        let flushed_end = self.inner.state.borrow().flushed_end;
        if flushed_end >= end {
            return Ok(());
        }
        self.check_fence()?;
        self.inner.progress.flushed.wait_for(end).await
    }

    /// How many wait for an end now; for the metrics.
    pub fn waiter_count(&self) -> usize {
        self.inner.progress.written.len() + self.inner.progress.flushed.len()
    }

    fn check_fence(&self) -> Result<(), Fenced> {
        self.inner.state.borrow().fenced.clone().map_or(Ok(()), Err)
    }

    /// Calls `hook` after each step of the written or flushed end, and of the log start. The hook must not append.
    pub fn on_progress(&self, hook: impl Fn() + 'static) {
        self.inner.progress.set_hook(Rc::new(hook));
    }

    /// Reads whole batches from the one that holds `from` up to `bound` (exclusive): about `bytes_max` bytes, and with
    /// `at_least_one` a first batch larger than that. Records that are not written yet are read from memory.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(
        &self,
        from: Offset,
        bound: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<ReadSlices, ReadError> {
        self.inner.read(Wanted { from, bound, bytes_max, at_least_one }, Floor::LogStart).await
    }
}

impl State {
    fn new(dir: &Path, shared: &LogShared, recovered: Recovered) -> State {
        let Recovered { config, mut segments, log_start, log_end, producers, .. } = recovered;
        let Recovered { epochs, epochs_dirty, unclosed, first_dirty, entries, .. } = recovered;
        // A segment may have side entries and no batch yet.
        let active_base = entries.as_ref().map_or(log_end, |entries| entries.active().base);
        if segments.last().is_none_or(|last| entries.is_some() && last.base < active_base) {
            segments.push(Segment::new(dir, active_base));
        }
        for sealed in &segments[..segments.len() - 1] {
            sealed.sealed.set(true);
            if sealed.is_open() {
                shared.open_segments.touch(sealed);
            }
        }
        let fresh = segments.iter().all(|segment| segment.size_bytes.get() == 0);
        State {
            config,
            segments,
            log_start,
            log_end,
            written_end: log_end,
            flushed_end: log_end,
            fenced: None,
            closing: false,
            cutting: false,
            unclosed,
            first_dirty,
            swapping: None,
            producers,
            turned_away: TurnedAway::default(),
            epochs,
            epochs_dirty,
            queue: VecDeque::new(),
            writer: writer::WriterState::new(fresh),
            entries_written: entries.as_ref().and_then(|entries| entries.last()).map(|last| last.index),
            entries,
        }
    }

    fn active(&self) -> &Rc<Segment> {
        self.segments.last().expect("a log has an active segment")
    }

    fn assign_epoch(&mut self, epoch: LeaderEpoch, start: Offset) {
        self.epochs_dirty |= self.epochs.assign(epoch, start);
        // Its entry may stand there since the reign began.
        self.epochs_dirty |= self.epochs.latest().is_some_and(|latest| latest.start_offset == start);
    }
}

/// The header of a batch that is all there and nothing else.
fn whole_batch(batch: &[u8]) -> Result<Header, AppendError> {
    let header = Header::parse(batch).map_err(|error| AppendError::NotABatch(error.to_string()))?;
    if header.size_bytes() != batch.len() || header.last_offset_delta < 0 {
        return Err(AppendError::NotABatch(format!(
            "a batch of {} bytes says it has {}",
            batch.len(),
            header.size_bytes()
        )));
    }
    Ok(header)
}

impl Inner {
    fn check_admission(&self, state: &State) -> Result<(), AppendError> {
        if let Some(fenced) = &state.fenced {
            return Err(fenced.clone().into());
        }
        if state.closing || state.cutting {
            let what = if state.closing { "closed" } else { "being truncated" };
            return Err(Fenced::new(format_args!("{} is {what}", self.topic_partition)).into());
        }
        Ok(())
    }

    /// Takes a batch whose place is the log's end.
    fn take(&self, state: &mut State, header: &Header, bytes: Bytes, now: TimestampMs) {
        self.roll_if_needed(state, header, now);
        state.assign_epoch(header.partition_leader_epoch, header.base_offset);
        state.producers.update(header, now);
        state.turned_away.forget(header.producer_id);
        let interval_bytes = state.config.index_interval_bytes;
        let active = state.active().clone();
        let position = active.size_bytes.get();
        if let Some(indexes) = active.indexes_in_memory() {
            indexes.borrow_mut().append(
                active.base,
                header.last_offset(),
                position,
                bytes.len() as u64,
                header.max_timestamp,
                interval_bytes,
            );
        }
        if active.first_timestamp.get().is_none() {
            active.first_timestamp.set(Some(header.max_timestamp));
        }
        active.size_bytes.set(position + bytes.len() as u64);
        active.last_write.set(now);
        active.end.set(header.next_offset());
        state.log_end = header.next_offset();
        state.unclosed = true;
        let entry = self.number_batch(state, header.next_offset());
        self.tail.push(header.base_offset, header.last_offset(), bytes.clone());
        state.queue.push_back(Job::Write {
            segment: active,
            position,
            bytes,
            end: header.next_offset(),
            entry,
        });
        self.start_writer(state);
    }

    /// Begins a new segment where the active one has no room, or has run its time, or an offset would not fit its index.
    fn roll_if_needed(&self, state: &mut State, next: &Header, now: TimestampMs) {
        let active = state.active();
        if active.size_bytes.get() == 0 {
            return;
        }
        let config = &state.config;
        let full =
            active.size_bytes.get() + next.size_bytes() as u64 > config.segment_bytes.min(SEGMENT_BYTES_MAX);
        // Age as Kafka counts it: from the first batch's timestamp to the one about to enter.
        let first = active.first_timestamp.get().unwrap_or(now);
        let aged = next.max_timestamp.value().saturating_sub(first.value()) > config.segment_ms;
        let index_full = active
            .indexes_in_memory()
            .is_some_and(|indexes| indexes.borrow().bytes_max() + 16 > config.segment_index_bytes);
        let offset_overflows = next.last_offset() - active.base > i64::from(i32::MAX);
        if full || aged || index_full || offset_overflows {
            self.roll(state);
        }
    }

    /// Seals the active segment and begins the next at the log's end.
    fn roll(&self, state: &mut State) {
        let sealed = state.active().clone();
        if let Some(indexes) = sealed.indexes_in_memory() {
            indexes.borrow_mut().enter_largest();
        }
        sealed.sealed.set(true);
        let snapshot = crate::producers::snapshot::encode(&state.producers);
        let ends = state.entries.as_ref().map(|entries| encode_ends(&entries.active().ends));
        state.queue.push_back(Job::Seal { segment: sealed, end: state.log_end, snapshot, ends });
        state.segments.push(Segment::new(&self.dir, state.log_end));
        self.roll_entries(state);
        self.start_writer(state);
    }
}
