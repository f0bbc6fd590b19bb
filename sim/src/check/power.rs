//! Which replicas may have lost what they acknowledged, by a power cut where nothing is flushed before or with their disk,
//! and of which groups that makes a majority.
//!
//! What is acknowledged with acks=all, or shown to a reader, is held by a majority of the voters. It is gone only where a
//! majority of them forgot while they were voters. A replica whose machine forgot comes back as another
//! one, so it is named here by its life: it is a voter who forgot until the group has other voters.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ouzel_model::{EntryIndex, LeaderEpoch, NodeId, ReplicaId};

use super::raft::Sight;
use super::verdict::{Kind, Verdict};

/// Whoever a leader takes for a voter is seen as one so soon.
const VOTERS_SEEN_WITHIN: Duration = Duration::from_secs(5);
/// A group is seen so soon, also where all its replicas are to be looked into before one is in service.
const GROUP_SEEN_WITHIN: Duration = Duration::from_secs(15);

/// Follows groups, and the machines of their replicas.
#[derive(Clone, Debug, Default)]
pub struct PowerJudge {
    groups: BTreeMap<u32, Group>,
    /// Groups that are flushed in every mode: the power takes nothing of them.
    flushed: BTreeSet<u32>,
    /// When each machine last forgot something, and when all.
    forgot: BTreeMap<NodeId, Duration>,
    wiped: BTreeMap<NodeId, Duration>,
}

/// What a machine forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgets {
    /// What its page cache held, with the power.
    Unflushed,
    /// All, with its disk.
    Everything,
}

#[derive(Clone, Debug, Default)]
struct Group {
    /// The newest epoch that somebody was seen to lead in.
    epoch: Option<LeaderEpoch>,
    /// Who may decide, oldest first: those before the last until the last are known to have been decided on. Until somebody
    /// is seen to lead, whom any replica takes for them.
    voters: Vec<Voters>,
    /// Who was seen last on each node.
    replicas: BTreeMap<NodeId, Seen>,
    /// Whose machine has forgotten, and when it last did.
    forgetful: BTreeMap<ReplicaId, Duration>,
    /// Those of them who went on while too few of the others had not: of four voters two have all, and need a third.
    needed: BTreeSet<ReplicaId>,
    /// Whose machine has forgotten while nobody knew whether a replica there had promised anything, and up to when voters
    /// who are seen for the first time may have been voters then.
    doubtful: BTreeMap<NodeId, Duration>,
    /// No machine has forgotten since somebody was promised something.
    keeps_all: bool,
    is_loss_admitted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    who: ReplicaId,
    /// Whether it had voted or followed anybody by then.
    has_begun: bool,
    at: Duration,
}

#[derive(Clone, Debug)]
struct Voters {
    who: Vec<ReplicaId>,
    /// The newest entry of whoever was first seen with these: the change itself is not behind it.
    since: EntryIndex,
    /// When that was.
    seen: Duration,
}

impl PowerJudge {
    /// A group is one that is flushed in every mode.
    pub fn note_flushed(&mut self, group: u32) {
        self.flushed.insert(group);
    }

    /// From now on clients are promised something: what was forgotten before is no loss to them. Who was in service afterwards
    /// goes on as if nothing were; who was not may still be out of service, and missing when another one forgets.
    pub fn begin(&mut self) {
        for group in self.groups.values_mut() {
            group.keeps_all = true;
            group.is_loss_admitted = false;
            let was_seen = |who: &ReplicaId, at: &Duration| {
                group.replicas.get(&who.node).is_some_and(|seen| seen.who == *who && seen.at > *at)
            };
            group.forgetful.retain(|who, at| !was_seen(who, at));
            group.needed.retain(|who| group.forgetful.contains_key(who));
        }
    }

    /// A machine forgets.
    pub fn forget(&mut self, node: NodeId, what: Forgets, now: Duration) {
        self.forgot.insert(node, now);
        if what == Forgets::Everything {
            self.wiped.insert(node, now);
        }
        for (number, group) in &mut self.groups {
            if what == Forgets::Unflushed && self.flushed.contains(number) {
                continue;
            }
            group.keeps_all = false;
            match group.replicas.get(&node) {
                Some(Seen { who, has_begun: true, .. }) => {
                    group.needed.remove(who);
                    group.forgetful.insert(*who, now);
                }
                // Who was not among the voters then had promised nothing, as far as they were seen.
                None if !group.voters.is_empty() => {
                    group.doubtful.insert(node, now + VOTERS_SEEN_WITHIN);
                }
                // Who has promised nothing may come back; whether it has since then nobody saw.
                Some(Seen { has_begun: false, .. }) | None => _ = group.doubtful.insert(node, Duration::MAX),
            }
            group.judge_loss();
        }
    }

    /// Whether these groups would keep what they promised if this machine forgot now; and go on by themselves, if it forgets all:
    /// whoever has lost the end of its log alone may be told to.
    pub fn bears(&self, node: NodeId, what: Forgets, now: Duration, these: impl Fn(u32) -> bool) -> bool {
        let mut after = self.clone();
        after.groups.retain(|number, _| these(*number));
        after.forget(node, what, now);
        let goes_on = |group: &Group| what == Forgets::Unflushed || group.others_can();
        after.groups.values().all(|group| !group.is_loss_admitted && goes_on(group))
    }

    /// Looks at a replica that is in service.
    pub fn see(&mut self, sight: &Sight, now: Duration, verdict: &mut Verdict) {
        let forgot = if self.flushed.contains(&sight.group) { &self.wiped } else { &self.forgot };
        let until = |(node, at): (&NodeId, &Duration)| (*node, *at + GROUP_SEEN_WITHIN);
        let doubtful = || Group { doubtful: forgot.iter().map(until).collect(), ..Group::default() };
        let group = self.groups.entry(sight.group).or_insert_with(doubtful);
        group.doubtful.remove(&sight.replica.node);
        // A vote alone may be on its way to the medium, or never come there, and bind nobody; a second one is judged elsewhere.
        let has_begun = !sight.entries.is_empty() || sight.head.is_some() || sight.known.is_some();
        group.replicas.insert(sight.replica.node, Seen { who: sight.replica, has_begun, at: now });
        group.note_voters(sight, now);
        group.judge_loss();
        // As long as nobody says who the others are, nobody knows what they can do.
        if group.voters.is_empty() || group.is_loss_admitted || !group.forgetful.contains_key(&sight.replica)
        {
            return;
        }
        if !group.others_can() {
            group.needed.insert(sight.replica);
        } else if !group.needed.contains(&sight.replica) {
            let facts = format!(
                "group {}: {} is in service, may have lost what it acknowledged, and the others can do without it",
                sight.group, sight.replica
            );
            verdict.broken(Kind::TrustedTail, facts);
        }
    }

    /// Whether what was promised may be lost: a majority of those who decided have forgotten.
    pub fn is_loss_admitted(&self, group: u32) -> bool {
        self.groups.get(&group).is_some_and(|group| group.is_loss_admitted)
    }
}

impl Group {
    fn note_voters(&mut self, sight: &Sight, now: Duration) {
        // Whoever leads may be gone before anybody looks: the voters that a group began with are told by all who founded it.
        let may_tell = if sight.leads { Some(sight.epoch) >= self.epoch } else { self.epoch.is_none() };
        if sight.voters.is_empty() || !may_tell {
            return;
        }
        if sight.leads {
            self.epoch = Some(sight.epoch);
        }
        let last = sight.entries.last().map(|entry| entry.id.index).or(sight.purged.map(|id| id.index));
        match self.voters.last() {
            Some(voters) if voters.who == sight.voters => {
                if sight.leads && sight.known >= Some(voters.since) {
                    self.voters.drain(..self.voters.len() - 1);
                }
            }
            _ => {
                let since = last.unwrap_or(EntryIndex(0));
                self.voters.push(Voters { who: sight.voters.clone(), since, seen: now });
            }
        }
    }

    fn judge_loss(&mut self) {
        let is_gone = |voters: &Voters| 2 * self.forgot(voters) > voters.who.len();
        self.is_loss_admitted |= !self.keeps_all && self.voters.iter().any(is_gone);
    }

    /// Whether those who have not forgotten are a majority.
    fn others_can(&self) -> bool {
        self.voters.iter().all(|voters| 2 * self.forgot(voters) < voters.who.len())
    }

    /// How many of these have forgotten.
    fn forgot(&self, voters: &Voters) -> usize {
        // A later life on the node began with nothing, whether or not the one before was ever seen.
        let is_replaced = |voter: &ReplicaId| {
            self.replicas.get(&voter.node).is_some_and(|seen| seen.who.incarnation > voter.incarnation)
        };
        // Whoever became a voter long after its machine forgot was none then.
        let was_voter = |until: &Duration| voters.seen < *until;
        let has_forgotten = |voter: &&ReplicaId| {
            self.forgetful.contains_key(voter)
                || self.doubtful.get(&voter.node).is_some_and(was_voter)
                || is_replaced(voter)
        };
        voters.who.iter().filter(has_forgotten).count()
    }
}
