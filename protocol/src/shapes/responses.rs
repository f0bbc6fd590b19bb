//! Shapes of the responses, for whoever is the client: a broker's bytes are a stranger's bytes too.

use super::{Field, Kind, field, structs};

const THROTTLE: Field = field("throttle_time_ms", Kind::I32);
const ERROR_CODE: Field = field("error_code", Kind::I16);
const ERROR_MESSAGE: Field = field("error_message", Kind::Str).null_from(0);
const PARTITION_INDEX: Field = field("partition_index", Kind::I32);

/// Produce.
pub const PRODUCE: &[Field] = &[
    structs("responses", &PRODUCE_TOPIC),
    THROTTLE.from(1),
    structs("node_endpoints", &NODE_ENDPOINT).from(10).tagged(0),
];

const PRODUCE_TOPIC: Kind = Kind::Struct(&[
    field("name", Kind::Str).to(12),
    field("topic_id", Kind::Uuid).from(13),
    structs("partition_responses", &PRODUCE_PARTITION),
]);

const PRODUCE_PARTITION: Kind = Kind::Struct(&[
    field("index", Kind::I32),
    ERROR_CODE,
    field("base_offset", Kind::I64),
    field("log_append_time_ms", Kind::I64).from(2),
    field("log_start_offset", Kind::I64).from(5),
    structs("record_errors", &PRODUCE_RECORD_ERROR).from(8),
    ERROR_MESSAGE.from(8),
    field("current_leader", LEADER_ID_AND_EPOCH).from(10).tagged(0),
]);

const PRODUCE_RECORD_ERROR: Kind = Kind::Struct(&[
    field("batch_index", Kind::I32),
    field("batch_index_error_message", Kind::Str).null_from(8),
]);

const LEADER_ID_AND_EPOCH: Kind =
    Kind::Struct(&[field("leader_id", Kind::I32), field("leader_epoch", Kind::I32)]);

const NODE_ENDPOINT: Kind = Kind::Struct(&[
    field("node_id", Kind::I32),
    field("host", Kind::Str),
    field("port", Kind::I32),
    field("rack", Kind::Str).null_from(0),
]);

/// Fetch.
pub const FETCH: &[Field] = &[
    THROTTLE.from(1),
    ERROR_CODE.from(7),
    field("session_id", Kind::I32).from(7),
    structs("responses", &FETCH_TOPIC),
    structs("node_endpoints", &NODE_ENDPOINT).from(16).tagged(0),
];

const FETCH_TOPIC: Kind = Kind::Struct(&[
    field("topic", Kind::Str).to(12),
    field("topic_id", Kind::Uuid).from(13),
    structs("partitions", &FETCH_PARTITION),
]);

const FETCH_PARTITION: Kind = Kind::Struct(&[
    PARTITION_INDEX,
    ERROR_CODE,
    field("high_watermark", Kind::I64),
    field("last_stable_offset", Kind::I64).from(4),
    field("log_start_offset", Kind::I64).from(5),
    field("diverging_epoch", Kind::Struct(&[field("epoch", Kind::I32), field("end_offset", Kind::I64)]))
        .from(12)
        .tagged(0),
    field("current_leader", LEADER_ID_AND_EPOCH).from(12).tagged(1),
    field("snapshot_id", Kind::Struct(&[field("end_offset", Kind::I64), field("epoch", Kind::I32)]))
        .from(12)
        .tagged(2),
    structs("aborted_transactions", &FETCH_ABORTED).from(4).null_from(4),
    field("preferred_read_replica", Kind::I32).from(11),
    field("records", Kind::Records).null_from(0),
]);

const FETCH_ABORTED: Kind =
    Kind::Struct(&[field("producer_id", Kind::I64), field("first_offset", Kind::I64)]);

/// ListOffsets.
pub const LIST_OFFSETS: &[Field] = &[THROTTLE.from(2), structs("topics", &LIST_OFFSETS_TOPIC)];

const LIST_OFFSETS_TOPIC: Kind =
    Kind::Struct(&[field("name", Kind::Str), structs("partitions", &LIST_OFFSETS_PARTITION)]);

const LIST_OFFSETS_PARTITION: Kind = Kind::Struct(&[
    PARTITION_INDEX,
    ERROR_CODE,
    field("timestamp", Kind::I64),
    field("offset", Kind::I64),
    field("leader_epoch", Kind::I32).from(4),
]);

/// Metadata.
pub const METADATA: &[Field] = &[
    THROTTLE.from(3),
    structs("brokers", &METADATA_BROKER),
    field("cluster_id", Kind::Str).from(2).null_from(2),
    field("controller_id", Kind::I32).from(1),
    structs("topics", &METADATA_TOPIC),
    field("cluster_authorized_operations", Kind::I32).from(8).to(10),
    ERROR_CODE.from(13),
];

const METADATA_BROKER: Kind = Kind::Struct(&[
    field("node_id", Kind::I32),
    field("host", Kind::Str),
    field("port", Kind::I32),
    field("rack", Kind::Str).from(1).null_from(1),
]);

const METADATA_TOPIC: Kind = Kind::Struct(&[
    ERROR_CODE,
    field("name", Kind::Str).null_from(12),
    field("topic_id", Kind::Uuid).from(10),
    field("is_internal", Kind::Bool).from(1),
    structs("partitions", &METADATA_PARTITION),
    field("topic_authorized_operations", Kind::I32).from(8),
]);

const METADATA_PARTITION: Kind = Kind::Struct(&[
    ERROR_CODE,
    PARTITION_INDEX,
    field("leader_id", Kind::I32),
    field("leader_epoch", Kind::I32).from(7),
    field("replica_nodes", Kind::Array(&Kind::I32)),
    field("isr_nodes", Kind::Array(&Kind::I32)),
    field("offline_replicas", Kind::Array(&Kind::I32)).from(5),
]);

/// OffsetCommit.
pub const OFFSET_COMMIT: &[Field] = &[THROTTLE.from(3), structs("topics", &OFFSET_COMMIT_TOPIC)];

const OFFSET_COMMIT_TOPIC: Kind = Kind::Struct(&[
    field("name", Kind::Str).to(9),
    field("topic_id", Kind::Uuid).from(10),
    structs("partitions", &PARTITION_ERROR),
]);

const PARTITION_ERROR: Kind = Kind::Struct(&[PARTITION_INDEX, ERROR_CODE]);

/// OffsetFetch.
pub const OFFSET_FETCH: &[Field] = &[
    THROTTLE.from(3),
    structs("topics", &OFFSET_FETCH_TOPIC).to(7),
    ERROR_CODE.from(2).to(7),
    structs("groups", &OFFSET_FETCH_GROUP).from(8),
];

const OFFSET_FETCH_TOPIC: Kind =
    Kind::Struct(&[field("name", Kind::Str), structs("partitions", &OFFSET_FETCH_PARTITION)]);

const OFFSET_FETCH_GROUP: Kind =
    Kind::Struct(&[field("group_id", Kind::Str), structs("topics", &OFFSET_FETCH_GROUP_TOPIC), ERROR_CODE]);

const OFFSET_FETCH_GROUP_TOPIC: Kind = Kind::Struct(&[
    field("name", Kind::Str).to(9),
    field("topic_id", Kind::Uuid).from(10),
    structs("partitions", &OFFSET_FETCH_PARTITION),
]);

const OFFSET_FETCH_PARTITION: Kind = Kind::Struct(&[
    PARTITION_INDEX,
    field("committed_offset", Kind::I64),
    field("committed_leader_epoch", Kind::I32).from(5),
    field("metadata", Kind::Str).null_from(0),
    ERROR_CODE,
]);

/// FindCoordinator.
pub const FIND_COORDINATOR: &[Field] = &[
    THROTTLE.from(1),
    ERROR_CODE.to(3),
    ERROR_MESSAGE.from(1).to(3),
    field("node_id", Kind::I32).to(3),
    field("host", Kind::Str).to(3),
    field("port", Kind::I32).to(3),
    structs("coordinators", &COORDINATOR).from(4),
];

const COORDINATOR: Kind = Kind::Struct(&[
    field("key", Kind::Str),
    field("node_id", Kind::I32),
    field("host", Kind::Str),
    field("port", Kind::I32),
    ERROR_CODE,
    ERROR_MESSAGE,
]);

/// JoinGroup.
pub const JOIN_GROUP: &[Field] = &[
    THROTTLE.from(2),
    ERROR_CODE,
    field("generation_id", Kind::I32),
    field("protocol_type", Kind::Str).from(7).null_from(7),
    field("protocol_name", Kind::Str).null_from(7),
    field("leader", Kind::Str),
    field("skip_assignment", Kind::Bool).from(9),
    field("member_id", Kind::Str),
    structs("members", &JOIN_GROUP_MEMBER),
];

const JOIN_GROUP_MEMBER: Kind = Kind::Struct(&[
    field("member_id", Kind::Str),
    field("group_instance_id", Kind::Str).from(5).null_from(5),
    field("metadata", Kind::Bytes),
]);

/// Heartbeat.
pub const HEARTBEAT: &[Field] = &[THROTTLE.from(1), ERROR_CODE];

/// LeaveGroup.
pub const LEAVE_GROUP: &[Field] =
    &[THROTTLE.from(1), ERROR_CODE, structs("members", &LEAVE_GROUP_MEMBER).from(3)];

const LEAVE_GROUP_MEMBER: Kind = Kind::Struct(&[
    field("member_id", Kind::Str),
    field("group_instance_id", Kind::Str).null_from(3),
    ERROR_CODE,
]);

/// SyncGroup.
pub const SYNC_GROUP: &[Field] = &[
    THROTTLE.from(1),
    ERROR_CODE,
    field("protocol_type", Kind::Str).from(5).null_from(5),
    field("protocol_name", Kind::Str).from(5).null_from(5),
    field("assignment", Kind::Bytes),
];

/// DescribeGroups.
pub const DESCRIBE_GROUPS: &[Field] = &[THROTTLE.from(1), structs("groups", &DESCRIBED_GROUP)];

const DESCRIBED_GROUP: Kind = Kind::Struct(&[
    ERROR_CODE,
    ERROR_MESSAGE.from(6),
    field("group_id", Kind::Str),
    field("group_state", Kind::Str),
    field("protocol_type", Kind::Str),
    field("protocol_data", Kind::Str),
    structs("members", &DESCRIBED_MEMBER),
    field("authorized_operations", Kind::I32).from(3),
]);

const DESCRIBED_MEMBER: Kind = Kind::Struct(&[
    field("member_id", Kind::Str),
    field("group_instance_id", Kind::Str).from(4).null_from(4),
    field("client_id", Kind::Str),
    field("client_host", Kind::Str),
    field("member_metadata", Kind::Bytes),
    field("member_assignment", Kind::Bytes),
]);

/// ListGroups.
pub const LIST_GROUPS: &[Field] = &[THROTTLE.from(1), ERROR_CODE, structs("groups", &LISTED_GROUP)];

const LISTED_GROUP: Kind = Kind::Struct(&[
    field("group_id", Kind::Str),
    field("protocol_type", Kind::Str),
    field("group_state", Kind::Str).from(4),
    field("group_type", Kind::Str).from(5),
]);

/// ApiVersions.
pub const API_VERSIONS: &[Field] = &[
    ERROR_CODE,
    structs("api_keys", &API_VERSION),
    THROTTLE.from(1),
    structs("supported_features", &FEATURE).from(3).tagged(0),
    field("finalized_features_epoch", Kind::I64).from(3).tagged(1),
    structs("finalized_features", &FEATURE).from(3).tagged(2),
    field("zk_migration_ready", Kind::Bool).from(3).tagged(3),
];

const API_VERSION: Kind = Kind::Struct(&[
    field("api_key", Kind::I16),
    field("min_version", Kind::I16),
    field("max_version", Kind::I16),
]);

const FEATURE: Kind = Kind::Struct(&[
    field("name", Kind::Str),
    field("one_version", Kind::I16),
    field("other_version", Kind::I16),
]);

/// CreateTopics.
pub const CREATE_TOPICS: &[Field] = &[THROTTLE.from(2), structs("topics", &CREATED_TOPIC)];

const CREATED_TOPIC: Kind = Kind::Struct(&[
    field("name", Kind::Str),
    field("topic_id", Kind::Uuid).from(7),
    ERROR_CODE,
    ERROR_MESSAGE.from(1),
    field("topic_config_error_code", Kind::I16).from(5).tagged(0),
    field("num_partitions", Kind::I32).from(5),
    field("replication_factor", Kind::I16).from(5),
    structs("configs", &CREATED_CONFIG).from(5).null_from(5),
]);

const CREATED_CONFIG: Kind = Kind::Struct(&[
    field("name", Kind::Str),
    field("value", Kind::Str).null_from(5),
    field("read_only", Kind::Bool),
    field("config_source", Kind::I8),
    field("is_sensitive", Kind::Bool),
]);

/// DeleteTopics.
pub const DELETE_TOPICS: &[Field] = &[THROTTLE.from(1), structs("responses", &DELETED_TOPIC)];

const DELETED_TOPIC: Kind = Kind::Struct(&[
    field("name", Kind::Str).null_from(6),
    field("topic_id", Kind::Uuid).from(6),
    ERROR_CODE,
    ERROR_MESSAGE.from(5),
]);

/// InitProducerId.
pub const INIT_PRODUCER_ID: &[Field] =
    &[THROTTLE, ERROR_CODE, field("producer_id", Kind::I64), field("producer_epoch", Kind::I16)];

/// OffsetForLeaderEpoch.
pub const OFFSET_FOR_LEADER_EPOCH: &[Field] =
    &[THROTTLE.from(2), structs("topics", &OFFSET_FOR_LEADER_EPOCH_TOPIC)];

const OFFSET_FOR_LEADER_EPOCH_TOPIC: Kind =
    Kind::Struct(&[field("topic", Kind::Str), structs("partitions", &OFFSET_FOR_LEADER_EPOCH_PARTITION)]);

const OFFSET_FOR_LEADER_EPOCH_PARTITION: Kind = Kind::Struct(&[
    ERROR_CODE,
    field("partition", Kind::I32),
    field("leader_epoch", Kind::I32).from(1),
    field("end_offset", Kind::I64),
]);

/// DescribeConfigs.
pub const DESCRIBE_CONFIGS: &[Field] = &[THROTTLE, structs("results", &DESCRIBED_RESOURCE)];

const DESCRIBED_RESOURCE: Kind = Kind::Struct(&[
    ERROR_CODE,
    ERROR_MESSAGE,
    field("resource_type", Kind::I8),
    field("resource_name", Kind::Str),
    structs("configs", &DESCRIBED_CONFIG),
]);

const DESCRIBED_CONFIG: Kind = Kind::Struct(&[
    field("name", Kind::Str),
    field("value", Kind::Str).null_from(0),
    field("read_only", Kind::Bool),
    field("config_source", Kind::I8).from(1),
    field("is_sensitive", Kind::Bool),
    structs("synonyms", &CONFIG_SYNONYM).from(1),
    field("config_type", Kind::I8).from(3),
    field("documentation", Kind::Str).from(3).null_from(0),
]);

const CONFIG_SYNONYM: Kind = Kind::Struct(&[
    field("name", Kind::Str),
    field("value", Kind::Str).null_from(0),
    field("source", Kind::I8),
]);

/// DeleteGroups.
pub const DELETE_GROUPS: &[Field] = &[THROTTLE, structs("results", &DELETED_GROUP)];

const DELETED_GROUP: Kind = Kind::Struct(&[field("group_id", Kind::Str), ERROR_CODE]);

/// IncrementalAlterConfigs.
pub const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[THROTTLE, structs("responses", &ALTERED_RESOURCE)];

const ALTERED_RESOURCE: Kind = Kind::Struct(&[
    ERROR_CODE,
    ERROR_MESSAGE,
    field("resource_type", Kind::I8),
    field("resource_name", Kind::Str),
]);

/// OffsetDelete.
pub const OFFSET_DELETE: &[Field] = &[ERROR_CODE, THROTTLE, structs("topics", &OFFSET_DELETE_TOPIC)];

const OFFSET_DELETE_TOPIC: Kind =
    Kind::Struct(&[field("name", Kind::Str), structs("partitions", &PARTITION_ERROR)]);

/// DescribeCluster.
pub const DESCRIBE_CLUSTER: &[Field] = &[
    THROTTLE,
    ERROR_CODE,
    ERROR_MESSAGE,
    field("endpoint_type", Kind::I8).from(1),
    field("cluster_id", Kind::Str),
    field("controller_id", Kind::I32),
    structs("brokers", &DESCRIBED_BROKER),
    field("cluster_authorized_operations", Kind::I32),
];

const DESCRIBED_BROKER: Kind = Kind::Struct(&[
    field("broker_id", Kind::I32),
    field("host", Kind::Str),
    field("port", Kind::I32),
    field("rack", Kind::Str).null_from(0),
    field("is_fenced", Kind::Bool).from(2),
]);
