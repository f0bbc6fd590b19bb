//! What a broker demands of a producer's batch before it enters a log: Kafka's `LogValidator`, for magic 2.

use crate::{Offset, TimestampMs};

use super::header::{BatchError, BatchView, TimestampType};
use super::records::{RecordStream, RecordsError};

/// The topic's side of the bargain.
#[derive(Clone, Copy, Debug)]
pub struct ProduceRules {
    /// The broker's time.
    pub now: TimestampMs,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how old a record may be.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far in the future.
    pub timestamp_after_max_ms: i64,
    /// A compacted topic: each record needs a key.
    pub keys_required: bool,
    /// Plain bytes one batch may unfold into; guards the core's time, Kafka has no such bound.
    pub plain_bytes_max: usize,
}

/// What the walk over a good batch learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validated {
    /// The largest record timestamp; the header's own is the producer's word.
    pub max_timestamp: TimestampMs,
}

/// One record's fault, for the response's record errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFault {
    /// Index within the batch.
    pub index: i32,
    /// What is wrong.
    pub message: String,
}

/// Why a batch is refused.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// Not a batch, or its CRC does not match: the bytes were damaged on the way.
    #[error(transparent)]
    Corrupt(#[from] BatchError),
    /// A whole-batch rule is broken.
    #[error("{0}")]
    InvalidBatch(String),
    /// The records cannot be read.
    #[error(transparent)]
    InvalidRecords(#[from] RecordsError),
    /// Some records have timestamps outside the topic's bounds, or of the wrong type.
    #[error("one or more records have been rejected due to invalid timestamp")]
    InvalidTimestamp(Vec<RecordFault>),
    /// Some records lack a key.
    #[error("one or more records have been rejected")]
    MissingKey(Vec<RecordFault>),
}

/// Checks one batch of a client: CRC, header rules, then every record, streaming, in one pass.
///
/// # Errors
/// See [`Rejection`].
pub fn validate_produced(batch: &BatchView<'_>, rules: &ProduceRules) -> Result<Validated, Rejection> {
    batch.verify_crc()?;
    validate_header(batch)?;
    let mut records = RecordStream::new(batch, rules.plain_bytes_max)?;
    let mut max_timestamp = TimestampMs::NONE;
    let (mut late, mut keyless) = (Vec::new(), Vec::new());
    let mut index = 0;
    while let Some(facts) = records.next_facts() {
        let facts = facts?;
        if facts.offset_delta != index {
            return Err(Rejection::InvalidBatch(format!(
                "record {index} of the batch has offset delta {}; deltas must count up from 0",
                facts.offset_delta
            )));
        }
        max_timestamp = max_timestamp.max(facts.create_time);
        if rules.keys_required && !facts.has_key {
            let message = "Compacted topic cannot accept message without key".to_owned();
            keyless.push(RecordFault { index, message });
        }
        if let Some(message) = timestamp_fault(facts.create_time, rules) {
            late.push(RecordFault { index, message });
        }
        index += 1;
    }
    records.expect_end()?;
    match (late.is_empty(), keyless.is_empty()) {
        (false, _) => Err(Rejection::InvalidTimestamp(late)),
        (true, false) => Err(Rejection::MissingKey(keyless)),
        (true, true) => Ok(Validated { max_timestamp }),
    }
}

/// The rules that the header alone answers for.
fn validate_header(batch: &BatchView<'_>) -> Result<(), Rejection> {
    let header = &batch.header;
    let refuse = |message: String| Err(Rejection::InvalidBatch(message));
    if header.base_offset != Offset::ZERO {
        return refuse(format!("the batch has base offset {}; a producer must send 0", header.base_offset));
    }
    if header.record_count <= 0 {
        return refuse(format!(
            "the batch claims {} records; it must hold at least one",
            header.record_count
        ));
    }
    if header.last_offset_delta.checked_add(1) != Some(header.record_count) {
        return refuse(format!(
            "the batch claims {} records but spans {} offsets",
            header.record_count,
            i64::from(header.last_offset_delta) + 1
        ));
    }
    if header.attributes.is_control() {
        return refuse("clients are not allowed to write control records".to_owned());
    }
    if header.has_producer() && header.base_sequence < 0 {
        return refuse(format!(
            "the batch has producer id {} but base sequence {}",
            header.producer_id, header.base_sequence
        ));
    }
    Ok(())
}

fn timestamp_fault(time: TimestampMs, rules: &ProduceRules) -> Option<String> {
    if rules.timestamp_type == TimestampType::LogAppendTime || time == TimestampMs::NONE {
        return None;
    }
    let (time, now) = (time.value(), rules.now.value());
    let too_old = now.saturating_sub(time) > rules.timestamp_before_max_ms;
    let too_new = time.saturating_sub(now) > rules.timestamp_after_max_ms;
    (too_old || too_new).then(|| {
        format!(
            "Timestamp {time} of message is out of range. The timestamp should be within [{}, {}]",
            now.saturating_sub(rules.timestamp_before_max_ms),
            now.saturating_add(rules.timestamp_after_max_ms)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, Codec, RecordHeader, RecordParts, batches};
    use crate::{ProducerEpoch, ProducerId};

    const RULES: ProduceRules = ProduceRules {
        now: TimestampMs(1_000_000),
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        keys_required: false,
        plain_bytes_max: 1 << 20,
    };

    fn batch(codec: Codec, records: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec);
        let headers = [RecordHeader { key: "h".into(), value: None }];
        for i in 0..records {
            let key = (i % 2 == 0).then_some(&b"key"[..]);
            builder.push(
                TimestampMs(900_000 + i),
                &RecordParts { key, value: Some(b"value"), headers: &headers },
            );
        }
        builder.build()
    }

    fn verdict(bytes: &[u8], rules: &ProduceRules) -> String {
        match BatchView::parse(bytes).map_err(Rejection::from).and_then(|b| validate_produced(&b, rules)) {
            Ok(validated) => format!("ok {}", validated.max_timestamp),
            Err(rejection) => rejection.to_string(),
        }
    }

    /// Changes bytes of the header and makes the CRC right again: a producer that lies on purpose.
    fn lie(mut bytes: Vec<u8>, at: usize, field: &[u8]) -> Vec<u8> {
        bytes[at..at + field.len()].copy_from_slice(field);
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    #[test]
    fn good_batches_of_every_codec_pass_and_read_back() {
        for codec in Codec::ALL {
            let bytes = batch(codec, 10);
            assert_eq!(verdict(&bytes, &RULES), "ok 900009", "{codec}");
            let view = batches(&bytes).next().unwrap().unwrap();
            let records: Vec<_> = RecordStream::new(&view, 1 << 20).unwrap().map(Result::unwrap).collect();
            assert_eq!(records.len(), 10);
            assert_eq!(records[3].offset, Offset(3));
            assert_eq!(records[3].timestamp, TimestampMs(900_003));
            assert_eq!((records[3].key.clone(), records[2].key.clone()), (None, Some(b"key".to_vec())));
            assert_eq!(records[3].headers[0].key, "h");
        }
    }

    #[test]
    fn liars_are_told_what_is_wrong() {
        for codec in [Codec::None, Codec::Lz4] {
            let good = || batch(codec, 3);
            for (bytes, reason) in [
                (lie(good(), 57, &4i32.to_be_bytes()), "claims 4 records but spans 3"),
                (lie(good(), 57, &(-1i32).to_be_bytes()), "claims -1 records"),
                (lie(lie(good(), 57, &0i32.to_be_bytes()), 23, &(-1i32).to_be_bytes()), "claims 0 records"),
                (lie(lie(good(), 57, &2i32.to_be_bytes()), 23, &1i32.to_be_bytes()), "more bytes follow"),
                (lie(good(), 21, &(0x20i16 | i16::from(codec.id())).to_be_bytes()), "control records"),
                (lie(good(), 21, &7i16.to_be_bytes()), "codec 7"),
                (lie(good(), 43, &5i64.to_be_bytes()), "producer id 5 but base sequence -1"),
                (lie(good(), 0, &9i64.to_be_bytes()), "base offset 9"),
                (
                    {
                        let mut b = good();
                        b[70] ^= 1;
                        b
                    },
                    "CRC-32C",
                ),
                (
                    {
                        let mut b = good();
                        b[16] = 1;
                        b
                    },
                    "magic 1",
                ),
                (
                    {
                        let mut b = good();
                        b.truncate(80);
                        b
                    },
                    "cut short",
                ),
            ] {
                let verdict = verdict(&bytes, &RULES);
                assert!(verdict.contains(reason), "{codec}: expected '{reason}', got '{verdict}'");
            }
            let five = lie(lie(good(), 57, &5i32.to_be_bytes()), 23, &4i32.to_be_bytes());
            assert!(!verdict(&five, &RULES).starts_with("ok"), "{codec}");
        }
    }

    #[test]
    fn topic_rules_name_the_records_at_fault() {
        let compacted = ProduceRules { keys_required: true, ..RULES };
        let strict = ProduceRules { timestamp_before_max_ms: 99_999, ..RULES };
        let bytes = batch(Codec::None, 3);
        let view = BatchView::parse(&bytes).unwrap();
        let Err(Rejection::MissingKey(faults)) = validate_produced(&view, &compacted) else { panic!() };
        assert_eq!(faults.iter().map(|f| f.index).collect::<Vec<_>>(), [1]);
        let Err(Rejection::InvalidTimestamp(faults)) = validate_produced(&view, &strict) else { panic!() };
        assert_eq!(faults.iter().map(|f| f.index).collect::<Vec<_>>(), [0]);
        let rewriting = ProduceRules { timestamp_type: TimestampType::LogAppendTime, ..strict };
        assert!(validate_produced(&view, &rewriting).is_ok(), "the broker's time replaces them all");
    }

    #[test]
    fn producer_fields_survive_and_sequences_wrap() {
        let mut builder = BatchBuilder::new(Codec::None).producer(ProducerId(7), ProducerEpoch(1), i32::MAX);
        for _ in 0..3 {
            builder.push(TimestampMs(1), &RecordParts::default());
        }
        let bytes = builder.build();
        let header = BatchView::parse(&bytes).unwrap().header;
        assert_eq!((header.producer_id, header.producer_epoch), (ProducerId(7), ProducerEpoch(1)));
        assert_eq!((header.base_sequence, header.last_sequence()), (i32::MAX, 1));
        assert_eq!((header.next_offset(), header.size_bytes()), (Offset(3), bytes.len()));
    }

    /// Such a batch is stored as it came, by Kafka as well; reading it then failed, and with it every look-up by time.
    #[test]
    fn a_header_key_that_is_no_text_is_accepted_and_read() {
        let good = batch(Codec::None, 1);
        let key_at = good.iter().rposition(|byte| *byte == b'h').unwrap();
        let odd = lie(good, key_at, &[0xff]);
        assert!(verdict(&odd, &RULES).starts_with("ok"));
        let view = BatchView::parse(&odd).unwrap();
        let records: Vec<_> = RecordStream::new(&view, 1 << 20).unwrap().map(Result::unwrap).collect();
        assert_eq!(records[0].headers[0].key, "\u{fffd}");
    }
}
