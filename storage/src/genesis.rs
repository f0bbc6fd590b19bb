//! The log of a single replica becomes that of a group's first voter, and the other way round.
//!
//! The *write-ahead file decides*: it keeps one record per partition, of one kind, and replaces it in one commit. All that
//! a group's log needs on the disk is there and flushed before that commit; what a single replica's log must not have is
//! removed behind it, by its next opening. So a crash at any step leaves a log of the one kind or of the other, never
//! between them, and there is nothing to finish but that removal.
//!
//! ```text
//!  found     close the log (all flushed, end E) -> <E>.raft: header (behind entry G), first side entry G+1 -> PutGroup
//!  dissolve  close the log (all flushed, end E) -> Put -> (opened as a single replica's: side files removed)
//! ```
//!
//! What lies below E is data of the group from then on, as if it had been purged up to G: nobody asks for its entries, and a
//! new replica gets it as a snapshot. Retention and compaction go on with it. Producers, leader epochs, the log start offset
//! and every byte of the `.log` files are what they were.
//!
//! # What the caller guarantees
//! * From the call on nobody appends, trims, retains, compacts or deletes; reads may go on.
//! * When it returns, the log handed in is closed. It is opened anew as what the write-ahead file says then, also after an
//!   error: a failed commit fences that file, and only the next start knows which of the two it was.
//! * `dissolve`: the replica is the group's only voter, or the others are given up for good, and nothing it was asked to append
//!   is unanswered; the Raft object is shut down. All entries become records for good.

use ouzel_model::{EntryId, LeaderEpoch, Offset, ReplicaId, TopicIdPartition};
use ouzel_runtime::Bytes;
use ouzel_runtime::disk::OpenMode;

use crate::entries::SideEntry;
use crate::layout;
use crate::log::Log;
use crate::side_file::{encode_header, encode_record};
use crate::wal::{Change, GroupState, MetaWal, SoloState, WalFenced};

/// The first voter of a group, and what its log begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// Of which partition.
    pub at: TopicIdPartition,
    /// Who the replica is in the group.
    pub replica: ReplicaId,
    /// The entry that everything before belongs to. Its term is larger than every leader epoch so far
    /// ([`term_after`]); its index is free to choose.
    pub entry: EntryId,
    /// The members as of that entry, for who restores from there; the replication's own bytes.
    pub membership_at_entry: Bytes,
    /// Of which kind the first side entry is: the replication's number for a membership.
    pub membership_kind: u8,
    /// The first membership, as the body of that side entry. Its entry follows `entry` in the same term.
    pub membership: Bytes,
}

/// Why a log was not turned.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// It cannot be, and nothing has been touched: the log is open as before.
    #[error("{0}")]
    Refused(String),
    /// The log is closed, or could not be; it is what it was.
    #[error("{0}")]
    Failed(String),
    /// Which kind it is now, only the next start can tell.
    #[error(transparent)]
    Undecided(#[from] WalFenced),
}

/// The term a genesis may take: above every epoch the log and its record know.
pub fn term_after(log: &Log, state: &SoloState) -> LeaderEpoch {
    log.latest_epoch().map_or(state.leader_epoch, |latest| latest.max(state.leader_epoch)).next()
}

/// Turns a single replica's log into a group's, with this replica its only voter and the leader of its first term. Gives
/// the new record: closed in order at the log's end. See the module's documentation for what the caller guarantees.
///
/// # Errors
/// See [`GenesisError`].
pub async fn found(log: &Log, wal: &MetaWal, genesis: Genesis) -> Result<GroupState, GenesisError> {
    let Genesis { at, replica, entry, membership_at_entry, membership_kind, membership } = genesis;
    let Some(solo) = wal.get(&at) else {
        return Err(GenesisError::Refused(format!(
            "{} is not kept as a single replica's log",
            log.topic_partition()
        )));
    };
    let term_min = term_after(log, &solo);
    if entry.term < term_min {
        return Err(GenesisError::Refused(format!(
            "{log:?} cannot become a group's at {entry}: its term must be {term_min} or later"
        )));
    }
    let end = log.close().await.map_err(GenesisError::Failed)?;
    let first = SideEntry {
        id: EntryId { index: entry.index.next(), ..entry },
        next_offset: end,
        kind: membership_kind,
        body: membership,
    };
    let prepared = prepare(log, end, entry, &first).await;
    prepared.map_err(|error| GenesisError::Failed(format!("prepare {}: {error}", log.dir().display())))?;
    let state = GroupState {
        term: entry.term,
        voted_for: Some(replica),
        vote_committed: true,
        // Its only voter has it.
        committed: Some(entry),
        purged: Some(entry),
        membership_at_purge: membership_at_entry,
        flushed: end,
        ..GroupState::new(replica, solo.boot).closed(end)
    };
    wal.commit(vec![Change::PutGroup(at, state.clone())]).await?;
    Ok(state)
}

/// Puts the first side file in its place, and all that leads to it on the medium: a log that never had a record may not
/// be there yet. A side file of a genesis that came to nothing is replaced; any other was removed when the log was opened.
async fn prepare(log: &Log, end: Offset, entry: EntryId, first: &SideEntry) -> std::io::Result<()> {
    let disk = &log.runtime().disk;
    let dir = log.dir();
    let bytes = [encode_header(end, Some(entry)), encode_record(first)].concat();
    disk.write_atomic(&layout::segment_file(dir, end, layout::SIDE), bytes.into()).await?;
    let identity = disk.open(&dir.join(layout::PARTITION_METADATA), OpenMode::ReadWrite).await?;
    identity.sync_data().await?;
    match dir.parent() {
        Some(parent) => disk.sync_dir(parent).await,
        None => Ok(()),
    }
}

/// Turns the log of a group's only voter into a single replica's. Gives the new record: closed in order at the log's end,
/// with an epoch as large as every one of the group's, so that the opening that follows takes a larger one. See the
/// module's documentation for what the caller guarantees.
///
/// # Errors
/// See [`GenesisError`].
pub async fn dissolve(log: &Log, wal: &MetaWal, at: TopicIdPartition) -> Result<SoloState, GenesisError> {
    let Some(group) = wal.get_group(&at) else {
        return Err(GenesisError::Refused(format!(
            "{} is not kept as a replica of a group",
            log.topic_partition()
        )));
    };
    let of_entries = log.last_entry().map(|last| last.term);
    let known = [Some(group.term), of_entries, log.latest_epoch()].into_iter().flatten().max();
    let end = log.close().await.map_err(GenesisError::Failed)?;
    let state = SoloState {
        incarnation: group.replica.incarnation.into(),
        leader_epoch: known.unwrap_or(group.term),
        flushed: end,
        boot: group.boot,
        closed_at: Some(end),
    };
    wal.commit(vec![Change::Put(at, state)]).await?;
    Ok(state)
}
