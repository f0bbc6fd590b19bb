//! The steps the table asks for, one method each. Each leaves, also when a crash ends it, a directory that is in the table.

use std::collections::BTreeSet;
use std::path::Path;

use ouzel_model::Offset;
use ouzel_runtime::File;
use ouzel_runtime::disk::OpenMode;

use super::{EpochsFile, Recovery, io_error, merge, read_error};
use crate::checkpoint::{self, OffsetCheckpoint};
use crate::error::OpenError;
use crate::layout;
use crate::producers::{Producers, snapshot};
use crate::recovery_table::{Action, Stop};
use crate::segment::{Segment, Walk, write_derived};

impl Recovery {
    pub(super) async fn carry_out(&mut self, action: Action) -> Result<(), OpenError> {
        match action {
            Action::ScanFrom(from) => self.scan_from(from).await,
            Action::TruncateTail { file, position, end } => self.truncate_tail(&file, position, end).await,
            Action::FinishRoll => self.finish_roll().await,
            Action::RebuildIndexes => self.rebuild_indexes().await,
            Action::RewriteCheckpoints => self.rewrite_epochs().await,
            Action::FinishSegmentDeletion => {
                self.remove_where(|name| name.ends_with(layout::DELETED_SUFFIX)).await
            }
            Action::UndoSwap => {
                self.remove_where(|name| {
                    name.ends_with(layout::CLEANED_SUFFIX) || name.ends_with(layout::SWAP_SUFFIX)
                })
                .await
            }
            Action::FinishSwap => self.finish_swap().await,
            Action::FinishDeletion => {
                let dir = &self.options.dir;
                self.options.shared.runtime.disk.remove_dir_all(dir).await.map_err(io_error("remove", dir))
            }
            Action::Trust | Action::FlushThenTrust | Action::FencePartition(_) => {
                unreachable!("these end recovery and are not carried out here")
            }
        }
    }

    pub(super) async fn remove_where(&mut self, goes: impl Fn(&str) -> bool) -> Result<(), OpenError> {
        let disk = &self.options.shared.runtime.disk;
        for entry in self.entries.iter().filter(|entry| !entry.is_dir && goes(&entry.name)) {
            let path = self.options.dir.join(&entry.name);
            match disk.remove_file(&path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &path)(error));
                }
                _ => {}
            }
        }
        self.list().await
    }

    /// Puts compacted segments in their places, as `log::swap` was about to do. What such a one was made from is told by
    /// where it ends: it reaches up to the segment behind them.
    async fn finish_swap(&mut self) -> Result<(), OpenError> {
        let disk = self.options.shared.runtime.disk.clone();
        let dir = self.options.dir.clone();
        let extension = format!("{}{}", layout::LOG, layout::SWAP_SUFFIX);
        let decided: Vec<Offset> = self
            .entries
            .iter()
            .filter_map(|entry| layout::parse_segment_file(&entry.name))
            .filter(|(_, found)| *found == extension)
            .map(|(base, _)| base)
            .collect();
        for base in decided {
            let file = layout::segment_file(&dir, base, &extension);
            let walk = Segment::at_path(file.clone(), base)
                .walk(&disk, Walk::at_start(base), Offset(i64::MAX), self.config.index_interval_bytes, |_| {})
                .await
                .map_err(read_error)?;
            // It was flushed before it got its name: no crash explains this.
            if let Some(damage) = walk.damage {
                return Err(damage.into());
            }
            self.remove_where(|name| {
                layout::parse_segment_file(name).is_some_and(|(other, extension)| match extension {
                    layout::LOG | layout::SNAPSHOT | layout::PRODUCERS => base < other && other < walk.end,
                    layout::INDEX | layout::TIME_INDEX => base <= other && other < walk.end,
                    _ => false,
                })
            })
            .await?;
            for extension in [layout::INDEX, layout::TIME_INDEX, layout::LOG] {
                let path = layout::segment_file(&dir, base, extension);
                let decided = layout::with_suffix(&path, layout::SWAP_SUFFIX);
                match disk.rename(&decided, &path).await {
                    // An index: it was renamed already, and removed just now, to be built anew.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    renamed => renamed.map_err(io_error("rename", &decided))?,
                }
            }
        }
        disk.sync_dir(&dir).await.map_err(io_error("flush", &dir))?;
        // What is known by name and size alone may be of the segments that are gone.
        self.segments.clear();
        self.remove_where(|name| {
            name.ends_with(layout::CLEANED_SUFFIX) || name.ends_with(layout::SWAP_SUFFIX)
        })
        .await
    }

    /// Cuts the log, then everything that speaks of more. The log first: a crash in between shows a log that ends before
    /// an offset another file speaks of, and the next start finishes the work.
    async fn truncate_tail(&mut self, file: &Path, position: u64, end: Offset) -> Result<(), OpenError> {
        let disk = self.options.shared.runtime.disk.clone();
        let dir = self.options.dir.clone();
        if file != dir {
            let log = disk.open(file, OpenMode::ReadWrite).await.map_err(io_error("open", file))?;
            let cut = log.len().await.map_err(io_error("read", file))?.saturating_sub(position);
            tracing::warn!(file = %file.display(), position, bytes = cut, %end, "cutting an unfinished tail");
            log.truncate(position).await.map_err(io_error("truncate", file))?;
            log.sync_data().await.map_err(io_error("flush", file))?;
        }
        let beyond = |name: &str| {
            layout::parse_segment_file(name).is_some_and(|(base, extension)| match extension {
                layout::SNAPSHOT | layout::PRODUCERS => base > end,
                layout::LOG => base > end || (base == end && dir.join(name) != file),
                layout::INDEX | layout::TIME_INDEX => base >= end,
                _ => false,
            })
        };
        self.remove_where(beyond).await?;
        disk.sync_dir(&self.options.dir).await.map_err(io_error("flush", &self.options.dir))?;
        let walked = self.walked_from;
        self.scan_from(walked).await
    }

    /// Writes what a sealed segment should have left behind, and removes indexes that belong to no segment.
    async fn finish_roll(&mut self) -> Result<(), OpenError> {
        let bases: BTreeSet<Offset> = self.segments.iter().map(|segment| segment.base).collect();
        self.remove_where(|name| {
            layout::parse_segment_file(name).is_some_and(|(base, extension)| {
                matches!(extension, layout::INDEX | layout::TIME_INDEX) && !bases.contains(&base)
            })
        })
        .await?;
        let Some(last) = self.segments.last().cloned() else { return Ok(()) };
        if self.segments.len() > 1 && self.has(last.base, layout::SNAPSHOT).is_none() {
            // The producers as they were where the last segment begins.
            let end = last.base;
            let at_base = self.producers_at(end).await?;
            let (bytes, windows) = snapshot::encode(&at_base);
            let disk = &self.options.shared.runtime.disk;
            for (extension, bytes) in [(layout::SNAPSHOT, bytes), (layout::PRODUCERS, windows)] {
                let path = layout::segment_file(&self.options.dir, end, extension);
                write_derived(disk, &path, bytes).await.map_err(io_error("write", &path))?;
            }
            self.list().await?;
        }
        Ok(())
    }

    /// Walks the segments before `end` from the newest snapshot at or before it.
    async fn producers_at(&mut self, end: Offset) -> Result<Producers, OpenError> {
        let after = self.producers.clone();
        let before: Vec<_> = self.segments.iter().filter(|segment| segment.base < end).cloned().collect();
        let mut first = before.len().saturating_sub(1);
        loop {
            let base = before.get(first).map_or(end, |segment| segment.base);
            if self.load_producers(base).await {
                break;
            }
            if first == 0 {
                self.producers = Producers::new(base);
                break;
            }
            first -= 1;
        }
        let epochs = self.epochs_walked.clone();
        for segment in before.iter().skip(first) {
            self.walk(segment, Walk::at_start(segment.base)).await?;
        }
        self.complete_producers(end);
        self.epochs_walked = epochs;
        Ok(std::mem::replace(&mut self.producers, after))
    }

    /// Writes the indexes of sealed segments that lack them or whose sizes cannot be right.
    async fn rebuild_indexes(&mut self) -> Result<(), OpenError> {
        let disk = self.options.shared.runtime.disk.clone();
        let sealed = self.segments.len().saturating_sub(1);
        let segments: Vec<_> = self.segments[..sealed].to_vec();
        for segment in segments {
            let (offsets, times) =
                (self.has(segment.base, layout::INDEX), self.has(segment.base, layout::TIME_INDEX));
            let good = offsets.is_some_and(|bytes| bytes % 8 == 0)
                && times.is_some_and(|bytes| bytes % 12 == 0 && (bytes > 0 || segment.size_bytes.get() == 0));
            if good {
                continue;
            }
            segment.rebuild_indexes(&disk, self.config.index_interval_bytes).await.map_err(read_error)?;
            self.rebuilt.insert(segment.base);
        }
        self.list().await
    }

    async fn rewrite_epochs(&mut self) -> Result<(), OpenError> {
        // Without a readable file every epoch must come from the batches, also those before the walk.
        if self.epochs_file != EpochsFile::Read && self.walked_from > self.first_base() {
            let start = self.first_base();
            self.scan_from(start).await?;
        }
        self.epochs.truncate_to(self.log_end());
        merge(&mut self.epochs, &self.epochs_walked);
        let path = self.options.dir.join(layout::LEADER_EPOCHS);
        let disk = &self.options.shared.runtime.disk;
        disk.write_atomic(&path, self.epochs.encode().into()).await.map_err(io_error("write", &path))?;
        self.epochs_file = EpochsFile::Rewritten;
        Ok(())
    }

    /// Up to where compaction has cleaned the log. A note of more than the log holds is of records that were lost: it goes
    /// before others are given their offsets, which would pass for clean.
    pub(super) async fn read_first_dirty(&self, log_end: Offset) -> Result<Option<Offset>, OpenError> {
        let disk = &self.options.shared.runtime.disk;
        let path = self.options.dir.join(layout::CLEANED_TO);
        let first_dirty = match checkpoint::read(disk, &path, OffsetCheckpoint::decode).await {
            Ok(None) => return Ok(None),
            Ok(Some(note)) => note.0.values().max().copied(),
            Err(checkpoint::CheckpointError::Io { path, source }) => {
                return Err(io_error("read", &path)(source));
            }
            Err(checkpoint::CheckpointError::Malformed { path, source }) => {
                tracing::warn!(file = %path.display(), reason = %source, "cannot tell how far the log is compacted; it will be compacted anew");
                None
            }
        };
        let first_dirty = first_dirty.filter(|first_dirty| *first_dirty <= log_end);
        if first_dirty.is_none() {
            disk.remove_file(&path).await.map_err(io_error("remove", &path))?;
            disk.sync_dir(&self.options.dir).await.map_err(io_error("flush", &self.options.dir))?;
        }
        Ok(first_dirty)
    }

    /// Whether what can be read may not be on the medium although a flush of it would succeed: the last process's flush may
    /// have failed, and the kernel takes pages for clean then that it has not written. Another boot has read the medium. So in
    /// every durability mode: none promises much, but what is said to be flushed is.
    fn may_be_falsely_clean(&self) -> bool {
        self.options.stop == Stop::UncleanSameBoot
    }

    /// Nothing may be shown or built upon that a power cut could still take.
    pub(super) async fn flush_all(&self) -> Result<(), OpenError> {
        if self.segments.is_empty() {
            return Ok(());
        }
        let disk = &self.options.shared.runtime.disk;
        let metadata = self.options.dir.join(layout::PARTITION_METADATA);
        let mut files =
            vec![disk.open(&metadata, OpenMode::ReadWrite).await.map_err(io_error("open", &metadata))?];
        for segment in self.segments.iter().filter(|segment| segment.base >= self.walked_from) {
            let file = segment.file(disk).await.map_err(io_error("open", segment.path()))?;
            if self.may_be_falsely_clean() {
                let indexes = segment.indexes_in_memory().unwrap_or_default();
                let from = indexes.borrow().position_before(segment.base, self.options.flushed);
                write_again(&file, from).await.map_err(io_error("write", segment.path()))?;
            }
            files.push(file);
        }
        if self.may_be_falsely_clean() {
            write_again(&files[0], 0).await.map_err(io_error("write", &metadata))?;
        }
        for file in files {
            file.sync_data().await.map_err(io_error("flush", file.path()))?;
        }
        let dir = self.options.dir.as_path();
        for dir in [Some(dir), dir.parent()].into_iter().flatten() {
            disk.sync_dir(dir).await.map_err(io_error("flush", dir))?;
        }
        Ok(())
    }
}

/// Bytes that are read and written again at a time.
const AGAIN_BYTES: usize = 1 << 20;

/// Writes a file's bytes from a position on where they are, so that the next flush really flushes them. A crash meanwhile
/// changes nothing: they are the same bytes.
pub(super) async fn write_again(file: &File, from: u64) -> std::io::Result<()> {
    let mut at = from;
    loop {
        let bytes = file.read_at(at, AGAIN_BYTES).await?;
        if bytes.is_empty() {
            return Ok(());
        }
        let end = at + bytes.len() as u64;
        file.write_at(at, vec![bytes]).await?;
        at = end;
    }
}
