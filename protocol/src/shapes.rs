//! The shapes of all bodies, requests and responses: one table that says which field of which kind is there in which version.
//!
//! The table is data, not code: [`crate::walk`] checks a body against it before any decoder may allocate from it, and
//! [`crate::sample`] writes bodies from it, good ones and hostile ones, so a field that is wrong here is found by both.

use crate::api::ApiKey;

pub mod admin;
pub mod cluster;
pub mod data;
pub mod groups;
pub mod responses;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// One byte, zero or not.
    Bool,
    /// A signed byte.
    I8,
    /// A big-endian `i16`.
    I16,
    /// A big-endian `i32`.
    I32,
    /// A big-endian `i64`.
    I64,
    /// Sixteen bytes.
    Uuid,
    /// A length of 16 bits (compact: varint of length + 1) and UTF-8.
    Str,
    /// A length of 32 bits (compact: varint of length + 1) and bytes.
    Bytes,
    /// As `Bytes`; record batches inside.
    Records,
    /// A count of 32 bits (compact: varint of count + 1) and elements of one kind.
    Array(&'static Kind),
    /// Fields in order, then, in flexible versions, tagged fields.
    Struct(&'static [Field]),
}

/// One field: its kind and the versions that have it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field {
    /// Kafka's name, for errors.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// First version that has it.
    pub from: i16,
    /// Last version that has it, inclusive.
    pub to: i16,
    /// First version in which it may be null.
    pub null_from: i16,
    /// The tag, for a field that is in the tagged section instead of in its place.
    pub tag: Option<u32>,
}

/// A field of every version, never null.
pub const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, from: 0, to: i16::MAX, null_from: i16::MAX, tag: None }
}

/// An array of structures.
pub const fn structs(name: &'static str, kind: &'static Kind) -> Field {
    field(name, Kind::Array(kind))
}

impl Field {
    /// In this version and later.
    pub const fn from(self, version: i16) -> Field {
        Field { from: version, ..self }
    }

    /// In this version and earlier.
    pub const fn to(self, version: i16) -> Field {
        Field { to: version, ..self }
    }

    /// May be null in this version and later.
    pub const fn null_from(self, version: i16) -> Field {
        Field { null_from: version, ..self }
    }

    /// In the tagged section, under this tag.
    pub const fn tagged(self, tag: u32) -> Field {
        Field { tag: Some(tag), ..self }
    }

    /// Whether this version has the field.
    pub fn is_in(&self, version: i16) -> bool {
        (self.from..=self.to).contains(&version)
    }

    /// Whether the field may be null in this version.
    pub fn may_be_null(&self, version: i16) -> bool {
        version >= self.null_from
    }
}

impl Kind {
    /// Whether every value takes the same number of bytes and decodes into no more than them.
    pub fn is_fixed(&self) -> bool {
        matches!(self, Kind::Bool | Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 | Kind::Uuid)
    }

    /// The least number of bytes a value takes; always above zero.
    pub fn bytes_min(&self, version: i16, flexible: bool) -> usize {
        match self {
            Kind::Bool | Kind::I8 => 1,
            Kind::I16 => 2,
            Kind::I32 => 4,
            Kind::I64 => 8,
            Kind::Uuid => 16,
            Kind::Str | Kind::Bytes | Kind::Records | Kind::Array(_) if flexible => 1,
            Kind::Str => 2,
            Kind::Bytes | Kind::Records | Kind::Array(_) => 4,
            Kind::Struct(fields) => {
                let in_place = fields.iter().filter(|field| field.tag.is_none() && field.is_in(version));
                let sum: usize = in_place.map(|field| field.kind.bytes_min(version, flexible)).sum();
                sum + usize::from(flexible)
            }
        }
    }
}

/// The fields of a request body.
pub fn request(key: ApiKey) -> &'static [Field] {
    match key {
        ApiKey::Produce => data::PRODUCE,
        ApiKey::Fetch => data::FETCH,
        ApiKey::ListOffsets => data::LIST_OFFSETS,
        ApiKey::Metadata => admin::METADATA,
        ApiKey::OffsetCommit => groups::OFFSET_COMMIT,
        ApiKey::OffsetFetch => groups::OFFSET_FETCH,
        ApiKey::FindCoordinator => groups::FIND_COORDINATOR,
        ApiKey::JoinGroup => groups::JOIN_GROUP,
        ApiKey::Heartbeat => groups::HEARTBEAT,
        ApiKey::LeaveGroup => groups::LEAVE_GROUP,
        ApiKey::SyncGroup => groups::SYNC_GROUP,
        ApiKey::DescribeGroups => groups::DESCRIBE_GROUPS,
        ApiKey::ListGroups => groups::LIST_GROUPS,
        ApiKey::ApiVersions => admin::API_VERSIONS,
        ApiKey::CreateTopics => admin::CREATE_TOPICS,
        ApiKey::DeleteTopics => admin::DELETE_TOPICS,
        ApiKey::InitProducerId => data::INIT_PRODUCER_ID,
        ApiKey::OffsetForLeaderEpoch => data::OFFSET_FOR_LEADER_EPOCH,
        ApiKey::DescribeConfigs => admin::DESCRIBE_CONFIGS,
        ApiKey::DeleteGroups => groups::DELETE_GROUPS,
        ApiKey::IncrementalAlterConfigs => admin::INCREMENTAL_ALTER_CONFIGS,
        ApiKey::OffsetDelete => groups::OFFSET_DELETE,
        ApiKey::DescribeCluster => admin::DESCRIBE_CLUSTER,
        ApiKey::DescribeLogDirs => cluster::request::DESCRIBE_LOG_DIRS,
        ApiKey::CreatePartitions => cluster::request::CREATE_PARTITIONS,
        ApiKey::ElectLeaders => cluster::request::ELECT_LEADERS,
        ApiKey::AlterPartitionReassignments => cluster::request::ALTER_PARTITION_REASSIGNMENTS,
        ApiKey::ListPartitionReassignments => cluster::request::LIST_PARTITION_REASSIGNMENTS,
        ApiKey::DescribeQuorum => cluster::request::DESCRIBE_QUORUM,
        ApiKey::UpdateFeatures => cluster::request::UPDATE_FEATURES,
        ApiKey::UnregisterBroker => cluster::request::UNREGISTER_BROKER,
    }
}

/// The fields of a response body.
pub fn response(key: ApiKey) -> &'static [Field] {
    match key {
        ApiKey::Produce => responses::PRODUCE,
        ApiKey::Fetch => responses::FETCH,
        ApiKey::ListOffsets => responses::LIST_OFFSETS,
        ApiKey::Metadata => responses::METADATA,
        ApiKey::OffsetCommit => responses::OFFSET_COMMIT,
        ApiKey::OffsetFetch => responses::OFFSET_FETCH,
        ApiKey::FindCoordinator => responses::FIND_COORDINATOR,
        ApiKey::JoinGroup => responses::JOIN_GROUP,
        ApiKey::Heartbeat => responses::HEARTBEAT,
        ApiKey::LeaveGroup => responses::LEAVE_GROUP,
        ApiKey::SyncGroup => responses::SYNC_GROUP,
        ApiKey::DescribeGroups => responses::DESCRIBE_GROUPS,
        ApiKey::ListGroups => responses::LIST_GROUPS,
        ApiKey::ApiVersions => responses::API_VERSIONS,
        ApiKey::CreateTopics => responses::CREATE_TOPICS,
        ApiKey::DeleteTopics => responses::DELETE_TOPICS,
        ApiKey::InitProducerId => responses::INIT_PRODUCER_ID,
        ApiKey::OffsetForLeaderEpoch => responses::OFFSET_FOR_LEADER_EPOCH,
        ApiKey::DescribeConfigs => responses::DESCRIBE_CONFIGS,
        ApiKey::DeleteGroups => responses::DELETE_GROUPS,
        ApiKey::IncrementalAlterConfigs => responses::INCREMENTAL_ALTER_CONFIGS,
        ApiKey::OffsetDelete => responses::OFFSET_DELETE,
        ApiKey::DescribeCluster => responses::DESCRIBE_CLUSTER,
        ApiKey::DescribeLogDirs => cluster::response::DESCRIBE_LOG_DIRS,
        ApiKey::CreatePartitions => cluster::response::CREATE_PARTITIONS,
        ApiKey::ElectLeaders => cluster::response::ELECT_LEADERS,
        ApiKey::AlterPartitionReassignments => cluster::response::ALTER_PARTITION_REASSIGNMENTS,
        ApiKey::ListPartitionReassignments => cluster::response::LIST_PARTITION_REASSIGNMENTS,
        ApiKey::DescribeQuorum => cluster::response::DESCRIBE_QUORUM,
        ApiKey::UpdateFeatures => cluster::response::UPDATE_FEATURES,
        ApiKey::UnregisterBroker => cluster::response::UNREGISTER_BROKER,
    }
}
