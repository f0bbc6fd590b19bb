//! The machine: threads, files, sockets, time and chance, each behind a handle with a simulated twin.
//!
//! One thread per core, each with a tokio `current_thread` runtime, a `LocalSet`, epoll for sockets and one
//! io_uring ring for files. Everything above asks the machine through [`Runtime`], so that a whole cluster can
//! run in one process from one seed (feature `sim`). This is the only home of unsafe I/O.
//!
//! This room deliberately does not know Kafka: no topic, no partition, no offset but a file's.
//!
//! Reading order: [`cores`] (threads and their end), [`tasks`] (what runs on one), [`held`] (for how long), [`mailbox`] (between them),
//! [`reached`] (between tasks of one), [`disk`] (files: one door, three backends), [`net`] (sockets), [`worker`] (long calculations), [`clock`] and [`entropy`], [`limits`], and
//! last the `sim` module with the simulated twins.
//!
//! Handles are cheap to clone and stay on their core (`!Send`) unless they say otherwise.
#![expect(
    unsafe_code,
    reason = "system calls and buffers the kernel writes to; every block carries its argument"
)]

pub mod clock;
pub mod cores;
pub mod disk;
pub mod entropy;
pub mod held;
pub mod limits;
pub mod mailbox;
pub mod net;
pub mod reached;
#[cfg(feature = "sim")]
pub mod sim;
pub mod tasks;
pub mod worker;

use std::fmt;

pub use bytes::Bytes;
pub use clock::Clock;
pub use disk::{Disk, File};
pub use entropy::Entropy;
pub use net::Net;
pub use reached::Reached;
pub use tasks::{JoinHandle, spawn, yield_now};
pub use worker::Worker;

/// The number of a core, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One core's view of the machine.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// Files.
    pub disk: Disk,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub entropy: Entropy,
    /// Sockets.
    pub net: Net,
    /// Long calculations.
    pub worker: Worker,
    /// Which core this is.
    pub core: CoreId,
    /// How many cores there are.
    pub core_count: u16,
}
