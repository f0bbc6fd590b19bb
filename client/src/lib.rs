//! A small Kafka client: enough for the admin tool, tests, the simulation and benches.
//!
//! It knows how to reach a cluster, which broker to ask, when to ask again, and how to say what went wrong. It
//! deliberately does not know the broker's insides, group membership (it looks at groups, it does not join them),
//! transactions, or security. It runs on one core of `ouzel_runtime`, real or simulated; its handles are `!Send`.
//!
//! Reading order: [`connection`] (one broker: versions, pipelining), [`client`] (which broker), [`producer`],
//! [`consumer`], [`offsets`], [`admin`], [`groups`], [`replicas`], and [`error`] for what a person gets to read.
#![forbid(unsafe_code)]

pub mod admin;
pub mod client;
pub mod config;
pub mod connection;
pub mod consumer;
pub mod error;
pub mod groups;
pub mod metadata;
pub mod offsets;
pub mod partitioner;
pub mod producer;
pub mod replicas;
pub mod versions;

pub use admin::{ConfigChange, ConfigResource, CreatedTopic, NewTopic};
pub use client::{Client, Leader};
pub use config::ClientConfig;
pub use connection::Connection;
pub use consumer::{Consumed, Consumer, ConsumerConfig, Isolation};
pub use error::ClientError;
pub use groups::Committed;
pub use metadata::{Broker, Metadata, Partition, Topic, Topics};
pub use offsets::{FoundOffset, OffsetSpec};
pub use producer::{Acks, NewRecord, Producer, ProducerConfig, Stored};
pub use replicas::{Election, Keeper, Outcomes, Place, Quorum, Reassignment};
