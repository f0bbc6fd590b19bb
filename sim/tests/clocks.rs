//! A node whose wall clock is wrong by an hour: what the table of docs/operations.md says that costs, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use ouzel_broker::NodeConfig;
use ouzel_broker::node::{self, Seated};
use ouzel_client::{
    Client, ClientConfig, ClientError, Committed, Consumed, Consumer, ConsumerConfig, NewRecord, NewTopic,
    OffsetSpec, Producer, ProducerConfig, Topics,
};
use ouzel_model::{Offset, TimestampMs};
use ouzel_protocol::ErrorCode;
use ouzel_runtime::Runtime;
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::{Cluster, ClusterConfig, SimClock, SimRuntime};
use ouzel_sim::brokers::machine;

const NODES: i32 = 3;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// Longer than anything here takes, in virtual time.
const PATIENCE: Duration = Duration::from_secs(120);
/// Several looks of retention, of the liveness service, and of everybody who looks now and then.
const A_WHILE: Duration = Duration::from_secs(15);
/// Taken with their producers' times; with their leader's; and only kept for half an hour.
const PLAIN: &str = "plain";
const STAMPED: &str = "stamped";
const KEPT: &str = "kept";
const GROUP: &str = "g";

fn name(node: i32) -> String {
    machine::node_name(node as usize - 1)
}

fn config(node: i32) -> NodeConfig {
    let settings = [
        ("offsets.topic.num.partitions", "1"),
        ("log.retention.check.interval.ms", "1000"),
        ("auto.create.topics.enable", "false"),
    ];
    machine::node_config(node as usize - 1, NODES as usize, &settings).expect("sound settings")
}

async fn run_node(node: SimRuntime, config: NodeConfig) -> CoreResult {
    let Seated { seats, .. } = node::seat(config, 1, Box::new(|_, _| Box::pin(async {})));
    node.run_cores(seats, node::run_core).await
}

/// The cluster as a client sees it, and the clocks of its nodes.
struct World {
    runtime: Runtime,
    client: Client,
    clocks: BTreeMap<i32, SimClock>,
}

impl World {
    async fn sleep(&self, duration: Duration) {
        self.runtime.clock.sleep(duration).await;
    }

    /// Partition 0 of a topic: its leader, and that one's epoch.
    async fn led(&self, topic: &str) -> (i32, i32) {
        let seen = self.client.metadata(Topics::All).await.expect("a broker answers");
        let partition = &seen.topics[topic].partitions[&0];
        (partition.leader, partition.leader_epoch)
    }

    /// Has a node's clock be wrong by so much.
    fn set_wrong(&self, node: i32, by_ms: i64) {
        self.clocks[&node].set_skew_ms(by_ms);
    }

    async fn create(&self, topic: &str, configs: &[(&str, &str)]) {
        let wanted = NewTopic {
            name: topic.to_owned(),
            partitions: Some(1),
            replication_factor: Some(NODES as i16),
            configs: configs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        };
        self.client.create_topic(&wanted, false).await.expect("three brokers are there");
    }

    async fn send(&self, producer: &mut Producer, topic: &str, value: &str) -> Result<(), ClientError> {
        let value = Some(value.to_owned().into());
        let record = NewRecord { value, partition: Some(0), ..NewRecord::default() };
        producer.send(topic, vec![record]).await.map(drop)
    }

    /// All records of a topic.
    async fn read(&self, topic: &str) -> Vec<Consumed> {
        let mut consumer = Consumer::new(&self.client, ConsumerConfig::default());
        consumer.seek(topic, 0, self.look_up(topic, OffsetSpec::Earliest).await.expect("it has a start"));
        let mut all = Vec::new();
        loop {
            all.extend(consumer.poll().await.expect("it is led"));
            if consumer.is_at_end() {
                return all;
            }
        }
    }

    async fn look_up(&self, topic: &str, what: OffsetSpec) -> Option<Offset> {
        let found = self.client.list_offsets(&[(topic.to_owned(), 0, what)]).await.expect("it is led");
        found[&(topic.to_owned(), 0)].offset
    }

    /// Waits for the other brokers, makes the topics, and has a group commit.
    async fn begin(&self) {
        let deadline = self.runtime.clock.now() + PATIENCE;
        while self.client.metadata(Topics::None).await.map_or(0, |seen| seen.brokers.len()) < NODES as usize {
            assert!(self.runtime.clock.now() < deadline, "no cluster");
            self.sleep(Duration::from_millis(100)).await;
        }
        self.create(PLAIN, &[]).await;
        self.create(STAMPED, &[("message.timestamp.type", "LogAppendTime")]).await;
        self.create(KEPT, &[("retention.ms", "1800000")]).await;
        let progress = Committed { offset: Offset(7), leader_epoch: -1, metadata: String::new() };
        let offsets = BTreeMap::from([((PLAIN.to_owned(), 0), progress)]);
        self.client.commit_offsets(GROUP, &offsets).await.expect("there is a coordinator");
    }
}

fn run(seed: u64, live: impl AsyncFnOnce(World) + 'static) {
    let mut cluster =
        Cluster::new(&ClusterConfig { duration_max: Duration::from_secs(600), ..ClusterConfig::new(seed) });
    for node in 1..=NODES {
        cluster.node(&name(node), 1, move |machine| run_node(machine, config(node)));
    }
    let clocks = (1..=NODES).map(|node| (node, cluster.clock(&name(node)).expect("it is there"))).collect();
    cluster.client("client", move |node| async move {
        let bootstrap = machine::bootstrap(NODES as usize);
        let config = ClientConfig { call_timeout: PATIENCE, ..ClientConfig::new(&bootstrap) };
        let runtime = node.runtime();
        live(World { client: Client::new(&runtime, config), runtime, clocks }).await;
        Ok(())
    });
    cluster.run().expect("nothing fails");
}

/// Each node in turn is an hour ahead, and an hour behind: nobody is elected for it, no record and no committed offset is lost, and
/// an idempotent producer goes on. Behind by more than `message.timestamp.after.max.ms`, an hour, a leader takes its clients'
/// records to be from the future, INVALID_TIMESTAMP, until its clock is set.
#[test]
fn nobody_is_deposed_or_forgotten_for_a_clock() {
    run(11, async |world: World| {
        world.begin().await;
        let mut producer = Producer::new(&world.client, ProducerConfig::default());
        let mut values = Vec::new();
        let mut store = async |producer: &mut Producer| {
            let value = format!("v-{}", values.len());
            world.send(producer, PLAIN, &value).await.expect("it is taken");
            values.push(value);
        };
        store(&mut producer).await;
        let before = [world.led(PLAIN).await, world.led(STAMPED).await, world.led(KEPT).await];
        for node in 1..=NODES {
            for by_ms in [HOUR_MS, -HOUR_MS + MINUTE_MS] {
                world.set_wrong(node, by_ms);
                store(&mut producer).await;
                world.sleep(A_WHILE).await;
                store(&mut producer).await;
                world.set_wrong(node, 0);
            }
        }
        let leader = before[0].0;
        world.set_wrong(leader, -HOUR_MS - MINUTE_MS);
        let mut other = Producer::new(&world.client, ProducerConfig::default());
        let refused =
            world.send(&mut other, PLAIN, "from the future").await.expect_err("by an hour and a minute");
        assert_eq!(refused.code(), Some(ErrorCode::InvalidTimestamp), "{refused}");
        world.set_wrong(leader, 0);
        store(&mut producer).await;

        let after = [world.led(PLAIN).await, world.led(STAMPED).await, world.led(KEPT).await];
        assert_eq!(after, before, "leaders and epochs");
        let text =
            |consumed: Consumed| String::from_utf8(consumed.record.value.expect("a value")).expect("text");
        let read: Vec<String> = world.read(PLAIN).await.into_iter().map(text).collect();
        assert_eq!(read, values);
        let committed = world.client.committed_offsets(GROUP).await.expect("there is a coordinator");
        assert_eq!(committed[&(PLAIN.to_owned(), 0)].offset, Offset(7));
    });
}

/// Retention, the times of LogAppendTime and lookups by time follow the leader's clock, and no other one's.
#[test]
fn retention_and_times_follow_the_leaders_clock() {
    run(12, async |world: World| {
        world.begin().await;
        let mut producer = Producer::new(&world.client, ProducerConfig::default());
        for topic in [KEPT, STAMPED] {
            for value in ["a", "b", "c"] {
                world.send(&mut producer, topic, value).await.expect("it is taken");
            }
        }
        let (leader, _) = world.led(KEPT).await;
        for node in (1..=NODES).filter(|node| *node != leader) {
            world.set_wrong(node, HOUR_MS);
        }
        world.sleep(A_WHILE).await;
        assert_eq!(
            world.look_up(KEPT, OffsetSpec::Earliest).await,
            Some(Offset(0)),
            "its followers have no say"
        );
        world.set_wrong(leader, HOUR_MS);
        let deadline = world.runtime.clock.now() + PATIENCE;
        while world.look_up(KEPT, OffsetSpec::Earliest).await != Some(Offset(3)) {
            assert!(world.runtime.clock.now() < deadline, "what is an hour old by its clock is kept");
            world.sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(world.read(KEPT).await.len(), 0);
        world.send(&mut producer, KEPT, "d").await.expect("it goes on");

        // All three are ahead by now.
        let right = world.runtime.clock.wall_ms();
        world.send(&mut producer, STAMPED, "d").await.expect("it is taken");
        let ahead = TimestampMs(right + HOUR_MS - MINUTE_MS);
        assert_eq!(world.look_up(STAMPED, OffsetSpec::AtOrAfter(ahead)).await, Some(Offset(3)));
        let times: Vec<i64> = world
            .read(STAMPED)
            .await
            .iter()
            .map(|consumed| consumed.record.timestamp.value() - right)
            .collect();
        let is_ahead: Vec<bool> = times.iter().map(|time| *time >= HOUR_MS).collect();
        assert_eq!(is_ahead, [false, false, false, true], "{times:?}");
    });
}
