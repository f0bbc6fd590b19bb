//! Nodes that come to a cluster later, and those that leave it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Cluster, kill, pids, text};

const PATIENCE: Duration = Duration::from_secs(60);

/// Who votes for the controller's log, and who follows without a vote.
fn quorum(cluster: &Cluster) -> (Vec<i64>, Vec<i64>) {
    let (observers, voters): (Vec<Value>, Vec<Value>) =
        cluster.ask("quorum").into_iter().partition(|node| text(node, "role") == "observer");
    let ids = |nodes: &[Value]| {
        let mut ids: Vec<i64> = nodes.iter().map(|node| node["node_id"].as_i64().expect("an id")).collect();
        ids.sort_unstable();
        ids
    };
    (ids(&voters), ids(&observers))
}

fn await_quorum(cluster: &Cluster, voters: &[i64], observers: &[i64]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = quorum(cluster);
        if found == (voters.to_vec(), observers.to_vec()) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "wanted voters {voters:?}, observers {observers:?}, found {found:?}"
        );
    }
}

/// A fourth node follows the controller, and holds replicas. A founder whose disk was wiped founds nothing: it comes back
/// to the same cluster as somebody new, and votes again. A fifth makes the voters five.
#[test]
fn later_nodes_and_a_wiped_founder_join() {
    let cluster = Cluster::new();
    cluster.items("up -n 3 --kafka-port 0");
    await_quorum(&cluster, &[1, 2, 3], &[]);
    let before = text(&cluster.ask("cluster info")[0], "cluster_id");
    let nodes = cluster.items("up -n 4");
    await_quorum(&cluster, &[1, 2, 3], &[4]);
    cluster.ask("topic create everywhere -r 4 -p 2");
    cluster.ask("cluster health --wait");

    kill(pids(&nodes)[0]);
    std::fs::remove_dir_all(cluster.dir().join("node-1")).expect("its disk is wiped");
    cluster.items("up");
    await_quorum(&cluster, &[1, 2, 3], &[4]);
    assert_eq!(text(&cluster.ask("cluster info")[0], "cluster_id"), before);
    // It has its replicas again, filled by the others.
    cluster.ask("cluster health --wait");

    cluster.items("up -n 5");
    await_quorum(&cluster, &[1, 2, 3, 4, 5], &[]);
    assert!(cluster.dev("down --wipe --yes").status.success());
}
