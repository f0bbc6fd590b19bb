//! A whole node, spoken to over a socket: what it answers, what it makes of bad input, what it remembers, and what its
//! sudden death leaves behind.
//!
//! With `OUZEL_TEST_AGAINST=HOST:PORT` the tests of `wire` and `idempotence` that need no node of their own speak to
//! the broker there instead: what Apache Kafka answers otherwise, they expect wrongly.

mod compaction;
mod deleted;
mod file_slices;
mod hostile;
mod idempotence;
mod loading;
mod metadata_snapshots;
mod restart;
mod stopping;
mod support;
mod wire;
