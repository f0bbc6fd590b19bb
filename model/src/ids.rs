//! Names and numbers that identify things.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest topic name Kafka allows: the directory name must still fit `-<partition>` and a `-delete` suffix in 255 bytes.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// A legal topic name: `[a-zA-Z0-9._-]{1,249}`, neither `.` nor `..`, so that it is also a safe directory name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Why a text is no topic name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopicName {
    /// Nothing at all.
    #[error("a topic name is empty; give it at least one character")]
    Empty,
    /// `.` or `..`, which are directories already.
    #[error("topic name '{0}' is reserved; '.' and '..' cannot be used")]
    Reserved(String),
    /// Longer than [`TOPIC_NAME_BYTES_MAX`].
    #[error("topic name '{name}' has {bytes} characters; at most {TOPIC_NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// The name as given.
        name: String,
        /// Its length.
        bytes: usize,
    },
    /// A character outside the alphabet.
    #[error(
        "topic name '{name}' contains {character:?}; only ASCII letters, digits, '.', '_' and '-' are allowed"
    )]
    Character {
        /// The name as given.
        name: String,
        /// The first offender.
        character: char,
    },
}

impl TopicName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// See [`InvalidTopicName`].
    pub fn new(name: &str) -> Result<TopicName, InvalidTopicName> {
        if name.is_empty() {
            return Err(InvalidTopicName::Empty);
        }
        if name == "." || name == ".." {
            return Err(InvalidTopicName::Reserved(name.to_owned()));
        }
        if let Some(character) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
            return Err(InvalidTopicName::Character { name: name.to_owned(), character });
        }
        if name.len() > TOPIC_NAME_BYTES_MAX {
            return Err(InvalidTopicName::TooLong { name: name.to_owned(), bytes: name.len() });
        }
        Ok(TopicName(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the broker itself owns the topic: clients may read it but not write it.
    pub fn is_internal(&self) -> bool {
        matches!(self.as_str(), "__consumer_offsets" | "__transaction_state" | "__share_group_state")
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The identity of one topic incarnation: a topic deleted and created again under its name gets another id.
///
/// Text is Kafka's: the sixteen bytes in URL-safe base64 without padding (KIP-516).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// "No id" on the wire.
    pub const ZERO: TopicId = TopicId([0; 16]);

    /// Whether this is the wire's "no id".
    pub fn is_zero(&self) -> bool {
        *self == TopicId::ZERO
    }
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u128::from_be_bytes(self.0);
        // 22 characters carry 132 bits: the last one holds only two bits of the id, padded with zeroes below.
        (0..22).try_for_each(|i| {
            let bits = if i < 21 { number >> (122 - 6 * i) } else { number << 4 };
            write!(f, "{}", BASE64_URL[(bits & 63) as usize] as char)
        })
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no [`TopicId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a topic id; expected 22 characters of URL-safe base64")]
pub struct InvalidTopicId(String);

impl FromStr for TopicId {
    type Err = InvalidTopicId;
    fn from_str(text: &str) -> Result<TopicId, InvalidTopicId> {
        let invalid = || InvalidTopicId(text.to_owned());
        if text.len() != 22 {
            return Err(invalid());
        }
        let mut number: u128 = 0;
        for (i, byte) in text.bytes().enumerate() {
            let digit = BASE64_URL.iter().position(|b| *b == byte).ok_or_else(invalid)? as u128;
            if i < 21 {
                number |= digit << (122 - 6 * i);
            } else if digit & 15 != 0 {
                return Err(invalid());
            } else {
                number |= digit >> 4;
            }
        }
        Ok(TopicId(number.to_be_bytes()))
    }
}

/// Which of a topic's partitions, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionIndex(pub i32);

impl fmt::Display for PartitionIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition by the name of its topic; its text is the name of its directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: TopicName,
    /// The partition's index.
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One partition by the id of its topic: outlives nothing, not even a re-creation under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicIdPartition {
    /// The topic's id.
    pub topic_id: TopicId,
    /// The partition's index.
    pub partition: PartitionIndex,
}

/// A broker's number in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub i32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An idempotent producer's number, unique in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub i64);

impl ProducerId {
    /// "Not idempotent" in batches.
    pub const NONE: ProducerId = ProducerId(-1);
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A consumer group's name; any text, also one a file system would refuse.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(Arc<str>);

impl GroupId {
    /// Wraps a name.
    pub fn new(name: &str) -> GroupId {
        GroupId(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Java's `String.hashCode`, over UTF-16 units: tools compute a group's coordinator partition with it.
pub fn kafka_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// The partition of an internal topic that holds `key`: Kafka's `abs(hashCode) % partitions`.
///
/// Kafka's `abs` maps `i32::MIN` to 0, not to itself.
pub fn partition_for_key(key: &str, partitions: i32) -> PartitionIndex {
    PartitionIndex(kafka_hash(key).checked_abs().unwrap_or(0) % partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_alphabet() {
        for good in ["a", "A.b_c-9", "...", &"x".repeat(249)] {
            assert!(TopicName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            assert!(TopicName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn topic_ids_read_and_print_as_kafkas() {
        // Java: new Uuid(1, 2).toString()
        let one_two = TopicId([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(one_two.to_string(), "AAAAAAAAAAEAAAAAAAAAAg");
        for bytes in [[0u8; 16], [255; 16], *b"0123456789abcdef", one_two.0] {
            let id = TopicId(bytes);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for bad in ["", "AAAAAAAAAAEAAAAAAAAAAh", "AAAAAAAAAAEAAAAAAAAAA", "AAAAAAAAAAEAAAAAAAA=Ag"] {
            assert!(bad.parse::<TopicId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hashes_agree_with_java() {
        // "polygenelubricants".hashCode() == Integer.MIN_VALUE, Java's best known collision with abs().
        for (text, hash) in [("", 0), ("group", 98629247), ("polygenelubricants", i32::MIN)] {
            assert_eq!(kafka_hash(text), hash, "{text}");
        }
        assert_eq!(partition_for_key("polygenelubricants", 50), PartitionIndex(0));
    }
}
