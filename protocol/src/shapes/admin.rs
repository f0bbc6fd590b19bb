//! Shapes of the requests about the cluster, its topics and their configs.

use super::{Field, Kind, field, structs};

/// ApiVersions.
pub const API_VERSIONS: &[Field] =
    &[field("client_software_name", Kind::Str).from(3), field("client_software_version", Kind::Str).from(3)];

/// Metadata.
pub const METADATA: &[Field] = &[
    structs("topics", &METADATA_TOPIC).null_from(1),
    field("allow_auto_topic_creation", Kind::Bool).from(4),
    field("include_cluster_authorized_operations", Kind::Bool).from(8).to(10),
    field("include_topic_authorized_operations", Kind::Bool).from(8),
];

const METADATA_TOPIC: Kind =
    Kind::Struct(&[field("topic_id", Kind::Uuid).from(10), field("name", Kind::Str).null_from(10)]);

/// CreateTopics.
pub const CREATE_TOPICS: &[Field] = &[
    structs("topics", &CREATE_TOPICS_TOPIC),
    field("timeout_ms", Kind::I32),
    field("validate_only", Kind::Bool).from(1),
];

const CREATE_TOPICS_TOPIC: Kind = Kind::Struct(&[
    field("name", Kind::Str),
    field("num_partitions", Kind::I32),
    field("replication_factor", Kind::I16),
    structs("assignments", &CREATE_TOPICS_ASSIGNMENT),
    structs("configs", &CREATE_TOPICS_CONFIG),
]);

const CREATE_TOPICS_ASSIGNMENT: Kind =
    Kind::Struct(&[field("partition_index", Kind::I32), field("broker_ids", Kind::Array(&Kind::I32))]);

const CREATE_TOPICS_CONFIG: Kind =
    Kind::Struct(&[field("name", Kind::Str), field("value", Kind::Str).null_from(0)]);

/// DeleteTopics: by name up to version 5, by name or id from version 6.
pub const DELETE_TOPICS: &[Field] = &[
    structs("topics", &DELETE_TOPICS_TOPIC).from(6),
    field("topic_names", Kind::Array(&Kind::Str)).to(5),
    field("timeout_ms", Kind::I32),
];

const DELETE_TOPICS_TOPIC: Kind =
    Kind::Struct(&[field("name", Kind::Str).null_from(6), field("topic_id", Kind::Uuid)]);

/// DescribeConfigs.
pub const DESCRIBE_CONFIGS: &[Field] = &[
    structs("resources", &DESCRIBE_CONFIGS_RESOURCE),
    field("include_synonyms", Kind::Bool).from(1),
    field("include_documentation", Kind::Bool).from(3),
];

const DESCRIBE_CONFIGS_RESOURCE: Kind = Kind::Struct(&[
    field("resource_type", Kind::I8),
    field("resource_name", Kind::Str),
    field("configuration_keys", Kind::Array(&Kind::Str)).null_from(0),
]);

/// IncrementalAlterConfigs.
pub const INCREMENTAL_ALTER_CONFIGS: &[Field] =
    &[structs("resources", &INCREMENTAL_ALTER_CONFIGS_RESOURCE), field("validate_only", Kind::Bool)];

const INCREMENTAL_ALTER_CONFIGS_RESOURCE: Kind = Kind::Struct(&[
    field("resource_type", Kind::I8),
    field("resource_name", Kind::Str),
    structs("configs", &INCREMENTAL_ALTER_CONFIGS_CONFIG),
]);

const INCREMENTAL_ALTER_CONFIGS_CONFIG: Kind = Kind::Struct(&[
    field("name", Kind::Str),
    field("config_operation", Kind::I8),
    field("value", Kind::Str).null_from(0),
]);

/// DescribeCluster.
pub const DESCRIBE_CLUSTER: &[Field] = &[
    field("include_cluster_authorized_operations", Kind::Bool),
    field("endpoint_type", Kind::I8).from(1),
    field("include_fenced_brokers", Kind::Bool).from(2),
];
