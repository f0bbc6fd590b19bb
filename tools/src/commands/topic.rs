//! `ouk topic create | list | describe | delete`.

use ouzel_client::{ConfigResource, NewTopic, OffsetSpec, Topics};
use ouzel_protocol::ErrorCode;
use serde_json::json;

use super::{Done, Session};
use crate::cli::{Consent, TopicCreate};
use crate::failure::Failure;
use crate::output::Report;

pub(super) async fn create(session: &Session, wanted: TopicCreate) -> Result<Done, Failure> {
    session.must_be_writable()?;
    let columns =
        &[("NAME", "name"), ("PARTITIONS", "partitions"), ("REPLICAS", "replicas"), ("STATUS", "status")];
    let mut report = Report::new("topic.create", columns);
    let mut failures = Vec::new();
    for name in &wanted.topics {
        let topic = NewTopic {
            name: name.clone(),
            partitions: wanted.partitions,
            replication_factor: wanted.replicas,
            configs: wanted.configs.iter().cloned().collect(),
        };
        match session.client.create_topic(&topic, wanted.dry_run).await {
            Ok(created) => report.push(json!({
                "name": name,
                "topic_id": (!created.topic_id.is_zero()).then(|| created.topic_id.to_string()),
                "partitions": told(created.partitions.into()),
                "replicas": told(created.replication_factor.into()),
                "status": if wanted.dry_run { "possible" } else { "created" },
            })),
            Err(error) if wanted.if_not_exists && error.code() == Some(ErrorCode::TopicAlreadyExists) => {
                report.push(json!({ "name": name, "topic_id": null, "partitions": null, "replicas": null, "status": "exists" }));
            }
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    Ok(Done::of_items(report, wanted.topics.len(), &failures))
}

/// Counts that the broker did not tell are -1 on the wire.
fn told(count: i64) -> Option<i64> {
    (count >= 0).then_some(count)
}

pub(super) async fn list(session: &Session, internal: bool, under_replicated: bool) -> Result<Done, Failure> {
    let metadata = session.client.metadata(Topics::All).await?;
    let mut report = Report::new(
        "topic.list",
        &[
            ("NAME", "name"),
            ("PARTITIONS", "partitions"),
            ("REPLICAS", "replicas"),
            ("UNDER-REPLICATED", "under_replicated"),
        ],
    );
    for (name, topic) in metadata.topics.iter().filter(|(_, topic)| internal || !topic.is_internal) {
        let lacking = topic
            .partitions
            .iter()
            .filter(|(_, partition)| partition.in_sync.len() < partition.replicas.len());
        let lacking: Vec<i32> = lacking.map(|(index, _)| *index).collect();
        if under_replicated && lacking.is_empty() {
            continue;
        }
        report.push(json!({
            "name": name,
            "topic_id": topic.topic_id.to_string(),
            "partitions": topic.partitions.len(),
            "replicas": topic.partitions.values().map(|partition| partition.replicas.len()).max(),
            "under_replicated": lacking,
            "internal": topic.is_internal,
        }));
    }
    Ok(Done::with(report))
}

pub(super) async fn describe(session: &Session, names: &[String]) -> Result<Done, Failure> {
    let (metadata, failures) = session.named_topics(names).await?;
    let columns = &[
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("LEADER", "leader"),
        ("EPOCH", "leader_epoch"),
        ("REPLICAS", "replicas"),
        ("IN-SYNC", "in_sync"),
        ("LOG-START", "log_start_offset"),
        ("HIGH-WATERMARK", "high_watermark"),
    ];
    let mut report = Report::new("topic.describe", columns);
    for (name, topic) in &metadata.topics {
        // A partition without a leader has nobody who knows its offsets.
        let led = topic.partitions.iter().filter(|(_, partition)| partition.leader >= 0);
        let ask = |spec| led.clone().map(|(index, _)| (name.clone(), *index, spec)).collect::<Vec<_>>();
        let starts = session.client.list_offsets(&ask(OffsetSpec::Earliest)).await?;
        let ends = session.client.list_offsets(&ask(OffsetSpec::Latest)).await?;
        for (index, partition) in &topic.partitions {
            let place = (name.clone(), *index);
            report.push(json!({
                "topic": name,
                "topic_id": topic.topic_id.to_string(),
                "internal": topic.is_internal,
                "partition": index,
                "leader": told(partition.leader.into()),
                "leader_epoch": told(partition.leader_epoch.into()),
                "replicas": partition.replicas,
                "in_sync": partition.in_sync,
                "offline": partition.offline,
                "log_start_offset": starts.get(&place).and_then(|found| found.offset).map(|offset| offset.value()),
                "high_watermark": ends.get(&place).and_then(|found| found.offset).map(|offset| offset.value()),
            }));
        }
    }
    Ok(Done::of_items(report, names.len(), &failures))
}

pub(super) async fn configs(session: &Session, names: &[String]) -> Result<Done, Failure> {
    let columns = &[("TOPIC", "topic"), ("KEY", "key"), ("VALUE", "value"), ("SOURCE", "source")];
    let mut report = Report::new("topic.configs", columns);
    let mut failures = Vec::new();
    for name in names {
        let mut configs =
            match session.client.describe_configs(&ConfigResource::Topic(name.clone()), false).await {
                Ok(configs) => configs,
                Err(error) => {
                    failures.push(Failure::from(error));
                    continue;
                }
            };
        configs.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        for config in configs {
            report.push(json!({
                "topic": name,
                "key": config.name.as_str(),
                "value": config.value.as_ref().map(|value| value.as_str().to_owned()),
                "source": source_name(config.config_source),
                "sensitive": config.is_sensitive,
                "read_only": config.read_only,
            }));
        }
    }
    Ok(Done::of_items(report, names.len(), &failures))
}

/// Where a config's value comes from, as Kafka's protocol numbers it.
fn source_name(source: i8) -> &'static str {
    match source {
        1 => "topic",
        2 => "broker, dynamic",
        3 => "brokers' default, dynamic",
        4 => "broker, static",
        5 => "default",
        6 => "broker's logger",
        _ => "unknown",
    }
}

pub(super) async fn delete(session: &Session, names: &[String], consent: &Consent) -> Result<Done, Failure> {
    let mut report = Report::new("topic.delete", &[("NAME", "name"), ("STATUS", "status")]);
    let go_on = session.may_destroy(&format!("delete with all records: {}", names.join(", ")), consent)?;
    let (metadata, mut failures) = session.named_topics(names).await?;
    for name in names.iter().filter(|name| metadata.topics.contains_key(*name)) {
        if !go_on {
            report.push(json!({ "name": name, "status": "would be deleted" }));
            continue;
        }
        match session.client.delete_topic(name).await {
            Ok(()) => report.push(json!({ "name": name, "status": "deleted" })),
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    Ok(Done::of_items(report, names.len(), &failures))
}
