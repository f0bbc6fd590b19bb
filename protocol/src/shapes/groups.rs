//! Shapes of the requests to group coordinators.

use super::{Field, Kind, field, structs};

/// OffsetCommit.
pub const OFFSET_COMMIT: &[Field] = &[
    field("group_id", Kind::Str),
    field("generation_id_or_member_epoch", Kind::I32).from(1),
    field("member_id", Kind::Str).from(1),
    field("group_instance_id", Kind::Str).from(7).null_from(7),
    field("retention_time_ms", Kind::I64).from(2).to(4),
    structs("topics", &OFFSET_COMMIT_TOPIC),
];

const OFFSET_COMMIT_TOPIC: Kind = Kind::Struct(&[
    field("name", Kind::Str).to(9),
    field("topic_id", Kind::Uuid).from(10),
    structs("partitions", &OFFSET_COMMIT_PARTITION),
]);

const OFFSET_COMMIT_PARTITION: Kind = Kind::Struct(&[
    field("partition_index", Kind::I32),
    field("committed_offset", Kind::I64),
    field("committed_leader_epoch", Kind::I32).from(6),
    field("committed_metadata", Kind::Str).null_from(0),
]);

/// OffsetFetch: one group up to version 7, several from version 8.
pub const OFFSET_FETCH: &[Field] = &[
    field("group_id", Kind::Str).to(7),
    structs("topics", &OFFSET_FETCH_TOPIC).to(7).null_from(2),
    structs("groups", &OFFSET_FETCH_GROUP).from(8),
    field("require_stable", Kind::Bool).from(7),
];

const OFFSET_FETCH_TOPIC: Kind =
    Kind::Struct(&[field("name", Kind::Str), field("partition_indexes", Kind::Array(&Kind::I32))]);

const OFFSET_FETCH_GROUP: Kind = Kind::Struct(&[
    field("group_id", Kind::Str),
    field("member_id", Kind::Str).from(9).null_from(9),
    field("member_epoch", Kind::I32).from(9),
    structs("topics", &OFFSET_FETCH_GROUP_TOPIC).null_from(8),
]);

const OFFSET_FETCH_GROUP_TOPIC: Kind = Kind::Struct(&[
    field("name", Kind::Str).to(9),
    field("topic_id", Kind::Uuid).from(10),
    field("partition_indexes", Kind::Array(&Kind::I32)),
]);

/// FindCoordinator: one key up to version 3, several from version 4.
pub const FIND_COORDINATOR: &[Field] = &[
    field("key", Kind::Str).to(3),
    field("key_type", Kind::I8).from(1),
    field("coordinator_keys", Kind::Array(&Kind::Str)).from(4),
];

/// JoinGroup.
pub const JOIN_GROUP: &[Field] = &[
    field("group_id", Kind::Str),
    field("session_timeout_ms", Kind::I32),
    field("rebalance_timeout_ms", Kind::I32).from(1),
    field("member_id", Kind::Str),
    field("group_instance_id", Kind::Str).from(5).null_from(5),
    field("protocol_type", Kind::Str),
    structs("protocols", &JOIN_GROUP_PROTOCOL),
    field("reason", Kind::Str).from(8).null_from(8),
];

const JOIN_GROUP_PROTOCOL: Kind = Kind::Struct(&[field("name", Kind::Str), field("metadata", Kind::Bytes)]);

/// Heartbeat.
pub const HEARTBEAT: &[Field] = &[
    field("group_id", Kind::Str),
    field("generation_id", Kind::I32),
    field("member_id", Kind::Str),
    field("group_instance_id", Kind::Str).from(3).null_from(3),
];

/// LeaveGroup: one member up to version 2, several from version 3.
pub const LEAVE_GROUP: &[Field] = &[
    field("group_id", Kind::Str),
    field("member_id", Kind::Str).to(2),
    structs("members", &LEAVE_GROUP_MEMBER).from(3),
];

const LEAVE_GROUP_MEMBER: Kind = Kind::Struct(&[
    field("member_id", Kind::Str),
    field("group_instance_id", Kind::Str).null_from(3),
    field("reason", Kind::Str).from(5).null_from(5),
]);

/// SyncGroup.
pub const SYNC_GROUP: &[Field] = &[
    field("group_id", Kind::Str),
    field("generation_id", Kind::I32),
    field("member_id", Kind::Str),
    field("group_instance_id", Kind::Str).from(3).null_from(3),
    field("protocol_type", Kind::Str).from(5).null_from(5),
    field("protocol_name", Kind::Str).from(5).null_from(5),
    structs("assignments", &SYNC_GROUP_ASSIGNMENT),
];

const SYNC_GROUP_ASSIGNMENT: Kind =
    Kind::Struct(&[field("member_id", Kind::Str), field("assignment", Kind::Bytes)]);

/// DescribeGroups.
pub const DESCRIBE_GROUPS: &[Field] =
    &[field("groups", Kind::Array(&Kind::Str)), field("include_authorized_operations", Kind::Bool).from(3)];

/// ListGroups.
pub const LIST_GROUPS: &[Field] = &[
    field("states_filter", Kind::Array(&Kind::Str)).from(4),
    field("types_filter", Kind::Array(&Kind::Str)).from(5),
];

/// DeleteGroups.
pub const DELETE_GROUPS: &[Field] = &[field("groups_names", Kind::Array(&Kind::Str))];

/// OffsetDelete.
pub const OFFSET_DELETE: &[Field] = &[field("group_id", Kind::Str), structs("topics", &OFFSET_DELETE_TOPIC)];

const OFFSET_DELETE_TOPIC: Kind =
    Kind::Struct(&[field("name", Kind::Str), structs("partitions", &OFFSET_DELETE_PARTITION)]);

const OFFSET_DELETE_PARTITION: Kind = Kind::Struct(&[field("partition_index", Kind::I32)]);
