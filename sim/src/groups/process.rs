//! A node's process: it opens what its disk holds, hosts replicas, and takes jobs until it ends.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ouzel_model::{
    EntryId, LeaderEpoch, NodeId, Offset, ReplicaId, TimestampMs, TopicIdPartition, TopicName, TopicPartition,
};
use ouzel_raft::transport::LocalBoxFuture;
use ouzel_raft::{GroupSettings, OpenGroup, RaftGroup, ReplicatedLog, Role, Ticks, vouches};
use ouzel_runtime::clock::Instant;
use ouzel_runtime::sim::{DATA_DIR, Rng, SimRuntime};
use ouzel_runtime::{CoreId, Runtime};
use ouzel_storage::wal::{BootId, Change, MetaWal, replay};
use ouzel_storage::{
    FileCommitter, LogConfig, LogShared, OpenLog, OpenSegments, Stop, TailCache, snapshot_files,
};
use tokio::sync::mpsc;

use super::controller::ask_about_the_lost;
use super::world::World;

const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
const TAIL_CACHE_BYTES: u64 = 64 << 10;
const SEGMENT_BYTES: u64 = 16 << 10;
/// A served group whose leader's node has been silent for so long is to be led by somebody else.
const SILENCE_MAX: Duration = Duration::from_millis(600);
const LIVENESS_INTERVAL: Duration = Duration::from_millis(100);

/// Something a process is asked to do: begun when it is called, in the order of the inbox.
pub(super) type Job = Box<dyn FnOnce(Rc<Inside>) -> LocalBoxFuture<()>>;

/// What runs in a process.
pub(super) struct Inside {
    pub(super) runtime: Runtime,
    pub(super) wal: MetaWal,
    pub(super) boot: BootId,
    shared: LogShared,
    pub(super) groups: RefCell<BTreeMap<u32, RaftGroup>>,
    /// Replicas that cannot vouch for what they acknowledged, with their newest entries. They are not open.
    pub(super) lost: RefCell<BTreeMap<u32, (ReplicaId, Option<EntryId>)>>,
    /// What was to be opened in this life.
    pub(super) attempted: RefCell<BTreeSet<(u32, ReplicaId)>>,
}

impl Inside {
    pub(super) fn group(&self, number: u32) -> Option<RaftGroup> {
        self.groups.borrow().get(&number).cloned()
    }
}

/// A running process; emptied, it is dead: everything in it is dropped there and then.
pub(super) struct Slot {
    body: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
}

impl World {
    /// Starts a node's process.
    pub(super) fn start(&self, at: usize) {
        let node = &self.nodes[at];
        if node.is_up() {
            return;
        }
        node.life.set(node.life.get() + 1);
        let seed = Rng::new(self.seed).fork(1000 + at as u64).fork(u64::from(node.life.get())).next();
        let machine = SimRuntime::of(seed, 1, node.disk.clone(), node.clock.clone());
        let (inbox, jobs) = mpsc::unbounded_channel();
        node.inbox.replace(Some(inbox));
        let world = self.clone();
        let main = async move {
            let outcome = world.clone().live(at, machine, jobs).await;
            world.note(&name(world.nodes[at].id), format_args!("ended by itself: {outcome:?}"));
        };
        let slot = Rc::new(Slot { body: RefCell::new(Some(Box::pin(node.pause.process(main)))) });
        node.slot.replace(Some(slot.clone()));
        let world = self.clone();
        ouzel_runtime::spawn(async move {
            std::future::poll_fn(|context| {
                // Taken out while it runs: what it drops may come back here.
                let Some(mut body) = slot.body.take() else { return Poll::Ready(()) };
                let polled = body.as_mut().poll(context);
                if polled.is_pending() {
                    slot.body.replace(Some(body));
                }
                polled
            })
            .await;
            // It has ended by itself, unless somebody else has taken its place.
            let node = &world.nodes[at];
            let is_this = node.slot.borrow().as_ref().is_some_and(|current| Rc::ptr_eq(current, &slot));
            if is_this {
                world.bury(at);
                node.disk.kill();
            }
        });
        self.note(&name(node.id), format_args!("starts, life {}", node.life.get()));
    }

    /// Ends a node's process; what it has written stays.
    pub(super) fn kill(&self, at: usize) {
        self.nodes[at].disk.kill();
        self.bury(at);
    }

    /// Ends a node's process and takes its machine's power.
    pub(super) fn power_cut(&self, at: usize) {
        self.nodes[at].disk.power_cut();
        self.bury(at);
    }

    fn bury(&self, at: usize) {
        let node = &self.nodes[at];
        node.inbox.take();
        let inside = node.inside.take();
        let slot = node.slot.take();
        let body = slot.and_then(|slot| slot.body.take());
        drop((body, inside));
        node.pause.resume();
    }

    async fn live(
        self,
        at: usize,
        machine: SimRuntime,
        mut jobs: mpsc::UnboundedReceiver<Job>,
    ) -> Result<(), String> {
        let runtime = machine.runtime();
        let (disk, dir) = (runtime.disk.clone(), PathBuf::from(DATA_DIR));
        let boot = disk.read(std::path::Path::new(BOOT_ID_FILE)).await.map_err(|error| error.to_string())?;
        let boot = String::from_utf8_lossy(&boot).parse::<BootId>().map_err(|error| error.to_string())?;
        let replayed = replay(&disk, &dir).await.map_err(|error| error.to_string())?;
        replayed.rewrite(&disk, &dir, 1, |_| 0).await.map_err(|error| error.to_string())?;
        let wal = MetaWal::open(disk.clone(), &dir, CoreId(0)).await.map_err(|error| error.to_string())?;
        let shared = LogShared {
            committer: Rc::new(FileCommitter::new(disk)),
            tail_cache: TailCache::new(TAIL_CACHE_BYTES),
            open_segments: OpenSegments::new(16),
            disk_low: Rc::default(),
            runtime: runtime.clone(),
        };
        let inside = Rc::new(Inside {
            runtime,
            wal,
            boot,
            shared,
            groups: RefCell::default(),
            lost: RefCell::default(),
            attempted: RefCell::default(),
        });
        let node = &self.nodes[at];
        for (number, group) in (0..).zip(&self.groups) {
            let replica = group.partition.borrow().replica_on(node.id);
            if let Some(replica) = replica {
                self.open(&inside, number, replica).await;
            }
        }
        node.inside.replace(Some(inside.clone()));
        ouzel_runtime::spawn(ask_about_the_lost(self.clone(), inside.clone()));
        if !self.own_ticks {
            ouzel_runtime::spawn(self.clone().serve_groups(at, inside.clone()));
        }
        while let Some(job) = jobs.recv().await {
            ouzel_runtime::spawn(job(inside.clone()));
        }
        Ok(())
    }

    /// Opens a replica, once; one that cannot be opened is out of service until the next start, one that cannot vouch for
    /// what it acknowledged until the controller has decided. An earlier life of it ends.
    pub(super) async fn open(&self, inside: &Rc<Inside>, number: u32, replica: ReplicaId) {
        if !inside.attempted.borrow_mut().insert((number, replica)) {
            return;
        }
        inside.lost.borrow_mut().remove(&number);
        close(inside, number).await;
        self.open_if(inside, number, replica, self.lies_told.get()).await;
    }

    /// Opens a replica with what it has left: the controller says so.
    pub(super) async fn open_anyway(&self, inside: &Rc<Inside>, number: u32, replica: ReplicaId) {
        self.open_if(inside, number, replica, true).await;
    }

    async fn open_if(&self, inside: &Rc<Inside>, number: u32, replica: ReplicaId, anyway: bool) {
        let who = name(replica.node);
        let opened = open_group(self, inside, number, replica, anyway).await;
        match opened {
            Ok(Opened::Lost(last)) => {
                self.note(
                    &who,
                    format_args!("group {number}: {replica} cannot vouch for its tail, {last:?}"),
                );
                inside.lost.borrow_mut().insert(number, (replica, last));
            }
            Ok(Opened::Group(opened)) => _ = inside.groups.borrow_mut().insert(number, opened),
            Err(error) => self.note(&who, format_args!("group {number} cannot be opened: {error}")),
        }
    }

    /// Lets go of a replica and of all it holds.
    pub(super) async fn remove(&self, inside: &Rc<Inside>, number: u32, replica: ReplicaId) {
        let at = self.groups[number as usize].at;
        if inside.wal.get_group(&at).is_some_and(|kept| kept.replica != replica) {
            // A later life of it is here by now.
            return;
        }
        inside.lost.borrow_mut().remove(&number);
        close(inside, number).await;
        let _ = wipe(inside, &at, number).await;
    }

    /// Whether a replica says that it leads the group, or is about to: what nodes gossip.
    fn claims(&self, leader: ReplicaId, follower: &RaftGroup) -> bool {
        let node = &self.nodes[self.place_of(leader.node)];
        let Some(inside) = node.inside.borrow().clone() else { return false };
        let found = inside.groups.borrow().values().find(|group| group.at() == follower.at()).cloned();
        found.is_some_and(|found| {
            let status = found.status();
            found.replica() == leader && status.leader == Some(leader)
        })
    }

    /// Stands in for the liveness service: wakes groups whose leader is not heard of.
    async fn serve_groups(self, at: usize, inside: Rc<Inside>) {
        let clock = inside.runtime.clock.clone();
        let me = self.nodes[at].id;
        let mut heard: BTreeMap<NodeId, Instant> = BTreeMap::new();
        let mut rng = self.fork(77 + at as u64);
        loop {
            let jitter = Duration::from_millis(rng.below(100));
            clock.sleep(LIVENESS_INTERVAL + jitter).await;
            let now = clock.now();
            for other in &self.nodes {
                let answers = other.is_up() && !other.pause.is_paused() && self.network.is_open(other.id, me);
                let since = heard.entry(other.id).or_insert(now);
                if answers || other.id == me {
                    *since = now;
                }
            }
            let groups: Vec<_> = inside.groups.borrow().values().cloned().collect();
            for group in groups {
                let status = group.status();
                for (node, since) in &heard {
                    group.note_node(*node, now - *since < SILENCE_MAX);
                }
                let lost = match status.leader {
                    Some(leader) if leader == group.replica() => {
                        group.heartbeat().await;
                        status.role != Role::Leader
                    }
                    // A node that answers may not lead any more: its claims say so.
                    Some(leader) => {
                        heard.get(&leader.node).is_none_or(|since| now - *since >= SILENCE_MAX)
                            || !self.claims(leader, &group)
                    }
                    None => true,
                };
                if lost && !status.voters.is_empty() && rng.chance(1, 2) {
                    group.elect().await;
                }
            }
        }
    }
}

/// What opening a replica came to.
enum Opened {
    Group(RaftGroup),
    /// It cannot vouch for what it acknowledged; its newest entry.
    Lost(Option<EntryId>),
}

/// Removes what a replica held: first the data, then what is known of it, as a crash in between is followed by the same.
async fn wipe(inside: &Inside, at: &TopicIdPartition, number: u32) -> Result<(), String> {
    let disk = &inside.runtime.disk;
    let removed = async {
        if disk.exists(&log_dir(number)).await? {
            disk.remove_dir_all(&log_dir(number)).await?;
            disk.sync_dir(std::path::Path::new(DATA_DIR)).await?;
        }
        std::io::Result::Ok(())
    };
    removed.await.map_err(|error| error.to_string())?;
    inside.wal.commit(vec![Change::Remove(*at)]).await.map_err(|error| error.to_string())
}

async fn close(inside: &Inside, number: u32) {
    let open = inside.groups.borrow_mut().remove(&number);
    if let Some(group) = open {
        group.shutdown().await;
        let _ = group.local().close().await;
    }
}

async fn open_group(
    world: &World,
    inside: &Rc<Inside>,
    number: u32,
    replica: ReplicaId,
    anyway: bool,
) -> Result<Opened, String> {
    let at = world.groups[number as usize].at;
    let kept = inside.wal.get_group(&at);
    if kept.as_ref().is_some_and(|kept| kept.replica != replica) {
        // Another life of the replica was here: its log is not this one's.
        wipe(inside, &at, number).await?;
    }
    let kept = kept.filter(|kept| kept.replica == replica);
    let topic = TopicName::new("t").map_err(|error| error.to_string())?;
    let options = OpenLog {
        shared: inside.shared.clone(),
        dir: log_dir(number),
        topic_partition: TopicPartition { topic, partition: at.partition },
        topic_id: at.topic_id,
        config: LogConfig {
            durability: world.durability,
            segment_bytes: SEGMENT_BYTES,
            retention_ms: None,
            retention_bytes: None,
            ..LogConfig::default()
        },
        stop: Stop::Unknown,
        flushed: Offset::ZERO,
        clean_end: None,
        now: TimestampMs(inside.runtime.clock.wall_ms()),
        with_entries: true,
    };
    // As a broker does: a snapshot that was taking the log's place is settled first.
    let log = snapshot_files::open_group(options, kept.as_ref(), inside.boot).await;
    let log = log.map_err(|error| error.to_string())?;
    if !anyway && !vouches(kept.as_ref(), inside.boot, &log) {
        let last = log.last_entry();
        log.close().await.map_err(|error| error.to_string())?;
        return Ok(Opened::Lost(last));
    }
    let settings = GroupSettings {
        durability: world.durability,
        ticks: if world.own_ticks { Ticks::Own } else { Ticks::Served },
        ..GroupSettings::default()
    };
    // The first incarnations found the group; whoever comes later is told.
    let partition = world.groups[number as usize].partition.borrow().clone();
    let founders = partition.founders_with(replica).to_vec();
    RaftGroup::open(OpenGroup {
        at,
        replica,
        log,
        wal: inside.wal.clone(),
        runtime: inside.runtime.clone(),
        transport: world.transport(replica, number),
        settings,
        boot: inside.boot,
        founders,
    })
    .await
    .map(Opened::Group)
    .map_err(|error| error.to_string())
}

fn log_dir(number: u32) -> PathBuf {
    PathBuf::from(DATA_DIR).join(format!("t-{number}"))
}

pub(super) fn name(node: NodeId) -> String {
    format!("node {node}")
}

/// The reign of a replica's newest vote, as its write-ahead file holds it, and whom it voted for there. Somebody whom a
/// quorum has elected meanwhile is no vote of its own.
pub(super) fn vote(inside: &Inside, at: &TopicIdPartition) -> (LeaderEpoch, Option<ReplicaId>) {
    inside
        .wal
        .get_group(at)
        .map_or((LeaderEpoch(0), None), |kept| (kept.term, kept.voted_for.filter(|_| !kept.vote_committed)))
}
