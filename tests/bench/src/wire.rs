//! The little of Kafka's wire format that a bench needs: big-endian numbers, strings, frames, and the fixed versions of
//! the requests that the null broker answers and the driver sends.

use std::io;

/// Fixed, not negotiated: every broker under measurement is sent the very same bytes.
pub const PRODUCE: i16 = 0;
/// Version of Produce; the last but one that is not flexible, and understood by every broker since Kafka 2.1.
pub const PRODUCE_VERSION: i16 = 7;
/// API key of Fetch.
pub const FETCH: i16 = 1;
/// Version of Fetch: without sessions, so that a request says all it wants.
pub const FETCH_VERSION: i16 = 4;
/// API key of ListOffsets.
pub const LIST_OFFSETS: i16 = 2;
/// Version of ListOffsets.
pub const LIST_OFFSETS_VERSION: i16 = 1;
/// API key of Metadata.
pub const METADATA: i16 = 3;
/// Version of Metadata: the first that says whether topics may be made, and the last that is simple.
pub const METADATA_VERSION: i16 = 4;
/// API key of ApiVersions.
pub const API_VERSIONS: i16 = 18;
/// API key of InitProducerId.
pub const INIT_PRODUCER_ID: i16 = 22;

/// The one topic of every measurement.
pub const TOPIC: &str = "bench";

/// No frame that a bench deals in is longer, in bytes.
pub const FRAME_MAX: usize = 64 << 20;

/// Appends one request's or response's fields.
pub trait Put {
    /// Raw bytes.
    fn put(&mut self, bytes: &[u8]);

    /// One byte.
    fn put_i8(&mut self, value: i8) {
        self.put(&value.to_be_bytes());
    }

    /// Two bytes.
    fn put_i16(&mut self, value: i16) {
        self.put(&value.to_be_bytes());
    }

    /// Four bytes.
    fn put_i32(&mut self, value: i32) {
        self.put(&value.to_be_bytes());
    }

    /// Eight bytes.
    fn put_i64(&mut self, value: i64) {
        self.put(&value.to_be_bytes());
    }

    /// A string with its length before it.
    fn put_string(&mut self, text: &str) {
        self.put_i16(text.len() as i16);
        self.put(text.as_bytes());
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Reads fields off the front of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `length` bytes; an error if the frame ends before.
    pub fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a frame ends too early"));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> io::Result<[u8; LENGTH]> {
        let taken = self.take(LENGTH)?;
        Ok(std::array::from_fn(|index| taken[index]))
    }

    /// One byte.
    pub fn i8(&mut self) -> io::Result<i8> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    /// Two bytes.
    pub fn i16(&mut self) -> io::Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    /// Four bytes.
    pub fn i32(&mut self) -> io::Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// Eight bytes.
    pub fn i64(&mut self) -> io::Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A string; null is the empty one.
    pub fn string(&mut self) -> io::Result<&'a str> {
        let length = self.i16()?.max(0) as usize;
        std::str::from_utf8(self.take(length)?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// Bytes with their length before them; null is none.
    pub fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let length = self.i32()?.max(0) as usize;
        self.take(length)
    }
}

/// A request with its header, framed; the correlation id is zero and lies at [`CORRELATION_AT`].
pub fn request(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    const CLIENT: &str = "bench";
    let mut frame = Vec::with_capacity(body.len() + 32);
    frame.put_i32((8 + 2 + CLIENT.len() + body.len()) as i32);
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(0);
    frame.put_string(CLIENT);
    frame.put(body);
    frame
}

/// Where a framed request holds its correlation id.
pub const CORRELATION_AT: std::ops::Range<usize> = 8..12;

/// A framed response to the request of that correlation id.
pub fn response(correlation: i32, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(body.len() + 8);
    frame.put_i32((4 + body.len()) as i32);
    frame.put_i32(correlation);
    frame.put(body);
    frame
}

/// The first whole frame of `bytes` without its length, and how many bytes it takes with it.
pub fn first_frame(bytes: &[u8]) -> io::Result<Option<(&[u8], usize)>> {
    let Some(length) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length) as usize;
    if length > FRAME_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    Ok(bytes.get(4..4 + length).map(|frame| (frame, 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read() {
        let mut bytes = Vec::new();
        bytes.put_i16(-2);
        bytes.put_i32(7);
        bytes.put_i64(1 << 40);
        bytes.put_string("ab");
        bytes.put_i8(3);
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.i16().unwrap(), reader.i32().unwrap(), reader.i64().unwrap()), (-2, 7, 1 << 40));
        assert_eq!((reader.string().unwrap(), reader.i8().unwrap(), reader.remaining()), ("ab", 3, 0));
        assert!(reader.i8().is_err());
    }

    #[test]
    fn frames_are_found_whole_or_not_at_all() {
        let frame = request(PRODUCE, PRODUCE_VERSION, b"body");
        assert_eq!(first_frame(&frame[..3]).unwrap(), None);
        assert_eq!(first_frame(&frame[..frame.len() - 1]).unwrap(), None);
        let two = [frame.clone(), frame.clone()].concat();
        let (first, taken) = first_frame(&two).unwrap().unwrap();
        assert_eq!((first, taken), (&frame[4..], frame.len()));
        assert_eq!(frame[CORRELATION_AT], [0; 4]);
        assert!(first_frame(&[0x7f, 0, 0, 0]).is_err(), "a length that no frame has");
    }
}
