//! `cargo xtask bench compare`: Apache Kafka, ouzel and a null broker on the same machine, with the same clients, in the
//! same minutes. Each workload of the table is played by one broker after the other, round by round, each time on fresh
//! data; docs/performance.md says what each figure is and which rules keep the comparison fair.
//!
//! Reading order: `workload` (the table), `contender` (the brokers and what they promise), `driving` (how a row is
//! played), `warmth`, `usage` (what it cost), `row`, `ratio` (what is compared), `goal` (what is to be reached), `report` and `plot`.

mod contender;
mod driving;
mod goal;
mod holds;
mod kafka_tools;
mod open_loop;
mod pinning;
mod plot;
mod program;
mod ratio;
mod report;
mod row;
mod usage;
mod warmth;
mod workload;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use self::contender::{Contender, Place};
use self::driving::{Bench, Outcome, Phases, Starting};
use self::pinning::Pinning;
use self::report::Report;
use self::row::Row;
use self::workload::{Load, Rate, WORKLOADS, Workload};
use super::machine;
use crate::provision;

/// What is to be run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    quick: bool,
    list: bool,
    rounds: usize,
    /// Brokers of a cluster: workloads of that size are played.
    nodes: u32,
    /// How long the long workload is measured; without it, only who names that workload plays it.
    minutes: Option<u64>,
    /// Parts of names; a workload is played if it has any of them.
    filters: Vec<String>,
}

/// The short form ends by then, whatever is left.
const QUICK_LONGEST: Duration = Duration::from_secs(600);

const QUICK: Phases = Phases { warm: Duration::from_secs(4), measured: Duration::from_secs(4) };
/// A JVM compiles for about a minute until it is as fast as it gets.
const WHOLE: Phases = Phases { warm: Duration::from_secs(60), measured: Duration::from_secs(30) };

impl Options {
    /// Reads the arguments; `None` if they are not understood.
    pub(super) fn parse(arguments: &[&str]) -> Option<Options> {
        let quick = arguments.contains(&"--quick");
        let mut options = Options {
            quick,
            list: false,
            rounds: if quick { 2 } else { 5 },
            nodes: 1,
            minutes: None,
            filters: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            match *name {
                "--quick" => {}
                "--list" => options.list = true,
                "--rounds" => options.rounds = arguments.next()?.parse().ok().filter(|rounds| *rounds > 0)?,
                "--nodes" => {
                    options.nodes = arguments.next()?.parse().ok().filter(|nodes| matches!(nodes, 1 | 3))?
                }
                "--minutes" => {
                    options.minutes = Some(arguments.next()?.parse().ok().filter(|minutes| *minutes > 0)?)
                }
                "--filter" => options.filters.push((*arguments.next()?).to_owned()),
                _ => return None,
            }
        }
        Some(options)
    }

    fn workloads(&self) -> Vec<&'static Workload> {
        let chosen = |workload: &Workload| {
            workload.nodes == self.nodes
                && match self.filters.is_empty() {
                    // Who names a workload wants it, in the short form as well.
                    false => self.filters.iter().any(|part| workload.name.contains(part.as_str())),
                    true if workload.is_long() => self.minutes.is_some(),
                    true => !self.quick || workload.quick,
                }
        };
        let needed: Vec<&str> =
            WORKLOADS.iter().filter(|workload| chosen(workload)).filter_map(Workload::needs).collect();
        WORKLOADS.iter().filter(|workload| chosen(workload) || needed.contains(&workload.name)).collect()
    }

    fn usual_phases(&self) -> Phases {
        if self.quick { QUICK } else { WHOLE }
    }

    fn phases(&self, workload: &Workload) -> Phases {
        let minutes = self.minutes.unwrap_or(if self.quick { 2 } else { 60 });
        workload.phases(self.usual_phases(), minutes)
    }

    /// An hour is not played five times.
    fn rounds(&self, workload: &Workload) -> usize {
        if workload.is_long() { 1 } else { self.rounds }
    }
}

/// Runs the comparison, and leaves text, JSON and plot in `target/bench/compare`.
pub(super) fn run(root: &Path, options: &Options) -> Result<(), String> {
    let workloads = options.workloads();
    if options.list || workloads.is_empty() {
        for workload in workloads {
            println!("{:<48} {:<9} {:?}", workload.name, workload.mode.word(), workload.load);
        }
        return Ok(());
    }
    let pinning = Pinning::probe()?;
    println!("        provisioning brokers and drivers");
    let tools = Tools::provide(root)?;
    let folder = root.join("target/bench/compare");
    provision::remove_dir(&folder)?;
    provision::create_dir(&folder)?;
    let mut report = Report::new(facts(root, &folder, pinning), options.quick, options.usual_phases());
    // From here on: building takes all cores, and the facts count them.
    pinning.hold_ourselves()?;
    let began = Instant::now();
    for workload in workloads {
        println!("{} ({})", workload.name, workload.mode.word());
        let is_bounded = options.quick && options.minutes.is_none();
        if is_bounded && began.elapsed() > QUICK_LONGEST.saturating_sub(expected(workload, options)) {
            println!("        left out: the short form has no time left");
            report.leave_out(workload, "the short form had no time left");
            continue;
        }
        if let Err(reason) =
            has_room(driving::disk_bytes_max(workload.load, options.phases(workload)), &folder)
        {
            println!("        left out: {reason}");
            report.leave_out(workload, &reason);
            continue;
        }
        let rate = match offered(workload, &report) {
            Ok(rate) => rate,
            Err(reason) => {
                println!("        left out: {reason}");
                report.leave_out(workload, &reason);
                continue;
            }
        };
        let hall = Hall { root, folder: &folder, tools: &tools, pinning, phases: options.phases(workload) };
        let (rows, outcome) = hall.play(workload, rate, options);
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
    let Phases { warm, measured } = options.phases(workload);
    let row = |contender: Contender| {
        // A start, a stop and the memory that is touched.
        let around = if contender == Contender::Kafka { 8 } else { 3 };
        let rounds = if contender == Contender::Null && options.quick { 1 } else { options.rounds(workload) };
        (warm + measured + Duration::from_secs(around) * workload.nodes) * rounds as u32
    };
    workload.contenders().into_iter().map(row).sum()
}

/// What is run beside the brokers.
#[derive(Debug)]
struct Tools {
    class_path: String,
    /// Built once: a row must not wait for a build, nor two rows be of different sources.
    ouzel: PathBuf,
    /// The folder of the bench's own binaries.
    folder: PathBuf,
    /// librdkafka's driver.
    librdkafka: PathBuf,
}

impl Tools {
    fn provide(root: &Path) -> Result<Tools, String> {
        let class_path = provision::kafka_class_path(root)?;
        let ouzel = provision::ouzel_release(root)?;
        let build = |name: &str, sources: &str| {
            let target = provision::folder(root).join(name);
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--release", "--locked", "--target-dir"]).arg(&target);
            build.current_dir(root.join(sources));
            provision::run_quietly(&format!("build the drivers of {sources}"), &mut build)?;
            Ok::<PathBuf, String>(target.join("release"))
        };
        Ok(Tools {
            class_path,
            ouzel,
            folder: build("bench", "tests/bench")?,
            librdkafka: build("rdkafka", "tests/clients/rdkafka")?.join("perf"),
        })
    }
}

/// Whether so many bytes fit on the disk of that folder, and some more: a full disk is everybody's, and measures nothing.
fn has_room(bytes: u64, folder: &Path) -> Result<(), String> {
    const SPARE_BYTES: u64 = 2 << 30;
    let mut df = Command::new("df");
    let output = df.args(["--output=avail", "--block-size=1"]).arg(folder).output();
    let said = output.map_err(|e| format!("run df: {e}"))?.stdout;
    let free = String::from_utf8_lossy(&said).lines().nth(1).and_then(|line| line.trim().parse::<u64>().ok());
    match free {
        Some(free) if free < bytes + SPARE_BYTES => Err(format!(
            "{} MiB of disk are wanted, and {} MiB are free",
            (bytes + SPARE_BYTES) >> 20,
            free >> 20
        )),
        Some(_) => Ok(()),
        None => Err(format!("df does not say what is free at {}", folder.display())),
    }
}

/// What a workload with a rate offers to every broker, in batches a second.
fn offered(workload: &Workload, report: &Report) -> Result<Option<f64>, String> {
    let (batches, rate) = match workload.load {
        Load::EndToEnd { batches, rate: Some(rate), .. } => (batches, rate),
        Load::Rolling { batches, rate, .. } => (batches, rate),
        Load::Fetch { batches, beside: Some(rate), .. } => (batches, rate),
        _ => return Ok(None),
    };
    match rate {
        Rate::Fixed(rate) => Ok(Some(rate)),
        Rate::PercentOf(percent, name) => {
            let smaller = report
                .smaller_maximum(name)
                .ok_or_else(|| format!("{name} has no maximum to take a part of"))?;
            let rate = smaller * f64::from(percent) / 100.0 / batches.bytes();
            println!("        {percent} % of {:.1} MB/s: {rate:.0} batches a second", smaller / 1e6);
            Ok(Some(rate))
        }
    }
}

/// Where rows are played.
#[derive(Debug, Clone, Copy)]
struct Hall<'a> {
    root: &'a Path,
    folder: &'a Path,
    tools: &'a Tools,
    pinning: Pinning,
    phases: Phases,
}

impl Hall<'_> {
    /// Plays one workload on every broker in turn, round by round, until one fails.
    fn play(
        &self,
        workload: &'static Workload,
        rate: Option<f64>,
        options: &Options,
    ) -> (Vec<Row>, Result<(), String>) {
        let mut rows = Vec::new();
        for round in 1..=options.rounds(workload) {
            for contender in order(workload.contenders(), round) {
                // The floor moves little; the short form looks at it once.
                if contender == Contender::Null && options.quick && round > 1 {
                    continue;
                }
                match self.play_row(workload, contender, round, rate) {
                    Ok(row) => {
                        println!("        {}", row.text());
                        rows.push(row);
                    }
                    Err(reason) => {
                        let reason = format!("{}, round {round}: {reason}", contender.name());
                        return (rows, Err(reason));
                    }
                }
            }
        }
        (rows, Ok(()))
    }

    fn play_row(
        &self,
        workload: &Workload,
        contender: Contender,
        round: usize,
        rate: Option<f64>,
    ) -> Result<Row, String> {
        let room = self.folder.join("row");
        provision::remove_dir(&room)?;
        provision::create_dir(&room)?;
        touch_memory(self.tools, self.pinning, driving::disk_bytes_max(workload.load, self.phases))?;
        let place = Place {
            root: self.root,
            folder: &room.join("broker"),
            ouzel: &self.tools.ouzel,
            tools: &self.tools.folder,
            pinning: &self.pinning,
            mode: workload.mode,
            nodes: workload.nodes,
            partitions: workload.partitions,
            settings: workload.settings,
        };
        let mut cluster = contender.prepare(&place)?;
        let starting = Starting::now(self.pinning)?;
        let ready_ms = cluster.start()?.as_secs_f64() * 1e3;
        let bench = Bench {
            folder: &room,
            class_path: &self.tools.class_path,
            tools: &self.tools.folder,
            librdkafka: &self.tools.librdkafka,
            pinning: self.pinning,
            phases: self.phases,
            partitions: workload.partitions,
            rate,
            bootstrap: cluster.bootstrap(),
            port: cluster.port(),
            pids: cluster.pids(),
            admin_ports: cluster.admin_ports(),
            data: cluster.data_dirs(),
            makes_topics: contender != Contender::Null,
        };
        let Outcome { warm_up, load, usage } = bench
            .carry_out(workload.load, &mut cluster, starting)
            .map_err(|reason| format!("{reason}\n{}", cluster.last_words()))?;
        if !cluster.is_running() {
            return Err(format!("a broker ended in the middle; {}", cluster.last_words()));
        }
        cluster.stop()?;
        // A row that failed leaves its folder to be looked at.
        provision::remove_dir(&room)?;
        Ok(Row { contender, round, nodes: workload.nodes, warm_up, load, usage, ready_ms })
    }
}

/// Who plays first in a round: another one each time, so that nobody is always the one after an empty machine, or after
/// Kafka's heap.
fn order(mut contenders: Vec<Contender>, round: usize) -> Vec<Contender> {
    let first = (round - 1) % contenders.len();
    contenders.rotate_left(first);
    contenders
}

/// Memory that a row fills at least, in bytes: a heap and its like.
const TOUCHED_BYTES_MIN: u64 = 6 << 30;

/// Touches the memory that a row may fill, which is what it may have on disk, as far as there is enough. The first touch of a
/// page of a virtual machine costs ten times what later ones do, and whoever came first would pay for those that follow.
fn touch_memory(tools: &Tools, pinning: Pinning, disk_bytes_max: u64) -> Result<(), String> {
    let mut words = pinning.driver();
    words.extend([tools.folder.join("groundwork").display().to_string(), "touch".to_owned()]);
    words.push(disk_bytes_max.max(TOUCHED_BYTES_MIN).to_string());
    provision::run_quietly("touch memory", Command::new(&words[0]).args(&words[1..]))
}

/// The machine and all versions.
fn facts(root: &Path, data: &Path, pinning: Pinning) -> serde_json::Value {
    let mut facts = machine::facts(root, data);
    facts["kafka"] = provision::KAFKA_VERSION.into();
    facts["java"] = machine::java_version().into();
    if let Some(binary) = std::env::var_os("OUZEL_BINARY") {
        // Built by somebody else, from nobody here knows which sources.
        facts["commit"] = format!("binary {}", Path::new(&binary).display()).into();
    }
    facts["broker_core"] = pinning.broker_core.into();
    facts["driver_core"] = pinning.driver_core.into();
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let options =
            Options::parse(&["--quick", "--filter", "idle", "--filter", "100 part", "--rounds", "3"])
                .unwrap();
        assert!(options.quick && options.rounds == 3);
        assert!(options.workloads().iter().any(|workload| workload.name == "idle"));
        assert!(options.workloads().iter().any(|workload| !workload.quick), "who names it wants it");
        let half = Options::parse(&["--filter", "end to end at 50"]).unwrap();
        let names: Vec<&str> = half.workloads().iter().map(|workload| workload.name).collect();
        assert_eq!(names, ["end to end, maximum", "end to end at 50 %"], "with what it needs");
        let cluster = Options::parse(&["--nodes", "3"]).unwrap();
        assert!(cluster.workloads().iter().all(|workload| workload.nodes == 3));
        assert!(!cluster.workloads().is_empty());
        assert_eq!(Options::parse(&[]).unwrap().rounds, 5);
        assert_eq!(Options::parse(&["--quick"]).unwrap().rounds, 2);
        for wrong in [
            &["--rounds"][..],
            &["--rounds", "0"],
            &["--nodes", "2"],
            &["--minutes", "0"],
            &["--filter"],
            &["x"],
        ] {
            assert_eq!(Options::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn everybody_is_the_first_of_a_round_in_turn() {
        use Contender::{Kafka, Null, Ouzel};
        let of = |round| order(vec![Ouzel, Kafka, Null], round);
        assert_eq!([of(1), of(2), of(3)], [[Ouzel, Kafka, Null], [Kafka, Null, Ouzel], [Null, Ouzel, Kafka]]);
        assert_eq!(order(vec![Ouzel, Kafka], 4), [Kafka, Ouzel]);
    }

    #[test]
    fn a_disk_that_is_too_small_is_said() {
        let folder = std::env::temp_dir();
        let reason = has_room(1 << 60, &folder).unwrap_err();
        assert!(reason.contains("MiB of disk are wanted"), "{reason}");
        assert!(has_room(0, Path::new("/does/not/exist")).is_err());
    }

    /// The long workload: an hour by its name alone, shorter if it is said, unasked never, and once.
    #[test]
    fn an_hour_is_played_by_who_asks_for_it() {
        let minutes = |arguments: &[&str]| {
            let options = Options::parse(arguments).unwrap();
            let long = options.workloads().into_iter().find(|workload| workload.is_long())?;
            assert_eq!(options.rounds(long), 1);
            Some(options.phases(long).measured.as_secs() / 60)
        };
        assert_eq!(minutes(&[]), None);
        assert_eq!(minutes(&["--quick"]), None);
        assert_eq!(minutes(&["--minutes", "60"]), Some(60));
        assert_eq!(minutes(&["--filter", "for long"]), Some(60));
        assert_eq!(minutes(&["--quick", "--filter", "for long"]), Some(2));
        assert_eq!(minutes(&["--quick", "--filter", "for long", "--minutes", "5"]), Some(5));
    }

    #[test]
    fn the_short_form_fits_its_time() {
        for nodes in ["1", "3"] {
            let options = Options::parse(&["--quick", "--nodes", nodes]).unwrap();
            let all: Duration = options.workloads().iter().map(|workload| expected(workload, &options)).sum();
            assert!(all <= QUICK_LONGEST, "{nodes} nodes: {all:?}");
        }
    }
}
