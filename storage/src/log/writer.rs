//! The tasks behind an append: the writer, and the flusher that follows it.
//!
//! Both exist only while there is work: an idle log has neither.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ouzel_model::Offset;
use ouzel_runtime::File;
use ouzel_runtime::clock::Instant;

use super::{Inner, Log, State};
use crate::config::Durability;
use crate::error::Fenced;
use crate::flush::FlushRequest;
use crate::layout;
use crate::segment::{Segment, write_cache};

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
}

/// What the two tasks remember.
#[derive(Default)]
pub(super) struct WriterState {
    writing: bool,
    flushing: bool,
    /// Files that hold written, unflushed bytes, oldest first.
    unflushed: Vec<File>,
    unflushed_bytes: u64,
    unflushed_from: Option<Instant>,
    unflushed_since: Offset,
    /// A file was made whose name may not be on the disk yet.
    dir_unflushed: bool,
    /// Somebody asked for a flush whatever the mode.
    forced: bool,
}

impl Inner {
    pub(super) fn start_writer(self: &Inner, state: &mut State) {
        if state.writer.writing {
            return;
        }
        state.writer.writing = true;
        state.writer.wanted_by(self);
    }
}

impl WriterState {
    fn wanted_by(&self, inner: &Inner) {
        if let Some(log) = inner.handle() {
            ouzel_runtime::spawn(async move { log.inner.write_all().await });
        }
    }
}

enum Next {
    Write { segment: Rc<Segment>, position: u64, bufs: Vec<Bytes>, end: Offset },
    Seal { segment: Rc<Segment>, end: Offset, snapshot: (Vec<u8>, Vec<u8>) },
}

impl Inner {
    /// The writer: until the queue is empty, or the log is fenced.
    async fn write_all(&self) {
        loop {
            let next = {
                let mut state = self.state.borrow_mut();
                match take_next(&mut state) {
                    Some(next) if state.fenced.is_none() => next,
                    _ => {
                        state.writer.writing = false;
                        return;
                    }
                }
            };
            match next {
                Next::Write { segment, position, bufs, end } => {
                    if let Err(error) = self.write(&segment, position, bufs, end).await {
                        self.fence(format!("write {}: {error}", segment.path().display()));
                    }
                }
                Next::Seal { segment, end, snapshot } => self.seal(&segment, end, snapshot).await,
            }
        }
    }

    async fn write(&self, segment: &Rc<Segment>, position: u64, bufs: Vec<Bytes>, end: Offset) -> io::Result<()> {
        let disk = &self.shared.runtime.disk;
        let is_new = !segment.is_open() && position == 0;
        let bytes: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        let file = loop {
            let written = async {
                let file = segment.file_for_append(disk).await?;
                file.write_at(position, bufs.clone()).await?;
                Ok(file)
            };
            match written.await {
                Ok(file) => break file,
                // Nothing was promised and nothing is lost: the bytes are still here, and writing them again to the
                // same place is sound once there is room. (A flush that fails is another matter.)
                Err(error) if is_full(&error) && self.state.borrow().fenced.is_none() => {
                    tracing::error!(file = %segment.path().display(), "the disk is full; appends wait for room");
                    self.shared.disk_low.set(true);
                    self.shared.runtime.clock.sleep(FULL_DISK_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        };
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
        }
        self.tail.written(end);
        self.progress.written.reached(end);
        self.progress.moved();
        self.flush_if_due();
        Ok(())
    }

    /// Writes what a sealed segment leaves behind. All of it is derived: a failure is logged, and recovery makes it anew.
    async fn seal(&self, segment: &Rc<Segment>, end: Offset, (snapshot, windows): (Vec<u8>, Vec<u8>)) {
        let disk = &self.shared.runtime.disk;
        let sealing = async {
            if let Some(indexes) = segment.indexes_in_memory() {
                let indexes = indexes.borrow().clone();
                segment.write_indexes(disk, &indexes).await?;
            }
            write_cache(disk, &layout::segment_file(&self.dir, end, layout::SNAPSHOT), snapshot).await?;
            write_cache(disk, &layout::segment_file(&self.dir, end, layout::PRODUCERS), windows).await?;
            self.write_epochs().await
        };
        if let Err(error) = sealing.await {
            tracing::warn!(segment = %segment.path().display(), %error, "a sealed segment's indexes could not be written");
        }
        self.shared.open_segments.touch(segment);
    }

    /// Brings the epochs' file up to date.
    pub(super) async fn write_epochs(&self) -> io::Result<()> {
        let text = {
            let mut state = self.state.borrow_mut();
            if !std::mem::replace(&mut state.epochs_dirty, false) {
                return Ok(());
            }
            state.epochs.encode()
        };
        let written = self.shared.runtime.disk.write_atomic(&self.dir.join(layout::LEADER_EPOCHS), text.into()).await;
        if written.is_err() {
            self.state.borrow_mut().epochs_dirty = true;
        }
        written
    }

    /// Starts the flusher if the mode wants a flush for what is written.
    pub(super) fn flush_if_due(&self) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.writer.flushing || state.fenced.is_some() || state.written_end <= state.flushed_end {
            return;
        }
        let (_, age) = state.config.flush_limits();
        if flush_is_due(state, self.shared.runtime.clock.now()) || age.is_some() {
            state.writer.flushing = true;
            if let Some(log) = self.handle() {
                ouzel_runtime::spawn(async move { log.inner.flush_while_due().await });
            }
        }
    }

    /// The flusher: until nothing written is due to be flushed.
    async fn flush_while_due(&self) {
        loop {
            let (target, request) = {
                let mut state = self.state.borrow_mut();
                let now = self.shared.runtime.clock.now();
                if state.fenced.is_some() || state.written_end <= state.flushed_end {
                    state.writer.flushing = false;
                    return;
                }
                if !flush_is_due(&state, now) {
                    let (_, age) = state.config.flush_limits();
                    match age.zip(state.writer.unflushed_from) {
                        None => {
                            state.writer.flushing = false;
                            return;
                        }
                        Some((age, from)) => {
                            drop(state);
                            self.shared.runtime.clock.sleep_until(from + age).await;
                            continue;
                        }
                    }
                }
                let request = FlushRequest {
                    files: std::mem::take(&mut state.writer.unflushed),
                    dir: std::mem::take(&mut state.writer.dir_unflushed).then(|| self.dir.clone()),
                };
                state.writer.unflushed_bytes = 0;
                state.writer.unflushed_from = None;
                state.writer.forced = false;
                (state.written_end, request)
            };
            let committed = self.shared.committer.commit(request).await;
            match committed {
                Ok(Ok(())) => {
                    self.state.borrow_mut().flushed_end = target;
                    self.progress.flushed.reached(target);
                    self.progress.moved();
                }
                Ok(Err(error)) => self.fence(format!("flush {}: {error}", self.dir.display())),
                Err(_) => self.fence(format!("flush {}: the committer is gone", self.dir.display())),
            }
        }
    }

    /// Stops the log for good: nothing is retried, nobody is told yes.
    pub(super) fn fence(&self, reason: String) {
        {
            let mut state = self.state.borrow_mut();
            if state.fenced.is_some() {
                return;
            }
            tracing::error!(partition = %self.topic_partition, reason, "the log is fenced until it is opened anew");
            state.fenced = Some(Fenced::new(reason));
            state.writer.flushing = false;
        }
        self.progress.give_up();
    }

    fn handle(&self) -> Option<Log> {
        self.me.upgrade().map(|inner| Log { inner })
    }
}

impl Log {
    /// Writes and flushes everything appended so far, whatever the durability mode.
    ///
    /// # Errors
    /// The log is, or was meanwhile, fenced.
    pub async fn flush(&self) -> Result<(), Fenced> {
        let end = self.offsets().log_end;
        self.wait_written(end).await?;
        self.inner.state.borrow_mut().writer.forced = true;
        self.inner.flush_if_due();
        let waited = self.wait_flushed(end).await;
        self.inner.state.borrow_mut().writer.forced = false;
        waited
    }
}

fn take_next(state: &mut State) -> Option<Next> {
    match state.queue.pop_front()? {
        Job::Seal { segment, end, snapshot } => Some(Next::Seal { segment, end, snapshot }),
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
        || writer.forced
        || bytes_max.is_some_and(|max| writer.unflushed_bytes >= max)
        || age_max.zip(writer.unflushed_from).is_some_and(|(age, from)| now.duration_since(from) >= age)
        || state.config.flush_records.is_some_and(|max| records >= max)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
