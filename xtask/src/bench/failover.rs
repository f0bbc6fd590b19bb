//! `cargo xtask bench failover`: a node of a cluster is killed, or stopped, again and again; how long until each of the
//! others tells of another leader for every partition it led. Apache Kafka beside it, with the same question.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::machine;
use super::metadata::create_topics;
use super::statistics::Spread;
use crate::broker_process::Against;
use crate::cluster::{Cluster, Down, TakenDown};
use crate::provision;

/// All leaders of a node that was killed are to be elected anew in this time.
const AIM: Duration = Duration::from_millis(1_500);

/// What is measured.
pub(super) struct Options {
    against: Against,
    nodes: usize,
    partitions: usize,
    rounds: usize,
    down: Down,
}

impl Options {
    /// Reads the arguments; `None` if they are not understood.
    pub(super) fn parse(arguments: &[&str]) -> Option<Options> {
        let mut options =
            Options { against: Against::Ouzel, nodes: 3, partitions: 100, rounds: 9, down: Down::Killed };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let count = |value: &str| value.parse().ok().filter(|count| *count > 0);
            match *name {
                "--stopped" => options.down = Down::Stopped,
                "--frozen" => options.down = Down::Frozen,
                "--against" => options.against = Against::parse(arguments.next()?).ok()?,
                "--nodes" => {
                    options.nodes = count(arguments.next()?).filter(|count| (3..=5).contains(count))?
                }
                "--partitions" => options.partitions = count(arguments.next()?)?,
                "--rounds" => options.rounds = count(arguments.next()?)?,
                _ => return None,
            }
        }
        Some(options)
    }
}

/// Measures, and prints text and JSON.
pub(super) fn run(root: &Path, options: Options) -> Result<(), String> {
    let folder = root.join("target/bench/failover");
    provision::remove_dir(&folder)?;
    provision::create_dir(&folder)?;
    let partitions = options.partitions.to_string();
    let settings = [("num.partitions", partitions.as_str()), ("default.replication.factor", "3")];
    let mut cluster =
        Cluster::prepare(root, options.against, &folder.join("nodes"), options.nodes, &settings, &[])?;
    cluster.start()?;
    create_topics(cluster.port(), &["failover".to_owned()])?;
    cluster.await_partitions(options.partitions)?;
    let mut rounds = Vec::with_capacity(options.rounds);
    for round in 1..=options.rounds {
        let taken = cluster.take_down_next(options.down)?;
        println!(
            "        {round} of {}: node {} led {} partitions; all led elsewhere after {:.0} ms",
            options.rounds,
            taken.node,
            taken.led,
            millis(taken.others_lead_after)
        );
        rounds.push(taken);
        cluster.bring_back(taken.node)?;
    }
    cluster.stop()?;
    // A node that led nothing has nobody to miss it.
    rounds.retain(|taken| taken.led > 0);
    if rounds.is_empty() {
        return Err("no node that was taken down led anything".to_owned());
    }
    let spread = Spread::of(rounds.iter().map(|taken| taken.others_lead_after).collect());
    let facts = machine::facts(root, &folder);
    print!("{}", text(&options, &rounds, &spread));
    let json = as_json(&options, &rounds, &spread, facts);
    println!("{json}");
    provision::write(&root.join("target/bench/failover.json"), &format!("{json}\n"))
}

fn how(down: Down) -> &'static str {
    match down {
        Down::Killed => "killed",
        Down::Stopped => "stopped",
        Down::Frozen => "frozen",
    }
}

fn text(options: &Options, rounds: &[TakenDown], spread: &Spread) -> String {
    let met = if spread.max <= AIM { "met" } else { "MISSED" };
    format!(
        "{}: {} nodes, {} partitions with three replicas, one node {} in each of {} rounds\n  \
         all it led is led by others after: median {:.0} ms, min {:.0}, max {:.0}; aim for the longest {} ms: {met}\n",
        options.against.name(),
        options.nodes,
        options.partitions,
        how(options.down),
        rounds.len(),
        millis(spread.median),
        millis(spread.min),
        millis(spread.max),
        AIM.as_millis(),
    )
}

fn as_json(options: &Options, rounds: &[TakenDown], spread: &Spread, facts: Value) -> Value {
    let rounds: Vec<Value> = rounds
        .iter()
        .map(|taken| json!({"node": taken.node, "led": taken.led, "ms": millis(taken.others_lead_after)}))
        .collect();
    json!({
        "against": options.against.name(),
        "nodes": options.nodes,
        "partitions": options.partitions,
        "down": how(options.down),
        "rounds": rounds,
        "median_ms": millis(spread.median),
        "min_ms": millis(spread.min),
        "max_ms": millis(spread.max),
        "aim_ms": AIM.as_millis() as u64,
        "aim_met": spread.max <= AIM,
        "machine": facts,
    })
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let options = Options::parse(&["--against", "kafka", "--rounds", "2", "--stopped"]).unwrap();
        assert!(matches!(options.against, Against::Kafka));
        assert_eq!((options.nodes, options.partitions, options.rounds), (3, 100, 2));
        assert_eq!(options.down, Down::Stopped);
        for wrong in [&["--rounds"][..], &["--rounds", "0"], &["--nodes", "2"], &["--against", "x"], &["x"]] {
            assert!(Options::parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn an_aim_that_is_missed_is_said() {
        let options = Options::parse(&[]).unwrap();
        let taken = |ms| TakenDown { node: 1, led: 5, others_lead_after: Duration::from_millis(ms) };
        for (rounds, met) in [(vec![taken(900), taken(1_500)], true), (vec![taken(900), taken(1_501)], false)]
        {
            let spread = Spread::of(rounds.iter().map(|taken| taken.others_lead_after).collect());
            assert_eq!(text(&options, &rounds, &spread).contains("MISSED"), !met);
            assert_eq!(as_json(&options, &rounds, &spread, Value::Null)["aim_met"], met);
        }
    }
}
