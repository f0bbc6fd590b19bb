//! Wall time that is virtual and may be wrong.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

/// What every simulated wall clock shows at the start: 2026-01-01 00:00:00 UTC.
const START_MS: i64 = 1_767_225_600_000;

/// A node's wall clock: virtual time plus a skew that a test may change.
#[derive(Clone)]
pub struct SimClock {
    inner: Arc<Inner>,
}

struct Inner {
    skew_ms: AtomicI64,
    started: Instant,
}

impl SimClock {
    /// Makes a clock that is right, as of now.
    #[expect(clippy::new_without_default, reason = "it starts to run: no value like any other")]
    pub fn new() -> Self {
        Self { inner: Arc::new(Inner { skew_ms: AtomicI64::new(0), started: Instant::now() }) }
    }

    /// Sets how far this clock is ahead (or, negative, behind).
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.inner.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    /// Lets this clock jump, ahead or (negative) back, from where it is.
    pub fn jump_ms(&self, by_ms: i64) {
        self.inner.skew_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Returns what the clock shows, in milliseconds since 1970.
    pub fn wall_ms(&self) -> i64 {
        // In a cluster all nodes share one time, and a restarted node goes on in it.
        let elapsed = turmoil::sim_elapsed().unwrap_or_else(|| self.inner.started.elapsed());
        let elapsed_ms = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        START_MS.saturating_add(elapsed_ms).saturating_add(self.inner.skew_ms.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for SimClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimClock").field("wall_ms", &self.wall_ms()).finish()
    }
}
