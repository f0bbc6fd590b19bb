//! `__consumer_offsets` of several nodes while groups commit all the time: compacted on each of them, and small.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use ouzel_client::groups::Committed;
use ouzel_client::{Client, NewTopic};
use ouzel_model::Offset;

use crate::clients::{OFFSETS, Over, TOPIC};
use crate::cluster::{Cluster, await_seen, move_to, with_client};

const GROUPS: usize = 6;
const PARTITIONS: i32 = 20;
/// One commit of a group has 20 of these: of seventeen commits is a segment.
const METADATA_BYTES: usize = 3_000;
/// About what one commit appends.
const COMMIT_BYTES: u64 = PARTITIONS as u64 * METADATA_BYTES as u64;
/// What one commit of each group but the first appends.
const ROUND_BYTES: u64 = (GROUPS as u64 - 1) * COMMIT_BYTES;
/// What is left where nobody commits: the newest of each key, as much again that is not due, the active segment, and one that
/// its followers have not told the leader that they hold.
const SMALL_BYTES: u64 = 2 * GROUPS as u64 * COMMIT_BYTES + (2 << 20);
/// The offsets' topic becomes a segment's size over and over; its cleaner never waits.
const EAGER: &[&str] = &[
    "--set",
    "offsets.topic.num.partitions=1",
    // Of itself the controller would raise the replicas of the offsets again.
    "--set",
    "offsets.topic.replication.factor=1",
    "--set",
    "offsets.topic.segment.bytes=1048576",
    "--set",
    "log.cleaner.backoff.ms=0",
    "--set",
    "log.segment.delete.delay.ms=0",
    // What is left when nobody commits any more is looked at as well.
    "--set",
    "log.retention.check.interval.ms=100",
];

fn group(number: usize) -> String {
    format!("group-{number}")
}

/// Three nodes that all have the offsets' topic; the group with number 0 has committed once, and does no more.
fn cluster() -> Cluster {
    let cluster = Cluster::with(3, EAGER);
    let wanted = NewTopic {
        name: TOPIC.to_owned(),
        partitions: Some(PARTITIONS),
        replication_factor: Some(1),
        configs: BTreeMap::new(),
    };
    with_client(&cluster.bootstrap(), async move |client, _| {
        client.create_topic(&wanted, false).await.unwrap();
        commit_all(&client, &group(0), 0).await;
    });
    move_to(&cluster, &[OFFSETS], &[1, 2, 3]);
    cluster
}

async fn commit_all(client: &Client, group: &str, offset: i64) {
    let progress =
        Committed { offset: Offset(offset), leader_epoch: -1, metadata: "m".repeat(METADATA_BYTES) };
    let offsets: BTreeMap<_, _> =
        (0..PARTITIONS).map(|partition| ((TOPIC.to_owned(), partition), progress.clone())).collect();
    client.commit_offsets(group, &offsets).await.unwrap();
}

/// Has the other groups commit, round by round, while `change` happens; it hears of each round that is over. Gives their number.
fn under_commits(cluster: &mut Cluster, change: impl FnOnce(&mut Cluster, &Receiver<i64>)) -> i64 {
    let is_over = Arc::new(AtomicBool::new(false));
    let (tell, told) = channel();
    thread::scope(|scope| {
        let (until, bootstrap) = (is_over.clone(), cluster.bootstrap());
        let committing = scope.spawn(move || {
            with_client(&bootstrap, async move |client, _| {
                let mut round = 0;
                while !until.load(Ordering::Relaxed) {
                    round += 1;
                    for number in 1..GROUPS {
                        commit_all(&client, &group(number), round).await;
                    }
                    // Nobody listens any more once there are enough.
                    let _ = tell.send(round);
                }
                round
            })
        });
        let over = Over(is_over);
        change(cluster, &told);
        drop((over, told));
        committing.join().expect("every commit is taken in the end")
    })
}

fn await_round(told: &Receiver<i64>, round: i64) {
    assert!(told.iter().any(|told| told == round), "the groups commit");
}

/// Every group is where its last commit said, in every partition.
fn check_groups(cluster: &Cluster, rounds: i64) {
    let last = |number| if number == 0 { 0 } else { rounds };
    let found: Vec<Vec<i64>> = with_client(&cluster.bootstrap(), async |client, _| {
        let mut found = Vec::new();
        for number in 0..GROUPS {
            let committed = client.committed_offsets(&group(number)).await.unwrap();
            found.push(committed.into_values().map(|one| one.offset.value()).collect());
        }
        found
    });
    let expected: Vec<Vec<i64>> = (0..GROUPS).map(|number| vec![last(number); PARTITIONS as usize]).collect();
    assert_eq!(found, expected);
}

/// Waits until a node has no more of the offsets than what compaction leaves.
fn await_small(cluster: &Cluster, node: i32) {
    let held = || cluster.segments(node, OFFSETS).values().sum::<u64>();
    await_seen(&format!("node {node} has compacted the offsets"), held, |held| *held <= SMALL_BYTES);
}

/// A node without anything becomes a replica of an offsets' topic that was compacted, and is compacted on, while groups
/// commit. What it is filled with has gaps in its offsets and was rewritten while it was read; in the end it is the only one
/// that has any of it, and says of every group what the group committed last: of those that committed all the time, and of
/// one whose only commit lies in what was compacted again and again.
#[test]
fn an_empty_node_joins_a_compacted_offsets_topic_under_commits() {
    let mut cluster = cluster();
    let rounds = under_commits(&mut cluster, |cluster, told| {
        await_round(told, 30);
        for node in 1..=3 {
            for _ in 0..2 {
                cluster.node(node).await_log("a log was compacted");
            }
        }
        cluster.start(4);
        move_to(cluster, &[OFFSETS], &[1, 2, 3, 4]);
        // It cleans what it was given and what came after that.
        for _ in 0..2 {
            cluster.node(4).await_log("a log was compacted");
        }
        move_to(cluster, &[OFFSETS], &[4]);
    });
    assert!(rounds as u64 * ROUND_BYTES > 2 * SMALL_BYTES, "more than what may be left");
    await_small(&cluster, 4);
    check_groups(&cluster, rounds);
    cluster.kill(4);
    cluster.start(4);
    // It has replayed what its disk has.
    check_groups(&cluster, rounds);
}

/// The offsets' topic stays small on every replica, also while one is away and nothing it lacks can be let go of for its sake:
/// who is not in sync is not waited for. It comes back to a log that begins behind what it has, and is as small.
#[test]
fn the_offsets_topic_stays_small_though_a_member_is_away() {
    /// Between two looks at what is left, so that nothing depends on who is faster, those that commit or those that clean.
    const ROUNDS: i64 = 20;
    let mut cluster = cluster();
    let mut round = 0;
    let mut commit_and_await = |cluster: &Cluster, there: &[i32]| {
        with_client(&cluster.bootstrap(), async move |client, _| {
            for round in round + 1..=round + ROUNDS {
                for number in 1..GROUPS {
                    commit_all(&client, &group(number), round).await;
                }
            }
        });
        round += ROUNDS;
        there.iter().for_each(|node| await_small(cluster, *node));
        round
    };
    const { assert!(ROUNDS as u64 * ROUND_BYTES > 2 * SMALL_BYTES) };
    commit_and_await(&cluster, &[1, 2, 3]);
    let away = cluster.await_in_sync(OFFSETS, 3).leader % 3 + 1;
    cluster.kill(away);
    let there: Vec<i32> = (1..=3).filter(|node| *node != away).collect();
    for _ in 0..3 {
        commit_and_await(&cluster, &there);
    }
    cluster.start(away);
    cluster.await_in_sync(OFFSETS, 3);
    let rounds = commit_and_await(&cluster, &[1, 2, 3]);
    check_groups(&cluster, rounds);
}
