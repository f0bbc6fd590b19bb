//! The newest offset of each key of a log's dirty part, in bounded memory.
//!
//! Keys are held as hashes of 128 bits, 24 bytes a key with its offset, as Kafka holds them: two keys of one hash would
//! pass for one, and of 2^40 keys that happens with a chance of about 2^-49. The hash is seeded by chance, so nobody can
//! make keys that meet.

use std::hash::Hasher;

use ouzel_model::Offset;

/// A hash and its offset; [`FREE`] marks a slot nobody has.
#[derive(Clone, Copy)]
struct Slot {
    hash: [u64; 2],
    offset: i64,
}

const FREE: Slot = Slot { hash: [0; 2], offset: -1 };

/// Memory of one slot.
pub const SLOT_BYTES: usize = size_of::<Slot>();
/// Slots of the smallest table.
const SLOTS_MIN: usize = 64;

/// Hashed keys and their newest offsets. Grows as it fills, up to its bound; while it does, it takes half as much again.
pub struct KeyMap {
    seeds: [u64; 2],
    slots: Vec<Slot>,
    keys: usize,
    keys_max: usize,
    slots_max: usize,
    load_factor: f64,
    latest: Offset,
}

impl KeyMap {
    /// An empty map of at most `bytes_max` bytes, of which `load_factor` may be used (`log.cleaner.dedupe.buffer.size`,
    /// `log.cleaner.io.buffer.load.factor`). It has room for one key at least.
    pub fn new(bytes_max: usize, load_factor: f64, seeds: [u64; 2]) -> KeyMap {
        let load_factor = load_factor.clamp(0.01, 0.95);
        let slots_max = (bytes_max / SLOT_BYTES).max(2);
        let keys_max = ((slots_max as f64 * load_factor) as usize).max(1);
        KeyMap { seeds, slots: Vec::new(), keys: 0, keys_max, slots_max, load_factor, latest: Offset::NONE }
    }

    /// Whether no further key has room.
    pub fn is_full(&self) -> bool {
        self.keys >= self.keys_max
    }

    /// Keys in it.
    pub fn len(&self) -> usize {
        self.keys
    }

    /// Whether no key is in it.
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// How much of its room is used, 0 to 1.
    pub fn utilization(&self) -> f64 {
        self.keys as f64 / self.slots_max as f64
    }

    /// Up to which offset (inclusive) every key is in it; none at first.
    pub fn latest(&self) -> Offset {
        self.latest
    }

    /// Every key up to `offset` (inclusive) is in it.
    pub fn reached(&mut self, offset: Offset) {
        self.latest = self.latest.max(offset);
    }

    /// Notes the newest offset of a key; they come in the order of the log. Room is made also where there should be none:
    /// whoever respects the bound asks [`is_full`](Self::is_full) first.
    pub fn put(&mut self, key: &[u8], offset: Offset) {
        if (self.keys + 1) as f64 > self.slots.len() as f64 * self.load_factor {
            self.grow();
        }
        let slot = Slot { hash: self.hash(key), offset: offset.value() };
        if place(&mut self.slots, slot) {
            self.keys += 1;
        }
    }

    /// The newest offset of a key.
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = self.slots[seat(&self.slots, self.hash(key))];
        (slot.offset >= 0).then_some(Offset(slot.offset))
    }

    fn grow(&mut self) {
        let doubled = (self.slots.len() * 2).max(SLOTS_MIN.min(self.slots_max));
        // Beyond the bound only if it is full and somebody insists.
        let slots = if self.slots.len() < self.slots_max { doubled.min(self.slots_max) } else { doubled };
        let old = std::mem::replace(&mut self.slots, vec![FREE; slots]);
        for slot in old.into_iter().filter(|slot| slot.offset >= 0) {
            place(&mut self.slots, slot);
        }
    }

    /// SipHash under two seeds. It lives no longer than the map, so it may change with the standard library.
    fn hash(&self, key: &[u8]) -> [u64; 2] {
        self.seeds.map(|seed| {
            let mut hasher = std::hash::DefaultHasher::new();
            hasher.write_u64(seed);
            hasher.write(key);
            hasher.finish()
        })
    }
}

/// Puts a slot in its seat; says whether that was free.
fn place(slots: &mut [Slot], slot: Slot) -> bool {
    let at = seat(slots, slot.hash);
    let was_free = slots[at].offset < 0;
    slots[at] = slot;
    was_free
}

/// Where a hash sits, or would: the first free slot from its own place on. There always is one.
fn seat(slots: &[Slot], hash: [u64; 2]) -> usize {
    let mut at = ((u128::from(hash[0]) * slots.len() as u128) >> 64) as usize;
    while slots[at].offset >= 0 && slots[at].hash != hash {
        at = if at + 1 == slots.len() { 0 } else { at + 1 };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_map_at_every_size() {
        for bytes_max in [0, 100, 1 << 12, 1 << 20] {
            let mut map = KeyMap::new(bytes_max, 0.9, [1, 2]);
            let mut keys = 0;
            while !map.is_full() && keys < 30_000 {
                map.put(&u64::to_be_bytes(keys), Offset(keys as i64));
                keys += 1;
            }
            assert!(map.slots.len() * SLOT_BYTES <= bytes_max.max(2 * SLOT_BYTES), "{bytes_max}");
            for key in 0..keys {
                assert_eq!(map.get(&key.to_be_bytes()), Some(Offset(key as i64)));
            }
            assert_eq!(map.get(b"another"), None);
            assert_eq!(map.len() as u64, keys);
            map.put(&0u64.to_be_bytes(), Offset(99_999));
            assert_eq!((map.get(&0u64.to_be_bytes()), map.len() as u64), (Some(Offset(99_999)), keys));
        }
    }

    #[test]
    fn who_insists_gets_room_beyond_the_bound() {
        let mut map = KeyMap::new(10 * SLOT_BYTES, 0.5, [3, 4]);
        for key in 0..1000u64 {
            map.put(&key.to_be_bytes(), Offset(key as i64));
        }
        assert!(map.is_full());
        assert!((0..1000u64).all(|key| map.get(&key.to_be_bytes()) == Some(Offset(key as i64))));
    }
}
