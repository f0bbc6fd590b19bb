//! Where nothing is flushed before it is acknowledged: which replicas may have lost what they acknowledged, and of which
//! groups that makes a majority.
//!
//! What is acknowledged with acks=all, or shown to a reader, is held by a majority of the voters. It is gone only where a
//! majority of them lost their power while they were voters. A replica whose machine lost its power comes back as another
//! one, so it is named here by its life: it is a voter who forgot until the group has other voters.

use std::collections::{BTreeMap, BTreeSet};

use ouzel_model::{EntryIndex, LeaderEpoch, NodeId, ReplicaId};

use super::raft::Sight;
use super::verdict::{Kind, Verdict};

/// Follows groups of which no replica flushes before it answers.
#[derive(Clone, Debug, Default)]
pub struct PowerJudge {
    groups: BTreeMap<u32, Group>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    /// The newest epoch that somebody was seen to lead in.
    epoch: Option<LeaderEpoch>,
    /// Who may decide, oldest first: those before the last until the last are known to have been decided on.
    voters: Vec<Voters>,
    /// Who was seen last on each node.
    replicas: BTreeMap<NodeId, ReplicaId>,
    /// Whose machine has lost its power.
    forgetful: BTreeSet<ReplicaId>,
    is_loss_admitted: bool,
}

#[derive(Clone, Debug)]
struct Voters {
    who: Vec<ReplicaId>,
    /// The leader's newest entry when it was first seen with these: the change itself is not behind it.
    since: EntryIndex,
}

impl PowerJudge {
    /// A machine lost its power, and with it what its page cache held.
    pub fn power_cut(&mut self, node: NodeId) {
        for group in self.groups.values_mut() {
            group.forgetful.extend(group.replicas.get(&node));
            let voters = group.voters.iter().flat_map(|voters| &voters.who);
            group.forgetful.extend(voters.filter(|voter| voter.node == node));
            group.judge_loss();
        }
    }

    /// Whether these groups would keep what they promised if this machine lost its power now.
    pub fn bears_power_cut(&self, node: NodeId, groups: &[u32]) -> bool {
        let mut after = PowerJudge { groups: self.groups.clone() };
        after.groups.retain(|number, _| groups.contains(number));
        after.power_cut(node);
        after.groups.values().all(|group| !group.is_loss_admitted)
    }

    /// Looks at a replica that is in service.
    pub fn see(&mut self, sight: &Sight, verdict: &mut Verdict) {
        let group = self.groups.entry(sight.group).or_default();
        group.replicas.insert(sight.replica.node, sight.replica);
        group.note_voters(sight);
        group.judge_loss();
        if group.forgetful.contains(&sight.replica) && !group.is_loss_admitted {
            let facts = format!(
                "group {}: {} is in service, may have lost what it acknowledged, and the others can do without it",
                sight.group, sight.replica
            );
            verdict.broken(Kind::TrustedTail, facts);
        }
    }

    /// Whether what was promised may be lost: a majority of those who decided have lost their power.
    pub fn is_loss_admitted(&self, group: u32) -> bool {
        self.groups.get(&group).is_some_and(|group| group.is_loss_admitted)
    }
}

impl Group {
    fn note_voters(&mut self, sight: &Sight) {
        if sight.voters.is_empty() || Some(sight.epoch) < self.epoch {
            return;
        }
        self.epoch = Some(sight.epoch);
        let last = sight.entries.last().map(|entry| entry.id.index).or(sight.purged.map(|id| id.index));
        match self.voters.last() {
            Some(voters) if voters.who == sight.voters => {
                if sight.known >= Some(voters.since) {
                    self.voters.drain(..self.voters.len() - 1);
                }
            }
            _ => self.voters.push(Voters { who: sight.voters.clone(), since: last.unwrap_or(EntryIndex(0)) }),
        }
    }

    fn judge_loss(&mut self) {
        let is_gone = |voters: &Voters| {
            2 * voters.who.iter().filter(|voter| self.forgetful.contains(voter)).count() > voters.who.len()
        };
        self.is_loss_admitted |= self.voters.iter().any(is_gone);
    }
}
