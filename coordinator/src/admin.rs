//! What administrators see of groups.

use std::sync::Arc;

use ouzel_model::GroupId;

use crate::group::Group;
use crate::member::no_bytes;
use crate::request::ListRequest;
use crate::response::{DescribedGroup, DescribedMember, GroupState, ListedGroup};

impl Group {
    pub(crate) fn describe(&self) -> DescribedGroup {
        let stable = self.state == GroupState::Stable;
        let protocol = self.protocol.clone().filter(|_| stable);
        let members = self
            .members
            .values()
            .map(|member| DescribedMember {
                member_id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                metadata: protocol.as_ref().map_or_else(no_bytes, |protocol| member.metadata(protocol)),
                assignment: member.assignment.clone(),
            })
            .collect();
        DescribedGroup {
            group: self.id.clone(),
            state: self.state,
            protocol_type: text(self.protocol_type.as_ref()),
            protocol: text(protocol.as_ref()),
            members,
        }
    }

    pub(crate) fn list(&self) -> ListedGroup {
        ListedGroup {
            group: self.id.clone(),
            protocol_type: text(self.protocol_type.as_ref()),
            state: self.state,
        }
    }
}

/// A group nobody knows.
pub(crate) fn dead(group: &GroupId) -> DescribedGroup {
    DescribedGroup {
        group: group.clone(),
        state: GroupState::Dead,
        protocol_type: text(None),
        protocol: text(None),
        members: Vec::new(),
    }
}

/// Whether a listed group passes the filters.
pub(crate) fn passes(request: &ListRequest, group: &ListedGroup) -> bool {
    let is = |filter: &Arc<str>, word: &str| filter.trim().eq_ignore_ascii_case(word);
    let state = request.states.is_empty() || request.states.iter().any(|each| is(each, group.state.as_str()));
    state && (request.types.is_empty() || request.types.iter().any(|each| is(each, "classic")))
}

fn text(optional: Option<&Arc<str>>) -> Arc<str> {
    optional.cloned().unwrap_or_else(|| Arc::from(""))
}
