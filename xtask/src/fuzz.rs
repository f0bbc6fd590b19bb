//! `cargo xtask fuzz`: the fuzz targets, for longer than `cargo test` gives them. They are ordinary tests that call
//! `bolero::check!`, on stable Rust: its random engine runs first the committed corpus (`__fuzz__/<test>/corpus`), then
//! inputs from fresh seeds until the time is over, and prints the seed of a failure.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use crate::tidy::lexer::lex;

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
        if !fuzz(root, target, &options) {
            failed.push(target.name.as_str());
        }
        println!("=== {}: {:.0} s", target.name, started.elapsed().as_secs_f64());
    }
    println!("\n{} passed, {} failed", chosen.len() - failed.len(), failed.len());
    match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => {
            println!(
                "failed: {}; the seed stands above (BOLERO_RANDOM_SEED=... cargo test NAME repeats it)",
                failed.join(", ")
            );
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

/// Every function whose body calls `bolero::check!`, in the sources of the workspace.
fn targets_in(sources: &[(String, String)]) -> Vec<Target> {
    let mut targets = BTreeSet::new();
    for (path, text) in
        sources.iter().filter(|(path, _)| path.ends_with(".rs") && !path.starts_with("xtask/"))
    {
        let Some((folder, _)) = path.split_once('/') else { continue };
        let lexed = lex(text);
        for marker in ["bolero::check!", " check!("] {
            for (at, _) in lexed.code.match_indices(marker) {
                if marker == " check!(" && !lexed.code.contains("use bolero::check") {
                    continue;
                }
                let Some(function) = lexed.code[..at].rfind("fn ") else { continue };
                let name = lexed.code[function + 3..].split(['(', '<']).next().unwrap_or("").trim();
                targets.insert(Target { folder: folder.to_owned(), name: name.to_owned() });
            }
        }
    }
    targets.into_iter().collect()
}

fn fuzz(root: &Path, target: &Target, options: &Options) -> bool {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--manifest-path", &format!("{}/Cargo.toml", target.folder)]);
    if options.release {
        command.arg("--release");
    }
    command.args([&target.name, "--", "--nocapture"]);
    // The environment outranks the bounds that the targets set themselves for `cargo test`.
    command.env("BOLERO_RANDOM_TEST_TIME_MS", (options.seconds * 1000).to_string());
    command.env("BOLERO_RANDOM_ITERATIONS", u32::MAX.to_string());
    match command.current_dir(root).stdin(Stdio::null()).status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("fuzz: run cargo: {error}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_by_their_call_and_comments_are_not() {
        let text = "// fn old() { bolero::check!() }\n#[test]\nfn frames() {\n    bolero::check!().for_each(|x| f(x));\n}\n\
                    fn helper() { let check = 1; }\n";
        let other = "use bolero::check;\n#[test]\nfn bodies() {\n    check!().with_type().for_each(g);\n}\n";
        let none = "fn f() { check!(a) }";
        let sources: Vec<(String, String)> =
            [("protocol/tests/fuzz.rs", text), ("model/src/batch/fuzz.rs", other), ("broker/src/x.rs", none)]
                .map(|(path, text)| (path.to_owned(), text.to_owned()))
                .to_vec();
        let found: Vec<String> = targets_in(&sources)
            .into_iter()
            .map(|target| format!("{}/{}", target.folder, target.name))
            .collect();
        assert_eq!(found, ["model/bodies", "protocol/frames"]);
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
