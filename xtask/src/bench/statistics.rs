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
}
