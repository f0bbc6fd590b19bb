//! DescribeQuorum (KIP-595, KIP-853): how the controller's own log stands.

use std::rc::Rc;

use ouzel_metadata::Image;
use ouzel_model::NodeId;
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use ouzel_protocol::messages::kafka::{self as messages, BrokerId};
use ouzel_protocol::messages::kafka::{DescribeQuorumRequest, DescribeQuorumResponse};

use super::error_map::controller_code;
use super::wire::{text, uuid};
use crate::controller::changes;
use crate::controller::running::{Quorum, QuorumReplica};
use crate::core::Core;

const METADATA_TOPIC: &str = "__cluster_metadata";
/// The name Kafka's tools know the controllers' listener by.
const CONTROLLER_LISTENER: &str = "CONTROLLER";

/// DescribeQuorum: one partition can be asked for.
pub(crate) async fn describe(core: &Rc<Core>, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let asks_well = match &request.topics[..] {
        [topic] => topic.topic_name.as_str() == METADATA_TOPIC && topic.partitions.len() == 1,
        _ => false,
    };
    if !asks_well || request.topics[0].partitions[0].partition_index != 0 {
        return unknown(&request);
    }
    let quorum = match changes::quorum(core).await {
        Ok(quorum) => quorum,
        Err(error) => {
            return DescribeQuorumResponse::default()
                .with_error_code(controller_code(&error).code())
                .with_error_message(Some(text(&error.to_string())));
        }
    };
    let view = core.view();
    let states = |replicas: &[QuorumReplica]| -> Vec<ReplicaState> {
        replicas.iter().map(|replica| state(&view.image, replica)).collect()
    };
    let partition = PartitionData::default()
        .with_leader_id(BrokerId(core.node.config.node_id.0))
        .with_leader_epoch(quorum.epoch.value())
        .with_high_watermark(quorum.high_watermark.value())
        .with_current_voters(states(&quorum.voters))
        .with_observers(states(&quorum.observers));
    let topic = TopicData::default()
        .with_topic_name(messages::TopicName(text(METADATA_TOPIC)))
        .with_partitions(vec![partition]);
    DescribeQuorumResponse::default().with_topics(vec![topic]).with_nodes(nodes(&view.image, &quorum))
}

fn unknown(request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let code = ErrorCode::UnknownTopicOrPartition;
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code.code())
                .with_leader_id(BrokerId(-1))
                .with_leader_epoch(-1)
                .with_high_watermark(-1)
        });
        TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions.collect())
    });
    DescribeQuorumResponse::default().with_topics(topics.collect())
}

fn state(image: &Image, replica: &QuorumReplica) -> ReplicaState {
    let directory = image.broker(replica.node).map(|broker| uuid(broker.directory_id));
    ReplicaState::default()
        .with_replica_id(BrokerId(replica.node.0))
        .with_replica_directory_id(directory.unwrap_or_default())
        .with_log_end_offset(replica.log_end.map_or(-1, |end| end.value()))
        .with_last_fetch_timestamp(replica.heard_ms.unwrap_or(-1))
        .with_last_caught_up_timestamp(replica.caught_up_ms.unwrap_or(-1))
}

/// Where the voters talk to each other.
fn nodes(image: &Image, quorum: &Quorum) -> Vec<Node> {
    let listeners = |node: NodeId| -> Vec<Listener> {
        let address = image.broker(node).and_then(|broker| broker.rpc_address.rsplit_once(':'));
        let listener = address.and_then(|(host, port)| {
            Some(
                Listener::default()
                    .with_name(text(CONTROLLER_LISTENER))
                    .with_host(text(host.trim_matches(['[', ']'])))
                    .with_port(port.parse().ok()?),
            )
        });
        listener.into_iter().collect()
    };
    let node = |replica: &QuorumReplica| {
        Node::default().with_node_id(BrokerId(replica.node.0)).with_listeners(listeners(replica.node))
    };
    quorum.voters.iter().map(node).collect()
}
