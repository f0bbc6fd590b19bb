//! Reads partitions from given offsets on, without a group.
//!
//! A poll asks every leader at once for all its partitions and returns what came, decoded. Control batches are stepped
//! over. A partition whose leader has moved is asked for again at the next poll.

mod aborted;

use std::collections::BTreeMap;
use std::time::Duration;

use ouzel_model::batch::{self, Record, RecordStream};
use ouzel_model::{Offset, TopicId};
use ouzel_protocol::StrBytes;
use ouzel_protocol::messages::fetch::{FetchPartition, FetchPartitionResponse, FetchRequest, FetchTopic};

use self::aborted::Aborted;
use crate::client::{Client, OnLeader};
use crate::connection::Connection;
use crate::error::ClientError;
use crate::producer::version_max_for;

/// Settings of a [`Consumer`]; the names are those of Kafka's consumer.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// How long a broker waits for `min_bytes`.
    pub max_wait: Duration,
    /// How much a broker waits for.
    pub min_bytes: i32,
    /// How much one broker returns at most, the first batch excepted.
    pub max_bytes: i32,
    /// How much one partition returns at most, the first batch excepted.
    pub partition_max_bytes: i32,
    /// How large one batch may become when it is decompressed.
    pub plain_bytes_max: usize,
    /// Which records of transactions are read.
    pub isolation: Isolation,
}

/// What a reader sees of transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All records, up to the high watermark.
    #[default]
    ReadUncommitted,
    /// No record of a transaction that was aborted, and none behind one that is open: up to the last stable offset.
    ReadCommitted,
}

impl Isolation {
    fn on_the_wire(self) -> i8 {
        match self {
            Isolation::ReadUncommitted => 0,
            Isolation::ReadCommitted => 1,
        }
    }
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        ConsumerConfig {
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 50 << 20,
            partition_max_bytes: 1 << 20,
            plain_bytes_max: 512 << 20,
            isolation: Isolation::ReadUncommitted,
        }
    }
}

/// A record with the place it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Consumed {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The record, with its offset.
    pub record: Record,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    next: Offset,
    /// As of the last poll that asked; `None` before.
    high_watermark: Option<Offset>,
}

/// Reads partitions from given offsets on.
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    positions: BTreeMap<(String, i32), Position>,
}

impl Consumer {
    /// A consumer of no partition yet.
    pub fn new(client: &Client, config: ConsumerConfig) -> Consumer {
        Consumer { client: client.clone(), config, positions: BTreeMap::new() }
    }

    /// Reads a partition from `offset` on, from the next poll.
    pub fn seek(&mut self, topic: &str, partition: i32, offset: Offset) {
        let position = Position { next: offset, high_watermark: None };
        self.positions.insert((topic.to_owned(), partition), position);
    }

    /// Stops reading a partition.
    pub fn forget(&mut self, topic: &str, partition: i32) {
        self.positions.remove(&(topic.to_owned(), partition));
    }

    /// The offset that is read next.
    pub fn position(&self, topic: &str, partition: i32) -> Option<Offset> {
        self.positions.get(&(topic.to_owned(), partition)).map(|position| position.next)
    }

    /// The high watermark, as the last poll saw it.
    pub fn high_watermark(&self, topic: &str, partition: i32) -> Option<Offset> {
        self.positions.get(&(topic.to_owned(), partition))?.high_watermark
    }

    /// Whether every partition has been read up to its high watermark, as the last poll saw it.
    pub fn is_at_end(&self) -> bool {
        self.positions.values().all(|at| at.high_watermark.is_some_and(|end| at.next >= end))
    }

    /// Asks every leader once and returns what came, in offset order within a partition; nothing if nothing came in
    /// time.
    ///
    /// # Errors
    /// What does not pass by itself, `OFFSET_OUT_OF_RANGE` among it; what does pass, once it has lasted for
    /// the call timeout.
    pub async fn poll(&mut self) -> Result<Vec<Consumed>, ClientError> {
        let client = self.client.clone();
        client.retrying(async || self.poll_once().await).await
    }

    async fn poll_once(&mut self) -> Result<Vec<Consumed>, ClientError> {
        let wanted =
            self.positions.iter().map(|((topic, partition), at)| (topic.clone(), *partition, at.next));
        let leaders = self.client.by_leader(wanted.collect::<Vec<_>>()).await;
        let leaders = self.forgetting(leaders)?;
        let mut asked = Vec::new();
        for (connection, partitions) in leaders {
            let topics: Vec<String> = partitions.iter().map(|partition| partition.topic.clone()).collect();
            asked.push((topics, ouzel_runtime::spawn(fetch(connection, self.config.clone(), partitions))));
        }
        let mut consumed = Vec::new();
        let mut failed = None;
        for (topics, fetching) in asked {
            match fetching.await.expect("a fetch ends with a result") {
                Ok(answers) => {
                    for (topic, topic_id, answer) in answers {
                        let name = topic.or_else(|| self.client.topic_named(topic_id));
                        let Some(name) = name else { continue };
                        if let Err(error) = self.take(&name, answer, &mut consumed) {
                            self.client.forget_topic(&name);
                            failed = failed.or(Some(error));
                        }
                    }
                }
                Err(error) => {
                    topics.iter().for_each(|topic| self.client.forget_topic(topic));
                    failed = failed.or(Some(error));
                }
            }
        }
        match failed {
            // What was taken has moved its positions on and must be given out; the error comes back by itself.
            Some(error) if consumed.is_empty() => Err(error),
            _ => Ok(consumed),
        }
    }

    fn forgetting<T>(&self, result: Result<T, ClientError>) -> Result<T, ClientError> {
        if result.as_ref().is_err_and(ClientError::is_retriable) {
            self.positions.keys().for_each(|(topic, _)| self.client.forget_topic(topic));
        }
        result
    }

    /// Takes one partition's answer in: its records out, its position on.
    fn take(
        &mut self,
        topic: &str,
        mut answer: FetchPartitionResponse,
        consumed: &mut Vec<Consumed>,
    ) -> Result<(), ClientError> {
        let partition = answer.partition;
        let Some(position) = self.positions.get_mut(&(topic.to_owned(), partition)) else { return Ok(()) };
        let from = position.next;
        ClientError::check(answer.error_code, None, || {
            format!("fetch {topic}-{partition} from offset {from}")
        })?;
        position.high_watermark = Some(Offset(answer.high_watermark));
        let corrupt = |reason: String| ClientError::Corrupt {
            topic: topic.to_owned(),
            partition,
            offset: from.value(),
            reason,
        };
        let mut aborted = Aborted::of(answer.aborted_transactions.take().unwrap_or_default());
        for piece in answer.record_pieces() {
            for batch in batch::batches(piece) {
                let batch = batch.map_err(|error| corrupt(error.to_string()))?;
                batch.verify_crc().map_err(|error| corrupt(error.to_string()))?;
                let hidden = aborted.hides(&batch, self.config.plain_bytes_max);
                if batch.header.next_offset() <= position.next {
                    continue;
                }
                if !hidden && !batch.header.attributes.is_control() {
                    let stream = RecordStream::new(&batch, self.config.plain_bytes_max);
                    let mut stream = stream.map_err(|error| corrupt(error.to_string()))?;
                    while let Some(record) = stream.next_record() {
                        let record = record.map_err(|error| corrupt(error.to_string()))?;
                        if record.offset >= position.next {
                            consumed.push(Consumed { topic: topic.to_owned(), partition, record });
                        }
                    }
                }
                position.next = batch.header.next_offset();
            }
        }
        Ok(())
    }
}

type Answer = (Option<String>, TopicId, FetchPartitionResponse);

/// Asks one leader for all its partitions, outside any fetch session.
async fn fetch(
    connection: Connection,
    config: ConsumerConfig,
    partitions: Vec<OnLeader<Offset>>,
) -> Result<Vec<Answer>, ClientError> {
    // All by id, or all by name: a version says which.
    let version_max = partitions.iter().map(|partition| version_max_for(partition.leader.topic_id)).min();
    let mut topics: BTreeMap<String, FetchTopic> = BTreeMap::new();
    for OnLeader { topic, partition, leader, value } in partitions {
        let name = StrBytes::from_string(topic.clone());
        let wanted = topics.entry(topic).or_insert_with(|| FetchTopic {
            name,
            topic_id: leader.topic_id,
            partitions: Vec::new(),
        });
        wanted.partitions.push(FetchPartition {
            partition,
            current_leader_epoch: leader.leader_epoch,
            fetch_offset: value.value(),
            partition_max_bytes: config.partition_max_bytes,
            ..FetchPartition::default()
        });
    }
    let request = FetchRequest {
        max_wait_ms: i32::try_from(config.max_wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: config.min_bytes,
        max_bytes: config.max_bytes,
        isolation_level: config.isolation.on_the_wire(),
        topics: topics.into_values().collect(),
        ..FetchRequest::default()
    };
    let response = connection.call_within(request, version_max.unwrap_or(i16::MAX), config.max_wait).await?;
    ClientError::check(response.error_code, None, || format!("fetch from {}", connection.address()))?;
    let answers = response.topics.into_iter().flat_map(|topic| {
        let name = (!topic.name.is_empty()).then(|| topic.name.to_string());
        let topic_id = topic.topic_id;
        topic.partitions.into_iter().map(move |answer| (name.clone(), topic_id, answer))
    });
    Ok(answers.collect())
}
