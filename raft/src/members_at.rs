//! Who the members are as of an entry, and by whose decision: what is kept at the purge point, and what a snapshot
//! carries.
//!
//! ```text
//! option entry id: the entry they came with | length u32, members as a side entry holds them | decision u32
//! ```

use bytes::Bytes;
use ouzel_model::EntryId;

use crate::bytes_codec::{Malformed, Reader, Writer};
use crate::entry::{decode_members, encode_members};
use crate::types::{Members, StoredMembers, entry_id, log_id};

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MembersAt {
    /// The entry the members came with.
    pub(crate) at: Option<EntryId>,
    pub(crate) members: Members,
    /// The newest decision that the group had acted on.
    pub(crate) decision: u32,
}

impl MembersAt {
    pub(crate) fn new(stored: &StoredMembers, decision: u32) -> MembersAt {
        let at = stored.log_id().as_ref().map(entry_id);
        MembersAt { at, members: stored.membership().clone(), decision }
    }

    /// As openraft keeps them.
    pub(crate) fn stored(&self) -> StoredMembers {
        StoredMembers::new(self.at.map(log_id), self.members.clone())
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.option(self.at, |writer, id| {
            writer.entry_id(id);
        });
        writer.bytes(&encode_members(&self.members)).u32(self.decision);
        writer.finish()
    }

    /// Reads [`MembersAt::encode`]; no bytes at all are no members.
    pub(crate) fn decode(bytes: Bytes) -> Result<MembersAt, Malformed> {
        if bytes.is_empty() {
            return Ok(MembersAt::default());
        }
        let mut reader = Reader::new(bytes);
        let at = reader.option(Reader::entry_id)?;
        let members = decode_members(reader.bytes()?)?;
        let decision = reader.u32()?;
        reader.finish()?;
        Ok(MembersAt { at, members, decision })
    }
}

#[cfg(test)]
mod tests {
    use ouzel_model::{EntryIndex, LeaderEpoch};

    use super::*;

    #[test]
    fn members_survive_their_bytes() {
        let members = Members::new_with_defaults(vec![[1, 2].into()], [3]);
        let entry = EntryId { term: LeaderEpoch(3), index: EntryIndex(9) };
        for whole in [
            MembersAt { at: Some(entry), members: members.clone(), decision: 5 },
            MembersAt { at: None, members, decision: 0 },
        ] {
            let bytes = whole.encode();
            assert_eq!(MembersAt::decode(bytes.clone()), Ok(whole));
            for end in 1..bytes.len() {
                assert!(MembersAt::decode(bytes.slice(..end)).is_err(), "cut at {end}");
            }
        }
        assert_eq!(MembersAt::decode(Bytes::new()), Ok(MembersAt::default()));
    }
}
