//! AlterPartitionReassignments, ListPartitionReassignments (KIP-455) and ElectLeaders (KIP-460): where partitions are to
//! be, and who is to lead them.

use std::collections::BTreeMap;
use std::rc::Rc;

use ouzel_metadata::plan::{ElectLeadersError, ElectionKind, NamedPartition, Reassignment, reassigning};
use ouzel_model::NodeId;
use ouzel_protocol::messages::kafka::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use ouzel_protocol::messages::kafka::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use ouzel_protocol::messages::kafka::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use ouzel_protocol::messages::kafka::{
    self as messages, AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, BrokerId,
    ElectLeadersRequest, ElectLeadersResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
};
use ouzel_protocol::{ErrorCode, StrBytes};

use super::error_map::{controller_code, elect_leaders_code, reassign_code};
use super::wire::{text, topic_name};
use crate::controller::changes;
use crate::core::Core;

const ELECTION_PREFERRED: i8 = 0;
const ELECTION_UNCLEAN: i8 = 1;

/// AlterPartitionReassignments, each partition on its own.
pub(crate) async fn alter(
    core: &Rc<Core>,
    version: i16,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    // Version 0 could not ask that the number of replicas stay as it is.
    let may_change = version < 1 || request.allow_replication_factor_change;
    let response =
        AlterPartitionReassignmentsResponse::default().with_allow_replication_factor_change(may_change);
    let mut wanted = Vec::new();
    for topic in &request.topics {
        wanted.extend(topic.partitions.iter().map(|partition| Reassignment {
            topic: topic.name.as_str().to_owned(),
            index: partition.partition_index,
            replicas: partition.replicas.as_ref().map(|list| list.iter().map(|broker| broker.0).collect()),
        }));
    }
    let outcomes = match changes::reassign(core, wanted, may_change).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            return response
                .with_error_code(controller_code(&error).code())
                .with_error_message(Some(text(&error.to_string())));
        }
    };
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(outcomes.by_ref()).map(|(partition, outcome)| {
            let answer =
                ReassignablePartitionResponse::default().with_partition_index(partition.partition_index);
            match outcome {
                Ok(()) => answer,
                Err(error) => answer
                    .with_error_code(reassign_code(&error).code())
                    .with_error_message(Some(text(&error.to_string()))),
            }
        });
        let partitions = partitions.collect();
        ReassignableTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    let topics = topics.collect();
    response.with_responses(topics)
}

/// ListPartitionReassignments.
pub(crate) fn list(
    core: &Core,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let named: Option<Vec<(String, Vec<i32>)>> = request.topics.as_ref().map(|topics| {
        topics.iter().map(|topic| (topic.name.as_str().to_owned(), topic.partition_indexes.clone())).collect()
    });
    let brokers = |nodes: Vec<NodeId>| nodes.into_iter().map(|node| BrokerId(node.0)).collect::<Vec<_>>();
    let view = core.view();
    let topics = reassigning(&view.image, named.as_deref()).into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(index, partition)| {
            let (adding, removing) = partition.moving_nodes();
            OngoingPartitionReassignment::default()
                .with_partition_index(index.0)
                .with_replicas(brokers(partition.holder_nodes()))
                .with_adding_replicas(brokers(adding))
                .with_removing_replicas(brokers(removing))
        });
        OngoingTopicReassignment::default()
            .with_name(topic_name(&topic.name))
            .with_partitions(partitions.collect())
    });
    ListPartitionReassignmentsResponse::default().with_topics(topics.collect())
}

/// ElectLeaders.
pub(crate) async fn elect(
    core: &Rc<Core>,
    version: i16,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let named: Option<Vec<NamedPartition>> = request.topic_partitions.as_ref().map(|topics| {
        let partitions = topics.iter().flat_map(|topic| {
            let name = topic.topic.as_str();
            topic.partitions.iter().map(|index| NamedPartition { topic: name.to_owned(), index: *index })
        });
        partitions.collect()
    });
    // Version 0 knew no other kind.
    let kind = match request.election_type {
        _ if version < 1 => ElectionKind::Preferred,
        ELECTION_PREFERRED => ElectionKind::Preferred,
        ELECTION_UNCLEAN => ElectionKind::Unclean,
        _ => return all_failed(named, ErrorCode::InvalidRequest, "Unknown election type."),
    };
    match changes::elect_leaders(core, kind, named.clone()).await {
        Ok(outcomes) => {
            let told = |outcome: Result<(), ElectLeadersError>| {
                outcome.err().map(|error| (elect_leaders_code(&error), error.to_string()))
            };
            by_topic(outcomes.into_iter().map(|(name, outcome)| (name, told(outcome))))
        }
        Err(error) => all_failed(named, controller_code(&error), &error.to_string()),
    }
}

fn all_failed(named: Option<Vec<NamedPartition>>, code: ErrorCode, words: &str) -> ElectLeadersResponse {
    let named = named.unwrap_or_default().into_iter();
    by_topic(named.map(|name| (name, Some((code, words.to_owned()))))).with_error_code(code.code())
}

fn by_topic(
    outcomes: impl Iterator<Item = (NamedPartition, Option<(ErrorCode, String)>)>,
) -> ElectLeadersResponse {
    let mut topics: BTreeMap<String, Vec<PartitionResult>> = BTreeMap::new();
    for (name, failed) in outcomes {
        let result = PartitionResult::default().with_partition_id(name.index);
        topics.entry(name.topic).or_default().push(match failed {
            None => result,
            Some((code, words)) => {
                result.with_error_code(code.code()).with_error_message(Some(StrBytes::from_string(words)))
            }
        });
    }
    let results = topics.into_iter().map(|(topic, partitions)| {
        ReplicaElectionResult::default()
            .with_topic(messages::TopicName(StrBytes::from_string(topic)))
            .with_partition_result(partitions)
    });
    ElectLeadersResponse::default().with_replica_election_results(results.collect())
}
