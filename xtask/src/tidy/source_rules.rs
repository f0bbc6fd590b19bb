//! Rules about one source file: which doors to the machine it may use, and the manners of the house.

use super::Violation;
use super::lexer::{Lexed, block_end, lex};

/// A file longer than this holds more than one noun.
const FILE_LINES_MAX: usize = 700;
/// Tests are read case by case, not from top to bottom.
const TEST_FILE_LINES_MAX: usize = 900;

/// Files that were longer when the rule came, with the length they may not outgrow. Rows only shrink and go.
const FILE_LINES_RATCHET: &[(&str, usize)] = &[];

/// The languages the rules can read, by file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Rust,
    /// Comments start with `#`: TOML, shell, Python, YAML.
    Hash,
    /// Comments start with `//`: Java, Go, JavaScript.
    Slashes,
    /// All of it is prose.
    Markdown,
}

impl Language {
    pub(super) fn of(path: &str) -> Option<Language> {
        let name = path.rsplit('/').next().unwrap_or(path);
        match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
            "rs" => Some(Language::Rust),
            "toml" | "sh" | "py" | "yml" | "yaml" => Some(Language::Hash),
            "java" | "go" | "js" | "mjs" | "ts" => Some(Language::Slashes),
            "md" => Some(Language::Markdown),
            _ if path == ".ci/run" => Some(Language::Hash),
            _ => None,
        }
    }
}

/// A door to the machine that only `runtime` may open, so that a simulation can stand in for it.
struct Seam {
    name: &'static str,
    /// Paths that go through the door: the path itself and all below it.
    paths: &'static [&'static str],
    /// Paths below those that are values only and harmless.
    harmless: &'static [&'static str],
    instead: &'static str,
}

#[rustfmt::skip]
const SEAMS: &[Seam] = &[
    Seam {
        name: "clock",
        paths: &["Instant::now", "SystemTime::now", "tokio::time", "Utc::now", "Local::now"],
        harmless: &["tokio::time::Instant", "tokio::time::error"],
        instead: "ask runtime's Clock, or take the time as an argument",
    },
    Seam {
        name: "disk",
        paths: &["std::fs", "tokio::fs", "std::os::unix::fs"],
        harmless: &[],
        instead: "go through runtime's Disk and File, which a simulation can tear, delay and fail",
    },
    Seam {
        name: "network",
        paths: &["std::net", "tokio::net", "std::os::unix::net"],
        harmless: &["std::net::SocketAddr", "std::net::SocketAddrV4", "std::net::SocketAddrV6", "std::net::IpAddr",
                    "std::net::Ipv4Addr", "std::net::Ipv6Addr", "std::net::AddrParseError"],
        instead: "go through runtime's Net",
    },
    Seam {
        name: "entropy",
        paths: &["rand", "getrandom", "fastrand", "std::hash::RandomState", "std::collections::hash_map::RandomState"],
        harmless: &[],
        instead: "ask runtime's Entropy, so that a run can be replayed from its seed",
    },
    Seam {
        name: "spawn",
        paths: &["std::thread", "thread::spawn", "thread::sleep", "tokio::spawn", "tokio::task::spawn",
                 "tokio::task::spawn_local", "tokio::task::spawn_blocking", "tokio::runtime"],
        harmless: &["std::thread::Result", "std::thread::panicking"],
        instead: "spawn through runtime, which owns the threads and, in a simulation, the order of tasks",
    },
];

/// Where a seam may be opened all the same, and why. A row that no file needs any more is itself a finding.
struct Exception {
    /// A folder (with its closing `/`) or one file.
    place: &'static str,
    seam: &'static str,
    #[expect(dead_code, reason = "read by people: an exception without a reason is not an exception")]
    why: &'static str,
}

#[rustfmt::skip]
const EXCEPTIONS: &[Exception] = &[
    Exception { place: "raft/src/runtime.rs", seam: "entropy", why: "openraft draws through rand's trait; the numbers are the runtime's" },
    Exception { place: "sync/src/shim.rs", seam: "spawn", why: "a spinning reader yields its time slice; no thread is made" },
    Exception { place: "tools/src/main.rs", seam: "disk", why: "reads the user's file of profiles before there is a runtime" },
    Exception { place: "tools/src/dev/", seam: "disk", why: "the processes and folders of a cluster on the user's own machine" },
    Exception { place: "tools/src/dev.rs", seam: "disk", why: "reads the logs of such a cluster" },
    Exception { place: "tools/src/commands/produce.rs", seam: "disk", why: "--from reads a file as stdin is read" },
];

/// Folders that are doors or stand outside the house; every seam is open to them.
const OPEN_FOLDERS: &[&str] = &[
    "runtime/", // the door itself
    "xtask/",   // runs binaries on the real machine
    "server/",  // start-up: reads the configuration file, starts the threads, serves the admin HTTP
    "tests/",   // real clients against a real process
];

/// Crates that hold unsafe code, each behind a safe type.
const UNSAFE_FOLDERS: &[&str] = &["sync/", "runtime/"];

/// All findings in one file. `test_only`: nothing of it is in a built binary, so the seams do not bind it.
pub(super) fn check_file(path: &str, text: &str, test_only: bool) -> Vec<Violation> {
    let mut violations = Vec::new();
    let Some(language) = Language::of(path) else { return violations };
    if language == Language::Rust {
        let lexed = lex(text);
        check_seams(path, &lexed, test_only, &mut violations);
        check_macros(path, &lexed, &mut violations);
        check_allow(path, &lexed, &mut violations);
        check_crate_root(path, &lexed, &mut violations);
        check_length(path, text, test_only, &mut violations);
        for (line, comment) in &lexed.comments {
            check_issue_number(path, *line, comment, &mut violations);
        }
    } else {
        for (nth, line) in text.lines().enumerate() {
            if let Some(words) = prose_of(language, line) {
                check_issue_number(path, nth + 1, words, &mut violations);
            }
        }
    }
    violations
}

/// Exceptions that no file uses any more.
pub(super) fn check_exceptions(sources: &[(String, String)]) -> Vec<Violation> {
    let unused = EXCEPTIONS.iter().filter(|exception| {
        !sources.iter().filter(|(path, _)| path.starts_with(exception.place)).any(|(path, text)| {
            Language::of(path) == Some(Language::Rust)
                && uses_of_seams(&lex(text)).iter().any(|found| found.seam.name == exception.seam)
        })
    });
    unused
        .map(|exception| {
            Violation::at(
                "xtask/src/tidy/source_rules.rs",
                0,
                format!(
                    "the exception for {} ({}) is used by no file; remove the row",
                    exception.place, exception.seam
                ),
            )
        })
        .collect()
}

/// Hand-written synchronisation that no test searches: such a test run passes by running nothing.
pub(super) fn check_searched_by_loom(sources: &[(String, String)]) -> Option<Violation> {
    let mut of_sync =
        sources.iter().filter(|(path, _)| path.starts_with("sync/") && path.ends_with(".rs")).peekable();
    of_sync.peek()?;
    let searched = of_sync.any(|(_, text)| {
        let code = lex(text).code;
        code.contains("loom::model") || code.contains("model::Builder")
    });
    (!searched).then(|| {
        Violation::at("sync/src/lib.rs", 0, "no test of sync calls loom::model, so its interleavings are searched by nobody; add one for each structure")
    })
}

fn check_seams(path: &str, lexed: &Lexed, test_only: bool, violations: &mut Vec<Violation>) {
    if test_only || OPEN_FOLDERS.iter().any(|folder| path.starts_with(folder)) {
        return;
    }
    let tests = test_regions(&lexed.code);
    for found in uses_of_seams(lexed) {
        let excepted = EXCEPTIONS
            .iter()
            .any(|exception| path.starts_with(exception.place) && exception.seam == found.seam.name);
        if excepted || tests.iter().any(|region| region.contains(&found.position)) {
            continue;
        }
        violations.push(Violation::at(
            path,
            lexed.line_at(found.position),
            format!("{} outside runtime; {}", found.path, found.seam.instead),
        ));
    }
}

struct SeamUse {
    position: usize,
    path: String,
    seam: &'static Seam,
}

fn uses_of_seams(lexed: &Lexed) -> Vec<SeamUse> {
    let mut uses: Vec<SeamUse> = Vec::new();
    for (position, path) in paths_in(&lexed.code) {
        let parts: Vec<&str> = path.split("::").collect();
        for seam in SEAMS {
            let harmless = seam.harmless.iter().any(|harmless| {
                let harmless: Vec<&str> = harmless.split("::").collect();
                parts.starts_with(&harmless)
            }) && parts.last() != Some(&"now");
            // A door named without its crate (`Instant::now`) may stand behind any path.
            let through = seam.paths.iter().any(|door| {
                let door: Vec<&str> = door.split("::").collect();
                let rooted = door[0].chars().all(|c| c.is_ascii_lowercase()) && door[0] != "thread";
                if rooted { parts.starts_with(&door) } else { parts.ends_with(&door) }
            });
            if through && !harmless {
                uses.push(SeamUse { position, path: path.clone(), seam });
                break;
            }
        }
    }
    uses
}

/// Every path of two or more parts in the code, with its position; `use a::{b, c::d}` gives `a::b` and `a::c::d`.
fn paths_in(code: &str) -> Vec<(usize, String)> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    let mut position = 0;
    while position < bytes.len() {
        if !starts_identifier(bytes, position) {
            position += 1;
            continue;
        }
        let end = identifier_end(bytes, position);
        if &code[position..end] == "use" {
            let stop = code[end..].find(';').map_or(code.len(), |offset| end + offset);
            flatten_use(code, end, stop, &mut found);
            position = stop;
            continue;
        }
        let path_end = path_end(bytes, end);
        if path_end > end {
            found.push((position, code[position..path_end].split_whitespace().collect()));
        }
        position = path_end;
    }
    found
}

fn starts_identifier(bytes: &[u8], position: usize) -> bool {
    let letter = |byte: u8| byte == b'_' || byte.is_ascii_alphabetic();
    let inside = position > 0 && (letter(bytes[position - 1]) || bytes[position - 1].is_ascii_digit());
    letter(bytes[position]) && !inside
}

fn identifier_end(bytes: &[u8], start: usize) -> usize {
    let length =
        bytes[start..].iter().take_while(|byte| **byte == b'_' || byte.is_ascii_alphanumeric()).count();
    start + length
}

/// Follows `::name` as long as it goes on.
fn path_end(bytes: &[u8], mut end: usize) -> usize {
    while bytes[end..].starts_with(b"::") && end + 2 < bytes.len() && starts_identifier(bytes, end + 2) {
        end = identifier_end(bytes, end + 2);
    }
    end
}

/// Spreads the tree of one `use`, whose text lies between `start` and `stop`.
fn flatten_use(code: &str, start: usize, stop: usize, found: &mut Vec<(usize, String)>) {
    let bytes = code.as_bytes();
    // What stands before each open brace, innermost last.
    let mut prefixes: Vec<String> = vec![String::new()];
    let mut current = String::new();
    let mut current_at = start;
    let mut renamed = false;
    let close = |at: usize, current: &mut String, prefix: &str, found: &mut Vec<(usize, String)>| {
        let full = format!("{prefix}{current}");
        let full = full.trim_end_matches("::self").to_owned();
        if !current.is_empty() {
            found.push((at, full));
        }
        current.clear();
    };
    let mut position = start;
    while position < stop {
        let prefix = prefixes.last().cloned().unwrap_or_default();
        match bytes[position] {
            b'{' => {
                prefixes.push(format!("{prefix}{current}"));
                current.clear();
            }
            b'}' => {
                close(current_at, &mut current, &prefix, found);
                prefixes.pop();
                renamed = false;
            }
            b',' => {
                close(current_at, &mut current, &prefix, found);
                renamed = false;
            }
            b':' | b'*' if !renamed => current.push(char::from(bytes[position])),
            _ if starts_identifier(bytes, position) => {
                let end = identifier_end(bytes, position);
                let word = &code[position..end];
                renamed |= word == "as";
                if !renamed {
                    if current.is_empty() {
                        current_at = position;
                    }
                    current.push_str(word);
                }
                position = end;
                continue;
            }
            _ => {}
        }
        position += 1;
    }
    let prefix = prefixes.last().cloned().unwrap_or_default();
    close(current_at, &mut current, &prefix, found);
}

/// The byte ranges of items that only tests are built with.
fn test_regions(code: &str) -> Vec<std::ops::Range<usize>> {
    let bytes = code.as_bytes();
    let mut regions = Vec::new();
    for marker in ["#[cfg(test)]", "#[cfg(all(test", "#[cfg(any(test", "#[test]"] {
        for (start, _) in code.match_indices(marker) {
            let body = bytes[start..].iter().position(|byte| *byte == b'{');
            let semicolon = bytes[start..].iter().position(|byte| *byte == b';');
            let end = match (body, semicolon) {
                (Some(body), semicolon) if semicolon.is_none_or(|semicolon| body < semicolon) => {
                    block_end(bytes, start + body)
                }
                (_, Some(semicolon)) => start + semicolon,
                _ => bytes.len(),
            };
            regions.push(start..end);
        }
    }
    regions
}

fn check_macros(path: &str, lexed: &Lexed, violations: &mut Vec<Violation>) {
    let bytes = lexed.code.as_bytes();
    for name in ["todo!", "unimplemented!"] {
        for (position, _) in lexed.code.match_indices(name) {
            if starts_identifier(bytes, position) {
                violations.push(Violation::at(
                    path,
                    lexed.line_at(position),
                    format!(
                        "{name}: write the code or leave the feature out; what is not there is not advertised"
                    ),
                ));
            }
        }
    }
}

fn check_allow(path: &str, lexed: &Lexed, violations: &mut Vec<Violation>) {
    for marker in ["#[allow(", "#![allow("] {
        for (position, _) in lexed.code.match_indices(marker) {
            let attribute = lexed.code[position..].split(']').next().unwrap_or("");
            if attribute.contains("reason =") {
                continue;
            }
            violations.push(Violation::at(
                path,
                lexed.line_at(position),
                "allow(...) without a reason; write #[expect(..., reason = \"...\")], which also goes stale aloud, or allow with a reason where some builds need it and some do not",
            ));
        }
    }
}

fn check_crate_root(path: &str, lexed: &Lexed, violations: &mut Vec<Violation>) {
    let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    if !is_root || UNSAFE_FOLDERS.iter().any(|folder| path.starts_with(folder)) {
        return;
    }
    if !lexed.code.contains("#![forbid(unsafe_code)]") {
        violations.push(Violation::at(
            path,
            0,
            "says no #![forbid(unsafe_code)]; add it below the crate's opening comment (unsafe lives in sync and runtime)",
        ));
    }
    if path.ends_with("src/lib.rs")
        && !lexed.comments.first().is_some_and(|(_, text)| text.starts_with("//!"))
    {
        violations.push(Violation::at(
            path,
            1,
            "opens without a //! comment; say what the crate is, what it does not know, and a reading order",
        ));
    }
    let items =
        lexed.code.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("#!["));
    if matches!(items.map(str::trim).collect::<Vec<_>>()[..], [] | ["fn main() {}"]) {
        violations.push(Violation::at(
            path,
            0,
            "an empty crate; leave it out of the workspace until it does something",
        ));
    }
}

fn check_length(path: &str, text: &str, test_only: bool, violations: &mut Vec<Violation>) {
    let lines = text.lines().count();
    let allowed = if test_only { TEST_FILE_LINES_MAX } else { FILE_LINES_MAX };
    match FILE_LINES_RATCHET.iter().find(|(ratcheted, _)| *ratcheted == path) {
        Some((_, lines_max)) if lines > *lines_max => violations.push(Violation::at(
            path,
            0,
            format!("{lines} lines, {lines_max} when it was last looked at; it may only shrink, split it by noun"),
        )),
        Some(_) if lines <= allowed => violations.push(Violation::at(
            path,
            0,
            format!("{lines} lines, within the limit again; remove its row from FILE_LINES_RATCHET"),
        )),
        None if lines > allowed => violations.push(Violation::at(
            path,
            0,
            format!("{lines} lines, {allowed} allowed; a file is about one noun, split it (tests may go to a sibling)"),
        )),
        _ => {}
    }
}

/// The part of a line that people read, in languages other than Rust.
fn prose_of(language: Language, line: &str) -> Option<&str> {
    match language {
        Language::Rust => None,
        Language::Markdown => Some(line),
        Language::Hash => line.trim_start().strip_prefix('#'),
        Language::Slashes => line.find("//").map(|start| &line[start + 2..]),
    }
}

/// An issue's number says nothing to whoever reads the code without the tracker.
fn check_issue_number(path: &str, line: usize, words: &str, violations: &mut Vec<Violation>) {
    let bytes = words.as_bytes();
    for (position, _) in words.match_indices('#') {
        let opens = position == 0 || matches!(bytes[position - 1], b' ' | b'(' | b'\t' | b'[');
        let digits = bytes[position + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let closes = bytes.get(position + 1 + digits).is_none_or(|byte| !byte.is_ascii_alphanumeric());
        if opens && (1..=5).contains(&digits) && closes {
            let number = &words[position..=position + digits];
            violations.push(Violation::at(
                path,
                line,
                format!(
                    "{number} reads like an issue's number; say the fact itself, readable without the tracker"
                ),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "//! Doc.\n#![forbid(unsafe_code)]\npub mod x;\n";

    fn found(path: &str, text: &str) -> Vec<String> {
        check_file(path, text, false).into_iter().map(|violation| violation.to_string()).collect()
    }

    /// One planted breach is found once, on the line it stands on, with words on what to do.
    fn finds_one(path: &str, text: &str, line: usize, words: &str) {
        let found = found(path, text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].starts_with(&format!("{path}:{line}: ")), "{found:?}");
        assert!(found[0].contains(words), "{found:?}");
    }

    fn silent(path: &str, text: &str) {
        assert_eq!(found(path, text), Vec::<String>::new(), "{text}");
    }

    #[test]
    fn seams_are_found_however_they_are_written() {
        let path = "storage/src/log.rs";
        finds_one(path, "fn f() {\n    let t = std::time::Instant::now();\n}", 2, "runtime's Clock");
        finds_one(path, "use std::time::Instant;\nfn f() { Instant::now(); }", 2, "runtime's Clock");
        finds_one(path, "fn f() { std::time::SystemTime::now(); }", 1, "runtime's Clock");
        finds_one(
            path,
            "use tokio::{sync::Notify, time::{self as t, Instant}};",
            1,
            "tokio::time outside runtime",
        );
        finds_one(path, "use tokio::time::Instant;\nfn f() { tokio::time::Instant::now(); }", 2, "Clock");
        finds_one(path, "use std::{\n    io,\n    fs::File,\n};", 3, "runtime's Disk");
        finds_one(path, "fn f() { tokio::fs::read(p); }", 1, "runtime's Disk");
        finds_one(path, "use std::net::TcpListener;", 1, "runtime's Net");
        finds_one(path, "use tokio::net::{TcpStream};", 1, "runtime's Net");
        finds_one(path, "fn f() { rand::random() }", 1, "runtime's Entropy");
        finds_one(path, "fn f() { std::thread::spawn(g); }", 1, "spawn through runtime");
        finds_one(path, "fn f() { tokio::task::spawn_local(g()); }", 1, "spawn through runtime");
    }

    #[test]
    fn values_of_the_seams_are_harmless() {
        let path = "broker/src/listener.rs";
        silent(
            path,
            "use std::net::{IpAddr, SocketAddr};\nuse tokio::time::Instant;\nuse std::time::Duration;",
        );
        silent(path, "use tokio::sync::{Notify, oneshot};\nfn f(now: Instant) { now.elapsed(); }");
        silent(path, "// std::fs is not for us\nconst S: &str = \"std::fs::read\";");
        silent(path, "use crate::net::Thing;\nuse super::fs::Other;\nfn operand::now() {}");
    }

    #[test]
    fn the_door_itself_and_tests_are_free() {
        let text = "fn f() { std::fs::read(p); }";
        silent("runtime/src/disk.rs", text);
        silent("xtask/src/ci.rs", text);
        assert!(check_file("storage/tests/crash.rs", text, true).is_empty());
        silent("storage/src/log.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n");
        finds_one("storage/src/log.rs", "#[cfg(test)]\nmod tests { }\nuse std::fs;", 3, "Disk");
        finds_one("storage/src/log.rs", "#[cfg(test)]\nmod tests;\nuse std::fs;", 3, "Disk");
    }

    #[test]
    fn unfinished_code_is_found() {
        finds_one("model/src/x.rs", "fn f() {\n    todo!()\n}", 2, "todo!");
        finds_one("model/src/x.rs", "fn f() { unimplemented!(\"later\") }", 1, "not advertised");
        silent("model/src/x.rs", "fn f() { not_todo!(); } // todo!");
        finds_one("model/src/x.rs", "#[allow(dead_code)]\nfn f() {}", 1, "expect");
        silent(
            "model/src/x.rs",
            "#![allow(dead_code, reason = \"not every test uses all of it\")]\nfn f() {}",
        );
    }

    #[test]
    fn crate_roots_forbid_unsafe_and_open_with_words() {
        silent("model/src/lib.rs", ROOT);
        assert_eq!(found("model/src/lib.rs", "//! Doc.\npub mod x;\n").len(), 1);
        assert_eq!(found("model/src/lib.rs", "#![forbid(unsafe_code)]\npub mod x;\n").len(), 1);
        silent("sync/src/lib.rs", "//! Doc.\npub mod x;\n");
        assert_eq!(found("model/src/lib.rs", "//! Doc.\n#![forbid(unsafe_code)]\n").len(), 1);
        assert_eq!(found("sim/src/main.rs", "//! Doc.\n#![forbid(unsafe_code)]\nfn main() {}\n").len(), 1);
    }

    #[test]
    fn long_files_are_found() {
        let long = "// x\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!(found("model/src/x.rs", &long).len(), 1);
        silent("model/src/x.rs", &"// x\n".repeat(FILE_LINES_MAX));
        assert!(check_file("model/tests/x.rs", &long, true).is_empty());
    }

    #[test]
    fn issue_numbers_are_found_in_comments_only() {
        finds_one("model/src/x.rs", "fn f() {}\n// see #12", 2, "#12 reads like");
        finds_one("model/src/x.rs", "/* a\n * (#7) */", 2, "#7");
        finds_one("docs/format.md", "as said in #3.", 1, "#3");
        finds_one("tests/x/run.py", "x = 1\n# fixes #44", 2, "#44");
        finds_one("tests/x/A.java", "int x; // fixes #44", 1, "#44");
        silent("model/src/x.rs", "const S: &str = \" #12\"; // KIP-12, a#1, #[x], #abc, #12ab");
        silent("docs/format.md", "# 1 Head\n## 2. Two");
        silent("tests/x/run.py", "color = ' #123'");
    }

    #[test]
    fn exceptions_name_a_seam_that_exists() {
        for exception in EXCEPTIONS {
            assert!(SEAMS.iter().any(|seam| seam.name == exception.seam), "{}", exception.place);
        }
    }

    #[test]
    fn synchronisation_without_a_search_is_found() {
        let sources = |text: &str| [("sync/src/mailbox.rs".to_owned(), text.to_owned())];
        assert!(check_searched_by_loom(&sources("fn f() {} // loom::model")).is_some());
        assert!(check_searched_by_loom(&sources("#[test] fn t() { loom::model(|| f()) }")).is_none());
        assert!(check_searched_by_loom(&[]).is_none());
    }

    #[test]
    fn use_trees_are_spread() {
        let paths: Vec<String> =
            paths_in("use a::{b, c::{self, d as e}, f::*};").into_iter().map(|(_, path)| path).collect();
        assert_eq!(paths, ["a::b", "a::c", "a::c::d", "a::f::*"]);
    }
}
