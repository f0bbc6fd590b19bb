//! Who owns what an operation of the ring works on: one slot per operation.
//!
//! ```text
//!   Free ──insert──► Waiting ──complete──► Done ──take──► Free
//!                       │                    └──abandon─► Free
//!                    abandon (its future was dropped)
//!                       ▼
//!                    Orphaned ──complete──► Free
//! ```
//!
//! The slot, not the future, owns the buffers and the file until the kernel has answered; so a dropped future
//! frees nothing the kernel may still touch. A key carries the slot's generation: an answer for an earlier
//! tenant of the slot would be a broken promise of the kernel, and stops the core.

use std::task::Waker;

/// Names one operation; also as the ring's `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    pub(crate) fn to_user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_user_data(user_data: u64) -> Self {
        Self { index: user_data as u32, generation: (user_data >> 32) as u32 }
    }
}

#[derive(Debug)]
pub(crate) struct Slots<K> {
    slots: Vec<Slot<K>>,
    free: Vec<u32>,
    in_flight: usize,
}

#[derive(Debug)]
struct Slot<K> {
    generation: u32,
    state: State<K>,
}

#[derive(Debug)]
enum State<K> {
    Free,
    Waiting { keep: K, waker: Option<Waker> },
    Done { keep: K, result: i32 },
    Orphaned { keep: K },
}

/// What to do, outside of any borrow, about an answer: wake the waiter, or let go of what an orphan kept.
#[derive(Debug)]
#[must_use = "a waiter must be woken"]
pub(crate) enum Completed<K> {
    Wake(Option<Waker>),
    Release(K),
}

impl<K> Slots<K> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), in_flight: 0 }
    }

    /// Operations whose answer is still due.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn insert(&mut self, keep: K) -> Key {
        self.in_flight += 1;
        let state = State::Waiting { keep, waker: None };
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.generation = slot.generation.wrapping_add(1);
            slot.state = state;
            return Key { index, generation: slot.generation };
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 operations in flight");
        assert!(index < u32::MAX, "the last index is no slot's");
        self.slots.push(Slot { generation: 0, state });
        Key { index, generation: 0 }
    }

    /// What the operation works on, while it waits.
    pub(crate) fn keep_mut(&mut self, key: Key) -> Option<&mut K> {
        match &mut self.slot(key).state {
            State::Waiting { keep, .. } => Some(keep),
            _ => None,
        }
    }

    /// Takes the answer and gives back what the operation worked on; else remembers whom to wake, and returns the
    /// waker that this replaces, to be dropped outside of any borrow.
    pub(crate) fn poll(&mut self, key: Key, new: &Waker) -> Result<(i32, K), Option<Waker>> {
        let slot = self.slot(key);
        match std::mem::replace(&mut slot.state, State::Free) {
            State::Done { keep, result } => {
                self.free.push(key.index);
                Ok((result, keep))
            }
            State::Waiting { keep, waker } => {
                let (waker, replaced) = match waker {
                    Some(waker) if waker.will_wake(new) => (waker, None),
                    replaced => (new.clone(), replaced),
                };
                slot.state = State::Waiting { keep, waker: Some(waker) };
                Err(replaced)
            }
            State::Free | State::Orphaned { .. } => unreachable!("an operation polled after its end"),
        }
    }

    /// Notes the kernel's answer.
    pub(crate) fn complete(&mut self, key: Key, result: i32) -> Completed<K> {
        self.in_flight -= 1;
        let slot = self.slot(key);
        match std::mem::replace(&mut slot.state, State::Free) {
            State::Waiting { keep, waker } => {
                slot.state = State::Done { keep, result };
                Completed::Wake(waker)
            }
            State::Orphaned { keep } => {
                self.free.push(key.index);
                Completed::Release(keep)
            }
            State::Free | State::Done { .. } => unreachable!("the kernel answered one operation twice"),
        }
    }

    /// Gives an operation up. Returns what is to be dropped outside of any borrow: what it worked on, if the kernel
    /// is done with it, and whom it would have woken.
    #[must_use = "to be dropped outside of any borrow"]
    pub(crate) fn abandon(&mut self, key: Key) -> (Option<K>, Option<Waker>) {
        let slot = self.slot(key);
        match std::mem::replace(&mut slot.state, State::Free) {
            State::Done { keep, .. } => {
                self.free.push(key.index);
                (Some(keep), None)
            }
            State::Waiting { keep, waker } => {
                slot.state = State::Orphaned { keep };
                (None, waker)
            }
            State::Free | State::Orphaned { .. } => unreachable!("an operation given up twice"),
        }
    }

    fn slot(&mut self, key: Key) -> &mut Slot<K> {
        let slot = &mut self.slots[key.index as usize];
        assert_eq!(slot.generation, key.generation, "an answer for an earlier tenant of a ring slot");
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn kept(count: &Rc<()>) -> usize {
        Rc::strong_count(count) - 1
    }

    #[test]
    fn an_answer_waits_for_its_future() {
        let (mut slots, buffer) = (Slots::new(), Rc::new(()));
        let key = slots.insert(buffer.clone());
        assert!(slots.poll(key, Waker::noop()).is_err());
        assert!(matches!(slots.complete(key, 7), Completed::Wake(Some(_))));
        assert_eq!(slots.in_flight(), 0);
        assert_eq!(slots.poll(key, Waker::noop()).ok().map(|(result, _)| result), Some(7));
        assert!(
            slots.insert(buffer).generation > key.generation,
            "the slot is used again, under another name"
        );
    }

    #[test]
    fn an_orphan_keeps_its_buffer_until_the_answer() {
        let (mut slots, buffer) = (Slots::new(), Rc::new(()));
        let key = slots.insert(buffer.clone());
        assert!(slots.abandon(key).0.is_none());
        assert_eq!((kept(&buffer), slots.in_flight()), (1, 1));
        drop(slots.complete(key, 0));
        assert_eq!((kept(&buffer), slots.in_flight()), (0, 0));
    }

    #[test]
    fn an_answer_nobody_wants_is_let_go() {
        let (mut slots, buffer) = (Slots::new(), Rc::new(()));
        let key = slots.insert(buffer.clone());
        assert!(matches!(slots.complete(key, 0), Completed::Wake(None)));
        drop(slots.abandon(key));
        assert_eq!(kept(&buffer), 0);
    }

    #[test]
    #[should_panic(expected = "earlier tenant")]
    fn an_answer_for_an_earlier_tenant_stops_the_core() {
        let mut slots = Slots::new();
        let first = slots.insert(());
        drop(slots.abandon(first));
        drop(slots.complete(first, 0));
        slots.insert(());
        drop(slots.complete(first, 0));
    }

    #[test]
    fn keys_survive_user_data() {
        let key = Key { index: 0xfedc_ba98, generation: 0x7654_3210 };
        assert_eq!(Key::from_user_data(key.to_user_data()), key);
    }
}
