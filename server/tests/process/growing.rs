//! Nodes that come to a cluster that has data, groups and clients already.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ouzel_client::groups::Committed;
use ouzel_client::{Client, NewTopic};
use ouzel_model::Offset;

use crate::clients::{Done, OFFSETS, Over, TOPIC, check, commit, under_clients};
use crate::cluster::{Cluster, move_to, order_move, with_client};

/// More partitions with one replica on the first node: each becomes a group at a moment of its own.
const MORE: [&str; 3] = ["t1", "t2", "t3"];

/// A node that was alone, with records and a group's progress in it, becomes the founder of a cluster and is joined by two
/// others, under a producer that counts and a group that commits. The offsets' topic gets its replicas by itself.
///
/// Meanwhile the founder is killed over and over, each time as another partition becomes a group. That is how a founder alone
/// on its card was lost: it was killed before its write-ahead file said how much of the controller's log is committed, came
/// back knowing no other node, for it took the nodes it should ask from what is committed, could ask nobody how much that is,
/// and never served again. In the end it is gone for good and the two others are started anew: they were told of nobody but
/// the founder, and found each other no more then either.
#[test]
fn one_node_grows_to_three_under_clients_though_it_is_killed() {
    let settings = &["--set", "offsets.topic.num.partitions=1"];
    let mut cluster = Cluster::planned(0, settings);
    cluster.start(1);
    for topic in [TOPIC].iter().chain(&MORE) {
        cluster.order_topic(topic, 1, 1);
        cluster.await_in_sync(topic, 1);
    }
    commit(&cluster.bootstrap(), 0);
    let done = under_clients(&mut cluster, |cluster| {
        cluster.stop(1);
        cluster.set_founders(1);
        cluster.start(1);
        let alone = cluster.await_in_sync(OFFSETS, 1);
        assert_eq!(alone.replicas, [1], "it is there, with the node it was on");
        cluster.launch(2, &[]);
        cluster.launch(3, &[]);
        cluster.node(2).await_ready();
        cluster.node(3).await_ready();
        for (topic, pause_ms) in [TOPIC].into_iter().chain(MORE).zip([0, 30, 80, 200]) {
            order_move(cluster, &[topic], &[1, 2, 3]);
            // Some moment: any will do.
            thread::sleep(Duration::from_millis(pause_ms));
            assert_eq!(cluster.kill(1).signal, Some(9));
            cluster.start(1);
            move_to(cluster, &[topic], &[1, 2, 3]);
        }
        let grown = cluster.await_in_sync(OFFSETS, 3);
        assert_eq!(grown.replicas.len(), 3, "nobody asked for it: {grown:?}");
    });
    check(&cluster, &done);

    for node in 1..=3 {
        cluster.kill(node);
    }
    // None of them is ready before the other is there.
    cluster.launch(2, &[]);
    cluster.launch(3, &[]);
    cluster.node(2).await_ready();
    cluster.node(3).await_ready();
    let again = under_clients(&mut cluster, |cluster| {
        cluster.await_partition(TOPIC, "one of the others leads", |seen| [2, 3].contains(&seen.leader));
    });
    let values = [done.values, again.values].concat();
    check(&cluster, &Done { values, committed: again.committed });
}

const GROUPS: usize = 6;
const PARTITIONS: i32 = 20;
/// One commit of a group has 20 of these: of seventeen commits is a segment.
const METADATA_BYTES: usize = 3_000;
/// Commits of each group before the first look: some nine megabytes of the offsets' topic.
const ROUNDS_BEFORE: i64 = 30;
/// About what one commit appends.
const COMMIT_BYTES: u64 = PARTITIONS as u64 * METADATA_BYTES as u64;
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
];

fn group(number: usize) -> String {
    format!("group-{number}")
}

async fn commit_all(client: &Client, group: &str, offset: i64) {
    let progress =
        Committed { offset: Offset(offset), leader_epoch: -1, metadata: "m".repeat(METADATA_BYTES) };
    let offsets: BTreeMap<_, _> =
        (0..PARTITIONS).map(|partition| ((TOPIC.to_owned(), partition), progress.clone())).collect();
    client.commit_offsets(group, &offsets).await.unwrap();
}

/// Every group is where its last commit said, in every partition; the group with number 0 committed once, at the start.
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

/// Bytes of the offsets' segments on a node.
fn offsets_bytes(cluster: &Cluster, node: i32) -> u64 {
    let dir = cluster.data_dir(node).join(format!("{OFFSETS}-0"));
    let files = std::fs::read_dir(dir).expect("its directory").map(Result::unwrap);
    let logs = files.filter(|file| file.file_name().to_string_lossy().ends_with(".log"));
    // One that was replaced meanwhile counts for nothing.
    logs.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// A node without anything becomes a replica of an offsets' topic that was compacted, and is compacted on, while groups
/// commit. What it is filled with has gaps in its offsets and was rewritten while it was read; in the end it is the only one
/// that has any of it, and says of every group what the group committed last: of those that committed all the time, and of
/// one whose only commit lies in what was compacted again and again.
#[test]
fn an_empty_node_joins_a_compacted_offsets_topic_under_commits() {
    let mut cluster = Cluster::with(3, EAGER);
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
    let is_over = Arc::new(AtomicBool::new(false));
    let (tell, told) = channel();
    let rounds = thread::scope(|scope| {
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
        assert!(told.iter().any(|round| round == ROUNDS_BEFORE), "the groups commit");
        for node in 1..=3 {
            for _ in 0..2 {
                cluster.node(node).await_log("a log was compacted");
            }
        }
        cluster.start(4);
        move_to(&cluster, &[OFFSETS], &[1, 2, 3, 4]);
        // It cleans what it was given and what came after that.
        for _ in 0..2 {
            cluster.node(4).await_log("a log was compacted");
        }
        move_to(&cluster, &[OFFSETS], &[4]);
        drop(over);
        committing.join().expect("every commit is taken in the end")
    });
    let appended = rounds as u64 * (GROUPS as u64 - 1) * COMMIT_BYTES;
    let held = offsets_bytes(&cluster, 4);
    assert!(held < appended / 2, "{held} of {appended} bytes are left: what it holds was compacted");
    check_groups(&cluster, rounds);
    cluster.kill(4);
    cluster.start(4);
    // It has replayed what its disk has.
    check_groups(&cluster, rounds);
}
