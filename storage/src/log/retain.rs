//! The head of a log: retention and trims, and the files they leave behind.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ouzel_model::{Offset, TimestampMs};

use super::{Inner, Log, State};
use crate::checkpoint::{self, OffsetCheckpoint};
use crate::config::Durability;
use crate::error::{Fenced, ReadError};
use crate::layout;
use crate::retention::{SegmentAge, expired};
use crate::segment::Segment;

impl Log {
    /// Drops the segments whose time is over or that are too many; their files go after `file.delete.delay.ms`. Gives the
    /// number of segments dropped. What is not yet as safe as the durability asks is not dropped.
    ///
    /// # Errors
    /// If a segment's age cannot be read, or the new start not be noted; nothing was dropped then.
    pub async fn retain(&self, now: TimestampMs) -> Result<usize, ReadError> {
        let Some(start) = self.retention_start(now).await? else { return Ok(0) };
        let dropped = self.inner.start_at(start).await;
        dropped.map_err(|source| ReadError::Io { path: self.inner.start_file(), source })
    }

    /// Where the log would start if retention had its way: behind the last segment whose time is over, or that is too many;
    /// none if all may stay. Nothing is dropped.
    ///
    /// # Errors
    /// If a segment's age cannot be read.
    pub async fn retention_start(&self, now: TimestampMs) -> Result<Option<Offset>, ReadError> {
        let (segments, config) = {
            let state = self.inner.state.borrow();
            (state.segments.clone(), state.config.clone())
        };
        if config.retention_ms.is_none() && config.retention_bytes.is_none() {
            return Ok(None);
        }
        let mut ages = Vec::with_capacity(segments.len());
        for segment in &segments {
            let size_bytes = segment.size_bytes.get();
            let mut max_timestamp = segment.last_write.get();
            // By time the first that stays keeps all behind it: their indexes need not be read.
            if size_bytes > 0 && config.retention_ms.is_some() && expired(&ages, &config, now) == ages.len() {
                max_timestamp = self.age_begin_of(segment).await?;
            }
            ages.push(SegmentAge { size_bytes, max_timestamp });
        }
        Ok(expired(&ages, &config, now).checked_sub(1).map(|last| segments[last].end.get()))
    }

    /// What the age of a segment counts from: the largest timestamp of its records; of one that compaction has emptied, the
    /// largest that its batches had; of records without timestamps, the last write.
    ///
    /// An emptied one holds nothing but lies before records whose time may be over: the last write is as late as the last
    /// start, and would keep all of them for another `retention.ms` each time.
    pub(super) async fn age_begin_of(&self, segment: &Rc<Segment>) -> Result<TimestampMs, ReadError> {
        let of_records = self.max_timestamp_of(segment).await?;
        if of_records != TimestampMs::NONE {
            return Ok(of_records);
        }
        let last_write = segment.last_write.get();
        if !segment.sealed.get() {
            return Ok(last_write);
        }
        let Some(_inside) = self.inner.gate.enter() else { return Err(ReadError::Deleted) };
        let of_emptied = segment.max_timestamp_if_emptied(&self.inner.shared.runtime.disk).await?;
        Ok(of_emptied.unwrap_or(last_write))
    }

    /// Moves the log start up to `to`, durably: what lies below is never read again, whole segments of it go after
    /// `file.delete.delay.ms`. A start beyond what is as safe as the durability asks becomes that; one that is passed
    /// already changes nothing, nor does any while the tail is being cut. Gives the log start.
    ///
    /// # Errors
    /// If the new start cannot be noted on the disk; the old one holds then.
    pub async fn trim_to(&self, to: Offset) -> Result<Offset, Fenced> {
        let start_file = self.inner.start_file();
        let trimmed = self.inner.start_at(to).await;
        trimmed.map_err(|error| Fenced::new(format_args!("write {}: {error}", start_file.display())))?;
        Ok(self.offsets().log_start)
    }
}

impl Inner {
    fn start_file(&self) -> PathBuf {
        self.dir.join(layout::LOG_START)
    }

    /// Notes the new start, then lets go of what lies below. In this order: a log of which nothing is left knows its
    /// offsets from the note. Gives the number of segments dropped.
    async fn start_at(&self, start: Offset) -> io::Result<usize> {
        let _inside = self.gate.enter().ok_or_else(|| io::Error::other("the partition was deleted"))?;
        // One after the other: a note of an earlier start must not replace that of a later one.
        let _alone = self.small_files.lock().await;
        let start = {
            let state = self.state.borrow();
            let start = start.min(state.safe_end());
            // While the tail is being cut nobody knows where the log will end: the trim is for another time. One that is closed
            // may be open as another by now.
            if start <= state.log_start || state.cutting || state.closing {
                return Ok(0);
            }
            start
        };
        let text = OffsetCheckpoint(BTreeMap::from([(self.topic_partition.clone(), start)])).encode();
        let disk = &self.shared.runtime.disk;
        checkpoint::write(disk, &self.start_file(), text).await?;
        // In the modes that flush late the directory itself may not be on the disk yet.
        let parent_unflushed = self.state.borrow().writer.parent_unflushed;
        if let Some(parent) = self.dir.parent().filter(|_| parent_unflushed) {
            disk.sync_dir(parent).await?;
        }
        {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            state.log_start = start;
            state.unclosed = true;
            state.epochs_dirty |= state.epochs.trim_to(start);
            state.producers.trim_to(start);
        }
        let dropped = self.drop_below_start();
        self.progress.moved();
        Ok(dropped)
    }

    /// Resolves when no trim is under way.
    pub(super) async fn start_at_rest(&self) {
        drop(self.small_files.lock().await);
    }

    /// Drops the segments that lie below the log start as a whole; gives their number.
    pub(super) fn drop_below_start(&self) -> usize {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let start = state.log_start;
        // Numbered entries stay until they are purged, whether or not anybody may read their records.
        let numbered_from = state.entries.as_ref().map(|entries| entries.first_base());
        let is_trimmed = state.active().end.get() <= start && state.active().size_bytes.get() > 0;
        if is_trimmed && numbered_from.is_none() && !state.cutting {
            self.roll(state);
        }
        let sealed = state.segments.len() - 1;
        // A segment whose files are being replaced goes when that is done.
        let droppable = match &state.swapping {
            Some(swapping) => state.segments.partition_point(|segment| segment.base < swapping.start),
            None => sealed,
        };
        let gone = state.segments[..sealed.min(droppable)].partition_point(|segment| {
            segment.end.get() <= start && numbered_from.is_none_or(|from| segment.base < from)
        });
        for segment in state.segments.drain(..gone) {
            state.queue.push_back(super::writer::Job::Drop { segment });
        }
        if gone > 0 {
            self.start_writer(state);
        }
        gone
    }

    /// Renames a dropped segment's files at once, so that a start does not take them for the log's, and unlinks them
    /// later: readers may still be on their way to them, and unlinking takes its time on some file systems.
    pub(super) async fn drop_files(&self, segment: &Rc<Segment>) {
        let mut renamed = Vec::new();
        for path in files_of(&self.dir, segment.base) {
            match self.rename_away(&path).await {
                Ok(gone) => renamed.extend(gone),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "a dropped segment's file stays")
                }
            }
        }
        self.unlink_later(renamed);
    }

    /// Gives a file the name of one that is as good as gone, and that name; none if there was no such file.
    pub(super) async fn rename_away(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        let gone = layout::with_suffix(path, layout::DELETED_SUFFIX);
        match self.shared.runtime.disk.rename(path, &gone).await {
            Ok(()) => Ok(Some(gone)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Unlinks files after `file.delete.delay.ms`.
    pub(super) fn unlink_later(&self, renamed: Vec<PathBuf>) {
        let disk = self.shared.runtime.disk.clone();
        let delay = self.state.borrow().config.file_delete_delay;
        let clock = self.shared.runtime.clock.clone();
        ouzel_runtime::spawn(async move {
            clock.sleep(delay).await;
            for path in renamed {
                match disk.remove_file(&path).await {
                    // Gone with its directory, perhaps.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(file = %path.display(), %error, "a dropped segment's file stays until the next start");
                    }
                    _ => {}
                }
            }
        });
    }
}

/// The files of a segment. The snapshot named after its base is the state before it: it goes with it. The batches are
/// first: what is left without them is an orphan that the next start removes.
pub(super) fn files_of(dir: &Path, base: Offset) -> [PathBuf; 5] {
    [layout::LOG, layout::INDEX, layout::TIME_INDEX, layout::SNAPSHOT, layout::PRODUCERS]
        .map(|extension| layout::segment_file(dir, base, extension))
}

impl State {
    /// End of what may be dropped: in the modes that rarely flush, waiting for a flush would keep segments for ever.
    fn safe_end(&self) -> Offset {
        if self.config.durability == Durability::Durable { self.flushed_end } else { self.written_end }
    }
}
