//! What a node says and answers while it serves.

use std::process::Command;

use crate::broker::{Broker, bare, command, get, run};

#[test]
fn the_ready_line_names_everything_and_the_endpoints_answer() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["--node-id", "7", "--set", "ouzel.disk.backend=blocking"]);
    let (kafka, admin) = (broker.kafka_address(), broker.admin_address());
    for address in [&kafka, &admin] {
        let port: u16 = address.strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
        assert_ne!(port, 0);
    }
    assert_eq!(
        broker.ready_line,
        format!(
            "ouzel {} ready: kafka {kafka}, admin http://{admin}, data {}, node 7, cores 1, disk blocking, durability durable",
            env!("CARGO_PKG_VERSION"),
            dir.path().join("data").display(),
        )
    );
    assert_eq!(broker.get("/livez"), (200, "alive\n".to_owned()));
    assert_eq!(broker.get("/readyz"), (200, "ready\n".to_owned()));

    let (status, metrics) = broker.get("/metrics");
    assert_eq!(status, 200);
    for line in [
        &format!("ouzel_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        "ouzel_disk_backend_info{backend=\"blocking\"} 1",
        "ouzel_ready 1",
        "ouzel_cores 1",
        "ouzel_partitions_fenced 0",
    ] {
        assert!(metrics.lines().any(|shown| shown == line), "{line} is missing:\n{metrics}");
    }

    let (status, node) = broker.get("/v1/node");
    let node: serde_json::Value = serde_json::from_str(&node).unwrap();
    assert_eq!((status, &node["node_id"], &node["kafka_address"]), (200, &7.into(), &kafka.into()));
    assert!(node["cluster_id"].as_str().is_some_and(|id| id.len() == 22), "{node}");

    assert_eq!(broker.get("/v1/health"), (200, "{\"faults\":[],\"status\":\"ok\"}\n".to_owned()));
    assert_eq!(broker.get("/v1/nothing").0, 404);
    let ended = broker.stop();
    assert_eq!(ended.stdout, "", "stdout holds the ready line alone");
}

/// The recovery is held up by a file that has no end: a pipe nobody writes to.
#[test]
fn while_it_recovers_a_node_lives_but_is_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let pipe = dir.path().join("data/meta.properties");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut broker = Broker::launch(command(dir.path(), &["--set", "ouzel.disk.backend=blocking"]));
    let line = broker.await_log("the admin HTTP listens");
    let admin = line.rsplit_once("http://").unwrap().1.to_owned();
    assert_eq!(get(&admin, "/livez").0, 200);
    for path in ["/readyz", "/metrics", "/v1/health"] {
        assert_eq!(get(&admin, path).0, 503, "{path}");
    }
    let (status, node) = get(&admin, "/v1/node");
    assert!(status == 200 && node.contains("\"ready\":false"), "{node}");
    // Nobody was served: there is nothing to drain.
    broker.signal("-TERM");
    let ended = broker.ended();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(143), ""), "{}", ended.stderr);
}

#[test]
fn a_node_is_the_same_one_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let cluster_id = |broker: &Broker| {
        let node: serde_json::Value = serde_json::from_str(&broker.get("/v1/node").1).unwrap();
        node["cluster_id"].as_str().unwrap().to_owned()
    };
    let broker = Broker::start(dir.path(), &[]);
    let before = cluster_id(&broker);
    broker.stop();
    let broker = Broker::start(dir.path(), &[]);
    assert_eq!(cluster_id(&broker), before);
    broker.stop();
}

#[test]
fn a_log_in_json_is_one_object_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &["--set", "ouzel.log.format=json", "--set", "num.io.threads=4"]);
    let ended = broker.stop();
    let lines: Vec<serde_json::Value> = ended
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let told = lines.iter().filter_map(|line| line["message"].as_str());
    let no_effect: Vec<&str> = told.filter(|message| message.contains("num.io.threads")).collect();
    assert!(
        matches!(no_effect[..], [message] if message.starts_with("the setting num.io.threads has no effect: ")),
        "said once: {no_effect:?}"
    );
}

#[test]
fn help_and_version_go_to_stdout() {
    let help = run(bare(&["--help"]));
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    assert!(help.stdout.contains("--kafka-listener <HOST:PORT>"), "{}", help.stdout);
    let version = run(bare(&["--version"]));
    assert_eq!(
        (version.code, version.stdout.as_str()),
        (Some(0), concat!("ouzel ", env!("CARGO_PKG_VERSION")))
    );
}
