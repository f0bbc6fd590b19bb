//! The seeded cluster: the same seed gives the same run, to the byte and the microsecond.
//!
//! So far it shows that the ground holds: [`exchange`] lets two simulated nodes with two virtual cores each talk over
//! a simulated network and write to simulated disks that lose their power on the way, and returns a trace of all they
//! saw. Runs of a seed are compared across two processes, because what hides in one (hash seeds, addresses,
//! thread timing) shows between two.
//!
//! This room deliberately does not know how real machines are reached: all it has is the simulated one.
//!
//! Reading order: [`trace`], [`exchange`], [`check`].
#![forbid(unsafe_code)]

pub mod check;
pub mod exchange;
pub mod trace;
