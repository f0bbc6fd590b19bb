//! A group's log as a snapshot for another replica, and another's snapshot in the place of this log.

use std::future::Future;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use ouzel_model::{EntryId, Offset, TimestampMs};

use super::truncate::Cutting;
use super::{Inner, Log, Recovered, State};
use crate::error::{Fenced, ReadError};
use crate::layout;
use crate::producers::Producers;
use crate::producers::snapshot::{self, Windows};
use crate::recovery::{OpenLog, recover};
use crate::recovery_table::Stop;
use crate::segment::Segment;
use crate::snapshot_files::{
    Install, Manifest, SnapshotError, SnapshotFile, SnapshotFiles, Source, checksum_of,
};

/// A segment that goes while its file is being opened makes the look at the log stale; more often than this, something
/// drops segments without end.
const ATTEMPTS_MAX: usize = 16;

/// What a snapshot is of, as the log was in one moment.
struct View {
    segments: Vec<Rc<Segment>>,
    manifest: Manifest,
}

impl Log {
    /// Everything up to `upto`, the purge point or the last entry of a sealed segment ([`Log::purge_candidate`]), as files
    /// for another replica. `membership` is the replication's own, as of that entry. Each segment is read once for its
    /// checksum, by the first snapshot it is part of.
    ///
    /// # Errors
    /// [`SnapshotError::NoSnapshot`] if no segment ends there.
    pub async fn snapshot_files(
        &self,
        upto: EntryId,
        membership: Bytes,
    ) -> Result<SnapshotFiles, SnapshotError> {
        for _ in 0..ATTEMPTS_MAX {
            let view = self.inner.view_of(upto, membership.clone())?;
            if let Some(files) = self.inner.gather(view).await? {
                return Ok(files);
            }
        }
        Err(SnapshotError::NoSnapshot(format!("the segments of {self:?} go faster than they are opened")))
    }

    /// Puts a snapshot that was gathered whole in the place of all that the log has: the purge point is its entry then, the
    /// log end its next offset, and nothing is behind. The handle stays good, and so do reads that are under way. Appends
    /// are refused until that is done, and it is done also if the future is dropped.
    ///
    /// `decide` commits the replica's record to the write-ahead file: purge point and membership are the manifest's, the
    /// flushed offset its next offset. With that the snapshot is the log, whatever happens.
    ///
    /// # Errors
    /// Before it was decided, the log is as it was. If deciding fails, or what follows, it is fenced: only the next start
    /// knows, see [`crate::snapshot_files::settle`].
    pub async fn install(
        &self,
        install: Install,
        decide: impl Future<Output = io::Result<()>> + 'static,
    ) -> Result<(), SnapshotError> {
        let cutting = Cutting::begin(self)?;
        let log = self.clone();
        let installing =
            ouzel_runtime::spawn(async move { log.inner.install(install, decide, &cutting).await });
        installing.await.unwrap_or_else(|error| Err(Fenced::new(error).into()))
    }
}

impl Inner {
    fn view_of(&self, upto: EntryId, membership: Bytes) -> Result<View, SnapshotError> {
        let state = self.state.borrow();
        let boundary = state.entries.as_ref().and_then(|entries| entries.end_of_sealed(upto));
        let Some(boundary) = boundary else {
            let what = format!("{} has no segment that ends with entry {upto}", self.topic_partition);
            return Err(SnapshotError::NoSnapshot(what));
        };
        let is_part = |segment: &&Rc<Segment>| {
            segment.base < boundary && segment.end.get() > state.log_start && segment.size_bytes.get() > 0
        };
        let segments: Vec<_> = state.segments.iter().filter(is_part).cloned().collect();
        let mut epochs = state.epochs.clone();
        epochs.truncate_to(boundary);
        let manifest = Manifest {
            entry: upto,
            next_offset: boundary,
            // A trim of what lies behind it comes with the entry that asked for it.
            log_start: state.log_start.min(boundary),
            membership,
            epochs,
            files: Vec::new(),
        };
        Ok(View { segments, manifest })
    }

    /// Opens the files; `None` if one is gone.
    async fn gather(&self, view: View) -> Result<Option<SnapshotFiles>, SnapshotError> {
        let View { segments, mut manifest } = view;
        let disk = &self.shared.runtime.disk;
        let boundary = manifest.next_offset;
        let written_end = self.state.borrow().written_end;
        if written_end < boundary {
            self.progress.written.wait_for(boundary).await?;
        }
        let mut sources = Vec::with_capacity(segments.len() + 2);
        for segment in &segments {
            let file = match segment.file(disk).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened.map_err(|source| segment.failed(source))?,
            };
            let bytes = segment.written_bytes.get();
            let crc32c = match segment.checksum.get() {
                Some(known) => known,
                None => checksum_of(&file, bytes).await.map_err(|source| segment.failed(source))?,
            };
            segment.checksum.set(Some(crc32c));
            let name = layout::segment_name(segment.base, layout::LOG);
            manifest.files.push(SnapshotFile { name, bytes, crc32c });
            sources.push(Source::Open(file));
        }
        let Some((bytes, windows)) = self.producers_at(&segments, boundary).await? else { return Ok(None) };
        for (extension, bytes) in [(layout::SNAPSHOT, bytes), (layout::PRODUCERS, windows)] {
            let name = layout::segment_name(boundary, extension);
            let crc32c = crc32c::crc32c(&bytes);
            manifest.files.push(SnapshotFile { name, bytes: bytes.len() as u64, crc32c });
            sources.push(Source::Memory(bytes.into()));
        }
        Ok(Some(SnapshotFiles::new(manifest, sources)))
    }

    /// Both files of the producers where the segments end: those that were written when the last one was sealed, or made
    /// anew. `None` if a segment is gone.
    async fn producers_at(
        &self,
        segments: &[Rc<Segment>],
        end: Offset,
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>, SnapshotError> {
        let runtime = &self.shared.runtime;
        let now = TimestampMs(runtime.clock.wall_ms());
        let path = |extension| layout::segment_file(&self.dir, end, extension);
        if let (Ok(bytes), Ok(windows)) = (
            runtime.disk.read(&path(layout::SNAPSHOT)).await,
            runtime.disk.read(&path(layout::PRODUCERS)).await,
        ) && let Ok((_, Windows::Whole)) = snapshot::load(&bytes, Some(&windows), end, now)
        {
            return Ok(Some((bytes.to_vec(), windows.to_vec())));
        }
        if segments.is_empty() {
            return Ok(Some(snapshot::encode(&Producers::new(end))));
        }
        match self.walk_to(segments, end).await {
            Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            walked => Ok(Some(snapshot::encode(&walked?.1))),
        }
    }

    async fn install(
        &self,
        install: Install,
        decide: impl Future<Output = io::Result<()>>,
        _appends_refused: &Cutting,
    ) -> Result<(), SnapshotError> {
        if let Some(missing) = install.next() {
            return Err(SnapshotError::OutOfOrder(format!("a snapshot that lacks {missing:?}")));
        }
        self.start_at_rest().await;
        let Some(log) = self.handle() else { return Err(Fenced::new("the log was closed").into()) };
        let _uncompacted = log.hold_compaction().await;
        log.flush().await?;
        self.at_rest().await;
        log.check_fence()?;
        let Some(_inside) = self.gate.enter() else { return Err(ReadError::Deleted.into()) };
        let segments = self.state.borrow().segments.clone();
        let prepared = async {
            // Their names are about to be others'; who reads them goes on through the open files.
            for segment in segments.iter().filter(|segment| segment.written_bytes.get() > 0) {
                let held = segment.hold_for_readers(&self.shared.runtime.disk).await;
                held.map_err(|source| segment.failed(source))?;
            }
            install.make_ready().await
        };
        if let Err(error) = prepared.await {
            segments.iter().for_each(|segment| segment.release());
            // The manifest may be there already. If it stays, the log must not go on: a start that finds it when the log's own
            // purge point has come to its entry takes it for decided.
            install.take_back().await.inspect_err(|kept| {
                self.fence(format!("take back a snapshot in {}: {kept}", self.dir.display()));
            })?;
            return Err(error);
        }
        let installed = async {
            decide.await.map_err(Fenced::new)?;
            install.swap().await?;
            self.read_anew(install.manifest()).await
        };
        installed.await.inspect_err(|error| {
            self.fence(format!("install a snapshot in {}: {error}", self.dir.display()));
        })
    }

    /// Takes the state of what lies in the directory now, in the place of all there was in memory.
    async fn read_anew(&self, manifest: &Manifest) -> Result<(), SnapshotError> {
        let config = self.state.borrow().config.clone();
        let options = OpenLog {
            shared: self.shared.clone(),
            dir: self.dir.clone(),
            topic_partition: self.topic_partition.clone(),
            topic_id: self.topic_id,
            config: (*config).clone(),
            // All of it was flushed and verified a moment ago.
            stop: Stop::Clean,
            flushed: manifest.next_offset,
            clean_end: Some(manifest.next_offset),
            now: TimestampMs(self.shared.runtime.clock.wall_ms()),
            with_entries: true,
        };
        let recovered = recover(options).await.map_err(Fenced::new)?;
        self.check_is(&recovered, manifest)?;
        let log_end = recovered.log_end;
        {
            let mut state = self.state.borrow_mut();
            // A close waits for this.
            let closing = state.closing;
            *state = State::new(&self.dir, &self.shared, recovered);
            // Refused as yet; see `install`.
            (state.cutting, state.closing) = (true, closing);
            state.unclosed = true;
            self.cuts.set(self.cuts.get() + 1);
            self.tail.truncate(Offset::ZERO);
            self.tail.written(log_end);
        }
        let replaced = Fenced::new(format_args!("a snapshot took the place of {}", self.topic_partition));
        self.progress.give_up_beyond(Offset::ZERO, &replaced);
        self.progress.give_up_entries_behind(None, &replaced);
        self.drop_below_start();
        self.progress.moved();
        Ok(())
    }

    fn check_is(&self, recovered: &Recovered, manifest: &Manifest) -> Result<(), Fenced> {
        let last = recovered.entries.as_ref().and_then(|entries| entries.last());
        if (last, recovered.log_end) == (Some(manifest.entry), manifest.next_offset) {
            return Ok(());
        }
        let (end, wanted) = (recovered.log_end, manifest.next_offset);
        Err(Fenced::new(format_args!(
            "a snapshot up to entry {} and offset {wanted} gives a log up to {last:?} and {end}",
            manifest.entry
        )))
    }
}
