//! The newest batches of all logs of a core, in memory: most consumers read what was written a moment ago.
//!
//! One budget per core, first in first out over all its logs, evicted explicitly at the append that goes beyond it.
//! A batch that is not written yet is never evicted: the tail is then its only copy.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use ouzel_model::Offset;

/// One core's budget.
#[derive(Clone)]
pub struct TailCache {
    inner: Rc<Budget>,
}

struct Budget {
    bytes_max: u64,
    bytes: Cell<u64>,
    /// Oldest first, over all logs. An entry whose batch was cleared with its log is skipped when its turn comes.
    order: RefCell<VecDeque<(Weak<Tail>, u64)>>,
    next_ticket: Cell<u64>,
}

/// The newest batches of one log.
pub struct Tail {
    budget: Rc<Budget>,
    batches: RefCell<VecDeque<Cached>>,
    /// Below this offset everything is written.
    written_end: Cell<Offset>,
}

struct Cached {
    ticket: u64,
    base_offset: Offset,
    last_offset: Offset,
    bytes: Bytes,
}

impl TailCache {
    /// A cache of `bytes_max`; 0 keeps only what is not yet written.
    pub fn new(bytes_max: u64) -> TailCache {
        let inner =
            Budget { bytes_max, bytes: Cell::new(0), order: RefCell::default(), next_ticket: Cell::new(0) };
        TailCache { inner: Rc::new(inner) }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.inner.bytes.get()
    }

    /// A log's part of the cache; `written_end` is where its log ends on the disk.
    pub fn tail(&self, written_end: Offset) -> Rc<Tail> {
        Rc::new(Tail {
            budget: self.inner.clone(),
            batches: RefCell::default(),
            written_end: Cell::new(written_end),
        })
    }
}

impl Budget {
    /// Evicts the oldest until the budget holds, or the oldest is not written yet.
    fn keep(&self) {
        let mut order = self.order.borrow_mut();
        while self.bytes.get() > self.bytes_max {
            let Some((tail, ticket)) = order.front() else { return };
            // An entry whose batch went with its log, or was cut, has had its turn already.
            if let Some(tail) = tail.upgrade()
                && tail.holds(*ticket)
                && !tail.evict_front()
            {
                return;
            }
            order.pop_front();
        }
    }
}

impl Tail {
    /// Adds the batch at the end of the log.
    pub fn push(self: &Rc<Self>, base_offset: Offset, last_offset: Offset, bytes: Bytes) {
        let budget = &self.budget;
        let ticket = budget.next_ticket.get();
        budget.next_ticket.set(ticket + 1);
        budget.bytes.set(budget.bytes.get() + bytes.len() as u64);
        budget.order.borrow_mut().push_back((Rc::downgrade(self), ticket));
        self.batches.borrow_mut().push_back(Cached { ticket, base_offset, last_offset, bytes });
        budget.keep();
    }

    /// Everything below `end` is on the disk (in the page cache, at least).
    pub fn written(&self, end: Offset) {
        self.written_end.set(end);
        self.budget.keep();
    }

    /// Whole batches from the one that holds `from` up to `bound`, at most about `bytes_max`, and the offset behind them;
    /// `None` if `from` is older than the tail.
    pub fn read(
        &self,
        from: Offset,
        bound: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Option<(Vec<Bytes>, Offset)> {
        let batches = self.batches.borrow();
        if batches.front().is_none_or(|first| from < first.base_offset) {
            return None;
        }
        let first = batches.partition_point(|cached| cached.last_offset < from);
        let mut read = Vec::new();
        let (mut bytes, mut end) = (0, from);
        for cached in batches.range(first..) {
            let fits = bytes + cached.bytes.len() <= bytes_max || (at_least_one && read.is_empty());
            if cached.last_offset >= bound || !fits {
                break;
            }
            bytes += cached.bytes.len();
            end = cached.last_offset + 1;
            read.push(cached.bytes.clone());
        }
        Some((read, end))
    }

    /// Drops batches at and above `end`: they were truncated.
    pub fn truncate(&self, end: Offset) {
        let mut batches = self.batches.borrow_mut();
        while batches.back().is_some_and(|last| last.last_offset >= end) {
            let gone = batches.pop_back().map_or(0, |cached| cached.bytes.len() as u64);
            self.budget.bytes.set(self.budget.bytes.get() - gone);
        }
        self.written_end.set(self.written_end.get().min(end));
    }

    /// Drops batches that lie below `end` as a whole: compaction has made them anew.
    pub fn forget_below(&self, end: Offset) {
        let written_end = self.written_end.get();
        while self.batches.borrow().front().is_some_and(|first| first.last_offset < end.min(written_end)) {
            self.evict_front();
        }
    }

    fn holds(&self, ticket: u64) -> bool {
        self.batches.borrow().front().is_some_and(|first| first.ticket == ticket)
    }

    fn evict_front(&self) -> bool {
        let mut batches = self.batches.borrow_mut();
        match batches.front() {
            Some(first) if first.last_offset < self.written_end.get() => {
                self.budget.bytes.set(self.budget.bytes.get() - first.bytes.len() as u64);
                batches.pop_front();
                true
            }
            _ => false,
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let held: u64 = self.batches.get_mut().iter().map(|cached| cached.bytes.len() as u64).sum();
        self.budget.bytes.set(self.budget.bytes.get() - held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(tail: &Rc<Tail>, base: i64) {
        tail.push(Offset(base), Offset(base + 9), Bytes::from(vec![base as u8; 100]));
    }

    #[test]
    fn the_oldest_of_all_logs_goes_first_but_never_before_it_is_written() {
        let cache = TailCache::new(250);
        let (a, b) = (cache.tail(Offset(0)), cache.tail(Offset(0)));
        push(&a, 0);
        push(&b, 0);
        push(&a, 10);
        assert_eq!(cache.bytes(), 300, "nothing is written, nothing may go");
        b.written(Offset(10));
        assert_eq!(cache.bytes(), 300, "the oldest is a's");
        a.written(Offset(10));
        assert_eq!(cache.bytes(), 200);
        assert!(a.read(Offset(5), Offset(20), 1000, false).is_none());
        let (batches, end) = a.read(Offset(12), Offset(20), 1000, false).unwrap();
        assert_eq!((batches.len(), end), (1, Offset(20)));
        drop(b);
        assert_eq!(cache.bytes(), 100);
        push(&a, 20);
        push(&a, 30);
        a.truncate(Offset(25));
        assert_eq!(cache.bytes(), 100, "10 stays; 20..29 reaches beyond the cut");
    }

    #[test]
    fn reads_give_whole_batches_within_bound_and_budget() {
        let cache = TailCache::new(10_000);
        let tail = cache.tail(Offset(0));
        (0..5).for_each(|i| push(&tail, i * 10));
        let count =
            |from, bound, bytes, one| tail.read(Offset(from), Offset(bound), bytes, one).unwrap().0.len();
        assert_eq!(count(0, 50, 10_000, false), 5);
        assert_eq!(count(13, 50, 10_000, false), 4);
        assert_eq!(count(13, 35, 10_000, false), 2);
        assert_eq!(count(0, 50, 250, false), 2);
        assert_eq!(count(0, 50, 10, false), 0);
        assert_eq!(count(0, 50, 10, true), 1);
        assert_eq!(count(50, 50, 10, true), 0);
    }
}
