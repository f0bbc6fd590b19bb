//! What the clients of a run share: their notes, and which phase it is.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use ouzel_broker::node::METADATA_TOPIC_ID;
use ouzel_client::Place;
use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, NodeId, PartitionIndex, TopicId, TopicIdPartition};
use ouzel_runtime::{CoreId, Runtime};

use super::holdings::{Held, Holdings, Placed};

use crate::check::history::{History, PartitionId, ProducerLife, Session, Value};
use crate::check::power::Forgets;
use crate::check::raft::Sight;
use crate::check::verdict::Violation;
use crate::events::Events;
use crate::trace::Trace;
use crate::watch::Watch;

/// The topic that all write to.
pub(super) const TOPIC: &str = "events";
/// The topic of which the newest value of each key stays.
pub(super) const COMPACTED: &str = "states";
/// Where groups' offsets are.
pub(super) const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// A group that is there is seen so often, where a node of it runs.
const SEEN_WITHIN: Duration = Duration::from_secs(1);
/// The controller's log is flushed in every mode.
pub(super) const CONTROLLER: TopicId = METADATA_TOPIC_ID;

/// The notes of a run; clones are the same.
#[derive(Clone)]
pub(super) struct Shared {
    inner: Rc<Inner>,
}

struct Inner {
    history: RefCell<History>,
    violations: RefCell<Vec<Violation>>,
    /// Whether all that was promised may be lost by now, wherever it is.
    loss_admitted: Cell<bool>,
    /// Whether a disk forgot what it had said to be safe.
    lies_told: Cell<bool>,
    /// Partitions that nobody is left to lead, as the controller says: those who hold them have damaged files.
    given_up: RefCell<BTreeSet<Place>>,
    trace: Trace,
    phase: Cell<Phase>,
    partitions: u32,
    values: Cell<u64>,
    lives: Cell<u64>,
    sessions: Cell<u32>,
    start_ms: Cell<Option<i64>>,
    replicas: RefCell<Replicas>,
    /// Nodes whose replicas' contents were compared.
    compared: Cell<usize>,
    topics: RefCell<BTreeMap<String, Topic>>,
    placements: RefCell<BTreeMap<Place, Asked>>,
    members: RefCell<BTreeMap<u32, Option<Ownership>>>,
    holdings: RefCell<Holdings>,
    /// Since the run began.
    elapsed: Cell<Duration>,
    /// As the clients were told them.
    topic_ids: RefCell<BTreeMap<String, TopicId>>,
    /// What each node said last keeps it from being whole.
    faults: RefCell<BTreeMap<NodeId, Vec<String>>>,
    events: Events,
}

/// What was seen of the replicas, and what is wrong with it.
#[derive(Default)]
struct Replicas {
    /// Groups by number, in the order in which they were seen first.
    groups: BTreeMap<(TopicIdPartition, usize), u32>,
    /// The terms in which a partition had a single replica, or became a group's: entries are counted anew from there.
    geneses: BTreeMap<TopicIdPartition, BTreeSet<LeaderEpoch>>,
    watch: Watch,
    /// When each group was last seen.
    seen: BTreeMap<u32, Duration>,
}

/// A generation of a group, and what a member owns in it.
type Ownership = (i32, Vec<PartitionId>);

/// What is known of a topic that was made while faults happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    /// Its creation was acknowledged.
    Made {
        /// How many partitions it has: at least, and at most, as an attempt to add some may have been carried out.
        partitions: (i32, i32),
        /// What `max.message.bytes` may be: one, if every attempt to change it was answered.
        batch_bytes_max: BTreeSet<String>,
    },
    /// Its deletion was acknowledged.
    Deleted,
    /// Nobody knows.
    Unknown,
}

/// Where a partition was asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// On these nodes, the first one leading: the move was acknowledged.
    Acknowledged(Vec<i32>),
    /// Nobody knows which of several requests were carried out, or one was given up.
    Unknown,
}

/// Which phase of its run it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The topic is being made.
    Opening,
    /// Clients work, faults happen.
    Load,
    /// Faults have ended; clients finish.
    Healing,
    /// All has been read; members leave their groups.
    Parting,
    /// Nothing is written any more; the replicas' contents are compared.
    Comparing,
}

impl Shared {
    pub(super) fn new(partitions: u32, trace: Trace) -> Shared {
        Shared {
            inner: Rc::new(Inner {
                history: RefCell::default(),
                violations: RefCell::default(),
                loss_admitted: Cell::new(false),
                lies_told: Cell::new(false),
                given_up: RefCell::default(),
                trace,
                phase: Cell::new(Phase::Opening),
                partitions,
                values: Cell::new(1),
                lives: Cell::new(1),
                sessions: Cell::new(1),
                start_ms: Cell::new(None),
                replicas: RefCell::default(),
                compared: Cell::new(0),
                topics: RefCell::default(),
                placements: RefCell::default(),
                members: RefCell::default(),
                holdings: RefCell::default(),
                elapsed: Cell::default(),
                topic_ids: RefCell::default(),
                faults: RefCell::default(),
                events: Events::default(),
            }),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.inner.phase.get()
    }

    pub(super) fn enter(&self, phase: Phase) {
        if phase == Phase::Load {
            self.inner.replicas.borrow_mut().watch.power.begin();
        }
        self.inner.phase.set(phase);
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.inner.partitions).map(PartitionId)
    }

    /// Virtual time since the first client's first look at its clock; clients' clocks are right.
    pub(super) fn now(&self, runtime: &Runtime) -> Duration {
        let now_ms = runtime.clock.wall_ms();
        let start_ms = self.inner.start_ms.get().unwrap_or(now_ms);
        self.inner.start_ms.set(Some(start_ms));
        Duration::from_millis(u64::try_from(now_ms - start_ms).unwrap_or_default())
    }

    pub(super) fn next_value(&self) -> Value {
        Value(self.inner.values.replace(self.inner.values.get() + 1))
    }

    pub(super) fn next_life(&self) -> ProducerLife {
        ProducerLife(self.inner.lives.replace(self.inner.lives.get() + 1))
    }

    pub(super) fn next_session(&self) -> Session {
        Session(self.inner.sessions.replace(self.inner.sessions.get() + 1))
    }

    pub(super) fn note(&self, runtime: &Runtime, who: &str, event: fmt::Arguments<'_>) {
        self.inner.trace.note(runtime.clock.wall_ms(), who, event);
    }

    pub(super) fn admit_loss(&self) {
        self.inner.loss_admitted.set(true);
    }

    /// A machine lost its power, and its replicas do not flush before they answer.
    pub(super) fn power_cut(&self, node: NodeId) {
        self.inner.replicas.borrow_mut().watch.power.forget(
            node,
            Forgets::Unflushed,
            self.inner.elapsed.get(),
        );
    }

    /// A machine lost its disk.
    pub(super) fn wiped(&self, node: NodeId) {
        self.inner.replicas.borrow_mut().watch.power.forget(
            node,
            Forgets::Everything,
            self.inner.elapsed.get(),
        );
    }

    /// Whether all that is there would be kept if this machine lost its disk now.
    pub(super) fn bears_wipe(&self, node: NodeId) -> bool {
        let now = self.inner.elapsed.get();
        let replicas = self.inner.replicas.borrow();
        let is_there = |group| replicas.seen.get(&group).is_some_and(|seen| now < *seen + SEEN_WITHIN);
        replicas.watch.power.bears(node, Forgets::Everything, now, is_there)
    }

    pub(super) fn set_elapsed(&self, elapsed: Duration) {
        self.inner.elapsed.set(elapsed);
    }

    /// Whether the topics that are judged would keep what they promised if this machine lost its power now.
    pub(super) fn bears_power_cut(&self, node: NodeId) -> bool {
        let ids = self.inner.topic_ids.borrow();
        let judged: Vec<_> =
            [TOPIC, COMPACTED, OFFSETS_TOPIC].iter().filter_map(|name| ids.get(*name)).collect();
        let replicas = self.inner.replicas.borrow();
        // As long as one of them has no name yet it may be any.
        let may_be_judged = |at: &TopicIdPartition| judged.len() < 3 || judged.contains(&&at.topic_id);
        let groups = replicas.groups.iter().filter(|((at, _), _)| may_be_judged(at));
        let groups: Vec<_> = groups.map(|(_, group)| *group).collect();
        let now = self.inner.elapsed.get();
        replicas.watch.power.bears(node, Forgets::Unflushed, now, |group| groups.contains(&group))
    }

    pub(super) fn events(&self) -> &Events {
        &self.inner.events
    }

    pub(super) fn name_topic(&self, name: &str, topic_id: TopicId) {
        self.inner.topic_ids.borrow_mut().insert(name.to_owned(), topic_id);
    }

    /// Whether somebody was seen of each of a topic's partitions.
    pub(super) fn is_seen(&self, topic: &str, partitions: i32) -> bool {
        let ids = self.inner.topic_ids.borrow();
        let replicas = self.inner.replicas.borrow();
        let is_seen = |partition| {
            let at = ids.get(topic).map(|topic_id| TopicIdPartition { topic_id: *topic_id, partition });
            replicas.groups.keys().any(|(found, _)| Some(*found) == at)
        };
        (0..partitions).map(PartitionIndex).all(is_seen)
    }

    pub(super) fn is_named(&self, topic: &str) -> bool {
        self.inner.topic_ids.borrow().contains_key(topic)
    }

    /// Whether what was promised of a partition may be lost by now.
    pub(super) fn is_loss_admitted(&self, topic: &str, partition: PartitionIndex) -> bool {
        let replicas = self.inner.replicas.borrow();
        let topic_id = self.inner.topic_ids.borrow().get(topic).copied();
        let at = topic_id.map(|topic_id| TopicIdPartition { topic_id, partition });
        let mut groups = replicas.groups.iter().filter(|((found, _), _)| Some(*found) == at);
        self.inner.loss_admitted.get()
            || groups.any(|(_, group)| replicas.watch.power.is_loss_admitted(*group))
    }

    /// Whether what was promised somewhere may be lost by now.
    pub(super) fn is_any_loss_admitted(&self) -> bool {
        let replicas = self.inner.replicas.borrow();
        self.inner.loss_admitted.get()
            || replicas.groups.values().any(|group| replicas.watch.power.is_loss_admitted(*group))
    }

    pub(super) fn admit_lies(&self) {
        self.inner.lies_told.set(true);
        self.inner.replicas.borrow_mut().watch.admit_lies();
        self.admit_loss();
    }

    /// Then a partition may be without most of its replicas for good.
    pub(super) fn are_lies_told(&self) -> bool {
        self.inner.lies_told.get()
    }

    pub(super) fn give_up(&self, partition: Place) {
        self.inner.given_up.borrow_mut().insert(partition);
    }

    /// What a node says of itself by now: what keeps it from being whole.
    pub(super) fn set_faults(&self, node: NodeId, faults: Vec<String>) {
        self.inner.faults.borrow_mut().insert(node, faults);
    }

    /// What nodes say keeps them from being whole, in words; none if they are.
    pub(super) fn faults(&self) -> Vec<String> {
        let faults = self.inner.faults.borrow();
        let told = |(node, faults): (&NodeId, &Vec<String>)| {
            faults.iter().map(|fault| format!("node {node}: {fault}")).collect::<Vec<_>>()
        };
        faults.iter().flat_map(told).collect()
    }

    /// Whether some partition of a topic that passes is one that nobody can lead; or, where disks have lied, one that a node
    /// says it cannot serve.
    pub(super) fn is_given_up(&self, topic: &str, passes: impl Fn(i32) -> bool) -> bool {
        let given_up = self.inner.given_up.borrow();
        let is_damaged = |fault: &String| {
            let named = fault.split(|c: char| !(c.is_alphanumeric() || "_-.".contains(c)));
            let mut indexes =
                named.filter_map(|word| word.strip_prefix(topic)?.strip_prefix('-')?.parse().ok());
            indexes.any(&passes)
        };
        given_up.iter().any(|(name, partition)| name == topic && passes(*partition))
            || self.are_lies_told() && self.faults().iter().any(is_damaged)
    }

    pub(super) fn record(&self, what: impl FnOnce(&mut History)) {
        what(&mut self.inner.history.borrow_mut());
    }

    pub(super) fn broken(&self, violation: Violation) {
        self.inner.violations.borrow_mut().push(violation);
    }

    pub(super) fn history(&self) -> History {
        self.inner.history.borrow().clone()
    }

    pub(super) fn violations(&self) -> Vec<Violation> {
        let mut all = self.inner.violations.borrow().clone();
        all.extend_from_slice(self.inner.replicas.borrow().watch.violations());
        all
    }

    /// A partition has a single replica: what groups of it come later have nothing to do with those before. (A group may have
    /// let go of its first entries before anybody looks at it.)
    pub(super) fn see_alone(&self, at: TopicIdPartition, epoch: LeaderEpoch) {
        self.inner.replicas.borrow_mut().geneses.entry(at).or_default().insert(epoch);
    }

    /// Judges what a replica looks like; with contents, among others that are seen with theirs.
    pub(super) fn see(&self, at: TopicIdPartition, sight: Sight, with_contents: bool) {
        let mut replicas = self.inner.replicas.borrow_mut();
        let Replicas { groups, geneses, watch, seen } = &mut *replicas;
        let next = groups.len() as u32;
        let geneses = geneses.entry(at).or_default();
        let began = |head: &EntryId| head.index == EntryIndex(0) && head.term > LeaderEpoch(0);
        geneses.extend(sight.head.filter(began).map(|head| head.term));
        // By its entries, not by its vote: one that was left over from a group before may vote on for ever.
        let newest = sight.entries.last().map(|entry| entry.id.term).max(sight.head.map(|head| head.term));
        let generation = geneses.range(..=newest.unwrap_or(sight.epoch)).count();
        let group = *groups.entry((at, generation)).or_insert(next);
        let now = self.inner.elapsed.get();
        seen.insert(group, now);
        if at.topic_id == CONTROLLER {
            watch.power.note_flushed(group);
        }
        for violation in watch.see(&Sight { group, ..sight }, with_contents, now, &self.inner.events) {
            self.inner.trace.note(0, "judge", format_args!("VIOLATION {violation}, of {at:?}"));
        }
    }

    /// What a member owns by now.
    pub(super) fn own(&self, member: u32, what: Option<Ownership>) {
        self.inner.members.borrow_mut().insert(member, what);
    }

    /// What keeps all members from owning all partitions together, in words.
    pub(super) fn not_owned(&self) -> Option<String> {
        let members = self.inner.members.borrow();
        let generations: BTreeSet<_> =
            members.values().map(|owned| owned.as_ref().map(|(generation, _)| *generation)).collect();
        let owned: BTreeSet<_> =
            members.values().flatten().flat_map(|(_, partitions)| partitions).copied().collect();
        let is_whole =
            generations.len() == 1 && self.partitions().all(|partition| owned.contains(&partition));
        (!is_whole).then(|| format!("the members of a group own {:?}", *members))
    }

    /// A core says what it holds.
    pub(super) fn hold(&self, node: NodeId, core: CoreId, held: Held) {
        self.inner.holdings.borrow_mut().note(node, core, self.inner.elapsed.get(), held);
    }

    /// What is not held as it is to be, in words.
    pub(super) fn amiss(&self, placed: &Placed) -> Option<String> {
        self.inner.holdings.borrow().amiss(placed, self.inner.elapsed.get())
    }

    pub(super) fn node_compared(&self) {
        self.inner.compared.set(self.inner.compared.get() + 1);
    }

    pub(super) fn compared(&self) -> usize {
        self.inner.compared.get()
    }

    pub(super) fn set_topic(&self, name: &str, topic: Topic) {
        self.inner.topics.borrow_mut().insert(name.to_owned(), topic);
    }

    /// A partition was asked to be elsewhere. Once it is not known what was carried out, a request that is late may still be.
    pub(super) fn set_placement(&self, place: Place, asked: Asked) {
        let mut placements = self.inner.placements.borrow_mut();
        let known = placements.entry(place).or_insert_with(|| asked.clone());
        if *known != Asked::Unknown {
            *known = asked;
        }
    }

    pub(super) fn placements(&self) -> BTreeMap<Place, Asked> {
        self.inner.placements.borrow().clone()
    }

    pub(super) fn topics(&self) -> BTreeMap<String, Topic> {
        self.inner.topics.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use ouzel_model::ReplicaId;

    use super::*;

    fn sight(node: i32) -> Sight {
        let replica = |node| ReplicaId { node: NodeId(node), incarnation: 1 };
        Sight {
            group: 0,
            replica: replica(node),
            life: 1,
            epoch: LeaderEpoch(1),
            voted_for: None,
            leads: node == 1,
            committed: None,
            purged: None,
            entries: Vec::new(),
            voters: if node == 1 { (1..=3).map(replica).collect() } else { Vec::new() },
            known: Some(EntryIndex(1)),
            head: None,
        }
    }

    #[test]
    fn members_own_all_partitions_together_or_not() {
        let shared = Shared::new(2, Trace::default());
        let owns = |member, generation, partitions: &[u32]| {
            let partitions = partitions.iter().map(|partition| PartitionId(*partition)).collect();
            shared.own(member, Some((generation, partitions)));
        };
        owns(0, 3, &[0]);
        assert!(shared.not_owned().is_some(), "nobody owns the other partition");
        owns(1, 2, &[1]);
        assert!(shared.not_owned().is_some(), "in the generation before");
        owns(1, 3, &[1]);
        assert_eq!(shared.not_owned(), None);
        shared.own(2, None);
        assert!(shared.not_owned().is_some(), "one is out");
    }

    /// As long as no topic had a name every power cut was borne: a group's offsets were lost before anybody knew which topic
    /// holds them.
    #[test]
    fn a_group_without_a_name_bears_no_more_than_one_with_a_name() {
        let shared = Shared::new(1, Trace::default());
        let at = |topic| TopicIdPartition { topic_id: TopicId([topic; 16]), partition: PartitionIndex(0) };
        (1..=3).for_each(|node| shared.see(at(7), sight(node), false));
        shared.power_cut(NodeId(2));
        assert!(!shared.bears_power_cut(NodeId(3)));
        for (name, topic) in [(TOPIC, 1), (COMPACTED, 2), (OFFSETS_TOPIC, 3)] {
            shared.name_topic(name, TopicId([topic; 16]));
        }
        assert!(shared.bears_power_cut(NodeId(3)), "it is none of those that are judged");
        shared.name_topic(TOPIC, TopicId([7; 16]));
        assert!(!shared.bears_power_cut(NodeId(3)));
    }
}
