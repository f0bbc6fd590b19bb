//! How long tasks hold a core at a time.
//!
//! A core runs one task at once, each until it waits for something. What takes long there, a page that is not in memory or a
//! calculation, is waited for by every connection and every replica of the core. So each such time is counted: from the end of
//! one task's turn, or from the moment the core woke, to the end of the next one's. What the reactor does in between is part of
//! it, and so is the time in which the machine ran something else on the CPU: nobody here can tell it from a stall.
//!
//! It costs one look at the clock for each turn. Threads that are no core's, simulated ones among them, count nothing.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Upper bounds of the buckets, in seconds: from what a task's turn takes to what a disk does.
pub const BOUNDS_S: [f64; 8] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5];
/// The same, as they are compared.
const BOUNDS: [Duration; BOUNDS_S.len()] = [
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
];

/// The times that one core, or several, were held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldTimes {
    /// Turns per bucket, not cumulative, the last bucket without bound.
    pub counts: [u64; BOUNDS_S.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl HoldTimes {
    fn observe(&mut self, held: Duration) {
        self.counts[BOUNDS.iter().take_while(|bound| **bound < held).count()] += 1;
        self.sum += held;
    }

    /// How many turns took longer than the bucket with this bound allows.
    pub fn above(&self, bound_s: f64) -> u64 {
        let first = BOUNDS_S.partition_point(|bound| *bound <= bound_s);
        self.counts[first..].iter().sum()
    }
}

impl std::ops::AddAssign for HoldTimes {
    fn add_assign(&mut self, other: HoldTimes) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum += other.sum;
    }
}

thread_local! {
    /// When the turn that runs began; none on threads that are no core's.
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    static TIMES: Cell<HoldTimes> = const {
        Cell::new(HoldTimes { counts: [0; BOUNDS_S.len() + 1], sum: Duration::ZERO })
    };
}

/// What was counted on the calling core.
pub fn of_this_core() -> HoldTimes {
    TIMES.get()
}

/// The calling thread becomes a core's.
pub(crate) fn begin_on_this_thread() {
    TIMES.take();
    SINCE.set(Some(Instant::now()));
}

/// The calling thread is no core's any more.
pub(crate) fn end_on_this_thread() {
    SINCE.take();
}

/// The core has slept, and goes on now.
pub(crate) fn woke() {
    if SINCE.get().is_some() {
        SINCE.set(Some(Instant::now()));
    }
}

/// A task's turn is over.
pub(crate) fn turn_ended() {
    let Some(since) = SINCE.get() else { return };
    let now = Instant::now();
    SINCE.set(Some(now));
    let mut times = TIMES.get();
    times.observe(now.saturating_duration_since(since));
    TIMES.set(times);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cores::run_one;
    use crate::disk::BackendChoice;

    #[test]
    fn the_bounds_are_the_same_twice() {
        for (bound_s, bound) in BOUNDS_S.into_iter().zip(BOUNDS) {
            assert_eq!(Duration::from_secs_f64(bound_s), bound);
        }
    }

    #[test]
    fn a_time_is_counted_in_the_first_bucket_that_holds_it() {
        let mut times = HoldTimes::default();
        for micros in [0, 100, 101, 500_000, 500_001, 9_000_000] {
            times.observe(Duration::from_micros(micros));
        }
        assert_eq!(times.counts, [2, 1, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(times.sum, Duration::from_micros(10_000_202));
        assert_eq!((times.above(0.0001), times.above(0.1), times.above(0.5)), (4, 3, 2));
        times += times;
        assert_eq!(times.counts, [4, 2, 0, 0, 0, 0, 0, 2, 4]);
    }

    /// A turn that holds the core is seen, whatever comes after it; time in which all tasks sleep is nobody's.
    #[test]
    fn who_holds_a_core_is_counted_and_who_sleeps_is_not() {
        let (holds, sleeps) = (Duration::from_millis(120), Duration::from_millis(700));
        let run = run_one(BackendChoice::Blocking, &[], |runtime| async move {
            let (before, began) = (of_this_core(), Instant::now());
            runtime.clock.sleep(sleeps).await;
            crate::spawn(async move {
                let began = Instant::now();
                while began.elapsed() < holds {}
            })
            .await
            .unwrap();
            crate::yield_now().await;
            (before, of_this_core(), began.elapsed())
        });
        let (before, after, took) = run.expect("a core");
        assert!(after.above(0.1) > before.above(0.1), "{after:?}");
        let held = after.sum - before.sum;
        assert!(held >= holds && held + sleeps / 2 <= took, "{held:?} of {took:?}");
        std::thread::spawn(|| {
            turn_ended();
            assert_eq!(of_this_core(), HoldTimes::default(), "no core's thread");
        })
        .join()
        .unwrap();
    }
}
