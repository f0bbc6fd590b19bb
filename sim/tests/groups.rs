//! Groups of replicas under the simulator, a few seeds each: `ouzel-sim` runs the many.

use std::time::Duration;

use ouzel_sim::check::verdict::Kind;
use ouzel_sim::groups::{Options, Planted, run};
use ouzel_sim::trace::Trace;
use ouzel_storage::Durability;

fn sound(options: &Options) {
    let report = run(options, Trace::default());
    assert_eq!(report.verdict.violations, [], "{options:?}");
    assert!(report.faults > 3, "{options:?}: {} faults", report.faults);
    assert!(report.verdict.counts.acknowledged_all > 50, "{options:?}: {:?}", report.verdict.counts);
    assert!(report.verdict.counts.read > 50, "{options:?}: {:?}", report.verdict.counts);
}

fn short(seed: u64, nodes: usize, durability: Durability) -> Options {
    Options { nodes, durability: Some(durability), load: Duration::from_secs(8), ..Options::new(seed) }
}

#[test]
fn three_replicas_keep_their_promises() {
    for (seed, durability) in
        [(1, Durability::Durable), (2, Durability::Durable), (3, Durability::WriteCaching)]
    {
        sound(&short(seed, 3, durability));
    }
}

#[test]
fn five_nodes_keep_their_promises_while_replicas_move() {
    for (seed, durability) in [(4, Durability::Durable), (5, Durability::Os)] {
        sound(&short(seed, 5, durability));
    }
}

/// Power failed between the manifest of a snapshot and the record that decides whether it is the log. The processes here opened
/// logs without settling that, as brokers do: the replica was not opened any more.
#[test]
fn a_snapshot_that_was_interrupted_is_settled_at_the_start() {
    sound(&Options { nodes: 3, ..Options::new(8_501_179) });
}

/// How many seeds a planted wrong may go unnoticed.
const SEEDS_MAX: u64 = 25;

/// The kinds of what was noticed of a planted wrong in the first seed that shows one of those expected.
fn notices(planted: Planted, expected: &[Kind]) {
    let mut noticed = Vec::new();
    for seed in 1..=SEEDS_MAX {
        let options = Options { planted: Some(planted), ..short(seed, 3, Durability::Durable) };
        let verdict = run(&options, Trace::default()).verdict;
        noticed.extend(verdict.violations.into_iter().map(|violation| violation.kind));
        if expected.iter().any(|kind| noticed.contains(kind)) {
            return;
        }
    }
    panic!("{planted:?} shows in {noticed:?} only");
}

#[test]
fn a_disk_that_is_not_flushed_is_noticed() {
    notices(
        Planted::Unflushed,
        &[Kind::LostAcknowledged, Kind::ReadVanished, Kind::TwoLeaders, Kind::EpochWentBack],
    );
}

#[test]
fn an_acknowledgement_before_a_quorum_is_noticed() {
    notices(Planted::EarlyAcknowledgement, &[Kind::LostAcknowledged]);
}

#[test]
fn a_read_above_the_high_watermark_is_noticed() {
    notices(Planted::UncommittedReads, &[Kind::ReadVanished, Kind::TwoValuesAtOneOffset]);
}

#[test]
fn a_forgotten_sequence_is_noticed() {
    notices(Planted::ForgottenSequences, &[Kind::Duplicate]);
}
