//! What becomes of a batch: from a batch and what is known of its keys and its transaction to a batch, or none.

use std::collections::BTreeMap;

use ouzel_model::batch::rewrite::{emptied, rebuild};
use ouzel_model::batch::{BatchView, Header, PlainRecords, RawRecord, RecordsError};
use ouzel_model::{Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::key_map::KeyMap;
use super::transactions::CleanedTransactions;

/// What a batch may unfold into. Those in a log were bounded more tightly on their way in.
pub const PLAIN_BYTES_MAX: usize = i32::MAX as usize;

/// A producer's newest trace in the log: its batch stays while the producer is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastRecord {
    /// The last offset of its newest batch of records.
    Data(Offset),
    /// It has written no record in its epoch: the marker that began the epoch fences those before it.
    MarkerOf(ProducerEpoch),
    /// It has written behind what is cleaned, and nothing for long before that: all of its batches stay.
    Unknown,
}

/// What holds for all batches of a pass.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The broker's time when the pass began.
    pub now: TimestampMs,
    /// `delete.retention.ms`: from the first pass that meets a tombstone to its delete horizon.
    pub delete_retention_ms: i64,
    /// The producers that are remembered.
    pub last_records: BTreeMap<ProducerId, LastRecord>,
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cleaned {
    /// Nothing of it stays.
    Gone,
    /// All of it stays.
    AsItIs,
    /// This takes its place, in the same offsets.
    Anew(Vec<u8>),
}

/// What went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records met.
    pub records_read: u64,
    /// Records that stay.
    pub records_kept: u64,
    /// Records without a key, which go: a compacted topic takes none, but it may not always have been one.
    pub records_keyless: u64,
    /// Bytes of the batches met.
    pub bytes_read: u64,
    /// Bytes of the batches that stay.
    pub bytes_kept: u64,
}

impl Counts {
    /// Adds what another part counted.
    pub fn add(&mut self, other: &Counts) {
        self.records_read += other.records_read;
        self.records_kept += other.records_kept;
        self.records_keyless += other.records_keyless;
        self.bytes_read += other.bytes_read;
        self.bytes_kept += other.bytes_kept;
    }
}

/// How far a batch got into the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// All its keys are in.
    Whole,
    /// The map is full: the pass ends before this batch.
    Full,
}

/// Notes the keys of a batch of the dirty part, which begins at `first_dirty`.
///
/// A batch that does not fit ends the pass before it, but for the first one: without it no pass would ever get further.
///
/// # Errors
/// When the records cannot be read.
pub fn map_keys(
    batch: &BatchView<'_>,
    first_dirty: Offset,
    keys: &mut KeyMap,
    transactions: &mut CleanedTransactions,
) -> Result<Mapped, RecordsError> {
    let header = &batch.header;
    let has_no_keys = if header.attributes.is_control() {
        transactions.is_marker_of_nothing(batch);
        true
    } else {
        transactions.is_aborted(header)
    };
    if header.last_offset() < first_dirty {
        return Ok(Mapped::Whole);
    }
    if !has_no_keys {
        let is_first = keys.latest() == Offset::NONE;
        let plain = PlainRecords::unfold(batch, PLAIN_BYTES_MAX)?;
        for record in plain.records()? {
            let offset = header.base_offset + i64::from(record.offset_delta);
            let Some(key) = record.key.filter(|_| offset >= first_dirty) else { continue };
            if keys.is_full() && !is_first {
                return Ok(Mapped::Full);
            }
            keys.put(key, offset);
        }
    }
    keys.reached(header.last_offset());
    Ok(Mapped::Whole)
}

/// Says what becomes of a batch. With `must_stay` at least its header does.
///
/// # Errors
/// When the records cannot be read.
pub fn clean_batch(
    batch: &BatchView<'_>,
    keys: &KeyMap,
    transactions: &mut CleanedTransactions,
    rules: &Rules,
    must_stay: bool,
    counts: &mut Counts,
) -> Result<Cleaned, RecordsError> {
    let header = &batch.header;
    let is_control = header.attributes.is_control();
    let may_go =
        if is_control { transactions.is_marker_of_nothing(batch) } else { transactions.is_aborted(header) };
    let horizon = header.delete_horizon();
    // A marker outlives the last record of its transaction: readers of such a record must still find it.
    let goes = may_go && (!is_control || horizon.is_some_and(|horizon| horizon <= rules.now));
    // What is behind the keys is another pass's: the newest of its producer below there may be this one.
    let is_beyond = header.last_offset() > keys.latest();
    let must_stay = must_stay || is_beyond || rules.is_last_of_its_producer(header);
    counts.bytes_read += batch.bytes.len() as u64;
    counts.records_read += u64::from(header.record_count.unsigned_abs());

    let cleaned = if goes || header.record_count == 0 {
        without_records(header, must_stay)
    } else if header.base_offset > keys.latest() {
        // Nothing is known of what lies behind: another pass is to clean it.
        Cleaned::AsItIs
    } else {
        let plain = PlainRecords::unfold(batch, PLAIN_BYTES_MAX)?;
        let records = plain.records()?;
        let met = records.len();
        let mut tombstones = false;
        let kept: Vec<RawRecord<'_>> = records
            .into_iter()
            .filter(|record| {
                let offset = header.base_offset + i64::from(record.offset_delta);
                let stays = is_control || record_stays(record, offset, horizon, keys, rules, counts);
                tombstones |= stays && !record.has_value && offset <= keys.latest();
                stays
            })
            .collect();
        let gets_horizon = horizon.is_none() && (tombstones || (is_control && may_go));
        if kept.is_empty() {
            without_records(header, must_stay)
        } else if kept.len() == met && !gets_horizon {
            Cleaned::AsItIs
        } else {
            let new_horizon = TimestampMs(rules.now.value().saturating_add(rules.delete_retention_ms));
            Cleaned::Anew(rebuild(header, &kept, if gets_horizon { Some(new_horizon) } else { horizon }))
        }
    };
    match &cleaned {
        Cleaned::Gone => {}
        Cleaned::AsItIs => {
            counts.bytes_kept += batch.bytes.len() as u64;
            counts.records_kept += u64::from(header.record_count.unsigned_abs());
        }
        Cleaned::Anew(bytes) => {
            counts.bytes_kept += bytes.len() as u64;
            let count = Header::parse(bytes).map_or(0, |header| header.record_count);
            counts.records_kept += u64::from(count.unsigned_abs());
        }
    }
    Ok(cleaned)
}

fn without_records(header: &Header, must_stay: bool) -> Cleaned {
    match (must_stay, header.record_count) {
        (false, _) => Cleaned::Gone,
        (true, 0) => Cleaned::AsItIs,
        (true, _) => Cleaned::Anew(emptied(header)),
    }
}

/// Whether a record is the newest of its key, and not a tombstone whose time is over.
fn record_stays(
    record: &RawRecord<'_>,
    offset: Offset,
    horizon: Option<TimestampMs>,
    keys: &KeyMap,
    rules: &Rules,
    counts: &mut Counts,
) -> bool {
    if offset > keys.latest() {
        return true;
    }
    let Some(key) = record.key else {
        counts.records_keyless += 1;
        return false;
    };
    let is_newest = keys.get(key).is_none_or(|newest| offset >= newest);
    is_newest && (record.has_value || horizon.is_none_or(|horizon| rules.now < horizon))
}

impl Rules {
    fn is_last_of_its_producer(&self, header: &Header) -> bool {
        match self.last_records.get(&header.producer_id) {
            _ if !header.has_producer() => false,
            None => false,
            Some(LastRecord::Unknown) => true,
            Some(LastRecord::Data(last)) => header.last_offset() == *last,
            Some(LastRecord::MarkerOf(epoch)) => {
                header.attributes.is_control() && header.producer_epoch == *epoch
            }
        }
    }
}

#[cfg(test)]
mod tests;
