//! What Produce and Fetch share: topics by name or id, and the word of who leads instead.

use kafka_protocol::protocol::StrBytes;
use ouzel_model::TopicId;
use uuid::Uuid;

use crate::reader::{Malformed, Reader};
use crate::writer::Writer;

/// First version of Produce and of Fetch that names topics by id, and no longer by name (KIP-516).
pub const TOPIC_IDS_FROM: i16 = 13;

/// Who leads a partition, and since which epoch (KIP-951).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderIdAndEpoch {
    /// The leader's node id; -1 for unknown.
    pub leader_id: i32,
    /// Its epoch; -1 for unknown.
    pub leader_epoch: i32,
}

impl LeaderIdAndEpoch {
    pub(super) fn write(self, writer: &mut Writer) {
        writer.i32(self.leader_id);
        writer.i32(self.leader_epoch);
        writer.no_tagged();
    }

    /// A leader of whom nothing is said reads as none.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<LeaderIdAndEpoch>, Malformed> {
        let read = LeaderIdAndEpoch { leader_id: reader.i32()?, leader_epoch: reader.i32()? };
        reader.skip_tagged()?;
        Ok((read != LeaderIdAndEpoch { leader_id: -1, leader_epoch: -1 }).then_some(read))
    }
}

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// Its id.
    pub node_id: i32,
    /// The host it advertises on the listener the request came in on.
    pub host: StrBytes,
    /// The port.
    pub port: i32,
    /// Its rack.
    pub rack: Option<StrBytes>,
}

impl NodeEndpoint {
    pub(super) fn write_all(endpoints: &[NodeEndpoint], writer: &mut Writer) {
        writer.array(endpoints.len());
        for endpoint in endpoints {
            writer.i32(endpoint.node_id);
            writer.string(&endpoint.host);
            writer.i32(endpoint.port);
            writer.string_or_null(endpoint.rack.as_deref());
            writer.no_tagged();
        }
    }

    pub(super) fn read_all(reader: &mut Reader<'_>) -> Result<Vec<NodeEndpoint>, Malformed> {
        read_array(reader, 11, |reader| {
            let (node_id, host) = (reader.i32()?, reader.string()?);
            let (port, rack) = (reader.i32()?, reader.string_or_null()?);
            reader.skip_tagged()?;
            Ok(NodeEndpoint { node_id, host, port, rack })
        })
    }
}

/// The least a topic takes: its name or id, the count of its partitions and, in flexible versions, of its tagged fields.
pub(super) fn topic_bytes_min(version: i16, flexible: bool) -> usize {
    match (version >= TOPIC_IDS_FROM, flexible) {
        (true, _) => 18,
        (false, true) => 3,
        (false, false) => 6,
    }
}

pub(super) fn read_topic(reader: &mut Reader<'_>, version: i16) -> Result<(StrBytes, TopicId), Malformed> {
    if version >= TOPIC_IDS_FROM {
        Ok((StrBytes::new(), TopicId(reader.uuid()?)))
    } else {
        Ok((reader.string()?, TopicId::ZERO))
    }
}

pub(super) fn write_topic(writer: &mut Writer, version: i16, name: &str, topic_id: TopicId) {
    if version >= TOPIC_IDS_FROM {
        writer.uuid(topic_id.0);
    } else {
        writer.string(name);
    }
}

/// Reads an array of structures; their count has been held against the bytes left before memory is taken for them.
pub(crate) fn read_array<'a, T>(
    reader: &mut Reader<'a>,
    element_bytes_min: usize,
    read: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let at = reader.position();
    read_array_or_null(reader, element_bytes_min, read)?.ok_or(Malformed::Null { at })
}

/// As [`read_array`], where null is allowed.
pub(super) fn read_array_or_null<'a, T>(
    reader: &mut Reader<'a>,
    element_bytes_min: usize,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Option<Vec<T>>, Malformed> {
    let Some(count) = reader.array_or_null(element_bytes_min)? else { return Ok(None) };
    reader.count_elements(count)?;
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        elements.push(read(reader)?);
    }
    Ok(Some(elements))
}

/// A `uuid` as the `kafka-protocol` crate's type.
pub(super) fn uuid(reader: &mut Reader<'_>) -> Result<Uuid, Malformed> {
    reader.uuid().map(Uuid::from_bytes)
}

pub(super) fn uuid_of(id: Uuid) -> [u8; 16] {
    id.into_bytes()
}
