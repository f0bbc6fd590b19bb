//! One core of the node: everything its thread owns, and how other threads ask it for work.
//!
//! A core is one thread. What hangs off [`Core`] is touched by that thread alone, so it is `Rc` and `RefCell`, never a
//! lock; a `RefCell` guard never lives over an await. Other cores do not reach in: they mail a closure
//! ([`Cores::call`]) and get an answer back.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use ouzel_metadata::{BrokerConfig, TopicConfig};
use ouzel_runtime::mailbox::{MailReceiver, MailSender};
use ouzel_runtime::{CoreId, Runtime};
use ouzel_storage::LogConfig;
use tokio::sync::{oneshot, watch};

use crate::controller::Controller;
use crate::coordinators::Coordinators;
use crate::fetch_sessions::FetchSessions;
use crate::listener::MemoryBudget;
use crate::metrics::{CommittedSample, CoreMetrics, CoreSample};
use crate::node::NodeFacts;
use crate::partition::housekeeping;
use crate::partitions::Partitions;
use crate::rpc::PeerDoor;
use crate::view::NodeView;

/// Work mailed to a core: runs there, in the order it was mailed from any one core.
pub type Work = Box<dyn FnOnce(&Rc<Core>) + Send>;

/// What a core's thread owns.
pub struct Core {
    /// This core's clock, disk, network, randomness.
    pub runtime: Runtime,
    /// The way to the other cores (and to this one).
    pub cores: Cores,
    /// What never changes while the node runs.
    pub node: Arc<NodeFacts>,
    /// The partitions that live here.
    pub partitions: Partitions,
    /// Coordinators of the `__consumer_offsets` partitions that live here.
    pub coordinators: Coordinators,
    /// Incremental fetch sessions whose id names this core.
    pub fetch_sessions: FetchSessions,
    /// Counters, summed over the cores at the scrape.
    pub metrics: CoreMetrics,
    /// Bytes of requests this core holds.
    pub budget: MemoryBudget,
    /// The controller, on the core that runs it.
    pub controller: RefCell<Option<Rc<Controller>>>,
    /// The way to the other nodes, once there is one.
    door: RefCell<Option<Rc<dyn PeerDoor>>>,
    /// Turns true once, when the node begins to stop.
    pub stopping: watch::Receiver<bool>,
    view: RefCell<Arc<NodeView>>,
}

impl Core {
    /// Puts a core together.
    #[expect(clippy::too_many_arguments, reason = "one value per part, named at the only call")]
    pub(crate) fn new(
        runtime: Runtime,
        cores: Cores,
        node: Arc<NodeFacts>,
        partitions: Partitions,
        coordinators: Coordinators,
        budget: MemoryBudget,
        view: Arc<NodeView>,
        stopping: watch::Receiver<bool>,
    ) -> Core {
        let fetch_sessions =
            FetchSessions::new(runtime.core, node.config.fetch_sessions_max(runtime.core_count));
        Core {
            runtime,
            cores,
            node,
            partitions,
            coordinators,
            fetch_sessions,
            metrics: CoreMetrics::default(),
            budget,
            controller: RefCell::new(None),
            door: RefCell::new(None),
            stopping,
            view: RefCell::new(view),
        }
    }

    /// This core's number.
    pub fn id(&self) -> CoreId {
        self.runtime.core
    }

    /// The cluster as this core knows it at this moment.
    pub fn view(&self) -> Arc<NodeView> {
        self.view.borrow().clone()
    }

    /// The way to the other nodes, if there is one.
    pub(crate) fn door(&self) -> Option<Rc<dyn PeerDoor>> {
        self.door.borrow().clone()
    }

    /// Replaces the cluster's image; the controller does this on every core, in its log's order.
    pub(crate) fn set_view(&self, view: Arc<NodeView>) {
        *self.view.borrow_mut() = view;
    }

    /// As [`Cores::call`], without the mailbox when the work is this core's own: it then runs at once.
    ///
    /// # Errors
    /// As [`Cores::call`].
    pub fn call<R, F, W>(
        self: &Rc<Self>,
        to: CoreId,
        work: W,
    ) -> impl Future<Output = Result<R, Stopped>> + 'static + use<R, F, W>
    where
        W: FnOnce(&Rc<Core>) -> F + Send + 'static,
        R: Send + 'static,
        F: Future<Output = R> + 'static,
    {
        // Boxed: what runs here may be large, and callers are kept per connection.
        let answer = if to == self.id() { Ok(Box::pin(work(self))) } else { Err(self.cores.call(to, work)) };
        async move {
            match answer {
                Ok(own) => Ok(own.await),
                Err(other) => other.await,
            }
        }
    }

    /// As [`Cores::post`], without the mailbox when the work is this core's own.
    pub fn post(self: &Rc<Self>, to: CoreId, work: impl FnOnce(&Rc<Core>) + Send + 'static) {
        if to == self.id() { work(self) } else { self.cores.post(to, work) }
    }

    /// The broker's settings as they hold now.
    pub fn broker_config(&self) -> BrokerConfig {
        let view = self.view();
        BrokerConfig::resolve(&self.node.config.layers(&view.image))
    }

    /// A topic's settings for one of its logs on this core.
    pub(crate) fn log_config(&self, topic: &TopicConfig) -> LogConfig {
        let jitter = self.runtime.entropy.u64() as f64 / u64::MAX as f64;
        housekeeping::log_config(topic, self.node.config.broker.producer_id_expiration_ms, jitter)
    }

    /// This core's counts.
    pub(crate) fn sample(&self) -> CoreSample {
        let mut sample = self.metrics.sample();
        sample.fetch_sessions = self.fetch_sessions.count() as u64;
        sample.request_memory_free_bytes = self.budget.free_bytes() as u64;
        sample.partitions = self.partitions.all().iter().map(|partition| partition.sample()).collect();
        self.coordinators.each_committed(|group, topic, partition, offset| {
            sample.committed.push(CommittedSample {
                group: group.as_str().to_owned(),
                topic: topic.as_str().to_owned(),
                partition: partition.0,
                offset: offset.value(),
            });
        });
        self.coordinators.each_state(|state, count| {
            *sample.groups.entry(state.to_owned()).or_default() += count as u64;
        });
        sample
    }

    /// What is not as it should be on this core, in words.
    pub(crate) fn faults(&self) -> Vec<String> {
        let failed =
            self.partitions.failed().into_iter().map(|(partition, reason)| format!("{partition}: {reason}"));
        let fenced = self.partitions.all().into_iter().filter_map(|partition| {
            let fenced = partition.log_handle().fenced()?;
            Some(format!("{}: {fenced}", partition.topic_partition()))
        });
        failed.chain(fenced).collect()
    }

    /// Takes mail for as long as the node lives.
    pub(crate) async fn take_mail(self: Rc<Self>, mut mail: MailReceiver<Work>) {
        let mut batch = Vec::new();
        loop {
            if mail.recv_many(&mut batch).await == 0 {
                return;
            }
            for work in batch.drain(..) {
                work(&self);
            }
        }
    }
}

/// The target core has stopped; the node is going down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker is shutting down")]
pub struct Stopped;

/// The mailboxes of all cores. May be cloned and sent anywhere.
#[derive(Clone)]
pub struct Cores {
    mailboxes: Arc<[MailSender<Work>]>,
}

impl Cores {
    /// One mailbox per core, in the cores' order.
    pub fn new(mailboxes: Vec<MailSender<Work>>) -> Cores {
        Cores { mailboxes: mailboxes.into() }
    }

    /// How many cores there are.
    pub fn count(&self) -> u16 {
        self.mailboxes.len() as u16
    }

    /// Every core's number.
    pub fn ids(&self) -> impl Iterator<Item = CoreId> + use<> {
        (0..self.count()).map(CoreId)
    }

    /// Mails work and does not wait.
    pub fn post(&self, to: CoreId, work: impl FnOnce(&Rc<Core>) + Send + 'static) {
        // A mailbox is closed only when its core has stopped, and then the whole node does: work is dropped, and who
        // waits for its answer hears of that.
        let _ = self.mailboxes[usize::from(to.0)].send(Box::new(work));
    }

    /// Runs `work` on core `to` and brings its answer back.
    ///
    /// `work` itself runs in mail order: what must happen in the order of the calls happens before it returns its
    /// future. The future then runs as a task of that core; dropping the call does not stop it.
    ///
    /// # Errors
    /// [`Stopped`] when the core went down first.
    pub fn call<R, F, W>(
        &self,
        to: CoreId,
        work: W,
    ) -> impl Future<Output = Result<R, Stopped>> + 'static + use<R, F, W>
    where
        W: FnOnce(&Rc<Core>) -> F + Send + 'static,
        R: Send + 'static,
        F: Future<Output = R> + 'static,
    {
        let (answer, answered) = oneshot::channel();
        // Mailed now, not at the first poll: callers rely on the order of their calls.
        self.post(to, move |core| {
            let running = work(core);
            ouzel_runtime::spawn(async move {
                // The caller may have gone away; its answer then has no reader.
                let _ = answer.send(running.await);
            });
        });
        async move { answered.await.map_err(|_| Stopped) }
    }
}
