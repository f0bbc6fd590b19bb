//! The scheduler alone, and a cluster of schedulers whose elections succeed.

use super::*;
use ouzel_model::{PartitionIndex, TopicId};
use ouzel_runtime::sim::Rng;

fn group(number: usize) -> TopicIdPartition {
    TopicIdPartition { topic_id: TopicId([1; 16]), partition: PartitionIndex(number as i32) }
}

fn watch(voters: &[i32], leader: Option<i32>) -> GroupWatch {
    GroupWatch { voters: voters.iter().map(|node| NodeId(*node)).collect(), leader: leader.map(NodeId) }
}

fn at_start(test: impl FnOnce(Instant)) {
    ouzel_runtime::sim::run(1, |node| {
        let start = node.runtime().clock.now();
        test(start);
        std::future::ready(())
    });
}

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A scheduler of node 1 whose peers 0 and 2 are up.
fn scheduler(start: Instant) -> ElectionScheduler {
    let mut scheduler = ElectionScheduler::new(NodeId(1), ElectionConfig::default(), 7);
    scheduler.node_up(NodeId(0), start);
    scheduler.node_up(NodeId(2), start);
    scheduler
}

/// Runs to `until`; when each election started, in milliseconds.
fn elections(
    scheduler: &mut ElectionScheduler,
    start: Instant,
    until: Instant,
) -> Vec<(u64, TopicIdPartition)> {
    let mut now = start;
    let mut started = Vec::new();
    for _ in 0..100_000 {
        let due = scheduler.due(now);
        started.extend(due.elect.into_iter().map(|at| ((now - start).as_millis() as u64, at)));
        match scheduler.next_due(now) {
            Some(next) if next < until => now = next.max(now),
            _ => return started,
        }
    }
    panic!("it never rests")
}

#[test]
fn the_preferred_voter_that_is_up_goes_first() {
    at_start(|start| {
        let mut scheduler = scheduler(start);
        let (first, second, third) = (group(1), group(2), group(3));
        scheduler.set_group(first, watch(&[1, 0, 2], Some(0)), start);
        scheduler.set_group(second, watch(&[0, 1, 2], Some(0)), start);
        scheduler.set_group(third, watch(&[2, 1, 0], Some(0)), start);
        assert!(elections(&mut scheduler, start, start + MS(20_000)).is_empty(), "all are led");
        scheduler.node_down(NodeId(0), start);
        let started = elections(&mut scheduler, start, start + MS(390));
        let when = |at| started.iter().find(|(_, group)| *group == at).unwrap().0;
        assert!(when(first) < 50 && when(second) < 50, "{started:?}: who is down is not waited for");
        assert!((200..=250).contains(&when(third)), "{started:?}");
    });
}

/// Voters that had heard of their leader in the moment before it died owe it loyalty for 800 ms more, and say no until then.
/// Attempts that became rarer at once left groups without a leader for as long again.
#[test]
fn attempts_go_on_ever_more_rarely_until_somebody_leads() {
    at_start(|start| {
        let mut scheduler = scheduler(start);
        scheduler.set_group(group(1), watch(&[1, 0, 2], Some(0)), start);
        scheduler.node_down(NodeId(0), start);
        let started: Vec<u64> =
            elections(&mut scheduler, start, start + MS(28_000)).iter().map(|(at, _)| *at).collect();
        let pauses: Vec<u64> = started.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (steady, rarer) = pauses.split_at(13);
        assert!(steady.iter().all(|pause| (125..=250).contains(pause)), "{pauses:?}");
        assert!(rarer.len() > 3 && rarer[..3].is_sorted(), "{pauses:?}");
        assert!((2_500..=5_000).contains(rarer.last().unwrap()), "{pauses:?}");
        let now = start + MS(28_000);
        scheduler.set_group(group(1), watch(&[1, 0, 2], Some(2)), now);
        assert_eq!(scheduler.leaderless(), 0);
        // Another fall is another story: no patience is left over from the first.
        scheduler.node_down(NodeId(2), now);
        scheduler.node_up(NodeId(0), now);
        assert!(elections(&mut scheduler, now, now + MS(60)).len() == 1);
    });
}

#[test]
fn a_leader_that_was_never_known_is_waited_for() {
    at_start(|start| {
        let mut scheduler = scheduler(start);
        scheduler.set_group(group(1), watch(&[1, 0, 2], None), start);
        let started = elections(&mut scheduler, start, start + MS(600));
        assert!(started.len() == 1 && started[0].0 >= 500, "{started:?}");
        scheduler.set_group(group(2), watch(&[1, 0, 2], None), start);
        scheduler.set_group(group(2), watch(&[1, 0, 2], Some(2)), start + MS(100));
        assert_eq!(scheduler.leaderless(), 1, "it has shown itself");
    });
}

#[test]
fn without_a_majority_a_group_is_hardly_bothered_until_one_comes() {
    at_start(|start| {
        let mut scheduler = scheduler(start);
        scheduler.node_down(NodeId(0), start);
        scheduler.node_down(NodeId(2), start);
        scheduler.set_group(group(1), watch(&[0, 1, 2], Some(0)), start);
        let started = elections(&mut scheduler, start, start + MS(100_000));
        assert!((1..=4).contains(&started.len()) && started[0].0 >= 30_000, "{started:?}");
        let now = start + MS(100_000);
        scheduler.node_up(NodeId(2), now);
        assert_eq!(elections(&mut scheduler, now, now + MS(60)).len(), 1);
        // Not our business: no vote here, or led here.
        scheduler.set_group(group(2), watch(&[0, 2, 3], Some(0)), now);
        scheduler.set_group(group(3), watch(&[0, 1, 2], Some(1)), now);
        assert_eq!(scheduler.leaderless(), 1);
        scheduler.remove_group(&group(1));
        assert_eq!(scheduler.leaderless(), 0);
    });
}

/// A node that is back before anybody was elected in its place: its old process led, the new one leads nothing. Without
/// the difference its groups had no leader until somebody looked after them, minutes later. One that was only out of
/// reach for a moment goes on leading.
#[test]
fn a_restarted_leader_leads_no_more_but_one_that_was_out_of_reach_does() {
    at_start(|start| {
        let mut scheduler = scheduler(start);
        scheduler.set_group(group(1), watch(&[2, 1, 0], Some(0)), start);
        scheduler.node_down(NodeId(0), start);
        assert_eq!(scheduler.leaderless(), 1);
        scheduler.node_up(NodeId(0), start + MS(100));
        assert_eq!(scheduler.leaderless(), 0);
        let now = start + MS(1_000);
        scheduler.node_down(NodeId(0), now);
        scheduler.node_restarted(NodeId(0), now + MS(100));
        scheduler.node_up(NodeId(0), now + MS(100));
        let started = elections(&mut scheduler, now + MS(100), now + MS(260));
        assert!(started.len() == 1 && started[0].0 <= 150, "{started:?}: as planned when it went down");
        scheduler.set_group(group(1), watch(&[2, 1, 0], Some(2)), now + MS(400));
        scheduler.node_restarted(NodeId(0), now + MS(500));
        assert_eq!(scheduler.leaderless(), 0, "it led nothing");
        scheduler.node_restarted(NodeId(2), now + MS(600));
        assert!(!elections(&mut scheduler, now + MS(600), now + MS(1_400)).is_empty());
    });
}

/// A group stuck behind a node that is well: nobody would notice by pings.
#[test]
fn groups_that_are_well_are_looked_after_slowly() {
    at_start(|start| {
        let mut scheduler = scheduler(start);
        let (led_here, quiet, heard) = (group(1), group(2), group(3));
        scheduler.set_group(led_here, watch(&[1, 0, 2], Some(1)), start);
        scheduler.set_group(quiet, watch(&[0, 1, 2], Some(0)), start);
        scheduler.set_group(heard, watch(&[0, 1, 2], Some(0)), start);
        let (mut heartbeats, mut checks) = (Vec::new(), Vec::new());
        let mut now = start;
        while now < start + Duration::from_secs(300) {
            scheduler.contact(&heard, now);
            let due = scheduler.due(now);
            assert!(due.elect.is_empty());
            heartbeats.extend(due.heartbeat);
            checks.extend(due.check.iter().map(|at| (*at, (now - start).as_secs())));
            now = scheduler.next_due(now).unwrap().max(now);
        }
        assert!((5..=10).contains(&heartbeats.len()) && heartbeats.iter().all(|at| *at == led_here));
        assert!(checks.len() >= 2 && checks.iter().all(|(at, s)| *at == quiet && *s >= 120), "{checks:?}");
    });
}

/// Runs to `until`; when which leaders were asked, in milliseconds.
fn questions(scheduler: &mut ElectionScheduler, start: Instant, until: Instant) -> Vec<u64> {
    let mut now = start;
    let mut asked = Vec::new();
    while now < until {
        let due = scheduler.due(now);
        assert!(due.elect.is_empty(), "a leader that is named is not deposed for being silent");
        asked.extend(due.ask.iter().map(|_| (now - start).as_millis() as u64));
        let Some(next) = scheduler.next_due(now) else { break };
        now = next.max(now);
    }
    asked
}

/// A whole cluster was started again. The leader's replica was not opened, for it could not vouch for what it had
/// acknowledged; the others had its name from their disks, its node answered every ping, and nobody stood for election until
/// the check of silent groups two minutes later. A leader that is known by name alone is asked; one that was heard is not.
#[test]
fn a_leader_known_by_name_alone_is_asked_until_it_is_heard() {
    at_start(|start| {
        let mut scheduler = scheduler(start);
        let named = group(1);
        scheduler.set_group(named, watch(&[0, 1, 2], Some(0)), start);
        scheduler.set_group(group(2), watch(&[0, 1, 2], Some(1)), start);
        scheduler.set_group(group(3), watch(&[0, 2, 3], Some(0)), start);
        let asked = questions(&mut scheduler, start, start + MS(10_000));
        assert!((250..=500).contains(&asked[0]), "{asked:?}: it may show itself before");
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] == 2_000) && asked.len() == 5, "{asked:?}");
        // Nobody asks a node that is down: its groups elect. One that comes back may be another process.
        let now = start + MS(10_000);
        scheduler.node_down(NodeId(0), now);
        assert!(scheduler.due(now).ask.is_empty());
        scheduler.node_up(NodeId(0), now + MS(10));
        assert_eq!(questions(&mut scheduler, now + MS(10), now + MS(1_000)).len(), 1);
        // An answer of one that is not taken for the leader any more says nothing.
        scheduler.leader_answered(&named, NodeId(2));
        assert!(!questions(&mut scheduler, now + MS(1_000), now + MS(4_000)).is_empty());
        scheduler.leader_answered(&named, NodeId(0));
        let now = now + MS(4_000);
        assert_eq!(questions(&mut scheduler, now, now + MS(60_000)), [0; 0]);
        // Another leader is another name; a message of its own is as good as an answer.
        scheduler.set_group(named, watch(&[0, 1, 2], Some(2)), now);
        scheduler.contact(&named, now + MS(20));
        assert_eq!(questions(&mut scheduler, now, now + MS(60_000)), [0; 0]);
    });
}

/// A follower was started again: it has thousands of names from its disk. The questions keep to the rate, as elections do.
#[test]
fn many_leaders_are_asked_at_the_rate() {
    at_start(|start| {
        let mut scheduler = scheduler(start);
        (0..10_000).for_each(|number| scheduler.set_group(group(number), watch(&[0, 1, 2], Some(0)), start));
        let (mut now, mut asked, mut by_100_ms) = (start, BTreeSet::new(), vec![0; 100]);
        while asked.len() < 10_000 {
            let due = scheduler.due(now);
            for at in due.ask {
                scheduler.leader_answered(&at, NodeId(0));
                assert!(asked.insert(at), "asked once");
                by_100_ms[(now - start).as_millis() as usize / 100] += 1;
            }
            now = scheduler.next_due(now).expect("there are more, or a check").max(now);
        }
        assert!(by_100_ms.iter().all(|asked| *asked <= 400 + 200 + 1), "{by_100_ms:?}");
        assert!(by_100_ms[30..].iter().all(|asked| *asked == 0), "{by_100_ms:?}");
    });
}

/// Three nodes, ten thousand groups. The node that leads a third of them dies, which the others notice after 600 ms,
/// the slow way. All are led again before 1.5 s, with hardly an election too many, and never above the rate.
#[test]
fn all_leaders_of_a_dead_node_are_replaced_in_time() {
    const GROUPS: usize = 10_000;
    const DETECTED_MS: u64 = 600;
    const ELECTION_MS: u64 = 15;
    at_start(|start| {
        let mut rng = Rng::new(5);
        let mut nodes: Vec<ElectionScheduler> = (0..3)
            .map(|node| ElectionScheduler::new(NodeId(node), ElectionConfig::default(), node as u64))
            .collect();
        for (own, node) in nodes.iter_mut().enumerate() {
            (0..3).filter(|other| *other != own).for_each(|other| node.node_up(NodeId(other as i32), start));
        }
        let voters: Vec<Vec<i32>> = (0..GROUPS)
            .map(|_| {
                let first = rng.below(3) as i32;
                let other = 1 + rng.below(2) as i32;
                vec![first, (first + other) % 3, (first + 3 - other) % 3]
            })
            .collect();
        for (number, voters) in voters.iter().enumerate() {
            nodes
                .iter_mut()
                .for_each(|node| node.set_group(group(number), watch(voters, Some(voters[0])), start));
        }
        // Node 0 dies.
        let mut leaders: BTreeMap<TopicIdPartition, i32> =
            (0..GROUPS).filter(|n| voters[*n][0] != 0).map(|n| (group(n), voters[n][0])).collect();
        let lost = GROUPS - leaders.len();
        let (mut won, mut started, mut all_led_ms) = (Vec::new(), vec![0u32; 20], 0);
        for ms in DETECTED_MS..2_000 {
            let now = start + MS(ms);
            for (own, node) in nodes.iter_mut().enumerate().skip(1) {
                if ms == DETECTED_MS {
                    node.node_down(NodeId(0), now);
                }
                for at in node.due(now).elect {
                    started[ms as usize / 100] += 1;
                    won.push((ms + ELECTION_MS, at, own as i32));
                }
            }
            let news: Vec<_> = won.extract_if(.., |(at, _, _)| *at == ms).collect();
            for (_, at, leader) in news {
                // Who comes second finds a leader: its pre-vote is refused.
                let leader = *leaders.entry(at).or_insert(leader);
                let voters = &voters[at.partition.0 as usize];
                for node in &mut nodes[1..] {
                    node.set_group(at, watch(voters, Some(leader)), now);
                }
            }
            if leaders.len() == GROUPS && all_led_ms == 0 {
                all_led_ms = ms;
            }
        }
        assert!(all_led_ms > 0 && all_led_ms < 1_500, "led again after {all_led_ms} ms");
        let elections: u32 = started.iter().sum();
        assert!(elections as usize <= lost + lost / 4, "{elections} elections for {lost} groups");
        assert!(started.iter().all(|in_100_ms| *in_100_ms <= 2 * (400 + 200)), "{started:?}");
        assert!(nodes[1..].iter().all(|node| node.leaderless() == 0));
    });
}
