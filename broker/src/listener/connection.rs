//! One connection: frames in, responses out, in order.
//!
//! A reader task takes frames off the socket and has them handled; a writer task sends the responses in the order of
//! the requests. Between them stands a queue of slots, one per request that will be answered. Kafka handles one request
//! of a connection at a time; so do we, except that produce requests overlap: the next one is admitted as soon as the
//! places of the former one's batches are fixed, and waits for their safety together with it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use ouzel_protocol::{Chain, Piece, frame};
use ouzel_runtime::net::{OwnedReadHalf, OwnedWriteHalf, Stream};
use ouzel_storage::FileRange;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use crate::core::Core;
use crate::dispatch::{self, Answer, Client, Outcome, Unanswerable};

use super::{Counted, MemoryBudget, Reserved};

/// Produce requests of one connection whose bytes are not yet safe; clients keep at most five of them.
const SLOTS_MAX: usize = 64;
/// What is received at once while a small request is expected.
const RECEIVE_BYTES: usize = 64 * 1024;
/// So many pieces go out in one write.
const SLICES_MAX: usize = 64;
/// What a frame's claim is believed before its bytes arrive; from there on, twice what has arrived. Frames half sent
/// then hold what they brought, not what they claimed, and cannot take the budget from those that come whole.
const CLAIM_BELIEVED_BYTES: usize = 4 * 1024;
/// From its first byte a frame must be whole within this time, or it is taken for a trickle that holds memory.
const FRAME_WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// A frame that finds no memory for this long gives up what it holds, so that frames half received cannot wait for one
/// another for ever.
const BUDGET_WAIT_MAX: Duration = Duration::from_secs(30);

/// A response in the making, and the request's memory.
struct Slot {
    answer: Answer,
    reserved: Reserved,
}

/// Serves a connection until either side ends it.
pub(super) async fn serve(core: Rc<Core>, stream: Stream, peer: SocketAddr, counted: Counted) {
    core.metrics.connection_opened();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY is refused");
    }
    let (reader, writer) = stream.into_split();
    let (slots, queue) = mpsc::channel(SLOTS_MAX);
    // Counts answered requests up, so that the reader can wait until all before it are done.
    let (answered, progress) = watch::channel(0u64);
    let writing = ouzel_runtime::spawn(write(core.clone(), writer, queue, answered));
    let client = Client::new(peer);
    let of_reader = read(&core, reader, &client, slots, progress).await;
    // Responses that are on their way still leave, unless nobody is there any more.
    if matches!(of_reader, Some(Ended::ByPeer)) {
        writing.abort();
    }
    // Where the writer ended of itself, the reader only followed.
    let of_writer = writing.await.unwrap_or_default();
    let why = of_writer.or(of_reader).unwrap_or(Ended::ByPeer);
    match &why {
        Ended::ByPeer | Ended::Stopping | Ended::Idle => {
            tracing::debug!(%peer, client = %client.describe(), %why, "connection closed")
        }
        Ended::Unsent(_) => tracing::info!(%peer, client = %client.describe(), %why, "connection closed"),
        Ended::Trickle | Ended::NoMemory { .. } | Ended::Frame(_) | Ended::Request(_) | Ended::Broken(_) => {
            core.metrics.connection_refused();
            tracing::info!(%peer, client = %client.describe(), %why, "connection closed");
        }
    }
    core.metrics.connection_closed();
    drop(counted);
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the client closed it")]
    ByPeer,
    #[error("the broker is stopping")]
    Stopping,
    #[error("nothing came for connections.max.idle.ms")]
    Idle,
    #[error("a request did not arrive whole within {} s", FRAME_WHOLE_WITHIN.as_secs())]
    Trickle,
    #[error("there was no memory to receive a request of {bytes} bytes within {} s", BUDGET_WAIT_MAX.as_secs())]
    NoMemory { bytes: usize },
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
    #[error(transparent)]
    Request(#[from] Unanswerable),
    #[error("{0}")]
    Broken(String),
    #[error("a response could not be sent: {0}")]
    Unsent(io::Error),
}

impl Ended {
    /// What an error of writing to the client says.
    fn by_write(error: io::Error) -> Ended {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable,
            NotConnected, TimedOut,
        };
        match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | HostUnreachable | NetworkDown
            | NetworkUnreachable | NotConnected | TimedOut => Ended::ByPeer,
            _ => Ended::Unsent(error),
        }
    }
}

/// Has requests handled until there are no more; `None` where the writer has ended.
async fn read(
    core: &Rc<Core>,
    reader: OwnedReadHalf,
    client: &Client,
    slots: mpsc::Sender<Slot>,
    mut progress: watch::Receiver<u64>,
) -> Option<Ended> {
    let mut stopping = core.stopping.clone();
    let mut frames = Frames { reader, received: BytesMut::new(), budget: core.budget.clone() };
    let bytes_max = core.node.config.request_bytes_max();
    let idle_max = core.node.config.connection_idle_max();
    let mut asked = 0u64;
    loop {
        let (request, reserved) = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return Some(Ended::Stopping),
            () = slots.closed() => return None,
            frame = frames.next(core, bytes_max, idle_max) => match frame {
                Ok(frame) => frame,
                Err(ended) => return Some(ended),
            },
        };
        core.metrics.bytes_received(request.len() + frame::LENGTH_BYTES);
        let request = match dispatch::parse(core, client, request) {
            Ok(request) => request,
            Err(error) => return Some(error.into()),
        };
        if !request.overlaps() && progress.wait_for(|answered| *answered == asked).await.is_err() {
            return None;
        }
        let may_park = request.may_park();
        let handling = dispatch::handle(core, client, request);
        let answer = if may_park {
            tokio::select! {
                biased;
                answer = handling => answer,
                ended = frames.peer_gone() => return Some(ended),
            }
        } else {
            handling.await
        };
        asked += 1;
        if slots.send(Slot { answer, reserved }).await.is_err() {
            return None;
        }
    }
}

/// Frames off a socket, with the memory they take reserved first.
struct Frames {
    reader: OwnedReadHalf,
    received: BytesMut,
    budget: MemoryBudget,
}

impl Frames {
    async fn next(
        &mut self,
        core: &Core,
        bytes_max: usize,
        idle_max: Duration,
    ) -> Result<(BytesMut, Reserved), Ended> {
        let clock = &core.runtime.clock;
        if self.received.is_empty() {
            // Waiting for a request holds no memory: 10,000 idle connections cost their sockets.
            self.received = BytesMut::new();
            let mut first = [0; 1];
            match clock.timeout(idle_max, self.reader.read(&mut first)).await {
                Err(_) => return Err(Ended::Idle),
                Ok(Ok(0) | Err(_)) => return Err(Ended::ByPeer),
                Ok(Ok(_)) => self.received.extend_from_slice(&first),
            }
        }
        match clock.timeout(FRAME_WHOLE_WITHIN, self.rest(core, bytes_max)).await {
            Ok(frame) => frame,
            Err(_) => Err(Ended::Trickle),
        }
    }

    /// Resolves when the client has closed its side while it waits for an answer. A first byte of its next request
    /// shows that it has not, and ends the watch.
    async fn peer_gone(&mut self) -> Ended {
        if self.received.is_empty() {
            let mut first = [0; 1];
            match self.reader.read(&mut first).await {
                Ok(0) | Err(_) => return Ended::ByPeer,
                Ok(_) => self.received.extend_from_slice(&first),
            }
        }
        std::future::pending().await
    }

    /// Receives the rest of the frame whose first bytes are there.
    async fn rest(&mut self, core: &Core, bytes_max: usize) -> Result<(BytesMut, Reserved), Ended> {
        self.receive_to(frame::LENGTH_BYTES, RECEIVE_BYTES).await?;
        let mut prefix = [0; frame::LENGTH_BYTES];
        prefix.copy_from_slice(&self.received[..frame::LENGTH_BYTES]);
        let bytes = frame::request_length(prefix, bytes_max)?;
        let whole = frame::LENGTH_BYTES + bytes;
        let mut reserved = self.reserve(core, bytes.min(CLAIM_BELIEVED_BYTES), None, bytes).await?;
        let mut believed = whole.min(CLAIM_BELIEVED_BYTES);
        loop {
            // A frame larger than what is received at once gets a buffer that ends where it does, and nothing of the
            // next one.
            let room = if whole < RECEIVE_BYTES { RECEIVE_BYTES } else { believed.max(RECEIVE_BYTES) };
            self.receive_to(believed, room.min(whole.max(RECEIVE_BYTES))).await?;
            if believed == whole {
                break;
            }
            believed = whole.min(believed * 2);
            reserved = self.reserve(core, believed, Some(reserved), bytes).await?;
        }
        self.received.advance(frame::LENGTH_BYTES);
        Ok((self.received.split_to(bytes), reserved))
    }

    async fn reserve(
        &self,
        core: &Core,
        bytes: usize,
        held: Option<Reserved>,
        claimed: usize,
    ) -> Result<Reserved, Ended> {
        let reserving = async {
            match held {
                None => self.budget.reserve(bytes).await,
                Some(mut held) => {
                    self.budget.widen(&mut held, bytes).await;
                    held
                }
            }
        };
        core.runtime
            .clock
            .timeout(BUDGET_WAIT_MAX, reserving)
            .await
            .map_err(|_| Ended::NoMemory { bytes: claimed })
    }

    /// Receives until at least `bytes` are there, into room for `room` in all.
    async fn receive_to(&mut self, bytes: usize, room: usize) -> Result<(), Ended> {
        while self.received.len() < bytes {
            self.received.reserve(room.saturating_sub(self.received.len()).max(1));
            match self.reader.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return Err(Ended::ByPeer),
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

/// Sends responses until the reader has no more; says why where it ends of itself.
async fn write(
    core: Rc<Core>,
    mut writer: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Slot>,
    answered: watch::Sender<u64>,
) -> Option<Ended> {
    let mut why = None;
    while let Some(slot) = queue.recv().await {
        let sent = match slot.answer.await {
            Outcome::Response(chain) => send(&core, &mut writer, chain).await,
            Outcome::Silence => Ok(()),
            // The order of responses leaves no way to skip one.
            Outcome::Broken(reason) => Err(Ended::Broken(reason)),
        };
        drop(slot.reserved);
        if let Err(ended) = sent {
            why = Some(ended);
            break;
        }
        answered.send_modify(|count| *count += 1);
    }
    let _ = writer.shutdown().await;
    why
}

/// Writes a response frame, its pieces from where they lie.
async fn send(core: &Core, writer: &mut OwnedWriteHalf, chain: Chain) -> Result<(), Ended> {
    let mut pieces: VecDeque<Piece> = chain.into_segments().into();
    while let Some(front) = pieces.front() {
        if let Piece::Elsewhere(elsewhere) = front {
            let Some(range) = elsewhere.place::<FileRange>() else {
                return Err(Ended::Unsent(io::Error::other("a piece of it lies nowhere")));
            };
            // A file that is shorter than promised ends the connection: what followed would be taken for records.
            let sent = writer.send_file(&range.file, range.position, range.bytes).await;
            core.metrics.file_sent(sent.map_err(Ended::by_write)?);
            core.metrics.bytes_sent(range.bytes);
            pieces.pop_front();
            continue;
        }
        let in_memory = pieces.iter().map_while(Piece::bytes);
        let slices: Vec<_> = in_memory.take(SLICES_MAX).map(|bytes| IoSlice::new(bytes)).collect();
        let written = match pieces.get(slices.len()) {
            // The few bytes before a file's go with it, not in a packet of their own.
            Some(_) => writer.write_more(&slices).await,
            None => writer.write_vectored(&slices).await,
        };
        match written.map_err(Ended::by_write)? {
            0 => return Err(Ended::Unsent(io::ErrorKind::WriteZero.into())),
            written => {
                core.metrics.bytes_sent(written);
                advance(&mut pieces, written);
            }
        }
    }
    writer.flush().await.map_err(Ended::by_write)
}

/// Takes off what was written of the pieces in memory at the front.
fn advance(pieces: &mut VecDeque<Piece>, mut written: usize) {
    while let Some(Piece::Bytes(front)) = pieces.front_mut() {
        let taken = written.min(front.len());
        front.advance(taken);
        written -= taken;
        if !front.is_empty() {
            return;
        }
        pieces.pop_front();
    }
}
