//! The submission queue: one submission in flight until its place is fixed, arrivals merge into the next.

use std::future::Future;
use std::rc::Rc;

use bytes::BytesMut;
use futures_util::StreamExt;
use openraft::LinearizerOption;
use openraft::errors::{ClientWriteError, ForwardReason};
use ouzel_model::{LeaderEpoch, TimestampMs};
use ouzel_storage::Appended;
use tokio::sync::oneshot;

use super::Inner;
use crate::entry::Data;
use crate::replicated_log::{AppendRefused, Placed, Receipt, Wait};
use crate::submission::{Forming, Judged, Outcome, Ticket, turn_away};

/// A batch that waits for a submission.
pub(super) struct Pending {
    batch: BytesMut,
    now: TimestampMs,
    tell: oneshot::Sender<Result<Receipt, AppendRefused>>,
}

/// A batch that is part of one, or a repeat of one.
struct Waiting {
    nth: usize,
    is_repeat: bool,
    tell: oneshot::Sender<Result<Receipt, AppendRefused>>,
}

impl Inner {
    /// Takes a batch into the queue when called; the order of calls is the order of places.
    pub(super) fn enqueue(
        self: &Rc<Self>,
        batch: BytesMut,
        now: TimestampMs,
    ) -> impl Future<Output = Result<Receipt, AppendRefused>> + use<> {
        let (tell, told) = oneshot::channel();
        self.pending.borrow_mut().push_back(Pending { batch, now, tell });
        if !self.is_submitting.replace(true) {
            ouzel_runtime::spawn(self.clone().submit_all());
        }
        async move { told.await.unwrap_or(Err(AppendRefused::NotLeader)) }
    }

    /// Runs while batches wait.
    async fn submit_all(self: Rc<Self>) {
        loop {
            if self.pending.borrow().is_empty() {
                self.is_submitting.set(false);
                return;
            }
            match self.serving_term().await {
                Ok(term) => self.submit_next(term).await,
                Err(refused) => {
                    let refused_all = std::mem::take(&mut *self.pending.borrow_mut());
                    for pending in refused_all {
                        turn_away(&self.state.log, &pending.batch);
                        // Whoever gave up waiting misses only the answer.
                        let _ = pending.tell.send(Err(refused.clone()));
                    }
                }
            }
        }
    }

    /// The reign in which this replica serves. Just after its election it waits until it does.
    async fn serving_term(&self) -> Result<LeaderEpoch, AppendRefused> {
        if let Some(fenced) = self.state.log.fenced() {
            return Err(AppendRefused::Fenced(fenced));
        }
        let patience = self.state.settings.borrow().election_timeout.1;
        let clock = &self.state.runtime.clock;
        let deadline = clock.now() + patience;
        loop {
            let stepped = self.state.stepped.notified();
            let changed = self.changed.notified();
            let metrics = self.metrics();
            let is_leader = !self.is_shut_down.get()
                && metrics.running_state.is_ok()
                && metrics.state == openraft::ServerState::Leader;
            if is_leader && self.is_serving(&metrics) {
                return Ok(self.state.term());
            }
            if !is_leader || clock.now() >= deadline {
                return Err(AppendRefused::NotLeader);
            }
            tokio::select! {
                biased;
                () = stepped => {}
                () = changed => {}
                () = clock.sleep_until(deadline) => {}
            }
        }
    }

    /// Forms the next submission of what waits, and gives it its place.
    async fn submit_next(&self, term: LeaderEpoch) {
        let (ticket, waiting) = self.form(term);
        let Some(ticket) = ticket else { return };
        let refused = self.place(&ticket).await;
        ticket.turn_away_returned(&self.state.log);
        for Waiting { nth, is_repeat, tell } in waiting {
            let answer = match ticket.outcome(nth) {
                Outcome::Placed(appended) => Ok(self.receipt(term, placed(&appended, is_repeat))),
                Outcome::Refused(refused) => Err(refused),
                Outcome::Returned | Outcome::Open => Err(refused.clone()),
            };
            let _ = tell.send(answer);
        }
    }

    /// Judges what waits, in order, as long as there is room. What needs no place is answered right here.
    fn form(&self, term: LeaderEpoch) -> (Option<Rc<Ticket>>, Vec<Waiting>) {
        let mut forming = Forming::new(&self.state.log);
        let mut waiting = Vec::new();
        while forming.has_room() {
            let Some(Pending { batch, now, tell }) = self.pending.borrow_mut().pop_front() else { break };
            match forming.judge(batch, now) {
                Judged::Submit(nth) => waiting.push(Waiting { nth, is_repeat: false, tell }),
                Judged::InSubmission(nth) => waiting.push(Waiting { nth, is_repeat: true, tell }),
                Judged::InLog(placed) => {
                    let _ = tell.send(Ok(self.receipt(term, placed)));
                }
                Judged::Refused(refused) => {
                    let _ = tell.send(Err(refused));
                }
            }
        }
        let ticket = (!forming.is_empty()).then(|| forming.into_ticket(term));
        (ticket, waiting)
    }

    /// Hands a submission to openraft and waits until all of it has its fate. Returns why, for what was not taken.
    ///
    /// A leader that has not heard of its quorum for a while is refused: it may have been replaced. So may one be that was
    /// just elected. It asks its quorum, and tries once more.
    async fn place(&self, ticket: &Rc<Ticket>) -> AppendRefused {
        for attempt in 0..2 {
            let batches = ticket.submit().into_iter().map(Data::Submitted);
            let answers = self.raft.client_write_many(batches).await;
            ticket.settled().await;
            if !ticket.is_returned() {
                return AppendRefused::NotLeader;
            }
            let Ok(mut answers) = answers else { return AppendRefused::NotLeader };
            let reason = match answers.next().await {
                Some(Ok(Err(ClientWriteError::ForwardToLeader(forward)))) => forward.reason,
                _ => ForwardReason::NotLeader,
            };
            if attempt > 0 || reason != ForwardReason::LeaseExpired || self.prove_leadership().await.is_err()
            {
                return AppendRefused::NotLeader;
            }
        }
        AppendRefused::NotLeader
    }

    /// Asks the quorum whether this replica still leads, if it has not heard of it lately.
    pub(super) async fn prove_leadership(&self) -> Result<(), AppendRefused> {
        let patience = self.state.settings.borrow().election_timeout.1;
        let ask = LinearizerOption::new(None, true).with_wait_timeout(patience);
        let proof = self.raft.get_read_linearizer(ask).await;
        proof.map(|_| ()).map_err(|_| AppendRefused::NotLeader)
    }

    fn receipt(&self, term: LeaderEpoch, placed: Placed) -> Receipt {
        Receipt { placed, wait: Wait::Group { state: self.state.clone(), term } }
    }
}

fn placed(appended: &Appended, is_repeat: bool) -> Placed {
    Placed {
        base_offset: appended.base_offset,
        last_offset: appended.last_offset,
        log_append_time: if is_repeat { TimestampMs::NONE } else { appended.log_append_time },
        duplicate: is_repeat,
    }
}
