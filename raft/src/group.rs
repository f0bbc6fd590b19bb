//! One replica of a replicated log: openraft over a partition's log, as a [`ReplicatedLog`].
//!
//! # What it adds to openraft
//! * Submissions that get their places one after the other, and producers judged with them (`submit`).
//! * Acknowledgement by `min.insync.replicas` and durability, and the in-sync set (`follow`).
//! * A leader that is idle proves its leadership before it is refused a write (a stale lease is no lost leadership).
//! * Founding that every founder does for itself (`open`), transfers that cannot get stuck, changes of the voters that can be
//!   begun again (`govern`), retention (`retain`).
//! * An end at which everything is answered, for a group that has one member left (`end`).
//! * The receiver's side of the peers' messages (`serve`), and questions to one of them (`asking`).
//!
//! # Ticks
//! A group that ticks costs a core about 8 us ten times a second, idle or not. So only a few groups tick themselves
//! ([`Ticks::Own`]: the controller's); the others are served by their node: [`RaftGroup::elect`] when a leader is gone,
//! [`RaftGroup::note_node`] when a node falls silent or comes back.
//!
//! # Its end
//! openraft stops for good at the first error of the disk. The replica then says so ([`Role::Stopped`],
//! [`GroupStatus::failure`]) and refuses everything; its process goes on. So it is when openraft itself panics in a task of
//! its own that it watches over.

mod asking;
mod end;
mod follow;
mod govern;
mod open;
mod retain;
mod serve;
mod submit;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use openraft_rt::watch::WatchReceiver;
use ouzel_model::{EntryId, LeaderEpoch, NodeId, Offset, ReplicaId, TimestampMs, TopicIdPartition};
use ouzel_storage::{Durability, Log};
use tokio::sync::Notify;

use crate::in_sync::{InSync, LastSeen, is_enough};
use crate::network::Network;
use crate::planted::{self, Planted};
use crate::replica_state::ReplicaState;
use crate::replicated_log::{AppendRefused, Receipt, ReplicaOffsets, ReplicatedLog};
use crate::snapshot::Incoming;
use crate::state_machine::StateMachine;
use crate::types::Types;

pub use govern::{ReconfigureError, TransferError};
pub use open::{OpenGroup, OpenGroupError};
pub use retain::RetainError;

use submit::Pending;

/// How a group behaves; most of it may change while it runs.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// What acknowledgement promises.
    pub durability: Durability,
    /// Voters that must hold a batch before acks=all is answered; below a majority it is a majority.
    pub min_insync_replicas: usize,
    /// How long a voter may have been behind and still count as in sync.
    pub lag_time_max: Duration,
    /// Who wakes it. Fixed at the opening.
    pub ticks: Ticks,
    /// A leader's heartbeat, where it ticks itself; also the time a vote request may take. Fixed at the opening.
    pub heartbeat: Duration,
    /// A follower that has heard nothing of its leader for a time drawn from this range stands for election, where it ticks
    /// itself. The longer one is also the leader's lease: so long after the last word of its leader, a replica gives no
    /// other one its vote. Fixed at the opening.
    pub election_timeout: (Duration, Duration),
}

impl Default for GroupSettings {
    fn default() -> GroupSettings {
        GroupSettings {
            durability: Durability::Durable,
            min_insync_replicas: 1,
            lag_time_max: Duration::from_secs(30),
            ticks: Ticks::Served,
            heartbeat: Duration::from_millis(150),
            election_timeout: (Duration::from_millis(500), Duration::from_millis(800)),
        }
    }
}

/// Who wakes a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticks {
    /// Itself: it sends heartbeats and stands for election by its own clock.
    Own,
    /// Its node: see [`RaftGroup::elect`].
    Served,
}

/// What a replica is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads, and has applied the first entry of its own reign: it may serve.
    Leader,
    /// It follows, and votes.
    Follower,
    /// It follows, and does not vote.
    Learner,
    /// It stands for election, or was elected and is not ready to serve.
    Candidate,
    /// It takes part no more: shut down, or failed.
    Stopped,
}

/// How a replica sees its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// What it is.
    pub role: Role,
    /// The newest reign it knows of.
    pub epoch: LeaderEpoch,
    /// Who leads that, as far as it knows.
    pub leader: Option<ReplicaId>,
    /// The voters in sync; known to the leader only.
    pub in_sync: Vec<ReplicaId>,
    /// Who votes; of both sets during a change.
    pub voters: Vec<ReplicaId>,
    /// Who only follows.
    pub learners: Vec<ReplicaId>,
    /// The newest entry known to be committed; only rises while the replica is open.
    pub committed: Option<EntryId>,
    /// The newest entry here.
    pub last_entry: Option<EntryId>,
    /// End of what is committed here.
    pub high_watermark: Offset,
    /// The newest entry each member is known to hold; known to the leader only.
    pub held: Vec<(ReplicaId, Option<ouzel_model::EntryIndex>)>,
    /// Followers that came back with less than they had acknowledged, since this replica was opened. Each is a broken
    /// promise of some disk, and may be lost data.
    pub reversions: u64,
    /// Why it stopped.
    pub failure: Option<String>,
}

impl GroupStatus {
    /// Of a replica that knows nothing of its group yet.
    pub fn unknown() -> GroupStatus {
        GroupStatus {
            role: Role::Learner,
            epoch: LeaderEpoch(0),
            leader: None,
            in_sync: Vec::new(),
            voters: Vec::new(),
            learners: Vec::new(),
            committed: None,
            last_entry: None,
            high_watermark: Offset::ZERO,
            held: Vec::new(),
            reversions: 0,
            failure: None,
        }
    }
}

pub(crate) type Raft = openraft::Raft<Types, StateMachine>;
pub(crate) type Metrics = openraft::RaftMetrics<Types>;

/// One replica of a group. Clones are the same one.
#[derive(Clone)]
pub struct RaftGroup {
    inner: Rc<Inner>,
}

pub(crate) struct Inner {
    state: Rc<ReplicaState>,
    raft: Raft,
    network: Network,
    pending: RefCell<VecDeque<Pending>>,
    is_submitting: Cell<bool>,
    in_sync: RefCell<InSync>,
    /// Who was said to lead, and in which epoch, and has stood for election since, or said that it is not there.
    resigned: Cell<Option<(LeaderEpoch, ReplicaId)>>,
    /// In which epoch it gave up leadership and has the others asked to elect, until they do.
    has_elected: Cell<Option<LeaderEpoch>>,
    /// As last told.
    status: RefCell<GroupStatus>,
    on_change: RefCell<Option<Rc<dyn Fn()>>>,
    /// Told with every change of the status, and of what the voters hold.
    changed: Notify,
    /// Wakes the follower of metrics when settings changed.
    nudged: Rc<Notify>,
    /// A snapshot on its way here.
    incoming: Incoming,
    /// The head of the log is being dropped.
    is_retaining: Cell<bool>,
    /// One step of a change of members at a time.
    changing: tokio::sync::Mutex<()>,
    /// The newest decision that this replica has handed to openraft, which may not be in the log yet.
    decision_proposed: Cell<u32>,
    /// It is to end, with all that was asked of it answered: nothing new is begun.
    is_ending: Cell<bool>,
    is_shut_down: Cell<bool>,
}

impl std::fmt::Debug for RaftGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.inner.status.borrow();
        write!(
            f,
            "RaftGroup({} of {:?}, {:?}, epoch {})",
            self.replica(),
            self.inner.state.log,
            status.role,
            status.epoch
        )
    }
}

impl RaftGroup {
    /// Whose log this is.
    pub fn at(&self) -> TopicIdPartition {
        self.inner.state.at
    }

    /// Which replica this is.
    pub fn replica(&self) -> ReplicaId {
        self.inner.state.replica
    }

    /// What it is in its group. Cheap: for every batch and every read.
    pub fn role(&self) -> Role {
        self.inner.role()
    }

    /// Whether it leads, and nobody can have been elected in its place by the time this is asked: a majority has answered it
    /// within its lease, or does now. One that stood still or was cut off takes itself for the leader all the same, and may
    /// have been replaced. Waits for the majority as long as an election may take.
    pub async fn still_leads(&self) -> bool {
        self.inner.prove_leadership().await.is_ok()
    }

    /// Who leads, as far as it knows. As cheap as the role.
    pub fn leader(&self) -> Option<ReplicaId> {
        let metrics = self.inner.raft.metrics();
        self.inner.leader_of(&metrics.borrow_watched())
    }

    /// How many voters are in sync; known to the leader only, 0 elsewhere. As cheap.
    pub fn in_sync_count(&self) -> usize {
        if self.role() == Role::Leader { self.inner.in_sync_count_now() } else { 0 }
    }

    /// Whether acks=all can be answered with the voters in sync: at least `in_sync_min` of them, and a majority, without which
    /// nothing is ever committed. Known to the leader only. Cheap enough for every batch.
    pub fn has_enough_in_sync(&self, in_sync_min: usize) -> bool {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        is_enough(&self.inner.in_sync_now(), metrics.membership_config.membership(), in_sync_min)
    }

    /// When a member, whose node answers or does not, was last heard and caught up; known to the leader only.
    pub fn last_seen(&self, member: ReplicaId, is_up: bool) -> LastSeen {
        self.inner.in_sync.borrow().last_seen(self.inner.state.runtime.clock.now(), member, is_up)
    }

    /// Its newest vote, which may not be on its disk yet: the epoch, and whom it chose there. Nobody, once it knows that a
    /// majority has elected somebody.
    pub fn vote(&self) -> (LeaderEpoch, Option<ReplicaId>) {
        self.inner.state.own_vote()
    }

    /// How it sees its group now.
    pub fn status(&self) -> GroupStatus {
        self.inner.observe()
    }

    /// Calls `hook` after each change of role, leader, epoch, in-sync set or members. There is one such hook.
    pub fn on_change(&self, hook: impl Fn() + 'static) {
        self.inner.on_change.replace(Some(Rc::new(hook)));
    }

    /// Calls `hook` after each step of an offset: log start, high watermark, log end, and the log's own ends. There is one
    /// such hook, and it takes the place of the log's.
    pub fn on_progress(&self, hook: impl Fn() + 'static) {
        let hook: Rc<dyn Fn()> = Rc::new(hook);
        self.inner.state.set_on_progress(hook.clone());
        self.inner.state.log.on_progress(move || hook());
    }

    /// Takes new settings; those that are fixed at the opening stay as they are.
    pub fn set_settings(&self, settings: GroupSettings) {
        *self.inner.state.settings.borrow_mut() = settings;
        self.inner.nudged.notify_one();
    }

    /// Changes what acknowledgement means, for appends from now on.
    pub fn set_durability(&self, durability: Durability) {
        self.inner.state.settings.borrow_mut().durability = durability;
    }

    /// The settings as they are now.
    pub fn settings(&self) -> GroupSettings {
        self.inner.state.settings.borrow().clone()
    }

    /// A node answers, or does not any more: whoever lives there is in sync only while it does.
    pub fn note_node(&self, node: NodeId, is_up: bool) {
        let now = self.inner.state.runtime.clock.now();
        self.inner.in_sync.borrow_mut().note_node(node, is_up, now);
        self.inner.nudged.notify_one();
    }

    /// Puts what a restart likes to know on the medium: how far the group has committed. For now and then.
    ///
    /// # Errors
    /// In words, when the write-ahead file takes nothing.
    pub async fn checkpoint(&self) -> Result<(), String> {
        self.inner.state.keep_committed().await.map_err(|error| error.to_string())
    }
}

impl ReplicatedLog for RaftGroup {
    fn append(
        &self,
        batch: BytesMut,
        now: TimestampMs,
    ) -> impl Future<Output = Result<Receipt, AppendRefused>> + 'static {
        self.inner.enqueue(batch, now)
    }

    fn offsets(&self) -> ReplicaOffsets {
        let offsets = self.inner.state.log.offsets();
        let committed = match planted::is(Planted::LonelyWatermark) && self.role() == Role::Leader {
            true => offsets.log_end,
            false => self.inner.state.high_watermark(),
        };
        ReplicaOffsets {
            log_start: offsets.log_start,
            high_watermark: committed.max(offsets.log_start).min(offsets.log_end),
            log_end: offsets.log_end,
        }
    }

    fn epoch(&self) -> LeaderEpoch {
        self.inner.state.term()
    }

    fn local(&self) -> &Log {
        &self.inner.state.log
    }
}

impl Inner {
    /// openraft's newest word about itself.
    fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    fn tell_change(&self) {
        let hook = self.on_change.borrow().clone();
        if let Some(hook) = hook {
            hook();
        }
        self.changed.notify_waiters();
    }
}
