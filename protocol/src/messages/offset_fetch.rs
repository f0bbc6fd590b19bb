//! OffsetFetch version 10, which the `kafka-protocol` crate does not read yet: topics by id instead of by name.

use bytes::Bytes;
use kafka_protocol::messages::OffsetFetchRequest;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};

use super::common::{read_array, read_array_or_null, uuid, uuid_of};
use crate::chain::Chain;
use crate::reader::{Malformed, Reader};
use crate::writer::Writer;

/// The version this file is about.
pub const VERSION: i16 = 10;

/// Reads a body of version 10.
///
/// # Errors
/// The first thing in it that is malformed.
pub fn decode(body: &Bytes) -> Result<OffsetFetchRequest, Malformed> {
    let reader = &mut Reader::new(body, true);
    let mut request = OffsetFetchRequest::default();
    request.groups = read_array(reader, 8, |reader| {
        let mut group = OffsetFetchRequestGroup::default();
        group.group_id = reader.string()?.into();
        group.member_id = reader.string_or_null()?;
        group.member_epoch = reader.i32()?;
        group.topics = read_array_or_null(reader, 18, |reader| {
            let mut topic = OffsetFetchRequestTopics::default();
            topic.topic_id = uuid(reader)?;
            let count = reader.array(4)?;
            topic.partition_indexes = (0..count).map(|_| reader.i32()).collect::<Result<_, _>>()?;
            reader.skip_tagged()?;
            Ok(topic)
        })?;
        reader.skip_tagged()?;
        Ok(group)
    })?;
    request.require_stable = reader.bool()?;
    reader.skip_tagged()?;
    Ok(request)
}

/// Writes a body of version 10.
pub fn encode(request: &OffsetFetchRequest) -> Chain {
    let writer = &mut Writer::new(true, 256);
    writer.array(request.groups.len());
    for group in &request.groups {
        writer.string(&group.group_id);
        writer.string_or_null(group.member_id.as_deref());
        writer.i32(group.member_epoch);
        writer.array(group.topics.as_ref().map(Vec::len));
        for topic in group.topics.iter().flatten() {
            writer.uuid(uuid_of(topic.topic_id));
            writer.array(topic.partition_indexes.len());
            topic.partition_indexes.iter().for_each(|index| writer.i32(*index));
            writer.no_tagged();
        }
        writer.no_tagged();
    }
    writer.i8(i8::from(request.require_stable));
    writer.no_tagged();
    writer.take()
}
