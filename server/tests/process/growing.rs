//! A node that was alone, with data, groups and clients, and those that come to it.

use std::thread;
use std::time::Duration;

use crate::clients::{Done, OFFSETS, TOPIC, check, commit, under_clients};
use crate::cluster::{Cluster, await_seen, move_to, order_move};

/// More partitions with one replica on the first node: each becomes a group at a moment of its own.
const MORE: [&str; 3] = ["t1", "t2", "t3"];

/// Waits until the controller has seen to it that all three keep its log. Who is told of as a voter is not enough: until its
/// group's change of members is over, nothing is decided without the first node.
fn await_three_keepers(cluster: &mut Cluster) {
    let is_said = |line: &String| {
        let told = line.split_once("the controller's log is kept where it should be voters=");
        let voters = told.map_or("", |told| told.1).split("learners=").next().unwrap_or_default();
        voters.split_whitespace().count() == 3
    };
    let mut has_said = |node| cluster.node(node).log().iter().any(is_said);
    await_seen("three keep the controller's log", || (1..=3).any(&mut has_said), |is_said| *is_said);
}

/// All three are killed, and the two that came later are ready again without the one they were told of.
fn start_anew_without_the_founder(cluster: &mut Cluster) {
    for node in 1..=3 {
        cluster.kill(node);
    }
    // Neither is ready before the other is there.
    cluster.launch(2, &[]);
    cluster.launch(3, &[]);
    cluster.node(2).await_ready();
    cluster.node(3).await_ready();
}

/// A node that was alone, with records and a group's progress in it, becomes the founder of a cluster and is joined by two
/// others, under a producer that counts and a group that commits. The offsets' topic gets its replicas by itself.
///
/// A founder alone on its card was lost on that way: it was killed before its write-ahead file said how much of the controller's
/// log is committed, came back knowing no other node, for it took the nodes it should ask from what is committed, could ask
/// nobody how much that is, and never served again; and two later nodes, told of nobody but the founder, did not find each other
/// without it. So all three are killed as soon as they keep the controller's log together, and the two have to be ready without
/// the founder; it comes back and is killed over and over, each time as another partition becomes a group; and in the end it is
/// gone for good.
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
        await_three_keepers(cluster);
        start_anew_without_the_founder(cluster);
        cluster.start(1);
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

    start_anew_without_the_founder(&mut cluster);
    let again = under_clients(&mut cluster, |cluster| {
        cluster.await_partition(TOPIC, "one of the others leads", |seen| [2, 3].contains(&seen.leader));
    });
    let values = [done.values, again.values].concat();
    check(&cluster, &Done { values, committed: again.committed });
}
