//! The one place where a condition of an inner room becomes a Kafka error code.

use ouzel_coordinator::GroupError;
use ouzel_metadata::plan::alter_configs::AlterConfigsError;
use ouzel_metadata::plan::create_topics::CreateTopicError;
use ouzel_metadata::plan::delete_topics::DeleteTopicError;
use ouzel_metadata::plan::{
    CreatePartitionsError, ElectLeadersError, ReassignError, UnregisterBrokerError, UpdateFeaturesError,
};
use ouzel_model::batch::validate::Rejection;
use ouzel_protocol::ErrorCode;

use crate::controller::ControllerError;
use crate::coordinators::Unavailable;
use crate::partition::append::Refused;
use crate::partition::{AppendRefused, ReadRefused};

/// What a group's coordinator refused.
pub(super) fn group_code(error: GroupError) -> ErrorCode {
    match error {
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::UnknownMember => ErrorCode::UnknownMemberId,
        GroupError::FencedInstance => ErrorCode::FencedInstanceId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::GroupFull => ErrorCode::GroupMaxSizeReached,
        GroupError::GroupNotFound => ErrorCode::GroupIdNotFound,
        GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupError::SubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
        GroupError::WriteRefused => ErrorCode::UnknownServerError,
    }
}

/// The code of a group outcome.
pub(super) fn code_of(outcome: Result<(), GroupError>) -> ErrorCode {
    outcome.err().map_or(ErrorCode::None, group_code)
}

/// Why no coordinator answered at all.
pub(super) fn unavailable_code(unavailable: Unavailable) -> ErrorCode {
    match unavailable {
        Unavailable::NoTopic | Unavailable::Stopping => ErrorCode::CoordinatorNotAvailable,
        Unavailable::NotCoordinator => ErrorCode::NotCoordinator,
        Unavailable::Loading => ErrorCode::CoordinatorLoadInProgress,
    }
}

/// Why a record set was refused before it reached its partition.
pub(super) fn refused_code(refused: &Refused) -> ErrorCode {
    match refused {
        Refused::Batch(Rejection::Corrupt(_)) => ErrorCode::CorruptMessage,
        Refused::Batch(Rejection::InvalidTimestamp(_)) => ErrorCode::InvalidTimestamp,
        Refused::Batch(_) | Refused::NotOneBatch(_) => ErrorCode::InvalidRecord,
        Refused::ZstdTooEarly(_) => ErrorCode::UnsupportedCompressionType,
        Refused::TooLarge { .. } => ErrorCode::MessageTooLarge,
        Refused::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
        Refused::ProducerEpoch(..) => ErrorCode::InvalidProducerEpoch,
        Refused::Transactional => ErrorCode::InvalidTxnState,
    }
}

/// Why a partition refused an append.
pub(super) fn append_code(refused: &AppendRefused) -> ErrorCode {
    match refused {
        AppendRefused::NotHere => ErrorCode::NotLeaderOrFollower,
        AppendRefused::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        AppendRefused::StaleProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        AppendRefused::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        AppendRefused::TimedOut => ErrorCode::RequestTimedOut,
        AppendRefused::DiskLow | AppendRefused::Storage(_) => ErrorCode::KafkaStorageError,
    }
}

/// Why a partition refused a read.
pub(super) fn read_code(refused: &ReadRefused) -> ErrorCode {
    match refused {
        ReadRefused::NotHere => ErrorCode::NotLeaderOrFollower,
        ReadRefused::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadRefused::FencedEpoch => ErrorCode::FencedLeaderEpoch,
        ReadRefused::UnknownEpoch => ErrorCode::UnknownLeaderEpoch,
        ReadRefused::Storage(_) => ErrorCode::KafkaStorageError,
    }
}

/// Why the controller did not carry out a change.
pub(super) fn controller_code(error: &ControllerError) -> ErrorCode {
    match error {
        ControllerError::Stopped | ControllerError::NotController => ErrorCode::NotController,
        ControllerError::Log(_) => ErrorCode::KafkaStorageError,
        ControllerError::TimedOut => ErrorCode::RequestTimedOut,
        ControllerError::ProducerIdsExhausted => ErrorCode::UnknownServerError,
    }
}

/// Why a topic is not created.
pub(super) fn create_topic_code(error: &CreateTopicError) -> ErrorCode {
    match error {
        CreateTopicError::Duplicate { .. } => ErrorCode::InvalidRequest,
        CreateTopicError::InvalidName(_)
        | CreateTopicError::Collides { .. }
        | CreateTopicError::Reserved { .. } => ErrorCode::InvalidTopic,
        CreateTopicError::Exists { .. } => ErrorCode::TopicAlreadyExists,
        CreateTopicError::NullConfig { .. }
        | CreateTopicError::UnknownConfig { .. }
        | CreateTopicError::InvalidConfig(_)
        | CreateTopicError::Contradiction(_) => ErrorCode::InvalidConfig,
        CreateTopicError::InvalidPartitions { .. } => ErrorCode::InvalidPartitions,
        CreateTopicError::InvalidReplicationFactor { .. } | CreateTopicError::Unplaceable(_) => {
            ErrorCode::InvalidReplicationFactor
        }
        CreateTopicError::AssignmentAndPartitions | CreateTopicError::AssignmentAndReplicationFactor => {
            ErrorCode::InvalidRequest
        }
        CreateTopicError::Assignment(_) => ErrorCode::InvalidReplicaAssignment,
        CreateTopicError::TooManyPartitions { .. } => ErrorCode::PolicyViolation,
        CreateTopicError::NoTopicId => ErrorCode::UnknownServerError,
    }
}

/// Why a topic is not deleted.
pub(super) fn delete_topic_code(error: &DeleteTopicError) -> ErrorCode {
    match error {
        DeleteTopicError::DeletionDisabled => ErrorCode::TopicDeletionDisabled,
        DeleteTopicError::UnknownName { .. } => ErrorCode::UnknownTopicOrPartition,
        DeleteTopicError::UnknownId { .. } => ErrorCode::UnknownTopicId,
        DeleteTopicError::Duplicate { .. } => ErrorCode::InvalidRequest,
    }
}

/// Why settings are not altered.
pub(super) fn alter_configs_code(error: &AlterConfigsError) -> ErrorCode {
    match error {
        AlterConfigsError::DuplicateResource
        | AlterConfigsError::DuplicateKey { .. }
        | AlterConfigsError::NullValue { .. }
        | AlterConfigsError::UnknownBroker { .. }
        | AlterConfigsError::ReadOnly { .. }
        | AlterConfigsError::PerBrokerOnly { .. } => ErrorCode::InvalidRequest,
        AlterConfigsError::UnknownTopic { .. } => ErrorCode::UnknownTopicOrPartition,
        AlterConfigsError::UnknownKey { .. }
        | AlterConfigsError::NotAList { .. }
        | AlterConfigsError::InvalidValue(_)
        | AlterConfigsError::Contradiction(_) => ErrorCode::InvalidConfig,
    }
}

/// Why a topic keeps the partitions it has.
pub(super) fn create_partitions_code(error: &CreatePartitionsError) -> ErrorCode {
    match error {
        CreatePartitionsError::Duplicate { .. } => ErrorCode::InvalidRequest,
        CreatePartitionsError::UnknownTopic { .. } => ErrorCode::UnknownTopicOrPartition,
        CreatePartitionsError::AlreadySo { .. } | CreatePartitionsError::NoIncrease { .. } => {
            ErrorCode::InvalidPartitions
        }
        CreatePartitionsError::TooMany { .. } => ErrorCode::PolicyViolation,
        CreatePartitionsError::Assignment(_) => ErrorCode::InvalidReplicaAssignment,
        CreatePartitionsError::Unplaceable(_) => ErrorCode::InvalidReplicationFactor,
    }
}

/// Why a partition does not move.
pub(super) fn reassign_code(error: &ReassignError) -> ErrorCode {
    match error {
        ReassignError::UnknownTopic { .. } | ReassignError::UnknownPartition { .. } => {
            ErrorCode::UnknownTopicOrPartition
        }
        ReassignError::NotReassigning => ErrorCode::NoReassignmentInProgress,
        ReassignError::Assignment(_) => ErrorCode::InvalidReplicaAssignment,
        ReassignError::ReplicationFactorChanged { .. } => ErrorCode::InvalidReplicationFactor,
        ReassignError::Duplicate { .. } => ErrorCode::InvalidRequest,
    }
}

/// Why no leader is elected.
pub(super) fn elect_leaders_code(error: &ElectLeadersError) -> ErrorCode {
    match error {
        ElectLeadersError::UnknownTopic { .. } | ElectLeadersError::UnknownPartition { .. } => {
            ErrorCode::UnknownTopicOrPartition
        }
        ElectLeadersError::NotNeeded => ErrorCode::ElectionNotNeeded,
        ElectLeadersError::PreferredNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
        ElectLeadersError::NoneEligible | ElectLeadersError::Silent { .. } => {
            ErrorCode::EligibleLeadersNotAvailable
        }
    }
}

/// Why a broker stays registered. Kafka refuses none that is registered, so it has no code of its own for that.
pub(super) fn unregister_code(error: &UnregisterBrokerError) -> ErrorCode {
    match error {
        UnregisterBrokerError::NotRegistered { .. } => ErrorCode::BrokerIdNotRegistered,
        UnregisterBrokerError::Alive { .. }
        | UnregisterBrokerError::HoldsReplicas { .. }
        | UnregisterBrokerError::KeepsController { .. } => ErrorCode::InvalidRequest,
    }
}

/// Why features stay as they are.
pub(super) fn update_features_code(error: &UpdateFeaturesError) -> ErrorCode {
    match error {
        UpdateFeaturesError::InvalidLevel { .. } | UpdateFeaturesError::MetadataDowngrade { .. } => {
            ErrorCode::InvalidUpdateVersion
        }
        UpdateFeaturesError::Duplicate { .. } => ErrorCode::InvalidRequest,
    }
}
