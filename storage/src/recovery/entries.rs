//! The numbered entries of a log whose `.log` files are recovered: merged from them and the side files.
//!
//! What stays is the longest prefix of the merged sequence without a hole. The order on the disk (see [`crate::log`])
//! allows a crash to leave side entries whose preceding batches are gone, and side files of segments that have none; these
//! are cut. Anything else that does not fit is damage, and fences the replica: a guess could give two replicas different
//! entries under one index.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use ouzel_model::batch::Header;
use ouzel_model::{LeaderEpoch, Offset};
use ouzel_runtime::disk::{DirEntry, OpenMode};

use super::mend::write_again;
use super::{OpenLog, Recovery, io_error, read_error};
use crate::entries::{EntryMap, SegmentEntries};
use crate::error::{Damage, OpenError};
use crate::layout;
use crate::recovery_table::Stop;
use crate::segment::{Segment, Walk};
use crate::side_file::{self, SideFile};

/// What the side files hold of the entries, and what has to go from them.
struct Merged {
    segments: Vec<SegmentEntries>,
    /// Side files that no prefix has a place for, oldest first.
    goes: Vec<Offset>,
    /// The segment whose side file is longer than what counts of it.
    is_longer: Option<Offset>,
}

impl Recovery {
    /// Which kind of log this is, the write-ahead file says, not the directory: side files beside a single replica's log are
    /// of a genesis that was not decided, or of a group that is no more. Without a word from that file they may be a
    /// group's only copy.
    pub(super) async fn check_kind(&self) -> Result<(), OpenError> {
        let OpenLog { with_entries, stop, dir, shared, .. } = &self.options;
        if !with_entries && *stop == Stop::Unknown && self.entries.iter().any(|entry| is_groups(&entry.name))
        {
            let found = "side files, as beside those of a replica of a group";
            return Err(Damage::new(dir, 0, "the segments of a single replica", found).into());
        }
        // Whether it has taken the log's place the record says, see `snapshot_files::settle`.
        let ready = dir.join(layout::INSTALL_DIR).join(layout::INSTALL_READY);
        if *with_entries && shared.runtime.disk.exists(&ready).await.map_err(io_error("look for", &ready))? {
            let found = "a snapshot of which nobody has said whether it is the log";
            return Err(Damage::new(&ready, 0, "a log", found).into());
        }
        Ok(())
    }

    /// The log is a single replica's: what a group left beside it would be taken for its entries by the next group.
    pub(super) async fn remove_groups_files(&mut self) -> Result<(), OpenError> {
        let disk = self.options.shared.runtime.disk.clone();
        let dir = self.options.dir.clone();
        let staged = |entry: &DirEntry| entry.is_dir && entry.name == layout::INSTALL_DIR;
        if !self.entries.iter().any(|entry| is_groups(&entry.name) || staged(entry)) {
            return Ok(());
        }
        if self.entries.iter().any(staged) {
            let staging = dir.join(layout::INSTALL_DIR);
            disk.remove_dir_all(&staging).await.map_err(io_error("remove", &staging))?;
        }
        self.remove_where(is_groups).await?;
        disk.sync_dir(&dir).await.map_err(io_error("flush", &dir))
    }

    /// Reads the entries, and removes what no prefix of them holds. Nothing is changed before all of it is known to fit.
    pub(super) async fn recover_entries(&mut self) -> Result<EntryMap, OpenError> {
        self.list().await?;
        let sides = self.read_side_files().await?;
        let Some(oldest) = sides.values().find_map(|(side, _)| side.as_ref()) else {
            let map = self.without_side_files(self.log_end())?;
            for base in sides.keys() {
                self.remove_side_file(*base).await?;
            }
            return Ok(map);
        };
        let (first, purged) = (oldest.base, oldest.prev);
        let has_batches = |segment: &&Rc<Segment>| segment.size_bytes.get() > 0;
        if purged.is_none() && self.segments.iter().filter(has_batches).any(|segment| segment.base < first) {
            let path = layout::segment_file(&self.options.dir, first, layout::SIDE);
            return Err(Damage::new(&path, 20, "an entry before: there are batches", "none").into());
        }
        let merged = self.merge_all(first, sides).await?;
        let end = merged.segments.last().map_or(first, SegmentEntries::end_offset);
        if self.segments.iter().any(|segment| has_batches(&segment)) && self.log_end() != end {
            let path = layout::segment_file(&self.options.dir, first, layout::SIDE);
            let expected = format!("entries up to the log's end, offset {}", self.log_end());
            return Err(Damage::new(&path, 12, expected, format!("up to offset {end}")).into());
        }
        self.mend_side_files(&merged).await?;
        Ok(EntryMap::new(merged.segments))
    }

    /// The longest prefix of the entries without a hole. Changes nothing.
    async fn merge_all(
        &self,
        first: Offset,
        mut sides: BTreeMap<Offset, (Option<SideFile>, u64)>,
    ) -> Result<Merged, OpenError> {
        let numbered: Vec<_> =
            self.segments.iter().filter(|segment| segment.base >= first).cloned().collect();
        let mut merged = Merged { segments: Vec::new(), goes: Vec::new(), is_longer: None };
        // Whether the prefix has ended.
        let mut has_ended = false;
        let mut bases: Vec<Offset> = numbered.iter().map(|segment| segment.base).collect();
        bases.extend(sides.keys());
        bases.sort_unstable();
        bases.dedup();
        for base in bases {
            let segment = numbered.iter().find(|segment| segment.base == base);
            let has_batches = segment.is_some_and(|segment| segment.size_bytes.get() > 0);
            let path = layout::segment_file(&self.options.dir, base, layout::SIDE);
            let Some((side, file_bytes)) = sides.remove(&base) else {
                if has_batches {
                    let found = "none, but batches";
                    return Err(Damage::new(&path, 0, "a side file", found).into());
                }
                continue;
            };
            let before = merged.segments.last();
            let last = before.map_or_else(|| side.as_ref().and_then(|side| side.prev), SegmentEntries::last);
            // One without a header was only being made: nothing behind it was written.
            let side = side.filter(|side| {
                !has_ended && side.prev == last && before.is_none_or(|before| base == before.end_offset())
            });
            let Some(side) = side else {
                if has_batches {
                    let expected = format!("a side file that goes on behind entry {last:?}");
                    return Err(Damage::new(&path, 0, expected, "none, but batches").into());
                }
                // Of a segment that was begun behind what is gone.
                has_ended = true;
                merged.goes.push(base);
                continue;
            };
            let batches = match segment.filter(|_| has_batches) {
                Some(segment) => self.batches_of(segment).await?,
                None => Batches::default(),
            };
            let entries = merge(&path, side, batches)?;
            if entries.side_bytes < file_bytes {
                has_ended = true;
                merged.is_longer = Some(base);
            }
            merged.segments.push(entries);
        }
        Ok(merged)
    }

    /// Cuts and removes what has no place, and brings onto the medium what stays.
    async fn mend_side_files(&self, merged: &Merged) -> Result<(), OpenError> {
        let disk = &self.options.shared.runtime.disk;
        let dir = &self.options.dir;
        for base in &merged.goes {
            self.remove_side_file(*base).await?;
        }
        let Some(active) = merged.segments.last() else { return Ok(()) };
        // What grows again must not be read by the ends it had: an interrupted cut may have left them.
        self.remove_where_of(active.base, &[layout::ENTRY_INDEX]).await?;
        let path = layout::segment_file(dir, active.base, layout::SIDE);
        if self.options.stop != Stop::Clean || merged.is_longer.is_some() {
            let file = disk.open(&path, OpenMode::ReadWrite).await.map_err(io_error("open", &path))?;
            if merged.is_longer.is_some() {
                file.truncate(active.side_bytes).await.map_err(io_error("truncate", &path))?;
            }
            // Whatever is behind a piece of a side file was written after its flush, so only the last one's may have
            // failed, in this boot: the kernel calls its pages clean then, and the next flush writes nothing.
            if self.options.stop != Stop::UncleanOtherBoot {
                write_again(&file, 0).await.map_err(io_error("write", &path))?;
            }
            file.sync_data().await.map_err(io_error("flush", &path))?;
            // With batches, that was done for them.
            if self.segments.is_empty() {
                let metadata = dir.join(layout::PARTITION_METADATA);
                let file = disk.open(&metadata, OpenMode::ReadWrite).await;
                let file = file.map_err(io_error("open", &metadata))?;
                if self.options.stop != Stop::UncleanOtherBoot {
                    write_again(&file, 0).await.map_err(io_error("write", &metadata))?;
                }
                file.sync_data().await.map_err(io_error("flush", &metadata))?;
                if let Some(parent) = dir.parent() {
                    disk.sync_dir(parent).await.map_err(io_error("flush", parent))?;
                }
            }
        }
        disk.sync_dir(dir).await.map_err(io_error("flush", dir))
    }

    /// A log that was never written to has no side file; one that has batches must have one.
    fn without_side_files(&self, log_end: Offset) -> Result<EntryMap, OpenError> {
        if self.segments.iter().any(|segment| segment.size_bytes.get() > 0) {
            let path = self.options.dir.clone();
            let expected = "side files beside the segments of a replica of a group";
            return Err(Damage::new(&path, 0, expected, "none: it is the log of a single replica").into());
        }
        Ok(EntryMap::new(vec![SegmentEntries::new(log_end, None)]))
    }

    /// Reads all side files, with their bytes; none where there is no whole header yet.
    async fn read_side_files(&self) -> Result<BTreeMap<Offset, (Option<SideFile>, u64)>, OpenError> {
        let disk = &self.options.shared.runtime.disk;
        let mut read = BTreeMap::new();
        let names = self.entries.iter().filter_map(|entry| layout::parse_segment_file(&entry.name));
        for (base, _) in names.filter(|(_, extension)| *extension == layout::SIDE) {
            let path = layout::segment_file(&self.options.dir, base, layout::SIDE);
            let bytes = disk.read(&path).await.map_err(io_error("read", &path))?;
            let file = side_file::decode(&bytes)
                .map_err(|error| Damage::new(&path, error.position, error.expected, error.found))?;
            if let Some(file) = file.as_ref().filter(|file| file.base != base) {
                let found = format!("that of segment {}", file.base);
                return Err(Damage::new(&path, 12, "its own segment", found).into());
            }
            read.insert(base, (file, bytes.len() as u64));
        }
        Ok(read)
    }

    /// Where the batches of a segment end: from the file that says so, or from the batches. The active segment's says it
    /// only after a clean stop.
    async fn batches_of(&self, segment: &Rc<Segment>) -> Result<Batches, OpenError> {
        let disk = &self.options.shared.runtime.disk;
        let path = layout::segment_file(&self.options.dir, segment.base, layout::ENTRY_INDEX);
        let span = segment.end.get() - segment.base;
        let is_active = self.segments.last().is_some_and(|last| last.base == segment.base);
        if (!is_active || self.options.stop == Stop::Clean)
            && let Ok(bytes) = disk.read(&path).await
            && let Some(ends) = side_file::decode_ends(&bytes)
            && ends.last().is_some_and(|last| i64::from(*last) == span)
        {
            return Ok(Batches { ends, terms: Vec::new() });
        }
        let mut batches = Batches::default();
        let interval_bytes = self.config.index_interval_bytes;
        let note = |header: &Header| {
            batches.ends.push((header.next_offset() - segment.base) as u32);
            batches.terms.push(header.partition_leader_epoch);
        };
        let walk = segment.walk(disk, Walk::at_start(segment.base), Offset(i64::MAX), interval_bytes, note);
        match walk.await.map_err(read_error)?.damage {
            Some(damage) => Err(damage.into()),
            None => Ok(batches),
        }
    }

    async fn remove_side_file(&self, base: Offset) -> Result<(), OpenError> {
        self.remove_where_of(base, &[layout::SIDE, layout::ENTRY_INDEX]).await
    }

    async fn remove_where_of(&self, base: Offset, extensions: &[&str]) -> Result<(), OpenError> {
        for extension in extensions {
            let path = layout::segment_file(&self.options.dir, base, extension);
            match self.options.shared.runtime.disk.remove_file(&path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a file is one that only a replica of a group has.
fn is_groups(name: &str) -> bool {
    layout::parse_segment_file(name)
        .is_some_and(|(_, extension)| matches!(extension, layout::SIDE | layout::ENTRY_INDEX))
}

/// The batches of a segment.
#[derive(Default)]
struct Batches {
    /// Where each ends, less the segment's base.
    ends: Vec<u32>,
    /// Each one's epoch, if they were read themselves.
    terms: Vec<LeaderEpoch>,
}

/// Puts a segment's batches and side entries in the order of their indexes. Side entries behind a hole are left out.
fn merge(path: &Path, file: SideFile, batches: Batches) -> Result<SegmentEntries, Damage> {
    let SideFile { base, prev, sides, unsound, .. } = file;
    let mut merged = SegmentEntries::new(base, prev);
    merged.ends = batches.ends;
    merged.side_bytes = side_file::HEADER_BYTES as u64;
    let first = merged.first().value();
    let mut term = prev.map(|prev| prev.term);
    let mut ordinal_before = 0;
    for side in sides {
        let damaged = |expected: String| {
            Damage::new(
                path,
                merged.side_bytes,
                expected,
                format!("entry {} at offset {}", side.id, side.next_offset),
            )
        };
        let earliest = first + merged.sides.len() as u64 + ordinal_before;
        let Some(behind) = side.id.index.value().checked_sub(earliest) else {
            return Err(damaged(format!("an entry of index {earliest} or later")));
        };
        let ordinal = (ordinal_before + behind) as usize;
        if ordinal > merged.ends.len() {
            // What follows it cannot have a place either.
            return close_merged(merged, &batches.terms, ordinal_before, term, path);
        }
        let end = ordinal.checked_sub(1).map_or(base, |before| base + i64::from(merged.ends[before]));
        if side.next_offset != end {
            return Err(damaged(format!("a side entry at offset {end}")));
        }
        if term.is_some_and(|term| side.id.term < term) {
            return Err(damaged(format!("a term of {term:?} or later")));
        }
        // The batches before it are of the reign before.
        if let Some(stranger) = stranger(&batches.terms, ordinal_before as usize..ordinal, term) {
            return Err(damaged(stranger));
        }
        term = Some(side.id.term);
        ordinal_before = ordinal as u64;
        merged.side_bytes += side_file::record_bytes(&side);
        merged.sides.push(side);
    }
    // A last record that does not check out was not flushed, so nothing behind it was written; unless it is damaged.
    if let Some((id, next_offset)) = unsound {
        let earliest = first + merged.sides.len() as u64 + ordinal_before;
        let ordinal = id.index.value().checked_sub(earliest).map(|behind| (ordinal_before + behind) as usize);
        if let Some(ordinal) = ordinal.filter(|ordinal| *ordinal < merged.ends.len()) {
            let end = ordinal.checked_sub(1).map_or(base, |before| base + i64::from(merged.ends[before]));
            if next_offset == end {
                let found = format!("a record of entry {id} with another CRC, and batches behind it");
                return Err(Damage::new(path, merged.side_bytes, "a sound record", found));
            }
        }
    }
    close_merged(merged, &batches.terms, ordinal_before, term, path)
}

/// The batches behind the last side entry are of its reign.
fn close_merged(
    merged: SegmentEntries,
    terms: &[LeaderEpoch],
    ordinal_before: u64,
    term: Option<LeaderEpoch>,
    path: &Path,
) -> Result<SegmentEntries, Damage> {
    let rest = ordinal_before as usize..merged.ends.len();
    match stranger(terms, rest, term) {
        Some(stranger) => Err(Damage::new(path, merged.side_bytes, stranger, "none")),
        None => Ok(merged),
    }
}

/// What is missing before a batch whose term no side entry has begun.
fn stranger(terms: &[LeaderEpoch], range: Range<usize>, term: Option<LeaderEpoch>) -> Option<String> {
    let terms = terms.get(range)?;
    let other = terms.iter().find(|found| Some(**found) != term)?;
    Some(format!("a side entry that begins the reign of epoch {other}"))
}
