//! What older versions of a response cannot say: left out, or said the old way, as Kafka's own response classes do.
//!
//! A handler fills a response once, in the form of the newest version. The crate's encoders refuse a field that is set
//! where the version lacks it; here such fields are taken out first, so that an old client gets an answer and not a
//! closed connection.

use std::borrow::Cow;

use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use kafka_protocol::messages::{
    DescribeClusterResponse, DescribeGroupsResponse, DescribeLogDirsResponse, DescribeQuorumResponse,
    FindCoordinatorResponse, JoinGroupResponse, LeaveGroupResponse, ListOffsetsResponse, MetadataResponse,
    OffsetFetchResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::Response;

/// "Not asked for", where authorised operations stand.
const NO_OPERATIONS: i32 = i32::MIN;

/// The response as `version` can say it; borrowed where it can say all of it.
pub(super) fn as_said_in(version: i16, response: &Response) -> Cow<'_, Response> {
    let mut older = match response {
        Response::ListOffsets(_) if version < 4 => response.clone(),
        // Metadata may be large: it is copied only if it says something the version cannot.
        Response::Metadata(metadata) if names_operations(version, metadata) => response.clone(),
        Response::OffsetFetch(response) if version < 8 && !response.groups.is_empty() => {
            response.clone().into()
        }
        Response::FindCoordinator(response) if version < 4 && !response.coordinators.is_empty() => {
            response.clone().into()
        }
        Response::JoinGroup(_) if version < 9 => response.clone(),
        Response::LeaveGroup(_) if version < 3 => response.clone(),
        Response::DescribeGroups(_) if version < 6 => response.clone(),
        Response::DescribeCluster(_) if version < 2 => response.clone(),
        Response::DescribeQuorum(_) if version < 2 => response.clone(),
        Response::ElectLeaders(_) if version < 1 => response.clone(),
        Response::DescribeLogDirs(_) if version < 4 => response.clone(),
        _ => return Cow::Borrowed(response),
    };
    match &mut older {
        Response::ListOffsets(response) => list_offsets(response),
        Response::Metadata(response) => metadata(version, response),
        Response::OffsetFetch(response) => offset_fetch(version, response),
        Response::FindCoordinator(response) => find_coordinator(response),
        Response::JoinGroup(response) => join_group(version, response),
        Response::LeaveGroup(response) => leave_group(response),
        Response::DescribeGroups(response) => describe_groups(version, response),
        Response::DescribeCluster(response) => describe_cluster(version, response),
        Response::DescribeQuorum(response) => describe_quorum(version, response),
        Response::DescribeLogDirs(response) => describe_log_dirs(version, response),
        // Each partition says what failed.
        Response::ElectLeaders(response) => response.error_code = 0,
        _ => unreachable!("only the responses above are changed"),
    }
    Cow::Owned(older)
}

fn list_offsets(response: &mut ListOffsetsResponse) {
    for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        partition.leader_epoch = -1;
    }
}

fn names_operations(version: i16, response: &MetadataResponse) -> bool {
    let of_cluster = response.cluster_authorized_operations != NO_OPERATIONS;
    let mut topics = response.topics.iter();
    (!(8..=10).contains(&version) && of_cluster)
        || (version < 8 && topics.any(|topic| topic.topic_authorized_operations != NO_OPERATIONS))
}

fn metadata(version: i16, response: &mut MetadataResponse) {
    response.cluster_authorized_operations = NO_OPERATIONS;
    if version < 8 {
        response.topics.iter_mut().for_each(|topic| topic.topic_authorized_operations = NO_OPERATIONS);
    }
}

/// The first group's topics stand alone; its error stands beside them, or, before version 2, in each partition.
fn offset_fetch(version: i16, response: &mut OffsetFetchResponse) {
    let group = response.groups.swap_remove(0);
    response.groups.clear();
    response.error_code = group.error_code;
    let topics = group.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            let in_partition = version < 2 && group.error_code != 0;
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_committed_offset(partition.committed_offset)
                .with_committed_leader_epoch(partition.committed_leader_epoch)
                .with_metadata(partition.metadata)
                .with_error_code(if in_partition { group.error_code } else { partition.error_code })
        });
        OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
    });
    response.topics = topics.collect();
}

fn find_coordinator(response: &mut FindCoordinatorResponse) {
    let found = response.coordinators.swap_remove(0);
    response.coordinators.clear();
    response.error_code = found.error_code;
    response.error_message = found.error_message;
    response.node_id = found.node_id;
    response.host = found.host;
    response.port = found.port;
}

/// Before version 7 a group without a protocol has the empty one.
fn join_group(version: i16, response: &mut JoinGroupResponse) {
    response.skip_assignment = false;
    if version < 7 {
        response.protocol_name.get_or_insert_with(StrBytes::new);
    }
}

/// Before version 3 one member leaves, and its error is the response's.
fn leave_group(response: &mut LeaveGroupResponse) {
    if let Some(member) = response.members.first()
        && response.error_code == 0
    {
        response.error_code = member.error_code;
    }
    response.members.clear();
}

fn describe_groups(version: i16, response: &mut DescribeGroupsResponse) {
    for group in &mut response.groups {
        group.error_message = None;
        if version < 3 {
            group.authorized_operations = NO_OPERATIONS;
        }
    }
}

fn describe_quorum(version: i16, response: &mut DescribeQuorumResponse) {
    response.error_message = None;
    response.nodes.clear();
    for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        partition.error_message = None;
        for replica in partition.current_voters.iter_mut().chain(&mut partition.observers) {
            replica.replica_directory_id = Default::default();
            if version < 1 {
                (replica.last_fetch_timestamp, replica.last_caught_up_timestamp) = (-1, -1);
            }
        }
    }
}

fn describe_log_dirs(version: i16, response: &mut DescribeLogDirsResponse) {
    if version < 3 {
        response.error_code = 0;
    }
    for directory in &mut response.results {
        (directory.total_bytes, directory.usable_bytes) = (-1, -1);
    }
}

fn describe_cluster(version: i16, response: &mut DescribeClusterResponse) {
    if version < 1 {
        response.endpoint_type = 1;
    }
    response.brokers.iter_mut().for_each(|broker| broker.is_fenced = false);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::find_coordinator_response::Coordinator;
    use kafka_protocol::messages::leave_group_response::MemberResponse;
    use kafka_protocol::messages::offset_fetch_response::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
    };

    use super::*;

    fn said<R: Into<Response>>(version: i16, response: R) -> Response {
        as_said_in(version, &response.into()).into_owned()
    }

    #[test]
    fn the_newest_version_is_borrowed() {
        let response = JoinGroupResponse::default().with_skip_assignment(true).into();
        assert!(matches!(as_said_in(9, &response), Cow::Borrowed(_)));
    }

    #[test]
    fn metadata_is_copied_only_to_leave_operations_out() {
        let plain = MetadataResponse::default().into();
        assert!(matches!(as_said_in(13, &plain), Cow::Borrowed(_)));
        assert!(matches!(as_said_in(0, &plain), Cow::Borrowed(_)));
        let named = MetadataResponse::default().with_cluster_authorized_operations(3).into();
        assert!(matches!(as_said_in(8, &named), Cow::Borrowed(_)));
        assert_eq!(*as_said_in(13, &named), plain);
    }

    #[test]
    fn one_coordinator_stands_alone() {
        let found = Coordinator::default().with_host("h".into()).with_port(7).with_error_code(15);
        let response =
            FindCoordinatorResponse::default().with_throttle_time_ms(3).with_coordinators(vec![found]);
        let Response::FindCoordinator(old) = said(2, response) else { panic!() };
        assert_eq!((old.host.as_str(), old.port, old.error_code), ("h", 7, 15));
        assert_eq!((old.throttle_time_ms, old.coordinators.len()), (3, 0));
        // A handler that filled the old fields itself is left alone.
        let filled = FindCoordinatorResponse::default().with_host("old".into());
        assert_eq!(said(2, filled.clone()), filled.into());
    }

    #[test]
    fn one_groups_offsets_stand_alone() {
        let partition =
            OffsetFetchResponsePartitions::default().with_partition_index(4).with_committed_offset(9);
        let topic = OffsetFetchResponseTopics::default()
            .with_name(StrBytes::from("t").into())
            .with_partitions(vec![partition]);
        let group = OffsetFetchResponseGroup::default().with_topics(vec![topic]).with_error_code(16);
        let response = OffsetFetchResponse::default().with_groups(vec![group]);
        for (version, in_partition) in [(1, 16), (7, 0)] {
            let Response::OffsetFetch(old) = said(version, response.clone()) else { panic!() };
            assert_eq!((old.error_code, old.groups.len(), old.topics[0].name.as_str()), (16, 0, "t"));
            let at = &old.topics[0].partitions[0];
            assert_eq!((at.partition_index, at.committed_offset, at.error_code), (4, 9, in_partition));
        }
    }

    #[test]
    fn a_member_that_cannot_leave_is_the_responses_error() {
        let member = MemberResponse::default().with_error_code(25);
        let response = LeaveGroupResponse::default().with_members(vec![member]);
        let Response::LeaveGroup(old) = said(1, response) else { panic!() };
        assert_eq!((old.error_code, old.members.len()), (25, 0));
    }

    #[test]
    fn a_null_protocol_is_empty_before_version_7() {
        let response = JoinGroupResponse::default().with_protocol_name(None);
        for (version, name) in [(6, Some("")), (7, None)] {
            let Response::JoinGroup(old) = said(version, response.clone()) else { panic!() };
            assert_eq!(old.protocol_name.as_deref(), name);
        }
    }
}
