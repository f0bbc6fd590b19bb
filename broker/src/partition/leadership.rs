//! Who may write, and who hears of it when that changes.

use std::rc::Rc;

use ouzel_model::{LeaderEpoch, NodeId, ReplicaId};
use ouzel_raft::{RaftGroup, Replica, ReplicatedLog, Role};

use super::{AppendRefused, Partition};
use crate::metrics::CoreMetrics;

/// What this replica knows of the partition's leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether this replica leads: all that is acknowledged goes through it.
    pub leads: bool,
    /// The reign it knows of.
    pub epoch: LeaderEpoch,
    /// Who leads in that reign, if it knows.
    pub leader: Option<ReplicaId>,
    /// The voters that are caught up, as the leader sees it; empty elsewhere.
    pub in_sync: Vec<ReplicaId>,
    /// Those whose majority decides.
    pub voters: Vec<ReplicaId>,
    /// Those that follow without a vote.
    pub learners: Vec<ReplicaId>,
}

/// What is told when a partition's standing changes.
pub(crate) type OnStanding = Box<dyn Fn(&Rc<Partition>)>;

impl Partition {
    /// What this replica knows of the leader now.
    pub fn standing(&self) -> Standing {
        match &self.log {
            Replica::Solo(solo) => Standing {
                leads: self.leads(),
                epoch: solo.epoch(),
                leader: Some(self.replica),
                in_sync: vec![self.replica],
                voters: vec![self.replica],
                learners: Vec::new(),
            },
            Replica::Group(group) => {
                let status = group.status();
                Standing {
                    leads: status.role == Role::Leader,
                    epoch: status.epoch,
                    leader: status.leader,
                    in_sync: status.in_sync,
                    voters: status.voters,
                    learners: status.learners,
                }
            }
        }
    }

    /// Has what changed in a group since it last led here counted.
    pub(crate) fn count_standing(&self, metrics: &CoreMetrics) {
        if let Replica::Group(group) = &self.log
            && group.role() == Role::Leader
        {
            let is = (self.log.epoch(), group.in_sync_count());
            metrics.led(self.counted.replace(Some(is)), is);
        }
    }

    /// The replica, if it is one of a group.
    pub(crate) fn group(&self) -> Option<RaftGroup> {
        self.log.group().cloned()
    }

    /// Whether this replica leads.
    pub fn leads(&self) -> bool {
        match &self.log {
            Replica::Solo(_) => !self.is_retired(),
            Replica::Group(group) => group.role() == Role::Leader,
        }
    }

    /// As [`RaftGroup::still_leads`]: for who tells what it knows, and would tell too little if others had gone on without it.
    pub(crate) async fn still_leads(&self) -> bool {
        match &self.log {
            Replica::Solo(_) => !self.is_retired(),
            Replica::Group(group) => group.still_leads().await,
        }
    }

    /// Whether it is worth asking this replica to append: one that was just elected takes batches as soon as it serves.
    pub(super) fn may_append(&self) -> bool {
        match &self.log {
            Replica::Solo(_) => !self.is_retired(),
            Replica::Group(group) => matches!(group.role(), Role::Leader | Role::Candidate),
        }
    }

    /// How many replicas are in sync, on the leader.
    pub(super) fn in_sync_count(&self) -> i32 {
        match &self.log {
            Replica::Solo(_) => 1,
            Replica::Group(group) => group.in_sync_count() as i32,
        }
    }

    /// What is said to acks=all where too few replicas are in sync: fewer than the topic asks for, or no majority, without which
    /// nothing is ever acknowledged.
    pub(super) fn too_few_in_sync(&self) -> Option<AppendRefused> {
        let wanted = self.config.borrow().min_insync_replicas;
        let is_enough = match &self.log {
            Replica::Solo(_) => wanted <= 1,
            Replica::Group(group) => group.has_enough_in_sync(usize::try_from(wanted).unwrap_or_default()),
        };
        (!is_enough).then(|| AppendRefused::NotEnoughReplicas { wanted, there: self.in_sync_count() })
    }

    /// The life of the partition that this replica is.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The broker that leads, if this replica knows.
    pub fn leader_node(&self) -> Option<NodeId> {
        self.standing().leader.map(|leader| leader.node)
    }

    /// Tells everybody of a new standing: readers and producers that are parked look again, and find another leader.
    pub(super) fn standing_changed(self: &Rc<Self>) {
        self.publish();
        self.waiters.wake_all();
        // Of one that is retired only its successor speaks.
        if self.is_retired() {
            return;
        }
        (self.tells.on_standing)(self);
    }
}
