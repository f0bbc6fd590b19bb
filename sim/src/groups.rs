//! Replicated logs on their own: a few groups on three or five nodes, over simulated disks and a network that loses, delays,
//! repeats and reorders messages; without brokers and without Kafka's protocol, so that a run takes little time and a
//! failure little reading.
//!
//! A node is a process (it can be paused, killed, cut off, lose its power) that hosts replicas; the run itself stands in
//! for the controller, who decides which replicas there are and what becomes of those that may have forgotten, and for the
//! liveness service. Producers and readers speak to
//! replicas through the node's inbox, and note what they are told. Replicas are looked at all the time: what they hold
//! and believe must agree with Raft's invariants.
//!
//! Reading order: `world` (nodes, groups, what all share), `process` (a node's life), `controller`, `network`, `clients`, `nemesis`,
//! `sights`, `run`.

mod clients;
mod controller;
mod nemesis;
mod network;
mod process;
mod run;
mod sights;
mod world;

pub use run::{Options, Planted, Report, run};
