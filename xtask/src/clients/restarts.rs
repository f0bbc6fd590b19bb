//! Brokers of a cluster restarted one after the other, killed and stopped in turn, beside clients that are to notice
//! nothing but a pause.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use super::stage::Stage;
use crate::cluster::Down;

/// The row of the restarts themselves.
pub(super) const NAME: &str = "restarts: one broker after the other, beside the rows above";

/// How long the cluster is left whole between two restarts.
const BREATH: Duration = Duration::from_secs(2);

/// Restarts brokers while `play` runs, which is told how often it was run before: again and again, until every broker
/// was restarted while it ran. What was done.
pub(super) fn beside(stage: &Stage<'_>, mut play: impl FnMut(usize)) -> Result<String, String> {
    let (ended, end) = mpsc::channel::<()>();
    let restarts = AtomicUsize::new(0);
    let broken = AtomicBool::new(false);
    stage.disturb(true);
    let outcome = std::thread::scope(|scope| {
        let (restarts, broken) = (&restarts, &broken);
        let restarting = scope.spawn(move || {
            let outcome = restart_until(stage, &end, restarts);
            broken.store(outcome.is_err(), Ordering::Relaxed);
            outcome
        });
        let mut rounds = 0;
        while rounds == 0
            || (restarts.load(Ordering::Relaxed) < stage.nodes && !broken.load(Ordering::Relaxed))
        {
            play(rounds);
            rounds += 1;
        }
        drop(ended);
        let outcome = restarting.join().unwrap_or_else(|_| Err("the restarting thread panicked".to_owned()));
        outcome.map(|[killed, stopped]| {
            format!("{killed} killed, {stopped} stopped, {rounds} rounds of the rows")
        })
    });
    stage.disturb(false);
    outcome
}

/// Restarts one broker after the other; how many were killed, and how many stopped.
fn restart_until(
    stage: &Stage<'_>,
    end: &Receiver<()>,
    restarts: &AtomicUsize,
) -> Result<[usize; 2], String> {
    let mut counts = [0, 0];
    loop {
        let down = if (counts[0] + counts[1]) % 2 == 0 { Down::Killed } else { Down::Stopped };
        let (node, took) = stage.cluster().restart_next(down)?;
        counts[usize::from(down == Down::Stopped)] += 1;
        restarts.fetch_add(1, Ordering::Relaxed);
        println!("        node {node} was {down:?}, served again after {:.1}s", took.as_secs_f64());
        match end.recv_timeout(BREATH) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(counts),
        }
    }
}
