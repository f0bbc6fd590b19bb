//! `ouk cluster info | health`.

use std::time::Duration;

use ouzel_client::{Metadata, Topics};
use serde_json::json;

use super::{Done, Session};
use crate::failure::{Exit, Failure};
use crate::output::Report;

const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(super) async fn info(session: &Session) -> Result<Done, Failure> {
    let metadata = session.client.metadata(Topics::None).await?;
    let columns = &[
        ("CLUSTER", "cluster_id"),
        ("NODE", "node_id"),
        ("ADDRESS", "address"),
        ("RACK", "rack"),
        ("CONTROLLER", "controller"),
    ];
    let mut report = Report::new("cluster.info", columns);
    for broker in metadata.brokers.values() {
        report.push(json!({
            "cluster_id": metadata.cluster_id,
            "node_id": broker.node_id,
            "host": broker.host,
            "port": broker.port,
            "address": broker.address(),
            "rack": broker.rack,
            "controller": broker.node_id == metadata.controller_id,
        }));
    }
    Ok(Done::with(report))
}

pub(super) async fn health(session: &Session, wait: bool) -> Result<Done, Failure> {
    loop {
        let checks = checks(session).await;
        let healthy = matches!(&checks, Ok(checks) if checks.iter().all(|check| check.problems.is_empty()));
        if healthy || !wait {
            let checks = checks?;
            let exit = (!healthy).then_some(Exit::Unhealthy);
            return Ok(Done { report: Some(report_of(&checks)), exit });
        }
        session.sleep(ASK_AGAIN_AFTER).await;
    }
}

/// One question of health, and everything found wrong.
#[derive(Debug, PartialEq, Eq)]
struct Check {
    name: &'static str,
    problems: Vec<String>,
}

fn report_of(checks: &[Check]) -> Report {
    let mut report =
        Report::new("cluster.health", &[("CHECK", "check"), ("STATUS", "status"), ("PROBLEMS", "problems")]);
    for check in checks {
        report.push(json!({
            "check": check.name,
            "status": if check.problems.is_empty() { "ok" } else { "unhealthy" },
            "problems": check.problems,
        }));
    }
    report
}

async fn checks(session: &Session) -> Result<Vec<Check>, Failure> {
    let described = session.client.describe_cluster().await?;
    let metadata = session.client.metadata(Topics::All).await?;
    // Only who lives is told of to clients; a broker that is away is among those that are registered.
    let away = described.brokers.iter().filter(|broker| broker.is_fenced);
    let away = away.map(|broker| format!("broker {} is fenced", broker.broker_id.0)).collect();
    let mut unreachable = Vec::new();
    for broker in metadata.brokers.values() {
        if let Err(error) = session.client.connection(&broker.address()).await {
            unreachable.push(format!("broker {}: {error}", broker.node_id));
        }
    }
    let mut checks = vec![
        Check { name: "brokers live", problems: away },
        Check { name: "brokers answer", problems: unreachable },
    ];
    checks.extend(checks_of(&metadata));
    Ok(checks)
}

/// What the cluster's own description gives away.
fn checks_of(metadata: &Metadata) -> [Check; 3] {
    let partitions = metadata.topics.iter().flat_map(|(name, topic)| {
        topic.partitions.iter().map(move |(index, partition)| (format!("{name}-{index}"), partition))
    });
    let mut leaderless = Vec::new();
    let mut behind = Vec::new();
    for (name, partition) in partitions {
        if partition.leader < 0 {
            leaderless.push(name);
        } else if partition.in_sync.len() < partition.replicas.len() {
            behind.push(format!("{name} ({} of {})", partition.in_sync.len(), partition.replicas.len()));
        }
    }
    let controller = match metadata.brokers.contains_key(&metadata.controller_id) {
        true => Vec::new(),
        false => vec!["no broker is named as the controller".to_owned()],
    };
    [
        Check { name: "controller", problems: controller },
        Check { name: "partitions have a leader", problems: leaderless },
        Check { name: "replicas are in sync", problems: behind },
    ]
}

#[cfg(test)]
mod tests {
    use ouzel_client::{Broker, Partition, Topic};

    use super::*;

    fn cluster(leader: i32, in_sync: &[i32], controller_id: i32) -> Metadata {
        let partition = Partition {
            error_code: 0,
            leader,
            leader_epoch: 1,
            replicas: vec![1, 2],
            in_sync: in_sync.to_vec(),
            offline: Vec::new(),
        };
        let topic = Topic { partitions: [(0, partition)].into(), ..Topic::default() };
        let broker = Broker { node_id: 1, host: "h".to_owned(), port: 1, rack: None };
        Metadata {
            cluster_id: None,
            controller_id,
            brokers: [(1, broker)].into(),
            topics: [("t".to_owned(), topic)].into(),
        }
    }

    fn unhealthy(metadata: &Metadata) -> Vec<&'static str> {
        let checks = checks_of(metadata);
        checks.iter().filter(|check| !check.problems.is_empty()).map(|check| check.name).collect()
    }

    #[test]
    fn each_ailment_has_its_name() {
        assert_eq!(unhealthy(&cluster(1, &[1, 2], 1)), Vec::<&str>::new());
        assert_eq!(unhealthy(&cluster(-1, &[], 1)), ["partitions have a leader"]);
        assert_eq!(unhealthy(&cluster(1, &[1], 1)), ["replicas are in sync"]);
        assert_eq!(unhealthy(&cluster(1, &[1, 2], -1)), ["controller"]);
    }
}
