//! How a row was warmed, and whether that was enough: a compiler is at rest once a record costs no less than it did a while
//! before.

use std::time::{Duration, Instant};

use crate::bench::process::process_cpu;

/// Between the second third of a warm-up and its last one a record's CPU fell to less than this: it would have fallen on.
const FALLS_BELOW: f64 = 0.95;

/// With fewer looks than this a third of a warm-up is a matter of luck.
const LOOKS_MIN: usize = 6;

/// CPU in each third below which Linux's hundredths of a second are too coarse for a twentieth.
const CPU_MIN: Duration = Duration::from_millis(400);

/// What came before a row's window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct WarmUp {
    pub(super) seconds: f64,
    /// What a record cost in the last third, by what it cost in the third before; none where that cannot be told.
    pub(super) trend: Option<f64>,
}

impl WarmUp {
    /// Whether the window may have shown a broker that still became faster. What nobody could tell is not shown to be warm.
    pub(super) fn leaves_cold(self) -> bool {
        self.trend.is_none_or(|trend| trend < FALLS_BELOW)
    }

    /// A second, short one after it: for new connections, not for the broker.
    pub(super) fn and(self, second: WarmUp) -> WarmUp {
        WarmUp { seconds: self.seconds + second.seconds, ..self }
    }
}

/// A look at the brokers while they are warmed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Look {
    cpu: Duration,
    /// That went through since the beginning.
    records: f64,
}

/// Watches a warm-up.
#[derive(Debug)]
pub(super) struct Gauge {
    brokers: Vec<u32>,
    began: Instant,
    looks: Vec<Look>,
}

impl Gauge {
    /// The warm-up begins, and no record has gone through.
    pub(super) fn begin(brokers: &[u32]) -> Result<Gauge, String> {
        let mut gauge = Gauge { brokers: brokers.to_vec(), began: Instant::now(), looks: Vec::new() };
        gauge.note(0.0)?;
        Ok(gauge)
    }

    /// So many records have gone through by now. Called at even distances of time, or of records.
    pub(super) fn note(&mut self, records: f64) -> Result<(), String> {
        let cpu = self.brokers.iter().map(|pid| process_cpu(*pid)).sum::<Result<Duration, String>>()?;
        self.looks.push(Look { cpu, records });
        Ok(())
    }

    /// How long it has lasted.
    pub(super) fn lasted(&self) -> Duration {
        self.began.elapsed()
    }

    /// The warm-up is over.
    pub(super) fn end(self) -> WarmUp {
        WarmUp { seconds: self.lasted().as_secs_f64(), trend: trend(&self.looks) }
    }
}

fn trend(looks: &[Look]) -> Option<f64> {
    if looks.len() <= LOOKS_MIN {
        return None;
    }
    let third = (looks.len() - 1) / 3;
    let cost_up_to = |last: usize| {
        let (from, to) = (looks[last - third], looks[last]);
        let (cpu, records) = (to.cpu.saturating_sub(from.cpu), to.records - from.records);
        (cpu >= CPU_MIN && records > 0.0).then(|| cpu.as_secs_f64() / records)
    };
    let last = looks.len() - 1;
    Some(cost_up_to(last)? / cost_up_to(last - third)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks a second apart at a broker that needs so many milliseconds of CPU for a thousand records each second.
    fn looks(millis: &[u64]) -> Vec<Look> {
        let mut look = Look { cpu: Duration::ZERO, records: 0.0 };
        let mut looks = vec![look];
        for millis in millis {
            look = Look { cpu: look.cpu + Duration::from_millis(*millis), records: look.records + 1_000.0 };
            looks.push(look);
        }
        looks
    }

    fn leaves_cold(millis: &[u64]) -> bool {
        WarmUp { seconds: 9.0, trend: trend(&looks(millis)) }.leaves_cold()
    }

    /// Rows of librdkafka, end to end and of three nodes were warmed with 3 GiB, or with one: over after a few seconds, with
    /// Kafka's compiler at work, and the ratio was judged all the same.
    #[test]
    fn a_cost_that_still_falls_is_cold_and_one_at_rest_is_not() {
        assert!(leaves_cold(&[900, 900, 900, 800, 800, 800, 700, 700, 700]));
        assert!(
            !leaves_cold(&[900, 800, 700, 500, 500, 500, 490, 490, 490]),
            "the first third may be anything"
        );
        assert!(!leaves_cold(&[500, 500, 500, 500, 500, 500, 600, 600, 600]), "what grows is not cold");
    }

    #[test]
    fn what_cannot_be_told_is_not_shown_to_be_warm() {
        assert!(leaves_cold(&[500; 5]), "few looks");
        assert!(!leaves_cold(&[500; 6]));
        assert!(leaves_cold(&[10; 9]), "little CPU");
        let still = vec![Look { cpu: Duration::ZERO, records: 0.0 }; 9];
        assert_eq!(trend(&still), None, "no record");
    }

    #[test]
    fn our_own_process_is_gauged_and_a_second_warm_up_adds_its_time_alone() {
        let mut gauge = Gauge::begin(&[std::process::id()]).unwrap();
        gauge.note(5.0).unwrap();
        assert!(gauge.looks[1].cpu >= gauge.looks[0].cpu);
        assert_eq!(gauge.end().trend, None);
        let first = WarmUp { seconds: 60.0, trend: Some(1.0) };
        assert_eq!(
            first.and(WarmUp { seconds: 2.0, trend: None }),
            WarmUp { seconds: 62.0, trend: Some(1.0) }
        );
    }
}
