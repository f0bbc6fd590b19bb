//! What peers may use: memory for what they receive, and bytes a second for recovery.

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
/// Whoever sends takes a turn behind all that was taken before, and asks it how long to wait. What is owed is kept in
/// bytes, so that a change of the rate holds for those that wait already. A burst of a quarter of a second's worth is
/// let through.
#[derive(Clone, Debug)]
pub struct RecoveryRate {
    // Taken once for each piece of many kilobytes, and held for a few additions.
    meter: Arc<Mutex<Meter>>,
}

/// Bytes are counted in millionths: at the rate of a byte a second, a millisecond counts as well.
#[derive(Debug)]
struct Meter {
    bytes_per_s: u64,
    /// Up to when `paid` is reckoned.
    at: Instant,
    /// All that was taken.
    taken: u128,
    /// How much of it may have left; beyond `taken` by no more than a burst.
    paid: u128,
}

/// Some bytes' place in the order in which recovery leaves. If it is dropped before they may leave, they are not
/// counted: a connection that ends takes its debt along.
#[derive(Debug)]
pub(crate) struct Turn {
    meter: Arc<Mutex<Meter>>,
    /// What was taken before.
    behind: u128,
    /// Its own, until they may leave.
    owed: u128,
}

impl RecoveryRate {
    /// A rate of `bytes_per_s` from `now`; 0 lets nothing leave.
    pub fn new(bytes_per_s: u64, now: Instant) -> RecoveryRate {
        RecoveryRate { meter: Arc::new(Mutex::new(Meter { bytes_per_s, at: now, taken: 0, paid: 0 })) }
    }

    /// Changes the rate from `now` on, for the bytes that wait as well.
    pub fn set(&self, bytes_per_s: u64, now: Instant) {
        let mut meter = lock(&self.meter);
        meter.advance(now);
        meter.bytes_per_s = bytes_per_s;
    }

    /// A place for `bytes` behind all that was taken before.
    pub(crate) fn take(&self, bytes: usize, now: Instant) -> Turn {
        let owed = bytes as u128 * MILLION;
        let mut meter = lock(&self.meter);
        meter.advance(now);
        let behind = meter.taken;
        meter.taken += owed;
        Turn { meter: self.meter.clone(), behind, owed }
    }
}

impl Turn {
    /// How long its bytes have to wait if the rate stays as it is; zero, once they may leave.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        let mut meter = lock(&self.meter);
        meter.advance(now);
        let ahead = self.behind.saturating_sub(meter.paid);
        if ahead == 0 {
            self.owed = 0;
            return Duration::ZERO;
        }
        match meter.bytes_per_s {
            0 => Duration::MAX,
            rate => {
                Duration::from_micros(u64::try_from(ahead.div_ceil(u128::from(rate))).unwrap_or(u64::MAX))
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Those behind do not move up: it is as if these bytes had left.
        lock(&self.meter).paid += self.owed;
    }
}

impl Meter {
    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        let rate = u128::from(self.bytes_per_s);
        let burst = rate * MILLION / 4;
        self.paid = (self.paid + rate * passed.as_micros()).min(self.taken + burst);
        self.at += Duration::from_micros(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX));
    }
}

const MILLION: u128 = 1_000_000;

fn lock(meter: &Mutex<Meter>) -> MutexGuard<'_, Meter> {
    // Its numbers are right between any two steps, whoever panicked.
    meter.lock().unwrap_or_else(PoisonError::into_inner)
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
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn recovery_leaves_at_its_rate_and_a_pause_earns_only_a_burst() {
        ouzel_runtime::sim::run(1, |node| async move {
            let clock = node.runtime().clock;
            let start = clock.now();
            let rate = RecoveryRate::new(1_000_000, start);
            let at = |ms| start + Duration::from_millis(ms);
            let turns = RefCell::new(Vec::new());
            let take_from = |rate: &RecoveryRate, bytes, ms| {
                let mut turn = rate.take(bytes, at(ms));
                let wait_ms = turn.wait(at(ms)).as_millis();
                turns.borrow_mut().push(turn);
                wait_ms
            };
            let wait_ms = |bytes, ms| take_from(&rate, bytes, ms);
            assert_eq!(wait_ms(100_000, 0), 0);
            assert_eq!(wait_ms(100_000, 0), 100, "what was taken before must have left");
            assert_eq!(wait_ms(100_000, 0), 200);
            assert_eq!(wait_ms(100_000, 300), 0);
            let other_core = rate.clone();
            assert_eq!(take_from(&other_core, 1_000_000, 300), 100, "one meter for all cores");
            // A long pause: a quarter of a second may leave at once, no more.
            assert_eq!(wait_ms(250_000, 60_000), 0);
            assert_eq!(wait_ms(1, 60_000), 0);
            assert_eq!(wait_ms(500_000, 60_000), 0);
            assert_eq!(wait_ms(1, 60_000), 500);
            rate.set(2_000_000, at(60_000));
            assert_eq!(wait_ms(1_000_000, 61_000), 0);
            assert_eq!(wait_ms(1, 61_000), 250);
        });
    }

    /// What was owed was kept as a time, reckoned at the rate of the moment: who lowered the rate to a byte a second for
    /// a moment had recovery stand still for a day and a half, whatever the rate was afterwards.
    #[test]
    fn a_change_of_the_rate_holds_for_those_that_wait_already() {
        ouzel_runtime::sim::run(1, |node| async move {
            let start = node.runtime().clock.now();
            let at = |ms| start + Duration::from_millis(ms);
            let rate = RecoveryRate::new(1, start);
            let (mut first, mut second) = (rate.take(128 << 10, start), rate.take(128 << 10, start));
            assert_eq!((first.wait(at(0)), second.wait(at(0)).as_secs()), (Duration::ZERO, 128 << 10));
            rate.set(0, at(2_000));
            assert_eq!(second.wait(at(3_000)), Duration::MAX);
            rate.set(100 << 20, at(4_000));
            assert_eq!(second.wait(at(4_000)).as_millis(), 1);
            assert_eq!(second.wait(at(4_002)), Duration::ZERO);
            // And a lower one: what is owed still takes its time.
            let (_, mut last) = (rate.take(100 << 20, at(5_000)).wait(at(5_000)), rate.take(1, at(5_000)));
            rate.set(1 << 20, at(5_000));
            assert!(last.wait(at(5_000)) > Duration::from_secs(60));
        });
    }

    #[test]
    fn who_gives_up_waiting_leaves_no_debt_behind() {
        ouzel_runtime::sim::run(1, |node| async move {
            let start = node.runtime().clock.now();
            let rate = RecoveryRate::new(1_000, start);
            assert_eq!(rate.take(1_000, start).wait(start), Duration::ZERO);
            for _ in 0..100 {
                // A connection that ends before its turn comes, again and again.
                assert_eq!(rate.take(128 << 10, start).wait(start).as_millis(), 1_000);
            }
            let mut last = rate.take(1, start);
            assert_eq!(last.wait(start).as_millis(), 1_000);
            assert_eq!(last.wait(start + Duration::from_secs(1)), Duration::ZERO);
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
