//! Puts a segment that compaction has made in the place of those it was made from.
//!
//! ```text
//!  written and flushed     <base>.log.cleaned                 the sources are the log; a start removes what is new
//!  decided                 <base>.log.swap                    a start completes: the sources go
//!  the others go           <later bases>.* -> *.deleted
//!  in its place            <base>.log                         done
//! ```
//!
//! The `.log` is renamed last each time, so its name says how far the swap is; names change on the disk in the order in
//! which they were changed. Whoever is reading the sources goes on reading them: their files are kept open.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use ouzel_model::Offset;

use super::compact::{Anew, CompactError};
use super::retain::files_of;
use super::{Inner, State};
use crate::checkpoint::{self, OffsetCheckpoint};
use crate::error::{Fenced, ReadError};
use crate::layout;
use crate::segment::{Segment, place_derived, write_derived};

/// The order in which a segment's files change their names.
const LOG_LAST: [&str; 3] = [layout::INDEX, layout::TIME_INDEX, layout::LOG];

impl Inner {
    /// Puts a group written anew in its place, on the disk and then in memory. To be driven to its end.
    pub(super) async fn swap(&self, anew: Anew) -> Result<(), CompactError> {
        let Some(_inside) = self.gate.enter() else { return Err(CompactError::Interrupted) };
        let base = anew.sources[0].base;
        {
            let mut state = self.state.borrow_mut();
            self.check_compaction_in(&state)?;
            if state.place_of(&anew.sources).is_none() {
                return Err(CompactError::Interrupted);
            }
            let end = anew.sources[anew.sources.len() - 1].end.get();
            state.swapping = Some(base..end);
        }
        let swapped = self.swap_files(&anew).await;
        let segment = Segment::existing(&self.dir, base, base, anew.size_bytes);
        {
            let mut state = self.state.borrow_mut();
            let swapping = state.swapping.take();
            if swapped.is_ok() {
                let place = state.place_of(&anew.sources);
                let (Some(place), Some(swapping)) = (place, swapping) else {
                    unreachable!("segments that are being replaced are neither dropped nor cut")
                };
                segment.end.set(swapping.end);
                segment.first_timestamp.set(anew.first_timestamp);
                segment.last_write.set(anew.sources[anew.sources.len() - 1].last_write.get());
                segment.set_indexes(anew.indexes);
                segment.sealed.set(true);
                state.segments.splice(place, [segment.clone()]);
                self.tail.forget_below(swapping.end);
            }
        }
        if swapped.is_ok() {
            self.shared.open_segments.touch(&segment);
        }
        // Retention may have passed over what was being replaced.
        self.drop_below_start();
        swapped
    }

    async fn swap_files(&self, anew: &Anew) -> Result<(), CompactError> {
        let disk = &self.shared.runtime.disk;
        let base = anew.sources[0].base;
        let prepared = async {
            for source in &anew.sources {
                source.hold_for_readers(disk).await?;
            }
            write_derived(disk, &self.cleaned_path(base, layout::INDEX), anew.indexes.encode_offsets())
                .await?;
            let times = self.cleaned_path(base, layout::TIME_INDEX);
            // Flushed: one that lost its end would hide records from a look-up.
            place_derived(disk, &times, anew.indexes.encode_times()).await?.sync_data().await
        };
        if let Err(source) = prepared.await {
            anew.sources.iter().for_each(|source| source.release());
            return Err(ReadError::Io { path: self.cleaned_path(base, layout::LOG), source }.into());
        }
        // From here on a failure leaves names of which nobody knows whether they are on the disk.
        self.rename_files(anew).await.map_err(|error| {
            self.fence(format!("put a compacted segment of {} in its place: {error}", self.dir.display()));
            Fenced::new(format_args!("compact {}: {error}", self.dir.display())).into()
        })
    }

    async fn rename_files(&self, anew: &Anew) -> io::Result<()> {
        let disk = &self.shared.runtime.disk;
        let base = anew.sources[0].base;
        let path = |extension| layout::segment_file(&self.dir, base, extension);
        for extension in LOG_LAST {
            let decided = layout::with_suffix(&path(extension), layout::SWAP_SUFFIX);
            disk.rename(&self.cleaned_path(base, extension), &decided).await?;
        }
        disk.sync_dir(&self.dir).await?;
        let mut renamed = Vec::new();
        // The newest first: what a crash leaves of them has no gap.
        for source in anew.sources[1..].iter().rev() {
            for path in files_of(&self.dir, source.base) {
                renamed.extend(self.rename_away(&path).await?);
            }
        }
        for extension in LOG_LAST {
            let path = path(extension);
            disk.rename(&layout::with_suffix(&path, layout::SWAP_SUFFIX), &path).await?;
        }
        disk.sync_dir(&self.dir).await?;
        self.unlink_later(renamed);
        Ok(())
    }

    /// Notes up to where the log is clean, durably. By whoever holds compaction.
    pub(super) async fn note_first_dirty(&self, first_dirty: Offset) -> Result<(), ReadError> {
        let path = self.dir.join(layout::CLEANED_TO);
        let note = OffsetCheckpoint(BTreeMap::from([(self.topic_partition.clone(), first_dirty)]));
        checkpoint::write(&self.shared.runtime.disk, &path, note.encode())
            .await
            .map_err(|source| ReadError::Io { path, source })?;
        self.state.borrow_mut().first_dirty = Some(first_dirty);
        Ok(())
    }
}

impl State {
    /// Where the segments stand, if they all still do.
    fn place_of(&self, sources: &[Rc<Segment>]) -> Option<std::ops::Range<usize>> {
        let first = self.segments.iter().position(|segment| Rc::ptr_eq(segment, &sources[0]))?;
        let there = self.segments.get(first..first + sources.len())?;
        let all = there.iter().zip(sources).all(|(one, other)| Rc::ptr_eq(one, other));
        all.then_some(first..first + sources.len())
    }
}
