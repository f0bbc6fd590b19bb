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
    let mut cluster = Cluster::planned(3, &[]);
    for node in 1..=3 {
        cluster.launch(node, &["--memory", "64MiB"]);
    }
    (1..=3).for_each(|node| cluster.node(node).await_ready());
    let created = cluster.create_topic("t", 3);
    let follower = (1..=3).find(|node| *node != created.leader).expect("two of them");
    let before = cluster.node(created.leader).memory_bytes();
    cluster.pause(follower);
    with_client(&cluster.bootstrap(), async move |client, _| {
        let mut producer = Producer::new(&client, ProducerConfig::default());
        for _ in 0..VALUES {
            let value = Some(vec![b'x'; VALUE_BYTES].into());
            let record = NewRecord { value, partition: Some(0), ..NewRecord::default() };
            producer.send("t", vec![record]).await.unwrap();
        }
    });
    let leads = cluster.await_partition("t", "it is led still", |seen| seen.leader >= 0);
    assert_eq!(leads.leader, created.leader, "it had no reason to go");
    let grown = cluster.node(created.leader).memory_bytes().saturating_sub(before);
    assert!(grown < MEMORY_BYTES, "{} MiB more than at first", grown / MIB);
    cluster.resume(follower);
    cluster.await_in_sync("t", 3);
    let grown = cluster.node(created.leader).memory_bytes().saturating_sub(before);
    assert!(grown < MEMORY_BYTES, "{} MiB more than at first, having given it all", grown / MIB);
}
