//! What the controller does of itself as brokers come and go: internal topics get the replicas they were meant to have,
//! and the controller's log the keepers.

use std::collections::{BTreeMap, BTreeSet};

use ouzel_model::NodeId;

use crate::configs::BrokerConfig;
use crate::image::{Broker, Image};
use crate::keepers::keeper;
use crate::partition::Partition;
use crate::placement::Placer;
use crate::record::Record;

/// Keepers of the controller's log at most.
pub const CONTROLLER_VOTERS_MAX: usize = 5;

/// Raises the replication of internal topics that were made when there were fewer brokers than they were meant to have
/// replicas. Never lowers it; partitions that move are left to it.
pub fn plan_raise_internal_replication(image: &Image, config: &BrokerConfig) -> Vec<Record> {
    let live = image.live_brokers().count();
    let wanted_of = |name: &str| match name {
        "__consumer_offsets" => usize::try_from(config.offsets.topic_replication_factor).ok(),
        _ => None,
    };
    let mut placer = Placer::new(image);
    let mut records = Vec::new();
    for topic in image.topics() {
        let Some(wanted) = wanted_of(topic.name.as_str()) else { continue };
        let wanted = wanted.min(live);
        for (index, partition) in topic.indexed_partitions() {
            if partition.replicas.len() >= wanted || partition.is_moving() {
                continue;
            }
            let Some(nodes) = placer.grow(&topic.partitions, partition, wanted) else { continue };
            let partition = partition.moved_to(&nodes);
            records.push(Record::PartitionChanged { topic_id: topic.id, index, partition });
        }
    }
    records
}

/// Decides who keeps the controller's log: an odd number of brokers, up to five, on as many racks as there are. Those
/// that keep it stay, but for those that are `gone`, which are replaced where there is a living broker to do it: who has
/// been dead for so long is for the caller to tell, since a broker that is back in a minute is no reason to move anything.
///
/// `None` if nothing is to change: also before the founders have registered, who are the first keepers; while a change is on
/// its way to brokers that are there; and as long as no broker that can talk to others is alive.
pub fn plan_controller_voters(image: &Image, gone: &BTreeSet<NodeId>) -> Option<Record> {
    let able =
        |broker: &&std::sync::Arc<Broker>| !broker.rpc_address.is_empty() && !gone.contains(&broker.node);
    let candidates: Vec<&Broker> = image.live_brokers().filter(able).map(|broker| &**broker).collect();
    let present = image.controller()?;
    let keepers: Vec<NodeId> = present.nodes().collect();
    let is_awaited = present.is_moving() && keepers.iter().all(|node| !gone.contains(node));
    if candidates.is_empty() || is_awaited {
        return None;
    }
    let target = voters_for(candidates.len());
    // Fewer living brokers are no reason to have fewer keepers: the dead may come back.
    let target = target.max(keepers.len().min(CONTROLLER_VOTERS_MAX));
    let mut chosen: Vec<NodeId> = keepers.iter().copied().filter(|node| !gone.contains(node)).collect();
    chosen.truncate(target);
    while chosen.len() < target {
        let mut on_rack: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        for node in &chosen {
            *on_rack.entry(image.broker(*node).and_then(|broker| broker.rack.as_deref())).or_default() += 1;
        }
        let free = candidates.iter().filter(|broker| !chosen.contains(&broker.node));
        let crowd = |broker: &Broker| on_rack.get(&broker.rack.as_deref()).copied().unwrap_or(0);
        let Some(next) = free.min_by_key(|broker| (crowd(broker), broker.node)) else { break };
        chosen.push(next.node);
    }
    // Where nobody can replace the dead they stay keepers: a majority is counted of all.
    let dead: Vec<NodeId> = keepers.iter().copied().filter(|node| !chosen.contains(node)).collect();
    chosen.extend(dead.into_iter().take(target - chosen.len()));
    let same = |present: &Partition| {
        present.replicas.len() == chosen.len() && chosen.iter().all(|node| keepers.contains(node))
    };
    if same(present) {
        return None;
    }
    let replica = |node: &NodeId| {
        let known = present.replica_on(*node);
        known.or_else(|| image.broker(*node).map(|broker| keeper(*node, broker.directory_id)))
    };
    let controller = present.moved_to_those(chosen.iter().filter_map(replica).collect());
    Some(Record::ControllerChanged { controller })
}

/// Decides that a broker keeps the controller's log no more, since it has left for good: another one does in its place, or
/// the others alone. `None` if it does not keep it, is the only one, or a change is on its way.
pub fn plan_release_keeper(image: &Image, node: NodeId) -> Option<Record> {
    let present = image.controller()?;
    if present.is_moving() || present.nodes().len() == 1 {
        return None;
    }
    present.replica_on(node)?;
    let replaced = plan_controller_voters(image, &[node].into());
    let releases = |record: &Record| matches!(record, Record::ControllerChanged { controller } if controller.nodes().all(|keeper| keeper != node));
    replaced.filter(releases).or_else(|| {
        let others = present.replicas.iter().copied().filter(|replica| replica.node != node);
        Some(Record::ControllerChanged { controller: present.moved_to_those(others.collect()) })
    })
}

/// The largest odd number that is not above the brokers there are: one more would need as many for a majority and fail
/// more easily.
fn voters_for(brokers: usize) -> usize {
    let most = brokers.min(CONTROLLER_VOTERS_MAX);
    most - usize::from(most.is_multiple_of(2))
}
