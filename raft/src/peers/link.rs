//! One lane to one peer, as the one who calls: a queue of calls, a connection while there is something to say, and
//! what of the calls is not answered yet.
//!
//! ```text
//!   call() ──► queue ──► written, in order ──► unanswered ──► answer
//!              │ waits for: a connection,      │ bounded in bytes
//!              │ room among the unanswered     │
//!              └── fails when connecting does  └── fails when the connection does
//! ```
//!
//! A call is either failed or written once, never written twice: what a lost connection took with it may have been
//! carried out, and only the caller knows whether to repeat it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ouzel_model::NodeId;
use ouzel_runtime::clock::Instant;
use ouzel_runtime::net::Stream;
use tokio::sync::{Notify, oneshot};

use super::budget::Reserved;
use super::counters::{LinkCounters, LinkSample};
use super::frame::HEADER_BYTES;
use super::frame::{self, Kind};
use super::handshake::{Hello, MAGIC, Purpose, Refusal, VERSIONS, Welcome};
use super::socket::{FrameReader, FrameWriter, ReadEnd};
use super::{Common, LaneConfig, LinkEvent};
use crate::transport::{CallError, Lane, PeerMessage};

/// One write gathers at most this much.
const GATHER_BYTES: usize = 1 << 20;
/// An attempt to connect that is older than this is begun anew when the peer is heard.
const STALE_ATTEMPT: Duration = Duration::from_millis(100);

pub(super) struct Link {
    common: Rc<Common>,
    peer: NodeId,
    lane: Lane,
    address: RefCell<String>,
    state: RefCell<State>,
    counters: Cell<LinkCounters>,
    /// There is something to write, or to give up; one task waits.
    wake: Notify,
    /// Whether the peer reads at all must be watched: something is unanswered.
    watch: Notify,
    /// The queue has room again; callers wait.
    room: Notify,
    /// The connection there is must end; its task waits.
    cut_bell: Notify,
    /// Attempts that failed since one that served.
    failures: Cell<u32>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    unanswered: BTreeMap<u64, Unanswered>,
    in_flight_bytes: usize,
    next_correlation: u64,
    phase: Phase,
    /// Since when the peer has said nothing while calls are unanswered, or a ping is.
    quiet_since: Option<Instant>,
    ping: PingState,
    /// Raised to end the connection there is.
    cut: Option<Cut>,
    stopped: bool,
}

#[derive(Default)]
enum Phase {
    #[default]
    Idle,
    Connecting {
        since: Instant,
    },
    Connected,
    /// The last attempt failed; calls fail at once, with its error, until the pause is over.
    Pausing(CallError),
}

enum Cut {
    Because(String),
    /// Only the attempt to connect: the calls wait for the next one.
    TryAgain,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum PingState {
    #[default]
    None,
    Wanted,
    Sent,
}

struct Queued {
    service: u8,
    message: PeerMessage,
    answer: oneshot::Sender<Result<PeerMessage, CallError>>,
}

struct Unanswered {
    bytes: usize,
    answer: oneshot::Sender<Result<PeerMessage, CallError>>,
}

pub(super) type AnswerReceiver = oneshot::Receiver<Result<PeerMessage, CallError>>;

impl Link {
    pub(super) fn start(common: Rc<Common>, peer: NodeId, lane: Lane, address: String) -> Rc<Link> {
        let link = Rc::new(Link {
            common,
            peer,
            lane,
            address: RefCell::new(address),
            state: RefCell::default(),
            counters: Cell::default(),
            wake: Notify::new(),
            watch: Notify::new(),
            room: Notify::new(),
            cut_bell: Notify::new(),
            failures: Cell::default(),
        });
        drop(ouzel_runtime::spawn(link.clone().run()));
        link
    }

    /// Puts a call into the queue. Its place among the calls of this link is fixed when this returns.
    pub(super) fn call(&self, service: u8, message: PeerMessage) -> Result<AnswerReceiver, CallError> {
        self.count(|counters| counters.calls += 1);
        let bytes = frame::frame_bytes(&message);
        let limit = self.common.config.frame_bytes_max;
        if !frame::fits(&message, limit) {
            return Err(
                self.refused(format!("a message of {bytes} bytes; at most {limit} can be sent to a peer"))
            );
        }
        let mut state = self.state.borrow_mut();
        if state.stopped {
            drop(state);
            return Err(self.unreachable("this node is stopping".to_owned()));
        }
        if let Phase::Pausing(error) = &state.phase {
            let error = error.clone();
            drop(state);
            self.count(|counters| match error {
                CallError::Refused(_) => counters.refused += 1,
                _ => counters.unreachable += 1,
            });
            return Err(error);
        }
        let queued_max = self.lane_config().queued_bytes_max;
        if !state.queue.is_empty() && state.queued_bytes + bytes > queued_max {
            drop(state);
            return Err(self.unreachable(format!("calls of {queued_max} bytes wait for node {}", self.peer)));
        }
        let (answer, receiver) = oneshot::channel();
        state.queued_bytes += bytes;
        state.queue.push_back(Queued { service, message, answer });
        drop(state);
        self.wake.notify_one();
        Ok(receiver)
    }

    /// Resolves when at most half of what may queue is queued; at once when calls would fail anyway.
    pub(super) async fn has_room(&self) {
        loop {
            let notified = self.room.notified();
            {
                let state = self.state.borrow();
                let roomy = state.queued_bytes <= self.lane_config().queued_bytes_max / 2;
                if roomy || state.stopped || matches!(state.phase, Phase::Pausing(_)) {
                    return;
                }
            }
            notified.await;
        }
    }

    pub(super) fn timed_out(&self) {
        self.count(|counters| counters.timed_out += 1);
    }

    pub(super) fn set_address(&self, address: &str) {
        if *self.address.borrow() != address {
            address.clone_into(&mut self.address.borrow_mut());
            self.hurry();
        }
    }

    /// Ends a pause between attempts, and an attempt that hangs: the peer is known to be there.
    pub(super) fn hurry(&self) {
        self.failures.set(0);
        let now = self.common.runtime.clock.now();
        let mut state = self.state.borrow_mut();
        match state.phase {
            Phase::Pausing(_) => {
                state.phase = Phase::Idle;
                drop(state);
                self.wake.notify_one();
            }
            // What it sent may have been lost before the peer was there.
            Phase::Connecting { since } if now > since + STALE_ATTEMPT => {
                state.cut.get_or_insert(Cut::TryAgain);
                drop(state);
                self.cut_bell.notify_one();
            }
            _ => {}
        }
    }

    /// Ends the connection there is, and fails every call.
    pub(super) fn cut(&self, why: &str) {
        let mut state = self.state.borrow_mut();
        match state.phase {
            Phase::Idle | Phase::Pausing(_) => {}
            Phase::Connecting { .. } | Phase::Connected => state.cut = Some(Cut::Because(why.to_owned())),
        }
        drop(state);
        self.wake.notify_one();
        self.cut_bell.notify_one();
        self.fail_all(&CallError::Unreachable(why.to_owned()));
    }

    /// As [`cut`](Link::cut), for good.
    pub(super) fn stop(&self) {
        self.state.borrow_mut().stopped = true;
        self.cut("this node is stopping");
    }

    pub(super) fn sample(&self) -> LinkSample {
        let state = self.state.borrow();
        LinkSample {
            counters: self.counters.get(),
            queued_bytes: state.queued_bytes,
            in_flight_bytes: state.in_flight_bytes,
            is_connected: matches!(state.phase, Phase::Connected),
        }
    }

    // The life of a link ---------------------------------------------------------------------------------------------

    async fn run(self: Rc<Link>) {
        loop {
            loop {
                let (stopped, waits) = {
                    let mut state = self.state.borrow_mut();
                    state.cut = None;
                    (state.stopped, !state.queue.is_empty())
                };
                if stopped {
                    return;
                }
                if waits {
                    break;
                }
                self.wake.notified().await;
            }
            let since = self.common.runtime.clock.now();
            self.state.borrow_mut().phase = Phase::Connecting { since };
            let connected = tokio::select! {
                biased;
                cut = self.is_cut() => match cut {
                    Cut::Because(why) => Err(ConnectError::Other(why)),
                    Cut::TryAgain => continue,
                },
                connected = self.connect() => connected,
            };
            let (reader, writer) = match connected {
                Ok(halves) => halves,
                Err(error) => {
                    self.count(|counters| counters.connect_failed += 1);
                    self.pause(error).await;
                    continue;
                }
            };
            self.count(|counters| counters.connected += 1);
            self.state.borrow_mut().phase = Phase::Connected;
            self.common.event(self.peer, self.lane, LinkEvent::Connected);
            let answered_before = self.counters.get().answered;
            let why = self.talk(reader, writer).await;
            self.count(|counters| counters.lost += 1);
            tracing::debug!(peer = %self.peer, lane = ?self.lane, %why, "connection to a peer ended");
            {
                let mut state = self.state.borrow_mut();
                state.phase = Phase::Idle;
                state.quiet_since = None;
                state.ping = PingState::None;
            }
            self.fail_unanswered(&CallError::Unreachable(why.clone()));
            self.common.event(self.peer, self.lane, LinkEvent::Lost);
            // A connection that served is replaced at once; one that never did counts as an attempt that failed.
            if self.counters.get().answered > answered_before {
                self.failures.set(0);
            } else {
                self.pause(ConnectError::Other(why)).await;
            }
        }
    }

    /// Fails what is queued, and lets calls fail for a while.
    async fn pause(&self, error: ConnectError) {
        let peer = self.peer;
        let failed_before = self.failures.get();
        self.failures.set(failed_before.saturating_add(1));
        let (event, error) = match error {
            ConnectError::Refused(reason) => {
                self.common.note_refusal_of_ours(peer, &reason);
                (LinkEvent::NotWelcome, CallError::Refused(reason))
            }
            ConnectError::NobodyListens(why) => (LinkEvent::NobodyListens, CallError::Unreachable(why)),
            ConnectError::Other(why) => (LinkEvent::Failed, CallError::Unreachable(why)),
        };
        if self.state.borrow().stopped {
            return;
        }
        self.state.borrow_mut().phase = Phase::Pausing(error.clone());
        self.fail_queued(&error);
        self.common.event(peer, self.lane, event);
        let longest = self.lane_config().backoff_max.as_millis() as u64;
        let base = (self.common.config.backoff_min.as_millis() as u64)
            .saturating_mul(1 << failed_before.min(10))
            .clamp(1, longest);
        // Between half and all of it: peers that lost each other at one moment do not all come back at another.
        let wait = base / 2 + self.common.runtime.entropy.u64() % (base / 2 + 1);
        let until = self.common.runtime.clock.now() + Duration::from_millis(wait);
        loop {
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = self.common.runtime.clock.sleep_until(until) => {
                    let mut state = self.state.borrow_mut();
                    if matches!(state.phase, Phase::Pausing(_)) {
                        state.phase = Phase::Idle;
                    }
                }
            }
            let state = self.state.borrow();
            if state.stopped || !matches!(state.phase, Phase::Pausing(_)) {
                return;
            }
        }
    }

    async fn connect(&self) -> Result<(FrameReader, FrameWriter), ConnectError> {
        let common = &self.common;
        let address = self.address.borrow().clone();
        let connecting = async {
            let stream = common.runtime.net.connect(&address).await.map_err(|error| {
                let why = format!("node {} at {address}: {error}", self.peer);
                match error.kind() {
                    io::ErrorKind::ConnectionRefused => ConnectError::NobodyListens(why),
                    _ => ConnectError::Other(why),
                }
            })?;
            let hello = Hello {
                versions: VERSIONS,
                purpose: Purpose::Member(self.lane),
                sender: common.identity(),
                core: common.runtime.core.0,
                target: self.peer,
            };
            let rate =
                (self.lane == Lane::Recovery).then(|| (common.rate.clone(), common.runtime.clock.clone()));
            let (reader, writer, welcome) = greet(stream, &hello, rate).await?;
            let own = common.identity();
            let they = &welcome.receiver;
            if they.node != self.peer || they.cluster_id != own.cluster_id {
                // A receiver judges the same; this one judged otherwise, and is not to be talked to.
                let refusal = Refusal::NotAddressed { target: self.peer, own: they.node };
                return Err(ConnectError::Refused(refusal.to_string()));
            }
            common.met(self.peer, they.process_id);
            Ok((reader, writer))
        };
        match common.runtime.clock.timeout(self.lane_config().connect_timeout, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(ConnectError::Other(format!("node {} at {address} does not answer", self.peer))),
        }
    }

    /// Writes calls and reads answers until the connection ends; says why it did.
    async fn talk(&self, reader: FrameReader, writer: FrameWriter) -> String {
        tokio::select! {
            biased;
            cut = self.is_cut() => match cut {
                Cut::Because(why) => why,
                Cut::TryAgain => "a newer connection was wanted".to_owned(),
            },
            end = self.read_answers(reader) => end.to_string(),
            error = self.write_calls(writer) => error.to_string(),
            () = self.falls_silent() => format!("nothing came from node {} although it was asked", self.peer),
        }
    }

    async fn is_cut(&self) -> Cut {
        loop {
            if let Some(cut) = self.state.borrow_mut().cut.take() {
                return cut;
            }
            self.cut_bell.notified().await;
        }
    }

    async fn write_calls(&self, mut writer: FrameWriter) -> io::Error {
        let in_flight_max = self.lane_config().in_flight_bytes_max;
        let mut chunks = VecDeque::new();
        loop {
            let gathered = self.gather(&mut chunks, in_flight_max);
            if gathered == 0 {
                self.wake.notified().await;
                continue;
            }
            if let Err(error) = writer.write(&mut chunks).await {
                return error;
            }
            self.count(|counters| counters.sent_bytes += gathered as u64);
        }
    }

    /// Moves calls from the queue to the unanswered, as many as fit; returns how many bytes are to be written.
    fn gather(&self, chunks: &mut VecDeque<Bytes>, in_flight_max: usize) -> usize {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let mut gathered = 0;
        if state.ping == PingState::Wanted {
            state.ping = PingState::Sent;
            chunks.push_back(frame::front(Kind::Ping, 0, 0, &PeerMessage::default()));
            gathered += HEADER_BYTES;
        }
        while let Some(front) = state.queue.front() {
            let bytes = frame::frame_bytes(&front.message);
            let given_up = front.answer.is_closed();
            let fits = state.unanswered.is_empty() || state.in_flight_bytes + bytes <= in_flight_max;
            if !given_up && (!fits || gathered >= GATHER_BYTES) {
                break;
            }
            let Some(Queued { service, message, answer }) = state.queue.pop_front() else { break };
            state.queued_bytes -= bytes;
            if given_up {
                continue;
            }
            let correlation = state.next_correlation;
            state.next_correlation += 1;
            chunks.push_back(frame::front(Kind::Call, service, correlation, &message));
            chunks.extend(message.bodies);
            gathered += bytes;
            if state.quiet_since.is_none() {
                state.quiet_since = Some(self.common.runtime.clock.now());
                self.watch.notify_one();
            }
            state.in_flight_bytes += bytes;
            state.unanswered.insert(correlation, Unanswered { bytes, answer });
        }
        self.room.notify_waiters();
        gathered
    }

    async fn read_answers(&self, mut reader: FrameReader) -> ReadEnd {
        loop {
            match self.read_answer(&mut reader).await {
                Ok(()) => {}
                Err(end) => {
                    if let ReadEnd::Frame(error) = &end {
                        tracing::warn!(peer = %self.peer, lane = ?self.lane, %error, "a peer answered nonsense");
                    }
                    return end;
                }
            }
        }
    }

    async fn read_answer(&self, reader: &mut FrameReader) -> Result<(), ReadEnd> {
        let header = reader.header(self.common.config.frame_bytes_max).await?;
        self.heard();
        let budget = &self.common.budgets.answers[self.lane as usize];
        let _reserved: Reserved = budget.reserve(header.payload_bytes as usize).await;
        let message = header.message(reader.payload(&header).await?)?;
        self.heard();
        self.count(|c| c.received_bytes += (HEADER_BYTES + header.payload_bytes as usize) as u64);
        let answer = match header.kind {
            Kind::Pong => return Ok(()),
            Kind::Answer => Ok(message),
            Kind::Declined => Err(CallError::Refused(String::from_utf8_lossy(&message.head).into_owned())),
            kind => return Err(super::frame::FrameError::Kind(kind as u8).into()),
        };
        let call = {
            let mut state = self.state.borrow_mut();
            let call = state.unanswered.remove(&header.correlation);
            if let Some(call) = &call {
                state.in_flight_bytes -= call.bytes;
            }
            if state.unanswered.is_empty() && state.ping == PingState::None {
                state.quiet_since = None;
            }
            call
        };
        // An answer to nothing is no harm: the connection is ours alone, so the peer counts wrong.
        let Some(call) = call else { return Ok(()) };
        self.count(|counters| match answer {
            Ok(_) => counters.answered += 1,
            Err(_) => counters.refused += 1,
        });
        // Whoever called may have given up.
        let _ = call.answer.send(answer);
        self.wake.notify_one();
        Ok(())
    }

    fn heard(&self) {
        let mut state = self.state.borrow_mut();
        state.ping = PingState::None;
        if state.quiet_since.is_some() {
            state.quiet_since = Some(self.common.runtime.clock.now());
        }
    }

    /// Resolves when the peer has said nothing for the stall time although calls are unanswered, not even in answer
    /// to a ping half way: a slow handler keeps a connection, a dead one does not.
    async fn falls_silent(&self) {
        let stall = self.lane_config().stall_max;
        let clock = &self.common.runtime.clock;
        loop {
            let Some(since) = self.state.borrow().quiet_since else {
                self.watch.notified().await;
                continue;
            };
            let now = clock.now();
            if now >= since + stall {
                return;
            }
            if now < since + stall / 2 {
                clock.sleep_until(since + stall / 2).await;
                continue;
            }
            let ask = {
                let mut state = self.state.borrow_mut();
                let ask = state.ping == PingState::None;
                if ask {
                    state.ping = PingState::Wanted;
                }
                ask
            };
            if ask {
                self.wake.notify_one();
            }
            clock.sleep_until(since + stall).await;
        }
    }

    // Ends of calls --------------------------------------------------------------------------------------------------

    fn fail_all(&self, error: &CallError) {
        self.fail_queued(error);
        self.fail_unanswered(error);
    }

    fn fail_queued(&self, error: &CallError) {
        let queue = {
            let mut state = self.state.borrow_mut();
            state.queued_bytes = 0;
            std::mem::take(&mut state.queue)
        };
        self.fail(queue.into_iter().map(|call| call.answer), error);
        self.room.notify_waiters();
    }

    fn fail_unanswered(&self, error: &CallError) {
        let unanswered = {
            let mut state = self.state.borrow_mut();
            state.in_flight_bytes = 0;
            std::mem::take(&mut state.unanswered)
        };
        self.fail(unanswered.into_values().map(|call| call.answer), error);
    }

    fn fail(
        &self,
        calls: impl Iterator<Item = oneshot::Sender<Result<PeerMessage, CallError>>>,
        error: &CallError,
    ) {
        for answer in calls {
            if answer.send(Err(error.clone())).is_ok() {
                self.count(|counters| match error {
                    CallError::Refused(_) => counters.refused += 1,
                    _ => counters.unreachable += 1,
                });
            }
        }
    }

    fn refused(&self, why: String) -> CallError {
        self.count(|counters| counters.refused += 1);
        CallError::Refused(why)
    }

    fn unreachable(&self, why: String) -> CallError {
        self.count(|counters| counters.unreachable += 1);
        CallError::Unreachable(why)
    }

    fn lane_config(&self) -> &LaneConfig {
        self.common.config.lane(self.lane)
    }

    fn count(&self, change: impl FnOnce(&mut LinkCounters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }
}

pub(super) enum ConnectError {
    /// The machine is there, and says that nobody listens.
    NobodyListens(String),
    /// The peer answered, and does not want us.
    Refused(String),
    Other(String),
}

/// Says hello on a fresh connection and waits for the welcome.
pub(super) async fn greet(
    stream: Stream,
    hello: &Hello,
    rate: Option<(super::budget::RecoveryRate, ouzel_runtime::Clock)>,
) -> Result<(FrameReader, FrameWriter, Welcome), ConnectError> {
    let other = |error: &dyn std::fmt::Display| ConnectError::Other(error.to_string());
    stream.set_nodelay(true).map_err(|error| other(&error))?;
    let (read, write) = stream.into_split();
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write, None));
    let head = PeerMessage { head: hello.encode(), bodies: Vec::new() };
    let mut chunks = VecDeque::from([Bytes::from_static(&MAGIC), frame::front(Kind::Hello, 0, 0, &head)]);
    writer.write(&mut chunks).await.map_err(|error| other(&error))?;
    let header = reader.header(super::handshake::HELLO_BYTES_MAX).await.map_err(|end| other(&end))?;
    let payload = reader.payload(&header).await.map_err(|end| other(&end))?;
    let message = header.message(payload).map_err(|error| other(&error))?;
    match header.kind {
        Kind::Welcome => {
            let welcome = Welcome::decode(&message.head).map_err(|error| other(&error))?;
            writer.set_rate(rate);
            Ok((reader, writer, welcome))
        }
        Kind::Refusal => {
            let reason = Refusal::decode_reason(&message.head).map_err(|error| other(&error))?;
            Err(ConnectError::Refused(reason))
        }
        kind => Err(ConnectError::Other(format!("the peer answered a hello with {kind:?}"))),
    }
}
