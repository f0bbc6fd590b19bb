//! A load, carried out against a broker that runs: warm first, then measured in a window.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::kafka_tools::{self, REPORT_EVERY_MS, consumer_result, end_to_end_result, producer_report};
use super::open_loop::{Task, librdkafka_command, progress, says};
use super::pinning::Pinning;
use super::program::Program;
use super::row::Loaded;
use super::usage::{Usage, Watched, Window};
use super::warmth::{Gauge, WarmUp};
use super::workload::{Batches, Load};
use crate::bench::metadata::create_topics;
use crate::cluster::Cluster;
use crate::provision;

pub(super) const TOPIC: &str = "bench";
/// A driver that is silent for so long hangs.
const SILENCE_LONGEST: Duration = Duration::from_secs(60);
/// How long a tool with a fixed task may take.
const TASK_LONGEST: Duration = Duration::from_secs(300);

/// A warm-up this long is that of the long form.
const LONG_WARM_UP: Duration = Duration::from_secs(20);

/// What connections and caches need once more, after a warm-up of its own; a driver on Java needs its own compiler too.
const SECOND_WARM_UP: Duration = Duration::from_secs(2);
const SECOND_WARM_UP_OF_JAVA: Duration = Duration::from_secs(10);

/// How long the phases of a row take. The same for every broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Phases {
    pub(super) warm: Duration,
    pub(super) measured: Duration,
}

/// Bytes of values of one phase at most, over all brokers: more than this, and a fast broker would be measured at the disk
/// that a slow one never meets. A phase that is full ends before its time, for whomever it is.
const PHASE_BYTES_MAX: u64 = 3 << 30;
/// Of a long warm-up, after which all is written back: a compiler wants its time, which a fast load would cut short.
const WARM_BYTES_MAX: u64 = 12 << 30;

/// What came of a load.
#[derive(Debug)]
pub(super) struct Outcome {
    /// None of a load that is about a broker which has just been started, or does nothing.
    pub(super) warm_up: Option<WarmUp>,
    pub(super) load: Loaded,
    pub(super) usage: Usage,
}

/// A start of brokers, watched from before it.
#[derive(Debug)]
pub(super) struct Starting {
    began: Instant,
    window: Window,
}

impl Starting {
    /// The brokers are about to be started.
    pub(super) fn now(pinning: Pinning) -> Result<Starting, String> {
        let window =
            Window::open(Watched { brokers: Vec::new(), admin_ports: Vec::new(), driver: None, pinning })?;
        Ok(Starting { began: Instant::now(), window })
    }
}

/// Bytes of values that the brokers of a row may have on disk at once, all replicas together.
pub(super) fn disk_bytes_max(load: Load, phases: Phases) -> u64 {
    let both_phases = 2 * PHASE_BYTES_MAX;
    match load {
        Load::StartUp { filled_bytes }
        | Load::LibrdkafkaFetch { filled_bytes, .. }
        | Load::Fetch { filled_bytes, beside: None, .. } => filled_bytes,
        Load::Fetch { filled_bytes, .. } => filled_bytes + both_phases,
        Load::ConsumerPerf { value_bytes, records } | Load::EndToEndTool { value_bytes, records, .. } => {
            u64::from(value_bytes) * u64::from(records)
        }
        // What Kafka keeps for a minute after it has deleted it.
        Load::Rolling { .. } => both_phases,
        Load::ProducerPerf { .. }
        | Load::Produce { .. }
        | Load::Librdkafka { .. }
        | Load::EndToEnd { .. } => match phases.warm >= LONG_WARM_UP {
            true => WARM_BYTES_MAX + both_phases,
            false => both_phases,
        },
        Load::Idle => 0,
    }
}

/// What a load is carried out with.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    pub(super) folder: &'a Path,
    pub(super) class_path: &'a str,
    /// The folder of the bench's own binaries.
    pub(super) tools: &'a Path,
    pub(super) pinning: Pinning,
    pub(super) phases: Phases,
    /// librdkafka's driver.
    pub(super) librdkafka: &'a Path,
    pub(super) partitions: u32,
    /// Batches a second that are offered, where the load has a rate.
    pub(super) rate: Option<f64>,
    /// Where clients begin, and one broker's port.
    pub(super) bootstrap: String,
    pub(super) port: u16,
    /// The brokers under measurement.
    pub(super) pids: Vec<u32>,
    /// Where they tell their metrics, those that do.
    pub(super) admin_ports: Vec<u16>,
    pub(super) data: Vec<PathBuf>,
    /// Whether it makes a topic that is named to it, and does not have it already.
    pub(super) makes_topics: bool,
}

impl Bench<'_> {
    /// Carries the load out; the cluster itself and its start are only needed by a load that is about the start.
    pub(super) fn carry_out(
        &self,
        load: Load,
        cluster: &mut Cluster,
        starting: Starting,
    ) -> Result<Outcome, String> {
        if self.makes_topics {
            create_topics(self.port, &[TOPIC.to_owned()])?;
            if self.pids.len() > 1 {
                cluster.await_partitions(self.partitions as usize)?;
            }
        }
        let Phases { warm, measured } = self.phases;
        let phase_bytes_max = self.phase_bytes_max();
        let task = |batches| Task { warm, measured, phase_bytes_max, ..Task::of(batches) };
        match load {
            Load::ProducerPerf { value_bytes, acks, codec } => self.producer_perf(value_bytes, acks, codec),
            Load::ConsumerPerf { value_bytes, records } => self.consumer_perf(value_bytes, records),
            Load::EndToEndTool { value_bytes, acks, records } => {
                self.end_to_end_tool(value_bytes, acks, records)
            }
            Load::Librdkafka { value_bytes } => {
                let task = task(Batches { value_bytes, records: 1, keyed: false });
                self.warm_up_and_measure(&task, |task| self.librdkafka_driver("produce", task))
            }
            Load::LibrdkafkaFetch { batches, filled_bytes } => {
                self.fill(batches, filled_bytes)?;
                let task = Task { consumers: 1, phase_bytes_max: u64::MAX, ..task(batches) };
                self.in_phases(self.librdkafka_driver("fetch", &task), &task)
            }
            Load::Produce { batches, producers, acks } => {
                let task = Task { producers, acks, ..task(batches) };
                self.warm_up_and_measure(&task, |task| self.open_loop_driver(task))
            }
            Load::Rolling { batches, producers, .. } => self.open_loop(&Task {
                producers,
                rate: self.rate,
                sheds: true,
                phase_bytes_max: u64::MAX,
                ..task(batches)
            }),
            Load::Fetch { batches, consumers, filled_bytes, cold, .. } => {
                self.fill(batches, filled_bytes)?;
                let task = Task { consumers, again: true, ..task(batches) };
                match cold {
                    false => self.open_loop(&task),
                    true => self.fetch_cold(task, filled_bytes),
                }
            }
            Load::EndToEnd { batches, producers, consumers, .. } => {
                let end_to_end = self.rate.is_some();
                let task = Task { producers, consumers, rate: self.rate, end_to_end, ..task(batches) };
                self.warm_up_and_measure(&task, |task| self.open_loop_driver(task))
            }
            Load::StartUp { filled_bytes } => self.start_up(filled_bytes, cluster, starting),
            Load::Idle => self.idle(),
        }
    }

    /// Every broker of a cluster holds all of it.
    fn phase_bytes_max(&self) -> u64 {
        PHASE_BYTES_MAX / self.pids.len().max(1) as u64
    }

    /// The warm-up's bytes at most, over all brokers.
    fn warm_bytes_max(&self) -> u64 {
        WARM_BYTES_MAX / self.pids.len().max(1) as u64
    }

    /// A fast load would fill a phase's bytes long before its time, and a broker with a compiler would be measured cold. So a
    /// long warm-up is a run of its own that may carry more; then all that it left dirty is written back and dropped.
    fn warm_up_and_measure(&self, task: &Task, driver: impl Fn(&Task) -> Driver) -> Result<Outcome, String> {
        if task.warm < LONG_WARM_UP {
            return self.in_phases(driver(task), task);
        }
        let warm = Task {
            warm: Duration::ZERO,
            measured: task.warm,
            phase_bytes_max: self.warm_bytes_max(),
            ..*task
        };
        let first = self.warm_up(driver(&warm), &warm)?;
        self.evict()?;
        let short = Task { warm: SECOND_WARM_UP, ..*task };
        let outcome = self.in_phases(driver(&short), &short)?;
        Ok(Outcome { warm_up: outcome.warm_up.map(|second| first.and(second)), ..outcome })
    }

    /// Runs a driver for the warmth that it leaves alone.
    fn warm_up(&self, driver: Driver, task: &Task) -> Result<WarmUp, String> {
        let mut program = self.start("warm-up", driver.command)?;
        let mut gauge = Gauge::begin(&self.pids)?;
        hear(&mut program, "closed", task.measured + SILENCE_LONGEST, Some(&mut gauge))?;
        let warm_up = gauge.end();
        let said = program.finish(SILENCE_LONGEST)?;
        match said.iter().find_map(|line| task.result(line)) {
            Some(loaded) if loaded.unanswered == 0 => Ok(warm_up),
            // They might come in the window, and be taken for what was due there.
            Some(loaded) => Err(format!("{} batches of the warm-up were never answered", loaded.unanswered)),
            None => Err(format!("the driver told no result of the warm-up: {said:?}")),
        }
    }

    fn open_loop(&self, task: &Task) -> Result<Outcome, String> {
        self.in_phases(self.open_loop_driver(task), task)
    }

    fn open_loop_driver(&self, task: &Task) -> Driver {
        Driver { name: "open-loop", command: task.command(self.tools, self.port, self.partitions) }
    }

    fn librdkafka_driver(&self, what: &str, task: &Task) -> Driver {
        let command = librdkafka_command(self.librdkafka, what, &self.bootstrap, self.partitions, task);
        Driver { name: "librdkafka", command }
    }

    /// Runs a driver through its phases, with the window on the measured one.
    fn in_phases(&self, driver: Driver, task: &Task) -> Result<Outcome, String> {
        let mut program = self.start(driver.name, driver.command)?;
        let mut gauge = Gauge::begin(&self.pids)?;
        hear(&mut program, "measuring", task.warm + SILENCE_LONGEST, Some(&mut gauge))?;
        let warm_up = Some(gauge.end());
        let window = self.window(Some(program.pid()))?;
        hear(&mut program, "closed", task.measured + SILENCE_LONGEST, None)?;
        let usage = window.close()?;
        let said = program.finish(SILENCE_LONGEST)?;
        let load = said.iter().find_map(|line| task.result(line));
        let load = load.ok_or_else(|| format!("the driver told no result: {said:?}"))?;
        Ok(Outcome { warm_up, load, usage })
    }

    /// Has so many bytes of values there before the measurement.
    fn fill(&self, batches: Batches, bytes: u64) -> Result<(), String> {
        let task = Task {
            producers: self.partitions.min(16),
            measured: TASK_LONGEST,
            phase_bytes_max: bytes,
            ..Task::of(batches)
        };
        let command = Task { warm: Duration::ZERO, ..task }.command(self.tools, self.port, self.partitions);
        let said = self.start("fill", command)?.finish(TASK_LONGEST)?;
        let filled = said.iter().find_map(|line| task.result(line)).map_or(0.0, |loaded| loaded.value_bytes);
        // What is under way when it is full is acknowledged after that.
        match filled >= bytes as f64 * 0.95 {
            true => Ok(()),
            false => Err(format!("of {bytes} bytes {filled} were filled in within {TASK_LONGEST:?}")),
        }
    }

    /// Warm in all but the page cache: everything is read for as long as a warm-up lasts, dropped from memory, and read once
    /// more. That it comes from the disk then is looked at.
    fn fetch_cold(&self, task: Task, filled_bytes: u64) -> Result<Outcome, String> {
        let warm = Task { again: true, warm: Duration::ZERO, measured: task.warm, ..task };
        let warm_up = Some(self.warm_up(self.open_loop_driver(&warm), &warm)?);
        let read =
            Task { again: false, to_the_end: true, warm: Duration::ZERO, measured: TASK_LONGEST, ..task };
        self.evict()?;
        let producers = u32::from(self.rate.is_some());
        let outcome = self.open_loop(&Task { producers, rate: self.rate, ..read })?;
        came_from_the_disk(outcome.usage.read_bytes, filled_bytes)?;
        Ok(Outcome { warm_up, ..outcome })
    }

    fn evict(&self) -> Result<(), String> {
        let mut words = self.pinning.driver();
        words.extend([self.tools.join("groundwork").display().to_string(), "evict".to_owned()]);
        words.extend(self.data.iter().map(|data| data.display().to_string()));
        provision::run_quietly("drop the page cache", Command::new(&words[0]).args(&words[1..]))
    }

    /// The first start counts if there is nothing; otherwise the one after a graceful stop, with nothing in memory.
    fn start_up(
        &self,
        filled_bytes: u64,
        cluster: &mut Cluster,
        mut starting: Starting,
    ) -> Result<Outcome, String> {
        if filled_bytes > 0 {
            self.fill(Batches { value_bytes: 1024, records: 64, keyed: false }, filled_bytes)?;
            cluster.stop()?;
            self.evict()?;
            starting = Starting::now(self.pinning)?;
            cluster.start()?;
        }
        let one = Task {
            producers: 1,
            measured: SILENCE_LONGEST,
            phase_bytes_max: 1,
            ..Task::of(Batches { value_bytes: 100, records: 1, keyed: false })
        };
        // The driver waits for the partition's leader and ends with the acknowledgement.
        self.start("first-record", one.command(self.tools, self.port, self.partitions))?
            .finish(SILENCE_LONGEST)?;
        let first_record_ms = Some(starting.began.elapsed().as_secs_f64() * 1e3);
        let usage = starting.window.close_on(cluster.pids())?;
        Ok(Outcome { warm_up: None, load: Loaded { first_record_ms, ..Loaded::default() }, usage })
    }

    /// A window on the brokers, and on the driver if it runs until the window is closed.
    fn window(&self, driver: Option<u32>) -> Result<Window, String> {
        Window::open(Watched {
            brokers: self.pids.clone(),
            admin_ports: self.admin_ports.clone(),
            driver,
            pinning: self.pinning,
        })
    }

    fn start(&self, name: &str, command: Vec<String>) -> Result<Program, String> {
        Program::start(name, self.folder, &[self.pinning.driver(), command].concat())
    }

    fn idle(&self) -> Result<Outcome, String> {
        std::thread::sleep(self.phases.warm);
        let window = self.window(None)?;
        std::thread::sleep(self.phases.measured);
        Ok(Outcome { warm_up: None, load: Loaded::default(), usage: window.close()? })
    }

    /// The tool reports as it goes, and is ended when enough was seen. A long warm-up is a run of its own, as with the other
    /// drivers; in a short one warm-up and measurement are one run.
    fn producer_perf(&self, value_bytes: u32, acks: &str, codec: &str) -> Result<Outcome, String> {
        let bootstrap = self.bootstrap.clone();
        let (acks, codec) = (format!("acks={acks}"), format!("compression.type={codec}"));
        let value = value_bytes.to_string();
        #[rustfmt::skip]
        let arguments = [
            "--bootstrap-server", &bootstrap, "--topic", TOPIC, "--num-records", "1000000000", "--throughput", "-1",
            "--record-size", &value, "--reporting-interval", REPORT_EVERY_MS, "--command-property", &acks, &codec,
        ];
        let value_bytes = f64::from(value_bytes);
        let start = || ProducerPerf::start(self, &arguments, value_bytes);
        let (tool, warm_up) = if self.phases.warm < LONG_WARM_UP {
            let mut tool = start()?;
            let warm_up = tool.warm_up(self.phases.warm, self.phase_bytes_max())?;
            (tool, warm_up)
        } else {
            let first = start()?.warm_up(self.phases.warm, self.warm_bytes_max())?;
            self.evict()?;
            let mut tool = start()?;
            let second = tool.warm_up(SECOND_WARM_UP_OF_JAVA, self.phase_bytes_max())?;
            (tool, first.and(second))
        };
        let (load, usage) = tool.measure()?;
        Ok(Outcome { warm_up: Some(warm_up), load, usage })
    }

    /// Runs one of Kafka's tools to its end; what it printed.
    fn kafka_tool(&self, class: &str, arguments: &[&str]) -> Result<Vec<String>, String> {
        let name = class.rsplit('.').next().unwrap_or(class);
        self.start(name, kafka_tools::tool(self.class_path, class, arguments))?.finish(TASK_LONGEST)
    }

    /// Runs a tool with a fixed task of so many records again and again for as long as a warm-up lasts, once at least.
    fn warm_by(&self, records: u32, run: impl Fn() -> Result<Vec<String>, String>) -> Result<WarmUp, String> {
        let mut gauge = Gauge::begin(&self.pids)?;
        let mut done = 0.0;
        loop {
            run()?;
            done += f64::from(records);
            gauge.note(done)?;
            if gauge.lasted() >= self.phases.warm {
                return Ok(gauge.end());
            }
        }
    }

    /// The tool reads everything for warmth until that has lasted long enough, and once for the measurement, each time in a
    /// new group.
    fn consumer_perf(&self, value_bytes: u32, records: u32) -> Result<Outcome, String> {
        let (bootstrap, value, count) =
            (self.bootstrap.clone(), value_bytes.to_string(), records.to_string());
        #[rustfmt::skip]
        let fill = [
            "--bootstrap-server", &bootstrap, "--topic", TOPIC, "--num-records", &count, "--throughput", "-1",
            "--record-size", &value,
        ];
        self.kafka_tool(PRODUCER_TOOL, &fill)?;
        let read =
            ["--bootstrap-server", &bootstrap, "--topic", TOPIC, "--num-records", &count, "--hide-header"];
        let warm_up = Some(self.warm_by(records, || self.kafka_tool(CONSUMER_TOOL, &read))?);
        let window = self.window(None)?;
        let said = self.kafka_tool(CONSUMER_TOOL, &read)?;
        let usage = window.close()?;
        let load = said.iter().find_map(|line| consumer_result(line, f64::from(value_bytes)));
        let load = load.ok_or_else(|| format!("the consumer's tool told no result: {said:?}"))?;
        Ok(Outcome { warm_up, load, usage })
    }

    /// Runs of half as many records go before for warmth.
    fn end_to_end_tool(&self, value_bytes: u32, acks: &str, records: u32) -> Result<Outcome, String> {
        let (bootstrap, value) = (self.bootstrap.clone(), value_bytes.to_string());
        let run = |records: u32| {
            self.kafka_tool(END_TO_END_TOOL, &[&bootstrap, TOPIC, &records.to_string(), acks, &value])
        };
        let warm_up = Some(self.warm_by(records / 2, || run(records / 2))?);
        let window = self.window(None)?;
        let said = run(records)?;
        let usage = window.close()?;
        let latency = said.iter().find_map(|line| end_to_end_result(line));
        let latency = latency.ok_or_else(|| format!("the end-to-end tool told no percentiles: {said:?}"))?;
        let seconds = usage.wall.as_secs_f64();
        let records = f64::from(records);
        let load = Loaded { seconds, records, latency: Some(latency), ..Loaded::default() };
        Ok(Outcome { warm_up, load, usage })
    }
}

/// A driver of ours that is to be started.
#[derive(Debug)]
struct Driver {
    name: &'static str,
    command: Vec<String>,
}

/// Whether so many bytes that were read from the disk are those that were to be fetched from there: what of them is in memory
/// still is fetched for next to nothing.
fn came_from_the_disk(read_bytes: u64, filled_bytes: u64) -> Result<(), String> {
    match read_bytes as f64 >= filled_bytes as f64 * 0.95 {
        true => Ok(()),
        false => Err(format!(
            "of {filled_bytes} bytes that were to be fetched from the disk the broker read {read_bytes} there"
        )),
    }
}

/// Hears a driver until it says that; whoever gauges is told how far it has come meanwhile.
fn hear(
    driver: &mut Program,
    what: &str,
    longest: Duration,
    mut gauge: Option<&mut Gauge>,
) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let Some(line) = driver.line(longest.saturating_sub(began.elapsed()))? else {
            return Err(format!("the driver ended early; {}", driver.last_words()));
        };
        if says(&line, what) {
            return Ok(());
        }
        if let (Some(gauge), Some(records)) = (&mut gauge, progress(&line)) {
            gauge.note(records)?;
        }
    }
}

/// Kafka's producer tool under way.
#[derive(Debug)]
struct ProducerPerf<'a> {
    bench: &'a Bench<'a>,
    tool: Program,
    value_bytes: f64,
}

impl<'a> ProducerPerf<'a> {
    /// Starts it, and waits for the first records: the client's own start is nobody's.
    fn start(bench: &'a Bench<'a>, arguments: &[&str], value_bytes: f64) -> Result<ProducerPerf<'a>, String> {
        let command = kafka_tools::tool(bench.class_path, PRODUCER_TOOL, arguments);
        let tool = bench.start("producer-perf", command)?;
        let mut producer = ProducerPerf { bench, tool, value_bytes };
        producer.next()?;
        Ok(producer)
    }

    /// Records of the next report.
    fn next(&mut self) -> Result<f64, String> {
        loop {
            let Some(line) = self.tool.line(SILENCE_LONGEST)? else {
                return Err(format!("the producer's tool ended early; {}", self.tool.last_words()));
            };
            if let Some(records) = producer_report(&line) {
                return Ok(records);
            }
        }
    }

    fn warm_up(&mut self, longest: Duration, bytes_max: u64) -> Result<WarmUp, String> {
        let mut gauge = Gauge::begin(&self.bench.pids)?;
        let mut records = 0.0;
        while gauge.lasted() < longest && records * self.value_bytes < bytes_max as f64 {
            records += self.next()?;
            gauge.note(records)?;
        }
        Ok(gauge.end())
    }

    fn measure(mut self) -> Result<(Loaded, Usage), String> {
        let window = self.bench.window(Some(self.tool.pid()))?;
        let (opened, bytes_max) = (Instant::now(), self.bench.phase_bytes_max() as f64);
        let mut records = 0.0;
        while opened.elapsed() < self.bench.phases.measured && records * self.value_bytes < bytes_max {
            records += self.next()?;
        }
        let seconds = opened.elapsed().as_secs_f64();
        let usage = window.close()?;
        let value_bytes = records * self.value_bytes;
        Ok((Loaded { seconds, records, value_bytes, ..Loaded::default() }, usage))
    }
}

const PRODUCER_TOOL: &str = "org.apache.kafka.tools.ProducerPerformance";
const CONSUMER_TOOL: &str = "org.apache.kafka.tools.ConsumerPerformance";
const END_TO_END_TOOL: &str = "org.apache.kafka.tools.EndToEndLatency";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_still_is_not_cold() {
        assert!(came_from_the_disk(96, 100).is_ok() && came_from_the_disk(200, 100).is_ok());
        assert!(came_from_the_disk(94, 100).unwrap_err().contains("read 94 there"));
    }

    #[test]
    fn a_long_warm_up_wants_the_most_disk() {
        let phases = |warm_s| Phases { warm: Duration::from_secs(warm_s), measured: Duration::from_secs(4) };
        let batches = Batches { value_bytes: 1024, records: 4, keyed: false };
        for fast in [
            Load::ProducerPerf { value_bytes: 1024, acks: "all", codec: "none" },
            Load::Librdkafka { value_bytes: 1024 },
            Load::EndToEnd { batches, producers: 1, consumers: 1, rate: None },
        ] {
            assert_eq!(disk_bytes_max(fast, phases(4)), 6 << 30);
            assert_eq!(disk_bytes_max(fast, phases(60)), 18 << 30);
        }
        assert_eq!(disk_bytes_max(Load::StartUp { filled_bytes: 10 << 30 }, phases(0)), 10 << 30);
        assert_eq!(disk_bytes_max(Load::Idle, phases(60)), 0);
    }
}
