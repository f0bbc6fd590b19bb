//! What a coordinator answers, without the wire's versions.

use std::fmt;
use std::sync::Arc;

use ouzel_model::{GroupId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicName};

use crate::error::GroupError;
use crate::ids::{Blob, InstanceId, MemberId};

/// The answer to the request of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// JoinGroup.
    Join(JoinResponse),
    /// SyncGroup.
    Sync(Result<Synced, GroupError>),
    /// Heartbeat.
    Heartbeat(Result<(), GroupError>),
    /// LeaveGroup: an answer per member (below v3 the one member's error is the request's), or none at all.
    Leave(Result<Vec<LeftMember>, GroupError>),
    /// OffsetCommit: an answer per partition; an error of the whole is written to each partition on the wire.
    OffsetCommit(Result<Vec<CommitTopicResult>, GroupError>),
    /// TxnOffsetCommit, as OffsetCommit.
    TxnOffsetCommit(Result<Vec<CommitTopicResult>, GroupError>),
    /// OffsetFetch of one group.
    OffsetFetch(Result<Vec<FetchTopicResult>, GroupError>),
    /// DescribeGroups, in the request's order.
    Describe(Vec<DescribedGroup>),
    /// ListGroups, sorted by id.
    List(Vec<ListedGroup>),
    /// DeleteGroups, in the request's order.
    Delete(Vec<DeletedGroup>),
    /// OffsetDelete.
    OffsetDelete(Result<Vec<DeleteTopicResult>, GroupError>),
}

/// JoinGroup's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinResponse {
    /// The member's id: its new one, the one it sent, or unknown.
    pub member_id: MemberId,
    /// The generation it is in, or why it is not. On the wire an error goes with generation -1, empty leader and
    /// no members.
    pub outcome: Result<Joined, GroupError>,
}

/// A member's place in a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// The group's protocol type (v7+ on the wire).
    pub protocol_type: Option<Arc<str>>,
    /// The protocol agreed on.
    pub protocol: Option<Arc<str>>,
    /// The member that assigns.
    pub leader: MemberId,
    /// v9+: the leader must not assign anew, the group is stable as it is.
    pub skip_assignment: bool,
    /// Everyone, for the leader; nobody, for followers.
    pub members: Vec<JoinedMember>,
}

/// One member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// The member.
    pub member_id: MemberId,
    /// Its static name.
    pub instance_id: Option<InstanceId>,
    /// Its metadata under the agreed protocol.
    pub metadata: Blob,
}

/// SyncGroup's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The group's protocol type (v5+ on the wire).
    pub protocol_type: Option<Arc<str>>,
    /// The protocol agreed on (v5+ on the wire).
    pub protocol: Option<Arc<str>>,
    /// The member's share; empty when the leader named none.
    pub assignment: Blob,
}

/// One member of a LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftMember {
    /// As in the request.
    pub member_id: MemberId,
    /// As in the request.
    pub instance_id: Option<InstanceId>,
    /// Whether it is out.
    pub outcome: Result<(), GroupError>,
}

/// One topic of an OffsetCommit or TxnOffsetCommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitTopicResult {
    /// As in the request.
    pub topic: TopicName,
    /// As in the request.
    pub topic_id: TopicId,
    /// Its partitions, in the request's order.
    pub partitions: Vec<(PartitionIndex, Result<(), GroupError>)>,
}

/// One topic of an OffsetFetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTopicResult {
    /// The topic's name.
    pub topic: TopicName,
    /// As in the request; zero when everything was asked for: the handler fills in the present id.
    pub topic_id: TopicId,
    /// Its partitions.
    pub partitions: Vec<FetchedOffset>,
}

/// One partition of an OffsetFetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The partition.
    pub partition: PartitionIndex,
    /// The committed offset, or `NONE`: nothing committed is no error.
    pub offset: Offset,
    /// Its epoch, or `NONE`.
    pub leader_epoch: LeaderEpoch,
    /// The client's own words, empty when nothing is committed.
    pub metadata: Arc<str>,
    /// Only if stable offsets were asked for: an open transaction may still move this one, ask again
    /// (`UNSTABLE_OFFSET_COMMIT`). Offset, epoch and metadata are then those of nothing committed.
    pub unstable: bool,
}

/// One group of a DescribeGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    /// The group.
    pub group: GroupId,
    /// Its state; `Dead` for a group that does not exist, which is an error from v6 on (`GROUP_ID_NOT_FOUND`).
    pub state: GroupState,
    /// "" for a group without one.
    pub protocol_type: Arc<str>,
    /// The agreed protocol of a stable group, else "".
    pub protocol: Arc<str>,
    /// Its members, sorted by id.
    pub members: Vec<DescribedMember>,
}

/// One member of a described group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// The member.
    pub member_id: MemberId,
    /// Its static name.
    pub instance_id: Option<InstanceId>,
    /// Its `client.id`.
    pub client_id: Arc<str>,
    /// Where it connects from.
    pub client_host: Arc<str>,
    /// Its metadata under the agreed protocol; empty unless the group is stable.
    pub metadata: Blob,
    /// Its assignment.
    pub assignment: Blob,
}

/// One group of a ListGroups; the type is always "classic".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group: GroupId,
    /// "" for a group without one.
    pub protocol_type: Arc<str>,
    /// Its state.
    pub state: GroupState,
}

/// One group of a DeleteGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedGroup {
    /// The group.
    pub group: GroupId,
    /// Whether it is gone.
    pub outcome: Result<(), GroupError>,
}

/// One topic of an OffsetDelete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteTopicResult {
    /// The topic's name.
    pub topic: TopicName,
    /// Its partitions, in the request's order.
    pub partitions: Vec<(PartitionIndex, Result<(), GroupError>)>,
}

/// Where a group stands. `Display` is the wire's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupState {
    /// No members; offsets may be there.
    Empty,
    /// Waiting for members to join the next generation.
    PreparingRebalance,
    /// The generation is fixed; waiting for the leader's assignment to be persisted.
    CompletingRebalance,
    /// Everyone may fetch its assignment.
    Stable,
    /// The coordinator does not know the group, or no longer.
    Dead,
}

impl GroupState {
    /// The wire's word.
    pub fn as_str(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Response {
    /// The same kind of answer, saying that the whole request failed: what becomes of an answer whose records could
    /// not be written. Describe and List write nothing and stay as they are.
    pub(crate) fn refused(self, error: GroupError) -> Response {
        match self {
            Response::Join(join) => {
                Response::Join(JoinResponse { member_id: join.member_id, outcome: Err(error) })
            }
            Response::Sync(_) => Response::Sync(Err(error)),
            Response::Heartbeat(_) => Response::Heartbeat(Err(error)),
            Response::Leave(_) => Response::Leave(Err(error)),
            Response::OffsetCommit(_) => Response::OffsetCommit(Err(error)),
            Response::TxnOffsetCommit(_) => Response::TxnOffsetCommit(Err(error)),
            Response::OffsetFetch(_) => Response::OffsetFetch(Err(error)),
            Response::Delete(groups) => Response::Delete(
                groups.into_iter().map(|deleted| DeletedGroup { outcome: Err(error), ..deleted }).collect(),
            ),
            Response::OffsetDelete(_) => Response::OffsetDelete(Err(error)),
            Response::Describe(_) | Response::List(_) => self,
        }
    }
}
