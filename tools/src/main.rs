//! `ouk`: looks at and administers a cluster, through Kafka's own protocol.
//!
//! It knows the client and how to talk to people and scripts: data on stdout in the format that was asked for, words
//! on stderr, documented exit codes. It deliberately does not know the broker.
//!
//! Reading order: `cli` (what there is), `settings` (how to reach the cluster), `commands` (what is done), `dev` (a
//! cluster on this machine), `output` and
//! `failure` (what comes out), then the small languages: `offsets`, `calendar`, `record_format`, `input_format`, `encoding`.
#![forbid(unsafe_code)]

mod calendar;
mod cli;
mod commands;
mod dev;
mod encoding;
mod failure;
mod input_format;
mod offsets;
mod output;
mod record_format;
mod settings;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use ouzel_runtime::cores::run_one;
use ouzel_runtime::disk::BackendChoice;
use serde_json::json;

use cli::{Cli, Command};
use commands::{Done, Session};
use failure::{Exit, Failure};
use output::{Format, Report};
use settings::{Given, KEYS, Settings};

fn main() -> ExitCode {
    if asks_for_keys(std::env::args()) {
        return finish(Ok(Done { report: Some(keys()), exit: None }), Format::Table);
    }
    // Wrong usage ends here, with words on stderr and exit code 2.
    let cli = Cli::parse();
    let given = Given {
        brokers: cli.global.brokers,
        options: cli.global.options,
        profile: cli.global.profile,
        format: cli.global.format,
    };
    let settings = match settings(&given) {
        Ok(settings) => settings,
        Err(failure) => return finish(Err(failure), Format::Table),
    };
    if let Command::Completion { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "ouk", &mut io::stdout());
        return ExitCode::SUCCESS;
    }
    let format = settings.format;
    // Nothing but sockets is used, so no ring is set up.
    let done = run_one(BackendChoice::Blocking, &[], move |runtime| async move {
        Session::new(runtime, settings).run(cli.command).await
    });
    finish(done.unwrap_or_else(|error| Err(error.into())), format)
}

/// Puts flags, environment and profiles together.
fn settings(given: &Given) -> Result<Settings, Failure> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let profiles = match settings::profiles_path(environment) {
        None => None,
        Some(path) => match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::usage(format!("read {}: {error}", path.display()))),
        },
    };
    settings::resolve(given, environment, profiles.as_deref())
}

/// Writes the report and turns the outcome into an exit code.
fn finish(outcome: Result<Done, Failure>, format: Format) -> ExitCode {
    let done = match outcome {
        Ok(done) => done,
        Err(failure) => {
            eprintln!("ouk: {failure}");
            return failure.exit.into();
        }
    };
    let mut out = io::stdout().lock();
    let written = match &done.report {
        Some(report) => report.write(format, &mut out).and_then(|()| out.flush()),
        None => Ok(()),
    };
    match written {
        // Whoever reads from us has seen enough, as `head` does.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("ouk: write to stdout: {error}");
            Exit::Failed.into()
        }
        _ => done.exit.map_or(ExitCode::SUCCESS, ExitCode::from),
    }
}

/// `-X list` names the keys, with or without a command beside it.
fn asks_for_keys(arguments: impl Iterator<Item = String>) -> bool {
    let words: Vec<String> = arguments.collect();
    words.windows(2).any(|pair| pair[0] == "-X" && pair[1] == "list")
        || words.iter().any(|word| word == "-Xlist")
}

fn keys() -> Report {
    let mut report = Report::new("options", &[("KEY", "key"), ("MEANING", "meaning")]);
    for (key, meaning) in KEYS {
        report.push(json!({ "key": key, "meaning": meaning }));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_keys_needs_no_command() {
        let asks = |line: &str| asks_for_keys(line.split(' ').map(str::to_owned));
        assert!(asks("ouk -X list") && asks("ouk topic list -X list"));
        assert!(!asks("ouk -X brokers=list topic list"));
    }
}
