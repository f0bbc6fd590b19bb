//! openraft's network over our [`Transport`]: which lane a message takes, what its answers and failures mean.
//!
//! Entries are *pipelined*: several messages to a follower are on their way at once, their answers are handed on in the
//! order they were asked for, and nothing is handed on behind the first that failed. The transport starts the calls of one
//! lane at the receiver in the order they were made, and the receiver hands them to openraft as they start.
//!
//! Entries for a member that [catches up](crate::catching_up) take the lane of recovery, which has a rate. The lane changes
//! when nothing is on its way, so that the order holds.
//!
//! openraft's time limit for a request is the heartbeat interval. It fits votes and heartbeats; a follower with a slow disk
//! would never get its entries acknowledged under it, so these have a limit of their own, against peers that hang.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, RPCTypes};
use openraft_rt::AsyncRuntime;
use ouzel_model::{ReplicaId, TopicIdPartition};
use ouzel_storage::Log;

use crate::catching_up::CatchingUp;
use crate::codec::{Envelope, Request, Response, decode_response, encode_request};
use crate::runtime::OuzelRuntime;
use crate::state_machine::{GroupSnapshot, SnapshotHandle};
use crate::transport::{CallError, Lane, LocalBoxFuture, PeerMessage, Transport};
use crate::types::{LogId, RaftVote, Types};

/// A peer that takes longer to append is taken to hang.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
/// As above, of a peer that catches up: a message may wait long for its turn at a low rate.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// Messages with entries on their way to one follower.
const PIPELINE_MAX: usize = 8;
/// As above, to one that catches up.
const CATCH_UP_PIPELINE_MAX: usize = 2;

/// Makes a [`Peer`] for each replica of the group.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) transport: Rc<dyn Transport>,
    pub(crate) at: TopicIdPartition,
    pub(crate) me: ReplicaId,
    /// Where snapshots come from.
    pub(crate) log: Log,
    pub(crate) catching_up: CatchingUp,
}

/// The way to one replica, in one lane.
pub(crate) struct Peer {
    network: Network,
    to: ReplicaId,
    lane: Lane,
}

impl Network {
    fn peer(&self, to: u64, lane: Lane) -> Peer {
        Peer { network: self.clone(), to: ReplicaId::from_u64(to), lane }
    }

    /// Sends a request when called, not when first polled.
    pub(crate) fn call(
        &self,
        to: ReplicaId,
        lane: Lane,
        request: &Request,
    ) -> impl Future<Output = Result<Response, CallError>> + use<> {
        let message = encode_request(Envelope { from: self.me, to }, request);
        let answer = self.transport.call(to, self.at, lane, message);
        let me = self.me;
        async move { read_answer(answer.await?, me, to) }
    }
}

/// An answer must be from whom it was asked of: a restarted node may host another life of the replica.
fn read_answer(message: PeerMessage, me: ReplicaId, to: ReplicaId) -> Result<Response, CallError> {
    let (envelope, response) = decode_response(message)
        .map_err(|error| CallError::Refused(format!("an answer that is none: {error}")))?;
    match response {
        Response::Refused(words) => Err(CallError::Refused(words)),
        _ if envelope != (Envelope { from: to, to: me }) => {
            Err(CallError::Refused(format!("an answer from {} to {}", envelope.from, envelope.to)))
        }
        response => Ok(response),
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Peer {
        self.peer(target, Lane::Data)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &EmptyNode) -> Peer {
        self.peer(target, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, _node: &EmptyNode) -> Peer {
        self.peer(target, Lane::Recovery)
    }
}

impl Peer {
    fn failure(&self, error: CallError, action: RPCTypes, timeout: Duration) -> RPCError<Types> {
        match error {
            CallError::Unreachable(words) => RPCError::Unreachable(Unreachable::from_string(words)),
            CallError::TimedOut => RPCError::Timeout(Timeout {
                action,
                id: self.network.me.to_u64(),
                target: self.to.to_u64(),
                timeout,
            }),
            // Whoever refuses now will refuse again: not at once.
            CallError::Refused(words) => RPCError::Unreachable(Unreachable::from_string(words)),
        }
    }

    async fn ask(
        &self,
        lane: Lane,
        request: &Request,
        action: RPCTypes,
        timeout: Duration,
    ) -> Result<Response, RPCError<Types>> {
        let answer = self.network.call(self.to, lane, request);
        let answer = OuzelRuntime::timeout(timeout, answer).await.unwrap_or(Err(CallError::TimedOut));
        answer.map_err(|error| self.failure(error, action, timeout))
    }

    fn unexpected(&self) -> RPCError<Types> {
        RPCError::Network(NetworkError::from_string(format!("{} answered another question", self.to)))
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let request = Request::Append(request);
        match self.ask(self.lane, &request, RPCTypes::AppendEntries, APPEND_TIMEOUT).await? {
            Response::Append(response) => Ok(response),
            _ => Err(self.unexpected()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Unpin + 'static,
    {
        let way = Way::KEEPING_UP;
        let pipeline = Pipeline { peer: self, input: Some(input), way, asked: VecDeque::new() };
        Box::pin(std::future::ready(Ok(Box::pin(pipeline) as BoxStream<'s, _>)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(Lane::Control, &Request::Vote(request), RPCTypes::Vote, option.hard_ttl()).await? {
            Response::Vote(response) => Ok(response),
            _ => Err(self.unexpected()),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(Lane::Control, &Request::PreVote(request), RPCTypes::Vote, option.hard_ttl()).await? {
            Response::Vote(response) => Ok(response),
            _ => Err(self.unexpected()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: GroupSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        crate::snapshot::send(&self.network, self.to, vote, snapshot, cancel).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let request = Request::Transfer(request);
        match self.ask(Lane::Control, &request, RPCTypes::TransferLeader, option.hard_ttl()).await? {
            Response::Transfer(Ok(())) => Ok(Ok(())),
            Response::Transfer(Err(words)) => Err(RPCError::Network(NetworkError::from_string(words))),
            _ => Err(self.unexpected()),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

/// How entries travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    lane: Lane,
    pipeline_max: usize,
    timeout: Duration,
}

impl Way {
    const KEEPING_UP: Way = Way { lane: Lane::Data, pipeline_max: PIPELINE_MAX, timeout: APPEND_TIMEOUT };
    const CATCHING_UP: Way =
        Way { lane: Lane::Recovery, pipeline_max: CATCH_UP_PIPELINE_MAX, timeout: CATCH_UP_TIMEOUT };
}

/// Requests on their way, and their answers in order.
struct Pipeline<'a, S> {
    peer: &'a Peer,
    /// None when it has ended, or when a request has failed.
    input: Option<S>,
    /// Of all that is on its way.
    way: Way,
    asked: VecDeque<Asked>,
}

struct Asked {
    /// What precedes the entries, and the last of them: what an answer is about.
    prev: Option<LogId>,
    last: Option<LogId>,
    answer: LocalBoxFuture<Result<Response, CallError>>,
}

impl<S> Pipeline<'_, S> {
    fn ask(&self, request: AppendEntriesRequest<Types>) -> Asked {
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let answer = self.peer.network.call(self.peer.to, self.way.lane, &Request::Append(request));
        let answer = OuzelRuntime::timeout(self.way.timeout, answer);
        let answer = Box::pin(async move { answer.await.unwrap_or(Err(CallError::TimedOut)) });
        Asked { prev, last, answer }
    }

    /// What an answer tells openraft, and whether the next ones still mean anything.
    fn read(
        &self,
        prev: Option<LogId>,
        last: Option<LogId>,
        answer: Result<Response, CallError>,
    ) -> (Result<StreamAppendResult<Types>, RPCError<Types>>, bool) {
        match answer {
            Ok(Response::Append(AppendEntriesResponse::Conflict)) if prev.is_none() => {
                // Nothing precedes them, so nothing can conflict: nonsense, and openraft would not survive it.
                (Err(self.peer.unexpected()), false)
            }
            Ok(Response::Append(response)) => {
                let is_whole = match &response {
                    AppendEntriesResponse::Success => true,
                    AppendEntriesResponse::PartialSuccess(matched) => *matched == last,
                    AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => false,
                };
                (Ok(response.into_stream_result(prev, last)), is_whole)
            }
            Ok(_) => (Err(self.peer.unexpected()), false),
            Err(error) => (Err(self.peer.failure(error, RPCTypes::AppendEntries, self.way.timeout)), false),
        }
    }
}

impl<S> Stream for Pipeline<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
{
    type Item = Result<StreamAppendResult<Types>, RPCError<Types>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let way = match this.peer.network.catching_up.contains(this.peer.to) {
            true => Way::CATCHING_UP,
            false => Way::KEEPING_UP,
        };
        if this.asked.is_empty() {
            this.way = way;
        }
        while this.way == way
            && this.asked.len() < way.pipeline_max
            && let Some(input) = &mut this.input
        {
            match Pin::new(input).poll_next(context) {
                Poll::Ready(Some(request)) => {
                    let asked = this.ask(request);
                    this.asked.push_back(asked);
                }
                Poll::Ready(None) => this.input = None,
                Poll::Pending => break,
            }
        }
        let Some(first) = this.asked.front_mut() else {
            return if this.input.is_none() { Poll::Ready(None) } else { Poll::Pending };
        };
        let Poll::Ready(answer) = first.answer.as_mut().poll(context) else { return Poll::Pending };
        let Some(Asked { prev, last, .. }) = this.asked.pop_front() else { return Poll::Ready(None) };
        let (item, goes_on) = this.read(prev, last, answer);
        if !goes_on {
            this.input = None;
            this.asked.clear();
        }
        Poll::Ready(Some(item))
    }
}

#[cfg(test)]
mod tests;
