//! One core of the node: everything its thread owns, and how other threads ask it for work.
//!
//! A core is one thread. What hangs off [`Core`] is touched by that thread alone, so it is `Rc` and `RefCell`, never a
//! lock; a `RefCell` guard never lives over an await. Other cores do not reach in: they mail a closure
//! ([`Cores::call`]) and get an answer back.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use ouzel_metadata::{BrokerConfig, Partition, TopicConfig};
use ouzel_model::{LeaderEpoch, TopicIdPartition};
use ouzel_raft::{RaftGroup, ReplicatedLog};
use ouzel_runtime::mailbox::{MailReceiver, MailSender};
use ouzel_runtime::{CoreId, Runtime, held};
use ouzel_storage::LogConfig;
use tokio::sync::{Notify, oneshot, watch};

use crate::cluster::Cluster;
use crate::controller::Controller;
use crate::coordinators::Coordinators;
use crate::fetch_sessions::FetchSessions;
use crate::listener::MemoryBudget;
use crate::metrics::{CommittedSample, CoreMetrics, CoreSample, PartitionSample};
use crate::node::{NodeFacts, metadata_at};
use crate::partition::housekeeping;
use crate::partitions::Partitions;
use crate::view::{Leadership, NodeView, still_in_sync};

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
    /// What it has of the cluster; nothing if the node is alone.
    cluster: RefCell<Option<Rc<Cluster>>>,
    /// Told on the controller's core when a node is up or down.
    pub(crate) liveness_changed: Notify,
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
            cluster: RefCell::new(None),
            liveness_changed: Notify::new(),
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

    /// What it has of the cluster, if the node is not alone.
    pub(crate) fn cluster(&self) -> Option<Rc<Cluster>> {
        self.cluster.borrow().clone()
    }

    /// Makes it part of a cluster; once, before it takes part in anything.
    pub(crate) fn set_cluster(&self, cluster: Cluster) {
        self.cluster.replace(Some(Rc::new(cluster)));
    }

    /// Which life of the broker this process is: as long as it answers, no other may register under its number.
    pub(crate) fn process_incarnation(&self) -> [u8; 16] {
        match &self.node.membership {
            Some(membership) => incarnation_of(membership.process_id),
            None => self.runtime.entropy.uuid(),
        }
    }

    /// The replica of a group that lives here, that of the controller's log included.
    pub(crate) fn group(&self, at: &TopicIdPartition) -> Option<RaftGroup> {
        if *at == metadata_at() {
            return self.controller.borrow().as_ref().and_then(|controller| controller.log().group());
        }
        self.partitions.get(at).and_then(|partition| partition.group())
    }

    /// The replicas of groups that live here.
    pub(crate) fn groups(&self) -> Vec<RaftGroup> {
        let metadata = self.group(&metadata_at());
        let partitions = self.partitions.all();
        metadata.into_iter().chain(partitions.iter().filter_map(|partition| partition.group())).collect()
    }

    /// Who leads a partition: the image says where it is to live, never who leads it.
    pub(crate) fn leadership_of(&self, at: TopicIdPartition, partition: &Partition) -> Leadership {
        let view = self.view();
        let claim = self.cluster().and_then(|cluster| cluster.claim(&at));
        let own_epoch = view.routes.get(&at).map(|route| LeaderEpoch(route.offsets.read().leader_epoch));
        match claim {
            Some(claim) => Leadership {
                leader: Some(claim.leader.node).filter(|node| view.image.is_live(*node)),
                epoch: claim.epoch,
                in_sync: still_in_sync(claim.in_sync.iter().map(|replica| replica.node).collect(), |node| {
                    view.image.is_live(node)
                }),
            },
            // A single replica leads itself; its epoch rises each time its log is opened.
            None if partition.holders().count() == 1 => Leadership {
                leader: partition.preferred_leader().filter(|node| view.image.is_live(*node)),
                epoch: own_epoch.unwrap_or(LeaderEpoch(0)),
                in_sync: partition.preferred_leader().into_iter().collect(),
            },
            None => {
                Leadership { leader: None, epoch: own_epoch.unwrap_or(LeaderEpoch(0)), in_sync: Vec::new() }
            }
        }
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
        sample.wal_commits = self.partitions.wal.commits();
        sample.held = held::of_this_core();
        let view = self.view();
        let sampled = self.partitions.all().into_iter().map(|partition| {
            let replicas = view.image.partition(*partition.at()).map_or(0, |known| known.replicas.len());
            let sample = partition.sample();
            PartitionSample { replicas: if sample.leads { replicas } else { 0 }, ..sample }
        });
        sample.partitions = sampled.collect();
        if let Some(cluster) = self.cluster() {
            (sample.peers, sample.peer_calls_served) = cluster.sample_peers();
        }
        sample.reversions += self.groups().iter().map(|group| group.status().reversions).sum::<u64>();
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
        let stopped = self.groups().into_iter().filter_map(|group| {
            let failure = group.status().failure?;
            let partition = group.local().topic_partition();
            Some(format!("{partition}: replica {} is out of service: {failure}", group.replica()))
        });
        failed.chain(fenced).chain(stopped).chain(self.coordinators.faults()).collect()
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

/// How a process is told in a broker's registration.
pub(crate) fn incarnation_of(process_id: u64) -> [u8; 16] {
    let mut incarnation = [0; 16];
    incarnation[..8].copy_from_slice(&process_id.to_be_bytes());
    incarnation
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
