//! The bytes of a write-ahead file. Integers are big-endian.
//!
//! ```text
//! file    0 magic "OUZELWAL"   8 version u32 = 2   12 crc u32 over bytes 0 to 12   16 frames
//! frame   0 crc u32 over all behind it   4 length u32: bytes behind this field   8 sequence u64   16 entries
//! entry   0 kind u8   1 body
//!   1 solo     topic id 16, partition i32, incarnation u64, leader epoch i32, flushed i64, boot id 16, closed at i64 (-1: open)
//!   2 removed  topic id 16, partition i32
//!   3 placed   generation u64, core u16, core count u16, records u32
//!   4 group    topic id 16, partition i32, replica u64, vote's term i32, voted for 9, vote committed u8, committed 13,
//!              purged 13, flushed i64, durable u8, boot id 16, closed at i64 (-1: open), membership length u32, membership
//! ```
//!
//! What may be missing is one byte, 0 or 1, and its value or zeroes; an entry's id is index u64 and term i32. Version 1 has
//! no groups.
//!
//! The first entry of a file, and no other, is `placed`; the `records` solo and group entries behind it are what the file was made
//! with, in as many frames as it takes. Each later frame is one commit. Sequence numbers go up by one from frame to frame,
//! so a frame that is missing shows.

use std::path::Path;

use bytes::{Buf, BufMut, Bytes};
use ouzel_model::{
    EntryId, EntryIndex, LeaderEpoch, Offset, PartitionIndex, ReplicaId, TopicId, TopicIdPartition,
};

use super::replay::WalError;
use super::state::{BootId, Change, GroupState, Kept, SoloState};

const MAGIC: &[u8; 8] = b"OUZELWAL";
const VERSION: u32 = 2;
/// The oldest that is read.
const VERSION_MIN: u32 = 1;
const FILE_HEADER_BYTES: usize = 16;
/// CRC and length, which the length does not count.
const FRAME_OVERHEAD_BYTES: usize = 8;
const FRAME_HEADER_BYTES: usize = 16;
const KIND_SOLO: u8 = 1;
const KIND_REMOVED: u8 = 2;
const KIND_PLACED: u8 = 3;
const KIND_GROUP: u8 = 4;
const SOLO_BYTES: usize = 65;
/// Of a group's entry, without its kind and membership.
const GROUP_FIXED_BYTES: usize = 20 + 8 + 4 + 9 + 1 + 13 + 13 + 8 + 1 + 16 + 8 + 4;
/// A frame that has reached this takes no further entry.
const FRAME_BYTES_TARGET: usize = 32 << 20;
/// A membership of more is none that was ever written.
const MEMBERSHIP_BYTES_MAX: usize = 1 << 20;
/// A commit of more is written as several frames, and a crash may leave the first of them only.
const FRAME_ENTRIES_MAX: usize = 1 << 20;
const FRAME_BYTES_MAX: usize = FRAME_HEADER_BYTES + (FRAME_ENTRIES_MAX + 1) * SOLO_BYTES;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Counts the starts.
    pub generation: u64,
    /// The core it was made for.
    pub core: u16,
    /// How many cores there were.
    pub core_count: u16,
}

/// Encoded frames, and the sequence number for the next one.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// One more than the last frame's.
    pub sequence_next: u64,
}

/// Writes the frames of a commit, the first with the sequence number given.
pub fn encode_frames(sequence: u64, changes: &[Change]) -> Frames {
    let mut frames = Frames { bytes: Vec::new(), sequence_next: sequence };
    let mut changes = changes.iter().peekable();
    while changes.peek().is_some() {
        frames.push(|out| put_some(out, &mut changes));
    }
    frames
}

/// Puts what one frame takes.
fn put_some<C: std::borrow::Borrow<Change>>(out: &mut Vec<u8>, changes: &mut impl Iterator<Item = C>) {
    let start = out.len();
    for _ in 0..FRAME_ENTRIES_MAX {
        if out.len() - start >= FRAME_BYTES_TARGET {
            return;
        }
        let Some(change) = changes.next() else { return };
        put_change(out, change.borrow());
    }
}

/// Writes a whole file: header, placement and records.
pub fn encode_file(
    placement: Placement,
    sequence: u64,
    live: impl ExactSizeIterator<Item = (TopicIdPartition, Kept)>,
) -> Frames {
    let mut bytes = MAGIC.to_vec();
    bytes.put_u32(VERSION);
    bytes.put_u32(crc32c::crc32c(&bytes));
    let mut frames = Frames { bytes, sequence_next: sequence };
    let records = u32::try_from(live.len()).expect("a core has less than 2^32 partitions");
    let mut live = live.map(|(key, kept)| Change::of(key, kept)).peekable();
    frames.push(|out| {
        out.put_u8(KIND_PLACED);
        out.put_u64(placement.generation);
        out.put_u16(placement.core);
        out.put_u16(placement.core_count);
        out.put_u32(records);
        put_some(out, &mut live);
    });
    while live.peek().is_some() {
        frames.push(|out| put_some(out, &mut live));
    }
    frames
}

/// About what [`encode_file`] takes for so many records.
pub fn file_bytes(records: usize) -> u64 {
    (FILE_HEADER_BYTES + FRAME_HEADER_BYTES + records * GROUP_FIXED_BYTES) as u64
}

impl Frames {
    fn push(&mut self, entries: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.put_u64(0);
        self.bytes.put_u64(self.sequence_next);
        entries(&mut self.bytes);
        let length =
            u32::try_from(self.bytes.len() - start - FRAME_OVERHEAD_BYTES).expect("entries are bounded");
        self.bytes[start + 4..start + 8].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&self.bytes[start + 4..]);
        self.bytes[start..start + 4].copy_from_slice(&crc.to_be_bytes());
        self.sequence_next += 1;
    }
}

fn put_change(out: &mut Vec<u8>, change: &Change) {
    let put_key = |out: &mut Vec<u8>, kind: u8, key: &TopicIdPartition| {
        out.put_u8(kind);
        out.put_slice(&key.topic_id.0);
        out.put_i32(key.partition.0);
    };
    match change {
        Change::Put(key, state) => {
            put_key(out, KIND_SOLO, key);
            out.put_u64(state.incarnation);
            out.put_i32(state.leader_epoch.value());
            out.put_i64(state.flushed.value());
            out.put_slice(&state.boot.0);
            out.put_i64(state.closed_at.unwrap_or(Offset::NONE).value());
        }
        Change::PutGroup(key, state) => {
            put_key(out, KIND_GROUP, key);
            out.put_u64(state.replica.to_u64());
            out.put_i32(state.term.value());
            out.put_u8(u8::from(state.voted_for.is_some()));
            out.put_u64(state.voted_for.map_or(0, ReplicaId::to_u64));
            out.put_u8(u8::from(state.vote_committed));
            for id in [state.committed, state.purged] {
                out.put_u8(u8::from(id.is_some()));
                out.put_u64(id.map_or(0, |id| id.index.value()));
                out.put_i32(id.map_or(0, |id| id.term.value()));
            }
            out.put_i64(state.flushed.value());
            out.put_u8(u8::from(state.is_durable));
            out.put_slice(&state.boot.0);
            out.put_i64(state.closed_at.unwrap_or(Offset::NONE).value());
            out.put_u32(state.membership_at_purge.len() as u32);
            out.put_slice(&state.membership_at_purge);
        }
        Change::Remove(key) => put_key(out, KIND_REMOVED, key),
    }
}

/// A decoded entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A record, or its end.
    Change(Change),
    /// The placement, and how many records the file was made with.
    Placed(Placement, u32),
}

/// Checks the file's header and gives the position of the first frame.
pub(super) fn check_file_header(path: &Path, bytes: &[u8]) -> Result<usize, WalError> {
    if bytes.len() < FILE_HEADER_BYTES {
        let found = format!("{} bytes", bytes.len());
        return Err(WalError::damaged(path, 0, format!("a header of {FILE_HEADER_BYTES} bytes"), found));
    }
    if &bytes[..8] != MAGIC {
        let found = format!("{:02x?}", &bytes[..8]);
        return Err(WalError::damaged(path, 0, format!("the magic {:02x?}", MAGIC), found));
    }
    let (version, crc) = ((&bytes[8..12]).get_u32(), (&bytes[12..16]).get_u32());
    let computed = crc32c::crc32c(&bytes[..12]);
    if crc != computed {
        return Err(WalError::damaged(path, 12, format!("CRC-32C {computed:08x}"), format!("{crc:08x}")));
    }
    if !(VERSION_MIN..=VERSION).contains(&version) {
        return Err(WalError::OtherVersion { file: path.to_owned(), found: version, known: VERSION });
    }
    Ok(FILE_HEADER_BYTES)
}

/// A frame that checked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) sequence: u64,
    pub(super) entries: Vec<Entry>,
    /// Bytes in all.
    pub(super) bytes: usize,
}

/// Why there is no frame: what should be there, what is.
pub(super) type NoFrame = (String, String);

/// Reads the frame at the front of `bytes`, which go on behind it.
pub(super) fn decode_frame(bytes: &[u8]) -> Result<Frame, NoFrame> {
    let whole = checked_frame(bytes)?;
    let mut rest = &whole[FRAME_OVERHEAD_BYTES..];
    let sequence = rest.get_u64();
    let mut entries = Vec::with_capacity(rest.len() / SOLO_BYTES + 1);
    while !rest.is_empty() {
        let at = whole.len() - rest.len();
        let entry = decode_entry(&mut rest);
        entries.push(entry.map_err(|found| (format!("an entry {at} bytes into the frame"), found))?);
    }
    Ok(Frame { sequence, entries, bytes: whole.len() })
}

/// The frame's bytes, if length and checksum are right.
pub(super) fn checked_frame(bytes: &[u8]) -> Result<&[u8], NoFrame> {
    if bytes.len() < FRAME_HEADER_BYTES {
        return Err((
            format!("a frame header of {FRAME_HEADER_BYTES} bytes"),
            format!("{} bytes", bytes.len()),
        ));
    }
    let (crc, length) = ((&bytes[..4]).get_u32(), (&bytes[4..8]).get_u32() as usize);
    let size = FRAME_OVERHEAD_BYTES + length;
    if !(FRAME_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&size) {
        return Err((format!("a frame length of 8 to {}", FRAME_BYTES_MAX - 8), format!("{length}")));
    }
    let Some(whole) = bytes.get(..size) else {
        return Err((
            format!("a frame of {size} bytes"),
            format!("{} bytes up to the end of the file", bytes.len()),
        ));
    };
    let computed = crc32c::crc32c(&whole[4..]);
    if crc == computed { Ok(whole) } else { Err((format!("CRC-32C {computed:08x}"), format!("{crc:08x}"))) }
}

/// The fixed bytes behind the key are there.
fn decode_group(rest: &mut &[u8]) -> Result<GroupState, String> {
    let replica = ReplicaId::from_u64(rest.get_u64());
    let term = LeaderEpoch(rest.get_i32());
    let has_voted = rest.get_u8() == 1;
    let voted_for = ReplicaId::from_u64(rest.get_u64());
    let vote_committed = rest.get_u8() == 1;
    let mut id = || {
        let is_there = rest.get_u8() == 1;
        let id = EntryId { index: EntryIndex(rest.get_u64()), term: LeaderEpoch(rest.get_i32()) };
        is_there.then_some(id)
    };
    let (committed, purged) = (id(), id());
    let flushed = Offset(rest.get_i64());
    let is_durable = rest.get_u8() == 1;
    let boot = BootId(take_16(rest));
    let closed_at = Some(Offset(rest.get_i64())).filter(|end| *end >= Offset::ZERO);
    let length = rest.get_u32() as usize;
    if length > MEMBERSHIP_BYTES_MAX || length > rest.len() {
        return Err(format!("a membership of {length} bytes, where {} are left", rest.len()));
    }
    let membership_at_purge = Bytes::copy_from_slice(&rest[..length]);
    rest.advance(length);
    Ok(GroupState {
        replica,
        term,
        voted_for: has_voted.then_some(voted_for),
        vote_committed,
        committed,
        purged,
        membership_at_purge,
        flushed,
        is_durable,
        boot,
        closed_at,
    })
}

fn decode_entry(rest: &mut &[u8]) -> Result<Entry, String> {
    let kind = rest.get_u8();
    let needed = match kind {
        KIND_SOLO => SOLO_BYTES - 1,
        KIND_REMOVED => 20,
        KIND_PLACED => 16,
        KIND_GROUP => GROUP_FIXED_BYTES,
        _ => return Err(format!("kind {kind}")),
    };
    if rest.len() < needed {
        return Err(format!("{} bytes of an entry of kind {kind}", rest.len()));
    }
    if kind == KIND_PLACED {
        let placement =
            Placement { generation: rest.get_u64(), core: rest.get_u16(), core_count: rest.get_u16() };
        return Ok(Entry::Placed(placement, rest.get_u32()));
    }
    let topic_id = TopicId(take_16(rest));
    let key = TopicIdPartition { topic_id, partition: PartitionIndex(rest.get_i32()) };
    if kind == KIND_REMOVED {
        return Ok(Entry::Change(Change::Remove(key)));
    }
    if kind == KIND_GROUP {
        return decode_group(rest).map(|state| Entry::Change(Change::PutGroup(key, state)));
    }
    let state = SoloState {
        incarnation: rest.get_u64(),
        leader_epoch: LeaderEpoch(rest.get_i32()),
        flushed: Offset(rest.get_i64()),
        boot: BootId(take_16(rest)),
        closed_at: Some(Offset(rest.get_i64())).filter(|end| *end >= Offset::ZERO),
    };
    Ok(Entry::Change(Change::Put(key, state)))
}

fn take_16(rest: &mut &[u8]) -> [u8; 16] {
    let mut id = [0; 16];
    rest.copy_to_slice(&mut id);
    id
}

#[cfg(test)]
mod tests;
