//! Topics, configs and the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use ouzel_model::TopicId;
use ouzel_protocol::StrBytes;
use ouzel_protocol::messages::kafka::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ouzel_protocol::messages::kafka::delete_topics_request::DeleteTopicState;
use ouzel_protocol::messages::kafka::describe_configs_request::DescribeConfigsResource;
use ouzel_protocol::messages::kafka::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ouzel_protocol::messages::kafka::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeClusterResponse,
    DescribeConfigsRequest, IncrementalAlterConfigsRequest,
};
use ouzel_protocol::messages::{Call, kafka::describe_configs_response::DescribeConfigsResourceResult};

use crate::client::Client;
use crate::error::ClientError;

/// A topic to create.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; `None` for the broker's default.
    pub partitions: Option<i32>,
    /// How many replicas; `None` for the broker's default.
    pub replication_factor: Option<i16>,
    /// Configs that are not to be the default.
    pub configs: BTreeMap<String, String>,
}

/// A topic that was created, or could be.
#[derive(Clone, Debug, PartialEq)]
pub struct CreatedTopic {
    /// Its id; zero if the broker has none or was only asked to validate.
    pub topic_id: TopicId,
    /// How many partitions it has; -1 if not told.
    pub partitions: i32,
    /// How many replicas each has; -1 if not told.
    pub replication_factor: i16,
}

/// What has configs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigResource {
    /// A topic.
    Topic(String),
    /// A broker; `None` for the defaults of all.
    Broker(Option<i32>),
}

impl ConfigResource {
    fn on_the_wire(&self) -> (i8, StrBytes) {
        match self {
            ConfigResource::Topic(name) => (2, StrBytes::from_string(name.clone())),
            ConfigResource::Broker(node_id) => {
                (4, StrBytes::from_string(node_id.map(|id| id.to_string()).unwrap_or_default()))
            }
        }
    }
}

impl std::fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConfigResource::Topic(name) => write!(f, "topic {name}"),
            ConfigResource::Broker(Some(node_id)) => write!(f, "broker {node_id}"),
            ConfigResource::Broker(None) => write!(f, "all brokers"),
        }
    }
}

/// A change to one config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// To this value.
    Set(String),
    /// Back to the default.
    Delete,
    /// With this added to the list.
    Append(String),
    /// With this taken off the list.
    Subtract(String),
}

/// How long the broker may take to carry a change out.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
const CHANGE_TIMEOUT_MS: i32 = 30_000;

impl Client {
    /// Creates a topic, or only checks that it could be.
    ///
    /// # Errors
    /// The broker's refusal, with its words.
    pub async fn create_topic(
        &self,
        topic: &NewTopic,
        validate_only: bool,
    ) -> Result<CreatedTopic, ClientError> {
        let configs = topic.configs.iter().map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string(name.clone()))
                .with_value(Some(StrBytes::from_string(value.clone())))
        });
        let wanted = CreatableTopic::default()
            .with_name(StrBytes::from_string(topic.name.clone()).into())
            .with_num_partitions(topic.partitions.unwrap_or(-1))
            .with_replication_factor(topic.replication_factor.unwrap_or(-1))
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(CHANGE_TIMEOUT_MS)
            .with_validate_only(validate_only);
        let response = self.call_controller(request, CHANGE_TIMEOUT).await?;
        let what = || format!("create topic {}", topic.name);
        let created = response.topics.into_iter().find(|created| created.name.as_str() == topic.name);
        let created = created.ok_or_else(|| ClientError::Missing { what: what() })?;
        ClientError::check(created.error_code, created.error_message.as_deref(), what)?;
        self.forget_topic(&topic.name);
        Ok(CreatedTopic {
            topic_id: TopicId(created.topic_id.into_bytes()),
            partitions: created.num_partitions,
            replication_factor: created.replication_factor,
        })
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// The broker's refusal.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        let connection = self.controller().await?;
        let text = StrBytes::from_string(name.to_owned());
        let request = DeleteTopicsRequest::default().with_timeout_ms(CHANGE_TIMEOUT_MS);
        // Version 6 has the names in structures that may hold ids instead.
        let request = match connection.versions().choose(DeleteTopicsRequest::API, i16::MAX) {
            Some(6..) => request.with_topics(vec![DeleteTopicState::default().with_name(Some(text.into()))]),
            _ => request.with_topic_names(vec![text.into()]),
        };
        let response = connection.call_within(request, i16::MAX, CHANGE_TIMEOUT).await?;
        let what = || format!("delete topic {name}");
        let deleted =
            response.responses.into_iter().next().ok_or_else(|| ClientError::Missing { what: what() })?;
        ClientError::check(deleted.error_code, deleted.error_message.as_deref(), what)?;
        self.forget_topic(name);
        Ok(())
    }

    /// All configs of a resource, with where each value comes from.
    ///
    /// # Errors
    /// The broker's refusal, with its words.
    pub async fn describe_configs(
        &self,
        resource: &ConfigResource,
        synonyms: bool,
    ) -> Result<Vec<DescribeConfigsResourceResult>, ClientError> {
        let (resource_type, resource_name) = resource.on_the_wire();
        let wanted = DescribeConfigsResource::default()
            .with_resource_type(resource_type)
            .with_resource_name(resource_name)
            .with_configuration_keys(None);
        let request =
            DescribeConfigsRequest::default().with_resources(vec![wanted]).with_include_synonyms(synonyms);
        // A broker answers for itself.
        let connection = match resource {
            ConfigResource::Broker(Some(node_id)) => self.broker(*node_id).await?,
            _ => self.any().await?,
        };
        let response = connection.call(request).await?;
        let what = || format!("describe the configs of {resource}");
        let result =
            response.results.into_iter().next().ok_or_else(|| ClientError::Missing { what: what() })?;
        ClientError::check(result.error_code, result.error_message.as_deref(), what)?;
        Ok(result.configs)
    }

    /// Changes configs of a resource, all of them or none.
    ///
    /// # Errors
    /// The broker's refusal, with its words.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &BTreeMap<String, ConfigChange>,
        validate_only: bool,
    ) -> Result<(), ClientError> {
        let configs = changes.iter().map(|(name, change)| {
            let (operation, value) = match change {
                ConfigChange::Set(value) => (0, Some(value)),
                ConfigChange::Delete => (1, None),
                ConfigChange::Append(value) => (2, Some(value)),
                ConfigChange::Subtract(value) => (3, Some(value)),
            };
            AlterableConfig::default()
                .with_name(StrBytes::from_string(name.clone()))
                .with_config_operation(operation)
                .with_value(value.map(|value| StrBytes::from_string(value.clone())))
        });
        let (resource_type, resource_name) = resource.on_the_wire();
        let altered = AlterConfigsResource::default()
            .with_resource_type(resource_type)
            .with_resource_name(resource_name)
            .with_configs(configs.collect());
        let request = IncrementalAlterConfigsRequest::default()
            .with_resources(vec![altered])
            .with_validate_only(validate_only);
        let response = self.call_controller(request, CHANGE_TIMEOUT).await?;
        let what = || format!("alter the configs of {resource}");
        let result =
            response.responses.into_iter().next().ok_or_else(|| ClientError::Missing { what: what() })?;
        ClientError::check(result.error_code, result.error_message.as_deref(), what)
    }

    /// The cluster's id, controller and brokers, those too that are registered and do not live, where the broker tells of
    /// them.
    ///
    /// # Errors
    /// The broker's refusal, with its words.
    pub async fn describe_cluster(&self) -> Result<DescribeClusterResponse, ClientError> {
        let connection = self.any().await?;
        let tells_fenced = connection.versions().choose(DescribeClusterRequest::API, i16::MAX) >= Some(2);
        let request = DescribeClusterRequest::default().with_include_fenced_brokers(tells_fenced);
        let response = connection.call(request).await?;
        let message = response.error_message.as_deref();
        ClientError::check(response.error_code, message, || "describe the cluster".to_owned())?;
        Ok(response)
    }
}
