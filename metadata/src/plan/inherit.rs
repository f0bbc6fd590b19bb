//! An unclean election (KIP-460): most replicas of a partition are gone, and one of those that are left goes on with what
//! it has.
//!
//! No election can be won then, and none is held. The controller decides who goes on, the heir, and makes all other
//! replicas new ones: whoever comes back later, with a vote and a log of its own, finds that it has another life, and
//! that one begins empty. So two that go on can never be. What only the others had is lost, which is why somebody must
//! ask for it.

use std::cmp::Reverse;

use ouzel_model::{EntryId, NodeId, ReplicaId, TopicIdPartition};

use super::judge_lost::{Loss, Stand, is_led, is_majority};
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
    if partition.heir.is_some() {
        return Succession::Wait;
    }
    let members = partition.members_before();
    let stand_of =
        |member: ReplicaId| stands.iter().find(|(known, _)| *known == member).map(|(_, stand)| stand);
    let open = members.iter().filter(|member| matches!(stand_of(**member), Some(Stand::Open { .. }))).count();
    let is_silent = |member: &&ReplicaId| stand_of(**member).is_none() && is_live(**member);
    // Of all that it had, those that began anew included: they have nothing to elect a leader with.
    let had = partition.nodes_before().len();
    if is_majority(open, had) {
        return Succession::Wait;
    }
    let silent: Vec<NodeId> = members.iter().filter(is_silent).map(|member| member.node).collect();
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
        (replica(node), Stand::Open { last, voters: Vec::new(), in_sync: Vec::new() })
    }

    fn leads(node: i32, in_sync: &[i32]) -> (ReplicaId, Stand) {
        let list = |nodes: &[i32]| nodes.iter().copied().map(replica).collect();
        let stand = Stand::Open { last: entry(3, 9), voters: list(&[1, 2, 3]), in_sync: list(in_sync) };
        (replica(node), stand)
    }

    fn alone(node: i32) -> (ReplicaId, Stand) {
        let own = vec![replica(node)];
        (replica(node), Stand::Open { last: entry(4, 10), voters: own.clone(), in_sync: own })
    }

    fn lost(node: i32, loss: Loss) -> (ReplicaId, Stand) {
        (replica(node), Stand::Lost(loss))
    }

    #[test]
    fn who_has_most_goes_on_where_nobody_can_be_elected() {
        use Succession::{Heir, Led, Nobody, Silent, Wait};
        let three = Partition::new([1, 2, 3].map(NodeId).to_vec());
        let wiped = three.without_disk_of(NodeId(1)).without_disk_of(NodeId(3));
        let moving = three.moved_to(&[3, 4, 5].map(NodeId));
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
                &moving,
                vec![open(4, entry(3, 9))],
                &[4][..],
                Nobody,
            ),
            ("who was to leave may go on", &moving, vec![open(2, entry(3, 9))], &[2][..], Heir(replica(2))),
        ];
        for (story, partition, stands, live, wanted) in cases {
            let is_live = |replica: ReplicaId| live.contains(&replica.node.0);
            assert_eq!(judge_succession(partition, &stands, is_live), wanted, "{story}");
        }
    }
}
