//! How the replicas of a group reach each other: the one door to the network that a group knows.
//!
//! The broker puts peer connections behind it, tests and the simulation a network in memory.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use ouzel_model::{ReplicaId, TopicIdPartition};

/// A future of one core.
pub type LocalBoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Carries a group's messages to the replicas of that group on other nodes.
///
/// # Order
/// Calls on one `(to, lane, group)` start at the receiver in the order they were made; their answers may overtake each
/// other. A call that fails may have been carried out, or may still be: the receiver judges by what a message says, not
/// by when it comes. A message may come twice.
pub trait Transport: 'static {
    /// Sends `message` when called, not when first polled, and resolves with the answer.
    ///
    /// Dropping the future gives up the answer; the message may have gone already.
    ///
    /// # Errors
    /// See [`CallError`].
    fn call(
        &self,
        to: ReplicaId,
        group: TopicIdPartition,
        lane: Lane,
        message: PeerMessage,
    ) -> LocalBoxFuture<Result<PeerMessage, CallError>>;
}

/// Which kind of traffic a message belongs to. Lanes do not wait for each other: bulk never delays an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, pre-votes, transfers of leadership, heartbeats.
    Control,
    /// Entries for those that keep up.
    Data,
    /// Snapshots, and entries for those that catch up.
    Recovery,
}

/// A message between replicas: a head in the codec of whoever sends and receives it, and bytes that are passed on as
/// they are (batches, pieces of files), never copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerMessage {
    /// What it says.
    pub head: Bytes,
    /// What it carries.
    pub bodies: Vec<Bytes>,
}

impl PeerMessage {
    /// Bytes of head and bodies together.
    pub fn size_bytes(&self) -> usize {
        self.head.len() + self.bodies.iter().map(Bytes::len).sum::<usize>()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The node cannot be reached; the message was not carried out as far as is known.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time; whether the message was carried out is unknown.
    #[error("no answer in time")]
    TimedOut,
    /// The node answered that it does not take the message.
    #[error("refused: {0}")]
    Refused(String),
}
