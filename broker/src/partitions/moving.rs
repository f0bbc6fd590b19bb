//! Moves are carried out by the partition's leader: it makes the replicas the controller wants the group's members, and
//! then says so, naming the whole of what it acted on. A group that has one member at the end of it, and is to have no other,
//! is none any more: the publisher, who makes groups of single replicas as well, dissolves it.
//!
//! Nothing of this is kept: whoever leads looks at what the controller has decided, at each decision and when it comes to
//! lead, and carries on where the leader before it was. The group itself remembers which decision it acts on.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::Partition;
use ouzel_model::{ReplicaId, TopicIdPartition, TopicPartition};
use ouzel_raft::{RaftGroup, ReconfigureError, Role};
use tokio::sync::Notify;

use crate::controller::CONTROLLER_CORE;
use crate::core::Core;
use crate::handover::{Unready, hand_over, may_lead};
use crate::rpc::ask;
use crate::rpc::control::{ControlAnswer, ControlCall};

/// What did not come about is tried again after this time.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long a move that the controller has heard to be over may take to show here before it is told again.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(5);
/// How often a move that takes long is told of.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// The moves that this core's partitions are on.
#[derive(Default)]
pub(crate) struct Moves {
    /// Those that somebody sees to.
    seen_to: RefCell<BTreeSet<TopicIdPartition>>,
    /// Told with each decision of the controller.
    decided: Notify,
    /// On the controller's core: the groups of this node that may be dissolved.
    pub(crate) alone: Alone,
}

/// Groups whose only member is on this node. They wait for the publisher: between two decisions nobody else opens or
/// closes a partition.
#[derive(Default)]
pub(crate) struct Alone {
    waiting: RefCell<BTreeSet<TopicIdPartition>>,
    arrived: Notify,
}

impl Alone {
    fn add(&self, at: TopicIdPartition) {
        self.waiting.borrow_mut().insert(at);
        self.arrived.notify_one();
    }

    /// Resolves when some wait; they wait on.
    pub(crate) async fn some(&self) {
        while self.waiting.borrow().is_empty() {
            self.arrived.notified().await;
        }
    }

    /// Takes all that wait.
    pub(crate) fn take(&self) -> BTreeSet<TopicIdPartition> {
        self.waiting.take()
    }
}

/// The controller has decided something: for all partitions of a core.
pub(crate) fn decided(core: &Rc<Core>) {
    core.partitions.moves.decided.notify_waiters();
    for partition in core.partitions.all() {
        look(core, *partition.at());
    }
}

/// Sees to a partition's move, if it is on one and led here; and to its group, if that is not needed any more.
pub(crate) fn look(core: &Rc<Core>, at: TopicIdPartition) {
    if is_alone(core, &at) {
        core.post(CONTROLLER_CORE, move |core| core.partitions.moves.alone.add(at));
    }
    if to_do(core, at).is_some() && core.partitions.moves.seen_to.borrow_mut().insert(at) {
        ouzel_runtime::spawn(see_to(core.clone(), at));
    }
}

/// Whether a partition is a group that needs be none: it is to have one replica, and has no other.
fn is_alone(core: &Core, at: &TopicIdPartition) -> bool {
    let wanted = core.view().image.partition(*at).and_then(Partition::sole_replica);
    let group = || core.partitions.get(at).and_then(|partition| partition.group());
    wanted.is_some_and(|wanted| group().is_some_and(|group| group.replica() == wanted && group.is_alone()))
}

/// A move to be carried out here.
struct ToDo {
    group: RaftGroup,
    name: TopicPartition,
    wanted: Partition,
}

fn to_do(core: &Core, at: TopicIdPartition) -> Option<ToDo> {
    let partition = core.partitions.get(&at)?;
    let group = partition.group().filter(|group| group.role() == Role::Leader)?;
    let view = core.view();
    let wanted = view.image.partition(at)?;
    // Of a move that only let go of replicas, and was given up, nothing is to be seen but that some are missing.
    if !wanted.is_moving() && group.has_voters(&wanted.replicas) {
        return None;
    }
    Some(ToDo { group, name: partition.topic_partition().clone(), wanted: wanted.clone() })
}

/// Runs while the partition is on a move and led here.
async fn see_to(core: Rc<Core>, at: TopicIdPartition) {
    let mut stopping = core.stopping.clone();
    while let Some(ToDo { group, name, wanted }) = to_do(&core, at) {
        let outcome = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => break,
            // What is begun stays where it is: the next decision goes on from there.
            () = changed(&core, at, &wanted) => continue,
            outcome = carry_out(&core, at, &group, &name, &wanted) => outcome,
        };
        let pause = match outcome {
            Ok(Step::Settled) => SETTLE_TIME_MAX,
            Ok(Step::HandedOver) => RETRY_PAUSE,
            Err(reason) => {
                tracing::info!(partition = %name, reason, "a move waits");
                RETRY_PAUSE
            }
        };
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => break,
            () = changed(&core, at, &wanted) => {}
            () = core.runtime.clock.sleep(pause) => {}
        }
    }
    core.partitions.moves.seen_to.borrow_mut().remove(&at);
}

/// Resolves when the controller wants something else of a partition.
async fn changed(core: &Core, at: TopicIdPartition, wanted: &Partition) {
    loop {
        let decided = core.partitions.moves.decided.notified();
        if core.view().image.partition(at) != Some(wanted) {
            return;
        }
        decided.await;
    }
}

/// How far a move has come.
enum Step {
    /// The members are as wanted, and the controller knows.
    Settled,
    /// Another replica leads, and carries on.
    HandedOver,
}

async fn carry_out(
    core: &Rc<Core>,
    at: TopicIdPartition,
    group: &RaftGroup,
    name: &TopicPartition,
    wanted: &Partition,
) -> Result<Step, String> {
    let me = group.replica();
    let mut members = wanted.replicas.clone();
    let leaves = !members.contains(&me);
    if leaves {
        // A leader that is let go of cannot see to its successor: it leaves when another one leads.
        members.push(me);
    }
    change_members(core, group, name, &members, wanted.next_incarnation)
        .await
        .map_err(|error| error.to_string())?;
    if leaves {
        let successors: Vec<_> = may_lead(&group.status(), me, &wanted.replicas).collect();
        hand_over(group, &successors, &Unready::default()).await?;
        tracing::info!(partition = %name, replica = %me, "a leader that is to leave has handed over");
        return Ok(Step::HandedOver);
    }
    let seen = ControlCall::Settle(at, wanted.clone());
    let told = core.call(CONTROLLER_CORE, move |core| {
        let core = core.clone();
        async move { ask::ask(&core, seen).await }
    });
    match told.await.map_err(|stopped| stopped.to_string())?.map_err(|error| error.to_string())? {
        ControlAnswer::Done => Ok(Step::Settled),
        ControlAnswer::Failed(words) | ControlAnswer::Refused(words) => Err(words),
        other => Err(format!("an answer to another question: {other:?}")),
    }
}

/// Changes the members, and tells now and then how far those that join have come.
async fn change_members(
    core: &Core,
    group: &RaftGroup,
    name: &TopicPartition,
    members: &[ReplicaId],
    decision: u32,
) -> Result<(), ReconfigureError> {
    let mut changing = std::pin::pin!(group.reconfigure(members, decision));
    loop {
        tokio::select! {
            biased;
            outcome = &mut changing => return outcome,
            () = core.runtime.clock.sleep(PROGRESS_INTERVAL) => {}
        }
        let status = group.status();
        let joining: Vec<String> = status
            .held
            .iter()
            .filter(|(replica, _)| !status.voters.contains(replica))
            .map(|(replica, held)| {
                held.map_or_else(|| format!("{replica}: nothing"), |held| format!("{replica}: {held}"))
            })
            .collect();
        tracing::info!(
            partition = %name, to = %told_list(members), joining = %joining.join(", "), last = ?status.last_entry,
            "a move is on its way"
        );
    }
}

fn told_list(replicas: &[ReplicaId]) -> String {
    replicas.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
