//! Produce, versions 3 to 13: the request borrows its record sets from the frame.
//!
//! Version 13 names topics by id only (KIP-516); from version 10 a response may say who leads instead (KIP-951).

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use ouzel_model::TopicId;

use super::common::{LeaderIdAndEpoch, NodeEndpoint, read_array, read_topic, topic_bytes_min, write_topic};
use crate::api::ApiKey;
use crate::chain::{Chain, Piece};
use crate::reader::{Malformed, Reader};
use crate::writer::Writer;

/// Record sets to append, by topic and partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProduceRequest {
    /// The transactional id, if the batches belong to a transaction.
    pub transactional_id: Option<StrBytes>,
    /// -1, 0 or 1; as read, not judged.
    pub acks: i16,
    /// How long the broker may take to satisfy `acks`.
    pub timeout_ms: i32,
    /// What to append where.
    pub topics: Vec<ProduceTopic>,
}

/// One topic of a [`ProduceRequest`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProduceTopic {
    /// Its name; empty from version 13.
    pub name: StrBytes,
    /// Its id; zero before version 13.
    pub topic_id: TopicId,
    /// Its partitions.
    pub partitions: Vec<ProducePartition>,
}

/// One partition of a [`ProduceRequest`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProducePartition {
    /// Its index.
    pub index: i32,
    /// The record set as it came: a slice of the frame, not decoded.
    pub records: Option<Bytes>,
}

impl ProduceRequest {
    /// Reads a body. Strings and record sets are slices of it.
    ///
    /// # Errors
    /// The first thing in it that is malformed.
    pub fn decode(version: i16, body: &Bytes) -> Result<ProduceRequest, Malformed> {
        let flexible = ApiKey::Produce.api().is_flexible(version);
        let reader = &mut Reader::new(body, flexible);
        let transactional_id = reader.string_or_null()?;
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let topics = read_array(reader, topic_bytes_min(version, flexible), |reader| {
            let (name, topic_id) = read_topic(reader, version)?;
            let partitions = read_array(reader, if flexible { 6 } else { 8 }, |reader| {
                let partition = ProducePartition { index: reader.i32()?, records: reader.bytes_or_null()? };
                reader.skip_tagged()?;
                Ok(partition)
            })?;
            reader.skip_tagged()?;
            Ok(ProduceTopic { name, topic_id, partitions })
        })?;
        reader.skip_tagged()?;
        Ok(ProduceRequest { transactional_id, acks, timeout_ms, topics })
    }

    /// Writes a body; the record sets are passed on as they are.
    pub fn encode(&self, version: i16) -> Chain {
        let writer = &mut Writer::new(ApiKey::Produce.api().is_flexible(version), 256);
        writer.string_or_null(self.transactional_id.as_deref());
        writer.i16(self.acks);
        writer.i32(self.timeout_ms);
        writer.array(self.topics.len());
        for topic in &self.topics {
            write_topic(writer, version, &topic.name, topic.topic_id);
            writer.array(topic.partitions.len());
            for partition in &topic.partitions {
                writer.i32(partition.index);
                let records = partition.records.clone().map(Piece::Bytes);
                writer.records(records.as_ref().map(std::iter::once));
                writer.no_tagged();
            }
            writer.no_tagged();
        }
        writer.no_tagged();
        writer.take()
    }
}

/// What became of each record set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProduceResponse {
    /// Results by topic, in the order of the request.
    pub topics: Vec<ProduceTopicResponse>,
    /// How long the client is held back.
    pub throttle_time_ms: i32,
    /// Where the leaders named in `current_leader` are reached; from version 10.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// One topic of a [`ProduceResponse`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProduceTopicResponse {
    /// Its name; not sent from version 13.
    pub name: StrBytes,
    /// Its id; not sent before version 13.
    pub topic_id: TopicId,
    /// Its partitions.
    pub partitions: Vec<ProducePartitionResponse>,
}

/// One partition of a [`ProduceResponse`].
#[derive(Clone, Debug, PartialEq)]
pub struct ProducePartitionResponse {
    /// Its index.
    pub index: i32,
    /// The outcome.
    pub error_code: i16,
    /// Offset of the first record; -1 on error.
    pub base_offset: i64,
    /// The broker's time, where the topic uses that; else -1.
    pub log_append_time_ms: i64,
    /// First offset of the log; -1 on error. From version 5.
    pub log_start_offset: i64,
    /// Which records were the reason for a refusal; from version 8.
    pub record_errors: Vec<RecordError>,
    /// The refusal in words; from version 8.
    pub error_message: Option<StrBytes>,
    /// Who leads, when this broker does not; from version 10.
    pub current_leader: Option<LeaderIdAndEpoch>,
}

/// A record that was the reason for a refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordError {
    /// Which record of the batch, from 0.
    pub batch_index: i32,
    /// Why, if there is more to say than the partition's message.
    pub message: Option<StrBytes>,
}

impl ProducePartitionResponse {
    /// The answer to a record set that was not appended.
    pub fn error(index: i32, error_code: impl Into<i16>) -> ProducePartitionResponse {
        ProducePartitionResponse {
            index,
            error_code: error_code.into(),
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        }
    }
}

impl ProduceResponse {
    /// Writes a body. What a version cannot say is left out.
    pub fn encode(&self, version: i16) -> Chain {
        let writer = &mut Writer::new(ApiKey::Produce.api().is_flexible(version), 256);
        writer.array(self.topics.len());
        for topic in &self.topics {
            write_topic(writer, version, &topic.name, topic.topic_id);
            writer.array(topic.partitions.len());
            for partition in &topic.partitions {
                write_partition(writer, version, partition);
            }
            writer.no_tagged();
        }
        writer.i32(self.throttle_time_ms);
        let endpoints = &self.node_endpoints;
        let write = |writer: &mut Writer| NodeEndpoint::write_all(endpoints, writer);
        writer.tagged([(version >= 10 && !endpoints.is_empty()).then_some((0, &write))]);
        writer.take()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// The first thing in it that is malformed.
    pub fn decode(version: i16, body: &Bytes) -> Result<ProduceResponse, Malformed> {
        let flexible = ApiKey::Produce.api().is_flexible(version);
        let reader = &mut Reader::new(body, flexible);
        let topics = read_array(reader, topic_bytes_min(version, flexible), |reader| {
            let (name, topic_id) = read_topic(reader, version)?;
            let partitions = read_array(reader, 22, |reader| read_partition(reader, version))?;
            reader.skip_tagged()?;
            Ok(ProduceTopicResponse { name, topic_id, partitions })
        })?;
        let throttle_time_ms = reader.i32()?;
        let mut node_endpoints = Vec::new();
        reader.tagged(|tag, content| {
            if tag != 0 || version < 10 {
                return Ok::<_, Malformed>(false);
            }
            node_endpoints = NodeEndpoint::read_all(content)?;
            Ok(true)
        })?;
        reader.end()?;
        Ok(ProduceResponse { topics, throttle_time_ms, node_endpoints })
    }
}

fn write_partition(writer: &mut Writer, version: i16, partition: &ProducePartitionResponse) {
    writer.i32(partition.index);
    writer.i16(partition.error_code);
    writer.i64(partition.base_offset);
    writer.i64(partition.log_append_time_ms);
    if version >= 5 {
        writer.i64(partition.log_start_offset);
    }
    if version >= 8 {
        writer.array(partition.record_errors.len());
        for error in &partition.record_errors {
            writer.i32(error.batch_index);
            writer.string_or_null(error.message.as_deref());
            writer.no_tagged();
        }
        writer.string_or_null(partition.error_message.as_deref());
    }
    let leader = |writer: &mut Writer| partition.current_leader.expect("written only if there").write(writer);
    writer.tagged([(version >= 10 && partition.current_leader.is_some()).then_some((0, &leader))]);
}

fn read_partition(reader: &mut Reader<'_>, version: i16) -> Result<ProducePartitionResponse, Malformed> {
    let (index, error_code) = (reader.i32()?, reader.i16()?);
    let (base_offset, log_append_time_ms) = (reader.i64()?, reader.i64()?);
    let log_start_offset = if version >= 5 { reader.i64()? } else { -1 };
    let (mut record_errors, mut error_message) = (Vec::new(), None);
    if version >= 8 {
        record_errors = read_array(reader, 5, |reader| {
            let error = RecordError { batch_index: reader.i32()?, message: reader.string_or_null()? };
            reader.skip_tagged()?;
            Ok(error)
        })?;
        error_message = reader.string_or_null()?;
    }
    let mut current_leader = None;
    reader.tagged(|tag, content| {
        if tag != 0 || version < 10 {
            return Ok::<_, Malformed>(false);
        }
        current_leader = LeaderIdAndEpoch::read(content)?;
        Ok(true)
    })?;
    Ok(ProducePartitionResponse {
        index,
        error_code,
        base_offset,
        log_append_time_ms,
        log_start_offset,
        record_errors,
        error_message,
        current_leader,
    })
}
