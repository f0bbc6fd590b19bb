//! Replicas of groups that this node cannot vouch for: their files are gone, or a power cut may have taken the end of what
//! they acknowledged without flushing it. They are not opened. The node asks the controller what becomes of them until it
//! says: they begin a new life, which comes as any decision does, or go on as they are.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::plan::{Loss, Stand, Verdict};
use ouzel_model::{ReplicaId, TopicIdPartition};
use ouzel_raft::{GroupStatus, RaftGroup, Role};

use super::groups::Vouch;
use super::opening::How;
use super::{Opening, Partitions};
use crate::controller::CONTROLLER_CORE;
use crate::core::Core;
use crate::partition::leadership::Standing;
use crate::rpc::ask;
use crate::rpc::control::{ControlAnswer, ControlCall};

/// How long it waits before it asks again.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a replica that goes on waits before it stands again, at least.
const STAND_INTERVAL: Duration = Duration::from_millis(400);
/// And up to fifteen times as much longer, by chance: replicas that stand at the same time stand in each other's way.
const STAND_JITTER: Duration = Duration::from_millis(20);

/// The replicas of one core that wait for the controller's word.
#[derive(Default)]
pub(crate) struct LostReplicas {
    waiting: RefCell<BTreeMap<TopicIdPartition, (Opening, Loss)>>,
    is_asking: Cell<bool>,
}

impl LostReplicas {
    fn get(&self, at: &TopicIdPartition) -> Option<(ReplicaId, Loss)> {
        self.waiting.borrow().get(at).map(|(opening, loss)| (opening.part.replica, *loss))
    }

    /// It waits no more: it is wanted no more, or another life of it is.
    pub(super) fn forget(&self, at: &TopicIdPartition) -> Option<Opening> {
        self.waiting.borrow_mut().remove(at).map(|(opening, _)| opening)
    }
}

impl Partitions {
    /// Takes note of a replica that is not opened, and asks about it.
    pub(super) fn lost(&self, core: &Rc<Core>, opening: Opening, loss: Loss) {
        let words = match loss {
            Loss::Files => "the files of this replica are gone: its group is asked to take it in anew",
            Loss::Tail(_) => {
                "a power cut may have taken the end of what this replica acknowledged before it was flushed: its group is \
                 asked to take it in anew"
            }
        };
        tracing::warn!(partition = %opening.part.topic_partition, replica = %opening.part.replica, "{words}");
        self.failed
            .borrow_mut()
            .insert(opening.part.at, (opening.part.topic_partition.clone(), words.to_owned()));
        self.lost.waiting.borrow_mut().insert(opening.part.at, (opening, loss));
        if !self.lost.is_asking.replace(true) {
            ouzel_runtime::spawn(ask_about_all(core.clone()));
        }
    }
}

/// Runs while replicas of a core wait. One question at a time: after a power cut there may be thousands.
async fn ask_about_all(core: Rc<Core>) {
    let mut stopping = core.stopping.clone();
    loop {
        let waiting: Vec<_> = core.partitions.lost.waiting.borrow().keys().copied().collect();
        if waiting.is_empty() {
            core.partitions.lost.is_asking.set(false);
            return;
        }
        let asking = async {
            for at in waiting {
                ask_about(&core, at).await;
            }
            core.runtime.clock.sleep(ASK_INTERVAL).await;
        };
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = asking => {}
        }
    }
}

async fn ask_about(core: &Rc<Core>, at: TopicIdPartition) {
    let Some((replica, loss)) = core.partitions.lost.get(&at) else { return };
    let asked = core.call(CONTROLLER_CORE, move |core| {
        let core = core.clone();
        async move { ask::ask(&core, ControlCall::ReplicaLost(at, replica, loss)).await }
    });
    match asked.await {
        Ok(Ok(ControlAnswer::Verdict(Verdict::GoOn))) => go_on(core, at).await,
        // The new life comes with the controller's log.
        Ok(Ok(ControlAnswer::Verdict(Verdict::Anew | Verdict::Wait))) => {}
        Ok(Ok(other)) => {
            tracing::warn!(%replica, ?other, "the controller does not say what becomes of a replica")
        }
        Ok(Err(error)) => tracing::debug!(%replica, %error, "nobody says what becomes of a replica"),
        Err(_) => {}
    }
}

/// Takes a replica into service with what it has left.
async fn go_on(core: &Rc<Core>, at: TopicIdPartition) {
    let partitions = &core.partitions;
    let Some(opening) = partitions.lost.forget(&at) else { return };
    tracing::error!(
        partition = %opening.part.topic_partition, replica = %opening.part.replica,
        "too few replicas of this partition came through a power cut whole: this one goes on with what it has left, which \
         no other has more of; records that were acknowledged and not flushed anywhere are lost"
    );
    core.metrics.tail_given_up();
    partitions.failed.borrow_mut().remove(&at);
    partitions.open_members(core, vec![(How::Member, opening)], Vouch::Anyway).await;
    if let Some(group) = partitions.get(&at).and_then(|partition| partition.group()) {
        ouzel_runtime::spawn(have_led(core.clone(), group));
    }
}

/// Has a replica stand until a new reign begins. As far as it remembers its last leader leads still: that node is up, and
/// so nobody else would think of an election.
async fn have_led(core: Rc<Core>, group: RaftGroup) {
    let mut stopping = core.stopping.clone();
    let epoch = group.status().epoch;
    let has_begun = |status: &GroupStatus| status.epoch > epoch && status.leader.is_some();
    while !has_begun(&group.status()) && group.role() != Role::Stopped {
        group.elect().await;
        let pause = STAND_INTERVAL + STAND_JITTER * (core.runtime.entropy.u64() % 16) as u32;
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = group.wait_until(has_begun) => return,
            () = core.runtime.clock.sleep(pause) => {}
        }
    }
}

/// How a replica on this core stands; `None` if it is not open, and has not been looked at.
pub(crate) fn stand(core: &Core, at: &TopicIdPartition) -> Option<(ReplicaId, Stand)> {
    if let Some((replica, loss)) = core.partitions.lost.get(at) {
        return Some((replica, Stand::Lost(loss)));
    }
    if let Some(alone) = core.partitions.get(at).filter(|partition| partition.group().is_none()) {
        let Standing { leader, in_sync, voters, .. } = alone.standing();
        return leader.map(|replica| (replica, Stand::Open { last: None, voters: vec![voters], in_sync }));
    }
    let group = core.group(at)?;
    let GroupStatus { role, last_entry: last, in_sync, .. } = group.status();
    let voters = group.voter_sets().filter(|_| role != Role::Stopped)?;
    Some((group.replica(), Stand::Open { last, voters, in_sync }))
}
