//! openraft's runtime: ours.
//!
//! Tasks start through [`ouzel_runtime::spawn`], so that a simulation orders them and a panic is not swallowed; time is
//! tokio's, which a simulation makes virtual; chance is one generator per thread, seeded by the first group's node; and
//! watch channels wake their receivers in one order ([`watch`]), where tokio's draw lots. So a run can be repeated from
//! its seed.

pub(crate) mod watch;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use openraft_rt::AsyncRuntime;
use openraft_rt_tokio::{TokioInstant, TokioMpsc, TokioMutex, TokioOneshot, TokioRuntime};
use ouzel_runtime::Entropy;
use ouzel_runtime::tasks::{JoinError, JoinHandle};

use watch::OuzelWatch;

thread_local! {
    /// State of the thread's generator; none before the first group opens.
    static CHANCE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Gives this thread's generator its seed, unless it has one.
pub(crate) fn seed_chance(entropy: &Entropy) {
    if CHANCE.get().is_none() {
        CHANCE.set(Some(entropy.u64()));
    }
}

/// See the module's documentation. Values of it exist only where openraft's own suites make one.
#[derive(Debug)]
pub(crate) struct OuzelRuntime {
    tokio: TokioRuntime,
}

impl AsyncRuntime for OuzelRuntime {
    type JoinError = JoinError;
    type JoinHandle<T: 'static> = JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R>> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Chance;
    type Mpsc = TokioMpsc;
    type Watch = OuzelWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + 'static,
        T::Output: 'static,
    {
        ouzel_runtime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: TokioInstant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R>>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R>>(deadline: TokioInstant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Chance {
        Chance
    }

    fn new(threads: usize) -> OuzelRuntime {
        OuzelRuntime { tokio: TokioRuntime::new(threads) }
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.tokio.block_on(future)
    }
}

/// The thread's generator (splitmix64): fit for election timeouts, not for secrets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance;

impl Chance {
    pub(crate) fn u64(self) -> u64 {
        let state = CHANCE.get().unwrap_or(0).wrapping_add(0x9e37_79b9_7f4a_7c15);
        CHANCE.set(Some(state));
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl rand::TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.u64() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for piece in bytes.chunks_mut(8) {
            let drawn = self.u64().to_le_bytes();
            piece.copy_from_slice(&drawn[..piece.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_repeats_itself_from_its_seed() {
        let draw = || {
            CHANCE.set(Some(7));
            (Chance.u64(), Chance.u64())
        };
        let first = draw();
        assert_eq!(first, draw());
        assert_ne!(first.0, first.1);
        CHANCE.set(None);
    }
}
