//! Asks until this node belongs to a cluster, and answers those that ask, before and after.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use ouzel_model::NodeId;
use ouzel_runtime::{JoinHandle, Runtime};
use tokio::sync::Notify;

use super::card::{
    ClusterCard, Founder, Known, decode_answer, decode_question, encode_answer, encode_question,
};
use super::{Decision, Forming, Speaker, Wait};
use crate::peers::{NodeIdentity, PeerIdentity, PeerService, Peers, ServeResult, service};
use crate::transport::{LocalBoxFuture, PeerMessage};

/// A question is given up after this long.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// Between two questions to one node, at first; each pause is up to twice as long by chance, or nodes that ask each
/// other would make each other forget what they asked for ever.
const ASK_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Later.
const ASK_PAUSE_MAX: Duration = Duration::from_millis(400);
/// How often it is looked whether time alone has decided.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How a newborn came to belong to a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Formed {
    /// It is to found one with these nodes, itself the first of them. It draws the id, writes the card down, flushed,
    /// and then says so with [`Discovery::settle`]: nobody hears of the cluster before.
    Found(Vec<Founder>),
    /// It joins this one; it writes the card down, flushed, then says so with [`Discovery::settle`].
    Join(ClusterCard),
}

/// A node's part in discovery. Clones share it.
#[derive(Clone)]
pub struct Discovery {
    inner: Rc<Inner>,
}

struct Inner {
    runtime: Runtime,
    peers: Peers,
    state: RefCell<State>,
    /// Something was heard: there may be something to decide.
    heard: Notify,
    asking: RefCell<BTreeMap<String, JoinHandle<()>>>,
    waits_for: RefCell<Option<Wait>>,
}

enum State {
    Newborn(Box<Forming>),
    Member(ClusterCard),
}

impl Discovery {
    /// Answers those who ask from now on: with `card`, if the disk has one, else as a newborn that was given `seeds`.
    pub fn start(runtime: Runtime, peers: Peers, seeds: Vec<String>, card: Option<ClusterCard>) -> Discovery {
        let state = match card {
            Some(card) => State::Member(card),
            None => {
                let own = founder(&peers.identity());
                State::Newborn(Box::new(Forming::new(own, seeds, runtime.clock.now())))
            }
        };
        let inner = Rc::new(Inner {
            runtime,
            peers: peers.clone(),
            state: RefCell::new(state),
            heard: Notify::new(),
            asking: RefCell::default(),
            waits_for: RefCell::default(),
        });
        peers.register(service::DISCOVER, Rc::new(Mouth { inner: Rc::downgrade(&inner) }));
        let called = Rc::downgrade(&inner);
        peers.observe_strays(Rc::new(move |caller| {
            if let Some(inner) = called.upgrade()
                && let State::Newborn(forming) = &mut *inner.state.borrow_mut()
            {
                forming.called_by(&caller.rpc_address);
                inner.heard.notify_one();
            }
        }));
        Discovery { inner }
    }

    /// Asks until it is decided how this node comes to belong to a cluster. The peers must be serving.
    ///
    /// # Panics
    /// If it belongs to one already.
    pub async fn form(&self) -> Formed {
        let inner = &self.inner;
        let clock = &inner.runtime.clock;
        loop {
            let decision = match &mut *inner.state.borrow_mut() {
                State::Newborn(forming) => forming.decide(clock.now()),
                State::Member(card) => panic!("it belongs to cluster {}", card.cluster_id),
            };
            match decision {
                Decision::Found(founders) => {
                    inner.stop_asking();
                    return Formed::Found(founders);
                }
                Decision::Join(card) => {
                    inner.stop_asking();
                    return Formed::Join(card);
                }
                Decision::Wait(wait) => inner.note(wait),
            }
            self.ask_all();
            tokio::select! {
                biased;
                () = inner.heard.notified() => {}
                () = clock.sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// The card is on disk: this node is a member of the cluster, and says so.
    ///
    /// # Panics
    /// If it is a member of another one.
    pub fn settle(&self, card: ClusterCard) {
        let mut state = self.inner.state.borrow_mut();
        if let State::Member(known) = &*state {
            assert_eq!(
                known.cluster_id, card.cluster_id,
                "a node belongs to one cluster for as long as it lives"
            );
        }
        *state = State::Member(card);
        drop(state);
        *self.inner.waits_for.borrow_mut() = None;
    }

    /// Tells those who ask who belongs to the cluster and where they listen, as far as is known now.
    pub fn set_members(&self, members: Vec<(NodeId, String)>) {
        if let State::Member(card) = &mut *self.inner.state.borrow_mut() {
            card.members = members;
        }
    }

    /// What a newborn waits for at this moment, in words.
    pub fn waits_for(&self) -> Option<String> {
        self.inner.waits_for.borrow().as_ref().map(Wait::to_string)
    }

    fn ask_all(&self) {
        let to_ask = match &*self.inner.state.borrow() {
            State::Newborn(forming) => forming.to_ask(),
            State::Member(_) => return,
        };
        for address in to_ask {
            let ask = || ouzel_runtime::spawn(ask(Rc::downgrade(&self.inner), address.clone()));
            self.inner.asking.borrow_mut().entry(address.clone()).or_insert_with(ask);
        }
    }
}

/// Asks the seeds of a node whose disk names a cluster once each, and says in words which of them belong to other ones.
pub async fn foreign_seeds(peers: &Peers, own: &str, seeds: &[String]) -> Vec<String> {
    let mut foreign = Vec::new();
    for seed in seeds {
        let answer = peers.discover(seed, encode_question(seeds), ANSWER_TIME_MAX).await;
        if let Ok((_, answer)) = answer
            && let Ok(Known::Belongs(card)) = decode_answer(&answer)
            && card.cluster_id != own
        {
            foreign.push(format!(
                "seed {seed} belongs to cluster {}, but the data directory of this node to cluster {own}; mend the seeds, or \
                 give the node an empty directory to join with",
                card.cluster_id
            ));
        }
    }
    foreign
}

impl Inner {
    fn note(&self, wait: Wait) {
        let mut waits_for = self.waits_for.borrow_mut();
        if waits_for.as_ref() != Some(&wait) {
            match &wait {
                Wait::Young | Wait::AskingAgain => tracing::debug!(%wait, "no cluster yet"),
                _ if wait.is_mistake() => tracing::warn!(%wait, "no cluster yet"),
                _ => tracing::info!(%wait, "no cluster yet"),
            }
            *waits_for = Some(wait);
        }
    }

    fn stop_asking(&self) {
        self.asking.take().values().for_each(JoinHandle::abort);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop_asking();
    }
}

/// Asks one node over and over.
async fn ask(inner: Weak<Inner>, address: String) {
    let mut pause = ASK_PAUSE_MIN;
    loop {
        let Some(discovery) = inner.upgrade() else { return };
        let (asked, question) = match &*discovery.state.borrow() {
            State::Newborn(forming) => (forming.ask(), encode_question(forming.seeds())),
            State::Member(_) => return,
        };
        let (peers, runtime) = (discovery.peers.clone(), discovery.runtime.clone());
        drop(discovery);
        let answer = peers.discover(&address, question, ANSWER_TIME_MAX).await;
        drop(peers);
        let Some(discovery) = inner.upgrade() else { return };
        if let State::Newborn(forming) = &mut *discovery.state.borrow_mut() {
            let heard = answer.map_err(|error| error.to_string()).and_then(|(who, answer)| {
                let known = decode_answer(&answer).map_err(|error| error.to_string())?;
                Ok((Speaker { founder: founder(&who), process_id: who.process_id }, known))
            });
            match heard {
                Ok((who, known)) => forming.answered(&address, asked, who, known),
                Err(why) => forming.failed(&address, why),
            }
        }
        discovery.heard.notify_one();
        drop(discovery);
        let by_chance = runtime.entropy.u64() % pause.as_micros() as u64;
        runtime.clock.sleep(pause + Duration::from_micros(by_chance)).await;
        pause = (pause + pause / 4).min(ASK_PAUSE_MAX);
    }
}

fn founder(identity: &NodeIdentity) -> Founder {
    Founder {
        node: identity.node,
        directory_id: identity.directory_id,
        rpc_address: identity.rpc_address.clone(),
    }
}

struct Mouth {
    inner: Weak<Inner>,
}

impl PeerService for Mouth {
    fn serve(&self, _: &PeerIdentity, _: u8, message: PeerMessage) -> LocalBoxFuture<ServeResult> {
        let answer = decode_question(&message).map_err(|error| format!("not a question: {error}"));
        let answer = answer.and_then(|seeds| {
            let inner = self.inner.upgrade().ok_or("this node is stopping")?;
            let mut state = inner.state.borrow_mut();
            Ok(encode_answer(&match &mut *state {
                State::Newborn(forming) => forming.answer(&seeds),
                State::Member(card) => Known::Belongs(card.clone()),
            }))
        });
        Box::pin(std::future::ready(answer))
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery").field("waits_for", &self.waits_for()).finish()
    }
}
