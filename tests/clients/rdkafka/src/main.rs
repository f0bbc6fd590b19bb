//! The driver of the `rdkafka` crate: librdkafka as Rust programs use it. README.md two folders up lists the commands.
#![forbid(unsafe_code)]

mod consuming;
mod managing;
mod producing;
mod records;

use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use serde_json::{Value, json};

/// Why a command did not end well.
pub(crate) enum Failure {
    /// The broker said no.
    Refused { code: i32, fatal: bool, message: String },
    /// Anything else.
    Broken(String),
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Failure {
        let message = error.to_string();
        match error {
            KafkaError::Transaction(error) => {
                Failure::Refused { code: error.code() as i32, fatal: error.is_fatal(), message }
            }
            error => match error.rdkafka_error_code() {
                Some(code) => Failure::Refused { code: code as i32, fatal: false, message },
                None => Failure::Broken(message),
            },
        }
    }
}

pub(crate) type Outcome = Result<(), Failure>;

/// One order of the orchestrator.
pub(crate) struct Order {
    fields: Value,
    stopped: Arc<AtomicBool>,
}

impl Order {
    pub(crate) fn text(&self, name: &str) -> &str {
        self.fields[name].as_str().unwrap_or("")
    }

    pub(crate) fn number(&self, name: &str) -> i64 {
        self.fields[name].as_i64().unwrap_or(0)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.fields[name].as_bool().unwrap_or(false)
    }

    pub(crate) fn field(&self, name: &str) -> &Value {
        &self.fields[name]
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// A client's configuration that finds a restarted broker quickly.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.text("bootstrap"))
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "250")
            .set("log_level", "3");
        config
    }
}

pub(crate) fn say(event: &Value) {
    let mut out = std::io::stdout().lock();
    // A closed pipe means that nobody listens any more; the process is about to be ended.
    let _ = writeln!(out, "{event}");
    let _ = out.flush();
}

fn main() {
    let stopped = Arc::new(AtomicBool::new(false));
    let (sender, orders) = mpsc::channel::<Value>();
    let stopping = Arc::clone(&stopped);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str::<Value>(&line) else { continue };
            if order["cmd"] == "stop" {
                stopping.store(true, Ordering::Relaxed);
            } else if sender.send(order).is_err() {
                return;
            }
        }
        stopping.store(true, Ordering::Relaxed);
    });
    for fields in orders {
        stopped.store(false, Ordering::Relaxed);
        let order = Order { fields, stopped: Arc::clone(&stopped) };
        let outcome = match order.text("cmd") {
            "produce" => producing::produce(&order),
            "transact" => producing::transact(&order),
            "read" => consuming::read(&order),
            "group" => consuming::group(&order),
            "commit" => consuming::commit(&order),
            "committed" => consuming::committed(&order),
            "admin" => managing::admin(&order),
            other => Err(Failure::Broken(format!("there is no command {other:?}"))),
        };
        say(&match outcome {
            Ok(()) => json!({"t": "done"}),
            Err(Failure::Refused { code, fatal, message }) => {
                json!({"t": "refused", "code": code, "fatal": fatal, "e": message})
            }
            Err(Failure::Broken(message)) => json!({"t": "error", "e": message}),
        });
    }
}
