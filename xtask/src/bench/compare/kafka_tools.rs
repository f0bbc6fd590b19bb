//! Kafka's own perf tools, run as its users run them, and what they print.

use super::row::{Latency, Loaded};
use crate::jvm::{self, Jvm};

/// The largest heap that `kafka-producer-perf-test.sh` and its like give their machine.
const HEAP_MAX: &str = "512M";

/// The command of a tool, without what holds it on a core.
pub(super) fn tool(class_path: &str, class: &str, arguments: &[&str]) -> Vec<String> {
    let mut command = jvm::command(class, class_path, Jvm::AsShipped, HEAP_MAX);
    command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    command
}

/// How often the producer's tool is to report, in milliseconds.
pub(super) const REPORT_EVERY_MS: &str = "500";

/// Records of one report of the producer's tool; none if the line is no report, or the one over the whole run.
pub(super) fn producer_report(line: &str) -> Option<f64> {
    let (records, rest) = line.split_once(" records sent, ")?;
    // Only the closing line has percentiles.
    (!rest.contains(" 99.9th")).then(|| records.trim().parse().ok()).flatten()
}

/// What the consumer's tool says of its whole run: `start, end, MB, MB/s, records, records/s, rebalance ms, fetch ms, ...`.
/// The time of the first rebalance is not the broker's work and does not count.
pub(super) fn consumer_result(line: &str, value_bytes: f64) -> Option<Loaded> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [_, _, _, _, records, _, _, fetch_ms, ..] = fields[..] else { return None };
    let (records, fetch_ms): (f64, f64) = (records.parse().ok()?, fetch_ms.parse().ok()?);
    Some(Loaded { seconds: fetch_ms / 1e3, records, value_bytes: records * value_bytes, ..Loaded::default() })
}

/// What the end-to-end tool says: `Percentiles: 50th = 1, 99th = 2, 99.9th = 3`, whole milliseconds.
pub(super) fn end_to_end_result(line: &str) -> Option<Latency> {
    let mut figures = line.strip_prefix("Percentiles:")?.split(',').map(|part| {
        let (_, figure) = part.split_once('=')?;
        figure.trim().parse::<f64>().ok()
    });
    let mut next = || figures.next().flatten();
    let (p50, p99, p999) = (next()?, next()?, next()?);
    // The tool knows neither of the two.
    Some(Latency { p50, p99, p999, p9999: f64::NAN, max: f64::NAN })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producers_reports_are_read_and_its_closing_line_is_not() {
        let report =
            "5001 records sent, 1000.2 records/sec (0.98 MB/sec), 3.2 ms avg latency, 120.0 ms max latency.";
        assert_eq!(producer_report(report), Some(5001.0));
        let closing = "9000 records sent, 980.1 records/sec (0.96 MB/sec), 1.0 ms avg latency, 9.0 ms max latency, 1 ms 50th, 2 ms 95th, 3 ms 99th, 4 ms 99.9th.";
        assert_eq!(producer_report(closing), None);
        assert_eq!(producer_report("[main] WARN 7 things"), None);
    }

    #[test]
    fn a_consumers_result_leaves_the_rebalance_out() {
        let line = "2026-01-01 00:00:00:000, 2026-01-01 00:00:09:000, 97.6, 10.8, 100000, 11111.1, 4000, 5000, 19.5, 20000.0";
        let loaded = consumer_result(line, 1000.0).unwrap();
        assert_eq!((loaded.seconds, loaded.records, loaded.value_bytes), (5.0, 1e5, 1e8));
        assert_eq!(consumer_result("start.time, end.time, data.consumed.in.MB", 1.0), None);
    }

    #[test]
    fn end_to_end_percentiles_are_read() {
        let latency = end_to_end_result("Percentiles: 50th = 1, 99th = 4, 99.9th = 12").unwrap();
        assert_eq!((latency.p50, latency.p99, latency.p999), (1.0, 4.0, 12.0));
        assert_eq!(end_to_end_result("Avg latency: 1.2345 ms"), None);
    }
}
