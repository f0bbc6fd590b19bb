//! The behaviour suite over `Solo`, in every durability mode and on every disk backend that runs here.

use std::cell::Cell;
use std::rc::Rc;

use ouzel_model::{LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId, TopicName, TopicPartition};
use ouzel_raft::{Solo, suite};
use ouzel_runtime::Runtime;
use ouzel_runtime::cores::run_one;
use ouzel_runtime::disk::BackendChoice;
use ouzel_storage::{
    Durability, FileCommitter, Log, LogConfig, LogShared, OpenLog, OpenSegments, Stop, TailCache,
};

async fn open(runtime: Runtime, dir: std::path::PathBuf, durability: Durability) -> Solo {
    let shared = LogShared {
        committer: Rc::new(FileCommitter::new(runtime.disk.clone())),
        tail_cache: TailCache::new(1 << 20),
        open_segments: OpenSegments::new(16),
        disk_low: Rc::new(Cell::new(false)),
        runtime,
    };
    let log = Log::open(OpenLog {
        shared,
        dir,
        topic_partition: TopicPartition { topic: TopicName::new("t").unwrap(), partition: PartitionIndex(0) },
        topic_id: TopicId([1; 16]),
        config: LogConfig { durability, ..LogConfig::default() },
        stop: Stop::Unknown,
        flushed: Offset::ZERO,
        clean_end: None,
        now: TimestampMs(0),
        with_entries: false,
    })
    .await
    .unwrap();
    Solo::new(log, LeaderEpoch(1), durability)
}

#[test]
fn solo_passes_the_suite_in_every_mode_and_on_every_backend() {
    for backend in [BackendChoice::Auto, BackendChoice::Blocking] {
        for durability in [Durability::Durable, Durability::WriteCaching, Durability::Os] {
            let root = tempfile::tempdir().unwrap();
            let (path, turn) = (root.path().to_owned(), Cell::new(0));
            run_one(backend, &[root.path().to_owned()], move |runtime| async move {
                let fresh = || {
                    turn.set(turn.get() + 1);
                    open(runtime.clone(), path.join(format!("t-{}", turn.get())), durability)
                };
                suite::run(fresh).await;
            })
            .unwrap();
        }
    }
}

/// The high watermark of a durable log must follow the flush, not the write: else a reader could see, and commit, a
/// record that a power cut takes back.
#[test]
fn a_durable_log_shows_nothing_before_it_is_flushed() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("t-0");
    run_one(BackendChoice::Auto, &[root.path().to_owned()], move |runtime| async move {
        use ouzel_raft::ReplicatedLog;
        let solo = open(runtime, dir, Durability::Durable).await;
        let seen = Rc::new(Cell::new(true));
        let (watched, verdict) = (solo.clone(), seen.clone());
        solo.local().on_progress(move || {
            let local = watched.local().offsets();
            verdict.set(verdict.get() && watched.offsets().high_watermark <= local.flushed_end);
        });
        for _ in 0..20 {
            let receipt = solo.append(suite::batch(3, None), TimestampMs(0)).await.unwrap();
            assert!(solo.offsets().high_watermark <= receipt.placed.base_offset);
            receipt.acknowledged().await.unwrap();
        }
        assert!(seen.get());
    })
    .unwrap();
}
