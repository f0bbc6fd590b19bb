//! `admin`: topics, their configs and groups through librdkafka's admin client.

use std::time::Duration;

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;
use serde_json::{Map, json};

use crate::{Failure, Order, Outcome, say};

const PATIENCE: Duration = Duration::from_secs(30);

fn refused(code: RDKafkaErrorCode) -> Failure {
    Failure::Refused { code: code as i32, fatal: false, message: code.to_string() }
}

pub(crate) fn admin(order: &Order) -> Outcome {
    let client: AdminClient<DefaultClientContext> = order.config().create()?;
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let topic = order.text("topic");
    match order.text("op") {
        "create" => {
            let configs = order.field("configs").as_object().cloned().unwrap_or_default();
            let replicas = TopicReplication::Fixed(order.number("replicas") as i32);
            let mut new = NewTopic::new(topic, order.number("partitions") as i32, replicas);
            for (name, value) in &configs {
                new = new.set(name, value.as_str().unwrap_or(""));
            }
            for outcome in block_on(client.create_topics([&new], &options))? {
                outcome.map_err(|(_, code)| refused(code))?;
            }
        }
        "delete" => {
            for outcome in block_on(client.delete_topics(&[topic], &options))? {
                outcome.map_err(|(_, code)| refused(code))?;
            }
        }
        "describe" => {
            // All topics: to ask for one by name is to have it created.
            let metadata = client.inner().fetch_metadata(None, PATIENCE)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let found = found.ok_or_else(|| refused(RDKafkaErrorCode::UnknownTopicOrPartition))?;
            let leaders: Vec<i32> = found.partitions().iter().map(|partition| partition.leader()).collect();
            say(&json!({"t": "topic", "partitions": leaders.len(), "leaders": leaders}));
        }
        "configs" => {
            for outcome in block_on(client.describe_configs([&ResourceSpecifier::Topic(topic)], &options))? {
                let values: Map<_, _> =
                    outcome.map_err(refused)?.entries.into_iter().map(|e| (e.name, json!(e.value))).collect();
                say(&json!({"t": "configs", "values": values}));
            }
        }
        "groups" => {
            let list = client.inner().fetch_group_list(None, PATIENCE)?;
            let mut names: Vec<&str> = list.groups().iter().map(|group| group.name()).collect();
            names.sort_unstable();
            say(&json!({"t": "groups", "names": names}));
        }
        "delete_group" => {
            for outcome in block_on(client.delete_groups(&[order.text("group")], &options))? {
                outcome.map_err(|(_, code)| refused(code))?;
            }
        }
        other => return Err(Failure::Broken(format!("there is no admin operation {other:?}"))),
    }
    Ok(())
}
