//! Replicas that their nodes cannot vouch for: the controller asks everybody who may hold the partition, and decides.

use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::plan::{Loss, Stand, Verdict, all_have_answered, judge_lost, plan_replica_lost};
use ouzel_model::{ReplicaId, TopicIdPartition};
use ouzel_runtime::clock::Instant;

use super::{ControllerError, here};
use crate::core::Core;
use crate::rpc::ask;
use crate::rpc::control::{ControlAnswer, ControlCall};
use crate::side_by_side::side_by_side;

/// How long a node may take to say how its replica stands.
const STAND_TIME_MAX: Duration = Duration::from_secs(2);
/// Who can elect a leader has done so in this time.
const LASTING: Duration = Duration::from_secs(10);
/// Who has gone on has been opened, and has stood often enough for those that are there to elect it, in this time.
const STANDS_WITHIN: Duration = Duration::from_secs(3);
/// Whoever waits asks again much sooner than this: longer ago is another story.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// Since when the holders of a partition have been asked how they stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// All must have answered, each time, for so long before one goes on.
    not_before: Instant,
    last: Instant,
    /// One goes on already: after another the next one waits for no more than an election.
    has_gone_on: bool,
}

/// Decides what becomes of a replica that its node cannot vouch for. On the controller's core.
pub(crate) async fn replica_lost(
    core: &Rc<Core>,
    at: TopicIdPartition,
    asking: ReplicaId,
    loss: Loss,
) -> Result<ControlAnswer, ControllerError> {
    let controller = here(core)?;
    let image = controller.log.image();
    let wanted = image.partition(at).filter(|partition| partition.replica_on(asking.node) == Some(asking));
    let Some(partition) = wanted.cloned() else {
        // Another life of it, or none, is decided already.
        return Ok(ControlAnswer::Verdict(Verdict::Anew));
    };
    let mut stands = vec![(asking, Stand::Lost(loss))];
    stands.extend(stands_of(core, at, partition.holders().filter(|holder| *holder != asking)).await);
    let now = core.runtime.clock.now();
    let is_lasting = {
        let mut asked = controller.asked_about.borrow_mut();
        asked.retain(|_, asked| now.duration_since(asked.last) < FORGOTTEN_AFTER);
        let first = Asked { not_before: now + LASTING, last: now, has_gone_on: false };
        let asked = asked.entry(at).or_insert(first);
        if !all_have_answered(&partition, &stands) {
            // Who comes back now needs time to elect.
            asked.not_before = now + if asked.has_gone_on { STANDS_WITHIN } else { LASTING };
        }
        asked.last = now;
        now >= asked.not_before
    };
    let verdict = judge_lost(&partition, asking, &stands, is_lasting);
    match verdict {
        Verdict::Wait => {}
        Verdict::GoOn => {
            let _turn = controller.turn().await?;
            if controller.log.image().partition(at) != Some(&partition) {
                return Ok(ControlAnswer::Verdict(Verdict::Wait));
            }
            tracing::error!(
                group = %asking, topic = %at.topic_id, partition = %at.partition, ?stands,
                "too few replicas of a partition can vouch for what they acknowledged: the one with most goes on"
            );
            // It stands, even if it is about to leave and counts for nobody: before the next one goes on, it may be elected.
            let not_before = now + STANDS_WITHIN;
            controller
                .asked_about
                .borrow_mut()
                .insert(at, Asked { not_before, last: now, has_gone_on: true });
        }
        Verdict::Anew => {
            let _turn = controller.turn().await?;
            let image = controller.log.image();
            // What was judged is what is decided on.
            if image.partition(at) != Some(&partition) {
                return Ok(ControlAnswer::Verdict(Verdict::Wait));
            }
            if let Some(admission) = plan_replica_lost(&image, at, asking) {
                for damage in &admission.damage {
                    tracing::error!(replica = %asking, "a replica begins anew: {damage}");
                }
                controller.write(core, &admission.records).await?;
            }
            controller.asked_about.borrow_mut().remove(&at);
        }
    }
    Ok(ControlAnswer::Verdict(verdict))
}

/// How replicas stand, of those whose nodes say so in time. All are asked at once. On the controller's core.
pub(super) async fn stands_of(
    core: &Rc<Core>,
    at: TopicIdPartition,
    holders: impl Iterator<Item = ReplicaId>,
) -> Vec<(ReplicaId, Stand)> {
    let ask = |holder: &ReplicaId| {
        let (core, holder) = (core.clone(), *holder);
        async move { stand_of(&core, at, holder).await }
    };
    side_by_side(holders, usize::MAX, ask).await.into_iter().filter_map(|(_, stand)| stand).collect()
}

async fn stand_of(core: &Rc<Core>, at: TopicIdPartition, holder: ReplicaId) -> Option<(ReplicaId, Stand)> {
    let answer = ask::ask_or_answer(core, holder.node, ControlCall::Stand(at));
    match core.runtime.clock.timeout(STAND_TIME_MAX, answer).await {
        Ok(Some(ControlAnswer::Stand(replica, stand))) if replica == holder => Some((replica, stand)),
        _ => None,
    }
}
