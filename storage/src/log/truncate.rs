//! Cutting the tail: a follower's last records were not the leader's.

use std::io;
use std::rc::Rc;

use ouzel_model::Offset;
use ouzel_runtime::disk::OpenMode;

use super::{Inner, Log};
use crate::error::{Fenced, ReadError};
use crate::layout;
use crate::producers::Producers;
use crate::producers::snapshot::{self, Windows};
use crate::segment::{Segment, WALK_BYTES, Walk};

impl Log {
    /// Cuts the log to the last batch that lies below `to` as a whole, durably, and gives the new log end. Appends are
    /// refused until that is done; whoever waits for a record that is cut hears so.
    ///
    /// What the owner wrote down elsewhere about how far this log is flushed must be lowered first: a crash in between
    /// must not find a log that is shorter than promised.
    ///
    /// It is done also if the future is dropped.
    ///
    /// # Errors
    /// The log is, or is now, fenced.
    pub async fn truncate_to(&self, to: Offset) -> Result<Offset, Fenced> {
        let cutting = Cutting::begin(self)?;
        let log = self.clone();
        to_its_end(async move { log.cut_to(to, &cutting).await }).await
    }

    async fn cut_to(&self, to: Offset, _appends_refused: &Cutting) -> Result<Offset, Fenced> {
        let inner = &self.inner;
        inner.start_at_rest().await;
        let _uncompacted = self.hold_compaction().await;
        self.flush().await?;
        inner.at_rest().await;
        if let Some(fenced) = self.fenced() {
            return Err(fenced);
        }
        let offsets = self.offsets();
        if to >= offsets.log_end {
            return Ok(offsets.log_end);
        }
        let cut = inner.cut_tail(to.max(offsets.log_start), None).await;
        cut.map_err(|error| {
            inner.fence(format!("truncate {}: {error}", inner.dir.display()));
            Fenced::new(format_args!("truncate {}: {error}", inner.dir.display()))
        })
    }
}

/// Drives what must not stop half way to its end, whether or not anybody waits for it: files that are changed while the
/// log in memory is not would lend its offsets out twice.
pub(super) async fn to_its_end<T: 'static>(
    work: impl Future<Output = Result<T, Fenced>> + 'static,
) -> Result<T, Fenced> {
    ouzel_runtime::spawn(work).await.unwrap_or_else(|error| Err(Fenced::new(error)))
}

/// Refuses appends, rolls and trims while it lives; a close waits for its end.
pub(super) struct Cutting {
    log: Log,
}

impl Cutting {
    pub(super) fn begin(log: &Log) -> Result<Cutting, Fenced> {
        let inner = &log.inner;
        let mut state = inner.state.borrow_mut();
        if let Some(fenced) = &state.fenced {
            return Err(fenced.clone());
        }
        if state.closing {
            return Err(Fenced::new(format_args!("{} is closed", inner.topic_partition)));
        }
        if std::mem::replace(&mut state.cutting, true) {
            return Err(Fenced::new(format_args!("{} is being truncated", inner.topic_partition)));
        }
        Ok(Cutting { log: log.clone() })
    }
}

impl Drop for Cutting {
    fn drop(&mut self) {
        self.log.inner.state.borrow_mut().cutting = false;
        self.log.inner.settled.notify_waiters();
    }
}

impl Inner {
    /// Resolves when the tail is not being cut.
    pub(super) async fn cut_at_rest(&self) {
        loop {
            let settled = self.settled.notified();
            if !self.state.borrow().cutting {
                return;
            }
            settled.await;
        }
    }

    /// `active` is the base of the segment that is the active one afterwards; without it, it is the one that holds `to`.
    pub(super) async fn cut_tail(&self, to: Offset, active: Option<Offset>) -> Result<Offset, ReadError> {
        let Some(_inside) = self.gate.enter() else { return Err(ReadError::Deleted) };
        let disk = &self.shared.runtime.disk;
        let segments = self.state.borrow().segments.clone();
        let holder = active.unwrap_or(to);
        let at = segments.partition_point(|segment| segment.base <= holder).saturating_sub(1);
        let kept = &segments[..=at];
        let (walk, producers) = self.walk_to(kept, to).await?;
        let (last, position) = (&kept[at], walk.position);

        // What will be appended in the place of clean records is dirty. Noted first: a crash in between costs no more than a
        // longer pass.
        if self.state.borrow().first_dirty.is_some_and(|first_dirty| first_dirty > walk.end) {
            self.note_first_dirty(walk.end).await?;
        }

        // Nobody sees the records any more before the first byte of them goes.
        let (end, is_emptied, is_given) = {
            let mut state = self.state.borrow_mut();
            self.cuts.set(self.cuts.get() + 1);
            // A log start within a batch: what is left of that one lies below the start, so nothing is left.
            let is_emptied = walk.end < state.log_start;
            let end = walk.end.max(state.log_start);
            if is_emptied {
                state.segments = vec![Segment::new(&self.dir, end)];
            } else {
                // By their offsets: the first ones may have been dropped meanwhile.
                state.segments.retain(|segment| segment.base <= last.base);
                last.cut(walk);
            }
            (state.log_end, state.written_end, state.flushed_end) = (end, end, end);
            state.producers = producers;
            state.epochs_dirty |= state.epochs.truncate_to(end);
            state.unclosed = true;
            self.tail.truncate(end);
            // From here on no reader is given anything at or above the end.
            (end, is_emptied, self.given_end.replace(self.given_end.get().min(end)) > end)
        };
        let cut = Fenced::new(format_args!("{} was truncated to offset {end}", self.topic_partition));
        self.progress.give_up_beyond(end, &cut);
        self.progress.moved();

        // The log itself first, then all that speaks of more: a start that finds this half done finishes it.
        let failed = |source| ReadError::Io { path: last.path().to_owned(), source };
        if !is_emptied
            && (position > 0
                || last.size_bytes.get() > 0
                || disk.exists(last.path()).await.map_err(failed)?)
        {
            self.shorten(last, position, is_given).await.map_err(failed)?;
        }
        let mut beyond = Vec::new();
        for entry in disk.list_dir(&self.dir).await.map_err(failed)? {
            let Some((base, extension)) = layout::parse_segment_file(&entry.name) else { continue };
            let goes = match extension {
                layout::SNAPSHOT | layout::PRODUCERS => base > end,
                layout::LOG => is_emptied || base > last.base,
                layout::INDEX | layout::TIME_INDEX => is_emptied || base >= last.base,
                _ => false,
            };
            if goes {
                beyond.push(self.dir.join(entry.name));
            }
        }
        // The newest first: what a crash leaves has no gap.
        for path in beyond.into_iter().rev() {
            match disk.remove_file(&path).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        disk.sync_dir(&self.dir).await.map_err(failed)?;
        self.write_epochs().await.map_err(failed)?;
        self.cuts.set(self.cuts.get() + 1);
        Ok(end)
    }

    /// Cuts a segment's file, durably. Where something of it `is_given` to readers beyond the cut, they keep the file as it
    /// is and the segment gets a new one: the kernel may be sending the very pages in which the next records would lie.
    async fn shorten(&self, segment: &Segment, position: u64, is_given: bool) -> io::Result<()> {
        let disk = &self.shared.runtime.disk;
        let file = disk.open(segment.path(), OpenMode::CreateOrOpen).await?;
        // What ends here loses nothing: all that was given of it stays where it is.
        if !is_given || file.len().await? == position {
            file.truncate(position).await?;
            return file.sync_data().await;
        }
        // Under a name that a start removes: until it has the other one, the long file is the log, as before any cut.
        let path = self.cleaned_path(segment.base, layout::LOG);
        let (from, to) = (segment.file(disk).await?, disk.open(&path, OpenMode::CreateOrOpen).await?);
        to.truncate(0).await?;
        let mut at = 0;
        while at < position {
            let len = WALK_BYTES.min((position - at) as usize);
            let bytes = from.read_at(at, len).await?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let read = bytes.len() as u64;
            to.write_at(at, vec![bytes]).await?;
            at += read;
        }
        to.sync_all().await?;
        disk.rename(&path, segment.path()).await?;
        disk.sync_dir(&self.dir).await?;
        segment.change_file();
        Ok(())
    }

    /// Walks the last of `segments` up to `to`, with the producers as they are there.
    pub(super) async fn walk_to(
        &self,
        segments: &[Rc<Segment>],
        to: Offset,
    ) -> Result<(Walk, Producers), ReadError> {
        let runtime = &self.shared.runtime;
        let now = ouzel_model::TimestampMs(runtime.clock.wall_ms());
        let interval_bytes = self.state.borrow().config.index_interval_bytes;
        let (mut first, mut producers) = (0, Producers::new(segments[0].base));
        for (at, segment) in segments.iter().enumerate().rev() {
            let file = |extension| layout::segment_file(&self.dir, segment.base, extension);
            let Ok(bytes) = runtime.disk.read(&file(layout::SNAPSHOT)).await else { continue };
            let windows = runtime.disk.read(&file(layout::PRODUCERS)).await.ok();
            match snapshot::load(&bytes, windows.as_deref(), segment.base, now) {
                // The windows are in the batches before it.
                Ok((_, Windows::NewestOnly(_))) if at > 0 => {}
                Ok((known, _)) => {
                    (first, producers) = (at, known);
                    break;
                }
                Err(_) => {}
            }
        }
        let mut walked = Walk::at_start(segments[first].base);
        for segment in &segments[first..] {
            let start = Walk::at_start(segment.base);
            if segment.written_bytes.get() == 0 {
                walked = start;
                continue;
            }
            let update = |header: &ouzel_model::batch::Header| producers.update(header, now);
            walked = segment.walk(&runtime.disk, start, to, interval_bytes, update).await?;
            if let Some(damage) = walked.damage {
                return Err(damage.into());
            }
        }
        // Producers that are silent since before the walk; what the others lose here, the walk has seen.
        let mut known = self.state.borrow().producers.clone();
        let _ = known.truncate_to(walked.end);
        producers.adopt_missing(&known);
        Ok((walked, producers))
    }
}
