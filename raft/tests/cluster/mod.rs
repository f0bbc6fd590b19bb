//! Replicas of one group in one process: simulated disks, a network in memory, virtual time.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use ouzel_model::batch::batches;
use ouzel_model::{
    NodeId, Offset, PartitionIndex, ReplicaId, TimestampMs, TopicId, TopicIdPartition, TopicName,
    TopicPartition,
};
use ouzel_raft::suite::memory::MemoryNetwork;
use ouzel_raft::{
    AppendRefused, GroupSettings, GroupStatus, OpenGroup, OpenGroupError, PeerMessage, Placed, RaftGroup,
    ReplicatedLog, Role, Ticks, Unacknowledged,
};
use ouzel_runtime::CoreId;
use ouzel_runtime::sim::{self, SimClock, SimDisk, SimRuntime};
use ouzel_storage::snapshot_files::open_group;
use ouzel_storage::wal::{BootId, MetaWal, replay};
use ouzel_storage::{FileCommitter, LogConfig, LogShared, OpenLog, OpenSegments, Stop, TailCache};

pub(crate) const NOW: TimestampMs = TimestampMs(1_700_000_000_000);
/// Longer than any election, shorter than patience.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn at() -> TopicIdPartition {
    TopicIdPartition { topic_id: TopicId([1; 16]), partition: PartitionIndex(0) }
}

pub(crate) fn replica(node: i32) -> ReplicaId {
    ReplicaId::first(NodeId(node))
}

/// Runs a cluster of replicas of one group from a seed.
pub(crate) fn run<F: Future<Output = ()>>(seed: u64, count: i32, main: impl FnOnce(Cluster) -> F) {
    sim::run(seed, |machine| async move {
        main(Cluster::new(machine, count)).await;
    });
}

/// A machine of one core, with a disk, a wall clock and chances of its own.
fn machine_of(seed: u64) -> SimRuntime {
    SimRuntime::of(seed, 1, SimDisk::new(seed), SimClock::new())
}

#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) machine: SimRuntime,
    pub(crate) network: MemoryNetwork,
    nodes: Rc<BTreeMap<i32, Node>>,
    pub(crate) settings: Rc<RefCell<GroupSettings>>,
    pub(crate) log_config: Rc<RefCell<LogConfig>>,
    /// Changes of the members that were decided.
    decisions: Rc<Cell<u32>>,
    /// Who founds the group, when they are started.
    pub(crate) founders: Rc<RefCell<Vec<ReplicaId>>>,
}

pub(crate) struct Node {
    machine: RefCell<SimRuntime>,
    pub(crate) replica: Cell<ReplicaId>,
    group: RefCell<Option<RaftGroup>>,
    /// Counts the machine's boots.
    boot: Cell<u8>,
    /// Whether its disk is nearly full, as whoever watches the free space tells the logs.
    pub(crate) disk_low: Rc<Cell<bool>>,
}

impl Node {
    /// Its machine, with the disk it has now.
    pub(crate) fn machine(&self) -> SimRuntime {
        self.machine.borrow().clone()
    }
}

impl Cluster {
    /// Nodes 1 to `count`, none of them running.
    pub(crate) fn new(machine: SimRuntime, count: i32) -> Cluster {
        let node = |id: i32| Node {
            machine: RefCell::new(machine_of(machine.seed() * 1000 + id as u64)),
            replica: Cell::new(replica(id)),
            group: RefCell::default(),
            boot: Cell::new(1),
            disk_low: Rc::default(),
        };
        let nodes = (1..=count).map(|id| (id, node(id))).collect();
        let settings = GroupSettings { ticks: Ticks::Own, ..GroupSettings::default() };
        Cluster {
            network: MemoryNetwork::new(machine.runtime()),
            nodes: Rc::new(nodes),
            settings: Rc::new(RefCell::new(settings)),
            log_config: Rc::new(RefCell::new(LogConfig { retention_ms: None, ..LogConfig::default() })),
            decisions: Rc::new(Cell::new(1)),
            founders: Rc::default(),
            machine,
        }
    }

    pub(crate) fn node(&self, id: i32) -> &Node {
        &self.nodes[&id]
    }

    pub(crate) fn ids(&self) -> Vec<i32> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn voters(&self) -> Vec<ReplicaId> {
        self.nodes.values().map(|node| node.replica.get()).collect()
    }

    /// What a node's replica is opened with: its founders, if it is one of them.
    fn founders_of(&self, id: i32) -> Vec<ReplicaId> {
        let founders = self.founders.borrow();
        if founders.contains(&self.node(id).replica.get()) { founders.clone() } else { Vec::new() }
    }

    /// A node's write-ahead file, and how its log is opened.
    pub(crate) async fn disk_of(&self, id: i32) -> (MetaWal, OpenLog) {
        let machine = self.node(id).machine();
        let (runtime, data_dir) = (machine.runtime(), machine.data_dir());
        let replayed = replay(&runtime.disk, data_dir).await.expect("a sound disk");
        replayed.rewrite(&runtime.disk, data_dir, 1, |_| 0).await.expect("a sound disk");
        let wal = MetaWal::open(runtime.disk.clone(), data_dir, CoreId(0)).await.expect("a sound disk");
        let shared = LogShared {
            committer: Rc::new(FileCommitter::new(runtime.disk.clone())),
            tail_cache: TailCache::new(1 << 20),
            open_segments: OpenSegments::new(16),
            disk_low: self.node(id).disk_low.clone(),
            runtime,
        };
        let mut config = self.log_config.borrow().clone();
        config.durability = self.settings.borrow().durability;
        (wal, open_log(shared, data_dir.join("t-0"), config))
    }

    /// The boot that a node's machine is in.
    pub(crate) fn boot_of(&self, id: i32) -> BootId {
        BootId([self.node(id).boot.get(); 16])
    }

    /// Starts a node's replica from what is on its disk.
    pub(crate) async fn try_start(&self, id: i32) -> Result<RaftGroup, OpenGroupError> {
        let (wal, open) = self.disk_of(id).await;
        self.try_start_on(id, wal, open).await
    }

    /// The same, with the write-ahead file in the test's hands.
    pub(crate) async fn try_start_on(
        &self,
        id: i32,
        wal: MetaWal,
        open: OpenLog,
    ) -> Result<RaftGroup, OpenGroupError> {
        let (runtime, boot) = (open.shared.runtime.clone(), self.boot_of(id));
        let log = open_group(open, wal.get_group(&at()).as_ref(), boot)
            .await
            .unwrap_or_else(|error| panic!("node {id}: {error}"));
        let settings = self.settings.borrow().clone();
        let group = RaftGroup::open(OpenGroup {
            at: at(),
            replica: self.node(id).replica.get(),
            log,
            wal,
            runtime,
            transport: self.network.transport(NodeId(id)),
            settings,
            boot,
            founders: self.founders_of(id),
        })
        .await?;
        self.network.join(&group);
        self.node(id).group.replace(Some(group.clone()));
        Ok(group)
    }

    pub(crate) async fn start(&self, id: i32) -> RaftGroup {
        self.try_start(id).await.expect("it starts")
    }

    /// Starts all nodes and founds the group on them.
    pub(crate) async fn found(&self) {
        self.found_on(&self.ids()).await;
    }

    /// Starts all nodes, founds the group on some.
    pub(crate) async fn found_on(&self, nodes: &[i32]) {
        self.founders.replace(nodes.iter().map(|id| self.node(*id).replica.get()).collect());
        for id in self.ids() {
            self.start(id).await;
        }
        if self.settings.borrow().ticks == Ticks::Served {
            self.group(nodes[0]).elect().await;
        }
    }

    pub(crate) fn group(&self, id: i32) -> RaftGroup {
        self.node(id).group.borrow().clone().expect("it runs")
    }

    pub(crate) fn running(&self) -> Vec<i32> {
        let is_running = |id: &i32| self.node(*id).group.borrow().is_some();
        self.ids().into_iter().filter(is_running).collect()
    }

    /// The process ends at once; what was written stays.
    pub(crate) fn kill(&self, id: i32) {
        self.network.leave(NodeId(id));
        self.node(id).machine().disk().kill();
        self.node(id).group.replace(None);
    }

    /// The machine loses power: what was not flushed may be gone.
    pub(crate) fn power_cut(&self, id: i32) {
        self.network.leave(NodeId(id));
        let node = self.node(id);
        node.boot.set(node.boot.get() + 1);
        node.machine().disk().power_cut();
        node.group.replace(None);
    }

    /// Waits for a leader among the running nodes that all of them follow.
    pub(crate) async fn leader(&self) -> RaftGroup {
        self.eventually("a leader", |cluster| cluster.leader_now().is_some()).await;
        self.leader_now().expect("just seen")
    }

    pub(crate) fn leader_now(&self) -> Option<RaftGroup> {
        let groups: Vec<_> = self.running().into_iter().map(|id| self.group(id)).collect();
        let epoch = groups.iter().map(|group| group.status().epoch).max()?;
        groups.into_iter().find(|group| {
            let status = group.status();
            status.role == Role::Leader && status.epoch == epoch
        })
    }

    /// Waits until something holds.
    pub(crate) async fn eventually(&self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        let clock = self.machine.runtime().clock;
        let deadline = clock.now() + SOON;
        while !holds(self) {
            if clock.now() >= deadline {
                let seen: Vec<_> = self.running().iter().map(|id| self.group(*id).status()).collect();
                panic!("{what} did not come: {seen:#?}");
            }
            clock.sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until every running replica holds and has committed all the leader has.
    pub(crate) async fn settled(&self) {
        let leader = self.leader().await;
        let end = leader.offsets().log_end;
        self.eventually("agreement", |cluster| {
            cluster.running().iter().all(|id| {
                let offsets = cluster.group(*id).offsets();
                offsets.log_end == end && offsets.high_watermark == end
            })
        })
        .await;
    }

    /// Waits until every running replica has committed the same, and gives it: see [`committed`].
    pub(crate) async fn agreed(&self) -> Vec<(i64, i32, Vec<u8>)> {
        self.settled().await;
        let expected = committed(&self.leader().await).await;
        for id in self.running() {
            let seed = self.machine.seed();
            assert_eq!(committed(&self.group(id)).await, expected, "seed {seed}, replica {id}");
        }
        expected
    }

    /// Sleeps, in virtual time.
    pub(crate) async fn sleep(&self, duration: Duration) {
        self.machine.runtime().clock.sleep(duration).await;
    }

    /// Appends to whoever leads, as a client does: again and again until it is acknowledged.
    pub(crate) async fn produce(&self, batch: BytesMut) -> Placed {
        let clock = self.machine.runtime().clock;
        let deadline = clock.now() + SOON;
        loop {
            assert!(clock.now() < deadline, "nobody takes the batch");
            let leader = self.leader().await;
            match append(&leader, batch.clone()).await {
                Ok(placed) => return placed,
                Err(Failed::Refused(AppendRefused::NotLeader) | Failed::Unacknowledged(_)) => {
                    clock.sleep(Duration::from_millis(20)).await;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

fn open_log(shared: LogShared, dir: PathBuf, config: LogConfig) -> OpenLog {
    OpenLog {
        shared,
        dir,
        topic_partition: TopicPartition { topic: TopicName::new("t").unwrap(), partition: PartitionIndex(0) },
        topic_id: TopicId([1; 16]),
        config,
        stop: Stop::Unknown,
        flushed: Offset::ZERO,
        clean_end: None,
        now: NOW,
        with_entries: false,
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    Refused(AppendRefused),
    Unacknowledged(Unacknowledged),
}

/// One append with acks=all.
pub(crate) async fn append(group: &RaftGroup, batch: BytesMut) -> Result<Placed, Failed> {
    let receipt = group.append(batch, NOW).await.map_err(Failed::Refused)?;
    receipt.acknowledged().await.map_err(Failed::Unacknowledged)?;
    Ok(receipt.placed)
}

/// The records below the high watermark: base offset, epoch and bytes of each batch.
pub(crate) async fn committed(group: &RaftGroup) -> Vec<(i64, i32, Vec<u8>)> {
    let offsets = group.offsets();
    let mut found = Vec::new();
    let mut from = offsets.log_start;
    while from < offsets.high_watermark {
        let read =
            group.local().read(from, offsets.high_watermark, 1 << 20, true).await.expect("a sound disk");
        for slice in &read.batches {
            let mut at = 0;
            for view in batches(slice) {
                let view = view.expect("whole");
                view.verify_crc().expect("unharmed");
                let (header, size_bytes) = (view.header, view.header.size_bytes());
                let bytes = slice[at..at + size_bytes].to_vec();
                at += size_bytes;
                found.push((header.base_offset.value(), header.partition_leader_epoch.value(), bytes));
                from = header.next_offset();
            }
        }
    }
    found
}

pub(crate) fn status(cluster: &Cluster, id: i32) -> GroupStatus {
    cluster.group(id).status()
}

impl Cluster {
    /// The running nodes that `group` is not on.
    pub(crate) fn others(&self, group: &RaftGroup) -> Vec<i32> {
        self.running().into_iter().filter(|id| NodeId(*id) != group.replica().node).collect()
    }
}

/// The smallest message of a group: are you there?
pub(crate) fn a_message(from: ReplicaId, to: ReplicaId) -> PeerMessage {
    let mut head = vec![1, 7];
    head.extend(from.to_u64().to_be_bytes());
    head.extend(to.to_u64().to_be_bytes());
    PeerMessage { head: head.into(), bodies: Vec::new() }
}

/// A request for a vote in `term`.
pub(crate) fn a_vote(from: ReplicaId, to: ReplicaId, term: u32) -> PeerMessage {
    let mut head = vec![1, 2];
    head.extend(from.to_u64().to_be_bytes());
    head.extend(to.to_u64().to_be_bytes());
    head.extend(term.to_be_bytes());
    head.extend(from.to_u64().to_be_bytes());
    // Not yet granted by a quorum; no last entry; no transfer.
    head.extend([0, 0, 0]);
    PeerMessage { head: head.into(), bodies: Vec::new() }
}

/// Whether a message was refused.
pub(crate) fn is_refusal(answer: &PeerMessage) -> bool {
    answer.head.get(1) == Some(&0)
}

impl Cluster {
    /// Appends so many batches of one record; gives their offsets.
    pub(crate) async fn produced(&self, count: usize) -> Vec<Offset> {
        let mut placed = Vec::new();
        for _ in 0..count {
            placed.push(self.produce(ouzel_raft::suite::batch(1, None)).await.base_offset);
        }
        placed
    }

    /// A replica was stopped in order.
    pub(crate) fn forget(&self, id: i32) {
        self.network.leave(NodeId(id));
        self.node(id).group.replace(None);
    }

    /// What a node's liveness does for groups that do not tick: has one after the other stand until somebody leads.
    pub(crate) async fn serve_elections(&self) {
        for turn in 0..50 {
            if self.leader_now().is_some() {
                return;
            }
            let ids = self.running();
            self.group(ids[turn % ids.len()]).elect().await;
            self.sleep(Duration::from_millis(250)).await;
        }
    }
}

impl Cluster {
    /// Changes the members as the controller does: asks whoever leads, until it is done.
    pub(crate) async fn reconfigure(&self, voters: &[ReplicaId]) {
        self.decisions.set(self.decisions.get() + 1);
        self.carry_out(voters, self.decisions.get()).await;
    }

    /// As [`Cluster::reconfigure`], for a decision that may have been made before.
    pub(crate) async fn carry_out(&self, voters: &[ReplicaId], decision: u32) {
        let clock = self.machine.runtime().clock;
        let deadline = clock.now() + SOON;
        loop {
            assert!(clock.now() < deadline, "the members do not change");
            let leader = self.leader().await;
            if let Ok(Ok(())) = clock.timeout(SOON, leader.reconfigure(voters, decision)).await {
                return;
            }
            clock.sleep(Duration::from_millis(50)).await;
        }
    }

    /// The disk of a node is lost, with all on it.
    pub(crate) fn wipe(&self, id: i32) {
        self.kill(id);
        let node = self.node(id);
        node.machine.replace(machine_of(self.machine.seed() * 1000 + 500 + id as u64));
    }
}
