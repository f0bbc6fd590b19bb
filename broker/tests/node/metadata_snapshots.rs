//! The controller's log does not grow for ever: snapshots take the place of what was decided, through kills and stops.

use ouzel_protocol::messages::kafka::describe_configs_request::DescribeConfigsResource;
use ouzel_protocol::messages::kafka::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ouzel_protocol::messages::kafka::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use ouzel_protocol::sample::sequence;

use crate::support::process::Starting;
use crate::support::wire::{Wire, text};
use crate::support::{await_that, segments};

const TOPICS: usize = 3;

/// Bytes of records between two snapshots.
const SNAPSHOT_BYTES: u64 = 4_000;

fn topic(index: usize) -> String {
    format!("kept-{index}")
}

fn ask(wire: &mut Wire, topic: &str, retention_ms: i64) {
    let config = AlterableConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text(&retention_ms.to_string())));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configs(vec![config]);
    wire.send(1, IncrementalAlterConfigsRequest::default().with_resources(vec![resource]));
}

fn alter(wire: &mut Wire, topic: &str, retention_ms: i64) {
    ask(wire, topic, retention_ms);
    let last = wire.last_correlation_id();
    let answer = wire.receive::<IncrementalAlterConfigsRequest>(1, last);
    assert_eq!(answer.responses[0].error_code, 0, "{:?}", answer.responses[0].error_message);
}

fn retention_ms(wire: &mut Wire, topic: &str) -> i64 {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configuration_keys(Some(vec![text("retention.ms")]));
    let answer = wire.call(4, DescribeConfigsRequest::default().with_resources(vec![resource]));
    answer.results[0].configs[0].value.as_ref().expect("it has one").parse().expect("a number")
}

/// Many changes of settings, and kills wherever they strike: in the middle of a change, of a snapshot, of the drop of the
/// head. What was acknowledged holds after each, and the log stays small.
#[test]
fn the_controllers_log_stays_bounded_and_nothing_decided_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let starting = Starting::new().set("metadata.log.max.record.bytes.between.snapshots", SNAPSHOT_BYTES);
    let mut random = sequence(7);
    let mut known = [0; TOPICS];
    for round in 0..6 {
        let mut node = starting.start(dir.path());
        let mut wire = node.connect();
        for (index, known) in known.iter_mut().enumerate() {
            if round == 0 {
                wire.create(&topic(index), 1, &[("retention.ms", "1")]);
                *known = 1;
            }
            let found = retention_ms(&mut wire, &topic(index));
            // The change that was under way at the kill may have been made, or not.
            assert!((*known..=*known + 1).contains(&found), "round {round}: {found} instead of {known}");
            *known = found;
        }
        for _ in 0..100 + random() % 100 {
            let index = (random() % TOPICS as u64) as usize;
            known[index] += 1;
            alter(&mut wire, &topic(index), known[index]);
        }
        let index = (random() % TOPICS as u64) as usize;
        ask(&mut wire, &topic(index), known[index] + 1);
        if round == 4 {
            wire.receive::<IncrementalAlterConfigsRequest>(1, wire.last_correlation_id());
            known[index] += 1;
            node.stop();
        } else {
            node.kill();
        }
    }
    let node = starting.start(dir.path());
    let mut wire = node.connect();
    for (index, known) in known.into_iter().enumerate() {
        assert!((known..=known + 1).contains(&retention_ms(&mut wire, &topic(index))));
    }
    // One change takes about 150 bytes of the log, 60 of them its record: without snapshots it would have 100,000 and more.
    await_that("the head is gone, and the log is short", || {
        let segments = segments(&dir.path().join("__cluster_metadata-0"));
        segments.keys().next() > Some(&0) && segments.values().sum::<u64>() < 16 * SNAPSHOT_BYTES
    });
    node.stop();
}
