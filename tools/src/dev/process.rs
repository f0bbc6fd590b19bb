//! A node's process: started so that it outlives the terminal, and known again by more than its number, which the
//! system gives to others once it has ended.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, setsid};
use serde::{Deserialize, Serialize};

use super::state::{self, Cluster};
use crate::failure::{Exit, Failure};

/// Memory of a node: several of them share a machine that has other things to do.
const NODE_MEMORY: &str = "256MiB";
/// Cores of a node, for the same reason.
const NODE_CORES: &str = "2";

/// Which process it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// When it began, in the kernel's ticks since the machine's start; no later process of the same number has the same.
    started_ticks: u64,
    /// The machine's start those ticks count from.
    boot_id: String,
}

impl Process {
    /// The process of that number as it is now, if there is one that has not ended.
    fn of(pid: i32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Process { pid, started_ticks: started_ticks(&stat)?, boot_id: boot_id.trim().to_owned() })
    }

    /// Whether this very process still runs.
    pub(super) fn is_running(&self) -> bool {
        Process::of(self.pid).as_ref() == Some(self)
    }

    /// SIGTERM. Whoever has the number by now is left alone.
    pub(super) fn terminate(&self) -> Result<(), Failure> {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.is_running()) else { return Ok(()) };
        match kill_process(pid, Signal::TERM) {
            Err(error) if error != rustix::io::Errno::SRCH => {
                Err(Failure::new(Exit::Failed, format!("stop process {}: {error}", self.pid)))
            }
            _ => Ok(()),
        }
    }
}

/// The 22nd field of /proc/PID/stat; `None` for a process that has ended and that nobody has buried yet. The second field
/// is the program's name in brackets and may hold anything, brackets too.
///
/// Of a process that was killed the first thread may be gone while others are not: it has its files and ports until the
/// last of them is.
fn started_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = behind_name.split(' ').collect();
    let threads: u32 = fields.get(17)?.parse().ok()?;
    match fields.first()? {
        &"Z" | &"X" if threads <= 1 => None,
        _ => fields.get(19)?.parse().ok(),
    }
}

/// Starts a node of the cluster; what it says goes to its log.
pub(super) fn start(cluster: &Cluster, index: usize, dir: &Path) -> Result<(Process, Child), Failure> {
    let node = &cluster.nodes[index];
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failed, format!("start node {}: {what}: {error}", node.id))
    };
    let ouk = std::env::current_exe().map_err(|error| failed("find this program", &error))?;
    let log = state::log_path(dir, node.id);
    let open = || File::options().create(true).append(true).open(&log);
    let loopback = |port: u16| format!("127.0.0.1:{port}");
    let mut command = Command::new(ouk);
    command.args(["dev", "become-node", "--"]).arg(&cluster.ouzel);
    command.arg("--data-dir").arg(state::node_dir(dir, node.id)).args(["--node-id", &node.id.to_string()]);
    command.args([
        "--kafka-listener",
        &loopback(node.kafka_port),
        "--admin-listener",
        &loopback(node.admin_port),
    ]);
    command.args([
        "--rpc-listener",
        &loopback(node.rpc_port),
        "--cores",
        NODE_CORES,
        "--memory",
        NODE_MEMORY,
    ]);
    command.args(["--seeds", &cluster.seeds()]);
    if let Some(durability) = &cluster.durability {
        command.args(["--set", &format!("log.ouzel.durability={durability}")]);
    }
    // What the shell has for another node of its own is not for these; the level of the log is.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OUZEL_") && name != "OUZEL_LOG" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command.stdout(open().map_err(|error| failed("open its log", &error))?);
    command.stderr(open().map_err(|error| failed("open its log", &error))?);
    let child = command.spawn().map_err(|error| failed("start a process", &error))?;
    let process = i32::try_from(child.id()).ok().and_then(Process::of);
    let process = process.ok_or_else(|| failed("its process", &state::last_words(dir, node.id)))?;
    Ok((process, child))
}

/// Leaves the terminal's session and becomes the program that the words name; returns only if it cannot.
pub(super) fn become_node(words: &[String]) -> Failure {
    // Fails only for the leader of a process group, which a child just made is not; one that is has no terminal to lose.
    let _ = setsid();
    let error = Command::new(&words[0]).args(&words[1..]).exec();
    Failure::new(Exit::Failed, format!("start {}: {error}", words[0]))
}

/// The broker's binary: the one that was named, the one that is known, or the one beside this program.
pub(super) fn find_ouzel(named: Option<&Path>, known: Option<&Path>) -> Result<PathBuf, Failure> {
    let beside = || std::env::current_exe().ok().map(|ouk| ouk.with_file_name("ouzel"));
    let path = named.or(known).map(Path::to_owned).or_else(beside).unwrap_or_else(|| "ouzel".into());
    match path.is_file() {
        // Whole, since a later command may be given in another directory.
        true => std::path::absolute(&path).map_err(Failure::from),
        false => Err(Failure::usage(format!(
            "there is no broker at {}; name its binary with --ouzel PATH",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_by_its_start() {
        let own = Process::of(std::process::id() as i32).unwrap();
        assert!(own.is_running());
        // The same number, given to another process later, or after another start of the machine.
        let earlier = Process { started_ticks: own.started_ticks - 1, ..own.clone() };
        let other_boot = Process { boot_id: "before".to_owned(), ..own };
        for gone in [earlier, other_boot] {
            assert!(!gone.is_running());
            // Were it sent all the same, this test would end here.
            gone.terminate().unwrap();
        }
    }

    #[test]
    fn the_start_is_read_behind_any_name() {
        let fields = (4..=52).map(|nth| nth.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(started_ticks(&format!("7 (a) b) S {fields}")), Some(22));
        let of_one_thread = fields.replacen(" 20 ", " 1 ", 1);
        assert_eq!(started_ticks(&format!("7 (a) Z {of_one_thread}")), None, "ended, not buried");
        assert_eq!(started_ticks("7 (a"), None);
    }

    /// A node was killed, its first thread was gone, and it was taken for stopped: the one started in its place found the
    /// port of the admin address in use by the threads that were still ending.
    #[test]
    fn a_process_has_not_ended_before_its_last_thread() {
        let fields = (4..=52).map(|nth| nth.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(started_ticks(&format!("7 (a) Z {fields}")), Some(22), "twenty threads are left");
    }
}
