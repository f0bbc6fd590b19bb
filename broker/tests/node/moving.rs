//! Four nodes in one process: a partition moves while it is written to, nothing is lost, and who is no replica any more
//! deletes what it had. A replica whose files are gone is filled anew.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ouzel_broker::{RunningNode, start};
use ouzel_model::NodeId;
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::kafka::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use ouzel_protocol::messages::kafka::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use ouzel_protocol::messages::kafka::elect_leaders_request::TopicPartitions;
use ouzel_protocol::messages::kafka::metadata_request::MetadataRequestTopic;
use ouzel_protocol::messages::kafka::{
    AlterPartitionReassignmentsRequest, BrokerId, CreateTopicsRequest, ElectLeadersRequest,
    ListPartitionReassignmentsRequest, MetadataRequest,
};

use crate::support::PATIENCE;
use crate::support::node::setup;
use crate::support::records::{sequenced, values};
use crate::support::wire::{Wire, name};

const TOPIC: &str = "flights";
/// Between two looks at what is awaited.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Founding nodes 1 to `n`, each with a directory of its own.
struct Cluster {
    dir: tempfile::TempDir,
    seeds: Vec<String>,
    running: BTreeMap<i32, RunningNode>,
}

/// As the cluster tells of the one partition.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    leader: i32,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
}

impl Cluster {
    fn start(count: i32) -> Cluster {
        // Held together, so that no two are the same.
        let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let seeds = held.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect();
        drop(held);
        let mut cluster = Cluster { dir: tempfile::tempdir().unwrap(), seeds, running: BTreeMap::new() };
        // They wait for each other.
        let starting: Vec<_> = (1..=count)
            .map(|id| {
                let (dir, seeds) = (cluster.dir_of(id), cluster.seeds.clone());
                (id, std::thread::spawn(move || start_node(id, &dir, seeds)))
            })
            .collect();
        for (id, starting) in starting {
            cluster.running.insert(id, starting.join().unwrap());
        }
        cluster
    }

    fn dir_of(&self, id: i32) -> PathBuf {
        self.dir.path().join(format!("n{id}"))
    }

    fn stop(&mut self, id: i32) {
        let node = self.running.remove(&id).unwrap();
        node.stop();
        node.join().unwrap();
    }

    fn start_again(&mut self, id: i32) {
        let node = start_node(id, &self.dir_of(id), self.seeds.clone());
        self.running.insert(id, node);
    }

    fn address(&self, id: i32) -> SocketAddr {
        self.running[&id].handle().kafka_address()
    }

    fn connect(&self, id: i32) -> Wire {
        Wire::connect(self.address(id))
    }

    /// What a node that runs tells of the partition.
    fn told(&self) -> Told {
        let any = *self.running.keys().next().unwrap();
        let asked = MetadataRequestTopic::default().with_name(Some(name(TOPIC)));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let topic = self.connect(any).call(12, request).topics.remove(0);
        let Some(partition) = topic.partitions.first() else {
            return Told { leader: -1, replicas: Vec::new(), in_sync: Vec::new() };
        };
        let list = |nodes: &[BrokerId]| nodes.iter().map(|node| node.0).collect();
        Told {
            leader: partition.leader_id.0,
            replicas: list(&partition.replica_nodes),
            in_sync: list(&partition.isr_nodes),
        }
    }

    fn await_that(&self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what} does not come: {:?}", self.told());
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn create(&self, replicas: &[i32]) {
        let replicas = replicas.iter().copied().map(BrokerId).collect();
        let assignment =
            CreatableReplicaAssignment::default().with_partition_index(0).with_broker_ids(replicas);
        let topic = CreatableTopic::default()
            .with_name(name(TOPIC))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(vec![assignment]);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let created = self.connect(1).call(7, request).topics.remove(0);
        assert_eq!(created.error_code, 0, "{:?}", created.error_message);
        self.await_that("a leader", |cluster| cluster.told().leader > 0);
    }

    /// Sends the partition elsewhere, or gives its move up; tells how that was answered.
    fn reassign(&self, replicas: Option<&[i32]>) -> ErrorCode {
        let replicas = replicas.map(|list| list.iter().copied().map(BrokerId).collect());
        let partition = ReassignablePartition::default().with_partition_index(0).with_replicas(replicas);
        let topic = ReassignableTopic::default().with_name(name(TOPIC)).with_partitions(vec![partition]);
        let request =
            AlterPartitionReassignmentsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
        let any = *self.running.keys().next().unwrap();
        let answer = self.connect(any).call(0, request);
        ErrorCode::from_code(answer.responses[0].partitions[0].error_code).unwrap()
    }

    fn is_moving(&self) -> bool {
        let any = *self.running.keys().next().unwrap();
        let request = ListPartitionReassignmentsRequest::default().with_topics(None).with_timeout_ms(10_000);
        !self.connect(any).call(0, request).topics.is_empty()
    }

    fn await_there(&self, replicas: &[i32]) {
        self.await_that("the end of a move", |cluster| {
            let told = cluster.told();
            told.replicas == replicas && replicas.contains(&told.leader) && !cluster.is_moving()
        });
    }

    /// Makes the first of the replicas lead.
    fn elect_preferred(&self) {
        let topic = TopicPartitions::default().with_topic(name(TOPIC)).with_partitions(vec![0]);
        let request = ElectLeadersRequest::default()
            .with_election_type(0)
            .with_timeout_ms(10_000)
            .with_topic_partitions(Some(vec![topic]));
        let any = *self.running.keys().next().unwrap();
        self.connect(any).call(2, request);
    }

    /// All values of the partition, as its leader gives them.
    fn values(&self) -> Vec<String> {
        let mut wire = self.connect(self.told().leader);
        let mut all: Vec<String> = Vec::new();
        loop {
            let fetched = wire.fetch(TOPIC, 0, all.len() as i64);
            let more = values(&fetched);
            if more.is_empty() && fetched.high_watermark <= all.len() as i64 {
                return all;
            }
            all.extend(more);
        }
    }

    fn has_files(&self, id: i32) -> bool {
        self.dir_of(id).join(format!("{TOPIC}-0")).exists()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.running.values() {
            node.stop();
        }
        for (_, node) in std::mem::take(&mut self.running) {
            let stopped = node.join();
            if !std::thread::panicking() {
                stopped.unwrap();
            }
        }
    }
}

fn start_node(id: i32, dir: &Path, seeds: Vec<String>) -> RunningNode {
    let mut setup = setup(dir, 2, &[]);
    setup.config.node_id = NodeId(id);
    setup.config.rpc_listener = seeds[id as usize - 1].clone();
    setup.config.seeds = seeds;
    start(setup, Box::new(|_, _| Box::pin(async {}))).unwrap()
}

/// One idempotent producer that repeats each batch until it is acknowledged, wherever the leader is; gives their number.
fn produce_until(
    addresses: &BTreeMap<i32, SocketAddr>,
    leader_of: impl Fn() -> i32,
    done: &AtomicBool,
) -> i32 {
    let mut count = 0;
    let mut wires: BTreeMap<i32, Wire> = BTreeMap::new();
    let mut leader = leader_of();
    while !done.load(Ordering::Acquire) {
        let batch = sequenced(7, 0, count, &[&format!("value {count}")]);
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "batch {count} is taken by nobody");
            let Some(address) = addresses.get(&leader) else {
                leader = leader_of();
                continue;
            };
            let wire = wires.entry(leader).or_insert_with(|| Wire::connect(*address));
            let stored = wire.produce(TOPIC, 0, batch.clone());
            match ErrorCode::from_code(stored.error_code) {
                Some(ErrorCode::None) => {
                    assert_eq!(stored.base_offset, i64::from(count));
                    break;
                }
                Some(error) if error.is_retriable() => {
                    std::thread::sleep(LOOK_INTERVAL);
                    leader = leader_of();
                }
                other => panic!("batch {count}: {other:?}"),
            }
        }
        count += 1;
    }
    count
}

#[test]
fn a_partition_moves_while_it_is_written_to() {
    let cluster = Cluster::start(4);
    cluster.create(&[1, 2, 3]);
    let addresses: BTreeMap<i32, SocketAddr> = (1..=4).map(|id| (id, cluster.address(id))).collect();
    let done = AtomicBool::new(false);
    let count = std::thread::scope(|scope| {
        let producing = scope.spawn(|| produce_until(&addresses, || cluster.told().leader, &done));
        let moves = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // Its leader leaves; then all but one; then back where it was.
            for replicas in [[4, 2, 3], [1, 4, 2], [1, 2, 3]] {
                assert_eq!(cluster.reassign(Some(&replicas)), ErrorCode::None);
                cluster.await_there(&replicas);
                let gone = (1..=4).find(|id| !replicas.contains(id)).unwrap();
                cluster.await_that("that who left deletes what it had", |cluster| !cluster.has_files(gone));
            }
        }));
        done.store(true, Ordering::Release);
        let count = producing.join().unwrap();
        moves.map_or_else(|panic| std::panic::resume_unwind(panic), |()| count)
    });
    let expected: Vec<String> = (0..count).map(|at| format!("value {at}")).collect();
    assert_eq!(cluster.values(), expected);
    // Each of them has all of it.
    for leader in 1..=3 {
        let others = (1..=3).filter(|id| *id != leader);
        let order: Vec<i32> = std::iter::once(leader).chain(others).collect();
        cluster.reassign(Some(&order));
        cluster.await_that("the preferred leader", |cluster| {
            cluster.elect_preferred();
            cluster.told().leader == leader
        });
        assert_eq!(cluster.values(), expected, "from node {leader}");
    }
}

/// A move to a broker that is dead waits, and is given up; the partition was led all the time.
#[test]
fn a_move_that_cannot_be_is_given_up() {
    let mut cluster = Cluster::start(4);
    cluster.create(&[1, 2, 3]);
    cluster.connect(cluster.told().leader).store(TOPIC, 0, sequenced(7, 0, 0, &["first"]));
    cluster.stop(4);
    assert_eq!(cluster.reassign(Some(&[4, 2, 3])), ErrorCode::None);
    assert!(cluster.is_moving());
    cluster.connect(cluster.told().leader).store(TOPIC, 0, sequenced(7, 0, 1, &["second"]));
    assert_eq!(cluster.reassign(None), ErrorCode::None);
    cluster.await_there(&[2, 3, 1]);
    cluster.start_again(4);
    assert!(!cluster.has_files(4), "it was never a replica");
    assert_eq!(cluster.values(), ["first", "second"]);
}

/// Somebody deletes the files of a replica while its node is down. It does not come back as the one it was, with nothing:
/// it begins a new life, and is filled by the others.
#[test]
fn a_replica_whose_files_are_gone_is_filled_anew() {
    let mut cluster = Cluster::start(3);
    cluster.create(&[1, 2, 3]);
    let leader = cluster.told().leader;
    let expected: Vec<String> = (0..20).map(|at| format!("value {at}")).collect();
    for (sequence, value) in (0..).zip(&expected) {
        cluster.connect(leader).store(TOPIC, 0, sequenced(7, 0, sequence, &[value]));
    }
    let lost = (1..=3).find(|id| *id != leader).unwrap();
    cluster.stop(lost);
    std::fs::remove_dir_all(cluster.dir_of(lost).join(format!("{TOPIC}-0"))).unwrap();
    cluster.start_again(lost);
    cluster.await_that("its files", |cluster| cluster.has_files(lost));
    let others = (1..=3).filter(|id| *id != lost);
    let order: Vec<i32> = std::iter::once(lost).chain(others).collect();
    // It is listed first at once, and can lead once it votes.
    cluster.reassign(Some(&order));
    cluster.await_that("that it leads", |cluster| {
        cluster.elect_preferred();
        cluster.told().leader == lost
    });
    assert_eq!(cluster.values(), expected);
}
