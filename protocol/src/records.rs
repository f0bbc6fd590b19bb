//! The records of `__consumer_offsets`, byte for byte as Kafka 4.3 writes them: lag exporters and mirrors read the
//! topic themselves.
//!
//! A key begins with an `i16` that says what it is a key of; a value begins with the `i16` version of its own schema. A
//! record without a value is a tombstone. Keys of kinds we do not write (newer groups, share groups) are read as
//! [`Record::Unknown`], so that a log with them can still be replayed.
//!
//! [`offset_commit`] and [`group_metadata`] are the two kinds of record; [`consumer_protocol`] is what members of a
//! consumer group say to each other inside them.

use bytes::Bytes;

use crate::reader::{Malformed, Reader};

pub mod consumer_protocol;
pub mod group_metadata;
pub mod offset_commit;

use group_metadata::{GroupMetadataKey, GroupMetadataValue};
use offset_commit::{OffsetCommitKey, OffsetCommitValue};

/// One record of `__consumer_offsets`.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A group's progress in a partition, or that it is forgotten.
    OffsetCommit(OffsetCommitKey, Option<OffsetCommitValue>),
    /// A group's generation and members, or that the group is gone.
    GroupMetadata(GroupMetadataKey, Option<GroupMetadataValue>),
    /// A record of a kind that is not ours.
    Unknown {
        /// What its key begins with.
        key_type: i16,
    },
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A value of a known kind in a version nobody has described yet.
    #[error("{kind} in version {version}; versions up to {version_max} are known")]
    UnknownVersion {
        /// Of which kind.
        kind: &'static str,
        /// As read.
        version: i16,
        /// The highest one known.
        version_max: i16,
    },
    /// The bytes do not follow the schema.
    #[error("{kind}: {condition}")]
    Malformed {
        /// Of which kind.
        kind: &'static str,
        /// What is wrong.
        condition: Malformed,
    },
}

impl Record {
    /// Reads a record from its key and its value, `None` being the tombstone.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn decode(key: &Bytes, value: Option<&Bytes>) -> Result<Record, RecordError> {
        let mut reader = Reader::new(key, false);
        match reader.i16().map_err(malformed("record key"))? {
            OffsetCommitKey::TYPE_LEGACY | OffsetCommitKey::TYPE => {
                let value = value.map(OffsetCommitValue::decode).transpose()?;
                Ok(Record::OffsetCommit(OffsetCommitKey::decode(reader)?, value))
            }
            GroupMetadataKey::TYPE => {
                let value = value.map(GroupMetadataValue::decode).transpose()?;
                Ok(Record::GroupMetadata(GroupMetadataKey::decode(reader)?, value))
            }
            key_type => Ok(Record::Unknown { key_type }),
        }
    }

    /// Writes key and value as Kafka 4.3 writes them; `None` for a record that is not ours to write.
    pub fn encode(&self) -> Option<(Bytes, Option<Bytes>)> {
        match self {
            Record::OffsetCommit(key, value) => {
                Some((key.encode(), value.as_ref().map(OffsetCommitValue::encode)))
            }
            Record::GroupMetadata(key, value) => {
                Some((key.encode(), value.as_ref().map(GroupMetadataValue::encode)))
            }
            Record::Unknown { .. } => None,
        }
    }
}

fn malformed(kind: &'static str) -> impl Fn(Malformed) -> RecordError {
    move |condition| RecordError::Malformed { kind, condition }
}

/// Steps over the version in front of a value and gives a reader for it, whose lengths are compact from
/// `flexible_from`.
fn versioned<'a>(
    bytes: &'a Bytes,
    kind: &'static str,
    version_max: i16,
    flexible_from: i16,
) -> Result<(i16, Reader<'a>), RecordError> {
    let version = Reader::new(bytes, false).i16().map_err(malformed(kind))?;
    if !(0..=version_max).contains(&version) {
        return Err(RecordError::UnknownVersion { kind, version, version_max });
    }
    let mut reader = Reader::new(bytes, version >= flexible_from);
    reader.i16().map_err(malformed(kind))?;
    Ok((version, reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes from hexadecimal.
    pub(super) fn hex(digits: &str) -> Bytes {
        (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn keys_of_other_kinds_are_unknown_with_and_without_a_value() {
        // ConsumerGroupMetadataKey (type 3), as Kafka 4.3 writes it.
        let key = hex("0003000c6c61672d7761746368657273");
        let unknown = Record::Unknown { key_type: 3 };
        assert_eq!(Record::decode(&key, None), Ok(unknown.clone()));
        assert_eq!(Record::decode(&key, Some(&hex("0000ff"))), Ok(unknown.clone()));
        assert_eq!(unknown.encode(), None);
    }

    #[test]
    fn damaged_records_are_refused_with_their_kind() {
        let of =
            |key: &str, value: &str| Record::decode(&hex(key), Some(&hex(value))).unwrap_err().to_string();
        assert_eq!(of("00", ""), "record key: byte 0: 2 bytes needed, 1 left");
        assert_eq!(
            of("00020001", "0003"),
            "GroupMetadataValue: byte 2: 2 bytes needed, 0 left",
            "the value is read first"
        );
        assert_eq!(
            of("0001000167000174000000", "0005"),
            "OffsetCommitValue in version 5; versions up to 4 are known"
        );
        assert_eq!(
            Record::decode(&hex("0001000167000174000000"), None).unwrap_err().to_string(),
            "OffsetCommitKey: byte 8: 4 bytes needed, 3 left"
        );
        assert_eq!(
            Record::decode(&hex("0002000167ff"), None).unwrap_err().to_string(),
            "GroupMetadataKey: byte 5: 1 bytes after the end of the message"
        );
    }
}
