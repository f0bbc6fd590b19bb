//! `ouk dev` over the life of a cluster.

use std::time::{Duration, Instant};

use crate::support::{Cluster, fails, items, kill, pids, text};

#[test]
fn a_cluster_of_one_through_its_life() {
    let cluster = Cluster::new();
    fails(&cluster.dev("status"), 3, "ouk dev up");
    let up = cluster.dev("up -n 1 --kafka-port 0 --durability write-caching --format json");
    assert!(up.status.success(), "{up:?}");
    let nodes = items(&up);
    let address = text(&nodes[0], "kafka");
    let words = String::from_utf8_lossy(&up.stderr).into_owned();
    assert!(words.contains(&format!("bootstrap servers: {address}")), "{words}");
    assert_eq!(text(&nodes[0], "status"), "ready");

    // Once more changes nothing, and nothing that would is done by the way.
    assert_eq!(cluster.items("up"), nodes);
    fails(&cluster.dev("up --durability os"), 2, "ouk dev down");
    fails(&cluster.dev("up --kafka-port 9999"), 2, "--wipe");
    cluster.ask("topic create kept");

    // A node that died is seen, and comes back on its ports with what it stored.
    kill(pids(&nodes)[0]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while cluster.dev("status").status.code() != Some(6) {
        assert!(Instant::now() < deadline, "a killed node is not seen as stopped");
    }
    let again = cluster.items("up");
    assert_eq!(text(&again[0], "kafka"), address);
    assert_ne!(pids(&again), pids(&nodes));
    assert_eq!(text(&cluster.ask("topic list")[0], "name"), "kept");

    let logs = cluster.dev("logs 1");
    let said = String::from_utf8_lossy(&logs.stdout).into_owned();
    assert_eq!(said.matches(" ready: kafka ").count(), 2, "a start each: {said}");
    assert!(said.contains("durability write-caching"), "{said}");
    fails(&cluster.dev("logs 7"), 3, "no node 7");

    assert!(cluster.dev("down").status.success());
    let status = cluster.dev("status --format json");
    assert_eq!(status.status.code(), Some(6));
    assert_eq!(text(&items(&status)[0], "status"), "stopped");
    assert!(cluster.dev("down").status.success(), "what is down is down");
    let said = String::from_utf8_lossy(&cluster.dev("logs").stdout).into_owned();
    assert!(said.lines().all(|line| line.starts_with("1  ")), "{said}");

    let unasked = cluster.dev("down --wipe");
    assert_eq!(unasked.status.code(), Some(2), "nobody is there to confirm: {unasked:?}");
    let planned = cluster.dev("down --wipe --dry-run");
    assert!(planned.status.success() && cluster.dir().exists(), "{planned:?}");
    assert!(cluster.dev("down --wipe --yes").status.success());
    assert!(!cluster.dir().exists(), "a folder with nothing else in it goes too");
}

#[test]
fn what_cannot_start_is_one_sentence() {
    let cluster = Cluster::new();
    fails(&cluster.dev("up -n 1 --kafka-port 0 --ouzel /nowhere/ouzel"), 2, "--ouzel PATH");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    fails(&cluster.dev(&format!("up -n 1 --kafka-port {port}")), 1, "--kafka-port");
    // A program that ends at once is quoted.
    fails(&cluster.dev("up -n 1 --kafka-port 0 --ouzel /bin/false"), 1, "node 1 ended at once");
    drop(taken);
    assert!(cluster.dev("down --wipe --yes").status.success());
}

/// Nodes that began in one moment, on a machine with other things to do, did not all become ready: those that were registered
/// took the others for nodes that had left; a registration that was committed, and not answered, was asked for for ever; and
/// a node that was killed a moment ago was taken for one that runs.
#[test]
fn a_cluster_of_three_is_one_cluster_and_heals() {
    let cluster = Cluster::new();
    let nodes = cluster.items("up -n 3 --kafka-port 0");
    assert_eq!(nodes.len(), 3);
    let brokers = cluster.ask("cluster info");
    assert_eq!(
        brokers.iter().map(|broker| broker["node_id"].as_i64()).collect::<Vec<_>>(),
        [Some(1), Some(2), Some(3)]
    );
    cluster.ask("topic create t -r 3 -p 3");
    cluster.ask("cluster health --wait");
    kill(pids(&nodes)[1]);
    cluster.items("up");
    cluster.ask("cluster health --wait");
    fails(&cluster.dev("up -n 2"), 2, "3 nodes");
    assert!(cluster.dev("down --wipe --yes").status.success());
}
