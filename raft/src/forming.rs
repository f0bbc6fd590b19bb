//! How nodes come to belong to one cluster. Pure: time is an argument, and what others say comes in as answers.
//!
//! A node whose disk names a cluster belongs to it, and nothing here asks again. A *newborn* node, one with an empty
//! disk, asks the seeds it was given, over and over:
//!
//! * One that belongs to a cluster answers with its card: the newborn joins that cluster. One answer is enough, so a
//!   seed list may be out of date, and a node that is not in it joins as any other.
//! * Only the first seed of the list founds, and only once *every* seed has answered that it is newborn as well, with
//!   the same list. So a wiped seed never founds a second cluster while one of the others is out of reach: it waits.
//! * A node without seeds founds alone, at once; later ones name it as their only seed.
//!
//! What keeps two clusters apart when disks are wiped, processes start again, and messages are late. No clock is needed
//! for it, and the model in the tests finds two clusters if any of these is left out:
//!
//! * The founder asks twice. All questions of the second round are asked after the last answer of the first has come,
//!   and the same process must answer in both. A process that is newborn twice was so all the while: between the rounds
//!   there was a moment at which no seed belonged to anything, neither on its disk nor in its mind.
//! * A newborn that tells a possible founder so forgets the questions it has out. What comes back to them may be older
//!   than that moment: the word of a cluster that has been wiped since.
//! * A newborn that has heard of a cluster it may join says so from that moment, before its disk does.
//!
//! Where all seeds were wiped, nobody is left among them who could know. But members of a cluster go on calling one that
//! was wiped: a newborn that is called by a member asks it too. That is why even the first of the list listens for a
//! moment ([`LISTEN_FIRST`]) before it founds.
//!
//! Reading order: this file (what is decided), [`card`] (what is kept and sent), [`discovery`] (who asks and answers).

pub mod card;
pub mod discovery;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ouzel_model::{NodeId, TopicId};
use ouzel_runtime::clock::Instant;

pub use card::{ClusterCard, Founder, Known};
pub use discovery::{Discovery, Formed};

/// A seed listens for this long before it founds, so that members of a cluster that lives can be heard: they call each
/// of their number several times a second.
pub const LISTEN_FIRST: Duration = Duration::from_secs(1);

/// What a newborn does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Found a cluster with these nodes, itself among them, in the order of the seeds.
    Found(Vec<Founder>),
    /// Join a cluster.
    Join(ClusterCard),
    /// Ask again. The reason is for people, and may be a mistake that only they can mend.
    Wait(Wait),
}

/// Why a newborn waits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wait {
    /// This node has just started.
    #[error("asking the seeds")]
    Young,
    /// A seed has not answered.
    #[error(
        "seed {seed} does not answer ({why}); all seeds must, to found a cluster, or one that belongs to it, to join"
    )]
    Silent {
        /// Which.
        seed: String,
        /// What became of the last question.
        why: String,
    },
    /// Every seed has answered, and is asked once more.
    #[error("all seeds are new; asking them once more before founding")]
    AskingAgain,
    /// All is well; another one founds.
    #[error("seed {0}, the first of the list, founds the cluster in a moment")]
    ForFirst(String),
    /// This node is none of the seeds, and they have not founded yet.
    #[error("none of the seeds {0} belongs to a cluster yet")]
    ForSeeds(String),
    /// Founding nodes were given different lists.
    #[error(
        "seed {seed} was given the seeds {theirs}, this node {own}; write the same list, in the same order, on all of them"
    )]
    ListsDiffer {
        /// Who has the other list.
        seed: String,
        /// That list.
        theirs: String,
        /// The list here.
        own: String,
    },
    /// Two nodes under one id.
    #[error(
        "the nodes at {one} and {other} both have node id {node}; start one of them with another --node-id"
    )]
    SameNodeId {
        /// One.
        one: String,
        /// The other.
        other: String,
        /// Their id.
        node: NodeId,
    },
    /// Two addresses of one node.
    #[error("seeds {one} and {other} are one node; write each node once")]
    SameNode {
        /// One.
        one: String,
        /// The other.
        other: String,
    },
    /// Seeds of several clusters.
    #[error(
        "{one} belongs to cluster {one_cluster}, {other} to cluster {other_cluster}; write the seeds of one cluster"
    )]
    SeveralClusters {
        /// Who.
        one: String,
        /// Its cluster.
        one_cluster: String,
        /// Who else.
        other: String,
        /// Its cluster.
        other_cluster: String,
    },
}

impl Wait {
    /// Whether waiting will not help: somebody must change what the nodes were told.
    pub fn is_mistake(&self) -> bool {
        use Wait::*;
        matches!(self, ListsDiffer { .. } | SameNodeId { .. } | SameNode { .. } | SeveralClusters { .. })
    }
}

/// A question on its way: what [`Forming::answered`] needs to know of it.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    generation: u64,
    round: u64,
}

/// Who answers a question, as its handshake says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// Node, directory and address.
    pub founder: Founder,
    /// Its process.
    pub process_id: u64,
}

/// What a newborn node knows.
#[derive(Clone, Debug)]
pub struct Forming {
    own: Founder,
    seeds: Vec<String>,
    started: Instant,
    /// Members that called this node, to be asked like seeds.
    callers: BTreeSet<String>,
    answers: BTreeMap<String, Answered>,
    failures: BTreeMap<String, String>,
    /// Raised when a possible founder was told that this node is newborn.
    generation: u64,
    /// Raised when all seeds have answered that they are newborn.
    round: u64,
    /// Who answered in the round before.
    round_before: Option<Vec<(TopicId, u64)>>,
    joining: Option<ClusterCard>,
    #[cfg(test)]
    broken: Option<Rule>,
}

/// What keeps two clusters apart; see the module's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Founding takes two rounds of questions.
    AsksTwice,
    /// Of the same processes.
    AsksTheSame,
    /// Who told a possible founder that it is newborn forgets what it asked before.
    ForgetsWhenAsked,
    /// Who has heard of its cluster says so at once.
    SaysWhatItJoins,
}

#[derive(Clone, Debug)]
struct Answered {
    round: u64,
    who: Speaker,
    known: Known,
}

/// More callers than these need not be asked: all of them name the same cluster.
const CALLERS_MAX: usize = 8;

impl Forming {
    /// A newborn that starts now; `own` says who it is and where it listens.
    pub fn new(own: Founder, seeds: Vec<String>, now: Instant) -> Forming {
        Forming {
            own,
            seeds,
            started: now,
            callers: BTreeSet::new(),
            answers: BTreeMap::new(),
            failures: BTreeMap::new(),
            generation: 0,
            round: 0,
            round_before: None,
            joining: None,
            #[cfg(test)]
            broken: None,
        }
    }

    /// The seeds it was given.
    pub fn seeds(&self) -> &[String] {
        &self.seeds
    }

    /// The addresses to ask: the other seeds, and members that called.
    pub fn to_ask(&self) -> Vec<String> {
        let seeds = self.seeds.iter().filter(|seed| **seed != self.own.rpc_address);
        seeds.chain(self.callers.iter().filter(|caller| !self.seeds.contains(caller))).cloned().collect()
    }

    /// Says that a question is asked now.
    pub fn ask(&self) -> Asked {
        Asked { generation: self.generation, round: self.round }
    }

    /// Answers a question of a node that was given `seeds`.
    pub fn answer(&mut self, seeds: &[String]) -> Known {
        if self.keeps(Rule::SaysWhatItJoins) {
            // What has been heard counts, whether or not it has been decided upon.
            if self.joining.is_none() {
                self.joining = self.cluster().ok().flatten().cloned();
            }
            if let Some(card) = &self.joining {
                return Known::Belongs(card.clone());
            }
        }
        // Whoever has the same list may be its first, and found by this answer.
        if self.keeps(Rule::ForgetsWhenAsked) && seeds == self.seeds {
            self.generation += 1;
            self.answers.retain(|_, answer| matches!(answer.known, Known::Newborn { .. }));
        }
        Known::Newborn { seeds: self.seeds.clone() }
    }

    /// Takes in what the node at `address` answered.
    pub fn answered(&mut self, address: &str, asked: Asked, who: Speaker, known: Known) {
        if asked.generation != self.generation && matches!(known, Known::Belongs(_)) {
            self.failures
                .insert(address.to_owned(), "its answer may be out of date, it is asked again".to_owned());
            return;
        }
        self.failures.remove(address);
        self.answers.insert(address.to_owned(), Answered { round: asked.round, who, known });
    }

    /// Takes in that the node at `address` did not answer.
    pub fn failed(&mut self, address: &str, why: String) {
        // What it said before, it may have said in another life.
        self.answers.remove(address);
        self.failures.insert(address.to_owned(), why);
    }

    /// A member of some cluster, which listens at `address`, tried to call this node as one of its own.
    pub fn called_by(&mut self, address: &str) {
        if self.callers.len() < CALLERS_MAX && !address.is_empty() && address != self.own.rpc_address {
            self.callers.insert(address.to_owned());
        }
    }

    /// Decides. Once this says to join, it says so for ever, and so do the answers to others.
    pub fn decide(&mut self, now: Instant) -> Decision {
        if let Some(card) = &self.joining {
            return Decision::Join(card.clone());
        }
        match self.judge(now) {
            Ok(decision) => {
                if let Decision::Join(card) = &decision {
                    self.joining = Some(card.clone());
                }
                decision
            }
            Err(wait) => Decision::Wait(wait),
        }
    }

    fn judge(&mut self, now: Instant) -> Result<Decision, Wait> {
        if let Some(card) = self.cluster()? {
            return Ok(Decision::Join(card.clone()));
        }
        if self.seeds.is_empty() {
            return Ok(Decision::Found(vec![self.own.clone()]));
        }
        let list = || self.seeds.join(",");
        let mut founders: Vec<Founder> = Vec::new();
        for seed in &self.seeds {
            let answer = self.answers.get(seed).map(|answer| (&answer.who.founder, &answer.known));
            let (who, known) = match answer {
                // Its own address need not be reached from here.
                None if *seed == self.own.rpc_address => (&self.own, None),
                None => return Err(self.silence(seed)),
                Some((who, _)) if who.directory_id == self.own.directory_id => (&self.own, None),
                Some((who, known)) => (who, Some(known)),
            };
            if let Some(Known::Newborn { seeds: theirs }) = known
                && *theirs != self.seeds
                // Whoever joins may have been given any list; who founds may not.
                && self.is_seed()
            {
                let theirs = theirs.join(",");
                return Err(Wait::ListsDiffer { seed: seed.clone(), theirs, own: list() });
            }
            let same_node = founders.iter().position(|other| other.directory_id == who.directory_id);
            if let Some(at) = same_node {
                return Err(Wait::SameNode { one: self.seeds[at].clone(), other: seed.clone() });
            }
            let same_id = founders.iter().position(|other| other.node == who.node);
            if let Some(at) = same_id {
                let (one, other) = (self.seeds[at].clone(), seed.clone());
                return Err(Wait::SameNodeId { one, other, node: who.node });
            }
            founders.push(Founder { rpc_address: seed.clone(), ..who.clone() });
        }
        match founders.iter().position(|founder| founder.directory_id == self.own.directory_id) {
            None if founders.iter().any(|founder| founder.node == self.own.node) => {
                let at = founders.iter().position(|founder| founder.node == self.own.node).unwrap_or(0);
                let (one, other) = (self.seeds[at].clone(), self.own.rpc_address.clone());
                Err(Wait::SameNodeId { one, other, node: self.own.node })
            }
            None => Err(Wait::ForSeeds(list())),
            Some(0) => self.found(founders, now),
            Some(_) => Err(Wait::ForFirst(self.seeds[0].clone())),
        }
    }

    /// All seeds have answered that they are newborn, and this node is the first of them.
    fn found(&mut self, founders: Vec<Founder>, now: Instant) -> Result<Decision, Wait> {
        let is_own = |who: &Speaker| who.founder.directory_id == self.own.directory_id;
        let others: Vec<&Answered> = self
            .seeds
            .iter()
            .filter_map(|seed| self.answers.get(seed))
            .filter(|answer| !is_own(&answer.who))
            .collect();
        let processes: Vec<(TopicId, u64)> =
            others.iter().map(|answer| (answer.who.founder.directory_id, answer.who.process_id)).collect();
        if !others.is_empty() && self.keeps(Rule::AsksTwice) {
            if others.iter().any(|answer| answer.round < self.round) {
                return Err(Wait::AskingAgain);
            }
            // All have answered questions of this round: it is over, whatever it says.
            self.round += 1;
            let before = self.round_before.replace(processes.clone());
            let same = before.is_some_and(|before| before == processes || !self.keeps(Rule::AsksTheSame));
            if !same {
                return Err(Wait::AskingAgain);
            }
        }
        if now < self.started + LISTEN_FIRST {
            return Err(Wait::Young);
        }
        Ok(Decision::Found(founders))
    }

    /// The one cluster that anybody who answered belongs to.
    fn cluster(&self) -> Result<Option<&ClusterCard>, Wait> {
        let mut found: Option<(&String, &ClusterCard)> = None;
        for (address, answer) in &self.answers {
            let Known::Belongs(card) = &answer.known else { continue };
            match found {
                Some((one, known)) if known.cluster_id != card.cluster_id => {
                    return Err(Wait::SeveralClusters {
                        one: one.clone(),
                        one_cluster: known.cluster_id.clone(),
                        other: address.clone(),
                        other_cluster: card.cluster_id.clone(),
                    });
                }
                _ => found = Some((address, card)),
            }
        }
        Ok(found.map(|(_, card)| card))
    }

    /// Whether this node is known to be one of the seeds.
    fn is_seed(&self) -> bool {
        self.seeds.iter().any(|seed| {
            *seed == self.own.rpc_address
                || self
                    .answers
                    .get(seed)
                    .is_some_and(|answer| answer.who.founder.directory_id == self.own.directory_id)
        })
    }

    /// Whether a rule is kept. It is, but in a model that must be shown to notice that it is not.
    fn keeps(&self, rule: Rule) -> bool {
        #[cfg(test)]
        return self.broken != Some(rule);
        #[cfg(not(test))]
        {
            let _ = rule;
            true
        }
    }

    fn silence(&self, seed: &str) -> Wait {
        match self.failures.get(seed) {
            Some(why) => Wait::Silent { seed: seed.to_owned(), why: why.clone() },
            None => Wait::Young,
        }
    }
}

#[cfg(test)]
#[path = "forming/model_test.rs"]
mod model;
#[cfg(test)]
#[path = "forming/scenarios_test.rs"]
mod scenarios;
