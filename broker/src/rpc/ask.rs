//! Asks the controller, wherever it is.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ouzel_model::{NodeId, ReplicaId, TopicIdPartition};
use ouzel_protocol::header::{self, RequestHeader};
use ouzel_protocol::{
    ApiKey, Request, Response, decode_request, decode_response, encode_request, encode_response, frame,
};
use ouzel_raft::Lane;
use ouzel_raft::peers::service;

use super::control::{ControlAnswer, ControlCall};
use crate::controller::{self, CONTROLLER_CORE, ControllerError};
use crate::core::Core;
use crate::dispatch::Client;
use crate::handlers;
use crate::node::metadata_at;
use crate::partitions::lost;

/// How long a question looks for a controller that answers it.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long it waits before it asks again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long an answer waits for this node to see what the controller saw.
const CATCH_UP_TIME_MAX: Duration = Duration::from_secs(5);

/// Where the controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this node.
    Here,
    /// On another.
    At(NodeId),
    /// There is none that this node knows of.
    Unknown,
}

/// Whether only the controller can carry a request out.
fn is_controllers(request: &Request) -> bool {
    matches!(
        request.api_key(),
        ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::CreatePartitions
            | ApiKey::IncrementalAlterConfigs
            | ApiKey::ElectLeaders
            | ApiKey::AlterPartitionReassignments
            | ApiKey::ListPartitionReassignments
            | ApiKey::DescribeQuorum
            | ApiKey::UpdateFeatures
            | ApiKey::UnregisterBroker
    )
}

/// The response to a request that only the controller can carry out, if that is another node; `None` if it is to be
/// carried out here, or nobody could be reached: then the handler's own way to say so is as good as any.
pub(crate) async fn elsewhere(core: &Rc<Core>, version: i16, request: &Request) -> Option<Response> {
    if !is_controllers(request) {
        return None;
    }
    let place = core.call(CONTROLLER_CORE, |core| std::future::ready(controller::place(core)));
    if place.await.ok()? == Place::Here {
        return None;
    }
    let api = request.api_key().api();
    let header = RequestHeader { api, version, correlation_id: 0, client_id: None };
    let whole = encode_request(&header, request).ok()?.into_bytes();
    let call = ControlCall::Kafka(whole.slice(frame::LENGTH_BYTES..));
    let answer = core.call(CONTROLLER_CORE, move |core| {
        let core = core.clone();
        async move {
            let answer = ask(&core, call).await;
            if let Ok(ControlAnswer::Kafka(_, end)) = &answer {
                // Whoever created a topic through this node finds it here.
                let seen = controller::wait_shown(&core, *end);
                if core.runtime.clock.timeout(CATCH_UP_TIME_MAX, seen).await.is_err() {
                    tracing::debug!(%end, "an answer of the controller is passed on before its log has come this far");
                }
            }
            answer
        }
    });
    match answer.await.ok()? {
        Ok(ControlAnswer::Kafka(frame, _)) => {
            let (_, body) = header::decode_response(api, version, &frame).ok()?;
            decode_response(api, version, body).ok()
        }
        Ok(other) => {
            tracing::warn!(?other, api = api.name, "the controller answered something else");
            None
        }
        Err(error) => {
            tracing::debug!(%error, api = api.name, "no controller carried a request out");
            None
        }
    }
}

/// Asks the controller until it answers, or the time is up. On the controller's core.
///
/// # Errors
/// When no controller could be reached.
pub(crate) async fn ask(core: &Rc<Core>, call: ControlCall) -> Result<ControlAnswer, ControllerError> {
    let asking = async {
        loop {
            match controller::place(core) {
                Place::Here => match answer(core, call.clone()).await {
                    ControlAnswer::NotController(_) => {}
                    answer => return answer,
                },
                Place::At(node) => {
                    if let Ok(answer) = ask_once(core, node, &call).await {
                        return answer;
                    }
                }
                Place::Unknown => {
                    if let Some(answer) = ask_around(core, &call).await {
                        return answer;
                    }
                }
            }
            core.runtime.clock.sleep(RETRY_PAUSE).await;
        }
    };
    core.runtime.clock.timeout(ANSWER_TIME_MAX, asking).await.map_err(|_| ControllerError::NotController)
}

/// Asks any node that may know: one that has just come has heard of no controller yet.
async fn ask_around(core: &Core, call: &ControlCall) -> Option<ControlAnswer> {
    let own = core.node.config.node_id;
    for node in core.cluster()?.peers.known() {
        match ask_once(core, node, call).await {
            Ok(answer) => return Some(answer),
            Err(Some(controller)) if controller != own => {
                if let Ok(answer) = ask_once(core, controller, call).await {
                    return Some(answer);
                }
            }
            Err(_) => {}
        }
    }
    None
}

/// Asks one node; `None` if it is not the controller, or cannot be reached.
pub(crate) async fn ask_node(core: &Core, node: NodeId, call: &ControlCall) -> Option<ControlAnswer> {
    ask_once(core, node, call).await.ok()
}

/// Asks one node.
///
/// # Errors
/// Who is the controller instead, if anybody said so.
async fn ask_once(core: &Core, node: NodeId, call: &ControlCall) -> Result<ControlAnswer, Option<NodeId>> {
    let asked = {
        let cluster = core.cluster();
        let Some(cluster) = cluster.as_ref() else { return Err(None) };
        cluster.peers.call(node, Lane::Control, service::CONTROL, call.encode())
    };
    match asked.await {
        Ok(message) => match ControlAnswer::decode(&message) {
            Ok(ControlAnswer::NotController(elsewhere)) => Err(elsewhere),
            Ok(answer) => Ok(answer),
            Err(error) => {
                tracing::warn!(%node, %error, "an answer cannot be read");
                Err(None)
            }
        },
        Err(error) => {
            tracing::debug!(%node, %error, "the controller's node does not answer");
            Err(None)
        }
    }
}

/// As [`ask_node`], also if the node is this one.
pub(crate) async fn ask_or_answer(core: &Rc<Core>, node: NodeId, call: ControlCall) -> Option<ControlAnswer> {
    if node == core.node.config.node_id {
        return Some(answer(core, call).await);
    }
    ask_node(core, node, &call).await
}

/// Hands a group that is led here over to another replica.
async fn transfer(core: &Rc<Core>, at: TopicIdPartition, to: ReplicaId) -> ControlAnswer {
    let owner = match core.view().routes.get(&at) {
        Some(route) => route.core,
        None if at == metadata_at() => CONTROLLER_CORE,
        None => return ControlAnswer::Refused("this node has no replica of that group".to_owned()),
    };
    let transferred = core.call(owner, move |core| {
        let group = core.group(&at);
        async move {
            match group {
                Some(group) => group.transfer(to).await.map_err(|error| error.to_string()),
                None => Err("this node's replica of that group is not open".to_owned()),
            }
        }
    });
    match transferred.await {
        Ok(Ok(())) => ControlAnswer::Done,
        Ok(Err(words)) => ControlAnswer::Failed(words),
        Err(stopped) => ControlAnswer::Failed(stopped.to_string()),
    }
}

/// How this node's replica of a group stands.
async fn stand(core: &Rc<Core>, at: TopicIdPartition) -> ControlAnswer {
    let Some(owner) = core.view().routes.get(&at).map(|route| route.core) else {
        return ControlAnswer::Failed("this node has no replica of that group".to_owned());
    };
    match core.call(owner, move |core| std::future::ready(lost::stand(core, &at))).await {
        Ok(Some((replica, stand))) => ControlAnswer::Stand(replica, stand),
        Ok(None) => ControlAnswer::Failed("this node's replica of that group is not open".to_owned()),
        Err(stopped) => ControlAnswer::Failed(stopped.to_string()),
    }
}

/// Answers another node's question, on the controller's core.
pub(crate) async fn answer(core: &Rc<Core>, call: ControlCall) -> ControlAnswer {
    if let ControlCall::Transfer(at, to) = call {
        return transfer(core, at, to).await;
    }
    if let ControlCall::Stand(at) = call {
        return stand(core, at).await;
    }
    match controller::place(core) {
        Place::Here => {}
        Place::At(node) => return ControlAnswer::NotController(Some(node)),
        Place::Unknown => return ControlAnswer::NotController(None),
    }
    let answered = match call {
        ControlCall::Kafka(frame) => match answer_kafka(core, &frame).await {
            Ok(response) => Ok(ControlAnswer::Kafka(response, controller::applied(core))),
            Err(words) => return ControlAnswer::Refused(words),
        },
        ControlCall::Register(broker) => controller::register(core, broker).await,
        ControlCall::ProducerIds(node) => controller::allocate_producer_ids(core, node)
            .await
            .map(|block| ControlAnswer::ProducerIds(block.first, block.size)),
        ControlCall::Settle(at, seen) => controller::settle(core, at, &seen).await,
        ControlCall::ReplicaLost(at, replica, loss) => {
            controller::lost::replica_lost(core, at, replica, loss).await
        }
        ControlCall::Stand(_) | ControlCall::Transfer(..) => unreachable!("answered above, by any node"),
    };
    answered.unwrap_or_else(|error| match error {
        ControllerError::NotController => ControlAnswer::NotController(None),
        error => ControlAnswer::Failed(error.to_string()),
    })
}

async fn answer_kafka(core: &Rc<Core>, request: &Bytes) -> Result<Bytes, String> {
    let (header, body) = header::decode_request(request).map_err(|error| error.to_string())?;
    let version = header.version;
    let request = decode_request(header.api, version, body).map_err(|error| error.to_string())?;
    if !is_controllers(&request) {
        return Err(format!("{} is no request for the controller", header.api.name));
    }
    let response = handlers::respond_here(core, &Client::forwarded(), version, request).await;
    let whole = encode_response(version, 0, &response).map_err(|error| error.to_string())?.into_bytes();
    Ok(whole.slice(frame::LENGTH_BYTES..))
}
