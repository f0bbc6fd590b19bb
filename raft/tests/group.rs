//! Groups of three replicas: elections, replication, failover, membership.

mod cluster;

use std::time::Duration;

use cluster::{append, run};
use ouzel_raft::suite::{self, batch};
use ouzel_raft::{ReplicatedLog, Role};

#[test]
fn a_new_group_elects_and_replicates() {
    run(1, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        for i in 0..20 {
            let placed = append(&leader, batch(3, None)).await.expect("it leads");
            assert_eq!(placed.base_offset.value(), i * 3);
        }
        cluster.settled().await;
        let expected = cluster::committed(&leader).await;
        assert_eq!(expected.len(), 20);
        for id in cluster.ids() {
            assert_eq!(cluster::committed(&cluster.group(id)).await, expected, "replica {id}");
        }
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
