//! The binary as a process: what it says, what it answers, how it ends, alone and as one of several.

mod broker;
mod clients;
mod cluster;
mod compacted;
mod controller;
mod failover;
mod growing;
mod in_sync;
mod memory;
mod mistakes;
mod peer;
mod placing;
mod policies;
mod quorum;
mod refusals;
mod serving;
mod settings;
mod shrinking;
mod stalled;
mod stopping;
