//! Fuzz targets for record batches, the one thing a stranger sends that is stored as it came. Inside `cargo test` each
//! runs its committed corpus and a bounded number of random inputs; `cargo xtask fuzz` gives it longer.

use std::time::Duration;

use ouzel_model::TimestampMs;
use ouzel_model::batch::validate::{ProduceRules, validate_produced};
use ouzel_model::batch::{
    BatchBuilder, BatchView, Codec, RecordHeader, RecordParts, RecordStream, RecordsError, TimestampType,
    batches,
};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
/// A batch may unfold into this much; a bomb ends in an error, not in memory.
const PLAIN_BYTES_MAX: usize = 1 << 16;
/// Where the CRC lies in a batch, and from where on it covers.
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;

const RULES: ProduceRules = ProduceRules {
    now: TimestampMs(1_000_000),
    timestamp_type: TimestampType::CreateTime,
    timestamp_before_max_ms: i64::MAX,
    timestamp_after_max_ms: i64::MAX,
    keys_required: false,
    plain_bytes_max: PLAIN_BYTES_MAX,
};

/// Runs a body over the corpus and a bounded number of random inputs. A macro, because the corpus's folder is named
/// after the function that the call stands in.
macro_rules! fuzz {
    ($body:expr) => {
        bolero::check!()
            .with_iterations(20_000)
            .with_test_time(Duration::from_millis(800))
            .with_max_len(1024)
            .for_each(|input: &[u8]| $body(input))
    };
}

#[test]
fn bytes_as_batches() {
    fuzz!(|input: &[u8]| {
        let mut walk = batches(input);
        while let Some(Ok(batch)) = walk.next() {
            assert!(batch.bytes.len() <= input.len());
            judge(&batch);
        }
    });
}

/// Good batches with a few bytes changed, and the CRC made right again, reach what lies behind the CRC.
#[test]
fn batches_nearly_right() {
    fuzz!(|input: &[u8]| {
        let [codec, records, value_bytes, changes @ ..] = input else { return };
        let mut bytes = built(*codec, *records, *value_bytes);
        for change in changes.chunks_exact(3).take(8) {
            let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % bytes.len();
            bytes[at] = change[2];
        }
        let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
        bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        if let Ok(batch) = BatchView::parse(&bytes) {
            judge(&batch);
        }
    });
}

/// Nothing in a batch may make a reader panic, and what is accepted holds exactly what its header claims.
fn judge(batch: &BatchView<'_>) {
    let header = batch.header;
    let accepted = validate_produced(batch, &RULES);
    let mut count = 0;
    let mut newest = TimestampMs::NONE;
    if let Ok(mut records) = RecordStream::new(batch, PLAIN_BYTES_MAX) {
        while let Some(record) = records.next_record() {
            let record = match record {
                Ok(record) => record,
                // Kafka's broker looks at no header key, so a batch with such a one is stored; only reading it whole fails.
                Err(RecordsError::Malformed { reason: "a header's key is not UTF-8", .. }) => return,
                Err(error) => {
                    assert!(accepted.is_err(), "an accepted batch is readable to its end: {error}");
                    return;
                }
            };
            if accepted.is_ok() {
                assert_eq!(record.offset, header.base_offset + i64::from(count));
            }
            newest = newest.max(record.timestamp);
            count += 1;
        }
    }
    if let Ok(validated) = accepted {
        assert_eq!((count, header.last_offset_delta), (header.record_count, header.record_count - 1));
        if header.attributes.timestamp_type() == TimestampType::CreateTime {
            assert_eq!(newest, validated.max_timestamp);
        }
    }
}

/// A good batch, as three bytes describe it.
fn built(codec: u8, records: u8, value_bytes: u8) -> Vec<u8> {
    let mut batch = BatchBuilder::new(CODECS[usize::from(codec) % CODECS.len()]);
    let headers = [RecordHeader { key: "h".to_owned(), value: Some(b"x".to_vec()) }];
    let value = vec![b'v'; usize::from(value_bytes)];
    for nth in 0..=i64::from(records % 8) {
        let key = (nth % 2 == 0).then_some(&b"key"[..]);
        let value = (nth % 3 != 2).then_some(&value[..]);
        batch.push(TimestampMs(900_000 + nth), &RecordParts { key, value, headers: &headers });
    }
    batch.build()
}

/// The checker itself: good batches are accepted, and a batch that lies about its count is not.
#[test]
fn a_lie_about_the_count_is_refused() {
    for codec in 0..5 {
        let mut bytes = built(codec, 3, 9);
        let batch = BatchView::parse(&bytes).expect("a batch of our own");
        assert!(validate_produced(&batch, &RULES).is_ok());
        judge(&batch);
        // Record count and last offset delta agree with each other, and not with the records.
        bytes[57..61].copy_from_slice(&9i32.to_be_bytes());
        bytes[23..27].copy_from_slice(&8i32.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
        bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        let batch = BatchView::parse(&bytes).expect("its frame is right");
        assert!(validate_produced(&batch, &RULES).is_err());
    }
}
