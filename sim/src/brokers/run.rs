//! One run of a seed, from the first node to the verdict.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ouzel_broker::NodeConfig;
use ouzel_broker::node::{self, Seated};
use ouzel_metadata::{BrokerConfig, Layers, StaticConfig};
use ouzel_model::{NodeId, PartitionIndex, partition_for_key};
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::{Cluster, ClusterConfig, DATA_DIR, Rng, SimRuntime};
use ouzel_storage::Durability;

use super::clients;
use super::nemesis::Nemesis;
use super::shared::{OFFSETS_TOPIC, Phase, Shared, TOPIC};
use super::sights;
use crate::check::verdict::{Kind, Violation};
use crate::check::{Verdict, judge};
use crate::events::Events;
use crate::trace::Trace;

const KAFKA_PORT: u16 = 9092;
const RPC_PORT: u16 = 33146;
const MEMORY_BYTES: u64 = 64 << 20;
const GROUPS: u32 = 2;
const OFFSETS_PARTITIONS: i32 = 3;
/// A node whose disk has lied, and that ends by itself so often when all is healed, is given an empty one.
const ENDS_MAX: u32 = 4;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where all chance comes from.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// What acknowledgement promises.
    pub durability: Durability,
    /// Whether disks may lie: then losses are counted.
    pub lying_disks: bool,
    /// How long clients work and faults happen.
    pub load: Duration,
}

impl Options {
    /// A run of one node and its default length.
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            nodes: 1,
            durability: Durability::Durable,
            lying_disks: false,
            load: Duration::from_secs(12),
        }
    }

    /// A run of three or five nodes: by seed, as is what acknowledgement promises.
    pub fn cluster(seed: u64) -> Options {
        let mut rng = Rng::new(seed).fork(0xc1a5);
        let durability = match rng.below(6) {
            0 => Durability::Os,
            1 => Durability::WriteCaching,
            _ => Durability::Durable,
        };
        Options { nodes: if rng.chance(1, 4) { 5 } else { 3 }, durability, ..Options::new(seed) }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the judges say.
    pub verdict: Verdict,
    /// How many faults there were.
    pub faults: u64,
    /// Faults by kind, and what else happened.
    pub events: Events,
}

/// Runs a seed; what happens goes into `trace`.
///
/// # Errors
/// When the run itself fails: a panic in a node, or a run that does not end.
pub fn run(options: &Options, trace: Trace) -> Result<Report, Box<dyn std::error::Error + Send + Sync>> {
    let mut rng = Rng::new(options.seed).fork(0x0b0e);
    let shared = Shared::new(1 + rng.below(3) as u32, trace.clone());
    let latency_max = Duration::from_millis(1 + rng.below(10));
    let mut cluster = Cluster::new(&ClusterConfig {
        latency_min: Duration::from_micros(100),
        latency_max,
        duration_max: Duration::from_secs(600),
        ..ClusterConfig::new(options.seed)
    });
    let cores = 1 + rng.below(2) as u16;
    let ended: Rc<RefCell<Vec<usize>>> = Rc::default();
    let mut nodes = Vec::new();
    for at in 0..options.nodes {
        let name = node_name(at);
        let config = node_config(at, options)?;
        let (ended, trace, shared) = (ended.clone(), trace.clone(), shared.clone());
        let life = Rc::new(Cell::new(0));
        let disk = cluster.node(&name, cores, move |node| {
            let (config, ended, trace) = (config.clone(), ended.clone(), trace.clone());
            let (shared, life) = (shared.clone(), life.replace(life.get() + 1));
            async move {
                let clock = node.runtime().clock;
                let outcome = run_node(node, config, cores, life, shared).await;
                // A node may end by itself when its disk fails it; it is started again.
                trace.note(clock.wall_ms(), &node_name(at), format_args!("ended: {outcome:?}"));
                ended.borrow_mut().push(at);
                Ok(())
            }
        });
        nodes.push((name, disk));
    }
    let names = add_clients(&mut cluster, options, &shared, &mut rng);
    let mut nemesis = Nemesis::new(options, nodes, names, latency_max, shared.clone(), trace.clone());
    let mut load_began = None;
    let mut restart_at = Duration::ZERO;
    let mut ends_when_healed = vec![0; options.nodes];
    while !cluster.step()? {
        let now = cluster.elapsed();
        if shared.phase() == Phase::Opening && options.nodes > 1 {
            nemesis.step_early(&mut cluster);
            admit_power_cuts(options, &mut nemesis, &shared)?;
        }
        if shared.phase() == Phase::Load {
            let began = *load_began.get_or_insert(now);
            nemesis.step(&mut cluster);
            admit_power_cuts(options, &mut nemesis, &shared)?;
            if nemesis.lies_told {
                shared.admit_lies();
            }
            if now >= began + options.load {
                nemesis.heal(&mut cluster);
                shared.enter(Phase::Healing);
            }
        }
        if now >= restart_at {
            restart_at = now + Duration::from_millis(500);
            for node in ended.take() {
                if nemesis.lies_told && shared.phase() >= Phase::Healing {
                    ends_when_healed[node] += 1;
                    if ends_when_healed[node] == ENDS_MAX {
                        nemesis.replace_disk(&mut cluster, node);
                    }
                }
                nemesis.start_again(&mut cluster, node);
            }
        }
    }
    let mut history = shared.history();
    for (partition, last) in &mut history.partitions {
        last.loss_admitted = shared.is_loss_admitted(TOPIC, PartitionIndex(partition.0.cast_signed()));
    }
    let is_forgiven = |group: &u32| {
        let partition = partition_for_key(&clients::group_name(*group), OFFSETS_PARTITIONS);
        shared.is_loss_admitted(OFFSETS_TOPIC, partition)
    };
    history.forgiven_groups = (0..GROUPS).filter(is_forgiven).collect();
    let mut verdict = judge(&history);
    verdict.violations.extend(shared.violations());
    if nemesis.has_replaced_most() {
        // Lies have cost the cluster itself: nobody is left who knows what was decided.
        verdict.violations.retain(|violation| violation.kind != Kind::NoProgress);
        return Ok(Report { verdict, faults: nemesis.faults, events: shared.events().clone() });
    }
    if verdict.counts.acknowledged_all == 0 {
        let facts = "not one record was acknowledged".to_owned();
        verdict.violations.push(Violation { kind: Kind::NoProgress, facts });
    }
    Ok(Report { verdict, faults: nemesis.faults, events: shared.events().clone() })
}

/// Tells the judges which machines lost what they had not flushed.
fn admit_power_cuts(
    options: &Options,
    nemesis: &mut Nemesis,
    shared: &Shared,
) -> Result<(), std::num::TryFromIntError> {
    for at in nemesis.power_cuts.drain(..).filter(|_| options.durability != Durability::Durable) {
        shared.power_cut(node_id(at)?);
        if options.nodes == 1 {
            // There is nobody else who has it.
            shared.admit_loss();
        }
    }
    Ok(())
}

fn node_id(at: usize) -> Result<NodeId, std::num::TryFromIntError> {
    Ok(NodeId(i32::try_from(at)? + 1))
}

fn node_name(at: usize) -> String {
    format!("node{at}")
}

async fn run_node(node: SimRuntime, config: NodeConfig, cores: u16, life: u32, shared: Shared) -> CoreResult {
    let clock = node.runtime().clock;
    let Seated { seats, reported, handle } = node::seat(config, cores, Box::new(|_, _| Box::pin(async {})));
    tokio::select! {
        biased;
        ended = node.run_cores(seats, node::run_core) => ended?,
        () = sights::watch(handle, clock, cores, life, shared) => {}
    }
    match reported.try_recv() {
        Ok(Err(error)) => Err(error.to_string().into()),
        _ => Ok(()),
    }
}

fn node_config(at: usize, options: &Options) -> Result<NodeConfig, Box<dyn std::error::Error + Send + Sync>> {
    let offsets_partitions = OFFSETS_PARTITIONS.to_string();
    let settings = [
        ("log.ouzel.durability", name_of(options.durability)),
        ("offsets.topic.num.partitions", offsets_partitions.as_str()),
        ("auto.create.topics.enable", "false"),
        ("default.replication.factor", if options.nodes >= 3 { "3" } else { "1" }),
        ("offsets.topic.replication.factor", if options.nodes >= 3 { "3" } else { "1" }),
    ];
    let settings = StaticConfig::from_settings(settings).map_err(|error| format!("{error:?}"))?;
    let name = node_name(at);
    let seeds = (0..options.nodes).map(|at| format!("{}:{RPC_PORT}", node_name(at)));
    Ok(NodeConfig {
        node_id: node_id(at)?,
        data_dir: DATA_DIR.into(),
        kafka_listener: format!("0.0.0.0:{KAFKA_PORT}"),
        advertised: Some((name.clone(), KAFKA_PORT)),
        rpc_listener: format!("{name}:{RPC_PORT}"),
        seeds: if options.nodes > 1 { seeds.collect() } else { Vec::new() },
        memory_bytes: MEMORY_BYTES,
        broker: BrokerConfig::resolve(&Layers::of_static(&settings)),
        settings,
    })
}

fn name_of(durability: Durability) -> &'static str {
    match durability {
        Durability::Durable => "durable",
        Durability::WriteCaching => "write-caching",
        Durability::Os => "os",
    }
}

fn add_clients(cluster: &mut Cluster<'_>, options: &Options, shared: &Shared, rng: &mut Rng) -> Vec<String> {
    let bootstrap: Vec<_> = (0..options.nodes).map(|at| format!("{}:{KAFKA_PORT}", node_name(at))).collect();
    let bootstrap = bootstrap.join(",");
    let mut names = Vec::new();
    for at in 0..2 + rng.below(3) {
        let (name, idempotent) = (format!("producer{at}"), at % 2 == 0);
        let (bootstrap, shared) = (bootstrap.clone(), shared.clone());
        names.push(name.clone());
        cluster
            .client(&name.clone(), move |node| clients::produce(node, name, bootstrap, idempotent, shared));
    }
    for at in 0..1 + rng.below(2) {
        let name = format!("reader{at}");
        let (bootstrap, shared) = (bootstrap.clone(), shared.clone());
        names.push(name.clone());
        cluster.client(&name.clone(), move |node| clients::read(node, name, bootstrap, shared));
    }
    for group in 0..GROUPS {
        let name = format!("group{group}");
        let (bootstrap, shared) = (bootstrap.clone(), shared.clone());
        names.push(name.clone());
        cluster.client(&name, move |node| clients::commit(node, group, bootstrap, shared));
    }
    let (nodes, factor) = (options.nodes, if options.nodes >= 3 { 3 } else { 1 });
    {
        let (bootstrap, shared) = (bootstrap.clone(), shared.clone());
        names.push("maker".to_owned());
        cluster.client("maker", move |node| clients::make_topics(node, bootstrap, factor, shared));
    }
    let shared = shared.clone();
    cluster.client("judge", move |node| {
        clients::look_at_the_end(node, bootstrap, factor, GROUPS, nodes, shared)
    });
    names
}
