//! LeaveGroup: members say goodbye, or an administrator takes static ones out.

use crate::error::GroupError;
use crate::group::Group;
use crate::ids::MemberId;
use crate::request::{LeaveRequest, LeavingMember};
use crate::response::{GroupState, LeftMember};
use crate::turn::Turn;

impl Group {
    /// Takes everyone out first and rebalances once.
    pub(crate) fn leave(&mut self, turn: &mut Turn, request: &LeaveRequest) -> Vec<LeftMember> {
        let left: Vec<LeftMember> = request
            .members
            .iter()
            .map(|leaving| LeftMember {
                member_id: leaving.member_id.clone(),
                instance_id: leaving.instance_id.clone(),
                outcome: self.leave_one(turn, leaving),
            })
            .collect();
        if left.iter().any(|member| member.outcome.is_ok()) {
            match self.state {
                GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(turn),
                GroupState::PreparingRebalance => self.complete_join_if_all_in(turn),
                GroupState::Empty | GroupState::Dead => {}
            }
        }
        left
    }

    fn leave_one(&mut self, turn: &mut Turn, leaving: &LeavingMember) -> Result<(), GroupError> {
        let id: MemberId = if leaving.member_id.is_unknown() {
            let holder = leaving.instance_id.as_ref().and_then(|instance| self.static_members.get(instance));
            holder.cloned().ok_or(GroupError::UnknownMember)?
        } else {
            if !self.pending_joins.contains(&leaving.member_id) {
                self.check_member(&leaving.member_id, leaving.instance_id.as_ref())?;
            }
            leaving.member_id.clone()
        };
        self.remove(turn, &id);
        Ok(())
    }
}
