//! Small big-endian values in the heads of peer messages: how they are put, and a reader that never reads past its end.

use bytes::{BufMut, BytesMut};
use ouzel_model::{LeaderEpoch, NodeId, PartitionIndex, ReplicaId, TopicId, TopicIdPartition};

/// Bytes that do not say what they should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end in the middle of something.
    #[error("the bytes end within {0}")]
    Short(&'static str),
    /// A count or a length beyond what may be.
    #[error("{what} is {found}, at most {max} is possible")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// What came.
        found: usize,
        /// What may come.
        max: usize,
    },
    /// A value that means nothing.
    #[error("{what} cannot be {found}")]
    Meaningless {
        /// Which.
        what: &'static str,
        /// What came.
        found: i64,
    },
    /// A text that is not UTF-8.
    #[error("{0} is not UTF-8")]
    NotText(&'static str),
}

/// Reads values off the front of some bytes.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub(crate) fn take(&mut self, bytes: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(bytes).ok_or(Malformed::Short(what))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(Malformed::Short(what))?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn i32(&mut self, what: &'static str) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn topic_id(&mut self, what: &'static str) -> Result<TopicId, Malformed> {
        Ok(TopicId(self.array(what)?))
    }

    pub(crate) fn replica(&mut self, what: &'static str) -> Result<ReplicaId, Malformed> {
        Ok(ReplicaId::from_u64(self.u64(what)?))
    }

    pub(crate) fn group(&mut self, what: &'static str) -> Result<TopicIdPartition, Malformed> {
        Ok(TopicIdPartition { topic_id: self.topic_id(what)?, partition: PartitionIndex(self.i32(what)?) })
    }

    pub(crate) fn epoch(&mut self, what: &'static str) -> Result<LeaderEpoch, Malformed> {
        Ok(LeaderEpoch(self.i32(what)?))
    }

    pub(crate) fn node(&mut self, what: &'static str) -> Result<NodeId, Malformed> {
        Ok(NodeId(self.i32(what)?))
    }

    /// A count of things that take at least `bytes_each`: what follows bounds it, before anything is made room for.
    pub(crate) fn count(
        &mut self,
        what: &'static str,
        bytes_each: usize,
        max: usize,
    ) -> Result<usize, Malformed> {
        let found = usize::from(self.u16(what)?);
        let max = max.min(self.bytes.len() / bytes_each.max(1));
        if found > max { Err(Malformed::TooMany { what, found, max }) } else { Ok(found) }
    }

    pub(crate) fn text(&mut self, what: &'static str, bytes_max: usize) -> Result<&'a str, Malformed> {
        let found = self.count(what, 1, bytes_max)?;
        std::str::from_utf8(self.take(found, what)?).map_err(|_| Malformed::NotText(what))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Puts a text that [`Reader::text`] reads, cut at `bytes_max` (and at most 65,535 bytes), at a character's end.
pub(crate) fn put_text(to: &mut BytesMut, text: &str, bytes_max: usize) {
    let mut end = text.len().min(bytes_max).min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    to.put_u16(end as u16);
    to.put_slice(&text.as_bytes()[..end]);
}

/// Puts a group as [`Reader::group`] reads it.
pub(crate) fn put_group(to: &mut BytesMut, group: &TopicIdPartition) {
    to.put_slice(&group.topic_id.0);
    to.put_i32(group.partition.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_nothing_is_read_past_the_end() {
        let group = TopicIdPartition { topic_id: TopicId([7; 16]), partition: PartitionIndex(3) };
        let mut bytes = BytesMut::new();
        put_text(&mut bytes, "grüße", 100);
        put_group(&mut bytes, &group);
        for cut in 0..bytes.len() {
            let mut reader = Reader::new(&bytes[..cut]);
            assert!(reader.text("t", 100).and_then(|_| reader.group("g")).is_err(), "cut at {cut}");
        }
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.text("t", 100), Ok("grüße"));
        assert_eq!(reader.group("g"), Ok(group));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let mut bytes = BytesMut::new();
        put_text(&mut bytes, "grüße", 3);
        assert_eq!(Reader::new(&bytes).text("t", 100), Ok("gr"));
    }

    #[test]
    fn a_count_is_bounded_by_what_follows() {
        let bytes = [0xff, 0xff, 1, 2, 3];
        assert_eq!(
            Reader::new(&bytes).count("things", 2, 9),
            Err(Malformed::TooMany { what: "things", found: 65_535, max: 1 })
        );
    }
}
