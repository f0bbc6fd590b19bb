//! Which brokers hold which partition.

use std::collections::BTreeSet;

use ouzel_model::NodeId;

use crate::image::Image;
use crate::partition::Partition;

/// Why an assignment somebody wrote by hand cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAssignment {
    /// A partition without replicas.
    #[error("The manual partition assignment includes an empty replica list.")]
    NoReplica,
    /// A broker twice in one list.
    #[error("The manual partition assignment includes the broker {broker} more than once.")]
    RepeatedBroker {
        /// Which.
        broker: i32,
    },
    /// A broker nobody knows.
    #[error("The manual partition assignment includes broker {broker}, but no such broker is registered.")]
    UnknownBroker {
        /// Which.
        broker: i32,
    },
    /// Nobody alive could lead it.
    #[error(
        "All brokers specified in the manual partition assignment for partition {partition} are fenced or in controlled \
         shutdown."
    )]
    AllFenced {
        /// Which partition.
        partition: usize,
    },
    /// Lists of different lengths.
    #[error(
        "The manual partition assignment includes a partition with {found} replica(s), but this is not consistent with \
         previous partitions, which have {expected} replica(s)."
    )]
    UnequalReplicas {
        /// Of the partitions before.
        expected: usize,
        /// Of this one.
        found: usize,
    },
    /// Indexes with gaps or repetitions, or that do not start with the first index expected.
    #[error("partitions should be a consecutive 0-based integer sequence")]
    NotConsecutive,
    /// Not as many lists as partitions.
    #[error(
        "Attempted to add {partitions} additional partition(s), but only {assignments} assignment(s) were specified."
    )]
    WrongCount {
        /// New partitions asked for.
        partitions: usize,
        /// Lists given.
        assignments: usize,
    },
}

/// Why so many replicas cannot be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplaceable {
    /// More replicas than brokers.
    #[error(
        "Unable to replicate the partition {replication_factor} time(s): The target replication factor of \
         {replication_factor} cannot be reached because only {brokers} broker(s) are registered."
    )]
    TooFewBrokers {
        /// Replicas wanted.
        replication_factor: i16,
        /// Brokers there are.
        brokers: usize,
    },
    /// Without a majority of its replicas a partition takes no record.
    #[error(
        "Unable to replicate the partition {replication_factor} time(s): {needed} of its replicas must be on brokers that \
         are alive, but only {live} broker(s) are."
    )]
    TooFewAlive {
        /// Replicas wanted.
        replication_factor: i16,
        /// A majority of them.
        needed: usize,
        /// Brokers that are alive.
        live: usize,
    },
}

/// Spreads partitions over the brokers, so that each topic is spread as evenly as it can be, and the cluster too where the
/// topic leaves a choice.
///
/// A partition's replicas are on different racks as far as there are racks, and on brokers that are alive as far as there
/// are enough. What one placer has placed counts for what it places next.
pub struct Placer<'a> {
    brokers: Vec<Candidate<'a>>,
}

struct Candidate<'a> {
    node: NodeId,
    rack: Option<&'a str>,
    live: bool,
    cluster: Load,
    topic: Load,
    /// Replicas of the topic that follow each of the other candidates.
    follows: Vec<usize>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    preferred: usize,
    replicas: usize,
}

impl<'a> Placer<'a> {
    /// Counts what every broker has.
    pub fn new(image: &'a Image) -> Placer<'a> {
        let candidate = |broker: &'a std::sync::Arc<crate::Broker>| Candidate {
            node: broker.node,
            rack: broker.rack.as_deref(),
            live: !broker.fenced,
            cluster: Load::default(),
            topic: Load::default(),
            follows: vec![0; image.brokers().len()],
        };
        let mut placer = Placer { brokers: image.brokers().map(candidate).collect() };
        for (_, partition) in image.partitions() {
            placer.count(&partition.nodes().collect::<Vec<_>>(), |candidate| &mut candidate.cluster);
        }
        placer
    }

    /// Places new partitions of a topic that has `present` ones already.
    ///
    /// `seed` is the topic's own: where nothing else decides, not all topics start at the same broker.
    ///
    /// # Errors
    /// Too few brokers, or too few of them alive.
    pub fn place(
        &mut self,
        present: &[Partition],
        partitions: usize,
        replication_factor: i16,
        seed: u64,
    ) -> Result<Vec<Partition>, Unplaceable> {
        let wanted = self.check(replication_factor)?;
        let start = (seed % self.brokers.len() as u64) as usize;
        self.begin_topic(present);
        let mut place_one = |index: usize| {
            let first = start + present.len() + index;
            Partition::new(self.choose(&[], wanted, first))
        };
        Ok((0..partitions).map(&mut place_one).collect())
    }

    /// The nodes of a partition with more replicas than it has: those it has, then the new ones. `None` if there are not
    /// enough brokers alive.
    pub fn grow(&mut self, topic: &[Partition], partition: &Partition, wanted: usize) -> Option<Vec<NodeId>> {
        let present: Vec<NodeId> = partition.nodes().collect();
        let there = self.brokers.iter().filter(|broker| broker.live || present.contains(&broker.node));
        if wanted > there.count() {
            return None;
        }
        self.begin_topic(topic);
        Some(self.choose(&present, wanted, 0))
    }

    fn check(&self, replication_factor: i16) -> Result<usize, Unplaceable> {
        let wanted = usize::try_from(replication_factor).unwrap_or(0);
        let brokers = self.brokers.len();
        if wanted == 0 || wanted > brokers {
            return Err(Unplaceable::TooFewBrokers { replication_factor, brokers });
        }
        let (needed, live) = (wanted / 2 + 1, self.brokers.iter().filter(|broker| broker.live).count());
        if live < needed {
            return Err(Unplaceable::TooFewAlive { replication_factor, needed, live });
        }
        Ok(wanted)
    }

    fn begin_topic(&mut self, present: &[Partition]) {
        for candidate in &mut self.brokers {
            candidate.topic = Load::default();
            candidate.follows.fill(0);
        }
        for partition in present {
            self.count(&partition.nodes().collect::<Vec<_>>(), |candidate| &mut candidate.topic);
        }
    }

    /// Chooses nodes behind those that are chosen already; `first` is the broker that wins where nothing else decides.
    fn choose(&mut self, chosen: &[NodeId], wanted: usize, first: usize) -> Vec<NodeId> {
        let mut nodes = chosen.to_vec();
        while nodes.len() < wanted {
            let count = self.brokers.len();
            let leader = nodes.first().and_then(|leader| self.position(*leader));
            let from = leader.map_or(first, |leader| leader + 1);
            let on_rack = |rack: Option<&str>| {
                let rack_of = |node: &NodeId| self.position(*node).and_then(|at| self.brokers[at].rack);
                nodes.iter().filter(|node| rack_of(node) == rack).count()
            };
            let free = (0..count).filter(|at| !nodes.contains(&self.brokers[*at].node));
            let best = free.min_by_key(|at| {
                let candidate = &self.brokers[*at];
                let (topic, cluster) = (candidate.topic, candidate.cluster);
                let distance = (at + count - from % count) % count;
                match leader {
                    None => (!candidate.live, 0, topic.preferred, topic.replicas, cluster, distance),
                    Some(leader) => {
                        let load = Load { preferred: cluster.replicas, replicas: cluster.preferred };
                        let rack = on_rack(candidate.rack);
                        (!candidate.live, rack, topic.replicas, candidate.follows[leader], load, distance)
                    }
                }
            });
            let Some(best) = best else { break };
            if let Some(leader) = leader {
                self.brokers[best].follows[leader] += 1;
            }
            nodes.push(self.brokers[best].node);
        }
        self.count_from(chosen.len(), &nodes, |candidate| &mut candidate.cluster);
        self.count_from(chosen.len(), &nodes, |candidate| &mut candidate.topic);
        nodes
    }

    fn count(&mut self, nodes: &[NodeId], load: impl for<'b> Fn(&'b mut Candidate<'a>) -> &'b mut Load) {
        self.count_from(0, nodes, load);
    }

    /// Counts the replicas of a partition, but for those before `skipped`, which are counted already.
    fn count_from(
        &mut self,
        skipped: usize,
        nodes: &[NodeId],
        load: impl for<'b> Fn(&'b mut Candidate<'a>) -> &'b mut Load,
    ) {
        for (nth, node) in nodes.iter().enumerate().skip(skipped) {
            let Some(at) = self.position(*node) else { continue };
            let load = load(&mut self.brokers[at]);
            load.replicas += 1;
            load.preferred += usize::from(nth == 0);
        }
    }

    fn position(&self, node: NodeId) -> Option<usize> {
        // Brokers come by node id.
        self.brokers.binary_search_by_key(&node, |candidate| candidate.node).ok()
    }
}

/// Checks lists of replicas written by hand, for partitions from `first_index` on; `expected` is the replication factor
/// they must have, if it is given.
///
/// # Errors
/// The first list that cannot be.
pub fn check_replica_lists(
    image: &Image,
    lists: &[&[i32]],
    first_index: usize,
    mut expected: Option<usize>,
) -> Result<Vec<Partition>, InvalidAssignment> {
    let mut partitions = Vec::with_capacity(lists.len());
    for (partition, list) in (first_index..).zip(lists) {
        let nodes = check_replica_list(image, list)?;
        let expected = *expected.get_or_insert(list.len());
        if expected != list.len() {
            return Err(InvalidAssignment::UnequalReplicas { expected, found: list.len() });
        }
        if !nodes.iter().any(|node| image.is_live(*node)) {
            return Err(InvalidAssignment::AllFenced { partition });
        }
        partitions.push(Partition::new(nodes));
    }
    Ok(partitions)
}

/// Checks one list of replicas written by hand.
///
/// # Errors
/// What is wrong with it.
pub fn check_replica_list(image: &Image, list: &[i32]) -> Result<Vec<NodeId>, InvalidAssignment> {
    if list.is_empty() {
        return Err(InvalidAssignment::NoReplica);
    }
    let mut seen = BTreeSet::new();
    for broker in list.iter().copied() {
        if !seen.insert(broker) {
            return Err(InvalidAssignment::RepeatedBroker { broker });
        }
        if image.broker(NodeId(broker)).is_none() {
            return Err(InvalidAssignment::UnknownBroker { broker });
        }
    }
    Ok(list.iter().copied().map(NodeId).collect())
}
