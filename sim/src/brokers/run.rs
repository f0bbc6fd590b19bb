//! One run of a seed, from the first node to the verdict.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ouzel_broker::NodeConfig;
use ouzel_broker::node::{self, Seated};
use ouzel_model::{Offset, PartitionIndex, partition_for_key};
use ouzel_runtime::cores::CoreResult;
use ouzel_runtime::sim::{Cluster, ClusterConfig, Rng, SimRuntime};
use ouzel_storage::Durability;

use super::clients;
use super::machine::{self, id_of, node_name};
use super::nemesis::Nemesis;
use super::shared::{COMPACTED, OFFSETS_TOPIC, Phase, Shared, TOPIC};
use super::sights;
use crate::check::verdict::{Kind, Violation};
use crate::check::{Verdict, judge, judge_told};
use crate::events::Events;
use crate::trace::Trace;

/// Groups without members, of which somebody commits.
const GROUPS: u32 = 2;
/// The group that has members.
const MEMBERS_GROUP: u32 = GROUPS;
const MEMBERS: u32 = 3;
pub(super) const OFFSETS_PARTITIONS: i32 = 3;
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
    /// A wrong on purpose: in the end no node comes back.
    pub is_left_broken: bool,
}

impl Options {
    /// A run of one durable node and its default length.
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            nodes: 1,
            durability: Durability::Durable,
            lying_disks: false,
            load: Duration::from_secs(12),
            is_left_broken: false,
        }
    }

    /// A run of one node; what acknowledgement promises is drawn from the seed.
    pub fn single(seed: u64) -> Options {
        Options { durability: durability(&mut Options::chance(seed)), ..Options::new(seed) }
    }

    /// A run of three or five nodes: by seed, as is what acknowledgement promises.
    pub fn cluster(seed: u64) -> Options {
        let mut rng = Options::chance(seed);
        let durability = durability(&mut rng);
        Options { nodes: if rng.chance(1, 4) { 5 } else { 3 }, durability, ..Options::new(seed) }
    }

    fn chance(seed: u64) -> Rng {
        Rng::new(seed).fork(0xc1a5)
    }
}

/// What has the most to keep is tried the most.
fn durability(rng: &mut Rng) -> Durability {
    match rng.below(6) {
        0 => Durability::Os,
        1 => Durability::WriteCaching,
        _ => Durability::Durable,
    }
}

/// What is drawn from the seed beside the faults: what kind of cluster it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    /// The first nodes found the cluster; the others join.
    founders: usize,
    /// How many replicas topics are made with.
    pub(super) replicas: i16,
    /// With how many the topic of the records begins.
    pub(super) replicas_at_first: i16,
    /// Whether partitions are moved to fewer replicas than they had, and back.
    shrinks: bool,
    /// Whether machines lose their disks.
    wipes: bool,
    /// Whether old records of the topic go.
    pub(super) retains: bool,
}

impl Plan {
    fn of(options: &Options) -> Plan {
        let mut rng = Rng::new(options.seed).fork(0x91a7);
        let is_cluster = options.nodes >= 3;
        let replicas = if is_cluster { 3 } else { 1 };
        // Who is alone with a record loses it with the power, or the disk.
        let may_shrink = is_cluster && options.durability == Durability::Durable;
        let shrinks = may_shrink && rng.chance(1, 3);
        let starts_small = rng.chance(1, 2);
        let is_late = rng.chance(1, 2);
        let wipes = rng.chance(1, 2);
        Plan {
            nodes: options.nodes,
            founders: if options.nodes >= 5 && is_late { 3 } else { options.nodes },
            replicas,
            replicas_at_first: if shrinks && starts_small { 1 } else { replicas },
            shrinks,
            wipes: is_cluster && wipes && !shrinks && !options.lying_disks,
            retains: rng.chance(1, 4),
        }
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
    let plan = Plan::of(options);
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
        let config = node_config(at, options, &plan)?;
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
    let names = add_clients(&mut cluster, plan, &shared, &mut rng);
    let mut nemesis =
        Nemesis::new(options, nodes, names, latency_max, plan.wipes, shared.clone(), trace.clone());
    let mut late: Vec<usize> = (plan.founders..plan.nodes).collect();
    let mut load_began = None;
    let mut restart_at = Duration::ZERO;
    let mut ends_when_healed = vec![0; options.nodes];
    // Where lies have cost the cluster itself nobody has anything left to wait for.
    while !nemesis.has_replaced_most() && !cluster.step()? {
        let now = cluster.elapsed();
        shared.set_elapsed(now);
        late.drain(..).for_each(|node| nemesis.hold_back(&mut cluster, node));
        if shared.phase() == Phase::Opening && options.nodes > 1 {
            nemesis.step_early(&mut cluster);
            admit_power_cuts(options, &mut nemesis, &shared);
        }
        if shared.phase() == Phase::Load {
            let began = *load_began.get_or_insert(now);
            nemesis.step(&mut cluster);
            admit_power_cuts(options, &mut nemesis, &shared);
            if nemesis.lies_told {
                shared.admit_lies();
            }
            if now >= began + options.load {
                match options.is_left_broken {
                    true => nemesis.leave_broken(&mut cluster),
                    false => nemesis.heal(&mut cluster),
                }
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
    history.have_disks_lied = nemesis.lies_told;
    history.forgiven_partitions = history.written_to();
    history
        .forgiven_partitions
        .retain(|partition| shared.is_loss_admitted(TOPIC, PartitionIndex(partition.0.cast_signed())));
    if plan.retains {
        // A clock that is ahead makes all records old.
        history.partitions.values_mut().for_each(|last| last.log_start_max = Offset(i64::MAX));
    }
    let is_forgiven = |group: &u32| {
        let partition = partition_for_key(&clients::group_name(*group), OFFSETS_PARTITIONS);
        shared.is_loss_admitted(OFFSETS_TOPIC, partition)
    };
    history.is_compacted_forgiven = shared.is_loss_admitted(COMPACTED, PartitionIndex(0));
    history.forgiven_groups = (0..=MEMBERS_GROUP).filter(is_forgiven).collect();
    let mut verdict = judge(&history);
    verdict.violations.extend(shared.violations());
    if plan.nodes > 1 && !nemesis.lies_told {
        judge_told(shared.events().count("losses-told"), &mut verdict);
    }
    if nemesis.has_replaced_most() {
        // Nobody is left who knows what was decided.
        verdict.violations.retain(|violation| violation.kind != Kind::NoProgress);
        return Ok(Report { verdict, faults: nemesis.faults, events: shared.events().clone() });
    }
    // What is on a disk that lied counts for nothing.
    if verdict.counts.acknowledged_all == 0 && !nemesis.lies_told {
        let facts = "not one record was acknowledged".to_owned();
        verdict.violations.push(Violation { kind: Kind::NoProgress, facts });
    }
    Ok(Report { verdict, faults: nemesis.faults, events: shared.events().clone() })
}

/// Tells the judges which machines lost what they had not flushed.
fn admit_power_cuts(options: &Options, nemesis: &mut Nemesis, shared: &Shared) {
    for at in nemesis.power_cuts.drain(..).filter(|_| options.durability != Durability::Durable) {
        shared.power_cut(id_of(at));
        if options.nodes == 1 {
            // There is nobody else who has it.
            shared.admit_loss();
        }
    }
}

async fn run_node(node: SimRuntime, config: NodeConfig, cores: u16, life: u32, shared: Shared) -> CoreResult {
    let (clock, id) = (node.runtime().clock, config.node_id);
    let Seated { seats, reported, handle } = node::seat(config, cores, Box::new(|_, _| Box::pin(async {})));
    tokio::select! {
        biased;
        ended = node.run_cores(seats, node::run_core) => ended?,
        () = sights::watch(handle, id, clock, cores, life, shared) => {}
    }
    match reported.try_recv() {
        Ok(Err(error)) => Err(error.to_string().into()),
        _ => Ok(()),
    }
}

fn node_config(
    at: usize,
    options: &Options,
    plan: &Plan,
) -> Result<NodeConfig, Box<dyn std::error::Error + Send + Sync>> {
    let replicas = plan.replicas.to_string();
    let offsets_partitions = OFFSETS_PARTITIONS.to_string();
    let settings = [
        ("log.ouzel.durability", name_of(options.durability)),
        ("offsets.topic.num.partitions", offsets_partitions.as_str()),
        ("auto.create.topics.enable", "false"),
        ("default.replication.factor", replicas.as_str()),
        ("offsets.topic.replication.factor", replicas.as_str()),
        // All that a cluster does in days is to happen in seconds.
        ("group.min.session.timeout.ms", "500"),
        ("group.initial.rebalance.delay.ms", "100"),
        ("log.retention.check.interval.ms", "1000"),
        ("log.roll.ms", "2500"),
        ("log.cleaner.backoff.ms", "300"),
        ("log.cleaner.min.cleanable.ratio", "0.05"),
        ("metadata.log.max.record.bytes.between.snapshots", "3000"),
    ];
    let founders = if options.nodes > 1 { plan.founders } else { 0 };
    Ok(machine::node_config(at, founders, &settings)?)
}

fn name_of(durability: Durability) -> &'static str {
    match durability {
        Durability::Durable => "durable",
        Durability::WriteCaching => "write-caching",
        Durability::Os => "os",
    }
}

fn add_clients(cluster: &mut Cluster<'_>, plan: Plan, shared: &Shared, rng: &mut Rng) -> Vec<String> {
    let bootstrap = machine::bootstrap(plan.nodes);
    let mut names = Vec::new();
    let mut named = |name: &str| {
        names.push(name.to_owned());
        (name.to_owned(), bootstrap.clone(), shared.clone())
    };
    for at in 0..2 + rng.below(3) {
        let idempotent = at % 2 == 0;
        let (name, bootstrap, shared) = named(&format!("producer{at}"));
        cluster
            .client(&name.clone(), move |node| clients::produce(node, name, bootstrap, idempotent, shared));
    }
    for at in 0..1 + rng.below(2) {
        let (name, bootstrap, shared) = named(&format!("reader{at}"));
        cluster.client(&name.clone(), move |node| clients::read(node, name, bootstrap, shared));
    }
    for group in 0..GROUPS {
        let (name, bootstrap, shared) = named(&format!("group{group}"));
        cluster.client(&name, move |node| clients::commit(node, group, bootstrap, shared));
    }
    for nth in 0..MEMBERS {
        let (name, bootstrap, shared) = named(&format!("member{nth}"));
        cluster.client(&name.clone(), move |node| {
            clients::take_part(node, name, nth, MEMBERS_GROUP, bootstrap, shared)
        });
    }
    let (name, bootstrap, shared) = named("upserter");
    cluster.client(&name, move |node| clients::upsert(node, bootstrap, shared));
    let (name, bootstrap, shared) = named("maker");
    cluster.client(&name, move |node| clients::make_topics(node, bootstrap, plan.replicas, shared));
    if plan.nodes > 1 {
        let (name, bootstrap, shared) = named("operator");
        cluster
            .client(&name, move |node| clients::operate(node, bootstrap, plan.nodes, plan.shrinks, shared));
    }
    // Whoever judges is cut off from nobody.
    let (_, bootstrap, shared) = named("judge");
    names.pop();
    cluster.client("judge", move |node| {
        clients::look_at_the_end(node, bootstrap, plan, MEMBERS_GROUP + 1, shared)
    });
    names
}
