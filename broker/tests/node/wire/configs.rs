//! DescribeConfigs and IncrementalAlterConfigs.

use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::describe_configs_request::DescribeConfigsResource;
use ouzel_protocol::messages::kafka::describe_configs_response::DescribeConfigsResult;
use ouzel_protocol::messages::kafka::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ouzel_protocol::messages::kafka::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use crate::support::await_that;
use crate::support::node::Node;
use crate::support::records::batch_of_bytes;
use crate::support::wire::{Wire, fresh_name, text};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Key, operation, value.
type Change<'a> = (&'a str, i8, Option<&'a str>);

fn describe(wire: &mut Wire, kind: i8, resource: &str, keys: Option<&[&str]>) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()));
    let request = DescribeConfigsRequest::default()
        .with_include_synonyms(true)
        .with_include_documentation(true)
        .with_resources(vec![resource]);
    wire.call(4, request).results.remove(0)
}

/// Value and source of one key.
fn value(wire: &mut Wire, topic: &str, key: &str) -> (String, i8) {
    let result = describe(wire, TOPIC, topic, Some(&[key]));
    assert_eq!(result.error_code, 0, "{:?}", result.error_message);
    let config = &result.configs[0];
    (config.value.as_deref().unwrap_or_default().to_owned(), config.config_source)
}

/// A change holds when it is answered. Kafka's broker learns of it a moment later, so there it is waited for.
#[track_caller]
fn assert_comes<T: PartialEq + std::fmt::Debug>(node: &Node, mut look: impl FnMut() -> T, expected: T) {
    if node.is_own() {
        assert_eq!(look(), expected);
    } else {
        await_that("a change holds", || look() == expected);
    }
}

fn alter(wire: &mut Wire, kind: i8, resource: &str, changes: &[Change<'_>]) -> ErrorCode {
    alter_as(wire, kind, resource, changes, false)
}

fn alter_as(
    wire: &mut Wire,
    kind: i8,
    resource: &str,
    changes: &[Change<'_>],
    validate_only: bool,
) -> ErrorCode {
    let configs = changes.iter().map(|(key, operation, value)| {
        AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default()
        .with_validate_only(validate_only)
        .with_resources(vec![resource]);
    ErrorCode::from_code(wire.call(1, request).responses[0].error_code).unwrap()
}

#[test]
fn a_topics_settings_say_their_value_their_source_and_what_stands_behind() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("described");
    wire.create(&topic, 1, &[("retention.ms", "5000")]);
    let all = describe(&mut wire, TOPIC, &topic, None);
    assert_eq!(all.error_code, 0);
    for key in ["cleanup.policy", "max.message.bytes", "segment.bytes", "compression.type"] {
        let config =
            all.configs.iter().find(|config| &*config.name == key).unwrap_or_else(|| panic!("{key}"));
        assert_eq!(config.config_source, 5, "{key}");
        assert!(config.documentation.as_ref().is_some_and(|words| !words.is_empty()), "{key}");
        assert!(!config.is_sensitive && !config.read_only && config.config_type > 0, "{key}");
    }
    let retention = all.configs.iter().find(|config| &*config.name == "retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.config_source), (Some("5000"), 1));
    assert_eq!((&*retention.synonyms[0].name, retention.synonyms[0].source), ("retention.ms", 1));
    assert_eq!(describe(&mut wire, TOPIC, &topic, Some(&[])).configs.len(), all.configs.len());
    let some = describe(&mut wire, TOPIC, &topic, Some(&["retention.ms", "no.such.key"]));
    assert_eq!(some.configs.len(), 1);
}

#[test]
fn resources_that_are_not_there_are_told() {
    let node = Node::start();
    let mut wire = node.connect();
    let mut code = |kind: i8, resource: &str| {
        ErrorCode::from_code(describe(&mut wire, kind, resource, None).error_code).unwrap()
    };
    assert_eq!(code(TOPIC, "no-such-topic"), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(code(TOPIC, "a b"), ErrorCode::InvalidTopic);
    assert_eq!(code(BROKER, "1"), ErrorCode::None);
    assert_eq!(code(BROKER, ""), ErrorCode::None);
    assert_eq!(code(BROKER, "99"), ErrorCode::InvalidRequest);
    assert_eq!(code(BROKER, "one"), ErrorCode::InvalidRequest);
    assert_eq!(code(77, "x"), ErrorCode::InvalidRequest);
}

#[test]
fn settings_are_set_deleted_appended_to_and_subtracted_from() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("altered");
    wire.create(&topic, 1, &[]);
    let default = value(&mut wire, &topic, "retention.ms");
    assert_eq!(alter(&mut wire, TOPIC, &topic, &[("retention.ms", SET, Some("1234"))]), ErrorCode::None);
    assert_comes(&node, || value(&mut wire, &topic, "retention.ms"), ("1234".to_owned(), 1));
    assert_eq!(alter(&mut wire, TOPIC, &topic, &[("retention.ms", DELETE, None)]), ErrorCode::None);
    assert_comes(&node, || value(&mut wire, &topic, "retention.ms"), default);
    assert_eq!(
        alter(&mut wire, TOPIC, &topic, &[("cleanup.policy", APPEND, Some("compact"))]),
        ErrorCode::None
    );
    assert_comes(&node, || value(&mut wire, &topic, "cleanup.policy").0, "delete,compact".to_owned());
    assert_eq!(
        alter(&mut wire, TOPIC, &topic, &[("cleanup.policy", SUBTRACT, Some("delete"))]),
        ErrorCode::None
    );
    assert_comes(&node, || value(&mut wire, &topic, "cleanup.policy").0, "compact".to_owned());
}

#[test]
fn one_bad_key_leaves_the_whole_resource_as_it_was() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("unaltered");
    wire.create(&topic, 1, &[]);
    let before = value(&mut wire, &topic, "retention.ms");
    let good = ("retention.ms", SET, Some("1234"));
    let mut cases: Vec<(&str, Vec<Change<'_>>, ErrorCode)> = vec![
        ("unknown key", vec![good, ("no.such.key", SET, Some("1"))], ErrorCode::InvalidConfig),
        ("bad value", vec![good, ("segment.bytes", SET, Some("x"))], ErrorCode::InvalidConfig),
        ("null value", vec![good, ("segment.bytes", SET, None)], ErrorCode::InvalidRequest),
        ("not a list", vec![good, ("segment.bytes", APPEND, Some("1"))], ErrorCode::InvalidConfig),
        ("twice", vec![good, ("retention.ms", SET, Some("5"))], ErrorCode::InvalidRequest),
    ];
    if node.is_own() {
        // Kafka has no better word for it than UNKNOWN_SERVER_ERROR.
        cases.push((
            "unknown operation",
            vec![good, ("segment.bytes", 9, Some("1"))],
            ErrorCode::InvalidRequest,
        ));
    }
    for (what, changes, expected) in cases {
        assert_eq!(alter(&mut wire, TOPIC, &topic, &changes), expected, "{what}");
        assert_eq!(value(&mut wire, &topic, "retention.ms"), before, "{what}");
    }
    assert_eq!(alter_as(&mut wire, TOPIC, &topic, &[good], true), ErrorCode::None);
    assert_eq!(value(&mut wire, &topic, "retention.ms"), before, "validate_only changes nothing");
    assert_eq!(alter(&mut wire, TOPIC, "no-such-topic", &[good]), ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn a_new_limit_holds_for_the_next_batch() {
    let node = Node::start_with(2, &[]);
    let mut wire = node.connect();
    let topic = fresh_name("limit");
    wire.create(&topic, 2, &[]);
    for partition in 0..2 {
        wire.store(&topic, partition, batch_of_bytes(5000));
    }
    assert_eq!(alter(&mut wire, TOPIC, &topic, &[("max.message.bytes", SET, Some("1000"))]), ErrorCode::None);
    for partition in 0..2 {
        let code = || wire.produce(&topic, partition, batch_of_bytes(5000)).error_code;
        assert_comes(&node, code, ErrorCode::MessageTooLarge.code());
    }
}
