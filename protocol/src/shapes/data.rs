//! Shapes of the requests about records and their offsets.

use super::{Field, Kind, field, structs};

/// Produce.
pub const PRODUCE: &[Field] = &[
    field("transactional_id", Kind::Str).from(3).null_from(3),
    field("acks", Kind::I16),
    field("timeout_ms", Kind::I32),
    structs("topic_data", &PRODUCE_TOPIC),
];

const PRODUCE_TOPIC: Kind = Kind::Struct(&[
    field("name", Kind::Str).to(12),
    field("topic_id", Kind::Uuid).from(13),
    structs("partition_data", &PRODUCE_PARTITION),
]);

const PRODUCE_PARTITION: Kind =
    Kind::Struct(&[field("index", Kind::I32), field("records", Kind::Records).null_from(0)]);

/// Fetch.
pub const FETCH: &[Field] = &[
    field("cluster_id", Kind::Str).from(12).null_from(12).tagged(0),
    field("replica_id", Kind::I32).to(14),
    field("replica_state", FETCH_REPLICA_STATE).from(15).tagged(1),
    field("max_wait_ms", Kind::I32),
    field("min_bytes", Kind::I32),
    field("max_bytes", Kind::I32).from(3),
    field("isolation_level", Kind::I8).from(4),
    field("session_id", Kind::I32).from(7),
    field("session_epoch", Kind::I32).from(7),
    structs("topics", &FETCH_TOPIC),
    structs("forgotten_topics_data", &FETCH_FORGOTTEN_TOPIC).from(7),
    field("rack_id", Kind::Str).from(11),
];

const FETCH_REPLICA_STATE: Kind =
    Kind::Struct(&[field("replica_id", Kind::I32), field("replica_epoch", Kind::I64)]);

const FETCH_TOPIC: Kind = Kind::Struct(&[
    field("topic", Kind::Str).to(12),
    field("topic_id", Kind::Uuid).from(13),
    structs("partitions", &FETCH_PARTITION),
]);

const FETCH_PARTITION: Kind = Kind::Struct(&[
    field("partition", Kind::I32),
    field("current_leader_epoch", Kind::I32).from(9),
    field("fetch_offset", Kind::I64),
    field("last_fetched_epoch", Kind::I32).from(12),
    field("log_start_offset", Kind::I64).from(5),
    field("partition_max_bytes", Kind::I32),
    field("replica_directory_id", Kind::Uuid).from(17).tagged(0),
    field("high_watermark", Kind::I64).from(18).tagged(1),
]);

const FETCH_FORGOTTEN_TOPIC: Kind = Kind::Struct(&[
    field("topic", Kind::Str).to(12),
    field("topic_id", Kind::Uuid).from(13),
    field("partitions", Kind::Array(&Kind::I32)),
]);

/// ListOffsets. Version 11 adds a special timestamp and no field.
pub const LIST_OFFSETS: &[Field] = &[
    field("replica_id", Kind::I32),
    field("isolation_level", Kind::I8).from(2),
    structs("topics", &LIST_OFFSETS_TOPIC),
    field("timeout_ms", Kind::I32).from(10),
];

const LIST_OFFSETS_TOPIC: Kind =
    Kind::Struct(&[field("name", Kind::Str), structs("partitions", &LIST_OFFSETS_PARTITION)]);

const LIST_OFFSETS_PARTITION: Kind = Kind::Struct(&[
    field("partition_index", Kind::I32),
    field("current_leader_epoch", Kind::I32).from(4),
    field("timestamp", Kind::I64),
]);

/// InitProducerId.
pub const INIT_PRODUCER_ID: &[Field] = &[
    field("transactional_id", Kind::Str).null_from(0),
    field("transaction_timeout_ms", Kind::I32),
    field("producer_id", Kind::I64).from(3),
    field("producer_epoch", Kind::I16).from(3),
];

/// OffsetForLeaderEpoch.
pub const OFFSET_FOR_LEADER_EPOCH: &[Field] =
    &[field("replica_id", Kind::I32).from(3), structs("topics", &OFFSET_FOR_LEADER_EPOCH_TOPIC)];

const OFFSET_FOR_LEADER_EPOCH_TOPIC: Kind =
    Kind::Struct(&[field("topic", Kind::Str), structs("partitions", &OFFSET_FOR_LEADER_EPOCH_PARTITION)]);

const OFFSET_FOR_LEADER_EPOCH_PARTITION: Kind = Kind::Struct(&[
    field("partition", Kind::I32),
    field("current_leader_epoch", Kind::I32).from(2),
    field("leader_epoch", Kind::I32),
]);
