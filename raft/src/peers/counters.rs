//! What happened, in numbers that only rise; whoever exports them samples.

/// What this core did with one peer on one lane, as the one who calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Calls made.
    pub calls: u64,
    /// Calls answered.
    pub answered: u64,
    /// Calls the peer did not take.
    pub refused: u64,
    /// Calls that failed for want of a connection.
    pub unreachable: u64,
    /// Calls not answered in time.
    pub timed_out: u64,
    /// Connections that were welcomed.
    pub connected: u64,
    /// Connections that failed, or were refused, before a welcome.
    pub connect_failed: u64,
    /// Connections that ended after their welcome.
    pub lost: u64,
    /// Bytes written, headers included.
    pub sent_bytes: u64,
    /// Bytes read, headers included.
    pub received_bytes: u64,
}

/// A sample of a link: its counters, and what waits at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkSample {
    /// Numbers that only rise.
    pub counters: LinkCounters,
    /// Bytes of calls not written yet.
    pub queued_bytes: usize,
    /// Bytes of calls written and not answered.
    pub in_flight_bytes: usize,
    /// Whether there is a connection.
    pub is_connected: bool,
}

/// What this core did as the one who is called, and as the one who accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections whose first bytes were no hello of a peer.
    pub strangers: u64,
    /// Hellos refused.
    pub refused: u64,
    /// Connections closed because what came was no frame, or could not come here.
    pub malformed: u64,
    /// Calls handled.
    pub calls: u64,
    /// Calls that the service did not take.
    pub declined: u64,
    /// Bytes read.
    pub received_bytes: u64,
    /// Bytes written.
    pub sent_bytes: u64,
}
