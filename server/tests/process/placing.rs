//! Where the replicas of a topic are put.

use std::collections::BTreeSet;

use crate::cluster::Cluster;

/// Two nodes stand on one rack, the third alone on another: a topic with two replicas has one on each rack, so one of them is
/// always on the third node and the other by turns on the first and the second.
#[test]
fn replicas_stand_on_different_racks() {
    let mut cluster = Cluster::planned(3, &[]);
    for (node, rack) in [(1, "broker.rack=a"), (2, "broker.rack=a"), (3, "broker.rack=b")] {
        cluster.launch(node, &["--set", rack]);
    }
    (1..=3).for_each(|node| cluster.node(node).await_ready());
    let seen = cluster.await_all("every node knows of every other", |seen| seen.brokers.len() == 3);
    let racks: Vec<_> = seen.brokers.values().map(|broker| broker.rack.as_deref()).collect();
    assert_eq!(racks, [Some("a"), Some("a"), Some("b")]);
    let mut on_rack_a = BTreeSet::new();
    for topic in ["t0", "t1", "t2", "t3", "t4", "t5"] {
        cluster.order_topic(topic, 2, 1);
        let replicas = cluster.await_in_sync(topic, 2).replicas;
        assert!(replicas.contains(&3), "{topic} is on one rack: {replicas:?}");
        on_rack_a.extend(replicas.into_iter().filter(|node| *node != 3));
    }
    assert_eq!(on_rack_a, BTreeSet::from([1, 2]), "the nodes of a rack share its part");
}
