//! The numbered entries of a log whose `.log` files are recovered: merged from them and the side files.
//!
//! What stays is the longest prefix of the merged sequence without a hole. The order on the disk (see [`crate::log`])
//! allows a crash to leave side entries whose preceding batches are gone, and side files of segments that have none; these
//! are cut. Anything else that does not fit is damage, and fences the replica: a guess could give two replicas different
//! entries under one index.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use ouzel_model::batch::Header;
use ouzel_model::{LeaderEpoch, Offset};
use ouzel_runtime::disk::{DirEntry, OpenMode};

use super::{OpenLog, Recovery, io_error, read_error};
use crate::entries::{EntryMap, SegmentEntries};
use crate::error::{Damage, OpenError};
use crate::layout;
use crate::recovery_table::Stop;
use crate::segment::{Segment, Walk};
use crate::side_file::{self, SideFile};

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

    /// Reads the entries and removes what no prefix of them holds.
    pub(super) async fn recover_entries(&mut self) -> Result<EntryMap, OpenError> {
        self.list().await?;
        let mut sides = self.read_side_files().await?;
        let log_end = self.log_end();
        let Some((first, _)) = sides.first_key_value() else {
            return self.without_side_files(log_end);
        };
        let first = *first;
        let numbered: Vec<_> =
            self.segments.iter().filter(|segment| segment.base >= first).cloned().collect();
        let mut merged: Vec<SegmentEntries> = Vec::new();
        // Where the prefix ends, once it does.
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
            let last = merged.last().map_or(side.prev, SegmentEntries::last);
            let follows = side.prev == last && merged.last().is_none_or(|before| base == before.end_offset());
            if has_ended || !follows {
                if has_batches {
                    let found = format!("{:?}", side.prev);
                    return Err(
                        Damage::new(&path, 0, format!("a side file behind entry {last:?}"), found).into()
                    );
                }
                // Of a segment that was begun behind what is gone.
                has_ended = true;
                self.remove_side_file(base).await?;
                continue;
            }
            let batches = match segment.filter(|_| has_batches) {
                Some(segment) => self.batches_of(segment).await?,
                None => Batches::default(),
            };
            let entries = merge(&path, side, batches)?;
            if entries.side_bytes < file_bytes {
                has_ended = true;
                let file = self.options.shared.runtime.disk.open(&path, OpenMode::ReadWrite).await;
                let file = file.map_err(io_error("open", &path))?;
                file.truncate(entries.side_bytes).await.map_err(io_error("truncate", &path))?;
                file.sync_data().await.map_err(io_error("flush", &path))?;
            }
            merged.push(entries);
        }
        // What grows again must not be read by the ends it had: an interrupted cut may have left them.
        if let Some(active) = merged.last() {
            self.remove_where_of(active.base, &[layout::ENTRY_INDEX]).await?;
        }
        let dir = &self.options.dir;
        self.options.shared.runtime.disk.sync_dir(dir).await.map_err(io_error("flush", dir))?;
        Ok(EntryMap::new(merged))
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

    /// Reads all side files; removes one that was only being made.
    async fn read_side_files(&mut self) -> Result<BTreeMap<Offset, (SideFile, u64)>, OpenError> {
        let disk = self.options.shared.runtime.disk.clone();
        let mut read = BTreeMap::new();
        let bases: Vec<Offset> = self
            .entries
            .iter()
            .filter_map(|entry| layout::parse_segment_file(&entry.name))
            .filter(|(_, extension)| *extension == layout::SIDE)
            .map(|(base, _)| base)
            .collect();
        for base in bases {
            let path = layout::segment_file(&self.options.dir, base, layout::SIDE);
            let bytes = disk.read(&path).await.map_err(io_error("read", &path))?;
            let damaged = |error: side_file::BadSideFile| {
                Damage::new(&path, error.position, error.expected, error.found)
            };
            match side_file::decode(&bytes).map_err(damaged)? {
                Some(file) if file.base == base => {
                    read.insert(base, (file, bytes.len() as u64));
                }
                Some(file) => {
                    let found = format!("that of segment {}", file.base);
                    return Err(Damage::new(&path, 12, "its own segment", found).into());
                }
                // Its header was not flushed, so nothing behind it was written.
                None => self.remove_side_file(base).await?,
            }
        }
        Ok(read)
    }

    /// Where the batches of a segment end: from the file that says so, or from the batches. The active segment's says it
    /// only after a clean stop.
    async fn batches_of(&self, segment: &std::rc::Rc<Segment>) -> Result<Batches, OpenError> {
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
    let SideFile { base, prev, sides, .. } = file;
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
            break;
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
    let rest = ordinal_before as usize..merged.ends.len();
    if let Some(stranger) = stranger(&batches.terms, rest, term) {
        return Err(Damage::new(path, merged.side_bytes, stranger, "none"));
    }
    Ok(merged)
}

/// What is missing before a batch whose term no side entry has begun.
fn stranger(terms: &[LeaderEpoch], range: Range<usize>, term: Option<LeaderEpoch>) -> Option<String> {
    let terms = terms.get(range)?;
    let other = terms.iter().find(|found| Some(**found) != term)?;
    Some(format!("a side entry that begins the reign of epoch {other}"))
}
