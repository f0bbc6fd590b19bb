//! Which offsets are too old to keep, and which groups have nothing left.

use ouzel_model::TimestampMs;

use crate::config::Config;
use crate::group::Group;
use crate::offsets::tombstone;
use crate::persisted::Persisted;
use crate::record::{CommittedOffset, Record};
use crate::response::GroupState;

/// What an expiry pass found in one group.
pub(crate) struct Expired {
    /// Tombstones for its old offsets.
    pub(crate) tombstones: Vec<Record>,
    /// Whether no offset would be left.
    pub(crate) nothing_left: bool,
}

/// From when an offset's age counts (`offsets.retention.minutes`, KIP-211).
#[derive(Clone, Copy)]
enum AgeSince {
    /// From when the last member left: a stopped application finds its place again for as long as promised.
    GroupEmpty(TimestampMs),
    /// From the commit: nobody who is there reads the topic.
    Commit,
    /// Does not count: somebody may be reading.
    Never,
}

/// Judges one group's offsets.
pub(crate) fn expired(config: &Config, now: TimestampMs, group: &Group, persisted: &Persisted) -> Expired {
    // What an open transaction may still commit is not old, and keeps its group.
    let pending = persisted.pending();
    let mut found = Expired { tombstones: Vec::new(), nothing_left: !pending.has_group(&group.id) };
    let since = age_since(group);
    for (topic, partitions) in persisted.offsets_of(&group.id).into_iter().flatten() {
        for (partition, offset) in partitions {
            let in_use =
                group.is_subscribed(topic) || pending.contains(&group.id, &(topic.clone(), *partition));
            if !in_use && is_expired(config, now, since, offset) {
                found.tombstones.push(tombstone(&group.id, topic, *partition));
            } else {
                found.nothing_left = false;
            }
        }
    }
    found
}

fn age_since(group: &Group) -> AgeSince {
    match group.state {
        _ if group.protocol_type.is_none() => AgeSince::Commit,
        GroupState::Empty if group.state_timestamp != TimestampMs::NONE => {
            AgeSince::GroupEmpty(group.state_timestamp)
        }
        GroupState::Empty => AgeSince::Commit,
        // Topics it is not subscribed to; the others never get here.
        GroupState::Stable if group.is_consumer() && group.subscribed.is_some() => AgeSince::Commit,
        _ => AgeSince::Never,
    }
}

fn is_expired(config: &Config, now: TimestampMs, since: AgeSince, offset: &CommittedOffset) -> bool {
    let base = match since {
        AgeSince::Never => return false,
        AgeSince::GroupEmpty(timestamp) => timestamp,
        AgeSince::Commit => offset.commit_timestamp,
    };
    match offset.expire_timestamp {
        // A client of the old protocol chose its own retention.
        Some(expire) => now >= expire,
        None => now.value().saturating_sub(base.value()) >= config.offsets_retention_ms,
    }
}
