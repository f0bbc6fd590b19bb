//! Groups of three replicas: elections, replication, failover, membership.

mod cluster;

use std::time::Duration;

use cluster::{Failed, append, run};
use ouzel_raft::suite::{self, batch};
use ouzel_raft::{AppendRefused, ReplicatedLog, Role};

#[test]
fn a_new_group_elects_and_replicates() {
    run(1, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        for i in 0..20 {
            let placed = append(&leader, batch(3, None)).await.expect("it leads");
            assert_eq!(placed.base_offset.value(), i * 3);
        }
        assert_eq!(cluster.agreed().await.len(), 20);
    });
}

#[test]
fn a_group_passes_the_suite() {
    run(2, 3, |cluster| async move {
        let turn = std::cell::Cell::new(0);
        let fresh = || {
            turn.set(turn.get() + 1);
            let other = cluster::Cluster::new(cluster.machine.beside(100 + turn.get()), 3);
            async move {
                other.found().await;
                let leader = other.leader().await;
                std::mem::forget(other);
                leader
            }
        };
        suite::run(fresh).await;
    });
}

/// A producer's first batch met a replica that did not lead yet, its second one, a moment later, the same replica when it
/// did. The log did not know the producer, took the second batch, and refused the first for ever: Kafka's producer tried
/// until its delivery timeout. A log that knows nobody takes any sequence all the same: producers whose topic was made anew
/// begin in the middle.
#[test]
fn what_was_refused_for_a_moment_comes_first() {
    run(5, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        let next = cluster.group(cluster.others(&leader)[0]);
        let (first, second) = (|| batch(1, Some((7, 0, 0))), || batch(1, Some((7, 0, 1))));
        assert_eq!(append(&next, first()).await, Err(Failed::Refused(AppendRefused::NotLeader)));
        leader.transfer(next.replica()).await.expect("it is handed over");
        let out_of_order = AppendRefused::OutOfOrderSequence {
            producer_id: ouzel_model::ProducerId(7),
            expected: 0,
            found: 1,
        };
        assert_eq!(append(&next, second()).await, Err(Failed::Refused(out_of_order)));
        assert_eq!(append(&next, first()).await.expect("it comes first").base_offset.value(), 0);
        assert_eq!(append(&next, second()).await.expect("now").base_offset.value(), 1);
        assert_eq!(append(&next, batch(1, Some((8, 0, 77)))).await.expect("anywhere").base_offset.value(), 2);
    });
}

#[test]
fn leadership_is_handed_over() {
    run(3, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        append(&leader, batch(3, None)).await.expect("it leads");
        let to = *cluster.voters().iter().find(|voter| **voter != leader.replica()).expect("three");
        leader.transfer(to).await.expect("it is handed over");
        let next = cluster.leader().await;
        assert_eq!(next.replica(), to);
        append(&next, batch(3, None)).await.expect("it leads");
        assert_ne!(leader.role(), Role::Leader);
        cluster.sleep(Duration::from_secs(1)).await;
        assert_eq!(leader.epoch(), next.epoch());
    });
}

/// A process was started again, its replica had opened and asked its leader what there was to ask, and only then did the
/// leader's node notice that another process answered. The replica had nothing more to say, and nobody had anything to say
/// to it: in an idle group it was out of sync until the next record.
#[test]
fn a_voter_that_spoke_before_its_restart_was_noted_is_in_sync() {
    run(31, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        cluster.settled().await;
        cluster.eventually("all are in sync", |_| leader.in_sync_count() == 3).await;
        let [open, dead] = cluster.others(&leader)[..] else { panic!("three") };
        cluster.kill(dead);
        for node in [open, dead] {
            leader.note_restart(ouzel_model::NodeId(node));
        }
        assert_eq!(leader.in_sync_count(), 1);
        cluster.eventually("who is open has answered", |_| leader.in_sync_count() == 2).await;
        cluster.sleep(Duration::from_secs(5)).await;
        let in_sync: Vec<i32> = leader.status().in_sync.iter().map(|replica| replica.node.0).collect();
        assert!(in_sync.contains(&open) && !in_sync.contains(&dead), "{in_sync:?}");
    });
}
