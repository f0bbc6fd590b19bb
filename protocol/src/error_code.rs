//! Kafka's error codes: number, name, whether a client retries, and what each means in our words.

/// Declares the enum and its table from one list, so that they cannot disagree.
macro_rules! error_codes {
    ($($variant:ident = $code:literal, $name:literal, $retriable:literal, $words:literal;)*) => {
        /// Every error code up to 136.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = $words] $variant = $code,)*
        }

        const ROWS: &[Row] = &[
            $(Row { code: ErrorCode::$variant, name: $name, retriable: $retriable, words: $words },)*
        ];
    };
}

struct Row {
    code: ErrorCode,
    name: &'static str,
    retriable: bool,
    words: &'static str,
}

error_codes! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", false, "the broker met an error it has no code for";
    None = 0, "NONE", false, "no error";
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", false, "the offset is outside the partition's log";
    CorruptMessage = 2, "CORRUPT_MESSAGE", true, "the record batch is damaged: its checksum, size or form is wrong";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", true, "this broker knows no such topic or partition";
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", false, "the fetch size is invalid";
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", true, "the partition has no leader yet";
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", true, "this broker is not the replica the request is for";
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", true, "the request was not completed within its timeout";
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", false, "the broker is not available";
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", true, "the replica is not available";
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", false, "the record batch is larger than the topic allows";
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH", false, "a newer controller has taken over";
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", false, "the metadata of a committed offset is too long";
    NetworkException = 13, "NETWORK_EXCEPTION", true, "the connection broke before a response came";
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", true, "the coordinator is still loading its state";
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", true, "there is no coordinator yet";
    NotCoordinator = 16, "NOT_COORDINATOR", true, "this broker is not the coordinator asked for";
    InvalidTopic = 17, "INVALID_TOPIC_EXCEPTION", false, "the topic name or the operation on this topic is invalid";
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", false, "the record set is larger than a segment";
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", true, "fewer replicas are in sync than the topic requires; nothing was appended";
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", true, "the batch was appended, but to fewer in-sync replicas than required";
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", false, "acks must be -1, 0 or 1";
    IllegalGeneration = 22, "ILLEGAL_GENERATION", false, "the group is at another generation";
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", false, "the member shares no protocol with the group, or its protocol type differs";
    InvalidGroupId = 24, "INVALID_GROUP_ID", false, "the group id is invalid";
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", false, "the group has no such member";
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", false, "the session timeout is outside the allowed range";
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", false, "the group is rebalancing; join again";
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", false, "the commit is too large to be stored";
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", false, "not authorised for this topic";
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", false, "not authorised for this group";
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", false, "not authorised for the cluster";
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", false, "a record's timestamp is outside the range the topic accepts";
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", false, "the SASL mechanism is not offered";
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", false, "the request does not belong to this state of authentication";
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", false, "this version of the API is not supported";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", false, "a topic of this name exists";
    InvalidPartitions = 37, "INVALID_PARTITIONS", false, "the number of partitions is invalid";
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", false, "the replication factor is invalid or larger than the number of brokers";
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", false, "the replica assignment is invalid";
    InvalidConfig = 40, "INVALID_CONFIG", false, "a config is unknown or its value is invalid";
    NotController = 41, "NOT_CONTROLLER", true, "this broker is not the controller";
    InvalidRequest = 42, "INVALID_REQUEST", false, "the request contradicts itself or the protocol";
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", false, "the log's record format does not support this";
    PolicyViolation = 44, "POLICY_VIOLATION", false, "a policy forbids this";
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", false, "the producer's sequence number leaves a gap";
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", false, "the producer's sequence number was seen before";
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", false, "a producer with a newer epoch has written";
    InvalidTxnState = 48, "INVALID_TXN_STATE", false, "the transaction is in a state that does not allow this";
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", false, "the producer id does not belong to this transactional id";
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", false, "the transaction timeout is outside the allowed range";
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", true, "another operation on this transaction is under way";
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", false, "a newer transaction coordinator has taken over";
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", false, "not authorised for this transactional id";
    SecurityDisabled = 54, "SECURITY_DISABLED", false, "security features are disabled";
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED", false, "not attempted because another part of the request failed";
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", true, "the broker's disk failed for this partition";
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", false, "the log directory does not exist";
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", false, "authentication failed";
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", false, "nothing is known of this producer id any more";
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS", false, "a reassignment of this partition is under way";
    DelegationTokenAuthDisabled = 61, "DELEGATION_TOKEN_AUTH_DISABLED", false, "delegation tokens are disabled";
    DelegationTokenNotFound = 62, "DELEGATION_TOKEN_NOT_FOUND", false, "there is no such delegation token";
    DelegationTokenOwnerMismatch = 63, "DELEGATION_TOKEN_OWNER_MISMATCH", false, "the delegation token belongs to another owner";
    DelegationTokenRequestNotAllowed = 64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", false, "delegation tokens cannot be asked for on this connection";
    DelegationTokenAuthorizationFailed = 65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", false, "not authorised for delegation tokens";
    DelegationTokenExpired = 66, "DELEGATION_TOKEN_EXPIRED", false, "the delegation token has expired";
    InvalidPrincipalType = 67, "INVALID_PRINCIPAL_TYPE", false, "the principal type is not supported";
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", false, "the group still has members";
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", false, "there is no such group";
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", true, "there is no such fetch session";
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", true, "the fetch session is at another epoch";
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", true, "the leader has no listener of this name";
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED", false, "topic deletion is disabled";
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", true, "the request's leader epoch is older than the leader's";
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", true, "the request's leader epoch is newer than this broker knows";
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", false, "this version of the API does not carry this compression";
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", false, "the broker has registered again since";
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", true, "the leader cannot tell this offset yet";
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", false, "join again with the member id given in this response";
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", true, "the preferred leader is not available";
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", false, "the group is full";
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", false, "another member has taken over this static instance id";
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", true, "no replica may become leader now";
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", true, "the partition already has the leader asked for";
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", false, "no reassignment is under way";
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", false, "the group is subscribed to this topic; its offsets cannot be deleted";
    InvalidRecord = 87, "INVALID_RECORD", false, "a record breaks the rules of its topic or format";
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", true, "a transaction with offsets for this partition is still open";
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", true, "a quota is used up";
    ProducerFenced = 90, "PRODUCER_FENCED", false, "a newer producer with this transactional id has started";
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", false, "the resource does not exist";
    DuplicateResource = 92, "DUPLICATE_RESOURCE", false, "the resource is named twice";
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL", false, "the credential does not meet the rules";
    InconsistentVoterSet = 94, "INCONSISTENT_VOTER_SET", false, "the voter sets do not agree";
    InvalidUpdateVersion = 95, "INVALID_UPDATE_VERSION", false, "the version to update to is invalid";
    FeatureUpdateFailed = 96, "FEATURE_UPDATE_FAILED", false, "the features could not be updated";
    PrincipalDeserializationFailure = 97, "PRINCIPAL_DESERIALIZATION_FAILURE", false, "the forwarded principal could not be read";
    SnapshotNotFound = 98, "SNAPSHOT_NOT_FOUND", false, "there is no such snapshot";
    PositionOutOfRange = 99, "POSITION_OUT_OF_RANGE", false, "the position is outside the snapshot";
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", true, "this broker knows no topic of this id";
    DuplicateBrokerRegistration = 101, "DUPLICATE_BROKER_REGISTRATION", false, "a broker of this id is already registered";
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", false, "no broker of this id is registered";
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", true, "the topic id does not match the log's";
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID", false, "the cluster id does not match this cluster's";
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", false, "there is no such transactional id";
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", true, "the fetch session mixes topic names and topic ids";
    IneligibleReplica = 107, "INELIGIBLE_REPLICA", false, "the replica may not join the in-sync replicas";
    NewLeaderElected = 108, "NEW_LEADER_ELECTED", false, "the change to the partition elected a new leader";
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE", false, "the offset is in tiered storage now";
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH", false, "the coordinator fenced this member epoch; join again";
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID", false, "the static instance id is still in use";
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR", false, "the group does not support this assignor";
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH", false, "the member epoch is out of date; retry after the next heartbeat";
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE", false, "the request was sent to the wrong kind of endpoint";
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE", false, "this kind of endpoint is not supported";
    UnknownControllerId = 116, "UNKNOWN_CONTROLLER_ID", false, "there is no controller of this id";
    UnknownSubscriptionId = 117, "UNKNOWN_SUBSCRIPTION_ID", false, "the telemetry subscription is out of date";
    TelemetryTooLarge = 118, "TELEMETRY_TOO_LARGE", false, "the telemetry is larger than the broker accepts";
    InvalidRegistration = 119, "INVALID_REGISTRATION", false, "the registration is invalid";
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE", false, "the transaction must be aborted; the producer may go on";
    InvalidRecordState = 121, "INVALID_RECORD_STATE", false, "the record is in a state that does not allow this";
    ShareSessionNotFound = 122, "SHARE_SESSION_NOT_FOUND", true, "there is no such share session";
    InvalidShareSessionEpoch = 123, "INVALID_SHARE_SESSION_EPOCH", true, "the share session is at another epoch";
    FencedStateEpoch = 124, "FENCED_STATE_EPOCH", false, "the share coordinator fenced this state epoch";
    InvalidVoterKey = 125, "INVALID_VOTER_KEY", false, "the voter key does not match this replica";
    DuplicateVoter = 126, "DUPLICATE_VOTER", false, "the voter is already in the set";
    VoterNotFound = 127, "VOTER_NOT_FOUND", false, "the voter is not in the set";
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION", false, "the regular expression is invalid";
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED", false, "the client must start again from its bootstrap servers";
    StreamsInvalidTopology = 130, "STREAMS_INVALID_TOPOLOGY", false, "the streams topology is invalid";
    StreamsInvalidTopologyEpoch = 131, "STREAMS_INVALID_TOPOLOGY_EPOCH", false, "the streams topology epoch is invalid";
    StreamsTopologyFenced = 132, "STREAMS_TOPOLOGY_FENCED", false, "a newer streams topology has taken over";
    ShareSessionLimitReached = 133, "SHARE_SESSION_LIMIT_REACHED", true, "there are too many share sessions";
    GroupDeletionFailed = 134, "GROUP_DELETION_FAILED", false, "the group could not be deleted";
    StreamsTopologyDescriptionUpdateFailed = 135, "STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED", false, "the description of the streams topology could not be updated";
    ControllerIdNotRegistered = 136, "CONTROLLER_ID_NOT_REGISTERED", false, "no controller of this id is registered";
}

impl ErrorCode {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The code of a number on the wire; `None` beyond the ones we know.
    pub fn from_code(code: i16) -> Option<ErrorCode> {
        let at = usize::try_from(i32::from(code) + 1).ok()?;
        ROWS.get(at).map(|row| row.code)
    }

    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether a client may succeed by sending the same request again.
    pub fn is_retriable(self) -> bool {
        self.row().retriable
    }

    /// What it means, in a clause without a full stop.
    pub fn words(self) -> &'static str {
        self.row().words
    }

    /// Whether it is not [`ErrorCode::None`].
    pub fn is_error(self) -> bool {
        self != ErrorCode::None
    }

    fn row(self) -> &'static Row {
        // Rows are in order of their codes, the first being -1 (checked by a test).
        &ROWS[(self as i16 + 1) as usize]
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name(), self.words())
    }
}

impl From<ErrorCode> for i16 {
    fn from(code: ErrorCode) -> i16 {
        code.code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_from_minus_one_to_136_has_its_row() {
        for number in -1..=136 {
            let code = ErrorCode::from_code(number).unwrap();
            assert_eq!((code.code(), code.row().code), (number, code));
            assert!(!code.words().ends_with('.') && !code.words().is_empty());
        }
        assert_eq!([-2, 137, i16::MIN, i16::MAX].map(ErrorCode::from_code), [None; 4]);
    }

    /// The codes whose exception is retriable in Kafka's own client.
    #[test]
    fn retriable_is_what_kafkas_client_retries() {
        let retriable: Vec<i16> =
            ROWS.iter().filter(|row| row.retriable).map(|row| row.code.code()).collect();
        let kafkas = [
            2, 3, 5, 6, 7, 9, 13, 14, 15, 16, 19, 20, 41, 51, 56, 70, 71, 72, 74, 75, 78, 80, 83, 84, 88, 89,
            100, 103, 106, 122, 123, 133,
        ];
        assert_eq!(retriable, kafkas);
    }

    #[test]
    fn names_are_kafkas() {
        assert_eq!(ErrorCode::NotLeaderOrFollower.name(), "NOT_LEADER_OR_FOLLOWER");
        assert_eq!(ErrorCode::InvalidTopic.name(), "INVALID_TOPIC_EXCEPTION");
        assert_eq!(ErrorCode::None.to_string(), "NONE (no error)");
        assert!(!ErrorCode::None.is_error() && ErrorCode::UnknownServerError.is_error());
    }
}
