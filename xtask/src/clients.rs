//! `cargo xtask clients`: unmodified clients of other languages against a broker in its own process or a cluster of
//! such, ouzel or Apache Kafka as the judge: a scenario that Kafka fails is a wrong scenario.
//!
//! Reading order: `options`, `families` (how drivers come to be), `driver` and `stage` (how they are led), `records`,
//! `history` and `group_history` (the checkers), then the scenarios. tests/clients/README.md says how to add to them.

mod admin_tool;
mod administration;
mod board;
mod cluster_tools;
mod compaction;
mod contents;
mod driver;
mod dump;
mod families;
mod group_history;
mod groups;
mod history;
mod hostile;
mod kcat;
mod kills;
mod lacking;
mod options;
mod records;
mod restarts;
mod scenario;
mod stage;
mod statics;
mod tools;
mod transactions;
mod wrong;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use self::board::{Board, Outcome, Row};
use self::dump::Part;
use self::families::{Family, Toolbox};
use self::groups::{TRIOS, Trio};
use self::kills::{SURVIVORS, Survivor};
use self::options::{Configuration, Options, USAGE};
use self::scenario::Scenario;
use self::stage::Stage;
use crate::provision;

/// Scenarios at a time: two cores, and most of a scenario is waiting.
const SIDE_BY_SIDE: usize = 3;
/// How long the groups' feed goes on at most; it ends with what they go through.
const GROUP_SECONDS: u64 = 600;

/// Runs the scenarios and prints the table.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(message) => {
            eprint!("clients: {message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let configurations = options.configurations();
    if options.list {
        for configuration in &configurations {
            for name in Program::of(&options, configuration).names() {
                println!("{}{name}", configuration.prefix());
            }
        }
        return ExitCode::SUCCESS;
    }
    let began = Instant::now();
    let mut board = Board::default();
    let programs: Vec<(Configuration, Program)> = configurations
        .into_iter()
        .map(|configuration| {
            let program = Program::of(&options, &configuration);
            (configuration, program)
        })
        .filter(|(_, program)| !program.is_empty())
        .collect();
    let wanted: BTreeSet<Family> = programs.iter().flat_map(|(_, program)| program.needs()).collect();
    println!("        provisioning {}", names_of(&wanted));
    let toolbox = Toolbox::provide(root, &wanted.into_iter().collect::<Vec<_>>());
    println!("        provisioned in {:.1}s", began.elapsed().as_secs_f64());
    for (configuration, program) in programs {
        let folder = run_folder(root, &configuration);
        if let Err(reason) = perform(root, &options, &configuration, program, &toolbox, &folder, &mut board) {
            board.post(Row::of(&format!("{}broker", configuration.prefix()), Err(reason), began.elapsed()));
        }
        if board.failed() == 0 {
            if let Err(error) = provision::remove_dir(&folder) {
                eprintln!("clients: {error}");
            }
        } else {
            println!("        logs are kept in {}", folder.display());
        }
    }
    println!("\nagainst {} in {:.0}s", options.against.name(), began.elapsed().as_secs_f64());
    print!("{}", board.closing());
    let missing = options.require_all && board.skipped() > 0;
    if missing {
        eprintln!("clients: --require-all, and rows were skipped");
    }
    if board.failed() > 0 || missing { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn names_of(families: &BTreeSet<Family>) -> String {
    families.iter().map(|family| family.name()).collect::<Vec<_>>().join(", ")
}

/// A folder for one run in one configuration; what an earlier run left there is gone.
fn run_folder(root: &Path, configuration: &Configuration) -> PathBuf {
    root.join("target/clients").join(format!("{}-{}", configuration.word(), std::process::id()))
}

/// What is to be played in one configuration.
struct Program {
    scenarios: Vec<Scenario>,
    survivors: Vec<Survivor>,
    /// Brokers of the cluster: it decides what a survivor is promised.
    nodes: usize,
    /// Brokers are restarted beside the scenarios that bear it; then that is a row too.
    restart_loop: bool,
    trios: Vec<Trio>,
    dumps: Vec<Part>,
}

impl Program {
    fn of(options: &Options, configuration: &Configuration) -> Program {
        let quick = configuration.sampled || options.quick;
        let chosen = |name: &str| options.chooses(&format!("{}{name}", configuration.prefix()));
        let mut scenarios = contents::scenarios();
        scenarios.extend(administration::scenarios());
        scenarios.extend(tools::scenarios());
        scenarios.extend(compaction::scenarios());
        scenarios.extend(wrong::scenarios());
        scenarios.extend(transactions::scenarios());
        scenarios.extend(statics::scenarios());
        scenarios.extend(hostile::scenarios());
        scenarios.extend(admin_tool::scenarios());
        scenarios.extend(cluster_tools::scenarios());
        scenarios.extend(lacking::scenarios());
        scenarios.retain(|scenario| scenario.nodes_min <= configuration.nodes);
        scenarios.retain(|scenario| (!quick || scenario.quick) && chosen(&scenario.name));
        Program {
            scenarios,
            survivors: SURVIVORS
                .iter()
                .copied()
                .filter(|one| (!quick || one.quick) && chosen(&one.name(configuration.nodes)))
                .collect(),
            nodes: configuration.nodes,
            restart_loop: options.restart_loop,
            trios: TRIOS
                .iter()
                .copied()
                .filter(|trio| (!quick || trio.quick) && chosen(&trio.name()))
                .collect(),
            dumps: Part::ALL.into_iter().filter(|part| chosen(part.name())).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.names().is_empty()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.scenarios.iter().map(|scenario| scenario.name.clone()).collect();
        if self.restarts_brokers() {
            names.push(restarts::NAME.to_owned());
        }
        names.extend(self.survivors.iter().map(|one| one.name(self.nodes)));
        names.extend(self.trios.iter().map(Trio::name));
        names.extend(self.dumps.iter().map(|part| part.name().to_owned()));
        names
    }

    fn restarts_brokers(&self) -> bool {
        self.restart_loop && self.scenarios.iter().any(|scenario| scenario.bears_restarts)
    }

    fn needs(&self) -> BTreeSet<Family> {
        let mut needs: BTreeSet<Family> =
            self.scenarios.iter().flat_map(|scenario| scenario.needs.clone()).collect();
        needs.extend(self.survivors.iter().flat_map(Survivor::needs));
        needs.extend(self.trios.iter().flat_map(|trio| trio.members));
        if !self.trios.is_empty() {
            needs.insert(Family::Rdkafka);
        }
        if !self.dumps.is_empty() {
            needs.insert(Family::Java);
        }
        needs
    }

    /// Takes out what cannot be played for want of a client; the rows that say so.
    fn without_missing(&mut self, toolbox: &Toolbox) -> Vec<Row> {
        let mut skipped = Vec::new();
        let mut playable = |name: &str, needs: &[Family]| {
            let missing = needs.iter().find_map(|family| {
                let reason = toolbox.command(*family).err()?;
                // A compiler may have said a page; the head of it is enough for a row.
                let head: String = reason.chars().take(300).collect();
                Some(format!("{} is not to be had: {head}", family.name()))
            });
            match missing {
                None => true,
                Some(reason) => {
                    skipped.push(Row::skipped(name, &reason));
                    false
                }
            }
        };
        self.scenarios.retain(|scenario| playable(&scenario.name, &scenario.needs));
        self.survivors.retain(|one| playable(&one.name(self.nodes), &one.needs()));
        self.trios.retain(|trio| playable(&trio.name(), &[&trio.members[..], &[Family::Rdkafka]].concat()));
        self.dumps.retain(|part| playable(part.name(), &[Family::Java]));
        skipped
    }
}

fn perform(
    root: &Path,
    options: &Options,
    configuration: &Configuration,
    mut program: Program,
    toolbox: &Toolbox,
    folder: &Path,
    board: &mut Board,
) -> Result<(), String> {
    let prefix = configuration.prefix();
    let mut post = |row: Row| board.post(Row { name: format!("{prefix}{}", row.name), ..row });
    program.without_missing(toolbox).into_iter().for_each(&mut post);
    if program.is_empty() {
        return Ok(());
    }
    provision::create_dir(folder)?;
    let (settings, flags) = configuration.for_broker();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let stage = Stage::open(root, toolbox, options.against, folder, configuration.nodes, &settings, &flags)?;
    println!("        {}{} serves on {}", prefix, options.against.name(), stage.bootstrap);

    let restarting = program.restarts_brokers();
    let (alone, shared): (Vec<Scenario>, Vec<Scenario>) =
        program.scenarios.into_iter().partition(|scenario| scenario.takes_brokers_down);
    let (disturbed, quiet): (Vec<Scenario>, Vec<Scenario>) =
        shared.into_iter().partition(|scenario| restarting && scenario.bears_restarts);
    side_by_side(&stage, &quiet, &mut post);
    if restarting {
        let began = Instant::now();
        let outcome = restarts::beside(&stage, |rounds| {
            // A row a scenario; what a later round has to add is a failure.
            let mut post = |row: Row| {
                if rounds == 0 || matches!(row.outcome, Outcome::Failed(_)) {
                    post(row);
                }
            };
            side_by_side(&stage, &disturbed, &mut post);
        });
        post(Row::of(restarts::NAME, outcome, began.elapsed()));
    }
    for scenario in &alone {
        let began = Instant::now();
        let outcome = (scenario.play)(&stage);
        post(Row::of(&scenario.name, outcome, began.elapsed()));
    }
    stage.dismiss();
    if !program.survivors.is_empty() {
        let count = configuration.sampled.then_some(2_000);
        kills::run(&stage, &program.survivors, count).into_iter().for_each(&mut post);
        stage.dismiss();
    }
    if !program.trios.is_empty() {
        groups::run(&stage, &program.trios, GROUP_SECONDS).into_iter().for_each(&mut post);
        stage.dismiss();
    }
    if !program.dumps.is_empty() {
        stage.cluster().stop()?;
        for part in program.dumps {
            let began = Instant::now();
            let outcome = dump::check(&stage, part, !program.trios.is_empty());
            post(Row::of(part.name(), outcome, began.elapsed()));
        }
    }
    Ok(())
}

/// Plays scenarios a few at a time; rows are posted as they come.
fn side_by_side(stage: &Stage<'_>, scenarios: &[Scenario], post: &mut (impl FnMut(Row) + Send)) {
    let next = Mutex::new(scenarios.iter());
    let post = Mutex::new(post);
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let Some(scenario) = next.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                        return;
                    };
                    let began = Instant::now();
                    let outcome = (scenario.play)(stage);
                    let row = Row::of(&scenario.name, outcome, began.elapsed());
                    post.lock().unwrap_or_else(PoisonError::into_inner)(row);
                }
            });
        }
    });
}
