//! Writes ever newer values of a few keys to a compacted topic, one at a time, and reads in the end what is left.

use std::time::Duration;

use ouzel_model::{Offset, TimestampMs};
use ouzel_runtime::Runtime;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::{Rng, SimRuntime};

use super::super::shared::{COMPACTED, Phase, Shared};
use super::wire::{Wire, judge_error};
use crate::check::history::{Final, Outcome, PartitionId};
use crate::check::newest::Upsert;
use crate::content;

const WHO: &str = "upserter";
/// How long a record is sent again.
const RECORD_TIME_MAX: Duration = Duration::from_secs(6);
const ONLY: PartitionId = PartitionId(0);

/// Writes until the load is over.
pub(in super::super) async fn upsert(node: SimRuntime, bootstrap: String, shared: Shared) -> CoreResult {
    let runtime = node.runtime();
    let mut rng = Rng::new(node.seed()).fork(0x0b5e);
    let mut wire = Wire::of(&runtime, &bootstrap, COMPACTED);
    while shared.phase() == Phase::Opening {
        runtime.clock.sleep(Duration::from_millis(20)).await;
    }
    while shared.phase() == Phase::Load {
        let value = shared.next_value();
        let record_bytes = rng.below(400) as usize;
        let record = content::keyed(value, record_bytes, TimestampMs(runtime.clock.wall_ms()));
        let deadline = runtime.clock.now() + RECORD_TIME_MAX;
        let mut outcome = Outcome::Unknown;
        while outcome == Outcome::Unknown && runtime.clock.now() < deadline {
            match wire.produce(ONLY, record.clone(), -1).await {
                Ok(Some(base)) => outcome = Outcome::Done(base),
                Ok(None) => {}
                Err(error) => {
                    shared.note(&runtime, WHO, format_args!("{}: {error}", value.0));
                    judge_error(&shared, WHO, &error, &[]);
                    runtime.clock.sleep(Duration::from_millis(50)).await;
                }
            }
        }
        shared.note(&runtime, WHO, format_args!("{}: {outcome:?}", value.0));
        shared.record(|history| history.upserts.push(Upsert { value, outcome }));
        let pause = rng.below(30);
        runtime.clock.sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}

/// Reads what is left of the compacted topic: `None` while it cannot be read to its end.
pub(super) async fn read_what_is_left(runtime: &Runtime, wire: &mut Wire, shared: &Shared) -> Option<Final> {
    let mut last = Final::default();
    let mut next = Offset(0);
    loop {
        match wire.fetch(ONLY, next).await {
            Ok(found) => {
                (last.log_start, last.high_watermark) = (found.log_start, found.high_watermark);
                // What was cleaned leaves offsets without records, at the end of the last batch too.
                next = found.next.max(next);
                last.records.extend(found.records);
                if next >= last.high_watermark {
                    return Some(last);
                }
            }
            Err(error) => {
                shared.note(runtime, "judge", format_args!("read {COMPACTED} from {next}: {error}"));
                return None;
            }
        }
    }
}
