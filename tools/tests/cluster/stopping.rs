//! A node that is told to stop hands over what it leads before it goes.

use std::process::Command;

use crate::support::{Cluster, pids, text};

/// Who leads each partition of a topic, as one of these nodes says.
fn leaders(cluster: &Cluster, addresses: &[String], topic: &str) -> Vec<Option<i64>> {
    let partitions = cluster.ask_at(addresses, &format!("topic describe {topic}"));
    partitions.iter().map(|partition| partition["leader"].as_i64()).collect()
}

#[test]
fn what_a_stopped_node_led_others_lead() {
    let cluster = Cluster::new();
    let nodes = cluster.items("up -n 3 --kafka-port 0 --durability write-caching");
    cluster.ask("topic create t -r 3 -p 12");
    cluster.ask("cluster health --wait");
    let mut addresses: Vec<String> = nodes.iter().map(|node| text(node, "kafka")).collect();
    let before = leaders(&cluster, &addresses, "t");
    assert_eq!(before.len(), 12);
    let stopped = before[0].expect("it has a leader");
    let led = before.iter().filter(|leader| **leader == Some(stopped)).count();
    assert!(led >= 2, "{before:?}");

    let at = usize::try_from(stopped).expect("a node") - 1;
    let pid = pids(&nodes)[at].to_string();
    addresses.remove(at);
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    // It says so when it is done, and that is when the others lead.
    let logs = || String::from_utf8_lossy(&cluster.dev(&format!("logs {stopped}")).stdout).into_owned();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !logs().contains("stopped in order") {
        assert!(std::time::Instant::now() < deadline, "{}", logs());
    }
    let said = logs();
    let handed_over = said.find(" handed_over=").expect("it says how much");
    // On a machine that stalls for seconds not all of it may be taken in time.
    assert!(!said.contains(" handed_over=0 "), "{said}");
    assert!(handed_over < said.find("no new connections").expect("it drains"), "{said}");
    loop {
        let after = leaders(&cluster, &addresses, "t");
        if after.iter().all(|leader| leader.is_some_and(|leader| leader != stopped)) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{after:?}");
    }
}
