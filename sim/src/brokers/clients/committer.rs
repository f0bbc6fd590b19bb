//! A group with one member that commits ever higher offsets, and asks now and then how far it is.

use std::collections::BTreeMap;
use std::time::Duration;

use ouzel_client::groups::Committed as OnTheWire;
use ouzel_model::Offset;
use ouzel_runtime::Runtime;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::{Rng, SimRuntime};

use super::super::shared::{Phase, Shared, TOPIC};
use super::wire::{Wire, judge_error};
use crate::check::history::{Asked, Committed, Outcome, PartitionId, Span};

pub(in super::super) fn group_name(group: u32) -> String {
    format!("group-{group}")
}

/// Commits until the load is over.
pub(in super::super) async fn commit(
    node: SimRuntime,
    group: u32,
    bootstrap: String,
    shared: Shared,
) -> CoreResult {
    let runtime = node.runtime();
    let mut rng = Rng::new(node.seed()).fork(0xc0ff);
    let mut wire = Wire::new(&runtime, &bootstrap);
    while shared.phase() == Phase::Opening {
        runtime.clock.sleep(Duration::from_millis(20)).await;
    }
    let partitions: Vec<_> = shared.partitions().collect();
    let mut next = 1;
    while shared.phase() == Phase::Load {
        if rng.chance(1, 4) {
            ask(&mut wire, group, &runtime, &shared).await;
        } else {
            let partition = partitions[rng.below(partitions.len() as u64) as usize];
            commit_one(&mut wire, group, partition, Offset(next), &runtime, &shared).await;
            next += 1;
        }
        let pause = rng.below(100);
        runtime.clock.sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}

async fn commit_one(
    wire: &mut Wire,
    group: u32,
    partition: PartitionId,
    offset: Offset,
    runtime: &Runtime,
    shared: &Shared,
) {
    let begun = shared.now(runtime);
    let progress = OnTheWire { offset, leader_epoch: -1, metadata: String::new() };
    let offsets = BTreeMap::from([((TOPIC.to_owned(), partition.0.cast_signed()), progress)]);
    let answer = wire.client().commit_offsets(&group_name(group), &offsets).await;
    let outcome = if answer.is_ok() { Outcome::Done(()) } else { Outcome::Unknown };
    shared.note(runtime, &group_name(group), format_args!("commits {offset} on {}: {answer:?}", partition.0));
    if let Err(error) = &answer {
        judge_error(shared, &group_name(group), error, &[]);
        wire.failed(error);
    }
    let span = Span { begun, ended: shared.now(runtime) };
    let committed = Committed { span, group, generation: -1, partition, offset, outcome };
    shared.record(|history| history.committed.push(committed));
}

/// Asks how far the group is, everywhere; says whether there was an answer.
pub(super) async fn ask(wire: &mut Wire, group: u32, runtime: &Runtime, shared: &Shared) -> bool {
    let partitions: Vec<_> = shared.partitions().collect();
    ask_of(wire, group, &partitions, runtime, shared).await
}

/// Asks how far the group is on some partitions.
pub(super) async fn ask_of(
    wire: &mut Wire,
    group: u32,
    partitions: &[PartitionId],
    runtime: &Runtime,
    shared: &Shared,
) -> bool {
    let begun = shared.now(runtime);
    let answer = wire.client().committed_offsets(&group_name(group)).await;
    let found = match answer {
        Ok(found) => found,
        Err(error) => {
            shared.note(runtime, &group_name(group), format_args!("asks: {error}"));
            judge_error(shared, &group_name(group), &error, &[]);
            wire.failed(&error);
            return false;
        }
    };
    let span = Span { begun, ended: shared.now(runtime) };
    for partition in partitions.iter().copied() {
        let offset = found.get(&(TOPIC.to_owned(), partition.0.cast_signed())).map(|found| found.offset);
        shared.note(runtime, &group_name(group), format_args!("is at {offset:?} on {}", partition.0));
        let asked = Asked { span, group, partition, offset };
        shared.record(|history| history.asked.push(asked));
    }
    true
}
