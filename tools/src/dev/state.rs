//! What is remembered of a cluster: one JSON file in its folder, replaced as a whole.
//!
//! ```text
//! DIR/cluster.json   the nodes, their ports and processes
//! DIR/lock           held by the `ouk dev` that changes something
//! DIR/node-N/        a node's data directory
//! DIR/node-N.log     what it said on stdout and stderr, over all its starts
//! ```

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::process::Process;
use crate::failure::{Exit, Failure};

/// Ports that the first node has, if they are free: those of a node without flags.
pub(super) const KAFKA_BASE: u16 = 9092;
pub(super) const ADMIN_BASE: u16 = 9644;
pub(super) const RPC_BASE: u16 = 33146;

const FILE: &str = "cluster.json";
const LOCK: &str = "lock";
/// Of the file's form.
const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cluster {
    version: u32,
    /// The broker's binary.
    pub(super) ouzel: PathBuf,
    /// log.ouzel.durability, if it was chosen.
    pub(super) durability: Option<String>,
    /// The first node's Kafka port, 0 for free ones.
    pub(super) kafka_base: u16,
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) id: i32,
    pub(super) kafka_port: u16,
    pub(super) admin_port: u16,
    pub(super) rpc_port: u16,
    /// One of those the cluster began with; the others joined it.
    pub(super) founder: bool,
    /// The last process that was started for it, unless it was seen to end.
    pub(super) process: Option<Process>,
}

impl Node {
    pub(super) fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_running)
    }
}

impl Cluster {
    pub(super) fn new(ouzel: PathBuf) -> Cluster {
        Cluster { version: VERSION, ouzel, durability: None, kafka_base: KAFKA_BASE, nodes: Vec::new() }
    }

    /// The cluster in `dir`, if there is one.
    pub(super) fn try_load(dir: &Path) -> Result<Option<Cluster>, Failure> {
        let path = dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::usage(format!("read {}: {error}", path.display()))),
        };
        match serde_json::from_str::<Cluster>(&text) {
            Ok(cluster) if cluster.version == VERSION => Ok(Some(cluster)),
            Ok(cluster) => Err(Failure::usage(format!(
                "{} is of version {}, and this ouk knows version {VERSION}; use the ouk that wrote it",
                path.display(),
                cluster.version
            ))),
            Err(error) => Err(Failure::usage(format!(
                "{} cannot be read ({error}); mend it, or begin anew in another --data-dir",
                path.display()
            ))),
        }
    }

    /// The cluster in `dir`.
    pub(super) fn load(dir: &Path) -> Result<Cluster, Failure> {
        Cluster::try_load(dir)?.ok_or_else(|| {
            Failure::new(
                Exit::NotFound,
                format!("there is no cluster in {}; start one with `ouk dev up`", dir.display()),
            )
        })
    }

    pub(super) fn save(&self, dir: &Path) -> Result<(), Failure> {
        let path = dir.join(FILE);
        let draft = dir.join("cluster.json.new");
        let text = serde_json::to_string_pretty(self).map_err(std::io::Error::other)?;
        // In one step, so that a reader and a power cut find the old one or the new one.
        let written = fs::write(&draft, text + "\n").and_then(|()| fs::rename(&draft, &path));
        written.map_err(|error| Failure::new(Exit::Failed, format!("write {}: {error}", path.display())))
    }

    /// Deletes what the nodes stored and all that is remembered; the folder itself if nothing else is in it.
    pub(super) fn wipe(&self, dir: &Path) -> Result<(), Failure> {
        for node in &self.nodes {
            gone(fs::remove_dir_all(node_dir(dir, node.id)))?;
            gone(fs::remove_file(log_path(dir, node.id)))?;
        }
        gone(fs::remove_file(dir.join(FILE)))?;
        gone(fs::remove_file(dir.join(LOCK)))?;
        // Fails if somebody keeps something of their own there, and then it stays.
        let _ = fs::remove_dir(dir);
        Ok(())
    }

    pub(super) fn has_port(&self, port: u16) -> bool {
        self.nodes.iter().any(|node| [node.kafka_port, node.admin_port, node.rpc_port].contains(&port))
    }

    /// `host:port,...` for clients.
    pub(super) fn bootstrap(&self) -> String {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.kafka_port)).collect::<Vec<_>>().join(",")
    }

    /// The rpc addresses of the founders, as every node is given them: also one that founds alone, so that others can join
    /// it while it runs.
    pub(super) fn seeds(&self) -> String {
        let founders = self.nodes.iter().filter(|node| node.founder);
        founders.map(|node| format!("127.0.0.1:{}", node.rpc_port)).collect::<Vec<_>>().join(",")
    }
}

fn gone(removed: std::io::Result<()>) -> Result<(), Failure> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

pub(super) fn node_dir(dir: &Path, id: i32) -> PathBuf {
    dir.join(format!("node-{id}"))
}

pub(super) fn log_path(dir: &Path, id: i32) -> PathBuf {
    dir.join(format!("node-{id}.log"))
}

/// The last line of a node's log.
pub(super) fn last_words(dir: &Path, id: i32) -> String {
    let path = log_path(dir, id);
    let text = fs::read(&path).unwrap_or_default();
    match String::from_utf8_lossy(&text).lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => format!("{line} (its log is {})", path.display()),
        None => format!("it said nothing (its log is {})", path.display()),
    }
}

/// The right to change a cluster; given back when dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it; makes the folder if it is not there.
    pub(super) fn take(dir: &Path) -> Result<Lock, Failure> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(Exit::Failed, format!("{what} {}: {error}", dir.display()))
        };
        fs::create_dir_all(dir).map_err(|error| failed("make the folder", &error))?;
        let file = File::create(dir.join(LOCK)).map_err(|error| failed("lock", &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Failure::new(
                Exit::Failed,
                format!("another `ouk dev` works on {} now; wait for its end", dir.display()),
            )),
            Err(TryLockError::Error(error)) => Err(failed("lock", &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: i32, founder: bool) -> Node {
        let port = 1000 * id as u16;
        Node { id, kafka_port: port, admin_port: port + 1, rpc_port: port + 2, founder, process: None }
    }

    #[test]
    fn founders_of_several_name_each_other_and_whoever_joins_names_the_founders() {
        let mut cluster = Cluster::new("ouzel".into());
        cluster.nodes = vec![node(1, true)];
        assert_eq!(cluster.seeds(), "127.0.0.1:1002", "alone it founds with itself");
        cluster.nodes.push(node(2, false));
        assert_eq!(cluster.seeds(), "127.0.0.1:1002");
        cluster.nodes[1].founder = true;
        assert_eq!(cluster.seeds(), "127.0.0.1:1002,127.0.0.1:2002");
        assert_eq!(cluster.bootstrap(), "127.0.0.1:1000,127.0.0.1:2000");
        assert!(cluster.has_port(2001) && !cluster.has_port(2003));
    }
}
