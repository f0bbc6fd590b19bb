//! The bytes of requests a core may hold at once.
//!
//! Reserved as bytes arrive, before they are received: a frame that claims much and sends little holds little, and one
//! that sends much makes the others wait instead of making the process grow.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The grain of a reservation.
const GRAIN_BYTES: usize = 4 * 1024;

/// One core's budget for request bytes.
#[derive(Clone)]
pub struct MemoryBudget {
    grains: Arc<Semaphore>,
    grains_max: u32,
}

/// Bytes set aside for one request; given back when dropped.
pub struct Reserved {
    permit: OwnedSemaphorePermit,
}

impl MemoryBudget {
    /// A budget of `bytes_max`, at least one grain.
    pub fn new(bytes_max: u64) -> MemoryBudget {
        let grains_max =
            u32::try_from(bytes_max / GRAIN_BYTES as u64).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        MemoryBudget { grains: Arc::new(Semaphore::new(grains_max as usize)), grains_max }
    }

    /// Waits until `bytes` are free and sets them aside; more than the whole budget counts as the whole of it, so that
    /// one request larger than the budget is served alone instead of never.
    pub async fn reserve(&self, bytes: usize) -> Reserved {
        let permit = self.grains.clone().acquire_many_owned(self.grains_for(bytes)).await;
        Reserved { permit: permit.expect("the budget is never closed") }
    }

    /// Widens a reservation to `bytes` in all.
    pub async fn widen(&self, reserved: &mut Reserved, bytes: usize) {
        let more = self.grains_for(bytes).saturating_sub(reserved.permit.num_permits() as u32);
        if more > 0 {
            let permit = self.grains.clone().acquire_many_owned(more).await;
            reserved.permit.merge(permit.expect("the budget is never closed"));
        }
    }

    /// Bytes that are free at this moment.
    pub fn free_bytes(&self) -> usize {
        self.grains.available_permits() * GRAIN_BYTES
    }

    fn grains_for(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(GRAIN_BYTES)).unwrap_or(u32::MAX).clamp(1, self.grains_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reservations_wait_their_turn_and_come_back() {
        let budget = MemoryBudget::new(64 * 1024);
        let mut held = budget.reserve(10).await;
        assert_eq!(budget.free_bytes(), 60 * 1024);
        budget.widen(&mut held, 40 * 1024).await;
        assert_eq!(budget.free_bytes(), 24 * 1024);
        let mut waiting = tokio_test_poll(budget.reserve(32 * 1024));
        assert!(waiting.poll_once().is_none());
        drop(held);
        assert!(waiting.poll_once().is_some());
    }

    #[tokio::test]
    async fn a_request_larger_than_the_budget_is_served_alone() {
        let budget = MemoryBudget::new(8 * 1024);
        let held = budget.reserve(1 << 30).await;
        assert_eq!(budget.free_bytes(), 0);
        drop(held);
        assert_eq!(budget.free_bytes(), 8 * 1024);
    }

    struct Polled<F>(std::pin::Pin<Box<F>>);

    fn tokio_test_poll<F: Future>(future: F) -> Polled<F> {
        Polled(Box::pin(future))
    }

    impl<F: Future> Polled<F> {
        fn poll_once(&mut self) -> Option<F::Output> {
            match self.0.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            }
        }
    }
}
