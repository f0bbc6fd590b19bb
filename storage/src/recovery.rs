//! Opening a log: looks at the directory, asks the table what to do, does it, until the table says that the log is good.
//!
//! Nothing here decides; [`crate::recovery_table`] does. This file looks, `mend` does. One bad partition is fenced and
//! stops no other.

mod entries;
mod mend;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ouzel_model::{LeaderEpoch, Offset, TimestampMs, TopicId, TopicPartition};
use ouzel_runtime::Bytes;
use ouzel_runtime::disk::DirEntry;

use crate::checkpoint::{self, OffsetCheckpoint};
use crate::config::LogConfig;
use crate::error::{Damage, OpenError, ReadError};
use crate::layout;
use crate::leader_epochs::LeaderEpochs;
use crate::log::{Log, LogShared, Recovered};
use crate::producers::Producers;
use crate::producers::snapshot::{self, Windows};
use crate::recovery_table::{
    self, Action, Checkpoint, DamageKind, Deletion, Index, Observed, Roll, Scan, Stop, Swap, decide,
};
use crate::segment::{Follows, Segment, Walk, write_derived};

/// What a log is opened with.
#[derive(Clone)]
pub struct OpenLog {
    /// Its core's machine, committer, caches.
    pub shared: LogShared,
    /// The partition's directory; made if it is not there.
    pub dir: PathBuf,
    /// The partition's name, for messages.
    pub topic_partition: TopicPartition,
    /// The topic's identity; a directory of another incarnation is refused.
    pub topic_id: TopicId,
    /// The settings.
    pub config: LogConfig,
    /// How the process that had it open before ended.
    pub stop: Stop,
    /// Exclusive end of what is known to be flushed; 0 if nothing is known.
    pub flushed: Offset,
    /// The end a clean mark names.
    pub clean_end: Option<Offset>,
    /// The broker's time.
    pub now: TimestampMs,
    /// Whether the log numbers its entries, as a replica of a group does: then there are side files beside its segments.
    pub with_entries: bool,
}

/// Steps after which recovery gives up: the table goes in no circles, so this is never reached by sound code.
const STEPS_MAX: usize = 64;

impl Log {
    /// Opens a log, recovering it first if it was not closed in order.
    ///
    /// # Errors
    /// See [`OpenError`]. The directory is left as it is where it is damaged.
    pub async fn open(options: OpenLog) -> Result<Log, OpenError> {
        let OpenLog { shared, dir, topic_partition, topic_id, .. } = options.clone();
        let recovered = recover(options).await?;
        Ok(Log::new(shared, topic_partition, topic_id, dir, recovered))
    }
}

/// Makes a good log of what is in the directory, and says what it is.
pub(crate) async fn recover(options: OpenLog) -> Result<Recovered, OpenError> {
    let mut recovery = Recovery::begin(options).await?;
    for _ in 0..STEPS_MAX {
        let observed = recovery.observe().await?;
        let decision = decide(&observed);
        tracing::trace!(partition = %recovery.options.topic_partition, row = decision.label, "recovery");
        match decision.action {
            Action::Trust => return recovery.finish().await,
            Action::FlushThenTrust => {
                recovery.flush_all().await?;
                return recovery.finish().await;
            }
            Action::FencePartition(reason) => {
                return Err(OpenError::Damaged(Damage {
                    file: reason.file,
                    position: reason.position,
                    expected: reason.expected,
                    found: reason.found,
                }));
            }
            action => {
                // A new log has nothing to recover, though nobody has closed it.
                if !recovery.segments.is_empty() {
                    tracing::info!(partition = %recovery.options.topic_partition, row = decision.label, "recovering a log");
                }
                recovery.carry_out(action).await?;
            }
        }
    }
    unreachable!("recovery of {} goes in circles", recovery.options.topic_partition)
}

/// Adds what a walk met to the history; says whether that changed it. A walk that began in the middle of an epoch says
/// nothing about where that one began.
fn merge(epochs: &mut LeaderEpochs, walked: &[(LeaderEpoch, Offset)]) -> bool {
    let mut changed = false;
    for (epoch, start) in walked {
        if epochs.epoch_at(*start) != Some(*epoch) {
            changed |= epochs.assign(*epoch, *start);
        }
    }
    changed
}

/// What is known so far of the directory.
struct Recovery {
    options: OpenLog,
    config: Rc<LogConfig>,
    entries: Vec<DirEntry>,
    /// By base offset.
    segments: Vec<Rc<Segment>>,
    scan: Option<Scan>,
    /// The producers at the log's end, once the walk is done.
    producers: Producers,
    /// The newest snapshot met without its windows.
    newest_only: Option<Producers>,
    epochs: LeaderEpochs,
    epochs_file: EpochsFile,
    /// Epochs of the batches that were walked, with their first offsets.
    epochs_walked: Vec<(LeaderEpoch, Offset)>,
    /// Segments that were walked from their start: their indexes are right.
    walked_from: Offset,
    /// The first readable offset, if it was noted: a trim, or a log of which nothing is left.
    start_note: Option<Offset>,
    /// Segments whose index files were written anew just now.
    rebuilt: BTreeSet<Offset>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EpochsFile {
    Missing,
    Unreadable,
    Read,
    Rewritten,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

fn read_error(error: ReadError) -> OpenError {
    match error {
        ReadError::Io { path, source } => OpenError::Io { action: "read", path, source },
        ReadError::Damaged(damage) => OpenError::Damaged(damage),
        ReadError::OutOfRange { .. } | ReadError::Deleted => {
            unreachable!("recovery reads files, not offsets")
        }
    }
}

impl Recovery {
    async fn begin(options: OpenLog) -> Result<Recovery, OpenError> {
        let disk = options.shared.runtime.disk.clone();
        let dir = options.dir.clone();
        // Neither the directory nor what names its topic is flushed here: the first flush of a record does both.
        if !disk.exists(&dir).await.map_err(io_error("look for", &dir))? {
            disk.create_dir_all(&dir).await.map_err(io_error("create", &dir))?;
        }
        let config = Rc::new(options.config.clone());
        let mut recovery = Recovery {
            config,
            entries: Vec::new(),
            segments: Vec::new(),
            scan: None,
            producers: Producers::new(Offset::ZERO),
            newest_only: None,
            epochs: LeaderEpochs::default(),
            epochs_file: EpochsFile::Missing,
            epochs_walked: Vec::new(),
            walked_from: Offset(i64::MAX),
            start_note: None,
            rebuilt: BTreeSet::new(),
            options,
        };
        recovery.check_identity().await?;
        recovery.read_log_start().await?;
        recovery.list().await?;
        recovery.check_kind().await?;
        recovery.read_epochs().await?;
        Ok(recovery)
    }

    /// A directory of another incarnation of the topic must not lend it its records.
    async fn check_identity(&self) -> Result<(), OpenError> {
        let disk = &self.options.shared.runtime.disk;
        let path = self.options.dir.join(layout::PARTITION_METADATA);
        let expected = self.options.topic_id;
        let bytes = match disk.read(&path).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Bytes::new(),
            read => read.map_err(io_error("read", &path))?,
        };
        // What a power cut leaves of one that was never flushed; nothing in the directory was, then.
        let text = checkpoint::PartitionMetadata { topic_id: expected }.encode();
        let is_part = bytes.len() <= text.len()
            && bytes.iter().zip(text.bytes()).all(|(is, was)| *is == was || *is == 0);
        if is_part && *bytes != *text.as_bytes() {
            // Nor was anything acknowledged under this id, if no write-ahead file knows it; batches that are there
            // nevertheless are another topic's, deleted since.
            let is_new = self.options.stop == Stop::Unknown;
            if is_new && self.holds_batches().await? {
                return Err(self.other_topic("none that was ever flushed".to_owned()));
            }
            return write_derived(disk, &path, text.into_bytes()).await.map_err(io_error("write", &path));
        }
        // The same of another topic, which was deleted before anything of it was flushed.
        if bytes.len() < text.len() || bytes.contains(&0) {
            return Err(self.other_topic("none that was ever flushed".to_owned()));
        }
        let found = checkpoint::PartitionMetadata::decode(&bytes)
            .map_err(|reason| Damage::new(&path, 0, "version and topic_id", reason))?
            .topic_id;
        if found == expected {
            return Ok(());
        }
        Err(self.other_topic(found.to_string()))
    }

    fn other_topic(&self, found: String) -> OpenError {
        OpenError::OtherTopic {
            path: self.options.dir.clone(),
            expected: self.options.topic_id.to_string(),
            found,
        }
    }

    async fn holds_batches(&self) -> Result<bool, OpenError> {
        let dir = &self.options.dir;
        let entries = self.options.shared.runtime.disk.list_dir(dir).await.map_err(io_error("list", dir))?;
        Ok(entries.iter().any(|entry| {
            entry.bytes > 0 && matches!(layout::parse_segment_file(&entry.name), Some((_, layout::LOG)))
        }))
    }

    /// Lists the directory and makes segments of its `.log` files, as far as names and sizes tell.
    async fn list(&mut self) -> Result<(), OpenError> {
        let dir = &self.options.dir;
        self.entries = self.options.shared.runtime.disk.list_dir(dir).await.map_err(io_error("list", dir))?;
        let mut logs: Vec<(Offset, u64)> = Vec::new();
        for entry in &self.entries {
            if let Some((base, layout::LOG)) = layout::parse_segment_file(&entry.name) {
                logs.push((base, entry.bytes));
            }
        }
        logs.sort_unstable();
        let kept: Vec<_> = std::mem::take(&mut self.segments);
        for (at, (base, bytes)) in logs.iter().enumerate() {
            let known =
                kept.iter().find(|segment| segment.base == *base && segment.size_bytes.get() == *bytes);
            // A sealed segment ends where the next begins; the last one's end is found by walking it.
            let end = logs.get(at + 1).map_or(*base, |next| next.0);
            self.segments.push(known.cloned().unwrap_or_else(|| Segment::existing(dir, *base, end, *bytes)));
        }
        Ok(())
    }

    async fn read_log_start(&mut self) -> Result<(), OpenError> {
        let disk = &self.options.shared.runtime.disk;
        let path = self.options.dir.join(layout::LOG_START);
        match checkpoint::read(disk, &path, OffsetCheckpoint::decode).await {
            Ok(note) => {
                self.start_note = note.and_then(|note| note.0.values().max().copied());
                Ok(())
            }
            Err(checkpoint::CheckpointError::Io { path, source }) => Err(io_error("read", &path)(source)),
            // It is replaced as a whole and flushed: no crash explains this, and records that were deleted on purpose must
            // not come back.
            Err(checkpoint::CheckpointError::Malformed { path, source }) => {
                Err(Damage::new(&path, 0, "the log start offset", source).into())
            }
        }
    }

    async fn read_epochs(&mut self) -> Result<(), OpenError> {
        let disk = &self.options.shared.runtime.disk;
        let path = self.options.dir.join(layout::LEADER_EPOCHS);
        match disk.read(&path).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("read", &path)(error)),
            Ok(bytes) => match LeaderEpochs::decode(&bytes) {
                Ok(epochs) => (self.epochs, self.epochs_file) = (epochs, EpochsFile::Read),
                Err(reason) => {
                    tracing::warn!(file = %path.display(), %reason, "the leader epochs are unreadable; taking them from the log");
                    self.epochs_file = EpochsFile::Unreadable;
                }
            },
        }
        Ok(())
    }

    /// Fills in what the table asks for, without changing a byte.
    async fn observe(&mut self) -> Result<Observed, OpenError> {
        let mut stop = self.options.stop;
        let is_settled = self.swap_state() == Swap::None;
        if stop == Stop::Clean && self.scan.is_none() && is_settled {
            let end = self.walk_tail().await?;
            if self.options.clean_end != Some(end) {
                // A mark that disagrees with the log is no mark.
                stop = Stop::Unknown;
                self.options.stop = stop;
                self.scan = None;
            }
        }
        // What was trimmed need not be there.
        let needed =
            Some(self.options.flushed).filter(|flushed| *flushed > self.start_note.unwrap_or(Offset::ZERO));
        let flushed = needed.unwrap_or(Offset::ZERO).max(self.first_base());
        Ok(Observed {
            stop,
            flushed,
            scan: self.scan.clone(),
            index: self.index_state(),
            roll: self.roll_state(),
            deletion: if self.has_suffix(layout::DELETED_SUFFIX) {
                Deletion::OfSegments
            } else {
                Deletion::None
            },
            swap: self.swap_state(),
            checkpoint: self.checkpoint_state(),
        })
    }

    fn swap_state(&self) -> Swap {
        let decided = format!(".{}{}", layout::LOG, layout::SWAP_SUFFIX);
        if self.has_suffix(&decided) {
            Swap::Decided
        } else if self.has_suffix(layout::SWAP_SUFFIX) || self.has_suffix(layout::CLEANED_SUFFIX) {
            Swap::Undecided
        } else {
            Swap::None
        }
    }

    fn has_suffix(&self, suffix: &str) -> bool {
        self.entries.iter().any(|entry| entry.name.ends_with(suffix))
    }

    fn has(&self, base: Offset, extension: &str) -> Option<u64> {
        let path = layout::segment_file(Path::new(""), base, extension);
        let name = path.to_string_lossy();
        self.entries.iter().find(|entry| entry.name == *name).map(|entry| entry.bytes)
    }

    /// Where the batches begin: below the log start, if that was trimmed to the middle of a segment.
    fn first_base(&self) -> Offset {
        self.segments.first().map_or(self.start_note.unwrap_or(Offset::ZERO), |first| first.base)
    }

    fn log_end(&self) -> Offset {
        self.segments.last().map_or(self.first_base(), |last| last.end.get())
    }

    /// Of sealed segments, by presence and size alone; one that lies is found out when it is first read.
    fn index_state(&self) -> Index {
        let sealed = self.segments.len().saturating_sub(1);
        for segment in self.segments[..sealed].iter().filter(|segment| !self.rebuilt.contains(&segment.base))
        {
            let (offsets, times) =
                (self.has(segment.base, layout::INDEX), self.has(segment.base, layout::TIME_INDEX));
            match (offsets, times) {
                (Some(offsets), Some(times)) if offsets % 8 == 0 && times % 12 == 0 => {
                    if times == 0 && segment.size_bytes.get() > 0 {
                        return Index::Stale;
                    }
                }
                (Some(_), Some(_)) => return Index::Stale,
                _ => return Index::Missing,
            }
        }
        Index::Good
    }

    /// A roll leaves a snapshot under the new segment's base.
    fn roll_state(&self) -> Roll {
        let bases: BTreeSet<Offset> = self.segments.iter().map(|segment| segment.base).collect();
        let orphan = self.entries.iter().filter_map(|entry| layout::parse_segment_file(&entry.name)).any(
            |(base, extension)| {
                matches!(extension, layout::INDEX | layout::TIME_INDEX) && !bases.contains(&base)
            },
        );
        let unsealed = self.segments.len() > 1
            && self.segments.last().is_some_and(|last| self.has(last.base, layout::SNAPSHOT).is_none());
        if orphan || unsealed { Roll::HalfDone } else { Roll::Complete }
    }

    fn checkpoint_state(&self) -> Checkpoint {
        match self.epochs_file {
            EpochsFile::Rewritten => return Checkpoint::Consistent,
            EpochsFile::Missing if self.log_end() == self.first_base() && self.epochs_walked.is_empty() => {
                return Checkpoint::Consistent;
            }
            EpochsFile::Missing => return Checkpoint::Missing,
            EpochsFile::Unreadable => return Checkpoint::Unreadable,
            EpochsFile::Read => {}
        }
        let mut merged = self.epochs.clone();
        if merged.truncate_to(self.log_end()) {
            return Checkpoint::Newer;
        }
        if merge(&mut merged, &self.epochs_walked) { Checkpoint::Older } else { Checkpoint::Consistent }
    }

    /// After a clean stop: the last segment from its last index entry on, and the snapshot at its end.
    async fn walk_tail(&mut self) -> Result<Offset, OpenError> {
        let Some(last) = self.segments.last().cloned() else {
            let end = self.first_base();
            self.scan = Some(self.whole_scan(end, self.options.dir.clone(), 0));
            self.producers = Producers::new(end);
            return Ok(end);
        };
        let disk = self.options.shared.runtime.disk.clone();
        let begin = last.walk_behind_index(&disk).await.map_err(read_error)?;
        let begin = begin.unwrap_or_else(|| Walk::at_start(last.base)).before(Follows::Nothing);
        let walk = self.walk(&last, begin).await?;
        if walk.damage.is_some() {
            return Ok(Offset::NONE);
        }
        let (end, position) = (walk.end, walk.position);
        self.adopt(&last, walk);
        if !self.load_producers(end).await {
            // Without the snapshot the producers are those a walk finds.
            return Ok(Offset::NONE);
        }
        self.scan = Some(self.whole_scan(end, last.path().to_owned(), position));
        Ok(end)
    }

    fn whole_scan(&self, end: Offset, file: PathBuf, position: u64) -> Scan {
        Scan { end, file, position, damage: None, witnessed_end: end }
    }

    async fn walk(&mut self, segment: &Rc<Segment>, begin: Walk) -> Result<Walk, OpenError> {
        let disk = self.options.shared.runtime.disk.clone();
        let now = self.options.now;
        let (producers, epochs) = (&mut self.producers, &mut self.epochs_walked);
        segment
            .walk(&disk, begin, Offset(i64::MAX), self.config.index_interval_bytes, |header| {
                producers.update(header, now);
                let epoch = header.partition_leader_epoch;
                if epochs.last().is_none_or(|(last, _)| *last < epoch) && epoch >= LeaderEpoch(0) {
                    epochs.push((epoch, header.base_offset));
                }
            })
            .await
            .map_err(read_error)
    }

    fn adopt(&self, segment: &Segment, walk: Walk) {
        segment.end.set(walk.end);
        segment.size_bytes.set(walk.position);
        segment.written_bytes.set(walk.position);
        segment.first_timestamp.set(walk.first_timestamp);
        segment.set_indexes(walk.indexes);
    }

    /// Loads the snapshot named after `end`; false if there is none that can be read, or one without its windows while an
    /// earlier place to begin at is left.
    async fn load_producers(&mut self, end: Offset) -> bool {
        let now = self.options.now;
        if end == self.first_base() && self.has(end, layout::SNAPSHOT).is_none() {
            self.producers = Producers::new(end);
            return true;
        }
        let disk = &self.options.shared.runtime.disk;
        let Ok(bytes) = disk.read(&layout::segment_file(&self.options.dir, end, layout::SNAPSHOT)).await
        else {
            return false;
        };
        let windows = disk.read(&layout::segment_file(&self.options.dir, end, layout::PRODUCERS)).await.ok();
        match snapshot::load(&bytes, windows.as_deref(), end, now) {
            Ok((producers, Windows::NewestOnly(_))) if end > self.first_base() => {
                self.newest_only.get_or_insert(producers);
                false
            }
            Ok((producers, _)) => {
                self.producers = producers;
                true
            }
            Err(reason) => {
                tracing::warn!(partition = %self.options.topic_partition, %end, %reason, "a producer snapshot is unreadable");
                false
            }
        }
    }

    /// Walks everything from the segment that holds `from`, with the producers as they were at its start.
    async fn scan_from(&mut self, from: Offset) -> Result<(), OpenError> {
        // A window is five batches: a producer whose newest ones lie before the walk keeps them from the snapshot.
        let holds = self.segments.iter().rposition(|segment| segment.base <= from).unwrap_or(0);
        let mut first = holds;
        loop {
            let base = self.segments.get(first).map_or(Offset::ZERO, |segment| segment.base);
            if self.load_producers(base).await {
                break;
            }
            if first == 0 {
                self.producers = Producers::new(base);
                break;
            }
            first -= 1;
        }
        self.epochs_walked.clear();
        let segments: Vec<_> = self.segments[first..].to_vec();
        self.walked_from = segments.first().map_or(Offset::ZERO, |segment| segment.base);
        let mut scan = self.whole_scan(self.first_base(), self.options.dir.clone(), 0);
        let mut last_epoch = None;
        for (at, segment) in segments.iter().enumerate() {
            let follows = segments.get(at + 1).map_or(Follows::Nothing, |next| Follows::Segment(next.base));
            let begin = Walk::at_start(segment.base).after(last_epoch).before(follows);
            let walk = self.walk(segment, begin).await?;
            last_epoch = walk.last_epoch();
            scan.end = walk.end;
            scan.file = segment.path().to_owned();
            scan.position = walk.position;
            let next_base = segments.get(at + 1).map(|next| next.base);
            if let Some(damage) = &walk.damage {
                let kind = match (walk.zeroes, walk.torn, walk.out_of_order) {
                    (true, ..) => DamageKind::Zeroes,
                    (_, _, true) => DamageKind::OutOfOrder,
                    (_, true, _) => DamageKind::Torn,
                    _ => DamageKind::Flipped,
                };
                let (expected, found) = (damage.expected.clone(), damage.found.clone());
                scan.damage = Some(recovery_table::Damage { kind, expected, found });
                // A length that was flipped reads as a torn batch, but batches follow it: not the tail of one write.
                scan.witnessed_end = self.witnessed_end(scan.end);
                self.adopt(segment, walk);
                break;
            }
            let short_of_next = next_base.is_some_and(|next| walk.end < next);
            self.adopt(segment, walk);
            scan.witnessed_end = scan.end;
            if let Some(next) = segments.get(at + 1).filter(|next| next.base < scan.end) {
                scan.damage = Some(recovery_table::Damage {
                    kind: DamageKind::OutOfOrder,
                    expected: format!("a segment that begins at offset {}", scan.end),
                    found: format!("one that begins at {}", next.base),
                });
                (scan.file, scan.position) = (next.path().to_owned(), 0);
                break;
            }
            if short_of_next {
                scan.witnessed_end = next_base.unwrap_or(scan.end);
                break;
            }
        }
        if segments.is_empty() {
            scan.end = self.first_base();
            scan.witnessed_end = self.witnessed_end(scan.end);
        } else if scan.damage.is_none() && scan.witnessed_end == scan.end {
            scan.witnessed_end = self.witnessed_end(scan.end);
        }
        self.complete_producers(scan.end);
        self.scan = Some(scan);
        Ok(())
    }

    /// A walk up to `end` is over: adds what only a snapshot without windows knew.
    fn complete_producers(&mut self, end: Offset) {
        if let Some(mut known) = self.newest_only.take() {
            // What it loses, the walk has seen.
            let _ = known.truncate_to(end);
            self.producers.adopt_missing(&known);
        }
    }

    /// The largest offset any file's name or the epochs speak of.
    fn witnessed_end(&self, end: Offset) -> Offset {
        let named = self.entries.iter().filter_map(|entry| layout::parse_segment_file(&entry.name));
        named
            .filter(|(_, extension)| matches!(*extension, layout::LOG | layout::SNAPSHOT))
            .map(|(base, _)| base)
            .fold(end, Offset::max)
    }

    async fn finish(mut self) -> Result<Recovered, OpenError> {
        if !self.options.with_entries {
            self.remove_groups_files().await?;
        }
        let entries = if self.options.with_entries { Some(self.recover_entries().await?) } else { None };
        let mut log_start = self.start_note.unwrap_or(Offset::ZERO).max(self.first_base());
        if let Some(entries) = &entries {
            // What is trimmed of a group's log is lost with the power as the rest is, and comes again with the entries
            // behind it, the one that trims among them.
            log_start = log_start.min(entries.active().end_offset());
            if self.segments.is_empty() {
                self.producers = Producers::new(log_start);
                self.epochs.truncate_to(log_start);
            }
        } else if log_start > self.log_end() {
            // The records behind the start were lost with the power, those before it are trimmed: nothing is left.
            self.remove_where(|name| layout::parse_segment_file(name).is_some()).await?;
            self.producers = Producers::new(log_start);
            self.epochs.truncate_to(log_start);
        }
        let log_end = entries.as_ref().map_or(self.log_end(), |entries| entries.active().end_offset());
        let first_dirty = self.read_first_dirty(log_end).await?;
        self.remove_strays(log_end).await?;
        for segment in &self.segments {
            segment.last_write.set(self.options.now);
        }
        Ok(Recovered {
            config: self.config,
            log_start,
            log_end,
            producers: self.producers,
            epochs: self.epochs,
            epochs_dirty: false,
            unclosed: self.options.stop != Stop::Clean,
            first_dirty,
            entries,
            segments: self.segments,
        })
    }

    /// Removes the snapshots of earlier stops, and what a write that replaces a whole file left half done.
    async fn remove_strays(&mut self, log_end: Offset) -> Result<(), OpenError> {
        let bases: BTreeSet<Offset> = self.segments.iter().map(|segment| segment.base).collect();
        let stray = |name: &str| match layout::parse_segment_file(name) {
            Some((base, layout::SNAPSHOT | layout::PRODUCERS)) => base != log_end && !bases.contains(&base),
            _ => name.ends_with(layout::TEMPORARY_SUFFIX),
        };
        if self.entries.iter().any(|entry| stray(&entry.name)) {
            self.remove_where(stray).await
        } else {
            Ok(())
        }
    }
}
