//! A load, carried out against a broker that runs: warm first, then measured in a window.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::kafka_tools::{self, REPORT_EVERY_MS, consumer_result, end_to_end_result, producer_report};
use super::open_loop::{Task, librdkafka_command, says};
use super::pinning::Pinning;
use super::program::Program;
use super::row::Loaded;
use super::usage::{Usage, Watched, Window};
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

/// What connections and caches need once more, after a warm-up of its own.
const SECOND_WARM_UP: Duration = Duration::from_secs(2);

/// How long the phases of a row take. The same for every broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Phases {
    pub(super) warm: Duration,
    pub(super) measured: Duration,
}

/// Bytes of values of one phase at most, over all brokers: more than this, and a fast broker would be measured at the disk
/// that a slow one never meets. A phase that is full ends before its time, for whomever it is.
const PHASE_BYTES_MAX: u64 = 3 << 30;
/// Of a warm-up, after which all is written back: a compiler wants its time, which a fast load would cut short.
const WARM_BYTES_MAX: u64 = 12 << 30;

/// A start of brokers, watched from before it.
#[derive(Debug)]
pub(super) struct Starting {
    began: Instant,
    window: Window,
}

impl Starting {
    /// The brokers are about to be started.
    pub(super) fn now(pinning: Pinning) -> Result<Starting, String> {
        let window = Window::open(Watched { brokers: Vec::new(), driver: None, pinning })?;
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
        Load::ProducerPerf { .. } | Load::Produce { rate: None, .. } if phases.warm >= LONG_WARM_UP => {
            WARM_BYTES_MAX + both_phases
        }
        // Of rolling retention it is what Kafka keeps for a minute after it has deleted it.
        Load::ProducerPerf { .. }
        | Load::Produce { .. }
        | Load::Librdkafka { .. }
        | Load::EndToEnd { .. }
        | Load::Rolling { .. } => both_phases,
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
    ) -> Result<(Loaded, Usage), String> {
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
            Load::Librdkafka { value_bytes, acks } => {
                let batches = Batches { value_bytes, records: 1, keyed: false };
                self.librdkafka("produce", &Task { acks, ..task(batches) })
            }
            Load::LibrdkafkaFetch { batches, filled_bytes } => {
                self.fill(batches, filled_bytes)?;
                self.librdkafka("fetch", &Task { consumers: 1, phase_bytes_max: u64::MAX, ..task(batches) })
            }
            Load::Produce { batches, producers, acks, rate: None } => {
                self.warm_up_and_measure(&Task { producers, acks, ..task(batches) })
            }
            Load::Produce { batches, producers, acks, rate: Some(_) } => {
                self.open_loop(&Task { producers, acks, rate: self.rate, ..task(batches) })
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
                    true => self.fetch_cold(task),
                }
            }
            Load::EndToEnd { batches, producers, consumers, .. } => {
                let end_to_end = self.rate.is_some();
                self.open_loop(&Task { producers, consumers, rate: self.rate, end_to_end, ..task(batches) })
            }
            Load::StartUp { filled_bytes } => self.start_up(filled_bytes, cluster, starting),
            Load::Idle => self.idle(),
        }
    }

    /// Every broker of a cluster holds all of it.
    fn phase_bytes_max(&self) -> u64 {
        PHASE_BYTES_MAX / self.pids.len().max(1) as u64
    }

    /// A load as fast as it goes would fill the warm-up's bytes long before its time, and a broker with a compiler would be
    /// measured cold. So a long warm-up is a run of its own that may carry more; then all that it left dirty is written back
    /// and dropped.
    fn warm_up_and_measure(&self, task: &Task) -> Result<(Loaded, Usage), String> {
        if task.warm < LONG_WARM_UP {
            return self.open_loop(task);
        }
        let warm =
            Task { warm: Duration::ZERO, measured: task.warm, phase_bytes_max: WARM_BYTES_MAX, ..*task };
        let command = warm.command(self.tools, self.port, self.partitions);
        self.start("warm-up", command)?.finish(task.warm + SILENCE_LONGEST)?;
        self.evict()?;
        self.open_loop(&Task { warm: SECOND_WARM_UP, ..*task })
    }

    fn open_loop(&self, task: &Task) -> Result<(Loaded, Usage), String> {
        self.in_phases("open-loop", task.command(self.tools, self.port, self.partitions), task)
    }

    fn librdkafka(&self, what: &str, task: &Task) -> Result<(Loaded, Usage), String> {
        let command = librdkafka_command(self.librdkafka, what, &self.bootstrap, self.partitions, task);
        self.in_phases("librdkafka", command, task)
    }

    /// Runs a driver through its phases, with the window on the measured one.
    fn in_phases(&self, name: &str, command: Vec<String>, task: &Task) -> Result<(Loaded, Usage), String> {
        let longest = task.warm + SILENCE_LONGEST;
        let mut driver = self.start(name, command)?;
        let pid = driver.pid();
        let mut heard = |what: &str, longest: Duration| loop {
            match driver.line(longest)? {
                Some(line) if says(&line, what) => return Ok(()),
                Some(_) => {}
                None => return Err(format!("the driver ended early; {}", driver.last_words())),
            }
        };
        heard("measuring", longest)?;
        let window = self.window(Some(pid))?;
        heard("closed", task.measured + SILENCE_LONGEST)?;
        let usage = window.close()?;
        let said = driver.finish(SILENCE_LONGEST)?;
        let loaded = said.iter().find_map(|line| task.result(line));
        Ok((loaded.ok_or_else(|| format!("the driver told no result: {said:?}"))?, usage))
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
    /// more.
    fn fetch_cold(&self, task: Task) -> Result<(Loaded, Usage), String> {
        let warm = Task { again: true, warm: Duration::ZERO, measured: task.warm, ..task };
        self.open_loop(&warm)?;
        let read =
            Task { again: false, to_the_end: true, warm: Duration::ZERO, measured: TASK_LONGEST, ..task };
        self.evict()?;
        let producers = u32::from(self.rate.is_some());
        self.open_loop(&Task { producers, rate: self.rate, ..read })
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
    ) -> Result<(Loaded, Usage), String> {
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
        Ok((Loaded { first_record_ms, ..Loaded::default() }, usage))
    }

    /// A window on the brokers, and on the driver if it runs until the window is closed.
    fn window(&self, driver: Option<u32>) -> Result<Window, String> {
        Window::open(Watched { brokers: self.pids.clone(), driver, pinning: self.pinning })
    }

    fn start(&self, name: &str, command: Vec<String>) -> Result<Program, String> {
        Program::start(name, self.folder, &[self.pinning.driver(), command].concat())
    }

    fn idle(&self) -> Result<(Loaded, Usage), String> {
        std::thread::sleep(self.phases.warm);
        let window = self.window(None)?;
        std::thread::sleep(self.phases.measured);
        Ok((Loaded::default(), window.close()?))
    }

    /// One run of the tool is warm-up and measurement: it reports as it goes, and is ended when enough was seen.
    fn producer_perf(&self, value_bytes: u32, acks: &str, codec: &str) -> Result<(Loaded, Usage), String> {
        let bootstrap = self.bootstrap.clone();
        let (acks, codec) = (format!("acks={acks}"), format!("compression.type={codec}"));
        let value = value_bytes.to_string();
        #[rustfmt::skip]
        let arguments = [
            "--bootstrap-server", &bootstrap, "--topic", TOPIC, "--num-records", "1000000000", "--throughput", "-1",
            "--record-size", &value, "--reporting-interval", REPORT_EVERY_MS, "--command-property", &acks, &codec,
        ];
        let mut tool =
            self.start("producer-perf", kafka_tools::tool(self.class_path, PRODUCER_TOOL, &arguments))?;
        let pid = tool.pid();
        // The warm-up begins with the first records, not with the client's own start.
        let mut next = || loop {
            let Some(line) = tool.line(SILENCE_LONGEST)? else {
                return Err(format!("the producer's tool ended early; {}", tool.last_words()));
            };
            if let Some(records) = producer_report(&line) {
                return Ok(records);
            }
        };
        next()?;
        let bytes = |records: f64| records * f64::from(value_bytes);
        let is_full = |records: f64, most: u64| bytes(records) >= most as f64;
        let (warming, mut warmed) = (Instant::now(), 0.0);
        let warm_max = WARM_BYTES_MAX / self.pids.len() as u64;
        while warming.elapsed() < self.phases.warm && !is_full(warmed, warm_max) {
            warmed += next()?;
        }
        let window = self.window(Some(pid))?;
        let opened = Instant::now();
        let mut records = 0.0;
        while opened.elapsed() < self.phases.measured && !is_full(records, self.phase_bytes_max()) {
            records += next()?;
        }
        let seconds = opened.elapsed().as_secs_f64();
        let usage = window.close()?;
        Ok((Loaded { seconds, records, value_bytes: bytes(records), ..Loaded::default() }, usage))
    }

    /// Runs one of Kafka's tools to its end; what it printed.
    fn kafka_tool(&self, class: &str, arguments: &[&str]) -> Result<Vec<String>, String> {
        let name = class.rsplit('.').next().unwrap_or(class);
        self.start(name, kafka_tools::tool(self.class_path, class, arguments))?.finish(TASK_LONGEST)
    }

    /// Runs a tool with a fixed task again and again for as long as a warm-up lasts, once at least.
    fn warm_by(&self, run: impl Fn() -> Result<Vec<String>, String>) -> Result<(), String> {
        let began = Instant::now();
        loop {
            run()?;
            if began.elapsed() >= self.phases.warm {
                return Ok(());
            }
        }
    }

    /// The tool reads everything for warmth until that has lasted long enough, and once for the measurement, each time in a
    /// new group.
    fn consumer_perf(&self, value_bytes: u32, records: u32) -> Result<(Loaded, Usage), String> {
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
        self.warm_by(|| self.kafka_tool(CONSUMER_TOOL, &read))?;
        let window = self.window(None)?;
        let said = self.kafka_tool(CONSUMER_TOOL, &read)?;
        let usage = window.close()?;
        let loaded = said.iter().find_map(|line| consumer_result(line, f64::from(value_bytes)));
        Ok((loaded.ok_or_else(|| format!("the consumer's tool told no result: {said:?}"))?, usage))
    }

    /// Runs of half as many records go before for warmth.
    fn end_to_end_tool(&self, value_bytes: u32, acks: &str, records: u32) -> Result<(Loaded, Usage), String> {
        let (bootstrap, value) = (self.bootstrap.clone(), value_bytes.to_string());
        let run = |records: u32| {
            self.kafka_tool(END_TO_END_TOOL, &[&bootstrap, TOPIC, &records.to_string(), acks, &value])
        };
        self.warm_by(|| run(records / 2))?;
        let window = self.window(None)?;
        let said = run(records)?;
        let usage = window.close()?;
        let latency = said.iter().find_map(|line| end_to_end_result(line));
        let latency = latency.ok_or_else(|| format!("the end-to-end tool told no percentiles: {said:?}"))?;
        let seconds = usage.wall.as_secs_f64();
        Ok((
            Loaded { seconds, records: f64::from(records), latency: Some(latency), ..Loaded::default() },
            usage,
        ))
    }
}

const PRODUCER_TOOL: &str = "org.apache.kafka.tools.ProducerPerformance";
const CONSUMER_TOOL: &str = "org.apache.kafka.tools.ConsumerPerformance";
const END_TO_END_TOOL: &str = "org.apache.kafka.tools.EndToEndLatency";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_warm_up_wants_the_most_disk() {
        let phases = |warm_s| Phases { warm: Duration::from_secs(warm_s), measured: Duration::from_secs(4) };
        let fast = Load::ProducerPerf { value_bytes: 1024, acks: "all", codec: "none" };
        assert_eq!(disk_bytes_max(fast, phases(4)), 6 << 30);
        assert_eq!(disk_bytes_max(fast, phases(60)), 18 << 30);
        assert_eq!(disk_bytes_max(Load::StartUp { filled_bytes: 10 << 30 }, phases(0)), 10 << 30);
        assert_eq!(disk_bytes_max(Load::Idle, phases(60)), 0);
    }
}
