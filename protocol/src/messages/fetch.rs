//! Fetch, versions 4 to 18: the response passes record slices on without copying them.
//!
//! Version 13 names topics by id only (KIP-516); from version 16 a response may say where new leaders are reached
//! (KIP-951). The fields of replicas (cluster id, replica state, last fetched epoch, diverging epoch, snapshot id,
//! directory id, high watermark) are Kafka's followers'; ours replicate otherwise, yet clients may set some of them.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use ouzel_model::TopicId;

use super::common::{LeaderIdAndEpoch, NodeEndpoint, read_array, read_topic, topic_bytes_min, write_topic};
use crate::api::ApiKey;
use crate::chain::{Chain, Piece};
use crate::reader::{Malformed, Reader};
use crate::writer::Writer;

/// What to read, by topic and partition.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchRequest {
    /// The cluster the reader believes to be in.
    pub cluster_id: Option<StrBytes>,
    /// The broker id of a follower; -1 for a consumer.
    pub replica_id: i32,
    /// The epoch of the follower's broker; -1 for a consumer. From version 15.
    pub replica_epoch: i64,
    /// How long to wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// How much to wait for.
    pub min_bytes: i32,
    /// How much to return at most, the first batch excepted.
    pub max_bytes: i32,
    /// 0 reads up to the high watermark, 1 up to the last stable offset.
    pub isolation_level: i8,
    /// The fetch session; 0 outside one. From version 7 (KIP-227).
    pub session_id: i32,
    /// Its epoch; -1 outside one.
    pub session_epoch: i32,
    /// What to read.
    pub topics: Vec<FetchTopic>,
    /// What to drop from the session.
    pub forgotten: Vec<ForgottenTopic>,
    /// The reader's rack; empty for none. From version 11.
    pub rack_id: StrBytes,
}

/// One topic of a [`FetchRequest`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FetchTopic {
    /// Its name; empty from version 13.
    pub name: StrBytes,
    /// Its id; zero before version 13.
    pub topic_id: TopicId,
    /// Its partitions.
    pub partitions: Vec<FetchPartition>,
}

/// One partition of a [`FetchRequest`].
#[derive(Clone, Debug, PartialEq)]
pub struct FetchPartition {
    /// Its index.
    pub partition: i32,
    /// The epoch the reader knows; -1 for none. From version 9.
    pub current_leader_epoch: i32,
    /// Where to read from.
    pub fetch_offset: i64,
    /// The epoch of the last record a follower has; -1 for none. From version 12.
    pub last_fetched_epoch: i32,
    /// A follower's first offset; -1 for a consumer. From version 5.
    pub log_start_offset: i64,
    /// How much to return at most.
    pub partition_max_bytes: i32,
    /// The directory of a follower's replica; zero for a consumer. From version 17.
    pub replica_directory_id: [u8; 16],
    /// A follower's high watermark; `i64::MAX` when not said. From version 18.
    pub high_watermark: i64,
}

/// Partitions that leave the fetch session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForgottenTopic {
    /// The topic's name; empty from version 13.
    pub name: StrBytes,
    /// Its id; zero before version 13.
    pub topic_id: TopicId,
    /// Its partitions.
    pub partitions: Vec<i32>,
}

impl Default for FetchRequest {
    fn default() -> FetchRequest {
        FetchRequest {
            cluster_id: None,
            replica_id: -1,
            replica_epoch: -1,
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: i32::MAX,
            isolation_level: 0,
            session_id: 0,
            session_epoch: -1,
            topics: Vec::new(),
            forgotten: Vec::new(),
            rack_id: StrBytes::new(),
        }
    }
}

impl Default for FetchPartition {
    fn default() -> FetchPartition {
        FetchPartition {
            partition: 0,
            current_leader_epoch: -1,
            fetch_offset: 0,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: 0,
            replica_directory_id: [0; 16],
            high_watermark: i64::MAX,
        }
    }
}

impl FetchRequest {
    /// Reads a body. Strings are slices of it.
    ///
    /// # Errors
    /// The first thing in it that is malformed.
    pub fn decode(version: i16, body: &Bytes) -> Result<FetchRequest, Malformed> {
        let flexible = ApiKey::Fetch.api().is_flexible(version);
        let reader = &mut Reader::new(body, flexible);
        let mut request = FetchRequest::default();
        if version <= 14 {
            request.replica_id = reader.i32()?;
        }
        request.max_wait_ms = reader.i32()?;
        request.min_bytes = reader.i32()?;
        request.max_bytes = reader.i32()?;
        request.isolation_level = reader.i8()?;
        if version >= 7 {
            request.session_id = reader.i32()?;
            request.session_epoch = reader.i32()?;
        }
        request.topics = read_array(reader, topic_bytes_min(version, flexible), |reader| {
            let (name, topic_id) = read_topic(reader, version)?;
            let partitions = read_array(reader, partition_bytes_min(version), |reader| {
                FetchPartition::read(reader, version)
            })?;
            reader.skip_tagged()?;
            Ok(FetchTopic { name, topic_id, partitions })
        })?;
        if version >= 7 {
            request.forgotten = read_array(reader, topic_bytes_min(version, flexible), |reader| {
                let (name, topic_id) = read_topic(reader, version)?;
                let count = reader.array(4)?;
                let partitions = (0..count).map(|_| reader.i32()).collect::<Result<_, _>>()?;
                reader.skip_tagged()?;
                Ok(ForgottenTopic { name, topic_id, partitions })
            })?;
        }
        if version >= 11 {
            request.rack_id = reader.string()?;
        }
        reader.tagged(|tag, content| {
            match tag {
                0 => request.cluster_id = content.string_or_null()?,
                1 if version >= 15 => {
                    request.replica_id = content.i32()?;
                    request.replica_epoch = content.i64()?;
                    content.skip_tagged()?;
                }
                _ => return Ok::<_, Malformed>(false),
            }
            Ok(true)
        })?;
        Ok(request)
    }

    /// Writes a body.
    pub fn encode(&self, version: i16) -> Chain {
        let writer = &mut Writer::new(ApiKey::Fetch.api().is_flexible(version), 256);
        if version <= 14 {
            writer.i32(self.replica_id);
        }
        writer.i32(self.max_wait_ms);
        writer.i32(self.min_bytes);
        writer.i32(self.max_bytes);
        writer.i8(self.isolation_level);
        if version >= 7 {
            writer.i32(self.session_id);
            writer.i32(self.session_epoch);
        }
        writer.array(self.topics.len());
        for topic in &self.topics {
            write_topic(writer, version, &topic.name, topic.topic_id);
            writer.array(topic.partitions.len());
            topic.partitions.iter().for_each(|partition| partition.write(writer, version));
            writer.no_tagged();
        }
        if version >= 7 {
            writer.array(self.forgotten.len());
            for topic in &self.forgotten {
                write_topic(writer, version, &topic.name, topic.topic_id);
                writer.array(topic.partitions.len());
                topic.partitions.iter().for_each(|partition| writer.i32(*partition));
                writer.no_tagged();
            }
        }
        if version >= 11 {
            writer.string(&self.rack_id);
        }
        let cluster_id = |writer: &mut Writer| writer.string_or_null(self.cluster_id.as_deref());
        let replica_state = |writer: &mut Writer| {
            writer.i32(self.replica_id);
            writer.i64(self.replica_epoch);
            writer.no_tagged();
        };
        let is_replica = self.replica_id != -1 || self.replica_epoch != -1;
        writer.tagged([
            self.cluster_id.as_ref().map(|_| (0, &cluster_id as _)),
            (version >= 15 && is_replica).then_some((1, &replica_state as _)),
        ]);
        writer.take()
    }
}

impl FetchPartition {
    fn read(reader: &mut Reader<'_>, version: i16) -> Result<FetchPartition, Malformed> {
        let mut read = FetchPartition { partition: reader.i32()?, ..FetchPartition::default() };
        if version >= 9 {
            read.current_leader_epoch = reader.i32()?;
        }
        read.fetch_offset = reader.i64()?;
        if version >= 12 {
            read.last_fetched_epoch = reader.i32()?;
        }
        if version >= 5 {
            read.log_start_offset = reader.i64()?;
        }
        read.partition_max_bytes = reader.i32()?;
        reader.tagged(|tag, content| {
            match tag {
                0 if version >= 17 => read.replica_directory_id = content.uuid()?,
                1 if version >= 18 => read.high_watermark = content.i64()?,
                _ => return Ok::<_, Malformed>(false),
            }
            Ok(true)
        })?;
        Ok(read)
    }

    fn write(&self, writer: &mut Writer, version: i16) {
        writer.i32(self.partition);
        if version >= 9 {
            writer.i32(self.current_leader_epoch);
        }
        writer.i64(self.fetch_offset);
        if version >= 12 {
            writer.i32(self.last_fetched_epoch);
        }
        if version >= 5 {
            writer.i64(self.log_start_offset);
        }
        writer.i32(self.partition_max_bytes);
        let directory = |writer: &mut Writer| writer.uuid(self.replica_directory_id);
        let high_watermark = |writer: &mut Writer| writer.i64(self.high_watermark);
        writer.tagged([
            (version >= 17 && self.replica_directory_id != [0; 16]).then_some((0, &directory as _)),
            (version >= 18 && self.high_watermark != i64::MAX).then_some((1, &high_watermark as _)),
        ]);
    }
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FetchResponse {
    /// How long the client is held back.
    pub throttle_time_ms: i32,
    /// An error of the whole request, such as an unknown session; from version 7.
    pub error_code: i16,
    /// The fetch session; 0 outside one.
    pub session_id: i32,
    /// What was read.
    pub topics: Vec<FetchTopicResponse>,
    /// Where the leaders named in `current_leader` are reached; from version 16.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// One topic of a [`FetchResponse`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FetchTopicResponse {
    /// Its name; not sent from version 13.
    pub name: StrBytes,
    /// Its id; not sent before version 13.
    pub topic_id: TopicId,
    /// Its partitions.
    pub partitions: Vec<FetchPartitionResponse>,
}

/// One partition of a [`FetchResponse`].
#[derive(Clone, Debug, PartialEq)]
pub struct FetchPartitionResponse {
    /// Its index.
    pub partition: i32,
    /// The outcome.
    pub error_code: i16,
    /// The high watermark; -1 on error.
    pub high_watermark: i64,
    /// The last stable offset; -1 on error.
    pub last_stable_offset: i64,
    /// First offset of the log; -1 on error. From version 5.
    pub log_start_offset: i64,
    /// Where a follower's log departs from the leader's; from version 12.
    pub diverging_epoch: Option<EpochEndOffset>,
    /// Who leads, when this broker does not; from version 12.
    pub current_leader: Option<LeaderIdAndEpoch>,
    /// The snapshot a follower must fetch instead; from version 12.
    pub snapshot_id: Option<EpochEndOffset>,
    /// Aborted transactions that overlap what was read; `None` unless only stable records were asked for.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// The broker to read from instead; -1 for none. From version 11 (KIP-392).
    pub preferred_read_replica: i32,
    /// Whole batches, in pieces that follow on each other. `Some` of nothing is an empty record set, which is what
    /// Kafka sends when there is nothing to read; `None` is null.
    pub records: Option<Vec<Piece>>,
}

/// The end of an epoch in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEndOffset {
    /// The epoch.
    pub epoch: i32,
    /// Its exclusive end.
    pub end_offset: i64,
}

/// A transaction whose records up to its marker are to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: i64,
    /// Its first offset.
    pub first_offset: i64,
}

impl FetchPartitionResponse {
    /// The answer where nothing could be read: an empty record set, offsets unknown.
    pub fn error(partition: i32, error_code: impl Into<i16>) -> FetchPartitionResponse {
        FetchPartitionResponse {
            partition,
            error_code: error_code.into(),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            current_leader: None,
            snapshot_id: None,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Some(Vec::new()),
        }
    }

    /// The pieces of records that are in memory: of a response that was received, all.
    pub fn record_pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.records.iter().flatten().filter_map(Piece::bytes)
    }

    /// Bytes of records in it.
    pub fn record_bytes(&self) -> usize {
        self.records.iter().flatten().map(Piece::len).sum()
    }
}

impl FetchResponse {
    /// Writes a body: few own bytes, and the record slices as they are. What a version cannot say is left out.
    pub fn encode(&self, version: i16) -> Chain {
        let partitions: usize = self.topics.iter().map(|topic| topic.partitions.len() + 1).sum();
        let writer = &mut Writer::new(ApiKey::Fetch.api().is_flexible(version), 64 + partitions * 64);
        writer.i32(self.throttle_time_ms);
        if version >= 7 {
            writer.i16(self.error_code);
            writer.i32(self.session_id);
        }
        writer.array(self.topics.len());
        for topic in &self.topics {
            write_topic(writer, version, &topic.name, topic.topic_id);
            writer.array(topic.partitions.len());
            topic.partitions.iter().for_each(|partition| partition.write(writer, version));
            writer.no_tagged();
        }
        let endpoints = |writer: &mut Writer| NodeEndpoint::write_all(&self.node_endpoints, writer);
        writer.tagged([(version >= 16 && !self.node_endpoints.is_empty()).then_some((0, &endpoints))]);
        writer.take()
    }

    /// Reads a body. Record sets are slices of it, each in one piece.
    ///
    /// # Errors
    /// The first thing in it that is malformed.
    pub fn decode(version: i16, body: &Bytes) -> Result<FetchResponse, Malformed> {
        let flexible = ApiKey::Fetch.api().is_flexible(version);
        let reader = &mut Reader::new(body, flexible);
        let mut response = FetchResponse { throttle_time_ms: reader.i32()?, ..FetchResponse::default() };
        if version >= 7 {
            response.error_code = reader.i16()?;
            response.session_id = reader.i32()?;
        }
        response.topics = read_array(reader, topic_bytes_min(version, flexible), |reader| {
            let (name, topic_id) = read_topic(reader, version)?;
            let partitions = read_array(reader, 24, |reader| FetchPartitionResponse::read(reader, version))?;
            reader.skip_tagged()?;
            Ok(FetchTopicResponse { name, topic_id, partitions })
        })?;
        reader.tagged(|tag, content| {
            if tag != 0 || version < 16 {
                return Ok::<_, Malformed>(false);
            }
            response.node_endpoints = NodeEndpoint::read_all(content)?;
            Ok(true)
        })?;
        reader.end()?;
        Ok(response)
    }
}

impl FetchPartitionResponse {
    fn write(&self, writer: &mut Writer, version: i16) {
        writer.i32(self.partition);
        writer.i16(self.error_code);
        writer.i64(self.high_watermark);
        writer.i64(self.last_stable_offset);
        if version >= 5 {
            writer.i64(self.log_start_offset);
        }
        writer.array(self.aborted_transactions.as_ref().map(Vec::len));
        for aborted in self.aborted_transactions.iter().flatten() {
            writer.i64(aborted.producer_id);
            writer.i64(aborted.first_offset);
            writer.no_tagged();
        }
        if version >= 11 {
            writer.i32(self.preferred_read_replica);
        }
        writer.records(self.records.as_ref().map(|pieces| pieces.iter()));
        let diverging = |writer: &mut Writer| {
            let end = self.diverging_epoch.expect("written only if there");
            writer.i32(end.epoch);
            writer.i64(end.end_offset);
            writer.no_tagged();
        };
        let leader = |writer: &mut Writer| self.current_leader.expect("written only if there").write(writer);
        // The two fields of a snapshot id stand the other way round.
        let snapshot = |writer: &mut Writer| {
            let end = self.snapshot_id.expect("written only if there");
            writer.i64(end.end_offset);
            writer.i32(end.epoch);
            writer.no_tagged();
        };
        let has = |is_there: bool| version >= 12 && is_there;
        writer.tagged([
            has(self.diverging_epoch.is_some()).then_some((0, &diverging as _)),
            has(self.current_leader.is_some()).then_some((1, &leader as _)),
            has(self.snapshot_id.is_some()).then_some((2, &snapshot as _)),
        ]);
    }

    fn read(reader: &mut Reader<'_>, version: i16) -> Result<FetchPartitionResponse, Malformed> {
        let mut read = FetchPartitionResponse::error(reader.i32()?, reader.i16()?);
        read.high_watermark = reader.i64()?;
        read.last_stable_offset = reader.i64()?;
        if version >= 5 {
            read.log_start_offset = reader.i64()?;
        }
        let count = reader.array_or_null(16)?;
        if let Some(count) = count {
            reader.count_elements(count)?;
            let mut aborted = Vec::with_capacity(count);
            for _ in 0..count {
                aborted.push(AbortedTransaction { producer_id: reader.i64()?, first_offset: reader.i64()? });
                reader.skip_tagged()?;
            }
            read.aborted_transactions = Some(aborted);
        }
        if version >= 11 {
            read.preferred_read_replica = reader.i32()?;
        }
        read.records = reader.bytes_or_null()?.map(|records| match records.is_empty() {
            true => Vec::new(),
            false => vec![records.into()],
        });
        reader.tagged(|tag, content| {
            match tag {
                0 => {
                    let (epoch, end_offset) = (content.i32()?, content.i64()?);
                    read.diverging_epoch = Some(EpochEndOffset { epoch, end_offset });
                    content.skip_tagged()?;
                }
                1 => read.current_leader = LeaderIdAndEpoch::read(content)?,
                2 => {
                    let (end_offset, epoch) = (content.i64()?, content.i32()?);
                    read.snapshot_id = Some(EpochEndOffset { epoch, end_offset });
                    content.skip_tagged()?;
                }
                _ => return Ok::<_, Malformed>(false),
            }
            Ok(true)
        })?;
        Ok(read)
    }
}

/// The least a partition of a request takes.
fn partition_bytes_min(version: i16) -> usize {
    match version {
        12.. => 33,
        9.. => 28,
        5.. => 24,
        _ => 16,
    }
}
