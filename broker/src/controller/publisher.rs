//! Makes what the controller has decided true on this node: opens what is new, shows every core the next image, closes
//! what is gone. Every node of a cluster does this for itself, in the order of the controller's log.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use ouzel_metadata::image::Topic;
use ouzel_metadata::{Image, Partition};
use ouzel_model::{PartitionIndex, ReplicaId, TopicId, TopicIdPartition, TopicName, TopicPartition};
use ouzel_runtime::CoreId;
use ouzel_sync::published::published_offsets;

use super::metadata_log::MetadataLog;
use crate::cluster;
use crate::core::{Core, Stopped};
use crate::partitions::{Opening, Part, Turn, moving};
use crate::topic_config::TopicConfigs;
use crate::view::{NodeView, Route};

/// Applies the controller's log to this node; lives on the controller's core.
pub(crate) struct Publisher {
    log: MetadataLog,
    owners: Owners,
    /// Which life of each partition is open here.
    lives: BTreeMap<TopicIdPartition, ReplicaId>,
    /// Those of them that nobody else holds, or is to hold.
    alone: BTreeSet<TopicIdPartition>,
}

impl Publisher {
    /// A publisher that has read nothing yet.
    pub(crate) fn new(log: MetadataLog, owners: Owners) -> Publisher {
        Publisher { log, owners, lives: BTreeMap::new(), alone: BTreeSet::new() }
    }

    /// Reads on until the image is as wanted, without making any of it true yet, but for where the other nodes are: without
    /// that nobody could be asked for what is missing.
    ///
    /// # Errors
    /// In words, when the log cannot be read or holds what no controller of this release wrote.
    pub(crate) async fn read_until(
        &self,
        core: &Core,
        wanted: impl Fn(&Image) -> bool,
    ) -> Result<(), String> {
        while !wanted(&self.log.image()) {
            self.log.more_committed().await;
            self.log.apply_committed().await?;
            cluster::learn_addresses(core, &self.log.image());
        }
        Ok(())
    }

    /// Makes true what is read.
    pub(crate) async fn publish(&mut self, core: &Rc<Core>) -> Result<(), Stopped> {
        let (image, end) = (self.log.image(), self.log.applied());
        self.show(core, image).await?;
        self.log.set_shown(end);
        Ok(())
    }

    /// Follows the log until the node stops.
    ///
    /// # Errors
    /// In words, when the log holds what this release does not understand: the node must not go on with an image that
    /// is older than what it is asked about.
    pub(crate) async fn run(mut self, core: Rc<Core>) -> Result<(), String> {
        let mut stopping = core.stopping.clone();
        loop {
            tokio::select! {
                biased;
                () = self.log.more_committed() => {}
                _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
                () = core.partitions.moves.alone.some() => {
                    if self.dissolve(&core).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
            }
            self.log.apply_committed().await?;
            if self.publish(&core).await.is_err() {
                return Ok(());
            }
        }
    }

    /// The partitions this node has, or had when it was last stopped, and should not have any more: their topic was
    /// deleted, or they moved elsewhere, perhaps while the node was away. The image is as new as the order that made each
    /// of them, and no topic id is given twice.
    pub(crate) fn gone(&self, image: &Image, core: &Core) -> BTreeSet<TopicIdPartition> {
        self.owners.of.keys().filter(|at| !is_here(image, at, core)).copied().collect()
    }

    /// Dissolves groups that have no member but the one here, as far as they are to have no other still.
    async fn dissolve(&mut self, core: &Rc<Core>) -> Result<(), Stopped> {
        let view = core.view();
        let mut dissolving: BTreeMap<CoreId, Vec<Part>> = BTreeMap::new();
        for at in core.partitions.moves.alone.take() {
            let Some(topic) = view.image.topic_by_id(at.topic_id) else { continue };
            let Some(partition) = topic.partition(at.partition) else { continue };
            let sole = partition.sole_replica().filter(|sole| self.lives.get(&at) == Some(sole));
            let (Some(replica), Some(owner)) = (sole, self.owners.get(&at)) else { continue };
            let part = part(topic, at, partition, replica, &view.topic_configs);
            dissolving.entry(owner).or_default().push(part);
        }
        turn(core, Turn::Solo, dissolving).await
    }

    async fn show(&mut self, core: &Rc<Core>, image: Image) -> Result<(), Stopped> {
        let before = core.view();
        let topic_configs = TopicConfigs::resolve(&core.node.config, &image);
        let mut routes = before.routes.clone();
        let mut gone: BTreeMap<CoreId, Vec<TopicIdPartition>> = BTreeMap::new();
        for at in self.gone(&image, core) {
            routes.remove(&at);
            self.lives.remove(&at);
            self.alone.remove(&at);
            let owner = self.owners.of(at);
            gone.entry(owner).or_default().push(at);
            self.owners.give_back(&at);
        }
        let mut opening: BTreeMap<CoreId, Vec<Opening>> = BTreeMap::new();
        // What is open and is to begin a new life. It is taken away first: nothing of the old one may be taken for the new.
        let mut over: BTreeMap<CoreId, Vec<TopicIdPartition>> = BTreeMap::new();
        let mut growing: BTreeMap<CoreId, Vec<Part>> = BTreeMap::new();
        let mut inheriting: BTreeMap<CoreId, Vec<Part>> = BTreeMap::new();
        for topic in image.topics() {
            for (index, partition) in topic.indexed_partitions() {
                let at = TopicIdPartition { topic_id: topic.id, partition: index };
                let Some(replica) = partition.replica_on(core.node.config.node_id) else { continue };
                let owner = self.owners.of(at);
                let part = || part(topic, at, partition, replica, &topic_configs);
                if partition.heir.is_some_and(|heir| heir.replica == replica) {
                    inheriting.entry(owner).or_default().push(part());
                }
                let was_alone = match partition.holders().nth(1) {
                    None => !self.alone.insert(at),
                    Some(_) => self.alone.remove(&at),
                };
                match self.lives.insert(at, replica) {
                    Some(life) if life == replica => {
                        if was_alone && !self.alone.contains(&at) {
                            growing.entry(owner).or_default().push(part());
                        }
                        continue;
                    }
                    Some(_) => over.entry(owner).or_default().push(at),
                    None => {}
                }
                let (offsets, readers) = published_offsets(crate::view::UNOPENED);
                opening.entry(owner).or_default().push(Opening { part: part(), offsets });
                routes.insert(at, Route { core: owner, offsets: readers });
            }
        }
        let new: Vec<(CoreId, Vec<TopicIdPartition>)> = opening
            .iter()
            .map(|(owner, openings)| (*owner, openings.iter().map(|opening| opening.part.at).collect()))
            .collect();
        // A topic that was made again under its name has its directories' names as well: what stands there goes before the new
        // ones are opened.
        let taken: BTreeSet<(&TopicName, PartitionIndex)> = opening
            .values()
            .flatten()
            .map(|opening| (&opening.part.topic_partition.topic, opening.part.at.partition))
            .collect();
        let is_in_the_way = |at: &TopicIdPartition| {
            let topic = before.image.topic_by_id(at.topic_id);
            topic.is_some_and(|topic| taken.contains(&(&topic.name, at.partition)))
        };
        for (owner, partitions) in &mut gone {
            over.entry(*owner).or_default().extend(partitions.extract_if(.., |at| is_in_the_way(at)));
        }
        delete(core, over).await?;
        // All cores at once: at a start that is most of the work.
        let opened: Vec<_> = opening
            .into_iter()
            .map(|(owner, openings)| {
                let open = core.call(owner, move |core| {
                    let core = core.clone();
                    async move { core.partitions.open_all(&core, openings).await }
                });
                ouzel_runtime::spawn(open)
            })
            .collect();
        for opened in opened {
            opened.await.unwrap_or(Err(Stopped))?;
        }
        turn(core, Turn::Group, growing).await?;
        turn(core, Turn::Heir, inheriting).await?;
        let deleted: Vec<(TopicName, TopicId)> = before
            .image
            .topics()
            .filter(|topic| image.topic_by_id(topic.id).is_none())
            .map(|topic| (topic.name.clone(), topic.id))
            .collect();
        let view = Arc::new(NodeView { image, routes, topic_configs });
        for to in core.cores.ids() {
            let view = view.clone();
            core.call(to, move |core| {
                core.set_view(view.clone());
                core.partitions.settings_changed(core, &view);
                cluster::members_changed(core);
                moving::decided(core);
                async {}
            })
            .await?;
        }
        if let Some(membership) = &core.node.membership {
            membership.settings_changed(&core.broker_config(), core.runtime.clock.now());
        }
        for (owner, partitions) in new {
            core.post(owner, move |core| {
                let opened = partitions.iter().filter_map(|at| core.partitions.get(at));
                opened.for_each(|partition| cluster::standing_changed(core, &partition));
            });
        }
        delete(core, gone).await?;
        if !deleted.is_empty() {
            for to in core.cores.ids() {
                let deleted = deleted.clone();
                core.post(to, move |core| core.coordinators.topics_deleted(&deleted));
            }
        }
        Ok(())
    }
}

/// Has partitions taken out of service, and their data away, each by its owner.
async fn delete(core: &Rc<Core>, gone: BTreeMap<CoreId, Vec<TopicIdPartition>>) -> Result<(), Stopped> {
    for (owner, partitions) in gone.into_iter().filter(|(_, partitions)| !partitions.is_empty()) {
        core.call(owner, move |core| {
            let core = core.clone();
            async move { core.partitions.delete_all(&core, partitions).await }
        })
        .await?;
    }
    Ok(())
}

/// What a core is told of a partition.
fn part(
    topic: &Topic,
    at: TopicIdPartition,
    partition: &Partition,
    replica: ReplicaId,
    configs: &TopicConfigs,
) -> Part {
    Part {
        at,
        topic_partition: TopicPartition { topic: topic.name.clone(), partition: at.partition },
        partition: partition.clone(),
        replica,
        config: configs.of(topic.id),
    }
}

/// Has partitions change what they are, one core after the other.
async fn turn(core: &Rc<Core>, turn: Turn, parts: BTreeMap<CoreId, Vec<Part>>) -> Result<(), Stopped> {
    for (owner, parts) in parts {
        core.call(owner, move |core| {
            let core = core.clone();
            async move { core.partitions.turn_all(&core, turn, parts).await }
        })
        .await?;
    }
    Ok(())
}

fn is_here(image: &Image, at: &TopicIdPartition, core: &Core) -> bool {
    let partition = image.topic_by_id(at.topic_id).and_then(|topic| topic.partition(at.partition));
    partition.is_some_and(|partition| partition.replica_on(core.node.config.node_id).is_some())
}

/// Which core owns which partition of this node. A partition keeps its core for as long as the process runs, and at a
/// start it is dealt one before anything else is known of it: its record in the write-ahead file lies there.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    of: BTreeMap<TopicIdPartition, CoreId>,
    counts: Vec<usize>,
}

impl Owners {
    /// Deals the partitions that the write-ahead files know out to the cores there are, in turn.
    pub(crate) fn deal(known: impl Iterator<Item = TopicIdPartition>, core_count: u16) -> Owners {
        let mut owners = Owners { of: BTreeMap::new(), counts: vec![0; usize::from(core_count)] };
        for at in known {
            owners.of(at);
        }
        owners
    }

    /// The core a partition was dealt, if it was.
    pub(crate) fn get(&self, at: &TopicIdPartition) -> Option<CoreId> {
        self.of.get(at).copied()
    }

    /// The core of a partition: the one with the fewest, if it has none yet.
    pub(crate) fn of(&mut self, at: TopicIdPartition) -> CoreId {
        if let Some(core) = self.get(&at) {
            return core;
        }
        let fewest = (0..self.counts.len()).min_by_key(|core| self.counts[*core]).unwrap_or(0);
        self.counts[fewest] += 1;
        let core = CoreId(fewest as u16);
        self.of.insert(at, core);
        core
    }

    fn give_back(&mut self, at: &TopicIdPartition) {
        if let Some(core) = self.of.remove(at) {
            self.counts[usize::from(core.0)] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ouzel_model::PartitionIndex;

    fn at(partition: i32) -> TopicIdPartition {
        TopicIdPartition { topic_id: TopicId([7; 16]), partition: PartitionIndex(partition) }
    }

    #[test]
    fn cores_get_equal_shares_and_what_is_given_back_is_dealt_again() {
        let mut owners = Owners::deal((0..4).map(at), 3);
        assert_eq!(owners.counts, [2, 1, 1]);
        assert_eq!(owners.of(at(0)), CoreId(0), "a partition keeps its core");
        owners.give_back(&at(2));
        assert_eq!(owners.of(at(9)), CoreId(2), "the core with the fewest");
        owners.give_back(&at(77));
        assert_eq!(owners.counts, [2, 1, 1], "what has no core is given back in vain");
    }
}
