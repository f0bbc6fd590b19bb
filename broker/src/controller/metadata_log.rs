//! The controller's log on this node: where decisions are written, and what has been decided so far.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::BytesMut;
use ouzel_metadata::snapshot::Replay;
use ouzel_metadata::{Image, Record};
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts, RecordStream, batches};
use ouzel_model::{NodeId, Offset, TimestampMs, TopicId};
use ouzel_raft::{RaftGroup, Replica, ReplicatedLog, Role};
use ouzel_runtime::Reached;
use tokio::sync::Notify;

use super::ControllerError;

/// How much of the log is read at a time.
const READ_BYTES: usize = 1 << 20;

/// The replica of the controller's log that lives here; clones are the same one.
#[derive(Clone)]
pub(crate) struct MetadataLog {
    inner: Rc<Inner>,
}

struct Inner {
    node: NodeId,
    replica: Replica,
    /// Told when more may be committed than was.
    moved: Notify,
    /// The reader of the log, which is at `read_to`.
    replay: RefCell<Replay>,
    read_to: Cell<Offset>,
    /// What has been decided, up to `applied`. Decisions are made on it. It is the reader's, but for a replica that was
    /// away for longer than the log's head: that one goes on with what it knew until it has read a whole snapshot.
    image: RefCell<Image>,
    /// Exclusive end of the records that `image` holds.
    applied: Reached<Offset>,
    /// Exclusive end of the records that every core of this node has seen.
    shown: Reached<Offset>,
}

/// What a piece of the log decided.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// Records applied.
    pub(crate) records: usize,
    /// The topics it deleted.
    pub(crate) deleted: Vec<TopicId>,
}

impl MetadataLog {
    /// Takes the replica into service; nothing of it is applied yet.
    pub(crate) fn new(node: NodeId, replica: Replica) -> MetadataLog {
        let start = replica.offsets().log_start;
        let inner = Rc::new(Inner {
            node,
            replica,
            moved: Notify::new(),
            replay: RefCell::new(Replay::from(start)),
            read_to: Cell::new(start),
            image: RefCell::default(),
            applied: Reached::new(Offset::ZERO),
            shown: Reached::new(Offset::ZERO),
        });
        let weak = Rc::downgrade(&inner);
        inner.replica.on_progress(move || {
            if let Some(inner) = weak.upgrade() {
                inner.moved.notify_one();
            }
        });
        MetadataLog { inner }
    }

    /// The replica itself.
    pub(crate) fn replica(&self) -> &Replica {
        &self.inner.replica
    }

    /// Whether decisions are written here.
    pub(crate) fn leads(&self) -> bool {
        self.inner.replica.leads()
    }

    /// The replica, if it is one of a group.
    pub(crate) fn group(&self) -> Option<RaftGroup> {
        self.inner.replica.group().cloned()
    }

    /// The node where decisions are written, if this one knows.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        match &self.inner.replica {
            Replica::Solo(_) => Some(self.inner.node),
            Replica::Group(group) if group.role() == Role::Leader => Some(self.inner.node),
            // One that stands for election, or was elected and does not serve yet, is no place to ask.
            Replica::Group(group) => {
                group.leader().map(|leader| leader.node).filter(|node| *node != self.inner.node)
            }
        }
    }

    /// Writes records as one batch, so that a change is whole or not there; resolves when they are committed, with the
    /// offset behind them.
    pub(crate) async fn append(
        &self,
        records: &[Record],
        now: TimestampMs,
    ) -> Result<Offset, ControllerError> {
        let failed = |error: &dyn std::fmt::Display| ControllerError::Log(error.to_string());
        let appending = self.inner.replica.append(batch_of(records, now), now);
        let receipt = appending.await.map_err(|error| failed(&error))?;
        receipt.acknowledged().await.map_err(|error| failed(&error))?;
        Ok(receipt.placed.last_offset.next())
    }

    /// What has been decided, as far as this node has read.
    pub(crate) fn image(&self) -> Image {
        self.inner.image.borrow().clone()
    }

    /// Exclusive end of what [`MetadataLog::image`] holds.
    pub(crate) fn applied(&self) -> Offset {
        self.inner.applied.get()
    }

    /// Resolves when the image holds the records below `end`.
    pub(crate) async fn wait_applied(&self, end: Offset) {
        self.inner.applied.wait_for(|applied| applied >= end).await;
    }

    /// Resolves when every core of this node has seen the records below `end`.
    pub(crate) async fn wait_shown(&self, end: Offset) {
        self.inner.shown.wait_for(|shown| shown >= end).await;
    }

    /// Says that every core has seen the records below `end`.
    pub(crate) fn set_shown(&self, end: Offset) {
        self.inner.shown.set(end);
    }

    /// Where the newest whole snapshot begins that this node has read.
    pub(crate) fn newest_snapshot(&self) -> Option<Offset> {
        self.inner.replay.borrow().newest_snapshot()
    }

    /// Whether `bytes_max` bytes of records, and as many as the last snapshot has, have come since that one.
    pub(crate) fn is_snapshot_due(&self, bytes_max: u64) -> bool {
        self.inner.replay.borrow().is_snapshot_due(bytes_max)
    }

    /// Resolves when the image holds more than it did below `end`.
    pub(crate) async fn wait_beyond(&self, end: Offset) {
        self.inner.applied.wait_for(|applied| applied > end).await;
    }

    /// Resolves when something is committed that is not read. For one at a time: the publisher.
    pub(crate) async fn more_committed(&self) {
        while self.inner.replica.offsets().high_watermark <= self.inner.read_to.get() {
            self.inner.moved.notified().await;
        }
    }

    /// Applies what is committed by now.
    ///
    /// # Errors
    /// In words, when the log cannot be read or holds what no controller of this release wrote.
    pub(crate) async fn apply_committed(&self) -> Result<Replayed, String> {
        let mut reading = self.reading();
        self.read_to(self.inner.replica.offsets().high_watermark, &mut reading).await?;
        let Reading { replay, from, replayed } = reading;
        let image = replay.image().cloned();
        self.inner.replay.replace(replay);
        self.inner.read_to.set(from);
        if let Some(image) = image {
            self.inner.image.replace(image);
            self.inner.applied.set(from);
        }
        Ok(replayed)
    }
}

impl MetadataLog {
    /// What the log here says to its end, whether it was decided or will be cut again: for what does no harm if it turns out
    /// otherwise. Where the log cannot be read it is what is known.
    pub(crate) async fn image_to_the_end(&self) -> Image {
        let mut reading = self.reading();
        // What came before the error counts.
        let _ = self.read_to(self.inner.replica.offsets().log_end, &mut reading).await;
        reading.replay.image().cloned().unwrap_or_else(|| self.image())
    }

    /// As far as this node has read.
    fn reading(&self) -> Reading {
        Reading {
            replay: self.inner.replay.borrow().clone(),
            from: self.inner.read_to.get(),
            replayed: Replayed::default(),
        }
    }

    /// Reads on.
    async fn read_to(&self, end: Offset, reading: &mut Reading) -> Result<(), String> {
        let replica = &self.inner.replica;
        while reading.from < end {
            let log_start = replica.offsets().log_start;
            if reading.from < log_start {
                // The head went, and what this node had not read of it: what is left begins with a snapshot of it.
                tracing::info!(from = %reading.from, %log_start, "the controller's log is read from its new start");
                (reading.replay, reading.from) = (Replay::from(log_start), log_start);
                continue;
            }
            let before = reading.from;
            let read = replica.local().read(before, end, READ_BYTES, true).await;
            // The head may go at any time, also while it is being read.
            let is_gone = || replica.offsets().log_start > before;
            let batches = match read {
                Ok(read) => read.batches,
                Err(_) if is_gone() => continue,
                Err(error) => return Err(error.to_string()),
            };
            for chunk in &batches {
                reading.from = replay_batches(&mut reading.replay, before, chunk, &mut reading.replayed)?;
            }
            if reading.from <= before && !is_gone() {
                return Err(format!("it ends at offset {before}, before its own end {end}"));
            }
        }
        Ok(())
    }
}

/// A reader on its way through the log.
struct Reading {
    replay: Replay,
    /// Everything below is in it.
    from: Offset,
    replayed: Replayed,
}

/// Applies whole batches from an offset on; gives the offset behind them.
fn replay_batches(
    replay: &mut Replay,
    from: Offset,
    chunk: &[u8],
    replayed: &mut Replayed,
) -> Result<Offset, String> {
    let mut end = from;
    for batch in batches(chunk) {
        let batch = batch.map_err(|error| error.to_string())?;
        for record in RecordStream::new(&batch, usize::MAX).map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let words =
                |error: &dyn std::fmt::Display| format!("record at offset {}: {error}", record.offset);
            let value = record.value.unwrap_or_default();
            // A log's start need not be a batch's.
            if record.offset < from {
                continue;
            }
            let decoded = Record::decode(&value).map_err(|error| words(&error))?;
            replay.apply(record.offset, &decoded, value.len()).map_err(|error| words(&error))?;
            replayed.records += 1;
            if let Record::TopicDeleted { topic_id } = decoded {
                replayed.deleted.push(topic_id);
            }
        }
        end = batch.header.next_offset();
    }
    Ok(end)
}

fn batch_of(records: &[Record], now: TimestampMs) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None);
    for record in records {
        builder.push(now, &RecordParts { key: None, value: Some(&record.encode()), headers: &[] });
    }
    BytesMut::from(&builder.build()[..])
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ouzel_metadata::snapshot::pieces;
    use ouzel_metadata::{BrokerScope, ConfigResource};
    use ouzel_model::{LeaderEpoch, PartitionIndex, TopicName, TopicPartition};
    use ouzel_raft::Solo;
    use ouzel_runtime::Runtime;
    use ouzel_runtime::cores::run_one;
    use ouzel_runtime::disk::BackendChoice;
    use ouzel_storage::{
        Durability, FileCommitter, Log, LogConfig, LogShared, OpenLog, OpenSegments, Stop, TailCache,
    };

    use super::*;

    const NOW: TimestampMs = TimestampMs(0);

    async fn open(runtime: Runtime, dir: PathBuf, epoch: i32) -> Replica {
        let shared = LogShared {
            committer: Rc::new(FileCommitter::new(runtime.disk.clone())),
            tail_cache: TailCache::new(1 << 20),
            open_segments: OpenSegments::new(16),
            disk_low: Rc::default(),
            runtime,
        };
        let topic = TopicName::new("m").expect("a good name");
        let log = Log::open(OpenLog {
            shared,
            dir,
            topic_partition: TopicPartition { topic, partition: PartitionIndex(0) },
            topic_id: TopicId([1; 16]),
            config: LogConfig { retention_ms: None, ..LogConfig::default() },
            stop: Stop::Unknown,
            flushed: Offset::ZERO,
            clean_end: None,
            now: NOW,
            with_entries: false,
        });
        Solo::new(log.await.expect("a sound log"), LeaderEpoch(epoch), Durability::Durable).into()
    }

    fn set(value: i32) -> Record {
        let resource = ConfigResource::Broker(BrokerScope::ClusterDefault);
        Record::ConfigSet { resource, key: format!("k{}", value % 3), value: value.to_string() }
    }

    /// A reader of its own. The replica's one hook is the newest reader's, but these are not waited for.
    async fn reader(replica: &Replica) -> MetadataLog {
        let log = MetadataLog::new(NodeId(1), replica.clone());
        log.apply_committed().await.expect("a sound log");
        log
    }

    async fn decide(log: &MetadataLog, values: std::ops::Range<i32>) {
        for value in values {
            log.append(&[set(value)], NOW).await.expect("a sound disk");
        }
        log.apply_committed().await.expect("a sound log");
    }

    /// Writes a snapshot up to `records` of its records; gives where it begins.
    async fn snapshot(log: &MetadataLog, records: usize) -> Offset {
        let start = log.replica().offsets().log_end;
        let rest = pieces(&log.image(), 1 << 20).expect("sound").concat();
        let all = [vec![Record::SnapshotStarted], rest].concat();
        for record in all.iter().take(records) {
            log.append(std::slice::from_ref(record), NOW).await.expect("a sound disk");
        }
        log.apply_committed().await.expect("a sound log");
        start
    }

    fn in_a_log<F: Future<Output = ()> + 'static>(test: impl FnOnce(Runtime, PathBuf) -> F + Send + 'static) {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("m-0");
        run_one(BackendChoice::Auto, &[root.path().to_owned()], |runtime| test(runtime, dir))
            .expect("a core");
    }

    #[test]
    fn a_log_without_its_head_makes_the_same_image() {
        in_a_log(|runtime, dir| async move {
            let replica = open(runtime.clone(), dir.clone(), 1).await;
            let log = reader(&replica).await;
            decide(&log, 0..20).await;
            let away = reader(&replica).await;
            decide(&log, 20..40).await;
            replica.local().roll();
            let start = snapshot(&log, usize::MAX).await;
            decide(&log, 40..45).await;
            assert_eq!(log.newest_snapshot(), Some(start));
            replica.local().trim_to(start).await.expect("a sound disk");
            assert_eq!(replica.offsets().log_start, start);

            // One that had read less than what is gone, one that begins, and one that begins after a restart.
            let known = away.image();
            away.apply_committed().await.expect("what is left is enough");
            assert_ne!(known, away.image());
            assert_eq!((away.image(), away.applied()), (log.image(), log.applied()));
            assert_eq!(reader(&replica).await.image(), log.image());
            replica.local().close().await.expect("a sound disk");
            let again = reader(&open(runtime, dir, 2).await).await;
            assert_eq!((again.image(), again.applied()), (log.image(), log.applied()));
        });
    }

    /// A controller dies in the middle of a snapshot, at each of its records; the next one decides at once, or takes a
    /// snapshot of its own, and nobody is the wiser.
    #[test]
    fn a_snapshot_broken_off_is_nobodys_business() {
        in_a_log(|runtime, dir| async move {
            let replica = open(runtime.clone(), dir, 1).await;
            let log = reader(&replica).await;
            decide(&log, 0..5).await;
            for records in 1..5 {
                snapshot(&log, records).await;
                assert_eq!(log.newest_snapshot(), None, "behind {records} records");
                let next = reader(&replica).await;
                assert_eq!(next.image(), log.image());
                if records % 2 == 0 {
                    decide(&log, 5..6).await;
                }
            }
            let start = snapshot(&log, usize::MAX).await;
            assert_eq!(log.newest_snapshot(), Some(start));
            assert_eq!(reader(&replica).await.image(), log.image());
        });
    }

    /// A replica that has lost what its log began with, and finds no whole snapshot in what is left, knows nothing yet: it
    /// goes on with what it knew, decides nothing on it, and says so to nobody.
    #[test]
    fn half_a_snapshot_at_the_start_makes_no_image() {
        in_a_log(|runtime, dir| async move {
            let replica = open(runtime.clone(), dir, 1).await;
            let log = reader(&replica).await;
            decide(&log, 0..5).await;
            let away = reader(&replica).await;
            decide(&log, 5..6).await;
            let start = snapshot(&log, 3).await;
            replica.local().trim_to(start).await.expect("a sound disk");
            let (known, applied) = (away.image(), away.applied());
            away.apply_committed().await.expect("nothing contradicts");
            assert_eq!((away.image(), away.applied()), (known, applied));
            assert!(!away.is_snapshot_due(1) && log.is_snapshot_due(1));
            snapshot(&log, usize::MAX).await;
            away.apply_committed().await.expect("a whole one");
            assert_eq!((away.image(), away.applied()), (log.image(), log.applied()));
        });
    }
}
