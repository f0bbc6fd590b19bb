//! A Kafka node: listens, dispatches, serves partitions, coordinates groups, controls topics.
//!
//! This crate is the doer. What a batch, a log, a group or a cluster *is* is decided in crates that know nothing of each
//! other; here they meet. It knows nothing of flags, files of configuration or signals (`server` does), and nothing of
//! how bytes reach a disk.
//!
//! Inside, requests go one way: [`listener`], [`dispatch`], `handlers`, then [`partition`], [`coordinators`] or
//! [`controller`]. Inner rooms never call back; they answer by resolving what they were given.
//!
//! Reading order: [`node`] (start and stop), [`core`] (what a thread owns), [`view`] (what every core knows), then the
//! way of a request as above; `rpc` is the way to other nodes.
#![forbid(unsafe_code)]

mod cluster;
pub mod config;
pub mod controller;
pub mod coordinators;
pub mod core;
pub mod dispatch;
pub mod fetch_sessions;
mod handlers;
mod handover;
pub mod listener;
pub mod metrics;
pub mod node;
pub mod partition;
pub mod partitions;
mod rpc;
mod side_by_side;
pub mod topic_config;
pub mod view;

pub use config::NodeConfig;
pub use core::Stopped;
pub use metrics::CoreSample;
pub use node::{FirstCore, NodeHandle, RunningNode, Setup, StartError, start};
