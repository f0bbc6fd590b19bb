//! Heartbeat, and what silence leads to.

use crate::error::GroupError;
use crate::group::Group;
use crate::ids::MemberId;
use crate::request::HeartbeatRequest;
use crate::response::GroupState;
use crate::turn::Turn;

impl Group {
    pub(crate) fn heartbeat(
        &mut self,
        turn: &mut Turn,
        request: &HeartbeatRequest,
    ) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => {
                self.touch(turn, &request.member_id);
                Err(GroupError::RebalanceInProgress)
            }
            // Members heartbeat from the answer to their join on, also while the leader still assigns.
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.touch(turn, &request.member_id);
                Ok(())
            }
        }
    }

    /// A member's timer fired.
    pub(crate) fn member_silent(&mut self, turn: &mut Turn, id: &MemberId) {
        if self.pending_joins.contains(id) {
            self.remove(turn, id);
            // Nobody else may be missing now, whatever kind of rebalance this is.
            if self.state == GroupState::PreparingRebalance && self.all_joined() {
                self.complete_join(turn);
            }
            return;
        }
        let Some(member) = self.members.get(id) else { return };
        if member.is_excused() {
            return;
        }
        self.remove(turn, id);
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(turn),
            GroupState::PreparingRebalance if self.all_joined() => self.complete_join(turn),
            GroupState::PreparingRebalance | GroupState::Empty | GroupState::Dead => {}
        }
    }
}
