//! Brokers that are one cluster, of one or of several: started together, disturbed one at a time, and asked whether the
//! whole of it is well again.

mod view;

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::view::View;
use crate::broker_process::{Against, BrokerProcess};

/// How long a cluster may take to be whole after a start or a restart; JVMs share two cores.
const WHOLE_LONGEST: Duration = Duration::from_secs(150);
const POLL_EVERY: Duration = Duration::from_millis(100);
/// Where the time until something holds is a figure.
const WATCH_EVERY: Duration = Duration::from_millis(5);

/// A partition that was just made, or that a client moves, lacks something for a moment: only what lacks it at so many looks in a
/// row keeps a cluster from being whole.
const LOOKS: usize = 10;

/// What is in all of the looks.
fn lasting(looks: &VecDeque<BTreeSet<String>>) -> BTreeSet<String> {
    let mut looks = looks.iter();
    let first = looks.next().cloned().unwrap_or_default();
    looks.fold(first, |lasting, look| &lasting & look)
}

/// How a broker is taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Down {
    /// SIGKILL.
    Killed,
    /// SIGTERM, and its end awaited.
    Stopped,
    /// SIGSTOP: its connections stay, and nothing comes over them any more, as when a machine's power or network goes.
    Frozen,
}

/// What came of taking a node down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TakenDown {
    /// Which; from 1.
    pub(crate) node: i32,
    /// Partitions that it led, as another node told.
    pub(crate) led: usize,
    /// From its signal until each of the others told of another leader for all of them.
    pub(crate) others_lead_after: Duration,
}

/// All nodes of one cluster; node ids count from 1.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<BrokerProcess>,
    /// Whose turn it is to be disturbed.
    next: usize,
}

impl Cluster {
    /// Where `count` brokers keep what is theirs: one in `folder` itself, several in a folder each below it.
    pub(crate) fn folders(folder: &Path, count: usize) -> Vec<PathBuf> {
        match count {
            1 => vec![folder.to_path_buf()],
            _ => (1..=count).map(|id| folder.join(format!("node-{id}"))).collect(),
        }
    }

    /// Gets `count` brokers ready to start, in the folders below this one.
    pub(crate) fn prepare(
        root: &Path,
        against: Against,
        folder: &Path,
        count: usize,
        settings: &[(&str, &str)],
        flags: &[&str],
    ) -> Result<Cluster, String> {
        let folders = Cluster::folders(folder, count);
        Ok(Cluster::of(BrokerProcess::prepare_cluster(root, against, &folders, settings, flags)?))
    }

    /// Brokers that are ready to start already, as one cluster.
    pub(crate) fn of(nodes: Vec<BrokerProcess>) -> Cluster {
        Cluster { nodes, next: 0 }
    }

    /// The processes of the nodes that were started and not taken down.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(BrokerProcess::pid).collect()
    }

    /// Where the nodes tell their metrics, those that do.
    pub(crate) fn admin_ports(&self) -> Vec<u16> {
        self.nodes.iter().filter_map(BrokerProcess::admin_port).collect()
    }

    /// The end of each broker's log, for messages.
    pub(crate) fn last_words(&self) -> String {
        self.nodes.iter().map(BrokerProcess::last_words).collect::<Vec<_>>().join("\n")
    }

    /// `host:port,...` for a client's bootstrap list.
    pub(crate) fn bootstrap(&self) -> String {
        self.nodes.iter().map(BrokerProcess::bootstrap).collect::<Vec<_>>().join(",")
    }

    /// One node's port.
    pub(crate) fn port(&self) -> u16 {
        self.nodes[0].kafka_port()
    }

    /// One node's `host:port`.
    pub(crate) fn address(&self) -> String {
        self.nodes[0].bootstrap()
    }

    pub(crate) fn data_dirs(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(BrokerProcess::data_dir).collect()
    }

    /// Whether every node's process runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.nodes.iter_mut().all(BrokerProcess::is_running)
    }

    /// Starts all nodes and waits until the cluster is whole; how long that took.
    pub(crate) fn start(&mut self) -> Result<Duration, String> {
        let began = Instant::now();
        let launched = self.nodes.iter_mut().map(BrokerProcess::launch).collect::<Result<Vec<_>, _>>()?;
        for (node, launched) in self.nodes.iter_mut().zip(launched) {
            node.await_serving(launched)?;
        }
        self.await_whole()?;
        Ok(began.elapsed())
    }

    /// Takes the next node down, in turn, waits until the others lead all that it led, starts it again and waits until
    /// the cluster is whole. Which one it was, and how long it took to serve again. A cluster of one only restarts.
    pub(crate) fn restart_next(&mut self, down: Down) -> Result<(usize, Duration), String> {
        let node = self.take_down_next(down)?.node;
        Ok((node as usize, self.bring_back(node)?))
    }

    /// Takes the next node down, in turn, and waits until the others lead all that it led, if there are others.
    pub(crate) fn take_down_next(&mut self, down: Down) -> Result<TakenDown, String> {
        let index = self.next % self.nodes.len();
        let node = index as i32 + 1;
        self.next += 1;
        let mut led = 0;
        if self.nodes.len() > 1 {
            let other = &self.nodes[self.next % self.nodes.len()];
            led = View::of(other.kafka_port())?.led_by(node);
        }
        let began = Instant::now();
        match down {
            Down::Killed => self.nodes[index].kill(),
            Down::Stopped => self.nodes[index].stop()?,
            Down::Frozen => self.nodes[index].freeze()?,
        }
        if self.nodes.len() > 1 {
            let what = "the others lead what the node led";
            let led = self.await_view_every(WATCH_EVERY, what, |view| view.is_led_without(node));
            // Whoever goes on after a failure is not to find a node less.
            if let Err(reason) = led {
                return Err(match self.nodes[index].revive() {
                    Ok(_) => reason,
                    Err(worse) => format!("{reason}; and the node does not come back: {worse}"),
                });
            }
        }
        Ok(TakenDown { node, led, others_lead_after: began.elapsed() })
    }

    /// Starts a node that was taken down, and waits until the cluster is whole. How long it took to serve.
    pub(crate) fn bring_back(&mut self, node: i32) -> Result<Duration, String> {
        let took = self.nodes[node as usize - 1].revive()?;
        self.await_whole()?;
        Ok(took)
    }

    /// Waits until every node knows so many partitions, with a leader and all replicas in sync each.
    pub(crate) fn await_partitions(&self, count: usize) -> Result<(), String> {
        self.await_view("all partitions are led", |view| match view.partition_count() {
            known if known < count => Err(format!("{known} of {count} partitions are known")),
            _ => view.is_whole(self.nodes.len()),
        })
    }

    /// Stops all nodes in order, each of which may need the others for that.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        self.nodes.iter_mut().for_each(BrokerProcess::terminate);
        let ends: Vec<Result<(), String>> = self.nodes.iter_mut().map(BrokerProcess::await_end).collect();
        ends.into_iter().collect()
    }

    /// Waits until every node knows all nodes, and every partition has its leader and all its replicas in sync, as far as that
    /// can be seen while clients make topics.
    fn await_whole(&self) -> Result<(), String> {
        // One node serves alone as soon as it is ready.
        if self.nodes.len() == 1 {
            return Ok(());
        }
        let began = Instant::now();
        let mut looks = VecDeque::new();
        loop {
            let reason = match self.lacking() {
                Ok(lacking) if lacking.is_empty() => return Ok(()),
                Ok(lacking) => {
                    looks.push_back(lacking);
                    let lasting = lasting(&looks);
                    if looks.len() == LOOKS {
                        if lasting.is_empty() {
                            return Ok(());
                        }
                        looks.pop_front();
                    }
                    format!("partitions lack something at each look: {lasting:?}")
                }
                Err(reason) => {
                    looks.clear();
                    reason
                }
            };
            if began.elapsed() > WHOLE_LONGEST {
                return Err(format!("waited {WHOLE_LONGEST:?} in vain until the cluster is whole: {reason}"));
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// What each node says lacks a leader or replicas in sync.
    fn lacking(&self) -> Result<BTreeSet<String>, String> {
        let mut lacking = BTreeSet::new();
        for node in self.nodes.iter().filter(|node| node.was_started()) {
            let said = |reason: String| format!("{}: {reason}", node.bootstrap());
            let view = View::of(node.kafka_port()).map_err(said)?;
            view.knows(self.nodes.len()).map_err(said)?;
            lacking.extend(view.lacking().map(said));
        }
        Ok(lacking)
    }

    fn await_view(&self, what: &str, is: impl Fn(&View) -> Result<(), String>) -> Result<(), String> {
        self.await_view_every(POLL_EVERY, what, is)
    }

    /// Waits until what every node says of the cluster is as it is to be. A node that is down says nothing.
    fn await_view_every(
        &self,
        pause: Duration,
        what: &str,
        is: impl Fn(&View) -> Result<(), String>,
    ) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let judged = self.nodes.iter().filter(|node| node.answers()).map(|node| {
                View::of(node.kafka_port())
                    .and_then(|view| is(&view))
                    .map_err(|reason| format!("{}: {reason}", node.bootstrap()))
            });
            match judged.collect::<Result<(), String>>() {
                Ok(()) => return Ok(()),
                Err(reason) if began.elapsed() > WHOLE_LONGEST => {
                    return Err(format!("waited {WHOLE_LONGEST:?} in vain until {what}: {reason}"));
                }
                Err(_) => std::thread::sleep(pause),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows that make topics all the time had some partition without its followers at every look, another one each time; the
    /// restarts waited for a moment without any, and gave up.
    #[test]
    fn what_lacks_something_for_a_moment_does_not_last() {
        let look = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let looks = VecDeque::from([look(&["a", "new-1"]), look(&["a", "new-2"]), look(&["a"])]);
        assert_eq!(lasting(&looks), look(&["a"]));
        let looks = VecDeque::from([look(&["a", "new-1"]), look(&["new-2"])]);
        assert_eq!(lasting(&looks), look(&[]));
    }
}
