//! The way to the other nodes of the cluster.
//!
//! [`control`] is what nodes ask the controller, in bytes; [`ask`] finds the controller and asks it.

pub(crate) mod ask;
#[allow(dead_code, reason = "the half that answers other nodes comes with the connections to them")]
pub(crate) mod control;

use ouzel_model::NodeId;
use ouzel_raft::{CallError, Lane, LocalBoxFuture, PeerMessage};

/// Carries messages to other nodes. One per core; calls to one node, lane and service start there in the order they
/// were made.
pub(crate) trait PeerDoor {
    /// Sends `message` when called, not when first polled.
    fn call(
        &self,
        to: NodeId,
        lane: Lane,
        service: u8,
        message: PeerMessage,
    ) -> LocalBoxFuture<Result<PeerMessage, CallError>>;
}
