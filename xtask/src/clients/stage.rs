//! A cluster under test with clients around it: what every scenario is handed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::driver::{Driver, Event, Trouble};
use super::families::{Family, Toolbox};
use super::history::{Promise, Seen, Sent, judge};
use super::records::Shape;
use crate::broker_process::Against;
use crate::cluster::{Cluster, Down};

/// How long any order may take that waits for no kill.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Keys set alike on both brokers; what is left out has the same default on both.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("group.initial.rebalance.delay.ms", "500"),
    ("log.retention.check.interval.ms", "600000"),
    ("log.cleaner.backoff.ms", "500"),
];

/// One cluster, of one broker or of several, the drivers that wait for the next order, and a folder for everything they say.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) against: Against,
    pub(super) toolbox: &'a Toolbox,
    pub(super) folder: PathBuf,
    /// How many brokers there are.
    pub(super) nodes: usize,
    /// `host:port,...` of all of them.
    pub(super) bootstrap: String,
    /// `host:port` of one of them.
    pub(super) address: String,
    cluster: Mutex<Cluster>,
    /// Brokers are restarted beside whatever is played.
    disturbed: AtomicBool,
    idle: Mutex<BTreeMap<Family, Vec<Driver>>>,
    counter: AtomicU32,
}

impl<'a> Stage<'a> {
    pub(super) fn open(
        root: &Path,
        toolbox: &'a Toolbox,
        against: Against,
        folder: &Path,
        nodes: usize,
        settings: &[(&str, &str)],
        flags: &[&str],
    ) -> Result<Stage<'a>, String> {
        let (replicas, in_sync) = (replicas_of(nodes).to_string(), in_sync_min_of(nodes).to_string());
        let replication =
            [("default.replication.factor", replicas.as_str()), ("min.insync.replicas", in_sync.as_str())];
        // A single broker has these by default.
        let replication = if nodes > 1 { &replication[..] } else { &[] };
        let settings = [SETTINGS, replication, settings].concat();
        let mut cluster = Cluster::prepare(root, against, &folder.join("broker"), nodes, &settings, flags)?;
        cluster.start()?;
        Ok(Stage {
            against,
            toolbox,
            folder: folder.to_path_buf(),
            nodes,
            bootstrap: cluster.bootstrap(),
            address: cluster.address(),
            cluster: Mutex::new(cluster),
            disturbed: AtomicBool::new(false),
            idle: Mutex::default(),
            counter: AtomicU32::new(0),
        })
    }

    pub(super) fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replicas of every topic that a scenario makes.
    pub(super) fn replicas(&self) -> usize {
        replicas_of(self.nodes)
    }

    /// min.insync.replicas of every topic that does not say otherwise.
    pub(super) fn in_sync_min(&self) -> usize {
        in_sync_min_of(self.nodes)
    }

    /// SIGKILL and a start on the same port and directory, of one broker after the other; how long the start took. In a
    /// cluster the others have taken over in between.
    pub(super) fn kill_and_restart(&self) -> Result<Duration, String> {
        self.cluster().restart_next(Down::Killed).map(|(_, took)| took)
    }

    /// Stops the next broker in turn, and waits until the others lead what it led; which one it was.
    pub(super) fn take_down(&self) -> Result<usize, String> {
        self.cluster().take_down_next(Down::Stopped).map(|down| down.node as usize)
    }

    /// Starts a broker that was taken down, and waits until the cluster is whole.
    pub(super) fn bring_back(&self, node: usize) -> Result<(), String> {
        self.cluster().bring_back(node as i32).map(|_| ())
    }

    /// Says whether brokers are restarted beside what is played from now on.
    pub(super) fn disturb(&self, disturbed: bool) {
        self.disturbed.store(disturbed, Ordering::Relaxed);
    }

    pub(super) fn is_disturbed(&self) -> bool {
        self.disturbed.load(Ordering::Relaxed)
    }

    /// Does what may be done twice. Where brokers are restarted beside it one may go away under a call, which a user then makes
    /// again.
    pub(super) fn again<T>(&self, mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
        if self.is_disturbed() { eventually(PATIENCE, attempt) } else { attempt() }
    }

    /// How long a change may take to be seen everywhere.
    pub(super) fn visible_within(&self) -> Duration {
        if self.is_disturbed() { PATIENCE } else { Duration::from_secs(15) }
    }

    /// A name that nothing else on this cluster has.
    pub(super) fn unique(&self, word: &str) -> String {
        format!("{word}-{}", self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// A driver of its own, for who will kill it.
    pub(super) fn start(&self, family: Family, name: &str) -> Result<Driver, String> {
        let name = self.unique(&format!("{name}-{}", family.name()));
        Driver::start(self.toolbox.command(family)?, &name, &self.folder)
    }

    /// Gives an order to an idle driver of the family, or to a new one; a driver that broke is not used again.
    pub(super) fn call(&self, family: Family, order: &Value) -> Result<Vec<Event>, Trouble> {
        let mut driver = self.borrow(family).map_err(Trouble::Broken)?;
        let outcome = driver.call(order, PATIENCE + Duration::from_secs(40));
        if !matches!(outcome, Err(Trouble::Broken(_))) {
            self.give_back(family, driver);
        }
        outcome
    }

    pub(super) fn borrow(&self, family: Family) -> Result<Driver, String> {
        let idle = self.idle().get_mut(&family).and_then(Vec::pop);
        match idle {
            Some(driver) => Ok(driver),
            None => self.start(family, "client"),
        }
    }

    pub(super) fn give_back(&self, family: Family, driver: Driver) {
        self.idle().entry(family).or_default().push(driver);
    }

    fn idle(&self) -> MutexGuard<'_, BTreeMap<Family, Vec<Driver>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the drivers that wait: the next phase needs the machine.
    pub(super) fn dismiss(&self) {
        self.idle().clear();
    }

    pub(super) fn create_topic(
        &self,
        by: Family,
        topic: &str,
        partitions: u64,
        configs: &Value,
    ) -> Result<(), Trouble> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.create(by, topic, partitions, configs) {
                // A broker that went away may have made the topic and not said so.
                Err(Trouble::Refused { code: TOPIC_ALREADY_EXISTS, .. }) if self.is_disturbed() => break,
                Err(_) if self.is_disturbed() && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(200));
                }
                outcome => break outcome.map(|_| ())?,
            }
        }
        // The answer comes from the controller; that the broker's own image has the topic may take a moment more.
        eventually(self.visible_within(), || self.described(by, topic, partitions)).map_err(Trouble::Broken)
    }

    /// One attempt to make a topic with the usual replicas, which a scenario may want to see refused.
    pub(super) fn create(
        &self,
        by: Family,
        topic: &str,
        partitions: u64,
        configs: &Value,
    ) -> Result<Vec<Event>, Trouble> {
        let fields = json!({"partitions": partitions, "replicas": self.replicas(), "configs": configs});
        self.admin(by, "create", topic, fields)
    }

    /// Whether the topic is described with so many partitions, a leader each.
    pub(super) fn described(&self, by: Family, topic: &str, partitions: u64) -> Result<(), String> {
        match &self.admin(by, "describe", topic, json!({}))?[..] {
            [Event::Other(found)] => {
                let leaders = found["leaders"].as_array().map_or(0, |leaders| {
                    leaders.iter().filter(|leader| leader.as_i64().is_some_and(|id| id >= 0)).count()
                });
                match found["partitions"].as_u64() == Some(partitions) && leaders as u64 == partitions {
                    true => Ok(()),
                    false => Err(format!(
                        "described as {found}, {partitions} partitions with a leader each were due"
                    )),
                }
            }
            other => Err(format!("describe told {other:?}")),
        }
    }

    /// Produces, by the production's own family; the events of it.
    pub(super) fn produce(&self, production: &Production) -> Result<Vec<Event>, Trouble> {
        self.call(production.by, &production.order(self))
    }

    /// Reads all of a topic and judges that it holds what one producer sent, each record once, whole and in its order; how many
    /// records that are. `produced` are the events of the production.
    pub(super) fn holds_exactly(&self, production: &Production, produced: &[Event]) -> Result<usize, String> {
        let read = self.read(production.by, &production.topic, production.partitions, json!({}))?;
        let tally = judge(&production.sent(produced.iter()), Promise::ExactlyOnce, &read.records)?;
        Ok(tally.stored)
    }

    /// An `admin` order with further fields.
    pub(super) fn admin(
        &self,
        by: Family,
        operation: &str,
        topic: &str,
        fields: Value,
    ) -> Result<Vec<Event>, Trouble> {
        let mut order = json!({"cmd": "admin", "bootstrap": self.bootstrap, "op": operation, "topic": topic});
        if let (Some(order), Value::Object(fields)) = (order.as_object_mut(), fields) {
            order.extend(fields);
        }
        self.call(by, &order)
    }

    /// Everything in a topic, as one family reads it from `from`: its records and where each partition was begun.
    pub(super) fn read(
        &self,
        by: Family,
        topic: &str,
        partitions: u64,
        from: Value,
    ) -> Result<Reading, String> {
        let order = self.read_order(topic, partitions, from);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.call(by, &order) {
                // A reading changes nothing, and not every client asks a second time for where a log begins and ends.
                Err(_) if self.is_disturbed() && Instant::now() < deadline => {}
                outcome => return Ok(Reading::of(outcome?)),
            }
        }
    }

    pub(super) fn read_order(&self, topic: &str, partitions: u64, from: Value) -> Value {
        let mut order = json!({
            "cmd": "read", "bootstrap": self.bootstrap, "topic": topic, "partitions": partitions,
            "from": "start", "timeout_s": PATIENCE.as_secs(), "count": 0, "timestamp_ms": 0,
        });
        if let (Some(order), Value::Object(from)) = (order.as_object_mut(), from) {
            order.extend(from);
        }
        order
    }

    /// Reads until all that was sent is there: what acks=0 sent may still be on its way when the producer has gone.
    pub(super) fn read_at_least(
        &self,
        by: Family,
        topic: &str,
        partitions: u64,
        count: u64,
    ) -> Result<Reading, String> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let reading = self.read(by, topic, partitions, json!({}))?;
            if reading.records.len() as u64 >= count || Instant::now() > deadline {
                return Ok(reading);
            }
        }
    }

    /// Runs one of Kafka's command line tools; exit status and output.
    pub(super) fn tool(&self, class: &str, arguments: &[&str], stdin: &str) -> Result<(i64, String), String> {
        let order = json!({"cmd": "tool", "class": class, "args": arguments, "stdin": stdin});
        let events = self.call(Family::Java, &order)?;
        match events.last() {
            Some(Event::Other(output)) => Ok((
                output["status"].as_i64().unwrap_or(-1),
                output["text"].as_str().unwrap_or_default().to_owned(),
            )),
            other => Err(format!("{class} told {other:?}")),
        }
    }
}

const TOPIC_ALREADY_EXISTS: i64 = 36;

fn replicas_of(nodes: usize) -> usize {
    nodes.min(3)
}

fn in_sync_min_of(nodes: usize) -> usize {
    if nodes > 2 { 2 } else { 1 }
}

/// What a `read` order told.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) records: Vec<Seen>,
    /// By partition: the offset begun at, and the end at that time.
    pub(super) ranges: BTreeMap<i32, (i64, i64)>,
}

impl Reading {
    pub(super) fn of(events: Vec<Event>) -> Reading {
        let mut reading = Reading::default();
        for event in events {
            match event {
                Event::Saw(seen) => reading.records.push(seen),
                Event::Range { partition, first, end } => {
                    reading.ranges.insert(partition, (first, end));
                }
                _ => {}
            }
        }
        reading
    }
}

/// A `produce` order of full records, and what became of it.
#[derive(Debug, Clone)]
pub(super) struct Production {
    pub(super) by: Family,
    pub(super) topic: String,
    pub(super) producer: String,
    pub(super) partitions: u64,
    pub(super) codec: &'static str,
    pub(super) acks: &'static str,
    pub(super) idempotent: bool,
    pub(super) count: u64,
    pub(super) per_second: u64,
    pub(super) value_bytes: u64,
    pub(super) timestamp_ms: i64,
}

impl Production {
    /// A small one: as fast as it goes.
    pub(super) fn new(by: Family, topic: &str) -> Production {
        Production {
            by,
            topic: topic.to_owned(),
            producer: "w".to_owned(),
            partitions: 3,
            codec: "none",
            acks: "all",
            idempotent: false,
            count: 300,
            per_second: 0,
            value_bytes: 300,
            timestamp_ms: an_hour_ago_ms(),
        }
    }

    pub(super) fn order(&self, stage: &Stage<'_>) -> Value {
        // What a broker had taken before it went away is sent again: nothing else keeps it from being stored twice.
        let idempotent = self.idempotent || (self.acks == "all" && stage.is_disturbed());
        json!({
            "cmd": "produce", "bootstrap": stage.bootstrap, "topic": self.topic, "producer": self.producer,
            "partitions": self.partitions, "codec": self.codec, "acks": self.acks, "idempotent": idempotent,
            "count": self.count, "per_second": self.per_second, "value_bytes": self.value_bytes,
            "timestamp_ms": self.timestamp_ms, "linger_ms": 5,
        })
    }

    /// What the driver's events say of it.
    pub(super) fn sent<'e>(&self, events: impl Iterator<Item = &'e Event>) -> Sent {
        let mut sent = Sent {
            producer: self.producer.clone(),
            shape: Shape::Full {
                value_bytes: self.value_bytes,
                null_headers: self.by != Family::KafkaPython,
            },
            count: self.count,
            partitions: self.partitions,
            timestamp_ms: Some(self.timestamp_ms),
            acknowledged: BTreeMap::new(),
            failed: BTreeMap::new(),
        };
        for event in events {
            match event {
                Event::Acknowledged { seq, partition, offset } => {
                    sent.acknowledged.insert(*seq, (*partition, *offset));
                }
                Event::Failed { seq, reason } => {
                    sent.failed.insert(*seq, reason.clone());
                }
                _ => {}
            }
        }
        sent
    }
}

/// A time that no clock of the run shows, so that a broker's own stamp cannot pass for the producer's.
pub(super) fn an_hour_ago_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as i64 - 3_600_000
}

/// Tries until it holds or `longest` has passed; the last reason why it did not.
pub(super) fn eventually<T>(
    longest: Duration,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + longest;
    loop {
        match attempt() {
            Ok(found) => return Ok(found),
            Err(reason) if Instant::now() > deadline => return Err(reason),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
