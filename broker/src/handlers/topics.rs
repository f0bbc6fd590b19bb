//! CreateTopics, CreatePartitions and DeleteTopics.

use std::rc::Rc;

use ouzel_metadata::configs::describe_topic;
use ouzel_metadata::plan::create_topics::{CreateTopicError, NewTopic, PlannedTopic};
use ouzel_metadata::plan::delete_topics::TopicRef;
use ouzel_metadata::plan::{CreatePartitionsError, NewPartitions};
use ouzel_protocol::messages::kafka::create_partitions_response::CreatePartitionsTopicResult;
use ouzel_protocol::messages::kafka::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ouzel_protocol::messages::kafka::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use ouzel_protocol::messages::kafka::delete_topics_response::DeletableTopicResult;
use ouzel_protocol::messages::kafka::{
    self as messages, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};
use ouzel_protocol::{ApiKey, ErrorCode, Request, Response};

use crate::controller::{self, changes};
use crate::coordinators::OFFSETS_TOPIC;
use crate::core::Core;
use crate::dispatch::Client;

use super::error_map::{controller_code, create_partitions_code, create_topic_code, delete_topic_code};
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

/// Creates topics that a broker wants and no client asked for in so many words; gives each one's outcome. The request
/// finds the controller as any client's does.
pub(super) async fn create_for_broker(core: &Rc<Core>, topics: &[NewTopic]) -> Vec<ErrorCode> {
    let wanted = topics.iter().map(|topic| {
        let configs = topic.configs.iter().map(|(name, value)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(value.as_deref().map(text))
        });
        CreatableTopic::default()
            .with_name(messages::TopicName(text(&topic.name)))
            .with_num_partitions(topic.num_partitions)
            .with_replication_factor(topic.replication_factor)
            .with_configs(configs.collect())
    });
    let request = Request::CreateTopics(CreateTopicsRequest::default().with_topics(wanted.collect()));
    let version = ApiKey::CreateTopics.api().max;
    // Boxed: this is asked for while another request is being answered.
    match Box::pin(super::respond(core, &Client::forwarded(), version, request)).await {
        Response::CreateTopics(response) => topics
            .iter()
            .map(|topic| {
                let result = response.topics.iter().find(|result| result.name.as_str() == topic.name);
                result
                    .and_then(|result| ErrorCode::from_code(result.error_code))
                    .unwrap_or(ErrorCode::UnknownServerError)
            })
            .collect(),
        _ => vec![ErrorCode::UnknownServerError; topics.len()],
    }
}

/// Creates the topic that holds groups' offsets, unless it is there. A failure is logged: whoever needs the topic asks
/// again.
pub(super) async fn create_offsets_topic(core: &Rc<Core>) {
    let topic = NewTopic::for_offsets(&core.view().image, &core.broker_config());
    for code in create_for_broker(core, &[topic]).await {
        if !matches!(code, ErrorCode::None | ErrorCode::TopicAlreadyExists) {
            tracing::error!(error = code.name(), topic = OFFSETS_TOPIC, "cannot create the offsets topic");
        }
    }
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

/// CreatePartitions, each topic on its own.
pub(crate) async fn grow(core: &Rc<Core>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let wanted = request.topics.iter().map(|topic| NewPartitions {
        name: topic.name.as_str().to_owned(),
        count: topic.count,
        assignments: topic.assignments.as_ref().map(|lists| {
            lists.iter().map(|list| list.broker_ids.iter().map(|broker| broker.0).collect()).collect()
        }),
    });
    let outcomes = changes::create_partitions(core, wanted.collect(), request.validate_only).await;
    let answer = |name: messages::TopicName, failed: Option<(ErrorCode, String)>| {
        let result = CreatePartitionsTopicResult::default().with_name(name);
        match failed {
            None => result,
            Some((code, words)) => result.with_error_code(code.code()).with_error_message(Some(text(&words))),
        }
    };
    let results = match outcomes {
        Err(error) => {
            let failed = (controller_code(&error), error.to_string());
            request.topics.into_iter().map(|topic| answer(topic.name, Some(failed.clone()))).collect()
        }
        Ok(outcomes) => {
            let told = |outcome: Result<(), CreatePartitionsError>| {
                outcome.err().map(|error| (create_partitions_code(&error), error.to_string()))
            };
            let topics = request.topics.into_iter().zip(outcomes);
            topics.map(|(topic, outcome)| answer(topic.name, told(outcome))).collect()
        }
    };
    CreatePartitionsResponse::default().with_results(results)
}
