//! ListOffsets: the ends of a log, and offsets by time.

use std::collections::HashMap;
use std::rc::Rc;

use ouzel_model::{LeaderEpoch, PartitionIndex, TimestampMs, TopicIdPartition};
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use ouzel_protocol::messages::kafka::{ListOffsetsRequest, ListOffsetsResponse};

use crate::core::Core;
use crate::partition::{OffsetAnswer, OffsetQuery, ReadRefused};

use super::error_map::read_code;

/// Answers each partition on its owner core.
pub(crate) async fn list(core: &Rc<Core>, version: i16, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let view = core.view();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut times_named: HashMap<i32, u32> = HashMap::new();
        for partition in &topic.partitions {
            *times_named.entry(partition.partition_index).or_default() += 1;
        }
        let known = view.topic_by_name(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let index = PartitionIndex(asked.partition_index);
            let epoch = (asked.current_leader_epoch >= 0).then_some(LeaderEpoch(asked.current_leader_epoch));
            let answer = if times_named[&asked.partition_index] > 1 {
                Err(ErrorCode::InvalidRequest)
            } else {
                match (known, query(version, asked.timestamp)) {
                    (_, None) => Err(ErrorCode::UnsupportedVersion),
                    (None, _) => Err(ErrorCode::UnknownTopicOrPartition),
                    (Some(topic), Some(query)) => {
                        let at = TopicIdPartition { topic_id: topic.id, partition: index };
                        match view.route(topic.id, index) {
                            None => Err(ErrorCode::UnknownTopicOrPartition),
                            Some(route) => ask(core, route.core, at, query, epoch).await,
                        }
                    }
                }
            };
            partitions.push(respond(version, asked.partition_index, answer));
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// What a timestamp asks for; `None` for a special value the version does not have.
fn query(version: i16, timestamp: i64) -> Option<OffsetQuery> {
    match timestamp {
        0.. => Some(OffsetQuery::AtTime(TimestampMs(timestamp))),
        -1 => Some(OffsetQuery::Latest),
        -2 => Some(OffsetQuery::Earliest),
        -3 if version >= 7 => Some(OffsetQuery::MaxTimestamp),
        // Without tiers everything is local, nothing is tiered, and nothing waits for its upload.
        -4 if version >= 8 => Some(OffsetQuery::Earliest),
        -5 if version >= 9 => Some(OffsetQuery::Nothing),
        -6 if version >= 11 => Some(OffsetQuery::Nothing),
        _ => None,
    }
}

async fn ask(
    core: &Rc<Core>,
    owner: ouzel_runtime::CoreId,
    at: TopicIdPartition,
    query: OffsetQuery,
    epoch: Option<LeaderEpoch>,
) -> Result<OffsetAnswer, ErrorCode> {
    let answered = core.call(owner, move |core| {
        let partition = core.partitions.get(&at);
        async move {
            match partition {
                Some(partition) => partition.look_up(query, epoch).await,
                None => Err(ReadRefused::NotHere),
            }
        }
    });
    match answered.await {
        Ok(answer) => answer.map_err(|refused| read_code(&refused)),
        Err(_) => Err(ErrorCode::NotLeaderOrFollower),
    }
}

fn respond(
    version: i16,
    index: i32,
    answer: Result<OffsetAnswer, ErrorCode>,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match answer {
        Err(code) => response.with_error_code(code.code()).with_timestamp(-1).with_offset(-1),
        Ok(found) => response
            .with_timestamp(found.timestamp.value())
            .with_offset(found.offset.value())
            .with_leader_epoch(if version >= 4 {
                found.leader_epoch.value()
            } else {
                LeaderEpoch::NONE.value()
            }),
    }
}
