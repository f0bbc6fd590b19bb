//! One frame between peers: a header of 32 bytes, then the lengths of the bodies, the head, the bodies.
//!
//! ```text
//!  0        4     5      6        7     8             16          20           24          28           32
//!  ├ payload ┼kind─┼flags─┼service─┼zero─┼ correlation ┼ head bytes ┼ body count ┼ head CRC ┼ header CRC ┤
//!  ├ body lengths (4 each) ┼ head ┼ body ┼ body ┼ …
//! ```
//!
//! All numbers are big-endian. The header's CRC (CRC-32C of the 28 bytes before it) is judged before any length in it
//! is believed; the head's covers the body lengths and the head. Bodies are not summed a second time: batches and
//! pieces of files carry checksums of their own, judged by who keeps them.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::wire::{Malformed, Reader};
use crate::transport::PeerMessage;

/// What precedes every payload.
pub(crate) const HEADER_BYTES: usize = 32;
/// More bodies than this are no message of ours.
pub(crate) const BODIES_MAX: usize = 65_536;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first frame of who connected.
    Hello = 1,
    /// The answer to a hello that is taken.
    Welcome = 2,
    /// The answer to one that is not, with the reason; the connection ends.
    Refusal = 3,
    /// A message that wants an answer.
    Call = 4,
    /// The answer.
    Answer = 5,
    /// The answer of a receiver that does not take the message: the head is the reason as text.
    Declined = 6,
    /// Asks whether the other end still reads; answered before anything else.
    Ping = 7,
    /// The answer to a ping.
    Pong = 8,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        use Kind::*;
        [Hello, Welcome, Refusal, Call, Answer, Declined, Ping, Pong]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A frame's header, whose lengths fit each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) service: u8,
    /// Pairs an answer with its call; chosen by the caller.
    pub(crate) correlation: u64,
    /// All that follows the header.
    pub(crate) payload_bytes: u32,
    head_bytes: u32,
    body_count: u32,
    head_crc: u32,
}

/// Bytes that are no frame, or not one that may come here. The connection cannot be trusted any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the header's checksum is {found:#010x}, expected {expected:#010x}")]
    HeaderCrc { expected: u32, found: u32 },
    #[error("the head's checksum is {found:#010x}, expected {expected:#010x}")]
    HeadCrc { expected: u32, found: u32 },
    #[error("there is no frame of kind {0}")]
    Kind(u8),
    #[error("unknown flags {0:#04x}")]
    Flags(u8),
    #[error("a frame of {bytes} bytes, at most {bytes_max} may come here")]
    TooLong { bytes: u64, bytes_max: u64 },
    #[error("the lengths within a frame do not fit each other")]
    Lengths,
}

impl From<Malformed> for FrameError {
    fn from(_: Malformed) -> FrameError {
        FrameError::Lengths
    }
}

impl Header {
    /// Reads a header; a frame may have `bytes_max` in all.
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES], bytes_max: usize) -> Result<Header, FrameError> {
        let (summed, crc) = bytes.split_at(HEADER_BYTES - 4);
        let expected = crc32c::crc32c(summed);
        let found = Reader::new(crc).u32("header CRC")?;
        if expected != found {
            return Err(FrameError::HeaderCrc { expected, found });
        }
        let mut reader = Reader::new(summed);
        let payload_bytes = reader.u32("payload")?;
        let kind = reader.u8("kind")?;
        let flags = reader.u8("flags")?;
        let service = reader.u8("service")?;
        let zero = reader.u8("zero")?;
        let header = Header {
            kind: Kind::of(kind).ok_or(FrameError::Kind(kind))?,
            service,
            correlation: reader.u64("correlation")?,
            payload_bytes,
            head_bytes: reader.u32("head bytes")?,
            body_count: reader.u32("body count")?,
            head_crc: reader.u32("head CRC")?,
        };
        if flags != 0 || zero != 0 {
            return Err(FrameError::Flags(flags | zero));
        }
        let (bytes, bytes_max) = (HEADER_BYTES as u64 + u64::from(payload_bytes), bytes_max as u64);
        if bytes > bytes_max {
            return Err(FrameError::TooLong { bytes, bytes_max });
        }
        let summed = u64::from(header.body_count) * 4 + u64::from(header.head_bytes);
        if header.body_count as usize > BODIES_MAX || summed > u64::from(payload_bytes) {
            return Err(FrameError::Lengths);
        }
        Ok(header)
    }

    /// Takes a payload apart; head and bodies share its memory.
    pub(crate) fn message(&self, mut payload: Bytes) -> Result<PeerMessage, FrameError> {
        assert_eq!(payload.len(), self.payload_bytes as usize, "the payload of another frame");
        let table_bytes = self.body_count as usize * 4;
        let expected = crc32c::crc32c(&payload[..table_bytes + self.head_bytes as usize]);
        if expected != self.head_crc {
            return Err(FrameError::HeadCrc { expected, found: self.head_crc });
        }
        let mut table = payload.split_to(table_bytes);
        let head = payload.split_to(self.head_bytes as usize);
        let mut bodies = Vec::with_capacity(self.body_count as usize);
        while table.has_remaining() {
            let body_bytes = table.get_u32() as usize;
            if body_bytes > payload.len() {
                return Err(FrameError::Lengths);
            }
            bodies.push(payload.split_to(body_bytes));
        }
        if !payload.is_empty() {
            return Err(FrameError::Lengths);
        }
        Ok(PeerMessage { head, bodies })
    }
}

/// Bytes of the frame that carries a message.
pub(crate) fn frame_bytes(message: &PeerMessage) -> usize {
    HEADER_BYTES + message.bodies.len() * 4 + message.size_bytes()
}

/// The front of the frame that carries a message: everything but its bodies, which follow it as they are.
///
/// # Panics
/// If the message has more bodies, or more bytes, than a frame can say. [`fits`] tells.
pub(crate) fn front(kind: Kind, service: u8, correlation: u64, message: &PeerMessage) -> Bytes {
    let front_bytes = HEADER_BYTES + message.bodies.len() * 4 + message.head.len();
    let payload_bytes = u32::try_from(frame_bytes(message) - HEADER_BYTES).expect("the caller asked `fits`");
    let mut front = BytesMut::with_capacity(front_bytes);
    front.put_u32(payload_bytes);
    front.put_slice(&[kind as u8, 0, service, 0]);
    front.put_u64(correlation);
    front.put_u32(message.head.len() as u32);
    front.put_u32(message.bodies.len() as u32);
    front.put_bytes(0, 8);
    for body in &message.bodies {
        front.put_u32(body.len() as u32);
    }
    front.put_slice(&message.head);
    let head_crc = crc32c::crc32c(&front[HEADER_BYTES..]);
    front[HEADER_BYTES - 8..HEADER_BYTES - 4].copy_from_slice(&head_crc.to_be_bytes());
    let header_crc = crc32c::crc32c(&front[..HEADER_BYTES - 4]);
    front[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&header_crc.to_be_bytes());
    front.freeze()
}

/// Whether a frame of at most `bytes_max` can carry a message.
pub(crate) fn fits(message: &PeerMessage, bytes_max: usize) -> bool {
    message.bodies.len() <= BODIES_MAX && frame_bytes(message) <= bytes_max.min(u32::MAX as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 1 << 20;

    fn whole(kind: Kind, message: &PeerMessage) -> Vec<u8> {
        let mut bytes = front(kind, 7, 99, message).to_vec();
        message.bodies.iter().for_each(|body| bytes.extend_from_slice(body));
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<(Header, PeerMessage), FrameError> {
        let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>().expect("32 bytes");
        let header = Header::parse(header, BYTES_MAX)?;
        let payload = payload.get(..header.payload_bytes as usize).ok_or(FrameError::Lengths)?;
        Ok((header, header.message(Bytes::copy_from_slice(payload))?))
    }

    fn message(head: &'static [u8], bodies: &[&'static [u8]]) -> PeerMessage {
        PeerMessage {
            head: Bytes::from_static(head),
            bodies: bodies.iter().map(|b| Bytes::from_static(b)).collect(),
        }
    }

    #[test]
    fn messages_come_back_whole() {
        for sent in [message(b"", &[]), message(b"head", &[]), message(b"h", &[b"one", b"", b"three"])] {
            let bytes = whole(Kind::Call, &sent);
            assert_eq!(bytes.len(), frame_bytes(&sent));
            let (header, received) = parse(&bytes).unwrap();
            assert_eq!((header.kind, header.service, header.correlation), (Kind::Call, 7, 99));
            assert_eq!(received, sent);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed_up_to_the_bodies() {
        let sent = message(b"a head", &[b"a body"]);
        let bytes = whole(Kind::Answer, &sent);
        for bit in 0..(bytes.len() - 6) * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&damaged).is_err(), "bit {bit}");
        }
    }

    /// A header that sums up well may still lie: its maker may be wrong, or mean harm.
    #[test]
    fn lengths_that_lie_are_refused() {
        let resummed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = whole(Kind::Call, &message(b"head", &[b"body"]));
            change(&mut bytes);
            let head_crc = crc32c::crc32c(&bytes[HEADER_BYTES..HEADER_BYTES + 8]);
            bytes[24..28].copy_from_slice(&head_crc.to_be_bytes());
            let header_crc = crc32c::crc32c(&bytes[..28]);
            bytes[28..32].copy_from_slice(&header_crc.to_be_bytes());
            parse(&bytes).map(|_| ()).unwrap_err()
        };
        let long = resummed(&|bytes| bytes[0..4].copy_from_slice(&u32::MAX.to_be_bytes()));
        assert!(matches!(long, FrameError::TooLong { bytes, .. } if bytes == 32 + u64::from(u32::MAX)));
        assert_eq!(resummed(&|b| b[16..20].copy_from_slice(&9u32.to_be_bytes())), FrameError::Lengths);
        assert_eq!(resummed(&|b| b[20..24].copy_from_slice(&u32::MAX.to_be_bytes())), FrameError::Lengths);
        assert_eq!(resummed(&|b| b[32..36].copy_from_slice(&3u32.to_be_bytes())), FrameError::Lengths);
        assert_eq!(resummed(&|b| b[32..36].copy_from_slice(&5u32.to_be_bytes())), FrameError::Lengths);
        assert_eq!(resummed(&|b| b[4] = 0), FrameError::Kind(0));
        assert_eq!(resummed(&|b| b[5] = 2), FrameError::Flags(2));
    }

    /// Random bytes whose header sums up well get as far as a sender that means harm.
    #[test]
    fn random_bytes_as_frames() {
        bolero::check!()
            .with_iterations(20_000)
            .with_test_time(std::time::Duration::from_millis(800))
            .with_max_len(1024)
            .for_each(|input: &[u8]| {
                if input.len() < HEADER_BYTES {
                    return;
                }
                assert!(Header::parse(&input[..HEADER_BYTES].try_into().unwrap(), 1 << 20).is_err());
                let mut bytes = input.to_vec();
                // Small lengths, or all of it would end there.
                bytes[0..2].fill(0);
                bytes[4] = bytes[4] % 8 + 1;
                (bytes[5], bytes[7]) = (0, 0);
                bytes[16..19].fill(0);
                bytes[20..23].fill(0);
                let summed = HEADER_BYTES + usize::from(bytes[19]) + 4 * usize::from(bytes[23]);
                if summed > bytes.len() {
                    return;
                }
                let head_crc = crc32c::crc32c(&bytes[HEADER_BYTES..summed]);
                bytes[24..28].copy_from_slice(&head_crc.to_be_bytes());
                let header_crc = crc32c::crc32c(&bytes[..28]);
                bytes[28..32].copy_from_slice(&header_crc.to_be_bytes());
                if let Ok((header, message)) = parse(&bytes) {
                    assert_eq!(frame_bytes(&message), HEADER_BYTES + header.payload_bytes as usize);
                }
            });
    }
}
