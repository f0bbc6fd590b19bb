//! The judges: from what clients saw, and what lies on the replicas' disks, to what of the promises was broken.
//!
//! Pure: values in, values out. A history is what the clients of a run noted ([`history`]); the judges look at it from
//! several sides: what became of the records ([`records`]), what each reader saw ([`sessions`]), what groups committed
//! ([`commits`]) and which of their members owned what ([`owners`]), what is left of a compacted topic ([`newest`]), and whether Raft's own invariants held among the replicas ([`raft`]); of replicas that do not flush first,
//! whether those that lost their power are still counted on ([`power`]).
//!
//! A promise is as large as acks and durability make it (`docs/offsets.md`, `docs/replication.md`): what was promised and
//! is gone is a [`Violation`]; what was not promised and is gone is counted ([`Counts`]).
//!
//! Reading order: [`history`], [`verdict`], then the judges in the order above.

pub mod commits;
pub mod history;
pub mod newest;
pub mod owners;
pub mod power;
pub mod raft;
pub mod records;
pub mod sessions;
pub mod verdict;

pub use history::History;
pub use verdict::{Counts, Verdict, Violation};

/// Judges whether a loss that was admitted was told: `told` is how many losses the nodes counted, each of them one replica's.
pub fn judge_told(told: u64, verdict: &mut Verdict) {
    let Counts { lost_admitted, vanished_admitted, partitions_with_loss, .. } = verdict.counts;
    if told < partitions_with_loss {
        let facts = format!(
            "{lost_admitted} records that were acknowledged and {vanished_admitted} reads are gone from \
             {partitions_with_loss} partitions, and nodes count {told} losses"
        );
        verdict.broken(verdict::Kind::UntoldLoss, facts);
    }
}

/// Judges all that clients saw.
pub fn judge(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    records::judge(history, &mut verdict);
    sessions::judge(history, &mut verdict);
    commits::judge(history, &mut verdict);
    newest::judge(history, &mut verdict);
    owners::judge(history, &mut verdict);
    verdict
}
