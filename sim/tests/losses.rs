//! Losses of acknowledged records that were accepted, or that a disk brought about by itself: each is counted under its
//! cause, on the node that is to blame or that saw it. (An unclean election is asked for by people: the process tests
//! have it.)

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ouzel_broker::NodeConfig;
use ouzel_broker::metrics::CoreSample;
use ouzel_broker::node::{self, NodeHandle, Seated};
use ouzel_client::{Client, ClientConfig, NewRecord, NewTopic, Producer, ProducerConfig, Topics};
use ouzel_metadata::{BrokerConfig, Layers, StaticConfig};
use ouzel_model::NodeId;
use ouzel_runtime::Runtime;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::{Cluster, ClusterConfig, DATA_DIR, SimRuntime};

const NODES: i32 = 3;
const TOPIC: &str = "t";
/// Longer than anything here takes, in virtual time.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

fn name(node: i32) -> String {
    format!("node{node}")
}

fn config(node: i32) -> NodeConfig {
    let settings =
        StaticConfig::from_settings([("offsets.topic.num.partitions", "1")]).expect("sound settings");
    NodeConfig {
        node_id: NodeId(node),
        data_dir: DATA_DIR.into(),
        kafka_listener: "0.0.0.0:9092".to_owned(),
        advertised: Some((name(node), 9092)),
        rpc_listener: format!("{}:33146", name(node)),
        seeds: (1..=NODES).map(|node| format!("{}:33146", name(node))).collect(),
        memory_bytes: 64 << 20,
        broker: BrokerConfig::resolve(&Layers::of_static(&settings)),
        settings,
    }
}

/// What each node's process has counted, as it said last.
type Samples = Rc<RefCell<BTreeMap<i32, CoreSample>>>;

async fn run_node(machine: SimRuntime, node: i32, samples: Samples) -> CoreResult {
    let Seated { seats, handle, reported: _reported } =
        node::seat(config(node), 1, Box::new(|_, _| Box::pin(async {})));
    let runtime = machine.runtime();
    tokio::select! {
        biased;
        ended = machine.run_cores(seats, node::run_core) => ended,
        () = look(runtime, node, handle, samples) => unreachable!("it looks for ever"),
    }
}

async fn look(runtime: Runtime, node: i32, handle: NodeHandle, samples: Samples) {
    loop {
        runtime.clock.sleep(LOOK_INTERVAL).await;
        if let Ok(sample) = handle.sample().await {
            samples.borrow_mut().insert(node, sample);
        }
    }
}

/// What is done to machines.
enum Fault {
    /// From now on the disk says that it has flushed, and has not.
    Lies(i32),
    /// The power goes, and comes back.
    PowerCut(Vec<i32>),
}

struct World {
    runtime: Runtime,
    client: Client,
    samples: Samples,
    faults: Rc<RefCell<Vec<Fault>>>,
}

impl World {
    /// Makes the topic, once all brokers are there.
    async fn begin(&self, durability: &str) -> Producer {
        let deadline = self.runtime.clock.now() + PATIENCE;
        while self.client.metadata(Topics::None).await.map_or(0, |seen| seen.brokers.len()) < NODES as usize {
            assert!(self.runtime.clock.now() < deadline, "no cluster");
            self.runtime.clock.sleep(LOOK_INTERVAL).await;
        }
        let wanted = NewTopic {
            name: TOPIC.to_owned(),
            partitions: Some(1),
            replication_factor: Some(NODES as i16),
            configs: BTreeMap::from([("ouzel.durability".to_owned(), durability.to_owned())]),
        };
        self.client.create_topic(&wanted, false).await.expect("three brokers are there");
        Producer::new(&self.client, ProducerConfig::default())
    }

    /// Stores some records with acks=all.
    async fn store(&self, producer: &mut Producer, values: u8) {
        for value in 0..values {
            let record = NewRecord {
                value: Some(vec![value; 1000].into()),
                partition: Some(0),
                ..NewRecord::default()
            };
            producer.send(TOPIC, vec![record]).await.expect("it is acknowledged");
        }
    }

    async fn leader(&self) -> i32 {
        let seen = self.client.metadata(Topics::All).await.expect("a broker answers");
        seen.topics[TOPIC].partitions[&0].leader
    }

    /// Has something done to machines, and waits until it is.
    async fn suffer(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
        while !self.faults.borrow().is_empty() {
            self.runtime.clock.sleep(Duration::from_millis(1)).await;
        }
    }

    /// What all nodes have counted: by unclean elections, by power cuts, by disks.
    fn losses(&self) -> [u64; 3] {
        let samples = self.samples.borrow();
        let sum = |count: fn(&CoreSample) -> u64| samples.values().map(count).sum();
        [sum(|of| of.inherited), sum(|of| of.tails_given_up), sum(|of| of.reversions)]
    }

    /// Waits until they have counted more than that.
    async fn await_losses(&self, before: [u64; 3]) -> [u64; 3] {
        let deadline = self.runtime.clock.now() + PATIENCE;
        while self.losses() == before {
            assert!(self.runtime.clock.now() < deadline, "nobody counts a loss");
            self.runtime.clock.sleep(LOOK_INTERVAL).await;
        }
        self.losses()
    }
}

fn run(seed: u64, live: impl AsyncFnOnce(World) + 'static) {
    let duration_max = Duration::from_secs(600);
    let mut cluster = Cluster::new(&ClusterConfig { duration_max, ..ClusterConfig::new(seed) });
    let (samples, faults) = (Samples::default(), Rc::new(RefCell::new(Vec::new())));
    let mut disks = BTreeMap::new();
    for node in 1..=NODES {
        let samples = samples.clone();
        let disk = cluster.node(&name(node), 1, move |machine| run_node(machine, node, samples.clone()));
        disks.insert(node, disk);
    }
    let (of_nodes, asked) = (samples.clone(), faults.clone());
    cluster.client("client", move |node| async move {
        let bootstrap: Vec<_> = (1..=NODES).map(|node| format!("{}:9092", name(node))).collect();
        let config = ClientConfig { call_timeout: PATIENCE, ..ClientConfig::new(&bootstrap.join(",")) };
        let runtime = node.runtime();
        live(World { client: Client::new(&runtime, config), runtime, samples: of_nodes, faults: asked })
            .await;
        Ok(())
    });
    while !cluster.step().expect("nothing fails") {
        for fault in faults.take() {
            match fault {
                Fault::Lies(node) => disks[&node].set_lies(true),
                Fault::PowerCut(nodes) => {
                    for node in &nodes {
                        cluster.power_cut(&name(*node));
                        disks[node].set_lies(false);
                        samples.borrow_mut().remove(node);
                    }
                    nodes.iter().for_each(|node| cluster.restart(&name(*node)));
                }
            }
        }
    }
}

/// All machines lose their power, and what was acknowledged was in their page caches: nobody can vouch for its end, and
/// those that are needed to elect a leader go on all the same. Each of them counts it.
#[test]
fn a_power_cut_of_all_in_write_caching_is_counted_as_power() {
    run(21, async |world: World| {
        let mut producer = world.begin("write-caching").await;
        world.store(&mut producer, 30).await;
        assert_eq!(world.losses(), [0, 0, 0]);
        world.suffer(Fault::PowerCut((1..=NODES).collect())).await;
        let [unclean, power, disk] = world.await_losses([0, 0, 0]).await;
        assert!((1..=2).contains(&power), "a majority of three goes on, one after the other: {power}");
        assert_eq!((unclean, disk), (0, 0));
        // A producer of its own: what it sends is nobody's repetition.
        let mut producer = Producer::new(&world.client, ProducerConfig::default());
        world.store(&mut producer, 1).await;
    });
}

/// The same where each acknowledgement waited for the disks is no loss.
#[test]
fn a_power_cut_of_all_in_durable_is_no_loss() {
    run(22, async |world: World| {
        let mut producer = world.begin("durable").await;
        world.store(&mut producer, 30).await;
        world.suffer(Fault::PowerCut((1..=NODES).collect())).await;
        world.store(&mut producer, 1).await;
        assert_eq!(world.losses(), [0, 0, 0]);
    });
}

/// A disk says that it has flushed, and has not. Its replica comes back from a power cut with less than it had
/// acknowledged, and does not know; its leader sees it, and counts it.
#[test]
fn a_disk_that_lies_is_counted_as_disk() {
    run(23, async |world: World| {
        let mut producer = world.begin("durable").await;
        world.store(&mut producer, 5).await;
        let leader = world.leader().await;
        let liar = (1..=NODES).find(|node| *node != leader).expect("two follow");
        world.suffer(Fault::Lies(liar)).await;
        world.store(&mut producer, 50).await;
        world.suffer(Fault::PowerCut(vec![liar])).await;
        let [unclean, power, disk] = world.await_losses([0, 0, 0]).await;
        assert_eq!((unclean, power, disk), (0, 0, 1));
        world.store(&mut producer, 1).await;
        assert_eq!(world.leader().await, leader);
    });
}
