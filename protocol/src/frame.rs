//! Length-prefixed frames: how the byte stream of a connection falls into requests and responses.
//!
//! A frame is a big-endian `i32` length and that many bytes. The length is the first thing a stranger can lie about,
//! so it is judged before a byte of the body is received and before memory for it is reserved.

use bytes::{Buf, Bytes, BytesMut};

/// The length prefix of a frame.
pub const LENGTH_BYTES: usize = 4;

/// The smallest request: api key, api version and correlation id (a nullable client id follows, but that is the
/// header's to miss).
pub const REQUEST_BYTES_MIN: usize = 8;

/// Why a length prefix cannot begin a request. The connection cannot be resynchronised after any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A negative length.
    #[error("a frame claims a length of {length} bytes")]
    Negative {
        /// As read from the wire.
        length: i32,
    },
    /// More than this side receives (a broker's `socket.request.max.bytes`).
    #[error("a frame claims {length} bytes, more than the {bytes_max} that are received{}", spoken(*length))]
    TooLarge {
        /// As read from the wire.
        length: i32,
        /// The bound it was held against.
        bytes_max: usize,
    },
    /// Too short to hold any header.
    #[error("a frame of {length} bytes is too short for a header ({bytes_min} bytes)")]
    TooShort {
        /// As read from the wire.
        length: i32,
        /// The least a header takes.
        bytes_min: usize,
    },
}

/// The smallest response: a correlation id.
pub const RESPONSE_BYTES_MIN: usize = 4;

/// Judges the length prefix of a request.
///
/// # Errors
/// See [`FrameError`]; whatever it is, the connection must be closed.
pub fn request_length(prefix: [u8; LENGTH_BYTES], bytes_max: usize) -> Result<usize, FrameError> {
    length_within(prefix, REQUEST_BYTES_MIN, bytes_max)
}

/// Judges the length prefix of a response.
///
/// # Errors
/// See [`FrameError`]; whatever it is, the connection must be closed.
pub fn response_length(prefix: [u8; LENGTH_BYTES], bytes_max: usize) -> Result<usize, FrameError> {
    length_within(prefix, RESPONSE_BYTES_MIN, bytes_max)
}

fn length_within(
    prefix: [u8; LENGTH_BYTES],
    bytes_min: usize,
    bytes_max: usize,
) -> Result<usize, FrameError> {
    let length = i32::from_be_bytes(prefix);
    let bytes = usize::try_from(length).map_err(|_| FrameError::Negative { length })?;
    if bytes > bytes_max {
        return Err(FrameError::TooLarge { length, bytes_max });
    }
    if bytes < bytes_min {
        return Err(FrameError::TooShort { length, bytes_min });
    }
    Ok(bytes)
}

/// Takes the first whole frame off `received`, without its length prefix; `None` while it is not whole yet.
///
/// The bytes are split off, not copied.
///
/// # Errors
/// See [`FrameError`]; `received` is left as it was.
pub fn split_request(received: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(prefix) = received.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let bytes = request_length(*prefix, bytes_max)?;
    if received.len() < LENGTH_BYTES + bytes {
        return Ok(None);
    }
    received.advance(LENGTH_BYTES);
    Ok(Some(received.split_to(bytes).freeze()))
}

/// The length prefix for a body of `bytes` bytes; `None` where an `i32` cannot say it.
pub fn prefix(bytes: usize) -> Option<[u8; LENGTH_BYTES]> {
    i32::try_from(bytes).ok().map(i32::to_be_bytes)
}

/// The two strangers that knock most often at a Kafka port give themselves away in these four bytes.
fn spoken(length: i32) -> &'static str {
    match &length.to_be_bytes() {
        b"GET " | b"POST" | b"PUT " | b"HEAD" => "; this looks like HTTP, but the port speaks Kafka",
        [0x16, 0x03, ..] => "; this looks like TLS, but the listener is plaintext",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 100;

    #[test]
    fn a_length_is_judged_by_value() {
        let judged = |length: i32| request_length(length.to_be_bytes(), MAX);
        assert_eq!(judged(8), Ok(8));
        assert_eq!(judged(100), Ok(100));
        assert_eq!(judged(101), Err(FrameError::TooLarge { length: 101, bytes_max: MAX }));
        assert_eq!(judged(i32::MAX), Err(FrameError::TooLarge { length: i32::MAX, bytes_max: MAX }));
        assert_eq!(judged(7), Err(FrameError::TooShort { length: 7, bytes_min: 8 }));
        assert_eq!(judged(0), Err(FrameError::TooShort { length: 0, bytes_min: 8 }));
        assert_eq!(judged(-1), Err(FrameError::Negative { length: -1 }));
        assert_eq!(judged(i32::MIN), Err(FrameError::Negative { length: i32::MIN }));
    }

    #[test]
    fn a_response_may_be_as_short_as_its_correlation_id() {
        assert_eq!(response_length([0, 0, 0, 4], MAX), Ok(4));
        assert_eq!(response_length([0, 0, 0, 3], MAX), Err(FrameError::TooShort { length: 3, bytes_min: 4 }));
    }

    #[test]
    fn strangers_are_named() {
        let words = |prefix: [u8; 4]| request_length(prefix, MAX).unwrap_err().to_string();
        assert!(words(*b"GET ").contains("HTTP"));
        assert!(words([0x16, 0x03, 0x01, 0x02]).contains("TLS"));
        assert!(!words([0x7f, 0, 0, 0]).contains("looks like"));
    }

    #[test]
    fn frames_leave_in_order_and_only_when_whole() {
        let first = [&9i32.to_be_bytes()[..], b"123456789"].concat();
        let second = [&8i32.to_be_bytes()[..], b"abcdefgh"].concat();
        let stream = [first, second].concat();
        let mut received = BytesMut::new();
        let mut frames = Vec::new();
        for byte in stream {
            received.extend_from_slice(&[byte]);
            while let Some(frame) = split_request(&mut received, MAX).unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames, [&b"123456789"[..], b"abcdefgh"]);
        assert!(received.is_empty());
    }

    #[test]
    fn a_body_longer_than_i32_has_no_prefix() {
        assert_eq!(prefix(5), Some([0, 0, 0, 5]));
        assert_eq!(prefix(i32::MAX as usize + 1), None);
    }
}
