//! Why a group request is refused. The handlers map each condition to the code of the request's version.

use thiserror::Error;

/// The condition a request ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum GroupError {
    /// The request needs a group id and has an empty one. `INVALID_GROUP_ID`
    #[error("the group id is empty")]
    InvalidGroupId,
    /// `INVALID_SESSION_TIMEOUT`
    #[error("the session timeout is outside the allowed range")]
    InvalidSessionTimeout,
    /// Join again with the member id of this response. `MEMBER_ID_REQUIRED`
    #[error("join again with the member id given")]
    MemberIdRequired,
    /// `UNKNOWN_MEMBER_ID`
    #[error("no such member in this group")]
    UnknownMember,
    /// Another process holds the instance id now. `FENCED_INSTANCE_ID`
    #[error("the instance id belongs to another member by now")]
    FencedInstance,
    /// `ILLEGAL_GENERATION`
    #[error("the generation is not the group's present one")]
    IllegalGeneration,
    /// `REBALANCE_IN_PROGRESS`
    #[error("the group is rebalancing; join again")]
    RebalanceInProgress,
    /// `INCONSISTENT_GROUP_PROTOCOL`
    #[error("the member shares no protocol with the group")]
    InconsistentProtocol,
    /// `GROUP_MAX_SIZE_REACHED`
    #[error("the group has as many members as allowed")]
    GroupFull,
    /// `GROUP_ID_NOT_FOUND`
    #[error("no such group")]
    GroupNotFound,
    /// `NON_EMPTY_GROUP`
    #[error("the group still has members")]
    NonEmptyGroup,
    /// `GROUP_SUBSCRIBED_TO_TOPIC`
    #[error("a member of the group is subscribed to the topic")]
    SubscribedToTopic,
    /// `OFFSET_METADATA_TOO_LARGE`
    #[error("the metadata of the committed offset is too long")]
    OffsetMetadataTooLarge,
    /// The partition of the group moved, or its log failed. `NOT_COORDINATOR`
    #[error("this broker does not coordinate the group")]
    NotCoordinator,
    /// A retriable failure to write. `COORDINATOR_NOT_AVAILABLE`
    #[error("the coordinator cannot write at the moment")]
    CoordinatorNotAvailable,
    /// The record could not be written and a retry would fail as well. `UNKNOWN_SERVER_ERROR`
    #[error("the coordinator could not write the record")]
    WriteRefused,
}

/// Why records a shard asked for did not commit; the runtime's reduction of the append's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WriteFailure {
    /// Too few replicas in sync, or they did not answer in time: a retry may work.
    #[error("too few replicas took the records in time")]
    Unavailable,
    /// This broker does not lead the partition any more, or its log is fenced.
    #[error("the partition is not led here any more")]
    NotLeader,
    /// The batch is larger than the topic allows, or could not be encoded.
    #[error("the log refuses the records")]
    Refused,
}

impl From<WriteFailure> for GroupError {
    fn from(failure: WriteFailure) -> GroupError {
        match failure {
            WriteFailure::Unavailable => GroupError::CoordinatorNotAvailable,
            WriteFailure::NotLeader => GroupError::NotCoordinator,
            WriteFailure::Refused => GroupError::WriteRefused,
        }
    }
}
