//! The second copy: the same flights carried by the two clients that people type into a shell, kcat and Kafka's Java
//! console producer, and read back with kcat. They set no timestamps, so keys, values and their order are compared.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use super::drawing::grouped;
use super::judge::Flight;
use super::{Clients, for_each_line};
use crate::provision;

const TOPIC: &str = "flights-copy";

/// What came of the copy.
pub(crate) struct Copy {
    pub(crate) summary: String,
    pub(crate) faults: Vec<String>,
}

/// Sends one half of the carriers with each client, reads all back and compares.
pub(crate) fn carry(
    clients: &Clients,
    bootstrap: &str,
    flights: &[Flight<'_>],
    halves: &[Vec<&str>; 2],
) -> Result<Copy, String> {
    clients.create_topic(bootstrap, TOPIC)?;
    let lines = [clients.work.join("copy-kcat.tsv"), clients.work.join("copy-java.tsv")];
    for (half, path) in lines.iter().enumerate() {
        write_lines(path, flights.iter().filter(|flight| halves[half].contains(&flight.key)))?;
    }
    let mut kcat = Command::new("kcat");
    kcat.args(["-P", "-b", bootstrap, "-t", TOPIC, "-K", "\t", "-X", "topic.partitioner=murmur2_random"]);
    kcat.args(["-X", "enable.idempotence=true", "-l"]).arg(&lines[0]);
    provision::run_quietly("produce with kcat", &mut kcat)?;

    let mut console = clients.in_java("org.apache.kafka.tools.ConsoleProducer");
    console.args(["--bootstrap-server", bootstrap, "--topic", TOPIC]);
    console.args(["--reader-property", "parse.key=true", "--reader-property", "key.separator=\t"]);
    run_with_input("produce with the Java console producer", &mut console, &lines[1])?;

    let back = clients.work.join("copy-back.tsv");
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-b", bootstrap, "-t", TOPIC, "-o", "beginning", "-e", "-q", "-f", "%p\t%o\t%k\t%s\n"]);
    kcat.stdout(File::create(&back).map_err(|e| format!("create {}: {e}", back.display()))?);
    let status = kcat.status().map_err(|e| format!("read with kcat: {e}"))?;
    if !status.success() {
        return Err(format!("read with kcat: {status}"));
    }
    let mut comparison = Comparison::new(flights);
    for_each_line(&back, |line| {
        comparison.see(line);
        Ok(())
    })?;
    let (records, faults) = comparison.finish();
    let counts: Vec<String> = halves
        .iter()
        .map(|half| grouped(flights.iter().filter(|flight| half.contains(&flight.key)).count() as u64))
        .collect();
    let equal = if faults.is_empty() { "equal and in order" } else { "NOT equal" };
    let summary = format!(
        "{} records by kcat, {} by the Java console producer; {} read back, {equal}",
        counts[0],
        counts[1],
        grouped(records)
    );
    Ok(Copy { summary, faults })
}

fn write_lines<'a>(path: &Path, flights: impl Iterator<Item = &'a Flight<'a>>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("write {}: {e}", path.display());
    let mut out = BufWriter::new(File::create(path).map_err(failed)?);
    for flight in flights {
        writeln!(out, "{}\t{}", flight.key, flight.value).map_err(failed)?;
    }
    out.flush().map_err(failed)
}

fn run_with_input(what: &str, command: &mut Command, input: &Path) -> Result<(), String> {
    let input = File::open(input).map_err(|e| format!("{what}: open {}: {e}", input.display()))?;
    let output = command.stdin(input).output().map_err(|e| format!("{what}: {e}"))?;
    // The console producer reports a failed send on stderr and ends well all the same; the comparison finds it.
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

/// Each key's values in the order they were sent, and how many of them came back.
struct Comparison<'a> {
    expected: BTreeMap<&'a str, (Vec<&'a str>, usize)>,
    records: u64,
    faults: Vec<String>,
}

impl<'a> Comparison<'a> {
    fn new(flights: &[Flight<'a>]) -> Comparison<'a> {
        let mut expected: BTreeMap<&str, (Vec<&str>, usize)> = BTreeMap::new();
        for flight in flights {
            expected.entry(flight.key).or_default().0.push(flight.value);
        }
        Comparison { expected, records: 0, faults: Vec::new() }
    }

    /// One line as kcat prints it: partition, offset, key, value. A key lives in one partition, so its order is kept.
    fn see(&mut self, line: &str) {
        self.records += 1;
        let mut fields = line.splitn(4, '\t');
        let (partition, offset) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let (key, value) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let wanted = self.expected.get_mut(key).and_then(|(values, came)| {
            *came += 1;
            values.get(*came - 1).copied()
        });
        if wanted != Some(value) && self.faults.len() < 20 {
            self.faults.push(format!(
                "copy {partition}/{offset} of key {key} holds {value:?}, wanted {:?}",
                wanted.unwrap_or("nothing more")
            ));
        }
    }

    fn finish(mut self) -> (u64, Vec<String>) {
        for (key, (values, came)) in &self.expected {
            if *came < values.len() {
                self.faults.push(format!("of key {key}, {came} of {} records came back", values.len()));
            }
        }
        (self.records, self.faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(lines: &[&str]) -> Vec<String> {
        let flights: Vec<Flight<'_>> = ["UA\t1\tone", "UA\t1\ttwo", "B6\t1\tx"]
            .iter()
            .map(|line| Flight::parse(line).unwrap())
            .collect();
        let mut comparison = Comparison::new(&flights);
        for line in lines {
            comparison.see(line);
        }
        comparison.finish().1
    }

    #[test]
    fn an_equal_copy_passes_in_any_order_of_keys() {
        assert_eq!(faults_of(&["0\t0\tB6\tx", "4\t0\tUA\tone", "4\t1\tUA\ttwo"]), Vec::<String>::new());
    }

    #[test]
    fn missing_changed_swapped_and_doubled_records_are_caught() {
        assert_eq!(faults_of(&["4\t0\tUA\tone", "4\t1\tUA\ttwo"]).len(), 1);
        assert_eq!(faults_of(&["0\t0\tB6\ty", "4\t0\tUA\tone", "4\t1\tUA\ttwo"]).len(), 1);
        assert_eq!(faults_of(&["0\t0\tB6\tx", "4\t0\tUA\ttwo", "4\t1\tUA\tone"]).len(), 2);
        assert_eq!(faults_of(&["0\t0\tB6\tx", "0\t1\tB6\tx", "4\t0\tUA\tone", "4\t1\tUA\ttwo"]).len(), 1);
    }
}
