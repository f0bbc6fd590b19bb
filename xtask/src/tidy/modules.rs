//! Which source files the build reaches: a `.rs` file that no `mod` names is dead, however well it reads.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::edges::Package;
use super::lexer::{block_end, lex};

/// Files reached from the roots of all targets, each with whether only tests reach it.
#[derive(Debug, Default)]
pub(super) struct Reached {
    test_only: BTreeMap<String, bool>,
}

impl Reached {
    /// Follows `mod` and `include!` from the roots of every target.
    pub(super) fn from_roots(packages: &[Package], sources: &[(String, String)]) -> Reached {
        let texts: BTreeMap<&str, &str> =
            sources.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let mut reached = Reached::default();
        let mut roots: Vec<String> =
            packages.iter().flat_map(|package| package.target_roots.iter().cloned()).collect();
        roots.extend(roots_outside_the_workspace(packages, sources));
        let mut pending: Vec<(String, bool)> = roots
            .into_iter()
            .map(|root| {
                let test_only = root.contains("tests/") || root.contains("benches/");
                (root, test_only)
            })
            .collect();
        while let Some((path, test_only)) = pending.pop() {
            let Some(text) = texts.get(path.as_str()) else { continue };
            match reached.test_only.get(&path) {
                // Seen already, and not more freely than now.
                Some(before) if !before || test_only => continue,
                _ => {}
            }
            reached.test_only.insert(path.clone(), test_only);
            for child in children(&path, text) {
                let found = child.candidates.iter().find(|candidate| texts.contains_key(candidate.as_str()));
                if let Some(found) = found {
                    pending.push((found.clone(), test_only || child.test_only));
                }
            }
        }
        reached
    }

    /// Whether no built binary holds the file; a dead file counts as code.
    pub(super) fn is_test_only(&self, path: &str) -> bool {
        self.test_only.get(path).copied().unwrap_or(false)
    }

    /// Files that the build does not reach.
    pub(super) fn dead_files(&self, sources: &[(String, String)]) -> Vec<Violation> {
        sources
            .iter()
            .filter(|(path, _)| path.ends_with(".rs") && !self.test_only.contains_key(path))
            .map(|(path, _)| {
                Violation::at(path, 0, "no mod names this file, so it is never built; name it or remove it")
            })
            .collect()
    }
}

/// Crates that stand outside the workspace (the real clients' drivers) follow cargo's usual places.
fn roots_outside_the_workspace(packages: &[Package], sources: &[(String, String)]) -> Vec<String> {
    let inside: BTreeSet<&str> = packages.iter().map(|package| package.manifest.as_str()).collect();
    let folders: Vec<&str> = sources
        .iter()
        .filter(|(path, _)| path.ends_with("/Cargo.toml") && !inside.contains(path.as_str()))
        .filter_map(|(path, _)| path.strip_suffix("Cargo.toml"))
        .collect();
    let is_root = |path: &str| {
        folders.iter().filter_map(|folder| path.strip_prefix(folder)).any(|rest| {
            let one_below = |folder: &str| rest.strip_prefix(folder).is_some_and(|name| !name.contains('/'));
            matches!(rest, "src/lib.rs" | "src/main.rs" | "build.rs")
                || one_below("src/bin/")
                || rest
                    .strip_prefix("src/bin/")
                    .is_some_and(|name| name.ends_with("/main.rs") && name.matches('/').count() == 1)
                || one_below("tests/")
        })
    };
    sources
        .iter()
        .map(|(path, _)| path)
        .filter(|path| path.ends_with(".rs") && is_root(path))
        .cloned()
        .collect()
}

/// A module declared in a file: the places where its source may lie.
struct Child {
    candidates: Vec<String>,
    test_only: bool,
}

fn children(path: &str, text: &str) -> Vec<Child> {
    let lexed = lex(text);
    let code = lexed.code.as_bytes();
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.trim_end_matches(".rs");
    // `src/log.rs` keeps its modules in `src/log/`; a root and `mod.rs` keep them beside themselves.
    let is_root = matches!(name, "lib.rs" | "main.rs" | "mod.rs" | "build.rs")
        || ["/bin", "/tests", "/benches", "/examples"].iter().any(|end| folder.ends_with(end));
    let own_folder = if is_root { folder.to_owned() } else { format!("{folder}/{stem}") };

    let mut found = Vec::new();
    // Inline modules that are open at the present position: where they end, their name, whether only tests build them.
    let mut open: Vec<(usize, String, bool)> = Vec::new();
    let mut position = 0;
    while let Some(offset) = lexed.code[position..].find("mod ") {
        let start = position + offset;
        position = start + 4;
        let word_before = start > 0 && (code[start - 1] == b'_' || code[start - 1].is_ascii_alphanumeric());
        if word_before {
            continue;
        }
        open.retain(|(end, _, _)| *end > start);
        let rest = &lexed.code[position..];
        let module: String = rest.chars().take_while(|c| *c == '_' || c.is_ascii_alphanumeric()).collect();
        let behind = rest[module.len()..].trim_start();
        if module.is_empty() {
            continue;
        }
        let attributes = attributes_before(text, &lexed.code, start);
        let test_only = attributes.contains("cfg(test)")
            || attributes.contains("cfg(all(test")
            || open.iter().any(|(_, _, test_only)| *test_only);
        if behind.starts_with('{') {
            let brace = position + rest.find('{').unwrap_or(0);
            open.push((block_end(code, brace), module, test_only));
        } else if behind.starts_with(';') {
            let mut base = own_folder.clone();
            for (_, name, _) in &open {
                base = format!("{base}/{name}");
            }
            let mut candidates = vec![format!("{base}/{module}.rs"), format!("{base}/{module}/mod.rs")];
            if let Some(named) = attributes.split("path = \"").nth(1).and_then(|rest| rest.split('"').next())
            {
                candidates = vec![join(folder, named)];
            }
            found.push(Child { candidates, test_only });
        }
    }
    for (start, _) in lexed.code.match_indices("include!(") {
        if let Some(named) = text[start..].split('"').nth(1) {
            found.push(Child { candidates: vec![join(folder, named)], test_only: false });
        }
    }
    found
}

/// The text between the end of the item before and the `mod` at `start`, with its string literals.
fn attributes_before<'a>(text: &'a str, code: &str, start: usize) -> &'a str {
    let begin = code[..start].rfind([';', '}', '{']).map_or(0, |end| end + 1);
    text.get(begin..start).unwrap_or("")
}

/// `folder/name` with `..` taken.
fn join(folder: &str, name: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(roots: &[&str]) -> Package {
        Package {
            name: "ouzel-model".to_owned(),
            manifest: "model/Cargo.toml".to_owned(),
            dependencies: Vec::new(),
            target_roots: roots.iter().map(|root| (*root).to_owned()).collect(),
        }
    }

    fn dead(roots: &[&str], sources: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<(String, String)> =
            sources.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let reached = Reached::from_roots(&[package(roots)], &sources);
        reached.dead_files(&sources).into_iter().map(|violation| violation.path).collect()
    }

    #[test]
    fn a_file_that_no_mod_names_is_dead() {
        let sources = [
            ("model/src/lib.rs", "pub mod batch;\n// mod lost;\n"),
            ("model/src/batch.rs", "mod header;\n"),
            ("model/src/batch/header.rs", ""),
            ("model/src/lost.rs", ""),
            ("model/src/header.rs", ""),
        ];
        assert_eq!(dead(&["model/src/lib.rs"], &sources), ["model/src/lost.rs", "model/src/header.rs"]);
    }

    #[test]
    fn paths_inline_modules_includes_and_mod_rs_are_followed() {
        let sources = [
            (
                "model/src/lib.rs",
                "#[path = \"odd.rs\"]\nmod a;\nmod b {\n    mod c;\n}\nmod d;\ninclude!(\"e.rs\");",
            ),
            ("model/src/odd.rs", ""),
            ("model/src/b/c.rs", ""),
            ("model/src/d/mod.rs", "mod f;"),
            ("model/src/d/f.rs", ""),
            ("model/src/e.rs", ""),
            ("model/tests/all.rs", "mod common;"),
            ("model/tests/common/mod.rs", ""),
        ];
        assert_eq!(dead(&["model/src/lib.rs", "model/tests/all.rs"], &sources), Vec::<String>::new());
    }

    #[test]
    fn crates_outside_the_workspace_have_the_usual_roots() {
        let sources = [
            ("tests/clients/rust/Cargo.toml", ""),
            ("tests/clients/rust/src/main.rs", "mod a;"),
            ("tests/clients/rust/src/a.rs", ""),
            ("tests/clients/rust/src/b.rs", ""),
            ("tests/clients/rust/src/bin/c.rs", ""),
            ("tests/clients/rust/src/bin/d/main.rs", "mod e;"),
            ("tests/clients/rust/src/bin/d/e.rs", ""),
            ("tests/clients/rust/src/bin/d/f.rs", ""),
        ];
        assert_eq!(dead(&[], &sources), ["tests/clients/rust/src/b.rs", "tests/clients/rust/src/bin/d/f.rs"]);
    }

    #[test]
    fn a_file_is_a_tests_file_only_if_nothing_else_reaches_it() {
        let sources: Vec<(String, String)> = [
            ("model/src/lib.rs", "#[cfg(test)]\nmod a;\nmod b;\n#[cfg(test)]\nmod tests { mod c; }"),
            ("model/src/a.rs", ""),
            ("model/src/b.rs", ""),
            ("model/src/tests/c.rs", ""),
            ("model/tests/all.rs", "#[path = \"../src/b.rs\"] mod b;"),
        ]
        .map(|(path, text)| (path.to_owned(), text.to_owned()))
        .to_vec();
        let reached = Reached::from_roots(&[package(&["model/tests/all.rs", "model/src/lib.rs"])], &sources);
        let test_only = |path: &str| reached.is_test_only(path);
        assert!(test_only("model/src/a.rs") && test_only("model/src/tests/c.rs"));
        assert!(test_only("model/tests/all.rs"));
        assert!(!test_only("model/src/b.rs") && !test_only("model/src/lib.rs"));
    }
}
