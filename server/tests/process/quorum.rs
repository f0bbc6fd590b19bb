//! Who keeps the controller's log, as clients are told; and a broker's way out of the cluster for good.

use std::collections::BTreeSet;

use ouzel_client::{ClientError, Keeper, Quorum};
use ouzel_protocol::ErrorCode;

use crate::cluster::{Cluster, move_to, numbered, with_client};

fn describe(cluster: &Cluster) -> Quorum {
    with_client(&cluster.bootstrap(), async |client, _| client.describe_quorum().await).unwrap()
}

/// Asks until the quorum is told of so.
fn await_quorum(cluster: &Cluster, what: &str, is_so: impl Fn(&Quorum) -> bool + 'static) -> Quorum {
    cluster.await_answer(what, async |client| client.describe_quorum().await, is_so)
}

fn ids(keepers: &[Keeper]) -> BTreeSet<i32> {
    keepers.iter().map(|keeper| keeper.node_id).collect()
}

fn keeper(quorum: &Quorum, node: i32) -> &Keeper {
    let mut all = quorum.voters.iter().chain(&quorum.observers);
    all.find(|keeper| keeper.node_id == node).unwrap_or_else(|| panic!("node {node} is not in {quorum:?}"))
}

/// Whether all of them hold the whole log.
fn is_caught_up(quorum: &Quorum, nodes: &[i32]) -> bool {
    let end = keeper(quorum, quorum.leader).log_end_offset;
    nodes.iter().all(|node| keeper(quorum, *node).log_end_offset == end)
}

/// Nothing had looked at what DescribeQuorum tells of followers and observers of a cluster: an operator who waits for a lagging
/// one, or for a dead one to be seen as such, goes by these numbers.
#[test]
fn what_is_told_of_a_paused_keeper_stands_still_and_the_others_go_on() {
    let mut cluster = Cluster::of(3);
    cluster.start(4);
    let quorum = await_quorum(&cluster, "three vote and node 4 looks on", |quorum| {
        quorum.leader > 0
            && ids(&quorum.voters) == BTreeSet::from([1, 2, 3])
            && ids(&quorum.observers) == BTreeSet::from([4])
            && is_caught_up(quorum, &[1, 2, 3, 4])
    });
    assert!(quorum.leader_epoch > 0);
    let follower = (1..=3).find(|node| *node != quorum.leader).unwrap();
    for (round, paused) in [follower, 4].into_iter().enumerate() {
        let others: Vec<i32> = (1..=4).filter(|node| *node != paused).collect();
        cluster.pause(paused);
        let was = describe(&cluster);
        // The log goes on without it: a topic is decided.
        cluster.order_topic(&format!("t{round}"), 1, 1);
        let behind = await_quorum(&cluster, "it is behind, and the others are not", {
            let (was, others) = (was.clone(), others.clone());
            move |quorum| {
                let end = keeper(quorum, quorum.leader).log_end_offset;
                end > keeper(&was, was.leader).log_end_offset
                    && keeper(quorum, paused).log_end_offset < end
                    && is_caught_up(quorum, &others)
            }
        });
        // Answers that were under way when it was stopped may still be counted.
        let mut looks = vec![behind];
        loop {
            let was = looks.last().expect("the first look").clone();
            let others = others.clone();
            let is = await_quorum(&cluster, "the others were caught up half a second later", {
                let was = was.clone();
                move |quorum| {
                    let newer = |node: &i32| {
                        keeper(quorum, *node).last_caught_up_ms >= keeper(&was, *node).last_caught_up_ms + 500
                    };
                    others.iter().all(newer)
                }
            });
            if keeper(&is, paused) == keeper(&was, paused) {
                break;
            }
            looks.push(is);
            assert!(looks.len() < 10, "node {paused} is paused, and what is told of it goes on: {looks:#?}");
        }
        let stuck = keeper(looks.last().expect("the last look"), paused).clone();
        assert!(stuck.last_caught_up_ms > 0 && stuck.last_fetch_ms >= stuck.last_caught_up_ms, "{stuck:?}");
        cluster.resume(paused);
        await_quorum(&cluster, "it is caught up again", move |quorum| {
            let is = keeper(quorum, paused);
            is_caught_up(quorum, &[1, 2, 3, 4]) && is.last_caught_up_ms > stuck.last_caught_up_ms
        });
    }
}

fn unregister(cluster: &Cluster, node: i32) -> Result<(), ClientError> {
    with_client(&cluster.bootstrap(), async move |client, _| client.unregister_broker(node).await)
}

/// Only the refusals of UnregisterBroker had been tried against running nodes.
#[test]
fn a_broker_that_is_moved_off_and_stopped_is_let_go_and_may_come_back_as_a_newcomer() {
    let mut cluster = Cluster::of(3);
    cluster.start(4);
    await_quorum(&cluster, "three vote", |quorum| ids(&quorum.voters) == BTreeSet::from([1, 2, 3]));
    cluster.order_topic("t", 3, 2);
    cluster.await_in_sync("t", 3);
    move_to(&cluster, &["t"], &[2, 3, 4]);
    let mut values = numbered("before", 20);
    cluster.produce("t", &values);

    let words = |outcome: Result<(), ClientError>| outcome.unwrap_err().to_string();
    let alive = words(unregister(&cluster, 2));
    assert!(alive.contains("Broker 2 is alive; stop it before it is unregistered."), "{alive}");
    cluster.kill(2);
    let holds = cluster.await_answer(
        "it is known to be gone",
        async |client| Ok(client.unregister_broker(2).await.unwrap_err().to_string()),
        |words| !words.contains("is alive"),
    );
    assert!(holds.contains("Broker 2 holds 1 replica(s), of t-0 among others"), "{holds}");
    // Its replica goes elsewhere without it, and so does its part in the controller's log.
    move_to(&cluster, &["t"], &[1, 3, 4]);
    unregister(&cluster, 2).unwrap();
    let left = BTreeSet::from([1, 3, 4]);
    cluster.await_all("three brokers are left", {
        let left = left.clone();
        move |seen| seen.brokers.keys().copied().collect::<BTreeSet<_>>() == left
    });
    let fenced =
        with_client(&cluster.bootstrap(), async |client, _| client.describe_cluster().await.unwrap());
    assert_eq!(fenced.brokers.iter().map(|broker| broker.broker_id.0).collect::<BTreeSet<_>>(), left);
    await_quorum(&cluster, "the three that are left vote", {
        move |quorum| ids(&quorum.voters) == left && quorum.observers.is_empty()
    });
    let unknown = unregister(&cluster, 2).unwrap_err();
    assert_eq!(unknown.code(), Some(ErrorCode::BrokerIdNotRegistered), "{unknown}");
    let more = numbered("without", 20);
    cluster.produce("t", &more);
    values.extend(more);

    // With its old disk, where an old replica still lies: it is a newcomer under its number, and holds what it is given.
    cluster.start(2);
    cluster.await_all("it is back", |seen| seen.brokers.len() == 4);
    await_quorum(&cluster, "it looks on", |quorum| {
        ids(&quorum.observers) == BTreeSet::from([2]) && is_caught_up(quorum, &[1, 2, 3, 4])
    });
    move_to(&cluster, &["t"], &[2, 1, 3]);
    assert_eq!(cluster.read_all("t"), values);
    let more = numbered("again", 20);
    cluster.kill(1);
    cluster.produce("t", &more);
    values.extend(more);
    assert_eq!(cluster.read_all("t"), values);
}
