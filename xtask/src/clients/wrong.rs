//! Wrong requests, sent by franz-go's own encoder at the versions clients use: the error code must be the one Kafka
//! gives. The table of codes was written down from Kafka, and every run against Kafka checks it again.

use std::collections::BTreeMap;

use serde_json::json;

use super::driver::Event;
use super::families::Family;
use super::scenario::Scenario;
use super::stage::Stage;

/// `name code` by line; `#` begins a comment.
const ANSWERS: &str = include_str!("../../../tests/clients/kafka-answers.txt");

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("errors: wrong requests get Kafka's answers", &[Family::Franz], ask).quick()]
}

fn answers() -> BTreeMap<&'static str, i64> {
    ANSWERS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, code)| Some((name, code.parse().ok()?)))
        .collect()
}

fn ask(stage: &Stage<'_>) -> Result<String, String> {
    let order = json!({"cmd": "wrong", "bootstrap": stage.bootstrap, "mark": stage.unique("wrong")});
    let mut due = answers();
    let mut differing = Vec::new();
    let events = stage.call(Family::Franz, &order)?;
    for event in &events {
        let Event::Other(answer) = event else { continue };
        let name = answer["name"].as_str().unwrap_or_default();
        let code = answer["code"].as_i64().unwrap_or(i64::MIN);
        let note = answer["note"].as_str().unwrap_or_default();
        match due.remove(name) {
            Some(expected) if expected == code => {}
            Some(expected) => differing.push(format!("{name}: {code} instead of {expected} {note}")),
            None => differing.push(format!("{name}: {code} and no line in the table {note}")),
        }
    }
    differing.extend(due.keys().map(|name| format!("{name}: not asked")));
    match differing.is_empty() {
        true => Ok(format!("{} answers", events.len())),
        false => Err(format!("{} of {} differ: {}", differing.len(), events.len(), differing.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole_and_names_nothing_twice() {
        let lines = ANSWERS.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).count();
        assert_eq!(answers().len(), lines);
        assert!(lines > 40, "{lines}");
    }
}
