//! One partition's log on one disk: segments, indexes, producers, epochs, recovery.
//!
//! Batches go to files as they come, byte for byte in Kafka's format, so that Kafka's own tools read them. This crate
//! knows no other partition, no wire message, no error code of Kafka's, no replication and no topic setting by name; it is
//! told epochs, and what acknowledgement means ([`config::Durability`]).
//!
//! Reading order: [`log`] (the door), [`segment`] and [`index`] (the files), [`flush`] and [`tail_cache`] (what a core's
//! logs share), [`producers`] and [`leader_epochs`] (what is known of the past), [`end_waiters`] (who waits), [`recovery_table`] and [`recovery`] (what
//! a crash leaves and what is done about it), [`entries`], [`genesis`] (of groups), [`snapshot_files`], [`retention`], [`compaction`], [`strays`], [`wal`], [`checkpoint`], [`layout`].
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod compaction;
pub mod config;
pub mod end_waiters;
pub mod entries;
pub mod error;
pub mod flush;
pub mod genesis;
pub mod index;
pub mod layout;
pub mod leader_epochs;
pub mod log;
pub mod producers;
pub mod recovery;
pub mod recovery_table;
pub mod retention;
pub mod segment;
mod side_file;
pub mod snapshot_files;
pub mod strays;
pub mod tail_cache;
pub mod wal;

pub use config::{Durability, LogConfig};
pub use error::{AppendError, Damage, Fenced, OpenError, ReadError};
pub use flush::{Committer, FileCommitter};
pub use log::{Appended, FileRange, Log, LogOffsets, LogShared, LogSlices, ReadSlices, Slice, TimedOffset};
pub use producers::{ProducerVerdict, Producers};
pub use recovery::OpenLog;
pub use recovery_table::Stop;
pub use segment::OpenSegments;
pub use tail_cache::TailCache;
