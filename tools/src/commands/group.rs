//! `ouk group list | describe | delete`.

use std::collections::{BTreeMap, BTreeSet};

use ouzel_client::{ClientError, OffsetSpec, Topics};
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::describe_groups_response::DescribedGroup;
use ouzel_protocol::records::consumer_protocol::Assignment;
use serde_json::json;

use super::{Done, Session};
use crate::cli::Consent;
use crate::failure::Failure;
use crate::output::Report;

pub(super) async fn list(session: &Session) -> Result<Done, Failure> {
    let columns = &[("GROUP", "group"), ("STATE", "state"), ("TYPE", "type"), ("PROTOCOL", "protocol_type")];
    let mut report = Report::new("group.list", columns);
    for group in session.client.list_groups().await? {
        report.push(json!({
            "group": group.group_id.as_str(),
            "state": group.group_state.as_str(),
            "type": group.group_type.as_str(),
            "protocol_type": group.protocol_type.as_str(),
        }));
    }
    Ok(Done::with(report))
}

/// A group, or the failure that there is none: brokers describe an unknown group as a dead one.
async fn look_up(session: &Session, name: &str) -> Result<DescribedGroup, Failure> {
    let group = session.client.describe_group(name).await?;
    if group.group_state.as_str() == "Dead" {
        let what = format!("describe group {name}");
        let code = ErrorCode::GroupIdNotFound.code();
        return Err(ClientError::Refused { what, code, message: None }.into());
    }
    Ok(group)
}

/// Members' assigned partitions, by topic and partition.
fn owners(group: &DescribedGroup) -> BTreeMap<(String, i32), String> {
    let mut owners = BTreeMap::new();
    for member in &group.members {
        for (topic, partition) in assigned(&member.member_assignment) {
            owners.insert((topic, partition), member.member_id.to_string());
        }
    }
    owners
}

/// Reads an assignment; a group of another kind than consumers has bytes of its own there.
fn assigned(bytes: &bytes::Bytes) -> Vec<(String, i32)> {
    let Ok(assignment) = Assignment::decode(bytes) else { return Vec::new() };
    let partitions = assignment.partitions.iter().flat_map(|of_topic| {
        of_topic.partitions.iter().map(|partition| (of_topic.topic.to_string(), *partition))
    });
    partitions.collect()
}

pub(super) async fn describe(session: &Session, names: &[String]) -> Result<Done, Failure> {
    let columns = &[
        ("GROUP", "group"),
        ("STATE", "state"),
        ("TOPIC", "topic"),
        ("PARTITION", "partition"),
        ("COMMITTED", "committed_offset"),
        ("HIGH-WATERMARK", "high_watermark"),
        ("LAG", "lag"),
        ("MEMBER", "member_id"),
    ];
    let mut report = Report::new("group.describe", columns);
    let mut failures = Vec::new();
    for name in names {
        if let Err(failure) = describe_one(session, name, &mut report).await {
            failures.push(failure);
        }
    }
    Ok(Done::of_items(report, names.len(), &failures))
}

async fn describe_one(session: &Session, name: &str, report: &mut Report) -> Result<(), Failure> {
    let group = look_up(session, name).await?;
    let committed = session.client.committed_offsets(name).await?;
    let owners = owners(&group);
    let places: BTreeSet<&(String, i32)> = committed.keys().chain(owners.keys()).collect();
    // A committed offset outlives its topic; what is gone has no end to lag behind.
    let topics: BTreeSet<&str> = places.iter().map(|(topic, _)| topic.as_str()).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    let known =
        if topics.is_empty() { None } else { Some(session.client.metadata(Topics::Named(&topics)).await?) };
    let is_led = |(topic, partition): &(String, i32)| {
        let partitions =
            known.as_ref().and_then(|known| known.topics.get(topic)).map(|topic| &topic.partitions);
        partitions
            .and_then(|partitions| partitions.get(partition))
            .is_some_and(|partition| partition.leader >= 0)
    };
    let asked: Vec<_> = places
        .iter()
        .filter(|place| is_led(place))
        .map(|(topic, partition)| (topic.clone(), *partition, OffsetSpec::Latest))
        .collect();
    let ends = if asked.is_empty() { BTreeMap::new() } else { session.client.list_offsets(&asked).await? };
    let state = group.group_state.as_str();
    for place in &places {
        let committed = committed.get(*place);
        let end = ends.get(*place).and_then(|found| found.offset).map(|offset| offset.value());
        let offset = committed.map(|committed| committed.offset.value());
        report.push(json!({
            "group": name,
            "state": state,
            "topic": place.0,
            "partition": place.1,
            "committed_offset": offset,
            "high_watermark": end,
            "lag": lag(offset, end),
            "metadata": committed.map(|committed| committed.metadata.clone()),
            "member_id": owners.get(*place),
        }));
    }
    if places.is_empty() {
        eprintln!("ouk: group {name} ({state}) has committed no offset");
    }
    Ok(())
}

/// How many records are left to read. A committed offset behind a truncated end is not a negative lag.
fn lag(committed: Option<i64>, end: Option<i64>) -> Option<i64> {
    Some((end? - committed?).max(0))
}

pub(super) async fn members(session: &Session, names: &[String]) -> Result<Done, Failure> {
    let columns = &[
        ("GROUP", "group"),
        ("STATE", "state"),
        ("MEMBER", "member_id"),
        ("INSTANCE", "instance_id"),
        ("CLIENT", "client_id"),
        ("HOST", "client_host"),
        ("PARTITIONS", "partitions"),
    ];
    let mut report = Report::new("group.members", columns);
    let mut failures = Vec::new();
    for name in names {
        let group = match look_up(session, name).await {
            Ok(group) => group,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        for member in &group.members {
            let partitions = assigned(&member.member_assignment).into_iter();
            report.push(json!({
                "group": name,
                "state": group.group_state.as_str(),
                "assignor": group.protocol_data.as_str(),
                "member_id": member.member_id.as_str(),
                "instance_id": member.group_instance_id.as_ref().map(|id| id.as_str().to_owned()),
                "client_id": member.client_id.as_str(),
                "client_host": member.client_host.as_str(),
                "partitions": partitions.map(|(topic, partition)| format!("{topic}-{partition}")).collect::<Vec<_>>(),
            }));
        }
    }
    Ok(Done::of_items(report, names.len(), &failures))
}

pub(super) async fn delete(session: &Session, names: &[String], consent: &Consent) -> Result<Done, Failure> {
    let mut report = Report::new("group.delete", &[("GROUP", "group"), ("STATUS", "status")]);
    let mut failures = Vec::new();
    let go_on =
        session.may_destroy(&format!("delete with all committed offsets: {}", names.join(", ")), consent)?;
    for name in names {
        let outcome = match go_on {
            true => session.client.delete_group(name).await.map_err(Failure::from).map(|()| "deleted"),
            false => look_up(session, name).await.map(|_| "would be deleted"),
        };
        match outcome {
            Ok(status) => report.push(json!({ "group": name, "status": status })),
            Err(failure) => failures.push(failure),
        }
    }
    Ok(Done::of_items(report, names.len(), &failures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_needs_both_ends_and_is_never_negative() {
        assert_eq!(lag(Some(3), Some(10)), Some(7));
        assert_eq!(lag(Some(12), Some(10)), Some(0));
        assert_eq!((lag(None, Some(1)), lag(Some(1), None)), (None, None));
    }

    #[test]
    fn an_assignment_of_another_kind_is_none() {
        assert_eq!(assigned(&bytes::Bytes::from_static(b"connect")), Vec::new());
        assert_eq!(assigned(&bytes::Bytes::new()), Vec::new());
    }
}
