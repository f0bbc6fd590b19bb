//! The bytes of producer state: Kafka's `.snapshot`, and `.producers` beside it for what Kafka's cannot hold.
//!
//! Both are named after the offset they cover (exclusive end). Integers are big-endian. Layouts:
//!
//! ```text
//! .snapshot   0 version i16 = 1   2 crc u32   6 count i32   then per producer, 46 bytes:
//!             producer id i64, epoch i16, last sequence i32, last offset i64, offset delta i32, timestamp i64,
//!             coordinator epoch i32, first offset of the open transaction i64 (-1: none)
//! .producers  0 version i16 = 1   2 crc u32   6 crc field of its .snapshot u32   10 count i32   then per producer:
//!             producer id i64, epoch i16, last seen i64, batches i8 (0 to 4), then per batch, oldest first, 24 bytes:
//!             last sequence i32, last offset i64, offset delta i32, timestamp i64
//! ```
//!
//! Each crc is CRC-32C over everything behind it. `.snapshot` holds only the newest batch of a producer, `.producers`
//! the older ones of the window. `.producers` is derived: whatever is wrong with it, it is left aside, and the windows are
//! taken from the log again.

use bytes::{Buf, BufMut};
use ouzel_model::{Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::{ProducerEntry, Producers, WINDOW_BATCHES, WindowBatch};

const VERSION: i16 = 1;
const CRC_AT: usize = 2;
const CRC_END: usize = 6;
const ENTRY_BYTES: usize = 46;
/// Version, CRC and count.
const SNAPSHOT_HEADER_BYTES: usize = 10;
/// The same with the CRC of the snapshot.
const WINDOWS_HEADER_BYTES: usize = 14;
const WINDOWS_ENTRY_BYTES_MIN: usize = 19;
const BATCH_BYTES: usize = 24;

/// Why bytes are no producer state. Positions count from the start of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The file ends too early, or goes on too long.
    #[error("it has {found} bytes and should have {expected}")]
    Size {
        /// Bytes its own fields ask for.
        expected: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// A format this version does not know.
    #[error("at position 0 it says version {found}; only {VERSION} is known")]
    Version {
        /// The field's value.
        found: i16,
    },
    /// The checksum does not match.
    #[error("at position 2 its CRC-32C is {found:08x} but its bytes give {computed:08x}")]
    Crc {
        /// What the field says.
        found: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A field holds what it cannot.
    #[error("at position {position} it says {what}")]
    Field {
        /// Where.
        position: usize,
        /// What it says.
        what: String,
    },
    /// A `.producers` that was written with another `.snapshot` than the one beside it.
    #[error("it belongs to a snapshot with CRC-32C {found:08x}, and the one beside it has {expected:08x}")]
    OtherSnapshot {
        /// The snapshot's.
        expected: u32,
        /// What the file says.
        found: u32,
    },
}

/// How much of the windows a load could give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Windows {
    /// All that were kept.
    Whole,
    /// The newest batch of each only: begin at an earlier snapshot, or the start of the log, walk the batches, and take from
    /// this one only what is missing then ([`Producers::adopt_missing`]). With the reason why `.producers` was left aside,
    /// if there was one to read.
    NewestOnly(Option<SnapshotError>),
}

/// Writes both files: the bytes of `.snapshot` and of `.producers`.
pub fn encode(producers: &Producers) -> (Vec<u8>, Vec<u8>) {
    let snapshot = encode_snapshot(producers);
    let windows = encode_windows(producers, crc_field(&snapshot));
    (snapshot, windows)
}

/// Reads both files. `end` is the offset they are named after; `now` is taken as the time a producer was last seen where
/// `.producers` cannot say it.
///
/// # Errors
/// When `.snapshot` is damaged; a damaged `.producers` only shows in [`Windows`].
pub fn load(
    snapshot: &[u8],
    windows: Option<&[u8]>,
    end: Offset,
    now: TimestampMs,
) -> Result<(Producers, Windows), SnapshotError> {
    let producers = decode_snapshot(snapshot, end, now)?;
    let Some(windows) = windows else { return Ok((producers, Windows::NewestOnly(None))) };
    let mut whole = producers.clone();
    match decode_windows(windows, crc_field(snapshot), &mut whole) {
        Ok(()) => Ok((whole, Windows::Whole)),
        Err(error) => Ok((producers, Windows::NewestOnly(Some(error)))),
    }
}

fn encode_snapshot(producers: &Producers) -> Vec<u8> {
    let mut out = Vec::with_capacity(SNAPSHOT_HEADER_BYTES + producers.len() * ENTRY_BYTES);
    out.put_i16(VERSION);
    out.put_u32(0);
    out.put_i32(count(producers.len()));
    for (id, entry) in producers.iter() {
        let newest = entry.window.last();
        out.put_i64(id.0);
        out.put_i16(entry.epoch.value());
        out.put_i32(entry.last_sequence());
        out.put_i64(newest.map_or(-1, |batch| batch.last_offset.value()));
        out.put_i32(newest.map_or(0, |batch| batch.offset_delta));
        out.put_i64(entry.last_timestamp.value());
        out.put_i32(entry.coordinator_epoch);
        out.put_i64(entry.transaction_start.unwrap_or(Offset::NONE).value());
    }
    seal(out)
}

fn decode_snapshot(bytes: &[u8], end: Offset, now: TimestampMs) -> Result<Producers, SnapshotError> {
    let mut rest = open(bytes, SNAPSHOT_HEADER_BYTES)?;
    let count = rest.get_i32();
    let expected = usize::try_from(count).ok().and_then(|count| count.checked_mul(ENTRY_BYTES));
    if expected != Some(rest.len()) {
        let expected = SNAPSHOT_HEADER_BYTES.saturating_add(expected.unwrap_or(usize::MAX));
        return Err(SnapshotError::Size { expected, found: bytes.len() });
    }
    let mut producers = Producers::new(end);
    while !rest.is_empty() {
        let position = bytes.len() - rest.len();
        let id = ProducerId(rest.get_i64());
        let epoch = ProducerEpoch(rest.get_i16());
        let (last_sequence, last_offset) = (rest.get_i32(), Offset(rest.get_i64()));
        let (offset_delta, timestamp) = (rest.get_i32(), TimestampMs(rest.get_i64()));
        let mut entry = ProducerEntry::new(epoch, now);
        entry.last_timestamp = timestamp;
        entry.coordinator_epoch = rest.get_i32();
        entry.transaction_start = Some(Offset(rest.get_i64())).filter(|start| *start >= Offset::ZERO);
        if last_offset >= Offset::ZERO {
            let batch = WindowBatch { last_sequence, last_offset, offset_delta, timestamp };
            check_batch(&batch, end, position + 14)?;
            entry.window.push(batch);
        }
        if producers.entries.insert(id, entry).is_some() {
            return Err(SnapshotError::Field { position, what: format!("producer {id} a second time") });
        }
    }
    Ok(producers)
}

fn encode_windows(producers: &Producers, snapshot_crc: u32) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_i16(VERSION);
    out.put_u32(0);
    out.put_u32(snapshot_crc);
    out.put_i32(count(producers.len()));
    for (id, entry) in producers.iter() {
        let older = entry.window.split_last().map_or(&[][..], |(_, older)| older);
        out.put_i64(id.0);
        out.put_i16(entry.epoch.value());
        out.put_i64(entry.last_seen.value());
        out.put_u8(u8::try_from(older.len()).unwrap_or(u8::MAX));
        for batch in older {
            out.put_i32(batch.last_sequence);
            out.put_i64(batch.last_offset.value());
            out.put_i32(batch.offset_delta);
            out.put_i64(batch.timestamp.value());
        }
    }
    seal(out)
}

/// Puts the older batches in front of the newest ones. On an error, `producers` is of no use any more.
fn decode_windows(bytes: &[u8], snapshot_crc: u32, producers: &mut Producers) -> Result<(), SnapshotError> {
    let mut rest = open(bytes, WINDOWS_HEADER_BYTES)?;
    let found = rest.get_u32();
    if found != snapshot_crc {
        return Err(SnapshotError::OtherSnapshot { expected: snapshot_crc, found });
    }
    let count = rest.get_i32();
    if usize::try_from(count) != Ok(producers.len()) {
        let what = format!("{count} producers, and the snapshot has {}", producers.len());
        return Err(SnapshotError::Field { position: 10, what });
    }
    let too_short = |rest: &[u8], needed: usize| SnapshotError::Size {
        expected: bytes.len() - rest.len() + needed,
        found: bytes.len(),
    };
    // As many as the snapshot has, in the same order: a loop bounded by what was decoded already.
    for (id, entry) in &mut producers.entries {
        let position = bytes.len() - rest.len();
        if rest.len() < WINDOWS_ENTRY_BYTES_MIN {
            return Err(too_short(rest, WINDOWS_ENTRY_BYTES_MIN));
        }
        let (found_id, epoch) = (ProducerId(rest.get_i64()), ProducerEpoch(rest.get_i16()));
        let last_seen = TimestampMs(rest.get_i64());
        let older = usize::from(rest.get_u8());
        if (found_id, epoch) != (*id, entry.epoch) {
            let what = format!(
                "producer {found_id} with epoch {epoch} where the snapshot has {id} with {}",
                entry.epoch
            );
            return Err(SnapshotError::Field { position, what });
        }
        if older >= WINDOW_BATCHES || (older > 0 && entry.window.is_empty()) {
            let what = format!("{older} batches before the newest of producer {id}");
            return Err(SnapshotError::Field { position: position + 18, what });
        }
        if rest.len() < older * BATCH_BYTES {
            return Err(too_short(rest, older * BATCH_BYTES));
        }
        let newest = entry.window.pop();
        for _ in 0..older {
            let position = bytes.len() - rest.len();
            let (last_sequence, last_offset) = (rest.get_i32(), Offset(rest.get_i64()));
            let (offset_delta, timestamp) = (rest.get_i32(), TimestampMs(rest.get_i64()));
            let batch = WindowBatch { last_sequence, last_offset, offset_delta, timestamp };
            let before = newest.map_or(Offset::ZERO, |newest| newest.first_offset());
            check_batch(&batch, before, position)?;
            if entry.window.last().is_some_and(|last| last.last_offset >= batch.first_offset()) {
                let what = format!("a batch up to offset {last_offset} behind a later one");
                return Err(SnapshotError::Field { position, what });
            }
            entry.window.push(batch);
        }
        entry.window.extend(newest);
        entry.last_seen = last_seen;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(SnapshotError::Size { expected: bytes.len() - rest.len(), found: bytes.len() })
    }
}

/// A batch must lie wholly between 0 and `end`; its sequence numbers are those of the ring, or -1.
fn check_batch(batch: &WindowBatch, end: Offset, position: usize) -> Result<(), SnapshotError> {
    let WindowBatch { last_sequence, last_offset, offset_delta, .. } = *batch;
    let is_sound = last_sequence >= -1
        && offset_delta >= 0
        && last_offset >= Offset(i64::from(offset_delta))
        && last_offset < end;
    if is_sound {
        return Ok(());
    }
    let what = format!(
        "a batch up to sequence {last_sequence}, offset {last_offset} with a delta of {offset_delta}, in a state that ends at {end}"
    );
    Err(SnapshotError::Field { position, what })
}

/// Checks size, version and CRC, in this order, and gives the bytes behind the CRC.
fn open(bytes: &[u8], header_bytes: usize) -> Result<&[u8], SnapshotError> {
    if bytes.len() < header_bytes {
        return Err(SnapshotError::Size { expected: header_bytes, found: bytes.len() });
    }
    let version = (&bytes[..CRC_AT]).get_i16();
    if version != VERSION {
        return Err(SnapshotError::Version { found: version });
    }
    let (found, computed) = (crc_field(bytes), crc32c::crc32c(&bytes[CRC_END..]));
    if found != computed {
        return Err(SnapshotError::Crc { found, computed });
    }
    Ok(&bytes[CRC_END..])
}

fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&out[CRC_END..]);
    out[CRC_AT..CRC_END].copy_from_slice(&crc.to_be_bytes());
    out
}

fn crc_field(bytes: &[u8]) -> u32 {
    (&bytes[CRC_AT..CRC_END]).get_u32()
}

fn count(producers: usize) -> i32 {
    i32::try_from(producers).expect("two thousand million producers do not fit in memory")
}

#[cfg(test)]
mod tests;
