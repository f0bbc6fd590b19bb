//! Shapes of requests and responses about partitions' places, their leaders, and the cluster's own consensus.

/// Requests.
pub mod request {
    use super::super::{Field, Kind, field, structs};

    const BROKERS: Kind = Kind::Array(&Kind::I32);

    /// DescribeLogDirs.
    pub const DESCRIBE_LOG_DIRS: &[Field] = &[structs("topics", &DESCRIBE_LOG_DIRS_TOPIC).null_from(0)];

    const DESCRIBE_LOG_DIRS_TOPIC: Kind =
        Kind::Struct(&[field("topic", Kind::Str), field("partitions", Kind::Array(&Kind::I32))]);

    /// CreatePartitions.
    pub const CREATE_PARTITIONS: &[Field] = &[
        structs("topics", &CREATE_PARTITIONS_TOPIC),
        field("timeout_ms", Kind::I32),
        field("validate_only", Kind::Bool),
    ];

    const CREATE_PARTITIONS_TOPIC: Kind = Kind::Struct(&[
        field("name", Kind::Str),
        field("count", Kind::I32),
        structs("assignments", &CREATE_PARTITIONS_ASSIGNMENT).null_from(0),
    ]);

    const CREATE_PARTITIONS_ASSIGNMENT: Kind = Kind::Struct(&[field("broker_ids", BROKERS)]);

    /// ElectLeaders.
    pub const ELECT_LEADERS: &[Field] = &[
        field("election_type", Kind::I8).from(1),
        structs("topic_partitions", &ELECT_LEADERS_TOPIC).null_from(0),
        field("timeout_ms", Kind::I32),
    ];

    const ELECT_LEADERS_TOPIC: Kind =
        Kind::Struct(&[field("topic", Kind::Str), field("partitions", Kind::Array(&Kind::I32))]);

    /// AlterPartitionReassignments.
    pub const ALTER_PARTITION_REASSIGNMENTS: &[Field] = &[
        field("timeout_ms", Kind::I32),
        field("allow_replication_factor_change", Kind::Bool).from(1),
        structs("topics", &ALTER_REASSIGNMENTS_TOPIC),
    ];

    const ALTER_REASSIGNMENTS_TOPIC: Kind =
        Kind::Struct(&[field("name", Kind::Str), structs("partitions", &ALTER_REASSIGNMENTS_PARTITION)]);

    const ALTER_REASSIGNMENTS_PARTITION: Kind =
        Kind::Struct(&[field("partition_index", Kind::I32), field("replicas", BROKERS).null_from(0)]);

    /// ListPartitionReassignments.
    pub const LIST_PARTITION_REASSIGNMENTS: &[Field] =
        &[field("timeout_ms", Kind::I32), structs("topics", &LIST_REASSIGNMENTS_TOPIC).null_from(0)];

    const LIST_REASSIGNMENTS_TOPIC: Kind =
        Kind::Struct(&[field("name", Kind::Str), field("partition_indexes", Kind::Array(&Kind::I32))]);

    /// DescribeQuorum.
    pub const DESCRIBE_QUORUM: &[Field] = &[structs("topics", &DESCRIBE_QUORUM_TOPIC)];

    const DESCRIBE_QUORUM_TOPIC: Kind =
        Kind::Struct(&[field("topic_name", Kind::Str), structs("partitions", &DESCRIBE_QUORUM_PARTITION)]);

    const DESCRIBE_QUORUM_PARTITION: Kind = Kind::Struct(&[field("partition_index", Kind::I32)]);

    /// UpdateFeatures.
    pub const UPDATE_FEATURES: &[Field] = &[
        field("timeout_ms", Kind::I32),
        structs("feature_updates", &FEATURE_UPDATE),
        field("validate_only", Kind::Bool).from(1),
    ];

    const FEATURE_UPDATE: Kind = Kind::Struct(&[
        field("feature", Kind::Str),
        field("max_version_level", Kind::I16),
        field("allow_downgrade", Kind::Bool).to(0),
        field("upgrade_type", Kind::I8).from(1),
    ]);

    /// UnregisterBroker.
    pub const UNREGISTER_BROKER: &[Field] = &[field("broker_id", Kind::I32)];
}

/// Responses.
pub mod response {
    use super::super::{Field, Kind, field, structs};

    const THROTTLE: Field = field("throttle_time_ms", Kind::I32);
    const ERROR_CODE: Field = field("error_code", Kind::I16);
    const ERROR_MESSAGE: Field = field("error_message", Kind::Str).null_from(0);
    const PARTITION_INDEX: Field = field("partition_index", Kind::I32);
    const BROKERS: Kind = Kind::Array(&Kind::I32);

    /// DescribeLogDirs.
    pub const DESCRIBE_LOG_DIRS: &[Field] =
        &[THROTTLE, ERROR_CODE.from(3), structs("results", &DESCRIBED_LOG_DIR)];

    const DESCRIBED_LOG_DIR: Kind = Kind::Struct(&[
        ERROR_CODE,
        field("log_dir", Kind::Str),
        structs("topics", &LOG_DIR_TOPIC),
        field("total_bytes", Kind::I64).from(4),
        field("usable_bytes", Kind::I64).from(4),
    ]);

    const LOG_DIR_TOPIC: Kind =
        Kind::Struct(&[field("name", Kind::Str), structs("partitions", &LOG_DIR_PARTITION)]);

    const LOG_DIR_PARTITION: Kind = Kind::Struct(&[
        PARTITION_INDEX,
        field("partition_size", Kind::I64),
        field("offset_lag", Kind::I64),
        field("is_future_key", Kind::Bool),
    ]);

    /// CreatePartitions.
    pub const CREATE_PARTITIONS: &[Field] = &[THROTTLE, structs("results", &CREATE_PARTITIONS_RESULT)];

    const CREATE_PARTITIONS_RESULT: Kind =
        Kind::Struct(&[field("name", Kind::Str), ERROR_CODE, ERROR_MESSAGE]);

    /// ElectLeaders.
    pub const ELECT_LEADERS: &[Field] =
        &[THROTTLE, ERROR_CODE.from(1), structs("replica_election_results", &ELECT_LEADERS_TOPIC)];

    const ELECT_LEADERS_TOPIC: Kind =
        Kind::Struct(&[field("topic", Kind::Str), structs("partition_result", &ELECT_LEADERS_PARTITION)]);

    const ELECT_LEADERS_PARTITION: Kind =
        Kind::Struct(&[field("partition_id", Kind::I32), ERROR_CODE, ERROR_MESSAGE]);

    /// AlterPartitionReassignments.
    pub const ALTER_PARTITION_REASSIGNMENTS: &[Field] = &[
        THROTTLE,
        field("allow_replication_factor_change", Kind::Bool).from(1),
        ERROR_CODE,
        ERROR_MESSAGE,
        structs("responses", &ALTER_REASSIGNMENTS_TOPIC),
    ];

    const ALTER_REASSIGNMENTS_TOPIC: Kind =
        Kind::Struct(&[field("name", Kind::Str), structs("partitions", &ALTER_REASSIGNMENTS_PARTITION)]);

    const ALTER_REASSIGNMENTS_PARTITION: Kind = Kind::Struct(&[PARTITION_INDEX, ERROR_CODE, ERROR_MESSAGE]);

    /// ListPartitionReassignments.
    pub const LIST_PARTITION_REASSIGNMENTS: &[Field] =
        &[THROTTLE, ERROR_CODE, ERROR_MESSAGE, structs("topics", &LIST_REASSIGNMENTS_TOPIC)];

    const LIST_REASSIGNMENTS_TOPIC: Kind =
        Kind::Struct(&[field("name", Kind::Str), structs("partitions", &LIST_REASSIGNMENTS_PARTITION)]);

    const LIST_REASSIGNMENTS_PARTITION: Kind = Kind::Struct(&[
        PARTITION_INDEX,
        field("replicas", BROKERS),
        field("adding_replicas", BROKERS),
        field("removing_replicas", BROKERS),
    ]);

    /// DescribeQuorum.
    pub const DESCRIBE_QUORUM: &[Field] = &[
        ERROR_CODE,
        ERROR_MESSAGE.from(2),
        structs("topics", &DESCRIBE_QUORUM_TOPIC),
        structs("nodes", &QUORUM_NODE).from(2),
    ];

    const DESCRIBE_QUORUM_TOPIC: Kind =
        Kind::Struct(&[field("topic_name", Kind::Str), structs("partitions", &DESCRIBE_QUORUM_PARTITION)]);

    const DESCRIBE_QUORUM_PARTITION: Kind = Kind::Struct(&[
        PARTITION_INDEX,
        ERROR_CODE,
        ERROR_MESSAGE.from(2),
        field("leader_id", Kind::I32),
        field("leader_epoch", Kind::I32),
        field("high_watermark", Kind::I64),
        structs("current_voters", &QUORUM_REPLICA),
        structs("observers", &QUORUM_REPLICA),
    ]);

    const QUORUM_REPLICA: Kind = Kind::Struct(&[
        field("replica_id", Kind::I32),
        field("replica_directory_id", Kind::Uuid).from(2),
        field("log_end_offset", Kind::I64),
        field("last_fetch_timestamp", Kind::I64).from(1),
        field("last_caught_up_timestamp", Kind::I64).from(1),
    ]);

    const QUORUM_NODE: Kind =
        Kind::Struct(&[field("node_id", Kind::I32), structs("listeners", &QUORUM_LISTENER)]);

    const QUORUM_LISTENER: Kind =
        Kind::Struct(&[field("name", Kind::Str), field("host", Kind::Str), field("port", Kind::I16)]);

    /// UpdateFeatures.
    pub const UPDATE_FEATURES: &[Field] =
        &[THROTTLE, ERROR_CODE, ERROR_MESSAGE, structs("results", &UPDATED_FEATURE).to(1)];

    const UPDATED_FEATURE: Kind = Kind::Struct(&[field("feature", Kind::Str), ERROR_CODE, ERROR_MESSAGE]);

    /// UnregisterBroker.
    pub const UNREGISTER_BROKER: &[Field] = &[THROTTLE, ERROR_CODE, ERROR_MESSAGE];
}
