//! The field's nouns as types: ids, offsets, epochs, times, sizes and the record batch.
//!
//! Everything here is a value. This crate knows no disk, no socket, no clock and no wire message; a record batch is
//! here because wire and disk hold the very same bytes, and either room owning it would drag the other one in.
//!
//! Reading order: [`ids`], [`offset`], [`epoch`], [`entry`], [`time`], [`size`], then
//! [`batch`].
#![forbid(unsafe_code)]

pub mod batch;
pub mod entry;
pub mod epoch;
pub mod ids;
pub mod offset;
pub mod size;
pub mod time;

pub use entry::{EntryId, EntryIndex, ReplicaId};
pub use epoch::{LeaderEpoch, ProducerEpoch};
pub use ids::{
    GroupId, InvalidTopicName, NodeId, PartitionIndex, ProducerId, TopicId, TopicIdPartition, TopicName,
    TopicPartition, kafka_hash, partition_for_key,
};
pub use offset::Offset;
pub use time::TimestampMs;
