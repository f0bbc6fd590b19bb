//! A log that numbers its entries: what a replica of a group appends, reads back, cuts and lets go of.
//!
//! # Order on the disk
//! Batches go to the `.log`, side entries to the segment's side file, by one writer in the order of their indexes. A side
//! entry is flushed before anything behind it is written, in every durability mode. A cut flushes the `.log` before it
//! touches the side file. So what a crash leaves is a prefix of the entries, and perhaps side entries of which the batches
//! before them are gone; those are cut at the next start. See [`crate::recovery`].
//!
//! # Flushed offset
//! What is noted elsewhere as flushed must never be cut: note no more than is committed.

use bytes::{Bytes, BytesMut};
use ouzel_model::batch::{BatchView, batches};
use ouzel_model::{EntryId, EntryIndex, Offset, ProducerId, TimestampMs};
use ouzel_runtime::disk::OpenMode;

use super::lookup::{Floor, Wanted};
use super::truncate::{Cutting, to_its_end};
use super::writer::Job;
use super::{Appended, Inner, Log, State, whole_batch};
use crate::entries::{EntryBody, EntryMap, Place, SideEntry, StoredEntry};
use crate::error::{AppendError, Fenced, ReadError};
use crate::layout;
use crate::producers::ProducerEntry;
use crate::side_file::{HEADER_BYTES, encode_header, encode_record, record_bytes};

/// Only a log that was opened with its entries has any.
///
/// # Panics
/// Every method here but [`Log::producer`], on a log that does not number its entries.
impl Log {
    /// The newest entry; the purge point if there is none behind it.
    pub fn last_entry(&self) -> Option<EntryId> {
        self.inner.state.borrow().map().last()
    }

    /// The newest entry that is no entry any more, but only data.
    pub fn purged(&self) -> Option<EntryId> {
        self.inner.state.borrow().map().purged()
    }

    /// Exclusive end of what is only data: retention and compaction may touch what lies below. Without numbered entries
    /// that is the whole log.
    pub fn purged_end(&self) -> Offset {
        let state = self.inner.state.borrow();
        state.entries.as_ref().map_or(state.log_end, EntryMap::first_base)
    }

    /// The entry of an index, if it is there or the purge point.
    pub fn entry_id(&self, index: EntryIndex) -> Option<EntryId> {
        self.inner.state.borrow().map().id(index)
    }

    /// The next offset behind an entry (exclusive, absolute), if that is there or the purge point.
    pub fn entry_end(&self, index: EntryIndex) -> Option<Offset> {
        self.inner.state.borrow().map().end(index)
    }

    /// All side entries that are there, oldest first.
    pub fn side_entries(&self) -> Vec<SideEntry> {
        self.inner.state.borrow().map().sides().cloned().collect()
    }

    /// What the log knows of a producer.
    pub fn producer(&self, id: ProducerId) -> Option<ProducerEntry> {
        self.inner.state.borrow().producers.get(id).cloned()
    }

    /// Appends a leader's batch, as [`Log::append`] does, as the entry `id`; its term is the leader epoch.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing has changed then.
    pub fn place_batch(
        &self,
        id: EntryId,
        batch: BytesMut,
        now: TimestampMs,
    ) -> Result<Appended, AppendError> {
        self.inner.state.borrow().check_batch_entry(id)?;
        self.append(batch, id.term, now)
    }

    /// Appends a batch that its leader has placed, as the entry `id`. It is taken as it is, or not at all.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing has changed then. A disk that is nearly full is no reason: a follower that took no
    /// entries would hold up its group.
    pub fn append_batch(&self, id: EntryId, batch: Bytes, now: TimestampMs) -> Result<(), AppendError> {
        let header = whole_batch(&batch)?;
        let view = BatchView::parse(&batch).map_err(|error| AppendError::NotABatch(error.to_string()))?;
        view.verify_crc().map_err(|error| AppendError::NotABatch(error.to_string()))?;
        let mut state = self.inner.state.borrow_mut();
        self.inner.check_admission(&state)?;
        state.check_batch_entry(id)?;
        if header.base_offset != state.log_end || header.partition_leader_epoch != id.term {
            return Err(AppendError::OutOfOrder(format!(
                "entry {id} has offset {} of epoch {}, where offset {} belongs",
                header.base_offset, header.partition_leader_epoch, state.log_end
            )));
        }
        self.inner.take(&mut state, &header, batch, now);
        Ok(())
    }

    /// Appends an entry that takes no offset.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing has changed then.
    pub fn append_side(&self, id: EntryId, kind: u8, body: Bytes) -> Result<(), AppendError> {
        let inner = &self.inner;
        let mut state = inner.state.borrow_mut();
        inner.check_admission(&state)?;
        let map = state.map();
        let (expected, last) = (map.next_index(), map.last());
        if id.index != expected || last.is_some_and(|last| id.term < last.term) {
            return Err(AppendError::OutOfOrder(format!("entry {id} behind {last:?}")));
        }
        inner.ensure_side_file(&mut state);
        let side = SideEntry { id, next_offset: state.log_end, kind, body };
        let active = state.map_mut().active_mut();
        let (base, position, bytes) = (active.base, active.side_bytes, encode_record(&side));
        active.side_bytes += record_bytes(&side);
        active.sides.push(side);
        state.unclosed = true;
        state.queue.push_back(Job::Side { base, position, bytes, entry: Some(id.index) });
        inner.start_writer(&mut state);
        Ok(())
    }

    /// Reads entries from `from` up to `end` (exclusive): one at least, and about `bytes_max`. Fewer than are there if they
    /// are cut meanwhile.
    ///
    /// # Errors
    /// See [`ReadError`]; [`ReadError::OutOfRange`] if `from` is not there.
    pub async fn read_entries(
        &self,
        from: EntryIndex,
        end: EntryIndex,
        bytes_max: usize,
    ) -> Result<Vec<StoredEntry>, ReadError> {
        let inner = &self.inner;
        let mut read: Vec<StoredEntry> = Vec::new();
        let (mut bytes, mut next) = (0, from);
        // Batches that were read and have not had their turn, the next one last.
        let mut batches_ahead: Vec<Bytes> = Vec::new();
        while next < end && (bytes < bytes_max || read.is_empty()) {
            let (place, id, log_end) = {
                let state = inner.state.borrow();
                (state.map().place(next), state.map().id(next), state.log_end)
            };
            let (Some(place), Some(id)) = (place, id) else { break };
            let entry = match place {
                Place::Side(side) => StoredEntry {
                    id,
                    base_offset: side.next_offset,
                    end_offset: side.next_offset,
                    body: EntryBody::Side { kind: side.kind, body: side.body },
                },
                Place::Batch { base, end } => {
                    if batches_ahead.is_empty() {
                        let cuts = inner.cuts.get();
                        let bytes_max = bytes_max.saturating_sub(bytes);
                        let wanted = Wanted { from: base, bound: log_end, bytes_max, at_least_one: true };
                        let slices = inner.read(wanted, Floor::Entries).await?;
                        if inner.cuts.get() != cuts || self.entry_id(next) != Some(id) {
                            // Cut meanwhile: what was read may be another entry's.
                            if read.is_empty() {
                                continue;
                            }
                            break;
                        }
                        for slice in &slices.batches {
                            let mut at = 0;
                            for batch in batches(slice).flatten() {
                                let size_bytes = batch.header.size_bytes();
                                batches_ahead.push(slice.slice(at..at + size_bytes));
                                at += size_bytes;
                            }
                        }
                        batches_ahead.reverse();
                    }
                    let Some(batch) = batches_ahead.pop() else { break };
                    bytes += batch.len();
                    StoredEntry { id, base_offset: base, end_offset: end, body: EntryBody::Batch(batch) }
                }
            };
            read.push(entry);
            next = next.next();
        }
        if read.is_empty() && from < end {
            let state = inner.state.borrow();
            let offset = state.map().end(from).unwrap_or(Offset::NONE);
            let (log_start, log_end) = (state.log_start, state.log_end);
            return Err(ReadError::OutOfRange { from: offset, log_start, log_end });
        }
        Ok(read)
    }

    /// The newest entry that is in its file, with all before it.
    pub fn entries_written(&self) -> Option<EntryIndex> {
        self.inner.state.borrow().entries_written
    }

    /// The newest entry that is flushed, with all before it.
    pub fn entries_flushed(&self) -> Option<EntryIndex> {
        self.inner.state.borrow().entries_flushed()
    }

    /// Resolves when an entry is in its file, with all before it.
    ///
    /// # Errors
    /// The log was fenced first, or the entry cut.
    pub async fn wait_entry_written(&self, index: EntryIndex) -> Result<(), Fenced> {
        if self.entries_written() >= Some(index) {
            return Ok(());
        }
        self.check_fence()?;
        self.inner.progress.entries_written.wait_for(index).await
    }

    /// Resolves when an entry is flushed, with all before it. It does not ask for a flush.
    ///
    /// # Errors
    /// As [`Log::wait_entry_written`].
    pub async fn wait_entry_flushed(&self, index: EntryIndex) -> Result<(), Fenced> {
        if self.entries_flushed() >= Some(index) {
            return Ok(());
        }
        self.check_fence()?;
        self.inner.progress.entries_flushed.wait_for(index).await
    }

    /// Asks for a flush of everything up to an entry, whatever the durability mode.
    pub fn flush_entries_to(&self, index: EntryIndex) {
        if let Some(end) = self.entry_end(index) {
            self.inner.want_flush(end);
        }
    }

    /// Cuts the log to `last`, which must be there, or be the purge point (none: everything, if nothing was ever purged).
    /// Appends are refused until that is done, and it is done also if the future is dropped.
    ///
    /// # Errors
    /// The log is, or is now, fenced.
    pub async fn truncate_after(&self, last: Option<EntryId>) -> Result<(), Fenced> {
        let cutting = Cutting::begin(self)?;
        let log = self.clone();
        to_its_end(async move { log.cut_after(last, &cutting).await }).await
    }

    async fn cut_after(&self, last: Option<EntryId>, _appends_refused: &Cutting) -> Result<(), Fenced> {
        let inner = &self.inner;
        inner.start_at_rest().await;
        let _uncompacted = self.hold_compaction().await;
        self.flush().await?;
        inner.at_rest().await;
        self.check_fence()?;
        let is_there = match last {
            Some(last) => self.entry_id(last.index) == Some(last),
            None => self.purged().is_none(),
        };
        if !is_there {
            return Err(Fenced::new(format_args!(
                "{self:?} cannot be cut to {last:?}, which it does not have"
            )));
        }
        if self.last_entry() == last {
            return Ok(());
        }
        inner.cut_entries(last).await.map_err(|error| {
            inner.fence(format!("truncate {}: {error}", inner.dir.display()));
            Fenced::new(format_args!("truncate {}: {error}", inner.dir.display()))
        })
    }

    /// The newest entry at or below an index that a purge may go to: the last of a sealed segment.
    pub fn purge_candidate(&self, at_or_below: EntryIndex) -> Option<EntryId> {
        self.inner.state.borrow().map().purge_candidate(at_or_below)
    }

    /// The last entry of the oldest sealed segment that ends behind `after`.
    pub fn sealed_after(&self, after: Option<EntryId>) -> Option<EntryId> {
        self.inner.state.borrow().map().sealed_after(after)
    }

    /// Makes the entries up to `upto` plain data, as far as whole sealed segments go: their side files are removed, their
    /// batches stay until retention or compaction comes. It is done also if the future is dropped.
    ///
    /// # Errors
    /// The log is fenced, or the disk fails: the purge point is then as far as the files have gone.
    pub async fn purge(&self, upto: EntryId) -> Result<(), Fenced> {
        let log = self.clone();
        to_its_end(async move { log.purge_to(upto).await }).await
    }

    async fn purge_to(&self, upto: EntryId) -> Result<(), Fenced> {
        let inner = &self.inner;
        // The header of the next segment's side file says where the purge point is: it is on the disk once what was queued
        // by now is.
        self.flush().await?;
        inner.writer_at_rest().await;
        self.check_fence()?;
        let failed = |error| Fenced::new(format_args!("purge {}: {error}", inner.dir.display()));
        let deleted = || Fenced::new(format_args!("partition {} was deleted", inner.topic_partition));
        let _inside = inner.gate.enter().ok_or_else(deleted)?;
        let disk = &inner.shared.runtime.disk;
        // The oldest first: what a crash leaves has no gap. And each is an entry until its file is gone: what is none,
        // retention may drop, and a start that finds a side file without its batches finds a hole.
        loop {
            let Some(base) = inner.state.borrow().map().oldest_within(upto) else { break };
            for extension in [layout::ENTRY_INDEX, layout::SIDE] {
                match disk.remove_file(&layout::segment_file(&inner.dir, base, extension)).await {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                    _ => {}
                }
            }
            disk.sync_dir(&inner.dir).await.map_err(failed)?;
            inner.state.borrow_mut().map_mut().purge_below(base);
            inner.drop_below_start();
        }
        inner.progress.moved();
        Ok(())
    }
}

impl State {
    fn map(&self) -> &EntryMap {
        self.entries.as_ref().expect("the log was opened with its entries")
    }

    fn map_mut(&mut self) -> &mut EntryMap {
        self.entries.as_mut().expect("the log was opened with its entries")
    }

    fn check_batch_entry(&self, id: EntryId) -> Result<(), AppendError> {
        let map = self.map();
        // Each reign begins with a side entry.
        if id.index == map.next_index() && map.last().is_some_and(|last| last.term == id.term) {
            return Ok(());
        }
        Err(AppendError::OutOfOrder(format!("batch entry {id} behind {:?}", map.last())))
    }

    pub(super) fn entries_flushed(&self) -> Option<EntryIndex> {
        let within = self.entries.as_ref()?.last_within(self.flushed_end);
        within.min(self.entries_written)
    }
}

impl Inner {
    /// Numbers a batch that ends at `end`; none if the log numbers nothing.
    pub(super) fn number_batch(&self, state: &mut State, end: Offset) -> Option<EntryIndex> {
        state.entries.as_ref()?;
        self.ensure_side_file(state);
        let map = state.map_mut();
        let index = map.next_index();
        map.push_batch(end);
        Some(index)
    }

    /// Begins the next segment's entries.
    pub(super) fn roll_entries(&self, state: &mut State) {
        let log_end = state.log_end;
        if let Some(map) = &mut state.entries {
            map.roll(log_end);
            self.ensure_side_file(state);
        }
    }

    /// The active segment's side file is there before anything that is behind its header.
    fn ensure_side_file(&self, state: &mut State) {
        let active = state.map_mut().active_mut();
        if active.side_bytes > 0 {
            return;
        }
        active.side_bytes = HEADER_BYTES as u64;
        let (base, bytes) = (active.base, encode_header(active.base, active.prev));
        state.queue.push_back(Job::Side { base, position: 0, bytes, entry: None });
        self.start_writer(state);
    }

    async fn cut_entries(&self, last: Option<EntryId>) -> Result<(), ReadError> {
        let Some(_inside) = self.gate.enter() else { return Err(ReadError::Deleted) };
        let last_index = last.map(|last| last.index);
        let (cut, needs_cut) = {
            let mut state = self.state.borrow_mut();
            let log_end = state.log_end;
            let before = state.map().active().base;
            // Nobody sees the entries any more before the first byte of them goes.
            let cut = state.map_mut().truncate_after(last_index);
            state.entries_written = last_index;
            (cut, cut.end < log_end || cut.base != before)
        };
        let gone = Fenced::new(format_args!("{} was truncated behind entry {last:?}", self.topic_partition));
        self.progress.give_up_entries_behind(last_index, &gone);
        if needs_cut {
            self.cut_tail(cut.end, Some(cut.base)).await?;
        }
        {
            let mut state = self.state.borrow_mut();
            state.unclosed = true;
            state.epochs_dirty |= state.epochs.truncate_to(cut.end);
            // A reign that stays, though all its batches went, or it never had any.
            let newest = state.map().sides().last().map(|side| (side.id.term, side.next_offset));
            if let Some((term, start)) = newest.filter(|(_, start)| *start == cut.end) {
                state.epochs.assign(term, start);
            }
        }
        self.cut_side_files(cut.base).await
    }

    /// Cuts the active segment's side file to what the map has of it, and removes those behind it.
    async fn cut_side_files(&self, active: Offset) -> Result<(), ReadError> {
        let disk = &self.shared.runtime.disk;
        let failed = |source| ReadError::Io { path: self.dir.clone(), source };
        let mut beyond = Vec::new();
        for entry in disk.list_dir(&self.dir).await.map_err(failed)? {
            match layout::parse_segment_file(&entry.name) {
                Some((base, layout::SIDE)) if base > active => beyond.push(self.dir.join(entry.name)),
                Some((base, layout::ENTRY_INDEX)) if base >= active => beyond.push(self.dir.join(entry.name)),
                _ => {}
            }
        }
        // The newest first: what a crash leaves has no gap.
        for path in beyond.into_iter().rev() {
            disk.remove_file(&path).await.map_err(failed)?;
        }
        let side_bytes = {
            let mut state = self.state.borrow_mut();
            let active = state.map_mut().active_mut();
            if active.side_bytes > 0 {
                active.side_bytes = HEADER_BYTES as u64 + active.sides.iter().map(record_bytes).sum::<u64>();
            }
            active.side_bytes
        };
        if side_bytes > 0 {
            let path = layout::segment_file(&self.dir, active, layout::SIDE);
            let file = disk.open(&path, OpenMode::ReadWrite).await.map_err(failed)?;
            file.truncate(side_bytes).await.map_err(failed)?;
            file.sync_data().await.map_err(failed)?;
        }
        disk.sync_dir(&self.dir).await.map_err(failed)?;
        self.cuts.set(self.cuts.get() + 1);
        Ok(())
    }
}
