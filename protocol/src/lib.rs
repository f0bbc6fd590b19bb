//! Kafka's wire: bytes to messages and back, nothing else.
//!
//! This crate knows the frames, the headers, which versions of which API exist, the shape of every request, and the
//! schemas of the records in internal topics. It deliberately does not know sockets, storage, topics that exist, or
//! what a request means: it takes bytes and gives values, and holds no state between two calls.
//!
//! Reading order: [`frame`] and [`header`] for what is in front of a body, [`api`] for THE table of versions,
//! [`messages`] for requests and responses ([`messages::produce`] and [`messages::fetch`] are our own, the rest is the
//! `kafka-protocol` crate's), [`shapes`] and [`walk`] for why no body can make a decoder allocate more than it is
//! worth, [`records`] for `__consumer_offsets`.
#![forbid(unsafe_code)]

pub mod api;
pub mod chain;
pub mod error_code;
pub mod frame;
#[cfg(test)]
mod fuzz;
pub mod header;
pub mod messages;
pub mod reader;
pub mod records;
pub mod sample;
pub mod shapes;
pub mod walk;
mod writer;

pub use api::{Api, ApiKey};
pub use chain::{Chain, Elsewhere, Piece};
pub use error_code::ErrorCode;
/// A string that is a slice of the frame it came in.
pub use kafka_protocol::protocol::StrBytes;
pub use messages::{
    DecodeError, EncodeError, Request, Response, decode_request, decode_response, encode_request,
    encode_response,
};
/// How the `kafka-protocol` crate's messages hold an id: `Uuid::from_bytes(topic_id.0)`, and `into_bytes()` back.
pub use uuid::Uuid;
