//! The controller's doer: decides with the pure functions of `metadata` and writes the decision to a log of its own.
//!
//! It runs on one core, and every change goes through one queue there, so a decision is always made on the image that
//! all decisions before it have made. A change is visible only once its records are safe: what a client was told exists
//! does so after any crash. Making it visible is the [`publisher`]'s, which follows the [log](metadata_log) on every node.

pub(crate) mod metadata_log;
pub(crate) mod publisher;

use std::cell::RefCell;
use std::rc::Rc;

use ouzel_metadata::Record;
use ouzel_metadata::plan::alter_configs::{AlterConfigsError, ConfigAlteration, plan_alter_configs};
use ouzel_metadata::plan::create_topics::{CreateTopicError, NewTopic, PlannedTopic, plan_create_topics};
use ouzel_metadata::plan::delete_topics::{DeleteTopicError, DeletedTopic, TopicRef, plan_delete_topics};
use ouzel_metadata::plan::producer_ids::{ProducerIdBlock, plan_producer_id_block};
use ouzel_model::{ProducerId, TimestampMs, TopicId};
use ouzel_raft::ReplicatedLog;
use ouzel_runtime::CoreId;
use tokio::sync::{Mutex, MutexGuard};

use crate::coordinators::OFFSETS_TOPIC;
use crate::core::{Core, Stopped};
use crate::node::metadata_at;
use metadata_log::MetadataLog;

/// The core the controller runs on.
pub const CONTROLLER_CORE: CoreId = CoreId(0);

/// Why a change was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// The node is going down.
    #[error("the controller is shutting down")]
    Stopped,
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
    /// One change at a time: held from the decision until every core has seen it.
    changing: Mutex<()>,
    producer_ids: RefCell<Option<(ProducerIdBlock, i64)>>,
}

impl Controller {
    /// A controller that writes to `log`.
    pub(crate) fn new(log: MetadataLog) -> Controller {
        Controller { log, changing: Mutex::new(()), producer_ids: RefCell::new(None) }
    }

    /// The log, for the stop.
    pub(crate) fn log(&self) -> &MetadataLog {
        &self.log
    }

    /// Waits for the turn to make a change; what is decided until the guard goes is decided on all that was before it.
    async fn turn(&self) -> Result<MutexGuard<'_, ()>, ControllerError> {
        let turn = self.changing.lock().await;
        self.log.wait_applied(self.log.replica().offsets().high_watermark).await?;
        Ok(turn)
    }

    /// Writes records; resolves when they are safe and every core of this node has seen them.
    async fn write(&self, core: &Core, records: &[Record]) -> Result<(), ControllerError> {
        self.log.write(records, TimestampMs(core.runtime.clock.wall_ms())).await?;
        // Damage below what is noted here is never taken for an unfinished write: topics hang on these records.
        core.partitions.note_flushed(metadata_at(), self.log.replica().local().offsets().flushed_end).await;
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
        let _turn = controller.turn().await?;
        let view = core.view();
        let layers = core.node.config.layers(&view.image);
        let outcomes =
            plan_create_topics(&view.image, &layers, &topics, &mut || TopicId(core.runtime.entropy.uuid()));
        let records: Vec<Record> = outcomes.iter().flatten().map(|planned| planned.record.clone()).collect();
        if !validate_only && !records.is_empty() {
            controller.write(&core, &records).await?;
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
        let _turn = controller.turn().await?;
        let view = core.view();
        let outcomes = plan_delete_topics(&view.image, &core.broker_config(), &topics);
        let records: Vec<Record> = outcomes.iter().flatten().map(|deleted| deleted.record.clone()).collect();
        if !records.is_empty() {
            controller.write(&core, &records).await?;
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
        let _turn = controller.turn().await?;
        let view = core.view();
        let layers = core.node.config.layers(&view.image);
        let planned = plan_alter_configs(&view.image, &layers, &alterations);
        let records: Vec<Record> = planned.iter().flatten().flatten().cloned().collect();
        if !validate_only && !records.is_empty() {
            controller.write(&core, &records).await?;
        }
        Ok(planned.into_iter().map(|outcome| outcome.map(|_| ())).collect())
    })
    .await
}

/// A producer id nobody has had.
///
/// # Errors
/// When a new block of ids cannot be written.
pub async fn next_producer_id(core: &Rc<Core>) -> Result<ProducerId, ControllerError> {
    on_controller(core, |core, controller| async move {
        let _turn = controller.turn().await?;
        let held = *controller.producer_ids.borrow();
        let (block, used) = match held.filter(|(block, used)| *used < i64::from(block.size)) {
            Some(held) => held,
            None => {
                let view = core.view();
                let (record, block) = plan_producer_id_block(&view.image, core.node.config.node_id)
                    .map_err(|_| ControllerError::ProducerIdsExhausted)?;
                let records = [record];
                controller.write(&core, &records).await?;
                (block, 0)
            }
        };
        *controller.producer_ids.borrow_mut() = Some((block, used + 1));
        Ok(ProducerId(block.first.0 + used))
    })
    .await
}

/// Creates the topic that holds groups' offsets, unless it is there. A failure is logged: whoever needs the topic asks
/// again.
pub async fn create_offsets_topic(core: &Rc<Core>) {
    let topic = NewTopic::for_offsets(&core.view().image, &core.broker_config());
    match create_topics(core, vec![topic], false).await.map(|mut outcomes| outcomes.pop()) {
        Ok(None | Some(Ok(_) | Err(CreateTopicError::Exists { .. }))) => {}
        Ok(Some(Err(error))) => {
            tracing::error!(%error, topic = OFFSETS_TOPIC, "cannot create the offsets topic")
        }
        Err(error) => tracing::error!(%error, topic = OFFSETS_TOPIC, "cannot create the offsets topic"),
    }
}
