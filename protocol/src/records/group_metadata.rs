//! `GroupMetadataKey` and `GroupMetadataValue`: a classic group's latest generation, with its members.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use ouzel_model::TimestampMs;

use super::{RecordError, malformed, versioned};
use crate::messages::common::read_array;
use crate::reader::{Malformed, Reader};
use crate::writer::Writer;

/// Which group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupMetadataKey {
    /// The group.
    pub group: StrBytes,
}

impl GroupMetadataKey {
    /// What the key begins with.
    pub const TYPE: i16 = 2;

    /// Reads what follows the type.
    pub(super) fn decode(mut reader: Reader<'_>) -> Result<GroupMetadataKey, RecordError> {
        let mut read = || {
            let group = reader.string()?;
            reader.end()?;
            Ok(GroupMetadataKey { group })
        };
        read().map_err(malformed("GroupMetadataKey"))
    }

    /// Writes the key.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new(false, 4 + self.group.len());
        writer.i16(Self::TYPE);
        writer.string(&self.group);
        writer.take().into_bytes()
    }
}

/// A group's generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadataValue {
    /// What kind of group: "consumer", "connect", ...; "" for one that only holds offsets.
    pub protocol_type: StrBytes,
    /// The generation.
    pub generation: i32,
    /// The protocol its members agreed on; `None` without members.
    pub protocol: Option<StrBytes>,
    /// The member that assigns; `None` without members.
    pub leader: Option<StrBytes>,
    /// When the group came into its present state; `NONE` if unknown. From version 2.
    pub current_state_timestamp: TimestampMs,
    /// The members.
    pub members: Vec<MemberMetadata>,
}

/// One member in a [`GroupMetadataValue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    /// The member's id.
    pub member_id: StrBytes,
    /// Its static name, if it has one. From version 3.
    pub group_instance_id: Option<StrBytes>,
    /// `client.id` of its connection.
    pub client_id: StrBytes,
    /// Where it connected from.
    pub client_host: StrBytes,
    /// How long a rebalance may wait for it; -1 if unknown. From version 1.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// Its metadata under the agreed protocol.
    pub subscription: Bytes,
    /// What the leader assigned to it.
    pub assignment: Bytes,
}

impl GroupMetadataValue {
    const KIND: &'static str = "GroupMetadataValue";
    const VERSION_MAX: i16 = 4;
    const FLEXIBLE_FROM: i16 = 4;

    /// Reads a value of any version.
    ///
    /// # Errors
    /// If it does not follow its version's schema, or that is unknown.
    pub fn decode(bytes: &Bytes) -> Result<GroupMetadataValue, RecordError> {
        let (version, reader) = versioned(bytes, Self::KIND, Self::VERSION_MAX, Self::FLEXIBLE_FROM)?;
        Self::decode_fields(version, reader).map_err(malformed(Self::KIND))
    }

    fn decode_fields(version: i16, mut reader: Reader<'_>) -> Result<GroupMetadataValue, Malformed> {
        let protocol_type = reader.string()?;
        let generation = reader.i32()?;
        let (protocol, leader) = (reader.string_or_null()?, reader.string_or_null()?);
        let current_state_timestamp = TimestampMs(if version >= 2 { reader.i64()? } else { -1 });
        let member_bytes_min = if version >= Self::FLEXIBLE_FROM { 15 } else { 18 };
        let members = read_array(&mut reader, member_bytes_min, |reader| {
            let member = MemberMetadata {
                member_id: reader.string()?,
                group_instance_id: if version >= 3 { reader.string_or_null()? } else { None },
                client_id: reader.string()?,
                client_host: reader.string()?,
                rebalance_timeout_ms: if version >= 1 { reader.i32()? } else { -1 },
                session_timeout_ms: reader.i32()?,
                subscription: reader.bytes()?,
                assignment: reader.bytes()?,
            };
            reader.skip_tagged()?;
            Ok(member)
        })?;
        reader.skip_tagged()?;
        reader.end()?;
        Ok(GroupMetadataValue {
            protocol_type,
            generation,
            protocol,
            leader,
            current_state_timestamp,
            members,
        })
    }

    /// Writes the value in version 3, as Kafka 4.3 does.
    pub fn encode(&self) -> Bytes {
        self.encode_as(3)
    }

    fn encode_as(&self, version: i16) -> Bytes {
        let mut writer = Writer::new(version >= Self::FLEXIBLE_FROM, 64 + 256 * self.members.len());
        writer.i16(version);
        writer.string(&self.protocol_type);
        writer.i32(self.generation);
        writer.string_or_null(self.protocol.as_deref());
        writer.string_or_null(self.leader.as_deref());
        if version >= 2 {
            writer.i64(self.current_state_timestamp.0);
        }
        writer.array(self.members.len());
        for member in &self.members {
            writer.string(&member.member_id);
            if version >= 3 {
                writer.string_or_null(member.group_instance_id.as_deref());
            }
            writer.string(&member.client_id);
            writer.string(&member.client_host);
            if version >= 1 {
                writer.i32(member.rebalance_timeout_ms);
            }
            writer.i32(member.session_timeout_ms);
            writer.bytes(&member.subscription);
            writer.bytes(&member.assignment);
            writer.no_tagged();
        }
        writer.no_tagged();
        writer.take().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::records::Record;
    use crate::records::tests::hex;

    fn value(version: i16) -> GroupMetadataValue {
        let member = MemberMetadata {
            member_id: "m-2".into(),
            group_instance_id: None,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: if version >= 1 { 300_000 } else { -1 },
            session_timeout_ms: 45_000,
            subscription: Bytes::new(),
            assignment: Bytes::new(),
        };
        let leader = MemberMetadata {
            member_id: "m-1".into(),
            group_instance_id: (version >= 3).then_some("static-1".into()),
            subscription: Bytes::from_static(&[0, 1, 2]),
            assignment: Bytes::from_static(&[3]),
            ..member.clone()
        };
        GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 5,
            protocol: Some("range".into()),
            leader: Some("m-1".into()),
            current_state_timestamp: TimestampMs(if version >= 2 { 1_700_000_000_123 } else { -1 }),
            members: vec![leader, member],
        }
    }

    /// What Kafka 4.3's classes wrote for these values, in every version.
    #[test]
    fn bytes_are_kafkas() {
        let key = GroupMetadataKey { group: "lag-watchers".into() };
        let bytes = hex("0002000c6c61672d7761746368657273");
        assert_eq!(key.encode(), bytes);
        assert_eq!(Record::decode(&bytes, None), Ok(Record::GroupMetadata(key, None)));

        for (version, bytes) in [
            (
                0,
                "00000008636f6e73756d657200000005000572616e676500036d2d310000000200036d2d31000163000a2f3132372e302e302e310000afc800000003000102000000010300036d2d32000163000a2f3132372e302e302e310000afc80000000000000000",
            ),
            (
                1,
                "00010008636f6e73756d657200000005000572616e676500036d2d310000000200036d2d31000163000a2f3132372e302e302e31000493e00000afc800000003000102000000010300036d2d32000163000a2f3132372e302e302e31000493e00000afc80000000000000000",
            ),
            (
                2,
                "00020008636f6e73756d657200000005000572616e676500036d2d310000018bcfe5687b0000000200036d2d31000163000a2f3132372e302e302e31000493e00000afc800000003000102000000010300036d2d32000163000a2f3132372e302e302e31000493e00000afc80000000000000000",
            ),
            (
                3,
                "00030008636f6e73756d657200000005000572616e676500036d2d310000018bcfe5687b0000000200036d2d3100087374617469632d31000163000a2f3132372e302e302e31000493e00000afc800000003000102000000010300036d2d32ffff000163000a2f3132372e302e302e31000493e00000afc80000000000000000",
            ),
            (
                4,
                "000409636f6e73756d6572000000050672616e6765046d2d310000018bcfe5687b03046d2d31097374617469632d3102630b2f3132372e302e302e31000493e00000afc804000102020300046d2d320002630b2f3132372e302e302e31000493e00000afc801010000",
            ),
        ] {
            assert_eq!(GroupMetadataValue::decode(&hex(bytes)), Ok(value(version)), "v{version}");
            assert_eq!(value(version).encode_as(version), hex(bytes), "v{version}");
        }
        let empty = GroupMetadataValue {
            protocol_type: "".into(),
            generation: 0,
            protocol: None,
            leader: None,
            current_state_timestamp: TimestampMs(9),
            members: Vec::new(),
        };
        assert_eq!(empty.encode(), hex("0003000000000000ffffffff000000000000000900000000"));
    }

    fn member() -> impl Strategy<Value = MemberMetadata> {
        let blob = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let text = || ".{0,12}".prop_map(StrBytes::from);
        (text(), prop::option::of(text()), text(), text(), any::<i32>(), any::<i32>(), blob(), blob())
            .prop_map(
                |(
                    member_id,
                    group_instance_id,
                    client_id,
                    client_host,
                    rebalance,
                    session,
                    subscription,
                    assignment,
                )| {
                    MemberMetadata {
                        member_id,
                        group_instance_id,
                        client_id,
                        client_host,
                        rebalance_timeout_ms: rebalance,
                        session_timeout_ms: session,
                        subscription,
                        assignment,
                    }
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_is_written_is_read(
            group in ".{0,20}", kind in ".{0,12}", generation: i32, protocol in prop::option::of(".{0,12}"),
            leader in prop::option::of(".{0,12}"), since: i64, members in prop::collection::vec(member(), 0..4),
        ) {
            let value = GroupMetadataValue {
                protocol_type: kind.into(),
                generation,
                protocol: protocol.map(StrBytes::from),
                leader: leader.map(StrBytes::from),
                current_state_timestamp: TimestampMs(since),
                members,
            };
            for version in 3..=4 {
                let written = value.encode_as(version);
                prop_assert_eq!(GroupMetadataValue::decode(&written), Ok(value.clone()));
            }
            let record = Record::GroupMetadata(GroupMetadataKey { group: group.into() }, Some(value));
            let (key, value) = record.encode().unwrap();
            prop_assert_eq!(Record::decode(&key, value.as_ref()), Ok(record));
            let value = value.unwrap();
            for end in 0..value.len() {
                prop_assert!(GroupMetadataValue::decode(&value.slice(..end)).is_err());
            }
        }
    }
}
