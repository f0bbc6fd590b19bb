//! What ouzel is to reach, as data, and how each goal stands by the rows of a run.

use std::time::Duration;

use serde_json::{Value, json};

use super::contender::Contender;
use super::ratio::{figures, ratios};
use super::report::figure;
use super::row::{Metric, Row, Unfit};
use crate::bench::statistics::Span;

/// One goal: a figure, a bound, and the workloads that it is judged by, each by itself.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) what: &'static str,
    pub(super) metric: Metric,
    pub(super) bound: Bound,
    pub(super) workloads: &'static [&'static str],
}

/// What a figure of ouzel's is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    /// Kafka's figure of the same round, times this: at most, or at least where more is better.
    TimesKafka(f64),
    /// At most this, in the figure's own unit.
    AtMost(f64),
    /// At most this, and at most Kafka's.
    AtMostAndKafkas(f64),
    /// What the null broker carries with a CPU second, times this, at least. CPU it is because the null broker fills a core
    /// that no driver on another core can fill for it: its throughput is the driver's, its cost is its own.
    PartOfNull(f64),
}

/// As the harness's clock sees it.
const AN_HOUR: Duration = Duration::from_secs(3_590);

/// CPU this close to the null broker's is as good as the goal: nothing is left to save.
const NEAR_THE_FLOOR: f64 = 1.4;

/// The table of goals.
#[rustfmt::skip]
pub(super) const GOALS: &[Goal] = &[
    goal("CPU of producing, 1 KiB records, a client's own batches", Metric::CpuPerGb, Bound::TimesKafka(0.25), &["producer-perf 1KiB, 1 partition", "producer-perf 1KiB, 100 partitions", "librdkafka produce 1KiB, 1 partition", "librdkafka produce 1KiB, 100 partitions"]),
    goal("CPU of producing, 100 B records keyed, 200 producers", Metric::CpuPerGb, Bound::TimesKafka(0.33), &["produce 100B keyed, 200 producers"]),
    goal("CPU of fetching", Metric::CpuPerGb, Bound::TimesKafka(0.5), &["fetch from the page cache", "fetch from the disk", "consumer-perf 1KiB", "librdkafka fetch 1KiB"]),
    goal("produce throughput, broker on one core", Metric::Throughput, Bound::TimesKafka(2.0), &["produce 64KiB batches", "produce 16KiB batches"]),
    goal("throughput of flushed acks=all", Metric::Throughput, Bound::TimesKafka(5.0), &["produce flushed, 16 partitions", "produce flushed, 100 partitions"]),
    goal("end to end at half of the smaller maximum, p99", Metric::P99, Bound::TimesKafka(0.25), &["end to end at 50 %"]),
    goal("end to end at half of the smaller maximum, p99.9", Metric::P999, Bound::TimesKafka(0.25), &["end to end at 50 %"]),
    goal("p99.9 while retention rolls, last quarter by first", Metric::Drift, Bound::AtMostAndKafkas(1.25), &["retention rolls for long"]),
    goal("RSS idle", Metric::IdleRss, Bound::AtMost(32.0), &["idle"]),
    goal("RSS under load", Metric::RssPeak, Bound::TimesKafka(0.25), &["producer-perf 1KiB, 1 partition", "producer-perf 1KiB, 100 partitions", "produce 64KiB batches", "produce 100B keyed, 200 producers", "fetch from the page cache"]),
    goal("start to the first record, empty", Metric::FirstRecord, Bound::TimesKafka(0.05), &["start, empty"]),
    goal("start to the first record, with 10 GiB", Metric::FirstRecord, Bound::TimesKafka(0.1), &["start with 10 GiB"]),
    goal("three nodes, acks=all, CPU over all of them", Metric::CpuPerGb, Bound::TimesKafka(0.33), &["three nodes, producer-perf 1KiB", "three nodes, librdkafka produce 1KiB"]),
    goal("part of the null broker, 64 KiB batches", Metric::CpuPerGb, Bound::PartOfNull(0.6), &["produce 64KiB batches"]),
    goal("part of the null broker, fetch by sendfile", Metric::CpuPerGb, Bound::PartOfNull(0.75), &["fetch from the page cache"]),
];

const fn goal(what: &'static str, metric: Metric, bound: Bound, workloads: &'static [&'static str]) -> Goal {
    Goal { what, metric, bound, workloads }
}

/// How a goal stands in a workload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Standing {
    Met,
    /// Not beside Kafka, but near the null broker.
    MetAtTheFloor,
    /// So many times too much, or too little.
    Missed(f64),
    /// Not one round has a pair of figures that prove something.
    NotJudged(Lack),
}

/// Why a goal is not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    NotPlayed,
    /// The short form: Kafka's compiler is not at rest.
    ShortForm,
    Unfit(Unfit),
    NoFigure,
    /// Fewer than half of those that were played.
    FewRounds,
}

/// A goal's standing, with the figures that it comes from: medians over the rounds that count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verdict {
    pub(super) goal: &'static Goal,
    pub(super) workload: &'static str,
    pub(super) standing: Standing,
    /// What the bound is about: a ratio to Kafka, a part of the null broker, or ouzel's own figure.
    figure: Option<Span>,
    /// Rounds that the figure comes from, and rounds that were played.
    rounds: (usize, usize),
    /// Kafka's own figure, where it is part of the bound by itself.
    kafkas: Option<f64>,
    /// Of CPU: ouzel's by the null broker's.
    to_floor: Option<f64>,
}

impl Verdict {
    /// Judges a workload's rows, `None` if it was not played.
    pub(super) fn of(
        goal: &'static Goal,
        workload: &'static str,
        rows: Option<&[Row]>,
        is_short_form: bool,
    ) -> Verdict {
        let mut verdict = Verdict {
            goal,
            workload,
            standing: Standing::NotJudged(Lack::NotPlayed),
            figure: None,
            rounds: (0, 0),
            kafkas: None,
            to_floor: None,
        };
        let Some(rows) = rows else { return verdict };
        let is_fit = |row: &&Row| match row.unfit_for(goal.metric) {
            None => true,
            // The short form is cold as a whole, says so, and judges nothing.
            Some(Unfit::Cold) => is_short_form,
            Some(_) => false,
        };
        let fit: Vec<Row> = rows.iter().filter(is_fit).cloned().collect();
        let figures = goal.bound.figures(&fit, goal.metric);
        let played = rows.iter().map(|row| row.round).max().unwrap_or(0);
        let is_half = |counting: usize| counting * 2 >= played;
        verdict.rounds = (figures.len(), played);
        verdict.figure = Span::of(figures);
        verdict.kafkas = match goal.bound {
            Bound::AtMostAndKafkas(_) => median(&fit, Contender::Kafka, goal.metric),
            _ => None,
        };
        verdict.to_floor = match (goal.bound, goal.metric) {
            (Bound::TimesKafka(_), Metric::CpuPerGb) => {
                let to_floor = ratios(&fit, Contender::Ouzel, Contender::Null, goal.metric);
                // The short form plays the null broker once, and judges nothing by it.
                let counts = is_short_form || is_half(to_floor.len());
                Span::of(to_floor).filter(|_| counts).map(|span| span.median)
            }
            _ => None,
        };
        // What needs no warm compiler is judged by any form. Drift is that of an hour.
        let is_short = match goal.metric {
            Metric::Drift => rows.iter().any(|row| row.usage.wall < AN_HOUR),
            _ => is_short_form && !matches!(goal.bound, Bound::AtMost(_)),
        };
        verdict.standing = match verdict.judged() {
            None => Standing::NotJudged(lack(rows, goal.metric)),
            Some(_) if is_short => Standing::NotJudged(Lack::ShortForm),
            Some(_) if !is_half(verdict.rounds.0) => Standing::NotJudged(Lack::FewRounds),
            Some(standing) => standing,
        };
        verdict
    }

    /// By the figures alone; none if one that is needed is missing.
    fn judged(&self) -> Option<Standing> {
        let found = self.figure?.median;
        let (allowed, is_least) = match self.goal.bound {
            Bound::TimesKafka(times) => (times, self.goal.metric.more_is_better()),
            Bound::AtMost(most) => (most, false),
            Bound::AtMostAndKafkas(most) => (most.min(self.kafkas?), false),
            Bound::PartOfNull(part) => (part, true),
        };
        let off = if is_least { allowed / found } else { found / allowed };
        Some(match self.to_floor {
            _ if off <= 1.0 => Standing::Met,
            Some(to_floor) if to_floor <= NEAR_THE_FLOOR => Standing::MetAtTheFloor,
            _ => Standing::Missed(off),
        })
    }

    /// `met`, `MISSED`, or why neither.
    pub(super) fn word(&self) -> String {
        match self.standing {
            Standing::Met => "met".to_owned(),
            Standing::MetAtTheFloor => "met at the floor".to_owned(),
            Standing::Missed(off) => format!("MISSED {}-fold", figure(off)),
            Standing::NotJudged(lack) => format!("not judged: {}", lack.text()),
        }
    }

    /// The figures: `0.400 x Kafka (<= 0.25), 2.90 x null (<= 1.4), 4 of 5 rounds`.
    pub(super) fn figures(&self) -> String {
        let Some(found) = self.figure.map(|span| figure(span.median)) else {
            return format!("- ({})", self.goal.bound.text(self.goal.metric));
        };
        let bound = self.goal.bound.text(self.goal.metric);
        let mut text = match self.goal.bound {
            Bound::TimesKafka(_) => format!("{found} x Kafka ({bound})"),
            Bound::AtMost(_) => format!("{found} ({bound})"),
            Bound::AtMostAndKafkas(_) => {
                let kafkas = self.kafkas.map_or("-".to_owned(), figure);
                format!("{found}, Kafka {kafkas} ({bound})")
            }
            Bound::PartOfNull(_) => format!("{found} of the null broker ({bound})"),
        };
        if let Some(to_floor) = self.to_floor {
            text.push_str(&format!(", {} x null (<= {NEAR_THE_FLOOR})", figure(to_floor)));
        }
        let (counting, played) = self.rounds;
        text.push_str(&format!(", {counting} of {played} rounds"));
        text
    }

    pub(super) fn json(&self) -> Value {
        let (standing, missed_by) = match self.standing {
            Standing::Met => ("met", None),
            Standing::MetAtTheFloor => ("met at the floor", None),
            Standing::Missed(off) => ("missed", Some(off)),
            Standing::NotJudged(_) => ("not judged", None),
        };
        let reason = match self.standing {
            Standing::NotJudged(lack) => Some(lack.text()),
            _ => None,
        };
        json!({
            "goal": self.goal.what,
            "workload": self.workload,
            "figure": self.goal.metric.name(),
            "bound": self.goal.bound.text(self.goal.metric),
            "standing": standing,
            "missed_by_factor": missed_by,
            "not_judged_because": reason,
            "rounds_that_count": self.rounds.0,
            "rounds": self.rounds.1,
            "found": self.figure.map(|span| json!({"median": span.median, "min": span.min, "max": span.max})),
            "kafka": self.kafkas,
            "to_null": self.to_floor,
        })
    }
}

impl Bound {
    /// What is held against the bound, of each round that counts.
    fn figures(self, fit: &[Row], metric: Metric) -> Vec<f64> {
        match self {
            Bound::TimesKafka(_) => ratios(fit, Contender::Ouzel, Contender::Kafka, metric),
            // Of a cost, the smaller one carries more.
            Bound::PartOfNull(_) => ratios(fit, Contender::Null, Contender::Ouzel, metric),
            Bound::AtMost(_) | Bound::AtMostAndKafkas(_) => figures(fit, Contender::Ouzel, metric),
        }
    }

    fn text(self, metric: Metric) -> String {
        match self {
            Bound::TimesKafka(times) if metric.more_is_better() => format!(">= {times}"),
            Bound::TimesKafka(most) | Bound::AtMost(most) => format!("<= {most}"),
            Bound::AtMostAndKafkas(most) => format!("<= {most} and <= Kafka's"),
            Bound::PartOfNull(part) => format!(">= {part}"),
        }
    }
}

fn median(rows: &[Row], contender: Contender, metric: Metric) -> Option<f64> {
    super::ratio::figure(rows, contender, metric).map(|span| span.median)
}

/// Why no round has a pair that counts: what spoils most of the rows.
fn lack(rows: &[Row], metric: Metric) -> Lack {
    let spoilt: Vec<Unfit> = rows.iter().filter_map(|row| row.unfit_for(metric)).collect();
    let count = |unfit: &Unfit| spoilt.iter().filter(|other| *other == unfit).count();
    match spoilt.iter().max_by_key(|unfit| count(unfit)) {
        Some(unfit) => Lack::Unfit(*unfit),
        None => Lack::NoFigure,
    }
}

impl Lack {
    fn text(self) -> &'static str {
        match self {
            Lack::NotPlayed => "not played",
            Lack::ShortForm => "short form",
            Lack::Unfit(unfit) => unfit.mark(),
            Lack::NoFigure => "no figure",
            Lack::FewRounds => "few rounds count",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::super::warmth::WarmUp;
    use super::super::workload::WORKLOADS;
    use super::*;

    const fn of(metric: Metric, bound: Bound) -> Goal {
        goal("x", metric, bound, &["y"])
    }

    fn judge(goal: &'static Goal, rows: &[Row]) -> Verdict {
        Verdict::of(goal, "y", Some(rows), false)
    }

    fn cpu(ouzel: u64, kafka: u64, null: u64) -> [Row; 3] {
        [
            row(Contender::Ouzel, 1, ouzel, 1e9),
            row(Contender::Kafka, 1, kafka, 1e9),
            row(Contender::Null, 1, null, 1e9),
        ]
    }

    #[test]
    fn every_goal_has_workloads_that_there_are() {
        for goal in GOALS {
            assert!(!goal.workloads.is_empty(), "{}", goal.what);
            for name in goal.workloads {
                assert!(WORKLOADS.iter().any(|workload| workload.name == *name), "{}: {name}", goal.what);
            }
        }
    }

    #[test]
    fn cpu_is_met_beside_kafka_or_near_the_floor_and_missed_by_a_factor() {
        static GOAL: Goal = of(Metric::CpuPerGb, Bound::TimesKafka(0.25));
        assert_eq!(judge(&GOAL, &cpu(2, 8, 1)).standing, Standing::Met);
        assert_eq!(judge(&GOAL, &cpu(4, 8, 3)).standing, Standing::MetAtTheFloor);
        let missed = judge(&GOAL, &cpu(4, 8, 2));
        assert_eq!(missed.standing, Standing::Missed(2.0));
        assert_eq!(missed.word(), "MISSED 2.00-fold");
        assert_eq!(missed.figures(), "0.500 x Kafka (<= 0.25), 2.00 x null (<= 1.4), 1 of 1 rounds");
        assert_eq!(missed.json()["missed_by_factor"], 2.0);
    }

    #[test]
    fn the_short_form_shows_figures_and_judges_nothing_beside_kafka() {
        static GOAL: Goal = of(Metric::CpuPerGb, Bound::TimesKafka(0.25));
        static RSS: Goal = of(Metric::RssPeak, Bound::AtMost(32.0));
        let verdict = Verdict::of(&GOAL, "y", Some(&cpu(2, 8, 1)), true);
        assert_eq!(verdict.word(), "not judged: short form");
        assert_eq!(verdict.figures(), "0.250 x Kafka (<= 0.25), 2.00 x null (<= 1.4), 1 of 1 rounds");
        let alone = Verdict::of(&RSS, "y", Some(&cpu(2, 8, 1)), true);
        assert_eq!(alone.standing, Standing::Met, "2 MiB need no warm compiler");
        assert_eq!(Verdict::of(&GOAL, "y", None, true).word(), "not judged: not played");
    }

    #[test]
    fn throughput_of_a_bound_driver_judges_nothing() {
        static GOAL: Goal = of(Metric::Throughput, Bound::TimesKafka(2.0));
        let mut rows = [row(Contender::Ouzel, 1, 1, 3e9), row(Contender::Kafka, 1, 1, 2e9)];
        assert_eq!(judge(&GOAL, &rows).standing, Standing::Missed(2.0 / 1.5));
        rows[0].load.value_bytes = 4e9;
        assert_eq!(judge(&GOAL, &rows).standing, Standing::Met);
        rows[0].usage.driver_core_busy = 1.0;
        assert_eq!(judge(&GOAL, &rows).word(), "not judged: driver-bound");
    }

    /// A neighbour in one round must neither decide a verdict nor keep the other rounds from one.
    #[test]
    fn disturbed_rounds_are_left_out() {
        static GOAL: Goal = of(Metric::CpuPerGb, Bound::TimesKafka(0.25));
        let mut rows = vec![
            row(Contender::Ouzel, 1, 1, 1e9),
            row(Contender::Kafka, 1, 5, 1e9),
            row(Contender::Ouzel, 2, 9, 1e9),
            row(Contender::Kafka, 2, 5, 1e9),
        ];
        rows[2].usage.neighbours_cpu = Duration::from_secs(8);
        let verdict = judge(&GOAL, &rows);
        assert_eq!(verdict.standing, Standing::Met);
        assert_eq!(verdict.figure.unwrap().max, 0.2);
        rows[0].usage.neighbours_cpu = Duration::from_secs(8);
        assert_eq!(judge(&GOAL, &rows).word(), "not judged: disturbed");
    }

    /// A cold Kafka costs more than it does, and a ratio to it flatters.
    #[test]
    fn a_cold_round_judges_nothing_and_is_shown_by_the_short_form() {
        static GOAL: Goal = of(Metric::CpuPerGb, Bound::TimesKafka(0.25));
        let mut rows = cpu(2, 8, 1);
        rows[1].warm_up = rows[1].warm_up.map(|warm_up| WarmUp { trend: Some(0.8), ..warm_up });
        assert_eq!(judge(&GOAL, &rows).word(), "not judged: cold");
        let short = Verdict::of(&GOAL, "y", Some(&rows), true);
        assert_eq!(short.word(), "not judged: short form");
        assert!(short.figures().starts_with("0.250 x Kafka"), "{}", short.figures());
    }

    /// Of five rounds four were spoilt, and the fifth alone met a goal.
    #[test]
    fn fewer_than_half_of_the_rounds_judge_nothing() {
        static GOAL: Goal = of(Metric::CpuPerGb, Bound::TimesKafka(0.25));
        let mut rows: Vec<Row> = (1..=5)
            .flat_map(|round| [row(Contender::Ouzel, round, 1, 1e9), row(Contender::Kafka, round, 5, 1e9)])
            .collect();
        let spoil = |rows: &mut [Row], round: usize| {
            rows[round * 2 - 1].usage.neighbours_cpu = Duration::from_secs(8);
        };
        for round in [2, 4] {
            spoil(&mut rows, round);
        }
        assert_eq!(judge(&GOAL, &rows).figures(), "0.200 x Kafka (<= 0.25), 3 of 5 rounds");
        assert_eq!(judge(&GOAL, &rows).standing, Standing::Met);
        spoil(&mut rows, 5);
        let verdict = judge(&GOAL, &rows);
        assert_eq!(verdict.word(), "not judged: few rounds count");
        assert_eq!(verdict.json()["rounds_that_count"], 2);
    }

    #[test]
    fn a_part_of_the_null_broker_is_told_by_what_a_cpu_second_carries() {
        static GOAL: Goal = of(Metric::CpuPerGb, Bound::PartOfNull(0.6));
        assert_eq!(judge(&GOAL, &cpu(4, 9, 3)).standing, Standing::Met);
        let missed = judge(&GOAL, &cpu(10, 9, 3));
        assert_eq!(missed.standing, Standing::Missed(2.0));
        assert_eq!(missed.figures(), "0.300 of the null broker (>= 0.6), 1 of 1 rounds");
    }

    #[test]
    fn drift_is_held_against_kafkas_and_a_bound() {
        static GOAL: Goal = of(Metric::Drift, Bound::AtMostAndKafkas(1.25));
        let rows = |ouzel, kafka| {
            let mut rows = [row(Contender::Ouzel, 1, 1, 1e9), row(Contender::Kafka, 1, 1, 1e9)];
            rows.iter_mut().for_each(|row| row.usage.wall = AN_HOUR);
            rows[0].load.quarters_p999 = Some((2.0, 2.0 * ouzel));
            rows[1].load.quarters_p999 = Some((4.0, 4.0 * kafka));
            rows
        };
        assert_eq!(judge(&GOAL, &rows(1.25, 3.0)).standing, Standing::Met);
        assert_eq!(judge(&GOAL, &rows(1.5, 3.0)).standing, Standing::Missed(1.2));
        assert_eq!(judge(&GOAL, &rows(1.0, 0.5)).standing, Standing::Missed(2.0), "Kafka did not drift");
        assert_eq!(judge(&GOAL, &rows(1.0, 0.5)[..1]).word(), "not judged: no figure");
        let mut minutes = rows(1.0, 2.0);
        minutes[0].usage.wall = Duration::from_secs(120);
        assert_eq!(judge(&GOAL, &minutes).word(), "not judged: short form");
        assert_eq!(
            judge(&GOAL, &minutes).figures(),
            "1.00, Kafka 2.00 (<= 1.25 and <= Kafka's), 1 of 1 rounds"
        );
    }
}
