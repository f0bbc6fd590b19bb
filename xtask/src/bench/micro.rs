//! `cargo xtask bench micro`: the micro benches that stand beside what they are about, all in a short form, and one table of
//! what they found. Times are those of one machine at one moment: to be held against each other, before and after a change.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::machine;
use super::statistics::Span;
use crate::provision;

/// Crates with benches, and the name of each.
const BENCHES: [(&str, &str); 5] = [
    ("ouzel-protocol", "requests"),
    ("ouzel-model", "batch"),
    ("ouzel-storage", "log"),
    ("ouzel-runtime", "core"),
    ("ouzel-coordinator", "group"),
];

/// What makes it the short form: half a minute for each crate, and figures of two digits.
const SHORT: [&str; 7] =
    ["--noplot", "--warm-up-time", "0.5", "--measurement-time", "1", "--sample-size", "20"];

/// What one bench found.
#[derive(Debug, PartialEq)]
struct Found {
    name: String,
    /// Of one iteration, in nanoseconds; each sample is the mean of its iterations.
    nanos: Span,
    /// Bytes that one iteration carries.
    bytes: Option<f64>,
}

/// Runs all, or those whose name has `filter`; prints text, and leaves JSON.
pub(super) fn run(root: &Path, filter: Option<&str>) -> Result<(), String> {
    let results = root.join("target/bench/micro");
    provision::remove_dir(&results)?;
    provision::create_dir(&results)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for (package, name) in BENCHES {
        println!("        {package}: {name}");
        let mut bench = Command::new(&cargo);
        bench.args(["bench", "--quiet", "--locked", "--package", package, "--bench", name, "--"]);
        bench.args(filter).args(SHORT).current_dir(root).env("CRITERION_HOME", &results);
        provision::run_quietly(&format!("run {package}'s benches"), &mut bench)?;
    }
    let mut found = Vec::new();
    for folder in folders_with_results(&results)? {
        let read = |file: &str| {
            let path = folder.join(file);
            let text = std::fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
            serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
        };
        let of = Found::of(&read("benchmark.json")?, &read("sample.json")?);
        found.push(of.ok_or_else(|| format!("{} holds no result", folder.display()))?);
    }
    if found.is_empty() {
        return Err("no bench has that name".to_owned());
    }
    let facts = machine::facts(root, &results);
    print!("{}", text(&found, &facts));
    let rows: Vec<Value> = found.iter().map(Found::json).collect();
    provision::write(
        &root.join("target/bench/micro.json"),
        &format!("{}\n", json!({ "bench": "micro", "machine": facts, "rows": rows })),
    )
}

/// The folders named `new` below this one: criterion leaves what a run found there.
fn folders_with_results(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
    let mut below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    below.sort();
    for path in below.into_iter().filter(|path| path.is_dir()) {
        match path.file_name().is_some_and(|name| name == "new") {
            true => found.push(path),
            false => found.extend(folders_with_results(&path)?),
        }
    }
    Ok(found)
}

impl Found {
    /// Reads what criterion keeps of a bench: its name and what an iteration carries, and how many iterations each sample had
    /// and how long they took.
    fn of(bench: &Value, sample: &Value) -> Option<Found> {
        let numbers =
            |name: &str| sample[name].as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<_>>>();
        let each = numbers("times")?.into_iter().zip(numbers("iters")?).map(|(nanos, count)| nanos / count);
        Some(Found {
            name: bench["full_id"].as_str()?.to_owned(),
            nanos: Span::of(each.collect())?,
            bytes: bench["throughput"]["Bytes"].as_f64(),
        })
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "median_ns": self.nanos.median, "min_ns": self.nanos.min, "max_ns": self.nanos.max,
            "bytes": self.bytes,
        })
    }
}

fn text(found: &[Found], facts: &Value) -> String {
    let fact = |name: &str| facts[name].as_str().unwrap_or("?").to_owned();
    let mut text = format!(
        "\nmachine  {}, {} cores, Linux {}, load {}; {}, commit {}\n\n{:<84} {:>10} {:>10} {:>10} {:>10}\n",
        fact("cpu"),
        facts["cores"],
        fact("kernel"),
        fact("load_1m"),
        fact("rustc"),
        fact("commit"),
        "",
        "median",
        "min",
        "max",
        "GB/s",
    );
    for Found { name, nanos, bytes } in found {
        let [median, min, max] = [nanos.median, nanos.min, nanos.max].map(time);
        let rate = bytes.map_or(String::new(), |bytes| format!("{:.2}", bytes / nanos.median));
        let line = format!("{name:<84} {median:>10} {min:>10} {max:>10} {rate:>10}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Three figures that count, in the unit that suits them.
fn time(nanos: f64) -> String {
    let (value, unit) = match nanos {
        nanos if nanos < 1e3 => (nanos, "ns"),
        nanos if nanos < 1e6 => (nanos / 1e3, "us"),
        nanos => (nanos / 1e6, "ms"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_the_mean_of_its_iterations() {
        let bench = json!({"full_id": "append/64 KiB", "throughput": {"Bytes": 65_536}});
        let sample = json!({"iters": [1.0, 2.0, 4.0], "times": [40_000.0, 60_000.0, 80_000.0]});
        let found = Found::of(&bench, &sample).unwrap();
        assert_eq!(found.nanos, Span { median: 30_000.0, min: 20_000.0, max: 40_000.0 });
        let text = text(&[found], &json!({}));
        let line = text.lines().last().unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["append/64", "KiB", "30.0", "us", "20.0", "us", "40.0", "us", "2.18"]);
        assert_eq!(Found::of(&bench, &json!({"iters": [], "times": []})), None);
        assert_eq!(Found::of(&json!({}), &sample), None);
    }

    #[test]
    fn times_have_three_figures() {
        assert_eq!(
            [1.234, 12.34, 123.4, 1_234.0, 5e6].map(time),
            ["1.23 ns", "12.3 ns", "123 ns", "1.23 us", "5.00 ms"]
        );
    }

    #[test]
    fn results_are_found_wherever_they_lie() {
        let folder = std::env::temp_dir().join(format!("ouzel-xtask-micro-{}", std::process::id()));
        for name in ["b/x/new", "a/new", "a/base", "report"] {
            provision::create_dir(&folder.join(name)).unwrap();
        }
        let found = folders_with_results(&folder).unwrap();
        assert_eq!(found, [folder.join("a/new"), folder.join("b/x/new")]);
        provision::remove_dir(&folder).unwrap();
    }

    /// A bench that is in no table is run by nobody.
    #[test]
    fn every_bench_of_the_workspace_is_run() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut there = Vec::new();
        for entry in std::fs::read_dir(&root).unwrap().flatten() {
            let Ok(manifest) = std::fs::read_to_string(entry.path().join("Cargo.toml")) else { continue };
            let names = manifest.split("[[bench]]").skip(1).filter_map(|rest| rest.split('"').nth(1));
            let package = format!("ouzel-{}", entry.file_name().to_string_lossy());
            there.extend(names.map(|name| (package.clone(), name.to_owned())));
        }
        let mut run: Vec<_> = BENCHES.map(|(package, name)| (package.to_owned(), name.to_owned())).into();
        there.sort();
        run.sort();
        assert_eq!(there, run);
    }
}
