//! OffsetForLeaderEpoch: where an epoch ended, so that a consumer finds out what was truncated behind its back
//! (KIP-320).

use std::rc::Rc;

use ouzel_model::{LeaderEpoch, PartitionIndex, TopicIdPartition};
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use ouzel_protocol::messages::kafka::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::core::Core;
use crate::partition::ReadRefused;

use super::error_map::read_code;

/// Answers each partition on its owner core.
pub(crate) async fn end_offsets(
    core: &Rc<Core>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let view = core.view();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = view.topic_by_name(&topic.topic);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let index = PartitionIndex(asked.partition);
            let current =
                (asked.current_leader_epoch >= 0).then_some(LeaderEpoch(asked.current_leader_epoch));
            let wanted = LeaderEpoch(asked.leader_epoch);
            let route = known.and_then(|topic| Some((topic.id, view.route(topic.id, index)?)));
            let answer = match route {
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some((topic_id, route)) => {
                    let at = TopicIdPartition { topic_id, partition: index };
                    let answered = core.call(route.core, move |core| {
                        let answer = match core.partitions.get(&at) {
                            Some(partition) => partition.end_of_epoch(wanted, current),
                            None => Err(ReadRefused::NotHere),
                        };
                        async move { answer }
                    });
                    match answered.await {
                        Ok(answer) => answer.map_err(|refused| read_code(&refused)),
                        Err(_) => Err(ErrorCode::NotLeaderOrFollower),
                    }
                }
            };
            let response = EpochEndOffset::default().with_partition(asked.partition);
            partitions.push(match answer {
                Ok((epoch, end)) => response.with_leader_epoch(epoch.value()).with_end_offset(end.value()),
                Err(code) => response.with_error_code(code.code()).with_leader_epoch(-1).with_end_offset(-1),
            });
        }
        topics
            .push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}
