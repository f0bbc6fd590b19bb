//! Batches that are refused after they were submitted: their numbers are used up, and nothing else is left of them. And why
//! one submission waits for the one before it.

mod cluster;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use cluster::{Cluster, NOW, committed, run};
use ouzel_model::batch::Header;
use ouzel_model::{NodeId, Offset};
use ouzel_raft::suite::batch;
use ouzel_raft::{AppendRefused, Receipt, ReplicatedLog, Ticks};

/// A submission has its place after fewer turns of the core than that.
const TURNS_MAX: usize = 40;

/// One record of the only producer of most tests.
fn numbered(sequence: i32) -> BytesMut {
    batch(1, Some((7, 0, sequence)))
}

/// Takes place behind all tasks of the core that can run, so many times.
async fn turns(count: usize) {
    for _ in 0..count {
        let mut has_waited = false;
        poll_fn(|context| {
            if std::mem::replace(&mut has_waited, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// How many entries take no offset: the same ones on all replicas.
fn side_entries(cluster: &Cluster) -> usize {
    let mut of_all = cluster.ids().into_iter().map(|id| cluster.group(id).local().side_entries());
    let first = of_all.next().expect("a replica");
    of_all.for_each(|other| assert_eq!(other, first));
    first.len()
}

/// Every replica has so many records of the producer, without a gap and in the order of their sequences.
async fn assert_in_order(cluster: &Cluster, count: i32) {
    for id in cluster.ids() {
        let found: Vec<(i64, i32)> = committed(&cluster.group(id))
            .await
            .into_iter()
            .map(|(offset, _, bytes)| (offset, Header::parse(&bytes).expect("sound").base_sequence))
            .collect();
        let expected: Vec<(i64, i32)> = (0..count).map(|n| (i64::from(n), n)).collect();
        assert_eq!(found, expected, "node {id}");
    }
}

type Answer = Result<Receipt, AppendRefused>;

/// Once a batch is refused so are those behind it: nothing of a producer is taken out of its order.
fn first_refused(answers: &[Answer]) -> Option<usize> {
    let at = answers.iter().position(Result::is_err)?;
    assert!(answers[at..].iter().all(Result::is_err), "{at} is refused, and one behind it is not");
    Some(at)
}

/// The disk of the leader is found to be nearly full when a submission is on its way already: its batches have their numbers
/// and cannot be placed. The entries are withdrawn, on all replicas, and take no offset; the producer is told to try again,
/// and what it sends again is stored once and in order, though its later batches come first. Batches that were withdrawn used
/// not to be remembered: a producer that the log did not know yet had its second batch taken and its first one refused for
/// good.
#[test]
fn batches_that_cannot_be_placed_any_more_are_withdrawn() {
    let mut withdrawn = 0;
    // Whatever the submission has come to by then.
    for count in 0..TURNS_MAX {
        let mut seen = 0;
        run(count as u64, 3, |cluster| {
            let seen = &mut seen;
            async move {
                cluster.found().await;
                let leader = cluster.leader().await;
                cluster.settled().await;
                let (sides, node) = (side_entries(&cluster), leader.replica().node.0);
                let appending: Vec<_> = (0..3).map(|n| leader.append(numbered(n), NOW)).collect();
                let low = cluster.node(node).disk_low.clone();
                ouzel_runtime::spawn(async move {
                    turns(count).await;
                    low.set(true);
                });
                let mut answers = Vec::new();
                for append in appending {
                    answers.push(append.await);
                }
                // It may be found only when all are placed.
                cluster.sleep(Duration::from_millis(1)).await;
                let at = first_refused(&answers);
                if let Some(at) = at {
                    assert_eq!(answers[at].as_ref().err(), Some(&AppendRefused::DiskLow));
                    assert_eq!(leader.offsets().log_end, Offset(at as i64), "no offset is used up");
                }
                cluster.node(node).disk_low.set(false);
                let stored = at.unwrap_or(answers.len()) as i32;
                if stored < 2 {
                    let early = leader.append(numbered(stored + 1), NOW).await;
                    assert!(
                        matches!(early, Err(AppendRefused::OutOfOrderSequence { .. })),
                        "its turn will come"
                    );
                }
                for sequence in 0..4 {
                    let placed = cluster.produce(numbered(sequence)).await;
                    assert_eq!(placed.duplicate, sequence < stored);
                }
                cluster.settled().await;
                assert_in_order(&cluster, 4).await;
                *seen = side_entries(&cluster) - sides;
            }
        });
        assert!(seen == 0 || seen == 3, "{seen} of three were withdrawn");
        withdrawn += seen;
    }
    assert!(withdrawn > 0, "no disk was found full between a submission and its place");
}

/// While the disk is known to be nearly full, refusing costs nothing: producers try again and again, and each entry that is
/// withdrawn would be written and flushed by every replica, on disks that may be as full.
#[test]
fn a_nearly_full_disk_is_not_written_to_for_what_it_refuses() {
    run(1, 3, |cluster| async move {
        cluster.found().await;
        let leader = cluster.leader().await;
        leader.append(numbered(0), NOW).await.expect("there is room");
        cluster.settled().await;
        let (sides, low) = (side_entries(&cluster), &cluster.node(leader.replica().node.0).disk_low);
        low.set(true);
        for _ in 0..20 {
            let refused = leader.append(numbered(1), NOW).await;
            assert_eq!(refused.err(), Some(AppendRefused::DiskLow));
        }
        // What is stored is stored: its producer hears so.
        assert!(leader.append(numbered(0), NOW).await.expect("a repeat needs no room").placed.duplicate);
        cluster.settled().await;
        assert_eq!(side_entries(&cluster), sides);
        low.set(false);
        assert!(!cluster.produce(numbered(1)).await.duplicate);
        cluster.settled().await;
        assert_in_order(&cluster, 2).await;
    });
}

/// A leader that has not heard of its quorum for a while is refused its first submission, asks the quorum, and tries again.
/// What comes meanwhile waits for that, whenever it comes. Handed on at once, a second batch that met a leader which had just
/// heard of its quorum was taken before the first one's second try: that one was refused, and its producer found a gap.
#[test]
fn a_second_submission_waits_until_the_first_has_its_place() {
    run(1, 3, |cluster| async move {
        cluster.settings.borrow_mut().ticks = Ticks::Served;
        cluster.found().await;
        let leader = cluster.leader().await;
        cluster.settled().await;
        // The quorum answers within so many milliseconds; then it is a matter of turns.
        let moments = (0..10).flat_map(|ms| (0..TURNS_MAX).map(move |count| (ms, count)));
        for (producer, (ms, count)) in (100..).zip(moments) {
            // Longer than its lease, and nothing else keeps it.
            cluster.sleep(Duration::from_secs(60)).await;
            let own = |sequence| batch(1, Some((producer, 0, sequence)));
            let (first, next) = (leader.append(own(0), NOW), own(1));
            let next = ouzel_runtime::spawn({
                let (leader, clock) = (leader.clone(), cluster.machine.runtime().clock);
                async move {
                    clock.sleep(Duration::from_millis(ms)).await;
                    turns(count).await;
                    leader.append(next, NOW).await
                }
            });
            let first = first.await.expect("it leads").placed.base_offset;
            let next = next.await.expect("no panic").expect("it leads").placed.base_offset;
            assert_eq!(next, first + 1, "the second came {ms} ms and {count} turns after the first");
        }
    });
}

/// The same while the leader may have been replaced: of what a producer has sent one behind the other all is taken, or all
/// refused.
#[test]
fn nothing_is_taken_behind_what_is_refused() {
    let (mut refused, mut placed) = (0, 0);
    // Before its lease ends, when it has just ended, and when others have elected a leader.
    for cut_ms in (500..1_000).step_by(10) {
        run(cut_ms, 3, |cluster| {
            let (refused, placed) = (&mut refused, &mut placed);
            async move {
                cluster.found().await;
                let leader = cluster.leader().await;
                cluster.settled().await;
                cluster.network.isolate(leader.replica().node, cluster.ids().into_iter().map(NodeId));
                cluster.sleep(Duration::from_millis(cut_ms)).await;
                let mut appending = vec![leader.append(numbered(0), NOW)];
                for sequence in 1..4 {
                    turns(5).await;
                    appending.push(leader.append(numbered(sequence), NOW));
                }
                cluster.sleep(Duration::from_millis(cut_ms % 50)).await;
                cluster.network.heal();
                let mut answers = Vec::new();
                for append in appending {
                    answers.push(append.await);
                }
                match first_refused(&answers) {
                    Some(0) => *refused += 1,
                    Some(at) => panic!("{at} were taken, and then no more"),
                    None => *placed += 1,
                }
                for sequence in 0..4 {
                    cluster.produce(numbered(sequence)).await;
                }
                cluster.settled().await;
                assert_in_order(&cluster, 4).await;
            }
        });
    }
    assert!(refused > 0 && placed > 0, "{refused} first ones were refused, {placed} placed: both are needed");
}
