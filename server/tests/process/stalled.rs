//! A node that neither answers nor goes away.

use ouzel_client::{NewRecord, Producer, ProducerConfig};

use crate::cluster::{Cluster, with_client};

const MIB: u64 = 1 << 20;
/// `--memory` of each node.
const MEMORY_BYTES: u64 = 64 * MIB;
const VALUE_BYTES: usize = 512 << 10;
/// Three times what a node may use.
const VALUES: usize = 400;

/// A follower is stopped with all its connections open (SIGSTOP): nothing that is sent to it is refused, and nothing is taken.
/// The others go on, and what the leader holds for it stays within the node's memory, though three times as much is stored
/// meanwhile; what the follower has missed it is given later, from the disk.
#[test]
fn a_follower_that_stands_still_does_not_fill_its_leaders_memory() {
    let mut cluster = Cluster::with(3, &["--memory", "64MiB"]);
    let created = cluster.create_topic("t", 3);
    let follower = created.leader % 3 + 1;
    // Whoever leads: on a machine that is busy with something else that may change.
    let others = [created.leader, follower % 3 + 1];
    let before = others.map(|node| cluster.node(node).memory_bytes());
    let assert_bounded = |cluster: &mut Cluster, when: &str| {
        for (node, before) in others.into_iter().zip(before) {
            let grown = cluster.node(node).memory_bytes().saturating_sub(before);
            assert!(grown < MEMORY_BYTES, "node {node} has {} MiB more than at first, {when}", grown / MIB);
        }
    };
    cluster.pause(follower);
    with_client(&cluster.bootstrap(), async move |client, _| {
        let mut producer = Producer::new(&client, ProducerConfig::default());
        for _ in 0..VALUES {
            let value = Some(vec![b'x'; VALUE_BYTES].into());
            let record = NewRecord { value, partition: Some(0), ..NewRecord::default() };
            producer.send("t", vec![record]).await.unwrap();
        }
    });
    assert_bounded(&mut cluster, "having stored it");
    cluster.resume(follower);
    cluster.await_in_sync("t", 3);
    assert_bounded(&mut cluster, "having given it all");
}
