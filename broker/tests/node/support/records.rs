//! Record batches to produce, and the records of what was fetched.

use ouzel_model::batch::{BatchBuilder, Codec, RecordParts, RecordStream, batches};
use ouzel_model::{ProducerEpoch, ProducerId, TimestampMs};
use ouzel_protocol::messages::fetch::FetchPartitionResponse;

/// A batch of records with these values, all of one time.
pub(crate) fn batch(values: &[&str]) -> Vec<u8> {
    batch_at(Codec::None, &values.iter().map(|value| (1_700_000_000_000, *value)).collect::<Vec<_>>())
}

/// A batch of records with these times and values.
pub(crate) fn batch_at(codec: Codec, records: &[(i64, &str)]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    for (time, value) in records {
        builder.push(
            TimestampMs(*time),
            &RecordParts { key: None, value: Some(value.as_bytes()), headers: &[] },
        );
    }
    builder.build()
}

/// A batch of one record with a value of so many bytes.
pub(crate) fn batch_of_bytes(bytes: usize) -> Vec<u8> {
    batch(&[&"x".repeat(bytes)])
}

/// An idempotent producer's batch.
pub(crate) fn sequenced(id: i64, epoch: i16, base_sequence: i32, values: &[&str]) -> Vec<u8> {
    let mut builder =
        BatchBuilder::new(Codec::None).producer(ProducerId(id), ProducerEpoch(epoch), base_sequence);
    for value in values {
        let parts = RecordParts { key: None, value: Some(value.as_bytes()), headers: &[] };
        builder.push(TimestampMs(1_700_000_000_000), &parts);
    }
    builder.build()
}

/// Offsets and values of all records of a fetched partition; offsets must rise, and every batch be whole and undamaged.
pub(crate) fn records(fetched: &FetchPartitionResponse) -> Vec<(i64, String)> {
    assert_eq!(fetched.error_code, 0);
    let bytes = fetched.record_pieces().fold(Vec::new(), |mut all, piece| {
        all.extend_from_slice(piece);
        all
    });
    let mut found: Vec<(i64, String)> = Vec::new();
    let mut walk = batches(&bytes);
    for batch in walk.by_ref() {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        for record in RecordStream::new(&batch, 200 << 20).unwrap() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap();
            assert!(found.last().is_none_or(|(before, _)| *before < record.offset.value()));
            found.push((record.offset.value(), value));
        }
    }
    assert!(walk.rest().is_empty(), "a fetch holds whole batches");
    found
}

/// The values alone.
pub(crate) fn values(fetched: &FetchPartitionResponse) -> Vec<String> {
    records(fetched).into_iter().map(|(_, value)| value).collect()
}

/// Where in a batch's header a lie may be told.
pub(crate) mod lie {
    pub(crate) const LAST_OFFSET_DELTA: usize = 23;
    pub(crate) const PRODUCER_ID: usize = 43;
    pub(crate) const RECORD_COUNT: usize = 57;
}

/// A batch whose header says something else at these places; its CRC is right.
pub(crate) fn lying(values: &[&str], lies: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut batch = batch(values);
    for (at, bytes) in lies {
        batch[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    seal(&mut batch);
    batch
}

/// Makes a batch's CRC right for what is in it.
pub(crate) fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// A batch of records with these keys and values; no value makes a tombstone.
pub(crate) fn keyed_batch(codec: Codec, records: &[(&str, Option<&str>)]) -> Vec<u8> {
    keyed_batch_at(codec, 1_700_000_000_000, records)
}

/// As [`keyed_batch`], all of this time.
pub(crate) fn keyed_batch_at(codec: Codec, time: i64, records: &[(&str, Option<&str>)]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    for (key, value) in records {
        let (key, value) = (Some(key.as_bytes()), value.map(str::as_bytes));
        builder.push(TimestampMs(time), &RecordParts { key, value, headers: &[] });
    }
    builder.build()
}

/// Offset, key and value of a record.
pub(crate) type Keyed = (i64, String, Option<String>);

/// The records of a fetched partition, and the offset behind its last batch.
pub(crate) fn keyed_records(fetched: &FetchPartitionResponse) -> (Vec<Keyed>, Option<i64>) {
    assert_eq!(fetched.error_code, 0);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (mut found, mut next) = (Vec::new(), None);
    for batch in fetched.record_pieces().flat_map(|piece| batches(piece)) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        next = Some(batch.header.next_offset().value());
        for record in RecordStream::new(&batch, 200 << 20).unwrap() {
            let record = record.unwrap();
            found.push((record.offset.value(), text(record.key.unwrap_or_default()), record.value.map(text)));
        }
    }
    (found, next)
}
