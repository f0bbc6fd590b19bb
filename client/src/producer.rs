//! Sends records: batches them by partition, each partition's batches in order and one at a time, partitions together.
//!
//! With idempotence (the default) a batch may be sent again after a lost response without being stored twice. When a
//! send fails for good, whether its last batch was stored is unknown, so the producer takes a new identity before the
//! next one.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ouzel_model::batch::{BatchBuilder, Codec, RecordHeader, RecordParts};
use ouzel_model::{Offset, ProducerEpoch, ProducerId, TimestampMs, TopicId};
use ouzel_protocol::messages::common::TOPIC_IDS_FROM;
use ouzel_protocol::messages::kafka::InitProducerIdRequest;
use ouzel_protocol::messages::produce::{
    ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopic,
};
use ouzel_protocol::{ErrorCode, StrBytes};

use crate::client::{Client, Leader};
use crate::error::ClientError;
use crate::partitioner;

/// When a record counts as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// At once; a lost record is not noticed.
    None,
    /// When the leader has written it.
    Leader,
    /// When it is as safe as its topic asks for.
    All,
}

/// Settings of a [`Producer`].
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// When a record counts as sent.
    pub acks: Acks,
    /// How batches are compressed.
    pub codec: Codec,
    /// Records of one batch before compression, at most, the first one excepted.
    pub batch_bytes_max: usize,
    /// Whether repeating a batch cannot store it twice; needs `Acks::All`.
    pub idempotent: bool,
    /// How long the broker may take to satisfy `acks`.
    pub ack_timeout: Duration,
    /// Whether the broker may create the topic.
    pub create_topics: bool,
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            acks: Acks::All,
            codec: Codec::None,
            batch_bytes_max: 512 << 10,
            idempotent: true,
            ack_timeout: Duration::from_secs(30),
            create_topics: true,
        }
    }
}

/// A record to send.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewRecord {
    /// The key, if any; decides the partition unless one is named.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<RecordHeader>,
    /// Its time; now, if not given.
    pub timestamp: Option<TimestampMs>,
    /// The partition, if it is not for the key to decide.
    pub partition: Option<i32>,
}

/// Where a record was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its partition.
    pub partition: i32,
    /// Its offset; `None` with `Acks::None`, and for a batch that the broker had already.
    pub offset: Option<Offset>,
}

/// Sends records of any topic.
pub struct Producer {
    client: Client,
    config: Rc<ProducerConfig>,
    identity: Option<(ProducerId, ProducerEpoch)>,
    /// The next sequence of each partition under `identity`.
    sequences: BTreeMap<(String, i32), i32>,
    /// Where the next records without a key go.
    keyless: i32,
}

impl Producer {
    /// A producer; it asks for its identity when it first sends.
    pub fn new(client: &Client, config: ProducerConfig) -> Producer {
        Producer {
            client: client.clone(),
            config: Rc::new(config),
            identity: None,
            sequences: BTreeMap::new(),
            keyless: 0,
        }
    }

    /// Sends records and returns where each was stored, in their order.
    ///
    /// Records of one partition are stored in order; without idempotence a retry may store some twice.
    ///
    /// # Errors
    /// The first partition's error that is final. Records before it, and of other partitions, may have been stored.
    pub async fn send(&mut self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Stored>, ClientError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let partitions = self.client.partition_count(topic, self.config.create_topics).await?;
        if self.config.idempotent && self.identity.is_none() {
            self.identity = Some(self.ask_for_identity().await?);
        }
        let mut sending = Vec::new();
        for (partition, records) in self.by_partition(partitions, records) {
            let key = (topic.to_owned(), partition);
            let lane = Lane {
                client: self.client.clone(),
                config: self.config.clone(),
                identity: self.identity,
                sequence: self.sequences.get(&key).copied().unwrap_or(0),
                topic: topic.to_owned(),
                partition,
            };
            sending.push((key, ouzel_runtime::spawn(lane.send_all(records))));
        }
        let mut stored = Vec::new();
        let mut failed = None;
        for (key, lane) in sending {
            // A lane is aborted only with its core, and a panic in it has ended that already.
            match lane.await.expect("a lane ends with a result") {
                Ok((sequence, placed)) => {
                    let partition = key.1;
                    self.sequences.insert(key, sequence);
                    stored.extend(placed.into_iter().map(|(at, offset)| (at, Stored { partition, offset })));
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            self.identity = None;
            self.sequences.clear();
            return Err(error);
        }
        stored.sort_unstable_by_key(|(at, _)| *at);
        Ok(stored.into_iter().map(|(_, stored)| stored).collect())
    }

    /// Deals records out, each with its place in the caller's order.
    fn by_partition(
        &mut self,
        partitions: i32,
        records: Vec<NewRecord>,
    ) -> BTreeMap<i32, Vec<(usize, NewRecord)>> {
        let mut dealt: BTreeMap<i32, Vec<(usize, NewRecord)>> = BTreeMap::new();
        let mut keyless_bytes = 0;
        for (at, record) in records.into_iter().enumerate() {
            let partition = match (record.partition, &record.key) {
                (Some(partition), _) => partition,
                (None, Some(key)) => partitioner::for_key(key, partitions),
                (None, None) => {
                    // One partition until a batch is full: fewer, larger batches.
                    keyless_bytes += record.value.as_ref().map_or(0, Bytes::len);
                    if keyless_bytes > self.config.batch_bytes_max {
                        keyless_bytes = 0;
                        self.keyless = self.keyless.wrapping_add(1);
                    }
                    self.keyless.rem_euclid(partitions)
                }
            };
            dealt.entry(partition).or_default().push((at, record));
        }
        self.keyless = self.keyless.wrapping_add(1);
        dealt
    }

    async fn ask_for_identity(&self) -> Result<(ProducerId, ProducerEpoch), ClientError> {
        let client = &self.client;
        client
            .retrying(async || {
                let connection = client.any().await?;
                // The timeout concerns transactions, and must be positive all the same.
                let request = InitProducerIdRequest::default()
                    .with_transactional_id(None)
                    .with_transaction_timeout_ms(60_000);
                let response = connection.call(request).await?;
                ClientError::check(response.error_code, None, || "get a producer id".to_owned())?;
                Ok((ProducerId(response.producer_id.0), ProducerEpoch(response.producer_epoch)))
            })
            .await
    }
}

/// One partition's share of a send.
struct Lane {
    client: Client,
    config: Rc<ProducerConfig>,
    identity: Option<(ProducerId, ProducerEpoch)>,
    sequence: i32,
    topic: String,
    partition: i32,
}

/// The next sequence, and each record's place in the caller's order with its offset.
type Placed = (i32, Vec<(usize, Option<Offset>)>);

impl Lane {
    async fn send_all(mut self, records: Vec<(usize, NewRecord)>) -> Result<Placed, ClientError> {
        let mut placed = Vec::with_capacity(records.len());
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let mut batch = BatchBuilder::new(self.config.codec);
            if let Some((id, epoch)) = self.identity {
                batch = batch.producer(id, epoch, self.sequence);
            }
            let mut places = Vec::new();
            while let Some((at, record)) = records.next_if(|(_, record)| {
                let bytes = record.value.as_ref().map_or(0, Bytes::len);
                places.is_empty() || batch.plain_bytes() + bytes <= self.config.batch_bytes_max
            }) {
                let now = TimestampMs(self.client.runtime().clock.wall_ms());
                let parts = RecordParts {
                    key: record.key.as_deref(),
                    value: record.value.as_deref(),
                    headers: &record.headers,
                };
                batch.push(record.timestamp.unwrap_or(now), &parts);
                places.push(at);
            }
            let base = self.send_batch(Bytes::from(batch.build())).await?;
            self.sequence = ouzel_model::batch::header::sequence_after(self.sequence, places.len() as i32);
            let offsets = (0..).map(|delta| base.map(|base| base + delta));
            placed.extend(places.into_iter().zip(offsets));
        }
        Ok((self.sequence, placed))
    }

    /// Sends one batch until it is stored; returns its base offset, if the broker tells.
    async fn send_batch(&self, batch: Bytes) -> Result<Option<Offset>, ClientError> {
        let client = self.client.clone();
        client
            .retrying(async || {
                let sent = self.try_batch(&batch).await;
                if sent.as_ref().is_err_and(ClientError::is_retriable) {
                    self.client.forget_topic(&self.topic);
                }
                sent
            })
            .await
    }

    async fn try_batch(&self, batch: &Bytes) -> Result<Option<Offset>, ClientError> {
        let leader = self.client.leader(&self.topic, self.partition).await?;
        let acks = match self.config.acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        };
        let response =
            produce(&leader, &self.topic, self.partition, batch.clone(), acks, self.config.ack_timeout);
        let Some(response) = response.await? else { return Ok(None) };
        let what = || format!("produce to {}-{}", self.topic, self.partition);
        // Stored by an earlier try whose response was lost, too long ago for the broker to remember where.
        if response.error_code == ErrorCode::DuplicateSequenceNumber.code() {
            return Ok(None);
        }
        ClientError::check(response.error_code, response.error_message.as_deref(), what)?;
        Ok((response.base_offset >= 0).then_some(Offset(response.base_offset)))
    }
}

/// Sends one record set to a partition's leader, once; `None` with `acks` 0.
///
/// # Errors
/// See [`ClientError`]; the partition's code is the caller's to read.
pub async fn produce(
    leader: &Leader,
    topic: &str,
    partition: i32,
    records: Bytes,
    acks: i16,
    ack_timeout: Duration,
) -> Result<Option<ProducePartitionResponse>, ClientError> {
    let request = ProduceRequest {
        transactional_id: None,
        acks,
        timeout_ms: i32::try_from(ack_timeout.as_millis()).unwrap_or(i32::MAX),
        topics: vec![ProduceTopic {
            name: StrBytes::from_string(topic.to_owned()),
            topic_id: leader.topic_id,
            partitions: vec![ProducePartition { index: partition, records: Some(records) }],
        }],
    };
    let version_max = version_max_for(leader.topic_id);
    if acks == 0 {
        leader.connection.send_unanswered(request, version_max)?;
        return Ok(None);
    }
    let response: ProduceResponse = leader.connection.call_within(request, version_max, ack_timeout).await?;
    let mut partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
    let missing = || ClientError::Missing { what: format!("produce to {topic}-{partition}") };
    partitions.find(|answered| answered.index == partition).map(Some).ok_or_else(missing)
}

/// Versions that name topics by id alone are for topics whose id is known.
pub(crate) fn version_max_for(topic_id: TopicId) -> i16 {
    if topic_id.is_zero() { TOPIC_IDS_FROM - 1 } else { i16::MAX }
}
