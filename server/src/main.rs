//! The binary `ouzel`: from a command line to a node that serves, and back.
//!
//! This room knows the process: flags, environment and file, the order of start and stop, signals, log lines, exit codes,
//! and the admin HTTP with `/metrics`. It deliberately knows no decision of a broker: what a topic, a group or a request
//! is, is `ouzel_broker`'s, which it starts once, samples through a handle, and stops.
//!
//! Reading order: this file, then `cli` and `config` (what the node is started with), `admin`, `metrics` and `exposition`
//! (what it shows of itself), `signals`, `logging`, `machine`, and `failure` (how it ends).
#![forbid(unsafe_code)]

mod admin;
mod cli;
mod config;
#[cfg(test)]
mod documentation;
mod exposition;
mod failure;
mod logging;
mod machine;
mod metrics;
mod node;
mod signals;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use ouzel_metadata::{BrokerConfig, Layers};

use cli::Asked;
use config::{Choices, UsageError, environment, file};
use failure::Failure;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ouzel: {failure}");
            failure.exit.into()
        }
    }
}

/// The life of the process. The order matters:
///
/// 1. what is cheap and may be wrong comes first: flags, addresses; nothing is touched yet;
/// 2. the admin address is taken before the data directory, so that of two nodes with the same configuration the second
///    fails without a look at the first one's data;
/// 3. the ready line is written once clients are served and signals drain.
fn run() -> Result<(), Failure> {
    let started = Instant::now();
    let started_s = machine::now_s();
    let flags = match cli::parse(std::env::args_os())? {
        Asked::Start(flags) => flags,
        Asked::Words(words) => {
            say(&words);
            return Ok(());
        }
    };
    let choices = choices(*flags)?;
    let broker = BrokerConfig::resolve(&Layers::of_static(&choices.settings));
    let filter = environment::variable(environment::of_process, logging::VARIABLE)?;
    logging::start(broker.log_format, filter.as_deref())?;
    let signals = signals::take().map_err(|error| {
        Failure::not_started(format!("signals cannot be taken ({})", failure::reason(&error)))
    })?;
    prepare(&choices);

    let listener = admin::bind(&choices.admin_listener)?;
    let admin_address = listener.local_addr().map_err(|error| {
        Failure::not_started(format!("the admin address is unknown ({})", failure::reason(&error)))
    })?;
    tracing::info!("the admin HTTP listens at http://{admin_address}");
    let facts = admin::Facts {
        version: VERSION,
        node_id: choices.node_id.0,
        cores: choices.cores,
        data_dir: choices.data_dir.display().to_string(),
        admin_address: admin_address.to_string(),
        started,
        started_s,
    };
    let node = node::start(&choices, broker, {
        let facts = facts.clone();
        move |handle| admin::serve(listener, handle, facts)
    })?;
    let handle = node.handle();
    signals
        .drain_with({
            let handle = handle.clone();
            move || handle.stop()
        })
        .map_err(|error| {
            Failure::while_serving(format!("signals cannot be taken ({})", failure::reason(&error)))
        })?;
    say(&ready_line(
        &choices,
        &facts,
        &handle.kafka_address().to_string(),
        &handle.disk_backend().to_string(),
    ));
    node.join().map_err(Failure::while_serving)?;
    Ok(())
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn choices(flags: cli::Flags) -> Result<Choices, UsageError> {
    let path = match &flags.config {
        Some(path) => Some(path.clone()),
        None => environment::variable(environment::of_process, environment::CONFIG)?,
    };
    let mut layers = vec![flags.into_layer()?, environment::layer(environment::of_process)?];
    if let Some(path) = path {
        layers.push(file::layer(Path::new(&path))?);
    }
    config::choose(&layers, &machine::look())
}

/// What the process asks of the machine, and what people should know of its settings.
fn prepare(choices: &Choices) {
    match ouzel_runtime::limits::raise_open_files() {
        Ok(files) => tracing::debug!(files, "open files are limited to"),
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised: the old one holds"),
    }
    for (key, why) in choices.settings.without_effect() {
        tracing::warn!("the setting {key} has no effect: {why}");
    }
}

/// The one line that says the node serves; scripts read it.
fn ready_line(choices: &Choices, facts: &admin::Facts, kafka_address: &str, disk_backend: &str) -> String {
    let advertised = choices.advertised.as_ref().map(|address| format!(" (advertised as {address})"));
    format!(
        "ouzel {VERSION} ready: kafka {kafka_address}{}, admin http://{}, data {}, node {}, cores {}, disk {disk_backend}, \
         durability {}\n",
        advertised.unwrap_or_default(),
        facts.admin_address,
        facts.data_dir,
        facts.node_id,
        facts.cores,
        node::default_durability(&choices.settings),
    )
}

/// Writes to stdout. Nobody may be reading any more: the node serves all the same.
fn say(words: &str) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(words.as_bytes()).and_then(|()| stdout.flush()) {
        tracing::warn!(%error, "stdout cannot be written");
    }
}
