//! Who may import whom: the table of allowed crate edges, compared with what `cargo metadata` reports.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Violation, relative};

/// One crate's row: what of the workspace it may know, and which outside libraries, where these are restricted.
struct Room {
    name: &'static str,
    may_know: &'static [&'static str],
    /// `None`: any library. Some rooms are kept pure, and a library can smuggle a clock or a socket in.
    libraries: Option<&'static [&'static str]>,
    /// Edges that only tests may use (`[dev-dependencies]`), on top of `may_know`.
    tests_may_know: &'static [&'static str],
}

const MODEL_LIBRARIES: &[&str] = &["bytes", "crc32c", "flate2", "lz4_flex", "snap", "thiserror", "zstd"];
const SYNC_LIBRARIES: &[&str] = &["loom"];
const PURE_LIBRARIES: &[&str] = &["bytes", "indexmap", "thiserror"];

/// The house. A crate that is not in this table may not be in the workspace.
#[rustfmt::skip]
const ROOMS: &[Room] = &[
    Room { name: "ouzel-model", may_know: &[], libraries: Some(MODEL_LIBRARIES), tests_may_know: &[] },
    Room { name: "ouzel-sync", may_know: &[], libraries: Some(SYNC_LIBRARIES), tests_may_know: &[] },
    Room { name: "ouzel-runtime", may_know: &["ouzel-sync"], libraries: None, tests_may_know: &[] },
    Room { name: "ouzel-protocol", may_know: &["ouzel-model"], libraries: None, tests_may_know: &[] },
    Room { name: "ouzel-storage", may_know: &["ouzel-model", "ouzel-runtime"], libraries: None, tests_may_know: &[] },
    Room { name: "ouzel-raft", may_know: &["ouzel-model", "ouzel-runtime", "ouzel-storage"], libraries: None, tests_may_know: &[] },
    Room { name: "ouzel-metadata", may_know: &["ouzel-model"], libraries: Some(PURE_LIBRARIES), tests_may_know: &[] },
    Room { name: "ouzel-coordinator", may_know: &["ouzel-model"], libraries: Some(PURE_LIBRARIES), tests_may_know: &[] },
    Room {
        name: "ouzel-broker",
        may_know: &["ouzel-model", "ouzel-sync", "ouzel-runtime", "ouzel-protocol", "ouzel-storage", "ouzel-raft",
                    "ouzel-metadata", "ouzel-coordinator"],
        libraries: None,
        // The broker's own tests speak to it as a client does, over a socket.
        tests_may_know: &["ouzel-client"],
    },
    Room { name: "ouzel-client", may_know: &["ouzel-model", "ouzel-runtime", "ouzel-protocol"], libraries: None, tests_may_know: &[] },
    Room {
        name: "ouzel",
        may_know: &["ouzel-model", "ouzel-sync", "ouzel-runtime", "ouzel-protocol", "ouzel-storage", "ouzel-raft",
                    "ouzel-metadata", "ouzel-coordinator", "ouzel-broker", "ouzel-client"],
        libraries: None,
        tests_may_know: &[],
    },
    Room {
        name: "ouzel-tools",
        may_know: &["ouzel-client", "ouzel-model", "ouzel-runtime", "ouzel-protocol", "ouzel-storage"],
        libraries: None,
        tests_may_know: &[],
    },
    Room {
        name: "ouzel-sim",
        may_know: &["ouzel-model", "ouzel-sync", "ouzel-runtime", "ouzel-protocol", "ouzel-storage", "ouzel-raft",
                    "ouzel-metadata", "ouzel-coordinator", "ouzel-broker", "ouzel-client", "ouzel"],
        libraries: None,
        tests_may_know: &[],
    },
    Room { name: "xtask", may_know: &[], libraries: None, tests_may_know: &[] },
];

/// Libraries that bring their own randomness; `runtime` is the one door to it.
const ENTROPY_LIBRARIES: &[&str] = &["rand", "rand_core", "getrandom", "fastrand", "oorandom"];

/// What the rules need to know of one package of the workspace.
#[derive(Debug, Clone)]
pub(super) struct Package {
    pub(super) name: String,
    /// Path of its `Cargo.toml`, relative to the root.
    pub(super) manifest: String,
    pub(super) dependencies: Vec<Dependency>,
    /// Root files of all targets (library, binaries, tests, benches, examples, build script), relative to the root.
    pub(super) target_roots: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) for_tests: bool,
    /// A path dependency is one of our rooms; all else comes from a registry.
    pub(super) ours: bool,
}

/// Asks cargo for the packages of the workspace.
pub(super) fn packages(root: &Path) -> Result<Vec<Package>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("run cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("read cargo metadata: {e}"))?;
    read_packages(root, &metadata).ok_or_else(|| "cargo metadata: a field is missing".to_owned())
}

fn read_packages(root: &Path, metadata: &Value) -> Option<Vec<Package>> {
    let mut packages = Vec::new();
    for package in metadata.get("packages")?.as_array()? {
        let mut dependencies = Vec::new();
        for dependency in package.get("dependencies")?.as_array()? {
            dependencies.push(Dependency {
                name: dependency.get("name")?.as_str()?.to_owned(),
                for_tests: dependency.get("kind")?.as_str() == Some("dev"),
                ours: dependency.get("path").is_some_and(|path| !path.is_null()),
            });
        }
        let mut target_roots = Vec::new();
        for target in package.get("targets")?.as_array()? {
            target_roots.push(relative(root, Path::new(target.get("src_path")?.as_str()?)));
        }
        packages.push(Package {
            name: package.get("name")?.as_str()?.to_owned(),
            manifest: relative(root, Path::new(package.get("manifest_path")?.as_str()?)),
            dependencies,
            target_roots,
        });
    }
    Some(packages)
}

/// Every import that the table does not allow.
pub(super) fn check(packages: &[Package]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in packages {
        let Some(room) = ROOMS.iter().find(|room| room.name == package.name) else {
            violations.push(Violation::at(
                &package.manifest,
                0,
                format!("crate {} is not in the table of rooms; give it a row in xtask/src/tidy/edges.rs and in docs/ARCHITECTURE.md", package.name),
            ));
            continue;
        };
        for dependency in &package.dependencies {
            violations.extend(check_dependency(room, package, dependency));
        }
    }
    for room in ROOMS {
        if !packages.iter().any(|package| package.name == room.name) {
            violations.push(Violation::at(
                "xtask/src/tidy/edges.rs",
                0,
                format!(
                    "the table has a row for {}, which is not in the workspace; remove the row",
                    room.name
                ),
            ));
        }
    }
    violations
}

fn check_dependency(room: &Room, package: &Package, dependency: &Dependency) -> Option<Violation> {
    let name = dependency.name.as_str();
    let at = |message: String| Some(Violation::at(&package.manifest, 0, message));
    if dependency.ours {
        let allowed = room.may_know.contains(&name)
            || (dependency.for_tests && (name == room.name || room.tests_may_know.contains(&name)));
        if allowed {
            return None;
        }
        let known =
            if room.may_know.is_empty() { "no other room".to_owned() } else { room.may_know.join(", ") };
        return at(format!(
            "{} imports {name}, which the table does not allow; it may know {known}. Take what is needed as an argument or a small trait of its own, and let a crate above join the two",
            room.name
        ));
    }
    if dependency.for_tests {
        return None;
    }
    // openraft asks for its numbers through a trait of rand's; runtime's Entropy seeds them.
    let is_trait_only = (room.name, name) == ("ouzel-raft", "rand");
    if ENTROPY_LIBRARIES.contains(&name) && room.name != "ouzel-runtime" && !is_trait_only {
        return at(format!(
            "{} imports {name}; take randomness from runtime's Entropy, so that a run can be replayed from its seed",
            room.name
        ));
    }
    match room.libraries {
        Some(libraries) if !libraries.contains(&name) => at(format!(
            "{} imports the library {name}; this room is kept pure and may use only {}. Do the work in a room above and pass the value in",
            room.name,
            libraries.join(", ")
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The workspace as the table wants it: each room there, importing nothing.
    fn bare_house() -> Vec<Package> {
        ROOMS
            .iter()
            .map(|room| Package {
                name: room.name.to_owned(),
                manifest: format!("{}/Cargo.toml", room.name.trim_start_matches("ouzel-")),
                dependencies: Vec::new(),
                target_roots: Vec::new(),
            })
            .collect()
    }

    fn with_import(room: &str, import: &str, ours: bool, for_tests: bool) -> Vec<String> {
        let mut packages = bare_house();
        let package = packages.iter_mut().find(|package| package.name == room).unwrap();
        package.dependencies.push(Dependency { name: import.to_owned(), for_tests, ours });
        check(&packages).into_iter().map(|violation| violation.to_string()).collect()
    }

    #[test]
    fn an_allowed_edge_is_silent() {
        assert_eq!(with_import("ouzel-storage", "ouzel-model", true, false), Vec::<String>::new());
        assert_eq!(with_import("ouzel-storage", "memmap2", false, false), Vec::<String>::new());
        assert_eq!(with_import("ouzel-model", "zstd", false, false), Vec::<String>::new());
    }

    #[test]
    fn a_forbidden_edge_is_named_with_its_mend() {
        let found = with_import("ouzel-storage", "ouzel-protocol", true, false);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("storage/Cargo.toml: ouzel-storage imports ouzel-protocol"),
            "{found:?}"
        );
        assert!(found[0].contains("may know ouzel-model, ouzel-runtime"), "{found:?}");
    }

    #[test]
    fn tests_get_their_own_edges_and_no_others() {
        assert!(with_import("ouzel-broker", "ouzel-client", true, true).is_empty());
        assert_eq!(with_import("ouzel-broker", "ouzel-client", true, false).len(), 1);
        assert_eq!(with_import("ouzel-coordinator", "ouzel-broker", true, true).len(), 1);
    }

    #[test]
    fn pure_rooms_refuse_outside_libraries() {
        for room in ["ouzel-model", "ouzel-sync", "ouzel-metadata", "ouzel-coordinator"] {
            assert_eq!(with_import(room, "tokio", false, false).len(), 1, "{room}");
            assert!(with_import(room, "proptest", false, true).is_empty(), "{room}");
        }
    }

    #[test]
    fn randomness_has_one_door() {
        assert_eq!(with_import("ouzel-broker", "rand", false, false).len(), 1);
        assert!(with_import("ouzel-runtime", "getrandom", false, false).is_empty());
    }

    #[test]
    fn an_unknown_crate_and_a_stale_row_are_found() {
        let mut packages = bare_house();
        packages[0].name = "ouzel-extra".to_owned();
        let found = check(&packages);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn the_table_has_no_cycle() {
        fn reaches(from: &str, to: &str) -> bool {
            let room = ROOMS.iter().find(|room| room.name == from).unwrap();
            room.may_know.iter().any(|next| *next == to || reaches(next, to))
        }
        for room in ROOMS {
            assert!(!reaches(room.name, room.name), "{}", room.name);
        }
    }
}
