//! What counts of a run: bytes that were answered while the window was open, and the latencies of batches that were *due*
//! while it was, whenever they were answered.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Longer latencies count as this one.
const LATENCY_MAX: Duration = Duration::from_secs(120);
/// A thousandth of fewer batches than this is a matter of luck.
const QUARTER_BATCHES_MIN: u64 = 10_000;

/// Counts and latencies of the window.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Since the start of the run; the end lies in the future while the window is open.
    window: Option<(Duration, Duration)>,
    pub(crate) produced_records: u64,
    pub(crate) fetched_records: u64,
    latencies: Histogram<u64>,
    /// Of batches due in the first and in the last quarter of the window.
    quarters: [Histogram<u64>; 2],
    /// How long the window is to be open.
    planned: Duration,
    /// How late the driver itself was with what was due: what it cannot blame on the broker.
    lateness: Histogram<u64>,
    /// Batches that were never answered; their latency is their age at the end.
    pub(crate) unanswered: u64,
}

impl Tally {
    /// A tally of a window that is to be open for so long.
    pub(crate) fn new(planned: Duration) -> Result<Tally, String> {
        // Microseconds, to three figures.
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX.as_micros() as u64, 3);
        let quarter = || histogram().map_err(|e| e.to_string());
        Ok(Tally {
            window: None,
            produced_records: 0,
            fetched_records: 0,
            latencies: histogram().map_err(|e| e.to_string())?,
            quarters: [quarter()?, quarter()?],
            planned,
            lateness: histogram().map_err(|e| e.to_string())?,
            unanswered: 0,
        })
    }

    pub(crate) fn open(&mut self, now: Duration) {
        self.window = Some((now, Duration::MAX));
    }

    pub(crate) fn close(&mut self, now: Duration) {
        if let Some((_, end)) = &mut self.window {
            *end = now;
        }
    }

    fn holds(&self, time: Duration) -> bool {
        self.window.is_some_and(|(from, to)| time >= from && time < to)
    }

    pub(crate) fn produced(&mut self, now: Duration, records: u64) {
        if self.holds(now) {
            self.produced_records += records;
        }
    }

    pub(crate) fn fetched(&mut self, now: Duration, records: u64) {
        if self.holds(now) {
            self.fetched_records += records;
        }
    }

    /// A batch that was due then is answered now.
    pub(crate) fn answered(&mut self, due: Duration, now: Duration) {
        let Some((from, _)) = self.window.filter(|_| self.holds(due)) else { return };
        let micros = now.saturating_sub(due).as_micros().max(1) as u64;
        self.latencies.saturating_record(micros);
        if (due - from) * 4 < self.planned {
            self.quarters[0].saturating_record(micros);
        } else if (due - from) * 4 >= self.planned * 3 {
            self.quarters[1].saturating_record(micros);
        }
    }

    /// A batch that was due then has no answer at the end.
    pub(crate) fn left(&mut self, due: Duration, now: Duration) {
        if self.holds(due) {
            self.unanswered += 1;
            self.answered(due, now);
        }
    }

    /// The driver took up now what was due then.
    pub(crate) fn taken_up(&mut self, due: Duration, now: Duration) {
        if self.holds(due) {
            self.lateness.saturating_record(now.saturating_sub(due).as_micros().max(1) as u64);
        }
    }

    /// The 99.9th percentile of the first and of the last quarter in milliseconds, if enough batches were due in each.
    fn quarters_p999(&self) -> Option<[f64; 2]> {
        let has_enough = self.quarters.iter().all(|quarter| quarter.len() >= QUARTER_BATCHES_MIN);
        has_enough
            .then(|| std::array::from_fn(|index| self.quarters[index].value_at_quantile(0.999) as f64 / 1e3))
    }

    /// The result as one JSON object; latencies only of an open loop.
    pub(crate) fn json(&self, with_latencies: bool) -> Value {
        let seconds = self.window.map_or(0.0, |(from, to)| to.saturating_sub(from).as_secs_f64());
        let millis = |micros: u64| micros as f64 / 1e3;
        let latency = with_latencies.then(|| {
            let at = |quantile| millis(self.latencies.value_at_quantile(quantile));
            json!({
                "count": self.latencies.len(), "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "p9999": at(0.9999),
                "max": millis(self.latencies.max()),
            })
        });
        json!({
            "t": "result",
            "seconds": seconds,
            "produced_records": self.produced_records,
            "fetched_records": self.fetched_records,
            "latency_ms": latency,
            "quarters_p999_ms": with_latencies.then(|| self.quarters_p999()).flatten(),
            "driver_late_p99_ms": with_latencies.then(|| millis(self.lateness.value_at_quantile(0.99))),
            "unanswered": self.unanswered,
        })
    }
}

/// Whether retention keeps up with the load: in a window that is long beside a segment's life as much goes as comes, and half
/// of it goes in any that proves something.
pub(crate) fn keeps_up(produced_records: u64, shed_records: u64) -> Result<(), String> {
    match shed_records * 2 >= produced_records && shed_records > 0 {
        true => Ok(()),
        false => Err(format!(
            "retention was to keep up with the load, and shed {shed_records} records while {produced_records} came"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A batch is the window's by when it was due: slow answers that come after the window must not fall out of it.
    #[test]
    fn latency_belongs_to_when_it_was_due_and_bytes_to_when_they_came() {
        let mut tally = Tally::new(second(2)).unwrap();
        tally.answered(second(0), second(1));
        tally.open(second(1));
        tally.produced(second(1), 5);
        tally.answered(second(0), second(2));
        tally.close(second(3));
        tally.produced(second(3), 7);
        tally.answered(second(2), second(5));
        tally.left(second(2), second(6));
        tally.left(second(3), second(6));
        let json = tally.json(true);
        assert_eq!((json["produced_records"].as_u64(), json["seconds"].as_f64()), (Some(5), Some(2.0)));
        assert_eq!((json["latency_ms"]["count"].as_u64(), json["unanswered"].as_u64()), (Some(2), Some(1)));
        let slowest = json["latency_ms"]["max"].as_f64().unwrap();
        assert!((3_990.0..4_010.0).contains(&slowest), "{slowest}");
    }

    /// One segment that went before the window was opened, an hour ago, was enough for a row of rolling retention.
    #[test]
    fn retention_that_does_not_keep_up_is_said() {
        assert!(keeps_up(100, 50).is_ok() && keeps_up(100, 130).is_ok());
        assert!(keeps_up(100, 49).unwrap_err().contains("shed 49 records while 100 came"));
        assert!(keeps_up(0, 0).is_err(), "nothing at all proves nothing");
    }

    #[test]
    fn a_closed_loop_has_no_latency_to_tell() {
        let json = Tally::new(second(2)).unwrap().json(false);
        assert!(json["latency_ms"].is_null() && json["driver_late_p99_ms"].is_null());
    }

    /// Both quarters are by when a batch was due, and one of them with few batches says nothing.
    #[test]
    fn the_first_and_the_last_quarter_are_told_apart() {
        let mut tally = Tally::new(second(8)).unwrap();
        tally.open(second(10));
        for _ in 0..QUARTER_BATCHES_MIN {
            tally.answered(second(11), second(12));
            tally.answered(second(14), second(50));
        }
        assert_eq!(tally.json(true)["quarters_p999_ms"], Value::Null);
        for _ in 0..QUARTER_BATCHES_MIN {
            tally.answered(second(16), second(19));
        }
        let [first, last] = tally.quarters_p999().unwrap();
        assert!((999.0..1_002.0).contains(&first) && (2_998.0..3_005.0).contains(&last), "{first} {last}");
        assert!(tally.json(true)["quarters_p999_ms"].is_array());
    }
}
