//! Classic groups: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, and what administrators ask of groups.

use std::collections::BTreeMap;
use std::rc::Rc;

use ouzel_coordinator::request::{
    Assignment, DeleteRequest, DescribeRequest, HeartbeatRequest, JoinProtocol, JoinRequest, LeaveRequest,
    LeavingMember, ListRequest, SyncRequest,
};
use ouzel_coordinator::response::DescribedGroup;
use ouzel_coordinator::{GroupState, InstanceId, MemberId, Request, Response};
use ouzel_model::{GroupId, PartitionIndex};
use ouzel_protocol::ErrorCode;
use ouzel_protocol::StrBytes;
use ouzel_protocol::messages::kafka as messages;

use crate::coordinators;
use crate::core::Core;
use crate::dispatch::Client;

use super::error_map::{code_of, group_code, unavailable_code};
use super::wire::{shared, text};

/// Kafka's "not asked for" in fields of authorised operations.
pub(super) const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

fn instance(id: &Option<StrBytes>) -> Option<InstanceId> {
    id.as_ref().map(|id| InstanceId::new(id.as_str()))
}

fn wire_instance(id: &Option<InstanceId>) -> Option<StrBytes> {
    id.as_ref().map(|id| text(id.as_str()))
}

fn bytes(blob: &[u8]) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(blob)
}

/// JoinGroup; the answer may take as long as the group's rebalance.
pub(crate) async fn join(
    core: &Rc<Core>,
    client: &Client,
    version: i16,
    request: messages::JoinGroupRequest,
) -> messages::JoinGroupResponse {
    let group = GroupId::new(request.group_id.as_str());
    let rebalance_timeout_ms =
        if version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms };
    let refused = |error: ErrorCode, member_id: &str| {
        messages::JoinGroupResponse::default()
            .with_error_code(error.code())
            .with_generation_id(-1)
            // Not nullable below version 7.
            .with_protocol_name(if version < 7 { Some(StrBytes::default()) } else { None })
            .with_member_id(text(member_id))
    };
    let member_id = request.member_id.clone();
    let join = JoinRequest {
        group: group.clone(),
        member_id: MemberId::new(request.member_id.as_str()),
        instance_id: instance(&request.group_instance_id),
        client_id: client.id().into(),
        client_host: client.host().into(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: shared(&request.protocol_type),
        protocols: request
            .protocols
            .iter()
            .map(|p| JoinProtocol { name: shared(&p.name), metadata: p.metadata.as_ref().into() })
            .collect(),
        requires_known_member_id: version >= 4 && request.group_instance_id.is_none(),
        supports_skip_assignment: version >= 9,
        reason: request.reason.as_ref().map(shared),
        fresh_uuid: core.runtime.entropy.uuid(),
    };
    let joined = match coordinators::ask(core, &group, Request::Join(join)).await {
        Ok(Response::Join(joined)) => joined,
        Ok(_) => return refused(ErrorCode::UnknownServerError, &member_id),
        Err(unavailable) => return refused(unavailable_code(unavailable), &member_id),
    };
    match joined.outcome {
        Err(error) => refused(group_code(error), joined.member_id.as_str()),
        Ok(outcome) => messages::JoinGroupResponse::default()
            .with_generation_id(outcome.generation)
            .with_protocol_type(outcome.protocol_type.as_deref().map(text))
            .with_protocol_name(match outcome.protocol.as_deref() {
                None if version < 7 => Some(StrBytes::default()),
                name => name.map(text),
            })
            .with_leader(text(outcome.leader.as_str()))
            .with_skip_assignment(outcome.skip_assignment)
            .with_member_id(text(joined.member_id.as_str()))
            .with_members(
                outcome
                    .members
                    .iter()
                    .map(|m| {
                        messages::join_group_response::JoinGroupResponseMember::default()
                            .with_member_id(text(m.member_id.as_str()))
                            .with_group_instance_id(wire_instance(&m.instance_id))
                            .with_metadata(bytes(&m.metadata))
                    })
                    .collect(),
            ),
    }
}

/// SyncGroup; a follower's answer waits for the leader's.
pub(crate) async fn sync(
    core: &Rc<Core>,
    _version: i16,
    request: messages::SyncGroupRequest,
) -> messages::SyncGroupResponse {
    let group = GroupId::new(request.group_id.as_str());
    let sync = SyncRequest {
        group: group.clone(),
        generation: request.generation_id,
        member_id: MemberId::new(request.member_id.as_str()),
        instance_id: instance(&request.group_instance_id),
        protocol_type: request.protocol_type.as_ref().map(shared),
        protocol: request.protocol_name.as_ref().map(shared),
        assignments: request
            .assignments
            .iter()
            .map(|a| Assignment {
                member_id: MemberId::new(a.member_id.as_str()),
                assignment: a.assignment.as_ref().into(),
            })
            .collect(),
    };
    let refused = |error: ErrorCode| messages::SyncGroupResponse::default().with_error_code(error.code());
    match coordinators::ask(core, &group, Request::Sync(sync)).await {
        Ok(Response::Sync(Ok(synced))) => messages::SyncGroupResponse::default()
            .with_protocol_type(synced.protocol_type.as_deref().map(text))
            .with_protocol_name(synced.protocol.as_deref().map(text))
            .with_assignment(bytes(&synced.assignment)),
        Ok(Response::Sync(Err(error))) => refused(group_code(error)),
        Ok(_) => refused(ErrorCode::UnknownServerError),
        Err(unavailable) => refused(unavailable_code(unavailable)),
    }
}

/// Heartbeat.
pub(crate) async fn heartbeat(
    core: &Rc<Core>,
    request: messages::HeartbeatRequest,
) -> messages::HeartbeatResponse {
    let group = GroupId::new(request.group_id.as_str());
    let heartbeat = HeartbeatRequest {
        group: group.clone(),
        generation: request.generation_id,
        member_id: MemberId::new(request.member_id.as_str()),
        instance_id: instance(&request.group_instance_id),
    };
    let code = match coordinators::ask(core, &group, Request::Heartbeat(heartbeat)).await {
        Ok(Response::Heartbeat(outcome)) => code_of(outcome),
        Ok(_) => ErrorCode::UnknownServerError,
        // A coordinator that is loading cannot tell who is a member; it keeps everybody alive.
        Err(coordinators::Unavailable::Loading) => ErrorCode::None,
        Err(unavailable) => unavailable_code(unavailable),
    };
    messages::HeartbeatResponse::default().with_error_code(code.code())
}

/// LeaveGroup: one member below version 3, several from then on.
pub(crate) async fn leave(
    core: &Rc<Core>,
    version: i16,
    request: messages::LeaveGroupRequest,
) -> messages::LeaveGroupResponse {
    let group = GroupId::new(request.group_id.as_str());
    let members = if version < 3 {
        vec![LeavingMember {
            member_id: MemberId::new(request.member_id.as_str()),
            instance_id: None,
            reason: None,
        }]
    } else {
        request
            .members
            .iter()
            .map(|m| LeavingMember {
                member_id: MemberId::new(m.member_id.as_str()),
                instance_id: instance(&m.group_instance_id),
                reason: m.reason.as_ref().map(shared),
            })
            .collect()
    };
    let refused = |error: ErrorCode| messages::LeaveGroupResponse::default().with_error_code(error.code());
    let left =
        match coordinators::ask(core, &group, Request::Leave(LeaveRequest { group: group.clone(), members }))
            .await
        {
            Ok(Response::Leave(Ok(left))) => left,
            Ok(Response::Leave(Err(error))) => return refused(group_code(error)),
            Ok(_) => return refused(ErrorCode::UnknownServerError),
            Err(unavailable) => return refused(unavailable_code(unavailable)),
        };
    if version < 3 {
        return refused(left.into_iter().next().map_or(ErrorCode::UnknownMemberId, |m| code_of(m.outcome)));
    }
    messages::LeaveGroupResponse::default().with_members(
        left.into_iter()
            .map(|m| {
                messages::leave_group_response::MemberResponse::default()
                    .with_member_id(text(m.member_id.as_str()))
                    .with_group_instance_id(wire_instance(&m.instance_id))
                    .with_error_code(code_of(m.outcome).code())
            })
            .collect(),
    )
}

/// DescribeGroups, each group at its own coordinator.
pub(crate) async fn describe(
    core: &Rc<Core>,
    version: i16,
    request: messages::DescribeGroupsRequest,
) -> messages::DescribeGroupsResponse {
    let mut groups = Vec::new();
    for wire_id in request.groups {
        let group = GroupId::new(wire_id.as_str());
        let ask = Request::Describe(DescribeRequest { groups: vec![group.clone()] });
        let described = match coordinators::ask(core, &group, ask).await {
            Ok(Response::Describe(mut described)) if !described.is_empty() => {
                describe_one(version, described.swap_remove(0))
            }
            Ok(_) => failed_description(ErrorCode::UnknownServerError),
            // No offsets topic yet: no group exists, which is an answer.
            Err(coordinators::Unavailable::NoTopic) => dead(version, &group),
            Err(unavailable) => failed_description(unavailable_code(unavailable)),
        };
        groups.push(described.with_group_id(wire_id).with_authorized_operations(OPERATIONS_NOT_ASKED));
    }
    messages::DescribeGroupsResponse::default().with_groups(groups)
}

fn failed_description(error: ErrorCode) -> messages::describe_groups_response::DescribedGroup {
    messages::describe_groups_response::DescribedGroup::default().with_error_code(error.code())
}

fn dead(version: i16, group: &GroupId) -> messages::describe_groups_response::DescribedGroup {
    let wire = messages::describe_groups_response::DescribedGroup::default()
        .with_group_state(text(GroupState::Dead.as_str()));
    if version < 6 {
        return wire;
    }
    wire.with_error_code(ErrorCode::GroupIdNotFound.code())
        .with_error_message(Some(text(&format!("Group {group} not found."))))
}

fn describe_one(version: i16, group: DescribedGroup) -> messages::describe_groups_response::DescribedGroup {
    if group.state == GroupState::Dead {
        return dead(version, &group.group);
    }
    messages::describe_groups_response::DescribedGroup::default()
        .with_group_state(text(group.state.as_str()))
        .with_protocol_type(text(&group.protocol_type))
        .with_protocol_data(text(&group.protocol))
        .with_members(
            group
                .members
                .iter()
                .map(|m| {
                    messages::describe_groups_response::DescribedGroupMember::default()
                        .with_member_id(text(m.member_id.as_str()))
                        .with_group_instance_id(wire_instance(&m.instance_id))
                        .with_client_id(text(&m.client_id))
                        .with_client_host(text(&m.client_host))
                        .with_member_metadata(bytes(&m.metadata))
                        .with_member_assignment(bytes(&m.assignment))
                })
                .collect(),
        )
}

/// ListGroups: all coordinators of this broker.
pub(crate) async fn list(
    core: &Rc<Core>,
    request: messages::ListGroupsRequest,
) -> messages::ListGroupsResponse {
    let list = ListRequest {
        states: request.states_filter.iter().map(shared).collect(),
        types: request.types_filter.iter().map(shared).collect(),
    };
    let (listed, error) = match coordinators::list(core, list).await {
        Ok(listed) => (listed, ErrorCode::None),
        Err(unavailable) => (Vec::new(), unavailable_code(unavailable)),
    };
    messages::ListGroupsResponse::default().with_error_code(error.code()).with_groups(
        listed
            .into_iter()
            .map(|g| {
                messages::list_groups_response::ListedGroup::default()
                    .with_group_id(messages::GroupId(text(g.group.as_str())))
                    .with_protocol_type(text(&g.protocol_type))
                    .with_group_state(text(g.state.as_str()))
                    .with_group_type(text("classic"))
            })
            .collect(),
    )
}

/// DeleteGroups, each coordinator its own.
pub(crate) async fn delete(
    core: &Rc<Core>,
    request: messages::DeleteGroupsRequest,
) -> messages::DeleteGroupsResponse {
    let mut by_shard: BTreeMap<PartitionIndex, Vec<GroupId>> = BTreeMap::new();
    for id in &request.groups_names {
        let group = GroupId::new(id.as_str());
        by_shard.entry(coordinators::partition_of(core, &group)).or_default().push(group);
    }
    let mut results = Vec::new();
    for groups in by_shard.into_values() {
        let ask = Request::Delete(DeleteRequest { groups: groups.clone() });
        let outcomes: Vec<(GroupId, ErrorCode)> = match coordinators::ask(core, &groups[0], ask).await {
            Ok(Response::Delete(deleted)) => {
                deleted.into_iter().map(|d| (d.group, code_of(d.outcome))).collect()
            }
            Ok(_) => groups.into_iter().map(|g| (g, ErrorCode::UnknownServerError)).collect(),
            Err(coordinators::Unavailable::NoTopic) => {
                groups.into_iter().map(|g| (g, ErrorCode::GroupIdNotFound)).collect()
            }
            Err(unavailable) => groups.into_iter().map(|g| (g, unavailable_code(unavailable))).collect(),
        };
        results.extend(outcomes.into_iter().map(|(group, code)| {
            messages::delete_groups_response::DeletableGroupResult::default()
                .with_group_id(messages::GroupId(text(group.as_str())))
                .with_error_code(code.code())
        }));
    }
    messages::DeleteGroupsResponse::default().with_results(results)
}
