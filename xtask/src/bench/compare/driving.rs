//! A load, carried out against a broker that runs: warm first, then measured in a window.

use std::path::Path;
use std::time::{Duration, Instant};

use super::kafka_tools::{self, REPORT_EVERY_MS, consumer_result, end_to_end_result, producer_report};
use super::pinning::Pinning;
use super::program::Program;
use super::row::Loaded;
use super::usage::{Usage, Window};
use super::workload::Load;
use crate::bench::metadata::create_topics;

pub(super) const TOPIC: &str = "bench";
/// A driver that is silent for so long hangs.
const SILENCE_LONGEST: Duration = Duration::from_secs(60);
/// How long a tool with a fixed task may take.
const TASK_LONGEST: Duration = Duration::from_secs(300);

/// How long the phases of a row take. The same for every broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Phases {
    pub(super) warm: Duration,
    pub(super) measured: Duration,
}

/// What a load is carried out with.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    pub(super) folder: &'a Path,
    pub(super) class_path: &'a str,
    pub(super) pinning: Pinning,
    pub(super) phases: Phases,
    /// The broker under measurement.
    pub(super) port: u16,
    pub(super) pid: u32,
    /// Whether it makes a topic that is named to it, and does not have it already.
    pub(super) makes_topics: bool,
}

impl Bench<'_> {
    /// Carries the load out.
    pub(super) fn carry_out(&self, load: Load) -> Result<(Loaded, Usage), String> {
        if self.makes_topics {
            create_topics(self.port, &[TOPIC.to_owned()])?;
        }
        match load {
            Load::ProducerPerf { value_bytes, acks, codec } => self.producer_perf(value_bytes, acks, codec),
            Load::ConsumerPerf { value_bytes, records } => self.consumer_perf(value_bytes, records),
            Load::EndToEndTool { value_bytes, acks, records } => {
                self.end_to_end_tool(value_bytes, acks, records)
            }
            Load::Idle => self.idle(),
        }
    }

    fn window(&self) -> Result<Window, String> {
        Window::open(self.pid, self.pinning)
    }

    fn start(&self, name: &str, command: Vec<String>) -> Result<Program, String> {
        Program::start(name, self.folder, &[self.pinning.driver(), command].concat())
    }

    fn idle(&self) -> Result<(Loaded, Usage), String> {
        std::thread::sleep(self.phases.warm);
        let window = self.window()?;
        std::thread::sleep(self.phases.measured);
        Ok((Loaded::default(), window.close()?))
    }

    /// One run of the tool is warm-up and measurement: it reports as it goes, and is ended when enough was seen.
    fn producer_perf(&self, value_bytes: u32, acks: &str, codec: &str) -> Result<(Loaded, Usage), String> {
        let bootstrap = self.bootstrap();
        let (acks, codec) = (format!("acks={acks}"), format!("compression.type={codec}"));
        let value = value_bytes.to_string();
        #[rustfmt::skip]
        let arguments = [
            "--bootstrap-server", &bootstrap, "--topic", TOPIC, "--num-records", "1000000000", "--throughput", "-1",
            "--record-size", &value, "--reporting-interval", REPORT_EVERY_MS, "--command-property", &acks, &codec,
        ];
        let mut tool =
            self.start("producer-perf", kafka_tools::tool(self.class_path, PRODUCER_TOOL, &arguments))?;
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
        let warming = Instant::now();
        while warming.elapsed() < self.phases.warm {
            next()?;
        }
        let window = self.window()?;
        let opened = Instant::now();
        let mut records = 0.0;
        while opened.elapsed() < self.phases.measured {
            records += next()?;
        }
        let seconds = opened.elapsed().as_secs_f64();
        let usage = window.close()?;
        let value_bytes = records * f64::from(value_bytes);
        Ok((Loaded { seconds, records, value_bytes, latency: None }, usage))
    }

    fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs one of Kafka's tools to its end; what it printed.
    fn kafka_tool(&self, class: &str, arguments: &[&str]) -> Result<Vec<String>, String> {
        let name = class.rsplit('.').next().unwrap_or(class);
        self.start(name, kafka_tools::tool(self.class_path, class, arguments))?.finish(TASK_LONGEST)
    }

    /// The tool reads everything once for warmth and once for the measurement, each time in a new group.
    fn consumer_perf(&self, value_bytes: u32, records: u32) -> Result<(Loaded, Usage), String> {
        let (bootstrap, value, count) = (self.bootstrap(), value_bytes.to_string(), records.to_string());
        #[rustfmt::skip]
        let fill = [
            "--bootstrap-server", &bootstrap, "--topic", TOPIC, "--num-records", &count, "--throughput", "-1",
            "--record-size", &value,
        ];
        self.kafka_tool(PRODUCER_TOOL, &fill)?;
        let read =
            ["--bootstrap-server", &bootstrap, "--topic", TOPIC, "--num-records", &count, "--hide-header"];
        self.kafka_tool(CONSUMER_TOOL, &read)?;
        let window = self.window()?;
        let said = self.kafka_tool(CONSUMER_TOOL, &read)?;
        let usage = window.close()?;
        let loaded = said.iter().find_map(|line| consumer_result(line, f64::from(value_bytes)));
        Ok((loaded.ok_or_else(|| format!("the consumer's tool told no result: {said:?}"))?, usage))
    }

    /// Half as many records go before for warmth.
    fn end_to_end_tool(&self, value_bytes: u32, acks: &str, records: u32) -> Result<(Loaded, Usage), String> {
        let (bootstrap, value) = (self.bootstrap(), value_bytes.to_string());
        let run = |records: u32| {
            self.kafka_tool(END_TO_END_TOOL, &[&bootstrap, TOPIC, &records.to_string(), acks, &value])
        };
        run(records / 2)?;
        let window = self.window()?;
        let said = run(records)?;
        let usage = window.close()?;
        let latency = said.iter().find_map(|line| end_to_end_result(line));
        let latency = latency.ok_or_else(|| format!("the end-to-end tool told no percentiles: {said:?}"))?;
        let seconds = usage.wall.as_secs_f64();
        Ok((Loaded { seconds, records: f64::from(records), value_bytes: 0.0, latency: Some(latency) }, usage))
    }
}

const PRODUCER_TOOL: &str = "org.apache.kafka.tools.ProducerPerformance";
const CONSUMER_TOOL: &str = "org.apache.kafka.tools.ConsumerPerformance";
const END_TO_END_TOOL: &str = "org.apache.kafka.tools.EndToEndLatency";
