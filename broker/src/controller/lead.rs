//! What the controller sees to of itself: which brokers are taken for dead, who keeps its log, how many replicas internal
//! topics have.

use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::Partition;
use ouzel_metadata::keepers::keeper;
use ouzel_metadata::plan::spread::{plan_controller_voters, plan_raise_internal_replication};
use ouzel_metadata::{BrokerConfig, Image, Record};
use ouzel_raft::forming::Founder;

use super::absence::Absences;
use super::{Controller, here};
use crate::core::Core;

/// How often it looks, if nothing makes it look earlier.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the node stops; does something only while the controller is here and the node is not alone.
pub(crate) async fn lead(core: Rc<Core>) {
    if core.node.membership.is_none() {
        return;
    }
    let mut absences = Absences::default();
    let mut stopping = core.stopping.clone();
    loop {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = core.liveness_changed.notified() => {}
            () = core.runtime.clock.sleep(LOOK_INTERVAL) => {}
        }
        let Ok(controller) = here(&core) else { return };
        if !controller.log.leads() {
            absences.clear();
            continue;
        }
        if let Err(error) = look(&core, &controller, &mut absences).await {
            tracing::debug!(%error, "what the controller sees to of itself waits");
        }
    }
}

async fn look(
    core: &Rc<Core>,
    controller: &Controller,
    absences: &mut Absences,
) -> Result<(), super::ControllerError> {
    let _turn = controller.turn().await?;
    let image = controller.log.image();
    let now = core.runtime.clock.now();
    if let Some(cluster) = core.cluster() {
        let own = core.node.config.node_id;
        absences.observe(&image, now, |node| node == own || cluster.is_up(node));
    }
    let mut records = absences.plan_fencing(&image, now);
    if let Some(membership) = &core.node.membership {
        records.extend(first_keepers(&membership.card.founders, &image));
    }
    if records.is_empty() {
        records.extend(plan_controller_voters(&image, &absences.gone(now)));
    }
    if records.is_empty() {
        let config = BrokerConfig::resolve(&core.node.config.layers(&image));
        records = plan_raise_internal_replication(&image, &config);
    }
    if !records.is_empty() {
        controller.write(core, &records).await?;
    }
    Ok(())
}

/// The founders keep the controller's log: noted once all of them are known as brokers.
fn first_keepers(founders: &[Founder], image: &Image) -> Option<Record> {
    if image.controller().is_some() {
        return None;
    }
    let mut controller =
        Partition::of(founders.iter().map(|founder| keeper(founder.node, founder.directory_id)).collect());
    for founder in founders {
        let directory_id = image.broker(founder.node)?.directory_id;
        if directory_id != founder.directory_id {
            // It was wiped before it was known.
            controller = controller.with_reborn(keeper(founder.node, directory_id));
        }
    }
    Some(Record::ControllerChanged { controller })
}

#[cfg(test)]
mod tests {
    use ouzel_metadata::image::Broker;
    use ouzel_model::{NodeId, TopicId};

    use super::*;

    fn directory(node: i32, disk: u8) -> TopicId {
        TopicId([node as u8 * 16 + disk; 16])
    }

    fn founders() -> Vec<Founder> {
        let founder = |node: i32| Founder {
            node: NodeId(node),
            directory_id: directory(node, 0),
            rpc_address: format!("{node}.example:33146"),
        };
        vec![founder(1), founder(2), founder(3)]
    }

    fn image(brokers: &[(i32, u8)]) -> Image {
        let record = |(node, disk): &(i32, u8)| {
            Record::BrokerRegistered(Broker::new(NodeId(*node), [1; 16], directory(*node, *disk)))
        };
        Image::from_records(&brokers.iter().map(record).collect::<Vec<_>>()).expect("sound records")
    }

    #[test]
    fn the_founders_keep_the_log_once_all_of_them_are_known() {
        assert_eq!(first_keepers(&founders(), &image(&[(1, 0), (2, 0), (4, 0)])), None);
        let mut whole = image(&[(1, 0), (2, 0), (3, 0), (4, 0)]);
        let Some(Record::ControllerChanged { controller }) = first_keepers(&founders(), &whole) else {
            panic!("all are there");
        };
        let kept = [1, 2, 3].map(|node| keeper(NodeId(node), directory(node, 0)));
        assert_eq!(controller, Partition::of(kept.to_vec()));
        // Said once: what is decided later is not taken back.
        whole.apply(&Record::ControllerChanged { controller }).expect("it fits");
        assert_eq!(first_keepers(&founders(), &whole), None);
    }

    #[test]
    fn a_founder_wiped_before_that_keeps_it_as_somebody_else() {
        let known = image(&[(1, 0), (2, 1), (3, 0)]);
        let Some(Record::ControllerChanged { controller }) = first_keepers(&founders(), &known) else {
            panic!("all are there");
        };
        let reborn = keeper(NodeId(2), directory(2, 1));
        assert_eq!(controller.replica_on(NodeId(2)), Some(reborn));
        assert!(controller.unsettled.contains(&reborn), "nobody can tell yet whether it is a member");
    }
}
