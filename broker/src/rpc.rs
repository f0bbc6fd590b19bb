//! The way to the other nodes of the cluster.
//!
//! [`control`] is what nodes ask the controller, in bytes; [`ask`] finds the controller and asks it; [`groups`] carries
//! what the replicas of a partition say to each other; [`serve`] takes in what other nodes ask.

pub(crate) mod ask;
pub(crate) mod control;
#[cfg(test)]
mod control_test;
pub(crate) mod groups;
pub(crate) mod serve;
