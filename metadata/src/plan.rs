//! What a request does to the cluster: pure functions from an image and a request to records, or to an error.
//!
//! Nothing is changed here. Whoever asked appends the records to the controller's log and applies them once they are
//! safe; a request that is only to be validated throws them away.

pub mod alter_configs;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_topics;
pub mod elect_leaders;
pub mod fence_broker;
pub mod inherit;
pub mod judge_lost;
pub mod producer_ids;
pub mod reassign;
pub mod register_broker;
pub mod spread;
pub mod update_features;

pub use alter_configs::{
    AlterConfigsError, AlterOp, ConfigAlteration, KeyAlteration, ResourceName, plan_alter_configs,
};
pub use create_partitions::{CreatePartitionsError, NewPartitions, plan_create_partitions};
pub use create_topics::{CreateTopicError, NewTopic, PlannedTopic, plan_create_topics};
pub use delete_topics::{DeleteTopicError, DeletedTopic, TopicRef, plan_delete_topics};
pub use elect_leaders::{ElectLeadersError, Election, ElectionKind, NamedPartition, plan_elect_leaders};
pub use fence_broker::{UnregisterBrokerError, plan_fence_broker, plan_unregister_broker};
pub use inherit::{Succession, judge_succession, plan_inherit};
pub use judge_lost::{Loss, Stand, Verdict, all_have_answered, judge_lost};
pub use producer_ids::{
    PRODUCER_ID_BLOCK_SIZE, ProducerIdBlock, ProducerIdsExhausted, plan_producer_id_block,
};
pub use reassign::{
    ReassignError, Reassignment, plan_reassign, plan_settle, plan_settle_controller, reassigning,
};
pub use register_broker::{Admission, Damage, RegisterBrokerError, plan_register_broker, plan_replica_lost};
pub use spread::{plan_controller_voters, plan_raise_internal_replication, plan_release_keeper};
pub use update_features::{FeatureUpdate, LevelFault, UpdateFeaturesError, UpdateKind, plan_update_features};

/// Partitions that one request may create at most, as in Kafka: the records of a larger one would stall the controller.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;
