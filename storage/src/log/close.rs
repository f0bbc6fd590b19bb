//! How a log ends: closed for the next start to trust, or deleted.

use std::io;

use ouzel_model::Offset;

use super::{Inner, Log};
use crate::error::Fenced;
use crate::layout;
use crate::producers::snapshot;
use crate::segment::write_derived;
use crate::side_file::encode_ends;

impl Log {
    /// Brings the files that are derived from the batches up to date while the log goes on: the active segment's indexes
    /// and the leader epochs. A start after a crash does without them; who looks at the files of a live log does not.
    ///
    /// # Errors
    /// Those of the disk. The log is none the worse.
    pub async fn checkpoint(&self) -> io::Result<()> {
        let Some(_inside) = self.inner.gate.enter() else { return Ok(()) };
        if self.inner.state.borrow().unclosed { self.inner.write_active_indexes().await } else { Ok(()) }?;
        self.inner.write_epochs().await
    }

    /// Writes and flushes everything, with indexes, producers and epochs, so that the next start need not scan. Gives the
    /// log end offset for the clean mark. Appends are refused from the call on, reads go on.
    ///
    /// Dropped, or failed: the log takes no more records, and the next start must treat it as after a crash.
    ///
    /// # Errors
    /// In words.
    pub async fn close(&self) -> Result<Offset, String> {
        self.inner.state.borrow_mut().closing = true;
        self.inner.cut_at_rest().await;
        self.inner.start_at_rest().await;
        let _uncompacted = self.hold_compaction().await;
        self.flush().await.map_err(|fenced| fenced.to_string())?;
        self.inner.at_rest().await;
        let Some(_inside) = self.inner.gate.enter() else { return Err("the partition was deleted".into()) };
        let (end, unclosed, state_files) = {
            let state = self.inner.state.borrow();
            (state.log_end, state.unclosed, snapshot::encode(&state.producers))
        };
        // A log nobody wrote to since its files were right leaves them alone: many partitions stop at once.
        if unclosed {
            let producers = async {
                // A log that never had a record leaves no files for saying so.
                if end > Offset::ZERO {
                    let disk = &self.inner.shared.runtime.disk;
                    let (bytes, windows) = state_files;
                    for (extension, bytes) in [(layout::PRODUCERS, windows), (layout::SNAPSHOT, bytes)] {
                        write_derived(disk, &layout::segment_file(&self.inner.dir, end, extension), bytes)
                            .await?;
                    }
                }
                Ok(())
            };
            // They are about different files: a stop of many logs waits for the disk often enough.
            let (indexes, producers, epochs) =
                tokio::join!(biased; self.inner.write_active_indexes(), producers, self.inner.write_epochs());
            indexes
                .and(producers)
                .and(epochs)
                .map_err(|error: io::Error| format!("close {}: {error}", self.inner.dir.display()))?;
            self.inner.state.borrow_mut().unclosed = false;
        }
        Ok(end)
    }

    /// Ends the log for good: everybody who waits is told, and the directory is renamed away; its contents go after
    /// `file.delete.delay.ms`, or at the next start. When this returns, a partition of the same name may be created.
    ///
    /// # Errors
    /// If the directory cannot be renamed; the log is of no use all the same, and the call may be repeated.
    pub async fn delete(&self) -> io::Result<()> {
        let inner = &self.inner;
        let deleted = Fenced::new(format_args!("partition {} was deleted", inner.topic_partition));
        let first = inner.state.borrow_mut().fenced.replace(deleted.clone()).is_none();
        if first {
            inner.end_with(&deleted);
        }
        inner.compaction_wake.notify_waiters();
        inner.gate.shut().await;
        let runtime = inner.shared.runtime.clone();
        let gone = layout::deleted_dir(&inner.dir, runtime.entropy.uuid());
        runtime.disk.rename(&inner.dir, &gone).await?;
        if let Some(parent) = inner.dir.parent() {
            runtime.disk.sync_dir(parent).await?;
        }
        let delay = inner.state.borrow().config.file_delete_delay;
        ouzel_runtime::spawn(async move {
            runtime.clock.sleep(delay).await;
            if let Err(error) = runtime.disk.remove_dir_all(&gone).await {
                tracing::warn!(dir = %gone.display(), %error, "a deleted partition's directory stays until the next start");
            }
        });
        Ok(())
    }
}

impl Inner {
    /// As they would be if the segment were sealed now: with the largest timestamp entered.
    async fn write_active_indexes(&self) -> io::Result<()> {
        let active = self.state.borrow().active().clone();
        let Some(indexes) = active.indexes_in_memory().filter(|_| active.size_bytes.get() > 0) else {
            return Ok(());
        };
        let mut indexes = indexes.borrow().clone();
        indexes.enter_largest();
        let ends = {
            let state = self.state.borrow();
            // The map may speak of batches that are not written yet; a log that is closed has none.
            state
                .entries
                .as_ref()
                .filter(|_| state.closing)
                .map(|entries| encode_ends(&entries.active().ends))
        };
        if let Some(ends) = ends {
            let path = layout::segment_file(&self.dir, active.base, layout::ENTRY_INDEX);
            write_derived(&self.shared.runtime.disk, &path, ends).await?;
        }
        active.write_indexes(&self.shared.runtime.disk, &indexes).await
    }
}
