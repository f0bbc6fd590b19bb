//! The whole room against power cuts and kills: random operations on one log and its write-ahead file, an end at a random
//! point, a start, and a comparison with a model that knows every batch there ever was. Over and over on one disk.
//!
//! What must hold after every start:
//! * nothing that was reported flushed is missing, and after a kill nothing that was reported written;
//! * what is there is, byte for byte, a prefix of what was appended;
//! * retries are judged as if there had been no crash; every offset's epoch is the one it was written under;
//! * the new epoch is larger than every one ever used;
//! * the partition opens: no legal crash may fence it.

mod support;

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ouzel_model::batch::{BatchBuilder, Codec, Header, RecordParts, batches};
use ouzel_model::{
    LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TimestampMs, TopicId, TopicIdPartition,
};
use ouzel_runtime::sim::{self, Rng, SimRuntime};
use ouzel_runtime::{CoreId, Disk};
use ouzel_storage::flush::FlushRequest;
use ouzel_storage::wal::{BootId, Change, MetaWal, SoloState, replay, stop_of};
use ouzel_storage::{Committer, Durability, FileCommitter, Log, LogConfig, OpenError, OpenLog, Producers};
use support::{Bench, NOW};
use tokio::sync::oneshot;

/// The partition of the topic's so many-th life under its name.
fn key(topic: u8) -> TopicIdPartition {
    TopicIdPartition { topic_id: TopicId([topic; 16]), partition: PartitionIndex(0) }
}

const LIVES: u64 = 5;
const OPS_PER_LIFE: u64 = 25;

/// A mistake planted in the log, or in what stands for it, that the checks must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    Nothing,
    /// The committer answers without flushing.
    SkippedFlush,
    /// `truncate_to` does nothing.
    SkippedTruncation,
    /// What was queued counts as written.
    AcknowledgedTooEarly,
}

/// Everything that was ever appended and not truncated again, trimmed batches included.
struct Model {
    /// Counts the topic's lives: it is deleted, and created anew under its name.
    topic: u8,
    batches: Vec<Bytes>,
    /// What was reported: survives a power cut.
    flushed: Offset,
    /// What was reported: survives a kill.
    written: Offset,
    /// The log start as last reported, and as far as it may have moved since.
    log_start: Offset,
    log_start_max: Offset,
    /// The largest epoch ever used, also by batches that were lost.
    epoch: LeaderEpoch,
}

fn header(batch: &Bytes) -> Header {
    Header::parse(batch).expect("our own batch")
}

impl Model {
    fn new() -> Model {
        let zero = Offset::ZERO;
        let (flushed, written, log_start, log_start_max) = (zero, zero, zero, zero);
        let epoch = LeaderEpoch::NONE;
        Model { topic: 1, batches: Vec::new(), flushed, written, log_start, log_start_max, epoch }
    }

    fn end(&self) -> Offset {
        self.batches.last().map_or(Offset::ZERO, |batch| header(batch).next_offset())
    }

    fn cut(&mut self, end: Offset) {
        self.batches.retain(|batch| header(batch).next_offset() <= end);
        self.flushed = self.flushed.min(end);
        self.written = self.written.min(end);
    }

    /// The producers as a scan of everything gives them.
    fn producers(&self) -> Producers {
        let mut producers = Producers::new(Offset::ZERO);
        self.batches.iter().for_each(|batch| producers.update(&header(batch), NOW));
        producers
    }

    fn note(&mut self, log: &Log) {
        if log.fenced().is_none() {
            let offsets = log.offsets();
            self.flushed = offsets.flushed_end;
            self.written = offsets.written_end;
            self.log_start = offsets.log_start;
            self.log_start_max = offsets.log_start;
        }
    }
}

/// A committer that says yes and does nothing.
struct Liar;

impl Committer for Liar {
    fn commit(&self, _request: FlushRequest) -> oneshot::Receiver<Result<(), Arc<io::Error>>> {
        let (done, result) = oneshot::channel();
        let _ = done.send(Ok(()));
        result
    }
}

fn config(durability: Durability) -> LogConfig {
    LogConfig {
        segment_bytes: 900,
        index_interval_bytes: 150,
        retention_ms: None,
        file_delete_delay: Duration::from_millis(3),
        durability,
        ..LogConfig::default()
    }
}

/// One node with one log.
struct World<'a> {
    node: &'a SimRuntime,
    planted: Planted,
    boot: BootId,
}

/// What a start gives.
struct Started {
    log: Log,
    wal: MetaWal,
    state: SoloState,
}

impl World<'_> {
    fn disk(&self) -> Disk {
        self.node.runtime().disk
    }

    /// The start of a broker, with one partition.
    async fn start(&self, topic: u8, durability: Durability) -> Result<Started, String> {
        let (disk, data_dir) = (self.disk(), self.node.data_dir());
        let replayed = replay(&disk, data_dir).await.map_err(|e| e.to_string())?;
        replayed.rewrite(&disk, data_dir, 1, |_| 0).await.map_err(|e| e.to_string())?;
        let wal = MetaWal::open(disk.clone(), data_dir, CoreId(0)).await.map_err(|e| e.to_string())?;
        let previous = wal.get(&key(topic));
        let clean_end = previous.and_then(|state| state.closed_at);
        let (stop, flushed) = stop_of(previous.as_ref(), self.boot, clean_end);
        let committer: Rc<dyn Committer> = match self.planted {
            Planted::SkippedFlush => Rc::new(Liar),
            _ => Rc::new(FileCommitter::new(disk)),
        };
        // No tail cache: what is compared comes from the files.
        let bench = Bench::with_committer(self.node.runtime(), data_dir, 0, committer);
        let flushed = flushed.unwrap_or(Offset::ZERO);
        let topic_id = key(topic).topic_id;
        let options = || OpenLog { topic_id, stop, flushed, clean_end, ..bench.options(&config(durability)) };
        let log = match Log::open(options()).await {
            // A deletion that the crash came before: the cluster knows of it, the directory does not.
            Err(OpenError::OtherTopic { path, .. }) if topic > 1 => {
                bench.runtime.disk.remove_dir_all(&path).await.map_err(|e| e.to_string())?;
                Log::open(options()).await
            }
            opened => opened,
        };
        let log = log.map_err(|e| format!("after {stop:?}: {e}"))?;
        let state =
            SoloState::opened(previous.as_ref(), log.latest_epoch(), log.offsets().flushed_end, self.boot);
        wal.commit(vec![Change::Put(key(topic), state)]).await.map_err(|e| e.to_string())?;
        log.begin_epoch(state.leader_epoch);
        Ok(Started { log, wal, state })
    }
}

/// Compares a log that was just opened with the model, and makes the model what the log is.
async fn check(log: &Log, state: &SoloState, model: &mut Model, was_killed: bool) -> Result<(), String> {
    let offsets = log.offsets();
    let expected_end = if was_killed { model.flushed.max(model.written) } else { model.flushed };
    if offsets.log_end < expected_end {
        return Err(format!(
            "the log ends at {}, and everything below {expected_end} was safe",
            offsets.log_end
        ));
    }
    if !(model.log_start..=model.log_start_max).contains(&offsets.log_start) {
        return Err(format!(
            "the log starts at {}, and should between {} and {}",
            offsets.log_start, model.log_start, model.log_start_max
        ));
    }
    if state.leader_epoch <= model.epoch {
        return Err(format!("epoch {} was used before, up to {}", state.leader_epoch, model.epoch));
    }
    check_content(log, model).await?;
    model.cut(offsets.log_end);
    if model.end() != offsets.log_end && offsets.log_end > offsets.log_start {
        return Err(format!("the log ends at {}, within a batch", offsets.log_end));
    }
    check_producers(log, model)?;
    check_epochs(log, model)?;
    model.epoch = state.leader_epoch;
    model.note(log);
    Ok(())
}

async fn check_content(log: &Log, model: &Model) -> Result<(), String> {
    let offsets = log.offsets();
    let by_offset: BTreeMap<Offset, &Bytes> =
        model.batches.iter().map(|batch| (header(batch).base_offset, batch)).collect();
    let mut next = offsets.log_start;
    while next < offsets.log_end {
        let slices =
            log.read(next, offsets.log_end, 700, true).await.map_err(|e| format!("read {next}: {e}"))?;
        let before = next;
        for found in slices.batches.iter().flat_map(|bytes| batches(bytes)) {
            let found = found.map_err(|e| format!("at {next}: {e}"))?;
            let base = found.header.base_offset;
            match by_offset.get(&base) {
                Some(batch) if **batch == found.bytes => next = found.header.next_offset(),
                Some(_) => return Err(format!("the batch at {base} is not the one that was appended")),
                None => return Err(format!("nobody appended a batch at {base}")),
            }
        }
        if next == before {
            return Err(format!("nothing to read at {next}"));
        }
    }
    Ok(())
}

/// Every batch there is, sent again, gets the verdict a full history gives.
fn check_producers(log: &Log, model: &Model) -> Result<(), String> {
    let exact = model.producers();
    let log_start = log.offsets().log_start;
    for batch in &model.batches {
        let header = header(batch);
        // Batches that were trimmed away may be forgotten with a snapshot that a crash took.
        if header.base_offset < log_start {
            continue;
        }
        let (found, expected) = (log.check_producer(&header), exact.check(&header));
        if found != expected {
            return Err(format!(
                "a retry of the batch at {} is judged {found:?}, not {expected:?}",
                header.base_offset
            ));
        }
    }
    Ok(())
}

fn check_epochs(log: &Log, model: &Model) -> Result<(), String> {
    let offsets = log.offsets();
    for batch in &model.batches {
        let header = header(batch);
        let (offset, epoch) = (header.base_offset, header.partition_leader_epoch);
        if offset >= offsets.log_start && log.epoch_of(offset) != Some(epoch) {
            return Err(format!("offset {offset} was written under {epoch}, not {:?}", log.epoch_of(offset)));
        }
    }
    Ok(())
}

/// One operation. `Err(None)` is the end of the life, `Err(Some(_))` a broken promise.
async fn operate(
    random: &mut Rng,
    started: &mut Started,
    model: &mut Model,
    planted: Planted,
) -> Result<(), Option<String>> {
    let log = &started.log;
    match random.below(20) {
        0..=9 => {
            let batch = next_batch(random, model);
            let appended = log.append(batch.clone(), started.state.leader_epoch, NOW).map_err(|_| None)?;
            let mut stored = batch;
            ouzel_model::batch::stamp(&mut stored, appended.base_offset, started.state.leader_epoch);
            model.batches.push(stored.freeze());
            if planted == Planted::AcknowledgedTooEarly {
                model.written = log.offsets().log_end;
                model.flushed = model.flushed.min(model.written);
                return Ok(());
            }
        }
        10 | 11 => log.wait_written(log.offsets().log_end).await.map_err(|_| None)?,
        12 | 13 => log.flush().await.map_err(|_| None)?,
        14 => log.roll(),
        15 => {
            let hint = started.state.flushed_to(log.offsets().flushed_end);
            started.wal.commit(vec![Change::Put(key(model.topic), hint)]).await.map_err(|_| None)?;
            started.state = hint;
        }
        16 => {
            let offsets = log.offsets();
            let span = (offsets.log_end - offsets.log_start).min(8).unsigned_abs();
            let to = offsets.log_end + -(random.below(span + 1) as i64);
            // The hint first: a crash in between must not find less than it promises. A cut falls between two batches.
            let hint = started.state.flushed_to(offsets.log_start.min(started.state.flushed));
            started.wal.commit(vec![Change::Put(key(model.topic), hint)]).await.map_err(|_| None)?;
            started.state = hint;
            let end =
                model.batches.iter().map(|batch| header(batch).next_offset()).filter(|end| *end <= to).max();
            // Nothing is left of a batch that holds the log start.
            let end = end.unwrap_or(Offset::ZERO).max(offsets.log_start);
            model.flushed = model.flushed.min(end);
            model.written = model.written.min(end);
            if planted == Planted::SkippedTruncation {
                model.cut(end);
                return Ok(());
            }
            if to.value() % 2 == 0 {
                // Somebody may be sending what is about to be cut: it stays where it is, and the log goes elsewhere.
                let given = log.slices(offsets.log_start, offsets.log_end, 1 << 20, true).await;
                let _ = given.map_err(|_| None)?;
            }
            let found = log.truncate_to(to).await.map_err(|_| None)?;
            if found != end {
                return Err(Some(format!("truncated to {found}, not to {end}, for {to}")));
            }
            model.cut(end);
        }
        17 => {
            let offsets = log.offsets();
            let to = offsets.log_start + random.below(6) as i64;
            model.log_start_max = model.log_start_max.max(to);
            log.trim_to(to).await.map_err(|_| None)?;
        }
        18 => log.checkpoint().await.map_err(|_| None)?,
        19 if random.chance(1, 8) => {
            // Decided: whether or not the power holds, the next start is another topic's.
            let (gone, deleted) = (key(model.topic), log.delete().await);
            *model = Model { topic: model.topic + 1, ..Model::new() };
            if deleted.is_ok() {
                let _ = started.wal.commit(vec![Change::Remove(gone)]).await;
            }
            return Err(None);
        }
        _ => {
            let modes = [Durability::Durable, Durability::WriteCaching, Durability::Os];
            log.set_config(config(modes[random.below(3) as usize]));
        }
    }
    model.note(log);
    Ok(())
}

/// A batch of one of three producers, in sequence, or of none.
fn next_batch(random: &mut Rng, model: &Model) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None);
    let producer = ProducerId(random.below(4) as i64);
    if producer.0 < 3 {
        let last = model.producers().get(producer).map_or(-1, |entry| entry.last_sequence());
        builder = builder.producer(producer, ProducerEpoch(0), last.wrapping_add(1) & i32::MAX);
    }
    let tag = random.next().to_string();
    for _ in 0..=random.below(4) {
        builder.push(
            TimestampMs(random.below(1000) as i64),
            &RecordParts { value: Some(tag.as_bytes()), ..RecordParts::default() },
        );
    }
    BytesMut::from(&builder.build()[..])
}

/// How a life ends, other than by a cut in the middle of an operation.
async fn end_in_order(random: &mut Rng, started: &Started, model: &mut Model) {
    if random.chance(1, 2)
        && let Ok(end) = started.log.close().await
    {
        model.note(&started.log);
        // Dropped or cut, the mark is missing, and the next start scans.
        let _ = started.wal.commit(vec![Change::Put(key(model.topic), started.state.closed(end))]).await;
    }
}

/// What a run has seen, to know that it saw enough.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    cuts: u32,
    kills: u32,
    batches: usize,
    deletions: u32,
}

/// Some lives on one disk. `cut_at` fixes the point at which the power goes in the first life; else it is drawn.
fn run(seed: u64, planted: Planted, cut_at: Option<u64>) -> Result<Seen, String> {
    sim::run(seed, |node| async move {
        let mut random = Rng::new(seed);
        let (mut model, mut seen) = (Model::new(), Seen::default());
        let mut world = World { node: &node, planted, boot: BootId([0; 16]) };
        let mut was_killed = false;
        if random.chance(1, 2) {
            node.disk().set_delay_max(Duration::from_millis(2));
        }
        for life in 0..LIVES {
            let cut_after = match cut_at {
                Some(point) if life == 0 => Some(point),
                Some(_) => None,
                None => random.chance(3, 4).then(|| random.below(90)),
            };
            if let Some(point) = cut_after {
                node.disk().cut_power_after(point);
            }
            let started_topic = model.topic;
            match world.start(model.topic, Durability::Durable).await {
                Ok(mut started) => {
                    let checked = check(&started.log, &started.state, &mut model, was_killed).await;
                    if !node.disk().is_cut() {
                        checked.map_err(|e| format!("life {life}: {e}"))?;
                        live(&mut random, &mut started, &mut model, planted)
                            .await
                            .map_err(|e| format!("life {life}: {e}"))?;
                    }
                    if started_topic == model.topic {
                        model.epoch = model.epoch.max(started.state.leader_epoch);
                    }
                }
                Err(_) if node.disk().is_cut() => {}
                Err(error) => return Err(format!("life {life} does not start: {error}")),
            }
            seen.batches = seen.batches.max(model.batches.len());
            seen.deletions += u32::from(model.topic > started_topic);
            // A cut that struck is a power cut; a life that ended otherwise is killed, or loses its power afterwards.
            was_killed = !node.disk().is_cut() && random.chance(1, 2);
            if was_killed {
                seen.kills += 1;
                node.disk().kill();
                node.disk().cut_power_after(u64::MAX);
            } else {
                seen.cuts += 1;
                node.disk().power_cut();
                world.boot = BootId([life as u8 + 1; 16]);
            }
        }
        let started = world
            .start(model.topic, Durability::Durable)
            .await
            .map_err(|e| format!("the last start: {e}"))?;
        check(&started.log, &started.state, &mut model, was_killed)
            .await
            .map_err(|e| format!("at last: {e}"))?;
        Ok(seen)
    })
}

async fn live(
    random: &mut Rng,
    started: &mut Started,
    model: &mut Model,
    planted: Planted,
) -> Result<(), String> {
    for _ in 0..OPS_PER_LIFE {
        match operate(random, started, model, planted).await {
            Ok(()) => {}
            Err(None) => return Ok(()),
            Err(Some(broken)) => return Err(broken),
        }
    }
    end_in_order(random, started, model).await;
    Ok(())
}

#[test]
fn no_crash_breaks_a_promise() {
    let mut seen = Seen::default();
    for seed in 0..250 {
        let run = run(seed, Planted::Nothing, None).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        seen.cuts += run.cuts;
        seen.kills += run.kills;
        seen.batches = seen.batches.max(run.batches);
        seen.deletions += run.deletions;
    }
    assert!(seen.cuts > 400 && seen.kills > 80 && seen.batches > 50 && seen.deletions > 50, "{seen:?}");
}

#[test]
fn no_point_of_a_life_is_a_bad_one_to_lose_power() {
    for seed in 1000..1002 {
        for point in 0..150 {
            run(seed, Planted::Nothing, Some(point))
                .unwrap_or_else(|broken| panic!("seed {seed}, cut at {point}: {broken}"));
        }
    }
}

#[track_caller]
fn check_caught(planted: Planted) {
    let caught = (0..60).filter_map(|seed| run(seed, planted, None).err()).count();
    assert!(caught >= 3, "{planted:?} was noticed in {caught} of 60 runs");
}

#[test]
fn a_skipped_flush_is_noticed() {
    check_caught(Planted::SkippedFlush);
}

#[test]
fn a_skipped_truncation_is_noticed() {
    check_caught(Planted::SkippedTruncation);
}

#[test]
fn an_acknowledgement_before_the_write_is_noticed() {
    check_caught(Planted::AcknowledgedTooEarly);
}
