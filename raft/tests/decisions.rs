//! A group remembers the newest decision about its members that it has acted on, and acts on no older one.
//!
//! The story: a move from A to B is decided and given up again; the group settles in A, and B deletes what it had. Then a
//! node of A comes to lead that has not heard of the end of the move. It must not move the group to B.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, replica, run};
use ouzel_model::{Offset, ReplicaId};
use ouzel_raft::{ReconfigureError, Role};

fn replicas(nodes: &[i32]) -> Vec<ReplicaId> {
    nodes.iter().map(|node| replica(*node)).collect()
}

async fn found_on(cluster: &Cluster, nodes: &[i32]) {
    cluster.founders.replace(replicas(nodes));
    for id in nodes {
        cluster.start(*id).await;
    }
    cluster.leader().await;
}

fn overruled(wanted: u32, newest: u32) -> Result<(), ReconfigureError> {
    Err(ReconfigureError::Overruled { wanted, newest })
}

#[test]
fn a_move_that_was_given_up_is_carried_out_by_no_later_leader() {
    run(1, 6, |cluster| async move {
        found_on(&cluster, &[1, 2, 3]).await;
        cluster.produced(3).await;
        // Given up before anything came of it: the voters stay who they are, and yet it is noted.
        cluster.carry_out(&replicas(&[1, 2, 3]), 3).await;
        for id in [4, 5, 6] {
            cluster.start(id).await;
        }
        for _ in 0..3 {
            let leader = cluster.leader().await;
            assert_eq!(leader.reconfigure(&replicas(&[4, 5, 6]), 2).await, overruled(2, 3));
            assert_eq!((leader.decision(), leader.status().voters), (3, replicas(&[1, 2, 3])));
            let next = cluster.others(&leader).into_iter().find(|id| *id <= 3).expect("two others");
            leader.transfer(replica(next)).await.expect("it is up");
        }
        // Nor after all of them lost their power.
        for id in 1..=6 {
            cluster.power_cut(id);
        }
        for id in 1..=6 {
            cluster.start(id).await;
        }
        let leader = cluster.leader().await;
        assert_eq!(leader.reconfigure(&replicas(&[4, 5, 6]), 2).await, overruled(2, 3));
        // A later one is.
        cluster.carry_out(&replicas(&[4, 5, 6]), 4).await;
        cluster
            .eventually("the new ones lead", |cluster| {
                [4, 5, 6].iter().any(|id| cluster::status(cluster, *id).role == Role::Leader)
            })
            .await;
        cluster.settled().await;
    });
}

/// The entry that notes the decision goes with the others that become data, and who joins later never sees it: it comes
/// with the purge point, and with the snapshot.
#[test]
fn a_decision_outlives_its_entry() {
    run(2, 4, |cluster| async move {
        cluster.log_config.borrow_mut().segment_bytes = 1_000;
        found_on(&cluster, &[1, 2, 3]).await;
        cluster.carry_out(&replicas(&[1, 2, 3]), 7).await;
        cluster.produced(80).await;
        cluster.settled().await;
        cluster.leader().await.retain(Offset(60)).await.expect("it leads");
        for id in [1, 2, 3] {
            cluster.eventually("a purge", |cluster| cluster.group(id).purged().is_some()).await;
            assert_eq!(cluster.group(id).decision(), 7);
        }
        for id in [1, 2, 3] {
            cluster.power_cut(id);
            cluster.start(id).await;
        }
        let leader = cluster.leader().await;
        assert_eq!(leader.reconfigure(&replicas(&[1, 2]), 6).await, overruled(6, 7));
        cluster.start(4).await;
        // The same decision again, as a leader does that carries on.
        cluster.carry_out(&replicas(&[1, 2, 3, 4]), 7).await;
        cluster.settled().await;
        assert_eq!(cluster.group(4).decision(), 7);
        cluster.leader().await.transfer(replica(4)).await.map_or_else(|error| panic!("{error}"), |()| ());
        let last = cluster.leader().await;
        assert_eq!(last.replica(), replica(4));
        assert_eq!(last.reconfigure(&replicas(&[1, 2]), 6).await, overruled(6, 7));
        // It took the decision to its disk.
        cluster.power_cut(4);
        assert_eq!(cluster.start(4).await.decision(), 7);
    });
}

/// A change that waits for a member which does not come is overtaken by the next decision, and makes nothing of it undone.
#[test]
fn a_change_that_waits_ends_when_it_is_overruled() {
    run(3, 4, |cluster| async move {
        found_on(&cluster, &[1, 2, 3]).await;
        let leader = cluster.leader().await;
        let waiting = {
            let leader = leader.clone();
            ouzel_runtime::spawn(async move { leader.reconfigure(&replicas(&[1, 2, 4]), 2).await })
        };
        cluster.eventually("a learner", |_| leader.status().learners == [replica(4)]).await;
        cluster.sleep(Duration::from_secs(3)).await;
        assert!(!waiting.is_finished(), "nobody is there to catch up");
        assert_eq!(leader.reconfigure(&replicas(&[1, 2, 3]), 3).await, Ok(()));
        assert_eq!(waiting.await.expect("no panic"), overruled(2, 3));
        cluster.start(4).await;
        cluster.sleep(Duration::from_secs(3)).await;
        let status = leader.status();
        assert_eq!((status.voters, status.learners), (replicas(&[1, 2, 3]), Vec::new()));
    });
}
