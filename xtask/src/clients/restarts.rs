//! Brokers of a cluster restarted one after the other, killed and stopped in turn, beside clients that are to notice
//! nothing but a pause.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::stage::Stage;
use crate::cluster::Down;

/// The row of the restarts themselves.
pub(super) const NAME: &str = "restarts: one broker after the other, beside the rows above";

/// How long the cluster is left whole between two restarts.
const BREATH: Duration = Duration::from_secs(2);

/// Restarts brokers while `play` runs, at least one; what was done.
pub(super) fn beside(stage: &Stage<'_>, play: impl FnOnce()) -> Result<String, String> {
    let (ended, end) = mpsc::channel::<()>();
    stage.disturb(true);
    let outcome = std::thread::scope(|scope| {
        let restarting = scope.spawn(move || {
            let mut counts = [0, 0];
            loop {
                let down = if (counts[0] + counts[1]) % 2 == 0 { Down::Killed } else { Down::Stopped };
                let (node, took) = stage.cluster().restart_next(down)?;
                counts[usize::from(down == Down::Stopped)] += 1;
                println!("        node {node} was {down:?}, served again after {:.1}s", took.as_secs_f64());
                match end.recv_timeout(BREATH) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(counts),
                }
            }
        });
        play();
        drop(ended);
        restarting.join().unwrap_or_else(|_| Err("the restarting thread panicked".to_owned()))
    });
    stage.disturb(false);
    outcome.map(|[killed, stopped]| format!("{killed} killed, {stopped} stopped"))
}
