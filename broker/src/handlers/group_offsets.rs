//! A group's committed offsets: OffsetCommit, OffsetFetch, OffsetDelete.

use std::collections::HashMap;
use std::rc::Rc;

use ouzel_coordinator::request::{
    CommitPartition, CommitTopic, DeleteTopic, FetchTopic, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest,
};
use ouzel_coordinator::{InstanceId, MemberId, Request, Response};
use ouzel_model::{GroupId, LeaderEpoch, Offset, PartitionIndex, TopicId};
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::{
    self as messages, offset_commit_response as commit_response, offset_delete_response as delete_response,
    offset_fetch_response as fetch_response,
};

use crate::coordinators::{self, Unavailable};
use crate::core::Core;

use super::error_map::{code_of, group_code, unavailable_code};
use super::wire::{shared, text, topic_id, topic_name, uuid};

/// The first versions that name topics by id.
const IDS_FROM: i16 = 10;

/// OffsetCommit. Partitions that do not exist are answered here; the rest goes to the coordinator in one piece.
pub(crate) async fn commit(
    core: &Rc<Core>,
    version: i16,
    request: messages::OffsetCommitRequest,
) -> messages::OffsetCommitResponse {
    let group = GroupId::new(request.group_id.as_str());
    let view = core.view();
    let mut topics = Vec::new();
    // What is known of each partition without the coordinator, in the request's order.
    let mut answers: Vec<(commit_response::OffsetCommitResponseTopic, Vec<(i32, ErrorCode)>)> = Vec::new();
    for wire in &request.topics {
        let id = topic_id(wire.topic_id);
        let known = view.topic(wire.name.as_str(), if version >= IDS_FROM { id } else { TopicId::ZERO });
        let known = if version >= IDS_FROM && id.is_zero() { None } else { known };
        let missing =
            if version >= IDS_FROM { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
        let mut partitions = Vec::new();
        let mut answered = Vec::new();
        for p in &wire.partitions {
            let exists = known.map(|topic| topic.partition(PartitionIndex(p.partition_index)).is_some());
            answered.push((
                p.partition_index,
                match exists {
                    None => missing,
                    Some(false) => ErrorCode::UnknownTopicOrPartition,
                    Some(true) => ErrorCode::None,
                },
            ));
            if exists == Some(true) {
                partitions.push(CommitPartition {
                    partition: PartitionIndex(p.partition_index),
                    offset: Offset(p.committed_offset),
                    leader_epoch: LeaderEpoch(p.committed_leader_epoch),
                    metadata: p.committed_metadata.as_ref().map(shared),
                });
            }
        }
        if let (Some(topic), false) = (known, partitions.is_empty()) {
            topics.push(CommitTopic { topic: topic.name.clone(), topic_id: topic.id, partitions });
        }
        let named = commit_response::OffsetCommitResponseTopic::default()
            .with_name(wire.name.clone())
            .with_topic_id(wire.topic_id);
        answers.push((named, answered));
    }
    let outcome = if topics.is_empty() && !answers.is_empty() {
        Ok(HashMap::new())
    } else {
        commit_known(core, version, &group, &request, topics).await
    };
    let answer =
        |(named, partitions): (commit_response::OffsetCommitResponseTopic, Vec<(i32, ErrorCode)>)| {
            let name = if version >= IDS_FROM {
                view.topic("", topic_id(named.topic_id)).map(|topic| topic.name.clone())
            } else {
                view.topic(named.name.as_str(), TopicId::ZERO).map(|topic| topic.name.clone())
            };
            named.with_partitions(
                partitions
                    .into_iter()
                    .map(|(index, code)| {
                        let code = match (&outcome, code) {
                            (Ok(codes), ErrorCode::None) => name
                                .as_ref()
                                .and_then(|name| codes.get(&(name.clone(), PartitionIndex(index))))
                                .copied()
                                .unwrap_or(ErrorCode::UnknownServerError),
                            (Err(error), ErrorCode::None) => *error,
                            (_, code) => code,
                        };
                        commit_response::OffsetCommitResponsePartition::default()
                            .with_partition_index(index)
                            .with_error_code(code.code())
                    })
                    .collect(),
            )
        };
    messages::OffsetCommitResponse::default().with_topics(answers.into_iter().map(answer).collect())
}

async fn commit_known(
    core: &Rc<Core>,
    version: i16,
    group: &GroupId,
    request: &messages::OffsetCommitRequest,
    topics: Vec<CommitTopic>,
) -> Result<HashMap<(ouzel_model::TopicName, PartitionIndex), ErrorCode>, ErrorCode> {
    let commit = OffsetCommitRequest {
        group: group.clone(),
        generation: request.generation_id_or_member_epoch,
        member_id: MemberId::new(request.member_id.as_str()),
        instance_id: request.group_instance_id.as_ref().map(|id| InstanceId::new(id.as_str())),
        retention_ms: (version <= 4 && request.retention_time_ms >= 0).then_some(request.retention_time_ms),
        knows_group_not_found: version >= 9,
        topics,
    };
    match coordinators::ask(core, group, Request::OffsetCommit(commit)).await {
        Ok(Response::OffsetCommit(Ok(topics))) => Ok(topics
            .into_iter()
            .flat_map(|t| {
                t.partitions.into_iter().map(move |(p, outcome)| ((t.topic.clone(), p), code_of(outcome)))
            })
            .collect()),
        Ok(Response::OffsetCommit(Err(error))) => Err(group_code(error)),
        Ok(_) => Err(ErrorCode::UnknownServerError),
        Err(unavailable) => Err(unavailable_code(unavailable)),
    }
}

/// OffsetFetch: one group below version 8, several from then on.
pub(crate) async fn fetch(
    core: &Rc<Core>,
    version: i16,
    request: messages::OffsetFetchRequest,
) -> messages::OffsetFetchResponse {
    if version >= 8 {
        let mut groups = Vec::new();
        for group in request.groups {
            groups.push(fetch_group(core, version, group, request.require_stable).await);
        }
        return messages::OffsetFetchResponse::default().with_groups(groups);
    }
    // The old layout is the new one with a single group in it.
    let topics = request.topics.map(|topics| {
        topics
            .into_iter()
            .map(|t| {
                messages::offset_fetch_request::OffsetFetchRequestTopics::default()
                    .with_name(t.name)
                    .with_partition_indexes(t.partition_indexes)
            })
            .collect()
    });
    let group = messages::offset_fetch_request::OffsetFetchRequestGroup::default()
        .with_group_id(request.group_id)
        .with_topics(topics);
    let fetched = fetch_group(core, version, group, request.require_stable).await;
    let topics = fetched
        .topics
        .into_iter()
        .map(|t| {
            fetch_response::OffsetFetchResponseTopic::default().with_name(t.name).with_partitions(
                t.partitions
                    .into_iter()
                    .map(|p| {
                        fetch_response::OffsetFetchResponsePartition::default()
                            .with_partition_index(p.partition_index)
                            .with_committed_offset(p.committed_offset)
                            .with_committed_leader_epoch(p.committed_leader_epoch)
                            .with_metadata(p.metadata)
                            .with_error_code(p.error_code)
                    })
                    .collect(),
            )
        })
        .collect();
    messages::OffsetFetchResponse::default().with_error_code(fetched.error_code).with_topics(topics)
}

async fn fetch_group(
    core: &Rc<Core>,
    version: i16,
    wire: messages::offset_fetch_request::OffsetFetchRequestGroup,
    require_stable: bool,
) -> fetch_response::OffsetFetchResponseGroup {
    let group = GroupId::new(wire.group_id.as_str());
    let response = fetch_response::OffsetFetchResponseGroup::default().with_group_id(wire.group_id);
    let view = core.view();
    let by_id = version >= IDS_FROM;
    let mut wanted = Vec::new();
    // Topics that do not exist, answered without the coordinator: an unknown id is an error, an unknown name has
    // nothing committed.
    let mut absent = Vec::new();
    for t in wire.topics.iter().flatten() {
        let id = topic_id(t.topic_id);
        let name = if by_id {
            view.topic_by_id(id).map(|topic| topic.name.clone())
        } else {
            ouzel_model::TopicName::new(t.name.as_str()).ok()
        };
        let partitions = t.partition_indexes.iter().copied().map(PartitionIndex).collect();
        match name {
            Some(topic) => wanted.push(FetchTopic {
                topic,
                topic_id: if by_id { id } else { TopicId::ZERO },
                partitions,
            }),
            None => {
                absent.push(absent_topic(t, if by_id { ErrorCode::UnknownTopicId } else { ErrorCode::None }))
            }
        }
    }
    let fetch = OffsetFetchRequest {
        group: group.clone(),
        topics: wire.topics.is_some().then_some(wanted),
        require_stable,
    };
    let topics = match coordinators::ask(core, &group, Request::OffsetFetch(fetch)).await {
        Ok(Response::OffsetFetch(Ok(topics))) => topics,
        Ok(Response::OffsetFetch(Err(error))) => return response.with_error_code(group_code(error).code()),
        Ok(_) => return response.with_error_code(ErrorCode::UnknownServerError.code()),
        Err(unavailable) => return response.with_error_code(unavailable_code(unavailable).code()),
    };
    let found = topics.into_iter().map(|t| {
        let id = if by_id && t.topic_id.is_zero() {
            view.topic(t.topic.as_str(), TopicId::ZERO).map_or(TopicId::ZERO, |topic| topic.id)
        } else {
            t.topic_id
        };
        fetch_response::OffsetFetchResponseTopics::default()
            .with_name(topic_name(&t.topic))
            .with_topic_id(uuid(id))
            .with_partitions(
                t.partitions
                    .into_iter()
                    .map(|p| {
                        fetch_response::OffsetFetchResponsePartitions::default()
                            .with_partition_index(p.partition.0)
                            .with_committed_offset(p.offset.value())
                            .with_committed_leader_epoch(p.leader_epoch.value())
                            .with_metadata(Some(text(&p.metadata)))
                            .with_error_code(if p.unstable {
                                ErrorCode::UnstableOffsetCommit.code()
                            } else {
                                ErrorCode::None.code()
                            })
                    })
                    .collect(),
            )
    });
    response.with_topics(found.chain(absent).collect())
}

fn absent_topic(
    wire: &messages::offset_fetch_request::OffsetFetchRequestTopics,
    error: ErrorCode,
) -> fetch_response::OffsetFetchResponseTopics {
    fetch_response::OffsetFetchResponseTopics::default()
        .with_name(wire.name.clone())
        .with_topic_id(wire.topic_id)
        .with_partitions(
            wire.partition_indexes
                .iter()
                .map(|index| {
                    fetch_response::OffsetFetchResponsePartitions::default()
                        .with_partition_index(*index)
                        .with_committed_offset(Offset::NONE.value())
                        .with_committed_leader_epoch(LeaderEpoch::NONE.value())
                        .with_metadata(Some(text("")))
                        .with_error_code(error.code())
                })
                .collect(),
        )
}

/// OffsetDelete.
pub(crate) async fn delete(
    core: &Rc<Core>,
    request: messages::OffsetDeleteRequest,
) -> messages::OffsetDeleteResponse {
    let group = GroupId::new(request.group_id.as_str());
    let view = core.view();
    let mut known = Vec::new();
    for t in &request.topics {
        if let Some(topic) = view.topic(t.name.as_str(), TopicId::ZERO) {
            let exists = |index: &i32| topic.partition(PartitionIndex(*index)).is_some();
            let indexes = t.partitions.iter().map(|p| p.partition_index).filter(exists);
            known.push(DeleteTopic {
                topic: topic.name.clone(),
                partitions: indexes.map(PartitionIndex).collect(),
            });
        }
    }
    let refused = |error: ErrorCode| messages::OffsetDeleteResponse::default().with_error_code(error.code());
    let ask = Request::OffsetDelete(OffsetDeleteRequest { group: group.clone(), topics: known });
    let outcomes: HashMap<_, _> = match coordinators::ask(core, &group, ask).await {
        Ok(Response::OffsetDelete(Ok(topics))) => topics
            .into_iter()
            .flat_map(|t| {
                t.partitions.into_iter().map(move |(p, o)| ((t.topic.as_str().to_owned(), p.0), code_of(o)))
            })
            .collect(),
        Ok(Response::OffsetDelete(Err(error))) => return refused(group_code(error)),
        Ok(_) => return refused(ErrorCode::UnknownServerError),
        Err(Unavailable::NoTopic) => return refused(ErrorCode::GroupIdNotFound),
        Err(unavailable) => return refused(unavailable_code(unavailable)),
    };
    let topics = request
        .topics
        .into_iter()
        .map(|t| {
            let name = t.name.as_str().to_owned();
            let partitions = t.partitions.iter().map(|p| {
                let code = outcomes.get(&(name.clone(), p.partition_index)).copied();
                delete_response::OffsetDeleteResponsePartition::default()
                    .with_partition_index(p.partition_index)
                    .with_error_code(code.unwrap_or(ErrorCode::UnknownTopicOrPartition).code())
            });
            delete_response::OffsetDeleteResponseTopic::default()
                .with_partitions(partitions.collect())
                .with_name(t.name)
        })
        .collect();
    messages::OffsetDeleteResponse::default().with_topics(topics)
}
