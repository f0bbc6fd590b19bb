//! Few numbers out of all rows of a workload: each side's figure, and the ratio of two sides round by round.

use super::contender::Contender;
use super::row::{Metric, Row};
use crate::bench::statistics::Span;

/// One side's figures, of each round that has one.
pub(super) fn figures(rows: &[Row], contender: Contender, metric: Metric) -> Vec<f64> {
    rows.iter().filter(|row| row.contender == contender).filter_map(|row| metric.of(row)).collect()
}

/// One side's figure over its rounds; none if no row has it.
pub(super) fn figure(rows: &[Row], contender: Contender, metric: Metric) -> Option<Span> {
    Span::of(figures(rows, contender, metric))
}

/// `over` by `under`, each round's rows with one another and with no other round's: they ran in the same minutes, with the same
/// neighbours. A round in which either has no figure has no ratio, nor has one in which either is zero: that is a clock too
/// coarse, and would look like a victory without end.
pub(super) fn ratios(rows: &[Row], over: Contender, under: Contender, metric: Metric) -> Vec<f64> {
    let of = |contender: Contender, round: usize| {
        rows.iter().find(|row| row.contender == contender && row.round == round)
    };
    let rounds = rows.iter().map(|row| row.round).max().unwrap_or(0);
    let ratios = (1..=rounds).filter_map(|round| {
        let (above, below) = (metric.of(of(over, round)?)?, metric.of(of(under, round)?)?);
        (above > 0.0 && below > 0.0).then_some(above / below)
    });
    ratios.collect()
}

/// The ratio over all rounds that have one.
pub(super) fn ratio(rows: &[Row], over: Contender, under: Contender, metric: Metric) -> Option<Span> {
    Span::of(ratios(rows, over, under, metric))
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

    /// The null broker's row of another round stood in for one that was spoilt, with that round's neighbours.
    #[test]
    fn the_floor_is_that_of_the_same_round() {
        let rows = [
            row(Contender::Null, 1, 1, 1e9),
            row(Contender::Ouzel, 1, 2, 1e9),
            row(Contender::Ouzel, 2, 4, 1e9),
        ];
        let found = ratio_to_floor(&rows, Metric::CpuPerGb).unwrap();
        assert_eq!((found.min, found.max), (2.0, 2.0), "round 2 has no floor");
    }
}
