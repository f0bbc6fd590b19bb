//! `ouzel-sim --seed N`: runs one seed and says what the judges found.
//!
//! One seed, one process. A seed that failed is replayed by its number, with `--verbose` for all that happened. Exit code
//! 0: nothing was broken; 1: a promise was, or the run failed; 2: the command line is wrong.
#![forbid(unsafe_code)]

use std::io::Write;
use std::panic::{Location, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ouzel_runtime::sim::Rng;
use ouzel_sim::check::Verdict;
use ouzel_sim::events::Events;
use ouzel_sim::trace::Trace;
use ouzel_sim::{brokers, groups};
use ouzel_storage::Durability;
use tracing_subscriber::EnvFilter;

const USAGE: &str = "usage: ouzel-sim --seed N [--level groups|brokers|cluster|exchange] [--nodes 1|3|5] \
[--mode durable|write-caching|os] [--lying-disks] [--load-s N] [--verbose]

What is not given the seed chooses: mostly whole clusters and groups, some runs of one broker, more durable ones than
others, disks that lie in one of ten.
RUST_LOG chooses the nodes' log lines of --verbose.";

fn main() -> ExitCode {
    let choices = match Choices::read(std::env::args().skip(1)) {
        Ok(choices) => choices,
        Err(error) => {
            say(&mut std::io::stderr(), &format!("{error}\n{USAGE}\n"));
            return ExitCode::from(2);
        }
    };
    let has_asserted = watch_for_assertions();
    let outcome = catch_unwind(|| match choices.level() {
        Level::Exchange => exchange(&choices),
        Level::Brokers => run_brokers(&choices, brokers::Options::single(choices.seed)),
        Level::Cluster => run_brokers(&choices, brokers::Options::cluster(choices.seed)),
        Level::Groups => Ok(run_groups(&choices)),
    });
    match outcome {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        _ if choices.lying_disks() && has_asserted.load(Ordering::Relaxed) => {
            let events = "seeds-on-lying-disks: 1, seeds-ended-by-an-assertion: 1";
            say(&mut std::io::stdout(), &format!("seed {}: events {{ {events} }}\n", choices.seed));
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => {
            say(&mut std::io::stderr(), &format!("seed {}: {error}\n", choices.seed));
            ExitCode::FAILURE
        }
        Err(panic) => resume_unwind(panic),
    }
}

/// Debug builds of openraft assert what holds as long as disks keep what they said is flushed, such as that nobody votes twice. Where
/// they do not, that ends the run, and says nothing of us; a release goes on, and is judged.
fn watch_for_assertions() -> Arc<AtomicBool> {
    let has_asserted = Arc::new(AtomicBool::new(false));
    let (noting, told) = (has_asserted.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        let is_openrafts = |at: &Location<'_>| at.file().contains("/openraft-");
        if cfg!(debug_assertions) && panic.location().is_some_and(is_openrafts) {
            noting.store(true, Ordering::Relaxed);
        }
        told(panic);
    }));
    has_asserted
}

type Outcome = Result<bool, Box<dyn std::error::Error + Send + Sync>>;

fn exchange(choices: &Choices) -> Outcome {
    let trace = ouzel_sim::exchange::run(choices.seed)?;
    say(&mut std::io::stdout(), &trace);
    Ok(true)
}

fn run_brokers(choices: &Choices, default: brokers::Options) -> Outcome {
    let options = brokers::Options {
        nodes: choices.nodes.unwrap_or(default.nodes),
        durability: choices.durability.unwrap_or(default.durability),
        lying_disks: choices.lying_disks(),
        load: choices.load.unwrap_or(default.load),
        ..default
    };
    let report = brokers::run(&options, choices.trace())?;
    report.events.add(if options.nodes > 1 { "seeds-of-clusters" } else { "seeds-of-one-broker" }, 1);
    tell_disks(&options.durability, options.lying_disks, &report.events);
    let what =
        format!("brokers, {} nodes, {:?}, {} faults", options.nodes, options.durability, report.faults);
    Ok(conclude(options.seed, &what, &report.verdict, &report.events))
}

fn run_groups(choices: &Choices) -> bool {
    let default = groups::Options::new(choices.seed);
    let options = groups::Options {
        nodes: choices.nodes.unwrap_or(if choices.seed.is_multiple_of(3) { 5 } else { 3 }),
        durability: choices.durability,
        lying_disks: choices.lying_disks(),
        load: choices.load.unwrap_or(default.load),
        ..default
    };
    let report = groups::run(&options, choices.trace());
    report.events.add("seeds-of-groups", 1);
    tell_disks(&report.durability, options.lying_disks, &report.events);
    let what = format!("groups, {} nodes, {:?}, {} faults", options.nodes, report.durability, report.faults);
    conclude(options.seed, &what, &report.verdict, &report.events)
}

/// Counts the run by what its disks keep.
fn tell_disks(durability: &Durability, lying: bool, events: &Events) {
    let mode = match durability {
        Durability::Durable => "seeds-durable",
        Durability::WriteCaching => "seeds-write-caching",
        Durability::Os => "seeds-os",
    };
    events.add(mode, 1);
    events.add("seeds-on-lying-disks", u64::from(lying));
}

/// Says what was found; true if nothing was broken.
fn conclude(seed: u64, what: &str, verdict: &Verdict, events: &Events) -> bool {
    let mut words = String::new();
    for violation in &verdict.violations {
        words += &format!("seed {seed}: VIOLATION {violation}\n");
    }
    words += &format!("seed {seed}: {what}: {} violations, {:?}\n", verdict.violations.len(), verdict.counts);
    words += &format!("seed {seed}: events {{ {events} }}\n");
    say(&mut std::io::stdout(), &words);
    verdict.violations.is_empty()
}

fn say(to: &mut impl Write, words: &str) {
    // Whoever closed the pipe does not want to hear it.
    let _ = to.write_all(words.as_bytes());
}

#[derive(Clone, Copy)]
enum Level {
    Exchange,
    Brokers,
    Cluster,
    Groups,
}

#[derive(Default)]
struct Choices {
    seed: u64,
    level: Option<Level>,
    nodes: Option<usize>,
    durability: Option<Durability>,
    lying_disks: bool,
    load: Option<Duration>,
    verbose: bool,
}

impl Choices {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Choices, String> {
        let mut choices = Choices::default();
        let mut seeded = false;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--seed" => {
                    choices.seed = number(&value()?)?;
                    seeded = true;
                }
                "--nodes" => choices.nodes = Some(number(&value()?)?),
                "--load-s" => choices.load = Some(Duration::from_secs(number(&value()?)?)),
                "--mode" => {
                    choices.durability = Some(match value()?.as_str() {
                        "durable" => Durability::Durable,
                        "write-caching" => Durability::WriteCaching,
                        "os" => Durability::Os,
                        other => return Err(format!("there is no mode {other:?}")),
                    });
                }
                "--level" => {
                    choices.level = Some(match value()?.as_str() {
                        "groups" => Level::Groups,
                        "brokers" => Level::Brokers,
                        "cluster" => Level::Cluster,
                        "exchange" => Level::Exchange,
                        other => return Err(format!("there is no level {other:?}")),
                    });
                }
                "--lying-disks" => choices.lying_disks = true,
                "--verbose" => choices.verbose = true,
                unknown => return Err(format!("there is no flag {unknown:?}")),
            }
        }
        if seeded { Ok(choices) } else { Err("--seed is missing".to_owned()) }
    }

    /// One broker is what one node is; else the seed chooses.
    fn level(&self) -> Level {
        match (self.level, self.nodes) {
            (Some(level), _) => level,
            (None, Some(1)) => Level::Brokers,
            (None, nodes) => match self.seed % 10 {
                4 if nodes.is_none() => Level::Brokers,
                0 | 2 | 4 | 6 | 8 => Level::Cluster,
                _ => Level::Groups,
            },
        }
    }

    /// Whatever the level: what is drawn here has nothing to do with what draws that.
    fn lying_disks(&self) -> bool {
        self.lying_disks || Rng::new(self.seed).fork(0x11e5).chance(1, 10)
    }

    /// Where the run notes what happens: on stdout among the nodes' log lines, or nowhere to be seen.
    fn trace(&self) -> Trace {
        if !self.verbose {
            return Trace::default();
        }
        // openraft warns of every write whose answer nobody waits for.
        let filter = EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| EnvFilter::new("info,openraft=error,turmoil=warn"));
        tracing_subscriber::fmt().without_time().with_ansi(false).with_env_filter(filter).init();
        Trace::echoing()
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The command that runs many seeds once drew the mode from the digit that chooses the level: for thousands of seeds
    /// whole clusters were always durable, and groups never.
    #[test]
    fn every_level_meets_every_mode_on_both_kinds_of_disks() {
        let mut met = BTreeSet::new();
        for seed in 0..2000 {
            let choices = Choices { seed, ..Choices::default() };
            let (level, durability) = match choices.level() {
                Level::Cluster => ("cluster", brokers::Options::cluster(seed).durability),
                Level::Brokers => ("brokers", brokers::Options::single(seed).durability),
                Level::Groups => ("groups", groups::Options::new(seed).durability()),
                Level::Exchange => panic!("seed {seed} chose what is only run by name"),
            };
            met.insert((level, format!("{durability:?}"), choices.lying_disks()));
        }
        assert_eq!(met.len(), 3 * 3 * 2, "{met:?}");
    }
}
