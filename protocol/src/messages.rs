//! Requests and responses as values, and the two doors between them and bytes.
//!
//! Produce and Fetch are our own, without copies ([`produce`], [`fetch`]). Every other message is the
//! `kafka-protocol` crate's type, which the rest of the house reaches through [`kafka`]; its decoders see only bodies
//! that [`crate::walk`] has walked. The crate ends one version short of ours in three requests: ListOffsets, where the
//! newest has no new field, and [`offset_commit`] and [`offset_fetch`], whose newest we read into the crate's types.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::api::{Api, ApiKey};
use crate::chain::Chain;
use crate::reader::Malformed;
use crate::walk::{self, WalkError};
use crate::{frame, header};

pub mod common;
pub mod fetch;
pub mod offset_commit;
pub mod offset_fetch;
mod older;
pub mod produce;

/// The messages of the `kafka-protocol` crate.
pub use kafka_protocol::messages as kafka;

use fetch::{FetchRequest, FetchResponse};
use kafka::*;
use produce::{ProduceRequest, ProduceResponse};

/// Declares [`Request`] and [`Response`] and their codecs for the messages that are the crate's.
macro_rules! messages {
    ($($api:ident: $request:ident, $response:ident;)*) => {
        /// A request, decoded.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "the variants are the APIs")]
        pub enum Request {
            Produce(ProduceRequest),
            Fetch(FetchRequest),
            $($api($request),)*
        }

        /// A response to be encoded, or decoded by a client.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "the variants are the APIs")]
        pub enum Response {
            Produce(ProduceResponse),
            Fetch(FetchResponse),
            $($api($response),)*
        }

        impl Request {
            /// Which API it is of.
            pub fn api_key(&self) -> ApiKey {
                match self {
                    Request::Produce(_) => ApiKey::Produce,
                    Request::Fetch(_) => ApiKey::Fetch,
                    $(Request::$api(_) => ApiKey::$api,)*
                }
            }
        }

        impl Response {
            /// Which API it is of.
            pub fn api_key(&self) -> ApiKey {
                match self {
                    Response::Produce(_) => ApiKey::Produce,
                    Response::Fetch(_) => ApiKey::Fetch,
                    $(Response::$api(_) => ApiKey::$api,)*
                }
            }
        }

        $(
            impl Call for $request {
                const API: ApiKey = ApiKey::$api;
                type Response = $response;

                fn response(response: Response) -> Option<$response> {
                    match response {
                        Response::$api(response) => Some(response),
                        _ => None,
                    }
                }
            }

            impl From<$request> for Request {
                fn from(request: $request) -> Request {
                    Request::$api(request)
                }
            }

            impl From<$response> for Response {
                fn from(response: $response) -> Response {
                    Response::$api(response)
                }
            }
        )*

        fn decode_walked(api: &Api, version: i16, body: &mut Bytes) -> Result<Request, DecodeError> {
            let failed = |reason| DecodeError::Message { api: api.key, version, reason: format!("{reason:#}") };
            let as_version = crate_version(api.key, version);
            match api.key {
                ApiKey::Produce | ApiKey::Fetch => unreachable!("{} has a decoder of its own", api.name),
                $(ApiKey::$api => $request::decode(body, as_version).map(Request::$api).map_err(failed),)*
            }
        }

        fn decode_walked_response(api: &Api, version: i16, body: &mut Bytes) -> Result<Response, DecodeError> {
            let failed = |reason| DecodeError::Message { api: api.key, version, reason: format!("{reason:#}") };
            let as_version = crate_version(api.key, version);
            match api.key {
                ApiKey::Produce | ApiKey::Fetch => unreachable!("{} has a decoder of its own", api.name),
                $(ApiKey::$api => $response::decode(body, as_version).map(Response::$api).map_err(failed),)*
            }
        }

        fn encode_request_body(request: &Request, version: i16) -> Result<Chain, EncodeError> {
            match request {
                Request::Produce(request) => Ok(request.encode(version)),
                Request::Fetch(request) => Ok(request.encode(version)),
                Request::OffsetCommit(request) if version == offset_commit::VERSION => {
                    Ok(offset_commit::encode(request))
                }
                Request::OffsetFetch(request) if version == offset_fetch::VERSION => {
                    Ok(offset_fetch::encode(request))
                }
                $(Request::$api(request) => encode_with_crate(ApiKey::$api, version, request),)*
            }
        }

        fn encode_response_body(response: &Response, version: i16) -> Result<Chain, EncodeError> {
            match response {
                Response::Produce(response) => Ok(response.encode(version)),
                Response::Fetch(response) => Ok(response.encode(version)),
                $(Response::$api(response) => encode_with_crate(ApiKey::$api, version, response),)*
            }
        }
    };
}

messages! {
    ListOffsets: ListOffsetsRequest, ListOffsetsResponse;
    Metadata: MetadataRequest, MetadataResponse;
    OffsetCommit: OffsetCommitRequest, OffsetCommitResponse;
    OffsetFetch: OffsetFetchRequest, OffsetFetchResponse;
    FindCoordinator: FindCoordinatorRequest, FindCoordinatorResponse;
    JoinGroup: JoinGroupRequest, JoinGroupResponse;
    Heartbeat: HeartbeatRequest, HeartbeatResponse;
    LeaveGroup: LeaveGroupRequest, LeaveGroupResponse;
    SyncGroup: SyncGroupRequest, SyncGroupResponse;
    DescribeGroups: DescribeGroupsRequest, DescribeGroupsResponse;
    ListGroups: ListGroupsRequest, ListGroupsResponse;
    ApiVersions: ApiVersionsRequest, ApiVersionsResponse;
    CreateTopics: CreateTopicsRequest, CreateTopicsResponse;
    DeleteTopics: DeleteTopicsRequest, DeleteTopicsResponse;
    InitProducerId: InitProducerIdRequest, InitProducerIdResponse;
    OffsetForLeaderEpoch: OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse;
    DescribeConfigs: DescribeConfigsRequest, DescribeConfigsResponse;
    DeleteGroups: DeleteGroupsRequest, DeleteGroupsResponse;
    IncrementalAlterConfigs: IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse;
    OffsetDelete: OffsetDeleteRequest, OffsetDeleteResponse;
    DescribeCluster: DescribeClusterRequest, DescribeClusterResponse;
    DescribeLogDirs: DescribeLogDirsRequest, DescribeLogDirsResponse;
    CreatePartitions: CreatePartitionsRequest, CreatePartitionsResponse;
    ElectLeaders: ElectLeadersRequest, ElectLeadersResponse;
    AlterPartitionReassignments: AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse;
    ListPartitionReassignments: ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse;
    DescribeQuorum: DescribeQuorumRequest, DescribeQuorumResponse;
    UpdateFeatures: UpdateFeaturesRequest, UpdateFeaturesResponse;
    UnregisterBroker: UnregisterBrokerRequest, UnregisterBrokerResponse;
}

/// A request that knows the type of its response.
pub trait Call: Into<Request> {
    /// Which API it is of.
    const API: ApiKey;
    /// What answers it.
    type Response: Into<Response>;

    /// Takes the answer out of [`Response`]; `None` if it is another API's.
    fn response(response: Response) -> Option<Self::Response>;
}

impl Call for ProduceRequest {
    const API: ApiKey = ApiKey::Produce;
    type Response = ProduceResponse;

    fn response(response: Response) -> Option<ProduceResponse> {
        match response {
            Response::Produce(response) => Some(response),
            _ => None,
        }
    }
}

impl Call for FetchRequest {
    const API: ApiKey = ApiKey::Fetch;
    type Response = FetchResponse;

    fn response(response: Response) -> Option<FetchResponse> {
        match response {
            Response::Fetch(response) => Some(response),
            _ => None,
        }
    }
}

impl From<ProduceRequest> for Request {
    fn from(request: ProduceRequest) -> Request {
        Request::Produce(request)
    }
}

impl From<FetchRequest> for Request {
    fn from(request: FetchRequest) -> Request {
        Request::Fetch(request)
    }
}

impl From<ProduceResponse> for Response {
    fn from(response: ProduceResponse) -> Response {
        Response::Produce(response)
    }
}

impl From<FetchResponse> for Response {
    fn from(response: FetchResponse) -> Response {
        Response::Fetch(response)
    }
}

/// Why a body is no request. It ends the connection, but for a request for ApiVersions, which is answered all the same
/// (KIP-511).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A version the table does not serve.
    #[error("{api} v{version} is not served")]
    UnsupportedVersion {
        /// Which API.
        api: ApiKey,
        /// As asked for.
        version: i16,
    },
    /// The body departs from its shape.
    #[error(transparent)]
    Shape(#[from] WalkError),
    /// A body read by a decoder of our own is malformed.
    #[error("{api} v{version}: {condition}")]
    Malformed {
        /// Which API.
        api: ApiKey,
        /// In which version.
        version: i16,
        /// What is wrong.
        condition: Malformed,
    },
    /// The shape is right, a value is not (a string that is not UTF-8).
    #[error("{api} v{version}: {reason}")]
    Message {
        /// Which API.
        api: ApiKey,
        /// In which version.
        version: i16,
        /// What is wrong.
        reason: String,
    },
}

/// A message that cannot be said in a version: a mistake of whoever built it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{api} v{version} cannot be encoded: {reason}")]
pub struct EncodeError {
    /// Which API.
    pub api: ApiKey,
    /// In which version.
    pub version: i16,
    /// Which field cannot be said.
    pub reason: String,
}

/// Decodes a request body. Nothing is allocated before the body has been held against its shape.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_request(api: &Api, version: i16, mut body: Bytes) -> Result<Request, DecodeError> {
    if !api.serves(version) {
        return Err(DecodeError::UnsupportedVersion { api: api.key, version });
    }
    // Decoders of our own read through the bounded reader; walking first would say nothing more.
    let malformed = |condition| DecodeError::Malformed { api: api.key, version, condition };
    match (api.key, version) {
        (ApiKey::Produce, _) => {
            ProduceRequest::decode(version, &body).map(Request::Produce).map_err(malformed)
        }
        (ApiKey::Fetch, _) => FetchRequest::decode(version, &body).map(Request::Fetch).map_err(malformed),
        (ApiKey::OffsetCommit, offset_commit::VERSION) => {
            offset_commit::decode(&body).map(Request::OffsetCommit).map_err(malformed)
        }
        (ApiKey::OffsetFetch, offset_fetch::VERSION) => {
            offset_fetch::decode(&body).map(Request::OffsetFetch).map_err(malformed)
        }
        _ => {
            walk::walk_request(api, version, &body)?;
            decode_walked(api, version, &mut body)
        }
    }
}

/// Decodes a response body, for whoever is the client. As bounded as [`decode_request`].
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_response(api: &Api, version: i16, mut body: Bytes) -> Result<Response, DecodeError> {
    if !api.serves(version) {
        return Err(DecodeError::UnsupportedVersion { api: api.key, version });
    }
    let malformed = |condition| DecodeError::Malformed { api: api.key, version, condition };
    match api.key {
        ApiKey::Produce => ProduceResponse::decode(version, &body).map(Response::Produce).map_err(malformed),
        ApiKey::Fetch => FetchResponse::decode(version, &body).map(Response::Fetch).map_err(malformed),
        _ => {
            walk::walk_response(api, version, &body)?;
            decode_walked_response(api, version, &mut body)
        }
    }
}

/// The version in which the crate speaks ours: it ends at ListOffsets 10, and version 11 has the same fields.
fn crate_version(api: ApiKey, version: i16) -> i16 {
    if api == ApiKey::ListOffsets { version.min(10) } else { version }
}

fn encode_with_crate(api: ApiKey, version: i16, message: &impl Encodable) -> Result<Chain, EncodeError> {
    let failed = |reason| EncodeError { api, version, reason: format!("{reason:#}") };
    let as_version = crate_version(api, version);
    let mut bytes = BytesMut::with_capacity(message.compute_size(as_version).map_err(failed)?);
    message.encode(&mut bytes, as_version).map_err(failed)?;
    Ok(bytes.freeze().into())
}

/// Encodes a whole response frame: length, header, body.
///
/// A response is filled in the form of the newest version; what an older one cannot say is left out or said its way.
///
/// # Errors
/// If a field is set that an older version has never had, or the frame would exceed `i32::MAX` bytes.
pub fn encode_response(version: i16, correlation_id: i32, response: &Response) -> Result<Chain, EncodeError> {
    let api = response.api_key();
    let body = encode_response_body(&older::as_said_in(version, response), version)?;
    let mut front = BytesMut::with_capacity(frame::LENGTH_BYTES + 5);
    header::encode_response(api.api(), version, correlation_id, &mut front);
    framed(api, version, front, body)
}

/// Encodes a whole request frame: length, header, body.
///
/// # Errors
/// As [`encode_response`].
pub fn encode_request(header: &header::RequestHeader, request: &Request) -> Result<Chain, EncodeError> {
    let body = encode_request_body(request, header.version)?;
    let mut front = BytesMut::with_capacity(64);
    header::encode_request(header, &mut front);
    framed(header.api.key, header.version, front, body)
}

/// Puts length and header in front of a body. A body of one small piece is joined to them, to go out in one write.
fn framed(api: ApiKey, version: i16, header: BytesMut, mut body: Chain) -> Result<Chain, EncodeError> {
    const JOINED_BYTES_MAX: usize = 4096;
    let too_long = || EncodeError { api, version, reason: "the frame is longer than 2 GiB".to_owned() };
    let prefix = frame::prefix(header.len() + body.len()).ok_or_else(too_long)?;
    let joined = body.pop_front_up_to(JOINED_BYTES_MAX);
    let mut front = BytesMut::with_capacity(prefix.len() + header.len() + joined.len());
    front.extend_from_slice(&prefix);
    front.extend_from_slice(&header);
    front.extend_from_slice(&joined);
    body.push_front(front.freeze());
    Ok(body)
}
