//! An `ouzel` process under test: its ready line, its log, its HTTP, its end. It is killed with its owner.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Far beyond what anything here takes: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Broker {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// What was read of the log so far.
    log: Vec<String>,
    pub(crate) ready_line: String,
}

/// How a process ended, with all it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The binary with free ports and its data below `dir`, and nothing of this process's `OUZEL_...`.
pub(crate) fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = bare(arguments);
    command.arg("--data-dir").arg(dir.join("data")).args(["--cores", "1"]);
    command.args(["--kafka-listener", "127.0.0.1:0", "--admin-listener", "127.0.0.1:0"]);
    command.args(["--rpc-listener", "127.0.0.1:0"]);
    command
}

/// The binary with these arguments alone.
pub(crate) fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ouzel"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OUZEL_") {
            command.env_remove(name);
        }
    }
    // What is not refused as it should be starts a node in the directory at hand.
    command.current_dir(env!("CARGO_TARGET_TMPDIR"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a process that is expected to end by itself.
pub(crate) fn run(mut command: Command) -> Ended {
    let mut child = command.spawn().unwrap();
    let (stdout, stderr) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
    end_of(&mut child, stdout, stderr, Vec::new())
}

impl Broker {
    /// Starts a node with free ports and its data below `dir`.
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Broker {
        Broker::start_command(command(dir, arguments))
    }

    /// Starts a node and waits for its ready line.
    pub(crate) fn start_command(command: Command) -> Broker {
        let mut broker = Broker::launch(command);
        broker.await_ready();
        broker
    }

    /// Waits for the ready line.
    pub(crate) fn await_ready(&mut self) {
        match self.stdout.recv_timeout(PATIENCE) {
            Ok(ready_line) => self.ready_line = ready_line,
            Err(why) => {
                self.signal("-KILL");
                panic!("no ready line ({why}): {:?}", self.end());
            }
        }
    }

    /// Starts a node and waits for nothing.
    pub(crate) fn launch(mut command: Command) -> Broker {
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Broker { child, stdout, stderr, log: Vec::new(), ready_line: String::new() }
    }

    /// The `HOST:PORT` after `word` in the ready line.
    fn address_after(&self, word: &str) -> String {
        let rest = self
            .ready_line
            .split_once(word)
            .unwrap_or_else(|| panic!("no {word:?} in {:?}", self.ready_line))
            .1;
        rest.split([',', ' ']).next().unwrap().to_owned()
    }

    pub(crate) fn kafka_address(&self) -> String {
        self.address_after("kafka ")
    }

    pub(crate) fn admin_address(&self) -> String {
        self.address_after("admin http://")
    }

    /// One GET: status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        get(&self.admin_address(), path)
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Memory of its own that it has in use: no file is in it.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells it");
        let kib: u64 = line.trim().strip_suffix(" kB").expect("in kB").parse().unwrap();
        kib << 10
    }

    /// What it has said in its log so far.
    pub(crate) fn log(&mut self) -> &[String] {
        self.log.extend(self.stderr.try_iter());
        &self.log
    }

    /// Waits for a log line that holds `words`, and gives it.
    pub(crate) fn await_log(&mut self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(why) => panic!("no {words:?} in the log ({why}):\n{}", self.log.join("\n")),
            }
        }
    }

    /// Waits for the end.
    pub(crate) fn ended(mut self) -> Ended {
        self.end()
    }

    /// Ends it at once, if it runs still.
    pub(crate) fn ended_by_force(mut self) -> Ended {
        // Fails only when it has ended.
        let _ = self.child.kill();
        self.end()
    }

    fn end(&mut self) -> Ended {
        let (_, nothing) = channel();
        let stdout = std::mem::replace(&mut self.stdout, nothing);
        let (_, nothing) = channel();
        let stderr = std::mem::replace(&mut self.stderr, nothing);
        end_of(&mut self.child, stdout, stderr, std::mem::take(&mut self.log))
    }

    /// SIGTERM, and the end of a node that stops in order.
    pub(crate) fn stop(self) -> Ended {
        self.signal("-TERM");
        let ended = self.ended();
        assert_eq!((ended.code, ended.signal), (Some(0), None), "{}", ended.stderr);
        ended
    }
}

/// One GET: status and body.
pub(crate) fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: ouzel\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a pipe, read on a thread of their own so that a full pipe stops nobody.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (line, lines) = channel();
    std::thread::spawn(move || {
        for read in BufReader::new(pipe).lines() {
            let Ok(read) = read else { break };
            if line.send(read).is_err() {
                break;
            }
        }
    });
    lines
}

/// The pipes close when the process ends: reading them to their end is the waiting.
fn end_of(child: &mut Child, stdout: Receiver<String>, stderr: Receiver<String>, log: Vec<String>) -> Ended {
    let deadline = Instant::now() + PATIENCE;
    let rest = |lines: Receiver<String>, mut so_far: Vec<String>| {
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => so_far.push(line),
                Err(RecvTimeoutError::Disconnected) => return (so_far.join("\n"), true),
                Err(RecvTimeoutError::Timeout) => return (so_far.join("\n"), false),
            }
        }
    };
    let (stdout, stdout_closed) = rest(stdout, Vec::new());
    let (stderr, stderr_closed) = rest(stderr, log);
    if !(stdout_closed && stderr_closed) {
        // Fails only if it has ended by itself.
        let _ = child.kill();
        panic!("the process did not end within {PATIENCE:?}; stdout:\n{stdout}\nstderr:\n{stderr}");
    }
    let status = child.wait().unwrap();
    Ended { code: status.code(), signal: status.signal(), stdout, stderr }
}
