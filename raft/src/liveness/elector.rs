//! Keeps the time of an [`ElectionScheduler`]: one for each core, for the groups of that core.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use ouzel_model::{NodeId, TopicIdPartition};
use ouzel_runtime::clock::Instant;
use ouzel_runtime::{JoinHandle, Runtime};
use tokio::sync::Notify;

use super::elections::{Due, ElectionConfig, ElectionScheduler, GroupWatch};
use super::judge::{Cause, Change};

/// Carries out what is due: starts pre-votes and heartbeats, asks leaders. Called outside of anything the elector holds.
pub type DueAction = Rc<dyn Fn(Due)>;

/// An [`ElectionScheduler`] that runs. Clones share it; it ends with the last one.
#[derive(Clone)]
pub struct Elector {
    inner: Rc<Inner>,
}

struct Inner {
    runtime: Runtime,
    scheduler: RefCell<ElectionScheduler>,
    action: DueAction,
    /// Something changed: what was to be due first may not be.
    bell: Rc<Notify>,
    running: Cell<Option<JoinHandle<()>>>,
}

impl Elector {
    /// Starts, without groups.
    pub fn start(runtime: Runtime, own: NodeId, config: ElectionConfig, action: DueAction) -> Elector {
        let scheduler = ElectionScheduler::new(own, config, runtime.entropy.u64());
        let bell = Rc::new(Notify::new());
        let inner = Inner {
            runtime,
            scheduler: RefCell::new(scheduler),
            action,
            bell: bell.clone(),
            running: Cell::default(),
        };
        let inner = Rc::new(inner);
        inner.running.set(Some(ouzel_runtime::spawn(run(Rc::downgrade(&inner), bell))));
        Elector { inner }
    }

    /// As [`ElectionScheduler::set_group`].
    pub fn set_group(&self, group: TopicIdPartition, watch: GroupWatch) {
        self.change(|scheduler, now| scheduler.set_group(group, watch, now));
    }

    /// As [`ElectionScheduler::remove_group`].
    pub fn remove_group(&self, group: &TopicIdPartition) {
        self.change(|scheduler, _| scheduler.remove_group(group));
    }

    /// As [`ElectionScheduler::contact`].
    pub fn contact(&self, group: &TopicIdPartition, when: Instant) {
        self.inner.scheduler.borrow_mut().contact(group, when);
    }

    /// As [`ElectionScheduler::leader_answered`].
    pub fn leader_answered(&self, group: &TopicIdPartition, leader: NodeId) {
        self.inner.scheduler.borrow_mut().leader_answered(group, leader);
    }

    /// A node is up, is down, or was restarted.
    pub fn node_changed(&self, change: Change) {
        self.change(|scheduler, now| match change {
            Change::Up(node) => scheduler.node_up(node, now),
            Change::Down(node, Cause::Restarted) => scheduler.node_restarted(node, now),
            Change::Down(node, _) => scheduler.node_down(node, now),
        });
    }

    /// Groups of this core that need a leader.
    pub fn leaderless(&self) -> usize {
        self.inner.scheduler.borrow().leaderless()
    }

    fn change(&self, change: impl FnOnce(&mut ElectionScheduler, Instant)) {
        change(&mut self.inner.scheduler.borrow_mut(), self.inner.runtime.clock.now());
        self.inner.bell.notify_one();
    }
}

/// A change may come with thousands more; between two looks at what is due lies at least this.
const LOOK_PAUSE: Duration = Duration::from_millis(1);

async fn run(inner: Weak<Inner>, bell: Rc<Notify>) {
    loop {
        let Some(elector) = inner.upgrade() else { return };
        let clock = elector.runtime.clock.clone();
        let due = elector.scheduler.borrow_mut().due(clock.now());
        if !due.is_empty() {
            (elector.action)(due);
        }
        let next = elector.scheduler.borrow().next_due(clock.now());
        drop(elector);
        match next {
            Some(next) => tokio::select! {
                biased;
                () = bell.notified() => {}
                () = clock.sleep_until(next) => {}
            },
            None => bell.notified().await,
        }
        clock.sleep(LOOK_PAUSE).await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }
}

impl fmt::Debug for Elector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elector").field("leaderless", &self.leaderless()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ouzel_model::{PartitionIndex, TopicId};

    #[test]
    fn groups_of_a_fallen_leader_are_elected_and_no_others() {
        ouzel_runtime::sim::run(1, |node| async move {
            let runtime = node.runtime();
            let elected: Rc<RefCell<Vec<TopicIdPartition>>> = Rc::default();
            let notes = elected.clone();
            let action = Rc::new(move |due: Due| notes.borrow_mut().extend(due.elect));
            let config = ElectionConfig { retry_min: Duration::from_secs(60), ..ElectionConfig::default() };
            let config = ElectionConfig { retry_max: Duration::from_secs(60), ..config };
            let elector = Elector::start(runtime.clone(), NodeId(1), config, action);
            let group =
                |number| TopicIdPartition { topic_id: TopicId([1; 16]), partition: PartitionIndex(number) };
            elector.node_changed(Change::Up(NodeId(0)));
            elector.node_changed(Change::Up(NodeId(2)));
            for number in 0..1_000 {
                let leader = Some(NodeId(number % 3));
                let watch = GroupWatch { voters: vec![NodeId(1), NodeId(0), NodeId(2)], leader };
                elector.set_group(group(number), watch);
            }
            runtime.clock.sleep(Duration::from_secs(5)).await;
            assert_eq!(elected.borrow().len(), 0);
            elector.node_changed(Change::Down(NodeId(0), Cause::Gone));
            runtime.clock.sleep(Duration::from_secs(1)).await;
            elected.borrow_mut().sort();
            let expected: Vec<_> = (0..1_000).filter(|number| number % 3 == 0).map(group).collect();
            assert_eq!(*elected.borrow(), expected);
            assert_eq!(elector.leaderless(), expected.len());
        });
    }
}
