//! `ouk` on a cluster: leaders and replicas are moved under records that must all be there afterwards. On Kafka as well: what
//! it says and does there is what it must say and do of ouzel.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::families::Family;
use super::history::{Promise, judge};
use super::scenario::Scenario;
use super::stage::{Production, Stage, eventually};

const SETTLE: Duration = Duration::from_secs(60);

pub(super) fn scenarios() -> Vec<Scenario> {
    let name = "admin tool: ouk moves leaders and replicas, and tells the truth of them";
    vec![Scenario::new(name, &[Family::Ouk, Family::Rdkafka], move_about).on_at_least(3).quick()]
}

/// Runs `ouk`; the items of its report.
fn ouk(stage: &Stage<'_>, line: &str) -> Result<Vec<Value>, String> {
    let command = stage.toolbox.command(Family::Ouk)?;
    let output = Command::new(&command[0])
        .args(line.split(' '))
        .args(["--brokers", &stage.bootstrap, "--format", "json"])
        .env("OUK_CONFIG", "/nonexistent/profiles.toml")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("run ouk: {e}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("ouk {line} ended with {}: {words}", output.status));
    }
    let report: Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("ouk {line}: {e}"))?;
    report["items"].as_array().cloned().ok_or_else(|| format!("ouk {line}: no items in {report}"))
}

/// The nodes in a field of one of a topic's partitions.
fn nodes(partitions: &[Value], index: usize, field: &str) -> Vec<i64> {
    partitions[index][field].as_array().into_iter().flatten().filter_map(Value::as_i64).collect()
}

fn sorted(mut nodes: Vec<i64>) -> Vec<i64> {
    nodes.sort_unstable();
    nodes
}

fn listed(nodes: &[i64]) -> String {
    nodes.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

fn move_about(stage: &Stage<'_>) -> Result<String, String> {
    let topic = stage.unique("moved");
    ouk(stage, &format!("topic create {topic} -p 2 -r 3"))?;
    let describe = || ouk(stage, &format!("topic describe {topic}"));
    let began = eventually(SETTLE, || {
        let partitions = describe()?;
        match (0..2).all(|index| nodes(&partitions, index, "in_sync").len() == 3) {
            true => Ok(partitions),
            false => Err(format!("not all replicas are in sync: {partitions:?}")),
        }
    })?;
    let production = Production {
        partitions: 2,
        count: 2_000,
        per_second: 200,
        idempotent: true,
        ..Production::new(Family::Rdkafka, &topic)
    };
    let mut producer = stage.borrow(Family::Rdkafka)?;
    producer.begin(&production.order(stage))?;

    // Another leader for partition 0, by preference.
    let to = nodes(&began, 0, "replicas")[1];
    ouk(stage, &format!("partition move-leader {topic}:0 --to {to}"))?;
    eventually(SETTLE, || {
        let partitions = describe()?;
        match partitions[0]["leader"] == to && nodes(&partitions, 0, "replicas")[0] == to {
            true => Ok(()),
            false => Err(format!("node {to} does not lead: {}", partitions[0])),
        }
    })?;
    let again = ouk(stage, &format!("partition elect {topic}"))?;
    let good = |one: &Value| one["status"] == "elected" || one["status"] == "not needed";
    if again.len() != 2 || !again.iter().all(good) {
        return Err(format!("elections of the preferred leaders told {again:?}"));
    }

    // A replica of partition 1 goes, its leader's, and comes back.
    let all = nodes(&began, 1, "replicas");
    let leader = began[1]["leader"].as_i64().unwrap_or(-1);
    let without: Vec<i64> = all.iter().copied().filter(|node| *node != leader).collect();
    for wanted in [&without, &all] {
        ouk(stage, &format!("partition reassign {topic}:1={} --yes --wait", listed(wanted)))?;
        eventually(SETTLE, || {
            let partitions = describe()?;
            let whole = sorted(nodes(&partitions, 1, "in_sync")) == sorted(wanted.clone());
            match nodes(&partitions, 1, "replicas") == **wanted && whole {
                true => Ok(()),
                false => Err(format!("replicas {wanted:?} were due: {}", partitions[1])),
            }
        })?;
    }
    let moving = ouk(stage, "partition reassignments")?;
    if moving.iter().any(|one| one["topic"] == topic.as_str()) {
        return Err(format!("a move that has ended is still told of: {moving:?}"));
    }

    let heard = producer.finish(SETTLE)?;
    stage.give_back(Family::Rdkafka, producer);
    // librdkafka asks once where a log begins and ends, and leaders have just changed.
    let read = eventually(SETTLE, || stage.read(Family::Rdkafka, &topic, 2, json!({})))?;
    judge(&production.sent(heard.iter().map(|heard| &heard.event)), Promise::ExactlyOnce, &read.records)?;

    let keepers = ouk(stage, "quorum")?;
    let role = |word: &str| keepers.iter().filter(|keeper| keeper["role"] == word).count();
    if (role("leader"), role("voter") + 1) != (1, stage.nodes) {
        return Err(format!("the quorum is {keepers:?}"));
    }
    let brokers = ouk(stage, "cluster status")?;
    if brokers.len() != stage.nodes || brokers.iter().any(|broker| broker["status"] != "alive") {
        return Err(format!("the brokers are {brokers:?}"));
    }
    eventually(SETTLE, || {
        let lacking = ouk(stage, "topic list --internal --under-replicated")?;
        if lacking.is_empty() { Ok(()) } else { Err(format!("under-replicated: {lacking:?}")) }
    })?;
    eventually(SETTLE, || ouk(stage, "cluster health").map(|_| ()))?;
    Ok(format!("{} records stayed", read.records.len()))
}
