//! A node finds that it cannot vouch for a replica: what becomes of it.
//!
//! A replica counts towards a quorum by what it has acknowledged. One whose files are gone, or whose end a power cut may
//! have taken, must not go on as the one it was as long as others have what it acknowledged: it begins a new life, as
//! somebody nobody relies on, and is filled by the others. Only where so many are in that state that the others cannot
//! elect a leader without them is there nothing better than what they have left: then they go on as who they are, the one
//! with most first, and what none of them has any more is lost.
//!
//! Who can elect is judged as Raft does: by the voters in each replica's own log, which is what it would stand with. What the
//! controller has decided does not tell: a group comes to it in steps of its own, and the name of a new life may be decided
//! long before the group, which counts on the old one, has heard of it.
//!
//! All that is decided on answers, never on silence: a replica that is slow or away may hold what the others lost.

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
    /// It is open, and vouches for what it acknowledged.
    Open {
        /// The newest entry it has.
        last: Option<EntryId>,
        /// The voters as of there, committed or not: one set, two while they change, none if it knows of none yet.
        voters: Vec<Vec<ReplicaId>>,
        /// Those of the voters that are in sync, if it leads. Empty where it does not.
        in_sync: Vec<ReplicaId>,
    },
    /// It cannot vouch for it, and waits to be told what to do.
    Lost(Loss),
}

impl Stand {
    /// Whether it counts this one among the voters.
    pub(super) fn names(&self, replica: ReplicaId) -> bool {
        match self {
            Stand::Open { voters, .. } => voters.iter().flatten().any(|voter| *voter == replica),
            Stand::Lost(_) => false,
        }
    }
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
    // They elect without its help.
    if !is_lasting || !all_have_answered(partition, stands) || can_elect(stands) {
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
///
/// A voter in somebody's log that is no holder is not waited for: it is gone for good. Either it lost what it had, and its
/// node has another life of it; it does not vote again. Or the members were reported to be others, which they are only once
/// that is committed: a majority of those has all that was ever acknowledged, and the one that was let go of may have
/// deleted what it had. Where they lost it again, an election with the one that was let go of would bring back less than
/// the longest of what they have left.
pub fn all_have_answered(partition: &Partition, stands: &[(ReplicaId, Stand)]) -> bool {
    partition.holders().all(|holder| stands.iter().any(|(known, _)| *known == holder))
}

/// Whether one of these leads with a majority of its voters in sync that vouch for what they have.
pub(super) fn is_led(stands: &[(ReplicaId, Stand)]) -> bool {
    let leads = |stand: &Stand| match stand {
        // A leader counts who is back as in sync until it shows that it is not: they are asked themselves.
        Stand::Open { voters, in_sync, .. } => {
            is_quorum(voters, |voter| in_sync.contains(voter) && vouched_for(stands, *voter).is_some())
        }
        Stand::Lost(_) => false,
    };
    stands.iter().any(|(_, stand)| leads(stand))
}

/// Whether one of those that vouch for what they have can be elected by the others of them. That is one whose log comes up to
/// those of a majority of its voters, as its own log names them: another life of a voter is not that voter, and one
/// without voters, a new life that waits to be filled, cannot stand. Nor does one that is no voter any more by its own
/// log: its node would not have it stand, though it could win until that is committed.
pub(super) fn can_elect(stands: &[(ReplicaId, Stand)]) -> bool {
    stands.iter().any(|(candidate, stand)| match stand {
        Stand::Open { last, voters, .. } => {
            // Who votes need not know that it may.
            let votes = |voter: &ReplicaId| vouched_for(stands, *voter).is_some_and(|has| has <= *last);
            stand.names(*candidate) && is_quorum(voters, votes)
        }
        Stand::Lost(_) => false,
    })
}

/// The newest entry of a replica that vouches for what it has.
fn vouched_for(stands: &[(ReplicaId, Stand)], replica: ReplicaId) -> Option<Option<EntryId>> {
    stands.iter().find_map(|(known, stand)| match stand {
        Stand::Open { last, .. } if *known == replica => Some(*last),
        _ => None,
    })
}

/// Whether those that `counts` says are a majority of each set of voters.
fn is_quorum(voters: &[Vec<ReplicaId>], counts: impl Fn(&ReplicaId) -> bool) -> bool {
    let is_majority = |set: &Vec<ReplicaId>| set.iter().filter(|voter| counts(voter)).count() > set.len() / 2;
    !voters.is_empty() && voters.iter().all(is_majority)
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

    /// One of the voters 1, 2 and 3.
    fn follows(node: i32) -> (ReplicaId, Stand) {
        leads(node, &[])
    }

    /// One of the voters 1, 2 and 3.
    fn leads(node: i32, in_sync: &[i32]) -> (ReplicaId, Stand) {
        let list = |nodes: &[i32]| nodes.iter().copied().map(replica).collect();
        (replica(node), Stand::Open { last: None, voters: vec![list(&[1, 2, 3])], in_sync: list(in_sync) })
    }

    /// `4.1`
    fn id(name: &str) -> ReplicaId {
        let (node, incarnation) = name.split_once('.').expect("a node and an incarnation");
        let number = |digits: &str| digits.parse().expect("a number");
        ReplicaId { node: NodeId(number(node)), incarnation: number(incarnation).unsigned_abs() }
    }

    /// `1.0 2.0 3.0 and 1.0 2.0 4.1`
    fn sets(names: &str) -> Vec<Vec<ReplicaId>> {
        names.split(" and ").map(|set| set.split_whitespace().map(id).collect()).collect()
    }

    /// One that follows, with entries up to an index and the voters its log has there.
    fn open(name: &str, index: u64, voters: &str) -> (ReplicaId, Stand) {
        (id(name), Stand::Open { last: entry(index), voters: sets(voters), in_sync: Vec::new() })
    }

    /// A new life that waits to be filled.
    fn empty(name: &str) -> (ReplicaId, Stand) {
        (id(name), Stand::Open { last: None, voters: Vec::new(), in_sync: Vec::new() })
    }

    fn cut(name: &str, index: u64) -> (ReplicaId, Stand) {
        (id(name), Stand::Lost(Loss::Tail(entry(index))))
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
        let mut stands = vec![tail(1, 9), tail(2, 8), follows(3)];
        assert_eq!(judge_lost(&moving, replica(1), &stands, true), Verdict::Wait, "node 4 has not answered");
        stands.push(empty("4.1"));
        stands[1] = follows(2);
        assert_eq!(judge_lost(&moving, replica(1), &stands, true), Verdict::Wait, "2 and 3 elect");
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
        let member = |name| open(name, 140, "1.0 2.0 3.0 4.0 5.0");
        let mut stands = vec![member("1.0"), tail(2, 130), empty("3.1"), member("4.0"), member("5.0")];
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
            let (node, index) = lengths[next];
            stands[next] = open(&format!("{node}.0"), index, "1.0 2.0 3.0");
            went_on.push(node);
        }
        assert_eq!(went_on, [2, 3]);
        assert_eq!(judge_lost(&on(&[1, 2, 3]), replica(1), &stands, true), Verdict::Wait, "they elect");
        stands[1] = leads(2, &[2, 3]);
        assert_eq!(judge_lost(&on(&[1, 2, 3]), replica(1), &stands, true), Verdict::Anew);
    }

    /// Three replicas were being moved, 4.1 for 3.0, and had both memberships in their logs when 2.0 lost the end of its
    /// log to a power cut: the leader went on, and 2.2 was to come in its place. All were killed before the group had heard of
    /// that, and then 4.1 lost its power as well. Of 1.0, 2.0 and 4.1 two were gone, so nobody could be elected; but the
    /// controller counted 2.2, which was open, and had nothing, among the three that are to be: two of them vouched, they were
    /// to elect. 4.1 waited for that, and the partition had no leader. Found by the simulation of groups, write-caching.
    #[test]
    fn a_new_life_is_not_the_voter_that_the_group_counts_on() {
        let moving = on(&[1, 2, 3]).moved_to(&[1, 2, 4].map(NodeId)).without_disk_of(NodeId(2));
        assert_eq!(moving.replicas, [id("1.0"), id("2.2"), id("4.1")]);
        let member = |name| open(name, 75, "1.0 2.0 3.0 and 1.0 2.0 4.1");
        let mut stands = vec![cut("4.1", 75), member("1.0"), empty("2.2"), member("3.0")];
        assert_eq!(judge_lost(&moving, id("4.1"), &stands, true), Verdict::GoOn);
        assert_eq!(
            judge_lost(&moving, id("4.1"), &stands, false),
            Verdict::Wait,
            "2.0 was away until just now"
        );
        // It goes on, and they elect: 2.2 has no part in it, whatever becomes of it.
        stands[0] = member("4.1");
        stands[2] = cut("2.2", 60);
        assert_eq!(judge_lost(&moving, id("2.2"), &stands, true), Verdict::Wait);
    }

    /// Who can be elected is Raft's to say: by the voters in each log, and by whose log comes up to whose.
    #[test]
    fn those_elect_whose_own_voters_let_them() {
        use Verdict::{GoOn, Wait};
        let moving = on(&[1, 2, 3]).moved_to(&[3, 4, 5].map(NodeId));
        let (before, after) = ("1.0 2.0 3.0", "3.0 4.1 5.2");
        let both = "1.0 2.0 3.0 and 3.0 4.1 5.2";
        let given_up = moving.moved_to(&[1, 2, 3].map(NodeId));
        let cases = [
            (
                "the longer log's voters are gone, a shorter one's are there",
                &moving,
                vec![open("1.0", 8, before), open("2.0", 8, before), cut("3.0", 9), open("4.1", 9, both)],
                cut("5.2", 0),
                Wait,
            ),
            (
                "the shorter one needs the vote of the longer one",
                &moving,
                vec![open("1.0", 8, before), open("2.0", 9, both), cut("3.0", 9), open("4.1", 9, both)],
                cut("5.2", 10),
                GoOn,
            ),
            (
                "the same, and another has more left",
                &moving,
                vec![open("1.0", 8, before), open("2.0", 9, both), cut("3.0", 9), open("4.1", 9, both)],
                cut("5.2", 8),
                Wait,
            ),
            (
                "a majority of each",
                &moving,
                vec![open("1.0", 9, both), cut("2.0", 9), open("3.0", 9, both), open("4.1", 7, both)],
                cut("5.2", 10),
                Wait,
            ),
            (
                "a majority of all, and not of those to be",
                &moving,
                vec![open("1.0", 9, both), open("2.0", 9, both), open("3.0", 9, both), cut("4.1", 9)],
                cut("5.2", 10),
                GoOn,
            ),
            (
                "it has arrived: those of before are needed no more",
                &moving,
                vec![cut("1.0", 9), cut("2.0", 9), open("3.0", 12, after), open("4.1", 11, both)],
                cut("5.2", 10),
                Wait,
            ),
            (
                "one knows that it is no voter any more: nobody has it stand, and the others need it",
                &moving,
                vec![open("1.0", 12, after), cut("2.0", 9), open("3.0", 11, both), open("4.1", 11, both)],
                cut("5.2", 11),
                GoOn,
            ),
            (
                "given up before the members changed",
                &given_up,
                vec![open("1.0", 9, before), open("2.0", 9, before), cut("3.0", 8), open("4.1", 7, before)],
                cut("5.2", 10),
                Wait,
            ),
            (
                "given up in the middle",
                &given_up,
                vec![open("1.0", 9, both), open("2.0", 9, both), cut("3.0", 8), open("4.1", 7, both)],
                cut("5.2", 10),
                GoOn,
            ),
        ];
        for (story, partition, mut stands, asking, wanted) in cases {
            let (who, _) = asking;
            stands.push(asking);
            assert_eq!(judge_lost(partition, who, &stands, true), wanted, "{story}");
        }
    }

    /// A leader in the middle of a change needs a majority of each set, and of all together neither too many nor too few.
    #[test]
    fn a_leader_leads_with_a_majority_of_each_set() {
        let moving = on(&[1, 2, 3]).moved_to(&[1, 2, 4].map(NodeId));
        let both = "1.0 2.0 3.0 and 1.0 2.0 4.1";
        let leads = |in_sync: &str| {
            let in_sync = sets(in_sync).concat();
            (id("1.0"), Stand::Open { last: entry(9), voters: sets(both), in_sync })
        };
        let mut stands =
            vec![cut("2.0", 9), leads("1.0 3.0 4.1"), open("3.0", 9, both), open("4.1", 9, both)];
        assert_eq!(judge_lost(&moving, id("2.0"), &stands, false), Verdict::Anew);
        stands[1] = leads("1.0 2.0 3.0");
        assert_eq!(judge_lost(&moving, id("2.0"), &stands, false), Verdict::Wait, "4.1 is behind");
        let stands = vec![leads("1.0 2.0"), open("2.0", 9, both), cut("3.0", 9), open("4.1", 7, both)];
        assert_eq!(judge_lost(&moving, id("3.0"), &stands, false), Verdict::Anew, "two of either three");
    }
}
