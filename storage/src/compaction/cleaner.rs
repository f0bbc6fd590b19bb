//! What the compactions of one core share: memory for keys, and the disk's time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ouzel_runtime::Runtime;
use ouzel_runtime::clock::Instant;

use super::KeyMap;

/// Bounds of one core's compactions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CleanerConfig {
    /// Memory for the keys of one pass (`log.cleaner.dedupe.buffer.size`, the core's share).
    pub key_bytes_max: usize,
    /// How full that may get, 0 to 1 (`log.cleaner.io.buffer.load.factor`).
    pub load_factor: f64,
    /// Bytes read at a time (`log.cleaner.io.buffer.size`); a batch is read whole, however large.
    pub chunk_bytes: usize,
    /// Bytes read and written a second (`log.cleaner.io.max.bytes.per.second`, the core's share).
    pub bytes_per_second: f64,
}

impl Default for CleanerConfig {
    /// Kafka's defaults.
    fn default() -> CleanerConfig {
        CleanerConfig {
            key_bytes_max: 128 << 20,
            load_factor: 0.9,
            chunk_bytes: 512 << 10,
            bytes_per_second: f64::MAX,
        }
    }
}

/// One core's compactions; clones are the same.
#[derive(Clone)]
pub struct Cleaner {
    inner: Rc<Inner>,
}

struct Inner {
    runtime: Runtime,
    config: RefCell<CleanerConfig>,
    /// When what was taken so far is paid for.
    paid_until: Cell<Option<Instant>>,
}

impl Cleaner {
    /// A core's.
    pub fn new(runtime: Runtime, config: CleanerConfig) -> Cleaner {
        let inner = Inner { runtime, config: RefCell::new(config), paid_until: Cell::new(None) };
        Cleaner { inner: Rc::new(inner) }
    }

    /// Takes other bounds; they hold from the next chunk, or pass, on.
    pub fn set_config(&self, config: CleanerConfig) {
        self.inner.config.replace(config);
    }

    pub(crate) fn key_map(&self) -> KeyMap {
        let CleanerConfig { key_bytes_max, load_factor, .. } = *self.inner.config.borrow();
        let seeds = [self.inner.runtime.entropy.u64(), self.inner.runtime.entropy.u64()];
        KeyMap::new(key_bytes_max, load_factor, seeds)
    }

    pub(crate) fn chunk_bytes(&self) -> usize {
        self.inner.config.borrow().chunk_bytes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX)
    }

    /// Takes so many bytes of the budget; gives how long to wait before the next are due.
    pub(crate) fn spend(&self, bytes: u64) -> Option<Duration> {
        let now = self.inner.runtime.clock.now();
        let (paid_until, wait) =
            spend(self.inner.paid_until.get(), bytes, self.inner.config.borrow().bytes_per_second, now);
        self.inner.paid_until.set(Some(paid_until));
        wait
    }
}

/// A chunk's job and write are to stay short.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// And worth their while.
const CHUNK_BYTES_MIN: usize = 4 << 10;
/// Waits are no longer than this at a time, so that a higher budget is noticed.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// When `bytes` more are paid for, and how long that is from now. What was not spent in time is not saved up.
fn spend(
    paid_until: Option<Instant>,
    bytes: u64,
    bytes_per_second: f64,
    now: Instant,
) -> (Instant, Option<Duration>) {
    let cost = Duration::try_from_secs_f64(bytes as f64 / bytes_per_second.max(1.0)).unwrap_or(WAIT_MAX);
    let paid_until = paid_until.map_or(now, |paid_until| paid_until.max(now)) + cost.min(WAIT_MAX);
    let wait = paid_until.saturating_duration_since(now);
    (paid_until, (wait >= WORTH_WAITING).then_some(wait.min(WAIT_MAX)))
}

/// Shorter waits are gathered: a timer is no more exact than that.
const WORTH_WAITING: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_over_time_and_nothing_is_saved_up() {
        ouzel_runtime::sim::run(1, |node| async move {
            let runtime = node.runtime();
            let config = CleanerConfig { bytes_per_second: 1_000.0, ..CleanerConfig::default() };
            let cleaner = Cleaner::new(runtime.clone(), config);
            let start = runtime.clock.now();
            for _ in 0..100 {
                if let Some(wait) = cleaner.spend(100) {
                    runtime.clock.sleep(wait).await;
                }
            }
            let took = runtime.clock.now().duration_since(start);
            assert!((9_900..=10_100).contains(&took.as_millis()), "{took:?}");
            runtime.clock.sleep(Duration::from_secs(60)).await;
            assert_eq!(cleaner.spend(1_000), Some(Duration::from_secs(1)));
            cleaner.set_config(CleanerConfig::default());
            runtime.clock.sleep(Duration::from_secs(2)).await;
            assert_eq!(cleaner.spend(1 << 40), None);
        });
    }
}
