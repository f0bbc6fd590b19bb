//! Which groups start an election now. Pure: time is an argument, chance comes from a seed.
//!
//! A group needs an election when this node votes in it and its leader is down or unknown. When a node falls, thousands
//! of groups need one at once: the voter that stands first in the order of preference and is up goes first, the others
//! wait long enough for it to win; each goes a little earlier or later than it would, so that not all come at one
//! moment; and no more are started in a second than the rate allows. Who does not win tries again, ever more rarely,
//! until somebody leads. A group without a majority of its voters up cannot win and is not bothered more often than a
//! group that is well: once in half a minute or so, in case what is believed of the nodes is wrong.
//!
//! A leader's name is hearsay until the leader has been heard: it may come from this replica's disk, or from another
//! follower, and its replica may be gone while its node answers. Such a leader is asked once, and again while there is no
//! answer; if it does not lead, the replica says that nobody does, and an election is planned as for any such group.
//!
//! Groups that are well are looked after as rarely as those that cannot win: their leaders' heartbeats show every replica
//! that its leader still leads, for a leader may be stuck on a node that answers every ping.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ouzel_model::{NodeId, TopicIdPartition};
use ouzel_runtime::clock::Instant;

/// How fast elections start.
#[derive(Clone, Debug)]
pub struct ElectionConfig {
    /// A voter waits this much longer for each preferred one that is up.
    pub rank_delay: Duration,
    /// Elections come up to this much later by chance.
    pub jitter: Duration,
    /// A group whose leader was never known waits this long for it to show.
    pub unknown_delay: Duration,
    /// A leader that is known by name alone is asked whether it leads after this long, if it is not heard before; up to
    /// as much later by chance.
    pub ask_delay: Duration,
    /// Between the questions, while there is no answer.
    pub ask_pause: Duration,
    /// Elections started and leaders asked in a second, of all groups of this core.
    pub elections_per_s: u32,
    /// As many at one moment.
    pub elections_at_once_max: u32,
    /// Between the first attempts of a group: these are many and close together, for as long as the voters may still owe
    /// their leader loyalty, which nobody here can tell.
    pub retry_min: Duration,
    /// So many attempts are made at that pace, before they become rarer.
    pub steady_attempts: u32,
    /// Between attempts, at most.
    pub retry_max: Duration,
    /// A group that is well is looked after this often, at the earliest.
    pub check_min: Duration,
    /// At the latest. A follower that has heard nothing for twice this long is to be checked.
    pub check_max: Duration,
}

impl Default for ElectionConfig {
    fn default() -> ElectionConfig {
        ElectionConfig {
            rank_delay: Duration::from_millis(200),
            jitter: Duration::from_millis(50),
            unknown_delay: Duration::from_millis(500),
            ask_delay: Duration::from_millis(250),
            ask_pause: Duration::from_secs(2),
            elections_per_s: 4_000,
            elections_at_once_max: 200,
            // A lease of 800 ms is over by the fifth or sixth attempt. Of the next ones one wins, but for two voters that stand at
            // the same moment; rarer attempts would make that cost half a second.
            retry_min: Duration::from_millis(250),
            steady_attempts: 12,
            retry_max: Duration::from_secs(5),
            check_min: Duration::from_secs(30),
            check_max: Duration::from_secs(60),
        }
    }
}

/// What a group is at this moment, as its replica here knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupWatch {
    /// Who votes, the preferred leader first.
    pub voters: Vec<NodeId>,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Groups that start a pre-vote.
    pub elect: Vec<TopicIdPartition>,
    /// Groups led here that send a heartbeat.
    pub heartbeat: Vec<TopicIdPartition>,
    /// Groups led elsewhere that have heard nothing for long, as far as was noted ([`ElectionScheduler::contact`]). If
    /// the replica knows of a later contact, note that; else start a pre-vote.
    pub check: Vec<TopicIdPartition>,
    /// Groups whose leader is to be asked whether it leads. If it does, note that
    /// ([`ElectionScheduler::leader_answered`]); if it does not, its group has no leader.
    pub ask: Vec<TopicIdPartition>,
}

impl Due {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.elect.is_empty() && self.heartbeat.is_empty() && self.check.is_empty() && self.ask.is_empty()
    }
}

/// Schedules the elections of the groups of one core.
#[derive(Debug)]
pub struct ElectionScheduler {
    own: NodeId,
    config: ElectionConfig,
    up: BTreeSet<NodeId>,
    groups: BTreeMap<TopicIdPartition, Group>,
    /// Elections by their time.
    elections: BTreeSet<(Instant, TopicIdPartition)>,
    checks: BTreeSet<(Instant, TopicIdPartition)>,
    asks: BTreeSet<(Instant, TopicIdPartition)>,
    /// What the rate lets through: elections that may start, leaders that may be asked, and when that was computed.
    allowance: f64,
    allowed_at: Option<Instant>,
    random: u64,
}

#[derive(Debug)]
struct Group {
    watch: GroupWatch,
    election: Option<Election>,
    check_at: Instant,
    contact: Instant,
    /// The leader is known by more than its name: it was heard.
    is_heard: bool,
    ask_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Election {
    at: Instant,
    attempts: u32,
    /// No rank and no jitter stands before the first attempt of a group that was never led, but patience.
    never_led: bool,
}

impl ElectionScheduler {
    /// A scheduler for node `own`; `seed` makes its chance.
    pub fn new(own: NodeId, config: ElectionConfig, seed: u64) -> ElectionScheduler {
        ElectionScheduler {
            own,
            up: BTreeSet::from([own]),
            groups: BTreeMap::new(),
            elections: BTreeSet::new(),
            checks: BTreeSet::new(),
            asks: BTreeSet::new(),
            allowance: f64::from(config.elections_at_once_max),
            allowed_at: None,
            config,
            random: seed,
        }
    }

    /// Says what a group is now: call it when a group is opened, and whenever its leader or its voters change.
    pub fn set_group(&mut self, at: TopicIdPartition, watch: GroupWatch, now: Instant) {
        match self.groups.get_mut(&at) {
            Some(group) if group.watch == watch => return,
            Some(group) => {
                if watch.leader.is_some() {
                    group.contact = now;
                }
                // Somebody leads, or somebody else: what was tried before does not count.
                if group.watch.leader != watch.leader {
                    group.is_heard = false;
                    if let Some(ask_at) = group.ask_at.take() {
                        self.asks.remove(&(ask_at, at));
                    }
                    if let Some(election) = group.election.take() {
                        self.elections.remove(&(election.at, at));
                    }
                }
                group.watch = watch;
            }
            None => {
                let check_at =
                    now + self.config.check_min + self.chance(self.config.check_max - self.config.check_min);
                self.checks.insert((check_at, at));
                let group =
                    Group { watch, election: None, check_at, contact: now, is_heard: false, ask_at: None };
                self.groups.insert(at, group);
            }
        }
        self.plan(at, now);
    }

    /// Forgets a group that is not here any more.
    pub fn remove_group(&mut self, at: &TopicIdPartition) {
        if let Some(group) = self.groups.remove(at) {
            self.checks.remove(&(group.check_at, *at));
            if let Some(election) = group.election {
                self.elections.remove(&(election.at, *at));
            }
            if let Some(ask_at) = group.ask_at {
                self.asks.remove(&(ask_at, *at));
            }
        }
    }

    /// A group has heard from its leader.
    pub fn contact(&mut self, at: &TopicIdPartition, when: Instant) {
        if let Some(group) = self.groups.get_mut(at) {
            group.contact = group.contact.max(when);
            if let Some(leader) = group.watch.leader {
                self.leader_answered(at, leader);
            }
        }
    }

    /// The replica on `leader` was asked, and leads.
    pub fn leader_answered(&mut self, at: &TopicIdPartition, leader: NodeId) {
        if let Some(group) = self.groups.get_mut(at)
            && group.watch.leader == Some(leader)
        {
            group.is_heard = true;
            if let Some(ask_at) = group.ask_at.take() {
                self.asks.remove(&(ask_at, *at));
            }
        }
    }

    /// A node is up.
    pub fn node_up(&mut self, node: NodeId, now: Instant) {
        if self.up.insert(node) {
            self.plan_those_of(node, now);
        }
    }

    /// A node was restarted: groups that it led are led by nobody, until a replica here says otherwise. A node that was
    /// merely down for a moment still leads what it led.
    pub fn node_restarted(&mut self, node: NodeId, now: Instant) {
        let led = self.groups.iter().filter(|(_, group)| group.watch.leader == Some(node));
        let led: Vec<_> = led.map(|(at, group)| (*at, group.watch.voters.clone())).collect();
        for (at, voters) in led {
            let before = self.groups.get(&at).and_then(|group| group.election);
            self.set_group(at, GroupWatch { voters, leader: None }, now);
            if let Some(group) = self.groups.get_mut(&at)
                && let Some(election) = &mut group.election
            {
                // What was planned when it went down stays planned.
                self.elections.remove(&(election.at, at));
                election.at = before.map_or(election.at, |before| before.at.min(election.at));
                self.elections.insert((election.at, at));
            }
        }
    }

    /// A node is down: groups that it leads need another leader.
    pub fn node_down(&mut self, node: NodeId, now: Instant) {
        if node != self.own && self.up.remove(&node) {
            self.plan_those_of(node, now);
        }
    }

    /// What is due; to be done by the caller now. Elections that are due and above the rate come later.
    pub fn due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        self.earn(now);
        while let Some(&(at, group)) = self.elections.first().filter(|(at, _)| *at <= now)
            && self.allowance >= 1.0
        {
            self.allowance -= 1.0;
            self.elections.remove(&(at, group));
            let pause = self.retry_pause(&group);
            if let Some(election) = self.groups.get_mut(&group).and_then(|group| group.election.as_mut()) {
                election.attempts = election.attempts.saturating_add(1);
                election.at = now + pause;
                self.elections.insert((election.at, group));
                due.elect.push(group);
            }
        }
        while let Some(&(at, group)) = self.asks.first().filter(|(at, _)| *at <= now)
            && self.allowance >= 1.0
        {
            self.allowance -= 1.0;
            self.asks.remove(&(at, group));
            if let Some(watched) = self.groups.get_mut(&group) {
                let ask_at = now + self.config.ask_pause;
                watched.ask_at = Some(ask_at);
                self.asks.insert((ask_at, group));
                due.ask.push(group);
            }
        }
        while let Some(&(at, group)) = self.checks.first().filter(|(at, _)| *at <= now) {
            self.checks.remove(&(at, group));
            let pause = self.config.check_min + self.chance(self.config.check_max - self.config.check_min);
            let Some(watched) = self.groups.get_mut(&group) else { continue };
            watched.check_at = now + pause;
            self.checks.insert((watched.check_at, group));
            if watched.watch.leader == Some(self.own) {
                due.heartbeat.push(group);
            } else if watched.election.is_none()
                && watched.watch.voters.contains(&self.own)
                && now >= watched.contact + self.config.check_max * 2
            {
                due.check.push(group);
            }
        }
        due
    }

    /// When [`due`](ElectionScheduler::due) will next have something, if nothing happens before.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let limited = [self.elections.first(), self.asks.first()].into_iter().flatten().min();
        let limited = limited.map(|(at, _)| {
            let allowed = match self.allowance >= 1.0 {
                true => now,
                false => now + Duration::from_secs(1) / self.config.elections_per_s.max(1),
            };
            (*at).max(allowed)
        });
        let check = self.checks.first().map(|(at, _)| *at);
        [limited, check].into_iter().flatten().min()
    }

    /// Groups that need a leader.
    pub fn leaderless(&self) -> usize {
        self.elections.len()
    }

    fn plan_those_of(&mut self, node: NodeId, now: Instant) {
        let concerned =
            |group: &Group| group.watch.leader == Some(node) || group.watch.voters.contains(&node);
        let groups: Vec<_> =
            self.groups.iter().filter(|(_, group)| concerned(group)).map(|(at, _)| *at).collect();
        groups.into_iter().for_each(|at| self.plan(at, now));
    }

    /// Brings what is planned for a group in line with what is known.
    fn plan(&mut self, at: TopicIdPartition, now: Instant) {
        self.plan_election(at, now);
        self.plan_question(at, now);
    }

    /// A leader whose node is up, and that has not been heard, is asked.
    fn plan_question(&mut self, at: TopicIdPartition, now: Instant) {
        let Some(group) = self.groups.get(&at) else { return };
        let is_hearsay = !group.is_heard
            && group.watch.voters.contains(&self.own)
            && group.watch.leader.is_some_and(|leader| leader != self.own && self.up.contains(&leader));
        let planned = match group.ask_at {
            _ if !is_hearsay => None,
            Some(ask_at) => Some(ask_at),
            None => Some(now + self.config.ask_delay + self.chance(self.config.ask_delay)),
        };
        let Some(group) = self.groups.get_mut(&at) else { return };
        if let Some(before) = std::mem::replace(&mut group.ask_at, planned) {
            self.asks.remove(&(before, at));
        }
        self.asks.extend(planned.map(|ask_at| (ask_at, at)));
    }

    /// None, or at its time.
    fn plan_election(&mut self, at: TopicIdPartition, now: Instant) {
        let Some(group) = self.groups.get(&at) else { return };
        let (leader, voters) = (group.watch.leader, &group.watch.voters);
        let needs_one = voters.contains(&self.own)
            && leader.is_none_or(|leader| leader != self.own && !self.up.contains(&leader));
        let before = group.election;
        let planned = if !needs_one {
            None
        } else {
            let up = voters.iter().filter(|voter| self.up.contains(voter)).count();
            let rank = voters
                .iter()
                .take_while(|voter| **voter != self.own)
                .filter(|voter| self.up.contains(voter) && Some(**voter) != leader)
                .count();
            let never_led = before.map_or(leader.is_none(), |before| before.never_led);
            let wait = if up <= voters.len() / 2 {
                self.config.check_min + self.chance(self.config.check_max - self.config.check_min)
            } else {
                let patience = if never_led { self.config.unknown_delay } else { Duration::ZERO };
                patience + self.config.rank_delay * rank as u32 + self.chance(self.config.jitter)
            };
            let attempts = before.map_or(0, |before| before.attempts);
            // What happens to other nodes brings an attempt forward, never puts it off: or a node that comes and goes
            // would keep a group without a leader.
            let when = before.map_or(now + wait, |before| before.at.min(now + wait));
            Some(Election { at: when, attempts, never_led })
        };
        if let Some(before) = before {
            self.elections.remove(&(before.at, at));
        }
        if let Some(planned) = planned {
            self.elections.insert((planned.at, at));
        }
        if let Some(group) = self.groups.get_mut(&at) {
            group.election = planned;
        }
    }

    fn retry_pause(&mut self, at: &TopicIdPartition) -> Duration {
        let Some(group) = self.groups.get(at) else { return self.config.retry_max };
        let voters = &group.watch.voters;
        if voters.iter().filter(|voter| self.up.contains(voter)).count() <= voters.len() / 2 {
            return self.config.check_min + self.chance(self.config.check_max - self.config.check_min);
        }
        let attempts = group.election.map_or(0, |election| election.attempts);
        let doublings = attempts.saturating_sub(self.config.steady_attempts).min(16);
        let longest = (self.config.retry_min * (1 << doublings)).min(self.config.retry_max);
        longest / 2 + self.chance(longest / 2)
    }

    fn earn(&mut self, now: Instant) {
        let since =
            self.allowed_at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let earned = since.as_secs_f64() * f64::from(self.config.elections_per_s);
        self.allowance = (self.allowance + earned).min(f64::from(self.config.elections_at_once_max));
    }

    /// A random time below `max` (SplitMix64).
    fn chance(&mut self, max: Duration) -> Duration {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        Duration::from_micros(mixed.checked_rem(max.as_micros() as u64).unwrap_or(0))
    }
}

#[cfg(test)]
#[path = "elections_test.rs"]
mod tests;
