//! The controller's doer: decides with the pure functions of `metadata`, writes the decision to a log of its own, and
//! publishes the next image to every core.
//!
//! It runs on one core, and every change goes through one queue there, so a decision is always made on the image that
//! all decisions before it have made. A change is visible only once its records are safe: what a client was told exists
//! does so after any crash.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use ouzel_metadata::plan::alter_configs::{AlterConfigsError, ConfigAlteration, plan_alter_configs};
use ouzel_metadata::plan::create_topics::{CreateTopicError, NewTopic, PlannedTopic, plan_create_topics};
use ouzel_metadata::plan::delete_topics::{DeleteTopicError, DeletedTopic, TopicRef, plan_delete_topics};
use ouzel_metadata::plan::producer_ids::{ProducerIdBlock, plan_producer_id_block};
use ouzel_metadata::{Image, Record};
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts};
use ouzel_model::{ProducerId, TimestampMs, TopicId, TopicIdPartition, TopicPartition};
use ouzel_raft::{ReplicatedLog, Solo};
use ouzel_runtime::CoreId;
use ouzel_sync::published::published_offsets;
use tokio::sync::Mutex;

use crate::coordinators::OFFSETS_TOPIC;
use crate::core::{Core, Stopped};
use crate::node::metadata_at;
use crate::partitions::Opening;
use crate::topic_config::TopicConfigs;
use crate::view::{NodeView, Route};

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
    log: Solo,
    /// One change at a time: held from the decision until the image is published on every core.
    changing: Mutex<()>,
    producer_ids: RefCell<Option<(ProducerIdBlock, i64)>>,
    /// How many partitions each core owns; the fewest gets the next one.
    owned: RefCell<Vec<usize>>,
}

impl Controller {
    /// Puts it together from its log and the number of partitions each core owns already.
    pub(crate) fn new(log: Solo, owned: Vec<usize>) -> Controller {
        Controller {
            log,
            changing: Mutex::new(()),
            producer_ids: RefCell::new(None),
            owned: RefCell::new(owned),
        }
    }

    /// The log, for the stop.
    pub(crate) fn log(&self) -> &Solo {
        &self.log
    }

    /// Writes records and waits until they are safe.
    async fn write(&self, core: &Core, records: &[Record]) -> Result<(), ControllerError> {
        let now = TimestampMs(core.runtime.clock.wall_ms());
        let batch = batch_of(records, now);
        let failed = |error: &dyn std::fmt::Display| ControllerError::Log(error.to_string());
        let receipt = self.log.append(batch, now).await.map_err(|error| failed(&error))?;
        receipt.acknowledged().await.map_err(|error| failed(&error))?;
        // Damage below what is noted here is never taken for an unfinished write: topics hang on these records.
        core.partitions.note_flushed(metadata_at(), self.log.local().offsets().flushed_end).await;
        Ok(())
    }
}

/// The controller's records as one batch, so that a change is whole or not there.
pub(crate) fn batch_of(records: &[Record], now: TimestampMs) -> BytesMut {
    let mut builder = BatchBuilder::new(Codec::None);
    for record in records {
        builder.push(now, &RecordParts { key: None, value: Some(&record.encode()), headers: &[] });
    }
    BytesMut::from(&builder.build()[..])
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
        let _one_at_a_time = controller.changing.lock().await;
        let view = core.view();
        let layers = core.node.config.layers(&view.image);
        let outcomes =
            plan_create_topics(&view.image, &layers, &topics, &mut || TopicId(core.runtime.entropy.uuid()));
        let records: Vec<Record> = outcomes.iter().flatten().map(|planned| planned.record.clone()).collect();
        if !validate_only && !records.is_empty() {
            controller.write(&core, &records).await?;
            publish(&core, &controller, &records).await?;
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
        let _one_at_a_time = controller.changing.lock().await;
        let view = core.view();
        let outcomes = plan_delete_topics(&view.image, &core.broker_config(), &topics);
        let records: Vec<Record> = outcomes.iter().flatten().map(|deleted| deleted.record.clone()).collect();
        if !records.is_empty() {
            controller.write(&core, &records).await?;
            publish(&core, &controller, &records).await?;
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
        let _one_at_a_time = controller.changing.lock().await;
        let view = core.view();
        let layers = core.node.config.layers(&view.image);
        let planned = plan_alter_configs(&view.image, &layers, &alterations);
        let records: Vec<Record> = planned.iter().flatten().flatten().cloned().collect();
        if !validate_only && !records.is_empty() {
            controller.write(&core, &records).await?;
            publish(&core, &controller, &records).await?;
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
        let _one_at_a_time = controller.changing.lock().await;
        let held = *controller.producer_ids.borrow();
        let (block, used) = match held.filter(|(block, used)| *used < i64::from(block.size)) {
            Some(held) => held,
            None => {
                let view = core.view();
                let (record, block) = plan_producer_id_block(&view.image, core.node.config.node_id)
                    .map_err(|_| ControllerError::ProducerIdsExhausted)?;
                let records = [record];
                controller.write(&core, &records).await?;
                publish(&core, &controller, &records).await?;
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

/// Makes committed records true on this node: opens what is new, shows every core the next image, closes what is gone.
async fn publish(
    core: &Rc<Core>,
    controller: &Controller,
    records: &[Record],
) -> Result<(), ControllerError> {
    let before = core.view();
    let mut image = before.image.clone();
    for record in records {
        // The plan was made on this very image, under the lock.
        image.apply(record).map_err(|error| ControllerError::Log(error.to_string()))?;
    }
    let topic_configs = TopicConfigs::resolve(&core.node.config, &image);
    let mut routes = before.routes.clone();
    let mut gone: HashMap<CoreId, Vec<TopicIdPartition>> = HashMap::new();
    routes.retain(|at, route| {
        let stays = image.topic_by_id(at.topic_id).is_some();
        if !stays {
            gone.entry(route.core).or_default().push(*at);
            controller.owned.borrow_mut()[usize::from(route.core.0)] -= 1;
        }
        stays
    });
    let mut opening: HashMap<CoreId, Vec<Opening>> = HashMap::new();
    for topic in image.topics() {
        for (index, partition) in topic.indexed_partitions() {
            let at = TopicIdPartition { topic_id: topic.id, partition: index };
            if routes.contains_key(&at) || !partition.replicas.contains(&core.node.config.node_id) {
                continue;
            }
            let owner = controller.take_owner();
            let (offsets, readers) = published_offsets(crate::view::UNOPENED);
            opening.entry(owner).or_default().push(Opening {
                at,
                topic_partition: TopicPartition { topic: topic.name.clone(), partition: index },
                offsets,
                config: topic_configs.of(topic.id),
                known: None,
            });
            routes.insert(at, Route { core: owner, offsets: readers });
        }
    }
    for (owner, openings) in opening {
        core.call(owner, move |core| {
            let core = core.clone();
            async move { core.partitions.open_all(&core, openings).await }
        })
        .await?;
    }
    let deleted: Vec<_> = before
        .image
        .topics()
        .filter(|topic| image.topic_by_id(topic.id).is_none())
        .map(|topic| (topic.name.clone(), topic.id))
        .collect();
    let view = Arc::new(NodeView { image, routes, topic_configs });
    show(core, view).await?;
    for (owner, partitions) in gone {
        core.call(owner, move |core| {
            let core = core.clone();
            async move { core.partitions.delete_all(&core, partitions).await }
        })
        .await?;
    }
    if !deleted.is_empty() {
        for to in core.cores.ids() {
            let deleted = deleted.clone();
            core.post(to, move |core| core.coordinators.topics_deleted(&deleted));
        }
    }
    Ok(())
}

/// Gives every core the view, and waits until all have it.
async fn show(core: &Rc<Core>, view: Arc<NodeView>) -> Result<(), Stopped> {
    for to in core.cores.ids() {
        let view = view.clone();
        core.call(to, move |core| {
            core.set_view(view.clone());
            core.partitions.settings_changed(core, &view);
            async {}
        })
        .await?;
    }
    Ok(())
}

impl Controller {
    fn take_owner(&self) -> CoreId {
        let mut owned = self.owned.borrow_mut();
        let fewest = (0..owned.len()).min_by_key(|core| owned[*core]).unwrap_or(0);
        owned[fewest] += 1;
        CoreId(fewest as u16)
    }
}

/// Replays a piece of the controller's log into an image; gives the topics it deletes.
///
/// # Errors
/// In words, when the log holds what no controller of this release wrote.
pub(crate) fn replay(image: &mut Image, batch: &[u8]) -> Result<Vec<TopicId>, String> {
    use ouzel_model::batch::{RecordStream, batches};
    let mut deleted = Vec::new();
    for batch in batches(batch) {
        let batch = batch.map_err(|error| error.to_string())?;
        for record in RecordStream::new(&batch, usize::MAX).map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let value = record.value.unwrap_or_default();
            let words =
                |error: &dyn std::fmt::Display| format!("record at offset {}: {error}", record.offset);
            let decoded = Record::decode(&value).map_err(|error| words(&error))?;
            image.apply(&decoded).map_err(|error| words(&error))?;
            if let Record::TopicDeleted { topic_id } = decoded {
                deleted.push(topic_id);
            }
        }
    }
    Ok(deleted)
}
