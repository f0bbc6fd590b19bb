//! The broker's settings that groups obey, under Kafka's names and with Kafka's defaults.

/// What a shard is told once; a change at run time takes effect on the next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `group.min.session.timeout.ms`: a shorter session in JoinGroup is refused.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`: a longer session in JoinGroup is refused.
    pub session_timeout_ms_max: i32,
    /// `group.max.size`: members beyond it are refused.
    pub members_max: usize,
    /// `group.initial.rebalance.delay.ms`: how long the first rebalance of an empty group waits for more members;
    /// each new one prolongs the wait by as much, up to the rebalance timeout.
    pub initial_rebalance_delay_ms: i32,
    /// How long a new member's JoinGroup may stay parked before the member counts as gone. Kafka's constant (5 min):
    /// the session timeout does not apply, as a member without an answer cannot heartbeat.
    pub new_member_join_timeout_ms: i32,
    /// `offset.metadata.max.bytes`: longest metadata text of a committed offset, in UTF-16 units as Kafka counts.
    pub offset_metadata_units_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            members_max: i32::MAX as usize,
            initial_rebalance_delay_ms: 3_000,
            new_member_join_timeout_ms: 5 * 60 * 1_000,
            offset_metadata_units_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
        }
    }
}
