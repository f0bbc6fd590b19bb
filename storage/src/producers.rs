//! What a partition remembers of its idempotent producers: the last five batches of each, and its open transaction.
//!
//! Pure: batch headers and times in, verdicts out. [`snapshot`] holds the bytes of the two files it is kept in.
//!
//! Invariants of one producer's window: all its batches carry the producer's epoch; sequence numbers follow each other
//! (wrapping from `i32::MAX` to 0) unless the log was written without that check; offsets grow; at most
//! [`WINDOW_BATCHES`] are kept, the newest last.
//!
//! One deliberate difference from Kafka: a producer expires by the time *this broker* last saw it, not by the timestamps
//! in its records. Records of last year would otherwise lose their producer's state at the first restart, and a retry
//! would be stored twice.

pub mod snapshot;
pub(crate) mod turned_away;

use std::collections::BTreeMap;
use std::time::Duration;

use ouzel_model::batch::Header;
use ouzel_model::{Offset, ProducerEpoch, ProducerId, TimestampMs};

/// How many of a producer's batches are remembered; a client keeps no more than five requests in flight per connection.
pub const WINDOW_BATCHES: usize = 5;

/// Where a batch of the window lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowBatch {
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Last offset minus first; the same holds for the sequence numbers.
    pub offset_delta: i32,
    /// The batch's max timestamp: what a duplicate is answered with.
    pub timestamp: TimestampMs,
}

impl WindowBatch {
    fn of(header: &Header) -> WindowBatch {
        WindowBatch {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        }
    }

    /// Offset of the first record.
    pub fn first_offset(&self) -> Offset {
        self.last_offset + -i64::from(self.offset_delta)
    }

    /// Sequence number of the first record.
    pub fn first_sequence(&self) -> i32 {
        self.last_sequence.wrapping_sub(self.offset_delta) & i32::MAX
    }
}

/// One producer as this partition knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    /// The newest epoch seen.
    pub epoch: ProducerEpoch,
    /// The newest batches of that epoch, oldest first. Empty if the epoch's only trace is a transaction marker.
    pub window: Vec<WindowBatch>,
    /// Max timestamp of the newest batch or marker; only carried, for `.snapshot` and for descriptions.
    pub last_timestamp: TimestampMs,
    /// Epoch of the transaction coordinator that wrote the last marker; -1 if none did.
    pub coordinator_epoch: i32,
    /// First offset of the open transaction.
    pub transaction_start: Option<Offset>,
    /// When this broker last appended, or loaded, something of it. What expiry goes by.
    pub last_seen: TimestampMs,
}

impl ProducerEntry {
    fn new(epoch: ProducerEpoch, now: TimestampMs) -> ProducerEntry {
        ProducerEntry {
            epoch,
            window: Vec::new(),
            last_timestamp: TimestampMs::NONE,
            coordinator_epoch: -1,
            transaction_start: None,
            last_seen: now,
        }
    }

    /// Sequence number of the newest record of this epoch, or -1.
    pub fn last_sequence(&self) -> i32 {
        self.window.last().map_or(-1, |batch| batch.last_sequence)
    }
}

/// What is to become of a batch a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerVerdict {
    /// It is the next one: append it.
    Append,
    /// It is in the log already: answer as the first time, append nothing.
    Duplicate(WindowBatch),
    /// A batch is missing before it, or it is older than the window.
    OutOfOrder {
        /// The producer.
        producer_id: ProducerId,
        /// The sequence number it should have begun with.
        expected: i32,
        /// The one it begins with.
        found: i32,
    },
    /// It comes from an incarnation of the producer that another has replaced.
    StaleEpoch {
        /// The producer.
        producer_id: ProducerId,
        /// The newest epoch seen.
        known: ProducerEpoch,
        /// The batch's.
        found: ProducerEpoch,
    },
}

/// Whether [`Producers::truncate_to`] left the state as it was at that offset.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncated {
    /// Nothing lay behind the offset: the state is exact.
    Unchanged,
    /// Batches were removed, and older ones that they had pushed out are unknown: load the newest snapshot at or before
    /// the offset and scan from there.
    Rebuild,
}

/// All producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    entries: BTreeMap<ProducerId, ProducerEntry>,
    /// Exclusive end of the batches that are in the entries.
    end: Offset,
}

impl Producers {
    /// Knows nobody; the first batch it will be told of begins at or behind `start`.
    pub fn new(start: Offset) -> Producers {
        Producers { entries: BTreeMap::new(), end: start }
    }

    /// Judges a batch that a client sent, in the state the log has now. Batches without a producer, and those without
    /// sequence numbers (offset commits of transactions), have nothing to be judged by but their epoch.
    pub fn check(&self, header: &Header) -> ProducerVerdict {
        let (producer_id, found) = (header.producer_id, header.base_sequence);
        let Some(entry) = self.entries.get(&producer_id).filter(|_| header.has_producer()) else {
            return ProducerVerdict::Append;
        };
        if header.producer_epoch < entry.epoch {
            let (known, found) = (entry.epoch, header.producer_epoch);
            return ProducerVerdict::StaleEpoch { producer_id, known, found };
        }
        if found < 0 {
            return ProducerVerdict::Append;
        }
        let expected = if header.producer_epoch == entry.epoch {
            if let Some(original) = duplicate_of(header, &entry.window) {
                return ProducerVerdict::Duplicate(original);
            }
            next_sequence(entry.last_sequence())
        } else {
            0
        };
        // An entry that holds nothing but "no epoch" comes from a log whose records are gone; any start will do.
        if found == expected || entry.epoch == ProducerEpoch::NONE {
            ProducerVerdict::Append
        } else {
            ProducerVerdict::OutOfOrder { producer_id, expected, found }
        }
    }

    /// Takes note of a batch that has its place in the log: one just appended, or one met in a scan. Trusts it; a batch
    /// of an epoch older than the known one cannot have passed [`check`](Self::check) and is left out.
    pub fn update(&mut self, header: &Header, now: TimestampMs) {
        self.end = self.end.max(header.next_offset());
        if !header.has_producer() {
            return;
        }
        let fresh = || ProducerEntry::new(header.producer_epoch, now);
        let entry = self.entries.entry(header.producer_id).or_insert_with(fresh);
        if header.producer_epoch < entry.epoch {
            return;
        }
        if header.producer_epoch > entry.epoch {
            entry.epoch = header.producer_epoch;
            entry.window.clear();
        }
        entry.last_timestamp = header.max_timestamp;
        entry.last_seen = entry.last_seen.max(now);
        if header.attributes.is_control() {
            entry.transaction_start = None;
            return;
        }
        if header.attributes.is_transactional() && entry.transaction_start.is_none() {
            entry.transaction_start = Some(header.base_offset);
        }
        if entry.window.len() == WINDOW_BATCHES {
            entry.window.remove(0);
        }
        entry.window.push(WindowBatch::of(header));
    }

    /// Removes all that lies at or behind `end`, as the log does.
    pub fn truncate_to(&mut self, end: Offset) -> Truncated {
        if self.end <= end {
            return Truncated::Unchanged;
        }
        self.end = end;
        self.entries.retain(|_, entry| {
            entry.window.retain(|batch| batch.last_offset < end);
            entry.last_timestamp = entry.window.last().map_or(TimestampMs::NONE, |batch| batch.timestamp);
            entry.transaction_start = entry.transaction_start.filter(|start| *start < end);
            !entry.window.is_empty()
        });
        Truncated::Rebuild
    }

    /// Notes that the log now starts at `start`. Producers stay, as in Kafka: a retry of a batch that was trimmed away
    /// meanwhile is still a duplicate.
    pub fn trim_to(&mut self, start: Offset) {
        self.end = self.end.max(start);
    }

    /// Forgets producers this broker has not seen for `after` (`producer.id.expiration.ms`), but for those with an open
    /// transaction. Returns how many.
    pub fn expire(&mut self, now: TimestampMs, after: Duration) -> usize {
        let before = self.entries.len();
        let after_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        self.entries.retain(|_, entry| {
            let idle_ms = now.value().saturating_sub(entry.last_seen.value());
            entry.transaction_start.is_some() || idle_ms < after_ms
        });
        before - self.entries.len()
    }

    /// Takes over from `known`, a state of an earlier or the same end, the producers that are not here: their batches lie
    /// before the place where the walk began that made this state, or were trimmed away.
    pub fn adopt_missing(&mut self, known: &Producers) {
        for (id, entry) in &known.entries {
            self.entries.entry(*id).or_insert_with(|| entry.clone());
        }
    }

    /// The producers, by id.
    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &ProducerEntry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// One producer.
    pub fn get(&self, id: ProducerId) -> Option<&ProducerEntry> {
        self.entries.get(&id)
    }

    /// Takes over one producer as another state of the same log knows it.
    pub fn insert(&mut self, id: ProducerId, entry: ProducerEntry) {
        self.entries.insert(id, entry);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Exclusive end of the batches taken note of: the offset a snapshot of this state is named after.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// First offset of the oldest open transaction.
    pub fn first_open_transaction(&self) -> Option<Offset> {
        self.entries.values().filter_map(|entry| entry.transaction_start).min()
    }
}

fn duplicate_of(header: &Header, window: &[WindowBatch]) -> Option<WindowBatch> {
    let (first, last) = (header.base_sequence, header.last_sequence());
    window.iter().copied().find(|batch| batch.first_sequence() == first && batch.last_sequence == last)
}

/// The sequence number behind `last`; 0 behind "none yet" (-1) as well.
fn next_sequence(last: i32) -> i32 {
    last.wrapping_add(1) & i32::MAX
}

#[cfg(test)]
mod tests;
