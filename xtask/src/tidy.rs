//! `cargo xtask tidy`: the rules of the house that neither the compiler nor clippy knows.
//!
//! Four questions: does each crate import only what the table allows (`edges`), does each source file keep to
//! the seams of `runtime` and to the manners of the house (`source_rules`), is each file part of the build
//! (`modules`), and is every merge finished (`conflicts`). A finding names the place and says what to do instead.

mod conflicts;
mod edges;
pub(crate) mod lexer;
mod modules;
mod source_rules;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// One breach of a rule: where it is and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    path: String,
    /// Counted from 1; 0 where the breach is the whole file's.
    line: usize,
    message: String,
}

impl Violation {
    fn at(path: &str, line: usize, message: impl Into<String>) -> Violation {
        Violation { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// Runs every rule over the workspace and prints what it found.
pub(crate) fn run(root: &Path, arguments: &[String]) -> ExitCode {
    if !arguments.is_empty() {
        eprintln!("usage: cargo xtask tidy");
        return ExitCode::from(2);
    }
    match check(root) {
        Ok((violations, files)) if violations.is_empty() => {
            println!("tidy: {files} files, nothing to mend");
            ExitCode::SUCCESS
        }
        Ok((violations, files)) => {
            for violation in &violations {
                println!("{violation}");
            }
            println!("tidy: {} to mend in {files} files", violations.len());
            ExitCode::FAILURE
        }
        Err(message) => {
            eprintln!("tidy: {message}");
            ExitCode::FAILURE
        }
    }
}

/// All violations in the order of their places, and how many source files were looked at.
fn check(root: &Path) -> Result<(Vec<Violation>, usize), String> {
    let packages = edges::packages(root)?;
    let mut violations = edges::check(&packages);
    let sources = sources(root)?;
    let reached = modules::Reached::from_roots(&packages, &sources);
    for (path, text) in &sources {
        violations.extend(source_rules::check_file(path, text, reached.is_test_only(path)));
    }
    violations.extend(source_rules::check_exceptions(&sources));
    violations.extend(source_rules::check_searched_by_loom(&sources));
    violations.extend(reached.dead_files(&sources));
    violations.extend(conflicts::check(root)?);
    violations.sort();
    Ok((violations, sources.len()))
}

/// Every source file of the repository: its path relative to the root, and its text.
pub(crate) fn sources(root: &Path) -> Result<Vec<(String, String)>, String> {
    let read = |path: String| match std::fs::read_to_string(root.join(&path)) {
        Ok(text) => Ok((path, text)),
        Err(error) => Err(format!("read {path}: {error}")),
    };
    source_files(root)?.into_iter().map(read).collect()
}

/// The files that git tracks or would track, as paths relative to the root, of the kinds the rules can read.
/// Git decides, so build outputs and what else is ignored never count.
fn source_files(root: &Path) -> Result<Vec<String>, String> {
    let listing = std::process::Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("run git ls-files: {e}"))?;
    if !listing.status.success() {
        return Err(format!("git ls-files failed: {}", String::from_utf8_lossy(&listing.stderr).trim()));
    }
    let mut paths: Vec<String> = listing
        .stdout
        .split(|byte| *byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter(|name| source_rules::Language::of(name).is_some())
        // A file deleted from the tree but not yet from the index is still listed.
        .filter(|name| root.join(name).is_file())
        .map(str::to_owned)
        .collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// The path relative to the root with `/` between its parts, as every rule writes paths.
fn relative(root: &Path, path: &Path) -> String {
    let path: PathBuf = path.strip_prefix(root).unwrap_or(path).to_path_buf();
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}
