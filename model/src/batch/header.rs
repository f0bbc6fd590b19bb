//! The fixed 61 bytes in front of every batch, and views over whole batches.

use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::compression::Codec;

/// Bytes before the records: everything but the payload.
pub const HEADER_BYTES: usize = 61;
/// The leading base offset and length, which the length field does not count.
pub const LOG_OVERHEAD_BYTES: usize = 12;
/// The only format written since Kafka 0.11.
pub const MAGIC_V2: i8 = 2;

const LENGTH_AT: usize = 8;
const LEADER_EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
/// The CRC covers everything from here to the end of the batch.
pub(super) const CRC_START_AT: usize = 21;
const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const BASE_SEQUENCE_AT: usize = 53;
const RECORD_COUNT_AT: usize = 57;

/// Why bytes are not a batch, with the numbers that show it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The buffer ends inside the batch.
    #[error("the batch is cut short: it needs {needed} bytes and {available} are there")]
    Truncated {
        /// Bytes the header claims, or the header itself needs.
        needed: usize,
        /// Bytes that are there.
        available: usize,
    },
    /// The length field is smaller than a header or negative.
    #[error("the batch claims a length of {length} bytes, less than its own header")]
    Length {
        /// The field's value.
        length: i32,
    },
    /// Another format version.
    #[error("the batch has magic {magic}; only 2 is known")]
    Magic {
        /// The field's value.
        magic: i8,
    },
    /// The checksum does not match the bytes.
    #[error("the batch's CRC-32C is {found:08x} but its bytes give {computed:08x}")]
    Crc {
        /// What the header says.
        found: u32,
        /// What the bytes give.
        computed: u32,
    },
}

/// Who set a batch's timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer, per record.
    CreateTime,
    /// The broker, one for the whole batch: its `max_timestamp`.
    LogAppendTime,
}

/// The batch's attribute bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    const CODEC_MASK: i16 = 0x07;
    const LOG_APPEND_TIME: i16 = 0x08;
    const TRANSACTIONAL: i16 = 0x10;
    const CONTROL: i16 = 0x20;
    const DELETE_HORIZON: i16 = 0x40;

    /// The codec of the records; `None` if the three bits name no codec.
    pub fn codec(self) -> Option<Codec> {
        Codec::from_id((self.0 & Self::CODEC_MASK) as u8)
    }

    /// Who set the timestamps.
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch is the log's own (a transaction marker), never shown to applications.
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether `base_timestamp` holds the time from which compaction may drop the batch's tombstones.
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    /// The same with, or without, the bit that makes the base timestamp a delete horizon.
    #[must_use]
    pub fn with_delete_horizon(self, set: bool) -> Attributes {
        Attributes(if set { self.0 | Self::DELETE_HORIZON } else { self.0 & !Self::DELETE_HORIZON })
    }

    /// Builds the bits.
    pub fn new(codec: Codec, timestamps: TimestampType, transactional: bool, control: bool) -> Attributes {
        let bit = |set: bool, bit: i16| if set { bit } else { 0 };
        Attributes(
            i16::from(codec.id())
                | bit(timestamps == TimestampType::LogAppendTime, Self::LOG_APPEND_TIME)
                | bit(transactional, Self::TRANSACTIONAL)
                | bit(control, Self::CONTROL),
        )
    }
}

/// The header's fields, copied out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Offset of the first record; stamped by the leader.
    pub base_offset: Offset,
    /// The length field: bytes after it, so the batch has [`Header::size_bytes`] in all.
    pub length: i32,
    /// The leader's epoch when it fixed the batch's place.
    pub partition_leader_epoch: LeaderEpoch,
    /// Format version.
    pub magic: i8,
    /// CRC-32C over everything from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type, transaction bits.
    pub attributes: Attributes,
    /// Last offset minus base offset; survives compaction, unlike the count.
    pub last_offset_delta: i32,
    /// What record timestamps are relative to.
    pub base_timestamp: TimestampMs,
    /// The largest record timestamp, or the append time.
    pub max_timestamp: TimestampMs,
    /// The idempotent producer, or none.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// Records in the batch.
    pub record_count: i32,
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    i64::from_be_bytes(field)
}

impl Header {
    /// Reads a header from the front of `bytes`, which may go on behind the batch or end within its records.
    ///
    /// # Errors
    /// Too few bytes for a header, a length field below a header's, another magic. The CRC is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Header, BatchError> {
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Truncated { needed: HEADER_BYTES, available: bytes.len() });
        }
        let length = i32_at(bytes, LENGTH_AT);
        if length < (HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32 {
            return Err(BatchError::Length { length });
        }
        let magic = bytes[MAGIC_AT] as i8;
        if magic != MAGIC_V2 {
            return Err(BatchError::Magic { magic });
        }
        Ok(Header {
            base_offset: Offset(i64_at(bytes, 0)),
            length,
            partition_leader_epoch: LeaderEpoch(i32_at(bytes, LEADER_EPOCH_AT)),
            magic,
            crc: i32_at(bytes, CRC_AT) as u32,
            attributes: Attributes(i16_at(bytes, ATTRIBUTES_AT)),
            last_offset_delta: i32_at(bytes, LAST_OFFSET_DELTA_AT),
            base_timestamp: TimestampMs(i64_at(bytes, BASE_TIMESTAMP_AT)),
            max_timestamp: TimestampMs(i64_at(bytes, MAX_TIMESTAMP_AT)),
            producer_id: ProducerId(i64_at(bytes, PRODUCER_ID_AT)),
            producer_epoch: ProducerEpoch(i16_at(bytes, PRODUCER_EPOCH_AT)),
            base_sequence: i32_at(bytes, BASE_SEQUENCE_AT),
            record_count: i32_at(bytes, RECORD_COUNT_AT),
        })
    }

    /// Bytes of the whole batch, the leading offset and length included.
    pub fn size_bytes(&self) -> usize {
        LOG_OVERHEAD_BYTES + self.length as usize
    }

    /// Offset of the last record (inclusive).
    pub fn last_offset(&self) -> Offset {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Offset right behind the batch.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    /// From when on compaction may drop the batch's tombstones, or the batch if it is a marker; none before the first
    /// compaction has met them (KIP-534).
    pub fn delete_horizon(&self) -> Option<TimestampMs> {
        self.attributes.has_delete_horizon().then_some(self.base_timestamp)
    }

    /// Whether an idempotent producer wrote it.
    pub fn has_producer(&self) -> bool {
        self.producer_id != ProducerId::NONE
    }

    /// Sequence number of the last record; sequences wrap from `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 { -1 } else { sequence_after(self.base_sequence, self.last_offset_delta) }
    }
}

/// The sequence number `delta` behind `sequence`, in the ring `0..=i32::MAX`.
pub fn sequence_after(sequence: i32, delta: i32) -> i32 {
    sequence.wrapping_add(delta) & i32::MAX
}

/// A whole batch, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    /// The parsed header.
    pub header: Header,
    /// All bytes of the batch, and none behind it.
    pub bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// The batch at the front of `bytes`.
    ///
    /// # Errors
    /// As [`Header::parse`], and [`BatchError::Truncated`] when the records are not all there.
    pub fn parse(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        let header = Header::parse(bytes)?;
        let needed = header.size_bytes();
        match bytes.get(..needed) {
            Some(bytes) => Ok(BatchView { header, bytes }),
            None => Err(BatchError::Truncated { needed, available: bytes.len() }),
        }
    }

    /// The records' bytes, still compressed.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Compares the checksum with the bytes.
    ///
    /// # Errors
    /// [`BatchError::Crc`] with both values.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(&self.bytes[CRC_START_AT..]);
        if computed == self.header.crc {
            Ok(())
        } else {
            Err(BatchError::Crc { found: self.header.crc, computed })
        }
    }
}

/// Walks the batches that stand one behind another in `bytes`.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes }
}

/// Iterator of [`batches`]: yields whole batches, then at most one error (cut short or damaged), then nothing.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// The bytes not yet yielded; after an error, those from the damaged batch on.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = BatchView::parse(self.rest);
        self.rest = match &batch {
            Ok(view) => &self.rest[view.bytes.len()..],
            Err(_) => &[],
        };
        Some(batch)
    }
}

/// Fixes a batch's place: base offset and leader epoch, both outside the CRC, so nothing is computed anew.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn stamp(batch: &mut [u8], base_offset: Offset, epoch: LeaderEpoch) {
    batch[..LENGTH_AT].copy_from_slice(&base_offset.value().to_be_bytes());
    batch[LEADER_EPOCH_AT..MAGIC_AT].copy_from_slice(&epoch.value().to_be_bytes());
}

/// Takes back a producer's claim that its timestamps are the broker's; Kafka does so silently. Corrects the CRC.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn stamp_create_time(batch: &mut [u8], max_timestamp: TimestampMs) {
    let attributes = i16_at(batch, ATTRIBUTES_AT) & !Attributes::LOG_APPEND_TIME;
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    stamp_max_timestamp(batch, max_timestamp);
}

/// Makes a batch carry the broker's time (`message.timestamp.type=LogAppendTime`): attribute bit, max timestamp and,
/// because both are under it, the CRC.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn stamp_log_append_time(batch: &mut [u8], now: TimestampMs) {
    let attributes = i16_at(batch, ATTRIBUTES_AT) | Attributes::LOG_APPEND_TIME;
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    stamp_max_timestamp(batch, now);
}

/// Corrects the header's max timestamp, and with it the CRC: what a producer wrote there is only its word, and time
/// lookups trust it.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn stamp_max_timestamp(batch: &mut [u8], max_timestamp: TimestampMs) {
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&max_timestamp.value().to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_START_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

impl Header {
    /// Writes the header in front of `payload`, computing length and CRC; the header's own are ignored.
    pub(super) fn seal(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend(self.base_offset.value().to_be_bytes());
        bytes.extend(((HEADER_BYTES - LOG_OVERHEAD_BYTES + payload.len()) as i32).to_be_bytes());
        bytes.extend(self.partition_leader_epoch.value().to_be_bytes());
        bytes.push(self.magic as u8);
        bytes.extend([0; 4]);
        bytes.extend(self.attributes.0.to_be_bytes());
        bytes.extend(self.last_offset_delta.to_be_bytes());
        bytes.extend(self.base_timestamp.value().to_be_bytes());
        bytes.extend(self.max_timestamp.value().to_be_bytes());
        bytes.extend(self.producer_id.0.to_be_bytes());
        bytes.extend(self.producer_epoch.value().to_be_bytes());
        bytes.extend(self.base_sequence.to_be_bytes());
        bytes.extend(self.record_count.to_be_bytes());
        bytes.extend(payload);
        let crc = crc32c::crc32c(&bytes[CRC_START_AT..]);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
        bytes
    }
}
