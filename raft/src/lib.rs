//! Replication of one log: what the rest of the house appends to, whether one replica holds it or several.
//!
//! [`ReplicatedLog`] is the contract, [`Solo`] its implementation for a single replica: no Raft object, no Raft file,
//! nothing that ticks. This crate knows nothing of Kafka's messages and error codes, of topics' settings, or of who
//! waits for what.
//!
//! Reading order: [`replicated_log`], [`solo`], [`replica`], [`transport`], [`peers`] (what carries it between
//! nodes), [`liveness`] (who is there, and which groups elect), [`gossip`] (who leads what); `suite` (for tests) is what every
//! implementation must show.
#![forbid(unsafe_code)]

pub mod gossip;
pub mod liveness;
pub mod peers;
pub mod replica;
pub mod replicated_log;
pub mod solo;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
pub mod transport;

pub use replica::Replica;
pub use replicated_log::{AppendRefused, Placed, Receipt, ReplicaOffsets, ReplicatedLog, Unacknowledged};
pub use solo::Solo;
pub use transport::{CallError, Lane, LocalBoxFuture, PeerMessage, Transport};
