//! One client's way to the brokers: it gives up on a connection that does not answer, as real clients do.

use std::time::Duration;

use bytes::Bytes;
use ouzel_client::{Client, ClientConfig, ClientError, Leader, OffsetSpec};
use ouzel_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use ouzel_protocol::messages::Call;
use ouzel_protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use ouzel_protocol::messages::kafka::InitProducerIdRequest;
use ouzel_protocol::{ErrorCode, StrBytes};
use ouzel_runtime::Runtime;

use super::super::shared::{Shared, TOPIC};
use crate::check::history::{Final, PartitionId, Value};
use crate::check::verdict::{Kind, Violation};
use crate::content;

/// The last version of Produce and Fetch that names topics by name.
const NAMES_UNTIL: i16 = 12;
/// The partition of the compacted topic.
pub(super) const ONLY: PartitionId = PartitionId(0);
const FETCH_BYTES_MAX: i32 = 64 << 10;

/// A client with short patience.
pub(super) struct Wire {
    runtime: Runtime,
    topic: &'static str,
    config: ClientConfig,
    client: Client,
}

/// A partition as far as it has been read.
#[derive(Default)]
pub(super) struct ReadSoFar {
    pub(super) next: Offset,
    pub(super) all: Final,
}

/// What a fetch found.
pub(super) struct Found {
    pub(super) records: Vec<(Offset, Value, LeaderEpoch)>,
    /// The offset after what was found.
    pub(super) next: Offset,
    pub(super) log_start: Offset,
    pub(super) high_watermark: Offset,
    pub(super) epoch: Option<LeaderEpoch>,
}

impl Wire {
    pub(super) fn new(runtime: &Runtime, bootstrap: &str) -> Wire {
        Wire::of(runtime, bootstrap, TOPIC)
    }

    /// For another topic than that of the records.
    pub(super) fn of(runtime: &Runtime, bootstrap: &str, topic: &'static str) -> Wire {
        let config = ClientConfig {
            connect_timeout: Duration::from_millis(500),
            request_timeout: Duration::from_millis(1000),
            call_timeout: Duration::from_millis(1500),
            retry_backoff: Duration::from_millis(50),
            ..ClientConfig::new(bootstrap)
        };
        Wire { runtime: runtime.clone(), topic, client: Client::new(runtime, config.clone()), config }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Takes note of a failure: a leader may have moved, a connection may be dead without having ended.
    pub(super) fn failed(&mut self, error: &ClientError) {
        match error {
            ClientError::Timeout { .. } => self.client = Client::new(&self.runtime, self.config.clone()),
            _ => self.client.forget_topic(self.topic),
        }
    }

    /// One attempt to write a batch; the base offset if it is told.
    pub(super) async fn produce(
        &mut self,
        partition: PartitionId,
        batch: Bytes,
        acks: i16,
    ) -> Result<Option<Offset>, ClientError> {
        let sent = self.try_produce(partition, batch, acks).await;
        if let Err(error) = &sent {
            self.failed(error);
        }
        sent
    }

    async fn try_produce(
        &self,
        partition: PartitionId,
        batch: Bytes,
        acks: i16,
    ) -> Result<Option<Offset>, ClientError> {
        let index = partition.0.cast_signed();
        let leader = self.client.leader(self.topic, index).await?;
        let wait = Duration::from_millis(500);
        let answer = ouzel_client::producer::produce(&leader, self.topic, index, batch, acks, wait).await?;
        let Some(answer) = answer else { return Ok(None) };
        if answer.error_code == ErrorCode::DuplicateSequenceNumber.code() {
            return Ok(None);
        }
        ClientError::check(answer.error_code, None, || format!("produce to {index}"))?;
        Ok((answer.base_offset >= 0).then_some(Offset(answer.base_offset)))
    }

    /// Reads on from an offset, once, and waits a little if there is nothing.
    pub(super) async fn fetch(&mut self, partition: PartitionId, from: Offset) -> Result<Found, ClientError> {
        let found = self.try_fetch(partition, from).await;
        if let Err(error) = &found {
            self.failed(error);
        }
        found
    }

    async fn try_fetch(&self, partition: PartitionId, from: Offset) -> Result<Found, ClientError> {
        let index = partition.0.cast_signed();
        let leader = self.client.leader(self.topic, index).await?;
        let version_max = if leader.topic_id.is_zero() { NAMES_UNTIL } else { i16::MAX };
        let wait = Duration::from_millis(200);
        let response =
            leader.connection.call_within(fetch_request(&leader, self.topic, index, from), version_max, wait);
        let response = response.await?;
        let what = || format!("fetch {index} from {from}");
        ClientError::check(response.error_code, None, what)?;
        let answers = response.topics.into_iter().flat_map(|topic| topic.partitions);
        let answer = { answers }.next().ok_or_else(|| ClientError::Missing { what: what() })?;
        ClientError::check(answer.error_code, None, what)?;
        let pieces: Vec<_> = answer.record_pieces().cloned().collect();
        let records = content::records(&pieces, from).map_err(|reason| ClientError::Corrupt {
            topic: self.topic.to_owned(),
            partition: index,
            offset: from.value(),
            reason,
        })?;
        Ok(Found {
            records,
            next: content::next_offset(&pieces).unwrap_or(from),
            log_start: Offset(answer.log_start_offset),
            high_watermark: Offset(answer.high_watermark),
            epoch: (leader.leader_epoch >= 0).then_some(LeaderEpoch(leader.leader_epoch)),
        })
    }

    /// Reads on to the high watermark, and adds what it finds to what was read so far.
    pub(super) async fn read_to_end(
        &mut self,
        partition: PartitionId,
        read: &mut ReadSoFar,
    ) -> Result<(), ClientError> {
        loop {
            match self.fetch(partition, read.next).await {
                Ok(found) => {
                    // What was cleaned leaves offsets without records, at the end of the last batch too.
                    read.next = found.next.max(read.next);
                    read.all.log_start = found.log_start;
                    read.all.high_watermark = found.high_watermark;
                    read.all.records.extend(found.records);
                    if read.next >= read.all.high_watermark {
                        return Ok(());
                    }
                }
                Err(error) => {
                    if error.code() == Some(ErrorCode::OffsetOutOfRange) {
                        // Retention has been here.
                        let place = (self.topic.to_owned(), partition.0.cast_signed());
                        let wanted = [(place.0.clone(), place.1, OffsetSpec::Earliest)];
                        let found = self.client.list_offsets(&wanted).await.unwrap_or_default();
                        read.next = found.get(&place).and_then(|found| found.offset).unwrap_or(read.next);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Asks a group's coordinator, once; `wait` is how long the answer may be held back. `code` reads the error of the
    /// whole out of the answer, `what` names it.
    pub(super) async fn ask_coordinator<C: Call>(
        &mut self,
        group: &str,
        request: C,
        version_max: i16,
        wait: Duration,
        what: &str,
        code: impl Fn(&C::Response) -> i16,
    ) -> Result<C::Response, ClientError> {
        let asked = async {
            let connection = self.client.coordinator(group).await?;
            let response = connection.call_within(request, version_max, wait).await?;
            ClientError::check(code(&response), None, || what.to_owned())?;
            Ok(response)
        };
        let asked = asked.await;
        if let Err(error) = &asked
            && passes(error)
        {
            self.client.forget_coordinator(group);
            self.failed(error);
        }
        asked
    }

    /// Gets a new producer id.
    pub(super) async fn producer_id(&mut self) -> Result<(ProducerId, ProducerEpoch), ClientError> {
        let asked = async {
            let connection = self.client.any().await?;
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(60_000);
            let response = connection.call(request).await?;
            ClientError::check(response.error_code, None, || "get a producer id".to_owned())?;
            Ok((ProducerId(response.producer_id.0), ProducerEpoch(response.producer_epoch)))
        };
        let asked = asked.await;
        if let Err(error) = &asked {
            self.failed(error);
        }
        asked
    }
}

fn fetch_request(leader: &Leader, topic: &'static str, index: i32, from: Offset) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 200,
        min_bytes: 1,
        max_bytes: FETCH_BYTES_MAX,
        topics: vec![FetchTopic {
            name: StrBytes::from_static_str(topic),
            topic_id: leader.topic_id,
            partitions: vec![FetchPartition {
                partition: index,
                current_leader_epoch: leader.leader_epoch,
                fetch_offset: from.value(),
                partition_max_bytes: FETCH_BYTES_MAX,
                ..FetchPartition::default()
            }],
        }],
        ..FetchRequest::default()
    }
}

/// Whether asking again may help. A broker that dies while it is greeted has not answered like one.
pub(super) fn passes(error: &ClientError) -> bool {
    error.is_retriable() || matches!(error, ClientError::NotKafka { .. })
}

/// A client that did everything right is told to try again, or one of these.
pub(super) fn unexpected(who: &str, error: &ClientError, expected: &[ErrorCode]) -> Option<Violation> {
    let is_expected = passes(error) || error.code().is_some_and(|code| expected.contains(&code));
    (!is_expected).then(|| Violation { kind: Kind::UnexpectedError, facts: format!("{who}: {error}") })
}

/// Takes note of an [`unexpected`] error; where disks have lied any may come.
pub(super) fn judge_error(shared: &Shared, who: &str, error: &ClientError, expected: &[ErrorCode]) {
    if let Some(violation) = unexpected(who, error, expected).filter(|_| !shared.are_lies_told()) {
        shared.broken(violation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_good_is_unexpected() {
        let refused = |code: ErrorCode| {
            ClientError::check(code.code(), None, || "produce to 0".to_owned()).unwrap_err()
        };
        let kind = |error: &ClientError, expected: &[ErrorCode]| {
            unexpected("producer0", error, expected).map(|violation| violation.kind)
        };
        let unknown = refused(ErrorCode::UnknownServerError);
        assert_eq!(kind(&unknown, &[]), Some(Kind::UnexpectedError));
        assert_eq!(kind(&unknown, &[ErrorCode::UnknownServerError]), None);
        assert_eq!(kind(&refused(ErrorCode::NotLeaderOrFollower), &[]), None);
        let corrupt =
            ClientError::Corrupt { topic: "t".to_owned(), partition: 0, offset: 7, reason: "crc".to_owned() };
        assert_eq!(kind(&corrupt, &[]), Some(Kind::UnexpectedError));
    }
}
