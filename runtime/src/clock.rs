//! Time: monotonic for waiting, wall time for what is written into records.

use std::fmt;
use std::future::Future;
use std::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

pub use tokio::time::Instant;
pub use tokio::time::error::Elapsed;

/// One core's clock.
#[derive(Clone)]
pub struct Clock {
    wall: Wall,
}

#[derive(Clone)]
enum Wall {
    System,
    #[cfg(feature = "sim")]
    Simulated(crate::sim::SimClock),
}

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Self {
        Self { wall: Wall::System }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn simulated(clock: crate::sim::SimClock) -> Self {
        Self { wall: Wall::Simulated(clock) }
    }

    /// Returns the monotonic time.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Returns the wall time in milliseconds since 1970; it may jump either way.
    pub fn wall_ms(&self) -> i64 {
        match &self.wall {
            // A clock before 1970 reads as 0: no record can carry a negative time that means one.
            Wall::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            #[cfg(feature = "sim")]
            Wall::Simulated(clock) => clock.wall_ms(),
        }
    }

    /// Waits for `duration`. Dropping the future ends the wait.
    ///
    /// # Panics
    /// Outside a core.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Waits until `deadline`, not at all when it has passed. Dropping the future ends the wait.
    ///
    /// # Panics
    /// Outside a core.
    pub async fn sleep_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline).await;
    }

    /// Waits for `future`, at most `duration`.
    ///
    /// # Errors
    /// [`Elapsed`] when the time is up first; the future has been dropped then.
    ///
    /// # Panics
    /// Outside a core.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(duration, future).await
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("wall_ms", &self.wall_ms()).finish()
    }
}
