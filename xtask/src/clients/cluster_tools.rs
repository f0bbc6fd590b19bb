//! Kafka's tools for whoever runs a cluster: the quorum, reassignments, elections, features, partitions, log directories.
//! What a tool says of a cluster that lacks a broker is in `lacking`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::families::Family;
use super::scenario::Scenario;
use super::stage::{Production, Stage, eventually};
use super::tools::{CLUSTER, TOPICS, run};

const QUORUM: &str = "org.apache.kafka.tools.MetadataQuorumCommand";
pub(super) const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
const ELECTION: &str = "org.apache.kafka.tools.LeaderElectionCommand";
const FEATURES: &str = "org.apache.kafka.tools.FeatureCommand";
const LOG_DIRS: &str = "org.apache.kafka.tools.LogDirsCommand";

/// How long a change that was ordered may take until every broker tells of it.
pub(super) const SETTLE: Duration = Duration::from_secs(60);

pub(super) fn scenarios() -> Vec<Scenario> {
    let tool = |name: &str, play: fn(&Stage<'_>) -> Result<String, String>| {
        Scenario::new(format!("cluster tools: {name}"), &[Family::Java], play).on_at_least(3)
    };
    vec![
        tool("kafka-metadata-quorum describes status and replication", quorum).quick(),
        tool("kafka-reassign-partitions generates, executes, verifies and lists", reassign),
        tool("kafka-leader-election elects preferred leaders", elect),
        tool("kafka-features describes, and upgrades to what is there", features).bearing_restarts(),
        tool("kafka-topics adds partitions", add_partitions),
        tool("kafka-cluster lists endpoints", endpoints),
        tool("kafka-log-dirs describes", log_dirs),
    ]
}

/// Runs a tool that must fail, and say all of `says`.
pub(super) fn refused(
    stage: &Stage<'_>,
    class: &str,
    arguments: &[&str],
    says: &[&str],
) -> Result<(), String> {
    let arguments = [&["--bootstrap-server", &stage.bootstrap], arguments].concat();
    stage.again(|| {
        let (status, text) = stage.tool(class, &arguments, "")?;
        let told = |reason| format!("{class} {}: {reason}", arguments.join(" "));
        refusal(status, &text, says).map(|wrong| wrong.map_err(told)).map_err(told)
    })?
}

/// Whether a tool failed as it must, by its status and its words: an outer error may be another one tomorrow, an inner one is
/// final, because a tool that did what it must not will be refused the second time.
fn refusal(status: i64, text: &str, says: &[&str]) -> Result<Result<(), String>, String> {
    match says.iter().find(|due| !text.contains(**due)) {
        _ if status == 0 => Ok(Err(format!("ended well: {text:?}"))),
        None => Ok(Ok(())),
        Some(due) => Err(format!("no {due:?} in {text:?}")),
    }
}

/// A topic whose partitions have exactly these replicas; waits until all brokers tell of it with its replicas in sync.
pub(super) fn place(
    stage: &Stage<'_>,
    topic: &str,
    replicas: &[&[usize]],
    config: &str,
) -> Result<(), String> {
    let assignment = replicas.iter().map(|nodes| joined(nodes, ":")).collect::<Vec<_>>().join(",");
    let mut create = vec!["--create", "--topic", topic, "--replica-assignment", &assignment];
    if !config.is_empty() {
        create.extend(["--config", config]);
    }
    run(stage, TOPICS, &create, "", &["Created topic"])?;
    replicas
        .iter()
        .enumerate()
        .try_for_each(|(partition, nodes)| await_replicas(stage, topic, partition, nodes))
}

pub(super) fn joined(nodes: &[usize], by: &str) -> String {
    nodes.iter().map(usize::to_string).collect::<Vec<_>>().join(by)
}

/// What kafka-topics says of one partition: the word behind `field`.
pub(super) fn described(
    stage: &Stage<'_>,
    topic: &str,
    partition: usize,
    field: &str,
) -> Result<String, String> {
    let text = run(stage, TOPICS, &["--describe", "--topic", topic], "", &[])?;
    let line = text
        .lines()
        .find(|line| line.contains(&format!("Partition: {partition}\t")))
        .ok_or_else(|| format!("no partition {partition} in {text:?}"))?;
    let found = line.split('\t').find_map(|part| part.trim().strip_prefix(&format!("{field}: ")));
    found.map(str::to_owned).ok_or_else(|| format!("no {field} in {line:?}"))
}

/// Deletes a topic of two replicas, which not every cluster serves while one of them is away.
pub(super) fn remove(stage: &Stage<'_>, topic: &str) -> Result<(), String> {
    run(stage, TOPICS, &["--delete", "--topic", topic], "", &[]).map(|_| ())
}

/// Waits until a partition has these replicas in this order, all of them in sync.
pub(super) fn await_replicas(
    stage: &Stage<'_>,
    topic: &str,
    partition: usize,
    nodes: &[usize],
) -> Result<(), String> {
    eventually(SETTLE, || {
        let replicas = described(stage, topic, partition, "Replicas")?;
        let in_sync = described(stage, topic, partition, "Isr")?;
        match replicas == joined(nodes, ",") && in_sync.split(',').count() == nodes.len() {
            true => Ok(()),
            false => Err(format!(
                "{topic}-{partition} has replicas {replicas}, of which {in_sync} in sync; {nodes:?} were due"
            )),
        }
    })
}

fn quorum(stage: &Stage<'_>) -> Result<String, String> {
    let field = |text: &str, name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")).map(str::trim));
        found.map(str::to_owned).ok_or_else(|| format!("no {name} in {text:?}"))
    };
    let number = |text: &str, name: &str| {
        let found = field(text, name)?;
        found.parse::<i64>().map_err(|_| format!("{name} is {found:?}, and no number"))
    };
    let status = run(stage, QUORUM, &["describe", "--status"], "", &["ClusterId:", "MaxFollowerLag:"])?;
    let (leader, epoch) = (number(&status, "LeaderId")?, number(&status, "LeaderEpoch")?);
    let high_watermark = number(&status, "HighWatermark")?;
    let voters: Value = serde_json::from_str(&field(&status, "CurrentVoters")?)
        .map_err(|e| format!("the voters in {status:?}: {e}"))?;
    let voters = voters.as_array().cloned().unwrap_or_default();
    let ids: Vec<i64> = voters.iter().filter_map(|voter| voter["id"].as_i64()).collect();
    let whole = |voter: &Value| {
        voter["directoryId"].as_str().is_some_and(|id| id.len() == 22)
            && voter["endpoints"].as_array().is_some_and(|endpoints| !endpoints.is_empty())
    };
    if !ids.contains(&leader) || ids.len() < 3 || ids.len() > stage.nodes || !voters.iter().all(whole) {
        return Err(format!("leader {leader}, and voters {voters:?}"));
    }
    if epoch < 1 || high_watermark < 1 {
        return Err(format!("leader epoch {epoch}, high watermark {high_watermark}"));
    }
    // Lags pass: a follower that is well has none at one look or another.
    eventually(SETTLE, || {
        let table =
            run(stage, QUORUM, &["describe", "--replication"], "", &["NodeId", "LastCaughtUpTimestamp"])?;
        let rows: Vec<Vec<&str>> =
            table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        let role = |word: &str| rows.iter().filter(|row| row.last() == Some(&word)).count();
        // NodeId DirectoryId LogEndOffset Lag LastFetchTimestamp LastCaughtUpTimestamp Status
        let numbers = |column: usize| {
            rows.iter()
                .map(|row| row.get(column).and_then(|word| word.parse::<i64>().ok()))
                .collect::<Option<Vec<_>>>()
        };
        let (Some(ends), Some(lags), Some(fetched), Some(caught_up)) =
            (numbers(2), numbers(3), numbers(4), numbers(5))
        else {
            return Err(format!("cannot be read: {table:?}"));
        };
        let good = role("Leader") == 1
            && role("Follower") + 1 == ids.len()
            && rows.len() == stage.nodes
            && ends.iter().all(|end| *end >= high_watermark)
            && lags.iter().all(|lag| (0..10).contains(lag))
            && caught_up
                .iter()
                .zip(&fetched)
                .all(|(caught_up, fetched)| 0 < *caught_up && caught_up <= fetched);
        if good { Ok(()) } else { Err(format!("with high watermark {high_watermark}: {table:?}")) }
    })?;
    Ok(format!("{} voters", ids.len()))
}

/// A file for one of the tools.
pub(super) fn file(stage: &Stage<'_>, word: &str, content: &Value) -> Result<PathBuf, String> {
    let path = stage.folder.join(format!("{}.json", stage.unique(word)));
    std::fs::write(&path, content.to_string()).map_err(|e| format!("write {}: {e}", path.display()))?;
    Ok(path)
}

/// A reassignment file: where partitions of the topic are to go.
pub(super) fn moves(stage: &Stage<'_>, topic: &str, to: &[(usize, &[usize])]) -> Result<String, String> {
    let partitions: Vec<Value> = to
        .iter()
        .map(|(partition, nodes)| json!({"topic": topic, "partition": partition, "replicas": nodes}))
        .collect();
    let path = file(stage, "moves", &json!({"version": 1, "partitions": partitions}))?;
    Ok(path.display().to_string())
}

/// Waits until kafka-reassign-partitions says that all partitions of a file are where they were to go, of these in words.
pub(super) fn await_moved(stage: &Stage<'_>, file: &str, partitions: &[&str]) -> Result<String, String> {
    eventually(SETTLE, || {
        let text = run(stage, REASSIGN, &["--verify", "--reassignment-json-file", file], "", &[])?;
        let completed =
            |name: &&str| text.contains(&format!("Reassignment of partition {name} is completed."));
        let done = partitions.iter().all(completed) && !text.contains("still in progress");
        if done { Ok(text) } else { Err(format!("not completed: {text:?}")) }
    })
}

/// The lines of a text that are JSON.
pub(super) fn plans(text: &str) -> Vec<Value> {
    text.lines()
        .filter(|line| line.starts_with('{'))
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn reassign(stage: &Stage<'_>) -> Result<String, String> {
    let topic = stage.unique("moving");
    place(stage, &topic, &[&[1, 2], &[2, 3]], "min.insync.replicas=1")?;
    let production = Production { partitions: 2, ..Production::new(Family::Java, &topic) };
    let produced = stage.produce(&production)?;

    let topics = file(stage, "topics", &json!({"version": 1, "topics": [{"topic": topic}]}))?;
    let topics = topics.display().to_string();
    let generate = ["--generate", "--topics-to-move-json-file", &topics, "--broker-list", "1,3"];
    let headings = ["Current partition replica assignment", "Proposed partition reassignment configuration"];
    let text = run(stage, REASSIGN, &generate, "", &headings)?;
    let [now, proposed] = &plans(&text)[..] else {
        return Err(format!("not two plans: {text:?}"));
    };
    let replicas = |plan: &Value, index: usize| -> Vec<u64> {
        plan["partitions"][index]["replicas"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect()
    };
    if replicas(now, 0) != [1, 2] || replicas(now, 1) != [2, 3] {
        return Err(format!("the current assignment is told as {now}"));
    }
    for index in 0..2 {
        let mut nodes = replicas(proposed, index);
        nodes.sort_unstable();
        if nodes != [1, 3] {
            return Err(format!("for brokers 1 and 3 it is proposed: {proposed}"));
        }
    }

    let (first, second) = (format!("{topic}-0"), format!("{topic}-1"));
    let both = [first.as_str(), second.as_str()];
    let started = format!("Successfully started partition reassignments for {first},{second}");
    // Other rows have partitions moved meanwhile, and without --additional the tool wants to be alone.
    let moves_1 = moves(stage, &topic, &[(0, &[3, 1]), (1, &[1, 2, 3])])?;
    run(
        stage,
        REASSIGN,
        &["--execute", "--additional", "--reassignment-json-file", &moves_1],
        "",
        &[
            "Current partition replica assignment",
            "Save this to use as the --reassignment-json-file option during rollback",
            &started,
        ],
    )?;
    await_moved(stage, &moves_1, &both)?;
    await_replicas(stage, &topic, 0, &[3, 1])?;
    await_replicas(stage, &topic, 1, &[1, 2, 3])?;

    // With a throttle, which --verify takes away again.
    let moves_2 = moves(stage, &topic, &[(0, &[1, 2]), (1, &[2, 3])])?;
    let throttled =
        ["--execute", "--additional", "--throttle", "100000000", "--reassignment-json-file", &moves_2];
    let limited = "The inter-broker throttle limit was set to 100000000 B/s";
    run(stage, REASSIGN, &throttled, "", &[limited, &started])?;
    let text = await_moved(stage, &moves_2, &both)?;
    for due in [
        "Clearing broker-level throttles on brokers",
        &format!("Clearing topic-level throttles on topic {topic}"),
    ] {
        if !text.contains(due) {
            return Err(format!("no {due:?} in {text:?}"));
        }
    }
    await_replicas(stage, &topic, 0, &[1, 2])?;
    await_replicas(stage, &topic, 1, &[2, 3])?;
    let list = run(stage, REASSIGN, &["--list"], "", &[])?;
    if list.lines().any(|line| line.starts_with(&topic)) {
        return Err(format!("what has ended is still listed: {list:?}"));
    }
    let cancel = ["--cancel", "--preserve-throttles", "--reassignment-json-file", &moves_2];
    run(stage, REASSIGN, &cancel, "", &["None of the specified partition reassignments are active."])?;
    let stayed = stage.holds_exactly(&production, &produced)?;
    remove(stage, &topic)?;
    Ok(format!("{stayed} records stayed"))
}

fn elect(stage: &Stage<'_>) -> Result<String, String> {
    let topic = stage.unique("elected");
    place(stage, &topic, &[&[1, 2, 3], &[2, 3, 1]], "")?;
    let is_led_by = |partition: usize, node: &str| {
        eventually(SETTLE, || match described(stage, &topic, partition, "Leader")? {
            leader if leader == node => Ok(()),
            leader => Err(format!("{topic}-{partition} is led by {leader}, not {node}")),
        })
    };
    // On a busy machine another one than the preferred replica may have won the first election.
    let all = ["--election-type", "preferred", "--all-topic-partitions"];
    // Others come and go meanwhile, and an election where a topic has just gone fails the tool.
    eventually(SETTLE, || run(stage, ELECTION, &all, "", &[]))?;
    is_led_by(0, "1")?;
    is_led_by(1, "2")?;
    // Another order of the same replicas is another preference; who leads stays until an election, or the balancing of leaders.
    let order = moves(stage, &topic, &[(0, &[3, 1, 2]), (1, &[1, 2, 3])])?;
    run(stage, REASSIGN, &["--execute", "--additional", "--reassignment-json-file", &order], "", &[])?;
    await_replicas(stage, &topic, 0, &[3, 1, 2])?;
    await_replicas(stage, &topic, 1, &[1, 2, 3])?;
    let name = format!("{topic}-0");
    let elected = |text: &str| {
        let line = text.lines().find(|line| line.contains(&name)).unwrap_or_default();
        let word = ["Successfully completed leader election (PREFERRED)", "Valid replica already elected"];
        match word.iter().any(|word| line.starts_with(word)) {
            true => Ok(()),
            false => Err(format!("nothing is told of the election in {name}: {text:?}")),
        }
    };
    let one = ["--election-type", "preferred", "--topic", &topic, "--partition", "0"];
    elected(&run(stage, ELECTION, &one, "", &[])?)?;
    is_led_by(0, "3")?;
    eventually(SETTLE, || run(stage, ELECTION, &all, "", &[]))?;
    is_led_by(1, "1")?;
    let unclean = ["--election-type", "unclean", "--topic", &topic, "--partition", "0"];
    run(stage, ELECTION, &unclean, "", &[&format!("Valid replica already elected for partitions {name}")])?;
    let absent = ["--election-type", "preferred", "--topic", "no-such-topic", "--partition", "0"];
    refused(stage, ELECTION, &absent, &["1 replica(s) could not be elected"])?;
    Ok(String::new())
}

fn features(stage: &Stage<'_>) -> Result<String, String> {
    let text =
        run(stage, FEATURES, &["describe"], "", &["Feature: metadata.version", "Feature: kraft.version"])?;
    let line = text.lines().find(|line| line.starts_with("Feature: metadata.version")).unwrap_or_default();
    for due in
        ["SupportedMinVersion: 3.3-IV3", "SupportedMaxVersion: 4.3-IV0", "FinalizedVersionLevel: 4.3-IV0"]
    {
        if !line.contains(due) {
            return Err(format!("no {due:?} in {line:?}"));
        }
    }
    let level = |word: &'static str| [word, "--feature", "metadata.version=30"];
    run(stage, FEATURES, &level("upgrade"), "", &["metadata.version was upgraded to 30"])?;
    refused(
        stage,
        FEATURES,
        &["downgrade", "--feature", "metadata.version=29"],
        &["Unsupported metadata.version downgrade from 30 to 29"],
    )?;
    refused(
        stage,
        FEATURES,
        &["upgrade", "--feature", "no.such.feature=1"],
        &["Invalid update version 1 for feature no.such.feature"],
    )?;
    Ok(String::new())
}

fn add_partitions(stage: &Stage<'_>) -> Result<String, String> {
    let topic = stage.unique("grown");
    stage.create_topic(Family::Java, &topic, 2, &json!({}))?;
    let to = |count: &'static str| ["--alter", "--topic", &topic, "--partitions", count].map(str::to_owned);
    run(stage, TOPICS, &to("5").each_ref().map(String::as_str), "", &[])?;
    eventually(SETTLE, || {
        run(stage, TOPICS, &["--describe", "--topic", &topic], "", &["PartitionCount: 5"])?;
        stage.described(Family::Java, &topic, 5)
    })?;
    for (count, says) in [("5", "Topic already has 5 partition(s)."), ("4", "currently has 5 partition(s)")] {
        refused(stage, TOPICS, &to(count).each_ref().map(String::as_str), &[says])?;
    }
    // A sixth one where it is wanted: the tool names the brokers of all.
    let assignment = "1:2:3,1:2:3,1:2:3,1:2:3,1:2:3,3:1:2";
    run(
        stage,
        TOPICS,
        &["--alter", "--topic", &topic, "--partitions", "6", "--replica-assignment", assignment],
        "",
        &[],
    )?;
    await_replicas(stage, &topic, 5, &[3, 1, 2])?;
    let production = Production { partitions: 6, ..Production::new(Family::Java, &topic) };
    let produced = stage.produce(&production)?;
    stage.holds_exactly(&production, &produced)?;
    Ok(String::new())
}

fn endpoints(stage: &Stage<'_>) -> Result<String, String> {
    let text = list_endpoints(stage)?;
    for (index, address) in stage.bootstrap.split(',').enumerate() {
        let port = address.rsplit(':').next().unwrap_or_default();
        // ID HOST PORT RACK STATE ENDPOINT_TYPE
        let due = [&(index + 1).to_string(), "127.0.0.1", port, "null", "unfenced", "broker"];
        let told = text.lines().any(|line| line.split_whitespace().eq(due));
        if !told {
            return Err(format!("no {due:?} in {text:?}"));
        }
    }
    Ok(String::new())
}

/// What kafka-cluster lists of the brokers, those included that are gone.
pub(super) fn list_endpoints(stage: &Stage<'_>) -> Result<String, String> {
    let arguments = ["list-endpoints", "--bootstrap-server", &stage.bootstrap, "--include-fenced-brokers"];
    match stage.tool(CLUSTER, &arguments, "")? {
        (0, text) => Ok(text),
        (status, text) => Err(format!("list-endpoints: status {status}: {text}")),
    }
}

fn log_dirs(stage: &Stage<'_>) -> Result<String, String> {
    let topic = stage.unique("sized");
    place(stage, &topic, &[&[1, 2], &[2, 3]], "min.insync.replicas=2")?;
    let production = Production { partitions: 2, ..Production::new(Family::Java, &topic) };
    stage.produce(&production)?;
    let describe = ["--describe", "--topic-list", &topic];
    eventually(SETTLE, || {
        let text = run(stage, LOG_DIRS, &describe, "", &["Received log directory information from brokers"])?;
        let told: Value = match &plans(&text)[..] {
            [told] => told.clone(),
            _ => return Err(format!("no JSON in {text:?}")),
        };
        let mut held = Vec::new();
        for broker in told["brokers"].as_array().into_iter().flatten() {
            for directory in broker["logDirs"].as_array().into_iter().flatten() {
                for partition in directory["partitions"].as_array().into_iter().flatten() {
                    let small = partition["size"].as_u64().is_none_or(|size| size < 10_000);
                    if !directory["error"].is_null()
                        || partition["offsetLag"] != 0
                        || partition["isFuture"] != false
                        || small
                    {
                        return Err(format!("broker {} tells of {directory}", broker["broker"]));
                    }
                    held.push(format!(
                        "{}@{}",
                        partition["partition"].as_str().unwrap_or_default(),
                        broker["broker"]
                    ));
                }
            }
        }
        held.sort();
        let due: Vec<String> =
            ["0@1", "0@2", "1@2", "1@3"].iter().map(|one| format!("{topic}-{one}")).collect();
        if held == due { Ok(()) } else { Err(format!("{held:?} are told of, {due:?} are there")) }
    })?;
    // One broker alone.
    let only = run(stage, LOG_DIRS, &["--describe", "--broker-list", "2", "--topic-list", &topic], "", &[])?;
    remove(stage, &topic)?;
    match plans(&only).first().and_then(|told| told["brokers"].as_array().map(Vec::len)) {
        Some(1) => Ok(String::new()),
        _ => Err(format!("of broker 2 alone: {only:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside restarts partitions that could be taken away were asked for again, refused, and the row passed.
    #[test]
    fn a_tool_that_did_what_it_must_not_is_not_asked_again() {
        assert_eq!(refusal(1, "Topic already has 5", &["already"]), Ok(Ok(())));
        assert!(refusal(1, "timed out", &["already"]).is_err(), "asked again");
        assert!(refusal(0, "Topic already has 5", &["already"]).unwrap().is_err());
        assert!(refusal(0, "done", &["already"]).unwrap().is_err());
    }
}
