//! Leadership goes back to the preferred leaders: the first of each partition's replicas. Without it whoever was restarted
//! leads nothing any more, and the others lead more and more.
//!
//! It is looked at each `leader.imbalance.check.interval.seconds`, and soon after a node is back or partitions are made: who
//! leads first is elected, and on a busy machine the preferred one may be the last to hear of its partition. Only what is in
//! sync is handed leadership, a few partitions at a time; `auto.leader.rebalance.enable` turns it off.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ouzel_metadata::Image;
use ouzel_metadata::plan::{Election, ElectionKind, plan_elect_leaders};
use ouzel_model::NodeId;
use ouzel_runtime::clock::Instant;

use super::{here, running};
use crate::core::Core;
use crate::side_by_side::side_by_side;

/// How long a node that is back is left to catch up, and to be told what it holds; a new partition, to elect; and how long until
/// it is looked again while a node does not lead all it should.
const AFTER_RETURN: Duration = Duration::from_secs(10);
/// Transfers under way at a time, in the whole cluster.
const AT_A_TIME: usize = 8;

/// When to look next. Pure: events and times in, times out.
#[derive(Debug)]
struct Timetable {
    live: BTreeSet<NodeId>,
    partitions: usize,
    next: Instant,
}

impl Timetable {
    fn new(now: Instant, interval: Duration) -> Timetable {
        Timetable { live: BTreeSet::new(), partitions: 0, next: now + interval }
    }

    /// When to take note of what is new: nobody tells of partitions.
    fn wakes(&self, now: Instant) -> Instant {
        self.next.min(now + AFTER_RETURN)
    }

    /// Takes note of who lives: whoever is new there is looked after soon.
    fn note_live(&mut self, now: Instant, live: BTreeSet<NodeId>) {
        if !live.is_subset(&self.live) {
            self.next = self.next.min(now + AFTER_RETURN);
        }
        self.live = live;
    }

    /// Takes note of how many partitions there are: new ones are looked after soon.
    fn note_partitions(&mut self, now: Instant, partitions: usize) {
        if partitions > self.partitions {
            self.next = self.next.min(now + AFTER_RETURN);
        }
        self.partitions = partitions;
    }

    /// It was looked; `is_waited_for` says whether a living node is still behind where it should lead.
    fn looked(&mut self, now: Instant, interval: Duration, is_waited_for: bool) {
        self.next = now + if is_waited_for { interval.min(AFTER_RETURN) } else { interval };
    }
}

/// Runs until the node stops; does something only while the controller is here and the node is not alone.
pub(crate) async fn rebalance(core: Rc<Core>) {
    if core.node.membership.is_none() {
        return;
    }
    let clock = core.runtime.clock.clone();
    let interval =
        || Duration::from_secs(core.broker_config().leader_imbalance_check_interval_s.min(365 * 86_400));
    let mut timetable = Timetable::new(clock.now(), interval());
    let mut stopping = core.stopping.clone();
    loop {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = core.liveness_changed.notified() => {}
            () = clock.sleep_until(timetable.wakes(clock.now())) => {}
        }
        let Ok(controller) = here(&core) else { return };
        if !controller.log.leads() || !core.broker_config().rebalances_leaders {
            timetable = Timetable::new(clock.now(), interval().min(AFTER_RETURN));
            continue;
        }
        let image = controller.log.image();
        timetable.note_live(clock.now(), answering(&core, &image));
        timetable.note_partitions(clock.now(), image.partition_count());
        if clock.now() < timetable.next {
            continue;
        }
        let (due, is_waited_for) = due(&core, &image);
        if !due.is_empty() {
            tracing::info!(partitions = due.len(), "leadership goes back to preferred leaders");
        }
        let has_failed = hold(&core, due).await;
        timetable.looked(clock.now(), interval(), is_waited_for || has_failed);
    }
}

/// The brokers that answer.
fn answering(core: &Core, image: &Image) -> BTreeSet<NodeId> {
    let own = core.node.config.node_id;
    let is_up = |node: NodeId| node == own || core.cluster().is_some_and(|cluster| cluster.is_up(node));
    image.brokers().map(|broker| broker.node).filter(|node| is_up(*node)).collect()
}

/// The elections to hold, and whether there are preferred leaders that live and are not in sync yet.
fn due(core: &Core, image: &Image) -> (Vec<Election>, bool) {
    let claims = |at| running::claim(core, at);
    let planned = plan_elect_leaders(image, &claims, ElectionKind::Preferred, None);
    let elections: Vec<Election> = planned.iter().filter_map(|(_, outcome)| outcome.clone().ok()).collect();
    let behind = planned.iter().filter(|(_, outcome)| outcome.is_err()).any(|(named, _)| {
        let partition = image
            .topic(&named.topic)
            .and_then(|topic| topic.partition(ouzel_model::PartitionIndex(named.index)));
        partition.is_some_and(|partition| image.is_live(partition.replicas[0].node))
    });
    (elections, behind)
}

/// Holds elections, a few at a time; says whether some failed.
async fn hold(core: &Rc<Core>, elections: Vec<Election>) -> bool {
    let held = side_by_side(elections, AT_A_TIME, |election| {
        let (core, election) = (core.clone(), election.clone());
        async move { !*core.stopping.borrow() && running::hold_election(&core, election).await.is_ok() }
    });
    held.await.iter().any(|(_, is_held)| !is_held)
}

#[cfg(test)]
mod tests {
    use ouzel_runtime::cores::run_one;
    use ouzel_runtime::disk::BackendChoice;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(300);

    fn nodes(nodes: &[i32]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn a_node_that_is_back_is_looked_after_soon_and_all_of_them_now_and_then() {
        let run = run_one(BackendChoice::Blocking, &[], |runtime| async move {
            looks_in_time(runtime.clock.now());
        });
        run.expect("a core");
    }

    fn looks_in_time(start: Instant) {
        let at = |s: u64| start + Duration::from_secs(s);
        let mut timetable = Timetable::new(start, INTERVAL);
        timetable.note_live(at(0), nodes(&[1, 2, 3]));
        assert_eq!(timetable.next, at(10), "whoever begins to lead looks soon");
        timetable.looked(at(10), INTERVAL, false);
        assert_eq!(timetable.next, at(310));
        timetable.note_live(at(20), nodes(&[1, 2]));
        assert_eq!(timetable.next, at(310), "who is gone leads nothing");
        timetable.note_live(at(50), nodes(&[1, 2, 3]));
        assert_eq!(timetable.next, at(60));
        timetable.note_live(at(55), nodes(&[1, 2, 3]));
        assert_eq!(timetable.next, at(60), "no news");
        timetable.looked(at(60), INTERVAL, true);
        assert_eq!(timetable.next, at(70), "it was not in sync yet");
        timetable.looked(at(70), Duration::from_secs(3), true);
        assert_eq!(timetable.next, at(73), "never later than asked for");
        timetable.looked(at(73), INTERVAL, false);
        assert_eq!((timetable.next, timetable.wakes(at(80))), (at(373), at(90)));
        timetable.note_partitions(at(90), 6);
        assert_eq!(timetable.next, at(100), "their first leaders were elected");
        timetable.looked(at(100), INTERVAL, false);
        timetable.note_partitions(at(110), 6);
        timetable.note_partitions(at(120), 5);
        assert_eq!(timetable.next, at(400), "no news");
    }
}
