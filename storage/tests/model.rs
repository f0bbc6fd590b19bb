//! A log against a `Vec` of records: random appends, reads, look-ups, trims, truncations, rolls and restarts, on a
//! simulated disk. Contents, offsets and times must be the model's at every step.

mod support;

use bytes::BytesMut;
use ouzel_model::batch::Codec;
use ouzel_model::{Offset, TimestampMs};
use ouzel_runtime::sim;
use ouzel_storage::{Durability, Log, LogConfig, Stop, TimedOffset};
use proptest::prelude::*;
use support::{Bench, NOW, Seen, append, batch, read_all};

const BASE: i64 = NOW.0;

#[derive(Clone, Debug)]
enum Step {
    /// Batches of records with these times.
    Append(Vec<Vec<i64>>),
    /// Reads everything from a place, so many bytes at a time.
    Read {
        from: usize,
        bytes_max: usize,
    },
    /// Looks a time up below a place.
    Look {
        time: i64,
        bound: usize,
    },
    /// The largest time below a place.
    Largest {
        bound: usize,
    },
    Trim {
        to: usize,
    },
    Truncate {
        to: usize,
    },
    Roll,
    Checkpoint,
    /// Closes the log and opens it again.
    Restart,
    /// Kills the process, once all is written.
    Kill,
    /// Cuts the power, once all is flushed.
    PowerCut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let records = prop::collection::vec(0..1000i64, 1..5);
    let step = prop_oneof![
        8 => prop::collection::vec(records, 1..6).prop_map(Step::Append),
        4 => (any::<usize>(), 1..3000usize).prop_map(|(from, bytes_max)| Step::Read { from, bytes_max }),
        3 => (-1..1002i64, any::<usize>()).prop_map(|(time, bound)| Step::Look { time, bound }),
        1 => any::<usize>().prop_map(|bound| Step::Largest { bound }),
        1 => any::<usize>().prop_map(|to| Step::Trim { to }),
        1 => any::<usize>().prop_map(|to| Step::Truncate { to }),
        1 => Just(Step::Roll),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerCut),
    ];
    prop::collection::vec(step, 1..40)
}

/// What the log should hold, and where its batches end.
#[derive(Default)]
struct Model {
    records: Vec<Seen>,
    ends: Vec<usize>,
    start: usize,
}

impl Model {
    fn place(&self, any: usize) -> usize {
        self.start + any % (self.records.len() - self.start + 1)
    }

    /// The end of the last batch at or below a place: readers' bounds lie between batches.
    fn batch_end(&self, place: usize) -> usize {
        self.ends.iter().copied().rfind(|end| *end <= place).unwrap_or(0).max(self.start)
    }

    fn first(&self, bound: usize, matches: impl Fn(i64) -> bool) -> Option<TimedOffset> {
        let within = self.records.get(self.start..bound)?;
        let found = within.iter().find(|record| matches(record.timestamp))?;
        Some(TimedOffset { offset: Offset(found.offset), timestamp: TimestampMs(found.timestamp) })
    }
}

fn tagged(tag: usize, times: &[i64]) -> BytesMut {
    let times: Vec<_> = times.iter().map(|time| BASE + time).collect();
    batch([Codec::None, Codec::Lz4, Codec::Zstd][tag % 3], tag as u64, &times)
}

fn offset(place: usize) -> Offset {
    Offset(place as i64)
}

/// What a log with a bug would have left out; for the test that the model notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    Nothing,
    SkippedFlush,
    SkippedTruncation,
    SkippedTrim,
}

async fn live(
    node: sim::SimRuntime,
    steps: Vec<Step>,
    tail_bytes_max: u64,
    durability: Durability,
    planted: Planted,
) {
    let config =
        LogConfig { segment_bytes: 700, index_interval_bytes: 150, durability, ..LogConfig::default() };
    let bench = || Bench::new(node.runtime(), node.data_dir(), tail_bytes_max);
    let mut model = Model::default();
    let mut log = bench().open(&config).await;
    let mut tag = 0;
    for step in steps {
        let end = model.records.len();
        match &step {
            Step::Append(batches) => {
                for times in batches {
                    let placed = append(&log, tagged(tag, times));
                    assert_eq!(placed.base_offset, offset(model.records.len()));
                    for (at, time) in times.iter().enumerate() {
                        model.records.push(Seen {
                            offset: model.records.len() as i64,
                            timestamp: BASE + time,
                            value: format!("{tag}/{at}"),
                        });
                    }
                    model.ends.push(model.records.len());
                    tag += 1;
                }
            }
            Step::Read { from, bytes_max } => {
                let from = model.place(*from);
                let seen = read_all(&log, offset(from), offset(end), *bytes_max).await;
                assert_eq!(seen, model.records[from..]);
            }
            Step::Look { time, bound } => {
                let bound = model.batch_end(model.place(*bound));
                let found = log.offset_for_time(TimestampMs(BASE + time), offset(bound)).await.unwrap();
                assert_eq!(found, model.first(bound, |at| at >= BASE + time), "{time} below {bound}");
            }
            Step::Largest { bound } => {
                let bound = model.batch_end(model.place(*bound));
                let found = log.offset_of_max_timestamp(offset(bound)).await.unwrap();
                let max = model.records[model.start..bound].iter().map(|record| record.timestamp).max();
                assert_eq!(found, max.and_then(|max| model.first(bound, |at| at == max)), "below {bound}");
            }
            Step::Trim { to } => {
                let to = model.place(*to);
                log.flush().await.unwrap();
                if planted != Planted::SkippedTrim {
                    assert_eq!(log.trim_to(offset(to)).await.unwrap(), offset(to));
                }
                model.start = to;
            }
            Step::Truncate { to } => {
                let to = model.place(*to);
                let whole = model.ends.iter().copied().rfind(|end| *end <= to).unwrap_or(0);
                // A trim may have passed the middle of the batch that holds the place.
                if whole >= model.start {
                    if planted != Planted::SkippedTruncation {
                        assert_eq!(log.truncate_to(offset(to)).await.unwrap(), offset(whole));
                    }
                    model.records.truncate(whole);
                    model.ends.retain(|end| *end <= whole);
                }
            }
            Step::Roll => log.roll(),
            Step::Checkpoint => log.checkpoint().await.unwrap(),
            Step::Restart => {
                let end = log.close().await.unwrap();
                log = bench().reopen_clean(&config, end).await;
            }
            Step::Kill => {
                log.wait_written(offset(end)).await.unwrap();
                let flushed = log.offsets().flushed_end;
                node.disk().kill();
                log = bench().reopen(&config, Stop::UncleanSameBoot, flushed).await.unwrap();
            }
            Step::PowerCut => {
                if planted != Planted::SkippedFlush {
                    log.flush().await.unwrap();
                }
                node.disk().power_cut();
                log = bench().reopen(&config, Stop::UncleanOtherBoot, offset(end)).await.unwrap();
            }
        }
        check(&log, &model);
    }
    let seen = read_all(&log, offset(model.start), offset(model.records.len()), 500).await;
    assert_eq!(seen, model.records[model.start..]);
}

fn check(log: &Log, model: &Model) {
    let offsets = log.offsets();
    assert_eq!((offsets.log_start, offsets.log_end), (offset(model.start), offset(model.records.len())));
    assert!(
        offsets.flushed_end <= offsets.written_end && offsets.written_end <= offsets.log_end,
        "{offsets:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_vec_of_records(
        steps in steps(),
        tail_bytes_max in prop_oneof![Just(0u64), Just(400), Just(1 << 20)],
        durability in prop_oneof![Just(Durability::Durable), Just(Durability::WriteCaching), Just(Durability::Os)],
        seed in any::<u64>(),
    ) {
        sim::run(seed, |node| async move { live(node, steps, tail_bytes_max, durability, Planted::Nothing).await });
    }
}

#[test]
fn the_model_notices_what_a_log_leaves_out() {
    let batches = || Step::Append(vec![vec![1, 2], vec![3, 4], vec![5]]);
    for (planted, steps) in [
        (Planted::SkippedFlush, vec![batches(), Step::PowerCut]),
        (Planted::SkippedTruncation, vec![batches(), Step::Truncate { to: 3 }, batches()]),
        (Planted::SkippedTrim, vec![batches(), Step::Trim { to: 2 }]),
    ] {
        let noticed = |planted| {
            let steps = steps.clone();
            let lived = std::panic::catch_unwind(move || {
                sim::run(7, |node| async move { live(node, steps, 400, Durability::Os, planted).await });
            });
            lived.is_err()
        };
        assert!(!noticed(Planted::Nothing), "without a bug: {steps:?}");
        assert!(noticed(planted), "{planted:?} went unnoticed");
    }
}
