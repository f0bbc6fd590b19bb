//! One workload against one broker, once: what came of it, and the figures that are compared.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::contender::Contender;
use super::holds::BOUNDS;
use super::usage::Usage;
use super::warmth::WarmUp;

/// What one broker did in one round.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) contender: Contender,
    /// From 1.
    pub(super) round: usize,
    /// Brokers of the cluster. Several share one core here, and only what they cost says anything of them.
    pub(super) nodes: u32,
    /// None where the load is about a broker that has just been started, or does nothing.
    pub(super) warm_up: Option<WarmUp>,
    pub(super) load: Loaded,
    pub(super) usage: Usage,
    /// From the start of the process until it serves, in milliseconds.
    pub(super) ready_ms: f64,
}

/// What went through in the window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Loaded {
    /// By the driver's own clock.
    pub(super) seconds: f64,
    pub(super) records: f64,
    /// Of values alone: what both brokers were given to carry, whatever they or the client wrap it in. Zero where the
    /// load is so light that the cost of a byte would be the cost of being there.
    pub(super) value_bytes: f64,
    pub(super) latency: Option<Latency>,
    /// The 99.9th percentile in milliseconds of batches that were due in the first and in the last quarter of the window, if
    /// each had enough of them.
    pub(super) quarters_p999: Option<(f64, f64)>,
    /// How late the driver itself was with one batch in a hundred, in milliseconds: no latency below it is the broker's.
    pub(super) driver_late_ms: Option<f64>,
    /// Batches that were due and had no answer when the run ended.
    pub(super) unanswered: u64,
    /// From the start of the process to the first record acknowledged, in milliseconds, where that is what is measured.
    pub(super) first_record_ms: Option<f64>,
}

/// Percentiles in milliseconds; not a number where the driver does not know it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) p9999: f64,
    pub(super) max: f64,
}

/// A figure that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metric {
    CpuPerGb,
    Throughput,
    RssPeak,
    P50,
    P99,
    P999,
    P9999,
    Ready,
    FirstRecord,
    IdleCpu,
    IdleRss,
    Drift,
}

/// Why a row's figure proves nothing of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Of a disturbed row this is said first: its driver's core may be full of neighbours.
    Disturbed,
    DriverBound,
    DriverLate,
    NotHeld,
    /// What a record cost still fell at the end of the warm-up, or could not be told.
    Cold,
}

impl Unfit {
    /// The mark on the row.
    pub(super) fn mark(self) -> &'static str {
        match self {
            Unfit::DriverBound => "driver-bound",
            Unfit::DriverLate => "driver-late",
            Unfit::NotHeld => "not-held",
            Unfit::Disturbed => "disturbed",
            Unfit::Cold => "cold",
        }
    }
}

impl Metric {
    pub(super) const ALL: [Metric; 12] = [
        Metric::CpuPerGb,
        Metric::Throughput,
        Metric::RssPeak,
        Metric::P50,
        Metric::P99,
        Metric::P999,
        Metric::P9999,
        Metric::Ready,
        Metric::FirstRecord,
        Metric::IdleCpu,
        Metric::IdleRss,
        Metric::Drift,
    ];

    /// Its name with its unit.
    pub(super) fn name(self) -> &'static str {
        match self {
            Metric::CpuPerGb => "broker CPU, s/GB",
            Metric::Throughput => "throughput, MB/s",
            Metric::RssPeak => "RSS, MiB",
            Metric::P50 => "p50, ms",
            Metric::P99 => "p99, ms",
            Metric::P999 => "p99.9, ms",
            Metric::P9999 => "p99.99, ms",
            Metric::Ready => "ready, ms",
            Metric::FirstRecord => "first record, ms",
            Metric::IdleCpu => "idle CPU, %",
            Metric::IdleRss => "idle RSS with files, MiB",
            Metric::Drift => "p99.9 drift, x",
        }
    }

    pub(super) fn more_is_better(self) -> bool {
        self == Metric::Throughput
    }

    /// The row's figure; none where the row has no say in it.
    pub(super) fn of(self, row: &Row) -> Option<f64> {
        let Row { load, usage, .. } = row;
        // Brokers that share a core hinder one another: how soon and how much is theirs together, and nobody's figure.
        if row.nodes > 1
            && !matches!(self, Metric::CpuPerGb | Metric::RssPeak | Metric::IdleCpu | Metric::IdleRss)
        {
            return None;
        }
        let figure = match self {
            Metric::CpuPerGb => {
                (load.value_bytes > 0.0).then(|| usage.broker_cpu.as_secs_f64() / (load.value_bytes / 1e9))
            }
            // What the driver could do says nothing of the broker.
            Metric::Throughput if usage.is_driver_bound() => None,
            Metric::Throughput => row.rate().map(|rate| rate / 1e6),
            Metric::RssPeak => (usage.rss_peak_kib > 0).then(|| usage.rss_peak_kib as f64 / 1024.0),
            Metric::P50 => load.latency.map(|latency| latency.p50),
            Metric::P99 => load.latency.map(|latency| latency.p99),
            Metric::P999 => load.latency.map(|latency| latency.p999),
            Metric::P9999 => load.latency.map(|latency| latency.p9999),
            Metric::Ready => Some(row.ready_ms),
            Metric::FirstRecord => load.first_record_ms,
            Metric::IdleCpu => (*load == Loaded::default() && !usage.wall.is_zero())
                .then(|| usage.broker_cpu.as_secs_f64() / usage.wall.as_secs_f64() * 100.0),
            Metric::IdleRss => (*load == Loaded::default() && usage.resident_kib > 0)
                .then(|| usage.resident_kib as f64 / 1024.0),
            Metric::Drift => load.quarters_p999.map(|(first, last)| last / first),
        };
        figure.filter(|figure| figure.is_finite())
    }
}

impl Row {
    /// Bytes a second that went through, driver-bound or not.
    pub(super) fn rate(&self) -> Option<f64> {
        (self.load.value_bytes > 0.0 && self.load.seconds > 0.0)
            .then(|| self.load.value_bytes / self.load.seconds)
    }

    /// What keeps a figure of this row from being a verdict on the broker. Memory is what it is, whoever else runs.
    pub(super) fn unfit_for(&self, metric: Metric) -> Option<Unfit> {
        let is_latency =
            matches!(metric, Metric::P50 | Metric::P99 | Metric::P999 | Metric::P9999 | Metric::Drift);
        let is_throughput = metric == Metric::Throughput;
        self.unfit().into_iter().find(|unfit| match unfit {
            Unfit::DriverBound | Unfit::NotHeld => is_throughput,
            Unfit::DriverLate => is_latency,
            Unfit::Disturbed => !matches!(metric, Metric::RssPeak | Metric::IdleRss),
            // A quarter of an hour is long beside any compiler's work.
            Unfit::Cold => {
                is_latency && metric != Metric::Drift || is_throughput || metric == Metric::CpuPerGb
            }
        })
    }

    fn unfit(&self) -> Vec<Unfit> {
        let mut unfit = Vec::new();
        if self.usage.disturbed_share() > DISTURBED_ABOVE {
            unfit.push(Unfit::Disturbed);
        }
        if self.usage.is_driver_bound() && self.load.value_bytes > 0.0 {
            unfit.push(Unfit::DriverBound);
        }
        if self.usage.threads_not_held > 0 {
            unfit.push(Unfit::NotHeld);
        }
        // Half of what is told of one batch in a hundred was the driver's own.
        if let (Some(late), Some(latency)) = (self.load.driver_late_ms, self.load.latency)
            && late * 2.0 > latency.p99
        {
            unfit.push(Unfit::DriverLate);
        }
        if self.warm_up.is_some_and(WarmUp::leaves_cold) {
            unfit.push(Unfit::Cold);
        }
        unfit
    }

    /// What a reader of the row must know.
    pub(super) fn marks(&self) -> Vec<&'static str> {
        let mut marks: Vec<&str> = self.unfit().into_iter().map(Unfit::mark).collect();
        if self.load.unanswered > 0 {
            marks.push("unanswered");
        }
        marks
    }

    /// One line for who watches.
    pub(super) fn text(&self) -> String {
        let mut words = vec![format!("{:<6} round {}:", self.contender.name(), self.round)];
        if let Some(rate) = self.rate() {
            words.push(format!(
                "{:.1} MB/s, {:.0} records/s,",
                rate / 1e6,
                self.load.records / self.load.seconds
            ));
        }
        if let Some(cpu) = Metric::CpuPerGb.of(self) {
            words.push(format!("{cpu:.3} CPU s/GB,"));
        }
        if let Some(Latency { p50, p99, p999, .. }) = self.load.latency {
            words.push(format!("p50 {p50:.2} p99 {p99:.2} p99.9 {p999:.2} ms,"));
        }
        if let Some((first, last)) = self.load.quarters_p999 {
            words.push(format!("p99.9 of the first quarter {first:.2} ms, of the last {last:.2} ms,"));
        }
        if let Some(first) = self.load.first_record_ms {
            words.push(format!("first record after {first:.1} ms,"));
        }
        if let Some(WarmUp { seconds, trend }) = self.warm_up {
            let trend = trend.map_or("-".to_owned(), |trend| format!("{trend:.2} x"));
            words.push(format!("warmed for {seconds:.1} s, CPU of a record {trend} at its end,"));
        }
        let usage = &self.usage;
        words.push(format!(
            "RSS {:.0} MiB, {} threads, {:.0} MB read from the disk, {:.0} MB written, cores busy: broker's {:.0} % ({:.0} % not its own), driver's {:.0} %, neighbours {:.2} s, stolen {:.2} s",
            usage.rss_peak_kib as f64 / 1024.0,
            usage.threads,
            usage.read_bytes as f64 / 1e6,
            usage.written_bytes as f64 / 1e6,
            usage.broker_core_busy * 100.0,
            usage.foreign_share() * 100.0,
            usage.driver_core_busy * 100.0,
            usage.neighbours_cpu.as_secs_f64(),
            usage.stolen.as_secs_f64(),
        ));
        if let Some(holds) = usage.long_holds {
            words.push(format!("{},", holds.text()));
            words.push(format!("waited {:.2} s for their CPU", usage.cores_waited.as_secs_f64()));
        }
        for mark in self.marks() {
            words.push(format!("[{mark}]"));
        }
        words.join(" ")
    }

    /// All of it.
    pub(super) fn json(&self) -> Value {
        let usage = &self.usage;
        json!({
            "broker": self.contender.name(),
            "round": self.round,
            "nodes": self.nodes,
            "marks": self.marks(),
            "warm_s": self.warm_up.map(|warm_up| warm_up.seconds),
            "warm_up_trend": self.warm_up.and_then(|warm_up| warm_up.trend),
            "seconds": self.load.seconds,
            "records": self.load.records,
            "value_bytes": self.load.value_bytes,
            "value_bytes_per_second": self.rate(),
            "latency_ms": self.load.latency.map(|latency| json!({
                "p50": latency.p50, "p99": latency.p99, "p99.9": latency.p999, "p99.99": latency.p9999, "max": latency.max,
            })),
            "first_and_last_quarter_p99.9_ms": self.load.quarters_p999,
            "driver_late_p99_ms": self.load.driver_late_ms,
            "unanswered_batches": self.load.unanswered,
            "ready_ms": self.ready_ms,
            "first_record_ms": self.load.first_record_ms,
            "window_s": usage.wall.as_secs_f64(),
            "broker_cpu_s": usage.broker_cpu.as_secs_f64(),
            "broker_cpu_s_per_gb": Metric::CpuPerGb.of(self),
            "read_bytes": usage.read_bytes,
            "written_bytes": usage.written_bytes,
            "rss_peak_without_page_cache_kib": usage.rss_peak_kib,
            "rss_with_files_kib": usage.resident_kib,
            "threads": usage.threads,
            "threads_not_held": usage.threads_not_held,
            "driver_core_busy": usage.driver_core_busy,
            "broker_core_busy": usage.broker_core_busy,
            "foreign_cpu_s_on_broker_core": usage.foreign_cpu.as_secs_f64(),
            "neighbours_cpu_s": usage.neighbours_cpu.as_secs_f64(),
            "stolen_s": usage.stolen.as_secs_f64(),
            "cores_waited_for_cpu_s": usage.long_holds.map(|_| usage.cores_waited.as_secs_f64()),
            "cores_held_longer_than": usage.long_holds.map(|holds| {
                BOUNDS.iter().zip(holds.0).map(|((_, bound), count)| (*bound, count)).collect::<BTreeMap<_, _>>()
            }),
        })
    }
}

/// Neighbours and the machine below took more than this share of a core: the row would look otherwise without them.
const DISTURBED_ABOVE: f64 = 0.2;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::time::Duration;

    /// A row whose broker needed so many CPU seconds for so many bytes in ten seconds.
    pub(crate) fn row(contender: Contender, round: usize, cpu_s: u64, value_bytes: f64) -> Row {
        let wall = Duration::from_secs(10);
        Row {
            contender,
            round,
            nodes: 1,
            warm_up: Some(WarmUp { seconds: 60.0, trend: Some(1.0) }),
            load: Loaded { seconds: 10.0, records: value_bytes / 1000.0, value_bytes, ..Loaded::default() },
            usage: Usage {
                wall,
                broker_cpu: Duration::from_secs(cpu_s),
                rss_peak_kib: 2048,
                ..Usage::default()
            },
            ready_ms: 50.0,
        }
    }

    #[test]
    fn a_driver_bound_row_has_no_throughput_but_its_cost() {
        let mut row = row(Contender::Ouzel, 1, 4, 2e9);
        assert_eq!(Metric::Throughput.of(&row), Some(200.0));
        row.usage.driver_core_busy = 0.95;
        assert_eq!(Metric::Throughput.of(&row), None);
        assert_eq!(Metric::CpuPerGb.of(&row), Some(2.0));
        assert!(row.text().contains("[driver-bound]"));
        assert_eq!(row.json()["marks"], json!(["driver-bound"]));
    }

    #[test]
    fn without_load_there_is_only_what_idleness_costs() {
        let mut row = row(Contender::Kafka, 1, 1, 0.0);
        row.load = Loaded::default();
        assert_eq!((Metric::CpuPerGb.of(&row), Metric::Throughput.of(&row)), (None, None));
        assert_eq!((Metric::IdleCpu.of(&row), Metric::RssPeak.of(&row)), (Some(10.0), Some(2.0)));
        // The whole of an idle broker counts, its own program among it.
        row.usage.resident_kib = 10 << 10;
        assert_eq!(Metric::IdleRss.of(&row), Some(10.0));
    }

    #[test]
    fn a_driver_that_was_late_itself_is_said() {
        let mut row = row(Contender::Ouzel, 1, 1, 1e9);
        row.load.latency = Some(Latency { p50: 1.0, p99: 4.0, p999: 5.0, p9999: 6.0, max: 7.0 });
        row.load.driver_late_ms = Some(2.0);
        assert!(row.marks().is_empty());
        row.load.driver_late_ms = Some(2.1);
        row.load.unanswered = 1;
        assert_eq!(row.marks(), ["driver-late", "unanswered"]);
    }

    #[test]
    fn neighbours_are_said_and_prove_nothing_but_memory() {
        let mut row = row(Contender::Null, 2, 4, 1e9);
        row.usage.foreign_cpu = Duration::from_secs(9);
        assert!(row.marks().is_empty(), "the kernel's writers are no neighbours");
        row.usage.neighbours_cpu = Duration::from_secs(3);
        row.usage.threads_not_held = 1;
        assert_eq!(row.marks(), ["disturbed", "not-held"]);
        assert_eq!(row.unfit_for(Metric::CpuPerGb), Some(Unfit::Disturbed));
        assert_eq!(row.unfit_for(Metric::Throughput), Some(Unfit::Disturbed));
        row.usage.neighbours_cpu = Duration::ZERO;
        assert_eq!(row.unfit_for(Metric::Throughput), Some(Unfit::NotHeld));
        assert_eq!(row.unfit_for(Metric::CpuPerGb), None);
        row.usage.neighbours_cpu = Duration::from_secs(3);
        assert_eq!(row.unfit_for(Metric::RssPeak), None);
    }

    #[test]
    fn a_broker_that_still_became_faster_proves_what_it_keeps_and_not_what_it_costs() {
        let mut row = row(Contender::Kafka, 1, 4, 1e9);
        row.warm_up = Some(WarmUp { seconds: 8.0, trend: Some(0.5) });
        assert_eq!(row.marks(), ["cold"]);
        for metric in [Metric::CpuPerGb, Metric::Throughput, Metric::P99] {
            assert_eq!(row.unfit_for(metric), Some(Unfit::Cold));
        }
        for metric in [Metric::RssPeak, Metric::Drift, Metric::IdleRss, Metric::FirstRecord] {
            assert_eq!(row.unfit_for(metric), None);
        }
        assert!(row.text().contains("warmed for 8.0 s, CPU of a record 0.50 x at its end"), "{}", row.text());
        assert_eq!(row.json()["warm_s"], 8.0);
        row.warm_up = None;
        assert!(row.marks().is_empty(), "a start is as cold as it is");
    }

    /// Three brokers on one core: their throughput is that of the core, not theirs.
    #[test]
    fn a_cluster_on_one_core_has_only_its_cost() {
        let mut row = row(Contender::Ouzel, 1, 4, 2e9);
        row.nodes = 3;
        assert_eq!(Metric::Throughput.of(&row), None);
        assert_eq!(Metric::Ready.of(&row), None);
        assert_eq!(Metric::CpuPerGb.of(&row), Some(2.0));
    }

    #[test]
    fn drift_is_the_last_quarter_by_the_first() {
        let mut row = row(Contender::Ouzel, 1, 1, 1e9);
        assert_eq!(Metric::Drift.of(&row), None);
        row.load.quarters_p999 = Some((2.0, 3.0));
        assert_eq!(Metric::Drift.of(&row), Some(1.5));
    }
}
