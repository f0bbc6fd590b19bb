//! CreateTopics and DeleteTopics.

use std::rc::Rc;

use ouzel_metadata::configs::describe_topic;
use ouzel_metadata::plan::create_topics::{CreateTopicError, NewTopic, PlannedTopic};
use ouzel_metadata::plan::delete_topics::TopicRef;
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::create_topics_request::CreatableTopic;
use ouzel_protocol::messages::kafka::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use ouzel_protocol::messages::kafka::delete_topics_response::DeletableTopicResult;
use ouzel_protocol::messages::kafka::{
    self as messages, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};

use crate::controller;
use crate::core::Core;

use super::error_map::{controller_code, create_topic_code, delete_topic_code};
use super::wire::{text, topic_id, topic_name, uuid};

/// CreateTopics, each topic on its own: one that fails stops none of the others.
pub(crate) async fn create(
    core: &Rc<Core>,
    version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let wanted: Vec<NewTopic> = request.topics.iter().map(|topic| new_topic(version, topic)).collect();
    let outcomes = controller::create_topics(core, wanted, request.validate_only).await;
    let failed = |topic: &CreatableTopic, code: ErrorCode, words: String| {
        CreatableTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(code.code())
            .with_error_message(Some(text(&words)))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_configs((version >= 5).then(Vec::new))
    };
    let results = match outcomes {
        Err(error) => request
            .topics
            .iter()
            .map(|topic| failed(topic, controller_code(&error), error.to_string()))
            .collect(),
        Ok(outcomes) => request
            .topics
            .iter()
            .zip(outcomes)
            .map(|(topic, outcome): (_, Result<PlannedTopic, CreateTopicError>)| match outcome {
                Ok(planned) => created(core, version, &planned),
                Err(error) => failed(topic, create_topic_code(&error), error.to_string()),
            })
            .collect(),
    };
    CreateTopicsResponse::default().with_topics(results)
}

fn new_topic(version: i16, topic: &CreatableTopic) -> NewTopic {
    let mut wanted = NewTopic {
        name: topic.name.as_str().to_owned(),
        num_partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic
            .assignments
            .iter()
            .map(|a| (a.partition_index, a.broker_ids.iter().map(|broker| broker.0).collect()))
            .collect(),
        configs: topic
            .configs
            .iter()
            .map(|c| (c.name.as_str().to_owned(), c.value.as_ref().map(|v| v.as_str().to_owned())))
            .collect(),
    };
    // Below version 4 -1 does not mean "the broker's default"; it is simply wrong.
    if version < 4 && wanted.assignments.is_empty() {
        wanted.num_partitions = if wanted.num_partitions == -1 { 0 } else { wanted.num_partitions };
        wanted.replication_factor =
            if wanted.replication_factor == -1 { 0 } else { wanted.replication_factor };
    }
    wanted
}

fn created(core: &Core, version: i16, planned: &PlannedTopic) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(topic_name(&planned.name));
    if version < 5 {
        return result;
    }
    let view = core.view();
    let configs =
        describe_topic(&planned.configs, &core.node.config.layers(&view.image)).into_iter().map(|entry| {
            CreatableTopicConfigs::default()
                .with_name(text(entry.name))
                .with_value(entry.value.as_deref().map(text))
                .with_read_only(entry.read_only)
                .with_config_source(entry.source.wire_byte())
                .with_is_sensitive(entry.sensitive)
        });
    result
        .with_topic_id(if version >= 7 { uuid(planned.topic_id) } else { Default::default() })
        .with_num_partitions(planned.partitions)
        .with_replication_factor(planned.replication_factor)
        .with_configs(Some(configs.collect()))
}

/// DeleteTopics, by name or, from version 6, by id.
pub(crate) async fn delete(
    core: &Rc<Core>,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let asked: Vec<TopicRef> = if version >= 6 {
        request
            .topics
            .iter()
            .map(|topic| match &topic.name {
                Some(name) => TopicRef::Name(name.as_str().to_owned()),
                None => TopicRef::Id(topic_id(topic.topic_id)),
            })
            .collect()
    } else {
        request.topic_names.iter().map(|name| TopicRef::Name(name.as_str().to_owned())).collect()
    };
    let outcomes = controller::delete_topics(core, asked.clone()).await;
    let named = |topic: &TopicRef| match topic {
        TopicRef::Name(name) => {
            DeletableTopicResult::default().with_name(Some(messages::TopicName(text(name))))
        }
        TopicRef::Id(id) => DeletableTopicResult::default().with_topic_id(uuid(*id)).with_name(None),
    };
    let words = |result: DeletableTopicResult, code: ErrorCode, words: String| {
        result.with_error_code(code.code()).with_error_message((version >= 5).then(|| text(&words)))
    };
    let responses = match outcomes {
        Err(error) => asked
            .iter()
            .map(|topic| words(named(topic), controller_code(&error), error.to_string()))
            .collect(),
        Ok(outcomes) => asked
            .iter()
            .zip(outcomes)
            .map(|(topic, outcome)| match outcome {
                Ok(deleted) => DeletableTopicResult::default()
                    .with_name(Some(topic_name(&deleted.name)))
                    .with_topic_id(if version >= 6 { uuid(deleted.topic_id) } else { Default::default() }),
                Err(error) => words(named(topic), delete_topic_code(&error), error.to_string()),
            })
            .collect(),
    };
    DeleteTopicsResponse::default().with_responses(responses)
}
