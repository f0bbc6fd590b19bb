//! Making a batch anew from some of its own records, as compaction does: what stays of a record stays byte for byte.
//!
//! A batch keeps its place, its producer and its sequence numbers whatever goes from it: base offset, last offset delta,
//! leader epoch and base sequence are those of the original, so the last sequence number can still be told when the
//! record that carried it is gone, and even when all are.

use crate::TimestampMs;

use super::compression::{Codec, compress, decompress_bounded};
use super::header::{Attributes, BatchView, Header, TimestampType};
use super::records::RecordsError;
use super::varint::{put_varint, read_varint, read_varlong};

/// The records of a batch, unfolded, so that they can be looked at without being copied.
pub struct PlainRecords {
    header: Header,
    plain: Vec<u8>,
}

/// One record, borrowed. Its contents from the key on can be passed on verbatim.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    /// Offset relative to the batch's base.
    pub offset_delta: i32,
    /// Its time as a reader sees it: the producer's, or the batch's append time.
    pub timestamp: TimestampMs,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// Whether it has a value; none is a tombstone.
    pub has_value: bool,
    attributes: u8,
    /// Key, value and headers with their lengths.
    contents: &'a [u8],
}

impl PlainRecords {
    /// Unfolds a batch's payload, into `plain_bytes_max` bytes at most.
    ///
    /// # Errors
    /// An unknown codec, or a payload that does not decompress.
    pub fn unfold(batch: &BatchView<'_>, plain_bytes_max: usize) -> Result<PlainRecords, RecordsError> {
        let header = batch.header;
        let id = (header.attributes.0 & 7) as u8;
        let codec = header.attributes.codec().ok_or(RecordsError::UnknownCodec { id })?;
        // An emptied batch has no payload, whatever codec it had.
        let plain = if header.record_count == 0 {
            Vec::new()
        } else {
            decompress_bounded(codec, batch.payload(), plain_bytes_max)?
        };
        Ok(PlainRecords { header, plain })
    }

    /// The records, in order.
    ///
    /// # Errors
    /// The first record whose lengths do not agree with the bytes, or bytes behind the last one.
    pub fn records(&self) -> Result<Vec<RawRecord<'_>>, RecordsError> {
        let mut rest = &self.plain[..];
        // Not with_capacity: the count is the header's word.
        let mut records = Vec::new();
        for index in 0..self.header.record_count.max(0) {
            let record = self.take_record(&mut rest);
            records.push(record.map_err(|reason| RecordsError::Malformed { index, reason })?);
        }
        if rest.is_empty() {
            Ok(records)
        } else {
            Err(RecordsError::Trailing { claimed: self.header.record_count })
        }
    }

    fn take_record<'a>(&'a self, rest: &mut &'a [u8]) -> Result<RawRecord<'a>, &'static str> {
        let cut_short = |_| "a length in it is out of range, or the bytes end within it";
        let length = read_varint(rest).map_err(cut_short)?;
        let length = usize::try_from(length).map_err(|_| "its length is negative")?;
        let (mut body, behind) = rest.split_at_checked(length).ok_or("the bytes end within it")?;
        *rest = behind;
        let (attributes, after) = body.split_first().ok_or("it is empty")?;
        body = after;
        let timestamp_delta = read_varlong(&mut body).map_err(cut_short)?;
        let offset_delta = read_varint(&mut body).map_err(cut_short)?;
        let contents = body;
        let key = take_field(&mut body)?;
        let has_value = take_field(&mut body)?.is_some();
        let timestamp = match self.header.attributes.timestamp_type() {
            TimestampType::CreateTime => {
                TimestampMs(self.header.base_timestamp.value().wrapping_add(timestamp_delta))
            }
            TimestampType::LogAppendTime => self.header.max_timestamp,
        };
        // The headers pass unread: whatever stands there stood there when the batch came in.
        Ok(RawRecord { offset_delta, timestamp, key, has_value, attributes: *attributes, contents })
    }
}

/// A field of a record: its length, -1 for none, and its bytes.
fn take_field<'a>(body: &mut &'a [u8]) -> Result<Option<&'a [u8]>, &'static str> {
    let length =
        read_varint(body).map_err(|_| "a length in it is out of range, or the bytes end within it")?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| "a field in it has a negative length")?;
    let (field, behind) = body.split_at_checked(length).ok_or("a field in it is longer than the record")?;
    *body = behind;
    Ok(Some(field))
}

/// Makes the batch anew with these of its own records, under its own codec. With a delete horizon that time takes the
/// place of the base timestamp and the attribute bit says so; without, the base is the first record's time.
///
/// # Panics
/// If there are no records (see [`emptied`]), the batch names no codec, or a codec's library runs out of memory.
pub fn rebuild(header: &Header, records: &[RawRecord<'_>], delete_horizon: Option<TimestampMs>) -> Vec<u8> {
    let codec = header.attributes.codec().expect("the records were read under a codec");
    let base_timestamp = delete_horizon.unwrap_or(records[0].timestamp);
    let mut plain = Vec::new();
    let mut body = Vec::new();
    for record in records {
        body.clear();
        body.push(record.attributes);
        put_varint(&mut body, record.timestamp.value().wrapping_sub(base_timestamp.value()));
        put_varint(&mut body, record.offset_delta.into());
        body.extend(record.contents);
        put_varint(&mut plain, body.len() as i64);
        plain.extend(&body);
    }
    let max_timestamp = match header.attributes.timestamp_type() {
        TimestampType::CreateTime => {
            records.iter().map(|record| record.timestamp).fold(TimestampMs::NONE, TimestampMs::max)
        }
        TimestampType::LogAppendTime => header.max_timestamp,
    };
    let payload = compress(codec, &plain).expect("compressing memory into memory");
    Header {
        attributes: of_kind(header, codec).with_delete_horizon(delete_horizon.is_some()),
        base_timestamp,
        max_timestamp,
        record_count: records.len() as i32,
        ..*header
    }
    .seal(&payload)
}

/// The batch without any of its records: 61 bytes that still say whose it was, and up to which offset and sequence number.
pub fn emptied(header: &Header) -> Vec<u8> {
    Header {
        attributes: of_kind(header, Codec::None),
        base_timestamp: TimestampMs::NONE,
        record_count: 0,
        ..*header
    }
    .seal(&[])
}

fn of_kind(header: &Header, codec: Codec) -> Attributes {
    let attributes = header.attributes;
    Attributes::new(
        codec,
        attributes.timestamp_type(),
        attributes.is_transactional(),
        attributes.is_control(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, RecordHeader, RecordParts, RecordStream};
    use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

    const PLAIN_BYTES_MAX: usize = 1 << 20;

    fn batch(codec: Codec, timestamps: TimestampType) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec)
            .producer(ProducerId(9), ProducerEpoch(2), 40)
            .place(Offset(100), LeaderEpoch(6))
            .attributes(timestamps, true, false);
        let headers = [RecordHeader { key: "h".into(), value: Some(b"v".to_vec()) }];
        for (at, value) in [Some(&b"one"[..]), None, Some(b""), Some(b"four")].into_iter().enumerate() {
            let key = format!("k{at}");
            let parts = RecordParts { key: Some(key.as_bytes()), value, headers: &headers };
            builder.push(TimestampMs(5_000 - at as i64), &parts);
        }
        builder.build()
    }

    #[test]
    fn what_is_kept_is_kept_whole_and_in_its_place() {
        for codec in Codec::ALL {
            for timestamps in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
                for horizon in [None, Some(TimestampMs(9_000_000))] {
                    let bytes = batch(codec, timestamps);
                    let view = BatchView::parse(&bytes).unwrap();
                    let plain = PlainRecords::unfold(&view, PLAIN_BYTES_MAX).unwrap();
                    let records = plain.records().unwrap();
                    let kept: Vec<_> = [1, 3].map(|at| records[at]).to_vec();
                    let rebuilt = rebuild(&view.header, &kept, horizon);
                    let again = BatchView::parse(&rebuilt).unwrap();
                    again.verify_crc().unwrap();
                    let all: Vec<_> =
                        RecordStream::new(&view, PLAIN_BYTES_MAX).unwrap().map(Result::unwrap).collect();
                    let left: Vec<_> =
                        RecordStream::new(&again, PLAIN_BYTES_MAX).unwrap().map(Result::unwrap).collect();
                    assert_eq!(left, [all[1].clone(), all[3].clone()], "{codec} {timestamps:?} {horizon:?}");
                    let (was, is) = (view.header, again.header);
                    assert_eq!((is.base_offset, is.last_offset()), (was.base_offset, was.last_offset()));
                    assert_eq!(is.last_sequence(), 43);
                    assert_eq!(is.partition_leader_epoch, LeaderEpoch(6));
                    assert_eq!(is.attributes.codec(), Some(codec));
                    assert_eq!(is.attributes.timestamp_type(), timestamps);
                    assert!(is.attributes.is_transactional());
                    assert_eq!(is.delete_horizon(), horizon);
                    let max = if timestamps == TimestampType::CreateTime { 4_999 } else { 5_000 };
                    assert_eq!(is.max_timestamp, TimestampMs(max));
                }
            }
        }
    }

    #[test]
    fn a_delete_horizon_stays_when_more_records_go() {
        let bytes = batch(Codec::Lz4, TimestampType::CreateTime);
        let view = BatchView::parse(&bytes).unwrap();
        let plain = PlainRecords::unfold(&view, PLAIN_BYTES_MAX).unwrap();
        let once = rebuild(&view.header, &plain.records().unwrap(), Some(TimestampMs(77)));
        let once = BatchView::parse(&once).unwrap();
        let plain = PlainRecords::unfold(&once, PLAIN_BYTES_MAX).unwrap();
        let records = plain.records().unwrap();
        let twice = rebuild(&once.header, &records[1..2], once.header.delete_horizon());
        let twice = BatchView::parse(&twice).unwrap();
        assert_eq!(twice.header.delete_horizon(), Some(TimestampMs(77)));
        assert_eq!(twice.header.max_timestamp, TimestampMs(4_999));
    }

    #[test]
    fn an_emptied_batch_says_who_and_up_to_where() {
        let bytes = batch(Codec::Zstd, TimestampType::CreateTime);
        let view = BatchView::parse(&bytes).unwrap();
        let empty = emptied(&view.header);
        let again = BatchView::parse(&empty).unwrap();
        again.verify_crc().unwrap();
        assert_eq!(empty.len(), crate::batch::HEADER_BYTES);
        let (was, is) = (view.header, again.header);
        assert_eq!((is.base_offset, is.last_offset(), is.last_sequence()), (Offset(100), Offset(103), 43));
        assert_eq!((is.record_count, is.base_timestamp), (0, TimestampMs::NONE));
        assert_eq!((is.producer_id, is.max_timestamp), (was.producer_id, was.max_timestamp));
        assert_eq!(is.attributes.codec(), Some(Codec::None));
        assert!(PlainRecords::unfold(&again, 0).unwrap().records().unwrap().is_empty());
        assert_eq!(RecordStream::new(&again, 0).unwrap().count(), 0);
    }

    #[test]
    fn bytes_that_are_no_records_are_refused() {
        let bytes = batch(Codec::None, TimestampType::CreateTime);
        for (at, value, reason) in [(57, [0, 0, 0, 5], "record 4"), (57, [0, 0, 0, 3], "more bytes follow")] {
            let mut bytes = bytes.clone();
            bytes[at..at + 4].copy_from_slice(&value);
            let view = BatchView::parse(&bytes).unwrap();
            let plain = PlainRecords::unfold(&view, PLAIN_BYTES_MAX).unwrap();
            let error = plain.records().map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
