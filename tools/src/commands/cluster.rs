//! `ouk cluster info | status | health | unregister`.

use std::collections::BTreeMap;
use std::time::Duration;

use ouzel_client::{Metadata, Topics};
use serde_json::json;

use super::{Done, Session};
use crate::cli::Consent;
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

/// Lets go of a node that has left for good.
pub(super) async fn unregister(session: &Session, node: i32, consent: &Consent) -> Result<Done, Failure> {
    if !session.may_destroy(&format!("forget node {node}"), consent)? {
        return Ok(Done::default());
    }
    session.client.unregister_broker(node).await?;
    let mut report = Report::new("cluster.unregister", &[("NODE", "node_id"), ("STATUS", "status")]);
    report.push(json!({"node_id": node, "status": "unregistered"}));
    Ok(Done::with(report))
}

/// What a broker has to do with partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Load {
    leads: usize,
    holds: usize,
    /// Replicas on it that are not in sync.
    behind: usize,
    /// Partitions it should lead and does not.
    leads_not: usize,
}

pub(super) async fn status(session: &Session) -> Result<Done, Failure> {
    let described = session.client.describe_cluster().await?;
    let metadata = session.client.metadata(Topics::All).await?;
    let loads = loads_of(&metadata);
    let columns = &[
        ("NODE", "node_id"),
        ("ADDRESS", "address"),
        ("STATUS", "status"),
        ("CONTROLLER", "controller"),
        ("LEADS", "leads"),
        ("REPLICAS", "replicas"),
        ("NOT-IN-SYNC", "not_in_sync"),
        ("PREFERRED-NOT-LED", "preferred_not_led"),
    ];
    let mut report = Report::new("cluster.status", columns);
    let mut brokers = described.brokers;
    brokers.sort_by_key(|broker| broker.broker_id);
    for broker in brokers {
        let id = broker.broker_id.0;
        let load = loads.get(&id).copied().unwrap_or_default();
        report.push(json!({
            "node_id": id,
            "address": format!("{}:{}", broker.host.as_str(), broker.port),
            "rack": broker.rack.as_ref().map(|rack| rack.as_str().to_owned()),
            "status": if broker.is_fenced { "fenced" } else { "alive" },
            "controller": id == described.controller_id.0,
            "leads": load.leads,
            "replicas": load.holds,
            "not_in_sync": load.behind,
            "preferred_not_led": load.leads_not,
        }));
    }
    Ok(Done::with(report))
}

fn loads_of(metadata: &Metadata) -> BTreeMap<i32, Load> {
    let mut loads: BTreeMap<i32, Load> = BTreeMap::new();
    for partition in metadata.topics.values().flat_map(|topic| topic.partitions.values()) {
        if partition.leader >= 0 {
            loads.entry(partition.leader).or_default().leads += 1;
        }
        for node in &partition.replicas {
            let load = loads.entry(*node).or_default();
            load.holds += 1;
            load.behind += usize::from(!partition.in_sync.contains(node));
        }
        if let Some(preferred) = partition.replicas.first().filter(|node| **node != partition.leader) {
            loads.entry(*preferred).or_default().leads_not += 1;
        }
    }
    loads
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
    fn a_broker_s_load_is_what_it_leads_holds_and_lacks() {
        let loads = loads_of(&cluster(2, &[2], 1));
        assert_eq!(loads[&1], Load { leads: 0, holds: 1, behind: 1, leads_not: 1 });
        assert_eq!(loads[&2], Load { leads: 1, holds: 1, behind: 0, leads_not: 0 });
    }

    #[test]
    fn each_ailment_has_its_name() {
        assert_eq!(unhealthy(&cluster(1, &[1, 2], 1)), Vec::<&str>::new());
        assert_eq!(unhealthy(&cluster(-1, &[], 1)), ["partitions have a leader"]);
        assert_eq!(unhealthy(&cluster(1, &[1], 1)), ["replicas are in sync"]);
        assert_eq!(unhealthy(&cluster(1, &[1, 2], -1)), ["controller"]);
    }
}
