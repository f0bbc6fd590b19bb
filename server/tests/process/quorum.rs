//! Who keeps the controller's log, as clients are told; and a broker's way out of the cluster for good.

use std::collections::BTreeSet;

use ouzel_client::{Client, ClientError, Keeper, Quorum};
use ouzel_protocol::ErrorCode;

use crate::cluster::{Cluster, move_to, numbered, with_client};

/// Asks until the quorum is told of so.
fn await_quorum(cluster: &Cluster, what: &str, is_so: impl Fn(&Quorum) -> bool + 'static) -> Quorum {
    cluster.await_answer(what, async |client| client.describe_quorum().await, is_so)
}

fn ids(keepers: &[Keeper]) -> BTreeSet<i32> {
    keepers.iter().map(|keeper| keeper.node_id).collect()
}

/// What is told of a node; nothing, if it neither votes nor looks on.
fn keeper(quorum: &Quorum, node: i32) -> Option<&Keeper> {
    quorum.voters.iter().chain(&quorum.observers).find(|keeper| keeper.node_id == node)
}

/// The end of the log, as its leader has it; 0 while nobody leads.
fn end(quorum: &Quorum) -> i64 {
    keeper(quorum, quorum.leader).map_or(0, |leader| leader.log_end_offset)
}

/// Whether all of them hold the whole log.
fn is_caught_up(quorum: &Quorum, nodes: &[i32]) -> bool {
    let has_all = |node| keeper(quorum, node).is_some_and(|keeper| keeper.log_end_offset == end(quorum));
    end(quorum) > 0 && nodes.iter().all(|node| has_all(*node))
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
        let was = await_quorum(&cluster, "somebody leads", |quorum| end(quorum) > 0);
        // The log goes on without it: a topic is decided.
        cluster.order_topic(&format!("t{round}"), 1, 1);
        let behind = await_quorum(&cluster, "it is behind, and the others are not", {
            let (end_was, others) = (end(&was), others.clone());
            move |quorum| {
                let held = keeper(quorum, paused).map(|keeper| keeper.log_end_offset);
                end(quorum) > end_was
                    && held.is_some_and(|held| held < end(quorum))
                    && is_caught_up(quorum, &others)
            }
        });
        // Answers that were under way when it was stopped may still be counted; and who comes to lead knows nothing of it yet.
        let mut looks = vec![behind];
        loop {
            let was = looks.last().expect("the first look").clone();
            let others = others.clone();
            let is = await_quorum(&cluster, "the others were caught up half a second later", {
                let was = was.clone();
                move |quorum| {
                    let newer = |node: &i32| {
                        let [is, was] = [quorum, &was].map(|look| keeper(look, *node));
                        is.zip(was)
                            .is_some_and(|(is, was)| is.last_caught_up_ms >= was.last_caught_up_ms + 500)
                    };
                    others.iter().all(newer)
                }
            });
            if is.leader_epoch == was.leader_epoch && keeper(&is, paused) == keeper(&was, paused) {
                break;
            }
            looks.push(is);
            assert!(looks.len() < 20, "node {paused} is paused, and what is told of it goes on: {looks:#?}");
        }
        let last = looks.last().expect("the last look");
        let stuck = keeper(last, paused).expect("it is a member").clone();
        if last.leader_epoch == was.leader_epoch {
            let is_known = stuck.last_caught_up_ms > 0 && stuck.last_fetch_ms >= stuck.last_caught_up_ms;
            assert!(is_known, "one leader all the time, which has heard it: {stuck:?}");
        }
        cluster.resume(paused);
        await_quorum(&cluster, "it is caught up again", move |quorum| {
            let is = keeper(quorum, paused).map(|keeper| keeper.last_caught_up_ms);
            is_caught_up(quorum, &[1, 2, 3, 4]) && is > Some(stuck.last_caught_up_ms)
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

    // It holds a replica, so it is refused in any case: with the word about its life, once its controller knows of that.
    let await_refusal = |cluster: &Cluster, words: &'static str| {
        let ask = async |client: &Client| Ok(client.unregister_broker(2).await.unwrap_err().to_string());
        cluster.await_answer(words, ask, move |said| said.contains(words));
    };
    await_refusal(&cluster, "Broker 2 is alive; stop it before it is unregistered.");
    cluster.kill(2);
    await_refusal(&cluster, "Broker 2 holds 1 replica(s), of t-0 among others");
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
