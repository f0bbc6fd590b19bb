//! What the replicas of a partition say of themselves: the image says where a partition is to live, they say how it is.

use ouzel_model::{LeaderEpoch, ReplicaId, TopicIdPartition};

/// What is known of a partition's consensus, from its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The reign.
    pub epoch: LeaderEpoch,
    /// Who leads in it.
    pub leader: ReplicaId,
    /// The voters that are caught up, the leader included.
    pub in_sync: Vec<ReplicaId>,
    /// Those whose majority decides.
    pub voters: Vec<ReplicaId>,
}

/// The newest claim about each partition, as far as one is known and its leader is taken for alive. Claims travel: one
/// may be older than the image it is held against, and a plan that would lose data by that does not rest on it.
pub type Claims<'a> = &'a dyn Fn(TopicIdPartition) -> Option<Claim>;
