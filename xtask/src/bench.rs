//! `cargo xtask bench`: `smoke` is what the broker costs while it does nothing, and how soon it is there; [`compare`] puts
//! it beside Apache Kafka; [`micro`] is what single steps of it cost; [`failover`] is how soon a cluster goes on without one of its nodes; [`idle`] what partitions cost
//! that nobody uses. Measures the release binary from outside, prints text, and JSON with the facts of the machine, and says
//! which aims are met.

mod compare;
mod failover;
mod idle;
mod machine;
mod metadata;
mod micro;
mod process;
mod statistics;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker_process::free_ports;
use crate::provision;
use process::{Memory, process_cpu};
use statistics::Spread;

const USAGE: &str = "usage: cargo xtask bench smoke [--runs N]
       cargo xtask bench compare [--quick] [--nodes 1|3] [--minutes N] [--filter PART]... [--rounds N] [--list]
       cargo xtask bench failover [--against ouzel|kafka] [--nodes N] [--partitions N] [--rounds N] [--stopped|--frozen]
       cargo xtask bench idle
       cargo xtask bench micro [--filter PART]

  --runs         starts that are measured, of each kind (11)
  --quick        the short form, which ends within ten minutes (without --minutes) and judges nothing beside Kafka
  --filter       of compare: only workloads whose name has that part, and what these need; may be repeated;
                 of micro: only benches whose name has that part
  --list         names the workloads and runs none
  --against      the brokers that lose a node (ouzel)
  --nodes        how many there are: of failover (3); of compare, workloads of clusters of that size (1)
  --minutes      compare plays the hour of rolling retention as well, so many minutes of it (60 by its name; less judges nothing)
  --partitions   of one topic, on three nodes each (100)
  --rounds       of compare: how often each broker plays each workload (5, or 2 with --quick; the hour once);
                 of failover: nodes that are taken down, one after the other (9)
  --stopped      by SIGTERM instead of SIGKILL
  --frozen       by SIGSTOP: it falls silent, and no connection ends
";

/// What an idle broker may cost (the aims of the project, on two cores).
const RSS_MAX_KIB: u64 = 32 * 1024;
const READY_MAX: Duration = Duration::from_millis(150);
const IDLE_CPU_MAX_PERCENT: f64 = 1.0;

const TOPICS: usize = 10;
/// After the last request; whatever the broker still wanted to do is done by then.
const SETTLE: Duration = Duration::from_secs(3);
const IDLE_FOR: Duration = Duration::from_secs(10);
const START_LONGEST: Duration = Duration::from_secs(30);

/// Runs the bench that is named. A missed aim is said, not failed: a shared machine is no judge.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let measured = match words[..] {
        ["smoke"] => Some(smoke(root, 11)),
        ["smoke", "--runs", runs] => runs.parse().ok().filter(|runs| *runs > 0).map(|runs| smoke(root, runs)),
        ["compare", ref rest @ ..] => {
            compare::Options::parse(rest).map(|options| compare::run(root, &options))
        }
        ["failover", ref rest @ ..] => {
            failover::Options::parse(rest).map(|options| failover::run(root, options))
        }
        ["idle"] => Some(idle::run(root)),
        ["micro"] => Some(micro::run(root, None)),
        ["micro", "--filter", part] => Some(micro::run(root, Some(part))),
        _ => None,
    };
    let Some(measured) = measured else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("bench: {message}");
            ExitCode::FAILURE
        }
    }
}

/// What was measured.
struct Measured {
    ready_empty: Spread,
    ready_with_topics: Spread,
    rss_kib: u64,
    rss_peak_kib: u64,
    idle_cpu_percent: f64,
    threads: u64,
}

fn smoke(root: &Path, runs: usize) -> Result<(), String> {
    let binary = provision::ouzel_release(root)?;
    let work = root.join("target/bench/smoke");
    provision::remove_dir(&work)?;
    provision::create_dir(&work)?;

    let mut ready_empty = Vec::with_capacity(runs);
    for nth in 0..runs {
        let (broker, ready_after) = Broker::start(&binary, &work.join(format!("empty-{nth}")))?;
        broker.stop()?;
        ready_empty.push(ready_after);
    }
    let data = work.join("topics");
    let (broker, _) = Broker::start(&binary, &data)?;
    let names: Vec<String> = (0..TOPICS).map(|nth| format!("smoke-topic-{nth:02}")).collect();
    metadata::create_topics(broker.kafka_port, &names)?;

    std::thread::sleep(SETTLE);
    let pid = broker.child.id();
    let cpu_before = process_cpu(pid)?;
    let began = Instant::now();
    std::thread::sleep(IDLE_FOR);
    let idle_cpu = process_cpu(pid)?.saturating_sub(cpu_before);
    let idle_cpu_percent = idle_cpu.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    let memory = Memory::of(pid)?;
    broker.stop()?;
    let mut ready_with_topics = Vec::with_capacity(runs);
    for _ in 0..runs {
        let (broker, ready_after) = Broker::start(&binary, &data)?;
        broker.stop()?;
        ready_with_topics.push(ready_after);
    }
    let measured = Measured {
        ready_empty: Spread::of(ready_empty),
        ready_with_topics: Spread::of(ready_with_topics),
        rss_kib: memory.resident_kib,
        rss_peak_kib: memory.resident_peak_kib,
        idle_cpu_percent,
        threads: memory.threads,
    };
    let facts = machine::facts(root, &work);
    print!("{}", text(&measured, runs, &facts));
    let json = as_json(&measured, runs, facts);
    println!("{json}");
    let file = root.join("target/bench/smoke.json");
    provision::write(&file, &format!("{json}\n"))
}

fn text(measured: &Measured, runs: usize, facts: &Value) -> String {
    let met = |met: bool| if met { "met" } else { "MISSED" };
    let ready = |spread: &Spread| {
        format!(
            "median {:.1} ms, min {:.1}, max {:.1} of {runs} starts; aim {} ms: {}",
            millis(spread.median),
            millis(spread.min),
            millis(spread.max),
            READY_MAX.as_millis(),
            met(spread.median <= READY_MAX)
        )
    };
    let fact = |name: &str| facts[name].as_str().unwrap_or("?").to_owned();
    format!(
        "\nmachine             {}, {} cores, {} MiB, Linux {}, {} ({}), load {}\n\
         build               release, {}, commit {}\n\
         idle RSS            {:.1} MiB with {TOPICS} topics (peak {:.1} MiB, {} threads); aim {} MiB: {}\n\
         ready, empty        {}\n\
         ready, {TOPICS} topics    {}\n\
         idle CPU            {:.1} % of a core over {} s; aim under {IDLE_CPU_MAX_PERCENT} %: {}\n\n",
        fact("cpu"),
        facts["cores"],
        facts["memory_mib"],
        fact("kernel"),
        fact("filesystem"),
        fact("device"),
        fact("load_1m"),
        fact("rustc"),
        fact("commit"),
        mib(measured.rss_kib),
        mib(measured.rss_peak_kib),
        measured.threads,
        RSS_MAX_KIB / 1024,
        met(measured.rss_kib <= RSS_MAX_KIB),
        ready(&measured.ready_empty),
        ready(&measured.ready_with_topics),
        measured.idle_cpu_percent,
        IDLE_FOR.as_secs(),
        met(measured.idle_cpu_percent < IDLE_CPU_MAX_PERCENT),
    )
}

fn as_json(measured: &Measured, runs: usize, facts: Value) -> Value {
    let ready = |spread: &Spread| {
        json!({
            "median": millis(spread.median), "min": millis(spread.min), "max": millis(spread.max), "runs": runs,
            "aim_max": READY_MAX.as_millis() as u64, "met": spread.median <= READY_MAX,
        })
    };
    json!({
        "bench": "smoke",
        "machine": facts,
        "idle_rss_kib": { "value": measured.rss_kib, "peak": measured.rss_peak_kib, "topics": TOPICS,
                          "threads": measured.threads, "aim_max": RSS_MAX_KIB, "met": measured.rss_kib <= RSS_MAX_KIB },
        "ready_empty_ms": ready(&measured.ready_empty),
        "ready_with_topics_ms": ready(&measured.ready_with_topics),
        "idle_cpu_percent": { "value": measured.idle_cpu_percent, "over_s": IDLE_FOR.as_secs(),
                              "aim_below": IDLE_CPU_MAX_PERCENT, "met": measured.idle_cpu_percent < IDLE_CPU_MAX_PERCENT },
    })
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// A broker whose stdout we read, because the ready line is the end of the clock.
struct Broker {
    child: Child,
    /// Held open, so that a broker that says more does not meet a closed pipe.
    _stdout: BufReader<ChildStdout>,
    kafka_port: u16,
}

impl Broker {
    /// Starts the binary; the time from before the process exists until its ready line is read.
    fn start(binary: &Path, data: &Path) -> Result<(Broker, Duration), String> {
        let [kafka_port, admin_port] = free_ports()?;
        let began = Instant::now();
        let mut child = Command::new(binary)
            .arg("--data-dir")
            .arg(data)
            .args(["--kafka-listener", &format!("127.0.0.1:{kafka_port}")])
            .args(["--admin-listener", &format!("127.0.0.1:{admin_port}"), "--rpc-listener", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("start {}: {e}", binary.display()))?;
        let stdout = child.stdout.take().ok_or("the broker has no stdout")?;
        let mut stdout = BufReader::new(stdout);
        loop {
            let mut line = String::new();
            let length = stdout.read_line(&mut line).map_err(|e| format!("read the broker's stdout: {e}"))?;
            if line.contains("ready") {
                let took = began.elapsed();
                return Ok((Broker { child, _stdout: stdout, kafka_port }, took));
            }
            if length == 0 || began.elapsed() > START_LONGEST {
                let _ = child.kill();
                let _ = child.wait();
                return Err("the broker never said that it is ready".to_owned());
            }
        }
    }

    /// Stops the broker gracefully.
    fn stop(mut self) -> Result<(), String> {
        let pid = self.child.id().to_string();
        let mut kill = Command::new("kill");
        provision::run_quietly("stop the broker", kill.args(["-TERM", &pid]))?;
        let status = self.child.wait().map_err(|e| format!("wait for the broker: {e}"))?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("the broker ended with {status} after SIGTERM")),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Fails only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rss_kib: u64, ready: u64, cpu: f64) -> Measured {
        let spread = || Spread::of(vec![Duration::from_millis(ready)]);
        Measured {
            ready_empty: spread(),
            ready_with_topics: spread(),
            rss_kib,
            rss_peak_kib: rss_kib,
            idle_cpu_percent: cpu,
            threads: 3,
        }
    }

    #[test]
    fn aims_are_marked_in_text_and_json() {
        let facts = json!({ "cpu": "x", "cores": 2 });
        let good = measured(32 * 1024, 150, 0.9);
        assert!(!text(&good, 1, &facts).contains("MISSED"));
        assert_eq!(text(&good, 1, &facts).matches(": met").count(), 4);
        let bad = measured(32 * 1024 + 1, 151, 1.0);
        assert_eq!(text(&bad, 1, &facts).matches("MISSED").count(), 4);
        let json = as_json(&bad, 1, facts);
        for name in ["idle_rss_kib", "ready_empty_ms", "ready_with_topics_ms", "idle_cpu_percent"] {
            assert_eq!(json[name]["met"], json!(false), "{name}");
        }
    }
}
