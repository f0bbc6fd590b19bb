//! The submission queue: one submission in flight until its place is fixed, arrivals merge into the next.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use openraft::LinearizerOption;
use openraft::errors::{ClientWriteError, ForwardReason};
use ouzel_model::{LeaderEpoch, TimestampMs};
use ouzel_storage::Appended;
use tokio::sync::oneshot;

use super::{Inner, Role};
use crate::entry::Data;
use crate::replicated_log::{AppendRefused, Placed, Receipt, Wait};
use crate::submission::{Forming, Judged, Outcome, Ticket, turn_away};

/// A batch that waits for a submission.
pub(super) struct Pending {
    batch: BytesMut,
    now: TimestampMs,
    /// The reign that was proven to last after the batch had come, if it was refused once.
    proven: Option<LeaderEpoch>,
    tell: oneshot::Sender<Result<Receipt, AppendRefused>>,
}

/// A batch that is part of one, or a repeat of one.
struct Waiting {
    nth: usize,
    is_repeat: bool,
    tell: oneshot::Sender<Result<Receipt, AppendRefused>>,
}

/// What waited, judged.
struct Formed {
    /// The submission, if there is anything to submit.
    ticket: Option<Rc<Ticket>>,
    /// Whoever waits for it.
    waiting: Vec<Waiting>,
    /// What may be refused only by a leader that has proven itself.
    doubted: Vec<Pending>,
}

impl Inner {
    /// Takes a batch into the queue when called; the order of calls is the order of places.
    pub(super) fn enqueue(
        self: &Rc<Self>,
        batch: BytesMut,
        now: TimestampMs,
    ) -> impl Future<Output = Result<Receipt, AppendRefused>> + use<> {
        let (tell, told) = oneshot::channel();
        if self.is_ending.get() {
            turn_away(&self.state.log, &batch);
            let _ = tell.send(Err(AppendRefused::NotLeader));
        } else {
            self.pending.borrow_mut().push_back(Pending { batch, now, proven: None, tell });
            self.wake_submissions();
        }
        async move { told.await.unwrap_or(Err(AppendRefused::NotLeader)) }
    }

    fn wake_submissions(self: &Rc<Self>) {
        if !self.is_submitting.replace(true) {
            ouzel_runtime::spawn(self.clone().submit_all());
        }
    }

    /// Runs while batches wait.
    async fn submit_all(self: Rc<Self>) {
        loop {
            if self.pending.borrow().is_empty() {
                self.is_submitting.set(false);
                if self.is_ending.get() {
                    self.changed.notify_waiters();
                }
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
            match self.role() {
                Role::Leader => return Ok(self.state.term()),
                // Perhaps it was just elected.
                Role::Candidate if self.is_elected() && clock.now() < deadline => {}
                _ => return Err(AppendRefused::NotLeader),
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
    async fn submit_next(self: &Rc<Self>, term: LeaderEpoch) {
        let Formed { ticket, waiting, doubted } = self.form(term);
        if !doubted.is_empty() {
            ouzel_runtime::spawn(self.clone().judge_again(term, doubted));
        }
        let Some(ticket) = ticket else { return };
        let refused = if self.state.log.is_disk_low() {
            // Known before anything is numbered: an entry that is withdrawn is written and flushed by every replica, and
            // producers try again and again.
            AppendRefused::DiskLow
        } else {
            self.place(&ticket).await
        };
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
    fn form(&self, term: LeaderEpoch) -> Formed {
        let mut forming = Forming::new(&self.state.log);
        let (mut waiting, mut doubted) = (Vec::new(), Vec::new());
        while forming.has_room() {
            let Some(mut pending) = self.pending.borrow_mut().pop_front() else { break };
            let judged = forming.judge(&mut pending.batch, pending.now);
            if let Judged::Refused(refused) = &judged
                && refused.depends_on_the_log()
                && pending.proven != Some(term)
            {
                doubted.push(pending);
                continue;
            }
            let tell = pending.tell;
            match judged {
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
        Formed { ticket, waiting, doubted }
    }

    /// Has batches judged again that were refused by what the log says of their producers, once this replica has proven
    /// that it led when they were here.
    ///
    /// Clients take such a refusal for final. A leader that was replaced and has not heard of it lacks what its successor
    /// acknowledged, so it would refuse the batch that comes next in order. One that still leads after the batch came
    /// lacks nothing of what its producer was told before it sent it.
    async fn judge_again(self: Rc<Self>, term: LeaderEpoch, doubted: Vec<Pending>) {
        let proven = self.prove_reign().await.is_ok() && self.state.term() == term;
        if !proven || self.is_ending.get() {
            for pending in doubted {
                // Whoever gave up waiting misses only the answer.
                let _ = pending.tell.send(Err(AppendRefused::NotLeader));
            }
            return;
        }
        let again = doubted.into_iter().map(|pending| Pending { proven: Some(term), ..pending });
        self.pending.borrow_mut().extend(again);
        self.wake_submissions();
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
        self.ask_quorum(None).await
    }

    /// Asks the quorum whether this replica still leads, whenever it heard of it last.
    async fn prove_reign(&self) -> Result<(), AppendRefused> {
        self.ask_quorum(Some(Duration::ZERO)).await
    }

    /// `age_max` is how old the quorum's last word may be; by default as old as the lease.
    async fn ask_quorum(&self, age_max: Option<Duration>) -> Result<(), AppendRefused> {
        let patience = self.state.settings.borrow().election_timeout.1;
        let ask = LinearizerOption::new(age_max, true).with_wait_timeout(patience);
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
