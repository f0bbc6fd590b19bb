//! What the parts of one replica of a group share: its log, its vote, what it has applied, and who waits.
//!
//! # Who may touch what
//! openraft's core task saves votes, appends, truncates and purges through the store; its state machine's task applies;
//! submissions and watchers only read. All on one core; no borrow is held over an await.
//!
//! # What a crash leaves
//! The vote is on the medium before anything is done under it. The committed entry is a hint, noted now and then: a
//! restart applies from it, and learns the rest from its leader. The purge point and the membership at it are on the
//! medium before the log forgets the entries below.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use ouzel_model::{EntryId, EntryIndex, LeaderEpoch, Offset, ReplicaId, TopicIdPartition};
use ouzel_runtime::Runtime;
use ouzel_storage::end_waiters::EndWaiters;
use ouzel_storage::snapshot_files::Install;
use ouzel_storage::wal::{Change, GroupState};
use ouzel_storage::{Durability, Log, wal::MetaWal};
use tokio::sync::Notify;

use crate::entry::{Retention, SideBody};
use crate::group::GroupSettings;
use crate::members_at::MembersAt;
use crate::planted::{self, Planted};
use crate::replicated_log::Unacknowledged;
use crate::snapshot::has_entry;
use crate::types::{LeaderId, Members, RaftVote, StoredMembers, Term, log_id};

/// See the module's documentation.
pub(crate) struct ReplicaState {
    pub(crate) at: TopicIdPartition,
    pub(crate) replica: ReplicaId,
    pub(crate) log: Log,
    pub(crate) runtime: Runtime,
    wal: MetaWal,
    pub(crate) settings: RefCell<GroupSettings>,
    /// As on the medium; the committed hint may be newer here.
    kept: RefCell<GroupState>,
    /// The newest entry known to be committed.
    committed: Cell<Option<EntryId>>,
    applied: Cell<Option<EntryId>>,
    /// Memberships that were applied, by the entry they came with, oldest first; the first one is the one at the purge point.
    memberships: RefCell<Vec<(Option<EntryId>, Members)>>,
    /// The newest decision at the purge point; later ones are in the log.
    pub(crate) decision_at_purge: Cell<u32>,
    /// The newest snapshot: a point at or above the purge point.
    pub(crate) snapshot: Cell<Option<EntryId>>,
    /// A snapshot's files that are here as a whole and wait to be put in the log's place.
    pub(crate) staged: RefCell<Option<Install>>,
    /// The log is being replaced.
    is_installing: Cell<bool>,
    /// It has been shut down: its record in the write-ahead file is another's from now on.
    pub(crate) is_over: Cell<bool>,
    /// The newest retention entry applied, until it has been carried out.
    pub(crate) retention: Cell<Option<Retention>>,
    high_watermark: Cell<Offset>,
    /// Exclusive end of what as many voters hold as `min.insync.replicas` asks, where that is more than a majority.
    held_end: Cell<Offset>,
    /// Who waits for acks=all, by the offset. Not by the entry, because a repeated batch waits for its original. That is
    /// sound as long as the leader's log is never cut, so all of them are told no with the reign's end, before anything
    /// else can take a place.
    acks: EndWaiters<Offset, Unacknowledged>,
    /// Told of each step of an offset.
    on_progress: RefCell<Option<Rc<dyn Fn()>>>,
    /// Told when something was applied, or a vote was saved.
    pub(crate) stepped: Notify,
}

impl ReplicaState {
    /// Takes a log into service, as far as it is known to be committed. Nothing is written.
    pub(crate) fn new(
        at: TopicIdPartition,
        log: Log,
        runtime: Runtime,
        wal: MetaWal,
        settings: GroupSettings,
        kept: GroupState,
        mut memberships: Vec<(Option<EntryId>, Members)>,
    ) -> Rc<ReplicaState> {
        let purged = log.purged();
        let committed = known_committed(&log, kept.committed);
        let high_watermark =
            committed.and_then(|id| log.entry_end(id.index)).unwrap_or(log.offsets().log_start);
        // What is not committed may be cut yet; the others are noted as they are applied.
        memberships.retain(|(at, _)| *at <= committed);
        let state = ReplicaState {
            at,
            replica: kept.replica,
            runtime,
            wal,
            settings: RefCell::new(settings),
            kept: RefCell::new(kept),
            committed: Cell::new(committed),
            applied: Cell::new(committed),
            memberships: RefCell::new(memberships),
            decision_at_purge: Cell::new(0),
            snapshot: Cell::new(purged),
            staged: RefCell::default(),
            is_installing: Cell::new(false),
            is_over: Cell::new(false),
            retention: Cell::new(None),
            high_watermark: Cell::new(high_watermark),
            held_end: Cell::new(Offset(i64::MAX)),
            acks: EndWaiters::default(),
            on_progress: RefCell::default(),
            stepped: Notify::new(),
            log,
        };
        Rc::new(state)
    }

    pub(crate) fn durability(&self) -> Durability {
        self.settings.borrow().durability
    }

    // The vote.

    /// The term of the newest vote: no entry of an older reign can be appended any more.
    pub(crate) fn term(&self) -> LeaderEpoch {
        self.kept.borrow().term
    }

    pub(crate) fn vote(&self) -> Option<RaftVote> {
        let kept = self.kept.borrow();
        let voted_for = kept.voted_for?;
        let leader_id = LeaderId { term: Term(kept.term.value()), voted_for: voted_for.to_u64() };
        Some(RaftVote { leader_id, committed: kept.vote_committed })
    }

    /// The term of the newest vote, and whom it was given to, as long as nobody is known to be elected there.
    pub(crate) fn own_vote(&self) -> (LeaderEpoch, Option<ReplicaId>) {
        let kept = self.kept.borrow();
        (kept.term, kept.voted_for.filter(|_| !kept.vote_committed))
    }

    /// Saves a vote. With a new term every reign before it is over: whoever waits for an acknowledgement is told so first.
    pub(crate) async fn save_vote(&self, vote: &RaftVote) -> io::Result<()> {
        let term = LeaderEpoch(vote.leader_id.term.0);
        if term > self.term() {
            self.give_up_acks();
        }
        {
            let mut kept = self.kept.borrow_mut();
            kept.term = term;
            kept.voted_for = Some(ReplicaId::from_u64(vote.leader_id.voted_for));
            kept.vote_committed = vote.committed;
        }
        self.keep().await?;
        self.stepped.notify_waiters();
        Ok(())
    }

    /// Puts what is kept on the medium.
    pub(crate) async fn keep(&self) -> io::Result<()> {
        if self.is_over.get() {
            return Err(io::Error::other("the replica has been shut down"));
        }
        let state = {
            let mut kept = self.kept.borrow_mut();
            kept.committed = self.committed.get();
            // What is noted as flushed is never cut: only what is committed is that.
            let committed_end = kept.committed.and_then(|id| self.log.entry_end(id.index));
            kept.flushed = committed_end.map_or(kept.flushed, |end| end.min(self.log.offsets().flushed_end));
            kept.clone()
        };
        if planted::is(Planted::UnkeptVote) {
            return Ok(());
        }
        self.wal.commit(vec![Change::PutGroup(self.at, state)]).await.map_err(io::Error::other)
    }

    /// Notes how far the group has committed, if that is news.
    pub(crate) async fn keep_committed(&self) -> io::Result<()> {
        if self.has_unkept_commits() { self.keep().await } else { Ok(()) }
    }

    pub(crate) fn has_unkept_commits(&self) -> bool {
        self.kept.borrow().committed != self.committed.get()
    }

    pub(crate) fn note_committed(&self, id: Option<EntryId>) {
        self.committed.set(id.max(self.committed.get()));
    }

    pub(crate) fn committed(&self) -> Option<EntryId> {
        self.committed.get()
    }

    // What was applied.

    pub(crate) fn applied(&self) -> Option<EntryId> {
        self.applied.get()
    }

    /// The newest membership at or below an entry, as openraft keeps it.
    pub(crate) fn membership_at(&self, id: Option<EntryId>) -> StoredMembers {
        let memberships = self.memberships.borrow();
        let newest = memberships.iter().rev().find(|(at, _)| *at <= id);
        newest.map_or_else(StoredMembers::default, |(at, members)| {
            StoredMembers::new(at.map(log_id), members.clone())
        })
    }

    pub(crate) fn note_membership(&self, id: EntryId, members: Members) {
        let mut memberships = self.memberships.borrow_mut();
        memberships.retain(|(at, _)| *at < Some(id));
        memberships.push((Some(id), members));
    }

    /// The newest decision among the entries up to this one.
    pub(crate) fn decision_at(&self, id: Option<EntryId>) -> u32 {
        let decisions =
            self.log.side_entries().into_iter().filter(|side| Some(side.id) <= id).filter_map(|side| {
                match SideBody::decode(side.kind, side.body) {
                    Ok(SideBody::Decision(number)) => Some(number),
                    _ => None,
                }
            });
        decisions.max().unwrap_or_default().max(self.decision_at_purge.get())
    }

    /// The one setter of the high watermark: the end of what is committed here. It never goes back.
    pub(crate) fn note_applied(&self, id: EntryId) {
        self.applied.set(Some(id));
        self.note_committed(Some(id));
        if let Some(end) = self.log.entry_end(id.index) {
            self.high_watermark.set(end.max(self.high_watermark.get()));
        }
        self.settle_acks();
        self.stepped.notify_waiters();
        self.moved();
    }

    pub(crate) fn high_watermark(&self) -> Offset {
        self.high_watermark.get()
    }

    // A snapshot in the log's place.

    /// Puts the staged snapshot at `entry` in the place of the log. A log that has come to the entry on its way here is not
    /// touched.
    pub(crate) async fn install(self: &Rc<Self>, entry: EntryId, membership: &MembersAt) -> io::Result<()> {
        let staged = self.staged.take().filter(|install| install.manifest().entry == entry);
        if has_entry(self, entry) {
            if let Some(needless) = staged {
                needless.abandon().await.map_err(io::Error::other)?;
            }
        } else {
            let install = staged.ok_or_else(|| {
                io::Error::other(format!("the files of the snapshot at {entry} are not here"))
            })?;
            let next_offset = install.manifest().next_offset;
            let decide = self.clone().keep_installed(entry, membership.encode(), next_offset);
            self.is_installing.set(true);
            let outcome = self.log.install(install, decide).await;
            self.is_installing.set(false);
            self.stepped.notify_waiters();
            outcome.map_err(io::Error::other)?;
            self.snapshot.set(Some(entry));
            self.decision_at_purge.set(membership.decision);
        }
        let base = (membership.at, membership.members.clone());
        self.memberships.borrow_mut().retain(|(known, _)| *known > Some(entry));
        self.memberships.borrow_mut().insert(0, base);
        self.note_applied(entry);
        Ok(())
    }

    /// With this record on the medium the snapshot is the log.
    async fn keep_installed(
        self: Rc<Self>,
        entry: EntryId,
        membership: bytes::Bytes,
        next_offset: Offset,
    ) -> io::Result<()> {
        let state = {
            let mut kept = self.kept.borrow_mut();
            kept.purged = Some(entry);
            kept.membership_at_purge = membership;
            kept.committed = Some(entry).max(kept.committed);
            kept.flushed = next_offset;
            kept.clone()
        };
        self.wal.commit(vec![Change::PutGroup(self.at, state)]).await.map_err(io::Error::other)
    }

    /// Resolves when the log is not being replaced.
    pub(crate) async fn in_place(&self) {
        while self.is_installing.get() {
            self.stepped.notified().await;
        }
    }

    // Who waits.

    pub(crate) fn set_held(&self, held: Option<EntryIndex>, is_beyond_majority: bool) {
        let end = match held {
            _ if !is_beyond_majority => Offset(i64::MAX),
            Some(index) => self.log.entry_end(index).unwrap_or(Offset(0)),
            None => Offset(0),
        };
        self.held_end.set(end);
        self.settle_acks();
    }

    /// Exclusive end of what acks=all may promise.
    pub(crate) fn acknowledged_end(&self) -> Offset {
        self.high_watermark.get().min(self.held_end.get())
    }

    /// Resolves when this copy has all below `end` in its file, if the reign of `term` lasts so long.
    pub(crate) async fn wait_written(&self, end: Offset, term: LeaderEpoch) -> Result<(), Unacknowledged> {
        let written = self.log.wait_written(end).await;
        // With a newer vote the batch may have been cut, and another have taken its place.
        match (written, self.log.fenced()) {
            (Ok(()), _) if self.term() == term => Ok(()),
            (Err(_), Some(fenced)) => Err(Unacknowledged::Fenced(fenced)),
            _ => Err(Unacknowledged::LeadershipLost),
        }
    }

    /// Resolves when all below `end` is as safe as acks=all promises, if the reign of `term` lasts so long.
    pub(crate) async fn wait_acknowledged(
        &self,
        end: Offset,
        term: LeaderEpoch,
    ) -> Result<(), Unacknowledged> {
        if self.term() != term {
            return Err(Unacknowledged::LeadershipLost);
        }
        if planted::is(Planted::EarlyAcknowledgement) {
            return self.wait_written(end, term).await;
        }
        if self.acknowledged_end() >= end {
            return Ok(());
        }
        let verdict = self.acks.wait_for(end).await;
        match (verdict, self.log.fenced()) {
            (Err(_), Some(fenced)) => Err(Unacknowledged::Fenced(fenced)),
            (verdict, _) => verdict,
        }
    }

    /// Nobody will be told that anything is safe.
    pub(crate) fn give_up_acks(&self) {
        self.acks.give_up_beyond(None, &Unacknowledged::LeadershipLost);
    }

    fn settle_acks(&self) {
        self.acks.reached(self.acknowledged_end());
    }

    pub(crate) fn set_on_progress(&self, hook: Rc<dyn Fn()>) {
        self.on_progress.replace(Some(hook));
    }

    /// Calls the hook of whoever follows the offsets.
    pub(crate) fn moved(&self) {
        let hook = self.on_progress.borrow().clone();
        if let Some(hook) = hook {
            hook();
        }
    }

    // The head of the log.

    /// Puts the purge point on the medium, with the membership there: the log forgets the entries below it next.
    pub(crate) async fn keep_purged(&self, id: EntryId) -> io::Result<()> {
        let members = MembersAt::new(&self.membership_at(Some(id)), self.decision_at(Some(id)));
        {
            let mut kept = self.kept.borrow_mut();
            kept.purged = Some(id);
            kept.membership_at_purge = members.encode();
        }
        self.keep().await?;
        self.decision_at_purge.set(members.decision);
        self.memberships.borrow_mut().retain(|(at, _)| *at >= members.at);
        Ok(())
    }
}

/// The newest entry that is known to be committed and is here: the hint may be of entries that a power cut took, which is
/// only allowed to logs that are not durable.
fn known_committed(log: &Log, hint: Option<EntryId>) -> Option<EntryId> {
    let purged = log.purged();
    let here = hint.filter(|hint| log.entry_id(hint.index) == Some(*hint));
    let last = log.last_entry().filter(|last| hint.is_some_and(|hint| hint > *last));
    here.or(last).max(purged)
}
