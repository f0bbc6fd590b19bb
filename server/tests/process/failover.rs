//! Three nodes are one cluster, and one of them may go.

use std::sync::mpsc::channel;
use std::thread;

use crate::cluster::{Cluster, numbered, produce};

/// Stores values while `fault` happens in their middle.
fn produce_through(cluster: &mut Cluster, topic: &str, values: &[String], fault: impl FnOnce(&mut Cluster)) {
    let bootstrap = cluster.bootstrap();
    let (tell, told) = channel();
    thread::scope(|scope| {
        let producing = scope.spawn(move || {
            produce(&bootstrap, topic, values, move |stored| {
                // Fails once the fault is there, when nobody listens any more.
                let _ = tell.send(stored);
            });
        });
        let half = values.len() / 2;
        assert!(told.iter().any(|stored| stored == half), "half of the values are never stored");
        drop(told);
        fault(cluster);
        producing.join().expect("every value is stored in the end");
    });
}

#[test]
fn a_killed_leader_is_followed_by_another_and_comes_back_to_all_it_missed() {
    let mut cluster = Cluster::of(3);
    let created = cluster.create_topic("t", 3);
    let values = numbered("v", 200);
    produce_through(&mut cluster, "t", &values, |cluster| {
        assert_eq!(cluster.kill(created.leader).signal, Some(9));
    });
    let followed = cluster.await_partition("t", "another node leads", move |seen| {
        seen.leader >= 0 && seen.leader != created.leader
    });
    assert!(followed.leader_epoch > created.leader_epoch, "{followed:?} after {created:?}");
    assert_eq!(cluster.read_all("t"), values);

    cluster.start(created.leader);
    cluster.await_in_sync("t", 3);
    // With one of the others gone, nothing is stored without the one that came back.
    let other = (1..=3).find(|node| *node != created.leader && *node != followed.leader).unwrap();
    cluster.kill(other);
    let more = numbered("w", 20);
    cluster.produce("t", &more);
    assert_eq!(cluster.read_all("t"), [values, more].concat());
}

#[test]
fn a_paused_leader_is_followed_by_another_and_wakes_up_as_a_follower() {
    let mut cluster = Cluster::of(3);
    let created = cluster.create_topic("t", 3);
    let values = numbered("v", 100);
    produce_through(&mut cluster, "t", &values, |cluster| cluster.pause(created.leader));
    cluster.await_partition("t", "another node leads", move |seen| {
        seen.leader >= 0 && seen.leader != created.leader
    });
    assert_eq!(cluster.read_all("t"), values);
    cluster.resume(created.leader);
    // It is asked too now.
    cluster.await_in_sync("t", 3);
    assert_eq!(cluster.read_all("t"), values);
}

#[test]
fn every_node_can_be_stopped_and_started_in_turn_under_a_producer() {
    let mut cluster = Cluster::of(3);
    cluster.create_topic("t", 3);
    let values = numbered("v", 300);
    produce_through(&mut cluster, "t", &values, |cluster| {
        for node in 1..=3 {
            cluster.stop(node);
            cluster.start(node);
            cluster.await_in_sync("t", 3);
        }
    });
    assert_eq!(cluster.read_all("t"), values);
}
