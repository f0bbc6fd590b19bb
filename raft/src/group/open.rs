//! Opening a replica of a group.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, ReplicaId, TopicIdPartition};
use ouzel_runtime::Runtime;
use ouzel_storage::wal::{BootId, Change, GroupState, MetaWal};
use ouzel_storage::{Durability, Log};

use super::{GroupSettings, GroupStatus, Inner, Raft, RaftGroup, Ticks, follow};
use crate::catching_up::CatchingUp;
use crate::entry::{Retention, SideBody};
use crate::in_sync::InSync;
use crate::members_at::MembersAt;
use crate::network::Network;
use crate::replica_state::ReplicaState;
use crate::runtime::seed_chance;
use crate::snapshot::Incoming;
use crate::state_machine::StateMachine;
use crate::store::Store;
use crate::transport::Transport;
use crate::types::Members;

/// Entries in one message to a follower at most; their bytes are bounded where they are read.
const MESSAGE_ENTRIES_MAX: u64 = 1024;
/// How long an unreachable follower is left alone before the next attempt, growing.
const BACKOFF: &str = "50ms 100ms 200ms ...2s";

/// What a replica needs to open.
pub struct OpenGroup {
    /// Whose log it is.
    pub at: TopicIdPartition,
    /// Which replica this is.
    pub replica: ReplicaId,
    /// Its log, opened with its entries.
    pub log: Log,
    /// The core's write-ahead file: the replica's vote is there.
    pub wal: MetaWal,
    /// The core's machine.
    pub runtime: Runtime,
    /// The way to the other replicas.
    pub transport: Rc<dyn Transport>,
    /// How it behaves.
    pub settings: GroupSettings,
    /// The kernel's boot.
    pub boot: BootId,
    /// Its founders, the preferred leader first, as long as the group's members were never changed; empty later, and for who
    /// comes later. An empty log begins with them.
    pub founders: Vec<ReplicaId>,
}

/// Why a replica does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenGroupError {
    /// The vote on the disk is another replica's: this one was replaced, or never was here.
    #[error("the disk has replica {found}, not {wanted}: a replica never takes up the vote of another")]
    OtherReplica {
        /// Who is to be opened.
        wanted: ReplicaId,
        /// Who is there.
        found: ReplicaId,
    },
    /// What is on the disk does not fit together.
    #[error("{0}")]
    Damaged(String),
    /// It is to found a group that it is no member of.
    #[error("{0} is not among the founders")]
    NotAFounder(ReplicaId),
    /// The disk.
    #[error("{0}")]
    Storage(String),
    /// Settings that contradict each other.
    #[error("{0}")]
    Settings(String),
}

impl RaftGroup {
    /// Takes up a replica where it stopped: its vote from the write-ahead file, its entries from the log. It answers its
    /// peers from now on; it stands for election only when its ticks or its node say so.
    ///
    /// A founder writes the group's first entry itself, before it answers anybody: see `found`.
    ///
    /// # Errors
    /// See [`OpenGroupError`].
    pub async fn open(open: OpenGroup) -> Result<RaftGroup, OpenGroupError> {
        let OpenGroup { at, replica, log, wal, runtime, transport, settings, boot, founders } = open;
        if !founders.is_empty() && !founders.contains(&replica) {
            return Err(OpenGroupError::NotAFounder(replica));
        }
        seed_chance(&runtime.entropy);
        let config = config(&settings)?;
        let known = wal.get_group(&at);
        if let Some(known) = known.as_ref().filter(|known| known.replica != replica) {
            return Err(OpenGroupError::OtherReplica { wanted: replica, found: known.replica });
        }
        // The mark of a clean close is taken back, and the durability noted, before anybody is answered. After a kill there is
        // nothing to take back.
        let kept = known.clone().unwrap_or_else(|| GroupState::new(replica, boot));
        let kept = kept.opened(settings.durability == Durability::Durable, boot);
        let is_news = known.as_ref() != Some(&kept);
        let changes = is_news.then(|| Change::PutGroup(at, kept.clone())).into_iter().collect();
        wal.commit(changes).await.map_err(|error| OpenGroupError::Storage(error.to_string()))?;
        // The purge point is on the medium before the log forgets what is below it.
        if let Some(purged) = kept.purged
            && log.purged() < Some(purged)
        {
            log.purge(purged).await.map_err(|error| OpenGroupError::Storage(error.to_string()))?;
        }
        if !founders.is_empty() && log.last_entry().is_none() && !kept.may_have_answered() {
            found(&log, &founders).await.map_err(|error| OpenGroupError::Storage(error.to_string()))?;
        }
        let Sides { memberships, retentions, decision } = sides(&log, &kept)?;
        let state = ReplicaState::new(at, log, runtime, wal, settings, kept, memberships);
        state.decision_at_purge.set(decision);
        let applied = state.applied();
        let newest = retentions.into_iter().rev().find(|(id, _)| Some(*id) <= applied);
        state.retention.set(newest.map(|(_, retention)| retention));
        let catching_up = CatchingUp::default();
        let network = Network { transport, at, me: replica, log: state.log.clone(), catching_up };
        let raft = Raft::new(
            replica.to_u64(),
            Arc::new(config),
            network.clone(),
            Store::new(state.clone()),
            StateMachine::new(state.clone()),
        )
        .await
        .map_err(|error| OpenGroupError::Storage(error.to_string()))?;
        let inner = Rc::new(Inner {
            state,
            raft,
            network,
            pending: RefCell::default(),
            is_submitting: Cell::new(false),
            in_sync: RefCell::new(InSync::default()),
            resigned: Cell::new(None),
            has_elected: Cell::new(None),
            status: RefCell::new(GroupStatus::unknown()),
            on_change: RefCell::default(),
            changed: tokio::sync::Notify::new(),
            nudged: Rc::default(),
            incoming: Incoming::default(),
            is_retaining: Cell::new(false),
            changing: tokio::sync::Mutex::default(),
            decision_proposed: Cell::new(0),
            is_ending: Cell::new(false),
            is_shut_down: Cell::new(false),
        });
        ouzel_runtime::spawn(follow::follow(Rc::downgrade(&inner)));
        Ok(RaftGroup { inner })
    }
}

/// Begins an empty log with the members of a new group, and flushes that. All founders write the same entry, each for itself,
/// so it does not matter who is away. It is on the medium, with all that leads to it, before the replica votes or answers: one
/// that has done neither has promised nothing, whatever its directory looks like, and a crash before leaves what the next
/// opening begins again. That is so too where the group has a history by now, for this is its first entry.
async fn found(log: &Log, founders: &[ReplicaId]) -> io::Result<()> {
    let voters = founders.iter().map(|founder| founder.to_u64()).collect();
    let members = Members::new_with_defaults(vec![voters], []);
    let (kind, body) = SideBody::Membership(members).encode();
    let first = EntryId { term: LeaderEpoch(0), index: EntryIndex(0) };
    log.append_side(first, kind, body).map_err(io::Error::other)?;
    log.flush_entries_to(first.index);
    log.wait_entry_flushed(first.index).await.map_err(io::Error::other)
}

/// What the side entries and the purge point say: memberships and retention, oldest first, and the newest decision at
/// the purge point.
struct Sides {
    memberships: Vec<(Option<EntryId>, Members)>,
    retentions: Vec<(EntryId, Retention)>,
    decision: u32,
}

fn sides(log: &Log, kept: &GroupState) -> Result<Sides, OpenGroupError> {
    let base = MembersAt::decode(kept.membership_at_purge.clone())
        .map_err(|error| OpenGroupError::Damaged(format!("the membership at the purge point: {error}")))?;
    let decision = base.decision;
    let mut memberships = match kept.membership_at_purge.is_empty() {
        true => Vec::new(),
        false => vec![(base.at, base.members)],
    };
    let mut retentions = Vec::new();
    for entry in log.side_entries() {
        let body = SideBody::decode(entry.kind, entry.body)
            .map_err(|error| OpenGroupError::Damaged(format!("entry {}: {error}", entry.id)))?;
        match body {
            SideBody::Membership(members)
                if memberships.last().is_none_or(|(at, _)| *at < Some(entry.id)) =>
            {
                memberships.push((Some(entry.id), members));
            }
            SideBody::Retention(retention) => retentions.push((entry.id, retention)),
            SideBody::Membership(_) | SideBody::Blank | SideBody::Withdrawn | SideBody::Decision(_) => {}
        }
    }
    Ok(Sides { memberships, retentions, decision })
}

fn config(settings: &GroupSettings) -> Result<Config, OpenGroupError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (election_min, election_max) = settings.election_timeout;
    let heartbeat = ms(settings.heartbeat);
    // Traffic spares a follower its heartbeats, as far as that leaves its clock enough of them.
    let spared = heartbeat * 2 / 3;
    let spares = ms(election_min) > spared + heartbeat + heartbeat / 4;
    let config = Config {
        cluster_name: "group".to_owned(),
        election_timeout_min: ms(election_min),
        election_timeout_max: ms(election_max),
        heartbeat_interval: heartbeat,
        heartbeat_min_interval: spares.then_some(spared),
        max_payload_entries: MESSAGE_ENTRIES_MAX,
        replication_lag_threshold: u64::MAX,
        // A replica takes its snapshots when retention says so, and keeps no entry below them.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        api_channel_size: Some(1024),
        notification_channel_size: Some(4096),
        state_machine_channel_size: Some(256),
        enable_tick: settings.ticks == Ticks::Own,
        enable_pre_vote: Some(true),
        // A leader that has lost its quorum lets the others elect one that has it. One that does not tick has heard of its
        // quorum only when it last had something to say, and must be able to ask it at any time.
        quorum_loss_probe_interval: (settings.ticks == Ticks::Own).then(|| 2 * ms(election_max)),
        // openraft would stop, or panic in a debug build, when a follower comes back with less than it acknowledged. Its
        // loss is its disk's; the leader sends it what it lacks, and the status counts it.
        allow_log_reversion: Some(true),
        // The newest committed entry is noted only now and then: a leader that restarts must be elected anew to know it.
        enable_leader_restore: Some(false),
        backoff: BACKOFF.to_owned(),
        ..Config::default()
    };
    config.validate().map_err(|error| OpenGroupError::Settings(error.to_string()))
}
