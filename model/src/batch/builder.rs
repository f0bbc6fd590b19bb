//! Makes batches: for the broker's own records, for our client, for tests.

use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::compression::{Codec, compress};
use super::header::{Attributes, Header, MAGIC_V2, TimestampType};
use super::records::RecordHeader;
use super::varint::put_varint;

/// A record as an application gives it.
#[derive(Clone, Debug, Default)]
pub struct RecordParts<'a> {
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: &'a [RecordHeader],
}

/// Collects records and seals them into one batch.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    timestamps: TimestampType,
    transactional: bool,
    control: bool,
    producer: (ProducerId, ProducerEpoch, i32),
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    base_timestamp: Option<TimestampMs>,
    max_timestamp: TimestampMs,
    record_count: i32,
    last_offset_delta: i32,
    plain: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder::new(Codec::None)
    }
}

impl BatchBuilder {
    /// An empty batch with base offset 0, as producers send it.
    pub fn new(codec: Codec) -> BatchBuilder {
        BatchBuilder {
            codec,
            timestamps: TimestampType::CreateTime,
            transactional: false,
            control: false,
            producer: (ProducerId::NONE, ProducerEpoch::NONE, -1),
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch::NONE,
            base_timestamp: None,
            max_timestamp: TimestampMs::NONE,
            record_count: 0,
            last_offset_delta: -1,
            plain: Vec::new(),
        }
    }

    /// Makes it an idempotent producer's batch.
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> BatchBuilder {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Gives it its place already, as a batch in a log has.
    pub fn place(mut self, base_offset: Offset, leader_epoch: LeaderEpoch) -> BatchBuilder {
        (self.base_offset, self.leader_epoch) = (base_offset, leader_epoch);
        self
    }

    /// Sets who set the timestamps, and the transaction bits.
    pub fn attributes(
        mut self,
        timestamps: TimestampType,
        transactional: bool,
        control: bool,
    ) -> BatchBuilder {
        (self.timestamps, self.transactional, self.control) = (timestamps, transactional, control);
        self
    }

    /// Adds a record at the next offset.
    pub fn push(&mut self, timestamp: TimestampMs, record: &RecordParts<'_>) {
        let base = self.base_timestamp.get_or_insert(timestamp).value();
        self.last_offset_delta += 1;
        self.record_count += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let mut body = vec![0];
        put_varint(&mut body, timestamp.value().wrapping_sub(base));
        put_varint(&mut body, i64::from(self.last_offset_delta));
        put_field(&mut body, record.key);
        put_field(&mut body, record.value);
        put_varint(&mut body, record.headers.len() as i64);
        for header in record.headers {
            put_field(&mut body, Some(header.key.as_bytes()));
            put_field(&mut body, header.value.as_deref());
        }
        put_varint(&mut self.plain, body.len() as i64);
        self.plain.extend(body);
    }

    /// Records so far.
    pub fn record_count(&self) -> usize {
        self.record_count as usize
    }

    /// Bytes of the records so far, before compression.
    pub fn plain_bytes(&self) -> usize {
        self.plain.len()
    }

    /// Compresses, computes the CRC and gives the batch's bytes.
    ///
    /// # Panics
    /// If a codec's library runs out of memory.
    pub fn build(self) -> Vec<u8> {
        let payload = compress(self.codec, &self.plain).expect("compressing memory into memory");
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        Header {
            base_offset: self.base_offset,
            length: 0,
            partition_leader_epoch: self.leader_epoch,
            magic: MAGIC_V2,
            crc: 0,
            attributes: Attributes::new(self.codec, self.timestamps, self.transactional, self.control),
            last_offset_delta: self.last_offset_delta,
            base_timestamp: self.base_timestamp.unwrap_or(TimestampMs::NONE),
            max_timestamp: self.max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: self.record_count,
        }
        .seal(&payload)
    }
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    put_varint(out, field.map_or(-1, |bytes| bytes.len() as i64));
    out.extend(field.unwrap_or_default());
}
