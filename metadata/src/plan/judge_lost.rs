//! A node finds that it cannot vouch for a replica: what becomes of it.
//!
//! A replica counts towards a quorum by what it has acknowledged. One whose files are gone, or whose end a power cut may
//! have taken, must not go on as the one it was as long as others have what it acknowledged: it begins a new life, as
//! somebody nobody relies on, and is filled by the others. Only where so many are in that state that the others cannot
//! elect a leader without them is there nothing better than what they have left: then they go on as who they are, the one
//! with most first, and what none of them has any more is lost.
//!
//! That is decided on answers, never on silence: a replica that is slow or away may hold what the others lost.

use ouzel_model::{EntryId, ReplicaId};

use crate::partition::Partition;

/// What a node found of a replica when it opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its files are gone.
    Files,
    /// The end of its log may be; this is the newest entry it has left.
    Tail(Option<EntryId>),
}

/// How a replica stands, in its node's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It is open, and vouches for what it acknowledged. If it leads: its voters, and those of them that are in sync.
    Open {
        /// The newest entry it has.
        last: Option<EntryId>,
        /// Empty where it does not lead.
        voters: Vec<ReplicaId>,
        /// Empty where it does not lead.
        in_sync: Vec<ReplicaId>,
    },
    /// It cannot vouch for it, and waits to be told what to do.
    Lost(Loss),
}

/// What becomes of a replica that its node cannot vouch for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It begins a new life: a leader goes on without it.
    Anew,
    /// It goes on as it is: nobody can have more who is there, and without it there will be no leader.
    GoOn,
    /// It asks again later.
    Wait,
}

/// Judges the replica `asking` of a partition by what the nodes of all its holders say; who did not answer is not in
/// `stands`. `is_lasting`: [all have answered](all_have_answered) for so long that whoever of them can elect a leader has.
pub fn judge_lost(
    partition: &Partition,
    asking: ReplicaId,
    stands: &[(ReplicaId, Stand)],
    is_lasting: bool,
) -> Verdict {
    if partition.heir.is_some_and(|heir| heir.replica == asking) {
        // It hears of it with the decision.
        return Verdict::Wait;
    }
    if is_led(stands) {
        return Verdict::Anew;
    }
    let vouches = |replica: &ReplicaId| vouches(stands, *replica);
    // They elect without its help. While it moves nobody but its leader knows who the members are: those before the move,
    // those after it, or both; of whom an earlier move has left behind nobody knows that much.
    let after = partition.replicas.iter().filter(|replica| vouches(replica)).count();
    let before = partition.members_before().into_iter().filter(|replica| vouches(replica)).count();
    let elect_without = !partition.is_abandoning()
        && is_majority(after, partition.replicas.len())
        && is_majority(before, partition.nodes_before().len());
    if !is_lasting || !all_have_answered(partition, stands) || elect_without {
        return Verdict::Wait;
    }
    // By what it has left; of equals, the first.
    let tail = |(replica, stand): &(ReplicaId, Stand)| match stand {
        Stand::Lost(Loss::Tail(last)) => Some((*last, std::cmp::Reverse(*replica))),
        _ => None,
    };
    let longest = stands.iter().filter_map(tail).max();
    if longest.is_some_and(|(_, std::cmp::Reverse(replica))| replica == asking) {
        Verdict::GoOn
    } else {
        Verdict::Wait
    }
}

/// Whether every replica that may hold the partition is among these: nothing is decided on silence.
pub fn all_have_answered(partition: &Partition, stands: &[(ReplicaId, Stand)]) -> bool {
    partition.holders().all(|holder| stands.iter().any(|(known, _)| *known == holder))
}

/// Whether one of these leads with a majority of its voters in sync that vouch for what they have.
pub(super) fn is_led(stands: &[(ReplicaId, Stand)]) -> bool {
    let leads = |stand: &Stand| match stand {
        Stand::Open { voters, in_sync, .. } => {
            // A leader counts who is back as in sync until it shows that it is not: they are asked themselves.
            let sound = in_sync.iter().filter(|replica| vouches(stands, **replica)).count();
            !voters.is_empty() && is_majority(sound, voters.len())
        }
        Stand::Lost(_) => false,
    };
    stands.iter().any(|(_, stand)| leads(stand))
}

fn vouches(stands: &[(ReplicaId, Stand)], replica: ReplicaId) -> bool {
    stands.iter().any(|(known, stand)| *known == replica && matches!(stand, Stand::Open { .. }))
}

pub(super) fn is_majority(count: usize, of: usize) -> bool {
    count > of / 2
}

#[cfg(test)]
mod tests {
    use ouzel_model::{EntryIndex, LeaderEpoch, NodeId};

    use super::*;

    fn replica(node: i32) -> ReplicaId {
        ReplicaId::first(NodeId(node))
    }

    fn on(nodes: &[i32]) -> Partition {
        Partition::new(nodes.iter().copied().map(NodeId).collect())
    }

    fn entry(index: u64) -> Option<EntryId> {
        Some(EntryId { term: LeaderEpoch(2), index: EntryIndex(index) })
    }

    fn tail(node: i32, index: u64) -> (ReplicaId, Stand) {
        (replica(node), Stand::Lost(Loss::Tail(entry(index))))
    }

    fn files(node: i32) -> (ReplicaId, Stand) {
        (replica(node), Stand::Lost(Loss::Files))
    }

    fn follows(node: i32) -> (ReplicaId, Stand) {
        (replica(node), Stand::Open { last: None, voters: Vec::new(), in_sync: Vec::new() })
    }

    fn leads(node: i32, in_sync: &[i32]) -> (ReplicaId, Stand) {
        let list = |nodes: &[i32]| nodes.iter().copied().map(replica).collect();
        (replica(node), Stand::Open { last: None, voters: list(&[1, 2, 3]), in_sync: list(in_sync) })
    }

    #[test]
    fn each_situation_has_its_verdict() {
        use Verdict::{Anew, GoOn, Wait};
        let cases = [
            ("one of three, the others go on", vec![tail(1, 9), leads(2, &[2, 3]), follows(3)], Anew),
            ("its files are gone, the others go on", vec![files(1), leads(2, &[2, 3]), follows(3)], Anew),
            ("the third one does not answer, and is in sync", vec![tail(1, 9), leads(2, &[2, 3])], Wait),
            ("the leader believes it to be in sync", vec![tail(1, 9), leads(2, &[1, 2])], Wait),
            ("the others are about to elect", vec![tail(1, 9), follows(2), follows(3)], Wait),
            ("one of the others is slow", vec![tail(1, 9), follows(2)], Wait),
            ("both others are away", vec![tail(1, 9)], Wait),
            ("two of three, and the third is away", vec![tail(1, 9), tail(2, 8)], Wait),
            (
                "two of three, and the third cannot lead alone",
                vec![tail(1, 9), tail(2, 8), leads(3, &[3])],
                GoOn,
            ),
            ("as it was when the power went", vec![tail(1, 9), tail(2, 8), leads(3, &[1, 2, 3])], GoOn),
            ("all of them, and it has most", vec![tail(1, 9), tail(2, 8), tail(3, 9)], GoOn),
            ("all of them, and another has more", vec![tail(1, 9), tail(2, 10), tail(3, 9)], Wait),
            ("as many have it, and another is first", vec![tail(3, 9), tail(2, 9), tail(1, 8)], Wait),
            ("one that has most goes on already", vec![tail(1, 9), tail(2, 8), follows(3)], GoOn),
            ("its files are gone, and those of another", vec![files(1), files(2), follows(3)], Wait),
            ("its files are gone, others lost less", vec![files(1), tail(2, 3), tail(3, 4)], Wait),
            ("it has some of it, others have none", vec![tail(1, 9), files(2), files(3)], GoOn),
        ];
        for (story, stands, wanted) in cases {
            assert_eq!(judge_lost(&on(&[1, 2, 3]), replica(1), &stands, true), wanted, "{story}");
            let at_once = if wanted == GoOn { Wait } else { wanted };
            assert_eq!(judge_lost(&on(&[1, 2, 3]), replica(1), &stands, false), at_once, "{story}, at once");
        }
    }

    /// While a partition moves, those it moves to may be the members already: they are heard as well.
    #[test]
    fn a_move_on_its_way_is_judged_by_all_who_may_be_members() {
        let moving = on(&[1, 2, 3]).moved_to(&[NodeId(4), NodeId(2), NodeId(3)]);
        let comes = ReplicaId { node: NodeId(4), incarnation: 1 };
        let open = |replica| (replica, Stand::Open { last: None, voters: Vec::new(), in_sync: Vec::new() });
        let mut stands = vec![tail(1, 9), follows(2), follows(3)];
        assert_eq!(judge_lost(&moving, replica(1), &stands, true), Verdict::Wait, "node 4 has not answered");
        stands.push(open(comes));
        assert_eq!(
            judge_lost(&moving, replica(1), &stands, true),
            Verdict::Wait,
            "2 and 3 elect, or 3 and 4"
        );
        stands[1] = leads(2, &[2, 3]);
        assert_eq!(judge_lost(&moving, replica(1), &stands, true), Verdict::Anew);
        stands[1] = tail(2, 8);
        assert_eq!(judge_lost(&moving, replica(1), &stands, true), Verdict::GoOn, "3 is one of three");
    }

    /// Five replicas, one of which began a new life after a power cut; before its group had it in, another machine lost its
    /// power, and then all were started again. The other three can elect, but for as long as the partition was on its way
    /// that was not looked at: the second one went on with a tail that may have been short, and its vote counted.
    #[test]
    fn whoever_is_not_needed_while_another_begins_anew_waits() {
        let moving = on(&[1, 2, 3, 4, 5]).without_disk_of(NodeId(3));
        let open = |replica| (replica, Stand::Open { last: None, voters: Vec::new(), in_sync: Vec::new() });
        let reborn = ReplicaId { node: NodeId(3), incarnation: 1 };
        let mut stands = vec![follows(1), tail(2, 130), open(reborn), follows(4), follows(5)];
        assert_eq!(judge_lost(&moving, replica(2), &stands, true), Verdict::Wait);
        stands[3] = tail(4, 120);
        assert_eq!(judge_lost(&moving, replica(2), &stands, true), Verdict::GoOn, "1 and 5 are two of five");
    }

    /// Replayed from the power cut on: one after the other goes on, the longest first, until they can elect; whoever is
    /// left then begins anew. At no step does one go on while a longer one waits.
    #[test]
    fn after_a_power_cut_of_all_the_longest_logs_go_on() {
        let lengths = [(1, 7), (2, 9), (3, 8)];
        let mut stands: Vec<_> = lengths.iter().map(|(node, index)| tail(*node, *index)).collect();
        let mut went_on = Vec::new();
        for _ in 0..2 {
            let verdicts: Vec<_> = lengths
                .iter()
                .map(|(node, _)| judge_lost(&on(&[1, 2, 3]), replica(*node), &stands, true))
                .collect();
            let next =
                (0..3).find(|at| verdicts[*at] == Verdict::GoOn && matches!(stands[*at].1, Stand::Lost(_)));
            let next = next.expect("one goes on");
            stands[next].1 = Stand::Open { last: None, voters: Vec::new(), in_sync: Vec::new() };
            went_on.push(lengths[next].0);
        }
        assert_eq!(went_on, [2, 3]);
        assert_eq!(judge_lost(&on(&[1, 2, 3]), replica(1), &stands, true), Verdict::Wait, "they elect");
        stands[1] = leads(2, &[2, 3]);
        assert_eq!(judge_lost(&on(&[1, 2, 3]), replica(1), &stands, true), Verdict::Anew);
    }
}
