//! Raft's invariants, among replicas as they are seen from time to time: their epochs, votes, roles and entries.
//!
//! What one sight shows must agree with all that were seen before, of this replica and of the others.

use std::collections::BTreeMap;

use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, Offset, ReplicaId};

use super::verdict::{Kind, Verdict};

/// One replica at one moment, running or by its disk.
#[derive(Clone, Debug)]
pub struct Sight {
    /// Which group.
    pub group: u32,
    /// Which replica.
    pub replica: ReplicaId,
    /// Which life of its process; what is kept in memory alone begins anew with each.
    pub life: u32,
    /// The epoch of its newest vote, which may not be on its disk yet.
    pub epoch: LeaderEpoch,
    /// Whom it gave its vote in that epoch.
    pub voted_for: Option<ReplicaId>,
    /// Whether it leads in that epoch.
    pub leads: bool,
    /// The newest entry it knows to be committed, among those that are looked at.
    pub committed: Option<EntryId>,
    /// Entries up to this one are no longer entries here.
    pub purged: Option<EntryId>,
    /// Its entries, in order, without a hole.
    pub entries: Vec<SeenEntry>,
    /// Who votes, as far as it knows, of both sets during a change; a leader knows best.
    pub voters: Vec<ReplicaId>,
    /// Up to where it says the entries are committed.
    pub known: Option<EntryIndex>,
    /// Up to where its log is only data: what `purged` says, where not all entries are looked at.
    pub head: Option<EntryId>,
}

/// An entry as a replica holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenEntry {
    /// Which.
    pub id: EntryId,
    /// The end of the log after it (exclusive).
    pub end: Offset,
    /// A sum of its content.
    pub sum: u64,
}

/// Sees replicas and remembers.
#[derive(Clone, Debug, Default)]
pub struct RaftJudge {
    groups: BTreeMap<u32, Group>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    leaders: BTreeMap<LeaderEpoch, ReplicaId>,
    /// Every entry ever seen, and the one before it, where that was seen too.
    entries: BTreeMap<EntryId, (SeenEntry, Option<EntryId>)>,
    /// What is committed, by index, and the epoch of the replica that was first seen to know it.
    committed: BTreeMap<EntryIndex, (EntryId, LeaderEpoch)>,
    replicas: BTreeMap<ReplicaId, Known>,
}

/// What was last seen of a replica.
#[derive(Clone, Debug)]
struct Known {
    life: u32,
    epoch: LeaderEpoch,
    /// The newest epoch that it did something in: it led, or took entries. That one is on its disk.
    acted_in: LeaderEpoch,
    voted_for: Option<ReplicaId>,
    committed: Option<EntryId>,
}

impl RaftJudge {
    /// Compares a sight with all before it.
    pub fn see(&mut self, sight: &Sight, verdict: &mut Verdict) {
        let group = self.groups.entry(sight.group).or_default();
        group.one_leader(sight, verdict);
        group.nothing_goes_back(sight, verdict);
        group.logs_match(sight, verdict);
        // Before what it knows itself joins in: it must hold what others knew.
        group.leader_is_complete(sight, verdict);
        group.one_history(sight, verdict);
    }

    /// The highest index that was seen committed in a group.
    pub fn committed(&self, group: u32) -> Option<EntryIndex> {
        self.groups.get(&group)?.committed.last_key_value().map(|(index, _)| *index)
    }
}

impl Group {
    fn one_leader(&mut self, sight: &Sight, verdict: &mut Verdict) {
        if !sight.leads {
            return;
        }
        let leader = *self.leaders.entry(sight.epoch).or_insert(sight.replica);
        if leader != sight.replica {
            verdict.broken(
                Kind::TwoLeaders,
                format!("group {} epoch {}: {leader} and {}", sight.group, sight.epoch, sight.replica),
            );
        }
    }

    fn nothing_goes_back(&mut self, sight: &Sight, verdict: &mut Verdict) {
        let before = self.replicas.get(&sight.replica).map(|was| was.acted_in);
        let entries = sight.entries.last().map(|entry| entry.id.term);
        let led = Some(sight.epoch).filter(|_| sight.leads);
        let committed = self.replicas.get(&sight.replica).filter(|was| was.life == sight.life);
        let is = Known {
            life: sight.life,
            epoch: sight.epoch,
            acted_in: entries.max(led).max(before).unwrap_or(LeaderEpoch(0)),
            voted_for: sight.voted_for,
            committed: sight.committed.or(committed.and_then(|was| was.committed)),
        };
        let Some(was) = self.replicas.insert(sight.replica, is) else { return };
        let who = format!("group {} replica {}", sight.group, sight.replica);
        // What nobody was told of may go with the process.
        let known = if sight.life == was.life { was.epoch } else { was.acted_in };
        if sight.epoch < known {
            verdict.broken(Kind::EpochWentBack, format!("{who}: {} after {known}", sight.epoch));
        }
        if sight.epoch == was.epoch
            && sight.life == was.life
            && let (Some(first), Some(second)) = (was.voted_for, sight.voted_for)
            && first != second
        {
            verdict.broken(
                Kind::TwoVotes,
                format!("{who} voted for {first} and for {second} in epoch {}", sight.epoch),
            );
        }
        if let Some(committed) = sight.committed
            && sight.life == was.life
            && Some(committed.index) < was.committed.map(|id| id.index)
        {
            verdict.broken(
                Kind::CommitIndexWentBack,
                format!("{who}: {:?} after {:?}", sight.committed, was.committed),
            );
        }
    }

    fn logs_match(&mut self, sight: &Sight, verdict: &mut Verdict) {
        let mut before = sight.purged;
        for entry in &sight.entries {
            let at = format!("group {} replica {} entry {}", sight.group, sight.replica, entry.id);
            if let Some(before) = before
                && (before.index.0 + 1 != entry.id.index.0 || before.term > entry.id.term)
            {
                verdict.broken(Kind::LogMismatch, format!("{at} follows {before}"));
            }
            let (known, known_before) = self.entries.entry(entry.id).or_insert((*entry, before));
            if known != entry {
                verdict.broken(Kind::LogMismatch, format!("{at}: {entry:?}, elsewhere {known:?}"));
            }
            if let (Some(one), Some(other)) = (before, *known_before)
                && one != other
            {
                verdict.broken(Kind::LogMismatch, format!("{at} follows {one}, elsewhere {other}"));
            }
            *known_before = known_before.or(before);
            before = Some(entry.id);
        }
    }

    /// What was committed in an earlier epoch is in the log of every later leader.
    fn leader_is_complete(&self, sight: &Sight, verdict: &mut Verdict) {
        if !sight.leads {
            return;
        }
        let held: BTreeMap<EntryIndex, EntryId> =
            sight.entries.iter().map(|entry| (entry.id.index, entry.id)).collect();
        let above = self.committed.iter().filter(|(index, (_, known_in))| {
            *known_in < sight.epoch && sight.purged.is_none_or(|purged| purged.index < **index)
        });
        for (index, (id, known_in)) in above {
            if held.get(index) != Some(id) {
                verdict.broken(
                    Kind::LeaderIncomplete,
                    format!(
                        "group {}: {} leads in epoch {}, entry {id} was committed by epoch {known_in}, it holds {:?}",
                        sight.group,
                        sight.replica,
                        sight.epoch,
                        held.get(index)
                    ),
                );
                return;
            }
        }
    }

    /// One index is committed with one entry.
    fn one_history(&mut self, sight: &Sight, verdict: &mut Verdict) {
        let Some(committed) = sight.committed else { return };
        let mut ids: Vec<EntryId> = sight.entries.iter().map(|entry| entry.id).collect();
        ids.extend(sight.purged);
        ids.push(committed);
        for id in ids.into_iter().filter(|id| id.index <= committed.index) {
            let (known, _) = *self.committed.entry(id.index).or_insert((id, sight.epoch));
            if known != id {
                verdict.broken(
                    Kind::StateMachineMismatch,
                    format!(
                        "group {} index {}: {} has {id} committed, elsewhere {known} is",
                        sight.group, id.index, sight.replica
                    ),
                );
                return;
            }
        }
    }
}
