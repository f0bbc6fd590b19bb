//! A client in a process of its own: orders go in, events come out, one JSON object a line each.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::history::Seen;

/// What a driver tells.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    Acknowledged {
        seq: u64,
        partition: i32,
        offset: Option<i64>,
    },
    Failed {
        seq: u64,
        reason: String,
    },
    Saw(Seen),
    Range {
        partition: i32,
        first: i64,
        end: i64,
    },
    Ready,
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
    Committed {
        partition: i32,
        offset: i64,
        metadata: String,
    },
    /// Something only its scenario understands.
    Other(Value),
    Done,
    Refused {
        code: i64,
        fatal: bool,
        message: String,
    },
    Broken(String),
}

impl Event {
    fn parse(line: &str) -> Event {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            return Event::Broken(format!("not a line of JSON: {line}"));
        };
        let number = |name: &str| value[name].as_i64().unwrap_or(-1);
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let partition = number("p") as i32;
        let parts = || {
            value["parts"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|p| p.as_i64().map(|p| p as i32))
                .collect()
        };
        match value["t"].as_str().unwrap_or_default() {
            "ack" => Event::Acknowledged {
                seq: number("s") as u64,
                partition,
                offset: Some(number("o")).filter(|offset| *offset >= 0),
            },
            "fail" => Event::Failed { seq: number("s") as u64, reason: text("e") },
            "rec" => Event::Saw(Seen {
                partition,
                offset: number("o"),
                timestamp_ms: number("ts"),
                who: text("who"),
                digest: number("d") as u32,
            }),
            "range" => Event::Range { partition, first: number("first"), end: number("end") },
            "ready" => Event::Ready,
            "assigned" => Event::Assigned(parts()),
            "revoked" => Event::Revoked(parts()),
            "committed" => Event::Committed { partition, offset: number("o"), metadata: text("m") },
            "done" => Event::Done,
            "refused" => Event::Refused {
                code: number("code"),
                fatal: value["fatal"].as_bool().unwrap_or(false),
                message: text("e"),
            },
            "error" => Event::Broken(text("e")),
            _ => Event::Other(value),
        }
    }

    fn ends_an_order(&self) -> bool {
        matches!(self, Event::Done | Event::Refused { .. } | Event::Broken(_))
    }
}

/// How an order ended, if not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The broker said no, by Kafka's error code (librdkafka's own codes are below -1).
    Refused { code: i64, fatal: bool, message: String },
    /// The client broke, died or was silent for too long.
    Broken(String),
}

impl From<Trouble> for String {
    fn from(trouble: Trouble) -> String {
        match trouble {
            Trouble::Refused { code, message, .. } => format!("refused with {code}: {message}"),
            Trouble::Broken(message) => message,
        }
    }
}

/// One event, and its place among the events of all drivers.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) at: u64,
    pub(super) event: Event,
}

/// Counts all events of all drivers, so that histories of several can be merged.
static HEARD_SO_FAR: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Default)]
struct Ear {
    heard: Vec<Heard>,
    /// The process said its last.
    deaf: bool,
}

type SharedEar = Arc<(Mutex<Ear>, Condvar)>;

fn lock(ear: &SharedEar) -> MutexGuard<'_, Ear> {
    ear.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running driver. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    ear: SharedEar,
    listener: Option<JoinHandle<()>>,
    errors: PathBuf,
}

impl Driver {
    /// Starts a client that waits for orders. What it says on stderr goes to a file below `folder`.
    pub(super) fn start(command: &[String], name: &str, folder: &Path) -> Result<Driver, String> {
        let errors = folder.join(format!("{name}.err"));
        let file = File::create(&errors).map_err(|e| format!("create {}: {e}", errors.display()))?;
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .map_err(|e| format!("start {}: {e}", command[0]))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("a child without stdout")?;
        let ear = SharedEar::default();
        let listening = Arc::clone(&ear);
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = Event::parse(&line);
                let mut ear = lock(&listening);
                let at = HEARD_SO_FAR.fetch_add(1, Ordering::Relaxed);
                ear.heard.push(Heard { at, event });
                listening.1.notify_all();
            }
            lock(&listening).deaf = true;
            listening.1.notify_all();
        });
        Ok(Driver { name: name.to_owned(), child, stdin, ear, listener: Some(listener), errors })
    }

    /// Gives an order and does not wait for it.
    pub(super) fn begin(&mut self, order: &Value) -> Result<(), String> {
        let stdin = self.stdin.as_mut().ok_or("the driver's stdin is closed")?;
        writeln!(stdin, "{order}").and_then(|()| stdin.flush()).map_err(|e| {
            format!("{}: cannot be given an order: {e}; its words: {}", self.name, self.errors.display())
        })
    }

    /// Waits until what was heard of the present order satisfies `enough`.
    pub(super) fn await_that<T>(
        &self,
        what: &str,
        longest: Duration,
        mut enough: impl FnMut(&[Heard]) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + longest;
        let mut ear = lock(&self.ear);
        loop {
            if let Some(found) = enough(&ear.heard) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = ear.heard.last().is_some_and(|heard| heard.event.ends_an_order());
            if ear.deaf || ended || left.is_zero() {
                let why = match (ear.deaf, ended) {
                    (true, _) => "its process ended",
                    (_, true) => "the order ended",
                    _ => "it took too long",
                };
                let last = ear.heard.last().map(|heard| heard.event.clone());
                return Err(format!(
                    "{}: waited in vain for {what}: {why} ({longest:?} given), the last heard is {last:?}, stderr in {}",
                    self.name,
                    self.errors.display()
                ));
            }
            ear = self.ear.1.wait_timeout(ear, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A look at what was heard of the present order so far.
    pub(super) fn look<T>(&self, read: impl FnOnce(&[Heard]) -> T) -> T {
        read(&lock(&self.ear).heard)
    }

    /// Waits for the end of the order; its events without the closing one.
    pub(super) fn finish(&mut self, longest: Duration) -> Result<Vec<Heard>, Trouble> {
        self.await_that("the end of the order", longest, |heard| {
            heard.last().is_some_and(|heard| heard.event.ends_an_order()).then_some(())
        })
        .map_err(Trouble::Broken)?;
        let mut heard = std::mem::take(&mut lock(&self.ear).heard);
        match heard.pop().map(|heard| heard.event) {
            Some(Event::Refused { code, fatal, message }) => {
                Err(Trouble::Refused { code, fatal, message: format!("{}: {message}", self.name) })
            }
            Some(Event::Broken(message)) => Err(Trouble::Broken(format!(
                "{}: {message}; its words are in {}",
                self.name,
                self.errors.display()
            ))),
            _ => Ok(heard),
        }
    }

    /// Gives an order and waits for its end.
    pub(super) fn call(&mut self, order: &Value, longest: Duration) -> Result<Vec<Event>, Trouble> {
        self.begin(order).map_err(Trouble::Broken)?;
        Ok(self.finish(longest)?.into_iter().map(|heard| heard.event).collect())
    }

    /// Tells a running order to come to its end.
    pub(super) fn stop(&mut self) -> Result<(), String> {
        self.begin(&serde_json::json!({"cmd": "stop"}))
    }

    /// SIGKILL; whatever it had said before is heard.
    pub(super) fn kill(&mut self) -> Vec<Heard> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.stdin = None;
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        std::mem::take(&mut lock(&self.ear).heard)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(script: &str, name: &str) -> Driver {
        let command = ["sh", "-c", script].map(str::to_owned);
        Driver::start(&command, &format!("ouzel-{name}-{}", std::process::id()), &std::env::temp_dir())
            .unwrap()
    }

    #[test]
    fn an_order_is_carried_out_and_heard() {
        let mut driver = driver(
            r#"read line; echo '{"t":"ack","s":3,"p":1,"o":7}'; echo '{"t":"done"}'; read line"#,
            "order",
        );
        let events = driver.call(&serde_json::json!({"cmd": "x"}), Duration::from_secs(10)).unwrap();
        assert_eq!(events, [Event::Acknowledged { seq: 3, partition: 1, offset: Some(7) }]);
    }

    #[test]
    fn a_refusal_and_a_death_are_told_apart() {
        let mut refusing = driver(
            r#"read line; echo '{"t":"refused","code":36,"fatal":false,"e":"there"}'; read line"#,
            "refusal",
        );
        let order = serde_json::json!({"cmd": "x"});
        let trouble = refusing.call(&order, Duration::from_secs(10)).unwrap_err();
        assert!(matches!(trouble, Trouble::Refused { code: 36, .. }), "{trouble:?}");
        let mut dying = driver("read line; exit 1", "death");
        let trouble = dying.call(&order, Duration::from_secs(10)).unwrap_err();
        assert!(
            matches!(&trouble, Trouble::Broken(message) if message.contains("its process ended")),
            "{trouble:?}"
        );
    }
}
