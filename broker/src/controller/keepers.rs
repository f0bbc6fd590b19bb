//! Who keeps the controller's own log: its leader makes the replicas on the keepers the voters of its group, and those on
//! all other registered brokers learners, so that every node follows what is decided.
//!
//! What is wanted is always the image as the leader itself has decided it, so nothing of this is kept but there: the next
//! leader carries on.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::keepers::keeper;
use ouzel_metadata::plan::plan_settle_controller;
use ouzel_metadata::{Image, Partition};
use ouzel_model::ReplicaId;
use ouzel_raft::{GroupStatus, RaftGroup, Role};

use super::{Controller, here};
use crate::core::Core;
use crate::handover::{Unready, hand_over, may_lead};

/// How often it looks, if nothing makes it look earlier: members may be changed without a decision, too.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What did not come about is tried again after this time.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The members the group is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    voters: Vec<ReplicaId>,
    learners: Vec<ReplicaId>,
    decision: u32,
    /// What the keepers are settled with once they are members.
    moving: Option<Partition>,
}

impl Wanted {
    /// What the controller has decided. Before its founders have all registered, they are the voters all the same.
    fn of(image: &Image, status: &GroupStatus, decided: u32) -> Wanted {
        let controller = image.controller();
        let voters = controller.map_or(&status.voters, |controller| &controller.replicas).clone();
        let brokers = image.brokers().filter(|broker| !broker.rpc_address.is_empty());
        let learners = brokers.map(|broker| keeper(broker.node, broker.directory_id));
        Wanted {
            learners: learners.filter(|learner| !voters.contains(learner)).collect(),
            voters,
            decision: controller.map_or(decided, |controller| controller.next_incarnation),
            moving: controller.filter(|controller| controller.is_moving()).cloned(),
        }
    }

    fn is_met(&self, status: &GroupStatus) -> bool {
        let same = |wanted: &[ReplicaId], there: &[ReplicaId]| {
            wanted.iter().collect::<BTreeSet<_>>() == there.iter().collect::<BTreeSet<_>>()
        };
        self.moving.is_none() && same(&self.voters, &status.voters) && same(&self.learners, &status.learners)
    }
}

/// Runs until the node stops; does something only while the controller is here and the node is not alone.
pub(crate) async fn keep(core: Rc<Core>) {
    let Ok(controller) = here(&core) else { return };
    let Some(group) = controller.log.group() else { return };
    let mut stopping = core.stopping.clone();
    loop {
        let seen = controller.log.applied();
        let pause = match to_do(&controller, &group) {
            None => LOOK_INTERVAL,
            Some(wanted) => {
                let outcome = tokio::select! {
                    biased;
                    _ = stopping.wait_for(|stopping| *stopping) => return,
                    // What is begun stays where it is: the next decision goes on from there.
                    () = changed(&controller, &group, &wanted) => continue,
                    outcome = carry_out(&core, &controller, &group, &wanted) => outcome,
                };
                if let Err(reason) = outcome {
                    tracing::info!(reason, "a change of who keeps the controller's log waits");
                }
                RETRY_PAUSE
            }
        };
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = controller.log.wait_beyond(seen) => {}
            () = core.runtime.clock.sleep(pause) => {}
        }
    }
}

/// What is to be done here; `None` while another node leads, or all is as it should be.
fn to_do(controller: &Controller, group: &RaftGroup) -> Option<Wanted> {
    let status = group.status();
    // A leader that has not read its own log to the end would act on what was decided before.
    if status.role != Role::Leader || controller.log.applied() < status.high_watermark {
        return None;
    }
    let wanted = Wanted::of(&controller.log.image(), &status, group.decision());
    (!wanted.is_met(&status)).then_some(wanted)
}

/// Resolves when other members are wanted.
async fn changed(controller: &Controller, group: &RaftGroup, wanted: &Wanted) {
    loop {
        let seen = controller.log.applied();
        if Wanted::of(&controller.log.image(), &group.status(), wanted.decision) != *wanted {
            return;
        }
        controller.log.wait_beyond(seen).await;
    }
}

async fn carry_out(
    core: &Core,
    controller: &Controller,
    group: &RaftGroup,
    wanted: &Wanted,
) -> Result<(), String> {
    if !wanted.voters.contains(&group.replica()) {
        // It must not change the members it is none of; whoever of those that stay leads can.
        let stay: Vec<_> = may_lead(&group.status(), group.replica(), &wanted.voters).collect();
        if !stay.is_empty() {
            return hand_over(group, &stay, &Unready::default()).await;
        }
    }
    let changed = group.reconfigure_with(&wanted.voters, &wanted.learners, wanted.decision).await;
    changed.map_err(|error| error.to_string())?;
    tracing::info!(voters = %told(&wanted.voters), learners = %told(&wanted.learners), "the controller's log is kept where it should be");
    let Some(moving) = &wanted.moving else { return Ok(()) };
    let settling = async {
        let _turn = controller.turn().await?;
        match plan_settle_controller(&controller.log.image(), moving) {
            Some(record) => controller.write(core, &[record]).await.map(|_| ()),
            None => Ok(()),
        }
    };
    settling.await.map_err(|error: super::ControllerError| error.to_string())
}

fn told(replicas: &[ReplicaId]) -> String {
    replicas.iter().map(|replica| replica.node.to_string()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ouzel_metadata::Record;
    use ouzel_metadata::image::Broker;
    use ouzel_model::{LeaderEpoch, NodeId, TopicId};

    fn broker(node: i32) -> Broker {
        Broker {
            rpc_address: format!("h{node}:1"),
            ..Broker::new(NodeId(node), [node as u8; 16], directory(node))
        }
    }

    fn directory(node: i32) -> TopicId {
        TopicId([node as u8; 16])
    }

    fn of(nodes: &[i32]) -> Vec<ReplicaId> {
        nodes.iter().map(|node| keeper(NodeId(*node), directory(*node))).collect()
    }

    fn status(voters: &[i32], learners: &[i32]) -> GroupStatus {
        GroupStatus {
            role: Role::Leader,
            epoch: LeaderEpoch(1),
            leader: of(voters).first().copied(),
            in_sync: of(voters),
            voters: of(voters),
            learners: of(learners),
            ..GroupStatus::unknown()
        }
    }

    #[test]
    fn keepers_vote_and_all_others_follow() {
        let registered = |nodes: &[i32]| {
            let records: Vec<Record> =
                nodes.iter().map(|node| Record::BrokerRegistered(broker(*node))).collect();
            Image::from_records(&records).expect("brokers register")
        };
        // A founder is away, and a fourth node is there already.
        let image = registered(&[1, 3, 4]);
        let wanted = Wanted::of(&image, &status(&[1, 2, 3], &[]), 0);
        assert_eq!((&wanted.voters, &wanted.learners), (&of(&[1, 2, 3]), &of(&[4])));
        assert!(!wanted.is_met(&status(&[1, 2, 3], &[])));
        assert!(wanted.is_met(&status(&[3, 2, 1], &[4])), "in any order");

        let mut image = registered(&[1, 2, 3, 4]);
        let controller = Partition::of(of(&[1, 2, 3]));
        image
            .apply(&Record::ControllerChanged { controller: controller.clone() })
            .expect("they are registered");
        let wanted = Wanted::of(&image, &status(&[1, 2, 3], &[]), 0);
        assert_eq!((wanted.decision, &wanted.learners), (1, &of(&[4])));

        let moving = controller.moved_to_those(of(&[1, 2, 4]));
        image.apply(&Record::ControllerChanged { controller: moving.clone() }).expect("they are registered");
        let wanted = Wanted::of(&image, &status(&[1, 2, 3], &[4]), 1);
        assert_eq!((&wanted.voters, &wanted.learners), (&of(&[1, 2, 4]), &of(&[3])));
        assert_eq!((wanted.decision, &wanted.moving), (2, &Some(moving.clone())));
        // There, and not said to be: another leader may have got that far.
        assert!(!wanted.is_met(&status(&[1, 2, 4], &[3])));
        image
            .apply(&Record::ControllerChanged { controller: moving.settled() })
            .expect("they are registered");
        assert!(Wanted::of(&image, &status(&[1, 2, 4], &[3]), 2).is_met(&status(&[1, 2, 4], &[3])));
    }
}
