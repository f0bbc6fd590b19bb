//! The group's log and vote as openraft asks for them: a partition's [`Log`](ouzel_storage::Log) and the core's
//! write-ahead file.
//!
//! The place where order is final is [`RaftLogStorage::append`]: here a leader's batches get their offsets. What openraft
//! is told is flushed is as safe as the group's durability asks: flushed in `durable`, else written; side entries, votes
//! and truncations are flushed always.
//!
//! After an error the log is fenced and stays so: openraft stops the replica for good, and the broker drops it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::rc::Rc;

use futures_util::Stream;
use futures_util::stream;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, RaftLogReader};
use ouzel_model::{EntryId, EntryIndex, TimestampMs};
use ouzel_storage::entries::{EntryBody, StoredEntry};
use ouzel_storage::{AppendError, Durability, Fenced, ReadError};

use crate::entry::{Data, SideBody};
use crate::planted::{self, Planted};
use crate::replica_state::ReplicaState;
use crate::types::{LogId, Payload, RaftEntry, RaftVote, Types, entry_id, log_id};

/// Entries are read in pieces of about this many bytes: what one message to a follower carries.
const READ_BYTES_MAX: usize = 1 << 20;

/// See the module's documentation. Clones are the same store.
#[derive(Clone)]
pub(crate) struct Store {
    state: Rc<ReplicaState>,
    flushes: Rc<Flushes>,
}

impl Store {
    pub(crate) fn new(state: Rc<ReplicaState>) -> Store {
        Store { state, flushes: Rc::default() }
    }

    /// Appends one entry. What is not a batch is flushed in every durability mode.
    fn append_one(&self, entry: RaftEntry) -> io::Result<IsSide> {
        let log = &self.state.log;
        let id = entry_id(&entry.log_id);
        let side = match entry.payload {
            Payload::Normal(Data::Submitted(submitted)) => match submitted.place(log, id) {
                Ok(()) => return Ok(IsSide(false)),
                // The submission has been told why; the number is used up all the same.
                Err(_) => SideBody::Withdrawn,
            },
            Payload::Normal(Data::Stored(batch)) => {
                let now = TimestampMs(self.state.runtime.clock.wall_ms());
                log.append_batch(id, batch, now).map_err(unappendable)?;
                return Ok(IsSide(false));
            }
            Payload::Normal(Data::Retention(retention)) => SideBody::Retention(retention),
            Payload::Normal(Data::Withdrawn) => SideBody::Withdrawn,
            Payload::Normal(Data::Decision(number)) => SideBody::Decision(number),
            Payload::Blank => SideBody::Blank,
            Payload::Membership(members) => SideBody::Membership(members),
        };
        let (kind, body) = side.encode();
        log.append_side(id, kind, body).map_err(unappendable)?;
        if side == SideBody::Blank && log.latest_epoch().is_none_or(|latest| latest < id.term) {
            // Every reign begins with one: its epoch starts here, whether or not it ever writes a batch.
            log.begin_epoch(id.term);
        }
        Ok(IsSide(true))
    }
}

/// Whether an entry takes no offset.
struct IsSide(bool);

impl RaftLogStorage<Types> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let log = &self.state.log;
        Ok(LogState {
            last_purged_log_id: log.purged().map(log_id),
            last_log_id: log.last_entry().map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        // openraft takes a saved vote for proof that all it had appended before is as safe as it asked, and then answers
        // the leaders who wait for that.
        if let Some(last) = self.flushes.last_appended.get() {
            let flush = Flush { last, must_flush: false, callback: IOFlushed::noop() };
            match flush.wait(&self.state).await {
                Err(fenced) if self.state.log.fenced().is_some() => return Err(io::Error::other(fenced)),
                Ok(()) | Err(_) => {}
            }
        }
        self.state.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.state.note_committed(committed.as_ref().map(entry_id));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.state.committed().map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry>,
    {
        self.state.in_place().await;
        let mut last = None;
        let mut must_flush = false;
        for entry in entries {
            let id = entry_id(&entry.log_id);
            must_flush |= self.append_one(entry)?.0;
            last = Some(id);
        }
        let Some(last) = last else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        self.flushes.last_appended.set(Some(last));
        self.state.moved();
        self.flushes.push(&self.state, Flush { last, must_flush, callback });
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let last = last.as_ref().map(entry_id);
        if self.state.log.last_entry() <= last || planted::is(Planted::SkippedTruncation) {
            return Ok(());
        }
        self.state.log.truncate_after(last).await.map_err(io::Error::other)?;
        self.state.moved();
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        // A snapshot that came from a leader need not end where one of our segments does.
        let Some(id) = self.state.log.purge_candidate(entry_id(&upto).index) else { return Ok(()) };
        self.state.keep_purged(id).await?;
        self.state.log.purge(id).await.map_err(io::Error::other)?;
        self.state.moved();
        Ok(())
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<RaftEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug,
    {
        let (mut from, end) = self.present(&range);
        let mut entries = Vec::new();
        while from < end {
            let piece = self.read(from, end).await?;
            from = EntryIndex(from.value() + piece.len() as u64);
            entries.extend(piece);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        let (from, end) = self.present(&(start..end));
        if from >= end {
            return Ok(Vec::new());
        }
        self.read(from, end).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<RaftEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug,
    {
        let (from, end) = self.present(&range);
        let pieces =
            stream::unfold((self.clone(), from, false), move |(store, from, has_failed)| async move {
                if from >= end || has_failed {
                    return None;
                }
                match store.read(from, end).await {
                    Ok(entries) => {
                        let next = EntryIndex(from.value() + entries.len() as u64);
                        let entries: Vec<_> = entries.into_iter().map(Ok).collect();
                        Some((entries, (store, next, false)))
                    }
                    Err(error) => Some((vec![Err(error)], (store, from, true))),
                }
            });
        Box::pin(futures_util::StreamExt::flat_map(pieces, stream::iter))
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(self.state.vote())
    }
}

impl Store {
    /// The part of a range that the log has.
    fn present(&self, range: &impl RangeBounds<u64>) -> (EntryIndex, EntryIndex) {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let log = &self.state.log;
        let first = log.purged().map_or(0, |purged| purged.index.value() + 1);
        let behind_last = log.last_entry().map_or(0, |last| last.index.value() + 1);
        (EntryIndex(from.max(first)), EntryIndex(end.min(behind_last)))
    }

    /// At least one entry of a range that is there.
    async fn read(&self, from: EntryIndex, end: EntryIndex) -> io::Result<Vec<RaftEntry>> {
        let stored = self.state.log.read_entries(from, end, READ_BYTES_MAX).await.map_err(unreadable)?;
        if stored.is_empty() {
            return Err(io::Error::other(format!(
                "{:?} gives no entry from {from} to {end}",
                self.state.log
            )));
        }
        stored.into_iter().map(raft_entry).collect()
    }
}

fn raft_entry(stored: StoredEntry) -> io::Result<RaftEntry> {
    let payload = match stored.body {
        EntryBody::Batch(batch) => Payload::Normal(Data::Stored(batch)),
        EntryBody::Side { kind, body } => SideBody::decode(kind, body)
            .map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("entry {}: {error}", stored.id))
            })?
            .into_payload(),
    };
    Ok(RaftEntry { log_id: log_id(stored.id), payload })
}

fn unappendable(error: AppendError) -> io::Error {
    io::Error::other(error)
}

fn unreadable(error: ReadError) -> io::Error {
    io::Error::other(error)
}

/// Appends whose safety openraft waits for, in their order; one task follows them while there are any.
#[derive(Default)]
struct Flushes {
    waiting: RefCell<VecDeque<Flush>>,
    is_running: Cell<bool>,
    last_appended: Cell<Option<EntryId>>,
}

struct Flush {
    last: EntryId,
    must_flush: bool,
    callback: IOFlushed<Types>,
}

impl Flushes {
    fn push(self: &Rc<Self>, state: &Rc<ReplicaState>, flush: Flush) {
        self.waiting.borrow_mut().push_back(flush);
        if !self.is_running.replace(true) {
            ouzel_runtime::spawn(self.clone().run(state.clone()));
        }
    }

    async fn run(self: Rc<Self>, state: Rc<ReplicaState>) {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(mut flush) = next else {
                self.is_running.set(false);
                return;
            };
            let outcome = flush.wait(&state).await;
            match outcome {
                Ok(()) => {
                    // What is safe by now is said in one: openraft keeps the newest.
                    while let Some(later) = self.pop_if_safe(&state) {
                        flush = later;
                    }
                    flush.callback.io_completed(Ok(()));
                }
                Err(fenced) if state.log.fenced().is_some() => {
                    flush.callback.io_completed(Err(io::Error::other(fenced)));
                }
                // Cut off by a newer leader's log, which says itself when it is safe.
                Err(_) => {}
            }
        }
    }

    fn pop_if_safe(&self, state: &ReplicaState) -> Option<Flush> {
        let mut waiting = self.waiting.borrow_mut();
        let next = waiting.front()?;
        let log = &state.log;
        let safe = if next.needs_flush(state) { log.entries_flushed() } else { log.entries_written() };
        let is_safe = safe >= Some(next.last.index) && log.entry_id(next.last.index) == Some(next.last);
        if is_safe { waiting.pop_front() } else { None }
    }
}

impl Flush {
    fn needs_flush(&self, state: &ReplicaState) -> bool {
        self.must_flush || state.durability() == Durability::Durable
    }

    /// An error also says that the entry is not there any more.
    async fn wait(&self, state: &ReplicaState) -> Result<(), Fenced> {
        let (log, index) = (&state.log, self.last.index);
        let is_here = || match log.entry_id(index) {
            Some(id) if id == self.last => Ok(()),
            // What was purged was safe.
            None if log.purged() >= Some(self.last) => Ok(()),
            _ => Err(Fenced::new(format_args!("entry {} was cut off", self.last))),
        };
        is_here()?;
        if self.needs_flush(state) {
            log.flush_entries_to(index);
            log.wait_entry_flushed(index).await?;
        } else {
            log.wait_entry_written(index).await?;
        }
        is_here()
    }
}

#[cfg(test)]
pub(crate) mod tests;
