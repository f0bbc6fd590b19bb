//! SIGTERM and SIGINT: the first drains, the second ends the process at once, and so does one that comes before the node
//! serves, when there is nothing to drain.
//!
//! The end at once happens inside the signal handler and needs no thread of ours to be alive; an end by the default
//! action would not do, as the kernel withholds it from the first process of a container. The drain is begun by a small
//! thread that sleeps until the signal comes, so the cores' reactors know nothing of signals.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

const SIGNALS: [i32; 2] = [SIGTERM, SIGINT];

/// The signals in the hands of this process.
pub(crate) struct Taken {
    /// Whether the next signal ends the process: true until the node serves, and again from the first signal on.
    at_once: Arc<AtomicBool>,
}

/// Takes the signals; until [`Taken::drain_with`] each ends the process at once, with the code a shell gives.
pub(crate) fn take() -> io::Result<Taken> {
    let at_once = Arc::new(AtomicBool::new(true));
    for signal in SIGNALS {
        flag::register_conditional_shutdown(signal, 128 + signal, at_once.clone())?;
    }
    Ok(Taken { at_once })
}

impl Taken {
    /// From now on the first signal calls `begin_drain`, once, on a thread of its own.
    pub(crate) fn drain_with(self, begin_drain: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut signals = Signals::new(SIGNALS)?;
        for signal in SIGNALS {
            // Registered after the conditional shutdown and so run after it: the signal that sets the flag passes,
            // the one after it does not.
            flag::register(signal, self.at_once.clone())?;
        }
        self.at_once.store(false, Ordering::SeqCst);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
                tracing::info!("{name}: draining, a second signal ends the process at once");
                begin_drain();
            }
        })?;
        Ok(())
    }
}
