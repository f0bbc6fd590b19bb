//! The judges: from what clients saw, and what lies on the replicas' disks, to what of the promises was broken.
//!
//! Pure: values in, values out. A history is what the clients of a run noted ([`history`]); the judges look at it from
//! four sides: what became of the records ([`records`]), what each reader saw ([`sessions`]), what groups committed
//! ([`commits`]), and whether Raft's own invariants held among the replicas ([`raft`]); of replicas that do not flush first,
//! whether those that lost their power are still counted on ([`power`]).
//!
//! A promise is as large as acks and durability make it (`docs/offsets.md`, `docs/replication.md`): what was promised and
//! is gone is a [`Violation`]; what was not promised and is gone is counted ([`Counts`]).
//!
//! Reading order: [`history`], [`verdict`], then the judges in the order above.

pub mod commits;
pub mod history;
pub mod power;
pub mod raft;
pub mod records;
pub mod sessions;
pub mod verdict;

pub use history::History;
pub use verdict::{Counts, Verdict, Violation};

/// Judges all that clients saw.
pub fn judge(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    records::judge(history, &mut verdict);
    sessions::judge(history, &mut verdict);
    commits::judge(history, &mut verdict);
    verdict
}
