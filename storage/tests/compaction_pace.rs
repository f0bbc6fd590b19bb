//! How fast a compaction goes, in virtual time, and what goes on beside it.

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use ouzel_model::Offset;
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts};
use ouzel_runtime::sim;
use ouzel_storage::LogConfig;
use ouzel_storage::compaction::{Cleaner, CleanerConfig, CompactionRules};
use support::{Bench, EPOCH, NOW};

const RECORDS: u64 = 2_000;
const VALUE_BYTES: usize = 1_000;
const BYTES_PER_SECOND: f64 = 100_000.0;
/// Longest wait of a reader for a disk that takes up to a millisecond for each of its few operations.
const READ_LONGEST: Duration = Duration::from_millis(20);

/// Half of the keys come twice, so that as much is written as is dropped.
fn record(nth: u64) -> BytesMut {
    let key = (nth % (RECORDS * 2 / 3)).to_string();
    let value = vec![b'v'; VALUE_BYTES];
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(NOW, &RecordParts { key: Some(key.as_bytes()), value: Some(&value), headers: &[] });
    BytesMut::from(&builder.build()[..])
}

/// A pass reads the log twice, once for the keys and once for the records, and writes what stays. All of it counts, so it takes
/// as long as that takes at the rate: no less, whatever the disk could do, and hardly more. Meanwhile the log is read and
/// written to as if nobody cleaned it.
#[test]
fn a_pass_keeps_to_its_rate_and_nobody_waits_for_it() {
    sim::run(1, |node| async move {
        node.disk().set_delay_max(Duration::from_millis(1));
        let clock = node.runtime().clock;
        let bench = Bench::new(node.runtime(), node.data_dir(), 0);
        let log = bench.open(&LogConfig { segment_bytes: 100_000, ..LogConfig::default() }).await;
        for nth in 0..RECORDS {
            log.append(record(nth), EPOCH, NOW).unwrap();
        }
        log.roll();
        log.append(record(0), EPOCH, NOW).unwrap();
        log.flush().await.unwrap();

        let limits = CleanerConfig {
            bytes_per_second: BYTES_PER_SECOND,
            chunk_bytes: 16 << 10,
            ..CleanerConfig::default()
        };
        let cleaner = Cleaner::new(node.runtime(), limits);
        let (began, bound, end) = (clock.now(), Offset(RECORDS as i64), log.offsets().log_end);
        let is_over = Rc::new(Cell::new(false));
        let reading = ouzel_runtime::spawn({
            let (log, clock, is_over) = (log.clone(), clock.clone(), is_over.clone());
            async move {
                let (mut reads, mut longest, mut from) = (0, Duration::ZERO, Offset::ZERO);
                while !is_over.get() {
                    let asked = clock.now();
                    let read = log.read(from, end, 4 << 10, true).await.unwrap();
                    longest = longest.max(clock.now().duration_since(asked));
                    assert!(read.bytes > 0, "there is something from {from}");
                    reads += 1;
                    from = Offset((from.value() + 7) % bound.value());
                    clock.sleep(Duration::from_millis(50)).await;
                }
                (reads, longest)
            }
        });
        let pass = log.compact(&cleaner, &CompactionRules::default(), bound, NOW).await.unwrap();
        let took = clock.now().duration_since(began);
        is_over.set(true);
        let (reads, longest) = reading.await.unwrap();

        let pass = pass.expect("half of it is to go");
        let bytes = pass.bytes_mapped + pass.counts.bytes_read + pass.counts.bytes_kept;
        assert!(pass.counts.bytes_kept < pass.counts.bytes_read && bytes > 4_000_000, "{pass:?}");
        let due = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND);
        assert!(took >= due.mul_f64(0.98), "{bytes} bytes in {took:?}, not before {due:?}");
        assert!(took <= due.mul_f64(1.1), "{bytes} bytes in {took:?}, due in {due:?}");
        assert!(reads > 400, "{reads} reads are too few to show anything");
        assert!(longest <= READ_LONGEST, "a reader waited {longest:?}");
    });
}
