//! Which voters are in sync, as clients see it, and when each member was last caught up. Pure: progress and times in, a set out.
//!
//! A voter is in sync if it held everything the leader had at some moment within the last `lag_time_max`
//! (`replica.lag.time.max.ms`), and its node answers. Kafka's rule, with Raft's matched entry in the place of the fetch
//! offset.
//!
//! A process that is started again answers before its replicas are open, and some of them may never be: their files are
//! gone, or nobody can vouch for them. So a voter there is in sync again when it has been heard itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ouzel_model::{EntryIndex, NodeId, ReplicaId};
use ouzel_runtime::clock::Instant;

use crate::types::Members;

/// What a leader knows of its members' lag.
#[derive(Debug, Default)]
pub(crate) struct InSync {
    members: BTreeMap<ReplicaId, Lag>,
    /// Nodes that do not answer, and since when.
    silent: BTreeMap<NodeId, Instant>,
    /// Voters of processes that were started again, which have not been heard since.
    unheard: BTreeSet<ReplicaId>,
}

#[derive(Clone, Copy, Debug)]
struct Lag {
    votes: bool,
    /// When it last held all there was; a new one is given the moment it was first looked at.
    caught_up_at: Instant,
    /// Whether it ever held all there was.
    was_caught_up: bool,
    /// What it held when it was last looked at.
    matched: Option<EntryIndex>,
    /// Once it holds this entry, it was caught up at that time.
    aim: Option<(EntryIndex, Instant)>,
}

/// When a leader last knew a member well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSeen {
    /// When its node answered last, to the precision of what notices that one does not;
    /// `None` if never.
    pub heard_at: Option<Instant>,
    /// When it last held all that the leader had; `None` if never in this reign.
    pub caught_up_at: Option<Instant>,
}

impl InSync {
    /// A reign begins: whoever votes is taken to be in sync until it shows that it is not.
    pub(crate) fn begin(&mut self) {
        self.members.clear();
        self.unheard.clear();
    }

    /// A node fell silent, or answers again.
    pub(crate) fn note_node(&mut self, node: NodeId, is_up: bool, now: Instant) {
        if is_up {
            self.silent.remove(&node);
        } else {
            self.silent.entry(node).or_insert(now);
        }
    }

    /// Another process answers in a node's place. Gives the voters there who are to be heard from now on: whoever is open may
    /// have spoken before this was noted, and have no reason to speak again. Who was to be heard before is asked already.
    pub(crate) fn note_restart(&mut self, node: NodeId) -> Vec<ReplicaId> {
        let is_there = |(member, lag): &(&ReplicaId, &Lag)| lag.votes && member.node == node;
        let there = self.members.iter().filter(is_there).map(|(voter, _)| *voter);
        there.filter(|voter| self.unheard.insert(*voter)).collect()
    }

    /// Whether a voter is there that has not been heard since its process was started again.
    pub(crate) fn is_unheard(&self, voter: ReplicaId) -> bool {
        self.unheard.contains(&voter)
    }

    /// A voter was heard; whether that is news.
    pub(crate) fn hear(&mut self, voter: ReplicaId) -> bool {
        self.unheard.remove(&voter)
    }

    /// Takes note of what the members hold, some of whom vote, while the leader's own log ends with `last`.
    pub(crate) fn observe(
        &mut self,
        now: Instant,
        last: Option<EntryIndex>,
        members: &[(ReplicaId, Option<EntryIndex>)],
        voters: &[ReplicaId],
    ) {
        self.members.retain(|member, _| members.iter().any(|(known, _)| known == member));
        self.unheard.retain(|voter| voters.contains(voter));
        for (member, matched) in members {
            let votes = voters.contains(member);
            let new = Lag { votes, caught_up_at: now, was_caught_up: false, matched: *matched, aim: None };
            let lag = self.members.entry(*member).or_insert(new);
            lag.votes = votes;
            if lag.matched != *matched {
                // It has answered.
                self.unheard.remove(member);
                lag.matched = *matched;
            }
            if *matched >= last {
                *lag = Lag { was_caught_up: true, ..new };
                continue;
            }
            let Some(last) = last else { continue };
            match lag.aim {
                Some((aim, at)) if *matched >= Some(aim) => {
                    *lag = Lag { caught_up_at: at, was_caught_up: true, aim: Some((last, now)), ..*lag };
                }
                Some(_) => {}
                None => {
                    // It held all there was until this entry came, however long nothing did before, or until its node fell
                    // silent.
                    lag.caught_up_at = self.silent.get(&member.node).copied().unwrap_or(now);
                    lag.aim = Some((last, now));
                }
            }
        }
    }

    /// When a member was last known well, whose node answers now or does not.
    pub(crate) fn last_seen(&self, now: Instant, member: ReplicaId, is_up: bool) -> LastSeen {
        // A node that has been silent since before this replica was opened was never heard here.
        let heard_at = self.silent.get(&member.node).copied().or(is_up.then_some(now));
        let caught_up_at = self.members.get(&member).filter(|lag| lag.was_caught_up).and_then(|lag| {
            let is_idle = lag.aim.is_none() && !self.unheard.contains(&member);
            if is_idle { heard_at } else { Some(lag.caught_up_at) }
        });
        LastSeen { heard_at, caught_up_at }
    }

    /// The voters in sync, in the order of their ids. `me` leads and always is.
    pub(crate) fn in_sync(
        &self,
        now: Instant,
        lag_time_max: Duration,
        me: ReplicaId,
    ) -> impl Iterator<Item = ReplicaId> {
        let is_in_sync = move |voter: &ReplicaId, lag: &Lag| {
            *voter == me
                || (!self.silent.contains_key(&voter.node)
                    && !self.unheard.contains(voter)
                    && (lag.aim.is_none() || now.duration_since(lag.caught_up_at) <= lag_time_max))
        };
        self.members
            .iter()
            .filter(move |(member, lag)| lag.votes && is_in_sync(member, lag))
            .map(|(voter, _)| *voter)
    }

    /// When the set changes if nothing else happens.
    pub(crate) fn next_change(&self, now: Instant, lag_time_max: Duration, me: ReplicaId) -> Option<Instant> {
        let is_lagging =
            |(member, lag): &(&ReplicaId, &Lag)| lag.votes && **member != me && lag.aim.is_some();
        let lagging = self.members.iter().filter(is_lagging);
        lagging
            .map(|(_, lag)| lag.caught_up_at + lag_time_max + Duration::from_millis(1))
            .filter(|at| *at > now)
            .min()
    }
}

/// The newest entry that at least `count` of the voters hold; the leader's own is among them.
pub(crate) fn held_by(count: usize, voters: &[(ReplicaId, Option<EntryIndex>)]) -> Option<EntryIndex> {
    let mut held: Vec<_> = voters.iter().map(|(_, matched)| *matched).collect();
    held.sort_unstable_by(|one, other| other.cmp(one));
    held.get(count.saturating_sub(1)).copied().flatten()
}

/// Whether acks=all can be answered with these alone: they are as many as `in_sync_min` asks for, and a majority of the voters;
/// of the old and of the new ones, each for themselves, while a change of members is under way.
pub(crate) fn is_enough(in_sync: &[ReplicaId], members: &Members, in_sync_min: usize) -> bool {
    let is_majority = |set: &BTreeSet<u64>| {
        set.iter().filter(|voter| in_sync.contains(&ReplicaId::from_u64(**voter))).count() > set.len() / 2
    };
    in_sync.len() >= in_sync_min && members.get_joint_config().iter().all(is_majority)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(10);

    fn replica(node: i32) -> ReplicaId {
        ReplicaId::first(NodeId(node))
    }

    const BOTH: [ReplicaId; 2] = [ReplicaId::first(NodeId(1)), ReplicaId::first(NodeId(2))];

    fn at(index: u64) -> Option<EntryIndex> {
        Some(EntryIndex(index))
    }

    #[test]
    fn a_voter_falls_out_when_it_was_not_caught_up_for_too_long() {
        ouzel_runtime::sim::run(1, |node| async move {
            let clock = node.runtime().clock;
            let start = clock.now();
            let after = |seconds| start + Duration::from_secs(seconds);
            let mut set = InSync::default();
            let see = |set: &mut InSync, now, last, second| {
                set.observe(now, at(last), &[(replica(1), at(last)), (replica(2), at(second))], &BOTH);
            };
            see(&mut set, start, 5, 5);
            assert_eq!(set.in_sync(start, LAG, replica(1)).collect::<Vec<_>>(), [replica(1), replica(2)]);
            // It stops at 5 while the leader goes on.
            see(&mut set, after(1), 6, 5);
            assert_eq!(
                set.next_change(after(1), LAG, replica(1)),
                Some(after(11) + Duration::from_millis(1))
            );
            see(&mut set, after(9), 9, 5);
            assert_eq!(set.in_sync(after(9), LAG, replica(1)).count(), 2);
            assert_eq!(set.in_sync(after(11), LAG, replica(1)).count(), 2);
            assert_eq!(set.in_sync(after(12), LAG, replica(1)).collect::<Vec<_>>(), [replica(1)]);
            // It has what there was at second 1, which is too long ago by now.
            see(&mut set, after(12), 9, 6);
            assert_eq!(set.in_sync(after(12), LAG, replica(1)).collect::<Vec<_>>(), [replica(1)]);
            // And now what there was at second 12, though the leader has gone on again.
            see(&mut set, after(13), 20, 9);
            assert_eq!(set.in_sync(after(13), LAG, replica(1)).count(), 2);
        });
    }

    #[test]
    fn an_idle_voter_stays_in_sync_while_its_node_answers() {
        ouzel_runtime::sim::run(1, |node| async move {
            let start = node.runtime().clock.now();
            let later = start + Duration::from_secs(3600);
            let mut set = InSync::default();
            set.observe(start, at(5), &[(replica(1), at(5)), (replica(2), at(5))], &BOTH);
            assert_eq!(set.in_sync(later, LAG, replica(1)).count(), 2);
            set.note_node(NodeId(2), false, later);
            assert_eq!(set.in_sync(later, LAG, replica(1)).collect::<Vec<_>>(), [replica(1)]);
            set.note_node(NodeId(2), true, later);
            assert_eq!(set.in_sync(later, LAG, replica(1)).count(), 2);
        });
    }

    /// The first entry after an idle time longer than the lag allowed had every follower out of sync until it answered: with
    /// acks=all a second batch in that moment was refused, and all tools showed it.
    #[test]
    fn an_entry_after_a_long_idle_time_puts_nobody_out_of_sync() {
        ouzel_runtime::sim::run(1, |node| async move {
            let start = node.runtime().clock.now();
            let later = start + 360 * LAG;
            let mut set = InSync::default();
            set.observe(start, at(5), &[(replica(1), at(5)), (replica(2), at(5))], &BOTH);
            set.observe(later, at(6), &[(replica(1), at(6)), (replica(2), at(5))], &BOTH);
            assert_eq!(set.in_sync(later, LAG, replica(1)).count(), 2);
            assert_eq!(set.in_sync(later + LAG, LAG, replica(1)).count(), 2);
            assert_eq!(set.in_sync(later + LAG * 2, LAG, replica(1)).count(), 1);
        });
    }

    /// DescribeQuorum told of a member that was caught up that it was so just now, and of any other nothing.
    #[test]
    fn the_last_time_of_each_member_is_known() {
        ouzel_runtime::sim::run(1, |node| async move {
            let start = node.runtime().clock.now();
            let after = |seconds| start + Duration::from_secs(seconds);
            let mut set = InSync::default();
            // The third one only follows, and is new.
            let see = |set: &mut InSync, now, last, second, third| {
                let held = [(replica(1), at(last)), (replica(2), at(second)), (replica(3), third)];
                set.observe(now, at(last), &held, &BOTH);
            };
            let seen = |set: &InSync, now, node| {
                let seen = set.last_seen(now, replica(node), true);
                (seen.heard_at.unwrap(), seen.caught_up_at)
            };
            see(&mut set, start, 5, 5, None);
            assert_eq!(seen(&set, after(9), 2), (after(9), Some(after(9))), "nothing is new: it holds all");
            assert_eq!(seen(&set, after(9), 3), (after(9), None));
            see(&mut set, after(10), 6, 5, at(5));
            assert_eq!(seen(&set, after(12), 2), (after(12), Some(after(10))));
            assert_eq!(seen(&set, after(12), 3), (after(12), Some(after(0))), "it has what there was then");
            set.note_node(NodeId(2), false, after(13));
            see(&mut set, after(14), 7, 5, at(7));
            assert_eq!(seen(&set, after(20), 2), (after(13), Some(after(10))));
            assert_eq!(seen(&set, after(20), 3), (after(20), Some(after(20))));
            assert_eq!(set.in_sync(after(20), LAG, replica(1)).collect::<Vec<_>>(), [replica(1)], "no vote");
        });
    }

    /// The files of a follower were removed while its process was down. It was not opened, its node answered, and the leader
    /// of the idle group went on to call it in sync: no tool showed that there was a replica less.
    #[test]
    fn a_voter_of_a_process_that_was_started_again_is_in_sync_when_it_is_heard() {
        ouzel_runtime::sim::run(1, |node| async move {
            let now = node.runtime().clock.now();
            let holding = |index| [(replica(1), at(index)), (replica(2), at(index))];
            let in_sync = |set: &InSync| set.in_sync(now, LAG, replica(1)).collect::<Vec<_>>();
            let mut set = InSync::default();
            set.observe(now, at(5), &holding(5), &BOTH);
            assert_eq!(set.note_restart(NodeId(2)), [replica(2)]);
            assert_eq!(set.note_restart(NodeId(2)), [], "nobody asks twice for one that is not heard");
            set.note_node(NodeId(2), true, now);
            set.observe(now, at(5), &holding(5), &BOTH);
            assert_eq!(in_sync(&set), [replica(1)]);
            assert!(set.hear(replica(2)) && !set.hear(replica(2)));
            assert_eq!(in_sync(&set), [replica(1), replica(2)]);
            // What it acknowledges is a word of it as well.
            assert_eq!(set.note_restart(NodeId(2)), [replica(2)]);
            set.observe(now, at(6), &holding(6), &BOTH);
            assert_eq!(in_sync(&set), [replica(1), replica(2)]);
        });
    }

    /// A majority of all voters was taken for enough, whatever `min.insync.replicas` asked for, and also in the middle of a
    /// change of members, when four of five may be no majority of three: who was waited for was sent entries at the rate of
    /// those that are not. And acks=all was taken then with as many in sync as a majority of the larger set is, of whichever set:
    /// its producers waited for a majority that was not there, and could find what they had given up stored later.
    #[test]
    fn enough_is_a_majority_of_each_set_and_what_was_asked_for() {
        let of = |nodes: &[i32]| nodes.iter().copied().map(replica).collect::<Vec<_>>();
        for (in_sync, sets, in_sync_min, expected) in [
            (&[1, 2][..], &[&[1, 2, 3][..]][..], 1, true),
            (&[1, 2], &[&[1, 2, 3]], 2, true),
            (&[1, 2], &[&[1, 2, 3]], 3, false),
            (&[1, 2, 3], &[&[1, 2, 3]], 3, true),
            (&[1, 2, 3], &[&[1, 2, 3]], 4, false),
            (&[1], &[&[1, 2, 3]], 1, false),
            (&[1, 2], &[&[1, 2, 3, 4]], 1, false),
            // Joint: each set for itself.
            (&[1, 2, 3], &[&[1, 2, 3], &[1, 4, 5]], 1, false),
            (&[1, 2, 4], &[&[1, 2, 3], &[1, 4, 5]], 1, true),
            (&[1, 2, 4], &[&[1, 2, 3], &[1, 4, 5]], 4, false),
            (&[1, 4, 5], &[&[1, 2, 3], &[1, 4, 5]], 1, false),
            (&[1, 4], &[&[1], &[1, 4, 5]], 2, true),
            (&[1, 2], &[&[1, 2, 3], &[1, 2]], 1, true),
            (&[1, 3], &[&[1, 2, 3], &[1, 2]], 1, false),
            // A leader that is to leave is one of the old voters alone.
            (&[1, 4, 5], &[&[1, 2, 3], &[4, 5, 6]], 1, false),
            (&[1, 2, 4, 5], &[&[1, 2, 3], &[4, 5, 6]], 1, true),
        ] {
            let set_of =
                |set: &&[i32]| of(set).into_iter().map(|voter| voter.to_u64()).collect::<BTreeSet<_>>();
            let members = Members::new_with_defaults(sets.iter().map(set_of).collect(), []);
            let found = is_enough(&of(in_sync), &members, in_sync_min);
            assert_eq!(found, expected, "{in_sync:?} of {sets:?}, at least {in_sync_min}");
        }
    }

    #[test]
    fn the_entry_that_many_hold() {
        let voters = [(replica(1), at(9)), (replica(2), None), (replica(3), at(4))];
        assert_eq!(held_by(1, &voters), at(9));
        assert_eq!(held_by(2, &voters), at(4));
        assert_eq!(held_by(3, &voters), None);
        assert_eq!(held_by(4, &voters), None);
    }
}
