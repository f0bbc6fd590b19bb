//! The records that every driver makes of a producer's name and a sequence number, said once more in Rust: what the
//! checker expects to come back. The drivers send and read bytes; only digests of them travel to the orchestrator.

/// How the records of a producer look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Null keys, null values, binary values up to so many bytes, headers of every kind, null ones where the library
    /// sends such.
    Full { value_bytes: u64, null_headers: bool },
    /// A line of text with a key, no header and no timestamp of its own: what kcat can send.
    Plain,
}

/// The digest of record `seq` of `producer`.
pub(super) fn digest(shape: Shape, producer: &str, seq: u64) -> u32 {
    match shape {
        Shape::Full { value_bytes, null_headers } => digest_of(
            key(seq).as_deref(),
            value(producer, seq, value_bytes).as_deref(),
            &headers(producer, seq, null_headers)
                .iter()
                .map(|(name, content)| (*name, content.as_deref()))
                .collect::<Vec<_>>(),
        ),
        Shape::Plain => {
            digest_of(Some(plain_key(seq).as_bytes()), Some(plain_value(producer, seq).as_bytes()), &[])
        }
    }
}

/// CRC-32 over the lengths and bytes of key, value and headers in order; null has the length -1.
pub(super) fn digest_of(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) -> u32 {
    let mut crc = Crc32::new();
    crc.part(key);
    crc.part(value);
    for (name, content) in headers {
        crc.part(Some(name.as_bytes()));
        crc.part(*content);
    }
    crc.finish()
}

/// Null now and then, but never where the value is: kafka-python sends no record without either.
fn key(seq: u64) -> Option<Vec<u8>> {
    (seq % 13 != 5 || seq % 17 == 3).then(|| format!("k{}", seq % 97).into_bytes())
}

fn value(producer: &str, seq: u64, value_bytes: u64) -> Option<Vec<u8>> {
    if seq % 17 == 3 {
        return None;
    }
    let mut value = format!("{producer}|{seq}|").into_bytes();
    value.extend((0..seq * 37 % value_bytes).map(|i| ((seq * 31 + i * 7) % 256) as u8));
    Some(value)
}

fn headers(producer: &str, seq: u64, null_headers: bool) -> Vec<(&'static str, Option<Vec<u8>>)> {
    let mut headers = vec![("who", Some(format!("{producer}|{seq}").into_bytes()))];
    if seq.is_multiple_of(5) {
        let null = (!null_headers).then(Vec::new);
        // No zero byte: kcat prints a header's value up to the first.
        headers.extend([
            ("h", Some(vec![255, 254, (1 + seq % 255) as u8])),
            ("n", null),
            ("h", Some(Vec::new())),
        ]);
    }
    headers
}

/// The key of a plain record.
pub(super) fn plain_key(seq: u64) -> String {
    format!("k{}", seq % 97)
}

/// The value of a plain record.
pub(super) fn plain_value(producer: &str, seq: u64) -> String {
    format!("{producer}|{seq}|{}", "walks under fast streams ".repeat(1 + (seq % 7) as usize))
}

/// The CRC-32 of zip and gzip, which every language has in its standard library.
pub(super) struct Crc32(u32);

impl Crc32 {
    pub(super) fn new() -> Crc32 {
        Crc32(!0)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u32::from(*byte);
            for _ in 0..8 {
                self.0 = (self.0 >> 1) ^ (0xEDB8_8320 & (self.0 & 1).wrapping_neg());
            }
        }
    }

    fn part(&mut self, part: Option<&[u8]>) {
        match part {
            None => self.bytes(b"-1|"),
            Some(bytes) => {
                self.bytes(format!("{}|", bytes.len()).as_bytes());
                self.bytes(bytes);
            }
        }
    }

    pub(super) fn finish(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_crc_that_others_compute() {
        let mut crc = Crc32::new();
        crc.bytes(b"123456789");
        assert_eq!(crc.finish(), 0xCBF4_3926, "the check value of CRC-32/ISO-HDLC");
    }

    #[test]
    fn the_digest_tells_null_from_empty_and_one_part_from_the_next() {
        let null = digest_of(None, Some(b""), &[]);
        let empty = digest_of(Some(b""), Some(b""), &[]);
        let moved = digest_of(Some(b"a"), Some(b"bc"), &[]);
        let other = digest_of(Some(b"ab"), Some(b"c"), &[]);
        assert_ne!(null, empty);
        assert_ne!(moved, other);
        assert_ne!(digest_of(None, None, &[("h", None)]), digest_of(None, None, &[("h", Some(b""))]));
    }

    #[test]
    fn full_records_have_nulls_headers_and_bytes_of_every_kind() {
        assert!((0..100).any(|seq| key(seq).is_none()));
        assert!((0..100).any(|seq| value("p", seq, 100).is_none()));
        assert!(headers("p", 5, true).iter().any(|(_, content)| content.is_none()));
        let all: Vec<u8> = (0..100).filter_map(|seq| value("p", seq, 300)).flatten().collect();
        assert!((0..=255).all(|byte| all.contains(&byte)));
    }
}
