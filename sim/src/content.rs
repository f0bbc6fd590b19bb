//! What the runs write: records that say which value they are, in batches.

use bytes::Bytes;
use ouzel_model::batch::{self, BatchBuilder, Codec, RecordParts, RecordStream};
use ouzel_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

use crate::check::history::Value;
use crate::check::newest::KEYS;

/// Larger batches than a run writes are refused by its readers.
const PLAIN_BYTES_MAX: usize = 1 << 20;

/// An idempotent producer's mark on a batch.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Who.
    pub id: ProducerId,
    /// In which life.
    pub epoch: ProducerEpoch,
    /// Its sequence for the first record.
    pub sequence: i32,
}

/// Makes a batch of values, each record padded to about `record_bytes`.
pub fn batch(values: &[Value], mark: Option<Mark>, record_bytes: usize, now: TimestampMs) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    if let Some(mark) = mark {
        builder = builder.producer(mark.id, mark.epoch, mark.sequence);
    }
    for value in values {
        let content = padded(*value, record_bytes);
        builder.push(now, &RecordParts { value: Some(&content), ..RecordParts::default() });
    }
    builder.build().into()
}

/// Makes a batch of one value with its key, padded as those of [`batch()`].
pub fn keyed(value: Value, record_bytes: usize, now: TimestampMs) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    let content = padded(value, record_bytes);
    let key = (value.0 % KEYS).to_be_bytes();
    builder.push(now, &RecordParts { key: Some(&key), value: Some(&content), ..RecordParts::default() });
    builder.build().into()
}

fn padded(value: Value, record_bytes: usize) -> Vec<u8> {
    let mut content = value.0.to_be_bytes().to_vec();
    content.resize(record_bytes.max(8), b'.');
    content
}

/// The offset after whole batches; none if there are none.
pub fn next_offset(pieces: &[Bytes]) -> Option<Offset> {
    let batches = pieces.iter().flat_map(|piece| batch::batches(piece));
    batches.filter_map(Result::ok).map(|batch| batch.header.next_offset()).last()
}

/// Reads the records at and after `from` out of whole batches.
///
/// # Errors
/// In words, when they are damaged or nothing that a run has written.
pub fn records(pieces: &[Bytes], from: Offset) -> Result<Vec<(Offset, Value, LeaderEpoch)>, String> {
    let mut found = Vec::new();
    for piece in pieces {
        for one in batch::batches(piece) {
            let one = one.map_err(|error| error.to_string())?;
            one.verify_crc().map_err(|error| format!("batch at {}: {error}", one.header.base_offset))?;
            let mut stream = RecordStream::new(&one, PLAIN_BYTES_MAX).map_err(|error| error.to_string())?;
            while let Some(record) = stream.next_record() {
                let record = record.map_err(|error| error.to_string())?;
                if record.offset < from {
                    continue;
                }
                let content = record.value.unwrap_or_default();
                let head = content.first_chunk::<8>();
                let head = head.ok_or_else(|| format!("the record at {} has no value", record.offset))?;
                let value = Value(u64::from_be_bytes(*head));
                found.push((record.offset, value, one.header.partition_leader_epoch));
            }
        }
    }
    Ok(found)
}

/// A sum that depends on every byte and its place (FNV-1a).
pub fn sum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_their_batch() {
        let values = [Value(7), Value(u64::MAX)];
        let bytes = batch(&values, None, 20, TimestampMs(1));
        let found = records(&[bytes], Offset(1)).unwrap();
        assert_eq!(
            found.iter().map(|(offset, value, _)| (*offset, *value)).collect::<Vec<_>>(),
            [(Offset(1), Value(u64::MAX))]
        );
    }
}
