//! What the controller does by itself, over several processes.

use std::fs;

use crate::cluster::{Cluster, await_seen};

#[test]
fn the_controllers_log_stays_short_on_every_node_and_who_comes_later_begins_with_a_snapshot() {
    let mut cluster = Cluster::with(3, &["--set", "metadata.log.max.record.bytes.between.snapshots=500"]);
    let topics = 25;
    for number in 0..topics {
        cluster.order_topic(&format!("t{number}"), 1, 1);
    }
    let await_short = |cluster: &Cluster, node| {
        let what = format!("node {node} has nothing of the log's beginning");
        let first = || cluster.segments(node, "__cluster_metadata").into_keys().next();
        await_seen(&what, first, |first| first.is_some_and(|base| base > 0));
    };
    (1..=3).for_each(|node| await_short(&cluster, node));
    // What was decided first is nowhere any more but in the snapshot.
    cluster.launch(4, &[]);
    cluster.node(4).await_ready();
    await_short(&cluster, 4);
    let knows_all =
        move |seen: &ouzel_client::metadata::Metadata| seen.topics.len() == topics && seen.brokers.len() == 4;
    cluster.await_all("all topics and all nodes", knows_all);
    // And it is what a start begins with.
    cluster.kill(4);
    cluster.kill(1);
    cluster.start(1);
    cluster.start(4);
    cluster.await_all("all topics and all nodes", knows_all);
}

#[test]
fn leadership_goes_back_to_the_preferred_leader_soon_after_it_is_back() {
    let mut cluster = Cluster::of(3);
    let created = cluster.create_topic("t", 3);
    let preferred = created.replicas[0];
    // Who leads first is elected: the preferred one stands at once, but may be the last to hear of the topic. It leads soon
    // all the same; once that took until the next look at all of them, in five minutes.
    cluster.await_partition("t", "the preferred leader leads", move |seen| seen.leader == preferred);
    cluster.kill(preferred);
    cluster
        .await_partition("t", "another node leads", move |seen| seen.leader >= 0 && seen.leader != preferred);
    cluster.start(preferred);
    cluster.await_partition("t", "the preferred leader leads again", move |seen| seen.leader == preferred);
}

/// A founder drew its directory's id anew at each start until it knew its cluster. Others had founded that with the id they
/// were told: the founder that came back was nobody they knew, and two such founders of three were a cluster that could never
/// decide anything.
#[test]
fn a_founder_that_is_killed_before_its_cluster_is_founded_comes_back_as_who_it_was() {
    let mut cluster = Cluster::planned(3, &[]);
    cluster.launch(2, &[]);
    let path = cluster.data_dir(2).join("directory.id");
    await_seen("its directory has an id", || path.exists(), |there| *there);
    let told = fs::read_to_string(&path).unwrap();
    cluster.kill(2);
    (1..=3).for_each(|node| cluster.launch(node, &[]));
    (1..=3).for_each(|node| cluster.node(node).await_ready());
    let properties = fs::read_to_string(cluster.data_dir(2).join("meta.properties")).unwrap();
    assert!(properties.contains(&format!("directory.id={told}")), "{told:?}, then {properties}");
    assert!(!path.exists(), "one file says it");
}
