//! Groups of replicas under the simulator, a few seeds each: `ouzel-sim` runs the many.

use std::time::Duration;

use ouzel_sim::groups::{Options, run};
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
