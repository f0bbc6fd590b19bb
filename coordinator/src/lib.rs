//! Consumer groups as state machines: a request and the time go in, typed records, responses and timers come out.
//!
//! One [`Shard`] is the coordinator of every group that hashes to one partition of `__consumer_offsets`. It decides;
//! its runtime in the broker does: appends the records a shard asks for, tells it when they have settled, sends the
//! responses it hands over, keeps its timers.
//!
//! What this crate deliberately does not know: bytes on the wire or on disk (records are typed, protocol holds their
//! schemas), Kafka's error codes ([`GroupError`] names conditions, the handlers map them), clocks, randomness, I/O
//! and async. Which topics exist, who may read a group and whether the partition is still loading is judged before a
//! request gets here.
//!
//! Two kinds of state, never mixed:
//!
//! * [`Persisted`]: what the partition's committed records say. Only [`Shard::replay`] and a settled write change it,
//!   through the same function, so a reload gives exactly what the live shard held.
//! * the live groups: members, waiting joins and syncs, the state of the rebalance. They run ahead of what is
//!   persisted and are rebuilt from it when the partition is loaded elsewhere.
//!
//! Reading order: [`request`] and [`response`] (the questions and answers), [`record`], [`effects`] (what a runtime
//! must do), [`shard`] (the door), `member`, `group`, `classic` (join, rebalance, sync, heartbeat, leave), `offsets`,
//! `pending`, `expiry`, `admin`.

#![forbid(unsafe_code)]

pub mod config;
pub mod effects;
pub mod error;
pub mod ids;
pub mod persisted;
pub mod record;
pub mod request;
pub mod response;
pub mod shard;

mod admin;
mod classic;
mod expiry;
mod group;
mod member;
mod offsets;
mod pending;
mod planted;
mod subscription;
mod turn;

pub use config::Config;
pub use effects::{Effects, Producer, TimerKey, TimerOp, TimerSet, Write, WriteToken};
pub use error::{GroupError, WriteFailure};
pub use ids::{Blob, InstanceId, MemberId, Ticket};
pub use persisted::Persisted;
pub use record::{CommittedOffset, GroupMember, GroupMetadata, Record};
pub use request::{
    Assignment, CommitPartition, CommitTopic, DeleteRequest, DeleteTopic, DescribeRequest, FetchTopic,
    HeartbeatRequest, JoinProtocol, JoinRequest, LeaveRequest, LeavingMember, ListRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, Request, SyncRequest,
    TxnOffsetCommitRequest,
};
pub use response::{
    CommitTopicResult, DeleteTopicResult, DeletedGroup, DescribedGroup, DescribedMember, FetchTopicResult,
    FetchedOffset, GroupState, JoinResponse, Joined, JoinedMember, LeftMember, ListedGroup, Response, Synced,
};
pub use shard::Shard;
