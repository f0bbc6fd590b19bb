//! Few numbers out of many runs.

use std::time::Duration;

/// The middle and both ends of several measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) median: Duration,
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Spread {
    /// Panics without a measurement.
    pub(super) fn of(mut runs: Vec<Duration>) -> Spread {
        runs.sort();
        let middle = runs.len() / 2;
        let median =
            if runs.len().is_multiple_of(2) { (runs[middle - 1] + runs[middle]) / 2 } else { runs[middle] };
        Spread { median, min: runs[0], max: runs[runs.len() - 1] }
    }
}

/// The same of figures in any unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Span {
    /// None without a figure.
    pub(super) fn of(mut figures: Vec<f64>) -> Option<Span> {
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = match figures.len().is_multiple_of(2) {
            true => (figures[middle - 1] + figures[middle]) / 2.0,
            false => figures[middle],
        };
        Some(Span { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_odd_and_even_counts() {
        let spread = |runs: &[u64]| Spread::of(runs.iter().copied().map(Duration::from_millis).collect());
        assert_eq!(spread(&[9, 1, 5]).median, Duration::from_millis(5));
        assert_eq!(spread(&[4, 1, 9, 2]).median, Duration::from_millis(3));
        assert_eq!(
            (spread(&[4, 1, 9]).min, spread(&[4, 1, 9]).max),
            (Duration::from_millis(1), Duration::from_millis(9))
        );
    }

    #[test]
    fn spans_are_of_any_unit() {
        assert_eq!(Span::of(vec![]), None);
        assert_eq!(Span::of(vec![4.0, 1.0, 9.0, 2.0]), Some(Span { median: 3.0, min: 1.0, max: 9.0 }));
        assert_eq!(Span::of(vec![0.5]).map(|span| span.median), Some(0.5));
    }
}
