//! Few numbers out of all rows of a workload: each side's figure, and the ratio of two sides round by round.

use super::contender::Contender;
use super::row::{Metric, Row};
use crate::bench::statistics::Span;

/// One side's figure over its rounds; none if no row has it.
pub(super) fn figure(rows: &[Row], contender: Contender, metric: Metric) -> Option<Span> {
    Span::of(rows.iter().filter(|row| row.contender == contender).filter_map(|row| metric.of(row)).collect())
}

/// `over` by `under`, each round's rows with one another: they ran in the same minute, with the same neighbours. A round
/// in which either has no figure has no ratio, nor has one in which either is zero: that is a clock too coarse, and would
/// look like a victory without end. The null broker may have fewer rounds: its last one stands for the others.
pub(super) fn ratio(rows: &[Row], over: Contender, under: Contender, metric: Metric) -> Option<Span> {
    let of = |contender: Contender, round: usize| {
        let mut its = rows.iter().filter(|row| row.contender == contender);
        match contender {
            Contender::Null => its.rfind(|row| row.round <= round),
            _ => its.find(|row| row.round == round),
        }
    };
    let rounds = rows.iter().map(|row| row.round).max().unwrap_or(0);
    let ratios = (1..=rounds).filter_map(|round| {
        let (above, below) = (metric.of(of(over, round)?)?, metric.of(of(under, round)?)?);
        (above > 0.0 && below > 0.0).then_some(above / below)
    });
    Span::of(ratios.collect())
}

/// What ouzel is to reach beside Kafka in one figure of a workload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Goal {
    pub(super) metric: Metric,
    /// At most this times Kafka's figure; at least, where more is better.
    pub(super) to_kafka: f64,
}

/// CPU this close to the null broker's is as good as the goal: nothing is left to save.
pub(super) const NEAR_THE_FLOOR: f64 = 1.4;

/// How a goal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Met,
    /// Not beside Kafka, but near the null broker.
    MetAtTheFloor,
    Missed,
    /// No pair of rows has the figure.
    Unknown,
}

impl Standing {
    pub(super) fn word(self) -> &'static str {
        match self {
            Standing::Met => "met",
            Standing::MetAtTheFloor => "met at the floor",
            Standing::Missed => "MISSED",
            Standing::Unknown => "no figure",
        }
    }
}

impl Goal {
    /// Judges by the median.
    pub(super) fn standing(self, rows: &[Row]) -> Standing {
        let Some(ratio) = ratio(rows, Contender::Ouzel, Contender::Kafka, self.metric) else {
            return Standing::Unknown;
        };
        let met = match self.metric.more_is_better() {
            true => ratio.median >= self.to_kafka,
            false => ratio.median <= self.to_kafka,
        };
        let floor = ratio_to_floor(rows, self.metric);
        match (met, self.metric, floor) {
            (true, ..) => Standing::Met,
            (false, Metric::CpuPerGb, Some(floor)) if floor.median <= NEAR_THE_FLOOR => {
                Standing::MetAtTheFloor
            }
            _ => Standing::Missed,
        }
    }

    /// `<= 0.25 x Kafka`.
    pub(super) fn text(self) -> String {
        let sign = if self.metric.more_is_better() { ">=" } else { "<=" };
        format!("{sign} {} x Kafka", self.to_kafka)
    }
}

/// ouzel's figure by the null broker's.
pub(super) fn ratio_to_floor(rows: &[Row], metric: Metric) -> Option<Span> {
    ratio(rows, Contender::Ouzel, Contender::Null, metric)
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;

    #[test]
    fn ratios_pair_rows_of_one_round() {
        let rows = [
            row(Contender::Ouzel, 1, 1, 1e9),
            row(Contender::Kafka, 1, 4, 1e9),
            row(Contender::Ouzel, 2, 3, 1e9),
            row(Contender::Kafka, 2, 6, 1e9),
            row(Contender::Ouzel, 3, 9, 1e9),
        ];
        let found = ratio(&rows, Contender::Ouzel, Contender::Kafka, Metric::CpuPerGb).unwrap();
        assert_eq!((found.median, found.min, found.max), (0.375, 0.25, 0.5), "round 3 has no pair");
        assert_eq!(figure(&rows, Contender::Ouzel, Metric::CpuPerGb).unwrap().median, 3.0);
        assert_eq!(ratio(&rows, Contender::Ouzel, Contender::Null, Metric::CpuPerGb), None);
    }

    /// A tool that counts whole milliseconds said 0 beside 5, and the ratio said that nothing was left of Kafka's time.
    #[test]
    fn a_figure_below_its_clock_has_no_ratio() {
        let mut rows = [row(Contender::Ouzel, 1, 1, 1e9), row(Contender::Kafka, 1, 4, 1e9)];
        rows[0].usage.broker_cpu = std::time::Duration::ZERO;
        assert_eq!(ratio(&rows, Contender::Ouzel, Contender::Kafka, Metric::CpuPerGb), None);
        assert_eq!(ratio(&rows, Contender::Kafka, Contender::Ouzel, Metric::CpuPerGb), None);
    }

    #[test]
    fn one_null_row_stands_for_later_rounds() {
        let rows = [
            row(Contender::Null, 1, 1, 1e9),
            row(Contender::Ouzel, 1, 2, 1e9),
            row(Contender::Ouzel, 2, 4, 1e9),
        ];
        let found = ratio_to_floor(&rows, Metric::CpuPerGb).unwrap();
        assert_eq!((found.min, found.max), (2.0, 4.0));
    }

    #[test]
    fn a_goal_is_met_beside_kafka_or_near_the_floor() {
        let goal = Goal { metric: Metric::CpuPerGb, to_kafka: 0.25 };
        let rows = |ouzel, null| {
            [
                row(Contender::Ouzel, 1, ouzel, 1e9),
                row(Contender::Kafka, 1, 8, 1e9),
                row(Contender::Null, 1, null, 1e9),
            ]
        };
        assert_eq!(goal.standing(&rows(2, 1)), Standing::Met);
        assert_eq!(goal.standing(&rows(4, 3)), Standing::MetAtTheFloor);
        assert_eq!(goal.standing(&rows(4, 2)), Standing::Missed);
        assert_eq!(goal.standing(&[]), Standing::Unknown);
        let twice = Goal { metric: Metric::Throughput, to_kafka: 2.0 };
        let pair = [row(Contender::Ouzel, 1, 1, 4e9), row(Contender::Kafka, 1, 1, 2e9)];
        assert_eq!(twice.standing(&pair), Standing::Met);
        let mut bound = pair;
        bound[0].usage.driver_core_busy = 1.0;
        assert_eq!(twice.standing(&bound), Standing::Unknown, "a driver's limit proves nothing");
    }
}
