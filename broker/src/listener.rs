//! Where clients come in: accepts connections, hands each to the core with the fewest, and serves its frames.

mod budget;
mod connection;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ouzel_runtime::net::Listener;

use crate::core::Core;

pub use budget::{MemoryBudget, Reserved};

/// How many connections each core has: written where they begin and end, read by the acceptor.
#[derive(Default)]
pub struct ConnectionCounts {
    per_core: Vec<AtomicU32>,
}

impl ConnectionCounts {
    /// A count for each of `cores` cores.
    pub fn new(cores: u16) -> Arc<ConnectionCounts> {
        Arc::new(ConnectionCounts { per_core: (0..cores).map(|_| AtomicU32::new(0)).collect() })
    }

    /// Resolves when no connection is left.
    pub async fn all_gone(&self, clock: &ouzel_runtime::Clock) {
        // Looked at while the node stops, and only then.
        while self.per_core.iter().any(|count| count.load(Ordering::Relaxed) > 0) {
            clock.sleep(Duration::from_millis(5)).await;
        }
    }

    fn total(&self) -> u32 {
        self.per_core.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn fewest(&self) -> usize {
        // A stale count costs a connection in an odd place, nothing else: relaxed is enough.
        let count = |at: &usize| self.per_core[*at].load(Ordering::Relaxed);
        (0..self.per_core.len()).min_by_key(count).unwrap_or(0)
    }
}

/// One connection in its core's count.
struct Counted {
    counts: Arc<ConnectionCounts>,
    core: usize,
}

impl Counted {
    fn new(counts: &Arc<ConnectionCounts>, core: usize) -> Counted {
        counts.per_core[core].fetch_add(1, Ordering::Relaxed);
        Counted { counts: counts.clone(), core }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.per_core[self.core].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Of the files the process may open, those that connections leave to the logs: a quarter, and at least this many.
/// Without them a crowd of connections would keep a topic from being created and a segment from being rolled.
const FILES_FOR_LOGS_MIN: u64 = 128;

/// Most connections under a limit of open files; one at least.
fn connections_within(open_files: u64) -> u32 {
    let left = open_files.saturating_sub((open_files / 4).max(FILES_FOR_LOGS_MIN));
    u32::try_from(left).unwrap_or(u32::MAX).max(1)
}

/// Accepts until the node stops.
///
/// One core accepts for all: one listening socket per address, so that a second broker on the port fails instead of
/// silently taking half of the connections.
pub async fn accept(core: Rc<Core>, listener: Listener) {
    let counts = core.node.connection_counts.clone();
    let mut stopping = core.stopping.clone();
    // Said once per wave of failures, not once per attempt.
    let failing = RefCell::new(false);
    let crowded = RefCell::new(false);
    let within_files = ouzel_runtime::limits::raise_open_files().map_or(u32::MAX, connections_within);
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing.replace(false);
                let (total, max) = (counts.total(), core.broker_config().max_connections);
                if total >= max.min(within_files) {
                    core.metrics.connection_refused();
                    if !crowded.replace(true) {
                        let why = if max <= within_files {
                            "max.connections are open"
                        } else {
                            "the rest of the files that may be open (ulimit -n) is the logs'"
                        };
                        tracing::warn!(%peer, connections = total, why, "new connections are refused");
                    }
                    continue;
                }
                crowded.replace(false);
                let at = counts.fewest();
                let counted = Counted::new(&counts, at);
                if at == usize::from(core.id().0) {
                    ouzel_runtime::spawn(connection::serve(core.clone(), stream, peer, counted));
                    continue;
                }
                match stream.into_handoff() {
                    Ok(handoff) => core.cores.post(
                        ouzel_runtime::CoreId(at as u16),
                        move |core| match handoff.into_stream() {
                            Ok(stream) => drop(ouzel_runtime::spawn(connection::serve(
                                core.clone(),
                                stream,
                                peer,
                                counted,
                            ))),
                            Err(error) => {
                                tracing::warn!(%peer, %error, "a connection was lost on its way to its core")
                            }
                        },
                    ),
                    Err(error) => {
                        tracing::warn!(%peer, %error, "a connection was lost on its way to its core")
                    }
                }
            }
            Err(error) => {
                if !failing.replace(true) {
                    tracing::warn!(%error, "cannot accept connections; trying on, those there are served meanwhile");
                }
                if !is_connections_own(&error) {
                    // Out of file descriptors or memory: accepting at full speed would spin.
                    core.runtime.clock.sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Errors of one connection that died in the queue, not of the listener.
fn is_connections_own(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::connections_within;

    #[test]
    fn connections_leave_files_to_the_logs() {
        for (open_files, connections) in [(20_000, 15_000), (1024, 768), (256, 128), (100, 1), (0, 1)] {
            assert_eq!(connections_within(open_files), connections, "{open_files}");
        }
        assert_eq!(connections_within(u64::MAX), u32::MAX);
    }
}
