//! What `ouk` says of the run: the admin tool's own proof on a cluster that has been through something.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::drawing::grouped;
use super::{GROUP, TOPIC};
use crate::provision;

/// What came of asking.
pub(crate) struct Answers {
    pub(crate) summary: String,
    pub(crate) faults: Vec<String>,
}

/// Builds `ouk` and asks for the topic, the group and the cluster's health. `records` is what the topic holds.
pub(crate) fn ask(root: &Path, bootstrap: &str, records: u64) -> Result<Answers, String> {
    let binary = provision::binary(root, "ouzel-tools", "ouk", false)?;
    let ouk = |arguments: &[&str]| -> Result<Value, String> {
        let output = Command::new(&binary)
            .args(["--brokers", bootstrap, "--format", "json"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("run ouk: {e}"))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(format!("ouk {} ended with {}: {words}", arguments.join(" "), output.status));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| format!("ouk {}: {e}", arguments.join(" ")))
    };
    let answers = [
        ouk(&["topic", "describe", TOPIC])?,
        ouk(&["group", "describe", GROUP])?,
        ouk(&["cluster", "health"])?,
    ];
    Ok(judge(&answers, records))
}

fn judge([topic, group, _healthy]: &[Value; 3], records: u64) -> Answers {
    let items = |report: &Value| report["items"].as_array().cloned().unwrap_or_default();
    let sum = |report: &Value, field: &str| {
        items(report).iter().map(|item| item[field].as_i64().unwrap_or(0)).sum::<i64>()
    };
    let held = sum(topic, "high_watermark") - sum(topic, "log_start_offset");
    let (committed, lag) = (sum(group, "committed_offset"), sum(group, "lag"));
    let mut faults = Vec::new();
    if u64::try_from(held) != Ok(records) {
        faults.push(format!("ouk says that {TOPIC} holds {held} records, there are {records}"));
    }
    if lag != 0 || u64::try_from(committed) != Ok(records) {
        faults.push(format!(
            "ouk says that group {GROUP} committed {committed} of {records} and lags by {lag}"
        ));
    }
    let summary = format!(
        "{} records in {} partitions, group {GROUP} lags by {lag}, healthy",
        grouped(u64::try_from(held).unwrap_or(0)),
        items(topic).len()
    );
    Answers { summary, faults }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(held: i64, committed: i64, lag: i64) -> usize {
        let topic = json!({ "items": [{ "log_start_offset": 0, "high_watermark": held }] });
        let group = json!({ "items": [{ "committed_offset": committed, "lag": lag }] });
        judge(&[topic, group, Value::Null], 10).faults.len()
    }

    #[test]
    fn a_wrong_end_and_a_lag_are_faults() {
        assert_eq!([faults(10, 10, 0), faults(9, 10, 0), faults(10, 9, 1), faults(11, 9, 2)], [0, 1, 1, 2]);
    }
}
