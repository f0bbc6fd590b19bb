//! What a group's entries hold, and the bytes of the side entries.
//!
//! A batch is an entry as it is. Raft's own entries are *side entries*: they take no offset and no byte of the `.log`.
//!
//! | kind | entry | body |
//! |---|---|---|
//! | 0 | blank: begins a leader's reign | none |
//! | 1 | membership | count of voter sets, each a count and its replicas; count of learners, and they (u32 and u64) |
//! | 2 | retention | log start offset (i64); index up to which all in sync hold the log (presence byte, u64) |
//! | 3 | withdrawn: its place was given, but the batch could not take it | none |
//! | 4 | decision: what the members are changed to from here on is what it decided, or a later one | its number (u32) |

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use ouzel_model::{EntryIndex, Offset};

use crate::bytes_codec::{Malformed, Reader, Writer, malformed};
use crate::submission::Submitted;
use crate::types::{Members, Payload};

/// Replicas in one membership, learners included: far more than anyone wants.
const MEMBERS_MAX: usize = 64;

const BLANK: u8 = 0;
const MEMBERSHIP: u8 = 1;
const RETENTION: u8 = 2;
const WITHDRAWN: u8 = 3;
const DECISION: u8 = 4;

/// What an entry carries that openraft does not look into.
pub(crate) enum Data {
    /// A batch on its way to its place, which is stamped where order is final.
    Submitted(Submitted),
    /// A batch with its place, whole: read from the log, or from the leader.
    Stored(Bytes),
    /// The log may begin later.
    Retention(Retention),
    /// Nothing: see [`Body::Withdrawn`].
    Withdrawn,
    /// Whose decision the changes of members behind it carry out.
    Decision(u32),
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Data::Submitted(_) => f.write_str("a batch without its place"),
            Data::Stored(batch) => write!(f, "a batch of {} bytes", batch.len()),
            Data::Retention(retention) => write!(f, "{retention:?}"),
            Data::Withdrawn => f.write_str("withdrawn"),
            Data::Decision(number) => write!(f, "decision {number}"),
        }
    }
}

/// How far every replica may drop its log's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// First offset that must stay readable.
    pub log_start: Offset,
    /// All voters in sync held the log up to this entry when the leader wrote this: hardly anybody will ask for entries at
    /// or below it.
    pub held_by_all: Option<EntryIndex>,
}

/// An entry's content as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SideBody {
    Blank,
    Membership(Members),
    Retention(Retention),
    /// The leader had numbered this entry already when the batch in it turned out not to fit (the disk filled up, the
    /// reign changed): the number is used up, the batch was refused. A batch must not be refused with its number left
    /// free, for entries have no holes.
    Withdrawn,
    /// The members are changed as this decision says: no change behind it carries out an earlier one.
    Decision(u32),
}

impl SideBody {
    pub(crate) fn encode(&self) -> (u8, Bytes) {
        match self {
            SideBody::Blank => (BLANK, Bytes::new()),
            SideBody::Membership(members) => (MEMBERSHIP, encode_members(members)),
            SideBody::Retention(retention) => {
                let mut writer = Writer::default();
                writer.i64(retention.log_start.value());
                writer.option(retention.held_by_all, |writer, index| {
                    writer.u64(index.value());
                });
                (RETENTION, writer.finish())
            }
            SideBody::Withdrawn => (WITHDRAWN, Bytes::new()),
            SideBody::Decision(number) => (DECISION, Writer::default().u32(*number).finish()),
        }
    }

    pub(crate) fn decode(kind: u8, body: Bytes) -> Result<SideBody, Malformed> {
        let mut reader = Reader::new(body);
        let body = match kind {
            BLANK => SideBody::Blank,
            MEMBERSHIP => SideBody::Membership(read_members(&mut reader)?),
            RETENTION => SideBody::Retention(Retention {
                log_start: Offset(reader.i64()?),
                held_by_all: reader.option(|reader| reader.u64().map(EntryIndex))?,
            }),
            WITHDRAWN => SideBody::Withdrawn,
            DECISION => SideBody::Decision(reader.u32()?),
            other => return Err(malformed(format!("side entries of kind {other} are not known here"))),
        };
        reader.finish()?;
        Ok(body)
    }

    pub(crate) fn into_payload(self) -> Payload {
        match self {
            SideBody::Blank => Payload::Blank,
            SideBody::Membership(members) => Payload::Membership(members),
            SideBody::Retention(retention) => Payload::Normal(Data::Retention(retention)),
            SideBody::Withdrawn => Payload::Normal(Data::Withdrawn),
            SideBody::Decision(number) => Payload::Normal(Data::Decision(number)),
        }
    }
}

/// The bytes of a membership, in side entries as in snapshots.
pub(crate) fn encode_members(members: &Members) -> Bytes {
    let mut writer = Writer::default();
    let sets = members.get_joint_config();
    writer.count(sets.len());
    for set in sets {
        writer.count(set.len());
        for replica in set {
            writer.u64(*replica);
        }
    }
    let learners: Vec<u64> = members.learner_ids().collect();
    writer.count(learners.len());
    for replica in learners {
        writer.u64(replica);
    }
    writer.finish()
}

/// Reads [`encode_members`].
pub(crate) fn decode_members(bytes: Bytes) -> Result<Members, Malformed> {
    let mut reader = Reader::new(bytes);
    let members = read_members(&mut reader)?;
    reader.finish()?;
    Ok(members)
}

fn read_members(reader: &mut Reader) -> Result<Members, Malformed> {
    let count = reader.count(4)?;
    if count > 2 {
        return Err(malformed(format!("a membership of {count} voter sets")));
    }
    let sets = (0..count).map(|_| read_replicas(reader)).collect::<Result<Vec<_>, _>>()?;
    let learners = read_replicas(reader)?;
    Ok(Members::new_with_defaults(sets, learners))
}

fn read_replicas(reader: &mut Reader) -> Result<BTreeSet<u64>, Malformed> {
    let count = reader.count(8)?;
    if count > MEMBERS_MAX {
        return Err(malformed(format!("a membership of {count} replicas")));
    }
    (0..count).map(|_| reader.u64()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(sets: &[&[u64]], learners: &[u64]) -> Members {
        let sets = sets.iter().map(|set| set.iter().copied().collect()).collect();
        Members::new_with_defaults(sets, learners.iter().copied().collect::<BTreeSet<u64>>())
    }

    #[test]
    fn side_entries_survive_their_bytes() {
        for body in [
            SideBody::Blank,
            SideBody::Withdrawn,
            SideBody::Decision(7),
            SideBody::Membership(members(&[&[1, 2, 3]], &[])),
            SideBody::Membership(members(&[&[1, 2, 3], &[2, 3, 1 << 40]], &[7])),
            SideBody::Retention(Retention { log_start: Offset(9), held_by_all: None }),
            SideBody::Retention(Retention { log_start: Offset(0), held_by_all: Some(EntryIndex(4)) }),
        ] {
            let (kind, bytes) = body.encode();
            assert_eq!(SideBody::decode(kind, bytes), Ok(body));
        }
    }

    #[test]
    fn bytes_that_are_no_side_entry_are_refused() {
        assert!(SideBody::decode(9, Bytes::new()).is_err());
        assert!(SideBody::decode(0, Bytes::from_static(&[1])).is_err());
        // A count without its things.
        assert!(SideBody::decode(1, Bytes::from_static(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff])).is_err());
        let (_, whole) = SideBody::Membership(members(&[&[1, 2, 3]], &[4])).encode();
        for end in 0..whole.len() {
            assert!(SideBody::decode(1, whole.slice(..end)).is_err(), "cut at {end}");
        }
    }
}
