//! What is measured, as data: one line of the table is one workload, played by every broker in turn.

use super::contender::{Contender, Mode};
use super::ratio::Goal;
use super::row::Metric;

/// One workload.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) mode: Mode,
    pub(super) partitions: u32,
    pub(super) load: Load,
    /// Kafka's keys that the workload is about, alike for both brokers.
    pub(super) settings: &'static [(&'static str, &'static str)],
    /// Part of the short form.
    pub(super) quick: bool,
    pub(super) goals: &'static [Goal],
}

/// What goes on in a workload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Load {
    /// Kafka's producer tool with Kafka's client's defaults, as fast as it can.
    ProducerPerf { value_bytes: u32, acks: &'static str, codec: &'static str },
    /// Kafka's consumer tool, in a group of its own, over what Kafka's producer tool has filled in.
    ConsumerPerf { value_bytes: u32, records: u32 },
    /// Kafka's end-to-end tool: one record at a time, from the producer to the consumer.
    EndToEndTool { value_bytes: u32, acks: &'static str, records: u32 },
    /// Nothing: what the broker costs that only has its partitions.
    Idle,
}

impl Workload {
    /// Who takes part, in the order of a round.
    pub(super) fn contenders(&self) -> Vec<Contender> {
        let mut contenders = self.mode.contenders().to_vec();
        // The null broker has no groups, and both tools ask for one.
        if matches!(self.load, Load::ConsumerPerf { .. } | Load::EndToEndTool { .. }) {
            contenders.retain(|contender| *contender != Contender::Null);
        }
        contenders
    }
}

const PRODUCE_CPU: Goal = Goal { metric: Metric::CpuPerGb, to_kafka: 0.25 };
const FETCH_CPU: Goal = Goal { metric: Metric::CpuPerGb, to_kafka: 0.5 };

const fn producer_perf(value_bytes: u32, acks: &'static str, codec: &'static str) -> Load {
    Load::ProducerPerf { value_bytes, acks, codec }
}

const fn end_to_end_tool(value_bytes: u32) -> Load {
    Load::EndToEndTool { value_bytes, acks: "all", records: 3_000 }
}

/// The table.
#[rustfmt::skip]
pub(super) const WORKLOADS: &[Workload] = &[
    Workload { name: "producer-perf 1KiB x1", mode: Mode::PageCache, partitions: 1, load: producer_perf(1024, "all", "none"), settings: &[], quick: true, goals: &[PRODUCE_CPU] },
    Workload { name: "producer-perf 1KiB x100", mode: Mode::PageCache, partitions: 100, load: producer_perf(1024, "all", "none"), settings: &[], quick: false, goals: &[PRODUCE_CPU] },
    Workload { name: "producer-perf 1KiB x1 defaults", mode: Mode::Defaults, partitions: 1, load: producer_perf(1024, "all", "none"), settings: &[], quick: false, goals: &[] },
    Workload { name: "consumer-perf 1KiB x1", mode: Mode::PageCache, partitions: 1, load: Load::ConsumerPerf { value_bytes: 1024, records: 1_000_000 }, settings: &[], quick: false, goals: &[FETCH_CPU] },
    Workload { name: "end-to-end tool 1KiB", mode: Mode::PageCache, partitions: 1, load: end_to_end_tool(1024), settings: &[], quick: false, goals: &[] },
    Workload { name: "end-to-end tool 1KiB flushed", mode: Mode::Flushed, partitions: 1, load: end_to_end_tool(1024), settings: &[], quick: false, goals: &[] },
    Workload { name: "idle", mode: Mode::PageCache, partitions: 1, load: Load::Idle, settings: &[], quick: true, goals: &[] },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_names() {
        let names: BTreeSet<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
        assert_eq!(names.len(), WORKLOADS.len());
        assert!(WORKLOADS.iter().all(|workload| workload.partitions > 0));
    }

    /// The workload's own keys must not undo what its mode promises.
    #[test]
    fn no_workload_sets_a_flush_by_the_back_door() {
        for workload in WORKLOADS {
            for (key, _) in workload.settings {
                assert!(!key.contains("flush") && !key.contains("durability"), "{}: {key}", workload.name);
            }
        }
    }
}
