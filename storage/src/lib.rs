//! One partition's log on one disk.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod leader_epochs;
pub mod producers;
pub mod recovery_table;
