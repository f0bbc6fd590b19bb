//! An unclean election (KIP-460): most replicas of a partition are gone, and one of those that are left goes on with what
//! it has.
//!
//! No election can be won then, and none is held. The controller decides who goes on, the heir, and makes all other
//! replicas new ones: whoever comes back later, with a vote and a log of its own, finds that it has another life, and
//! that one begins empty. So two that go on can never be. What only the others had is lost, which is why somebody must
//! ask for it.

use std::cmp::Reverse;

use ouzel_model::{EntryId, NodeId, ReplicaId, TopicIdPartition};

use super::judge_lost::{Loss, Stand, can_elect, is_led};
use crate::image::Image;
use crate::partition::Partition;
use crate::record::Record;

/// Who goes on, as far as can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Succession {
    /// Nobody has to go on: one leads, with a majority.
    Led,
    /// This one: nobody who answers has more.
    Heir(ReplicaId),
    /// It is looked again later: a leader is about to be elected, or an heir is named already.
    Wait,
    /// It is looked again later: these may have more, are alive and do not say.
    Silent(Vec<NodeId>),
    /// Nobody who is left has anything.
    Nobody,
}

/// Judges who goes on with a partition, by what the nodes of its holders say. `is_live` says which of
/// them are not taken for dead: those are waited for.
pub fn judge_succession(
    partition: &Partition,
    stands: &[(ReplicaId, Stand)],
    is_live: impl Fn(ReplicaId) -> bool,
) -> Succession {
    if is_led(stands) {
        return Succession::Led;
    }
    if partition.heir.is_some() || can_elect(stands) {
        return Succession::Wait;
    }
    let stand_of =
        |holder: ReplicaId| stands.iter().find(|(known, _)| *known == holder).map(|(_, stand)| stand);
    let members = partition.members_before();
    // Who came with a move may be able to elect with one of these, if it is a voter by anybody's log.
    let may_count =
        |holder: &ReplicaId| members.contains(holder) || stands.iter().any(|(_, stand)| stand.names(*holder));
    let is_silent = |holder: &ReplicaId| stand_of(*holder).is_none() && is_live(*holder);
    let silent = partition.holders().filter(may_count).filter(is_silent);
    let silent: Vec<NodeId> = silent.map(|holder| holder.node).collect();
    if !silent.is_empty() {
        return Succession::Silent(silent);
    }
    let left = members.iter().filter_map(|member| {
        let last: Option<EntryId> = match stand_of(*member)? {
            Stand::Open { last, .. } | Stand::Lost(Loss::Tail(last)) => *last,
            Stand::Lost(Loss::Files) => return None,
        };
        // Of equals, the first.
        Some((last, Reverse(*member)))
    });
    left.max().map_or(Succession::Nobody, |(_, Reverse(heir))| Succession::Heir(heir))
}

/// Decides that a replica goes on. `None` if it is no holder any more, or one is named already: nobody else has anything.
pub fn plan_inherit(image: &Image, at: TopicIdPartition, heir: ReplicaId) -> Option<Record> {
    let partition = image.partition(at)?;
    let may = partition.heir.is_none() && partition.members_before().contains(&heir);
    may.then(|| Record::PartitionChanged {
        topic_id: at.topic_id,
        index: at.partition,
        partition: partition.inherited_by(heir),
    })
}

#[cfg(test)]
mod tests {
    use ouzel_model::{EntryIndex, LeaderEpoch};

    use super::*;

    fn replica(node: i32) -> ReplicaId {
        ReplicaId::first(NodeId(node))
    }

    fn entry(term: i32, index: u64) -> Option<EntryId> {
        Some(EntryId { term: LeaderEpoch(term), index: EntryIndex(index) })
    }

    fn open(node: i32, last: Option<EntryId>) -> (ReplicaId, Stand) {
        (
            replica(node),
            Stand::Open { last, voters: vec![[1, 2, 3].map(replica).to_vec()], in_sync: Vec::new() },
        )
    }

    fn came(node: i32, incarnation: u32) -> ReplicaId {
        ReplicaId { node: NodeId(node), incarnation }
    }

    /// In the middle of a move from the first set of voters to the second.
    fn moving(who: ReplicaId, from: &[ReplicaId], to: &[ReplicaId]) -> (ReplicaId, Stand) {
        let voters = [from, to].into_iter().filter(|set| !set.is_empty()).map(<[_]>::to_vec).collect();
        (who, Stand::Open { last: entry(3, 9), voters, in_sync: Vec::new() })
    }

    fn leads(node: i32, in_sync: &[i32]) -> (ReplicaId, Stand) {
        let list = |nodes: &[i32]| nodes.iter().copied().map(replica).collect();
        let stand = Stand::Open { last: entry(3, 9), voters: vec![list(&[1, 2, 3])], in_sync: list(in_sync) };
        (replica(node), stand)
    }

    fn alone(node: i32) -> (ReplicaId, Stand) {
        let own = vec![replica(node)];
        (replica(node), Stand::Open { last: entry(4, 10), voters: vec![own.clone()], in_sync: own })
    }

    fn lost(node: i32, loss: Loss) -> (ReplicaId, Stand) {
        (replica(node), Stand::Lost(loss))
    }

    #[test]
    fn who_has_most_goes_on_where_nobody_can_be_elected() {
        use Succession::{Heir, Led, Nobody, Silent, Wait};
        let three = Partition::new([1, 2, 3].map(NodeId).to_vec());
        let wiped = three.without_disk_of(NodeId(1)).without_disk_of(NodeId(3));
        let on_its_way = three.moved_to(&[3, 4, 5].map(NodeId));
        let half_gone = three.moved_to(&[1, 2, 4].map(NodeId)).without_disk_of(NodeId(2));
        let (before, after) = ([1, 2, 3].map(replica), [replica(3), came(4, 1), came(5, 2)]);
        let without_4 = [replica(1), replica(2), came(4, 1)];
        let named = wiped.inherited_by(replica(2));
        let tail = |node, last| lost(node, Loss::Tail(last));
        let (all, only_2) = (&[1, 2, 3, 4, 5][..], &[2][..]);
        let cases = [
            ("one of three is left", &three, vec![open(2, entry(3, 9))], only_2, Heir(replica(2))),
            ("two are, and elect", &three, vec![open(2, entry(3, 9)), open(1, None)], all, Wait),
            ("one leads", &three, vec![leads(2, &[1, 2]), open(1, None)], all, Led),
            ("one believes that it leads", &three, vec![leads(2, &[1, 2, 3])], &[2][..], Heir(replica(2))),
            ("who went on leads by itself", &named, vec![alone(2)], all, Led),
            ("one is slow", &three, vec![open(2, entry(3, 9))], &[2, 3][..], Silent(vec![NodeId(3)])),
            ("the others came back empty", &wiped, vec![open(2, entry(3, 9))], all, Heir(replica(2))),
            ("its power was cut as well", &wiped, vec![tail(2, entry(3, 9))], all, Heir(replica(2))),
            (
                "a newer reign counts for more than a longer log",
                &three,
                vec![tail(1, entry(2, 99)), tail(2, entry(3, 9)), lost(3, Loss::Files)],
                all,
                Heir(replica(2)),
            ),
            (
                "of equals the first",
                &three,
                vec![tail(3, entry(2, 9)), tail(2, entry(2, 9))],
                &[][..],
                Heir(replica(2)),
            ),
            ("nothing is left", &three, vec![lost(1, Loss::Files), lost(2, Loss::Files)], &[][..], Nobody),
            ("nobody is there", &three, vec![], &[][..], Nobody),
            ("somebody goes on already", &named, vec![open(2, entry(3, 9))], all, Wait),
            (
                "who came with a move has nothing for sure",
                &on_its_way,
                vec![moving(came(4, 1), &before, &[])],
                &[4][..],
                Nobody,
            ),
            (
                "unless it is a voter by what another has: it is waited for",
                &on_its_way,
                vec![moving(replica(3), &after, &[])],
                &[3, 4][..],
                Silent(vec![NodeId(4)]),
            ),
            (
                "a new life is not the voter whose name the group has",
                &half_gone,
                vec![
                    moving(replica(1), &before, &without_4),
                    (came(2, 2), Stand::Open { last: None, voters: Vec::new(), in_sync: Vec::new() }),
                    moving(replica(3), &before, &without_4),
                    (came(4, 1), Stand::Lost(Loss::Files)),
                ],
                all,
                Heir(replica(1)),
            ),
            (
                "who was to leave may go on",
                &on_its_way,
                vec![open(2, entry(3, 9))],
                &[2][..],
                Heir(replica(2)),
            ),
        ];
        for (story, partition, stands, live, wanted) in cases {
            let is_live = |replica: ReplicaId| live.contains(&replica.node.0);
            assert_eq!(judge_succession(partition, &stands, is_live), wanted, "{story}");
        }
    }
}
