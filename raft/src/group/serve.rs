//! The receiver's side of the peers' messages.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use openraft::raft::AppendEntriesRequest;
use ouzel_model::{LeaderEpoch, ReplicaId};

use super::{Inner, RaftGroup, Role};
use crate::codec::{Envelope, Request, Response, decode_request, encode_response};
use crate::transport::{LocalBoxFuture, PeerMessage};
use crate::types::{Types, entry_id};

impl RaftGroup {
    /// Carries out a peer's message. It is handed to openraft when this is called, not when the future is first polled:
    /// entries must arrive in the order they were sent. Whatever the bytes are, there is an answer.
    ///
    /// `from` is the replica whose node the connection belongs to; [`envelope`](crate::codec::envelope) reads it from the
    /// message, its node is what the connection proves.
    pub fn handle(&self, from: ReplicaId, message: PeerMessage) -> LocalBoxFuture<PeerMessage> {
        let me = self.replica();
        let refuse = |words: String| {
            let answer = encode_response(Envelope { from: me, to: from }, &Response::Refused(words));
            Box::pin(std::future::ready(answer)) as LocalBoxFuture<PeerMessage>
        };
        let (envelope, request) = match decode_request(message) {
            Ok(decoded) => decoded,
            Err(error) => return refuse(format!("no message of a group: {error}")),
        };
        if envelope.to != me || envelope.from.node != from.node {
            return refuse(format!(
                "a message from {} to {}, but {from} speaks to {me}",
                envelope.from, envelope.to
            ));
        }
        if self.inner.is_shut_down.get() {
            return refuse(format!("{me} is shut down"));
        }
        if self.inner.in_sync.borrow_mut().hear(envelope.from) {
            self.inner.nudged.notify_one();
        }
        match &request {
            Request::PreVote(vote) | Request::Vote(vote) => {
                self.inner.hear_candidate(envelope.from, LeaderEpoch(vote.vote.leader_id.term.0));
            }
            Request::Append(append) => {
                self.inner.hear_leader(envelope.from, LeaderEpoch(append.vote.leader_id.term.0));
            }
            _ => {}
        }
        let answer = begin(carry_out(self.inner.clone(), request));
        let envelope = Envelope { from: me, to: envelope.from };
        Box::pin(async move { encode_response(envelope, &answer.await) })
    }

    /// Stands for election, after asking whether it could win: nothing happens where a leader is alive, and nothing where
    /// this replica does not vote. For the node's liveness service.
    pub async fn elect(&self) {
        // It fails when openraft has stopped, which the status says.
        let _ = self.inner.raft.trigger().elect(true).await;
    }

    /// Sends a heartbeat now, if this replica leads.
    pub async fn heartbeat(&self) {
        let _ = self.inner.raft.trigger().heartbeat().await;
    }

    /// Resolves when `wanted` holds of the replica's status; never if it never does.
    pub async fn wait_until(&self, wanted: impl Fn(&super::GroupStatus) -> bool) {
        loop {
            let changed = self.inner.changed.notified();
            let status = self.status();
            if wanted(&status) {
                return;
            }
            if status.role == Role::Stopped {
                return std::future::pending().await;
            }
            changed.await;
        }
    }
}

impl Inner {
    /// Somebody stands for election in `epoch`. If that is whom this replica takes for the leader, nobody leads: a leader
    /// whose process was started again knows that it leads no more, but those of its followers that were started again as
    /// well, at the same time, have nothing but its name from their disks. It may lack what they hold, and then not win.
    fn hear_candidate(&self, candidate: ReplicaId, epoch: LeaderEpoch) {
        let now = self.observe().epoch;
        if epoch > now {
            self.resign(now, candidate);
        }
    }

    /// Who was said to lead `epoch` does not; whether anybody here believed it.
    pub(super) fn resign(&self, epoch: LeaderEpoch, leader: ReplicaId) -> bool {
        let status = self.observe();
        let is_news = status.epoch == epoch && status.leader == Some(leader);
        if is_news {
            self.resigned.set(Some((epoch, leader)));
            self.status.borrow_mut().leader = None;
            self.tell_change();
        }
        is_news
    }

    /// What a leader's entries say against those that are committed here, if anything. That cannot be as long as disks keep
    /// their word and nobody goes on with less than was acknowledged; openraft does not look, and would keep both.
    fn contradiction(&self, append: &AppendEntriesRequest<Types>) -> Option<String> {
        // Who led before that was committed need not have it, and is told so by openraft.
        let committed =
            self.state.committed().filter(|id| id.term.value() <= append.vote.leader_id.term.0)?;
        let theirs =
            append.prev_log_id.iter().chain(append.entries.iter().map(|entry| &entry.log_id)).map(entry_id);
        let mut theirs = theirs.take_while(|theirs| theirs.index <= committed.index);
        let (theirs, ours) = theirs.find_map(|theirs| {
            let ours = self.state.log.entry_id(theirs.index).filter(|ours| *ours != theirs)?;
            Some((theirs, ours))
        })?;
        Some(format!(
            "the leader has {theirs} where {ours} is committed here, up to {committed}: a disk has lost what it said was flushed, or \
             somebody went on with less; remove this replica's directory, and its group fills it anew"
        ))
    }

    /// Takes this replica out of service until it is opened anew.
    fn stop_for_good(&self, reason: String) -> String {
        self.state.log.fence(reason.clone());
        let raft = self.raft.clone();
        // Not from here: openraft's end waits for what is served.
        ouzel_runtime::spawn(async move { _ = raft.shutdown().await });
        reason
    }

    /// It leads after all.
    fn hear_leader(&self, leader: ReplicaId, epoch: LeaderEpoch) {
        if self.resigned.get() == Some((epoch, leader)) {
            self.resigned.set(None);
            self.status.borrow_mut().leader = Some(leader);
            self.tell_change();
        }
    }
}

async fn carry_out(inner: Rc<Inner>, request: Request) -> Response {
    let raft = &inner.raft;
    let outcome = match request {
        Request::Append(append) => match inner.contradiction(&append) {
            Some(facts) => Err(inner.stop_for_good(facts)),
            None => {
                raft.append_entries(append).await.map(Response::Append).map_err(|error| error.to_string())
            }
        },
        Request::Vote(vote) => raft.vote(vote).await.map(Response::Vote).map_err(|error| error.to_string()),
        Request::PreVote(vote) => {
            raft.pre_vote(vote).await.map(Response::Vote).map_err(|error| error.to_string())
        }
        Request::Transfer(transfer) => raft
            .handle_transfer_leader(transfer)
            .await
            .map(|outcome| Response::Transfer(outcome.map_err(|error| error.to_string())))
            .map_err(|error| error.to_string()),
        Request::Elect => {
            raft.trigger().elect(true).await.map(|()| Response::Elect).map_err(|error| error.to_string())
        }
        Request::Ping => Ok(Response::Ping { leads: inner.is_in_office() }),
        Request::Snapshot(head, pieces) => inner.incoming.take(&inner.state, raft, head, pieces).await,
    };
    outcome.unwrap_or_else(Response::Refused)
}

/// Polls a future once, at once: what it sends before it first waits is sent.
fn begin<F: Future + 'static>(future: F) -> Begun<F> {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    match future.as_mut().poll(&mut context) {
        Poll::Ready(value) => Begun { future, value: Some(value) },
        Poll::Pending => Begun { future, value: None },
    }
}

struct Begun<F: Future> {
    future: Pin<Box<F>>,
    value: Option<F::Output>,
}

// Neither part is ever pinned in place.
impl<F: Future> Unpin for Begun<F> {}

impl<F: Future> Future for Begun<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match self.value.take() {
            Some(value) => Poll::Ready(value),
            None => self.future.as_mut().poll(context),
        }
    }
}
