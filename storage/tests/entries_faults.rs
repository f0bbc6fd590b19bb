//! What a log that numbers its entries does when its files do not fit together, and when nobody waits for what it began.

mod support;

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ouzel_model::batch::{Codec, Header};
use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, Offset};
use ouzel_runtime::sim::{self, SimRuntime};
use ouzel_runtime::{spawn, yield_now};
use ouzel_storage::{Damage, Durability, Log, LogConfig, OpenError, OpenLog, ProducerVerdict, Stop};
use support::{Bench, NOW, append, batch, produced, read_log};

const HEADER_BYTES: usize = 40;

fn bench_of(node: &SimRuntime) -> Bench {
    Bench::new(node.runtime(), node.data_dir(), 0)
}

async fn open(node: &SimRuntime, config: &LogConfig, stop: Stop) -> Result<Log, OpenError> {
    let bench = bench_of(node);
    Log::open(OpenLog { stop, with_entries: true, ..bench.options(config) }).await
}

fn id(term: i32, index: u64) -> EntryId {
    EntryId { term: LeaderEpoch(term), index: EntryIndex(index) }
}

fn side(log: &Log, at: EntryId) {
    log.append_side(at, 7, Bytes::from_static(b"members")).expect("the log takes it");
}

/// Two records.
fn two(log: &Log, at: EntryId) {
    log.place_batch(at, batch(Codec::None, at.index.value(), &[NOW.0, NOW.0 + 1]), NOW)
        .expect("the log takes it");
}

/// Entries 0 side, 1 batch, 2 side, 3 batch | 4 batch, 5 side of term 2, 6 batch, 7 side, 8 batch; all flushed. Segments
/// at 0 and 4.
async fn two_segments(node: &SimRuntime) {
    let log = open(node, &LogConfig::default(), Stop::Unknown).await.expect("a new log");
    side(&log, id(1, 0));
    two(&log, id(1, 1));
    side(&log, id(1, 2));
    two(&log, id(1, 3));
    log.roll();
    two(&log, id(1, 4));
    side(&log, id(2, 5));
    two(&log, id(2, 6));
    side(&log, id(2, 7));
    two(&log, id(2, 8));
    log.wait_entry_flushed(EntryIndex(8)).await.expect("flushed");
    log.flush().await.expect("flushed");
}

fn name(base: i64, extension: &str) -> String {
    format!("{base:020}.{extension}")
}

async fn replace(bench: &Bench, name: &str, bytes: &[u8]) {
    let disk = &bench.runtime.disk;
    disk.write_atomic(&bench.dir().join(name), Bytes::copy_from_slice(bytes)).await.expect("replaced");
}

/// The records of a side file, each with its CRC.
fn split(file: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let mut rest = &file[HEADER_BYTES..];
    while !rest.is_empty() {
        let bytes = 8 + u32::from_be_bytes(rest[4..8].try_into().expect("four bytes")) as usize;
        records.push(rest[..bytes].to_vec());
        rest = &rest[bytes..];
    }
    records
}

/// A record with other bytes at `at`, and the CRC they ask for.
fn changed(record: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut record = record.to_vec();
    record[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&record[4..]);
    record[..4].copy_from_slice(&crc.to_be_bytes());
    record
}

fn header_behind(header: &[u8], index: u64) -> Vec<u8> {
    let mut header = header.to_vec();
    header[24..32].copy_from_slice(&index.to_be_bytes());
    let crc = crc32c::crc32c(&header[..36]);
    header[36..40].copy_from_slice(&crc.to_be_bytes());
    header
}

/// No crash leaves any of these: a replica that guessed might have other entries under an index than its peers.
#[test]
fn files_that_no_crash_leaves_fence_the_replica_and_stay_as_they_are() {
    type Harm = fn(&[u8], &[u8]) -> (usize, Option<Vec<u8>>);
    // Given both side files: which one is replaced, by what (none: it is removed).
    let harms: [(&str, Harm); 11] = [
        ("the active segment's is gone", |_, _| (1, None)),
        ("it is another segment's", |first, _| (1, Some(first.to_vec()))),
        ("it goes on behind another entry", |_, second| {
            (1, Some([header_behind(&second[..HEADER_BYTES], 2), split(second).concat()].concat()))
        }),
        ("its header is damaged", |_, second| {
            let mut second = second.to_vec();
            second[20] ^= 1;
            (1, Some(second))
        }),
        ("its header is cut short", |_, second| (1, Some(second[..30].to_vec()))),
        ("the entry that began a reign is missing", |_, second| (1, Some(second[..HEADER_BYTES].to_vec()))),
        ("the last entry before a roll is missing", |first, _| {
            (0, Some([&first[..HEADER_BYTES], &split(first)[0][..]].concat()))
        }),
        ("the log disagrees about the next offset", |_, second| {
            let record = changed(&split(second)[0], 20, &7i64.to_be_bytes());
            (1, Some([&second[..HEADER_BYTES], &record[..]].concat()))
        }),
        ("an index that a batch has", |first, _| {
            let records = split(first);
            let moved = changed(&records[1], 8, &3u64.to_be_bytes());
            (0, Some([&first[..HEADER_BYTES], &records[0][..], &moved[..]].concat()))
        }),
        ("terms go down", |_, second| {
            let record = changed(&split(second)[0], 16, &0i32.to_be_bytes());
            (1, Some([&second[..HEADER_BYTES], &record[..]].concat()))
        }),
        ("the last record is damaged, and batches are behind it", |_, second| {
            let mut second = second.to_vec();
            let last = second.len() - 1;
            second[last] ^= 1;
            (1, Some(second))
        }),
    ];
    for (what, harm) in harms {
        for stop in [Stop::UncleanSameBoot, Stop::UncleanOtherBoot, Stop::Unknown] {
            sim::run(1, |node| async move {
                two_segments(&node).await;
                node.disk().kill();
                let bench = bench_of(&node);
                let bases = [0, 4];
                let (first, second) =
                    (bench.file(&name(0, "raft")).await, bench.file(&name(4, "raft")).await);
                let (which, content) = harm(&first, &second);
                let path = bench.dir().join(name(bases[which], "raft"));
                let disk = &bench.runtime.disk;
                match content {
                    Some(content) => replace(&bench, &name(bases[which], "raft"), &content).await,
                    None => disk.remove_file(&path).await.expect("it is there"),
                }
                assert!(
                    bench.names().await.contains(&name(0, "raftindex")),
                    "a sealed segment has its index"
                );
                disk.sync_dir(&bench.dir()).await.expect("flushed");
                let before = node.disk().files();
                let error = open(&node, &LogConfig::default(), stop).await.expect_err(what);
                let OpenError::Damaged(damage) = error else { panic!("{what}: {error}") };
                let Damage { file, expected, found, .. } = &damage;
                assert!(file.starts_with(bench.dir()) && !expected.is_empty() && !found.is_empty(), "{what}");
                assert_eq!(node.disk().files(), before, "{what}, {stop:?}: {damage}");
            });
        }
    }
}

/// As with the `.log` (see `faults`): a flush failed and fenced the log; the next start of the same boot read the side entry
/// from the page cache, which the kernel had taken for clean, called it flushed, and put batches behind it. The power cut
/// that followed took it, and every batch behind it got another index.
#[test]
fn a_side_entry_whose_flush_failed_is_written_again_before_it_counts() {
    for seed in 0..40 {
        sim::run(seed, |node| async move {
            // A mode that writes no batch again, nor flushes one.
            let config = LogConfig { durability: Durability::Os, ..LogConfig::default() };
            let log = open(&node, &config, Stop::Unknown).await.expect("a new log");
            side(&log, id(1, 0));
            if seed % 2 == 0 {
                two(&log, id(1, 1));
            }
            let last = log.last_entry().expect("one");
            log.wait_entry_written(last.index).await.expect("written");
            node.disk().fail_sync_after(0);
            side(&log, id(1, last.index.value() + 1));
            log.wait_entry_flushed(EntryIndex(last.index.value() + 1)).await.expect_err("the flush fails");
            node.disk().kill();
            let log = open(&node, &config, Stop::UncleanSameBoot).await.expect("the log opens");
            let known = log.last_entry().expect("one");
            assert_eq!(log.entries_flushed(), Some(known.index));
            two(&log, id(1, known.index.value() + 1));
            log.flush().await.expect("flushed");
            let sides = log.side_entries();
            node.disk().power_cut();
            let log = open(&node, &config, Stop::UncleanOtherBoot).await.expect("the log opens");
            assert_eq!(log.last_entry(), Some(id(1, known.index.value() + 1)));
            assert_eq!(log.side_entries(), sides);
        });
    }
}

/// The first side entry of a new replica, read after a kill, was called flushed, and neither its directory nor the file that
/// names its topic was.
#[test]
fn what_was_read_after_a_kill_is_there_after_a_power_cut() {
    for seed in 0..60 {
        sim::run(seed, |node| async move {
            node.disk().set_delay_max(Duration::from_millis(3));
            let config = LogConfig::default();
            let log = open(&node, &config, Stop::Unknown).await.expect("a new log");
            side(&log, id(1, 0));
            node.runtime().clock.sleep(Duration::from_micros(seed * 300)).await;
            node.disk().kill();
            let stop = if seed % 2 == 0 { Stop::Unknown } else { Stop::UncleanSameBoot };
            let known = open(&node, &config, stop).await.expect("the log opens").last_entry();
            node.disk().power_cut();
            let log = open(&node, &config, Stop::UncleanOtherBoot).await.expect("the log opens");
            assert_eq!(log.last_entry(), known);
        });
    }
}

/// The purge point moved before the side files were gone: retention dropped the segments, a crash came, and the next start
/// found side files whose batches were missing.
#[test]
fn a_segment_is_an_entrys_until_its_side_file_is_gone() {
    for seed in 0..180 {
        sim::run(seed, |node| async move {
            let config = LogConfig { durability: Durability::Os, ..LogConfig::default() };
            let log = open(&node, &config, Stop::Unknown).await.expect("a new log");
            side(&log, id(1, 0));
            for index in 1..9 {
                two(&log, id(1, index));
                log.roll();
            }
            log.flush().await.expect("flushed");
            log.trim_to(Offset(16)).await.expect("trimmed");
            assert_eq!(log.segment_count(), 9, "they hold entries");
            // What drops the segments overtakes what purges them, if the disk is slow.
            if seed % 3 > 0 {
                node.disk().set_delay_max(Duration::from_millis(2));
            }
            node.disk().cut_power_after(seed / 3);
            let purged = log.purge(id(1, 6)).await;
            for _ in 0..5 {
                yield_now().await;
            }
            assert!(log.purged() <= Some(id(1, 6)) && log.segment_count() >= 3);
            if purged.is_ok() && !node.disk().is_cut() {
                assert_eq!((log.purged(), log.segment_count()), (Some(id(1, 6)), 3));
            }
            node.disk().power_cut();
            node.disk().heal();
            let log = open(&node, &config, Stop::UncleanOtherBoot).await.expect("no legal crash fences it");
            assert_eq!(log.last_entry(), Some(id(1, 8)));
            if purged.is_ok() {
                assert_eq!(log.purged(), Some(id(1, 6)));
            }
            // A dropped segment's number is not lost: it may be purged to again.
            log.purge(id(1, 6)).await.expect("purged");
            assert_eq!((log.purged(), log.offsets().log_start), (Some(id(1, 6)), Offset(16)));
        });
    }
}

/// A trim was noted beyond what was flushed, and a power cut took the records: the start found a log that began behind its
/// end, removed it whole, and with it the numbers of all entries and the purge point.
#[test]
fn a_trim_that_outlives_its_records_does_not_take_the_entries_with_it() {
    for seed in 0..30 {
        sim::run(seed, |node| async move {
            let config = LogConfig { durability: Durability::Os, ..LogConfig::default() };
            let log = open(&node, &config, Stop::Unknown).await.expect("a new log");
            side(&log, id(1, 0));
            two(&log, id(1, 1));
            log.roll();
            side(&log, id(1, 2));
            log.wait_entry_written(EntryIndex(2)).await.expect("written");
            log.purge(id(1, 1)).await.expect("purged");
            for index in 3..9 {
                two(&log, id(1, index));
            }
            log.wait_entry_written(EntryIndex(8)).await.expect("written");
            assert_eq!(log.trim_to(Offset(12)).await, Ok(Offset(12)));
            node.disk().power_cut();
            let log = open(&node, &config, Stop::UncleanOtherBoot).await.expect("the log opens");
            let offsets = log.offsets();
            assert_eq!(log.purged(), Some(id(1, 1)));
            assert!(log.last_entry() >= Some(id(1, 2)) && offsets.log_end >= Offset(2));
            assert_eq!(offsets.log_start, Offset(12).min(offsets.log_end));
            // It goes on where it ends, and the next start finds the trim where it was.
            for index in log.last_entry().expect("one").index.value() + 1..12 {
                two(&log, id(1, index));
            }
            log.flush().await.expect("flushed");
            node.disk().kill();
            let log = open(&node, &config, Stop::UncleanSameBoot).await.expect("the log opens");
            assert_eq!((log.offsets().log_start, log.last_entry()), (Offset(12), Some(id(1, 11))));
        });
    }
}

/// A cut whose caller went away half way left files that were cut under a log that was not: it refused nothing, and lent the
/// places of records out that its own offsets still counted.
#[test]
fn a_cut_that_nobody_waits_for_is_driven_to_its_end() {
    for seed in 0..150 {
        sim::run(seed, |node| async move {
            node.disk().set_delay_max(Duration::from_millis(2));
            let config = LogConfig { segment_bytes: 300, durability: Durability::Os, ..LogConfig::default() };
            let with_entries = seed % 2 == 0;
            let bench = bench_of(&node);
            let log = Log::open(OpenLog { with_entries, ..bench.options(&config) }).await.expect("a new log");
            if with_entries {
                side(&log, id(1, 0));
            }
            for index in 1..12 {
                let batch = batch(Codec::None, index, &[NOW.0, NOW.0 + 1]);
                match with_entries {
                    true => log.place_batch(id(1, index), batch, NOW).map(|_| ()).expect("the log takes it"),
                    false => drop(log.append(batch, LeaderEpoch(1), NOW).expect("the log takes it")),
                }
            }
            let patience = Duration::from_micros(seed * 170);
            let clock = node.runtime().clock;
            let cut = async {
                match with_entries {
                    true => log.truncate_after(Some(id(1, 3))).await.map(|()| Offset(6)),
                    false => log.truncate_to(Offset(6)).await,
                }
            };
            let _ = clock.timeout(patience, cut).await;
            let end = if seed % 3 == 0 {
                // A stop in order waits for it.
                let end = log.close().await.expect("closed");
                let stop = Stop::Clean;
                let options = OpenLog {
                    stop,
                    clean_end: Some(end),
                    flushed: end,
                    with_entries,
                    ..bench.options(&config)
                };
                let log = Log::open(options).await.expect("the log opens");
                assert_eq!(read_log(&log).await.len(), 6);
                end
            } else {
                // Appends are refused until it is done.
                loop {
                    let batch = batch(Codec::None, 99, &[NOW.0]);
                    let taken = match with_entries {
                        true => log.place_batch(id(1, 4), batch, NOW),
                        false => log.append(batch, LeaderEpoch(1), NOW),
                    };
                    if taken.is_ok() {
                        break;
                    }
                    assert_eq!(log.fenced(), None);
                    clock.sleep(Duration::from_millis(1)).await;
                }
                log.flush().await.expect("flushed");
                node.disk().power_cut();
                let bench = bench_of(&node);
                let stop = Stop::UncleanOtherBoot;
                let options = OpenLog { stop, flushed: Offset(7), with_entries, ..bench.options(&config) };
                let log = Log::open(options).await.expect("the log opens");
                let values: Vec<_> = read_log(&log).await.into_iter().map(|record| record.value).collect();
                assert_eq!(values, ["1/0", "1/1", "2/0", "2/1", "3/0", "3/1", "99/0"]);
                Offset(6)
            };
            assert_eq!(end, Offset(6));
        });
    }
}

/// A trim or a roll in the middle of a cut moved the segments under it: the log began behind its end, or ended in a segment
/// that had gone.
#[test]
fn trims_and_rolls_stand_back_while_the_tail_is_cut() {
    for seed in 0..160 {
        sim::run(seed, |node| async move {
            let config = LogConfig { segment_bytes: 300, durability: Durability::Os, ..LogConfig::default() };
            let log = bench_of(&node).open(&config).await;
            for tag in 0..11 {
                append(&log, batch(Codec::None, tag, &[NOW.0, NOW.0 + 1]));
            }
            log.flush().await.expect("flushed");
            node.disk().set_delay_max(Duration::from_millis(2));
            let trimming = |log: Log| async move { log.trim_to(Offset(15)).await.expect("trimmed") };
            let early = (seed % 4 == 0).then(|| spawn(trimming(log.clone())));
            let clock = node.runtime().clock;
            if early.is_some() {
                clock.sleep(Duration::from_micros(seed * 20)).await;
            }
            let cutting = {
                let log = log.clone();
                spawn(async move { log.truncate_to(Offset(6)).await })
            };
            clock.sleep(Duration::from_micros(seed * 60)).await;
            log.roll();
            let start = trimming(log.clone()).await;
            let end = cutting.await.expect("it ends").expect("cut");
            if let Some(early) = early {
                early.await.expect("it ends");
            }
            let offsets = log.offsets();
            assert!(offsets.log_start <= offsets.log_end, "{offsets:?}");
            assert!(
                offsets.log_end == end && (start == offsets.log_start || end == Offset(6)),
                "{offsets:?}"
            );
            append(&log, batch(Codec::None, 99, &[NOW.0]));
            log.flush().await.expect("flushed");
            let seen = read_log(&log).await;
            assert_eq!(
                seen.last().map(|record| (record.offset, record.value.as_str())),
                Some((end.value(), "99/0"))
            );
            node.disk().power_cut();
            let stop = Stop::UncleanOtherBoot;
            let log = bench_of(&node).reopen(&config, stop, end).await.expect("no legal crash fences it");
            assert_eq!((log.offsets().log_start, read_log(&log).await), (offsets.log_start, seen));
        });
    }
}

/// A cut that left the snapshots of what it cut off: the log grew again to where one had been and was sealed there, a crash
/// came before the new snapshot was in its place, and the next start judged retries by producers whose records were gone.
#[test]
fn a_cut_leaves_no_snapshot_of_what_it_cut_off() {
    for point in 0..40 {
        sim::run(point, |node| async move {
            let bench = bench_of(&node);
            let config = LogConfig::default();
            let log = bench.open(&config).await;
            for sequence in 0..3 {
                append(&log, produced(1, sequence, 0, &[NOW.0]));
                log.roll();
            }
            log.flush().await.expect("flushed");
            assert!(bench.names().await.contains(&name(2, "snapshot")));
            assert_eq!(log.truncate_to(Offset(1)).await, Ok(Offset(1)));
            for name in bench.names().await.iter().filter(|name| name.starts_with('0')) {
                let base: i64 = name[..20].parse().expect("digits");
                assert!(base <= 1, "{name} speaks of what is gone");
            }
            // Another producer takes the places.
            node.disk().cut_power_after(point);
            append(&log, produced(2, 0, 1, &[NOW.0]));
            log.roll();
            append(&log, produced(2, 1, 2, &[NOW.0]));
            let flushed = match log.flush().await {
                Ok(()) => Offset(3),
                Err(_) => log.offsets().flushed_end,
            };
            node.disk().power_cut();
            node.disk().cut_power_after(u64::MAX);
            let log =
                bench_of(&node).reopen(&config, Stop::UncleanOtherBoot, flushed).await.expect("it opens");
            let judge = |producer, sequence| {
                let batch = produced(producer, sequence, 0, &[NOW.0]);
                log.check_producer(&Header::parse(&batch).expect("a batch"))
            };
            assert_eq!(judge(1, 1), ProducerVerdict::Append, "it was cut off");
            for sequence in 0..log.offsets().log_end.value() - 1 {
                let verdict = judge(2, sequence as i32);
                assert!(matches!(verdict, ProducerVerdict::Duplicate(_)), "{sequence}: {verdict:?}");
            }
        });
    }
}

/// Reads go on while entries are cut and others take their places: what is read was there at one time, as a whole.
#[test]
fn who_reads_across_a_cut_gets_no_mixture() {
    for seed in 0..60 {
        sim::run(seed, |node| async move {
            node.disk().set_delay_max(Duration::from_millis(2));
            let log = Rc::new(open(&node, &LogConfig::default(), Stop::Unknown).await.expect("a new log"));
            side(&log, id(1, 0));
            (1..10).for_each(|index| two(&log, id(1, index)));
            log.flush().await.expect("flushed");
            let reader = {
                let log = log.clone();
                spawn(async move { log.read_entries(EntryIndex(2), EntryIndex(10), 150).await })
            };
            node.runtime().clock.sleep(Duration::from_micros(seed * 50)).await;
            log.truncate_after(Some(id(1, 3))).await.expect("cut");
            side(&log, id(2, 4));
            (5..10).for_each(|index| two(&log, id(2, index)));
            let read = reader.await.expect("it ends").expect("it reads");
            assert!(!read.is_empty());
            for (at, entry) in read.iter().enumerate() {
                assert_eq!(entry.id.index, EntryIndex(2 + at as u64));
            }
            let new = read.iter().filter(|entry| entry.id.term == LeaderEpoch(2)).count();
            let old = read
                .iter()
                .filter(|entry| entry.id.term == LeaderEpoch(1) && entry.id.index > EntryIndex(3))
                .count();
            assert!(new == 0 || old == 0, "{read:?}");
        });
    }
}

/// What is not a batch needs a file only in a group: a log of one replica stays exactly what it was.
#[test]
fn a_single_replicas_log_has_no_file_of_entries() {
    sim::run(1, |node| async move {
        let bench = bench_of(&node);
        let log = bench.open(&LogConfig { segment_bytes: 200, ..LogConfig::default() }).await;
        for tag in 0..9 {
            append(&log, batch(Codec::None, tag, &[NOW.0]));
        }
        log.truncate_to(Offset(5)).await.expect("cut");
        log.close().await.expect("closed");
        let names = bench.names().await;
        assert!(names.iter().all(|name| !name.contains(".raft")), "{names:?}");
        assert!(names.contains(&name(0, "log")), "{names:?}");
    });
}
