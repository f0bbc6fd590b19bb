//! A replica's log as files for another, and theirs in the place of its log; kills, power cuts and failing disks at every point,
//! also of the start that comes after.
//!
//! What must hold after every start:
//! * the log is the old one or the snapshot, as the write-ahead file's record says; it opens;
//! * the old one has lost nothing that was flushed;
//! * the snapshot has the sender's records, producers and leader epochs, begins and ends where the sender said, and keeps
//!   what was appended and flushed behind it.

mod support;

use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use ouzel_model::batch::{BatchBuilder, Codec, Header, RecordParts, batches};
use ouzel_model::{
    EntryId, EntryIndex, LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerEpoch, ProducerId, ReplicaId,
    TimestampMs, TopicIdPartition,
};
use ouzel_runtime::CoreId;
use ouzel_runtime::sim::{self, Rng, SimRuntime};
use ouzel_storage::compaction::{Cleaner, CleanerConfig, CompactionRules};
use ouzel_storage::entries::{EntryBody, StoredEntry};
use ouzel_storage::snapshot_files::{Install, Manifest, SnapshotError, SnapshotFiles, open_group};
use ouzel_storage::wal::{BootId, Change, GroupState, MetaWal, replay};
use ouzel_storage::{Log, LogConfig, OpenLog, ProducerVerdict};
use support::{Bench, NOW, Seen, TOPIC_ID, records};

const AT: TopicIdPartition = TopicIdPartition { topic_id: TOPIC_ID, partition: PartitionIndex(0) };
const ME: ReplicaId = ReplicaId { node: NodeId(2), incarnation: 1 };

fn config() -> LogConfig {
    let delay = std::time::Duration::from_millis(2);
    LogConfig {
        segment_bytes: 600,
        index_interval_bytes: 100,
        file_delete_delay: delay,
        ..LogConfig::default()
    }
}

fn id(term: i32, index: u64) -> EntryId {
    EntryId { term: LeaderEpoch(term), index: EntryIndex(index) }
}

/// All records; compaction leaves gaps between them.
async fn read_all(log: &Log, end: Offset) -> Vec<Seen> {
    let (mut next, mut seen) = (log.offsets().log_start, Vec::new());
    while next < end {
        let slices = log.read(next, end, 500, true).await.expect("the log reads");
        let Some(last) = slices.batches.iter().flat_map(|bytes| batches(bytes).flatten()).last() else {
            break;
        };
        let piece = slices.batches.iter().flat_map(|bytes| records(bytes));
        seen.extend(piece.filter(|record| record.offset >= next.value()));
        next = last.header.next_offset();
    }
    seen
}

async fn read_entries(log: &Log) -> Vec<StoredEntry> {
    let first = log.purged().map_or(EntryIndex(0), |purged| purged.index.next());
    let end = log.last_entry().map_or(first, |last| last.index.next());
    if first == end { Vec::new() } else { log.read_entries(first, end, 1 << 20).await.expect("entries") }
}

fn draw_batch(random: &mut Rng, sequences: &mut [i32; 3]) -> BytesMut {
    let producer = random.below(3) as usize;
    let mut builder = BatchBuilder::new(Codec::None).producer(
        ProducerId(producer as i64),
        ProducerEpoch(0),
        sequences[producer],
    );
    for _ in 0..=random.below(3) {
        let (key, value) = (format!("k{}", random.below(5)), random.next().to_string());
        let parts = RecordParts { key: Some(key.as_bytes()), value: Some(value.as_bytes()), headers: &[] };
        builder.push(TimestampMs(random.below(1000) as i64), &parts);
        sequences[producer] += 1;
    }
    BytesMut::from(&builder.build()[..])
}

/// A log with `count` entries of several reigns.
async fn populate(random: &mut Rng, log: &Log, count: u64) {
    let mut sequences = [0; 3];
    for _ in 0..count {
        let next = log.last_entry().map_or(id(0, 0), |last| EntryId { index: last.index.next(), ..last });
        if next.index.value() == 0 || random.chance(1, 6) {
            let id = EntryId { term: next.term.next(), ..next };
            log.append_side(id, 1, Bytes::from_static(b"a reign")).expect("taken");
        } else {
            log.place_batch(next, draw_batch(random, &mut sequences), NOW).expect("taken");
        }
    }
}

/// A sender's snapshot as it goes over the wire, and what a reader of the sender sees of it.
struct Sent {
    manifest: Manifest,
    files: Vec<Bytes>,
    seen: Vec<Seen>,
    /// Header, and the verdict on a retry, of each producer's newest batch.
    newest: Vec<(Header, ProducerVerdict)>,
    epochs: Vec<(Offset, Option<LeaderEpoch>)>,
}

async fn read_files(files: &SnapshotFiles, length: usize) -> Vec<Bytes> {
    let mut read = Vec::new();
    for (number, file) in files.manifest().files.iter().enumerate() {
        let mut bytes = BytesMut::new();
        while (bytes.len() as u64) < file.bytes {
            let piece = files.read(number, bytes.len() as u64, length).await.expect("it is held open");
            assert!(!piece.is_empty() && piece.len() <= length);
            bytes.extend_from_slice(&piece);
        }
        assert_eq!(crc32c::crc32c(&bytes), file.crc32c, "{}", file.name);
        read.push(bytes.freeze());
    }
    read
}

impl Sent {
    /// Of a log in a directory of its own: perhaps trimmed, purged, compacted.
    async fn make(node: &SimRuntime, random: &mut Rng) -> Sent {
        let bench = Bench::new(node.runtime(), &node.data_dir().join("sender"), 0);
        let log = Log::open(OpenLog { with_entries: true, ..bench.options(&config()) }).await.expect("a log");
        let count = 25 + random.below(25);
        populate(random, &log, count).await;
        log.flush().await.expect("flushed");
        let bound = EntryIndex(random.below(count));
        let candidate = log.purge_candidate(bound).or_else(|| log.purge_candidate(EntryIndex(count)));
        let upto = candidate.expect("a sealed segment");
        if random.chance(1, 2) {
            log.purge(upto).await.expect("purged");
            if random.chance(1, 2) {
                let config = CleanerConfig { key_bytes_max: 4800, ..CleanerConfig::default() };
                let rules = CompactionRules {
                    dirty_ratio_min: 0.0,
                    lag_min_ms: 0,
                    lag_max_ms: i64::MAX,
                    delete_retention_ms: 1000,
                };
                let bound = log.entry_end(upto.index).expect("the purge point");
                log.compact(&Cleaner::new(node.runtime(), config), &rules, bound, NOW)
                    .await
                    .expect("compacted");
            }
        }
        if random.chance(1, 2) {
            let to = random.below(log.offsets().log_end.value() as u64 + 1) as i64;
            log.trim_to(Offset(to)).await.expect("trimmed");
        }
        let files = log.snapshot_files(upto, Bytes::from_static(b"members")).await.expect("a snapshot");
        let manifest = Manifest::decode(&files.manifest().encode()).expect("its own bytes");
        assert_eq!(&manifest, files.manifest());
        let (start, end) = (manifest.log_start, manifest.next_offset);
        assert_eq!(Some(end), log.entry_end(upto.index));
        let seen = if log.offsets().log_start < end { read_all(&log, end).await } else { Vec::new() };
        let epochs = seen.iter().map(|record| (Offset(record.offset), log.epoch_of(Offset(record.offset))));
        let epochs = epochs.collect();
        // The producers as they are there, not at the log's end.
        let _ = log.truncate_after(Some(upto)).await;
        let mut newest = Vec::new();
        if start < end {
            let slices = log.read(start, end, 1 << 20, true).await.expect("read");
            for producer in 0..3 {
                let of = |header: &Header| header.producer_id == ProducerId(producer);
                let all = slices.batches.iter().flat_map(|bytes| batches(bytes).flatten());
                if let Some(header) = all.map(|batch| batch.header).filter(of).last() {
                    newest.push((header, log.check_producer(&header)));
                }
            }
        }
        Sent { files: read_files(&files, 100).await, manifest, seen, newest, epochs }
    }

    async fn transfer(&self, random: &mut Rng, log: &Log) -> Result<Install, String> {
        let mut install = Install::begin(log, self.manifest.clone()).await.map_err(|e| e.to_string())?;
        while let Some(piece) = install.next() {
            if random.chance(1, 8) {
                drop(install);
                install = Install::begin(log, self.manifest.clone()).await.map_err(|e| e.to_string())?;
                continue;
            }
            let length = (random.below(400) + 1).min(piece.bytes) as usize;
            let start = piece.position as usize;
            let bytes = self.files[piece.file].slice(start..start + length);
            install.put(piece.file, piece.position, bytes).await.map_err(|e| e.to_string())?;
        }
        Ok(install)
    }
}

struct World<'a> {
    node: &'a SimRuntime,
    boot: BootId,
}

impl World<'_> {
    /// A start of the receiver.
    async fn start(&self) -> Result<(Log, MetaWal, GroupState), String> {
        let (disk, data_dir) = (self.node.runtime().disk, self.node.data_dir());
        let replayed = replay(&disk, data_dir).await.map_err(|e| e.to_string())?;
        replayed.rewrite(&disk, data_dir, 1, |_| 0).await.map_err(|e| e.to_string())?;
        let wal = MetaWal::open(disk, data_dir, CoreId(0)).await.map_err(|e| e.to_string())?;
        let kept = wal.get_group(&AT);
        let bench = Bench::new(self.node.runtime(), data_dir, 600);
        let log = open_group(bench.options(&config()), kept.as_ref(), self.boot).await;
        let log = log.map_err(|error| error.to_string())?;
        let kept = kept.unwrap_or_else(|| GroupState::new(ME, self.boot)).opened(true, self.boot);
        wal.commit(vec![Change::PutGroup(AT, kept.clone())]).await.map_err(|e| e.to_string())?;
        Ok((log, wal, kept))
    }
}

/// What the receiver may have.
struct Model {
    old: Vec<StoredEntry>,
    old_purged: Option<EntryId>,
    /// It was decided, or may have been.
    is_installed: Option<bool>,
    after: Vec<StoredEntry>,
    after_flushed: usize,
}

async fn install(
    world_wal: &MetaWal,
    kept: &GroupState,
    log: &Log,
    install: Install,
) -> Result<(), SnapshotError> {
    let manifest = install.manifest();
    let state = GroupState {
        purged: Some(manifest.entry),
        membership_at_purge: manifest.membership.clone(),
        committed: Some(manifest.entry),
        flushed: manifest.next_offset,
        ..kept.clone()
    };
    let wal = world_wal.clone();
    let decide =
        async move { wal.commit(vec![Change::PutGroup(AT, state)]).await.map_err(std::io::Error::other) };
    log.install(install, decide).await
}

/// Gathers and installs the snapshot, and goes on behind it.
async fn live(
    sent: &Sent,
    random: &mut Rng,
    (log, wal, kept): &(Log, MetaWal, GroupState),
    model: &mut Model,
) -> Result<(), String> {
    let gathered = sent.transfer(random, log).await?;
    model.is_installed = None;
    install(wal, kept, log, gathered).await.map_err(|error| error.to_string())?;
    model.is_installed = Some(true);
    check(sent, log, model).await?;
    let mut sequences = [1000; 3];
    let term = sent.manifest.entry.term.next();
    for at in 0..random.below(9) {
        let id = EntryId { term, index: EntryIndex(sent.manifest.entry.index.value() + 1 + at) };
        let (base_offset, body) = if at == 0 {
            log.append_side(id, 2, Bytes::from_static(b"next")).map_err(|e| e.to_string())?;
            (log.offsets().log_end, EntryBody::Side { kind: 2, body: Bytes::from_static(b"next") })
        } else {
            let mut batch = draw_batch(random, &mut sequences);
            let placed = log.place_batch(id, batch.clone(), NOW).map_err(|e| e.to_string())?;
            ouzel_model::batch::stamp(&mut batch, placed.base_offset, term);
            (placed.base_offset, EntryBody::Batch(batch.freeze()))
        };
        let end_offset = log.offsets().log_end;
        model.after.push(StoredEntry { id, base_offset, end_offset, body });
    }
    log.flush().await.map_err(|error| error.to_string())?;
    if let Some(last) = log.last_entry().filter(|_| !model.after.is_empty()) {
        log.wait_entry_flushed(last.index).await.map_err(|error| error.to_string())?;
    }
    model.after_flushed = model.after.len();
    check(sent, log, model).await
}

/// Holds the receiver's log against what it may be.
async fn check(sent: &Sent, log: &Log, model: &mut Model) -> Result<(), String> {
    let purged = log.purged();
    let is_installed = purged == Some(sent.manifest.entry) && purged != model.old_purged;
    if model.is_installed.is_some_and(|expected| expected != is_installed) {
        return Err(format!("purged to {purged:?}, installed: {:?}", model.is_installed));
    }
    model.is_installed = Some(is_installed);
    let entries = read_entries(log).await;
    if !is_installed {
        return if entries == model.old { Ok(()) } else { Err("the old entries are others".into()) };
    }
    let Manifest { log_start, next_offset, .. } = sent.manifest;
    let there = entries.len();
    if there < model.after_flushed || entries[..] != model.after[..there] {
        return Err(format!("{there} entries behind it, {} are flushed", model.after_flushed));
    }
    model.after.truncate(there);
    let end = model.after.last().map_or(next_offset, |last| last.end_offset);
    let offsets = log.offsets();
    if (offsets.log_start, offsets.log_end) != (log_start, end) {
        return Err(format!("{offsets:?}, not from {log_start} to {end}"));
    }
    if log_start < next_offset && read_all(log, next_offset).await != sent.seen {
        return Err("the records are others".into());
    }
    for (offset, epoch) in &sent.epochs {
        if log.epoch_of(*offset) != *epoch {
            return Err(format!("the epoch of {offset} is {:?}, not {epoch:?}", log.epoch_of(*offset)));
        }
    }
    for (header, expected) in &sent.newest {
        // What is appended behind it is of the same producers.
        if model.after.is_empty() && log.check_producer(header) != *expected {
            return Err(format!("a retry of {} is judged otherwise", header.base_offset));
        }
    }
    Ok(())
}

/// What goes wrong, and at which change of the disk.
#[derive(Clone, Copy, Debug)]
enum Fault {
    PowerCut(u64),
    Kill(u64),
    /// So many operations in a row fail, and the disk is well again.
    Errors(u64, u64),
}

impl Fault {
    fn set(self, node: &SimRuntime) {
        match self {
            Fault::PowerCut(point) | Fault::Kill(point) => node.disk().cut_power_after(point),
            Fault::Errors(point, count) => node.disk().fail_changes_after(point, count),
        }
    }

    fn has_struck(self, node: &SimRuntime) -> bool {
        match self {
            Fault::PowerCut(_) | Fault::Kill(_) => node.disk().is_cut(),
            Fault::Errors(_, count) => node.disk().failing_changes() < count,
        }
    }
}

impl World<'_> {
    /// Ends the process, and perhaps the machine's power with it; what was to fail does not any more.
    fn end(&mut self, fault: Option<Fault>, random: &mut Rng) {
        let disk = self.node.disk();
        let is_kill = match fault {
            Some(Fault::Kill(_)) => true,
            Some(Fault::PowerCut(_)) => false,
            Some(Fault::Errors(..)) | None => random.chance(1, 2),
        };
        if is_kill {
            disk.kill();
        } else {
            disk.power_cut();
            self.boot.0[0] += 1;
        }
        disk.heal();
    }
}

/// What came to pass of the faults that were set.
struct Struck {
    first: bool,
    /// The first one struck when all was gathered.
    in_installation: bool,
    then: bool,
}

/// A receiver's life with a fault, and a start after it, perhaps with another.
fn run(seed: u64, fault: Option<Fault>, then: Option<Fault>) -> Result<Struck, String> {
    sim::run(seed, |node| async move {
        let mut random = Rng::new(seed);
        let sent = Sent::make(&node, &mut random).await;
        let mut world = World { node: &node, boot: BootId([1; 16]) };
        let started = world.start().await?;
        // Nothing, a shorter log, or a longer one, of reigns of its own.
        let count = [0, 7, 60][random.below(3) as usize];
        populate(&mut random, &started.0, count).await;
        if count > 0 {
            started.0.flush().await.map_err(|e| e.to_string())?;
            let last = started.0.last_entry().expect("entries");
            started.0.wait_entry_flushed(last.index).await.map_err(|e| e.to_string())?;
        }
        let mut model = Model {
            old: read_entries(&started.0).await,
            old_purged: started.0.purged(),
            is_installed: Some(false),
            after: Vec::new(),
            after_flushed: 0,
        };
        if let Some(fault) = fault {
            fault.set(&node);
        }
        let lived = live(&sent, &mut random, &started, &mut model).await;
        let has_struck = fault.is_some_and(|fault| fault.has_struck(&node));
        let in_installation = has_struck && model.is_installed.is_none();
        if !has_struck {
            lived?;
        } else if matches!(fault, Some(Fault::Errors(..))) && started.0.fenced().is_none() {
            // Whoever is told that it failed, and goes on, goes on with the log it had.
            model.is_installed = model.is_installed.or(Some(false));
            check(&sent, &started.0, &mut model).await?;
        }
        world.end(fault.filter(|_| has_struck), &mut random);
        let has_struck_again = if let Some(then) = then {
            then.set(&node);
            let _ = world.start().await;
            let has_struck = then.has_struck(&node);
            world.end(Some(then), &mut random);
            has_struck
        } else {
            false
        };
        let started = world.start().await?;
        check(&sent, &started.0, &mut model).await?;
        if model.is_installed == Some(false) {
            live(&sent, &mut random, &started, &mut model).await?;
        }
        // Closed and opened as any other.
        let (log, wal, kept) = started;
        let end = log.close().await?;
        wal.commit(vec![Change::PutGroup(AT, wal.get_group(&AT).unwrap_or(kept).closed(end))])
            .await
            .map_err(|e| e.to_string())?;
        node.disk().kill();
        let (log, ..) = world.start().await?;
        check(&sent, &log, &mut model).await?;
        let names = Bench::new(node.runtime(), node.data_dir(), 0).names().await;
        if names.iter().any(|name| name == "snapshot-install") {
            return Err(format!("what was gathered is still there: {names:?}"));
        }
        Ok(Struck { first: has_struck, in_installation, then: has_struck_again })
    })
}

/// Visits the points of a life until the fault does not come to strike any more.
fn at_every_point(seed: u64, fault: impl Fn(u64) -> Fault) {
    for point in 0.. {
        let fault = fault(point);
        let struck = run(seed, Some(fault), None);
        if !struck.unwrap_or_else(|error| panic!("seed {seed}, {fault:?}: {error}")).first {
            assert!(point > 20, "seed {seed}: only {point} points");
            break;
        }
    }
}

#[test]
fn a_snapshot_takes_a_logs_place() {
    for seed in 0..80 {
        run(seed, None, None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn the_power_may_go_at_any_point() {
    (100..105).for_each(|seed| at_every_point(seed, Fault::PowerCut));
}

#[test]
fn the_process_may_be_killed_at_any_point() {
    (200..202).for_each(|seed| at_every_point(seed, Fault::Kill));
}

#[test]
fn the_disk_may_fail_at_any_point() {
    for count in [1, 2, 7] {
        at_every_point(300 + count, |point| Fault::Errors(point, count));
    }
}

/// The simulation of groups found a ready snapshot of which nobody had said whether it is the log (seed 8501179), and a
/// replica that was not opened for it: power had failed between the manifest and the record, and the harness opened logs
/// without settling that first. Brokers did. So here is every point of an installation, and at each every point of the start
/// after it: whatever is found is one of the two logs, and opens.
#[test]
fn a_start_that_settles_it_may_end_at_any_point_too() {
    let power_cuts: fn(u64) -> Fault = Fault::PowerCut;
    for (seed, fault) in [(400, power_cuts), (402, |point| Fault::Errors(point, 2))] {
        let mut visited = 0;
        for point in 0.. {
            let visit = |then| {
                let faults = (fault(point), fault(then));
                run(seed, Some(faults.0), Some(faults.1))
                    .unwrap_or_else(|error| panic!("seed {seed}, {faults:?}: {error}"))
            };
            let struck = visit(0);
            if !struck.first {
                break;
            }
            // Before, every start is like any other; and behind it.
            if struck.in_installation {
                // One in eleven, and others after the next point.
                let starts_at = 1 + point % 11;
                visited += (starts_at..).step_by(11).take_while(|then| visit(*then).then).count();
            }
        }
        assert!(visited > 30, "seed {seed}: only {visited} points");
    }
}

/// A disk failed while a snapshot was made ready, and again when that was taken back; the log went on, got the entries after
/// all, and let go of its head at the snapshot's entry. The manifest had stayed, or came back with a power cut: to the next
/// start it said that the snapshot is the log, and all behind it went, acknowledged or not. A log that cannot be rid of a
/// manifest takes nothing any more, and a start flushes that there is none.
#[test]
fn a_snapshot_that_was_taken_back_never_becomes_the_log() {
    for count in 1..=3 {
        for point in 0.. {
            let is_struck = purge_where_one_was_taken_back(Fault::Errors(point, count));
            if !is_struck.unwrap_or_else(|error| panic!("{count} from {point}: {error}")) {
                assert!(point > 20, "only {point} points");
                break;
            }
        }
    }
}

fn purge_where_one_was_taken_back(fault: Fault) -> Result<bool, String> {
    sim::run(7, |node| async move {
        let mut random = Rng::new(7);
        let bench = Bench::new(node.runtime(), &node.data_dir().join("sender"), 0);
        let sender =
            Log::open(OpenLog { with_entries: true, ..bench.options(&config()) }).await.expect("a log");
        populate(&mut random, &sender, 40).await;
        sender.flush().await.expect("flushed");
        let entries = read_entries(&sender).await;
        let upto = sender.purge_candidate(EntryIndex(25)).expect("a sealed segment");
        let files = sender.snapshot_files(upto, Bytes::new()).await.expect("a snapshot");
        let (manifest, bytes) = (files.manifest().clone(), read_files(&files, 1000).await);
        let mut world = World { node: &node, boot: BootId([1; 16]) };
        let (mut log, mut wal, mut kept) = world.start().await?;
        let mut gathered = Install::begin(&log, manifest).await.map_err(|e| e.to_string())?;
        while let Some(piece) = gathered.next() {
            gathered.put(piece.file, 0, bytes[piece.file].clone()).await.map_err(|e| e.to_string())?;
        }
        fault.set(&node);
        if install(&wal, &kept, &log, gathered).await.is_ok() {
            return Ok(fault.has_struck(&node));
        }
        let has_struck = fault.has_struck(&node);
        // A log that takes nothing any more, and a start that fails, are looked at again, by another process.
        while log.fenced().is_some() {
            drop((log, wal, kept));
            node.disk().kill();
            loop {
                let failing = node.disk().failing_changes();
                match world.start().await {
                    Ok(started) => break (log, wal, kept) = started,
                    Err(_) if failing > 0 => node.disk().kill(),
                    Err(error) => return Err(error),
                }
            }
        }
        node.disk().heal();
        if log.purged() == Some(upto) {
            return Ok(has_struck);
        }
        // The leader has the entries yet.
        for entry in &entries {
            let taken = match &entry.body {
                EntryBody::Side { kind, body } => log.append_side(entry.id, *kind, body.clone()).map(|_| ()),
                EntryBody::Batch(bytes) => {
                    log.place_batch(entry.id, BytesMut::from(&bytes[..]), NOW).map(|_| ())
                }
            };
            taken.map_err(|error| error.to_string())?;
        }
        log.flush().await.map_err(|error| error.to_string())?;
        let last = log.last_entry().expect("entries");
        log.wait_entry_flushed(last.index).await.map_err(|error| error.to_string())?;
        let state =
            GroupState { purged: Some(upto), committed: Some(last), flushed: log.offsets().log_end, ..kept };
        wal.commit(vec![Change::PutGroup(AT, state)]).await.map_err(|e| e.to_string())?;
        log.purge(upto).await.map_err(|error| error.to_string())?;
        drop((log, wal));
        world.end(Some(Fault::PowerCut(0)), &mut random);
        let (log, ..) = world.start().await?;
        let left: Vec<_> = entries.into_iter().filter(|entry| entry.id > upto).collect();
        if (log.purged(), read_entries(&log).await) != (Some(upto), left) {
            return Err(format!("behind entry {upto} the log ends with {:?}", log.last_entry()));
        }
        Ok(has_struck)
    })
}

/// The sender's segments are compacted and dropped while they are read; the files are what the manifest says.
#[test]
fn a_transfer_outlives_what_it_is_read_from() {
    sim::run(5, |node| async move {
        let mut random = Rng::new(5);
        let bench = Bench::new(node.runtime(), &node.data_dir().join("sender"), 0);
        let log = Log::open(OpenLog { with_entries: true, ..bench.options(&config()) }).await.expect("a log");
        populate(&mut random, &log, 60).await;
        log.flush().await.expect("flushed");
        let upto = log.purge_candidate(EntryIndex(59)).expect("a sealed segment");
        let files = log.snapshot_files(upto, Bytes::new()).await.expect("a snapshot");
        let before = read_files(&files, 1000).await;
        log.purge(upto).await.expect("purged");
        let again = log.snapshot_files(upto, Bytes::new()).await.expect("a snapshot of the same point");
        assert_eq!(again.manifest(), files.manifest(), "a transfer may go on from another's beginning");
        let cleaner =
            Cleaner::new(node.runtime(), CleanerConfig { key_bytes_max: 4800, ..CleanerConfig::default() });
        let rules = CompactionRules {
            dirty_ratio_min: 0.0,
            lag_min_ms: 0,
            lag_max_ms: i64::MAX,
            delete_retention_ms: 1000,
        };
        let bound = log.entry_end(upto.index).expect("the purge point");
        assert!(log.compact(&cleaner, &rules, bound, NOW).await.expect("compacted").is_some());
        let compacted = log.snapshot_files(upto, Bytes::new()).await.expect("a snapshot of less");
        assert!(compacted.manifest().bytes() < files.manifest().bytes());
        log.trim_to(bound).await.expect("trimmed");
        log.flush().await.expect("flushed");
        node.runtime().clock.sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(read_files(&files, 77).await, before);
        read_files(&compacted, 1000).await;
        let nothing = log.snapshot_files(upto, Bytes::new()).await.expect("a snapshot of no records");
        assert_eq!(nothing.manifest().log_start, nothing.manifest().next_offset);
        assert_eq!(nothing.manifest().files.len(), 2);
        let between = EntryId { index: EntryIndex(upto.index.value() - 1), ..upto };
        assert!(matches!(log.snapshot_files(between, Bytes::new()).await, Err(SnapshotError::NoSnapshot(_))));
    });
}

#[test]
fn what_arrives_is_verified_and_what_is_whole_stays() {
    sim::run(6, |node| async move {
        let mut random = Rng::new(6);
        let sent = Sent::make(&node, &mut random).await;
        let world = World { node: &node, boot: BootId([1; 16]) };
        let (log, wal, kept) = world.start().await.expect("a start");
        let mut gathering = Install::begin(&log, sent.manifest.clone()).await.expect("begun");
        let first = sent.files[0].clone();
        let mut flipped = BytesMut::from(&first[..]);
        flipped[9] ^= 1;
        let error = gathering.put(0, 0, flipped.freeze()).await.expect_err("a flipped bit");
        assert!(matches!(error, SnapshotError::Damaged(_)), "{error}");
        assert_eq!(gathering.next().map(|piece| (piece.file, piece.position)), Some((0, 0)));
        let error = gathering.put(1, 0, first.clone()).await.expect_err("another file");
        assert!(matches!(error, SnapshotError::OutOfOrder(_)), "{error}");
        gathering.put(0, 0, first).await.expect("the file");
        let second = sent.files[1].slice(..3);
        gathering.put(1, 0, second).await.expect("a part of one");
        // Not all of it is there.
        let refused = install(&wal, &kept, &log, gathering).await.expect_err("it lacks files");
        assert!(matches!(refused, SnapshotError::OutOfOrder(_)), "{refused}");
        assert_eq!((log.purged(), log.fenced()), (None, None));
        log.append_side(id(1, 0), 0, Bytes::new()).expect("the log goes on");
        let again = Install::begin(&log, sent.manifest.clone()).await.expect("begun");
        assert_eq!(again.next().map(|piece| (piece.file, piece.position)), Some((1, 0)));
        // Of another snapshot, nothing stays.
        let mut other = sent.manifest.clone();
        other.files[0].crc32c ^= 1;
        let other = Install::begin(&log, other).await.expect("begun");
        assert_eq!(other.next().map(|piece| piece.file), Some(0));
        other.abandon().await.expect("removed");
        let names: Vec<PathBuf> = node.disk().files().into_iter().map(|(path, _)| path).collect();
        assert!(!names.iter().any(|path| path.to_string_lossy().contains("snapshot-install")), "{names:?}");
    });
}
