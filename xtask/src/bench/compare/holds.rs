//! What ouzel's own metrics tell of its cores: how often a task held one for long, while everybody else there waited. Kafka's threads
//! block where they please; a core that does has nobody to take its place.

use crate::broker_process::http_get;

const HISTOGRAM: &str = "ouzel_core_held_seconds";
/// What is told: holds longer than these bounds of its buckets, as they are written there, and as people read them.
pub(super) const BOUNDS: [(&str, &str); 3] = [("0.001", "1 ms"), ("0.01", "10 ms"), ("0.1", "100 ms")];

/// How often cores were held for longer than each of [`BOUNDS`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LongHolds(pub(super) [u64; BOUNDS.len()]);

impl LongHolds {
    /// Of all brokers together, since they were started; none if there are none to ask.
    pub(super) fn look(admin_ports: &[u16]) -> Result<Option<LongHolds>, String> {
        let mut all: Option<LongHolds> = None;
        for port in admin_ports {
            let (status, text) = http_get(*port, "/metrics")?;
            let holds =
                parse(&text).ok_or_else(|| format!("GET /metrics ({status}): {HISTOGRAM} is not there"))?;
            all.get_or_insert_default().0.iter_mut().zip(holds.0).for_each(|(sum, more)| *sum += more);
        }
        Ok(all)
    }

    /// Those since an earlier look at the same brokers.
    pub(super) fn since(self, earlier: LongHolds) -> LongHolds {
        let mut since = self;
        since.0.iter_mut().zip(earlier.0).for_each(|(count, before)| *count = count.saturating_sub(before));
        since
    }

    /// `cores held for longer than 1 ms: 12, 10 ms: 1, 100 ms: 0`.
    pub(super) fn text(self) -> String {
        let counts: Vec<String> =
            BOUNDS.iter().zip(self.0).map(|((_, bound), count)| format!("{bound}: {count}")).collect();
        format!("cores held for longer than {}", counts.join(", "))
    }
}

/// The buckets are cumulative: what is not in one was longer.
fn parse(metrics: &str) -> Option<LongHolds> {
    let value = |name: &str| -> Option<u64> {
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    let count = value(&format!("{HISTOGRAM}_count "))?;
    let mut holds = LongHolds::default();
    for ((bound, _), longer) in BOUNDS.iter().zip(&mut holds.0) {
        *longer = count.checked_sub(value(&format!("{HISTOGRAM}_bucket{{le=\"{bound}\"}} "))?)?;
    }
    Some(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# TYPE ouzel_core_held_seconds histogram
ouzel_core_held_seconds_bucket{le=\"0.0005\"} 70
ouzel_core_held_seconds_bucket{le=\"0.001\"} 90
ouzel_core_held_seconds_bucket{le=\"0.01\"} 98
ouzel_core_held_seconds_bucket{le=\"0.1\"} 100
ouzel_core_held_seconds_bucket{le=\"+Inf\"} 100
ouzel_core_held_seconds_sum 1.5
ouzel_core_held_seconds_count 100
";

    #[test]
    fn what_no_bucket_holds_was_longer() {
        let holds = parse(METRICS).unwrap();
        assert_eq!(holds, LongHolds([10, 2, 0]));
        assert_eq!(holds.since(LongHolds([4, 2, 0])), LongHolds([6, 0, 0]));
        assert_eq!(holds.text(), "cores held for longer than 1 ms: 10, 10 ms: 2, 100 ms: 0");
        assert_eq!(parse("ouzel_core_held_seconds_count 1\n"), None, "other buckets");
        assert_eq!(LongHolds::look(&[]), Ok(None));
    }
}
