//! What members of a consumer group say to each other through the coordinator: subscriptions and assignments.
//!
//! The bytes are the clients'. The broker looks into them for one purpose, to know which topics a group is subscribed
//! to (their offsets neither expire nor may be deleted), and a tool to show who reads what. A version newer than ours
//! is read as far as ours goes: newer versions only append.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use super::{RecordError, malformed};
use crate::messages::common::read_array;
use crate::reader::{Malformed, Reader};
use crate::writer::Writer;

/// The protocol type under which the bytes have this form.
pub const PROTOCOL_TYPE: &str = "consumer";

const VERSION_MAX: i16 = 3;

/// What a member wants to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// The topics.
    pub topics: Vec<StrBytes>,
    /// The assignor's own bytes.
    pub user_data: Option<Bytes>,
    /// What it reads now; from version 1.
    pub owned_partitions: Vec<TopicPartitions>,
    /// In which generation; -1 if unknown. From version 2.
    pub generation_id: i32,
    /// Where it runs; from version 3.
    pub rack_id: Option<StrBytes>,
}

/// What a member is to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The partitions.
    pub partitions: Vec<TopicPartitions>,
    /// The assignor's own bytes.
    pub user_data: Option<Bytes>,
}

/// Partitions of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicPartitions {
    /// The topic.
    pub topic: StrBytes,
    /// Their indexes.
    pub partitions: Vec<i32>,
}

impl Subscription {
    /// Reads a member's metadata.
    ///
    /// # Errors
    /// If the bytes are no subscription.
    pub fn decode(bytes: &Bytes) -> Result<Subscription, RecordError> {
        read_versioned(bytes, "ConsumerProtocolSubscription", |version, reader| {
            let topics = read_array(reader, 2, Reader::string)?;
            let user_data = reader.bytes_or_null()?;
            let owned_partitions = if version >= 1 { TopicPartitions::read_all(reader)? } else { Vec::new() };
            let generation_id = if version >= 2 { reader.i32()? } else { -1 };
            let rack_id = if version >= 3 { reader.string_or_null()? } else { None };
            Ok(Subscription { topics, user_data, owned_partitions, generation_id, rack_id })
        })
    }

    /// Writes it in `version`, at most 3. What a version cannot say is left out.
    pub fn encode(&self, version: i16) -> Bytes {
        let writer = &mut Writer::new(false, 128);
        writer.i16(version);
        writer.array(self.topics.len());
        self.topics.iter().for_each(|topic| writer.string(topic));
        writer.bytes_or_null(self.user_data.as_ref());
        if version >= 1 {
            TopicPartitions::write_all(&self.owned_partitions, writer);
        }
        if version >= 2 {
            writer.i32(self.generation_id);
        }
        if version >= 3 {
            writer.string_or_null(self.rack_id.as_deref());
        }
        writer.take().into_bytes()
    }
}

impl Assignment {
    /// Reads a member's assignment.
    ///
    /// # Errors
    /// If the bytes are no assignment.
    pub fn decode(bytes: &Bytes) -> Result<Assignment, RecordError> {
        read_versioned(bytes, "ConsumerProtocolAssignment", |_, reader| {
            let partitions = TopicPartitions::read_all(reader)?;
            Ok(Assignment { partitions, user_data: reader.bytes_or_null()? })
        })
    }

    /// Writes it in `version`, at most 3; all versions are alike.
    pub fn encode(&self, version: i16) -> Bytes {
        let writer = &mut Writer::new(false, 128);
        writer.i16(version);
        TopicPartitions::write_all(&self.partitions, writer);
        writer.bytes_or_null(self.user_data.as_ref());
        writer.take().into_bytes()
    }
}

impl TopicPartitions {
    fn read_all(reader: &mut Reader<'_>) -> Result<Vec<TopicPartitions>, Malformed> {
        read_array(reader, 6, |reader| {
            let topic = reader.string()?;
            let count = reader.array(4)?;
            let partitions = (0..count).map(|_| reader.i32()).collect::<Result<_, _>>()?;
            Ok(TopicPartitions { topic, partitions })
        })
    }

    fn write_all(all: &[TopicPartitions], writer: &mut Writer) {
        writer.array(all.len());
        for one in all {
            writer.string(&one.topic);
            writer.array(one.partitions.len());
            one.partitions.iter().for_each(|partition| writer.i32(*partition));
        }
    }
}

fn read_versioned<T>(
    bytes: &Bytes,
    kind: &'static str,
    read: impl FnOnce(i16, &mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<T, RecordError> {
    let mut reader = Reader::new(bytes, false);
    let version = reader.i16().map_err(malformed(kind))?;
    if version < 0 {
        return Err(RecordError::UnknownVersion { kind, version, version_max: VERSION_MAX });
    }
    read(version, &mut reader).map_err(malformed(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::tests::hex;

    fn owned() -> Vec<TopicPartitions> {
        vec![TopicPartitions { topic: "a".into(), partitions: vec![0, 2] }]
    }

    fn subscription(version: i16) -> Subscription {
        Subscription {
            topics: vec!["a".into(), "bc".into()],
            user_data: Some(Bytes::from_static(&[9, 8])),
            owned_partitions: if version >= 1 { owned() } else { Vec::new() },
            generation_id: if version >= 2 { 4 } else { -1 },
            rack_id: (version >= 3).then_some("r".into()),
        }
    }

    /// What Kafka 4.3's classes wrote for these values.
    #[test]
    fn bytes_are_kafkas() {
        for (version, bytes) in [
            (0, "00000000000200016100026263000000020908"),
            (1, "0001000000020001610002626300000002090800000001000161000000020000000000000002"),
            (2, "000200000002000161000262630000000209080000000100016100000002000000000000000200000004"),
            (3, "000300000002000161000262630000000209080000000100016100000002000000000000000200000004000172"),
        ] {
            assert_eq!(Subscription::decode(&hex(bytes)), Ok(subscription(version)), "v{version}");
            assert_eq!(subscription(version).encode(version), hex(bytes), "v{version}");
        }
        let assignment = Assignment { partitions: owned(), user_data: None };
        for (version, bytes) in [
            (0, "000000000001000161000000020000000000000002ffffffff"),
            (3, "000300000001000161000000020000000000000002ffffffff"),
        ] {
            assert_eq!(Assignment::decode(&hex(bytes)), Ok(assignment.clone()));
            assert_eq!(assignment.encode(version), hex(bytes));
        }
    }

    #[test]
    fn a_newer_version_is_read_as_far_as_ours_goes() {
        let mut bytes = subscription(3).encode(3).to_vec();
        bytes[1] = 9;
        bytes.extend([1, 2, 3]);
        assert_eq!(Subscription::decode(&bytes.into()), Ok(subscription(3)));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in ["", "00", "ffff00000000", "00007fffffff", "0000ffffffff", "00000000000100057a"] {
            assert!(Subscription::decode(&hex(bytes)).is_err(), "{bytes}");
            assert!(Assignment::decode(&hex(bytes)).is_err(), "{bytes}");
        }
    }
}
