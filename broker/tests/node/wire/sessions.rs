//! Fetch sessions (KIP-227): what is remembered between two fetches, and what is refused.

use ouzel_model::TopicId;
use ouzel_protocol::ErrorCode;
use ouzel_protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ForgottenTopic,
};

use crate::support::node::Node;
use crate::support::records::{batch, values};
use crate::support::wire::{Wire, fetch_request, fresh_name, from_offset, text};

/// A session by name, as a consumer keeps it.
struct Session {
    topic: String,
    id: i32,
    epoch: i32,
}

impl Session {
    fn create(wire: &mut Wire, topic: &str, partitions: Vec<FetchPartition>) -> (Session, FetchResponse) {
        let request = FetchRequest { session_epoch: 0, ..fetch_request(topic, partitions) };
        let answer = wire.call(12, request);
        assert_eq!(answer.error_code, 0);
        assert_ne!(answer.session_id, 0, "a session was asked for");
        (Session { topic: topic.to_owned(), id: answer.session_id, epoch: 1 }, answer)
    }

    fn request(&self, partitions: Vec<FetchPartition>, forgotten: Vec<i32>) -> FetchRequest {
        let mut request = fetch_request(&self.topic, partitions);
        request.topics.retain(|topic| !topic.partitions.is_empty());
        if !forgotten.is_empty() {
            request.forgotten =
                vec![ForgottenTopic { name: text(&self.topic), partitions: forgotten, ..Default::default() }];
        }
        FetchRequest { session_id: self.id, session_epoch: self.epoch, ..request }
    }

    /// The next fetch of the session: which partitions are answered, with their values.
    fn next(
        &mut self,
        wire: &mut Wire,
        partitions: Vec<FetchPartition>,
        forgotten: Vec<i32>,
    ) -> Vec<(i32, Vec<String>)> {
        let answer = wire.call(12, self.request(partitions, forgotten));
        assert_eq!((answer.error_code, answer.session_id), (0, self.id));
        self.epoch += 1;
        let mut answered: Vec<_> =
            answer.topics.iter().flat_map(|t| &t.partitions).map(|p| (p.partition, values(p))).collect();
        answered.sort();
        answered
    }
}

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

#[test]
fn an_incremental_fetch_is_told_what_changed_and_nothing_else() {
    let node = Node::start_with(2, &[]);
    let mut wire = node.connect();
    let topic = fresh_name("session");
    wire.create(&topic, 3, &[]);
    wire.store(&topic, 0, batch(&["a"]));
    let (mut session, first) =
        Session::create(&mut wire, &topic, (0..3).map(|p| from_offset(p, 0)).collect());
    assert_eq!(first.topics[0].partitions.len(), 3, "the first answer names all");

    assert_eq!(session.next(&mut wire, vec![from_offset(0, 1)], vec![]), [], "nothing happened");
    wire.store(&topic, 1, batch(&["b"]));
    assert_eq!(session.next(&mut wire, vec![], vec![]), [(1, strings(&["b"]))]);
    assert_eq!(session.next(&mut wire, vec![], vec![]), [(1, strings(&["b"]))], "its place was not moved on");
    assert_eq!(session.next(&mut wire, vec![from_offset(1, 1)], vec![]), []);

    assert_eq!(session.next(&mut wire, vec![], vec![2]), []);
    wire.store(&topic, 2, batch(&["c"]));
    assert_eq!(session.next(&mut wire, vec![], vec![]), [], "a forgotten partition is not answered");
    let again = session.next(&mut wire, vec![from_offset(2, 0)], vec![]);
    assert_eq!(again, [(2, strings(&["c"]))], "until it is asked for anew");
}

#[test]
fn an_error_is_repeated_until_it_clears_and_its_clearing_is_told() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("session-error");
    wire.create(&topic, 1, &[]);
    let (mut session, first) = Session::create(&mut wire, &topic, vec![from_offset(0, 1)]);
    let out_of_range = ErrorCode::OffsetOutOfRange.code();
    assert_eq!(first.topics[0].partitions[0].error_code, out_of_range);
    for _ in 0..2 {
        let answer = wire.call(12, session.request(vec![], vec![]));
        assert_eq!(answer.topics[0].partitions[0].error_code, out_of_range);
        session.epoch += 1;
    }
    wire.store(&topic, 0, batch(&["a"]));
    assert_eq!(session.next(&mut wire, vec![], vec![]), [(0, vec![])]);
    assert_eq!(session.next(&mut wire, vec![], vec![]), []);
}

#[test]
fn a_session_goes_on_over_any_connection() {
    // Connections are dealt to the cores, so some of these arrive where the session is not.
    let node = Node::start_with(2, &[]);
    let mut wires: Vec<_> = (0..4).map(|_| node.connect()).collect();
    let topic = fresh_name("session-cores");
    wires[0].create(&topic, 2, &[]);
    for first in 0..4 {
        let partitions = (0..2).map(|p| from_offset(p, 0)).collect();
        let (mut session, _) = Session::create(&mut wires[first], &topic, partitions);
        for wire in &mut wires {
            session.next(wire, vec![], vec![]);
        }
        let closing = FetchRequest { session_epoch: -1, ..session.request(vec![], vec![]) };
        let closed = wires[(first + 1) % 4].call(12, closing);
        assert_eq!((closed.error_code, closed.session_id), (0, 0));
        let code = wires[first].call(12, session.request(vec![], vec![])).error_code;
        assert_eq!(code, ErrorCode::FetchSessionIdNotFound.code());
    }
}

#[test]
fn a_long_poll_of_a_session_wakes_on_any_core() {
    let node = Node::start_with(2, &[]);
    let mut wires: Vec<_> = (0..2).map(|_| node.connect()).collect();
    let mut writer = node.connect();
    let topic = fresh_name("session-poll");
    writer.create(&topic, 2, &[]);
    let (mut session, _) =
        Session::create(&mut wires[0], &topic, (0..2).map(|p| from_offset(p, 0)).collect());
    for partition in 0..2 {
        for wire in &mut wires {
            let base = writer.fetch(&topic, partition, 0).high_watermark;
            let from = session.request(vec![from_offset(partition, base)], vec![]);
            wire.send(12, FetchRequest { max_wait_ms: 600_000, min_bytes: 1, ..from });
            session.epoch += 1;
            assert!(wire.is_waiting());
            writer.store(&topic, partition, batch(&["x"]));
            let asked = wire.last_correlation_id();
            let answer = wire.receive::<FetchRequest>(12, asked);
            assert_eq!((answer.error_code, values(&answer.topics[0].partitions[0]).len()), (0, 1));
            // Leave both partitions at their ends for the next round.
            let ends = (0..2).map(|p| from_offset(p, writer.fetch(&topic, p, 0).high_watermark)).collect();
            session.next(wire, ends, vec![]);
        }
    }
}

#[test]
fn wrong_ids_and_epochs_are_refused_and_leave_the_session_as_it_is() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("session-wrong");
    let id = wire.create(&topic, 1, &[]);
    let (mut session, _) = Session::create(&mut wire, &topic, vec![from_offset(0, 0)]);
    let refused = |wire: &mut Wire, request: FetchRequest| {
        let answer = wire.call(12, request);
        assert_eq!((answer.session_id, answer.topics.len()), (0, 0));
        answer.error_code
    };
    let good = session.request(vec![], vec![]);
    for epoch in [2, 7, i32::MAX] {
        let code = refused(&mut wire, FetchRequest { session_epoch: epoch, ..good.clone() });
        assert_eq!(code, ErrorCode::InvalidFetchSessionEpoch.code(), "{epoch}");
    }
    // Kafka's cache is divided into ranges of ids, and it trips over those that lie in none.
    let beyond: &[i32] = if node.is_own() { &[i32::MAX, -1, i32::MIN] } else { &[] };
    for session_id in beyond.iter().copied().chain([good.session_id ^ 1]) {
        let code = refused(&mut wire, FetchRequest { session_id, ..good.clone() });
        assert_eq!(code, ErrorCode::FetchSessionIdNotFound.code(), "{session_id}");
    }
    let by_id = FetchRequest {
        topics: vec![FetchTopic {
            topic_id: id,
            partitions: vec![from_offset(0, 0)],
            ..FetchTopic::default()
        }],
        ..good.clone()
    };
    let answer = wire.call(13, by_id);
    assert_eq!(answer.error_code, ErrorCode::FetchSessionTopicIdError.code());
    wire.store(&topic, 0, batch(&["a"]));
    assert_eq!(session.next(&mut wire, vec![], vec![]), [(0, strings(&["a"]))]);
}

#[test]
fn sessions_by_id_tell_of_ids_that_nobody_knows() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("session-ids");
    let id = wire.create(&topic, 1, &[]);
    let topics = [id, TopicId([7; 16])].map(|topic_id| FetchTopic {
        topic_id,
        partitions: vec![from_offset(0, 0)],
        ..FetchTopic::default()
    });
    let request = FetchRequest {
        session_epoch: 0,
        max_bytes: 1 << 20,
        topics: topics.to_vec(),
        ..FetchRequest::default()
    };
    let first = wire.call(13, request);
    assert_ne!(first.session_id, 0);
    let code = |answer: &FetchResponse, id: TopicId| {
        let topic = answer.topics.iter().find(|topic| topic.topic_id == id);
        topic.map(|topic| topic.partitions[0].error_code)
    };
    let unknown = ErrorCode::UnknownTopicId.code();
    assert_eq!((code(&first, id), code(&first, TopicId([7; 16]))), (Some(0), Some(unknown)));
    let next = FetchRequest {
        session_id: first.session_id,
        session_epoch: 1,
        max_bytes: 1 << 20,
        ..FetchRequest::default()
    };
    let second = wire.call(13, next);
    assert_eq!((code(&second, id), code(&second, TopicId([7; 16]))), (None, Some(unknown)));
}

#[test]
fn what_a_small_limit_leaves_out_comes_next() {
    let node = Node::start();
    let mut wire = node.connect();
    let topic = fresh_name("session-turns");
    wire.create(&topic, 3, &[]);
    for partition in 0..3 {
        wire.store(&topic, partition, batch(&["one"]));
    }
    let (mut session, first) = {
        let request = FetchRequest {
            session_epoch: 0,
            max_bytes: 1,
            ..fetch_request(&topic, (0..3).map(|p| from_offset(p, 0)).collect())
        };
        let answer = wire.call(12, request);
        (Session { topic: topic.clone(), id: answer.session_id, epoch: 1 }, answer)
    };
    let mut served: Vec<i32> =
        first.topics[0].partitions.iter().filter(|p| !values(p).is_empty()).map(|p| p.partition).collect();
    // The consumer never moves on, and still every partition gets its turn.
    for _ in 0..3 {
        let request = FetchRequest { max_bytes: 1, ..session.request(vec![], vec![]) };
        let answer = wire.call(12, request);
        session.epoch += 1;
        let parts = answer.topics.iter().flat_map(|topic| &topic.partitions);
        served.extend(parts.filter(|p| !values(p).is_empty()).map(|p| p.partition));
    }
    served.sort_unstable();
    served.dedup();
    assert_eq!(served, [0, 1, 2]);
}
