//! The bytes of the messages between replicas: one head, and the batches verbatim behind it.
//!
//! ```text
//! head: version u8 = 1 | kind u8 | from u64 | to u64 | what the kind says
//! ```
//!
//! Everything is checked before openraft sees it: counts against the bytes left, batches against their checksums and the
//! term they claim, the order of entries. Bytes from outside never reach an assertion.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use ouzel_model::batch::BatchView;
use ouzel_model::{EntryId, EntryIndex, ReplicaId};

use crate::bytes_codec::{Malformed, Reader, Writer, malformed};
use crate::entry::{Data, SideBody};
use crate::transport::PeerMessage;
use crate::types::{LeaderId, Payload, RaftEntry, RaftVote, Term, Types, entry_id, log_id};

const VERSION: u8 = 1;
/// Entries in one message; openraft is told to send no more than a quarter of it.
const ENTRIES_MAX: usize = 4096;
/// A kind of entry that no side entry has: a batch, which is among the bodies.
const BATCH: u8 = 0xff;

/// Who speaks to whom. The addressee is a life of a replica: one that was wiped is not who is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The sender.
    pub from: ReplicaId,
    /// The addressee.
    pub to: ReplicaId,
}

/// Asks.
#[derive(Debug)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Transfer(TransferLeaderRequest<Types>),
    /// The leader gave up leadership and its successor did not take it: stand for election.
    Elect,
    /// Are you there, and do you lead?
    Ping,
    /// Part of a snapshot's way, in the recovery codec.
    Snapshot(Bytes, Vec<Bytes>),
}

/// Answers.
#[derive(Debug)]
pub(crate) enum Response {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    Transfer(Result<(), String>),
    Elect,
    Ping {
        leads: bool,
    },
    Snapshot(Bytes, Vec<Bytes>),
    /// The message was not carried out, in words.
    Refused(String),
}

/// Reads who a message is from and for.
///
/// # Errors
/// When it is no message of a group.
pub fn envelope(message: &PeerMessage) -> Result<Envelope, String> {
    let mut reader = Reader::new(message.head.clone());
    read_envelope(&mut reader).map(|(_, envelope)| envelope).map_err(|error| error.to_string())
}

fn read_envelope(reader: &mut Reader) -> Result<(u8, Envelope), Malformed> {
    let version = reader.u8()?;
    if version != VERSION {
        return Err(malformed(format!("a group's message of version {version}; {VERSION} is understood")));
    }
    let kind = reader.u8()?;
    Ok((kind, Envelope { from: reader.replica()?, to: reader.replica()? }))
}

fn begin(kind: u8, envelope: Envelope) -> Writer {
    let mut writer = Writer::default();
    writer.u8(VERSION).u8(kind).replica(envelope.from).replica(envelope.to);
    writer
}

pub(crate) fn encode_request(envelope: Envelope, request: &Request) -> PeerMessage {
    let mut bodies = Vec::new();
    let mut writer;
    match request {
        Request::Append(append) => {
            writer = begin(1, envelope);
            write_vote(&mut writer, &append.vote);
            writer.option(append.prev_log_id.as_ref(), |writer, id| {
                writer.entry_id(entry_id(id));
            });
            writer.option(append.leader_commit.as_ref(), |writer, id| {
                writer.entry_id(entry_id(id));
            });
            writer.count(append.entries.len());
            for entry in &append.entries {
                write_entry(&mut writer, &mut bodies, entry);
            }
        }
        Request::Vote(vote) => {
            writer = begin(2, envelope);
            write_vote_request(&mut writer, vote);
        }
        Request::PreVote(vote) => {
            writer = begin(3, envelope);
            write_vote_request(&mut writer, vote);
        }
        Request::Transfer(transfer) => {
            writer = begin(4, envelope);
            write_vote(&mut writer, transfer.from_leader());
            writer.u64(*transfer.to_node_id());
            writer.option(transfer.last_log_id(), |writer, id| {
                writer.entry_id(entry_id(id));
            });
        }
        Request::Elect => writer = begin(5, envelope),
        Request::Ping => writer = begin(7, envelope),
        Request::Snapshot(head, pieces) => {
            writer = begin(6, envelope);
            writer.bytes(head);
            bodies.clone_from(pieces);
        }
    }
    PeerMessage { head: writer.finish(), bodies }
}

pub(crate) fn decode_request(message: PeerMessage) -> Result<(Envelope, Request), Malformed> {
    let PeerMessage { head, bodies } = message;
    let mut reader = Reader::new(head);
    let (kind, envelope) = read_envelope(&mut reader)?;
    let mut bodies = bodies.into_iter();
    let request = match kind {
        1 => Request::Append(read_append(&mut reader, &mut bodies)?),
        2 => Request::Vote(read_vote_request(&mut reader)?),
        3 => Request::PreVote(read_vote_request(&mut reader)?),
        4 => {
            let from = read_vote(&mut reader)?;
            let to = reader.u64()?;
            let last = reader.option(Reader::entry_id)?;
            Request::Transfer(TransferLeaderRequest::new(from, to, last.map(log_id)))
        }
        5 => Request::Elect,
        7 => Request::Ping,
        6 => Request::Snapshot(reader.bytes()?, bodies.by_ref().collect()),
        other => return Err(malformed(format!("a group's message of kind {other}"))),
    };
    reader.finish()?;
    if bodies.next().is_some() {
        return Err(malformed("more bodies than the message has entries for"));
    }
    Ok((envelope, request))
}

pub(crate) fn encode_response(envelope: Envelope, response: &Response) -> PeerMessage {
    let mut bodies = Vec::new();
    let mut writer;
    match response {
        Response::Append(append) => {
            writer = begin(1, envelope);
            match append {
                AppendEntriesResponse::Success => writer.u8(0),
                AppendEntriesResponse::PartialSuccess(matched) => {
                    writer.u8(1).option(matched.as_ref(), |writer, id| {
                        writer.entry_id(entry_id(id));
                    })
                }
                AppendEntriesResponse::Conflict => writer.u8(2),
                AppendEntriesResponse::HigherVote(vote) => {
                    writer.u8(3);
                    write_vote(&mut writer, vote);
                    &mut writer
                }
            };
        }
        Response::Vote(vote) => {
            writer = begin(2, envelope);
            write_vote(&mut writer, &vote.vote);
            writer.bool(vote.vote_granted).option(vote.last_log_id.as_ref(), |writer, id| {
                writer.entry_id(entry_id(id));
            });
        }
        Response::Transfer(outcome) => {
            writer = begin(4, envelope);
            writer.bytes(outcome.as_ref().err().map_or(&[][..], |words| words.as_bytes()));
            writer.bool(outcome.is_ok());
        }
        Response::Elect => writer = begin(5, envelope),
        Response::Ping { leads } => {
            writer = begin(7, envelope);
            writer.bool(*leads);
        }
        Response::Snapshot(head, pieces) => {
            writer = begin(6, envelope);
            writer.bytes(head);
            bodies.clone_from(pieces);
        }
        Response::Refused(words) => {
            writer = begin(0, envelope);
            writer.bytes(words.as_bytes());
        }
    }
    PeerMessage { head: writer.finish(), bodies }
}

pub(crate) fn decode_response(message: PeerMessage) -> Result<(Envelope, Response), Malformed> {
    let PeerMessage { head, bodies } = message;
    let mut reader = Reader::new(head);
    let (kind, envelope) = read_envelope(&mut reader)?;
    let response = match kind {
        0 => Response::Refused(reader.text()?),
        1 => Response::Append(match reader.u8()? {
            0 => AppendEntriesResponse::Success,
            1 => AppendEntriesResponse::PartialSuccess(reader.option(Reader::entry_id)?.map(log_id)),
            2 => AppendEntriesResponse::Conflict,
            3 => AppendEntriesResponse::HigherVote(read_vote(&mut reader)?),
            other => return Err(malformed(format!("{other} answers no append"))),
        }),
        2 => {
            let vote = read_vote(&mut reader)?;
            let granted = reader.bool()?;
            let last = reader.option(Reader::entry_id)?;
            Response::Vote(VoteResponse::new(vote, last.map(log_id), granted))
        }
        4 => {
            let words = reader.text()?;
            Response::Transfer(if reader.bool()? { Ok(()) } else { Err(words) })
        }
        5 => Response::Elect,
        7 => Response::Ping { leads: reader.bool()? },
        6 => Response::Snapshot(reader.bytes()?, bodies),
        other => return Err(malformed(format!("a group's answer of kind {other}"))),
    };
    reader.finish()?;
    Ok((envelope, response))
}

pub(crate) fn write_vote(writer: &mut Writer, vote: &RaftVote) {
    writer
        .term(ouzel_model::LeaderEpoch(vote.leader_id.term.0))
        .u64(vote.leader_id.voted_for)
        .bool(vote.committed);
}

pub(crate) fn read_vote(reader: &mut Reader) -> Result<RaftVote, Malformed> {
    let term = Term(reader.term()?.value());
    let leader_id = LeaderId { term, voted_for: reader.u64()? };
    Ok(RaftVote { leader_id, committed: reader.bool()? })
}

fn write_vote_request(writer: &mut Writer, request: &VoteRequest<Types>) {
    write_vote(writer, &request.vote);
    writer.option(request.last_log_id.as_ref(), |writer, id| {
        writer.entry_id(entry_id(id));
    });
    writer.bool(request.leadership_transfer);
}

fn read_vote_request(reader: &mut Reader) -> Result<VoteRequest<Types>, Malformed> {
    let vote = read_vote(reader)?;
    let last = reader.option(Reader::entry_id)?;
    let mut request = VoteRequest::new(vote, last.map(log_id));
    request.leadership_transfer = reader.bool()?;
    Ok(request)
}

fn write_entry(writer: &mut Writer, bodies: &mut Vec<Bytes>, entry: &RaftEntry) {
    let side = match &entry.payload {
        Payload::Normal(Data::Stored(batch)) => {
            bodies.push(batch.clone());
            writer.u8(BATCH).term(entry_id(&entry.log_id).term);
            return;
        }
        Payload::Normal(Data::Submitted(_)) => unreachable!("what is sent was read from the log"),
        Payload::Normal(Data::Retention(retention)) => SideBody::Retention(*retention),
        Payload::Normal(Data::Withdrawn) => SideBody::Withdrawn,
        Payload::Normal(Data::Decision(number)) => SideBody::Decision(*number),
        Payload::Blank => SideBody::Blank,
        Payload::Membership(members) => SideBody::Membership(members.clone()),
    };
    let (kind, body) = side.encode();
    writer.u8(kind).term(entry_id(&entry.log_id).term).bytes(&body);
}

fn read_append(
    reader: &mut Reader,
    bodies: &mut impl Iterator<Item = Bytes>,
) -> Result<AppendEntriesRequest<Types>, Malformed> {
    let vote = read_vote(reader)?;
    if !vote.committed {
        return Err(malformed("entries under a vote that no quorum gave"));
    }
    let prev = reader.option(Reader::entry_id)?;
    let leader_commit = reader.option(Reader::entry_id)?;
    let count = reader.count(5)?;
    if count > ENTRIES_MAX {
        return Err(malformed(format!("{count} entries in one message, {ENTRIES_MAX} are the most")));
    }
    let mut entries = Vec::with_capacity(count);
    let mut last = prev;
    for _ in 0..count {
        let kind = reader.u8()?;
        let index = last.map_or(EntryIndex(0), |last| last.index.next());
        let id = EntryId { term: reader.term()?, index };
        // A leader holds entries of its own reign and earlier ones, in order.
        if last.is_some_and(|last| id.term < last.term) || id.term.value() > vote.leader_id.term.0 {
            return Err(malformed(format!(
                "entry {id} behind {last:?} under a vote of {}",
                vote.leader_id.term
            )));
        }
        let payload = if kind == BATCH {
            let batch = bodies.next().ok_or_else(|| malformed("fewer bodies than batches"))?;
            check_batch(&batch, id)?;
            Payload::Normal(Data::Stored(batch))
        } else {
            SideBody::decode(kind, reader.bytes()?)?.into_payload()
        };
        entries.push(RaftEntry { log_id: log_id(id), payload });
        last = Some(id);
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id: prev.map(log_id),
        entries,
        leader_commit: leader_commit.map(log_id),
    })
}

/// One whole batch, unharmed, of the entry's reign.
fn check_batch(batch: &Bytes, id: EntryId) -> Result<(), Malformed> {
    let view = BatchView::parse(batch).map_err(|error| malformed(format!("entry {id}: {error}")))?;
    view.verify_crc().map_err(|error| malformed(format!("entry {id}: {error}")))?;
    let header = view.header;
    if header.size_bytes() != batch.len() || header.last_offset_delta < 0 {
        return Err(malformed(format!(
            "entry {id}: a batch of {} bytes says it has {}",
            batch.len(),
            header.size_bytes()
        )));
    }
    if header.partition_leader_epoch != id.term {
        return Err(malformed(format!(
            "entry {id}: its batch is of epoch {}",
            header.partition_leader_epoch
        )));
    }
    Ok(())
}
