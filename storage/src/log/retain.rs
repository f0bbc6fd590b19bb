//! The head of a log and its end: retention, checkpoint, close, deletion.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use ouzel_model::{Offset, TimestampMs};

use super::Log;
use crate::error::ReadError;
use crate::layout;
use crate::retention::{SegmentAge, expired};
use crate::segment::{Segment, write_cache};

impl Log {
    /// Drops the segments whose time is over or that are too many; their files go after `file.delete.delay.ms`. Gives the
    /// number of segments dropped.
    ///
    /// # Errors
    /// If a segment's age cannot be read; nothing was dropped then.
    pub async fn retain(&self, now: TimestampMs) -> Result<usize, ReadError> {
        let (segments, config) = {
            let state = self.inner.state.borrow();
            (state.segments.clone(), state.config.clone())
        };
        if config.retention_ms.is_none() && config.retention_bytes.is_none() {
            return Ok(0);
        }
        let mut ages = Vec::with_capacity(segments.len());
        for segment in &segments {
            let max_timestamp =
                if segment.size_bytes.get() == 0 { TimestampMs::NONE } else { self.max_timestamp_of(segment).await? };
            ages.push(SegmentAge { size_bytes: segment.size_bytes.get(), max_timestamp });
        }
        let gone = expired(&ages, &config, now);
        if gone == 0 {
            return Ok(0);
        }
        let dropped = self.drop_oldest(&segments[..gone]);
        Ok(dropped)
    }

    /// Takes segments off the front, if they are still there and everything in them is written.
    fn drop_oldest(&self, oldest: &[Rc<Segment>]) -> usize {
        let gone: Vec<_> = {
            let mut state = self.inner.state.borrow_mut();
            let state = &mut *state;
            if oldest.iter().any(|segment| Rc::ptr_eq(segment, state.active())) {
                self.inner.roll(state);
            }
            // A flush may be under way on files that hold unflushed bytes; they go at a later pass.
            let may_go = |segment: &&Rc<Segment>| {
                oldest.iter().any(|old| Rc::ptr_eq(old, segment)) && segment.end.get() <= state.flushed_or_written()
            };
            let count = state.segments.iter().take_while(may_go).count();
            let gone: Vec<_> = state.segments.drain(..count).collect();
            if count > 0 {
                state.log_start = state.log_start.max(state.active_or_first());
                let log_start = state.log_start;
                if state.epochs.trim_to(log_start) {
                    state.epochs_dirty = true;
                }
                state.producers.trim_to(log_start);
            }
            gone
        };
        for segment in &gone {
            self.delete_later(segment.clone());
        }
        if !gone.is_empty() {
            self.inner.progress.moved();
        }
        gone.len()
    }

    /// Renames a segment's files at once, so that a start does not take them for the log's, and unlinks them later:
    /// readers may still be on their way to them.
    fn delete_later(&self, segment: Rc<Segment>) {
        let log = self.clone();
        ouzel_runtime::spawn(async move {
            let disk = &log.inner.shared.runtime.disk;
            let delay = log.inner.state.borrow().config.file_delete_delay;
            let mut renamed = Vec::new();
            for extension in [layout::LOG, layout::INDEX, layout::TIME_INDEX, layout::SNAPSHOT, layout::PRODUCERS] {
                // The snapshot named after a segment's base is the state before it: it goes with it.
                let path = layout::segment_file(&log.inner.dir, segment.base, extension);
                let gone = PathBuf::from(format!("{}{}", path.display(), layout::DELETED_SUFFIX));
                match disk.rename(&path, &gone).await {
                    Ok(()) => renamed.push(gone),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => tracing::warn!(file = %path.display(), %error, "a dropped segment's file stays"),
                }
            }
            log.inner.shared.runtime.clock.sleep(delay).await;
            for path in renamed {
                match disk.remove_file(&path).await {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => tracing::warn!(file = %path.display(), %error, "a dropped segment's file stays"),
                }
            }
        });
    }

    /// Writes and flushes everything, with indexes, producers and epochs, so that the next start need not scan. Gives the
    /// log end offset for the clean mark. The log must not be appended to any more.
    ///
    /// # Errors
    /// In words; the next start then recovers as after a crash.
    pub async fn close(&self) -> Result<Offset, String> {
        self.flush().await.map_err(|fenced| fenced.to_string())?;
        let (active, end, snapshot) = {
            let state = self.inner.state.borrow();
            (state.active().clone(), state.log_end, crate::producers::snapshot::encode(&state.producers))
        };
        let disk = &self.inner.shared.runtime.disk;
        let dir = &self.inner.dir;
        let closing = async {
            if active.size_bytes.get() > 0
                && let Some(indexes) = active.indexes_in_memory()
            {
                let mut indexes = indexes.borrow().clone();
                indexes.enter_largest();
                active.write_indexes(disk, &indexes).await?;
            }
            // A log nobody wrote to, and that never had producers, leaves no files for saying so.
            if end > Offset::ZERO {
                write_cache(disk, &layout::segment_file(dir, end, layout::SNAPSHOT), snapshot.0).await?;
                write_cache(disk, &layout::segment_file(dir, end, layout::PRODUCERS), snapshot.1).await?;
            }
            self.inner.write_epochs().await
        };
        closing.await.map_err(|error: io::Error| format!("close {}: {error}", dir.display()))?;
        Ok(end)
    }

    /// Ends the log for good: everybody who waits is told, and the directory is renamed away; its contents go after
    /// `file.delete.delay.ms`, or at the next start. A partition of the same name may be created at once.
    ///
    /// # Errors
    /// If the directory cannot be renamed.
    pub async fn delete(&self) -> io::Result<()> {
        self.inner.fence(format!("partition {} is deleted", self.inner.topic_partition));
        let runtime = &self.inner.shared.runtime;
        let gone = layout::deleted_dir(&self.inner.dir, runtime.entropy.uuid());
        runtime.disk.rename(&self.inner.dir, &gone).await?;
        let log = self.clone();
        ouzel_runtime::spawn(async move {
            let delay = log.inner.state.borrow().config.file_delete_delay;
            let runtime = &log.inner.shared.runtime;
            runtime.clock.sleep(delay).await;
            if let Err(error) = runtime.disk.remove_dir_all(&gone).await {
                tracing::warn!(dir = %gone.display(), %error, "a deleted partition's directory stays until the next start");
            }
        });
        Ok(())
    }
}

impl super::State {
    fn flushed_or_written(&self) -> Offset {
        // In the modes that rarely flush, waiting for a flush would keep segments for ever.
        if self.config.durability == crate::config::Durability::Durable { self.flushed_end } else { self.written_end }
    }

    fn active_or_first(&self) -> Offset {
        self.segments.first().map_or(self.log_end, |segment| segment.base)
    }
}
