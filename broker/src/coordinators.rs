//! The runtime of the group coordinators: loads their state by replay, appends what they decide, releases their answers
//! when that has committed, and keeps their timers.
//!
//! One shard per partition of `__consumer_offsets`, on the core that owns the partition. The shards are pure
//! ([`ouzel_coordinator`]); what crosses a crash is only what they wrote.

mod records;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use ouzel_coordinator::request::ListRequest;
use ouzel_coordinator::response::ListedGroup;
use ouzel_coordinator::{
    Effects, Request, Response, Shard, Ticket, TimerSet, Write, WriteFailure, WriteToken,
};
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts, RecordStream, batches};
use ouzel_model::{
    GroupId, LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId, TopicName, partition_for_key,
};
use ouzel_runtime::clock::Instant;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::core::{Core, Stopped};
use crate::partition::{Acks, AppendRefused, Appended, Partition};

/// The topic that holds the groups' state.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// How much of the topic is read at a time while loading.
const LOAD_BYTES: usize = 1 << 20;
/// How long after it could not be loaded that is attempted again.
const LOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Why no coordinator answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The topic does not exist yet, so no group does.
    NoTopic,
    /// The partition is not on this broker.
    NotCoordinator,
    /// The shard still replays its partition.
    Loading,
    /// The broker is going down.
    Stopping,
}

impl From<Stopped> for Unavailable {
    fn from(_: Stopped) -> Unavailable {
        Unavailable::Stopping
    }
}

/// The shards of one core.
#[derive(Default)]
pub struct Coordinators {
    shards: RefCell<BTreeMap<PartitionIndex, Rc<ShardRuntime>>>,
}

impl Coordinators {
    fn shard(&self, partition: PartitionIndex) -> Option<Rc<ShardRuntime>> {
        self.shards.borrow().get(&partition).cloned()
    }

    /// Starts the coordinator of a partition that leads from now on, and stops that of one that leads no longer or leads
    /// anew: what a reign has decided is known from the log alone. It answers once it has replayed it.
    pub(crate) fn follow(&self, core: &Rc<Core>, partition: &Rc<Partition>) {
        let (at, reign) = (partition.at(), partition.leads().then(|| partition.epoch()));
        let runs = self.shard(at.partition).map(|shard| shard.reign);
        if runs == reign {
            return;
        }
        self.stop_one(at.partition);
        if let Some(reign) = reign {
            let shard = ShardRuntime::start(core.clone(), partition.clone(), reign);
            self.shards.borrow_mut().insert(at.partition, shard);
        }
    }

    /// Stops the coordinator of a partition that is gone.
    pub(crate) fn stop_one(&self, partition: PartitionIndex) {
        let gone = self.shards.borrow_mut().remove(&partition);
        if let Some(shard) = gone {
            shard.unload();
        }
    }

    /// Stops all shards: whoever is parked is told to look for another coordinator.
    pub(crate) fn stop(&self) {
        for shard in self.shards.take().into_values() {
            shard.unload();
        }
    }

    /// Forgets what groups committed for topics that are gone.
    pub(crate) fn topics_deleted(&self, topics: &[(TopicName, TopicId)]) {
        for shard in self.shards.borrow().values() {
            shard.turn(|shard, now| shard.on_topics_deleted(now, topics));
        }
    }

    /// The periodic pass over expired offsets.
    pub(crate) fn expire(&self) {
        for shard in self.shards.borrow().values() {
            shard.turn(Shard::expire);
        }
    }

    /// Every committed offset of the shards here; for the lag on `/metrics`.
    pub(crate) fn each_committed(&self, mut each: impl FnMut(&GroupId, &TopicName, PartitionIndex, Offset)) {
        for shard in self.shards.borrow().values() {
            let state = shard.state.borrow();
            if let Some(shard) = &state.shard {
                shard.persisted().each_offset(|group, topic, partition, value| {
                    each(group, topic, partition, value.offset)
                });
            }
        }
    }

    /// Why shards here cannot load, in words.
    pub(crate) fn faults(&self) -> Vec<String> {
        let shards = self.shards.borrow();
        let told = shards.values().filter_map(|shard| {
            let reason = shard.fault.borrow();
            let partition = shard.partition.topic_partition();
            reason.as_ref().map(|reason| format!("{partition}: its group coordinator cannot load: {reason}"))
        });
        told.collect()
    }

    /// Groups by state, over the shards here.
    pub(crate) fn each_state(&self, mut each: impl FnMut(&'static str, usize)) {
        for shard in self.shards.borrow().values() {
            if let Some(shard) = &shard.state.borrow().shard {
                shard.groups_by_state().into_iter().for_each(|(state, count)| each(state.as_str(), count));
            }
        }
    }
}

/// The partition of the offsets topic that holds a group.
pub fn partition_of(core: &Core, group: &GroupId) -> PartitionIndex {
    let view = core.view();
    let existing = view.topic_by_name(OFFSETS_TOPIC).map(|topic| topic.partitions.len() as i32);
    partition_for_key(group.as_str(), existing.unwrap_or_else(|| core.node.config.offsets_partitions()))
}

fn locate(core: &Core, partition: PartitionIndex) -> Result<ouzel_runtime::CoreId, Unavailable> {
    let view = core.view();
    let topic = view.topic_by_name(OFFSETS_TOPIC).ok_or(Unavailable::NoTopic)?;
    let route = view.route(topic.id, partition).ok_or(Unavailable::NotCoordinator)?;
    Ok(route.core)
}

/// Asks a group's coordinator, wherever it lives.
///
/// # Errors
/// See [`Unavailable`]; what the coordinator itself refuses is in the response.
pub async fn ask(core: &Rc<Core>, group: &GroupId, request: Request) -> Result<Response, Unavailable> {
    let partition = partition_of(core, group);
    let owner = locate(core, partition)?;
    // All else that matters is written first, which shows who leads.
    let is_told_from_memory = matches!(request, Request::OffsetFetch(_));
    core.call(owner, move |core| {
        let shard = core.coordinators.shard(partition).ok_or(Unavailable::NotCoordinator);
        let asked = shard.and_then(|shard| Ok((shard.ask(request)?, shard)));
        async move {
            let (answer, shard) = asked?;
            let answer = answer.await.map_err(|_| Unavailable::Stopping)?;
            match !is_told_from_memory || shard.still_coordinates().await {
                true => Ok(answer),
                false => Err(Unavailable::NotCoordinator),
            }
        }
    })
    .await?
}

/// ListGroups over all coordinators of this broker.
///
/// # Errors
/// [`Unavailable::Loading`] as soon as one shard cannot tell.
pub async fn list(core: &Rc<Core>, request: ListRequest) -> Result<Vec<ListedGroup>, Unavailable> {
    let mut listed = Vec::new();
    for owner in core.cores.ids() {
        let request = request.clone();
        let of_core = core.call(owner, move |core| {
            let shards: Vec<_> = core.coordinators.shards.borrow().values().cloned().collect();
            async move {
                let mut listed = Vec::new();
                for shard in shards {
                    let answer = shard.ask(Request::List(request.clone()))?;
                    if let Ok(Response::List(groups)) = answer.await {
                        listed.extend(groups);
                    }
                }
                Ok::<_, Unavailable>(listed)
            }
        });
        listed.extend(of_core.await??);
    }
    listed.sort_by(|a, b| a.group.cmp(&b.group));
    Ok(listed)
}

/// One shard and what carries out its effects.
struct ShardRuntime {
    core: Rc<Core>,
    partition: Rc<Partition>,
    /// In which it coordinates.
    reign: LeaderEpoch,
    state: RefCell<State>,
    loaded: Cell<bool>,
    /// Why it could not be loaded, if it could not lately.
    fault: RefCell<Option<String>>,
    /// The timers' keeper looks again.
    timers_changed: Notify,
    /// It coordinates no more, and all that is done for it ends.
    unloaded: Notify,
    writes: mpsc::UnboundedSender<Write>,
    began_at: Instant,
}

struct State {
    /// `None` once unloaded.
    shard: Option<Shard>,
    timers: TimerSet,
    waiting: BTreeMap<Ticket, oneshot::Sender<Response>>,
    next_ticket: u64,
}

impl ShardRuntime {
    fn start(core: Rc<Core>, partition: Rc<Partition>, reign: LeaderEpoch) -> Rc<ShardRuntime> {
        let (writes, queue) = mpsc::unbounded_channel();
        let state = State {
            shard: Some(empty_shard(&core)),
            timers: TimerSet::default(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
        };
        let began_at = core.runtime.clock.now();
        let shard = Rc::new(ShardRuntime {
            core,
            partition,
            reign,
            state: RefCell::new(state),
            loaded: Cell::new(false),
            fault: RefCell::default(),
            timers_changed: Notify::new(),
            unloaded: Notify::new(),
            writes,
            began_at,
        });
        ouzel_runtime::spawn(run(shard.clone(), queue));
        shard
    }

    fn ask(&self, request: Request) -> Result<oneshot::Receiver<Response>, Unavailable> {
        if !self.loaded.get() {
            return Err(Unavailable::Loading);
        }
        let (answer, answered) = oneshot::channel();
        let mut state = self.state.borrow_mut();
        let ticket = Ticket(state.next_ticket);
        state.next_ticket += 1;
        let now = self.wall();
        let Some(shard) = &mut state.shard else { return Err(Unavailable::NotCoordinator) };
        let effects = shard.handle(now, ticket, request);
        state.waiting.insert(ticket, answer);
        self.carry_out(&mut state, effects);
        Ok(answered)
    }

    /// Whether what it knew when this was asked was all that had been committed. Members who find a coordinator that was
    /// replaced without hearing of it would begin where they were long ago.
    async fn still_coordinates(&self) -> bool {
        self.partition.still_leads().await && self.partition.epoch() == self.reign
    }

    /// Lets the shard decide something nobody waits for.
    fn turn(&self, decide: impl FnOnce(&mut Shard, TimestampMs) -> Effects) {
        let mut state = self.state.borrow_mut();
        let Some(shard) = state.shard.as_mut().filter(|_| self.loaded.get()) else { return };
        let effects = decide(shard, self.wall());
        self.carry_out(&mut state, effects);
    }

    fn carry_out(&self, state: &mut State, effects: Effects) {
        for (ticket, response) in effects.replies {
            if let Some(waiting) = state.waiting.remove(&ticket) {
                // Whoever asked may be gone with its connection.
                let _ = waiting.send(response);
            }
        }
        if let Some(write) = effects.write {
            // The receiver lives as long as the shard's task, and both end with the core.
            let _ = self.writes.send(write);
        }
        if !effects.timers.is_empty() {
            state.timers.apply(self.monotonic_ms(), effects.timers);
            self.timers_changed.notify_one();
        }
    }

    fn unload(&self) {
        let mut state = self.state.borrow_mut();
        if let Some(shard) = state.shard.take() {
            for (ticket, response) in shard.unload() {
                if let Some(waiting) = state.waiting.remove(&ticket) {
                    let _ = waiting.send(response);
                }
            }
        }
        self.unloaded.notify_one();
    }

    fn wall(&self) -> TimestampMs {
        TimestampMs(self.core.runtime.clock.wall_ms())
    }

    fn monotonic_ms(&self) -> u64 {
        self.core.runtime.clock.now().duration_since(self.began_at).as_millis() as u64
    }
}

fn empty_shard(core: &Core) -> Shard {
    Shard::new(core.node.config.group_config())
}

/// The shard's life, until it is unloaded: then all of this lets go of its partition.
async fn run(shard: Rc<ShardRuntime>, queue: mpsc::UnboundedReceiver<Write>) {
    tokio::select! {
        biased;
        () = shard.unloaded.notified() => {}
        () = coordinate(&shard, queue) => {}
    }
}

/// Loads, then sees to writes and timers.
async fn coordinate(shard: &ShardRuntime, queue: mpsc::UnboundedReceiver<Write>) {
    while let Err(reason) = load(shard).await {
        // Answers stay "loading": retriable, and an operator sees why. A disk may have failed once.
        let is_news = shard.fault.borrow().as_ref() != Some(&reason);
        if is_news {
            tracing::error!(partition = %shard.partition.topic_partition(), reason, "a group coordinator cannot load");
        }
        shard.fault.replace(Some(reason));
        shard.core.runtime.clock.sleep(LOAD_INTERVAL).await;
        shard.state.borrow_mut().shard = Some(empty_shard(&shard.core));
    }
    shard.fault.take();
    let effects = {
        let mut state = shard.state.borrow_mut();
        let Some(machine) = &mut state.shard else { return };
        machine.on_loaded(shard.wall())
    };
    shard.loaded.set(true);
    shard.carry_out(&mut shard.state.borrow_mut(), effects);
    let (settling, settled) = mpsc::unbounded_channel();
    tokio::join!(settle_writes(shard, settled), append_writes(shard, queue, settling), keep_timers(shard));
}

/// Replays the partition from its start to its end.
async fn load(shard: &ShardRuntime) -> Result<(), String> {
    let mut from = shard.partition.log_start();
    // The leader's own log, to its end: none of it is cut while this reign lasts. But only what is committed may be told.
    let end = shard.partition.log_end();
    let mut count = 0u64;
    while from < end {
        let read = shard.partition.read_to_end(from, LOAD_BYTES).await;
        let read = read.map_err(|refused| refused.to_string())?;
        let before = from;
        for chunk in &read {
            for batch in batches(chunk) {
                let batch = batch.map_err(|error| error.to_string())?;
                from = batch.header.next_offset();
                if batch.header.attributes.is_control() {
                    continue;
                }
                for record in RecordStream::new(&batch, usize::MAX).map_err(|error| error.to_string())? {
                    let record = record.map_err(|error| error.to_string())?;
                    let key = record.key.unwrap_or_default();
                    match records::decode(key, record.value) {
                        Ok(Some(record)) => {
                            count += 1;
                            if let Some(machine) = &mut shard.state.borrow_mut().shard {
                                machine.replay(&record);
                            }
                        }
                        // Another kind of group's record: not ours to interpret, and not ours to fail over.
                        Ok(None) => {}
                        Err(reason) => {
                            return Err(format!(
                                "record at offset {} is unreadable: {reason}",
                                record.offset
                            ));
                        }
                    }
                }
            }
        }
        if from == before {
            return Err(format!("the log ends at offset {from}, before its own end {end}"));
        }
    }
    shard.partition.committed_to(end).await;
    tracing::debug!(partition = %shard.partition.at().partition, records = count, "group coordinator loaded");
    Ok(())
}

/// An append that has its place and is not yet safe.
type Appending = Pin<Box<dyn Future<Output = Result<Appended, AppendRefused>>>>;

/// A write on its way to being safe.
struct Settling {
    token: WriteToken,
    appending: Vec<Appending>,
    failed: Option<WriteFailure>,
}

/// Appends in the order of the shard's decisions; several writes may be on their way at once.
async fn append_writes(
    shard: &ShardRuntime,
    mut queue: mpsc::UnboundedReceiver<Write>,
    settling: mpsc::UnboundedSender<Settling>,
) {
    while let Some(write) = queue.recv().await {
        let now = shard.wall();
        let bytes_max = shard.partition.batch_bytes_max();
        let batches = encode(&write, now, bytes_max);
        let mut next = Settling { token: write.token, appending: Vec::new(), failed: None };
        match batches {
            Ok(batches) => next.appending.extend(batches.into_iter().map(|batch| {
                Box::pin(shard.partition.append(BytesMut::from(&batch[..]), Acks::All, now)) as _
            })),
            Err(failure) => next.failed = Some(failure),
        }
        if settling.send(next).is_err() {
            return;
        }
    }
}

/// Tells the shard how its writes went, in their order.
async fn settle_writes(shard: &ShardRuntime, mut settling: mpsc::UnboundedReceiver<Settling>) {
    while let Some(write) = settling.recv().await {
        let mut outcome = write.failed.map_or(Ok(()), Err);
        for appending in write.appending {
            // Without a deadline: a write called failed that commits after all would leave the shard knowing less than its
            // log. A log that cannot write fences itself, which is an answer.
            if let Err(refused) = appending.await {
                outcome = Err(write_failure(&refused));
            }
        }
        let mut state = shard.state.borrow_mut();
        let now = shard.wall();
        let Some(machine) = &mut state.shard else { return };
        let effects = machine.on_committed(now, write.token, outcome);
        shard.carry_out(&mut state, effects);
    }
}

fn write_failure(refused: &AppendRefused) -> WriteFailure {
    match refused {
        AppendRefused::TimedOut | AppendRefused::NotEnoughReplicas { .. } | AppendRefused::DiskLow => {
            WriteFailure::Unavailable
        }
        AppendRefused::NotHere | AppendRefused::Storage(_) => WriteFailure::NotLeader,
        AppendRefused::OutOfOrderSequence { .. } | AppendRefused::StaleProducerEpoch { .. } => {
            WriteFailure::Refused
        }
    }
}

/// One batch for an atomic write; as many as it takes for the rest.
fn encode(write: &Write, now: TimestampMs, bytes_max: usize) -> Result<Vec<Vec<u8>>, WriteFailure> {
    let mut built = Vec::new();
    let mut builder = BatchBuilder::new(Codec::None);
    for record in write.records.iter() {
        let (key, value) = records::encode(record);
        let bytes = key.len() + value.as_ref().map_or(0, |value| value.len()) + 64;
        if !write.atomic && builder.record_count() > 0 && builder.plain_bytes() + bytes > bytes_max / 2 {
            built.push(std::mem::take(&mut builder).build());
        }
        builder.push(now, &RecordParts { key: Some(&key), value: value.as_deref(), headers: &[] });
    }
    built.push(builder.build());
    if built.iter().any(|batch| batch.len() > bytes_max) {
        return Err(WriteFailure::Refused);
    }
    Ok(built)
}

/// Sleeps until the next timer, and lets the shard decide what its end means.
async fn keep_timers(shard: &ShardRuntime) {
    loop {
        let next = shard.state.borrow().timers.next_deadline_ms();
        match next {
            None => shard.timers_changed.notified().await,
            Some(deadline_ms) => {
                let deadline = shard.began_at + Duration::from_millis(deadline_ms);
                tokio::select! {
                    biased;
                    () = shard.timers_changed.notified() => {}
                    () = shard.core.runtime.clock.sleep_until(deadline) => {}
                }
            }
        }
        loop {
            let mut state = shard.state.borrow_mut();
            let Some(key) = state.timers.pop_due(shard.monotonic_ms()) else { break };
            let now = shard.wall();
            let Some(machine) = &mut state.shard else { return };
            let effects = machine.on_timer(now, &key);
            shard.carry_out(&mut state, effects);
        }
    }
}
