//! A node in a process of its own, for tests about the process: its memory, its log, its death.
//!
//! The process is this very test binary, started anew for the one test below that does nothing but run a node. So the
//! tests need no other crate's binary, and always run what was built with them.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use ouzel_broker::start;
use ouzel_runtime::disk::BackendChoice;

use super::PATIENCE;
use super::node::setup;
use super::wire::Wire;

const DIR: &str = "OUZEL_TEST_DIR";
const CORES: &str = "OUZEL_TEST_CORES";
const SETTINGS: &str = "OUZEL_TEST_SETTINGS";
const BACKEND: &str = "OUZEL_TEST_BACKEND";

/// What the node's process says once it serves, with its address behind.
const READY: &str = "the node serves at ";

/// How to start a node in a process of its own.
#[derive(Clone, Debug)]
pub(crate) struct Starting {
    pub(crate) cores: u16,
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) blocking: bool,
    open_files_max: Option<usize>,
}

impl Starting {
    /// One core, Kafka's defaults.
    pub(crate) fn new() -> Starting {
        Starting { cores: 1, settings: Vec::new(), blocking: false, open_files_max: None }
    }

    /// With so many cores.
    pub(crate) fn cores(mut self, cores: u16) -> Starting {
        self.cores = cores;
        self
    }

    /// With a setting.
    pub(crate) fn set(mut self, key: &'static str, value: impl ToString) -> Starting {
        self.settings.push((key, value.to_string()));
        self
    }

    /// Files and sockets reached through a pool of threads instead of io_uring.
    pub(crate) fn blocking(mut self) -> Starting {
        self.blocking = true;
        self
    }

    /// With so many files and sockets at most.
    pub(crate) fn open_files_max(mut self, files: usize) -> Starting {
        self.open_files_max = Some(files);
        self
    }

    /// Starts it in `dir` and waits until it serves.
    pub(crate) fn start(&self, dir: &Path) -> Process {
        let settings: Vec<_> = self.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let this = std::env::current_exe().unwrap();
        let mut command = match self.open_files_max {
            None => Command::new(this),
            Some(files) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\" \"$@\"")).arg(this);
                shell
            }
        };
        let mut child = command
            .args(["support::process::a_node", "--exact", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .env(CORES, self.cores.to_string())
            .env(SETTINGS, settings.join("\n"))
            .env(BACKEND, if self.blocking { "blocking" } else { "auto" })
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Log::default());
        let stdout = child.stdout.take().unwrap();
        let stderr = child.stderr.take().unwrap();
        for pipe in [Box::new(stdout) as Box<dyn std::io::Read + Send>, Box::new(stderr)] {
            let log = log.clone();
            std::thread::spawn(move || log.take_lines(BufReader::new(pipe)));
        }
        let line = log.find(READY).unwrap_or_else(|| {
            // Fails only if it has ended by itself.
            let _ = child.kill();
            panic!("the node did not start:\n{}", log.text());
        });
        let address = line.split_once(READY).unwrap().1.trim().parse().unwrap();
        Process { child, log, address }
    }
}

/// A node in a process of its own. It is killed with its owner.
pub(crate) struct Process {
    child: Child,
    log: Arc<Log>,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// A connection that has said nothing yet.
    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// Waits for a line of its log that holds `words`, and gives it.
    pub(crate) fn await_log(&self, words: &str) -> String {
        self.log.find(words).unwrap_or_else(|| panic!("no {words:?} in the log:\n{}", self.log.text()))
    }

    /// Memory it holds.
    pub(crate) fn rss_bytes(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.child.id());
        let statm = std::fs::read_to_string(path).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    /// Files and sockets it holds.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Most files it may hold.
    pub(crate) fn open_files_max(&self) -> usize {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let row = limits.lines().find(|row| row.starts_with("Max open files")).unwrap();
        row.split_whitespace().nth(3).unwrap().parse().unwrap()
    }

    /// Fails if it has ended.
    pub(crate) fn assert_alive(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert_eq!(ended, None, "the node's process has ended:\n{}", self.log.text());
    }

    /// SIGKILL: what it had not handed to the kernel is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; gives its log once it has ended in order.
    pub(crate) fn stop(mut self) -> String {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}:\n{}", self.log.text());
        self.log.text()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has said, as it says it.
#[derive(Default)]
struct Log {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    pipes_ended: usize,
}

impl Log {
    fn take_lines(&self, pipe: impl BufRead) {
        for line in pipe.lines() {
            let Ok(line) = line else { break };
            self.said.lock().unwrap().lines.push(line);
            self.more.notify_all();
        }
        self.said.lock().unwrap().pipes_ended += 1;
        self.more.notify_all();
    }

    /// The first line with `words`; `None` if it does not come in time, or the process ended without it.
    fn find(&self, words: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.said.lock().unwrap();
        let mut looked_at = 0;
        loop {
            if let Some(line) = said.lines[looked_at..].iter().find(|line| line.contains(words)) {
                return Some(line.clone());
            }
            looked_at = said.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if said.pipes_ended == 2 || left.is_zero() {
                return None;
            }
            said = self.more.wait_timeout(said, left).unwrap().0;
        }
    }

    fn text(&self) -> String {
        self.said.lock().unwrap().lines.join("\n")
    }
}

#[test]
#[ignore = "runs a node for the other tests, which start it in a process of its own"]
fn a_node() {
    // Without a directory somebody has asked for all ignored tests; there is nobody to serve.
    let Ok(dir) = std::env::var(DIR) else { return };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    ouzel_runtime::limits::raise_open_files().unwrap();
    let settings = std::env::var(SETTINGS).unwrap();
    let settings: Vec<_> = settings.lines().map(|line| line.split_once('=').unwrap()).collect();
    let cores = std::env::var(CORES).unwrap().parse().unwrap();
    let mut setup = setup(Path::new(&dir), cores, &settings);
    if std::env::var(BACKEND).unwrap() == "blocking" {
        setup.backend = BackendChoice::Blocking;
    }
    let node = start(setup, Box::new(|_, _| Box::pin(async {}))).unwrap();
    let handle = node.handle();
    stop_at_sigterm(handle.clone());
    writeln!(std::io::stdout(), "{READY}{}", handle.kafka_address()).unwrap();
    node.join().unwrap();
}

fn stop_at_sigterm(handle: ouzel_broker::NodeHandle) {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM]).unwrap();
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            handle.stop();
        }
    });
}
