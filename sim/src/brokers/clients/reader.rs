//! A reader: from some offset of some partition on, as far as it goes.

use std::time::Duration;

use ouzel_model::Offset;
use ouzel_protocol::ErrorCode;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::{Rng, SimRuntime};

use super::super::shared::{Phase, Shared};
use super::wire::{Wire, judge_error};
use crate::check::history::{Fetched, Span};

/// Reads until the load is over: a partition for a while, from its start or from near the end, then another.
pub(in super::super) async fn read(
    node: SimRuntime,
    name: String,
    bootstrap: String,
    shared: Shared,
) -> CoreResult {
    let runtime = node.runtime();
    let mut rng = Rng::new(node.seed()).fork(0x4ead);
    let mut wire = Wire::new(&runtime, &bootstrap);
    while shared.phase() == Phase::Opening {
        runtime.clock.sleep(Duration::from_millis(20)).await;
    }
    let partitions: Vec<_> = shared.partitions().collect();
    let mut ends = vec![Offset(0); partitions.len()];
    while shared.phase() == Phase::Load {
        let partition = partitions[rng.below(partitions.len() as u64) as usize];
        let session = shared.next_session();
        let mut from = if rng.chance(1, 3) {
            Offset(0)
        } else {
            Offset(rng.below(ends[partition.0 as usize].0.cast_unsigned() + 1).cast_signed())
        };
        for _ in 0..rng.below(40) {
            let begun = shared.now(&runtime);
            match wire.fetch(partition, from).await {
                Ok(found) => {
                    let span = Span { begun, ended: shared.now(&runtime) };
                    let next = found.records.last().map_or(from, |(last, ..)| *last + 1);
                    shared.note(
                        &runtime,
                        &name,
                        format_args!(
                            "reads {} from {from} to {next}, high watermark {}",
                            partition.0, found.high_watermark
                        ),
                    );
                    let fetched = Fetched {
                        span,
                        partition,
                        session,
                        from,
                        records: found.records,
                        log_start: found.log_start,
                        high_watermark: found.high_watermark,
                        epoch: found.epoch,
                    };
                    shared.record(|history| history.fetched.push(fetched));
                    from = next;
                    ends[partition.0 as usize] = found.high_watermark;
                }
                Err(error) => {
                    shared.note(&runtime, &name, format_args!("read {} from {from}: {error}", partition.0));
                    // Beyond the end of one that leads no more and has not heard of it; or retention was faster.
                    let expected = [ErrorCode::OffsetOutOfRange];
                    judge_error(&shared, &name, &error, &expected);
                    if error.code() == Some(ErrorCode::OffsetOutOfRange) {
                        break;
                    }
                    runtime.clock.sleep(Duration::from_millis(50)).await;
                }
            }
            if shared.phase() != Phase::Load {
                break;
            }
            let pause = rng.below(30);
            runtime.clock.sleep(Duration::from_millis(pause)).await;
        }
    }
    Ok(())
}
