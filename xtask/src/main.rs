//! The workspace's automation: `cargo xtask <command>`. It knows no crate of the workspace; it runs binaries.
//!
//! One module per command, each with `run(root, arguments)`; `main` only finds the repository and picks the command.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command line tool talks on stdout")]

mod bench;
mod broker_process;
mod ci;
mod clients;
mod cluster;
mod demo;
mod fuzz;
mod jvm;
mod last_words;
mod provision;
mod sim;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <command> [arguments]

  bench    compare: beside Apache Kafka; smoke: what an idle broker costs; failover: how soon a cluster goes on
  ci       everything a change must pass, in order, with a table of times
  clients  real clients of six libraries and Kafka's tools against ouzel, or --against kafka for the yardstick; one broker or
           several (--nodes)
  demo     a year of flights through four real clients while the broker is killed (--against kafka for the yardstick)
  fuzz     the fuzz targets, for longer than cargo test gives them
  sim      the simulated cluster over many seeds, with a table of faults and violations
  tidy     the rules of the house that neither the compiler nor clippy knows
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let root = repository_root();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    match command {
        "ci" => ci::run(&root, rest),
        "clients" => clients::run(&root, rest),
        "bench" => bench::run(&root, rest),
        "demo" => demo::run(&root, rest),
        "sim" => sim::run(&root, rest),
        "fuzz" => fuzz::run(&root, rest),
        "tidy" => tidy::run(&root, rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        unknown => {
            eprint!("xtask: there is no command {unknown:?}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// The folder of the workspace's `Cargo.toml`: the parent of this package's.
fn repository_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
