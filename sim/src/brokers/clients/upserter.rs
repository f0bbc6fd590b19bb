//! Writes ever newer values of a few keys to a compacted topic, one at a time.

use std::time::Duration;

use ouzel_model::TimestampMs;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::{Rng, SimRuntime};

use super::super::shared::{COMPACTED, Phase, Shared};
use super::wire::{ONLY, Wire, judge_error};
use crate::check::history::Outcome;
use crate::check::newest::Upsert;
use crate::content;

const WHO: &str = "upserter";
/// How long a record is sent again.
const RECORD_TIME_MAX: Duration = Duration::from_secs(6);

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
