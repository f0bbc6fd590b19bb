//! One member of a live group.

use std::sync::Arc;

use crate::ids::{Blob, InstanceId, MemberId, Ticket};
use crate::request::JoinProtocol;
use crate::response::JoinedMember;

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) instance_id: Option<InstanceId>,
    pub(crate) client_id: Arc<str>,
    pub(crate) client_host: Arc<str>,
    pub(crate) terms: Terms,
    pub(crate) assignment: Blob,
    /// Its JoinGroup, parked until the next generation is fixed (or, for a static member that came back, until its
    /// new id is persisted).
    pub(crate) awaiting_join: Option<Ticket>,
    /// Its SyncGroup, parked until the leader's assignment is persisted.
    pub(crate) awaiting_sync: Option<Ticket>,
    /// Whether it has not had a single answer yet: it cannot heartbeat, and may time out although it waits.
    pub(crate) is_new: bool,
}

/// What a member joins with and may change by joining again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// Best first.
    pub(crate) protocols: Vec<JoinProtocol>,
}

impl Member {
    /// Whether silence is no reason to remove it: a member whose join or sync is parked has nothing to say.
    pub(crate) fn is_excused(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    pub(crate) fn supports(&self, protocol: &str) -> bool {
        self.terms.protocols.iter().any(|own| &*own.name == protocol)
    }

    /// Its metadata under a protocol; empty if it does not speak it.
    pub(crate) fn metadata(&self, protocol: &str) -> Blob {
        let own = self.terms.protocols.iter().find(|own| &*own.name == protocol);
        own.map_or_else(no_bytes, |own| own.metadata.clone())
    }

    pub(crate) fn as_joined(&self, protocol: &str) -> JoinedMember {
        JoinedMember {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            metadata: self.metadata(protocol),
        }
    }
}

pub(crate) fn no_bytes() -> Blob {
    Arc::from([])
}
