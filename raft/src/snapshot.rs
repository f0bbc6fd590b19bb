//! Snapshots on their way: the leader offers its sealed files, the receiver says which piece it lacks next, until it has
//! them all; then openraft is told, and puts them in the place of the log.
//!
//! ```text
//!  leader                          receiver
//!  Offer(vote, manifest)     ->    stages what it has of it already
//!                            <-    Want(file, position)  or  Want(nothing)
//!  Piece(file, position, ..) ->    writes, verifies whole files
//!                            <-    Want(..)
//!  Install(vote, entry)      ->    openraft installs, if that still makes sense
//!                            <-    Done(vote)
//! ```
//!
//! A transfer that breaks off begins again with an offer, and goes on where it was. A receiver that has the snapshot's last
//! entry wants nothing, and keeps its log.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use openraft::{Snapshot, SnapshotMeta};
use openraft_rt::AsyncRuntime;
use ouzel_model::{EntryId, ReplicaId};
use ouzel_storage::snapshot_files::{Install, Manifest, Piece, SnapshotFiles};
use tokio::sync::Mutex;

use crate::bytes_codec::{Malformed, Reader, Writer, malformed};
use crate::codec::{Request, Response, read_vote, write_vote};
use crate::group::Raft;
use crate::members_at::MembersAt;
use crate::network::Network;
use crate::replica_state::ReplicaState;
use crate::runtime::OuzelRuntime;
use crate::state_machine::{GroupSnapshot, SnapshotHandle};
use crate::transport::Lane;
use crate::types::{RaftVote, Types, log_id};

/// Bytes in one message; what is on its way to one receiver at any time.
const PIECE_BYTES_MAX: u64 = 512 << 10;
/// A receiver that takes longer for one message is taken to hang. Installing moves files, and may take its time.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the leader says.
enum Ask {
    Offer { vote: RaftVote, manifest: Bytes },
    Piece { vote: RaftVote, entry: EntryId, file: u32, position: u64, bytes: Bytes },
    Install { vote: RaftVote, entry: EntryId },
}

/// What the receiver says.
enum Answer {
    Want(Option<Piece>),
    Done(RaftVote),
    HigherVote(RaftVote),
}

impl Ask {
    fn into_request(self) -> Request {
        let mut writer = Writer::default();
        let mut pieces = Vec::new();
        match self {
            Ask::Offer { vote, manifest } => {
                write_vote(writer.u8(0), &vote);
                pieces.push(manifest);
            }
            Ask::Piece { vote, entry, file, position, bytes } => {
                write_vote(writer.u8(1), &vote);
                writer.entry_id(entry).u32(file).u64(position);
                pieces.push(bytes);
            }
            Ask::Install { vote, entry } => {
                write_vote(writer.u8(2), &vote);
                writer.entry_id(entry);
            }
        }
        Request::Snapshot(writer.finish(), pieces)
    }

    fn decode(head: Bytes, pieces: Vec<Bytes>) -> Result<Ask, Malformed> {
        let mut reader = Reader::new(head);
        let kind = reader.u8()?;
        let vote = read_vote(&mut reader)?;
        let mut pieces = pieces.into_iter();
        let mut piece = || pieces.next().ok_or_else(|| malformed("a piece of a snapshot without bytes"));
        let ask = match kind {
            0 => Ask::Offer { vote, manifest: piece()? },
            1 => {
                let entry = reader.entry_id()?;
                let (file, position) = (reader.u32()?, reader.u64()?);
                Ask::Piece { vote, entry, file, position, bytes: piece()? }
            }
            2 => Ask::Install { vote, entry: reader.entry_id()? },
            other => return Err(malformed(format!("a snapshot's message of kind {other}"))),
        };
        reader.finish()?;
        Ok(ask)
    }
}

impl Answer {
    fn into_response(self) -> Response {
        let mut writer = Writer::default();
        match self {
            Answer::Want(piece) => {
                writer.u8(0).option(piece, |writer, piece| {
                    writer.u32(piece.file as u32).u64(piece.position).u64(piece.bytes);
                });
            }
            Answer::Done(vote) => write_vote(writer.u8(1), &vote),
            Answer::HigherVote(vote) => write_vote(writer.u8(2), &vote),
        }
        Response::Snapshot(writer.finish(), Vec::new())
    }

    fn decode(head: Bytes) -> Result<Answer, Malformed> {
        let mut reader = Reader::new(head);
        let answer = match reader.u8()? {
            0 => Answer::Want(reader.option(|reader| {
                Ok(Piece { file: reader.u32()? as usize, position: reader.u64()?, bytes: reader.u64()? })
            })?),
            1 => Answer::Done(read_vote(&mut reader)?),
            2 => Answer::HigherVote(read_vote(&mut reader)?),
            other => return Err(malformed(format!("{other} answers no snapshot"))),
        };
        reader.finish()?;
        Ok(answer)
    }
}

/// Sends a snapshot until it is installed, or the reign of `vote` is over.
pub(crate) async fn send(
    network: &Network,
    to: ReplicaId,
    vote: RaftVote,
    snapshot: GroupSnapshot,
    cancel: impl Future<Output = ReplicationClosed>,
) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
    let sending = Sending { network, to, vote };
    tokio::select! {
        biased;
        closed = cancel => Err(StreamingError::Closed(closed)),
        outcome = sending.run(snapshot) => outcome,
    }
}

struct Sending<'a> {
    network: &'a Network,
    to: ReplicaId,
    vote: RaftVote,
}

impl Sending<'_> {
    async fn run(&self, snapshot: GroupSnapshot) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let Some(entry) = snapshot.meta.last_log_id.as_ref().map(crate::types::entry_id) else {
            return Err(network_error("a snapshot of nothing"));
        };
        let membership = MembersAt::new(&snapshot.meta.last_membership, snapshot.snapshot.decision).encode();
        let files = self.network.log.snapshot_files(entry, membership).await.map_err(later)?;
        let vote = self.vote;
        let mut answer = self.ask(Ask::Offer { vote, manifest: files.manifest().encode() }).await?;
        loop {
            let ask = match answer {
                Answer::Want(Some(piece)) => self.piece(&files, entry, piece).await?,
                Answer::Want(None) => Ask::Install { vote, entry },
                Answer::Done(vote) | Answer::HigherVote(vote) => return Ok(SnapshotResponse { vote }),
            };
            answer = self.ask(ask).await?;
        }
    }

    async fn piece(
        &self,
        files: &SnapshotFiles,
        entry: EntryId,
        wanted: Piece,
    ) -> Result<Ask, StreamingError<Types>> {
        let length = wanted.bytes.min(PIECE_BYTES_MAX) as usize;
        let bytes = files.read(wanted.file, wanted.position, length).await.map_err(later)?;
        let file = u32::try_from(wanted.file).map_err(later)?;
        Ok(Ask::Piece { vote: self.vote, entry, file, position: wanted.position, bytes })
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, StreamingError<Types>> {
        let answer = self.network.call(self.to, Lane::Recovery, &ask.into_request());
        match OuzelRuntime::timeout(PIECE_TIMEOUT, answer).await {
            Ok(Ok(Response::Snapshot(head, _))) => Answer::decode(head).map_err(network_error),
            Ok(Ok(_)) => Err(network_error("an answer to another question")),
            Ok(Err(error)) => Err(later(error)),
            Err(_) => Err(later("no answer in time")),
        }
    }
}

/// Not now; openraft comes back to it after a while, with the snapshot there is then.
fn later(error: impl ToString) -> StreamingError<Types> {
    StreamingError::Unreachable(Unreachable::from_string(error))
}

fn network_error(error: impl ToString) -> StreamingError<Types> {
    StreamingError::Network(NetworkError::from_string(error))
}

/// The receiver's side: one snapshot at a time.
#[derive(Default)]
pub(crate) struct Incoming {
    staged: Mutex<Option<Install>>,
}

impl Incoming {
    /// Carries out a message of the leader.
    pub(crate) async fn take(
        &self,
        state: &Rc<ReplicaState>,
        raft: &Raft,
        head: Bytes,
        pieces: Vec<Bytes>,
    ) -> Result<Response, String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let ask = Ask::decode(head, pieces).map_err(|error| words(&error))?;
        let mut staged = self.staged.lock().await;
        let (Ask::Offer { vote, .. } | Ask::Piece { vote, .. } | Ask::Install { vote, .. }) = &ask;
        if let Some(mine) = state.vote().filter(|mine| mine.leader_id.term > vote.leader_id.term) {
            return Ok(Answer::HigherVote(mine).into_response());
        }
        let answer = match ask {
            Ask::Offer { manifest, .. } => {
                let manifest = Manifest::decode(&manifest).map_err(|error| words(&error))?;
                if has_entry(state, manifest.entry) {
                    Answer::Want(None)
                } else {
                    let install =
                        Install::begin(&state.log, manifest).await.map_err(|error| words(&error))?;
                    let wanted = install.next();
                    *staged = Some(install);
                    Answer::Want(wanted)
                }
            }
            Ask::Piece { entry, file, position, bytes, .. } => {
                let install = staged
                    .as_mut()
                    .filter(|install| install.manifest().entry == entry)
                    .ok_or("a piece of a snapshot that was not offered")?;
                install.put(file as usize, position, bytes).await.map_err(|error| words(&error))?;
                Answer::Want(install.next())
            }
            Ask::Install { vote, entry } => {
                let install = staged
                    .take()
                    .filter(|install| install.manifest().entry == entry && install.next().is_none());
                Answer::Done(install_whole(state, raft, vote, entry, install).await?)
            }
        };
        Ok(answer.into_response())
    }
}

/// Whether the log needs no snapshot at an entry, since it has it.
pub(crate) fn has_entry(state: &ReplicaState, entry: EntryId) -> bool {
    state.log.entry_id(entry.index) == Some(entry) || state.log.purged() >= Some(entry)
}

async fn install_whole(
    state: &Rc<ReplicaState>,
    raft: &Raft,
    vote: RaftVote,
    entry: EntryId,
    install: Option<Install>,
) -> Result<RaftVote, String> {
    if has_entry(state, entry) {
        // openraft is not told: it would count the entries up to there as gone, and as leader send others a snapshot at a point
        // at which no segment ends here. The leader goes on behind it.
        if let Some(needless) = install {
            abandon(state, needless).await;
        }
        return Ok(vote);
    }
    let install = install.ok_or_else(|| format!("the snapshot at {entry} is not here as a whole"))?;
    let members =
        MembersAt::decode(install.manifest().membership.clone()).map_err(|error| error.to_string())?;
    state.staged.replace(Some(install));
    let meta = SnapshotMeta { last_log_id: Some(log_id(entry)), last_membership: members.stored() };
    let outcome = raft
        .install_full_snapshot(
            vote,
            Snapshot { meta, snapshot: SnapshotHandle { decision: members.decision } },
        )
        .await;
    // openraft may have found it needless.
    if let Some(needless) = state.staged.take() {
        abandon(state, needless).await;
    }
    outcome.map(|response| response.vote).map_err(|error| error.to_string())
}

async fn abandon(state: &ReplicaState, needless: Install) {
    if let Err(error) = needless.abandon().await {
        tracing::warn!(partition = %state.log.topic_partition(), %error, "the files of a snapshot were not removed");
    }
}
