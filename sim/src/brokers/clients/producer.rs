//! A producer: one batch after another, each sent again until it is answered or given up.

use std::collections::BTreeMap;
use std::time::Duration;

use ouzel_client::ClientError;
use ouzel_model::{PartitionIndex, ProducerEpoch, ProducerId, TimestampMs};
use ouzel_protocol::ErrorCode;
use ouzel_runtime::Runtime;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::{Rng, SimRuntime};

use super::super::shared::{Phase, Shared, TOPIC};
use super::wire::{Wire, judge_error, passes};
use crate::check::history::{Acks, Outcome, PartitionId, Place, Produced, ProducerLife, Span};
use crate::content::{self, Mark};

/// How long a batch is sent again.
const BATCH_TIME_MAX: Duration = Duration::from_secs(6);
const BATCH_RECORDS_MAX: u64 = 6;
const RECORD_BYTES_MAX: u64 = 600;

/// Produces until the load is over.
pub(in super::super) async fn produce(
    node: SimRuntime,
    name: String,
    bootstrap: String,
    idempotent: bool,
    shared: Shared,
) -> CoreResult {
    let runtime = node.runtime();
    let producer = Producer {
        rng: Rng::new(node.seed()).fork(0x9d0d),
        wire: Wire::new(&runtime, &bootstrap),
        life: shared.next_life(),
        identity: None,
        sequences: BTreeMap::new(),
        runtime,
        name,
        idempotent,
        shared,
    };
    producer.run().await;
    Ok(())
}

struct Producer {
    runtime: Runtime,
    name: String,
    idempotent: bool,
    shared: Shared,
    rng: Rng,
    wire: Wire,
    life: ProducerLife,
    identity: Option<(ProducerId, ProducerEpoch)>,
    sequences: BTreeMap<PartitionId, u64>,
}

impl Producer {
    async fn run(mut self) {
        while self.shared.phase() == Phase::Opening {
            self.runtime.clock.sleep(Duration::from_millis(20)).await;
        }
        while self.shared.phase() == Phase::Load {
            if self.idempotent && self.identity.is_none() {
                match self.wire.producer_id().await {
                    Ok(identity) => self.identity = Some(identity),
                    Err(error) => {
                        self.note(&format!("no producer id: {error}"));
                        judge_error(&self.shared, &self.name, &error, &[]);
                        self.runtime.clock.sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                }
            }
            self.one_batch().await;
            let pause = self.rng.below(40);
            self.runtime.clock.sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn one_batch(&mut self) {
        let partitions: Vec<_> = self.shared.partitions().collect();
        let partition = partitions[self.rng.below(partitions.len() as u64) as usize];
        let values: Vec<_> =
            (0..=self.rng.below(BATCH_RECORDS_MAX)).map(|_| self.shared.next_value()).collect();
        let acks = match self.rng.below(6) {
            _ if self.idempotent => Acks::All,
            0 => Acks::None,
            1 | 2 => Acks::Leader,
            _ => Acks::All,
        };
        let sequence = self.sequences.get(&partition).copied().unwrap_or_default();
        let mark = self.identity.map(|(id, epoch)| {
            let sequence = i32::try_from(sequence).unwrap_or_default();
            Mark { id, epoch, sequence }
        });
        let record_bytes = self.rng.below(RECORD_BYTES_MAX) as usize;
        let now = TimestampMs(self.runtime.clock.wall_ms());
        let batch = content::batch(&values, mark, record_bytes, now);
        let begun = self.shared.now(&self.runtime);
        let (first, last) = (values[0].0, values[values.len() - 1].0);
        self.note(&format!("sends {first} to {last} to {} with {acks:?}", partition.0));
        let outcome = self.send(partition, &batch, acks, sequence).await;
        self.note(&format!("{first} to {last}: {outcome:?}"));
        let span = Span { begun, ended: self.shared.now(&self.runtime) };
        let (producer, idempotent) = (self.life, self.idempotent);
        self.sequences.insert(partition, sequence + values.len() as u64);
        let produced = Produced { span, partition, producer, idempotent, sequence, values, acks, outcome };
        self.shared.record(|history| history.produced.push(produced));
        if outcome == Outcome::Unknown {
            // Whether it is there nobody knows, so the sequences after it are nobody's.
            self.identity = None;
            self.life = self.shared.next_life();
            self.sequences.clear();
        }
    }

    async fn send(
        &mut self,
        partition: PartitionId,
        batch: &bytes::Bytes,
        acks: Acks,
        sequence: u64,
    ) -> Outcome<Place> {
        let wire_acks = match acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        };
        let deadline = self.runtime.clock.now() + BATCH_TIME_MAX;
        loop {
            match self.wire.produce(partition, batch.clone(), wire_acks).await {
                Ok(Some(base)) => return Outcome::Done(Place { base, epoch: None }),
                // acks=0 is never answered.
                Ok(None) => return Outcome::Unknown,
                Err(error) => {
                    self.note(&format!("produce to {}: {error}", partition.0));
                    if !passes(&error) {
                        self.judge(partition, sequence, &error);
                        return Outcome::Unknown;
                    }
                }
            }
            if self.runtime.clock.now() >= deadline {
                return Outcome::Unknown;
            }
            let pause = 20 + self.rng.below(80);
            self.runtime.clock.sleep(Duration::from_millis(pause)).await;
        }
    }

    /// A producer that did everything right is refused only for a while.
    fn judge(&self, partition: PartitionId, sequence: u64, error: &ClientError) {
        // A producer whose records were lost leaves a gap, or is unknown; it begins anew.
        let lost = [ErrorCode::OutOfOrderSequenceNumber, ErrorCode::UnknownProducerId];
        let may_be_lost = self.shared.is_loss_admitted(TOPIC, PartitionIndex(partition.0.cast_signed()));
        let who = format!("{} at sequence {sequence} of partition {}", self.name, partition.0);
        judge_error(&self.shared, &who, error, if may_be_lost { &lost } else { &[] });
    }

    fn note(&self, event: &str) {
        self.shared.note(&self.runtime, &self.name, format_args!("{event}"));
    }
}
