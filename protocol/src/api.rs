//! THE table of what is served: every API with its version range, and the first version with flexible encoding.
//!
//! ApiVersions advertises exactly this table, dispatch admits exactly this table, and the shapes in
//! [`crate::shapes`] cover exactly this table (a test holds them together). What is not here is not advertised.
//! Ranges are Kafka 4.3's, full and contiguous: clients that negotiate nothing send whatever a release had.

/// The APIs of the table, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
#[expect(missing_docs, reason = "the variants are Kafka's own names")]
pub enum ApiKey {
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    Metadata = 3,
    OffsetCommit = 8,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    LeaveGroup = 13,
    SyncGroup = 14,
    DescribeGroups = 15,
    ListGroups = 16,
    ApiVersions = 18,
    CreateTopics = 19,
    DeleteTopics = 20,
    InitProducerId = 22,
    OffsetForLeaderEpoch = 23,
    DescribeConfigs = 32,
    DescribeLogDirs = 35,
    CreatePartitions = 37,
    DeleteGroups = 42,
    ElectLeaders = 43,
    IncrementalAlterConfigs = 44,
    AlterPartitionReassignments = 45,
    ListPartitionReassignments = 46,
    OffsetDelete = 47,
    DescribeQuorum = 55,
    UpdateFeatures = 57,
    DescribeCluster = 60,
    UnregisterBroker = 64,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// Which API.
    pub key: ApiKey,
    /// Kafka's name for it.
    pub name: &'static str,
    /// Lowest advertised version.
    pub min: i16,
    /// Lowest version that is understood; below it a request ends its connection, as it does in Kafka. Differs from `min`
    /// for Produce alone, where librdkafka stops compressing unless the range starts at 0 (KAFKA-18659).
    pub served_min: i16,
    /// Highest version, advertised and served.
    pub max: i16,
    /// First version with compact lengths and tagged fields (KIP-482); `None` if no version has them.
    pub flexible_from: Option<i16>,
}

/// Every API that is served, by key.
pub const APIS: [Api; 31] = [
    Api { served_min: 3, ..row(ApiKey::Produce, "Produce", 0, 13, 9) },
    row(ApiKey::Fetch, "Fetch", 4, 18, 12),
    row(ApiKey::ListOffsets, "ListOffsets", 1, 11, 6),
    row(ApiKey::Metadata, "Metadata", 0, 13, 9),
    row(ApiKey::OffsetCommit, "OffsetCommit", 2, 10, 8),
    row(ApiKey::OffsetFetch, "OffsetFetch", 1, 10, 6),
    row(ApiKey::FindCoordinator, "FindCoordinator", 0, 6, 3),
    row(ApiKey::JoinGroup, "JoinGroup", 0, 9, 6),
    row(ApiKey::Heartbeat, "Heartbeat", 0, 4, 4),
    row(ApiKey::LeaveGroup, "LeaveGroup", 0, 5, 4),
    row(ApiKey::SyncGroup, "SyncGroup", 0, 5, 4),
    row(ApiKey::DescribeGroups, "DescribeGroups", 0, 6, 5),
    row(ApiKey::ListGroups, "ListGroups", 0, 5, 3),
    row(ApiKey::ApiVersions, "ApiVersions", 0, 4, 3),
    row(ApiKey::CreateTopics, "CreateTopics", 2, 7, 5),
    row(ApiKey::DeleteTopics, "DeleteTopics", 1, 6, 4),
    // Version 6 exists as an unstable one (two-phase commit); Kafka does not advertise it either.
    row(ApiKey::InitProducerId, "InitProducerId", 0, 5, 2),
    row(ApiKey::OffsetForLeaderEpoch, "OffsetForLeaderEpoch", 2, 4, 4),
    row(ApiKey::DescribeConfigs, "DescribeConfigs", 1, 4, 4),
    // Kafka 4.3 has version 5 too, which tells of directories that are cordoned off: there are none.
    row(ApiKey::DescribeLogDirs, "DescribeLogDirs", 1, 4, 2),
    row(ApiKey::CreatePartitions, "CreatePartitions", 0, 3, 2),
    row(ApiKey::DeleteGroups, "DeleteGroups", 0, 2, 2),
    row(ApiKey::ElectLeaders, "ElectLeaders", 0, 2, 2),
    row(ApiKey::IncrementalAlterConfigs, "IncrementalAlterConfigs", 0, 1, 1),
    row(ApiKey::AlterPartitionReassignments, "AlterPartitionReassignments", 0, 1, 0),
    row(ApiKey::ListPartitionReassignments, "ListPartitionReassignments", 0, 0, 0),
    Api { flexible_from: None, ..row(ApiKey::OffsetDelete, "OffsetDelete", 0, 0, 0) },
    row(ApiKey::DescribeQuorum, "DescribeQuorum", 0, 2, 0),
    row(ApiKey::UpdateFeatures, "UpdateFeatures", 0, 2, 0),
    row(ApiKey::DescribeCluster, "DescribeCluster", 0, 2, 0),
    row(ApiKey::UnregisterBroker, "UnregisterBroker", 0, 0, 0),
];

const fn row(key: ApiKey, name: &'static str, min: i16, max: i16, flexible_from: i16) -> Api {
    Api { key, name, min, served_min: min, max, flexible_from: Some(flexible_from) }
}

/// Looks a wire key up in the table.
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key as i16).ok().map(|at| &APIS[at])
}

impl Api {
    /// Whether requests of this version are understood.
    pub fn serves(&self, version: i16) -> bool {
        (self.served_min..=self.max).contains(&version)
    }

    /// Whether this version has compact lengths and tagged fields.
    pub fn is_flexible(&self, version: i16) -> bool {
        self.flexible_from.is_some_and(|from| version >= from)
    }

    /// The version of the header in front of a request of this version.
    pub fn request_header_version(&self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the header in front of a response of this version.
    ///
    /// ApiVersions answers with header 0 always: a client that does not yet know what the broker speaks must be able
    /// to read the refusal (KIP-511).
    pub fn response_header_version(&self, version: i16) -> i16 {
        i16::from(self.is_flexible(version) && self.key != ApiKey::ApiVersions)
    }
}

impl ApiKey {
    /// This key's row.
    pub fn api(self) -> &'static Api {
        find(self as i16).expect("every ApiKey has a row")
    }

    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        self.api().name
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_every_key_finds_its_own() {
        assert!(APIS.windows(2).all(|pair| pair[0].key < pair[1].key));
        for api in &APIS {
            assert_eq!(api.key.api(), api);
            assert_eq!(format!("{:?}", api.key), api.name);
            assert!(0 <= api.min && api.min <= api.served_min && api.served_min <= api.max);
        }
        for absent in [-1, 4, 17, 21, 24, 61, i16::MAX] {
            assert_eq!(find(absent), None);
        }
    }

    #[test]
    fn only_produce_advertises_more_than_it_serves() {
        let wider: Vec<_> = APIS.iter().filter(|api| api.min != api.served_min).map(|api| api.key).collect();
        assert_eq!(wider, [ApiKey::Produce]);
        assert!(!ApiKey::Produce.api().serves(2) && ApiKey::Produce.api().serves(3));
    }

    #[test]
    fn headers_follow_flexibility_except_for_api_versions() {
        let versions = |key: ApiKey, version| {
            let api = key.api();
            (api.request_header_version(version), api.response_header_version(version))
        };
        assert_eq!(versions(ApiKey::Produce, 8), (1, 0));
        assert_eq!(versions(ApiKey::Produce, 9), (2, 1));
        assert_eq!(versions(ApiKey::ApiVersions, 2), (1, 0));
        assert_eq!(versions(ApiKey::ApiVersions, 3), (2, 0));
        assert_eq!(versions(ApiKey::ApiVersions, 99), (2, 0));
        assert_eq!(versions(ApiKey::OffsetDelete, 0), (1, 0));
        assert_eq!(versions(ApiKey::DescribeCluster, 0), (2, 1));
    }
}
