//! openraft's own suite of what a log store must do, over the real one.
//!
//! It is run case by case. What it cannot be asked: its entries are blanks and memberships only, and a segment of those is
//! never sealed, so nothing of it can be purged; and its state machine holds the whole state, where ours holds a point in
//! the log. Those cases are told by our own tests, over batches (`tests/snapshots.rs`). Half of its logs begin with
//! entry 1 or later, ours with entry 0: [`FromOne`] puts blanks there and hides them.

use std::cell::Cell;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::rc::Rc;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{LogState, RaftLogReader, StorageError};
use ouzel_model::{
    EntryId, EntryIndex, LeaderEpoch, NodeId, Offset, PartitionIndex, ReplicaId, TimestampMs, TopicId,
    TopicIdPartition, TopicName, TopicPartition,
};
use ouzel_runtime::CoreId;
use ouzel_runtime::sim::{self, SimRuntime};
use ouzel_storage::wal::{BootId, GroupState, MetaWal, replay};
use ouzel_storage::{FileCommitter, Log, LogConfig, LogShared, OpenLog, OpenSegments, Stop, TailCache};

use super::Store;
use crate::entry::SideBody;
use crate::group::GroupSettings;
use crate::replica_state::ReplicaState;
use crate::state_machine::StateMachine;
use crate::types::{LogId, RaftEntry, RaftVote, Types};

struct Build;

impl StoreBuilder<Types, FromOne, StateMachine> for Build {
    async fn build(&self) -> Result<((), FromOne, StateMachine), StorageError<Types>> {
        unreachable!("the cases are run one by one")
    }
}

type Cases = Suite<Types, FromOne, StateMachine, Build, ()>;

async fn a_wal(machine: &SimRuntime) -> MetaWal {
    let (disk, data_dir) = (machine.runtime().disk, machine.data_dir());
    let replayed = replay(&disk, data_dir).await.expect("a sound disk");
    replayed.rewrite(&disk, data_dir, 1, |_| 0).await.expect("a sound disk");
    MetaWal::open(disk, data_dir, CoreId(0)).await.expect("a sound disk")
}

/// A group's log with nothing in it.
pub(crate) async fn a_log(machine: &SimRuntime) -> Log {
    let runtime = machine.runtime();
    Log::open(OpenLog {
        shared: LogShared {
            committer: Rc::new(FileCommitter::new(runtime.disk.clone())),
            tail_cache: TailCache::new(1 << 20),
            open_segments: OpenSegments::new(16),
            disk_low: Rc::new(Cell::new(false)),
            runtime,
        },
        dir: machine.data_dir().join("t-0"),
        topic_partition: TopicPartition { topic: TopicName::new("t").unwrap(), partition: PartitionIndex(0) },
        topic_id: TopicId([1; 16]),
        config: LogConfig::default(),
        stop: Stop::Unknown,
        flushed: Offset::ZERO,
        clean_end: None,
        now: TimestampMs(0),
        with_entries: true,
    })
    .await
    .expect("a new log")
}

async fn fresh(machine: &SimRuntime) -> (FromOne, StateMachine) {
    let wal = a_wal(machine).await;
    let log = a_log(machine).await;
    let at = TopicIdPartition { topic_id: TopicId([1; 16]), partition: PartitionIndex(0) };
    let kept = GroupState::new(ReplicaId::first(NodeId(0)), BootId([1; 16]));
    let state =
        ReplicaState::new(at, log, machine.runtime(), wal, GroupSettings::default(), kept, Vec::new());
    let store = FromOne { store: Store::new(state.clone()), hides_below: Rc::default() };
    (store, StateMachine::new(state))
}

/// The store, as if its log began with the entry that the case begins with.
#[derive(Clone)]
struct FromOne {
    store: Store,
    hides_below: Rc<Cell<u64>>,
}

impl RaftLogStorage<Types> for FromOne {
    type LogReader = FromOne;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let mut state = self.store.get_log_state().await?;
        state.last_log_id = state.last_log_id.filter(|last| last.index >= self.hides_below.get());
        Ok(state)
    }

    async fn get_log_reader(&mut self) -> FromOne {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        self.store.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.store.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.store.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry>,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let log = &self.store.state.log;
        if let (None, Some(first)) = (log.last_entry(), entries.first()) {
            for index in 0..first.log_id.index {
                let (kind, body) = SideBody::Blank.encode();
                let id = EntryId { term: LeaderEpoch(0), index: EntryIndex(index) };
                log.append_side(id, kind, body).map_err(io::Error::other)?;
            }
            self.hides_below.set(first.log_id.index);
        }
        self.store.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.store.truncate_after(last).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.store.purge(upto).await
    }
}

impl RaftLogReader<Types> for FromOne {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<RaftEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug,
    {
        let mut entries = self.store.try_get_log_entries(range).await?;
        entries.retain(|entry| entry.log_id.index >= self.hides_below.get());
        Ok(entries)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        self.store.limited_get_log_entries(start, end).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        self.store.read_vote().await
    }
}

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                sim::run(1, |machine| async move {
                    let (store, state_machine) = fresh(&machine).await;
                    Cases::$case(store, state_machine).await.expect("it does as openraft asks");
                });
            }
        )*
    };
}

cases!(
    last_membership_in_log_initial,
    last_membership_in_log,
    last_membership_in_log_multi_step,
    get_membership_initial,
    get_membership_from_log_and_empty_sm,
    get_membership_from_empty_log_and_sm,
    get_membership_from_log_le_sm_last_applied,
    get_membership_from_log_gt_sm_last_applied_1,
    get_membership_from_log_gt_sm_last_applied_2,
    get_initial_state_without_init,
    get_initial_state_membership_from_empty_log_and_sm,
    get_initial_state_membership_from_sm_inlog_is_smaller,
    get_initial_state_with_state,
    get_initial_state_last_log_gt_sm,
    get_initial_state_last_log_lt_sm,
    get_initial_state_inverted_log_order,
    get_initial_state_conflict_at_same_index,
    save_vote,
    get_log_entries,
    limited_get_log_entries,
    leader_bounded_stream,
    entries_stream,
    log_reader_reads_new_entries,
    initial_logs,
    last_id_in_log,
    last_applied_state,
    delete_logs_after_11,
    delete_logs_after_5,
    delete_logs_after_0,
    delete_logs_after_none,
    snapshot_meta_optional,
    apply_single,
    apply_multiple,
);
