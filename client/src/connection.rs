//! One connection to one broker: requests go out as they come, responses come back in the same order.
//!
//! Two tasks of the core serve it: one writes what is queued, one reads frames and hands each to the call that has
//! waited longest. A call whose caller dropped it keeps its place in that queue, so a late response finds its own place
//! and nobody else's. When either task meets an end, every waiting call is told why.
//!
//! A request that is not answered in time ends the connection, as it does in Kafka's client: behind it may be a machine
//! that hangs, which accepts whatever it is sent, and whoever held on to it would ask it again and again.
//!
//! Dropping the last handle ends both tasks and closes the socket.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ouzel_protocol::header::{self, RequestHeader};
use ouzel_protocol::messages::kafka::ApiVersionsRequest;
use ouzel_protocol::messages::{Call, decode_response, encode_request, kafka};
use ouzel_protocol::{ApiKey, Chain, ErrorCode, Piece, Response, StrBytes, frame};
use ouzel_runtime::net::{OwnedReadHalf, OwnedWriteHalf};
use ouzel_runtime::{JoinHandle, Runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use crate::config::ClientConfig;
use crate::error::ClientError;
use crate::versions::Versions;

/// A connection to a broker, with its API versions known. Clones share it.
#[derive(Clone)]
pub struct Connection {
    inner: Rc<Inner>,
}

struct Inner {
    address: String,
    runtime: Runtime,
    client_id: StrBytes,
    request_timeout: Duration,
    versions: Versions,
    outgoing: mpsc::UnboundedSender<Chain>,
    exchange: Rc<RefCell<Exchange>>,
    tasks: [JoinHandle<()>; 2],
}

/// What is under way, shared with the two tasks; never borrowed over an await.
#[derive(Default)]
struct Exchange {
    correlation_id: i32,
    waiting: VecDeque<Waiting>,
    /// How the connection ended, once it has.
    ended: Option<String>,
}

struct Waiting {
    correlation_id: i32,
    reply: oneshot::Sender<Result<Bytes, String>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Connection {
    /// Connects to `HOST:PORT` and asks for the API versions.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if nobody accepts in time, [`ClientError::NotKafka`] if who does speaks otherwise.
    pub async fn open(
        runtime: &Runtime,
        address: &str,
        config: &ClientConfig,
    ) -> Result<Connection, ClientError> {
        let failed = |reason: String| ClientError::Connect { address: address.to_owned(), reason };
        let within = format!("nobody accepted within {} ms", config.connect_timeout.as_millis());
        let connecting = runtime.net.connect(address);
        let stream = runtime.clock.timeout(config.connect_timeout, connecting).await;
        let stream = stream.map_err(|_| failed(within))?.map_err(|error| failed(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        let (reader, writer) = stream.into_split();
        let (outgoing, queued) = mpsc::unbounded_channel();
        let exchange = Rc::new(RefCell::new(Exchange::default()));
        let tasks = [
            ouzel_runtime::spawn(write_all(writer, queued, exchange.clone())),
            ouzel_runtime::spawn(read_all(reader, exchange.clone(), config.response_bytes_max)),
        ];
        let mut inner = Inner {
            address: address.to_owned(),
            runtime: runtime.clone(),
            client_id: StrBytes::from_string(config.client_id.clone()),
            request_timeout: config.request_timeout,
            versions: Versions::default(),
            outgoing,
            exchange,
            tasks,
        };
        inner.versions = inner.negotiate(config.connect_timeout).await?;
        Ok(Connection { inner: Rc::new(inner) })
    }

    /// Where it leads.
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// What the broker offers.
    pub fn versions(&self) -> &Versions {
        &self.inner.versions
    }

    /// Whether it has ended; calls on it fail from then on.
    pub fn is_closed(&self) -> bool {
        self.inner.exchange.borrow().ended.is_some()
    }

    /// Sends a request in the highest common version and waits for its response.
    ///
    /// Calls may be under way together; the broker answers them in order. If the future is dropped, the request may
    /// still be carried out.
    ///
    /// # Errors
    /// See [`ClientError`]; codes inside the response are the caller's to read.
    pub async fn call<C: Call>(&self, request: C) -> Result<C::Response, ClientError> {
        self.call_within(request, i16::MAX, Duration::ZERO).await
    }

    /// As [`Connection::call`], in a version of at most `version_max`, and giving the broker `wait` on top of the
    /// request timeout.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn call_within<C: Call>(
        &self,
        request: C,
        version_max: i16,
        wait: Duration,
    ) -> Result<C::Response, ClientError> {
        let inner = &self.inner;
        let version = inner.choose(C::API, version_max)?;
        let body = inner.ask(C::API, version, request.into(), inner.request_timeout + wait).await?;
        let unreadable = |reason| ClientError::Decode { address: inner.address.clone(), reason };
        let response = decode_response(C::API.api(), version, body).map_err(unreadable)?;
        Ok(C::response(response).expect("a response is decoded as that of its request's API"))
    }

    /// Sends a request that has no response: Produce with acks=0. Returns once it is queued.
    ///
    /// # Errors
    /// If the connection has ended, or the request cannot be said.
    pub fn send_unanswered<C: Call>(&self, request: C, version_max: i16) -> Result<(), ClientError> {
        let inner = &self.inner;
        let version = inner.choose(C::API, version_max)?;
        inner.queue(C::API, version, &request.into(), None)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("address", &self.inner.address).finish_non_exhaustive()
    }
}

impl Inner {
    fn choose(&self, api: ApiKey, version_max: i16) -> Result<i16, ClientError> {
        self.versions.choose(api, version_max).ok_or_else(|| ClientError::Unsupported {
            address: self.address.clone(),
            api,
            wanted: format!("versions {} to {}", api.api().served_min, api.api().max.min(version_max)),
            offered: self.versions.offered(api),
        })
    }

    /// Learns what the broker offers. One that does not know our version of ApiVersions answers in version 0 and names
    /// its own range (KIP-511).
    async fn negotiate(&self, timeout: Duration) -> Result<Versions, ClientError> {
        let api = ApiKey::ApiVersions.api();
        let mut version = api.max;
        loop {
            let mut request = ApiVersionsRequest::default();
            if version >= 3 {
                request.client_software_name = StrBytes::from_static_str("ouzel");
                request.client_software_version = StrBytes::from_static_str(env!("CARGO_PKG_VERSION"));
            }
            let body = self.ask(api.key, version, request.into(), timeout).await;
            let body = body.map_err(|error| match error {
                ClientError::Closed { address, reason, .. } => ClientError::NotKafka { address, reason },
                error => error,
            })?;
            let refused = body.starts_with(&ErrorCode::UnsupportedVersion.code().to_be_bytes());
            let read_as = if refused { 0 } else { version };
            let response = decode_response(api, read_as, body).map_err(|error| self.not_kafka(error))?;
            let Response::ApiVersions(response) = response else { unreachable!("decoded as ApiVersions") };
            if response.error_code == 0 {
                return Ok(Versions::of(&response));
            }
            let lower = Versions::of(&response).choose(api.key, version - 1);
            version = lower.ok_or_else(|| self.not_kafka(refusal(&response)))?;
        }
    }

    fn not_kafka(&self, reason: impl std::fmt::Display) -> ClientError {
        ClientError::NotKafka { address: self.address.clone(), reason: reason.to_string() }
    }

    /// Sends a request and waits for the body of its response.
    async fn ask(
        &self,
        api: ApiKey,
        version: i16,
        request: ouzel_protocol::Request,
        timeout: Duration,
    ) -> Result<Bytes, ClientError> {
        let (reply, replied) = oneshot::channel();
        self.queue(api, version, &request, Some(reply))?;
        let address = || self.address.clone();
        let Ok(frame) = self.runtime.clock.timeout(timeout, replied).await else {
            let late = format!("{api} was not answered within {} ms", timeout.as_millis());
            self.exchange.borrow_mut().end(&late);
            return Err(ClientError::Timeout { address: address(), api, after: timeout });
        };
        // The sender is dropped only with the exchange, which this connection holds.
        let frame = frame.unwrap_or_else(|_| Err("it was dropped".to_owned()));
        let frame = frame.map_err(|reason| ClientError::Closed { address: address(), api, reason })?;
        let (_, body) = header::decode_response(api.api(), version, &frame)
            .map_err(|reason| self.not_kafka(format!("{api} response header: {reason}")))?;
        Ok(body)
    }

    fn queue(
        &self,
        api: ApiKey,
        version: i16,
        request: &ouzel_protocol::Request,
        reply: Option<oneshot::Sender<Result<Bytes, String>>>,
    ) -> Result<(), ClientError> {
        let mut exchange = self.exchange.borrow_mut();
        let closed = |reason: &str| ClientError::Closed {
            address: self.address.clone(),
            api,
            reason: reason.to_owned(),
        };
        if let Some(reason) = &exchange.ended {
            return Err(closed(reason));
        }
        let correlation_id = exchange.correlation_id;
        let header = RequestHeader {
            api: api.api(),
            version,
            correlation_id,
            client_id: Some(self.client_id.clone()),
        };
        let frame = encode_request(&header, request)?;
        exchange.correlation_id = correlation_id.wrapping_add(1);
        if let Some(reply) = reply {
            exchange.waiting.push_back(Waiting { correlation_id, reply });
        }
        self.outgoing.send(frame).map_err(|_| closed("its writer has ended"))
    }
}

fn refusal(response: &kafka::ApiVersionsResponse) -> String {
    let code = ErrorCode::from_code(response.error_code);
    let name = code.map_or_else(|| response.error_code.to_string(), |code| code.to_string());
    format!("it refuses ApiVersions with {name}")
}

impl Exchange {
    /// Ends the connection, once, and tells whoever waits.
    fn end(&mut self, reason: &str) {
        let reason = self.ended.get_or_insert_with(|| reason.to_owned()).clone();
        for waiting in self.waiting.drain(..) {
            // A caller that gave up no longer listens.
            let _ = waiting.reply.send(Err(reason.clone()));
        }
    }

    /// Hands a frame to the call that has waited longest.
    fn deliver(&mut self, frame: Bytes) -> Result<(), String> {
        let answered = header::peek_correlation_id(&frame).map_err(|error| error.to_string())?;
        let Some(waiting) = self.waiting.pop_front() else {
            return Err(format!("a response with correlation id {answered} answers no request"));
        };
        if waiting.correlation_id != answered {
            let expected = waiting.correlation_id;
            self.waiting.push_front(waiting);
            return Err(format!("a response with correlation id {answered} came where {expected} was due"));
        }
        let _ = waiting.reply.send(Ok(frame));
        Ok(())
    }
}

async fn write_all(
    mut writer: OwnedWriteHalf,
    mut queued: mpsc::UnboundedReceiver<Chain>,
    exchange: Rc<RefCell<Exchange>>,
) {
    while let Some(chain) = queued.recv().await {
        for segment in chain.into_segments() {
            let Piece::Bytes(bytes) = segment else { unreachable!("a request is all in memory") };
            if let Err(error) = writer.write_all(&bytes).await {
                return exchange.borrow_mut().end(&format!("writing failed: {error}"));
            }
        }
    }
}

async fn read_all(mut reader: OwnedReadHalf, exchange: Rc<RefCell<Exchange>>, bytes_max: usize) {
    loop {
        let delivered = match read_frame(&mut reader, bytes_max).await {
            Ok(Some(frame)) => exchange.borrow_mut().deliver(frame),
            Ok(None) => Err("the broker closed it".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = delivered {
            return exchange.borrow_mut().end(&reason);
        }
    }
}

/// Reads one response frame; `None` if the broker closed the connection between two.
async fn read_frame(reader: &mut OwnedReadHalf, bytes_max: usize) -> io::Result<Option<Bytes>> {
    let mut prefix = [0; frame::LENGTH_BYTES];
    if reader.read(&mut prefix[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut prefix[1..]).await?;
    let bytes = frame::response_length(prefix, bytes_max).map_err(io::Error::other)?;
    // Memory follows the bytes that come, not the length that is claimed.
    const STEP_BYTES: usize = 1 << 20;
    let mut frame = BytesMut::with_capacity(bytes.min(STEP_BYTES));
    while frame.len() < bytes {
        let missing = bytes - frame.len();
        frame.reserve(missing.min(STEP_BYTES));
        if (&mut *reader).take(missing as u64).read_buf(&mut frame).await? == 0 {
            let got = frame.len();
            return Err(io::Error::other(format!("the broker closed it after {got} of {bytes} bytes")));
        }
    }
    Ok(Some(frame.freeze()))
}
