//! A member of a consumer group: joins, commits ever higher offsets on what it is given, leaves or falls silent, and comes
//! back; in the end it stays.

use std::time::Duration;

use ouzel_client::ClientError;
use ouzel_model::{Offset, partition_for_key};
use ouzel_protocol::ErrorCode;
use ouzel_runtime::Runtime;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::{Rng, SimRuntime};

use super::super::run::OFFSETS_PARTITIONS;
use super::super::shared::{OFFSETS_TOPIC, Phase, Shared};
use super::committer::{ask_of, group_name};
use super::membership::{Membership, Next};
use super::wire::{Wire, judge_error};
use crate::check::history::{Committed, Outcome, Owned, PartitionId, Span};

/// What a member may be told that did everything right: that the others went on without it.
const EXPECTED: [ErrorCode; 3] =
    [ErrorCode::RebalanceInProgress, ErrorCode::IllegalGeneration, ErrorCode::UnknownMemberId];

/// Takes part in a group until members are to leave.
pub(in super::super) async fn take_part(
    node: SimRuntime,
    name: String,
    nth: u32,
    group: u32,
    bootstrap: String,
    shared: Shared,
) -> CoreResult {
    let runtime = node.runtime();
    let member = Member {
        rng: Rng::new(node.seed()).fork(0x3e3b),
        wire: Wire::new(&runtime, &bootstrap),
        membership: Membership::new(group_name(group)),
        runtime,
        name,
        nth,
        group,
        shared,
    };
    member.run().await;
    Ok(())
}

struct Member {
    runtime: Runtime,
    name: String,
    /// Its place among the members there are to be.
    nth: u32,
    group: u32,
    shared: Shared,
    rng: Rng,
    wire: Wire,
    membership: Membership,
}

impl Member {
    async fn run(mut self) {
        self.shared.own(self.nth, None);
        while self.shared.phase() == Phase::Opening {
            self.sleep_ms(20).await;
        }
        let partitions: Vec<_> = self.shared.partitions().collect();
        while self.shared.phase() < Phase::Parting {
            let begun = self.shared.now(&self.runtime);
            match self.membership.join(&mut self.wire, &partitions).await {
                Ok(given) => {
                    self.note(&format!("owns {given:?} in generation {}", self.membership.generation));
                    let owned = Owned {
                        span: Span { begun, ended: self.shared.now(&self.runtime) },
                        group: self.group,
                        generation: self.membership.generation,
                        member: self.membership.member_id.clone(),
                        partitions: given.clone(),
                    };
                    self.shared.record(|history| history.owned.push(owned));
                    self.shared.own(self.nth, Some((self.membership.generation, given.clone())));
                    self.work(&given).await;
                    self.shared.own(self.nth, None);
                }
                Err(error) => {
                    self.note(&format!("does not join: {error}"));
                    self.give_up_on(&error);
                    self.sleep_ms(50).await;
                }
            }
        }
        // Whoever cannot say so is taken for dead in a while.
        let left = self.membership.leave(&mut self.wire).await;
        self.note(&format!("leaves for good: {left:?}"));
    }

    /// Works on what it owns until its generation is over, or it leaves.
    async fn work(&mut self, given: &[PartitionId]) {
        if !given.is_empty() {
            ask_of(&mut self.wire, self.group, given, &self.runtime, &self.shared).await;
        }
        while self.shared.phase() < Phase::Parting {
            let pause = 10 + self.rng.below(150);
            self.sleep_ms(pause).await;
            let done = match self.rng.below(24) {
                0 if self.shared.phase() == Phase::Load => {
                    let left = self.membership.leave(&mut self.wire).await;
                    self.note(&format!("leaves: {left:?}"));
                    return self.begin_anew().await;
                }
                1 if self.shared.phase() == Phase::Load => {
                    self.note("falls silent");
                    return self.begin_anew().await;
                }
                2..=15 if !given.is_empty() => {
                    let partition = given[self.rng.below(given.len() as u64) as usize];
                    self.commit(partition).await
                }
                _ => self.membership.heartbeat(&mut self.wire).await,
            };
            if let Err(error) = done
                && self.give_up_on(&error) != Next::Retry
            {
                self.note(&format!("is out: {error}"));
                return;
            }
        }
    }

    /// Comes back after a while as somebody nobody knows.
    async fn begin_anew(&mut self) {
        self.shared.own(self.nth, None);
        self.membership.member_id.clear();
        let pause = self.rng.below(2000);
        self.sleep_ms(pause).await;
    }

    async fn commit(&mut self, partition: PartitionId) -> Result<(), ClientError> {
        let begun = self.shared.now(&self.runtime);
        let offset = Offset(self.shared.next_value().0.cast_signed());
        let answer = self.membership.commit(&mut self.wire, partition, offset).await;
        let generation = self.membership.generation;
        self.note(&format!("commits {offset} on {} in {generation}: {answer:?}", partition.0));
        let outcome = match &answer {
            Ok(()) => Outcome::Done(()),
            Err(error) if Next::after(error) != Next::Retry => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        };
        let span = Span { begun, ended: self.shared.now(&self.runtime) };
        let committed = Committed { span, group: self.group, generation, partition, offset, outcome };
        self.shared.record(|history| history.committed.push(committed));
        answer
    }

    /// Takes note of an error, and says what is to be done about it.
    fn give_up_on(&mut self, error: &ClientError) -> Next {
        let mut expected = EXPECTED.to_vec();
        let partition = partition_for_key(&group_name(self.group), OFFSETS_PARTITIONS);
        if self.shared.is_loss_admitted(OFFSETS_TOPIC, partition) {
            // The group is lost with what it committed: Kafka says so of a commit, and of nothing else.
            expected.push(ErrorCode::GroupIdNotFound);
        }
        judge_error(&self.shared, &self.name, error, &expected);
        let next = Next::after(error);
        if next == Next::Begin {
            self.membership.member_id.clear();
        }
        next
    }

    async fn sleep_ms(&self, ms: u64) {
        self.runtime.clock.sleep(Duration::from_millis(ms)).await;
    }

    fn note(&self, event: &str) {
        self.shared.note(&self.runtime, &self.name, format_args!("{event}"));
    }
}
