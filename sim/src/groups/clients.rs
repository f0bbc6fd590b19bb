//! Producers and readers of replicated logs: they ask replicas directly, and note what they are told.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use ouzel_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};
use ouzel_raft::transport::LocalBoxFuture;
use ouzel_raft::{AppendRefused, Receipt, ReplicatedLog, Role};
use ouzel_runtime::sim::Rng;

use super::run::Planted;
use super::world::World;
use crate::check::history::{
    Acks, Fetched, Outcome, PartitionId, Place, Produced, ProducerLife, Span, Value,
};
use crate::check::verdict::Kind;
use crate::content::{self, Mark};

/// How long a batch is sent again.
const BATCH_TIME_MAX: Duration = Duration::from_secs(8);
const RECORD_BYTES_MAX: u64 = 400;
const READ_BYTES_MAX: usize = 16 << 10;
/// Batches of an idempotent producer that are under way together: brokers remember five.
const IN_FLIGHT_MAX: u64 = 5;

/// What came of one attempt to append a batch.
#[derive(Clone, Debug)]
enum Attempt {
    Done {
        base: Offset,
        epoch: Option<LeaderEpoch>,
    },
    /// Nothing was appended; somebody else may take it.
    Refused(AppendRefused),
    /// It has a place, and may lose it.
    Unacknowledged,
}

/// A batch that waits for its last word.
struct Batch {
    begun: Duration,
    sequence: u64,
    values: Vec<Value>,
    bytes: BytesMut,
}

/// Writes to one group until the load is over, batches in order; with idempotence several are under way together.
pub(super) struct Producer {
    world: World,
    name: String,
    group: u32,
    idempotent: bool,
    rng: Rng,
    life: ProducerLife,
    sequence: u64,
}

impl Producer {
    pub(super) fn new(world: &World, nth: u64, group: u32, idempotent: bool) -> Producer {
        Producer {
            world: world.clone(),
            name: format!("producer {nth}"),
            group,
            idempotent,
            rng: world.fork(500 + nth),
            life: world.next_life(),
            sequence: 0,
        }
    }

    pub(super) async fn run(mut self) {
        while self.world.load.get() {
            let acks = match self.rng.below(6) {
                _ if self.idempotent => Acks::All,
                0 => Acks::None,
                1 | 2 => Acks::Leader,
                _ => Acks::All,
            };
            let under_way = if self.idempotent { 1 + self.rng.below(IN_FLIGHT_MAX) } else { 1 };
            let batches = (0..under_way).map(|_| self.next_batch()).collect();
            self.send(batches, acks).await;
            let pause = self.rng.below(60);
            self.world.sleep_ms(pause).await;
        }
    }

    /// One more batch, for the final proof that the group serves: true if it was acknowledged.
    pub(super) async fn last(&mut self) -> bool {
        let batch = self.next_batch();
        let before = self.life;
        self.send([batch].into(), Acks::All).await;
        self.life == before
    }

    fn next_batch(&mut self) -> Batch {
        let values: Vec<_> = (0..=self.rng.below(4)).map(|_| self.world.next_value()).collect();
        let sequence = self.sequence;
        self.sequence += values.len() as u64;
        let is_marked = self.idempotent && self.world.planted != Some(Planted::ForgottenSequences);
        let mark = is_marked.then(|| Mark {
            id: ProducerId(self.life.0.cast_signed()),
            epoch: ProducerEpoch(0),
            sequence: i32::try_from(sequence).unwrap_or_default(),
        });
        let now = TimestampMs(self.world.clock().wall_ms());
        let record_bytes = self.rng.below(RECORD_BYTES_MAX) as usize;
        let bytes = BytesMut::from(&content::batch(&values, mark, record_bytes, now)[..]);
        Batch { begun: self.world.now(), sequence, values, bytes }
    }

    /// Sends batches, in order, until each has its last word.
    async fn send(&mut self, mut batches: VecDeque<Batch>, acks: Acks) {
        let deadline = self.world.now() + BATCH_TIME_MAX;
        while !batches.is_empty() {
            let attempts = self.attempt(&batches, acks).await;
            let moved_on = attempts.first().is_some_and(|first| matches!(first, Attempt::Done { .. }));
            for attempt in attempts {
                // What follows one that failed is sent again behind it.
                let Attempt::Done { base, epoch } = attempt else {
                    if let Attempt::Refused(refused) = attempt {
                        self.judge_refusal(&refused);
                    }
                    break;
                };
                let Some(batch) = batches.pop_front() else { break };
                self.tell(batch, acks, Outcome::Done(Place { base, epoch }));
            }
            if batches.is_empty() {
                return;
            }
            let gives_up = acks == Acks::None || self.world.now() >= deadline;
            // Without idempotence a second attempt may store a batch twice: that is counted, now and then.
            if gives_up || (!self.idempotent && self.rng.chance(2, 3)) {
                for batch in batches {
                    self.tell(batch, acks, Outcome::Unknown);
                }
                // Whether they are there nobody knows, so the sequences after them are nobody's.
                self.life = self.world.next_life();
                self.sequence = 0;
                return;
            }
            if !moved_on {
                let pause = 10 + self.rng.below(90);
                self.world.sleep_ms(pause).await;
            }
        }
    }

    /// Appends batches at whoever may lead, all of them begun before the first is done.
    async fn attempt(&mut self, batches: &VecDeque<Batch>, acks: Acks) -> Vec<Attempt> {
        let group = &self.world.groups[self.group as usize];
        let node = group.leader.get();
        let number = self.group;
        let bytes: Vec<_> = batches.iter().map(|batch| batch.bytes.clone()).collect();
        let now = TimestampMs(self.world.clock().wall_ms());
        // The batch is still told to have been promised with acks=all.
        let early = self.world.planted == Some(Planted::EarlyAcknowledgement);
        let waits_for = if early && acks == Acks::All { Acks::Leader } else { acks };
        let answer = self.world.ask(node, move |inside| {
            let Some(replica) = inside.group(number) else {
                return Box::pin(async { vec![Attempt::Refused(AppendRefused::NotLeader)] })
                    as LocalBoxFuture<Vec<Attempt>>;
            };
            let begun: Vec<_> = bytes.into_iter().map(|bytes| replica.append(bytes, now)).collect();
            Box::pin(async move {
                let epoch = replica.epoch();
                let mut attempts = Vec::new();
                for append in begun {
                    let appended = append.await;
                    // Known if no other reign began meanwhile.
                    let epoch = Some(epoch).filter(|epoch| *epoch == replica.epoch());
                    attempts.push(follow(appended, epoch, waits_for).await);
                }
                attempts
            })
        });
        let attempts = answer.await.unwrap_or_default();
        if !attempts.iter().any(|attempt| matches!(attempt, Attempt::Done { .. })) {
            // Somebody else may lead by now.
            group.leader.set(self.rng.below(self.world.nodes.len() as u64) as usize);
        }
        attempts
    }

    /// A producer that did everything right is refused only for a while.
    fn judge_refusal(&self, refused: &AppendRefused) {
        let passes = match refused {
            AppendRefused::NotLeader | AppendRefused::DiskLow | AppendRefused::Fenced(_) => true,
            AppendRefused::OutOfOrderSequence { .. } => self.world.is_loss_admitted(self.group),
            _ => false,
        };
        if !passes {
            self.world.broken(Kind::UnexpectedError, format!("{}: {refused}", self.name));
        }
    }

    fn tell(&self, batch: Batch, acks: Acks, outcome: Outcome<Place>) {
        let (first, last) = (batch.values[0].0, batch.values[batch.values.len() - 1].0);
        self.world
            .note(&self.name, format_args!("{first} to {last} to {} with {acks:?}: {outcome:?}", self.group));
        self.world.history.borrow_mut().produced.push(Produced {
            span: self.world.span_since(batch.begun),
            partition: PartitionId(self.group),
            producer: self.life,
            idempotent: self.idempotent,
            sequence: batch.sequence,
            values: batch.values,
            acks,
            outcome,
        });
    }
}

/// Waits as long as the acks ask.
async fn follow(appended: Result<Receipt, AppendRefused>, epoch: Option<LeaderEpoch>, acks: Acks) -> Attempt {
    let receipt = match appended {
        Ok(receipt) => receipt,
        Err(refused) => return Attempt::Refused(refused),
    };
    let safe = match acks {
        Acks::None => Ok(()),
        Acks::Leader => receipt.written().await,
        Acks::All => receipt.acknowledged().await,
    };
    if safe.is_err() {
        return Attempt::Unacknowledged;
    }
    // The epoch of a repeat is that of its first place.
    let epoch = epoch.filter(|_| !receipt.placed.duplicate);
    Attempt::Done { base: receipt.placed.base_offset, epoch }
}

/// Reads until the load is over: a group for a while, from its start or from the middle, at the leader or at a follower.
pub(super) async fn read(world: World, nth: u64) {
    let mut rng = world.fork(700 + nth);
    let groups = world.partitions();
    let mut ends = vec![Offset(0); groups.len()];
    while world.load.get() {
        let group = rng.below(groups.len() as u64) as usize;
        let session = world.next_session();
        let mut from = if rng.chance(1, 3) {
            Offset(0)
        } else {
            Offset(rng.below(ends[group].0.cast_unsigned() + 1).cast_signed())
        };
        let node = rng.below(world.nodes.len() as u64) as usize;
        for _ in 0..rng.below(30) {
            let begun = world.now();
            let Some(Some(seen)) = read_once(&world, node, group as u32, from).await else {
                let pause = 20 + rng.below(60);
                world.sleep_ms(pause).await;
                break;
            };
            let records = match content::records(&seen.pieces, from) {
                Ok(records) => records,
                Err(reason) => {
                    world.broken(Kind::UnexpectedError, format!("group {group} from {from}: {reason}"));
                    break;
                }
            };
            let next = records.last().map_or(from, |(last, ..)| *last + 1);
            world.history.borrow_mut().fetched.push(Fetched {
                span: Span { begun, ended: world.now() },
                partition: PartitionId(group as u32),
                session,
                from,
                records,
                log_start: seen.log_start,
                high_watermark: seen.high_watermark,
                epoch: seen.leads_in,
            });
            (from, ends[group]) = (next, seen.high_watermark);
            let pause = rng.below(40);
            world.sleep_ms(pause).await;
        }
    }
}

/// What a replica showed.
pub(super) struct Seen {
    pub(super) pieces: Vec<bytes::Bytes>,
    pub(super) log_start: Offset,
    pub(super) high_watermark: Offset,
    /// Its epoch, if it leads.
    pub(super) leads_in: Option<LeaderEpoch>,
}

/// Reads whole batches below the high watermark; none from a replica that is not there, or where `from` is beyond it.
pub(super) async fn read_once(world: &World, node: usize, group: u32, from: Offset) -> Option<Option<Seen>> {
    let shows_all = world.planted == Some(Planted::UncommittedReads);
    world
        .ask(node, move |inside| {
            let replica = inside.group(group);
            Box::pin(async move {
                let replica = replica?;
                let status = replica.status();
                let mut offsets = replica.offsets();
                if shows_all {
                    offsets.high_watermark = offsets.log_end;
                }
                if from < offsets.log_start || from > offsets.high_watermark {
                    return None;
                }
                let leads_in = (status.role == Role::Leader).then_some(status.epoch);
                let read =
                    replica.local().read(from, offsets.high_watermark, READ_BYTES_MAX, true).await.ok()?;
                let (log_start, high_watermark) = (offsets.log_start, offsets.high_watermark);
                Some(Seen { pieces: read.batches, log_start, high_watermark, leads_in })
            })
        })
        .await
}
