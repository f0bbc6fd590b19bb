//! Which replicas may have lost what they acknowledged, by a power cut where nothing is flushed before or with their disk,
//! and of which groups that makes a majority.
//!
//! What is acknowledged with acks=all, or shown to a reader, is held by a majority of the voters. It is gone only where a
//! majority of them forgot while they were voters. A replica whose machine forgot comes back as another
//! one, so it is named here by its life: it is a voter who forgot until the group has other voters.

use std::collections::{BTreeMap, BTreeSet};

use ouzel_model::{EntryIndex, LeaderEpoch, NodeId, ReplicaId};

use super::raft::Sight;
use super::verdict::{Kind, Verdict};

/// Follows groups, and the machines of their replicas.
#[derive(Clone, Debug, Default)]
pub struct PowerJudge {
    groups: BTreeMap<u32, Group>,
    /// Machines that have forgotten since the run began.
    forgot: BTreeSet<NodeId>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    /// The newest epoch that somebody was seen to lead in.
    epoch: Option<LeaderEpoch>,
    /// Who may decide, oldest first: those before the last until the last are known to have been decided on.
    voters: Vec<Voters>,
    /// Who was seen last on each node, and whether it had voted or followed anybody by then.
    replicas: BTreeMap<NodeId, (ReplicaId, bool)>,
    /// Whose machine has forgotten.
    forgetful: BTreeSet<ReplicaId>,
    /// Whose machine has forgotten while nobody knew whether a replica there had promised anything.
    doubtful: BTreeSet<NodeId>,
    is_loss_admitted: bool,
}

#[derive(Clone, Debug)]
struct Voters {
    who: Vec<ReplicaId>,
    /// The leader's newest entry when it was first seen with these: the change itself is not behind it.
    since: EntryIndex,
}

impl PowerJudge {
    /// A machine lost what its page cache held, or all of its disk, of these groups.
    pub fn forget(&mut self, node: NodeId, forgets: impl Fn(u32) -> bool) {
        self.forgot.insert(node);
        for (_, group) in self.groups.iter_mut().filter(|(number, _)| forgets(**number)) {
            match group.replicas.get(&node) {
                Some((replica, true)) => _ = group.forgetful.insert(*replica),
                // Who has promised nothing may come back; whether it has since then nobody saw.
                Some((_, false)) | None => _ = group.doubtful.insert(node),
            }
            group.judge_loss();
        }
    }

    /// Whether these groups would keep what they promised if this machine forgot now.
    pub fn bears(&self, node: NodeId, forgets: impl Fn(u32) -> bool) -> bool {
        let mut after = self.clone();
        after.groups.retain(|number, _| forgets(*number));
        after.forget(node, |_| true);
        after.groups.values().all(|group| !group.is_loss_admitted)
    }

    /// Looks at a replica that is in service.
    pub fn see(&mut self, sight: &Sight, verdict: &mut Verdict) {
        let doubtful = || Group { doubtful: self.forgot.clone(), ..Group::default() };
        let group = self.groups.entry(sight.group).or_insert_with(doubtful);
        group.doubtful.remove(&sight.replica.node);
        // A vote alone may be on its way to the medium, or never come there, and bind nobody; a second one is judged elsewhere.
        let has_begun = !sight.entries.is_empty() || sight.head.is_some() || sight.known.is_some();
        group.replicas.insert(sight.replica.node, (sight.replica, has_begun));
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

    /// Whether what was promised may be lost: a majority of those who decided have forgotten.
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
            let forgot = voters
                .who
                .iter()
                .filter(|voter| self.forgetful.contains(voter) || self.doubtful.contains(&voter.node));
            2 * forgot.count() > voters.who.len()
        };
        self.is_loss_admitted |= self.voters.iter().any(is_gone);
    }
}
