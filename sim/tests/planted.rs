//! The judges against wrongs in the code that ships, one at a time: `cargo xtask sim --mutations`.

#![cfg(feature = "planted")]

use std::time::Duration;

use ouzel_raft::{Planted, plant};
use ouzel_sim::check::verdict::Kind;
use ouzel_sim::groups::{Options, run};
use ouzel_sim::trace::Trace;
use ouzel_storage::Durability;

/// How many seeds a planted wrong may go unnoticed.
const SEEDS_MAX: u64 = 40;

/// Runs seeds until one shows what is expected of a wrong. A debug build's own assertions may be faster than the judges:
/// that is noticed as well.
fn notices(planted: Planted, expected: &[Kind]) {
    std::panic::set_hook(Box::new(|_| {}));
    let mut noticed = Vec::new();
    for seed in 1..=SEEDS_MAX {
        let options = Options {
            durability: Some(Durability::Durable),
            load: Duration::from_secs(8),
            ..Options::new(seed)
        };
        plant(Some(planted));
        let verdict = std::panic::catch_unwind(|| run(&options, Trace::default()).verdict);
        plant(None);
        let Ok(verdict) = verdict else { return };
        noticed.extend(verdict.violations.into_iter().map(|violation| violation.kind));
        if expected.iter().any(|kind| noticed.contains(kind)) {
            return;
        }
    }
    let _ = std::panic::take_hook();
    panic!("{planted:?} shows in {noticed:?} only");
}

#[test]
fn an_acknowledgement_before_a_majority() {
    notices(Planted::EarlyAcknowledgement, &[Kind::LostAcknowledged]);
}

#[test]
fn a_vote_that_is_not_kept() {
    notices(Planted::UnkeptVote, &[Kind::TwoLeaders, Kind::EpochWentBack, Kind::LogMismatch]);
}

#[test]
fn a_high_watermark_of_the_leader_alone() {
    notices(Planted::LonelyWatermark, &[Kind::ReadVanished, Kind::TwoValuesAtOneOffset]);
}

#[test]
fn a_truncation_that_is_skipped() {
    notices(Planted::SkippedTruncation, &[Kind::LogMismatch, Kind::StateMachineMismatch, Kind::NoProgress]);
}

#[test]
fn producers_that_are_forgotten() {
    notices(Planted::ForgottenProducers, &[Kind::Duplicate]);
}
