//! Brokers that are one cluster, of one or of several: started together, disturbed one at a time, and asked whether the
//! whole of it is well again.

mod view;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::view::View;
use crate::broker_process::{Against, BrokerProcess};

/// How long a cluster may take to be whole after a start or a restart; JVMs share two cores.
const WHOLE_LONGEST: Duration = Duration::from_secs(150);
const POLL_EVERY: Duration = Duration::from_millis(100);

/// How a broker is taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Down {
    /// SIGKILL.
    Killed,
    /// SIGTERM, and its end awaited.
    Stopped,
}

/// All nodes of one cluster; node ids count from 1.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<BrokerProcess>,
    /// Whose turn it is to be disturbed.
    next: usize,
}

impl Cluster {
    /// Gets `count` brokers ready to start. One has its data in `folder` itself, several have a folder each below it.
    pub(crate) fn prepare(
        root: &Path,
        against: Against,
        folder: &Path,
        count: usize,
        settings: &[(&str, &str)],
        flags: &[&str],
    ) -> Result<Cluster, String> {
        let folders: Vec<PathBuf> = match count {
            1 => vec![folder.to_path_buf()],
            _ => (1..=count).map(|id| folder.join(format!("node-{id}"))).collect(),
        };
        let nodes = BrokerProcess::prepare_cluster(root, against, &folders, settings, flags)?;
        Ok(Cluster { nodes, next: 0 })
    }

    /// `host:port,...` for a client's bootstrap list.
    pub(crate) fn bootstrap(&self) -> String {
        self.nodes.iter().map(BrokerProcess::bootstrap).collect::<Vec<_>>().join(",")
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

    /// Starts all nodes and waits until the cluster is whole.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        let launched = self.nodes.iter_mut().map(BrokerProcess::launch).collect::<Result<Vec<_>, _>>()?;
        for (node, launched) in self.nodes.iter_mut().zip(launched) {
            node.await_serving(launched)?;
        }
        self.await_whole()
    }

    /// Takes the next node down, in turn, waits until the others lead all that it led, starts it again and waits until
    /// the cluster is whole. Which one it was, and how long it took to serve again. A cluster of one only restarts.
    pub(crate) fn restart_next(&mut self, down: Down) -> Result<(usize, Duration), String> {
        let index = self.next % self.nodes.len();
        self.next += 1;
        match down {
            Down::Killed => self.nodes[index].kill(),
            Down::Stopped => self.nodes[index].stop()?,
        }
        if self.nodes.len() > 1 {
            self.await_view("the others lead what the node led", |view| {
                view.is_led_without(index as i32 + 1)
            })?;
        }
        let took = self.nodes[index].start()?;
        self.await_whole()?;
        Ok((index + 1, took))
    }

    /// Stops all nodes in order, each of which may need the others for that.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        self.nodes.iter().for_each(BrokerProcess::terminate);
        let ends: Vec<Result<(), String>> = self.nodes.iter_mut().map(BrokerProcess::await_end).collect();
        ends.into_iter().collect()
    }

    /// Waits until every node knows all nodes, and every partition has its leader and all its replicas in sync.
    fn await_whole(&self) -> Result<(), String> {
        // One node serves alone as soon as it is ready.
        if self.nodes.len() == 1 {
            return Ok(());
        }
        self.await_view("the cluster is whole", |view| view.is_whole(self.nodes.len()))
    }

    /// Waits until what every node says of the cluster is as it is to be. A node that is down says nothing.
    fn await_view(&self, what: &str, is: impl Fn(&View) -> Result<(), String>) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let judged = self.nodes.iter().filter(|node| node.was_started()).map(|node| {
                View::of(node.kafka_port())
                    .and_then(|view| is(&view))
                    .map_err(|reason| format!("{}: {reason}", node.bootstrap()))
            });
            match judged.collect::<Result<(), String>>() {
                Ok(()) => return Ok(()),
                Err(reason) if began.elapsed() > WHOLE_LONGEST => {
                    return Err(format!("waited {WHOLE_LONGEST:?} in vain until {what}: {reason}"));
                }
                Err(_) => std::thread::sleep(POLL_EVERY),
            }
        }
    }
}
