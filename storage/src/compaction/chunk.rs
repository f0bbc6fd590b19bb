//! Whole batches at a time, as they come from a file: the piece of work that goes to the worker.

use std::sync::Arc;

use bytes::Bytes;
use ouzel_model::batch::{BatchView, Header};
use ouzel_model::{Offset, TimestampMs};

use super::cleaning::{Cleaned, Counts, Mapped, Rules, clean_batch, map_keys};
use super::key_map::KeyMap;
use super::transactions::CleanedTransactions;
use crate::producers::Producers;

/// Bytes that are not what was written, and where in the chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsound {
    /// Bytes before it.
    pub at: usize,
    /// What is wrong, in words.
    pub found: String,
}

/// How many bytes at the front of `bytes` are whole batches; `Err` with the size of the first one if not even that is there.
///
/// # Errors
/// The size of the first batch, or the position and the reason where no batch begins.
pub fn whole_batches(bytes: &[u8]) -> Result<usize, NeedsMore> {
    let mut at = 0;
    while at < bytes.len() {
        match BatchView::parse(&bytes[at..]) {
            Ok(batch) => at += batch.bytes.len(),
            Err(ouzel_model::batch::BatchError::Truncated { needed, .. }) => {
                return if at > 0 { Ok(at) } else { Err(NeedsMore::Bytes(needed)) };
            }
            // The batches before it first.
            Err(_) if at > 0 => return Ok(at),
            Err(error) => return Err(NeedsMore::Sense(error.to_string())),
        }
    }
    Ok(at)
}

/// Why there is no whole batch at the front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeedsMore {
    /// So many bytes are asked for.
    Bytes(usize),
    /// These are no batch.
    Sense(String),
}

/// What mapping carries from chunk to chunk.
pub struct Mapping {
    /// The keys so far.
    pub keys: KeyMap,
    /// The transactions under way.
    pub transactions: CleanedTransactions,
    /// The producers of the dirty part.
    pub producers: Producers,
    /// Where the dirty part begins.
    pub first_dirty: Offset,
}

/// Notes the keys of a chunk's batches.
///
/// # Errors
/// The first batch that is not sound.
pub fn map_chunk(mut mapping: Mapping, chunk: &Bytes) -> Result<(Mapping, Mapped), Unsound> {
    for (at, batch) in sound_batches(chunk) {
        let batch = batch.map_err(|found| Unsound { at, found })?;
        let mapped = map_keys(&batch, mapping.first_dirty, &mut mapping.keys, &mut mapping.transactions)
            .map_err(|error| Unsound { at, found: error.to_string() })?;
        if mapped == Mapped::Full {
            return Ok((mapping, mapped));
        }
        if batch.header.last_offset() >= mapping.first_dirty {
            mapping.producers.update(&batch.header, TimestampMs::NONE);
        }
    }
    Ok((mapping, Mapped::Whole))
}

/// What cleaning carries from chunk to chunk.
pub struct Cleaning {
    /// What was mapped.
    pub keys: Arc<KeyMap>,
    /// What holds for the pass.
    pub rules: Arc<Rules>,
    /// The transactions under way.
    pub transactions: CleanedTransactions,
    /// What went through so far.
    pub counts: Counts,
}

/// What is left of a chunk.
#[derive(Default)]
pub struct CleanedChunk {
    /// The batches that stay, one behind another.
    pub bytes: Vec<u8>,
    /// Their headers.
    pub headers: Vec<Header>,
}

/// Cleans a chunk's batches; with `is_last` the last of them stays at least as a header.
///
/// # Errors
/// The first batch that is not sound: nothing may be made anew, with a new checksum, of bytes that have rotten.
pub fn clean_chunk(
    mut cleaning: Cleaning,
    chunk: &Bytes,
    is_last: bool,
) -> Result<(Cleaning, CleanedChunk), Unsound> {
    let mut left = CleanedChunk::default();
    for (at, batch) in sound_batches(chunk) {
        let batch = batch.map_err(|found| Unsound { at, found })?;
        let must_stay = is_last && at + batch.bytes.len() == chunk.len();
        let cleaned = clean_batch(
            &batch,
            &cleaning.keys,
            &mut cleaning.transactions,
            &cleaning.rules,
            must_stay,
            &mut cleaning.counts,
        )
        .map_err(|error| Unsound { at, found: error.to_string() })?;
        let bytes = match &cleaned {
            Cleaned::Gone => continue,
            Cleaned::AsItIs => batch.bytes,
            Cleaned::Anew(bytes) => bytes,
        };
        let header = Header::parse(bytes).map_err(|error| Unsound { at, found: error.to_string() })?;
        left.bytes.extend_from_slice(bytes);
        left.headers.push(header);
    }
    Ok((cleaning, left))
}

fn sound_batches(chunk: &Bytes) -> impl Iterator<Item = (usize, Result<BatchView<'_>, String>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = chunk.get(at..).filter(|rest| !rest.is_empty())?;
        let begin = at;
        let batch = BatchView::parse(rest).and_then(|batch| batch.verify_crc().map(|()| batch));
        at = batch.as_ref().map_or(chunk.len(), |batch| begin + batch.bytes.len());
        Some((begin, batch.map_err(|error| error.to_string())))
    })
}
