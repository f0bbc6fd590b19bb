//! What peers may use: memory for what they receive, and bytes a second for recovery.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ouzel_runtime::clock::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory is counted in grains, so that a semaphore's permits reach far enough.
const GRAIN_BYTES: usize = 1024;

/// Memory of one core and one lane for frames that are being received or handled.
#[derive(Clone)]
pub(crate) struct ReceiveBudget {
    grains: Arc<Semaphore>,
    grains_max: u32,
}

/// Memory set aside; given back when dropped.
pub(crate) struct Reserved {
    _permit: OwnedSemaphorePermit,
}

impl ReceiveBudget {
    pub(crate) fn new(bytes_max: usize) -> ReceiveBudget {
        let grains_max =
            u32::try_from(bytes_max / GRAIN_BYTES).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        ReceiveBudget { grains: Arc::new(Semaphore::new(grains_max as usize)), grains_max }
    }

    /// Waits, in turn, until `bytes` are free. More than the whole budget counts as the whole: such a frame is
    /// received alone instead of never.
    pub(crate) async fn reserve(&self, bytes: usize) -> Reserved {
        let grains = u32::try_from(bytes.div_ceil(GRAIN_BYTES)).unwrap_or(u32::MAX).clamp(1, self.grains_max);
        let permit = self.grains.clone().acquire_many_owned(grains).await;
        Reserved { _permit: permit.expect("the budget is never closed") }
    }

    #[cfg(test)]
    fn free_bytes(&self) -> usize {
        self.grains.available_permits() * GRAIN_BYTES
    }
}

/// How fast a node may send recovery traffic, all its cores and peers together. What one core does not use, another
/// may: there is one meter. Clones share it, and may be sent to other cores.
///
/// The meter is the time at which all bytes granted so far will have left at the given rate; who asks is told how
/// long to wait until then. A burst of a quarter of a second's worth is let through.
#[derive(Clone, Debug)]
pub struct RecoveryRate {
    meter: Arc<Meter>,
}

#[derive(Debug)]
struct Meter {
    epoch: Instant,
    bytes_per_s: AtomicU64,
    /// Microseconds since `epoch`.
    paid_until_us: AtomicU64,
}

impl RecoveryRate {
    /// A rate of `bytes_per_s` from `now`.
    pub fn new(bytes_per_s: u64, now: Instant) -> RecoveryRate {
        RecoveryRate {
            meter: Arc::new(Meter {
                epoch: now,
                bytes_per_s: AtomicU64::new(bytes_per_s.max(1)),
                paid_until_us: AtomicU64::new(0),
            }),
        }
    }

    /// Changes the rate for bytes from now on.
    pub fn set(&self, bytes_per_s: u64) {
        self.meter.bytes_per_s.store(bytes_per_s.max(1), Ordering::Relaxed);
    }

    /// Takes `bytes`, and returns how long to wait before they are sent.
    pub fn take(&self, bytes: usize, now: Instant) -> Duration {
        const BURST_US: u64 = 250_000;
        let meter = &*self.meter;
        let now_us =
            u64::try_from(now.saturating_duration_since(meter.epoch).as_micros()).unwrap_or(u64::MAX);
        let rate = u128::from(meter.bytes_per_s.load(Ordering::Relaxed));
        let cost_us = u64::try_from(bytes as u128 * 1_000_000 / rate).unwrap_or(u64::MAX);
        // One number, moved on by a single atomic step: no order with other memory is needed.
        let grant = |paid: u64| Some(paid.max(now_us.saturating_sub(BURST_US)).saturating_add(cost_us));
        let before = meter.paid_until_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grant);
        let (Ok(paid) | Err(paid)) = before;
        Duration::from_micros(paid.max(now_us.saturating_sub(BURST_US)).saturating_sub(now_us))
    }
}

/// The budgets a core's lanes receive into: calls and answers apart, so that a handler that itself waits for an
/// answer never waits for memory that only its own end would free.
#[derive(Clone)]
pub(crate) struct ReceiveBudgets {
    pub(crate) calls: Rc<[ReceiveBudget; 3]>,
    pub(crate) answers: Rc<[ReceiveBudget; 3]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_leaves_at_its_rate_and_a_pause_earns_only_a_burst() {
        ouzel_runtime::sim::run(1, |node| async move {
            let clock = node.runtime().clock;
            let start = clock.now();
            let rate = RecoveryRate::new(1_000_000, start);
            let at = |ms| start + Duration::from_millis(ms);
            let wait_ms = |bytes, ms| rate.take(bytes, at(ms)).as_millis();
            assert_eq!(wait_ms(100_000, 0), 0);
            assert_eq!(wait_ms(100_000, 0), 100, "what was taken before must have left");
            assert_eq!(wait_ms(100_000, 0), 200);
            assert_eq!(wait_ms(100_000, 300), 0);
            let other_core = rate.clone();
            assert_eq!(other_core.take(1_000_000, at(300)).as_millis(), 100, "one meter for all cores");
            // A long pause: a quarter of a second may leave at once, no more.
            assert_eq!(wait_ms(250_000, 60_000), 0);
            assert_eq!(wait_ms(1, 60_000), 0);
            assert_eq!(wait_ms(500_000, 60_000), 0);
            assert_eq!(wait_ms(1, 60_000), 500);
            rate.set(2_000_000);
            assert_eq!(wait_ms(1_000_000, 61_000), 0);
            assert_eq!(wait_ms(1, 61_000), 250);
        });
    }

    #[test]
    fn a_frame_larger_than_the_budget_comes_alone() {
        ouzel_runtime::sim::run(1, |node| async move {
            let clock = node.runtime().clock;
            let budget = ReceiveBudget::new(4096);
            let large = budget.reserve(1 << 30).await;
            assert_eq!(budget.free_bytes(), 0);
            assert!(clock.timeout(Duration::from_secs(1), budget.reserve(1)).await.is_err());
            drop(large);
            let _small = budget.reserve(1).await;
            assert_eq!(budget.free_bytes(), 3072);
        });
    }
}
