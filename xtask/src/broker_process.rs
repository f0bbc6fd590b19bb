//! A broker in a process of its own, for whoever must start it, kill it and start it again: ouzel, or Apache Kafka in
//! KRaft mode as the yardstick. It keeps its port and its data directory over restarts, and ends with its owner.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::last_words::last_words;

mod preparing;

use preparing::Purpose;

/// Whose broker is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Against {
    Ouzel,
    Kafka,
}

impl Against {
    /// Reads the value of `--against`.
    pub(crate) fn parse(word: &str) -> Result<Against, String> {
        match word {
            "ouzel" => Ok(Against::Ouzel),
            "kafka" => Ok(Against::Kafka),
            other => Err(format!("--against knows ouzel and kafka, not {other:?}")),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Against::Ouzel => "ouzel",
            Against::Kafka => "Apache Kafka",
        }
    }
}

/// How long a start may take; a JVM on a busy machine is slow.
const START_LONGEST: Duration = Duration::from_secs(90);
/// How long a graceful stop may take.
const STOP_LONGEST: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(5);

/// One broker, running or not.
#[derive(Debug)]
pub(crate) struct BrokerProcess {
    /// Program and arguments of every start.
    command: Vec<String>,
    folder: PathBuf,
    kafka_port: u16,
    /// ouzel's admin HTTP; Kafka has none.
    admin_port: Option<u16>,
    child: Option<Child>,
    is_frozen: bool,
}

impl BrokerProcess {
    /// Gets a broker ready to start, a cluster of its own with its data below `folder`, which must be new. `settings` are
    /// Kafka's keys and hold for both brokers; `flags` are further arguments of the `ouzel` binary alone.
    pub(crate) fn prepare(
        root: &Path,
        against: Against,
        folder: &Path,
        settings: &[(&str, &str)],
        flags: &[&str],
    ) -> Result<BrokerProcess, String> {
        let folders = [folder.to_path_buf()];
        let mut brokers = BrokerProcess::prepare_cluster(root, against, &folders, settings, flags)?;
        brokers.pop().ok_or_else(|| "one folder makes one broker".to_owned())
    }

    /// The same for brokers that form one cluster, with the node ids 1, 2 and so on, each in a folder of its own.
    pub(crate) fn prepare_cluster(
        root: &Path,
        against: Against,
        folders: &[PathBuf],
        settings: &[(&str, &str)],
        flags: &[&str],
    ) -> Result<Vec<BrokerProcess>, String> {
        preparing::prepare(root, against, folders, settings, Purpose::Test { flags })
    }

    /// The same for brokers whose cost is to be measured: Kafka exactly as it is shipped, ouzel from that binary.
    pub(crate) fn prepare_measured(
        root: &Path,
        against: Against,
        ouzel: &Path,
        folders: &[PathBuf],
        settings: &[(&str, &str)],
    ) -> Result<Vec<BrokerProcess>, String> {
        preparing::prepare(root, against, folders, settings, Purpose::Measurement { ouzel })
    }

    /// Any program that serves on `kafka_port` as soon as that port takes connections.
    pub(crate) fn of_command(command: Vec<String>, folder: &Path, kafka_port: u16) -> BrokerProcess {
        BrokerProcess {
            command,
            folder: folder.to_path_buf(),
            kafka_port,
            admin_port: None,
            child: None,
            is_frozen: false,
        }
    }

    /// Has another program start the broker in its own place (exec): the process stays the same.
    pub(crate) fn start_through(&mut self, words: &[String]) {
        self.command.splice(0..0, words.iter().cloned());
    }

    /// The process, while it was started and not taken down.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Where it answers `/readyz` and `/metrics`, if it does.
    pub(crate) fn admin_port(&self) -> Option<u16> {
        self.admin_port
    }

    /// `host:port` for a client's bootstrap list.
    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.kafka_port)
    }

    /// Whether it was started and not taken down since; it may have died by itself.
    pub(crate) fn was_started(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn kafka_port(&self) -> u16 {
        self.kafka_port
    }

    /// Where the broker keeps its partitions.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.join(preparing::DATA)
    }

    /// What the broker said on stdout and stderr, over all its starts.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.folder.join("broker.log")
    }

    /// Starts the broker and waits until it serves; how long that took.
    pub(crate) fn start(&mut self) -> Result<Duration, String> {
        let started = self.launch()?;
        self.await_serving(started)
    }

    /// Starts the broker and does not wait; a node of a cluster serves only once others run.
    pub(crate) fn launch(&mut self) -> Result<Instant, String> {
        assert!(self.child.is_none(), "the broker runs already");
        let log = self.log_path();
        let open = || {
            File::options()
                .create(true)
                .append(true)
                .open(&log)
                .map_err(|e| format!("open {}: {e}", log.display()))
        };
        let started = Instant::now();
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?)
            .spawn()
            .map_err(|e| format!("start {}: {e}", self.command[0]))?;
        self.child = Some(child);
        Ok(started)
    }

    /// Waits until a broker that was launched serves; how long that took since it was `started`.
    pub(crate) fn await_serving(&mut self, started: Instant) -> Result<Duration, String> {
        while !self.serves() {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok()).flatten() {
                self.child = None;
                return Err(format!("the broker ended at once ({status}); {}", self.last_words()));
            }
            if started.elapsed() > START_LONGEST {
                self.kill();
                return Err(format!(
                    "the broker was not ready after {START_LONGEST:?}; {}",
                    self.last_words()
                ));
            }
            std::thread::sleep(POLL_EVERY);
        }
        Ok(started.elapsed())
    }

    /// Whether clients are answered now.
    fn serves(&self) -> bool {
        match self.admin_port {
            Some(port) => http_get(port, "/readyz").is_ok_and(|(status, _)| status == 200),
            None => TcpStream::connect(("127.0.0.1", self.kafka_port)).is_ok(),
        }
    }

    /// SIGKILL: the process is gone between two of its instructions, the machine and its page cache stay.
    pub(crate) fn kill(&mut self) {
        self.is_frozen = false;
        if let Some(mut child) = self.child.take() {
            // Fails only if the process has ended by itself, and then it is gone as asked.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for the end: a graceful stop.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        self.terminate();
        self.await_end()
    }

    /// SIGSTOP: the process stays, and does nothing.
    pub(crate) fn freeze(&mut self) -> Result<(), String> {
        self.signal("-STOP")?;
        self.is_frozen = true;
        Ok(())
    }

    /// Whether it was started, and neither taken down nor frozen since.
    pub(crate) fn answers(&self) -> bool {
        self.was_started() && !self.is_frozen
    }

    /// Has a broker that was taken down or frozen serve again: it is started, or goes on. How long until it serves; one that
    /// does not is left dead, and never frozen.
    pub(crate) fn revive(&mut self) -> Result<Duration, String> {
        if !self.is_frozen {
            return self.start();
        }
        let began = Instant::now();
        if let Err(reason) = self.signal("-CONT") {
            self.kill();
            return Err(reason);
        }
        self.is_frozen = false;
        self.await_serving(began)
    }

    fn signal(&self, signal: &str) -> Result<(), String> {
        let child = self.child.as_ref().ok_or("a broker that does not run takes no signal")?;
        let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
        match status.map_err(|e| format!("kill {signal}: {e}"))?.success() {
            true => Ok(()),
            false => Err(format!("kill {signal} failed")),
        }
    }

    /// SIGTERM alone.
    pub(crate) fn terminate(&mut self) {
        // Both fail only if the process has ended by itself; whoever waits for the end finds that.
        let _ = self.signal("-TERM");
        if self.is_frozen {
            // A frozen process takes no signal up until it goes on.
            let _ = self.signal("-CONT");
            self.is_frozen = false;
        }
    }

    /// Waits for the end of a broker that was told to stop.
    pub(crate) fn await_end(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let began = Instant::now();
        while began.elapsed() < STOP_LONGEST {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(POLL_EVERY),
                Ok(Some(_)) => return Ok(()),
                Err(error) => return Err(format!("wait for the broker: {error}")),
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(format!("the broker did not stop within {STOP_LONGEST:?} of SIGTERM; {}", self.last_words()))
    }

    /// Whether the process runs; a broker that died by itself does not.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The end of the broker's log, for messages.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.log_path())
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports that were free a moment ago, all different. They lie below those that the system lends to connections: a
/// client that tries a port again and again while its broker is down may otherwise be lent that very port, connect to
/// itself and keep the broker from coming back.
pub(crate) fn free_ports<const COUNT: usize>() -> Result<[u16; COUNT], String> {
    let mut ports = [0; COUNT];
    for port in &mut ports {
        *port = free_port()?;
    }
    Ok(ports)
}

/// Where the search goes on, so that two calls of one process never meet; other processes begin elsewhere.
static TRIED: AtomicU16 = AtomicU16::new(0);
const PORTS: Range<u16> = 20_000..32_000;

fn free_port() -> Result<u16, String> {
    let span = PORTS.end - PORTS.start;
    let begin = (std::process::id().wrapping_mul(97) % u32::from(span)) as u16;
    for _ in 0..span {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (begin + tried % span) % span;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(format!("none of the ports {PORTS:?} is free"))
}

/// One GET on the loopback address: status and body.
pub(crate) fn http_get(port: u16, path: &str) -> Result<(u16, String), String> {
    let speak = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = speak().map_err(|e| format!("GET {path}: {e}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("GET {path}: no answer"))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    status.map(|status| (status, body.to_owned())).ok_or_else(|| format!("GET {path}: no status in {head:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision;

    #[test]
    fn free_ports_differ() {
        let [a, b, c] = free_ports().unwrap();
        assert!(a != b && b != c && a != c);
    }

    #[test]
    fn a_broker_that_ends_at_once_is_quoted() {
        let folder = std::env::temp_dir().join(format!("ouzel-xtask-broker-{}", std::process::id()));
        provision::create_dir(&folder).unwrap();
        let [kafka_port] = free_ports().unwrap();
        let command = ["sh", "-c", "echo no room here; exit 2"].map(str::to_owned).to_vec();
        let mut broker = BrokerProcess::of_command(command, &folder, kafka_port);
        let message = broker.start().unwrap_err();
        assert!(message.contains("no room here"), "{message}");
        assert!(!broker.is_running());
        provision::remove_dir(&folder).unwrap();
    }

    /// A process that sleeps, on a port that somebody listens on: as far as anybody can see it serves.
    fn sleeper(test: &str) -> (TcpListener, BrokerProcess) {
        let folder = std::env::temp_dir().join(format!("ouzel-xtask-{test}-{}", std::process::id()));
        provision::create_dir(&folder).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let command = ["sleep", "600"].map(str::to_owned).to_vec();
        let port = listener.local_addr().unwrap().port();
        (listener, BrokerProcess::of_command(command, &folder, port))
    }

    /// T is a process that was stopped.
    fn state(broker: &BrokerProcess) -> String {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", broker.pid().unwrap())).unwrap();
        stat.rsplit(") ").next().unwrap()[..1].to_owned()
    }

    /// When nobody took over from a frozen node in time, it was started as if it had been killed, and the harness panicked
    /// because it ran already; frozen it was, and frozen it would have stayed.
    #[test]
    fn a_frozen_broker_goes_on_as_the_same_process_and_a_dead_one_is_started() {
        let (_listener, mut broker) = sleeper("revived");
        broker.start().unwrap();
        let pid = broker.pid();
        broker.freeze().unwrap();
        while state(&broker) != "T" {}
        assert!(!broker.answers());
        broker.revive().unwrap();
        assert!(broker.answers() && broker.pid() == pid && state(&broker) != "T");
        broker.freeze().unwrap();
        broker.kill();
        assert!(!broker.was_started());
        broker.revive().unwrap();
        assert!(broker.answers() && broker.pid() != pid);
        provision::remove_dir(&broker.folder).unwrap();
    }

    /// A stop of a frozen broker waited a minute for a process that could not hear it.
    #[test]
    fn a_frozen_broker_that_is_told_to_stop_ends() {
        let (_listener, mut broker) = sleeper("frozen-stop");
        broker.start().unwrap();
        broker.freeze().unwrap();
        broker.stop().unwrap();
        assert!(!broker.was_started());
        provision::remove_dir(&broker.folder).unwrap();
    }

    #[test]
    fn a_get_reads_status_and_body() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nwait").unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        assert_eq!(http_get(port, "/readyz").unwrap(), (503, "wait".to_owned()));
        assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.0\r\n"));
    }
}
