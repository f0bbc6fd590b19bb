//! Questions to one member: is it there, and does it lead?

use std::time::Duration;

use ouzel_model::{NodeId, ReplicaId};

use super::{RaftGroup, Role};
use crate::codec::{Request, Response};
use crate::transport::{CallError, Lane};

/// A member that does not answer within this time is not open.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// Between two questions to a voter that does not answer, at first and in the end.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(8);

impl RaftGroup {
    /// Asks a member whether it is there; if so, says whether it leads.
    ///
    /// # Errors
    /// [`CallError::Refused`] when its node has no such replica, or does not open it, or it has stopped; else it is not known.
    pub(super) async fn ping(&self, member: ReplicaId) -> Result<bool, CallError> {
        let asked = self.inner.network.call(member, Lane::Control, &Request::Ping);
        let answer = self.inner.state.runtime.clock.timeout(ANSWER_TIME_MAX, asked).await;
        match answer.unwrap_or(Err(CallError::TimedOut))? {
            Response::Ping { leads } => Ok(leads),
            other => Err(CallError::Refused(format!("{other:?} is no answer to that question"))),
        }
    }

    /// Asks whoever is taken for the leader whether it leads, and gives its name if it does. If it does not, or refuses to
    /// answer, the status names nobody until somebody is heard: a replica that was opened leads only after it was elected
    /// anew, in another epoch, and may lack what it takes to win. No answer says nothing.
    pub async fn ask_leader(&self) -> Option<ReplicaId> {
        let status = self.status();
        let leader = status.leader.filter(|leader| *leader != self.replica())?;
        let words = match self.ping(leader).await {
            Ok(true) => return Some(leader),
            Ok(false) => "it says so".to_owned(),
            Err(CallError::Refused(words)) => words,
            Err(CallError::Unreachable(_) | CallError::TimedOut) => return None,
        };
        if self.inner.resign(status.epoch, leader) {
            tracing::info!(
                partition = %self.inner.state.log.topic_partition(), %leader, %words,
                "the leader by name does not lead"
            );
        }
        None
    }

    /// Another process answers in a node's place: whoever lives there is in sync when he is heard. The leader asks until he
    /// is: one that is opened late may have heard of his leader already, and has no reason to speak.
    pub fn note_restart(&self, node: NodeId) {
        let unheard = self.inner.in_sync.borrow_mut().note_restart(node);
        self.inner.nudged.notify_one();
        if self.role() == Role::Leader {
            unheard.into_iter().for_each(|voter| _ = ouzel_runtime::spawn(self.clone().ask_for(voter)));
        }
    }

    async fn ask_for(self, voter: ReplicaId) {
        let clock = self.inner.state.runtime.clock.clone();
        let mut pause = PAUSE_MIN;
        while self.role() == Role::Leader && self.inner.in_sync.borrow().is_unheard(voter) {
            if self.ping(voter).await.is_ok() {
                if self.inner.in_sync.borrow_mut().hear(voter) {
                    self.inner.nudged.notify_one();
                }
                return;
            }
            clock.sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}
