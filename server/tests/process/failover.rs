//! Three nodes are one cluster, and one of them may go.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ouzel_client::{Client, OffsetSpec, Topics};
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts};
use ouzel_model::{Offset, TimestampMs, TopicId};
use ouzel_protocol::StrBytes;
use ouzel_protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use ouzel_protocol::messages::kafka::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use ouzel_protocol::messages::kafka::{BrokerId, OffsetForLeaderEpochRequest};

use crate::cluster::{Cluster, numbered, produce, with_client};

/// Stores values while `fault` happens in their middle.
fn produce_through(cluster: &mut Cluster, topic: &str, values: &[String], fault: impl FnOnce(&mut Cluster)) {
    let bootstrap = cluster.bootstrap();
    let (tell, told) = channel();
    thread::scope(|scope| {
        let producing = scope.spawn(move || {
            produce(&bootstrap, topic, values, move |stored| {
                // Fails once the fault is there, when nobody listens any more.
                let _ = tell.send(stored);
            });
        });
        let half = values.len() / 2;
        assert!(told.iter().any(|stored| stored == half), "half of the values are never stored");
        drop(told);
        fault(cluster);
        producing.join().expect("every value is stored in the end");
    });
}

#[test]
fn a_killed_leader_is_followed_by_another_and_comes_back_to_all_it_missed() {
    let mut cluster = Cluster::of(3);
    let created = cluster.create_topic("t", 3);
    let values = numbered("v", 200);
    produce_through(&mut cluster, "t", &values, |cluster| {
        assert_eq!(cluster.kill(created.leader).signal, Some(9));
    });
    let followed = cluster.await_partition("t", "another node leads", move |seen| {
        seen.leader >= 0 && seen.leader != created.leader
    });
    assert!(followed.leader_epoch > created.leader_epoch, "{followed:?} after {created:?}");
    assert_eq!(cluster.read_all("t"), values);

    cluster.start(created.leader);
    cluster.await_in_sync("t", 3);
    // With one of the others gone, nothing is stored without the one that came back.
    let other = (1..=3).find(|node| *node != created.leader && *node != followed.leader).unwrap();
    cluster.kill(other);
    let more = numbered("w", 20);
    cluster.produce("t", &more);
    assert_eq!(cluster.read_all("t"), [values, more].concat());
}

#[test]
fn a_paused_leader_is_followed_by_another_and_wakes_up_as_a_follower() {
    let mut cluster = Cluster::of(3);
    let created = cluster.create_topic("t", 3);
    let values = numbered("v", 100);
    produce_through(&mut cluster, "t", &values, |cluster| cluster.pause(created.leader));
    cluster.await_partition("t", "another node leads", move |seen| {
        seen.leader >= 0 && seen.leader != created.leader
    });
    assert_eq!(cluster.read_all("t"), values);
    cluster.resume(created.leader);
    // It is asked too now.
    cluster.await_in_sync("t", 3);
    assert_eq!(cluster.read_all("t"), values);
}

#[test]
fn every_node_can_be_stopped_and_started_in_turn_under_a_producer() {
    let mut cluster = Cluster::of(3);
    cluster.create_topic("t", 3);
    let values = numbered("v", 300);
    produce_through(&mut cluster, "t", &values, |cluster| {
        for node in 1..=3 {
            cluster.stop(node);
            cluster.start(node);
            cluster.await_in_sync("t", 3);
        }
    });
    assert_eq!(cluster.read_all("t"), values);
}

/// Stores `v-0`, `v-1` and so on with acks=1, each told by the leader alone, until it takes no more. Gives how many it took.
fn store_at_leader(address: &str, told: impl Fn(usize) + 'static) -> usize {
    with_client(address, async move |client, _| {
        let leader = client.leader("t", 0).await.unwrap();
        for stored in 0.. {
            let value = format!("v-{stored}");
            let mut batch = BatchBuilder::new(Codec::None);
            let parts = RecordParts { value: Some(value.as_bytes()), ..RecordParts::default() };
            batch.push(TimestampMs(1_700_000_000_000), &parts);
            let patience = Duration::from_secs(30);
            let stores = ouzel_client::producer::produce(&leader, "t", 0, batch.build().into(), 1, patience);
            match stores.await {
                Ok(Some(answer)) if answer.error_code == 0 => assert_eq!(answer.base_offset, stored as i64),
                _ => return stored,
            }
            told(stored + 1);
        }
        unreachable!("it is cut off");
    })
}

/// A leader that was cut off from two others and has died since.
struct CutOff {
    cluster: Cluster,
    leader: i32,
    epoch: i32,
    /// Records that it took.
    stored: usize,
    /// Of these the others have so many, and lead with them.
    kept: usize,
}

/// What the cluster holds of it before the leader is cut off.
const ENOUGH: usize = 50;

impl CutOff {
    /// A leader that took more than the others have.
    ///
    /// It has half a second for that, its lease: a machine that is busy with something else may take that from it, or its
    /// leadership before. Then there is nothing to see, and it is tried again.
    fn with_records_of_its_own() -> CutOff {
        let mut tries = std::iter::repeat_with(CutOff::try_once).take(10).flatten();
        tries.find(|cut_off| cut_off.kept < cut_off.stored).expect("one in ten has half a second")
    }

    /// None, if it did not get as far as being cut off while it leads.
    fn try_once() -> Option<CutOff> {
        let mut cluster = Cluster::of(3);
        let created = cluster.create_topic("t", 3);
        let others: Vec<i32> = (1..=3).filter(|node| *node != created.leader).collect();
        let address = cluster.kafka_address(created.leader);
        let (tell, told) = channel();
        let stored = thread::scope(|scope| {
            let storing = scope.spawn(move || {
                // Nobody listens any more once there are enough.
                store_at_leader(&address, move |stored| _ = tell.send(stored))
            });
            told.iter().find(|stored| *stored == ENOUGH)?;
            // Consumers see what a majority has: one of the others has them too then.
            cluster.await_answer(
                "the others have some of them",
                async |client| {
                    let wanted = [("t".to_owned(), 0, OffsetSpec::Latest)];
                    Ok(client
                        .list_offsets(&wanted)
                        .await?
                        .remove(&("t".to_owned(), 0))
                        .expect("it was asked for"))
                },
                |end| end.offset >= Some(Offset(ENOUGH as i64)),
            );
            others.iter().for_each(|other| assert_eq!(cluster.kill(*other).signal, Some(9)));
            Some(storing.join().expect("in the end it knows that it leads nobody"))
        })?;
        cluster.kill(created.leader);
        // Neither is ready before the other is there.
        others.iter().for_each(|other| cluster.launch(*other, &[]));
        others.iter().for_each(|other| cluster.node(*other).await_ready());
        cluster.await_partition("t", "one of the others leads", move |seen| {
            others.contains(&seen.leader) && seen.leader_epoch > created.leader_epoch
        });
        let kept = cluster.read_all("t").len();
        assert!(ENOUGH <= kept && kept <= stored, "of {stored} records the others have {kept}");
        Some(CutOff { cluster, leader: created.leader, epoch: created.leader_epoch, stored, kept })
    }

    /// Waits until whoever leads says where the epoch of the leader that was cut off has ended: in OffsetForLeaderEpoch, and
    /// in Fetch to one who has read up to the end of what was stored in it.
    fn await_end(&self) -> [Option<(i32, i64)>; 2] {
        let (epoch, from) = (self.epoch, self.stored as i64);
        let ask = async move |client: &Client| {
            let seen = client.metadata(Topics::All).await?;
            let current = seen.topics["t"].partitions[&0].leader_epoch;
            let leader = client.leader("t", 0).await?.connection;
            let asked = OffsetForLeaderPartition::default()
                .with_partition(0)
                .with_current_leader_epoch(current)
                .with_leader_epoch(epoch);
            let topic = OffsetForLeaderTopic::default()
                .with_topic(StrBytes::from_static_str("t").into())
                .with_partitions(vec![asked]);
            let request =
                OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
            let said = leader.call(request).await?.topics.remove(0).partitions.remove(0);
            let asked = FetchPartition {
                current_leader_epoch: current,
                fetch_offset: from,
                last_fetched_epoch: epoch,
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            };
            let topic = StrBytes::from_static_str("t");
            let topics = vec![FetchTopic { name: topic, topic_id: TopicId::ZERO, partitions: vec![asked] }];
            let request = FetchRequest { topics, ..FetchRequest::default() };
            let fetched = leader.call_within(request, FETCH_BY_NAME, Duration::ZERO).await?;
            let fetched = fetched.topics.into_iter().next().unwrap().partitions.remove(0);
            let diverging = fetched.diverging_epoch.map(|ended| (ended.epoch, ended.end_offset));
            let ended = [Some((said.leader_epoch, said.end_offset)), diverging];
            Ok((said.error_code, fetched.error_code, ended))
        };
        // Leadership may go from one to another meanwhile.
        self.cluster
            .await_answer("somebody leads, and says it", ask, |(said, fetched, _)| {
                *said == 0 && *fetched == 0
            })
            .2
    }
}

/// The last version of Fetch that names topics by name.
const FETCH_BY_NAME: i16 = 12;

/// acks=1 promises what the leader has. One that is cut off from the others goes on for as long as it may believe to lead, and
/// what it takes then is cut when it comes back. A client that has read or written up to there knows the epoch, and is told by
/// the next leader where that ended: at what the others had, not at what was acknowledged (KIP-320).
#[test]
fn what_a_cut_off_leader_had_alone_is_cut_and_the_next_one_says_where() {
    let mut cut_off = CutOff::with_records_of_its_own();
    let ended = Some((cut_off.epoch, cut_off.kept as i64));
    assert_eq!(cut_off.await_end(), [ended, ended]);
    let more = numbered("w", 20);
    cut_off.cluster.produce("t", &more);

    cut_off.cluster.start(cut_off.leader);
    cut_off.cluster.await_in_sync("t", 3);
    assert_eq!(cut_off.await_end(), [ended, ended], "also behind what was stored since");
    // It has what the others have: with one of them gone, nobody is elected without it or what it would have to have.
    cut_off.cluster.kill(cut_off.leader % 3 + 1);
    let expected = [numbered("v", cut_off.kept), more].concat();
    assert_eq!(cut_off.cluster.read_all("t"), expected);
    assert_eq!(cut_off.await_end(), [ended, ended], "whoever leads without that one says the same");
}
