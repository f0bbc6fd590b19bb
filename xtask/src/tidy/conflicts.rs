//! No half of a merge is left lying in any file: the compiler finds those in code, and nobody those in pages.

use std::path::Path;
use std::process::Command;

use super::Violation;

/// What git writes at the beginning of a line where two changes meet.
const MARKS: &str = "^(<{7}|>{7})( |$)";

/// Every mark in what git tracks.
pub(super) fn check(root: &Path) -> Result<Vec<Violation>, String> {
    let found = Command::new("git")
        .args(["-c", "color.grep=false", "grep", "--line-number", "-I", "--extended-regexp", MARKS])
        .current_dir(root)
        .output()
        .map_err(|e| format!("run git grep: {e}"))?;
    match found.status.code() {
        Some(0 | 1) => Ok(violations(&String::from_utf8_lossy(&found.stdout))),
        _ => Err(format!("git grep failed: {}", String::from_utf8_lossy(&found.stderr).trim())),
    }
}

/// Reads `path:line:text` lines.
fn violations(found: &str) -> Vec<Violation> {
    let places = found.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        Some((parts.next()?, parts.next()?.parse().ok()?))
    });
    places
        .map(|(path, line)| Violation::at(path, line, "a mark of a merge that was not finished: finish it"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_where_they_stand() {
        let dir = std::env::temp_dir().join(format!("ouzel-xtask-conflicts-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let git = |arguments: &[&str]| {
            assert!(Command::new("git").args(arguments).current_dir(&dir).status().unwrap().success());
        };
        git(&["init", "--quiet"]);
        // Whoever has git colour everything had the marks in colour too, and no line of them was understood.
        git(&["config", "color.ui", "always"]);
        let (mine, theirs) = ("<".repeat(7), ">".repeat(7));
        std::fs::write(dir.join("page.md"), format!("a\n{mine} HEAD\nb\n=======\nc\n{theirs} other\n"))
            .unwrap();
        std::fs::write(dir.join("sound.md"), format!("=======\n{mine}<\n {theirs}\n")).unwrap();
        git(&["add", "."]);
        let found: Vec<_> = check(&dir).unwrap().into_iter().map(|v| (v.path, v.line)).collect();
        assert_eq!(found, [("page.md".to_owned(), 2), ("page.md".to_owned(), 6)]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
