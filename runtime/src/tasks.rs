//! Tasks of one core.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

pub use tokio::task::{JoinError, JoinHandle, yield_now};

use crate::{cores, disk, held};

/// Under saturation a core never parks, so what is queued for its ring goes out after this many polls.
const POLLS_PER_FLUSH: u32 = 32;

thread_local! {
    static POLLS: Cell<u32> = const { Cell::new(0) };
}

/// Starts a task on this core.
///
/// The task goes on when the handle is dropped, and ends with its core. A panic in it ends all cores of the
/// process with an error: half of a broker is worse than none.
///
/// # Panics
/// Outside a core.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(OnCore { future })
}

/// Wraps every task of a core: counts its turns and their times, and reports a panic before it is swallowed.
pub(crate) struct OnCore<F> {
    future: F,
}

impl<F> OnCore<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future }
    }
}

impl<F: Future> Future for OnCore<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the field is pinned with the wrapper: it is never moved out and OnCore has no Drop.
        let future = unsafe { self.map_unchecked_mut(|wrapper| &mut wrapper.future) };
        // Unwind safety: a future that panicked is not polled again, the panic goes on to tokio, which drops it.
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(context)));
        let polls = POLLS.get() + 1;
        if polls >= POLLS_PER_FLUSH {
            POLLS.set(0);
            disk::flush_this_thread();
        } else {
            POLLS.set(polls);
        }
        held::turn_ended();
        match polled {
            Ok(polled) => polled,
            Err(panic) => {
                cores::report_panic(&*panic);
                resume_unwind(panic)
            }
        }
    }
}
