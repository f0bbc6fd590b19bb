//! A compaction, step by step: map the keys of the dirty part, write each group of segments anew, put it in its place,
//! note how far the log is clean.
//!
//! Every chunk is read and written through the core's disk, and worked on by the worker: the core's thread only moves
//! bytes along. A pass asks between any two chunks whether it is to stop, and leaves nothing behind then that the next
//! one, or the next start, would not remove.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ouzel_model::batch::{HEADER_BYTES, Header};
use ouzel_model::{Offset, TimestampMs};
use ouzel_runtime::disk::OpenMode;
use ouzel_runtime::{Disk, File};

use super::{Inner, Log, SEGMENT_BYTES_MAX, State};
use crate::compaction::chunk::{
    self, CleanedChunk, Cleaning, Mapping, NeedsMore, Unsound, clean_chunk, map_chunk,
};
use crate::compaction::plan::{self, LogFacts, SegmentFacts};
use crate::compaction::{
    CleanedTransactions, Cleaner, CompactionRules, Counts, Dirtiness, Mapped, Rules, last_records,
};
use crate::error::{Damage, Fenced, ReadError};
use crate::index::Indexes;
use crate::layout;
use crate::producers::Producers;
use crate::segment::{Segment, time_of_records};

/// Written bytes after which a new file is flushed: a gigabyte at once would hold up the appends of others.
const FLUSH_BYTES: u64 = 32 << 20;

/// What a pass did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compacted {
    /// Where the dirty part began (inclusive).
    pub from: Offset,
    /// Up to where the log is clean now (exclusive).
    pub to: Offset,
    /// Segments before and after.
    pub segments: (usize, usize),
    /// What went through.
    pub counts: Counts,
    /// Bytes that were read to map keys.
    pub bytes_mapped: u64,
    /// How much of the memory for keys was used, 0 to 1.
    pub map_utilization: f64,
}

/// Why a pass was not done, or not to its end. What it had done stays done.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The log is being closed, cut, deleted, or held; or segments went meanwhile. Nothing is wrong.
    #[error("the compaction was interrupted")]
    Interrupted,
    /// Bytes could not be read, or are damaged; or new ones not be written. The log is as it was.
    #[error(transparent)]
    Failed(#[from] ReadError),
    /// The log takes no more records.
    #[error(transparent)]
    Fenced(#[from] Fenced),
}

/// Keeps compaction off a log while it lives.
pub struct CompactionHold {
    _wish: Wish,
    _alone: tokio::sync::OwnedMutexGuard<()>,
}

/// Makes a compaction under way stop soon.
struct Wish {
    inner: Rc<Inner>,
}

impl Wish {
    fn of(inner: &Rc<Inner>) -> Wish {
        inner.compaction_holds.set(inner.compaction_holds.get() + 1);
        inner.compaction_wake.notify_waiters();
        Wish { inner: inner.clone() }
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.inner.compaction_holds.set(self.inner.compaction_holds.get() - 1);
    }
}

impl Log {
    /// How dirty the log is. `bound` (exclusive) is where compaction must end: the last stable offset.
    ///
    /// # Errors
    /// If a segment's times cannot be read; they are looked at only where the rules ask for them.
    pub async fn dirtiness(
        &self,
        rules: &CompactionRules,
        bound: Offset,
        now: TimestampMs,
    ) -> Result<Dirtiness, ReadError> {
        let (_, facts) = self.look_over(rules, bound).await?;
        Ok(plan::dirtiness(&facts, rules, now))
    }

    /// Cleans the log up to `bound` (exclusive), whether or not that is due; `None` if there is nothing to clean. Where the
    /// memory for keys does not hold all of the dirty part, a first piece of it is cleaned.
    ///
    /// The log is appended to and read from all the while. Dropped: what was put in place stays, the rest is done again by
    /// the next pass.
    ///
    /// # Errors
    /// See [`CompactError`].
    pub async fn compact(
        &self,
        cleaner: &Cleaner,
        rules: &CompactionRules,
        bound: Offset,
        now: TimestampMs,
    ) -> Result<Option<Compacted>, CompactError> {
        let Ok(alone) = self.inner.compacting.clone().try_lock_owned() else {
            return Err(CompactError::Interrupted);
        };
        let pass = Pass { log: self.clone(), cleaner: cleaner.clone(), alone: Rc::new(alone) };
        pass.check()?;
        let (segments, facts) = self.look_over(rules, bound).await?;
        let found = plan::dirtiness(&facts, rules, now);
        if found.cleanable_bytes == 0 {
            return Ok(None);
        }
        match pass.run(rules, now, &segments, &found).await {
            // What it was reading may have been dropped under it.
            Err(CompactError::Failed(_)) if self.offsets().log_start > facts.log_start => {
                Err(CompactError::Interrupted)
            }
            outcome => outcome.map(Some),
        }
    }

    /// Resolves when no compaction is under way, and keeps it so until the guard is dropped: for whoever reads the
    /// segments' files by name, or replaces them.
    pub async fn hold_compaction(&self) -> CompactionHold {
        let wish = Wish::of(&self.inner);
        let alone = self.inner.compacting.clone().lock_owned().await;
        CompactionHold { _wish: wish, _alone: alone }
    }

    /// Up to where compaction has cleaned the log (exclusive), if it ever did.
    pub fn first_dirty(&self) -> Option<Offset> {
        self.inner.state.borrow().first_dirty
    }

    /// The segments that may be touched, and what the plan wants to know of them.
    async fn look_over(
        &self,
        rules: &CompactionRules,
        bound: Offset,
    ) -> Result<(Vec<Rc<Segment>>, LogFacts), ReadError> {
        let (segments, log_start, first_dirty) = {
            let state = self.inner.state.borrow();
            (state.complete_segments(), state.log_start, state.first_dirty)
        };
        let mut sealed = Vec::with_capacity(segments.len());
        for segment in &segments {
            let is_dirty = first_dirty.is_none_or(|first_dirty| segment.end.get() > first_dirty);
            let largest_timestamp =
                if is_dirty && rules.lag_min_ms > 0 { Some(self.age_begin_of(segment).await?) } else { None };
            let first_timestamp = if is_dirty && rules.lag_max_ms < i64::MAX {
                self.first_timestamp_of(segment).await?
            } else {
                None
            };
            sealed.push(SegmentFacts {
                base: segment.base,
                end: segment.end.get(),
                size_bytes: segment.size_bytes.get(),
                index_bytes: 0,
                first_timestamp,
                largest_timestamp,
            });
        }
        Ok((segments, LogFacts { sealed, log_start, first_dirty, bound }))
    }

    async fn first_timestamp_of(&self, segment: &Rc<Segment>) -> Result<Option<TimestampMs>, ReadError> {
        if segment.first_timestamp.get().is_none() && segment.size_bytes.get() > 0 {
            let Some(_inside) = self.inner.gate.enter() else { return Err(ReadError::Deleted) };
            let read = async {
                let file = segment.file(&self.inner.shared.runtime.disk).await?;
                file.read_at(0, HEADER_BYTES).await
            };
            let bytes = read.await.map_err(|source| segment.failed(source))?;
            segment.first_timestamp.set(Header::parse(&bytes).ok().map(|header| header.max_timestamp));
        }
        Ok(segment.first_timestamp.get())
    }
}

impl State {
    /// Sealed segments whose indexes and snapshots are written too: those before the newest that has bytes in its file.
    /// That one stays as it is even when it is sealed: the last file of a directory is what a start appends to. Nor are
    /// those among them whose batches are entries of a group: the others of the group may still ask for them.
    fn complete_segments(&self) -> Vec<Rc<Segment>> {
        let newest = self.segments.iter().rposition(|segment| segment.written_bytes.get() > 0).unwrap_or(0);
        let numbered = match &self.entries {
            Some(entries) => self.segments.partition_point(|segment| segment.base < entries.first_base()),
            None => newest,
        };
        self.segments[..newest.min(numbered)].to_vec()
    }
}

/// A pass over one log.
struct Pass {
    log: Log,
    cleaner: Cleaner,
    /// Nobody else compacts the log. Shared with the swap under way, which is not interrupted.
    alone: Rc<tokio::sync::OwnedMutexGuard<()>>,
}

/// A group of segments, written anew and not yet in its place.
pub(super) struct Anew {
    /// The segments it is made from, neighbours.
    pub(super) sources: Vec<Rc<Segment>>,
    pub(super) size_bytes: u64,
    pub(super) indexes: Indexes,
    pub(super) first_timestamp: Option<TimestampMs>,
}

impl Pass {
    async fn run(
        &self,
        rules: &CompactionRules,
        now: TimestampMs,
        segments: &[Rc<Segment>],
        found: &Dirtiness,
    ) -> Result<Compacted, CompactError> {
        let inner = &self.log.inner;
        // A record that is dropped must not outlive, in a power cut, the one that replaced it.
        inner.want_flush(found.cleanable_end);
        self.log.wait_flushed(found.cleanable_end).await?;
        let (Mapping { keys, producers, .. }, bytes_mapped) = self.map(segments, found).await?;
        let to = keys.latest().next().max(found.first_dirty);
        let map_utilization = keys.utilization();

        let touched = segments.partition_point(|segment| segment.base < to);
        let mut facts = Vec::with_capacity(touched);
        for segment in &segments[..touched] {
            let index_bytes = self.log.inner.indexes_of(segment).await?.borrow().bytes_max();
            facts.push(SegmentFacts {
                base: segment.base,
                end: segment.end.get(),
                size_bytes: segment.size_bytes.get(),
                index_bytes,
                first_timestamp: None,
                largest_timestamp: None,
            });
        }
        let (config, last_records) = {
            let state = inner.state.borrow();
            (state.config.clone(), last_records(&state.producers, &producers, to))
        };
        let bytes_max = config.segment_bytes.min(SEGMENT_BYTES_MAX);
        let groups = plan::groups(&facts, bytes_max, config.segment_index_bytes);
        let mut cleaning = Cleaning {
            keys: Arc::new(keys),
            rules: Arc::new(Rules { now, delete_retention_ms: rules.delete_retention_ms, last_records }),
            transactions: CleanedTransactions::default(),
            counts: Counts::default(),
        };
        let after = groups.len();
        for group in groups {
            let sources = segments[group].to_vec();
            let base = sources[0].base;
            let replaced = async {
                let (carried, anew) = self.clean(cleaning, sources, config.index_interval_bytes).await?;
                self.put_in_place(anew).await.map(|()| carried)
            };
            cleaning = match replaced.await {
                Ok(carried) => carried,
                Err(error) => {
                    self.remove_unfinished(base).await;
                    return Err(error);
                }
            };
        }
        {
            let Some(_inside) = inner.gate.enter() else { return Err(CompactError::Interrupted) };
            inner.note_first_dirty(to).await?;
        }
        Ok(Compacted {
            from: found.first_dirty,
            to,
            segments: (touched, after),
            counts: cleaning.counts,
            bytes_mapped,
            map_utilization,
        })
    }

    /// The newest offset of each key of the dirty part, its producers, and how many bytes were read for that.
    async fn map(&self, segments: &[Rc<Segment>], found: &Dirtiness) -> Result<(Mapping, u64), CompactError> {
        let worker = &self.log.inner.shared.runtime.worker;
        let mut mapping = Mapping {
            keys: self.cleaner.key_map(),
            transactions: CleanedTransactions::default(),
            producers: Producers::new(found.first_dirty),
            first_dirty: found.first_dirty,
        };
        let mut bytes_mapped = 0;
        let dirty = |segment: &&Rc<Segment>| {
            segment.end.get() > found.first_dirty && segment.base < found.cleanable_end
        };
        for segment in segments.iter().filter(dirty) {
            let begin = self
                .log
                .inner
                .indexes_of(segment)
                .await?
                .borrow()
                .position_before(segment.base, found.first_dirty);
            let mut chunks = Chunks::of(segment, begin);
            while let Some(chunk) = self.next_chunk(&mut chunks).await? {
                bytes_mapped += chunk.len() as u64;
                let bytes = chunk.clone();
                let mapped = worker.run(move || map_chunk(mapping, &bytes)).await;
                let (carried, reached) = mapped.map_err(|unsound| chunks.damaged(&chunk, unsound))?;
                mapping = carried;
                if reached == Mapped::Full {
                    return Ok((mapping, bytes_mapped));
                }
            }
            // Offsets that are missing at its end have no keys either.
            mapping.keys.reached(segment.end.get() + -1);
        }
        Ok((mapping, bytes_mapped))
    }

    /// Writes a group of segments anew, beside them.
    async fn clean(
        &self,
        mut cleaning: Cleaning,
        sources: Vec<Rc<Segment>>,
        index_interval_bytes: u64,
    ) -> Result<(Cleaning, Anew), CompactError> {
        let runtime = &self.log.inner.shared.runtime;
        let base = sources[0].base;
        let path = self.log.inner.cleaned_path(base, layout::LOG);
        let failed = |source: io::Error| ReadError::Io { path: path.clone(), source };
        let file = self.make(&runtime.disk, &path).await?;
        let mut anew = Anew {
            sources: sources.clone(),
            size_bytes: 0,
            indexes: Indexes::default(),
            first_timestamp: None,
        };
        let mut unflushed_bytes = 0;
        for (at, source) in sources.iter().enumerate() {
            let mut chunks = Chunks::of(source, 0);
            while let Some(chunk) = self.next_chunk(&mut chunks).await? {
                let is_last = at + 1 == sources.len() && chunks.is_over();
                let bytes = chunk.clone();
                let cleaned = runtime.worker.run(move || clean_chunk(cleaning, &bytes, is_last)).await;
                let (carried, left) = cleaned.map_err(|unsound| chunks.damaged(&chunk, unsound))?;
                cleaning = carried;
                if left.headers.is_empty() {
                    continue;
                }
                let position = anew.size_bytes;
                let written = anew.take(base, &left, index_interval_bytes);
                file.write_at(position, vec![Bytes::from(left.bytes)]).await.map_err(failed)?;
                unflushed_bytes += written;
                if unflushed_bytes >= FLUSH_BYTES {
                    file.sync_data().await.map_err(failed)?;
                    unflushed_bytes = 0;
                }
                self.spend(written).await;
            }
        }
        file.sync_data().await.map_err(failed)?;
        anew.indexes.enter_largest();
        Ok((cleaning, anew))
    }

    /// Opens a new file by its name: inside the gate, as the name may be a successor's once the log is deleted.
    async fn make(&self, disk: &Disk, path: &Path) -> Result<File, CompactError> {
        let Some(_inside) = self.log.inner.gate.enter() else { return Err(CompactError::Interrupted) };
        let made = async {
            let file = disk.open(path, OpenMode::CreateOrOpen).await?;
            // An earlier pass may have been interrupted.
            file.truncate(0).await?;
            Ok(file)
        };
        made.await.map_err(|source| ReadError::Io { path: path.to_owned(), source }.into())
    }

    /// The next whole batches of a segment.
    async fn next_chunk(&self, chunks: &mut Chunks) -> Result<Option<Bytes>, CompactError> {
        self.check()?;
        let chunk = {
            let Some(_inside) = self.log.inner.gate.enter() else { return Err(CompactError::Interrupted) };
            chunks.next(&self.log.inner.shared.runtime.disk, self.cleaner.chunk_bytes()).await?
        };
        if let Some(chunk) = &chunk {
            self.spend(chunk.len() as u64).await;
        }
        Ok(chunk)
    }

    /// Waits until the budget allows more, or somebody wants the pass to stop.
    async fn spend(&self, bytes: u64) {
        let Some(wait) = self.cleaner.spend(bytes) else { return };
        let inner = &self.log.inner;
        let woken = inner.compaction_wake.notified();
        if self.check().is_ok() {
            tokio::select! {
                biased;
                () = woken => {}
                () = inner.shared.runtime.clock.sleep(wait) => {}
            }
        }
    }

    /// Whether the pass may go on.
    fn check(&self) -> Result<(), CompactError> {
        self.log.inner.check_compaction()
    }

    async fn put_in_place(&self, anew: Anew) -> Result<(), CompactError> {
        let (log, alone) = (self.log.clone(), self.alone.clone());
        // A task of its own: half a swap is for a start to finish, not for a log that goes on.
        let swapping = ouzel_runtime::spawn(async move {
            let _alone = alone;
            log.inner.swap(anew).await
        });
        swapping.await.unwrap_or(Err(CompactError::Interrupted))
    }

    /// Removes what was written and not put in its place.
    async fn remove_unfinished(&self, base: Offset) {
        let inner = &self.log.inner;
        let Some(_inside) = inner.gate.enter() else { return };
        for extension in [layout::LOG, layout::INDEX, layout::TIME_INDEX] {
            let path = inner.cleaned_path(base, extension);
            match inner.shared.runtime.disk.remove_file(&path).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(file = %path.display(), %error, "an unfinished file stays until the next start");
                }
                _ => {}
            }
        }
    }
}

impl Anew {
    /// Notes what is about to be written; gives its bytes.
    fn take(&mut self, base: Offset, left: &CleanedChunk, index_interval_bytes: u64) -> u64 {
        for header in &left.headers {
            let bytes = header.size_bytes() as u64;
            self.first_timestamp.get_or_insert(header.max_timestamp);
            self.indexes.append(
                base,
                header.last_offset(),
                self.size_bytes,
                bytes,
                time_of_records(header),
                index_interval_bytes,
            );
            self.size_bytes += bytes;
        }
        left.bytes.len() as u64
    }
}

impl Inner {
    /// Whether a compaction may go on, or begin.
    fn check_compaction(&self) -> Result<(), CompactError> {
        self.check_compaction_in(&self.state.borrow())
    }

    pub(super) fn check_compaction_in(&self, state: &State) -> Result<(), CompactError> {
        if let Some(fenced) = &state.fenced {
            return Err(fenced.clone().into());
        }
        if state.closing || state.cutting || self.compaction_holds.get() > 0 {
            return Err(CompactError::Interrupted);
        }
        Ok(())
    }

    pub(super) fn cleaned_path(&self, base: Offset, extension: &str) -> PathBuf {
        layout::with_suffix(&layout::segment_file(&self.dir, base, extension), layout::CLEANED_SUFFIX)
    }
}

/// A segment's batches, whole ones at a time.
struct Chunks {
    segment: Rc<Segment>,
    /// Where the next chunk begins.
    position: u64,
    end: u64,
}

impl Chunks {
    fn of(segment: &Rc<Segment>, begin: u64) -> Chunks {
        Chunks { segment: segment.clone(), position: begin, end: segment.written_bytes.get() }
    }

    fn is_over(&self) -> bool {
        self.position >= self.end
    }

    async fn next(&mut self, disk: &Disk, chunk_bytes: usize) -> Result<Option<Bytes>, ReadError> {
        if self.is_over() {
            return Ok(None);
        }
        let failed = |source| self.segment.failed(source);
        let file = self.segment.file(disk).await.map_err(failed)?;
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let mut want = chunk_bytes;
        loop {
            let bytes = file.read_at(self.position, want.min(left)).await.map_err(failed)?;
            match chunk::whole_batches(&bytes) {
                Ok(whole) if whole > 0 => {
                    self.position += whole as u64;
                    return Ok(Some(bytes.slice(..whole)));
                }
                Err(NeedsMore::Bytes(needed)) if needed > bytes.len() && needed <= left => want = needed,
                Ok(_) => return Err(self.damage(self.position, "the end of the file".to_owned())),
                Err(NeedsMore::Bytes(needed)) => {
                    let found = format!("the end of the file, {needed} bytes were to follow");
                    return Err(self.damage(self.position, found));
                }
                Err(NeedsMore::Sense(found)) => return Err(self.damage(self.position, found)),
            }
        }
    }

    /// What is wrong in the chunk that was given last.
    fn damaged(&self, chunk: &Bytes, unsound: Unsound) -> ReadError {
        self.damage(self.position - chunk.len() as u64 + unsound.at as u64, unsound.found)
    }

    fn damage(&self, position: u64, found: String) -> ReadError {
        Damage::new(self.segment.path(), position, "a whole and readable batch", found).into()
    }
}
