//! Nodes that come to a cluster later, and those that leave it.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Cluster, items, kill, ouk, pids, text};

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

/// A node started by hand; it ends with the test.
struct Node {
    child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The addresses of a node, which it keeps over its restarts.
#[derive(Clone)]
struct Place {
    id: i32,
    kafka: String,
    rpc: String,
    dir: std::path::PathBuf,
}

impl Place {
    fn new(id: i32, dir: &Path) -> Place {
        let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [kafka, rpc] = held.each_ref().map(|port| port.local_addr().expect("its address").to_string());
        Place { id, kafka, rpc, dir: dir.join(format!("node-{id}")) }
    }

    fn command(&self, seeds: &str) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_ouk")).with_file_name("ouzel"));
        command.env_clear().arg("--node-id").arg(self.id.to_string()).arg("--data-dir").arg(&self.dir);
        command.args(["--kafka-listener", &self.kafka, "--rpc-listener", &self.rpc]);
        command.args(["--admin-listener", "127.0.0.1:0", "--cores", "2"]);
        command.args(["--set", "offsets.topic.num.partitions=4"]);
        if !seeds.is_empty() {
            command.args(["--seeds", seeds]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts it.
    fn begin(&self, seeds: &str) -> Node {
        let mut command = self.command(seeds);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("ouzel starts");
        Node { child }
    }

    fn await_serving(&self) {
        let deadline = Instant::now() + PATIENCE;
        while ask(&self.kafka, "cluster info").is_none() {
            assert!(Instant::now() < deadline, "node {} does not serve", self.id);
        }
    }

    /// Starts it, and waits until it answers.
    fn start(&self, seeds: &str) -> Node {
        let node = self.begin(seeds);
        self.await_serving();
        node
    }

    /// It does not start, and says why.
    fn refused(&self, seeds: &str) -> String {
        let output = self.command(seeds).output().expect("ouzel starts");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// Ends a node in order.
fn stop(mut node: Node) {
    let pid = node.child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().expect("kill").success());
    assert!(node.child.wait().expect("it ends").success());
}

fn ask(brokers: &str, line: &str) -> Option<Vec<Value>> {
    let mut command = ouk();
    let output = command.args(line.split(' ')).args(["--brokers", brokers, "--format", "json"]).output();
    let output = output.expect("ouk starts");
    output.status.success().then(|| items(&output))
}

/// Writes numbered records, and gives those that are acknowledged.
fn produce(brokers: &str, numbers: std::ops::Range<u32>) -> Vec<u32> {
    let mut command = ouk();
    command.args(["topic", "produce", "t", "--brokers", brokers]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("ouk starts");
    let mut input = child.stdin.take().expect("it is piped");
    for number in numbers.clone() {
        writeln!(input, "{number}").expect("it reads");
    }
    drop(input);
    if child.wait().expect("it ends").success() { numbers.collect() } else { Vec::new() }
}

/// A node that was alone, with records in it, is started with itself as its seed, two others join it, and its partitions get
/// replicas on all three while records come in: none is lost. What was one replica goes on as a group of three.
#[test]
fn one_node_grows_to_three_under_load() {
    let dir = tempfile::tempdir().expect("a folder");
    let [one, two, three] = [1, 2, 3].map(|id| Place::new(id, dir.path()));
    let first = one.start("");
    ask(&one.kafka, "topic create t -p 3 -r 1").expect("it is alone and serves");
    let mut acknowledged = produce(&one.kafka, 0..500);
    stop(first);

    // What cannot be meant is said to be so, and changes nothing.
    let words = one.refused(&two.rpc);
    assert!(words.contains("stands first in its --seeds"), "{words}");
    let elsewhere = two.start(&two.rpc);
    let words = one.refused(&format!("{},{}", one.rpc, two.rpc));
    assert!(words.contains("belongs to cluster"), "{words}");
    drop(elsewhere);
    std::fs::remove_dir_all(&two.dir).expect("it was a mistake");

    let first = one.start(&one.rpc);
    let others = [two.start(&one.rpc), three.start(&one.rpc)];
    let brokers = [&one.kafka, &two.kafka, &three.kafka].map(String::as_str).join(",");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut acknowledged = Vec::new();
            let mut next = 500;
            while !is_over.load(Ordering::Relaxed) {
                acknowledged.extend(produce(&brokers, next..next + 100));
                next += 100;
            }
            acknowledged
        });
        let moves = "partition reassign --yes --wait t:0=1,2,3 t:1=2,3,1 t:2=3,1,2";
        assert!(ask(&brokers, moves).is_some(), "the moves come to their end");
        is_over.store(true, Ordering::Relaxed);
        acknowledged.extend(load.join().expect("no panic"));
    });

    // The node they were on alone, and the only one the others were told of, is gone for good; and those others are killed
    // and started again. They find each other by what their logs say, though nobody may know how much of it is committed.
    drop((first, others));
    let _others = [two.begin(&one.rpc), three.begin(&one.rpc)];
    two.await_serving();
    three.await_serving();
    let two_left = [&two.kafka, &three.kafka].map(String::as_str).join(",");
    acknowledged.extend(produce(&two_left, 1_000_000..1_000_100));
    assert!(acknowledged.contains(&1_000_000), "the others lead");
    let mut command = ouk();
    command.args(["topic", "consume", "t", "--brokers", &two_left, "-o", ":end", "-f", "%v\n"]);
    let output = command.output().expect("ouk starts");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let read = said.lines().map(|line| line.parse().expect("a number"));
    let read: BTreeSet<u32> = read.collect();
    let lost: Vec<&u32> = acknowledged.iter().filter(|number| !read.contains(number)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
}
