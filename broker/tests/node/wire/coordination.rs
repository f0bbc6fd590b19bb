//! DescribeCluster, FindCoordinator, InitProducerId: who is there, who answers for whom, who a producer is.

use std::collections::BTreeSet;

use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::{
    DescribeClusterRequest, FindCoordinatorRequest, InitProducerIdRequest, InitProducerIdResponse, ProducerId,
};

use crate::support::await_some;
use crate::support::node::Node;
use crate::support::wire::{Wire, fresh_name, text};

#[test]
fn the_cluster_is_described_to_those_who_ask_a_broker_for_brokers() {
    let node = Node::start();
    let mut wire = node.connect();
    let described = wire.call(2, DescribeClusterRequest::default());
    assert_eq!((described.error_code, described.endpoint_type, described.brokers.len()), (0, 1, 1));
    assert!(!described.brokers[0].is_fenced);
    for (endpoint_type, expected) in
        [(2, ErrorCode::MismatchedEndpointType), (9, ErrorCode::UnsupportedEndpointType)]
    {
        let refused = wire.call(1, DescribeClusterRequest::default().with_endpoint_type(endpoint_type));
        assert_eq!(ErrorCode::from_code(refused.error_code), Some(expected), "{:?}", refused.error_message);
        assert_eq!(refused.brokers, []);
    }
}

#[test]
fn coordinators_are_found_many_at_once() {
    let node = Node::start();
    let mut wire = node.connect();
    let groups: Vec<_> = (0..20).map(|_| fresh_name("many")).collect();
    wire.await_coordinator(&groups[0]);
    let keys = groups.iter().map(|group| text(group)).collect();
    let answer = wire.call(6, FindCoordinatorRequest::default().with_coordinator_keys(keys));
    assert_eq!(answer.coordinators.len(), groups.len());
    for (found, group) in answer.coordinators.iter().zip(&groups) {
        assert_eq!((found.error_code, &*found.key), (0, &**group));
        assert!(found.port > 0);
    }
    assert_eq!(wire.call(4, FindCoordinatorRequest::default()).coordinators, []);
    let odd = FindCoordinatorRequest::default().with_key_type(9).with_coordinator_keys(vec![text("x")]);
    let code = wire.call(4, odd).coordinators[0].error_code;
    assert_eq!(code, ErrorCode::InvalidRequest.code());
}

/// Kafka may first have to ask its controller for a block of ids, and says so.
fn init(wire: &mut Wire, version: i16, request: InitProducerIdRequest) -> InitProducerIdResponse {
    await_some("there are ids", || {
        let answer = wire.call(version, request.clone());
        (answer.error_code != ErrorCode::CoordinatorLoadInProgress.code()).then_some(answer)
    })
}

#[test]
fn every_idempotent_producer_is_somebody_new() {
    let node = Node::start_with(2, &[]);
    let mut wires = [node.connect(), node.connect()];
    let mut ids = BTreeSet::new();
    for turn in 0..200 {
        let request =
            InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        let answer = init(&mut wires[turn % 2], 5, request);
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
        assert!(ids.insert(answer.producer_id.0), "{} was given out twice", answer.producer_id.0);
    }
}

#[test]
fn a_producer_that_says_half_of_who_it_was_is_refused() {
    let node = Node::start();
    let mut wire = node.connect();
    let request =
        || InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
    for half in [request().with_producer_id(ProducerId(5)), request().with_producer_epoch(3)] {
        let answer = wire.call(3, half);
        assert_eq!(answer.error_code, ErrorCode::InvalidRequest.code());
        assert_eq!((answer.producer_id.0, answer.producer_epoch), (-1, -1));
    }
    let both = request().with_producer_id(ProducerId(5)).with_producer_epoch(3);
    let answer = init(&mut wire, 3, both);
    assert_eq!((answer.error_code, answer.producer_epoch), (0, 0), "without transactions it gets a fresh id");
    let empty = request().with_transactional_id(Some(text("").into()));
    assert_eq!(wire.call(3, empty).error_code, ErrorCode::InvalidRequest.code());
}

#[test]
fn a_transactional_producer_learns_in_one_answer_that_there_are_no_transactions() {
    let node = Node::start();
    if !node.is_own() {
        return;
    }
    let mut wire = node.connect();
    let refused = ErrorCode::TransactionalIdAuthorizationFailed.code();
    let request = InitProducerIdRequest::default().with_transactional_id(Some(text("tx").into()));
    assert_eq!(wire.call(4, request.with_transaction_timeout_ms(1000)).error_code, refused);
    let find = FindCoordinatorRequest::default().with_key_type(1).with_key(text("tx"));
    assert_eq!(wire.call(2, find).error_code, refused);
}
