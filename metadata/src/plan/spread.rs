//! What the controller does of itself as brokers come and go: internal topics get the replicas they were meant to have,
//! and the controller's log the keepers.

use std::collections::BTreeMap;

use ouzel_model::NodeId;

use crate::configs::BrokerConfig;
use crate::image::{Broker, Image};
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
/// that keep it stay while they live. `None` if nothing is to change: also while a change is on its way, and as long as
/// no broker that can talk to others is alive.
///
/// A dead keeper is replaced where there is a living broker to do it; it is for the caller to wait before it asks, since
/// a broker that is back in a minute is no reason to move anything.
pub fn plan_controller_voters(image: &Image) -> Option<Record> {
    let able = |broker: &&std::sync::Arc<Broker>| !broker.rpc_address.is_empty();
    let candidates: Vec<&Broker> = image.live_brokers().filter(able).map(|broker| &**broker).collect();
    let present = image.controller();
    if candidates.is_empty() || present.is_some_and(Partition::is_moving) {
        return None;
    }
    let target = voters_for(candidates.len());
    let keepers: Vec<NodeId> = present.map(|present| present.nodes().collect()).unwrap_or_default();
    // Fewer living brokers are no reason to have fewer keepers: the dead may come back.
    let target = target.max(keepers.len().min(CONTROLLER_VOTERS_MAX));
    let mut chosen: Vec<NodeId> = keepers.iter().copied().filter(|node| image.is_live(*node)).collect();
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
    if present.is_some_and(same) {
        return None;
    }
    let controller = match present {
        None => Partition::new(chosen),
        Some(present) => present.moved_to(&chosen),
    };
    Some(Record::ControllerChanged { controller })
}

/// The largest odd number that is not above the brokers there are: one more would need as many for a majority and fail
/// more easily.
fn voters_for(brokers: usize) -> usize {
    let most = brokers.min(CONTROLLER_VOTERS_MAX);
    most - usize::from(most.is_multiple_of(2))
}
