//! The open-loop driver of `tests/bench`, and librdkafka's, which speaks like it: their arguments and their result.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::driving::TOPIC;
use super::row::{Latency, Loaded};
use super::workload::Batches;

/// What it is to do, beside the port and the partitions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    pub(super) batches: Batches,
    pub(super) producers: u32,
    pub(super) consumers: u32,
    pub(super) acks: i16,
    /// Batches a second.
    pub(super) rate: Option<f64>,
    pub(super) warm: Duration,
    pub(super) measured: Duration,
    /// Bytes of values after which a phase ends before its time.
    pub(super) phase_bytes_max: u64,
    /// Consumers begin anew at the end.
    pub(super) again: bool,
    /// The window ends with what there is to read.
    pub(super) to_the_end: bool,
    pub(super) end_to_end: bool,
    /// Retention must keep up in the window.
    pub(super) sheds: bool,
}

impl Task {
    /// Nothing yet, of these batches.
    pub(super) fn of(batches: Batches) -> Task {
        Task {
            batches,
            producers: 0,
            consumers: 0,
            acks: -1,
            rate: None,
            warm: Duration::ZERO,
            measured: Duration::ZERO,
            phase_bytes_max: u64::MAX,
            again: false,
            to_the_end: false,
            end_to_end: false,
            sheds: false,
        }
    }

    /// The command, without what holds it on a core.
    pub(super) fn command(&self, tools: &Path, port: u16, partitions: u32) -> Vec<String> {
        let mut command = vec![tools.join("open-loop").display().to_string()];
        let mut say = |name: &str, value: String| command.extend([name.to_owned(), value]);
        say("--port", port.to_string());
        say("--partitions", partitions.to_string());
        say("--producers", self.producers.to_string());
        say("--consumers", self.consumers.to_string());
        say("--value-bytes", self.batches.value_bytes.to_string());
        say("--records", self.batches.records.to_string());
        say("--acks", self.acks.to_string());
        say("--warm-s", self.warm.as_secs_f64().to_string());
        say("--measured-s", self.measured.as_secs_f64().to_string());
        say("--phase-bytes-max", self.phase_bytes_max.to_string());
        if let Some(rate) = self.rate {
            say("--rate", rate.to_string());
        }
        let flags = [
            (self.batches.keyed, "--keyed"),
            (self.again, "--again"),
            (self.to_the_end, "--to-the-end"),
            (self.end_to_end, "--end-to-end"),
            (self.sheds, "--sheds"),
        ];
        command.extend(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| (*flag).to_owned()));
        command
    }

    /// Reads the result. Where something is fetched, the bytes are those fetched; an end-to-end run counts what was
    /// produced, since each consumer fetches it again.
    pub(super) fn result(&self, line: &str) -> Option<Loaded> {
        let result: Value = serde_json::from_str(line).ok()?;
        if result["t"] != "result" {
            return None;
        }
        let counts_fetched = self.consumers > 0 && self.producers == 0 || self.again || self.to_the_end;
        let records = result[if counts_fetched { "fetched_records" } else { "produced_records" }].as_f64()?;
        let latency = match &result["latency_ms"] {
            Value::Null => None,
            latency => {
                let at = |name: &str| latency[name].as_f64();
                let (p50, p99) = (at("p50")?, at("p99")?);
                Some(Latency { p50, p99, p999: at("p999")?, p9999: at("p9999")?, max: at("max")? })
            }
        };
        Some(Loaded {
            seconds: result["seconds"].as_f64()?,
            records,
            value_bytes: records * f64::from(self.batches.value_bytes),
            latency,
            // The quarters of a window of seconds are noise; only rolling retention asks how tails drift.
            quarters_p999: match &result["quarters_p999_ms"] {
                Value::Null => None,
                _ if !self.sheds => None,
                quarters => Some((quarters[0].as_f64()?, quarters[1].as_f64()?)),
            },
            driver_late_ms: result["driver_late_p99_ms"].as_f64(),
            unanswered: result["unanswered"].as_u64()?,
            first_record_ms: None,
        })
    }
}

/// Of librdkafka's driver: the command without what holds it on a core.
pub(super) fn librdkafka_command(
    driver: &Path,
    what: &str,
    bootstrap: &str,
    partitions: u32,
    task: &Task,
) -> Vec<String> {
    let mut command = vec![driver.display().to_string(), what.to_owned()];
    let mut say = |name: &str, value: String| command.extend([name.to_owned(), value]);
    say("--bootstrap", bootstrap.to_owned());
    say("--topic", TOPIC.to_owned());
    say("--partitions", partitions.to_string());
    say("--value-bytes", task.batches.value_bytes.to_string());
    say("--warm-s", task.warm.as_secs_f64().to_string());
    say("--measured-s", task.measured.as_secs_f64().to_string());
    say("--phase-bytes-max", task.phase_bytes_max.to_string());
    command
}

/// Whether the line says that the window begins, or has ended.
pub(super) fn says(line: &str, what: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|said| said["t"] == what)
}

/// How many records went through so far, if the line says so.
pub(super) fn progress(line: &str) -> Option<f64> {
    let said: Value = serde_json::from_str(line).ok()?;
    (said["t"] == "progress").then(|| said["records"].as_f64()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCHES: Batches = Batches { value_bytes: 100, records: 5, keyed: true };

    #[test]
    fn flags_are_said_only_if_they_are_meant() {
        let task = Task { producers: 2, again: true, ..Task::of(BATCHES) };
        let command = task.command(Path::new("bin"), 7, 3).join(" ");
        assert!(command.starts_with("bin/open-loop --port 7 --partitions 3 --producers 2"), "{command}");
        assert!(command.ends_with("--keyed --again") && !command.contains("--rate"), "{command}");
    }

    #[test]
    fn librdkafka_is_told_what_the_open_loop_is() {
        let task = Task { warm: Duration::from_secs(2), ..Task::of(BATCHES) };
        let command = librdkafka_command(Path::new("perf"), "produce", "h:1,h:2", 3, &task).join(" ");
        assert!(command.starts_with("perf produce --bootstrap h:1,h:2 --topic bench"), "{command}");
        assert!(command.contains("--value-bytes 100 --warm-s 2 "), "{command}");
    }

    #[test]
    fn a_fetch_counts_what_came_and_a_fan_out_what_went_in() {
        let line = r#"{"t":"result","seconds":2.0,"produced_records":10,"fetched_records":500,"unanswered":1,
            "latency_ms":{"p50":1.0,"p99":2.0,"p999":3.0,"p9999":4.0,"max":5.0},"quarters_p999_ms":[2.0,3.0],
            "driver_late_p99_ms":0.1}"#;
        let loaded = Task { producers: 1, consumers: 50, ..Task::of(BATCHES) }.result(line).unwrap();
        assert_eq!((loaded.value_bytes, loaded.unanswered), (1_000.0, 1));
        assert_eq!((loaded.latency.unwrap().p999, loaded.quarters_p999), (3.0, None));
        let rolling = Task { producers: 1, sheds: true, ..Task::of(BATCHES) }.result(line).unwrap();
        assert_eq!(rolling.quarters_p999, Some((2.0, 3.0)));
        let fetched = Task { consumers: 1, ..Task::of(BATCHES) }.result(line).unwrap();
        assert_eq!(fetched.value_bytes, 50_000.0);
        assert!(Task::of(BATCHES).result(r#"{"t":"closed"}"#).is_none());
        assert!(says(r#"{"t":"closed"}"#, "closed") && !says("closed", "closed"));
        assert_eq!(progress(r#"{"t":"progress","records":7}"#), Some(7.0));
        assert_eq!(progress(line), None, "a result is no progress");
    }
}
