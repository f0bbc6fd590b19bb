//! How the log of a single replica becomes a group's: the members that its first entry names.

use ouzel_model::{EntryId, ReplicaId, TopicIdPartition};
use ouzel_storage::genesis::Genesis;

use crate::entry::SideBody;
use crate::members_at::MembersAt;
use crate::types::Members;

/// What [`ouzel_storage::genesis::found`] needs to make `replica` the only voter of a group whose log holds everything so
/// far as of `entry`.
///
/// The group then opens as any other does, leads when it is told to elect, and grows by
/// [`RaftGroup::reconfigure`](crate::RaftGroup::reconfigure): who joins takes what was there as a snapshot.
pub fn genesis_of(at: TopicIdPartition, replica: ReplicaId, entry: EntryId) -> Genesis {
    let members = Members::new_with_defaults(vec![[replica.to_u64()].into()], []);
    let at_entry = MembersAt { at: Some(entry), members: members.clone(), decision: 0 };
    let (membership_kind, membership) = SideBody::Membership(members).encode();
    Genesis { at, replica, entry, membership_at_entry: at_entry.encode(), membership_kind, membership }
}
