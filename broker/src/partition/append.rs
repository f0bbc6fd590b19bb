//! What enters a partition: the judgement of a produced record set, and the append itself.
//!
//! [`admit`] is pure and needs only the topic's settings, so it runs where the request was accepted; the owner core gets
//! batches that are right in themselves and judges only what it alone knows: leadership, sequence, room on the disk.

use bytes::BytesMut;
use ouzel_metadata::TopicConfig;
use ouzel_metadata::configs::{CompressionType, TimestampType as TopicTimestampType};
use ouzel_model::batch::validate::{ProduceRules, RecordFault, Rejection, validate_produced};
use ouzel_model::batch::{
    BatchBuilder, BatchError, BatchView, Codec, RecordParts, RecordStream, TimestampType, batches,
    stamp_create_time,
};
use ouzel_model::{ProducerEpoch, ProducerId, TimestampMs};

/// Plain bytes that one batch may unfold into: ten times the largest batch Kafka's defaults allow a producer to build,
/// and more if the topic allows larger ones.
const PLAIN_BYTES_MAX: usize = 100 << 20;

/// Why a record set does not get in.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The batch's bytes or their rules.
    #[error(transparent)]
    Batch(#[from] Rejection),
    /// Not exactly one batch.
    #[error("a produce request must hold exactly one record batch per partition, this one holds {0}")]
    NotOneBatch(usize),
    /// A codec the request's version does not know.
    #[error("zstd needs produce version 7 or higher, the request has version {0}")]
    ZstdTooEarly(i16),
    /// Larger than the topic takes.
    #[error("the record batch has {bytes} bytes, more than the {bytes_max} that max.message.bytes allows")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// Larger than a whole segment.
    #[error("the record batch has {bytes} bytes, more than a segment of {bytes_max} holds")]
    LargerThanSegment {
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// An idempotent producer's batch without an epoch.
    #[error("producer {0} sent the epoch {1}; epochs begin at 0")]
    ProducerEpoch(ProducerId, ProducerEpoch),
    /// A batch of a transaction, which this broker does not have.
    #[error("the batch belongs to a transaction; transactions are not supported")]
    Transactional,
}

impl Refused {
    /// The records at fault, if single records are.
    pub fn record_faults(&self) -> &[RecordFault] {
        match self {
            Refused::Batch(Rejection::InvalidTimestamp(faults) | Rejection::MissingKey(faults)) => faults,
            _ => &[],
        }
    }
}

/// Judges one partition's record set and gives the batch to append, in a buffer of its own.
///
/// The copy is deliberate: it ends the batch's tie to the frame it came in, which the tail cache would otherwise keep
/// whole for the sake of its smallest batch.
///
/// # Errors
/// See [`Refused`].
pub fn admit(
    records: &[u8],
    topic: &TopicConfig,
    version: i16,
    now: TimestampMs,
) -> Result<BytesMut, Refused> {
    let batch = only_batch(records)?;
    let bytes_max = topic.max_message_bytes as usize;
    check_size(batch.bytes.len(), bytes_max)?;
    if batch.bytes.len() > topic.segment_bytes as usize {
        return Err(Refused::LargerThanSegment {
            bytes: batch.bytes.len(),
            bytes_max: topic.segment_bytes as usize,
        });
    }
    let codec = batch.header.attributes.codec();
    if codec == Some(Codec::Zstd) && version < 7 {
        return Err(Refused::ZstdTooEarly(version));
    }
    let timestamp_type = match topic.message_timestamp_type {
        TopicTimestampType::CreateTime => TimestampType::CreateTime,
        TopicTimestampType::LogAppendTime => TimestampType::LogAppendTime,
    };
    let rules = ProduceRules {
        now,
        timestamp_type,
        timestamp_before_max_ms: topic.message_timestamp_before_max_ms,
        timestamp_after_max_ms: topic.message_timestamp_after_max_ms,
        keys_required: topic.cleanup_policy.compact,
        plain_bytes_max: PLAIN_BYTES_MAX.max(bytes_max),
    };
    let validated = validate_produced(&batch, &rules)?;
    if batch.header.has_producer() && batch.header.producer_epoch < ProducerEpoch(0) {
        return Err(Refused::ProducerEpoch(batch.header.producer_id, batch.header.producer_epoch));
    }
    if batch.header.attributes.is_transactional() {
        return Err(Refused::Transactional);
    }
    let mut bytes = match target_codec(topic.compression_type) {
        Some(target) if codec != Some(target) => {
            let bytes = recompress(&batch, target, rules.plain_bytes_max)?;
            check_size(bytes.len(), bytes_max)?;
            bytes
        }
        _ => BytesMut::from(batch.bytes),
    };
    let claims = (batch.header.attributes.timestamp_type(), batch.header.max_timestamp);
    if timestamp_type == TimestampType::CreateTime
        && claims != (TimestampType::CreateTime, validated.max_timestamp)
    {
        stamp_create_time(&mut bytes, validated.max_timestamp);
    }
    Ok(bytes)
}

fn check_size(bytes: usize, bytes_max: usize) -> Result<(), Refused> {
    if bytes > bytes_max { Err(Refused::TooLarge { bytes, bytes_max }) } else { Ok(()) }
}

fn only_batch(records: &[u8]) -> Result<BatchView<'_>, Refused> {
    let mut walk = batches(records);
    let first = match walk.next() {
        None => return Err(Refused::NotOneBatch(0)),
        // An old message set has its magic where ours has it, but is not damaged: it is another format.
        Some(Err(BatchError::Magic { magic: magic @ 0..=1 })) => {
            return Err(Rejection::InvalidBatch(format!(
                "the record set has magic {magic}; since produce version 3 only magic 2 is allowed"
            ))
            .into());
        }
        // Kafka sees no batch at all where the last one is cut short.
        Some(Err(cut @ BatchError::Truncated { .. })) => {
            return Err(Rejection::InvalidBatch(cut.to_string()).into());
        }
        Some(first) => first.map_err(Rejection::from)?,
    };
    if walk.rest().is_empty() { Ok(first) } else { Err(Refused::NotOneBatch(1 + walk.count())) }
}

/// The codec a topic wants its batches in; `None` leaves the producer's.
fn target_codec(wanted: CompressionType) -> Option<Codec> {
    match wanted {
        CompressionType::Producer => None,
        CompressionType::Uncompressed => Some(Codec::None),
        CompressionType::Gzip => Some(Codec::Gzip),
        CompressionType::Snappy => Some(Codec::Snappy),
        CompressionType::Lz4 => Some(Codec::Lz4),
        CompressionType::Zstd => Some(Codec::Zstd),
    }
}

/// Builds a validated batch anew under another codec.
fn recompress(batch: &BatchView<'_>, codec: Codec, plain_bytes_max: usize) -> Result<BytesMut, Refused> {
    let header = &batch.header;
    let mut builder =
        BatchBuilder::new(codec).producer(header.producer_id, header.producer_epoch, header.base_sequence);
    for record in RecordStream::new(batch, plain_bytes_max).map_err(Rejection::from)? {
        let record = record.map_err(Rejection::from)?;
        let parts = RecordParts {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
        };
        builder.push(record.timestamp, &parts);
    }
    Ok(BytesMut::from(&builder.build()[..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ouzel_metadata::{Layers, Overrides, StaticConfig};
    use ouzel_model::batch::RecordHeader;

    const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

    fn topic(settings: &[(&str, &str)]) -> TopicConfig {
        let overrides: Overrides = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        TopicConfig::resolve(&overrides, &Layers::of_static(&StaticConfig::default()))
    }

    fn batch(codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec);
        let headers = [RecordHeader { key: "h".into(), value: Some(vec![1]) }];
        for i in 0..100 {
            let parts = RecordParts { key: Some(b"k"), value: Some(&[7; 50]), headers: &headers };
            builder.push(TimestampMs(NOW.value() + i), &parts);
        }
        builder.build()
    }

    #[test]
    fn record_sets_are_judged_by_the_topics_settings() {
        let plain = batch(Codec::None);
        let zstd = batch(Codec::Zstd);
        let two = [&plain[..], &plain[..]].concat();
        for (records, settings, version, words) in [
            (&plain[..], &[][..], 9, "ok"),
            (&zstd, &[], 7, "ok"),
            (&zstd, &[], 6, "zstd needs produce version 7"),
            (&two, &[], 9, "this one holds 2"),
            (&plain[..0], &[], 9, "this one holds 0"),
            (&plain[..90], &[], 9, "cut short"),
            (&plain, &[("max.message.bytes", "100")], 9, "max.message.bytes"),
        ] {
            let verdict = admit(records, &topic(settings), version, NOW);
            let words_got = verdict.as_ref().map_or_else(|e| e.to_string(), |_| "ok".to_owned());
            assert!(words_got.contains(words), "expected '{words}', got '{words_got}'");
        }
    }

    #[test]
    fn a_topics_codec_replaces_the_producers_and_keeps_every_record() {
        let original = batch(Codec::Gzip);
        let bytes = admit(&original, &topic(&[("compression.type", "lz4")]), 9, NOW).unwrap();
        let read = |bytes: &[u8]| -> Vec<_> {
            let view = BatchView::parse(bytes).unwrap();
            view.verify_crc().unwrap();
            RecordStream::new(&view, 1 << 20).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(BatchView::parse(&bytes).unwrap().header.attributes.codec(), Some(Codec::Lz4));
        assert_eq!(read(&bytes), read(&original));
    }

    #[test]
    fn a_max_timestamp_that_lies_is_corrected() {
        let mut lying = batch(Codec::None);
        ouzel_model::batch::stamp_max_timestamp(&mut lying, TimestampMs(5));
        let bytes = admit(&lying, &topic(&[]), 9, NOW).unwrap();
        let view = BatchView::parse(&bytes).unwrap();
        assert_eq!(view.header.max_timestamp, TimestampMs(NOW.value() + 99));
        view.verify_crc().unwrap();
    }
}
