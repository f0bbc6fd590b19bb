//! The network between replicas: messages that take their time, get lost, come late, come twice.
//!
//! Calls on one (to, lane, group) start at the receiver in the order they were made, as the contract of [`Transport`]
//! says; what the caller has given up, and what comes twice, may come at any time.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

use ouzel_model::{NodeId, ReplicaId, TopicIdPartition};
use ouzel_raft::transport::{CallError, Lane, LocalBoxFuture, PeerMessage, Transport};
use ouzel_runtime::Clock;
use ouzel_runtime::clock::Instant;
use ouzel_runtime::sim::Rng;
use tokio::sync::{Notify, oneshot};

use super::world::World;

/// A vote or a heartbeat that has no answer by then has failed.
const CALL_TIME_MAX: Duration = Duration::from_millis(1000);
/// So has everything else: a slow disk is no dead peer.
const DATA_TIME_MAX: Duration = Duration::from_secs(10);
/// What was given up may still come, this much later.
const LATE_MAX_MS: u64 = 3000;

type Answer = oneshot::Sender<Result<PeerMessage, CallError>>;

/// Between whom nothing passes, what is slow, and how unreliable the rest is.
pub(super) struct Network {
    clock: Clock,
    state: RefCell<State>,
    wake: Notify,
}

struct State {
    rng: Rng,
    cut: BTreeSet<(NodeId, NodeId)>,
    slow: BTreeMap<(NodeId, NodeId), Duration>,
    latency_max: Duration,
    /// Of a thousand messages: lost, late, twice.
    lost: u64,
    late: u64,
    twice: u64,
    flights: BinaryHeap<Reverse<Flight>>,
    count: u64,
    /// When the newest message of a line arrives: none overtakes it.
    lines: BTreeMap<(NodeId, NodeId, Lane, u32), Instant>,
}

/// A message under way.
struct Flight {
    at: Instant,
    nth: u64,
    from: ReplicaId,
    to: ReplicaId,
    group: u32,
    cargo: Cargo,
}

enum Cargo {
    Call(PeerMessage, Option<Answer>),
    Answer(Result<PeerMessage, CallError>, Answer),
}

impl PartialEq for Flight {
    fn eq(&self, other: &Flight) -> bool {
        (self.at, self.nth) == (other.at, other.nth)
    }
}

impl Eq for Flight {}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Flight) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flight {
    fn cmp(&self, other: &Flight) -> std::cmp::Ordering {
        (self.at, self.nth).cmp(&(other.at, other.nth))
    }
}

impl Network {
    pub(super) fn new(clock: Clock, mut rng: Rng) -> Network {
        let latency_max = Duration::from_micros(200 + rng.below(8000));
        let (lost, late, twice) = (rng.below(20), rng.below(20), rng.below(20));
        Network {
            clock,
            state: RefCell::new(State {
                rng,
                cut: BTreeSet::new(),
                slow: BTreeMap::new(),
                latency_max,
                lost,
                late,
                twice,
                flights: BinaryHeap::new(),
                count: 0,
                lines: BTreeMap::new(),
            }),
            wake: Notify::new(),
        }
    }

    pub(super) fn is_open(&self, from: NodeId, to: NodeId) -> bool {
        !self.state.borrow().cut.contains(&(from, to))
    }

    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        self.state.borrow_mut().cut.insert((from, to));
    }

    pub(super) fn repair(&self, from: NodeId, to: NodeId) {
        self.state.borrow_mut().cut.remove(&(from, to));
    }

    pub(super) fn slow(&self, from: NodeId, to: NodeId, latency_max: Duration) {
        self.state.borrow_mut().slow.insert((from, to), latency_max);
    }

    pub(super) fn fast(&self, from: NodeId, to: NodeId) {
        self.state.borrow_mut().slow.remove(&(from, to));
    }

    /// Ends all faults, chance losses included.
    pub(super) fn heal(&self) {
        let mut state = self.state.borrow_mut();
        state.cut.clear();
        state.slow.clear();
        (state.lost, state.late, state.twice) = (0, 0, 0);
    }

    fn send(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        group: u32,
        lane: Lane,
        message: PeerMessage,
        answer: Answer,
    ) {
        let now = self.clock.now();
        let mut state = self.state.borrow_mut();
        let chance = state.rng.below(1000);
        let (lost, late, twice) = (state.lost, state.late, state.twice);
        let latency = state.latency(from.node, to.node);
        if chance < lost {
            // The caller waits for its answer until its time is over.
            return;
        }
        if chance < lost + late {
            let after = CALL_TIME_MAX + Duration::from_millis(state.rng.below(LATE_MAX_MS));
            state.fly(now + after, from, to, group, Cargo::Call(message, None));
            return;
        }
        if chance < lost + late + twice {
            let after = Duration::from_millis(state.rng.below(LATE_MAX_MS));
            state.fly(now + after, from, to, group, Cargo::Call(message.clone(), None));
        }
        let line = (from.node, to.node, lane, group);
        let at = (now + latency).max(state.lines.get(&line).copied().unwrap_or(now));
        state.lines.insert(line, at);
        state.fly(at, from, to, group, Cargo::Call(message, Some(answer)));
        drop(state);
        self.wake.notify_one();
    }

    fn send_back(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        group: u32,
        message: Result<PeerMessage, CallError>,
        answer: Answer,
    ) {
        let mut state = self.state.borrow_mut();
        let lost = state.lost;
        if state.rng.chance(lost, 1000) {
            return;
        }
        let at = self.clock.now() + state.latency(from.node, to.node);
        state.fly(at, from, to, group, Cargo::Answer(message, answer));
        drop(state);
        self.wake.notify_one();
    }
}

impl State {
    fn latency(&mut self, from: NodeId, to: NodeId) -> Duration {
        let latency_max = self.slow.get(&(from, to)).copied().unwrap_or(self.latency_max);
        Duration::from_micros(1 + self.rng.below(u64::try_from(latency_max.as_micros()).unwrap_or(1)))
    }

    fn fly(&mut self, at: Instant, from: ReplicaId, to: ReplicaId, group: u32, cargo: Cargo) {
        self.count += 1;
        self.flights.push(Reverse(Flight { at, nth: self.count, from, to, group, cargo }));
    }

    fn take_due(&mut self, now: Instant) -> Result<Flight, Option<Instant>> {
        match self.flights.peek() {
            Some(Reverse(flight)) if flight.at <= now => {}
            Some(Reverse(flight)) => return Err(Some(flight.at)),
            None => return Err(None),
        }
        self.flights.pop().map(|Reverse(flight)| flight).ok_or(None)
    }
}

impl World {
    /// Carries messages until the run ends.
    pub(super) async fn carry(self) {
        loop {
            let now = self.clock().now();
            let due = self.network.state.borrow_mut().take_due(now);
            match due {
                Ok(flight) => self.arrive(flight),
                Err(next) => {
                    let woken = self.network.wake.notified();
                    let Some(next) = next else {
                        woken.await;
                        continue;
                    };
                    tokio::select! {
                        biased;
                        () = woken => {}
                        () = self.clock().sleep_until(next) => {}
                    }
                }
            }
        }
    }

    fn arrive(&self, flight: Flight) {
        let Flight { from, to, group, cargo, .. } = flight;
        if !self.network.is_open(from.node, to.node) {
            return;
        }
        match cargo {
            // Whoever asked may be gone.
            Cargo::Answer(message, answer) => {
                let _ = answer.send(message);
            }
            Cargo::Call(message, answer) => self.arrive_at(from, to, group, message, answer),
        }
    }

    fn arrive_at(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        group: u32,
        message: PeerMessage,
        answer: Option<Answer>,
    ) {
        let node = &self.nodes[self.place_of(to.node)];
        let world = self.clone();
        let reply = move |message: Result<PeerMessage, CallError>| {
            if let Some(answer) = answer {
                world.network.send_back(to, from, group, message, answer);
            }
        };
        let inbox = node.inbox.borrow().clone();
        let Some(inbox) = inbox else {
            reply(Err(CallError::Unreachable(format!("{} is down", to.node))));
            return;
        };
        let sent = inbox.send(Box::new(move |inside| {
            let found = inside.group(group).filter(|group| group.replica() == to);
            let handled = found.map(|found| found.handle(from, message));
            Box::pin(async move {
                match handled {
                    Some(handled) => reply(Ok(handled.await)),
                    None => reply(Err(CallError::Refused(format!("{to} is not here")))),
                }
            })
        }));
        // It has just ended: nobody answers.
        drop(sent);
    }

    /// A replica's way to the others of its group.
    pub(super) fn transport(&self, from: ReplicaId, group: u32) -> Rc<dyn Transport> {
        Rc::new(Line { world: self.clone(), from, number: group })
    }
}

struct Line {
    world: World,
    from: ReplicaId,
    number: u32,
}

impl Transport for Line {
    fn call(
        &self,
        to: ReplicaId,
        _group: TopicIdPartition,
        lane: Lane,
        message: PeerMessage,
    ) -> LocalBoxFuture<Result<PeerMessage, CallError>> {
        let clock = self.world.clock().clone();
        let (answer, answered) = oneshot::channel();
        let limit = if lane == Lane::Control { CALL_TIME_MAX } else { DATA_TIME_MAX };
        let deadline = clock.now() + limit;
        self.world.network.send(self.from, to, self.number, lane, message, answer);
        Box::pin(async move {
            if let Ok(Ok(answer)) = clock.timeout(limit, answered).await {
                return answer;
            }
            // A lost message is noticed by the time that passes.
            clock.sleep_until(deadline).await;
            Err(CallError::TimedOut)
        })
    }
}
