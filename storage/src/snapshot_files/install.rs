//! Gathering another replica's snapshot, and moving it to where the log was.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use ouzel_model::{EntryId, Offset, TopicPartition};
use ouzel_runtime::disk::OpenMode;
use ouzel_runtime::{Disk, File};

use super::{Manifest, SnapshotError, SnapshotFile, io_error};
use crate::checkpoint::OffsetCheckpoint;
use crate::error::Damage;
use crate::layout;
use crate::log::Log;
use crate::side_file::encode_header;

/// How much is read at a time of a file that is already there.
const CHECK_BYTES: usize = 1 << 20;

/// What is to be asked for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The file's number in the manifest.
    pub file: usize,
    /// Where in it.
    pub position: u64,
    /// How much of it is missing from there on.
    pub bytes: u64,
}

/// A snapshot on its way here. One at a time for each log.
#[derive(Debug)]
pub struct Install {
    disk: Disk,
    dir: PathBuf,
    topic_partition: TopicPartition,
    manifest: Manifest,
    /// By the file's number: whether it is there, flushed and verified.
    whole: Vec<bool>,
    /// The first file that is not, as far as it has come.
    part: Option<Part>,
}

#[derive(Debug)]
struct Part {
    file: File,
    position: u64,
    crc32c: u32,
}

impl Install {
    /// Begins to gather a snapshot for a log, or goes on where an earlier attempt broke off: files that are there as a whole
    /// with the manifest's checksums stay. The log goes on meanwhile.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn begin(log: &Log, manifest: Manifest) -> Result<Install, SnapshotError> {
        let disk = log.runtime().disk.clone();
        let dir = log.dir().to_owned();
        let staging = dir.join(layout::INSTALL_DIR);
        disk.create_dir_all(&staging).await.map_err(io_error("create", &staging))?;
        take_back(&disk, &dir).await?;
        let whole = vec![false; manifest.files.len()];
        let topic_partition = log.topic_partition().clone();
        let mut install = Install { disk, dir, topic_partition, manifest, whole, part: None };
        for entry in install.disk.list_dir(&staging).await.map_err(io_error("list", &staging))? {
            let number = install.manifest.files.iter().position(|file| file.name == entry.name);
            let path = staging.join(&entry.name);
            match number {
                Some(number) if install.is_as_named(number, &path, entry.bytes).await? => {
                    install.whole[number] = true;
                }
                _ => install.disk.remove_file(&path).await.map_err(io_error("remove", &path))?,
            }
        }
        install.flush_dir(&staging).await?;
        install.flush_dir(&install.dir).await?;
        Ok(install)
    }

    /// What is gathered.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What is missing next; `None` when all is there and verified.
    pub fn next(&self) -> Option<Piece> {
        let file = self.whole.iter().position(|is_whole| !is_whole)?;
        let position = self.part.as_ref().map_or(0, |part| part.position);
        Some(Piece { file, position, bytes: self.manifest.files[file].bytes - position })
    }

    /// Takes the bytes at the beginning of [`Install::next`]'s piece, all of them or some.
    ///
    /// # Errors
    /// [`SnapshotError::OutOfOrder`] if they are others; [`SnapshotError::Damaged`] if they complete a file which is not the
    /// manifest's: it is asked for again.
    pub async fn put(&mut self, file: usize, position: u64, bytes: Bytes) -> Result<(), SnapshotError> {
        let length = bytes.len() as u64;
        match self.next() {
            Some(next) if next.file == file && next.position == position && length <= next.bytes => {}
            next => {
                return Err(SnapshotError::OutOfOrder(format!(
                    "{length} bytes at {position} of file {file} of a snapshot, where {next:?} was asked for"
                )));
            }
        }
        let SnapshotFile { name, bytes: bytes_all, crc32c } = self.manifest.files[file].clone();
        let path = self.staging().join(&name);
        let part_path = layout::with_suffix(&path, layout::TEMPORARY_SUFFIX);
        let mut part = match self.part.take() {
            Some(part) => part,
            None => {
                let file = self.disk.open(&part_path, OpenMode::CreateOrOpen).await;
                let file = file.map_err(io_error("create", &part_path))?;
                file.truncate(0).await.map_err(io_error("truncate", &part_path))?;
                Part { file, position: 0, crc32c: 0 }
            }
        };
        part.crc32c = crc32c::crc32c_append(part.crc32c, &bytes);
        part.file.write_at(position, vec![bytes]).await.map_err(io_error("write", &part_path))?;
        part.position += length;
        if part.position < bytes_all {
            self.part = Some(part);
            return Ok(());
        }
        if part.crc32c != crc32c {
            self.disk.remove_file(&part_path).await.map_err(io_error("remove", &part_path))?;
            let found = format!("{:08x}", part.crc32c);
            return Err(Damage::new(&part_path, 0, format!("CRC-32C {crc32c:08x}"), found).into());
        }
        part.file.sync_data().await.map_err(io_error("flush", &part_path))?;
        self.disk.rename(&part_path, &path).await.map_err(io_error("rename", &part_path))?;
        self.flush_dir(&self.staging()).await?;
        self.whole[file] = true;
        Ok(())
    }

    /// Gives up: what was gathered is removed.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn abandon(self) -> Result<(), SnapshotError> {
        take_back(&self.disk, &self.dir).await?;
        let staging = self.staging();
        self.disk.remove_dir_all(&staging).await.map_err(io_error("remove", &staging))?;
        self.flush_dir(&self.dir).await
    }

    fn staging(&self) -> PathBuf {
        self.dir.join(layout::INSTALL_DIR)
    }

    async fn flush_dir(&self, dir: &Path) -> Result<(), SnapshotError> {
        self.disk.sync_dir(dir).await.map_err(io_error("flush", dir))
    }

    async fn is_as_named(&self, number: usize, path: &Path, bytes: u64) -> Result<bool, SnapshotError> {
        let expected = &self.manifest.files[number];
        if bytes != expected.bytes {
            return Ok(false);
        }
        let file = self.disk.open(path, OpenMode::ReadWrite).await.map_err(io_error("open", path))?;
        Ok(crc_of(&file, bytes).await.map_err(io_error("read", path))? == expected.crc32c)
    }

    /// Adds what the log will need beside the files that were sent, and says that all is there. Everything is flushed when
    /// this returns, also what names the partition: its log may never have had a record.
    pub(crate) async fn make_ready(&self) -> Result<(), SnapshotError> {
        let Manifest { entry, next_offset, log_start, epochs, .. } = &self.manifest;
        let staging = self.staging();
        let mut files: Vec<(String, Bytes)> = vec![
            (layout::LEADER_EPOCHS.to_owned(), epochs.encode().into()),
            // The sender's segments may be compacted, gaps and all; a log's last file must not be.
            (layout::segment_name(*next_offset, layout::LOG), Bytes::new()),
            (layout::segment_name(*next_offset, layout::SIDE), encode_header(*next_offset, Some(*entry))),
        ];
        if *log_start > Offset::ZERO {
            let note = OffsetCheckpoint([(self.topic_partition.clone(), *log_start)].into());
            files.push((layout::LOG_START.to_owned(), note.encode().into()));
        }
        // Last: it says that the others are there.
        files.push((layout::INSTALL_READY.to_owned(), self.manifest.encode()));
        let identity = self.dir.join(layout::PARTITION_METADATA);
        let file =
            self.disk.open(&identity, OpenMode::ReadWrite).await.map_err(io_error("open", &identity))?;
        file.sync_data().await.map_err(io_error("flush", &identity))?;
        for dir in [Some(self.dir.as_path()), self.dir.parent()].into_iter().flatten() {
            self.flush_dir(dir).await?;
        }
        for (name, bytes) in files {
            let path = staging.join(name);
            self.disk.write_atomic(&path, bytes).await.map_err(io_error("write", &path))?;
        }
        Ok(())
    }

    /// Moves the files to where the log's were. It was decided.
    pub(crate) async fn swap(&self) -> Result<(), SnapshotError> {
        swap(&self.disk, &self.dir, &self.manifest).await
    }

    /// It was not decided.
    pub(crate) async fn take_back(&self) -> Result<(), SnapshotError> {
        take_back(&self.disk, &self.dir).await
    }
}

/// CRC-32C of the first `bytes` of a file.
pub(crate) async fn crc_of(file: &File, bytes: u64) -> std::io::Result<u32> {
    let (mut position, mut crc) = (0, 0);
    while position < bytes {
        let length = CHECK_BYTES.min(usize::try_from(bytes - position).unwrap_or(CHECK_BYTES));
        let piece = file.read_at(position, length).await?;
        if piece.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        crc = crc32c::crc32c_append(crc, &piece);
        position += piece.len() as u64;
    }
    Ok(crc)
}

/// Makes a replica's directory that of one log before it is opened: finishes the installation of a snapshot if the record
/// has its entry as the purge point, and takes it back otherwise.
///
/// # Errors
/// Those of the disk; damage to what was flushed.
pub async fn settle(disk: &Disk, dir: &Path, purged: Option<EntryId>) -> Result<(), SnapshotError> {
    let ready = dir.join(layout::INSTALL_DIR).join(layout::INSTALL_READY);
    let bytes = match disk.read(&ready).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return keep_nothing_ready(disk, dir).await;
        }
        read => read.map_err(io_error("read", &ready))?,
    };
    let manifest =
        Manifest::decode(&bytes).map_err(|error| Damage::new(&ready, 0, "a snapshot's manifest", error))?;
    if Some(manifest.entry) == purged {
        tracing::info!(dir = %dir.display(), entry = %manifest.entry, "finishing the installation of a snapshot");
        swap(disk, dir, &manifest).await
    } else {
        take_back(disk, dir).await
    }
}

/// Nothing is ready. That it is not is flushed, since an earlier start may have failed to: a manifest that comes back with a
/// power cut would be decided once the log's own purge point comes to its entry, and take the place of all that is behind.
/// A directory that a swap emptied a moment before a crash is removed.
async fn keep_nothing_ready(disk: &Disk, dir: &Path) -> Result<(), SnapshotError> {
    let staging = dir.join(layout::INSTALL_DIR);
    let inside = match disk.list_dir(&staging).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(io_error("list", &staging))?,
    };
    disk.sync_dir(&staging).await.map_err(io_error("flush", &staging))?;
    if inside.is_empty() {
        disk.remove_dir_all(&staging).await.map_err(io_error("remove", &staging))?;
    }
    Ok(())
}

/// What has been gathered is no longer ready; it stays for another attempt.
async fn take_back(disk: &Disk, dir: &Path) -> Result<(), SnapshotError> {
    let staging = dir.join(layout::INSTALL_DIR);
    let ready = staging.join(layout::INSTALL_READY);
    match disk.remove_file(&ready).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(io_error("remove", &ready))?,
    }
    disk.sync_dir(&staging).await.map_err(io_error("flush", &staging))
}

/// Removes what is not the snapshot's, moves what is, and takes the manifest away before anything can be added to the log.
/// May be done again after a crash at any step.
async fn swap(disk: &Disk, dir: &Path, manifest: &Manifest) -> Result<(), SnapshotError> {
    let staging = dir.join(layout::INSTALL_DIR);
    let mut names: Vec<String> = manifest.files.iter().map(|file| file.name.clone()).collect();
    names.push(layout::segment_name(manifest.next_offset, layout::LOG));
    names.push(layout::segment_name(manifest.next_offset, layout::SIDE));
    names.push(layout::LEADER_EPOCHS.to_owned());
    if manifest.log_start > Offset::ZERO {
        names.push(layout::LOG_START.to_owned());
    }
    for entry in disk.list_dir(dir).await.map_err(io_error("list", dir))? {
        let is_logs = layout::parse_segment_file(&entry.name).is_some()
            || entry.name.ends_with(layout::TEMPORARY_SUFFIX)
            || [layout::LEADER_EPOCHS, layout::LOG_START, layout::CLEANED_TO].contains(&entry.name.as_str());
        if !entry.is_dir && is_logs && !names.contains(&entry.name) {
            let path = dir.join(&entry.name);
            disk.remove_file(&path).await.map_err(io_error("remove", &path))?;
        }
    }
    for name in &names {
        let (from, to) = (staging.join(name), dir.join(name));
        match disk.rename(&from, &to).await {
            // Moved before a crash.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if !disk.exists(&to).await.map_err(io_error("look for", &to))? {
                    return Err(Damage::new(&to, 0, "a file of a snapshot", "none").into());
                }
            }
            renamed => renamed.map_err(io_error("rename", &from))?,
        }
    }
    disk.sync_dir(dir).await.map_err(io_error("flush", dir))?;
    // A crash between the two halves of a move leaves a file under both names.
    for entry in disk.list_dir(&staging).await.map_err(io_error("list", &staging))? {
        if entry.name != layout::INSTALL_READY {
            let path = staging.join(&entry.name);
            disk.remove_file(&path).await.map_err(io_error("remove", &path))?;
        }
    }
    disk.sync_dir(&staging).await.map_err(io_error("flush", &staging))?;
    take_back(disk, dir).await?;
    disk.remove_dir_all(&staging).await.map_err(io_error("remove", &staging))?;
    disk.sync_dir(dir).await.map_err(io_error("flush", dir))
}
