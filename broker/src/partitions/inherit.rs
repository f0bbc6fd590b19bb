//! A replica goes on alone with what it has, since the controller says so: its group had other voters, of whom nobody comes
//! back as who he was ([`Partition::inherited_by`](ouzel_metadata::Partition::inherited_by)).
//!
//! Its log becomes that of a single replica, all of whose entries are records for good, and then that of a new group's first
//! voter, under an epoch above every other that is known of. Each of the two is one commit in the write-ahead file, so a
//! crash leaves the old group's replica, which begins again; a single replica, which the next start makes a group's; or the
//! new group. That notes the decision with its first change of members, and never does this again.

use std::rc::Rc;

use ouzel_raft::RaftGroup;
use ouzel_storage::genesis;

use super::groups::Vouch;
use super::opening::How;
use super::{Opening, Part, Partitions, forget_group};
use crate::core::Core;

impl Partitions {
    /// The partition has an heir, and that is here.
    pub(super) async fn inherit(&self, core: &Rc<Core>, part: Part) {
        // It could not be vouched for: that is no matter any more.
        if let Some(Opening { offsets, .. }) = self.lost.forget(&part.at) {
            self.failed.borrow_mut().remove(&part.at);
            let opening = Opening { part: part.clone(), offsets };
            self.open_members(core, vec![(How::Member, opening)], Vouch::Anyway).await;
        }
        let Some(partition) = self.get(&part.at) else { return };
        let Some(group) = partition.group().filter(|group| is_due(group, &part)) else { return };
        let Some(shown) = self.take_out_of_service(core, &partition) else { return };
        forget_group(core, &group);
        core.metrics.inherited();
        tracing::error!(
            partition = %part.topic_partition, replica = %part.replica, last = ?group.status().last_entry,
            "this replica goes on alone, by an unclean election; what only others had is lost"
        );
        let going_on = async {
            group.shutdown().await;
            let dissolved = genesis::dissolve(&partition.log_handle(), &self.wal, part.at).await;
            dissolved.map_err(|error| error.to_string())?;
            let log = self.open_log(core, &part).await.map_err(|error| error.to_string())?;
            self.begin_member(core, &part, &log).await
        };
        let begun = going_on.await;
        self.serve_first_voter(core, part, shown, begun);
    }
}

/// Whether a replica is the heir of its partition and has not gone on yet.
fn is_due(group: &RaftGroup, part: &Part) -> bool {
    let heir =
        part.partition.heir.filter(|heir| heir.replica == part.replica && heir.replica == group.replica());
    let is_alone = group.status().voters == [part.replica];
    heir.is_some_and(|heir| group.decision() < heir.decision) && !is_alone
}
