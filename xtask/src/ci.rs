//! `cargo xtask ci`: everything a change must pass, in order. Stops at the first step that fails and closes with a
//! table of what each step took beside what it may take on two cores.

use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

/// One thing that must succeed.
struct Step {
    name: &'static str,
    slot: Slot,
    program: Program,
    arguments: &'static [&'static str],
    /// Added to the step's environment.
    environment: &'static [(&'static str, &'static str)],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    /// The cargo that runs us.
    Cargo,
    /// This binary, with another command.
    Xtask,
}

/// Steps share the time of a slot, so that a slow test cannot eat the clients' share unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    BuildAndLint,
    Tests,
    Simulation,
    Clients,
    Cluster,
    Demo,
}

impl Slot {
    const ALL: [Slot; 6] =
        [Slot::BuildAndLint, Slot::Tests, Slot::Simulation, Slot::Clients, Slot::Cluster, Slot::Demo];

    fn name(self) -> &'static str {
        match self {
            Slot::BuildAndLint => "build and lint",
            Slot::Tests => "tests",
            Slot::Simulation => "simulation",
            Slot::Clients => "clients",
            Slot::Cluster => "cluster",
            Slot::Demo => "demo",
        }
    }

    /// What the slot may take on two cores from a cold start.
    fn budget(self) -> Duration {
        let minutes = match self {
            Slot::BuildAndLint => 12,
            Slot::Tests => 10,
            // Five minutes of seeds, and the last of them to its end.
            Slot::Simulation => 7,
            Slot::Clients => 12,
            Slot::Cluster => 6,
            Slot::Demo => 5,
        };
        Duration::from_secs(minutes * 60)
    }
}

/// A step that takes this many times its slot hangs: it is ended, so that the run ends with a name and not with silence.
const HANG_FACTOR: u32 = 2;

#[rustfmt::skip]
const STEPS: &[Step] = &[
    Step { name: "fmt", slot: Slot::BuildAndLint, program: Program::Cargo, arguments: &["fmt", "--all", "--check"], environment: &[] },
    Step { name: "tidy", slot: Slot::BuildAndLint, program: Program::Xtask, arguments: &["tidy"], environment: &[] },
    Step {
        name: "clippy", slot: Slot::BuildAndLint, program: Program::Cargo,
        arguments: &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], environment: &[],
    },
    Step {
        name: "docs", slot: Slot::BuildAndLint, program: Program::Cargo,
        arguments: &["doc", "--workspace", "--no-deps"], environment: &[("RUSTDOCFLAGS", "-D warnings")],
    },
    // Word for word the command of the README.
    Step { name: "test", slot: Slot::Tests, program: Program::Cargo, arguments: &["test", "--workspace"], environment: &[] },
    // A workspace of its own, beside the clients; its tests are the harness's arithmetic.
    Step {
        name: "bench tests", slot: Slot::Tests, program: Program::Cargo,
        arguments: &["test", "--locked", "--manifest-path", "tests/bench/Cargo.toml", "--target-dir", "target/provision/bench"], environment: &[],
    },
    // Another RUSTFLAGS rebuilds everything; a folder of its own keeps that from the main one.
    Step {
        name: "loom", slot: Slot::Tests, program: Program::Cargo,
        arguments: &["test", "--package", "ouzel-sync", "--release", "--target-dir", "target/loom"],
        environment: &[("RUSTFLAGS", "--cfg loom"), ("LOOM_MAX_PREEMPTIONS", "3")],
    },
    // Unoptimised: the crates it needs are built by then for the most part, optimised they take longer than the seeds. Overflows and
    // debug assertions count as failures, too.
    Step { name: "sim", slot: Slot::Simulation, program: Program::Xtask, arguments: &["sim", "--minutes", "5"], environment: &[] },
    Step { name: "clients", slot: Slot::Clients, program: Program::Xtask, arguments: &["clients", "--require-all"], environment: &[] },
    Step {
        name: "cluster", slot: Slot::Cluster, program: Program::Xtask,
        arguments: &["clients", "--require-all", "--quick", "--nodes", "3", "--restart-loop"], environment: &[],
    },
    Step { name: "demo", slot: Slot::Demo, program: Program::Xtask, arguments: &["demo", "--records", "30000"], environment: &[] },
    Step { name: "bench smoke", slot: Slot::Demo, program: Program::Xtask, arguments: &["bench", "smoke"], environment: &[] },
];

const USAGE: &str = "usage: cargo xtask ci [--only STEP,...] [--skip STEP,...] [--list]";

/// Runs the steps and prints the table.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let steps = match chosen(arguments) {
        Ok(Some(steps)) => steps,
        Ok(None) => {
            for step in STEPS {
                println!("{:<12} {:<15} {}", step.name, step.slot.name(), command_line(step));
            }
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("ci: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut taken: Vec<Taken> = Vec::new();
    for step in &steps {
        println!("\n=== {}: {}", step.name, command_line(step));
        let started = Instant::now();
        let outcome = carry_out(root, step);
        let took = started.elapsed();
        println!("=== {}: {} after {}", step.name, outcome.word(), minutes(took));
        let passed = outcome == Outcome::Passed;
        taken.push(Taken { name: step.name, slot: step.slot, took, outcome });
        if !passed {
            break;
        }
    }
    print!("{}", table(&taken));
    let not_run: Vec<&str> = steps[taken.len()..].iter().map(|step| step.name).collect();
    if !not_run.is_empty() {
        println!("not run: {}", not_run.join(", "));
    }
    match taken.iter().all(|step| step.outcome == Outcome::Passed) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The steps that the arguments ask for, in order; `None` for a mere list.
fn chosen(arguments: &[String]) -> Result<Option<Vec<&'static Step>>, String> {
    let mut steps: Vec<&'static Step> = STEPS.iter().collect();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--list" {
            return Ok(None);
        }
        let keep_named = match word.as_str() {
            "--only" => true,
            "--skip" => false,
            other => return Err(format!("{other:?} is not an argument of ci")),
        };
        let names: Vec<&str> =
            words.next().ok_or_else(|| format!("{word} wants names of steps"))?.split(',').collect();
        if let Some(unknown) = names.iter().find(|name| !STEPS.iter().any(|step| step.name == **name)) {
            return Err(format!("there is no step {unknown:?}; --list names them"));
        }
        steps.retain(|step| names.contains(&step.name) == keep_named);
    }
    Ok(Some(steps))
}

fn command_line(step: &Step) -> String {
    let mut line = String::new();
    for (name, value) in step.environment {
        line.push_str(&format!("{name}={value:?} "));
    }
    line.push_str(match step.program {
        Program::Cargo => "cargo",
        Program::Xtask => "cargo xtask",
    });
    for argument in step.arguments {
        line.push(' ');
        line.push_str(argument);
    }
    line
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// Ended by us after `HANG_FACTOR` times its slot.
    Hung,
    /// The program could not be started.
    NotStarted,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::Hung => "HUNG",
            Outcome::NotStarted => "NOT STARTED",
        }
    }
}

fn carry_out(root: &Path, step: &Step) -> Outcome {
    let program = match step.program {
        Program::Cargo => std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        Program::Xtask => match std::env::current_exe() {
            Ok(path) => path.into_os_string(),
            Err(_) => return Outcome::NotStarted,
        },
    };
    let mut command = Command::new(program);
    command.args(step.arguments).envs(step.environment.iter().copied()).current_dir(root);
    command.stdin(std::process::Stdio::null());
    // A group of its own, so that whatever a hung step started ends with it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    match command.spawn() {
        Ok(child) => wait(child, step.slot.budget() * HANG_FACTOR),
        Err(error) => {
            eprintln!("ci: start {}: {error}", step.name);
            Outcome::NotStarted
        }
    }
}

/// Waits for the child, at most `longest`.
fn wait(mut child: Child, longest: Duration) -> Outcome {
    let group = child.id();
    let (ended, ending) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let hung = ending.recv_timeout(longest) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if hung {
            // The group's number is still ours: its leader has not been waited for.
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status();
        }
        hung
    });
    let status: std::io::Result<ExitStatus> = child.wait();
    drop(ended);
    match (watchdog.join(), status) {
        (Ok(true), _) => Outcome::Hung,
        (_, Ok(status)) if status.success() => Outcome::Passed,
        _ => Outcome::Failed,
    }
}

struct Taken {
    name: &'static str,
    slot: Slot,
    took: Duration,
    outcome: Outcome,
}

/// What each step took, and each slot beside its budget. Being late does not fail a run, machines differ; it is
/// said in capitals, and the hand that made it late reads it.
fn table(taken: &[Taken]) -> String {
    let mut text = String::from("\nstep           took     outcome\n");
    for step in taken {
        text.push_str(&format!("{:<14} {:>7}  {}\n", step.name, minutes(step.took), step.outcome.word()));
    }
    text.push_str("\nslot           took     budget\n");
    for slot in Slot::ALL {
        let took: Duration = taken.iter().filter(|step| step.slot == slot).map(|step| step.took).sum();
        if took.is_zero() {
            continue;
        }
        let late = if took > slot.budget() { "  OVER" } else { "" };
        text.push_str(&format!(
            "{:<14} {:>7}  {:>7}{late}\n",
            slot.name(),
            minutes(took),
            minutes(slot.budget())
        ));
    }
    let total: Duration = taken.iter().map(|step| step.took).sum();
    text.push_str(&format!("{:<14} {:>7}\n", "all", minutes(total)));
    text
}

/// Minutes and seconds, as people read a clock.
fn minutes(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round();
    format!("{:.0}:{:02.0}", (seconds / 60.0).floor(), seconds % 60.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(arguments: &[&str]) -> Result<Vec<&'static str>, String> {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        Ok(chosen(&arguments)?.unwrap_or_default().into_iter().map(|step| step.name).collect())
    }

    #[test]
    fn steps_are_chosen_by_name_and_keep_their_order() {
        assert_eq!(names(&[]).unwrap().len(), STEPS.len());
        assert_eq!(names(&["--only", "test,fmt"]).unwrap(), ["fmt", "test"]);
        assert!(!names(&["--skip", "clients"]).unwrap().contains(&"clients"));
        assert!(names(&["--only", "nonsense"]).unwrap_err().contains("nonsense"));
        assert!(names(&["--fast"]).is_err());
    }

    #[test]
    fn the_readme_command_is_run_as_it_is_written() {
        let test = STEPS.iter().find(|step| step.name == "test").unwrap();
        assert_eq!(command_line(test), "cargo test --workspace");
    }

    #[test]
    fn a_late_slot_is_said_aloud() {
        let taken = |seconds| {
            [Taken {
                name: "test",
                slot: Slot::Tests,
                took: Duration::from_secs(seconds),
                outcome: Outcome::Passed,
            }]
        };
        assert!(!table(&taken(600)).contains("OVER"));
        assert!(table(&taken(601)).contains("OVER"));
        assert!(table(&taken(601)).contains("10:01"), "{}", table(&taken(601)));
    }

    #[test]
    fn outcomes_tell_a_failure_from_a_hang() {
        let start = |script: &str| {
            let mut command = Command::new("sh");
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            command.args(["-c", script]).spawn().unwrap()
        };
        assert_eq!(wait(start("exit 0"), Duration::from_secs(60)), Outcome::Passed);
        assert_eq!(wait(start("exit 3"), Duration::from_secs(60)), Outcome::Failed);
        // The child reads a pipe that never closes, so only the watchdog can end it.
        assert_eq!(wait(start("tail -f /dev/null"), Duration::from_millis(50)), Outcome::Hung);
    }
}
