//! The cluster as a broker describes it: who is in it, and who leads what.

use std::collections::BTreeMap;

use ouzel_model::TopicId;
use ouzel_protocol::StrBytes;
use ouzel_protocol::messages::kafka::metadata_request::MetadataRequestTopic;
use ouzel_protocol::messages::kafka::{MetadataRequest, MetadataResponse};

/// Brokers and topics at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// The cluster's id, if it tells.
    pub cluster_id: Option<String>,
    /// The node to send administration to; -1 if unknown.
    pub controller_id: i32,
    /// The brokers, by node id.
    pub brokers: BTreeMap<i32, Broker>,
    /// The topics that were asked for, by name.
    pub topics: BTreeMap<String, Topic>,
}

/// A broker.
#[derive(Clone, Debug, PartialEq)]
pub struct Broker {
    /// Its node id.
    pub node_id: i32,
    /// The host it advertises.
    pub host: String,
    /// The port it advertises.
    pub port: i32,
    /// Its rack.
    pub rack: Option<String>,
}

impl Broker {
    /// `HOST:PORT`, with an IPv6 host in brackets.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topic {
    /// Its id; zero from a broker that has none.
    pub topic_id: TopicId,
    /// Why the broker says nothing more, or 0.
    pub error_code: i16,
    /// Whether it is the broker's own.
    pub is_internal: bool,
    /// Its partitions, by index.
    pub partitions: BTreeMap<i32, Partition>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Partition {
    /// Why it is not whole, or 0.
    pub error_code: i16,
    /// The leader's node id; -1 for none.
    pub leader: i32,
    /// The leader's epoch; -1 from a broker that has none.
    pub leader_epoch: i32,
    /// Nodes with a replica, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync: Vec<i32>,
    /// Those of them that are down.
    pub offline: Vec<i32>,
}

/// Which topics to ask for.
#[derive(Clone, Copy, Debug)]
pub enum Topics<'a> {
    /// All of them.
    All,
    /// None: only the brokers.
    None,
    /// These, without creating one.
    Named(&'a [&'a str]),
    /// These, which the broker may create.
    Created(&'a [&'a str]),
}

impl Topics<'_> {
    pub(crate) fn request(self) -> MetadataRequest {
        let named = |names: &[&str]| {
            let topic = |name: &&str| {
                let name = StrBytes::from_string((*name).to_owned()).into();
                MetadataRequestTopic::default().with_name(Some(name))
            };
            Some(names.iter().map(topic).collect())
        };
        let (topics, create) = match self {
            Topics::All => (None, false),
            Topics::None => (Some(Vec::new()), false),
            Topics::Named(names) => (named(names), false),
            Topics::Created(names) => (named(names), true),
        };
        MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(create)
    }
}

impl From<MetadataResponse> for Metadata {
    fn from(response: MetadataResponse) -> Metadata {
        let brokers = response.brokers.into_iter().map(|broker| {
            let node_id = broker.node_id.0;
            let rack = broker.rack.map(|rack| rack.to_string());
            (node_id, Broker { node_id, host: broker.host.to_string(), port: broker.port, rack })
        });
        let topics = response.topics.into_iter().filter_map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                let nodes = |nodes: Vec<ouzel_protocol::messages::kafka::BrokerId>| {
                    nodes.into_iter().map(|node| node.0).collect()
                };
                let view = Partition {
                    error_code: partition.error_code,
                    leader: partition.leader_id.0,
                    leader_epoch: partition.leader_epoch,
                    replicas: nodes(partition.replica_nodes),
                    in_sync: nodes(partition.isr_nodes),
                    offline: nodes(partition.offline_replicas),
                };
                (partition.partition_index, view)
            });
            let view = Topic {
                topic_id: TopicId(topic.topic_id.into_bytes()),
                error_code: topic.error_code,
                is_internal: topic.is_internal,
                partitions: partitions.collect(),
            };
            Some((topic.name?.to_string(), view))
        });
        Metadata {
            cluster_id: response.cluster_id.map(|id| id.to_string()),
            controller_id: response.controller_id.0,
            brokers: brokers.collect(),
            topics: topics.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_bracket_ipv6() {
        let broker = |host: &str| Broker { node_id: 1, host: host.to_owned(), port: 9092, rack: None };
        assert_eq!(broker("localhost").address(), "localhost:9092");
        assert_eq!(broker("::1").address(), "[::1]:9092");
    }

    #[test]
    fn all_none_and_some_topics_are_told_apart() {
        assert_eq!(Topics::All.request().topics, None);
        assert_eq!(Topics::None.request().topics, Some(Vec::new()));
        let named = Topics::Named(&["a"]).request();
        assert!(named.topics.unwrap().len() == 1 && !named.allow_auto_topic_creation);
        assert!(Topics::Created(&["a"]).request().allow_auto_topic_creation);
    }
}
