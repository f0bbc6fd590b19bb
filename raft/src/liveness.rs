//! Which nodes are there, and which groups need a leader: one service for each node, so that ten thousand idle groups
//! need not ask each other all the time.
//!
//! Every peer is asked ten times a second over the control lane. [`Judge`] (pure) says from the answers who is up and
//! who is down; [`ElectionScheduler`] (pure) says from that, and from what each group knows of its leader, which groups
//! start an election now, and which are looked after all the same because a group may be stuck behind a node that is
//! well. Safety is Raft's alone: whatever is decided here, no group ever has two leaders in one epoch by it.
//!
//! Reading order: [`judge`], [`elections`], here what asks, [`elector`] (what carries elections out on each core).

pub mod elections;
pub mod elector;
pub mod judge;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::{Rc, Weak};

use ouzel_model::NodeId;
use ouzel_runtime::{JoinHandle, Runtime};

use crate::peers::{LinkEvent, Peers, service};
use crate::transport::{CallError, Lane, PeerMessage};

pub use elections::{Due, ElectionConfig, ElectionScheduler, GroupWatch};
pub use elector::Elector;
pub use judge::{Cause, Change, Judge, LivenessConfig, Standing};

/// Whoever acts on changes: called on the core that asks, once the connections of that core have been told.
pub type ChangeObserver = Rc<dyn Fn(Change)>;

/// Asks peers, and tells who is up and who is down. Runs on one core of a node; clones share it, and the asking ends
/// with the last one.
#[derive(Clone)]
pub struct Liveness {
    inner: Rc<Inner>,
}

struct Inner {
    runtime: Runtime,
    peers: Peers,
    config: LivenessConfig,
    judge: RefCell<Judge>,
    asking: RefCell<BTreeMap<NodeId, JoinHandle<()>>>,
    ticking: Cell<Option<JoinHandle<()>>>,
    observer: ChangeObserver,
}

impl Liveness {
    /// Starts asking the peers that are told by [`Liveness::watch`].
    pub fn start(
        runtime: Runtime,
        peers: Peers,
        config: LivenessConfig,
        observer: ChangeObserver,
    ) -> Liveness {
        let inner = Rc::new(Inner {
            runtime,
            peers: peers.clone(),
            judge: RefCell::new(Judge::new(config.clone())),
            config,
            asking: RefCell::default(),
            ticking: Cell::default(),
            observer,
        });
        let weak = Rc::downgrade(&inner);
        peers.observe(Rc::new(move |node, lane, event| {
            if let Some(inner) = weak.upgrade()
                && lane == Lane::Control
                && event == LinkEvent::NobodyListens
            {
                let changes = inner.judge.borrow_mut().nobody_listens(node, inner.runtime.clock.now());
                inner.act(changes);
            }
        }));
        inner.ticking.set(Some(ouzel_runtime::spawn(tick(Rc::downgrade(&inner)))));
        Liveness { inner }
    }

    /// Begins to ask a peer whose address is known. Asking twice is asking once.
    pub fn watch(&self, node: NodeId) {
        self.inner.judge.borrow_mut().watch(node, self.inner.runtime.clock.now());
        let ask = || ouzel_runtime::spawn(ask(Rc::downgrade(&self.inner), node));
        self.inner.asking.borrow_mut().entry(node).or_insert_with(ask);
    }

    /// Ends asking a node that is no peer any more.
    pub fn unwatch(&self, node: NodeId) {
        self.inner.judge.borrow_mut().unwatch(node);
        if let Some(asking) = self.inner.asking.borrow_mut().remove(&node) {
            asking.abort();
        }
    }

    /// What a peer is taken for at this moment.
    pub fn standing(&self, node: NodeId) -> Standing {
        self.inner.judge.borrow().standing(node)
    }

    /// What all watched peers are taken for.
    pub fn standings(&self) -> Vec<(NodeId, Standing)> {
        self.inner.judge.borrow().standings().collect()
    }
}

impl Inner {
    fn act(&self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Up(node) => {
                    tracing::info!(%node, "a peer is up");
                    self.peers.peer_up(node);
                }
                Change::Down(node, cause) => {
                    tracing::warn!(%node, %cause, "a peer is down");
                    // The connection that was just welcomed is the new process's.
                    if cause != Cause::Restarted {
                        self.peers.peer_down(node, "the peer is down");
                    }
                }
            }
            (self.observer)(change);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.asking.take().values().for_each(JoinHandle::abort);
        if let Some(ticking) = self.ticking.take() {
            ticking.abort();
        }
    }
}

async fn tick(inner: Weak<Inner>) {
    loop {
        let Some(liveness) = inner.upgrade() else { return };
        let clock = liveness.runtime.clock.clone();
        let changes = liveness.judge.borrow_mut().tick(clock.now());
        liveness.act(changes);
        let interval = liveness.config.ping_interval;
        drop(liveness);
        clock.sleep(interval).await;
    }
}

async fn ask(inner: Weak<Inner>, node: NodeId) {
    loop {
        let Some(liveness) = inner.upgrade() else { return };
        let (clock, interval) = (liveness.runtime.clock.clone(), liveness.config.ping_interval);
        let asked = clock.now();
        let limit = liveness.config.down_after;
        let peers = &liveness.peers;
        let call = peers.call_within(node, Lane::Control, service::PING, PeerMessage::default(), limit);
        drop(liveness);
        let answer = call.await;
        let Some(liveness) = inner.upgrade() else { return };
        let was_up = liveness.judge.borrow().standing(node) == Standing::Up;
        if answer.is_ok()
            && let Some(process_id) = liveness.peers.process_of(node)
        {
            let changes = liveness.judge.borrow_mut().answered(node, process_id, clock.now());
            liveness.act(changes);
        }
        drop(liveness);
        // A peer that was just lost is looked for eagerly: either it is back, or it is soon known to be gone.
        let pause = match answer {
            Err(CallError::Unreachable(_)) if was_up => interval / 4,
            _ => interval,
        };
        clock.sleep_until(asked + pause).await;
    }
}

impl fmt::Debug for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Liveness").field("judge", &self.inner.judge.borrow()).finish()
    }
}
