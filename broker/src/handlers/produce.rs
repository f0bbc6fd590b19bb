//! Produce: one record batch per partition, answered when it is as safe as `acks` asks.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use ouzel_model::{PartitionIndex, TimestampMs, TopicIdPartition};
use ouzel_protocol::messages::produce::{
    ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopicResponse, RecordError,
};
use ouzel_protocol::{ErrorCode, StrBytes};
use ouzel_runtime::CoreId;

use crate::core::{Core, Stopped};
use crate::dispatch::Client;
use crate::partition::append::admit;
use crate::partition::{Acks, AppendRefused, Appended};

use super::error_map::{append_code, refused_code};

/// The client id of Kafka's own tools, which alone may write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// Where in the response an answer belongs: topic, partition.
type Place = (usize, usize);
type Answers = Vec<(Place, Result<Appended, AppendRefused>)>;
type OwnersAnswers = std::pin::Pin<Box<dyn Future<Output = Result<Answers, Stopped>> + 'static>>;

/// A produce whose batches have their places; its answer comes when they are safe.
pub(crate) struct Pending {
    response: ProduceResponse,
    /// One per owner core.
    owners: Vec<OwnersAnswers>,
    places: Vec<Vec<Place>>,
}

/// Judges the request and hands each batch to its owner core. The order in which requests begin is the order in which
/// their batches get their places.
pub(crate) fn begin(core: &Rc<Core>, client: &Client, version: i16, request: ProduceRequest) -> Pending {
    let is_admin_tool = client.id() == ADMIN_CLIENT_ID;
    let Some(acks) = Acks::from_wire(request.acks) else {
        return refused_whole(&request, ErrorCode::InvalidRequiredAcks);
    };
    if request.transactional_id.is_some() {
        return refused_whole(&request, ErrorCode::TransactionalIdAuthorizationFailed);
    }
    let now = TimestampMs(core.runtime.clock.wall_ms());
    let view = core.view();
    let mut response = ProduceResponse::default();
    let mut by_owner: BTreeMap<CoreId, Vec<(Place, TopicIdPartition, BytesMut)>> = BTreeMap::new();
    for (topic_at, topic) in request.topics.into_iter().enumerate() {
        let by_id = version >= ouzel_protocol::messages::common::TOPIC_IDS_FROM;
        let known = if by_id { view.topic_by_id(topic.topic_id) } else { view.topic_by_name(&topic.name) };
        let missing = if by_id { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (partition_at, partition) in topic.partitions.into_iter().enumerate() {
            let index = partition.index;
            let refuse = |code| ProducePartitionResponse::error(index, code);
            let Some(known) = known else {
                partitions.push(refuse(missing));
                continue;
            };
            let Some(route) = view.route(known.id, PartitionIndex(index)) else {
                partitions.push(refuse(ErrorCode::UnknownTopicOrPartition));
                continue;
            };
            if known.name.is_internal() && !is_admin_tool {
                partitions.push(refuse(ErrorCode::InvalidTopic));
                continue;
            }
            let config = view.topic_configs.of(known.id);
            let records = partition.records.unwrap_or_default();
            match admit(&records, &config, version, now) {
                Ok(batch) => {
                    let at = TopicIdPartition { topic_id: known.id, partition: PartitionIndex(index) };
                    by_owner.entry(route.core).or_default().push(((topic_at, partition_at), at, batch));
                    partitions.push(refuse(ErrorCode::UnknownServerError));
                }
                Err(refused) => {
                    let faults = refused.record_faults().iter().map(|fault| RecordError {
                        batch_index: fault.index,
                        message: Some(StrBytes::from_string(fault.message.clone())),
                    });
                    partitions.push(ProducePartitionResponse {
                        record_errors: faults.collect(),
                        error_message: Some(StrBytes::from_string(refused.to_string())),
                        ..refuse(refused_code(&refused))
                    });
                }
            }
        }
        response.topics.push(ProduceTopicResponse { name: topic.name, topic_id: topic.topic_id, partitions });
    }
    let within = Duration::from_millis(request.timeout_ms.max(0).unsigned_abs().into());
    let mut owners: Vec<OwnersAnswers> = Vec::with_capacity(by_owner.len());
    let mut places = Vec::with_capacity(by_owner.len());
    for (owner, batches) in by_owner {
        places.push(batches.iter().map(|(place, ..)| *place).collect());
        let appending = core.call(owner, move |core: &Rc<Core>| append_all(core, batches, acks, within, now));
        owners.push(Box::pin(appending));
    }
    Pending { response, owners, places }
}

/// On the owner core: fixes every batch's place before it returns, then waits for all of them together.
fn append_all(
    core: &Rc<Core>,
    batches: Vec<(Place, TopicIdPartition, BytesMut)>,
    acks: Acks,
    within: Duration,
    now: TimestampMs,
) -> impl Future<Output = Answers> + use<> {
    let placed: Vec<_> = batches
        .into_iter()
        .map(|(place, at, batch)| {
            let appending = core.partitions.get(&at).ok_or_else(|| {
                core.partitions.turn_away(&at, &batch);
                AppendRefused::NotHere
            });
            (place, appending.map(|partition| partition.append(batch, acks, now)))
        })
        .collect();
    let clock = core.runtime.clock.clone();
    let deadline = clock.now() + within;
    async move {
        let mut answers = Vec::with_capacity(placed.len());
        for (place, appending) in placed {
            let answer = match appending {
                Err(refused) => Err(refused),
                Ok(appending) => match before(&clock, deadline, appending).await {
                    Some(answer) => answer,
                    None => Err(AppendRefused::TimedOut),
                },
            };
            answers.push((place, answer));
        }
        answers
    }
}

async fn before<F: Future>(
    clock: &ouzel_runtime::Clock,
    deadline: ouzel_runtime::clock::Instant,
    future: F,
) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    tokio::select! {
        biased;
        output = &mut future => Some(output),
        () = clock.sleep_until(deadline) => None,
    }
}

impl Pending {
    /// Resolves when every batch is as safe as asked, or has failed.
    pub(crate) async fn finish(mut self) -> ProduceResponse {
        for (owner, places) in self.owners.into_iter().zip(self.places) {
            match owner.await {
                Ok(answers) => {
                    for ((topic, partition), answer) in answers {
                        let slot = &mut self.response.topics[topic].partitions[partition];
                        *slot = answered(slot.index, answer);
                    }
                }
                Err(Stopped) => {
                    for (topic, partition) in places {
                        let slot = &mut self.response.topics[topic].partitions[partition];
                        *slot = ProducePartitionResponse::error(slot.index, ErrorCode::NotLeaderOrFollower);
                    }
                }
            }
        }
        self.response
    }

    /// As [`Pending::finish`], for acks=0: nobody reads a response, so only the first failure is of interest.
    pub(crate) async fn finish_silent(self) -> Result<(), String> {
        let response = self.finish().await;
        let all = response.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)));
        let mut failed = all.filter(|(_, partition)| partition.error_code != 0);
        if let Some((topic, partition)) = failed.next() {
            let code = ErrorCode::from_code(partition.error_code).unwrap_or(ErrorCode::UnknownServerError);
            return Err(format!("{}-{}: {}", topic.name, partition.index, code.words()));
        }
        Ok(())
    }
}

fn answered(index: i32, answer: Result<Appended, AppendRefused>) -> ProducePartitionResponse {
    match answer {
        Ok(appended) => ProducePartitionResponse {
            error_code: ErrorCode::None.code(),
            base_offset: appended.base_offset.value(),
            log_append_time_ms: appended.log_append_time.value(),
            log_start_offset: appended.log_start.value(),
            ..ProducePartitionResponse::error(index, ErrorCode::None)
        },
        Err(refused) => ProducePartitionResponse {
            error_message: Some(StrBytes::from_string(refused.to_string())),
            ..ProducePartitionResponse::error(index, append_code(&refused))
        },
    }
}

fn refused_whole(request: &ProduceRequest, code: ErrorCode) -> Pending {
    let topics = request
        .topics
        .iter()
        .map(|topic| ProduceTopicResponse {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic
                .partitions
                .iter()
                .map(|p| ProducePartitionResponse::error(p.index, code))
                .collect(),
        })
        .collect();
    let response = ProduceResponse { topics, ..ProduceResponse::default() };
    Pending { response, owners: Vec::new(), places: Vec::new() }
}
