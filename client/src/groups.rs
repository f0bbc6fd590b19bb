//! Consumer groups, seen from outside: who they are, how far they have come.

use std::collections::BTreeMap;

use ouzel_model::Offset;
use ouzel_protocol::StrBytes;
use ouzel_protocol::messages::kafka::describe_groups_response::DescribedGroup;
use ouzel_protocol::messages::kafka::list_groups_response::ListedGroup;
use ouzel_protocol::messages::kafka::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ouzel_protocol::messages::kafka::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ouzel_protocol::messages::kafka::offset_fetch_request::OffsetFetchRequestGroup;
use ouzel_protocol::messages::kafka::{
    DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest,
};
use ouzel_protocol::messages::{Call, offset_commit, offset_fetch};

use crate::client::Client;
use crate::error::ClientError;
use crate::metadata::Topics;

/// A group's progress in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next record the group will read.
    pub offset: Offset,
    /// The epoch of the last record it read; -1 if unknown.
    pub leader_epoch: i32,
    /// The client's own words.
    pub metadata: String,
}

impl Client {
    /// All groups of all brokers, sorted by id.
    ///
    /// # Errors
    /// If a broker cannot be reached or refuses.
    pub async fn list_groups(&self) -> Result<Vec<ListedGroup>, ClientError> {
        let brokers = self.metadata(Topics::None).await?.brokers;
        let mut groups = Vec::new();
        for node_id in brokers.into_keys() {
            let response = self
                .retrying(async || {
                    let connection = self.broker(node_id).await?;
                    let response = connection.call(ListGroupsRequest::default()).await?;
                    let what = || format!("list the groups of broker {node_id}");
                    ClientError::check(response.error_code, None, what)?;
                    Ok(response)
                })
                .await?;
            groups.extend(response.groups);
        }
        groups.sort_by(|a, b| a.group_id.as_str().cmp(b.group_id.as_str()));
        Ok(groups)
    }

    /// A group with its members. A group nobody knows is described as `Dead`, or refused with
    /// [`ouzel_protocol::ErrorCode::GroupIdNotFound`] by brokers that say so.
    ///
    /// # Errors
    /// The coordinator's refusal.
    pub async fn describe_group(&self, group: &str) -> Result<DescribedGroup, ClientError> {
        let what = format!("describe group {group}");
        let request = DescribeGroupsRequest::default().with_groups(vec![text(group).into()]);
        let code = |response: &<DescribeGroupsRequest as Call>::Response| {
            response.groups.first().map_or(0, |group| group.error_code)
        };
        let response = self.call_coordinator(group, request, i16::MAX, &what, code).await?;
        response.groups.into_iter().next().ok_or(ClientError::Missing { what })
    }

    /// Deletes a group that has no members.
    ///
    /// # Errors
    /// The coordinator's refusal.
    pub async fn delete_group(&self, group: &str) -> Result<(), ClientError> {
        let what = format!("delete group {group}");
        let request = DeleteGroupsRequest::default().with_groups_names(vec![text(group).into()]);
        let code = |response: &<DeleteGroupsRequest as Call>::Response| {
            response.results.first().map_or(0, |result| result.error_code)
        };
        self.call_coordinator(group, request, i16::MAX, &what, code).await.map(|_| ())
    }

    /// All offsets a group has committed, by topic and partition.
    ///
    /// # Errors
    /// The coordinator's refusal.
    pub async fn committed_offsets(
        &self,
        group: &str,
    ) -> Result<BTreeMap<(String, i32), Committed>, ClientError> {
        let what = format!("fetch the offsets of group {group}");
        // Null topics mean all; by name, for a committed topic may be one whose id we never saw.
        let version_max = offset_fetch::VERSION - 1;
        let coordinator = self.retrying(async || self.coordinator(group).await).await?;
        let batched = coordinator.versions().choose(OffsetFetchRequest::API, version_max) >= Some(8);
        let request = OffsetFetchRequest::default();
        let request = if batched {
            let wanted =
                OffsetFetchRequestGroup::default().with_group_id(text(group).into()).with_topics(None);
            request.with_groups(vec![wanted])
        } else {
            request.with_group_id(text(group).into()).with_topics(None)
        };
        let code = |response: &<OffsetFetchRequest as Call>::Response| {
            response.groups.first().map_or(response.error_code, |group| group.error_code)
        };
        let response = self.call_coordinator(group, request, version_max, &what, code).await?;
        let mut committed = BTreeMap::new();
        let mut take =
            |topic: &str, partition: i32, offset: i64, leader_epoch: i32, metadata: Option<&str>| {
                if offset >= 0 {
                    let metadata = metadata.unwrap_or_default().to_owned();
                    let one = Committed { offset: Offset(offset), leader_epoch, metadata };
                    committed.insert((topic.to_owned(), partition), one);
                }
            };
        for topic in response.groups.iter().flat_map(|group| &group.topics) {
            for at in &topic.partitions {
                let metadata = at.metadata.as_deref();
                take(
                    &topic.name,
                    at.partition_index,
                    at.committed_offset,
                    at.committed_leader_epoch,
                    metadata,
                );
            }
        }
        for topic in &response.topics {
            for at in &topic.partitions {
                let metadata = at.metadata.as_deref();
                take(
                    &topic.name,
                    at.partition_index,
                    at.committed_offset,
                    at.committed_leader_epoch,
                    metadata,
                );
            }
        }
        Ok(committed)
    }

    /// Commits offsets for a group without members, as an administrator does.
    ///
    /// # Errors
    /// The first partition's refusal.
    pub async fn commit_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<(String, i32), Committed>,
    ) -> Result<(), ClientError> {
        let what = format!("commit offsets of group {group}");
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for ((topic, partition), committed) in offsets {
            let one = OffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(committed.offset.value())
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_committed_metadata(Some(text(&committed.metadata)));
            topics.entry(topic).or_default().push(one);
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            OffsetCommitRequestTopic::default().with_name(text(name).into()).with_partitions(partitions)
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(text(group).into())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(topics.collect());
        let code = |response: &<OffsetCommitRequest as Call>::Response| {
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.map(|partition| partition.error_code).find(|code| *code != 0).unwrap_or(0)
        };
        self.call_coordinator(group, request, offset_commit::VERSION - 1, &what, code).await.map(|_| ())
    }

    /// Forgets a group's offsets in some partitions of a topic.
    ///
    /// # Errors
    /// The coordinator's refusal, or the first partition's.
    pub async fn delete_offsets(
        &self,
        group: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Result<(), ClientError> {
        let what = format!("delete offsets of group {group} in {topic}");
        let partitions = partitions
            .iter()
            .map(|index| OffsetDeleteRequestPartition::default().with_partition_index(*index));
        let wanted = OffsetDeleteRequestTopic::default()
            .with_name(text(topic).into())
            .with_partitions(partitions.collect());
        let request =
            OffsetDeleteRequest::default().with_group_id(text(group).into()).with_topics(vec![wanted]);
        let code = |response: &<OffsetDeleteRequest as Call>::Response| {
            let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            let partition = partitions.map(|partition| partition.error_code).find(|code| *code != 0);
            if response.error_code != 0 { response.error_code } else { partition.unwrap_or(0) }
        };
        self.call_coordinator(group, request, i16::MAX, &what, code).await.map(|_| ())
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
