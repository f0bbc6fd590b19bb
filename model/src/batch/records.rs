//! The records inside a batch, read one by one from plain or compressed bytes.

use std::io::{self, BufRead, Read};

use crate::{Offset, TimestampMs};

use super::compression::{self, CompressionError};
use super::header::{BatchView, Header, TimestampType};
use super::varint::{read_byte, read_varint, read_varlong};

/// Why a batch's records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The attribute bits name no codec.
    #[error("the batch names codec {id}, which does not exist")]
    UnknownCodec {
        /// The three bits.
        id: u8,
    },
    /// The payload does not decompress.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// A record's own lengths disagree with each other or with the bytes that are there.
    #[error("record {index} of the batch is malformed: {reason}")]
    Malformed {
        /// Which record, from 0.
        index: i32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The header counts fewer records than the payload holds.
    #[error("the batch claims {claimed} records but more bytes follow them")]
    Trailing {
        /// The header's count.
        claimed: i32,
    },
}

/// One record with its own copies of key, value and headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: Offset,
    /// Its time: the producer's, or the batch's append time.
    pub timestamp: TimestampMs,
    /// The key, if any.
    pub key: Option<Vec<u8>>,
    /// The value; none is a tombstone on a compacted topic.
    pub value: Option<Vec<u8>>,
    /// Headers in the producer's order; keys may repeat.
    pub headers: Vec<RecordHeader>,
}

/// One header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The name.
    pub key: String,
    /// The value, if any.
    pub value: Option<Vec<u8>>,
}

/// What a walk needs of a record without copying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFacts {
    /// Offset relative to the batch's base.
    pub offset_delta: i32,
    /// Its own time, whatever the batch's timestamp type.
    pub create_time: TimestampMs,
    /// Whether it has a key.
    pub has_key: bool,
}

/// Reads a batch's records in order; ends after the header's count or at the first error.
pub struct RecordStream<'a> {
    header: Header,
    body: Box<dyn BufRead + 'a>,
    next_index: i32,
}

impl<'a> RecordStream<'a> {
    /// Starts at the first record; decompression goes on as records are taken, never beyond `bytes_max` in all.
    ///
    /// # Errors
    /// An unknown codec or a payload whose start is not the codec's.
    pub fn new(batch: &BatchView<'a>, bytes_max: usize) -> Result<RecordStream<'a>, RecordsError> {
        let header = batch.header;
        let codec = header
            .attributes
            .codec()
            .ok_or(RecordsError::UnknownCodec { id: (header.attributes.0 & 7) as u8 })?;
        let body = compression::plain_reader(codec, batch.payload(), bytes_max)
            .map_err(|source| compression::classify(codec, source))?;
        Ok(RecordStream { header, body, next_index: 0 })
    }

    /// Takes the next record, skipping over its bytes.
    pub fn next_facts(&mut self) -> Option<Result<RecordFacts, RecordsError>> {
        self.next_with(|stream, length| {
            let mut body = (&mut stream.body).take(length);
            let mut parts = Parts { body: &mut body };
            let (timestamp_delta, offset_delta) = parts.start()?;
            let key_bytes = parts.skip_field()?;
            parts.skip_field()?;
            for _ in 0..parts.header_count()? {
                if parts.skip_field()? < 0 {
                    return Err(malformed("a header has no key"));
                }
                parts.skip_field()?;
            }
            parts.end()?;
            Ok(RecordFacts {
                offset_delta,
                create_time: stream.create_time(timestamp_delta),
                has_key: key_bytes >= 0,
            })
        })
    }

    /// Takes the next record with its contents.
    pub fn next_record(&mut self) -> Option<Result<Record, RecordsError>> {
        self.next_with(|stream, length| {
            let mut body = (&mut stream.body).take(length);
            let mut parts = Parts { body: &mut body };
            let (timestamp_delta, offset_delta) = parts.start()?;
            let key = parts.field()?;
            let value = parts.field()?;
            // Not with_capacity: the count is the producer's word.
            let mut headers = Vec::new();
            for _ in 0..parts.header_count()? {
                let key = parts.field()?.ok_or_else(|| malformed("a header has no key"))?;
                // Kafka stores any bytes and reads them so: one odd key must not make its batch unreadable.
                let key = String::from_utf8_lossy(&key).into_owned();
                headers.push(RecordHeader { key, value: parts.field()? });
            }
            parts.end()?;
            let timestamp = match stream.header.attributes.timestamp_type() {
                TimestampType::CreateTime => stream.create_time(timestamp_delta),
                TimestampType::LogAppendTime => stream.header.max_timestamp,
            };
            Ok(Record {
                offset: stream.header.base_offset + i64::from(offset_delta),
                timestamp,
                key,
                value,
                headers,
            })
        })
    }

    /// Confirms that nothing follows the last record; call it after the stream has ended.
    ///
    /// # Errors
    /// [`RecordsError::Trailing`], or damage met while looking.
    pub fn expect_end(&mut self) -> Result<(), RecordsError> {
        match self.body.fill_buf() {
            Ok([]) => Ok(()),
            Ok(_) => Err(RecordsError::Trailing { claimed: self.header.record_count }),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn create_time(&self, delta: i64) -> TimestampMs {
        TimestampMs(self.header.base_timestamp.value().wrapping_add(delta))
    }

    fn next_with<T>(
        &mut self,
        read: impl FnOnce(&mut Self, u64) -> io::Result<T>,
    ) -> Option<Result<T, RecordsError>> {
        if self.next_index >= self.header.record_count {
            return None;
        }
        let record = read_varint(&mut self.body)
            .and_then(|length| u64::try_from(length).map_err(|_| malformed("its length is negative")))
            .and_then(|length| read(self, length));
        match record {
            Ok(record) => {
                self.next_index += 1;
                Some(Ok(record))
            }
            Err(source) => {
                let error = self.failed(source);
                self.next_index = i32::MAX;
                Some(Err(error))
            }
        }
    }

    fn failed(&self, source: io::Error) -> RecordsError {
        let index = self.next_index;
        if let Some(Malformed(reason)) = source.get_ref().and_then(|inner| inner.downcast_ref()) {
            return RecordsError::Malformed { index, reason };
        }
        match self.header.attributes.codec() {
            Some(codec) if codec != super::Codec::None => compression::classify(codec, source).into(),
            _ if source.kind() == io::ErrorKind::UnexpectedEof => {
                RecordsError::Malformed { index, reason: "the bytes end within it" }
            }
            _ => RecordsError::Malformed { index, reason: "a length in it is out of range" },
        }
    }
}

impl Iterator for RecordStream<'_> {
    type Item = Result<Record, RecordsError>;
    fn next(&mut self) -> Option<Self::Item> {
        self.next_record()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Malformed(&'static str);

fn malformed(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Malformed(reason))
}

/// The pieces of one record, within the record's own length.
struct Parts<'b, R> {
    body: &'b mut io::Take<R>,
}

impl<R: BufRead> Parts<'_, R> {
    /// Attributes (unused), timestamp delta, offset delta.
    fn start(&mut self) -> io::Result<(i64, i32)> {
        read_byte(self.body)?;
        Ok((read_varlong(self.body)?, read_varint(self.body)?))
    }

    fn header_count(&mut self) -> io::Result<i32> {
        let count = read_varint(self.body)?;
        // Each header takes at least two bytes: a count beyond that is a lie, told before anything is looped over.
        if count < 0 || count as u64 > self.body.limit() / 2 {
            return Err(malformed("it counts more headers than it has bytes for"));
        }
        Ok(count)
    }

    /// Length of the next field, -1 for none, bounded by the bytes left in the record.
    fn field_length(&mut self) -> io::Result<i32> {
        let length = read_varint(self.body)?;
        if length < -1 || (length > 0 && length as u64 > self.body.limit()) {
            return Err(malformed("a field in it is longer than the record"));
        }
        Ok(length)
    }

    fn field(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Ok(length) = u64::try_from(self.field_length()?) else { return Ok(None) };
        let mut bytes = Vec::new();
        self.body.by_ref().take(length).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Some(bytes)) }
    }

    fn skip_field(&mut self) -> io::Result<i32> {
        let length = self.field_length()?;
        let mut left = usize::try_from(length).unwrap_or(0);
        while left > 0 {
            let there = self.body.fill_buf()?.len().min(left);
            if there == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.body.consume(there);
            left -= there;
        }
        Ok(length)
    }

    /// The record's length must be used up.
    fn end(&mut self) -> io::Result<()> {
        if self.body.limit() == 0 { Ok(()) } else { Err(malformed("it is shorter than its length says")) }
    }
}
