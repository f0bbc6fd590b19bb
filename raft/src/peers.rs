//! Connections between the nodes of a cluster.
//!
//! Each core has its [`Peers`]: one connection for each peer and lane, kept while there is something to say, with a
//! handshake that makes sure who is at either end ([`handshake`]), frames that carry messages without copying what
//! they carry, budgets for what waits and for what is received, and the side that is called ([`server`]). What messages
//! mean is known to the services above.
//!
//! Reading order: `frame`, [`handshake`], `socket`, `link` (who calls), [`server`] (who is called), `budget`,
//! [`counters`].

mod budget;
pub mod counters;
mod frame;
pub mod handshake;
mod link;
pub mod server;
mod socket;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use ouzel_model::NodeId;
use ouzel_runtime::Runtime;
use ouzel_runtime::net::Listener;
use tokio::sync::watch;

use self::budget::{ReceiveBudget, ReceiveBudgets};
use self::frame::Kind;
use self::handshake::{Hello, VERSIONS};
use self::link::{ConnectError, Link};
use self::server::{Arrived, Guests};
use crate::transport::{CallError, Lane, LocalBoxFuture, PeerMessage};

pub use self::budget::RecoveryRate;
pub use self::counters::{LinkCounters, LinkSample, ServerCounters};
pub use self::handshake::{NodeIdentity, Purpose, Refusal};
pub use self::server::{Admitted, PeerIdentity, PeerService, ServeResult};
pub use self::wire::Malformed;

/// Which part of a node a message is for.
pub mod service {
    /// Asks only whether the node is there; answered by [`Peers`](super::Peers) itself.
    pub const PING: u8 = 0;
    /// Claims about leaders.
    pub const GOSSIP: u8 = 1;
    /// What a node knows of a cluster; the only one that strangers may ask.
    pub const DISCOVER: u8 = 2;
    /// Messages of replicated groups.
    pub const RAFT: u8 = 3;
    /// Requests that one broker passes on to another.
    pub const CONTROL: u8 = 4;
    /// Pieces of snapshots.
    pub const SNAPSHOT: u8 = 5;
}

/// How peers talk.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// A frame may have this many bytes in all, either way.
    pub frame_bytes_max: usize,
    /// Whoever connects must say who it is within this time.
    pub handshake_timeout: Duration,
    /// A frame's payload must have come within this time of its header.
    pub frame_stall_max: Duration,
    /// After a failed attempt calls fail at once for this long at first, doubled with each further failure.
    pub backoff_min: Duration,
    /// A node id belongs to who was heard under it within this time: shorter than a restart takes, longer than several
    /// pings.
    pub identity_hold: Duration,
    /// Limits of each lane: control, data, recovery.
    pub lanes: [LaneConfig; 3],
}

/// Limits of a lane, for each core; those of what is sent, for each peer as well.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// A call without a time limit of its own fails after this long.
    pub call_timeout: Duration,
    /// From the start of connecting to the welcome.
    pub connect_timeout: Duration,
    /// The longest pause after attempts that failed.
    pub backoff_max: Duration,
    /// A connection from which nothing comes for this long, although it was asked, is given up.
    pub stall_max: Duration,
    /// Bytes of calls that wait to be written; more are refused.
    pub queued_bytes_max: usize,
    /// Bytes of calls that are written and not answered; more wait.
    pub in_flight_bytes_max: usize,
    /// Memory for messages that are being received or handled.
    pub receive_bytes_max: usize,
    /// Memory for answers that are being received.
    pub answer_bytes_max: usize,
}

impl Default for PeersConfig {
    fn default() -> PeersConfig {
        const MIB: usize = 1 << 20;
        let lane = |timeout_s, connect_ms, stall_s, mib: usize| LaneConfig {
            call_timeout: Duration::from_secs(timeout_s),
            connect_timeout: Duration::from_millis(connect_ms),
            backoff_max: Duration::from_millis(connect_ms / 3),
            stall_max: Duration::from_secs(stall_s),
            queued_bytes_max: 2 * mib * MIB,
            in_flight_bytes_max: mib * MIB,
            receive_bytes_max: 2 * mib * MIB,
            answer_bytes_max: mib * MIB,
        };
        PeersConfig {
            frame_bytes_max: 128 * MIB,
            handshake_timeout: Duration::from_secs(5),
            frame_stall_max: Duration::from_secs(30),
            backoff_min: Duration::from_millis(50),
            identity_hold: Duration::from_secs(1),
            // A stalled stream of entries must not be torn down for a slow disk; a stalled vote is not worth waiting for.
            lanes: [lane(10, 750, 3, 4), lane(30, 2000, 10, 16), lane(60, 2000, 20, 4)],
        }
    }
}

impl PeersConfig {
    /// The same, with no more than `bytes` for all that is received at one time, on each core: the lanes keep their
    /// shares. A larger message is still received, alone.
    pub fn within(mut self, bytes: usize) -> PeersConfig {
        let received: usize =
            self.lanes.iter().map(|lane| lane.receive_bytes_max + lane.answer_bytes_max).sum();
        let share = (bytes as f64 / received as f64).min(1.0);
        for lane in &mut self.lanes {
            lane.receive_bytes_max = (lane.receive_bytes_max as f64 * share) as usize;
            lane.answer_bytes_max = (lane.answer_bytes_max as f64 * share) as usize;
        }
        self
    }

    pub(crate) fn lane(&self, lane: Lane) -> &LaneConfig {
        &self.lanes[lane as usize]
    }
}

/// What becomes of connections to a peer; liveness judges by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A connection was welcomed.
    Connected,
    /// A connection that had been welcomed ended.
    Lost,
    /// The machine answers, but nobody listens: the process is gone.
    NobodyListens,
    /// The peer does not want this node.
    NotWelcome,
    /// Any other failure to connect.
    Failed,
}

/// Whoever wants to know what becomes of connections.
pub type LinkObserver = Rc<dyn Fn(NodeId, Lane, LinkEvent)>;

/// Whoever wants to know of members that take this node for one of theirs while it belongs to no cluster.
pub type StrayObserver = Rc<dyn Fn(&NodeIdentity)>;

/// One core's connections to the other nodes. Clones share them; when the last one is dropped, all end.
#[derive(Clone)]
pub struct Peers {
    handle: Rc<Handle>,
}

struct Handle {
    common: Rc<Common>,
}

/// What links and server share.
struct Common {
    runtime: Runtime,
    config: PeersConfig,
    identity: RefCell<NodeIdentity>,
    rate: RecoveryRate,
    budgets: ReceiveBudgets,
    addresses: RefCell<BTreeMap<NodeId, String>>,
    links: RefCell<BTreeMap<(NodeId, Lane), Rc<Link>>>,
    /// The process that last welcomed this node.
    processes: RefCell<BTreeMap<NodeId, u64>>,
    observer: RefCell<Option<LinkObserver>>,
    strays: RefCell<Option<StrayObserver>>,
    services: RefCell<BTreeMap<u8, Rc<dyn PeerService>>>,
    guests: RefCell<Guests>,
    served: Cell<ServerCounters>,
    /// Causes that have been logged: each is worth one line, however often it recurs.
    known_causes: RefCell<BTreeSet<String>>,
    stop: watch::Sender<bool>,
}

impl Peers {
    /// Connections of a node, of one core. Recovery goes at most as fast as `rate` says, which the cores share.
    pub fn new(runtime: Runtime, identity: NodeIdentity, config: PeersConfig, rate: RecoveryRate) -> Peers {
        let budgets = |bytes: fn(&LaneConfig) -> usize| {
            Rc::new([0, 1, 2].map(|lane: usize| ReceiveBudget::new(bytes(&config.lanes[lane]))))
        };
        let budgets = ReceiveBudgets {
            calls: budgets(|lane| lane.receive_bytes_max),
            answers: budgets(|lane| lane.answer_bytes_max),
        };
        let common = Common {
            runtime,
            config,
            identity: RefCell::new(identity),
            rate,
            budgets,
            addresses: RefCell::default(),
            links: RefCell::default(),
            processes: RefCell::default(),
            observer: RefCell::default(),
            strays: RefCell::default(),
            services: RefCell::default(),
            guests: RefCell::default(),
            served: Cell::default(),
            known_causes: RefCell::default(),
            stop: watch::Sender::new(false),
        };
        Peers { handle: Rc::new(Handle { common: Rc::new(common) }) }
    }

    fn common(&self) -> &Rc<Common> {
        &self.handle.common
    }

    /// Who this node is.
    pub fn identity(&self) -> NodeIdentity {
        self.common().identity()
    }

    /// Says which cluster this node belongs to, once that is known. Until then no peer is welcome but to discover.
    ///
    /// # Panics
    /// If it belongs to another one already.
    pub fn set_cluster_id(&self, cluster_id: &str) {
        let mut identity = self.common().identity.borrow_mut();
        let known = identity.cluster_id.get_or_insert_with(|| cluster_id.to_owned());
        assert_eq!(known, cluster_id, "a node belongs to one cluster for as long as it lives");
        drop(identity);
        self.common().links.borrow().values().for_each(|link| link.hurry());
    }

    /// Says where a peer listens (`HOST:PORT`). Connections there are to a former address go on while they serve.
    pub fn set_address(&self, node: NodeId, address: &str) {
        let common = self.common();
        common.addresses.borrow_mut().insert(node, address.to_owned());
        for lane in LANES {
            if let Some(link) = common.links.borrow().get(&(node, lane)) {
                link.set_address(address);
            }
        }
    }

    /// Ends all connections to a node that is no peer any more, and fails calls to it.
    pub fn forget(&self, node: NodeId) {
        let common = self.common();
        common.addresses.borrow_mut().remove(&node);
        common.processes.borrow_mut().remove(&node);
        for lane in LANES {
            let link = common.links.borrow_mut().remove(&(node, lane));
            if let Some(link) = link {
                link.stop();
            }
        }
    }

    /// Nodes whose address is known.
    pub fn known(&self) -> Vec<NodeId> {
        self.common().addresses.borrow().keys().copied().collect()
    }

    /// Sends a message, when called, and resolves with the answer; waits for it as long as the lane's limit says.
    ///
    /// Calls to one peer on one lane start there in the order they were made. Dropping the future gives up the answer:
    /// a message that has not left by then is not sent.
    pub fn call(
        &self,
        to: NodeId,
        lane: Lane,
        service: u8,
        message: PeerMessage,
    ) -> LocalBoxFuture<Result<PeerMessage, CallError>> {
        self.call_within(to, lane, service, message, self.common().config.lane(lane).call_timeout)
    }

    /// As [`Peers::call`], with a time limit of its own.
    pub fn call_within(
        &self,
        to: NodeId,
        lane: Lane,
        service: u8,
        message: PeerMessage,
        limit: Duration,
    ) -> LocalBoxFuture<Result<PeerMessage, CallError>> {
        let link = match self.common().link(to, lane) {
            Ok(link) => link,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let receiver = match link.call(service, message) {
            Ok(receiver) => receiver,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let clock = self.common().runtime.clock.clone();
        let deadline = clock.now() + limit;
        Box::pin(async move {
            let left = deadline.saturating_duration_since(clock.now());
            match clock.timeout(left, receiver).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(CallError::Unreachable("this node is stopping".to_owned())),
                Err(_) => {
                    link.timed_out();
                    Err(CallError::TimedOut)
                }
            }
        })
    }

    /// Resolves when calls of this lane would not queue up behind more than half of what may queue: who sends in bulk
    /// waits here before it reads what it will send.
    pub async fn has_room(&self, to: NodeId, lane: Lane) {
        let link = self.common().link(to, lane);
        if let Ok(link) = link {
            link.has_room().await;
        }
    }

    /// Asks whoever listens at `address` one question ([`service::DISCOVER`]), over a connection of its own. No cluster
    /// is needed on either side.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn discover(
        &self,
        address: &str,
        message: PeerMessage,
        limit: Duration,
    ) -> Result<(NodeIdentity, PeerMessage), CallError> {
        let clock = self.common().runtime.clock.clone();
        match clock.timeout(limit, self.ask(address, message)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::TimedOut),
        }
    }

    async fn ask(
        &self,
        address: &str,
        message: PeerMessage,
    ) -> Result<(NodeIdentity, PeerMessage), CallError> {
        let common = self.common();
        let unreachable = |error: &dyn fmt::Display| CallError::Unreachable(format!("{address}: {error}"));
        let stream = common.runtime.net.connect(address).await.map_err(|error| unreachable(&error))?;
        let hello = Hello {
            versions: VERSIONS,
            purpose: Purpose::Discover,
            sender: common.identity(),
            core: common.runtime.core.0,
            target: NodeId(-1),
        };
        let (mut reader, mut writer, welcome) =
            link::greet(stream, &hello, None).await.map_err(|error| match error {
                ConnectError::Refused(reason) => CallError::Refused(reason),
                ConnectError::NobodyListens(why) | ConnectError::Other(why) => unreachable(&why),
            })?;
        let mut chunks = VecDeque::from([frame::front(Kind::Call, service::DISCOVER, 0, &message)]);
        chunks.extend(message.bodies);
        writer.write(&mut chunks).await.map_err(|error| unreachable(&error))?;
        let header = reader.header(common.config.frame_bytes_max).await.map_err(|end| unreachable(&end))?;
        let payload = reader.payload(&header).await.map_err(|end| unreachable(&end))?;
        let answer = header.message(payload).map_err(|error| unreachable(&error))?;
        writer.shutdown().await;
        match header.kind {
            Kind::Answer => Ok((welcome.receiver, answer)),
            Kind::Declined => Err(CallError::Refused(String::from_utf8_lossy(&answer.head).into_owned())),
            kind => Err(unreachable(&format!("it answered with {kind:?}"))),
        }
    }

    /// Accepts connections and serves all of them on this core. Services registered with [`Peers::register`] come
    /// before `handler`.
    pub fn serve(&self, listener: Listener, handler: Rc<dyn PeerService>) {
        let common = self.common().clone();
        let place = move |arrived| {
            drop(ouzel_runtime::spawn(server::serve(common.clone(), arrived, handler.clone())));
        };
        drop(ouzel_runtime::spawn(server::accept(self.common().clone(), listener, Rc::new(place))));
    }

    /// As [`Peers::serve`], for a node of several cores: `place` gets each connection of another core than 0 and sends
    /// it to the core of its choice, always the same one for one sender's core, where [`Peers::serve_admitted`] takes
    /// it. What comes from a core 0, and who discovers, is served here: call this on core 0 only.
    pub fn serve_spread(
        &self,
        listener: Listener,
        handler: Rc<dyn PeerService>,
        place: Rc<dyn Fn(Admitted)>,
    ) {
        let common = self.common().clone();
        let place = move |arrived: Arrived| {
            if arrived.from.core == 0 {
                drop(ouzel_runtime::spawn(server::serve(common.clone(), arrived, handler.clone())));
                return;
            }
            match arrived.travel() {
                Ok(admitted) => place(admitted),
                Err(error) => {
                    tracing::warn!(%error, "a peer's connection could not be moved to another core")
                }
            }
        };
        drop(ouzel_runtime::spawn(server::accept(self.common().clone(), listener, Rc::new(place))));
    }

    /// Serves a connection that another core accepted.
    pub fn serve_admitted(&self, admitted: Admitted, handler: Rc<dyn PeerService>) {
        match Arrived::land(admitted) {
            Ok(arrived) => drop(ouzel_runtime::spawn(server::serve(self.common().clone(), arrived, handler))),
            Err(error) => tracing::warn!(%error, "a peer's connection could not be taken over"),
        }
    }

    /// Gives one service to a handler of its own.
    pub fn register(&self, service: u8, handler: Rc<dyn PeerService>) {
        self.common().services.borrow_mut().insert(service, handler);
    }

    /// Tells `observer` what becomes of connections from now on.
    pub fn observe(&self, observer: LinkObserver) {
        *self.common().observer.borrow_mut() = Some(observer);
    }

    /// Tells `observer` of members of a cluster that call this node while it belongs to none: its disk may have been
    /// wiped.
    pub fn observe_strays(&self, observer: StrayObserver) {
        *self.common().strays.borrow_mut() = Some(observer);
    }

    /// The process that last welcomed this node under a peer's number; another one than before has restarted.
    pub fn process_of(&self, node: NodeId) -> Option<u64> {
        self.common().processes.borrow().get(&node).copied()
    }

    /// A peer is taken for gone: its connections end and calls to it fail now, not when they time out.
    pub fn peer_down(&self, node: NodeId, why: &str) {
        for lane in LANES {
            let link = self.common().links.borrow().get(&(node, lane)).cloned();
            if let Some(link) = link {
                link.cut(why);
            }
        }
    }

    /// A peer is there: no pause stands between it and the next call.
    pub fn peer_up(&self, node: NodeId) {
        self.common().hurry(node);
    }

    /// Samples every link there is.
    pub fn links(&self) -> Vec<(NodeId, Lane, LinkSample)> {
        let links = self.common().links.borrow();
        links.iter().map(|((node, lane), link)| (*node, *lane, link.sample())).collect()
    }

    /// Samples what this core did as the one who is called.
    pub fn served(&self) -> ServerCounters {
        self.common().served.get()
    }

    /// Ends all connections, and fails all calls.
    pub fn stop(&self) {
        self.common().stop();
    }
}

const LANES: [Lane; 3] = [Lane::Control, Lane::Data, Lane::Recovery];
/// Causes worth a line each; beyond, somebody is playing.
const CAUSES_MAX: usize = 1024;

impl Common {
    fn identity(&self) -> NodeIdentity {
        self.identity.borrow().clone()
    }

    fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    fn link(self: &Rc<Common>, to: NodeId, lane: Lane) -> Result<Rc<Link>, CallError> {
        if let Some(link) = self.links.borrow().get(&(to, lane)) {
            return Ok(link.clone());
        }
        if *self.stop.borrow() {
            return Err(CallError::Unreachable("this node is stopping".to_owned()));
        }
        let address = self.addresses.borrow().get(&to).cloned();
        let Some(address) = address else {
            return Err(CallError::Unreachable(format!("the address of node {to} is not known")));
        };
        let link = Link::start(self.clone(), to, lane, address);
        self.links.borrow_mut().insert((to, lane), link.clone());
        Ok(link)
    }

    fn hurry(&self, node: NodeId) {
        for lane in LANES {
            if let Some(link) = self.links.borrow().get(&(node, lane)) {
                link.hurry();
            }
        }
    }

    fn met(&self, node: NodeId, process_id: u64) {
        self.processes.borrow_mut().insert(node, process_id);
    }

    fn event(&self, node: NodeId, lane: Lane, event: LinkEvent) {
        let observer = self.observer.borrow().clone();
        if let Some(observer) = observer {
            observer(node, lane, event);
        }
    }

    fn stray(&self, sender: &NodeIdentity) {
        if sender.cluster_id.is_some() && self.identity.borrow().cluster_id.is_none() {
            let observer = self.strays.borrow().clone();
            if let Some(observer) = observer {
                observer(sender);
            }
        }
    }

    fn note_refusal_of_ours(&self, peer: NodeId, reason: &str) {
        if self.is_news(format!("refused by {peer}: {reason}")) {
            tracing::warn!(%peer, %reason, "a peer refuses this node");
        }
    }

    fn is_news(&self, cause: String) -> bool {
        let mut known = self.known_causes.borrow_mut();
        known.len() < CAUSES_MAX && known.insert(cause)
    }

    fn count_served(&self, change: impl FnOnce(&mut ServerCounters)) {
        let mut served = self.served.get();
        change(&mut served);
        self.served.set(served);
    }

    fn stop(&self) {
        self.stop.send_replace(true);
        let links = std::mem::take(&mut *self.links.borrow_mut());
        links.values().for_each(|link| link.stop());
        // Whoever observes or serves may hold these peers.
        self.observer.take();
        self.strays.take();
        self.services.take();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.common.stop();
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("identity", &*self.common().identity.borrow()).finish()
    }
}
