//! From a frame to the handler of its API, and from what the handler says to the bytes of the response.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use bytes::BytesMut;
use ouzel_protocol::header::{self, HeaderError, RequestHeader};
use ouzel_protocol::messages::kafka::ApiVersionsResponse;
use ouzel_protocol::{
    ApiKey, Chain, DecodeError, ErrorCode, Request, Response, decode_request, encode_response,
};
use ouzel_runtime::clock::Instant;

use crate::core::Core;
use crate::handlers;

/// Who is at the other end of a connection.
pub struct Client {
    peer: SocketAddr,
    /// Kafka's way to print a peer's address in group descriptions.
    host: String,
    id: RefCell<Rc<str>>,
    software: RefCell<String>,
    seen: Cell<bool>,
}

impl Client {
    /// A peer that has not said anything yet.
    pub fn new(peer: SocketAddr) -> Client {
        Client {
            peer,
            host: format!("/{}", peer.ip()),
            id: RefCell::new("".into()),
            software: RefCell::default(),
            seen: Cell::new(false),
        }
    }

    /// Another node that passes a client's request on.
    pub(crate) fn forwarded() -> Client {
        Client::new(SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// What it calls itself, as of its latest request.
    pub fn id(&self) -> String {
        self.id.borrow().to_string()
    }

    /// Its address in Kafka's writing, `/127.0.0.1`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Notes the name and version of the client's library, once it has told them.
    pub fn set_software(&self, name: &str, version: &str) {
        *self.software.borrow_mut() = format!("{name} {version}");
    }

    /// Words for logs.
    pub fn describe(&self) -> String {
        let (id, software) = (self.id.borrow(), self.software.borrow());
        match (id.is_empty(), software.is_empty()) {
            (true, true) => self.peer.to_string(),
            (false, true) => id.to_string(),
            (true, false) => software.clone(),
            (false, false) => format!("{id} ({software})"),
        }
    }

    fn says_id(&self, id: &str) {
        if !self.seen.replace(true) || &**self.id.borrow() != id {
            *self.id.borrow_mut() = id.into();
        }
    }
}

/// Why a request cannot even be answered; the connection is closed, as Kafka does.
#[derive(Debug, thiserror::Error)]
pub enum Unanswerable {
    /// No such API, or no header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A version that is not served, or a body that is none of it.
    #[error(transparent)]
    Body(#[from] DecodeError),
}

/// A request, ready for its handler.
pub struct Parsed {
    header: RequestHeader,
    body: Body,
    received_at: Instant,
}

enum Body {
    Request(Request),
    /// Versions that are answered without being understood.
    Refused(Response, i16),
}

impl Parsed {
    /// Whether the request may be handled while earlier ones of its connection are not yet answered.
    pub fn overlaps(&self) -> bool {
        matches!(self.body, Body::Request(Request::Produce(_)))
    }

    /// Whether the answer may be long in coming, and nothing is left half done if nobody waits for it any more.
    pub fn may_park(&self) -> bool {
        matches!(self.body, Body::Request(Request::Fetch(_)))
    }
}

/// What will come of a request. The request's memory is held until it is there.
pub type Answer = Pin<Box<dyn Future<Output = Outcome>>>;

/// What came of a request.
pub enum Outcome {
    /// This is sent.
    Response(Chain),
    /// It wants no response, and went well: produce with acks=0, whose batches are written.
    Silence,
    /// There is no response, and the connection is closed. That is the only way to tell of a produce with acks=0 that failed.
    Broken(String),
}

/// Reads header and body.
///
/// # Errors
/// See [`Unanswerable`].
pub fn parse(core: &Core, client: &Client, frame: BytesMut) -> Result<Parsed, Unanswerable> {
    let received_at = core.runtime.clock.now();
    let (header, body) = header::decode_request(&frame.freeze())?;
    client.says_id(header.client_id.as_deref().unwrap_or_default());
    let body = match decode_request(header.api, header.version, body) {
        Ok(request) => Body::Request(request),
        // A client that does not know what we speak learns it from this very answer (KIP-511): version 0, with the
        // range of ApiVersions itself.
        Err(DecodeError::UnsupportedVersion { api: ApiKey::ApiVersions, .. }) => {
            Body::Refused(Response::ApiVersions(handlers::api_versions::unsupported()), 0)
        }
        Err(DecodeError::Message { api: ApiKey::ApiVersions, version, .. }) => {
            let refused = ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
            Body::Refused(Response::ApiVersions(refused), version)
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Parsed { header, body, received_at })
}

/// Runs the handler. Resolves when the next request of the connection may be handled: for a produce that is when the
/// places of its batches are fixed, for all others when they are answered.
pub async fn handle(core: &Rc<Core>, client: &Client, parsed: Parsed) -> Answer {
    let Parsed { header, body, received_at } = parsed;
    let seal = Seal { core: core.clone(), header, received_at };
    let request = match body {
        Body::Refused(response, version) => return ready(seal.sealed_as(version, response)),
        Body::Request(request) => request,
    };
    let version = seal.header.version;
    match request {
        Request::Produce(request) => {
            let silent = request.acks == 0;
            let pending = handlers::produce::begin(core, client, version, request);
            if silent {
                return Box::pin(async move {
                    match pending.finish_silent().await {
                        Ok(()) => Outcome::Silence,
                        Err(reason) => Outcome::Broken(format!("a produce with acks=0 failed: {reason}")),
                    }
                });
            }
            Box::pin(async move {
                let response = pending.finish().await;
                seal.sealed(Response::Produce(response))
            })
        }
        request => {
            let response = handlers::respond(core, client, version, request).await;
            ready(seal.sealed(response))
        }
    }
}

fn ready(outcome: Outcome) -> Answer {
    Box::pin(std::future::ready(outcome))
}

/// What is needed to turn a response into bytes, and to account for it.
struct Seal {
    core: Rc<Core>,
    header: RequestHeader,
    received_at: Instant,
}

impl Seal {
    fn sealed(self, response: Response) -> Outcome {
        let version = self.header.version;
        self.sealed_as(version, response)
    }

    fn sealed_as(self, version: i16, response: Response) -> Outcome {
        let took = self.core.runtime.clock.now().duration_since(self.received_at);
        self.core.metrics.request_answered(&response, took);
        match encode_response(version, self.header.correlation_id, &response) {
            Ok(chain) => Outcome::Response(chain),
            Err(error) => {
                // A defect of ours.
                tracing::error!(%error, "a response could not be encoded");
                Outcome::Broken(format!("its response could not be encoded: {error}"))
            }
        }
    }
}
