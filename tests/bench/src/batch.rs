//! Record batches of format 2: built whole before a measurement, walked by their headers after it.

use std::io;

use crate::wire::Put;

/// Bytes before the records of a batch.
pub const HEADER_BYTES: usize = 61;
/// Base offset and length: the part of a batch that its length does not count.
const BEFORE_LENGTH_ENDS: usize = 12;
const CRC_AT: usize = 17;
/// From here on the CRC counts.
const CRC_FROM: usize = 21;

/// What the records of a batch look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Records of a batch.
    pub records: u32,
    /// Bytes of each record's value.
    pub value_bytes: usize,
    /// Whether each record has a key of eight bytes.
    pub keyed: bool,
}

/// Builds a batch. `seed` decides its contents; they do not compress. `now_ms` stamps every record.
pub fn build(shape: Shape, seed: u64, now_ms: i64) -> Vec<u8> {
    let mut random = Noise(seed.wrapping_mul(2).wrapping_add(1));
    let mut records = Vec::with_capacity(shape.records as usize * (shape.value_bytes + 24));
    let mut record = Vec::with_capacity(shape.value_bytes + 24);
    for delta in 0..shape.records {
        record.clear();
        record.put_i8(0);
        put_varint(&mut record, 0);
        put_varint(&mut record, i64::from(delta));
        if shape.keyed {
            put_varint(&mut record, 8);
            record.put(&random.next().to_be_bytes());
        } else {
            put_varint(&mut record, -1);
        }
        put_varint(&mut record, shape.value_bytes as i64);
        let value_ends = record.len() + shape.value_bytes;
        while record.len() < value_ends {
            record.put(&random.next().to_be_bytes());
        }
        record.truncate(value_ends);
        put_varint(&mut record, 0);
        put_varint(&mut records, record.len() as i64);
        records.put(&record);
    }
    let mut batch = Vec::with_capacity(HEADER_BYTES + records.len());
    batch.put_i64(0); // base offset
    batch.put_i32((HEADER_BYTES - BEFORE_LENGTH_ENDS + records.len()) as i32);
    batch.put_i32(-1); // leader epoch
    batch.put_i8(2); // magic
    batch.put_i32(0); // CRC, below
    batch.put_i16(0); // attributes: no codec, create time
    batch.put_i32(shape.records as i32 - 1);
    batch.put_i64(now_ms);
    batch.put_i64(now_ms);
    batch.put_i64(-1); // producer id
    batch.put_i16(-1); // producer epoch
    batch.put_i32(-1); // base sequence
    batch.put_i32(shape.records as i32);
    batch.put(&records);
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes that no codec makes smaller; the same for the same seed.
#[derive(Debug)]
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The header of a batch, as far as a bench asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offsets that the batch takes.
    pub offsets: i64,
    /// Bytes of the whole batch.
    pub bytes: usize,
}

/// Reads the header at the front of `bytes`; none if it is cut off before it says how long it is.
pub fn header(bytes: &[u8]) -> Option<Header> {
    let at = |from: usize| bytes.get(from..from + 4).map(|four| std::array::from_fn(|index| four[index]));
    let base = *bytes.first_chunk::<8>()?;
    Some(Header {
        base_offset: i64::from_be_bytes(base),
        offsets: i64::from(i32::from_be_bytes(at(23)?)) + 1,
        bytes: BEFORE_LENGTH_ENDS + i32::from_be_bytes(at(8)?).max(0) as usize,
    })
}

/// Checks length and CRC of the one batch in `bytes`.
pub fn check(bytes: &[u8]) -> io::Result<Header> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("a batch {what}"));
    let header = header(bytes).ok_or_else(|| wrong("without a header"))?;
    if header.bytes != bytes.len() {
        return Err(wrong("of another length than it says"));
    }
    let said: [u8; 4] = std::array::from_fn(|index| bytes[CRC_AT + index]);
    match crc32c::crc32c(&bytes[CRC_FROM..]) == u32::from_be_bytes(said) {
        true => Ok(header),
        false => Err(wrong("with a wrong CRC")),
    }
}

/// Adds up the whole batches in what a fetch returned, which may end in a part of one.
pub fn walk(mut bytes: &[u8], mut whole: impl FnMut(Header)) {
    while let Some(found) = header(bytes) {
        let Some(rest) = bytes.get(found.bytes..) else { return };
        whole(found);
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { records: 3, value_bytes: 100, keyed: true };

    #[test]
    fn a_built_batch_is_whole_and_a_flipped_bit_is_found() {
        let mut batch = build(SHAPE, 1, 5);
        assert_eq!(check(&batch).unwrap(), Header { base_offset: 0, offsets: 3, bytes: batch.len() });
        // length, attributes, time delta, offset delta, key length, key, value length (two bytes), value, headers
        assert_eq!(batch.len(), HEADER_BYTES + 3 * (2 + 1 + 1 + 1 + 1 + 8 + 2 + 100 + 1));
        *batch.last_mut().unwrap() ^= 1;
        assert!(check(&batch).is_err());
    }

    #[test]
    fn contents_follow_the_seed() {
        assert_eq!(build(SHAPE, 4, 5), build(SHAPE, 4, 5));
        assert_ne!(build(SHAPE, 4, 5), build(SHAPE, 5, 5));
    }

    #[test]
    fn a_walk_stops_where_a_batch_is_cut_off() {
        let batch = build(SHAPE, 1, 5);
        let bytes = [&batch[..], &batch[..], &batch[..40]].concat();
        let mut seen = 0;
        walk(&bytes, |header| seen += header.offsets);
        assert_eq!(seen, 6);
    }

    #[test]
    fn varints_are_zigzag() {
        for (value, bytes) in [(0, &[0u8][..]), (-1, &[1]), (1, &[2]), (64, &[0x80, 1]), (100, &[0xc8, 1])] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes, "{value}");
        }
    }
}
