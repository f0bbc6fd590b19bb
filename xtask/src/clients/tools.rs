//! Kafka's own command line tools, each as its users run it, inside one Java driver.

use std::time::Duration;

use serde_json::json;

use super::families::Family;
use super::scenario::Scenario;
use super::stage::{Production, Stage, eventually};

pub(super) const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
pub(super) const CONSOLE_PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
pub(super) const CONSOLE_CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const API_VERSIONS: &str = "org.apache.kafka.tools.BrokerApiVersionsCommand";
pub(super) const CLUSTER: &str = "org.apache.kafka.tools.ClusterTool";

pub(super) fn scenarios() -> Vec<Scenario> {
    let tool = |name: &str, play: fn(&Stage<'_>) -> Result<String, String>| {
        Scenario::new(name, &[Family::Java], play)
    };
    vec![
        tool("tools: kafka-topics creates, lists, describes and deletes", topics),
        tool("tools: kafka-configs sets, shows and removes", configs).bearing_restarts(),
        tool("tools: console producer and consumer", console).quick(),
        tool("tools: kafka-get-offsets", get_offsets).bearing_restarts(),
        tool("tools: kafka-consumer-groups lists, describes, resets and deletes", groups),
        tool("tools: kafka-broker-api-versions", api_versions).quick().bearing_restarts(),
        tool("tools: kafka-cluster cluster-id", cluster_id).bearing_restarts(),
    ]
}

/// Runs a tool against the stage's broker; it must end well and say all of `says`.
pub(super) fn run(
    stage: &Stage<'_>,
    class: &str,
    arguments: &[&str],
    stdin: &str,
    says: &[&str],
) -> Result<String, String> {
    let arguments = [&["--bootstrap-server", &stage.bootstrap], arguments].concat();
    let short = class.rsplit('.').next().unwrap_or(class);
    stage.again(|| {
        let (status, text) = stage.tool(class, &arguments, stdin)?;
        if status != 0 {
            return Err(format!("{short} {}: status {status}: {text}", arguments.join(" ")));
        }
        match says.iter().find(|due| !text.contains(**due)) {
            None => Ok(text),
            Some(due) => Err(format!("{short} {}: no {due:?} in {text:?}", arguments.join(" "))),
        }
    })
}

const VISIBLE_WITHIN: Duration = Duration::from_secs(15);

fn topics(stage: &Stage<'_>) -> Result<String, String> {
    let topic = stage.unique("tool");
    let create = ["--create", "--topic", &topic, "--partitions", "3", "--config", "retention.bytes=1234567"];
    run(stage, TOPICS, &create, "", &[&format!("Created topic {topic}.")])?;
    let describe = ["--describe", "--topic", &topic];
    let replicas = format!("ReplicationFactor: {}", stage.replicas());
    let says = ["PartitionCount: 3", &replicas, "retention.bytes=1234567", "TopicId: ", "Isr: "];
    eventually(VISIBLE_WITHIN, || run(stage, TOPICS, &describe, "", &says))?;
    run(stage, TOPICS, &["--list"], "", &[&topic])?;
    run(stage, TOPICS, &["--delete", "--topic", &topic], "", &[])?;
    eventually(VISIBLE_WITHIN, || {
        let list = run(stage, TOPICS, &["--list"], "", &[])?;
        match list.lines().any(|line| line == topic) {
            true => Err("a deleted topic is still listed".to_owned()),
            false => Ok(String::new()),
        }
    })
}

fn configs(stage: &Stage<'_>) -> Result<String, String> {
    let topic = stage.unique("tool");
    stage.create_topic(Family::Java, &topic, 1, &json!({}))?;
    let on = ["--entity-type", "topics", "--entity-name", &topic];
    let with = |words: &[&'static str]| [words, &on[..]].concat();
    run(
        stage,
        CONFIGS,
        &with(&["--alter", "--add-config", "retention.ms=3600000,cleanup.policy=compact"]),
        "",
        &["Completed"],
    )?;
    eventually(stage.visible_within(), || {
        let says =
            ["retention.ms=3600000", "cleanup.policy=compact", "DYNAMIC_TOPIC_CONFIG", "DEFAULT_CONFIG:"];
        run(stage, CONFIGS, &with(&["--describe"]), "", &says)
    })?;
    run(stage, CONFIGS, &with(&["--alter", "--delete-config", "retention.ms"]), "", &["Completed"])?;
    eventually(stage.visible_within(), || {
        let text = run(stage, CONFIGS, &with(&["--describe"]), "", &["cleanup.policy=compact"])?;
        if text.contains("retention.ms=3600000") {
            Err("a removed key is still shown".to_owned())
        } else {
            Ok(())
        }
    })?;
    run(
        stage,
        CONFIGS,
        &with(&["--describe", "--all"]),
        "",
        &["retention.ms=604800000", &format!("min.insync.replicas={}", stage.in_sync_min())],
    )?;
    Ok(String::new())
}

fn console(stage: &Stage<'_>) -> Result<String, String> {
    let topic = stage.unique("tool");
    stage.create_topic(Family::Java, &topic, 1, &json!({}))?;
    let produce =
        ["--topic", &topic, "--reader-property", "parse.key=true", "--reader-property", "key.separator=:"];
    run(stage, CONSOLE_PRODUCER, &produce, "a:first\nb:second\nc:third\n", &[])?;
    let consume = [
        "--topic",
        &topic,
        "--from-beginning",
        "--max-messages",
        "3",
        "--timeout-ms",
        "30000",
        "--formatter-property",
        "print.key=true",
        "--formatter-property",
        "print.offset=true",
    ];
    let text = run(stage, CONSOLE_CONSUMER, &consume, "", &[])?;
    match ["Offset:0\ta\tfirst", "Offset:1\tb\tsecond", "Offset:2\tc\tthird"]
        .iter()
        .find(|due| !text.contains(**due))
    {
        None => Ok(String::new()),
        Some(due) => Err(format!("no {due:?} in {text:?}")),
    }
}

fn get_offsets(stage: &Stage<'_>) -> Result<String, String> {
    let topic = stage.unique("tool");
    stage.create_topic(Family::Java, &topic, 3, &json!({}))?;
    let production = Production { count: 91, ..Production::new(Family::Java, &topic) };
    stage.produce(&production)?;
    let at = |time: &str| [topic.as_str(), time].map(str::to_owned);
    let show = |time: &str, says: &[&str]| {
        let [topic, time] = at(time);
        run(stage, OFFSETS, &["--topic", &topic, "--time", &time], "", says)
    };
    let line = |partition: u64, offset: u64| format!("{topic}:{partition}:{offset}");
    let ends = [line(0, 31), line(1, 30), line(2, 30)];
    show("latest", &ends.each_ref().map(String::as_str))?;
    let starts = [line(0, 0), line(1, 0), line(2, 0)];
    show("earliest", &starts.each_ref().map(String::as_str))?;
    // The last record of each partition has its largest timestamp.
    let largest = [line(0, 30), line(1, 29), line(2, 29)];
    show("max-timestamp", &largest.each_ref().map(String::as_str))?;
    let middle = (production.timestamp_ms + 45).to_string();
    let middles = [line(0, 15), line(1, 15), line(2, 15)];
    show(&middle, &middles.each_ref().map(String::as_str))
}

fn groups(stage: &Stage<'_>) -> Result<String, String> {
    let topic = stage.unique("tool");
    let group = stage.unique("tool");
    stage.create_topic(Family::Java, &topic, 2, &json!({}))?;
    let production = Production { count: 40, partitions: 2, ..Production::new(Family::Java, &topic) };
    stage.produce(&production)?;
    let commit = json!({
        "cmd": "commit", "bootstrap": stage.bootstrap, "group": group, "topic": topic,
        "offsets": {"0": [5, "five"], "1": [20, ""]},
    });
    stage.call(Family::Java, &commit)?;
    run(stage, GROUPS, &["--list"], "", &[&group])?;
    let places = |zero: i64, one: i64| {
        let text = run(stage, GROUPS, &["--describe", "--group", &group], "", &[])?;
        // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG ...
        for (partition, at) in [("0", zero), ("1", one)] {
            let due = [&group, &topic, partition, &at.to_string(), "20", &(20 - at).to_string()].join(" ");
            let shown = text
                .lines()
                .any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(&due));
            if !shown {
                return Err(format!("no {due:?} in {text:?}"));
            }
        }
        Ok(())
    };
    places(5, 20)?;
    let on = ["--group", &group, "--topic", &topic, "--execute"];
    run(stage, GROUPS, &[&["--reset-offsets", "--to-earliest"], &on[..]].concat(), "", &[])?;
    places(0, 0)?;
    run(stage, GROUPS, &[&["--reset-offsets", "--to-latest"], &on[..]].concat(), "", &[])?;
    places(20, 20)?;
    run(stage, GROUPS, &[&["--reset-offsets", "--shift-by", "-3"], &on[..]].concat(), "", &[])?;
    places(17, 17)?;
    run(stage, GROUPS, &["--describe", "--group", &group, "--state"], "", &["Empty"])?;
    run(stage, GROUPS, &["--delete-offsets", "--group", &group, "--topic", &topic], "", &["Successful"])?;
    run(stage, GROUPS, &["--delete", "--group", &group], "", &["successful"])?;
    let list = run(stage, GROUPS, &["--list"], "", &[])?;
    match list.lines().any(|line| line == group) {
        true => Err("a deleted group is still listed".to_owned()),
        false => Ok(String::new()),
    }
}

fn api_versions(stage: &Stage<'_>) -> Result<String, String> {
    // Every range must overlap with what the tool itself speaks, else it says so.
    let text = run(
        stage,
        API_VERSIONS,
        &[],
        "",
        &["Produce(0): 0 to 13 [usable: 13]", "Fetch(1): 4 to 18 [usable: 18]"],
    )?;
    Ok(format!("{} APIs", text.lines().filter(|line| line.contains("[usable:")).count()))
}

fn cluster_id(stage: &Stage<'_>) -> Result<String, String> {
    let arguments = ["cluster-id", "--bootstrap-server", &stage.bootstrap];
    stage.again(|| {
        let (status, text) = stage.tool(CLUSTER, &arguments, "")?;
        // Warnings of the client may stand before it.
        let id = text.lines().find_map(|line| line.strip_prefix("Cluster ID: ")).unwrap_or("").trim();
        match status == 0 && id.len() == 22 {
            true => Ok(id.to_owned()),
            false => Err(format!("status {status}: {text:?} holds no id of 22 characters")),
        }
    })
}
