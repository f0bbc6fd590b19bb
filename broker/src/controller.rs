//! The controller's doer: decides with the pure functions of `metadata` and writes the decision to a log of its own.
//!
//! It runs on one core, and every change goes through one queue there, so a decision is always made on the image that
//! all decisions before it have made. A change is visible only once its records are safe: what a client was told exists
//! does so after any crash. Making it visible is the `publisher`'s, which follows the log (`metadata_log`) on every node.

mod absence;
pub(crate) mod changes;
pub(crate) mod keepers;
pub(crate) mod lead;
pub(crate) mod lost;
pub(crate) mod metadata_log;
pub(crate) mod preferred;
pub(crate) mod publisher;
pub(crate) mod running;
pub(crate) mod snapshots;
mod succession;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::image::Broker;
use ouzel_metadata::plan::alter_configs::{AlterConfigsError, ConfigAlteration, plan_alter_configs};
use ouzel_metadata::plan::create_topics::{CreateTopicError, NewTopic, PlannedTopic, plan_create_topics};
use ouzel_metadata::plan::delete_topics::{DeleteTopicError, DeletedTopic, TopicRef, plan_delete_topics};
use ouzel_metadata::plan::producer_ids::{ProducerIdBlock, plan_producer_id_block};
use ouzel_metadata::plan::{plan_register_broker, plan_settle};
use ouzel_metadata::{BrokerConfig, Partition, Record};
use ouzel_model::{NodeId, Offset, ProducerId, TimestampMs, TopicId, TopicIdPartition};
use ouzel_raft::ReplicatedLog;
use ouzel_runtime::{Clock, CoreId};
use tokio::sync::{Mutex, MutexGuard};

use crate::core::{Core, Stopped};
use crate::node::metadata_at;
use crate::rpc::ask::{self, Place};
use crate::rpc::control::{ControlAnswer, ControlCall};
use metadata_log::MetadataLog;

/// The core the controller runs on.
pub const CONTROLLER_CORE: CoreId = CoreId(0);

/// How long a change may take to be committed.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(15);

/// Why a change was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// The node is going down.
    #[error("the controller is shutting down")]
    Stopped,
    /// The controller is elsewhere, or there is none at this time.
    #[error("this broker is not the controller, and none could be reached in time")]
    NotController,
    /// Its log does not take records any more.
    #[error("the controller's log failed: {0}")]
    Log(String),
    /// The change did not become safe in time.
    #[error("the change was not committed in time")]
    TimedOut,
    /// There are no producer ids left.
    #[error("all producer ids are taken")]
    ProducerIdsExhausted,
}

impl From<Stopped> for ControllerError {
    fn from(_: Stopped) -> ControllerError {
        ControllerError::Stopped
    }
}

/// The state of the controller, on its core.
pub struct Controller {
    log: MetadataLog,
    clock: Clock,
    /// One change at a time: held from the decision until every core has seen it.
    changing: Mutex<()>,
    /// Whether a change was given up that may still get its place in the log: without a majority nobody can tell.
    unsettled: Cell<bool>,
    /// This node's own block of producer ids, and how many of them are gone.
    producer_ids: RefCell<Option<(ProducerIdBlock, i64)>>,
    /// One block at a time.
    taking_ids: Mutex<()>,
    /// The partitions whose nodes ask what becomes of their replicas.
    asked_about: RefCell<BTreeMap<TopicIdPartition, lost::Asked>>,
}

impl Controller {
    /// A controller that writes to `log`.
    pub(crate) fn new(log: MetadataLog, clock: Clock) -> Controller {
        Controller {
            log,
            clock,
            changing: Mutex::new(()),
            unsettled: Cell::new(false),
            producer_ids: RefCell::new(None),
            taking_ids: Mutex::new(()),
            asked_about: RefCell::default(),
        }
    }

    /// The log, for the stop.
    pub(crate) fn log(&self) -> &MetadataLog {
        &self.log
    }

    /// Waits for the turn to make a change; what is decided until the guard goes is decided on all that was before it.
    async fn turn(&self) -> Result<MutexGuard<'_, ()>, ControllerError> {
        let turn = self.changing.lock().await;
        if !self.log.leads() {
            return Err(ControllerError::NotController);
        }
        // To the end: what a former reign has left behind is decided as soon as this one has committed anything.
        let seen = async {
            let mut end = self.log.replica().offsets().log_end;
            if let Some(cluster_id) = self.log.image().cluster_id().filter(|_| self.unsettled.get()) {
                // Behind what was given up, since places are given in the order they were asked for. It says nothing new.
                let known = Record::ClusterCreated { cluster_id: cluster_id.to_owned() };
                end = end.max(self.log.append(&[known], TimestampMs(self.clock.wall_ms())).await?);
            }
            self.log.wait_applied(end).await;
            Ok::<_, ControllerError>(())
        };
        self.clock.timeout(CHANGE_TIME_MAX, seen).await.map_err(|_| ControllerError::TimedOut)??;
        self.unsettled.set(false);
        Ok(turn)
    }

    /// Writes records; resolves when they are committed and decisions are made on them, with the offset behind them.
    async fn write(&self, core: &Core, records: &[Record]) -> Result<Offset, ControllerError> {
        let writing = async {
            let end = self.log.append(records, TimestampMs(self.clock.wall_ms())).await?;
            self.log.wait_applied(end).await;
            Ok::<_, ControllerError>(end)
        };
        // Without a majority it is never committed. Whether it will be once there is one again, nobody can tell; nor if whoever
        // waits for this goes away meanwhile.
        let was_unsettled = self.unsettled.replace(true);
        let written = self.clock.timeout(CHANGE_TIME_MAX, writing).await;
        self.unsettled.set(was_unsettled || written.is_err());
        let end = written.map_err(|_| ControllerError::TimedOut)??;
        // Damage below what is noted here is never taken for an unfinished write: topics hang on these records.
        core.partitions.note_flushed(metadata_at(), self.log.replica().local().offsets().flushed_end).await;
        Ok(end)
    }

    /// As [`Controller::write`], and waits until every core of this node has seen the records. The turn is over with the
    /// write: a node that leads before it is in service shows nothing until it has registered, and that takes a turn.
    async fn write_and_show(
        &self,
        core: &Core,
        turn: MutexGuard<'_, ()>,
        records: &[Record],
    ) -> Result<(), ControllerError> {
        let end = self.write(core, records).await?;
        drop(turn);
        self.log.wait_shown(end).await;
        Ok(())
    }
}

/// Runs `change` on the controller's core.
async fn on_controller<R, F>(
    core: &Rc<Core>,
    change: impl FnOnce(Rc<Core>, Rc<Controller>) -> F + Send + 'static,
) -> Result<R, ControllerError>
where
    R: Send + 'static,
    F: Future<Output = Result<R, ControllerError>> + 'static,
{
    core.call(CONTROLLER_CORE, move |core| {
        let controller = core.controller.borrow().clone();
        let running = controller.map(|controller| change(core.clone(), controller));
        async move {
            match running {
                Some(running) => running.await,
                None => Err(ControllerError::Stopped),
            }
        }
    })
    .await?
}

/// Creates topics; resolves when every core can route to their partitions.
///
/// # Errors
/// Only if the controller itself fails; each topic has its own outcome.
pub async fn create_topics(
    core: &Rc<Core>,
    topics: Vec<NewTopic>,
    validate_only: bool,
) -> Result<Vec<Result<PlannedTopic, CreateTopicError>>, ControllerError> {
    on_controller(core, move |core, controller| async move {
        let turn = controller.turn().await?;
        let image = controller.log.image();
        let layers = core.node.config.layers(&image);
        let outcomes =
            plan_create_topics(&image, &layers, &topics, &mut || TopicId(core.runtime.entropy.uuid()));
        let records: Vec<Record> = outcomes.iter().flatten().map(|planned| planned.record.clone()).collect();
        if !validate_only && !records.is_empty() {
            controller.write_and_show(&core, turn, &records).await?;
        }
        Ok(outcomes)
    })
    .await
}

/// Deletes topics; resolves when no core routes to them any more.
///
/// # Errors
/// As [`create_topics`].
pub async fn delete_topics(
    core: &Rc<Core>,
    topics: Vec<TopicRef>,
) -> Result<Vec<Result<DeletedTopic, DeleteTopicError>>, ControllerError> {
    on_controller(core, move |core, controller| async move {
        let turn = controller.turn().await?;
        let image = controller.log.image();
        let broker_config = BrokerConfig::resolve(&core.node.config.layers(&image));
        let outcomes = plan_delete_topics(&image, &broker_config, &topics);
        let records: Vec<Record> = outcomes.iter().flatten().map(|deleted| deleted.record.clone()).collect();
        if !records.is_empty() {
            controller.write_and_show(&core, turn, &records).await?;
        }
        Ok(outcomes)
    })
    .await
}

/// Changes settings; resolves when every core uses the new ones.
///
/// # Errors
/// As [`create_topics`].
pub async fn alter_configs(
    core: &Rc<Core>,
    alterations: Vec<ConfigAlteration>,
    validate_only: bool,
) -> Result<Vec<Result<(), AlterConfigsError>>, ControllerError> {
    on_controller(core, move |core, controller| async move {
        let turn = controller.turn().await?;
        let image = controller.log.image();
        let layers = core.node.config.layers(&image);
        let planned = plan_alter_configs(&image, &layers, &alterations);
        let records: Vec<Record> = planned.iter().flatten().flatten().cloned().collect();
        if !validate_only && !records.is_empty() {
            controller.write_and_show(&core, turn, &records).await?;
        }
        Ok(planned.into_iter().map(|outcome| outcome.map(|_| ())).collect())
    })
    .await
}

/// A producer id nobody has had.
///
/// # Errors
/// When a new block of ids cannot be had.
pub async fn next_producer_id(core: &Rc<Core>) -> Result<ProducerId, ControllerError> {
    on_controller(core, |core, controller| async move {
        let _one_at_a_time = controller.taking_ids.lock().await;
        let held = *controller.producer_ids.borrow();
        let (block, used) = match held.filter(|(block, used)| *used < i64::from(block.size)) {
            Some(held) => held,
            None => {
                let asked = ControlCall::ProducerIds(core.node.config.node_id);
                match ask::ask(&core, asked).await? {
                    ControlAnswer::ProducerIds(first, size) => (ProducerIdBlock { first, size }, 0),
                    ControlAnswer::Failed(words) | ControlAnswer::Refused(words) => {
                        return Err(ControllerError::Log(words));
                    }
                    other => {
                        return Err(ControllerError::Log(format!(
                            "an answer to another question: {other:?}"
                        )));
                    }
                }
            }
        };
        *controller.producer_ids.borrow_mut() = Some((block, used + 1));
        Ok(ProducerId(block.first.0 + used))
    })
    .await
}

/// Gives a broker a block of producer ids nobody has had. On the controller's core.
pub(crate) async fn allocate_producer_ids(
    core: &Rc<Core>,
    node: NodeId,
) -> Result<ProducerIdBlock, ControllerError> {
    let controller = here(core)?;
    let _turn = controller.turn().await?;
    let (record, block) = plan_producer_id_block(&controller.log.image(), node)
        .map_err(|_| ControllerError::ProducerIdsExhausted)?;
    controller.write(core, &[record]).await?;
    Ok(block)
}

/// Takes note of a broker and where it is. On the controller's core.
pub(crate) async fn register(core: &Rc<Core>, broker: Broker) -> Result<ControlAnswer, ControllerError> {
    let controller = here(core)?;
    let _turn = controller.turn().await?;
    let image = controller.log.image();
    let mut records = Vec::new();
    if image.cluster_id().is_none() {
        records.push(Record::ClusterCreated { cluster_id: core.node.cluster_id.clone() });
    }
    let is_alive = image.broker(broker.node).is_some_and(|known| running::is_alive(core, known));
    match plan_register_broker(&image, &broker, is_alive) {
        Ok(admission) => {
            for damage in &admission.damage {
                tracing::error!(node = %broker.node, "a broker is back without its data: {damage}");
            }
            records.extend(admission.records);
        }
        Err(refused) => return Ok(ControlAnswer::Refused(refused.to_string())),
    }
    let end = controller.write(core, &records).await?;
    Ok(ControlAnswer::Registered(end))
}

/// Takes note that a partition is where it should be, on its leader's word. On the controller's core.
pub(crate) async fn settle(
    core: &Rc<Core>,
    at: TopicIdPartition,
    seen: &Partition,
) -> Result<ControlAnswer, ControllerError> {
    let controller = here(core)?;
    let _turn = controller.turn().await?;
    // A word about what is decided no more comes late, and means nothing.
    let image = controller.log.image();
    if let Some(record) = plan_settle(&image, at, seen) {
        let name = image.topic_by_id(at.topic_id).map(|topic| topic.name.to_string()).unwrap_or_default();
        controller.write(core, &[record]).await?;
        let replicas: Vec<_> = seen.replicas.iter().map(ToString::to_string).collect();
        tracing::info!(topic = %name, partition = %at.partition, replicas = replicas.join(" "), "a partition is where it should be");
    }
    Ok(ControlAnswer::Done)
}

fn here(core: &Core) -> Result<Rc<Controller>, ControllerError> {
    core.controller.borrow().clone().ok_or(ControllerError::Stopped)
}

/// Where the controller is, as this node knows. On the controller's core.
pub(crate) fn place(core: &Core) -> Place {
    let Ok(controller) = here(core) else { return Place::Unknown };
    match controller.log.leader() {
        Some(node) if node == core.node.config.node_id => Place::Here,
        Some(node) => Place::At(node),
        None => Place::Unknown,
    }
}

/// How far this node has seen the controller's log. On the controller's core.
pub(crate) fn applied(core: &Core) -> Offset {
    here(core).map_or(Offset::ZERO, |controller| controller.log.applied())
}

/// Resolves when every core of this node has seen the controller's log up to `end`. On the controller's core.
pub(crate) async fn wait_shown(core: &Core, end: Offset) -> Result<(), ControllerError> {
    here(core)?.log.wait_shown(end).await;
    Ok(())
}
