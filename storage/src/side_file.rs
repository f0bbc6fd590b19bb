//! The bytes of a side file (`.raft`), which holds a segment's entries that are no batches.
//!
//! ```text
//! header, 40 bytes   magic "OUZELRFT" | version u32 = 1 | segment base i64 | has prev u8, 3 zero | prev index u64
//!                    | prev term i32 | crc32c of all before u32
//! record             crc32c of all behind u32 | bytes behind this field u32 | index u64 | term i32 | next offset i64
//!                    | kind u8 | body
//! ```
//! Integers are big endian. Append only; only its last record can be torn.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, Offset};

use crate::entries::SideEntry;

const MAGIC: &[u8; 8] = b"OUZELRFT";
const VERSION: u32 = 1;
/// Bytes in front of the first record.
pub(crate) const HEADER_BYTES: usize = 40;
const RECORD_FIXED_BYTES: usize = 8 + 4 + 8 + 1;
const RECORD_BYTES_MIN: usize = 8 + RECORD_FIXED_BYTES;

/// What a side file says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SideFile {
    pub(crate) base: Offset,
    pub(crate) prev: Option<EntryId>,
    pub(crate) sides: Vec<SideEntry>,
    /// End of its last sound record; what is behind was torn.
    pub(crate) sound_bytes: u64,
    /// What a record behind that says, whose CRC does not agree: which entry it is, and the next offset.
    pub(crate) unsound: Option<(EntryId, Offset)>,
}

/// The bytes of a `.raftindex`: where each batch of a sealed segment ends, less the segment's base. Derived.
///
/// ```text
/// crc32c of all behind u32 | batches u32 | end u32 per batch
/// ```
pub(crate) fn encode_ends(ends: &[u32]) -> Vec<u8> {
    let mut behind = BytesMut::with_capacity(4 + 4 * ends.len());
    behind.put_u32(ends.len() as u32);
    ends.iter().for_each(|end| behind.put_u32(*end));
    let mut bytes = Vec::with_capacity(4 + behind.len());
    bytes.put_u32(crc32c::crc32c(&behind));
    bytes.put_slice(&behind);
    bytes
}

/// Reads [`encode_ends`]; `None` if the bytes are none.
pub(crate) fn decode_ends(mut bytes: &[u8]) -> Option<Vec<u32>> {
    if bytes.len() < 8 || bytes.get_u32() != crc32c::crc32c(bytes) {
        return None;
    }
    let count = bytes.get_u32() as usize;
    (bytes.len() == 4 * count).then(|| bytes.chunks_exact(4).map(|mut end| end.get_u32()).collect())
}

/// Why bytes are no side file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {position}: expected {expected}, found {found}")]
pub(crate) struct BadSideFile {
    pub(crate) position: u64,
    pub(crate) expected: &'static str,
    pub(crate) found: String,
}

pub(crate) fn encode_header(base: Offset, prev: Option<EntryId>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES);
    bytes.put_slice(MAGIC);
    bytes.put_u32(VERSION);
    bytes.put_i64(base.value());
    bytes.put_u8(u8::from(prev.is_some()));
    bytes.put_bytes(0, 3);
    bytes.put_u64(prev.map_or(0, |prev| prev.index.value()));
    bytes.put_i32(prev.map_or(0, |prev| prev.term.value()));
    let crc = crc32c::crc32c(&bytes);
    bytes.put_u32(crc);
    bytes.freeze()
}

pub(crate) fn encode_record(side: &SideEntry) -> Bytes {
    let mut behind = BytesMut::with_capacity(RECORD_BYTES_MIN + side.body.len());
    behind.put_u32((RECORD_FIXED_BYTES + side.body.len()) as u32);
    behind.put_u64(side.id.index.value());
    behind.put_i32(side.id.term.value());
    behind.put_i64(side.next_offset.value());
    behind.put_u8(side.kind);
    behind.put_slice(&side.body);
    let mut bytes = BytesMut::with_capacity(4 + behind.len());
    bytes.put_u32(crc32c::crc32c(&behind));
    bytes.put_slice(&behind);
    bytes.freeze()
}

/// Bytes of a record.
pub(crate) fn record_bytes(side: &SideEntry) -> u64 {
    (RECORD_BYTES_MIN + side.body.len()) as u64
}

/// Reads a side file; `None` if not even its header is whole: it was being made.
pub(crate) fn decode(bytes: &Bytes) -> Result<Option<SideFile>, BadSideFile> {
    if bytes.len() < HEADER_BYTES || bytes[..HEADER_BYTES].iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let mut header = bytes.slice(..HEADER_BYTES);
    let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
    if &header[..8] != MAGIC {
        let found = format!("{:02x?}", &header[..8]);
        return Err(BadSideFile { position: 0, expected: "the magic of a side file", found });
    }
    header.advance(8);
    let version = header.get_u32();
    if version != VERSION {
        let found = format!("version {version}; run the release that wrote it, or a later one");
        return Err(BadSideFile { position: 8, expected: "version 1", found });
    }
    let base = Offset(header.get_i64());
    let has_prev = header.get_u8() == 1;
    header.advance(3);
    let prev = EntryId { index: EntryIndex(header.get_u64()), term: LeaderEpoch(header.get_i32()) };
    if header.get_u32() != crc {
        return Err(BadSideFile { position: 36, expected: "the header's checksum", found: "another".into() });
    }
    let mut file = SideFile {
        base,
        prev: has_prev.then_some(prev),
        sides: Vec::new(),
        sound_bytes: HEADER_BYTES as u64,
        unsound: None,
    };
    let mut rest = bytes.slice(HEADER_BYTES..);
    while rest.len() >= RECORD_BYTES_MIN {
        let crc = (&rest[..4]).get_u32();
        let length = (&rest[4..8]).get_u32() as usize;
        if length < RECORD_FIXED_BYTES
            || rest.len() < 8 + length
            || crc32c::crc32c(&rest[4..8 + length]) != crc
        {
            break;
        }
        let mut record = rest.slice(8..8 + length);
        rest.advance(8 + length);
        let (index, term) = (EntryIndex(record.get_u64()), LeaderEpoch(record.get_i32()));
        let (next_offset, kind) = (Offset(record.get_i64()), record.get_u8());
        file.sides.push(SideEntry { id: EntryId { term, index }, next_offset, kind, body: record });
        file.sound_bytes += 8 + length as u64;
    }
    // A record behind one that is not sound was flushed after it: no crash explains that.
    if let Some(at) = (1..rest.len()).find(|at| is_sound(&rest[*at..])) {
        let position = file.sound_bytes;
        let found = format!("none, but a sound one {at} bytes on");
        return Err(BadSideFile { position, expected: "a sound record", found });
    }
    if rest.len() >= RECORD_BYTES_MIN {
        let mut record = rest.slice(8..);
        let (index, term) = (EntryIndex(record.get_u64()), LeaderEpoch(record.get_i32()));
        file.unsound = Some((EntryId { term, index }, Offset(record.get_i64())));
    }
    Ok(Some(file))
}

fn is_sound(bytes: &[u8]) -> bool {
    if bytes.len() < RECORD_BYTES_MIN {
        return false;
    }
    let (crc, length) = ((&bytes[..4]).get_u32(), (&bytes[4..8]).get_u32() as usize);
    (RECORD_FIXED_BYTES..=bytes.len() - 8).contains(&length) && crc32c::crc32c(&bytes[4..8 + length]) == crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(index: u64, term: i32, next: i64, body: &'static [u8]) -> SideEntry {
        let id = EntryId { term: LeaderEpoch(term), index: EntryIndex(index) };
        SideEntry { id, next_offset: Offset(next), kind: 2, body: Bytes::from_static(body) }
    }

    fn file(sides: &[SideEntry]) -> BytesMut {
        let prev = EntryId { term: LeaderEpoch(3), index: EntryIndex(41) };
        let mut bytes = BytesMut::from(&encode_header(Offset(1000), Some(prev))[..]);
        sides.iter().for_each(|side| bytes.extend_from_slice(&encode_record(side)));
        bytes
    }

    #[test]
    fn what_is_written_is_read_and_a_torn_end_is_left_aside() {
        let sides = [side(42, 4, 1000, b""), side(50, 4, 1070, b"members"), side(51, 5, 1070, b"x")];
        let whole = file(&sides);
        for cut in HEADER_BYTES..=whole.len() {
            let read = decode(&whole.clone().freeze().slice(..cut)).unwrap().unwrap();
            let sound: u64 = HEADER_BYTES as u64 + read.sides.iter().map(record_bytes).sum::<u64>();
            assert_eq!((read.base, read.sound_bytes), (Offset(1000), sound));
            assert_eq!(read.sides, sides[..read.sides.len()]);
            assert!(sound <= cut as u64);
        }
        for cut in 0..HEADER_BYTES {
            assert_eq!(decode(&whole.clone().freeze().slice(..cut)), Ok(None));
        }
    }

    #[test]
    fn a_flipped_bit_before_a_sound_record_is_damage() {
        let whole = file(&[side(42, 4, 1000, b"abc"), side(50, 4, 1070, b"members")]);
        let first_record = HEADER_BYTES..HEADER_BYTES + RECORD_BYTES_MIN + 3;
        for at in (0..HEADER_BYTES).chain(first_record) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            decode(&flipped.freeze()).expect_err(&format!("byte {at}"));
        }
    }

    /// The format is for ever.
    #[test]
    fn golden_bytes() {
        let hex: String =
            file(&[side(42, 4, 1000, b"ab")]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "4f555a454c5246540000000100000000000003e8010000000000000000000029000000030098cd0d07b6128900000017000000000000002a0000000400000000000003e8026162"
        );
    }
}
