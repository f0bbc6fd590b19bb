//! `OffsetCommitKey` and `OffsetCommitValue`: how far a group has come in one partition.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use ouzel_model::{LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId};

use super::{RecordError, malformed, versioned};
use crate::reader::{Malformed, Reader};
use crate::writer::Writer;

/// Whose progress, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OffsetCommitKey {
    /// The group.
    pub group: StrBytes,
    /// The topic it reads.
    pub topic: StrBytes,
    /// The partition it reads.
    pub partition: PartitionIndex,
}

impl OffsetCommitKey {
    /// What the key begins with.
    pub const TYPE: i16 = 1;
    /// What it began with before Kafka 0.9; the rest is the same.
    pub const TYPE_LEGACY: i16 = 0;

    /// Reads what follows the type.
    pub(super) fn decode(mut reader: Reader<'_>) -> Result<OffsetCommitKey, RecordError> {
        let mut read = || {
            let (group, topic) = (reader.string()?, reader.string()?);
            let partition = PartitionIndex(reader.i32()?);
            reader.end()?;
            Ok(OffsetCommitKey { group, topic, partition })
        };
        read().map_err(malformed("OffsetCommitKey"))
    }

    /// Writes the key.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new(false, 10 + self.group.len() + self.topic.len());
        writer.i16(Self::TYPE);
        writer.string(&self.group);
        writer.string(&self.topic);
        writer.i32(self.partition.0);
        writer.take().into_bytes()
    }
}

/// A group's progress in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitValue {
    /// The next record the group will read.
    pub offset: Offset,
    /// The epoch of the last record it read; `NONE` if unknown. From version 3.
    pub leader_epoch: LeaderEpoch,
    /// The client's own words.
    pub metadata: StrBytes,
    /// When the coordinator took the commit.
    pub commit_timestamp: TimestampMs,
    /// When a client of OffsetCommit 2 to 4 wanted the offset to expire. In version 1 alone.
    pub expire_timestamp: Option<TimestampMs>,
    /// The topic's incarnation; zero if unknown. From version 4.
    pub topic_id: TopicId,
}

impl OffsetCommitValue {
    const KIND: &'static str = "OffsetCommitValue";
    const VERSION_MAX: i16 = 4;
    const FLEXIBLE_FROM: i16 = 4;

    /// Reads a value of any version.
    ///
    /// # Errors
    /// If it does not follow its version's schema, or that is unknown.
    pub fn decode(bytes: &Bytes) -> Result<OffsetCommitValue, RecordError> {
        let (version, reader) = versioned(bytes, Self::KIND, Self::VERSION_MAX, Self::FLEXIBLE_FROM)?;
        Self::decode_fields(version, reader).map_err(malformed(Self::KIND))
    }

    fn decode_fields(version: i16, mut reader: Reader<'_>) -> Result<OffsetCommitValue, Malformed> {
        let offset = Offset(reader.i64()?);
        let leader_epoch = if version >= 3 { LeaderEpoch(reader.i32()?) } else { LeaderEpoch::NONE };
        let metadata = reader.string()?;
        let commit_timestamp = TimestampMs(reader.i64()?);
        let expire_timestamp = if version == 1 { Some(TimestampMs(reader.i64()?)) } else { None };
        let mut topic_id = TopicId::ZERO;
        reader.tagged(|tag, content| {
            if tag != 0 {
                return Ok::<_, Malformed>(false);
            }
            topic_id = TopicId(content.uuid()?);
            Ok(true)
        })?;
        reader.end()?;
        let expire_timestamp = expire_timestamp.filter(|at| *at != TimestampMs::NONE);
        Ok(OffsetCommitValue { offset, leader_epoch, metadata, commit_timestamp, expire_timestamp, topic_id })
    }

    /// Writes the value as Kafka 4.3 does: version 1 for an offset with an expiry, which newer versions cannot say
    /// (the epoch and the topic's id are lost), else version 4.
    pub fn encode(&self) -> Bytes {
        self.encode_as(if self.expire_timestamp.is_some() { 1 } else { 4 })
    }

    fn encode_as(&self, version: i16) -> Bytes {
        let mut writer = Writer::new(version >= Self::FLEXIBLE_FROM, 64 + self.metadata.len());
        writer.i16(version);
        writer.i64(self.offset.0);
        if version >= 3 {
            writer.i32(self.leader_epoch.0);
        }
        writer.string(&self.metadata);
        writer.i64(self.commit_timestamp.0);
        if version == 1 {
            writer.i64(self.expire_timestamp.unwrap_or(TimestampMs::NONE).0);
        }
        let topic_id = |writer: &mut Writer| writer.uuid(self.topic_id.0);
        writer.tagged([(!self.topic_id.is_zero()).then_some((0, &topic_id))]);
        writer.take().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::records::Record;
    use crate::records::tests::hex;

    const ID: TopicId = TopicId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);

    fn key() -> OffsetCommitKey {
        OffsetCommitKey { group: "lag-watchers".into(), topic: "orders".into(), partition: PartitionIndex(3) }
    }

    fn value() -> OffsetCommitValue {
        OffsetCommitValue {
            offset: Offset(42),
            leader_epoch: LeaderEpoch(7),
            metadata: "näh".into(),
            commit_timestamp: TimestampMs(1_700_000_000_123),
            expire_timestamp: None,
            topic_id: TopicId::ZERO,
        }
    }

    /// What Kafka 4.3's classes wrote for these values, in every version.
    #[test]
    fn bytes_are_kafkas() {
        let bytes = hex("0001000c6c61672d776174636865727300066f726465727300000003");
        assert_eq!(key().encode(), bytes);
        let Ok(Record::OffsetCommit(read, None)) = Record::decode(&bytes, None) else { panic!() };
        assert_eq!(read, key());
        let legacy = hex("0000000c6c61672d776174636865727300066f726465727300000003");
        assert_eq!(Record::decode(&legacy, None), Ok(Record::OffsetCommit(key(), None)));

        let old = || OffsetCommitValue { leader_epoch: LeaderEpoch::NONE, ..value() };
        let expiring = OffsetCommitValue { expire_timestamp: Some(TimestampMs(1_700_000_060_123)), ..old() };
        for (version, expected, bytes) in [
            (0, old(), "0000000000000000002a00046ec3a4680000018bcfe5687b"),
            (1, expiring.clone(), "0001000000000000002a00046ec3a4680000018bcfe5687b0000018bcfe652db"),
            (2, old(), "0002000000000000002a00046ec3a4680000018bcfe5687b"),
            (3, value(), "0003000000000000002a0000000700046ec3a4680000018bcfe5687b"),
            (4, value(), "0004000000000000002a00000007056ec3a4680000018bcfe5687b00"),
            (
                4,
                OffsetCommitValue { topic_id: ID, ..value() },
                "0004000000000000002a00000007056ec3a4680000018bcfe5687b0100100102030405060708090a0b0c0d0e0f10",
            ),
        ] {
            assert_eq!(OffsetCommitValue::decode(&hex(bytes)).as_ref(), Ok(&expected), "v{version}");
            assert_eq!(expected.encode_as(version), hex(bytes), "v{version}");
        }
        assert_eq!(value().encode()[..2], [0, 4]);
        assert_eq!(expiring.encode()[..2], [0, 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_read(
            group in ".{0,20}", topic in "[a-z.]{1,20}", partition: i32, offset: i64, epoch: i32,
            metadata in ".{0,200}", commit: i64, expire in proptest::option::of(0i64..), id: [u8; 16], live: bool,
        ) {
            let key = OffsetCommitKey { group: group.into(), topic: topic.into(), partition: PartitionIndex(partition) };
            let expires = expire.is_some();
            let value = live.then_some(OffsetCommitValue {
                offset: Offset(offset),
                leader_epoch: if expires { LeaderEpoch::NONE } else { LeaderEpoch(epoch) },
                metadata: metadata.into(),
                commit_timestamp: TimestampMs(commit),
                expire_timestamp: expire.map(TimestampMs),
                topic_id: if expires { TopicId::ZERO } else { TopicId(id) },
            });
            let record = Record::OffsetCommit(key, value);
            let (key, value) = record.encode().unwrap();
            prop_assert_eq!(Record::decode(&key, value.as_ref()), Ok(record));
            if let Some(value) = value {
                for end in 0..value.len() {
                    prop_assert!(OffsetCommitValue::decode(&value.slice(..end)).is_err());
                }
            }
        }
    }
}
