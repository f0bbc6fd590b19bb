//! Which leader wrote from which offset on: the history a follower or consumer asks where two logs part (KIP-101, KIP-279).
//!
//! Pure. Invariant: epochs and start offsets both grow strictly from entry to entry. An entry may stand at the log end,
//! for a leader that has not written yet.

use ouzel_model::{LeaderEpoch, Offset};

use crate::checkpoint::{MalformedLine, decode_lines, encode_lines};

/// The first offset of one leader's reign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The leader's epoch.
    pub epoch: LeaderEpoch,
    /// Offset of the first record it wrote, or would write.
    pub start_offset: Offset,
}

/// A partition's leader epochs, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochEntry>,
}

impl LeaderEpochs {
    /// Notes that `epoch` writes from `start_offset` on. Entries that contradict it (as new or newer, or beginning at or
    /// behind it) go: the log that is there is right. Returns whether anything changed, so that the checkpoint is due.
    ///
    /// # Panics
    /// If epoch or offset is negative: those are the wire's "none".
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        assert!(
            epoch.value() >= 0 && start_offset >= Offset::ZERO,
            "epoch {epoch} cannot start at {start_offset}"
        );
        if self.entries.last().is_some_and(|last| last.epoch == epoch && last.start_offset <= start_offset) {
            return false;
        }
        while self.entries.last().is_some_and(|last| last.epoch >= epoch || last.start_offset >= start_offset)
        {
            self.entries.pop();
        }
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    /// The largest epoch up to the one requested, and where it ends: the start of the next one, or the log end if it is
    /// the latest. `(NONE, NONE)` when nothing is known: no epoch requested, or one newer than all.
    ///
    /// An epoch older than all known answers itself and the start of the oldest: what it wrote was trimmed away, and a
    /// follower begins there.
    pub fn end_offset_for(&self, requested: LeaderEpoch, log_end: Offset) -> (LeaderEpoch, Offset) {
        let newer_at = self.entries.partition_point(|entry| entry.epoch <= requested);
        let (older, newer) = self.entries.split_at(newer_at);
        match (older.last(), newer.first()) {
            _ if requested == LeaderEpoch::NONE => (LeaderEpoch::NONE, Offset::NONE),
            (Some(floor), None) if floor.epoch == requested => (requested, log_end),
            (_, None) => (LeaderEpoch::NONE, Offset::NONE),
            (Some(floor), Some(next)) => (floor.epoch, next.start_offset),
            (None, Some(oldest)) => (requested, oldest.start_offset),
        }
    }

    /// The epoch that wrote `offset`, or would if it is the log end; `None` before the oldest.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let newer_at = self.entries.partition_point(|entry| entry.start_offset <= offset);
        self.entries[..newer_at].last().map(|entry| entry.epoch)
    }

    /// Drops the epochs that begin at or behind `end`, as the log was cut there. Returns whether anything changed.
    pub fn truncate_to(&mut self, end: Offset) -> bool {
        let kept = self.entries.partition_point(|entry| entry.start_offset < end);
        let changed = kept < self.entries.len();
        self.entries.truncate(kept);
        changed
    }

    /// Makes the history begin at `start`, as the log does: of the epochs that begin at or before it the last one stays,
    /// and is said to begin there. Returns whether anything changed.
    pub fn trim_to(&mut self, start: Offset) -> bool {
        let gone = self.entries.partition_point(|entry| entry.start_offset <= start);
        let Some(first) = gone.checked_sub(1) else { return false };
        let changed = first > 0 || self.entries[first].start_offset != start;
        self.entries.drain(..first);
        self.entries[0].start_offset = start;
        changed
    }

    /// The newest epoch.
    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// The epochs, oldest first.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// Writes `leader-epoch-checkpoint`: `0`, the number of entries, then `epoch startOffset` per line.
    pub fn encode(&self) -> String {
        encode_lines(self.entries.iter().map(|entry| format!("{} {}", entry.epoch, entry.start_offset)))
    }

    /// Reads `leader-epoch-checkpoint`.
    ///
    /// # Errors
    /// The first line that is not what it should be; epochs and offsets that do not grow are such lines as well.
    pub fn decode(bytes: &[u8]) -> Result<LeaderEpochs, MalformedLine> {
        let mut last: Option<EpochEntry> = None;
        let expected = "an epoch and a start offset, both above those of the line before";
        let entries = decode_lines(bytes, expected, |words| {
            let [epoch, start_offset] = words else { return None };
            let entry = EpochEntry {
                epoch: LeaderEpoch(epoch.parse().ok()?),
                start_offset: Offset(start_offset.parse().ok()?),
            };
            let grows = match last {
                Some(last) => entry.epoch > last.epoch && entry.start_offset > last.start_offset,
                None => entry.epoch.value() >= 0 && entry.start_offset >= Offset::ZERO,
            };
            last = Some(entry);
            grows.then_some(entry)
        })?;
        Ok(LeaderEpochs { entries })
    }
}

#[cfg(test)]
mod tests;
