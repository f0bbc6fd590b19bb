//! `ouzel-sim --seed N`: runs one seed and says what the judges found.
//!
//! One seed, one process. A seed that failed is replayed by its number, with `--verbose` for all that happened. Exit code
//! 0: nothing was broken; 1: a promise was, or the run failed; 2: the command line is wrong.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use ouzel_sim::brokers;
use ouzel_sim::check::Verdict;
use ouzel_sim::trace::Trace;
use ouzel_storage::Durability;

const USAGE: &str = "usage: ouzel-sim --seed N [--level brokers|exchange] [--nodes 1|3|5] \
[--mode durable|write-caching|os] [--lying-disks] [--load-s N] [--verbose]";

fn main() -> ExitCode {
    let choices = match Choices::read(std::env::args().skip(1)) {
        Ok(choices) => choices,
        Err(error) => {
            say(&mut std::io::stderr(), &format!("{error}\n{USAGE}\n"));
            return ExitCode::from(2);
        }
    };
    let outcome = match choices.level {
        Level::Exchange => exchange(&choices),
        Level::Brokers => run_brokers(&choices),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&mut std::io::stderr(), &format!("seed {}: {error}\n", choices.brokers.seed));
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<bool, Box<dyn std::error::Error + Send + Sync>>;

fn exchange(choices: &Choices) -> Outcome {
    let trace = ouzel_sim::exchange::run(choices.brokers.seed)?;
    say(&mut std::io::stdout(), &trace);
    Ok(true)
}

fn run_brokers(choices: &Choices) -> Outcome {
    let report = brokers::run(&choices.brokers, choices.trace())?;
    let options = &choices.brokers;
    let what =
        format!("brokers, {} nodes, {:?}, {} faults", options.nodes, options.durability, report.faults);
    Ok(conclude(options.seed, &what, &report.verdict))
}

/// Says what was found; true if nothing was broken.
fn conclude(seed: u64, what: &str, verdict: &Verdict) -> bool {
    let mut words = String::new();
    for violation in &verdict.violations {
        words += &format!("seed {seed}: VIOLATION {violation}\n");
    }
    words += &format!("seed {seed}: {what}: {} violations, {:?}\n", verdict.violations.len(), verdict.counts);
    say(&mut std::io::stdout(), &words);
    verdict.violations.is_empty()
}

fn say(to: &mut impl Write, words: &str) {
    // Whoever closed the pipe does not want to hear it.
    let _ = to.write_all(words.as_bytes());
}

enum Level {
    Exchange,
    Brokers,
}

struct Choices {
    level: Level,
    verbose: bool,
    brokers: brokers::Options,
}

impl Choices {
    /// Where the run notes what happens: on stdout among the nodes' log lines, or nowhere to be seen.
    fn trace(&self) -> Trace {
        if !self.verbose {
            return Trace::default();
        }
        let subscriber =
            tracing_subscriber::fmt().without_time().with_ansi(false).with_max_level(tracing::Level::INFO);
        subscriber.init();
        Trace::echoing()
    }

    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Choices, String> {
        let mut choices =
            Choices { level: Level::Brokers, verbose: false, brokers: brokers::Options::new(0) };
        let mut seeded = false;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--seed" => {
                    choices.brokers.seed = number(&value()?)?;
                    seeded = true;
                }
                "--nodes" => choices.brokers.nodes = number(&value()?)?,
                "--load-s" => choices.brokers.load = std::time::Duration::from_secs(number(&value()?)?),
                "--mode" => {
                    choices.brokers.durability = match value()?.as_str() {
                        "durable" => Durability::Durable,
                        "write-caching" => Durability::WriteCaching,
                        "os" => Durability::Os,
                        other => return Err(format!("there is no mode {other:?}")),
                    }
                }
                "--level" => {
                    choices.level = match value()?.as_str() {
                        "brokers" => Level::Brokers,
                        "exchange" => Level::Exchange,
                        other => return Err(format!("there is no level {other:?}")),
                    }
                }
                "--lying-disks" => choices.brokers.lying_disks = true,
                "--verbose" => choices.verbose = true,
                unknown => return Err(format!("there is no flag {unknown:?}")),
            }
        }
        if seeded { Ok(choices) } else { Err("--seed is missing".to_owned()) }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}
