//! The headers in front of every request and response.
//!
//! A request header says which API and version the body is in. Version 2 of it adds tagged fields; the client id stays
//! an old-style nullable string in both, so that the beginning can be read before the version is known (KIP-511).

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::api::{self, Api};
use crate::frame::REQUEST_BYTES_MIN;
use crate::reader::{Malformed, Reader};

/// What is in front of a request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The row of the API asked for.
    pub api: &'static Api,
    /// The version of the body; not yet held against the row.
    pub version: i16,
    /// Returned with the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
}

/// Why a frame does not begin with a request header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// An API that is not in the table. Without its row the header cannot be read on; the connection is closed.
    #[error("api key {key} (version {version}) is not served")]
    UnknownApi {
        /// As read.
        key: i16,
        /// As read.
        version: i16,
    },
    /// The bytes are no header.
    #[error("request header: {0}")]
    Malformed(#[from] Malformed),
}

/// Reads the header of a request and returns it with the body.
///
/// The version is *not* judged: an ApiVersions request of any version must be answered, in version 0 if need be,
/// while other versions out of range close the connection.
///
/// # Errors
/// See [`HeaderError`].
pub fn decode_request(frame: &Bytes) -> Result<(RequestHeader, Bytes), HeaderError> {
    let mut reader = Reader::new(frame, false);
    let (key, version) = (reader.i16()?, reader.i16()?);
    let correlation_id = reader.i32()?;
    let Some(api) = api::find(key) else { return Err(HeaderError::UnknownApi { key, version }) };
    let client_id = reader.string_or_null()?;
    let mut at = reader.position();
    if api.request_header_version(version) == 2 {
        let rest = frame.slice(at..);
        let mut tags = Reader::new(&rest, true);
        tags.skip_tagged()?;
        at += tags.position();
    }
    Ok((RequestHeader { api, version, correlation_id, client_id }, frame.slice(at..)))
}

/// Writes the header of a request.
pub fn encode_request(header: &RequestHeader, into: &mut BytesMut) {
    into.reserve(REQUEST_BYTES_MIN + 3 + header.client_id.as_ref().map_or(0, |id| id.len()));
    into.put_i16(header.api.key as i16);
    into.put_i16(header.version);
    into.put_i32(header.correlation_id);
    match &header.client_id {
        Some(id) => {
            let id = &id[..id.floor_char_boundary(i16::MAX as usize)];
            into.put_i16(id.len() as i16);
            into.put_slice(id.as_bytes());
        }
        None => into.put_i16(-1),
    }
    if header.api.request_header_version(header.version) == 2 {
        into.put_u8(0);
    }
}

/// The header of a response to a request of this API and version.
pub fn encode_response(api: &Api, version: i16, correlation_id: i32, into: &mut BytesMut) {
    into.put_i32(correlation_id);
    if api.response_header_version(version) == 1 {
        into.put_u8(0);
    }
}

/// The correlation id at the front of any response, before it is known which request it answers.
///
/// # Errors
/// If there are not even four bytes.
pub fn peek_correlation_id(frame: &Bytes) -> Result<i32, Malformed> {
    Reader::new(frame, false).i32()
}

/// Steps over the header of a response and returns the body.
///
/// # Errors
/// If the bytes are no header of that version.
pub fn decode_response(api: &Api, version: i16, frame: &Bytes) -> Result<(i32, Bytes), Malformed> {
    let mut reader = Reader::new(frame, api.response_header_version(version) == 1);
    let correlation_id = reader.i32()?;
    reader.skip_tagged()?;
    Ok((correlation_id, frame.slice(reader.position()..)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ApiKey;

    fn header(key: ApiKey, version: i16, client_id: Option<&'static str>) -> RequestHeader {
        let client_id = client_id.map(StrBytes::from_static_str);
        RequestHeader { api: key.api(), version, correlation_id: 0x01020304, client_id }
    }

    #[test]
    fn headers_read_back_for_every_api_and_version() {
        for api in &api::APIS {
            for version in api.min..=api.max {
                for client_id in [None, Some(""), Some("rdkafka")] {
                    let header = header(api.key, version, client_id);
                    let mut frame = BytesMut::new();
                    encode_request(&header, &mut frame);
                    frame.put_slice(b"body");
                    let (read, body) = decode_request(&frame.freeze()).unwrap();
                    assert_eq!((read, &body[..]), (header, &b"body"[..]));

                    let mut frame = BytesMut::new();
                    encode_response(api, version, 77, &mut frame);
                    frame.put_slice(b"body");
                    let frame = frame.freeze();
                    assert_eq!(peek_correlation_id(&frame), Ok(77));
                    assert_eq!(decode_response(api, version, &frame).unwrap(), (77, Bytes::from("body")));
                }
            }
        }
    }

    #[test]
    fn the_bytes_are_kafkas() {
        let mut frame = BytesMut::new();
        encode_request(&header(ApiKey::Metadata, 9, Some("ab")), &mut frame);
        assert_eq!(frame, &[0, 3, 0, 9, 1, 2, 3, 4, 0, 2, b'a', b'b', 0][..]);
        frame.clear();
        encode_request(&header(ApiKey::Metadata, 8, None), &mut frame);
        assert_eq!(frame, &[0, 3, 0, 8, 1, 2, 3, 4, 0xff, 0xff][..]);
        frame.clear();
        encode_response(ApiKey::ApiVersions.api(), 3, 5, &mut frame);
        assert_eq!(frame, &[0, 0, 0, 5][..]);
    }

    #[test]
    fn tagged_fields_of_the_header_are_stepped_over() {
        let frame = Bytes::from_static(&[0, 18, 0, 3, 0, 0, 0, 1, 0, 1, b'c', 1, 9, 2, 0xaa, 0xbb, 42]);
        let (header, body) = decode_request(&frame).unwrap();
        assert_eq!(header.client_id.as_deref(), Some("c"));
        assert_eq!(&body[..], [42]);
    }

    #[test]
    fn bad_headers_are_refused() {
        let of = |bytes: &'static [u8]| decode_request(&Bytes::from_static(bytes)).unwrap_err();
        assert_eq!(of(&[0, 3, 0, 1, 0, 0]), Malformed::Short { at: 4, needed: 4, left: 2 }.into());
        assert_eq!(of(&[0x7f, 0, 0, 1, 0, 0, 0, 0]), HeaderError::UnknownApi { key: 0x7f00, version: 1 });
        assert_eq!(
            of(&[0, 3, 0, 1, 0, 0, 0, 0, 0x7f, 0xff]),
            Malformed::Short { at: 10, needed: 0x7fff, left: 0 }.into()
        );
        assert_eq!(
            of(&[0, 3, 0, 1, 0, 0, 0, 0, 0x80, 0]),
            Malformed::NegativeLength { at: 8, length: -32768 }.into()
        );
        // A header of version 2 that claims 200 tagged fields in no bytes.
        assert!(matches!(
            of(&[0, 3, 0, 9, 0, 0, 0, 0, 0xff, 0xff, 0xc8, 0x01]),
            HeaderError::Malformed(Malformed::Count { count: 200, .. })
        ));
    }
}
