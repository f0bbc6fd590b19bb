//! Who leads what, told from node to node: a broker that has no replica of a partition still answers for it.
//!
//! Raft elects where the replicas are, and nobody else is asked. So each leader *claims* its group ([`Claim`]), and
//! nodes pass on what is news to them, over the connection that liveness keeps: changes at once, a few milliseconds'
//! worth together, and everything to a peer that has just come up. Claims are merged by taking the greater
//! ([`ClaimTable`]), so it does not matter by which way, in which order and how often they come.
//!
//! A claim is what its leader believed, not what is true: a leader that lost its group says so by nothing. Whoever acts
//! on a claim must cope with its being out of date, as clients do with metadata.
//!
//! Reading order: [`claim`], [`table`], and here what sends and receives. One core of a node does this.

pub mod claim;
pub mod table;

use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use ouzel_model::{NodeId, TopicIdPartition};
use ouzel_runtime::{JoinHandle, Reached, Runtime};

use crate::peers::{PeerIdentity, PeerService, Peers, ServeResult, service};
use crate::transport::{Lane, LocalBoxFuture, PeerMessage};

pub use claim::Claim;
pub use table::{ClaimTable, Merged};

/// One message of claims has at most this many bytes: some two thousand claims, merged in about a millisecond.
const MESSAGE_BYTES_MAX: usize = 192 * 1024;
/// Changes within this time travel together.
const GATHER_TIME: Duration = Duration::from_millis(5);
/// A peer that did not take a message is tried again after this, as long as it counts as up.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// A message not answered within this time is sent again.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// Whoever wants to know what is news: called with each claim that other nodes brought and that is held now.
pub type NewsObserver = Rc<dyn Fn(&[Claim])>;

/// A node's part in the gossip. Clones share it.
#[derive(Clone)]
pub struct Gossip {
    inner: Rc<Inner>,
}

struct Inner {
    runtime: Runtime,
    peers: Peers,
    table: RefCell<ClaimTable>,
    /// What leaders on this node say at this moment.
    own: RefCell<BTreeMap<TopicIdPartition, Claim>>,
    telling: RefCell<BTreeMap<NodeId, JoinHandle<()>>>,
    /// The table's last change.
    changed: Rc<Reached<u64>>,
    news: RefCell<Option<NewsObserver>>,
}

impl Gossip {
    /// Takes part, hearing what `peers` receive on this core.
    pub fn start(runtime: Runtime, peers: Peers) -> Gossip {
        let inner = Rc::new(Inner {
            runtime,
            peers: peers.clone(),
            table: RefCell::default(),
            own: RefCell::default(),
            telling: RefCell::default(),
            changed: Rc::new(Reached::new(0)),
            news: RefCell::default(),
        });
        peers.register(service::GOSSIP, Rc::new(Ear { inner: Rc::downgrade(&inner) }));
        Gossip { inner }
    }

    /// What this node believes.
    pub fn table(&self) -> Ref<'_, ClaimTable> {
        self.inner.table.borrow()
    }

    /// Says what the leader of a group on this node has to say; its sequence is given here.
    pub fn publish(&self, claim: Claim) {
        self.inner.own.borrow_mut().insert(claim.group, claim.clone());
        let merged = self.inner.table.borrow_mut().publish(claim);
        if merged == Merged::News {
            self.inner.ring();
        }
    }

    /// A group is not led from here any more. What was said of it stands until somebody else leads it.
    pub fn withdraw(&self, group: &TopicIdPartition) {
        self.inner.own.borrow_mut().remove(group);
    }

    /// Drops what was said of groups that are no more; see [`ClaimTable::retain`].
    pub fn retain(&self, mut exists: impl FnMut(&TopicIdPartition) -> bool) {
        self.inner.own.borrow_mut().retain(|group, _| exists(group));
        self.inner.table.borrow_mut().retain(exists);
    }

    /// Calls `observer` with claims that are news from now on.
    pub fn observe(&self, observer: NewsObserver) {
        *self.inner.news.borrow_mut() = Some(observer);
    }

    /// A peer has come up, perhaps for the first time: tells it all, and from then on what changes.
    pub fn peer_up(&self, node: NodeId) {
        let telling = ouzel_runtime::spawn(tell(Rc::downgrade(&self.inner), node));
        if let Some(before) = self.inner.telling.borrow_mut().insert(node, telling) {
            before.abort();
        }
    }

    /// A peer is gone: nothing is sent to it until it is up again.
    pub fn peer_down(&self, node: NodeId) {
        if let Some(telling) = self.inner.telling.borrow_mut().remove(&node) {
            telling.abort();
        }
    }
}

impl Inner {
    fn ring(&self) {
        self.changed.set(self.table.borrow().last_change());
    }

    fn hear(&self, from: NodeId, claims: Vec<Claim>) {
        let mut news = Vec::new();
        {
            let (mut table, own) = (self.table.borrow_mut(), self.own.borrow());
            for claim in claims {
                let group = claim.group;
                if table.merge(claim.clone(), Some(from)) != Merged::News {
                    continue;
                }
                let speaks = |own: &&Claim| own.epoch == claim.epoch && own.leader == claim.leader;
                match own.get(&group).filter(speaks) {
                    // What this node said of the same reign before it was restarted: its present word is the newer.
                    Some(own) => _ = table.publish(own.clone()),
                    None => news.push(claim),
                }
            }
        }
        self.ring();
        let observer = self.news.borrow().clone();
        if let Some(observer) = observer.filter(|_| !news.is_empty()) {
            observer(&news);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.telling.take().values().for_each(JoinHandle::abort);
    }
}

struct Ear {
    inner: Weak<Inner>,
}

impl PeerService for Ear {
    fn serve(&self, from: &PeerIdentity, _: u8, message: PeerMessage) -> LocalBoxFuture<ServeResult> {
        let heard = claim::decode_claims(&message).map_err(|error| format!("not claims: {error}"));
        let answer = heard.map(|claims| {
            if let Some(inner) = self.inner.upgrade() {
                inner.hear(from.node, claims);
            }
            PeerMessage::default()
        });
        Box::pin(std::future::ready(answer))
    }
}

/// Tells one peer everything, then what changes, until it is aborted or nobody gossips any more.
async fn tell(inner: Weak<Inner>, node: NodeId) {
    let (mut told, all, changed, clock) = match inner.upgrade() {
        Some(inner) => {
            let all = inner.table.borrow().last_change();
            (0, all, inner.changed.clone(), inner.runtime.clock.clone())
        }
        None => return,
    };
    loop {
        let Some(gossip) = inner.upgrade() else { return };
        let (message, upto) = {
            let table = gossip.table.borrow();
            // A peer that came up anew may have forgotten what it said before; later it need not hear its own words.
            let but_from = (told >= all).then_some(node);
            let changes: Vec<_> = table.changes_after(told, but_from).take(MESSAGE_BYTES_MAX / 32).collect();
            let (message, taken) =
                claim::encode_claims(changes.iter().map(|(_, claim)| *claim), MESSAGE_BYTES_MAX);
            let upto = match taken {
                0 => table.last_change(),
                _ => changes[taken - 1].0,
            };
            ((taken > 0).then_some(message), upto)
        };
        let Some(message) = message else {
            told = upto.max(told);
            drop(gossip);
            // Aborted when nobody gossips any more.
            changed.wait_for(|last| last > told).await;
            clock.sleep(GATHER_TIME).await;
            continue;
        };
        let call = gossip.peers.call_within(node, Lane::Control, service::GOSSIP, message, ANSWER_TIME_MAX);
        drop(gossip);
        match call.await {
            Ok(_) => told = upto,
            Err(error) => {
                tracing::debug!(%node, %error, "a peer did not take claims");
                clock.sleep(RETRY_PAUSE).await;
            }
        }
    }
}

impl fmt::Debug for Gossip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gossip").field("claims", &self.inner.table.borrow().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ouzel_model::{LeaderEpoch, PartitionIndex, ReplicaId, TopicId};

    pub(super) fn group(number: i32) -> TopicIdPartition {
        TopicIdPartition { topic_id: TopicId([1; 16]), partition: PartitionIndex(number) }
    }

    pub(super) fn claim(number: i32, epoch: i32, sequence: u64, leader: i32) -> Claim {
        let replica = |node| ReplicaId::first(NodeId(node));
        Claim {
            group: group(number),
            epoch: LeaderEpoch(epoch),
            sequence,
            leader: replica(leader),
            in_sync: vec![replica(0), replica(1), replica(2)],
            voters: vec![replica(0), replica(1), replica(2)],
            learners: Vec::new(),
        }
    }
}
