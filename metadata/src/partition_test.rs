//! No node ever deletes what a member may still hold, however late the controller's and the leader's words arrive.
//!
//! A partition's own members (what its consensus has agreed on) are played beside the controller's record of it. The
//! leader acts on any state the controller ever decided, as a node does that is behind, but never on one that is older
//! than what its group has acted on; its words arrive in any order, late, or twice. At each step the members must be
//! among the holders. Each of the two rules that this rests on is shown to be needed.

use ouzel_model::{NodeId, PartitionIndex, ReplicaId, TopicId, TopicIdPartition, TopicName};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use crate::image::{Broker, Image};
use crate::partition::Partition;
use crate::plan::{Reassignment, plan_inherit, plan_reassign, plan_replica_lost, plan_settle};
use crate::record::Record;

const AT: TopicIdPartition = TopicIdPartition { topic_id: TopicId([7; 16]), partition: PartitionIndex(0) };

#[derive(Clone, Debug)]
enum Step {
    Move(Vec<i32>),
    GiveUp,
    LoseDisk(i32),
    /// The others are given up, and are gone.
    Inherit(i32),
    /// The leader acts on the state of this many decisions ago.
    Act(usize),
    /// One of the leader's words arrives.
    Hear(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let nodes = prop::sample::subsequence(vec![1, 2, 3, 4, 5], 1..4).prop_shuffle();
    let step = prop_oneof![
        3 => nodes.prop_map(Step::Move),
        2 => Just(Step::GiveUp),
        1 => (1..6).prop_map(Step::LoseDisk),
        1 => (1..6).prop_map(Step::Inherit),
        4 => (0usize..4).prop_map(Step::Act),
        4 => (0usize..6).prop_map(Step::Hear),
    ];
    prop::collection::vec(step, 1..40)
}

/// What the partition's consensus knows.
struct Group {
    members: Vec<ReplicaId>,
    /// The newest decision it has acted on.
    decision: u32,
    /// Nobody can lead it until the heir goes on.
    is_lost: bool,
}

#[derive(Clone, Copy)]
struct Rules {
    /// A leader does not act on a decision older than its group has acted on.
    decisions_only_rise: bool,
    /// A word counts only for the very state it was said about.
    words_name_what_they_are_about: bool,
}

fn founded() -> Image {
    let mut image = Image::default();
    for node in (1..6).map(NodeId) {
        let broker = Broker::new(node, [0; 16], TopicId([1; 16]));
        image.apply(&Record::BrokerRegistered(broker)).expect("it registers");
    }
    let created = Record::TopicCreated {
        name: TopicName::new("t").expect("a good name"),
        topic_id: AT.topic_id,
        partitions: vec![Partition::new([1, 2, 3].map(NodeId).to_vec())],
        configs: Default::default(),
    };
    image.apply(&created).expect("it is created");
    image
}

fn play(steps: &[Step], rules: Rules) -> Result<(), String> {
    let mut image = founded();
    let state = |image: &Image| image.partition(AT).expect("nobody deletes it").clone();
    let mut history = vec![state(&image)];
    let mut words: Vec<Partition> = Vec::new();
    let mut lost: Vec<ReplicaId> = Vec::new();
    let mut group = Group { members: history[0].replicas.clone(), decision: 0, is_lost: false };
    for step in steps {
        let planned = match step {
            Step::Move(nodes) => reassigned(&image, Some(nodes.clone())),
            Step::GiveUp => reassigned(&image, None),
            Step::LoseDisk(node) => {
                let replica = state(&image).replica_on(NodeId(*node));
                lost.extend(replica);
                let admission = replica.and_then(|replica| plan_replica_lost(&image, AT, replica));
                admission.and_then(|admission| admission.records.first().cloned())
            }
            Step::Inherit(node) => {
                let present = state(&image);
                let heir = present.replica_on(NodeId(*node));
                let record = heir.and_then(|heir| plan_inherit(&image, AT, heir));
                if record.is_some() {
                    group.is_lost = true;
                    lost.extend(
                        group.members.iter().chain(&present.replicas).filter(|one| Some(**one) != heir),
                    );
                }
                record
            }
            Step::Act(ago) => {
                let seen = &history[history.len().saturating_sub(1 + ago)];
                let is_older = seen.next_incarnation < group.decision;
                if seen.heir.is_some() {
                    group.is_lost = false;
                }
                if seen.is_moving() && !group.is_lost && !(is_older && rules.decisions_only_rise) {
                    group.members = seen.replicas.clone();
                    group.decision = seen.next_incarnation;
                    words.push(seen.clone());
                }
                None
            }
            Step::Hear(which) => words.get(*which).and_then(|seen| {
                let present = state(&image);
                let same_place = present.is_moving() && present.replicas == seen.replicas;
                match rules.words_name_what_they_are_about {
                    true => plan_settle(&image, AT, seen),
                    false => plan_settle(&image, AT, &present).filter(|_| same_place),
                }
            }),
        };
        if let Some(record) = planned {
            image.apply(&record).map_err(|error| format!("{step:?}: {error}"))?;
            history.push(state(&image));
        }
        let present = state(&image);
        // Who lost its disk holds nothing that could be forgotten.
        let forgotten = |member: &&ReplicaId| {
            !lost.contains(member) && !present.holders().any(|holder| holder == **member)
        };
        if let Some(member) = group.members.iter().find(forgotten) {
            return Err(format!("{step:?}: member {member} is no holder of {present:?}"));
        }
    }
    Ok(())
}

fn reassigned(image: &Image, replicas: Option<Vec<i32>>) -> Option<Record> {
    let wanted = Reassignment { topic: "t".to_owned(), index: 0, replicas };
    plan_reassign(image, &[wanted], true).remove(0).ok().flatten()
}

fn play_many(cases: u32, rules: Rules) -> Result<(), String> {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let outcome =
        TestRunner::new(config).run(&steps(), |steps| play(&steps, rules).map_err(TestCaseError::fail));
    outcome.map_err(|error| match error {
        TestError::Fail(reason, steps) => format!("{reason} after {steps:?}"),
        TestError::Abort(reason) => reason.to_string(),
    })
}

const RULES: Rules = Rules { decisions_only_rise: true, words_name_what_they_are_about: true };

#[test]
fn no_member_is_ever_forgotten() {
    assert_eq!(play_many(8_000, RULES), Ok(()));
}

#[test]
fn a_leader_that_acts_on_an_older_decision_moves_to_who_has_deleted_everything() {
    let noticed = play_many(50_000, Rules { decisions_only_rise: false, ..RULES });
    assert!(noticed.is_err_and(|fault| fault.contains("is no holder")));
}

#[test]
fn a_word_about_an_earlier_move_is_not_taken_for_one_about_this() {
    let noticed = play_many(50_000, Rules { words_name_what_they_are_about: false, ..RULES });
    assert!(noticed.is_err_and(|fault| fault.contains("is no holder")));
}
