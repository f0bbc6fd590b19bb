//! Damage to a log at rest: bits that flip, sectors that read as zeroes, files cut short, at random places. What is known
//! to be flushed fences the partition, with file and position; what is not, and what a power cut explains, is cut off.

mod support;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use ouzel_model::batch::Codec;
use ouzel_model::{Offset, TimestampMs};
use ouzel_runtime::disk::OpenMode;
use ouzel_runtime::sim::{self, Rng, SimRuntime};
use ouzel_storage::{Durability, LogConfig, OpenError, Stop};
use support::{Bench, append, batch, read_log};

/// A log of some segments, closed by a kill with everything flushed.
struct AtRest {
    config: LogConfig,
    /// Per batch: first offset, next offset, file, position, bytes.
    batches: Vec<(Offset, Offset, PathBuf, u64, u64)>,
}

async fn write_log(bench: &Bench, random: &mut Rng) -> AtRest {
    let config = LogConfig { segment_bytes: 1200, durability: Durability::Durable, ..LogConfig::default() };
    let log = bench.open(&config).await;
    let mut batches: Vec<(Offset, Offset, PathBuf, u64, u64)> = Vec::new();
    let (mut segments, mut file, mut position) = (0, PathBuf::new(), 0);
    for tag in 0..12 + random.below(12) {
        let timestamps = vec![TimestampMs(5).0; 1 + random.below(4) as usize];
        let bytes = batch(Codec::None, tag, &timestamps);
        let len = bytes.len() as u64;
        let appended = append(&log, bytes);
        if log.segment_count() > segments {
            segments = log.segment_count();
            file = bench.dir().join(format!("{:020}.log", appended.base_offset.value()));
            position = 0;
        }
        let next = appended.last_offset.next();
        batches.push((appended.base_offset, next, file.clone(), position, len));
        position += len;
    }
    log.flush().await.expect("a sound disk");
    AtRest { config, batches }
}

#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip,
    Zeroes,
    Cut,
}

/// Harms the batch, and everything behind it in its file but for a flip.
async fn harm(node: &SimRuntime, random: &mut Rng, harm: Harm, file: &Path, position: u64, bytes: u64) {
    let disk = node.runtime().disk;
    match harm {
        Harm::Flip => {
            // The leader epoch, at 12 to 16, lies outside the CRC; only an epoch that goes down shows.
            let at = [random.below(12), 16 + random.below(bytes - 16)][random.below(2) as usize];
            node.disk().flip_bit(file, position + at, random.below(8) as u8).expect("the byte is there");
        }
        Harm::Zeroes => {
            let open = disk.open(file, OpenMode::ReadWrite).await.expect("the file is there");
            let len = open.len().await.expect("a length");
            open.write_at(position, vec![Bytes::from(vec![0; (len - position) as usize])])
                .await
                .expect("written");
        }
        Harm::Cut => {
            let open = disk.open(file, OpenMode::ReadWrite).await.expect("the file is there");
            open.truncate(position + 1 + random.below(bytes - 1)).await.expect("cut");
        }
    }
}

#[test]
fn damage_below_the_flushed_offset_fences_and_above_it_is_cut() {
    let (mut fenced, mut cut) = (0, 0);
    for seed in 0..300 {
        let was_fenced = sim::run(seed, |node| async move {
            let mut random = Rng::new(seed);
            let bench = Bench::new(node.runtime(), node.data_dir(), 0);
            let AtRest { config, batches } = write_log(&bench, &mut random).await;
            // The hint lies in the last segment, where a start begins to look; the harm somewhere there too.
            let last_file = &batches[batches.len() - 1].2;
            let looked_at: Vec<_> = batches.iter().filter(|batch| batch.2 == *last_file).collect();
            let flushed = looked_at[random.below(looked_at.len() as u64) as usize].0;
            let (base, next, file, position, bytes) =
                looked_at[random.below(looked_at.len() as u64) as usize];
            let kind = [Harm::Flip, Harm::Zeroes, Harm::Cut][random.below(3) as usize];
            harm(&node, &mut random, kind, file, *position, *bytes).await;
            let before = node.disk().files();

            let opened = bench.reopen(&config, Stop::UncleanOtherBoot, flushed).await;
            let is_below = *base < flushed;
            match opened {
                Ok(log) => {
                    assert!(!is_below, "seed {seed}: {kind:?} at {base} is below {flushed}");
                    assert_eq!(
                        log.offsets().log_end,
                        *base,
                        "seed {seed}: {kind:?}, the batch ended at {next}"
                    );
                    let seen = read_log(&log).await;
                    assert_eq!(seen.len() as i64, base.value(), "seed {seed}: nothing else is missing");
                }
                Err(OpenError::Damaged(damage)) => {
                    assert!(is_below, "seed {seed}: {kind:?} at {base} is not below {flushed}: {damage}");
                    assert_eq!((&damage.file, damage.position), (file, *position), "seed {seed}: {damage}");
                    assert!(!damage.expected.is_empty() && !damage.found.is_empty());
                    assert_eq!(
                        node.disk().files(),
                        before,
                        "seed {seed}: a fenced partition is left as it is"
                    );
                }
                Err(error) => panic!("seed {seed}: {error}"),
            }
            is_below
        });
        *if was_fenced { &mut fenced } else { &mut cut } += 1;
    }
    assert!(fenced > 50 && cut > 50, "{fenced} fenced, {cut} cut");
}

/// Bytes that only a killed process lost are in the page cache, so nothing but a batch cut short is explained by a kill.
#[test]
fn in_the_same_boot_only_an_unfinished_write_is_cut() {
    for seed in 0..100 {
        sim::run(seed, |node| async move {
            let mut random = Rng::new(seed);
            let bench = Bench::new(node.runtime(), node.data_dir(), 0);
            let AtRest { config, batches } = write_log(&bench, &mut random).await;
            let (base, _, file, position, bytes) = &batches[batches.len() - 1];
            let kind = [Harm::Flip, Harm::Zeroes, Harm::Cut][random.below(3) as usize];
            harm(&node, &mut random, kind, file, *position, *bytes).await;
            let opened = bench.reopen(&config, Stop::UncleanSameBoot, *base).await;
            match (kind, opened) {
                (Harm::Cut, Ok(log)) => assert_eq!(log.offsets().log_end, *base),
                (Harm::Cut, Err(error)) => panic!("seed {seed}: {error}"),
                (_, Err(OpenError::Damaged(damage))) => {
                    assert_eq!(damage.position, *position, "seed {seed}: {damage}")
                }
                // A flipped length is no different from a batch that was cut short.
                (Harm::Flip, Ok(log)) => assert_eq!(log.offsets().log_end, *base, "seed {seed}"),
                (kind, opened) => panic!("seed {seed}: {kind:?} gives {opened:?}"),
            }
        });
    }
}
