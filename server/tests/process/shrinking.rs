//! A partition of three replicas goes back to one, as a single replica without a group, and to three again, under clients.

use std::thread;
use std::time::Duration;

use crate::clients::{OFFSETS, TOPIC, check, commit, under_clients};
use crate::cluster::{Cluster, move_to, order_move};

/// Said by the node that has the last replica.
const IS_SINGLE: &str = "a group of one has become a single replica";
const IS_GROUP: &str = "a single replica has become a group's first voter";

fn cluster() -> Cluster {
    // Of itself the controller would raise the replicas of the offsets again.
    let settings =
        &["--set", "offsets.topic.num.partitions=1", "--set", "offsets.topic.replication.factor=1"];
    let cluster = Cluster::with(3, settings);
    cluster.order_topic(TOPIC, 3, 1);
    cluster.await_in_sync(TOPIC, 3);
    commit(&cluster.bootstrap(), 0);
    move_to(&cluster, &[OFFSETS], &[1, 2, 3]);
    cluster
}

/// The files of a group beside those of a log.
fn files_of_a_group(cluster: &Cluster, node: i32, topic: &str) -> Vec<String> {
    let files = std::fs::read_dir(cluster.data_dir(node).join(format!("{topic}-0"))).expect("its directory");
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".raft")).collect()
}

#[test]
fn three_replicas_become_one_and_three_again_under_clients() {
    let mut cluster = cluster();
    let done = under_clients(&mut cluster, |cluster| {
        let mut epoch = cluster.await_in_sync(TOPIC, 3).leader_epoch;
        // The preferred leader, and one that follows until then; the same one may come twice.
        for last in [1, 3, 3, 2] {
            let others: Vec<i32> = (1..=3).filter(|node| *node != last).collect();
            move_to(cluster, &[TOPIC, OFFSETS], &[last]);
            for _ in 0..2 {
                cluster.node(last).await_log(IS_SINGLE);
            }
            for topic in [TOPIC, OFFSETS] {
                assert_eq!(files_of_a_group(cluster, last, topic), [""; 0], "{topic} on node {last}");
            }
            let single = cluster.await_partition(TOPIC, "its epoch has risen", {
                move |seen| seen.leader == last && seen.leader_epoch > epoch
            });
            move_to(cluster, &[TOPIC, OFFSETS], &[last, others[0], others[1]]);
            for _ in 0..2 {
                cluster.node(last).await_log(IS_GROUP);
            }
            epoch = cluster.await_in_sync(TOPIC, 3).leader_epoch;
            assert!(epoch > single.leader_epoch, "{epoch} after {single:?}");
        }
    });
    check(&cluster, &done);
    // The replicas are whole: whoever leads has all.
    cluster.kill(2);
    check(&cluster, &done);
}

/// The node with the last replica is killed at some moment of the way back, or just after it. It comes back as one or as the
/// other, and gets there; nothing is lost, nothing is there twice.
#[test]
fn a_node_killed_on_the_way_back_is_there_in_the_end() {
    let mut cluster = cluster();
    let done = under_clients(&mut cluster, |cluster| {
        for (round, pause_ms) in [0, 20, 40, 60, 90, 130].into_iter().enumerate() {
            let last = round as i32 % 3 + 1;
            let others: Vec<i32> = (1..=3).filter(|node| *node != last).collect();
            order_move(cluster, &[TOPIC, OFFSETS], &[last]);
            // Some moment: any will do.
            thread::sleep(Duration::from_millis(pause_ms));
            assert_eq!(cluster.kill(last).signal, Some(9));
            cluster.start(last);
            move_to(cluster, &[TOPIC, OFFSETS], &[last]);
            // At its start it may be one already.
            let epoch =
                cluster.await_partition(TOPIC, "it is led", move |seen| seen.leader == last).leader_epoch;
            move_to(cluster, &[TOPIC, OFFSETS], &[last, others[0], others[1]]);
            let grown = cluster.await_in_sync(TOPIC, 3);
            assert!(grown.leader_epoch >= epoch, "{grown:?} after {epoch}");
        }
    });
    check(&cluster, &done);
    cluster.kill(3);
    check(&cluster, &done);
}
