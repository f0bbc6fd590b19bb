//! What openraft does that a broker must not suffer from: each trap has the number and name it has in
//! docs/decisions/0013-groups-over-openraft.md, and a test that falls into it unless it is designed for.

mod cluster;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use cluster::{Cluster, NOW, append, at, replica, run};
use ouzel_model::batch::{BatchBuilder, Codec, RecordParts};
use ouzel_model::{NodeId, Offset, ReplicaId};
use ouzel_raft::suite::batch;
use ouzel_raft::{
    Lane, OpenGroupError, RaftGroup, Receipt, ReplicatedLog, Role, Ticks, TransferError, Transport,
};

/// Founds a group that does not tick, and waits for its first leader.
async fn served(cluster: &Cluster) {
    cluster.settings.borrow_mut().ticks = Ticks::Served;
    cluster.found().await;
    cluster.leader().await;
}

/// A leader that has heard nothing of its quorum for a second refuses writes, since it may have been replaced: every first
/// write to an idle partition failed.
#[test]
fn trap_1_an_idle_leader_takes_its_first_write() {
    run(1, 3, |cluster| async move {
        served(&cluster).await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        for _ in 0..5 {
            cluster.sleep(Duration::from_secs(60)).await;
            append(&leader, batch(1, None)).await.expect("it was idle, not replaced");
        }
    });
}

/// openraft keeps a leader that has lost its quorum silent for a while, then lets it ask, in turns of some seconds. A leader
/// that is served has heard of its quorum only when it last wrote: half of all first writes, by how long ago that was, were
/// refused without asking anybody. Producers with acks=0 lost everything they sent, others waited and were reordered.
#[test]
fn trap_1_an_idle_leader_asks_its_quorum_however_long_it_was_idle() {
    run(101, 3, |cluster| async move {
        served(&cluster).await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        for tenths in 5..80 {
            cluster.sleep(Duration::from_millis(100 * tenths)).await;
            let taken = append(&leader, batch(1, None)).await;
            taken.unwrap_or_else(|error| panic!("idle for {tenths} tenths of a second: {error:?}"));
        }
    });
}

/// A leader just elected has not heard of its quorum yet, and refuses as well.
#[test]
fn trap_2_a_fresh_leader_takes_its_first_write() {
    run(2, 3, |cluster| async move {
        served(&cluster).await;
        for _ in 0..30 {
            let leader = cluster.leader().await;
            append(&leader, batch(1, None)).await.expect("the first write of its reign");
            let to = *cluster.voters().iter().find(|voter| **voter != leader.replica()).expect("three");
            leader.transfer(to).await.expect("it is handed over");
        }
    });
}

/// A long election timeout would spare a leader on a slow machine its elections, and is how long a follower believes in one that
/// is gone: nobody may be elected before it is over.
#[test]
fn trap_3_a_leader_that_died_is_followed_within_two_rounds_of_votes() {
    for seed in 300..320 {
        run(seed, 3, |cluster| async move {
            cluster.found().await;
            let leader = cluster.leader().await;
            append(&leader, batch(1, None)).await.expect("it leads");
            let clock = cluster.machine.runtime().clock;
            let died_at = clock.now();
            cluster.kill(leader.replica().node.0);
            let next = cluster.leader().await;
            append(&next, batch(1, None)).await.expect("it leads");
            let took = clock.now().duration_since(died_at);
            // Two may stand at once, and none of them win: then there is another round.
            assert!(took <= 2 * Duration::from_millis(850), "seed {seed}: {took:?}");
        });
    }
}

/// Ticks are what idle groups cost: a thousand of them took a quarter of a core.
#[test]
fn trap_4_a_served_group_does_nothing_while_nothing_is_asked_of_it() {
    run(4, 3, |cluster| async move {
        served(&cluster).await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        cluster.settled().await;
        cluster.sleep(Duration::from_secs(10)).await;
        let before = cluster.network.delivered();
        cluster.sleep(Duration::from_secs(3600)).await;
        assert_eq!(cluster.network.delivered(), before);
        assert_eq!(leader.role(), Role::Leader);
    });
}

/// openraft's own answer to a pre-vote that a network does not carry is yes: then a node that was cut off would come back
/// with a higher term each time, and depose a leader that nobody misses.
#[test]
fn trap_7_a_node_that_was_cut_off_deposes_nobody() {
    run(7, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        cluster.settled().await;
        let epoch = leader.epoch();
        let lonely = cluster.others(&leader)[0];
        cluster.network.isolate(NodeId(lonely), cluster.ids().into_iter().map(NodeId));
        cluster.sleep(Duration::from_secs(30)).await;
        assert_eq!(cluster.group(lonely).epoch(), epoch, "it asked whether it could win before it stood");
        cluster.network.heal();
        cluster.sleep(Duration::from_secs(5)).await;
        assert_eq!((leader.role(), leader.epoch()), (Role::Leader, epoch));
    });
}

/// openraft's own transfer is a message that its network does not carry: nothing happens. And once asked, a leader takes no
/// writes any more, whether its successor answers or not: so a successor that is gone must be found out before.
#[test]
fn trap_7_leadership_is_not_given_to_a_replica_that_is_gone() {
    run(71, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        let gone = cluster.others(&leader)[0];
        cluster.kill(gone);
        let to = replica(gone);
        assert_eq!(leader.transfer(to).await, Err(TransferError::NotReady(to)));
        assert_eq!(leader.transfer(replica(9)).await, Err(TransferError::NotAVoter(replica(9))));
        append(&leader, batch(1, None)).await.expect("it still leads");
    });
}

/// The successor falls silent after it said it was there: the old leader cannot take its promise back, so it has the
/// others elect.
#[test]
fn trap_7_a_transfer_that_gets_stuck_ends_in_an_election() {
    run(72, 3, |cluster| async move {
        served(&cluster).await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        let to = cluster.others(&leader)[0];
        let handing = {
            let leader = leader.clone();
            ouzel_runtime::spawn(async move { leader.transfer(replica(to)).await })
        };
        // Its answer to the question whether it is there gets through, and nothing after it.
        let (network, others) = (cluster.network.clone(), cluster.ids());
        network.isolate_after(NodeId(to), others.into_iter().map(NodeId), 1);
        assert_eq!(handing.await.expect("no panic"), Err(TransferError::NotTaken(replica(to))));
        let next = cluster.leader().await;
        assert_ne!(next.replica(), replica(to));
        append(&next, batch(1, None)).await.expect("somebody leads");
    });
}

/// Whoever asked for a transfer stopped waiting for it, as a leader does whose move is given up; the successor had just been started
/// again, and did not take over. Nobody asked the others to elect: the leader stayed, and took no writes for good. (The simulation of
/// clusters, seed 9200100.)
#[test]
fn trap_7_a_transfer_that_nobody_waits_for_comes_to_its_end() {
    for waited_ms in 0..30 {
        run(73, 3, |cluster| async move {
            served(&cluster).await;
            let leader = cluster.leader().await;
            append(&leader, batch(1, None)).await.expect("it leads");
            let to = cluster.others(&leader)[0];
            let transfer = leader.transfer(replica(to));
            let clock = cluster.node(to).machine().runtime().clock;
            let taken = clock.timeout(Duration::from_millis(waited_ms), transfer).await;
            cluster.network.isolate(NodeId(to), cluster.ids().into_iter().map(NodeId));
            if taken.is_err() {
                cluster.produce(batch(1, None)).await;
            }
        });
    }
}

/// A disk that said "flushed" and had not: its replica comes back with less than it had acknowledged. openraft took that for
/// impossible: a panic of the leader in a debug build, a follower that never gets anywhere in a release.
#[test]
fn trap_9_a_follower_whose_disk_lied_is_counted_and_sent_what_it_lacks() {
    let counted = Rc::new(Cell::new(0));
    // What a power cut leaves of unflushed data is chance.
    for seed in 0..20 {
        let counting = counted.clone();
        run(seed, 3, |cluster| async move {
            cluster.found().await;
            let leader = cluster.leader().await;
            append(&leader, batch(1, None)).await.expect("it leads");
            cluster.settled().await;
            let liar = cluster.others(&leader)[0];
            cluster.node(liar).machine().disk().set_lies(true);
            for _ in 0..5 {
                append(&leader, batch(1, None)).await.expect("it leads");
            }
            cluster.settled().await;
            cluster.power_cut(liar);
            cluster.node(liar).machine().disk().set_lies(false);
            let back = cluster.start(liar).await;
            cluster.settled().await;
            assert_eq!(cluster::committed(&back).await, cluster::committed(&leader).await, "seed {seed}");
            assert_eq!(leader.role(), Role::Leader, "seed {seed}");
            counting.set(counting.get() + leader.status().reversions);
        });
    }
    assert!(counted.get() > 0, "no power cut of twenty took anything, or nobody noticed");
}

/// A node's number is used again after its disk was lost: counted as the voter it was, it could elect a leader that lacks
/// what it had acknowledged.
#[test]
fn trap_10_another_life_of_a_replica_is_another_replica() {
    run(10, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        let node = cluster.others(&leader)[0];
        let next_life = ReplicaId { node: NodeId(node), incarnation: 1 };
        // What is for the one is refused by the other.
        let message = cluster::a_message(leader.replica(), next_life);
        let answer = cluster.network.transport(leader.replica().node);
        let answer = answer.call(next_life, at(), Lane::Control, message).await.expect("an answer");
        assert!(cluster::is_refusal(&answer), "{answer:?}");
        // And neither takes up the vote of the other.
        cluster.kill(node);
        cluster.node(node).replica.set(next_life);
        let refused = cluster.try_start(node).await.expect_err("the disk has another's vote");
        assert!(matches!(refused, OpenGroupError::OtherReplica { .. }), "{refused}");
    });
}

/// A leader that is heard but hears nobody: its heartbeats kept the others from electing one that could commit.
#[test]
fn trap_11_a_leader_that_hears_nobody_gives_way() {
    run(11, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        cluster.settled().await;
        for other in cluster.others(&leader) {
            cluster.network.cut(NodeId(other), leader.replica().node);
        }
        cluster
            .eventually("another leader", |cluster| {
                cluster.others(&leader).iter().any(|id| cluster.group(*id).role() == Role::Leader)
            })
            .await;
    });
}

/// The first error of a disk stops openraft for good. It must not stop the process, nor the group.
#[test]
fn trap_12_an_error_of_a_disk_costs_one_replica() {
    run(12, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        cluster.settled().await;
        let broken = cluster.others(&leader)[0];
        cluster.node(broken).machine().disk().fail_sync_after(0);
        for _ in 0..3 {
            append(&leader, batch(1, None)).await.expect("two are enough");
        }
        let broken = cluster.group(broken);
        cluster.eventually("the replica says why", |_| broken.status().failure.is_some()).await;
        assert_eq!(broken.role(), Role::Stopped);
        append(&leader, batch(1, None)).await.expect("two are enough");
    });
}

/// openraft does nothing else while it purges. Retention that let go of many segments at once, on disks that take their time for
/// the files of each, had the leader refuse writes until all of them were gone; it goes one segment at a time.
#[test]
fn trap_13_a_long_purge_on_slow_disks_holds_nobody_up() {
    run(13, 3, |cluster| async move {
        cluster.log_config.borrow_mut().segment_bytes = 800;
        cluster.found().await;
        cluster.produced(400).await;
        cluster.settled().await;
        let leader = cluster.leader().await;
        let epoch = leader.epoch();
        for id in cluster.ids() {
            cluster.node(id).machine().disk().set_delay_max(Duration::from_millis(100));
        }
        leader.retain(Offset::ZERO).await.expect("it leads");
        let is_purged = |id: &i32| cluster.group(*id).local().purged_end() > Offset(300);
        let deadline = cluster.machine.runtime().clock.now() + Duration::from_secs(120);
        while !cluster.ids().iter().all(is_purged) {
            assert!(cluster.machine.runtime().clock.now() < deadline, "a purge on each");
            append(&leader, batch(1, None)).await.expect("it leads, and takes writes meanwhile");
            assert_eq!((leader.role(), leader.epoch()), (Role::Leader, epoch));
        }
    });
}

/// And for a vote, which is flushed on the medium: elections come about on slow disks too.
#[test]
fn trap_13_votes_on_slow_disks_elect() {
    run(131, 3, |cluster| async move {
        cluster.found().await;
        for _ in 0..5 {
            let leader = cluster.leader().await;
            append(&leader, batch(1, None)).await.expect("it leads");
            for id in cluster.ids() {
                cluster.node(id).machine().disk().set_delay_max(Duration::from_millis(60));
            }
            let dead = leader.replica().node.0;
            cluster.kill(dead);
            cluster.leader().await;
            cluster.produce(batch(1, None)).await;
            cluster.start(dead).await;
            cluster.settled().await;
        }
    });
}

/// A disk that takes longer than the heartbeat: openraft's time limit for a message is the heartbeat interval, and a
/// follower whose every answer came too late never got anywhere.
#[test]
fn trap_14_a_slow_disk_is_waited_for() {
    run(14, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        let others = cluster.others(&leader);
        cluster.kill(others[0]);
        cluster.node(others[1]).machine().disk().set_delay_max(Duration::from_millis(220));
        for _ in 0..30 {
            append(&leader, batch(1, None)).await.expect("it takes its time");
        }
    });
}

/// A replica that was taken out of its group goes on by its own clock, and knows nothing of it: it must not disturb those
/// that stay.
#[test]
fn trap_19_a_replica_that_was_removed_disturbs_nobody() {
    run(19, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        let gone = cluster.others(&leader)[0];
        let stay: Vec<_> = cluster.voters().into_iter().filter(|voter| *voter != replica(gone)).collect();
        // It does not even hear of it.
        cluster.network.isolate(NodeId(gone), cluster.ids().into_iter().map(NodeId));
        leader.reconfigure(&stay, 1).await.expect("two are a majority of three");
        cluster.network.heal();
        let epoch = leader.epoch();
        cluster.sleep(Duration::from_secs(60)).await;
        assert_eq!((leader.role(), leader.epoch()), (Role::Leader, epoch));
        assert_eq!(leader.status().voters, stay);
    });
}

/// Without Send bounds openraft's handles must stay on the thread that made them. The compiler sees to it: this would not be
/// compiled if one of these could be sent to another.
#[test]
fn trap_20_nothing_of_a_group_can_go_to_another_thread() {
    trait StaysHere<Marker> {
        fn stays_here() {}
    }
    impl<T: ?Sized> StaysHere<()> for T {}
    // For a type that is Send there are two, and no telling which is meant.
    impl<T: ?Sized + Send> StaysHere<u8> for T {}
    <RaftGroup as StaysHere<_>>::stays_here();
    <Receipt as StaysHere<_>>::stays_here();
    <dyn Transport as StaysHere<_>>::stays_here();
}

/// openraft reads each entry again for each follower, and to apply it: from the disk, if nothing kept it in memory.
#[test]
fn trap_21_what_was_just_written_is_not_read_from_the_disk() {
    run(21, 3, |cluster| async move {
        cluster.found().await;
        cluster.produced(5).await;
        cluster.settled().await;
        let reads = |cluster: &Cluster| -> Vec<u64> {
            cluster.ids().iter().map(|id| cluster.node(*id).machine().disk().counts().reads).collect()
        };
        let before = reads(&cluster);
        cluster.produced(100).await;
        cluster.settled().await;
        assert_eq!(reads(&cluster), before, "by replica");
    });
}

/// openraft bounds what a message carries by a count, so the bytes are bounded where entries are read; but an answer without
/// entries is a breach of its contract, which ends in pauses. So a batch that is larger than the bound goes by itself, and those
/// behind it after it: a follower that was away is sent all of them.
#[test]
fn trap_22_a_batch_larger_than_a_message_is_sent_all_the_same() {
    run(22, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        let away = cluster.others(&leader)[0];
        cluster.network.isolate(NodeId(away), cluster.ids().into_iter().map(NodeId));
        // Below the bound of about 1 MiB, just at it, above it, and several times that.
        for bytes in [1 << 10, 1 << 20, 3 << 19, 5 << 20, 10] {
            append(&leader, of_bytes(bytes)).await.expect("two are enough");
        }
        cluster.network.heal();
        cluster.settled().await;
        let [there, expected] = [&cluster.group(away), &leader];
        assert_eq!(cluster::committed(there).await, cluster::committed(expected).await);
    });
}

/// A batch of one record with a value of so many bytes.
fn of_bytes(bytes: usize) -> BytesMut {
    let value = vec![b'x'; bytes];
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(NOW, &RecordParts { value: Some(&value), ..RecordParts::default() });
    BytesMut::from(&builder.build()[..])
}

/// Terms are leader epochs, which have 31 bits: no message may push a group beyond them.
#[test]
fn trap_23_no_message_ends_the_terms() {
    run(23, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        let from = replica(cluster.others(&leader)[0]);
        let message = cluster::a_vote(from, leader.replica(), u32::MAX);
        let answer = cluster.network.transport(from.node);
        let answer = answer.call(leader.replica(), at(), Lane::Control, message).await.expect("an answer");
        assert!(cluster::is_refusal(&answer), "{answer:?}");
        append(&leader, batch(1, None)).await.expect("it leads on");
    });
}
