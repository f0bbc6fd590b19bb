//! Where the numbered entries of a log lie: which index is which batch or side entry, in which segment.
//!
//! A batch is an entry; so is a *side entry*, which takes no offset and no byte of the `.log` (Raft's own: blank,
//! membership, retention). Their indexes have no gap. Index and offset are never derived from each other by counting over
//! files: each segment's side file says the entry before the segment's first, each side entry its index and the absolute
//! next offset, each batch its offsets.
//!
//! ```text
//!  segment 0            segment 40                        (first = prev + 1)
//!  prev none            prev 4@2
//!  [0 side][1][2][3][4] [5 side][6 side][7][8 side][9] ...
//! ```
//!
//! Every reign begins with a side entry, so terms change at side entries alone, and the term of any index is that of the
//! newest side entry at or before it. Pure: the files are `side_file`'s and [`crate::log`]'s business.

use std::collections::VecDeque;

use bytes::Bytes;
use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, Offset};

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryBody {
    /// A whole batch, with its offset and epoch.
    Batch(Bytes),
    /// What only its writer understands.
    Side {
        /// Of which kind.
        kind: u8,
        /// Its bytes.
        body: Bytes,
    },
}

/// An entry as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Which it is.
    pub id: EntryId,
    /// A batch's first offset; of a side entry the next offset when it was written.
    pub base_offset: Offset,
    /// The next offset behind it (exclusive, absolute).
    pub end_offset: Offset,
    /// What it holds.
    pub body: EntryBody,
}

/// An entry that takes no offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideEntry {
    /// Which it is.
    pub id: EntryId,
    /// The next offset when it was written (absolute).
    pub next_offset: Offset,
    /// Of which kind; its writer's business.
    pub kind: u8,
    /// Its bytes.
    pub body: Bytes,
}

/// Where an entry lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Side(SideEntry),
    Batch { base: Offset, end: Offset },
}

/// The entries of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEntries {
    /// The segment's base offset.
    pub(crate) base: Offset,
    /// The entry before its first.
    pub(crate) prev: Option<EntryId>,
    /// Ascending by index.
    pub(crate) sides: Vec<SideEntry>,
    /// Per batch: its exclusive end, less the segment's base.
    pub(crate) ends: Vec<u32>,
    /// Bytes of the side file: header and records.
    pub(crate) side_bytes: u64,
}

impl SegmentEntries {
    pub(crate) fn new(base: Offset, prev: Option<EntryId>) -> SegmentEntries {
        SegmentEntries { base, prev, sides: Vec::new(), ends: Vec::new(), side_bytes: 0 }
    }

    /// Index of its first entry, whether it has one or not.
    pub(crate) fn first(&self) -> EntryIndex {
        self.prev.map_or(EntryIndex(0), |prev| prev.index.next())
    }

    /// Index behind its last entry.
    pub(crate) fn after_last(&self) -> EntryIndex {
        EntryIndex(self.first().value() + (self.sides.len() + self.ends.len()) as u64)
    }

    pub(crate) fn last(&self) -> Option<EntryId> {
        match self.after_last().value().checked_sub(1).map(EntryIndex) {
            Some(index) if index >= self.first() => Some(EntryId { term: self.term_at(index)?, index }),
            _ => self.prev,
        }
    }

    /// Exclusive end of its batches.
    pub(crate) fn end_offset(&self) -> Offset {
        self.ends.last().map_or(self.base, |end| self.base + i64::from(*end))
    }

    fn sides_before(&self, index: EntryIndex) -> usize {
        self.sides.partition_point(|side| side.id.index < index)
    }

    /// The term of an entry of this segment.
    fn term_at(&self, index: EntryIndex) -> Option<LeaderEpoch> {
        let newest = self.sides.partition_point(|side| side.id.index <= index).checked_sub(1);
        newest.map(|at| self.sides[at].id.term).or(self.prev.map(|prev| prev.term))
    }

    fn place(&self, index: EntryIndex) -> Option<Place> {
        let before = self.sides_before(index);
        if let Some(side) = self.sides.get(before).filter(|side| side.id.index == index) {
            return Some(Place::Side(side.clone()));
        }
        let ordinal = usize::try_from(index.value().checked_sub(self.first().value())?).ok()? - before;
        let end = self.base + i64::from(*self.ends.get(ordinal)?);
        let base =
            ordinal.checked_sub(1).map_or(self.base, |before| self.base + i64::from(self.ends[before]));
        Some(Place::Batch { base, end })
    }

    /// Index of the newest entry such that no batch up to it ends beyond `end`.
    fn last_within(&self, end: Offset) -> Option<EntryIndex> {
        let within = self.ends.partition_point(|batch_end| self.base + i64::from(*batch_end) <= end);
        let behind = if within == self.ends.len() { self.after_last() } else { self.index_of_batch(within) };
        behind.value().checked_sub(1).map(EntryIndex)
    }

    /// Index of the batch with this ordinal.
    fn index_of_batch(&self, ordinal: usize) -> EntryIndex {
        let mut index = self.first().value() + ordinal as u64;
        for side in &self.sides {
            if side.id.index.value() > index {
                break;
            }
            index += 1;
        }
        EntryIndex(index)
    }

    /// Drops what is behind `last`.
    fn truncate_after(&mut self, last: Option<EntryIndex>) {
        let keep = |index: EntryIndex| last.is_some_and(|last| index <= last);
        let sides = self.sides.partition_point(|side| keep(side.id.index));
        let kept = last.map_or(0, |last| (last.value() + 1).saturating_sub(self.first().value()) as usize);
        self.ends.truncate(kept.saturating_sub(sides));
        self.sides.truncate(sides);
    }
}

/// All numbered entries of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryMap {
    /// By base offset; the last is the active segment's. Never empty.
    segments: VecDeque<SegmentEntries>,
}

/// What a truncation leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Exclusive end of the batches that stay.
    pub(crate) end: Offset,
    /// Base of the segment that becomes the active one.
    pub(crate) base: Offset,
}

impl EntryMap {
    /// The map of these segments: each begins where the one before ends.
    pub(crate) fn new(segments: Vec<SegmentEntries>) -> EntryMap {
        assert!(!segments.is_empty(), "a log with entries has an active segment");
        EntryMap { segments: segments.into() }
    }

    /// The entry before the first that is still numbered: all at and below it are only data.
    pub(crate) fn purged(&self) -> Option<EntryId> {
        self.segments[0].prev
    }

    /// Base offset of the oldest segment whose entries are numbered.
    pub(crate) fn first_base(&self) -> Offset {
        self.segments[0].base
    }

    /// The newest entry; the purge point if there is none behind it.
    pub(crate) fn last(&self) -> Option<EntryId> {
        self.active().last()
    }

    /// Index of the next entry.
    pub(crate) fn next_index(&self) -> EntryIndex {
        self.active().after_last()
    }

    pub(crate) fn active(&self) -> &SegmentEntries {
        self.segments.back().expect("never empty")
    }

    pub(crate) fn active_mut(&mut self) -> &mut SegmentEntries {
        self.segments.back_mut().expect("never empty")
    }

    fn segment_of(&self, index: EntryIndex) -> Option<&SegmentEntries> {
        let at = self.segments.partition_point(|segment| segment.first() <= index).checked_sub(1)?;
        self.segments.get(at).filter(|segment| index < segment.after_last())
    }

    /// An entry that is there, or the purge point.
    pub(crate) fn id(&self, index: EntryIndex) -> Option<EntryId> {
        match self.segment_of(index) {
            Some(segment) => Some(EntryId { term: segment.term_at(index)?, index }),
            None => self.purged().filter(|purged| purged.index == index),
        }
    }

    pub(crate) fn place(&self, index: EntryIndex) -> Option<Place> {
        self.segment_of(index)?.place(index)
    }

    /// The next offset behind an entry that is there, or behind the purge point.
    pub(crate) fn end(&self, index: EntryIndex) -> Option<Offset> {
        match self.place(index) {
            Some(Place::Side(side)) => Some(side.next_offset),
            Some(Place::Batch { end, .. }) => Some(end),
            None if self.purged().is_some_and(|purged| purged.index == index) => Some(self.first_base()),
            None => None,
        }
    }

    /// Index of the newest entry such that no batch up to it ends beyond `end`.
    pub(crate) fn last_within(&self, end: Offset) -> Option<EntryIndex> {
        let at = self.segments.partition_point(|segment| segment.base <= end).saturating_sub(1);
        self.segments[at].last_within(end)
    }

    /// All side entries, oldest first.
    pub(crate) fn sides(&self) -> impl Iterator<Item = &SideEntry> {
        self.segments.iter().flat_map(|segment| &segment.sides)
    }

    pub(crate) fn push_batch(&mut self, end: Offset) {
        let active = self.active_mut();
        let relative = u32::try_from(end - active.base).expect("a segment's offsets fit its index");
        active.ends.push(relative);
    }

    /// The active segment is sealed; the next begins at `base`.
    pub(crate) fn roll(&mut self, base: Offset) {
        let prev = self.last();
        self.segments.push_back(SegmentEntries::new(base, prev));
    }

    /// Drops all entries behind `last`, which must be there, or be the purge point, or none if nothing was ever purged.
    pub(crate) fn truncate_after(&mut self, last: Option<EntryIndex>) -> Cut {
        while self.segments.len() > 1 && self.active().prev.map(|prev| prev.index) > last {
            self.segments.pop_back();
        }
        let active = self.active_mut();
        active.truncate_after(last);
        Cut { end: active.end_offset(), base: active.base }
    }

    /// The last entry of the newest sealed segment that lies wholly at or below `index`.
    pub(crate) fn purge_candidate(&self, index: EntryIndex) -> Option<EntryId> {
        let sealed = self.segments.iter().skip(1).filter_map(|segment| segment.prev);
        sealed
            .take_while(|prev| prev.index <= index)
            .last()
            .filter(|candidate| Some(*candidate) > self.purged())
    }

    /// The last entry of the oldest sealed segment that ends behind `after`.
    pub(crate) fn sealed_after(&self, after: Option<EntryId>) -> Option<EntryId> {
        self.segments.iter().skip(1).filter_map(|segment| segment.prev).find(|last| Some(*last) > after)
    }

    /// Where the segments up to an entry end, if one ends with it: the purge point, or the last entry of a sealed segment.
    pub(crate) fn end_of_sealed(&self, upto: EntryId) -> Option<Offset> {
        self.segments.iter().find(|segment| segment.prev == Some(upto)).map(|segment| segment.base)
    }

    /// Base of the oldest segment, if it is sealed and all its entries are at or below `upto`.
    pub(crate) fn oldest_within(&self, upto: EntryId) -> Option<Offset> {
        let end = self.segments.get(1)?.prev;
        end.filter(|end| end.index <= upto.index).map(|_| self.segments[0].base)
    }

    /// Forgets the entries of the oldest segment, the one at `base`, if that is not the active one.
    pub(crate) fn purge_below(&mut self, base: Offset) {
        if self.segments.len() > 1 && self.segments[0].base == base {
            self.segments.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries as a plain list.
    #[derive(Default)]
    struct Model {
        entries: Vec<(EntryId, Offset, Option<u8>)>,
        purged: Option<EntryId>,
    }

    fn check(map: &EntryMap, model: &Model) {
        assert_eq!(map.purged(), model.purged);
        assert_eq!(map.last(), model.entries.last().map(|(id, ..)| *id).or(model.purged));
        let mut before = map.first_base();
        for (id, end, side) in &model.entries {
            assert_eq!(map.id(id.index), Some(*id));
            assert_eq!(map.end(id.index), Some(*end));
            match (map.place(id.index), side) {
                (Some(Place::Side(found)), Some(kind)) => {
                    assert_eq!((found.kind, found.next_offset), (*kind, *end))
                }
                (Some(Place::Batch { base, end: found }), None) => assert_eq!((base, found), (before, *end)),
                other => panic!("{id}: {other:?}"),
            }
            before = *end;
        }
        assert_eq!(map.place(map.next_index()), None);
        let ends: Vec<Offset> = model.entries.iter().map(|(_, end, _)| *end).collect();
        for end in ends {
            let wanted =
                model.entries.iter().take_while(|(_, e, _)| *e <= end).last().map(|(id, ..)| id.index);
            assert_eq!(map.last_within(end), wanted, "within {end}");
        }
    }

    /// Every mixture of batches, side entries, rolls, truncations and purges agrees with a plain list.
    #[test]
    fn the_map_is_a_list() {
        let mut seed = 7u64;
        let mut draw = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..300 {
            let mut map = EntryMap::new(vec![SegmentEntries::new(Offset(0), None)]);
            let mut model = Model::default();
            let (mut term, mut end) = (LeaderEpoch(0), Offset(0));
            for step in 0..60 {
                let index = map.next_index();
                match draw(10) {
                    0 | 1 => {
                        term = if draw(2) == 0 { term.next() } else { term };
                        let id = EntryId { term, index };
                        map.active_mut().sides.push(SideEntry {
                            id,
                            next_offset: end,
                            kind: step,
                            body: Bytes::new(),
                        });
                        model.entries.push((id, end, Some(step)));
                    }
                    2..=5 if map.last().is_some() => {
                        end = end + 1 + draw(5) as i64;
                        map.push_batch(end);
                        model.entries.push((EntryId { term, index }, end, None));
                    }
                    6 if map.active().end_offset() > map.active().base => map.roll(end),
                    7 => {
                        let keep = draw(model.entries.len() as u64 + 1) as usize;
                        model.entries.truncate(keep);
                        let last = model.entries.last().map(|(id, ..)| *id).or(model.purged);
                        let cut = map.truncate_after(last.map(|last| last.index));
                        end = model.entries.last().map_or(map.first_base(), |(_, end, _)| *end);
                        assert_eq!(cut.end, end);
                        term = last.map_or(LeaderEpoch(0), |last| last.term);
                    }
                    8 => {
                        let upto = EntryIndex(draw(index.value() + 1));
                        if let Some(candidate) = map.purge_candidate(upto) {
                            assert!(candidate.index <= upto);
                            while let Some(base) = map.oldest_within(candidate) {
                                map.purge_below(base);
                            }
                            model.entries.retain(|(id, ..)| id.index > candidate.index);
                            model.purged = Some(candidate);
                        }
                    }
                    _ => {}
                }
                check(&map, &model);
            }
        }
    }
}
