//! All rows of a run, as text and as JSON.

use serde_json::{Value, json};

use super::contender::Contender;
use super::driving::Phases;
use super::goal::{GOALS, Verdict};
use super::ratio;
use super::row::{Metric, Row};
use super::workload::Workload;
use crate::bench::statistics::Span;

/// What a run has found.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) facts: Value,
    pub(super) quick: bool,
    phases: Phases,
    pub(super) played: Vec<(&'static Workload, Vec<Row>)>,
    left_out: Vec<(&'static str, String)>,
}

impl Report {
    pub(super) fn new(facts: Value, quick: bool, phases: Phases) -> Report {
        Report { facts, quick, phases, played: Vec::new(), left_out: Vec::new() }
    }

    pub(super) fn add(&mut self, workload: &'static Workload, rows: Vec<Row>) {
        self.played.push((workload, rows));
    }

    pub(super) fn leave_out(&mut self, workload: &'static Workload, reason: &str) {
        self.left_out.push((workload.name, reason.to_owned()));
    }

    pub(super) fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// The smaller of ouzel's and Kafka's median bytes a second in a workload, if both played it. A driver-bound row counts:
    /// more than the driver can do cannot be offered.
    pub(super) fn smaller_maximum(&self, workload: &str) -> Option<f64> {
        let (_, rows) = self.played.iter().find(|(played, _)| played.name == workload)?;
        let median = |contender| {
            let its = rows.iter().filter(|row| row.contender == contender);
            Span::of(its.filter_map(Row::rate).collect()).map(|span| span.median)
        };
        Some(median(Contender::Ouzel)?.min(median(Contender::Kafka)?))
    }

    /// What a reader must know before any figure.
    pub(super) fn caveat(&self) -> String {
        let rows: Vec<&Row> = self.played.iter().flat_map(|(_, rows)| rows).collect();
        let marked = |mark| rows.iter().filter(|row| row.marks().contains(&mark)).count();
        let mut text = format!(
            "{} rows, usually {} s warm and {} s measured; {} driver-bound, {} disturbed by others, {} cold",
            rows.len(),
            self.phases.warm.as_secs(),
            self.phases.measured.as_secs(),
            marked("driver-bound"),
            marked("disturbed"),
            marked("cold")
        );
        if self.quick {
            text.push_str(". The short form: Kafka's compiler is not at rest after so short a warm-up, so nothing beside Kafka is judged by it");
        }
        text
    }

    pub(super) fn text(&self) -> String {
        let fact = |name: &str| match &self.facts[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut text = format!(
            "machine   {}, {} cores, {} MiB, Linux {}, {} ({}), load {}\n\
             versions  ouzel {}, {}; Kafka {}; {}\n\
             pinning   brokers on core {}, drivers and harness on core {}\n\
             run       {}\n",
            fact("cpu"),
            fact("cores"),
            fact("memory_mib"),
            fact("kernel"),
            fact("filesystem"),
            fact("device"),
            fact("load_1m"),
            fact("commit"),
            fact("rustc"),
            fact("kafka"),
            fact("java"),
            fact("broker_core"),
            fact("driver_core"),
            self.caveat(),
        );
        for (workload, rows) in &self.played {
            text.push_str(&self.section(workload, rows));
        }
        text.push_str(&self.goals_section());
        for (name, reason) in &self.left_out {
            text.push_str(&format!("\n{name}: left out or broken off: {reason}\n"));
        }
        text
    }

    /// Every goal with each of its workloads, in the table's order.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        let rows_of = |name: &str| {
            let found = self.played.iter().find(|(workload, _)| workload.name == name);
            found.map(|(_, rows)| rows.as_slice())
        };
        GOALS
            .iter()
            .flat_map(|goal| goal.workloads.iter().map(move |name| (goal, *name)))
            .map(|(goal, name)| Verdict::of(goal, name, rows_of(name), self.quick))
            .collect()
    }

    fn goals_section(&self) -> String {
        let mut text = "\ngoals: medians of the rounds that count\n".to_owned();
        let mut what = "";
        for verdict in self.verdicts() {
            if verdict.goal.what != what {
                what = verdict.goal.what;
                text.push_str(&format!("  {what}\n"));
            }
            text.push_str(&format!(
                "    {:<42} {:<66} {}\n",
                verdict.workload,
                verdict.figures(),
                verdict.word()
            ));
        }
        text
    }

    fn section(&self, workload: &Workload, rows: &[Row]) -> String {
        let mut text = format!("\n{} [{}]\n", workload.name, workload.mode.word());
        if workload.nodes > 1 {
            text.push_str(&format!("    {}\n", SHARED_CORE));
        }
        for contender in workload.contenders() {
            text.push_str(&format!("    {:<6} {}\n", contender.name(), workload.mode.of(contender)));
        }
        if let Some(line) = warm_line(workload, rows) {
            text.push_str(&line);
        }
        let header = ["", "ouzel", "kafka", "null", "ouzel / kafka", "ouzel / null"];
        text.push_str(&line(&header.map(str::to_owned)));
        for metric in Metric::ALL {
            let of = |contender| ratio::figure(rows, contender, metric);
            let (ouzel, kafka, null) = (of(Contender::Ouzel), of(Contender::Kafka), of(Contender::Null));
            if ouzel.is_none() && kafka.is_none() && null.is_none() {
                continue;
            }
            let to_kafka = ratio::ratio(rows, Contender::Ouzel, Contender::Kafka, metric);
            let cells = [
                metric.name().to_owned(),
                span(ouzel),
                span(kafka),
                span(null),
                span(to_kafka),
                span(ratio::ratio_to_floor(rows, metric)),
            ];
            text.push_str(&line(&cells));
        }
        if rows.iter().any(|row| row.marks().contains(&"driver-bound")) {
            text.push_str("    driver-bound rows count for nothing in throughput\n");
        }
        for verdict in self.verdicts().iter().filter(|verdict| verdict.workload == workload.name) {
            text.push_str(&format!(
                "    goal: {}: {}: {}\n",
                verdict.goal.metric.name(),
                verdict.figures(),
                verdict.word()
            ));
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let workloads: Vec<Value> =
            self.played.iter().map(|(workload, rows)| self.workload_json(workload, rows)).collect();
        let left_out: Vec<Value> =
            self.left_out.iter().map(|(name, reason)| json!({"name": name, "reason": reason})).collect();
        json!({
            "bench": "compare",
            "quick": self.quick,
            "caveat": self.caveat(),
            "machine": self.facts,
            "warm_s": self.phases.warm.as_secs(),
            "measured_s": self.phases.measured.as_secs(),
            "goals": self.verdicts().iter().map(Verdict::json).collect::<Vec<_>>(),
            "workloads": workloads,
            "left_out": left_out,
        })
    }

    fn workload_json(&self, workload: &Workload, rows: &[Row]) -> Value {
        let mut figures = serde_json::Map::new();
        for metric in Metric::ALL {
            let of = |contender| span_json(ratio::figure(rows, contender, metric));
            let figure = json!({
                "ouzel": of(Contender::Ouzel),
                "kafka": of(Contender::Kafka),
                "null": of(Contender::Null),
                "ouzel_to_kafka": span_json(ratio::ratio(rows, Contender::Ouzel, Contender::Kafka, metric)),
                "ouzel_to_null": span_json(ratio::ratio_to_floor(rows, metric)),
            });
            if figure.as_object().is_some_and(|fields| fields.values().any(|field| !field.is_null())) {
                figures.insert(metric.name().to_owned(), figure);
            }
        }
        let modes: serde_json::Map<String, Value> = workload
            .contenders()
            .into_iter()
            .map(|contender| (contender.name().to_owned(), workload.mode.of(contender).into()))
            .collect();
        let warm_s: serde_json::Map<String, Value> = workload
            .contenders()
            .into_iter()
            .map(|contender| (contender.name().to_owned(), span_json(warm_s(rows, contender))))
            .collect();
        json!({
            "name": workload.name,
            "mode": workload.mode.word(),
            "modes": modes,
            "partitions": workload.partitions,
            "nodes": workload.nodes,
            "load": format!("{:?}", workload.load),
            "settings": workload.settings,
            "figures": figures,
            "warm_s": warm_s,
            "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
        })
    }
}

/// How long a contender was warmed.
fn warm_s(rows: &[Row], contender: Contender) -> Option<Span> {
    let its = rows.iter().filter(|row| row.contender == contender);
    Span::of(its.filter_map(|row| Some(row.warm_up?.seconds)).collect())
}

/// How long each was warmed: a phase that is full ends before its time.
fn warm_line(workload: &Workload, rows: &[Row]) -> Option<String> {
    let of =
        |contender| Some(format!("{} {}", Contender::name(contender), span(Some(warm_s(rows, contender)?))));
    let each: Vec<String> = workload.contenders().into_iter().filter_map(of).collect();
    (!each.is_empty()).then(|| format!("    warmed for, s: {}\n", each.join(", ")))
}

/// What stands on the rows of a cluster.
const SHARED_CORE: &str =
    "all brokers of the cluster share one core: only what they cost counts, summed over all of them";

fn line(cells: &[String; 6]) -> String {
    let [name, rest @ ..] = cells;
    let mut line = format!("    {name:<18}");
    for cell in rest {
        line.push_str(&format!(" {cell:>26}"));
    }
    format!("{}\n", line.trim_end())
}

/// `median (min-max)`.
fn span(span: Option<Span>) -> String {
    match span {
        None => "-".to_owned(),
        Some(Span { median, min, max }) => {
            format!("{} ({}-{})", figure(median), figure(min), figure(max))
        }
    }
}

/// Three figures that count.
pub(super) fn figure(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn span_json(span: Option<Span>) -> Value {
    span.map_or(Value::Null, |span| json!({"median": span.median, "min": span.min, "max": span.max}))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::row::tests::row;
    use super::super::workload::WORKLOADS;
    use super::*;
    use std::time::Duration;

    pub(crate) fn report(quick: bool) -> Report {
        let second = Duration::from_secs(1);
        let facts = json!({"cpu": "x", "cores": 2, "kafka": "4.3.0"});
        let mut report = Report::new(facts, quick, Phases { warm: second, measured: second });
        let rows = vec![
            row(Contender::Ouzel, 1, 1, 1e9),
            row(Contender::Kafka, 1, 5, 1e9),
            row(Contender::Null, 1, 1, 2e9),
        ];
        report.add(&WORKLOADS[0], rows);
        report.leave_out(&WORKLOADS[1], "no time");
        report
    }

    #[test]
    fn ratios_modes_and_goals_stand_in_text_and_json() {
        let text = report(false).text();
        for due in [
            "0.200 (0.200-0.200)",
            "2.00 (2.00-2.00)",
            "[no flush]",
            "warmed for, s: ouzel 60.0 (60.0-60.0), kafka 60.0 (60.0-60.0), null 60.0 (60.0-60.0)",
            "log.ouzel.durability=os",
            "0.200 x Kafka (<= 0.25), 2.00 x null (<= 1.4), 1 of 1 rounds: met",
            "idle                                       - (<= 32)",
            "left out or broken off: no time",
        ] {
            assert!(text.contains(due), "{due}: {text}");
        }
        let json = report(false).json();
        let figures = &json["workloads"][0]["figures"]["broker CPU, s/GB"];
        assert_eq!(figures["ouzel_to_kafka"]["median"], 0.2);
        assert_eq!(json["goals"][0]["standing"], "met");
        assert_eq!(json["goals"][1]["not_judged_because"], "not played");
        assert_eq!(json["workloads"][0]["modes"]["kafka"], "as shipped: acknowledges from the page cache");
    }

    #[test]
    fn the_short_form_judges_no_goal() {
        let text = report(true).text();
        assert!(text.contains(": not judged: short form") && !text.contains("met\n"), "{text}");
    }

    #[test]
    fn the_smaller_side_decides_what_is_offered() {
        let mut report = report(false);
        report.played[0].1[1].load.value_bytes = 5e8;
        assert_eq!(report.smaller_maximum(WORKLOADS[0].name), Some(5e7));
        assert_eq!(report.smaller_maximum(WORKLOADS[1].name), None);
    }

    #[test]
    fn three_figures_count() {
        assert_eq!([123.4, 12.34, 1.234, 0.1234].map(figure), ["123", "12.3", "1.23", "0.123"]);
    }
}
