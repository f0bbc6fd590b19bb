//! A log turns from a single replica's into a group's and back, over and over, with kills and power cuts at every point.
//!
//! What must hold after every start:
//! * the write-ahead file says of which kind the log is, and as that it opens;
//! * records, producers, leader epochs and the log start are what they were, whichever kind it is;
//! * a group's log begins where its genesis said, with its first membership; a single replica's has no file of a group;
//! * no epoch is ever used by two reigns.

mod support;

use bytes::{Bytes, BytesMut};
use ouzel_model::batch::{BatchBuilder, Codec, Header, RecordParts, batches, stamp};
use ouzel_model::{
    EntryId, EntryIndex, LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerEpoch, ProducerId, ReplicaId,
    TimestampMs, TopicIdPartition,
};
use ouzel_runtime::CoreId;
use ouzel_runtime::sim::{self, Rng, SimRuntime};
use ouzel_storage::compaction::{Cleaner, CleanerConfig, CompactionRules};
use ouzel_storage::genesis::{self, Genesis, GenesisError, term_after};
use ouzel_storage::wal::{BootId, Change, Kept, MetaWal, SoloState, replay, stop_of};
use ouzel_storage::{Log, LogConfig, OpenLog, ProducerVerdict, Producers};
use support::{Bench, NOW, Seen, TOPIC_ID, records};

const AT: TopicIdPartition = TopicIdPartition { topic_id: TOPIC_ID, partition: PartitionIndex(0) };
const ME: ReplicaId = ReplicaId { node: NodeId(4), incarnation: 0 };
const KIND: u8 = 3;

fn config() -> LogConfig {
    LogConfig { segment_bytes: 600, index_interval_bytes: 100, ..LogConfig::default() }
}

/// What was ever appended.
#[derive(Default)]
struct Model {
    /// Below the first of these, what was there before the turns began.
    batches: Vec<Bytes>,
    /// As many of them as are flushed.
    flushed: usize,
    /// What a reader saw before the turns began.
    before: Vec<Seen>,
    log_start: Offset,
    end_before: Offset,
    /// The newest epoch anything was written under.
    epoch: Option<LeaderEpoch>,
    /// The genesis that was tried last.
    entry: Option<EntryId>,
    /// How often each turn was completed.
    founded: u32,
    dissolved: u32,
}

fn header(batch: &[u8]) -> Header {
    Header::parse(batch).expect("our own batch")
}

/// All records; compaction leaves gaps between them.
async fn read_all(log: &Log) -> Vec<Seen> {
    let offsets = log.offsets();
    let (mut next, mut seen) = (offsets.log_start, Vec::new());
    while next < offsets.log_end {
        let slices = log.read(next, offsets.log_end, 500, true).await.expect("the log reads");
        let Some(last) = slices.batches.iter().flat_map(|bytes| batches(bytes).flatten()).last() else {
            break;
        };
        let piece = slices.batches.iter().flat_map(|bytes| records(bytes));
        seen.extend(piece.filter(|record| record.offset >= next.value()));
        next = last.header.next_offset();
    }
    seen
}

struct World<'a> {
    node: &'a SimRuntime,
    boot: BootId,
}

struct Started {
    log: Log,
    wal: MetaWal,
    kept: Kept,
}

impl World<'_> {
    fn bench(&self) -> Bench {
        Bench::new(self.node.runtime(), self.node.data_dir(), 0)
    }

    /// A start of the broker.
    async fn start(&self) -> Result<Started, String> {
        let (disk, data_dir) = (self.node.runtime().disk, self.node.data_dir());
        let replayed = replay(&disk, data_dir).await.map_err(|e| e.to_string())?;
        replayed.rewrite(&disk, data_dir, 1, |_| 0).await.map_err(|e| e.to_string())?;
        let wal = MetaWal::open(disk, data_dir, CoreId(0)).await.map_err(|e| e.to_string())?;
        self.open(wal).await
    }

    /// Opens the log as what the write-ahead file says it is.
    async fn open(&self, wal: MetaWal) -> Result<Started, String> {
        let group = wal.get_group(&AT);
        let solo = group.as_ref().map(|group| group.as_solo()).or(wal.get(&AT));
        let clean_end = solo.and_then(|state| state.closed_at);
        let (stop, flushed) = stop_of(solo.as_ref(), self.boot, clean_end);
        let flushed = flushed.unwrap_or(Offset::ZERO);
        let options = self.bench().options(&config());
        let with_entries = group.is_some();
        let log = Log::open(OpenLog { stop, flushed, clean_end, with_entries, ..options }).await;
        let log = log.map_err(|error| format!("after {stop:?}: {error}"))?;
        let (change, kept) = match group {
            Some(group) => {
                let group = group.opened(true, self.boot);
                (Change::PutGroup(AT, group.clone()), Kept::Group(group))
            }
            None => {
                let flushed = log.offsets().flushed_end;
                let state = SoloState::opened(solo.as_ref(), log.latest_epoch(), flushed, self.boot);
                log.begin_epoch(state.leader_epoch);
                (Change::Put(AT, state), Kept::Solo(state))
            }
        };
        wal.commit(vec![change]).await.map_err(|e| e.to_string())?;
        Ok(Started { log, wal, kept })
    }

    /// A log with some history: several epochs, producers, segments; trimmed and compacted where `random` says so.
    async fn populate(&self, random: &mut Rng) -> (Started, Model) {
        let mut started = self.start().await.expect("a first start");
        let mut model = Model::default();
        for life in 0..random.below(3) {
            for _ in 0..4 + random.below(6) {
                append(random, &started, &mut model).expect("the disk is sound");
            }
            if life == 0 && random.chance(1, 2) {
                let start = Offset(random.below(started.log.offsets().log_end.value() as u64) as i64);
                started.log.flush().await.expect("flushed");
                started.log.trim_to(start).await.expect("trimmed");
            }
            if random.chance(1, 2) {
                let config = CleanerConfig { key_bytes_max: 4800, ..CleanerConfig::default() };
                let cleaner = Cleaner::new(self.node.runtime(), config);
                let rules = CompactionRules {
                    dirty_ratio_min: 0.0,
                    lag_min_ms: 0,
                    lag_max_ms: i64::MAX,
                    delete_retention_ms: 1000,
                };
                started.log.roll();
                started.log.flush().await.expect("flushed");
                let end = started.log.offsets().log_end;
                started.log.compact(&cleaner, &rules, end, NOW).await.expect("compacted");
            }
            started.log.flush().await.expect("flushed");
            self.node.disk().kill();
            started = self.start().await.expect("a start after a kill");
        }
        let offsets = started.log.offsets();
        model.before = read_all(&started.log).await;
        (model.log_start, model.end_before) = (offsets.log_start, offsets.log_end);
        model.flushed = model.batches.len();
        (started, model)
    }
}

fn append(random: &mut Rng, started: &Started, model: &mut Model) -> Result<(), String> {
    let log = &started.log;
    let producer = ProducerId(random.below(3) as i64);
    let mut producers = Producers::new(Offset::ZERO);
    model.batches.iter().for_each(|batch| producers.update(&header(batch), NOW));
    let sequence = producers.get(producer).map_or(0, |entry| entry.last_sequence() + 1);
    let mut builder = BatchBuilder::new(Codec::None).producer(producer, ProducerEpoch(0), sequence);
    for _ in 0..=random.below(3) {
        let (key, value) = (format!("k{}", random.below(4)), random.next().to_string());
        let parts = RecordParts { key: Some(key.as_bytes()), value: Some(value.as_bytes()), headers: &[] };
        builder.push(TimestampMs(random.below(1000) as i64), &parts);
    }
    let mut batch = BytesMut::from(&builder.build()[..]);
    let base = log.offsets().log_end;
    let epoch = match &started.kept {
        Kept::Solo(state) => {
            log.append(batch.clone(), state.leader_epoch, NOW).map_err(|e| e.to_string())?;
            state.leader_epoch
        }
        Kept::Group(_) => {
            let last = log.last_entry().expect("its genesis");
            let id = EntryId { index: last.index.next(), ..last };
            log.place_batch(id, batch.clone(), NOW).map_err(|e| e.to_string())?;
            id.term
        }
    };
    stamp(&mut batch, base, epoch);
    model.batches.push(batch.freeze());
    model.epoch = model.epoch.max(Some(epoch));
    Ok(())
}

/// Holds a log that was just opened against the model, and makes the model what is there.
async fn check(world: &World<'_>, started: &Started, model: &mut Model) -> Result<(), String> {
    let log = &started.log;
    let offsets = log.offsets();
    if offsets.log_start != model.log_start {
        return Err(format!("the log starts at {}, not {}", offsets.log_start, model.log_start));
    }
    let mut expected = model.before.clone();
    let behind = model.batches.iter().filter(|batch| header(batch).base_offset >= model.end_before);
    expected.extend(behind.flat_map(|batch| records(batch)));
    let found = read_all(log).await;
    if found != expected[..found.len()] {
        return Err("the records are others".into());
    }
    let there = model.batches.iter().filter(|batch| header(batch).next_offset() <= offsets.log_end).count();
    if there < model.flushed {
        return Err(format!("{there} batches, {} were flushed", model.flushed));
    }
    model.batches.truncate(there);
    model.flushed = there;
    let mut producers = Producers::new(Offset::ZERO);
    model.batches.iter().for_each(|batch| producers.update(&header(batch), NOW));
    for batch in &model.batches {
        let header = header(batch);
        if header.base_offset < offsets.log_start {
            continue;
        }
        // Compaction may have taken an older batch, and a scan its place in the window.
        let is_newest = producers.get(header.producer_id).is_some_and(|entry| {
            entry.window.last().is_some_and(|newest| newest.last_offset == header.last_offset())
        });
        let is_known = is_newest || header.base_offset >= model.end_before;
        let (found, expected) = (log.check_producer(&header), producers.check(&header));
        // A cleaned batch has the timestamp of what is left of it.
        let is_same = match (&found, &expected) {
            (ProducerVerdict::Duplicate(found), ProducerVerdict::Duplicate(expected)) => {
                found.last_offset == expected.last_offset
            }
            _ => found == expected,
        };
        if is_known && !is_same {
            return Err(format!("a retry of {} is judged {found:?}, not {expected:?}", header.base_offset));
        }
        if log.epoch_of(header.base_offset) != Some(header.partition_leader_epoch) {
            return Err(format!(
                "{} was written under {}",
                header.base_offset, header.partition_leader_epoch
            ));
        }
    }
    let names = world.bench().names().await;
    match &started.kept {
        Kept::Solo(state) => {
            if Some(state.leader_epoch) <= model.epoch {
                return Err(format!("epoch {} is not above {:?}", state.leader_epoch, model.epoch));
            }
            if let Some(name) = names.iter().find(|name| name.contains(".raft")) {
                return Err(format!("{name} is a group's"));
            }
        }
        Kept::Group(group) => {
            if log.purged() != model.entry || group.purged != model.entry {
                return Err(format!("it begins behind {:?}, not {:?}", log.purged(), model.entry));
            }
            let entry = model.entry.expect("a genesis was tried");
            let sides = log.side_entries();
            let first = sides.first().ok_or("no membership")?;
            if (first.id.index, first.id.term, first.kind) != (entry.index.next(), entry.term, KIND)
                || first.body != "members"
                || group.membership_at_purge != "before"
            {
                return Err(format!("the first entry is {first:?}"));
            }
            if (group.term, group.voted_for, group.vote_committed) != (entry.term, Some(ME), true) {
                return Err(format!("it did not vote for itself: {group:?}"));
            }
            model.epoch = model.epoch.max(Some(entry.term));
        }
    }
    Ok(())
}

fn genesis(entry: EntryId) -> Genesis {
    Genesis {
        at: AT,
        replica: ME,
        entry,
        membership_at_entry: Bytes::from_static(b"before"),
        membership_kind: KIND,
        membership: Bytes::from_static(b"members"),
    }
}

/// Turns the log into the other kind and opens it as that.
async fn turn(world: &World<'_>, started: Started, model: &mut Model) -> Result<Started, String> {
    let Started { log, wal, kept } = started;
    match kept {
        Kept::Solo(state) => {
            let entry =
                EntryId { term: term_after(&log, &state), index: EntryIndex(model.batches.len() as u64) };
            model.entry = Some(entry);
            let found = genesis::found(&log, &wal, genesis(entry)).await.map_err(|e| e.to_string())?;
            assert_eq!(found.closed_at, Some(log.offsets().log_end));
            model.founded += 1;
        }
        Kept::Group(_) => {
            genesis::dissolve(&log, &wal, AT).await.map_err(|e| e.to_string())?;
            model.dissolved += 1;
        }
    }
    // All that was appended before is flushed.
    model.flushed = model.batches.len();
    world.open(wal).await
}

/// Turns and appends until the power goes at `point` or all is done; gives whether it went.
async fn live(
    world: &World<'_>,
    random: &mut Rng,
    started: Started,
    model: &mut Model,
) -> Result<(), String> {
    let mut started = started;
    for _ in 0..4 {
        started = turn(world, started, model).await?;
        check(world, &started, model).await?;
        for _ in 0..random.below(4) {
            append(random, &started, model)?;
        }
        if random.chance(1, 2) {
            started.log.flush().await.map_err(|e| e.to_string())?;
            model.flushed = model.batches.len();
        }
    }
    Ok(())
}

fn run(seed: u64, point: Option<u64>) -> Result<(bool, u32), String> {
    sim::run(seed, |node| async move {
        let mut random = Rng::new(seed);
        let mut world = World { node: &node, boot: BootId([1; 16]) };
        let (started, mut model) = world.populate(&mut random).await;
        if let Some(point) = point {
            node.disk().cut_power_after(point);
        }
        let lived = live(&world, &mut random, started, &mut model).await;
        let was_cut = node.disk().is_cut();
        if !was_cut {
            lived?;
        }
        if was_cut || random.chance(1, 2) {
            node.disk().power_cut();
            world.boot = BootId([2; 16]);
        } else {
            node.disk().kill();
        }
        node.disk().cut_power_after(u64::MAX);
        let mut started = world.start().await?;
        check(&world, &started, &mut model).await?;
        // Whatever it is now, it can be turned again, both ways.
        for _ in 0..2 {
            append(&mut random, &started, &mut model)?;
            started = turn(&world, started, &mut model).await?;
            check(&world, &started, &mut model).await?;
        }
        Ok((was_cut, model.founded.min(model.dissolved)))
    })
}

#[test]
fn a_log_turns_into_a_groups_and_back() {
    for seed in 0..60 {
        let (_, turns) = run(seed, None).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(turns, 3, "seed {seed}");
    }
}

#[test]
fn the_power_may_go_at_any_point() {
    for seed in 100..108 {
        for point in 0.. {
            let cut = run(seed, Some(point));
            if !cut.unwrap_or_else(|error| panic!("seed {seed}, cut at {point}: {error}")).0 {
                assert!(point > 40, "seed {seed}: only {point} points");
                break;
            }
        }
    }
}

/// The check must be one that notices something: a genesis that was not decided is not one.
#[test]
fn what_the_record_does_not_say_is_no_group() {
    sim::run(1, |node| async move {
        let world = World { node: &node, boot: BootId([1; 16]) };
        let (started, mut model) = world.populate(&mut Rng::new(1)).await;
        let end = started.log.close().await.expect("closed");
        let disk = node.runtime().disk;
        let path = started.log.dir().join(format!("{:020}.raft", end.value()));
        disk.write_atomic(&path, Bytes::from_static(b"not decided")).await.expect("written");
        // Nobody knows this log: it may be a group's, and is left alone.
        let error = Log::open(world.bench().options(&config())).await.expect_err("a group's files");
        assert!(error.to_string().contains("a replica of a group"), "{error}");
        assert!(disk.exists(&path).await.expect("a disk"));
        // The record knows it: a single replica's.
        let started = world.start().await.expect("it opens");
        check(&world, &started, &mut model).await.expect("as it was");
        assert!(!disk.exists(&path).await.expect("a disk"));
    });
}

#[test]
fn a_genesis_below_a_known_epoch_is_refused_and_changes_nothing() {
    sim::run(2, |node| async move {
        let world = World { node: &node, boot: BootId([1; 16]) };
        let (started, mut model) = world.populate(&mut Rng::new(5)).await;
        let Kept::Solo(state) = &started.kept else { panic!("a single replica's") };
        let entry = EntryId { term: state.leader_epoch, index: EntryIndex(0) };
        let refused = genesis::found(&started.log, &started.wal, genesis(entry)).await;
        assert!(matches!(refused, Err(GenesisError::Refused(_))), "{refused:?}");
        let refused = genesis::dissolve(&started.log, &started.wal, AT).await;
        assert!(matches!(refused, Err(GenesisError::Refused(_))), "{refused:?}");
        append(&mut Rng::new(5), &started, &mut model).expect("the log is open as before");
        assert_eq!(started.wal.get(&AT), Some(*state));
    });
}

/// An empty log, of which nothing was ever flushed, begins a group as well as any other.
#[test]
fn a_log_without_records_becomes_a_groups() {
    for point in 0.. {
        let was_cut = sim::run(3, |node| async move {
            let mut world = World { node: &node, boot: BootId([1; 16]) };
            let started = world.start().await.expect("a first start");
            let mut model = Model::default();
            node.disk().cut_power_after(point);
            let _ = turn(&world, started, &mut model).await;
            let was_cut = node.disk().is_cut();
            node.disk().power_cut();
            node.disk().cut_power_after(u64::MAX);
            world.boot = BootId([2; 16]);
            let mut started = world.start().await.expect("a start");
            check(&world, &started, &mut model).await.expect("nothing, as before");
            if matches!(started.kept, Kept::Solo(_)) {
                started = turn(&world, started, &mut model).await.expect("a genesis");
                check(&world, &started, &mut model).await.expect("a group");
            }
            append(&mut Rng::new(3), &started, &mut model).expect("the first record");
            assert_eq!(model.batches.first().map(|batch| header(batch).base_offset), Some(Offset(0)));
            was_cut
        });
        if !was_cut {
            break;
        }
    }
}

/// The power goes the moment a turn was answered: it is one.
#[test]
fn what_was_answered_is_decided() {
    sim::run(7, |node| async move {
        let mut world = World { node: &node, boot: BootId([1; 16]) };
        let (mut started, mut model) = world.populate(&mut Rng::new(7)).await;
        for boot in 2..6 {
            let Started { log, wal, kept } = started;
            let is_group_next = matches!(kept, Kept::Solo(_));
            match kept {
                Kept::Solo(state) => {
                    let entry = EntryId { term: term_after(&log, &state), index: EntryIndex(boot) };
                    model.entry = Some(entry);
                    genesis::found(&log, &wal, genesis(entry)).await.expect("a genesis");
                }
                Kept::Group(_) => {
                    genesis::dissolve(&log, &wal, AT).await.expect("the way back");
                }
            }
            node.disk().power_cut();
            world.boot = BootId([boot as u8; 16]);
            started = world.start().await.expect("a start");
            assert_eq!(matches!(started.kept, Kept::Group(_)), is_group_next);
            check(&world, &started, &mut model).await.expect("as it was");
        }
    });
}

/// A producer's first batch came while a log was being opened anew as a group's, and was refused for that moment; its second
/// one came a moment later. The new log, which knew nothing of the first, would have taken it, and the first never again.
#[test]
fn what_was_refused_while_a_log_turned_comes_first() {
    sim::run(8, |node| async move {
        let world = World { node: &node, boot: BootId([1; 16]) };
        let (mut started, mut model) = world.populate(&mut Rng::new(8)).await;
        let of = |sequence: i32| {
            let mut builder =
                BatchBuilder::new(Codec::None).producer(ProducerId(99), ProducerEpoch(0), sequence);
            builder.push(NOW, &RecordParts { key: None, value: Some(b"v"), headers: &[] });
            header(&builder.build())
        };
        for _ in 0..2 {
            let before = started.log.clone();
            before.turn_away(&of(0));
            started = turn(&world, started, &mut model).await.expect("it turns");
            started.log.inherit(&before);
            assert_eq!(started.log.check_producer(&of(0)), ProducerVerdict::Append);
            let refused = started.log.check_producer(&of(1));
            assert!(matches!(refused, ProducerVerdict::OutOfOrder { expected: 0, .. }), "{refused:?}");
        }
    });
}
