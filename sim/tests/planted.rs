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

/// Runs seeds until a judge says one of what is expected of a wrong. The replicas' own assertions may come first: openraft's,
/// or those of a debug build.
fn notices(planted: Planted, durability: Durability, expected: &[Kind]) {
    let mut noticed = Vec::new();
    let mut panics = 0;
    for seed in 1..=SEEDS_MAX {
        let options =
            Options { durability: Some(durability), load: Duration::from_secs(8), ..Options::new(seed) };
        plant(Some(planted));
        let verdict = std::panic::catch_unwind(|| run(&options, Trace::default()).verdict);
        plant(None);
        match verdict {
            Ok(verdict) => noticed.extend(verdict.violations.into_iter().map(|violation| violation.kind)),
            Err(_) => panics += 1,
        }
        if expected.iter().any(|kind| noticed.contains(kind)) {
            return;
        }
    }
    panic!("{planted:?} shows in {noticed:?} and {panics} panics only");
}

#[test]
fn an_acknowledgement_before_a_majority() {
    notices(Planted::EarlyAcknowledgement, Durability::Durable, &[Kind::LostAcknowledged]);
}

#[test]
fn a_vote_that_is_not_kept() {
    notices(
        Planted::UnkeptVote,
        Durability::Durable,
        &[Kind::TwoLeaders, Kind::EpochWentBack, Kind::LogMismatch],
    );
}

#[test]
fn a_high_watermark_of_the_leader_alone() {
    notices(Planted::LonelyWatermark, Durability::Durable, &[Kind::ReadVanished, Kind::TwoValuesAtOneOffset]);
}

#[test]
fn a_truncation_that_is_skipped() {
    notices(
        Planted::SkippedTruncation,
        Durability::Durable,
        &[Kind::LogMismatch, Kind::StateMachineMismatch, Kind::NoProgress],
    );
}

#[test]
fn producers_that_are_forgotten() {
    notices(Planted::ForgottenProducers, Durability::Durable, &[Kind::Duplicate]);
}

/// The fault that matters here is the power cut of one machine at a time: all others have what it forgot.
#[test]
fn a_tail_that_a_power_cut_may_have_taken() {
    notices(Planted::TrustedTail, Durability::Os, &[Kind::TrustedTail]);
}
