//! When each batch is due, whatever the broker does meanwhile: the whole of what makes latencies safe against
//! coordinated omission. A batch that could not be sent when it was due, because those before it were not answered, is
//! counted from when it was due.

use std::time::Duration;

/// Batches at even distances.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Batches a second, all connections together.
    rate: f64,
}

impl Schedule {
    /// `rate` batches a second; it must be positive.
    pub fn new(rate: f64) -> Schedule {
        assert!(rate > 0.0, "a schedule needs a rate");
        Schedule { rate }
    }

    /// When the batch of that number is due, since the start.
    pub fn due(self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// How many batches are due at `now`, the first of them at zero.
    pub fn due_by(self, now: Duration) -> u64 {
        let mut count = (now.as_secs_f64() * self.rate) as u64;
        // The division above rounds; `due` decides.
        while self.due(count) <= now {
            count += 1;
        }
        while count > 0 && self.due(count - 1) > now {
            count -= 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_and_counts_agree() {
        let schedule = Schedule::new(3_000.0);
        for number in [0, 1, 2, 3, 1_000, 2_999_999] {
            let due = schedule.due(number);
            assert_eq!(schedule.due_by(due), number + 1);
            if number > 0 {
                assert_eq!(schedule.due_by(due - Duration::from_nanos(1)), number);
            }
        }
    }

    /// A closed loop that is held up for a second sees one slow request; an open one sees the thousand that were due.
    #[test]
    fn a_stall_is_charged_to_every_batch_that_was_due_in_it() {
        let schedule = Schedule::new(1_000.0);
        let answered = Duration::from_secs(1);
        let late = (0..schedule.due_by(answered))
            .map(|number| answered - schedule.due(number))
            .filter(|latency| *latency >= Duration::from_millis(100))
            .count();
        assert_eq!(late, 901);
    }
}
