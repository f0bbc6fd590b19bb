//! Whether a peer is up: judged from what is heard of it and when. Pure: time is an argument.
//!
//! ```text
//!               answered                   silent, or gone
//!   Unknown ───────────────► Up ───────────────────────────────► Down
//!      │                      ▲                                   │
//!      │ silent, or gone      └──── answered; after several falls │
//!      └──────────────────────────  steadily, for ever longer ────┘
//! ```
//!
//! Up means that a question was answered: both ways work. A node that only hears a peer, in a partition that swallows
//! one direction, counts it as down, and so does the peer: both sides of a connection judge alike.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use ouzel_model::NodeId;
use ouzel_runtime::clock::Instant;

/// When a peer counts as down, and when as up again.
#[derive(Clone, Debug)]
pub struct LivenessConfig {
    /// A peer is asked this often.
    pub ping_interval: Duration,
    /// A peer that was up is down after this much silence.
    pub down_after: Duration,
    /// Refused connections in a row, without an answer between them, that mean the process is gone.
    pub refused_max: u32,
    /// Falls are remembered for this long.
    pub flap_window: Duration,
    /// After a second fall within the window a peer must answer steadily for this long to count as up again, after a
    /// third for twice as long, and so on.
    pub steady_min: Duration,
    /// The longest such time.
    pub steady_max: Duration,
}

impl Default for LivenessConfig {
    fn default() -> LivenessConfig {
        LivenessConfig {
            ping_interval: Duration::from_millis(100),
            down_after: Duration::from_millis(600),
            refused_max: 2,
            flap_window: Duration::from_secs(60),
            steady_min: Duration::from_millis(400),
            steady_max: Duration::from_secs(5),
        }
    }
}

/// What a peer is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not heard yet, and not given up.
    Unknown,
    /// It answers.
    Up,
    /// It does not, or not steadily.
    Down,
}

/// A change of a peer's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It answers now.
    Up(NodeId),
    /// It does not any more.
    Down(NodeId, Cause),
}

/// Why a peer counts as down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It did not answer in time.
    Silent,
    /// Its machine answers, but nobody listens there.
    Gone,
    /// Another process answers in its place: what the former one led, it does not lead. Comes right before the change
    /// that says it is up, also when it was down already.
    Restarted,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Silent => "it does not answer",
            Cause::Gone => "nobody listens there",
            Cause::Restarted => "it was restarted",
        })
    }
}

/// Judges all peers of a node.
#[derive(Debug)]
pub struct Judge {
    config: LivenessConfig,
    peers: BTreeMap<NodeId, Watched>,
    last_tick: Option<Instant>,
}

#[derive(Debug)]
struct Watched {
    standing: Standing,
    /// The last answer; before the first, when watching began.
    heard: Instant,
    process_id: Option<u64>,
    /// Another process answers than when it was last up.
    is_restarted: bool,
    refused: u32,
    /// Of a peer that is down: since when it has answered without a gap.
    steady_since: Option<Instant>,
    /// When it fell, within the window.
    falls: VecDeque<Instant>,
    /// A pause of this node's own has been taken into account since the last answer.
    is_forgiven: bool,
}

/// More falls than these make no difference.
const FALLS_MAX: usize = 16;
/// This node itself did not run if its ticks are further apart than this many intervals.
const OWN_PAUSE_INTERVALS: u32 = 3;

impl Judge {
    /// A judge of no peers.
    pub fn new(config: LivenessConfig) -> Judge {
        Judge { config, peers: BTreeMap::new(), last_tick: None }
    }

    /// Begins to watch a peer; one that is watched already stays as it is.
    pub fn watch(&mut self, node: NodeId, now: Instant) {
        self.peers.entry(node).or_insert_with(|| Watched {
            standing: Standing::Unknown,
            heard: now,
            process_id: None,
            is_restarted: false,
            refused: 0,
            steady_since: None,
            falls: VecDeque::new(),
            is_forgiven: false,
        });
    }

    /// Forgets a peer.
    pub fn unwatch(&mut self, node: NodeId) {
        self.peers.remove(&node);
    }

    /// What a node is taken for; unknown if it is not watched.
    pub fn standing(&self, node: NodeId) -> Standing {
        self.peers.get(&node).map_or(Standing::Unknown, |peer| peer.standing)
    }

    /// Peers by what they are taken for.
    pub fn standings(&self) -> impl Iterator<Item = (NodeId, Standing)> {
        self.peers.iter().map(|(node, peer)| (*node, peer.standing))
    }

    /// A peer answered, as the process it is.
    pub fn answered(&mut self, node: NodeId, process_id: u64, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let config = &self.config;
        let Some(peer) = self.peers.get_mut(&node) else { return changes };
        if peer.process_id.replace(process_id).is_some_and(|before| before != process_id) {
            peer.is_restarted = true;
        }
        let gap = now.saturating_duration_since(peer.heard);
        peer.heard = now;
        peer.refused = 0;
        peer.is_forgiven = false;
        if peer.is_restarted && peer.standing == Standing::Up {
            peer.fall(now, config);
        }
        if peer.standing == Standing::Up {
            return changes;
        }
        if gap > config.ping_interval * OWN_PAUSE_INTERVALS {
            peer.steady_since = None;
        }
        let steady_since = *peer.steady_since.get_or_insert(now);
        if peer.standing == Standing::Unknown || now >= steady_since + peer.steady_time(config, now) {
            peer.standing = Standing::Up;
            if std::mem::take(&mut peer.is_restarted) {
                changes.push(Change::Down(node, Cause::Restarted));
            }
            changes.push(Change::Up(node));
        }
        changes
    }

    /// Nobody listens at a peer's address.
    pub fn nobody_listens(&mut self, node: NodeId, now: Instant) -> Vec<Change> {
        let config = &self.config;
        let Some(peer) = self.peers.get_mut(&node) else { return Vec::new() };
        peer.refused = peer.refused.saturating_add(1);
        peer.steady_since = None;
        if peer.standing == Standing::Down || peer.refused < config.refused_max {
            return Vec::new();
        }
        peer.fall(now, config);
        vec![Change::Down(node, Cause::Gone)]
    }

    /// Judges silence; call it every ping interval.
    pub fn tick(&mut self, now: Instant) -> Vec<Change> {
        let config = &self.config;
        let since_last = self.last_tick.replace(now).map_or(Duration::ZERO, |last| now - last);
        let own_pause = since_last > config.ping_interval * OWN_PAUSE_INTERVALS;
        let mut changes = Vec::new();
        for (node, peer) in &mut self.peers {
            if own_pause && !peer.is_forgiven {
                // It was this node that did not listen: answers may wait to be read. Once per silence, or a node that
                // stumbles would never miss anybody.
                let just_in_time = (now + config.ping_interval * 2).checked_sub(config.down_after);
                peer.heard = peer.heard.max(just_in_time.unwrap_or(peer.heard));
                peer.is_forgiven = true;
            }
            if peer.standing != Standing::Down && now >= peer.heard + config.down_after {
                peer.fall(now, config);
                changes.push(Change::Down(*node, Cause::Silent));
            }
        }
        changes
    }
}

impl Watched {
    fn fall(&mut self, now: Instant, config: &LivenessConfig) {
        // Never having been there is no fall.
        if self.standing == Standing::Up {
            self.forget_falls(now, config);
            self.falls.push_back(now);
            if self.falls.len() > FALLS_MAX {
                self.falls.pop_front();
            }
        }
        self.standing = Standing::Down;
        self.steady_since = None;
    }

    fn forget_falls(&mut self, now: Instant, config: &LivenessConfig) {
        while self.falls.front().is_some_and(|fall| now >= *fall + config.flap_window) {
            self.falls.pop_front();
        }
    }

    fn steady_time(&mut self, config: &LivenessConfig, now: Instant) -> Duration {
        self.forget_falls(now, config);
        match self.falls.len() {
            0 | 1 => Duration::ZERO,
            falls => (config.steady_min * (1 << (falls - 2).min(16))).min(config.steady_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);

    /// Runs a script of lines `MILLISECONDS event -> changes`; ticks every 100 ms come by themselves before each line,
    /// unless it says `asleep`: then none came since the line before.
    fn play(script: &str) {
        ouzel_runtime::sim::run(1, |node| {
            let start = node.runtime().clock.now();
            let script = script.to_owned();
            async move {
                let at = |ms: u64| start + Duration::from_millis(ms);
                let mut judge = Judge::new(LivenessConfig::default());
                judge.watch(PEER, start);
                let mut ticked = 0;
                for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
                    let (event, expected) = line.split_once("->").unwrap_or((line, ""));
                    let mut words = event.split_whitespace();
                    let ms: u64 = words.next().unwrap().parse().unwrap();
                    let what = words.next().unwrap();
                    let mut changes = Vec::new();
                    if what == "asleep" {
                        ticked = ms - ms % 100;
                    }
                    while ticked + 100 <= ms && what != "asleep" {
                        ticked += 100;
                        changes.extend(judge.tick(at(ticked)).into_iter().map(|change| (ticked, change)));
                    }
                    let process = words.next().map_or(7, |word| word.parse().unwrap());
                    let more = match what {
                        "answers" => judge.answered(PEER, process, at(ms)),
                        "refuses" => judge.nobody_listens(PEER, at(ms)),
                        "passes" => Vec::new(),
                        "asleep" => judge.tick(at(ms)),
                        other => panic!("{other}"),
                    };
                    changes.extend(more.into_iter().map(|change| (ms, change)));
                    let said: Vec<_> = changes
                        .into_iter()
                        .map(|(at, change)| match change {
                            Change::Up(PEER) => format!("{at} up"),
                            Change::Down(PEER, cause) => format!("{at} down {cause:?}").to_lowercase(),
                            other => panic!("{other:?}"),
                        })
                        .collect();
                    assert_eq!(said.join(", "), expected.trim(), "in line `{line}`");
                }
            }
        });
    }

    #[test]
    fn an_answer_brings_up_and_silence_down() {
        play(
            "50 answers -> 50 up
             150 answers
             250 answers
             840 passes
             850 passes
             900 passes -> 900 down silent
             3000 passes
             3050 answers -> 3050 up",
        );
    }

    #[test]
    fn a_process_that_is_gone_is_down_before_the_silence_says_so() {
        play(
            "50 answers -> 50 up
             150 refuses
             200 answers
             250 refuses
             300 refuses -> 300 down gone
             400 refuses
             900 refuses
             1000 answers -> 1000 up",
        );
    }

    #[test]
    fn a_peer_never_heard_is_given_up_and_that_is_no_fall() {
        play(
            "500 passes
             600 passes -> 600 down silent
             5000 answers -> 5000 up
             5050 refuses
             5060 refuses -> 5060 down gone
             5100 answers -> 5100 up",
        );
        play(
            "20 refuses
             50 refuses -> 50 down gone
             90 answers -> 90 up",
        );
    }

    #[test]
    fn a_restart_between_two_pings_does_not_go_unseen() {
        play(
            "50 answers 1 -> 50 up
             150 answers 1
             250 answers 2 -> 250 down restarted, 250 up
             350 answers 2",
        );
        play(
            "50 answers 1 -> 50 up
             60 refuses
             70 refuses -> 70 down gone
             150 answers 2 -> 150 down restarted, 150 up",
        );
    }

    #[test]
    fn who_falls_again_and_again_must_be_steady_for_ever_longer() {
        play(
            "10 answers -> 10 up
             20 refuses
             30 refuses -> 30 down gone
             40 answers -> 40 up
             50 refuses
             60 refuses -> 60 down gone
             100 answers
             300 answers
             499 answers
             500 answers -> 500 up
             510 refuses
             520 refuses -> 520 down gone
             600 answers
             1000 answers
             1350 answers
             1600 answers
             1790 answers
             1799 answers
             1900 answers
             2100 answers
             2149 answers
             2150 answers -> 2150 up
             2700 passes
             2800 passes -> 2800 down silent
             62900 answers -> 62900 up",
        );
    }

    /// A node that did not run for two seconds must not take all others for dead; but they do not live for ever by that.
    #[test]
    fn a_pause_of_our_own_is_not_the_peers() {
        play(
            "10 answers -> 10 up
             110 answers
             2310 asleep
             2390 passes
             2400 answers
             2900 passes",
        );
        play(
            "10 answers -> 10 up
             110 answers
             2310 asleep
             2490 passes
             2600 passes -> 2600 down silent",
        );
        play(
            "10 answers -> 10 up
             110 answers
             2310 asleep
             2750 asleep -> 2750 down silent",
        );
    }

    #[test]
    fn strangers_are_not_judged() {
        play("10 passes");
        ouzel_runtime::sim::run(1, |node| async move {
            let now = node.runtime().clock.now();
            let mut judge = Judge::new(LivenessConfig::default());
            assert!(judge.answered(PEER, 1, now).is_empty() && judge.nobody_listens(PEER, now).is_empty());
            judge.watch(PEER, now);
            judge.answered(PEER, 1, now);
            assert_eq!(judge.standing(PEER), Standing::Up);
            judge.unwatch(PEER);
            assert_eq!((judge.standing(PEER), judge.standings().count()), (Standing::Unknown, 0));
        });
    }
}
