//! What a broker of either kind is started with: its command line, its configuration file, its formatted storage.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Against, BrokerProcess, free_ports};
use crate::jvm::{self, Jvm};
use crate::provision;

/// The data directory below a broker's folder.
pub(super) const DATA: &str = "data";

/// What brokers are got ready for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// To be tested: Kafka soon ready, ouzel as its sources are, with further arguments.
    Test { flags: &'a [&'a str] },
    /// To have their cost measured: Kafka exactly as it is shipped, ouzel as it is always, from that binary.
    Measurement { ouzel: &'a Path },
}

/// Gets the brokers of one cluster ready to start, the first as node 1.
pub(super) fn prepare(
    root: &Path,
    against: Against,
    folders: &[PathBuf],
    settings: &[(&str, &str)],
    purpose: Purpose<'_>,
) -> Result<Vec<BrokerProcess>, String> {
    for folder in folders {
        provision::create_dir(folder)?;
    }
    match (against, purpose) {
        (Against::Ouzel, Purpose::Test { flags }) => {
            prepare_ouzel(&provision::ouzel_release(root)?, folders, settings, flags)
        }
        (Against::Ouzel, Purpose::Measurement { ouzel }) => prepare_ouzel(ouzel, folders, settings, &[]),
        (Against::Kafka, Purpose::Test { .. }) => prepare_kafka(root, folders, settings, Jvm::SoonReady),
        (Against::Kafka, Purpose::Measurement { .. }) => {
            prepare_kafka(root, folders, settings, Jvm::AsShipped)
        }
    }
}

fn prepare_ouzel(
    binary: &Path,
    folders: &[PathBuf],
    settings: &[(&str, &str)],
    flags: &[&str],
) -> Result<Vec<BrokerProcess>, String> {
    let rpc_ports = folders.iter().map(|_| free_ports::<1>()).collect::<Result<Vec<_>, _>>()?;
    let seeds = rpc_ports.iter().map(|[port]| format!("127.0.0.1:{port}")).collect::<Vec<_>>();
    let mut brokers = Vec::new();
    for (index, folder) in folders.iter().enumerate() {
        let [kafka_port, admin_port] = free_ports()?;
        let mut command = vec![binary.display().to_string()];
        let mut say = |flag: &str, value: String| command.extend([flag.to_owned(), value]);
        say("--data-dir", folder.join(DATA).display().to_string());
        say("--node-id", (index + 1).to_string());
        say("--kafka-listener", format!("127.0.0.1:{kafka_port}"));
        say("--admin-listener", format!("127.0.0.1:{admin_port}"));
        say("--rpc-listener", seeds[index].clone());
        if seeds.len() > 1 {
            say("--seeds", seeds.join(","));
        }
        for (key, value) in settings {
            say("--set", format!("{key}={value}"));
        }
        command.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let mut broker = BrokerProcess::of_command(command, folder, kafka_port);
        broker.admin_port = Some(admin_port);
        brokers.push(broker);
    }
    Ok(brokers)
}

/// Any 16 bytes name a cluster; this one lives in one folder and meets no other.
const KAFKA_CLUSTER_ID: &str = "b3V6ZWwteWFyZHN0aWNrAA";
/// The founding controllers are told each other's directory ids: any 16 bytes as well.
const KAFKA_DIRECTORY_IDS: [&str; 5] = [
    "b3V6ZWwtZGlyZWN0b3J5MQ",
    "b3V6ZWwtZGlyZWN0b3J5Mg",
    "b3V6ZWwtZGlyZWN0b3J5Mw",
    "b3V6ZWwtZGlyZWN0b3J5NA",
    "b3V6ZWwtZGlyZWN0b3J5NQ",
];

fn prepare_kafka(
    root: &Path,
    folders: &[PathBuf],
    settings: &[(&str, &str)],
    jvm: Jvm,
) -> Result<Vec<BrokerProcess>, String> {
    let class_path = provision::kafka_class_path(root)?;
    let count = folders.len();
    if count > KAFKA_DIRECTORY_IDS.len() {
        return Err(format!("{count} Kafka brokers are more than the harness knows ids for"));
    }
    let ports = folders.iter().map(|_| free_ports::<2>()).collect::<Result<Vec<_>, _>>()?;
    let controllers = ports.iter().map(|[_, port]| format!("127.0.0.1:{port}")).collect::<Vec<_>>();
    let founders: Vec<String> = controllers
        .iter()
        .zip(KAFKA_DIRECTORY_IDS)
        .enumerate()
        .map(|(index, (address, id))| format!("{}@{address}:{id}", index + 1))
        .collect();
    let replicas = count.min(3);
    let in_sync = if replicas > 2 { 2 } else { 1 };
    // After a kill the controller lets the same node register again only when its old session has run out; the default
    // of nine seconds would make every restart wait for that. Three brokers on a busy machine stutter for longer.
    let sessions = match jvm {
        Jvm::SoonReady => {
            let session_ms = if count > 1 { 3_000 } else { 1_000 };
            format!("broker.heartbeat.interval.ms=300\nbroker.session.timeout.ms={session_ms}\n")
        }
        Jvm::AsShipped => String::new(),
    };
    let heap_max = if jvm == Jvm::SoonReady && count > 1 { "400m" } else { "1g" };
    let mut brokers = Vec::new();
    for (index, folder) in folders.iter().enumerate() {
        let [kafka_port, controller_port] = ports[index];
        let mut properties = format!(
            "process.roles=broker,controller\nnode.id={}\n\
             listeners=PLAINTEXT://127.0.0.1:{kafka_port},CONTROLLER://127.0.0.1:{controller_port}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{kafka_port}\ncontroller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.quorum.bootstrap.servers={}\nlog.dirs={}\n\
             offsets.topic.replication.factor={replicas}\ntransaction.state.log.replication.factor={replicas}\n\
             transaction.state.log.min.isr={in_sync}\nshare.coordinator.state.topic.replication.factor={replicas}\n\
             share.coordinator.state.topic.min.isr={in_sync}\n{sessions}",
            index + 1,
            controllers.join(","),
            folder.join(DATA).display()
        );
        for (key, value) in settings {
            properties.push_str(&format!("{key}={value}\n"));
        }
        let file = folder.join("server.properties");
        provision::write(&file, &properties)?;
        let format = jvm::command("kafka.tools.StorageTool", &class_path, Jvm::SoonReady, "256m");
        let mut formatter = Command::new(&format[0]);
        formatter.args(&format[1..]).args(["format", "-t", KAFKA_CLUSTER_ID, "-c"]).arg(&file);
        match count {
            1 => formatter.arg("--standalone"),
            _ => formatter.args(["--initial-controllers", &founders.join(",")]),
        };
        provision::run_quietly("format Kafka's storage", &mut formatter)?;
        let mut command = jvm::broker(&class_path, jvm, heap_max);
        command.push(file.display().to_string());
        brokers.push(BrokerProcess::of_command(command, folder, kafka_port));
    }
    Ok(brokers)
}
