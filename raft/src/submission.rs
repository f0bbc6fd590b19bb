//! Batches on their way to their place.
//!
//! A group has one submission in flight until its place is fixed; arrivals merge into the next. openraft may refuse a
//! submission as a whole (not the leader, a stale lease), and then nothing of it may have left a trace: so producers are
//! judged when a submission is formed, against the log and what the submission itself adds ([`Forming`]), and the log
//! learns of them only in the store's append, where order is final.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::BytesMut;
use ouzel_model::batch::Header;
use ouzel_model::{EntryId, LeaderEpoch, Offset, ProducerId, TimestampMs};
use ouzel_storage::{AppendError, Appended, Log, ProducerVerdict, Producers};
use tokio::sync::Notify;

use crate::planted::{self, Planted};
use crate::replicated_log::{AppendRefused, Placed};

/// Batches in one submission at most; openraft appends a message's entries in one go below its own limit.
pub(crate) const SUBMISSION_BATCHES_MAX: usize = 512;
/// Bytes at which a submission takes no more batches.
pub(crate) const SUBMISSION_BYTES_MAX: usize = 4 << 20;

/// One submission: its batches, and what became of each.
pub(crate) struct Ticket {
    /// The reign it was formed in; it takes no place in another.
    term: LeaderEpoch,
    items: RefCell<Vec<Item>>,
    /// Batches whose fate is open.
    open: Cell<usize>,
    /// A batch was refused at its place: the ones behind it are as well, or producers' sequences would have gaps.
    is_withdrawn: Cell<bool>,
    settled: Notify,
}

struct Item {
    batch: Option<BytesMut>,
    now: TimestampMs,
    outcome: Outcome,
}

/// What became of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Still with openraft.
    Open,
    /// openraft did not take it: it is as if it had never been submitted.
    Returned,
    /// It has its place.
    Placed(Appended),
    /// It was numbered and could not be placed.
    Refused(AppendRefused),
}

impl Ticket {
    pub(crate) fn new(term: LeaderEpoch, batches: Vec<(BytesMut, TimestampMs)>) -> Rc<Ticket> {
        let items = batches
            .into_iter()
            .map(|(batch, now)| Item { batch: Some(batch), now, outcome: Outcome::Returned })
            .collect();
        Rc::new(Ticket {
            term,
            items: RefCell::new(items),
            open: Cell::new(0),
            is_withdrawn: Cell::new(false),
            settled: Notify::new(),
        })
    }

    /// Hands the batches out, all of them unplaced: at first, and again when all were returned.
    pub(crate) fn submit(self: &Rc<Ticket>) -> Vec<Submitted> {
        let mut items = self.items.borrow_mut();
        self.open.set(items.len());
        items
            .iter_mut()
            .enumerate()
            .map(|(nth, item)| {
                debug_assert!(matches!(item.outcome, Outcome::Returned) && item.batch.is_some());
                item.outcome = Outcome::Open;
                Submitted { ticket: self.clone(), nth }
            })
            .collect()
    }

    /// Resolves when every batch has its fate.
    pub(crate) async fn settled(&self) {
        while self.open.get() > 0 {
            self.settled.notified().await;
        }
    }

    /// Whether openraft took none of it.
    pub(crate) fn is_returned(&self) -> bool {
        self.items.borrow().iter().all(|item| matches!(item.outcome, Outcome::Returned))
    }

    pub(crate) fn outcome(&self, nth: usize) -> Outcome {
        self.items.borrow()[nth].outcome.clone()
    }

    /// What openraft has not taken is to come back before anything its producers have sent behind it.
    pub(crate) fn turn_away_returned(&self, log: &Log) {
        for item in self.items.borrow().iter().filter(|item| matches!(item.outcome, Outcome::Returned)) {
            if let Some(batch) = &item.batch {
                turn_away(log, batch);
            }
        }
    }

    fn settle(&self, nth: usize, outcome: Outcome) {
        let item = &mut self.items.borrow_mut()[nth];
        if !matches!(item.outcome, Outcome::Open) {
            return;
        }
        item.outcome = outcome;
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 {
            self.settled.notify_one();
        }
    }
}

/// One batch of a submission, as openraft carries it. Dropped without a place, it is returned.
pub(crate) struct Submitted {
    ticket: Rc<Ticket>,
    nth: usize,
}

impl Submitted {
    /// Gives the batch the place `id`, or says no: then the entry is withdrawn, and so are the batches behind it.
    pub(crate) fn place(self, log: &Log, id: EntryId) -> Result<(), AppendRefused> {
        let ticket = self.ticket.clone();
        let (batch, now) = self.take();
        let header = Header::parse(&batch);
        let outcome = match &header {
            Ok(header) => self.try_place(log, id, header, batch, now),
            Err(error) => Err(AppendRefused::Invalid(error.to_string())),
        };
        let refused = outcome.as_ref().err().cloned();
        if refused.is_some() {
            ticket.is_withdrawn.set(true);
        }
        if let (Some(AppendRefused::NotLeader | AppendRefused::DiskLow), Ok(header)) = (&refused, &header) {
            // It will come back, and before anything its producer has sent behind it.
            log.turn_away(header);
        }
        ticket.settle(self.nth, outcome.map_or_else(Outcome::Refused, Outcome::Placed));
        refused.map_or(Ok(()), Err)
    }

    fn take(&self) -> (BytesMut, TimestampMs) {
        let item = &mut self.ticket.items.borrow_mut()[self.nth];
        (item.batch.take().expect("a batch is placed once"), item.now)
    }

    fn try_place(
        &self,
        log: &Log,
        id: EntryId,
        header: &Header,
        batch: BytesMut,
        now: TimestampMs,
    ) -> Result<Appended, AppendRefused> {
        if self.ticket.is_withdrawn.get() || self.ticket.term != id.term {
            return Err(AppendRefused::NotLeader);
        }
        // Judged already; what is in the log counts, whatever happened since.
        if !planted::is(Planted::ForgottenProducers) {
            refusal_of(log.check_producer(header)).map_or(Ok(()), Err)?;
        }
        Ok(log.place_batch(id, batch, now)?)
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        self.ticket.settle(self.nth, Outcome::Returned);
    }
}

impl From<AppendError> for AppendRefused {
    fn from(error: AppendError) -> AppendRefused {
        match error {
            AppendError::Fenced(fenced) => AppendRefused::Fenced(fenced),
            AppendError::DiskLow => AppendRefused::DiskLow,
            AppendError::NotABatch(reason) | AppendError::OutOfOrder(reason) => {
                AppendRefused::Invalid(reason)
            }
        }
    }
}

/// Takes note of a batch that is refused for now: see [`Log::turn_away`].
pub(crate) fn turn_away(log: &Log, batch: &[u8]) {
    if let Ok(header) = Header::parse(batch) {
        log.turn_away(&header);
    }
}

/// `None` for a batch that may be appended.
fn refusal_of(verdict: ProducerVerdict) -> Option<AppendRefused> {
    match verdict {
        ProducerVerdict::Append => None,
        // Its original stands in the log: the producer will be told so when it asks again.
        ProducerVerdict::Duplicate(_) => Some(AppendRefused::NotLeader),
        ProducerVerdict::OutOfOrder { producer_id, expected, found } => {
            Some(AppendRefused::OutOfOrderSequence { producer_id, expected, found })
        }
        ProducerVerdict::StaleEpoch { producer_id, known, found } => {
            Some(AppendRefused::StaleProducerEpoch { producer_id, current: known, found })
        }
    }
}

/// What is to become of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It is the nth of the submission.
    Submit(usize),
    /// It is in the log already.
    InLog(Placed),
    /// It is the nth of this very submission already.
    InSubmission(usize),
    /// No.
    Refused(AppendRefused),
}

/// A submission being formed: judges each batch by the log and by the batches before it.
pub(crate) struct Forming<'log> {
    log: &'log Log,
    /// The producers the submission has met, as they will be when it has its place.
    producers: Producers,
    met: BTreeSet<ProducerId>,
    /// Where the next batch would lie if nothing comes between; only tells batches of the submission apart.
    next: Offset,
    start: Offset,
    /// By such an offset.
    nth_at: BTreeMap<Offset, usize>,
    batches: Vec<(BytesMut, TimestampMs)>,
    bytes: usize,
}

impl<'log> Forming<'log> {
    pub(crate) fn new(log: &'log Log) -> Forming<'log> {
        let start = log.offsets().log_end;
        Forming {
            log,
            producers: Producers::new(start),
            met: BTreeSet::new(),
            next: start,
            start,
            nth_at: BTreeMap::new(),
            batches: Vec::new(),
            bytes: 0,
        }
    }

    /// Whether it takes another batch.
    pub(crate) fn has_room(&self) -> bool {
        self.batches.len() < SUBMISSION_BATCHES_MAX && self.bytes < SUBMISSION_BYTES_MAX
    }

    /// Judges one more batch, and takes it if it is to be submitted.
    pub(crate) fn judge(&mut self, batch: &mut BytesMut, now: TimestampMs) -> Judged {
        let mut header = match Header::parse(batch) {
            Ok(header) => header,
            Err(error) => return Judged::Refused(AppendRefused::Invalid(error.to_string())),
        };
        if header.size_bytes() != batch.len() || header.last_offset_delta < 0 {
            let words = format!("a batch of {} bytes says it has {}", batch.len(), header.size_bytes());
            return Judged::Refused(AppendRefused::Invalid(words));
        }
        if header.has_producer()
            && self.met.insert(header.producer_id)
            && !planted::is(Planted::ForgottenProducers)
            && let Some(entry) = self.log.producer(header.producer_id)
        {
            self.producers.insert(header.producer_id, entry);
        }
        let verdict = self.producers.check(&header);
        if let ProducerVerdict::Duplicate(known) = verdict {
            let first = known.first_offset();
            if first >= self.start {
                return Judged::InSubmission(self.nth_at[&first]);
            }
            return Judged::InLog(Placed {
                base_offset: first,
                last_offset: known.last_offset,
                log_append_time: TimestampMs::NONE,
                duplicate: true,
            });
        }
        if let Some(refused) = refusal_of(verdict) {
            return Judged::Refused(refused);
        }
        if let Some(expected) = self.awaited_before(&header) {
            let (producer_id, found) = (header.producer_id, header.base_sequence);
            return Judged::Refused(AppendRefused::OutOfOrderSequence { producer_id, expected, found });
        }
        header.base_offset = self.next;
        self.producers.update(&header, now);
        let nth = self.batches.len();
        self.nth_at.insert(self.next, nth);
        self.next = header.next_offset();
        self.bytes += batch.len();
        self.batches.push((std::mem::take(batch), now));
        Judged::Submit(nth)
    }

    /// The sequence of a batch that was turned away and must come first, if neither log nor submission know the producer.
    fn awaited_before(&self, header: &Header) -> Option<i32> {
        self.producers.get(header.producer_id).is_none().then(|| self.log.awaited_before(header)).flatten()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(crate) fn into_ticket(self, term: LeaderEpoch) -> Rc<Ticket> {
        Ticket::new(term, self.batches)
    }
}
