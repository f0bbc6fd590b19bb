//! Groups whose members change: while clients write, while leaders die, and back.

mod cluster;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use cluster::{Cluster, replica, run};
use ouzel_model::{NodeId, Offset, ReplicaId};
use ouzel_raft::suite::batch;
use ouzel_raft::suite::memory::Faults;
use ouzel_raft::{GroupStatus, Lane, ReconfigureError, ReplicatedLog, Role};

/// Writes to whoever leads until it is told to stop; gives the offsets that were acknowledged.
struct Load {
    stop: Rc<Cell<bool>>,
    placed: Rc<RefCell<Vec<Offset>>>,
    task: ouzel_runtime::JoinHandle<()>,
}

impl Load {
    fn start(cluster: &Cluster) -> Load {
        // Time passes only while nobody can run.
        let delay = (Duration::from_millis(1), Duration::from_millis(3));
        cluster.network.set_faults(Faults { delay, ..Faults::default() });
        for id in cluster.ids() {
            cluster.node(id).machine().disk().set_delay_max(Duration::from_millis(2));
        }
        let (stop, placed) = (Rc::new(Cell::new(false)), Rc::new(RefCell::new(Vec::new())));
        let (cluster, stopped, done) = (cluster.clone(), stop.clone(), placed.clone());
        let task = ouzel_runtime::spawn(async move {
            let mut sequence = 0;
            while !stopped.get() {
                let at = cluster.produce(batch(1, Some((7, 0, sequence)))).await;
                done.borrow_mut().push(at.base_offset);
                sequence += 1;
            }
        });
        Load { stop, placed, task }
    }

    async fn end(self) -> Vec<Offset> {
        self.stop.set(true);
        self.task.await.expect("no panic");
        self.placed.take()
    }
}

/// Everything that was acknowledged is there, once and in order, on every member.
async fn check(cluster: &Cluster, placed: &[Offset], members: &[i32]) {
    let expected: Vec<_> = (0..placed.len() as i64).map(Offset).collect();
    assert_eq!(placed, expected, "one producer's batches lie one behind the other");
    cluster.settled().await;
    let leader = cluster.leader().await;
    let committed = cluster::committed(&leader).await;
    assert_eq!(committed.len(), placed.len());
    for id in members {
        assert_eq!(cluster::committed(&cluster.group(*id)).await, committed, "replica {id}");
    }
}

fn replicas(nodes: &[i32]) -> Vec<ReplicaId> {
    nodes.iter().map(|node| replica(*node)).collect()
}

/// Starts all nodes, founds the group on some.
async fn found_on(cluster: &Cluster, nodes: &[i32]) {
    cluster.found_on(nodes).await;
    cluster.leader().await;
}

#[test]
fn a_single_voter_becomes_three_under_load() {
    run(1, 3, |cluster| async move {
        found_on(&cluster, &[1]).await;
        let load = Load::start(&cluster);
        cluster.sleep(Duration::from_millis(300)).await;
        let leader = cluster.leader().await;
        leader.reconfigure(&replicas(&[1, 2, 3]), 1).await.expect("it leads");
        assert_eq!(leader.status().voters, replicas(&[1, 2, 3]));
        cluster.sleep(Duration::from_millis(300)).await;
        let placed = load.end().await;
        check(&cluster, &placed, &[1, 2, 3]).await;
        assert!(cluster.group(2).role() == Role::Follower && cluster.group(3).role() == Role::Follower);
    });
}

/// Whoever asks a replica about its voters is told what it would stand with: both sets from the moment its log has the change,
/// committed or not, also after a restart; and nothing at all before they are taken from its log.
#[test]
fn a_replica_tells_the_voters_of_its_own_log() {
    run(21, 4, |cluster| async move {
        found_on(&cluster, &[1, 2, 3]).await;
        let (before, after) = (replicas(&[1, 2, 3]), replicas(&[1, 2, 4]));
        assert_eq!(cluster.group(1).voter_sets(), Some(vec![before.clone()]));
        assert_eq!(cluster.group(4).voter_sets(), Some(Vec::new()), "nobody has told it anything");
        let leader = cluster.leader().await;
        let holders: Vec<i32> = [1, 2, 3].into_iter().filter(|id| replica(*id) != leader.replica()).collect();
        // 4 catches up; then nobody answers any more, and the change comes to the leader's log alone.
        leader.reconfigure_with(&before, &replicas(&[4]), 1).await.expect("it leads");
        cluster.settled().await;
        holders.iter().chain(&[4]).for_each(|id| cluster.kill(*id));
        let both = Some(vec![before.clone(), after.clone()]);
        let (changing, wanted) = (leader.clone(), after.clone());
        let change = ouzel_runtime::spawn(async move { changing.reconfigure(&wanted, 1).await });
        while leader.voter_sets() != both {
            cluster.sleep(Duration::from_millis(10)).await;
        }
        let id = leader.replica().node.0;
        cluster.kill(id);
        drop(change);
        // Not that there are none: that would be somebody new.
        assert_eq!(cluster.start(id).await.voter_sets(), None);
        while cluster.group(id).voter_sets().is_none() {
            cluster.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(cluster.group(id).voter_sets(), both);
    });
}

/// Learners follow and never vote, and a dead one holds nobody up; a voter may become one, and the other way round.
#[test]
fn learners_come_and_go_beside_the_voters() {
    run(9, 5, |cluster| async move {
        found_on(&cluster, &[1, 2, 3]).await;
        let load = Load::start(&cluster);
        cluster.kill(5);
        let changes: [([i32; 3], &[i32]); 4] =
            [([1, 2, 3], &[4, 5]), ([1, 2, 4], &[3, 5]), ([1, 2, 3], &[4]), ([1, 2, 3], &[])];
        for (decision, (voters, learners)) in (1..).zip(changes) {
            let (voters, learners) = (replicas(&voters), replicas(learners));
            loop {
                let leader = cluster.leader().await;
                match leader.reconfigure_with(&voters, &learners, decision).await {
                    Ok(()) => break,
                    Err(ReconfigureError::NotLeader) => cluster.sleep(Duration::from_millis(50)).await,
                    Err(error) => panic!("{error}"),
                }
            }
            let sorted = |mut list: Vec<ReplicaId>| {
                list.sort();
                list
            };
            let status = cluster.leader().await.status();
            assert_eq!((sorted(status.voters), sorted(status.learners)), (voters, sorted(learners)));
            cluster.sleep(Duration::from_millis(100)).await;
            let roles: Vec<Role> = [1, 2, 3, 4].map(|id| cluster.group(id).role()).into();
            let leading = roles.iter().filter(|role| **role == Role::Leader).count();
            assert_eq!(leading, 1, "{roles:?}");
        }
        let placed = load.end().await;
        // It was let go of, and hears nothing any more.
        cluster.kill(4);
        check(&cluster, &placed, &[1, 2, 3]).await;
    });
}

/// A learner that was given a long log took its entries in the lane of those that keep up: as fast as the leader could send,
/// whatever rate recovery was given.
#[test]
fn who_catches_up_leaves_the_way_to_those_that_keep_up() {
    run(11, 4, |cluster| async move {
        found_on(&cluster, &[1, 2, 3]).await;
        for sequence in 0..2000 {
            cluster.produce(batch(1, Some((5, 0, sequence)))).await;
        }
        let network = cluster.network.clone();
        network.set_recovery_pace(Duration::from_millis(20));
        let load = Load::start(&cluster);
        let (recovery, pending) = (network.delivered_in(Lane::Recovery), load.placed.borrow().len());
        let leader = cluster.leader().await;
        leader.reconfigure_with(&replicas(&[1, 2, 3]), &replicas(&[4]), 1).await.expect("it leads");
        let end = leader.status().committed;
        let has_half = |status: &GroupStatus| status.last_entry.is_some_and(|last| last.index.0 > 1000);
        cluster.group(4).wait_until(has_half).await;
        assert!(network.delivered_in(Lane::Recovery) > recovery, "it catches up in the lane of recovery");
        assert!(load.placed.borrow().len() > pending, "writers go on meanwhile");
        cluster.group(4).wait_until(move |status| status.last_entry >= end).await;
        // Close behind, it takes what the others take.
        cluster.sleep(Duration::from_millis(500)).await;
        let (recovery, data) = (network.delivered_in(Lane::Recovery), network.delivered_in(Lane::Data));
        cluster.sleep(Duration::from_millis(500)).await;
        assert_eq!(network.delivered_in(Lane::Recovery), recovery);
        assert!(network.delivered_in(Lane::Data) > data);
        load.end().await;
        cluster.settled().await;
        let committed = cluster::committed(&cluster.leader().await).await;
        assert_eq!(cluster::committed(&cluster.group(4)).await, committed);
    });
}

#[test]
fn all_voters_are_replaced_under_load() {
    run(2, 6, |cluster| async move {
        found_on(&cluster, &[1, 2, 3]).await;
        let load = Load::start(&cluster);
        for voters in [[1, 2, 4], [4, 5, 2], [4, 5, 6]] {
            cluster.sleep(Duration::from_millis(200)).await;
            cluster.reconfigure(&replicas(&voters)).await;
            // A leader that is let go of hands over first.
            cluster
                .eventually("one of them leads", |cluster| {
                    let leading = |id| cluster::status(cluster, id).role == Role::Leader;
                    let (stay, gone): (Vec<i32>, Vec<i32>) =
                        cluster.ids().into_iter().partition(|id| voters.contains(id));
                    stay.into_iter().any(leading) && !gone.into_iter().any(leading)
                })
                .await;
        }
        cluster.sleep(Duration::from_millis(200)).await;
        let placed = load.end().await;
        for gone in [1, 2, 3] {
            cluster.kill(gone);
        }
        check(&cluster, &placed, &[4, 5, 6]).await;
    });
}

/// The leader dies in the middle of a change. The next one carries it on when it is asked for the same.
#[test]
fn a_change_survives_its_leader() {
    for moment in [0, 2, 5, 9, 14, 20, 40] {
        run(3, 5, |cluster| async move {
            found_on(&cluster, &[1, 2, 3]).await;
            let load = Load::start(&cluster);
            cluster.sleep(Duration::from_millis(200)).await;
            let wanted = replicas(&[3, 4, 5]);
            let leader = cluster.leader().await;
            let changing = {
                let (leader, wanted) = (leader.clone(), wanted.clone());
                ouzel_runtime::spawn(async move { leader.reconfigure(&wanted, 1).await })
            };
            cluster.sleep(Duration::from_millis(moment)).await;
            let dead = leader.replica().node.0;
            cluster.kill(dead);
            changing.abort();
            cluster.reconfigure(&wanted).await;
            let placed = load.end().await;
            if wanted.contains(&replica(dead)) {
                cluster.start(dead).await;
            }
            for id in [1, 2] {
                if id != dead {
                    cluster.kill(id);
                }
            }
            check(&cluster, &placed, &[4, 5]).await;
            assert_eq!(cluster.leader().await.status().voters, wanted);
        });
    }
}

/// A node with an empty disk comes back as another life of its replica, and takes the place of the one it was.
#[test]
fn a_wiped_disk_comes_back_as_a_new_replica() {
    run(4, 3, |cluster| async move {
        found_on(&cluster, &[1, 2, 3]).await;
        let mut placed = cluster.produced(5).await;
        let leader = cluster.leader().await;
        let wiped = cluster.others(&leader)[0];
        cluster.wipe(wiped);
        let next_life = ReplicaId { node: NodeId(wiped), incarnation: 1 };
        cluster.node(wiped).replica.set(next_life);
        cluster.start(wiped).await;
        cluster.sleep(Duration::from_secs(5)).await;
        assert_eq!(cluster.group(wiped).status().voters, [], "nobody takes it for who it was");
        let voters = cluster.voters();
        cluster.reconfigure(&voters).await;
        placed.extend(cluster.produced(2).await);
        check(&cluster, &placed, &[1, 2, 3]).await;
        assert_eq!(cluster.leader().await.status().voters, voters);
    });
}

#[test]
fn a_change_is_refused_where_nobody_leads() {
    run(5, 3, |cluster| async move {
        found_on(&cluster, &[1, 2, 3]).await;
        let leader = cluster.leader().await;
        let follower = cluster.group(cluster.others(&leader)[0]);
        assert_eq!(follower.reconfigure(&replicas(&[1]), 1).await, Err(ReconfigureError::NotLeader));
        assert!(matches!(leader.reconfigure(&[], 1).await, Err(ReconfigureError::Refused(_))));
        // Nothing to do is done.
        let entry = leader.status().last_entry;
        assert_eq!(leader.reconfigure(&replicas(&[1, 2, 3]), 0).await, Ok(()));
        assert_eq!(leader.status().last_entry, entry);
    });
}

/// A leader that was let go of leads on until it has handed over. Asked for another change meanwhile, it brought the
/// process down: openraft asserts that a leader is a member of what it changes.
#[test]
fn a_leader_that_was_let_go_of_changes_nothing_more() {
    run(7, 4, |cluster| async move {
        found_on(&cluster, &[1, 2, 3]).await;
        cluster.start(4).await;
        let leader = cluster.leader().await;
        let stay: Vec<i32> = cluster.others(&leader).into_iter().filter(|id| *id != 4).collect();
        let two = replicas(&stay);
        leader
            .reconfigure(&two, 1)
            .await
            .map_or_else(|why| assert_eq!(why, ReconfigureError::NotLeader), |()| ());
        let three = [two.clone(), replicas(&[4])].concat();
        for _ in 0..5 {
            assert_eq!(leader.reconfigure(&three, 2).await, Err(ReconfigureError::NotLeader));
        }
        cluster.reconfigure(&three).await;
        cluster.produced(1).await;
    });
}

/// All founders found, whoever is first; the group has one leader and one membership.
#[test]
fn founders_agree_whoever_is_away() {
    for away in [None, Some(1), Some(2)] {
        run(6, 3, |cluster| async move {
            let voters = cluster.voters();
            cluster.founders.replace(voters.clone());
            for id in cluster.ids().into_iter().filter(|id| Some(*id) != away) {
                cluster.start(id).await;
            }
            cluster.produced(3).await;
            if let Some(id) = away {
                cluster.start(id).await;
            }
            cluster.settled().await;
            for id in cluster.ids() {
                assert_eq!(cluster::status(&cluster, id).voters, voters);
            }
        });
    }
}

/// A group that shrank to one ends as one: what was asked of it before is answered, what comes then is refused. One that is
/// not alone goes on.
#[test]
fn a_group_of_one_ends_with_everything_answered() {
    for seed in 20..40 {
        run(seed, 3, |cluster| async move {
            found_on(&cluster, &[1, 2, 3]).await;
            let mut placed = cluster.produced(5).await;
            let leader = cluster.leader().await;
            assert!(!leader.end_alone().await, "three are members");
            placed.extend(cluster.produced(1).await);
            let me = leader.replica();
            leader.reconfigure(&[me], 1).await.expect("it leads");
            cluster.node(me.node.0).machine().disk().set_delay_max(Duration::from_millis(2));
            let asked = Rc::new(RefCell::new(Vec::new()));
            let refused = Rc::new(Cell::new(0));
            let load = {
                let (leader, asked, refused) = (leader.clone(), asked.clone(), refused.clone());
                let clock = cluster.machine.runtime().clock;
                ouzel_runtime::spawn(async move {
                    for sequence in 0.. {
                        clock.sleep(Duration::from_micros(300)).await;
                        let appending = leader.append(batch(1, Some((9, 0, sequence))), cluster::NOW);
                        let Ok(receipt) = appending.await else {
                            refused.set(refused.get() + 1);
                            return;
                        };
                        // Its answer may come later: the next is on its way by then.
                        asked.borrow_mut().push(ouzel_runtime::spawn(async move {
                            receipt.acknowledged().await.map(|()| receipt.placed.base_offset)
                        }));
                    }
                })
            };
            cluster.sleep(Duration::from_millis(40 + seed)).await;
            assert!(leader.end_alone().await, "nobody else is a member");
            load.await.expect("no panic");
            assert_eq!(refused.get(), 1);
            for answer in asked.take() {
                placed.push(answer.await.expect("no panic").expect("what was taken is acknowledged"));
            }
            assert!(placed.len() > 6, "the load had begun");
            assert_eq!(placed, (0..placed.len() as i64).map(Offset).collect::<Vec<_>>());
            assert_eq!(leader.offsets().high_watermark, Offset(placed.len() as i64));
            assert_eq!(leader.role(), Role::Stopped);
        });
    }
}
