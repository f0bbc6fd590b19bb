//! One file per API, or per small family: from the wire's request to what the inner rooms understand, and back.
//!
//! Kafka's error codes are chosen here and nowhere else, in [`error_map`].

pub(crate) mod api_versions;
mod cluster;
mod configs;
mod error_map;
mod features;
pub(crate) mod fetch;
mod group_offsets;
mod groups;
mod leader_epochs;
mod list_offsets;
mod log_dirs;
mod metadata;
pub(crate) mod produce;
mod producer_ids;
mod quorum;
mod reassignments;
mod topics;
mod wire;

use std::rc::Rc;

use ouzel_protocol::{Request, Response};

use crate::core::Core;
use crate::dispatch::Client;
use crate::rpc::ask;

/// Answers any request but Produce, whose answer comes in two moments. What only the controller can carry out is carried
/// to it.
pub(crate) async fn respond(core: &Rc<Core>, client: &Client, version: i16, request: Request) -> Response {
    match ask::elsewhere(core, version, &request).await {
        Some(response) => response,
        None => respond_here(core, client, version, request).await,
    }
}

/// Answers as far as this node can.
pub(crate) async fn respond_here(
    core: &Rc<Core>,
    client: &Client,
    version: i16,
    request: Request,
) -> Response {
    match request {
        Request::Produce(request) => produce::begin(core, client, version, request).finish().await.into(),
        Request::Fetch(request) => fetch::fetch(core, version, request).await.into(),
        Request::ListOffsets(request) => list_offsets::list(core, version, request).await.into(),
        Request::Metadata(request) => metadata::metadata(core, version, request).await.into(),
        Request::OffsetCommit(request) => group_offsets::commit(core, version, request).await.into(),
        Request::OffsetFetch(request) => group_offsets::fetch(core, version, request).await.into(),
        Request::FindCoordinator(request) => cluster::find_coordinator(core, version, request).await.into(),
        Request::JoinGroup(request) => groups::join(core, client, version, request).await.into(),
        Request::Heartbeat(request) => groups::heartbeat(core, request).await.into(),
        Request::LeaveGroup(request) => groups::leave(core, version, request).await.into(),
        Request::SyncGroup(request) => groups::sync(core, version, request).await.into(),
        Request::DescribeGroups(request) => groups::describe(core, version, request).await.into(),
        Request::ListGroups(request) => groups::list(core, request).await.into(),
        Request::ApiVersions(request) => api_versions::api_versions(core, client, version, &request).into(),
        Request::CreateTopics(request) => topics::create(core, version, request).await.into(),
        Request::DeleteTopics(request) => topics::delete(core, version, request).await.into(),
        Request::InitProducerId(request) => producer_ids::init(core, version, request).await.into(),
        Request::OffsetForLeaderEpoch(request) => leader_epochs::end_offsets(core, request).await.into(),
        Request::DescribeConfigs(request) => configs::describe(core, version, &request).into(),
        Request::DeleteGroups(request) => groups::delete(core, request).await.into(),
        Request::IncrementalAlterConfigs(request) => configs::alter(core, request).await.into(),
        Request::OffsetDelete(request) => group_offsets::delete(core, request).await.into(),
        Request::DescribeCluster(request) => cluster::describe(core, version, &request).into(),
        Request::DescribeLogDirs(request) => log_dirs::describe(core, request).await.into(),
        Request::CreatePartitions(request) => topics::grow(core, request).await.into(),
        Request::ElectLeaders(request) => reassignments::elect(core, version, request).await.into(),
        Request::AlterPartitionReassignments(request) => {
            reassignments::alter(core, version, request).await.into()
        }
        Request::ListPartitionReassignments(request) => reassignments::list(core, &request).into(),
        Request::DescribeQuorum(request) => quorum::describe(core, request).await.into(),
        Request::UpdateFeatures(request) => features::update(core, version, request).await.into(),
        Request::UnregisterBroker(request) => cluster::unregister(core, &request).await.into(),
    }
}
