//! `cargo xtask bench compare`: Apache Kafka, ouzel and a null broker on the same machine, with the same clients, in the
//! same minutes. Each workload of the table is played by one broker after the other, round by round, each time on fresh
//! data; docs/performance.md says what each figure is and which rules keep the comparison fair.
//!
//! Reading order: `workload` (the table), `contender` (the brokers and what they promise), `driving` (how a row is
//! played), `usage` (what it cost), `row`, `ratio` (what is compared), `report` and `plot`.

mod contender;
mod driving;
mod kafka_tools;
mod pinning;
mod plot;
mod program;
mod ratio;
mod report;
mod row;
mod usage;
mod workload;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use self::contender::{Contender, Place};
use self::driving::{Bench, Phases};
use self::pinning::Pinning;
use self::report::Report;
use self::row::Row;
use self::workload::{WORKLOADS, Workload};
use super::machine;
use crate::provision;

/// What is to be run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    quick: bool,
    list: bool,
    rounds: usize,
    /// Parts of names; a workload is played if it has any of them.
    filters: Vec<String>,
}

/// The short form ends by then, whatever is left.
const QUICK_LONGEST: Duration = Duration::from_secs(600);

const QUICK: Phases = Phases { warm: Duration::from_secs(6), measured: Duration::from_secs(5) };
/// A JVM compiles for about a minute until it is as fast as it gets.
const WHOLE: Phases = Phases { warm: Duration::from_secs(60), measured: Duration::from_secs(30) };

impl Options {
    /// Reads the arguments; `None` if they are not understood.
    pub(super) fn parse(arguments: &[&str]) -> Option<Options> {
        let quick = arguments.contains(&"--quick");
        let mut options =
            Options { quick, list: false, rounds: if quick { 2 } else { 5 }, filters: Vec::new() };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            match *name {
                "--quick" => {}
                "--list" => options.list = true,
                "--rounds" => options.rounds = arguments.next()?.parse().ok().filter(|rounds| *rounds > 0)?,
                "--filter" => options.filters.extend(arguments.next()?.split(',').map(str::to_owned)),
                _ => return None,
            }
        }
        Some(options)
    }

    fn workloads(&self) -> Vec<&'static Workload> {
        let named = |workload: &Workload| {
            self.filters.is_empty() || self.filters.iter().any(|part| workload.name.contains(part.as_str()))
        };
        // Who names a workload wants it, in the short form as well.
        WORKLOADS
            .iter()
            .filter(|workload| named(workload))
            .filter(|workload| !self.quick || workload.quick || !self.filters.is_empty())
            .collect()
    }

    fn phases(&self) -> Phases {
        if self.quick { QUICK } else { WHOLE }
    }
}

/// Runs the comparison, and leaves text, JSON and plot in `target/bench/compare`.
pub(super) fn run(root: &Path, options: &Options) -> Result<(), String> {
    let workloads = options.workloads();
    if options.list || workloads.is_empty() {
        for workload in workloads {
            println!("{:<34} {:<9} {:?}", workload.name, workload.mode.word(), workload.load);
        }
        return Ok(());
    }
    let pinning = Pinning::probe()?;
    println!("        provisioning brokers and drivers");
    let tools = Tools::provide(root)?;
    let folder = root.join("target/bench/compare");
    provision::remove_dir(&folder)?;
    provision::create_dir(&folder)?;
    let mut report = Report::new(facts(root, &folder, pinning), options.quick, options.phases());
    // From here on: building takes all cores, and the facts count them.
    pinning.hold_ourselves()?;
    let began = Instant::now();
    for workload in workloads {
        println!("{} ({})", workload.name, workload.mode.word());
        if options.quick && began.elapsed() > QUICK_LONGEST.saturating_sub(expected(workload, options)) {
            println!("        left out: the short form has no time left");
            report.leave_out(workload, "the short form had no time left");
            continue;
        }
        let (rows, outcome) = play(root, &folder, &tools, pinning, workload, options);
        // What was measured stays, whoever failed after it.
        if !rows.is_empty() {
            report.add(workload, rows);
        }
        if let Err(reason) = outcome {
            println!("        broken off: {reason}");
            report.leave_out(workload, &reason);
        }
    }
    let text = report.text();
    print!("\n{text}");
    provision::write(&folder.join("compare.txt"), &text)?;
    provision::write(&folder.join("compare.json"), &format!("{:#}\n", report.json()))?;
    provision::write(&folder.join("compare.svg"), &plot::svg(&report))?;
    println!("in {:.0} s; text, JSON and plot are in {}", began.elapsed().as_secs_f64(), folder.display());
    match report.left_out() {
        0 => Ok(()),
        count => Err(format!("{count} workloads were left out or broken off")),
    }
}

/// About how long a workload takes: enough to know whether to begin it.
fn expected(workload: &Workload, options: &Options) -> Duration {
    let phases = options.phases();
    // A start, a stop and the memory that is touched take seconds, Kafka's the most.
    let row = phases.warm + phases.measured + Duration::from_secs(8);
    row * (workload.contenders().len() * options.rounds) as u32
}

/// What is run beside the brokers.
#[derive(Debug)]
struct Tools {
    class_path: String,
    /// Built once: a row must not wait for a build, nor two rows be of different sources.
    ouzel: PathBuf,
    /// The folder of the bench's own binaries.
    folder: PathBuf,
}

impl Tools {
    fn provide(root: &Path) -> Result<Tools, String> {
        let class_path = provision::kafka_class_path(root)?;
        let ouzel = provision::ouzel_release(root)?;
        let target = provision::folder(root).join("bench");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--release", "--locked", "--target-dir"]).arg(&target);
        build.current_dir(root.join("tests/bench"));
        provision::run_quietly("build the bench's drivers", &mut build)?;
        Ok(Tools { class_path, ouzel, folder: target.join("release") })
    }
}

/// Plays one workload on every broker in turn, round by round, until one fails.
fn play(
    root: &Path,
    folder: &Path,
    tools: &Tools,
    pinning: Pinning,
    workload: &'static Workload,
    options: &Options,
) -> (Vec<Row>, Result<(), String>) {
    let mut rows = Vec::new();
    let outcome = play_rounds(root, folder, tools, pinning, workload, options, &mut rows);
    (rows, outcome)
}

fn play_rounds(
    root: &Path,
    folder: &Path,
    tools: &Tools,
    pinning: Pinning,
    workload: &'static Workload,
    options: &Options,
    rows: &mut Vec<Row>,
) -> Result<(), String> {
    for round in 1..=options.rounds {
        for contender in workload.contenders() {
            // The floor moves little; the short form looks at it once.
            if contender == Contender::Null && options.quick && round > 1 {
                continue;
            }
            let room = folder.join("row");
            provision::remove_dir(&room)?;
            let row = play_row(root, &room, tools, pinning, workload, contender, round, options.phases())
                .map_err(|reason| format!("{}, round {round}: {reason}", contender.name()))?;
            println!("        {}", row.text());
            rows.push(row);
            provision::remove_dir(&room)?;
        }
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "one place that knows everything about a row")]
fn play_row(
    root: &Path,
    room: &Path,
    tools: &Tools,
    pinning: Pinning,
    workload: &'static Workload,
    contender: Contender,
    round: usize,
    phases: Phases,
) -> Result<Row, String> {
    provision::create_dir(room)?;
    touch_memory(tools, pinning)?;
    let place = Place {
        root,
        folder: &room.join("broker"),
        ouzel: &tools.ouzel,
        tools: &tools.folder,
        pinning: &pinning,
        mode: workload.mode,
        partitions: workload.partitions,
        settings: workload.settings,
    };
    let mut broker = contender.prepare(&place)?;
    let ready_ms = broker.start()?.as_secs_f64() * 1e3;
    let pid = broker.pid().ok_or("the broker runs no more")?;
    let bench = Bench {
        folder: room,
        class_path: &tools.class_path,
        pinning,
        phases,
        port: broker.kafka_port(),
        pid,
        makes_topics: contender != Contender::Null,
    };
    let (load, usage) =
        bench.carry_out(workload.load).map_err(|reason| format!("{reason}\n{}", broker.last_words()))?;
    if !broker.is_running() {
        return Err(format!("the broker ended in the middle; {}", broker.last_words()));
    }
    broker.stop()?;
    Ok(Row { contender, round, load, usage, ready_ms })
}

/// Memory that a row may fill, in bytes. The first touch of a page of a virtual machine costs ten times what later ones
/// do, and whoever came first would pay for those that follow.
const TOUCHED_BYTES: u64 = 6 << 30;

fn touch_memory(tools: &Tools, pinning: Pinning) -> Result<(), String> {
    let mut words = pinning.driver();
    words.extend([tools.folder.join("groundwork").display().to_string(), "touch".to_owned()]);
    words.push(TOUCHED_BYTES.to_string());
    provision::run_quietly("touch memory", Command::new(&words[0]).args(&words[1..]))
}

/// The machine and all versions.
fn facts(root: &Path, data: &Path, pinning: Pinning) -> serde_json::Value {
    let mut facts = machine::facts(root, data);
    facts["kafka"] = provision::KAFKA_VERSION.into();
    facts["java"] = machine::java_version().into();
    facts["broker_core"] = pinning.broker_core.into();
    facts["driver_core"] = pinning.driver_core.into();
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let options = Options::parse(&["--quick", "--filter", "idle,x100", "--rounds", "3"]).unwrap();
        assert!(options.quick && options.rounds == 3);
        assert!(options.workloads().iter().any(|workload| workload.name == "idle"));
        assert!(options.workloads().iter().any(|workload| !workload.quick), "who names it wants it");
        assert_eq!(Options::parse(&[]).unwrap().rounds, 5);
        assert_eq!(Options::parse(&["--quick"]).unwrap().rounds, 2);
        for wrong in [&["--rounds"][..], &["--rounds", "0"], &["--filter"], &["x"]] {
            assert_eq!(Options::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_short_form_fits_its_time() {
        let options = Options::parse(&["--quick"]).unwrap();
        let all: Duration = options.workloads().iter().map(|workload| expected(workload, &options)).sum();
        assert!(all <= QUICK_LONGEST, "{all:?}");
    }
}
