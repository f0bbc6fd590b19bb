//! Wrongs that are done on purpose, in the code that ships, to show that the simulation's judges notice them.
//!
//! Only with the feature `planted`, which nothing but the simulation's own test asks for: without it every question here is
//! a constant no.

use std::cell::Cell;

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// acks=all is answered when the leader has written a batch, before a majority has it.
    EarlyAcknowledgement,
    /// A vote is given before it is on the medium, and never put there.
    UnkeptVote,
    /// The leader's high watermark is the end of its own log, whatever the others hold.
    LonelyWatermark,
    /// What a new leader does not have is not cut from a follower's log.
    SkippedTruncation,
    /// Batches are judged by a log that remembers no producer.
    ForgottenProducers,
    /// A replica that a power cut may have taken acknowledged batches from goes on under its name.
    TrustedTail,
}

thread_local! {
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// Has every replica of this thread do `planted`, or nothing of it any more.
pub fn plant(planted: Option<Planted>) {
    PLANTED.set(planted);
}

/// Whether this is to be done wrong.
pub(crate) fn is(planted: Planted) -> bool {
    cfg!(feature = "planted") && PLANTED.get() == Some(planted)
}
