//! Incremental fetch (KIP-227): the broker remembers which partitions a consumer wants and what it last told it of each.
//!
//! A session's id names the core that keeps it (`id % cores`), because the next request may arrive on another connection
//! and so on another core.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use indexmap::IndexMap;
use ouzel_model::{PartitionIndex, TopicId};
use ouzel_protocol::StrBytes;
use ouzel_runtime::CoreId;
use tokio::time::Instant;

/// A session not used for this long may be evicted to make room (Kafka: `min.incremental.fetch.session.eviction.ms`).
const EVICTION_IDLE: Duration = Duration::from_secs(120);

/// The epoch of a request that wants no session, or ends one.
pub const EPOCH_FINAL: i32 = -1;
/// The epoch of a request that wants a new session.
pub const EPOCH_INITIAL: i32 = 0;

/// A partition as a fetch names it: by name below version 13, by id from then on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchKey {
    /// The name, shared by all partitions of the topic; empty where the request had ids.
    pub topic: StrBytes,
    /// The id; zero where the request had names.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
}

/// What is wanted of a partition, and what was last said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where to read from.
    pub fetch_offset: i64,
    /// The leader epoch the consumer knows, -1 for none.
    pub current_leader_epoch: i32,
    /// Most bytes of this partition.
    pub partition_bytes_max: i32,
    /// Epoch of the last record the consumer has, -1 for none; asks for truncation detection.
    pub last_fetched_epoch: i32,
    /// The follower's log start; consumers send -1.
    pub log_start_offset: i64,
    /// What the last response said, to tell change from repetition.
    pub said: Option<Said>,
}

/// What a response said of a partition, records apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// The high watermark.
    pub high_watermark: i64,
    /// The log start offset.
    pub log_start_offset: i64,
    /// Whether it was an error: it is said again until it clears, and its clearing is said as well.
    pub error: bool,
}

/// One consumer's session.
pub struct Session {
    /// The wanted partitions, in the order in which they are served; what was served moves to the end, so that a
    /// response that fills up early does not starve the partitions behind it.
    pub wanted: IndexMap<FetchKey, Wanted>,
    uses_topic_ids: bool,
    next_epoch: i32,
    used_at: Instant,
}

impl Session {
    /// Moves a partition that was just served behind the others.
    pub fn serve_later(&mut self, key: &FetchKey) {
        if let Some(at) = self.wanted.get_index_of(key) {
            self.wanted.move_index(at, self.wanted.len() - 1);
        }
    }
}

/// Why a session cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// No such session here: evicted, or of a former life.
    NotFound,
    /// Not the epoch that comes next: a request was lost or repeated.
    Epoch,
    /// The session began with names and goes on with ids, or the other way round.
    TopicIds,
}

/// The sessions of one core.
pub struct FetchSessions {
    core: CoreId,
    sessions_max: usize,
    sessions: RefCell<BTreeMap<i32, Rc<RefCell<Session>>>>,
    next: Cell<i32>,
}

/// The core that keeps session `id`, if `cores` cores gave it out.
pub fn core_of(id: i32, cores: u16) -> CoreId {
    CoreId(id.rem_euclid(i32::from(cores)) as u16)
}

impl FetchSessions {
    /// Room for `sessions_max` sessions on core `core`.
    pub fn new(core: CoreId, sessions_max: usize) -> FetchSessions {
        FetchSessions { core, sessions_max, sessions: RefCell::default(), next: Cell::new(1) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// Starts a session; `None` when the room is taken by sessions in use, and the fetch goes on without one.
    pub fn create(
        &self,
        wanted: IndexMap<FetchKey, Wanted>,
        uses_topic_ids: bool,
        cores: u16,
        now: Instant,
    ) -> Option<(i32, Rc<RefCell<Session>>)> {
        if wanted.is_empty() || !self.make_room(now) {
            return None;
        }
        let id = self.free_id(cores);
        let session = Session { wanted, uses_topic_ids, next_epoch: 1, used_at: now };
        let session = Rc::new(RefCell::new(session));
        self.sessions.borrow_mut().insert(id, session.clone());
        Some((id, session))
    }

    /// Continues a session: checks id, epoch and naming, and counts the epoch up.
    ///
    /// # Errors
    /// See [`SessionError`]; the session, if there is one, stays as it is.
    pub fn resume(
        &self,
        id: i32,
        epoch: i32,
        uses_topic_ids: bool,
        now: Instant,
    ) -> Result<Rc<RefCell<Session>>, SessionError> {
        let session = self.sessions.borrow().get(&id).cloned().ok_or(SessionError::NotFound)?;
        let mut held = session.borrow_mut();
        if held.next_epoch != epoch {
            return Err(SessionError::Epoch);
        }
        if held.uses_topic_ids != uses_topic_ids {
            return Err(SessionError::TopicIds);
        }
        // 0 and -1 mean something else, so the count goes from the largest number back to 1.
        held.next_epoch = epoch.checked_add(1).unwrap_or(1);
        held.used_at = now;
        drop(held);
        Ok(session)
    }

    /// A session that was created or resumed before; `None` if it was evicted or closed since.
    pub fn get(&self, id: i32) -> Option<Rc<RefCell<Session>>> {
        self.sessions.borrow().get(&id).cloned()
    }

    /// Ends a session, if it is there.
    pub fn close(&self, id: i32) {
        self.sessions.borrow_mut().remove(&id);
    }

    fn make_room(&self, now: Instant) -> bool {
        let mut sessions = self.sessions.borrow_mut();
        if sessions.len() < self.sessions_max {
            return true;
        }
        let idlest =
            sessions.iter().min_by_key(|(_, s)| s.borrow().used_at).map(|(id, s)| (*id, s.borrow().used_at));
        match idlest {
            Some((id, used_at)) if now.duration_since(used_at) >= EVICTION_IDLE => {
                sessions.remove(&id).is_some()
            }
            _ => false,
        }
    }

    /// The next id that names this core and is free; never 0, which means "no session".
    fn free_id(&self, cores: u16) -> i32 {
        let cores = i32::from(cores);
        loop {
            let turn = self.next.get();
            self.next.set(if turn >= i32::MAX / cores - 1 { 1 } else { turn + 1 });
            let id = turn * cores + i32::from(self.core.0);
            if !self.sessions.borrow().contains_key(&id) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> IndexMap<FetchKey, Wanted> {
        let key = FetchKey {
            topic: StrBytes::from_string("t".to_owned()),
            topic_id: TopicId::ZERO,
            partition: PartitionIndex(0),
        };
        let wanted = Wanted {
            fetch_offset: 0,
            current_leader_epoch: -1,
            partition_bytes_max: 1,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            said: None,
        };
        IndexMap::from([(key, wanted)])
    }

    #[tokio::test]
    async fn ids_name_their_core_and_epochs_count() {
        let now = Instant::now();
        for core in 0..3 {
            let sessions = FetchSessions::new(CoreId(core), 10);
            let (id, _) = sessions.create(wanted(), false, 3, now).unwrap();
            assert_ne!(id, 0);
            assert_eq!(core_of(id, 3), CoreId(core));
            assert!(sessions.resume(id, 1, false, now).is_ok());
            assert!(sessions.resume(id, 2, false, now).is_ok());
            assert_eq!(sessions.resume(id, 2, false, now).err(), Some(SessionError::Epoch));
            assert_eq!(sessions.resume(id, 3, true, now).err(), Some(SessionError::TopicIds));
            assert_eq!(sessions.resume(id + 3, 1, false, now).err(), Some(SessionError::NotFound));
            sessions.close(id);
            assert_eq!(sessions.resume(id, 3, false, now).err(), Some(SessionError::NotFound));
        }
    }

    #[tokio::test]
    async fn a_full_cache_evicts_only_the_idle() {
        let sessions = FetchSessions::new(CoreId(0), 2);
        let now = Instant::now();
        let (first, _) = sessions.create(wanted(), false, 1, now).unwrap();
        let (second, _) = sessions.create(wanted(), false, 1, now + Duration::from_secs(60)).unwrap();
        assert!(sessions.create(wanted(), false, 1, now + Duration::from_secs(100)).is_none());
        assert!(sessions.create(wanted(), false, 1, now + Duration::from_secs(121)).is_some());
        let later = now + Duration::from_secs(122);
        assert_eq!(sessions.resume(first, 1, false, later).err(), Some(SessionError::NotFound));
        assert!(sessions.resume(second, 1, false, later).is_ok());
    }
}
