//! The tasks behind an append: the writer, and the flusher that follows it.
//!
//! Both exist only while there is work: an idle log has neither.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ouzel_model::{EntryIndex, Offset};
use ouzel_runtime::File;
use ouzel_runtime::clock::Instant;
use ouzel_runtime::disk::OpenMode;

use super::{Inner, Log, State};
use crate::config::Durability;
use crate::error::Fenced;
use crate::flush::FlushRequest;
use crate::layout;
use crate::segment::{Segment, write_derived};

/// Bytes of one write: what is queued beyond this goes with the next.
const WRITE_BYTES_MAX: usize = 4 << 20;
/// How long the writer waits for room after the disk was full.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// Work for the writer, in order.
pub(super) enum Job {
    /// A batch's bytes, and which entry it is.
    Write { segment: Rc<Segment>, position: u64, bytes: Bytes, end: Offset, entry: Option<EntryIndex> },
    /// A piece of the side file of the segment at `base`, and which entry it is; flushed before anything behind it is
    /// written, in every durability mode: a lost side entry would lend its index to the batch behind it.
    Side { base: Offset, position: u64, bytes: Bytes, entry: Option<EntryIndex> },
    /// The segment is complete up to `end`: its indexes, the producers' state at its end, and where its batches end.
    Seal { segment: Rc<Segment>, end: Offset, snapshot: (Vec<u8>, Vec<u8>), ends: Option<Vec<u8>> },
    /// The segment lies below the log start.
    Drop { segment: Rc<Segment> },
}

/// What the two tasks remember.
#[derive(Default)]
pub(super) struct WriterState {
    pub(super) writing: bool,
    pub(super) flushing: bool,
    /// Files that hold written, unflushed bytes, oldest first. They stay open until they are flushed: an error of the
    /// kernel's own write-back is told to those who had the file open.
    unflushed: Vec<File>,
    unflushed_bytes: u64,
    unflushed_from: Option<Instant>,
    unflushed_since: Offset,
    /// A file was made whose name may not be on the disk yet.
    dir_unflushed: bool,
    /// Nothing was ever written to the log: its directory may not be on the disk yet, nor what names its topic. A
    /// partition costs no flush until its first record does.
    fresh: bool,
    /// So may the directory's own name.
    pub(super) parent_unflushed: bool,
    /// Somebody asked for a flush up to here, whatever the mode.
    wanted_end: Offset,
}

impl WriterState {
    pub(super) fn new(fresh: bool) -> WriterState {
        WriterState { fresh, ..WriterState::default() }
    }
}

impl Inner {
    pub(super) fn start_writer(&self, state: &mut State) {
        if state.writer.writing {
            return;
        }
        if let Some(log) = self.handle() {
            state.writer.writing = true;
            ouzel_runtime::spawn(async move { log.inner.write_all().await });
        }
    }

    /// The writer: until the queue is empty, or the log is fenced.
    async fn write_all(&self) {
        while let Some(next) = self.next_write() {
            // Shut only when the log is being deleted, which fenced it first.
            let Some(_inside) = self.gate.enter() else { continue };
            match next {
                Next::Write { segment, position, bufs, end, entry } => {
                    if let Err(error) = self.write(&segment, position, bufs, end, entry).await {
                        self.fence(format!("write {}: {error}", segment.path().display()));
                    }
                }
                Next::Other(Job::Side { base, position, bytes, entry }) => {
                    let path = layout::segment_file(&self.dir, base, layout::SIDE);
                    if let Err(error) = self.write_side(&path, position, bytes, entry).await {
                        self.fence(format!("write {}: {error}", path.display()));
                    }
                }
                Next::Other(Job::Seal { segment, end, snapshot, ends }) => {
                    self.seal(&segment, end, snapshot, ends).await
                }
                Next::Other(Job::Drop { segment }) => self.drop_files(&segment).await,
                Next::Other(Job::Write { .. }) => unreachable!("writes are taken together"),
            }
        }
        self.settled.notify_waiters();
    }

    /// The next piece of work; if there is none, the writer is over as soon as this returns.
    fn next_write(&self) -> Option<Next> {
        let mut state = self.state.borrow_mut();
        if state.fenced.is_some() {
            state.queue.clear();
        }
        let next = take_next(&mut state);
        state.writer.writing = next.is_some();
        next
    }

    async fn write(
        &self,
        segment: &Rc<Segment>,
        position: u64,
        bufs: Vec<Bytes>,
        end: Offset,
        entry: Option<EntryIndex>,
    ) -> io::Result<()> {
        let disk = &self.shared.runtime.disk;
        let is_new = !segment.is_open() && position == 0;
        let fresh = self.state.borrow().writer.fresh;
        let bytes: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        let writing = || async {
            let file = segment.file_for_append(disk).await?;
            file.write_at(position, bufs.clone()).await?;
            let metadata = self.dir.join(layout::PARTITION_METADATA);
            let metadata = if fresh { Some(disk.open(&metadata, OpenMode::ReadWrite).await?) } else { None };
            Ok((file, metadata))
        };
        let (file, metadata) = self.with_room(segment.path(), writing).await?;
        {
            let mut state = self.state.borrow_mut();
            segment.written_bytes.set(position + bytes);
            let from = state.written_end;
            state.written_end = end;
            state.entries_written = entry.or(state.entries_written);
            let now = self.shared.runtime.clock.now();
            let writer = &mut state.writer;
            if !writer.unflushed.iter().any(|other| other.path() == file.path()) {
                writer.unflushed.push(file);
            }
            writer.unflushed_bytes += bytes;
            if writer.unflushed_from.is_none() {
                writer.unflushed_from = Some(now);
                writer.unflushed_since = from;
            }
            writer.dir_unflushed |= is_new;
            writer.unflushed.extend(metadata);
            writer.parent_unflushed |= std::mem::take(&mut writer.fresh);
        }
        self.tail.written(end);
        self.progress.written.reached(end);
        if let Some(entry) = entry {
            self.progress.entries_written.reached(entry);
        }
        self.progress.moved();
        self.flush_if_due();
        Ok(())
    }

    /// Writes a piece of a side file and flushes it.
    async fn write_side(
        &self,
        path: &Path,
        position: u64,
        bytes: Bytes,
        entry: Option<EntryIndex>,
    ) -> io::Result<()> {
        let disk = &self.shared.runtime.disk;
        // Whatever is not on the disk yet of what leads to the file: its name, the directory's, what names the topic.
        let (is_new, is_first) = {
            let state = self.state.borrow();
            (position == 0, state.writer.fresh || state.writer.parent_unflushed)
        };
        let writing = || async {
            let file = disk.open(path, OpenMode::CreateOrOpen).await?;
            file.write_at(position, vec![bytes.clone()]).await?;
            let mut files = vec![file];
            if is_first {
                files.push(disk.open(&self.dir.join(layout::PARTITION_METADATA), OpenMode::ReadWrite).await?);
            }
            Ok(files)
        };
        let files = self.with_room(path, writing).await?;
        let mut dirs = Vec::new();
        if is_new || is_first {
            dirs.push(self.dir.clone());
        }
        if is_first {
            dirs.extend(self.dir.parent().map(Path::to_owned));
        }
        let flushed = self.shared.committer.commit(FlushRequest { files, dirs }).await;
        flushed.map_err(|_| io::Error::other("the committer is gone"))?.map_err(io::Error::other)?;
        {
            let mut state = self.state.borrow_mut();
            if is_first {
                (state.writer.fresh, state.writer.parent_unflushed) = (false, false);
            }
            state.entries_written = entry.or(state.entries_written);
        }
        if let Some(entry) = entry {
            self.progress.entries_written.reached(entry);
            self.tell_flushed_entries();
        }
        self.progress.moved();
        Ok(())
    }

    /// Tells who waits for entries that they are flushed.
    fn tell_flushed_entries(&self) {
        let flushed = self.state.borrow().entries_flushed();
        if let Some(flushed) = flushed {
            self.progress.entries_flushed.reached(flushed);
        }
    }

    /// Writes, and waits for room as long as there is none: nothing was promised and nothing is lost, the bytes are still
    /// here, and writing them again to the same place is sound. (A flush that fails is another matter.)
    async fn with_room<T, F>(&self, path: &Path, mut write: impl FnMut() -> F) -> io::Result<T>
    where
        F: Future<Output = io::Result<T>>,
    {
        let mut was_full = false;
        loop {
            match write().await {
                Ok(written) => {
                    if was_full {
                        // Whoever watches the free space may set it again; with nobody watching, appends go on by
                        // themselves.
                        self.shared.disk_low.set(false);
                    }
                    return Ok(written);
                }
                Err(error) if is_full(&error) && self.may_wait_for_room() => {
                    if !was_full {
                        tracing::error!(file = %path.display(), "the disk is full; appends wait for room");
                    }
                    was_full = true;
                    self.shared.disk_low.set(true);
                    self.shared.runtime.clock.sleep(FULL_DISK_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn may_wait_for_room(&self) -> bool {
        let state = self.state.borrow();
        state.fenced.is_none() && !state.closing
    }

    /// Writes what a sealed segment leaves behind, before the next segment's first byte: a segment that has a successor
    /// on the disk has its indexes there too. All of it is derived: a failure is logged, and recovery makes it anew.
    async fn seal(
        &self,
        segment: &Rc<Segment>,
        end: Offset,
        (snapshot, windows): (Vec<u8>, Vec<u8>),
        ends: Option<Vec<u8>>,
    ) {
        let disk = &self.shared.runtime.disk;
        let sealing = async {
            if let Some(ends) = ends {
                let path = layout::segment_file(&self.dir, segment.base, layout::ENTRY_INDEX);
                write_derived(disk, &path, ends).await?;
            }
            if let Some(indexes) = segment.indexes_in_memory() {
                let indexes = indexes.borrow().clone();
                segment.write_indexes(disk, &indexes).await?;
            }
            write_derived(disk, &layout::segment_file(&self.dir, end, layout::PRODUCERS), windows).await?;
            self.write_epochs().await?;
            // Last: a roll is done when the snapshot is there.
            write_derived(disk, &layout::segment_file(&self.dir, end, layout::SNAPSHOT), snapshot).await
        };
        if let Err(error) = sealing.await {
            tracing::warn!(segment = %segment.path().display(), %error, "a sealed segment's indexes could not be written");
        }
        self.shared.open_segments.touch(segment);
        // As Kafka does: a sealed segment is flushed, late but whatever the mode, so that a start need not read it again.
        self.want_flush(end);
    }

    /// Brings the epochs' file up to date.
    pub(super) async fn write_epochs(&self) -> io::Result<()> {
        let _alone = self.small_files.lock().await;
        let text = {
            let mut state = self.state.borrow_mut();
            if !std::mem::replace(&mut state.epochs_dirty, false) {
                return Ok(());
            }
            state.epochs.encode()
        };
        let written =
            self.shared.runtime.disk.write_atomic(&self.dir.join(layout::LEADER_EPOCHS), text.into()).await;
        if written.is_err() {
            self.state.borrow_mut().epochs_dirty = true;
        }
        written
    }

    /// Lets the flusher go as far as `end`, whatever the mode, once that is written.
    pub(super) fn want_flush(&self, end: Offset) {
        {
            let mut state = self.state.borrow_mut();
            state.writer.wanted_end = state.writer.wanted_end.max(end);
        }
        self.flush_if_due();
    }

    /// Starts the flusher if something written is to be flushed, now or at a later time; wakes a sleeping one if its time
    /// has come early.
    pub(super) fn flush_if_due(&self) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.fenced.is_some() || state.written_end <= state.flushed_end {
            return;
        }
        let due = flush_is_due(state, self.shared.runtime.clock.now());
        if state.writer.flushing {
            if due {
                self.flush_wake.notify_one();
            }
        } else if (due || state.config.flush_limits().1.is_some())
            && let Some(log) = self.handle()
        {
            state.writer.flushing = true;
            ouzel_runtime::spawn(async move { log.inner.flush_while_due().await });
        }
    }

    /// The flusher: until nothing written is to be flushed.
    async fn flush_while_due(&self) {
        loop {
            match self.next_flush() {
                Turn::Over => break,
                Turn::At(time) => {
                    tokio::select! {
                        biased;
                        () = self.flush_wake.notified() => {}
                        () = self.shared.runtime.clock.sleep_until(time) => {}
                    }
                }
                Turn::Now { target, request } => match self.shared.committer.commit(request).await {
                    Ok(Ok(())) => {
                        {
                            let mut state = self.state.borrow_mut();
                            state.flushed_end = target;
                            // It is set once, by the first write, and the first flush follows that.
                            state.writer.parent_unflushed = false;
                        }
                        self.progress.flushed.reached(target);
                        self.tell_flushed_entries();
                        self.progress.moved();
                    }
                    Ok(Err(error)) => self.fence(format!("flush {}: {error}", self.dir.display())),
                    Err(_) => self.fence(format!("flush {}: the committer is gone", self.dir.display())),
                },
            }
        }
        self.settled.notify_waiters();
    }

    fn next_flush(&self) -> Turn {
        let mut state = self.state.borrow_mut();
        let now = self.shared.runtime.clock.now();
        let work = state.fenced.is_none() && state.written_end > state.flushed_end;
        if work && flush_is_due(&state, now) {
            let target = state.written_end;
            let writer = &mut state.writer;
            let mut dirs = Vec::new();
            if std::mem::take(&mut writer.dir_unflushed) {
                dirs.push(self.dir.clone());
            }
            if writer.parent_unflushed {
                dirs.extend(self.dir.parent().map(Path::to_owned));
            }
            let request = FlushRequest { files: std::mem::take(&mut writer.unflushed), dirs };
            writer.unflushed_bytes = 0;
            writer.unflushed_from = None;
            return Turn::Now { target, request };
        }
        let age = state.config.flush_limits().1;
        match age.zip(state.writer.unflushed_from) {
            Some((age, from)) if work => Turn::At(from + age),
            _ => {
                state.writer.flushing = false;
                Turn::Over
            }
        }
    }

    /// Stops the log for good: nothing is retried, nobody is told yes.
    pub(super) fn fence(&self, reason: String) {
        let fenced = Fenced::new(reason);
        {
            let mut state = self.state.borrow_mut();
            if state.fenced.is_some() {
                return;
            }
            tracing::error!(partition = %self.topic_partition, reason = %fenced, "the log is fenced until it is opened anew");
            state.fenced = Some(fenced.clone());
        }
        self.end_with(&fenced);
    }

    /// Tells everybody who waits, and the tasks, that the log is fenced.
    pub(super) fn end_with(&self, fenced: &Fenced) {
        self.progress.give_up_beyond(Offset::NONE, fenced);
        self.progress.give_up_entries_behind(None, fenced);
        self.flush_wake.notify_one();
        self.progress.moved();
    }

    pub(super) fn handle(&self) -> Option<Log> {
        self.me.upgrade().map(|inner| Log { inner })
    }

    /// Resolves when all that was queued is done.
    pub(super) async fn writer_at_rest(&self) {
        loop {
            let settled = self.settled.notified();
            if !self.state.borrow().writer.writing {
                return;
            }
            settled.await;
        }
    }

    /// Resolves when neither the writer nor the flusher is at work.
    pub(super) async fn at_rest(&self) {
        loop {
            let settled = self.settled.notified();
            {
                let state = self.state.borrow();
                if !state.writer.writing && !state.writer.flushing {
                    return;
                }
            }
            settled.await;
        }
    }
}

impl Log {
    /// Writes and flushes everything appended so far, whatever the durability mode. Dropping the future does not take the
    /// flush back.
    ///
    /// # Errors
    /// The log is, or was meanwhile, fenced.
    pub async fn flush(&self) -> Result<(), Fenced> {
        let end = self.offsets().log_end;
        self.wait_written(end).await?;
        self.inner.want_flush(end);
        self.wait_flushed(end).await
    }
}

/// What the flusher does next.
enum Turn {
    Now { target: Offset, request: FlushRequest },
    At(Instant),
    Over,
}

enum Next {
    Write { segment: Rc<Segment>, position: u64, bufs: Vec<Bytes>, end: Offset, entry: Option<EntryIndex> },
    Other(Job),
}

/// Takes one job, or all that can be written at once.
fn take_next(state: &mut State) -> Option<Next> {
    match state.queue.pop_front()? {
        job @ (Job::Side { .. } | Job::Seal { .. } | Job::Drop { .. }) => Some(Next::Other(job)),
        Job::Write { segment, position, bytes, mut end, mut entry } => {
            let mut total = bytes.len();
            let mut bufs = vec![bytes];
            while let Some(Job::Write { segment: next, bytes, .. }) = state.queue.front()
                && Rc::ptr_eq(next, &segment)
                && total + bytes.len() <= WRITE_BYTES_MAX
            {
                let Some(Job::Write { bytes, end: next_end, entry: next_entry, .. }) =
                    state.queue.pop_front()
                else {
                    break;
                };
                total += bytes.len();
                (end, entry) = (next_end, next_entry);
                bufs.push(bytes);
            }
            Some(Next::Write { segment, position, bufs, end, entry })
        }
    }
}

fn flush_is_due(state: &State, now: Instant) -> bool {
    let writer = &state.writer;
    let (bytes_max, age_max) = state.config.flush_limits();
    let records = (state.written_end - writer.unflushed_since).unsigned_abs();
    state.config.durability == Durability::Durable
        || writer.wanted_end > state.flushed_end
        || bytes_max.is_some_and(|max| writer.unflushed_bytes >= max)
        || age_max.zip(writer.unflushed_from).is_some_and(|(age, from)| now.duration_since(from) >= age)
        || state.config.flush_records.is_some_and(|max| records >= max)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
