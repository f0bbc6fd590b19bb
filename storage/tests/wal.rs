//! The write-ahead files through their public door, over a disk that loses power.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ouzel_model::{LeaderEpoch, NodeId, Offset, PartitionIndex, ReplicaId, TopicId, TopicIdPartition};
use ouzel_runtime::sim::{self, SimRuntime};
use ouzel_runtime::{Bytes, CoreId, Disk};
use ouzel_storage::Stop;
use ouzel_storage::wal::format::{Placement, encode_file};
use ouzel_storage::wal::replay::{core_dir, file_name};
use ouzel_storage::wal::{BootId, Change, GroupState, Kept, MetaWal, SoloState, WalError, replay, stop_of};

type States = BTreeMap<TopicIdPartition, Kept>;

const BOOT: BootId = BootId([1; 16]);

fn key(n: i32) -> TopicIdPartition {
    TopicIdPartition { topic_id: TopicId([7; 16]), partition: PartitionIndex(n) }
}

fn state(epoch: i32) -> SoloState {
    SoloState::opened(None, Some(LeaderEpoch(epoch - 1)), Offset(i64::from(epoch) * 10), BOOT)
}

fn core_of(core_count: u16) -> impl Fn(&TopicIdPartition) -> u16 {
    move |key| key.partition.0 as u16 % core_count
}

/// A start: replay, rewrite, open each core's file.
async fn start(disk: &Disk, data_dir: &Path, core_count: u16) -> Result<(States, Vec<MetaWal>), WalError> {
    let replayed = replay(disk, data_dir).await?;
    replayed.rewrite(disk, data_dir, core_count, core_of(core_count)).await?;
    let mut wals = Vec::new();
    for core in 0..core_count {
        wals.push(MetaWal::open(disk.clone(), data_dir, CoreId(core)).await?);
    }
    Ok((replayed.states, wals))
}

fn all_states(wals: &[MetaWal]) -> States {
    wals.iter().flat_map(MetaWal::states).collect()
}

/// `count` partitions in the files of `core_count` cores, each touched several times.
async fn populate(node: &SimRuntime, core_count: u16, count: i32) -> States {
    let (_, wals) = start(&node.runtime().disk, node.data_dir(), core_count).await.unwrap();
    for epoch in 1..4 {
        for n in 0..count {
            let wal = &wals[usize::from(core_of(core_count)(&key(n)))];
            let change = if n % 3 == 2 {
                let members = Bytes::from(vec![n as u8; n as usize % 40]);
                let replica = ReplicaId::first(NodeId(n));
                let group = GroupState::new(replica, BOOT);
                Change::PutGroup(
                    key(n),
                    GroupState { term: LeaderEpoch(epoch), membership_at_purge: members, ..group },
                )
            } else {
                Change::Put(key(n), state(epoch + n))
            };
            wal.commit(vec![change]).await.unwrap();
        }
    }
    let gone = key(count - 1);
    wals[usize::from(core_of(core_count)(&gone))].commit(vec![Change::Remove(gone)]).await.unwrap();
    all_states(&wals)
}

#[test]
fn the_first_start_knows_nothing() {
    sim::run(1, |node| async move {
        let (states, wals) = start(&node.runtime().disk, node.data_dir(), 2).await.unwrap();
        assert!(states.is_empty() && all_states(&wals).is_empty());
    });
}

#[test]
fn records_survive_any_change_of_the_core_count() {
    sim::run(2, |node| async move {
        let expected = populate(&node, 3, 20).await;
        assert_eq!(expected.len(), 19);
        for core_count in [3, 1, 4, 2, 2] {
            node.disk().power_cut();
            let (states, wals) = start(&node.runtime().disk, node.data_dir(), core_count).await.unwrap();
            assert_eq!(states, expected);
            assert_eq!(all_states(&wals), expected);
            for (core, wal) in (0..).zip(&wals) {
                assert!(wal.states().keys().all(|key| core_of(core_count)(key) == core));
            }
        }
        let files = node.disk().files();
        assert_eq!(files.len(), 2, "older generations are gone: {files:?}");
    });
}

#[test]
fn ten_thousand_epochs_are_bumped_by_one_flush() {
    sim::run(3, |node| async move {
        let disk = node.runtime().disk;
        let (_, wals) = start(&disk, node.data_dir(), 1).await.unwrap();
        let before = node.disk().counts();
        let bumps = (0..10_000).map(|n| Change::Put(key(n), state(1))).collect();
        wals[0].commit(bumps).await.unwrap();
        let after = node.disk().counts();
        assert_eq!((after.syncs - before.syncs, wals[0].commits()), (1, 1));
        wals[0].commit(Vec::new()).await.unwrap();
        assert_eq!(node.disk().counts(), after, "nothing to change is nothing to flush");
        assert_eq!(replay(&disk, node.data_dir()).await.unwrap().states.len(), 10_000);
    });
}

#[test]
fn what_arrives_during_a_flush_joins_the_next() {
    sim::run(4, |node| async move {
        node.disk().set_delay_max(std::time::Duration::from_millis(3));
        let (_, wals) = start(&node.runtime().disk, node.data_dir(), 1).await.unwrap();
        let before = node.disk().counts().syncs;
        let commits: Vec<_> = (0..100).map(|n| wals[0].commit(vec![Change::Put(key(n), state(1))])).collect();
        for commit in commits {
            commit.await.unwrap();
        }
        assert!(node.disk().counts().syncs - before <= 2, "one in flight, and all others in the next");
        assert_eq!(wals[0].states().len(), 100);
    });
}

#[test]
fn a_file_that_outgrows_its_content_is_rewritten() {
    sim::run(5, |node| async move {
        let (_, wals) = start(&node.runtime().disk, node.data_dir(), 1).await.unwrap();
        for epoch in 1..200 {
            let changes = (0..100).map(|n| Change::Put(key(n), state(epoch))).collect();
            wals[0].commit(changes).await.unwrap();
        }
        assert!(wals[0].compactions() > 1, "{} rewrites", wals[0].compactions());
        assert!(wals[0].file_bytes() < 300 * 1024);
        let expected = all_states(&wals);
        node.disk().power_cut();
        let (states, _) = start(&node.runtime().disk, node.data_dir(), 1).await.unwrap();
        assert_eq!(states, expected);
    });
}

#[test]
fn a_failed_flush_fences_and_is_never_tried_again() {
    sim::run(6, |node| async move {
        let (_, wals) = start(&node.runtime().disk, node.data_dir(), 1).await.unwrap();
        wals[0].commit(vec![Change::Put(key(1), state(1))]).await.unwrap();
        node.disk().fail_sync_after(0);
        node.disk().set_flush_delay_max(Duration::from_millis(10));
        let failing = wals[0].commit(vec![Change::Put(key(1), state(2))]);
        tokio::task::yield_now().await;
        // It changes nothing, and waits for what is being flushed.
        let behind = wals[0].commit(Vec::new());
        let failed = failing.await.unwrap_err();
        assert_eq!(behind.await.unwrap_err(), failed);
        let syncs = node.disk().counts().syncs;
        let refused = wals[0].commit(vec![Change::Put(key(1), state(3))]).await.unwrap_err();
        assert_eq!(failed, refused);
        assert_eq!(node.disk().counts().syncs, syncs);
        node.disk().power_cut();
        let (states, _) = start(&node.runtime().disk, node.data_dir(), 1).await.unwrap();
        assert!([Kept::Solo(state(1)), Kept::Solo(state(2))].contains(&states[&key(1)]), "{states:?}");
    });
}

#[test]
fn of_two_files_the_newer_word_on_a_partition_holds() {
    let by_epoch = (state(4), state(5));
    let by_incarnation = (state(9), SoloState { incarnation: 1, ..state(3) });
    let by_sequence = (state(5), state(5).flushed_to(Offset(77)));
    for (older, newer) in [by_epoch, by_incarnation, by_sequence] {
        for newer_core in [0, 1] {
            sim::run(7, |node| async move {
                let disk = node.runtime().disk;
                for core in 0..2u16 {
                    let placement = Placement { generation: 1, core, core_count: 2 };
                    let (sequence, state) = if core == newer_core { (90, newer) } else { (80, older) };
                    let file = encode_file(placement, sequence, [(key(1), Kept::Solo(state))].into_iter());
                    let dir = core_dir(node.data_dir(), core);
                    disk.create_dir_all(&dir).await.unwrap();
                    disk.write_atomic(&dir.join(file_name(1)), Bytes::from(file.bytes)).await.unwrap();
                }
                assert_eq!(replay(&disk, node.data_dir()).await.unwrap().states[&key(1)], Kept::Solo(newer));
            });
        }
    }
}

#[test]
fn a_core_whose_file_is_missing_stops_the_start() {
    sim::run(8, |node| async move {
        populate(&node, 3, 6).await;
        let disk = node.runtime().disk;
        disk.remove_file(&core_dir(node.data_dir(), 1).join(file_name(1))).await.unwrap();
        // Generation 1 alone could be an interrupted first start; later ones could not.
        let error = {
            let (_, wals) = start(&disk, node.data_dir(), 3).await.unwrap();
            drop(wals);
            disk.remove_file(&core_dir(node.data_dir(), 1).join(file_name(2))).await.unwrap();
            start(&disk, node.data_dir(), 3).await.err().unwrap().to_string()
        };
        assert!(
            error.contains("expected files of 3 cores in its generation, found none of core 1"),
            "{error}"
        );
    });
}

/// Visits every point of a start at which the power can go, several images each.
#[test]
fn a_start_may_be_interrupted_anywhere() {
    for (from, to) in [(1, 3), (3, 1), (2, 2)] {
        for point in 0.. {
            let mut was_cut = false;
            for seed in 0..6 {
                was_cut |= sim::run(100 + seed, |node| async move {
                    let expected = populate(&node, from, 8).await;
                    node.disk().power_cut();
                    node.disk().cut_power_after(point);
                    let interrupted = start(&node.runtime().disk, node.data_dir(), to).await;
                    let was_cut = node.disk().is_cut();
                    assert_eq!(interrupted.is_err(), was_cut);
                    node.disk().power_cut();
                    // Twice: the first may have met the litter of two generations.
                    for core_count in [to, from] {
                        let (states, wals) =
                            start(&node.runtime().disk, node.data_dir(), core_count).await.unwrap();
                        assert_eq!(states, expected, "from {from} to {to} cores, cut at {point}");
                        assert_eq!(all_states(&wals), expected);
                        node.disk().power_cut();
                    }
                    was_cut
                });
            }
            if !was_cut {
                assert!(point > 5, "a start that changes next to nothing cannot be right");
                break;
            }
        }
    }
}

/// Commits of random size until the power goes at `point`; then what a start finds must be the state after some number of
/// commits, at least those that were answered. `answered_early` plants a bug: a commit counts before its flush.
fn run_commits(seed: u64, point: u64, answered_early: bool) -> Result<bool, String> {
    sim::run(seed, |node| async move {
        let (_, wals) = start(&node.runtime().disk, node.data_dir(), 1).await.map_err(|e| e.to_string())?;
        node.disk().cut_power_after(point);
        let mut after = vec![States::new()];
        let mut answered = 0;
        let mut random = sim::Rng::new(seed);
        for epoch in 1..40 {
            let mut changes = Vec::new();
            let mut next = after[after.len() - 1].clone();
            for _ in 0..=random.below(300) {
                let key = key(random.below(200) as i32);
                if random.chance(1, 8) {
                    next.remove(&key);
                    changes.push(Change::Remove(key));
                } else {
                    next.insert(key, Kept::Solo(state(epoch)));
                    changes.push(Change::Put(key, state(epoch)));
                }
            }
            after.push(next);
            let commit = wals[0].commit(changes);
            if answered_early {
                answered = after.len() - 1;
            }
            match commit.await {
                Ok(()) => answered = after.len() - 1,
                Err(_) => break,
            }
        }
        let was_cut = node.disk().is_cut();
        node.disk().power_cut();
        let (states, _) = start(&node.runtime().disk, node.data_dir(), 1).await.map_err(|e| e.to_string())?;
        if after[answered..].contains(&states) {
            Ok(was_cut)
        } else {
            Err(format!(
                "cut at {point}: the state is of none of the commits {answered} to {}",
                after.len() - 1
            ))
        }
    })
}

#[test]
fn commits_are_there_once_answered_and_whole_or_not_at_all() {
    for seed in 0..4 {
        let mut point = 0;
        while run_commits(seed, point, false).unwrap() {
            point += 1;
        }
        assert!(point >= 78, "a write and a flush for each commit, and {point} points were visited");
    }
}

#[test]
fn the_check_catches_an_answer_before_the_flush() {
    let caught = (0..40).filter(|point| run_commits(9, *point, true).is_err()).count();
    assert!(caught > 5, "only {caught} of 40 cuts were noticed");
}

#[test]
fn how_the_last_process_ended() {
    let other = BootId([2; 16]);
    let open = state(3);
    let closed = open.closed(Offset(500));
    assert_eq!(stop_of(None, BOOT, Some(Offset(5))), (Stop::Unknown, None));
    assert_eq!(stop_of(Some(&open), BOOT, Some(Offset(5))), (Stop::UncleanSameBoot, Some(open.flushed)));
    assert_eq!(stop_of(Some(&open), other, None), (Stop::UncleanOtherBoot, Some(open.flushed)));
    for boot in [BOOT, other] {
        assert_eq!(stop_of(Some(&closed), boot, Some(Offset(500))), (Stop::Clean, Some(Offset(500))));
        // A mark the log contradicts is none; what it says was flushed must still be there.
        assert_eq!(
            stop_of(Some(&closed), boot, Some(Offset(499))),
            (Stop::UncleanOtherBoot, Some(Offset(500)))
        );
    }
}

#[test]
fn each_opening_takes_a_larger_epoch() {
    let first = SoloState::opened(None, None, Offset(0), BOOT);
    assert_eq!(first.leader_epoch, LeaderEpoch(0));
    let second = SoloState::opened(Some(&first.closed(Offset(9))), None, Offset(9), BOOT);
    assert_eq!((second.leader_epoch, second.closed_at), (LeaderEpoch(1), None));
    let third = SoloState::opened(Some(&second), Some(LeaderEpoch(7)), Offset(9), BOOT);
    assert_eq!(third.leader_epoch, LeaderEpoch(8));
}

#[test]
fn boot_ids_are_the_kernels() {
    let text = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
    let id: BootId = format!("{text}\n").parse().unwrap();
    assert_eq!(id.to_string(), text);
    for bad in
        ["", "3f2504e0", "3f2504e0-4f89-41d3-9a0c-0305e82c330x", "+f2504e0-4f89-41d3-9a0c-0305e82c3301"]
    {
        assert!(bad.parse::<BootId>().is_err(), "{bad}");
    }
}
