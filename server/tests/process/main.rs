//! The binary as a process: what it says, what it answers, how it ends.

mod broker;
mod refusals;
mod serving;
mod settings;
mod stopping;
