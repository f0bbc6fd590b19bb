//! Leadership handed over before an orderly stop: what this node leads, others that are in sync lead from then on, so that
//! nobody has to notice that it is gone first. Clients are told to look elsewhere while this node still answers them.
//!
//! The controller comes last: as long as it can, it goes on deciding, and other nodes hear where the rest went. What cannot
//! be handed over in time is left to the others' elections, as after a crash.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ouzel_model::ReplicaId;
use ouzel_raft::{GroupStatus, RaftGroup, Role};

use super::{Unready, hand_over, may_lead};
use crate::controller::CONTROLLER_CORE;
use crate::core::Core;
use crate::node::metadata_at;
use crate::side_by_side::side_by_side;

/// How long all of it may take. The successors do not hear that others hand over to them, or that they stop themselves.
const HANDOVER_MAX: Duration = Duration::from_secs(5);
/// Transfers under way at a time, on each core. One takes about as long as a flush on two nodes.
const AT_A_TIME: usize = 32;

/// Who may lead in the place of `own`, the best first: those that the partition prefers, in that order, and then the others.
fn successors(status: &GroupStatus, own: ReplicaId, preferred: &[ReplicaId]) -> Vec<ReplicaId> {
    let mut seen = BTreeSet::new();
    let all = may_lead(status, own, preferred).chain(may_lead(status, own, &status.in_sync));
    all.filter(|replica| seen.insert(*replica)).collect()
}

/// What became of the groups that were led here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    handed_over: usize,
    left: usize,
}

impl Outcome {
    fn count(&mut self, has_handed_over: bool) {
        match has_handed_over {
            true => self.handed_over += 1,
            false => self.left += 1,
        }
    }
}

/// Hands over everything this node leads, on all cores side by side, the controller last. Takes at most
/// [`HANDOVER_MAX`]. On the first core.
pub(crate) async fn hand_over_all(core: &Rc<Core>) {
    if core.node.membership.is_none() || !core.broker_config().hands_over {
        return;
    }
    let began = core.runtime.clock.now();
    let mut outcome = Outcome::default();
    let handing = async {
        let cores: Vec<_> = core
            .cores
            .ids()
            .map(|to| {
                core.call(to, |core| {
                    let core = core.clone();
                    async move { hand_over_partitions(&core).await }
                })
            })
            .collect();
        for handed in cores {
            let Outcome { handed_over, left } = handed.await.unwrap_or_default();
            outcome.handed_over += handed_over;
            outcome.left += left;
        }
        if let Some(group) = core.group(&metadata_at()).filter(leads) {
            let preferred =
                core.view().image.controller().map(|own| own.replicas.clone()).unwrap_or_default();
            outcome.count(hand_group_over(group, preferred, Rc::default()).await);
        }
    };
    debug_assert!(core.id() == CONTROLLER_CORE);
    let in_time = core.runtime.clock.timeout(HANDOVER_MAX, handing).await.is_ok();
    let took_ms = core.runtime.clock.now().duration_since(began).as_millis();
    let Outcome { handed_over, left } = outcome;
    if in_time && left == 0 {
        tracing::info!(handed_over, took_ms, "others lead what this node led");
    } else {
        tracing::warn!(
            handed_over,
            left,
            in_time,
            took_ms,
            "not everything this node led was handed over; the others elect"
        );
    }
}

fn leads(group: &RaftGroup) -> bool {
    group.role() == Role::Leader
}

/// Hands over what a core's partitions lead.
async fn hand_over_partitions(core: &Rc<Core>) -> Outcome {
    let view = core.view();
    let led = core.partitions.all().into_iter().filter_map(|partition| {
        let group = partition.group().filter(leads)?;
        let preferred = view.image.partition(*partition.at()).map(|known| known.replicas.clone());
        Some((group, preferred.unwrap_or_default()))
    });
    let unready = Rc::<Unready>::default();
    let handed = side_by_side(led, AT_A_TIME, |(group, preferred)| {
        hand_group_over(group.clone(), preferred.clone(), unready.clone())
    });
    let mut outcome = Outcome::default();
    handed.await.into_iter().for_each(|(_, has_handed_over)| outcome.count(has_handed_over));
    outcome
}

/// Hands one group over; says whether another leads.
async fn hand_group_over(group: RaftGroup, preferred: Vec<ReplicaId>, unready: Rc<Unready>) -> bool {
    let successors = successors(&group.status(), group.replica(), &preferred);
    let handed = hand_over(&group, &successors, &unready).await;
    handed.inspect_err(|reason| tracing::debug!(?group, reason, "a group is not handed over")).is_ok()
}

#[cfg(test)]
mod tests {
    use ouzel_model::{LeaderEpoch, NodeId};

    use super::*;

    fn on(node: i32) -> ReplicaId {
        ReplicaId::first(NodeId(node))
    }

    fn status(in_sync: &[i32], voters: &[i32]) -> GroupStatus {
        GroupStatus {
            role: Role::Leader,
            epoch: LeaderEpoch(3),
            leader: Some(on(1)),
            in_sync: in_sync.iter().copied().map(on).collect(),
            voters: voters.iter().copied().map(on).collect(),
            ..GroupStatus::unknown()
        }
    }

    #[test]
    fn who_is_preferred_and_in_sync_comes_first() {
        let order = [on(3), on(1), on(2)];
        let of = |in_sync: &[i32]| successors(&status(in_sync, &[1, 2, 3, 4]), on(1), &order);
        assert_eq!(of(&[1, 2, 3]), [on(3), on(2)]);
        assert_eq!(of(&[1, 2]), [on(2)], "who is behind does not lead");
        assert_eq!(of(&[1, 4, 2]), [on(2), on(4)], "one that is to go is better than none");
        assert_eq!(of(&[1]), [], "nobody is left");
        assert_eq!(successors(&status(&[1, 2], &[1, 3]), on(1), &order), [], "only who votes can lead");
    }
}
