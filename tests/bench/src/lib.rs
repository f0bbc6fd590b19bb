//! What measures brokers from outside: the null broker, which does the least that a broker must do, the open-loop driver,
//! which keeps to its schedule however slow the broker is, and what prepares the machine. `cargo xtask bench compare` builds and runs them.
//!
//! They share no code with the broker that is measured: a mistake made once would be measured as right twice.
#![forbid(unsafe_code)]

pub mod batch;
pub mod connection;
pub mod outbox;
pub mod schedule;
pub mod wire;
