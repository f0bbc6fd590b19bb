//! Whole brokers, as they are, with their clients: Kafka's protocol over a simulated network, logs on simulated disks.
//!
//! A run has three phases. *Load*: producers, readers and groups work while the nemesis hurts nodes, disks and links.
//! *Healing*: all faults end, every node is started. *Judgement*: a last client reads everything, asks every group, and
//! shows that the cluster still takes records; then the judges look at what all clients noted. The replicas of several
//! brokers are looked at all the time, and compared in the end.

mod clients;
mod holdings;
pub mod machine;
mod nemesis;
mod run;
mod shared;
mod sights;

pub use nemesis::Fault;
pub use run::{Options, Report, run};
