//! What applying an entry does to a replica: the high watermark follows, memberships and retention are noted.
//!
//! Batches change nothing here but the high watermark: what they hold is the log itself. So the state machine is always as
//! safe as the log, and a *snapshot* is not a copy of it but a point in it: the end of a sealed segment, up to which the
//! log stops being entries and is data from then on (retention and compaction may touch it). A replica whose log begins
//! behind the entries it is asked for sends those sealed files.
//!
//! Each replica takes its own snapshots, when a retention entry tells it how far it may.

use std::io;
use std::rc::Rc;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{RaftSnapshotBuilder, Snapshot, SnapshotMeta};
use ouzel_model::{EntryId, EntryIndex, Offset};

use crate::entry::{Data, Retention};
use crate::members_at::MembersAt;
use crate::replica_state::ReplicaState;
use crate::types::{CommittedLeaderId, LogId, Payload, StoredMembers, Types, entry_id, log_id};

pub(crate) type GroupSnapshot = Snapshot<CommittedLeaderId, u64, openraft::EmptyNode, SnapshotHandle>;
type Meta = SnapshotMeta<CommittedLeaderId, u64, openraft::EmptyNode>;

/// openraft's state machine of one replica.
pub(crate) struct StateMachine {
    state: Rc<ReplicaState>,
}

/// A snapshot's content, as openraft passes it around: the sealed files are where they are.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotHandle {
    /// The newest decision at its point.
    pub(crate) decision: u32,
}

impl StateMachine {
    pub(crate) fn new(state: Rc<ReplicaState>) -> StateMachine {
        StateMachine { state }
    }

    fn snapshot(&self) -> Option<GroupSnapshot> {
        let id = self.state.snapshot.get()?;
        Some(snapshot_at(&self.state, id))
    }
}

fn snapshot_at(state: &ReplicaState, id: EntryId) -> GroupSnapshot {
    let meta = SnapshotMeta { last_log_id: Some(log_id(id)), last_membership: state.membership_at(Some(id)) };
    Snapshot { meta, snapshot: SnapshotHandle { decision: state.decision_at(Some(id)) } }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembers)> {
        let applied = self.state.applied();
        Ok((applied.map(log_id), self.state.membership_at(applied)))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin,
    {
        let mut last = None;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let id = entry_id(&entry.log_id);
            match entry.payload {
                Payload::Membership(members) => self.state.note_membership(id, members),
                Payload::Normal(Data::Retention(retention)) => self.state.retention.set(Some(retention)),
                Payload::Normal(
                    Data::Submitted(_) | Data::Stored(_) | Data::Withdrawn | Data::Decision(_),
                )
                | Payload::Blank => {}
            }
            last = Some(id);
            // Who waits for an entry must find it applied.
            if let Some(responder) = responder {
                self.state.note_applied(id);
                responder.send(());
            }
        }
        if let Some(id) = last
            && self.state.applied() != Some(id)
        {
            self.state.note_applied(id);
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, must: bool) -> Option<Builder> {
        let point = snapshot_point(&self.state);
        if point.is_none() && !must {
            return None;
        }
        Some(Builder { state: self.state.clone(), point: point.or(self.state.snapshot.get()) })
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let point = snapshot_point(&self.state).or(self.state.snapshot.get());
        Builder { state: self.state.clone(), point }
    }

    async fn install_snapshot(&mut self, meta: &Meta, handle: SnapshotHandle) -> io::Result<()> {
        let Some(last) = meta.last_log_id.as_ref().map(entry_id) else {
            return Err(io::Error::other("a snapshot of nothing"));
        };
        let members = MembersAt::new(&meta.last_membership, handle.decision);
        self.state.install(last, &members).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<GroupSnapshot>> {
        Ok(self.snapshot())
    }
}

/// Where the next snapshot may be taken by the newest retention entry, if that is further than the last one. It is one segment
/// further at the most: openraft then purges up to there, and does nothing else until the files are gone.
pub(crate) fn snapshot_point(state: &ReplicaState) -> Option<EntryId> {
    let allowed = purge_point(state, &state.retention.get()?)?;
    let next = state.log.sealed_after(state.snapshot.get().max(state.log.purged()));
    next.filter(|next| *next < allowed).or(Some(allowed))
}

/// How far a retention entry lets the log stop being entries: what was applied, what those that are in sync hold or nobody
/// may read any more, and no further than a sealed segment's end.
pub(crate) fn purge_point(state: &ReplicaState, retention: &Retention) -> Option<EntryId> {
    let applied = state.applied()?.index;
    let unread = last_within(state, retention.log_start);
    let allowed = retention.held_by_all.max(unread)?;
    let point = state.log.purge_candidate(applied.min(allowed))?;
    (Some(point) > state.snapshot.get()).then_some(point)
}

/// The newest entry that ends at or before an offset.
fn last_within(state: &ReplicaState, end: Offset) -> Option<EntryIndex> {
    let log = &state.log;
    let mut known = log.purged().map(|purged| purged.index);
    let mut beyond = log.last_entry()?.index.next();
    loop {
        let first = known.map_or(0, |known| known.value() + 1);
        if first >= beyond.value() {
            return known;
        }
        let middle = EntryIndex(first + (beyond.value() - first) / 2);
        if log.entry_end(middle).is_some_and(|middle_end| middle_end <= end) {
            known = Some(middle);
        } else {
            beyond = middle;
        }
    }
}

/// Takes a snapshot: notes its point.
pub(crate) struct Builder {
    state: Rc<ReplicaState>,
    point: Option<EntryId>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> io::Result<GroupSnapshot> {
        let Some(point) = self.point else {
            return Ok(Snapshot { meta: Meta::default(), snapshot: SnapshotHandle { decision: 0 } });
        };
        self.state.snapshot.set(Some(point).max(self.state.snapshot.get()));
        Ok(snapshot_at(&self.state, point))
    }
}
