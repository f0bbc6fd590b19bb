//! Zigzag variable-length integers, as records use them.

use std::io::{self, BufRead};

/// Appends a zigzag varint.
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

/// Reads a zigzag varint of at most 64 bits.
///
/// # Errors
/// `UnexpectedEof`, or `InvalidData` when it goes on past ten bytes.
pub fn read_varlong(from: &mut impl BufRead) -> io::Result<i64> {
    let mut zigzag: u64 = 0;
    for shift in (0..64).step_by(7) {
        let byte = read_byte(from)?;
        zigzag |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a variable-length integer does not end"))
}

/// Reads a zigzag varint that must fit 32 bits.
///
/// # Errors
/// As [`read_varlong`], and `InvalidData` when the value is larger.
pub fn read_varint(from: &mut impl BufRead) -> io::Result<i32> {
    i32::try_from(read_varlong(from)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a variable-length integer exceeds 32 bits"))
}

pub(super) fn read_byte(from: &mut impl BufRead) -> io::Result<u8> {
    let byte = *from.fill_buf()?.first().ok_or(io::ErrorKind::UnexpectedEof)?;
    from.consume(1);
    Ok(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_are_bounded() {
        for value in [0, 1, -1, 63, -64, 64, 300, -300, i64::from(i32::MAX), i64::MIN, i64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(read_varlong(&mut &bytes[..]).unwrap(), value);
        }
        assert_eq!(read_varlong(&mut &[0xff; 11][..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_varlong(&mut &[0xff; 3][..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut wide = Vec::new();
        put_varint(&mut wide, i64::from(i32::MAX) + 1);
        assert_eq!(read_varint(&mut &wide[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
