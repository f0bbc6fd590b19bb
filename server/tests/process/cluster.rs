//! Several nodes, each a process of its own, that are one cluster; and a client that asks them.
//!
//! Nodes must know each other's ports before any of them runs. A free port that was looked up and let go can be taken by
//! another test in between, so a cluster here has an address of its own in 127.0.0.0/8: a guard that listens at one port of
//! that address for the cluster's life keeps every other cluster, of this process and of others, away from all of it. The
//! ports lie below those that the system gives to who asks for any.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ouzel_client::metadata::Metadata;
use ouzel_client::{
    Client, ClientConfig, ClientError, Consumer, ConsumerConfig, Election, NewRecord, NewTopic, Partition,
    Producer, ProducerConfig, Topics,
};
use ouzel_model::Offset;
use ouzel_protocol::ErrorCode;
use ouzel_runtime::Runtime;
use ouzel_runtime::cores::run_one;
use ouzel_runtime::disk::BackendChoice;

use crate::broker::{Broker, Ended, bare};

/// Far beyond what anything here takes: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at what is waited for.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// A node that is paused takes a question and never answers it: after so long the client asks another.
const ANSWER_LONGEST: Duration = Duration::from_secs(5);
/// Who listens here has the address.
const GUARD_PORT: u16 = 20_000;

/// Nodes by their id, those that run.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    host: Ipv4Addr,
    _guard: TcpListener,
    founders: i32,
    /// What every node is given as well.
    arguments: &'static [&'static str],
    nodes: BTreeMap<i32, Broker>,
    /// Those of them that are stopped and do not know it.
    paused: BTreeSet<i32>,
}

impl Cluster {
    /// So many nodes that found a cluster and serve, numbered from 1.
    pub(crate) fn of(founders: i32) -> Cluster {
        Cluster::with(founders, &[])
    }

    /// As [`Cluster::of`]; every node gets these arguments too.
    pub(crate) fn with(founders: i32, arguments: &'static [&'static str]) -> Cluster {
        let mut cluster = Cluster::planned(founders, arguments);
        let all: Vec<i32> = (1..=founders).collect();
        // None is ready before the others are there.
        all.iter().for_each(|node| cluster.launch(*node, &[]));
        all.iter().for_each(|node| cluster.node(*node).await_ready());
        cluster.await_all("every node knows of every other", move |seen| seen.brokers.len() == all.len());
        cluster
    }

    /// So many founders, none of which runs. None at all: whoever is started is a cluster of its own.
    pub(crate) fn planned(founders: i32, arguments: &'static [&'static str]) -> Cluster {
        let (host, guard) = own_address();
        let dir = tempfile::tempdir().unwrap();
        let (nodes, paused) = (BTreeMap::new(), BTreeSet::new());
        Cluster { dir, host, _guard: guard, founders, arguments, nodes, paused }
    }

    /// From now on these many are given as seeds.
    pub(crate) fn set_founders(&mut self, founders: i32) {
        self.founders = founders;
    }

    /// The node's data directory.
    pub(crate) fn data_dir(&self, node: i32) -> PathBuf {
        self.dir.path().join(format!("node-{node}"))
    }

    /// Where a node keeps partition 0 of a topic.
    pub(crate) fn partition_dir(&self, node: i32, topic: &str) -> PathBuf {
        self.data_dir(node).join(format!("{topic}-0"))
    }

    /// The segments of a node's copy of partition 0 of a topic: bytes by base offset.
    pub(crate) fn segments(&self, node: i32, topic: &str) -> BTreeMap<i64, u64> {
        let files = std::fs::read_dir(self.partition_dir(node, topic)).expect("its directory");
        let segment = |file: std::fs::DirEntry| {
            let base = file.file_name().to_str()?.strip_suffix(".log")?.parse().ok()?;
            // One that was replaced meanwhile counts for nothing.
            Some((base, file.metadata().ok()?.len()))
        };
        files.map(Result::unwrap).filter_map(segment).collect()
    }

    fn address(&self, node: i32, which: u16) -> String {
        format!("{}:{}", self.host, GUARD_PORT + 10 * node as u16 + which)
    }

    pub(crate) fn kafka_address(&self, node: i32) -> String {
        self.address(node, 1)
    }

    pub(crate) fn rpc_address(&self, node: i32) -> String {
        self.address(node, 2)
    }

    /// What its nodes are given as seeds.
    pub(crate) fn seeds(&self) -> String {
        let seeds: Vec<String> = (1..=self.founders).map(|node| self.rpc_address(node)).collect();
        seeds.join(",")
    }

    /// The command that starts a node; later arguments win over these.
    pub(crate) fn command(&self, node: i32, arguments: &[&str]) -> Command {
        let given = |flag: &str| arguments.contains(&flag) || self.arguments.contains(&flag);
        let mut command = bare(arguments);
        command.args(self.arguments);
        for (flag, value) in [
            ("--node-id", node.to_string()),
            ("--data-dir", self.data_dir(node).display().to_string()),
            ("--kafka-listener", self.kafka_address(node)),
            ("--admin-listener", self.address(node, 3)),
            ("--rpc-listener", self.rpc_address(node)),
            ("--seeds", self.seeds()),
            ("--cores", "1".to_owned()),
            ("--memory", "128MiB".to_owned()),
        ] {
            if !given(flag) && !value.is_empty() {
                command.args([flag, &value]);
            }
        }
        command
    }

    /// Starts a node and waits for nothing.
    pub(crate) fn launch(&mut self, node: i32, arguments: &[&str]) {
        let launched = Broker::launch(self.command(node, arguments));
        assert!(self.nodes.insert(node, launched).is_none(), "node {node} runs");
    }

    /// Starts a node and waits until it serves.
    pub(crate) fn start(&mut self, node: i32) {
        self.launch(node, &[]);
        self.node(node).await_ready();
    }

    pub(crate) fn node(&mut self, node: i32) -> &mut Broker {
        self.nodes.get_mut(&node).unwrap_or_else(|| panic!("node {node} does not run"))
    }

    fn taken_out(&mut self, node: i32) -> Broker {
        self.paused.remove(&node);
        self.nodes.remove(&node).unwrap_or_else(|| panic!("node {node} does not run"))
    }

    /// SIGKILL: nothing is ended in order.
    pub(crate) fn kill(&mut self, node: i32) -> Ended {
        let node = self.taken_out(node);
        node.signal("-KILL");
        node.ended()
    }

    /// SIGTERM, and the end of a node that stops in order.
    pub(crate) fn stop(&mut self, node: i32) -> Ended {
        self.taken_out(node).stop()
    }

    /// SIGSTOP: it holds its connections and does not know that time goes on.
    pub(crate) fn pause(&mut self, node: i32) {
        self.node(node).signal("-STOP");
        self.paused.insert(node);
    }

    pub(crate) fn resume(&mut self, node: i32) {
        assert!(self.paused.remove(&node), "node {node} is not paused");
        self.node(node).signal("-CONT");
    }

    /// Where clients reach the nodes that can answer.
    pub(crate) fn bootstrap(&self) -> String {
        let awake = self.nodes.keys().filter(|node| !self.paused.contains(node));
        awake.map(|node| self.kafka_address(*node)).collect::<Vec<_>>().join(",")
    }

    /// Waits until every node that can answer says so, and gives what the last one said.
    pub(crate) fn await_all(
        &self,
        what: &str,
        is_so: impl Fn(&Metadata) -> bool + Clone + 'static,
    ) -> Metadata {
        let mut seen = None;
        for address in self.bootstrap().split(',') {
            let is_so = is_so.clone();
            seen = Some(await_metadata(address, what, is_so));
        }
        seen.expect("a node that can answer")
    }

    /// Asks any node that can answer until what it answers is so.
    pub(crate) fn await_answer<T: std::fmt::Debug + 'static>(
        &self,
        what: &str,
        ask: impl AsyncFn(&Client) -> Result<T, ClientError> + 'static,
        is_so: impl Fn(&T) -> bool + 'static,
    ) -> T {
        let answered = with_client(&self.bootstrap(), async move |client, runtime| {
            let deadline = runtime.clock.now() + PATIENCE;
            loop {
                match ask(&client).await {
                    Ok(answer) if is_so(&answer) => return Ok(answer),
                    answer if runtime.clock.now() > deadline => return Err(answer),
                    _ => runtime.clock.sleep(LOOK_PAUSE).await,
                }
            }
        });
        answered.unwrap_or_else(|last| panic!("it is never so: {what}; the last answer is {last:#?}"))
    }

    /// Waits until every node says that of partition 0 of a topic.
    pub(crate) fn await_partition(
        &self,
        topic: &str,
        what: &str,
        is_so: impl Fn(&Partition) -> bool + Clone + 'static,
    ) -> Partition {
        let topic = topic.to_owned();
        let asked = topic.clone();
        let seen = self.await_all(what, move |seen| partition_0(seen, &asked).is_some_and(&is_so));
        partition_0(&seen, &topic).expect("the partition that was waited for").clone()
    }

    /// Creates a topic of one partition, which needs two replicas in sync, and waits until every node knows its leader and all
    /// replicas are in sync.
    pub(crate) fn create_topic(&self, topic: &str, replicas: i16) -> Partition {
        self.order_topic(topic, replicas, 2);
        self.await_in_sync(topic, replicas)
    }

    /// Creates a topic of one partition, with `min.insync.replicas` as the test says.
    pub(crate) fn order_topic(&self, topic: &str, replicas: i16, in_sync_min: i16) {
        let wanted = NewTopic {
            name: topic.to_owned(),
            partitions: Some(1),
            replication_factor: Some(replicas),
            configs: BTreeMap::from([("min.insync.replicas".to_owned(), in_sync_min.to_string())]),
        };
        let made =
            with_client(&self.bootstrap(), async move |client, _| client.create_topic(&wanted, false).await);
        // Whoever asks again, because the answer was late, is told that it is there.
        assert!(
            made.as_ref().err().is_none_or(|error| error.to_string().contains("TOPIC_ALREADY_EXISTS")),
            "{made:?}"
        );
    }

    /// Waits until partition 0 of the topic is led and exactly so many replicas are in sync, wherever the others are.
    pub(crate) fn await_in_sync_of(&self, topic: &str, in_sync: usize) -> Partition {
        let what = format!("{topic} is led and has exactly {in_sync} replicas in sync");
        self.await_partition(topic, &what, move |seen| seen.leader >= 0 && seen.in_sync.len() == in_sync)
    }

    /// Waits until partition 0 of the topic is led and so many replicas are in sync.
    pub(crate) fn await_in_sync(&self, topic: &str, replicas: i16) -> Partition {
        let what = format!("{topic} is led and has {replicas} replicas in sync");
        self.await_partition(topic, &what, move |seen| {
            seen.leader >= 0 && seen.in_sync.len() == replicas as usize && seen.offline.is_empty()
        })
    }

    /// Waits until partition 0 of the topic is led and these nodes hold the same of it, and gives its leader.
    pub(crate) fn await_same(&self, topic: &str, nodes: &[i32]) -> Partition {
        let led = self.await_in_sync(topic, nodes.len() as i16);
        let look = || nodes.iter().map(|node| self.segments(*node, topic)).collect::<Vec<_>>();
        await_seen("all replicas hold the same", look, |held| held.iter().all(|one| *one == held[0]));
        led
    }

    /// Has partition 0 of a topic led again by whoever is left.
    pub(crate) fn elect_unclean(&self, topic: &str) {
        let place = (topic.to_owned(), 0);
        let elect = async move |client: &Client| {
            let outcomes =
                client.elect_leaders(Election::Unclean, Some(std::slice::from_ref(&place))).await?;
            // One that was not over in time may be over by the next question.
            let is_needed = |error: &ClientError| error.code() != Some(ErrorCode::ElectionNotNeeded);
            outcomes.into_values().filter_map(Result::err).find(is_needed).map_or(Ok(()), Err)
        };
        self.await_answer("whoever is left is elected", elect, |()| true);
    }

    /// Stores these values with acks=all, each in a batch of its own.
    pub(crate) fn produce(&self, topic: &str, values: &[String]) {
        produce(&self.bootstrap(), topic, values, |_| {});
    }

    /// The values of partition 0 up to its high watermark.
    pub(crate) fn read_all(&self, topic: &str) -> Vec<String> {
        let topic = topic.to_owned();
        with_client(&self.bootstrap(), async move |client, _| {
            let mut consumer = Consumer::new(&client, ConsumerConfig::default());
            consumer.seek(&topic, 0, Offset(0));
            let mut values = Vec::new();
            loop {
                for consumed in consumer.poll().await.unwrap() {
                    values.push(String::from_utf8(consumed.record.value.unwrap()).unwrap());
                }
                if consumer.is_at_end() {
                    return values;
                }
            }
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (node, running) in std::mem::take(&mut self.nodes) {
                eprintln!("the log of node {node}:\n{}", running.ended_by_force().stderr);
            }
        }
    }
}

/// Looks until what is seen is so, and gives it.
#[track_caller]
pub(crate) fn await_seen<T: std::fmt::Debug>(
    what: &str,
    mut look: impl FnMut() -> T,
    is_so: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = look();
        if is_so(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "it is never so: {what}; the last look shows {seen:#?}");
        thread::sleep(LOOK_PAUSE);
    }
}

/// `PREFIX-0`, `PREFIX-1` and so on.
pub(crate) fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

/// Stores values with acks=all, each in a batch of its own, and tells after each how many are stored.
pub(crate) fn produce(bootstrap: &str, topic: &str, values: &[String], stored: impl Fn(usize) + 'static) {
    let (topic, values) = (topic.to_owned(), values.to_vec());
    with_client(bootstrap, async move |client, _| {
        let config = ProducerConfig { ack_timeout: ANSWER_LONGEST, ..ProducerConfig::default() };
        let mut producer = Producer::new(&client, config);
        for (at, value) in values.into_iter().enumerate() {
            let record = NewRecord { value: Some(value.into()), partition: Some(0), ..NewRecord::default() };
            producer.send(&topic, vec![record]).await.unwrap();
            stored(at + 1);
        }
    });
}

/// Moves partition 0 of these topics to these nodes, and waits until every node says that it is there and nowhere else.
pub(crate) fn move_to(cluster: &Cluster, topics: &[&str], nodes: &[i32]) {
    order_move(cluster, topics, nodes);
    let nodes: BTreeSet<i32> = nodes.iter().copied().collect();
    for topic in topics {
        let nodes = nodes.clone();
        cluster.await_partition(topic, "it has moved, and is led", move |seen| {
            seen.replicas.iter().copied().collect::<BTreeSet<_>>() == nodes
                && nodes.contains(&seen.leader)
                && seen.in_sync.len() == nodes.len()
        });
    }
}

/// Has partition 0 of these topics move to these nodes. A controller that dies while it is asked is followed by another one.
pub(crate) fn order_move(cluster: &Cluster, topics: &[&str], nodes: &[i32]) {
    let wanted: Vec<_> = topics.iter().map(|topic| ((topic.to_string(), 0), Some(nodes.to_vec()))).collect();
    let ordered = with_client(&cluster.bootstrap(), async move |client, _| client.reassign(&wanted).await);
    for (place, outcome) in ordered.unwrap() {
        outcome.unwrap_or_else(|error| panic!("{place:?}: {error}"));
    }
}

fn partition_0<'a>(seen: &'a Metadata, topic: &str) -> Option<&'a Partition> {
    seen.topics.get(topic)?.partitions.get(&0)
}

/// Asks one node until it says so.
fn await_metadata(address: &str, what: &str, is_so: impl Fn(&Metadata) -> bool + 'static) -> Metadata {
    let servers = address.to_owned();
    let seen = with_client(address, async move |_, runtime| {
        let deadline = runtime.clock.now() + PATIENCE;
        loop {
            // A client of its own each time: this node is asked, and none that it knows of.
            let client = Client::new(&runtime, ClientConfig::new(&servers));
            let seen = client.metadata(Topics::All).await;
            match seen {
                Ok(seen) if is_so(&seen) => return Ok(seen),
                seen if runtime.clock.now() > deadline => return Err(seen),
                _ => runtime.clock.sleep(LOOK_PAUSE).await,
            }
        }
    });
    seen.unwrap_or_else(|last| panic!("{address} does not say: {what}; it says {last:#?}"))
}

/// Runs something that asks brokers to its end.
pub(crate) fn with_client<T, F>(bootstrap: &str, act: impl FnOnce(Client, Runtime) -> F) -> T
where
    T: 'static,
    F: Future<Output = T> + 'static,
{
    let config = ClientConfig {
        call_timeout: PATIENCE,
        request_timeout: ANSWER_LONGEST,
        ..ClientConfig::new(bootstrap)
    };
    // Nothing but sockets is used, so no ring is set up.
    run_one(BackendChoice::Blocking, &[], |runtime| act(Client::new(&runtime, config), runtime)).unwrap()
}

/// An address that no other cluster has while the guard lives.
fn own_address() -> (Ipv4Addr, TcpListener) {
    let chance = RandomState::new();
    for attempt in 0..1000_u32 {
        let [.., a, b, c] = chance.hash_one(attempt).to_be_bytes();
        // Not 127.0.x.x, where others are, and no address that means something else at its end.
        let host = Ipv4Addr::new(127, a.clamp(1, 254), b, c.clamp(1, 254));
        if let Ok(guard) = TcpListener::bind((host, GUARD_PORT)) {
            return (host, guard);
        }
    }
    panic!("no address of 127.0.0.0/8 is free");
}
