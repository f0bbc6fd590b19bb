//! What the tests of a log share: batches that say where they belong, logs on any backend, reading a log whole.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "every test file uses another part")]

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use ouzel_model::batch::{BatchBuilder, BatchView, Codec, RecordParts, RecordStream, batches};
use ouzel_model::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs, TopicId, TopicName, TopicPartition,
};
use ouzel_runtime::Runtime;
use ouzel_storage::flush::FlushRequest;
use ouzel_storage::{
    Appended, Committer, FileCommitter, Log, LogConfig, LogShared, OpenError, OpenLog, OpenSegments, Stop,
    TailCache,
};
use tokio::sync::oneshot;

pub const NOW: TimestampMs = TimestampMs(1_700_000_000_000);
pub const EPOCH: LeaderEpoch = LeaderEpoch(3);
pub const TOPIC_ID: TopicId = TopicId([7; 16]);

/// One core's part, over one data directory.
#[derive(Clone)]
pub struct Bench {
    pub runtime: Runtime,
    pub data: PathBuf,
    pub shared: LogShared,
}

impl Bench {
    /// A core whose tail cache holds `tail_bytes_max`: 0 sends every read to the files.
    pub fn new(runtime: Runtime, data: &Path, tail_bytes_max: u64) -> Bench {
        let committer = Rc::new(FileCommitter::new(runtime.disk.clone()));
        Bench::with_committer(runtime, data, tail_bytes_max, committer)
    }

    pub fn with_committer(
        runtime: Runtime,
        data: &Path,
        tail_bytes_max: u64,
        committer: Rc<dyn Committer>,
    ) -> Bench {
        let shared = LogShared {
            committer,
            tail_cache: TailCache::new(tail_bytes_max),
            open_segments: OpenSegments::new(100),
            disk_low: Rc::default(),
            runtime: runtime.clone(),
        };
        Bench { runtime, data: data.to_owned(), shared }
    }

    pub fn dir(&self) -> PathBuf {
        self.data.join("t-0")
    }

    pub fn options(&self, config: &LogConfig) -> OpenLog {
        let topic = TopicName::new("t").expect("a name");
        OpenLog {
            shared: self.shared.clone(),
            dir: self.dir(),
            topic_partition: TopicPartition { topic, partition: ouzel_model::PartitionIndex(0) },
            topic_id: TOPIC_ID,
            config: config.clone(),
            stop: Stop::Unknown,
            flushed: Offset::ZERO,
            clean_end: None,
            now: NOW,
            with_entries: false,
        }
    }

    /// Opens what a crash left, of which everything below `flushed` is known to be on the disk.
    pub async fn reopen(&self, config: &LogConfig, stop: Stop, flushed: Offset) -> Result<Log, OpenError> {
        Log::open(OpenLog { stop, flushed, ..self.options(config) }).await
    }

    /// Opens what [`Log::close`] left.
    pub async fn reopen_clean(&self, config: &LogConfig, end: Offset) -> Log {
        let options =
            OpenLog { stop: Stop::Clean, flushed: end, clean_end: Some(end), ..self.options(config) };
        Log::open(options).await.expect("the log opens")
    }

    /// Opens a log nobody knows anything about.
    pub async fn open(&self, config: &LogConfig) -> Log {
        Log::open(self.options(config)).await.expect("the log opens")
    }

    /// The names in the partition's directory.
    pub async fn names(&self) -> Vec<String> {
        let entries = self.runtime.disk.list_dir(&self.dir()).await.expect("the directory is there");
        entries.into_iter().map(|entry| entry.name).collect()
    }

    pub async fn file(&self, name: &str) -> Vec<u8> {
        self.runtime.disk.read(&self.dir().join(name)).await.expect(name).to_vec()
    }
}

/// A batch of `records` records whose values say which they are; one per timestamp.
pub fn batch(codec: Codec, tag: u64, timestamps: &[i64]) -> BytesMut {
    BytesMut::from(&fill(BatchBuilder::new(codec), tag, timestamps).build()[..])
}

pub fn produced(producer: i64, sequence: i32, tag: u64, timestamps: &[i64]) -> BytesMut {
    let builder = BatchBuilder::new(Codec::None).producer(ProducerId(producer), ProducerEpoch(0), sequence);
    BytesMut::from(&fill(builder, tag, timestamps).build()[..])
}

fn fill(mut builder: BatchBuilder, tag: u64, timestamps: &[i64]) -> BatchBuilder {
    for (at, timestamp) in timestamps.iter().enumerate() {
        let value = format!("{tag}/{at}");
        let parts = RecordParts { key: None, value: Some(value.as_bytes()), headers: &[] };
        builder.push(TimestampMs(*timestamp), &parts);
    }
    builder
}

pub fn append(log: &Log, batch: BytesMut) -> Appended {
    log.append(batch, EPOCH, NOW).expect("the log takes it")
}

/// A record as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub offset: i64,
    pub timestamp: i64,
    pub value: String,
}

pub fn records(bytes: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    for batch in batches(bytes) {
        let batch: BatchView<'_> = batch.expect("whole batches");
        batch.verify_crc().expect("sound batches");
        for record in RecordStream::new(&batch, 1 << 20).expect("a known codec") {
            let record = record.expect("sound records");
            let value = String::from_utf8(record.value.unwrap_or_default()).expect("text");
            seen.push(Seen { offset: record.offset.value(), timestamp: record.timestamp.value(), value });
        }
    }
    seen
}

/// The last offset of whole batches.
pub fn last_offset(bytes: &[u8]) -> Option<i64> {
    batches(bytes).last().map(|batch| batch.expect("whole batches").header.last_offset().value())
}

/// Reads from `from` up to `bound`, `bytes_max` at a time.
pub async fn read_all(log: &Log, from: Offset, bound: Offset, bytes_max: usize) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    let mut next = from;
    while next < bound {
        let slices = log.read(next, bound, bytes_max, true).await.expect("the log reads");
        assert_eq!(slices.bytes, slices.batches.iter().map(bytes::Bytes::len).sum::<usize>());
        let piece: Vec<Seen> = slices.batches.iter().flat_map(|bytes| records(bytes)).collect();
        let Some(last) = piece.last() else { panic!("nothing at {next} below {bound}") };
        assert!(
            piece[0].offset <= next.value(),
            "the first batch holds {next}, it begins at {}",
            piece[0].offset
        );
        let after = Offset(last.offset + 1);
        assert!(after <= bound, "read beyond {bound}: {last:?}");
        seen.extend(piece.into_iter().filter(|record| record.offset >= next.value()));
        next = after;
    }
    seen
}

pub async fn read_log(log: &Log) -> Vec<Seen> {
    let offsets = log.offsets();
    read_all(log, offsets.log_start, offsets.log_end, 4096).await
}

type Done = oneshot::Sender<Result<(), Arc<io::Error>>>;

/// Flushes nothing until it is told to.
pub struct Held {
    is_held: Cell<bool>,
    waiting: RefCell<Vec<(FlushRequest, Done)>>,
}

impl Held {
    pub fn new() -> Held {
        Held { is_held: Cell::new(true), waiting: RefCell::default() }
    }

    pub async fn release(&self, committer: &FileCommitter) {
        self.is_held.set(false);
        for (request, done) in self.waiting.take() {
            let _ = done.send(committer.commit(request).await.expect("the committer is there"));
        }
    }
}

impl Committer for Held {
    fn commit(&self, request: FlushRequest) -> oneshot::Receiver<Result<(), Arc<io::Error>>> {
        let (done, result) = oneshot::channel();
        if self.is_held.get() {
            self.waiting.borrow_mut().push((request, done));
        } else {
            let _ = done.send(Ok(()));
        }
        result
    }
}
