//! The table of shapes against its judges: kafka-protocol's codecs say what a body is, the walk must agree with them on
//! every good one, and refuse every truncated or hostile one before they see it.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiKey as TheirKey;
use kafka_protocol::protocol::{Decodable, Encodable, Message};
use ouzel_protocol::api::{self, APIS, Api, ApiKey};
use ouzel_protocol::header::RequestHeader;
use ouzel_protocol::messages::{decode_request, decode_response, encode_request, encode_response, kafka};
use ouzel_protocol::reader::Malformed;
use ouzel_protocol::sample::{self, Fill, Sample};
use ouzel_protocol::shapes::{self, Field};
use ouzel_protocol::walk::{walk_fields, walk_request, walk_response};

const FILLS: [Fill; 9] = [
    Fill::Least,
    Fill::Most,
    Fill::Foreign,
    Fill::Random,
    Fill::Random,
    Fill::Random,
    Fill::Random,
    Fill::Random,
    Fill::Random,
];

/// Calls `check` with samples of every served version of every API.
fn each_sample(mut check: impl FnMut(&'static Api, i16, Fill, Sample)) {
    let mut random = sample::sequence(7);
    for api in &APIS {
        for version in api.served_min..=api.max {
            for fill in FILLS {
                check(api, version, fill, sample::request(api, version, fill, &mut random));
            }
        }
    }
}

/// Decodes with the crate's codec to the last byte and encodes again; `None` where the crate lacks the version.
fn through_kafka_protocol(api: &Api, version: i16, body: &[u8]) -> Option<Bytes> {
    macro_rules! through {
        ($($key:ident: $message:ident),* $(,)?) => {
            match api.key {
                $(ApiKey::$key => {
                    // The crate ends at ListOffsets 10; version 11 has the same fields.
                    let version = if api.key == ApiKey::ListOffsets { version.min(10) } else { version };
                    if version > kafka::$message::VERSIONS.max {
                        return None;
                    }
                    let mut read = Bytes::copy_from_slice(body);
                    let message = kafka::$message::decode(&mut read, version).unwrap();
                    assert!(read.is_empty(), "{} v{version}: {} bytes left over", api.name, read.len());
                    let mut written = BytesMut::new();
                    message.encode(&mut written, version).unwrap();
                    Some(written.freeze())
                })*
            }
        };
    }
    through!(
        Produce: ProduceRequest, Fetch: FetchRequest, ListOffsets: ListOffsetsRequest,
        Metadata: MetadataRequest, OffsetCommit: OffsetCommitRequest, OffsetFetch: OffsetFetchRequest,
        FindCoordinator: FindCoordinatorRequest, JoinGroup: JoinGroupRequest, Heartbeat: HeartbeatRequest,
        LeaveGroup: LeaveGroupRequest, SyncGroup: SyncGroupRequest, DescribeGroups: DescribeGroupsRequest,
        ListGroups: ListGroupsRequest, ApiVersions: ApiVersionsRequest, CreateTopics: CreateTopicsRequest,
        DeleteTopics: DeleteTopicsRequest, InitProducerId: InitProducerIdRequest,
        OffsetForLeaderEpoch: OffsetForLeaderEpochRequest, DescribeConfigs: DescribeConfigsRequest,
        DeleteGroups: DeleteGroupsRequest, IncrementalAlterConfigs: IncrementalAlterConfigsRequest,
        OffsetDelete: OffsetDeleteRequest, DescribeCluster: DescribeClusterRequest,
        DescribeLogDirs: DescribeLogDirsRequest, CreatePartitions: CreatePartitionsRequest,
        ElectLeaders: ElectLeadersRequest,
        AlterPartitionReassignments: AlterPartitionReassignmentsRequest,
        ListPartitionReassignments: ListPartitionReassignmentsRequest,
        DescribeQuorum: DescribeQuorumRequest,
        UpdateFeatures: UpdateFeaturesRequest,
        UnregisterBroker: UnregisterBrokerRequest,
    )
}

#[test]
fn what_the_table_writes_is_what_kafka_protocol_reads_and_writes() {
    let mut lacking = BTreeSet::new();
    each_sample(|api, version, fill, sample| {
        let Some(written) = through_kafka_protocol(api, version, &sample.body) else {
            lacking.insert((api.name, version));
            return;
        };
        assert_eq!(&written[..], &sample.body[..], "{} v{version} {fill:?}", api.name);
        walk_request(api, version, &written).unwrap_or_else(|error| panic!("{fill:?}: {error}"));
    });
    assert_eq!(Vec::from_iter(lacking), [("OffsetCommit", 10), ("OffsetFetch", 10)]);
}

#[test]
fn what_the_table_writes_is_what_we_read_and_write() {
    each_sample(|api, version, fill, sample| {
        let request = decode_request(api, version, Bytes::from(sample.body.clone())).unwrap();
        assert_eq!(request.api_key(), api.key);
        // Decoders of our own drop tagged fields that nobody knows.
        if fill != Fill::Foreign {
            let header = RequestHeader { api, version, correlation_id: 1, client_id: None };
            let frame = encode_request(&header, &request).unwrap().into_bytes();
            assert!(frame.ends_with(&sample.body), "{} v{version} {fill:?}", api.name);
        }
    });
}

/// Every field of the table must matter to the test above: without it, some sample no longer walks.
#[test]
fn a_table_that_lacks_a_field_is_caught() {
    for api in &APIS {
        let fields = shapes::request(api.key);
        for dropped in 0..fields.len() {
            let mut rest = fields.to_vec();
            let field = rest.remove(dropped);
            if field.tag.is_some() {
                // A tagged field that the table lacks is stepped over like a foreign one.
                continue;
            }
            let rest: &'static [Field] = rest.leak();
            let mut random = sample::sequence(11);
            let caught = (api.served_min..=api.max).any(|version| {
                let body = Bytes::from(sample::request(api, version, Fill::Most, &mut random).body);
                walk_fields(rest, version, api.is_flexible(version), &body).is_err()
            });
            assert!(caught, "{} without {}", api.name, field.name);
        }
    }
}

#[test]
fn no_truncated_body_walks_or_decodes() {
    each_sample(|api, version, fill, sample| {
        for end in 0..sample.body.len() {
            let body = Bytes::copy_from_slice(&sample.body[..end]);
            assert!(walk_request(api, version, &body).is_err(), "{} v{version} {fill:?} to {end}", api.name);
            assert!(decode_request(api, version, body).is_err());
        }
    });
}

/// librdkafka 2.12 and later send three stray bytes behind a flexible Metadata request for all topics (it reserves four
/// bytes for an array length that takes one). Kafka reads over them; refusing them cost every such client its connection.
#[test]
fn bytes_behind_a_request_are_read_over_but_the_table_ends_where_the_message_does() {
    each_sample(|api, version, _, sample| {
        let body = Bytes::from([&sample.body[..], &[0xa5, 0, 0]].concat());
        assert!(walk_request(api, version, &body).is_ok());
        let exact = Bytes::from(sample.body.clone());
        assert_eq!(decode_request(api, version, body.clone()), decode_request(api, version, exact));
        let fields = shapes::request(api.key);
        let (_, condition) = walk_fields(fields, version, api.is_flexible(version), &body).unwrap_err();
        assert_eq!(condition, Malformed::Trailing { at: sample.body.len(), left: 3 });
    });
}

/// The hostile inputs that `accepts` lets through.
fn hostile_that_pass(accepts: impl Fn(&'static Api, i16, &Bytes) -> bool) -> Vec<String> {
    let mut passed = Vec::new();
    each_sample(|api, version, fill, sample| {
        for (length, body) in sample.hostile() {
            if accepts(api, version, &Bytes::from(body)) {
                passed.push(format!("{} v{version} {fill:?} {length:?}", api.name));
            }
        }
    });
    passed
}

#[test]
fn every_lying_length_is_refused() {
    assert_eq!(hostile_that_pass(|api, version, body| walk_request(api, version, body).is_ok()), [""; 0]);
    assert_eq!(
        hostile_that_pass(|api, version, body| decode_request(api, version, body.clone()).is_ok()),
        [""; 0]
    );
}

/// The suite above must notice a walk that forgets one of its rules.
#[test]
fn a_walk_that_forgets_a_rule_is_caught() {
    let forgets = |forgotten: fn(&Malformed) -> bool| {
        hostile_that_pass(|api, version, body| {
            walk_request(api, version, body).err().is_none_or(|error| forgotten(&error.condition))
        })
    };
    assert!(!forgets(|condition| matches!(condition, Malformed::Count { .. })).is_empty());
    assert!(!forgets(|condition| matches!(condition, Malformed::Short { .. })).is_empty());
    assert!(!forgets(|condition| matches!(condition, Malformed::NegativeLength { .. })).is_empty());
    assert!(!forgets(|condition| matches!(condition, Malformed::Null { .. })).is_empty());
    assert!(!forgets(|condition| matches!(condition, Malformed::Varint { .. })).is_empty());
}

#[test]
fn elements_of_one_message_are_bounded_in_all() {
    // Metadata v1 with 2^18 + 1 empty names, each of which its two bytes would bound but not the whole.
    let count = (1 << 18) + 1;
    let body = Bytes::from([&(count as i32).to_be_bytes()[..], &vec![0; 2 * count]].concat());
    let error = walk_request(ApiKey::Metadata.api(), 1, &body).unwrap_err();
    assert!(matches!(error.condition, Malformed::Elements { .. }));
}

/// A response through the crate's codec and ours; nothing where the crate lacks the version.
fn response_through_kafka_protocol(api: &Api, version: i16, body: &[u8]) -> Bytes {
    macro_rules! through {
        ($($key:ident: $message:ident),* $(,)?) => {
            match api.key {
                $(ApiKey::$key => {
                    let version = version.min(kafka::$message::VERSIONS.max);
                    let mut read = Bytes::copy_from_slice(body);
                    let message = kafka::$message::decode(&mut read, version).unwrap();
                    assert!(read.is_empty(), "{} v{version}: {} bytes left over", api.name, read.len());
                    let mut written = BytesMut::new();
                    message.encode(&mut written, version).unwrap();
                    written.freeze()
                })*
            }
        };
    }
    through!(
        Produce: ProduceResponse, Fetch: FetchResponse, ListOffsets: ListOffsetsResponse,
        Metadata: MetadataResponse, OffsetCommit: OffsetCommitResponse, OffsetFetch: OffsetFetchResponse,
        FindCoordinator: FindCoordinatorResponse, JoinGroup: JoinGroupResponse, Heartbeat: HeartbeatResponse,
        LeaveGroup: LeaveGroupResponse, SyncGroup: SyncGroupResponse, DescribeGroups: DescribeGroupsResponse,
        ListGroups: ListGroupsResponse, ApiVersions: ApiVersionsResponse, CreateTopics: CreateTopicsResponse,
        DeleteTopics: DeleteTopicsResponse, InitProducerId: InitProducerIdResponse,
        OffsetForLeaderEpoch: OffsetForLeaderEpochResponse, DescribeConfigs: DescribeConfigsResponse,
        DeleteGroups: DeleteGroupsResponse, IncrementalAlterConfigs: IncrementalAlterConfigsResponse,
        OffsetDelete: OffsetDeleteResponse, DescribeCluster: DescribeClusterResponse,
        DescribeLogDirs: DescribeLogDirsResponse, CreatePartitions: CreatePartitionsResponse,
        ElectLeaders: ElectLeadersResponse,
        AlterPartitionReassignments: AlterPartitionReassignmentsResponse,
        ListPartitionReassignments: ListPartitionReassignmentsResponse,
        DescribeQuorum: DescribeQuorumResponse,
        UpdateFeatures: UpdateFeaturesResponse,
        UnregisterBroker: UnregisterBrokerResponse,
    )
}

fn each_response(mut check: impl FnMut(&'static Api, i16, Fill, Sample)) {
    let mut random = sample::sequence(8);
    for api in &APIS {
        for version in api.served_min..=api.max {
            for fill in FILLS {
                check(api, version, fill, sample::response(api, version, fill, &mut random));
            }
        }
    }
}

#[test]
fn responses_of_the_table_are_what_kafka_protocol_and_we_read_and_write() {
    each_response(|api, version, fill, sample| {
        let written = response_through_kafka_protocol(api, version, &sample.body);
        assert_eq!(&written[..], &sample.body[..], "{} v{version} {fill:?}", api.name);
        walk_response(api, version, &written).unwrap_or_else(|error| panic!("{fill:?}: {error}"));
        let response = decode_response(api, version, written).unwrap();
        assert_eq!(response.api_key(), api.key);
        if fill != Fill::Foreign {
            let frame = encode_response(version, 1, &response).unwrap().into_bytes();
            assert!(frame.ends_with(&sample.body), "{} v{version} {fill:?}", api.name);
        }
    });
}

#[test]
fn truncated_and_lying_responses_are_refused() {
    each_response(|api, version, fill, sample| {
        let truncated = (0..sample.body.len()).map(|end| (None, sample.body[..end].to_vec()));
        let hostile = sample.hostile().into_iter().map(|(length, body)| (Some(length), body));
        for (length, body) in truncated.chain(hostile) {
            let body = Bytes::from(body);
            assert!(
                walk_response(api, version, &body).is_err(),
                "{} v{version} {fill:?} {length:?}",
                api.name
            );
            assert!(decode_response(api, version, body).is_err(), "{} v{version} {length:?}", api.name);
        }
    });
}

#[test]
fn header_versions_are_theirs() {
    for api in &APIS {
        let theirs = TheirKey::try_from(api.key as i16).unwrap();
        for version in api.served_min..=api.max {
            // The crate's generated match ends at its own highest version.
            let known = version.min(theirs.valid_versions().max);
            assert_eq!(api.request_header_version(version), theirs.request_header_version(known));
            assert_eq!(api.response_header_version(version), theirs.response_header_version(known));
        }
    }
    assert_eq!(api::find(0).unwrap().name, "Produce");
}
