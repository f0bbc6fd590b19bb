//! What every core knows of the cluster: the metadata image, and where each partition lives on this node.

use std::collections::HashMap;

use ouzel_metadata::Image;
use ouzel_metadata::image::Topic;
use ouzel_model::{LeaderEpoch, NodeId, PartitionIndex, TopicId, TopicIdPartition};
use ouzel_runtime::CoreId;
use ouzel_sync::published::{OffsetSnapshot, PublishedOffsets};

use crate::config::NodeConfig;
use crate::topic_config::TopicConfigs;

/// An immutable snapshot; a change publishes a new one to every core.
pub struct NodeView {
    /// The cluster.
    pub image: Image,
    /// Owner core and published offsets of each partition this node holds.
    pub routes: HashMap<TopicIdPartition, Route>,
    /// Each topic's effective configuration.
    pub topic_configs: TopicConfigs,
}

/// What is published of a partition whose log is not open yet.
pub(crate) const UNOPENED: OffsetSnapshot =
    OffsetSnapshot { log_start: 0, last_stable: 0, high_watermark: 0, log_end: 0, leader_epoch: 0 };

/// Where a partition's owner is, and its offsets as any core may read them.
#[derive(Clone)]
pub struct Route {
    /// The core that owns the partition.
    pub core: CoreId,
    /// Written by the owner alone.
    pub offsets: PublishedOffsets,
}

/// Who leads a partition, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The broker that may write, if one is known and lives.
    pub leader: Option<NodeId>,
    /// Its reign.
    pub epoch: LeaderEpoch,
    /// The brokers that are caught up.
    pub in_sync: Vec<NodeId>,
}

/// Who of those that were caught up still is. A leader that died cannot say who died with it: without this its last word
/// stood for ever, and a partition without a leader did not count as under-replicated. The last ones stay when none of
/// them lives, as in Kafka: they have all there is.
pub(crate) fn still_in_sync(claimed: Vec<NodeId>, is_live: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
    let live: Vec<NodeId> = claimed.iter().copied().filter(|node| is_live(*node)).collect();
    if live.is_empty() { claimed } else { live }
}

impl NodeView {
    /// What a core knows before the controller's log is read: nothing.
    pub(crate) fn empty(config: &NodeConfig) -> NodeView {
        let image = Image::default();
        let topic_configs = TopicConfigs::resolve(config, &image);
        NodeView { image, routes: HashMap::new(), topic_configs }
    }

    /// The route to a partition, if this node holds it.
    pub fn route(&self, topic_id: TopicId, partition: PartitionIndex) -> Option<&Route> {
        self.routes.get(&TopicIdPartition { topic_id, partition })
    }

    /// The topic of a name; any text may be asked for.
    pub fn topic_by_name(&self, name: &str) -> Option<&Topic> {
        self.image.topic(name).map(|topic| &**topic)
    }

    /// The topic of an id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Topic> {
        self.image.topic_by_id(id).map(|topic| &**topic)
    }

    /// The topic of a request that may name it either way: by id if there is one, else by name.
    pub fn topic(&self, name: &str, id: TopicId) -> Option<&Topic> {
        if id.is_zero() { self.topic_by_name(name) } else { self.topic_by_id(id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_not_in_sync_unless_nobody_else_is() {
        let nodes = |list: &[i32]| list.iter().copied().map(NodeId).collect::<Vec<_>>();
        let cases: [(&[i32], &[i32], &[i32]); 4] = [
            (&[1, 2, 3], &[1, 2, 3], &[1, 2, 3]),
            (&[2, 3], &[1, 3], &[3]),
            (&[2], &[1, 3], &[2]),
            (&[], &[1], &[]),
        ];
        for (claimed, live, wanted) in cases {
            let is_live = |node: NodeId| live.contains(&node.0);
            assert_eq!(
                still_in_sync(nodes(claimed), is_live),
                nodes(wanted),
                "{claimed:?} of which {live:?} live"
            );
        }
    }
}
