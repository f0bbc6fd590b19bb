//! Wrong requests, sent by franz-go's own encoder at the versions clients use: the error code must be the one Kafka
//! gives. The table of codes was written down from Kafka, and every run against Kafka checks it again.

use std::collections::BTreeMap;

use serde_json::json;

use super::driver::Event;
use super::families::Family;
use super::scenario::Scenario;
use super::stage::Stage;
use crate::broker_process::Against;

/// By line: a name, Kafka's code, and codes that are as good; `#` begins a comment.
const ANSWERS: &str = include_str!("../../../tests/clients/kafka-answers.txt");

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("errors: wrong requests get Kafka's answers", &[Family::Franz], ask).quick()]
}

fn answers() -> BTreeMap<&'static str, Vec<i64>> {
    let lines = ANSWERS.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, codes)| (name, codes.split(' ').filter_map(|code| code.parse().ok()).collect()))
        .collect()
}

fn ask(stage: &Stage<'_>) -> Result<String, String> {
    let order = json!({
        "cmd": "wrong", "bootstrap": stage.bootstrap, "mark": stage.unique("wrong"),
        "replicas": stage.replicas(),
    });
    let mut due = answers();
    let mut differing = Vec::new();
    let events = stage.call(Family::Franz, &order)?;
    for event in &events {
        let Event::Other(answer) = event else { continue };
        let name = answer["name"].as_str().unwrap_or_default();
        let code = answer["code"].as_i64().unwrap_or(i64::MIN);
        let note = answer["note"].as_str().unwrap_or_default();
        // Kafka itself must give the code that stands first.
        match due.remove(name).as_deref() {
            Some([kafka, ..]) if *kafka == code => {}
            Some(codes) if stage.against == Against::Ouzel && codes.contains(&code) => {}
            Some(codes) => differing.push(format!("{name}: {code} instead of {codes:?} {note}")),
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
