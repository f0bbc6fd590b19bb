//! Metadata: brokers, topics, partitions; creates a topic that is asked for by name, where that is allowed.

use std::rc::Rc;

use ouzel_metadata::image::Topic;
use ouzel_metadata::plan::create_topics::NewTopic;
use ouzel_model::{NodeId, TopicId, TopicIdPartition, TopicName};
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use ouzel_protocol::messages::kafka::{self as messages, BrokerId, MetadataRequest, MetadataResponse};

use crate::core::Core;
use crate::view::{Leadership, NodeView};

use super::cluster::advertised;
use super::groups::OPERATIONS_NOT_ASKED;
use super::wire::{text, topic_id, topic_name, uuid};

/// Answers what is known, and sets out to create what is not.
pub(crate) async fn metadata(core: &Rc<Core>, version: i16, request: MetadataRequest) -> MetadataResponse {
    let view = core.view();
    // Version 0 could not say "none": its empty list asks for all.
    let asked = request.topics.filter(|topics| version > 0 || !topics.is_empty());
    let mut topics = Vec::new();
    match asked {
        None => topics.extend(view.image.topics().map(|topic| described(core, topic, &view))),
        Some(asked) => {
            let mut to_create = Vec::new();
            for topic in asked {
                let id = topic_id(topic.topic_id);
                let name = topic.name.as_ref().map(|name| name.as_str().to_owned());
                topics.push(answer_one(&view, core, version, name, id, &mut to_create));
            }
            let may_create = version < 4 || request.allow_auto_topic_creation;
            if may_create && !to_create.is_empty() && core.broker_config().auto_create_topics {
                create(core, to_create, &mut topics).await;
            }
        }
    }
    let brokers = view.image.live_brokers().map(|broker| {
        let (host, port) = advertised(broker);
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(broker.node.0))
            .with_host(text(&host))
            .with_port(port)
            .with_rack(broker.rack.as_deref().filter(|_| version >= 1).map(text))
    });
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(view.image.cluster_id().filter(|_| version >= 2).map(text))
        .with_controller_id(BrokerId(if version >= 1 { core.node.config.node_id.0 } else { -1 }))
        .with_topics(topics)
        .with_cluster_authorized_operations(OPERATIONS_NOT_ASKED)
}

fn answer_one(
    view: &NodeView,
    core: &Core,
    version: i16,
    name: Option<String>,
    id: TopicId,
    to_create: &mut Vec<String>,
) -> MetadataResponseTopic {
    let failed = |code: ErrorCode| {
        MetadataResponseTopic::default()
            .with_error_code(code.code())
            .with_name(match &name {
                Some(name) => Some(messages::TopicName(text(name))),
                // Null only where the version can say it.
                None => (version < 12).then(Default::default),
            })
            .with_topic_id(uuid(id))
            .with_topic_authorized_operations(OPERATIONS_NOT_ASKED)
    };
    match &name {
        // Versions 10 and 11 carry the id field but no broker ever answered it there.
        None if version < 12 => failed(ErrorCode::InvalidRequest),
        _ if version < 12 && !id.is_zero() => failed(ErrorCode::InvalidRequest),
        None if id.is_zero() => failed(ErrorCode::UnknownTopicId),
        None => match view.topic_by_id(id) {
            Some(topic) => described(core, topic, view),
            None => failed(ErrorCode::UnknownTopicId),
        },
        Some(wanted) => match view.topic_by_name(wanted) {
            Some(topic) => described(core, topic, view),
            None if TopicName::new(wanted).is_err() => failed(ErrorCode::InvalidTopic),
            None => {
                to_create.push(wanted.clone());
                failed(ErrorCode::UnknownTopicOrPartition)
            }
        },
    }
}

/// Creates topics with the broker's defaults. The answer still says that they are not there: clients ask again, as
/// they do of Kafka. Only a name that never can be created is told so.
async fn create(core: &Rc<Core>, names: Vec<String>, answers: &mut [MetadataResponseTopic]) {
    let topics: Vec<_> = names.iter().map(|name| NewTopic::with_defaults(name)).collect();
    let outcomes = super::topics::create_for_broker(core, &topics).await;
    for (name, code) in names.iter().zip(outcomes) {
        // What may be otherwise the next time is not told: the client asks again.
        if matches!(code, ErrorCode::None | ErrorCode::TopicAlreadyExists | ErrorCode::NotController)
            || code.is_retriable()
        {
            continue;
        }
        for answer in answers.iter_mut().filter(|a| a.name.as_ref().is_some_and(|n| n.as_str() == name)) {
            answer.error_code = code.code();
        }
    }
}

fn described(core: &Core, topic: &Topic, view: &NodeView) -> MetadataResponseTopic {
    let brokers = |nodes: &[NodeId]| nodes.iter().map(|node| BrokerId(node.0)).collect();
    let partitions = topic.indexed_partitions().map(|(index, partition)| {
        let at = TopicIdPartition { topic_id: topic.id, partition: index };
        let Leadership { leader, epoch, in_sync } = core.leadership_of(at, partition);
        let holders = partition.holder_nodes();
        let offline = holders.iter().filter(|node| !view.image.is_live(**node));
        MetadataResponsePartition::default()
            .with_error_code(match leader {
                Some(_) => ErrorCode::None.code(),
                None => ErrorCode::LeaderNotAvailable.code(),
            })
            .with_partition_index(index.0)
            .with_leader_id(BrokerId(leader.map_or(-1, |node| node.0)))
            .with_leader_epoch(epoch.value())
            .with_replica_nodes(brokers(&holders))
            .with_isr_nodes(brokers(&in_sync))
            .with_offline_replicas(offline.map(|node| BrokerId(node.0)).collect())
    });
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(uuid(topic.id))
        .with_is_internal(topic.name.is_internal())
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(OPERATIONS_NOT_ASKED)
}
