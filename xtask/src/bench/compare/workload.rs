//! What is measured, as data: one line of the table is one workload, played by every broker in turn.

use std::time::Duration;

use super::contender::{Contender, Mode};
use super::driving::Phases;

/// One workload.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) mode: Mode,
    pub(super) partitions: u32,
    /// Brokers of the cluster, each with a replica of every partition; min.insync.replicas is 2 if there are several.
    pub(super) nodes: u32,
    pub(super) load: Load,
    /// Kafka's keys that the workload is about, alike for both brokers.
    pub(super) settings: &'static [(&'static str, &'static str)],
    /// Part of the short form.
    pub(super) quick: bool,
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
    /// librdkafka produces as fast as it can, with its defaults.
    Librdkafka { value_bytes: u32 },
    /// librdkafka fetches from the page cache what the open-loop driver has filled in, again and again.
    LibrdkafkaFetch { batches: Batches, filled_bytes: u64 },
    /// The open-loop driver produces as fast as it can.
    Produce { batches: Batches, producers: u32, acks: i16 },
    /// The open-loop driver produces with a rate while retention deletes; `for_long`: for as many minutes as the run is told.
    Rolling { batches: Batches, producers: u32, rate: Rate, for_long: bool },
    /// The open-loop driver fetches what it has filled in, from the page cache or from the disk, each consumer all of it;
    /// beside it may be a producer with a rate.
    Fetch { batches: Batches, consumers: u32, filled_bytes: u64, cold: bool, beside: Option<Rate> },
    /// The open-loop driver produces and fetches at the tail; latency is that from due to fetched.
    EndToEnd { batches: Batches, producers: u32, consumers: u32, rate: Option<Rate> },
    /// From the start of the process to the first record acknowledged, on so many bytes that are there already.
    StartUp { filled_bytes: u64 },
    /// Nothing: what the broker costs that only has its partitions.
    Idle,
}

/// Batches that are encoded before the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Batches {
    pub(super) value_bytes: u32,
    /// Records of a batch.
    pub(super) records: u32,
    pub(super) keyed: bool,
}

impl Batches {
    /// Bytes of the values of one batch.
    pub(super) fn bytes(self) -> f64 {
        f64::from(self.value_bytes) * f64::from(self.records)
    }
}

/// How much an open loop offers; the same to every broker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rate {
    /// Batches a second.
    Fixed(f64),
    /// Percent of the smaller of ouzel's and Kafka's median in a workload without a rate, of the same run.
    PercentOf(u32, &'static str),
}

impl Workload {
    /// Who takes part, in the order of the first round.
    pub(super) fn contenders(&self) -> Vec<Contender> {
        let mut contenders = self.mode.contenders().to_vec();
        let without_null = match self.load {
            // It has no groups, and both tools ask for one.
            Load::ConsumerPerf { .. } | Load::EndToEndTool { .. } => true,
            // It has nothing to find again and nothing to look after.
            Load::StartUp { .. } | Load::Idle => true,
            // It deletes nothing.
            Load::Rolling { .. } => true,
            // It speaks one version of each request, and librdkafka wants others.
            Load::Librdkafka { .. } | Load::LibrdkafkaFetch { .. } => true,
            _ if self.nodes > 1 => true,
            _ => false,
        };
        contenders.retain(|contender| *contender != Contender::Null || !without_null);
        contenders
    }

    /// Whether it is played for as many minutes as the run is told.
    pub(super) fn is_long(&self) -> bool {
        matches!(self.load, Load::Rolling { for_long: true, .. })
    }

    /// How long it is played: `usual`, or as long as it needs.
    pub(super) fn phases(&self, usual: Phases, minutes: u64) -> Phases {
        let warm = usual.warm * self.nodes;
        match self.load {
            Load::StartUp { .. } => Phases { warm: Duration::ZERO, measured: Duration::ZERO },
            Load::Rolling { for_long, .. } => Phases {
                warm: warm.max(ROLLING_WARM_MIN),
                measured: if for_long { Duration::from_secs(60 * minutes) } else { usual.measured },
            },
            // Several compilers share the core.
            _ => Phases { warm, ..usual },
        }
    }

    /// The workload whose maximum this one needs.
    pub(super) fn needs(&self) -> Option<&'static str> {
        let rate = match self.load {
            Load::EndToEnd { rate, .. } => rate,
            Load::Rolling { rate, .. } => Some(rate),
            Load::Fetch { beside, .. } => beside,
            _ => None,
        };
        match rate {
            Some(Rate::PercentOf(_, name)) => Some(name),
            _ => None,
        }
    }
}

/// 64 KiB of records of 1 KiB.
const LARGE: Batches = Batches { value_bytes: 1024, records: 64, keyed: false };
const MIDDLE: Batches = Batches { value_bytes: 1024, records: 16, keyed: false };
const SMALL: Batches = Batches { value_bytes: 1024, records: 4, keyed: false };
/// What a key leaves of a batch: few records.
const KEYED: Batches = Batches { value_bytes: 100, records: 5, keyed: true };
const TINY: Batches = Batches { value_bytes: 100, records: 160, keyed: false };
const HUGE: Batches = Batches { value_bytes: 65_536, records: 1, keyed: false };
const GIB: u64 = 1 << 30;
/// Small segments and little of them kept: the log rolls and sheds its head all the time, in a window of seconds as well.
const ROLLING: &[(&str, &str)] = &[
    ("log.segment.bytes", "2097152"),
    ("log.retention.bytes", "4194304"),
    ("log.retention.check.interval.ms", "1000"),
];
/// Kafka looks at retention for the first time half a minute after its start.
const ROLLING_WARM_MIN: Duration = Duration::from_secs(45);
const NO_KEYS: &[(&str, &str)] = &[];

const END_TO_END_MAX: &str = "end to end, maximum";

const fn producer_perf(value_bytes: u32, acks: &'static str, codec: &'static str) -> Load {
    Load::ProducerPerf { value_bytes, acks, codec }
}

const fn end_to_end_tool(value_bytes: u32) -> Load {
    Load::EndToEndTool { value_bytes, acks: "all", records: 3_000 }
}

const fn produce(batches: Batches, producers: u32, acks: i16) -> Load {
    Load::Produce { batches, producers, acks }
}

const fn fetch(consumers: u32, filled_bytes: u64, cold: bool) -> Load {
    Load::Fetch { batches: LARGE, consumers, filled_bytes, cold, beside: None }
}

const fn end_to_end(percent: u32) -> Load {
    let rate = Some(Rate::PercentOf(percent, END_TO_END_MAX));
    Load::EndToEnd { batches: SMALL, producers: 4, consumers: 1, rate }
}

const fn rolling(for_long: bool) -> Load {
    Load::Rolling { batches: SMALL, producers: 4, rate: Rate::PercentOf(50, END_TO_END_MAX), for_long }
}

const fn librdkafka(value_bytes: u32) -> Load {
    Load::Librdkafka { value_bytes }
}

const fn workload(name: &'static str, mode: Mode, partitions: u32, load: Load) -> Workload {
    Workload { name, mode, partitions, nodes: 1, load, settings: NO_KEYS, quick: false }
}

const fn three_nodes(workload: Workload) -> Workload {
    Workload { nodes: 3, ..workload }
}

const fn quick(workload: Workload) -> Workload {
    Workload { quick: true, ..workload }
}

const fn with(settings: &'static [(&'static str, &'static str)], workload: Workload) -> Workload {
    Workload { settings, ..workload }
}

/// The table.
#[rustfmt::skip]
pub(super) const WORKLOADS: &[Workload] = &[
    // Kafka's own tools, with its client's own batches.
    quick(workload("producer-perf 1KiB, 1 partition", Mode::PageCache, 1, producer_perf(1024, "all", "none"))),
    workload("producer-perf 1KiB, 100 partitions", Mode::PageCache, 100, producer_perf(1024, "all", "none")),
    workload("producer-perf 1KiB, as shipped", Mode::Defaults, 1, producer_perf(1024, "all", "none")),
    workload("producer-perf 100B", Mode::PageCache, 16, producer_perf(100, "all", "none")),
    workload("producer-perf 64KiB", Mode::PageCache, 16, producer_perf(65_536, "all", "none")),
    workload("producer-perf acks=0", Mode::PageCache, 16, producer_perf(1024, "0", "none")),
    workload("producer-perf acks=1", Mode::PageCache, 16, producer_perf(1024, "1", "none")),
    workload("producer-perf gzip", Mode::PageCache, 16, producer_perf(1024, "all", "gzip")),
    workload("producer-perf snappy", Mode::PageCache, 16, producer_perf(1024, "all", "snappy")),
    workload("producer-perf lz4", Mode::PageCache, 16, producer_perf(1024, "all", "lz4")),
    workload("producer-perf zstd", Mode::PageCache, 16, producer_perf(1024, "all", "zstd")),
    workload("consumer-perf 1KiB", Mode::PageCache, 16, Load::ConsumerPerf { value_bytes: 1024, records: 1_000_000 }),
    workload("end-to-end tool 1KiB", Mode::PageCache, 1, end_to_end_tool(1024)),
    workload("end-to-end tool 1KiB, flushed", Mode::Flushed, 1, end_to_end_tool(1024)),
    quick(workload("librdkafka produce 1KiB, 1 partition", Mode::PageCache, 1, librdkafka(1024))),
    workload("librdkafka produce 1KiB, 100 partitions", Mode::PageCache, 100, librdkafka(1024)),
    workload("librdkafka produce 100B", Mode::PageCache, 16, librdkafka(100)),
    workload("librdkafka fetch 1KiB", Mode::PageCache, 16, Load::LibrdkafkaFetch { batches: LARGE, filled_bytes: 2 * GIB }),
    // Batches that are encoded before: the driver costs little, the broker shows what it can.
    quick(workload("produce 64KiB batches", Mode::PageCache, 16, produce(LARGE, 16, -1))),
    workload("produce 16KiB batches", Mode::PageCache, 16, produce(MIDDLE, 16, -1)),
    workload("produce 64KiB batches, as shipped", Mode::Defaults, 16, produce(LARGE, 16, -1)),
    workload("produce 100B records, 16KiB batches", Mode::PageCache, 16, produce(TINY, 16, -1)),
    workload("produce 64KiB records", Mode::PageCache, 16, produce(HUGE, 16, -1)),
    workload("produce 64KiB batches, 1 producer, 1 partition", Mode::PageCache, 1, produce(LARGE, 1, -1)),
    workload("produce 64KiB batches, acks=1", Mode::PageCache, 16, produce(LARGE, 16, 1)),
    workload("produce 64KiB batches, acks=0", Mode::PageCache, 16, produce(LARGE, 16, 0)),
    quick(workload("produce 100B keyed, 200 producers", Mode::PageCache, 100, produce(KEYED, 200, -1))),
    quick(workload("produce flushed, 16 partitions", Mode::Flushed, 16, produce(SMALL, 16, -1))),
    workload("produce flushed, 100 partitions", Mode::Flushed, 100, produce(SMALL, 100, -1)),
    quick(workload("fetch from the page cache", Mode::PageCache, 16, fetch(4, 2 * GIB, false))),
    workload("fetch from the disk", Mode::PageCache, 16, fetch(1, 4 * GIB, true)),
    workload("fetch from the disk beside a producer", Mode::PageCache, 16, Load::Fetch { batches: LARGE, consumers: 1, filled_bytes: 4 * GIB, cold: true, beside: Some(Rate::Fixed(500.0)) }),
    quick(workload(END_TO_END_MAX, Mode::PageCache, 16, Load::EndToEnd { batches: SMALL, producers: 4, consumers: 1, rate: None })),
    workload("end to end at 10 %", Mode::PageCache, 16, end_to_end(10)),
    quick(workload("end to end at 50 %", Mode::PageCache, 16, end_to_end(50))),
    workload("end to end at 80 %", Mode::PageCache, 16, end_to_end(80)),
    workload("fan-out to 50 consumers", Mode::PageCache, 16, Load::EndToEnd { batches: SMALL, producers: 4, consumers: 50, rate: Some(Rate::Fixed(200.0)) }),
    with(ROLLING, workload("produce at 50 % while retention rolls", Mode::PageCache, 16, rolling(false))),
    with(ROLLING, workload("retention rolls for long", Mode::PageCache, 16, rolling(true))),
    // What it costs to be there.
    quick(workload("start, empty", Mode::PageCache, 1, Load::StartUp { filled_bytes: 0 })),
    workload("start with 1 GiB", Mode::PageCache, 16, Load::StartUp { filled_bytes: GIB }),
    workload("start with 10 GiB", Mode::PageCache, 16, Load::StartUp { filled_bytes: 10 * GIB }),
    quick(workload("idle", Mode::PageCache, 1, Load::Idle)),
    workload("idle, 1000 partitions", Mode::PageCache, 1_000, Load::Idle),
    // Clusters, of which only the cost is told.
    quick(three_nodes(workload("three nodes, producer-perf 1KiB", Mode::PageCache, 16, producer_perf(1024, "all", "none")))),
    quick(three_nodes(workload("three nodes, librdkafka produce 1KiB", Mode::PageCache, 16, librdkafka(1024)))),
    three_nodes(workload("three nodes, producer-perf 1KiB, flushed", Mode::Flushed, 16, producer_perf(1024, "all", "none"))),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn phases_are_as_long_as_a_workload_needs() {
        let usual = Phases { warm: Duration::from_secs(5), measured: Duration::from_secs(4) };
        let of = |name: &str| {
            let workload = WORKLOADS.iter().find(|workload| workload.name == name).expect(name);
            let phases = workload.phases(usual, 60);
            (phases.warm.as_secs(), phases.measured.as_secs())
        };
        assert_eq!(of("idle"), (5, 4));
        assert_eq!(of("produce at 50 % while retention rolls"), (45, 4));
        assert_eq!(of("retention rolls for long"), (45, 3_600));
        assert_eq!(of("three nodes, librdkafka produce 1KiB"), (15, 4));
        assert_eq!(of("start, empty"), (0, 0));
    }

    #[test]
    fn names_are_names() {
        let names: BTreeSet<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
        assert_eq!(names.len(), WORKLOADS.len());
        assert!(WORKLOADS.iter().all(|workload| workload.partitions > 0 && matches!(workload.nodes, 1 | 3)));
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

    /// A percentage of what was measured with a rate, or in another mode, would be a percentage of nothing.
    #[test]
    fn percentages_are_of_maxima_that_come_before() {
        for (index, workload) in WORKLOADS.iter().enumerate() {
            let Some(name) = workload.needs() else { continue };
            let of = WORKLOADS[..index].iter().find(|other| other.name == name).expect(name);
            assert_eq!((of.mode, of.partitions), (workload.mode, workload.partitions), "{}", workload.name);
            assert!(of.needs().is_none() && (of.quick || !workload.quick));
        }
    }

    /// Each batch of a partition is found again by its offset, which takes one producer for it at most.
    #[test]
    fn end_to_end_has_one_producer_a_partition() {
        for workload in WORKLOADS {
            if let Load::EndToEnd { producers, consumers, .. } = workload.load {
                assert!(producers <= workload.partitions && consumers > 0, "{}", workload.name);
            }
        }
    }
}
