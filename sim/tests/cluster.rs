//! Whole clusters under the simulator, a few seeds each: `cargo xtask sim` runs the many.

use std::time::Duration;

use ouzel_sim::brokers::{Options, Report, run};
use ouzel_sim::trace::Trace;
use ouzel_storage::Durability;

fn sound(options: &Options) -> Report {
    let report = run(options, Trace::default()).unwrap_or_else(|error| panic!("{options:?}: {error}"));
    assert_eq!(report.verdict.violations, [], "{options:?}");
    report
}

fn three(seed: u64) -> Options {
    Options { nodes: 3, load: Duration::from_secs(6), ..Options::new(seed) }
}

#[test]
fn three_brokers_keep_their_promises() {
    for seed in [1, 2] {
        let report = sound(&three(seed));
        assert!(report.faults > 3, "seed {seed}: {} faults", report.faults);
        assert!(report.verdict.counts.acknowledged_all > 50, "seed {seed}: {:?}", report.verdict.counts);
        assert!(report.verdict.counts.read > 50, "seed {seed}: {:?}", report.verdict.counts);
    }
}

#[test]
fn five_brokers_keep_their_promises() {
    let report = sound(&Options { nodes: 5, ..three(5) });
    assert!(report.verdict.counts.acknowledged_all > 50, "{:?}", report.verdict.counts);
}

/// Two founders registered and followed the controller's log; the third was slower. Its node was not in the image, so the
/// others forgot its address: the leader sent it nothing, and it could never read the log up to its own registration.
/// (Seed 43 of three brokers, before faults began so early.)
#[test]
fn a_founder_that_comes_up_late_is_waited_for() {
    sound(&three(43));
}

/// A node that was started again led the controller's log before it had registered. It was asked to make a topic, wrote
/// that down, and waited until its own cores had seen it, keeping everybody else's changes waiting: among them its own
/// registration, before which its cores are shown nothing. The cluster decided nothing any more. (Seed 3 of clusters.)
#[test]
fn a_leader_that_is_not_in_service_yet_keeps_no_change_waiting() {
    sound(&Options { nodes: 3, ..Options::cluster(3) });
}

/// All nodes were started again, and the replica that led could not vouch for what it had acknowledged, so it was not opened.
/// The others had its name from their disks and its node answered: nobody stood for election for two minutes. (Seeds 4 and 88
/// of clusters, write-caching and os.)
#[test]
fn a_leader_that_is_not_opened_is_not_waited_for() {
    sound(&Options { nodes: 3, ..Options::cluster(4) });
}

/// Two of three founders told the first who they are, and were killed before they heard that it had founded their cluster.
/// Their directories' ids were on no disk yet: they came back as others, and the cluster that waited for the first ones
/// could never decide anything. (Seed 795268561128, durable.)
#[test]
fn a_founder_that_is_killed_before_it_knows_its_cluster_comes_back_as_who_it_was() {
    let options = Options::cluster(795_268_561_128);
    sound(&Options { nodes: 3, durability: Durability::Durable, ..options });
}

/// A topic was made, and all nodes lost their power before its partition had elected anybody. The write-ahead files knew its
/// replicas, their directories had not been flushed: most of them were taken for replicas whose files somebody has deleted, so
/// nobody could lead the partition any more. (Seed 1000342, durable.)
#[test]
fn a_topic_that_was_made_right_before_all_power_failed_can_be_written() {
    sound(&Options { nodes: 3, durability: Durability::Durable, ..Options::cluster(1_000_342) });
}

/// A node that led the controller's log before it was in service had a full disk, which refused its own registration. It asked
/// again at once, and so on: it did nothing else any more, and wrote a warning each time. (Seed 6000042.)
#[test]
fn a_controller_whose_disk_is_full_while_it_starts_waits_for_room() {
    sound(&Options::cluster(6_000_042));
}

/// A move to fewer replicas was given up when the group had already let go of one. Nothing of it was to be seen any more in what
/// the controller had decided, so no leader looked at its members: a partition of three replicas went on with two. (Seeds
/// 7500076 and 7000442.)
#[test]
fn whom_a_move_that_is_given_up_had_let_go_of_is_taken_back() {
    sound(&Options::cluster(7_500_076));
}

/// A follower was sent a snapshot at an entry that it had. openraft counted all up to there as gone, of which the log knew nothing:
/// when that replica led, and somebody needed a snapshot, there was none, and it was out of service. (Seed 7500168.)
#[test]
fn who_was_sent_a_snapshot_of_what_it_had_can_fill_others() {
    sound(&Options::cluster(7_500_168));
}

/// A topic was made with one replica, whose node lost its power before it knew; by the time it was back a move to others had been
/// decided, and a partition was founded only as long as nothing of it had changed. (Seed 9400080.)
#[test]
fn a_partition_that_is_moved_before_anybody_founded_it_is_founded_all_the_same() {
    sound(&Options::cluster(9_400_080));
}

/// All power failed, in the middle of a move: four of five replicas had to go on with what they had left before one could be
/// elected, and before each of them ten seconds were waited as if nobody had been asked yet. (Seed 9401986, os.)
#[test]
fn where_many_must_go_on_they_do_not_wait_for_each_other_for_long() {
    sound(&Options::cluster(9_401_986));
}

/// Disks that lied left a node's copy of the controller's log, or its votes, in pieces. It said so and did not start, as it
/// should; nobody in the simulation read that, so the run was taken for one that does not heal. (Seeds 40003 and 40015 of
/// clusters on lying disks.) It is given an empty disk now, and what nobody but damaged replicas can lead is given up.
#[test]
fn a_node_whose_disk_has_lied_is_given_an_empty_one() {
    for seed in [40_003, 40_015] {
        sound(&Options { lying_disks: true, ..Options::cluster(seed) });
    }
}
