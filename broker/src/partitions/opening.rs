//! How a replica is taken into service: what the controller wants of it, held against what this node knows of it.

use ouzel_metadata::Partition;
use ouzel_model::{NodeId, ReplicaId};

/// What the write-ahead file knows of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing: it was never opened here.
    Nothing,
    /// It had a single replica.
    Solo,
    /// It was a replica of a group.
    Member(ReplicaId),
}

/// How a replica is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// As the only one.
    Solo,
    /// As a member of a group: one that is there, or one that its founders found, each for itself.
    Member,
    /// As the only one, which becomes a group's first voter.
    Genesis,
    /// As a new life, which must not keep anything of the one before.
    Anew,
}

/// Decides how a replica of a partition is opened on `node`; `None` if it has none there.
///
/// A replica founds only if the controller made the partition with it: one that comes later comes to a group that has a
/// history, and must not begin another. A node that lost its disk is no danger here: it registers under another directory
/// first, which gives each of its replicas a new life.
pub(crate) fn how_to_open(partition: &Partition, node: NodeId, known: Known) -> Option<How> {
    let replica = partition.replica_on(node)?;
    let is_new = partition.adding.contains(&replica) || partition.unsettled.contains(&replica);
    // An heir was one of several, and was stopped as it went on.
    let is_alone = partition.holders().count() == 1 && partition.heir.is_none();
    Some(match known {
        Known::Member(life) if life == replica => How::Member,
        Known::Member(_) => How::Anew,
        Known::Nothing if partition.founders == [replica] && is_alone => How::Solo,
        // Whatever lies in its directory is not its own.
        Known::Nothing | Known::Solo if is_new => How::Anew,
        Known::Nothing => How::Member,
        Known::Solo if is_alone => How::Solo,
        Known::Solo => How::Genesis,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);

    fn life(node: i32, incarnation: u32) -> ReplicaId {
        ReplicaId { node: NodeId(node), incarnation }
    }

    fn partition(replicas: &[ReplicaId], adding: &[ReplicaId], removing: &[ReplicaId]) -> Partition {
        let is_changed = !adding.is_empty() || !removing.is_empty();
        let made = Partition {
            adding: adding.to_vec(),
            removing: removing.to_vec(),
            ..Partition::of(replicas.to_vec())
        };
        if is_changed { Partition { next_incarnation: 9, founders: Vec::new(), ..made } } else { made }
    }

    #[test]
    fn each_situation_has_its_way() {
        let (a, b, c) = (life(1, 0), life(2, 0), life(3, 0));
        let alone = partition(&[a], &[], &[]);
        let three = partition(&[b, a, c], &[], &[]);
        let grows = partition(&[a, b, c], &[b, c], &[]);
        let joins = partition(&[b, c, a], &[a], &[]);
        let leaves = partition(&[b, c], &[], &[a]);
        let stays = partition(&[a, c], &[c], &[b]);
        let anew = Partition { unsettled: vec![life(1, 3)], ..partition(&[life(1, 3), b, c], &[], &[c]) };
        let elsewhere = partition(&[b, c], &[], &[]);
        let inherits = partition(&[a, life(2, 1), life(3, 2)], &[], &[]).inherited_by(a);
        let inherits_alone = alone.inherited_by(a);
        let moved_unfounded = alone.moved_to(&[NodeId(3), NodeId(2)]);
        let joins_unfounded = partition(&[b], &[], &[]).moved_to(&[NodeId(2), ME]);
        let cases = [
            ("a new topic with one replica", &alone, Known::Nothing, Some(How::Solo)),
            ("a new topic with three", &three, Known::Nothing, Some(How::Member)),
            ("a restart with one", &alone, Known::Solo, Some(How::Solo)),
            ("a restart with three", &three, Known::Member(a), Some(How::Member)),
            ("the only one is to be one of three", &grows, Known::Solo, Some(How::Genesis)),
            ("and was stopped after its genesis", &grows, Known::Member(a), Some(How::Member)),
            ("added to a group that is there", &joins, Known::Nothing, Some(How::Anew)),
            ("added, and was stopped meanwhile", &joins, Known::Member(a), Some(How::Member)),
            ("to go, but a member still", &leaves, Known::Member(a), Some(How::Member)),
            ("the disk was lost, or its tail is suspect", &anew, Known::Member(a), Some(How::Anew)),
            ("the disk was lost and is empty", &anew, Known::Nothing, Some(How::Anew)),
            ("stays where others come and go, and was away", &stays, Known::Nothing, Some(How::Member)),
            ("moved before it was founded", &moved_unfounded, Known::Nothing, Some(How::Member)),
            ("moved before it has a group", &moved_unfounded, Known::Solo, Some(How::Genesis)),
            ("added to what nobody has founded", &joins_unfounded, Known::Nothing, Some(How::Anew)),
            ("not here", &elsewhere, Known::Nothing, None),
            ("goes on without the others", &inherits, Known::Member(a), Some(How::Member)),
            ("goes on, and was stopped in the middle", &inherits, Known::Solo, Some(How::Genesis)),
            ("goes on as the only one, and was stopped", &inherits_alone, Known::Solo, Some(How::Genesis)),
            ("back where it was alone once, among others now", &joins, Known::Solo, Some(How::Anew)),
        ];
        for (story, partition, known, wanted) in cases {
            assert_eq!(how_to_open(partition, ME, known), wanted, "{story}");
        }
    }
}
