//! `ouk dev`: a cluster of ouzel processes on this machine, for people who want one now: loopback ports, no containers,
//! everything below one folder.
//!
//! Reading order: `state` (what is remembered of a cluster), `process` (a node's process, known again after its number
//! was given to another), then this file: `up`, `status`, `logs`, `down`.

mod process;
mod state;

use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use ouzel_runtime::Runtime;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::state::{Cluster, Lock, Node};
use crate::cli::{Dev, Up};
use crate::commands::{Done, Session};
use crate::failure::{Exit, Failure};
use crate::output::Report;

/// How long a node may take to serve: the recovery of what it stored is in it.
const READY_LONGEST: Duration = Duration::from_secs(120);
/// How long a node may take to end after SIGTERM.
const END_LONGEST: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a node may take to say whether it serves.
const ANSWER_LONGEST: Duration = Duration::from_secs(2);
/// Which ports the kernel gives to whoever connects to somebody without asking for one: the first and the last.
const LENT_PORTS_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Below are the ports that programs have by custom.
const LASTING_FROM: u16 = 10_000;
/// A free port is looked for so many times.
const PORT_TRIES: u16 = 1_000;
/// How often new lines are looked for.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// Runs one command.
pub(crate) async fn run(session: &Session, command: Dev) -> Result<Done, Failure> {
    match command {
        Dev::Up(wanted) => up(session, &wanted).await,
        Dev::Status { place } => status(session, &place.data_dir).await,
        Dev::Logs { node, follow, place } => logs(session, &place.data_dir, node, follow).await,
        Dev::Down { wipe, consent, place } => {
            let plan = format!(
                "every node of the cluster in {} and all it stored is deleted",
                place.data_dir.display()
            );
            // Before anything is asked: a cluster that is not there has nothing to lose.
            Cluster::load(&place.data_dir)?;
            if wipe && !session.may_destroy(&plan, &consent)? {
                return Ok(Done::default());
            }
            down(session, &place.data_dir, wipe).await
        }
        Dev::BecomeNode { words } => Err(process::become_node(&words)),
    }
}

async fn up(session: &Session, wanted: &Up) -> Result<Done, Failure> {
    let dir = &wanted.place.data_dir;
    let _lock = Lock::take(dir)?;
    let known = Cluster::try_load(dir)?;
    let mut cluster = match known {
        Some(cluster) => cluster,
        None => Cluster::new(process::find_ouzel(wanted.ouzel.as_deref(), None)?),
    };
    adopt(&mut cluster, wanted)?;
    grow(session, &mut cluster, wanted).await?;
    cluster.save(dir)?;
    bring_up(session, &mut cluster, dir).await?;
    eprintln!("ouk: the cluster serves; bootstrap servers: {}", cluster.bootstrap());
    report(session, &cluster).await
}

/// Takes over what the command line says about the cluster as a whole.
fn adopt(cluster: &mut Cluster, wanted: &Up) -> Result<(), Failure> {
    if wanted.ouzel.is_some() {
        cluster.ouzel = process::find_ouzel(wanted.ouzel.as_deref(), Some(&cluster.ouzel))?;
    }
    if let Some(durability) = wanted.durability
        && cluster.durability.as_deref() != Some(durability.word())
    {
        if cluster.nodes.iter().any(Node::is_running) {
            return Err(Failure::usage(
                "nodes run with another --durability; stop them with `ouk dev down` first",
            ));
        }
        cluster.durability = Some(durability.word().to_owned());
    }
    Ok(())
}

/// Adds the nodes that are wanted and not there, with ports of their own.
async fn grow(session: &Session, cluster: &mut Cluster, wanted: &Up) -> Result<(), Failure> {
    let founding = cluster.nodes.is_empty();
    let have = cluster.nodes.len();
    let count = wanted.nodes.map_or(if founding { 3 } else { have }, usize::from);
    if count < have {
        return Err(Failure::usage(format!(
            "the cluster has {have} nodes and a node's replicas would go with it; say -n {have}, or begin anew after \
             `ouk dev down --wipe`"
        )));
    }
    if !founding && let Some(base) = wanted.kafka_port.filter(|base| *base != cluster.kafka_base) {
        return Err(Failure::usage(format!(
            "the cluster's Kafka ports begin at {}, and {base} is another; begin anew after `ouk dev down --wipe`",
            cluster.kafka_base
        )));
    }
    if founding {
        cluster.kafka_base = wanted.kafka_port.unwrap_or(state::KAFKA_BASE);
    }
    for index in have..count {
        let nth = index as u16;
        let kafka_port = match cluster.kafka_base {
            0 => free_port(session, cluster, None).await?,
            base => {
                let port = base.checked_add(nth).ok_or_else(|| {
                    Failure::usage(format!(
                        "there is no port {} for node {}",
                        u32::from(base) + u32::from(nth),
                        nth + 1
                    ))
                })?;
                session.runtime.net.listen(&format!("127.0.0.1:{port}")).await.map_err(|error| {
                    Failure::new(
                        Exit::Failed,
                        format!(
                            "node {} cannot have 127.0.0.1:{port} for Kafka ({error}): stop who listens there, or choose \
                             others with --kafka-port",
                            nth + 1
                        ),
                    )
                })?;
                port
            }
        };
        let mut node = Node {
            id: i32::from(nth) + 1,
            kafka_port,
            admin_port: 0,
            rpc_port: 0,
            founder: founding,
            process: None,
        };
        // Who wants free ports runs other clusters beside this one; two that begin at once would like the same.
        let like = |base: u16| base.checked_add(nth).filter(|_| cluster.kafka_base != 0);
        node.admin_port = free_port(session, cluster, like(state::ADMIN_BASE)).await?;
        node.rpc_port = free_port(session, cluster, like(state::RPC_BASE)).await?;
        cluster.nodes.push(node);
    }
    Ok(())
}

/// The port that is liked if it is free, else some free one that no node of the cluster has. It is to stay free while its
/// node does not run: so it is none of those the kernel lends to whoever connects to somebody.
async fn free_port(session: &Session, cluster: &Cluster, liked: Option<u16>) -> Result<u16, Failure> {
    let Runtime { net, entropy, .. } = &session.runtime;
    let is_free =
        async |port: u16| !cluster.has_port(port) && net.listen(&format!("127.0.0.1:{port}")).await.is_ok();
    if let Some(port) = liked
        && is_free(port).await
    {
        return Ok(port);
    }
    let lent = std::fs::read_to_string(LENT_PORTS_FILE).unwrap_or_default();
    let lasting = lasting_ports(&lent);
    for _ in 0..PORT_TRIES {
        let port = lasting.start + (entropy.u64() % lasting.len() as u64) as u16;
        if is_free(port).await {
            return Ok(port);
        }
    }
    Err(Failure::new(
        Exit::Failed,
        format!(
            "no port from {} to {} was found free; name some with --kafka-port",
            lasting.start, lasting.end
        ),
    ))
}

/// The ports that the kernel does not lend, by its own word on those it does: the many below them, as a rule.
fn lasting_ports(lent: &str) -> Range<u16> {
    let lent_from = lent.split_whitespace().next().and_then(|first| first.parse().ok());
    match lent_from {
        Some(from) if from >= LASTING_FROM + PORT_TRIES => LASTING_FROM..from,
        // It lends nearly all it has, or does not say: any port is as good as another.
        _ => LASTING_FROM..u16::MAX,
    }
}

/// Starts the nodes that do not run, and waits until every node serves. A node that was started and ends is told of by its
/// last words; one that ran and ends meanwhile is started: it may have been killed, and still have been dying.
async fn bring_up(session: &Session, cluster: &mut Cluster, dir: &Path) -> Result<(), Failure> {
    let deadline = session.runtime.clock.now() + READY_LONGEST;
    let mut started: Vec<(i32, Child)> = Vec::new();
    loop {
        let mut waiting = None;
        for index in 0..cluster.nodes.len() {
            let id = cluster.nodes[index].id;
            if let Some((_, child)) = started.iter_mut().find(|(of, _)| *of == id) {
                if child.try_wait()?.is_some() {
                    let words = state::last_words(dir, id);
                    return Err(Failure::new(Exit::Failed, format!("node {id} ended at once: {words}")));
                }
            } else if !cluster.nodes[index].is_running() {
                let (process, child) = process::start(cluster, index, dir)?;
                cluster.nodes[index].process = Some(process);
                started.push((id, child));
                // At once: a node that nobody remembers could not be stopped.
                cluster.save(dir)?;
            }
            if !serves(&session.runtime, &cluster.nodes[index]).await {
                waiting = Some(id);
            }
        }
        let Some(id) = waiting else { return Ok(()) };
        if session.runtime.clock.now() > deadline {
            return Err(Failure::new(
                Exit::Unreachable,
                format!(
                    "node {id} does not serve after {} s: {}",
                    READY_LONGEST.as_secs(),
                    state::last_words(dir, id)
                ),
            ));
        }
        session.sleep(LOOK_EVERY).await;
    }
}

/// Whether the node says that it serves.
async fn serves(runtime: &Runtime, node: &Node) -> bool {
    let ask = async {
        let mut stream = runtime.net.connect(&format!("127.0.0.1:{}", node.admin_port)).await?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        Ok::<bool, std::io::Error>(answer.ends_with(b" 200"))
    };
    matches!(runtime.clock.timeout(ANSWER_LONGEST, ask).await, Ok(Ok(true)))
}

async fn status(session: &Session, dir: &Path) -> Result<Done, Failure> {
    report(session, &Cluster::load(dir)?).await
}

/// The nodes as they are now; unhealthy if one does not serve.
async fn report(session: &Session, cluster: &Cluster) -> Result<Done, Failure> {
    let columns =
        &[("NODE", "node_id"), ("STATUS", "status"), ("PID", "pid"), ("KAFKA", "kafka"), ("ADMIN", "admin")];
    let mut report = Report::new("dev.status", columns);
    let mut all = true;
    for node in &cluster.nodes {
        let running = node.is_running();
        let status = match running {
            true if serves(&session.runtime, node).await => "ready",
            true => "starting",
            false => "stopped",
        };
        all &= status == "ready";
        report.push(json!({
            "node_id": node.id,
            "status": status,
            "pid": node.process.as_ref().filter(|_| running).map(|process| process.pid),
            "kafka": format!("127.0.0.1:{}", node.kafka_port),
            "admin": format!("http://127.0.0.1:{}", node.admin_port),
            "rpc": format!("127.0.0.1:{}", node.rpc_port),
        }));
    }
    Ok(Done { report: Some(report), exit: (!all).then_some(Exit::Unhealthy) })
}

async fn down(session: &Session, dir: &Path, wipe: bool) -> Result<Done, Failure> {
    let _lock = Lock::take(dir)?;
    let mut cluster = Cluster::load(dir)?;
    let running = cluster.nodes.iter().filter(|node| node.is_running()).count();
    for node in &cluster.nodes {
        if let Some(process) = node.process.as_ref().filter(|process| process.is_running()) {
            process.terminate()?;
        }
    }
    let deadline = session.runtime.clock.now() + END_LONGEST;
    for node in &mut cluster.nodes {
        while let Some(process) = node.process.as_ref().filter(|process| process.is_running()) {
            if session.runtime.clock.now() > deadline {
                return Err(Failure::new(
                    Exit::Failed,
                    format!(
                        "node {} did not end within {} s of SIGTERM: look at its log, or end it with kill -9 {}",
                        node.id,
                        END_LONGEST.as_secs(),
                        process.pid
                    ),
                ));
            }
            session.sleep(LOOK_EVERY).await;
        }
        node.process = None;
    }
    cluster.save(dir)?;
    eprintln!("ouk: {running} of {} nodes were running and have ended", cluster.nodes.len());
    if wipe {
        cluster.wipe(dir)?;
        eprintln!("ouk: what they stored in {} is deleted", dir.display());
    }
    Ok(Done::default())
}

/// What nodes said so far, and then what they say.
async fn logs(session: &Session, dir: &Path, only: Option<i32>, follow: bool) -> Result<Done, Failure> {
    let cluster = Cluster::load(dir)?;
    let ids: Vec<i32> =
        cluster.nodes.iter().map(|node| node.id).filter(|id| only.is_none_or(|only| only == *id)).collect();
    if let (true, Some(only)) = (ids.is_empty(), only) {
        return Err(Failure::new(Exit::NotFound, format!("the cluster has no node {only}")));
    }
    let mut tails: Vec<Tail> = ids.iter().map(|id| Tail { id: *id, at: 0, rest: Vec::new() }).collect();
    let mut out = std::io::stdout();
    loop {
        for tail in &mut tails {
            for line in tail.lines(dir, !follow)? {
                let written = match only {
                    Some(_) => writeln!(out, "{line}"),
                    None => writeln!(out, "{}  {line}", tail.id),
                };
                match written {
                    // Whoever reads from us has seen enough.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                        return Ok(Done::default());
                    }
                    written => written?,
                }
            }
        }
        out.flush()?;
        if !follow {
            return Ok(Done::default());
        }
        session.sleep(FOLLOW_EVERY).await;
    }
}

/// How far one node's log was read.
struct Tail {
    id: i32,
    at: u64,
    /// A line that is not whole yet.
    rest: Vec<u8>,
}

impl Tail {
    /// The lines that are new; with `to_the_end` also one that is not ended.
    fn lines(&mut self, dir: &Path, to_the_end: bool) -> Result<Vec<String>, Failure> {
        let mut file = std::fs::File::open(state::log_path(dir, self.id))?;
        file.seek(SeekFrom::Start(self.at))?;
        self.at += file.read_to_end(&mut self.rest)? as u64;
        let whole = match to_the_end {
            true => self.rest.len(),
            false => self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
        };
        let new: Vec<u8> = self.rest.drain(..whole).collect();
        Ok(String::from_utf8_lossy(&new).lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ports of a cluster with free ones were those the kernel lends. While a node was down, somebody's connection had its
    /// port, and the node could not come back.
    #[test]
    fn a_node_has_no_port_that_the_kernel_lends() {
        assert_eq!(lasting_ports("32768\t60999\n"), 10_000..32_768);
        assert_eq!(lasting_ports("1024 65000"), 10_000..65_535, "nearly all are lent");
        assert_eq!(lasting_ports(""), 10_000..65_535);
    }
}
