//! `cargo xtask sim`: the simulation over many seeds, one process each, as many at a time as there are cores.

mod tally;

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::tally::{Finding, Tally};
use crate::provision;

const USAGE: &str = "usage: cargo xtask sim [arguments]

  --seeds N        so many seeds (100, or without end with --minutes)
  --from S         from seed S on (a fresh one, which is printed)
  --minutes M      no seed is begun after M minutes
  --nodes 1|3|5    nodes of the simulated cluster
  --mode MODE      durable, write-caching or os
                   (what is not given each seed draws for itself: durable the most, lying disks in one of ten)
  --mutations      instead: plants wrongs in the replicas' code, one at a time; the judges must notice each
  --release        optimised: for a long run; the build takes minutes
";

/// A run that takes this long hangs; it is ended, and that is a violation.
const SEED_LONGEST: Duration = Duration::from_secs(300);
const REPORT_EVERY: Duration = Duration::from_secs(15);
const POLL_EVERY: Duration = Duration::from_millis(10);
/// More failures say nothing new, and nobody should wait for them.
const FAILURES_MAX: usize = 20;
const MODES: [&str; 3] = ["durable", "write-caching", "os"];

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    seeds: u64,
    from: Option<u64>,
    minutes: Option<u64>,
    nodes: Option<u64>,
    mode: Option<String>,
    release: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Options, String> {
        let mut options =
            Options { seeds: 0, from: None, minutes: None, nodes: None, mode: None, release: false };
        let mut seeds = None;
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            let number =
                |text: &String| text.parse::<u64>().map_err(|_| format!("{word} {text} is no whole number"));
            match word.as_str() {
                "--seeds" => seeds = Some(number(value()?)?),
                "--from" => options.from = Some(number(value()?)?),
                "--minutes" => options.minutes = Some(number(value()?)?),
                "--nodes" => match number(value()?)? {
                    nodes @ (1 | 3 | 5) => options.nodes = Some(nodes),
                    nodes => return Err(format!("--nodes knows 1, 3 and 5, not {nodes}")),
                },
                "--mode" => {
                    let mode = value()?;
                    if !MODES.contains(&mode.as_str()) {
                        return Err(format!("--mode knows durable, write-caching and os, not {mode:?}"));
                    }
                    options.mode = Some(mode.clone());
                }
                "--release" => options.release = true,
                other => return Err(format!("{other:?} is not an argument of sim")),
            }
        }
        options.seeds = seeds.unwrap_or(if options.minutes.is_some() { u64::MAX } else { 100 });
        Ok(options)
    }

    /// The arguments that make the simulation run one seed; with them it is replayed.
    ///
    /// What was not asked for is the seed's to draw: what this drew from the same digits would go hand in hand with it.
    fn arguments(&self, seed: u64) -> Vec<String> {
        let mut arguments = vec!["--seed".to_owned(), seed.to_string()];
        if let Some(mode) = &self.mode {
            arguments.extend(["--mode".to_owned(), mode.clone()]);
        }
        if let Some(nodes) = self.nodes {
            arguments.extend(["--nodes".to_owned(), nodes.to_string()]);
        }
        arguments
    }

    fn replay(&self, seed: u64) -> String {
        let release = if self.release { " --release" } else { "" };
        format!("cargo run{release} --package ouzel-sim -- {} --verbose", self.arguments(seed).join(" "))
    }
}

/// Runs the seeds and prints what came of them.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    if arguments == ["--mutations"] {
        return mutations(root);
    }
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(message) => {
            eprint!("sim: {message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match perform(root, &options) {
        Ok(tally) if tally.failed.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("sim: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Shows that the judges notice wrongs in the code that ships.
fn mutations(root: &Path) -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = ["test", "--package", "ouzel-sim", "--features", "planted", "--test", "planted"];
    match Command::new(cargo).args(words).current_dir(root).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sim: cargo cannot be run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Which seed is next, and what was found so far.
struct Progress {
    next: u64,
    left: u64,
    tally: Tally,
    reported: Instant,
}

fn perform(root: &Path, options: &Options) -> Result<Tally, String> {
    let binary = provision::binary(root, "ouzel-sim", "ouzel-sim", options.release)?;
    let folder = root.join("target/sim").join(std::process::id().to_string());
    provision::create_dir(&folder)?;
    let from = options.from.unwrap_or_else(fresh_seed);
    let began = Instant::now();
    let deadline = options.minutes.map(|minutes| began + Duration::from_secs(minutes * 60));
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    println!("sim: seeds from {from}, {workers} at a time");
    let progress =
        Mutex::new(Progress { next: from, left: options.seeds, tally: Tally::default(), reported: began });
    let lock = || progress.lock().unwrap_or_else(PoisonError::into_inner);
    let take = || {
        let mut progress = lock();
        let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if progress.left == 0 || over || progress.tally.failed.len() >= FAILURES_MAX {
            return None;
        }
        progress.left -= 1;
        progress.next += 1;
        Some(progress.next - 1)
    };
    let work = || -> Result<(), String> {
        while let Some(seed) = take() {
            let finding = run_seed(&binary, options, seed, &folder)?;
            let mut progress = lock();
            if let Some(first) = finding.violations.first() {
                println!("FAIL  seed {seed}: {first}\n      {}", options.replay(seed));
            }
            progress.tally.add(finding);
            if progress.reported.elapsed() >= REPORT_EVERY {
                progress.reported = Instant::now();
                println!("{}", line(&progress.tally, began.elapsed()));
            }
        }
        Ok(())
    };
    let outcomes: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let died = |_| Err("a worker panicked".to_owned());
        running.into_iter().map(|worker| worker.join().unwrap_or_else(died)).collect()
    });
    outcomes.into_iter().collect::<Result<(), String>>()?;
    let progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    let tally = progress.tally;
    println!("\n{}\n{}", line(&tally, began.elapsed()), tally.table());
    match tally.failed.is_empty() {
        true => provision::remove_dir(&folder)?,
        false => {
            for finding in &tally.failed {
                println!("seed {}: {}", finding.seed, options.replay(finding.seed));
            }
            println!("what they said is in {}", folder.display());
        }
    }
    Ok(tally)
}

fn line(tally: &Tally, took: Duration) -> String {
    format!(
        "sim: {} seeds in {:.0}s, {} violations in {} seeds",
        tally.seeds,
        took.as_secs_f64(),
        tally.violations(),
        tally.failed.len()
    )
}

/// A seed that no run before this one has had, most likely; small enough to be typed.
fn fresh_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % 1_000_000_000 * 1_000
}

fn run_seed(binary: &Path, options: &Options, seed: u64, folder: &Path) -> Result<Finding, String> {
    let log: PathBuf = folder.join(format!("seed-{seed}.log"));
    let create = || File::create(&log).map_err(|e| format!("create {}: {e}", log.display()));
    let out = create()?;
    let err = out.try_clone().map_err(|e| format!("share {}: {e}", log.display()))?;
    let child = Command::new(binary)
        .args(options.arguments(seed))
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(|e| format!("start {}: {e}", binary.display()))?;
    let ended = wait(child)?;
    let said = std::fs::read(&log).map_err(|e| format!("read {}: {e}", log.display()))?;
    let finding = match ended {
        Some(status) => {
            let code = status.code();
            let oddly = match code {
                Some(0 | 1) => None,
                Some(code) => Some(format!("the process ended with {code}")),
                None => Some(format!("the process was ended by signal {}", status.signal().unwrap_or(0))),
            };
            Finding::read(seed, &String::from_utf8_lossy(&said), code == Some(0), oddly)
        }
        None => {
            let hung = format!("the run did not end within {} s", SEED_LONGEST.as_secs());
            Finding::read(seed, &String::from_utf8_lossy(&said), false, Some(hung))
        }
    };
    if finding.violations.is_empty() {
        let _ = std::fs::remove_file(&log);
    }
    Ok(finding)
}

/// Waits for the end; `None` if it had to be brought about.
fn wait(mut child: Child) -> Result<Option<std::process::ExitStatus>, String> {
    let began = Instant::now();
    loop {
        match child.try_wait().map_err(|e| format!("wait for a seed: {e}"))? {
            Some(status) => return Ok(Some(status)),
            None if began.elapsed() > SEED_LONGEST => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(None);
            }
            None => std::thread::sleep(POLL_EVERY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_seed_is_replayed_by_the_arguments_it_was_run_with() {
        let options = parse("--seeds 10 --from 7 --nodes 3").unwrap();
        assert_eq!((options.seeds, options.from), (10, Some(7)));
        assert_eq!(options.arguments(9), ["--seed", "9", "--nodes", "3"]);
        assert!(options.replay(9).ends_with("-- --seed 9 --nodes 3 --verbose"));
        assert_eq!(parse("--mode os").unwrap().arguments(9), ["--seed", "9", "--mode", "os"]);
        assert!(parse("").unwrap().replay(1075).ends_with("-- --seed 1075 --verbose"));
    }

    #[test]
    fn minutes_alone_have_no_last_seed() {
        assert_eq!(parse("--minutes 5").unwrap().seeds, u64::MAX);
        assert_eq!(parse("--minutes 5 --seeds 3").unwrap().seeds, 3);
        assert_eq!(parse("").unwrap().seeds, 100);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (line, word) in
            [("--nodes 2", "2"), ("--mode tape", "tape"), ("--seeds many", "many"), ("--speed 3", "--speed")]
        {
            assert!(parse(line).unwrap_err().contains(word), "{line}");
        }
    }
}
