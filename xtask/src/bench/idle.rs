//! `cargo xtask bench idle`: what a node costs that nobody asks anything, with few and with many partitions, alone and as one
//! of three. Partitions that are not used are the most there are; they should cost some memory and nothing else.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::machine;
use super::metadata::create_topics;
use super::process::{Memory, process_cpu};
use crate::broker_process::Against;
use crate::cluster::Cluster;
use crate::provision;

/// After the last topic was made; timers of all kinds have run by then.
const SETTLE: Duration = Duration::from_secs(15);
/// Long beside the hundredths of a second that Linux counts in.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// Of one topic: making them takes one request then.
const TOPIC_PARTITIONS: usize = 100;

/// A cluster that idles.
struct Case {
    nodes: usize,
    /// On each node.
    partitions: usize,
}

const CASES: [Case; 5] = [
    Case { nodes: 1, partitions: 0 },
    Case { nodes: 1, partitions: 1_000 },
    Case { nodes: 1, partitions: 10_000 },
    Case { nodes: 3, partitions: 0 },
    Case { nodes: 3, partitions: 300 },
];

/// What the dearest of its nodes costs.
struct Cost {
    own_kib: u64,
    cpu_percent: f64,
}

/// Measures, and prints text and JSON.
pub(super) fn run(root: &Path) -> Result<(), String> {
    let folder = root.join("target/bench/idle");
    provision::remove_dir(&folder)?;
    println!("idle: a node's own memory, and its share of a core over {} s\n", IDLE_FOR.as_secs());
    let mut rows = Vec::new();
    for (nth, case) in CASES.iter().enumerate() {
        let cost = measure(root, &folder.join(nth.to_string()), case)?;
        println!("{}", line(case, &cost));
        rows.push(as_json(case, &cost));
    }
    let json = json!({ "rows": rows, "machine": machine::facts(root, &folder) });
    println!("\n{json}");
    provision::remove_dir(&folder)?;
    provision::write(&root.join("target/bench/idle.json"), &format!("{json}\n"))
}

fn measure(root: &Path, folder: &Path, case: &Case) -> Result<Cost, String> {
    let partitions = TOPIC_PARTITIONS.to_string();
    let factor = case.nodes.to_string();
    let settings = [("num.partitions", partitions.as_str()), ("default.replication.factor", factor.as_str())];
    let mut cluster = Cluster::prepare(root, Against::Ouzel, folder, case.nodes, &settings, &[])?;
    cluster.start()?;
    for nth in 0..case.partitions / TOPIC_PARTITIONS {
        create_topics(cluster.port(), &[format!("idle-{nth}")])?;
    }
    cluster.await_partitions(case.partitions)?;
    std::thread::sleep(SETTLE);
    let pids = cluster.pids();
    let cpu = |pid: &u32| process_cpu(*pid);
    let before = pids.iter().map(cpu).collect::<Result<Vec<_>, _>>()?;
    let began = Instant::now();
    std::thread::sleep(IDLE_FOR);
    let after = pids.iter().map(cpu).collect::<Result<Vec<_>, _>>()?;
    let took = began.elapsed();
    let spent = before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before)).max();
    let own =
        pids.iter().map(|pid| Ok(Memory::of(*pid)?.without_files_kib)).collect::<Result<Vec<_>, String>>()?;
    cluster.stop()?;
    Ok(Cost {
        own_kib: own.into_iter().max().unwrap_or(0),
        cpu_percent: spent.unwrap_or_default().as_secs_f64() / took.as_secs_f64() * 100.0,
    })
}

fn line(case: &Case, cost: &Cost) -> String {
    let place = if case.nodes == 1 { "alone".to_owned() } else { format!("one of {}", case.nodes) };
    format!(
        "{place:<9} {:>6} partitions  {:>7.1} MiB  {:>6.3} % of a core",
        case.partitions,
        cost.own_kib as f64 / 1024.0,
        cost.cpu_percent
    )
}

fn as_json(case: &Case, cost: &Cost) -> Value {
    json!({
        "nodes": case.nodes,
        "partitions": case.partitions,
        "own_kib": cost.own_kib,
        "cpu_percent": cost.cpu_percent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_where_and_how_much() {
        let cost = Cost { own_kib: 70_656, cpu_percent: 0.65 };
        let case = Case { nodes: 3, partitions: 300 };
        assert_eq!(line(&case, &cost), "one of 3     300 partitions     69.0 MiB   0.650 % of a core");
        assert_eq!(as_json(&case, &cost)["own_kib"], 70_656);
        assert!(CASES.iter().all(|case| case.partitions % TOPIC_PARTITIONS == 0), "topics are whole");
    }
}
