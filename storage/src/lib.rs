//! One partition's log on one disk.
#![forbid(unsafe_code)]

pub mod recovery_table;
