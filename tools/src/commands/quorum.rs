//! `ouk quorum`: who keeps the cluster's own log.

use ouzel_client::{Keeper, Quorum};
use serde_json::{Value, json};

use super::{Done, Session};
use crate::failure::Failure;
use crate::output::Report;

pub(super) async fn describe(session: &Session) -> Result<Done, Failure> {
    let quorum = session.client.describe_quorum().await?;
    Ok(Done::with(report_of(&quorum, session.runtime.clock.wall_ms())))
}

fn report_of(quorum: &Quorum, now_ms: i64) -> Report {
    let columns = &[
        ("NODE", "node_id"),
        ("ROLE", "role"),
        ("EPOCH", "leader_epoch"),
        ("LOG-END", "log_end_offset"),
        ("LAG", "lag"),
        ("CAUGHT-UP-MS-AGO", "caught_up_ms_ago"),
    ];
    let mut report = Report::new("quorum", columns);
    let leader = quorum.voters.iter().chain(&quorum.observers).find(|one| one.node_id == quorum.leader);
    let end = leader.map(|leader| leader.log_end_offset);
    let roles = [(&quorum.voters, "voter"), (&quorum.observers, "observer")];
    for (keeper, role) in roles.into_iter().flat_map(|(some, role)| some.iter().map(move |one| (one, role))) {
        let role = if keeper.node_id == quorum.leader { "leader" } else { role };
        report.push(item(quorum, keeper, role, end, now_ms));
    }
    report
}

fn item(quorum: &Quorum, keeper: &Keeper, role: &str, end: Option<i64>, now_ms: i64) -> Value {
    let told = |number: i64| (number >= 0).then_some(number);
    json!({
        "node_id": keeper.node_id,
        "role": role,
        "leader_epoch": quorum.leader_epoch,
        "high_watermark": told(quorum.high_watermark),
        "log_end_offset": told(keeper.log_end_offset),
        "lag": end.filter(|_| keeper.log_end_offset >= 0).map(|end| (end - keeper.log_end_offset).max(0)),
        "last_fetch_ms": told(keeper.last_fetch_ms),
        "caught_up_ms_ago": told(keeper.last_caught_up_ms).map(|at| (now_ms - at).max(0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn each_keeper_is_seen_from_the_leader() {
        let keeper = |node_id, log_end_offset, last_caught_up_ms| Keeper {
            node_id,
            log_end_offset,
            last_fetch_ms: -1,
            last_caught_up_ms,
        };
        let quorum = Quorum {
            leader: 2,
            leader_epoch: 7,
            high_watermark: 9,
            voters: vec![keeper(1, 8, 400), keeper(2, 10, 1_000)],
            observers: vec![keeper(4, -1, -1)],
        };
        let mut out = Vec::new();
        report_of(&quorum, 1_000).write(Format::Table, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<Vec<&str>> =
            text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows,
            [
                ["1", "voter", "7", "8", "2", "600"],
                ["2", "leader", "7", "10", "0", "0"],
                ["4", "observer", "7", "-", "-", "-"]
            ]
        );
    }
}
