//! One run of a seed, from founding the groups to the verdict.

use std::time::Duration;

use ouzel_raft::ReplicatedLog;
use ouzel_runtime::sim::{self, Rng};
use ouzel_storage::Durability;

use super::clients::{self, Producer, read_once};
use super::controller;
use super::nemesis::{Nemesis, leader_of};
use super::sights;
use super::world::{Plan, World};
use crate::check::history::{Final, PartitionId};
use crate::check::verdict::Kind;
use crate::check::{Verdict, judge, judge_told};
use crate::content;
use crate::events::Events;
use crate::trace::Trace;

/// A healed group that does not serve by then does not serve.
const PATIENCE: Duration = Duration::from_secs(40);

/// A wrong that is done on purpose, to see that the judges notice it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Flushes do nothing: votes, entries and truncations are gone with the power, as if nobody had asked for a flush.
    Unflushed,
    /// acks=all is answered when the leader has written the batch, before a quorum has it.
    EarlyAcknowledgement,
    /// Readers are shown what lies above the high watermark.
    UncommittedReads,
    /// A batch that an idempotent producer sends again is taken for a new one.
    ForgottenSequences,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where all chance comes from.
    pub seed: u64,
    /// How many nodes, three or five.
    pub nodes: usize,
    /// What acknowledgement promises; drawn from the seed if not given.
    pub durability: Option<Durability>,
    /// Whether disks may lie: then losses are counted.
    pub lying_disks: bool,
    /// How long clients work and faults happen.
    pub load: Duration,
    /// What is done wrong on purpose.
    pub planted: Option<Planted>,
}

impl Options {
    /// A run of three nodes and the default length.
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            nodes: 3,
            durability: None,
            lying_disks: false,
            load: Duration::from_secs(15),
            planted: None,
        }
    }

    /// What acknowledgement promises in the run.
    pub fn durability(&self) -> Durability {
        self.durability.unwrap_or_else(|| durability(&mut self.chance()))
    }

    fn chance(&self) -> Rng {
        Rng::new(self.seed).fork(0x6209)
    }
}

fn durability(rng: &mut Rng) -> Durability {
    match rng.below(4) {
        0 => Durability::WriteCaching,
        1 => Durability::Os,
        _ => Durability::Durable,
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
    /// What it ran with.
    pub durability: Durability,
}

/// Runs a seed; what happens goes into `trace`.
pub fn run(options: &Options, trace: Trace) -> Report {
    let options = options.clone();
    sim::run(options.seed, |machine| async move {
        let mut rng = options.chance();
        let drawn = durability(&mut rng);
        let members = if options.nodes >= 5 && rng.chance(1, 3) { 5 } else { 3.min(options.nodes) };
        let plan = Plan {
            seed: options.seed,
            nodes: options.nodes,
            groups: 1 + rng.below(3) as u32,
            members,
            durability: options.durability.unwrap_or(drawn),
            own_ticks: rng.chance(1, 2),
            retains: Rng::new(options.seed).fork(0x2e7a).chance(2, 3),
            planted: options.planted,
        };
        let world = World::new(machine.runtime(), &plan, trace);
        let faults = play(&world, &options, &mut rng).await;
        let mut history = world.history.borrow().clone();
        history.have_disks_lied = world.lies_told.get();
        history.forgiven_partitions = history.written_to();
        history.forgiven_partitions.retain(|partition| world.is_loss_admitted(partition.0));
        for (partition, last) in &mut history.partitions {
            last.log_start_max = world.groups[partition.0 as usize].trimmed_to.get();
        }
        let mut verdict = judge(&history);
        if !world.lies_told.get() {
            verdict.violations.extend_from_slice(&world.verdict.borrow().violations);
            verdict.violations.extend_from_slice(world.watch.borrow().violations());
            judge_told(world.events.count("losses-told"), &mut verdict);
        }
        // What is on a disk that lied counts for nothing.
        if verdict.counts.acknowledged_all == 0 && !world.lies_told.get() {
            verdict.broken(Kind::NoProgress, "not one record was acknowledged");
        }
        for node in 0..world.nodes.len() {
            world.kill(node);
        }
        Report { verdict, faults, durability: plan.durability, events: world.events.clone() }
    })
}

async fn play(world: &World, options: &Options, rng: &mut Rng) -> u64 {
    let carrying = ouzel_runtime::spawn(world.clone().carry());
    let watching = ouzel_runtime::spawn(sights::watch(world.clone()));
    for node in 0..world.nodes.len() {
        world.start(node);
    }
    let governing = world.partitions().into_iter().map(|group| controller::govern(world.clone(), group.0));
    let governing: Vec<_> = governing.map(ouzel_runtime::spawn).collect();
    let mut working = Vec::new();
    let groups = world.groups.len() as u64;
    for nth in 0..groups + 1 + rng.below(3) {
        let producer = Producer::new(world, nth, (nth % groups) as u32, rng.chance(2, 3));
        working.push(ouzel_runtime::spawn(producer.run()));
    }
    for nth in 0..1 + rng.below(3) {
        working.push(ouzel_runtime::spawn(clients::read(world.clone(), nth)));
    }
    let faults = Nemesis::new(world, options.lying_disks).run(options.load).await;
    world.load.set(false);
    for work in working {
        // A client that panicked has ended the run.
        let _ = work.await;
    }
    for group in world.partitions() {
        look_at_the_end(world, group).await;
    }
    sights::look(world);
    watching.abort();
    carrying.abort();
    governing.iter().for_each(|task| task.abort());
    faults
}

/// Shows that a group serves and that its replicas agree, and reads all it holds.
async fn look_at_the_end(world: &World, group: PartitionId) {
    let deadline = world.now() + PATIENCE;
    let mut producer = Producer::new(world, 1000 + u64::from(group.0), group.0, true);
    let mut served = false;
    while !served && world.now() < deadline {
        served = producer.last().await;
    }
    if !served {
        world.broken(Kind::NoProgress, format!("group {} takes no records", group.0));
    }
    let mut agreed = false;
    while !agreed && world.now() < deadline {
        agreed = agree(world, group.0);
        world.sleep_ms(50).await;
    }
    if !agreed {
        let seen: Vec<_> = world
            .nodes
            .iter()
            .filter_map(|node| node.inside.borrow().clone()?.group(group.0))
            .map(|replica| format!("{}: {:?}", replica.replica(), replica.status()))
            .collect();
        world.broken(
            Kind::NoProgress,
            format!("group {}: its replicas do not come together: {seen:?}", group.0),
        );
    }
    sights::compare_contents(world, group.0).await;
    let mut last = Final::default();
    let mut next = None;
    while world.now() < deadline + PATIENCE {
        // It may change: one that was to leave hands over now.
        let Some((leader, replica)) = leader_of(world, group.0) else {
            world.sleep_ms(100).await;
            continue;
        };
        let log_start = replica.offsets().log_start;
        let from = next.map_or(log_start, |next| log_start.max(next));
        drop(replica);
        let Some(Some(seen)) = read_once(world, leader, group.0, from).await else {
            world.sleep_ms(100).await;
            continue;
        };
        last.log_start = seen.log_start;
        last.high_watermark = seen.high_watermark;
        let read_to = match content::records(&seen.pieces, from) {
            Ok(records) => {
                let read_to = records.last().map_or(from, |(offset, ..)| *offset + 1);
                last.records.extend(records);
                read_to
            }
            Err(reason) => {
                world.broken(Kind::UnexpectedError, format!("group {} from {from}: {reason}", group.0));
                return;
            }
        };
        if read_to >= last.high_watermark {
            world.history.borrow_mut().partitions.insert(group, last);
            return;
        }
        next = Some(read_to);
    }
    world.broken(Kind::NoProgress, format!("group {} cannot be read from {next:?}", group.0));
}

/// Whether all members run and hold the same, all of it committed.
fn agree(world: &World, group: u32) -> bool {
    let Some((_, leader)) = leader_of(world, group) else { return false };
    let end = leader.offsets().log_end;
    let partition = world.groups[group as usize].partition.borrow().clone();
    !partition.is_moving()
        && partition.replicas.iter().all(|member| {
            let inside = world.nodes[world.place_of(member.node)].inside.borrow().clone();
            let replica = inside.and_then(|inside| inside.group(group));
            replica.is_some_and(|replica| {
                let offsets = replica.offsets();
                let holds = replica.status().last_entry == leader.status().last_entry;
                replica.replica() == *member
                    && holds
                    && offsets.log_end == end
                    && offsets.high_watermark == end
            })
        })
}
