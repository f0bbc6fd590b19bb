//! A network in memory between the replicas of one thread, with the faults of a real one.
//!
//! Delay, loss, duplication, reordering and cuts are drawn from the runtime's entropy, so a run repeats itself from its
//! seed. Without faults, calls of one lane start at the receiver in the order they were made, as [`Transport`] promises.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::{Rc, Weak};
use std::time::Duration;

use ouzel_model::{NodeId, ReplicaId, TopicIdPartition};
use ouzel_runtime::Runtime;
use ouzel_runtime::clock::Instant;
use tokio::sync::oneshot;

use crate::group::RaftGroup;
use crate::transport::{CallError, Lane, LocalBoxFuture, PeerMessage, Transport};

/// How long the caller of a lost message waits.
const LOST_AFTER: Duration = Duration::from_millis(500);

/// What the network does to messages; chances are per thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Each way takes between these.
    pub delay: (Duration, Duration),
    /// Messages, and answers, that never arrive.
    pub loss: u64,
    /// Messages that arrive twice.
    pub duplication: u64,
    /// Messages that may overtake those before them.
    pub reordering: u64,
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct MemoryNetwork {
    inner: Rc<Net>,
}

struct Net {
    runtime: Runtime,
    faults: Cell<Faults>,
    groups: RefCell<BTreeMap<(NodeId, TopicIdPartition), RaftGroup>>,
    /// How often a node has left.
    lives: RefCell<BTreeMap<NodeId, u32>>,
    /// One-way cuts.
    cuts: RefCell<BTreeSet<(NodeId, NodeId)>>,
    /// Nodes to be cut off after so many answers, from whom.
    fuses: RefCell<BTreeMap<NodeId, (u32, Vec<NodeId>)>>,
    ways: RefCell<BTreeMap<Way, VecDeque<Travelling>>>,
    /// By lane, in the order of [`Lane`].
    delivered: [Cell<u64>; 3],
    /// How much longer a message of the lane of recovery takes.
    recovery_pace: Cell<Duration>,
}

/// What keeps its order.
type Way = (NodeId, ReplicaId, Lane, TopicIdPartition);

struct Travelling {
    arrives_at: Instant,
    message: PeerMessage,
    tell: Option<oneshot::Sender<Result<PeerMessage, CallError>>>,
}

impl MemoryNetwork {
    /// A network without faults.
    pub fn new(runtime: Runtime) -> MemoryNetwork {
        MemoryNetwork {
            inner: Rc::new(Net {
                runtime,
                faults: Cell::default(),
                groups: RefCell::default(),
                lives: RefCell::default(),
                cuts: RefCell::default(),
                fuses: RefCell::default(),
                ways: RefCell::default(),
                delivered: Default::default(),
                recovery_pace: Cell::default(),
            }),
        }
    }

    /// A node's way into the network, until it [leaves](MemoryNetwork::leave).
    pub fn transport(&self, from: NodeId) -> Rc<dyn Transport> {
        let life = self.inner.lives.borrow().get(&from).copied().unwrap_or(0);
        Rc::new(From { net: self.inner.clone(), node: from, life })
    }

    /// A replica answers from now on.
    pub fn join(&self, group: &RaftGroup) {
        self.inner.groups.borrow_mut().insert((group.replica().node, group.at()), group.clone());
    }

    /// A node's process is gone: its replicas answer no more, and what still runs of it is not heard.
    pub fn leave(&self, node: NodeId) {
        *self.inner.lives.borrow_mut().entry(node).or_default() += 1;
        self.inner.groups.borrow_mut().retain(|(known, _), _| *known != node);
    }

    /// Changes what happens to messages from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.inner.faults.set(faults);
    }

    /// Lets nothing through from one node to another.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.inner.cuts.borrow_mut().insert((from, to));
    }

    /// Lets nothing through between a node and any of the others.
    pub fn isolate(&self, node: NodeId, others: impl IntoIterator<Item = NodeId>) {
        for other in others.into_iter().filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// As [`MemoryNetwork::isolate`], once `answers` more answers of the node have got through.
    pub fn isolate_after(&self, node: NodeId, others: impl IntoIterator<Item = NodeId>, answers: u32) {
        let others = others.into_iter().collect();
        self.inner.fuses.borrow_mut().insert(node, (answers, others));
    }

    /// Ends all cuts.
    pub fn heal(&self) {
        self.inner.cuts.borrow_mut().clear();
    }

    /// Messages handed to their receivers so far.
    pub fn delivered(&self) -> u64 {
        self.inner.delivered.iter().map(Cell::get).sum()
    }

    /// Those of one lane.
    pub fn delivered_in(&self, lane: Lane) -> u64 {
        self.inner.delivered[lane as usize].get()
    }

    /// Holds every message of the lane of recovery back for so long, as a rate does.
    pub fn set_recovery_pace(&self, pace: Duration) {
        self.inner.recovery_pace.set(pace);
    }
}

struct From {
    net: Rc<Net>,
    node: NodeId,
    life: u32,
}

impl Transport for From {
    fn call(
        &self,
        to: ReplicaId,
        group: TopicIdPartition,
        lane: Lane,
        message: PeerMessage,
    ) -> LocalBoxFuture<Result<PeerMessage, CallError>> {
        let net = &self.net;
        if net.lives.borrow().get(&self.node).is_some_and(|life| *life != self.life) {
            let error = CallError::Unreachable(format!("{} is gone", self.node));
            return Box::pin(std::future::ready(Err(error)));
        }
        let (tell, told) = oneshot::channel();
        let way = (self.node, to, lane, group);
        let faults = net.faults.get();
        if net.chance(faults.duplication) {
            net.send(way, message.clone(), None);
        }
        net.send(way, message, Some(tell));
        Box::pin(async move { told.await.unwrap_or(Err(CallError::TimedOut)) })
    }
}

impl Net {
    fn chance(&self, per_mille: u64) -> bool {
        per_mille > 0 && self.runtime.entropy.u64() % 1000 < per_mille
    }

    fn delay(&self) -> Duration {
        let (least, most) = self.faults.get().delay;
        let span = u64::try_from((most.saturating_sub(least)).as_micros()).unwrap_or(0);
        if span == 0 {
            return least;
        }
        least + Duration::from_micros(self.runtime.entropy.u64() % (span + 1))
    }

    fn send(
        self: &Rc<Self>,
        way: Way,
        message: PeerMessage,
        tell: Option<oneshot::Sender<Result<PeerMessage, CallError>>>,
    ) {
        let faults = self.faults.get();
        if self.chance(faults.loss) {
            ouzel_runtime::spawn(self.clone().lose(tell));
            return;
        }
        let pace = if way.2 == Lane::Recovery { self.recovery_pace.get() } else { Duration::ZERO };
        let arrives_at = self.runtime.clock.now() + self.delay() + pace;
        let travelling = Travelling { arrives_at, message, tell };
        if self.chance(faults.reordering) {
            ouzel_runtime::spawn(self.clone().deliver(way, travelling));
            return;
        }
        let mut ways = self.ways.borrow_mut();
        let queue = ways.entry(way).or_default();
        queue.push_back(travelling);
        if queue.len() == 1 {
            ouzel_runtime::spawn(deliver_all(Rc::downgrade(self), way));
        }
    }

    async fn lose(self: Rc<Self>, tell: Option<oneshot::Sender<Result<PeerMessage, CallError>>>) {
        self.runtime.clock.sleep(LOST_AFTER).await;
        if let Some(tell) = tell {
            // Nobody listening any more is no news.
            let _ = tell.send(Err(CallError::TimedOut));
        }
    }

    async fn deliver(self: Rc<Self>, way: Way, travelling: Travelling) {
        self.runtime.clock.sleep_until(travelling.arrives_at).await;
        self.hand_over(way, travelling);
    }

    /// Starts the message at its receiver; its answer travels in a task of its own.
    fn hand_over(self: &Rc<Self>, way: Way, travelling: Travelling) {
        let (from, to, lane, at) = way;
        let Travelling { message, tell, .. } = travelling;
        let is_cut = self.cuts.borrow().contains(&(from, to.node));
        let group = self.groups.borrow().get(&(to.node, at)).cloned().filter(|_| !is_cut);
        let Some(group) = group else {
            if let Some(tell) = tell {
                let _ = tell.send(Err(CallError::Unreachable(format!("{} does not answer", to.node))));
            }
            return;
        };
        let delivered = &self.delivered[lane as usize];
        delivered.set(delivered.get() + 1);
        let sender =
            crate::codec::envelope(&message).map_or(ReplicaId::first(from), |envelope| envelope.from);
        let answer = group.handle(sender, message);
        ouzel_runtime::spawn(self.clone().answer(from, to.node, answer, tell));
    }

    async fn answer(
        self: Rc<Self>,
        from: NodeId,
        to: NodeId,
        answer: LocalBoxFuture<PeerMessage>,
        tell: Option<oneshot::Sender<Result<PeerMessage, CallError>>>,
    ) {
        let answer = answer.await;
        self.runtime.clock.sleep(self.delay()).await;
        let is_cut = self.cuts.borrow().contains(&(to, from));
        if is_cut || self.chance(self.faults.get().loss) {
            return self.lose(tell).await;
        }
        if let Some(tell) = tell {
            let _ = tell.send(Ok(answer));
        }
        self.burn_fuse(to);
    }

    /// An answer of a node got through.
    fn burn_fuse(&self, node: NodeId) {
        let mut fuses = self.fuses.borrow_mut();
        let Some((left, others)) = fuses.get_mut(&node) else { return };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return;
        }
        let mut cuts = self.cuts.borrow_mut();
        for other in others.drain(..).filter(|other| *other != node) {
            cuts.extend([(node, other), (other, node)]);
        }
        fuses.remove(&node);
    }
}

/// Hands over what travels one way, in order, until nothing does.
async fn deliver_all(net: Weak<Net>, way: Way) {
    loop {
        let Some(net) = net.upgrade() else { return };
        let arrives_at =
            net.ways.borrow().get(&way).and_then(|queue| queue.front()).map(|next| next.arrives_at);
        let Some(arrives_at) = arrives_at else { return };
        net.runtime.clock.sleep_until(arrives_at).await;
        let next =
            net.ways.borrow().get(&way).and_then(|queue| queue.front().map(|next| next.message.clone()));
        let Some(message) = next else { return };
        let travelling = {
            let mut ways = net.ways.borrow_mut();
            let queue = ways.entry(way).or_default();
            // Taken out only when it is handed over, so that nothing that comes meanwhile starts a second task.
            let tell = queue.front_mut().and_then(|next| next.tell.take());
            Travelling { arrives_at, message, tell }
        };
        net.hand_over(way, travelling);
        let mut ways = net.ways.borrow_mut();
        let is_empty = ways.get_mut(&way).is_none_or(|queue| {
            queue.pop_front();
            queue.is_empty()
        });
        if is_empty {
            ways.remove(&way);
            return;
        }
    }
}
