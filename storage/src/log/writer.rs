//! The tasks behind an append: the writer, and the flusher that follows it.
//!
//! Both exist only while there is work: an idle log has neither.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ouzel_model::Offset;
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
    /// A batch's bytes.
    Write { segment: Rc<Segment>, position: u64, bytes: Bytes, end: Offset },
    /// The segment is complete up to `end`: its indexes, and the producers' state at its end.
    Seal { segment: Rc<Segment>, end: Offset, snapshot: (Vec<u8>, Vec<u8>) },
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
                Next::Write { segment, position, bufs, end } => {
                    if let Err(error) = self.write(&segment, position, bufs, end).await {
                        self.fence(format!("write {}: {error}", segment.path().display()));
                    }
                }
                Next::Other(Job::Seal { segment, end, snapshot }) => self.seal(&segment, end, snapshot).await,
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
    ) -> io::Result<()> {
        let disk = &self.shared.runtime.disk;
        let is_new = !segment.is_open() && position == 0;
        let fresh = self.state.borrow().writer.fresh;
        let bytes: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        let mut was_full = false;
        let (file, metadata) = loop {
            let written = async {
                let file = segment.file_for_append(disk).await?;
                file.write_at(position, bufs.clone()).await?;
                let metadata = self.dir.join(layout::PARTITION_METADATA);
                let metadata =
                    if fresh { Some(disk.open(&metadata, OpenMode::ReadWrite).await?) } else { None };
                Ok((file, metadata))
            };
            match written.await {
                Ok(files) => break files,
                // Nothing was promised and nothing is lost: the bytes are still here, and writing them again to the
                // same place is sound once there is room. (A flush that fails is another matter.)
                Err(error) if is_full(&error) && self.may_wait_for_room() => {
                    if !was_full {
                        tracing::error!(file = %segment.path().display(), "the disk is full; appends wait for room");
                    }
                    was_full = true;
                    self.shared.disk_low.set(true);
                    self.shared.runtime.clock.sleep(FULL_DISK_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        };
        if was_full {
            // Whoever watches the free space may set it again; with nobody watching, appends go on by themselves.
            self.shared.disk_low.set(false);
        }
        {
            let mut state = self.state.borrow_mut();
            segment.written_bytes.set(position + bytes);
            let from = state.written_end;
            state.written_end = end;
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
        self.progress.moved();
        self.flush_if_due();
        Ok(())
    }

    fn may_wait_for_room(&self) -> bool {
        let state = self.state.borrow();
        state.fenced.is_none() && !state.closing
    }

    /// Writes what a sealed segment leaves behind, before the next segment's first byte: a segment that has a successor
    /// on the disk has its indexes there too. All of it is derived: a failure is logged, and recovery makes it anew.
    async fn seal(&self, segment: &Rc<Segment>, end: Offset, (snapshot, windows): (Vec<u8>, Vec<u8>)) {
        let disk = &self.shared.runtime.disk;
        let sealing = async {
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
        self.flush_wake.notify_one();
        self.progress.moved();
    }

    pub(super) fn handle(&self) -> Option<Log> {
        self.me.upgrade().map(|inner| Log { inner })
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
    Write { segment: Rc<Segment>, position: u64, bufs: Vec<Bytes>, end: Offset },
    Other(Job),
}

/// Takes one job, or all that can be written at once.
fn take_next(state: &mut State) -> Option<Next> {
    match state.queue.pop_front()? {
        job @ (Job::Seal { .. } | Job::Drop { .. }) => Some(Next::Other(job)),
        Job::Write { segment, position, bytes, mut end } => {
            let mut total = bytes.len();
            let mut bufs = vec![bytes];
            while let Some(Job::Write { segment: next, bytes, .. }) = state.queue.front()
                && Rc::ptr_eq(next, &segment)
                && total + bytes.len() <= WRITE_BYTES_MAX
            {
                let Some(Job::Write { bytes, end: next_end, .. }) = state.queue.pop_front() else { break };
                total += bytes.len();
                end = next_end;
                bufs.push(bytes);
            }
            Some(Next::Write { segment, position, bufs, end })
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
