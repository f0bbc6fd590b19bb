//! Whole brokers under the simulator, a few seeds each: `ouzel-sim` runs the many.

use std::time::Duration;

use ouzel_sim::brokers::{Options, run};
use ouzel_sim::check::verdict::Kind;
use ouzel_sim::trace::Trace;
use ouzel_storage::Durability;

fn sound(options: &Options) {
    let report = run(options, Trace::default()).unwrap_or_else(|error| panic!("{options:?}: {error}"));
    assert_eq!(report.verdict.violations, [], "{options:?}");
    assert!(report.faults > 5, "{options:?}: {} faults", report.faults);
    assert!(report.verdict.counts.acknowledged_all > 50, "{options:?}: {:?}", report.verdict.counts);
    assert!(report.verdict.counts.read > 50, "{options:?}: {:?}", report.verdict.counts);
}

#[test]
fn one_broker_keeps_its_promises_when_everything_fails() {
    for seed in 1..=4 {
        sound(&Options::new(seed));
    }
}

#[test]
fn one_broker_that_does_not_flush_keeps_what_it_promises() {
    for durability in [Durability::WriteCaching, Durability::Os] {
        sound(&Options { durability, ..Options::new(7) });
    }
}

#[test]
fn a_run_of_a_seed_is_the_same_run() {
    let trace_of = |seed| {
        let trace = Trace::default();
        let report = run(&Options::new(seed), trace.clone()).expect("it runs");
        (trace.lines(), report.verdict.counts)
    };
    assert_eq!(trace_of(11), trace_of(11));
}

/// What does not serve is a broken promise, too.
#[test]
fn a_broker_that_does_not_come_back_is_noticed() {
    let options = Options { is_left_broken: true, load: Duration::from_secs(3), ..Options::new(5) };
    let verdict = run(&options, Trace::default()).expect("it runs").verdict;
    assert!(verdict.has(Kind::NoProgress), "{:?}", verdict.violations);
}
