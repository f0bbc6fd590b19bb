//! OffsetCommit version 10, which the `kafka-protocol` crate does not read yet: topics by id instead of by name.

use bytes::Bytes;
use kafka_protocol::messages::OffsetCommitRequest;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};

use super::common::{read_array, uuid, uuid_of};
use crate::chain::Chain;
use crate::reader::{Malformed, Reader};
use crate::writer::Writer;

/// The version this file is about.
pub const VERSION: i16 = 10;

/// Reads a body of version 10.
///
/// # Errors
/// The first thing in it that is malformed.
pub fn decode(body: &Bytes) -> Result<OffsetCommitRequest, Malformed> {
    let reader = &mut Reader::new(body, true);
    let mut request = OffsetCommitRequest::default();
    request.group_id = reader.string()?.into();
    request.generation_id_or_member_epoch = reader.i32()?;
    request.member_id = reader.string()?;
    request.group_instance_id = reader.string_or_null()?;
    request.topics = read_array(reader, 18, |reader| {
        let mut topic = OffsetCommitRequestTopic::default();
        topic.topic_id = uuid(reader)?;
        topic.partitions = read_array(reader, 18, |reader| {
            let mut partition = OffsetCommitRequestPartition::default();
            partition.partition_index = reader.i32()?;
            partition.committed_offset = reader.i64()?;
            partition.committed_leader_epoch = reader.i32()?;
            partition.committed_metadata = reader.string_or_null()?;
            reader.skip_tagged()?;
            Ok(partition)
        })?;
        reader.skip_tagged()?;
        Ok(topic)
    })?;
    reader.skip_tagged()?;
    Ok(request)
}

/// Writes a body of version 10.
pub fn encode(request: &OffsetCommitRequest) -> Chain {
    let writer = &mut Writer::new(true, 256);
    writer.string(&request.group_id);
    writer.i32(request.generation_id_or_member_epoch);
    writer.string(&request.member_id);
    writer.string_or_null(request.group_instance_id.as_deref());
    writer.array(request.topics.len());
    for topic in &request.topics {
        writer.uuid(uuid_of(topic.topic_id));
        writer.array(topic.partitions.len());
        for partition in &topic.partitions {
            writer.i32(partition.partition_index);
            writer.i64(partition.committed_offset);
            writer.i32(partition.committed_leader_epoch);
            writer.string_or_null(partition.committed_metadata.as_deref());
            writer.no_tagged();
        }
        writer.no_tagged();
    }
    writer.no_tagged();
    writer.take()
}
