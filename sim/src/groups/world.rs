//! What a run is about: its nodes, its groups, and what everybody notes.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::Partition;
use ouzel_model::{NodeId, Offset, PartitionIndex, TopicId, TopicIdPartition};
use ouzel_raft::transport::LocalBoxFuture;
use ouzel_runtime::clock::Instant;
use ouzel_runtime::sim::{Pause, Rng, SimClock, SimDisk};
use ouzel_runtime::{Clock, Runtime};
use ouzel_storage::Durability;
use tokio::sync::{mpsc, oneshot};

use super::network::Network;
use super::process::{Inside, Job, Slot};
use super::run::Planted;
use crate::check::Verdict;
use crate::check::history::{History, PartitionId, ProducerLife, Session, Span, Value};
use crate::check::verdict::Kind;
use crate::events::Events;
use crate::trace::Trace;
use crate::watch::Watch;

/// How long a client waits for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(1500);

/// A run; clones are the same.
#[derive(Clone)]
pub(super) struct World {
    inner: Rc<Inner>,
}

pub(super) struct Inner {
    pub(super) runtime: Runtime,
    started: Instant,
    pub(super) durability: Durability,
    /// Whether groups tick themselves, or are served by their node.
    pub(super) own_ticks: bool,
    /// Whether the heads of logs become data, and now and then go.
    pub(super) retains: bool,
    pub(super) planted: Option<Planted>,
    pub(super) seed: u64,
    rng: RefCell<Rng>,
    trace: Trace,
    pub(super) nodes: Vec<Node>,
    pub(super) groups: Vec<Group>,
    pub(super) network: Network,
    pub(super) history: RefCell<History>,
    pub(super) watch: RefCell<Watch>,
    pub(super) events: Events,
    pub(super) verdict: RefCell<Verdict>,
    pub(super) load: Cell<bool>,
    /// Whether a disk forgot what it had said to be safe.
    pub(super) lies_told: Cell<bool>,
    counters: RefCell<[u64; 3]>,
}

/// A machine and the process on it.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) disk: SimDisk,
    pub(super) clock: SimClock,
    pub(super) pause: Pause,
    /// Counts the processes; 0 before the first.
    pub(super) life: Cell<u32>,
    pub(super) slot: RefCell<Option<Rc<Slot>>>,
    pub(super) inbox: RefCell<Option<mpsc::UnboundedSender<Job>>>,
    pub(super) inside: RefCell<Option<Rc<Inside>>>,
}

impl Node {
    pub(super) fn is_up(&self) -> bool {
        self.slot.borrow().is_some()
    }
}

/// A replicated log.
pub(super) struct Group {
    pub(super) at: TopicIdPartition,
    /// Where it is to be, as the controller has it.
    pub(super) partition: RefCell<Partition>,
    /// Since when all have answered to whoever asks what becomes of a replica.
    pub(super) asked_since: Cell<Option<Duration>>,
    /// Who led when it was last seen.
    pub(super) leader: Cell<usize>,
    /// Up to where somebody was ever asked to delete its records.
    pub(super) trimmed_to: Cell<Offset>,
}

/// What a run is made from.
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) groups: u32,
    pub(super) members: usize,
    pub(super) durability: Durability,
    pub(super) own_ticks: bool,
    pub(super) retains: bool,
    pub(super) planted: Option<Planted>,
}

impl World {
    pub(super) fn new(runtime: Runtime, plan: &Plan, trace: Trace) -> World {
        let rng = Rng::new(plan.seed).fork(0x30d);
        let nodes = (0..plan.nodes).map(|at| Node {
            id: NodeId(i32::try_from(at).unwrap_or_default() + 1),
            disk: SimDisk::new(Rng::new(plan.seed).fork(100 + at as u64).next()),
            clock: SimClock::new(),
            pause: Pause::default(),
            life: Cell::new(0),
            slot: RefCell::default(),
            inbox: RefCell::default(),
            inside: RefCell::default(),
        });
        let nodes: Vec<_> = nodes.collect();
        nodes.iter().for_each(|node| node.disk.set_lies(plan.planted == Some(Planted::Unflushed)));
        let groups = (0..plan.groups).map(|number| {
            let members = (0..plan.members).map(|at| nodes[(number as usize + at) % plan.nodes].id);
            Group {
                at: TopicIdPartition {
                    topic_id: TopicId([7; 16]),
                    partition: PartitionIndex(number.cast_signed()),
                },
                partition: RefCell::new(Partition::new(members.collect())),
                asked_since: Cell::new(None),
                leader: Cell::new(number as usize % plan.nodes),
                trimmed_to: Cell::new(Offset(0)),
            }
        });
        let groups = groups.collect();
        let network = Network::new(runtime.clock.clone(), rng.fork(1));
        World {
            inner: Rc::new(Inner {
                started: runtime.clock.now(),
                runtime,
                durability: plan.durability,
                own_ticks: plan.own_ticks,
                retains: plan.retains,
                planted: plan.planted,
                seed: plan.seed,
                rng: RefCell::new(rng),
                trace,
                nodes,
                groups,
                network,
                history: RefCell::default(),
                watch: RefCell::default(),
                events: Events::default(),
                verdict: RefCell::default(),
                load: Cell::new(true),
                lies_told: Cell::new(false),
                counters: RefCell::new([1; 3]),
            }),
        }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.runtime.clock
    }

    /// Virtual time since the start.
    pub(super) fn now(&self) -> Duration {
        self.runtime.clock.now() - self.started
    }

    pub(super) fn span_since(&self, begun: Duration) -> Span {
        Span { begun, ended: self.now() }
    }

    pub(super) async fn sleep_ms(&self, ms: u64) {
        self.runtime.clock.sleep(Duration::from_millis(ms)).await;
    }

    /// A generator of one's own.
    pub(super) fn fork(&self, stream: u64) -> Rng {
        self.rng.borrow().fork(stream)
    }

    pub(super) fn note(&self, who: &str, event: fmt::Arguments<'_>) {
        let now = i64::try_from(self.now().as_millis()).unwrap_or_default();
        self.trace.note(now, who, event);
    }

    pub(super) fn broken(&self, kind: Kind, facts: String) {
        self.note("judge", format_args!("VIOLATION {kind:?}: {facts}"));
        self.verdict.borrow_mut().broken(kind, facts);
    }

    /// Whether what a group promised may be lost by now.
    pub(super) fn is_loss_admitted(&self, group: u32) -> bool {
        self.lies_told.get() || self.watch.borrow().power.is_loss_admitted(group)
    }

    pub(super) fn next_value(&self) -> Value {
        Value(self.count(0))
    }

    pub(super) fn next_life(&self) -> ProducerLife {
        ProducerLife(self.count(1))
    }

    pub(super) fn next_session(&self) -> Session {
        Session(u32::try_from(self.count(2)).unwrap_or_default())
    }

    fn count(&self, of: usize) -> u64 {
        let mut counters = self.counters.borrow_mut();
        counters[of] += 1;
        counters[of] - 1
    }

    pub(super) fn partitions(&self) -> Vec<PartitionId> {
        (0..self.groups.len()).filter_map(|at| u32::try_from(at).ok()).map(PartitionId).collect()
    }

    /// The place of a node in the list.
    pub(super) fn place_of(&self, node: NodeId) -> usize {
        self.nodes.iter().position(|one| one.id == node).unwrap_or_default()
    }

    /// Has a node's process do something, as a client's request does; none when there is no answer in time.
    pub(super) async fn ask<T: 'static>(
        &self,
        node: usize,
        job: impl FnOnce(Rc<Inside>) -> LocalBoxFuture<T> + 'static,
    ) -> Option<T> {
        let latency = self.rng.borrow_mut().below(2000);
        self.runtime.clock.sleep(Duration::from_micros(latency)).await;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |inside| {
            let work = job(inside);
            Box::pin(async move {
                // Whoever gave up waiting does not want to know.
                let _ = answer.send(work.await);
            })
        });
        {
            let inbox = self.nodes[node].inbox.borrow();
            inbox.as_ref()?.send(job).ok()?;
        }
        self.runtime.clock.timeout(ANSWER_TIME_MAX, answered).await.ok()?.ok()
    }
}

impl std::ops::Deref for World {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}
