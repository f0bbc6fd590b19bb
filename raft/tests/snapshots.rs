//! Replicas that are asked for entries nobody has any more: they send, and take, sealed segments.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, NOW, append, at, replica, run};
use ouzel_model::{EntryId, EntryIndex, Offset, ReplicaId};
use ouzel_raft::suite::batch;
use ouzel_raft::suite::memory::Faults;
use ouzel_raft::{RaftGroup, ReplicatedLog, Solo, genesis_of};
use ouzel_storage::genesis::{self, term_after};
use ouzel_storage::wal::{Change, SoloState};
use ouzel_storage::{Durability, Log, LogConfig};

/// A group whose segments are sealed after a few batches.
async fn found(cluster: &Cluster, nodes: &[i32]) -> Vec<ReplicaId> {
    let config = LogConfig { segment_bytes: 1_000, ..cluster.log_config.borrow().clone() };
    cluster.log_config.replace(config);
    let voters: Vec<_> = nodes.iter().map(|node| replica(*node)).collect();
    cluster.founders.replace(voters.clone());
    for id in nodes {
        cluster.start(*id).await;
    }
    cluster.leader().await;
    voters
}

/// Waits until a replica's log begins at an offset, and its entries not before a sealed segment.
async fn purged(cluster: &Cluster, group: &RaftGroup, log_start: Offset) {
    cluster
        .eventually("the head goes", |_| group.purged().is_some() && group.offsets().log_start == log_start)
        .await;
}

/// openraft takes no snapshots on followers: each replica lets go of its log's head when retention tells it, or none but
/// the leader's would ever get shorter.
#[test]
fn trap_8_every_replica_lets_go_of_its_logs_head() {
    run(8, 3, |cluster| async move {
        found(&cluster, &[1, 2, 3]).await;
        cluster.produced(60).await;
        cluster.settled().await;
        let leader = cluster.leader().await;
        leader.retain(Offset(30)).await.expect("it leads");
        for id in cluster.ids() {
            purged(&cluster, &cluster.group(id), Offset(30)).await;
        }
        // And once more, from the next leader, after a restart.
        let dead = leader.replica().node.0;
        cluster.kill(dead);
        cluster.produced(60).await;
        cluster.start(dead).await;
        cluster.settled().await;
        cluster.leader().await.retain(Offset(90)).await.expect("it leads");
        for id in cluster.ids() {
            purged(&cluster, &cluster.group(id), Offset(90)).await;
        }
        let entry = leader.status().last_entry;
        cluster.leader().await.retain(Offset(90)).await.expect("it leads");
        assert!(entry <= cluster.leader().await.status().last_entry);
        cluster.produced(1).await;
        assert_eq!(cluster.agreed().await.len(), 31);
    });
}

/// A learner with nothing joins a group whose entries are gone from the leader's log. It got stuck in other versions.
#[test]
fn trap_18_an_empty_learner_joins_a_purged_log_under_load() {
    for durability in [Durability::Durable, Durability::WriteCaching] {
        run(18, 4, |cluster| async move {
            cluster.settings.borrow_mut().durability = durability;
            found(&cluster, &[1, 2, 3]).await;
            let mut count = cluster.produced(80).await.len();
            cluster.settled().await;
            // All is kept as data, though hardly anything as entries.
            cluster.leader().await.retain(Offset(0)).await.expect("it leads");
            cluster.eventually("a purge", |cluster| cluster.group(1).purged().is_some()).await;
            cluster.start(4).await;
            let delay = (Duration::from_millis(1), Duration::from_millis(3));
            cluster.network.set_faults(Faults { delay, ..Faults::default() });
            let joining = {
                let cluster = cluster.clone();
                let voters: Vec<_> = [1, 2, 3, 4].map(replica).to_vec();
                ouzel_runtime::spawn(async move { cluster.reconfigure(&voters).await })
            };
            while !joining.is_finished() {
                count += cluster.produced(1).await.len();
            }
            joining.await.expect("no panic");
            cluster.settled().await;
            let expected = cluster::committed(&cluster.group(1)).await;
            assert_eq!(expected.len(), count);
            assert_eq!(cluster::committed(&cluster.group(4)).await, expected);
            // What it took is on its disk.
            cluster.power_cut(4);
            cluster.start(4).await;
            cluster.settled().await;
            assert_eq!(cluster::committed(&cluster.group(4)).await, expected);
            assert_eq!(cluster.group(4).offsets().log_start, Offset(0));
        });
    }
}

/// The producers come with the snapshot: a repeat of what only its files hold is known for one.
#[test]
fn producers_come_with_the_snapshot() {
    run(3, 4, |cluster| async move {
        found(&cluster, &[1, 2, 3]).await;
        for i in 0..40 {
            cluster.produce(batch(1, Some((7, 0, i)))).await;
        }
        cluster.settled().await;
        let leader = cluster.leader().await;
        leader.local().roll();
        cluster.produced(1).await;
        leader.retain(Offset(0)).await.expect("it leads");
        cluster.eventually("a purge", |_| leader.purged().is_some()).await;
        cluster.start(4).await;
        cluster.reconfigure(&[replica(4)]).await;
        for id in [1, 2, 3] {
            cluster.kill(id);
        }
        let only = cluster.leader().await;
        let again = append(&only, batch(1, Some((7, 0, 39)))).await.expect("it leads");
        assert_eq!((again.duplicate, again.base_offset), (true, Offset(39)));
        let next = append(&only, batch(1, Some((7, 0, 40)))).await.expect("it leads");
        assert_eq!((next.duplicate, next.base_offset), (false, Offset(41)));
    });
}

/// The receiver loses its power in the middle, again and again, and the network loses messages: it gets there.
#[test]
fn a_transfer_that_breaks_off_goes_on() {
    for seed in 0..4 {
        run(seed, 4, |cluster| async move {
            found(&cluster, &[1, 2, 3]).await;
            cluster.produced(150).await;
            cluster.settled().await;
            cluster.leader().await.retain(Offset(20)).await.expect("it leads");
            cluster.eventually("a purge", |cluster| cluster.group(1).purged().is_some()).await;
            let delay = (Duration::from_millis(1), Duration::from_millis(10));
            cluster.network.set_faults(Faults { delay, loss: 20, ..Faults::default() });
            cluster.start(4).await;
            let joining = {
                let cluster = cluster.clone();
                let voters: Vec<_> = [1, 2, 3, 4].map(replica).to_vec();
                ouzel_runtime::spawn(async move { cluster.reconfigure(&voters).await })
            };
            for turn in 0..8 {
                cluster.sleep(Duration::from_millis(20 + 45 * turn + seed)).await;
                cluster.power_cut(4);
                cluster.start(4).await;
            }
            cluster.network.set_faults(Faults::default());
            joining.await.expect("no panic");
            cluster.settled().await;
            let expected = cluster::committed(&cluster.group(1)).await;
            assert_eq!(cluster::committed(&cluster.group(4)).await, expected, "seed {seed}");
            assert_eq!(cluster.group(4).offsets().log_start, Offset(20));
        });
    }
}

/// A voter that was away until its next entry was gone comes back by a snapshot, and its own tail does not survive it.
#[test]
fn a_voter_that_was_away_too_long_comes_back() {
    run(5, 3, |cluster| async move {
        found(&cluster, &[1, 2, 3]).await;
        cluster.produced(10).await;
        cluster.settled().await;
        let leader = cluster.leader().await;
        let away = cluster.others(&leader)[0];
        cluster.kill(away);
        cluster.produced(100).await;
        // What nobody may read any more is not kept for it.
        cluster.leader().await.retain(Offset(90)).await.expect("it leads");
        cluster
            .eventually("a purge", |cluster| {
                cluster.leader_now().is_some_and(|leader| leader.purged().is_some())
            })
            .await;
        cluster.start(away).await;
        cluster.settled().await;
        let expected = cluster::committed(&cluster.leader().await).await;
        assert_eq!(cluster::committed(&cluster.group(away)).await, expected);
    });
}

/// A partition that had one replica, with records and a producer, becomes a group and grows to three. Its first record
/// still has offset 0, and its producer goes on as if nothing had happened.
#[test]
fn a_single_replica_grows_to_three() {
    run(6, 3, |cluster| async move {
        let config = LogConfig { segment_bytes: 1_000, ..cluster.log_config.borrow().clone() };
        cluster.log_config.replace(config);
        let (wal, open) = cluster.disk_of(1).await;
        let log = Log::open(open).await.expect("a new log");
        let state = SoloState::opened(None, log.latest_epoch(), Offset::ZERO, cluster.boot_of(1));
        wal.commit(vec![Change::Put(at(), state)]).await.expect("a sound disk");
        let solo = Solo::new(log.clone(), state.leader_epoch, Durability::Durable);
        for i in 0..40 {
            let receipt = solo.append(batch(1, Some((7, 0, i))), NOW).await.expect("a sound disk");
            receipt.acknowledged().await.expect("a sound disk");
        }
        let entry = EntryId { term: term_after(&log, &state), index: EntryIndex(0) };
        genesis::found(&log, &wal, genesis_of(at(), replica(1), entry)).await.expect("a sound disk");
        drop((wal, log, solo));

        let first = cluster.start(1).await;
        first.elect().await;
        let leader = cluster.leader().await;
        assert!(leader.epoch() > entry.term);
        let again = append(&leader, batch(1, Some((7, 0, 39)))).await.expect("it leads");
        assert_eq!((again.duplicate, again.base_offset), (true, Offset(39)));
        for id in [2, 3] {
            cluster.start(id).await;
        }
        cluster.reconfigure(&cluster.voters()).await;
        let next = cluster.produce(batch(1, Some((7, 0, 40)))).await;
        assert_eq!(next.base_offset, Offset(40));
        let agreed = cluster.agreed().await;
        assert_eq!((agreed.len(), agreed[0].0), (41, 0));
        cluster.kill(1);
        let next = cluster.produce(batch(1, Some((7, 0, 41)))).await;
        assert_eq!((next.duplicate, next.base_offset), (false, Offset(41)));
    });
}
