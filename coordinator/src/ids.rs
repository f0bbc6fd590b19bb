//! Names that only group coordination uses.

use std::fmt;
use std::sync::Arc;

/// Names one parked or answered request. The runtime hands it in and gets it back with the response; a shard never
/// looks inside. It must be unique among the requests that are still unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Bytes the coordinator carries but does not read: a member's metadata, an assignment.
pub type Blob = Arc<[u8]>;

/// A member of a group, named by the coordinator: `<client id or instance id>-<uuid>`.
///
/// Empty means "I have no id yet" in requests and "nobody" in responses, as on the wire.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(Arc<str>);

impl MemberId {
    /// Wraps the wire's text.
    pub fn new(text: &str) -> MemberId {
        MemberId(text.into())
    }

    /// Kafka's `UNKNOWN_MEMBER_ID`.
    pub fn unknown() -> MemberId {
        MemberId::new("")
    }

    /// Whether this is the wire's "no id".
    pub fn is_unknown(&self) -> bool {
        self.0.is_empty()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A fresh id: `prefix`, a hyphen, and the sixteen random bytes in a UUID's canonical form.
    pub fn fresh(prefix: &str, uuid: [u8; 16]) -> MemberId {
        let number = u128::from_be_bytes(uuid);
        MemberId(
            format!(
                "{prefix}-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                number >> 96,
                (number >> 80) & 0xffff,
                (number >> 64) & 0xffff,
                (number >> 48) & 0xffff,
                number & 0xffff_ffff_ffff,
            )
            .into(),
        )
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The name a static member keeps over its restarts (`group.instance.id`, KIP-345).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// Wraps the wire's text.
    pub fn new(text: &str) -> InstanceId {
        InstanceId(text.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_member_id_ends_in_a_canonical_uuid() {
        let uuid = [0x0a, 0x1b, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff];
        assert_eq!(MemberId::fresh("rdkafka", uuid).as_str(), "rdkafka-0a1b0203-0405-0607-0809-0a0b0c0d0eff");
    }
}
