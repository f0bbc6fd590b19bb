//! A log that numbers its entries, against a plain list: batches and side entries in any mixture, rolls, cuts, purges,
//! changes of the durability; kills and power cuts at any point, over and over on one disk.
//!
//! What must hold after every start:
//! * nothing that was reported flushed is missing, and after a kill nothing that was reported written;
//! * what is there is a prefix of what was appended, entry for entry: index, term, offsets, bytes;
//! * the purge point is where it was, or where an interrupted purge would have put it, the log start where it was trimmed to;
//! * producers are judged, epochs and times found, as in a log that was never cut;
//! * the log opens: no legal crash may fence it.

mod support;

use bytes::{Bytes, BytesMut};
use ouzel_model::batch::{Codec, Header, batches};
use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, Offset, TimestampMs};
use ouzel_runtime::sim::{self, Rng, SimDisk, SimRuntime};
use ouzel_storage::compaction::{Cleaner, CleanerConfig, CompactionRules};
use ouzel_storage::entries::{EntryBody, StoredEntry};
use ouzel_storage::{Durability, Log, LogConfig, OpenError, OpenLog, Producers, Stop};
use std::time::Duration;
use support::{Bench, NOW, batch, produced};

/// An order that the two files of a segment are written in, turned round on the disk under the log: what a log that had it
/// wrong would leave behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Planted {
    #[default]
    Nothing,
    /// A batch is on the medium before the side entries that come before it.
    BatchBeforeSideEntries,
    /// A cut takes the side entries first, and then the batches.
    SideEntriesCutFirst,
}

const LIVES: u64 = 6;
const OPS_PER_LIFE: u64 = 30;
/// Timestamp of the record at offset 0; the others' grow with their offsets.
const TIME: i64 = 1_000_000;

#[derive(Default)]
struct Model {
    /// From index 0, also what is purged.
    entries: Vec<StoredEntry>,
    /// Number of entries that a power cut must leave, as reported.
    flushed: usize,
    /// Number of entries that a kill must leave, as reported.
    written: usize,
    /// Number of entries that are never cut any more.
    committed: usize,
    /// Where the purge point may be.
    purged: Vec<Option<EntryId>>,
    /// Up to where the log was trimmed, as reported, and as far as that may have gone.
    log_start: Offset,
    log_start_max: Offset,
    /// What a log that was cut told wrongly, unless the disk had gone.
    broken: Option<String>,
    cuts: u32,
    trims: u32,
    purges: u32,
    /// The first life ended because the power went.
    was_struck: bool,
    planted: Planted,
    disk: Option<SimDisk>,
    /// Each purge is followed by a compaction.
    cleaner: Option<Cleaner>,
    compactions: u32,
}

impl Model {
    fn end(&self) -> Offset {
        self.entries.last().map_or(Offset::ZERO, |entry| entry.end_offset)
    }

    fn note(&mut self, log: &Log) {
        let count = |index: Option<EntryIndex>| index.map_or(0, |index| index.value() as usize + 1);
        self.flushed = self.flushed.max(count(log.entries_flushed()));
        self.written = self.written.max(count(log.entries_written()));
    }

    fn headers(&self) -> impl Iterator<Item = Header> {
        self.entries.iter().filter_map(|entry| match &entry.body {
            EntryBody::Batch(bytes) => Some(Header::parse(bytes).expect("our own batch")),
            EntryBody::Side { .. } => None,
        })
    }

    fn producers(&self) -> Producers {
        let mut producers = Producers::new(Offset::ZERO);
        self.headers().for_each(|header| producers.update(&header, NOW));
        producers
    }

    /// Has the disk turn these two round, or keep them in order.
    fn swap_flushes(&self, is_planted: bool, order: (&'static str, &'static str)) {
        if let Some(disk) = &self.disk {
            disk.swap_flushes(is_planted.then_some(order));
        }
    }

    fn flushed_offset(&self) -> Offset {
        let safe = self.committed.min(self.flushed);
        safe.checked_sub(1).map_or(Offset::ZERO, |last| self.entries[last].end_offset)
    }
}

fn config(durability: Durability) -> LogConfig {
    LogConfig { segment_bytes: 700, index_interval_bytes: 100, durability, ..LogConfig::default() }
}

async fn open(node: &SimRuntime, stop: Stop, model: &Model) -> Result<Log, OpenError> {
    let clean_end = (stop == Stop::Clean).then_some(model.end());
    let bench = Bench::new(node.runtime(), node.data_dir(), 600);
    let flushed = model.flushed_offset();
    let options = bench.options(&config(Durability::Durable));
    Log::open(OpenLog { stop, flushed, clean_end, with_entries: true, ..options }).await
}

/// Everything that is there, in pieces of `bytes_max`.
async fn read_all(log: &Log, bytes_max: usize) -> Result<Vec<StoredEntry>, String> {
    let mut next = log.purged().map_or(EntryIndex(0), |purged| purged.index.next());
    let end = log.last_entry().map_or(EntryIndex(0), |last| last.index.next());
    let mut read = Vec::new();
    while next < end {
        let piece = log.read_entries(next, end, bytes_max).await.map_err(|error| error.to_string())?;
        if piece.is_empty() {
            return Err(format!("no entry from {next}"));
        }
        next = EntryIndex(next.value() + piece.len() as u64);
        read.extend(piece);
    }
    Ok(read)
}

/// Holds a log that was just opened against the model, and makes the model what is there.
async fn check(log: &Log, model: &mut Model, least: usize) -> Result<(), String> {
    let purged = log.purged();
    if !model.purged.contains(&purged) {
        return Err(format!("purged to {purged:?}, expected one of {:?}", model.purged));
    }
    let first = purged.map_or(0, |purged| purged.index.value() as usize + 1);
    for bytes_max in [1, 500, 1 << 20] {
        let found = read_all(log, bytes_max).await?;
        let there = first + found.len();
        if there < least {
            return Err(format!("{there} entries, {least} were safe"));
        }
        if there > model.entries.len() {
            return Err(format!("{there} entries, {} were appended and not cut again", model.entries.len()));
        }
        if found[..] != model.entries[first..there] {
            let at = found.iter().zip(&model.entries[first..]).position(|(a, b)| a != b);
            return Err(format!(
                "entry {at:?} differs: {:?}",
                at.map(|at| (&found[at], &model.entries[first + at]))
            ));
        }
        for entry in &found {
            if log.entry_id(entry.id.index) != Some(entry.id)
                || log.entry_end(entry.id.index) != Some(entry.end_offset)
            {
                return Err(format!("{} is told wrongly", entry.id));
            }
        }
    }
    let there = log.last_entry().map_or(0, |last| last.index.value() as usize + 1);
    model.entries.truncate(there);
    (model.flushed, model.written) = (there, there);
    model.committed = model.committed.min(there);
    model.purged = vec![purged];
    check_facts(log, model).await?;
    let offsets = log.offsets();
    let starts = model.log_start.min(offsets.log_end)..=model.log_start_max;
    if offsets.log_end != model.end() || !starts.contains(&offsets.log_start) {
        return Err(format!("{offsets:?}, expected an end of {} and a start in {starts:?}", model.end()));
    }
    (model.log_start, model.log_start_max) = (offsets.log_start, offsets.log_start);
    Ok(())
}

/// What the log knows of its records beside their bytes.
async fn check_facts(log: &Log, model: &Model) -> Result<(), String> {
    let exact = model.producers();
    let offsets = log.offsets();
    // Of what is compacted only some is there.
    let whole = if model.cleaner.is_some() { log.purged_end() } else { Offset::ZERO };
    for header in model.headers().filter(|header| header.base_offset >= offsets.log_start.max(whole)) {
        let (found, expected) = (log.check_producer(&header), exact.check(&header));
        if found != expected {
            return Err(format!("a retry at {} is {found:?}, not {expected:?}", header.base_offset));
        }
        let epoch = log.epoch_of(header.base_offset);
        if epoch != Some(header.partition_leader_epoch) {
            return Err(format!("offset {} is of epoch {epoch:?}", header.base_offset));
        }
        let time = TimestampMs(TIME + header.base_offset.value());
        let at = log.offset_for_time(time, offsets.log_end).await.map_err(|error| error.to_string())?;
        if at.map(|at| at.offset) != Some(header.base_offset) {
            return Err(format!("the time of offset {} leads to {at:?}", header.base_offset));
        }
    }
    Ok(())
}

/// One step; `Err` when the disk has gone.
async fn step(random: &mut Rng, log: &Log, model: &mut Model) -> Result<(), ()> {
    let last = log.last_entry();
    let index = EntryIndex(model.entries.len() as u64);
    match random.below(15) {
        0..=2 => {
            let term = last.map_or(LeaderEpoch(0), |last| last.term);
            let term = if random.chance(1, 2) { term.next() } else { term };
            let id = EntryId { term, index };
            let (kind, body) = (random.below(4) as u8, Bytes::from(random.next().to_be_bytes().to_vec()));
            log.append_side(id, kind, body.clone()).map_err(|_| ())?;
            let end = model.end();
            let body = EntryBody::Side { kind, body };
            model.entries.push(StoredEntry { id, base_offset: end, end_offset: end, body });
        }
        3..=8 => {
            let Some(last) = last else { return Ok(()) };
            let id = EntryId { term: last.term, index };
            let base = model.end();
            let count = random.below(4) as i64 + 1;
            let times: Vec<i64> = (0..count).map(|at| TIME + base.value() + at).collect();
            let mut bytes = if random.chance(1, 2) {
                let producer = 1 + random.below(3) as i64;
                let next = model
                    .producers()
                    .get(ouzel_model::ProducerId(producer))
                    .map_or(0, |known| known.last_sequence() + 1);
                produced(producer, next, random.next(), &times)
            } else {
                batch(Codec::None, random.next(), &times)
            };
            ouzel_model::batch::stamp(&mut bytes, base, id.term);
            if random.chance(1, 2) {
                log.append_batch(id, bytes.clone().freeze(), NOW).map_err(|_| ())?;
            } else {
                let mut unplaced = bytes.clone();
                ouzel_model::batch::stamp(&mut unplaced, Offset(77), LeaderEpoch(0));
                log.place_batch(id, unplaced, NOW).map_err(|_| ())?;
            }
            let end = base + count;
            let body = EntryBody::Batch(bytes.freeze());
            model.entries.push(StoredEntry { id, base_offset: base, end_offset: end, body });
        }
        9 => {
            let Some(last) = last else { return Ok(()) };
            if random.chance(1, 2) {
                log.flush_entries_to(last.index);
                log.wait_entry_flushed(last.index).await.map_err(|_| ())?;
                assert!(log.entries_flushed() >= Some(last.index));
            } else {
                log.wait_entry_written(last.index).await.map_err(|_| ())?;
                assert!(log.entries_written() >= Some(last.index));
            }
        }
        10 => {
            let room = (model.entries.len() - model.committed) as u64;
            let keep = model.committed + random.below(room + 1) as usize;
            // Until it is done, the entries are there or not.
            model.flushed = model.flushed.min(keep);
            model.written = model.written.min(keep);
            let to = keep.checked_sub(1).map(|at| model.entries[at].id);
            model.swap_flushes(model.planted == Planted::SideEntriesCutFirst, ("log", "raft"));
            let cut = log.truncate_after(to).await;
            model.swap_flushes(model.planted == Planted::BatchBeforeSideEntries, ("raft", "log"));
            cut.map_err(|_| ())?;
            model.entries.truncate(keep);
            model.cuts += 1;
            assert_eq!(log.last_entry().or(log.purged()), to);
            // As if it had never been longer.
            if let Err(error) = check_facts(log, model).await {
                model.broken.get_or_insert(error);
            }
            assert_eq!(log.offsets().log_end, model.end());
            for entry in model.entries.iter().rev().take(3) {
                let there = log.entry_id(entry.id.index);
                assert!(there == Some(entry.id) || log.purged() > Some(entry.id));
            }
        }
        11 => {
            model.note(log);
            let room = (model.flushed - model.committed.min(model.flushed)) as u64;
            model.committed =
                (model.committed + random.below(room + 1) as usize).min(model.flushed).max(model.committed);
        }
        12 => {
            let upto = EntryIndex((model.committed as u64).saturating_sub(1));
            if model.committed > 0
                && let Some(candidate) = log.purge_candidate(upto)
            {
                let steps =
                    model.entries.iter().map(|entry| Some(entry.id)).filter(|id| *id <= Some(candidate));
                // The files go one by one.
                model.purged.extend(steps);
                log.purge(candidate).await.map_err(|_| ())?;
                model.purged = vec![Some(candidate)];
                model.purges += 1;
                assert_eq!(log.purged(), Some(candidate));
                compact(log, model).await?;
            }
        }
        13 => {
            // As a group does: never beyond what is committed.
            let end =
                model.committed.checked_sub(1).map_or(Offset::ZERO, |last| model.entries[last].end_offset);
            let to = Offset(random.below(end.value() as u64 + 1) as i64);
            model.log_start_max = model.log_start_max.max(to);
            model.log_start = log.trim_to(to).await.map_err(|_| ())?;
            model.log_start_max = model.log_start;
            model.trims += 1;
        }
        _ => {
            let modes = [Durability::Durable, Durability::WriteCaching, Durability::Os];
            log.set_config(config(modes[random.below(3) as usize]));
        }
    }
    model.note(log);
    Ok(())
}

/// The records have no keys: of what is only data everything goes, but for the last batch of each segment.
async fn compact(log: &Log, model: &mut Model) -> Result<(), ()> {
    let Some(cleaner) = &model.cleaner else { return Ok(()) };
    let bound = log.offsets().log_end;
    let before = log.size_bytes();
    if let Some(done) = log.compact(cleaner, &CompactionRules::default(), bound, NOW).await.map_err(|_| ())? {
        assert!(done.to <= log.purged_end(), "{done:?} reaches among the entries");
        model.compactions += u32::from(log.size_bytes() < before);
    }
    Ok(())
}

fn run(seed: u64, cut_at: Option<u64>, compacts: bool) -> Result<Model, String> {
    run_with(seed, cut_at, compacts, Planted::Nothing)
}

fn run_with(seed: u64, cut_at: Option<u64>, compacts: bool, planted: Planted) -> Result<Model, String> {
    sim::run(seed, |node| async move {
        let mut random = Rng::new(seed);
        let cleaner = compacts.then(|| Cleaner::new(node.runtime(), CleanerConfig::default()));
        let disk = Some(node.disk().clone());
        let mut model = Model { purged: vec![None], cleaner, planted, disk, ..Model::default() };
        model.swap_flushes(planted == Planted::BatchBeforeSideEntries, ("raft", "log"));
        let (mut stop, mut least) = (Stop::Unknown, 0);
        let is_slow = random.chance(1, 2);
        if is_slow {
            node.disk().set_delay_max(Duration::from_millis(2));
        }
        for life in 0..LIVES {
            let cut_after = match cut_at {
                Some(point) => (life == 0).then_some(point),
                None => random.chance(3, 4).then(|| random.below(90)),
            };
            if let Some(point) = cut_after {
                node.disk().cut_power_after(point);
            }
            let (mut is_closed, mut log_is_whole) = (false, true);
            match open(&node, stop, &model).await {
                Ok(log) => {
                    let checked = check(&log, &mut model, least).await;
                    if !node.disk().is_cut() {
                        checked.map_err(|error| format!("life {life}: {error}"))?;
                    }
                    let ops = if is_slow { random.below(OPS_PER_LIFE) } else { OPS_PER_LIFE };
                    for _ in 0..ops {
                        if node.disk().is_cut() || step(&mut random, &log, &mut model).await.is_err() {
                            break;
                        }
                    }
                    if ops < OPS_PER_LIFE {
                        // The life ends while something is under way.
                        let patience = Duration::from_micros(random.below(20_000));
                        let dies = step(&mut random, &log, &mut model);
                        let _ = node.runtime().clock.timeout(patience, dies).await;
                        log_is_whole = false;
                    }
                    is_closed = log_is_whole
                        && random.chance(1, 3)
                        && !node.disk().is_cut()
                        && log.close().await.is_ok();
                }
                Err(error) if !node.disk().is_cut() => return Err(format!("life {life}: {error}")),
                Err(_) => {}
            }
            if let Some(error) = model.broken.take().filter(|_| !node.disk().is_cut()) {
                return Err(format!("life {life}, after a cut: {error}"));
            }
            if life == 0 {
                model.was_struck = node.disk().is_cut();
            }
            if is_closed {
                node.disk().kill();
                node.disk().cut_power_after(u64::MAX);
                (stop, least) = (Stop::Clean, model.entries.len());
            } else if !node.disk().is_cut() && random.chance(1, 2) {
                node.disk().kill();
                node.disk().cut_power_after(u64::MAX);
                (stop, least) = (Stop::UncleanSameBoot, model.written);
            } else {
                node.disk().power_cut();
                (stop, least) = (Stop::UncleanOtherBoot, model.flushed);
            }
        }
        node.disk().cut_power_after(u64::MAX);
        let log = open(&node, stop, &model).await.map_err(|error| format!("at last: {error}"))?;
        check(&log, &mut model, least).await.map_err(|error| format!("at last: {error}"))?;
        Ok(model)
    })
}

/// Seed 108 told of a `.raftindex` that outlived a cut: the power went between the cut of the `.log` and the removal of the
/// file that says where its batches end. Other batches took their places, and ended where those had; the next start
/// believed the file, and took every batch's end for another's.
#[test]
fn the_log_is_a_list_that_survives() {
    let (mut cuts, mut purges, mut trims) = (0, 0, 0);
    for seed in 0..300 {
        let seen = run(seed, None, false).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        cuts += seen.cuts;
        purges += seen.purges;
        trims += seen.trims;
    }
    assert!(
        cuts > 200 && purges > 80 && trims > 200,
        "{cuts} cuts, {purges} purges and {trims} trims are too few to show anything"
    );
}

#[test]
fn the_power_may_go_at_any_point() {
    for seed in 0..4 {
        for point in 0.. {
            assert!(point < 2_000, "seed {seed}: the first life has no end");
            let seen = run(seed, Some(point), false)
                .unwrap_or_else(|error| panic!("seed {seed}, cut after {point}: {error}"));
            if !seen.was_struck {
                assert!(point > 20, "seed {seed}: {point} points are too few to show anything");
                break;
            }
        }
    }
}

/// Each order of the two files is what some check stands on: turned round, it is noticed, as what is lost, as what is not
/// what was appended, or as a log that a legal crash must not fence.
#[test]
fn an_order_that_is_turned_round_is_noticed() {
    for planted in [Planted::BatchBeforeSideEntries, Planted::SideEntriesCutFirst] {
        let noticed = (0..100).find_map(|seed| run_with(seed, None, false, planted).err());
        assert!(noticed.is_some(), "{planted:?} goes unnoticed");
    }
}

#[test]
fn compaction_leaves_entries_alone() {
    let mut compactions = 0;
    for seed in 0..200 {
        let seen = run(seed, None, true).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        compactions += seen.compactions;
    }
    assert!(compactions > 40, "{compactions} compactions are too few to show anything");
}

#[test]
fn what_is_out_of_order_is_refused_and_changes_nothing() {
    sim::run(1, |node| async move {
        let log = open(&node, Stop::Unknown, &Model::default()).await.expect("a new log");
        let id = |term, index| EntryId { term: LeaderEpoch(term), index: EntryIndex(index) };
        let stamped = |offset, term| {
            let mut bytes = batch(Codec::None, 1, &[1000]);
            ouzel_model::batch::stamp(&mut bytes, Offset(offset), LeaderEpoch(term));
            bytes.freeze()
        };
        assert!(log.append_batch(id(1, 0), stamped(0, 1), NOW).is_err(), "no side entry began the reign");
        log.append_side(id(1, 0), 0, Bytes::new()).expect("the first entry");
        for (why, refused) in [
            ("a gap in the indexes", log.append_batch(id(1, 2), stamped(0, 1), NOW)),
            ("an index that is taken", log.append_batch(id(1, 0), stamped(0, 1), NOW)),
            ("a reign nobody began", log.append_batch(id(2, 1), stamped(0, 2), NOW)),
            ("another offset", log.append_batch(id(1, 1), stamped(4, 1), NOW)),
            ("another epoch", log.append_batch(id(1, 1), stamped(0, 0), NOW)),
            ("a reign that is over", log.append_side(id(0, 1), 0, Bytes::new())),
        ] {
            assert!(refused.is_err(), "{why}");
        }
        let mut flipped = BytesMut::from(&stamped(0, 1)[..]);
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        assert!(log.append_batch(id(1, 1), flipped.freeze(), NOW).is_err(), "a flipped bit");
        assert_eq!((log.last_entry(), log.offsets().log_end), (Some(id(1, 0)), Offset::ZERO));
        log.append_batch(id(1, 1), stamped(0, 1), NOW).expect("the one that belongs here");
        let read = log.read_entries(EntryIndex(1), EntryIndex(2), 1 << 20).await.expect("it is there");
        let EntryBody::Batch(bytes) = &read[0].body else { panic!("a batch") };
        assert_eq!(batches(bytes).count(), 1);
        assert!(log.truncate_after(Some(id(3, 9))).await.is_err(), "what is not there cannot stay");
    });
}
