//! Leaders die, come back, and find that the group went on without them.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, Failed, NOW, append, replica, run};
use ouzel_model::{LeaderEpoch, NodeId, Offset, ReplicaId};
use ouzel_raft::suite::batch;
use ouzel_raft::suite::memory::Faults;
use ouzel_raft::{AppendRefused, RaftGroup, ReplicatedLog, Role, Ticks, Unacknowledged};
use ouzel_storage::Durability;

#[test]
fn what_was_acknowledged_survives_its_leader() {
    for durability in [Durability::Durable, Durability::WriteCaching, Durability::Os] {
        run(1, 3, |cluster| async move {
            cluster.settings.borrow_mut().durability = durability;
            cluster.found().await;
            let leader = cluster.leader().await;
            for _ in 0..10 {
                append(&leader, batch(2, None)).await.expect("it leads");
            }
            let before = cluster::committed(&leader).await;
            let dead = leader.replica();
            cluster.kill(dead.node.0);
            let next = cluster.leader().await;
            assert!(next.epoch() > leader.epoch());
            assert_eq!(
                next.offsets().high_watermark,
                Offset(20),
                "it serves only when it knows what is committed"
            );
            assert_eq!(cluster::committed(&next).await, before);
            append(&next, batch(2, None)).await.expect("two are enough");
        });
    }
}

/// Elections, leases and leaders live by the monotonic clock: a wall clock that is wrong by an hour, forth or back, of a
/// leader or of others, deposes nobody, and nobody is elected later or sooner for it.
#[test]
fn a_wall_clock_an_hour_off_deposes_nobody() {
    const HOUR_MS: i64 = 3_600_000;
    run(6, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        let followers = cluster.others(&leader);
        let mut sent = 0;
        for (node, by_ms) in [
            (leader.replica().node.0, HOUR_MS),
            (followers[0], -HOUR_MS),
            (followers[1], HOUR_MS),
            (leader.replica().node.0, -2 * HOUR_MS),
        ] {
            let shows = |cluster: &cluster::Cluster| {
                let all = cluster.ids().into_iter();
                all.map(|id| cluster.node(id).machine().clock().wall_ms()).collect::<Vec<_>>()
            };
            let mut expected = shows(&cluster);
            expected[node as usize - 1] += by_ms;
            cluster.node(node).machine().clock().jump_ms(by_ms);
            assert_eq!(shows(&cluster), expected, "one clock is wrong");
            for _ in 0..10 {
                append(&leader, batch(1, None)).await.expect("it leads");
                sent += 1;
                cluster.sleep(Duration::from_secs(1)).await;
            }
            let now = cluster.leader_now().expect("a leader");
            assert_eq!((now.replica(), now.epoch()), (leader.replica(), leader.epoch()));
        }
        cluster.settled().await;
        let before = cluster::committed(&leader).await;
        assert_eq!(before.len(), sent);
        cluster.kill(leader.replica().node.0);
        let next = cluster.leader().await;
        assert!(next.epoch() > leader.epoch());
        assert_eq!(cluster::committed(&next).await, before);
    });
}

/// The deposed leader wrote what nobody else has. Its clients were told nothing; its log is cut, and the same offsets are
/// other records, in another epoch. What an epoch's end is says so to whoever read the old ones (KIP-320).
#[test]
fn a_deposed_leaders_tail_is_cut() {
    run(2, 3, |cluster| async move {
        cluster.found().await;
        let old = cluster.leader().await;
        append(&old, batch(3, None)).await.expect("it leads");
        cluster.settled().await;
        let old_epoch = old.epoch();
        cluster.network.isolate(old.replica().node, cluster.ids().into_iter().map(NodeId));
        let lost = old.append(batch(5, None), NOW).await.expect("it does not know yet");
        assert_eq!(lost.placed.base_offset, Offset(3));
        lost.written().await.expect("its own disk is sound");
        let waiting = ouzel_runtime::spawn(async move { lost.acknowledged().await });
        cluster
            .eventually("another leader", |cluster| {
                cluster.others(&old).iter().any(|id| cluster.group(*id).role() == Role::Leader)
            })
            .await;
        let new = cluster.leader().await;
        assert_ne!(new.replica(), old.replica());
        let placed = append(&new, batch(2, None)).await.expect("two are enough");
        assert_eq!(placed.base_offset, Offset(3), "what was never acknowledged has no place");
        cluster.network.heal();
        cluster.settled().await;
        assert_eq!(waiting.await.expect("no panic"), Err(Unacknowledged::LeadershipLost));
        let expected = cluster::committed(&new).await;
        for id in cluster.ids() {
            let group = cluster.group(id);
            assert_eq!(cluster::committed(&group).await, expected, "replica {id}");
            let (known, end) = group.local().end_offset_for_epoch(old_epoch);
            assert_eq!((known, end), (old_epoch, Offset(3)), "replica {id}");
            assert_eq!(group.local().end_offset_for_epoch(new.epoch()), (new.epoch(), Offset(5)));
            assert_eq!(group.local().epoch_of(Offset(4)), Some(new.epoch()));
        }
        assert_eq!(new.local().end_offset_for_epoch(LeaderEpoch(1_000)).0, LeaderEpoch::NONE);
    });
}

/// A producer's batch was placed and its leader died before it said so. Sent again to the next leader, it is there once.
#[test]
fn a_repeat_over_a_failover_is_stored_once() {
    run(3, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        append(&leader, batch(2, Some((7, 0, 0)))).await.expect("it leads");
        let placed = append(&leader, batch(2, Some((7, 0, 2)))).await.expect("it leads");
        cluster.kill(leader.replica().node.0);
        let again = cluster.produce(batch(2, Some((7, 0, 2)))).await;
        assert_eq!((again.duplicate, again.base_offset), (true, placed.base_offset));
        let next = cluster.produce(batch(2, Some((7, 0, 4)))).await;
        assert_eq!((next.duplicate, next.base_offset), (false, Offset(4)));
        assert_eq!(cluster.leader().await.offsets().log_end, Offset(6));
    });
}

/// A refused submission leaves no trace of its producers: the same batches are taken later, by whoever leads then.
#[test]
fn a_refused_submission_is_forgotten() {
    run(4, 3, |cluster| async move {
        cluster.found().await;
        let old = cluster.leader().await;
        append(&old, batch(1, Some((7, 0, 0)))).await.expect("it leads");
        cluster.network.isolate(old.replica().node, cluster.ids().into_iter().map(NodeId));
        // Until nobody can take it for the leader any more, itself included.
        cluster.sleep(Duration::from_secs(2)).await;
        let end = old.offsets().log_end;
        for _ in 0..3 {
            let mut refused = Vec::new();
            for sequence in 1..4 {
                refused.push(old.append(batch(1, Some((7, 0, sequence))), NOW));
            }
            for appending in refused {
                assert!(matches!(appending.await, Err(AppendRefused::NotLeader)));
            }
        }
        assert_eq!(old.offsets().log_end, end, "what was refused took no place");
        cluster.network.heal();
        for sequence in 1..4 {
            let placed = cluster.produce(batch(1, Some((7, 0, sequence)))).await;
            assert!(!placed.duplicate);
        }
        cluster.settled().await;
        assert_eq!(cluster.leader().await.offsets().log_end, Offset(4));
    });
}

/// Batches of one producer in one submission are judged by each other: repeats, gaps and new epochs among them.
#[test]
fn batches_of_one_submission_are_judged_by_each_other() {
    run(5, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        let sent = [
            batch(2, Some((7, 0, 0))),
            batch(2, Some((7, 0, 2))),
            batch(2, Some((7, 0, 2))),
            batch(2, Some((7, 0, 9))),
            batch(1, Some((8, 0, 0))),
            batch(2, Some((7, 1, 0))),
            batch(2, Some((7, 0, 4))),
        ];
        // All of them before the first is polled: they are one submission.
        let appending: Vec<_> = sent.into_iter().map(|batch| leader.append(batch, NOW)).collect();
        let mut answers = Vec::new();
        for append in appending {
            answers.push(append.await.map(|receipt| (receipt.placed.base_offset, receipt.placed.duplicate)));
        }
        assert_eq!(answers[0], Ok((Offset(0), false)));
        assert_eq!(answers[1], Ok((Offset(2), false)));
        assert_eq!(answers[2], Ok((Offset(2), true)), "a repeat has its original's place");
        // Refused for good only by a leader that has proven itself, judged once more; by then the new epoch is there.
        assert!(matches!(answers[3], Err(AppendRefused::StaleProducerEpoch { .. })));
        assert_eq!(answers[4], Ok((Offset(4), false)));
        assert_eq!(answers[5], Ok((Offset(5), false)));
        assert!(matches!(answers[6], Err(AppendRefused::StaleProducerEpoch { .. })));
        assert_eq!(leader.offsets().log_end, Offset(7));
    });
}

/// With min.insync.replicas above the majority, a majority is not enough for acks=all, though it is for consumers.
#[test]
fn all_that_were_asked_for_must_hold_it() {
    run(6, 3, |cluster| async move {
        cluster.settings.borrow_mut().min_insync_replicas = 3;
        cluster.found().await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("three hold it");
        let away = cluster.others(&leader)[0];
        cluster.network.isolate(NodeId(away), cluster.ids().into_iter().map(NodeId));
        let receipt = leader.append(batch(1, None), NOW).await.expect("it leads");
        let waiting = ouzel_runtime::spawn(async move { receipt.acknowledged().await });
        cluster.eventually("the commit", |_| leader.offsets().high_watermark == Offset(2)).await;
        cluster.sleep(Duration::from_secs(3)).await;
        assert!(!waiting.is_finished(), "two hold it, three were asked for");
        cluster.network.heal();
        assert_eq!(waiting.await.expect("no panic"), Ok(()));
    });
}

/// A voter that is behind for longer than the lag allows is not in sync, and is again when it has caught up.
#[test]
fn the_in_sync_set_follows_the_voters() {
    run(7, 3, |cluster| async move {
        cluster.settings.borrow_mut().lag_time_max = Duration::from_secs(5);
        cluster.found().await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        cluster.settled().await;
        assert_eq!(leader.status().in_sync.len(), 3);
        let away = cluster.others(&leader)[0];
        cluster.network.isolate(NodeId(away), cluster.ids().into_iter().map(NodeId));
        append(&leader, batch(1, None)).await.expect("two are enough");
        cluster.sleep(Duration::from_secs(1)).await;
        assert_eq!(leader.status().in_sync.len(), 3);
        let told = std::rc::Rc::new(std::cell::Cell::new(false));
        let tell = told.clone();
        leader.on_change(move || tell.set(true));
        cluster.sleep(Duration::from_secs(6)).await;
        assert!(told.get(), "whoever follows the status is told, though nothing but time passed");
        assert!(!leader.status().in_sync.contains(&replica(away)));
        cluster.network.heal();
        cluster.eventually("it catches up", |_| leader.status().in_sync.len() == 3).await;
        // A node that does not answer is out at once.
        leader.note_node(NodeId(away), false);
        assert!(!leader.status().in_sync.contains(&replica(away)));
        leader.note_node(NodeId(away), true);
        assert_eq!(leader.status().in_sync.len(), 3);
    });
}

/// Loss, delay, repeats and disorder: slow, but nothing is lost, doubled or different.
#[test]
fn a_bad_network_costs_time_only() {
    for seed in 0..8 {
        run(seed, 3, |cluster| async move {
            cluster.found().await;
            cluster.leader().await;
            cluster.network.set_faults(Faults {
                delay: (Duration::from_millis(1), Duration::from_millis(30)),
                loss: 50,
                duplication: 100,
                reordering: 100,
            });
            let mut sequence = 0;
            for turn in 0..60 {
                if turn % 20 == 19 {
                    let leader = cluster.leader().await;
                    cluster.network.isolate(leader.replica().node, cluster.ids().into_iter().map(NodeId));
                    cluster.sleep(Duration::from_secs(2)).await;
                    cluster.network.heal();
                }
                let placed = cluster.produce(batch(2, Some((7, 0, sequence)))).await;
                assert_eq!(placed.base_offset, Offset(i64::from(sequence)), "seed {seed}, turn {turn}");
                sequence += 2;
            }
            cluster.network.set_faults(Faults::default());
            assert_eq!(cluster.agreed().await.len(), 60);
        });
    }
}

/// Bytes of any kind from a peer are refused in words, and change nothing.
#[test]
fn a_message_of_random_bytes_is_refused() {
    run(9, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        append(&leader, batch(1, None)).await.expect("it leads");
        let entropy = cluster.machine.runtime().entropy;
        let from = replica(cluster.others(&leader)[0]);
        for turn in 0..3_000 {
            let sound = cluster::a_message(from, leader.replica());
            let mut head = sound.head.to_vec();
            let mut noise = vec![0; (entropy.u64() % 200) as usize];
            entropy.fill(&mut noise);
            match turn % 3 {
                0 => head = noise.clone(),
                // A kind that exists, and then anything.
                1 => {
                    head[1] = (entropy.u64() % 8) as u8;
                    head.extend(&noise);
                }
                _ => {
                    let at = entropy.u64() as usize % head.len();
                    head[at] ^= 1 << (entropy.u64() % 8);
                }
            }
            let bodies = if turn % 2 == 0 { Vec::new() } else { vec![noise.into()] };
            let message = ouzel_raft::PeerMessage { head: head.into(), bodies };
            // Some are sound by chance, such as a pre-vote in a term of long ago. All are answered.
            leader.handle(from, message).await;
        }
        append(&cluster.leader().await, batch(1, None)).await.map_or_else(
            |failed| {
                assert!(matches!(
                    failed,
                    Failed::Unacknowledged(_) | Failed::Refused(AppendRefused::NotLeader)
                ))
            },
            |_| (),
        );
        cluster.produce(batch(1, None)).await;
    });
}

/// A coordinator that was replaced while it was cut off told groups where they had been before: nothing in it asked whether it
/// still leads. It takes itself for the leader all the same, and knows better when its lease is over.
#[test]
fn a_leader_that_is_cut_off_knows_in_time_that_it_may_have_been_replaced() {
    run(7, 3, |cluster| async move {
        cluster.found().await;
        let old = cluster.leader().await;
        assert!(old.still_leads().await);
        for other in cluster.others(&old) {
            assert!(!cluster.group(other).still_leads().await, "it follows");
        }
        cluster.network.isolate(old.replica().node, cluster.ids().into_iter().map(NodeId));
        let others = cluster.others(&old);
        let is_replaced = || others.iter().any(|id| cluster.group(*id).role() == Role::Leader);
        for _ in 0..100 {
            let told = old.still_leads().await;
            // Nobody was elected before it answered, so nobody had been when it was asked.
            assert!(!told || !is_replaced(), "it tells what it knows, and another one leads");
            if is_replaced() {
                break;
            }
            cluster.sleep(Duration::from_millis(50)).await;
        }
        assert!(is_replaced(), "two are enough to elect");
        assert_eq!(old.role(), Role::Leader, "it has heard of nobody");
        assert!(!old.still_leads().await);
        cluster.network.heal();
        assert!(cluster.leader().await.still_leads().await);
    });
}

/// A leader was replaced while its process stood still, and went on without having heard of it. Its log lacked what its
/// successor had acknowledged, so it refused the batch that came next in order as out of order. Clients take that for
/// final: the producer began anew under a new identity, and sent again what was there already. (The simulation of groups,
/// seeds 100267 and 100375.) A leader that refuses by what its log says of a producer proves first that it leads.
#[test]
fn a_deposed_leader_that_does_not_know_it_refuses_no_producer_for_good() {
    run(5, 3, |cluster| async move {
        cluster.settings.borrow_mut().ticks = Ticks::Served;
        cluster.found().await;
        let old = cluster.leader().await;
        append(&old, batch(2, Some((7, 0, 0)))).await.expect("it leads");
        cluster.settled().await;
        cluster.network.isolate(old.replica().node, cluster.ids().into_iter().map(NodeId));
        // It places one more, of a newer producer epoch, that nobody else will ever have.
        let lost = old.append(batch(1, Some((8, 1, 0))), NOW).await.expect("its lease lasts");
        // Until the others may elect.
        cluster.sleep(Duration::from_secs(2)).await;
        let others = cluster.others(&old);
        let is_replaced = || others.iter().any(|id| cluster.group(*id).role() == Role::Leader);
        for turn in 0..20 {
            if is_replaced() {
                break;
            }
            cluster.group(others[turn % 2]).elect().await;
            cluster.sleep(Duration::from_millis(250)).await;
        }
        assert!(is_replaced());
        for (producer, sequence) in [(7, 2), (7, 4), (8, 0)] {
            cluster.produce(batch(2, Some((producer, 0, sequence)))).await;
        }
        assert_eq!(old.role(), Role::Leader, "it has heard nothing");
        let (gap, stale) =
            (old.append(batch(2, Some((7, 0, 6))), NOW), old.append(batch(2, Some((8, 0, 2))), NOW));
        for refused in [gap.await, stale.await] {
            assert!(matches!(refused, Err(AppendRefused::NotLeader)), "{refused:?}");
        }
        cluster.network.heal();
        let placed = cluster.produce(batch(2, Some((7, 0, 6)))).await;
        assert_eq!((placed.duplicate, placed.base_offset), (false, Offset(8)));
        cluster.settled().await;
        assert_eq!(lost.acknowledged().await, Err(Unacknowledged::LeadershipLost));
        // Whoever leads says so to a producer that did leave a gap.
        let gap = cluster.leader().await.append(batch(1, Some((7, 0, 20))), NOW).await;
        assert!(matches!(gap, Err(AppendRefused::OutOfOrderSequence { .. })), "{gap:?}");
    });
}

/// A whole cluster was started again, and the leader's disk had lost what its followers had. The followers had its name from
/// their disks and its node answered, so they waited for it; it stood for election and could not win, for it lacked what
/// they had. Nobody led until somebody wondered, minutes later. (The simulation of clusters, seed 27.) Who stands for
/// election leads no more.
#[test]
fn a_leader_that_stands_for_election_is_not_waited_for() {
    run(9, 3, |cluster| async move {
        cluster.settings.borrow_mut().ticks = Ticks::Served;
        cluster.found().await;
        let old = cluster.leader().await;
        append(&old, batch(1, None)).await.expect("it leads");
        cluster.settled().await;
        cluster.node(old.replica().node.0).machine().disk().set_lies(true);
        for _ in 0..20 {
            append(&old, batch(1, None)).await.expect("it leads");
        }
        cluster.settled().await;
        let (name, others, end) = (old.replica(), cluster.others(&old), old.offsets().log_end);
        cluster.power_cut(name.node.0);
        cluster.node(name.node.0).machine().disk().set_lies(false);
        others.iter().for_each(|id| cluster.kill(*id));
        for id in cluster.ids() {
            cluster.start(id).await;
        }
        let back = cluster.group(name.node.0);
        assert!(back.offsets().log_end < end, "it lost something");
        cluster
            .eventually("its name, as their disks have it", |cluster| {
                others.iter().all(|id| cluster.group(*id).status().leader == Some(name))
            })
            .await;
        back.elect().await;
        cluster
            .eventually("nobody leads", |cluster| {
                others.iter().all(|id| cluster.group(*id).status().leader.is_none())
            })
            .await;
        cluster.group(others[0]).elect().await;
        let new = cluster.leader().await;
        assert_eq!((new.replica(), new.offsets().high_watermark), (replica(others[0]), end));
    });
}

/// What a disk may take for each of its operations.
const SLOW_DISK: Duration = Duration::from_millis(100);

/// A group that ticks for itself no more, and whose replicas all hold one record; its leader.
async fn founded_and_settled(cluster: &Cluster) -> RaftGroup {
    cluster.settings.borrow_mut().ticks = Ticks::Served;
    cluster.found().await;
    let leader = cluster.leader().await;
    append(&leader, batch(1, None)).await.expect("it leads");
    cluster.settled().await;
    leader
}

/// All processes end and are started again; the others have the leader's name from their disks then.
async fn start_all_again(cluster: &Cluster, name: ReplicaId) {
    cluster.ids().into_iter().for_each(|id| cluster.kill(id));
    for id in cluster.ids() {
        cluster.start(id).await;
    }
    let others: Vec<i32> = cluster.ids().into_iter().filter(|id| *id != name.node.0).collect();
    cluster
        .eventually("its name, as their disks have it", |cluster| {
            others.iter().all(|id| cluster.group(*id).status().leader == Some(name))
        })
        .await;
}

/// A move had let go of two of three replicas and brought in two others when all processes were killed. The leader stayed, but
/// its slow disk held nothing of the move: started again it stood for election among the old members, of which two were gone, and
/// asked nobody else. The new ones had all that is needed, and waited two minutes for it: it was there when they asked. (The
/// simulation of clusters of five, seed 9000722.) Now it is asked whether it leads.
#[test]
fn a_leader_that_was_started_again_is_not_waited_for() {
    run(11, 3, |cluster| async move {
        let old = founded_and_settled(&cluster).await;
        let (name, others) = (old.replica(), cluster.others(&old));
        start_all_again(&cluster, name).await;
        for id in &others {
            let group = cluster.group(*id);
            assert_eq!(group.ask_leader().await, None);
            assert_eq!((group.status().leader, group.leader()), (None, None));
        }
        // Whoever was just opened is loyal for as long as a lease lasts: the elector tries again as well.
        for _ in 0..8 {
            cluster.group(others[0]).elect().await;
            cluster.sleep(Duration::from_millis(250)).await;
        }
        let new = cluster.leader().await;
        assert_eq!((new.replica(), new.offsets().high_watermark), (replica(others[0]), Offset(1)));
    });
}

/// Elected, and its first entry on the way to slow disks: it is in office and does not serve yet. Whoever took its answer for that of
/// one that does not lead would call for another election while this one comes to its end.
#[test]
fn a_leader_that_does_not_serve_yet_leads_all_the_same() {
    run(12, 3, |cluster| async move {
        let old = founded_and_settled(&cluster).await;
        let (name, others) = (old.replica(), cluster.others(&old));
        cluster.kill(name.node.0);
        let (new, follower) = (cluster.group(others[0]), cluster.group(others[1]));
        others.iter().for_each(|id| cluster.node(*id).machine().disk().set_delay_max(SLOW_DISK));
        for _ in 0..40 {
            new.elect().await;
            let is_new = |leader| leader == Some(new.replica());
            let clock = cluster.node(others[0]).machine().runtime().clock;
            let heard = follower.wait_until(|status| is_new(status.leader));
            if clock.timeout(Duration::from_millis(250), heard).await.is_ok() {
                break;
            }
        }
        assert_eq!((follower.leader(), new.role()), (Some(new.replica()), Role::Candidate));
        assert_eq!(follower.ask_leader().await, Some(new.replica()));
        assert_eq!(new.role(), Role::Candidate, "it did not serve when it was asked");
    });
}

/// A whole cluster was started again. The leader's replica could not vouch for what it had acknowledged and took no part; the
/// others had its name from their disks, its node answered, and they waited for it for two minutes. (The simulation of
/// clusters, seeds 4 and 88.) It is asked, and its refusal is as good as its standing for election. One that is silent may
/// lead all the same.
#[test]
fn a_leader_that_refuses_is_not_waited_for() {
    run(10, 3, |cluster| async move {
        let old = founded_and_settled(&cluster).await;
        let (name, others) = (old.replica(), cluster.others(&old));
        let follower = cluster.group(others[0]);
        assert_eq!(old.ask_leader().await, None, "nobody asks itself");
        assert_eq!(follower.ask_leader().await, Some(name));
        cluster.network.isolate(name.node, cluster.ids().into_iter().map(NodeId));
        assert_eq!(follower.ask_leader().await, None);
        assert_eq!(follower.status().leader, Some(name), "it may be the network");
        cluster.network.heal();
        start_all_again(&cluster, name).await;
        // What refuses is the node, in a broker; here the replica, which has stopped.
        cluster.group(name.node.0).shutdown().await;
        for id in &others {
            let group = cluster.group(*id);
            let told = std::rc::Rc::new(std::cell::Cell::new(false));
            let tell = told.clone();
            group.on_change(move || tell.set(true));
            assert_eq!(group.ask_leader().await, None);
            assert_eq!((group.status().leader, group.leader(), told.get()), (None, None, true));
        }
        cluster.group(others[0]).elect().await;
        let new = cluster.leader().await;
        assert_eq!((new.replica(), new.offsets().high_watermark), (replica(others[0]), Offset(1)));
    });
}
