//! The one thing a coordinator reads inside a member's metadata: which topics a consumer subscribes to.
//!
//! Kafka does the same, to keep subscribed offsets from expiring or being deleted. The bytes are the client's, so
//! every length is checked; metadata that cannot be read means "unknown", never an error to the client.

use std::collections::BTreeSet;

use ouzel_model::TopicName;

/// The protocol type under which metadata has this form.
pub(crate) const CONSUMER: &str = "consumer";

/// Reads the head of a `ConsumerProtocolSubscription`: version i16, then an array (count i32) of names (length i16,
/// UTF-8). Later versions only append. Names no topic can have are skipped: nothing can be committed for them.
pub(crate) fn topics(metadata: &[u8]) -> Option<BTreeSet<TopicName>> {
    let mut reader = Reader(metadata);
    let version = i16::from_be_bytes(reader.take()?);
    if version < 0 {
        return None;
    }
    let count = i32::from_be_bytes(reader.take()?);
    let mut topics = BTreeSet::new();
    for _ in 0..usize::try_from(count).ok()? {
        let length = i16::from_be_bytes(reader.take()?);
        let name = reader.slice(usize::try_from(length).ok()?)?;
        if let Ok(topic) = TopicName::new(std::str::from_utf8(name).ok()?) {
            topics.insert(topic);
        }
    }
    Some(topics)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_names_its_topics() {
        let bytes = b"\x00\x01\x00\x00\x00\x02\x00\x01b\x00\x01a\xff\xff\xff\xff";
        let names: Vec<String> = topics(bytes).unwrap().iter().map(|name| name.as_str().to_owned()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn hostile_metadata_is_unknown() {
        for bytes in [
            &b""[..],
            b"\x00",
            b"\xff\xff\x00\x00\x00\x00",
            b"\x00\x00\x7f\xff\xff\xff",
            b"\x00\x00\xff\xff\xff\xff",
            b"\x00\x00\x00\x00\x00\x01\x7f\xffab",
            b"\x00\x00\x00\x00\x00\x01\x00\x01\xff",
        ] {
            assert_eq!(topics(bytes), None, "{bytes:?}");
        }
        assert_eq!(topics(b"\x00\x00\x00\x00\x00\x00"), Some(BTreeSet::new()));
    }
}
