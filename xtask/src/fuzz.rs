//! `cargo xtask fuzz`: the fuzz targets, for longer than `cargo test` gives them. They are ordinary tests that call
//! `bolero::check!`, on stable Rust: its random engine runs first the committed corpus (`__fuzz__/<test>/corpus`), then
//! inputs from fresh seeds until the time is over, and prints the seed of a failure.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use crate::tidy::lexer::{block_end, lex};

const USAGE: &str = "usage: cargo xtask fuzz [--seconds N] [--release] [--list] [TARGET]

  --seconds   for each target (60)
  --release   with optimisations: a longer build, many more inputs
  --list      only name the targets
  TARGET      only the targets whose name, or crate, contains this
";

/// One test that calls `bolero::check!`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    /// The folder of its crate.
    folder: String,
    name: String,
}

struct Options {
    seconds: u64,
    release: bool,
    list: bool,
    wanted: Option<String>,
}

/// Runs the targets one after the other; fails if any of them does.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    let options = match parse(arguments) {
        Ok(options) => options,
        Err(message) => {
            eprint!("fuzz: {message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let targets = match crate::tidy::sources(root) {
        Ok(sources) => targets_in(&sources),
        Err(message) => {
            eprintln!("fuzz: {message}");
            return ExitCode::FAILURE;
        }
    };
    let wanted = |target: &&Target| {
        options
            .wanted
            .as_ref()
            .is_none_or(|wanted| target.name.contains(wanted) || target.folder.contains(wanted))
    };
    let chosen: Vec<&Target> = targets.iter().filter(wanted).collect();
    if chosen.is_empty() {
        eprintln!("fuzz: no target matches; --list names all");
        return ExitCode::from(2);
    }
    if options.list {
        for target in chosen {
            println!("{:<12} {}", target.folder, target.name);
        }
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    for (nth, target) in chosen.iter().enumerate() {
        println!(
            "\n=== {} of {}: {} in {}, {} s",
            nth + 1,
            chosen.len(),
            target.name,
            target.folder,
            options.seconds
        );
        let started = Instant::now();
        if let Err(message) = fuzz(root, target, &options) {
            eprintln!("fuzz: {message}");
            failed.push(target.name.as_str());
        }
        println!("=== {}: {:.0} s", target.name, started.elapsed().as_secs_f64());
    }
    println!("\n{} passed, {} failed", chosen.len() - failed.len(), failed.len());
    match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => {
            println!("failed: {}", failed.join(", "));
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options { seconds: 60, release: false, list: false, wanted: None };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--release" => options.release = true,
            "--list" => options.list = true,
            "--seconds" => {
                let value = words.next().map_or("", String::as_str);
                options.seconds =
                    value.parse().map_err(|_| format!("--seconds wants a number, not {value:?}"))?;
            }
            other if other.starts_with('-') => return Err(format!("there is no option {other:?}")),
            name if options.wanted.is_none() => options.wanted = Some(name.to_owned()),
            more => return Err(format!("one target at most, {more:?} is another")),
        }
    }
    Ok(options)
}

/// Every test that calls `bolero::check!`, itself or through a macro or function of its file.
fn targets_in(sources: &[(String, String)]) -> Vec<Target> {
    let mut targets = BTreeSet::new();
    for (path, text) in
        sources.iter().filter(|(path, _)| path.ends_with(".rs") && !path.starts_with("xtask/"))
    {
        let Some((folder, _)) = path.split_once('/') else { continue };
        for name in tests_that_check(&lex(text).code) {
            targets.insert(Target { folder: folder.to_owned(), name });
        }
    }
    targets.into_iter().collect()
}

fn tests_that_check(code: &str) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    // Whatever leads to the call; what wraps it joins as it is met.
    let mut leads = vec!["bolero::check!".to_owned()];
    let mut nth = 0;
    while let Some(lead) = leads.get(nth).cloned() {
        nth += 1;
        for (at, _) in code.match_indices(&lead) {
            let before = code[..at].bytes().last();
            if before.is_some_and(|byte| byte == b'_' || byte.is_ascii_alphanumeric()) {
                continue;
            }
            match enclosing(code, at) {
                Some(Enclosing::Test(name)) => {
                    tests.insert(name.to_owned());
                }
                Some(Enclosing::Wrapper(lead)) if !leads.contains(&lead) => leads.push(lead),
                _ => {}
            }
        }
    }
    tests
}

/// What a call stands in.
enum Enclosing<'a> {
    Test(&'a str),
    /// A macro or function, as its own calls are written.
    Wrapper(String),
}

fn enclosing(code: &str, at: usize) -> Option<Enclosing<'_>> {
    if let Some(start) = code[..at].rfind("macro_rules! ") {
        let open = start + code[start..].find('{')?;
        if open < at && at < block_end(code.as_bytes(), open) {
            return Some(Enclosing::Wrapper(format!("{}!", code[start + 13..open].trim())));
        }
    }
    let function = code[..at].rfind("fn ")?;
    let name = code[function + 3..].split(['(', '<']).next()?.trim();
    if code[function + 3..].trim_start().find(name)? + function + 3 > at {
        return None;
    }
    let attributes_from = code[..function].rfind(['}', ';', '{']).map_or(0, |end| end + 1);
    match code[attributes_from..function].contains("#[test]") {
        true => Some(Enclosing::Test(name)),
        false => Some(Enclosing::Wrapper(format!("{name}("))),
    }
}

/// The full paths (`module::test`) of a crate's tests, as the harness lists them.
fn listed_tests(root: &Path, folder: &str, release: bool) -> Result<Vec<String>, String> {
    let output = cargo_test(root, folder, release)
        .args(["--", "--list"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("run cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("the tests of {folder} cannot be built"));
    }
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(listing.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

fn cargo_test(root: &Path, folder: &str, release: bool) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--manifest-path", &format!("{folder}/Cargo.toml"), "--tests"]);
    command.args(release.then_some("--release"));
    command.current_dir(root).stdin(Stdio::null());
    command
}

fn fuzz(root: &Path, target: &Target, options: &Options) -> Result<(), String> {
    let listed = listed_tests(root, &target.folder, options.release)?;
    let suffix = format!("::{}", target.name);
    let path = listed
        .iter()
        .find(|path| **path == target.name || path.ends_with(&suffix))
        .ok_or_else(|| format!("{} is not among the tests of {}", target.name, target.folder))?;
    let status = cargo_test(root, &target.folder, options.release)
        .args(["--quiet", "--", "--exact", path, "--nocapture"])
        // The environment outranks the bounds that the targets set themselves for `cargo test`.
        .env("BOLERO_RANDOM_TEST_TIME_MS", (options.seconds * 1000).to_string())
        .env("BOLERO_RANDOM_ITERATIONS", u32::MAX.to_string())
        .status()
        .map_err(|e| format!("run cargo: {e}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!(
            "{path} failed; its seed stands above, BOLERO_RANDOM_SEED=<seed> cargo test {path} repeats it"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_by_their_call_and_comments_are_not() {
        let text = "// fn old() { bolero::check!() }\n#[test]\nfn frames() {\n    bolero::check!().for_each(|x| f(x));\n}\n\
                    fn helper() { let check = 1; }\n#[test]\nfn plain() { helper(); }\n";
        let other = "macro_rules! fuzz {\n    ($b:expr) => { bolero::check!().for_each($b) };\n}\n\
                     fn bounded(f: fn(&[u8])) { fuzz!(f) }\n#[test]\nfn bodies() { fuzz!(g); }\n\
                     #[test]\nfn headers() { bounded(h); }\n";
        let none = "#[test]\nfn f() { check!(a) }";
        let sources: Vec<(String, String)> =
            [("protocol/tests/fuzz.rs", text), ("model/src/batch/fuzz.rs", other), ("broker/src/x.rs", none)]
                .map(|(path, text)| (path.to_owned(), text.to_owned()))
                .to_vec();
        let found: Vec<String> = targets_in(&sources)
            .into_iter()
            .map(|target| format!("{}/{}", target.folder, target.name))
            .collect();
        assert_eq!(found, ["model/bodies", "model/headers", "protocol/frames"]);
    }

    #[test]
    fn options_are_read() {
        let parse = |words: &[&str]| parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let options = parse(&["--seconds", "5", "frames"]).unwrap();
        assert_eq!((options.seconds, options.wanted.as_deref(), options.release), (5, Some("frames"), false));
        for wrong in [&["--seconds"][..], &["--seconds", "x"], &["--quick"], &["a", "b"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
