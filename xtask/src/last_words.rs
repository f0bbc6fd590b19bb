//! What a process said last, for whoever is told that it ended badly.

use std::path::Path;

/// Enough for a panic with its message, or for a Java exception's first causes.
const LINES: usize = 15;

/// The end of a log, with its name.
pub(crate) fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    format!("{} ends with:\n{}", log.display(), lines[lines.len().saturating_sub(LINES)..].join("\n"))
}
