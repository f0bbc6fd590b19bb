//! What the controller sees to of itself: which brokers are taken for dead, who keeps its log, how many replicas internal
//! topics have.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::Partition;
use ouzel_metadata::keepers::keeper;
use ouzel_metadata::plan::fence_broker::plan_fence_broker;
use ouzel_metadata::plan::spread::{plan_controller_voters, plan_raise_internal_replication};
use ouzel_metadata::{BrokerConfig, Image, Record};
use ouzel_model::NodeId;
use ouzel_runtime::clock::Instant;

use super::{Controller, here};
use crate::core::Core;

/// How often it looks, if nothing makes it look earlier.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A broker that does not answer for this long is taken for dead: longer than a restart takes, since clients and new
/// topics are sent elsewhere then. Leaders are replaced much earlier, by their own groups.
const FENCE_AFTER: Duration = Duration::from_secs(9);
/// A broker that keeps the controller's log and does not answer for this long is replaced there, if another one can.
const REPLACE_AFTER: Duration = Duration::from_secs(120);

/// Runs until the node stops; does something only while the controller is here and the node is not alone.
pub(crate) async fn lead(core: Rc<Core>) {
    if core.node.membership.is_none() {
        return;
    }
    let mut down_since: BTreeMap<NodeId, Instant> = BTreeMap::new();
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
            down_since.clear();
            continue;
        }
        if let Err(error) = look(&core, &controller, &mut down_since).await {
            tracing::debug!(%error, "what the controller sees to of itself waits");
        }
    }
}

async fn look(
    core: &Rc<Core>,
    controller: &Controller,
    down_since: &mut BTreeMap<NodeId, Instant>,
) -> Result<(), super::ControllerError> {
    let _turn = controller.turn().await?;
    let image = controller.log.image();
    let mut records = fencing(core, &image, down_since);
    records.extend(first_keepers(core, &image));
    if records.is_empty() {
        records.extend(plan_controller_voters(&image, &gone(core, down_since)));
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

/// Who is taken for dead, and who for alive again.
fn fencing(core: &Core, image: &Image, down_since: &mut BTreeMap<NodeId, Instant>) -> Vec<Record> {
    let Some(cluster) = core.cluster() else { return Vec::new() };
    let now = core.runtime.clock.now();
    let mut records = Vec::new();
    for broker in image.brokers() {
        let node = broker.node;
        if node == core.node.config.node_id || cluster.is_up(node) {
            down_since.remove(&node);
            records.extend(plan_fence_broker(image, node, false));
        } else if now.duration_since(*down_since.entry(node).or_insert(now)) >= FENCE_AFTER {
            records.extend(plan_fence_broker(image, node, true));
        }
    }
    records
}

/// The brokers that have been dead for so long that others take their place.
fn gone(core: &Core, down_since: &BTreeMap<NodeId, Instant>) -> BTreeSet<NodeId> {
    let now = core.runtime.clock.now();
    let is_gone = |since: &Instant| now.duration_since(*since) >= REPLACE_AFTER;
    down_since.iter().filter(|(_, since)| is_gone(since)).map(|(node, _)| *node).collect()
}

/// The founders keep the controller's log: noted once all of them are known as brokers.
fn first_keepers(core: &Core, image: &Image) -> Option<Record> {
    let founders = &core.node.membership.as_ref()?.card.founders;
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
