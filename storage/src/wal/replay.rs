//! The start: what all write-ahead files together say, and the files for the cores there are now.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ouzel_model::{LeaderEpoch, TopicIdPartition};
use ouzel_runtime::Disk;
use ouzel_runtime::disk::OpenMode;

use super::format::{
    Entry, Frame, NoFrame, Placement, check_file_header, checked_frame, decode_frame, encode_file,
};
use super::state::{Change, Kept};

/// Why the write-ahead files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk said no.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// Bytes that were flushed are not what they were. Nothing has been changed; guessing could lend offsets out twice.
    #[error("{} is damaged at position {position}: expected {expected}, found {found}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        position: u64,
        /// What should be there.
        expected: String,
        /// What is.
        found: String,
    },
    /// The file has a format this version does not know.
    #[error("{} has format version {found}, and this broker knows version {known}; start a newer one", file.display())]
    OtherVersion {
        /// The file.
        file: PathBuf,
        /// What it says.
        found: u32,
        /// What is known.
        known: u32,
    },
}

impl WalError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> WalError {
        WalError::Io { action, path: path.to_owned(), source }
    }

    pub(super) fn damaged(
        path: &Path,
        position: u64,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> WalError {
        let (expected, found) = (expected.into(), found.into());
        WalError::Damaged { file: path.to_owned(), position, expected, found }
    }
}

/// The end of a file is no whole frame: a commit that a crash interrupted, so nobody was told it had happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub file: PathBuf,
    /// Where the whole frames end.
    pub position: u64,
    /// What is there instead of a frame.
    pub found: String,
}

/// What the write-ahead files of the last process say.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// The records.
    pub states: BTreeMap<TopicIdPartition, Kept>,
    /// Interrupted commits, for the log.
    pub torn: Vec<TornTail>,
    /// Larger than every sequence number there is.
    sequence_next: u64,
    /// Larger than every generation there is, whole or not.
    generation_next: u64,
    /// All files there are.
    files: Vec<PathBuf>,
}

/// Reads the newest whole generation in `data_dir`. Changes nothing.
///
/// # Errors
/// When files are there but no generation is whole, or one of the newest whole generation is damaged anywhere but at its
/// end.
pub async fn replay(disk: &Disk, data_dir: &Path) -> Result<Replayed, WalError> {
    let files = wal_files(disk, data_dir).await?;
    let mut replayed = Replayed {
        sequence_next: 1,
        generation_next: files.iter().map(|file| file.generation).max().unwrap_or(0) + 1,
        files: files.iter().map(|file| file.path.clone()).collect(),
        ..Replayed::default()
    };
    let mut generations: Vec<u64> = files.iter().map(|file| file.generation).collect();
    generations.sort_unstable();
    generations.dedup();
    let mut first_error = None;
    for generation in generations.iter().rev() {
        let of_generation = files.iter().filter(|file| file.generation == *generation);
        match read_generation(disk, of_generation).await? {
            Ok(parsed) => {
                replayed.merge(parsed);
                return Ok(replayed);
            }
            // Not finished; the one before must be whole, then.
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match first_error {
        // The very first start was interrupted: there has never been a state.
        Some(_) if generations == [1] => Ok(replayed),
        Some(error) => Err(error),
        None => Ok(replayed),
    }
}

/// All files of one generation, or why it is not whole.
async fn read_generation<'a>(
    disk: &Disk,
    files: impl Iterator<Item = &'a WalFile>,
) -> Result<Result<Vec<ParsedFile>, WalError>, WalError> {
    let mut parsed = Vec::new();
    let mut paths = Vec::new();
    for file in files {
        let bytes = disk.read(&file.path).await.map_err(|error| WalError::io("read", &file.path, error))?;
        match parse_file(&file.path, &bytes) {
            Ok(file) => parsed.push(file),
            Err(error @ WalError::OtherVersion { .. }) => return Err(error),
            Err(error) => return Ok(Err(error)),
        }
        paths.push(&file.path);
    }
    let core_count = parsed.first().map_or(0, |file| file.placement.core_count);
    for (file, path) in parsed.iter().zip(&paths) {
        if file.placement.core_count != core_count {
            let found = format!("{} cores", file.placement.core_count);
            return Ok(Err(WalError::damaged(path, 0, format!("a file of {core_count} cores"), found)));
        }
    }
    for core in 0..core_count {
        if !parsed.iter().any(|file| file.placement.core == core) {
            let expected = format!("files of {core_count} cores in its generation");
            let path = paths.first().map_or(Path::new(""), |path| path.as_path());
            return Ok(Err(WalError::damaged(path, 0, expected, format!("none of core {core}"))));
        }
    }
    Ok(Ok(parsed))
}

impl Replayed {
    /// Newest wins, by (incarnation, epoch, sequence): a partition may have moved between cores.
    fn merge(&mut self, files: Vec<ParsedFile>) {
        let mut newest: BTreeMap<TopicIdPartition, (Rank, Option<Kept>)> = BTreeMap::new();
        for file in files {
            self.sequence_next = self.sequence_next.max(file.sequence_next);
            self.torn.extend(file.torn);
            for (key, found) in file.states {
                match newest.get(&key) {
                    Some((rank, _)) if *rank >= found.0 => {}
                    _ => {
                        newest.insert(key, found);
                    }
                }
            }
        }
        self.states = newest.into_iter().filter_map(|(key, (_, state))| Some((key, state?))).collect();
    }

    /// Writes the next generation of files, for `core_count` cores, and flushes it; then removes all others. `core_of`
    /// says which core will own a partition. A crash at any point leaves a whole generation with the same records.
    ///
    /// # Errors
    /// When the disk says no; the older generation is still whole then.
    ///
    /// # Panics
    /// If `core_of` names a core beyond `core_count`, or there are no cores.
    pub async fn rewrite(
        &self,
        disk: &Disk,
        data_dir: &Path,
        core_count: u16,
        core_of: impl Fn(&TopicIdPartition) -> u16,
    ) -> Result<(), WalError> {
        assert!(core_count > 0, "a broker has a core");
        let mut of_core = vec![Vec::new(); usize::from(core_count)];
        for (key, state) in &self.states {
            of_core[usize::from(core_of(key))].push((*key, state.clone()));
        }
        for (core, states) in (0..core_count).zip(of_core) {
            let placement = Placement { generation: self.generation_next, core, core_count };
            let content = encode_file(placement, self.sequence_next, states.into_iter());
            let dir = core_dir(data_dir, core);
            let path = dir.join(file_name(self.generation_next));
            let io = |action| move |error| (action, error);
            let written = async {
                disk.create_dir_all(&dir).await.map_err(io("create the directory of"))?;
                let file = disk.open(&path, OpenMode::CreateNew).await.map_err(io("create"))?;
                file.write_at(0, vec![Bytes::from(content.bytes)]).await.map_err(io("write"))?;
                file.sync_data().await.map_err(io("flush"))?;
                disk.sync_dir(&dir).await.map_err(io("flush the directory of"))
            };
            written.await.map_err(|(action, error)| WalError::io(action, &path, error))?;
        }
        disk.sync_dir(data_dir).await.map_err(|error| WalError::io("flush", data_dir, error))?;
        // The new generation is whole, and on the medium: from here on the others are litter.
        self.remove_others(disk, data_dir).await
    }

    async fn remove_others(&self, disk: &Disk, data_dir: &Path) -> Result<(), WalError> {
        for path in &self.files {
            disk.remove_file(path).await.map_err(|error| WalError::io("remove", path, error))?;
        }
        // Half-written rewrites of cores that ran; a missing flush of the removals only lets them come back.
        for dir in core_dirs(disk, data_dir).await? {
            let dir = core_dir(data_dir, dir);
            for entry in list(disk, &dir).await? {
                if entry.name.starts_with(FILE_PREFIX) && entry.name.ends_with(".tmp") {
                    let path = dir.join(entry.name);
                    disk.remove_file(&path).await.map_err(|error| WalError::io("remove", &path, error))?;
                }
            }
            disk.sync_dir(&dir).await.map_err(|error| WalError::io("flush", &dir, error))?;
        }
        Ok(())
    }
}

const FILE_PREFIX: &str = "meta.wal.";

/// The directory of a core's own files.
pub fn core_dir(data_dir: &Path, core: u16) -> PathBuf {
    data_dir.join(format!("core-{core}"))
}

/// The name of a write-ahead file.
pub fn file_name(generation: u64) -> String {
    format!("{FILE_PREFIX}{generation:010}")
}

/// A write-ahead file by its name.
#[derive(Clone, Debug)]
pub(super) struct WalFile {
    pub(super) path: PathBuf,
    pub(super) core: u16,
    pub(super) generation: u64,
}

/// All there are, by core.
pub(super) async fn wal_files(disk: &Disk, data_dir: &Path) -> Result<Vec<WalFile>, WalError> {
    let mut files = Vec::new();
    for core in core_dirs(disk, data_dir).await? {
        let dir = core_dir(data_dir, core);
        for entry in list(disk, &dir).await? {
            let generation = entry.name.strip_prefix(FILE_PREFIX).and_then(|digits| digits.parse().ok());
            if let Some(generation) = generation {
                files.push(WalFile { path: dir.join(entry.name), core, generation });
            }
        }
    }
    Ok(files)
}

async fn core_dirs(disk: &Disk, data_dir: &Path) -> Result<Vec<u16>, WalError> {
    let entries = list(disk, data_dir).await?;
    let cores =
        entries.iter().filter(|entry| entry.is_dir).filter_map(|entry| entry.name.strip_prefix("core-"));
    Ok(cores.filter_map(|number| number.parse().ok()).collect())
}

async fn list(disk: &Disk, dir: &Path) -> Result<Vec<ouzel_runtime::disk::DirEntry>, WalError> {
    disk.list_dir(dir).await.map_err(|error| WalError::io("list", dir, error))
}

/// What orders two records of one partition.
type Rank = (u64, LeaderEpoch, u64);

/// What one file says.
#[derive(Clone, Debug)]
pub(super) struct ParsedFile {
    pub(super) placement: Placement,
    /// The newest word on each partition; `None` that it is gone.
    pub(super) states: BTreeMap<TopicIdPartition, (Rank, Option<Kept>)>,
    pub(super) sequence_next: u64,
    pub(super) torn: Option<TornTail>,
}

/// Reads a file.
///
/// A bad frame with a good one behind it is damage: commits are flushed one after the other, so a crash can only hurt
/// the last. So is a file that lacks the records it was made with; [`replay`] takes that for an interrupted start if an
/// older generation is whole.
pub(super) fn parse_file(path: &Path, bytes: &[u8]) -> Result<ParsedFile, WalError> {
    let mut position = check_file_header(path, bytes)?;
    let mut parsed: Option<(ParsedFile, u32)> = None;
    let mut torn = None;
    while position < bytes.len() {
        let damaged = |(expected, found): NoFrame| WalError::damaged(path, position as u64, expected, found);
        let frame = match decode_frame(&bytes[position..]) {
            Ok(frame) => frame,
            Err(problem) if has_frame(&bytes[position + 1..]) => return Err(damaged(problem)),
            // A good checksum over nonsense is no torn write.
            Err(problem) if checked_frame(&bytes[position..]).is_ok() => return Err(damaged(problem)),
            Err((expected, found)) => {
                let found = format!("{found} instead of {expected}");
                torn = Some(TornTail { file: path.to_owned(), position: position as u64, found });
                break;
            }
        };
        let (file, _) = match (&mut parsed, frame.entries.first()) {
            (None, Some(Entry::Placed(placement, records))) => {
                let file = ParsedFile {
                    placement: *placement,
                    states: BTreeMap::new(),
                    sequence_next: frame.sequence,
                    torn: None,
                };
                parsed.insert((file, *records))
            }
            (None, _) => return Err(damaged(("the file's placement".into(), "a commit".into()))),
            (Some(parsed), _) => parsed,
        };
        file.take(&frame).map_err(damaged)?;
        position += frame.bytes;
    }
    let missing =
        |found: String| WalError::damaged(path, position as u64, "the records the file was made with", found);
    let Some((mut file, records)) = parsed else { return Err(missing("the end of the file".into())) };
    if file.states.len() < records as usize {
        return Err(missing(format!("{} of {records}", file.states.len())));
    }
    file.torn = torn;
    Ok(file)
}

impl ParsedFile {
    fn keep(&mut self, key: TopicIdPartition, kept: Kept, sequence: u64) {
        let (life, reign) = kept.rank();
        self.states.insert(key, ((life, reign, sequence), Some(kept)));
    }

    fn take(&mut self, frame: &Frame) -> Result<(), NoFrame> {
        if frame.sequence != self.sequence_next {
            return Err((format!("sequence {}", self.sequence_next), format!("sequence {}", frame.sequence)));
        }
        self.sequence_next += 1;
        for (i, entry) in frame.entries.iter().enumerate() {
            match entry {
                Entry::Change(Change::Put(key, state)) => self.keep(*key, Kept::Solo(*state), frame.sequence),
                Entry::Change(Change::PutGroup(key, state)) => {
                    self.keep(*key, Kept::Group(state.clone()), frame.sequence);
                }
                Entry::Change(Change::Remove(key)) => {
                    let gone =
                        self.states.get(key).map_or((0, LeaderEpoch::NONE), |(rank, _)| (rank.0, rank.1));
                    self.states.insert(*key, ((gone.0, gone.1, frame.sequence), None));
                }
                Entry::Placed(..) if i == 0 && self.states.is_empty() => {}
                Entry::Placed(..) => return Err(("a change".into(), "a second placement".into())),
            }
        }
        Ok(())
    }
}

/// Whether a whole frame begins anywhere in `bytes`.
fn has_frame(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| checked_frame(&bytes[at..]).is_ok())
}
