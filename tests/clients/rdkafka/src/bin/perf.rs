//! librdkafka as a load, for `cargo xtask bench compare`: `perf produce` sends records as fast as the client takes them,
//! `perf fetch` reads a topic from its beginning again and again. Everything but what the command line says is librdkafka's
//! own default: acks=all, its batches, its lingering, its queues.
//!
//! Says `{"t":"measuring"}` when it is warm, `{"t":"closed"}` when the window has ended, and then the result, each one line;
//! every second beside these `{"t":"progress","records":N}`: what tests/bench's driver says.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::json;

/// Nothing came or went for so long: the run is broken.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Who watches is told this often how far the run has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// The clock is looked at once for so many records.
const LOOK_EVERY: u32 = 256;

#[derive(Debug)]
struct Task {
    fetches: bool,
    bootstrap: String,
    topic: String,
    partitions: i32,
    value_bytes: usize,
    warm: Duration,
    measured: Duration,
    /// Bytes of values after which a phase ends before its time.
    phase_bytes_max: u64,
}

impl Task {
    fn parse(arguments: &[String]) -> Result<Task, String> {
        let (what, pairs) = arguments.split_first().ok_or("produce or fetch")?;
        let mut task = Task {
            fetches: match what.as_str() {
                "produce" => false,
                "fetch" => true,
                other => return Err(format!("there is no {other}")),
            },
            bootstrap: String::new(),
            topic: String::new(),
            partitions: 1,
            value_bytes: 1024,
            warm: Duration::ZERO,
            measured: Duration::from_secs(1),
            phase_bytes_max: u64::MAX,
        };
        for pair in pairs.chunks(2) {
            let [name, value] = pair else { return Err(format!("{} wants a value", pair[0])) };
            task.set(name, value).ok_or_else(|| format!("{name} {value} is not understood"))?;
        }
        Ok(task)
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let seconds = |value: &str| Duration::try_from_secs_f64(value.parse().ok()?).ok();
        match name {
            "--bootstrap" => self.bootstrap = value.to_owned(),
            "--topic" => self.topic = value.to_owned(),
            "--partitions" => self.partitions = value.parse().ok()?,
            "--value-bytes" => self.value_bytes = value.parse().ok()?,
            "--warm-s" => self.warm = seconds(value)?,
            "--measured-s" => self.measured = seconds(value)?,
            "--phase-bytes-max" => self.phase_bytes_max = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }
}

/// The phases of a run, told by how many records have gone through.
struct Phases<'a> {
    task: &'a Task,
    /// When the present phase began, and at how many records; none before the first record.
    began: Option<(Instant, u64)>,
    measures: bool,
    last_progress: (Instant, u64),
    told: Instant,
}

impl Phases<'_> {
    fn new(task: &Task) -> Phases<'_> {
        Phases { task, began: None, measures: false, last_progress: (Instant::now(), 0), told: Instant::now() }
    }

    /// Whether the run goes on; the warm-up begins with the first record.
    fn go_on(&mut self, records: u64) -> Result<bool, String> {
        let now = Instant::now();
        if records != self.last_progress.1 {
            self.last_progress = (now, records);
        } else if now - self.last_progress.0 > SILENCE_MAX {
            return Err(format!("no record for {SILENCE_MAX:?}"));
        }
        if now - self.told >= PROGRESS_EVERY {
            self.told = now;
            say(&json!({"t": "progress", "records": records}));
        }
        let Some((began, before)) = self.began else {
            self.began = (records > 0).then_some((now, records));
            return Ok(true);
        };
        let is_full = (records - before) * self.task.value_bytes as u64 >= self.task.phase_bytes_max;
        let length = if self.measures { self.task.measured } else { self.task.warm };
        if now - began < length && !is_full {
            return Ok(true);
        }
        if !self.measures {
            self.measures = true;
            say(&json!({"t": "measuring"}));
            self.began = Some((Instant::now(), records));
            return Ok(true);
        }
        say(&json!({"t": "closed"}));
        let name = if self.task.fetches { "fetched_records" } else { "produced_records" };
        say(
            &json!({"t": "result", "seconds": (now - began).as_secs_f64(), name: records - before, "unanswered": 0}),
        );
        Ok(false)
    }
}

fn say(event: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    // A closed pipe means that nobody listens any more; the process is about to be ended.
    let _ = writeln!(out, "{event}");
    let _ = out.flush();
}

/// Counts what was acknowledged, and what was not.
#[derive(Debug, Clone, Default)]
struct Deliveries {
    acknowledged: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.acknowledged } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn produce(task: &Task) -> Result<(), String> {
    let deliveries = Deliveries::default();
    let producer: BaseProducer<Deliveries> = task
        .config()
        .create_with_context(deliveries.clone())
        .map_err(|error| error.to_string())?;
    let value: Vec<u8> = (0..task.value_bytes).map(|at| b'A' + (at * 7 % 26) as u8).collect();
    let mut phases = Phases::new(task);
    loop {
        for _ in 0..LOOK_EVERY {
            let record = BaseRecord::<(), [u8]>::to(&task.topic).payload(&value);
            match producer.send(record) {
                Ok(()) => {}
                Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    producer.poll(Duration::from_millis(10));
                    break;
                }
                Err((error, _)) => return Err(error.to_string()),
            }
        }
        producer.poll(Duration::ZERO);
        match deliveries.failed.load(Ordering::Relaxed) {
            0 => {}
            count => return Err(format!("{count} records were not taken")),
        }
        if !phases.go_on(deliveries.acknowledged.load(Ordering::Relaxed))? {
            return Ok(());
        }
    }
}

fn fetch(task: &Task) -> Result<(), String> {
    let consumer: BaseConsumer = task
        .config()
        .set("group.id", "perf")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .map_err(|error| error.to_string())?;
    let mut everything = TopicPartitionList::new();
    for partition in 0..task.partitions {
        everything
            .add_partition_offset(&task.topic, partition, Offset::Beginning)
            .map_err(|error| error.to_string())?;
    }
    consumer.assign(&everything).map_err(|error| error.to_string())?;
    let (mut records, mut at_end) = (0, BTreeSet::new());
    let mut phases = Phases::new(task);
    loop {
        for _ in 0..LOOK_EVERY {
            match consumer.poll(Duration::from_millis(100)) {
                None => break,
                Some(Ok(message)) => records += u64::from(message.payload_len() > 0),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    at_end.insert(partition);
                }
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
        if at_end.len() == task.partitions as usize {
            at_end.clear();
            consumer.assign(&everything).map_err(|error| error.to_string())?;
        }
        if !phases.go_on(records)? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done =
        Task::parse(&arguments).and_then(|task| if task.fetches { fetch(&task) } else { produce(&task) });
    match done {
        // Without waiting for what is still in the client's queues: it is nobody's figure.
        Ok(()) => std::process::exit(0),
        Err(message) => {
            eprintln!("perf: {message}");
            ExitCode::FAILURE
        }
    }
}
