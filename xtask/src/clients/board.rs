//! The table of rows that a run prints, and the verdict it ends with.

use std::time::Duration;

/// What came of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With a word on what was seen.
    Passed(String),
    Failed(String),
    Skipped(String),
}

/// One scenario's line.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

impl Row {
    pub(super) fn of(name: &str, outcome: Result<String, String>, took: Duration) -> Row {
        let outcome = match outcome {
            Ok(note) => Outcome::Passed(note),
            Err(reason) => Outcome::Failed(reason),
        };
        Row { name: name.to_owned(), outcome, took }
    }

    pub(super) fn skipped(name: &str, reason: &str) -> Row {
        Row { name: name.to_owned(), outcome: Outcome::Skipped(reason.to_owned()), took: Duration::ZERO }
    }

    /// The row as it is printed, on one line whatever its reason holds.
    pub(super) fn line(&self) -> String {
        let (word, note) = match &self.outcome {
            Outcome::Passed(note) => ("pass", note),
            Outcome::Failed(reason) => ("FAIL", reason),
            Outcome::Skipped(reason) => ("skipped", reason),
        };
        let note = note.split_whitespace().collect::<Vec<_>>().join(" ");
        format!("{word:<7} {:>6.1}s  {}{}{note}", self.took.as_secs_f64(), self.name, separator(&note))
    }
}

fn separator(note: &str) -> &'static str {
    if note.is_empty() { "" } else { ": " }
}

/// The rows so far; printed as they come.
#[derive(Debug, Default)]
pub(super) struct Board {
    rows: Vec<Row>,
}

impl Board {
    pub(super) fn post(&mut self, row: Row) {
        println!("{}", row.line());
        self.rows.push(row);
    }

    pub(super) fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    pub(super) fn skipped(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Skipped(_)))
    }

    fn count(&self, of: impl Fn(&Outcome) -> bool) -> usize {
        self.rows.iter().filter(|row| of(&row.outcome)).count()
    }

    /// What went wrong once more, and the closing line.
    pub(super) fn closing(&self) -> String {
        let mut text = String::new();
        for row in self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_))) {
            text.push_str(&row.line());
            text.push('\n');
        }
        let passed = self.count(|outcome| matches!(outcome, Outcome::Passed(_)));
        text.push_str(&format!("{passed} passed, {} failed, {} skipped\n", self.failed(), self.skipped()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_counts_every_row_once() {
        let mut board = Board::default();
        board.post(Row::of("a", Ok(String::new()), Duration::ZERO));
        board.post(Row::of("b", Err("two\n  lines".to_owned()), Duration::from_millis(1500)));
        board.post(Row::skipped("c", "no go"));
        assert_eq!(board.closing(), "FAIL       1.5s  b: two lines\n1 passed, 1 failed, 1 skipped\n");
    }
}
