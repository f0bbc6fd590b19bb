//! The seeded cluster: the same seed gives the same run, to the byte and the microsecond.
//!
//! Replicated logs on their own ([`groups`]) and whole brokers ([`brokers`]) run in one process over simulated disks and
//! networks, with clients that write, read and commit while everything fails that can; then judges ([`check`]) look at
//! what the clients were told and at what the replicas hold. Runs of a seed are compared across two processes, because
//! what hides in one (hash seeds, addresses, thread timing) shows between two; [`exchange`] is the smallest such run.
//!
//! The binary `ouzel-sim` runs one seed, and replays it by its number.
//!
//! This room deliberately does not know how real machines are reached: all it has is the simulated one.
//!
//! Reading order: [`trace`], [`events`], [`exchange`], [`check`], [`content`], [`groups`], [`brokers`].
#![forbid(unsafe_code)]

pub mod brokers;
pub mod check;
pub mod content;
pub mod events;
pub mod exchange;
pub mod groups;
pub mod trace;

mod replica;
mod watch;
