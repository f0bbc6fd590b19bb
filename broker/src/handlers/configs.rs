//! DescribeConfigs and IncrementalAlterConfigs, for topics and brokers.

use std::rc::Rc;

use ouzel_metadata::BrokerScope;
use ouzel_metadata::configs::{ConfigEntry, describe_broker, describe_cluster_default, describe_topic};
use ouzel_metadata::plan::alter_configs::{AlterOp, ConfigAlteration, KeyAlteration, ResourceName};
use ouzel_model::TopicName;
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::describe_configs_request::DescribeConfigsResource;
use ouzel_protocol::messages::kafka::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use ouzel_protocol::messages::kafka::incremental_alter_configs_request::AlterConfigsResource;
use ouzel_protocol::messages::kafka::incremental_alter_configs_response::AlterConfigsResourceResponse;
use ouzel_protocol::messages::kafka::{
    DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use crate::controller;
use crate::core::Core;

use super::error_map::{alter_configs_code, controller_code};
use super::wire::text;

const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;

/// DescribeConfigs.
pub(crate) fn describe(
    core: &Core,
    version: i16,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match entries(core, resource) {
            Err((code, words)) => result.with_error_code(code.code()).with_error_message(Some(text(&words))),
            Ok(entries) => {
                let wanted = |entry: &ConfigEntry| match &resource.configuration_keys {
                    // Kafka reads an empty list as null.
                    Some(keys) if !keys.is_empty() => keys.iter().any(|key| key.as_str() == entry.name),
                    _ => true,
                };
                let configs =
                    entries.into_iter().filter(wanted).map(|entry| described(version, request, &entry));
                result.with_configs(configs.collect())
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn entries(core: &Core, resource: &DescribeConfigsResource) -> Result<Vec<ConfigEntry>, (ErrorCode, String)> {
    let view = core.view();
    let layers = core.node.config.layers(&view.image);
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        RESOURCE_TOPIC => {
            TopicName::new(name).map_err(|error| (ErrorCode::InvalidTopic, error.to_string()))?;
            let topic = view.topic_by_name(name).ok_or_else(|| {
                (ErrorCode::UnknownTopicOrPartition, ErrorCode::UnknownTopicOrPartition.words().to_owned())
            })?;
            Ok(describe_topic(&topic.configs, &layers))
        }
        RESOURCE_BROKER if name.is_empty() => {
            Ok(describe_cluster_default(view.image.broker_overrides(BrokerScope::ClusterDefault)))
        }
        RESOURCE_BROKER => {
            let own = core.node.config.node_id;
            if name.parse() == Ok(own.0) {
                Ok(describe_broker(&layers))
            } else {
                Err((
                    ErrorCode::InvalidRequest,
                    format!("Unexpected broker id, expected {own}, but received {name}"),
                ))
            }
        }
        other => Err((ErrorCode::InvalidRequest, format!("resource type {other} is not supported"))),
    }
}

fn described(
    version: i16,
    request: &DescribeConfigsRequest,
    entry: &ConfigEntry,
) -> DescribeConfigsResourceResult {
    let synonyms = entry.synonyms.iter().map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(text(synonym.name))
            .with_value(synonym.value.as_deref().map(text))
            .with_source(synonym.source.wire_byte())
    });
    let result = DescribeConfigsResourceResult::default()
        .with_name(text(entry.name))
        .with_value(entry.value.as_deref().map(text))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source.wire_byte())
        .with_is_sensitive(entry.sensitive)
        .with_synonyms(if request.include_synonyms { synonyms.collect() } else { Vec::new() });
    if version < 3 {
        return result;
    }
    result
        .with_config_type(entry.kind.wire_byte())
        .with_documentation(request.include_documentation.then(|| text(&entry.documentation())))
}

/// IncrementalAlterConfigs; each resource changes as a whole or not at all.
pub(crate) async fn alter(
    core: &Rc<Core>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses: Vec<AlterConfigsResourceResponse> = Vec::with_capacity(request.resources.len());
    let mut alterations = Vec::new();
    // Where in `responses` each alteration's outcome goes.
    let mut places = Vec::new();
    for resource in &request.resources {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match alteration(resource) {
            Ok(alteration) => {
                places.push(responses.len());
                alterations.push(alteration);
                responses.push(response);
            }
            Err(words) => responses.push(
                response
                    .with_error_code(ErrorCode::InvalidRequest.code())
                    .with_error_message(Some(text(&words))),
            ),
        }
    }
    match controller::alter_configs(core, alterations, request.validate_only).await {
        Ok(outcomes) => {
            for (at, outcome) in places.into_iter().zip(outcomes) {
                if let Err(error) = outcome {
                    responses[at].error_code = alter_configs_code(&error).code();
                    responses[at].error_message = Some(text(&error.to_string()));
                }
            }
        }
        Err(error) => {
            for at in places {
                responses[at].error_code = controller_code(&error).code();
                responses[at].error_message = Some(text(&error.to_string()));
            }
        }
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

fn alteration(resource: &AlterConfigsResource) -> Result<ConfigAlteration, String> {
    let name = resource.resource_name.as_str().to_owned();
    let keys = resource.configs.iter().map(|config| {
        let op = match config.config_operation {
            0 => AlterOp::Set,
            1 => AlterOp::Delete,
            2 => AlterOp::Append,
            3 => AlterOp::Subtract,
            other => return Err(format!("unknown operation {other} on config {}", config.name.as_str())),
        };
        let value = config.value.as_ref().map(|value| value.as_str().to_owned());
        Ok(KeyAlteration { key: config.name.as_str().to_owned(), op, value })
    });
    let keys = keys.collect::<Result<_, _>>()?;
    let resource = match resource.resource_type {
        RESOURCE_TOPIC => ResourceName::Topic(name),
        RESOURCE_BROKER => ResourceName::Broker(name),
        other => return Err(format!("resource type {other} is not supported")),
    };
    Ok(ConfigAlteration { resource, keys })
}
