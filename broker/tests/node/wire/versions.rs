//! Every API in every version that is served gets an answer that reads in that version and says that all went well.

use std::collections::BTreeSet;

use bytes::Bytes;
use ouzel_model::TopicId;
use ouzel_protocol::api::APIS;
use ouzel_protocol::messages::fetch::{FetchRequest, FetchTopic};
use ouzel_protocol::messages::kafka::create_topics_request::CreatableTopic;
use ouzel_protocol::messages::kafka::delete_topics_request::DeleteTopicState;
use ouzel_protocol::messages::kafka::describe_configs_request::DescribeConfigsResource;
use ouzel_protocol::messages::kafka::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ouzel_protocol::messages::kafka::join_group_request::JoinGroupRequestProtocol;
use ouzel_protocol::messages::kafka::leave_group_request::MemberIdentity;
use ouzel_protocol::messages::kafka::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ouzel_protocol::messages::kafka::metadata_request::MetadataRequestTopic;
use ouzel_protocol::messages::kafka::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ouzel_protocol::messages::kafka::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ouzel_protocol::messages::kafka::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use ouzel_protocol::messages::kafka::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use ouzel_protocol::messages::kafka::sync_group_request::SyncGroupRequestAssignment;
use ouzel_protocol::messages::kafka::*;
use ouzel_protocol::messages::produce::{ProducePartition, ProduceRequest, ProduceTopic};
use ouzel_protocol::messages::{Call, kafka};
use ouzel_protocol::{ApiKey, ErrorCode, StrBytes, Uuid};

use crate::support::node::Node;
use crate::support::records::{batch, values};
use crate::support::wire::{Wire, fresh_name, from_offset, is_by_id, name, text};

/// Counts what was asked, so that at the end nothing of the table is missing.
pub(super) struct Asker {
    wire: Wire,
    asked: BTreeSet<(ApiKey, i16)>,
}

impl Asker {
    pub(super) fn call<C: Call>(&mut self, version: i16, request: C) -> C::Response {
        self.asked.insert((C::API, version));
        self.wire.call(version, request)
    }
}

/// Every served version of an API.
pub(super) fn versions(api: ApiKey) -> impl Iterator<Item = i16> {
    api.api().served_min..=api.api().max
}

/// The version of `api` nearest to `version`: one walk over all numbers meets every version of several APIs.
fn near(api: ApiKey, version: i16) -> i16 {
    version.clamp(api.api().served_min, api.api().max)
}

#[test]
fn every_served_version_of_every_api_is_answered_in_that_version() {
    let node = Node::start_with(1, &[("group.initial.rebalance.delay.ms", "0")]);
    let mut asker = Asker { wire: node.connect(), asked: BTreeSet::new() };
    let topic = fresh_name("versions");
    let id = asker.wire.create(&topic, 2, &[]);
    cluster(&mut asker);
    topics(&mut asker);
    settings(&mut asker, &topic);
    records(&mut asker, &topic, id);
    offsets(&mut asker, &topic);
    super::administration::in_every_version(&mut asker, &topic);
    for version in 0..=10 {
        group(&mut asker, version, &topic, id);
    }
    let served: BTreeSet<_> =
        APIS.iter().flat_map(|api| versions(api.key).map(|version| (api.key, version))).collect();
    assert_eq!(asker.asked, served);
}

fn cluster(asker: &mut Asker) {
    for version in versions(ApiKey::ApiVersions) {
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request = request.with_client_software_name(text("test")).with_client_software_version(text("1"));
        }
        let answer = asker.call(version, request);
        assert_eq!(answer.error_code, 0, "v{version}");
        for api in &APIS {
            let range = answer.api_keys.iter().find(|row| row.api_key == api.key as i16).unwrap();
            assert!(range.min_version <= api.min && range.max_version >= api.max, "{}: {range:?}", api.name);
        }
    }
    for version in versions(ApiKey::DescribeCluster) {
        let answer = asker.call(version, DescribeClusterRequest::default());
        assert_eq!((answer.error_code, answer.brokers.len()), (0, 1), "v{version}");
        assert!(!answer.cluster_id.is_empty() && answer.brokers[0].port > 0);
        assert_eq!(answer.brokers[0].broker_id, answer.controller_id);
    }
    for version in versions(ApiKey::FindCoordinator) {
        let group = fresh_name("versions-coordinator");
        let ask = |asker: &mut Asker| {
            let request = FindCoordinatorRequest::default();
            let answer = asker.call(
                version,
                if version >= 4 {
                    request.with_coordinator_keys(vec![text(&group)])
                } else {
                    request.with_key(text(&group))
                },
            );
            match answer.coordinators.first() {
                Some(found) => (found.error_code, found.port),
                None => (answer.error_code, answer.port),
            }
        };
        if ask(asker).0 == ErrorCode::CoordinatorNotAvailable.code() {
            asker.wire.await_coordinator(&group);
        }
        let (error, port) = ask(asker);
        assert_eq!(error, 0, "v{version}");
        assert!(port > 0);
    }
    for version in versions(ApiKey::InitProducerId) {
        let request =
            InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        let answer = asker.call(version, request);
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0), "v{version}");
        assert!(answer.producer_id.0 >= 0);
    }
}

fn topics(asker: &mut Asker) {
    for version in 1..=7 {
        let topic = fresh_name("versions-topic");
        let create = near(ApiKey::CreateTopics, version);
        let request = CreateTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![
            CreatableTopic::default()
                .with_name(name(&topic))
                .with_num_partitions(1)
                .with_replication_factor(1),
        ]);
        let created = asker.call(create, request).topics.remove(0);
        assert_eq!(created.error_code, 0, "CreateTopics v{create}: {:?}", created.error_message);
        assert_eq!(created.topic_id.is_nil(), create < 7);

        let delete = near(ApiKey::DeleteTopics, version);
        let request = DeleteTopicsRequest::default().with_timeout_ms(10_000);
        let request = if delete >= 6 {
            request.with_topics(vec![DeleteTopicState::default().with_name(Some(name(&topic)))])
        } else {
            request.with_topic_names(vec![name(&topic)])
        };
        let deleted = asker.call(delete, request).responses.remove(0);
        assert_eq!(deleted.error_code, 0, "DeleteTopics v{delete}");
    }
}

fn settings(asker: &mut Asker, topic: &str) {
    for version in versions(ApiKey::Metadata) {
        let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let mut answer = asker.call(version, MetadataRequest::default().with_topics(Some(vec![asked])));
        let described = answer.topics.remove(0);
        assert_eq!((described.error_code, described.partitions.len()), (0, 2), "Metadata v{version}");
        assert_eq!(described.topic_id.is_nil(), version < 10);
        assert!(described.partitions.iter().all(|p| p.leader_id == answer.brokers[0].node_id));
        assert_eq!(answer.cluster_id.is_some(), version >= 2);
    }
    for version in versions(ApiKey::DescribeConfigs) {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(topic))
            .with_configuration_keys(Some(vec![text("retention.ms")]));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let mut answer = asker.call(version, request);
        let described = answer.results.remove(0);
        assert_eq!((described.error_code, described.configs.len()), (0, 1), "DescribeConfigs v{version}");
        assert_eq!(described.configs[0].value.as_deref(), Some("604800000"));
    }
    for version in versions(ApiKey::IncrementalAlterConfigs) {
        let config =
            AlterableConfig::default().with_name(text("max.message.bytes")).with_value(Some(text("2000000")));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(topic))
            .with_configs(vec![config]);
        let answer =
            asker.call(version, IncrementalAlterConfigsRequest::default().with_resources(vec![resource]));
        assert_eq!(answer.responses[0].error_code, 0, "IncrementalAlterConfigs v{version}");
    }
}

fn records(asker: &mut Asker, topic: &str, id: TopicId) {
    let named = |api: ApiKey, version: i16| {
        if is_by_id(api, version) { (StrBytes::new(), id) } else { (text(topic), TopicId::ZERO) }
    };
    for (count, version) in versions(ApiKey::Produce).enumerate() {
        let (name, topic_id) = named(ApiKey::Produce, version);
        let records = Some(batch(&[&format!("v{version}")]).into());
        let partitions = vec![ProducePartition { index: 0, records }];
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 10_000,
            topics: vec![ProduceTopic { name, topic_id, partitions }],
            ..ProduceRequest::default()
        };
        let answer = asker.call(version, request).topics.remove(0);
        let stored = &answer.partitions[0];
        assert_eq!((stored.error_code, stored.base_offset), (0, count as i64), "Produce v{version}");
        assert_eq!(answer.topic_id, topic_id);
    }
    let produced: Vec<_> = versions(ApiKey::Produce).map(|version| format!("v{version}")).collect();
    for version in versions(ApiKey::Fetch) {
        let (name, topic_id) = named(ApiKey::Fetch, version);
        let request = FetchRequest {
            max_bytes: 1 << 20,
            topics: vec![FetchTopic { name, topic_id, partitions: vec![from_offset(0, 0)] }],
            ..FetchRequest::default()
        };
        let answer = asker.call(version, request);
        assert_eq!(answer.error_code, 0, "Fetch v{version}");
        assert_eq!(values(&answer.topics[0].partitions[0]), produced, "Fetch v{version}");
        assert_eq!(answer.topics[0].topic_id, topic_id);
    }
}

fn offsets(asker: &mut Asker, topic: &str) {
    for version in versions(ApiKey::ListOffsets) {
        let partition = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(-1);
        let asked = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
        let found = asker.call(version, request).topics.remove(0).partitions.remove(0);
        assert_eq!((found.error_code, found.offset), (0, 11), "ListOffsets v{version}");
    }
    for version in versions(ApiKey::OffsetForLeaderEpoch) {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(-1)
            .with_leader_epoch(10_000);
        let asked = OffsetForLeaderTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
        let mut request = OffsetForLeaderEpochRequest::default().with_topics(vec![asked]);
        if version >= 3 {
            request = request.with_replica_id(BrokerId(-1));
        }
        let found = asker.call(version, request).topics.remove(0).partitions.remove(0);
        assert_eq!((found.error_code, found.end_offset), (0, -1), "OffsetForLeaderEpoch v{version}");
    }
}

/// One group through its life, everything in the versions nearest to one number.
fn group(asker: &mut Asker, number: i16, topic: &str, id: TopicId) {
    let group = fresh_name("versions-group");
    let group_id = || kafka::GroupId(text(&group));
    asker.wire.await_coordinator(&group);

    let version = near(ApiKey::JoinGroup, number);
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"meta"));
    let join = JoinGroupRequest::default()
        .with_group_id(group_id())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(if version >= 1 { 10_000 } else { -1 })
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let mut joined = asker.call(version, join.clone());
    if version >= 4 {
        assert_eq!(joined.error_code, ErrorCode::MemberIdRequired.code(), "JoinGroup v{version}");
        joined = asker.call(version, join.with_member_id(joined.member_id));
    }
    assert_eq!(joined.error_code, 0, "JoinGroup v{version}");
    assert_eq!((&joined.leader, joined.members.len()), (&joined.member_id, 1));
    let (member, generation) = (joined.member_id, joined.generation_id);

    let version = near(ApiKey::SyncGroup, number);
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(member.clone())
        .with_assignment(Bytes::from_static(b"all of it"));
    let mut sync = SyncGroupRequest::default()
        .with_group_id(group_id())
        .with_generation_id(generation)
        .with_member_id(member.clone())
        .with_assignments(vec![assignment]);
    if version >= 5 {
        sync = sync.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")));
    }
    let synced = asker.call(version, sync);
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all of it"[..]), "SyncGroup v{version}");

    let version = near(ApiKey::Heartbeat, number);
    let heartbeat = HeartbeatRequest::default()
        .with_group_id(group_id())
        .with_generation_id(generation)
        .with_member_id(member.clone());
    assert_eq!(asker.call(version, heartbeat).error_code, 0, "Heartbeat v{version}");

    commit(asker, near(ApiKey::OffsetCommit, number), &group, (member.clone(), generation), (topic, id));
    assert_eq!(
        committed(asker, near(ApiKey::OffsetFetch, number), &group, (topic, id)),
        (7, "note".to_owned())
    );

    let version = near(ApiKey::DescribeGroups, number);
    let described =
        asker.call(version, DescribeGroupsRequest::default().with_groups(vec![group_id()])).groups.remove(0);
    assert_eq!((described.error_code, &*described.group_state), (0, "Stable"), "DescribeGroups v{version}");
    assert_eq!(&described.members[0].member_assignment[..], b"all of it");

    let version = near(ApiKey::ListGroups, number);
    let listed = asker.call(version, ListGroupsRequest::default());
    assert_eq!(listed.error_code, 0);
    let listed = listed.groups.into_iter().find(|listed| listed.group_id == group_id()).unwrap();
    assert_eq!(&*listed.group_state, if version >= 4 { "Stable" } else { "" }, "ListGroups v{version}");

    let version = near(ApiKey::LeaveGroup, number);
    let leave = LeaveGroupRequest::default().with_group_id(group_id());
    let left = asker.call(
        version,
        if version >= 3 {
            leave.with_members(vec![MemberIdentity::default().with_member_id(member)])
        } else {
            leave.with_member_id(member)
        },
    );
    assert_eq!(left.error_code, 0, "LeaveGroup v{version}");
    assert_eq!(left.members.len(), usize::from(version >= 3));

    let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
    let asked = OffsetDeleteRequestTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request = OffsetDeleteRequest::default().with_group_id(group_id()).with_topics(vec![asked]);
    let deleted = asker.call(0, request);
    assert_eq!((deleted.error_code, deleted.topics[0].partitions[0].error_code), (0, 0));

    let version = near(ApiKey::DeleteGroups, number);
    let deleted = asker.call(version, DeleteGroupsRequest::default().with_groups_names(vec![group_id()]));
    // Kafka takes a group away with the last thing it held.
    let gone = ErrorCode::GroupIdNotFound.code();
    assert!([0, gone].contains(&deleted.results[0].error_code), "DeleteGroups v{version}: {deleted:?}");
}

fn commit(
    asker: &mut Asker,
    version: i16,
    group: &str,
    (member, generation): (StrBytes, i32),
    (topic, id): (&str, TopicId),
) {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(7)
        .with_committed_metadata(Some(text("note")));
    let mut asked = OffsetCommitRequestTopic::default().with_partitions(vec![partition]);
    if version >= 10 {
        asked.topic_id = Uuid::from_bytes(id.0);
    } else {
        asked.name = name(topic);
    }
    let request = OffsetCommitRequest::default()
        .with_group_id(kafka::GroupId(text(group)))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(member)
        .with_topics(vec![asked]);
    let answer = asker.call(version, request);
    assert_eq!(answer.topics[0].partitions[0].error_code, 0, "OffsetCommit v{version}");
}

fn committed(asker: &mut Asker, version: i16, group: &str, (topic, id): (&str, TopicId)) -> (i64, String) {
    let group_id = kafka::GroupId(text(group));
    let request = if version >= 8 {
        let mut asked = OffsetFetchRequestTopics::default().with_partition_indexes(vec![0]);
        if version >= 10 {
            asked.topic_id = Uuid::from_bytes(id.0);
        } else {
            asked.name = name(topic);
        }
        let group = OffsetFetchRequestGroup::default().with_group_id(group_id).with_topics(Some(vec![asked]));
        OffsetFetchRequest::default().with_groups(vec![group])
    } else {
        let asked = OffsetFetchRequestTopic::default().with_name(name(topic)).with_partition_indexes(vec![0]);
        OffsetFetchRequest::default().with_group_id(group_id).with_topics(Some(vec![asked]))
    };
    let mut answer = asker.call(version, request);
    let (error, offset, metadata) = if version >= 8 {
        let found = answer.groups.remove(0).topics.remove(0).partitions.remove(0);
        (found.error_code, found.committed_offset, found.metadata)
    } else {
        let found = answer.topics.remove(0).partitions.remove(0);
        (found.error_code, found.committed_offset, found.metadata)
    };
    assert_eq!(error, 0, "OffsetFetch v{version}");
    (offset, metadata.unwrap().to_string())
}

#[test]
fn what_is_not_served_closes_the_connection_as_kafka_does() {
    let node = Node::start();
    let produce = ApiKey::Produce as i16;
    for (key, version) in [(produce, 0), (produce, 2), (produce, 99), (ApiKey::Metadata as i16, 99), (999, 0)]
    {
        let mut wire = node.connect();
        let (key, version) = (i16::to_be_bytes(key), i16::to_be_bytes(version));
        wire.send_frame(&[&key[..], &version, &[0, 0, 0, 1, 0xff, 0xff], &[0; 12]].concat());
        wire.assert_closed();
    }
}
