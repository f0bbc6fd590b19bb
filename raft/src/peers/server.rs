//! The side that is called: accepts connections, judges who comes, hands their messages to services and sends what
//! these answer.
//!
//! Messages of a connection start in the order they came, each before the next one is read further than its header;
//! answers leave as they are ready. A connection that is replaced by a newer one of the same sender, lane and core
//! starts nothing more from the moment the newer one is welcomed: calls of one sender never start in the wrong order.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use ouzel_model::{NodeId, TopicId};
use ouzel_runtime::clock::Instant;
use ouzel_runtime::net::{Handoff, Listener, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::budget::Reserved;
use super::frame::{self, FrameError, HEADER_BYTES, Header, Kind};
use super::handshake::{self, HELLO_BYTES_MAX, Hello, Holder, MAGIC, Purpose, Refusal, Welcome};
use super::socket::{FrameReader, FrameWriter, ReadEnd};
use super::{Common, ServerCounters, service};
use crate::transport::{Lane, LocalBoxFuture, PeerMessage};

/// Connections that have not said who they are.
const GREETINGS_MAX: usize = 128;
/// Messages of one connection that are being handled, or whose answers have not left.
const CALLS_MAX: usize = 4096;
/// A message of somebody who may be a stranger is not longer than this.
const DISCOVER_FRAME_BYTES_MAX: usize = 64 * 1024;
/// One write gathers at most this much.
const GATHER_BYTES: usize = 1 << 20;
/// After a failed accept, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a service answers; the error is the reason for not taking the message, in words.
pub type ServeResult = Result<PeerMessage, String>;

/// Handles what peers send.
pub trait PeerService: 'static {
    /// Starts on a message: what must happen in the order of the messages happens before this returns, or at the first
    /// poll, which follows at once. The future is driven to its end even if the connection is gone by then.
    fn serve(&self, from: &PeerIdentity, service: u8, message: PeerMessage) -> LocalBoxFuture<ServeResult>;
}

/// Who is at the other end of an accepted connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its number; of who merely discovers, as it says itself, unjudged.
    pub node: NodeId,
    /// Its data directory.
    pub directory_id: TopicId,
    /// Its process.
    pub process_id: u64,
    /// The core it connected from.
    pub core: u16,
    /// What for.
    pub purpose: Purpose,
}

/// A connection that was accepted and judged on one core, on its way to the one that serves it; `Send`.
#[derive(Debug)]
pub struct Admitted {
    handoff: Handoff,
    from: PeerIdentity,
    replaced: watch::Receiver<bool>,
}

impl Admitted {
    /// Who is at the other end.
    pub fn from(&self) -> &PeerIdentity {
        &self.from
    }
}

/// Who is connected to this node.
#[derive(Default)]
pub(super) struct Guests {
    /// Who was heard under which node id.
    holders: BTreeMap<NodeId, Heard>,
    /// The newest connection of each sender, lane and core; set when a newer one replaces it.
    connections: BTreeMap<(NodeId, Lane, u16), watch::Sender<bool>>,
}

struct Heard {
    holder: Holder,
    at: Instant,
}

impl Guests {
    fn alive(&self, node: NodeId, now: Instant, hold: Duration) -> Option<Holder> {
        self.holders.get(&node).filter(|heard| now < heard.at + hold).map(|heard| heard.holder)
    }

    fn heard(&mut self, from: &PeerIdentity, now: Instant) {
        let holder = Holder { directory_id: from.directory_id, process_id: from.process_id };
        match self.holders.get_mut(&from.node) {
            Some(heard) if heard.holder == holder => heard.at = now,
            // What an older process sent before a newer one was admitted does not bring it back.
            Some(_) => {}
            None => drop(self.holders.insert(from.node, Heard { holder, at: now })),
        }
    }

    fn admit(&mut self, from: &PeerIdentity, lane: Lane, now: Instant) -> watch::Receiver<bool> {
        let holder = Holder { directory_id: from.directory_id, process_id: from.process_id };
        let before = self.holders.insert(from.node, Heard { holder, at: now });
        if before.is_some_and(|before| before.holder != holder) {
            let of_before = self.connections.extract_if(.., |(node, _, _), _| *node == from.node);
            of_before.for_each(|(_, replaced)| _ = replaced.send_replace(true));
        }
        let (replaced, receiver) = watch::channel(false);
        if let Some(older) = self.connections.insert((from.node, lane, from.core), replaced) {
            older.send_replace(true);
        }
        receiver
    }

    /// The connection over which a live peer speaks every moment is gone: so is the process, or it will be back.
    fn lost(&mut self, from: &PeerIdentity) {
        let holder = Holder { directory_id: from.directory_id, process_id: from.process_id };
        if self.holders.get(&from.node).is_some_and(|heard| heard.holder == holder) {
            self.holders.remove(&from.node);
        }
    }
}

/// Accepts until the peers stop, and gives each connection that is judged good to `place`.
pub(super) async fn accept(common: Rc<Common>, listener: Listener, place: Rc<dyn Fn(Arrived)>) {
    let greetings = Arc::new(Semaphore::new(GREETINGS_MAX));
    let mut stopping = common.stopping();
    loop {
        let permit = greetings.clone().acquire_owned().await.expect("it is never closed");
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                common.count_served(|counters| counters.accepted += 1);
                let (common, place) = (common.clone(), place.clone());
                drop(ouzel_runtime::spawn(async move {
                    let admitting = admit(&common, stream);
                    let admitted =
                        common.runtime.clock.timeout(common.config.handshake_timeout, admitting).await;
                    drop(permit);
                    match admitted {
                        Ok(Ok(arrived)) => place(arrived),
                        Ok(Err(NotAdmitted::Refused(refusal))) => {
                            common.count_served(|counters| counters.refused += 1);
                            if common.is_news(format!("refused {refusal}")) {
                                tracing::warn!(%address, %refusal, "a peer is refused");
                            }
                        }
                        Ok(Err(NotAdmitted::Stranger(why))) => {
                            stranger(&common, &address.ip().to_string(), &why)
                        }
                        Err(_) => stranger(&common, &address.ip().to_string(), "it said nothing in time"),
                    }
                }));
            }
            Err(error) => {
                if common.is_news(format!("accept {error}")) {
                    tracing::warn!(%error, "accepting a peer's connection failed");
                }
                common.runtime.clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn stranger(common: &Common, address: &str, why: &str) {
    common.count_served(|counters| counters.strangers += 1);
    if common.is_news(format!("stranger {address}")) {
        tracing::info!(%address, %why, "a connection to the peer listener is no peer's");
    }
}

/// A connection that was judged good, still on the core that accepted it.
pub(super) struct Arrived {
    stream: Stream,
    pub(super) from: PeerIdentity,
    replaced: watch::Receiver<bool>,
}

impl Arrived {
    pub(super) fn travel(self) -> io::Result<Admitted> {
        let Arrived { stream, from, replaced } = self;
        Ok(Admitted { handoff: stream.into_handoff()?, from, replaced })
    }

    pub(super) fn land(admitted: Admitted) -> io::Result<Arrived> {
        let Admitted { handoff, from, replaced } = admitted;
        Ok(Arrived { stream: handoff.into_stream()?, from, replaced })
    }
}

enum NotAdmitted {
    Stranger(String),
    Refused(Refusal),
}

impl<E: std::error::Error> From<E> for NotAdmitted {
    fn from(error: E) -> NotAdmitted {
        NotAdmitted::Stranger(error.to_string())
    }
}

async fn admit(common: &Rc<Common>, mut stream: Stream) -> Result<Arrived, NotAdmitted> {
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).await?;
    if magic != MAGIC {
        return Err(NotAdmitted::Stranger("its first bytes are not those of a peer".to_owned()));
    }
    stream.set_nodelay(true)?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    let header = Header::parse(&header, HELLO_BYTES_MAX)?;
    if header.kind != Kind::Hello {
        return Err(FrameError::Kind(header.kind as u8).into());
    }
    let mut payload = vec![0; header.payload_bytes as usize];
    stream.read_exact(&mut payload).await?;
    let hello = header.message(Bytes::from(payload))?.head;
    let judged = match handshake::common_version(Hello::decode_versions(&hello)?) {
        Err(refusal) => Err(refusal),
        Ok(_) => {
            let hello = Hello::decode(&hello)?;
            let now = common.runtime.clock.now();
            let holder = common.guests.borrow().alive(hello.sender.node, now, common.config.identity_hold);
            let judged = handshake::judge(&common.identity(), &hello, holder);
            if judged.is_err() {
                common.stray(&hello.sender);
            }
            judged.map(|version| (version, hello))
        }
    };
    let (version, hello) = match judged {
        Ok(judged) => judged,
        Err(refusal) => {
            let head = PeerMessage { head: refusal.encode(), bodies: Vec::new() };
            stream.write_all(&frame::front(Kind::Refusal, 0, 0, &head)).await?;
            stream.shutdown().await?;
            return Err(NotAdmitted::Refused(refusal));
        }
    };
    let sender = hello.sender;
    let from = PeerIdentity {
        node: sender.node,
        directory_id: sender.directory_id,
        process_id: sender.process_id,
        core: hello.core,
        purpose: hello.purpose,
    };
    let replaced = match hello.purpose {
        // Before the welcome: what the older connection still holds must not start after what this one brings.
        Purpose::Member(lane) => {
            let now = common.runtime.clock.now();
            common.guests.borrow_mut().admit(&from, lane, now)
        }
        Purpose::Discover => watch::channel(false).1,
    };
    let welcome = Welcome { version, receiver: common.identity() };
    let head = PeerMessage { head: welcome.encode(), bodies: Vec::new() };
    stream.write_all(&frame::front(Kind::Welcome, 0, 0, &head)).await?;
    if matches!(hello.purpose, Purpose::Member(_)) {
        // Who calls us is there to be called.
        common.hurry(from.node);
    }
    Ok(Arrived { stream, from, replaced })
}

/// Serves a connection until either side ends it.
pub(super) async fn serve(common: Rc<Common>, arrived: Arrived, handler: Rc<dyn PeerService>) {
    let Arrived { stream, from, mut replaced } = arrived;
    let lane = match from.purpose {
        Purpose::Member(lane) => lane,
        Purpose::Discover => Lane::Control,
    };
    let (read, write) = stream.into_split();
    let rate = (lane == Lane::Recovery).then(|| (common.rate.clone(), common.runtime.clock.clone()));
    let outbox = Rc::new(Outbox::default());
    let calls = Calls {
        common: common.clone(),
        handler,
        from: from.clone(),
        lane,
        outbox: outbox.clone(),
        replaced: replaced.clone(),
    };
    let mut stopping = common.stopping();
    // The sender is dropped with the entry of a connection that is replaced after this one: nobody is left to tell.
    let replaced = async {
        if replaced.wait_for(|replaced| *replaced).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let why: String = tokio::select! {
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => "this node is stopping".to_owned(),
        () = replaced => "a newer connection replaces it".to_owned(),
        error = outbox.write(&common, FrameWriter::new(write, rate)) => error.to_string(),
        end = calls.read(FrameReader::new(read)) => {
            if let ReadEnd::Frame(error) = &end {
                common.count_served(|counters| counters.malformed += 1);
                tracing::warn!(node = %from.node, ?lane, %error, "a peer sent nonsense, its connection is closed");
            }
            end.to_string()
        }
    };
    outbox.close();
    if from.purpose == Purpose::Member(Lane::Control) && from.core == 0 {
        common.guests.borrow_mut().lost(&from);
    }
    tracing::debug!(node = %from.node, ?lane, core = from.core, %why, "connection of a peer ended");
}

struct Calls {
    common: Rc<Common>,
    handler: Rc<dyn PeerService>,
    from: PeerIdentity,
    lane: Lane,
    outbox: Rc<Outbox>,
    replaced: watch::Receiver<bool>,
}

/// What a message holds until its answer has left.
struct Held {
    _permit: OwnedSemaphorePermit,
    _memory: Option<Reserved>,
}

impl Calls {
    async fn read(&self, mut reader: FrameReader) -> ReadEnd {
        let permits = Arc::new(Semaphore::new(CALLS_MAX));
        loop {
            let permit = permits.clone().acquire_owned().await.expect("it is never closed");
            if let Err(end) = self.read_one(&mut reader, permit).await {
                return end;
            }
        }
    }

    async fn read_one(&self, reader: &mut FrameReader, permit: OwnedSemaphorePermit) -> Result<(), ReadEnd> {
        let common = &self.common;
        let bytes_max = match self.from.purpose {
            Purpose::Member(_) => common.config.frame_bytes_max,
            Purpose::Discover => DISCOVER_FRAME_BYTES_MAX,
        };
        let header = reader.header(bytes_max).await?;
        let bytes = HEADER_BYTES + header.payload_bytes as usize;
        common.count_served(|counters| counters.received_bytes += bytes as u64);
        if matches!(self.from.purpose, Purpose::Member(_)) {
            common.guests.borrow_mut().heard(&self.from, common.runtime.clock.now());
        }
        match header.kind {
            Kind::Call => {}
            Kind::Ping if header.payload_bytes == 0 => {
                self.outbox.push(
                    Kind::Pong,
                    0,
                    PeerMessage::default(),
                    Held { _permit: permit, _memory: None },
                );
                return Ok(());
            }
            kind => return Err(FrameError::Kind(kind as u8).into()),
        }
        let memory = common.budgets.calls[self.lane as usize].reserve(header.payload_bytes as usize).await;
        let payload =
            common.runtime.clock.timeout(common.config.frame_stall_max, reader.payload(&header)).await;
        let payload = payload.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let message = header.message(payload)?;
        if *self.replaced.borrow() {
            return Err(ReadEnd::Closed);
        }
        let held = Held { _permit: permit, _memory: Some(memory) };
        self.start(header, message, held).await;
        Ok(())
    }

    /// Starts on a message; what is ready at once is answered without a task of its own.
    async fn start(&self, header: Header, message: PeerMessage, held: Held) {
        self.common.count_served(|counters| counters.calls += 1);
        let mut serving = self.serving(header.service, message);
        let first = std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut serving).poll(context))).await;
        let (common, outbox, correlation) = (self.common.clone(), self.outbox.clone(), header.correlation);
        match first {
            Poll::Ready(result) => answer(&common, &outbox, correlation, result, held),
            Poll::Pending => drop(ouzel_runtime::spawn(async move {
                let result = serving.await;
                answer(&common, &outbox, correlation, result, held);
            })),
        }
    }

    fn serving(&self, service: u8, message: PeerMessage) -> LocalBoxFuture<ServeResult> {
        if self.from.purpose == Purpose::Discover && service != service::DISCOVER {
            let why = format!("service {service} is for members of the cluster");
            return Box::pin(std::future::ready(Err(why)));
        }
        if service == service::PING {
            return Box::pin(std::future::ready(Ok(PeerMessage::default())));
        }
        let own = self.common.services.borrow().get(&service).cloned();
        own.unwrap_or_else(|| self.handler.clone()).serve(&self.from, service, message)
    }
}

fn answer(common: &Common, outbox: &Outbox, correlation: u64, result: ServeResult, held: Held) {
    let (kind, message) = match result {
        Ok(message) if frame::fits(&message, common.config.frame_bytes_max) => (Kind::Answer, message),
        Ok(message) => {
            let why = format!("the answer has {} bytes, more than a frame", frame::frame_bytes(&message));
            (Kind::Declined, PeerMessage { head: why.into(), bodies: Vec::new() })
        }
        Err(why) => (Kind::Declined, PeerMessage { head: why.into(), bodies: Vec::new() }),
    };
    if kind == Kind::Declined {
        common.count_served(|counters| counters.declined += 1);
    }
    outbox.push(kind, correlation, message, held);
}

/// Answers on their way out.
#[derive(Default)]
struct Outbox {
    queue: RefCell<VecDeque<Leaving>>,
    closed: Cell<bool>,
    bell: Notify,
}

struct Leaving {
    front: Bytes,
    bodies: Vec<Bytes>,
    held: Held,
}

impl Outbox {
    fn push(&self, kind: Kind, correlation: u64, message: PeerMessage, held: Held) {
        if !self.closed.get() {
            let front = frame::front(kind, 0, correlation, &message);
            self.queue.borrow_mut().push_back(Leaving { front, bodies: message.bodies, held });
            self.bell.notify_one();
        }
    }

    fn close(&self) {
        self.closed.set(true);
        self.queue.borrow_mut().clear();
    }

    async fn write(&self, common: &Common, mut writer: FrameWriter) -> io::Error {
        let mut chunks = VecDeque::new();
        let mut held = Vec::new();
        loop {
            let mut bytes = 0;
            while bytes < GATHER_BYTES
                && let Some(leaving) = self.queue.borrow_mut().pop_front()
            {
                bytes += leaving.front.len() + leaving.bodies.iter().map(Bytes::len).sum::<usize>();
                chunks.push_back(leaving.front);
                chunks.extend(leaving.bodies);
                held.push(leaving.held);
            }
            if bytes == 0 {
                self.bell.notified().await;
                continue;
            }
            if let Err(error) = writer.write(&mut chunks).await {
                return error;
            }
            held.clear();
            common.count_served(|counters: &mut ServerCounters| counters.sent_bytes += bytes as u64);
        }
    }
}
