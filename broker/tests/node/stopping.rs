//! How a node ends while clients are at something.

use bytes::Bytes;
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::join_group_request::JoinGroupRequestProtocol;
use ouzel_protocol::messages::kafka::{DescribeGroupsRequest, GroupId, JoinGroupRequest};

use crate::support::await_that;
use crate::support::process::Starting;
use crate::support::wire::text;

/// A member that waits for its group's rebalance may wait for minutes. A stop that waited with it ran into the end of the
/// drain, ten seconds for every rebalance that happened to be under way; the member is sent to look elsewhere instead.
#[test]
fn a_member_parked_in_a_join_does_not_hold_up_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let node = Starting::new().set("group.initial.rebalance.delay.ms", 600_000).start(dir.path());
    let mut member = node.connect();
    member.await_coordinator("g");
    let protocol =
        JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"m"));
    let join = JoinGroupRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(600_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    // Version 3 joins without being given an id first.
    member.send(3, join);
    let asked = member.last_correlation_id();
    let mut other = node.connect();
    let describe = || DescribeGroupsRequest::default().with_groups(vec![GroupId(text("g"))]);
    let parked = |state: &str| state == "PreparingRebalance";
    await_that("the member is in its group", || parked(&other.call(5, describe()).groups[0].group_state));
    let log = node.stop();
    assert!(!log.contains("did not finish"), "{log}");
    assert!(log.contains("stopped in order"), "{log}");
    let answer = member.receive::<JoinGroupRequest>(3, asked);
    assert_eq!(answer.error_code, ErrorCode::NotCoordinator.code());
}
