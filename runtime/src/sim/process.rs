//! A simulated process: a set of tasks that runs, stands still, and ends as one.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::task::LocalSet;

/// Stops a node's process and lets it go on, as SIGSTOP and SIGCONT do. Clones are the same switch.
///
/// While it stands still none of its tasks runs. Time goes on: timers that have passed fire when it goes on, all at
/// once, and what has come from the network lies there.
#[derive(Clone, Default)]
pub struct Pause {
    /// All users are on one thread: the lock is there so that handles may travel as real ones do.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_paused: bool,
    /// Whoever wanted to run meanwhile.
    waiting: Option<Waker>,
}

impl Pause {
    /// Stops the process, if it runs.
    pub fn pause(&self) {
        self.lock().is_paused = true;
    }

    /// Lets it go on, if it stands still.
    pub fn resume(&self) {
        let waiting = {
            let mut state = self.lock();
            state.is_paused = false;
            state.waiting.take()
        };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Says whether it stands still.
    pub fn is_paused(&self) -> bool {
        self.lock().is_paused
    }

    /// Runs `main`, and all tasks that it spawns, as one process under this switch; they end with `main`, and when the
    /// future is dropped.
    pub fn process<F: Future + 'static>(&self, main: F) -> impl Future<Output = F::Output> + use<F> {
        let tasks = LocalSet::new();
        // The set outlives the future that borrows it, and dropping both ends all tasks there and then.
        let body = Box::pin(async move { tasks.run_until(main).await });
        Process { pause: self.clone(), body }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pause").field("is_paused", &self.is_paused()).finish()
    }
}

struct Process<F> {
    pause: Pause,
    body: Pin<Box<F>>,
}

impl<F: Future> Future for Process<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let process = self.get_mut();
        {
            let mut state = process.pause.lock();
            if state.is_paused {
                state.waiting = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        process.body.as_mut().poll(context)
    }
}
