//! Making other replicas lead (KIP-460).

use ouzel_model::{PartitionIndex, ReplicaId, TopicIdPartition};

use crate::claims::Claims;
use crate::image::{Image, Topic};
use crate::partition::Partition;

/// Which replica is to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionKind {
    /// The first of the list, if it is caught up.
    Preferred,
    /// Any that lives, where none leads and none can be elected: what it lacks is lost. See [`super::inherit`].
    Unclean,
}

/// An election to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// Of which partition.
    pub at: TopicIdPartition,
    /// Who is to lead. Unclean: any of these, whoever has most.
    pub candidates: Vec<ReplicaId>,
    /// How.
    pub kind: ElectionKind,
}

/// Why no election is held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElectLeadersError {
    /// No such topic.
    #[error("No such topic as {topic}")]
    UnknownTopic {
        /// The name.
        topic: String,
    },
    /// No such partition.
    #[error("No such partition as {topic}-{index}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The index.
        index: i32,
    },
    /// It leads already; unclean: somebody does.
    #[error("Leader election not needed for topic partition.")]
    NotNeeded,
    /// It is dead, or not caught up.
    #[error("The preferred leader was not available.")]
    PreferredNotAvailable,
    /// Nobody is alive.
    #[error("Eligible topic partition leaders are not available.")]
    NoneEligible,
    /// Nodes are alive that may have more than the others, and do not say.
    #[error(
        "Eligible topic partition leaders are not available: what the replicas on {nodes:?} have is not known; see the logs \
         of these nodes, and stop them if their replicas shall not count."
    )]
    Silent {
        /// Where.
        nodes: Vec<i32>,
    },
}

/// What an answer is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPartition {
    /// The topic; the name need not be legal.
    pub topic: String,
    /// Which of its partitions.
    pub index: i32,
}

/// Decides one request; the answers stand in its order. Asked for all partitions, those that need nothing are left out.
pub fn plan_elect_leaders(
    image: &Image,
    claims: Claims<'_>,
    kind: ElectionKind,
    named: Option<&[NamedPartition]>,
) -> Vec<(NamedPartition, Result<Election, ElectLeadersError>)> {
    match named {
        Some(named) => {
            named.iter().map(|one| (one.clone(), decide_named(image, claims, kind, one))).collect()
        }
        None => {
            let partitions = image.topics().flat_map(|topic| {
                topic.indexed_partitions().map(move |(index, partition)| (topic, index, partition))
            });
            let decided = partitions.map(|(topic, index, partition)| {
                let name = NamedPartition { topic: topic.name.to_string(), index: index.0 };
                (name, decide(image, claims, kind, topic, index, partition))
            });
            decided.filter(|(_, outcome)| *outcome != Err(ElectLeadersError::NotNeeded)).collect()
        }
    }
}

fn decide_named(
    image: &Image,
    claims: Claims<'_>,
    kind: ElectionKind,
    NamedPartition { topic: name, index }: &NamedPartition,
) -> Result<Election, ElectLeadersError> {
    let unknown_topic = || ElectLeadersError::UnknownTopic { topic: name.clone() };
    let topic = image.topic(name).ok_or_else(unknown_topic)?;
    let unknown = || ElectLeadersError::UnknownPartition { topic: name.clone(), index: *index };
    let index = PartitionIndex(*index);
    let partition = topic.partition(index).ok_or_else(unknown)?;
    decide(image, claims, kind, topic, index, partition)
}

fn decide(
    image: &Image,
    claims: Claims<'_>,
    kind: ElectionKind,
    topic: &Topic,
    index: PartitionIndex,
    partition: &Partition,
) -> Result<Election, ElectLeadersError> {
    let at = TopicIdPartition { topic_id: topic.id, partition: index };
    let claim = claims(at).filter(|claim| image.is_live(claim.leader.node));
    let election = |candidates| Ok(Election { at, candidates, kind });
    match kind {
        ElectionKind::Preferred => {
            let preferred = partition.replicas[0];
            match claim {
                Some(claim) if claim.leader == preferred => Err(ElectLeadersError::NotNeeded),
                Some(claim) if claim.in_sync.contains(&preferred) && image.is_live(preferred.node) => {
                    election(vec![preferred])
                }
                _ => Err(ElectLeadersError::PreferredNotAvailable),
            }
        }
        ElectionKind::Unclean => {
            // A claim is no proof: whoever made it may have nobody left to lead. That is asked when the election is held.
            // Who stays first: what is left of a move may go with it.
            let alive: Vec<ReplicaId> =
                partition.holders().filter(|replica| image.is_live(replica.node)).collect();
            if alive.is_empty() { Err(ElectLeadersError::NoneEligible) } else { election(alive) }
        }
    }
}
