//! The pipeline of entries, against a follower that answers as a script says.

use std::cell::{Cell, RefCell};

use futures_util::{StreamExt, stream};
use openraft::raft::StreamAppendError;
use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, NodeId, PartitionIndex, TopicId};
use ouzel_runtime::Runtime;
use ouzel_runtime::sim;

use super::*;
use crate::codec::encode_response;
use crate::store::tests::a_log;
use crate::types::{Term, log_id};

/// Answers the nth call with the nth answer, after its delay.
struct Scripted {
    runtime: Runtime,
    script: RefCell<VecDeque<(Duration, Result<Response, CallError>)>>,
    asked: Cell<usize>,
}

impl Transport for Scripted {
    fn call(
        &self,
        to: ReplicaId,
        _group: TopicIdPartition,
        _lane: Lane,
        message: PeerMessage,
    ) -> LocalBoxFuture<Result<PeerMessage, CallError>> {
        self.asked.set(self.asked.get() + 1);
        let (delay, answer) =
            self.script.borrow_mut().pop_front().expect("no more is asked than is scripted");
        let me = crate::codec::envelope(&message).expect("sound").from;
        let clock = self.runtime.clock.clone();
        Box::pin(async move {
            clock.sleep(delay).await;
            answer.map(|answer| encode_response(Envelope { from: to, to: me }, &answer))
        })
    }
}

fn id(index: u64) -> LogId {
    log_id(EntryId { term: LeaderEpoch(1), index: EntryIndex(index) })
}

/// What openraft is told of six messages, each about the entry of its number; and how many were sent.
fn told(answers: [Result<Response, CallError>; 6]) -> (Vec<String>, usize) {
    sim::run(1, |machine| async move {
        // The later it is sent, the sooner it is answered.
        let delays = (0..6).map(|nth| Duration::from_millis(100 - 10 * nth));
        let script = RefCell::new(delays.zip(answers).collect());
        let transport = Rc::new(Scripted { runtime: machine.runtime(), script, asked: Cell::new(0) });
        let network = Network {
            transport: transport.clone(),
            at: TopicIdPartition { topic_id: TopicId([1; 16]), partition: PartitionIndex(0) },
            me: ReplicaId::first(NodeId(1)),
            log: a_log(&machine).await,
            catching_up: CatchingUp::default(),
        };
        let mut peer = network.peer(ReplicaId::first(NodeId(2)).to_u64(), Lane::Data);
        let request = |index| AppendEntriesRequest {
            vote: RaftVote::new_committed(Term(1), 1),
            prev_log_id: Some(id(index)),
            entries: Vec::new(),
            leader_commit: None,
        };
        let requests = stream::iter((1..=6).map(request).collect::<Vec<_>>());
        let option = RPCOption::new(Duration::from_millis(150));
        let mut answers = peer.stream_append(requests, option).await.expect("it begins");
        let mut told = Vec::new();
        while let Some(answer) = answers.next().await {
            told.push(match answer {
                Ok(Ok(matched)) => format!("{} is held", matched.expect("an entry").index),
                Ok(Err(StreamAppendError::Conflict(at))) => format!("{} conflicts", at.index),
                Ok(Err(StreamAppendError::HigherVote(_))) => "a higher vote".to_owned(),
                Err(_) => "no answer".to_owned(),
            });
        }
        (told, transport.asked.get())
    })
}

fn held() -> Result<Response, CallError> {
    Ok(Response::Append(AppendEntriesResponse::Success))
}

/// openraft takes what it is told for the answers to its messages, one after the other: an answer that overtook another would
/// be counted for entries that nobody holds.
#[test]
fn trap_15_answers_come_in_the_order_they_were_asked_for() {
    let (told, asked) = told([held(), held(), held(), held(), held(), held()]);
    assert_eq!(told, ["1 is held", "2 is held", "3 is held", "4 is held", "5 is held", "6 is held"]);
    assert_eq!(asked, 6, "all on their way at once");
}

/// Behind an answer that is no yes, the others are about a log that is not the follower's: they mean nothing, though they are
/// there already.
#[test]
fn trap_15_nothing_is_told_behind_a_failure() {
    let conflict = || Ok(Response::Append(AppendEntriesResponse::Conflict));
    let newer = RaftVote::new_committed(Term(2), 3);
    for (failure, said) in [
        (Err(CallError::TimedOut), "no answer"),
        (Err(CallError::Unreachable("gone".to_owned())), "no answer"),
        (Ok(Response::Refused("no".to_owned())), "no answer"),
        (Ok(Response::Ping { leads: true }), "no answer"),
        (conflict(), "3 conflicts"),
        (Ok(Response::Append(AppendEntriesResponse::HigherVote(newer))), "a higher vote"),
    ] {
        let (told, _) = told([held(), held(), failure, held(), held(), held()]);
        assert_eq!(told, ["1 is held", "2 is held", said]);
    }
}
