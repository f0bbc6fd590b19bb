//! DescribeCluster and FindCoordinator: who is there, and who answers for a group.

use std::rc::Rc;

use ouzel_metadata::image::Broker;
use ouzel_model::{NodeId, TopicIdPartition};
use ouzel_protocol::messages::kafka::describe_cluster_response::DescribeClusterBroker;
use ouzel_protocol::messages::kafka::find_coordinator_response::Coordinator;
use ouzel_protocol::messages::kafka::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, UnregisterBrokerRequest, UnregisterBrokerResponse,
};
use ouzel_protocol::{ErrorCode, StrBytes};

use crate::controller::changes;
use crate::coordinators::OFFSETS_TOPIC;
use crate::core::Core;
use crate::node::LISTENER;

use super::error_map::{controller_code, unregister_code};
use super::groups::OPERATIONS_NOT_ASKED;
use super::wire::text;

const KEY_TYPE_GROUP: i8 = 0;
const KEY_TYPE_TRANSACTION: i8 = 1;
const ENDPOINT_TYPE_BROKERS: i8 = 1;
const ENDPOINT_TYPE_CONTROLLERS: i8 = 2;

/// The address a broker is reached at.
pub(super) fn advertised(broker: &Broker) -> (String, i32) {
    broker.endpoint(LISTENER).map_or_else(|| (String::new(), -1), |e| (e.host.clone(), i32::from(e.port)))
}

/// DescribeCluster.
pub(crate) fn describe(
    core: &Core,
    version: i16,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let endpoint_type = if version >= 1 { request.endpoint_type } else { ENDPOINT_TYPE_BROKERS };
    let refused = |code: ErrorCode, words: &str| {
        DescribeClusterResponse::default()
            .with_error_code(code.code())
            .with_error_message(Some(text(words)))
            .with_endpoint_type(if version >= 1 { endpoint_type } else { ENDPOINT_TYPE_BROKERS })
            .with_controller_id(BrokerId(-1))
            .with_cluster_authorized_operations(OPERATIONS_NOT_ASKED)
    };
    match endpoint_type {
        ENDPOINT_TYPE_BROKERS => {}
        ENDPOINT_TYPE_CONTROLLERS => {
            return refused(
                ErrorCode::MismatchedEndpointType,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
            );
        }
        _ => return refused(ErrorCode::UnsupportedEndpointType, "Unsupported endpoint type"),
    }
    let with_fenced = version >= 2 && request.include_fenced_brokers;
    let view = core.view();
    let told = view.image.brokers().filter(|broker| with_fenced || !broker.fenced);
    let brokers = told.map(|broker| {
        let (host, port) = advertised(broker);
        DescribeClusterBroker::default()
            .with_is_fenced(broker.fenced)
            .with_broker_id(BrokerId(broker.node.0))
            .with_host(text(&host))
            .with_port(port)
            .with_rack(broker.rack.as_deref().map(text))
    });
    DescribeClusterResponse::default()
        .with_cluster_id(text(view.image.cluster_id().unwrap_or_default()))
        .with_controller_id(BrokerId(core.node.config.node_id.0))
        .with_endpoint_type(endpoint_type)
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(OPERATIONS_NOT_ASKED)
}

/// UnregisterBroker.
pub(crate) async fn unregister(
    core: &Rc<Core>,
    request: &UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let failed = |code: ErrorCode, words: String| {
        UnregisterBrokerResponse::default()
            .with_error_code(code.code())
            .with_error_message(Some(text(&words)))
    };
    match changes::unregister_broker(core, NodeId(request.broker_id.0)).await {
        Ok(Ok(())) => UnregisterBrokerResponse::default(),
        Ok(Err(error)) => failed(unregister_code(&error), error.to_string()),
        Err(error) => failed(controller_code(&error), error.to_string()),
    }
}

/// FindCoordinator; the first one creates the offsets topic.
pub(crate) async fn find_coordinator(
    core: &Rc<Core>,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let keys = if version >= 4 { request.coordinator_keys } else { vec![request.key] };
    let key_type = if version >= 1 { request.key_type } else { KEY_TYPE_GROUP };
    let mut coordinators = Vec::with_capacity(keys.len());
    for key in keys {
        coordinators.push(find_one(core, key_type, key).await);
    }
    if version >= 4 {
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    let found = coordinators.swap_remove(0);
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(found.error_message.filter(|_| version >= 1))
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

async fn find_one(core: &Rc<Core>, key_type: i8, key: StrBytes) -> Coordinator {
    let failed = |code: ErrorCode, words: Option<&str>| {
        Coordinator::default()
            .with_key(key.clone())
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(code.code())
            .with_error_message(words.map(text))
    };
    match key_type {
        KEY_TYPE_GROUP => {}
        // Not retriable, so that a transactional client learns it at once instead of waiting for a coordinator.
        KEY_TYPE_TRANSACTION => {
            let words = "this broker does not support transactions";
            return failed(ErrorCode::TransactionalIdAuthorizationFailed, Some(words));
        }
        _ => return failed(ErrorCode::InvalidRequest, Some("unknown coordinator key type")),
    }
    let view = core.view();
    let partition = crate::coordinators::partition_of(core, &ouzel_model::GroupId::new(&key));
    let Some(topic) = view.topic_by_name(OFFSETS_TOPIC) else {
        // Kafka's way: the topic is on its way, ask again.
        super::topics::create_offsets_topic(core).await;
        return failed(ErrorCode::CoordinatorNotAvailable, Some("The coordinator is not available."));
    };
    let at = TopicIdPartition { topic_id: topic.id, partition };
    let leader = topic.partition(partition).and_then(|partition| core.leadership_of(at, partition).leader);
    match leader.and_then(|node: NodeId| view.image.broker(node)) {
        Some(broker) => {
            let (host, port) = advertised(broker);
            Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(broker.node.0))
                .with_host(text(&host))
                .with_port(port)
        }
        None => failed(ErrorCode::CoordinatorNotAvailable, Some("The coordinator is not available.")),
    }
}
