//! How many replicas must be in sync for acks=all: as many as `min.insync.replicas` says, and never fewer than a majority.

use std::collections::BTreeMap;
use std::time::Duration;

use ouzel_client::{Client, Election, producer};
use ouzel_model::TimestampMs;
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts};
use ouzel_protocol::ErrorCode;

use crate::cluster::{Cluster, await_seen, move_to, with_client};

const ALL: i16 = -1;
const LEADER: i16 = 1;
/// More than a broker needs that can answer at all; one that waits for replicas that are gone waits as long.
const ACK_TIMEOUT: Duration = Duration::from_secs(20);

/// Topics, and what `min.insync.replicas` is for each.
const TOPICS: [(&str, i16); 3] = [("one", 1), ("two", 2), ("three", 3)];
/// What only a leader without followers was given, with acks=1: it may stay, and may be lost.
const NOBODYS_WORD: &str = "alone-and-acks-1";
const NAMES: [&str; 3] = ["one", "two", "three"];

/// Sends one batch once to whoever leads; what it was answered, or what it is said as that nobody leads or answers.
fn send(cluster: &Cluster, topic: &str, value: &str, acks: i16) -> ErrorCode {
    let mut batch = BatchBuilder::new(Codec::None);
    batch.push(TimestampMs(1_000), &RecordParts { key: None, value: Some(value.as_bytes()), headers: &[] });
    let topic = topic.to_owned();
    with_client(&cluster.bootstrap(), async move |client, _| {
        let Ok(leader) = client.leader(&topic, 0).await else { return ErrorCode::NotLeaderOrFollower };
        let answer = producer::produce(&leader, &topic, 0, batch.build().into(), acks, ACK_TIMEOUT).await;
        let Ok(answer) = answer else { return ErrorCode::NetworkException };
        let answer = answer.expect("acks is not 0");
        ErrorCode::from_code(answer.error_code).expect("a code that Kafka has")
    })
}

/// What was acknowledged to be there, by topic.
#[derive(Default)]
struct Kept(BTreeMap<&'static str, Vec<String>>);

impl Kept {
    /// Sends it until it is stored: who leads may change, and then it may be there twice.
    fn store(&mut self, cluster: &Cluster, topic: &'static str, value: &str, acks: i16) {
        let what = format!("{value} is stored in {topic}");
        await_seen(&what, || send(cluster, topic, value, acks), |code| *code == ErrorCode::None);
        self.0.entry(topic).or_default().push(value.to_owned());
    }

    /// Waits until consumers see all of it, which may be a moment after acks=1 was answered; and nothing else.
    fn await_read(&self, cluster: &Cluster, topic: &str) {
        let kept = &self.0[topic];
        let read_all = || {
            let mut read = cluster.read_all(topic);
            read.retain(|value| value != NOBODYS_WORD);
            read.dedup();
            read
        };
        let is_all = |read: &Vec<String>| read.len() >= kept.len() || !kept.starts_with(read);
        assert_eq!(await_seen("consumers see all of it", read_all, is_all), *kept, "{topic}");
    }
}

/// acks=all is refused, and nothing is written for it, on the node that runs all along.
fn is_refused(cluster: &Cluster, topic: &str, value: &str) {
    let stored = || cluster.segments(1, topic).values().sum::<u64>();
    let before = stored();
    assert!(before > 0);
    let is_judged =
        |code: &ErrorCode| ![ErrorCode::NotLeaderOrFollower, ErrorCode::NetworkException].contains(code);
    let code = await_seen("somebody leads", || send(cluster, topic, value, ALL), is_judged);
    assert_eq!(code, ErrorCode::NotEnoughReplicas, "{value} to {topic}");
    assert_eq!(stored(), before, "{value} to {topic}");
}

/// A lone leader of three used to take a batch with acks=all where `min.insync.replicas` was 1, and let the producer wait for
/// a majority until the request was over; the batch could still be stored later, when the producer had given it up. Below a
/// majority the setting means the majority, and what cannot be acknowledged is refused before it is written.
#[test]
fn acks_all_is_refused_before_it_is_written_where_too_few_are_in_sync() {
    let mut cluster = Cluster::of(3);
    for (topic, in_sync_min) in TOPICS {
        cluster.order_topic(topic, 3, in_sync_min);
        cluster.await_in_sync(topic, 3);
    }
    move_to(&cluster, &NAMES, &[1, 2, 3]);
    // Of itself leadership goes back as well, later.
    let elect = async |client: &Client| client.elect_leaders(Election::Preferred, None).await.map(drop);
    cluster.await_answer("leadership goes to the first replicas", elect, |()| true);
    for topic in NAMES {
        cluster.await_partition(topic, "node 1 leads", |seen| seen.leader == 1);
    }
    let mut kept = Kept::default();
    for topic in NAMES {
        kept.store(&cluster, topic, "of-three", ALL);
    }

    cluster.kill(3);
    for topic in NAMES {
        cluster.await_in_sync_of(topic, 2);
    }
    kept.store(&cluster, "one", "of-two", ALL);
    kept.store(&cluster, "two", "of-two", ALL);
    is_refused(&cluster, "three", "of-two");
    // The leader alone is asked for, and two make a majority: it is stored, and consumers see it.
    kept.store(&cluster, "three", "of-two-and-acks-1", LEADER);
    for topic in NAMES {
        kept.await_read(&cluster, topic);
    }

    cluster.kill(2);
    for topic in NAMES {
        cluster.await_in_sync_of(topic, 1);
        is_refused(&cluster, topic, "alone");
    }
    // acks=1 is the leader's own word: it is taken while the leader may still be one, and no longer than that.
    let alone = send(&cluster, "one", NOBODYS_WORD, LEADER);
    let own_word = [ErrorCode::None, ErrorCode::NotLeaderOrFollower, ErrorCode::NetworkException];
    assert!(own_word.contains(&alone), "{alone:?}");

    cluster.start(2);
    for topic in NAMES {
        cluster.await_in_sync_of(topic, 2);
    }
    kept.store(&cluster, "one", "of-two-again", ALL);
    kept.store(&cluster, "two", "of-two-again", ALL);
    cluster.start(3);
    for topic in NAMES {
        cluster.await_in_sync(topic, 3);
        kept.store(&cluster, topic, "of-three-again", ALL);
        // What was refused is not among it.
        kept.await_read(&cluster, topic);
    }
}
